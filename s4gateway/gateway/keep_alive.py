"""Answers to work that may take longer than anybody waits in silence.

Rule: what can be told within seconds is told with its own status. What takes longer is answered 200
at once, with white space every few seconds so that nobody between here and the client takes the
silence for an end, and then with the result or an error document, as S3 itself does.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

from s4gateway.gateway import faults, logs
from s4gateway.gateway.context import RequestContext
from s4gateway.gateway.protocol import HOST_ID
from s4gateway.s3 import errors, xml

PATIENCE: Final = 5.0  # seconds in which an answer keeps its own status
_PULSE: Final = 5.0  # seconds between signs of life after that

_log: Final = logging.getLogger("s4.late")


async def is_done(task: asyncio.Task[Any]) -> bool:
    """Wait for the task as long as an answer may keep its own status."""
    done, _ = await asyncio.wait([task], timeout=PATIENCE)
    return bool(done)


async def late_document(
    context: RequestContext, task: asyncio.Task[Any], document: Callable[[], bytes]
) -> AsyncGenerator[bytes, None]:
    """The declaration, white space while the task runs, and what has become of it.

    `document` makes the result of the finished task; what it raises becomes an error document.
    """
    declaration = xml.DECLARATION.encode()
    yield declaration
    while not task.done():
        await asyncio.wait([task], timeout=_PULSE)
        if not task.done():
            yield b" "
    try:
        finished = document()
    except asyncio.CancelledError:
        raise
    except Exception as error:
        finished = _failure(context, error)
    yield finished.removeprefix(declaration)


def _failure(context: RequestContext, error: Exception) -> bytes:
    """The error document of a failure behind a head that said 200."""
    fault = faults.translate(error, context.caller)
    fields = {"request_id": context.request_id, "path": context.head.raw_path}
    if fault.event == faults.UNEXPECTED:
        _log.error(fault.event, exc_info=error, extra={"fields": fields})
    else:
        event = fault.event or "late answer failed"
        logs.event(_log, logging.WARNING, event, **fields, error=str(error))
    return errors.render(fault.s3, context.head.raw_path, context.request_id, HOST_ID)
