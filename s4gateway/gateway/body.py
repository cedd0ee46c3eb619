"""A request body as the client meant it: from ASGI messages to checked pieces of plaintext.

Rule: a body ends where its declarations say or the request fails. aws-chunked framing is undone and
its signatures are verified on the way; lengths are compared with what was announced; the digests a
client declared are verified by whoever reads the body, before anything is written.
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html
"""

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, Final

from s4gateway.s3 import chunked
from s4gateway.s3.checksums import Declared, Digests
from s4gateway.s3.chunked import ChunkedDecoder, PayloadMode
from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import Headers
from s4gateway.s3.sigv4 import Authenticated

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Piece = bytes | memoryview

# Bytes of a request body that is a document; 1,000 keys of 1 KiB, escaped, are below it.
DOCUMENT_LIMIT: Final = 8 * 1024 * 1024


_NOTHING: Final = Declared()


class ClientGone(Exception):
    """The client closed its connection before the request was complete."""


class RequestBody:
    """The body of one request; iterate once, or `read` it.

    `length` is the plaintext's announced length in bytes, None when the client did not announce
    one. `declared` is what the client promised about it. Raises S3Error for what is malformed
    before a byte is read.
    """

    __slots__ = ("_decoder", "_limit", "_receive", "declared", "finished", "length", "received")

    def __init__(
        self,
        receive: Receive,
        headers: Headers,
        authenticated: Authenticated | None,
        limit: int,
    ) -> None:
        self._receive = receive
        self._limit = limit
        self._decoder: ChunkedDecoder | None = None
        self.received = 0
        self.length = _content_length(headers)
        announced = self.length is not None or "transfer-encoding" in headers
        self.declared = Declared.parse(headers) if announced else _NOTHING
        mode = PayloadMode.UNSIGNED
        if authenticated is not None:
            payload: str | None = authenticated.payload_hash
        else:  # anonymous clients frame their bodies, too
            payload = headers.get("x-amz-content-sha256")
        if payload:
            mode = PayloadMode.parse(payload)
        if mode.is_chunked:
            self.length = chunked.decoded_length(headers)
            self._decoder = ChunkedDecoder(mode, authenticated, self.length, self.declared.trailers)
        if self.length is not None and self.length > limit:
            raise S3Error("EntityTooLarge", ProposedSize=self.length, MaxSizeAllowed=limit)
        self.finished = self.length == 0 and self._decoder is None

    @property
    def is_announced(self) -> bool:
        """The request says that a body follows, or how long it is."""
        return self.length is not None

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yield the plaintext; raises ClientGone, S3Error."""
        decoder = self._decoder
        more = not self.finished
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            data: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            if not data:
                continue
            for piece in (data,) if decoder is None else decoder.feed(data):
                self._count(len(piece))
                yield piece
        self.finished = True
        if decoder is None and self.length is not None and self.received != self.length:
            raise S3Error("IncompleteBody")

    def _count(self, size: int) -> None:
        self.received += size
        if self.length is not None:
            if self.received > self.length:
                raise S3Error("RequestBodyLengthMismatch")
        elif self.received > self._limit:
            raise S3Error("EntityTooLarge", MaxSizeAllowed=self._limit)

    def trailers(self) -> dict[str, str]:
        """Trailers of a body that was read to its end; raises S3Error when it was cut short."""
        return self._decoder.close() if self._decoder is not None else {}

    def verify(self, digests: Digests) -> dict[str, str]:
        """Compare what was declared with what came; return the verified checksums, base64."""
        return self.declared.verify(digests, self.trailers())

    async def read(self, limit: int = DOCUMENT_LIMIT) -> bytes:
        """Return a document, verified; raises S3Error, EntityTooLarge beyond `limit` bytes."""
        if self.length is not None and self.length > limit:
            raise S3Error("EntityTooLarge", ProposedSize=self.length, MaxSizeAllowed=limit)
        digests = Digests(self.declared.algorithms)
        parts: list[bytes] = []
        async for piece in self.pieces():
            if self.received > limit:
                raise S3Error("EntityTooLarge", MaxSizeAllowed=limit)
            digests.update(piece)
            parts.append(bytes(piece))
        self.verify(digests)
        return b"".join(parts)


def _content_length(headers: Headers) -> int | None:
    value = headers.get("content-length")
    if value is None:
        return None
    if not (value.isascii() and value.isdigit()) or len(value) > 19:
        raise S3Error("InvalidArgument", "Content-Length is not a number of bytes.")
    return int(value)
