"""`s4 train-dict`, `dict-status`, `dict gc` and `dict export`, over a store that speaks HTTP."""

import contextlib
import json
import re
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from s4gateway.objects import dict_map, dictionaries
from tests import events, live
from tests.cli.test_main import s4

RETRAIN = "dictionary may be stale; consider retraining (s4 train-dict)"
HEALTHY = """\
s4_dict_put_total{prefix="logs/events/",outcome="win"} 30
s4_dict_put_bytes_total{prefix="logs/events/",kind="original"} 1000
s4_dict_put_bytes_total{prefix="logs/events/",kind="dict"} 250
s4_dict_put_bytes_total{prefix="logs/events/",kind="plain"} 900
s4_dict_fetch_total{result="ok"} 4
"""
STALE = (
    HEALTHY
    + """\
s4_dict_put_total{prefix="logs/\\nold/",outcome="win"} 1
s4_dict_put_total{prefix="logs/\\nold/",outcome="loss"} 19
"""
)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture
def store(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of the store; the commands find it through the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("S4_ENDPOINT_URL", endpoint)
    with contextlib.closing(boto3.client("s3", "us-east-1", endpoint_url=endpoint)) as client:
        yield client


@pytest.fixture
def bucket(store: Any) -> str:
    name = live.bucket_name()
    store.create_bucket(Bucket=name)
    return name


def fill(store: Any, bucket: str, bodies: list[bytes]) -> None:
    for number, body in enumerate(bodies):
        store.put_object(Bucket=bucket, Key=f"events/{number:03}", Body=body)


# --- train-dict


def test_train_dict_prints_what_to_start_the_gateway_with(
    store: Any, bucket: str, capsys: pytest.CaptureFixture[str]
):
    fill(store, bucket, events.orders(40))
    status, out, err = s4(capsys, "train-dict", f"{bucket}/events/", "--max-dict-bytes", "4096")
    assert (status, err) == (0, "")
    (key,) = [
        each["Key"] for each in store.list_objects_v2(Bucket=bucket, Prefix=".s4dict/")["Contents"]
    ]
    dict_id = key.removeprefix(".s4dict/")
    assert f"--zstd-dict '{bucket}/events/={dict_id}'" in out
    assert f'"{bucket}/events/" = "{dict_id}"' in out
    assert "win rate 1.00" in out
    head = store.head_object(Bucket=bucket, Key=key)
    assert head["ContentType"] == "application/x-zstd-dictionary"
    assert head["Metadata"]["s4-dict-sha256"].startswith(dict_id)


def test_train_dict_says_the_same_in_json(
    store: Any, bucket: str, capsys: pytest.CaptureFixture[str]
):
    fill(store, bucket, events.orders(40))
    _, out, _ = s4(capsys, "train-dict", f"{bucket}/events/", "--format", "json", "--dry-run")
    planned = json.loads(out)
    assert (planned["published"], planned["samples"], planned["trained_on"]) == (False, 40, 32)
    assert planned["held_out"]["wins"] == 8
    status, out, _ = s4(capsys, "train-dict", f"{bucket}/events/", "--format", "json")
    report = json.loads(out)
    assert (status, report["published"], report["dict_id"]) == (0, True, planned["dict_id"])
    mapped = dict_map.parse_table(tomllib.loads(f"[mappings]\n{report['map_line']}"))
    assert mapped.mappings[0].dict_id == report["dict_id"]


def test_train_dict_refuses_what_does_not_pay_with_status_1_and_the_figures(
    store: Any, bucket: str, capsys: pytest.CaptureFixture[str]
):
    fill(store, bucket, [b'{"number": %d}' % number for number in range(20)])
    status, out, err = s4(capsys, "train-dict", f"{bucket}/events/")
    assert status == 1
    assert "not published" in out
    assert err.startswith("s4: not published: the dictionary does not pay: it wins on 0 of 4")
    assert "--force" in err
    assert "Contents" not in store.list_objects_v2(Bucket=bucket, Prefix=".s4dict/")
    status, out, err = s4(capsys, "train-dict", f"{bucket}/events/", "--force")
    assert (status, err) == (0, "")


def test_train_dict_without_enough_objects_is_one_line(
    store: Any, bucket: str, capsys: pytest.CaptureFixture[str]
):
    fill(store, bucket, events.orders(3))
    status, out, err = s4(capsys, "train-dict", f"{bucket}/events/")
    assert (status, out) == (1, "")
    assert err == (
        f"s4: {bucket}/events/: 3 of 3 objects can serve as samples, at least 8 are needed\n"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--max-dict-bytes", "1048577"], "1048577"),
        (["--max-dict-bytes", "10"], "from 256"),
    ],
)
def test_train_dict_refuses_an_impossible_size(
    store: Any,
    bucket: str,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
):
    status, out, err = s4(capsys, "train-dict", f"{bucket}/events/", *arguments)
    assert (status, out) == (1, "")
    assert says in err
    assert len(err.splitlines()) == 1


def test_a_bucket_that_is_not_there_is_one_line(store: Any, capsys: pytest.CaptureFixture[str]):
    for command in (["train-dict", "no-such-bucket/p"], ["dict", "gc", "no-such-bucket"]):
        status, out, err = s4(capsys, *command)
        assert (status, out) == (1, "")
        assert err.startswith("s4: the store: 404 NoSuchBucket")
        assert len(err.splitlines()) == 1


# --- dict-status


@contextlib.contextmanager
def serving(page: str) -> Iterator[str]:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/metrics"
        finally:
            server.shutdown()
            thread.join()


def test_dict_status_is_0_when_all_is_well(capsys: pytest.CaptureFixture[str]):
    with serving(HEALTHY) as url:
        status, out, err = s4(capsys, "dict-status", "--metrics-url", url)
    assert (status, err) == (0, "")
    assert out.splitlines()[:3] == [
        "PREFIX        WIN  LOSS  WIN-RATE  ORIGINAL-BYTES  DICT-BYTES  DICT-RATIO",
        "logs/events/   30     0      1.00            1000         250       0.250",
        "lazy dict fetches: ok=4 err=0",
    ]


def test_dict_status_is_1_and_warns_on_stderr_when_a_dictionary_is_stale(
    capsys: pytest.CaptureFixture[str],
):
    with serving(STALE) as url:
        status, out, err = s4(capsys, "dict-status", "--metrics-url", url)
    assert status == 1
    assert err == (
        f"WARN prefix logs/\\nold/: win rate 0.05 over 20 PUTs is below 0.5: {RETRAIN}\n"
    )
    rows = out.splitlines()
    assert [line.endswith("STALE") for line in rows[1:3]] == [True, False]


def test_dict_status_in_json_has_every_field(capsys: pytest.CaptureFixture[str]):
    with serving(STALE) as url:
        status, out, err = s4(
            capsys, "dict-status", "--metrics-url", url, "--format", "json",
            "--warn-win-rate", "0.05",
        )  # fmt: skip
    report = json.loads(out)
    assert (status, err) == (0, "")
    assert {
        "prefixes",
        "dict_fetch_ok",
        "dict_fetch_err",
        "warn_win_rate",
        "warnings",
        "notes",
    } <= (report.keys())
    assert report["prefixes"][1] == {
        "prefix": "logs/events/",
        "wins": 30,
        "losses": 0,
        "win_rate": 1.0,
        "original_bytes": 1000,
        "dict_bytes": 250,
        "plain_bytes": 900,
        "dict_ratio": 0.25,
        "stale": False,
    }


def test_dict_status_that_cannot_scrape_is_status_1_and_one_line(
    capsys: pytest.CaptureFixture[str],
):
    status, out, err = s4(capsys, "dict-status", "--metrics-url", "http://127.0.0.1:1/metrics")
    assert (status, out) == (1, "")
    assert err.startswith("s4: http://127.0.0.1:1/metrics: ")
    assert len(err.splitlines()) == 1


def test_dict_status_over_a_window_judges_the_present(capsys: pytest.CaptureFixture[str]):
    with serving(STALE) as url:
        status, out, _ = s4(
            capsys, "dict-status", "--metrics-url", url, "--window", "0s", "--format", "json"
        )
    report = json.loads(out)
    assert (status, report["window_seconds"]) == (0, 0.0)
    assert all(each["wins"] == each["losses"] == 0 for each in report["prefixes"])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--metrics-url", "http://h/", "--warn-win-rate", "1.5"],
        ["--metrics-url", "http://h/", "--warn-win-rate", "-0.1"],
        ["--metrics-url", "http://h/", "--warn-win-rate", "nan"],
        ["--metrics-url", "http://h/", "--window", "1.5s"],
        ["--metrics-url", "http://h/", "--window", "60"],
        ["--metrics-url", "http://h/", "--format", "xml"],
    ],
)
def test_dict_status_with_a_wrong_command_line_is_status_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
):
    status, out, err = s4(capsys, "dict-status", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("s4: ")


# --- dict gc


@pytest.fixture
def dict_ids(store: Any, bucket: str) -> tuple[str, str]:
    """Two dictionaries of the bucket, of which an object needs the first."""
    found = []
    for data in (b"the quick brown fox", b"jumps over the lazy dog"):
        found.append(dictionaries.fingerprint(data))
        store.put_object(Bucket=bucket, Key=f".s4dict/{found[-1]}", Body=data)
    metadata = {"s4-codec": "cpu-zstd-dict", "s4-dict-id": found[0]}
    store.put_object(Bucket=bucket, Key="object", Body=b"stored", Metadata=metadata)
    return found[0], found[1]


def kept(store: Any, bucket: str) -> set[str]:
    listed = store.list_objects_v2(Bucket=bucket, Prefix=".s4dict/").get("Contents", ())
    return {each["Key"].removeprefix(".s4dict/") for each in listed}


def test_dict_gc_looks_unless_told_to_delete(
    store: Any, bucket: str, dict_ids: tuple[str, str], capsys: pytest.CaptureFixture[str]
):
    status, out, err = s4(capsys, "dict", "gc", bucket)
    assert (status, err) == (0, "")
    assert "dry-run" in out
    lines = dict(re.findall("^([0-9a-f]{16})  ([a-z]+) ", out, re.MULTILINE))
    assert lines == {dict_ids[0]: "referenced", dict_ids[1]: "unreferenced"}
    assert kept(store, bucket) == set(dict_ids)


def test_dict_gc_deletes_what_is_old_and_unused(
    store: Any, bucket: str, dict_ids: tuple[str, str], capsys: pytest.CaptureFixture[str]
):
    status, out, _ = s4(
        capsys, "dict", "gc", bucket, "--execute", "--older-than", "1d", "--format", "json"
    )
    assert (status, json.loads(out)["deleted"]) == (0, 0)
    assert kept(store, bucket) == set(dict_ids)
    status, out, _ = s4(
        capsys, "dict", "gc", bucket, "--execute", "--older-than", "0s", "--format", "json"
    )
    report = json.loads(out)
    assert (status, report["deleted"], report["complete"]) == (0, 1, True)
    assert {each["id"]: each["state"] for each in report["dictionaries"]} == {
        dict_ids[0]: "referenced",
        dict_ids[1]: "deleted",
    }
    assert kept(store, bucket) == {dict_ids[0]}


@pytest.mark.parametrize("how", ["--keep", "--zstd-dict", "--zstd-dict-map"])
def test_dict_gc_keeps_what_is_named_or_mapped(
    store: Any,
    bucket: str,
    dict_ids: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    how: str,
):
    file = tmp_path / "map.toml"
    file.write_text(f'[mappings]\n"{bucket}/new/" = "{dict_ids[1]}"\n')
    value = {
        "--keep": dict_ids[1],
        "--zstd-dict": f"{bucket}/new/={dict_ids[1]}",
        "--zstd-dict-map": str(file),
    }[how]
    status, out, _ = s4(capsys, "dict", "gc", bucket, "--execute", "--older-than", "0s", how, value)
    assert status == 0
    assert f"{dict_ids[1]}  kept" in out
    assert kept(store, bucket) == set(dict_ids)


def test_dict_gc_with_a_broken_map_does_nothing(
    store: Any,
    bucket: str,
    dict_ids: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    file = tmp_path / "map.toml"
    file.write_text('[mappings]\n"a" = "x"\n"b/" = 7\n')
    command = ("dict", "gc", bucket, "--execute", "--older-than", "0s", "--zstd-dict-map")
    status, out, err = s4(capsys, *command, str(file))
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 2
    assert kept(store, bucket) == set(dict_ids)


@pytest.mark.parametrize(
    "arguments",
    [
        ["dict"],
        ["dict", "gc"],
        ["dict", "gc", "b/p"],
        ["dict", "gc", "b", "--execute"],
        ["dict", "gc", "b", "--keep", "../x"],
        ["dict", "export", "b", "XYZ"],
        ["dict", "export", "b", "--to", "/no/such/directory"],
        ["train-dict"],
        ["train-dict", "b", "--max-samples", "7"],
        ["train-dict", "b", "--max-samples", "20", "--min-samples", "21"],
    ],
)
def test_a_wrong_command_line_is_status_2(
    store: Any, capsys: pytest.CaptureFixture[str], arguments: list[str]
):
    status, _, err = s4(capsys, *arguments)
    assert status == 2
    assert err


# --- dict export


def test_dict_export_writes_files_and_overwrites_none(
    store: Any,
    bucket: str,
    dict_ids: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    (tmp_path / f"{dict_ids[0]}.dict").write_text("mine")
    status, out, err = s4(capsys, "dict", "export", bucket, "--to", str(tmp_path))
    assert status == 1
    assert (tmp_path / f"{dict_ids[1]}.dict").read_bytes() == b"jumps over the lazy dog"
    assert (tmp_path / f"{dict_ids[0]}.dict").read_text() == "mine"
    assert f"{dict_ids[1]}.dict" in out
    assert err.startswith("s4: ")
    assert "File exists" in err


def test_dict_export_of_one_id(
    store: Any,
    bucket: str,
    dict_ids: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    status, _, err = s4(capsys, "dict", "export", bucket, dict_ids[0], "--to", str(tmp_path))
    assert (status, err) == (0, "")
    assert [each.name for each in tmp_path.iterdir()] == [f"{dict_ids[0]}.dict"]
