"""A disk that fails where a test wants it to: the system's calls, one of which goes wrong."""

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from s4gateway.state import files

CALLS = frozenset(
    ("open", "read", "write", "fsync", "fstat", "fchmod", "close", "replace", "rename", "unlink")
)
LATE = frozenset(("write", "fsync", "replace", "rename", "close"))  # can fail with the work done


def well(_name: str, _number: int) -> int | None:
    """Nothing fails."""
    return None


class Disk:
    """Stands where a module looks for `os`; `decide` gets each call's name and number.

    It returns None, or the error's number; negative when the call is carried out before it fails.
    """

    def __init__(self) -> None:
        self.decide: Callable[[str, int], int | None] = well
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CALLS:
            return real

        def call(*args: Any, **options: Any) -> Any:
            self.calls.append(name)
            wrong = self.decide(name, len(self.calls))
            if wrong is None:
                return real(*args, **options)
            if name == "close" or (wrong < 0 and name in LATE):
                real(*args, **options)
            raise OSError(abs(wrong), os.strerror(abs(wrong)))

        return call


def install(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(files, "os", disk)
    return disk


def full(name: str, _number: int) -> int | None:
    """No space is left: names can be made, bytes cannot."""
    return errno.ENOSPC if name in {"write", "fsync"} else None
