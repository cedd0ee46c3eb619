"""The guaranteed names: what they return, what they raise, and that importing costs nothing."""

import doctest
import hashlib
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import zstandard

import s4gateway
from s4gateway import codec
from s4gateway.codecs import face, face_errors
from s4gateway.wire import frame
from s4gateway.wire.index import FrameIndex
from tests import corpus

TEXT = corpus.text(100_000)
VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "golden" / "vectors.json").read_text()
)

# What a release may add to and never take away from.
GUARANTEED = {
    "CpuZstd", "CpuGzip", "CpuZstdDict", "gpu_available", "read_frame", "frame_iter",
    "decode_index", "crc32c", "encode_s4_object", "bind_index", "pick_chunk_size", "FRAME_MAGIC",
    "PADDING_MAGIC", "FRAME_HEADER_BYTES", "SIDECAR_SUFFIX", "__version__", "S4Error",
    "S4CrcMismatchError", "S4SizeMismatchError", "S4CodecMismatchError", "S4UnregisteredCodecError",
    "S4ManifestSizeExceedsLimitError", "S4ManifestSizeMismatchError", "S4FrameError",
    "S4IndexError", "S4BackendError", "S4IoError",
}  # fmt: skip


def test_the_guaranteed_names_are_all_there():
    assert set(face.__all__) >= GUARANTEED
    for name in face.__all__:
        assert getattr(codec, name) is getattr(s4gateway, name) is getattr(face, name)


def test_the_exceptions_are_related_as_promised():
    children = {name for name in GUARANTEED if name.endswith("Error")} - {
        "S4Error", "S4BackendError", "S4IoError"
    }  # fmt: skip
    for name in children:
        assert issubclass(getattr(codec, name), codec.S4Error)
    assert issubclass(codec.S4Error, ValueError)
    assert issubclass(codec.S4BackendError, RuntimeError)
    assert issubclass(codec.S4IoError, OSError)


def test_importing_the_package_imports_nothing_else_of_it():
    script = (
        "import sys, s4gateway; s4gateway.__version__\n"
        "print([name for name in sys.modules if name.startswith('s4gateway.')])\n"
        "s4gateway.crc32c(b'123456789') == 0xE3069283 or sys.exit(1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout == "[]\n"


def test_other_names_are_an_ordinary_attribute_error():
    with pytest.raises(AttributeError, match="nothing"):
        _ = s4gateway.nothing


@pytest.mark.parametrize("module", [face, face_errors, codec])
def test_the_examples_run(module: Any):
    found = doctest.testmod(module)
    assert found.failed == 0


# --- payloads

CODECS = [codec.CpuZstd(), codec.CpuZstd(19), codec.CpuGzip(), codec.CpuGzip(1),
          codec.CpuZstdDict(TEXT[:4000])]  # fmt: skip


@pytest.mark.parametrize("one", CODECS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("data", [b"", b"a", TEXT, bytes(300_000)], ids=len)
def test_payloads_come_back(one: Any, data: bytes):
    payload, size, crc = one.compress(data)
    assert (size, crc) == (len(data), codec.crc32c(data))
    assert one.decompress(payload, size, crc) == data


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_any_buffer_will_do(make: Any):
    payload, size, crc = codec.CpuZstd().compress(make(TEXT))
    assert codec.CpuZstd().decompress(make(payload), size, crc) == TEXT
    assert codec.encode_s4_object(make(TEXT)) == codec.encode_s4_object(TEXT)
    assert codec.frame_iter(make(codec.encode_s4_object(TEXT)["body"]))
    assert codec.crc32c(make(b"123456789")) == 0xE3069283


@pytest.mark.parametrize("one", [codec.CpuZstd(), codec.CpuGzip()], ids=["zstd", "gzip"])
def test_each_fault_of_a_payload_has_its_class(one: Any):
    payload, size, crc = one.compress(TEXT)
    flipped = bytearray(payload)
    flipped[len(payload) // 2] ^= 1
    for data, length, checksum, error in [
        (payload, size, crc ^ 1, codec.S4CrcMismatchError),
        (payload, size + 1, crc, codec.S4SizeMismatchError),
        (payload, size - 1, crc, codec.S4SizeMismatchError),
        (payload, 6 * 1024**3, crc, codec.S4ManifestSizeExceedsLimitError),
        (payload[:-20], size, crc, codec.S4IoError),
        (b"garbage", size, crc, codec.S4IoError),
        (bytes(flipped), size, crc, (codec.S4IoError, codec.S4Error)),
    ]:
        with pytest.raises(error):
            one.decompress(data, length, checksum)


def test_a_payload_of_another_codec_is_named_as_such():
    zstd, gzip = codec.CpuZstd(), codec.CpuGzip()
    with pytest.raises(codec.S4CodecMismatchError, match="cpu-zstd"):
        zstd.decompress(*gzip.compress(TEXT))
    with pytest.raises(codec.S4CodecMismatchError, match="cpu-gzip"):
        gzip.decompress(*zstd.compress(TEXT))


@pytest.mark.parametrize("dictionary", [b"", bytes(2**20 + 1)], ids=["empty", "too large"])
def test_bytes_that_are_no_dictionary_are_refused(dictionary: bytes):
    with pytest.raises(codec.S4DictionaryError):
        codec.CpuZstdDict(dictionary)


def test_a_payload_needs_its_dictionary():
    payload, size, crc = codec.CpuZstdDict(TEXT[:4000]).compress(TEXT[:9000])
    with pytest.raises((codec.S4Error, codec.S4IoError)):
        codec.CpuZstdDict(TEXT[5000:9000]).decompress(payload, size, crc)


# --- frames


def test_frames_are_read_one_by_one_and_all_together():
    body = frame.padding(9) + codec.encode_s4_object(TEXT)["body"] * 2 + frame.padding(0)
    frames = codec.frame_iter(body)
    assert len(frames) == 2
    header, payload, rest = codec.read_frame(body[21:])
    assert (header, payload) == frames[0]
    assert header == {
        "codec": "cpu-zstd",
        "original_size": len(TEXT),
        "compressed_size": len(payload),
        "crc32c": codec.crc32c(TEXT),
    }
    assert rest == body[21 + codec.FRAME_HEADER_BYTES + len(payload) :]
    assert codec.CpuZstd().decompress(payload, len(TEXT), header["crc32c"]) == TEXT


@pytest.mark.parametrize(
    "body",
    [b"S4F2", b"GARBAGE" * 10, codec.encode_s4_object(TEXT)["body"][:-1],
     b"S4F2" + b"\xff" * 24, b"S4P1" + b"\xff" * 8],
    ids=["short", "garbage", "cut", "codec", "endless padding"],
)  # fmt: skip
def test_what_is_no_frame_is_a_frame_error(body: bytes):
    with pytest.raises(codec.S4FrameError):
        codec.frame_iter(body)
    with pytest.raises(codec.S4FrameError):
        codec.read_frame(body)


# --- objects


def test_an_object_is_byte_for_byte_what_the_format_prescribes():
    for vector in VECTORS["objects"]:
        if vector["id"] in {"put-100KiB-text", "put-3MiB-text", "put-9MiB-text"}:
            data = _text(vector["original"]["len"])
            obj = codec.encode_s4_object(data)
            assert hashlib.sha256(obj["body"]).hexdigest() == vector["body"]["sha256"]
            own = {"s4-logical-etag": hashlib.md5(data).hexdigest()}
            assert obj["metadata"] == vector["metadata"] | own
            _check_sidecar(obj, vector)


def _check_sidecar(obj: face.S4Object, vector: dict[str, Any]) -> None:
    if "sidecar" not in vector:
        assert obj["sidecar"] is None
        return
    assert obj["sidecar"] is not None
    bound = codec.bind_index(obj["sidecar"], len(obj["body"]), vector["sidecar_etag"])
    assert hashlib.sha256(bound).hexdigest() == vector["sidecar"]["sha256"]


def _text(size: int) -> bytes:
    line = b"%08d level=info svc=api path=/v1/items/%06d status=%d dur_ms=%d\n"
    lines = (
        line % (i, i * 7919 % 100003, 200 if i % 17 else 500, i * 31 % 997)
        for i in range(size // 60 + 1)
    )
    return b"".join(lines)[:size]


@pytest.mark.parametrize("data", [b"", b"x", TEXT, corpus.noise(5_000_000)], ids=len)
def test_an_object_decodes_to_what_it_was_made_of(data: bytes):
    obj = codec.encode_s4_object(data)
    plain = b""
    for header, payload in codec.frame_iter(obj["body"]):
        stored_as = {"cpu-zstd": codec.CpuZstd().decompress, "passthrough": lambda p, *_: p}
        plain += stored_as[header["codec"]](payload, header["original_size"], header["crc32c"])
    assert plain == data
    assert obj["metadata"]["s4-crc32c"] == str(codec.crc32c(data))
    assert obj["metadata"]["s4-compressed-size"] == str(len(obj["body"]))
    assert obj["metadata"]["s4-framed"] == "true"
    assert (obj["sidecar"] is None) == (len(data) <= codec.pick_chunk_size(len(data)))


def test_passthrough_is_the_body_itself_without_the_mark_of_frames():
    obj = codec.encode_s4_object(TEXT, "passthrough")
    assert (obj["body"], obj["sidecar"]) == (TEXT, None)
    assert obj["metadata"]["s4-codec"] == "passthrough"
    assert "s4-framed" not in obj["metadata"]


@pytest.mark.parametrize("name", ["cpu-gzip", "cpu-zstd-dict", "nvcomp-zstd", "", "auto"])
def test_codecs_only_the_gateway_writes_are_refused(name: str):
    with pytest.raises(NotImplementedError, match="gateway"):
        codec.encode_s4_object(TEXT, name)


def test_the_level_reaches_the_codec():
    small, quick = (codec.encode_s4_object(TEXT, level=level)["body"] for level in (19, 1))
    assert len(small) < len(quick)


def test_a_sidecar_is_unbound_until_it_is_bound():
    obj = codec.encode_s4_object(bytes(9_000_000))
    assert obj["sidecar"] is not None
    fresh = codec.decode_index(obj["sidecar"])
    assert (fresh["source_etag"], fresh["source_compressed_size"], fresh["sse"]) == (None,) * 3
    assert fresh["total_original_size"] == 9_000_000
    assert fresh["total_padded_size"] == len(obj["body"])
    assert [entry["original_size"] for entry in fresh["entries"]] == [4194304, 4194304, 611392]
    bound = codec.bind_index(obj["sidecar"], len(obj["body"]), '"abc"')
    assert FrameIndex.decode(bound).is_bound_to("abc", len(obj["body"]))
    assert codec.decode_index(codec.bind_index(bound, 7))["source_etag"] is None


def test_the_shape_of_an_envelope_is_shown():
    (vector,) = [each for each in VECTORS["sidecars"] if each["id"].startswith("v3")][:1]
    sse = codec.decode_index(bytes.fromhex(vector["hex"]))["sse"]
    assert sse is not None
    assert set(sse) == {"enc_chunk_size", "enc_chunk_count", "enc_key_id", "enc_salt",
                        "enc_plaintext_len", "enc_header_bytes"}  # fmt: skip


def test_what_is_no_sidecar_is_an_index_error():
    for vector in VECTORS["sidecars_bad"]:
        if vector.get("hex") is not None:
            with pytest.raises(codec.S4IndexError):
                codec.decode_index(bytes.fromhex(vector["hex"]))
    for bad in ("x" * 5000, None):
        sidecar = codec.encode_s4_object(bytes(9_000_000))["sidecar"]
        assert sidecar is not None
        with pytest.raises(codec.S4IndexError):
            codec.bind_index(sidecar if bad else b"S4IX", 1, bad)


def test_other_threads_run_while_a_checksum_is_computed():
    """A thread that spins gets on while another one encodes: the lock is not held throughout."""
    # A busy machine may give the spinning thread no turn during one call, but not during so many.
    assert any(_turns_during_a_checksum() >= 5 for _ in range(100))


def _turns_during_a_checksum() -> int:
    data = bytes(64 * 1024 * 1024)
    begun, done, turns = threading.Event(), threading.Event(), 0

    def encode() -> None:
        begun.set()
        codec.encode_s4_object(data, "passthrough")
        done.set()

    thread = threading.Thread(target=encode)
    thread.start()
    begun.wait()
    while not done.wait(0.001):
        turns += 1
    thread.join()
    return turns


def test_there_is_no_gpu():
    assert codec.gpu_available() is False


def test_zstd_itself_reads_the_payloads():
    payload, size, _ = codec.CpuZstd().compress(TEXT)
    assert zstandard.ZstdDecompressor().decompress(payload, max_output_size=size) == TEXT
