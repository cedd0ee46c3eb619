"""The record that makes CompleteMultipartUpload repeatable: `.s4mpu/<hex(id)>/completion`.

It is written before the store is asked to complete the upload and again when all is done, and it
outlives the upload for a while: a client whose answer was lost asks again, perhaps another process,
and must get the same answer instead of NoSuchUpload. What is read back is not trusted.
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Final

from s4gateway.backend.base import Backend, Body
from s4gateway.objects.errors import DamagedObject
from s4gateway.objects.uploads import Uploads, decode_json
from s4gateway.s3.checksums import ALGORITHMS
from s4gateway.s3.completion import COMPOSITE, FULL_OBJECT, Checksum
from s4gateway.s3.errors import S3Error
from s4gateway.wire import keys
from s4gateway.wire.tail import is_token

_VERSION: Final = 1
_is_manifest: Final = re.compile("[0-9a-f]{64}").fullmatch
_is_etag: Final = re.compile("[0-9a-f]{32}-[0-9]{1,5}").fullmatch
_is_value: Final = re.compile("[A-Za-z0-9+/]{1,128}={0,2}(-[0-9]{1,5})?").fullmatch
_is_version_id: Final = re.compile("[!-~]{1,1024}").fullmatch


@dataclass(frozen=True, slots=True)
class CompletionRecord:
    """What an upload was, or is about to be, completed to.

    `manifest` is the digest of the client's list of parts, `etag` and `checksum` what the client is
    answered with. `committed`: the object is there and nothing but the removal of records is left.
    """

    upload_id: str
    key: str
    token: str
    manifest: str
    etag: str
    checksum: Checksum | None = None
    committed: bool = False
    version_id: str | None = None

    def encode(self) -> bytes:
        """The record as it is stored."""
        fields = {
            "v": _VERSION,
            "upload_id": self.upload_id,
            "key": self.key,
            "token": self.token,
            "manifest": self.manifest,
            "etag": self.etag,
            "checksum": self.checksum,
            "committed": self.committed,
            "version_id": self.version_id,
        }
        return json.dumps(fields, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> "CompletionRecord":
        """Read a record; raises DamagedObject for what is none."""
        fields = decode_json(data)
        checksum, version_id = fields.get("checksum"), fields.get("version_id")
        texts: dict[str, Any] = {name: fields.get(name) for name in _TEXTS}
        if (
            not all(isinstance(text, str) for text in texts.values())
            or not is_token(texts["token"])
            or _is_manifest(texts["manifest"]) is None
            or _is_etag(texts["etag"]) is None
            or not (checksum is None or _is_checksum(checksum))
            or not isinstance(fields.get("committed"), bool)
            or not (version_id is None or _matches_version(version_id))
        ):
            msg = "the record of a completed multipart upload is malformed"
            raise DamagedObject(msg)
        found = None if checksum is None else (checksum[0], checksum[1], checksum[2])
        return cls(**texts, checksum=found, committed=fields["committed"], version_id=version_id)


_TEXTS: Final = ("upload_id", "key", "token", "manifest", "etag")


def _is_checksum(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(each, str) for each in value)
        and value[0] in ALGORITHMS
        and _is_value(value[1]) is not None
        and value[2] in (COMPOSITE, FULL_OBJECT)
    )


def _matches_version(value: Any) -> bool:
    return isinstance(value, str) and _is_version_id(value) is not None


async def load(uploads: Uploads, bucket: str, key: str, upload_id: str) -> CompletionRecord | None:
    """Read the record of an upload; None when there is none.

    Raises NoSuchUpload when the upload was for another key, DamagedObject, BackendError.
    """
    data = await uploads.read(bucket, upload_id, keys.completion_key(upload_id))
    if data is None:
        return None
    record = CompletionRecord.decode(data)
    if record.upload_id != upload_id:
        msg = "the record of a completed multipart upload names another one"
        raise DamagedObject(msg)
    if record.key != key:
        raise S3Error("NoSuchUpload", UploadId=upload_id)
    return record


async def store(backend: Backend, bucket: str, record: CompletionRecord) -> None:
    """Write the record with the gateway's own identity; raises BackendError."""
    data = record.encode()
    md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
    key = keys.completion_key(record.upload_id)
    await backend.put(bucket, key, Body.of(data, md5=md5), [("content-type", "application/json")])
