from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s4gateway.objects.spool import READ_SIZE, Spool
from tests.objects import world


@settings(suppress_health_check=list(HealthCheck))
@given(
    parts=st.lists(st.lists(st.binary(max_size=30), max_size=4), max_size=8),
    limit=st.integers(0, 100),
    data=st.data(),
)
async def test_any_stretch_is_read_back_from_memory_or_file(
    parts: list[list[bytes]], limit: int, data: st.DataObject
):
    before = world.open_files()
    spool = Spool(world.LANES.disk, memory_limit=limit)
    for pieces in parts:
        await spool.append(pieces)
    whole = b"".join(b"".join(pieces) for pieces in parts)
    assert spool.length == len(whole)
    assert spool.in_memory == (len(whole) <= limit)
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    for _ in range(2):
        assert b"".join([piece async for piece in spool.read(start, end)]) == whole[start:end]
        assert b"".join([piece async for piece in spool.read()]) == whole
    if spool.in_memory:
        assert b"".join(spool.pieces()) == whole
    spool.close()
    spool.close()
    assert world.open_files() == before


async def test_a_spool_closed_under_its_reader_ends_with_an_error(tmp_path: Path):
    spool = Spool(world.LANES.disk, directory=tmp_path, memory_limit=10)
    await spool.append([bytes(3 * world.MIB)])
    reading = spool.read()
    assert len(await anext(reading)) == world.MIB
    spool.close()
    with pytest.raises(OSError, match="closed"):
        await anext(reading)


async def test_a_disk_that_cannot_be_written_is_told_when_it_is_needed(tmp_path: Path):
    spool = Spool(world.LANES.disk, directory=tmp_path / "gone", memory_limit=10)
    await spool.append([b"123"])
    with pytest.raises(OSError, match="gone"):
        await spool.append([b"4567890123"])
    spool.close()


async def test_views_of_a_large_piece_end_in_bytes_that_do_not_keep_it(tmp_path: Path):
    large = bytes(range(256)) * (16 * 1024) + b"more"
    spool = Spool(world.LANES.disk, memory_limit=len(large) + 10)
    await spool.append([b"first", large, b"last"])
    for start, end in ((0, spool.length), (3, 2_500_000), (7, 40), (len(large), spool.length)):
        pieces = [piece async for piece in spool.views(start, end)]
        assert b"".join(pieces) == (b"first" + large + b"last")[start:end]
        assert max(map(len, pieces)) <= READ_SIZE
        held = 0
        for piece in reversed(pieces):
            if held < READ_SIZE:
                assert isinstance(piece, bytes)
            held += len(piece)
    spool.close()
