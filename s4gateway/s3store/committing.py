"""One partition's write, step by step: markers, data, ref, commit marker.

Rule: storing the commit marker is the only event that makes rows visible. Everything before it may
be left lying there and stays unseen; nothing stored is ever changed or deleted. From the moment the
data is stored, the write goes on to its end whatever happens to the caller, and what happened is
told: committed, committed too late for change-stream readers, or not committed.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

from s4gateway.s3store import clock, errors, layout
from s4gateway.s3store.calls import is_transient
from s4gateway.s3store.commit import Commit
from s4gateway.s3store.errors import CommitAfterTimeoutError, Phase, WriteError
from s4gateway.s3store.fan_out import fan_out
from s4gateway.s3store.parquet import Encoder
from s4gateway.s3store.partitions import HivePartition
from s4gateway.s3store.records import RecordSpec
from s4gateway.s3store.results import WriteResult
from s4gateway.s3store.shielding import to_the_end
from s4gateway.s3store.target import S3Target
from s4gateway.s3store.telemetry import Method

T = TypeVar("T")
TokenSource: TypeAlias = str | Callable[[HivePartition[T]], str] | None
Landed = Callable[[WriteResult], None]

_SMALL_ROWS: Final = 100
_NOTHING: Final = "nothing is committed: write again, with the same token if there was one"
_UNKNOWN: Final = "it may be committed: lookup_commit() tells, as does writing with the same token"


class MarkerSource(Protocol):
    """A view, as far as writing is concerned."""

    @property
    def name(self) -> str:
        """The view's name, one of a kind within a writer."""

    def bind(
        self, spec: RecordSpec[Any], keys: layout.Keys
    ) -> Callable[[HivePartition[Any]], Sequence[str]]:
        """Return what makes the keys of a batch's markers; raises ConfigError.

        The function sees rows that carry their insertion time; it may raise anything, which ends
        the write before a request was made.
        """


@dataclass(frozen=True, slots=True)
class Order(Generic[T]):
    """What a call of `write` asks for, besides its rows."""

    token: TokenSource[T] = None
    inserted_at: datetime | None = None
    optimistic: bool = False

    def __post_init__(self) -> None:
        if self.inserted_at is not None:
            clock.to_us(self.inserted_at)  # a moment without a zone is told before any request

    def token_for(self, partition: HivePartition[T]) -> str | None:
        """Return the caller's token, checked; a callable is called."""
        if self.token is None:
            return None
        given = self.token(partition) if callable(self.token) else self.token
        return layout.check_token(given)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One try at committing one partition."""

    partition: str
    token: str
    id: str
    rows: int
    inserted_us: int
    conditional: bool

    def failure(self, phase: Phase, problem: object) -> WriteError:
        step = _UNKNOWN if phase == "recover" else _NOTHING
        return WriteError(phase, self.partition, self.token, f"{problem}; {step}")


@dataclass(frozen=True, slots=True)
class _Stamp:
    """When a ref was stamped, by both clocks."""

    us: int
    monotonic: float


class PartitionWriter(Generic[T]):
    """Writes partitions of one record type to one target."""

    def __init__(
        self,
        target: S3Target,
        spec: RecordSpec[T],
        encoder: Encoder,
        inserted_at_column: str | None,
        markers: Sequence[Callable[[HivePartition[T]], Sequence[str]]],
    ) -> None:
        self.target = target
        self._keys = target.keys
        self._spec = spec
        self._encoder = encoder
        self._inserted_at_column = inserted_at_column
        self._markers = markers

    async def write(
        self,
        partition: HivePartition[T],
        token: str | None,
        order: Order[T],
        method: Method,
        landed: Landed,
    ) -> WriteResult:
        """Commit one partition and return where it lies; `landed` hears of it the moment it does.

        Raises WriteError and its kinds, EncodeError, PartitionKeyError, CommitMetadataError.
        """
        attempt = layout.new_attempt()
        self._keys.check_lengths(partition.key, token or attempt)
        if token is not None and not order.optimistic:
            prior = await self._prior(partition.key, token)
            if prior is not None:
                return prior
        moment = order.inserted_at
        tried = _Attempt(
            partition.key,
            token or attempt,
            attempt,
            len(partition),
            self.target.clock.now_us() if moment is None else clock.to_us(moment),
            conditional=order.optimistic and token is not None,
        )
        if tried.rows <= _SMALL_ROWS:  # less work than the way to a thread and back
            body, markers = self._prepare(partition, tried.inserted_us)
        else:
            body, markers = await asyncio.to_thread(self._prepare, partition, tried.inserted_us)
        await self._put_markers(tried, markers)
        await self._put_data(tried, body)

        def note(result: WriteResult) -> None:
            method.records += tried.rows
            method.partitions += 1
            method.bytes += len(body)
            landed(result)

        return await to_the_end(self._commit(tried, note))

    # --- before anything is visible

    async def _prior(self, partition: str, token: str) -> WriteResult | None:
        try:
            return await self.lookup(partition, token)
        except errors.TransportError as error:
            raise WriteError("lookup", partition, token, f"{error}; {_UNKNOWN}") from error

    async def lookup(self, partition: str, token: str) -> WriteResult | None:
        """Return what was committed under a token, None when nothing was: one HEAD."""
        commit = await self._committed(partition, token)
        return None if commit is None else commit.result(self._keys, partition, token)

    async def _committed(self, partition: str, token: str) -> Commit | None:
        key = self._keys.commit(partition, token)
        found = await self.target.calls.head(key)
        return None if found is None else Commit.parse(key, found.metadata)

    def _prepare(self, partition: HivePartition[T], inserted_us: int) -> tuple[bytes, list[str]]:
        """The Parquet file and the keys of the view markers."""
        column = self._inserted_at_column
        constants = {column: clock.from_us(inserted_us)} if column else {}
        records = partition.records
        if isinstance(records, list):
            table = self._spec.to_table(records, constants)
        else:
            table = self._spec.for_writing(records, constants)
        keys: dict[str, None] = {}
        if self._markers:
            parts = self.target.partition_key_parts
            stamped = HivePartition(partition.key, parts, self._spec, table)
            for make in self._markers:
                keys.update(dict.fromkeys(make(stamped)))
        return self._encoder.encode(table), list(keys)

    async def _put_markers(self, tried: _Attempt, keys: Sequence[str]) -> None:
        if not keys:
            return
        calls = self.target.calls
        try:
            await fan_out(self.target.telemetry, keys, calls.put, calls.limit)
        except errors.TransportError as error:
            raise tried.failure("markers", error) from error

    async def _put_data(self, tried: _Attempt, body: bytes) -> None:
        key = self._keys.data(tried.partition, tried.token, tried.id)
        try:
            await self.target.calls.put(key, body)
        except errors.TransportError as error:
            raise tried.failure("data", error) from error

    # --- from here on to the end

    async def _commit(self, tried: _Attempt, landed: Landed) -> WriteResult:
        stamp = _Stamp(self.target.clock.now_us(), self.target.clock.monotonic())
        try:
            await self.target.calls.put(
                self._keys.ref(stamp.us, tried.token, tried.id, tried.partition)
            )
        except errors.TransportError as error:
            raise tried.failure("ref", error) from error
        commit = Commit(tried.id, stamp.us, tried.inserted_us, tried.rows)
        prior = await self._put_commit(tried, commit)
        if prior is not None:
            return prior
        result = commit.result(self._keys, tried.partition, tried.token)
        landed(result)
        self.check_budget(stamp, tried.partition, tried.token, result)
        return result

    async def _put_commit(self, tried: _Attempt, commit: Commit) -> WriteResult | None:
        """Store the commit marker; return the result of an earlier write that has stored it."""
        key = self._keys.commit(tried.partition, tried.token)
        try:
            await self.target.calls.put(
                key, metadata=commit.to_metadata(), if_none_match=tried.conditional
            )
        except errors.TransportError as error:
            return await self._resolve(tried, error)
        return None

    async def _resolve(self, tried: _Attempt, refused: errors.TransportError) -> WriteResult | None:
        """Ask which attempt is committed, after a PUT that may have been the one.

        A conditional PUT is refused by its own success when the first answer was lost; any PUT
        without an answer may have landed.
        """
        conflict = tried.conditional and isinstance(
            refused, errors.PreconditionFailed | errors.AccessDenied
        )
        if not (conflict or is_transient(refused)):
            raise tried.failure("commit", refused) from refused
        try:
            found = await self._committed(tried.partition, tried.token)
        except (errors.TransportError, errors.CommitMetadataError) as error:
            problem = f"{refused}; and asking what is committed failed: {error}"
            raise tried.failure("recover", problem) from error
        if found is not None and found.attempt == tried.id:
            return None
        if found is None or not tried.conditional:
            raise tried.failure("commit", refused) from refused
        self.target.telemetry.add("s3store.write.optimistic_commit.collisions")
        return found.result(self._keys, tried.partition, tried.token)

    def check_budget(
        self,
        stamp: _Stamp,
        partition: str,
        token: str,
        result: WriteResult,
        phase: Phase = "commit",
    ) -> None:
        """Raise CommitAfterTimeoutError when more time went by since the stamp than is allowed.

        The longer one of both clocks counts: a clock that was set back hides nothing.
        """
        now = self.target.clock
        wall_ns = (now.now_us() - stamp.us) * 1000
        elapsed_ns = max(wall_ns, int((now.monotonic() - stamp.monotonic) * 1e9))
        if elapsed_ns <= self.target.timing.commit_timeout_ns:
            return
        self.target.telemetry.add("s3store.write.commit_after_timeout")
        raise CommitAfterTimeoutError(
            partition,
            token,
            results=[result],
            late=result,
            elapsed=timedelta(microseconds=elapsed_ns // 1000),
            budget=self.target.commit_timeout,
            phase=phase,
        )

    async def restamp(self, prior: WriteResult, ref: layout.Ref) -> WriteResult:
        """Give a committed partition another entry in the change stream: one PUT."""
        return await to_the_end(self._restamp(prior, ref))

    async def _restamp(self, prior: WriteResult, ref: layout.Ref) -> WriteResult:
        stamp = _Stamp(self.target.clock.now_us(), self.target.clock.monotonic())
        us = stamp.us + (stamp.us == ref.us)
        key = self._keys.ref(us, ref.token, ref.attempt, ref.partition)
        try:
            await self.target.calls.put(key)
        except errors.TransportError as error:
            problem = f"{error}; call restamp_ref() again"
            raise WriteError("ref", ref.partition, ref.token, problem) from error
        result = WriteResult(key, prior.data_path, key, prior.inserted_at, prior.row_count)
        self.check_budget(stamp, ref.partition, ref.token, result, phase="ref")
        return result
