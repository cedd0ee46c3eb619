"""`s4 savings`: what compression saves, by the ledger's counters or by a look at the bucket.

exit status   0 reported, also that nothing was counted   1 a state file or the store cannot be
              read, or not all of the bucket   2 the command line or configuration is wrong
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import click

from s4gateway.backend.base import Backend
from s4gateway.cli import options, progress, render
from s4gateway.gateway.config import GatewayConfig
from s4gateway.state.files import StateFileError
from s4gateway.tools import figures, rescan, savings
from s4gateway.tools.figures import BucketSavings, Pricing
from s4gateway.tools.rescan import LedgerMoved, Rescan, RescanReport
from s4gateway.tools.savings import SavingsReport
from s4gateway.tools.storage_classes import CLASSES, STANDARD, Limits, StorageClass
from s4gateway.tools.target import Target

_TITLES: Final = ("bucket", "objects", "original", "stored", "saved", "saved %")


@click.command("savings")
@click.option(
    "--state-file",
    "state_files",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="A gateway's --savings-ledger-state-file; repeatable, they add up.",
)
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
    help="Bill as if everything lay in this class.  [default: STANDARD, or as found by --rescan]",
)
@click.option(
    "--minimum-billed-bytes",
    type=click.IntRange(min=1),
    metavar="N",
    help="Bill smaller objects as N bytes, for stores that do.",
)
@click.option(
    "--rescan",
    "target",
    type=options.TARGET,
    metavar="BUCKET[/PREFIX]",
    help="Look at every object there, and compare with the state files if there are any.",
)
@click.option(
    "--write",
    is_flag=True,
    help="Set the bucket's counters in the one state file to what is found.",
)
@options.concurrency_option(32)
@options.format_option
@options.backend_options(required=False)
def savings_command(
    *,
    config: GatewayConfig,
    state_files: tuple[Path, ...],
    price_per_gb_month: float,
    storage_class: str | None,
    minimum_billed_bytes: int | None,
    target: Target | None,
    write: bool,
    concurrency: int,
    form: str,
) -> int:
    """Report how much less is stored than was written, and what that saves a month.

    From the ledger's state files (nothing is changed, the gateway may run), or with --rescan from
    the bucket itself, which is asked about every object. All notes below the figures belong to
    them. Exits with status 1 when a state file cannot be read or an object not be looked at.
    """
    storage = _storage_class(storage_class, minimum_billed_bytes)
    if target is None:
        if write or not state_files:
            raise click.UsageError(
                "--write needs --rescan" if write else "give --state-file, --rescan or both"
            )
        pricing = Pricing(price_per_gb_month, storage or CLASSES[STANDARD])
        render.emit(_from_files(state_files, pricing), form, _table)
        return 0
    try:
        order = Rescan(target, price_per_gb_month, storage, state_files, write, concurrency)
    except ValueError as error:
        raise click.UsageError(f"--write: {error}") from error
    options.require_store(config)
    report = _rescanned(order, config)
    render.emit(report, form, _rescan_table)
    return 1 if report.failed else 0


def _storage_class(name: str | None, minimum: int | None) -> StorageClass | None:
    if name is not None and minimum is not None:
        raise click.UsageError("--storage-class, --minimum-billed-bytes: give one of them")
    if minimum is not None:
        return StorageClass(f"at least {minimum} bytes", minimum)
    return None if name is None else CLASSES[name]


def _from_files(paths: tuple[Path, ...], pricing: Pricing) -> SavingsReport:
    try:
        return savings.report(savings.load(paths), pricing)
    except (StateFileError, savings.SameFileTwice) as error:
        raise _refused(error) from error


def _rescanned(order: Rescan, config: GatewayConfig) -> RescanReport:
    async def work(backend: Backend) -> RescanReport:
        with progress.bar("objects") as shown:
            return await rescan.rescan(backend, order, shown)

    try:
        return options.run_tool(work, config)
    except (StateFileError, savings.SameFileTwice, LedgerMoved) as error:
        raise _refused(error) from error


def _refused(error: Exception) -> click.ClickException:
    if isinstance(error, savings.SameFileTwice):
        return click.UsageError(f"--state-file: {error}")
    return click.ClickException(f"{type(error).__name__}: {error}")


# --- the ledger's report


def _table(report: SavingsReport) -> Iterable[str]:
    yield "S4 measured savings (gateway-written objects)"
    billed = report.storage_class != STANDARD
    if report.buckets:
        yield from _rows(report.buckets, billed=billed)
    else:
        yield "no entries: nothing has been counted"
    yield (
        f"total: {report.total_objects} objects,"
        f" {render.human_bytes(report.total_original_bytes)} original"
        f" -> {render.human_bytes(report.total_stored_bytes)} stored"
        f" ({_percent(report.total_savings_ratio)} saved, {report.total_saved_bytes} bytes)"
    )
    if billed:
        yield (
            f"billed ({report.storage_class}):"
            f" {_limits(report.total_billed_original_bytes)} without a gateway"
            f" -> {_limits(report.total_billed_stored_bytes)}"
        )
    money = _money(report.total_monthly_savings_usd, report.total_monthly_savings_usd_at_most)
    yield f"monthly savings: {money} (at ${report.price_per_gb_month}/GB-month, storage bytes only)"


def _rows(rows: Iterable[BucketSavings], *, billed: bool) -> list[str]:
    titles: tuple[str, ...] = (*_TITLES, *(("billed",) if billed else ()), "$/month")
    return render.columns(titles, [_row(each, billed=billed) for each in rows])


def _row(each: BucketSavings, *, billed: bool) -> tuple[Any, ...]:
    return (
        each.bucket,
        each.objects,
        render.human_bytes(each.original_bytes),
        render.human_bytes(each.stored_bytes),
        render.human_bytes(each.saved_bytes),
        _percent(each.savings_ratio),
        *((_limits(each.billed_stored_bytes),) if billed else ()),
        _money(each.monthly_savings_usd, each.monthly_savings_usd_at_most),
    )


def _percent(ratio: float) -> str:
    return f"{ratio * 100:.1f}%"


def _limits(count: Limits) -> str:
    least, most = render.human_bytes(count.at_least), render.human_bytes(count.at_most)
    return least if least == most else f"{least} to {most}"


def _money(least: float, most: float) -> str:
    low, high = f"${least:.2f}", f"${most:.2f}"
    return low if low == high else f"{low} to {high}"


# --- the scan's report


def _rescan_table(report: RescanReport) -> Iterable[str]:
    state = report.versioning or "off"
    yield f"S4 rescan {report.target} (versioning: {state}, billed: {report.storage_class})"
    yield from _rows((report.measured,), billed=True)
    yield f"of the stored: {report.sidecars} sidecars, {report.sidecar_bytes} bytes"
    yield (
        f"not counted: {report.unaccounted_objects} objects, {report.unaccounted_bytes} bytes;"
        f" {report.unaccounted_sidecars} sidecars, {report.unaccounted_sidecar_bytes} bytes;"
        f" {report.internal_objects} dictionaries and upload records,"
        f" {report.internal_bytes} bytes"
    )
    yield from _classes(report)
    yield from _comparison(report)
    if report.failures:
        yield "\nFailures:"
    for failure in report.failures:
        yield f"- {failure.key} [{failure.op}]: {failure.cause}"


def _classes(report: RescanReport) -> Iterable[str]:
    if len(report.storage_classes) > 1:
        yield ""
        yield from render.columns(
            ("storage class", "objects", "stored", "billed"),
            [
                (
                    each.storage_class,
                    each.objects,
                    render.human_bytes(each.stored_bytes),
                    render.human_bytes(each.billed_bytes),
                )
                for each in report.storage_classes
            ],
        )


def _comparison(report: RescanReport) -> Iterable[str]:
    found, counted, difference = report.measured, report.ledger, report.difference
    if counted is None or difference is None:
        return
    yield ""
    yield from render.columns(
        ("", "objects", "original bytes", "stored bytes"),
        [
            ("found", found.objects, found.original_bytes, found.stored_bytes),
            ("ledger", counted.objects, counted.original_bytes, counted.stored_bytes),
            (
                "difference",
                f"{difference.objects:+d}",
                f"{difference.original_bytes:+d}",
                f"{difference.stored_bytes:+d}",
            ),
        ],
    )
    if report.written:
        yield "the ledger was set to what was found"
    elif difference.none:
        yield "the ledger is right to the byte"
    else:
        yield "the ledger was left as it is (--write sets it to what was found)"
