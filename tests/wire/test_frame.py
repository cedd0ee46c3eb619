import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.wire import errors, frame
from s4gateway.wire.codec_id import CodecId
from tests.wire import strategies

U64_MAX = 2**64 - 1


@given(
    st.builds(
        frame.FrameHeader,
        st.sampled_from(CodecId),
        strategies.U64,
        strategies.U64,
        strategies.U32,
    ),
    st.binary(max_size=20),
    st.binary(max_size=20),
)
def test_header_is_read_back_from_anywhere(header: frame.FrameHeader, before: bytes, after: bytes):
    stored = header.pack()
    assert len(stored) == frame.HEADER_SIZE
    assert frame.FrameHeader.parse(before + stored + after, len(before)) == header
    assert header.stored_size == frame.HEADER_SIZE + header.compressed_size


def test_header_bytes_are_the_documented_ones():
    header = frame.FrameHeader(CodecId.CPU_ZSTD, 999, 19, 0xDEADBEEF)
    assert header.pack() == bytes.fromhex(
        "53344632 01000000 e703000000000000 1300000000000000 efbeadde"
    )


@pytest.mark.parametrize(
    "sizes",
    [(-1, 0, 0), (U64_MAX + 1, 0, 0), (0, -1, 0), (0, U64_MAX + 1, 0), (0, 0, -1), (0, 0, 2**32)],
)
def test_header_with_a_value_that_does_not_fit_cannot_be_made(sizes: tuple[int, ...]):
    with pytest.raises(errors.FrameError, match="out-of-range"):
        frame.FrameHeader(CodecId.CPU_ZSTD, *sizes)


@pytest.mark.parametrize(("size", "offset"), [(0, 0), (27, 0), (40, 13), (5, 9)])
def test_header_cut_off_is_too_short_whatever_its_magic(size: int, offset: int):
    with pytest.raises(errors.FrameError) as caught:
        frame.FrameHeader.parse(bytes(size), offset)
    assert caught.value.code == "too-short"


def test_padding_header_cut_off_is_too_short():
    with pytest.raises(errors.FrameError) as caught:
        frame.parse_padding(frame.padding(3)[:11])
    assert caught.value.code == "too-short"


@given(st.integers(0, 300), st.integers(0, 300))
def test_padding_reaches_the_minimum_and_overshoots_less_than_its_header(
    current: int, minimum: int
):
    appended = frame.pad_to(current, minimum)
    total = current + len(appended)
    if current >= minimum:
        assert appended == b""
    else:
        assert minimum <= total < minimum + frame.PADDING_HEADER_SIZE
        assert list(frame.walk(appended)) == []


@given(st.lists(strategies.data_frames() | strategies.padding_frames, max_size=6))
def test_walk_yields_the_data_frames_in_order(parts: list[bytes]):
    walked = [
        (offset, header.pack() + payload) for offset, header, payload in frame.walk(b"".join(parts))
    ]
    expected, offset = [], 0
    for part in parts:
        if part.startswith(b"S4F2"):
            expected.append((offset, part))
        offset += len(part)
    assert walked == expected


@given(strategies.broken_bodies() | st.binary(max_size=100))
def test_walk_of_any_bytes_raises_nothing_but_frame_errors(body: bytes):
    with contextlib.suppress(errors.FrameError):
        for offset, header, payload in frame.walk(body):
            start = offset + frame.HEADER_SIZE
            assert payload == body[start : start + header.compressed_size]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_walk_takes_any_buffer_and_copies_no_payload(kind: Callable[[bytes], Any]):
    body = frame.FrameHeader(CodecId.PASSTHROUGH, 3, 3, 0).pack() + b"abc"
    ((_, _, payload),) = frame.walk(kind(body))
    assert isinstance(payload, memoryview)
    assert payload == b"abc"


def test_walk_yields_what_stands_before_the_first_error():
    body = frame.FrameHeader(CodecId.PASSTHROUGH, 1, 1, 0).pack() + b"a" + b"junk"
    frames = frame.walk(body)
    assert next(frames)[0] == 0
    with pytest.raises(errors.FrameError):
        next(frames)


@pytest.mark.parametrize(
    "header", [frame.PADDING_MAGIC + b"\xff" * 8, b"S4F2" + bytes(12) + b"\xff" * 8 + bytes(4)]
)
def test_hostile_length_is_compared_and_never_allocated(header: bytes):
    with pytest.raises(errors.FrameError) as caught:
        list(frame.walk(header))
    assert caught.value.code == "payload-truncated"
