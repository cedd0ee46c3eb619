"""Parquet files whose pages are compressed again with zstd, and stay Parquet files.

A Parquet file is compressed inside, page by page, so a gateway gains nothing from it. Written again
with zstd instead of snappy, gzip or nothing it is smaller for every reader, with a gateway or
without. Rule: what readers see and plan by stays, and nothing is replaced by what was not read back
and compared; but the bytes are others, and so are ETag, length and checksums.
"""

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from s4gateway.backend.base import Backend
from s4gateway.objects.attributes import Attributes
from s4gateway.objects.cache import ObjectName
from s4gateway.objects.encoding import EncodedObject
from s4gateway.tools import parquet_format, parquet_workers, rewrite_run
from s4gateway.tools.failure import NAMED, Bounded, Failure
from s4gateway.tools.parquet_making import ParquetMaker
from s4gateway.tools.parquet_workers import MEMORY, Work
from s4gateway.tools.progress import SILENT, Progress
from s4gateway.tools.remembered import Remembered
from s4gateway.tools.rewrite_kind import Looked, Outcome, Skipped
from s4gateway.tools.rewrite_order import RewriteParams, RewriteReport
from s4gateway.tools.rewrite_run import Tally
from s4gateway.tools.rewriting import Rewriter
from s4gateway.tools.walk import Listed
from s4gateway.wire.manifest import Form


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetParams(RewriteParams):
    """The `zstd_level` of pages; what gains less than `min_gain_percent` of its bytes stays.

    Keys end with `suffix`. Files with a row group of more than `max_row_group_bytes`, before
    compression, are left alone; None is no bound. With `tolerate_value_mismatch` a file from which
    an engine reads other values afterwards is left alone instead of having failed. `table_files`
    of Iceberg, Delta and Hudi are rewritten, too. `state_file` remembers what did not gain enough.
    A process that looks into files takes `memory` bytes.
    """

    zstd_level: int = 3
    min_gain_percent: float = 3.0
    suffix: str = ".parquet"
    max_row_group_bytes: int | None = None
    tolerate_value_mismatch: bool = False
    table_files: bool = False
    state_file: Path | None = None
    memory: int = MEMORY


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetReport(RewriteReport):
    """`recompacted` files with their stored bytes before and after; in a dry run, what would be.

    Left alone: `skipped_expiring` a lifecycle rule removes, and writing would begin their time
    anew; `skipped_table_file` are files of tables that know their lengths;
    `skipped_unsupported_structure` have bytes or fields whose meaning is not known;
    `skipped_not_verifiable` pyarrow does not read; `skipped_value_mismatch` it reads differently.
    `refused` names those files and the reason. `remembered` of the `skipped_insufficient_gain` were
    known from an earlier run and not read.
    """

    target_zstd_level: int
    min_gain_percent: float
    suffix: str
    recompacted: int
    recompacted_bytes_before: int
    recompacted_bytes_after: int
    skipped_other_suffix: int
    skipped_not_parquet: int
    skipped_already_zstd: int
    skipped_insufficient_gain: int
    skipped_expiring: int
    skipped_table_file: int
    skipped_parquet_encrypted: int
    skipped_unsupported_codec: int
    skipped_unsupported_structure: int
    skipped_row_group_too_large: int
    skipped_page_too_large: int
    skipped_not_verifiable: int
    skipped_value_mismatch: int
    remembered: int
    refused: tuple[Failure, ...]


async def parquet_recompact(
    backend: Backend, params: ParquetParams, progress: Progress = SILENT
) -> ParquetReport:
    """Compress the pages of all Parquet files below a target with zstd, where that gains enough.

    Raises BackendError when it cannot be listed, RewriteRefused, state.files.StateFileError.
    """
    tally = Tally()
    work = Work(params.zstd_level, params.max_row_group_bytes)
    with closing(Remembered(params.state_file)) as remembered:
        gate = _Gate(params, remembered)
        async with (
            rewrite_run.opened(backend, params, tally) as objects,
            parquet_workers.workers(params.memory) as workers,
        ):
            maker = ParquetMaker(
                objects,
                workers,
                work,
                largest=params.max_body_bytes,
                tolerant=params.tolerate_value_mismatch,
                tables=params.table_files,
            )
            rewriter = Rewriter(objects, params, gate, maker.make)
            await rewrite_run.rewrite_all(objects, params, rewriter, progress, tally)
            tally.unlike_etags = maker.unlike_etags
    report = _report(params, tally, gate, maker.refused)
    return replace(report, notes=(*report.notes, *remembered.notes))


class _Gate:
    """Parquet files by name and first bytes, and whether rewriting one paid."""

    def __init__(self, params: ParquetParams, remembered: Remembered) -> None:
        self._params = params
        self._remembered = remembered
        self.counted = 0  # of those rewritten, so many are in a ledger
        self.known = 0

    def check_listed(self, listed: Listed) -> None:
        if not listed.key.endswith(self._params.suffix):
            raise Skipped(Outcome.OTHER_SUFFIX)
        if not listed.size:
            raise Skipped(Outcome.NOT_PARQUET)

    def check(self, looked: Looked) -> None:
        if looked.attributes.stored.form is Form.ENCRYPTED:
            raise Skipped(Outcome.ENCRYPTED)
        if looked.attributes.is_verbatim:
            _check_magic(looked.start)
        if "x-amz-expiration" in looked.head.headers:
            raise Skipped(Outcome.EXPIRING)
        level = self._params.zstd_level
        after = self._remembered.size(_remembered_as(looked.name), looked.head.etag, level)
        if after is not None and not self._gains_enough(looked.head.size, after):
            self.known += 1
            raise Skipped(Outcome.INSUFFICIENT_GAIN)

    def finish(self, looked: Looked, source: Attributes, encoded: EncodedObject) -> EncodedObject:
        before, after = looked.head.size, encoded.stored_size
        if not self._gains_enough(before, after):
            name, level = _remembered_as(looked.name), self._params.zstd_level
            self._remembered.add(name, looked.head.etag, level, after)
            raise Skipped(Outcome.INSUFFICIENT_GAIN)
        self.counted += source.stored.ledger
        return encoded

    def stamps(self, source: Attributes) -> list[tuple[str, str]]:
        return []

    def _gains_enough(self, before: int, after: int) -> bool:
        gain = before - after
        return gain > 0 and gain * 100 >= before * self._params.min_gain_percent


def _check_magic(start: bytes) -> None:
    if start.startswith(parquet_format.ENCRYPTED_MAGIC):
        raise Skipped(Outcome.PARQUET_ENCRYPTED)
    if not start.startswith(parquet_format.MAGIC):
        raise Skipped(Outcome.NOT_PARQUET)


def _remembered_as(name: ObjectName) -> ObjectName:
    """Under another name than `s4 recompact` has for the same object; no bucket has a colon."""
    return f"parquet:{name[0]}", name[1]


def _report(
    params: ParquetParams, tally: Tally, gate: _Gate, refused: Bounded[Failure]
) -> ParquetReport:
    count = tally.outcomes
    return ParquetReport(
        **tally.common(params),
        target_zstd_level=params.zstd_level,
        min_gain_percent=params.min_gain_percent,
        suffix=params.suffix,
        recompacted=count[Outcome.REWRITTEN],
        recompacted_bytes_before=tally.before,
        recompacted_bytes_after=tally.after,
        skipped_other_suffix=count[Outcome.OTHER_SUFFIX],
        skipped_not_parquet=count[Outcome.NOT_PARQUET],
        skipped_already_zstd=count[Outcome.ALREADY_ZSTD],
        skipped_insufficient_gain=count[Outcome.INSUFFICIENT_GAIN],
        skipped_expiring=count[Outcome.EXPIRING],
        skipped_table_file=count[Outcome.TABLE_FILE],
        skipped_parquet_encrypted=count[Outcome.PARQUET_ENCRYPTED],
        skipped_unsupported_codec=count[Outcome.UNSUPPORTED_CODEC],
        skipped_unsupported_structure=count[Outcome.UNSUPPORTED_STRUCTURE],
        skipped_row_group_too_large=count[Outcome.ROW_GROUP_TOO_LARGE],
        skipped_page_too_large=count[Outcome.PAGE_TOO_LARGE],
        skipped_not_verifiable=count[Outcome.NOT_VERIFIABLE],
        skipped_value_mismatch=count[Outcome.VALUE_MISMATCH],
        remembered=gate.known,
        refused=refused.sorted(),
        notes=tuple(_notes(params, tally, gate, refused)),
    )


def _notes(
    params: ParquetParams, tally: Tally, gate: _Gate, refused: Bounded[Failure]
) -> list[str]:
    count = tally.outcomes
    notes = tally.notes(params)
    if count[Outcome.REWRITTEN]:
        verb = "have" if params.execute else "would have"
        notes.append(
            f"Rewritten files {verb} another ETag, length and checksum: their bytes are others."
            " Whoever keeps the length of a file, as catalogs do, must be told."
        )
    if gate.counted and params.execute and params.ledger_file is None:
        notes.append(rewrite_run.uncounted(gate.counted))
    if count[Outcome.INSUFFICIENT_GAIN] and params.state_file is None:
        notes.append(
            "Files that gain too little are read again by every run; --state-file PATH"
            " remembers them."
        )
    if count[Outcome.EXPIRING]:
        notes.append(
            "Files that a lifecycle rule will expire were left alone: writing them would begin"
            " their time anew."
        )
    if count[Outcome.TABLE_FILE]:
        notes.append(
            "Files of Iceberg, Delta and Hudi tables were left alone: the tables' metadata hold"
            " their lengths. Compact such tables with their own tools."
        )
    if refused.is_cut:
        notes.append(f"Only the first {NAMED} refused files are named.")
    return notes
