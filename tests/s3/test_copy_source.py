"""x-amz-copy-source as clients write it, decoded exactly once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.s3 import copy_source, query
from s4gateway.s3.copy_source import CopySource
from s4gateway.s3.errors import S3Error


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bucket/key", ("bucket", "key", None)),
        ("/bucket/key", ("bucket", "key", None)),
        ("bucket//key/", ("bucket", "/key/", None)),
        ("bucket%2Fdir%2Fkey", ("bucket", "dir/key", None)),
        ("%2Fbucket%2Fkey", ("bucket", "key", None)),
        ("bucket/a%20b+c%2Bd", ("bucket", "a b c+d", None)),
        ("bucket/100%25", ("bucket", "100%", None)),
        ("bucket/100%", ("bucket", "100%", None)),
        ("bucket/a%252Fb", ("bucket", "a%2Fb", None)),
        ("bucket/key?versionId=v1", ("bucket", "key", "v1")),
        ("bucket/key?versionId=null", ("bucket", "key", "null")),
        ("bucket/key?versionId=a%2Fb", ("bucket", "key", "a/b")),
        ("bucket/%3FversionId%3D1", ("bucket", "?versionId=1", None)),
        ("bucket/%3FversionId=1?versionId=2", ("bucket", "?versionId=1", "2")),
        ("bucket/what?", ("bucket", "what?", None)),
        ("bucket/gr%C3%BC%C3%9Fe", ("bucket", "grüße", None)),
        ("bucket/grüße", ("bucket", "grüße", None)),
        ("bucket/../other", ("bucket", "../other", None)),
    ],
)
def test_a_source_is_read_as_it_is_meant(header: str, expected: tuple[str, str, str | None]):
    assert copy_source.parse(header) == CopySource(*expected)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("", "InvalidArgument"),
        ("/", "InvalidArgument"),
        ("bucket", "InvalidArgument"),
        ("bucket/", "InvalidArgument"),
        ("/bucket/", "InvalidArgument"),
        ("//key", "InvalidArgument"),
        ("b/key", "InvalidArgument"),
        ("buc ket/key", "InvalidArgument"),
        ("b%2561cket/key", "InvalidArgument"),
        ("bucket/key?versionId=", "InvalidArgument"),
        ("bucket/%FF", "InvalidArgument"),
        ("bucket/a%00b", "InvalidArgument"),
        ("bucket/" + "k" * 1025, "KeyTooLongError"),
        ("arn:aws:s3:us-east-1:1:accesspoint/ap/object/key", "NotImplemented"),
    ],
)
def test_what_names_no_object_is_refused(header: str, code: str):
    with pytest.raises(S3Error) as caught:
        copy_source.parse(header)
    assert caught.value.code == code


KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(
    KEYS.filter(lambda key: len(key.encode()) <= 1024), st.none() | st.text("ab/+ %", min_size=1)
)
def test_what_clients_encode_comes_back(key: str, version: str | None):
    header = f"bucket/{query.quote_path(key)}"
    if version is not None:
        header += f"?versionId={query.quote(version)}"
    found = copy_source.parse(header)
    assert found == CopySource("bucket", key, version)
    assert query.parse_query(found.query) == ([] if version is None else [("versionId", version)])
    assert query.unquote(found.address.raw_key or "") == key
