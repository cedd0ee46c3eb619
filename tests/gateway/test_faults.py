"""What clients are told of a fault, and what the log is told besides."""

import pytest

from s4gateway.backend.base import BackendAnswer
from s4gateway.gateway import faults


@pytest.mark.parametrize(
    ("message", "word"),
    [("All non-trailing parts must have the same length.", "uniform-parts"), ("Not found.", None)],
)
def test_a_refusal_that_another_profile_would_avoid_is_logged_with_the_flag(
    message: str, word: str | None
):
    fault = faults.translate(BackendAnswer(400, "InvalidPart", message), None)
    assert (fault.s3.status, fault.s3.code, fault.s3.message) == (400, "InvalidPart", message)
    event = None if word is None else f"the backend may need --backend-profile {word}"
    assert fault.event == event
