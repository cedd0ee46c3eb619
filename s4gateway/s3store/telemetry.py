"""What a target tells OpenTelemetry: calls, requests, waits, incidents.

Rule: only `opentelemetry-api` is used; without an SDK of the application all of it is a no-op.
Counts are of what happened: rows that landed, rows that were handed over. Every series carries the
bucket, the prefix and the consistency level.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Final, Self

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace

from s4gateway.s3store import errors, instruments
from s4gateway.s3store.clock import Clock

_NAME: Final = "s4gateway.s3store"
_MISSING_DATA_METHODS: Final = (
    "poll_records",
    "read_range_iter",
    "read_partition_range_iter",
    "read_entries_iter",
    "read_partition_entries_iter",
    "backfill",
)


def outcome_of(error: BaseException | None) -> dict[str, str]:
    """Return the attributes that say how a call or a request ended."""
    if error is None:
        return {"s3store.outcome": "success"}
    kind = error_type(error)
    outcome = "canceled" if kind == "canceled" else "error"
    return {"s3store.outcome": outcome, "error.type": kind}


def error_type(error: BaseException) -> str:
    """Return the class of an error as dashboards name it."""
    if isinstance(error, asyncio.CancelledError | TimeoutError | KeyboardInterrupt):
        return "canceled"
    if isinstance(error, errors.TransportError):
        return next((name for kind, name in _TYPES if isinstance(error, kind)), "other")
    if isinstance(error, errors.MissingDataError):
        return "not_found"
    cause = error.__cause__
    return "other" if cause is None else error_type(cause)


_TYPES: Final = (
    (errors.NotFound, "not_found"),
    (errors.Throttled, "slowdown"),
    (errors.PreconditionFailed, "precondition_failed"),
    (errors.ServerError, "server"),
    (errors.AccessDenied, "client"),
    (errors.ClientError, "client"),
    (errors.ConnectionFailed, "transport"),
    (errors.IntegrityError, "transport"),
)


class Telemetry:
    """The instruments of one target."""

    def __init__(
        self,
        constants: Mapping[str, str],
        clock: Clock,
        meter_provider: metrics.MeterProvider | None = None,
        tracer_provider: trace.TracerProvider | None = None,
    ) -> None:
        self.clock = clock
        self.tracer = trace.get_tracer(_NAME, tracer_provider=tracer_provider)
        self._constants = dict(constants)
        meter = metrics.get_meter(_NAME, meter_provider=meter_provider)
        self._histograms = {
            name: meter.create_histogram(
                name, each.unit, each.description, explicit_bucket_boundaries_advisory=each.bounds
            )
            for name, each in instruments.HISTOGRAMS.items()
        }
        self._counters: dict[str, Any] = {
            name: meter.create_counter(name, each.unit, each.description)
            for name, each in instruments.COUNTERS.items()
        }
        self._counters |= {
            name: meter.create_up_down_counter(name, each.unit, each.description)
            for name, each in instruments.UP_DOWN_COUNTERS.items()
        }
        self._show_zeros()

    def _show_zeros(self) -> None:
        for name in instruments.INCIDENTS:
            self.add(name, 0)
        for method in _MISSING_DATA_METHODS:
            self.add("s3store.read.missing_data", 0, {"s3store.method": method})
        self.add("s3store.read.malformed_refs", 0, {"s3store.method": "poll"})
        self.add("s3store.target.semaphore.acquires", 0, {"s3store.outcome": "canceled"})
        for operation in ("put", "get", "head", "list"):
            for attempts in range(1, 6):
                self.add("s3store.s3.request.count", 0, _request(operation, attempts, None))

    def add(self, name: str, amount: int = 1, attributes: Mapping[str, str] | None = None) -> None:
        """Change a counter."""
        self._counters[name].add(amount, {**self._constants, **(attributes or {})})

    def record(self, name: str, value: float, attributes: Mapping[str, str] | None = None) -> None:
        """Add a value to a histogram."""
        self._histograms[name].record(value, {**self._constants, **(attributes or {})})

    # --- requests

    def requested(
        self, operation: str, seconds: float, attempts: int, error: BaseException | None
    ) -> None:
        """Count a request that has ended."""
        attributes = _request(operation, attempts, error)
        self.add("s3store.s3.request.count", 1, attributes)
        del attributes["s3store.attempts"]
        self.record("s3store.s3.request.duration", seconds, attributes)

    def masked(self, operation: str, attempt: int, error: BaseException) -> None:
        """Count a failure that is tried again."""
        attributes = {
            "s3store.operation": operation,
            "error.type": error_type(error),
            "s3store.attempt": str(attempt),
        }
        self.add("s3store.s3.transient_error.count", 1, attributes)

    def sent(self, operation: str, size: int) -> None:
        """Record the size of a request's body."""
        if size:
            self.record("s3store.s3.request.body.size", size, {"s3store.operation": operation})

    def received(self, size: int) -> None:
        """Record the size of a GET's body."""
        self.record("s3store.s3.response.body.size", size, {"s3store.operation": "get"})

    def fanned_out(self, items: int, workers: int) -> None:
        """Record how much work was spread over how many tasks."""
        self.record("s3store.fanout.items", items)
        self.record("s3store.fanout.workers", workers)

    # --- calls

    def method(self, name: str) -> "Method":
        """Return the record of one call; begin and end it, or use it as a context manager."""
        return Method(self, name)

    def constant_attributes(self) -> dict[str, str]:
        """Return what every series and span carries."""
        return dict(self._constants)


def _request(operation: str, attempts: int, error: BaseException | None) -> dict[str, str]:
    return {
        "s3store.operation": operation,
        "s3store.attempts": str(attempts),
        **outcome_of(error),
    }


class Method:
    """One call of the library: how long, how it ended, how much it moved."""

    def __init__(self, telemetry: Telemetry, name: str) -> None:
        self.name = name
        self.records = self.partitions = self.bytes = self.files = 0
        self._telemetry = telemetry
        self._attributes = {"s3store.method": name}
        self._side = "write" if name.startswith(("write", "restamp", "lookup_commit")) else "read"
        self._started = 0.0
        self._span: trace.Span = trace.INVALID_SPAN
        self._block = ExitStack()

    def begin(self) -> None:
        """Start counting; the call is in flight from here on."""
        telemetry = self._telemetry
        self._started = telemetry.clock.monotonic()
        telemetry.add("s3store.method.in_flight", 1, self._attributes)
        attributes = telemetry.constant_attributes()
        self._span = telemetry.tracer.start_span(f"s3store.{self.name}", attributes=attributes)

    @contextmanager
    def traced(self) -> Iterator[None]:
        """Make the call the parent of what is traced, and of tasks started, within the block."""
        token = otel_context.attach(trace.set_span_in_context(self._span))
        try:
            yield
        finally:
            otel_context.detach(token)

    def end(self, error: BaseException | None = None) -> None:
        """Stop counting."""
        telemetry = self._telemetry
        elapsed = telemetry.clock.monotonic() - self._started
        attributes = {**self._attributes, **outcome_of(error)}
        telemetry.add("s3store.method.in_flight", -1, self._attributes)
        telemetry.add("s3store.method.calls", 1, attributes)
        telemetry.record("s3store.method.duration", elapsed, attributes)
        for what in ("records", "partitions", "bytes", *(("files",) * (self._side == "read"))):
            if amount := getattr(self, what):
                telemetry.record(f"s3store.{self._side}.{what}", amount, self._attributes)
        if error is not None:
            self._span.record_exception(error)
            self._span.set_status(trace.StatusCode.ERROR)
        self._span.end()

    def count(self, counter: str, amount: int = 1) -> None:
        """Add to a counter that is kept by method."""
        self._telemetry.add(counter, amount, self._attributes)

    def __enter__(self) -> Self:
        self.begin()
        self._block.enter_context(self.traced())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace_: TracebackType | None,
    ) -> None:
        self._block.close()
        self.end(error)
