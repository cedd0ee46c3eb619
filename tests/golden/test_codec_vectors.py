"""The codecs against vectors taken from, or made for, the format's first implementation.

Inputs too large for the file are rebuilt from the formulas it states. What shrinks must come out
byte for byte, frame by frame; what does not is stored as it is here, where the first implementation
kept the larger payload, so those vectors are only read.
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from s4gateway.codecs import base, decoder, dispatcher, encoder, zstd_dict
from s4gateway.codecs.decoder import PayloadDecoder
from s4gateway.codecs.encoder import EncodedBody, FrameEncoder
from s4gateway.codecs.registry import Registry
from s4gateway.codecs.zstd import Zstd
from s4gateway.codecs.zstd_dict import ZstdDict
from s4gateway.wire import frame
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.crc32c import crc32c

VECTORS: dict[str, Any] = json.loads(Path(__file__).with_name("vectors.json").read_text())
CODECS = Registry()
MIB = 1024 * 1024

# The words of the vectors for a refusal that this project splits in two.
REFUSALS = {"unregistered-codec": {"codec-unavailable", "dictionary-missing"}}


def by_id(section: str) -> dict[str, dict[str, Any]]:
    return {vector["id"]: vector for vector in VECTORS[section]}


def named(vectors: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(vector, id=vector["id"]) for vector in vectors]


def text(size: int) -> bytes:
    line = b"%08d level=info svc=api path=/v1/items/%06d status=%d dur_ms=%d\n"
    lines = (
        line % (i, i * 7919 % 100003, 200 if i % 17 else 500, i * 31 % 997)
        for i in range(size // 60 + 1)
    )
    return b"".join(lines)[:size]


def xorshift(state: int, size: int) -> bytes:
    out, mask = bytearray(), 2**64 - 1
    for _ in range(size):
        state ^= state << 13 & mask
        state ^= state >> 7
        state ^= state << 17 & mask
        out.append(state & 0xFF)
    return bytes(out)


def content(stored: dict[str, Any]) -> bytes | None:
    if "hex" in stored:
        return bytes.fromhex(stored["hex"])
    return base64.b64decode(stored["base64"]) if "base64" in stored else None


def original(vector: dict[str, Any]) -> bytes:
    """The vector's input: given, or rebuilt and compared with its digest."""
    size = vector["original"]["len"]
    body = content(vector["original"])
    if body is None:
        body = text(size) if vector["input"].startswith("text(") else bytes(size)
    assert hashlib.sha256(body).hexdigest() == vector["original"]["sha256"]
    return body


def zstd_body(vector: dict[str, Any], body: bytes) -> EncodedBody:
    length = None if "no Content-Length" in vector["input"] else len(body)
    chunk = MIB if vector["id"] == "read-3MiB-in-1MiB-frames" else encoder.pick_chunk_size(length)
    return encoder.encode_body(body, CODECS.get(CodecId.CPU_ZSTD), chunk)


def shrinks(vector: dict[str, Any]) -> bool:
    return all(f["compressed_size"] < f["original_size"] for f in vector["frames"])


WRITTEN_BY_US = [
    vector
    for vector in VECTORS["objects"]
    if "s4-framed" in vector["metadata"]
    and vector["id"] != "read-frame-with-two-zstd-frames"
    and shrinks(vector)
]
FRAMED = [v for v in VECTORS["objects"] if "frames" in v and content(v["body"]) is not None]
UNFRAMED = [v for v in VECTORS["objects"] if "frames" not in v]


def test_most_object_vectors_are_written_here():
    assert len(WRITTEN_BY_US) >= 11


@pytest.mark.parametrize("vector", named(WRITTEN_BY_US))
def test_bodies_come_out_byte_for_byte(vector):
    body = original(vector)
    encoded = zstd_body(vector, body)
    stored = b"".join(encoded.frames)
    assert [
        (header.codec.label, header.original_size, header.compressed_size, header.crc32c)
        for header in encoded.headers
    ] == [
        (f["codec"], f["original_size"], f["compressed_size"], f["crc32c"])
        for f in vector["frames"]
    ]
    assert len(stored) == vector["body"]["len"]
    assert hashlib.sha256(stored).hexdigest() == vector["body"]["sha256"]
    assert str(encoded.crc32c) == vector["metadata"]["s4-crc32c"]
    assert str(encoded.stored_size) == vector["metadata"]["s4-compressed-size"]
    assert decoder.decode_body(stored, CODECS) == body
    if "sidecar" in vector and "hex" in vector["sidecar"] and "sidecar_etag" in vector:
        sidecar = encoded.index.bind(vector["sidecar_etag"], len(stored)).encode()
        assert sidecar.hex() == vector["sidecar"]["hex"]


def test_what_would_grow_is_stored_as_it_is_and_indexed_so():
    for name, growing in (("put-1-byte", 0), ("put-4MiB+1-text", 1)):
        vector = by_id("objects")[name]
        encoded = zstd_body(vector, original(vector))
        theirs, ours = vector["frames"][growing], encoded.headers[growing]
        assert theirs["codec"] == "cpu-zstd"
        assert ours.codec is CodecId.PASSTHROUGH
        assert (ours.original_size, ours.crc32c) == (theirs["original_size"], theirs["crc32c"])
        assert ours.compressed_size == ours.original_size < theirs["compressed_size"]
    first = by_id("objects")["put-4MiB-text"]
    assert hashlib.sha256(encoded.frames[0]).hexdigest() == first["body"]["sha256"]


@pytest.mark.parametrize("vector", named(FRAMED))
def test_framed_bodies_are_read(vector):
    stored = content(vector["body"])
    assert stored is not None
    assert decoder.decode_body(stored, CODECS) == original(vector)


@pytest.mark.parametrize("vector", named(UNFRAMED))
def test_bodies_without_frames_are_read(vector):
    stored, metadata = content(vector["body"]), vector["metadata"]
    assert stored is not None
    codec = CodecId.from_label(metadata["s4-codec"])
    assert codec is not None
    numbers = (metadata[f"s4-{name}"] for name in ("original-size", "compressed-size", "crc32c"))
    payload = PayloadDecoder(CODECS.get(codec), *map(int, numbers))
    assert b"".join(payload.feed(stored)) == original(vector)
    payload.finish()


def test_an_empty_gzip_body_is_byte_identical():
    stream = CODECS.get(CodecId.CPU_GZIP).compressor()
    vector = by_id("objects")["put-gzip-empty"]
    assert (stream.compress(b"") + stream.flush()).hex() == vector["body"]["hex"]


@pytest.mark.parametrize("vector", named(VECTORS["payload_bad"]))
def test_bad_payloads_are_refused_by_name(vector):
    with pytest.raises(base.CodecError) as caught:
        decoder.decode_body(bytes.fromhex(vector["hex"]), CODECS)
    assert caught.value.code in REFUSALS.get(vector["error"], {vector["error"]})


@pytest.mark.parametrize("case", VECTORS["zstd_frame_headers"]["cases"])
def test_frame_headers_of_every_level(case):
    stream = Zstd(case["level"]).compressor()
    payload = stream.compress(text(5000)) + stream.flush()
    assert payload.hex().startswith(case["head_hex"])


@pytest.mark.parametrize("case", VECTORS["chunk_size"]["cases"])
def test_chunk_sizes(case):
    assert encoder.pick_chunk_size(case["content_length"]) == case["chunk"]


PANGRAM = b"the quick brown fox jumps over the lazy dog. "
SAMPLES = {
    "text-1350": lambda: PANGRAM * 30,
    "xorshift-4096": lambda: xorshift(0xFEEDBEEFDEADC0DE, 4096),
    "gzip-magic+random": lambda: b"\x1f\x8b\x08" + xorshift(0xDEADC0DEFEEDBEEF, 512),
    "BZh+text": lambda: b"BZh just a log line\n" + PANGRAM * 20,
    "png+random": lambda: b"\x89PNG\r\n\x1a\n" + xorshift(0xC0DEF00DDEADFACE, 512),
    "ftyp+random": lambda: bytes(4) + b"ftyp" + xorshift(0x12345678DEADBEEF, 512),
    "empty": lambda: b"",
    "127-distinct": lambda: bytes(range(127)),
    "181-distinct": lambda: bytes(range(181)),
    "182-distinct": lambda: bytes(range(182)),
    "gzip-magic-197": lambda: b"\x1f\x8b" + bytes(range(195)),
    "gzip-magic-40": lambda: b"\x1f\x8b" + xorshift(3, 38),
    "zeros-then-random": lambda: bytes(4096) + xorshift(9, 4096),
}


@pytest.mark.parametrize("vector", named(VECTORS["dispatcher"]))
def test_dispatcher_picks(vector):
    body = SAMPLES[vector["id"]]()
    assert hashlib.sha256(body).hexdigest() == vector["sha256"]
    assert dispatcher.entropy(body[:4096]) == pytest.approx(vector["sample_entropy"], abs=1e-9)
    pick = dispatcher.Dispatcher(CodecId.CPU_ZSTD).pick(body)
    assert pick.label == vector["pick"]


def dictionary_of(vector: dict[str, Any]) -> ZstdDict:
    body = base64.b64decode(vector["dictionary"]["base64"])
    sha256 = vector["dict_object_metadata"]["s4-dict-sha256"]
    return ZstdDict.verified(body, vector["dict_id"], sha256)


@pytest.mark.parametrize("name", ["trained", "raw-content"])
def test_dictionary_bodies_come_out_byte_for_byte(name):
    vector = by_id("dictionary")[name]
    dictionary, body = dictionary_of(vector), original(vector)
    stored = b"".join(encoder.encode_smallest(body, Zstd(), dictionary).pieces())
    assert stored.hex() == vector["body"]["hex"]
    assert len(stored) - 28 == vector["dict_len"]
    assert dictionary.dict_id == vector["metadata"]["s4-dict-id"]
    assert decoder.decode_body(stored, CODECS, dictionary) == body
    with pytest.raises(base.CodecError, match="dictionary-missing"):
        decoder.decode_body(stored, CODECS)


def test_a_dictionary_that_loses_leaves_no_trace():
    vector = by_id("dictionary")["loss-falls-back"]
    body = bytes.fromhex(vector["original"]["hex"])
    stored = bytes.fromhex(vector["body"]["hex"])
    assert decoder.decode_body(stored, CODECS) == body
    dictionary = dictionary_of(by_id("dictionary")["trained"])
    for codec, size in ((Zstd(), vector["plain_len"]), (dictionary, vector["dict_len"])):
        stream = codec.compressor()
        assert len(stream.compress(body) + stream.flush()) == size
    ours = encoder.try_dictionary(body, Zstd(), dictionary)
    assert (ours.without, ours.with_dictionary) == (vector["plain_len"], vector["dict_len"])
    kept = ours.frame
    assert (kept.header.codec, kept.stored_size) == (CodecId.PASSTHROUGH, len(body) + 28)


def test_an_empty_body_under_a_dictionary_prefix_is_one_frame():
    vector = by_id("dictionary")["empty-under-dict-prefix"]
    assert decoder.decode_body(bytes.fromhex(vector["body"]["hex"]), CODECS) == b""
    dictionary = dictionary_of(by_id("dictionary")["trained"])
    ours = encoder.encode_smallest(b"", Zstd(), dictionary)
    assert ours.pieces() == [frame.FrameHeader(CodecId.PASSTHROUGH, 0, 0, 0).pack()]


@pytest.mark.parametrize("case", VECTORS["dict_wins"]["cases"])
def test_when_a_dictionary_wins(case):
    assert zstd_dict.dictionary_wins(case[0], case[1]) is case[2]


def test_a_captured_dictionary_object_keeps_its_numbers():
    vector = next(v for v in VECTORS["fixture_crosscheck"] if v["fixture"] == "dict_event")
    body = bytes.fromhex(vector["original_hex"])
    ((_, header, payload),) = frame.walk(bytes.fromhex(vector["body_hex"]))
    assert header.codec is CodecId.CPU_ZSTD_DICT
    assert (header.original_size, header.crc32c) == (len(body), crc32c(body))
    assert vector["dict_sha256"].startswith(vector["metadata"]["s4-dict-id"])
    # The payload names a trained dictionary by libzstd's own number, and cannot do without it.
    assert payload[4] & 3 == 3
    stream = Zstd().decompressor(len(body))
    with pytest.raises(base.CodecError, match="codec-io"):
        stream.feed(payload)


def part_frame(body: bytes) -> bytes:
    parts = FrameEncoder(CODECS.get(CodecId.CPU_ZSTD))
    for start in range(0, len(body), 100_000):
        parts.feed(body[start : start + 100_000])
    return b"".join(parts.finish().pieces())


def test_multipart_parts_come_out_byte_for_byte():
    vector = by_id("multipart")["mp-2-parts-padded"]
    first = part_frame(b"z" * 5_242_880)
    padded = first + frame.pad_to(len(first), 5_242_880)
    assert hashlib.sha256(padded).hexdigest() == vector["parts"][0]["stored_sha256"]
    second = part_frame(b"x" * 204_800)
    assert second.hex() == vector["parts"][1]["stored_hex"]
    assert hashlib.sha256(padded + second).hexdigest() == vector["body"]["sha256"]
    plain = decoder.decode_body(padded + second, CODECS)
    assert plain == b"z" * 5_242_880 + b"x" * 204_800


def test_noise_parts_are_framed_as_they_are():
    vector = by_id("multipart")["mp-part-passthrough-5MiB"]
    body = xorshift(7, 5_242_880)
    assert hashlib.sha256(body).hexdigest() == vector["original_sha256"]
    stored = part_frame(body)
    assert len(stored) == vector["stored_len"]
    assert hashlib.sha256(stored).hexdigest() == vector["stored_sha256"]


def test_tiny_and_empty_parts_are_read():
    vectors = by_id("multipart")
    tiny = bytes.fromhex(vectors["mp-single-tiny-part"]["stored_hex"])
    assert decoder.decode_body(tiny, CODECS) == b"tiny only part"
    empty = bytes.fromhex(vectors["mp-empty-part"]["stored_hex"])
    assert decoder.decode_body(empty, CODECS) == b""


def test_frames_come_out_the_same_however_they_are_fed():
    vector = by_id("objects")["put-1MiB-text"]
    body = original(vector)
    for step in (1000, 65_536, MIB):
        one = FrameEncoder(CODECS.get(CodecId.CPU_ZSTD))
        for start in range(0, len(body), step):
            one.feed(memoryview(body)[start : start + step])
        stored = b"".join(one.finish().pieces())
        assert hashlib.sha256(stored).hexdigest() == vector["body"]["sha256"]
