import pytest

from s4gateway.backend.base import Head
from s4gateway.objects import attributes
from s4gateway.s3.headers import Headers
from s4gateway.wire import frame
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.hops import MAX_HOPS
from tests import corpus
from tests.objects import world


def head(size: int = 50, etag: str = "abc", **metadata: str) -> Head:
    fields = [("etag", f'"{etag}"'), ("content-length", str(size))]
    names = [(f"x-amz-meta-{name.replace('_', '-')}", text) for name, text in metadata.items()]
    return Head(200, Headers(fields + names))


LOGICAL = "0" * 32
MANIFEST = {
    "s4_codec": "cpu-zstd",
    "s4_original_size": "100",
    "s4_compressed_size": "50",
    "s4_crc32c": "1",
}


@pytest.mark.parametrize(
    ("metadata", "size", "etag", "codec"),
    [
        ({}, 50, "abc", "foreign"),
        ({"color": "blue"}, 50, "abc", "foreign"),
        (MANIFEST | {"s4_framed": "true"}, 100, "abc-1", "cpu-zstd"),
        (MANIFEST | {"s4_framed": "true", "s4_logical_etag": LOGICAL}, 100, LOGICAL, "cpu-zstd"),
        (MANIFEST | {"s4_codec": "passthrough"}, 100, "abc", "passthrough"),
        ({"s4_multipart": "true"}, None, "abc-1", "multipart"),
        ({"s4_multipart": "true", "s4_original_size": "7"}, 7, "abc-1", "multipart"),
        ({"s4_encrypted": "aes-256-gcm"}, None, "abc-1", "encrypted"),
    ],
)
def test_what_clients_see_follows_from_the_metadata(
    metadata: dict[str, str], size: int | None, etag: str, codec: str
):
    described = attributes.describe(head(**metadata))
    assert (described.size, described.etag, described.codec) == (size, etag, codec)
    known = described.known()
    if size is None:
        assert known is None
    else:
        assert known is not None
        assert (known.logical_size, known.logical_etag) == (size, etag)
        assert (known.etag, known.stored_size) == ("abc", 50)


def test_a_composite_etag_of_the_store_is_shown_as_it_is():
    described = attributes.describe(head(etag="abc-3", s4_multipart="true"))
    assert described.etag == "abc-3"


async def hop(stored: bytes):
    reads = []

    async def read(start: int, end: int) -> bytes:
        reads.append((start, end))
        return stored[start:end]

    return await attributes.hop_frames(read, len(stored)), reads


async def test_frames_are_found_by_their_headers_alone():
    body = world.framed(world.cut(corpus.text(1000), 100), padding=(-1, 0, 30))
    index, reads = await hop(body.stored + frame.padding(5))
    assert index is not None
    assert tuple(index) == body.entries
    assert index.total_padded == len(body.stored) + 17
    assert all(end - start <= frame.HEADER_SIZE for start, end in reads)


def header(original: int, compressed: int) -> bytes:
    return frame.FrameHeader(CodecId.CPU_ZSTD, original, compressed, 0).pack()


@pytest.mark.parametrize(
    "stored",
    [
        corpus.noise(500),
        b"S4F2",
        world.framed([b"abc" * 50]).stored[:-1],
        world.framed([b"abc" * 50]).stored + b"x",
        header(2**63, 0) * 3,
        header(2**64 - 1, 2**64 - 1),
        header(1, 2**63) + header(1, 2**63),
        b"S4P1" + b"\xff" * 8,
        header(1, 0)[:4] + b"\x63\0\0\0" + header(1, 0)[8:],
    ],
    ids=["noise", "short", "cut", "trailing", "sizes beyond 64 bits", "all ones", "beyond the end",
         "padding beyond the end", "unknown codec"],
)  # fmt: skip
async def test_what_is_no_sequence_of_frames_has_no_index(stored: bytes):
    index, _ = await hop(stored)
    assert index is None


async def test_an_object_of_endless_frames_is_given_up():
    index, reads = await hop(header(0, 0) * (MAX_HOPS + 1))
    assert index is None
    assert len(reads) == MAX_HOPS
