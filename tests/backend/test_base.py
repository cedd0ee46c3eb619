from datetime import UTC, datetime

import pytest

from s4gateway.backend import base
from s4gateway.s3.headers import Headers


def head(status: int = 200, **fields: str) -> base.Head:
    return base.Head(status, Headers({n.replace("_", "-"): v for n, v in fields.items()}))


def test_an_etag_is_bare():
    assert head(etag='"abc"').etag == "abc"
    assert head(etag='W/"abc"').etag == "abc"
    assert head().etag == ""


def test_the_size_is_that_of_the_whole_object():
    assert head(content_length="5").size == 5
    ranged = head(206, content_length="2", content_range="bytes 0-1/5")
    assert (ranged.size, ranged.content_length) == (5, 2)


@pytest.mark.parametrize(
    "answer",
    [
        head(),
        head(content_length="-1"),
        head(content_length="1,2"),
        head(content_length="\u0661"),
        head(206, content_length="2"),
        head(206, content_length="2", content_range="bytes 0-1/*"),
    ],
)
def test_a_size_that_is_not_told_is_no_size(answer: base.Head):
    with pytest.raises(base.BackendProtocolError):
        _ = answer.size


def test_a_length_that_is_no_number_is_none():
    assert head(content_length="x").content_length is None
    assert head().content_length is None


def test_metadata_has_lower_case_names_without_prefix():
    answer = head(
        **{"X-Amz-Meta-S4-Codec": "cpu-zstd", "x_amz_version_id": "v", "content_type": "t"}
    )
    assert answer.metadata == {"s4-codec": "cpu-zstd"}
    assert (answer.version_id, answer.content_type) == ("v", "t")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)),
        ("Sun, 06 Nov 1994 08:49:37 -0000", datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)),
        ("yesterday", None),
        ("Fri, 31 Dec 9999 23:59:59 -0100", None),
        ("", None),
        (None, None),
    ],
)
def test_dates_are_in_utc_or_none(text: str | None, moment: datetime | None):
    assert base.parse_date(text) == moment
    fields = {} if text is None else {"last_modified": text}
    assert head(**fields).last_modified == moment


def test_an_answer_says_what_it_was():
    answer = base.BackendAnswer(404, "NoSuchKey", "gone", Headers({"a": "b"}), b"<Error/>")
    assert str(answer) == "404 NoSuchKey: gone"
    assert answer.missing
    assert not base.BackendAnswer(403, "AccessDenied").missing
    assert base.BackendAnswer(403, "AccessDenied").headers.items() == []
