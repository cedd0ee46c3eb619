"""Links lead somewhere, the index is complete, and the pages keep the house's shape."""

from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs import pages

_PAGES = pages.all_pages()
_HOW_TO = sorted((pages.DOCS / "how-to").glob("*.md"))


def _name(page: Path) -> str:
    return str(page.relative_to(pages.ROOT))


@pytest.mark.parametrize("page", _PAGES, ids=_name)
def test_every_link_within_the_repository_leads_to_a_file_and_a_heading(page: Path):
    dead = []
    for link in pages.links(page):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        leads = target.exists() and target.is_relative_to(pages.ROOT)
        if leads and anchor and target.suffix == ".md":
            leads = anchor in pages.anchors(target)
        if not leads:
            dead.append(link)
    assert dead == []


def test_the_index_links_to_every_page():
    index = pages.DOCS / "README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in pages.links(index)}
    assert set(pages.DOCS.rglob("*.md")) - linked == {index}


@pytest.mark.parametrize("page", _HOW_TO, ids=_name)
def test_a_how_to_ends_with_what_it_does_not_do(page: Path):
    headings = [line for line in pages.prose(page).splitlines() if line.startswith("## ")]
    assert headings[-1] == "## What it does not do"


@pytest.mark.parametrize("page", sorted(pages.DOCS.rglob("*.md")), ids=_name)
def test_prose_stays_within_100_columns(page: Path):
    long = [
        line
        for line in pages.prose(page).splitlines()
        if len(line) > 100 and not line.startswith("|")
    ]
    assert long == []
