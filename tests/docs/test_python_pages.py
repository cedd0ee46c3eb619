"""The pages on the Python packages name what is there, and nothing else."""

import inspect
import json
import re

from s4gateway import s4fs
from s4gateway.codecs import face
from tests.docs import pages

_S4FS = pages.REFERENCE / "s4fs.md"
_CODEC = pages.REFERENCE / "codec.md"


def _own_options() -> dict[str, object]:
    parameters = inspect.signature(s4fs.S4FileSystem.__init__).parameters.values()
    return {
        each.name: each.default
        for each in parameters
        if each.kind is not inspect.Parameter.VAR_KEYWORD and each.name != "self"
    }


def test_every_option_of_the_filesystem_has_its_line_with_its_default():
    _, *rows = pages.rows(_S4FS, "Options")
    assert {row[0].strip("`"): row[1].strip("`") for row in rows} == {
        name: "none"
        if default is None
        else json.dumps(default).capitalize()
        if isinstance(default, bool)
        else json.dumps(default)
        for name, default in _own_options().items()
    }


def test_every_refusal_of_the_filesystem_is_listed():
    listed = pages.words_in_code(pages.prose(_S4FS))
    assert [name for name in s4fs.__all__ if name.endswith("Error") and name not in listed] == []


def test_every_name_of_the_codec_api_is_on_its_page():
    named = set(re.findall(r"\w+", pages.prose(_CODEC)))
    assert [name for name in face.__all__ if name not in named] == []
