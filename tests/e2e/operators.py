"""`s4` as an operator runs it beside a store: a process with the store's keys, and what it said."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests import live

_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended and what it printed."""

    status: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def report(self) -> dict[str, Any]:
        """The report of a command run with `--format json`."""
        found: dict[str, Any] = json.loads(self.out)
        return found


@dataclass(frozen=True, slots=True)
class Operator:
    """Someone with a shell beside `store`; `folder` is where they are."""

    store: live.Endpoint
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What their shell has set: the store and its keys."""
        return live.environment(self.folder) | {
            "AWS_ACCESS_KEY_ID": self.store.access_key,
            "AWS_SECRET_ACCESS_KEY": self.store.secret_key,
            "S4_ENDPOINT_URL": self.store.endpoint_url,
        }

    def s4(self, *arguments: str, stdin: bytes = b"", json: bool = False) -> Said:
        """Run a command against the store; never with a traceback."""
        done = subprocess.run(
            [str(live.program("s4")), *arguments, *(("--format", "json") if json else ())],
            input=stdin,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            cwd=self.folder,
            env=self.environment,
        )
        said = Said(done.returncode, done.stdout, done.stderr.decode())
        assert "Traceback" not in said.err, said.err
        return said

    def start(
        self, *arguments: str, output: int | IO[bytes] = subprocess.DEVNULL
    ) -> "subprocess.Popen[bytes]":
        """A command left to itself, with all it says in `output`."""
        return subprocess.Popen(
            [str(live.program("s4")), *arguments],
            stdout=output,
            stderr=output,
            cwd=self.folder,
            env=self.environment,
        )

    def offline(self, *arguments: str, stdin: bytes = b"") -> Said:
        """Run a command that has no store, no keys and no settings."""
        done = subprocess.run(
            [str(live.program("s4")), *arguments],
            input=stdin,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            cwd=self.folder,
            env={"PATH": "/nowhere", "LC_ALL": "C.UTF-8"},
        )
        said = Said(done.returncode, done.stdout, done.stderr.decode())
        assert "Traceback" not in said.err, said.err
        return said
