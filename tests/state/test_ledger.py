import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.state import files, ledger
from s4gateway.state.ledger import EMPTY, HIGHEST, Counters, Delta

PATH = Path("/somewhere/ledger.json")
numbers = st.integers(0, HIGHEST)
names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=255)
counters = st.builds(Counters, numbers, numbers, numbers, numbers)
whole = st.integers(-(2**70), 2**70)
deltas = st.builds(Delta, whole, whole, whole, whole)


@given(st.dictionaries(names, counters, max_size=5))
def test_what_is_rendered_is_parsed_to_the_same(totals: dict[str, Counters]):
    assert ledger.parse(ledger.render(totals), PATH) == totals


def test_the_file_is_compact_json_with_sorted_keys():
    totals = {"b": Counters(3, 2, 1), "a": Counters(30, 20, 10, 7)}
    assert ledger.render(totals) == (
        b'{"buckets":{"a":{"objects":10,"original_bytes":30,"stored_bytes":20},'
        b'"b":{"objects":1,"original_bytes":3,"stored_bytes":2}},"skipped_unaccounted":{"a":7}}'
    )


def test_what_others_write_is_read():
    text = """{"skipped_unaccounted": {"c": 4}, "since": "2024", "buckets":
      {"a": {"original_bytes": 3, "stored_bytes": 2, "objects": 1, "colour": null}}}"""
    assert ledger.parse(text.encode(), PATH) == {"a": Counters(3, 2, 1), "c": Counters(0, 0, 0, 4)}
    assert ledger.parse(b'{"buckets":{}}', PATH) == {}


@pytest.mark.parametrize("blank", [b"", b" \n\t"])
def test_a_blank_file_has_counted_nothing(blank: bytes):
    assert ledger.parse(blank, PATH) == {}


def _bucket(**entry: Any) -> str:
    counted = {"original_bytes": 1, "stored_bytes": 1, "objects": 1} | entry
    return json.dumps({"buckets": {"b": counted}})


WRONG = {
    "not UTF-8": b"\xff\xfe{",
    "not JSON": b'{"buckets":{}',
    "twice": b'{"buckets":{},"buckets":{}}',
    "no object with the key buckets": b"[]",
    "key buckets": b'{"skipped_unaccounted":{}}',
    "buckets: not an object": b'{"buckets":[]}',
    "buckets.'b': not an object": b'{"buckets":{"b":7}}',
    "original_bytes: not a whole number": _bucket(original_bytes=1.0).encode(),
    "stored_bytes: not a whole number": _bucket(stored_bytes=True).encode(),
    "objects: not a whole number": _bucket(objects="1").encode(),
    "objects: not between 0": _bucket(objects=-1).encode(),
    "between 0 and 2\\^64 - 1": _bucket(objects=2**64).encode(),
    "skipped_unaccounted: not an object": b'{"buckets":{},"skipped_unaccounted":1}',
    "skipped_unaccounted: 'b': not a whole": b'{"buckets":{},"skipped_unaccounted":{"b":null}}',
    "name of 0 characters": b'{"buckets":{"":{}}}',
    "name of 256 characters": json.dumps({"buckets": {"b" * 256: {}}}).encode(),
    "nested too deeply": b"[" * 100_000,
    "digits": b'{"buckets":{"b":{"original_bytes":' + b"9" * 10_000 + b"}}}",
}


@pytest.mark.parametrize("said", WRONG)
def test_what_is_no_state_is_refused_in_one_line_that_says_why(said: str):
    with pytest.raises(files.StateFileParse, match=said) as caught:
        ledger.parse(WRONG[said], PATH)
    assert str(caught.value).startswith(f"{PATH}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["original_bytes", "stored_bytes", "objects"])
def test_a_counter_that_is_missing_is_not_taken_for_zero(missing: str):
    document = json.loads(_bucket())
    del document["buckets"]["b"][missing]
    with pytest.raises(files.StateFileParse, match=missing):
        ledger.parse(json.dumps(document).encode(), PATH)


def test_a_name_that_could_be_written_nowhere_is_refused():
    with pytest.raises(files.StateFileParse):
        ledger.parse(b'{"buckets":{},"skipped_unaccounted":{"\\ud800":1}}', PATH)


loose = st.recursive(
    st.none() | st.booleans() | st.floats() | whole | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["buckets", "skipped_unaccounted", *ledger._COUNTED, "b"]), inner
        )
    ),
    max_leaves=20,
)


@given(st.binary(max_size=200) | loose.map(lambda value: json.dumps(value).encode()))
def test_any_content_is_a_state_or_refused(data: bytes):
    try:
        totals = ledger.parse(data, PATH)
    except files.StateFileParse:
        return
    assert ledger.parse(ledger.render(totals), PATH) == totals


def test_loading_tells_no_file_from_an_empty_one_and_from_a_directory(tmp_path: Path):
    path = tmp_path / "ledger.json"
    assert ledger.load(path) is None
    path.touch()
    assert ledger.load(path) == {}
    with pytest.raises(files.StateFileRead, match="is a directory"):
        ledger.load(tmp_path)
    path.write_bytes(os.urandom(100))
    before = path.read_bytes()
    with pytest.raises(files.StateFileParse):
        ledger.load(path)
    assert path.read_bytes() == before


@given(counters, deltas)
def test_counters_stay_in_their_range(before: Counters, delta: Delta):
    after = ledger.changed(before, delta)
    for name in Delta.__slots__:
        exact = getattr(before, name) + getattr(delta, name)
        assert getattr(after, name) == min(max(exact, 0), HIGHEST)
        assert getattr(delta.beyond_zero(before), name) == min(exact, 0)


@given(st.lists(deltas, max_size=6))
def test_changes_add_up_in_any_order(changes: list[Delta]):
    forward: dict[str, Delta] = {}
    backward: dict[str, Delta] = {}
    for each in changes:
        forward = ledger.summed(forward, {"b": each})
    for each in reversed(changes):
        backward = ledger.summed({"b": each}, backward)
    assert forward == backward
    assert ledger.summed(forward, {}) == forward
    if not changes:
        assert ledger.changed(EMPTY, forward.get("b", ledger.NOTHING)) == EMPTY
