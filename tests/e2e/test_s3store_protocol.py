"""What datasets need of the gateway's HTTP, and of its restarts: acceptance 74, 75 and 78.

That Consistency-Control reaches the store is in test_request_headers.py.
"""

import random
from dataclasses import replace
from typing import Any

import pytest

from s4gateway.s3store import AsyncStore, Boto3Transport, init_dataset
from s4gateway.s3store.clock import SystemClock
from tests import live
from tests.conftest import StartGateway
from tests.e2e import counting, datasets, raw
from tests.s3store import transports
from tests.s3store.program import config
from tests.s3store.world import Order, order

pytestmark = pytest.mark.e2e


# --- 74, 75: the protocol


def test_74_a_client_that_waits_for_100_gets_it_before_its_body(
    gateway: live.Gateway, shared: str, key: str
):
    request = raw.plain(gateway, "PUT", raw.path(shared, key), {"Expect": "100-continue"}, b"abc")
    with raw.Connection(gateway) as connection:
        connection.send(request.head)
        assert connection.socket.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.send(b"abc")
        assert connection.answer("PUT").status == 200
    assert raw.ask(gateway, "GET", raw.path(shared, key)).body == b"abc"


def test_75_a_signed_header_nobody_knows_is_accepted_and_its_signature_counts(
    gateway: live.Gateway, shared: str, key: str
):
    header = {"Consistency-Control": "strong-global"}
    for method, body in (("PUT", b"abc"), ("HEAD", None), ("GET", None)):
        request = raw.plain(gateway, method, raw.path(shared, key), header, body)
        assert "consistency-control" in request.headers["Authorization"]
        assert raw.exchange(gateway, request).status == 200
        changed = request.with_headers(**{"Consistency-Control": "available"})
        assert raw.exchange(gateway, changed).status == 403


@pytest.mark.parametrize("mode", [raw.UNSIGNED_CHUNKS_TRAILER, raw.SIGNED_CHUNKS_TRAILER])
def test_75_chunks_with_a_trailing_checksum_are_stored_without_their_framing(
    gateway: live.Gateway, straight: Any, shared: str, key: str, mode: str
):
    body = random.Random(5).randbytes(200_000)
    trailers = {"x-amz-checksum-crc32": raw.checksum("crc32", body)}
    request = raw.put(gateway, raw.path(shared, key), body, mode, trailers=trailers)
    assert raw.exchange(gateway, request).status == 200
    assert raw.ask(gateway, "GET", raw.path(shared, key)).body == body
    with straight.get_object(Bucket=shared, Key=key)["Body"] as stream:
        assert b";chunk-signature=" not in stream.read()


# --- 78: a restart in between


class Later(SystemClock):
    """A reader's clock after the settle window."""

    def now_us(self) -> int:
        return super().now_us() + 120_000_000


async def test_78_a_gateway_that_restarts_before_the_commit_is_ridden_out(
    start_gateway: StartGateway, straight: Any, bucket: str
):
    await init_dataset(straight, bucket, "orders", commit_timeout="60s")
    with start_gateway() as first, start_gateway() as second, counting.between(first) as wire:
        client = datasets.client_of(wire.endpoint)
        inner = Boto3Transport(client, bucket, workers=8)
        scripted = transports.ScriptedTransport(inner)
        refused = []

        def restart() -> None:
            """The gateway dies; it is up again for the third try."""
            if not refused:
                first.kill()
            elif len(refused) == 2:
                wire.upstream = second
            refused.append(1)

        scripted.script("put", ".commit", transports.calls(restart), times=5)
        async with await AsyncStore.open(config(scripted, bucket), Order) as orders:
            (result,) = await orders.write([order("a")], token="t")
            assert len(refused) == 3
            assert await orders.write([order("a")], token="t") == [result]
            assert await orders.read("*") == [order("a")]
        later = replace(config(scripted, bucket), clock=Later())
        async with await AsyncStore.open(later, Order) as orders:
            page = await orders.poll()
            assert [entry.offset for entry in page.entries] == [result.offset]
            assert (await orders.poll(page.next_offset)).entries == []
        await inner.aclose()
        client.close()
