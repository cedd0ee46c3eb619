from hypothesis import given
from hypothesis import strategies as st

from s4gateway.objects.cache import (
    ABSENT_SECONDS,
    AttributeCache,
    IndexCache,
    KnownObject,
    TailCache,
)
from s4gateway.wire.index import FrameEntry, FrameIndex

NAME = ("bucket", "key")


def known(etag: str = "e", stored_size: int = 10) -> KnownObject:
    return KnownObject(etag, stored_size, 100, "logical", indexed=None)


def index(frames: int) -> FrameIndex:
    return FrameIndex.from_entries(FrameEntry(n, 1, 29 * n, 29) for n in range(frames))


def test_attributes_are_believed_only_for_the_version_they_were_learned_of():
    cache = AttributeCache()
    cache.remember(NAME, known())
    assert cache.lookup(NAME, "e", 10) == known()
    assert cache.lookup(NAME, "other", 10) is None
    assert cache.lookup(NAME, "e", 11) is None
    assert cache.last(NAME) == known()
    cache.forget(NAME)
    cache.forget(NAME)
    assert cache.last(NAME) is None


def test_the_attributes_used_longest_ago_are_forgotten():
    cache = AttributeCache(2)
    for key in "ab":
        cache.remember(("bucket", key), known())
    cache.lookup(("bucket", "a"), "e", 10)
    cache.remember(("bucket", "c"), known())
    assert [cache.last(("bucket", key)) is not None for key in "abc"] == [True, False, True]


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([None, 1, 20, 100]))))
def test_indices_stay_within_their_bytes(steps: list[tuple[int, int | None]]):
    cache = IndexCache(5000)
    last: dict[int, int | None] = {}
    for number, frames in steps:
        cache.remember(NAME, str(number), None if frames is None else index(frames))
        last[number] = frames
        found, kept = cache.lookup(NAME, str(number))
        assert found  # what was just learned is kept, however large
        assert (None if kept is None else len(kept)) == frames
    held = [number for number in last if cache.lookup(NAME, str(number))[0]]
    weight = sum(512 + 32 * (last[number] or 0) for number in held)
    assert weight <= 5000 or len(held) == 1


def test_an_index_belongs_to_one_version_of_one_key():
    cache = IndexCache()
    cache.remember(NAME, "e", index(3))
    assert cache.lookup(NAME, "f") == (False, None)
    assert cache.lookup(("bucket", "other"), "e") == (False, None)
    cache.remember(NAME, "f", None)
    assert cache.lookup(NAME, "f") == (True, None)


def test_an_absent_sidecar_is_looked_for_again_after_a_while():
    now = [0.0]
    cache = IndexCache(clock=lambda: now[0])
    cache.remember(("b", "k"), "e", None)
    assert cache.lookup(("b", "k"), "e") == (True, None)
    now[0] = ABSENT_SECONDS
    assert cache.lookup(("b", "k"), "e") == (False, None)
    assert cache.lookup(("b", "other"), "e") == (False, None)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3000))))
def test_tails_stay_within_their_bytes(steps: list[tuple[int, int]]):
    cache = TailCache(5000)
    last: dict[str, int] = {}
    for number, size in steps:
        cache.remember(NAME, str(number), bytes(size))
        last[str(number)] = size
        assert cache.lookup(NAME, str(number)) == bytes(size)
        kept = {etag: cache.lookup(NAME, etag) for etag in last}
        held = [encoded for encoded in kept.values() if encoded is not None]
        assert sum(len(encoded) + 512 for encoded in held) <= 5000
        assert all(kept[etag] in {None, bytes(last[etag])} for etag in kept)
    assert cache.lookup(NAME, "never") is None
