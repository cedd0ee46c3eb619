"""Where a dataset lies and how it is spoken to: opened once, shared by its readers and writers.

Rule: everything that goes through one target shares one limit of requests under way and one
consistency level; the timing of the dataset is read when it is opened and holds from then on.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from types import TracebackType
from typing import Any, Final, Self

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from s4gateway.s3store import layout, timing
from s4gateway.s3store.boto3_transport import Boto3Transport
from s4gateway.s3store.calls import S3Calls
from s4gateway.s3store.clock import SYSTEM_CLOCK, Clock
from s4gateway.s3store.errors import ConfigError
from s4gateway.s3store.loop_thread import LoopThread
from s4gateway.s3store.telemetry import Telemetry
from s4gateway.s3store.transport import Transport

_log = logging.getLogger(__name__)

DEFAULT_MAX_INFLIGHT: Final = 32
_HEADER: Final = "Consistency-Control"


class Consistency(StrEnum):
    """What `Consistency-Control` asks of stores that know the header (StorageGRID)."""

    DEFAULT = ""
    ALL = "all"
    STRONG_GLOBAL = "strong-global"
    STRONG_SITE = "strong-site"
    READ_AFTER_NEW_WRITE = "read-after-new-write"
    AVAILABLE = "available"


@dataclass(frozen=True, slots=True, kw_only=True)
class S3TargetConfig:
    """Which dataset, and how to reach it. `client` is a boto3 S3 client or a `Transport`.

    The prefix is used as it is. A boto3 client should not retry by itself (`new_client` makes one
    that does not): its tries would multiply with ours and use up the time a commit has.
    """

    bucket: str
    prefix: str
    client: Any
    partition_key_parts: Sequence[str] = ()
    max_inflight_requests: int = 0
    consistency: str = Consistency.DEFAULT
    meter_provider: MeterProvider | None = None
    tracer_provider: TracerProvider | None = None
    verify_etag: bool = True
    clock: Clock = SYSTEM_CLOCK

    @property
    def effective_max_inflight_requests(self) -> int:
        """How many requests may be under way at a time; 32 unless set."""
        return self.max_inflight_requests or DEFAULT_MAX_INFLIGHT

    @property
    def effective_consistency(self) -> str:
        """The level that is sent; strong-global unless set."""
        return str(self.consistency) or Consistency.STRONG_GLOBAL.value

    def validate(self) -> None:
        """Raise ConfigError unless readers and writers can work with it."""
        self.validate_lookup()
        layout.check_parts(self.partition_key_parts)

    def validate_lookup(self) -> None:
        """Raise ConfigError unless views can be looked up with it."""
        for name, value in (("bucket", self.bucket), ("prefix", self.prefix)):
            if not value:
                raise ConfigError(f"{name} is empty")
        if self.client is None:
            raise ConfigError("client: give a boto3 S3 client or a Transport")
        if self.max_inflight_requests < 0:
            raise ConfigError(f"max_inflight_requests: {self.max_inflight_requests} is negative")


class S3Target:
    """An open dataset; make one with `open`, or with `open_blocking` for blocking callers."""

    def __init__(
        self,
        config: S3TargetConfig,
        calls: S3Calls,
        telemetry: Telemetry,
        dataset_timing: timing.Timing,
        runner: LoopThread | None = None,
    ) -> None:
        self.config = config
        self.calls = calls
        self.telemetry = telemetry
        self.timing = dataset_timing
        self.clock = config.clock
        self.keys = layout.Keys(config.prefix)
        self.partition_key_parts = tuple(config.partition_key_parts)
        self.runner = runner
        self._owned: Boto3Transport | None = None

    @classmethod
    async def open(cls, config: S3TargetConfig) -> "S3Target":
        """Read the dataset's timing: two GETs. Raises TimingConfigError for an unseeded one."""
        config.validate_lookup()
        if config.effective_consistency not in set(Consistency):
            _log.warning(
                "consistency level %r is not known here and is sent as it is",
                config.effective_consistency,
            )
        telemetry = Telemetry(
            {
                "s3store.bucket": config.bucket,
                "s3store.prefix": config.prefix,
                "s3store.consistency_level": config.effective_consistency,
            },
            config.clock,
            config.meter_provider,
            config.tracer_provider,
        )
        calls, owned = connect(config, telemetry)
        try:
            found = await timing.load(calls, config.bucket, layout.Keys(config.prefix))
        except BaseException:
            await _close(owned)
            raise
        target = cls(config, calls, telemetry, found)
        target._owned = owned
        return target

    @classmethod
    def open_blocking(cls, config: S3TargetConfig, *, timeout: float | None = None) -> "S3Target":
        """`open` for blocking callers: its work is done on an event loop in a thread of its own."""
        runner = LoopThread()
        try:
            target = runner.run(cls.open(config), timeout)
        except BaseException:
            runner.close()
            raise
        target.runner = runner
        return target

    @property
    def bucket(self) -> str:
        """The bucket."""
        return self.config.bucket

    @property
    def prefix(self) -> str:
        """The prefix, as it was given."""
        return self.config.prefix

    @property
    def client(self) -> Any:
        """The client that was given."""
        return self.config.client

    @property
    def consistency(self) -> str:
        """The level that is sent."""
        return self.config.effective_consistency

    @property
    def effective_max_inflight_requests(self) -> int:
        """How many requests may be under way at a time."""
        return self.config.effective_max_inflight_requests

    @property
    def commit_timeout(self) -> timedelta:
        """How long after its ref's stamp a commit counts as in time."""
        return timing.as_timedelta(self.timing.commit_timeout_ns)

    @property
    def max_clock_skew(self) -> timedelta:
        """How far the clocks of readers and writers may differ."""
        return timing.as_timedelta(self.timing.max_clock_skew_ns)

    @property
    def settle_window(self) -> timedelta:
        """How far behind its clock a reader of the change stream keeps."""
        both = self.timing.commit_timeout_ns + self.timing.max_clock_skew_ns
        return timing.as_timedelta(both)

    def validate(self) -> None:
        """Raise ConfigError unless readers and writers can work with it."""
        self.config.validate()

    def validate_lookup(self) -> None:
        """Raise ConfigError unless views can be looked up with it."""
        self.config.validate_lookup()

    async def aclose(self) -> None:
        """Give up the threads; the client stays open, it is the caller's."""
        await _close(self._owned)

    def close(self) -> None:
        """`aclose` for blocking callers."""
        if self.runner is not None:
            self.runner.run(self.aclose())
            self.runner.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def connect(config: S3TargetConfig, telemetry: Telemetry) -> tuple[S3Calls, Boto3Transport | None]:
    """Return the requests of a target, and the transport to close with it if it made one."""
    limit = config.effective_max_inflight_requests
    owned = None
    if isinstance(config.client, Transport):
        transport: Transport = config.client
    else:
        transport = owned = Boto3Transport(config.client, config.bucket, workers=limit)
    headers = {_HEADER: config.effective_consistency}
    verify = config.verify_etag
    return S3Calls(transport, telemetry, limit=limit, headers=headers, verify_etag=verify), owned


async def _close(owned: Boto3Transport | None) -> None:
    if owned is not None:
        await owned.aclose()
