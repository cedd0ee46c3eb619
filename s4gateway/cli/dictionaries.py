"""`s4 train-dict`, `s4 dict-status`, `s4 dict gc`, `s4 dict export`: dictionaries from day two on.

exit status   0 done; nothing is stale   1 it failed, a dictionary does not pay or is stale, or not
              everything could be looked at   2 the command line or configuration is wrong
"""

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from s4gateway.backend.base import Backend
from s4gateway.cli import options, progress, render
from s4gateway.cli.settings import ConfigurationProblem
from s4gateway.codecs import training
from s4gateway.gateway.config import GatewayConfig
from s4gateway.objects import dict_map
from s4gateway.objects.dictionaries import DictionaryError
from s4gateway.tools import dict_export, dict_gc, dict_status, sampling, train_dict
from s4gateway.tools.dict_gc import GcReport
from s4gateway.tools.dict_status import DictStatus
from s4gateway.tools.target import Target
from s4gateway.tools.train_dict import TrainReport
from s4gateway.wire import keys

_DRAW = sampling.Draw()


# --- train-dict


@click.command("train-dict")
@click.argument("target", metavar="BUCKET/PREFIX", type=options.TARGET)
@click.option(
    "--max-samples",
    type=click.IntRange(training.MIN_SAMPLES + 1, 100_000),
    default=_DRAW.samples,
    show_default=True,
    metavar="N",
    help="Objects to read, drawn at random.",
)
@click.option(
    "--min-samples",
    type=click.IntRange(training.MIN_SAMPLES + 1),
    default=train_dict.Options().min_samples,
    show_default=True,
    metavar="N",
    help="With fewer usable objects nothing is trained.",
)
@click.option(
    "--sample-max-bytes",
    type=click.IntRange(1, 1024**2),
    default=_DRAW.max_bytes,
    show_default=True,
    metavar="BYTES",
    help="Larger objects are no samples.",
)
@click.option(
    "--max-dict-bytes",
    type=int,
    default=training.DEFAULT_SIZE,
    show_default=True,
    metavar="BYTES",
    help="Largest dictionary to make, 1 MiB at most.",
)
@click.option(
    "--max-list-keys",
    type=click.IntRange(1),
    default=_DRAW.max_keys,
    show_default=True,
    metavar="N",
    help="Keys to draw from, the first ones of the listing.",
)
@click.option(
    "--seed",
    type=int,
    default=_DRAW.seed,
    show_default=True,
    metavar="N",
    help="Another seed draws other objects.",
)
@click.option("--dry-run", is_flag=True, help="Train and measure, publish nothing.")
@click.option("--force", is_flag=True, help="Publish even a dictionary that does not pay.")
@options.concurrency_option(_DRAW.concurrency)
@options.format_option
@options.backend_options("zstd_level", "codec_threads")
def train(
    config: GatewayConfig,
    target: Target,
    *,
    max_samples: int,
    min_samples: int,
    sample_max_bytes: int,
    max_dict_bytes: int,
    max_list_keys: int,
    seed: int,
    dry_run: bool,
    force: bool,
    concurrency: int,
    form: str,
) -> int:
    """Train a dictionary on objects below BUCKET/PREFIX, and publish it in the bucket.

    Objects that a gateway compressed are decoded and serve as well. A fifth of the samples is kept
    from the trainer; what the dictionary is worth is measured on them, at --zstd-level, and one
    that does not pay is not published. Publishing adds one object, .s4dict/<id>, and changes none:
    the lines that are printed make a gateway use it.
    """
    if min_samples > max_samples:
        raise click.UsageError("--min-samples is more than --max-samples")
    draw = sampling.Draw(max_samples, sample_max_bytes, max_list_keys, seed, concurrency)
    chosen = train_dict.Options(
        draw=draw,
        min_samples=min_samples,
        max_dict_bytes=max_dict_bytes,
        zstd_level=config.zstd_level,
        threads=config.codec_threads,
        force=force,
        dry_run=dry_run,
    )

    async def work(backend: Backend) -> TrainReport:
        with progress.bar("samples") as shown:
            return await train_dict.run(backend, target, chosen, shown)

    report: TrainReport = _run(work, config)
    render.emit(report, form, _trained)
    if report.refused is not None:
        click.echo(f"s4: not published: {report.refused}; --force publishes it", err=True)
        return 1
    return 0


def _trained(report: TrainReport) -> Iterable[str]:
    target = Target(report.bucket, report.prefix)
    done = "already there" if report.already_there else "published"
    state = done if report.published else "not published"
    yield f"S4 train-dict {target}: dictionary {report.dict_id}, {state}"
    truncated = " (listing truncated)" if report.listing_truncated else ""
    yield (
        f"objects: {report.listed_objects}{truncated}   samples: {report.samples} of "
        f"{render.human_bytes(report.sample_bytes)}, {report.decoded_samples} of them decoded"
    )
    if report.skipped:
        reasons = ", ".join(f"{count} {why}" for why, count in report.skipped.items())
        yield f"not used: {reasons}"
    yield (
        f"dictionary: {render.human_bytes(report.dict_bytes)} ({report.dict_bytes} bytes), trained "
        f"on {report.trained_on} samples"
    )
    held = report.held_out
    yield (
        f"expected, from {held.objects} held out: win rate {held.win_rate:.2f}, stored / original "
        f"{held.dict_ratio:.3f} with it, {held.plain_ratio:.3f} without"
    )
    yield ""
    yield f"start the gateway with   {report.flag}"
    yield f"or add to [mappings]     {report.map_line}"


# --- dict-status


@click.command("dict-status")
@click.option(
    "--metrics-url", required=True, metavar="URL", help="The gateway's /metrics, with its scheme."
)
@click.option(
    "--warn-win-rate",
    type=click.FloatRange(0, 1),
    default=dict_status.WARN_WIN_RATE,
    show_default=True,
    metavar="RATE",
    help="Below this share of wins a dictionary is stale; 0 to 1.",
)
@click.option(
    "--window",
    type=options.DURATION,
    metavar="DURATION",
    help="Scrape twice, this far apart, and judge what happened in between, as in 60s.",
)
@options.format_option
def status(metrics_url: str, warn_win_rate: float, window: timedelta | None, form: str) -> int:
    """Tell from a gateway's metrics whether its dictionaries still pay.

    Exits with status 1 when a dictionary is stale, and when the metrics cannot be read. Without
    --window the counters are those since the gateway started: after a rotation a prefix can stay
    stale, and a removed one stays in the list, until the gateway is started anew.
    """
    if warn_win_rate != warn_win_rate:  # noqa: PLR0124 - NaN lies in no range
        raise click.BadParameter("nan is no rate", param_hint="'--warn-win-rate'")
    seconds = None if window is None else window.total_seconds()
    try:
        report = options.run_async(lambda: dict_status.run(metrics_url, warn_win_rate, seconds))
    except dict_status.ScrapeError as error:
        raise click.ClickException(str(error)) from error
    render.emit(report, form, _status)
    for warning in report.warnings:
        click.echo(f"WARN {_plain(warning)}", err=True)
    return int(report.stale)


_TITLES = ("PREFIX", "WIN", "LOSS", "WIN-RATE", "ORIGINAL-BYTES", "DICT-BYTES", "DICT-RATIO", "")


def _status(report: DictStatus) -> Iterable[str]:
    rows = [
        (
            _plain(each.prefix),
            each.wins,
            each.losses,
            f"{each.win_rate:.2f}",
            each.original_bytes,
            each.dict_bytes,
            f"{each.dict_ratio:.3f}",
            "STALE" if each.stale else "",
        )
        for each in report.prefixes
    ]
    if rows:
        yield from render.columns(_TITLES, rows)
    yield f"lazy dict fetches: ok={report.dict_fetch_ok} err={report.dict_fetch_err}"


def _plain(text: str) -> str:
    """A stranger's text without what would move a terminal's cursor."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


# --- dict gc, dict export


@click.group("dict")
def dictionary() -> None:
    """Look after the dictionaries of a bucket."""


@dictionary.command("gc")
@click.argument("bucket")
@click.option("--execute", is_flag=True, help="Delete; without it, only look. Needs --older-than.")
@click.option(
    "--older-than",
    type=options.DURATION,
    metavar="DURATION",
    help="Delete only dictionaries published longer ago than this, as in 30d.",
)
@click.option(
    "--keep", multiple=True, metavar="ID", help="Never delete this dictionary; repeatable."
)
@options.concurrency_option(dict_gc.Options().concurrency)
@options.format_option
@options.backend_options("zstd_dict", "zstd_dict_map")
def collect(
    config: GatewayConfig,
    bucket: str,
    execute: bool,
    older_than: timedelta | None,
    keep: tuple[str, ...],
    concurrency: int,
    form: str,
) -> int:
    """Find dictionaries of BUCKET that no object needs; delete old ones if asked to.

    Asks for the metadata of every object, and of every noncurrent version. Nothing is deleted
    unless all of it could be read. Dictionaries that --zstd-dict and --zstd-dict-map name are kept:
    give those of every gateway on the bucket, for what is mapped may be needed any moment.
    """
    _check_bucket(bucket)
    if execute and older_than is None:
        raise click.UsageError("--execute needs --older-than: say how old, as in 30d")
    kept = frozenset({*_checked_ids(keep), *_mapped(config, bucket)})
    chosen = dict_gc.Options(execute, older_than, kept, concurrency)

    async def work(backend: Backend) -> GcReport:
        with progress.bar("objects") as shown:
            return await dict_gc.run(backend, bucket, chosen, shown)

    report: GcReport = _run(work, config)
    render.emit(report, form, _collected)
    return int(report.failed > 0)


def _mapped(config: GatewayConfig, bucket: str) -> Iterable[str]:
    """Ids that the gateway's own settings map in this bucket."""
    try:
        flags = dict_map.parse_flags(config.zstd_dict)
        file = dict_map.EMPTY
        if config.zstd_dict_map is not None:
            file = dict_map.load(config.zstd_dict_map)
    except dict_map.DictMapError as error:
        raise ConfigurationProblem(str(error)) from error
    return [each.dict_id for each in (*flags.mappings, *file.mappings) if each.bucket == bucket]


def _collected(report: GcReport) -> Iterable[str]:
    mode = "execute" if report.executed else "dry-run (pass --execute to delete)"
    yield f"S4 dict gc {report.bucket} — {mode}"
    whole = "" if report.complete else ", not all of them could be read"
    versions = (
        "" if report.versioning is None else f" and versions (versioning {report.versioning})"
    )
    yield f"objects{versions} looked at: {report.scanned}{whole}"
    if report.dictionaries:
        yield ""
        rows = [
            (
                each.id,
                each.state,
                "-" if each.modified is None else each.modified.isoformat(timespec="seconds"),
                render.human_bytes(each.size),
                each.references,
            )
            for each in report.dictionaries
        ]
        yield from render.columns(("DICTIONARY", "STATE", "PUBLISHED", "SIZE", "OBJECTS"), rows, 3)
        yield ""
    yield f"deleted: {report.deleted}, {render.human_bytes(report.deleted_bytes)}"
    yield f"failed: {report.failed}"
    if report.failures:
        yield "\nFailures:"
    for failure in report.failures:
        yield f"- {_plain(failure.key)} [{failure.op}]: {_plain(failure.cause)}"


@dictionary.command("export")
@click.argument("bucket")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option(
    "--to",
    "directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    show_default=True,
    metavar="DIR",
    help="Directory for the files, which are named <id>.dict.",
)
@options.format_option
@options.backend_options()
def export(
    config: GatewayConfig, bucket: str, ids: tuple[str, ...], directory: Path, form: str
) -> int:
    """Copy dictionaries of BUCKET, all or those with the given IDs, into files.

    Each is verified, and no file is overwritten. With `zstd -D <id>.dict -d` an object that needs
    it can be read without a gateway, once the 28 bytes of its frame header are cut off.
    """
    _check_bucket(bucket)
    wanted = _checked_ids(ids)

    async def work(backend: Backend) -> dict_export.ExportReport:
        return await dict_export.run(backend, bucket, directory, wanted)

    report: dict_export.ExportReport = _run(work, config)
    render.emit(report, form, _exported)
    for each in report.dictionaries:
        if each.problem is not None:
            click.echo(f"s4: {_plain(each.problem)}", err=True)
    return int(report.failed > 0)


def _exported(report: dict_export.ExportReport) -> Iterable[str]:
    for each in report.dictionaries:
        if each.problem is None:
            state = "" if each.is_new else ", was there already"
            yield f"{each.path}: {render.human_bytes(each.size)}{state}"


# --- shared


def _check_bucket(bucket: str) -> None:
    if not bucket or "/" in bucket:
        raise click.UsageError(f"{bucket!r} is no bucket: give BUCKET alone")


def _checked_ids(ids: tuple[str, ...]) -> tuple[str, ...]:
    wrong = [each for each in ids if not keys.is_dictionary_id(each)]
    if wrong:
        named = ", ".join(map(repr, wrong))
        raise click.UsageError(f"{named}: an id is 16 lower-case hex digits")
    return ids


def _run(work: options.Work[Any], config: GatewayConfig) -> Any:
    """Run a tool; what it refuses is one line."""
    try:
        return options.run_tool(work, config)
    except (training.TrainingError, DictionaryError) as error:
        raise click.ClickException(_plain(str(error))) from error
