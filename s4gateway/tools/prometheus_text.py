r"""The samples of a Prometheus text page: as little of the format as judging dictionaries needs.

    name value
    name{label="value",...} value timestamp

Rule: any bytes give samples or none, never an error; a line that is not understood is left out, as
are comments. Inside label values ``\\``, ``\"`` and ``\n`` are escapes, other backslashes stand for
themselves. Types and help texts are not looked at.
https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

_BLANK: Final = " \t"
_name: Final = re.compile(r"[ \t]*([a-zA-Z_:][a-zA-Z0-9_:]*)[ \t]*").match
_label: Final = re.compile(
    r'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]|\\.)*)"[ \t]*([,}])', re.DOTALL
).match
_end_of_labels: Final = re.compile(r"[ \t]*}").match
_escape: Final = re.compile(r'\\([\\"n])')
# float() alone would also take underscores and the digits of other scripts.
_is_number: Final = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*(?:e[+-]?[0-9]+)?|\.[0-9]+(?:e[+-]?[0-9]+)?|inf|infinity|nan)",
    re.ASCII | re.IGNORECASE,
).fullmatch
_is_timestamp: Final = re.compile(r"-?[0-9]+", re.ASCII).fullmatch
_MEANING: Final = {"\\": "\\", '"': '"', "n": "\n"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured value; it may be infinite or not a number."""

    name: str
    labels: Mapping[str, str]
    value: float


def parse(page: bytes) -> Iterator[Sample]:
    r"""Yield the samples of a page in order; what is no UTF-8 is replaced.

    >>> [sample.value for sample in parse(b'# HELP up 1\nup 1\nhits{to="a\\nb"} 2 1395066363000')]
    [1.0, 2.0]
    """
    # Only \n ends a line: str.splitlines would cut label values at U+2028 and its like.
    for line in page.decode("utf-8", "replace").split("\n"):
        sample = parse_sample(line)
        if sample is not None:
            yield sample


def parse_sample(line: str) -> Sample | None:
    r"""Return the sample of a line; None for a comment and for what is not understood.

    >>> parse_sample('hits{to="say \\"hi\\"",from="\\x"} 2')
    Sample(name='hits', labels={'to': 'say "hi"', 'from': '\\x'}, value=2.0)
    """
    named = _name(line)
    if named is None:
        return None
    position = named.end()
    labels: dict[str, str] | None = {}
    if line.startswith("{", position):
        labels, position = _labels(line, position + 1)
    elif line[position - 1] not in _BLANK:
        return None
    words = line[position:].strip(" \t\r").split(" ")
    words = [word for part in words for word in part.split("\t") if word]
    if labels is None or not 1 <= len(words) <= 2 or not _is_number(words[0]):
        return None
    if len(words) == 2 and not _is_timestamp(words[1]):
        return None
    return Sample(named[1], labels, float(words[0]))


def _labels(line: str, position: int) -> tuple[dict[str, str] | None, int]:
    """The labels up to the closing brace, and where they end; None when they are malformed."""
    found: dict[str, str] = {}
    while True:
        if (end := _end_of_labels(line, position)) is not None:
            return found, end.end()
        label = _label(line, position)
        if label is None or label[1] in found:
            return None, position
        found[label[1]] = _escape.sub(lambda match: _MEANING[match[1]], label[2])
        if label[3] == "}":
            return found, label.end()
        position = label.end()
