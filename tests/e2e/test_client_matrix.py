"""Every client, step by step, through the gateway and on the backend direct: the same to look at.

A step is something a user does with a client; what it shows (bytes, sizes, ETags, content types,
metadata, error codes) is put into one table with a column for each endpoint. The columns must be
equal, but for the differences listed below, each with the reason why the gateway's answer is the
better one. On failure the table is printed.
"""

import contextlib
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests import clients, corpus, live
from tests.clients import Client

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

BODIES = {
    "text": corpus.text(300_000, seed=1),
    "noise": corpus.noise(120_000, seed=2),
    "empty": b"",
    "one-byte": b"x",
    "5-mib": corpus.log(5 * 1024 * 1024, seed=3),
}
TYPES = {
    "text": "text/plain; charset=utf-8",
    "noise": "application/octet-stream",
    "empty": "application/x-empty",
    "one-byte": "image/png",
    "5-mib": "application/zstd",
}
METADATA = {"colour": "dark blue", "owner-id": "a/b=c"}
FOLDER = "matrix run/a+b="

# One interpreter a call: what these ask of the wire, boto3 and its kin have asked already.
SLOW = {"awscli", "s3cmd", "s3fs"}

# (client, step) -> why the gateway may differ from SeaweedFS here.
IMPROVEMENTS: dict[tuple[str, str], str] = {
    ("curl-sigv2", "put with metadata"): "SeaweedFS leaves x-amz-meta-* parameters out of what "
    "SigV2 signs and refuses every such URL of boto3; S3 signs them, and so does the gateway",
}

_ERRORS = re.compile(
    r"NoSuchKey|NoSuchBucket|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|InvalidRange"
    r"|does not exist|NotFoundError|FileNotFoundError|PermissionError"
    r"|object not found|directory not found"
    r"|\b(?:400|403|404|412|416)\b",
)

Column = dict[str, Any]


@dataclass(slots=True)
class Table:
    """Steps as rows, endpoints as columns."""

    columns: dict[str, Column] = field(default_factory=dict)

    def differing(self, client: str) -> list[str]:
        direct = self.columns["direct"]
        steps = {step: None for column in self.columns.values() for step in column}
        return [
            step
            for step in steps
            if (client, step) not in IMPROVEMENTS
            and any(column.get(step) != direct.get(step) for column in self.columns.values())
        ]

    def render(self, marked: list[str]) -> str:
        steps = {step: None for column in self.columns.values() for step in column}
        rows = [["", "step", *self.columns]]
        rows += [["!!" if step in marked else "", step, *self._cells(step)] for step in steps]
        widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
        return "\n".join(lines)

    def _cells(self, step: str) -> list[str]:
        return [str(column.get(step, "(not reached)"))[:70] for column in self.columns.values()]


def _shown(body: bytes) -> str:
    """Bytes as a cell: length and digest."""
    return f"{len(body)} bytes {hashlib.md5(body).hexdigest()[:12]}"


def _attempt(act: Callable[[], Any]) -> Any:
    """What a step shows; of an error, the words clients act upon."""
    try:
        return act()
    except (AssertionError, pytest.skip.Exception):
        raise
    except Exception as error:
        said = getattr(error, "output", None) or f"{type(error).__name__} {error}"
        said = re.sub(r"t-[0-9a-f]{20}|/tmp/\S+", "...", said)
        return f"error {sorted(set(_ERRORS.findall(said))) or said[:200]}"


def _walk(client: Client, endpoint: live.Endpoint, bucket: str) -> Column:
    """All steps of one client at one endpoint."""
    seen: Column = {}
    with contextlib.closing(clients.boto3_client(endpoint)) as observer:
        for name, body in BODIES.items():
            seen |= _walk_body(client, observer, bucket, name, body)
        if client.lists:
            prefixes = (f"{FOLDER}/", f"{FOLDER}/text", "no/such/")
            for prefix in prefixes[: 1 if client.name in SLOW else None]:
                entries = _attempt(lambda prefix=prefix: client.listing(bucket, prefix))
                seen[f"list {prefix}"] = _listed(entries)
        missing = f"{FOLDER}/missing"
        seen["get missing"] = _attempt(lambda: _shown(client.get(bucket, missing)))
        if client.name not in SLOW:
            seen["stat missing"] = _attempt(lambda: client.stat(bucket, missing))
            gone = "no-such-bucket-x"
            seen["get missing bucket"] = _attempt(lambda: _shown(client.get(gone, "k")))
        for name in ("text",) if client.name in SLOW else ("text", "empty"):
            seen[f"delete {name}"] = _attempt(lambda n=name: client.delete(bucket, _key(n)))
            seen[f"gone {name}"] = _attempt(
                lambda n=name: observer.head_object(Bucket=bucket, Key=_key(n))
            )
        left = observer.list_objects_v2(Bucket=bucket).get("Contents", ())
        seen["left"] = sorted((each["Key"], each["Size"], each["ETag"]) for each in left)
    return seen


def _walk_body(client: Client, observer: Any, bucket: str, name: str, body: bytes) -> Column:
    key, size = _key(name), len(body)
    seen: Column = {}
    given = METADATA if client.describes else {}
    if not client.describes and name == "text":
        seen["put with metadata"] = _attempt(
            lambda: client.put(bucket, key, body, TYPES[name], METADATA)
        )
    seen[f"put {name}"] = _attempt(lambda: client.put(bucket, key, body, TYPES[name], given))
    seen[f"head {name}"] = _attempt(lambda: _described(observer, bucket, key))
    seen[f"get {name}"] = _attempt(lambda: _shown(client.get(bucket, key)))
    if client.name in SLOW and name not in {"text", "empty"}:
        return seen
    seen[f"stat {name}"] = _attempt(lambda: client.stat(bucket, key))
    if client.ranges and size > 1:
        seen[f"range {name}"] = _attempt(
            lambda: _shown(client.get_range(bucket, key, size // 2, size // 2 + 1000))
        )
    if client.ranges and name in {"text", "one-byte"} and client.name not in SLOW:
        seen[f"first byte {name}"] = _attempt(lambda: _shown(client.get_range(bucket, key, 0, 1)))
    if client.suffixes and name in {"text", "5-mib"}:
        seen[f"suffix {name}"] = _attempt(lambda: _shown(client.get_suffix(bucket, key, 777)))
    if name == "text" and client.name not in SLOW:
        seen["put again"] = _attempt(
            lambda: client.put(bucket, key, body[::-1], TYPES[name], given)
        )
        seen["get again"] = _attempt(lambda: _shown(client.get(bucket, key)))
    return seen


def _key(name: str) -> str:
    return f"{FOLDER}/{name}.bin"


def _listed(entries: Any) -> Any:
    if isinstance(entries, str):
        return entries
    return sorted((entry.key, entry.size, entry.etag) for entry in entries)


def _described(observer: Any, bucket: str, key: str) -> dict[str, Any]:
    head = observer.head_object(Bucket=bucket, Key=key)
    names = (
        "ContentLength", "ETag", "ContentType", "ContentEncoding", "CacheControl",
        "ContentDisposition", "ContentLanguage",
    )  # fmt: skip
    shown = {name: head.get(name) for name in names}
    metadata = dict(head["Metadata"])
    if "mtime" in metadata:  # rclone and s3cmd note when the file was made
        metadata["mtime"] = "(a time)"
    return shown | {"Metadata": {n: v for n, v in metadata.items() if n not in _FILE_FACTS}}


# What programs note about the local file: times that differ between two runs.
_FILE_FACTS = {"s3cmd-attrs", "atime", "btime", "ctime"}


@pytest.fixture(scope="module")
def endpoints(
    seaweedfs: live.Seaweedfs, gateway: live.Gateway, gateway_https: live.Gateway
) -> dict[str, live.Endpoint]:
    return {"direct": seaweedfs, "http": gateway, "https": gateway_https}


@pytest.fixture
def walk(
    endpoints: dict[str, live.Endpoint], make_bucket: Callable[..., str], tmp_path: Path
) -> Callable[[str], Table]:
    def every(name: str) -> Table:
        table = Table()
        for column, endpoint in endpoints.items():
            folder = tmp_path / column
            folder.mkdir()
            with contextlib.closing(clients.CLIENTS[name](endpoint, folder)) as client:
                table.columns[column] = _walk(client, endpoint, make_bucket())
        return table

    return every


@pytest.mark.parametrize("name", clients.CLIENTS)
def test_a_client_sees_the_same_through_the_gateway_as_on_the_backend(
    name: str, walk: Callable[[str], Table]
):
    table = walk(name)
    differing = table.differing(name)
    assert not differing, f"{name}\n{table.render(differing)}"
    if not clients.CLIENTS[name].describes:
        assert table.columns["https"]["put with metadata"] is None
    for body_name, body in BODIES.items():  # two equal columns may still both be wrong
        step = f"get {body_name}"
        assert table.columns["https"][step] == _shown(body), table.render([step])
        head = table.columns["https"][f"head {body_name}"]
        if clients.CLIENTS[name].describes:
            assert head["Metadata"].items() >= METADATA.items(), table.render([])
        assert head["ContentType"] == TYPES[body_name], table.render([])
        assert head["ETag"] == f'"{hashlib.md5(body).hexdigest()}"' or body_name == "text"


@pytest.mark.parametrize("name", clients.CLIENTS)
def test_a_client_with_a_wrong_secret_is_refused_alike(
    name: str,
    endpoints: dict[str, live.Endpoint],
    bucket: str,
    tmp_path: Path,
):
    said = {}
    for column, endpoint in endpoints.items():
        folder = tmp_path / column
        folder.mkdir()
        stranger = replace(_bare(endpoint), secret_key="not the secret")
        with contextlib.closing(clients.CLIENTS[name](stranger, folder)) as client:
            said[column] = (
                _attempt(lambda client=client: client.put(bucket, "k", b"x", "text/plain")),
                _attempt(lambda client=client: _shown(client.get(bucket, "k"))),
            )
    assert said["http"] == said["https"] == said["direct"]
    assert all("error" in str(each) for each in said["http"])


def _bare(endpoint: live.Endpoint) -> live.Endpoint:
    """An endpoint without its process, so that it can be changed."""
    return live.Endpoint(
        endpoint.endpoint_url, endpoint.access_key, endpoint.secret_key, endpoint.ca
    )
