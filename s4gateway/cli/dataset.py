"""`s4 dataset init | ls | tail | backfill | doctor`: append-only datasets from a shell.

The store is spoken to with the credentials boto3 finds, directly or through a gateway.

exit status   0 done; the dataset is sound   1 it failed, or committed rows are missing
              2 the command line is wrong    130 interrupted, as `tail --follow` always is
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from s4gateway.cli import options, progress, render
from s4gateway.tools.target import Target

if TYPE_CHECKING:
    from s4gateway.s3store import S3Target, StreamEntry
    from s4gateway.s3store.change_stream import ChangeStream
    from s4gateway.tools.dataset import Backfilled, Contents, Examination

_PAGE: Final = 1000
_PAUSE: Final = 1.0  # seconds between two looks at the end of the stream
_MISSING: Final = "datasets need pyarrow, boto3 and more: pip install 's4gateway[s3store]'"

_Result = TypeVar("_Result")
_Command = Callable[..., Any]


class _Dataset(click.ParamType):  # type: ignore[type-arg]
    name = "dataset"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Target:
        target: Target = options.TARGET.convert(value, param, ctx)
        if not target.prefix:
            self.fail(f"{value!r} has no prefix: give BUCKET/PREFIX", param, ctx)
        return target


def _store_options(command: _Command) -> _Command:
    """Add the argument that names the dataset, and where its store is."""
    for decorate in (
        click.option(
            "--region", envvar="S4_REGION", metavar="NAME", help="Region.  [env: S4_REGION]"
        ),
        click.option(
            "--endpoint-url",
            envvar="S4_ENDPOINT_URL",
            metavar="URL",
            help="The S3 server or gateway; without it AWS.  [env: S4_ENDPOINT_URL]",
        ),
        click.argument("dataset", metavar="BUCKET/PREFIX", type=_Dataset()),
    ):
        command = decorate(command)
    return command


@click.group()
def dataset() -> None:
    """Make, look into and check append-only datasets (s4gateway.s3store)."""


@dataset.command()
@_store_options
@click.option(
    "--commit-timeout", default="15s", show_default=True, help="How long a commit may take."
)
@click.option(
    "--max-clock-skew", default="1s", show_default=True, help="How far clocks may be apart."
)
def init(
    dataset: Target,
    endpoint_url: str | None,
    region: str | None,
    commit_timeout: str,
    max_clock_skew: str,
) -> None:
    """Make a dataset: store its two durations, which never change afterwards.

    Repeating it with the same durations is harmless, with others it is refused.
    """
    with _client(endpoint_url, region) as client:
        from s4gateway.s3store import init_dataset  # noqa: PLC0415 - nobody's --help waits for it

        work = init_dataset(
            client,
            dataset.bucket,
            dataset.prefix,
            commit_timeout=commit_timeout,
            max_clock_skew=max_clock_skew,
        )
        _run(lambda: work)
    click.echo(f"{dataset}: commit-timeout {commit_timeout}, max-clock-skew {max_clock_skew}")


@dataset.command("ls")
@_store_options
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@options.format_option
def ls(
    dataset: Target,
    endpoint_url: str | None,
    region: str | None,
    patterns: tuple[str, ...],
    form: str,
) -> None:
    """List partitions with their committed files; PATTERN as in 'period=2026-03*/customer=*'."""

    async def work(target: "S3Target") -> "Contents":
        from s4gateway.tools.dataset import contents  # noqa: PLC0415

        return await contents(target, patterns)

    render.emit(_over(dataset, endpoint_url, region, work), form, _contents)


def _contents(found: "Contents") -> Iterable[str]:
    yield from render.columns(
        ("partition", "files", "size", "newest"),
        [
            (each.key, each.files, render.human_bytes(each.size), f"{each.newest:%F %T}")
            for each in found.partitions
        ],
    )
    size = render.human_bytes(found.size)
    yield f"{len(found.partitions)} partitions, {found.files} files, {size}"


@dataset.command()
@_store_options
@click.option("--since", type=options.DURATION, help="How far back to begin, as in 2h.")
@click.option("--follow", "-f", is_flag=True, help="Wait for more; Control-C ends it.")
@options.format_option
def tail(
    dataset: Target,
    endpoint_url: str | None,
    region: str | None,
    since: timedelta | None,
    *,
    follow: bool,
    form: str,
) -> None:
    """Print the change stream: one line for each commit, one JSON object a line with json.

    An entry appears when it is final, which is the dataset's settle window after its write.
    """

    async def work(target: "S3Target") -> None:
        from s4gateway.s3store.change_stream import ChangeStream  # noqa: PLC0415

        await _tail(ChangeStream(target), since, form, follow=follow)

    _over(dataset, endpoint_url, region, work)


async def _tail(
    stream: "ChangeStream", since: timedelta | None, form: str, *, follow: bool
) -> None:
    offset = None if since is None else stream.offset_at(datetime.now(UTC) - since)
    while True:
        entries, reached = await stream.poll(offset, _PAGE, None)
        for entry in entries:
            click.echo(_line(entry, form))
        if reached == (offset or ""):
            if not follow:
                return
            await asyncio.sleep(_PAUSE)
        offset = reached


def _line(entry: "StreamEntry", form: str) -> str:
    if form == "json":
        return json.dumps(render.as_json(entry))
    moment = entry.inserted_at.isoformat(timespec="milliseconds")
    return render.visible(f"{moment}  {entry.row_count:>9} rows  {entry.key}  {entry.data_path}")


@dataset.command()
@_store_options
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@click.option("--view", required=True, metavar="NAME", help="The view's name.")
@click.option(
    "--column",
    "columns",
    required=True,
    multiple=True,
    metavar="NAME",
    help="A column of the view, in its order.  [repeatable]",
)
@click.option(
    "--time-layout", metavar="PATTERN", help="How times are written: a strftime pattern, rfc3339."
)
@click.option(
    "--until",
    type=click.DateTime(["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"]),
    help="Leave out files stored from then on; in UTC.",
)
@click.option("--skip-existing", is_flag=True, help="List the view first, store what it lacks.")
@options.format_option
def backfill(  # noqa: PLR0917 - click passes them by name
    dataset: Target,
    endpoint_url: str | None,
    region: str | None,
    patterns: tuple[str, ...],
    view: str,
    columns: tuple[str, ...],
    time_layout: str | None,
    until: datetime | None,
    *,
    skip_existing: bool,
    form: str,
) -> None:
    """Store the markers of a view for rows that were written before the view existed.

    For views whose columns are columns of the data files; a view with a function of its own is
    filled by backfill_view() in Python. Safe beside writers, and safe to repeat.
    """

    async def work(target: "S3Target") -> "Backfilled":
        from s4gateway.s3store import Layout, MaterializedView  # noqa: PLC0415
        from s4gateway.tools import dataset as tool  # noqa: PLC0415

        written = Layout.RFC3339 if time_layout == "rfc3339" else time_layout
        definition: MaterializedView[Any] = MaterializedView(view, columns, layout=Layout(written))
        with progress.bar("files") as shown:
            return await tool.backfill(
                target,
                definition,
                patterns,
                until=until and until.replace(tzinfo=UTC),
                skip_existing=skip_existing,
                progress=shown,
            )

    render.emit(_over(dataset, endpoint_url, region, work), form, _backfilled)


def _backfilled(done: "Backfilled") -> Iterable[str]:
    stats = done.stats
    yield (
        f"view {done.view}: {stats.markers} markers stored for {stats.records} rows in"
        f" {stats.data_objects} files"
    )


@dataset.command()
@_store_options
@options.format_option
def doctor(dataset: Target, endpoint_url: str | None, region: str | None, form: str) -> int:
    """Check a dataset by its names: what is committed, what is left over, what is damaged.

    Lists every key below the prefix and fetches no data. What failed writes left behind is told and
    is harmless; a commit without its data file, or a ref that cannot be read, is status 1.
    """

    async def work(target: "S3Target") -> "Examination":
        from s4gateway.tools.dataset import examine  # noqa: PLC0415

        with progress.bar("keys") as shown:
            return await examine(target, shown)

    found = _over(dataset, endpoint_url, region, work)
    render.emit(found, form, _examined)
    return 0 if found.is_sound else 1


def _examined(found: "Examination") -> Iterable[str]:
    yield f"S4 dataset {found.bucket}/{found.prefix}"
    yield f"timing: commit within {found.commit_timeout:g} s, clocks {found.max_clock_skew:g} s"
    yield f"partitioned by: {', '.join(found.parts) or 'nothing yet'}"
    yield f"{found.data_files} data files, {found.commits} commits, {found.refs} stream entries"
    for view, count in found.views.items():
        yield f"view {view}: {count} markers"
    for what, odd in (
        ("uncommitted data files (left by failed writes)", found.uncommitted),
        ("tokens with several attempts (one counts)", found.several_attempts),
        ("objects that are not the dataset's", found.foreign),
        ("DAMAGE: commits without their data file", found.without_data),
        ("DAMAGE: refs that cannot be read", found.malformed_refs),
    ):
        if odd.count:
            yield f"{odd.count} {what}, as {', '.join(odd.examples)}"
    yield "The dataset is sound." if found.is_sound else "The dataset is damaged."


# --- the way to the store


@contextmanager
def _client(endpoint_url: str | None, region: str | None) -> Iterator[Any]:
    try:
        from s4gateway.s3store import new_client  # noqa: PLC0415 - nobody's --help waits for it
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{_MISSING} ({error})") from error
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    try:
        client = new_client(endpoint_url, region_name=region)
    except (BotoCoreError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    try:
        yield client
    finally:
        client.close()


def _over(
    dataset: Target,
    endpoint_url: str | None,
    region: str | None,
    work: Callable[["S3Target"], Awaitable[_Result]],
) -> _Result:
    with _client(endpoint_url, region) as client:
        from s4gateway.tools.dataset import opened  # noqa: PLC0415

        async def main() -> _Result:
            async with opened(client, dataset.bucket, dataset.prefix) as target:
                return await work(target)

        return _run(main)


def _run(work: Callable[[], Awaitable[_Result]]) -> _Result:
    """Run the work; what is wrong with patterns and definitions is status 2, all else status 1."""
    from s4gateway.s3store import (  # noqa: PLC0415
        ConfigError,
        KeyPatternError,
        S3StoreError,
        TimingConfigError,
    )

    try:
        return options.run_async(work)
    except S3StoreError as error:
        mistake = isinstance(error, ConfigError | KeyPatternError)
        if mistake and not isinstance(error, TimingConfigError):
            raise click.UsageError(str(error)) from error
        raise click.ClickException(str(error)) from error
