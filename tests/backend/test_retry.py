from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.backend import base, retry

ONCE = base.Body(1, b"x", replayable=False)


@pytest.mark.parametrize(
    ("method", "headers", "body", "repeatable"),
    [
        ("GET", [], None, True),
        ("HEAD", [], None, True),
        ("GET", [("If-Match", '"x"')], None, True),
        ("DELETE", [], None, True),
        ("DELETE", [("if-match", '"x"')], None, False),
        ("PUT", [], None, True),
        ("PUT", [("content-type", "t/t")], base.EMPTY, True),
        ("PUT", [], ONCE, False),
        ("PUT", [("If-None-Match", "*")], base.EMPTY, False),
        ("PUT", [("if-match", '"x"')], base.EMPTY, False),
        ("POST", [], None, False),
        ("POST", [], base.EMPTY, False),
    ],
)
def test_what_may_be_sent_twice(
    method: str, headers: base.HeaderList, body: base.Body | None, repeatable: bool
):
    assert retry.is_repeatable(method, headers, body) is repeatable


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("0", 0),
        ("7", 7),
        ("-1", 0),
        ("1.5", 0),
        ("soon", 0),
        ("9" * 400, 0),
        ("Thu, 01 Jan 2026 00:00:30 GMT", 30),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float):
    assert retry.parse_retry_after(value, datetime(2026, 1, 1, tzinfo=UTC)) == seconds


@given(failed=st.integers(1, 2000), jitter=st.floats(0, 0.999))
def test_waits_grow_within_their_bounds(failed: int, jitter: float):
    policy = retry.RetryPolicy(attempts=10**6, max_delay=2, jitter=lambda: jitter)
    wait = policy.delay(failed, 0)
    assert wait is not None
    assert 0 <= wait <= min(2, 0.1 * 2 ** min(failed - 1, 9))


def test_attempts_end():
    policy = retry.RetryPolicy(attempts=3)
    assert [policy.delay(failed, 0) is None for failed in (1, 2, 3, 4)] == [
        False,
        False,
        True,
        True,
    ]
    assert retry.NEVER.delay(1, 0) is None


def test_the_store_s_own_wait_is_kept_or_the_attempts_end():
    policy = retry.RetryPolicy(deadline=10, jitter=lambda: 0)
    assert policy.delay(1, 0, 4) == 4
    assert policy.delay(1, 7, 4) is None
    assert policy.delay(1, 11) is None
