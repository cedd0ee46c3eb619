"""Ranges and whole objects of every form, and of every way in which stored bytes can be wrong."""

import random
from collections.abc import Callable
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4gateway.codecs import encoder
from s4gateway.codecs.face import CpuGzip, encode_s4_object
from s4gateway.codecs.face_errors import (
    S4CrcMismatchError,
    S4DictionaryError,
    S4Error,
    S4FrameError,
    S4IoError,
    S4ManifestSizeExceedsLimitError,
    S4SizeMismatchError,
    S4UnregisteredCodecError,
)
from s4gateway.codecs.zstd_dict import ZstdDict
from s4gateway.s4fs import (
    S4EncryptedObjectError,
    S4GpuCodecError,
    S4ObjectChangedError,
    content,
    plain,
    reader,
)
from s4gateway.s4fs import framed as framed_content
from s4gateway.wire import frame, manifest
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.crc32c import crc32c
from s4gateway.wire.index import FrameEntry, FrameIndex, SseBinding
from tests import corpus
from tests.objects import tailed, world
from tests.s4fs.bucket import BUCKET, Bucket, index_of, put, reading

TEXT = corpus.text(50_000)
PARTS = [corpus.text(size, seed=size) for size in (7000, 1, 0, 6500)]
EACH = pytest.mark.parametrize("how", ["whole", "placed", "range"])


@pytest.fixture
def below() -> Bucket:
    return Bucket()


def framed(chunk: int = 1000, **options: object) -> world.Framed:
    return world.framed(world.cut(TEXT, chunk), **options)


def metadata_of(body: world.Framed, **fields: object) -> dict[str, str]:
    return world.manifest(body.plain, body.stored, framed=True, **fields).to_metadata()


def put_framed(below: Bucket, body: world.Framed, *, indexed: bool = True, **fields: object) -> str:
    index = FrameIndex.from_entries(body.entries, total_padded=len(body.stored))
    return put(
        below, "object", body.stored, metadata_of(body, **fields), index if indexed else None
    )


# --- forms


def _framed_indexed(below: Bucket) -> bytes:
    put_framed(below, framed())
    return TEXT


def _framed_without_sidecar(below: Bucket) -> bytes:
    put_framed(below, framed(), indexed=False)
    return TEXT


def _mixed_codecs_and_padding(below: Bucket) -> bytes:
    codecs = (CodecId.CPU_ZSTD, CodecId.CPU_GZIP, CodecId.PASSTHROUGH)
    put_framed(below, framed(padding=(-1, 0, 40), codecs=codecs))
    return TEXT


def _one_frame(below: Bucket) -> bytes:
    obj = encode_s4_object(TEXT)
    put(below, "object", obj["body"], obj["metadata"])
    return TEXT


def _multipart_with_tail(below: Bucket) -> bytes:
    body = tailed.tailed(PARTS, padding=100)
    index = FrameIndex.from_entries(body.entries, total_padded=len(body.frames))
    put(below, "object", body.stored, tailed.METADATA, index)
    return body.plain


def _multipart_without_sidecar(below: Bucket) -> bytes:
    body = tailed.tailed(PARTS, padding=100)
    put(below, "object", body.stored, tailed.METADATA)
    return body.plain


def _multipart_of_older_writer(below: Bucket) -> bytes:
    body = world.framed(PARTS, padding=(-1, 500))
    index = FrameIndex.from_entries(body.entries, total_padded=len(body.stored))
    put(below, "object", body.stored, manifest.multipart_metadata(CodecId.CPU_ZSTD), index)
    return body.plain


def _multipart_of_older_writer_without_sidecar(below: Bucket) -> bytes:
    body = world.framed(PARTS, padding=(-1, 500))
    put(below, "object", body.stored, manifest.multipart_metadata(CodecId.CPU_ZSTD))
    return body.plain


def _unframed_gzip(below: Bucket) -> bytes:
    stored, _, _ = CpuGzip().compress(TEXT)
    fields = world.manifest(TEXT, stored, codec=CodecId.CPU_GZIP)
    put(below, "object", stored, fields.to_metadata())
    return TEXT


def _unframed_zstd(below: Bucket) -> bytes:
    (encoded,) = encoder.encode_body(TEXT, world.CODECS.get(1), 1 << 20).frames
    stored = encoded[frame.HEADER_SIZE :]
    put(below, "object", stored, world.manifest(TEXT, stored).to_metadata())
    return TEXT


def _dictionary(below: Bucket) -> bytes:
    dictionary = ZstdDict(TEXT[:2000])
    trial = encoder.encode_smallest(TEXT[:5000], world.CODECS.get(1), dictionary)
    assert trial.header.codec is CodecId.CPU_ZSTD_DICT
    stored = b"".join(trial.pieces())
    fields = world.manifest(
        TEXT[:5000], stored, framed=True, codec=CodecId.CPU_ZSTD_DICT, dict_id=dictionary.dict_id
    )
    put(below, f".s4dict/{dictionary.dict_id}", TEXT[:2000],
        {manifest.DICT_SHA256: dictionary.sha256})  # fmt: skip
    put(below, "object", stored, fields.to_metadata())
    return TEXT[:5000]


def _passthrough(below: Bucket) -> bytes:
    obj = encode_s4_object(corpus.noise(50_000), "passthrough")
    put(below, "object", obj["body"], obj["metadata"])
    return obj["body"]


def _foreign(below: Bucket) -> bytes:
    put(below, "object", b"S4F2 is what it begins with", {"color": "blue"})
    return b"S4F2 is what it begins with"


def _empty(below: Bucket) -> bytes:
    put(below, "object", b"", encode_s4_object(b"")["metadata"])
    return b""


def _empty_in_a_frame(below: Bucket) -> bytes:
    put_framed(below, world.framed([b""]), indexed=False)
    return b""


def _empty_foreign(below: Bucket) -> bytes:
    put(below, "object", b"", {})
    return b""


FORMS = [
    _framed_indexed, _framed_without_sidecar, _mixed_codecs_and_padding, _one_frame,
    _multipart_with_tail, _multipart_without_sidecar, _multipart_of_older_writer,
    _multipart_of_older_writer_without_sidecar, _unframed_gzip, _unframed_zstd, _dictionary,
    _passthrough, _foreign, _empty, _empty_in_a_frame, _empty_foreign,
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__.strip("_"))
def test_every_form_reads_whole_in_ranges_and_as_a_file(
    below: Bucket, form: Callable[[Bucket], bytes]
):
    expected = form(below)
    fs = reading(below)
    path = f"{BUCKET}/object"
    assert _read(below, "whole") == _read(below, "placed") == expected
    assert fs.info(path)["size"] == len(expected)
    assert fs.info(path)["s4_size_exact"]
    draw = random.Random(form.__name__)
    spans = [sorted((draw.randint(0, len(expected)), draw.randint(0, len(expected) + 9)))
             for _ in range(30)]  # fmt: skip
    for start, end in [(0, 1), (-1, None), (None, -3), (len(expected), None), *spans]:
        assert fs.cat_file(path, start, end) == expected[start:end]
    starts, ends = [list(each) for each in zip(*spans, strict=True)]
    assert fs.cat_ranges([path] * len(spans), starts, ends) == [expected[a:b] for a, b in spans]
    with fs.open(path) as file:
        assert file.size == len(expected)
        for start, end in spans:
            file.seek(start)
            assert file.read(end - start) == expected[start:end]
        file.seek(0)
        assert b"".join(iter(lambda: file.read(777), b"")) == expected


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__.strip("_"))
def test_a_copy_in_a_local_file_is_the_original(below: Bucket, form, tmp_path):
    expected = form(below)
    reading(below).get_file(f"{BUCKET}/object", str(tmp_path / "new" / "copy"))
    assert (tmp_path / "new" / "copy").read_bytes() == expected


# --- what a read costs


def test_a_range_reads_the_frames_it_needs_and_no_more(below: Bucket):
    body = framed()
    path = put_framed(below, body)
    fs = reading(below)
    fs.cat_file(path, 0, 1)
    below.requests.clear()
    assert fs.cat_file(path, 20_500, 21_500) == TEXT[20_500:21_500]
    assert below.fetched(path) == sum(each.compressed_size for each in body.entries[20:22])
    assert len([each for each in below.verbs("GET") if each.endswith("object")]) == 1


def test_an_index_is_read_once(below: Bucket):
    path = put_framed(below, framed())
    fs = reading(below)
    for start in (100, 30_000, 5000):
        fs.cat_file(path, start, start + 10)
    assert below.verbs("GET").count(f"/{path}.s4index") == 1


def test_neighbouring_ranges_are_read_together_and_distant_ones_apart(below: Bucket):
    body = framed()
    path = put_framed(below, body)
    fs = reading(below)
    fs.cat_file(path, 0, 1)

    def gets() -> list[str]:
        return [each for each in below.verbs("GET") if each.endswith("object")]

    below.requests.clear()
    fs.cat_ranges([path] * 3, [0, 1500, 2500], [10, 1510, 2510], max_gap=0)
    assert len(gets()) == 1
    below.requests.clear()
    fs.cat_ranges([path] * 2, [0, 40_000], [10, 40_010], max_gap=0)
    assert len(gets()) == 2
    below.requests.clear()
    fs.cat_ranges([path] * 2, [0, 40_000], [10, 40_010], max_gap=1 << 20)
    assert len(gets()) == 1


def test_ranges_of_many_objects_fail_alone(below: Bucket):
    path = put_framed(below, framed())
    fs = reading(below)
    answers = fs.cat_ranges([path, f"{BUCKET}/none", path, f"{path}.s4index"], 0, [5, 5, 9, 9])
    assert [answers[0], answers[2]] == [TEXT[:5], TEXT[:9]]
    assert [type(answers[1]), type(answers[3])] == [FileNotFoundError] * 2
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges([path, f"{BUCKET}/none"], 0, 5, on_error="raise")


def test_a_damaged_frame_fails_the_ranges_that_need_it_and_no_other(below: Bucket):
    body = framed()
    stored = bytearray(body.stored)
    stored[body.entries[20].compressed_offset + frame.HEADER_SIZE + 30] ^= 0x10
    put(below, "object", bytes(stored), metadata_of(body), index_of(body.stored))
    answers = reading(below).cat_ranges(
        [f"{BUCKET}/object"] * 3, [0, 20_100, 21_000], [5, 20_200, 21_009]
    )
    assert [answers[0], answers[2]] == [TEXT[:5], TEXT[21_000:21_009]]
    assert isinstance(answers[1], S4Error | S4IoError)


# --- sidecars that are not to be trusted


def _unbound(index: FrameIndex, etag: str, size: int) -> FrameIndex:
    return index


def _of_another_version(index: FrameIndex, etag: str, size: int) -> FrameIndex:
    return index.bind("0" * 32, size)


def _of_another_size(index: FrameIndex, etag: str, size: int) -> FrameIndex:
    return index.bind(etag, size + 1)


def _beyond_the_object(index: FrameIndex, etag: str, size: int) -> FrameIndex:
    far = [FrameEntry(0, len(TEXT), size, 1 << 40)]
    return FrameIndex.from_entries(far).bind(etag, size)


def _with_a_hole(index: FrameIndex, etag: str, size: int) -> FrameIndex:
    return FrameIndex.from_entries(list(index)[:3] + list(index)[4:]).bind(etag, size)


def _shifted(index: FrameIndex, etag: str, size: int) -> FrameIndex:
    moved = [
        FrameEntry(
            e.original_offset, e.original_size, e.compressed_offset + 1, e.compressed_size - 1
        )
        for e in list(index)[:-1]
    ]
    return FrameIndex.from_entries([*moved, list(index)[-1]]).bind(etag, size)


def _with_wrong_sizes(index: FrameIndex, etag: str, size: int) -> FrameIndex:
    halves = []
    for entry in index:
        half = entry.original_size // 2
        halves += [
            FrameEntry(entry.original_offset, half, entry.compressed_offset, 40),
            FrameEntry(entry.original_offset + half, entry.original_size - half,
                       entry.compressed_offset + 40, entry.compressed_size - 40),
        ]  # fmt: skip
    return FrameIndex.from_entries(halves).bind(etag, size)


def _too_short_for_its_object(index: FrameIndex, etag: str, size: int) -> FrameIndex:
    return FrameIndex.from_entries(list(index)[:5]).bind(etag, size)


@pytest.mark.parametrize(
    "make",
    [_unbound, _of_another_version, _of_another_size, _beyond_the_object, _with_a_hole, _shifted,
     _with_wrong_sizes, _too_short_for_its_object],
    ids=lambda make: make.__name__.strip("_"),
)  # fmt: skip
def test_a_sidecar_that_lies_changes_no_byte(below: Bucket, make):
    body = framed()
    path = put_framed(below, body, indexed=False)
    lie = make(index_of(body.stored), below.etag(path), len(body.stored))
    below.pipe_file(f"{path}.s4index", lie.encode())
    fs = reading(below)
    for start, end in [(0, 10), (12_345, 23_456), (49_990, 50_000)]:
        assert fs.cat_file(path, start, end) == TEXT[start:end]
    with fs.open(path) as file:
        file.seek(30_000)
        assert file.read(5000) == TEXT[30_000:35_000]


@given(data=st.data())
@settings(max_examples=60)
def test_no_change_of_a_sidecar_changes_a_byte(data: st.DataObject):
    below = Bucket()
    body = framed(5000)
    path = put_framed(below, body)
    sidecar = bytearray(below.stored(f"{path}.s4index"))
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(sidecar) - 1))
        sidecar[position] = data.draw(st.integers(0, 255))
    below.pipe_file(f"{path}.s4index", bytes(sidecar))
    start = data.draw(st.integers(0, len(TEXT)))
    end = data.draw(st.integers(start, len(TEXT)))
    try:
        assert reading(below).cat_file(path, start, end) == TEXT[start:end]
    except S4EncryptedObjectError:
        assert sidecar[4] == 3  # the version that says so


@pytest.mark.parametrize("sidecar", [b"", b"S4IX", b"noise" * 100, bytes(64)], ids=len)
def test_bytes_that_are_no_sidecar_count_as_none(below: Bucket, sidecar: bytes):
    path = put_framed(below, framed(), indexed=False)
    below.pipe_file(f"{path}.s4index", sidecar)
    assert reading(below).cat_file(path, 100, 200) == TEXT[100:200]


def test_a_sidecar_without_an_object_to_bind_to_is_not_believed(below: Bucket):
    body = framed()
    path = put_framed(below, body, indexed=False)
    below.pipe_file(f"{path}.s4index", index_of(body.stored).encode())
    fs = reading(below)
    fs.cat_file(path, 20_000, 20_001)
    lengths = [end - start for verb, _, start, end in below.requests if verb == "GET" and end]
    headers = [length for length in lengths if length == frame.HEADER_SIZE]
    assert len(headers) == len(body.entries)


# --- damage


def _flip(data: bytes, position: int) -> bytes:
    flipped = bytearray(data)
    flipped[position] ^= 0x20
    return bytes(flipped)


def _read(below: Bucket, how: str) -> bytes:
    """Whole, whole with frames decoded where they belong (as large objects are), or as a range."""
    fs = reading(below)
    path = f"{BUCKET}/object"
    if how == "range":
        return fs.cat_file(path, 1, len(TEXT))
    with mock.patch.object(reader, "_SMALL", 0 if how == "placed" else 1 << 40):
        return fs.cat_file(path)


@EACH
@pytest.mark.parametrize("cut", ["in a payload", "in a header", "between frames", "everything"])
def test_a_body_that_was_cut_off_is_an_error(below: Bucket, cut: str, how: str):
    body = framed()
    last = body.entries[-1].compressed_offset
    end = {"in a payload": len(body.stored) - 1, "in a header": last + 9, "between frames": last,
           "everything": 0}[cut]  # fmt: skip
    put(below, "object", body.stored[:end], metadata_of(body), index_of(body.stored))
    with pytest.raises(S4Error):
        _read(below, how)


@EACH
def test_flipped_bits_never_become_data(below: Bucket, how: str):
    body = framed(10_000)
    draw = random.Random(3)
    for position in [*range(frame.HEADER_SIZE), *draw.sample(range(len(body.stored)), 40)]:
        put(below, "object", _flip(body.stored, position), metadata_of(body),
            index_of(body.stored))  # fmt: skip
        with pytest.raises((S4Error, S4IoError, S4GpuCodecError)):
            _read(below, how)


def _put_wrong_frames(below: Bucket, wrong: list[bytes]) -> None:
    put(below, "object", world.framed(wrong).stored, metadata_of(framed(10_000)))


CHUNKS = world.cut(TEXT, 10_000)


@EACH
@pytest.mark.parametrize("wrong", [[*CHUNKS, CHUNKS[0]], CHUNKS[:-1]], ids=["repeated", "missing"])
def test_a_frame_too_many_or_too_few_makes_no_answer(below: Bucket, wrong: list[bytes], how: str):
    _put_wrong_frames(below, wrong)
    with pytest.raises(S4Error):
        _read(below, how)


def test_frames_out_of_order_make_no_whole_answer(below: Bucket):
    """Their sizes being equal, only the checksum of the whole tells."""
    _put_wrong_frames(below, [CHUNKS[1], CHUNKS[0], *CHUNKS[2:]])
    with pytest.raises(S4CrcMismatchError):
        _read(below, "whole")


@EACH
def test_a_passthrough_body_of_another_length_is_an_error(below: Bucket, how: str):
    obj = encode_s4_object(TEXT, "passthrough")
    put(below, "object", obj["body"] + b"x", obj["metadata"])
    with pytest.raises(S4Error):
        _read(below, how)


def test_a_passthrough_body_that_changed_is_an_error_when_read_whole(below: Bucket):
    obj = encode_s4_object(TEXT, "passthrough")
    put(below, "object", _flip(obj["body"], 5), obj["metadata"])
    with pytest.raises(S4CrcMismatchError, match="restore"):
        _read(below, "whole")


@EACH
def test_a_damaged_unframed_body_is_an_error(below: Bucket, how: str):
    stored, _, _ = CpuGzip().compress(TEXT)
    fields = world.manifest(TEXT, stored, codec=CodecId.CPU_GZIP).to_metadata()
    for bad in (_flip(stored, 300), stored[:-5]):
        put(below, "object", bad, fields)
        with pytest.raises((S4Error, S4IoError)):
            _read(below, how)


# --- frames that lie about what they hold


def _lying(original: int, payload: bytes, *, stored: int | None = None) -> bytes:
    size = len(payload) if stored is None else stored
    return frame.FrameHeader(CodecId.CPU_ZSTD, original, size, crc32c(TEXT)).pack() + payload


def _payload(data: bytes) -> bytes:
    (encoded,) = encoder.encode_body(data, world.CODECS.get(1), 1 << 30).frames
    return encoded[frame.HEADER_SIZE :]


@EACH
@pytest.mark.parametrize(
    ("stored", "error"),
    [
        (_lying(len(TEXT), _payload(TEXT * 50)), S4SizeMismatchError),
        (_lying(len(TEXT), _payload(TEXT[:-1])), S4SizeMismatchError),
        (_lying(len(TEXT), _payload(bytes(len(TEXT)))), S4CrcMismatchError),
        (_lying(1 << 50, _payload(TEXT)), S4Error),
        (_lying(len(TEXT), b"", stored=1 << 62), S4FrameError),
        (_lying(len(TEXT), b"not zstd"), S4IoError),
    ],
    ids=["a bomb", "too little", "other bytes", "petabytes", "a payload of exabytes", "garbage"],
)
def test_a_frame_that_lies_is_an_error(below: Bucket, stored: bytes, error: type, how: str):
    fields = world.manifest(TEXT, stored, framed=True).to_metadata()
    put(below, "object", stored, fields)
    with pytest.raises(error):
        _read(below, how)


def test_a_frame_larger_than_any_may_be_is_refused_before_it_is_decoded(below: Bucket):
    stored = _lying(frame.MAX_FRAME_ORIGINAL + 1, _payload(bytes(100)))
    fields = manifest.multipart_metadata(CodecId.CPU_ZSTD)
    put(below, "object", stored, fields)
    with pytest.raises(S4ManifestSizeExceedsLimitError):
        _read(below, "whole")


@pytest.mark.parametrize("codec", [CodecId.NVCOMP_ZSTD, CodecId.NVCOMP_GANS])
@EACH
def test_gpu_frames_are_refused_by_name(below: Bucket, codec: CodecId, how: str):
    stored = frame.FrameHeader(codec, len(TEXT), 4, 0).pack() + b"FCG1"
    put(below, "object", stored, world.manifest(TEXT, stored, framed=True).to_metadata())
    with pytest.raises(S4GpuCodecError, match="gateway with a GPU build") as caught:
        _read(below, how)
    assert isinstance(caught.value, NotImplementedError)


@EACH
def test_a_codec_of_the_future_is_told_from_damage(below: Bucket, how: str):
    stored = bytearray(_lying(len(TEXT), b"what"))
    stored[4] = 99
    fields = world.manifest(TEXT, bytes(stored), framed=True).to_metadata()
    put(below, "object", bytes(stored), fields)
    with pytest.raises(S4UnregisteredCodecError, match="newer"):
        _read(below, how)


# --- encryption


@EACH
@pytest.mark.parametrize("magic", [f"S4E{number}".encode() for number in range(1, 7)])
def test_an_envelope_in_the_place_of_frames_is_refused_by_name(
    below: Bucket, magic: bytes, how: str
):
    stored = magic + bytes(200)
    put(below, "object", stored, world.manifest(TEXT, stored, framed=True).to_metadata())
    with pytest.raises(S4EncryptedObjectError, match=magic.decode()):
        _read(below, how)


@EACH
def test_an_object_whose_metadata_says_encrypted_is_refused(below: Bucket, how: str):
    stored = b"S4E6" + bytes(200)
    fields = world.manifest(TEXT, stored, framed=True, encrypted=True).to_metadata()
    put(below, "object", stored, fields)
    with pytest.raises(S4EncryptedObjectError, match="metadata"):
        _read(below, how)
    assert reading(below).info(f"{BUCKET}/object")["size"] == len(TEXT)


def test_an_object_whose_sidecar_says_encrypted_is_refused(below: Bucket):
    body = framed()
    binding = SseBinding(1024, 50, 1, bytes(8), len(body.stored), 24)
    index = FrameIndex.from_entries(body.entries, sse=binding)
    put(below, "object", body.stored, manifest.multipart_metadata(CodecId.CPU_ZSTD), index)
    with pytest.raises(S4EncryptedObjectError, match="sidecar"):
        _read(below, "range")
    for listed in (reading(below).info(f"{BUCKET}/object"), *reading(below).ls(BUCKET)):
        assert (listed["size"], listed["s4_size_exact"]) == (len(body.stored), False)


# --- dictionaries


def _put_with_dictionary(below: Bucket, dictionary: bytes | None, dict_id: str) -> None:
    trial = encoder.encode_smallest(TEXT[:5000], world.CODECS.get(1), ZstdDict(TEXT[:2000]))
    stored = b"".join(trial.pieces())
    fields = world.manifest(
        TEXT[:5000], stored, framed=True, codec=CodecId.CPU_ZSTD_DICT, dict_id=dict_id
    )
    if dictionary is not None:
        put(below, f".s4dict/{dict_id}", dictionary, {})
    put(below, "object", stored, fields.to_metadata())


@EACH
@pytest.mark.parametrize(
    "dictionary", [None, b"", TEXT[:1999], bytes(2**20 + 1)],
    ids=["missing", "empty", "another", "too large"],
)  # fmt: skip
def test_a_dictionary_that_is_not_the_one_named_is_refused(
    below: Bucket, dictionary: bytes | None, how: str
):
    dict_id = ZstdDict(TEXT[:2000]).dict_id
    _put_with_dictionary(below, dictionary, dict_id)
    with pytest.raises(S4DictionaryError, match=dict_id):
        _read(below, how)


def test_a_dictionary_is_fetched_once_and_only_from_the_bucket_of_the_object(below: Bucket):
    _put_with_dictionary(below, TEXT[:2000], ZstdDict(TEXT[:2000]).dict_id)
    below.pipe_file("other/object", below.stored(f"{BUCKET}/object"),
                    metadata=below.kept[f"/{BUCKET}/object"])  # fmt: skip
    fs = reading(below)
    for _ in range(3):
        assert fs.cat_file(f"{BUCKET}/object") == TEXT[:5000]
    assert len([each for each in below.verbs("GET") if ".s4dict" in each]) == 1
    with pytest.raises(S4DictionaryError, match=r"other/\.s4dict/"):
        fs.cat_file("other/object")


def test_a_dictionary_frame_without_a_dictionary_to_name_is_refused(below: Bucket):
    trial = encoder.encode_smallest(TEXT[:5000], world.CODECS.get(1), ZstdDict(TEXT[:2000]))
    stored = b"".join(trial.pieces())
    fields = world.manifest(TEXT[:5000], stored, framed=True).to_metadata()
    put(below, "object", stored, fields)
    with pytest.raises(S4UnregisteredCodecError, match="dictionary"):
        _read(below, "whole")


# --- large frames, through a file


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames over 4000 bytes count as large."""
    for module in (plain, content, framed_content):
        monkeypatch.setattr(module, "LARGE", 4000)


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize("indexed", [True, False])
def test_large_frames_are_read_through_a_file(below: Bucket, indexed: bool):
    codecs = (CodecId.CPU_ZSTD, CodecId.PASSTHROUGH, CodecId.CPU_GZIP)
    path = put_framed(below, framed(12_000, codecs=codecs), indexed=indexed)
    fs = reading(below)
    assert fs.cat_file(path) == TEXT
    assert fs.cat_file(path, 11_000, 37_000) == TEXT[11_000:37_000]
    with fs.open(path) as file:
        assert file.read(100) == TEXT[:100]
        file.seek(-7, 2)
        assert file.read() == TEXT[-7:]


@pytest.mark.usefixtures("small_limit")
@EACH
def test_damage_of_a_large_frame_is_an_error(below: Bucket, how: str):
    body = framed(25_000)
    put(below, "object", _flip(body.stored, 3000), metadata_of(body), index_of(body.stored))
    with pytest.raises((S4Error, S4IoError)):
        _read(below, how)


@pytest.mark.usefixtures("small_limit")
def test_a_large_unframed_body_is_read_through_a_file(below: Bucket):
    _unframed_gzip(below)
    fs = reading(below)
    assert fs.cat_file(f"{BUCKET}/object", 30_000, 30_010) == TEXT[30_000:30_010]
    assert fs.cat_file(f"{BUCKET}/object") == TEXT


# --- changes meanwhile


def test_an_object_overwritten_between_two_requests_is_read_anew(below: Bucket):
    put_framed(below, framed())
    newer = world.framed(world.cut(TEXT[::-1], 1000))
    fields = world.manifest(newer.plain, newer.stored, framed=True).to_metadata()
    fs = reading(below)
    overwritten = []

    def overwrite(verb: str, path: str) -> None:
        if verb == "GET" and path.endswith("s4index") and not overwritten:
            overwritten.append(path)
            put(below, "object", newer.stored, fields)

    below.fails = overwrite
    assert fs.cat_file(f"{BUCKET}/object", 100, 40_000) == newer.plain[100:40_000]


def test_an_open_file_whose_object_changes_fails_and_mixes_nothing(below: Bucket):
    path = put_framed(below, framed())
    with reading(below).open(path) as file:
        assert file.read(10) == TEXT[:10]
        put(below, "object", b"something else", {})
        file.seek(40_000)
        with pytest.raises(S4ObjectChangedError, match="open it again"):
            file.read(10)
