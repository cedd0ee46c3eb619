import pytest

from s4gateway.s3 import headers as s3_headers
from s4gateway.s3.headers import Headers, HeaderSource, RequestHead


def test_lookup_ignores_case_and_joins_repeats():
    headers = Headers([(b"Host", b"h"), (b"x-a", b"1"), (b"X-A", b"2"), (b"x-a", b"3")])
    assert headers["HOST"] == "h"
    assert headers.get("X-A") == headers.get("x-a") == "1,2,3"
    assert headers.getall("X-a") == ["1", "2", "3"]
    assert "hOST" in headers
    assert "etag" not in headers
    assert 7 not in headers
    assert headers.get("etag") is None
    assert headers.get("etag", "none") == "none"
    with pytest.raises(KeyError):
        headers["etag"]


def test_order_and_repeats_are_kept():
    headers = Headers([("B", "1"), ("a", "2"), ("b", "3")])
    assert headers.items() == [("b", "1"), ("a", "2"), ("b", "3")]
    assert headers.raw == [(b"b", b"1"), (b"a", b"2"), (b"b", b"3")]
    assert list(headers) == ["b", "a"]
    assert len(headers) == 3


@pytest.mark.parametrize("source", [(), {}, []])
def test_no_headers_at_all(source: HeaderSource):
    headers = Headers(source)
    assert headers.raw == []
    assert headers.items() == []
    assert headers.get("host") is None


def test_a_mapping_a_list_of_lists_and_raw_pairs_are_equal():
    raw = Headers([(b"ETag", b'"x"')])
    assert raw == Headers({"etag": '"x"'}) == Headers([["ETAG", '"x"']])
    assert raw != Headers()
    assert raw != [("etag", '"x"')]


def test_an_iterator_is_read_once_for_text_and_raw():
    headers = Headers(iter([("a", "1")]))
    assert headers.raw == [(b"a", b"1")]
    assert headers.items() == [("a", "1")]


def test_utf8_is_text_and_other_bytes_are_latin1():
    headers = Headers([(b"x-amz-meta-a", "Zürich".encode()), (b"x-amz-meta-b", b"Z\xfcrich")])
    assert s3_headers.user_metadata(headers) == {"a": "Zürich", "b": "Zürich"}
    assert headers.raw[1] == (b"x-amz-meta-b", b"Z\xfcrich")


def test_text_becomes_utf8_on_the_wire():
    assert Headers({"X-Amz-Meta-A": "日本"}).raw == [(b"x-amz-meta-a", "日本".encode())]
    assert s3_headers.to_raw([("A", "é")]) == [(b"a", b"\xc3\xa9")]


def test_user_metadata_drops_the_prefix_and_joins_repeats():
    headers = Headers([("x-amz-meta-Tag", "1"), ("X-Amz-Meta-tag", "2"), ("x-amz-acl", "private")])
    assert s3_headers.user_metadata(headers) == {"tag": "1,2"}


def test_repr_shows_no_values():
    text = repr(Headers({"Authorization": "secret", "Host": "h"}))
    assert text == "Headers(['authorization', 'host'])"


def test_a_request_head_decodes_its_query_once():
    head = RequestHead("GET", "/b", "prefix=a%2Fb&acl", Headers())
    assert head.query == [("prefix", "a/b"), ("acl", "")]
    assert head.query is head.query
    assert head == RequestHead("GET", "/b", "prefix=a%2Fb&acl", Headers())


def test_a_request_without_query_parses_once_too():
    head = RequestHead("GET", "/b", "", Headers())
    assert head.query == []
    assert head.query is head.query
