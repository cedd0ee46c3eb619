"""`s4 parquet-recompact`: compress the pages of Parquet files with zstd, in place.

exit status   0 done, or the dry run came to its end   1 something failed, or was refused
              2 the command line or configuration is wrong, or pyarrow is not installed
"""

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import click

from s4gateway.backend.base import Backend
from s4gateway.cli import options, render, rewriting
from s4gateway.cli.settings import ConfigurationProblem
from s4gateway.gateway.config import GatewayConfig
from s4gateway.tools import parquet_recompact as recompacting
from s4gateway.tools.parquet_recompact import ParquetParams, ParquetReport
from s4gateway.tools.progress import Progress
from s4gateway.tools.target import Target

_MISSING: Final = "parquet-recompact needs pyarrow: pip install 's4gateway[parquet]'"


@click.command("parquet-recompact")
@click.argument("target", metavar="BUCKET[/PREFIX]", type=options.TARGET)
@click.option(
    "--target-zstd-level",
    type=click.IntRange(1, 22),
    default=3,
    show_default=True,
    metavar="1-22",
    help="Level to compress pages at.",
)
@click.option(
    "--min-gain-percent",
    type=click.FloatRange(0, 100),
    default=3.0,
    show_default=True,
    metavar="PERCENT",
    help="Replace only what becomes smaller by so much.",
)
@click.option(
    "--suffix",
    default=".parquet",
    show_default=True,
    help="Look only at keys that end with it; empty for all keys.",
)
@click.option(
    "--max-row-group-bytes",
    type=click.IntRange(1),
    metavar="BYTES",
    help="Leave files with larger row groups, before compression, alone. Default: none is.",
)
@click.option(
    "--tolerate-value-mismatch",
    is_flag=True,
    help="Count files that pyarrow would read other values from as skipped, not as failed.",
)
@click.option(
    "--table-files",
    is_flag=True,
    help="Rewrite files of Iceberg, Delta and Hudi tables, too, whose metadata hold their lengths.",
)
@click.option(
    "--state-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Remember what gained too little, and do not read it again.",
)
@click.option("--allow-lossy-physical-rewrite", is_flag=True, hidden=True)
@rewriting.rewriting_options
@options.format_option
@options.backend_options(*rewriting.SETTINGS)
def parquet_recompact(
    config: GatewayConfig,
    target: Target,
    *,
    target_zstd_level: int,
    min_gain_percent: float,
    suffix: str,
    max_row_group_bytes: int | None,
    tolerate_value_mismatch: bool,
    table_files: bool,
    state_file: Path | None,
    allow_lossy_physical_rewrite: bool,
    form: str,
    **chosen: Any,
) -> int:
    """Compress the pages of Parquet files with zstd; they stay Parquet files.

    Pages are decompressed and compressed again, and nothing else changes: schema, row groups,
    statistics, page indexes, Bloom filters, sort order and metadata stay as they are. Each file is
    read back and compared before it replaces the version it was made of. ETag and length change.
    Without --execute everything is done but the writes.
    """
    del allow_lossy_physical_rewrite  # scripts written for other tools give it; nothing is lost
    if importlib.util.find_spec("pyarrow") is None:
        raise ConfigurationProblem(_MISSING)
    params = ParquetParams(
        target=target,
        zstd_level=target_zstd_level,
        min_gain_percent=min_gain_percent,
        suffix=suffix,
        max_row_group_bytes=max_row_group_bytes,
        tolerate_value_mismatch=tolerate_value_mismatch,
        table_files=table_files,
        state_file=state_file,
        **rewriting.common(config, **chosen),
    )

    async def work(backend: Backend, shown: Progress) -> ParquetReport:
        return await recompacting.parquet_recompact(backend, params, shown)

    report = rewriting.run("parquet-recompact", work, config)
    render.emit(report, form, parquet_table)
    return 1 if report.failed else 0


def parquet_table(report: ParquetReport) -> Iterable[str]:
    """The lines of a report for people."""
    yield from rewriting.head("parquet-recompact", report)
    older = "" if report.older_than is None else f"   older than: {report.older_than}"
    yield (
        f"zstd level: {report.target_zstd_level}   minimum gain: {report.min_gain_percent:g} %"
        f"   suffix: {report.suffix or '(any)'}{older}"
    )
    done = "would recompact" if report.dry_run else "recompacted"
    yield rewriting.changed(
        done, report.recompacted, report.recompacted_bytes_before, report.recompacted_bytes_after
    )
    yield from rewriting.left(report)
    if report.remembered:
        yield f"known from earlier runs: {report.remembered}"
    yield from rewriting.named("Refused", report.refused)
    yield from rewriting.failures(report)
