"""What is known about one uploaded part: the user metadata `s4-part` of its record.

Rule: a record is written by this gateway and read back from a store that others write to as well;
each field is checked for its type and range before it is used, and what is odd is no record at all.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from s4gateway.objects.errors import DamagedObject
from s4gateway.s3.checksums import ALGORITHMS

METADATA: Final = "x-amz-meta-s4-part"  # the header that carries the facts

_VERSION: Final = 1
_LIMIT: Final = 2048  # characters; S3 stores no more user metadata
_MAX_SIZE: Final = 6 * 1024**3  # a part of 5 GiB, framed and padded, is below
_is_md5: Final = re.compile("[0-9a-f]{32}").fullmatch
_is_etag: Final = re.compile(r"[!#-~]{1,128}").fullmatch


@dataclass(frozen=True, slots=True)
class PartFacts:
    """One part: what the client sent and what is stored of it.

    `md5` is that of the plaintext, lower-case hex, and the part's ETag for clients; `size` and
    `stored_size` are bytes before and after encoding. `checksums` are base64 by algorithm, over the
    plaintext. `backend_etag` is the store's own ETag of a direct part, None for a staged one.
    `stored_md5` is the hex MD5 of the stored bytes, padding included; None where the store is sent
    another checksum of them.
    """

    number: int
    md5: str
    size: int
    stored_size: int
    stored_md5: str | None
    backend_etag: str | None = None
    checksums: Mapping[str, str] = field(default_factory=dict)

    @property
    def staged(self) -> bool:
        """The frames lie in the record itself; otherwise the store has them as its own part."""
        return self.backend_etag is None

    def encode(self) -> str:
        """The facts as metadata: ASCII without spaces.

        >>> facts = PartFacts(7, "0" * 32, 10, 12, "f" * 32, checksums={"crc32": "AAAAAA=="})
        >>> PartFacts.decode(facts.encode()) == facts
        True
        """
        fields: dict[str, Any] = {
            "v": _VERSION,
            "number": self.number,
            "md5": self.md5,
            "size": self.size,
            "stored": self.stored_size,
            "kind": "staged" if self.staged else "direct",
        }
        if self.stored_md5 is not None:
            fields["stored_md5"] = self.stored_md5
        if self.backend_etag is not None:
            fields["etag"] = self.backend_etag
        if self.checksums:
            fields["checksums"] = dict(self.checksums)
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def decode(cls, text: str) -> "PartFacts":
        """Read the facts; raises DamagedObject for what encode would not have written."""
        fields = _object(text)
        kind, etag = fields.get("kind"), fields.get("etag")
        stored_md5 = fields.get("stored_md5")
        checksums = fields.get("checksums", {})
        if (
            not _within(fields.get("number"), 1, 10_000)
            or not _within(fields.get("size"), 0, _MAX_SIZE)
            or not _within(fields.get("stored"), 0, _MAX_SIZE)
            or not _matches(_is_md5, fields.get("md5"))
            or not (stored_md5 is None or _matches(_is_md5, stored_md5))
            or (kind, etag is None) not in (("staged", True), ("direct", False))
            or not (etag is None or _matches(_is_etag, etag))
            or not _are_checksums(checksums)
        ):
            raise _damaged()
        return cls(
            fields["number"],
            fields["md5"],
            fields["size"],
            fields["stored"],
            stored_md5,
            etag,
            checksums,
        )


def _object(text: str) -> dict[str, Any]:
    if len(text) > _LIMIT:
        raise _damaged()
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged() from error
    if not isinstance(fields, dict) or fields.get("v") != _VERSION:
        raise _damaged()
    return fields


def _within(value: object, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _matches(pattern: Any, *values: object) -> bool:
    return all(isinstance(value, str) and pattern(value) is not None for value in values)


def _are_checksums(values: object) -> bool:
    return isinstance(values, dict) and all(
        name in ALGORITHMS and _is_digest(value, ALGORITHMS[name]) for name, value in values.items()
    )


def _is_digest(value: object, length: int) -> bool:
    if not isinstance(value, str):
        return False
    try:
        digest = binascii.a2b_base64(value, strict_mode=True)
    except ValueError:
        return False
    return len(digest) == length and base64.b64encode(digest).decode() == value


def _damaged() -> DamagedObject:
    return DamagedObject("the record of a part is malformed")
