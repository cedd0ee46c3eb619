import struct
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.wire import errors, index
from tests.wire import strategies

ETAG = "0123456789abcdef0123456789abcdef"
ENTRIES = [
    index.FrameEntry(0, 100, 0, 50),
    index.FrameEntry(100, 80, 60, 40),
    index.FrameEntry(180, 50, 100, 30),
]
BINDING = index.SseBinding(1024, 2, 7, b"saltsalt", 2048, 24)


def encoded(*, version: int = 2, etag: bytes = b"", entries: bytes = b"", count: int = 0) -> bytes:
    head = struct.pack("<4sIQQQ", b"S4IX", version, count, 0, 0)
    return head + struct.pack("<QI", 0, len(etag)) + etag + entries


def decoded_or_none(data: bytes) -> index.FrameIndex | None:
    try:
        return index.FrameIndex.decode(data)
    except errors.SidecarError:
        return None


def assert_sound(decoded: index.FrameIndex | None) -> None:
    if decoded is not None:
        assert index.FrameIndex.decode(decoded.encode()) == decoded
        assert all(decoded.find(entry.original_offset) >= -1 for entry in decoded)


@given(
    strategies.layouts(),
    st.none() | strategies.bindings,
    st.none() | st.text(min_size=1, max_size=40),
    st.none() | st.integers(1, 2**64 - 1),
    strategies.U64,
)
def test_index_is_read_back_as_it_was_written(
    entries: list[index.FrameEntry],
    sse: index.SseBinding | None,
    etag: str | None,
    size: int | None,
    total_padded: int,
):
    built = index.FrameIndex.from_entries(entries, total_padded=total_padded, sse=sse)
    bound = built.bind(etag, size)
    stored = bound.encode()
    decoded = index.FrameIndex.decode(stored)
    assert decoded == bound
    assert hash(decoded) == hash(bound)
    assert decoded.encode() == stored
    assert list(decoded) == entries
    assert [decoded[i] for i in range(len(decoded))] == entries


@given(st.binary(max_size=200))
def test_decoding_any_bytes_raises_nothing_but_sidecar_errors(data: bytes):
    for candidate in (data, b"S4IX" + data):
        assert_sound(decoded_or_none(candidate))


@given(st.data())
def test_decoding_a_damaged_sidecar_raises_nothing_but_sidecar_errors(data: st.DataObject):
    built = index.FrameIndex.from_entries(
        data.draw(strategies.layouts()), sse=data.draw(st.none() | strategies.bindings)
    )
    stored = bytearray(built.bind(ETAG, 10).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        stored[data.draw(st.integers(0, len(stored) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(stored)))
    assert_sound(decoded_or_none(bytes(stored[:cut])))


@given(strategies.layouts(), st.integers(-1, 700))
def test_find_returns_the_entry_that_holds_the_byte(entries: list[index.FrameEntry], offset: int):
    holders = [
        number
        for number, entry in enumerate(entries)
        if entry.original_offset <= offset < entry.original_offset + entry.original_size
    ]
    found = index.FrameIndex.from_entries(entries).find(offset)
    assert [found] == (holders or [-1])


def test_find_returns_nothing_in_a_hole():
    entries = [index.FrameEntry(0, 10, 0, 30), index.FrameEntry(20, 10, 30, 30)]
    holed = index.FrameIndex.from_entries(entries)
    assert [holed.find(offset) for offset in (9, 10, 19, 20, 29, 30)] == [0, -1, -1, 1, 1, -1]
    assert not holed.is_contiguous


def test_index_that_does_not_begin_at_the_first_byte_has_a_hole():
    assert not index.FrameIndex.from_entries([index.FrameEntry(5, 10, 0, 30)]).is_contiguous


@given(strategies.layouts())
def test_layout_of_a_writer_is_contiguous(entries: list[index.FrameEntry]):
    assert index.FrameIndex.from_entries(entries).is_contiguous


def test_totals_come_from_the_entries():
    built = index.FrameIndex.from_entries(iter(ENTRIES))
    assert (len(built), built.total_original, built.total_padded) == (3, 230, 130)
    assert index.FrameIndex.from_entries(ENTRIES, total_padded=200).total_padded == 200


def test_empty_index_has_nothing():
    empty = index.FrameIndex.from_entries(())
    assert (len(empty), empty.total_original, empty.total_padded, empty.find(0)) == (0, 0, 0, -1)
    assert index.FrameIndex.decode(empty.encode()) == empty


def test_stored_total_is_not_believed():
    stored = bytearray(index.FrameIndex.from_entries(ENTRIES).encode())
    stored[16:24] = b"\xff" * 8
    assert index.FrameIndex.decode(stored).total_original == 230


def test_repr_is_short_whatever_the_number_of_frames():
    assert repr(index.FrameIndex.from_entries(ENTRIES)) == (
        "FrameIndex(3 frames, total_original=230, total_padded=130, etag=None, "
        "source_size=None, sse=None)"
    )


def test_indices_differ_by_what_they_are_bound_to():
    built = index.FrameIndex.from_entries(ENTRIES)
    assert built != built.bind(ETAG, 1)
    assert built != "an index"


@pytest.mark.parametrize("field", range(4))
@pytest.mark.parametrize("value", [-1, 2**64])
def test_entry_that_does_not_fit_is_refused(field: int, value: int):
    fields = [0, 0, 0, 0]
    fields[field] = value
    with pytest.raises(errors.SidecarError) as caught:
        index.FrameIndex.from_entries([index.FrameEntry(*fields)])
    assert caught.value.code == "out-of-range"


@pytest.mark.parametrize("total", [-1, 2**64])
def test_length_that_does_not_fit_is_refused(total: int):
    with pytest.raises(errors.SidecarError, match="out-of-range"):
        index.FrameIndex.from_entries((), total_padded=total)
    with pytest.raises(errors.SidecarError, match="out-of-range"):
        index.FrameIndex.from_entries(()).bind(None, total)


def test_more_frames_than_a_reader_takes_are_not_written(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(index, "MAX_FRAMES", 2)
    with pytest.raises(errors.SidecarError) as caught:
        index.FrameIndex.from_entries(ENTRIES)
    assert caught.value.code == "too-many-frames"


def test_reader_may_lower_the_number_of_frames():
    stored = index.FrameIndex.from_entries(ENTRIES).encode()
    assert len(index.FrameIndex.decode(stored, max_frames=3)) == 3
    with pytest.raises(errors.SidecarError, match="too-many-frames"):
        index.FrameIndex.decode(stored, max_frames=2)


BIG = 2**64 - 10


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ([(BIG, 100, 0, 0)], "entry-overflow"),
        ([(0, 0, BIG, 100)], "entry-overflow"),
        ([(BIG, 100, 0, 0), (BIG + 5, 0, 0, 0)], "entry-overflow"),
        ([(0, 10, 0, 0), (5, 10, BIG, 100)], "entry-overflow"),
        ([(0, 10, 0, 0), (5, 10, 0, 0)], "non-monotonic"),
        ([(0, 0, 0, 10), (0, 0, 9, 10)], "non-monotonic"),
        ([(10, 1, 0, 0), (0, 1, 0, 0)], "non-monotonic"),
    ],
)
def test_entries_out_of_order_are_refused_wrapping_first(entries: list[tuple[int, ...]], code: str):
    packed = b"".join(struct.pack("<4Q", *entry) for entry in entries)
    with pytest.raises(errors.SidecarError) as caught:
        index.FrameIndex.decode(encoded(entries=packed, count=len(entries)))
    assert caught.value.code == code
    with pytest.raises(errors.SidecarError) as caught:
        index.FrameIndex.from_entries(index.FrameEntry(*entry) for entry in entries)
    assert caught.value.code == code


def test_entry_may_end_at_the_last_64_bit_offset():
    packed = struct.pack("<4Q", 2**64 - 2, 1, 0, 2**64 - 1)
    assert index.FrameIndex.decode(encoded(entries=packed, count=1)).total_original == 2**64 - 1


def test_frame_count_is_checked_before_the_version():
    stored = struct.pack("<4sIQQQ", b"S4IX", 9, index.MAX_FRAMES + 1, 0, 0)
    with pytest.raises(errors.SidecarError, match="too-many-frames"):
        index.FrameIndex.decode(stored)


def test_etag_that_is_no_text_counts_as_absent():
    assert index.FrameIndex.decode(encoded(etag=b"\xff\xfe")).etag is None


def test_etag_that_no_header_can_carry_binds_nothing():
    bound = index.FrameIndex.from_entries(()).bind("\ud800", 5)
    assert index.FrameIndex.decode(bound.encode()).etag is None


@pytest.mark.parametrize("sizes", [(0, 2), (1024, 0)])
def test_encryption_block_without_chunks_is_no_binding(sizes: tuple[int, ...]):
    block = struct.pack("<IIH8sQI", *sizes, 7, bytes(8), 2048, 24)
    decoded = index.FrameIndex.decode(encoded(version=3, entries=block))
    assert decoded.sse is None
    assert decoded.encode()[4] == 2


@pytest.mark.parametrize(
    "change",
    [
        {"chunk_size": 0},
        {"chunk_count": 0},
        {"salt": b"short"},
        {"chunk_size": 2**32},
        {"chunk_count": -1},
        {"key_id": 2**16},
        {"plaintext_len": 2**64},
        {"header_bytes": -1},
    ],
)
def test_encryption_binding_of_values_that_do_not_fit_cannot_be_made(change: dict[str, Any]):
    values = {
        "chunk_size": 1024,
        "chunk_count": 2,
        "key_id": 7,
        "salt": bytes(8),
        "plaintext_len": 2048,
        "header_bytes": 24,
    }
    with pytest.raises(errors.SidecarError, match="out-of-range"):
        index.SseBinding(**(values | change))


def test_encryption_binding_makes_version_3():
    built = index.FrameIndex.from_entries(ENTRIES, sse=BINDING)
    stored = built.encode()
    assert stored[4] == 3
    assert index.FrameIndex.decode(stored).sse == BINDING


@pytest.mark.parametrize("etag", [ETAG, f'"{ETAG}"', f'W/"{ETAG}"'])
def test_binding_drops_quotes_and_the_weak_mark(etag: str | None):
    bound = index.FrameIndex.from_entries(ENTRIES).bind(etag, 130)
    assert (bound.etag, bound.source_size) == (ETAG, 130)
    assert list(bound) == ENTRIES


@pytest.mark.parametrize("etag", [None, "", '""'])
def test_binding_to_no_etag_and_no_size_is_none(etag: str | None):
    bound = index.FrameIndex.from_entries(ENTRIES).bind(etag, 0)
    assert (bound.etag, bound.source_size) == (None, None)


def test_longest_etag_is_4096_bytes():
    built = index.FrameIndex.from_entries(())
    assert index.FrameIndex.decode(built.bind("e" * 4096, 1).encode()).etag == "e" * 4096
    with pytest.raises(errors.SidecarError) as caught:
        built.bind("é" * 2049, 1)
    assert caught.value.code == "etag-too-long"


@pytest.mark.parametrize(
    ("bound_to", "live", "trusted"),
    [
        ((ETAG, 130), (ETAG, 130), True),
        ((ETAG, 130), (f'"{ETAG}"', 130), True),
        ((ETAG, 130), (f'W/"{ETAG}"', 130), True),
        ((ETAG, 130), (ETAG, 131), False),
        ((ETAG, 130), ("another", 130), False),
        ((ETAG, 130), (ETAG, None), True),
        ((ETAG, 130), (None, 130), False),
        ((ETAG, None), (ETAG, 130), True),
        ((None, 130), (ETAG, 130), True),
        ((None, 130), (None, 130), True),
        ((None, 130), (ETAG, 131), False),
        ((None, 130), (ETAG, None), False),
        ((None, None), (ETAG, 130), False),
        ((None, None), (None, None), False),
    ],
)
def test_index_is_trusted_only_for_the_object_it_is_bound_to(
    bound_to: tuple[str | None, int | None], live: tuple[str | None, int | None], trusted: bool
):
    bound = index.FrameIndex.from_entries(ENTRIES).bind(*bound_to)
    assert bound.is_bound_to(*live) is trusted


def test_quoted_etag_of_another_writer_is_kept_and_still_matches():
    decoded = index.FrameIndex.decode(encoded(etag=f'"{ETAG}"'.encode()))
    assert decoded.etag == f'"{ETAG}"'
    assert decoded.is_bound_to(ETAG, 5)


def test_size_of_an_empty_object_is_a_known_size():
    assert not index.FrameIndex.from_entries(ENTRIES).bind(ETAG, 130).is_bound_to(ETAG, 0)


def test_entries_are_swapped_on_a_big_endian_machine(monkeypatch: pytest.MonkeyPatch):
    stored = index.FrameIndex.from_entries(ENTRIES).encode()
    other = "little" if sys.byteorder == "big" else "big"
    monkeypatch.setattr(sys, "byteorder", other)
    swapped = index.FrameIndex.from_entries(ENTRIES).encode()
    values = struct.unpack(f"<{4 * len(ENTRIES)}Q", stored[44:])
    assert swapped[44:] == struct.pack(f">{4 * len(ENTRIES)}Q", *values)


ETAG = "0123456789abcdef0123456789abcdef"
TWO = [index.FrameEntry(0, 10, 0, 40), index.FrameEntry(10, 10, 45, 40)]


@pytest.mark.parametrize(
    ("entries", "bound", "options", "trusted"),
    [
        (TWO, (ETAG, 90), {}, True),
        (TWO, (None, 90), {}, True),
        (TWO, ("f" * 32, 90), {}, False),
        (TWO, (ETAG, 91), {}, False),
        (TWO, (None, None), {}, False),
        (TWO[1:], (ETAG, 90), {}, False),
        (TWO, (ETAG, 90), {"total_padded": 91}, False),
        ([index.FrameEntry(0, 10, 0, 91)], (ETAG, 90), {"total_padded": 90}, False),
        (TWO, (ETAG, 90), {"sse": index.SseBinding(1, 1, 0, bytes(8), 1, 0)}, False),
        ([], (ETAG, 90), {}, False),
    ],
    ids=["bound", "by size", "other ETag", "other size", "unbound", "hole", "longer body",
         "longer frame", "encrypted", "empty"],
)  # fmt: skip
def test_ranges_are_read_by_an_index_of_the_very_object_that_fits_it(
    entries: list[index.FrameEntry],
    bound: tuple[str | None, int | None],
    options: dict[str, Any],
    trusted: bool,
):
    made = index.FrameIndex.from_entries(entries, **options).bind(*bound)
    assert made.describes(ETAG, 90) is trusted
