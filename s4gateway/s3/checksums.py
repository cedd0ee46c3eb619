"""Checksums clients declare for a body, computed over its plaintext and compared before a commit.

Rule: what a client declares is verified or the request is refused; nothing declared goes
unverified. A declaration is read from the headers when the request starts (``Declared.parse``),
the digests are fed while the body streams (``Digests``), and the comparison (``Declared.verify``)
is made when the stream has ended and before anything is written to the backend.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
"""

import base64
import binascii
import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from awscrt import checksums as crt

from s4gateway.s3.errors import S3Error
from s4gateway.s3.headers import Headers
from s4gateway.values import immutable

CHECKSUM_PREFIX: Final = "x-amz-checksum-"

Buffer = bytes | bytearray | memoryview
_Crc = Callable[[Buffer, int], int]


class _Hash(Protocol):
    def update(self, data: Buffer, /) -> None: ...
    def digest(self) -> bytes: ...


# Every one releases the GIL on buffers that are worth it.
_CRCS: Final[Mapping[str, tuple[_Crc, int]]] = {
    "crc32": (zlib.crc32, 4),
    "crc32c": (crt.crc32c, 4),
    "crc64nvme": (crt.crc64nvme, 8),
}
_HASHES: Final[Mapping[str, tuple[Callable[[], _Hash], int]]] = {
    "md5": (lambda: hashlib.md5(usedforsecurity=False), 16),
    "sha1": (lambda: hashlib.sha1(usedforsecurity=False), 20),
    "sha256": (hashlib.sha256, 32),
    "sha512": (hashlib.sha512, 64),
}

# Digest length in bytes of every algorithm an x-amz-checksum-* header may name.
ALGORITHMS: Final[Mapping[str, int]] = {
    **{name: length for name, (_, length) in _CRCS.items()},
    **{name: length for name, (_, length) in _HASHES.items()},
}

# Headers of the same prefix that carry no checksum.
_NO_VALUE: Final = frozenset({"mode", "algorithm", "type"})


class Digests:
    """Running digests of one byte stream, by algorithm: "md5", "crc32c", "sha256", ...

    One thread at a time may feed it, not always the same one. An unknown algorithm is a KeyError.

    >>> digests = Digests(["crc32c", "md5"])
    >>> digests.update(b"123456789")
    >>> digests["crc32c"].hex()
    'e3069283'
    """

    __slots__ = ("_crcs", "_hashes", "_size", "_values")

    def __init__(self, algorithms: Iterable[str]) -> None:
        self._crcs: list[tuple[str, _Crc]] = []
        self._values: dict[str, int] = {}
        self._hashes: dict[str, _Hash] = {}
        self._size = 0
        for name in algorithms:
            crc = _CRCS.get(name)
            if crc is None:
                self._hashes[name] = _HASHES[name][0]()
            elif name not in self._values:
                self._crcs.append((name, crc[0]))
                self._values[name] = 0

    @property
    def size(self) -> int:
        """Bytes fed so far."""
        return self._size

    def update(self, data: Buffer) -> None:
        """Feed the next bytes of the stream."""
        self._size += len(data)
        values = self._values
        for name, crc in self._crcs:
            values[name] = crc(data, values[name])
        for each in self._hashes.values():
            each.update(data)

    def __getitem__(self, algorithm: str) -> bytes:
        """Digest of what was fed so far, big-endian for a CRC, as S3 encodes it."""
        value = self._values.get(algorithm)
        if value is not None:
            return value.to_bytes(ALGORITHMS[algorithm], "big")
        return self._hashes[algorithm].digest()

    def __contains__(self, algorithm: object) -> bool:
        return algorithm in self._values or algorithm in self._hashes

    def crc(self, algorithm: str) -> int:
        """A CRC as a number."""
        return self._values[algorithm]


class DigestSource(Protocol):
    """``Digests``, or a dict when lanes of their own computed them."""

    def __getitem__(self, algorithm: str, /) -> bytes: ...


@immutable
class Declared:
    """The integrity a request declares for its body.

    ``payload_sha256`` is the hex value of x-amz-content-sha256 when it is one, ``checksum`` the
    algorithm and digest of an x-amz-checksum-* header, ``trailers`` the lower-case names announced
    in x-amz-trailer.
    """

    content_md5: bytes | None = None
    payload_sha256: str | None = None
    checksum: tuple[str, bytes] | None = None
    trailers: tuple[str, ...] = ()

    @classmethod
    def parse(cls, headers: Headers) -> "Declared":
        """Read the declarations of a request that carries a body.

        Raises ``InvalidDigest`` for a malformed Content-MD5, ``BadDigest`` for any other malformed
        value, and ``InvalidRequest`` for an unknown algorithm, more than one checksum, a trailer
        that is no checksum, or an x-amz-sdk-checksum-algorithm that names another one.
        """
        checksum: tuple[str, bytes] | None = None
        for name, value in headers.items():
            if not name.startswith(CHECKSUM_PREFIX):
                continue
            algorithm = name[len(CHECKSUM_PREFIX) :]
            if algorithm in _NO_VALUE:
                continue
            if checksum is not None:
                raise _several()
            checksum = (algorithm, _checksum(algorithm, value))
        trailers = _announced(headers.get("x-amz-trailer"))
        if trailers and (checksum is not None or len(trailers) > 1):
            raise _several()
        _check_sdk_algorithm(headers, checksum, trailers)
        content_md5 = headers.get("content-md5")
        payload = headers.get("x-amz-content-sha256")
        return cls(
            None if content_md5 is None else _content_md5(content_md5),
            payload.lower() if payload is not None and _is_sha256(payload) else None,
            checksum,
            trailers,
        )

    @property
    def algorithms(self) -> tuple[str, ...]:
        """Algorithms ``verify`` needs the digests of, each once."""
        names = dict.fromkeys([name[len(CHECKSUM_PREFIX) :] for name in self.trailers])
        if self.checksum is not None:
            names[self.checksum[0]] = None
        if self.content_md5 is not None:
            names["md5"] = None
        if self.payload_sha256 is not None:
            names["sha256"] = None
        return tuple(names)

    def verify(self, digests: DigestSource, trailers: Mapping[str, str]) -> dict[str, str]:
        """Compare everything declared with what was received.

        ``trailers`` are those that followed the body, by lower-case name. Returns the verified
        checksums as S3 writes them, base64 by algorithm ("crc32": "..."), Content-MD5 not among
        them. Raises ``XAmzContentSHA256Mismatch`` and ``BadDigest`` (also for an announced trailer
        that never came or is malformed).
        """
        if self.payload_sha256 is not None:
            computed = digests["sha256"].hex()
            if computed != self.payload_sha256:
                raise S3Error(
                    "XAmzContentSHA256Mismatch",
                    ClientComputedContentSHA256=self.payload_sha256,
                    S3ComputedContentSHA256=computed,
                )
        if self.content_md5 is not None and digests["md5"] != self.content_md5:
            raise S3Error(
                "BadDigest",
                ExpectedDigest=_encode(self.content_md5),
                CalculatedDigest=_encode(digests["md5"]),
            )
        expected = [] if self.checksum is None else [self.checksum]
        for name in self.trailers:
            value = trailers.get(name)
            if value is None:
                raise S3Error("BadDigest", f"The announced trailer {name} is missing.")
            algorithm = name[len(CHECKSUM_PREFIX) :]
            expected.append((algorithm, _checksum(algorithm, value, "trailing header")))
        verified = {}
        for algorithm, digest in expected:
            if digests[algorithm] != digest:
                raise S3Error(
                    "BadDigest",
                    f"The {algorithm.upper()} you specified did not match the calculated checksum.",
                )
            verified[algorithm] = _encode(digest)
        return verified


def _encode(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _decode(value: str, length: int) -> bytes | None:
    """Exactly ``length`` bytes of strict base64, or None."""
    try:
        digest = binascii.a2b_base64(value.strip(), strict_mode=True)
    except ValueError:  # binascii.Error is one; so is text beyond ASCII
        return None
    return digest if len(digest) == length else None


def _content_md5(value: str) -> bytes:
    digest = _decode(value, 16)
    if digest is None:
        raise S3Error("InvalidDigest")
    return digest


def _checksum(algorithm: str, value: str, where: str = "header") -> bytes:
    length = ALGORITHMS.get(algorithm)
    if length is None:
        raise S3Error(
            "InvalidRequest",
            "The algorithm type you specified in x-amz-checksum- header is invalid.",
        )
    digest = _decode(value, length)
    if digest is None:
        # AWS says InvalidRequest; the other stores, and the suite they are held against, say this.
        raise S3Error("BadDigest", f"Value for {CHECKSUM_PREFIX}{algorithm} {where} is invalid.")
    return digest


def _several() -> S3Error:
    return S3Error(
        "InvalidRequest",
        "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
    )


def _announced(value: str | None) -> tuple[str, ...]:
    """Names in an x-amz-trailer header; S3 knows checksum trailers only."""
    if value is None:
        return ()
    names = tuple([name.strip().lower() for name in value.split(",") if name.strip()])
    for name in names:
        if not name.startswith(CHECKSUM_PREFIX) or name[len(CHECKSUM_PREFIX) :] not in ALGORITHMS:
            raise S3Error(
                "InvalidRequest", "The value specified in the x-amz-trailer header is not supported"
            )
    return names


def _check_sdk_algorithm(
    headers: Headers, checksum: tuple[str, bytes] | None, trailers: tuple[str, ...]
) -> None:
    """The algorithm an SDK says it used must be the one whose checksum came or will come."""
    stated = headers.get("x-amz-sdk-checksum-algorithm")
    if not stated:
        return
    if checksum is None and not trailers:
        raise S3Error(
            "InvalidRequest",
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or "
            "x-amz-trailer headers were found.",
        )
    used = checksum[0] if checksum is not None else trailers[0][len(CHECKSUM_PREFIX) :]
    if stated.lower() != used:
        raise S3Error("InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid.")


def _is_sha256(value: str) -> bool:
    if len(value) != 64:
        return False
    try:
        return len(bytes.fromhex(value)) == 32
    except ValueError:
        return False
