"""Shared dictionaries as objects of a bucket: `.s4dict/<id>`, found, verified and published.

A dictionary is named by the first 16 hex digits of the SHA-256 of its bytes and is never changed,
so whoever has an id and a bucket can find the bytes and prove them. It lies in the bucket of the
objects that need it: losing it would lose them all, and a wrong one may decode to wrong bytes
without a word. Rule: nothing is used that was not fetched from that bucket and verified, by its id
and, where the metadata `s4-dict-sha256` tells it, by the whole digest.

    DictionaryError           it is not there, or its bytes are not what its name says
      DictionaryUnavailable   the store did not give it this time
      DictionaryConflict      other bytes stand under the id of the ones to be published
"""

import base64
import hashlib
from typing import Final

from s4gateway.backend.base import Backend, BackendAnswer, BackendError, Body
from s4gateway.codecs import zstd_dict
from s4gateway.codecs.base import CodecError
from s4gateway.codecs.zstd_dict import ZstdDict
from s4gateway.objects.errors import ObjectError
from s4gateway.s3.headers import USER_METADATA_PREFIX
from s4gateway.wire import keys
from s4gateway.wire.manifest import DICT_SHA256

MAX_SIZE: Final = zstd_dict.MAX_DICTIONARY_SIZE
CONTENT_TYPE: Final = "application/x-zstd-dictionary"
_UNKNOWN: Final = frozenset({"NotImplemented", "MethodNotAllowed"})  # of a condition on a PUT


class DictionaryError(ObjectError):
    """A dictionary that cannot be used; the message names it and its bucket.

    >>> str(DictionaryError("logs", "0123456789abcdef", "it does not exist"))
    'dictionary 0123456789abcdef of bucket logs: it does not exist'
    """

    def __init__(self, bucket: str, dict_id: str, problem: str) -> None:
        super().__init__(bucket, dict_id, problem)
        self.bucket = bucket
        self.dict_id = dict_id
        self.problem = problem

    def __str__(self) -> str:
        return f"dictionary {self.dict_id} of bucket {self.bucket}: {self.problem}"


class DictionaryUnavailable(DictionaryError):
    """The store did not give it; it may the next time."""


class DictionaryConflict(DictionaryError):
    """Other bytes stand under this id, and are left as they are."""


def fingerprint(data: bytes) -> str:
    """Return the id of a dictionary: 16 hex digits of its SHA-256.

    >>> fingerprint(b"the quick brown fox jumps over the lazy dog")
    '05c6e08f1d9fdafa'
    """
    return zstd_dict.fingerprint(data)[: zstd_dict.ID_LENGTH]


async def fetch(backend: Backend, bucket: str, dict_id: str) -> bytes:
    """Return the verified bytes of a dictionary, 1 MiB at most; raises DictionaryError.

    >>> import asyncio
    >>> from s4gateway.backend.memory import MemoryBackend
    >>> async def main():
    ...     store = MemoryBackend({"logs": {}})
    ...     dict_id, is_new = await publish(store, "logs", b"the quick brown fox")
    ...     return is_new, await fetch(store, "logs", dict_id)
    >>> asyncio.run(main())
    (True, b'the quick brown fox')
    """
    key = keys.dictionary_key(dict_id)
    if key is None:
        raise DictionaryError(bucket, dict_id, "this is no id (16 lower-case hex digits)")
    try:
        async with await backend.get(bucket, key) as stream:
            size, recorded = stream.head.size, stream.head.metadata.get(DICT_SHA256)
            if not 0 < size <= MAX_SIZE:
                problem = f"{key} has {size} bytes, 1 to {MAX_SIZE} expected"
                raise DictionaryError(bucket, dict_id, problem)
            data = await stream.read(MAX_SIZE)
    except BackendAnswer as error:
        if error.missing:
            problem = f"{key} does not exist" if error.code != "NoSuchBucket" else error.code
            raise DictionaryError(bucket, dict_id, problem) from error
        raise DictionaryUnavailable(bucket, dict_id, f"the store answered {error}") from error
    except BackendError as error:
        raise DictionaryUnavailable(bucket, dict_id, str(error)) from error
    actual = zstd_dict.fingerprint(data)
    if actual[: zstd_dict.ID_LENGTH] != dict_id or recorded not in {None, actual}:
        raise DictionaryError(bucket, dict_id, f"{key} has SHA-256 {actual}: not these bytes")
    return data


async def publish(backend: Backend, bucket: str, data: bytes) -> tuple[str, bool]:
    """Store a dictionary under its id; return the id and whether it is new in this bucket.

    Raises DictionaryConflict when other bytes stand there, DictionaryError for bytes that are no
    dictionary, BackendError.
    """
    dict_id = fingerprint(data)
    try:
        ZstdDict(data)
    except CodecError as error:
        raise DictionaryError(bucket, dict_id, str(error)) from error
    key = keys.DICTIONARY_PREFIX + dict_id
    try:
        await backend.head(bucket, key)
    except BackendAnswer as error:
        if not error.missing:
            raise
        if await _create(backend, bucket, key, data):
            return dict_id, True
    await _compare(backend, bucket, dict_id, data)
    return dict_id, False


async def _create(backend: Backend, bucket: str, key: str, data: bytes) -> bool:
    """Store what was not there a moment ago; False when another writer was faster.

    A store that knows no conditions writes it plainly: only the same bytes have the same name.
    """
    md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
    body = Body.of(data, md5=md5)  # buckets with Object Lock take nothing without
    headers = [
        ("content-type", CONTENT_TYPE),
        (USER_METADATA_PREFIX + DICT_SHA256, zstd_dict.fingerprint(data)),
    ]
    try:
        await backend.put(bucket, key, body, [*headers, ("if-none-match", "*")])
    except BackendAnswer as error:
        if error.status in {409, 412}:
            return False
        if error.code not in _UNKNOWN:
            raise
        await backend.put(bucket, key, body, headers)
    return True


async def _compare(backend: Backend, bucket: str, dict_id: str, data: bytes) -> None:
    try:
        found = await fetch(backend, bucket, dict_id)
    except DictionaryUnavailable:
        raise
    except DictionaryError as error:
        raise DictionaryConflict(
            bucket, dict_id, f"it is damaged there: {error.problem}"
        ) from error
    if found != data:
        raise DictionaryConflict(bucket, dict_id, "other bytes have this id")
