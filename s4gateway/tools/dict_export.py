"""Copy dictionaries of a bucket into files: with one at hand, objects open without the gateway.

Rule: what is written was verified, under the name of its id, and no file is ever overwritten. A
file that has the same bytes already counts as done, so a run may be repeated.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from s4gateway.backend.base import Backend
from s4gateway.objects import dictionaries
from s4gateway.objects.dictionaries import DictionaryError
from s4gateway.tools.target import Target
from s4gateway.tools.walk import walk
from s4gateway.wire import keys

SUFFIX: Final = ".dict"


@dataclass(frozen=True, slots=True)
class ExportedDictionary:
    """One dictionary, size in bytes, and its file; `problem` says why there is none."""

    id: str
    path: str
    size: int
    is_new: bool
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was copied where."""

    bucket: str
    directory: str
    dictionaries: tuple[ExportedDictionary, ...]
    failed: int
    notes: tuple[str, ...] = ()


async def run(
    backend: Backend, bucket: str, directory: Path, ids: Sequence[str] = ()
) -> ExportReport:
    """Copy the dictionaries `ids`, or all of them, into `directory`; raises BackendError."""
    wanted = list(dict.fromkeys(ids)) or await _all(backend, bucket)
    done = tuple([await _export(backend, bucket, dict_id, directory) for dict_id in wanted])
    return ExportReport(
        bucket,
        str(directory),
        done,
        sum(each.problem is not None for each in done),
        ("an exported dictionary holds fragments of the objects it was trained on, in plain text",)
        if done
        else (f"bucket {bucket} holds no dictionaries",),
    )


async def _all(backend: Backend, bucket: str) -> list[str]:
    target = Target(bucket, keys.DICTIONARY_PREFIX)
    async with aclosing(walk(backend, target, internal=True)) as listing:
        ids = [entry.key.removeprefix(keys.DICTIONARY_PREFIX) async for entry in listing]
    return [each for each in ids if keys.is_dictionary_id(each)]


async def _export(
    backend: Backend, bucket: str, dict_id: str, directory: Path
) -> ExportedDictionary:
    path = directory / f"{dict_id}{SUFFIX}"
    try:
        data = await dictionaries.fetch(backend, bucket, dict_id)
        is_new = await asyncio.to_thread(_write, path, data)
    except DictionaryError as error:
        return ExportedDictionary(dict_id, str(path), 0, is_new=False, problem=str(error))
    except OSError as error:
        return ExportedDictionary(dict_id, str(path), 0, is_new=False, problem=str(error))
    return ExportedDictionary(dict_id, str(path), len(data), is_new=is_new)


def _write(path: Path, data: bytes) -> bool:
    """Create the file, for its owner only; False when it holds these bytes already.

    Raises OSError.
    """
    try:
        path.touch(0o600, exist_ok=False)
    except FileExistsError:
        if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
            return False
        raise
    try:
        path.write_bytes(data)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return True
