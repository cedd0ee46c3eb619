"""Answers on their way to the client: results, errors, and bodies that may fail half-way.

Rule: a body that fails after its head was sent ends by breaking the connection, never by a clean
end: `send` returns without the last message and the server resets. HEAD and 304 carry no body.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from s4gateway.gateway.context import HeaderPairs, Relay, Response
from s4gateway.gateway.protocol import HOST_ID
from s4gateway.objects.opening import OpenObject
from s4gateway.s3.errors import S3Error, render

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

XML: Final = "application/xml"


class BrokenAnswer(Exception):
    """The body failed after its head was sent; `reason` is how."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


def error_response(error: S3Error, resource: str, request_id: str) -> Response:
    """Render an S3 error document with the headers its code needs."""
    body = render(error, resource, request_id, HOST_ID)
    headers: HeaderPairs = [("content-type", XML), *error.headers.items()]
    return Response(error.status, headers, body)


def raw_headers(headers: HeaderPairs, request_id: str) -> list[tuple[bytes, bytes]]:
    """Encode headers for ASGI and add the request id."""
    raw = [(name.encode("latin-1"), value.encode()) for name, value in headers]
    raw.append((b"x-amz-request-id", request_id.encode()))
    raw.append((b"x-amz-id-2", HOST_ID.encode()))
    return raw


async def send(
    response: Response, send_message: Send, request_id: str, *, is_head: bool, close: bool
) -> int:
    """Send an answer; return the bytes of body sent. Closes what `response` holds open.

    `close` asks the client to end the connection: its request body was not read to the end.
    Raises what reading the body raises; once the head is gone, BrokenAnswer with it as its reason.
    """
    content = response.content
    headers = list(response.headers)
    if close:
        headers.append(("connection", "close"))
    length = response.length
    bodiless = is_head or response.status in {204, 304}
    if isinstance(content, bytes):
        length = len(content) if length is None else length
    if response.status not in {204, 304} and length is not None:
        headers.append(("content-length", str(length)))
    start = {
        "type": "http.response.start",
        "status": response.status,
        "headers": raw_headers(headers, request_id),
    }
    if isinstance(content, bytes) or bodiless:
        if not isinstance(content, bytes):
            await close_content(content)
            content = b""
        body = b"" if bodiless else content
        await send_message(start)
        await send_message({"type": "http.response.body", "body": body})
        return len(body)
    try:
        return await _send_stream(content, start, send_message)
    finally:
        await close_content(content)


async def _send_stream(
    content: OpenObject | Relay, start: MutableMapping[str, Any], send_message: Send
) -> int:
    """Send a streamed body; its head leaves together with the first piece that is sound."""
    pieces = content.pieces if isinstance(content, Relay) else content.content
    sent = 0
    if isinstance(pieces, bytes):
        await send_message(start)
        await send_message({"type": "http.response.body", "body": pieces})
        return len(pieces)
    try:
        async for piece in pieces:
            if not sent:
                await send_message(start)
            sent += len(piece)
            await send_message({"type": "http.response.body", "body": piece, "more_body": True})
    except ConnectionError:
        raise
    except Exception as error:
        if sent:
            raise BrokenAnswer(error) from error
        raise
    if not sent:
        await send_message(start)
    await send_message({"type": "http.response.body", "body": b""})
    return sent


async def close_content(content: bytes | OpenObject | Relay) -> None:
    """Release what an answer's body holds."""
    if isinstance(content, OpenObject):
        await content.aclose()
    elif isinstance(content, Relay):
        await content.close()
