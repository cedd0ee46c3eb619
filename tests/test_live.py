"""The harness itself: every client works against the backend direct, and faults are noticed."""

import concurrent.futures
import contextlib
import hashlib
import os
import signal
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import clients, corpus, live


@pytest.mark.e2e
@pytest.mark.parametrize("name", clients.CLIENTS)
def test_every_client_stores_reads_lists_and_deletes(
    name: str, seaweedfs: live.Seaweedfs, direct: Any, bucket: str, tmp_path: Path
):
    body = corpus.log(300_000)
    with contextlib.closing(clients.CLIENTS[name](seaweedfs, tmp_path)) as client:
        client.put(bucket, "logs/a b.log", body, "application/zstd")
        assert client.get(bucket, "logs/a b.log") == body
        if client.ranges:
            assert client.get_range(bucket, "logs/a b.log", 1000, 2000) == body[1000:2000]
        stat = client.stat(bucket, "logs/a b.log")
        assert stat.size == len(body)
        assert stat.etag == hashlib.md5(body).hexdigest()
        assert stat.content_type == "application/zstd"
        if client.lists:
            (listed,) = client.listing(bucket, "logs/")
            assert (listed.key, listed.size) == ("logs/a b.log", len(body))
        client.delete(bucket, "logs/a b.log")
        assert direct.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.e2e
def test_a_bucket_with_versions_and_unfinished_uploads_is_removed(
    make_bucket: Callable[..., str], direct: Any
):
    bucket = make_bucket()
    direct.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    direct.put_object(Bucket=bucket, Key="a", Body=b"1")
    direct.put_object(Bucket=bucket, Key="a", Body=b"2")
    direct.delete_object(Bucket=bucket, Key="a")
    direct.create_multipart_upload(Bucket=bucket, Key="b")


def test_reserved_ports_do_not_collide():
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(live.reserved_port()) for _ in range(50)]
        assert len(set(ports)) == 50


_STAND_IN = """
    import http.server, os, signal, sys
    mode = os.environ.get("STAND_IN", "")
    def stop(*_):
        if mode == "traceback":
            print("Traceback (most recent call last):", flush=True)
        os._exit(3 if mode == "status" else 0)
    signal.signal(signal.SIGTERM, stop)
    if mode == "boot":
        sys.exit("no such flag")
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
    port = int(sys.argv[sys.argv.index("--port") + 1])
    print(sys.argv, os.environ["AWS_ACCESS_KEY_ID"], flush=True)
    http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""

_BACKEND = live.Endpoint("http://127.0.0.1:9", "AK", "SK")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in place of `s4`, for what a gateway should never do."""
    path = tmp_path / "s4"
    path.write_text(f"#!{sys.executable}\n{textwrap.dedent(_STAND_IN)}")
    path.chmod(0o700)
    monkeypatch.setattr(live, "program", lambda _: path)
    return tmp_path


def test_a_gateway_is_started_with_the_backends_keys_and_stopped(stand_in: Path):
    with live.gateway(_BACKEND, stand_in, "--extra") as gateway:
        said = gateway.read_log()
    assert "'--endpoint-url', 'http://127.0.0.1:9', '--extra'] AK" in said
    assert gateway.process.returncode == 0


@pytest.mark.parametrize(
    ("mode", "complaint"),
    [("status", "exit status 3"), ("traceback", "a fault in"), ("boot", "no such flag")],
)
def test_a_gateway_that_ends_badly_fails_the_test(stand_in: Path, mode: str, complaint: str):
    with (
        pytest.raises(live.ServerError, match=complaint),
        live.gateway(_BACKEND, stand_in, env={"STAND_IN": mode}),
    ):
        pass


def test_a_gateway_the_test_has_killed_is_not_judged(stand_in: Path):
    with live.gateway(_BACKEND, stand_in, env={"STAND_IN": "status"}) as gateway:
        gateway.kill()
    assert gateway.process.returncode == -signal.SIGKILL


def test_a_failing_test_still_ends_its_gateway(stand_in: Path):
    with pytest.raises(ZeroDivisionError), live.gateway(_BACKEND, stand_in) as gateway:
        raise ZeroDivisionError
    assert gateway.process.returncode is not None


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_gateway_ends_with_the_thread_that_started_it(stand_in: Path):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        context = live.gateway(_BACKEND, stand_in)
        gateway = pool.submit(context.__enter__).result()
    assert gateway.process.wait(live.STOP_SECONDS) == 0
    context.__exit__(None, None, None)


@pytest.mark.parametrize("size", [0, 1, 5000, 3_000_000])
def test_corpora_have_the_asked_size_and_are_the_same_twice(size: int):
    for make in (
        *(corpus.text, corpus.log, corpus.chatter, corpus.noise),
        *(corpus.quiet_head, corpus.noisy_head),
    ):
        assert len(make(size, seed=7)) == size
        assert make(size, seed=7) == make(size, seed=7)


def test_text_larger_than_what_is_installed_goes_round():
    assert len(corpus.text(60_000_000, seed=3)) == 60_000_000


def test_the_environment_of_this_machine_stays_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_PROFILE", "mine")
    assert "AWS_PROFILE" not in live.environment(Path("/"))
    assert os.environ.get("HTTP_PROXY") is None
