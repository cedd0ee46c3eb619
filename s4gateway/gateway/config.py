"""Every setting of the gateway, once: name, type, default, check, help.

The fields of `GatewayConfig` are the one table. The flag (`--zstd-level`), the environment
variable (`S4_ZSTD_LEVEL`) and the key of the TOML file (`zstd-level`) are derived from a field's
name, so the three cannot drift apart. A flag wins over the environment, the environment over the
file, the file over the default. What nobody defined is an error wherever it stands, and all
problems are reported together: whoever repairs a configuration should need to start only once.
"""

import dataclasses
import difflib
import ipaddress
import math
import os
import re
import tempfile
import tomllib
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from s4gateway.backend.profile import BackendProfile
from s4gateway.gateway.logs import Format
from s4gateway.objects import dict_map
from s4gateway.wire.codec_id import CodecId

ENVIRONMENT_PREFIX: Final = "S4_"
FILE_VARIABLE: Final = "S4_CONFIG"  # the twin of --config, the one setting a file cannot hold

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
# What Kubernetes puts into the environment of every pod beside a Service named `s4`.
_SERVICE_LINK: Final = re.compile(r"S4_(SERVICE_|PORT_[0-9]+_)")


class ConfigError(Exception):
    """The configuration cannot be used; `problems` has one line for each reason."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class Origin(StrEnum):
    """Where an effective value came from."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"
    FLAG = "flag"


class Dispatcher(StrEnum):
    """Whether a body's beginning decides if compressing it is worth while."""

    SAMPLING = "sampling"
    ALWAYS = "always"


class Anonymous(StrEnum):
    """What becomes of unsigned requests."""

    DENY = "deny"
    BACKEND = "backend"


class LogLevel(StrEnum):
    """The least severe event that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


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
        return cls(host, _port(port))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


# --- parsers: text to value; ValueError says what is wrong, in words that follow the option's name


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text):
            raise ValueError("is not a whole number")
        if not low <= int(text) <= high:
            raise ValueError(f"is not between {low} and {high}")
        return int(text)

    return parse


_port = _integer(0, 65_535)


def _size(low: int, high: int = 1024 * 1024 * GIB) -> Callable[[str], int]:
    def parse(text: str) -> int:
        match = _SIZE.fullmatch(text.strip())
        if match is None or match[2].lower() not in _UNITS:
            raise ValueError("is not a size (bytes, or a number with KiB, MiB, GiB)")
        value = int(match[1]) * _UNITS[match[2].lower()]
        if not low <= value <= high:
            raise ValueError(f"is not between {low} and {high} bytes")
        return value

    return parse


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 86_400:
        raise ValueError("is not a number of seconds above 0 and up to 86400")
    return value


def _boolean(text: str) -> bool:
    word = text.lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ValueError("is neither true nor false")


def _choice(kind: type[StrEnum]) -> Callable[[str], StrEnum]:
    def parse(text: str) -> StrEnum:
        try:
            return kind(text)
        except ValueError:
            raise ValueError(f"is none of {', '.join(kind)}") from None

    return parse


def _codec(text: str) -> CodecId:
    codec = CodecId.from_label(text)
    if codec is not None and codec.needs_gpu:
        raise ValueError("needs a GPU, which this gateway does not use; take cpu-zstd")
    if codec not in _CODECS:
        raise ValueError(f"is none of {', '.join(known.label for known in _CODECS)}")
    return codec


def _url(text: str) -> str:
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


def _name(text: str) -> str:
    if not _HOST_NAME.fullmatch(text):
        raise ValueError("is not a host name")
    return text.lower()


def _word(text: str) -> str:
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError("is not one word")
    return text


def _dictionary(text: str) -> str:
    dict_map.DictMapping.parse_flag(text)
    return text


def _path(text: str) -> Path:
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


# --- the table


@dataclass(frozen=True, slots=True)
class Option:
    """One row: a setting in all its spellings."""

    field: str
    default: Any
    parse: Callable[[str], Any]
    help: str
    metavar: str | None
    repeatable: bool
    boolean: bool

    @property
    def key(self) -> str:
        """The key in the TOML file."""
        return self.field.replace("_", "-")

    @property
    def flag(self) -> str:
        """The flag of the command line."""
        return "--" + self.key

    @property
    def variable(self) -> str:
        """The environment variable."""
        return ENVIRONMENT_PREFIX + self.field.upper()


def _row(parse: Callable[[str], Any], text: str, metavar: str | None = None) -> Mapping[str, Any]:
    return {"parse": parse, "help": text, "metavar": metavar}


def _spool() -> Path:
    return Path(tempfile.gettempdir())


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """The effective configuration of one gateway process.

    >>> GatewayConfig(endpoint_url="http://127.0.0.1:8333").port
    8014
    """

    endpoint_url: str | None = field(
        default=None, metadata=_row(_url, "The S3 server to store in.", "URL")
    )
    embedded: Path | None = field(
        default=None,
        metadata=_row(_path, "Start an S3 server of our own, with its data in DIR.", "DIR"),
    )
    host: str = field(default="127.0.0.1", metadata=_row(_word, "Address to listen on.", "ADDRESS"))
    port: int = field(
        default=8014, metadata=_row(_port, "Port to listen on; 0 takes a free one.", "PORT")
    )
    domain: tuple[str, ...] = field(
        default=(),
        metadata=_row(_name, "Base domain of virtual-host-style requests (BUCKET.NAME).", "NAME"),
    )
    codec: CodecId = field(
        default=CodecId.CPU_ZSTD,
        metadata=_row(_codec, "How bodies are compressed.", "cpu-zstd|cpu-gzip|passthrough"),
    )
    zstd_level: int = field(default=3, metadata=_row(_integer(1, 22), "Level of cpu-zstd.", "1-22"))
    dispatcher: Dispatcher = field(
        default=Dispatcher.SAMPLING,
        metadata=_row(
            _choice(Dispatcher),
            "Look at a body's beginning before compressing it, or compress always.",
            "sampling|always",
        ),
    )
    zstd_dict: tuple[str, ...] = field(
        default=(),
        metadata=_row(
            _dictionary,
            "Try dictionary ID, of the same bucket, on new objects below BUCKET/PREFIX.",
            "BUCKET/PREFIX=ID",
        ),
    )
    zstd_dict_map: Path | None = field(
        default=None,
        metadata=_row(_path, "More such mappings (TOML), read again on SIGHUP.", "FILE"),
    )
    zstd_dict_max_bytes: int = field(
        default=dict_map.DEFAULT_MAX_BODY,
        metadata=_row(
            _size(1, dict_map.LARGEST_BODY), "Largest body to try a dictionary on.", "SIZE"
        ),
    )
    log_format: Format = field(
        default=Format.PRETTY, metadata=_row(_choice(Format), "How log lines look.", "pretty|json")
    )
    log_level: LogLevel = field(
        default=LogLevel.INFO,
        metadata=_row(_choice(LogLevel), "Least severe event to log.", "debug|info|warning|error"),
    )
    access_log: bool = field(
        default=True, metadata=_row(_boolean, "One log line for each request.")
    )
    tls_cert: Path | None = field(
        default=None,
        metadata=_row(
            _path, "Certificate chain (PEM) to serve https with; read again on SIGHUP.", "FILE"
        ),
    )
    tls_key: Path | None = field(
        default=None, metadata=_row(_path, "Private key (PEM) of --tls-cert.", "FILE")
    )
    admin_listen: Address | None = field(
        default=None,
        metadata=_row(
            Address.parse,
            "Serve /health, /ready and /metrics here instead of on the S3 port.",
            "HOST:PORT",
        ),
    )
    credentials: Path | None = field(
        default=None,
        metadata=_row(
            _path,
            "Client keys (TOML), read again on SIGHUP; without it the backend's own key pair.",
            "FILE",
        ),
    )
    allow_sigv2_presigned: bool = field(
        default=True,
        metadata=_row(_boolean, "Accept presigned URLs and forms of signature version 2."),
    )
    anonymous: Anonymous = field(
        default=Anonymous.DENY,
        metadata=_row(
            _choice(Anonymous),
            "Refuse unsigned requests, or let the backend decide on them.",
            "deny|backend",
        ),
    )
    region: str = field(
        default="us-east-1", metadata=_row(_word, "Region of signatures to the backend.", "NAME")
    )
    max_body_bytes: int = field(
        default=5 * GIB, metadata=_row(_size(1), "Largest body of one request.", "SIZE")
    )
    max_header_bytes: int = field(
        default=64 * KIB,
        metadata=_row(_size(4 * KIB, 16 * MIB), "Largest request line and headers.", "SIZE"),
    )
    max_concurrent_connections: int = field(
        default=1024,
        metadata=_row(
            _integer(1, 1_000_000), "Client connections; more get 503 SlowDown.", "COUNT"
        ),
    )
    header_timeout_seconds: float = field(
        default=10.0,
        metadata=_row(_seconds, "Request line and headers must be complete by then.", "SECONDS"),
    )
    read_timeout_seconds: float = field(
        default=30.0,
        metadata=_row(
            _seconds, "Longest pause of a client in sending or reading a body.", "SECONDS"
        ),
    )
    keep_alive_seconds: float = field(
        default=20.0,
        metadata=_row(_seconds, "How long a connection may wait for its next request.", "SECONDS"),
    )
    drain_seconds: float = field(
        default=30.0, metadata=_row(_seconds, "Time for running requests after SIGTERM.", "SECONDS")
    )
    memory_budget_bytes: int = field(
        default=256 * MIB,
        metadata=_row(
            _size(16 * MIB), "Memory for bodies in flight; over it 503 SlowDown.", "SIZE"
        ),
    )
    spool_dir: Path = field(
        default_factory=_spool,
        metadata=_row(_path, "Where bodies too large for memory wait, in unlinked files.", "DIR"),
    )
    frame_cache_bytes: int = field(
        default=GIB,
        metadata=_row(
            _size(0), "Disk in --spool-dir for decoded frames that ranged reads reuse.", "SIZE"
        ),
    )
    savings_ledger_state_file: Path | None = field(
        default=None,
        metadata=_row(
            _path, "Count what compression saves, to the byte, and keep the counters here.", "FILE"
        ),
    )
    codec_threads: int = field(
        default_factory=available_cores,
        metadata=_row(_integer(1, 1024), "Threads that compress and decompress.", "COUNT"),
    )
    backend_connect_timeout_seconds: float = field(
        default=5.0, metadata=_row(_seconds, "Time to connect to the backend.", "SECONDS")
    )
    backend_read_timeout_seconds: float = field(
        default=60.0,
        metadata=_row(_seconds, "Longest pause of the backend in an answer.", "SECONDS"),
    )
    backend_pool_size: int = field(
        default=256, metadata=_row(_integer(1, 100_000), "Connections to the backend.", "COUNT")
    )
    backend_profile: BackendProfile = field(
        default=BackendProfile(),
        metadata=_row(
            BackendProfile.parse,
            "What the backend can do, with commas between: uniform-parts, conditional-writes or"
            " no-conditional-writes, checksums=none|md5|crc32|crc32c|crc64nvme.",
            "PROFILE",
        ),
    )
    physical_listings: bool = field(
        default=False, metadata=_row(_boolean, "List stored sizes instead of the objects' own.")
    )
    listing_head_concurrency: int = field(
        default=32,
        metadata=_row(
            _integer(1, 1024), "HEAD requests at once for sizes a listing does not know.", "COUNT"
        ),
    )
    allow_legacy_reserved_key_reads: bool = field(
        default=False,
        metadata=_row(_boolean, "Let clients read keys that end like a sidecar's (.s4index)."),
    )
    insecure_bind_any: bool = field(
        default=False,
        metadata=_row(
            _boolean,
            "Listen beyond this machine even though clients share the backend's own key pair.",
        ),
    )


def _rows() -> Iterator[Option]:
    defaults = GatewayConfig()
    for each in dataclasses.fields(GatewayConfig):
        row = each.metadata
        default = getattr(defaults, each.name)
        yield Option(
            field=each.name,
            default=default,
            **row,
            repeatable=isinstance(default, tuple),
            boolean=isinstance(default, bool),
        )


OPTIONS: Final = tuple(_rows())
_BY_FIELD: Final = {option.field: option for option in OPTIONS}
_BY_KEY: Final = {option.key: option for option in OPTIONS}
_BY_VARIABLE: Final = {option.variable: option for option in OPTIONS}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and where each of its values came from, by field."""

    config: GatewayConfig
    origins: Mapping[str, Origin]
    file: Path | None

    def rows(self) -> Iterator[tuple[str, str, Origin]]:
        """Key, effective value as the file would hold it, and origin of every option."""
        for option in OPTIONS:
            value = getattr(self.config, option.field)
            yield option.key, show(value), self.origins[option.field]


def show(value: object) -> str:
    """A value in the words its parser takes; empty when it is not set.

    >>> show(CodecId.CPU_ZSTD), show(True), show(("a", "b")), show(None)
    ('cpu-zstd', 'true', 'a, b', '')
    """
    if value is None:
        return ""
    if isinstance(value, CodecId):
        return value.label
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


Flags = Mapping[str, str | bool | Sequence[str] | None]


def load(flags: Flags, environment: Mapping[str, str], file: Path | None = None) -> Loaded:
    """Merge the sources, by field name in `flags`; raises ConfigError with every problem found.

    >>> load({"port": "9000"}, {"S4_PORT": "9001", "S4_HOST": "::1"}).config.port
    9000
    """
    problems: list[str] = []
    if file is None and environment.get(FILE_VARIABLE):
        file = Path(environment[FILE_VARIABLE])
    values: dict[str, Any] = {}
    origins = dict.fromkeys(_BY_FIELD, Origin.DEFAULT)
    sources = (
        (Origin.FILE, _from_file(file, problems)),
        (Origin.ENVIRONMENT, _from_environment(environment, problems)),
        (Origin.FLAG, _from_flags(flags)),
    )
    for origin, source in sources:
        for option, spelling, texts in source:
            origins[option.field] = origin
            try:
                values[option.field] = _parse(option, texts)
            except ValueError as error:
                shown = ", ".join(texts)
                problems.append(f"{spelling}: {shown!r} {error}")
    config = GatewayConfig(**values)
    problems.extend(_contradictions(config))
    if problems:
        raise ConfigError(problems)
    return Loaded(config, origins, file)


def _parse(option: Option, texts: Sequence[str]) -> Any:
    if option.repeatable:
        return tuple(dict.fromkeys(option.parse(text) for text in texts))
    return option.parse(texts[0])


_Source = Iterator[tuple[Option, str, Sequence[str]]]


def _from_flags(flags: Flags) -> _Source:
    for name, value in flags.items():
        option = _BY_FIELD[name]
        if value is None or value == ():
            continue
        texts = (str(value),) if isinstance(value, (str, bool)) else tuple(value)
        yield option, option.flag, texts


def _from_environment(environment: Mapping[str, str], problems: list[str]) -> _Source:
    for variable, text in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable == FILE_VARIABLE or not text:
            continue  # an empty variable is how compose files and shells say "not set"
        option = _BY_VARIABLE.get(variable)
        if _SERVICE_LINK.match(variable) or (variable == "S4_PORT" and "://" in text):
            problems.append(
                f"{variable}: set by Kubernetes for a Service named s4, not a setting of the"
                " gateway; give the pod enableServiceLinks: false"
            )
        elif option is None:
            problems.append(f"{variable}: unknown variable{_suggest(variable, _BY_VARIABLE)}")
        else:
            texts = tuple(text.replace(",", " ").split()) if option.repeatable else (text,)
            yield option, variable, texts


def _from_file(file: Path | None, problems: list[str]) -> _Source:
    if file is None:
        return
    try:
        table = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        problems.append(f"{file}: {error.strerror}")
        return
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError
        problems.append(f"{file}: not TOML: {error}")
        return
    for key, value in table.items():
        option = _BY_KEY.get(key)
        if option is None:
            problems.append(f"{file}: unknown key {key!r}{_suggest(key, _BY_KEY)}")
        elif (texts := _texts(option, value)) is None:
            problems.append(f"{file}: {key}: {_expected(option)} expected")
        else:
            yield option, f"{file}: {key}", texts


def _texts(option: Option, value: object) -> Sequence[str] | None:
    """A TOML value as the parsers take it; None when its type is not the option's."""
    if option.repeatable:
        items = value if isinstance(value, list) else [value]
        texts = tuple(item for item in items if isinstance(item, str))
        return texts if len(texts) == len(items) else None
    if option.boolean:
        return (str(value),) if isinstance(value, bool) else None
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        return (str(value),)
    return None


def _expected(option: Option) -> str:
    if option.repeatable:
        return "a list of strings"
    return "true or false" if option.boolean else "a string or a number"


def _suggest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to `host`.

    >>> is_loopback("127.1.2.3"), is_loopback("::"), is_loopback("localhost")
    (True, False, True)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _contradictions(config: GatewayConfig) -> Iterator[str]:
    """What no single option can know."""
    if config.endpoint_url is not None and config.embedded is not None:
        yield "--endpoint-url, --embedded: give one of them, not both"
    try:
        dict_map.parse_flags(config.zstd_dict)
    except dict_map.DictMapError as error:
        yield from (f"--zstd-dict: {problem}" for problem in error.problems)
    if (config.tls_cert is None) != (config.tls_key is None):
        missing = "--tls-key" if config.tls_key is None else "--tls-cert"
        yield f"{missing}: missing; --tls-cert and --tls-key belong together"
    if config.credentials is None and not (config.insecure_bind_any or is_loopback(config.host)):
        yield (
            f"--host: {config.host!r} reaches beyond this machine, and without --credentials"
            " clients share the backend's own key pair; give --credentials FILE, or accept it with"
            " --insecure-bind-any"
        )


def require_backend(config: GatewayConfig) -> None:
    """Raise ConfigError unless the configuration names where to store."""
    if config.endpoint_url is None and config.embedded is None:
        raise ConfigError(("--endpoint-url: missing; give the S3 server's URL, or --embedded DIR",))
