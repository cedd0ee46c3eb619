"""Frames, bodies and indices for property tests, as hypothesis builds them."""

import itertools

from hypothesis import strategies as st

from s4gateway.wire import frame, index
from s4gateway.wire.codec_id import CodecId

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)


@st.composite
def data_frames(draw: st.DrawFn) -> bytes:
    payload = draw(st.binary(max_size=60))
    header = frame.FrameHeader(
        draw(st.sampled_from(CodecId)), draw(st.integers(0, 5000)), len(payload), draw(U32)
    )
    return header.pack() + payload


padding_frames = st.integers(0, 40).map(frame.padding)

bodies = st.lists(data_frames() | padding_frames, max_size=6).map(b"".join)


@st.composite
def broken_bodies(draw: st.DrawFn) -> bytes:
    """Bodies with something wrong: cut, overwritten, or followed by bytes of no frame."""
    body = bytearray(draw(bodies))
    for position in draw(st.lists(st.integers(0, max(0, len(body) - 1)), max_size=3)):
        body[position : position + 1] = draw(st.binary(min_size=1, max_size=1))
    cut = draw(st.integers(0, len(body)))
    return bytes(body[:cut]) + draw(st.binary(max_size=40))


@st.composite
def segmentations(draw: st.DrawFn, body: bytes) -> list[bytes]:
    cuts = draw(st.lists(st.integers(0, len(body)), max_size=12))
    edges = [0, *sorted(cuts), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(edges)]


@st.composite
def layouts(draw: st.DrawFn) -> list[index.FrameEntry]:
    """Entries of an object as a writer leaves them: no hole in the original, padding in between."""
    entries, original, stored = [], 0, 0
    for _ in range(draw(st.integers(0, 12))):
        original_size = draw(st.integers(0, 50))
        stored += draw(st.sampled_from([0, 0, 12, 20]))
        compressed_size = frame.HEADER_SIZE + draw(st.integers(0, 50))
        entries.append(index.FrameEntry(original, original_size, stored, compressed_size))
        original += original_size
        stored += compressed_size
    return entries


bindings = st.builds(
    index.SseBinding,
    chunk_size=st.integers(1, 2**32 - 1),
    chunk_count=st.integers(1, 2**32 - 1),
    key_id=st.integers(0, 2**16 - 1),
    salt=st.binary(min_size=8, max_size=8),
    plaintext_len=U64,
    header_bytes=U32,
)
