"""gzip, against the standard library's reader and members we would not write."""

import gzip as stdlib_gzip
import zlib

import pytest

from s4gateway.codecs.gzip import Gzip
from s4gateway.wire.codec_id import CodecId
from tests.contracts.codec_contract import CodecContract, compress, decompress, refused


class TestGzip(CodecContract):
    codec = Gzip()
    refuses_what_follows = False


BODY = b"".join(b"line %d of a text\n" % i for i in range(3000))


def test_the_header_is_the_formats_own():
    assert compress(Gzip(), [BODY])[:10].hex() == "1f8b08000000000000ff"
    assert compress(Gzip(), []).hex() == "1f8b08000000000000ff03000000000000000000"
    assert Gzip().id is CodecId.CPU_GZIP


def test_any_tool_reads_what_is_written():
    assert stdlib_gzip.decompress(compress(Gzip(), [BODY[:10], BODY[10:]])) == BODY


def test_level_is_six():
    reference = zlib.compress(BODY, 6, wbits=31)
    assert compress(Gzip(), [BODY])[10:] == reference[10:]


def test_names_times_and_comments_in_a_header_are_read():
    raw = zlib.compress(BODY, 6, wbits=-15)
    trailer = zlib.crc32(BODY).to_bytes(4, "little") + len(BODY).to_bytes(4, "little")
    header = b"\x1f\x8b\x08\x1c" + b"\1\2\3\4\2\3" + b"\2\0xy" + b"name\0" + b"comment\0"
    assert decompress(Gzip(), [header + raw + trailer], len(BODY)) == BODY


def test_only_the_first_member_counts():
    stored = compress(Gzip(), [b"first"]) + compress(Gzip(), [b"second"])
    assert decompress(Gzip(), [stored], 5) == b"first"
    assert decompress(Gzip(), [stored[:30], stored[30:]], 5) == b"first"


@pytest.mark.parametrize("position", [-1, -5])
def test_the_members_own_checksum_and_length_are_verified(position):
    stored = bytearray(compress(Gzip(), [BODY]))
    stored[position] ^= 1
    with refused("codec-io"):
        decompress(Gzip(), [stored], len(BODY))


def test_output_that_ends_on_a_full_piece_is_complete():
    body = bytes(1024 * 1024)
    assert decompress(Gzip(), [compress(Gzip(), [body])], 5 * len(body)) == body
