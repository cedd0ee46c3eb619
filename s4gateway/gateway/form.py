"""A multipart/form-data body as it streams: small fields, then one file that is never held whole.

Rule: what is not the file is bounded, 20 KB all together as on AWS, and fields count only when
they stand before the file. The pieces of the file end without an error only when the whole form
was sound: its closing boundary came, the body has the length and the digests the request announced,
and the file has the size its policy allows. So whoever reads them to the end may store them.
RFC 7578; https://docs.aws.amazon.com/AmazonS3/latest/API/RESTObjectPOST.html
"""

import logging
from collections.abc import AsyncIterator
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from s4gateway.gateway.body import Piece, RequestBody
from s4gateway.s3.checksums import Declared, Digests
from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import Headers
from s4gateway.s3.post_form import FormFields

FIELDS_LIMIT: Final = 20 * 1024
_LONGEST_BOUNDARY: Final = 70  # RFC 2046 section 5.1.1

# It would log a warning, with bytes of the client's choice, for every form that is malformed.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


class Form:
    """A form whose fields have been read; its file is a body to store.

    `fields` are those before the file. `sizes` (smallest and largest file in bytes) and `declared`
    (what the client promised about the file) are set by whoever has read the fields.
    """

    __slots__ = ("_arriving", "_body", "_digests", "_parts", "declared", "fields", "sizes")

    def __init__(self, body: RequestBody, content_type: str) -> None:
        self._body = body
        self._arriving = body.pieces()
        self._digests = Digests(body.declared.algorithms)
        self._parts = _Parts(_boundary(content_type))
        self.fields = FormFields(())
        self.sizes: tuple[int, int] | None = None
        self.declared = Declared()

    @classmethod
    async def open(cls, body: RequestBody, headers: Headers) -> "Form":
        """Read as far as the file; raises S3Error for what is no form with a file, ClientGone.

        `headers` are those of the request.
        """
        if body.length is None and "transfer-encoding" not in headers:
            raise S3Error("MissingContentLength")
        form = cls(body, headers.get("content-type", ""))
        parts = form._parts
        while not parts.has_file and await form._advance():
            pass
        if not parts.has_file:
            if not parts.ended:
                raise S3Error("MalformedPOSTRequest")
            raise S3Error("IncorrectNumberOfFilesInPostRequest")
        form.fields = FormFields(parts.fields, parts.file_name)
        return form

    @property
    def length(self) -> int | None:
        """The most bytes the file can have; None when the request did not announce its length."""
        announced = self._body.length
        if announced is None:
            return None
        return announced - self._body.received + self._parts.file_size

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yield the file, once; raises S3Error, ClientGone."""
        parts = self._parts
        while True:
            if self.sizes is not None and parts.file_size > self.sizes[1]:
                raise S3Error("EntityTooLarge", MaxSizeAllowed=self.sizes[1])
            for piece in parts.take():
                yield piece
            if not await self._advance():
                break
        if not parts.ended:
            raise S3Error("MalformedPOSTRequest")
        if self.sizes is not None and parts.file_size < self.sizes[0]:
            raise S3Error(
                "EntityTooSmall", ProposedSize=parts.file_size, MinSizeAllowed=self.sizes[0]
            )
        self._body.verify(self._digests)

    def verify(self, digests: Digests) -> dict[str, str]:
        """Compare what was declared of the file with what came; return its checksums, base64."""
        return self.declared.verify(digests, {})

    async def _advance(self) -> bool:
        """Take the next piece of the body; False when there is none."""
        piece = await anext(self._arriving, None)
        if piece is None:
            return False
        data = bytes(piece)
        self._digests.update(data)
        self._parts.feed(data)
        return True


def _boundary(content_type: str) -> bytes:
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 0 < len(boundary) <= _LONGEST_BOUNDARY:
        raise S3Error("MalformedPOSTRequest")
    return boundary


class _Parts:
    """The parts of a form, sorted while they are parsed; pieces of the file are not copied."""

    def __init__(self, boundary: bytes) -> None:
        self.fields: list[tuple[str, str]] = []
        self.file_name = ""
        self.file_size = 0
        self.has_file = False
        self.ended = False
        self._fed = 0
        self._file: list[memoryview] = []
        self._in_file = False
        self._field = ""
        self._value = bytearray()
        self._header = bytearray()
        self._text = bytearray()
        self._disposition = ""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin,
                "on_part_data": self._part_data,
                "on_part_end": self._part_end,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_end": self._end,
            },
        )

    def feed(self, data: bytes) -> None:
        """Parse the next bytes; raises S3Error."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise S3Error("MalformedPOSTRequest") from error
        self._fed += len(data)
        if self._fed - self.file_size > FIELDS_LIMIT:
            raise S3Error("MaxPostPreDataLengthExceededError", MaxSizeAllowed=FIELDS_LIMIT)

    def take(self) -> list[memoryview]:
        """What has come of the file since the last time."""
        taken, self._file = self._file, []
        return taken

    def _part_begin(self) -> None:
        self._disposition = ""
        self._value.clear()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._text += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            if self._disposition:
                raise S3Error("MalformedPOSTRequest")
            self._disposition = self._text.decode("latin-1")
        self._header.clear()
        self._text.clear()

    def _headers_finished(self) -> None:
        kind, options = parse_options_header(self._disposition)
        self._field = _utf8(options.get(b"name", b""))
        if kind != b"form-data" or not self._field:
            raise S3Error("MalformedPOSTRequest")
        if self._field.lower() == "file":
            if self.has_file:
                raise S3Error("IncorrectNumberOfFilesInPostRequest")
            self.has_file = self._in_file = True
            self.file_name = _utf8(options.get(b"filename", b""))

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self.file_size += end - start
            self._file.append(memoryview(data)[start:end])
        elif not self.has_file:
            self._value += data[start:end]

    def _part_end(self) -> None:
        if not self.has_file:
            self.fields.append((self._field, _utf8(self._value)))
        self._in_file = False

    def _end(self) -> None:
        self.ended = True


def _utf8(data: bytes | bytearray) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise S3Error("MalformedPOSTRequest") from error
