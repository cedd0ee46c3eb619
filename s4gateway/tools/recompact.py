"""Gateway objects compressed again at a higher level, without the padding of parts.

Rule: what clients see of an object stays: bytes, metadata, tags, ETag, parts and checksum; and an
object that the savings ledger counts is counted afterwards. An object is replaced only where enough
is gained, and what did not gain enough is not read again to find that out once more.
"""

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from s4gateway.backend.base import Backend
from s4gateway.codecs.dispatcher import Dispatcher
from s4gateway.objects.attributes import Attributes
from s4gateway.objects.encoding import EncodedObject
from s4gateway.s3.headers import USER_METADATA_PREFIX
from s4gateway.tools import rewrite_run
from s4gateway.tools.progress import SILENT, Progress
from s4gateway.tools.remembered import Remembered
from s4gateway.tools.rewrite_kind import Looked, Outcome, Recipe, Skipped, with_etag
from s4gateway.tools.rewrite_order import RewriteParams, RewriteReport
from s4gateway.tools.rewrite_run import Tally
from s4gateway.tools.walk import Listed
from s4gateway.wire import manifest
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.manifest import Form

_LEVEL: Final = USER_METADATA_PREFIX + manifest.ZSTD_LEVEL
_TAIL: Final = USER_METADATA_PREFIX + manifest.TAIL


@dataclass(frozen=True, slots=True, kw_only=True)
class RecompactParams(RewriteParams):
    """The `zstd_level` to compress at; what gains less than `min_gain_percent` of its bytes stays.

    `assume_unstamped_framed` takes objects without a gateway's metadata, whose bytes begin as
    frames do, for frames. `state_file` remembers what did not gain enough.
    """

    zstd_level: int = 19
    min_gain_percent: float = 3.0
    assume_unstamped_framed: bool = False
    state_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecompactReport(RewriteReport):
    """`recompacted` objects with their stored bytes before and after; in a dry run, what would be.

    `remembered` of the `skipped_insufficient_gain` were known from an earlier run and not read.
    """

    target_zstd_level: int
    min_gain_percent: float
    recompacted: int
    recompacted_bytes_before: int
    recompacted_bytes_after: int
    skipped_not_s4: int
    skipped_already_compacted: int
    skipped_unsupported_codec: int
    skipped_unstamped_framed: int
    skipped_insufficient_gain: int
    remembered: int


async def recompact(
    backend: Backend, params: RecompactParams, progress: Progress = SILENT
) -> RecompactReport:
    """Compress everything below a target again, where that gains enough.

    Raises BackendError when it cannot be listed, RewriteRefused, state.files.StateFileError.
    """
    tally = Tally()
    making = replace(params.making, zstd_level=params.zstd_level, codec=CodecId.CPU_ZSTD)
    params = replace(params, making=making)
    with closing(Remembered(params.state_file)) as remembered:
        kind = _Recompact(params, remembered)
        await rewrite_run.run(backend, params, kind, progress, tally)
    return _report(params, tally, kind, remembered)


class _Recompact:
    """The gateway's objects at another level."""

    def __init__(self, params: RecompactParams, remembered: Remembered) -> None:
        self._params = params
        self._remembered = remembered
        self._dispatcher = Dispatcher(CodecId.CPU_ZSTD)
        self.vouches_for_frames = params.assume_unstamped_framed
        self.counted = 0  # of those rewritten, so many are in a ledger
        self.known = 0

    def check_listed(self, listed: Listed) -> None:
        if listed.size == 0:
            raise Skipped(Outcome.NOT_S4)

    def check(self, looked: Looked) -> None:
        form, metadata = looked.attributes.stored.form, looked.head.metadata
        if form is Form.FOREIGN and not looked.looks_framed:
            raise Skipped(Outcome.NOT_S4)
        if form is Form.FOREIGN and not self.vouches_for_frames:
            raise Skipped(Outcome.UNSTAMPED_FRAMED)
        if form is Form.ENCRYPTED:
            raise Skipped(Outcome.ENCRYPTED)
        if metadata.get(manifest.CODEC, CodecId.CPU_ZSTD.label) != CodecId.CPU_ZSTD.label:
            raise Skipped(Outcome.UNSUPPORTED_CODEC)
        if _level(metadata.get(manifest.ZSTD_LEVEL)) >= self._params.zstd_level:
            raise Skipped(Outcome.ALREADY_COMPACTED)
        after = self._remembered.size(looked.name, looked.head.etag, self._params.zstd_level)
        if after is not None and not self._gains_enough(looked.head.size, after):
            self.known += 1
            raise Skipped(Outcome.INSUFFICIENT_GAIN)

    def recipe(self, source: Attributes) -> Recipe:
        if not source.size:
            raise Skipped(Outcome.INSUFFICIENT_GAIN)
        return Recipe(self._dispatcher, b"" if source.tail is None else source.tail.encode())

    def finish(self, looked: Looked, source: Attributes, encoded: EncodedObject) -> EncodedObject:
        before, after = looked.head.size, encoded.stored_size
        if not self._gains_enough(before, after):
            level = self._params.zstd_level
            self._remembered.add(looked.name, looked.head.etag, level, after)
            raise Skipped(Outcome.INSUFFICIENT_GAIN)
        stored = source.stored
        self.counted += stored.ledger
        multipart = source.tail is not None
        made = replace(encoded.manifest, multipart=multipart, ledger=stored.ledger)
        encoded = replace(encoded, manifest=made)
        if looked.attributes.stored.form is Form.FOREIGN:
            return encoded  # clients have seen the ETag of its frames, not of its content
        return with_etag(encoded, source.etag)

    def _gains_enough(self, before: int, after: int) -> bool:
        gain = before - after
        return gain > 0 and gain * 100 >= before * self._params.min_gain_percent

    def stamps(self, source: Attributes) -> list[tuple[str, str]]:
        level = (_LEVEL, str(self._params.zstd_level))
        return [level] if source.tail is None else [level, (_TAIL, source.tail.token)]


def _level(text: str | None) -> int:
    """The level an object says it was compressed at; 0 when it does not say."""
    if text is None or len(text) > 2 or not (text.isascii() and text.isdigit()):
        return 0
    return int(text)


def _report(
    params: RecompactParams, tally: Tally, kind: _Recompact, remembered: Remembered
) -> RecompactReport:
    count = tally.outcomes
    notes = [*tally.notes(params), *remembered.notes]
    if kind.counted and params.execute and params.ledger_file is None:
        notes.append(rewrite_run.uncounted(kind.counted))
    if count[Outcome.INSUFFICIENT_GAIN] and params.state_file is None:
        notes.append(
            "Objects that gain too little are read again by every run; --state-file PATH"
            " remembers them."
        )
    return RecompactReport(
        **tally.common(params),
        target_zstd_level=params.zstd_level,
        min_gain_percent=params.min_gain_percent,
        recompacted=count[Outcome.REWRITTEN],
        recompacted_bytes_before=tally.before,
        recompacted_bytes_after=tally.after,
        skipped_not_s4=count[Outcome.NOT_S4],
        skipped_already_compacted=count[Outcome.ALREADY_COMPACTED],
        skipped_unsupported_codec=count[Outcome.UNSUPPORTED_CODEC],
        skipped_unstamped_framed=count[Outcome.UNSTAMPED_FRAMED],
        skipped_insufficient_gain=count[Outcome.INSUFFICIENT_GAIN],
        remembered=kind.known,
        notes=tuple(notes),
    )
