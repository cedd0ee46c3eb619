"""A frame that does not decode to its chunk never leaves its encoder."""

from concurrent import futures

import pytest
from hypothesis import given

from s4gateway.codecs import base, decoder
from s4gateway.codecs.encoder import EncodedFrame, FrameEncoder
from s4gateway.codecs.proof import Prover, Unproven
from s4gateway.codecs.registry import Registry
from s4gateway.wire import frame
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.crc32c import crc32c
from tests import corpus
from tests.contracts.codec_contract import MIB, bodies, cuts, segments

CODECS = Registry()
PROVER = Prover(CODECS)
NAMES = [CodecId.PASSTHROUGH, CodecId.CPU_ZSTD, CodecId.CPU_GZIP]
TEXT = corpus.text(300_000)


def made_by(encoder: FrameEncoder, body: bytes, positions=()) -> EncodedFrame:
    for piece in segments(body, positions):
        encoder.feed(piece)
    return encoder.finish()


@pytest.mark.parametrize("codec", NAMES)
@given(body=bodies, positions=cuts)
def test_a_proven_frame_is_the_frame_and_its_crc(codec: CodecId, body: bytes, positions):
    proven = made_by(PROVER(CODECS.get(codec)), body, positions)
    plain = made_by(FrameEncoder(CODECS.get(codec)), body, positions)
    assert proven.pieces() == plain.pieces()
    assert (plain.crc32c, proven.crc32c) == (None, crc32c(b"".join(plain.pieces())))
    assert b"".join(decoder.decode_frame(proven.header, proven.payload, CODECS)) == body


def test_what_does_not_shrink_is_proven_too():
    noise = corpus.noise(3 * MIB)
    proven = made_by(PROVER(CODECS.get(CodecId.CPU_ZSTD)), noise, [MIB, 2 * MIB])
    assert proven.header.codec is CodecId.PASSTHROUGH
    assert proven.crc32c == crc32c(b"".join(proven.pieces()))


class _Other:
    """zstd that makes sound streams of other bytes: `change` says which."""

    id = CodecId.CPU_ZSTD

    def __init__(self, change) -> None:
        self._change = change
        self._codec = CODECS.get(CodecId.CPU_ZSTD)
        self.decompressor = self._codec.decompressor

    def compressor(self) -> base.Compressor:
        stream, change = self._codec.compressor(), self._change

        class Changing:
            def compress(self, data: base.Buffer, /) -> bytes:
                return stream.compress(change(bytes(data)))

            def flush(self) -> bytes:
                return stream.flush()

        return Changing()


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data[::-1],
        lambda data: data[:1000] + bytes([data[1000] ^ 1]) + data[1001:],
        lambda data: data[:0],
    ],
)
def test_a_codec_that_makes_other_bytes_is_found_out(change):
    with pytest.raises(Unproven) as caught:
        made_by(PROVER(_Other(change)), TEXT)
    assert caught.value.code == "unproven"


def stored(body: bytes) -> bytes:
    return b"".join(made_by(FrameEncoder(CODECS.get(CodecId.CPU_ZSTD)), body).pieces())


def test_a_bit_of_the_frame_that_turned_is_found_out():
    whole = stored(TEXT)
    for position in {0, 5, 9, 20, 25, 30, len(whole) // 2, len(whole) - 1}:
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        with pytest.raises(Unproven):
            PROVER.prove(bytes(damaged), [TEXT])


@pytest.mark.parametrize(
    "frames",
    [b"", stored(TEXT) * 2, stored(TEXT)[:-1], stored(TEXT) + b"x", frame.padding(30)],
    ids=["none", "two", "cut", "more", "padding"],
)
def test_anything_but_one_frame_is_refused(frames: bytes):
    with pytest.raises(Unproven):
        PROVER.prove(frames, [TEXT])


def test_the_chunk_must_be_all_that_comes_out_and_no_more():
    whole = stored(TEXT)
    PROVER.prove(whole, [TEXT[:7], b"", TEXT[7:]])
    for chunk in ([TEXT, b"x"], [TEXT[:-1]], [], [TEXT[:-1] + b"?"]):
        with pytest.raises(Unproven):
            PROVER.prove(whole, chunk)


def test_room_left_by_a_longer_frame_proves_nothing_about_a_shorter_one():
    """The room holds the end of the longer one behind the shorter one's bytes."""
    prover = Prover(CODECS)
    prover.prove(stored(TEXT), [TEXT])
    short = stored(TEXT[:1000])
    with pytest.raises(Unproven):
        prover.prove(short, [TEXT[:1100]])
    prover.prove(short, [TEXT[:1000]])


def test_threads_prove_beside_each_other():
    chunks = [corpus.text(200_000 + number, seed=number) for number in range(16)]

    def prove(chunk: bytes) -> bool:
        made = made_by(PROVER(CODECS.get(CodecId.CPU_ZSTD)), chunk, [50_000, 100_000])
        return b"".join(decoder.decode_frame(made.header, made.payload, CODECS)) == chunk

    with futures.ThreadPoolExecutor(4) as pool:
        assert all(pool.map(prove, chunks))
