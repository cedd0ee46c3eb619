"""Objects over s3fs: every read pinned to one ETag, body and metadata stored together.

s3fs has what this needs in its generic call to the S3 API (`_call_s3`, with its credentials,
endpoint, retries and error translation); its own `cat_file` cannot be pinned and its `info` says
nothing of metadata. Requests run on fsspec's event loop; the calling thread waits.
"""

import contextlib
import errno
import sys
from collections.abc import Mapping
from functools import partial
from typing import IO, Any, Final

import fsspec.asyn

from s4gateway.s4fs import paths, threads
from s4gateway.s4fs.errors import S4IoError, S4ObjectChangedError, S4UnsupportedError
from s4gateway.s4fs.store import Head

PART: Final = 16 * 1024 * 1024  # bytes a request carries at most
_PARTS_AHEAD: Final = 2  # parts under way beside one
_MAX_PARTS: Final = 10_000
_ATTEMPTS: Final = 4  # at reading a body to its end
_FACTS: Final = ("LastModified", "StorageClass", "ContentType", "VersionId")
_PRECONDITION_FAILED: Final = 412
_RANGE_NOT_SATISFIABLE: Final = 416
_GONE: Final = frozenset({404, _PRECONDITION_FAILED})


def is_s3fs(fs: Any) -> bool:
    """Whether `fs` is s3fs; which is not imported to find out."""
    module = sys.modules.get("s3fs")
    return module is not None and isinstance(fs, module.S3FileSystem)


class S3Store:
    """The objects an `s3fs.S3FileSystem` reaches."""

    pins: Final = True

    def __init__(self, fs: Any) -> None:
        self._fs = fs
        self._dropped = sys.modules["s3fs"].core.S3_RETRYABLE_ERRORS

    def split(self, path: str) -> tuple[str, str]:
        """Return bucket and key; access points are buckets, too."""
        bucket, key, _ = self._fs.split_path(path)
        return bucket, key

    def _name(self, path: str) -> dict[str, str]:
        bucket, key, version = self._fs.split_path(path)
        if not key:
            raise FileNotFoundError(path)
        if version is None and paths.VERSION_MARK in path:
            msg = f"{path} names a version"
            raise S4UnsupportedError(msg, "use s3fs with version_aware=True below")
        name = {"Bucket": bucket, "Key": key}
        return name if version is None else {**name, "VersionId": version}

    def head(self, path: str) -> Head:
        """HEAD the object."""
        answer = self._call("head_object", path)
        return _head(path, answer, answer["ContentLength"])

    def first(self, path: str, limit: int, *, whole: bool = False) -> tuple[Head, bytes]:
        """GET the first bytes; the answer says what HEAD would have said."""
        name = self._name(path)
        try:
            found: tuple[Head, bytes] = self._run(self._first, path, name, limit, whole)
        except OSError as error:
            if _status(error) != _RANGE_NOT_SATISFIABLE:
                raise
            return self.head(path), b""  # it is empty
        return found

    async def _first(
        self, path: str, name: Mapping[str, str], limit: int, whole: bool
    ) -> tuple[Head, bytes]:
        answer = await self._fs._call_s3("get_object", Range=f"bytes=0-{limit - 1}", **name)
        body, length = answer["Body"], answer["ContentLength"]
        try:
            total = answer.get("ContentRange", "").rpartition("/")[2]
            size = int(total) if total.isdigit() else length
            head = _head(path, answer, size)
            if whole and size > limit:
                return head, b""
            return head, await _exactly(body, length, min(size, limit), path)
        finally:
            body.close()

    def read(self, head: Head, start: int, end: int) -> bytes:
        """GET a range of that version."""
        if start >= end:
            return b""
        name = self._name(head.path)
        if head.etag is not None:
            name["IfMatch"] = f'"{head.etag}"'
        try:
            data: bytes = self._run(self._range, head.path, name, start, end)
        except OSError as error:
            if _status(error) in _GONE:
                raise S4ObjectChangedError(head.path) from error
            raise
        return data

    async def _range(self, path: str, name: Mapping[str, str], start: int, end: int) -> bytes:
        answer = await self._fs._call_s3("get_object", Range=f"bytes={start}-{end - 1}", **name)
        body = answer["Body"]
        try:
            if (length := answer["ContentLength"]) != end - start:
                msg = f"{path}: {length} bytes came for a range of {end - start}"
                raise S4IoError(errno.EIO, msg)
            return await _exactly(body, length, length, path)
        finally:
            body.close()

    def _run(self, work: Any, *arguments: Any) -> Any:
        """Run on fsspec's loop; again when the connection breaks while a body is read."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return fsspec.asyn.sync(self._fs.loop, work, *arguments)
            except self._dropped:
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError

    def write(
        self, path: str, body: IO[bytes], size: int, metadata: Mapping[str, str],
        *, create: bool, options: Mapping[str, Any],
    ) -> str | None:  # fmt: skip
        """PUT a body that fits a request; send a larger one in parts.

        Either way the object appears at once, with its metadata: parts are only put together when
        the last of them has arrived, and the metadata is told when they begin.
        """
        body.seek(0)
        call: dict[str, Any] = {**options, "Metadata": dict(metadata)} if metadata else {**options}
        condition = {"IfNoneMatch": "*"} if create else {}
        try:
            if size <= PART:
                answer = self._call("put_object", path, Body=body.read(size), **call, **condition)
            else:
                answer = self._in_parts(path, body, size, call, condition)
        except OSError as error:
            if create and _status(error) == _PRECONDITION_FAILED:
                raise FileExistsError(path) from error
            raise
        return _etag(answer)

    def _in_parts(
        self, path: str, body: IO[bytes], size: int, call: Mapping[str, Any],
        condition: Mapping[str, str],
    ) -> Mapping[str, Any]:  # fmt: skip
        upload = self._call("create_multipart_upload", path, **call)["UploadId"]
        length = max(PART, -(-size // _MAX_PARTS))
        try:
            work = (
                partial(self._part, path, upload, number, body.read(length))
                for number in range(1, -(-size // length) + 1)
            )
            parts = list(threads.in_order(work, _PARTS_AHEAD))
            return self._call(
                "complete_multipart_upload", path, UploadId=upload,
                MultipartUpload={"Parts": parts}, **condition,
            )  # fmt: skip
        except BaseException:
            with contextlib.suppress(OSError):
                self._call("abort_multipart_upload", path, UploadId=upload)
            raise

    def _part(self, path: str, upload: str, number: int, data: bytes) -> dict[str, Any]:
        answer = self._call("upload_part", path, UploadId=upload, PartNumber=number, Body=data)
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def _call(self, operation: str, path: str, **arguments: Any) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = fsspec.asyn.sync(
            self._fs.loop, self._fs._call_s3, operation, **self._name(path), **arguments
        )
        return answer

    def remove(self, path: str) -> None:
        """DELETE; a HEAD first, for on a versioned bucket the delete of nothing leaves a marker."""
        try:
            self.head(path)
        except FileNotFoundError:
            return
        self._call("delete_object", path)


async def _exactly(body: Any, announced: int, length: int, path: str) -> bytes:
    """The first `length` bytes of a body of `announced` bytes."""
    if announced == length:
        data: bytes = await body.read()
    else:
        data = b""
        while len(data) < length and (piece := await body.read(length - len(data))):
            data += piece
    if len(data) != length:
        msg = f"{path}: the store's answer ended after {len(data)} of {length} bytes"
        raise S4IoError(errno.EIO, msg)
    return data


def _head(path: str, answer: Mapping[str, Any], size: int) -> Head:
    etag = _etag(answer)
    facts = {name: answer[name] for name in _FACTS if answer.get(name) is not None}
    metadata = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
    version = answer.get("VersionId") or f"{size}/{answer.get('LastModified')}"
    return Head(path, size, etag, etag or version, metadata, facts)


def _etag(answer: Mapping[str, Any]) -> str | None:
    return str(answer.get("ETag", "")).strip().removeprefix("W/").strip('"') or None


def _status(error: BaseException) -> int:
    """The HTTP status behind an error of s3fs, 0 when there is none."""
    response = getattr(error.__cause__ or error, "response", None)
    if not isinstance(response, Mapping):
        return 0
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
