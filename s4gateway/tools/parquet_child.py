"""The process that looks into Parquet files of others: it may die of one, and nothing else does.

    {"level": 3, "row_group": null}  and two descriptors  ──>
                                                 <── {"seen": 1048576}       as it works
                                                 <── {"outcome": "made", "size": 4711, ...}

Rule: this process has no credentials and no connection but the socket it was started with, and may
use so much memory and no more. What is wrong with a file is an answer; a crash in a decoder ends
this process, whose parent starts another one.
"""

import json
import os
import resource
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import pyarrow as pa

from s4gateway.tools import parquet_format, parquet_transcode, parquet_values
from s4gateway.tools.parquet_format import Damaged, File, Refusal, Refused
from s4gateway.tools.parquet_layout import Layout, layout
from s4gateway.tools.parquet_thrift import ThriftError
from s4gateway.tools.parquet_transcode import Sink
from s4gateway.tools.parquet_verify import Mismatch, verify

_MESSAGE: Final = 4096  # bytes at most
_EVERY: Final = 1.0  # seconds between two signs of life


def main() -> None:
    """Answer one request after the other until the parent closes the socket."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    memory = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, _MESSAGE, 2)
        if not message:
            return
        try:
            old, new = descriptors
            answer = _answer(json.loads(message), old, new, _Life(connection))
        finally:
            for each in descriptors:
                os.close(each)
        _send(connection, answer)
        if answer["outcome"] == "memory":
            return  # what it left behind might be in the way of the next file


class _Life:
    """Signs of life: how many bytes were gone through, told now and then."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._seen = 0
        self._told = time.monotonic()

    def seen(self, count: int) -> None:
        self._seen += count
        now = time.monotonic()
        if now - self._told >= _EVERY:
            self._told = now
            _send(self._connection, {"seen": self._seen})


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def _answer(request: dict[str, Any], old: int, new: int, life: _Life) -> dict[str, Any]:
    try:
        size = rewrite(old, new, request["level"], request["row_group"], life.seen)
    except Refused as error:
        return {"outcome": "refused", "refusal": error.refusal.value, "why": error.why}
    except parquet_values.Unreadable as error:
        return {"outcome": "refused", "refusal": Refusal.UNREADABLE.value, "why": str(error)}
    except parquet_values.ValueMismatch as error:
        return {"outcome": "other-values", "why": str(error)}
    except Mismatch as error:
        return {"outcome": "mismatch", "why": str(error)}
    except (Damaged, ThriftError) as error:
        return {"outcome": "damaged", "why": str(error)}
    except MemoryError:
        return {"outcome": "memory", "why": "it takes more memory than a file may"}
    except Exception as error:
        return {"outcome": "failed", "why": f"{type(error).__name__}: {error}"}
    return {"outcome": "made", "size": size}


def rewrite(
    old: int, new: int, level: int, row_group: int | None, seen: Callable[[int], None]
) -> int:
    """Write the file behind `old` into `new` and compare both; its size in bytes.

    Raises Refused, Damaged, ThriftError, Mismatch, Unreadable, MemoryError, OSError.
    """
    source = File(old, seen)
    footer, found = _opened(source)
    parquet_format.check_worth(footer, row_group)
    sink = Sink(new)
    parquet_transcode.transcode(source, sink, footer, found, level)
    made = File(new, seen)
    verify(source, *_opened(source), made, *_opened(made))
    with open(old, "rb", closefd=False) as before, open(new, "rb", closefd=False) as after:
        parquet_values.compare(before, after, seen)
    return sink.length


def _opened(file: File) -> tuple[parquet_format.Footer, Layout]:
    footer = parquet_format.read_footer(file.read, file.size)
    return footer, layout(file.read, footer)


if __name__ == "__main__":
    main()
