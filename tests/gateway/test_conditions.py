"""What becomes of a client's condition: which one the backend is asked, and who gets no promise."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from s4gateway.backend.base import BackendAnswer, BackendUnavailable
from s4gateway.backend.conditional import ConditionalWrites
from s4gateway.backend.memory import MemoryBackend
from s4gateway.backend.probe import ConditionalVerb
from s4gateway.gateway import conditions
from s4gateway.s3 import etag
from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import Headers
from s4gateway.s3.operations import Operation
from tests import corpus
from tests.backends import CountingBackend, FaultyBackend
from tests.objects.world import BUCKET, Instance

PUT, DELETE = Operation.PutObject, Operation.DeleteObject
COMPLETE, COPY = Operation.CompleteMultipartUpload, Operation.CopyObject
BODY = corpus.text(3000)


@dataclass
class World:
    """One gateway over one store, where `there` exists and `missing` does not."""

    declared: bool | None = True
    store: MemoryBackend = field(default_factory=lambda: MemoryBackend.with_buckets(BUCKET))

    def __post_init__(self) -> None:
        self.backend = FaultyBackend(self.store)
        self.one = Instance(self.backend)
        self.conditional = ConditionalWrites(self.backend, self.declared)

    async def begin(self) -> "World":
        await self.one.put("there", BODY)
        self.logical = etag.quote((await self.one.encode(BODY)).manifest.logical_etag or "")
        self.stored = etag.quote(self.store.buckets[BUCKET]["there"].etag)
        assert self.logical != self.stored
        return self

    def context(self, headers: dict[str, str], key: str, operation: Operation) -> Any:
        services = SimpleNamespace(reader=self.one.reader, conditional=self.conditional)
        return SimpleNamespace(
            headers=Headers(headers), operation=operation, backend=self.backend, services=services,
            bucket=BUCKET, key=key, name=(BUCKET, key), query={},
        )  # fmt: skip

    async def ask(
        self, headers: dict[str, str], key: str = "there", operation: Operation = PUT
    ) -> list[tuple[str, str]] | tuple[int, str]:
        """The backend's conditions, or status and code of the refusal."""
        try:
            return await conditions.write_conditions(self.context(headers, key, operation))
        except S3Error as error:
            return error.status, error.code


FAILED = (412, "PreconditionFailed")
MISSING = (404, "NoSuchKey")
REFUSED = (501, "NotImplemented")
ANY = [("if-none-match", "*")]


async def test_conditions_are_translated_to_the_backends_etag():
    world = await World().begin()
    logical, stored = world.logical, [("if-match", world.stored)]
    for headers, there, missing in (
        ({}, [], []),
        ({"If-None-Match": "*"}, ANY, ANY),
        ({"If-None-Match": " * "}, ANY, ANY),
        ({"If-None-Match": logical}, FAILED, ANY),
        ({"If-None-Match": f"W/{logical}"}, FAILED, ANY),
        ({"If-None-Match": '"other"'}, stored, ANY),
        ({"If-None-Match": world.stored}, stored, ANY),
        ({"If-Match": logical}, stored, MISSING),
        ({"If-Match": logical.strip('"')}, stored, MISSING),
        ({"If-Match": f'"other", {logical}'}, stored, MISSING),
        ({"If-Match": "*"}, stored, MISSING),
        ({"If-Match": f"W/{logical}"}, FAILED, MISSING),
        ({"If-Match": world.stored}, FAILED, MISSING),
        ({"If-Match": ""}, FAILED, MISSING),
        ({"If-Match": logical, "If-None-Match": "*"}, REFUSED, REFUSED),
        ({"If-Unmodified-Since": "Sun, 06 Nov 1994 08:49:37 GMT"}, REFUSED, REFUSED),
    ):
        for operation in (PUT, COPY, COMPLETE):
            assert await world.ask(headers, "there", operation) == there, (headers, operation)
            assert await world.ask(headers, "missing", operation) == missing, (headers, operation)


async def test_a_deletion_of_what_is_not_there_is_the_backends_to_answer():
    world = await World().begin()
    stored = [("if-match", world.stored)]
    for headers, there, missing in (
        ({"If-Match": world.logical}, stored, [("if-match", world.logical)]),
        ({"If-Match": "*"}, [("if-match", "*")], [("if-match", "*")]),
        ({"If-Match": '"other"'}, FAILED, [("if-match", '"other"')]),
        ({"If-None-Match": "*"}, REFUSED, REFUSED),
        ({"x-amz-if-match-size": "3000"}, REFUSED, REFUSED),
        ({"x-amz-if-match-last-modified-time": "2026-01-01T00:00:00Z"}, REFUSED, REFUSED),
    ):
        assert await world.ask(headers, "there", DELETE) == there, headers
        assert await world.ask(headers, "missing", DELETE) == missing, headers


@pytest.mark.parametrize("operation", [PUT, DELETE, COPY, COMPLETE])
async def test_a_backend_without_conditional_writes_is_asked_for_none(operation: Operation):
    world = await World(declared=False).begin()
    world.backend.calls.clear()
    assert await world.ask({}, operation=operation) == []
    with pytest.raises(S3Error, match="--backend-profile no-conditional-writes") as caught:
        await conditions.write_conditions(
            world.context({"If-Match": world.logical}, "there", operation)
        )
    assert caught.value.status == 501
    assert world.backend.calls == []


@pytest.mark.parametrize(
    ("operation", "verbs"),
    [
        (PUT, {ConditionalVerb.PUT, ConditionalVerb.DELETE}),
        (DELETE, {ConditionalVerb.PUT, ConditionalVerb.DELETE}),
        (COMPLETE, {ConditionalVerb.COMPLETE}),
        (COPY, set(ConditionalVerb)),
    ],
)
async def test_what_nobody_said_is_found_out_when_it_is_needed(
    operation: Operation, verbs: set[ConditionalVerb]
):
    world = await World(declared=None).begin()
    assert await world.ask({}, operation=operation) == []
    assert all(world.conditional.known(verb) is None for verb in ConditionalVerb)
    assert await world.ask({"If-Match": world.logical}, operation=operation) == [
        ("if-match", world.stored)
    ]
    assert {verb for verb in ConditionalVerb if world.conditional.known(verb)} == verbs
    assert list(world.store.buckets[BUCKET]) == ["there"]


async def test_a_backend_that_ignores_conditions_is_given_none():
    world = await World(declared=None).begin()

    class Credulous(CountingBackend):
        async def put(self, bucket: str, key: str, body: Any, headers: Any = ()) -> Any:
            return await super().put(bucket, key, body)

    world.conditional = ConditionalWrites(Credulous(world.store))
    with pytest.raises(S3Error, match="did not refuse a PutObject") as caught:
        await conditions.write_conditions(world.context({"If-None-Match": "*"}, "new", PUT))
    assert caught.value.status == 501
    assert await world.ask({"If-Match": world.logical}, operation=DELETE) != REFUSED


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (BackendAnswer(403, "AccessDenied"), REFUSED),
        (BackendAnswer(404, "NoSuchBucket"), (404, "NoSuchBucket")),
        (BackendAnswer(503, "SlowDown"), (503, "SlowDown")),
        (BackendUnavailable("reset"), None),
    ],
)
async def test_what_could_not_be_found_out_is_not_promised(
    fault: Exception, expected: tuple[int, str] | None
):
    world = await World(declared=None).begin()
    world.backend.fault = lambda call: fault if call.verb == "put" else None
    with pytest.raises((S3Error, BackendAnswer, BackendUnavailable)) as caught:
        await conditions.write_conditions(world.context({"If-None-Match": "*"}, "new", PUT))
    error: Any = caught.value
    if expected is not None:
        assert (error.status, error.code) == expected
    if expected == REFUSED:
        assert "--backend-profile" in str(error)
    world.backend.fault = lambda call: None
    assert await world.ask({"If-None-Match": "*"}, "new") == ANY


def refused(headers: dict[str, str], status: int) -> Exception:
    context: Any = SimpleNamespace(headers=Headers(headers))
    with pytest.raises((S3Error, BackendAnswer)) as caught, conditions.conflicts(context):
        raise BackendAnswer(status, "PreconditionFailed", "", Headers([]), b"")
    return caught.value


@pytest.mark.parametrize("headers", [{"if-match": '"a"'}, {"if-none-match": " * "}, {}])
def test_a_condition_sent_on_as_it_is_fails_as_the_backend_says(headers: dict[str, str]):
    error = refused(headers, 412)
    assert isinstance(error, BackendAnswer)


@pytest.mark.parametrize(
    "headers", [{"if-none-match": '"a"'}, {"if-match": "*"}, {"if-match": '"a", "b"'}]
)
def test_a_state_that_changed_while_the_condition_may_still_hold_is_a_conflict(
    headers: dict[str, str],
):
    error = refused(headers, 412)
    assert isinstance(error, S3Error)
    assert (error.code, error.status) == ("ConditionalRequestConflict", 409)


def test_other_answers_are_left_alone():
    assert isinstance(refused({"if-none-match": '"a"'}, 503), BackendAnswer)
