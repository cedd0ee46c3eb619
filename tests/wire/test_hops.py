"""Measuring an object by its frame headers alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.wire import frame
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.errors import CodecIdError, FrameError
from s4gateway.wire.hops import FrameHops


def one(payload: bytes, original: int | None = None) -> bytes:
    size = len(payload) if original is None else original
    return frame.FrameHeader(CodecId.PASSTHROUGH, size, len(payload), 0).pack() + payload


def walked(body: bytes, **options: int) -> FrameHops:
    hops = FrameHops(len(body), **options)
    while (span := hops.wanted) is not None:
        assert 0 < span[1] - span[0] <= frame.HEADER_SIZE
        hops.feed(body[slice(*span)])
    return hops


@given(st.lists(st.tuples(st.integers(-1, 40), st.binary(max_size=50)), max_size=8))
def test_it_finds_what_a_walk_over_the_whole_body_finds(parts: list[tuple[int, bytes]]):
    body = b"".join(
        (frame.padding(padding) if padding >= 0 else b"") + one(payload)
        for padding, payload in parts
    )
    hops = walked(body)
    assert hops.is_complete
    index = hops.index()
    assert [entry.compressed_offset for entry in index] == [each for each, _, _ in frame.walk(body)]
    assert (index.is_contiguous, index.total_padded) == (True, len(body))


@pytest.mark.parametrize(
    ("body", "error", "frames"),
    [
        (one(b"abc") + b"x", FrameError, 1),
        (one(b"abc") + b"garbage" * 9, FrameError, 1),
        ((one(b"abc") + one(b"defg"))[:-1], FrameError, 1),
        (one(b"a") + b"S4P1" + b"\xff" * 8, FrameError, 1),
        (one(b"a") + b"S4F2" + b"\x63" + bytes(23), CodecIdError, 1),
        (b"S4F2", FrameError, 0),
    ],
    ids=["short", "magic", "cut", "padding", "codec", "header"],
)
def test_a_fault_ends_the_walk_and_what_is_before_it_is_known(
    body: bytes, error: type, frames: int
):
    hops = walked(body)
    assert not hops.is_complete
    assert type(hops.fault) is error
    assert len(hops.index()) == frames


def test_the_number_of_hops_is_bounded():
    hops = walked(one(b"") * 10, max_hops=7)
    assert (hops.is_complete, hops.fault, len(hops.index())) == (False, None, 7)
    assert walked(one(b"") * 7, max_hops=7).is_complete
