"""What comes out of a checked spool went in."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s4gateway.objects.checked_spool import CheckedSpool, DamagedSpool
from s4gateway.wire.crc32c import crc32c
from tests import corpus
from tests.objects import world
from tests.objects.world import MIB


@settings(suppress_health_check=list(HealthCheck))
@given(
    parts=st.lists(st.lists(st.binary(max_size=30), max_size=4), max_size=8),
    known=st.booleans(),
    limit=st.integers(0, 100),
    data=st.data(),
)
async def test_any_stretch_is_read_back_from_memory_or_file(
    parts: list[list[bytes]], known: bool, limit: int, data: st.DataObject
):
    spool = CheckedSpool(world.LANES.disk, memory_limit=limit)
    for pieces in parts:
        await spool.append(pieces, crc32c(b"".join(pieces)) if known else None)
    whole = b"".join(b"".join(pieces) for pieces in parts)
    assert (spool.length, spool.crc32c) == (len(whole), crc32c(whole))
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    for _ in range(2):
        assert b"".join([piece async for piece in spool.read(start, end)]) == whole[start:end]
        assert b"".join([piece async for piece in spool.read()]) == whole
    spool.close()


RUNS = [corpus.noise(size, seed=size) for size in (10, 3 * MIB, 1, 2 * MIB + 5, 1000)]
WHOLE = b"".join(RUNS)
BORDERS = [sum(map(len, RUNS[:count])) for count in range(len(RUNS) + 1)]


async def spooled(directory: Path) -> tuple[CheckedSpool, int]:
    """All runs in a file, and the file's descriptor."""
    spool = CheckedSpool(world.LANES.disk, directory=directory, memory_limit=0)
    for run in RUNS:
        await spool.append([run])
    assert spool._file is not None
    return spool, spool._file._descriptor


async def read(spool: CheckedSpool, start: int, end: int) -> tuple[bytes, bool]:
    """What came out, and whether it was all there is."""
    got = b""
    try:
        async for piece in spool.read(start, end):
            got += piece
    except DamagedSpool:
        return got, False
    return got, True


@pytest.mark.parametrize("position", [0, 9, 10, MIB, 3 * MIB + 9, 3 * MIB + 10, len(WHOLE) - 1])
async def test_a_bit_that_turned_never_makes_a_complete_answer(tmp_path: Path, position: int):
    spool, descriptor = await spooled(tmp_path)
    os.pwrite(descriptor, bytes([WHOLE[position] ^ 4]), position)
    assert not (await read(spool, 0, len(WHOLE)))[1]
    run = max(number for number in range(len(RUNS)) if BORDERS[number] <= position)
    first, last = BORDERS[run], BORDERS[run + 1]
    spans = [(first, last), (first, first + 1), (last - 1, last), (0, len(WHOLE) - 1)]
    for start, end in spans:
        got, complete = await read(spool, start, end)
        assert not complete
        assert len(got) < end - start
    for start, end in ((0, first), (last, len(WHOLE))):
        assert await read(spool, start, end) == (WHOLE[start:end], True)
    spool.close()


async def test_bytes_that_changed_in_memory_are_told():
    spool = CheckedSpool(world.LANES.disk)
    piece = bytearray(b"what was appended")
    await spool.append([b"first", piece])
    piece[3] ^= 1
    with pytest.raises(DamagedSpool, match="CRC-32C"):
        [each async for each in spool.read()]
    spool.close()


async def test_a_run_that_is_not_what_its_maker_says_does_not_come_out():
    spool = CheckedSpool(world.LANES.disk)
    await spool.append([b"some", b"bytes"], crc32c(b"somebytes") ^ 1)
    with pytest.raises(DamagedSpool):
        [each async for each in spool.read()]
    spool.close()


async def test_a_file_that_lost_its_end_is_told(tmp_path: Path):
    spool, descriptor = await spooled(tmp_path)
    os.ftruncate(descriptor, len(WHOLE) - 1)
    with pytest.raises(OSError, match="ends at"):
        [each async for each in spool.read()]
    spool.close()
