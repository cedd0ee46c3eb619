"""Decoding without a store: the original or an error, and no unverified byte before it."""

import hashlib
import json
import random
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from s4gateway.codecs.zstd_dict import ZstdDict
from s4gateway.objects.errors import DamagedObject, UnreadableObject
from s4gateway.tools.offline_decode import DecodeReport, decode, load_dictionary
from s4gateway.tools.offline_input import OfflineError, StoredHead, parse_head
from s4gateway.wire import frame
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.manifest import Manifest
from tests import corpus
from tests.objects import tailed, world
from tests.tools.stored import AS, dictionary_frame

DICTIONARY = corpus.text(20_000, seed=3)
BODY = world.framed(
    world.cut(corpus.text(600_000) + corpus.noise(90_000), 70_000),
    (CodecId.CPU_ZSTD, CodecId.CPU_GZIP, CodecId.PASSTHROUGH),
    padding=(-1, 40, 5000),
)
TAILED = tailed.tailed([corpus.text(300_000), corpus.log(200_000), b""], frame_size=90_000)


@pytest.fixture(params=AS)
def opened(request: pytest.FixtureRequest):
    return AS[request.param]


class Sink:
    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, piece: bytes) -> None:
        self.data += piece


async def decoded(
    opened, folder: Path, data: bytes, **options: object
) -> tuple[bytes, DecodeReport]:
    sink = Sink()
    with opened(data, folder) as stored:
        report = await decode(stored, sink.write, **options)  # type: ignore[arg-type]
    assert report.original_size == len(sink.data)
    assert report.stored_size == len(data)
    return bytes(sink.data), report


def head_of(manifest: Manifest) -> StoredHead:
    return StoredHead(manifest.to_metadata())


async def test_frames_of_every_codec_decode_and_padding_is_skipped(opened, tmp_path: Path):
    plain, report = await decoded(opened, tmp_path, BODY.stored)
    assert plain == BODY.plain
    assert (report.frames, report.compared) == (len(BODY.entries), ())
    assert "nothing tells how large" in report.notes[0]


async def test_the_metadata_lets_the_whole_be_checked(opened, tmp_path: Path):
    head = StoredHead(BODY.metadata, size=len(BODY.stored))
    plain, report = await decoded(opened, tmp_path, BODY.stored, head=head)
    assert plain == BODY.plain
    assert report.compared == ("size", "crc32c", "etag")
    assert report.notes == ()


@pytest.mark.parametrize("field", ["original_size", "crc32c", "logical_etag"])
async def test_metadata_of_another_object_is_found_out(opened, tmp_path: Path, field: str):
    value = "0" * 32 if field == "logical_etag" else 7
    manifest = world.manifest(BODY.plain, BODY.stored, framed=True, **{field: value})
    with pytest.raises(DamagedObject):
        await decoded(opened, tmp_path, BODY.stored, head=head_of(manifest))


async def test_a_size_that_is_not_that_of_the_input_is_found_out(opened, tmp_path: Path):
    with pytest.raises(DamagedObject, match="the metadata is of an object of 5"):
        await decoded(opened, tmp_path, BODY.stored, head=StoredHead(BODY.metadata, size=5))


async def test_a_tail_is_compared_a_files_with_the_etag(tmp_path: Path):
    plain, report = await decoded(AS["file"], tmp_path, TAILED.stored)
    assert (plain, report.compared) == (TAILED.plain, ("size", "etag"))
    plain, report = await decoded(AS["pipe"], tmp_path, TAILED.stored)
    assert (plain, report.compared) == (TAILED.plain, ("size",))


async def test_frames_that_do_not_make_what_the_tail_says_are_found_out(opened, tmp_path: Path):
    missing = TAILED.frames[TAILED.entries[1].compressed_offset :] + TAILED.tail.encode()
    with pytest.raises(DamagedObject, match=r"size: |the tail says"):
        await decoded(opened, tmp_path, missing)


async def test_a_tail_that_the_metadata_names_must_be_there(opened, tmp_path: Path):
    head = StoredHead(tailed.METADATA)
    plain, _ = await decoded(opened, tmp_path, TAILED.stored, head=head)
    assert plain == TAILED.plain
    for stored in (TAILED.frames, TAILED.frames + replace(TAILED.tail, token="f" * 16).encode()):
        with pytest.raises(DamagedObject, match="tail"):
            await decoded(opened, tmp_path, stored, head=head)


async def test_what_was_stored_as_it_came_is_compared_and_copied(opened, tmp_path: Path):
    plain = b"S4F2 is how this file begins" * 9000
    manifest = world.manifest(plain, plain, codec=CodecId.PASSTHROUGH)
    result, report = await decoded(opened, tmp_path, plain, head=head_of(manifest))
    assert (result, report.form) == (plain, "passthrough")
    with pytest.raises(DamagedObject):
        await decoded(opened, tmp_path, plain[:-1] + b"?", head=head_of(manifest))


async def test_an_object_of_others_is_copied_with_a_note(opened, tmp_path: Path):
    result, report = await decoded(opened, tmp_path, b"theirs", head=StoredHead({"colour": "red"}))
    assert (result, report.form) == (b"theirs", "foreign")
    assert "not a gateway's" in report.notes[0]


async def test_a_payload_without_frames_needs_its_metadata(opened, tmp_path: Path):
    plain = corpus.text(3_000_000)
    stored = zstandard.ZstdCompressor().compress(plain)
    manifest = world.manifest(plain, stored)
    result, report = await decoded(opened, tmp_path, stored, head=head_of(manifest))
    assert (result, report.form) == (plain, "unframed")
    with pytest.raises(OfflineError, match="no frame begins here"):
        await decoded(opened, tmp_path, stored)


async def test_an_empty_body_is_an_empty_object(opened, tmp_path: Path):
    assert (await decoded(opened, tmp_path, b""))[0] == b""


# --- dictionaries


async def test_a_dictionary_frame_decodes_with_its_dictionary(opened, tmp_path: Path):
    plain = corpus.text(3_000, seed=3)
    stored = dictionary_frame(DICTIONARY, plain)
    codec = ZstdDict(DICTIONARY)
    assert (await decoded(opened, tmp_path, stored, dictionary=codec))[0] == plain
    with pytest.raises(OfflineError, match="give it as --dict"):
        await decoded(opened, tmp_path, stored)


async def test_another_dictionary_never_gives_other_bytes(opened, tmp_path: Path):
    stored = dictionary_frame(DICTIONARY, corpus.text(3_000, seed=3))
    other = ZstdDict(corpus.text(20_000, seed=9))
    with pytest.raises(DamagedObject, match=other.dict_id):
        await decoded(opened, tmp_path, stored, dictionary=other)


async def test_the_dictionary_the_metadata_names_is_asked_for(opened, tmp_path: Path):
    plain = corpus.text(3_000, seed=3)
    stored = dictionary_frame(DICTIONARY, plain)
    codec = ZstdDict(DICTIONARY)
    manifest = world.manifest(
        plain, stored, codec=CodecId.CPU_ZSTD_DICT, framed=True, dict_id=codec.dict_id
    )
    head = head_of(manifest)
    result, _ = await decoded(opened, tmp_path, stored, head=head, dictionary=codec)
    assert result == plain
    with pytest.raises(OfflineError, match=codec.dict_id):
        await decoded(opened, tmp_path, stored, head=head)
    with pytest.raises(OfflineError, match=codec.dict_id):
        await decoded(opened, tmp_path, stored, head=head, dictionary=ZstdDict(b"another"))


def test_a_dictionary_file_is_read_within_its_bound(tmp_path: Path):
    path = tmp_path / "dictionary"
    path.write_bytes(DICTIONARY)
    assert load_dictionary(path).dict_id == ZstdDict(DICTIONARY).dict_id
    for data in (b"", bytes(1024 * 1024 + 1)):
        path.write_bytes(data)
        with pytest.raises(OfflineError, match="dictionary-invalid"):
            load_dictionary(path)
    with pytest.raises(OfflineError, match="No such file"):
        load_dictionary(tmp_path / "none")


# --- refusals


@pytest.mark.parametrize("number", range(1, 7))
async def test_an_encrypted_object_is_refused(opened, tmp_path: Path, number: int):
    stored = f"S4E{number}".encode() + bytes(100)
    with pytest.raises(OfflineError, match=f"encrypted .S4E{number}"):
        await decoded(opened, tmp_path, stored)
    head = StoredHead({"s4-encrypted": "aes-256-gcm", "s4-framed": "true"})
    with pytest.raises(OfflineError, match="encrypted"):
        await decoded(opened, tmp_path, BODY.stored, head=head)


@pytest.mark.parametrize(
    "codec", [CodecId.NVCOMP_ZSTD, CodecId.NVCOMP_BITCOMP, CodecId.NVCOMP_GDEFLATE]
)
async def test_a_gpu_frame_is_refused_by_name(opened, tmp_path: Path, codec: CodecId):
    gpu = frame.FrameHeader(codec, 9, 4, 0).pack() + b"FCG1"
    with pytest.raises(UnreadableObject, match=f"{codec.label} needs the GPU build"):
        await decoded(opened, tmp_path, BODY.stored + gpu)


async def test_a_codec_of_a_newer_version_is_refused_as_that(opened, tmp_path: Path):
    stored = struct.pack("<4sIQQI", b"S4F2", 77, 4, 4, 0) + b"next"
    with pytest.raises(UnreadableObject, match="newer version"):
        await decoded(opened, tmp_path, stored)


@pytest.mark.parametrize("data", [b"PK\x03\x04", b"S4IX" + bytes(40), b"S4F", b"x"])
async def test_what_is_no_frame_is_refused(opened, tmp_path: Path, data: bytes):
    with pytest.raises(OfflineError, match="no frame begins here"):
        await decoded(opened, tmp_path, data)


# --- damage


async def test_damage_at_random_places_is_found_and_all_frames_before_it_were_written(
    opened, tmp_path: Path
):
    """In padding nothing can be damaged, and the sizes of a header may still make frames."""
    draw = random.Random(11)
    inside = [
        (each.compressed_offset + 28, each.compressed_offset + each.compressed_size)
        for each in BODY.entries
    ]
    for _ in range(12):
        number = draw.randrange(len(inside))
        damaged = bytearray(BODY.stored)
        damaged[draw.randrange(*inside[number])] ^= 1 << draw.randrange(8)
        sink = Sink()
        with opened(bytes(damaged), tmp_path) as stored, pytest.raises(DamagedObject) as raised:
            await decode(stored, sink.write)
        assert bytes(sink.data) == BODY.plain[: BODY.entries[number].original_offset]
        assert f"; {number} frames were written before" in str(raised.value)


async def test_a_body_cut_anywhere_but_between_frames_is_found(opened, tmp_path: Path):
    between = {each.compressed_offset for each in BODY.entries} | {
        each.compressed_offset + each.compressed_size for each in BODY.entries
    }
    draw = random.Random(13)
    for cut in draw.sample(sorted(set(range(1, len(BODY.stored))) - between), 10):
        with pytest.raises((DamagedObject, OfflineError)):
            await decoded(opened, tmp_path, BODY.stored[:cut])


async def test_a_cut_between_frames_is_found_with_the_metadata(opened, tmp_path: Path):
    cut = BODY.stored[: BODY.entries[3].compressed_offset]
    with pytest.raises(DamagedObject, match="size: "):
        await decoded(opened, tmp_path, cut, head=StoredHead(BODY.metadata))


async def test_a_bomb_is_stopped_at_what_its_header_claims(opened, tmp_path: Path):
    payload = zstandard.ZstdCompressor().compress(bytes(200 * world.MIB))
    stored = frame.FrameHeader(CodecId.CPU_ZSTD, 1000, len(payload), 0).pack() + payload
    sink = Sink()
    with opened(stored, tmp_path) as source, pytest.raises(DamagedObject, match="bomb"):
        await decode(source, sink.write)
    assert not sink.data


async def test_claims_of_gigabytes_allocate_nothing(opened, tmp_path: Path):
    for claim, length in ((5 * 1024**3, 4), (2**63, 4), (4, 2**63), (5 * 1024**3, 5 * 1024**3)):
        stored = struct.pack("<4sIQQI", b"S4F2", CodecId.CPU_ZSTD, claim, length, 0) + b"four"
        with pytest.raises(DamagedObject):
            await decoded(opened, tmp_path, stored)


# --- metadata files


def test_the_answer_of_head_object_is_understood():
    text = json.dumps(
        {
            "ETag": '"abc"',
            "ContentLength": 12,
            "Metadata": {"S4-Framed": "true"},
            "LastModified": "2025",
        }
    )
    assert parse_head(text) == StoredHead({"s4-framed": "true"}, "abc", 12)
    assert parse_head('{"s4-framed": "true"}') == StoredHead({"s4-framed": "true"})
    assert parse_head('{"ETag": "\\"abc\\""}') == StoredHead({}, "abc")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"Metadata": 5}', '{"a": 5}', b"\xff"])
def test_what_is_no_metadata_is_refused(text: str | bytes):
    with pytest.raises(OfflineError):
        parse_head(text)


async def test_the_etag_of_parts_cannot_be_told_without_a_tail(opened, tmp_path: Path):
    metadata = {
        "s4-multipart": "true", "s4-codec": "cpu-zstd",
        "s4-original-size": str(len(BODY.plain)),
        "s4-logical-etag": f"{hashlib.md5(BODY.plain).hexdigest()}-2",
    }  # fmt: skip
    _, report = await decoded(opened, tmp_path, BODY.stored, head=StoredHead(metadata))
    assert report.compared == ("size",)
