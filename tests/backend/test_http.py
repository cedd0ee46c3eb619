"""The wire itself: what leaves byte for byte, and what a server can do to us."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable

import pytest
import trustme

from s4gateway.backend import base, http
from tests import rude_server
from tests.rude_server import Exchange

TARGETS = [
    "/b/a/../c",
    "/b/..",
    "/b/.",
    "/b//k",
    "//b//k//",
    "/b/%2F",
    "/b/%2f%2E%2e",
    "/b/a+b",
    "/b/a%20b",
    "/b/a%2Bb?prefix=x+y%2Fz&acl",
    "/b/k?list-type=2&prefix=%E6%97%A5&a=b=c&empty=",
    "/b/~!$&'()*,;=:@-._",
    '/b/[x]{y}|^`\\"<>',
    "/b/k?versionId=a/b?c",
    "/%C3%BC/%FF",
    "/",
]


async def no_body(exchange: Exchange) -> None:
    await exchange.answer()


@pytest.fixture
async def client() -> AsyncIterator[http.HttpClient]:
    client = http.HttpClient(pool_size=4)
    yield client
    assert client.in_use == 0
    await client.close()


@pytest.fixture
async def hurried() -> AsyncIterator[http.HttpClient]:
    """For a store that does not answer in time; the other one waits for it, however busy."""
    client = http.HttpClient(read_timeout=0.5, slow_timeout=0.5, pool_size=4)
    yield client
    assert client.in_use == 0
    await client.close()


def generated(pieces: list[bytes], length: int | None = None) -> base.Body:
    async def chunks() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return base.Body(sum(map(len, pieces)) if length is None else length, chunks)


async def fetch(
    client: http.HttpClient, server: rude_server.RudeServer, method: str = "GET"
) -> bytes:
    host = [("host", "h")]
    async with await client.request(method, server.url, "/b/k", host) as response:
        return await response.read(10**8)


class TestWhatLeaves:
    @pytest.mark.parametrize("target", TARGETS)
    async def test_the_target_arrives_byte_for_byte(self, client: http.HttpClient, target: str):
        async with rude_server.serve(no_body) as server:
            for method in ("GET", "PUT"):
                response = await client.request(method, server.url, target, [("host", "h")])
                await response.read(0)
            assert [request.target for request in server.requests] == [target.encode()] * 2

    @pytest.mark.parametrize("target", ["/b/a b", "/b/k#x", "/b/ü", "/b/\r\nX: y", "/b/\x00"])
    async def test_a_target_that_would_not_arrive_is_not_sent(
        self, client: http.HttpClient, target: str
    ):
        with pytest.raises(base.BackendProtocolError):
            await client.request("GET", "http://127.0.0.1:9", target, [("host", "h")])

    async def test_nothing_is_added_to_the_headers_of_a_read(self, client: http.HttpClient):
        given = [("host", "store.example:1"), ("x-amz-date", "d"), ("Range", "bytes=0-1")]
        async with rude_server.serve(no_body) as server:
            for method in ("GET", "HEAD"):
                response = await client.request(method, server.url, "/", given)
                await response.read(0)
        for request in server.requests:
            assert request.fields == [*given, ("accept-encoding", "identity")]

    @pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
    async def test_a_write_gets_its_length_and_nothing_else(
        self, client: http.HttpClient, method: str
    ):
        given = [("host", "h"), ("x-amz-meta-a", "1"), ("content-type", "t/t")]
        async with rude_server.serve(no_body) as server:
            for body in (base.EMPTY, base.Body.of(b"abc"), generated([b"ab", b"c"])):
                response = await client.request(method, server.url, "/", given, body)
                await response.read(0)
        for request, length in zip(server.requests, ("0", "3", "3"), strict=True):
            assert sorted(request.fields) == sorted(
                [*given, ("accept-encoding", "identity"), ("content-length", length)]
            )
        assert [request.body for request in server.requests] == [b"", b"abc", b"abc"]

    async def test_no_content_type_is_invented(self, client: http.HttpClient):
        async with rude_server.serve(no_body) as server:
            body = base.Body.of(b"abc")
            response = await client.request("PUT", server.url, "/", [("host", "h")], body)
            await response.read(0)
        assert "content-type" not in server.requests[0].headers

    async def test_header_values_leave_as_utf_8(self, client: http.HttpClient):
        given = [("host", "h"), ("x-amz-meta-city", "Zürich 日本")]
        async with rude_server.serve(no_body) as server:
            await (await client.request("GET", server.url, "/", given)).read(0)
        assert server.requests[0].headers["x-amz-meta-city"] == "Zürich 日本"

    async def test_a_header_cannot_smuggle_another_one(self, client: http.HttpClient):
        async with rude_server.serve(no_body) as server:
            with pytest.raises(base.BackendProtocolError):
                await client.request("GET", server.url, "/", [("host", "h\r\nX: y")])
        assert server.requests == []

    async def test_environment_proxies_are_ignored(
        self, client: http.HttpClient, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        async with rude_server.serve(no_body) as server:
            assert await fetch(client, server) == b""

    @pytest.mark.parametrize("size", [1, 32 * 1024, 32 * 1024 + 1, 256 * 1024, 3_000_000])
    async def test_bodies_of_every_size_arrive_whole(self, client: http.HttpClient, size: int):
        data = bytes(range(251)) * (size // 251 + 1)
        data = data[:size]
        async with rude_server.serve(no_body) as server:
            pieces = [data[start : start + 70_000] for start in range(0, size, 70_000)]
            for body in (base.Body.of(data), generated(pieces)):
                response = await client.request("PUT", server.url, "/", [("host", "h")], body)
                await response.read(0)
            assert [request.body == data for request in server.requests] == [True, True]
            assert server.connections == 1

    @pytest.mark.parametrize(("pieces", "length"), [([b"abc"], 4), ([b"abc", b"de"], 4), ([], 1)])
    async def test_a_body_that_is_not_as_long_as_it_says_is_never_completed(
        self, client: http.HttpClient, pieces: list[bytes], length: int
    ):
        async with rude_server.serve(no_body) as server:
            body = generated(pieces, length)
            with pytest.raises(ValueError, match="request body"):
                await client.request("PUT", server.url, "/", [("host", "h")], body)
            assert server.requests == []
            assert await fetch(client, server) == b""

    async def test_the_error_of_a_body_s_source_is_the_error(self, client: http.HttpClient):
        class ClientWentAwayError(Exception):
            pass

        closed = False

        async def chunks() -> AsyncIterator[bytes]:
            nonlocal closed
            try:
                yield b"abc"
                raise ClientWentAwayError
            finally:
                closed = True

        async with rude_server.serve(no_body) as server:
            with pytest.raises(ClientWentAwayError):
                await client.request(
                    "PUT", server.url, "/", [("host", "h")], base.Body(10, chunks, False)
                )
            assert server.requests == []
        assert closed

    async def test_redirects_are_returned_not_followed(self, client: http.HttpClient):
        async def script(exchange: Exchange) -> None:
            await exchange.answer(307, b"elsewhere", {"Location": "/elsewhere"})

        async with rude_server.serve(script) as server:
            response = await client.request("GET", server.url, "/", [("host", "h")])
            assert response.head.status == 307
            assert await response.read(100) == b"elsewhere"
            assert len(server.requests) == 1

    async def test_cookies_are_not_kept(self, client: http.HttpClient):
        async def script(exchange: Exchange) -> None:
            await exchange.answer(headers={"Set-Cookie": "a=b; Path=/"})

        async with rude_server.serve(script) as server:
            await fetch(client, server)
            await fetch(client, server)
            assert "cookie" not in server.requests[1].headers


class TestWhatArrives:
    async def test_a_compressed_answer_is_not_decompressed(self, client: http.HttpClient):
        async def script(exchange: Exchange) -> None:
            await exchange.answer(200, b"\x1f\x8bstuff", {"Content-Encoding": "gzip"})

        async with rude_server.serve(script) as server:
            assert await fetch(client, server) == b"\x1f\x8bstuff"

    async def test_a_body_comes_in_non_empty_pieces(self, client: http.HttpClient):
        async def script(exchange: Exchange) -> None:
            await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
            for byte in b"12345":
                await exchange.send(bytes([byte]))
                await asyncio.sleep(0)

        async with (
            rude_server.serve(script) as server,
            await client.request("GET", server.url, "/", [("host", "h")]) as response,
        ):
            pieces = [piece async for piece in response]
            assert b"" not in pieces
            assert b"".join(pieces) == b"12345"
            assert [piece async for piece in response] == []

    async def test_a_big_body_arrives_whole_over_a_kept_connection(self, client: http.HttpClient):
        data = bytes(range(256)) * 40_000

        async def script(exchange: Exchange) -> None:
            await exchange.answer(200, data)

        async with rude_server.serve(script) as server:
            for _ in range(3):
                assert await fetch(client, server) == data
            assert server.connections == 1

    async def test_a_slow_reader_is_not_a_slow_server(self, hurried: http.HttpClient):
        data = bytes(8_000_000)

        async def script(exchange: Exchange) -> None:
            await exchange.answer(200, data)

        async with (
            rude_server.serve(script) as server,
            await hurried.request("GET", server.url, "/", [("host", "h")]) as response,
        ):
            size = len(await anext(response))
            await asyncio.sleep(0.8)  # longer than the read timeout
            size += len(await response.read(10**8))
        assert size == len(data)

    async def test_a_chunked_answer_is_read_to_its_last_chunk(self, client: http.HttpClient):
        async def script(exchange: Exchange) -> None:
            await exchange.send(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
            )

        async with rude_server.serve(script) as server:
            assert await fetch(client, server) == b"abcde"

    async def test_more_than_the_limit_is_not_read(self, client: http.HttpClient):
        async def script(exchange: Exchange) -> None:
            await exchange.answer(200, bytes(1_000_000))

        async with rude_server.serve(script) as server:
            response = await client.request("GET", server.url, "/", [("host", "h")])
            with pytest.raises(base.BackendProtocolError, match="larger than 999999"):
                await response.read(999_999)

    async def test_an_interim_answer_is_skipped(self, client: http.HttpClient):
        async def script(exchange: Exchange) -> None:
            await exchange.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            await exchange.answer(200, b"final")

        async with rude_server.serve(script) as server:
            assert await fetch(client, server) == b"final"

    async def test_an_early_refusal_is_seen_before_the_body_is_sent(self, client: http.HttpClient):
        async def chunks() -> AsyncIterator[bytes]:
            yield b"abc"
            await asyncio.Event().wait()

        async def script(exchange: Exchange) -> None:
            await exchange.answer(403, b"denied")

        async with rude_server.serve(script, reads_bodies=False) as server:
            body = base.Body(10**9, chunks)
            response = await client.request("PUT", server.url, "/", [("host", "h")], body)
            assert (response.head.status, await response.read(100)) == (403, b"denied")

    async def test_success_before_the_body_is_sent_is_not_believed(self, client: http.HttpClient):
        async def chunks() -> AsyncIterator[bytes]:
            yield b"abc"
            await asyncio.Event().wait()

        async with rude_server.serve(no_body, reads_bodies=False) as server:
            with pytest.raises(base.BackendProtocolError, match="before the request body"):
                await client.request(
                    "PUT", server.url, "/", [("host", "h")], base.Body(10**9, chunks)
                )


def sends(*pieces: bytes, then: Callable[[Exchange], None]) -> rude_server.Script:
    async def script(exchange: Exchange) -> None:
        for piece in pieces:
            await exchange.send(piece)
            await asyncio.sleep(0.01)
        then(exchange)

    return script


HEAD_OF_TEN = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTRUSTWORTHY = {
    "truncated": sends(HEAD_OF_TEN, b"12345", then=Exchange.close),
    "truncated-at-once": sends(HEAD_OF_TEN, then=Exchange.close),
    "reset-mid-body": sends(HEAD_OF_TEN, b"12345", then=Exchange.reset),
    "no-last-chunk": sends(CHUNKED, b"3\r\nabc\r\n", then=Exchange.close),
    "garbage-chunk": sends(CHUNKED, b"zz\r\nabc\r\n", then=Exchange.close),
    "no-length": sends(b"HTTP/1.1 200 OK\r\n\r\n12345", then=Exchange.close),
    "garbage": sends(b"\x00\x01\x02 not http\r\n\r\n", then=Exchange.close),
    "ssh": sends(b"SSH-2.0-OpenSSH_9.6\r\n", then=Exchange.close),
    "huge-header": sends(
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", then=Exchange.close
    ),
    "many-headers": sends(
        b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 10_000 + b"\r\n", then=Exchange.close
    ),
    "two-lengths": sends(
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", then=Exchange.close
    ),
    "negative-length": sends(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", then=Exchange.close),
}
ABSENT = {
    "closed": sends(then=Exchange.close),
    "reset": sends(then=Exchange.reset),
    "half-a-head": sends(b"HTTP/1.1 200 OK\r\nContent-Le", then=Exchange.close),
    "stalled": sends(then=lambda _: None),
    "stalled-head": sends(b"HTTP/1.1 200 OK\r\nContent-Le", then=lambda _: None),
    "stalled-body": sends(HEAD_OF_TEN, b"12345", then=lambda _: None),
}


class TestFailures:
    @pytest.mark.parametrize("script", UNTRUSTWORTHY.values(), ids=UNTRUSTWORTHY)
    async def test_an_answer_that_breaks_the_rules_is_a_protocol_error(
        self, client: http.HttpClient, script: rude_server.Script
    ):
        async with rude_server.serve(script) as server:
            with pytest.raises(base.BackendProtocolError):
                await fetch(client, server)
            server.script = no_body
            assert await fetch(client, server) == b""

    @pytest.mark.parametrize("script", ABSENT.values(), ids=ABSENT)
    async def test_no_answer_is_unavailable_in_time(
        self, hurried: http.HttpClient, script: rude_server.Script
    ):
        async with rude_server.serve(script) as server:
            with pytest.raises(base.BackendUnavailable) as caught:
                await fetch(hurried, server)
            assert caught.value.retryable
            assert not caught.value.unsent
            server.script = no_body
            assert await fetch(hurried, server) == b""

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
    async def test_the_library_repeats_nothing_by_itself(
        self, client: http.HttpClient, method: str
    ):
        async def script(exchange: Exchange) -> None:
            if exchange.number_on_connection == 1:
                await exchange.answer()
            else:
                exchange.close()

        async with rude_server.serve(script) as server:
            await fetch(client, server)
            with pytest.raises(base.BackendUnavailable):
                await fetch(client, server, method)
            assert len(server.requests) == 2

    async def test_a_refused_connection_was_never_sent(self, client: http.HttpClient):
        async with rude_server.serve(no_body) as server:
            pass
        with pytest.raises(base.BackendUnavailable) as caught:
            await fetch(client, server)
        assert caught.value.unsent
        assert caught.value.retryable

    async def test_an_unknown_host_was_never_sent(self, client: http.HttpClient):
        with pytest.raises(base.BackendUnavailable) as caught:
            await client.request("GET", "http://no-such-host.invalid", "/", [("host", "h")])
        assert caught.value.unsent

    async def test_a_store_that_takes_no_bytes_times_out(self, hurried: http.HttpClient):
        async def script(exchange: Exchange) -> None:
            await exchange.freeze()

        async with rude_server.serve(script, reads_bodies=False) as server:
            for body in (base.Body.of(bytes(20_000_000)), generated([bytes(10**6)] * 20)):
                with pytest.raises(base.BackendUnavailable, match="took no bytes"):
                    await hurried.request("PUT", server.url, "/", [("host", "h")], body)

    async def test_a_full_pool_is_a_timeout_not_a_hang(self):
        client = http.HttpClient(connect_timeout=1.0, pool_size=1)
        async with rude_server.serve(sends(HEAD_OF_TEN, then=lambda _: None)) as server:
            held = await client.request("GET", server.url, "/", [("host", "h")])
            with pytest.raises(base.BackendUnavailable) as caught:
                await client.request("GET", server.url, "/", [("host", "h")])
            assert caught.value.unsent
            await held.close()
            await (await client.request("GET", server.url, "/", [("host", "h")])).close()
        await client.close()

    async def test_a_closed_client_can_be_closed_again(self):
        client = http.HttpClient()
        await client.close()
        async with rude_server.serve(no_body) as server:
            await fetch(client, server)
        await client.close()
        await client.close()


class TestConnections:
    async def test_a_thousand_aborted_clients_leave_no_connection_in_use(
        self, client: http.HttpClient
    ):
        async def script(exchange: Exchange) -> None:
            match exchange.number % 4:
                case 0:
                    await exchange.stall()
                case 1:
                    await exchange.send(HEAD_OF_TEN + b"123")
                    await exchange.stall()
                case 2:
                    await exchange.answer(200, bytes(300_000))
                case _:
                    await exchange.answer(200, b"small")

        async def aborted(number: int) -> None:
            body = generated([bytes(1000)] * 3) if number % 3 == 0 else None
            method = "PUT" if body else "GET"
            response = await client.request(method, server.url, "/", [("host", "h")], body)
            try:
                async for _ in response:
                    await asyncio.sleep(0)
            finally:
                await response.close()

        async with rude_server.serve(script) as server:
            for batch in range(100):
                tasks = [asyncio.ensure_future(aborted(batch * 10 + n)) for n in range(10)]
                await asyncio.sleep(0.0005 * (batch % 7))
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            assert client.in_use == 0
            server.script = no_body
            for _ in range(2):
                assert await asyncio.gather(*[fetch(client, server) for _ in range(8)]) == [b""] * 8
            await client.close()
            await server.all_closed.wait()

    async def test_a_connection_that_idled_too_long_is_not_used_again(self):
        client = http.HttpClient(keepalive=60.0)
        async with rude_server.serve(no_body) as server:
            await fetch(client, server)
            await fetch(client, server)
            assert server.connections == 1
            (connection,) = client._connections
            connection.idle_since -= 60.0
            await fetch(client, server)
            assert server.connections == 2
            await client.close()

    async def test_bodies_of_concurrent_answers_do_not_mix(self, client: http.HttpClient):
        async def script(exchange: Exchange) -> None:
            name = exchange.request.target[1:]
            await exchange.answer(200, (name + b".") * (int(name) % 7 * 100_000))

        async def read(number: int) -> bool:
            target = f"/{number}"
            response = await client.request("GET", server.url, target, [("host", "h")])
            async with response:
                data = await response.read(10**8)
            return data == f"{number}.".encode() * (number % 7 * 100_000)

        async with rude_server.serve(script) as server:
            assert all(await asyncio.gather(*[read(number) for number in range(10, 50)]))
            assert server.connections <= 4

    async def test_a_connection_that_the_store_has_closed_is_not_used_again(
        self, client: http.HttpClient
    ):
        async def script(exchange: Exchange) -> None:
            await exchange.answer()
            exchange.close()

        async with rude_server.serve(script) as server:
            for number in range(1, 4):
                assert await fetch(client, server) == b""
                while client._connections:  # noqa: ASYNC110 - the store's doing
                    await asyncio.sleep(0.001)
                assert server.connections == number

    async def test_idle_connections_are_closed(self):
        client = http.HttpClient(keepalive=0.05)
        async with rude_server.serve(no_body) as server:
            await asyncio.gather(*[fetch(client, server) for _ in range(3)])
            assert server.open_connections
            async with asyncio.timeout(60):
                await server.all_closed.wait()
            await client.close()

    @pytest.mark.parametrize("size", [1, 2])
    async def test_connections_in_use_never_exceed_the_pool_and_waiters_take_turns(self, size: int):
        client = http.HttpClient(pool_size=size)
        order: list[int] = []

        async def script(exchange: Exchange) -> None:
            await asyncio.sleep(0.001)
            await exchange.answer()

        async def one(number: int) -> None:
            await fetch(client, server)
            order.append(number)

        async with rude_server.serve(script) as server:
            await asyncio.gather(*[one(number) for number in range(20)])
            assert server.connections == size
            if size == 1:  # two connections may overtake each other
                assert order == sorted(order)
            assert client.in_use == 0
            await client.close()

    async def test_a_waiter_who_gives_up_leaves_the_turn_to_the_next(self):
        client = http.HttpClient(pool_size=1)
        async with rude_server.serve(sends(HEAD_OF_TEN, then=lambda _: None)) as server:
            held = await client.request("GET", server.url, "/", [("host", "h")])
            waiting = [asyncio.ensure_future(fetch(client, server)) for _ in range(4)]
            await asyncio.sleep(0.01)
            server.script = no_body
            waiting[0].cancel()
            await held.close()
            waiting[1].cancel()  # the turn may have been given, but not taken
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert results[2:] == [b"", b""]
            assert client.in_use == 0
            await client.close()

    async def test_closing_the_client_ends_what_is_under_way(self):
        client = http.HttpClient(pool_size=1)
        async with rude_server.serve(sends(HEAD_OF_TEN, then=lambda _: None)) as server:
            held = await client.request("GET", server.url, "/", [("host", "h")])
            waiting = asyncio.ensure_future(fetch(client, server))
            reading = asyncio.ensure_future(held.read(10))
            await asyncio.sleep(0.01)
            await client.close()
            for task in (waiting, reading):
                with pytest.raises(base.BackendUnavailable):
                    await task
            assert client.in_use == 0
            await server.all_closed.wait()

    async def test_small_packets_are_not_held_back(self, client: http.HttpClient):
        async with rude_server.serve(no_body) as server:
            await fetch(client, server)
            (connection,) = client._connections
            assert connection._transport is not None
            raw = connection._transport.get_extra_info("socket")
            assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    async def test_an_answer_left_half_read_drops_its_connection(self, client: http.HttpClient):
        async def script(exchange: Exchange) -> None:
            await exchange.answer(200, bytes(5_000_000))

        async with rude_server.serve(script) as server:
            for _ in range(10):
                async with await client.request("GET", server.url, "/", [("host", "h")]) as answer:
                    await anext(answer)
            assert server.connections == 10

    async def test_bytes_behind_an_answer_are_never_the_next_answer(self, client: http.HttpClient):
        async def script(exchange: Exchange) -> None:
            await exchange.send(
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
                b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
            )

        async with rude_server.serve(script) as server:
            for _ in range(3):
                with contextlib.suppress(base.BackendError):
                    assert await fetch(client, server) == b"ok"
                await asyncio.sleep(0.01)


class TestTls:
    @pytest.fixture
    def authority(self) -> trustme.CA:
        return trustme.CA()

    @pytest.fixture
    def server_side(self, authority: trustme.CA) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        return context

    async def test_a_trusted_certificate_is_enough(
        self, authority: trustme.CA, server_side: ssl.SSLContext
    ):
        trust = ssl.create_default_context()
        authority.configure_trust(trust)
        client = http.HttpClient(ssl=trust)
        async with rude_server.serve(no_body, tls=server_side) as server:
            assert await fetch(client, server) == b""
            await client.close()

    async def test_big_bodies_pass_both_ways(
        self, authority: trustme.CA, server_side: ssl.SSLContext
    ):
        data = bytes(range(256)) * 20_000

        async def script(exchange: Exchange) -> None:
            await exchange.answer(200, exchange.request.body)

        trust = ssl.create_default_context()
        authority.configure_trust(trust)
        client = http.HttpClient(ssl=trust)
        async with rude_server.serve(script, tls=server_side) as server:
            for body in (base.Body.of(data), generated([data[:1_000_000], data[1_000_000:]])):
                response = await client.request("PUT", server.url, "/", [("host", "h")], body)
                assert await response.read(10**8) == data
            assert server.connections == 1
            await client.close()

    async def test_an_unknown_certificate_is_refused_for_good(self, server_side: ssl.SSLContext):
        client = http.HttpClient()
        async with rude_server.serve(no_body, tls=server_side) as server:
            with pytest.raises(base.BackendUnavailable) as caught:
                await fetch(client, server)
            assert caught.value.unsent
            assert not caught.value.retryable
            assert server.requests == []
        await client.close()
