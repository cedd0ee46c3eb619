"""Work that is finished although whoever began it is cancelled meanwhile.

Rule: the cancellation is not swallowed, which would break `asyncio.timeout` and task groups; it is
raised when the work has ended.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


async def to_the_end(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Return what `work` returns, or raise what it raises, never before it has ended.

    A cancellation meanwhile is raised afterwards: the caller is told the truth about itself, and
    what was begun is finished.
    """
    task = asyncio.get_running_loop().create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled() and (failure := task.exception()) is not None:
        _log.warning("a write whose caller was cancelled failed: %s", failure)
    raise cancelled
