"""The wire floor against vectors taken from, or made for, the format's first implementation.

`vectors.json` holds bytes that must be read, bytes that must be refused with a named error, and
bytes that must come out exactly. Bodies of large vectors are given as digests only; those belong to
the tests that can rebuild them.
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from s4gateway.wire import envelope, errors, frame, index, keys, manifest, plan, scanner
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.crc32c import crc32c

VECTORS: dict[str, Any] = json.loads(Path(__file__).with_name("vectors.json").read_text())


def named(vectors: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(vector, id=vector["id"]) for vector in vectors]


def body_of(vector: dict[str, Any]) -> bytes | None:
    body = vector["body"]
    if "hex" in body:
        return bytes.fromhex(body["hex"])
    return base64.b64decode(body["base64"]) if "base64" in body else None


def described(body: bytes) -> list[dict[str, Any]]:
    return [
        {
            "offset": offset,
            "codec": header.codec.label,
            "codec_id": int(header.codec),
            "original_size": header.original_size,
            "compressed_size": header.compressed_size,
            "crc32c": header.crc32c,
            "payload_sha256": hashlib.sha256(payload).hexdigest(),
            "payload_head_hex": bytes(payload[:12]).hex(),
        }
        for offset, header, payload in frame.walk(body)
    ]


def scanned_entries(body: bytes) -> tuple[list[index.FrameEntry], int]:
    frames = scanner.FrameScanner()
    events = frames.feed(body)
    frames.close()
    starts = [event for event in events if isinstance(event, scanner.FrameStart)]
    entries, position = [], 0
    for start in starts:
        size = start.header.original_size
        entries.append(index.FrameEntry(position, size, start.offset, start.header.stored_size))
        position += size
    return entries, frames.offset


def as_lists(entries: Any) -> list[list[int]]:
    return [
        [e.original_offset, e.original_size, e.compressed_offset, e.compressed_size]
        for e in entries
    ]


@pytest.mark.parametrize("vector", VECTORS["crc32c"])
def test_crc32c(vector: dict[str, Any]):
    data = (
        vector["input_ascii"].encode()
        if "input_ascii" in vector
        else bytes.fromhex(vector["input_hex"])
    )
    assert crc32c(data) == vector["value"] == int(vector["hex"], 16)


@pytest.mark.parametrize("vector", named([v for v in VECTORS["frames"] if "crc32c" in v]))
def test_data_frame_is_written_and_read(vector: dict[str, Any]):
    stored = bytes.fromhex(vector["hex"])
    payload = stored[frame.HEADER_SIZE :]
    codec = CodecId.from_label(vector["codec"])
    assert codec is not None
    header = frame.FrameHeader(codec, vector["original_size"], len(payload), vector["crc32c"])
    assert header.pack() + payload == stored
    assert [(o, h, bytes(p)) for o, h, p in frame.walk(stored)] == [(0, header, payload)]


@pytest.mark.parametrize("vector", named([v for v in VECTORS["frames"] if "padding" in v["id"]]))
def test_padding_frame_is_written_and_skipped(vector: dict[str, Any]):
    stored = bytes.fromhex(vector["hex"])
    assert frame.padding(int(vector["id"].removeprefix("padding-"))) == stored
    assert list(frame.walk(stored)) == []


@pytest.mark.parametrize("vector", named([v for v in VECTORS["frames"] if "frames" in v]))
def test_frames_of_every_codec_are_told_apart(vector: dict[str, Any]):
    assert described(bytes.fromhex(vector["hex"])) == vector["frames"]


@pytest.mark.parametrize("case", VECTORS["pad_to_minimum"]["cases"])
def test_pad_to_minimum(case: dict[str, Any]):
    appended = frame.pad_to(case["current"], case["minimum"])
    assert case["current"] + len(appended) == case["result_len"]
    if case["pad_payload"] is None:
        assert appended == b""
    else:
        assert frame.parse_padding(appended) == case["pad_payload"]


@pytest.mark.parametrize("vector", named(VECTORS["frame_walk_ok"]))
def test_good_body_is_walked(vector: dict[str, Any]):
    body = bytes.fromhex(vector["hex"])
    assert b"".join(payload for _, _, payload in frame.walk(body)).hex() == vector["decoded_hex"]


@pytest.mark.parametrize("vector", named(VECTORS["frame_walk_bad"]))
def test_bad_body_is_refused_by_its_name(vector: dict[str, Any]):
    body = bytes.fromhex(vector["hex"])
    with pytest.raises(errors.FrameError) as walked:
        list(frame.walk(body))
    assert walked.value.code == vector["error"]

    frames = scanner.FrameScanner()
    with pytest.raises(errors.FrameError) as scanned:  # noqa: PT012 - either call may say it
        frames.feed(body)
        frames.close()
    assert scanned.value.code == vector["error"]


def test_frame_that_claims_more_than_the_limit_is_refused_while_scanning():
    vector = next(v for v in VECTORS["payload_bad"] if v["id"] == "orig-over-5GiB")
    with pytest.raises(errors.FrameError) as caught:
        scanner.FrameScanner().feed(bytes.fromhex(vector["hex"]))
    assert caught.value.code == vector["error"]


@pytest.mark.parametrize("vector", named(VECTORS["objects"]))
def test_object_metadata_is_read_and_written(vector: dict[str, Any]):
    metadata = vector["metadata"]
    stored = manifest.classify(metadata)
    if "s4-multipart" in metadata:
        assert (stored.form, stored.manifest) == (manifest.Form.FRAMED, None)
        assert manifest.multipart_metadata(CodecId.CPU_ZSTD) == metadata
        return
    assert stored.manifest is not None
    assert stored.manifest.to_metadata() == metadata
    assert stored.logical_size == vector["original"]["len"]
    assert stored.manifest.compressed_size == vector["body"]["len"]
    expected = manifest.Form.FRAMED if "frames" in vector else manifest.Form.UNFRAMED
    if metadata["s4-codec"] == "passthrough":
        expected = manifest.Form.PASSTHROUGH
    assert stored.form is expected


@pytest.mark.parametrize(
    "vector", named([v for v in VECTORS["objects"] if "frames" in v and body_of(v) is not None])
)
def test_object_body_is_walked(vector: dict[str, Any]):
    body = body_of(vector)
    assert body is not None
    assert described(body) == vector["frames"]


@pytest.mark.parametrize("vector", named([v for v in VECTORS["objects"] if "sidecar" in v]))
def test_object_sidecar_is_read_and_written(vector: dict[str, Any]):
    stored = bytes.fromhex(vector["sidecar"]["hex"])
    decoded = index.FrameIndex.decode(stored)
    entries, position = [], 0
    for described_frame in vector["frames"]:
        size = described_frame["original_size"]
        whole = frame.HEADER_SIZE + described_frame["compressed_size"]
        entries.append(index.FrameEntry(position, size, described_frame["offset"], whole))
        position += size
    if "sidecar_entries" in vector:
        assert as_lists(decoded) == vector["sidecar_entries"]
    built = index.FrameIndex.from_entries(entries, total_padded=vector["body"]["len"])
    assert built.bind(decoded.etag, vector["body"]["len"]).encode() == stored
    assert decoded.total_original == vector["original"]["len"]


@pytest.mark.parametrize("vector", named(VECTORS["dictionary"]))
def test_dictionary_object_names_its_dictionary(vector: dict[str, Any]):
    stored = manifest.classify(vector["metadata"])
    assert stored.manifest is not None
    assert stored.manifest.to_metadata() == vector["metadata"]
    assert stored.dict_id == vector.get("dict_id")
    if "dict_id" in vector:
        assert stored.form is manifest.Form.DICTIONARY
        assert keys.dictionary_key(vector["dict_id"]) == vector["object_key"]
        assert described(bytes.fromhex(vector["body"]["hex"])) == vector["frames"]
    else:
        assert stored.form is manifest.Form.FRAMED


def test_dict_id_validity():
    for good in VECTORS["dict_id_validity"]["ok"]:
        assert keys.dictionary_key(good) == f".s4dict/{good}"
    for bad in VECTORS["dict_id_validity"]["bad"]:
        assert keys.dictionary_key(bad) is None


def test_multipart_body_is_walked_and_indexed():
    vector = VECTORS["multipart"][0]
    first, second = vector["parts"]
    sizes = [entry[3] for entry in vector["sidecar_entries"]]
    # The payload bytes of the first part are not in the vector; their place is all that counts.
    head = bytes.fromhex(first["head64_hex"])
    stored = head + bytes(sizes[0] - len(head))
    padding = frame.pad_to(len(stored), 5 * 1024**2)
    assert len(stored) == first["pad_header_offset"]
    assert frame.parse_padding(padding) == first["pad_len"]
    assert len(stored + padding) == first["stored_len"]

    body = stored + padding + bytes.fromhex(second["stored_hex"])
    assert len(body) == vector["body"]["len"]
    entries, total_padded = scanned_entries(body)
    assert as_lists(entries) == vector["sidecar_entries"]
    built = index.FrameIndex.from_entries(entries, total_padded=total_padded)
    assert built.total_original == vector["total_original"]
    sidecar = bytes.fromhex(vector["sidecar"]["hex"])
    etag = index.FrameIndex.decode(sidecar).etag
    assert built.bind(etag, len(body)).encode() == sidecar

    described_frames = described(body)
    assert described_frames[1] == vector["frames"][1]
    assert described_frames[0]["offset"] == vector["frames"][0]["offset"]
    assert manifest.multipart_metadata(CodecId.CPU_ZSTD) == vector["metadata"]


def test_multipart_passthrough_part_is_framed_and_needs_no_padding():
    vector = VECTORS["multipart"][1]
    header = frame.FrameHeader.parse(bytes.fromhex(vector["head32_hex"]))
    assert header.codec is CodecId.PASSTHROUGH
    assert header.stored_size == vector["stored_len"]
    assert frame.pad_to(header.stored_size, 5 * 1024**2) == b""


def test_multipart_single_part_has_a_sidecar():
    vector = VECTORS["multipart"][2]
    body = bytes.fromhex(vector["stored_hex"])
    sidecar = bytes.fromhex(vector["sidecar_hex"])
    entries, total_padded = scanned_entries(body)
    built = index.FrameIndex.from_entries(entries, total_padded=total_padded)
    etag = index.FrameIndex.decode(sidecar).etag
    assert built.bind(etag, len(body)).encode() == sidecar


def test_multipart_empty_part_is_one_frame_of_nothing():
    body = bytes.fromhex(VECTORS["multipart"][3]["stored_hex"])
    ((offset, header, payload),) = frame.walk(body)
    assert (offset, header.original_size, len(payload)) == (0, 0, 9)


@pytest.mark.parametrize("vector", named(VECTORS["sidecars"]))
def test_sidecar_is_read_and_written(vector: dict[str, Any]):
    stored, expected = bytes.fromhex(vector["hex"]), vector["decoded"]
    decoded = index.FrameIndex.decode(stored)
    assert as_lists(decoded) == expected["entries"]
    assert decoded.total_padded == expected["total_padded"]
    assert decoded.total_original == expected["total_original"]
    assert decoded.etag == expected["etag"]
    assert decoded.source_size == expected["source_size"]
    if expected["sse"] is None:
        assert decoded.sse is None
    else:
        *sizes, salt, plaintext_len, header_bytes = expected["sse"]
        binding = index.SseBinding(*sizes, bytes.fromhex(salt), plaintext_len, header_bytes)
        assert decoded.sse == binding
    if expected["version"] == (2 if decoded.sse is None else 3):
        assert decoded.encode() == stored
    else:
        assert index.FrameIndex.decode(decoded.encode()) == decoded


@pytest.mark.parametrize("vector", named(VECTORS["sidecars_bad"]))
def test_bad_sidecar_is_refused_by_its_name(vector: dict[str, Any]):
    if vector["hex"] is not None:
        stored = bytes.fromhex(vector["hex"])
    else:  # an ETag of 4097 bytes, which the vector spells out by its length only
        empty = index.FrameIndex.from_entries(()).encode()
        stored = empty[:40] + (4097).to_bytes(4, "little") + bytes(4097)
    assert len(stored) == vector["len"]
    with pytest.raises(errors.SidecarError) as caught:
        index.FrameIndex.decode(stored)
    assert caught.value.code == vector["error"]


@pytest.mark.parametrize("section", ["range_plans", "range_plans_derived"])
def test_range_plans(section: str):
    vector = VECTORS[section]
    frames = index.FrameIndex.from_entries(index.FrameEntry(*entry) for entry in vector["entries"])
    for case in vector["cases"]:
        assert_range_plan(plan.plan(frames, *case["range"]), case["plan"])


def assert_range_plan(planned: plan.RangePlan | None, expected: dict[str, int] | None) -> None:
    if expected is None:
        assert planned is None
        return
    assert planned == plan.RangePlan(
        fetch_start=expected["byte_start"],
        fetch_end=expected["byte_end"],
        skip=expected["slice_start"],
        take=expected["slice_end"] - expected["slice_start"],
        first_frame=expected["first"],
        last_frame=expected["last"],
    )


@pytest.mark.parametrize("case", VECTORS["encrypted_plans"]["cases"])
def test_encrypted_plans(case: dict[str, Any]):
    total = case["sse_plain_len"]
    binding = index.SseBinding(1024, -(-total // 1024), 7, bytes(8), total, 24)
    planned = plan.plan_encrypted(binding, *case["bytes"])
    assert_encrypted_plan(planned, case["plan"])


def assert_encrypted_plan(planned: plan.EncryptedPlan | None, expected: dict[str, int]) -> None:
    assert planned == plan.EncryptedPlan(
        fetch_start=expected["enc_start"],
        fetch_end=expected["enc_end"],
        skip=expected["slice_start"],
        take=expected["slice_end"] - expected["slice_start"],
        first_chunk=expected["chunk_first"],
        last_chunk=expected["chunk_last"],
    )


def test_encrypted_range_is_planned_through_both_layers():
    vector = VECTORS["sse"]["chunked_range"]
    body, stored = (bytes.fromhex(vector[name]) for name in ("frame_body_hex", "stored_hex"))
    sidecar = bytes.fromhex(vector["sidecar_hex"])
    decoded = index.FrameIndex.decode(sidecar)
    assert decoded.encode() == sidecar
    assert decoded.total_padded == vector["sidecar_decoded_total_padded"] == len(body)
    assert decoded.source_size == len(stored)
    planned = plan.plan(decoded, *vector["client_range"])
    assert planned is not None
    assert_range_plan(planned, vector["plan"])
    assert decoded.sse is not None
    inner = plan.plan_encrypted(decoded.sse, planned.fetch_start, planned.fetch_end)
    assert_encrypted_plan(inner, vector["encrypted_plan"])
    chunk = next(p for o, _, p in frame.walk(body) if o == planned.fetch_start)  # stored as it is
    assert chunk[planned.skip : planned.skip + planned.take].hex() == vector["result_hex"]


def test_every_envelope_is_recognised():
    for vector in VECTORS["sse"]["envelopes"]:
        assert envelope.recognise(bytes.fromhex(vector["hex"])) == vector["magic"]


def test_what_is_no_envelope_is_not_recognised():
    for vector in VECTORS["sse"]["negative"]:
        if vector["error"] in {"bad-magic", "too-short"}:
            assert envelope.recognise(bytes.fromhex(vector["hex"])) is None


def test_strip_client_metadata():
    vector = VECTORS["strip_client_metadata"]
    assert manifest.strip_reserved(vector["given"]) == vector["kept"]


def test_manifest_roundtrip():
    metadata = VECTORS["manifest_roundtrip"]["metadata"]
    parsed = manifest.parse(metadata)
    assert parsed == manifest.Manifest(CodecId.CPU_ZSTD, 1234, 567, 0xDEADBEEF)
    assert parsed.to_metadata() == metadata


@pytest.mark.parametrize(
    "vector",
    [pytest.param(v, id=v["fixture"]) for v in VECTORS["fixture_crosscheck"] if "metadata" in v],
)
def test_captured_metadata_is_read_and_written(vector: dict[str, Any]):
    stored = manifest.classify(vector["metadata"])
    assert stored.manifest is not None
    assert stored.manifest.to_metadata() == vector["metadata"]
    if "body_hex" in vector:
        assert described(bytes.fromhex(vector["body_hex"])) == vector["frames"]


def test_captured_sidecar_is_read_and_written():
    vector = next(v for v in VECTORS["fixture_crosscheck"] if v["fixture"].endswith(".s4index"))
    stored = bytes.fromhex(vector["hex"])
    decoded = index.FrameIndex.decode(stored)
    assert as_lists(decoded) == vector["decoded"]["entries"]
    assert decoded.is_bound_to(f'"{vector["decoded"]["etag"]}"', vector["decoded"]["source_size"])
    assert decoded.encode() == stored
