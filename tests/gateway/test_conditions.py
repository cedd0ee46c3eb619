"""Whose refusal a 412 of the backend is: the client's condition, or a state that changed."""

from types import SimpleNamespace
from typing import Any

import pytest

from s4gateway.backend.base import BackendAnswer
from s4gateway.gateway import conditions
from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import Headers


def refused(headers: dict[str, str], status: int) -> Exception:
    context: Any = SimpleNamespace(headers=Headers(headers))
    with pytest.raises((S3Error, BackendAnswer)) as caught, conditions.conflicts(context):
        raise BackendAnswer(status, "PreconditionFailed", "", Headers([]), b"")
    return caught.value


@pytest.mark.parametrize("headers", [{"if-match": '"a"'}, {"if-none-match": " * "}, {}])
def test_a_condition_sent_on_as_it_is_fails_as_the_backend_says(headers: dict[str, str]):
    error = refused(headers, 412)
    assert isinstance(error, BackendAnswer)


def test_an_object_that_changed_while_another_etag_was_excluded_is_a_conflict():
    error = refused({"if-none-match": '"a"'}, 412)
    assert isinstance(error, S3Error)
    assert (error.code, error.status) == ("ConditionalRequestConflict", 409)


def test_other_answers_are_left_alone():
    assert isinstance(refused({"if-none-match": '"a"'}, 503), BackendAnswer)
