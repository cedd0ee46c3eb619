"""What looks worth compressing; the rule as written is the oracle for the shortcuts."""

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.codecs import dispatcher
from s4gateway.codecs.dispatcher import Dispatcher
from s4gateway.wire.codec_id import CodecId
from tests import corpus

NOISE = corpus.noise(8192, seed=3)


def plain_entropy(data: bytes) -> float:
    shares = [count / len(data) for count in Counter(data).values()]
    return -sum(share * math.log2(share) for share in shares)


def plain_rule(body: bytes) -> bool:
    sample = body[:4096]
    if dispatcher.has_magic(sample) and len(sample) > 48 and plain_entropy(sample[16:]) >= 7.5:
        return True
    return len(sample) >= 128 and plain_entropy(sample) >= 7.5


def picked(body: bytes) -> CodecId:
    return Dispatcher(CodecId.CPU_ZSTD).pick(body)


@pytest.mark.parametrize("size", [0, 1, 2, 48, 127, 181, 182, 4096])
def test_entropy_is_shannons(size):
    for sample in (bytes(size), bytes(i % 256 for i in range(size)), NOISE[:size]):
        expected = plain_entropy(sample) if sample else 0.0
        assert dispatcher.entropy(sample) == pytest.approx(expected, abs=1e-9)


@given(
    st.binary(max_size=300),
    st.integers(0, 4096),
    st.integers(0, 2**32),
    st.sampled_from([b"", b"\x1f\x8b", b"PK\x03\x04", b"\0\0\0\0ftyp", b"RIFF____WEBP"]),
)
def test_shortcuts_never_change_the_pick(head, size, seed, magic):
    source = random.Random(seed)
    alphabet = source.sample(range(256), source.randint(1, 256))
    body = magic + head + bytes(source.choices(alphabet, k=size))
    assert (picked(body) is CodecId.PASSTHROUGH) == plain_rule(body)


@given(st.integers(150, 4096), st.floats(0, 0.4), st.integers(0, 2**32))
def test_mixtures_of_text_and_noise_follow_the_rule(size, share, seed):
    source = random.Random(seed)
    body = bytes(
        source.randrange(256) if source.random() < share else source.randrange(32, 127)
        for _ in range(size)
    )
    assert (picked(body) is CodecId.PASSTHROUGH) == plain_rule(body)


def test_printable_share_proves_low_entropy():
    # The most that 98 printable bytes and 158 others can reach at the shares the shortcut accepts.
    def most(others: float) -> float:
        mixing = -others * math.log2(others) - (1 - others) * math.log2(1 - others)
        return mixing + (1 - others) * math.log2(98) + others * math.log2(158)

    assert most(1 / 6) < 7.5
    for size in range(198, 4097):  # shorter ones have too few bytes behind the first 16
        assert most(size // 6 / (size - 16)) < 7.5


def test_noise_passes_and_text_does_not():
    assert picked(NOISE) is CodecId.PASSTHROUGH
    assert picked(corpus.text(10_000)) is CodecId.CPU_ZSTD
    assert picked(b"") is CodecId.CPU_ZSTD
    assert picked(b"\x00" * 5000) is CodecId.CPU_ZSTD


def test_only_the_first_4_kib_are_looked_at():
    assert picked(bytes(4096) + NOISE) is CodecId.CPU_ZSTD
    assert picked(NOISE[:4096] + bytes(100_000)) is CodecId.PASSTHROUGH


def test_short_noise_is_compressed_anyway():
    assert picked(bytes(range(127))) is CodecId.CPU_ZSTD
    assert picked(bytes(range(181))) is CodecId.CPU_ZSTD
    assert picked(bytes(range(182))) is CodecId.PASSTHROUGH


def test_always_does_not_look():
    always = Dispatcher(CodecId.CPU_GZIP, "always")
    assert always.pick(NOISE) is CodecId.CPU_GZIP
    assert Dispatcher(CodecId.CPU_GZIP).pick(NOISE) is CodecId.PASSTHROUGH
    assert Dispatcher(CodecId.CPU_GZIP).pick(b"text" * 99) is CodecId.CPU_GZIP


@pytest.mark.parametrize(
    "start",
    [
        "1f8b",
        "28b52ffd",
        "89504e470d0a1a0a",
        "ffd8ff",
        "255044462d",
        "504b0304",
        "377abcaf271c",
        "fd377a585a00",
        "425a68",
        "0000000066747970",
        "1a45dfa3",
        "524946460000000057454250",
    ],
)
def test_magics_are_known(start):
    assert dispatcher.has_magic(bytes.fromhex(start))
    assert not dispatcher.has_magic(bytes.fromhex(start)[:-1])


def test_a_magic_looks_behind_the_formats_header():
    # The header's own bytes pull the whole sample below the threshold, not what follows it.
    tail = bytes(range(182))
    sample = b"PK\x03\x04" + bytes(12) + tail
    assert dispatcher.entropy(sample) < 7.5 <= dispatcher.entropy(tail)
    assert picked(sample) is CodecId.PASSTHROUGH
    assert picked(b"XX" + sample[2:]) is CodecId.CPU_ZSTD
    assert picked(b"PK\x03\x04" + bytes(400)) is CodecId.CPU_ZSTD
