"""The tools over a store that is busy, and over keys that no listing can show as they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import corpus, live
from tests.e2e import meddler, rewriting
from tests.e2e.operators import Operator, Said
from tests.rude_server import Exchange, Request

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
TEXT = corpus.text(20_000)
# What XML forbids, what URLs reserve, what looks encoded already, and both ends of Unicode.
KEYS = (
    "a b+c%2Fd%",
    "dir/ä/日本/é",
    "ctl\x01\x1f\x7f",
    "tab\tand\nline",
    "<&>\"'",
    "?versionId=1#x",
    "😀.log",
    "e\u0301",
    " leading",
    "a%20b",
)
BUSY = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"


@pytest.fixture
def operator(seaweedfs: live.Seaweedfs, tmp_path: Path) -> Operator:
    return Operator(seaweedfs, tmp_path)


def sent_to(method: str, end: bytes) -> Callable[[Request], bool]:
    return lambda request: request.method == method and request.target.endswith(end)


@pytest.mark.parametrize(("method", "end"), [("GET", b"/key"), ("PUT", b"/key"), ("GET", b"")])
def test_a_busy_store_is_asked_again_after_a_while(
    operator: Operator, bucket: str, direct: Any, fetch: Any, method: str, end: bytes
):
    """Objects read and written, and, with no key, the listing."""
    rewriting.fill(direct, bucket, {"key": TEXT})
    applies = sent_to(method, end) if end else lambda each: b"list-type=2" in each.target
    with meddler.between(operator.store) as meddling:
        busy = meddler.times(2, meddler.say(503, BUSY))
        with meddling.misbehaving(busy, applies) as seen:
            said = Operator(meddling.endpoint, operator.folder).s4(
                "migrate", bucket, "--execute", json=True
            )
    assert (said.status, said.report["migrated"], said.report["failed"]) == (0, 1, 0), said
    assert len(seen) >= 3
    assert fetch(bucket, "key") == TEXT


@pytest.mark.parametrize(
    "arguments", [("estimate",), ("migrate", "--execute"), ("verify",), ("sweep-orphan-sidecars",)]
)
def test_a_store_too_busy_to_list_is_one_line(
    operator: Operator, bucket: str, arguments: tuple[str, ...]
):
    command, *flags = arguments
    with meddler.between(operator.store) as meddling:
        lists = lambda each: b"list-type=2" in each.target  # noqa: E731
        with meddling.misbehaving(meddler.say(503, BUSY), lists) as seen:
            said = Operator(meddling.endpoint, operator.folder).s4(command, bucket, *flags)
    assert (said.status, said.out) == (1, b"")
    assert said.err.startswith("s4: the store: 503 SlowDown")
    assert len(said.err.splitlines()) == 1
    assert len(seen) > 1


@pytest.mark.huge
def test_a_store_that_stays_busy_is_reported_and_the_rest_is_done(
    operator: Operator, bucket: str, direct: Any
):
    """Asked for about a minute, then it is a failure with its name."""
    rewriting.fill(direct, bucket, {"busy": TEXT, "key": TEXT})
    busy = meddler.say(503, BUSY)
    with (
        meddler.between(operator.store) as meddling,
        meddling.misbehaving(busy, sent_to("PUT", b"/busy")) as seen,
    ):
        said = Operator(meddling.endpoint, operator.folder).s4(
            "migrate", bucket, "--execute", json=True
        )
    assert (said.status, said.report["migrated"], said.report["failed"]) == (1, 1, 1)
    (failure,) = said.report["failures"]
    assert (failure["key"], failure["op"]) == ("busy", "PutObject")
    assert "SlowDown" in failure["cause"]
    assert len(seen) >= 6


def test_what_is_deleted_and_overwritten_meanwhile_is_counted_and_no_failure(
    operator: Operator, bucket: str, direct: Any, seaweedfs: live.Seaweedfs
):
    rewriting.fill(direct, bucket, {"gone": TEXT, "kept": TEXT, "newer": TEXT})

    async def meddle(exchange: Exchange, ask: meddler.Ask) -> None:
        if exchange.request.target.endswith(b"/gone"):
            direct.delete_object(Bucket=bucket, Key="gone")
        else:
            direct.put_object(Bucket=bucket, Key="newer", Body=b"newer")
        await exchange.send((await ask()).wire)

    def applies(request: Request) -> bool:
        read = request.method == "GET" and request.target.endswith(b"/gone")
        return read or sent_to("PUT", b"/newer")(request)

    with meddler.between(seaweedfs) as meddling, meddling.misbehaving(meddle, applies):
        said = Operator(meddling.endpoint, operator.folder).s4(
            "migrate", bucket, "--execute", json=True
        )
    report = said.report
    assert (said.status, report["migrated"], report["failed"]) == (0, 1, 0), report
    assert (report["skipped_vanished"], report["skipped_etag_raced"]) == (1, 1)
    assert rewriting.state(direct, bucket, ["newer"])["newer"]["Body"] == b"newer"


def test_keys_that_need_encoding_go_through_every_tool(
    operator: Operator, bucket: str, direct: Any, fetch: Any
):
    bodies = {key: TEXT + key.encode() for key in KEYS}
    bodies["large ä+%2F\x01"] = corpus.log(6 * MIB)
    rewriting.fill(direct, bucket, bodies, Metadata={"a": "b"})
    before = rewriting.state(direct, bucket, bodies)

    def done(*arguments: str) -> dict[str, Any]:
        said: Said = operator.s4(*arguments, json=True)
        assert said.status == 0, (said.err, said.text)
        return said.report

    count = len(bodies)
    assert done("estimate", bucket)["total_objects"] == count
    assert done("migrate", bucket, "--execute")["migrated"] == count
    squeeze = ("recompact", bucket, "--execute", "--target-zstd-level", "9")
    assert done(*squeeze, "--min-gain-percent", "0")["failed"] == 0
    assert done("verify", bucket, "--sidecars")["outcomes"]["sound"] == count
    assert done("sweep-orphan-sidecars", bucket)["paired"] == 1
    assert done("repair-sidecar", f"{bucket}/large ä+%2F\x01")["action"] == "rebuilt"
    assert all(fetch(bucket, key) == body for key, body in bodies.items())
    assert done("migrate", bucket, "--undo", "--execute")["migrated"] == count
    assert rewriting.state(direct, bucket, bodies) == before
    for key in bodies:  # by name: not every listing of versions shows them so that they can be
        direct.delete_object(Bucket=bucket, Key=key)
