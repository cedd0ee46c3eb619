"""What every codec must do, written once: a test class inherits it and names its codec.

The three switches say what a stream of that codec can know of its own end; all the rest is the same
for everyone.
"""

import contextlib
import itertools
import sys
import threading
import tracemalloc
from collections.abc import Iterable, Iterator
from concurrent import futures
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s4gateway.codecs import base

MIB = 1024 * 1024

# The same property runs once per inheriting class, which is what this check would forbid.
inherited = settings(suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow])

bodies = st.one_of(
    st.binary(max_size=2000),
    st.builds(bytes.__mul__, st.binary(min_size=1, max_size=40), st.integers(0, 9000)),
)
cuts = st.lists(st.integers(0, 5000), max_size=12)


def segments(data: bytes, positions: Iterable[int]) -> Iterator[bytes]:
    """Cut `data` at these positions, wherever they fall; empty segments included."""
    bounds = [0, *sorted(min(position, len(data)) for position in positions), len(data)]
    return (data[start:end] for start, end in itertools.pairwise(bounds))


def compress(codec: base.Codec, pieces: Iterable[base.Buffer]) -> bytes:
    stream = codec.compressor()
    return b"".join([*(stream.compress(piece) for piece in pieces), stream.flush()])


def decompress(codec: base.Codec, pieces: Iterable[base.Buffer], limit: int) -> bytes:
    stream = codec.decompressor(limit)
    out = [piece for stored in pieces for piece in stream.feed(stored)]
    stream.finish()
    return b"".join(out)


@contextlib.contextmanager
def refused(*codes: str) -> Iterator[None]:
    with pytest.raises(base.CodecError) as caught:
        yield
    assert caught.value.code in codes
    assert str(caught.value).startswith(caught.value.code)


class CodecContract:
    codec: ClassVar[base.Codec]
    knows_its_end: ClassVar[bool] = True  # a cut inside the stream is an error
    refuses_what_follows: ClassVar[bool] = True  # and so is junk behind it
    joins_streams: ClassVar[bool] = False  # streams back to back are one stream

    @inherited
    @given(bodies, cuts, cuts)
    def test_any_segmentation_round_trips(self, body, plain_cuts, stored_cuts):
        stored = compress(self.codec, segments(body, plain_cuts))
        assert decompress(self.codec, segments(stored, stored_cuts), len(body)) == body

    def test_byte_by_byte_round_trips(self):
        body = bytes(range(256)) * 3
        stored = compress(self.codec, segments(body, range(len(body))))
        assert decompress(self.codec, segments(stored, range(len(stored))), len(body)) == body

    def test_several_mib_round_trip_in_pieces_of_at_most_one(self):
        body = b"".join(b"%08d some line of text\n" % i for i in range(150_000))
        stored = compress(self.codec, segments(body, range(0, len(body), 300_000)))
        stream = self.codec.decompressor(len(body))
        pieces = stream.feed(stored)
        stream.finish()
        assert b"".join(pieces) == body
        assert max(map(len, pieces)) <= MIB
        assert all(type(piece) is bytes for piece in pieces)

    def test_nothing_round_trips(self):
        stored = compress(self.codec, [])
        assert decompress(self.codec, [stored], 0) == b""
        assert decompress(self.codec, [b"", stored, b""], 0) == b""

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_every_buffer_is_taken(self, kind):
        body = b"any buffer " * 100
        stored = compress(self.codec, [kind(body)])
        assert decompress(self.codec, [kind(stored)], len(body)) == body

    def test_the_callers_buffer_may_be_used_again(self):
        buffer = bytearray(b"first ")
        stream = self.codec.compressor()
        stored = stream.compress(buffer)
        buffer[:] = b"second"
        stored += stream.compress(buffer) + stream.flush()
        decompressor = self.codec.decompressor(12)
        view = bytearray(stored)
        pieces = decompressor.feed(view)
        view[:] = bytes(len(view))
        assert b"".join(pieces) == b"first second"

    def test_a_cut_is_seen(self):
        if not self.knows_its_end:
            return
        body = bytes(range(200)) * 5
        stored = compress(self.codec, [body])
        for length in range(1, len(stored)):
            with refused("codec-io"):
                decompress(self.codec, [stored[:length]], len(body))

    @pytest.mark.parametrize("junk", [b"\0", b"(", b"(\xb5", b"junk", b"P*M", bytes(40)])
    def test_junk_behind_the_stream(self, junk):
        stored = compress(self.codec, [b"body" * 50])
        if self.refuses_what_follows:
            for pieces in ([stored + junk], [stored, junk], [stored, junk[:1], junk[1:]]):
                with refused("codec-io", "bomb"):
                    decompress(self.codec, pieces, 200)
        else:
            assert decompress(self.codec, [stored + junk, junk], 200) == b"body" * 50

    def test_junk_instead_of_a_stream(self):
        if not self.knows_its_end:
            return
        for junk in (b"\xd1" * 5, bytes(100), b"plain text that was never compressed"):
            with refused("codec-io"):
                decompress(self.codec, [junk], 1000)

    def test_a_flipped_stream_still_works_for_the_next(self):
        body = b"0123456789abcdef" * 64
        stored = compress(self.codec, [body])
        for position in range(len(stored)):
            flipped = bytearray(stored)
            flipped[position] ^= 0x10
            with contextlib.suppress(base.CodecError):
                decompress(self.codec, [flipped], len(body))
            assert decompress(self.codec, [stored], len(body)) == body

    def test_streams_back_to_back(self):
        both = compress(self.codec, [b"part one "]) + compress(self.codec, [b"part two"])
        if self.joins_streams:
            assert decompress(self.codec, [both], 17) == b"part one part two"
            assert decompress(self.codec, segments(both, range(len(both))), 17)[8:] == b" part two"
            with refused("bomb"):
                decompress(self.codec, [both], 16)

    def test_the_limit_is_exact(self):
        body = b"abcd" * 1000
        stored = compress(self.codec, [body])
        assert decompress(self.codec, [stored], len(body)) == body
        for limit in (len(body) - 1, len(body) // 2, 1, 0):
            with refused("bomb"):
                decompress(self.codec, [stored], limit)
            with refused("bomb"):
                decompress(self.codec, segments(stored, range(0, len(stored), 3)), limit)

    def test_a_bomb_is_stopped_in_little_memory(self):
        zeros = bytes(MIB)
        stored = compress(self.codec, (zeros for _ in range(64)))
        tracemalloc.start()
        try:
            with refused("bomb"):
                decompress(self.codec, [stored], MIB)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 4 * MIB

    def test_streams_interleave_on_one_thread(self):
        bodies = [b"stream %d " % number * 3000 for number in range(20)]
        streams = [self.codec.compressor() for _ in bodies]
        stored = [b""] * len(bodies)
        for start in range(0, 40_000, 4_000):
            for number, stream in enumerate(streams):
                stored[number] += stream.compress(bodies[number][start : start + 4_000])
        stored = [done + stream.flush() for done, stream in zip(stored, streams, strict=True)]
        readers = [self.codec.decompressor(len(body)) for body in bodies]
        plain = [b""] * len(bodies)
        for start in range(0, max(map(len, stored)), 50):
            for number, reader in enumerate(readers):
                plain[number] += b"".join(reader.feed(stored[number][start : start + 50]))
        for reader in readers:
            reader.finish()
        assert plain == bodies

    def test_abandoned_streams_leave_nothing_behind(self):
        for _ in range(20):
            self.codec.compressor().compress(b"abandoned" * 1000)
            self.codec.decompressor(9).feed(b"")
        assert decompress(self.codec, [compress(self.codec, [b"next"])], 4) == b"next"

    def test_64_threads_share_one_codec(self):
        bodies = [b"thread %d says %d\n" % (n, n * n) * (20 * n + 1) for n in range(64)]
        expected = [compress(self.codec, [body]) for body in bodies]
        together = threading.Barrier(64)

        def hammer(number: int) -> int:
            together.wait(timeout=60)
            equal = 0
            for turn in range(12):
                turned = (number + turn * 7) % 64
                stored = compress(self.codec, segments(bodies[turned], [turn * 900, 5000]))
                equal += stored == expected[turned]
                plain = decompress(self.codec, segments(stored, [turn * 50]), len(bodies[turned]))
                equal += plain == bodies[turned]
            return equal

        with futures.ThreadPoolExecutor(64) as pool:
            assert list(pool.map(hammer, range(64))) == [24] * 64

    def test_other_threads_run_meanwhile(self):
        if not self.knows_its_end:
            return  # identity works on no byte long enough to let go
        # No thread is interrupted here: another one runs only while the codec lets it.
        go, ran = threading.Event(), threading.Event()
        body = b"".join(b"%x" % (i * i) for i in range(400_000))
        stored = compress(self.codec, [body])
        other = threading.Thread(target=lambda: go.wait() and ran.set())
        interval = sys.getswitchinterval()
        other.start()
        sys.setswitchinterval(1000)
        try:
            go.set()
            decompress(self.codec, [stored], len(body))
            compress(self.codec, [body])
            assert ran.is_set()
        finally:
            sys.setswitchinterval(interval)
            other.join()
