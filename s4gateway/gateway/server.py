"""The composition root of the gateway: the only place that knows every part.

Rule: everything below receives what it needs, so this file decides which backend, which identity,
which limits, which port. What can be wrong with the machine (files, ports, credentials) is found
here before the first request and said in a line; a backend that is away is not wrong, it may come
back, and until then /ready says so. Only a gateway with mapped dictionaries needs it from the
start, because it will not begin with mappings it has not verified.
"""

import asyncio
import ctypes
import functools
import gc
import logging
import os
import ssl
import sys
import tempfile
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import uvloop
from starlette.types import ASGIApp, Receive, Scope, Send

from s4gateway.backend import base, credentials
from s4gateway.backend.client import Endpoint, S3Backend
from s4gateway.backend.http import HttpClient
from s4gateway.gateway import generation, logs, protocol, savings
from s4gateway.gateway.app import S4App
from s4gateway.gateway.client_keys import ClientKey, ClientKeys
from s4gateway.gateway.config import GatewayConfig
from s4gateway.gateway.embedded import EmbeddedEndpoint, EmbeddedError, EmbeddedServer
from s4gateway.gateway.generation import Generation, GenerationHolder
from s4gateway.gateway.lifecycle import Drain, Port, Signals, StartupError
from s4gateway.gateway.metrics import Metrics
from s4gateway.gateway.option_types import MIB, Address
from s4gateway.gateway.probes import PATHS, Probes, Readiness
from s4gateway.gateway.reload import Reloader
from s4gateway.objects.dictionary_store import Loader
from s4gateway.s3.sigv4 import Credentials

logger = logging.getLogger("s4.server")

EXIT_OK: Final = 0
EXIT_FAILURE: Final = 1

_OWN_PAIR_SECONDS: Final = 30.0  # how old the copy of renewed backend credentials may be
_ADMIN_CONNECTIONS: Final = 64

# malloc.h of glibc
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8


# A request leaves no cycles behind, so looking for them every 700 objects only costs.
_GC_THRESHOLD: Final = (50_000, 20, 50)


def run(config: GatewayConfig) -> int:
    """Serve until told to stop; returns the exit status. Raises StartupError."""
    tune_allocator()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(config))


def tune_allocator() -> None:
    """Keep freed blocks of body size in the process.

    By default glibc maps each block above 128 KiB anew, and the page faults cost more than the work
    between them; an arena for every thread would multiply what is kept. Other libcs are left alone.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_MMAP_THRESHOLD, 32 * MIB)
        libc.mallopt(_M_TRIM_THRESHOLD, 256 * MIB)
        libc.mallopt(_M_ARENA_MAX, 2)


async def serve(config: GatewayConfig) -> int:
    """Run the gateway in this event loop; returns the exit status."""
    signals = Signals()
    try:
        async with AsyncExitStack() as stack:
            gateway = await Gateway.start(config, stack)
            return await gateway.run(signals)
    except asyncio.CancelledError:
        if signals.stop.is_set():  # told to stop while it was starting
            return EXIT_OK
        raise
    finally:
        signals.close()


@dataclass(slots=True)
class Gateway:
    """A started gateway: what has to be reached once it serves."""

    config: GatewayConfig
    app: S4App
    probes: Probes
    own: "OwnPair"
    reloader: Reloader
    dumps: savings.Dumps
    s3: Port
    admin: Port | None
    embedded: "Embedded | None"

    @classmethod
    async def start(cls, config: GatewayConfig, stack: AsyncExitStack) -> "Gateway":
        """Start every part, bottom up; `stack` ends them in reverse. Raises StartupError."""
        check_spool(config.spool_dir)
        embedded = await Embedded.start(config, stack)
        own = OwnPair(_provider(embedded))
        await own.refresh()
        backend = _backend(config, embedded, own.provider)
        stack.push_async_callback(backend.close)
        loader = Loader(backend, config.zstd_level, config.zstd_dict_max_bytes)
        build = functools.partial(
            generation.build, config, ClientKeys(backend_pair=own.current), loader
        )
        holder = GenerationHolder(await _checked(build()))
        metrics = Metrics()
        ledger, dumps = await savings.open_ledger(config, metrics, stack)
        app = S4App(backend, config, metrics, holder, ledger)
        metrics.watch_in_flight(lambda: app.in_flight)
        await app.startup()
        stack.push_async_callback(app.shutdown)
        probes = Probes(metrics, Readiness(backend))
        certificate = holder.current.certificate
        tls = None if certificate is None else generation.server_context(certificate)
        s3, admin = await _open_ports(config, app, probes, metrics, tls)
        mapped = config.zstd_dict_map is not None
        reloader = Reloader(build, holder, metrics, tls, mapped=mapped)
        return cls(config, app, probes, own, reloader, dumps, s3, admin, embedded)

    async def run(self, signals: Signals) -> int:
        """Serve until told to stop, then drain; returns the exit status."""
        loop = asyncio.get_running_loop()
        told = loop.create_task(signals.wait())
        background = [
            loop.create_task(self.reloader.run()),
            loop.create_task(self.dumps.run()),
            loop.create_task(self.own.keep_fresh()),
        ]
        ends: list[asyncio.Task[None]] = [told]
        if self.embedded is not None:
            ends.append(loop.create_task(self.embedded.watch()))
        signals.serving(self.reloader.request, self.dumps.request)
        self._announce()
        gc.collect()
        gc.freeze()  # what exists now lives as long as the process
        gc.set_threshold(*_GC_THRESHOLD)
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            drain = Drain(self.s3, self.admin, self.config.drain_seconds, self._not_ready)
            finished = await drain.run(signals.stop_now)
        finally:
            for task in (*ends, *background):
                task.cancel()
        logs.event(logger, logging.INFO, "stopped")
        return EXIT_OK if finished and told.done() else EXIT_FAILURE

    def _not_ready(self) -> None:
        self.app.draining = self.probes.draining = True

    def _announce(self) -> None:
        """Say where the gateway is; embedded, also the lines that make a shell its client."""
        fields: dict[str, object] = {"url": self.s3.url}
        if self.admin is not None:
            fields["admin"] = self.admin.url
        store = self.config.endpoint_url
        fields["backend"] = store if self.embedded is None else self.embedded.endpoint.endpoint_url
        logs.event(logger, logging.INFO, "listening", **fields)
        if self.embedded is None:
            return
        lines = [f"export AWS_ENDPOINT_URL={self.s3.url}\n"]
        if self.config.credentials is None:  # otherwise this pair is not one of the clients'
            endpoint = self.embedded.endpoint
            lines[:0] = [
                f"export AWS_ACCESS_KEY_ID={endpoint.access_key}\n",
                f"export AWS_SECRET_ACCESS_KEY={endpoint.secret_key}\n",
            ]
        sys.stdout.write("".join(lines))
        sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class Embedded:
    """The S3 server of our own, while it runs."""

    server: EmbeddedServer
    endpoint: EmbeddedEndpoint

    @classmethod
    async def start(cls, config: GatewayConfig, stack: AsyncExitStack) -> "Embedded | None":
        """Start it when the configuration asks for it; raises StartupError."""
        if config.embedded is None:
            return None
        server = EmbeddedServer(config.embedded)
        try:
            endpoint = await server.start()
        except EmbeddedError as error:
            raise StartupError(str(error)) from error
        stack.push_async_callback(server.stop)
        return cls(server, endpoint)

    async def watch(self) -> None:
        """Return when the server has ended by itself, which is a fault."""
        status = await self.server.wait()
        logs.event(logger, logging.ERROR, "embedded-server-ended", status=status)


class OwnPair:
    """The gateway's own key pair at hand without waiting: clients may sign with it.

    Providers renew credentials and are asynchronous; a signature check is neither. This copy is at
    most half a minute old, far less than two successive temporary pairs overlap.
    """

    def __init__(self, provider: credentials.Provider) -> None:
        self.provider = provider
        self._current: ClientKey | None = None

    def current(self) -> ClientKey | None:
        """The latest pair."""
        return self._current

    async def refresh(self) -> None:
        """Ask the provider; raises StartupError when there are no credentials."""
        try:
            pair = await self.provider.get(datetime.now(UTC))
        except base.BackendError as error:
            raise StartupError(str(error)) from error
        self._current = None if pair is None else ClientKey.of(pair)

    async def keep_fresh(self) -> None:
        """Ask again and again, until cancelled; a failure keeps the pair that is known."""
        while True:
            await asyncio.sleep(_OWN_PAIR_SECONDS)
            try:
                await self.refresh()
            except StartupError:
                continue  # who signs with it says so
            except Exception:
                logger.exception("own-pair-not-refreshed")


def check_spool(directory: Path) -> None:
    """Raise StartupError unless files can be made there."""
    try:
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise StartupError(f"--spool-dir: {directory}: {error.strerror}") from error


def _provider(embedded: Embedded | None) -> credentials.Provider:
    if embedded is None:
        return credentials.default_chain(os.environ, Path.home())
    pair = Credentials(embedded.endpoint.access_key, embedded.endpoint.secret_key)
    return credentials.Static(pair)


async def _checked(building: Awaitable[Generation]) -> Generation:
    try:
        return await building
    except generation.GenerationError as error:
        raise StartupError("\n".join(error.problems)) from error


def _backend(
    config: GatewayConfig, embedded: Embedded | None, provider: credentials.Provider
) -> S3Backend:
    url = config.endpoint_url if embedded is None else embedded.endpoint.endpoint_url
    assert url is not None  # config_sources.require_backend
    http = HttpClient(
        connect_timeout=config.backend_connect_timeout_seconds,
        read_timeout=config.backend_read_timeout_seconds,
        pool_size=config.backend_pool_size,
    )
    checksum = config.backend_profile.checksums
    return S3Backend(Endpoint(url, config.region), provider, http, checksum=checksum)


def limits(config: GatewayConfig) -> protocol.Limits:
    """What a client of the S3 port may take."""
    return protocol.Limits(
        header_bytes=config.max_header_bytes,
        connections=config.max_concurrent_connections,
        header_seconds=config.header_timeout_seconds,
        progress_seconds=config.read_timeout_seconds,
        idle_seconds=config.keep_alive_seconds,
    )


async def _open_ports(
    config: GatewayConfig,
    app: ASGIApp,
    probes: Probes,
    metrics: Metrics,
    tls: ssl.SSLContext | None,
) -> tuple[Port, Port | None]:
    """Open the probes' port first: while the S3 port opens they can already tell."""
    if config.admin_listen is None:
        s3 = protocol.Listener(
            before_s3(probes, app),
            limits(config),
            note=metrics.connection_fault,
            exempt=probes.handles,
        )
        return await Port.open(s3, Address(config.host, config.port), tls), None
    listener = protocol.Listener(probes, protocol.Limits(connections=_ADMIN_CONNECTIONS))
    admin = await Port.open(listener, config.admin_listen)
    s3 = protocol.Listener(app, limits(config), note=metrics.connection_fault)
    try:
        return await Port.open(s3, Address(config.host, config.port), tls), admin
    except StartupError:
        await admin.abort()
        raise


def before_s3(probes: Probes, app: ASGIApp) -> ASGIApp:
    """Give the probes' paths to the probes and everything else to S3."""

    def dispatch(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["path"] in PATHS and probes.handles(scope["method"], scope["path"]):
            return probes(scope, receive, send)
        return app(scope, receive, send)

    return dispatch
