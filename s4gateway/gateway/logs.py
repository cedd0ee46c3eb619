"""What the process says about itself: one event name and fields a line, on stderr, no secrets.

Two renderings of one record: `pretty` for a terminal, `json` for a collector. Every line passes
one redaction, so a signature inside a URL, inside a message, inside a traceback is gone whoever
wrote it. The access line is built for cost: a record without a stack walk, and no redaction unless
the line can hold something to redact.

    s4.access     one line a request, INFO
    s4.*          the gateway's own events
    anything else warnings of libraries
"""

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

# Cheap tests first: a line without any of these cannot match.
_SUSPECT: Final = re.compile(
    r"ignature|uthorization|oken|ustomer-[Kk]ey|ecret|AWS4-HMAC|IGNATURE|UTHORIZATION|OKEN|ECRET"
)
_HEADER: Final = re.compile(
    r"""(?i)\b(authorization["']?\s*[:=]\s*b?["']?)(?!\[hidden\])[^"'\r\n]+"""
    r"""|\b(AWS4-HMAC-SHA256\s+Credential=)[^"'\r\n]+"""
)
_PAIR: Final = re.compile(
    r"""(?i)((?:signature|security-token|session_?token|secret(?:_?access)?(?:_?key)?"""
    r"""|encryption-customer-key)["']?\s*(?:=|%3D|:)\s*b?["']?)(?!\[hidden\])[^\s"'&,;)}\\]+"""
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
    if _SUSPECT.search(text) is None:
        return text
    text = _HEADER.sub(lambda match: (match[1] or match[2]) + HIDDEN, text)
    return _PAIR.sub(lambda match: match[1] + HIDDEN, text)


def event(log: logging.Logger, level: int, name: str, /, **fields: object) -> None:
    """Log one event with its fields; `exc_info=True` adds the traceback."""
    if log.isEnabledFor(level):
        exc_info = fields.pop("exc_info", None)
        log.log(level, name, exc_info=bool(exc_info), extra={"fields": fields})


def access(fields: Mapping[str, object]) -> None:
    """Log one finished request. The fields' order is the line's order."""
    if ACCESS.isEnabledFor(logging.INFO):
        record = logging.LogRecord(ACCESS.name, logging.INFO, "", 0, "request", (), None)
        record.fields = fields
        ACCESS.handle(record)


def configure(
    form: Format, level: str, *, access_log: bool = True, stream: TextIO | None = None
) -> None:
    """Send every record of this process to `stream` (stderr) in one form; replaces what was set."""
    # Nothing below is written, so nothing below is looked up for each record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonFormatter() if form is Format.JSON else PrettyFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("s4").setLevel(level.upper())
    ACCESS.disabled = not access_log
    logging.raiseExceptions = False  # a full disk under the log is no reason to write tracebacks
    logging.captureWarnings(capture=True)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, event, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Render; what JSON does not know is written as its text."""
        line = {
            "time": _stamp(record.created, record.msecs),
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
            _stamp(record.created, record.msecs),
            f"{record.levelname:<7}",
            _printable(record.getMessage()),
        ]
        words += [f"{name}={_quoted(value)}" for name, value in _fields(record).items()]
        text = " ".join(words)
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        return redact(text)


_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str)
_PLAIN: Final = re.compile(r"[^\s\"'=\\\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    if _SECRET_FIELDS.isdisjoint(fields):
        return fields
    return {name: HIDDEN if name in _SECRET_FIELDS else value for name, value in fields.items()}


def _quoted(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _printable(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)


_last_second = -1
_last_text = ""


def _stamp(created: float, milliseconds: float) -> str:
    """RFC 3339 in UTC with milliseconds; the part to the second is made once a second."""
    global _last_second, _last_text  # noqa: PLW0603 - a cache of one entry
    second = int(created)
    if second != _last_second:
        _last_text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        _last_second = second
    return f"{_last_text}{int(milliseconds):03d}Z"
