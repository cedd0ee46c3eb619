"""The process: what an operator, an orchestrator and a terminal see of it."""

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.gateway.certificates import Authority, served_names

ROOT = Path(__file__).resolve().parents[2]
PAIR = {"AWS_ACCESS_KEY_ID": "AKIDOWN", "AWS_SECRET_ACCESS_KEY": "own secret of the backend"}
NOWHERE = "http://127.0.0.1:9"  # nothing listens on the discard port
LIMIT = 120.0  # seconds after which a test that waits has failed


@dataclass
class Process:
    """A running gateway around the double; `lines` are its log, as it comes."""

    child: subprocess.Popen[bytes]
    lines: list[str] = field(default_factory=list)
    reader: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.reader = threading.Thread(target=self.read_log)
        self.reader.start()

    def read_log(self) -> None:
        assert self.child.stderr is not None
        for line in self.child.stderr:
            self.lines.append(line.decode())

    def wait_for(self, event: str) -> dict[str, Any]:
        """The first log line with this event, after waiting for it."""
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            for line in self.lines[:]:
                if line.startswith("{") and (fields := json.loads(line))["event"] == event:
                    return fields
            time.sleep(0.01)
        raise AssertionError(f"no {event}: {self.lines}")

    def signal(self, number: signal.Signals) -> None:
        self.child.send_signal(number)

    def ended(self) -> int:
        """Its exit status; the log is complete then."""
        status = self.child.wait(LIMIT)
        self.reader.join(LIMIT)
        return status

    def wait_in_flight(self) -> None:
        """Return once the application has a request; needs probes on a port of their own."""
        end = time.monotonic() + LIMIT
        while b"s4_in_flight_requests 1.0" not in self.get("/metrics", name="admin")[1]:
            assert time.monotonic() < end
            time.sleep(0.01)

    def connect(
        self, tls: ssl.SSLContext | None = None, *, name: str = "url"
    ) -> http.client.HTTPConnection:
        address = urlsplit(self.wait_for("listening")[name])
        assert address.hostname is not None
        if tls is None:
            return http.client.HTTPConnection(address.hostname, address.port, timeout=LIMIT)
        return http.client.HTTPSConnection(
            address.hostname, address.port, timeout=LIMIT, context=tls
        )

    def get(self, path: str, *, name: str = "url") -> tuple[int, bytes]:
        with contextlib.closing(self.connect(name=name)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()


Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the program with these flags; whatever runs is killed after the test."""
    with contextlib.ExitStack() as stack:

        def run(*flags: str, env: dict[str, str] = PAIR) -> Process:
            child = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.gateway.double", "--log-format", "json"),
                    *("--port", "0", "--endpoint-url", NOWHERE, *flags),
                ],
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **env},
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
            )
            process = Process(child)

            def end() -> None:
                child.kill()
                child.wait()
                process.reader.join()
                assert child.stderr is not None
                child.stderr.close()

            stack.callback(end)
            return process

        yield run


def test_it_lives_without_its_backend_and_says_that_it_is_not_ready(start: Start):
    process = start()
    assert process.get("/health") == (200, b"ok\n")
    assert process.get("/ready") == (503, b"not ready\n")
    assert process.get("/done") == (200, b"done")
    status, exposition = process.get("/metrics")
    assert status == 200
    assert b"s4_in_flight_requests 0.0" in exposition
    process.signal(signal.SIGTERM)
    assert process.ended() == 0
    process.wait_for("stopped")
    assert [line for line in process.lines if "double" in line] == [
        "double: startup\n",
        "double: shutdown\n",
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_drain_finishes_what_runs_and_takes_nothing_new(
    start: Start, tmp_path: Path, number: signal.Signals
):
    process = start("--admin-listen", "127.0.0.1:0")
    connection = process.connect()
    connection.request("GET", "/held")
    process.wait_in_flight()
    process.signal(number)
    process.wait_for("draining")
    assert process.get("/ready", name="admin")[0] == 503
    assert process.get("/health", name="admin")[0] == 200
    with pytest.raises(ConnectionRefusedError):
        process.get("/done")
    (tmp_path / "release").touch()
    answer = connection.getresponse()
    assert (answer.status, answer.read(), answer.headers["connection"]) == (200, b"done", "close")
    assert process.ended() == 0


def test_with_a_port_of_their_own_the_probes_leave_the_s3_port(start: Start):
    process = start("--admin-listen", "127.0.0.1:0")
    assert process.get("/health", name="admin") == (200, b"ok\n")
    assert process.get("/health") == (200, b"done")  # a bucket may have this name


def test_what_outlasts_the_drain_is_reset_and_the_status_tells(start: Start):
    process = start("--drain-seconds", "0.3")
    connection = process.connect()
    connection.request("GET", "/drip")
    answer = connection.getresponse()
    assert answer.read(4) == b"drip"
    process.signal(signal.SIGTERM)
    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
        answer.read()
    answer.close()
    connection.close()
    assert process.ended() == 1
    assert process.wait_for("drain-incomplete")["aborted"] == 1


def test_a_second_signal_does_not_wait(start: Start):
    process = start("--drain-seconds", "600", "--admin-listen", "127.0.0.1:0")
    connection = process.connect()
    connection.request("GET", "/held")
    process.wait_in_flight()
    process.signal(signal.SIGTERM)
    process.wait_for("draining")
    process.signal(signal.SIGTERM)
    assert process.ended() == 1
    connection.close()


def test_hangup_never_ends_the_process(start: Start):
    process = start()
    process.wait_for("listening")
    for _ in range(5):
        process.signal(signal.SIGHUP)
    process.wait_for("reloaded")
    assert process.get("/health")[0] == 200
    assert b's4_reload_total{result="ok"} 0.0' not in process.get("/metrics")[1]
    assert b's4_reload_total{result="err"} 0.0' in process.get("/metrics")[1]


def test_a_dump_signal_without_a_ledger_does_nothing(start: Start):
    process = start()
    process.wait_for("listening")
    for _ in range(5):
        process.signal(signal.SIGUSR1)
    assert process.get("/health")[0] == 200
    assert b"s4_sigusr1_dump_total" not in process.get("/metrics")[1]
    process.signal(signal.SIGTERM)
    assert process.ended() == 0


def test_a_dump_signal_writes_the_ledger_also_where_nothing_was_counted(
    start: Start, tmp_path: Path
):
    state = tmp_path / "ledger.json"
    process = start("--savings-ledger-state-file", str(state))
    process.wait_for("listening")
    assert not state.exists()
    process.signal(signal.SIGUSR1)
    process.wait_for("ledger-dumped")
    assert state.read_bytes() == b'{"buckets":{},"skipped_unaccounted":{}}'
    dumps = b's4_sigusr1_dump_total{manager="savings_ledger",result="ok"} 1.0'
    assert dumps in process.get("/metrics")[1]


def test_a_restored_ledger_is_shown_before_the_first_request(start: Start, tmp_path: Path):
    state = tmp_path / "ledger.json"
    state.write_text(
        '{"buckets":{"b":{"original_bytes":9,"stored_bytes":5,"objects":1}},'
        '"skipped_unaccounted":{"b":2}}'
    )
    shown = start("--savings-ledger-state-file", str(state)).get("/metrics")[1].splitlines()
    assert {
        b's4_ledger_original_bytes{bucket="b"} 9.0',
        b's4_ledger_stored_bytes{bucket="b"} 5.0',
        b's4_ledger_objects{bucket="b"} 1.0',
        b's4_ledger_skipped_unaccounted{bucket="b"} 2.0',
        b"s4_ledger_flush_failures_total 0.0",
    } <= set(shown)


def test_hangup_brings_new_client_keys_or_keeps_the_old(start: Start, tmp_path: Path):
    keys = tmp_path / "keys.toml"
    keys.write_text('[keys.OLD]\nsecret = "the old secret"\n')
    process = start("--credentials", str(keys))
    assert process.get("/knows/OLD")[1] == b"yes"
    assert process.get("/knows/AKIDOWN")[1] == b"no"
    keys.write_text('[keys.NEW]\nsecret = "the new secret"\n')
    process.signal(signal.SIGHUP)
    process.wait_for("reloaded")
    assert process.get("/knows/NEW")[1] == b"yes"
    assert process.get("/knows/OLD")[1] == b"no"
    keys.write_text('[keys.BROKEN]\nsecret = "topsecret"\ncolour = 1\n')
    process.signal(signal.SIGHUP)
    assert "colour" in process.wait_for("reload-failed")["problem"]
    assert process.get("/knows/NEW")[1] == b"yes"
    assert "topsecret" not in "".join(process.lines)


def test_without_a_credentials_file_the_backends_pair_is_accepted(start: Start):
    assert start().get("/knows/AKIDOWN")[1] == b"yes"


def test_hangup_serves_the_new_certificate_to_the_next_handshake(start: Start, tmp_path: Path):
    authority = Authority(tmp_path)
    authority.issue("first.example")
    process = start("--tls-cert", str(authority.cert), "--tls-key", str(authority.key))
    trust = authority.trust()

    def names(connection: http.client.HTTPConnection) -> set[str]:
        connection.request("GET", "/done")
        assert connection.getresponse().read() == b"done"
        sock = connection.sock
        assert isinstance(sock, ssl.SSLSocket)
        assert sock.version() in {"TLSv1.2", "TLSv1.3"}
        return served_names(sock.getpeercert())

    old = process.connect(trust)
    assert "first.example" in names(old)
    authority.issue("second.example")
    process.signal(signal.SIGHUP)
    process.wait_for("reloaded")
    with contextlib.closing(process.connect(trust)) as new:
        assert "second.example" in names(new)
    authority.cert.write_bytes(b"half a certificate")
    process.signal(signal.SIGHUP)
    process.wait_for("reload-failed")
    with contextlib.closing(process.connect(trust)) as new:
        assert "second.example" in names(new)
        new.request("GET", "/metrics")
        assert b's4_tls_cert_reload_total{result="err"} 1.0' in new.getresponse().read()
    assert "first.example" in names(old)  # the connection from before was not disturbed
    old.close()


def test_a_slow_sender_of_headers_is_cut_off(start: Start):
    process = start("--header-timeout-seconds", "1")
    address = urlsplit(process.wait_for("listening")["url"])
    with socket.create_connection((address.hostname, address.port), timeout=LIMIT) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: ")
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"<Code>RequestTimeout</Code>" in answer
    assert b's4_connection_faults_total{reason="header-timeout"} 1.0' in process.get("/metrics")[1]


def _wrong_files(folder: Path) -> list[str]:
    keys = folder / "keys.toml"
    keys.write_text('[keys."a b"]\nsecret = "x"\n')
    return ["--credentials", str(keys), "--tls-cert", "none", "--tls-key", "none"]


@pytest.mark.parametrize(
    ("flags", "env", "said"),
    [
        (lambda _: ["--spool-dir", "/nonexistent"], PAIR, ["--spool-dir: /nonexistent"]),
        (
            lambda folder: ["--savings-ledger-state-file", str(folder)],
            PAIR,
            ["--savings-ledger-state-file: ", "is a directory"],
        ),
        (lambda _: [], {"AWS_EC2_METADATA_DISABLED": "true"}, ["no credentials"]),
        (lambda _: ["--host", "192.0.2.1", "--insecure-bind-any"], PAIR, ["192.0.2.1:0"]),
        (_wrong_files, PAIR, ["access key", "secret", "none: No such file"]),
    ],
)
def test_a_start_that_fails_says_why_in_lines_and_ends_with_1(
    start: Start,
    tmp_path: Path,
    flags: Callable[[Path], list[str]],
    env: dict[str, str],
    said: list[str],
):
    process = start(*flags(tmp_path), env=env)
    assert process.ended() == 1
    text = "".join(process.lines)
    assert "Traceback" not in text
    for part in said:
        assert any(line.startswith("s4: ") and part in line for line in process.lines), text


def test_a_taken_port_is_said(start: Start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start("--port", str(port))
        assert process.ended() == 1
        said = [line for line in process.lines if line.startswith("s4: ")]
        assert len(said) == 1
        assert f"cannot listen on 127.0.0.1:{port}" in said[0]
