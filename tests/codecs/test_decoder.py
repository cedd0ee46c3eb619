"""Nothing comes out that its header did not promise."""

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.codecs import base, decoder, encoder
from s4gateway.codecs.decoder import FrameDecoder, PayloadDecoder
from s4gateway.codecs.registry import Registry
from s4gateway.codecs.zstd_dict import ZstdDict
from s4gateway.wire import errors, frame
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.crc32c import crc32c
from tests.contracts.codec_contract import MIB, bodies, cuts, refused, segments

CODECS = Registry()
BODY = b"the quick brown fox jumps over the lazy dog\n" * 200
NAMES = [CodecId.PASSTHROUGH, CodecId.CPU_ZSTD, CodecId.CPU_GZIP]


def encoded(codec: CodecId, body: bytes = BODY) -> tuple[frame.FrameHeader, bytes]:
    stream = CODECS.get(codec).compressor()
    payload = stream.compress(body) + stream.flush()
    return frame.FrameHeader(codec, len(body), len(payload), crc32c(body)), payload


@pytest.mark.parametrize("codec", NAMES)
@given(body=bodies, positions=cuts)
def test_a_frame_decodes_from_any_pieces(codec, body, positions):
    header, payload = encoded(codec, body)
    pieces = decoder.decode_frame(header, segments(payload, positions), CODECS)
    assert b"".join(pieces) == body


@pytest.mark.parametrize("codec", NAMES)
def test_a_frame_is_refused_until_it_is_whole(codec):
    header, payload = encoded(codec)
    frame_decoder = FrameDecoder(header, CODECS.get(codec))
    frame_decoder.feed(payload[:-1])
    with refused("manifest-size-mismatch"):
        frame_decoder.finish()


@pytest.mark.parametrize("codec", NAMES)
def test_more_payload_than_announced_is_refused_before_it_is_decoded(codec):
    header, payload = encoded(codec)
    frame_decoder = FrameDecoder(header, CODECS.get(codec))
    frame_decoder.feed(payload)
    with refused("manifest-size-mismatch"):
        frame_decoder.feed(b"!")


@pytest.mark.parametrize("codec", [CodecId.CPU_ZSTD, CodecId.CPU_GZIP])
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"original_size": len(BODY) - 1}, "bomb"),
        ({"original_size": 0}, "bomb"),
        ({"original_size": len(BODY) + 1}, "size-mismatch"),
        ({"original_size": decoder.MAX_ORIGINAL}, "size-mismatch"),
        ({"original_size": decoder.MAX_ORIGINAL + 1}, "manifest-size-exceeds-limit"),
        ({"original_size": 2**64 - 1}, "manifest-size-exceeds-limit"),
        ({"compressed_size": 3}, "manifest-size-mismatch"),
        ({"compressed_size": 2**64 - 1}, "manifest-size-mismatch"),
        ({"crc32c": 0}, "crc-mismatch"),
        ({"codec": CodecId.NVCOMP_GANS}, "codec-unavailable"),
        ({"codec": CodecId.CPU_ZSTD_DICT}, "dictionary-missing"),
        ({"codec": CodecId.PASSTHROUGH}, "size-mismatch"),
    ],
)
def test_every_lie_in_a_header_has_its_error(codec, change, code):
    header, payload = encoded(codec)
    with refused(code):
        decoder.decode_frame(replace(header, **change), [payload], CODECS)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"original_size": len(BODY) - 1}, "size-mismatch"),
        ({"compressed_size": len(BODY) - 1}, "size-mismatch"),
        ({"original_size": 1, "compressed_size": 1}, "manifest-size-mismatch"),
        ({"crc32c": 0}, "crc-mismatch"),
    ],
)
def test_identity_frames_do_not_change_size(change, code):
    header, payload = encoded(CodecId.PASSTHROUGH)
    with refused(code):
        decoder.decode_frame(replace(header, **change), [payload], CODECS)


@pytest.mark.parametrize("codec", NAMES)
def test_no_flipped_bit_gets_through(codec):
    body = BODY[:300]
    header, payload = encoded(codec, body)
    for position in range(len(payload) * 8):
        flipped = bytearray(payload)
        flipped[position // 8] ^= 1 << position % 8
        with contextlib.suppress(base.CodecError):
            assert b"".join(decoder.decode_frame(header, [flipped], CODECS)) == body


@pytest.mark.parametrize("codec", [CodecId.CPU_ZSTD, CodecId.CPU_GZIP])
def test_a_payload_cut_where_the_header_says_so_is_still_refused(codec):
    header, payload = encoded(codec)
    cut = payload[:-1]
    with refused("codec-io"):
        decoder.decode_frame(replace(header, compressed_size=len(cut)), [cut], CODECS)


def test_an_empty_frame_decodes_to_nothing():
    header, payload = encoded(CodecId.CPU_ZSTD, b"")
    assert decoder.decode_frame(header, [payload], CODECS) == []
    none = frame.FrameHeader(CodecId.CPU_ZSTD, 0, 0, 0)
    assert decoder.decode_frame(none, [], CODECS) == []


def test_dictionary_frames_decode_with_their_dictionary():
    codec = ZstdDict(BODY[:500])
    stream = codec.compressor()
    payload = stream.compress(BODY) + stream.flush()
    header = frame.FrameHeader(codec.id, len(BODY), len(payload), crc32c(BODY))
    assert b"".join(decoder.decode_frame(header, [payload], CODECS, codec)) == BODY
    stored = header.pack() + payload
    assert decoder.decode_body(stored, CODECS, codec) == BODY


def test_the_wrong_raw_dictionary_is_caught_by_the_crc():
    body = b"shared words of one dictionary" * 2
    right, wrong = ZstdDict(body[:30]), ZstdDict(bytes(reversed(body[:30])))
    stream = right.compressor()
    payload = stream.compress(body) + stream.flush()
    header = frame.FrameHeader(right.id, len(body), len(payload), crc32c(body))
    with refused("crc-mismatch"):
        decoder.decode_frame(header, [payload], CODECS, wrong)


def test_a_payload_without_frame_decodes_by_the_objects_numbers():
    header, payload = encoded(CodecId.CPU_GZIP)
    for size in (header.compressed_size, None):
        whole = PayloadDecoder(CODECS.get(CodecId.CPU_GZIP), len(BODY), size, header.crc32c)
        assert b"".join(whole.feed(payload[:50]) + whole.feed(payload[50:])) == BODY
        whole.finish()


def test_a_payload_of_unknown_length_may_be_followed_by_gzip_junk():
    header, payload = encoded(CodecId.CPU_GZIP)
    whole = PayloadDecoder(CODECS.get(CodecId.CPU_GZIP), len(BODY), None, header.crc32c)
    assert b"".join(whole.feed(payload + b"junk")) == BODY
    whole.finish()


def test_the_caller_may_allow_less():
    header, _ = encoded(CodecId.CPU_ZSTD)
    with refused("manifest-size-exceeds-limit"):
        FrameDecoder(header, CODECS.get(header.codec), max_original=len(BODY) - 1)
    with refused("manifest-size-exceeds-limit"):
        PayloadDecoder(CODECS.get(CodecId.PASSTHROUGH), MIB, None, 0, max_original=MIB - 1)


@given(st.lists(st.tuples(st.sampled_from(NAMES), bodies), max_size=6), st.integers(0, 30))
def test_a_body_of_mixed_frames_and_padding_decodes(parts, pad):
    stored, original = frame.padding(pad), b""
    for codec, body in parts:
        header, payload = encoded(codec, body)
        stored += header.pack() + payload + frame.padding(pad)
        original += body
    assert decoder.decode_body(stored, CODECS) == original
    assert decoder.decode_body(memoryview(stored), CODECS) == original


def test_a_body_that_is_not_frames_is_a_wire_error():
    with pytest.raises(errors.FrameError):
        decoder.decode_body(b"S4F1 and then something", CODECS)
    assert decoder.decode_body(b"", CODECS) == b""


# --- into room that is kept for a frame

PLAIN = b"a line of a log, and another one of it\n" * 5000


def _frame(codec: CodecId) -> tuple[frame.FrameHeader, bytes]:
    (stored,) = encoder.encode_body(PLAIN, CODECS.get(codec), 1 << 30).frames
    return frame.FrameHeader.parse(stored), stored[frame.HEADER_SIZE :]


@pytest.mark.parametrize("codec", [CodecId.CPU_ZSTD, CodecId.CPU_GZIP, CodecId.PASSTHROUGH])
def test_a_frame_is_decoded_into_its_room(codec: CodecId):
    header, payload = _frame(codec)
    room = bytearray(len(PLAIN))
    decoder.decode_frame_into(header, payload, memoryview(room), CODECS)
    assert room == PLAIN


def test_two_zstd_frames_in_one_payload_fill_one_room():
    one, other = (
        encoder.encode_body(half, CODECS.get(CodecId.CPU_ZSTD), 1 << 30).frames[0]
        for half in (PLAIN[:50_000], PLAIN[50_000:])
    )
    payload = one[frame.HEADER_SIZE :] + b"\x50\x2a\x4d\x18\x02\x00\x00\x00xx" + other[28:]
    header = frame.FrameHeader(CodecId.CPU_ZSTD, len(PLAIN), len(payload), crc32c(PLAIN))
    room = bytearray(len(PLAIN))
    decoder.decode_frame_into(header, payload, memoryview(room), CODECS)
    assert room == PLAIN


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda header, payload: (header, payload[:-3]), "manifest-size-mismatch"),
        (lambda header, payload: (resized(header, payload[:-3]), payload[:-3]), "codec-io"),
        (lambda header, payload: (resized(header, payload + b"!"), payload + b"!"), "codec-io"),
        (lambda header, payload: (resized(header, payload * 2), payload * 2), "bomb"),
        (lambda header, payload: (replace(header, original_size=9), payload), "bomb"),
        (lambda header, payload: (replace(header, crc32c=1), payload), "crc-mismatch"),
        (
            lambda header, payload: (replace(header, original_size=len(PLAIN) + 1), payload),
            "size-mismatch",
        ),
    ],
    ids=["cut", "cut and stated", "junk", "twice", "room too small", "crc", "room too large"],
)
def test_a_frame_that_does_not_fit_its_room_has_its_error(change: Any, code: str):
    header, payload = change(*_frame(CodecId.CPU_ZSTD))
    room = memoryview(bytearray(header.original_size))
    with refused(code):
        decoder.decode_frame_into(header, payload, room, CODECS)


def resized(header: frame.FrameHeader, payload: bytes) -> frame.FrameHeader:
    return replace(header, compressed_size=len(payload))
