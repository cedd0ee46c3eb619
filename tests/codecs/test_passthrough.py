"""The identity codec, which cannot know where its stream ends."""

from s4gateway.codecs.passthrough import Passthrough
from s4gateway.wire.codec_id import CodecId
from tests.contracts import codec_contract
from tests.contracts.codec_contract import MIB, CodecContract, compress, decompress


class TestPassthrough(CodecContract):
    codec = Passthrough()
    knows_its_end = False
    refuses_what_follows = True  # it is beyond the limit
    joins_streams = True

    def test_junk_behind_the_stream(self):
        with codec_contract.refused("bomb"):
            decompress(self.codec, [b"body", b"!"], 4)


def test_bytes_are_not_copied():
    body = b"the very same object"
    assert Passthrough().compressor().compress(body) is body
    assert Passthrough().decompressor(100).feed(body)[0] is body


def test_large_buffers_leave_in_pieces():
    body = bytes(2 * MIB + 1)
    assert [len(p) for p in Passthrough().decompressor(4 * MIB).feed(body)] == [MIB, MIB, 1]


def test_identity():
    assert Passthrough().id is CodecId.PASSTHROUGH
    assert compress(Passthrough(), [b"a", b"", b"b"]) == b"ab"
