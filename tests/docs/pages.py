"""The documentation as data: its pages, their code blocks, tables, headings and links.

A fenced block whose info string ends in the word `run` is executed by the tests; all others are
only shown. The parser knows the Markdown these pages use, not all of Markdown.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"

_FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_CELL = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced code block: its language, the other words of its info string, its text."""

    language: str
    words: tuple[str, ...]
    text: str


def all_pages() -> list[Path]:
    """Every page a reader may come to: docs/ and the Markdown files beside it."""
    return sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = []
    for info, text in _FENCE.findall(page.read_text()):
        language, *words = info.split() or [""]
        found.append(Block(language, tuple(words), text))
    return found


def to_run(page: Path) -> list[Block]:
    """The blocks a reader is meant to run, in order."""
    return [block for block in blocks(page) if "run" in block.words]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def links(page: Path) -> list[str]:
    """Link targets of a page."""
    return _LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """The anchors GitHub makes of a page's headings."""
    names = (re.sub(r"[^\w\- ]", "", text.lower()) for text in _HEADING.findall(prose(page)))
    return {name.replace(" ", "-") for name in names}


def rows(page: Path, section: str | None = None) -> Iterator[list[str]]:
    """The cells of every table row of a page, or of one section of it, header rows included."""
    for line in (prose(page) if section is None else section_of(page, section)).splitlines():
        if line.startswith("|") and not line.startswith("|---"):
            yield [cell.strip().replace("\\|", "|") for cell in _CELL.split(line)[1:-1]]


def section_of(page: Path, heading: str) -> str:
    """The text under a heading, up to the next one of its level or above."""
    pattern = rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,2}} |\Z)"
    found = re.search(pattern, prose(page), re.MULTILINE | re.DOTALL)
    assert found, f"{page.name} has no section {heading!r}"
    return found[2]


def words_in_code(text: str) -> set[str]:
    """What stands between backquotes."""
    return set(re.findall(r"`([^`\n]+)`", text))
