"""Processes that rewrite Parquet files, one for each file that is worked on at a time.

Rule: bytes of others are decoded in a process that may die of them. Each has a bound of memory, no
credentials, and so long to say that it is alive; one that dies or falls silent is replaced, and
only the file it had fails.
"""

import asyncio
import contextlib
import json
import os
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

MEMORY: Final = 1536 * 1024 * 1024  # bytes a process may take
_SILENCE: Final = 600.0  # seconds without a sign of life
_MODULE: Final = "s4gateway.tools.parquet_child"
# A decoder needs none of the credentials that stand in the environment.
_PASSED: Final = frozenset({"PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV"})


@dataclass(frozen=True, slots=True)
class Work:
    """How a file is to be rewritten; row groups of more than `row_group` bytes are refused."""

    level: int
    row_group: int | None = None


class WorkerDied(Exception):
    """A process ended, or fell silent, over a file."""


class Workers:
    """Processes started as they are needed and kept for the next file; close them."""

    def __init__(self, memory: int = MEMORY) -> None:
        self._memory = memory
        self._idle: list[_Worker] = []

    async def rewrite(self, work: Work, old: int, new: int) -> dict[str, Any]:
        """Have the file behind the descriptor `old` rewritten into `new`: the process's answer.

        Raises WorkerDied, OSError.
        """
        worker = self._idle.pop() if self._idle else await _Worker.start(self._memory)
        try:
            answer = await worker.ask(work, old, new)
        except BaseException:
            await worker.kill()
            raise
        if answer["outcome"] == "memory":
            await worker.kill()
        else:
            self._idle.append(worker)
        return answer

    async def close(self) -> None:
        """End all of them."""
        while self._idle:
            await self._idle.pop().kill()


@asynccontextmanager
async def workers(memory: int = MEMORY) -> AsyncIterator[Workers]:
    """Have processes while the block runs."""
    found = Workers(memory)
    try:
        yield found
    finally:
        await found.close()


class _Worker:
    def __init__(self, process: Process, connection: socket.socket) -> None:
        self._process = process
        self._connection = connection
        self._received = b""

    @classmethod
    async def start(cls, memory: int) -> "_Worker":
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                ours.setblocking(False)
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", _MODULE, str(theirs.fileno()), str(memory)),
                    pass_fds=[theirs.fileno()],
                    env=_environment(),
                    stdin=DEVNULL,
                    stdout=DEVNULL,
                    stderr=DEVNULL,
                )
            except BaseException:
                ours.close()
                raise
        return cls(process, ours)

    async def ask(self, work: Work, old: int, new: int) -> dict[str, Any]:
        message = json.dumps({"level": work.level, "row_group": work.row_group}).encode()
        try:
            socket.send_fds(self._connection, [message], [old, new])
            while True:
                answer = await self._line()
                if "outcome" in answer:
                    return answer
        except (EOFError, ConnectionError) as error:
            status = await self._process.wait()
            raise WorkerDied(f"the process that read it {_ended(status)}") from error
        except TimeoutError as error:
            raise WorkerDied(f"no sign of life for {_SILENCE:.0f} s") from error

    async def _line(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        while b"\n" not in self._received:
            async with asyncio.timeout(_SILENCE):
                received = await loop.sock_recv(self._connection, 4096)
            if not received:
                raise EOFError
            self._received += received
        line, _, self._received = self._received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def kill(self) -> None:
        self._connection.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


def _ended(status: int) -> str:
    return f"died of signal {-status}" if status < 0 else f"ended with status {status}"


def _environment() -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if name in _PASSED or "LC_" in name}
    return kept | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "OMP_NUM_THREADS": "1",
    }
