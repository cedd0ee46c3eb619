"""What a tool works on: a bucket, or what starts with a prefix in it."""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Target:
    """A bucket and a key prefix, empty for the whole bucket.

    >>> Target.parse("logs/app/2026-")
    Target(bucket='logs', prefix='app/2026-')
    >>> str(Target.parse("logs"))
    'logs'
    """

    bucket: str
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `BUCKET` or `BUCKET/PREFIX`, cut at the first slash; raises ValueError."""
        bucket, _, prefix = text.partition("/")
        if not bucket:
            raise ValueError("no bucket: give BUCKET or BUCKET/PREFIX")
        if bucket.endswith(":"):
            raise ValueError(f"{text!r} is a URL: give BUCKET or BUCKET/PREFIX")
        return cls(bucket, prefix)

    def __str__(self) -> str:
        return f"{self.bucket}/{self.prefix}" if self.prefix else self.bucket
