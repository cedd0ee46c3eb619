"""What can go wrong with a dataset, as types; every message names the object and the next step.

    S3StoreError
    ├─ ConfigError(ValueError)         a target, record, reader, writer or view that cannot work
    │   └─ TimingConfigError           the dataset's two timing objects: absent or unreadable
    ├─ KeyPatternError(ValueError)     .index .pattern .reason
    ├─ PartitionKeyError(ValueError)   .key .segment
    ├─ TokenError(ValueError)          .token
    ├─ CrossStoreError(ValueError)     .index: the offset or path belongs to another dataset
    ├─ EncodeError / DecodeError       .key
    ├─ CommitMetadataError             .key .field: a commit marker that lies
    ├─ MissingDataError                .key: a committed file is gone
    ├─ TransportError                  .op .key .status .code .attempts
    │   ├─ NotFound, PreconditionFailed, AccessDenied, ClientError      final
    │   └─ Throttled, ServerError, ConnectionFailed, IntegrityError     were tried again
    └─ WriteError                      .phase .partition .token: nothing was committed, except for
        ├─ CommitAfterTimeoutError     .result .results .elapsed .budget: durable, but late
        └─ PartialWriteError           .results .failures: these partitions, and not those

Rule: only `CommitAfterTimeoutError` and `PartialWriteError.results` mean that rows are durable.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import ClassVar, Literal

from s4gateway.s3store.results import WriteResult

Phase = Literal["lookup", "markers", "data", "ref", "commit", "recover"]


class S3StoreError(Exception):
    """The base of every error of this package."""


class ConfigError(S3StoreError, ValueError):
    """A definition that cannot work, told before any request is made."""


class TimingConfigError(ConfigError):
    """The dataset's commit-timeout or max-clock-skew object is absent or unreadable."""

    def __init__(self, bucket: str, key: str, problem: str) -> None:
        super().__init__(f"{bucket}/{key}: {problem}")
        self.bucket = bucket
        self.key = key


class KeyPatternError(S3StoreError, ValueError):
    """A pattern that the grammar does not allow."""

    def __init__(self, index: int, pattern: object, reason: str) -> None:
        super().__init__(f"pattern {index}, {pattern!r}: {reason}")
        self.index = index
        self.pattern = pattern
        self.reason = reason


class PartitionKeyError(S3StoreError, ValueError):
    """A partition key that names no partition of this dataset, or is too long for S3."""

    def __init__(self, key: str, problem: str, segment: str | None = None) -> None:
        super().__init__(f"partition key {key!r}: {problem}")
        self.key = key
        self.segment = segment


class TokenError(S3StoreError, ValueError):
    """An idempotency token that cannot be part of a key."""

    def __init__(self, token: object, problem: str) -> None:
        super().__init__(f"token {token!r}: {problem}")
        self.token = token


class CrossStoreError(S3StoreError, ValueError):
    """An offset, entry or result of another dataset."""

    def __init__(self, path: str, expected: str, index: int = 0) -> None:
        super().__init__(f"{path!r} (position {index}) is another dataset's, not of {expected!r}")
        self.path = path
        self.index = index


class EncodeError(S3StoreError):
    """Rows that do not fit the record's columns; nothing was sent."""

    def __init__(self, problem: str, key: str = "") -> None:
        super().__init__(f"{key}: {problem}" if key else problem)
        self.key = key


class DecodeError(S3StoreError):
    """A stored file that is no Parquet, or whose columns do not fit the record's."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}" if key else problem)
        self.key = key
        self.problem = problem


class CommitMetadataError(S3StoreError):
    """A commit marker whose metadata does not say what was committed."""

    def __init__(self, key: str, field: str, problem: str) -> None:
        super().__init__(
            f"{key}: commit metadata {field!r} {problem}; this object was not written by a dataset"
            " writer, or was changed since: restore it, or delete it, which hides its token's rows"
        )
        self.key = key
        self.field = field


class MissingDataError(S3StoreError):
    """A committed data file that is listed but cannot be fetched; read again to list again."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key}: listed, but not there any more; read again")
        self.key = key


class TransportError(S3StoreError):
    """A request to the store that failed for good, after `attempts` tries."""

    next_step: ClassVar[str] = ""

    def __init__(
        self, op: str, key: str, *, status: int = 0, code: str = "", message: str = ""
    ) -> None:
        super().__init__(op, key, status, code, message)
        self.op = op
        self.key = key
        self.status = status
        self.code = code
        self.message = message
        self.attempts = 1

    @property
    def said(self) -> str:
        """Which request met what answer, without what to do about it."""
        answer = " ".join(filter(None, (str(self.status or ""), self.code, self.message)))
        return f"{self.op} {self.key}: {answer or type(self).__name__}"

    def __str__(self) -> str:
        tried = f" (tried {self.attempts} times)" if self.attempts > 1 else ""
        step = "is the bucket's name right?" if self.code == "NoSuchBucket" else self.next_step
        return f"{self.said}{tried}" + (f"; {step}" if step else "")


class NotFound(TransportError):
    """404 for an object."""


class PreconditionFailed(TransportError):
    """412: the key exists already."""


class AccessDenied(TransportError):
    """403."""

    next_step = "may these credentials use GetObject, PutObject and ListBucket there?"


class Throttled(TransportError):
    """429, or the code SlowDown at any status."""

    next_step = "try again later, or ask for less at a time with max_inflight_requests"


class ServerError(TransportError):
    """Any other status of 500 and above."""

    next_step = "the store is in trouble: try again later"


class ClientError(TransportError):
    """Any other status of 400 and above, and requests the client refuses to send."""


class ConnectionFailed(TransportError):
    """No complete answer: DNS, connect, TLS, reset, time-out, short body."""

    next_step = "is the endpoint right, and the store up? try again later"


class IntegrityError(TransportError):
    """The store's ETag is not the MD5 of what was sent, or a body fails its checksum."""

    next_step = (
        "something on the way changes bodies; verify_etag=False is for ETags that are no MD5"
    )


class WriteError(S3StoreError):
    """One partition was not committed: `phase` says which step failed; files may be left over."""

    def __init__(self, phase: Phase, partition: str, token: str, problem: object) -> None:
        super().__init__(f"partition {partition!r}, token {token!r}, step {phase!r}: {problem}")
        self.phase = phase
        self.partition = partition
        self.token = token


class CommitAfterTimeoutError(WriteError):
    """Rows are durable and snapshot reads see them, but change-stream readers may be past them.

    Writing again with the same token does not help a stream reader; `restamp_ref(error.result)`
    gives the rows a new place in the stream.
    """

    def __init__(
        self,
        partition: str,
        token: str,
        *,
        results: Sequence[WriteResult],
        late: WriteResult,
        elapsed: timedelta,
        budget: timedelta,
        phase: Phase = "commit",
    ) -> None:
        super().__init__(
            phase,
            partition,
            token,
            f"committed {elapsed.total_seconds():.3f} s after its ref was stamped, the budget is"
            f" {budget.total_seconds():.3f} s; the rows are durable, restamp_ref() shows them to"
            " change-stream readers",
        )
        self.result = late
        self.results = list(results)
        self.elapsed = elapsed
        self.budget = budget


class PartialWriteError(WriteError):
    """Some partitions of one write are committed (`results`), the others are not (`failures`).

    With tokens, writing the failed partitions again is safe; their keys are those of `failures`.
    `late` are those of the results that change-stream readers may have missed.
    """

    def __init__(
        self,
        results: Sequence[WriteResult],
        failures: Mapping[str, BaseException],
        late: Sequence[WriteResult] = (),
    ) -> None:
        partition, first = next(iter(failures.items()))
        phase: Phase = first.phase if isinstance(first, WriteError) else "data"
        token = first.token if isinstance(first, WriteError) else ""
        super().__init__(
            phase,
            partition,
            token,
            f"{len(results)} partitions are committed, {len(failures)} are not: {first}",
        )
        self.results = list(results)
        self.failures = dict(failures)
        self.late = list(late)
