"""/health, /ready and /metrics: is the process alive, should it get traffic, what has it counted.

Rules: /health does no I/O, so a backend that is down never makes an orchestrator kill healthy
gateways. /ready asks the backend at most once in two seconds, however often it is asked itself, and
one failed ping is not yet "not ready": failures must last. While draining it says 503 at once.
Paths and bodies are a public interface.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from s4gateway.backend import base
from s4gateway.gateway import metrics

PATHS: Final = frozenset(("/health", "/ready", "/metrics"))
METHODS: Final = frozenset(("GET", "HEAD"))

HOLD_SECONDS: Final = 2.0  # age up to which an answer is repeated; failures count when they last it
PING_SECONDS: Final = 5.0


class Readiness:
    """Whether the backend answers, remembered for a short while.

    `ping` raises BackendError when there is no answer. An answer that refuses is one: readiness is
    about the way to the backend, not about permissions.
    """

    def __init__(
        self,
        backend: base.Backend,
        *,
        hold_seconds: float = HOLD_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend = backend
        self._hold = hold_seconds
        self._clock = clock
        self._lock = asyncio.Lock()
        self._ready = False
        self._failing_since: float | None = None
        self._asked_at: float | None = None

    async def check(self) -> bool:
        """Return the present answer, asking the backend when the last one is old."""
        async with self._lock:  # who waits here shares the answer
            now = self._clock()
            if self._asked_at is None or now - self._asked_at >= self._hold:
                answers = await self._ping()
                self._asked_at = self._clock()
                self._judge(self._asked_at, answers=answers)
            return self._ready

    async def _ping(self) -> bool:
        try:
            async with asyncio.timeout(PING_SECONDS):
                await self._backend.ping()
        except base.BackendAnswer as answer:
            return answer.status < 500
        except (base.BackendError, TimeoutError):
            return False
        return True

    def _judge(self, now: float, *, answers: bool) -> None:
        if answers:
            self._ready, self._failing_since = True, None
        elif self._failing_since is None:
            self._failing_since = now
        elif now - self._failing_since >= self._hold:
            self._ready = False


class Probes:
    """The three paths as an ASGI application, for a port of their own or before S3's dispatch."""

    def __init__(self, registry: metrics.Metrics, readiness: Readiness) -> None:
        self._metrics = registry
        self._readiness = readiness
        self.draining = False
        methods = sorted(METHODS)
        self._app = Starlette(
            routes=[
                Route("/health", self._health, methods=methods),
                Route("/ready", self._ready, methods=methods),
                Route("/metrics", self._exposition, methods=methods),
            ]
        )

    @staticmethod
    def handles(method: str, path: str) -> bool:
        """Whether a request is for a probe and not for S3."""
        return path in PATHS and method in METHODS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as ASGI."""
        await self._app(scope, receive, send)

    async def _health(self, _: Request) -> Response:
        return _text(200, "ok\n")

    async def _ready(self, _: Request) -> Response:
        if not self.draining and await self._readiness.check():
            return _text(200, "ready\n")
        return _text(503, "not ready\n")

    async def _exposition(self, _: Request) -> Response:
        return Response(
            self._metrics.render(), headers={"content-type": metrics.CONTENT_TYPE, **_FRESH}
        )


_FRESH: Final = {"cache-control": "no-store"}


def _text(status: int, text: str) -> Response:
    return PlainTextResponse(text, status, headers=_FRESH)
