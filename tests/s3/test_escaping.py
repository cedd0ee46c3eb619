import html
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.s3 import escaping


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_what_is_escaped_is_read_back(text: str):
    assert escaping.unescape(escaping.escape(text)) == text


@given(st.text(st.characters(min_codepoint=32, exclude_categories=("Cs", "Cc", "Cn"))))
def test_escaped_text_is_what_another_reader_sees(text: str):
    assert ET.fromstring(f"<a>{escaping.escape(text)}</a>").text == (text or None)  # noqa: S314


@pytest.mark.parametrize("control", [*map(chr, range(32)), "\x7f", "\ufffe", "\uffff"])
def test_controls_and_non_characters_become_references(control: str):
    assert escaping.escape(f"a{control}b") == f"a&#x{ord(control):x};b"


def test_plain_text_is_returned_as_it_is():
    text = "data/year=2024/ä/😀.parquet"
    assert escaping.escape(text) is text
    assert escaping.unescape(text) is text


@pytest.mark.parametrize("text", ["&lt;&gt;&amp;&quot;&apos;", "&amp;lt;", "&#60;&#x3C;&#x1F600;"])
def test_references_mean_what_html_takes_them_for(text: str):
    assert escaping.unescape(text) == html.unescape(text)


@pytest.mark.parametrize(
    "text",
    ["&", "a & b", "&nbsp;", "&lt", "&;", "&#;", "&#x;", "&#xD800;", "&#57343;", "&#x110000;"],
)
def test_what_is_no_reference_of_xml_is_an_error(text: str):
    with pytest.raises(ValueError, match=r"no character|chr\(\)"):
        escaping.unescape(text)
