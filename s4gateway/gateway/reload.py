"""SIGHUP: build the next generation, and only then swap.

Rules: a reload never ends the process and never leaves it half new. Whatever is wrong with the new
files is logged as an ERROR and counted, and the old generation stays as it was. Signals that arrive
while a reload runs are one more reload after it, however many they are.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable

from s4gateway.gateway import generation, logs
from s4gateway.gateway.generation import Generation, GenerationHolder
from s4gateway.gateway.metrics import Metrics

logger = logging.getLogger("s4.reload")


class Reloader:
    """Replaces the current generation on request.

    `build` makes the generation after the one it is given; it raises GenerationError, or OSError.
    `mapped` says that dictionaries are among what is read again.
    """

    def __init__(
        self,
        build: Callable[[Generation], Awaitable[Generation]],
        holder: GenerationHolder,
        metrics: Metrics,
        tls: ssl.SSLContext | None = None,
        *,
        mapped: bool = False,
    ) -> None:
        self._build = build
        self._holder = holder
        self._metrics = metrics
        self._tls = tls
        self._mapped = mapped
        self._requested = asyncio.Event()

    def request(self) -> None:
        """Ask for a reload; safe in a signal handler of the event loop."""
        self._requested.set()

    async def run(self) -> None:
        """Serve requests until cancelled."""
        while True:
            await self._requested.wait()
            self._requested.clear()
            try:
                await self.reload()
            except Exception:  # the next one may be of a sound file
                logger.exception("reload-failed")
                self._metrics.reload(ok=False, tls=self._tls is not None, dictionaries=self._mapped)

    async def reload(self) -> bool:
        """Reload once; returns whether the new generation is in use."""
        try:
            following = await self._build(self._holder.current)
            if self._tls is not None and following.certificate is not None:
                following.certificate.install(self._tls)
        except (generation.GenerationError, OSError) as error:
            problems = getattr(error, "problems", (str(error),))
            for problem in problems:
                logs.event(logger, logging.ERROR, "reload-failed", problem=problem)
            self._metrics.reload(ok=False, tls=self._tls is not None, dictionaries=self._mapped)
            return False
        self._holder.current = following
        self._metrics.reload(ok=True, tls=self._tls is not None, dictionaries=self._mapped)
        fields: dict[str, object] = {"keys": len(following.keys.keys)}
        if self._mapped:
            fields["dictionaries"] = len(following.dictionaries)
        if following.certificate is not None:
            fields["certificate_expires"] = following.certificate.expires.isoformat()
        logs.event(logger, logging.INFO, "reloaded", **fields)
        return True
