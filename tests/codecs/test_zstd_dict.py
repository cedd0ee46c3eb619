"""Dictionaries: fingerprints, the wrong one, the broken one, and what they are good for."""

import functools
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard

from s4gateway.codecs import decoder, encoder, zstd_dict
from s4gateway.codecs.registry import Registry
from s4gateway.codecs.zstd import Zstd
from s4gateway.codecs.zstd_dict import ZstdDict
from s4gateway.wire.codec_id import CodecId
from tests.contracts.codec_contract import CodecContract, compress, decompress, refused


def event(number: int) -> bytes:
    return (
        b'{"level":"info","service":"billing","event":"invoice_paid","invoice":"inv_%07d",'
        b'"account":"acc_%06d","cents":%d}' % (number, number * 37 % 999_983, 250 + number * 17)
    )


@functools.cache
def trained() -> bytes:
    return zstandard.train_dictionary(4096, [event(i) for i in range(400)]).as_bytes()


RAW = event(1) + event(2) + event(3)


class TestTrainedDictionary(CodecContract):
    codec = ZstdDict(trained())
    joins_streams = True


class TestRawContentDictionary(CodecContract):
    codec = ZstdDict(RAW)
    joins_streams = True


@pytest.mark.parametrize("dictionary", [trained(), RAW], ids=["trained", "raw"])
def test_small_objects_shrink_where_plain_zstd_cannot(dictionary):
    codec, body = ZstdDict(dictionary), event(900_001)
    stored = compress(codec, [body])
    assert len(stored) < len(compress(Zstd(), [body])) * 0.75
    assert decompress(codec, [stored], len(body)) == body


def test_names_are_the_sha256_of_the_bytes():
    codec = ZstdDict(RAW)
    digest = hashlib.sha256(RAW).hexdigest()
    assert (codec.sha256, codec.dict_id) == (digest, digest[:16])
    assert zstd_dict.fingerprint(RAW) == digest
    assert codec.id is CodecId.CPU_ZSTD_DICT


def test_a_fetched_dictionary_is_verified():
    digest = zstd_dict.fingerprint(RAW)
    assert ZstdDict.verified(RAW, digest[:16]).dict_id == digest[:16]
    assert ZstdDict.verified(RAW, digest[:16], digest, level=9).level == 9
    for dict_id, sha256 in [("0" * 16, None), (digest[:16], "0" * 64), (digest, None), ("", None)]:
        with refused("dictionary-mismatch"):
            ZstdDict.verified(RAW, dict_id, sha256)


@pytest.mark.parametrize(
    "dictionary",
    [b"", bytes(zstd_dict.MAX_DICTIONARY_SIZE + 1), trained()[:20]],
    ids=["empty", "over-1-MiB", "cut"],
)
def test_what_cannot_be_a_dictionary_is_refused(dictionary):
    with refused("dictionary-invalid"):
        ZstdDict(dictionary)


@pytest.mark.parametrize("size", [1, 7, 8, zstd_dict.MAX_DICTIONARY_SIZE])
def test_one_byte_to_one_mib_serve(size):
    codec = ZstdDict((b"raw content " * 90_000)[:size])
    assert decompress(codec, [compress(codec, [b"raw content"])], 11) == b"raw content"


def test_without_its_trained_dictionary_a_payload_is_refused():
    body = event(5)
    stored = compress(ZstdDict(trained()), [body])
    for codec in (Zstd(), ZstdDict(RAW)):
        with refused("codec-io"):
            decompress(codec, [stored], len(body))


def test_a_dictionary_libzstd_cannot_compress_with_is_a_codec_error(monkeypatch):
    codec = ZstdDict(RAW)

    class Broken:
        def compressobj(self):
            return self

        def compress(self, data):
            raise zstandard.ZstdError("cannot compress")

        def flush(self):
            raise zstandard.ZstdError("error ending compression stream")

    monkeypatch.setattr(codec._compressors, "_create", Broken)
    with refused("codec-io"):
        codec.compressor().compress(b"x")
    with refused("codec-io"):
        codec.compressor().flush()


def test_wins_only_when_strictly_smaller():
    assert zstd_dict.dictionary_wins(10, 11)
    assert not zstd_dict.dictionary_wins(10, 10)
    assert not zstd_dict.dictionary_wins(11, 10)


def test_what_a_dictionary_is_can_be_asked():
    assert ZstdDict(trained()).is_trained
    assert not ZstdDict(RAW).is_trained
    for data in (trained(), RAW):
        assert (ZstdDict(data).data, ZstdDict(data).size) == (data, len(data))


@pytest.mark.parametrize("dictionary", [trained(), RAW], ids=["trained", "raw"])
def test_a_small_payload_is_decoded_at_one_go(dictionary):
    codec, body = ZstdDict(dictionary), event(7)
    stored = compress(codec, [body])
    assert codec.decode_whole(stored, len(body)) == body
    assert codec.decode_whole(memoryview(stored), len(body)) == body
    assert codec.decode_whole(stored, len(body) - 1) is None
    assert codec.decode_whole(stored[:-1], len(body)) is None
    assert Zstd().decode_whole(compress(ZstdDict(trained()), [body]), len(body)) is None


@pytest.mark.parametrize("dictionary", [trained(), RAW], ids=["trained", "raw"])
def test_a_dictionary_keeps_few_contexts(dictionary):
    codec = ZstdDict(dictionary)
    streams = [codec.compressor() for _ in range(20)]
    readers = [codec.decompressor(10) for _ in range(20)]
    for stream, reader in zip(streams, readers, strict=True):
        reader.feed(stream.compress(b"x") + stream.flush())
        reader.finish()
    assert len(codec._compressors._idle) == len(codec._decompressors._idle) == 2


def test_64_threads_that_share_a_dictionary_code_every_byte_as_one_would():
    codec, codecs, count = ZstdDict(trained()), Registry(), 64
    bodies = [event(number) * (1 + number % 40) for number in range(50)]
    expected = [b"".join(encoder.encode_smallest(body, Zstd(), codec).pieces()) for body in bodies]
    together = threading.Barrier(count)

    def hammer(turn: int) -> bool:
        together.wait(30)
        same = True
        for step in range(len(bodies)):
            number = (step * 7 + turn * 31) % len(bodies)
            body = bodies[number]
            stored = b"".join(encoder.encode_smallest(body, Zstd(), codec).pieces())
            back = decoder.decode_body(stored, codecs, codec)
            streamed = decompress(codec, [compress(codec, [body])], len(body))
            same = same and stored == expected[number] and back == body == streamed
        return same

    with ThreadPoolExecutor(count) as threads:
        assert all(threads.map(hammer, range(count)))
