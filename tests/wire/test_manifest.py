from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.wire import errors, manifest
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.manifest import Form
from tests.wire import strategies

ETAG = "0123456789abcdef0123456789abcdef"
DICT_ID = "0123456789abcdef"
FULL = {
    "s4-codec": "cpu-zstd",
    "s4-original-size": "1234",
    "s4-compressed-size": "567",
    "s4-crc32c": "3735928559",
}
DICTIONARY = FULL | {"s4-codec": "cpu-zstd-dict", "s4-dict-id": DICT_ID, "s4-framed": "true"}

manifests = st.builds(
    manifest.Manifest,
    codec=st.sampled_from([codec for codec in CodecId if codec is not CodecId.CPU_ZSTD_DICT]),
    original_size=strategies.U64,
    compressed_size=strategies.U64,
    crc32c=strategies.U32,
    framed=st.booleans(),
    multipart=st.booleans(),
    encrypted=st.booleans(),
    logical_etag=st.none() | st.from_regex("[0-9a-f]{32}(-[0-9]{1,5})?", fullmatch=True),
    ledger=st.booleans(),
)


@given(manifests)
def test_manifest_is_read_back_as_it_was_written(written: manifest.Manifest):
    assert manifest.parse(written.to_metadata()) == written


def test_dictionary_manifest_is_read_back_as_it_was_written():
    written = manifest.Manifest(
        CodecId.CPU_ZSTD_DICT, 204, 79, 1915663527, framed=True, dict_id=DICT_ID
    )
    assert written.to_metadata() == {
        "s4-codec": "cpu-zstd-dict",
        "s4-original-size": "204",
        "s4-compressed-size": "79",
        "s4-crc32c": "1915663527",
        "s4-framed": "true",
        "s4-dict-id": DICT_ID,
    }
    assert manifest.parse(written.to_metadata()) == written


def test_every_entry_has_its_documented_value():
    written = manifest.Manifest(
        CodecId.CPU_GZIP,
        1,
        2,
        3,
        framed=True,
        multipart=True,
        encrypted=True,
        logical_etag=f"{ETAG}-12",
        ledger=True,
        opaque_etag=True,
    )
    assert manifest.parse(written.to_metadata()) == written
    assert written.to_metadata() == {
        "s4-codec": "cpu-gzip",
        "s4-original-size": "1",
        "s4-compressed-size": "2",
        "s4-crc32c": "3",
        "s4-framed": "true",
        "s4-multipart": "true",
        "s4-encrypted": "aes-256-gcm",
        "s4-logical-etag": f"{ETAG}-12",
        "s4-opaque-etag": "true",
        "s4-ledger": "1",
    }


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"original_size": -1}, "out-of-range"),
        ({"original_size": 2**64}, "out-of-range"),
        ({"compressed_size": -1}, "out-of-range"),
        ({"compressed_size": 2**64}, "out-of-range"),
        ({"crc32c": -1}, "out-of-range"),
        ({"crc32c": 2**32}, "out-of-range"),
        ({"dict_id": "../../../etc/pwd"}, "bad-dict-id"),
        ({"logical_etag": f'"{ETAG}"'}, "bad-etag"),
        ({"logical_etag": ""}, "bad-etag"),
    ],
)
def test_values_that_must_not_be_stored_are_refused(change: dict[str, Any], code: str):
    values = {"codec": CodecId.CPU_ZSTD, "original_size": 1, "compressed_size": 1, "crc32c": 1}
    with pytest.raises(errors.ManifestError) as caught:
        manifest.Manifest(**(values | change))
    assert caught.value.code == code


@pytest.mark.parametrize("name", FULL)
def test_manifest_with_a_field_missing_is_none(name: str):
    assert manifest.parse({key: value for key, value in FULL.items() if key != name}) is None


@pytest.mark.parametrize(
    "bad",
    ["", "1_0", " 1", "1 ", "+1", "-1", "0x1", "1.0", "٣", "²", "1\n", str(2**64), "9" * 5000],
)
@pytest.mark.parametrize("name", ["s4-original-size", "s4-compressed-size", "s4-crc32c"])
def test_manifest_with_a_bad_number_is_none(name: str, bad: str):
    assert manifest.parse(FULL | {name: bad}) is None


def test_crc_is_32_bit_and_the_sizes_are_64_bit():
    assert manifest.parse(FULL | {"s4-crc32c": str(2**32)}) is None
    largest = manifest.parse(FULL | {"s4-original-size": str(2**64 - 1)})
    assert largest is not None
    assert largest.original_size == 2**64 - 1


@pytest.mark.parametrize(("text", "value"), [("007", 7), ("0" * 30 + "7", 7), ("0" * 5000, 0)])
def test_leading_zeros_are_read(text: str, value: int):
    parsed = manifest.parse(FULL | {"s4-original-size": text})
    assert parsed is not None
    assert parsed.original_size == value


@pytest.mark.parametrize("label", ["", "CPU-ZSTD", "cpu-lz4", "cpu-zstd "])
def test_manifest_of_an_unknown_codec_is_none(label: str):
    assert manifest.parse(FULL | {"s4-codec": label}) is None


@pytest.mark.parametrize("value", ["True", "1", "", "true "])
def test_flag_is_exactly_its_word(value: str):
    words = {"s4-framed": value, "s4-multipart": value, "s4-encrypted": value, "s4-ledger": "true"}
    parsed = manifest.parse(FULL | words)
    assert parsed is not None
    flags = (parsed.framed, parsed.multipart, parsed.encrypted, parsed.ledger)
    assert flags == (False, False, False, False)


@pytest.mark.parametrize("etag", ["", "x", ETAG.upper(), f'"{ETAG}"', f"{ETAG}-", f"{ETAG}-123456"])
def test_bad_logical_etag_counts_as_absent(etag: str):
    parsed = manifest.parse(FULL | {"s4-logical-etag": etag})
    assert parsed is not None
    assert parsed.logical_etag is None


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"color": "blue"},
        {"s4-codec": "cpu-zstd"},
        {"s4-original-size": "5"},
        FULL | {"s4-codec": "cpu-lz4"},
        FULL | {"s4-crc32c": "x"},
        {"s4-framed": "TRUE"},
        {"s4-dict-id": DICT_ID},
        {"s4-codec": "cpu-zstd-dict", "s4-dict-id": DICT_ID},
        {"s4-parquet-zstd-level": "9", "s4-parquet-op-id": "u"},
        {"s4-logical-etag": ETAG},
    ],
)
def test_object_without_manifest_or_flag_is_foreign(metadata: dict[str, str]):
    assert manifest.classify(metadata) == manifest.Stored(Form.FOREIGN)


@pytest.mark.parametrize(
    ("metadata", "form"),
    [
        (FULL | {"s4-codec": "passthrough"}, Form.PASSTHROUGH),
        (FULL | {"s4-codec": "cpu-gzip"}, Form.UNFRAMED),
        (FULL, Form.UNFRAMED),
        (FULL | {"s4-codec": "nvcomp-zstd"}, Form.UNFRAMED),
        (FULL | {"s4-framed": "true"}, Form.FRAMED),
        (FULL | {"s4-codec": "passthrough", "s4-framed": "true"}, Form.FRAMED),
        ({"s4-framed": "true"}, Form.FRAMED),
        ({"s4-multipart": "true", "s4-codec": "cpu-lz4"}, Form.FRAMED),
        (FULL | {"s4-framed": "true", "s4-dict-id": DICT_ID}, Form.FRAMED),
        (DICTIONARY, Form.DICTIONARY),
        (DICTIONARY | {"s4-dict-id": "../../../etc/pwd"}, Form.FRAMED),
        (DICTIONARY | {"s4-framed": "no"}, Form.DICTIONARY),
        (FULL | {"s4-codec": "cpu-zstd-dict"}, Form.UNFRAMED),
        (FULL | {"s4-encrypted": "aes-256-gcm"}, Form.ENCRYPTED),
        (DICTIONARY | {"s4-encrypted": "aes-256-gcm"}, Form.ENCRYPTED),
        ({"s4-multipart": "true", "s4-encrypted": "aes-256-gcm"}, Form.ENCRYPTED),
        ({"s4-encrypted": "aes-256-gcm"}, Form.ENCRYPTED),
    ],
)
def test_metadata_decides_how_a_body_is_read(metadata: dict[str, str], form: Form):
    assert manifest.classify(metadata).form is form


def test_dictionary_is_named_only_where_it_is_used():
    assert manifest.classify(DICTIONARY).dict_id == DICT_ID
    assert manifest.classify(FULL | {"s4-dict-id": DICT_ID}).dict_id is None


def test_logical_size_and_etag_come_from_the_manifest():
    stored = manifest.classify(FULL | {"s4-framed": "true", "s4-logical-etag": ETAG})
    assert (stored.logical_size, stored.logical_etag, stored.multipart) == (1234, ETAG, False)
    assert stored.manifest == manifest.Manifest(
        CodecId.CPU_ZSTD, 1234, 567, 3735928559, framed=True, logical_etag=ETAG
    )


def test_multipart_object_tells_its_size_and_etag_once_stamped():
    unstamped = manifest.classify(manifest.multipart_metadata(CodecId.CPU_ZSTD))
    assert (unstamped.form, unstamped.multipart) == (Form.FRAMED, True)
    assert (unstamped.logical_size, unstamped.logical_etag) == (None, None)
    stamped = manifest.classify(
        manifest.multipart_metadata(CodecId.CPU_ZSTD, original_size=77, logical_etag=f"{ETAG}-3")
    )
    assert (stamped.manifest, stamped.logical_size) == (None, 77)
    assert (stamped.logical_etag, stamped.multipart) == (f"{ETAG}-3", True)


@pytest.mark.parametrize("change", [{"original_size": 2**64}, {"logical_etag": "x"}])
def test_multipart_metadata_refuses_what_a_manifest_refuses(change: dict[str, Any]):
    with pytest.raises(errors.ManifestError):
        manifest.multipart_metadata(CodecId.CPU_ZSTD, **change)


def test_reserved_names_are_stripped_in_any_case():
    given_metadata = {"S4-Codec": "x", "s4-": "x", "s4-anything": "x", "s4": "kept", "xs4-": "kept"}
    assert manifest.strip_reserved(given_metadata) == {"s4": "kept", "xs4-": "kept"}


@given(
    st.dictionaries(
        st.sampled_from([*FULL, *DICTIONARY, "s4-encrypted", "s4-multipart", "s4-tail", "color"]),
        st.text(max_size=20) | st.sampled_from([*FULL.values(), "true", DICT_ID, "aes-256-gcm"]),
    )
)
def test_any_metadata_is_classified(metadata: dict[str, str]):
    stored = manifest.classify(metadata)
    assert (stored.form is Form.DICTIONARY) <= (stored.dict_id is not None)
    assert (stored.form in {Form.PASSTHROUGH, Form.UNFRAMED}) <= (stored.manifest is not None)


TOKEN = "0123456789abcdef"


def test_the_token_of_a_tail_counts_only_on_a_multipart_object():
    entries = manifest.multipart_metadata(CodecId.CPU_ZSTD, tail=TOKEN)
    stored = manifest.classify(entries)
    assert (stored.form, stored.multipart, stored.tail) == (manifest.Form.FRAMED, True, TOKEN)
    assert stored.logical_size is None
    del entries[manifest.MULTIPART]
    assert manifest.classify(entries).tail is None
    assert manifest.classify(entries | {manifest.FRAMED: "true"}).tail is None


@pytest.mark.parametrize("token", ["", TOKEN[1:], TOKEN + "0", TOKEN.upper(), "../../../../../.."])
def test_what_is_no_token_is_neither_read_nor_written(token: str):
    entries = manifest.multipart_metadata(CodecId.CPU_ZSTD) | {manifest.TAIL: token}
    assert manifest.classify(entries).tail is None
    with pytest.raises(errors.ManifestError, match="bad-tail"):
        manifest.multipart_metadata(CodecId.CPU_ZSTD, tail=token)


@pytest.mark.parametrize(
    ("metadata", "backend", "shown"),
    [
        ({}, "abc", "abc"),
        ({"s4-multipart": "true"}, "abc", "abc-1"),
        ({"s4-multipart": "true"}, "abc-3", "abc-3"),
        (manifest.Manifest(CodecId.PASSTHROUGH, 1, 1, 0).to_metadata(), "abc", "abc"),
        (manifest.Manifest(CodecId.CPU_ZSTD, 1, 1, 0, framed=True).to_metadata(), "abc", "abc-1"),
    ],
    ids=["foreign", "multipart", "multipart of parts", "passthrough", "compressed"],
)
def test_the_etag_of_compressed_bytes_is_not_shown_as_an_md5(
    metadata: dict[str, str], backend: str, shown: str
):
    assert manifest.visible_etag(backend, manifest.classify(metadata)) == shown
