"""A backend that is SeaweedFS until a test tells it to misbehave.

    with meddler.between(seaweedfs) as meddling:
        meddling.rule = meddler.truncate(after=1000)   # for requests about objects
        ...  # meddling.endpoint is what the gateway is told to store in

It runs in a loop thread, keeps connections open towards the gateway, and opens one for each request
towards SeaweedFS. A rule is called with the exchange and a way to ask SeaweedFS, and does what it
likes; without a rule the answer is relayed. Host is kept, so the gateway's signature stays valid.
"""

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace

from tests import live, rude_server
from tests.rude_server import Exchange, Request


@dataclass(frozen=True, slots=True)
class Answer:
    """What SeaweedFS said. `head` holds status line and fields, with the final empty line."""

    head: bytes
    body: bytes

    @property
    def wire(self) -> bytes:
        return self.head + self.body

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    def with_field(self, name: str, value: str | None) -> "Answer":
        """The same answer with a field set, or removed."""
        lines = self.head[:-4].split(b"\r\n")
        prefix = name.lower().encode() + b":"
        kept = [line for line in lines if not line.lower().startswith(prefix)]
        if value is not None:
            kept.append(f"{name}: {value}".encode())
        return replace(self, head=b"\r\n".join(kept) + b"\r\n\r\n")


Ask = Callable[[], Awaitable[Answer]]
Rule = Callable[[Exchange, Ask], Awaitable[None]]
Applies = Callable[[Request], bool]


@dataclass(slots=True)
class Meddler:
    """`seen` lists the requests to which the rule applied."""

    upstream: live.Endpoint
    endpoint: live.Endpoint
    rule: Rule | None = None
    applies: Applies = lambda _: True
    seen: list[Request] = field(default_factory=list)
    server: rude_server.RudeServer | None = None

    @contextlib.contextmanager
    def misbehaving(self, rule: Rule, applies: Applies) -> Iterator[list[Request]]:
        """Apply a rule during the block."""
        self.seen = []
        self.rule, self.applies = rule, applies
        try:
            yield self.seen
        finally:
            self.rule = None

    async def script(self, exchange: Exchange) -> None:
        ask = functools.partial(self._ask, exchange.request)
        rule = self.rule
        if rule is not None and self.applies(exchange.request):
            self.seen.append(exchange.request)
            await rule(exchange, ask)
        else:
            await exchange.send((await ask()).wire)

    async def _ask(self, request: Request) -> Answer:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream.port)
        lines = [request.method.encode() + b" " + request.target + b" HTTP/1.1"]
        kept = [each for each in request.fields if each[0].lower() not in {"connection", "expect"}]
        lines += [f"{name}: {value}".encode("latin-1") for name, value in kept]
        writer.write(b"\r\n".join([*lines, b"Connection: close", b"", b""]) + request.body)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.read()
        finally:
            writer.close()
        return Answer(head, body).with_field("Connection", None)


@contextlib.contextmanager
def between(upstream: live.Endpoint) -> Iterator[Meddler]:
    meddler = Meddler(upstream, upstream)
    with rude_server.in_thread(meddler.script) as server:
        meddler.server = server
        meddler.endpoint = live.Endpoint(server.url, upstream.access_key, upstream.secret_key)
        yield meddler


# --- rules


async def stall(exchange: Exchange, ask: Ask) -> None:
    """Do what was asked and never say anything."""
    await ask()
    await exchange.stall()


def stall_after(count: int) -> Rule:
    """Stop in the middle of the body and keep the connection open."""

    async def rule(exchange: Exchange, ask: Ask) -> None:
        answer = await ask()
        await exchange.send(answer.head + answer.body[:count])
        await exchange.stall()

    return rule


async def reset(exchange: Exchange, ask: Ask) -> None:
    """Do what was asked and reset the connection."""
    await ask()
    exchange.reset()


def reset_after(count: int) -> Rule:
    """Reset in the middle of the body."""

    async def rule(exchange: Exchange, ask: Ask) -> None:
        answer = await ask()
        await exchange.send(answer.head + answer.body[:count])
        await asyncio.sleep(0.05)  # a reset discards what has not been read
        exchange.reset()

    return rule


def cut_after(count: int) -> Rule:
    """End cleanly in the middle of the body, whatever the head has promised."""

    async def rule(exchange: Exchange, ask: Ask) -> None:
        answer = await ask()
        await exchange.send(answer.head + answer.body[:count])
        exchange.close()

    return rule


def promise_less(count: int) -> Rule:
    """Hand out the beginning of the body as if it were all."""

    async def rule(exchange: Exchange, ask: Ask) -> None:
        answer = await ask()
        shorter = replace(answer, body=answer.body[:count])
        await exchange.send(shorter.with_field("Content-Length", str(count)).wire)

    return rule


def say(status: int, body: bytes = b"", **fields: str) -> Rule:
    """Answer something else, and do nothing."""
    headers = {name.replace("_", "-"): value for name, value in fields.items()}

    async def rule(exchange: Exchange, ask: Ask) -> None:
        await exchange.answer(status, body, headers)

    return rule


def changed(change: Callable[[Answer], Answer]) -> Rule:
    """Answer something like it."""

    async def rule(exchange: Exchange, ask: Ask) -> None:
        await exchange.send(change(await ask()).wire)

    return rule


def times(count: int, rule: Rule) -> Rule:
    """Misbehave only the first `count` times."""
    left = count

    async def limited(exchange: Exchange, ask: Ask) -> None:
        nonlocal left
        if left:
            left -= 1
            await rule(exchange, ask)
        else:
            await exchange.send((await ask()).wire)

    return limited
