"""What is stored is what the gateway stores for the same bytes in one PUT."""

import contextlib

import pytest

from s4gateway.backend.memory import MemoryBackend
from s4gateway.codecs.face import encode_s4_object
from s4gateway.s4fs.encoding import BodyEncoder, WriteCodec, checked_codec
from s4gateway.s4fs.errors import S4WriteCodecError
from tests import corpus
from tests.objects import world

MIB = 1024 * 1024
BODIES = {
    "empty": b"",
    "a byte": b"a",
    "text": corpus.text(100_000),
    "one full chunk": corpus.text(4 * MIB),
    "a chunk and a byte": corpus.text(4 * MIB + 1),
    "nine MiB": corpus.text(9 * MIB, seed=2),
    "noise": corpus.noise(3 * MIB),
    "short noise": corpus.noise(40),
    "text, then noise": corpus.text(4 * MIB) + corpus.noise(5 * MIB),
    "noise, then text": corpus.noise(MIB) + corpus.text(5 * MIB),
    "quiet head": corpus.quiet_head(5 * MIB),
    "random behind a quiet start": corpus.quiet_head(2 * MIB, head=4096),
}


def encoded(data: bytes, codec: WriteCodec, length: int | None, piece: int = 700_001):
    encoder = BodyEncoder(codec, 3, length)
    with contextlib.closing(encoder):
        for start in range(0, len(data), piece):
            encoder.feed(memoryview(data)[start : start + piece])
        found = encoder.finish()
        with found.body:
            found.body.seek(0)
            body = found.body.read()
    assert found.stored_size == len(body)
    return body, dict(found.metadata), found.index


@pytest.mark.parametrize("known", [True, False], ids=["length known", "length unknown"])
@pytest.mark.parametrize("name", BODIES)
async def test_auto_stores_byte_for_byte_what_the_gateway_stores(name: str, known: bool):
    data = BODIES[name]
    gateway = world.Instance(MemoryBackend({world.BUCKET: {}}))
    theirs = await gateway.encode(data, known=known)
    chunks = theirs.body.chunks
    stored = chunks if isinstance(chunks, bytes) else b"".join([each async for each in chunks()])
    expected = (stored, theirs.manifest.to_metadata(), theirs.index)
    theirs.close()
    await gateway.close()
    assert encoded(data, "auto", len(data) if known else None) == expected


@pytest.mark.parametrize("codec", ["cpu-zstd", "passthrough"])
@pytest.mark.parametrize("name", BODIES)
def test_a_codec_by_name_stores_what_the_codec_api_returns(name: str, codec: WriteCodec):
    data = BODIES[name]
    body, metadata, index = encoded(data, codec, len(data))
    obj = encode_s4_object(data, codec)
    assert (body, metadata) == (obj["body"], obj["metadata"])
    assert (None if index is None else index.encode()) == obj["sidecar"]


@pytest.mark.parametrize("piece", [1, 9777, 5 * MIB])
def test_the_pieces_in_which_a_body_is_written_make_no_difference(piece: int):
    data = BODIES["text"][:5000] if piece == 1 else BODIES["nine MiB"]
    assert encoded(data, "auto", None, piece) == encoded(data, "auto", None)


def test_a_body_that_is_given_up_leaves_nothing_running():
    encoder = BodyEncoder("cpu-zstd", 3, None)
    encoder.feed(BODIES["nine MiB"])
    encoder.close()
    encoder.close()


@pytest.mark.parametrize("name", ["cpu-gzip", "cpu-zstd-dict", "nvcomp-zstd", "zstd", ""])
def test_codecs_that_are_not_written_here_point_to_the_gateway(name: str):
    with pytest.raises(S4WriteCodecError, match="the gateway writes the others") as caught:
        checked_codec(name)
    assert isinstance(caught.value, NotImplementedError)
