import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.s3 import query
from s4gateway.s3.errors import S3Error

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(TEXT)
def test_quoting_and_unquoting_are_inverse(text: str):
    assert query.unquote(query.quote(text)) == text
    assert query.unquote(query.quote_path(text)) == text


@given(st.lists(st.tuples(TEXT.filter(bool), TEXT), max_size=8))
def test_formatting_and_parsing_are_inverse(pairs: list[tuple[str, str]]):
    assert query.parse_query(query.format_query(pairs)) == pairs


def test_only_the_unreserved_set_stays():
    reserved = "!\"#$%&'()*+,/:;<=>?@[\\]^`{|} "
    assert query.quote("AZaz09-._~") == "AZaz09-._~"
    assert query.quote(reserved) == "".join(f"%{ord(c):02X}" for c in reserved)


def test_a_path_keeps_slashes_and_dots():
    assert query.quote_path("//a/../b c") == "//a/../b%20c"


def test_plus_is_a_space_in_a_query_and_a_plus_in_a_path():
    assert query.parse_query("a+b=c+d%2B") == [("a b", "c d+")]
    assert query.unquote("a+b") == "a+b"


def test_empty_values_repeats_and_order_are_kept():
    assert query.parse_query("b=1&a&&a=&b=2=3") == [("b", "1"), ("a", ""), ("a", ""), ("b", "2=3")]
    assert query.parse_query("") == []


def test_decoding_happens_once():
    assert query.unquote("%252F") == "%2F"


def test_a_stray_percent_stands_for_itself():
    assert query.unquote("100%zz%") == "100%zz%"


@pytest.mark.parametrize("raw", ["%FF", "a=%C3%28", "%ED%A0%80=1"])
def test_bytes_that_are_no_utf8_are_refused(raw: str):
    with pytest.raises(S3Error) as caught:
        query.parse_query(raw)
    assert caught.value.code == "InvalidURI"
