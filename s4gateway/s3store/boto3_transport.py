"""Any boto3 S3 client as a transport.

boto3 blocks, so each request, and what is to be done with its body at once, runs in a thread of a
pool of its own: a thread of it never waits for another, hence the pool cannot lock up. Rule: the
caller's client is never changed. A twin shares its connections and settings and has an event system
of its own, through which each request gets its extra headers before it is signed.
"""

import asyncio
import contextvars
import email.utils
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeVar

import boto3
import botocore.client
import botocore.config
import botocore.exceptions as boto_errors
import botocore.session
import botocore.utils

from s4gateway.s3store import errors, layout
from s4gateway.s3store.errors import ConfigError
from s4gateway.s3store.transport import (
    NO_HEADERS,
    HeadInfo,
    Listed,
    ListPage,
    PutInfo,
    RangeInfo,
)

_Answer = TypeVar("_Answer")
_Result = TypeVar("_Result")
_LARGE: Final = 1024 * 1024  # bytes from which it pays to ask a store before sending them
_content_range: Final = re.compile(r"bytes (\d+)-\d+/(\d+)").fullmatch

# No whole answer came: worth another try.
_BROKEN: Final = (
    boto_errors.HTTPClientError,
    boto_errors.ConnectionError,
    boto_errors.IncompleteReadError,
    boto_errors.ResponseStreamingError,
    boto_errors.ReadTimeoutError,
    boto_errors.ConnectTimeoutError,
    OSError,
)


def new_client(endpoint_url: str | None = None, *, connections: int = 32, **options: Any) -> Any:
    """Return a boto3 client made for datasets; `options` are those of `boto3.client`.

    It does not retry (the retries of a dataset are the policy; boto3's would multiply them and use
    up the time a commit has), keeps as many connections as requests may be under way, gives up a
    connect after 3 s and a read after 60 s, and sends no checksum trailers, which many stores
    refuse: what was stored is checked against its ETag. A request costs less CPU than with a
    client of boto3's own, which reads every date in whatever format it is, checks parameters, and
    puts its `User-Agent` together anew each time.
    """
    core = botocore.session.Session()
    dates = core.get_component("response_parser_factory")
    dates.set_parser_defaults(timestamp_parser=moment_of)
    config = botocore.config.Config(
        retries={"total_max_attempts": 1},
        max_pool_connections=connections,
        connect_timeout=3,
        read_timeout=60,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        parameter_validation=False,
        disable_request_compression=True,
        inject_host_prefix=False,
        user_agent=core.user_agent(),
        s3={"addressing_style": "path"} if endpoint_url else {},
    )
    session = boto3.session.Session(botocore_session=core)
    return session.client("s3", endpoint_url=endpoint_url, config=config, **options)


def moment_of(text: Any) -> datetime:
    """Return a moment of an S3 answer: ISO 8601 in bodies, RFC 9110 in headers.

    >>> moment_of("2026-03-01T12:00:00.500Z") - moment_of("Sun, 01 Mar 2026 12:00:00 GMT")
    datetime.timedelta(microseconds=500000)
    """
    try:
        if text[10:11] == "T":
            moment = datetime.fromisoformat(text)
        else:
            moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError):
        moment = botocore.utils.parse_timestamp(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class _Request(NamedTuple):
    """What the handler of a request's event has to know of it."""

    headers: Mapping[str, str] = NO_HEADERS
    large: bool = False


_PLAIN: Final = _Request()


class Boto3Transport:
    """Requests to `bucket` through a boto3 client, `workers` at a time."""

    def __init__(self, client: Any, bucket: str, *, workers: int) -> None:
        self._request: contextvars.ContextVar[_Request] = contextvars.ContextVar(
            "request", default=_PLAIN
        )
        self._client = _twin(client, self._prepare)
        self._bucket = bucket
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="s3store")

    def _prepare(self, params: dict[str, Any], **_: Any) -> None:
        request = self._request.get()
        params["headers"].update(request.headers)
        if not request.large:  # boto3 would wait for a 100 Continue before it sends nothing at all
            params["headers"].pop("Expect", None)

    async def put(
        self,
        key: str,
        body: bytes,
        *,
        content_type: str = layout.CONTENT_TYPE,
        metadata: Mapping[str, str] | None = None,
        if_none_match: bool = False,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> PutInfo:
        """Store an object."""
        more: dict[str, Any] = {"Metadata": dict(metadata)} if metadata else {}
        if if_none_match:
            more["IfNoneMatch"] = "*"

        def send() -> PutInfo:
            answer = self._client.put_object(
                Bucket=self._bucket, Key=key, Body=body, ContentType=content_type, **more
            )
            return PutInfo(answer.get("ETag", ""), _is_opaque(answer))

        request = _Request(headers, len(body) >= _LARGE)
        return await self._run("put", key, request, send, _as_it_is)

    async def get(self, key: str, *, headers: Mapping[str, str] = NO_HEADERS) -> bytes:
        """Return an object's body."""
        return await self._get(key, _as_it_is, headers)

    async def get_then(
        self, key: str, work: Callable[[bytes], _Result], *, headers: Mapping[str, str] = NO_HEADERS
    ) -> _Result:
        """Return what `work` makes of an object's body, on the thread where that has arrived."""
        return await self._get(key, work, headers)

    async def _get(
        self, key: str, work: Callable[[bytes], _Result], headers: Mapping[str, str]
    ) -> _Result:
        def send() -> bytes:
            answer = self._client.get_object(Bucket=self._bucket, Key=key)
            return _body(answer)

        return await self._run("get", key, _Request(headers), send, work)

    async def get_range(
        self,
        key: str,
        start: int | None,
        length: int,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> RangeInfo:
        """Return part of an object."""
        wanted = f"-{length}" if start is None else f"{start}-{start + length - 1}"

        def send() -> RangeInfo:
            answer = self._client.get_object(Bucket=self._bucket, Key=key, Range=f"bytes={wanted}")
            body = _body(answer)
            found = _content_range(answer.get("ContentRange", ""))
            if found:
                return RangeInfo(body, int(found[1]), int(found[2]))
            return _cut(body, start, length)

        return await self._run("get", key, _Request(headers), send, _as_it_is)

    async def head(self, key: str, *, headers: Mapping[str, str] = NO_HEADERS) -> HeadInfo | None:
        """Return what HEAD says, None for a key that is absent."""

        def send() -> HeadInfo:
            answer = self._client.head_object(Bucket=self._bucket, Key=key)
            described = {name.lower(): value for name, value in answer["Metadata"].items()}
            return HeadInfo(answer["ContentLength"], answer.get("ETag", ""), described)

        try:
            return await self._run("head", key, _Request(headers), send, _as_it_is)
        except errors.NotFound:
            return None

    async def list_page(
        self,
        prefix: str,
        *,
        start_after: str = "",
        token: str = "",
        max_keys: int = 1000,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> ListPage:
        """Return one page of the keys under `prefix`."""
        more: dict[str, Any] = {"StartAfter": start_after} if start_after else {}
        if token:
            more["ContinuationToken"] = token

        def send() -> ListPage:
            answer = self._client.list_objects_v2(
                Bucket=self._bucket, Prefix=prefix, MaxKeys=max_keys, **more
            )
            objects = tuple(
                Listed(entry["Key"], entry["Size"], entry["LastModified"])
                for entry in answer.get("Contents", ())
            )
            following = answer.get("NextContinuationToken", "")
            return ListPage(objects, following if answer.get("IsTruncated") else "")

        return await self._run("list", prefix, _Request(headers), send, _as_it_is)

    async def aclose(self) -> None:
        """End the threads; the client stays open, it is the caller's."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _run(
        self,
        op: str,
        key: str,
        request: _Request,
        send: Callable[[], _Answer],
        work: Callable[[_Answer], _Result],
    ) -> _Result:
        def in_thread() -> _Result:
            self._request.set(request)
            try:
                answer = send()
            except (boto_errors.BotoCoreError, boto_errors.ClientError, OSError) as error:
                raise translated(op, key, error) from error
            try:
                return work(answer)
            except StopIteration as error:  # which no future can hold (PEP 479)
                raise RuntimeError("the work on a body raised StopIteration") from error

        # Sent within the caller's context, so that tracing of HTTP clients finds its parent.
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, context.run, in_thread)


def _as_it_is(answer: _Answer) -> _Answer:
    return answer


def translated(op: str, key: str, error: Exception) -> errors.TransportError:
    """Return what went wrong in this package's terms."""
    if isinstance(error, boto_errors.ClientError):
        return _answered(op, key, error.response)
    name = type(error).__name__
    if isinstance(error, boto_errors.FlexibleChecksumError):
        return errors.IntegrityError(op, key, code=name, message=str(error))
    if isinstance(error, _BROKEN) or name == "ResponseParserError":
        return errors.ConnectionFailed(op, key, code=name, message=str(error))
    return errors.ClientError(op, key, code=name, message=str(error))


def _answered(op: str, key: str, answer: Mapping[str, Any]) -> errors.TransportError:
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    said = answer.get("Error", {})
    code = str(said.get("Code", ""))
    kind = _kind(op, status, code)
    return kind(op, key, status=status, code=code, message=str(said.get("Message", "")))


def _kind(op: str, status: int, code: str) -> type[errors.TransportError]:
    """A bucket that does not exist is no missing key: nothing about it is worth a second look."""
    if code == "SlowDown" or status == 429:
        return errors.Throttled
    if status >= 500:
        return errors.ServerError
    if status == 404 and op in ("get", "head") and code != "NoSuchBucket":
        return errors.NotFound
    if status == 412:
        return errors.PreconditionFailed
    if status == 403:
        return errors.AccessDenied
    return errors.ClientError


def _body(answer: Mapping[str, Any]) -> bytes:
    with answer["Body"] as stream:
        body: bytes = stream.read()
    return body


def _cut(body: bytes, start: int | None, length: int) -> RangeInfo:
    """What was asked for, out of a whole body: a store may ignore Range."""
    first = max(0, len(body) - length) if start is None else start
    return RangeInfo(body[first : first + length], first, len(body))


def _is_opaque(answer: Mapping[str, Any]) -> bool:
    by_kms = str(answer.get("ServerSideEncryption", "")).startswith("aws:kms")
    return by_kms or "SSECustomerAlgorithm" in answer


def _twin(client: Any, prepare: Callable[..., None]) -> Any:
    """A client with the same settings, connections and handlers, and room for one handler more."""
    if not isinstance(client, botocore.client.BaseClient):
        raise ConfigError(f"client: {client!r} is neither a boto3 S3 client nor a Transport")
    twin = object.__new__(type(client))
    twin.__dict__.update(client.__dict__)
    events = client.meta.events.__copy__()
    meta = object.__new__(type(client.meta))
    meta.__dict__.update(client.meta.__dict__)
    meta.events = events
    twin.meta = meta
    events.register("before-call.s3", prepare)
    return twin
