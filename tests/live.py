"""Real servers for tests: SeaweedFS, and the gateway as its users start it, each a child process.

Everything here is synchronous, because the real clients are. The servers listen on loopback ports
of their own, so several test processes may run at once, and none of them outlives the tests: Linux
ends them with the thread that started them, which is why servers are started from the main thread
or from the loop thread below, never from a short-lived one. A gateway must stop on SIGTERM with
status 0 and a log without a trace of an unhandled fault, or the test that used it fails.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import trustme

from s4gateway.gateway import embedded

ROOT = Path(__file__).resolve().parents[1]
REGION = "us-east-1"
READY_SECONDS = 180.0
STOP_SECONDS = 120.0

_PORTS = range(10_000, 11_000)  # below SeaweedFS's and below every ephemeral range
_FAULT = re.compile(
    r"Traceback \(most recent call last\)|was never awaited|never retrieved"
    r"|Task was destroyed|ResourceWarning|Unclosed |Fatal Python error"
)


class ServerError(Exception):
    """A server did not start, or did not stop as it should."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An S3 endpoint and a key pair it accepts; `ca` is the file to trust when it speaks TLS."""

    endpoint_url: str
    access_key: str
    secret_key: str = field(repr=False)
    ca: Path | None = None

    @property
    def netloc(self) -> str:
        return urlsplit(self.endpoint_url).netloc

    @property
    def port(self) -> int:
        port = urlsplit(self.endpoint_url).port
        assert port is not None
        return port

    @property
    def secure(self) -> bool:
        return self.endpoint_url.startswith("https://")

    @property
    def verify(self) -> ssl.SSLContext | bool:
        """What httpx wants as `verify`."""
        return ssl.create_default_context(cafile=self.ca) if self.secure else True


@dataclass(frozen=True, slots=True)
class Seaweedfs(Endpoint):
    """The backend itself, without a gateway."""

    pid: int = 0


@dataclass(frozen=True, slots=True)
class Gateway(Endpoint):
    """A running gateway process."""

    log: Path = Path()
    process: subprocess.Popen[bytes] = field(kw_only=True, repr=False)

    @property
    def pid(self) -> int:
        return self.process.pid

    def read_log(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self, seconds: float = STOP_SECONDS) -> int:
        """SIGTERM; the exit status. The time limit is part of the promise to drain."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerError(f"no exit {seconds} s after SIGTERM:\n{tail(self.log)}") from None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass(frozen=True, slots=True)
class Tls:
    """A certificate for 127.0.0.1 and localhost, its key, and the CA to trust."""

    certificate: Path
    key: Path
    ca: Path

    @property
    def flags(self) -> tuple[str, ...]:
        return ("--tls-cert", str(self.certificate), "--tls-key", str(self.key))


def issue_tls(folder: Path) -> Tls:
    tls = Tls(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1", "localhost", "*.localhost")
    authority.cert_pem.write_to_path(tls.ca)
    leaf.private_key_pem.write_to_path(tls.key)
    tls.certificate.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    return tls


@contextlib.contextmanager
def seaweedfs(folder: Path) -> Iterator[Seaweedfs]:
    """A SeaweedFS of its own in `folder`, run by the code behind `s4 --embedded`."""
    server = embedded.EmbeddedServer(folder)
    with loop_thread() as loop:
        running = asyncio.run_coroutine_threadsafe(server.start(), loop).result()
        try:
            yield Seaweedfs(
                running.endpoint_url, running.access_key, running.secret_key, pid=running.pid
            )
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(), loop).result()


@contextlib.contextmanager
def loop_thread() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs as long as the block: asyncio kills its children with their loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="servers", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextlib.contextmanager
def gateway(
    backend: Endpoint,
    folder: Path,
    *flags: str,
    env: Mapping[str, str] | None = None,
    tls: Tls | None = None,
) -> Iterator[Gateway]:
    """`s4` in front of `backend` with the same key pair; `env` adds to its environment.

    Leaving the block sends SIGTERM and raises ServerError unless the gateway ends with status 0 and
    a clean log. A gateway the test has stopped or killed itself is not judged.
    """
    keys = {"AWS_ACCESS_KEY_ID": backend.access_key, "AWS_SECRET_ACCESS_KEY": backend.secret_key}
    flags = ("--endpoint-url", backend.endpoint_url, *flags)
    with _serve(folder, flags, keys | dict(env or {}), tls) as (process, url, log):
        yield Gateway(
            url,
            backend.access_key,
            backend.secret_key,
            tls.ca if tls else None,
            log=log,
            process=process,
        )


@contextlib.contextmanager
def embedded_gateway(data: Path, folder: Path, *flags: str) -> Iterator[Gateway]:
    """`s4 --embedded DATA`; the key pair is the one it keeps in DATA/s3.json."""
    with _serve(folder, ("--embedded", str(data), *flags), {}, None) as (process, url, log):
        identity = json.loads((data / "s3.json").read_text())["identities"][0]
        pair = identity["credentials"][0]
        yield Gateway(url, pair["accessKey"], pair["secretKey"], log=log, process=process)


@contextlib.contextmanager
def _serve(
    folder: Path, flags: tuple[str, ...], env: dict[str, str], tls: Tls | None
) -> Iterator[tuple[subprocess.Popen[bytes], str, Path]]:
    log = folder / f"gateway-{uuid.uuid4().hex[:8]}.log"
    with reserved_port() as port:
        url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        address = ("--host", "127.0.0.1", "--port", str(port))
        command = [str(program("s4")), *address, *(tls.flags if tls else ()), *flags]
        with log.open("wb") as output:
            process = subprocess.Popen(
                embedded.tied_to_us(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=environment(folder) | env,
            )
        try:
            _wait_ready(process, f"{url}/ready", tls, log)
            yield process, url, log
            if process.returncode is None:
                _stop_and_judge(process, log)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _wait_ready(process: subprocess.Popen[bytes], url: str, tls: Tls | None, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    verify = ssl.create_default_context(cafile=tls.ca) if tls else True
    with httpx.Client(trust_env=False, verify=verify, timeout=5.0) as client:
        while True:
            if process.poll() is not None:
                raise ServerError(f"the gateway ended with {process.returncode}:\n{tail(log)}")
            if time.monotonic() > deadline:
                raise ServerError(f"{url} not answered with 200 in time:\n{tail(log)}")
            with contextlib.suppress(httpx.TransportError):
                if client.get(url).status_code == httpx.codes.OK:
                    return
            time.sleep(0.02)


def _stop_and_judge(process: subprocess.Popen[bytes], log: Path) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        status = process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        raise ServerError(f"no exit {STOP_SECONDS} s after SIGTERM:\n{tail(log)}") from None
    if status != 0:
        raise ServerError(f"exit status {status} after SIGTERM:\n{tail(log)}")
    check_log(log)


def check_log(log: Path) -> None:
    """Raise ServerError when the log holds a trace of a fault nobody handled."""
    text = log.read_text(errors="replace")
    if found := _FAULT.search(text):
        around = text[max(0, found.start() - 500) : found.end() + 4000]
        raise ServerError(f"a fault in the gateway's log:\n{around}")


def tail(log: Path, limit: int = 4000) -> str:
    return log.read_text(errors="replace")[-limit:]


def environment(home: Path) -> dict[str, str]:
    """For a child: programs are found, settings and credentials of this machine are not."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "default::ResourceWarning",
        "AWS_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def program(name: str) -> Path | None:
    """A program of this virtual environment, else of the machine."""
    beside = Path(sys.executable).parent / name
    if beside.exists():
        return beside
    found = shutil.which(name)
    return Path(found) if found else None


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A free loopback port that no other test process of this user takes during the block."""
    folder = Path(tempfile.gettempdir()) / f"s4gateway-test-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    draw = secrets.SystemRandom()  # not `random`: tests seed it alike in every process
    for port in draw.sample(_PORTS, len(_PORTS)):
        with (folder / str(port)).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with socket.socket() as listener:
                    listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            yield port
            return
    raise ServerError(f"no free port in {_PORTS[0]}-{_PORTS[-1]}")


def bucket_name() -> str:
    return f"t-{uuid.uuid4().hex[:20]}"


def remove_bucket(client: Any, bucket: str) -> None:
    """Everything in the bucket, versions and unfinished uploads included, then the bucket."""
    uploads = client.list_multipart_uploads(Bucket=bucket).get("Uploads", ())
    for upload in uploads:
        client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for entry in page.get("Versions", []) + page.get("DeleteMarkers", []):
            _remove_version(client, bucket, entry)
    client.delete_bucket(Bucket=bucket)


def _remove_version(client: Any, bucket: str, entry: Mapping[str, Any]) -> None:
    version = entry.get("VersionId", "null")
    which = {} if version == "null" else {"VersionId": version}
    client.delete_object(Bucket=bucket, Key=entry["Key"], **which)
