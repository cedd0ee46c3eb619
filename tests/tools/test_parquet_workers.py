"""Processes that rewrite Parquet files: they may die of a file, and the next one gets another."""

import os
import random
import signal
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from s4gateway.tools import parquet_workers
from s4gateway.tools.parquet_workers import Work, WorkerDied, Workers, workers
from tests.tools import parquet_made

MIB = 1024 * 1024
DATA = parquet_made.written(parquet_made.table(60), write_page_index=True)


async def ask(found: Workers, data: bytes, level: int = 3) -> dict[str, Any]:
    with tempfile.TemporaryFile() as old, tempfile.TemporaryFile() as new:
        old.write(data)
        old.flush()
        return await found.rewrite(Work(level), old.fileno(), new.fileno())


async def test_one_process_rewrites_one_file_after_the_other():
    async with workers() as found:
        for level in (1, 3, 19):
            answer = await ask(found, DATA, level)
            assert (answer["outcome"], answer["size"]) == (
                "made",
                len(parquet_made.rewritten(DATA, level)),
            )
        assert len(found._idle) == 1
        process = found._idle[0]._process
    assert process.returncode is not None


async def test_what_is_wrong_with_a_file_is_an_answer():
    async with workers() as found:
        refused = await ask(found, b"a,b\n" * 10)
        damaged = await ask(found, DATA[:-30] + DATA[-29:])
        assert (refused["outcome"], refused["refusal"]) == ("refused", "not-parquet")
        assert damaged["outcome"] == "damaged"
        assert (await ask(found, DATA))["outcome"] == "made"


async def test_flipped_bits_may_kill_a_process_and_nothing_else():
    """pyarrow aborts over some of these; what is read of the others is what was read before."""
    draw = random.Random(3)
    outcomes = set()
    async with workers() as found:
        for _ in range(60):
            damaged = bytearray(DATA)
            for _ in range(draw.randint(1, 3)):
                damaged[draw.randrange(len(DATA))] ^= 1 << draw.randrange(8)
            try:
                outcomes.add((await ask(found, bytes(damaged)))["outcome"])
            except WorkerDied:
                outcomes.add("died")
        assert (await ask(found, DATA))["outcome"] == "made"
    known = {"made", "refused", "damaged", "mismatch", "failed", "memory", "died", "other-values"}
    assert "damaged" in outcomes
    assert outcomes <= known


async def test_a_process_that_dies_is_named_and_replaced():
    async with workers() as found:
        await ask(found, DATA)
        killed = found._idle[0]._process
        os.kill(killed.pid, signal.SIGSEGV)
        await killed.wait()
        with pytest.raises(WorkerDied, match="signal 11"):
            await ask(found, DATA)
        assert (await ask(found, DATA))["outcome"] == "made"


async def test_a_silent_process_is_given_up(monkeypatch: pytest.MonkeyPatch):
    async with workers() as found:
        await ask(found, DATA)
        process = found._idle[0]._process
        os.kill(process.pid, signal.SIGSTOP)
        monkeypatch.setattr(parquet_workers, "_SILENCE", 0.05)
        with pytest.raises(WorkerDied, match="no sign of life"):
            await ask(found, DATA)
        assert process.returncode == -signal.SIGKILL


async def test_pages_that_become_much_more_do_not_take_more_memory(tmp_path: Path):
    """A dictionary of one long text, and a run that says it a thousand times."""
    path = tmp_path / "bomb.parquet"
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000, pa.int32()), ["x" * MIB])
    options = {"dictionary_pagesize_limit": 8 * MIB, "store_schema": False}
    pq.write_table(pa.table({"text": column}), path, **options)
    assert path.stat().st_size < 2 * MIB
    async with workers(400 * MIB) as found:
        assert (await ask(found, path.read_bytes()))["outcome"] == "made"


async def test_a_file_that_takes_more_memory_than_a_process_has_is_an_answer():
    data = parquet_made.written(pa.table({"text": ["x" * 60 * MIB]}), use_dictionary=False)
    async with workers(150 * MIB) as found:
        assert (await ask(found, data))["outcome"] == "memory"
        assert not found._idle
        assert (await ask(found, DATA))["outcome"] == "made"


async def test_a_process_has_no_credentials(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("S4_CONFIG", "/etc/s4.toml")
    found = parquet_workers._environment()
    assert not [name for name in found if name.startswith(("AWS", "S4"))]
    assert "PATH" in found
