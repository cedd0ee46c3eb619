"""A progress bar on standard error, where a person looks; silence where a program does."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from s4gateway.tools.progress import SILENT, Progress


@contextmanager
def bar(label: str) -> Iterator[Progress]:
    """Show how far work is while the block runs; the total grows as more is found."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield SILENT
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[objects]}"),
        DownloadColumn(binary_units=True),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        yield _Bar(bars, label)


class _Bar:
    """Objects in words, bytes as the bar."""

    def __init__(self, bars: Bars, label: str) -> None:
        self._bars = bars
        self._task = bars.add_task(label, total=0, objects="")
        self._found = self._done = 0
        self._size = 0

    def found(self, objects: int, size: int = 0) -> None:
        self._found += objects
        self._size += size
        self._show(0)

    def done(self, objects: int, size: int = 0) -> None:
        self._done += objects
        self._show(size)

    def _show(self, advance: int) -> None:
        self._bars.update(
            self._task,
            advance=advance,
            total=self._size,
            objects=f"{self._done}/{self._found} objects",
        )
