"""`s4 doctor`: what a store can do, what will bite, and the flags to start the gateway with.

exit status   0 a gateway can work over it   1 it cannot, or the store was not reached
              2 the command line or configuration is wrong
"""

import textwrap
from collections.abc import Iterable

import click

from s4gateway.backend.base import Backend
from s4gateway.cli import options, progress, render
from s4gateway.gateway.config import GatewayConfig
from s4gateway.tools.doctor import run
from s4gateway.tools.doctor.findings import Verdict
from s4gateway.tools.doctor.run import DoctorReport

_WIDTH = 96


@click.command()
@click.argument("bucket")
@options.format_option
@options.backend_options()
def doctor(config: GatewayConfig, bucket: str, form: str) -> int:
    """Find out what the store of a BUCKET can do, what will bite, and which flags to use.

    Writes about 12 MB below a prefix of its own that listings of the gateway hide, and removes it
    again, whatever happens. Where Object Lock would retain what is written, nothing is.
    """
    if not bucket or "/" in bucket:
        raise click.UsageError(f"{bucket!r} is no bucket: give BUCKET alone")

    async def work(backend: Backend) -> DoctorReport:
        with progress.bar("doctor") as shown:
            return await run.examine(backend, bucket, progress=shown)

    report = options.run_tool(work, config)
    render.emit(report, form, lambda found: _table(found, config))
    return 0 if report.is_fit else 1


def _table(report: DoctorReport, config: GatewayConfig) -> Iterable[str]:
    yield f"S4 doctor {report.bucket} at {config.endpoint_url}"
    width = max(len(each.name) for each in report.findings)
    for finding in report.findings:
        head = f"{finding.verdict.value:<8}{finding.name:<{width}}  "
        lines = textwrap.wrap(finding.detail, max(_WIDTH - len(head), 40), break_long_words=False)
        yield head + (lines[0] if lines else "")
        for line in lines[1:]:
            yield " " * len(head) + line
    counts = {each: sum(f.verdict is each for f in report.findings) for each in Verdict}
    yield "\n" + ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    if not report.is_fit:
        yield "A gateway cannot work over this bucket."
        return
    flags = " ".join(report.flags)
    yield f"Start the gateway with: s4 --endpoint-url {config.endpoint_url} {flags}".rstrip()
