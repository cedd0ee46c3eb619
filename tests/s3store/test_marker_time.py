"""Times in the names of view markers."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from s4gateway.s3store import ConfigError, Layout

MOMENT = datetime(2026, 3, 17, 14, 4, 5, 120000, UTC)
ELSEWHERE = MOMENT.astimezone(timezone(timedelta(hours=5, minutes=30)))


@pytest.mark.parametrize(
    ("pattern", "text", "back"),
    [
        (Layout.RFC3339, "2026-03-17T14:04:05Z", MOMENT.replace(microsecond=0)),
        (Layout.RFC3339_NANO, "2026-03-17T14:04:05.12Z", MOMENT),
        ("%Y-%m-%d", "2026-03-17", datetime(2026, 3, 17, tzinfo=UTC)),
        ("%Y-%m-%dT%H%z", "2026-03-17T14+0000", datetime(2026, 3, 17, 14, tzinfo=UTC)),
    ],
)
def test_62_a_moment_is_written_in_utc_and_read_as_far_as_it_was_written(
    pattern: str, text: str, back: datetime
):
    layout = Layout(pattern)
    assert layout.format(MOMENT) == layout.format(ELSEWHERE) == text
    assert layout.parse(text) == back
    assert layout.parse(text).tzinfo is UTC


def test_a_whole_second_has_no_fraction_and_an_early_year_four_digits():
    early = datetime(33, 4, 5, tzinfo=UTC)
    assert Layout(Layout.RFC3339_NANO).format(early) == "0033-04-05T00:00:00Z"
    assert Layout("%Y-%%Y").format(early) == "0033-%Y"


def test_a_text_with_another_zone_is_read_in_utc():
    assert Layout(Layout.RFC3339).parse("2026-03-17T19:34:05+05:30") == MOMENT.replace(
        microsecond=0
    )


@pytest.mark.parametrize(
    "text",
    ["", "2026-03-17", "2026-03-17 14:04:05Z", "2026-03-17T14:04:05", "2026-13-01T00:00:00Z"],
)
def test_what_is_no_rfc_3339_time_is_refused(text: str):
    with pytest.raises(ValueError, match=r"RFC 3339|month"):
        Layout(Layout.RFC3339).parse(text)


@pytest.mark.parametrize("pattern", ["2006-01-02", "", "%Y/%m/%d", "%Y..%m"])
def test_a_layout_that_cannot_name_markers_is_refused(pattern: str):
    with pytest.raises(ConfigError, match="layout"):
        Layout(pattern)
