"""The report over state files: what is claimed, what is not, and what is said about it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.state.files import StateFileParse, StateFileRead
from s4gateway.state.ledger import Counters
from s4gateway.tools import savings
from s4gateway.tools.figures import GIB, Pricing, of_counters, ratio
from s4gateway.tools.savings import SavingsReport
from s4gateway.tools.storage_classes import CLASSES

KIB = 1024


def write(path: Path, buckets: dict[str, tuple[int, int, int]], **skipped: int) -> Path:
    """A state file: original, stored, objects of each bucket."""
    names = ("original_bytes", "stored_bytes", "objects")
    document = {
        "buckets": {
            each: dict(zip(names, values, strict=True)) for each, values in buckets.items()
        },
        "skipped_unaccounted": skipped,
    }
    path.write_text(json.dumps(document))
    return path


def report(*paths: Path, price: float = 0.023, storage: str = "STANDARD") -> SavingsReport:
    return savings.report(savings.load(paths), Pricing(price, CLASSES[storage]))


def note(found: SavingsReport, word: str) -> str:
    (text,) = [each for each in found.notes if word in each]
    return text


def test_a_bucket_and_the_total_are_reported(tmp_path: Path):
    found = report(
        write(tmp_path / "s", {"b": (100 * GIB, 25 * GIB, 7), "a": (100 * GIB, 75 * GIB, 3)}),
        price=0.02,
    )
    a, b = found.buckets
    assert (a.bucket, b.bucket) == ("a", "b")
    assert (b.objects, b.original_bytes, b.stored_bytes) == (7, 100 * GIB, 25 * GIB)
    assert (b.saved_bytes, b.savings_ratio) == (75 * GIB, 0.75)
    assert math.isclose(b.monthly_savings_usd, 1.5)
    assert found.total_objects == 10
    assert found.total_original_bytes == 200 * GIB
    assert found.total_stored_bytes == 100 * GIB
    assert found.total_saved_bytes == 100 * GIB
    assert found.total_savings_ratio == 0.5
    assert found.price_per_gb_month == 0.02
    assert math.isclose(found.total_monthly_savings_usd, 2.0)


def test_state_files_add_up_by_bucket(tmp_path: Path):
    one = write(tmp_path / "1", {"a": (10, 4, 1), "b": (5, 5, 1)}, a=2)
    two = write(tmp_path / "2", {"a": (20, 6, 2)}, a=1, c=4)
    found = report(one, two)
    assert [each.bucket for each in found.buckets] == ["a", "b", "c"]
    a = found.buckets[0]
    assert (a.original_bytes, a.stored_bytes, a.objects, a.skipped_unaccounted) == (30, 10, 3, 3)
    assert found.total_skipped_unaccounted == 7
    assert [each.path for each in found.state_files] == [str(one), str(two)]
    assert all(each.written_at is not None for each in found.state_files)


def test_one_file_under_two_names_is_refused(tmp_path: Path):
    path = write(tmp_path / "s", {})
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(savings.SameFileTwice, match="given twice"):
        savings.load([path, link])


def test_nothing_is_claimed_below_zero_and_drift_is_named(tmp_path: Path):
    found = report(write(tmp_path / "s", {"grown": (100, 130, 1), "fine": (100, 40, 1)}))
    grown = found.buckets[1]
    assert (grown.saved_bytes, grown.savings_ratio, grown.monthly_savings_usd) == (0, 0.0, 0.0)
    assert found.total_saved_bytes == 30  # of the sums, not the sum of the rows
    drift = note(found, "Drift")
    assert "grown" in drift
    assert "fine" not in drift


def test_a_total_that_grew_is_zero(tmp_path: Path):
    found = report(write(tmp_path / "s", {"b": (100, 130, 1)}))
    assert found.total_saved_bytes == 0
    assert found.total_savings_ratio == 0.0
    assert found.total_monthly_savings_usd == 0.0


def test_skipped_removals_are_said_not_to_be_subtracted(tmp_path: Path):
    found = report(write(tmp_path / "s", {"b": (1, 1, 1)}, b=17))
    assert note(found, "NOT subtracted").startswith("17 objects")


def test_bytes_without_objects_are_named(tmp_path: Path):
    found = report(write(tmp_path / "s", {"left": (9, 5, 0), "empty": (0, 0, 0), "b": (9, 5, 1)}))
    residue = note(found, "0 objects but bytes")
    assert residue.startswith("Residue: left:")


def test_a_sound_report_has_exactly_the_fixed_notes(tmp_path: Path):
    assert report(write(tmp_path / "s", {"b": (9, 5, 1)})).notes == savings.HONESTY


def test_a_missing_file_is_zeros_and_its_note_comes_first(tmp_path: Path):
    there = write(tmp_path / "there", {"b": (9, 5, 1)})
    missing = tmp_path / "missing"
    found = report(there, missing)
    assert str(missing) in found.notes[0]
    assert "--savings-ledger-state-file" in found.notes[0]
    assert found.notes[1:] == savings.HONESTY
    assert found.total_objects == 1


@pytest.mark.parametrize("content", ["", " \n"])
def test_a_blank_file_is_zeros(tmp_path: Path, content: str):
    path = tmp_path / "s"
    path.write_text(content)
    found = report(path)
    assert found.buckets == ()
    assert found.notes == savings.HONESTY


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b'{"skipped_unaccounted": {}}',
        b'{"buckets": []}',
        b'{"buckets": {"b": 1}}',
        b'{"buckets": {"b": {"original_bytes": 1, "stored_bytes": 1}}}',
        b'{"buckets": {"b": {"original_bytes": -1, "stored_bytes": 1, "objects": 1}}}',
        b'{"buckets": {"b": {"original_bytes": 1.5, "stored_bytes": 1, "objects": 1}}}',
        b'{"buckets": {"b": {"original_bytes": true, "stored_bytes": 1, "objects": 1}}}',
        b'{"buckets": {"b": {"original_bytes": 1e400, "stored_bytes": 1, "objects": 1}}}',
        b'{"buckets": {"b": {"original_bytes": %d, "stored_bytes": 1, "objects": 1}}}' % 2**64,
        b'{"buckets": {}, "skipped_unaccounted": {"b": "1"}}',
        b"[" * 100_000,
    ],
)
def test_a_file_that_is_no_state_is_refused_with_its_name_and_left_alone(
    tmp_path: Path, content: bytes
):
    path = tmp_path / "s"
    path.write_bytes(content)
    with pytest.raises(StateFileParse, match=str(path)):
        savings.load([path])
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [tmp_path / "s"]


def test_a_directory_is_not_read(tmp_path: Path):
    with pytest.raises(StateFileRead, match="is a directory"):
        savings.load([tmp_path])


def test_reading_leaves_no_lock_behind(tmp_path: Path):
    report(write(tmp_path / "s", {"b": (9, 5, 1)}))
    assert list(tmp_path.iterdir()) == [tmp_path / "s"]


# --- money that is on the bill


def test_a_class_without_a_minimum_bills_what_is_stored(tmp_path: Path):
    found = report(write(tmp_path / "s", {"b": (1000, 400, 3)}))
    row = found.buckets[0]
    assert (row.billed_original_bytes.at_least, row.billed_original_bytes.at_most) == (1000, 1000)
    assert (row.billed_stored_bytes.at_least, row.billed_stored_bytes.at_most) == (400, 400)
    assert row.monthly_savings_usd == row.monthly_savings_usd_at_most


def test_small_objects_in_infrequent_access_claim_no_money(tmp_path: Path):
    path = write(tmp_path / "s", {"b": (100_000 * KIB, 20_000 * KIB, 100_000)})
    found = report(path, storage="STANDARD_IA")
    row = found.buckets[0]
    assert row.billed_stored_bytes.at_least == 100_000 * 128 * KIB
    assert row.savings_ratio == 0.8  # of bytes, which are saved
    assert found.total_monthly_savings_usd == 0.0
    assert found.storage_class == "STANDARD_IA"
    assert "131072 bytes" in note(found, "as at least")
    assert "--rescan" in note(found, "limits the bill")


def test_large_objects_in_infrequent_access_claim_almost_all(tmp_path: Path):
    path = write(tmp_path / "s", {"b": (1000 * GIB, 250 * GIB, 1000)})
    found = report(path, price=0.0125, storage="STANDARD_IA")
    assert 9.36 < found.total_monthly_savings_usd <= found.total_monthly_savings_usd_at_most
    assert math.isclose(found.total_monthly_savings_usd_at_most, 9.375)


def test_an_archive_adds_to_both_sides(tmp_path: Path):
    path = write(tmp_path / "s", {"b": (1000 * KIB, 250 * KIB, 10)})
    found = report(path, storage="DEEP_ARCHIVE")
    row = found.buckets[0]
    assert row.billed_original_bytes.at_most == (1000 + 400) * KIB
    assert row.billed_stored_bytes.at_least == (250 + 400) * KIB
    assert row.billed_stored_bytes.at_most == (250 + 800) * KIB
    assert "40960 bytes more" in note(found, "more for every stored object")


@given(
    objects=st.lists(
        st.tuples(st.integers(0, 600 * KIB), st.floats(0, 1), st.integers(0, 4000)), max_size=10
    ),
    storage=st.sampled_from([*CLASSES.values()]),
)
def test_the_bill_really_falls_by_what_lies_between_the_limits(
    objects: list[tuple[int, float, int]], storage: Any
):
    """Objects stored no larger than they were, some with a sidecar."""
    shrunk = [(size, int(size * share), sidecar) for size, share, sidecar in objects]
    before = sum(storage.billed(size) for size, _, _ in shrunk)
    after = sum(
        storage.billed(stored) + (storage.billed(sidecar) if sidecar else 0)
        for _, stored, sidecar in shrunk
    )
    counters = Counters(
        sum(size for size, _, _ in shrunk),
        sum(stored + sidecar for _, stored, sidecar in shrunk),
        len(shrunk),
    )
    measured = of_counters(counters, storage)
    assert measured.billed_original.at_least <= before <= measured.billed_original.at_most
    assert measured.billed_stored.at_least <= after <= measured.billed_stored.at_most
    saved = measured.billed_saved
    assert saved.at_least <= max(0, before - after) <= saved.at_most


@given(original=st.integers(0, 2**64 - 1), stored=st.integers(0, 2**64 - 1))
def test_ratio_and_money_are_finite_and_never_negative(original: int, stored: int):
    counters = Counters(original, stored, 1)
    for storage in CLASSES.values():
        saved = of_counters(counters, storage).billed_saved
        money = Pricing(0.023, storage).monthly(saved.at_most)
        assert 0 <= saved.at_least <= saved.at_most
        assert 0 <= money < math.inf
    assert 0 <= ratio(original, stored) <= 1
