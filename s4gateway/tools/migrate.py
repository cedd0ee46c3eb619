"""Objects that were there before the gateway, brought into its form; and back again.

Rule: a client sees the same object before and after: bytes, metadata, tags, and the ETag it was
told. Nothing is replaced before what replaces it was decoded again and compared. `undo` leaves what
any S3 client would have stored: the bytes, and no trace of a gateway.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

from s4gateway.backend.base import Backend
from s4gateway.codecs.dispatcher import Dispatcher
from s4gateway.objects.attributes import Attributes
from s4gateway.objects.encoding import EncodedObject
from s4gateway.s3.checksums import CHECKSUM_PREFIX
from s4gateway.s3.completion import SMALLEST_PART
from s4gateway.tools import rewrite_run
from s4gateway.tools.progress import SILENT, Progress
from s4gateway.tools.rewrite_kind import Kind, Looked, Outcome, Recipe, Skipped, with_etag
from s4gateway.tools.rewrite_order import RewriteParams, RewriteReport
from s4gateway.tools.rewrite_run import Tally
from s4gateway.tools.walk import Listed
from s4gateway.wire import manifest
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.manifest import Form
from s4gateway.wire.tail import Tail


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrateParams(RewriteParams):
    """`undo` turns gateway objects into plain ones."""

    undo: bool = False


@dataclass(frozen=True, slots=True)
class CodecCount:
    """How many objects the sample said `picked` of and were written with `wrote_with`."""

    picked: str
    wrote_with: str
    objects: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrateReport(RewriteReport):
    """`migrated` objects with their stored bytes before and after; in a dry run, what would be.

    With `undo` these are the objects turned back, `skipped_not_s4` are no gateway objects, and
    `skipped_unsupported_codec` need a codec that is not here.
    """

    undo: bool
    migrated: int
    migrated_bytes_before: int
    migrated_bytes_after: int
    skipped_already_s4: int
    skipped_not_compressible: int
    skipped_not_s4: int
    skipped_unsupported_codec: int
    codecs: tuple[CodecCount, ...]


async def migrate(
    backend: Backend, params: MigrateParams, progress: Progress = SILENT
) -> MigrateReport:
    """Bring everything below a target into the gateway's form, or back.

    Raises BackendError when it cannot be listed, RewriteRefused, state.files.StateFileError.
    """
    tally = Tally()
    restore = _Restore(params.making.largest)
    kind: Kind = restore if params.undo else _Compress(params.making.codec)
    if not params.undo:
        params = replace(params, ledger_file=None)  # nothing there is counted, and nothing will be
    await rewrite_run.run(backend, params, kind, progress, tally)
    return _report(params, tally, restore.counted)


class _Compress:
    """Objects of others become the gateway's own."""

    vouches_for_frames = False

    def __init__(self, codec: CodecId) -> None:
        self._dispatcher = Dispatcher(codec)

    def check_listed(self, listed: Listed) -> None:
        if listed.size == 0:
            raise Skipped(Outcome.NOT_COMPRESSIBLE)

    def check(self, looked: Looked) -> None:
        stored = looked.attributes.stored
        stamped = manifest.CODEC in looked.head.metadata
        if stored.form is not Form.FOREIGN or stamped or looked.looks_framed:
            raise Skipped(Outcome.ALREADY_S4)
        if self._dispatcher.pick(looked.start) is CodecId.PASSTHROUGH:
            raise Skipped(Outcome.NOT_COMPRESSIBLE)

    def recipe(self, source: Attributes) -> Recipe:
        return Recipe(self._dispatcher, needs_md5=not manifest.is_etag(source.etag))

    def finish(self, looked: Looked, source: Attributes, encoded: EncodedObject) -> EncodedObject:
        if not encoded.manifest.framed:
            raise Skipped(Outcome.NOT_COMPRESSIBLE)
        return with_etag(encoded, looked.attributes.etag)

    def stamps(self, source: Attributes) -> list[tuple[str, str]]:
        return []


class _Restore:
    """The gateway's objects become anybody's."""

    vouches_for_frames = False

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._dispatcher = Dispatcher(CodecId.PASSTHROUGH)
        self.counted = 0  # of those turned back, so many were in a ledger

    def check_listed(self, listed: Listed) -> None:
        """Empty objects have metadata, too."""

    def check(self, looked: Looked) -> None:
        form = looked.attributes.stored.form
        if form is Form.FOREIGN:
            raise Skipped(Outcome.NOT_S4)
        if form is Form.ENCRYPTED:
            raise Skipped(Outcome.ENCRYPTED)

    def recipe(self, source: Attributes) -> Recipe:
        return Recipe(self._dispatcher)

    def finish(self, looked: Looked, source: Attributes, encoded: EncodedObject) -> EncodedObject:
        self.counted += source.stored.ledger
        return replace(encoded, bare=True, parts=_parts(source.tail))

    def stamps(self, source: Attributes) -> list[tuple[str, str]]:
        """The checksum its client declared, which the store checks and shows, as it did before.

        An upload in parts would have to name it before its first part.
        """
        made = source.stored.manifest
        if made is None or made.checksum is None or (source.size or 0) > self._largest:
            return []
        algorithm, value = made.checksum
        return [(CHECKSUM_PREFIX + algorithm, value)] if source.tail is None else []


def _parts(tail: Tail | None) -> tuple[int, ...]:
    """The sizes an object was uploaded in, so that it gets its ETag again; none if not allowed."""
    if tail is None:
        return ()
    sizes = tuple(size for _, size in tail.parts)
    allowed = all(size >= SMALLEST_PART for size, _ in pairwise(sizes))
    return sizes if allowed else ()


def _report(params: MigrateParams, tally: Tally, counted: int) -> MigrateReport:
    count = tally.outcomes
    notes = tally.notes(params)
    if count[Outcome.REWRITTEN]:
        notes.append(
            "Carried over: metadata, content headers, Expires, WebsiteRedirectLocation, storage"
            " class, tags, grants and encryption by the store's keys."
        )
    if counted and params.execute and params.ledger_file is None:
        notes.append(rewrite_run.uncounted(counted))
    codecs = (
        ()
        if params.undo
        else tuple(
            CodecCount(params.making.codec.label, codec, objects)
            for codec, objects in sorted(tally.codecs.items())
        )
    )
    return MigrateReport(
        **tally.common(params),
        undo=params.undo,
        migrated=count[Outcome.REWRITTEN],
        migrated_bytes_before=tally.before,
        migrated_bytes_after=tally.after,
        skipped_already_s4=count[Outcome.ALREADY_S4],
        skipped_not_compressible=count[Outcome.NOT_COMPRESSIBLE],
        skipped_not_s4=count[Outcome.NOT_S4],
        skipped_unsupported_codec=count[Outcome.UNSUPPORTED_CODEC],
        codecs=codecs,
        notes=tuple(notes),
    )
