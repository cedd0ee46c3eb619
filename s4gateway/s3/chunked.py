"""The aws-chunked body: how a payload is framed, and signed, when it is sent in chunks.

Rule: payload bytes are handed on as they come, as slices of what was fed, and are provisional until
``close`` returns: every chunk signature, the final chunk, the announced length, the trailers and
their signature have been checked then, or an S3Error was raised. Lines and trailers are bounded;
nothing else is buffered. Chunk extensions are ignored where chunks are not signed.
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
"""

import hashlib
import hmac
import re
from collections.abc import Iterable
from enum import Enum, auto
from typing import Final

from s4gateway.s3 import sigv4
from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import Headers
from s4gateway.s3.keyed_hash import hmac_sha256

MAX_LINE: Final = 1024
MAX_TRAILER: Final = 16 * 1024
MAX_CHUNK: Final = 5 * 1024**3

_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")
_CHUNK_HEADER: Final = re.compile(rb"([0-9a-fA-F]{1,16})[ \t]*(?:;(.*))?", re.DOTALL)
_SIGNATURE: Final = re.compile(rb"(?:^|;)[ \t]*chunk-signature=([0-9a-fA-F]+)[ \t]*(?:;|$)")
_TRAILER_SIGNATURE: Final = "x-amz-trailer-signature"
_TERMINATED: Final = "The request body terminated unexpectedly"


class PayloadMode(Enum):
    """What x-amz-content-sha256 says about the body."""

    SHA256 = "sha256"
    UNSIGNED = sigv4.UNSIGNED_PAYLOAD
    SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    SIGNED_CHUNKS_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
    UNSIGNED_CHUNKS_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"

    @classmethod
    def parse(cls, value: str) -> "PayloadMode":
        """The mode of a header value.

        Raises ``NotImplemented`` for SigV4A and ``InvalidArgument`` for anything unknown.

        >>> PayloadMode.parse("UNSIGNED-PAYLOAD")
        <PayloadMode.UNSIGNED: 'UNSIGNED-PAYLOAD'>
        """
        mode = _MODES.get(value)
        if mode is not None:
            return mode
        if _SHA256.fullmatch(value) is not None:
            return cls.SHA256
        if value.startswith("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"):
            raise S3Error("NotImplemented", "Signature Version 4A is not implemented.")
        raise S3Error(
            "InvalidArgument",
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, "
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a "
            "valid sha256 value.",
            ArgumentName="x-amz-content-sha256",
            ArgumentValue=value,
        )

    @property
    def is_chunked(self) -> bool:
        """Whether the body is framed and needs a ``ChunkedDecoder``."""
        return self not in _UNFRAMED

    @property
    def is_signed(self) -> bool:
        """Whether every chunk carries a signature."""
        return self in (PayloadMode.SIGNED_CHUNKS, PayloadMode.SIGNED_CHUNKS_TRAILER)

    @property
    def has_trailer(self) -> bool:
        """Whether trailers may follow the final chunk."""
        return self in (PayloadMode.SIGNED_CHUNKS_TRAILER, PayloadMode.UNSIGNED_CHUNKS_TRAILER)


_UNFRAMED: Final = (PayloadMode.SHA256, PayloadMode.UNSIGNED)
_MODES: Final = {mode.value: mode for mode in PayloadMode if mode is not PayloadMode.SHA256}


def decoded_length(headers: Headers) -> int:
    """Payload bytes an aws-chunked request announces; ``MissingContentLength`` without a number."""
    text = headers.get("x-amz-decoded-content-length", "")
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise S3Error(
            "MissingContentLength",
            "You must provide the x-amz-decoded-content-length HTTP header, a number of bytes.",
        )
    return int(text)


def content_encoding(value: str | None) -> str | None:
    """The Content-Encoding to store: the client's, less aws-chunked; None when nothing is left.

    >>> content_encoding("aws-chunked,gzip"), content_encoding("aws-chunked")
    ('gzip', None)
    """
    if value is None or "aws-chunked" not in value.lower():
        return value or None
    kept = [token.strip() for token in value.split(",")]
    return ",".join([token for token in kept if token.lower() not in ("aws-chunked", "")]) or None


class _State(Enum):
    HEADER = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILER = auto()
    DONE = auto()


class ChunkedDecoder:
    r"""Decodes one aws-chunked body fed in pieces of any size.

    ``authenticated`` is what verifying the request returned; ``InvalidRequest`` is raised when the
    mode has signatures and there is none to continue from.
    ``length`` is the announced payload size; None leaves it unchecked. ``trailer_names`` are the
    announced trailers, in lower case. After an error the decoder must not be fed again.

    >>> decoder = ChunkedDecoder(PayloadMode.UNSIGNED_CHUNKS_TRAILER, None, 3, ())
    >>> [bytes(piece) for piece in decoder.feed(b"3\r\nabc\r\n0\r\n\r\n")]
    [b'abc']
    >>> decoder.close()
    {}
    """

    def __init__(
        self,
        mode: PayloadMode,
        authenticated: sigv4.Authenticated | None,
        length: int | None,
        trailer_names: Iterable[str],
        max_chunk: int = MAX_CHUNK,
    ) -> None:
        assert mode.is_chunked
        self._signer: _ChunkSigner | None = None
        if mode.is_signed:
            self._signer = _ChunkSigner(authenticated)
        self._has_trailer = mode.has_trailer
        self._announced = frozenset(trailer_names)
        self._length = length
        self._max_chunk = max_chunk
        self._state = _State.HEADER
        self._partial = b""
        self._left = 0
        self._total = 0
        self._trailers: dict[str, str] = {}
        self._trailer_bytes = 0
        self._trailer_signature: str | None = None
        self._blank_lines = 0

    @property
    def done(self) -> bool:
        """Whether the final line of the body has been read."""
        return self._state is _State.DONE

    def feed(self, data: bytes | memoryview) -> list[memoryview]:
        """Take the next bytes of the body; return the payload among them, in slices of ``data``."""
        pieces: list[memoryview] = []
        view = memoryview(data)
        position, end = 0, len(view)
        while position < end:
            if self._state is _State.DATA:
                piece = view[position : position + self._left]
                position += len(piece)
                self._left -= len(piece)
                pieces.append(piece)
                if self._signer is not None:
                    self._signer.update(piece)
                if not self._left:
                    self._state = _State.DATA_END
            else:
                line, position = self._read_line(view, position)
                if line is not None:
                    self._take_line(line)
        return pieces

    def close(self) -> dict[str, str]:
        """The body has ended: finish every check and return the trailers by lower-case name.

        Raises ``IncompleteBody`` when it ended early, ``BadDigest`` when an announced trailer is
        missing and ``MalformedTrailerError`` when the trailers were not signed as they should be.
        """
        if self._state is _State.DONE:
            if self._partial.strip(b"\r\n"):
                raise S3Error("MalformedTrailerError")
        else:
            # A peer may leave out the last line ends; what counts is that everything else is there.
            ended = self._state is _State.TRAILER and not self._partial.strip(b"\r\n")
            if not (ended and (self._blank_lines or self._is_complete())):
                raise S3Error("IncompleteBody", _TERMINATED)
        missing = self._announced - self._trailers.keys()
        if missing:
            raise S3Error("BadDigest", f"The announced trailer {min(missing)} is missing.")
        if not self._is_complete():
            raise S3Error("MalformedTrailerError")
        self._state = _State.DONE
        return self._trailers

    def _is_complete(self) -> bool:
        """Whether all that was announced has come, and the trailers' signature if they have one."""
        if not self._announced <= self._trailers.keys():
            return False
        return self._signer is None or not self._trailers or self._trailer_signature is not None

    def _read_line(self, view: memoryview, position: int) -> tuple[bytes | None, int]:
        """A line without its CRLF and the position after it; None when it has not all come."""
        known = len(self._partial)
        joined = self._partial + bytes(view[position : position + MAX_LINE + 2 - known])
        end = joined.find(b"\r\n", max(known - 1, 0))
        if end >= 0:
            self._partial = b""
            return joined[:end], position + end + 2 - known
        if len(joined) >= MAX_LINE + 2:
            raise self._line_fault()
        self._partial = joined
        return None, len(view)

    def _line_fault(self) -> S3Error:
        if self._state in (_State.TRAILER, _State.DONE):
            return S3Error("MalformedTrailerError")
        return S3Error("IncompleteBody", _TERMINATED)

    def _take_line(self, line: bytes) -> None:
        if self._state is _State.HEADER:
            self._start_chunk(line)
        elif self._state is _State.DATA_END:
            if line:
                raise self._line_fault()
            if self._signer is not None:
                self._signer.end_chunk()
            self._state = _State.HEADER
        elif self._state is _State.TRAILER:
            self._take_trailer(line)
        elif line:
            raise self._line_fault()

    def _start_chunk(self, line: bytes) -> None:
        match = _CHUNK_HEADER.fullmatch(line)
        if match is None:
            raise self._line_fault()
        size = int(match[1], 16)
        if self._signer is not None:
            self._signer.start_chunk(match[2] or b"")
        self._total += size
        if self._length is not None and self._total > self._length:
            raise S3Error("RequestBodyLengthMismatch")
        if size > self._max_chunk:
            raise S3Error("EntityTooLarge", ProposedSize=size, MaxSizeAllowed=self._max_chunk)
        self._left = size
        if size:
            self._state = _State.DATA
            return
        if self._length is not None and self._total != self._length:
            raise S3Error("IncompleteBody")
        if self._signer is not None:
            self._signer.end_chunk()
        self._state = _State.TRAILER

    def _take_trailer(self, line: bytes) -> None:
        """One line after the final chunk; an empty one ends the body.

        Peers exist that put an empty line before the trailers, or between them and their signature,
        and that end a trailer with LF CRLF.
        """
        if not line:
            self._blank_lines += 1
            if self._is_complete() or self._blank_lines > 1:
                self._state = _State.DONE
            return
        self._trailer_bytes += len(line) + 2
        name, colon, value = (
            part.strip() for part in line.decode("latin-1").rstrip("\n").partition(":")
        )
        name = name.lower()
        if not self._has_trailer or not colon or self._trailer_bytes > MAX_TRAILER:
            raise self._line_fault()
        if self._trailer_signature is not None or name in self._trailers:
            raise self._line_fault()
        if self._signer is not None and name == _TRAILER_SIGNATURE:
            self._signer.verify_trailers(self._trailers, value)
            self._trailer_signature = value
        elif name in self._announced:
            self._trailers[name] = value
        else:
            raise self._line_fault()


class _ChunkSigner:
    """The chain of chunk signatures that starts at the signature of the headers."""

    def __init__(self, authenticated: sigv4.Authenticated | None) -> None:
        if authenticated is None or not authenticated.signing_key:
            raise S3Error(
                "InvalidRequest",
                "Requests without a Signature Version 4 don't support this x-amz-content-sha256 "
                "value. Please use UNSIGNED-PAYLOAD or STREAMING-UNSIGNED-PAYLOAD-TRAILER.",
            )
        self._access_key = authenticated.access_key
        self._key = authenticated.signing_key
        self._stamp = f"{authenticated.amz_date}\n{authenticated.scope}"
        self._previous = authenticated.seed_signature
        self._claimed = ""
        self._hash = hashlib.sha256()
        self.update = self._hash.update

    def start_chunk(self, extension: bytes) -> None:
        match = _SIGNATURE.search(extension)
        self._claimed = "" if match is None else match[1].decode()
        self._hash = hashlib.sha256()
        self.update = self._hash.update

    def end_chunk(self) -> None:
        """Verify the chunk that just ended, over what ``update`` was given."""
        digests = f"{sigv4.EMPTY_SHA256}\n{self._hash.hexdigest()}"
        self._verify("AWS4-HMAC-SHA256-PAYLOAD", digests, self._claimed)

    def verify_trailers(self, trailers: dict[str, str], signature: str) -> None:
        lines = "".join([f"{name}:{value}\n" for name, value in trailers.items()])
        digest = hashlib.sha256(lines.encode("latin-1")).hexdigest()
        self._verify("AWS4-HMAC-SHA256-TRAILER", digest, signature)

    def _verify(self, kind: str, digests: str, signature: str) -> None:
        text = f"{kind}\n{self._stamp}\n{self._previous}\n{digests}"
        expected = hmac_sha256(self._key, text.encode())
        if not hmac.compare_digest(expected.encode(), signature.lower().encode()):
            raise S3Error(
                "SignatureDoesNotMatch",
                AWSAccessKeyId=self._access_key,
                StringToSign=text,
                SignatureProvided=signature,
                StringToSignBytes=text.encode().hex(" "),
            )
        self._previous = expected
