"""`s4 estimate`: how much a bucket would shrink behind a gateway, measured on a sample.

exit status   0 estimated, also that there is nothing   1 the store cannot be read
              2 the command line or configuration is wrong
"""

from collections.abc import Iterable

import click

from s4gateway.backend.base import Backend
from s4gateway.cli import options, progress, render
from s4gateway.gateway.config import GatewayConfig
from s4gateway.tools import estimate as tool
from s4gateway.tools import figures
from s4gateway.tools.estimate_report import Estimate, EstimateReport
from s4gateway.tools.objects import Making
from s4gateway.tools.storage_classes import CLASSES, STANDARD
from s4gateway.tools.target import Target

_TITLES = ("stratum", "objects", "bytes", "sampled", "ratio", "projected", "codecs", "advice")


@click.command()
@click.argument("target", metavar="BUCKET[/PREFIX]", type=options.TARGET)
@click.option(
    "--max-list-keys",
    type=click.IntRange(min=1),
    default=100_000,
    show_default=True,
    metavar="N",
    help="List at most N keys.",
)
@click.option(
    "--samples-per-stratum",
    type=click.IntRange(1, 10_000),
    default=8,
    show_default=True,
    metavar="N",
    help="Objects read of each kind (extension) at first; up to 32 times as many where needed.",
)
@click.option(
    "--max-sample-bytes",
    type=click.IntRange(min=4096),
    default=8 * 1024 * 1024,
    show_default=True,
    metavar="N",
    help="Bytes read of each of them at most.",
)
@click.option("--seed", type=int, default=42, show_default=True, help="Of the draw.")
@click.option(
    "--price-per-gb-month",
    type=options.PRICE,
    default=figures.DEFAULT_PRICE,
    show_default=True,
    metavar="USD",
    help="What 2^30 bytes cost a month.",
)
@click.option(
    "--storage-class",
    type=click.Choice(list(CLASSES)),
    default=STANDARD,
    show_default=True,
    help="Bill as if everything lay in this class.",
)
@click.option(
    "--multipart-part-size",
    "part_size",
    type=click.IntRange(5 * 1024 * 1024, 5 * 1024**3),
    metavar="N",
    help="Estimate for clients that upload in parts of N bytes.",
)
@options.concurrency_option(8)
@options.format_option
@options.backend_options("codec", "zstd_level", "codec_threads", "spool_dir")
def estimate(
    *,
    config: GatewayConfig,
    target: Target,
    max_list_keys: int,
    samples_per_stratum: int,
    max_sample_bytes: int,
    seed: int,
    price_per_gb_month: float,
    storage_class: str,
    part_size: int | None,
    concurrency: int,
    form: str,
) -> int:
    """Estimate what a gateway would store of what lies in a bucket, and what that costs.

    Lists the target, draws objects of each kind, compresses them as the gateway would and projects
    the result. Nothing is written.
    """
    wanted = Estimate(
        target=target,
        making=Making(config.codec_threads, config.zstd_level, config.codec, config.spool_dir),
        max_list_keys=max_list_keys,
        samples_per_stratum=samples_per_stratum,
        max_sample_bytes=max_sample_bytes,
        seed=seed,
        price_per_gb_month=price_per_gb_month,
        storage_class=CLASSES[storage_class],
        part_size=part_size,
        concurrency=concurrency,
    )

    async def work(backend: Backend) -> EstimateReport:
        with progress.bar("samples") as shown:
            return await tool.estimate(backend, wanted, shown)

    render.emit(options.run_tool(work, config), form, _table)
    return 0


def _table(report: EstimateReport) -> Iterable[str]:
    target = f"{report.bucket}/{report.prefix}" if report.prefix else report.bucket
    yield f"S4 estimate {target}"
    if not report.total_objects:
        yield f"no objects under {target}"
        return
    cut = " (listing truncated)" if report.listing_truncated else ""
    total = render.human_bytes(report.total_bytes)
    yield f"objects: {report.total_objects}{cut}   total: {total} ({report.total_bytes} bytes)"
    read = render.human_bytes(report.sampled_bytes_read)
    share = report.sampled_fraction_of_total_bytes
    yield f"sampled: {report.sampled_objects} objects, {read} ({share:.1%} of the listed bytes)"
    yield ""
    yield from render.columns(_TITLES, _rows(report))
    yield ""
    projected, margin = map(render.human_bytes, (report.projected_total_bytes, report.margin_bytes))
    yield f"projected: {projected} ± {margin} (ratio {report.overall_ratio:.3f})"
    if report.storage_class != STANDARD:
        now, then = map(render.human_bytes, (report.billed_bytes, report.projected_billed_bytes))
        yield f"billed ({report.storage_class}): {now} -> {then}"
    yield (
        f"monthly cost: ${report.current_monthly_cost_usd:.2f}"
        f" -> ${report.projected_monthly_cost_usd:.2f}"
        f" (at ${report.price_per_gb_month}/GB-month, storage bytes only)"
    )
    yield ""
    yield from render.columns(("stored in", "objects", "projected"), _bands(report))


def _rows(report: EstimateReport) -> Iterable[tuple[object, ...]]:
    for each in report.strata:
        codecs = ", ".join(f"{name} x{count}" for name, count in each.codecs.items())
        yield (
            each.stratum,
            each.objects,
            render.human_bytes(each.bytes),
            each.sampled,
            f"{each.ratio:.3f}",
            render.human_bytes(each.projected_bytes),
            codecs or "-",
            each.advice,
        )


def _bands(report: EstimateReport) -> Iterable[tuple[object, ...]]:
    lower = 0
    for band in report.sizes_after:
        name = f"from {render.human_bytes(lower)}"
        if band.below is not None:
            name = f"below {render.human_bytes(band.below)}"
            lower = band.below
        yield name, band.objects, render.human_bytes(band.projected_bytes)
