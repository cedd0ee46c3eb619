"""Backends that stall, break off, lie or are busy: right bytes or a visible error, nothing between.

Whatever happened, the same gateway answers the next request, and holds neither memory nor a
connection for the last one.
"""

import gzip
import hashlib
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest

from s4gateway.wire import frame
from tests import corpus, live
from tests.e2e import meddler, metering, raw
from tests.e2e.meddler import Meddler, Rule
from tests.rude_server import Request

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def meddling(seaweedfs: live.Seaweedfs) -> Iterator[Meddler]:
    with meddler.between(seaweedfs) as running:
        yield running


@pytest.fixture(scope="module")
def patient(meddling: Meddler, tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Gateway]:
    """A gateway whose backend is the meddler."""
    folder = tmp_path_factory.mktemp("patient")
    with live.gateway(meddling.endpoint, folder, "--frame-cache-bytes", "0") as running:
        yield running


@pytest.fixture(scope="module")
def hurried(meddling: Meddler, tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Gateway]:
    """The same with little patience: a store on a busy machine may try it too."""
    flags = ("--backend-read-timeout-seconds", "1", "--frame-cache-bytes", "0")
    folder = tmp_path_factory.mktemp("hurried")
    with live.gateway(meddling.endpoint, folder, *flags) as running:
        yield running


@pytest.fixture
def stalls(request: pytest.FixtureRequest) -> bool:
    """Whether a test is about a backend that stalls, which only little patience ends soon."""
    callspec = getattr(request.node, "callspec", None)
    return callspec is not None and str(callspec.params.get("rule")).startswith("stall")


@pytest.fixture
def fronting(stalls: bool, request: pytest.FixtureRequest) -> live.Gateway:
    found: live.Gateway = request.getfixturevalue("hurried" if stalls else "patient")
    return found


@dataclass(frozen=True, slots=True)
class Stored:
    key: str
    target: str
    body: bytes
    kept: bytes

    def is_read(self, request: Request) -> bool:
        return request.method == "GET" and request.target.decode().partition("?")[0] == self.target


FORMS = {
    "small": lambda: corpus.text(5_000, seed=1),
    "large": lambda: corpus.log(9_000_000, seed=2),
    "noise": lambda: corpus.noise(900_000, seed=3),
}


@pytest.fixture(scope="module")
def kept(gateway: live.Gateway, direct: Any, shared: str) -> dict[str, Stored]:
    """Objects of each form, stored in peace; "foreign" directly at the backend."""
    made = {}
    for form, make in FORMS.items():
        body, target = make(), raw.path(shared, form)
        assert raw.ask(gateway, "PUT", target, None, body).status == 200
        with direct.get_object(Bucket=shared, Key=form)["Body"] as stored:
            made[form] = Stored(form, target, body, stored.read())
    body = corpus.text(700_000, seed=4)
    direct.put_object(Bucket=shared, Key="foreign", Body=body)
    made["foreign"] = Stored("foreign", raw.path(shared, "foreign"), body, body)
    return made


@pytest.fixture(autouse=True)
def _healthy_afterwards(
    fronting: live.Gateway, stalls: bool, kept: dict[str, Stored]
) -> Iterator[None]:
    yield
    metering.settled(fronting)
    deadline = time.monotonic() + (120 if stalls else 0)
    while not all(_read(fronting, stored, None) for stored in kept.values()):
        assert time.monotonic() < deadline


def _right_or_visible(answer: raw.Answer, wanted: bytes) -> bool:
    """Whether the answer is right; False when it is a visible error; a wrong one fails."""
    if answer.status in {200, 206} and answer.complete:
        assert answer.body == wanted, f"a clean wrong answer of {len(answer.body)} bytes"
        return True
    if answer.status in {200, 206}:
        assert wanted.startswith(answer.body), "wrong bytes before the connection broke"
        return False
    assert answer.status in {500, 502, 503, 504}, answer
    assert answer.code
    return False


def _read(gateway: live.Gateway, stored: Stored, span: tuple[int, int] | None) -> bool:
    headers = {"Range": f"bytes={span[0]}-{span[1] - 1}"} if span else None
    wanted = stored.body[slice(*span)] if span else stored.body
    return _right_or_visible(raw.ask(gateway, "GET", stored.target, headers), wanted)


SPANS = {"whole": None, "range": (3_000, 4_500), "wide": (100, 8_900_000)}
FOREVER: dict[str, Rule] = {
    "stall": meddler.stall,
    "stall-in-the-body": meddler.stall_after(700),
    "stall-late": meddler.stall_after(600_000),
    "reset": meddler.reset,
    "reset-in-the-body": meddler.reset_after(700),
    "reset-late": meddler.reset_after(600_000),
    "cut": meddler.cut_after(0),
    "cut-in-the-body": meddler.cut_after(700),
    "cut-late": meddler.cut_after(600_000),
    "promise-less": meddler.promise_less(700),
    "500": meddler.say(500, b"<html>oops</html>", Content_Type="text/html"),
    "502": meddler.say(502),
    "garbage": meddler.changed(lambda answer: replace(answer, head=b"HELLO\r\n\r\n")),
}


@pytest.mark.parametrize(
    ("form", "span"),
    [
        *[(form, span) for form in (*FORMS, "foreign") for span in ("whole", "range")],
        ("large", "wide"),
    ],
)
@pytest.mark.parametrize("rule", FOREVER)
def test_a_backend_that_keeps_misbehaving_never_yields_a_clean_wrong_answer(
    rule: str,
    form: str,
    span: str,
    fronting: live.Gateway,
    meddling: Meddler,
    kept: dict[str, Stored],
):
    stored = kept[form]
    if (rule, form, span) == ("promise-less", "foreign", "whole"):
        pytest.skip("nothing but the backend's word tells how long an object of others is")
    with meddling.misbehaving(FOREVER[rule], stored.is_read) as seen:
        right = _read(fronting, stored, SPANS[span])
        assert seen
    harmless = rule.endswith("late") or (rule.endswith("in-the-body") and span == "range")
    assert not right or harmless


@pytest.mark.parametrize("span", ["whole", "range"])
@pytest.mark.parametrize("form", ["small", "large", "foreign"])
@pytest.mark.parametrize("rule", ["stall", "reset", "cut", "500", "502"])
def test_a_backend_that_misbehaves_once_is_asked_again(
    rule: str,
    form: str,
    span: str,
    fronting: live.Gateway,
    meddling: Meddler,
    kept: dict[str, Stored],
):
    stored = kept[form]
    once = meddler.times(1, FOREVER[rule])
    with meddling.misbehaving(once, stored.is_read) as seen:
        assert _read(fronting, stored, SPANS[span]) or rule == "cut"
        assert len(seen) >= 1


_BUSY = b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>busy</Message></Error>'


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_a_busy_backend_makes_the_gateway_busy(
    method: str, fronting: live.Gateway, meddling: Meddler, kept: dict[str, Stored]
):
    stored = kept["small"]
    body = stored.body if method == "PUT" else None
    busy = meddler.say(503, _BUSY, Retry_After="1", Content_Type="application/xml")
    with meddling.misbehaving(busy, lambda request: stored.target.encode() in request.target):
        answer = raw.ask(fronting, method, stored.target, None, body)
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert method == "HEAD" or answer.code == "SlowDown"


def test_a_backend_that_was_busy_once_is_waited_for(
    fronting: live.Gateway, meddling: Meddler, kept: dict[str, Stored]
):
    stored = kept["small"]
    once = meddler.times(1, meddler.say(503, _BUSY, Retry_After="0"))
    with meddling.misbehaving(once, stored.is_read) as seen:
        assert _read(fronting, stored, None)
        assert len(seen) == 2


def _gzipped(answer: meddler.Answer) -> meddler.Answer:
    body = gzip.compress(answer.body)
    packed = replace(answer, body=body).with_field("Content-Length", str(len(body)))
    return packed.with_field("Content-Encoding", "gzip")


@pytest.mark.parametrize("span", ["whole", "range"])
@pytest.mark.parametrize("form", FORMS)
def test_a_backend_that_gzips_what_it_stores_never_yields_a_clean_wrong_answer(
    form: str, span: str, fronting: live.Gateway, meddling: Meddler, kept: dict[str, Stored]
):
    stored = kept[form]
    with meddling.misbehaving(meddler.changed(_gzipped), stored.is_read) as seen:
        assert not _read(fronting, stored, SPANS[span])
        assert seen


def _ignoring_ranges(upstream: live.Endpoint, stored: Stored) -> Rule:
    """The whole object with status 200, whatever part of it was asked for."""
    head = raw.ask(upstream, "HEAD", stored.target).headers
    fields = {name.replace("-", "_"): value for name, value in head.items()}
    fields.pop("content_length")
    return meddler.say(200, stored.kept, **fields)


@pytest.mark.parametrize("form", [*FORMS, "foreign"])
def test_a_backend_that_ignores_ranges_never_yields_a_clean_wrong_answer(
    form: str,
    fronting: live.Gateway,
    meddling: Meddler,
    seaweedfs: live.Seaweedfs,
    kept: dict[str, Stored],
):
    stored = kept[form]
    rule = _ignoring_ranges(seaweedfs, stored)
    with meddling.misbehaving(rule, stored.is_read) as seen:
        _read(fronting, stored, (3_000, 4_500))
        assert seen


@pytest.mark.parametrize("form", [*FORMS, "foreign"])
def test_a_backend_that_answers_another_range_never_yields_a_clean_wrong_answer(
    form: str, fronting: live.Gateway, meddling: Meddler, kept: dict[str, Stored]
):
    stored = kept[form]

    def shifted(answer: meddler.Answer) -> meddler.Answer:
        if answer.status != 206:
            return answer
        return replace(answer, body=answer.body[1:] + b"x").with_field(
            "Content-Range", f"bytes 1-{len(answer.body)}/{len(stored.kept)}"
        )

    with meddling.misbehaving(meddler.changed(shifted), stored.is_read):
        _read(fronting, stored, (3_000, 4_500))


@pytest.mark.parametrize("rule", ["stall", "reset", "500", "garbage"])
def test_a_write_whose_answer_is_lost_is_an_error_and_leaves_a_whole_object(
    rule: str, fronting: live.Gateway, meddling: Meddler, direct: Any, shared: str
):
    key = f"write/{uuid.uuid4().hex}"
    target = raw.path(shared, key)
    old, new = corpus.text(200_000, seed=5), corpus.text(200_000, seed=6)
    assert raw.ask(fronting, "PUT", target, None, old).status == 200
    with meddling.misbehaving(FOREVER[rule], lambda request: request.method == "PUT"):
        answer = raw.ask(fronting, "PUT", target, None, new)
    assert answer.status in {500, 503}
    assert answer.code
    assert raw.ask(fronting, "GET", target).body in {old, new}  # the backend had taken it


def test_a_write_is_repeated_when_it_may_be(fronting: live.Gateway, meddling: Meddler, shared: str):
    target = raw.path(shared, f"write/{uuid.uuid4().hex}")
    body = corpus.text(200_000, seed=7)
    once = meddler.times(1, meddler.say(500))
    with meddling.misbehaving(once, lambda request: request.method == "PUT") as seen:
        answer = raw.ask(fronting, "PUT", target, None, body)
        assert (answer.status, answer.headers["etag"]) == (
            200,
            f'"{hashlib.md5(body).hexdigest()}"',
        )
        # The first write of a process also finds out whether conditions are honoured.
        assert [each.target for each in seen].count(target.encode()) == 2
    assert raw.ask(fronting, "GET", target).body == body


def test_a_conditional_write_is_not_repeated_after_the_backend_may_have_done_it(
    fronting: live.Gateway, meddling: Meddler, shared: str
):
    target = raw.path(shared, f"write/{uuid.uuid4().hex}")
    # The first conditional request finds out whether the backend honours them.
    assert raw.ask(fronting, "PUT", f"{target}-first", {"If-None-Match": "*"}, b"").status == 200
    once = meddler.times(1, meddler.reset)
    with meddling.misbehaving(once, lambda request: request.method == "PUT") as seen:
        answer = raw.ask(fronting, "PUT", target, {"If-None-Match": "*"}, b"mine" * 500)
        assert answer.status in {500, 503}
        assert len(seen) == 1


@pytest.mark.parametrize("rule", ["stall", "reset", "cut", "500", "garbage", "promise-less"])
def test_a_listing_is_whole_or_an_error(
    rule: str, fronting: live.Gateway, meddling: Meddler, shared: str
):
    lists = f"/{shared}?"

    def is_listing(request: Request) -> bool:
        return request.method == "GET" and request.target.decode().startswith(lists)

    with meddling.misbehaving(FOREVER[rule], is_listing) as seen:
        answer = raw.ask(fronting, "GET", f"/{shared}?list-type=2")
        assert seen
    assert answer.status in {500, 503}
    assert answer.code


def test_a_backend_that_is_gone_is_unavailable_and_comes_back(
    fronting: live.Gateway, meddling: Meddler, kept: dict[str, Stored]
):
    stored = kept["small"]
    with meddling.misbehaving(meddler.reset, lambda _: True):
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: raw.ask(fronting, "GET", stored.target), range(16)))
        assert {answer.verdict for answer in answers} == {(503, "ServiceUnavailable")}
        assert all(answer.headers["retry-after"] for answer in answers)
    assert raw.ask(fronting, "GET", stored.target).body == stored.body


def test_the_backends_opinion_of_our_signature_is_not_told_to_clients(
    fronting: live.Gateway, meddling: Meddler, kept: dict[str, Stored]
):
    stored = kept["small"]
    body = b'<?xml version="1.0"?><Error><Code>SignatureDoesNotMatch</Code></Error>'
    refusing = meddler.say(403, body, Content_Type="application/xml")
    with meddling.misbehaving(refusing, stored.is_read):
        answer = raw.ask(fronting, "GET", stored.target)
    assert answer.verdict == (500, "InternalError")


# --- damage at rest


@pytest.fixture
def damaged(direct: Any, shared: str, kept: dict[str, Stored]) -> Iterator[Any]:
    """Store other bytes under the metadata of one of ours: `damaged("large", bytes) -> target`."""
    keys: list[str] = []

    def store(form: str, body: bytes) -> str:
        key = f"damaged/{uuid.uuid4().hex}"
        keys.append(key)
        head = direct.head_object(Bucket=shared, Key=kept[form].key)
        direct.put_object(
            Bucket=shared,
            Key=key,
            Body=body,
            Metadata=head["Metadata"],
            ContentType=head["ContentType"],
        )
        return raw.path(shared, key)

    yield store
    for key in keys:
        direct.delete_object(Bucket=shared, Key=key)


CODEC_BYTES = range(4, 8)


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


@pytest.mark.parametrize("place", [0, 5, 10, 20, 27, 28, 60, -1])
@pytest.mark.parametrize("form", ["small", "large"])
def test_a_flipped_bit_in_the_first_frame_is_an_error_document(
    form: str, place: int, fronting: live.Gateway, kept: dict[str, Stored], damaged: Any
):
    stored = kept[form]
    frames = list(frame.walk(stored.kept))
    end = frames[1][0] if len(frames) > 1 else len(stored.kept)
    at = place if place >= 0 else end - 1
    target = damaged(form, _flipped(stored.kept, at))
    answer = raw.ask(fronting, "GET", target)
    # The number of another codec reads like an object of a newer gateway.
    damage = (501, "NotImplemented") if place in CODEC_BYTES else (500, "InternalError")
    assert answer.verdict == damage
    ranged = raw.ask(fronting, "GET", target, {"Range": "bytes=100-199"})
    assert ranged.verdict == damage


@pytest.mark.parametrize("number", [1, -1])
@pytest.mark.parametrize("place", [0, 10, 20, 28, 1000])
def test_a_flipped_bit_in_a_later_frame_breaks_the_connection(
    number: int, place: int, fronting: live.Gateway, kept: dict[str, Stored], damaged: Any
):
    stored = kept["large"]
    frames = list(frame.walk(stored.kept))
    assert len(frames) > 2
    target = damaged("large", _flipped(stored.kept, frames[number][0] + place))
    answer = raw.ask(fronting, "GET", target)
    assert (answer.status, answer.complete) == (200, False)
    assert stored.body.startswith(answer.body)
    early = raw.ask(fronting, "GET", target, {"Range": "bytes=0-99"})
    assert (early.status, early.body) == (206, stored.body[:100])
    assert raw.ask(fronting, "GET", target, {"Range": "bytes=-100"}).status in {206, 500}


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("form", ["small", "large", "noise"])
def test_a_truncated_body_is_never_a_clean_answer(
    form: str, share: float, fronting: live.Gateway, kept: dict[str, Stored], damaged: Any
):
    stored = kept[form]
    target = damaged(form, stored.kept[: min(int(len(stored.kept) * share), len(stored.kept) - 1)])
    for headers in ({}, {"Range": "bytes=-100"}):
        answer = raw.ask(fronting, "GET", target, headers)
        assert not _right_or_visible(answer, stored.body[-100:] if headers else stored.body)


@pytest.mark.parametrize("form", ["small", "large", "noise"])
def test_a_body_with_something_behind_it_is_never_a_clean_wrong_answer(
    form: str, fronting: live.Gateway, kept: dict[str, Stored], damaged: Any
):
    stored = kept[form]
    for tail in (b"x", b"S4F2", stored.kept[:100], stored.kept):
        target = damaged(form, stored.kept + tail)
        _right_or_visible(raw.ask(fronting, "GET", target), stored.body)


@pytest.mark.parametrize("place", [0, 400_000, -1])
def test_a_flipped_bit_in_a_body_stored_as_it_came_is_never_a_clean_answer(
    place: int, fronting: live.Gateway, kept: dict[str, Stored], damaged: Any
):
    stored = kept["noise"]
    target = damaged("noise", _flipped(stored.kept, place % len(stored.kept)))
    answer = raw.ask(fronting, "GET", target)
    assert answer.status == 500 or not answer.complete
