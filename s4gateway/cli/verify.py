"""`s4 verify`: read every object below a target and say which are damaged.

exit status   0 all that could be compared agrees   1 something is damaged or could not be read
              2 the command line or configuration is wrong
"""

from collections.abc import Iterable

import click

from s4gateway.backend.base import Backend
from s4gateway.cli import options, progress, render
from s4gateway.gateway.config import GatewayConfig
from s4gateway.tools import verify as tool
from s4gateway.tools.target import Target
from s4gateway.tools.verify import Verify, VerifyReport


@click.command()
@click.argument("target", metavar="BUCKET[/PREFIX]", type=options.TARGET)
@click.option("--versions", is_flag=True, help="Read noncurrent versions, too.")
@click.option("--sidecars", is_flag=True, help="Check the range index of each object, too.")
@options.concurrency_option(8)
@options.format_option
@options.backend_options()
def verify(
    config: GatewayConfig,
    target: Target,
    versions: bool,
    sidecars: bool,
    concurrency: int,
    form: str,
) -> int:
    """Read every object whole, and check every frame, size, ETag and checksum that is known.

    Nothing is written. Exits with status 1 when an object is damaged, or could not be read.
    """
    wanted = Verify(target, concurrency, versions, sidecars)

    async def work(backend: Backend) -> VerifyReport:
        with progress.bar("verify") as shown:
            return await tool.verify(backend, wanted, shown)

    report = options.run_tool(work, config)
    render.emit(report, form, _table)
    return 0 if report.is_sound else 1


def _table(report: VerifyReport) -> Iterable[str]:
    yield f"S4 verify {report.target}"
    yield f"objects: {report.objects}" if report.objects else f"no objects under {report.target}"
    counts = [f"{name} {count}" for name, count in report.outcomes.items() if count]
    if counts:
        yield "found: " + ", ".join(counts)
    original, stored = map(render.human_bytes, (report.original_bytes, report.stored_bytes))
    yield f"read and compared: {original}, stored in {stored}"
    if report.compared:
        said = (f"{name} of {count}" for name, count in report.compared.items())
        yield "compared beside the frames: " + ", ".join(said)
    if report.verdicts:
        yield "sidecars: " + ", ".join(f"{each} {n}" for each, n in report.verdicts.items())
    if report.findings:
        yield "\nFindings:"
    for finding in report.findings:
        version = f" (version {finding.version_id})" if finding.version_id else ""
        yield f"- {finding.key}{version} [{finding.outcome}]: {finding.cause}"
    if report.indexes:
        yield "\nSidecars to repair:"
    for index in report.indexes:
        yield f"- {index.key} [{index.op}]: {index.cause}"
