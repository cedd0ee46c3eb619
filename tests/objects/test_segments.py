"""The plan of a completion: which bytes become which part of the store's own upload."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.objects.part_facts import PartFacts
from s4gateway.objects.segments import PADDING, TAIL, TARGET, Segment, Slice, plan
from s4gateway.s3.completion import MOST_PARTS, SMALLEST_PART
from s4gateway.s3.errors import S3Error
from s4gateway.wire.frame import PADDING_HEADER_SIZE

MIB = 1024 * 1024
UNIT = 8 * MIB + 12_288
NONE = "0" * 32


def facts(number: int, size: int, *, direct: bool = False) -> PartFacts:
    return PartFacts(number, NONE, size, size, NONE, "etag" if direct else None)


def shape(segments: tuple[Segment, ...]) -> list[tuple[int, object]]:
    """Number, and what stands there: a direct part's position, or (source, bytes) of slices."""
    return [
        (each.number, each.direct)
        if each.direct is not None
        else (each.number, [(part.source, part.size) for part in each.slices])
        for each in segments
    ]


def sizes(segments: tuple[Segment, ...], parts: list[PartFacts]) -> list[int]:
    return [
        each.size if each.direct is None else parts[each.direct].stored_size for each in segments
    ]


def content(
    segments: tuple[Segment, ...], parts: list[PartFacts]
) -> tuple[list[tuple[int, int, int]], int]:
    """What stands in the object, slices of one source joined; and the bytes of padding."""
    flat: list[tuple[int, int, int]] = []
    for segment in segments:
        slices = segment.slices
        if segment.direct is not None:
            slices = (Slice(segment.direct, 0, parts[segment.direct].stored_size),)
        for each in slices:
            if flat and flat[-1][0] == each.source and flat[-1][2] == each.start:
                flat[-1] = (each.source, flat[-1][1], each.end)
            else:
                flat.append((each.source, each.start, each.end))
    padding = sum(end - start for source, start, end in flat if source == PADDING)
    return [each for each in flat if each[0] != PADDING], padding


def check(parts: list[PartFacts], tail: int, segments: tuple[Segment, ...]) -> None:
    """What holds of every plan."""
    numbers = [each.number for each in segments]
    assert numbers == sorted(set(numbers))
    assert numbers[0] >= 1
    assert numbers[-1] <= MOST_PARTS
    for each in segments:
        if each.direct is not None:
            assert each.number == parts[each.direct].number
    found, _ = content(segments, parts)
    whole = [(position, 0, part.stored_size) for position, part in enumerate(parts)]
    assert found == [*whole, (TAIL, 0, tail)]
    for each in segments:
        pads = [piece for piece in each.slices if piece.source == PADDING]
        assert bool(pads) <= (each.padding >= PADDING_HEADER_SIZE)
        assert all(piece.end <= each.padding for piece in pads)


def staged_size(draw: st.DrawFn) -> int:
    edge = st.sampled_from([28, 113, SMALLEST_PART - 28, SMALLEST_PART - 1, SMALLEST_PART - 12])
    return draw(edge | st.integers(28, SMALLEST_PART - 1))


@st.composite
def plain_parts(draw: st.DrawFn) -> list[PartFacts]:
    """Parts as they are stored where any size goes: small ones staged, large ones direct."""
    numbers = sorted(draw(st.sets(st.integers(1, MOST_PARTS), min_size=1, max_size=30)))
    parts = []
    for number in numbers:
        direct = number < MOST_PARTS and draw(st.booleans())
        size = draw(st.integers(SMALLEST_PART, 90 * MIB)) if direct else staged_size(draw)
        parts.append(facts(number, size, direct=direct))
    return parts


@given(plain_parts(), st.integers(100, 800_000))
def test_a_plan_keeps_order_and_minimum_and_pads_only_where_it_must(
    parts: list[PartFacts], tail: int
):
    segments = plan(parts, tail)
    check(parts, tail, segments)
    found = sizes(segments, parts)
    assert all(size >= SMALLEST_PART for size in found[:-1])
    assert all(each.size < 2 * TARGET for each in segments if each.direct is None)
    for segment, following in itertools.pairwise(segments):
        if segment.padding:
            assert following.direct is not None
            assert segment.size < SMALLEST_PART + PADDING_HEADER_SIZE
    own = {part.number for part in parts}
    last = parts[-1]
    extra = {each.number for each in segments} - own
    assert extra == (set() if last.staged else {last.number + 1})


@st.composite
def uniform_parts(draw: st.DrawFn) -> list[PartFacts]:
    """Parts as they are stored where equal ones are wanted: direct ones exactly UNIT long."""
    numbers = sorted(draw(st.sets(st.integers(1, 9_900), min_size=1, max_size=30)))
    parts = []
    for number in numbers:
        direct = draw(st.booleans())
        edge = st.sampled_from([28, UNIT - 5_000, UNIT // 2, UNIT - 5_001])
        size = UNIT if direct else draw(edge | st.integers(28, UNIT - 5_000))
        parts.append(facts(number, size, direct=direct))
    return parts


@given(uniform_parts(), st.integers(100, 800_000))
def test_equal_parts_are_equal_but_for_the_last(parts: list[PartFacts], tail: int):
    segments = plan(parts, tail, uniform=True)
    check(parts, tail, segments)
    *first, last = sizes(segments, parts)
    assert len(set(first)) <= 1
    assert all(size >= last for size in first)
    if any(not part.staged for part in parts):
        assert set(first) <= {UNIT}


@given(st.lists(st.integers(28, UNIT * 3), min_size=1, max_size=10), st.integers(100, 800_000))
def test_staged_parts_of_any_size_are_cut_equal(stored: list[int], tail: int):
    parts = [facts(number, size) for number, size in enumerate(stored, 1)]
    segments = plan(parts, tail, uniform=True)
    check(parts, tail, segments)
    *first, last = sizes(segments, parts)
    assert set(first) <= {8 * MIB}
    assert last <= 8 * MIB


def test_neighbours_that_are_small_become_one_part():
    parts = [facts(number, MIB) for number in range(1, 6)]
    assert shape(plan(parts, 100)) == [(1, [*((at, MIB) for at in range(5)), (TAIL, 100)])]


def test_a_long_run_becomes_parts_of_about_the_target():
    parts = [facts(number, 2 * MIB) for number in range(1, 21)]
    found = plan(parts, 100)
    assert [each.number for each in found] == [1, 2, 3, 4, 5]
    assert [each.size // MIB for each in found] == [8, 8, 8, 8, 8]


def test_a_rest_below_the_minimum_goes_with_what_stands_before_it():
    parts = [*(facts(number, 2 * MIB) for number in range(1, 6)), facts(20, 6 * MIB, direct=True)]
    found = plan(parts, 100)
    assert [(each.number, each.padding) for each in found] == [(1, 0), (20, 0), (21, 0)]


def test_a_small_run_before_a_direct_part_is_padded_and_nothing_else_is():
    parts = [facts(1, MIB), facts(2, 6 * MIB, direct=True), facts(3, MIB)]
    assert shape(plan(parts, 100)) == [
        (1, [(0, MIB), (PADDING, 4 * MIB)]),
        (2, 1),
        (3, [(2, MIB), (TAIL, 100)]),
    ]


@pytest.mark.parametrize("missing", range(1, 13))
def test_padding_never_is_shorter_than_its_header(missing: int):
    parts = [facts(1, SMALLEST_PART - missing), facts(2, 6 * MIB, direct=True)]
    assert plan(parts, 100)[0].size == SMALLEST_PART - missing + PADDING_HEADER_SIZE
    equal = [*(facts(number, UNIT // 2) for number in (1, 2, 3)), facts(9, UNIT, direct=True)]
    equal[2] = facts(3, UNIT - missing)
    found = plan(equal, 100, uniform=True)
    assert [each.size for each in found[:-2]] == [UNIT] * (2 if missing == 12 else 3)


def test_the_tail_of_a_direct_part_has_a_number_of_its_own():
    parts = [facts(9_999, 6 * MIB, direct=True)]
    assert shape(plan(parts, 100)) == [(9_999, 0), (10_000, [(TAIL, 100)])]


def test_the_last_number_holds_its_part_and_the_tail():
    parts = [facts(9_999, 6 * MIB, direct=True), facts(10_000, 700 * MIB)]
    assert shape(plan(parts, 100)) == [(9_999, 0), (10_000, [(1, 700 * MIB), (TAIL, 100)])]


def test_a_large_last_part_does_not_swallow_the_run_before_it():
    parts = [*(facts(number, 4 * MIB) for number in range(1, 4)), facts(10_000, 700 * MIB)]
    assert [each.number for each in plan(parts, 100)] == [1, 2]


def test_ten_thousand_small_parts_are_a_handful():
    parts = [facts(number, 60_000) for number in range(1, 10_001)]
    segments = plan(parts, 120_000)
    check(parts, 120_000, segments)
    assert len(segments) == 71


def test_ten_thousand_parts_without_a_given_length_are_cut_into_as_many_at_most():
    parts = [facts(number, 40 * MIB) for number in range(9_991, 10_001)]
    segments = plan(parts, 100, uniform=True)
    check(parts, 100, segments)
    assert len(segments) == 10


@pytest.mark.parametrize(
    "parts",
    [
        [facts(1, UNIT, direct=True), facts(2, UNIT + 1, direct=True)],
        [facts(1, UNIT + 1), facts(2, UNIT, direct=True)],
        [facts(1, UNIT, direct=True), facts(2, UNIT + 1), facts(3, UNIT, direct=True)],
        [facts(9_999, UNIT, direct=True), facts(10_000, UNIT)],
    ],
    ids=["two lengths", "before the first number", "no number between", "no number behind"],
)
def test_parts_that_cannot_be_made_equal_are_invalid(parts: list[PartFacts]):
    with pytest.raises(S3Error) as caught:
        plan(parts, 100, uniform=True)
    assert caught.value.code == "InvalidPart"


def test_a_part_too_long_takes_numbers_the_client_left_free():
    parts = [facts(1, UNIT, direct=True), facts(5, 2 * UNIT), facts(9, UNIT, direct=True)]
    found = plan(parts, 100, uniform=True)
    assert [each.number for each in found] == [1, 2, 5, 9, 10]
