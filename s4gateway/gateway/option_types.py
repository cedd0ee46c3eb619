"""From the text of a setting to its value: sizes, seconds, URLs, addresses, names.

Rule: a parser takes any text and returns a value or raises ValueError, whose words follow the
setting's name in a message: "--port: 'x' is not a whole number".
"""

import math
import os
import re
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from s4gateway.objects import dict_map
from s4gateway.wire.codec_id import CodecId

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

_UNITS: Final = {
    "": 1, "b": 1,
    "k": 1000, "kb": 1000, "m": 1000**2, "mb": 1000**2, "g": 1000**3, "gb": 1000**3,
    "kib": KIB, "mib": MIB, "gib": GIB, "tib": 1024 * GIB,
}  # fmt: skip
_SIZE: Final = re.compile(r"([0-9]+)\s*([a-z]*)", re.IGNORECASE)
_TRUE: Final = frozenset(("true", "yes", "on", "1"))
_FALSE: Final = frozenset(("false", "no", "off", "0"))
_CODECS: Final = (CodecId.CPU_ZSTD, CodecId.CPU_GZIP, CodecId.PASSTHROUGH)
_HOST_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen.

    >>> str(Address.parse("[::1]:9090"))
    '[::1]:9090'
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Parse HOST:PORT, an IPv6 host in brackets; ValueError otherwise."""
        host, separator, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            separator = ""
        if not (host and separator):
            raise ValueError("is not HOST:PORT")
        return cls(host, port_number(port))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def integer(low: int, high: int) -> Callable[[str], int]:
    """Parse whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text):
            raise ValueError("is not a whole number")
        if not low <= int(text) <= high:
            raise ValueError(f"is not between {low} and {high}")
        return int(text)

    return parse


port_number = integer(0, 65_535)


def size(low: int, high: int = 1024 * 1024 * GIB) -> Callable[[str], int]:
    """Parse sizes in bytes, with or without a unit, from `low` to `high` bytes."""

    def parse(text: str) -> int:
        match = _SIZE.fullmatch(text.strip())
        if match is None or match[2].lower() not in _UNITS:
            raise ValueError("is not a size (bytes, or a number with KiB, MiB, GiB)")
        value = int(match[1]) * _UNITS[match[2].lower()]
        if not low <= value <= high:
            raise ValueError(f"is not between {low} and {high} bytes")
        return value

    return parse


def seconds(text: str) -> float:
    """Parse a number of seconds above 0, up to a day."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 86_400:
        raise ValueError("is not a number of seconds above 0 and up to 86400")
    return value


def boolean(text: str) -> bool:
    """Parse the words that files and environments use for true and false."""
    word = text.lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ValueError("is neither true nor false")


def choice(kind: type[StrEnum]) -> Callable[[str], StrEnum]:
    """Parse the members of `kind`."""

    def parse(text: str) -> StrEnum:
        try:
            return kind(text)
        except ValueError:
            raise ValueError(f"is none of {', '.join(kind)}") from None

    return parse


def codec(text: str) -> CodecId:
    """Parse the codecs that new objects can be written with."""
    codec = CodecId.from_label(text)
    if codec is not None and codec.needs_gpu:
        raise ValueError("needs a GPU, which this gateway does not use; take cpu-zstd")
    if codec not in _CODECS:
        raise ValueError(f"is none of {', '.join(known.label for known in _CODECS)}")
    return codec


def url(text: str) -> str:
    """Parse an http or https URL of nothing but scheme, host and port."""
    try:
        url = urllib.parse.urlsplit(text)
        port = url.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise ValueError("is not an http:// or https:// URL")
    if url.username is not None or url.password is not None:
        raise ValueError("carries credentials; they come from the environment or a profile")
    if url.path not in {"", "/"} or url.query or url.fragment:
        raise ValueError("has a path or a query; give scheme, host and port only")
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    return f"{url.scheme}://{host}" + (f":{port}" if port is not None else "")


def host_name(text: str) -> str:
    """Parse a host name; lower case comes out."""
    if not _HOST_NAME.fullmatch(text):
        raise ValueError("is not a host name")
    return text.lower()


def word(text: str) -> str:
    """Parse one word of printable ASCII."""
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError("is not one word")
    return text


def dictionary(text: str) -> str:
    """Check one BUCKET/PREFIX=ID; the text stays as it is."""
    dict_map.DictMapping.parse_flag(text)
    return text


def path(text: str) -> Path:
    """Parse a path of the file system."""
    if not text or "\0" in text:
        raise ValueError("is not a path")
    return Path(text)


def available_cores() -> int:
    """Cores this process may use: its CPU affinity, cut by the quota of its cgroup (version 2)."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup, or no limit ("max")
        return cores
