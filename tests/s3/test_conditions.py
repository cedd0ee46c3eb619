from datetime import UTC, datetime, timedelta, timezone
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from s4gateway.s3 import conditions
from s4gateway.s3.conditions import EntityTags, ReadConditions, Verdict
from s4gateway.s3.headers import Headers

MODIFIED = datetime(2024, 5, 6, 7, 8, 9, 500_000, tzinfo=UTC)
EXACTLY = "Mon, 06 May 2024 07:08:09 GMT"
BEFORE = "Mon, 06 May 2024 07:08:08 GMT"
AFTER = "Mon, 06 May 2024 07:08:10 GMT"

OK, NOT_MODIFIED, FAILED = Verdict.OK, Verdict.NOT_MODIFIED, Verdict.PRECONDITION_FAILED


def verdict(etag: str | None = "e", modified: datetime | None = MODIFIED, **named: str) -> Verdict:
    headers = Headers({name.replace("_", "-"): value for name, value in named.items()})
    return ReadConditions.parse(headers).evaluate(etag, modified)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('"e"', OK),
        ("e", OK),
        ("*", OK),
        ('"x", "e"', OK),
        ('"x",e', OK),
        ('"x"', FAILED),
        ('W/"e"', FAILED),
        ('"*"', FAILED),
        ('"x, e"', FAILED),
        ("", OK),
        (" , ", OK),
    ],
)
def test_if_match_wants_one_strong_tag(value: str, expected: Verdict):
    assert verdict(if_match=value) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('"e"', NOT_MODIFIED),
        ("e", NOT_MODIFIED),
        ("*", NOT_MODIFIED),
        ('W/"e"', NOT_MODIFIED),
        ('"x" , W/"y",\t"e"', NOT_MODIFIED),
        ('"x"', OK),
        ("", OK),
    ],
)
def test_if_none_match_compares_weakly(value: str, expected: Verdict):
    assert verdict(if_none_match=value) is expected


@pytest.mark.parametrize(
    ("value", "since", "unmodified_since"),
    [
        (BEFORE, OK, FAILED),
        (EXACTLY, NOT_MODIFIED, OK),
        (AFTER, NOT_MODIFIED, OK),
        ("yesterday", OK, OK),
        ("", OK, OK),
    ],
)
def test_dates_count_in_whole_seconds_and_are_ignored_when_unreadable(
    value: str, since: Verdict, unmodified_since: Verdict
):
    assert verdict(if_modified_since=value) is since
    assert verdict(if_unmodified_since=value) is unmodified_since


def test_if_match_beats_if_unmodified_since():
    assert verdict(if_match='"e"', if_unmodified_since=BEFORE) is OK
    assert verdict(if_match='"x"', if_unmodified_since=AFTER) is FAILED


def test_if_none_match_beats_if_modified_since():
    assert verdict(if_none_match='"e"', if_modified_since=BEFORE) is NOT_MODIFIED
    assert verdict(if_none_match='"x"', if_modified_since=AFTER) is OK


def test_a_failed_precondition_comes_before_not_modified():
    assert verdict(if_match='"x"', if_none_match='"e"') is FAILED
    assert verdict(if_unmodified_since=BEFORE, if_none_match='"e"') is FAILED


def test_every_combination_follows_the_steps_of_rfc_9110():
    tags, dates = [None, '"e"', '"x"'], [None, BEFORE, AFTER]
    for match, none_match, since, unmodified in product(tags, tags, dates, dates):
        headers = {
            "if-match": match,
            "if-none-match": none_match,
            "if-modified-since": since,
            "if-unmodified-since": unmodified,
        }
        given_headers = {name: value for name, value in headers.items() if value is not None}
        expected = OK
        if match == '"x"' or (match is None and unmodified == BEFORE):
            expected = FAILED
        elif none_match == '"e"' or (none_match is None and since == AFTER):
            expected = NOT_MODIFIED
        found = ReadConditions.parse(Headers(given_headers)).evaluate("e", MODIFIED)
        assert found is expected, given_headers


def test_an_object_without_an_etag_matches_only_the_star():
    assert verdict(etag=None, if_match='"e"') is FAILED
    assert verdict(etag=None, if_match="*") is OK
    assert verdict(etag=None, if_none_match='"e"') is OK
    assert verdict(etag=None, if_none_match="*") is NOT_MODIFIED


def test_an_objects_weak_etag_never_satisfies_if_match():
    assert verdict(etag='W/"e"', if_match='"e"') is FAILED
    assert verdict(etag='W/"e"', if_none_match='"e"') is NOT_MODIFIED


def test_a_quoted_etag_of_the_object_is_the_same_as_a_bare_one():
    assert verdict(etag='"e"', if_match="e") is OK


def test_an_object_without_a_time_passes_conditions_on_it():
    assert verdict(modified=None, if_modified_since=AFTER) is OK
    assert verdict(modified=None, if_unmodified_since=BEFORE) is OK


def test_no_condition_is_one_shared_value():
    assert ReadConditions.parse(Headers({"host": "x"})) is conditions.UNCONDITIONAL


def test_a_copy_reads_the_conditions_on_its_source():
    headers = Headers({"x-amz-copy-source-if-match": '"x"', "if-match": '"e"'})
    parsed = ReadConditions.parse(headers, "x-amz-copy-source-")
    assert parsed.if_match == EntityTags(any=False, strong=frozenset({"x"}), weak=frozenset())


def test_tags_may_hold_commas_and_repeat_over_header_fields():
    headers = Headers([("if-match", '"a,b"'), ("if-match", '"c"')])
    parsed = ReadConditions.parse(headers).if_match
    assert parsed is not None
    assert parsed.strong == {"a,b", "c"}


@given(st.text(max_size=60) | st.text('W/", \t*a', max_size=60))
def test_no_tag_list_is_an_error(header: str):
    EntityTags.parse(header)


@given(st.text(max_size=60))
@example("Sun, 31 Feb 2021 00:00:00 GMT")
@example("Sun, 06 Nov 0000 08:49:37 GMT")
@example("Fri, 31 Dec 9999 23:59:59 -2359")
@example("Mon, 06 May 99999999999999999999 07:08:09 GMT")
def test_no_date_is_an_error(header: str):
    parsed = conditions.parse_date(header)
    assert parsed is None or parsed.tzinfo is UTC


@pytest.mark.parametrize(
    "header",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun, 06 Nov 1994 09:49:37 +0100",
    ],
)
def test_all_forms_of_a_date_are_read(header: str):
    assert conditions.parse_date(header) == datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)


@pytest.mark.parametrize(
    ("if_range", "applies"),
    [
        (None, True),
        ('"e"', True),
        (' "e" ', True),
        ("e", True),
        ('"x"', False),
        ('W/"e"', False),
        (EXACTLY, True),
        (BEFORE, False),
        (AFTER, False),
        ("*", False),
        ("", False),
    ],
)
def test_a_range_holds_only_for_the_version_it_was_asked_of(if_range: str | None, applies: bool):
    assert conditions.range_applies(if_range, "e", MODIFIED) is applies


def test_if_range_needs_a_strong_validator_on_both_sides():
    assert not conditions.range_applies('"e"', 'W/"e"', MODIFIED)
    assert not conditions.range_applies('"e"', None, MODIFIED)
    assert not conditions.range_applies(EXACTLY, "e", None)


def test_times_of_other_zones_compare_as_moments():
    elsewhere = MODIFIED.astimezone(timezone(timedelta(hours=9)))
    assert conditions.range_applies(EXACTLY, "e", elsewhere)
