import hashlib
import hmac
import tracemalloc
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4gateway.s3 import chunked, sigv4
from s4gateway.s3.chunked import ChunkedDecoder, PayloadMode
from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import Headers

SIGNED = PayloadMode.SIGNED_CHUNKS
SIGNED_TRAILER = PayloadMode.SIGNED_CHUNKS_TRAILER
UNSIGNED_TRAILER = PayloadMode.UNSIGNED_CHUNKS_TRAILER
CRC32C = "x-amz-checksum-crc32c"

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
SCOPE = "20130524/us-east-1/s3/aws4_request"


def authenticated(seed: str, mode: PayloadMode = SIGNED) -> sigv4.Authenticated:
    return sigv4.Authenticated(
        "AKIAIOSFODNN7EXAMPLE",
        mode.value,
        SCOPE,
        "20130524T000000Z",
        sigv4.signing_key(SECRET, "20130524", "us-east-1"),
        seed,
    )


SEED = authenticated("4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9")


@dataclass
class Encoder:
    """Writes an aws-chunked body as a client does; written from the AWS pages, not from ours."""

    mode: PayloadMode
    previous: str = SEED.seed_signature

    def _sign(self, *lines: str) -> str:
        text = "\n".join([lines[0], SEED.amz_date, SEED.scope, self.previous, *lines[1:]])
        self.previous = hmac.new(SEED.signing_key, text.encode(), "sha256").hexdigest()
        return self.previous

    def chunk(self, data: bytes) -> bytes:
        header = f"{len(data):x}"
        if self.mode.is_signed:
            hashes = hashlib.sha256(b"").hexdigest(), hashlib.sha256(data).hexdigest()
            header += ";chunk-signature=" + self._sign("AWS4-HMAC-SHA256-PAYLOAD", *hashes)
        return header.encode() + b"\r\n" + data + (b"\r\n" if data else b"")

    def trailers(self, trailers: dict[str, str], line_end: bytes = b"\r\n") -> bytes:
        out = b"".join(f"{n}:{v}".encode() + line_end for n, v in trailers.items())
        if trailers and self.mode.is_signed:
            canonical = "".join(f"{n}:{v}\n" for n, v in trailers.items()).encode()
            digest = hashlib.sha256(canonical).hexdigest()
            signature = self._sign("AWS4-HMAC-SHA256-TRAILER", digest)
            out += f"x-amz-trailer-signature:{signature}\r\n".encode()
        return out

    def body(self, chunks: list[bytes], trailers: dict[str, str]) -> bytes:
        framed = b"".join([self.chunk(data) for data in [*chunks, b""]])
        return framed + self.trailers(trailers) + b"\r\n"


def decoder(
    mode: PayloadMode, length: int | None = None, names: tuple[str, ...] = ()
) -> ChunkedDecoder:
    return ChunkedDecoder(mode, SEED if mode.is_signed else None, length, names)


def decode(target: ChunkedDecoder, body: bytes, sizes: list[int]) -> tuple[bytes, dict[str, str]]:
    """Feed the body cut into pieces of the given sizes, repeated."""
    out, position, turn = [], 0, 0
    while position < len(body):
        size = sizes[turn % len(sizes)]
        out += [bytes(piece) for piece in target.feed(body[position : position + size])]
        position, turn = position + size, turn + 1
    return b"".join(out), target.close()


def refusal(target: ChunkedDecoder, body: bytes, sizes: list[int] | None = None) -> str:
    with pytest.raises(S3Error) as caught:
        decode(target, body, sizes or [len(body) or 1])
    return caught.value.code


# --- the published examples --------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7, 1024, 65536, 10**6])
def test_the_chunked_upload_aws_publishes_decodes(size: int):
    a = b"a"
    body = (
        b"10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"
        b"\r\n" + a * 65536 + b"\r\n"
        b"400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"
        b"\r\n" + a * 1024 + b"\r\n"
        b"0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"
        b"\r\n\r\n"
    )
    assert len(body) == 66824
    target = decoder(SIGNED, 66560)
    assert decode(target, body, [size]) == (a * 66560, {})
    assert target.done


def published_trailer_example() -> tuple[sigv4.Authenticated, bytes]:
    seed = authenticated(
        "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e", SIGNED_TRAILER
    )
    return seed, (
        b"10000;chunk-signature=b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2"
        b"\r\n" + b"a" * 65536 + b"\r\n"
        b"400;chunk-signature=1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7"
        b"\r\n" + b"a" * 1024 + b"\r\n"
        b"0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\n"
        b"x-amz-checksum-crc32c:sOO8/Q==\r\n"
        b"x-amz-trailer-signature:"
        b"d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n"
    )


def test_the_trailer_example_aws_publishes_decodes():
    seed, body = published_trailer_example()
    target = ChunkedDecoder(SIGNED_TRAILER, seed, 66560, [CRC32C])
    assert decode(target, body, [1000]) == (b"a" * 66560, {CRC32C: "sOO8/Q=="})


def test_a_trailer_that_is_not_what_was_signed_does_not_match():
    seed, body = published_trailer_example()
    target = ChunkedDecoder(SIGNED_TRAILER, seed, 66560, [CRC32C])
    assert refusal(target, body.replace(b"sOO8/Q==", b"sOO8/A==")) == "SignatureDoesNotMatch"


# --- any chunking, any segmentation ------------------------------------------------------------

CHUNKS = st.lists(st.binary(min_size=1, max_size=300), max_size=6)
SIZES = st.lists(st.integers(1, 200), min_size=1, max_size=8)
MODES = st.sampled_from([SIGNED, SIGNED_TRAILER, UNSIGNED_TRAILER])


def trailers_of(mode: PayloadMode) -> dict[str, str]:
    return {CRC32C: "sOO8/Q=="} if mode.has_trailer else {}


@given(MODES, CHUNKS, SIZES | st.just([1]))
def test_any_chunking_survives_any_segmentation(
    mode: PayloadMode, chunks: list[bytes], sizes: list[int]
):
    payload, trailers = b"".join(chunks), trailers_of(mode)
    body = Encoder(mode).body(chunks, trailers)
    target = decoder(mode, len(payload), tuple(trailers))
    assert decode(target, body, sizes) == (payload, trailers)
    assert target.done


@given(MODES, CHUNKS, SIZES, st.data())
@settings(max_examples=300)
def test_a_body_cut_short_is_refused(
    mode: PayloadMode, chunks: list[bytes], sizes: list[int], data: st.DataObject
):
    trailers = trailers_of(mode)
    body = Encoder(mode).body(chunks, trailers)
    # Only the empty line at the very end may be missing: nothing depends on it any more.
    cut = data.draw(st.integers(0, len(body) - 3))
    target = decoder(mode, len(b"".join(chunks)), tuple(trailers))
    assert refusal(target, body[:cut], sizes) == "IncompleteBody"


@given(MODES, CHUNKS, SIZES, st.data())
@settings(max_examples=500)
def test_a_changed_byte_gives_an_s3_error_or_the_same_payload_or_a_verified_length(
    mode: PayloadMode, chunks: list[bytes], sizes: list[int], data: st.DataObject
):
    payload, trailers = b"".join(chunks), trailers_of(mode)
    body = bytearray(Encoder(mode).body(chunks, trailers))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    target = decoder(mode, len(payload), tuple(trailers))
    try:
        out, found = decode(target, bytes(body), sizes)
    except S3Error:
        return
    assert len(out) == len(payload)
    assert found.keys() == trailers.keys()
    if mode.is_signed:
        assert out == payload
        assert found == trailers


@given(MODES, st.binary(max_size=400), SIZES)
@settings(max_examples=300)
def test_garbage_never_raises_anything_but_an_s3_error(
    mode: PayloadMode, garbage: bytes, sizes: list[int]
):
    target = decoder(mode, 10, ())
    with pytest.raises(S3Error):
        decode(target, garbage, sizes)


# --- lies, one by one --------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [SIGNED, SIGNED_TRAILER])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_wrong_chunk_signature_does_not_match_wherever_it_stands(mode: PayloadMode, index: int):
    trailers = trailers_of(mode)
    body = Encoder(mode).body([b"x" * 50, b"y" * 50], trailers)
    at = [i for i in range(len(body)) if body.startswith(b"chunk-signature=", i)][index] + 16
    forged = body[:at] + b"0" * 64 + body[at + 64 :]
    with pytest.raises(S3Error) as caught:
        decode(decoder(mode, 100, tuple(trailers)), forged, [7])
    assert caught.value.code == "SignatureDoesNotMatch"
    assert caught.value.fields["SignatureProvided"] == "0" * 64
    assert caught.value.fields["StringToSign"].startswith("AWS4-HMAC-SHA256-PAYLOAD\n2013")


def test_changed_data_under_a_right_signature_does_not_match():
    body = Encoder(SIGNED).body([b"x" * 50], {}).replace(b"x" * 50, b"x" * 49 + b"y")
    assert refusal(decoder(SIGNED, 50), body) == "SignatureDoesNotMatch"


@pytest.mark.parametrize("extension", ["", ";chunk-signature=", ";other=1", ";chunk-signature=zz"])
def test_a_chunk_without_a_signature_does_not_match(extension: str):
    body = f"3{extension}\r\nabc\r\n0\r\n\r\n".encode()
    assert refusal(decoder(SIGNED, 3), body) == "SignatureDoesNotMatch"


def test_an_unsigned_final_chunk_does_not_match():
    body = Encoder(SIGNED).chunk(b"abc") + b"0\r\n\r\n"
    assert refusal(decoder(SIGNED, 3), body) == "SignatureDoesNotMatch"


def test_chunks_in_another_order_do_not_match():
    encoder = Encoder(SIGNED)
    first, second, final = encoder.chunk(b"abc"), encoder.chunk(b"def"), encoder.chunk(b"")
    assert refusal(decoder(SIGNED, 6), second + first + final) == "SignatureDoesNotMatch"


@pytest.mark.parametrize("mode", [SIGNED, UNSIGNED_TRAILER])
def test_a_missing_final_chunk_is_an_incomplete_body(mode: PayloadMode):
    body = Encoder(mode).chunk(b"abc")
    assert refusal(decoder(mode, 3), body) == "IncompleteBody"
    assert refusal(decoder(mode, 0), b"") == "IncompleteBody"


@pytest.mark.parametrize(
    ("length", "code"),
    [(5, "IncompleteBody"), (2, "RequestBodyLengthMismatch"), (0, "RequestBodyLengthMismatch")],
)
def test_a_payload_of_another_length_than_announced_is_refused(length: int, code: str):
    assert refusal(decoder(UNSIGNED_TRAILER, length), b"3\r\nabc\r\n0\r\n\r\n") == code


def test_a_length_that_was_not_announced_is_not_checked():
    assert decode(decoder(UNSIGNED_TRAILER), b"3\r\nabc\r\n0\r\n\r\n", [4]) == (b"abc", {})


@pytest.mark.parametrize(
    "header",
    [b"", b"xyz", b"-1", b"+1", b"0x1", b" 1", b"1_0", b"1 0", b"1" * 17, b"\xff", b"1\n"],
)
def test_a_malformed_chunk_size_is_an_incomplete_body(header: bytes):
    body = header + b"\r\nabc\r\n0\r\n\r\n"
    assert refusal(decoder(UNSIGNED_TRAILER), body) == "IncompleteBody"


@pytest.mark.parametrize("size", [1, 100, 10**6])
def test_a_chunk_header_without_end_is_refused_within_its_bound(size: int):
    target = decoder(UNSIGNED_TRAILER)
    tracemalloc.start()
    assert refusal(target, b"1;" + b"x" * 10**6, [size]) == "IncompleteBody"
    assert tracemalloc.get_traced_memory()[1] < 4 * 10**6
    tracemalloc.stop()


def test_a_chunk_larger_than_allowed_is_refused_at_its_header():
    assert refusal(decoder(UNSIGNED_TRAILER), b"ffffffffffffffff\r\n") == "EntityTooLarge"
    target = ChunkedDecoder(UNSIGNED_TRAILER, None, None, (), max_chunk=4)
    assert refusal(target, b"5\r\n") == "EntityTooLarge"


def test_a_chunk_longer_than_it_says_is_refused():
    assert refusal(decoder(UNSIGNED_TRAILER), b"3\r\nabcd\r\n0\r\n\r\n") == "IncompleteBody"


def test_extensions_of_unsigned_chunks_are_ignored():
    body = b"3;a=b;chunk-signature=zz\r\nabc\r\n0 ;x\r\n\r\n"
    assert decode(decoder(UNSIGNED_TRAILER, 3), body, [3]) == (b"abc", {})


# --- trailers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [SIGNED_TRAILER, UNSIGNED_TRAILER])
def test_an_announced_trailer_that_never_comes_is_a_bad_digest(mode: PayloadMode):
    body = Encoder(mode).body([b"abc"], {})
    assert refusal(decoder(mode, 3, (CRC32C,)), body) == "BadDigest"
    assert refusal(decoder(mode, 3, (CRC32C,)), body + b"\r\n") == "BadDigest"


def test_a_trailer_without_its_signature_is_malformed():
    encoder = Encoder(SIGNED_TRAILER)
    body = encoder.chunk(b"abc") + encoder.chunk(b"") + f"{CRC32C}:sOO8/Q==\r\n\r\n".encode()
    assert refusal(decoder(SIGNED_TRAILER, 3, (CRC32C,)), body) == "MalformedTrailerError"


@pytest.mark.parametrize(
    "block",
    [
        b"x-amz-checksum-sha1:AAAA\r\n\r\n",
        b"x-amz-checksum-crc32c\r\n\r\n",
        b"x-amz-checksum-crc32c:a\r\nx-amz-checksum-crc32c:a\r\n\r\n",
        b"x-amz-trailer-signature:00\r\n\r\n",
        b"x" * 2000,
        b"\xff:\r\n\r\n",
        b"x-amz-checksum-crc32c:a\r\n\r\nmore\r\n",
        b"x-amz-checksum-crc32c:a\r\n\r\nmore",
    ],
)
def test_a_malformed_trailer_block_is_refused(block: bytes):
    body = b"3\r\nabc\r\n0\r\n" + block
    for size in (1, 5, len(body)):
        target = decoder(UNSIGNED_TRAILER, 3, (CRC32C,))
        assert refusal(target, body, [size]) == "MalformedTrailerError"


def test_nothing_may_follow_the_signature_of_the_trailers():
    body = Encoder(SIGNED_TRAILER).body([b"abc"], {CRC32C: "sOO8/Q=="})
    late = body[:-2] + b"x-amz-checksum-sha1:AAAA\r\n\r\n"
    target = decoder(SIGNED_TRAILER, 3, (CRC32C, "x-amz-checksum-sha1"))
    assert refusal(target, late) == "MalformedTrailerError"


def test_a_mode_without_trailers_takes_none():
    body = Encoder(SIGNED).body([b"abc"], {})[:-2] + b"x-amz-checksum-crc32c:AAAA\r\n\r\n"
    assert refusal(decoder(SIGNED, 3), body) == "MalformedTrailerError"


def test_a_trailer_block_is_bounded():
    names = tuple(f"x-amz-checksum-{i}" for i in range(40))
    block = "".join(f"{name}:{'v' * 900}\r\n" for name in names).encode()
    body = b"0\r\n" + block + b"\r\n"
    assert refusal(decoder(UNSIGNED_TRAILER, 0, names), body) == "MalformedTrailerError"


@pytest.mark.parametrize("mode", [SIGNED_TRAILER, UNSIGNED_TRAILER])
@pytest.mark.parametrize("size", [1, 3, 10**4])
def test_line_ends_as_peers_write_them_are_understood(mode: PayloadMode, size: int):
    trailers = {CRC32C: "sOO8/Q=="}
    for line_end, before, end in (
        (b"\n\r\n", b"", b"\r\n"),  # minio-go
        (b"\r\n", b"\r\n", b"\r\n"),  # an empty line after the final chunk
        (b"\r\n\r\n", b"", b"\r\n"),  # an empty line before the signature
        (b"\r\n", b"", b""),  # the page of AWS: nothing after the last trailer
        (b"\r\n", b"", b"\r\n\r\n"),
    ):
        encoder = Encoder(mode)
        framed = encoder.chunk(b"abc") + encoder.chunk(b"") + before
        body = framed + encoder.trailers(trailers, line_end) + end
        assert decode(decoder(mode, 3, (CRC32C,)), body, [size]) == (b"abc", trailers)


def test_names_of_trailers_compare_without_case():
    body = b"0\r\nX-Amz-Checksum-CRC32C: AAAAAA== \r\n\r\n"
    assert decode(decoder(UNSIGNED_TRAILER, 0, (CRC32C,)), body, [9]) == (
        b"",
        {CRC32C: "AAAAAA=="},
    )


# --- modes, lengths, encodings -----------------------------------------------------------------


def test_payload_is_handed_on_without_copying():
    data = b"5\r\nhello\r\n0\r\n\r\n"
    (piece,) = decoder(UNSIGNED_TRAILER, 5).feed(memoryview(data))
    assert isinstance(piece, memoryview)
    assert piece.obj is data


def test_signed_chunks_need_a_version_4_signature():
    for who in (None, sigv4.Authenticated("AKID", SIGNED.value)):
        with pytest.raises(S3Error) as caught:
            ChunkedDecoder(SIGNED, who, 3, ())
        assert caught.value.code == "InvalidRequest"


@pytest.mark.parametrize("mode", [mode for mode in PayloadMode if mode is not PayloadMode.SHA256])
def test_every_mode_is_parsed_from_its_own_word(mode: PayloadMode):
    assert PayloadMode.parse(mode.value) is mode
    assert mode.is_chunked is mode.value.startswith("STREAMING-")
    assert mode.is_signed is ("AWS4-HMAC" in mode.value)
    assert mode.has_trailer is mode.value.endswith("-TRAILER")


@pytest.mark.parametrize("value", ["0" * 64, "abcdefABCDEF0123" * 4])
def test_sixty_four_hex_digits_are_a_hash(value: str):
    assert PayloadMode.parse(value) is PayloadMode.SHA256
    assert not PayloadMode.SHA256.is_chunked


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("", "InvalidArgument"),
        ("sha256", "InvalidArgument"),
        ("0" * 63, "InvalidArgument"),
        ("g" * 64, "InvalidArgument"),
        ("unsigned-payload", "InvalidArgument"),
        ("STREAMING-UNSIGNED-PAYLOAD", "InvalidArgument"),
        ("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", "NotImplemented"),
        ("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER", "NotImplemented"),
    ],
)
def test_any_other_mode_is_refused(value: str, code: str):
    with pytest.raises(S3Error) as caught:
        PayloadMode.parse(value)
    assert caught.value.code == code


def test_the_decoded_length_is_read():
    assert chunked.decoded_length(Headers({"x-amz-decoded-content-length": "66560"})) == 66560


@pytest.mark.parametrize("value", [None, "", "-1", "1.0", "1e3", " 1", "¹", "9" * 20])
def test_without_a_decoded_length_the_length_is_missing(value: str | None):
    headers = Headers({} if value is None else {"x-amz-decoded-content-length": value})
    with pytest.raises(S3Error) as caught:
        chunked.decoded_length(headers)
    assert caught.value.code == "MissingContentLength"


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (None, None),
        ("", None),
        ("aws-chunked", None),
        ("AWS-Chunked, ", None),
        ("aws-chunked,gzip", "gzip"),
        ("gzip, aws-chunked", "gzip"),
        ("gzip , aws-chunked,br", "gzip,br"),
        ("gzip", "gzip"),
        ("gzip, br", "gzip, br"),
    ],
)
def test_aws_chunked_is_never_stored_as_a_content_encoding(value: str | None, stored: str | None):
    assert chunked.content_encoding(value) == stored
