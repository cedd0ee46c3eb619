"""The dataset library's page: its tables hold every call, error and instrument, and no other."""

import inspect

from s4gateway import s3store
from s4gateway.s3store import AsyncReader, AsyncWriter, errors, instruments, telemetry
from tests.docs import pages

_PAGE = pages.REFERENCE / "datasets.md"
_NO_CALLS = {"aclose"}


def _first_cells(section: str) -> list[str]:
    return [row[0] for row in pages.rows(_PAGE, section)]


def test_every_call_stands_in_the_table_of_costs():
    shown = set().union(*map(pages.words_in_code, _first_cells("Calls")))
    methods = {
        name
        for kind in (AsyncReader, AsyncWriter)
        for name, _ in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }
    functions = {"backfill_view", "init_dataset", "lookup", "narrow", "open"}
    assert shown - {"token", "optimistic"} == (methods | functions) - _NO_CALLS


def test_every_error_stands_in_the_table_of_errors_and_can_be_imported():
    shown = [cell.strip("`") for cell in _first_cells("Errors")][1:]
    known = {
        name
        for name, each in vars(errors).items()
        if inspect.isclass(each) and issubclass(each, errors.S3StoreError)
    }
    assert sorted(shown) == sorted(known - {"S3StoreError"})
    assert known <= set(s3store.__all__)


def test_every_instrument_stands_in_the_table_with_kind_unit_and_meaning():
    kinds = {
        "histogram": instruments.HISTOGRAMS,
        "counter": instruments.COUNTERS,
        "up-down counter": instruments.UP_DOWN_COUNTERS,
    }
    shown = [
        (row[0].strip("`"), row[1], row[2].strip("`"), row[4])
        for row in pages.rows(_PAGE, "Metrics")
        if len(row) == 5
    ][1:]
    assert sorted(shown) == sorted(
        (name, kind, each.unit, each.description)
        for kind, declared in kinds.items()
        for name, each in declared.items()
    )


def test_every_type_of_error_that_is_counted_stands_in_the_table():
    (values,) = [row[1] for row in pages.rows(_PAGE, "Metrics") if row[0] == "`error.type`"]
    assert pages.words_in_code(values) == {
        *(name for _, name in telemetry._TYPES),
        "canceled",
        "other",
    }
