"""Chunks into frames: never larger than chunk and header, exact where they shrink."""

import tracemalloc
from concurrent import futures

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.codecs import base, decoder, encoder
from s4gateway.codecs.encoder import FrameEncoder, encode_body, encode_smallest, try_dictionary
from s4gateway.codecs.registry import Registry
from s4gateway.codecs.zstd import Zstd
from s4gateway.codecs.zstd_dict import ZstdDict
from s4gateway.wire import frame
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.crc32c import crc32c
from tests import corpus
from tests.contracts.codec_contract import MIB, bodies, cuts, segments

CODECS = Registry()
TEXT = b"".join(b"%d: a line of a log file, level=info\n" % i for i in range(5000))
NAMES = [CodecId.PASSTHROUGH, CodecId.CPU_ZSTD, CodecId.CPU_GZIP]


def encode_frame(body: bytes, codec: base.Codec, positions=()) -> encoder.EncodedFrame:
    frame_encoder = FrameEncoder(codec)
    for piece in segments(body, positions):
        frame_encoder.feed(piece)
    return frame_encoder.finish()


@pytest.mark.parametrize("codec", NAMES)
@given(body=bodies, positions=cuts)
def test_a_frame_round_trips_and_never_grows(codec, body, positions):
    encoded = encode_frame(body, CODECS.get(codec), positions)
    header, payload = encoded.header, b"".join(encoded.payload)
    assert b"".join(decoder.decode_frame(header, encoded.payload, CODECS)) == body
    assert (header.original_size, header.crc32c) == (len(body), crc32c(body))
    assert header.compressed_size == len(payload)
    assert encoded.stored_size == len(payload) + 28 <= len(body) + 28
    assert b"".join(encoded.pieces()) == header.pack() + payload
    assert encode_body(body, CODECS.get(codec), 10 * MIB).frames == (
        [b"".join(encoded.pieces())] if body else []
    )


@pytest.mark.parametrize("codec", [CodecId.CPU_ZSTD, CodecId.CPU_GZIP])
def test_what_would_grow_is_stored_as_it_is(codec):
    for body in (b"", b"a", corpus.noise(3 * MIB, seed=4), b"\x01\x02" * 3):
        encoded = encode_frame(body, CODECS.get(codec), [MIB, 2 * MIB])
        assert encoded.header.codec is CodecId.PASSTHROUGH
        assert b"".join(encoded.payload) == body


def test_quiet_head_and_random_rest_do_not_grow():
    body = corpus.quiet_head(MIB, head=4096)
    encoded = encode_body(body, Zstd(), MIB)
    assert len(body) * 0.99 < encoded.stored_size <= len(body) + 28


def test_what_shrinks_has_the_bytes_of_the_plain_stream():
    stream = Zstd().compressor()
    payload = stream.compress(TEXT) + stream.flush()
    assert b"".join(encode_frame(TEXT, Zstd(), [1000, 70_000]).payload) == payload
    assert encode_body(TEXT, Zstd(), MIB).frames[0][28:] == payload


def test_held_output_is_counted():
    frame_encoder = FrameEncoder(Zstd())
    assert frame_encoder.pending_out == frame_encoder.original_size == 0
    frame_encoder.feed(corpus.noise(MIB))
    assert MIB // 2 < frame_encoder.pending_out <= MIB + 100
    assert frame_encoder.original_size == MIB


def test_the_chunk_is_not_kept():
    chunk = TEXT[:65536]
    frame_encoder = FrameEncoder(Zstd())
    frame_encoder.feed(chunk)
    tracemalloc.start()
    try:
        for _ in range(255):
            frame_encoder.feed(bytes(bytearray(chunk)))
        encoded = frame_encoder.finish()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert encoded.header.original_size == 16 * MIB
    assert peak < MIB


def test_many_threads_encode_the_same_frames():
    chunks = [TEXT[n * 1000 : n * 1000 + 60_000] for n in range(32)]
    expected = [encode_body(chunk, Zstd(), MIB).frames for chunk in chunks]
    codec = Zstd()
    with futures.ThreadPoolExecutor(16) as pool:
        got = pool.map(lambda chunk: encode_body(chunk, codec, MIB).frames, chunks)
        assert list(got) == expected


@given(st.binary(max_size=400), st.integers(1, 100))
def test_a_body_is_cut_into_full_chunks(body, chunk_size):
    encoded = encode_body(body, Zstd(), chunk_size)
    stored = b"".join(encoded.frames)
    assert decoder.decode_body(stored, CODECS) == body
    sizes = [header.original_size for header in encoded.headers]
    assert all(size == chunk_size for size in sizes[:-1])
    assert encoded.original_size == sum(sizes) == len(body)
    assert encoded.crc32c == crc32c(body)
    assert encoded.stored_size == len(stored)
    walked = [(offset, header) for offset, header, _ in frame.walk(stored)]
    index = encoded.index
    assert [(e.compressed_offset, e.compressed_size) for e in index] == [
        (offset, header.stored_size) for offset, header in walked
    ]
    assert index.total_original == len(body)
    assert index.total_padded == len(stored)


def test_an_empty_body_has_no_frame():
    encoded = encode_body(b"", Zstd(), MIB)
    assert (encoded.frames, encoded.headers, encoded.crc32c) == ([], [], 0)
    assert len(encoded.index) == encoded.stored_size == encoded.original_size == 0


@pytest.mark.parametrize(
    ("length", "mebibytes"),
    [
        (None, 4),
        (0, 1),
        (MIB, 1),
        (MIB + 1, 4),
        (100 * MIB, 4),
        (100 * MIB + 1, 16),
        (5 * 1024 * MIB, 16),
    ],
)
def test_chunk_sizes_follow_the_length(length, mebibytes):
    assert encoder.pick_chunk_size(length) == mebibytes * MIB


def test_the_dictionary_is_used_only_where_it_helps():
    words = b'{"level":"info","service":"billing","event":"invoice_paid"}'
    dictionary = ZstdDict(words)
    wins = encode_smallest(words[:40], Zstd(), dictionary)
    assert wins.header.codec is CodecId.CPU_ZSTD_DICT
    assert (
        b"".join(decoder.decode_frame(wins.header, wins.payload, CODECS, dictionary))
        == (words[:40])
    )
    samples = [TEXT[n * 100 : n * 100 + 100] for n in range(1000)]
    trained = ZstdDict(zstandard.train_dictionary(2048, samples).as_bytes())
    trial = try_dictionary(b"\x00" * 9000, Zstd(), trained)
    loses = trial.frame
    assert loses.header.codec is CodecId.CPU_ZSTD
    assert trial.with_dictionary >= trial.without == loses.header.compressed_size
    assert encode_body(b"\x00" * 9000, Zstd(), MIB).frames == [b"".join(loses.pieces())]


@pytest.mark.parametrize("body", [b"", b"\x93", corpus.noise(600, seed=8)])
def test_neither_helps_what_cannot_shrink(body):
    encoded = encode_smallest(body, Zstd(), ZstdDict(b"unrelated words"))
    assert encoded.header.codec is CodecId.PASSTHROUGH
    assert encoded.stored_size == len(body) + 28
    assert b"".join(encoded.payload) == body
