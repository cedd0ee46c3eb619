"""Writes that meet trouble, with everything that is not scripted done by a moto server."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.s3store import world
from tests.s3store.test_write_faults import (  # noqa: F401 - collected here once more
    face,
    test_19_a_refused_marker_with_an_earlier_commit_is_that_commit,
    test_19_a_refused_marker_without_an_earlier_commit_is_a_refusal,
    test_20_a_412_caused_by_our_own_lost_answer_is_plain_success,
    test_21_a_commit_whose_every_answer_was_lost_is_found,
    test_22_data_whose_answer_was_lost_is_stored_whole,
    test_25_26_a_step_that_fails_ends_the_write_and_says_which,
    test_27_a_commit_after_its_time_is_durable_and_says_so,
    test_28_a_reader_past_a_late_commit_gets_it_by_a_restamp,
    test_29_a_late_restamp_is_told_with_the_new_result,
    test_32_when_nothing_landed_the_failure_itself_is_raised,
)


@pytest.fixture
async def backing(moto: Any) -> AsyncIterator[world.Backing]:
    made = world.Backing.boto3(moto.client, moto.bucket)
    yield made
    await made.transport.aclose()
