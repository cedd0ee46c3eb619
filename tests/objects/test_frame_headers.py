"""Bodies walked by their headers: every frame, few requests, and no trust in any size."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.objects.frame_headers import IndexBuilder, build_index, walk
from s4gateway.wire import frame
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.errors import FrameError, SidecarError
from tests.objects import world


class Body:
    """Stored bytes, and how they were read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads: list[tuple[int, int]] = []

    async def read(self, start: int, end: int) -> bytes:
        assert 0 <= start < end
        self.reads.append((start, end))
        return self.data[start:end]

    async def stream(self, start: int, end: int) -> bytes:
        """As from a pipe: what begins behind the end cannot be skipped to."""
        if start > len(self.data):
            raise FrameError("payload-truncated", "the stream ends")
        return await self.read(start, end)


def bare(size: int, *, codec: int = CodecId.PASSTHROUGH, original: int | None = None) -> bytes:
    return struct.pack("<4sIQQI", b"S4F2", codec, size if original is None else original, size, 0)


@given(
    sizes=st.lists(st.integers(0, 9000), max_size=12),
    padding=st.lists(st.integers(0, 9000), max_size=3),
)
async def test_every_frame_is_found_wherever_it_stands(sizes: list[int], padding: list[int]):
    made = world.framed([b"x" * size for size in sizes], (CodecId.PASSTHROUGH,), padding)
    body = Body(made.stored)
    found = [each async for each in walk(body.read, len(made.stored))]
    assert sum(each.stored_size for each in found) == len(made.stored)
    assert (await build_index(body.read, len(made.stored))) == made.index
    assert [each async for each in walk(body.stream, None)] == found


async def test_large_frames_cost_a_small_request_each():
    body = Body(b"".join(bare(300_000) + bytes(300_000) for _ in range(20)))
    assert len([each async for each in walk(body.read, len(body.data))]) == 20
    assert len(body.reads) == 20
    assert max(end - start for start, end in body.reads) <= 4096


async def test_small_frames_are_read_many_at_a_time():
    body = Body((bare(100) + bytes(100)) * 100_000)
    assert len(await build_index(body.read, len(body.data))) == 100_000
    assert len(body.reads) < 15


async def test_windows_follow_the_frames_and_stay_bounded():
    small, large = (bare(10) + bytes(10)) * 50_000, bare(9_000_000) + bytes(9_000_000)
    body = Body(small + large * 3 + small)
    assert len(await build_index(body.read, len(body.data))) == 100_003
    assert max(end - start for start, end in body.reads) <= 4 * world.MIB
    assert len(body.reads) < 40


@pytest.mark.parametrize(
    ("stored", "code"),
    [
        (b"S4F", "too-short"),
        (bare(4) + b"xx", "payload-truncated"),
        (bare(2) + b"hi" + bare(7)[:20], "too-short"),
        (frame.padding(5)[:14], "payload-truncated"),
        (bare(2) + b"hi" + b"garbage that is no frame at all", "bad-magic"),
        (bare(0, codec=77), "unknown-codec"),
        (bare(2**63, original=1), "payload-truncated"),
        (b"S4P1" + b"\xff" * 8, "payload-truncated"),
        (bare(0, original=6 * 1024**3), "manifest-size-exceeds-limit"),
    ],
)
async def test_a_fault_ends_the_walk_and_says_where(stored: bytes, code: str):
    for read, size in ((Body(stored).read, len(stored)), (Body(stored).stream, None)):
        with pytest.raises(FrameError, match="at stored byte") as raised:
            [each async for each in walk(read, size)]
        assert raised.value.code == code


async def test_a_body_shorter_than_it_was_said_to_be_is_a_fault():
    body = Body(bare(2) + b"hi")
    with pytest.raises(FrameError, match="too-short"):
        await build_index(body.read, 40)


async def test_an_empty_body_has_no_frames():
    assert [each async for each in walk(Body(b"").read, 0)] == []
    assert [each async for each in walk(Body(b"").stream, None)] == []


async def test_more_frames_than_an_index_may_have_are_refused():
    builder = IndexBuilder(most=3)
    found = [each async for each in walk(Body(bare(0) * 4).read, 28 * 4)]
    for each in found[:3]:
        builder.add(each)
    with pytest.raises(SidecarError, match="too-many-frames"):
        builder.add(found[3])
