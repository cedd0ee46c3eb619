"""Small JSON events, made from what is installed: one for each of some files of Python packages.

An audit trail as build machines write it. Names, versions, licences, paths, digests, sizes and
lines of source are those of the packages in this environment (their METADATA and RECORD files and
the files themselves); times, hosts, request ids, durations and which lines are quoted come from a
seeded generator. Events are the same in every run with the same packages, 200 to 2,000 bytes each
and no two alike.
"""

import importlib.metadata
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

SMALLEST, LARGEST = 200, 2000
_START = datetime(2026, 3, 1, tzinfo=UTC)
_KINDS = ("checked",) * 3 + ("installed",) * 4 + ("scanned",) * 3
_ACTORS = ("ci-bot", "release-bot", "m.okafor", "j.lindqvist", "nightly")
_STAGES = ("build", "test", "staging", "production")


@dataclass(frozen=True, slots=True)
class Event:
    """One event, and the package it is about."""

    package: str
    body: bytes


def events(count: int, seed: int = 1) -> list[Event]:
    """`count` events in random order; fewer when not enough files are installed."""
    source = random.Random(seed)
    files = sorted(_files(), key=lambda file: (file.package["name"], file.path))
    source.shuffle(files)
    found: list[Event] = []
    clock = _START
    for file in files:
        if len(found) == count:
            break
        clock += timedelta(milliseconds=source.randrange(1, 4000))
        body = json.dumps(_event(file, clock, source), ensure_ascii=False).encode()
        if SMALLEST <= len(body) <= LARGEST:
            found.append(Event(file.package["name"], body))
    return found


@dataclass(frozen=True, slots=True)
class _File:
    package: dict[str, str]
    path: str
    digest: str
    size: int
    located: importlib.metadata.PackagePath


def _files() -> Iterator[_File]:
    """Every file that a RECORD names with its digest and size."""
    for distribution in importlib.metadata.distributions():
        about = distribution.metadata
        package = {
            "name": about["Name"],
            "version": about["Version"],
            "license": (about.get("License-Expression") or about.get("License") or "unknown")[:40],
            "requires_python": about.get("Requires-Python") or "",
            "summary": (about.get("Summary") or "")[:120],
        }
        for path in distribution.files or ():
            if path.hash is not None and path.size:
                digest = f"{path.hash.mode}:{path.hash.value}"
                yield _File(package, str(path), digest, path.size, path)


def _event(file: _File, clock: datetime, source: random.Random) -> dict[str, object]:
    kind = source.choice(_KINDS)
    event: dict[str, object] = {
        "time": clock.isoformat(timespec="milliseconds"),
        "event": f"file.{kind}",
        "request_id": f"{source.getrandbits(64):016x}",
        "host": f"build-{source.randrange(24):02}.eu-central-1.example.net",
    }
    if kind == "checked":
        wanted = {name: file.package[name] for name in ("name", "version")}
        return event | {"package": wanted, "path": file.path, "size": file.size, "ok": True}
    event |= {
        "actor": {"name": source.choice(_ACTORS), "stage": source.choice(_STAGES)},
        "package": file.package,
        "file": {"path": file.path, "digest": file.digest, "size_bytes": file.size},
        "duration_ms": round(source.expovariate(1 / 20), 3),
    }
    if kind == "scanned":
        event["excerpt"] = _excerpt(file, source)
    return event


def _excerpt(file: _File, source: random.Random) -> list[dict[str, object]]:
    """Some lines of the file, with their numbers; none of what is no text."""
    try:
        with Path(str(file.located.locate())).open(encoding="utf-8") as opened:
            lines = opened.read(200_000).splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    start = source.randrange(len(lines)) if lines else 0
    wanted = lines[start : start + source.randrange(1, 12)]
    return [
        {"line": start + number + 1, "text": text.strip()[:160]}
        for number, text in enumerate(wanted)
        if text.strip()
    ]
