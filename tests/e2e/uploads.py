"""Multipart uploads from the outside: begun, filled, and what lies in the bucket meanwhile."""

import asyncio
import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from s4gateway.backend import client as backend_client
from s4gateway.backend import credentials, http
from s4gateway.codecs import decoder
from s4gateway.codecs.registry import Registry
from s4gateway.objects.collection import CollectionReport, collect_uploads
from s4gateway.s3 import etag, sigv4
from s4gateway.wire import frame, keys
from tests import clients, live

_CODECS = Registry()


@contextlib.contextmanager
def client_of(endpoint: live.Endpoint) -> Iterator[Any]:
    """A boto3 client for the length of the block."""
    with contextlib.closing(clients.boto3_client(endpoint)) as client:
        yield client


@contextlib.contextmanager
def begun(client: Any, bucket: str, key: str, **options: Any) -> Iterator[str]:
    """The id of an upload, aborted at the end unless the test has ended it."""
    upload_id: str = client.create_multipart_upload(Bucket=bucket, Key=key, **options)["UploadId"]
    try:
        yield upload_id
    finally:
        with contextlib.suppress(client.exceptions.NoSuchUpload):
            client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)


def records(direct: Any, bucket: str, upload_id: str) -> list[str]:
    """Names of what the gateway keeps about an upload."""
    prefix = keys.upload_prefix(upload_id)
    listed = direct.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ())
    return [each["Key"].removeprefix(prefix) for each in listed]


def stored_part(direct: Any, bucket: str, upload_id: str, number: int) -> bytes:
    """The record of a part as it lies in the bucket."""
    answer = direct.get_object(Bucket=bucket, Key=keys.part_key(upload_id, number))
    with answer["Body"] as body:
        data: bytes = body.read()
    return data


def decoded(stored: bytes) -> bytes:
    """What frames decode to; whatever is no frame raises."""
    pieces: list[bytes] = []
    for _, header, payload in frame.walk(stored):
        pieces += decoder.decode_frame(header, [bytes(payload)], _CODECS)
    return b"".join(pieces)


def send_all(
    client: Any,
    bucket: str,
    key: str,
    upload_id: str,
    bodies: Mapping[int, bytes],
    **options: Any,
) -> list[dict[str, Any]]:
    """Upload the parts, the last first; returns what Complete wants to know, in order."""
    sent = {
        number: client.upload_part(
            Bucket=bucket, Key=key, UploadId=upload_id, PartNumber=number, Body=body, **options
        )["ETag"]
        for number, body in reversed(list(bodies.items()))
    }
    return [{"PartNumber": number, "ETag": sent[number]} for number in bodies]


def complete(
    client: Any, bucket: str, key: str, upload_id: str, parts: list[dict[str, Any]], **options: Any
) -> dict[str, Any]:
    """CompleteMultipartUpload."""
    answer: dict[str, Any] = client.complete_multipart_upload(
        Bucket=bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": parts}, **options
    )
    return answer


def whole_etag(bodies: Iterable[bytes]) -> str:
    """The quoted ETag S3 gives an object of these parts."""
    return f'"{etag.composite(hashlib.md5(body).hexdigest() for body in bodies)}"'


def collect(store: live.Endpoint, bucket: str) -> CollectionReport:
    """Remove what is left of uploads that are no more, however young."""

    async def run() -> CollectionReport:
        own = credentials.Static(sigv4.Credentials(store.access_key, store.secret_key))
        endpoint = backend_client.Endpoint(store.endpoint_url)
        backend = backend_client.S3Backend(endpoint, own, http.HttpClient())
        try:
            now = datetime.now(UTC) + timedelta(seconds=5)
            return await collect_uploads(
                backend, bucket, now=now, older_than=timedelta(0), execute=True
            )
        finally:
            await backend.close()

    return asyncio.run(run())
