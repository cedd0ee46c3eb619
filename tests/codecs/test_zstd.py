"""zstd: byte identity with the streaming API, the frame grammar, windows, and hostile headers."""

import resource
import shutil
import subprocess
import tracemalloc

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.codecs import zstd
from s4gateway.codecs.zstd import Zstd
from s4gateway.wire.codec_id import CodecId
from tests.contracts.codec_contract import (
    MIB,
    CodecContract,
    bodies,
    compress,
    cuts,
    decompress,
    refused,
    segments,
)

MAGIC = b"\x28\xb5\x2f\xfd"
GIB = 1024 * MIB


class TestZstd(CodecContract):
    codec = Zstd()
    joins_streams = True


def block(kind: int, content: bytes, size: int, *, last: bool = False) -> bytes:
    return (size << 3 | kind << 1 | last).to_bytes(3, "little") + content


def raw(content: bytes, *, last: bool = False) -> bytes:
    return block(0, content, len(content), last=last)


def skippable(content: bytes, number: int = 0) -> bytes:
    return bytes([0x50 + number]) + b"\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content


def bomb(blocks: int, claimed: int) -> bytes:
    """RLE blocks: four stored bytes make 128 KiB; the frame header claims `claimed` bytes."""
    header = MAGIC + b"\xc0\x58" + claimed.to_bytes(8, "little")
    return header + block(1, b"A", 128 * 1024) * blocks


@given(bodies, cuts, st.sampled_from([1, 2, 3, 5, 9]))
def test_bytes_are_those_of_the_streaming_api(body, positions, level):
    stream = zstandard.ZstdCompressor(level=level).compressobj()
    expected = stream.compress(body) + stream.flush()
    assert compress(Zstd(level), segments(body, positions)) == expected


def test_the_level_is_clamped():
    assert [Zstd(level).level for level in (-5, 0, 1, 22, 99)] == [1, 1, 1, 22, 22]
    assert Zstd().level == 3
    assert Zstd().id is CodecId.CPU_ZSTD


def test_used_contexts_write_the_same_bytes_as_fresh_ones():
    codec = Zstd()
    body = bytes(range(256)) * 700
    first = compress(codec, [body])
    compress(codec, [b"something else " * 90_000])
    assert compress(codec, [body]) == first


@pytest.mark.parametrize(
    "make",
    [
        zstandard.ZstdCompressor(level=3).compress,
        zstandard.ZstdCompressor(level=3, write_checksum=True).compress,
        zstandard.ZstdCompressor(level=3, write_content_size=False, write_checksum=True).compress,
        zstandard.ZstdCompressor(level=19).compress,
    ],
    ids=["content-size", "checksum", "checksum-only", "level-19"],
)
@pytest.mark.parametrize("size", [0, 1, 255, 256, 70_000, 300_000])
def test_other_writers_frames_are_read(make, size):
    body = (b"somebody else wrote this; " * (size // 20 + 1))[:size]
    stored = make(body)
    assert decompress(Zstd(), segments(stored, range(0, len(stored), 5)), size) == body
    for length in {1, 4, 5, 6, 8, len(stored) - 4, len(stored) - 3, len(stored) - 1}:
        with refused("codec-io"):
            decompress(Zstd(), [stored[:length]], size)


@pytest.mark.skipif(shutil.which("zstd") is None, reason="the zstd program is not installed")
def test_the_zstd_program_reads_and_is_read():
    body = b"".join(b"%d written for a program nobody here wrote\n" % i for i in range(60_000))

    def run(*flags: str, stdin: bytes) -> bytes:
        return subprocess.run(
            ["zstd", *flags, "-c"], input=stdin, capture_output=True, check=True
        ).stdout

    ours = compress(Zstd(), [body]) + compress(Zstd(), [b"and more"])
    assert run("-d", stdin=ours) == body + b"and more"
    for flags in (["-T0"], ["-T0", "-B256K", "--long=27"], ["--fast=5"], ["--no-check"]):
        stored = run("-q", *flags, stdin=body)
        assert decompress(Zstd(), [stored + ours], 2 * len(body) + 8) == body + body + b"and more"


def test_skippable_frames_are_skipped_wherever_they_stand():
    one, two = compress(Zstd(), [b"one "]), compress(Zstd(), [b"two"])
    stored = skippable(b"") + one + skippable(b"index" * 99, 15) + two + skippable(b"tail", 7)
    for positions in ([], range(len(stored)), [3, 7, 8, 9, 30]):
        assert decompress(Zstd(), segments(stored, positions), 7) == b"one two"
    with refused("codec-io"):
        decompress(Zstd(), [stored[:-1]], 7)
    with refused("codec-io"):
        decompress(Zstd(), [stored + skippable(b"")[:6]], 7)


def test_hand_made_blocks_of_every_kind():
    header = MAGIC + b"\x00\x58"
    stored = header + raw(b"") + raw(b"raw ") + block(1, b"r", 5) + raw(b"", last=True)
    for positions in ([], range(len(stored))):
        assert decompress(Zstd(), segments(stored, positions), 9) == b"raw rrrrr"
    for length in range(1, len(stored)):
        with refused("codec-io"):
            decompress(Zstd(), [stored[:length]], 9)


def test_a_payload_without_any_frame_is_empty():
    assert decompress(Zstd(), [], 0) == b""


def test_50_gb_claimed_in_10_kb_are_stopped_in_bounded_memory():
    stored = bomb(2500, 50 * GIB)
    assert len(stored) < 10_100
    codec = Zstd()
    with refused("bomb"):  # libzstd's own buffers are made here, once
        decompress(codec, [bomb(40, 50 * GIB)], MIB)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        for _ in range(10):
            with refused("bomb"):
                decompress(codec, [stored], 4 * MIB)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * MIB
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 32 * MIB


def test_a_claimed_window_is_not_filled():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    codec = Zstd()
    for _ in range(5):
        assert decompress(codec, [MAGIC + b"\x00\x88" + raw(b"x", last=True)], 1) == b"x"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 32 * MIB


@pytest.mark.parametrize("window", [b"\x89", b"\x90", b"\xff"])
def test_windows_beyond_128_mib_are_refused(window):
    with refused("codec-io"):
        decompress(Zstd(), [MAGIC + b"\x00" + window + raw(b"x", last=True)], 1)


def test_contexts_are_reused_and_few_are_kept():
    codec = Zstd()
    streams = [codec.compressor() for _ in range(40)]
    readers = [codec.decompressor(10) for _ in range(40)]
    for stream, reader in zip(streams, readers, strict=True):
        reader.feed(stream.compress(b"x") + stream.flush())
        reader.finish()
    assert len(codec._compressors._idle) == len(codec._decompressors._idle) == 8
    idle = set(map(id, codec._compressors._idle))
    assert id(codec.compressor()._context) in idle


class Ballast:
    def memory_size(self) -> int:
        return 50 * MIB


def test_large_contexts_are_not_hoarded():
    pool = zstd._Pool(Ballast)
    first, second = pool.take(), pool.take()
    pool.give(first)
    pool.give(second)
    assert pool.take() is first
    assert pool.take() is not second


def test_ended_streams_refuse_more():
    codec = Zstd()
    compressor = codec.compressor()
    stored = compressor.compress(b"x") + compressor.flush()
    with refused("codec-io"):
        compressor.compress(b"y")
    with refused("codec-io"):
        compressor.flush()
    reader = codec.decompressor(1)
    reader.feed(stored)
    reader.finish()
    with refused("codec-io"):
        reader.feed(stored)
    with refused("codec-io"):
        reader.finish()
    assert len(codec._compressors._idle) == len(codec._decompressors._idle) == 1


def test_failed_streams_stay_failed_and_keep_their_context():
    codec = Zstd()
    reader = codec.decompressor(1)
    with refused("codec-io"):
        reader.feed(b"junk")
    with refused("codec-io"):
        reader.feed(compress(codec, [b"x"]))
    with refused("codec-io"):
        reader.finish()
    assert not codec._decompressors._idle


def test_a_stream_that_was_cut_gives_a_clean_context_back():
    codec = Zstd()
    stored = compress(codec, [b"0123456789" * 100])
    reader = codec.decompressor(1000)
    reader.feed(stored[: len(stored) // 2])
    with refused("codec-io"):
        reader.finish()
    assert len(codec._decompressors._idle) == 1
    assert decompress(codec, [stored], 1000) == b"0123456789" * 100
