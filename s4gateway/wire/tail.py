"""The tail: what an object assembled from parts says about itself, behind its last frame.

The metadata of a multipart object is fixed when its upload begins, before anybody knows how large
the object will be. Size, ETag and parts therefore stand at the object's end, in the filler of a
padding frame that every reader of frames skips. The metadata names a token (`s4-tail`), and only a
tail that carries the same one is believed: bytes a client stored never are.

    S4P1     magic, length u64 of all that follows
    record   token 8, MD5 of the ETag 16, original size u64, parts u32, runs u32,
             checksum type u8 (0 none, 1 FULL_OBJECT, 2 COMPOSITE), a u8, d u8,
             u8 (1 when part checksums follow), algorithm a, digest d
             runs of (first number u16, count u16, size u64): parts numbered on, of equal size
             digest of each part, d bytes, if there are any
    footer   length of the record u32, CRC-32C of the record u32, S4T1

All little-endian. The footer ends the object, so the last bytes tell how far back the frame begins.
"""

import base64
import binascii
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from s4gateway.wire import errors
from s4gateway.wire.crc32c import crc32c
from s4gateway.wire.frame import PADDING_HEADER_SIZE, PADDING_MAGIC

MAGIC: Final = b"S4T1"
FULL_OBJECT: Final = "FULL_OBJECT"
COMPOSITE: Final = "COMPOSITE"
MAX_PARTS: Final = 10_000
MAX_BYTES: Final = 1024 * 1024  # of a whole tail frame; 10,000 parts with SHA-512 take 760,000
PROBE: Final = 16 * 1024  # bytes at an object's end that hold almost every tail
FOOTER_SIZE: Final = 12
CRC_SIZE: Final = 4

_PADDING: Final = struct.Struct("<4sQ")
_FIXED: Final = struct.Struct("<8s16sQIIBBBB")
_RUN: Final = struct.Struct("<HHQ")
_FOOTER: Final = struct.Struct("<II4s")
_U64_MAX: Final = 2**64 - 1
_MAX_DIGEST: Final = 64
_TYPES: Final = (None, FULL_OBJECT, COMPOSITE)

_is_token: Final = re.compile("[0-9a-f]{16}").fullmatch
_is_etag: Final = re.compile("([0-9a-f]{32})-([0-9]{1,5})").fullmatch
_is_algorithm: Final = re.compile("[a-z0-9]{1,16}").fullmatch


def is_token(text: str) -> bool:
    """Whether `text` may stand in `s4-tail`: 16 lower-case hexadecimal digits."""
    return _is_token(text) is not None


@dataclass(frozen=True, slots=True)
class Tail:
    """Size, ETag, parts and checksum of an object assembled from parts; sizes in bytes.

    `parts` are (number, original size) in order. `checksum` is algorithm ("crc32c"), value as
    clients see it (base64, a COMPOSITE one with `-N` behind it) and type; `part_checksums` are the
    base64 values of all parts by the same algorithm, or none. TailError (bad-tail) when these
    contradict each other.

    >>> tail = Tail("00112233445566aa", "0678a5c0864e58f1854f042ceb36b1c4-2", 8, ((1, 5), (4, 3)))
    >>> Tail.decode(b"frames" + tail.encode(), "00112233445566aa") == tail
    True
    """

    token: str
    etag: str
    original_size: int
    parts: tuple[tuple[int, int], ...]
    checksum: tuple[str, str, str] | None = None
    part_checksums: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not is_token(self.token):
            raise _bad(f"token {self.token!r}")
        match = _is_etag(self.etag)
        if match is None or match[2] != str(len(self.parts)):
            raise _bad(f"ETag {self.etag!r} of {len(self.parts)} parts")
        self._check_parts()
        self._check_checksums()

    def _check_parts(self) -> None:
        numbers = [number for number, _ in self.parts]
        if not 1 <= len(numbers) <= MAX_PARTS or numbers[0] < 1 or numbers[-1] > MAX_PARTS:
            raise _bad(f"{len(numbers)} parts")
        if any(low >= high for low, high in pairwise(numbers)):
            raise _bad("part numbers do not ascend")
        if min(size for _, size in self.parts) < 0:
            raise _bad("a part of negative size")
        if not self.original_size == sum(size for _, size in self.parts) <= _U64_MAX:
            raise _bad(f"{self.original_size} bytes are not those of the parts")

    def _check_checksums(self) -> None:
        if self.checksum is None:
            if self.part_checksums:
                raise _bad("checksums of parts without an algorithm")
            return
        algorithm, value, kind = self.checksum
        if _is_algorithm(algorithm) is None or kind not in {FULL_OBJECT, COMPOSITE}:
            raise _bad(f"checksum {self.checksum}")
        length = len(self._digest(value, kind))
        if len(self.part_checksums) not in {0, len(self.parts)}:
            raise _bad(f"{len(self.part_checksums)} checksums of {len(self.parts)} parts")
        if any(len(_from_base64(each)) != length for each in self.part_checksums):
            raise _bad("checksums of different lengths")

    def _digest(self, value: str, kind: str) -> bytes:
        if kind == COMPOSITE:
            value, dash, count = value.rpartition("-")
            if not dash or count != str(len(self.parts)):
                raise _bad(f"composite checksum {value}{dash}{count} of {len(self.parts)} parts")
        return _from_base64(value)

    @property
    def crc32c(self) -> int | None:
        """The CRC-32C of the whole original, when that is the checksum its client declared."""
        if self.checksum is None or self.checksum[::2] != ("crc32c", FULL_OBJECT):
            return None
        digest = _from_base64(self.checksum[1])
        return int.from_bytes(digest) if len(digest) == CRC_SIZE else None

    def encode(self) -> bytes:
        """Return the whole frame, to be appended to the object; at most MAX_BYTES."""
        kind, algorithm, digest = 0, b"", b""
        if self.checksum is not None:
            name, value, type_ = self.checksum
            kind, algorithm = _TYPES.index(type_), name.encode()
            digest = self._digest(value, type_)
        runs = list(_runs(self.parts))
        record = b"".join(
            (
                _FIXED.pack(
                    bytes.fromhex(self.token),
                    bytes.fromhex(self.etag[:32]),
                    self.original_size,
                    len(self.parts),
                    len(runs),
                    kind,
                    len(algorithm),
                    len(digest),
                    bool(self.part_checksums),
                ),
                algorithm,
                digest,
                *(_RUN.pack(*run) for run in runs),
                *(base64.b64decode(each) for each in self.part_checksums),
            )
        )
        footer = _FOOTER.pack(len(record), crc32c(record), MAGIC)
        return _PADDING.pack(PADDING_MAGIC, len(record) + FOOTER_SIZE) + record + footer

    @classmethod
    def decode(cls, suffix: bytes | bytearray | memoryview, token: str) -> "Tail":
        """Read the tail at the end of `suffix`, the last bytes of an object whose metadata says so.

        Any bytes give a Tail or TailError: too-short, bad-magic, too-large, length-mismatch,
        crc-mismatch, token-mismatch, bad-tail.
        """
        size = needed(suffix)
        if size > len(suffix):
            raise errors.TailError("too-short", f"{len(suffix)} of {size} bytes are there")
        frame = bytes(suffix[len(suffix) - size :])
        magic, pad_len = _PADDING.unpack_from(frame)
        if magic != PADDING_MAGIC or pad_len != size - PADDING_HEADER_SIZE:
            raise errors.TailError("length-mismatch", f"no padding frame of {size} bytes")
        record = frame[PADDING_HEADER_SIZE:-FOOTER_SIZE]
        _, crc, _ = _FOOTER.unpack_from(frame, size - FOOTER_SIZE)
        if crc32c(record) != crc:
            raise errors.TailError("crc-mismatch", f"the record has not CRC-32C {crc:#010x}")
        tail = _parse(record)
        if tail.token != token:
            raise errors.TailError("token-mismatch", f"{tail.token}, the metadata says {token}")
        return tail


def needed(suffix: bytes | bytearray | memoryview) -> int:
    """Return how many bytes at the end of the object the tail takes, from its footer alone.

    More than `suffix` has means: read that many. TailError: too-short, bad-magic, too-large.
    """
    if len(suffix) < FOOTER_SIZE:
        raise errors.TailError("too-short", f"{len(suffix)} of {FOOTER_SIZE} bytes are there")
    length, _, magic = _FOOTER.unpack_from(suffix, len(suffix) - FOOTER_SIZE)
    if magic != MAGIC:
        raise errors.TailError("bad-magic", f"expected S4T1, found {magic!r}")
    size: int = PADDING_HEADER_SIZE + length + FOOTER_SIZE
    if size > MAX_BYTES:
        raise errors.TailError("too-large", f"{size} > {MAX_BYTES}")
    return size


def _runs(parts: tuple[tuple[int, int], ...]) -> Iterator[tuple[int, int, int]]:
    first, count, size = parts[0][0], 0, parts[0][1]
    for number, each in parts:
        if number != first + count or each != size:
            yield first, count, size
            first, count, size = number, 0, each
        count += 1
    yield first, count, size


def _parse(record: bytes) -> Tail:
    if len(record) < _FIXED.size:
        raise _bad(f"a record of {len(record)} bytes")
    token, md5, size, count, run_count, kind, a, d, has_parts = _FIXED.unpack_from(record)
    runs_at = _FIXED.size + a + d
    digests_at = runs_at + run_count * _RUN.size
    if not 1 <= run_count <= count <= MAX_PARTS or has_parts > 1 or d > _MAX_DIGEST:
        raise _bad(f"{run_count} runs of {count} parts, digests of {d} bytes")
    if kind >= len(_TYPES) or bool(kind) != bool(a) or bool(kind) != bool(d):
        raise _bad(f"checksum type {kind}, {a} and {d} bytes")
    if len(record) != digests_at + has_parts * count * d:
        raise _bad(f"a record of {len(record)} bytes")
    parts = _expand(record[runs_at:digests_at], count)
    checksum = None
    if (type_ := _TYPES[kind]) is not None:
        algorithm = record[_FIXED.size : _FIXED.size + a].decode("latin-1")
        value = _to_base64(record[_FIXED.size + a : runs_at])
        checksum = (algorithm, f"{value}-{count}" if type_ == COMPOSITE else value, type_)
    digests = record[digests_at:]
    return Tail(
        token.hex(),
        f"{md5.hex()}-{count}",
        size,
        parts,
        checksum,
        tuple(_to_base64(digests[at : at + d]) for at in range(0, len(digests), d or 1)),
    )


def _expand(runs: bytes, count: int) -> tuple[tuple[int, int], ...]:
    parts: list[tuple[int, int]] = []
    for first, length, size in _RUN.iter_unpack(runs):
        if not 1 <= length <= count - len(parts):
            raise _bad(f"runs of other than {count} parts")
        parts += [(number, size) for number in range(first, first + length)]
    if len(parts) != count:
        raise _bad(f"runs of {len(parts)} parts, not {count}")
    return tuple(parts)


def _to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _from_base64(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _bad(f"checksum {text!r}") from error
    if not 1 <= len(data) <= _MAX_DIGEST or _to_base64(data) != text:
        raise _bad(f"checksum {text!r}")
    return data


def _bad(detail: str) -> errors.TailError:
    return errors.TailError("bad-tail", detail)
