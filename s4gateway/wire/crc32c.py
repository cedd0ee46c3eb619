"""CRC-32C (Castagnoli), the checksum of every decoded chunk: RFC 3720 appendix B.4.

Reflected polynomial 0x82F63B78, initial value and final xor 0xFFFFFFFF; the empty string has 0.
A C library does the work in place, and for long runs lets other threads run meanwhile.
"""

from awscrt import checksums


def crc32c(data: bytes | bytearray | memoryview, value: int = 0) -> int:
    """Return the CRC-32C of `data`, continuing from `value`, the CRC of what came before.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    >>> crc32c(b"6789", crc32c(b"12345")) == crc32c(b"123456789")
    True
    """
    return int(checksums.crc32c(data, value))


def combine(first: int, second: int, second_length: int) -> int:
    """Return the CRC-32C of two runs of bytes one after the other, without seeing them.

    `second_length` is the length in bytes of the second run.

    >>> combine(crc32c(b"12345"), crc32c(b"6789"), 4) == crc32c(b"123456789")
    True
    """
    return int(checksums.combine_crc32c(first, second, second_length))
