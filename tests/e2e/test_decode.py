"""What a gateway wrote, fetched from the store and decoded with nothing but the bytes.

The programs that decode have no keys, no settings and no PATH.
"""

import json
import random
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import zstandard

from s4gateway.objects.dictionaries import fingerprint
from s4gateway.wire import frame, keys
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.crc32c import crc32c
from s4gateway.wire.frame import FrameHeader
from tests import clients, corpus, events, live
from tests.conftest import StartGateway
from tests.e2e.operators import Operator
from tests.e2e.uploads import complete, send_all

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
GIB = 1024 * MIB
PARTS = {1: corpus.log(6 * MIB, seed=1), 2: corpus.noise(5 * MIB, seed=2), 3: corpus.text(70_000)}
BODIES: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "small": lambda: corpus.text(3_000),
    "frames": lambda: b"S4F2" + corpus.text(60_000),
    "noise": lambda: corpus.noise(700_000),
    "large": lambda: corpus.log(9 * MIB),
    "mixed": lambda: corpus.text(5 * MIB) + corpus.noise(5 * MIB),
    "multipart": lambda: b"".join(PARTS.values()),
}


@dataclass(frozen=True, slots=True)
class Fetched:
    """An object as it lies in the store, as a file, and the answer to HeadObject beside it."""

    operator: Operator
    stored: Path
    head: Path

    @property
    def data(self) -> bytes:
        return self.stored.read_bytes()

    def decode(self, *arguments: str) -> tuple[int, bytes, str]:
        said = self.operator.offline("decode", str(self.stored), *arguments)
        return said.status, said.out, said.err


@pytest.fixture
def fetch_stored(
    seaweedfs: live.Seaweedfs, direct: Any, tmp_path: Path
) -> Callable[[str, str], Fetched]:
    def fetch(bucket: str, key: str) -> Fetched:
        stored, head = tmp_path / "stored", tmp_path / "head.json"
        direct.download_file(bucket, key, str(stored))
        answer = direct.head_object(Bucket=bucket, Key=key)
        head.write_text(json.dumps(answer, default=str))
        return Fetched(Operator(seaweedfs, tmp_path), stored, head)

    return fetch


@pytest.fixture
def stored_as(
    s3: Any, shared: str, key: str, fetch_stored: Callable[[str, str], Fetched]
) -> Callable[[str], tuple[Fetched, bytes]]:
    """Store the body of that kind through the gateway, and fetch what lies there."""

    def store(kind: str) -> tuple[Fetched, bytes]:
        body = BODIES[kind]()
        if kind == "multipart":
            upload_id = s3.create_multipart_upload(Bucket=shared, Key=key)["UploadId"]
            complete(s3, shared, key, upload_id, send_all(s3, shared, key, upload_id, PARTS))
        else:
            s3.put_object(Bucket=shared, Key=key, Body=body)
        return fetch_stored(shared, key), body

    return store


@pytest.mark.parametrize("kind", BODIES)
def test_what_a_gateway_wrote_decodes_to_what_was_sent(
    stored_as: Callable[[str], tuple[Fetched, bytes]], kind: str
):
    fetched, body = stored_as(kind)
    status, out, err = fetched.decode("--metadata", str(fetched.head))
    assert (status, err) == (0, "")
    assert out == body
    piped = fetched.operator.offline("decode", "--metadata", str(fetched.head), stdin=fetched.data)
    assert (piped.status, piped.out) == (0, body)


@pytest.mark.parametrize("kind", ["large", "multipart"])
def test_frames_decode_without_metadata_into_a_file(
    stored_as: Callable[[str], tuple[Fetched, bytes]], kind: str
):
    fetched, body = stored_as(kind)
    original = fetched.stored.with_name("original")
    status, out, _ = fetched.decode("-o", str(original))
    assert (status, out, original.read_bytes()) == (0, b"", body)


@pytest.mark.parametrize("kind", ["mixed", "multipart", "noise"])
def test_damage_at_random_places_is_found_offline(
    stored_as: Callable[[str], tuple[Fetched, bytes]], kind: str
):
    """With the metadata: no bit of a payload or of a body may change unnoticed."""
    fetched, body = stored_as(kind)
    data = fetched.data
    draw = random.Random(23)
    spans = [(0, len(data))]
    if kind != "noise":
        spans = [(at + 28, at + header.stored_size) for at, header, _ in frame.walk(data)]
    for _ in range(2):
        damaged = bytearray(data)
        damaged[draw.randrange(*draw.choice(spans))] ^= 1 << draw.randrange(8)
        said = fetched.operator.offline(
            "decode", "--metadata", str(fetched.head), stdin=bytes(damaged)
        )
        assert said.status == 1
        assert said.err.startswith("s4: standard input: ")
        assert len(said.err.splitlines()) == 1
        if kind != "noise":  # a body without frames is told at its end only
            assert body.startswith(said.out)
    short = fetched.operator.offline(
        "decode", "--metadata", str(fetched.head), stdin=data[: len(data) // 2]
    )
    assert short.status == 1


def test_an_object_made_with_a_dictionary_needs_it(
    start_gateway: StartGateway,
    seaweedfs: live.Seaweedfs,
    direct: Any,
    bucket: str,
    fetch_stored: Callable[[str, str], Fetched],
):
    body = put_with_dictionary(start_gateway, seaweedfs, direct, bucket)
    fetched = fetch_stored(bucket, "events/new")
    dict_id = json.loads(fetched.head.read_text())["Metadata"]["s4-dict-id"]
    dictionary = fetched.stored.with_name("dictionary")
    direct.download_file(bucket, keys.DICTIONARY_PREFIX + dict_id, str(dictionary))
    for more in ((), ("--metadata", str(fetched.head))):
        status, out, _ = fetched.decode("--dict", str(dictionary), *more)
        assert (status, out) == (0, body)
        status, _, err = fetched.decode(*more)
        assert (status, "--dict" in err) == (1, True)


def put_with_dictionary(
    start_gateway: StartGateway, store: live.Seaweedfs, direct: Any, bucket: str
) -> bytes:
    """Put an object at events/new that a dictionary made smaller; returns what was sent."""
    bodies = events.orders(400)
    data = zstandard.train_dictionary(8192, bodies).as_bytes()
    dict_id = fingerprint(data)
    direct.put_object(Bucket=bucket, Key=keys.DICTIONARY_PREFIX + dict_id, Body=data)
    with start_gateway("--zstd-dict", f"{bucket}/events/={dict_id}", backend=store) as gateway:
        client = clients.boto3_client(gateway)
        client.put_object(Bucket=bucket, Key="events/new", Body=bodies[7])
        client.close()
    return bodies[7]


def test_inspect_shows_files_and_objects(
    stored_as: Callable[[str], tuple[Fetched, bytes]], shared: str, key: str
):
    fetched, body = stored_as("multipart")
    said = fetched.operator.offline("inspect", str(fetched.stored), "--format", "json")
    assert said.status == 0
    assert said.report["original_size"] == len(body)
    assert said.report["tail"]["parts"] == 3
    said = fetched.operator.s4("inspect", f"s3://{shared}/{key}", json=True)
    report = said.report
    assert (report["codec"], report["original_size"], report["sidecar"]) == (
        "multipart", len(body), "OK",
    )  # fmt: skip
    assert report["stored_size"] == len(fetched.data)
    endpoint = ("--endpoint-url", fetched.operator.store.endpoint_url)
    table = fetched.operator.s4("inspect", *endpoint, f"{shared}/{key}")
    assert "sidecar: OK" in table.text
    assert "tail: ETag " in table.text


def test_index_makes_the_sidecar_the_gateway_made(
    stored_as: Callable[[str], tuple[Fetched, bytes]], direct: Any, shared: str, key: str
):
    fetched, _ = stored_as("large")
    with direct.get_object(Bucket=shared, Key=keys.sidecar_key(key))["Body"] as sidecar:
        written = sidecar.read()
    etag = json.loads(fetched.head.read_text())["ETag"]
    said = fetched.operator.offline("index", str(fetched.stored), "--etag", etag)
    assert (said.status, said.out) == (0, written)
    output = str(fetched.stored.with_name("made.s4index"))
    said = fetched.operator.offline("index", "--etag", etag, "-o", output, stdin=fetched.data)
    assert said.status == 0
    assert Path(output).read_bytes() == written
    shown = fetched.operator.offline("inspect", output, "--format", "json").report
    assert shown["index"]["etag"] == etag.strip('"')


@pytest.mark.huge
def test_five_gigabytes_in_one_frame_take_no_more_memory_than_any_other(tmp_path: Path):
    """As large as a frame may be. It decodes through a file, and a lying header is found out."""
    size, zeros = 5 * GIB, bytes(64 * MIB)
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    pieces = [compressor.compress(zeros) for _ in range(size // len(zeros))]
    payload = b"".join(pieces) + compressor.flush()
    crc = 0
    for _ in range(size // len(zeros)):
        crc = crc32c(zeros, crc)
    for said, status in ((crc, 0), (crc ^ 1, 1)):
        header = FrameHeader(CodecId.CPU_ZSTD, size, len(payload), said).pack()
        stored = tmp_path / "stored"
        stored.write_bytes(header + payload)
        program = [sys.executable, "-m", "s4gateway", "decode", str(stored), "-o", "/dev/null"]
        done = subprocess.run(program, capture_output=True, check=False)
        assert done.returncode == status, done.stderr
        used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        assert used < 400 * MIB
