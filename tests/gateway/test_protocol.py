import asyncio
import os
import ssl

import pytest
import trustme
from starlette.types import Receive, Scope, Send

from s4gateway.gateway import cycle, protocol
from tests.gateway.served import (
    HURRIED,
    PATIENT,
    Served,
    answer,
    describe,
    echo,
    in_uvloop,
    read_all,
    sender,
    served,
)

GET = b"GET /b/k HTTP/1.1\r\nhost: x\r\n\r\n"
MIB = 1024 * 1024


def put(size: int, *lines: bytes) -> bytes:
    head = [b"PUT /b/k HTTP/1.1", b"host: x", b"content-length: %d" % size, *lines]
    return b"\r\n".join(head) + b"\r\n\r\n"


async def _received(server: Served, size: int) -> None:
    """Return once the only connection has so many bytes of its request's body."""
    while not any(  # noqa: ASYNC110 - the connection tells nobody
        each.cycle is not None and each.cycle.received >= size
        for each in server.listener.connections
    ):
        await asyncio.sleep(0.001)


# --- requests and answers


@in_uvloop
async def test_a_request_is_answered_and_the_connection_kept():
    async with served(echo) as server:
        client = await server.connect()
        for body in (b"", b"abc", b"x" * 300_000):
            client.say(put(len(body)) + body)
            status, headers, received = await client.hear()
            assert (status, received) == (200, body)
            assert "date" in headers
            assert "server" not in headers


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 262_144, 3 * MIB + 7])
@pytest.mark.parametrize("cut", [1, 1000, 70_000, 1 << 30])
@in_uvloop
async def test_a_body_arrives_whole_however_it_is_cut(size: int, cut: int):
    body = os.urandom(size)
    async with served(echo) as server:
        client = await server.connect()
        reading = asyncio.get_running_loop().create_task(client.hear())
        client.say(put(size))
        if size // cut > 3000:
            cut = size // 3000
        for start in range(0, size, cut):
            client.say(body[start : start + cut])
            await client.writer.drain()
        _, _, received = await reading
        assert received == body
        client.say(put(3) + b"end")  # and the next request is found where the body ended
        assert (await client.hear())[2] == b"end"


@in_uvloop
async def test_a_request_sent_right_behind_a_long_body_is_answered():
    body = os.urandom(MIB)
    async with served(echo) as server:
        client = await server.connect()
        client.say(put(MIB) + body + put(4) + b"tail" + GET)
        assert (await client.hear())[2] == body
        assert (await client.hear())[2] == b"tail"
        assert (await client.hear())[2] == b""


@in_uvloop
async def test_a_chunked_body_arrives_whole_and_its_trailers_are_not_headers():
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_all(receive)
        seen.append(dict(scope["headers"]))
        await answer(send, body)

    async with served(app) as server:
        client = await server.connect()
        client.say(b"PUT /b/k HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        client.say(b"3\r\nabc\r\n100000\r\n" + b"y" * 0x100000 + b"\r\n")
        client.say(b"0\r\nauthorization: forged\r\n\r\n")
        assert (await client.hear())[2] == b"abc" + b"y" * 0x100000
        assert b"authorization" not in seen[0]


@in_uvloop
async def test_the_application_gets_long_segments_uncopied_and_short_ones_joined():
    sizes = []
    release = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await release.wait()
        while (message := await receive())["more_body"]:
            sizes.append(len(message["body"]))
        await answer(send)

    async with served(app) as server:
        client = await server.connect()
        client.say(put(40_000))
        for _ in range(400):
            client.say(b"z" * 100)
            await asyncio.sleep(0)
        await _received(server, 40_000)
        release.set()
        await client.hear()
        assert len(sizes) < 100


@in_uvloop
async def test_an_application_that_does_not_read_stops_the_client():
    release = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await release.wait()
        await read_all(receive)
        await answer(send)

    async with served(app) as server:
        client = await server.connect()
        client.say(put(64 * MIB))
        client.say(bytes(64 * MIB))
        await _received(server, cycle.EARLY_HIGH_WATER)
        await asyncio.sleep(0.3)  # time in which more could come
        (connection,) = server.listener.connections
        assert connection.cycle.received <= cycle.EARLY_HIGH_WATER + 256 * 1024
        release.set()
        assert (await client.hear())[0] == 200


@in_uvloop
async def test_expect_100_continue_is_answered_when_the_body_is_asked_for():
    async with served(echo) as server:
        client = await server.connect()
        client.say(put(3, b"expect: 100-continue"))
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.say(b"abc")
        assert (await client.hear())[2] == b"abc"


@in_uvloop
async def test_a_refusal_before_100_continue_ends_the_connection():
    # Whether the body still comes is up to the client, so what follows cannot be told apart.
    async with served(sender(lambda send: answer(send, b"no", 403))) as server:
        client = await server.connect()
        client.say(put(3, b"expect: 100-continue"))
        status, headers, _ = await client.hear()
        assert (status, headers["connection"]) == (403, "close")
        assert await client.ends() == b""


@in_uvloop
async def test_an_early_answer_is_read_by_a_client_that_is_still_sending():
    async with served(sender(lambda send: answer(send, b"no", 403))) as server:
        client = await server.connect()
        client.say(put(8 * MIB))
        for _ in range(8):
            client.say(bytes(MIB))
            await client.writer.drain()
        assert (await client.hear())[::2] == (403, b"no")
        client.say(GET)  # the rest of the body was dropped, the connection lives
        assert (await client.hear())[0] == 403


@in_uvloop
async def test_head_and_304_carry_the_length_of_the_body_but_not_the_body():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        status = 304 if scope["method"] == "GET" else 200
        await answer(send, b"12345", status)

    async with served(app) as server:
        client = await server.connect()
        for request, status in ((GET.replace(b"GET", b"HEAD"), 200), (GET, 304)):
            client.say(request)
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert b" %d " % status in head
            assert b"content-length: 5\r\n" in head
        client.say(GET.replace(b"host", b"connection: close\r\nhost"))
        await client.reader.readuntil(b"\r\n\r\n")
        assert await client.ends() == b""


@in_uvloop
async def test_an_answer_without_a_length_is_chunked_for_1_1_and_ends_the_connection_for_1_0():
    async def stream(send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        await send({"type": "http.response.body", "body": memoryview(b"cd"), "more_body": True})
        await send({"type": "http.response.body"})

    async with served(sender(stream)) as server:
        client = await server.connect()
        client.say(GET)
        assert (await client.hear())[2] == b"abcd"
        client.say(GET.replace(b"1.1", b"1.0"))
        rest = await client.ends()
        assert rest.endswith(b"\r\n\r\nabcd")
        assert b"chunked" not in rest


@in_uvloop
async def test_a_large_answer_of_memoryviews_arrives_whole():
    data = os.urandom(5 * MIB + 3)

    async def stream(send: Send) -> None:
        length = (b"content-length", b"%d" % len(data))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        for start in range(0, len(data), 700_000):
            piece = memoryview(data)[start : start + 700_000]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with served(sender(stream)) as server:
        client = await server.connect()
        client.say(GET)
        assert (await client.hear())[2] == data


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        (b"/b/a%2Fb/../c//d?x=1&y", b"GET /b/a%2Fb/../c//d x=1&y /b/a/b/../c//d"),
        (b"http://host:1/b/k?v", b"GET /b/k v /b/k"),
        (b"http://host", b"GET /  /"),
        (b"/b/%C3%A9", b"GET /b/%C3%A9  /b/\xc3\xa9"),
        (b"/b/k?a?b", b"GET /b/k a?b /b/k"),
    ],
)
@in_uvloop
async def test_the_target_reaches_the_application_as_it_was_sent(target: bytes, seen: bytes):
    async with served(describe) as server:
        client = await server.connect()
        client.say(b"GET " + target + b" HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await client.hear())[2] == seen


@in_uvloop
async def test_an_offer_to_upgrade_is_ignored():
    upgrade = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMA\r\n"
    async with served(describe) as server:
        client = await server.connect()
        client.say(GET[:-2] + upgrade + b"\r\n" + GET)
        assert (await client.hear())[0] == 200
        assert (await client.hear())[0] == 200


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("cut", [1, 100, 1 << 30])
@pytest.mark.parametrize("size", [0, 80, 200_000])
@in_uvloop
async def test_a_body_behind_an_offer_to_upgrade_arrives_whole(
    size: int, cut: int, *, chunked: bool
):
    """As java.net.http and `curl --http2` send it. The body looks like requests."""
    body = (b"DELETE /b/k HTTP/1.1\r\nhost: x\r\n\r\n" * (size // 33 + 1))[:size]
    offer = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMA"
    head, sent = put(size, offer), body
    if chunked:
        head = b"PUT /b/k HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n%b\r\n\r\n" % offer
        sent = (b"%x\r\n%b\r\n" % (size, body) if size else b"") + b"0\r\n\r\n"
    methods = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        methods.append(scope["method"])
        await answer(send, await read_all(receive))

    message = head + sent
    cut = max(cut, len(message) // 3000)
    async with served(app) as server:
        client = await server.connect()
        for start in range(0, len(message), cut):
            client.say(message[start : start + cut])
            await client.writer.drain()
        assert (await client.hear())[2] == body
        client.say(GET + message + GET)
        assert [(await client.hear())[2] for _ in range(3)] == [b"", body, b""]
    assert methods == ["PUT", "GET", "PUT", "GET"]


@in_uvloop
async def test_what_follows_an_answer_that_ends_the_connection_is_not_acted_on():
    methods = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        methods.append(scope["method"])
        if scope["method"] == "PUT":
            await answer(send, b"refused", 403, (b"connection", b"close"))
        else:
            await answer(send)

    async with served(app) as server:
        client = await server.connect()
        client.say(put(50))
        assert (await client.hear())[0] == 403
        client.say(b"x" * 50 + b"DELETE /b/k HTTP/1.1\r\nhost: x\r\n\r\n")
        assert await client.ends() == b""
        while server.listener.connections:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
    assert methods == ["PUT"]


@in_uvloop
async def test_who_comes_after_the_drain_has_begun_is_not_served():
    async with served(echo) as server:
        early = await server.connect()
        early.say(put(3) + b"ab")
        await _received(server, 2)
        server.listener.close()
        late = await server.connect()
        late.say(GET)
        assert await late.ends() == b""
        early.say(b"c")
        assert (await early.hear())[2] == b"abc"


@in_uvloop
async def test_a_request_waiting_behind_another_is_not_blamed_for_that():
    release = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "GET":
            await release.wait()
        await answer(send, await read_all(receive))

    async with served(app, HURRIED) as server:
        client = await server.connect()
        client.say(GET + put(3) + b"ab")
        await asyncio.sleep(3 * HURRIED.progress_seconds)
        release.set()
        assert (await client.hear())[0] == 200
        client.say(b"c")
        assert (await client.hear())[2] == b"abc"
        assert server.notes == []


# --- answers that cannot be given


@in_uvloop
async def test_an_unknown_fault_before_the_answer_is_an_s3_error(
    caplog: pytest.LogCaptureFixture,
):
    async def broken(send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError("nobody thought of this")

    async with served(sender(broken)) as server:
        client = await server.connect()
        client.say(GET)
        status, headers, body = await client.hear()
        assert status == 500
        assert b"<Code>InternalError</Code>" in body
        assert headers["x-amz-request-id"].upper().encode() in body
        assert b"nobody" not in body
        assert "application-failed" in caplog.text


@pytest.mark.parametrize("declared", [True, False])
@in_uvloop
async def test_a_fault_inside_the_answer_resets_the_connection(*, declared: bool):
    async def broken(send: Send) -> None:
        headers = [(b"content-length", b"1000000")] if declared else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
        await asyncio.sleep(0.05)
        raise ValueError("too late for a status")

    async with served(sender(broken)) as server:
        client = await server.connect()
        client.say(GET)
        await client.reader.readuntil(b"\r\n\r\n")
        await client.read_until_reset()


@pytest.mark.parametrize("length", [3, 5])
@in_uvloop
async def test_an_answer_of_another_length_than_declared_is_never_complete(length: int):
    async def lying(send: Send) -> None:
        headers = [(b"content-length", b"%d" % length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"1234"})

    async with served(sender(lying)) as server:
        client = await server.connect()
        client.say(GET)
        assert (await client.hear())[0] == 500


@pytest.mark.parametrize("header", [(b"x-a", b"1\r\nx-b: 2"), (b"x-a: 1\r\nx-b", b"2")])
@in_uvloop
async def test_a_header_cannot_smuggle_another(header: tuple[bytes, bytes]):
    async with served(sender(lambda send: answer(send, b"", 200, header))) as server:
        client = await server.connect()
        client.say(GET)
        status, headers, _ = await client.hear()
        assert status == 500
        assert "x-b" not in headers


@in_uvloop
async def test_an_application_that_forgets_to_answer_is_a_500():
    async def silent(send: Send) -> None:
        pass

    async with served(sender(silent)) as server:
        client = await server.connect()
        client.say(GET)
        assert (await client.hear())[0] == 500


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS on the plain port
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /b/\xc3\xa9 HTTP/1.1\r\n\r\n",
        b"BREW /pot HTTP/1.1\r\n\r\n",
        b"PUT /b/k HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
        b"PUT /b/k HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n",
        b"PUT /b/k HTTP/1.1\r\ncontent-length: -3\r\n\r\n",
    ],
)
@in_uvloop
async def test_what_is_not_http_gets_a_400_in_s3s_words(garbage: bytes):
    async with served(echo) as server:
        client = await server.connect()
        client.say(garbage)
        status, headers, body = await client.hear()
        assert (status, headers["connection"]) == (400, "close")
        assert b"<Code>InvalidRequest</Code>" in body
        assert await client.ends() == b""
        assert server.notes == ["malformed"]


@pytest.mark.parametrize("line", [b"OPTIONS *", b"CONNECT host:443", b"GET /b/k#part"])
@in_uvloop
async def test_a_target_that_is_no_path_is_refused(line: bytes):
    async with served(describe) as server:
        client = await server.connect()
        client.say(line + b" HTTP/1.1\r\nhost: x\r\n\r\n")
        status, _, body = await client.hear()
        assert status == 400
        assert b"<Code>InvalidURI</Code>" in body


@in_uvloop
async def test_garbage_inside_a_chunked_body_never_ends_it():
    ended = asyncio.Queue[bytes | None]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            ended.put_nowait(await read_all(receive))
        except ConnectionError:
            ended.put_nowait(None)

    async with served(app) as server:
        client = await server.connect()
        client.say(b"PUT /b/k HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nZZ\r\n")
        assert (await client.hear())[0] == 400
        assert await ended.get() is None


# --- limits


@in_uvloop
async def test_a_client_that_never_completes_its_headers_is_told_and_cut_off():
    async with served(echo, HURRIED) as server:
        client = await server.connect()
        client.say(b"GET / HTTP/1.1\r\n")

        async def drip() -> None:  # progress does not help: this deadline is absolute
            for number in range(1000):
                client.say(b"x-%d: y\r\n" % number)
                await asyncio.sleep(0.02)

        dripping = asyncio.get_running_loop().create_task(drip())
        status, _, body = await client.hear()
        assert status == 400
        assert b"<Code>RequestTimeout</Code>" in body
        await client.ends()
        dripping.cancel()
        assert "header-timeout" in server.notes


@in_uvloop
async def test_a_connection_that_says_nothing_is_closed():
    async with served(echo, HURRIED) as server:
        fresh, used = await server.connect(), await server.connect()
        used.say(GET)
        await used.hear()
        assert await used.ends() == b""
        assert await fresh.ends() == b""
        assert server.notes == ["idle-timeout", "idle-timeout"]


@in_uvloop
async def test_a_slow_upload_that_makes_progress_survives():
    async with served(echo, HURRIED) as server:
        client = await server.connect()
        client.say(put(12))
        for _ in range(12):  # longer in total than any limit
            await asyncio.sleep(HURRIED.progress_seconds / 10)
            client.say(b"z")
        assert (await client.hear())[::2] == (200, b"z" * 12)


@pytest.mark.parametrize("sent", [0, 5, 200_000])
@in_uvloop
async def test_an_upload_that_stalls_is_told_and_the_application_hears_of_it(sent: int):
    gone = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await read_all(receive)
        except ConnectionError:
            gone.set()

    async with served(app, HURRIED) as server:
        client = await server.connect()
        client.say(put(MIB) + b"z" * sent)
        status, _, body = await client.hear()
        assert status == 400
        assert b"<Code>RequestTimeout</Code>" in body
        await gone.wait()
        assert "read-timeout" in server.notes
        await client.ends()


@in_uvloop
async def test_a_client_is_not_blamed_for_a_slow_application():
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(HURRIED.progress_seconds * 1.5)
        await answer(send, b"%d" % len(await read_all(receive)))

    async with served(slow, HURRIED) as server:
        uploading, waiting = await server.connect(), await server.connect()
        uploading.say(put(2 * MIB) + bytes(2 * MIB))
        waiting.say(put(3, b"expect: 100-continue"))
        assert (await uploading.hear())[2] == b"%d" % (2 * MIB)
        await waiting.reader.readuntil(b"\r\n\r\n")
        waiting.say(b"abc")
        assert (await waiting.hear())[2] == b"3"
        assert server.notes == []


async def _endless(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": bytes(MIB), "more_body": True})


@in_uvloop
async def test_a_client_that_stops_reading_is_reset_and_the_application_unwinds():
    unwound = asyncio.Event()

    async def stream(send: Send) -> None:
        try:
            await _endless(send)
        finally:
            unwound.set()

    async with served(sender(stream), HURRIED) as server:
        client = await server.connect()
        client.writer.transport.pause_reading()
        client.say(GET)
        await unwound.wait()
        assert server.notes == ["write-timeout"]
        assert not server.listener.connections


@in_uvloop
async def test_a_client_that_reads_slowly_is_served():
    data = bytes(24 * MIB)

    async with served(sender(lambda send: answer(send, data)), HURRIED) as server:
        client = await server.connect()
        client.say(GET)
        await client.reader.readuntil(b"\r\n\r\n")
        received = 0
        while received < len(data):
            received += len(await client.reader.read(MIB))
            if received < 16 * MIB:
                await asyncio.sleep(HURRIED.progress_seconds / 10)
        assert "write-timeout" not in server.notes


@in_uvloop
async def test_headers_above_the_cap_are_refused_however_they_come():
    limits = protocol.Limits(header_bytes=8192)
    long = b"x-a: " + b"y" * 9000 + b"\r\n"
    async with served(echo, limits) as server:
        many = b"".join(b"x-%d: y\r\n" % number for number in range(2000))
        for block in (long, many, b"x-a: " + b"y" * 9000):
            for cut in (100, 1 << 20):
                client = await server.connect()
                client.say(b"GET / HTTP/1.1\r\n")
                for start in range(0, len(block), cut):
                    client.say(block[start : start + cut])
                    await asyncio.sleep(0)
                client.say(b"\r\n\r\n")
                status, _, body = await client.hear()
                assert status == 400
                assert b"<Code>RequestHeaderSectionTooLarge</Code>" in body
        client = await server.connect()
        client.say(b"GET /" + b"k" * 9000 + b" HTTP/1.1\r\n\r\n")
        assert (await client.hear())[0] == 400


@in_uvloop
async def test_headers_just_below_the_cap_are_served():
    async with served(echo, protocol.Limits(header_bytes=8192)) as server:
        client = await server.connect()
        client.say(GET[:-2] + b"x-a: " + b"y" * 8000 + b"\r\n\r\n")
        assert (await client.hear())[0] == 200


@in_uvloop
async def test_connections_above_the_cap_get_slow_down_but_probes_are_answered():
    limits = protocol.Limits(connections=2)

    def is_probe(method: str, path: str) -> bool:
        return path == "/health"

    async with served(echo, limits, exempt=is_probe) as server:
        first, second, third = [await server.connect() for _ in range(3)]
        for client in (first, second):
            client.say(GET)
            assert (await client.hear())[0] == 200
        third.say(b"GET /health HTTP/1.1\r\n\r\n")
        assert (await third.hear())[0] == 200
        third.say(GET)
        status, headers, body = await third.hear()
        assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
        assert b"<Code>SlowDown</Code>" in body
        assert await third.ends() == b""


@in_uvloop
async def test_a_client_that_leaves_is_noticed_while_it_uploads_and_while_it_is_answered():
    began, heard = asyncio.Event(), asyncio.Queue[str]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        began.set()
        try:
            if scope["method"] == "PUT":
                await read_all(receive)
            else:
                await _endless(send)
        except ConnectionError as error:
            heard.put_nowait(f"{scope['method']} {type(error).__name__}")
            raise

    async with served(app) as server:
        client = await server.connect()
        client.say(put(MIB) + bytes(300_000))
        await began.wait()
        client.writer.transport.abort()
        assert (await heard.get()).startswith("PUT")
        client = await server.connect()
        client.say(GET)
        await client.reader.read(1000)
        client.writer.transport.abort()
        assert await heard.get() == "GET ClientGone"


# --- ending


@in_uvloop
async def test_a_drain_ends_idle_connections_and_finishes_running_requests():
    began, release = asyncio.Event(), asyncio.Event()

    async def slow(send: Send) -> None:
        began.set()
        await release.wait()
        await answer(send, b"done")

    async with served(sender(slow)) as server:
        idle, busy = await server.connect(), await server.connect()
        busy.say(GET)
        await began.wait()
        server.listener.close()
        assert await idle.ends() == b""
        release.set()
        status, headers, body = await busy.hear()
        assert (status, body, headers["connection"]) == (200, b"done", "close")
        assert await busy.ends() == b""
        while server.listener.busy:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@in_uvloop
async def test_an_abort_resets_what_runs():
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        began.set()
        try:
            await _endless(send)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with served(app) as server:
        client = await server.connect()
        client.writer.transport.pause_reading()
        client.say(GET)
        await began.wait()
        server.listener.abort()
        await cancelled.wait()
        client.writer.transport.resume_reading()
        await client.read_until_reset()


@in_uvloop
async def test_bodies_and_deadlines_work_the_same_over_tls():
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    trust = ssl.create_default_context()
    ca.configure_trust(trust)
    body = os.urandom(3 * MIB)
    async with served(echo, HURRIED, tls=context, trust=trust) as server:
        client = await server.connect()
        client.say(put(len(body)) + body)
        assert (await client.hear())[2] == body
        client.say(b"GET / HT")
        assert (await client.hear())[0] == 400
        assert "header-timeout" in server.notes
    async with served(
        sender(lambda send: answer(send, b"no", 403)), PATIENT, tls=context, trust=trust
    ) as server:
        client = await server.connect()
        client.say(put(4 * MIB))
        for _ in range(4):
            client.say(bytes(MIB))
            await client.writer.drain()
        assert (await client.hear())[0] == 403
