import dataclasses

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from s4gateway.wire import frame, index, plan, scanner
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.crc32c import crc32c

BINDING = index.SseBinding(1024, 4, 7, bytes(8), 3572, 24)


def store(chunks: list[bytes], gaps: list[int]) -> tuple[bytes, index.FrameIndex]:
    """A body of passthrough frames with padding between them, and its index."""
    body, entries, original = b"", [], 0
    for chunk, gap in zip(chunks, gaps, strict=True):
        body += frame.padding(gap) if gap else b""
        header = frame.FrameHeader(CodecId.PASSTHROUGH, len(chunk), len(chunk), crc32c(chunk))
        entries.append(index.FrameEntry(original, len(chunk), len(body), header.stored_size))
        body += header.pack() + chunk
        original += len(chunk)
    return body, index.FrameIndex.from_entries(entries, total_padded=len(body))


@st.composite
def stored_objects(draw: st.DrawFn) -> tuple[bytes, bytes, index.FrameIndex]:
    chunks = draw(st.lists(st.binary(max_size=30), max_size=8))
    gaps = draw(st.lists(st.sampled_from([0, 0, 1, 9]), min_size=len(chunks), max_size=len(chunks)))
    return b"".join(chunks), *store(chunks, gaps)


@given(stored_objects(), st.integers(0, 250), st.integers(0, 250))
def test_what_a_plan_fetches_skips_and_takes_is_the_range(
    stored: tuple[bytes, bytes, index.FrameIndex], start: int, end: int
):
    original, body, frames = stored
    planned = plan.plan(frames, start, end)
    if not original[start:end]:
        assert planned is None
        return
    assert planned is not None
    fetched = scanner.FrameScanner(offset=planned.fetch_start)
    events = fetched.feed(body[planned.fetch_start : planned.fetch_end])
    fetched.close()
    starts = [event.offset for event in events if isinstance(event, scanner.FrameStart)]
    assert starts == [
        frames[number].compressed_offset
        for number in range(planned.first_frame, planned.last_frame + 1)
    ]
    decoded = b"".join(event for event in events if isinstance(event, bytes | memoryview))
    assert decoded[planned.skip : planned.skip + planned.take] == original[start:end]


@given(stored_objects(), st.data())
def test_plan_fetches_no_frame_it_does_not_need(
    stored: tuple[bytes, bytes, index.FrameIndex], data: st.DataObject
):
    original, _, frames = stored
    assume(original)
    start = data.draw(st.integers(0, len(original) - 1))
    end = data.draw(st.integers(start + 1, len(original)))
    planned = plan.plan(frames, start, end)
    assert planned is not None
    first, last = frames[planned.first_frame], frames[planned.last_frame]
    assert first.original_offset + first.original_size > start
    assert last.original_offset < end


@pytest.mark.parametrize("wanted", [(-1, 5), (5, 5), (6, 5), (10, 11)])
def test_range_outside_the_object_has_no_plan(wanted: tuple[int, int]):
    _, frames = store([b"0123456789"], [0])
    assert plan.plan(frames, *wanted) is None


def test_empty_index_has_no_plan():
    assert plan.plan(index.FrameIndex.from_entries(()), 0, 1) is None


def test_index_with_a_hole_has_no_plan():
    entries = [index.FrameEntry(0, 10, 0, 38), index.FrameEntry(20, 10, 38, 38)]
    assert plan.plan(index.FrameIndex.from_entries(entries), 0, 5) is None


def test_entry_beyond_the_body_has_no_plan():
    entries = [index.FrameEntry(0, 10, 0, 38), index.FrameEntry(10, 10, 38, 38)]
    frames = index.FrameIndex.from_entries(entries, total_padded=75)
    assert plan.plan(frames, 0, 10) is not None
    assert plan.plan(frames, 0, 11) is None


@given(
    size=st.integers(1, 20),
    body=st.binary(min_size=1, max_size=200),
    header_bytes=st.sampled_from([20, 24]),
    data=st.data(),
)
def test_encrypted_plan_cuts_whole_chunks_out_of_the_envelope(
    size: int, body: bytes, header_bytes: int, data: st.DataObject
):
    chunks = [body[i : i + size] for i in range(0, len(body), size)]
    tagged = [b"T" * 16 + chunk for chunk in chunks]  # chunks stand for their ciphertext
    stored = bytes(header_bytes) + b"".join(tagged)
    binding = index.SseBinding(size, len(chunks), 1, bytes(8), len(body), header_bytes)
    start = data.draw(st.integers(0, len(body) - 1))
    end = data.draw(st.integers(start + 1, len(body)))
    planned = plan.plan_encrypted(binding, start, end)
    assert planned is not None
    wanted = slice(planned.first_chunk, planned.last_chunk + 1)
    assert stored[planned.fetch_start : planned.fetch_end] == b"".join(tagged[wanted])
    opened = b"".join(chunks[wanted])
    assert opened[planned.skip : planned.skip + planned.take] == body[start:end]


@pytest.mark.parametrize("wanted", [(-1, 5), (5, 5), (6, 5), (3500, 3573), (3572, 3573)])
def test_range_outside_the_envelope_has_no_plan(wanted: tuple[int, int]):
    assert plan.plan_encrypted(BINDING, *wanted) is None


def test_binding_with_too_few_chunks_for_its_body_has_no_plan():
    contradictory = dataclasses.replace(BINDING, chunk_count=3)
    assert plan.plan_encrypted(contradictory, 0, 10) is None


def test_more_chunks_than_the_body_fills_do_not_shorten_the_last_full_one():
    roomy = dataclasses.replace(BINDING, chunk_count=9, plaintext_len=4096)
    planned = plan.plan_encrypted(roomy, 3072, 4096)
    assert planned is not None
    assert planned.fetch_end - planned.fetch_start == 1040
