"""`s4 decode`, `s4 inspect`, `s4 index`: stored objects from files or pipes, without a gateway.

exit status   0 done, and everything that can be checked agrees   1 damaged, encrypted, or not ours
              2 the command line is wrong
"""

import contextlib
import os
import secrets
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import click
from click.core import ParameterSource

from s4gateway.backend.base import Backend
from s4gateway.cli import options, render
from s4gateway.cli.repair import OBJECT, run_sidecar_tool
from s4gateway.gateway.config import GatewayConfig
from s4gateway.objects.errors import ObjectError
from s4gateway.tools import inspection, offline_decode, offline_index
from s4gateway.tools.inspection import BodyReport, ObjectReport
from s4gateway.tools.offline_index import IndexReport
from s4gateway.tools.offline_input import LARGEST_HEAD, OfflineError, StoredHead, StoredInput
from s4gateway.tools.offline_input import parse_head as parse

_STDIN = "-"
_URL = "s3://"

_input_argument = click.argument("file", metavar="[FILE]", default=_STDIN)
_output_option = click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Where to write; standard output without it. Replaced only when everything is right.",
)  # fmt: skip


@click.command()
@_input_argument
@_output_option
@click.option(
    "--dict", "dictionary", type=click.Path(path_type=Path), metavar="FILE",
    help="The dictionary the object was made with: the body of .s4dict/ID.",
)  # fmt: skip
@click.option(
    "--metadata", type=click.Path(path_type=Path), metavar="FILE",
    help="What `aws s3api head-object` said of the object, as JSON: decides how it is read, and "
    "lets size, CRC and ETag of the whole be checked.",
)  # fmt: skip
def decode(file: str, output: Path | None, dictionary: Path | None, metadata: Path | None) -> int:
    """Decode a stored object to its original, from FILE or standard input.

    Needs no gateway, no store and no network. Each frame is written only after its CRC-32C has been
    checked. Without --metadata the input has to begin with a frame; an object that was stored as it
    came is its own original. Encrypted objects and GPU codecs are refused.
    """
    with _complaining(file):
        codec = None if dictionary is None else offline_decode.load_dictionary(dictionary)
        head = None if metadata is None else _read_head(metadata)
        with _opened(file) as source, _writing(output) as sink:
            stored = StoredInput(source)
            report = options.run_async(
                lambda: offline_decode.decode(stored, sink.write, dictionary=codec, head=head)
            )
    for note in report.notes:
        click.echo(f"s4: note: {note}", err=True)
    return 0


@click.command()
@_input_argument
@click.option(
    "--frames", "named", type=click.IntRange(min=0), default=inspection.NAMED, show_default=True,
    metavar="N", help="How many frames to name; all are counted.",
)  # fmt: skip
@options.format_option
@options.backend_options(required=False)
def inspect(config: GatewayConfig, file: str, named: int, form: str) -> int:
    """Show what a stored object is made of: frames, padding, tail, or the entries of a sidecar.

    FILE is a file or standard input, or BUCKET/KEY with --endpoint-url, or s3://BUCKET/KEY: then
    size, ETag, codec, ratio, dictionary and sidecar are shown, too. No payload is read. Exits with
    status 1 when the headers contradict each other.
    """
    given = click.get_current_context().get_parameter_source("endpoint_url")
    if file.startswith(_URL) or given is ParameterSource.COMMANDLINE:
        return _inspect_object(config, file.removeprefix(_URL), named, form)
    with _complaining(file), _opened(file) as source:
        stored = StoredInput(source)
        report = options.run_async(lambda: inspection.inspect_input(stored, named=named))
    render.emit(report, form, _body_lines)
    return 0 if report.fault is None else 1


def _inspect_object(config: GatewayConfig, name: str, named: int, form: str) -> int:
    options.require_store(config)
    pair = OBJECT.convert(name, None, None)

    async def work(backend: Backend) -> ObjectReport:
        return await inspection.inspect_object(backend, pair, named=named)

    report: ObjectReport = run_sidecar_tool(work, config)
    render.emit(report, form, _object_lines)
    return 0 if report.body is None or report.body.fault is None else 1


@click.command()
@_input_argument
@_output_option
@click.option("--etag", metavar="ETAG", help="The ETag the store gives the object, not a client's.")
@options.format_option
def index(file: str, output: Path | None, etag: str | None, form: str) -> int:
    """Make the sidecar (range index) of a stored body, from FILE or standard input.

    Frame headers are read, payloads are not. The result belongs beside the object, as KEY.s4index.
    What was made is reported on standard output when --output names a file.
    """
    with _complaining(file), _opened(file) as source:
        stored = StoredInput(source)
        data, report = options.run_async(lambda: offline_index.build_sidecar(stored, etag))
        with _writing(output) as sink:
            sink.write(data)
    if output is not None:
        render.emit(report, form, _index_lines)
    return 0


# --- files


@contextlib.contextmanager
def _complaining(file: str) -> Iterator[None]:
    """One line for what is wrong with the input."""
    name = "standard input" if file == _STDIN else file
    try:
        yield
    except (OfflineError, ObjectError) as error:
        raise click.ClickException(render.visible(f"{name}: {error}")) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        raise click.ClickException(f"{error.filename or name}: {error.strerror}") from error


@contextlib.contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == _STDIN:
        yield sys.stdin.buffer
        return
    with Path(file).open("rb") as source:
        yield source


@contextlib.contextmanager
def _writing(output: Path | None) -> Iterator[BinaryIO]:
    """Standard output, or a new file that takes its name when all of it is right."""
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if output.exists() and not output.is_file():  # a pipe, a device
        with output.open("wb") as sink:
            yield sink
        return
    target = output.resolve()  # a link keeps being one
    unfinished = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with unfinished.open("xb") as sink:
            yield sink
            sink.flush()
            os.fsync(sink.fileno())
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _read_head(path: Path) -> StoredHead:
    with path.open("rb") as file:
        data = file.read(LARGEST_HEAD + 1)
    if len(data) > LARGEST_HEAD:
        raise OfflineError(f"{path}: more than {LARGEST_HEAD} bytes of metadata")
    return parse(data)


# --- tables


def _share(stored: int, original: int) -> str:
    return f"{stored / original:.1%} of the original" if original else "-"


def _body_lines(report: BodyReport) -> Iterable[str]:
    size = render.human_bytes
    yield f"{report.kind}: {size(report.stored_size)} ({report.stored_size} bytes) stored"
    if report.index is not None:
        yield from _sidecar_lines(report)
    if report.kind == inspection.FRAMES:
        share = _share(report.stored_size, report.original_size)
        yield f"original: {size(report.original_size)} ({report.original_size} bytes); {share}"
        for codec, total in report.codecs.items():
            yield (
                f"{codec}: {total.frames} frames, {size(total.original_size)} in "
                f"{size(total.stored_size)}"
            )
        if report.padding.frames:
            yield f"padding: {report.padding.frames} frames, {size(report.padding.stored_size)}"
    if (tail := report.tail) is not None:
        yield (
            f"tail: ETag {tail.etag}, {tail.parts} parts, the first of "
            f"{size(tail.first_part_size)}, original {tail.original_size} bytes"
        )
        if tail.checksum is not None:
            yield "checksum: " + " ".join(tail.checksum)
    if report.listed:
        yield ""
        yield from _frame_lines(report)
    if report.fault is not None:
        yield f"\nFAULT {report.fault}"


def _frame_lines(report: BodyReport) -> list[str]:
    titles = ("offset", "codec", "original at", "original", "stored", "crc32c")
    rows = [
        (each.offset, each.codec, each.original_offset, each.original_size, each.stored_size,
         each.crc32c or "-")
        for each in report.listed
    ]  # fmt: skip
    return render.columns(titles, rows, left=0)


def _sidecar_lines(report: BodyReport) -> Iterable[str]:
    shown = report.index
    assert shown is not None
    yield (
        f"index of {shown.frames} frames, {shown.original_size} original bytes in a body of "
        f"{shown.body_size}"
    )
    size = "-" if shown.source_size is None else shown.source_size
    yield f"bound to ETag {shown.etag or '-'}, {size} bytes"
    if shown.encrypted:
        yield "the body lies in an encryption envelope"
    yield ""
    titles = ("original at", "original", "stored at", "stored")
    rows = [
        (each.original_offset, each.original_size, each.compressed_offset, each.compressed_size)
        for each in shown.entries
    ]
    yield from render.columns(titles, rows, left=0)


def _object_lines(report: ObjectReport) -> Iterable[str]:
    size = render.human_bytes
    yield f"{report.bucket}/{report.key}"
    yield f"stored as: {report.form}, {report.codec}, storage class {report.storage_class}"
    original = "not known" if report.original_size is None else size(report.original_size)
    share = _share(report.stored_size, report.original_size or 0)
    yield f"original: {original}   stored: {size(report.stored_size)} ({share})"
    yield f"ETag: {report.etag}   of the stored bytes: {report.backend_etag}"
    if report.dict_id is not None:
        yield f"dictionary: {report.dict_id}"
    yield f"in the ledger: {'yes' if report.in_ledger else 'no'}"
    yield f"sidecar: {report.sidecar} ({report.sidecar_detail})"
    if report.body is not None:
        yield ""
        yield from _body_lines(report.body)


def _index_lines(report: IndexReport) -> Iterable[str]:
    yield (
        f"{report.sidecar_bytes} bytes: {report.frames} frames, {report.original_size} original "
        f"bytes, bound to {report.stored_size} bytes and ETag {report.etag or '-'}"
    )
