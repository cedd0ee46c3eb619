"""Forms written out by hand, as browsers write them: multipart/form-data, RFC 7578."""

import base64
import hmac
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from tests import live

Fields = Iterable[tuple[str, str]]

BOUNDARY = "----WebKitFormBoundaryR2D2"


def encode(
    fields: Fields,
    *files: bytes,
    boundary: str = BOUNDARY,
    file_name: str | None = "file.bin",
    name: str = "file",
    before: Fields = (),
    behind: Fields = (),
) -> bytes:
    """The body of a form; `before` and `behind` the files stand further fields."""
    parts = [_part(f'name="{field}"', value) for field, value in [*fields, *before]]
    for file in files:
        called = f'name="{name}"' + ("" if file_name is None else f'; filename="{file_name}"')
        parts.append(_part(f"{called}\r\nContent-Type: image/png", file))
    parts += [_part(f'name="{field}"', value) for field, value in behind]
    delimiter = f"--{boundary}\r\n".encode()
    return b"".join(delimiter + part for part in parts) + f"--{boundary}--\r\n".encode()


def _part(called: str, value: str | bytes) -> bytes:
    data = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    return f"Content-Disposition: form-data; {called}\r\n\r\n".encode() + data + b"\r\n"


def policy(*conditions: Any, seconds: float = 600, **more: Any) -> str:
    """A policy that is good for so long, as its field carries it."""
    expiration = f"{datetime.now(UTC) + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"
    document = {"expiration": expiration, "conditions": list(conditions)} | more
    return base64.b64encode(json.dumps(document).encode()).decode()


def sign(endpoint: live.Endpoint, fields: Fields, *conditions: Any, **more: Any) -> dict[str, str]:
    """A form with its policy, which covers every field, and its Version 4 signature."""
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    scope = (stamp[:8], live.REGION, "s3", "aws4_request")
    form = dict(fields) | {
        "x-amz-algorithm": "AWS4-HMAC-SHA256",
        "x-amz-credential": "/".join((endpoint.access_key, *scope)),
        "x-amz-date": stamp,
    }
    covering = [{name: value} for name, value in form.items() if "${filename}" not in value]
    form["policy"] = policy(*covering, *conditions, **more)
    key = f"AWS4{endpoint.secret_key}".encode()
    for part in scope:
        key = hmac.digest(key, part.encode(), "sha256")
    form["x-amz-signature"] = hmac.digest(key, form["policy"].encode(), "sha256").hex()
    return form


def sign_v2(
    endpoint: live.Endpoint, fields: Fields, *conditions: Any, **more: Any
) -> dict[str, str]:
    """The same with a Version 2 signature."""
    form = dict(fields)
    covering = [{name: value} for name, value in form.items() if "${filename}" not in value]
    form["policy"] = policy(*covering, *conditions, **more)
    form["AWSAccessKeyId"] = endpoint.access_key
    digest = hmac.digest(endpoint.secret_key.encode(), form["policy"].encode(), "sha1")
    form["signature"] = base64.b64encode(digest).decode()
    return form
