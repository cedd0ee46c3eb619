"""The dataset format's page: its blocks are run, and its tables hold what the package does."""

from typing import Any

import pytest

from s4gateway.s3store import layout, patterns
from s4gateway.s3store.commit import Commit
from tests.docs import pages

_PAGE = pages.REFERENCE / "dataset-format.md"
_KEYS = layout.Keys("P")


@pytest.mark.parametrize("number", range(len(pages.to_run(_PAGE))))
def test_a_block_of_the_page_holds(number: int):
    namespace: dict[str, Any] = {}
    exec(pages.to_run(_PAGE)[number].text, namespace)  # noqa: S102 - the page is ours
    assert namespace


def test_every_object_stands_in_the_table_with_its_key():
    shown = " ".join(cell for row in pages.rows(_PAGE, "Objects") for cell in row)
    for key in (
        _KEYS.data("<partition>", "<token>", "<attempt>"),
        _KEYS.commit("<partition>", "<token>"),
        _KEYS.config(layout.COMMIT_TIMEOUT),
        _KEYS.config(layout.MAX_CLOCK_SKEW),
    ):
        assert f"`{key}`" in shown


def test_every_value_of_a_commit_marker_stands_in_the_table():
    shown = [row[0] for row in pages.rows(_PAGE, "Commit markers")]
    described = Commit("0" * 32, 1, 1, 1).to_metadata()
    assert [name.strip("`") for name in shown[1:]] == list(described)


def test_the_numbers_of_the_page_are_those_of_the_package():
    text = pages.prose(_PAGE)
    assert f"at most {layout.MAX_KEY_BYTES} bytes" in text
    assert f"view marker {layout.MAX_MARKER_BYTES}" in text
    assert f"1 to {layout.MAX_TOKEN_BYTES} characters" in text
    assert all(f"{each}" in text for each in patterns._REJECTED)
