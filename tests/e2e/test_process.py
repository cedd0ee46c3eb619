"""The process around the requests: probes, configuration, keys, draining, memory."""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import corpus, live
from tests.conftest import StartGateway
from tests.e2e import meddler, metering, raw

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024


# --- probes


def _get(url: str, **how: Any) -> httpx.Response:
    return httpx.get(url, trust_env=False, timeout=60.0, **how)


def test_health_ready_and_metrics_answer_without_a_signature(front: live.Gateway):
    health = _get(f"{front.endpoint_url}/health", verify=front.verify)
    ready = _get(f"{front.endpoint_url}/ready", verify=front.verify)
    assert (health.status_code, health.text) == (200, "ok\n")
    assert (ready.status_code, ready.text) == (200, "ready\n")
    assert health.headers["cache-control"] == "no-store"
    text = _get(f"{front.endpoint_url}/metrics", verify=front.verify)
    assert text.headers["content-type"].startswith("text/plain; version=0.0.4")


def test_metrics_count_what_was_done(start_gateway: StartGateway, shared: str, key: str):
    body = corpus.text(3_000_000, seed=1)
    target = raw.path(shared, key)
    with start_gateway() as gateway:
        before = metering.settled(gateway)
        assert raw.ask(gateway, "PUT", target, None, body).status == 200
        assert raw.ask(gateway, "GET", target).body == body
        assert raw.ask(gateway, "GET", target, {"Range": "bytes=5-9"}).status == 206
        assert raw.ask(gateway, "GET", raw.path(shared, f"{key}.no")).status == 404
        after = metering.settled(gateway)
    put = '{codec="cpu-zstd",op="put"}'
    got = '{codec="cpu-zstd",op="get"}'
    assert after[f"s4_bytes_in_total{put}"] == len(body)
    assert 0 < after[f"s4_bytes_out_total{put}"] < len(body) / 2
    assert after[f"s4_bytes_out_total{got}"] == len(body)
    assert after[f"s4_bytes_in_total{got}"] == after[f"s4_bytes_out_total{put}"]
    assert after['s4_requests_total{codec="cpu-zstd",op="put",result="ok"}'] == 1
    assert after['s4_http_requests_total{code="2xx",operation="GetObject"}'] == 2
    assert after['s4_http_requests_total{code="4xx",operation="GetObject"}'] == 1
    assert after[f"s4_request_latency_seconds_count{put}"] == 1
    assert after['s4_memory_budget_bytes{state="limit"}'] == 256 * MIB
    labels = " ".join(after)
    assert shared not in labels
    assert key not in labels
    assert len(after) < 1000
    assert set(before) <= set(after)


def test_the_admin_listener_serves_probes_and_no_objects(
    seaweedfs: live.Seaweedfs, tmp_path: Path, shared: str
):
    with (
        live.reserved_port() as port,
        live.reserved_port() as admin,
        _started(seaweedfs, tmp_path, "--port", str(port), "--admin-listen", f"127.0.0.1:{admin}"),
    ):
        url = f"http://127.0.0.1:{admin}"
        metering.until(lambda: _answers(f"{url}/ready"))
        for path in ("/health", "/ready", "/metrics"):
            assert _get(url + path).status_code == 200
        assert _get(f"{url}/{shared}").status_code == 404
        gateway = live.Endpoint(
            f"http://127.0.0.1:{port}", seaweedfs.access_key, seaweedfs.secret_key
        )
        assert raw.ask(gateway, "GET", f"/{shared}?list-type=2").status == 200
        # On the S3 port these are names of buckets now.
        assert raw.ask(gateway, "GET", "/metrics").verdict == (404, "NoSuchBucket")
        assert _get(f"http://127.0.0.1:{port}/health").status_code == 403


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return _get(url).status_code == 200
    return False


@contextlib.contextmanager
def _started(
    backend: live.Endpoint, folder: Path, *flags: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A gateway whose readiness nobody waits for."""
    keys = {"AWS_ACCESS_KEY_ID": backend.access_key, "AWS_SECRET_ACCESS_KEY": backend.secret_key}
    command = [str(live.program("s4")), "--endpoint-url", backend.endpoint_url, *flags]
    log = folder / "started.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=folder, env=live.environment(folder) | keys
        )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(live.STOP_SECONDS) == 0
        live.check_log(log)
    finally:
        process.kill()
        process.wait()


def test_ready_turns_to_503_when_the_backend_is_gone_and_health_does_not(
    start_gateway: StartGateway, seaweedfs: live.Seaweedfs
):
    with _switchable(seaweedfs) as (endpoint, switch), start_gateway(backend=endpoint) as gateway:
        assert _get(f"{gateway.endpoint_url}/ready").status_code == 200
        switch(False)
        metering.until(lambda: _get(f"{gateway.endpoint_url}/ready").status_code == 503, 30)
        assert _get(f"{gateway.endpoint_url}/health").status_code == 200
        switch(True)
        metering.until(lambda: _get(f"{gateway.endpoint_url}/ready").status_code == 200)


@contextlib.contextmanager
def _switchable(
    upstream: live.Endpoint,
) -> Iterator[tuple[live.Endpoint, Callable[[bool], None]]]:
    with meddler.between(upstream) as meddling:

        def switch(on: bool) -> None:
            meddling.rule = None if on else meddler.reset

        yield meddling.endpoint, switch


# --- configuration


def _s4(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(live.program("s4")), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=folder,
        env=live.environment(folder) | env,
    )


def test_config_shows_values_and_where_each_came_from(tmp_path: Path):
    file = tmp_path / "s4.toml"
    file.write_text('zstd-level = 7\nport = 9001\nhost = "127.0.0.2"\n')
    flags = ("--config", str(file), "--port", "9003")
    done = _s4(tmp_path, "config", *flags, "--format", "json", S4_PORT="9002", S4_HOST="127.0.0.3")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["port"] == {"value": "9003", "origin": "flag"}
    assert said["host"] == {"value": "127.0.0.3", "origin": "environment"}
    assert said["zstd-level"] == {"value": "7", "origin": "file"}
    assert said["codec"] == {"value": "cpu-zstd", "origin": "default"}
    table = _s4(tmp_path, "config", *flags)
    assert "zstd-level" in table.stdout


def test_a_wrong_configuration_ends_with_2_and_every_problem(tmp_path: Path):
    file = tmp_path / "s4.toml"
    file.write_text("zstd-lvl = 7\nport = 99999\n")
    for command in (["config"], []):
        done = _s4(tmp_path, *command, "--config", str(file), S4_CODEC="gpu-zstd", S4_NONSENSE="1")
        assert done.returncode == 2
        said = " ".join(done.stderr.split())
        for problem in ("zstd-lvl", "99999", "S4_NONSENSE", "S4_CODEC"):
            assert problem in said
        assert "Traceback" not in done.stderr


def test_a_shared_key_pair_is_not_served_beyond_this_machine(tmp_path: Path):
    flags = ("--endpoint-url", "http://127.0.0.1:9", "--host", "0.0.0.0")
    done = _s4(tmp_path, *flags, AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b" * 9)
    assert done.returncode == 2
    assert "--credentials" in done.stderr


# --- client keys

KEYS = """
anonymous-read-buckets = ["{public}"]

[keys.FULL]
secret = "full-secret-1"

[keys.READER]
secret = "reader-secret-1"
read-only = true

[keys.SCOPED]
secret = "scoped-secret-1"
buckets = ["{mine}", "{shared}/team-a/"]
"""


@pytest.fixture
def keyed(
    start_gateway: StartGateway, make_bucket: Callable[..., str], tmp_path: Path
) -> Iterator[tuple[live.Gateway, dict[str, str], Path]]:
    buckets = {name: make_bucket() for name in ("public", "mine", "shared", "other")}
    file = tmp_path / "keys.toml"
    file.write_text(KEYS.format(**buckets))
    with start_gateway("--credentials", str(file)) as gateway:
        yield gateway, buckets, file


def _as(gateway: live.Gateway, name: str) -> live.Endpoint:
    secret = f"{name.lower()}-secret-1"
    return live.Endpoint(gateway.endpoint_url, name, secret)


def test_keys_reach_what_they_may_and_nothing_else(
    keyed: tuple[live.Gateway, dict[str, str], Path],
):
    gateway, buckets, _ = keyed
    full, reader, scoped = (_as(gateway, name) for name in ("FULL", "READER", "SCOPED"))
    for name in buckets.values():
        assert raw.ask(full, "PUT", f"/{name}/team-a/x", None, b"x").status == 200
        assert raw.ask(full, "PUT", f"/{name}/y", None, b"y").status == 200
    denied = (403, "AccessDenied")
    for name in buckets.values():
        assert raw.ask(reader, "GET", f"/{name}/y").body == b"y"
        assert raw.ask(reader, "GET", f"/{name}?list-type=2").status == 200
        assert raw.ask(reader, "PUT", f"/{name}/y", None, b"z").verdict == denied
        assert raw.ask(reader, "DELETE", f"/{name}/y").verdict == denied
        assert raw.ask(reader, "POST", f"/{name}?delete", None, b"<Delete/>").verdict == denied
        assert raw.ask(reader, "DELETE", f"/{name}").verdict == denied
        assert raw.ask(reader, "PUT", f"/{name}?acl", None, b"").verdict == denied
    mine, shared, other = (buckets[name] for name in ("mine", "shared", "other"))
    assert raw.ask(scoped, "PUT", f"/{mine}/z", None, b"z").status == 200
    assert raw.ask(scoped, "GET", f"/{shared}/team-a/x").body == b"x"
    assert raw.ask(scoped, "GET", f"/{shared}?list-type=2&prefix=team-a/").status == 200
    for method, target in (
        ("GET", f"/{shared}/y"),
        ("PUT", f"/{shared}/team-b/x"),
        ("PUT", f"/{shared}/team-a"),
        ("GET", f"/{shared}?list-type=2"),
        ("GET", f"/{shared}?list-type=2&prefix=team"),
        ("GET", f"/{shared}?versions&prefix="),
        ("GET", f"/{other}/y"),
        ("HEAD", f"/{other}"),
        ("GET", f"/{other}?list-type=2&prefix=team-a/"),
        ("DELETE", f"/{shared}"),
        ("PUT", f"/{shared}?tagging"),
    ):
        answer = raw.ask(scoped, method, target, None, b"" if method == "PUT" else None)
        assert answer.status == 403, (method, target)
    copy = {"x-amz-copy-source": f"/{other}/y"}
    assert raw.ask(scoped, "PUT", f"/{mine}/stolen", copy, b"").status in {403, 501}
    deletion = b"<Delete><Object><Key>y</Key></Object></Delete>"
    assert raw.ask(scoped, "POST", f"/{shared}?delete", None, deletion).verdict == denied
    assert raw.ask(full, "GET", f"/{shared}/y").body == b"y"
    own = raw.ask(gateway, "GET", f"/{mine}/y")  # the backend's own pair is no client's now
    assert own.verdict == (403, "InvalidAccessKeyId")


def test_anonymous_reads_reach_open_buckets_only(
    keyed: tuple[live.Gateway, dict[str, str], Path],
):
    gateway, buckets, _ = keyed
    full = _as(gateway, "FULL")
    body = corpus.text(100_000, seed=2)
    for name in ("public", "mine"):
        assert raw.ask(full, "PUT", f"/{buckets[name]}/page", None, body).status == 200
    public = f"{gateway.endpoint_url}/{buckets['public']}"
    assert _get(f"{public}/page").content == body
    assert _get(f"{public}/page", headers={"Range": "bytes=5-9"}).content == body[5:10]
    assert _get(f"{public}?list-type=2").status_code == 200
    assert _get(f"{public}/page?response-content-type=text/html").status_code == 400
    assert httpx.put(f"{public}/page", content=b"x", trust_env=False, timeout=60).status_code == 403
    assert httpx.delete(f"{public}/page", trust_env=False, timeout=60).status_code == 403
    assert _get(f"{public}?acl").status_code == 403
    assert _get(f"{public}/page?acl").status_code == 403
    assert _get(f"{gateway.endpoint_url}/{buckets['mine']}/page").status_code == 403
    assert _get(gateway.endpoint_url).status_code == 403
    assert _get(f"{public}/page").content == body


def test_keys_are_read_again_on_sighup_and_a_broken_file_changes_nothing(
    keyed: tuple[live.Gateway, dict[str, str], Path],
):
    gateway, buckets, file = keyed
    target = f"/{buckets['mine']}?list-type=2"
    assert raw.ask(_as(gateway, "READER"), "GET", target).status == 200
    text = file.read_text()
    file.write_text("[keys.LATE]\nsecret = 'late-secret-1'\n[nonsense")
    os.kill(gateway.pid, signal.SIGHUP)
    failed = 's4_reload_total{result="err"}'
    metering.until(lambda: metering.scrape(gateway).get(failed))
    assert raw.ask(_as(gateway, "READER"), "GET", target).status == 200
    file.write_text(text.replace("[keys.READER]", "[keys.LATE]").replace("reader-s", "late-s"))
    os.kill(gateway.pid, signal.SIGHUP)
    metering.until(lambda: raw.ask(_as(gateway, "LATE"), "GET", target).status == 200)
    gone = raw.ask(_as(gateway, "READER"), "GET", target)
    assert gone.verdict == (403, "InvalidAccessKeyId")
    assert raw.ask(_as(gateway, "FULL"), "GET", target).status == 200
    assert "secret-1" not in gateway.read_log()


def test_a_certificate_is_replaced_on_sighup_without_dropping_connections(
    seaweedfs: live.Seaweedfs, tmp_path: Path, shared: str
):
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    first, second = map(live.issue_tls, folders)
    with live.gateway(seaweedfs, tmp_path, tls=first) as gateway:
        renewed = replace(gateway, ca=second.ca)
        with raw.Connection(gateway) as old:
            for name in ("certificate", "key"):
                getattr(first, name).write_bytes(getattr(second, name).read_bytes())
            os.kill(gateway.pid, signal.SIGHUP)
            listing = f"/{shared}?list-type=2"
            metering.until(lambda: _works(renewed, listing))
            old.send(raw.plain(gateway, "GET", listing).wire)
            assert old.answer().status == 200


def _works(gateway: live.Gateway, target: str) -> bool:
    with contextlib.suppress(OSError):
        return raw.ask(gateway, "GET", target).status == 200
    return False


# --- draining


def test_a_slow_download_is_finished_after_sigterm(
    start_gateway: StartGateway, shared: str, key: str
):
    body = corpus.noise(24 * MIB, seed=3)  # more than the sockets in between hold
    target = raw.path(shared, key)
    with start_gateway() as gateway:
        assert raw.ask(gateway, "PUT", target, None, body).status == 200
        with raw.Connection(gateway) as connection, raw.Connection(gateway) as idle:
            connection.send(raw.plain(gateway, "GET", target).wire)
            assert connection._file.read1(1)
            stopping = threading.Thread(target=gateway.stop)
            stopping.start()
            assert idle.rest() == b""  # connections nobody uses are closed at once
            metering.until(lambda: not _works(gateway, target))  # and no new ones are taken
            assert gateway.process.poll() is None
            time.sleep(0.5)
            received = b"H" + connection._file.read()
            stopping.join(live.STOP_SECONDS)
        assert received.endswith(body)
        assert gateway.process.returncode == 0
        live.check_log(gateway.log)


def test_a_slow_upload_is_finished_after_sigterm(
    start_gateway: StartGateway, direct: Any, shared: str, key: str
):
    body = corpus.text(3 * MIB, seed=4)
    with start_gateway() as gateway:
        request = raw.plain(gateway, "PUT", raw.path(shared, key), None, body)
        with raw.Connection(gateway) as connection:
            connection.send(request.head + body[:MIB])
            metering.until(lambda: metering.scrape(gateway)["s4_in_flight_requests"])
            stopping = threading.Thread(target=gateway.stop)
            stopping.start()
            time.sleep(0.5)
            connection.send(body[MIB:])
            assert connection.answer().status == 200
            stopping.join(live.STOP_SECONDS)
        assert gateway.process.returncode == 0
    assert direct.head_object(Bucket=shared, Key=key)["ContentLength"] < len(body)


def test_what_outlasts_the_drain_time_is_visibly_broken(
    start_gateway: StartGateway, shared: str, key: str
):
    body = corpus.noise(24 * MIB, seed=5)
    target = raw.path(shared, key)
    with start_gateway("--drain-seconds", "1") as gateway:
        assert raw.ask(gateway, "PUT", target, None, body).status == 200
        with raw.Connection(gateway) as connection:
            connection.send(raw.plain(gateway, "GET", target).wire)
            assert connection._file.read1(1)
            gateway.stop()
            received = connection.rest()
        assert len(received) < len(body)
        live.check_log(gateway.log)


# --- memory


def test_a_spent_memory_budget_is_slowdown_and_recovers(
    start_gateway: StartGateway, shared: str, key: str
):
    body = corpus.text(3 * MIB, seed=6)
    with start_gateway("--memory-budget-bytes", "16MiB") as gateway:
        request = raw.plain(gateway, "PUT", raw.path(shared, key), None, body)
        with contextlib.ExitStack() as stack:
            # Each holds its share for as long as its body is under way.
            for _ in range(8):
                connection = stack.enter_context(raw.Connection(gateway))
                connection.send(request.head + body[:MIB])
            used = 's4_memory_budget_bytes{state="used"}'
            metering.until(lambda: metering.scrape(gateway)[used] >= 16 * MIB)
            refused = raw.ask(gateway, "PUT", raw.path(shared, key), None, body)
            assert refused.verdict == (503, "SlowDown")
            assert refused.headers["retry-after"]
            small = raw.ask(gateway, "PUT", raw.path(shared, f"{key}.small"), None, b"small")
            assert small.status == 200
        metering.settled(gateway)
        assert raw.ask(gateway, "HEAD", raw.path(shared, key)).status == 404
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: raw.exchange(gateway, request), range(8)))
        assert {answer.status for answer in answers} <= {200, 503}
        assert 200 in {answer.status for answer in answers}
        assert raw.ask(gateway, "GET", raw.path(shared, key)).body == body
        found = metering.settled(gateway)
        assert found['s4_slowdown_total{reason="memory"}'] >= 1


def test_a_client_that_reads_slowly_holds_little_memory(
    start_gateway: StartGateway, shared: str, key: str
):
    body = corpus.text(20 * MIB, seed=7)
    target = raw.path(shared, key)
    with start_gateway() as gateway:
        assert raw.ask(gateway, "PUT", target, None, body).status == 200
        with contextlib.ExitStack() as stack:
            slow = [stack.enter_context(raw.Connection(gateway)) for _ in range(6)]
            for connection in slow:
                connection.send(raw.plain(gateway, "GET", target).wire)
            time.sleep(1)
            found = metering.scrape(gateway)
            assert found['s4_memory_budget_bytes{state="used"}'] <= 256 * MIB
            assert raw.ask(gateway, "GET", target).body == body
            answers = [connection.answer() for connection in slow]
            assert all(answer.body == body for answer in answers)
        metering.settled(gateway)
