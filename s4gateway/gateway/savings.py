"""The savings ledger's place in the process: opened before the first request, written on SIGUSR1,
closed after the last.

Rule: off means absent: no file, no metric family, and SIGUSR1 does nothing. A state file's place
that cannot be used is found at the start; what goes wrong later costs no request.
"""

import asyncio
import logging
from contextlib import AsyncExitStack

from s4gateway.gateway import logs
from s4gateway.gateway.config import GatewayConfig
from s4gateway.gateway.ledger_metrics import LedgerMetrics
from s4gateway.gateway.lifecycle import StartupError
from s4gateway.gateway.metrics import Metrics
from s4gateway.state.files import StateFileError
from s4gateway.state.live_ledger import LiveLedger

logger = logging.getLogger("s4.ledger")

_FLAG = "--savings-ledger-state-file"


class Dumps:
    """SIGUSR1: the ledger's own flush once more, whether or not something has changed.

    Signals that arrive while one runs are one more after it, however many they are. Without a
    ledger they do nothing.
    """

    def __init__(self, ledger: LiveLedger | None, metrics: LedgerMetrics | None) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._requested = asyncio.Event()

    def request(self) -> None:
        """Ask for one; safe in a signal handler of the event loop."""
        self._requested.set()

    async def run(self) -> None:
        """Serve requests until cancelled."""
        while True:
            await self._requested.wait()
            self._requested.clear()
            if self._ledger is not None and self._metrics is not None:
                written = await self._ledger.flush(forced=True)
                self._metrics.dumped(ok=written)
                level = logging.INFO if written else logging.ERROR
                logs.event(logger, level, "ledger-dumped", ok=written)


async def open_ledger(
    config: GatewayConfig, metrics: Metrics, stack: AsyncExitStack
) -> tuple[LiveLedger | None, Dumps]:
    """Open the ledger the configuration asks for; `stack` closes it. Raises StartupError."""
    path = config.savings_ledger_state_file
    if path is None:
        return None, Dumps(None, None)
    shown = LedgerMetrics(metrics.registry)
    try:
        ledger = await asyncio.to_thread(LiveLedger, path, shown)
    except StateFileError as error:
        raise StartupError(f"{_FLAG}: {error}") from error
    shown.show(ledger.snapshot)

    async def close() -> None:
        if not await ledger.close():
            logs.event(logger, logging.ERROR, "ledger-not-written", path=str(path))

    stack.push_async_callback(close)
    return ledger, Dumps(ledger, shown)
