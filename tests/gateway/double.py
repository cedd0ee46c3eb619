"""The program `s4` with a stand-in for the S3 application: the real process around known requests.

GET /done             answers "done"
GET /held             answers "done" once the home directory has a file `release`
GET /drip             an answer without end
GET /knows/KEY        "yes" when that access key is one of the present generation
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

from starlette.types import Receive, Scope, Send

from s4gateway.cli import main as cli
from s4gateway.gateway import server
from s4gateway.gateway.generation import GenerationHolder


class Double:
    """The shape of S4App."""

    def __init__(
        self,
        _backend: Any,
        _config: Any,
        _metrics: Any,
        holder: GenerationHolder,
        _ledger: Any,
    ) -> None:
        self.draining = False
        self.in_flight = 0
        self._holder = holder

    async def startup(self) -> None:
        sys.stderr.write("double: startup\n")

    async def shutdown(self) -> None:
        sys.stderr.write("double: shutdown\n")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.in_flight += 1
        try:
            await self._answer(*scope["path"].split("/")[1:3], send=send)
        finally:
            self.in_flight -= 1

    async def _answer(self, what: str, value: str = "", *, send: Send) -> None:
        body = b"done"
        if what == "held":
            released = Path.home() / "release"
            while not released.exists():  # noqa: ASYNC110 - the test makes it
                await asyncio.sleep(0.01)
        elif what == "drip":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": b"drip", "more_body": True})
                await asyncio.sleep(0.01)
        elif what == "knows":
            body = b"no" if self._holder.current.keys.lookup(value) is None else b"yes"
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    server.S4App = Double  # type: ignore[misc, assignment]
    cli.main()
