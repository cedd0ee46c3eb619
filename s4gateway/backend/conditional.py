"""What is known about the store's conditional writes, found out once per process.

Rule: "not known" is never taken for "yes". Who must know waits for the answer; several who ask at
once share one probe, which belongs to this object and outlives the request that began it.
"""

import asyncio
import logging
from typing import Final

from s4gateway.backend.base import Backend, BackendError
from s4gateway.backend.probe import ConditionalVerb, Findings, probe
from s4gateway.backend.profile import FLAG

_PAUSE: Final = 60.0  # seconds before a probe that nobody insists on is tried again
_CLOSE_SECONDS: Final = 5.0

_log = logging.getLogger("s4.probe")


class ConditionalWrites:
    """Answers whether the store honours conditions on a request, by probing where nobody said.

    `declared` is what the operator says of all requests, None to find out. Probes carry `backend`'s
    own identity.
    """

    def __init__(self, backend: Backend, declared: bool | None = None) -> None:
        self.declared = declared
        self._backend = backend
        self._known: Findings = {}
        if declared is not None:
            self._known = dict.fromkeys(ConditionalVerb, declared)
        self._running: dict[tuple[ConditionalVerb, str], asyncio.Task[None]] = {}
        self._not_before = 0.0

    def known(self, verb: ConditionalVerb) -> bool | None:
        """What is known now; None is not known."""
        return self._known.get(verb)

    async def honoured(self, verb: ConditionalVerb, bucket: str) -> bool:
        """Find it out in `bucket` unless it is known; raises BackendError when that fails."""
        while (known := self._known.get(verb)) is None:
            task = self._running.get((verb, bucket))
            if task is None:
                task = asyncio.get_running_loop().create_task(self._find_out(verb, bucket))
                task.add_done_callback(_retrieved)
                self._running[verb, bucket] = task
            await asyncio.wait([task])
            task.result()
        return known

    async def learn(self, verb: ConditionalVerb, bucket: str) -> None:
        """Find it out for the gateway's own use; a failure leaves it unknown for a while."""
        if self._known.get(verb) is not None:
            return
        now = asyncio.get_running_loop().time()
        if now < self._not_before:
            return
        try:
            await self.honoured(verb, bucket)
        except BackendError as error:
            self._not_before = now + _PAUSE
            fields = {"bucket": bucket, "error": str(error), "see": FLAG}
            _log.warning("conditional writes unknown", extra={"fields": fields})

    async def _find_out(self, verb: ConditionalVerb, bucket: str) -> None:
        try:
            findings = await probe(self._backend, bucket, verb)
        finally:
            del self._running[verb, bucket]
        for found, honoured in findings.items():
            if found not in self._known:
                self._known[found] = honoured
                level = logging.INFO if honoured else logging.WARNING
                fields = {"request": found.value, "honoured": honoured, "see": FLAG}
                _log.log(level, "conditional writes probed", extra={"fields": fields})

    async def close(self) -> None:
        """Let probes under way remove what they wrote, for a few seconds."""
        tasks = list(self._running.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_CLOSE_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _retrieved(task: asyncio.Task[None]) -> None:
    """Whoever asked may have gone; a failure nobody waits for is no fault."""
    if not task.cancelled():
        task.exception()
