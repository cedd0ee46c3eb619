"""What one side writes the other side reads: this filesystem over the store, and the gateway."""

import contextlib
import hashlib
import os
import random
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import Counting, at, text

from s4gateway import codec
from s4gateway.codecs import encoder
from s4gateway.codecs.registry import Registry
from s4gateway.codecs.zstd_dict import ZstdDict
from s4gateway.s4fs import S4FileSystem, S4ObjectChangedError, S4UnsupportedError
from s4gateway.wire import manifest
from s4gateway.wire.codec_id import CodecId

MIB = 1024 * 1024
TEXT = text(9 * MIB)
BODIES = {
    "empty": b"",
    "byte": b"x",
    "small": TEXT[:70_000],
    "frame": TEXT[: 3 * MIB],
    "frames": TEXT,
    "noise": random.Random(1).randbytes(2 * MIB),
    "mixed": TEXT[: 4 * MIB] + random.Random(2).randbytes(2 * MIB) + TEXT[:100],
}
RANGES = 10_000
PIECES = 32


def spans(size: int, count: int, seed: int) -> list[tuple[int, int]]:
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        start = draw.randrange(size + 1)
        found.append((start, min(size, start + draw.choice([1, 100, 10_000, 300_000]))))
    return found


def same(one: Any, other: Any, path: str) -> None:
    """Both sides say the same of an object."""
    shown, expected = one.info(path), other.info(path)
    assert (shown["size"], shown["ETag"]) == (expected["size"], expected["ETag"])


# --- written here, read through the gateway


@pytest.mark.parametrize(
    ("name", "write_codec"),
    [*((name, "cpu-zstd") for name in BODIES), ("empty", "passthrough"), ("noise", "passthrough"),
     ("empty", "auto"), ("noise", "auto"), ("mixed", "auto")],
)  # fmt: skip
def test_what_is_written_here_reads_through_the_gateway(
    store: Counting, gateway: Counting, folder: str, name: str, write_codec: str, tmp_path: Path
):
    fs = S4FileSystem(fs=store, write_enabled=True, write_codec=write_codec)
    data = BODIES[name]
    (tmp_path / "local").write_bytes(data)
    fs.pipe_file(f"s4://{folder}/piped", data)
    fs.put_file(str(tmp_path / "local"), f"s4://{folder}/put")
    with fs.open(f"s4://{folder}/opened", "wb") as file:
        for start in range(0, len(data), 333_333):
            file.write(data[start : start + 333_333])
    for how in ("piped", "put", "opened"):
        path = f"{folder}/{how}"
        assert gateway.cat_file(path) == data
        assert fs.cat_file(path) == data
        same(fs, gateway, path)
        for start, end in spans(len(data), 6, 5):
            if start < end:
                assert gateway.cat_file(path, start=start, end=end) == data[start:end]
    assert fs.info(f"{folder}/put")["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'


def test_what_is_written_here_is_what_the_gateway_would_have_stored(
    store: Counting, gateway: Counting, folder: str
):
    fs = S4FileSystem(fs=store, write_enabled=True, write_codec="auto")
    for name, data in BODIES.items():
        fs.pipe_file(f"{folder}/here/{name}", data)
        gateway.pipe_file(f"{folder}/there/{name}", data)
        ours, theirs = f"{folder}/here/{name}", f"{folder}/there/{name}"
        assert store.cat_file(ours) == store.cat_file(theirs)
        described = store.metadata(theirs)
        del described["s4-checksum"]  # what s3fs declared, and the gateway has verified
        assert store.metadata(ours) == described
        assert store.exists(f"{ours}.s4index") == store.exists(f"{theirs}.s4index")
        if store.exists(f"{ours}.s4index"):
            assert store.cat_file(f"{ours}.s4index") == store.cat_file(f"{theirs}.s4index")


def test_every_sidecar_written_here_passes_the_gateways_own_inspection(
    fs: S4FileSystem, folder: str
):
    for name, data in BODIES.items():
        fs.pipe_file(f"{folder}/{name}", data)
    program = Path(sys.executable).with_name("s4")
    for name in ("frames", "mixed"):
        done = subprocess.run(
            [program, "verify-sidecar", f"{folder}/{name}",
             "--endpoint-url", os.environ["S4FS_STORE"]],
            capture_output=True, text=True, check=False, timeout=600,
            env=os.environ | {"AWS_ACCESS_KEY_ID": os.environ["S4FS_ACCESS"],
                              "AWS_SECRET_ACCESS_KEY": os.environ["S4FS_SECRET"]},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


# --- written by the gateway, read here


def put_single(gateway: Counting, path: str, data: bytes) -> None:
    gateway.pipe_file(path, data, chunksize=1 << 30)


def put_multipart(gateway: Counting, path: str, data: bytes) -> None:
    gateway.pipe_file(path, data, chunksize=5 * MIB)


def put_copied(gateway: Counting, path: str, data: bytes) -> None:
    gateway.pipe_file(f"{path}-source", data, chunksize=5 * MIB)
    gateway.cp_file(f"{path}-source", path)


@pytest.mark.parametrize(
    ("name", "put"),
    [*((name, put_single) for name in BODIES), ("frames", put_multipart), ("mixed", put_multipart),
     ("frames", put_copied)],
)  # fmt: skip
def test_what_the_gateway_writes_reads_here(
    fs: S4FileSystem, gateway: Counting, folder: str, name: str, put: Any
):
    data = BODIES[name]
    path = f"{folder}/object"
    put(gateway, path, data)
    assert fs.cat_file(path) == data
    same(fs, gateway, path)
    for start, end in spans(len(data), 10, 7):
        assert fs.cat_file(path, start, end) == data[start:end]
    with fs.open(path) as file:
        assert file.read() == data


def test_what_a_gateway_writes_as_gzip_reads_here(
    fs: S4FileSystem, gzip_gateway: Counting, folder: str, store: Counting
):
    for name, data in BODIES.items():
        gzip_gateway.pipe_file(f"{folder}/{name}", data)
        assert fs.cat_file(f"{folder}/{name}") == data
        assert fs.cat_file(f"{folder}/{name}", 10, -10) == data[10:-10]
    assert store.metadata(f"{folder}/frame")["s4-codec"] == "cpu-gzip"


def test_objects_of_other_writers_read_alike_on_both_sides(
    fs: S4FileSystem, gateway: Counting, store: Counting, folder: str
):
    """A whole gzip file under a manifest, and an object that needs a dictionary."""
    payload, size, crc = codec.CpuGzip().compress(TEXT[:50_000])
    raw = manifest.Manifest(CodecId.CPU_GZIP, size, len(payload), crc)
    store.pipe_file(f"{folder}/gzip", payload, Metadata=raw.to_metadata())
    dictionary = ZstdDict(TEXT[100_000:104_000])
    trial = encoder.encode_smallest(TEXT[99_000:106_000], Registry().get(1), dictionary)
    assert trial.header.codec is CodecId.CPU_ZSTD_DICT
    body = b"".join(trial.pieces())
    fields = manifest.Manifest(
        CodecId.CPU_ZSTD_DICT, 7000, len(body), trial.header.crc32c, framed=True,
        dict_id=dictionary.dict_id,
    )  # fmt: skip
    bucket = folder.partition("/")[0]
    store.pipe_file(f"{bucket}/.s4dict/{dictionary.dict_id}", TEXT[100_000:104_000],
                    Metadata={manifest.DICT_SHA256: dictionary.sha256})  # fmt: skip
    store.pipe_file(f"{folder}/dictionary", body, Metadata=fields.to_metadata())
    expected = {"gzip": TEXT[:50_000], "dictionary": TEXT[99_000:106_000]}
    for name, data in expected.items():
        assert fs.cat_file(f"{folder}/{name}") == data
        assert gateway.cat_file(f"{folder}/{name}") == data
        assert fs.cat_file(f"{folder}/{name}", 500, 600) == data[500:600]
        same(fs, gateway, f"{folder}/{name}")


def test_foreign_objects_are_served_as_they_are(fs: S4FileSystem, store: Counting, folder: str):
    store.pipe_file(f"{folder}/foreign", b"S4F2 by chance", ContentType="text/plain")
    assert fs.cat_file(f"{folder}/foreign", 5, 7) == b"by"
    info = fs.info(f"{folder}/foreign")
    assert (info["size"], info["ContentType"]) == (14, "text/plain")
    assert info["ETag"] == store.info(f"{folder}/foreign")["ETag"]


def test_listings_agree_with_those_of_the_gateway(
    fs: S4FileSystem, gateway: Counting, folder: str, store: Counting
):
    for name, data in BODIES.items():
        gateway.pipe_file(f"{folder}/g/{name}", data, chunksize=5 * MIB)
        fs.pipe_file(f"{folder}/s/{name}", data)
    store.pipe_file(f"{folder}/foreign", b"as it is")
    for listing in ("find", "glob"):
        where = folder if listing == "find" else f"{folder}/**/*"
        ours = getattr(fs, listing)(where, detail=True)
        theirs = getattr(gateway, listing)(where, detail=True)
        described = [
            {name: (each["size"], each.get("ETag")) for name, each in found.items()
             if each["type"] == "file"}
            for found in (ours, theirs)
        ]  # fmt: skip
        assert described[0] == described[1]
    store.calls.clear()
    fs.find(folder, detail=True)
    assert {method for method, _, _ in store.calls} == {"list_objects_v2"}


# --- ranges


def test_ten_thousand_random_ranges(
    fs: S4FileSystem, gateway: Counting, store: Counting, folder: str
):
    objects = {}
    for name in ("small", "frames", "noise", "mixed"):
        for how, put in (("single", put_single), ("multi", put_multipart)):
            put(gateway, f"{folder}/{how}-{name}", BODIES[name])
            objects[f"{folder}/{how}-{name}"] = BODIES[name]
        fs.pipe_file(f"{folder}/s4fs-{name}", BODIES[name])
        objects[f"{folder}/s4fs-{name}"] = BODIES[name]
    store.rm(f"{folder}/multi-frames.s4index")  # found by its frame headers instead
    draw = random.Random(11)
    asks = []
    for path in draw.choices(list(objects), k=RANGES):
        ((start, end),) = spans(len(objects[path]), 1, draw.randrange(1 << 30))
        asks.append((path, start, end))
    one_by_one, together = asks[:1000], asks[1000:]
    for path, start, end in one_by_one:
        assert fs.cat_file(path, start, end) == objects[path][start:end]
    for first in range(0, len(together), 1500):
        some = together[first : first + 1500]
        paths, starts, ends = (list(each) for each in zip(*some, strict=True))
        for (path, start, end), found in zip(some, fs.cat_ranges(paths, starts, ends), strict=True):
            assert found == objects[path][start:end]


def test_a_footer_costs_two_requests_once_the_index_is_known(
    fs: S4FileSystem, store: Counting, gateway: Counting, folder: str
):
    path = f"{folder}/object"
    for put in (put_single, put_multipart):
        put(gateway, path, TEXT)
        assert fs.cat_file(path, 0, 10) == TEXT[:10]
        store.calls.clear()
        with fs.open(path) as file:
            file.seek(-8, 2)
            assert file.read(8) == TEXT[-8:]
            file.seek(-50_000, 2)
            assert file.read(49_992) == TEXT[-50_000:-8]
        assert len(store.calls) <= 2
        store.calls.clear()
        assert fs.cat_file(path, 4_000_000, 4_000_100) == TEXT[4_000_000:4_000_100]
        assert len(store.calls) == 1


def test_a_small_object_is_read_whole_with_one_request(
    fs: S4FileSystem, store: Counting, folder: str
):
    fs.pipe_file(f"{folder}/object", TEXT[:100_000])
    store.calls.clear()
    assert fs.cat_file(f"{folder}/object") == TEXT[:100_000]
    assert [method for method, _, _ in store.calls] == ["get_object"]


# --- changes meanwhile


def test_a_range_after_a_change_is_of_the_new_object(
    fs: S4FileSystem, gateway: Counting, folder: str
):
    path = f"{folder}/object"
    for data in (TEXT, TEXT[::-1], BODIES["noise"], TEXT[:1000], TEXT[1:]):
        gateway.pipe_file(path, data)
        for _ in range(2):
            assert fs.cat_file(path, 100, 900) == data[100:900]
        assert fs.cat_file(path, -100, None) == data[-100:]
    gateway.rm(path)
    with pytest.raises(FileNotFoundError):
        fs.cat_file(path, 100, 900)


def test_an_open_file_notices_that_its_object_was_overwritten(
    fs: S4FileSystem, gateway: Counting, folder: str
):
    gateway.pipe_file(f"{folder}/object", TEXT)
    with fs.open(f"{folder}/object") as file:
        assert file.read(10) == TEXT[:10]
        gateway.pipe_file(f"{folder}/object", TEXT[::-1])
        file.seek(6 * MIB)
        with pytest.raises(S4ObjectChangedError):
            file.read(10)


def test_of_writers_that_create_one_wins(fs: S4FileSystem, folder: str):
    path = f"{folder}/claimed"

    def claim(number: int) -> int | None:
        with contextlib.suppress(FileExistsError):
            fs.pipe_file(path, b"%d" % number * 1000, mode="create")
            return number
        return None

    with ThreadPoolExecutor(8) as threads:
        winners = [each for each in threads.map(claim, range(8)) if each is not None]
    assert len(winners) == 1
    assert fs.cat_file(path) == b"%d" % winners[0] * 1000
    with pytest.raises(FileExistsError):
        fs.open(path, "xb")


# --- large and versioned


def test_a_body_larger_than_one_request_is_sent_in_parts_and_is_one_object(
    fs: S4FileSystem, store: Counting, gateway: Counting, folder: str
):
    data = random.Random(9).randbytes(34 * MIB)
    store.calls.clear()
    fs.pipe_file(f"{folder}/large", data, ContentType="application/x-noise")
    assert [method for method, _, _ in store.calls].count("upload_part") == 3
    assert store.metadata(f"{folder}/large")["s4-original-size"] == str(len(data))
    assert (
        gateway.cat_file(f"{folder}/large", start=30 * MIB, end=31 * MIB)
        == data[30 * MIB : 31 * MIB]
    )
    assert fs.cat_file(f"{folder}/large") == data
    same(fs, gateway, f"{folder}/large")
    with pytest.raises(FileExistsError):
        fs.pipe_file(f"{folder}/large", data, mode="create")


def test_a_long_write_takes_no_more_memory_than_a_few_chunks(fs: S4FileSystem, folder: str):
    piece = TEXT[: 8 * MIB]
    with fs.open(f"{folder}/warm", "wb") as file:
        file.write(piece * 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with fs.open(f"{folder}/long", "wb") as file:
        for _ in range(PIECES):
            file.write(piece)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 128 * 1024  # KiB; what was written has 256 MiB
    assert fs.info(f"{folder}/long")["size"] == PIECES * len(piece)
    assert fs.cat_file(f"{folder}/long", -10, None) == piece[-10:]


def test_a_version_is_read_where_s3fs_knows_versions_and_never_written(
    store: Counting, folder: str
):
    bucket = f"{folder.partition('/')[0]}-versions"
    aware = at(os.environ["S4FS_STORE"])
    aware.version_aware = True
    store.mkdir(bucket)
    try:
        store.make_bucket_versioned(bucket)
        fs = S4FileSystem(fs=aware, write_enabled=True, skip_instance_cache=True)
        for data in (TEXT, TEXT[::-1]):
            fs.pipe_file(f"{bucket}/object", data)
        versions = aware.object_version_info(f"{bucket}/object")
        (first,) = [each for each in versions if each["Key"] == "object" and not each["IsLatest"]]
        named = f"{bucket}/object?versionId={first['VersionId']}"
        assert fs.cat_file(named, 5 * MIB, 5 * MIB + 9) == TEXT[5 * MIB : 5 * MIB + 9]
        with fs.open(f"{bucket}/object", version_id=first["VersionId"]) as file:
            assert file.read() == TEXT
        assert fs.cat_file(f"{bucket}/object", 0, 9) == TEXT[::-1][:9]
        with pytest.raises(S4UnsupportedError, match="version"):
            fs.pipe_file(named, b"")
        plain = S4FileSystem(fs=store, skip_instance_cache=True)
        with pytest.raises(S4UnsupportedError, match="version_aware"):
            plain.cat_file(named)
    finally:
        aware.rm(bucket, recursive=True)  # versions and bucket
