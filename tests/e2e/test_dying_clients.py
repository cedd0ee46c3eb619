"""Clients that vanish: whatever they had sent is forgotten, whatever they held is given back."""

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests import corpus, live
from tests.e2e import metering, raw
from tests.e2e.conftest import Witness

pytestmark = pytest.mark.e2e

BODY = corpus.text(2_500_000, seed=77)
CRC = {"x-amz-checksum-crc32": raw.checksum("crc32", BODY)}


def _with_length(gateway: live.Gateway, target: str) -> raw.Request:
    return raw.plain(gateway, "PUT", target, None, BODY)


def _http_chunked(gateway: live.Gateway, target: str) -> raw.Request:
    request = raw.put(gateway, target, BODY, raw.UNSIGNED)
    pieces = tuple(BODY[at : at + 50_000] for at in range(0, len(BODY), 50_000))
    return raw.framed(raw.Request("PUT", target, request.headers, pieces))


def _aws_chunked(gateway: live.Gateway, target: str) -> raw.Request:
    return raw.put(gateway, target, BODY, raw.UNSIGNED_CHUNKS_TRAILER, trailers=CRC)


def _aws_chunked_in_http_chunks(gateway: live.Gateway, target: str) -> raw.Request:
    return raw.put(
        gateway, target, BODY, raw.SIGNED_CHUNKS_TRAILER, trailers=CRC, http_chunked=True
    )


@pytest.mark.parametrize("end", ["reset", "close"])
@pytest.mark.parametrize(
    "make", [_with_length, _http_chunked, _aws_chunked, _aws_chunked_in_http_chunks]
)
def test_a_client_that_dies_at_any_byte_leaves_nothing(
    make: Callable[[live.Gateway, str], raw.Request],
    end: str,
    front: live.Gateway,
    witness: Witness,
):
    request = make(front, witness.target)
    source = random.Random(f"{make.__name__}{end}")
    body = b"".join(request.body)
    offsets = [0, 1, len(body) - 1, *[source.randrange(len(body)) for _ in range(10)]]

    def die(offset: int) -> None:
        with raw.Connection(front) as connection:
            connection.send(request.head + body[:offset])
            time.sleep(source.random() / 20)
            getattr(connection, end)()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(die, offsets))
    metering.settled(front)


def test_a_client_that_dies_within_the_head_leaves_nothing(front: live.Gateway, witness: Witness):
    head = _with_length(front, witness.target).head
    for offset in range(1, len(head), 37):
        with raw.Connection(front) as connection:
            connection.send(head[:offset])
    metering.settled(front)


def test_a_length_beyond_the_body_and_a_hang_up(gateway: live.Gateway, witness: Witness):
    for size in (10, 100_000):
        request = raw.put(gateway, witness.target, b"x" * size, raw.UNSIGNED)
        longer = request.with_headers(**{"Content-Length": str(size + 1)})
        with raw.Connection(gateway) as connection:
            connection.send(longer.wire)
            connection.socket.shutdown(1)
            said = connection.rest()
        assert said == b"" or said.startswith(b"HTTP/1.1 4")
    metering.settled(gateway)


def test_aborted_uploads_and_downloads_are_counted_apart_from_errors(
    gateway: live.Gateway, witness: Witness
):
    before = metering.settled(gateway)["s4_client_aborts_total"]
    request = _with_length(gateway, witness.target)
    with raw.Connection(gateway) as connection:
        connection.send(request.head + BODY[:1000])
        connection.reset()
    metering.settled(gateway)
    assert metering.scrape(gateway)["s4_client_aborts_total"] == before + 1


def test_200_aborted_downloads_leave_no_connection_and_no_memory_in_use(
    gateway: live.Gateway, shared: str, key: str
):
    body = corpus.log(12_000_000, seed=78)
    noise = corpus.noise(6_000_000, seed=79)
    targets = [raw.path(shared, f"{key}/{kind}") for kind in ("log", "noise")]
    for target, data in zip(targets, (body, noise), strict=True):
        assert raw.ask(gateway, "PUT", target, None, data).status == 200
    source = random.Random(80)

    def abort(number: int) -> None:
        ranged = {"Range": "bytes=1000000-5900000"} if number % 3 == 0 else None
        request = raw.plain(gateway, "GET", targets[number % 2], ranged)
        with raw.Connection(gateway) as connection:
            connection.send(request.head)
            connection.socket.recv(source.choice([1, 1000, 300_000]))
            if number % 4:
                connection.reset()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(abort, range(200)))
    metering.settled(gateway)
    for target, data in zip(targets, (body, noise), strict=True):
        with ThreadPoolExecutor(8) as pool:  # the pool of backend connections still serves
            answers = pool.map(lambda _, target=target: raw.ask(gateway, "GET", target), range(8))
            wrong = [
                (answer.verdict, len(answer.body)) for answer in answers if answer.body != data
            ]
            assert wrong == []
    metering.settled(gateway)
