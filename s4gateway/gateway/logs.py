"""What the process says about itself: one event name and fields a line, on stderr, no secrets.

Two renderings of one record: `pretty` for a terminal, `json` for a collector. Every line passes
one redaction, so a signature inside a URL, inside a message, inside a traceback is gone whoever
wrote it. The access line is built for cost: a record without a stack walk, and no redaction unless
the line can hold something to redact.

    s4.access     one line a request, INFO
    s4.*          the gateway's own events
    anything else warnings of libraries
"""

import asyncio
import contextlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, TextIO

ACCESS: Final = logging.getLogger("s4.access")

HIDDEN: Final = "[hidden]"

_SECRET_FIELDS: Final = frozenset(
    (
        "authorization", "secret", "secret_key", "secret_access_key", "session_token", "token",
        "password", "signature", "x-amz-signature", "x-amz-security-token",
        "x-amz-server-side-encryption-customer-key",
        "x-amz-copy-source-server-side-encryption-customer-key",
    )
)  # fmt: skip

# Quotes may stand escaped: the text may have been rendered as JSON before.
_HEADER: Final = re.compile(
    r"""(?i)\b(authorization\\*["']?\s*[:=]\s*b?\\*["']?)(?!\[hidden\])[^"'\\\r\n]+"""
    r"""|\b(AWS4-HMAC-SHA256\s+Credential=)[^"'\\\r\n]+"""
)
_PAIR: Final = re.compile(
    r"""(?i)((?:signature|security-token|session_?token|secret(?:_?access)?(?:_?key)?"""
    r"""|encryption-customer-key)\\*["']?\s*(?:=|%3D|:)\s*b?\\*["']?)"""
    r"""(?!\[hidden\])[^\s"'&,;)}\\]+"""
)

_request_counter = int.from_bytes(os.urandom(8), "big")


class Format(StrEnum):
    """How a line looks."""

    PRETTY = "pretty"
    JSON = "json"


def new_request_id() -> str:
    """Sixteen upper-case hex digits, as S3 makes them; unique in this process, not a secret.

    >>> len(new_request_id())
    16
    """
    global _request_counter  # noqa: PLW0603 - one sequence a process, begun at a random place
    _request_counter = (_request_counter + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    return f"{_request_counter:016X}"


def redact(text: str) -> str:
    """Replace what must not be written: credentials, signatures, tokens, customer keys.

    >>> redact("GET /b/k?X-Amz-Signature=0af3&x-id=GetObject")
    'GET /b/k?X-Amz-Signature=[hidden]&x-id=GetObject'
    """
    lower = text.lower()
    # Plain searches first: most lines hold none of these words, and the expressions are slow.
    if not (
        "signature" in lower
        or "authorization" in lower
        or "token" in lower
        or "secret" in lower
        or "customer-key" in lower
        or "aws4-hmac" in lower
    ):
        return text
    text = _HEADER.sub(lambda match: (match[1] or match[2]) + HIDDEN, text)
    return _PAIR.sub(lambda match: match[1] + HIDDEN, text)


def event(log: logging.Logger, level: int, name: str, /, **fields: object) -> None:
    """Log one event with its fields; `exc_info=True` adds the traceback."""
    if log.isEnabledFor(level):
        exc_info = fields.pop("exc_info", None)
        log.log(level, name, exc_info=bool(exc_info), extra={"fields": fields})


def access(fields: Mapping[str, object]) -> None:
    """Log one finished request. The fields' order is the line's order.

    Once `configure` has said where lines go, this one goes there directly: a record and its way
    through the logging tree would cost more than the line.
    """
    if ACCESS.disabled or not ACCESS.isEnabledFor(logging.INFO):
        return
    if _direct is not None:
        _direct(fields)
        return
    record = logging.LogRecord(ACCESS.name, logging.INFO, "", 0, "request", (), None)
    record.fields = fields
    ACCESS.handle(record)


class _AccessLines:
    """Writes access lines past the logging tree; those of one turn of the event loop together."""

    __slots__ = ("_render", "_stream", "_waiting")

    def __init__(self, stream: TextIO, form: Format) -> None:
        self._stream = stream
        self._render = _access_json if form is Format.JSON else _access_pretty
        self._waiting: list[str] = []

    def __call__(self, fields: Mapping[str, object]) -> None:
        if not _SECRET_FIELDS.isdisjoint(fields):
            fields = _hide(fields)
        self._waiting.append(redact(self._render(fields)))
        if len(self._waiting) == 1:
            try:
                asyncio.get_running_loop().call_soon(self.flush)
            except RuntimeError:
                self.flush()

    def flush(self) -> None:
        """Write what is waiting, one system call for all of it."""
        lines, self._waiting = self._waiting, []
        with contextlib.suppress(OSError, ValueError):  # the reader has gone, or the disk is full
            self._stream.write("".join(lines))
            self._stream.flush()


class _Handler(logging.StreamHandler[TextIO]):
    """Keeps the order: what waits was said before this record."""

    def emit(self, record: logging.LogRecord) -> None:
        if _direct is not None:
            _direct.flush()
        super().emit(record)


_direct: _AccessLines | None = None


def _access_json(fields: Mapping[str, object]) -> str:
    now = time.time()
    parts = [f'{{"time":"{_stamp(now)}","level":"info","logger":"s4.access","event":"request"']
    for name, value in fields.items():
        if isinstance(value, str):
            parts.append(f',"{name}":{_json_string(value)}')
        elif type(value) in _NUMBERS:
            parts.append(f',"{name}":{value}')
        else:
            parts.append(f',"{name}":{_ENCODER.encode(value)}')
    parts.append("}\n")
    return "".join(parts)


def _access_pretty(fields: Mapping[str, object]) -> str:
    values = list(map(str, fields.values()))
    if "" in values or _PLAIN("".join(values)) is None:
        values = list(map(_quoted, fields.values()))
    words = " ".join(map("=".join, zip(fields, values, strict=True)))
    return f"{_stamp(time.time())} INFO    request {words}\n"


def configure(
    form: Format, level: str, *, access_log: bool = True, stream: TextIO | None = None
) -> None:
    """Send every record of this process to `stream` (stderr) in one form; replaces what was set."""
    # Nothing below is written, so nothing below is looked up for each record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = _Handler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonFormatter() if form is Format.JSON else PrettyFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("s4").setLevel(level.upper())
    ACCESS.disabled = not access_log
    global _direct  # noqa: PLW0603 - there is one place a process writes to
    _direct = _AccessLines(handler.stream, form)
    logging.raiseExceptions = False  # a full disk under the log is no reason to write tracebacks
    logging.captureWarnings(capture=True)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, event, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Render; what JSON does not know is written as its text."""
        line = {
            "time": _stamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line.update(_fields(record))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return redact(_ENCODER.encode(line))


class PrettyFormatter(logging.Formatter):
    """`time LEVEL event name=value ...`, then the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Render; a value that could be mistaken for more than one is quoted as JSON quotes it."""
        words = [
            _stamp(record.created),
            f"{record.levelname:<7}",
            _printable(record.getMessage()),
        ]
        words += [f"{name}={_quoted(value)}" for name, value in _fields(record).items()]
        text = " ".join(words)
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        return redact(text)


_NUMBERS: Final = frozenset((int, float))  # not bool, which is written in words
_json_string: Final = json.encoder.encode_basestring
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str)
_PLAIN: Final = re.compile(r"[^\s\"'=\\\x00-\x1f\x7f-\x9f\u2028\u2029]+").fullmatch


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return fields if _SECRET_FIELDS.isdisjoint(fields) else _hide(fields)


def _hide(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: HIDDEN if name in _SECRET_FIELDS else value for name, value in fields.items()}


def _quoted(value: object) -> str:
    if isinstance(value, str):
        return value if value.isalnum() or _PLAIN(value) else json.dumps(value)
    text = str(value)
    return text if isinstance(value, (int, float)) or _PLAIN(text) else json.dumps(text)


def _printable(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)


_last_second = -1
_last_text = ""


def _stamp(created: float) -> str:
    """RFC 3339 in UTC with milliseconds; the part to the second is made once a second."""
    global _last_second, _last_text  # noqa: PLW0603 - a cache of one entry
    second = int(created)
    if second != _last_second:
        _last_text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        _last_second = second
    return f"{_last_text}{int((created - second) * 1000):03d}Z"
