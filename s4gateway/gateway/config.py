"""Every setting of the gateway, once: name, type, default, check, help.

The fields of `GatewayConfig` are the one table. The flag (`--zstd-level`), the environment
variable (`S4_ZSTD_LEVEL`) and the key of the TOML file (`zstd-level`) are derived from a field's
name, so the three cannot drift apart.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from s4gateway.backend.profile import BackendProfile
from s4gateway.gateway import option_types
from s4gateway.gateway.logs import Format
from s4gateway.gateway.option_types import GIB, KIB, MIB, Address
from s4gateway.objects import dict_map
from s4gateway.wire.codec_id import CodecId

ENVIRONMENT_PREFIX: Final = "S4_"


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
        default=None, metadata=_row(option_types.url, "The S3 server to store in.", "URL")
    )
    embedded: Path | None = field(
        default=None,
        metadata=_row(
            option_types.path, "Start an S3 server of our own, with its data in DIR.", "DIR"
        ),
    )
    host: str = field(
        default="127.0.0.1", metadata=_row(option_types.word, "Address to listen on.", "ADDRESS")
    )
    port: int = field(
        default=8014,
        metadata=_row(option_types.port_number, "Port to listen on; 0 takes a free one.", "PORT"),
    )
    domain: tuple[str, ...] = field(
        default=(),
        metadata=_row(
            option_types.host_name,
            "Base domain of virtual-host-style requests (BUCKET.NAME).",
            "NAME",
        ),
    )
    codec: CodecId = field(
        default=CodecId.CPU_ZSTD,
        metadata=_row(
            option_types.codec, "How bodies are compressed.", "cpu-zstd|cpu-gzip|passthrough"
        ),
    )
    zstd_level: int = field(
        default=3, metadata=_row(option_types.integer(1, 22), "Level of cpu-zstd.", "1-22")
    )
    dispatcher: Dispatcher = field(
        default=Dispatcher.SAMPLING,
        metadata=_row(
            option_types.choice(Dispatcher),
            "Look at a body's beginning before compressing it, or compress always.",
            "sampling|always",
        ),
    )
    zstd_dict: tuple[str, ...] = field(
        default=(),
        metadata=_row(
            option_types.dictionary,
            "Try dictionary ID, of the same bucket, on new objects below BUCKET/PREFIX.",
            "BUCKET/PREFIX=ID",
        ),
    )
    zstd_dict_map: Path | None = field(
        default=None,
        metadata=_row(
            option_types.path, "More such mappings (TOML), read again on SIGHUP.", "FILE"
        ),
    )
    zstd_dict_max_bytes: int = field(
        default=dict_map.DEFAULT_MAX_BODY,
        metadata=_row(
            option_types.size(1, dict_map.LARGEST_BODY),
            "Largest body to try a dictionary on.",
            "SIZE",
        ),
    )
    log_format: Format = field(
        default=Format.PRETTY,
        metadata=_row(option_types.choice(Format), "How log lines look.", "pretty|json"),
    )
    log_level: LogLevel = field(
        default=LogLevel.INFO,
        metadata=_row(
            option_types.choice(LogLevel), "Least severe event to log.", "debug|info|warning|error"
        ),
    )
    access_log: bool = field(
        default=True, metadata=_row(option_types.boolean, "One log line for each request.")
    )
    tls_cert: Path | None = field(
        default=None,
        metadata=_row(
            option_types.path,
            "Certificate chain (PEM) to serve https with; read again on SIGHUP.",
            "FILE",
        ),
    )
    tls_key: Path | None = field(
        default=None, metadata=_row(option_types.path, "Private key (PEM) of --tls-cert.", "FILE")
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
            option_types.path,
            "Client keys (TOML), read again on SIGHUP; without it the backend's own key pair.",
            "FILE",
        ),
    )
    allow_sigv2_presigned: bool = field(
        default=True,
        metadata=_row(
            option_types.boolean, "Accept presigned URLs and forms of signature version 2."
        ),
    )
    anonymous: Anonymous = field(
        default=Anonymous.DENY,
        metadata=_row(
            option_types.choice(Anonymous),
            "Refuse unsigned requests, or let the backend decide on them.",
            "deny|backend",
        ),
    )
    region: str = field(
        default="us-east-1",
        metadata=_row(option_types.word, "Region of signatures to the backend.", "NAME"),
    )
    max_body_bytes: int = field(
        default=5 * GIB, metadata=_row(option_types.size(1), "Largest body of one request.", "SIZE")
    )
    max_header_bytes: int = field(
        default=64 * KIB,
        metadata=_row(
            option_types.size(4 * KIB, 16 * MIB), "Largest request line and headers.", "SIZE"
        ),
    )
    max_concurrent_connections: int = field(
        default=1024,
        metadata=_row(
            option_types.integer(1, 1_000_000),
            "Client connections; more get 503 SlowDown.",
            "COUNT",
        ),
    )
    header_timeout_seconds: float = field(
        default=10.0,
        metadata=_row(
            option_types.seconds, "Request line and headers must be complete by then.", "SECONDS"
        ),
    )
    read_timeout_seconds: float = field(
        default=30.0,
        metadata=_row(
            option_types.seconds,
            "Longest pause of a client in sending or reading a body.",
            "SECONDS",
        ),
    )
    keep_alive_seconds: float = field(
        default=20.0,
        metadata=_row(
            option_types.seconds, "How long a connection may wait for its next request.", "SECONDS"
        ),
    )
    drain_seconds: float = field(
        default=30.0,
        metadata=_row(option_types.seconds, "Time for running requests after SIGTERM.", "SECONDS"),
    )
    memory_budget_bytes: int = field(
        default=256 * MIB,
        metadata=_row(
            option_types.size(16 * MIB),
            "Memory for bodies in flight; over it 503 SlowDown.",
            "SIZE",
        ),
    )
    spool_dir: Path = field(
        default_factory=_spool,
        metadata=_row(
            option_types.path, "Where bodies too large for memory wait, in unlinked files.", "DIR"
        ),
    )
    frame_cache_bytes: int = field(
        default=GIB,
        metadata=_row(
            option_types.size(0),
            "Disk in --spool-dir for decoded frames that ranged reads reuse.",
            "SIZE",
        ),
    )
    savings_ledger_state_file: Path | None = field(
        default=None,
        metadata=_row(
            option_types.path,
            "Count what compression saves, to the byte, and keep the counters here.",
            "FILE",
        ),
    )
    codec_threads: int = field(
        default_factory=option_types.available_cores,
        metadata=_row(
            option_types.integer(1, 1024), "Threads that compress and decompress.", "COUNT"
        ),
    )
    backend_connect_timeout_seconds: float = field(
        default=5.0,
        metadata=_row(option_types.seconds, "Time to connect to the backend.", "SECONDS"),
    )
    backend_read_timeout_seconds: float = field(
        default=60.0,
        metadata=_row(
            option_types.seconds, "Longest pause of the backend in an answer.", "SECONDS"
        ),
    )
    backend_pool_size: int = field(
        default=256,
        metadata=_row(option_types.integer(1, 100_000), "Connections to the backend.", "COUNT"),
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
        default=False,
        metadata=_row(option_types.boolean, "List stored sizes instead of the objects' own."),
    )
    listing_head_concurrency: int = field(
        default=32,
        metadata=_row(
            option_types.integer(1, 1024),
            "HEAD requests at once for sizes a listing does not know.",
            "COUNT",
        ),
    )
    allow_legacy_reserved_key_reads: bool = field(
        default=False,
        metadata=_row(
            option_types.boolean, "Let clients read keys that end like a sidecar's (.s4index)."
        ),
    )
    insecure_bind_any: bool = field(
        default=False,
        metadata=_row(
            option_types.boolean,
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
