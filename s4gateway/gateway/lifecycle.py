"""The life of the serving process: listen, obey signals, drain, end.

    SIGTERM, SIGINT   not ready, stop accepting, finish what runs within the drain time, reset the
                      rest; a second one resets at once
    SIGHUP            reload; never ends the process
    SIGUSR1           write the state kept on this machine; never ends the process

Rules: signals belong to the event loop and only set something; a request under way when the process
is asked to stop is finished or visibly broken, never cut to a clean end; the probes' own port stays
open until the last request is done, so that an orchestrator can watch the drain.
"""

import asyncio
import logging
import signal
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from s4gateway.gateway import logs
from s4gateway.gateway.option_types import Address
from s4gateway.gateway.protocol import Listener

logger = logging.getLogger("s4.server")

BACKLOG: Final = 2048
_POLL_SECONDS: Final = 0.02
_UNWIND_SECONDS: Final = 5.0  # for requests that were cancelled to release what they hold


class StartupError(Exception):
    """The gateway cannot run. The message has one line for each reason, for a person."""


class Signals:
    """What the operating system has asked for, from the moment this is made.

    Before `serving`, a request to stop cancels the task that is starting the gateway.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._starting = asyncio.current_task()
        self._on_reload: Callable[[], None] | None = None
        self._on_dump: Callable[[], None] | None = None
        self.stop = asyncio.Event()
        self.stop_now = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop)
        self._loop.add_signal_handler(signal.SIGHUP, self._reload)
        self._loop.add_signal_handler(signal.SIGUSR1, self._dump)

    def serving(self, on_reload: Callable[[], None], on_dump: Callable[[], None]) -> None:
        """The gateway is up: from here it stops by draining, SIGHUP reloads and SIGUSR1 dumps."""
        self._starting = None
        self._on_reload = on_reload
        self._on_dump = on_dump

    async def wait(self) -> None:
        """Return when told to stop."""
        await self.stop.wait()

    def close(self) -> None:
        """Give the signals back to their default actions."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            self._loop.remove_signal_handler(number)

    def _stop(self) -> None:
        if self.stop.is_set():
            self.stop_now.set()
        self.stop.set()
        if self._starting is not None:
            self._starting.cancel()

    def _reload(self) -> None:
        if self._on_reload is not None:
            self._on_reload()

    def _dump(self) -> None:
        if self._on_dump is not None:
            self._on_dump()


@dataclass(slots=True)
class Port:
    """A listening address and the connections that came through it."""

    listener: Listener
    server: asyncio.Server
    address: Address
    scheme: str = "http"

    @classmethod
    async def open(
        cls, listener: Listener, address: Address, tls: ssl.SSLContext | None = None
    ) -> "Port":
        """Listen; port 0 takes a free one. Raises StartupError."""
        limits = listener.limits
        try:
            server = await asyncio.get_running_loop().create_server(
                listener,
                address.host,
                address.port,
                ssl=tls,
                backlog=BACKLOG,
                ssl_handshake_timeout=None if tls is None else limits.header_seconds,
                ssl_shutdown_timeout=None if tls is None else limits.linger_seconds,
            )
        except OSError as error:
            reason = error.strerror or str(error)
            raise StartupError(f"cannot listen on {address}: {reason}") from error
        bound = server.sockets[0].getsockname()[1]
        return cls(listener, server, Address(address.host, bound), "https" if tls else "http")

    @property
    def url(self) -> str:
        """A URL under which this machine reaches the port."""
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
        host = everywhere.get(self.address.host, self.address.host)
        return f"{self.scheme}://{Address(host, self.address.port)}"

    def stop_accepting(self) -> None:
        """Refuse new connections and end the idle ones."""
        self.server.close()
        self.listener.close()

    async def abort(self) -> None:
        """Reset what is left and wait until its requests have unwound."""
        self.server.close()
        tasks = set(self.listener.state.tasks)
        self.listener.abort()
        if tasks:
            await asyncio.wait(tasks, timeout=_UNWIND_SECONDS)


@dataclass(slots=True)
class Drain:
    """How the ports are closed: the S3 port first, the probes' port when all is done."""

    s3: Port
    admin: Port | None
    seconds: float
    announce: Callable[[], None] = field(default=lambda: None)

    async def run(self, stop_now: asyncio.Event) -> bool:
        """Drain; returns whether every request was finished."""
        self.announce()
        listener = self.s3.listener
        logs.event(logger, logging.INFO, "draining", connections=len(listener.connections))
        self.s3.stop_accepting()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.seconds
        while listener.busy and loop.time() < deadline and not stop_now.is_set():  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)
        unfinished = len(listener.state.tasks)
        if unfinished:
            logs.event(logger, logging.WARNING, "drain-incomplete", aborted=unfinished)
        await self.s3.abort()
        if self.admin is not None:
            await self.admin.abort()
        return unfinished == 0
