"""One exchange, with the transport in our hands: every segmentation, deadline and leftover."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4gateway.backend import base, connection

REQUEST = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
EMPTY_OK = OK + b"Content-Length: 0\r\n\r\n"


class Transport(asyncio.Transport):
    """Takes everything, until told to be full."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.aborted = False
        self.reading = True
        self.held = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.held

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def connected() -> tuple[connection.Connection, Transport]:
    wire = connection.Connection(asyncio.get_running_loop(), "http://h", lambda _: None)
    transport = Transport()
    wire.connection_made(transport)
    return wire, transport


async def started(
    wire: connection.Connection,
    body: base.Body | None = None,
    *,
    timeout: float = 10,
    is_head: bool = False,
) -> "asyncio.Task[base.Head]":
    task = asyncio.ensure_future(wire.exchange(REQUEST, body, timeout, is_head=is_head))
    await settled()
    return task


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def answered(data: bytes, *, is_head: bool = False) -> connection.Connection:
    wire, _ = connected()
    task = await started(wire, is_head=is_head)
    wire.data_received(data)
    await task
    return wire


async def failure_of(exchange: Awaitable[base.Head]) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 # the caller says which
        await exchange
    return caught.value


ANSWERS = {
    "length": (OK + b"ETag: e\r\nContent-Length: 5\r\n\r\n", b"hello", b""),
    "empty": (EMPTY_OK, b"", b""),
    "no-content": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", b""),
    "not-modified": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"", b""),
    "interim": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nX: y\r\n\r\n"
        + OK
        + b"Content-Length: 2\r\n\r\n",
        b"hi",
        b"",
    ),
    "chunked": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n",
        b"hello",
        b"2\r\nhe\r\n3;ext=1\r\nllo\r\n0\r\nTrailer: t\r\n\r\n",
    ),
}


class TestAnswers:
    @settings(max_examples=100)
    @given(name=st.sampled_from(sorted(ANSWERS)), cuts=st.lists(st.integers(1, 150), max_size=8))
    async def test_segments_do_not_matter(self, name: str, cuts: list[int]):
        head, body, encoded = ANSWERS[name]
        data = head + (encoded or body)
        edges = [0, *sorted({cut for cut in cuts if cut < len(data)}), len(data)]
        wire, transport = connected()
        task = await started(wire)
        for start, end in itertools.pairwise(edges):
            wire.data_received(data[start:end])
        answer = await task
        assert answer.status == int(data.rpartition(b"HTTP/1.1 ")[2][:3])
        assert "trailer" not in answer.headers
        assert "x" not in answer.headers
        assert b"".join(wire.pieces) == body
        assert wire.done
        assert wire.reusable
        assert not transport.aborted

    async def test_white_space_around_a_value_is_not_part_of_it(self):
        wire = await answered(OK + b"X:  a b \t \r\nEmpty:\r\nContent-Length: 0 \r\n\r\n")
        assert wire.head is not None
        assert wire.head.headers.items() == [("x", "a b"), ("empty", ""), ("content-length", "0")]

    @pytest.mark.parametrize(
        "fields", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"ETag: e\r\n"]
    )
    async def test_a_head_answer_has_no_body(self, fields: bytes):
        wire = await answered(OK + fields + b"\r\n", is_head=True)
        assert (wire.done, wire.reusable, list(wire.pieces)) == (True, True, [])
        task = await started(wire)
        wire.data_received(OK + b"Content-Length: 2\r\n\r\nok")
        await task
        assert b"".join(wire.pieces) == b"ok"

    @pytest.mark.parametrize(
        "data",
        [
            OK + b"Connection: close\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            EMPTY_OK + b"x",
            EMPTY_OK + EMPTY_OK,
            OK + b"Content-Length: 2\r\n\r\nokHTTP/1.1 200",
            OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n!",
        ],
    )
    async def test_what_leaves_something_behind_is_not_reusable(self, data: bytes):
        wire = await answered(data)
        assert wire.done
        assert not wire.reusable

    @pytest.mark.parametrize("data", [b"Content-Length: 1\r\n\r\nx", b"Connection: close\r\n\r\n"])
    async def test_a_head_answer_that_leaves_something_behind_is_not_reusable(self, data: bytes):
        wire = await answered(OK + data, is_head=True)
        assert wire.done
        assert not wire.reusable

    async def test_bytes_that_nobody_asked_for_end_the_connection(self):
        wire = await answered(EMPTY_OK)
        assert wire.reusable
        wire.data_received(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        assert not wire.reusable

    async def test_garbage_behind_a_big_body_is_seen(self):
        wire = await answered(OK + b"Content-Length: 100000\r\n\r\n")
        wire.data_received(bytes(99_999))
        assert not wire.done
        wire.data_received(b"12")
        assert wire.done
        assert sum(map(len, wire.pieces)) == 100_000
        assert not wire.reusable

    async def test_a_body_may_end_with_the_connection_where_nothing_says_its_end(self):
        wire = await answered(b"HTTP/1.1 503 Busy\r\n\r\nslow")
        assert not wire.done
        wire.eof_received()
        await wire.more()
        assert (wire.done, wire.reusable, list(wire.pieces)) == (True, False, [b"slow"])

    async def test_a_reset_is_no_such_end(self):
        wire = await answered(b"HTTP/1.1 503 Busy\r\n\r\nslow")
        wire.connection_lost(ConnectionResetError("reset"))
        with pytest.raises(base.BackendProtocolError, match="ended early: reset"):
            await wire.more()

    @pytest.mark.parametrize(
        "data",
        [
            OK + b"X: " + b"x" * 33_000 + b"\r\n\r\n",
            OK + b"X: x\r\n" * 201 + b"\r\n",
            OK + (b"X: " + b"x" * 30_000 + b"\r\n") * 3 + b"\r\n",
            OK + b"X: " + b"x" * 66_000,
            b"HTTP/1.1 103 Early\r\n\r\n" * 3000,
            b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            b"HTTP/1.1 099 What\r\n\r\n",
            OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ],
        ids=["field", "fields", "all", "endless", "interim", "upgrade", "status", "both"],
    )
    async def test_a_head_beyond_all_bounds_is_refused(self, data: bytes):
        for size in (len(data), 1000):
            wire, transport = connected()
            task = await started(wire)
            for start in range(0, len(data), size):
                if not transport.aborted:
                    wire.data_received(data[start : start + size])
            assert isinstance(await failure_of(task), base.BackendProtocolError)
            assert transport.aborted

    async def test_trailers_are_bounded(self):
        wire = await answered(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n")
        for _ in range(70):
            wire.data_received(b"T: " + b"t" * 1000 + b"\r\n")
        with pytest.raises(base.BackendProtocolError, match="headers"):
            await wire.more()


class TestFlow:
    async def test_a_reader_who_is_behind_stops_the_socket(self):
        size = 2_000_000
        wire, transport = connected()
        task = await started(wire)
        wire.data_received(OK + b"Content-Length: %d\r\n\r\n" % size)
        await task
        came = 0
        while transport.reading:
            wire.data_received(bytes(100_000))
            came += 100_000
        assert 512 * 1024 < came < 700_000
        while not transport.reading:
            wire.taken(len(wire.pieces.popleft()))
        assert 100_000 < sum(map(len, wire.pieces)) <= 256 * 1024
        wire.data_received(bytes(size - came))
        assert wire.done
        assert transport.reading
        assert wire.reusable

    async def test_a_connection_with_a_whole_answer_is_read_on(self):
        wire, transport = connected()
        task = await started(wire)
        wire.data_received(OK + b"Content-Length: 700000\r\n\r\n")
        await task
        wire.data_received(bytes(600_000))
        assert not transport.reading
        wire.data_received(bytes(100_000))  # what TLS had decrypted already
        assert wire.done
        assert transport.reading

    @pytest.mark.parametrize("size", [1, 32 * 1024])
    async def test_a_small_request_is_one_write(self, size: int):
        wire, transport = connected()
        task = await started(wire, base.Body.of(bytes(size)))
        assert transport.writes == [REQUEST + bytes(size)]
        wire.data_received(EMPTY_OK)
        assert (await task).status == 200

    async def test_a_body_waits_for_room_and_the_answer_for_nobody(self):
        wire, transport = connected()
        wire.pause_writing()
        task = await started(wire, base.Body.of(bytes(1_000_000)))
        assert sum(map(len, transport.writes)) < 300_000
        wire.resume_writing()
        await settled()
        assert b"".join(transport.writes) == REQUEST + bytes(1_000_000)
        wire.data_received(EMPTY_OK)
        assert (await task).status == 200
        assert wire.reusable

    async def test_an_early_answer_ends_the_sending(self):
        wire, _ = connected()
        wire.pause_writing()
        task = await started(wire, base.Body.of(bytes(1_000_000)))
        wire.data_received(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        assert (await task).status == 403
        assert wire.sent < 1_000_000
        assert not wire.reusable


class TestSources:
    async def test_a_source_may_object_after_its_last_byte(self):
        told = asyncio.Event()

        async def chunks() -> AsyncIterator[bytes]:
            yield b"abc"
            await told.wait()
            raise RuntimeError("checksum")

        wire, transport = connected()
        task = await started(wire, base.Body(3, chunks))
        wire.data_received(EMPTY_OK)
        await settled()
        assert not task.done()
        told.set()
        assert isinstance(await failure_of(task), RuntimeError)
        assert transport.aborted

    async def test_a_refusal_does_not_wait_for_the_source(self):
        finished = asyncio.Event()

        async def chunks() -> AsyncIterator[bytes]:
            try:
                yield b"abc"
                await asyncio.Event().wait()
            finally:
                finished.set()

        wire, _ = connected()
        task = await started(wire, base.Body(3, chunks))
        wire.data_received(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        assert (await task).status == 403
        assert finished.is_set()

    async def test_a_source_that_is_cancelled_cancels_its_request(self):
        async def chunks() -> AsyncIterator[bytes]:
            yield b"abc"
            raise asyncio.CancelledError

        wire, transport = connected()
        with pytest.raises(asyncio.CancelledError):
            await wire.exchange(REQUEST, base.Body(10, chunks), 10, is_head=False)
        assert transport.aborted

    async def test_a_cancelled_request_finishes_its_source(self):
        finished = asyncio.Event()

        async def chunks() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"abc"
                    await asyncio.sleep(0)
            finally:
                finished.set()

        wire, _ = connected()
        task = await started(wire, base.Body(10**9, chunks))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert finished.is_set()


class TestDeadlines:
    async def test_there_is_one_only_while_the_store_is_to_act(self):
        told = asyncio.Event()

        async def chunks() -> AsyncIterator[bytes]:
            await told.wait()
            yield b"abc"

        wire, _ = connected()
        assert wire.deadline == connection.NEVER
        task = await started(wire, base.Body(3, chunks))
        assert wire.deadline == connection.NEVER  # the source is slow, not the store
        told.set()
        await settled()
        assert wire.deadline < connection.NEVER
        wire.data_received(OK + b"Content-Length: 5\r\n\r\n")
        await task
        assert wire.deadline == connection.NEVER  # nobody is reading
        reader = asyncio.ensure_future(wire.more())
        await settled()
        assert wire.deadline < connection.NEVER
        wire.data_received(b"hello")
        await reader
        assert wire.deadline == connection.NEVER

    async def test_an_interim_answer_is_a_sign_of_life(self):
        wire, _ = connected()
        await started(wire)
        first = wire.deadline
        await asyncio.sleep(0.001)
        wire.data_received(b"HTTP/1.1 102 Processing\r\n\r\n")
        assert first < wire.deadline < connection.NEVER
        wire.abort()

    async def test_a_store_that_takes_bytes_slowly_is_waited_for(self):
        wire, transport = connected()
        wire.pause_writing()
        transport.held = 100
        task = await started(wire, base.Body.of(bytes(300_000)))
        transport.held = 99
        wire.expire()
        await settled()
        assert not task.done()
        wire.expire()
        error = await failure_of(task)
        assert isinstance(error, base.BackendUnavailable)
        assert "took no bytes for 10 s" in str(error)

    async def test_silence_ends_the_exchange(self):
        wire, transport = connected()
        task = await started(wire)
        wire.expire()
        error = await failure_of(task)
        assert isinstance(error, base.BackendUnavailable)
        assert not error.unsent
        assert transport.aborted

    async def test_a_connection_lost_before_its_use_was_never_sent(self):
        wire, transport = connected()
        wire.connection_lost(None)
        error = await failure_of(wire.exchange(REQUEST, None, 10, is_head=False))
        assert isinstance(error, base.BackendUnavailable)
        assert error.unsent
        assert transport.writes == []
