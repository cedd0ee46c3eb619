"""Whether decoded bytes are those the object was made of: size, ETag, and the client's checksum.

Frames carry checksums of their own, which the reader compares. What stands here is about the whole:
the MD5 that is the object's ETag, the MD5s of its parts that make a composite one, and the checksum
the client declared when it wrote the object. Rule: what is not known is not compared, and the check
says what it compared. An ETag that looks like an MD5 and is another's, beside a declared checksum
that agrees, is no MD5: stores that encrypt make such ETags.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
"""

import base64
from typing import Self

from s4gateway.objects.attributes import Attributes
from s4gateway.s3 import etag as etags
from s4gateway.s3.checksums import ALGORITHMS, Digests
from s4gateway.values import immutable
from s4gateway.wire.tail import COMPOSITE, FULL_OBJECT, Tail


@immutable
class Expected:
    """What is known of an object's content; sizes in bytes.

    `etag` is an MD5 in hex, or a composite of those of `parts`; `checksum` the algorithm, base64
    value and type a client declared, and `part_checksums` its values for the parts. `crc32c` is
    that of the manifest.
    """

    size: int | None = None
    etag: str | None = None
    parts: tuple[int, ...] = ()
    checksum: tuple[str, str, str] | None = None
    part_checksums: tuple[str, ...] = ()
    crc32c: int | None = None

    @classmethod
    def of(cls, attributes: Attributes) -> Self:
        """What metadata and tail of a stored object say, its own backend ETag left aside."""
        if attributes.tail is not None:
            return cls.of_tail(attributes.tail)
        return cls(attributes.size, attributes.stored.md5, (), attributes.checksum)

    @classmethod
    def of_tail(cls, tail: Tail) -> Self:
        """What the tail of an object assembled from parts says."""
        parts = tuple(size for _, size in tail.parts)
        return cls(tail.original_size, tail.etag, parts, tail.checksum, tail.part_checksums)


class ContentCheck:
    """Takes the decoded bytes in order and compares them at their end.

    `compared` names what is, or was: "size", "etag", the algorithm of a checksum. One thread at a
    time may feed it.

    >>> check = ContentCheck(Expected(3, "900150983cd24fb0d6963f7d28e17f72"))
    >>> check.update(b"abc")
    >>> check.compared, check.problem()
    (('size', 'etag'), '')
    """

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        self._etag = expected.etag is not None and _can_tell(expected)
        algorithm, _, kind = expected.checksum or ("", "", "")
        known = algorithm in ALGORITHMS
        own = (algorithm,) if known and kind == FULL_OBJECT else ()
        self._whole = Digests((*own, *(() if expected.crc32c is None else ("crc32c",))))
        self._whole_algorithm = algorithm if known and kind == FULL_OBJECT else ""
        composite = kind == COMPOSITE and bool(expected.part_checksums)
        self._part_algorithm = algorithm if known and composite and expected.parts else ""
        self._length = 0
        self._sizes = iter(expected.parts)
        self._room = next(self._sizes, None)
        self._part = self._fresh()
        self._done: list[tuple[bytes, bytes]] = []  # MD5 and checksum of each part

    @property
    def compared(self) -> tuple[str, ...]:
        """What is known and therefore compared."""
        size = ("size",) if self._expected.size is not None else ()
        etag = ("etag",) if self._etag else ()
        crc = ("crc32c",) if self._expected.crc32c is not None else ()
        algorithm = self._whole_algorithm or self._part_algorithm
        own = (algorithm,) if algorithm and algorithm not in crc else ()
        return size + crc + etag + own

    def update(self, piece: bytes | memoryview) -> None:
        """Take the next bytes."""
        view = memoryview(piece)
        self._length += len(view)
        self._whole.update(view)
        while self._room is not None and len(view) >= self._room:
            self._part.update(view[: self._room])
            view = view[self._room :]
            self._end_part()
        if len(view):
            self._part.update(view)
            if self._room is not None:
                self._room -= len(view)

    def problem(self) -> str:
        """What is wrong with the bytes taken, all of them; empty when nothing is."""
        self.update(b"")  # parts without bytes at the end
        expected = self._expected
        if expected.size not in {None, self._length}:
            return f"size: {self._length} bytes, should be {expected.size}"
        if expected.crc32c not in {None, *self._found_crc()}:
            return f"crc32c: the CRC-32C should be {expected.crc32c}"
        if self._whole_algorithm:
            assert expected.checksum is not None
            found = _base64(self._whole[self._whole_algorithm])
            if found != expected.checksum[1]:
                return f"{self._whole_algorithm}: {found}, should be {expected.checksum[1]}"
        if self._etag and (found := self._found_etag()) != expected.etag:
            if not self._whole_algorithm or expected.parts:
                return f"etag: {found}, should be {expected.etag}"
            self._etag = False
        if self._part_algorithm:
            found_parts = tuple(_base64(checksum) for _, checksum in self._done)
            if found_parts != expected.part_checksums:
                return f"{self._part_algorithm}: the checksums of the parts differ"
        return ""

    def _fresh(self) -> Digests:
        own = (self._part_algorithm,) if self._part_algorithm else ()
        return Digests((*(("md5",) if self._etag else ()), *own))

    def _end_part(self) -> None:
        md5 = self._part["md5"] if self._etag else b""
        own = self._part[self._part_algorithm] if self._part_algorithm else b""
        self._done.append((md5, own))
        self._part = self._fresh()
        self._room = next(self._sizes, None)

    def _found_crc(self) -> tuple[int, ...]:
        return () if self._expected.crc32c is None else (self._whole.crc("crc32c"),)

    def _found_etag(self) -> str:
        if not self._expected.parts:
            return self._part["md5"].hex()
        return etags.composite(md5.hex() for md5, _ in self._done)


def _can_tell(expected: Expected) -> bool:
    """Whether the ETag can be computed: a composite one needs to know its parts."""
    return bool(expected.parts) or "-" not in (expected.etag or "")


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
