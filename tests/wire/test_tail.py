"""The tail says exactly what was written into it, and no bytes do anything but decode or fail."""

import base64
import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from s4gateway.wire import frame, tail
from s4gateway.wire.crc32c import crc32c
from s4gateway.wire.errors import TailError, WireError
from s4gateway.wire.tail import COMPOSITE, FULL_OBJECT, Tail

TOKEN = "0011223344556677"
MD5 = "0678a5c0864e58f1854f042ceb36b1c4"
LENGTHS = {"crc32": 4, "crc32c": 4, "crc64nvme": 8, "sha1": 20, "sha256": 32, "sha512": 64}


def simple(*sizes: int, **fields: object) -> Tail:
    parts = tuple(enumerate(sizes, 1))
    return Tail(TOKEN, f"{MD5}-{len(parts)}", sum(sizes), parts, **fields)  # type: ignore[arg-type]


@st.composite
def tails(draw: st.DrawFn) -> Tail:
    numbers = sorted(draw(st.sets(st.integers(1, 10_000), min_size=1, max_size=40)))
    sizes = st.one_of(st.sampled_from([0, 5, 8 * 1024**2]), st.integers(0, 5 * 1024**3))
    parts = tuple((number, draw(sizes)) for number in numbers)
    checksum: tuple[str, str, str] | None = None
    part_checksums: tuple[str, ...] = ()
    algorithm = draw(st.sampled_from([None, *LENGTHS]))
    if algorithm is not None:
        values = st.binary(min_size=LENGTHS[algorithm], max_size=LENGTHS[algorithm]).map(
            lambda data: base64.b64encode(data).decode()
        )
        kind = draw(st.sampled_from([FULL_OBJECT, COMPOSITE]))
        suffix = f"-{len(parts)}" if kind == COMPOSITE else ""
        checksum = (algorithm, draw(values) + suffix, kind)
        if draw(st.booleans()):
            part_checksums = tuple(draw(values) for _ in parts)
    md5, token = (draw(st.binary(min_size=n, max_size=n)).hex() for n in (16, 8))
    size = sum(size for _, size in parts)
    return Tail(token, f"{md5}-{len(parts)}", size, parts, checksum, part_checksums)


@given(tails(), st.binary(max_size=50))
def test_decodes_to_what_was_encoded_whatever_stands_before_it(value: Tail, before: bytes) -> None:
    encoded = value.encode()
    assert Tail.decode(before + encoded, value.token) == value
    assert Tail.decode(memoryview(before + encoded), value.token) == value
    assert tail.needed(encoded) == len(encoded) <= tail.MAX_BYTES


@given(tails())
def test_readers_of_frames_skip_it(value: Tail) -> None:
    assert list(frame.walk(value.encode())) == []


@given(st.binary(max_size=300))
@example(b"")
@example(bytes(12))
@example(simple(1, 2).encode()[1:])
def test_any_bytes_are_a_tail_or_a_wire_error(data: bytes) -> None:
    with contextlib.suppress(WireError):
        assert isinstance(Tail.decode(data, TOKEN), Tail)


@given(tails(), st.data())
def test_no_changed_byte_goes_unnoticed(value: Tail, data: st.DataObject) -> None:
    encoded = bytearray(value.encode())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(TailError):
        Tail.decode(encoded, value.token)


@given(st.binary(max_size=200), st.data())
def test_a_record_with_a_right_checksum_is_a_tail_or_a_wire_error(
    record: bytes, data: st.DataObject
) -> None:
    base = bytearray(simple(7, 7, 9, checksum=("crc32", "AAAAAA==", FULL_OBJECT)).encode()[12:-12])
    if data.draw(st.booleans()):
        for _ in range(data.draw(st.integers(1, 4))):
            base[data.draw(st.integers(0, len(base) - 1))] = data.draw(st.integers(0, 255))
        record = bytes(base)
    sealed = _sealed(record)
    token = record[:8].hex()
    try:
        value = Tail.decode(sealed, token)
    except TailError:
        return
    assert Tail.decode(value.encode(), token) == value


def _sealed(record: bytes) -> bytes:
    footer = tail._FOOTER.pack(len(record), crc32c(record), tail.MAGIC)
    return tail._PADDING.pack(b"S4P1", len(record) + 12) + record + footer


def test_ten_thousand_equal_parts_fit_the_first_read() -> None:
    value = simple(*[8 * 1024**2] * 9_999, 17)
    assert len(value.encode()) < 200
    assert Tail.decode(value.encode(), TOKEN) == value


def test_ten_thousand_unequal_parts_with_the_longest_checksums_stay_below_the_limit() -> None:
    digest = base64.b64encode(bytes(64)).decode()
    checksum = ("sha512", f"{digest}-10000", COMPOSITE)
    value = simple(*range(10_000), checksum=checksum, part_checksums=(digest,) * 10_000)
    encoded = value.encode()
    assert len(encoded) <= tail.MAX_BYTES
    assert Tail.decode(encoded, TOKEN) == value


def test_the_footer_alone_tells_how_much_to_read() -> None:
    encoded = simple(*range(2_000)).encode()
    assert tail.needed(encoded[-12:]) == len(encoded)
    with pytest.raises(TailError, match="too-short"):
        Tail.decode(encoded[-100:], TOKEN)


def test_another_token_is_not_believed() -> None:
    with pytest.raises(TailError, match="token-mismatch"):
        Tail.decode(simple(1).encode(), "ffffffffffffffff")


@pytest.mark.parametrize(
    "fields",
    [
        {"token": "0011"},
        {"token": TOKEN.upper().replace("0", "A")},
        {"etag": MD5},
        {"etag": f"{MD5}-2"},
        {"etag": f"{MD5}-01"},
        {"original_size": 4},
        {"parts": (), "etag": f"{MD5}-0", "original_size": 0},
        {"parts": ((0, 3),)},
        {"parts": ((10_001, 3),)},
        {"parts": ((1, -1), (2, 4)), "etag": f"{MD5}-2"},
        {"parts": ((2, 1), (2, 2)), "etag": f"{MD5}-2"},
        {"parts": ((2, 1), (1, 2)), "etag": f"{MD5}-2"},
        {"parts": ((1, 2**64),), "original_size": 2**64},
        {"part_checksums": ("AAAAAA==",)},
        {"checksum": ("crc32", "AAAAAA==", "NONE")},
        {"checksum": ("crc 32", "AAAAAA==", FULL_OBJECT)},
        {"checksum": ("crc32", "AAAAAA", FULL_OBJECT)},
        {"checksum": ("crc32", "AAAAAB==", FULL_OBJECT)},
        {"checksum": ("crc32", "", FULL_OBJECT)},
        {"checksum": ("crc32", "AAAAAA==", COMPOSITE)},
        {"checksum": ("crc32", "AAAAAA==-2", COMPOSITE)},
        {"checksum": ("crc32", "AAAAAA==", FULL_OBJECT), "part_checksums": ("AAAAAA==",) * 2},
        {"checksum": ("crc32", "AAAAAA==", FULL_OBJECT), "part_checksums": ("AAAA",)},
    ],
)
def test_what_contradicts_itself_is_not_written(fields: dict[str, object]) -> None:
    values = {"token": TOKEN, "etag": f"{MD5}-1", "original_size": 3, "parts": ((1, 3),), **fields}
    with pytest.raises(TailError, match="bad-tail"):
        Tail(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("suffix", "code"),
    [
        (b"", "too-short"),
        (b"S4T1", "too-short"),
        (bytes(12), "bad-magic"),
        (b"\xff\xff\xff\xff\0\0\0\0S4T1", "too-large"),
        (bytes(11) + simple(1).encode()[12:], "too-short"),
        (bytes(12) + simple(1).encode()[12:], "length-mismatch"),
    ],
)
def test_what_is_no_tail_is_named(suffix: bytes, code: str) -> None:
    with pytest.raises(TailError, match=code):
        Tail.decode(suffix, TOKEN)


@pytest.mark.parametrize(
    ("checksum", "crc"),
    [
        (None, None),
        (("crc32c", "4waSgw==", FULL_OBJECT), 0xE3069283),
        (("crc32c", "4waSgw==-1", COMPOSITE), None),
        (("crc32", "4waSgw==", FULL_OBJECT), None),
        (("crc32c", base64.b64encode(bytes(32)).decode(), FULL_OBJECT), None),
    ],
    ids=["none", "whole", "of parts", "another algorithm", "too long"],
)
def test_the_crc_of_the_whole_is_known_where_its_client_declared_it(
    checksum: tuple[str, str, str] | None, crc: int | None
) -> None:
    value = Tail("0" * 16, f"{'0' * 32}-1", 9, ((1, 9),), checksum)
    assert value.crc32c == crc
