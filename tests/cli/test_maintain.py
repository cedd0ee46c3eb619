"""`s4 maintain`: what is wrong before it begins, and what is printed when it has ended."""

import asyncio
import json
from pathlib import Path

import pytest

from s4gateway.backend.memory import MemoryBackend
from s4gateway.cli import maintain
from s4gateway.tools import rules as policies
from s4gateway.tools.maintain import Setting, run_rules
from s4gateway.tools.objects import Making
from tests.cli.test_main import s4
from tests.objects import world
from tests.objects.world import BUCKET

_STORE = ("--endpoint-url", "http://127.0.0.1:1")
RULE = "[[rule]]\nname = 'cool'\nbucket = 'logs'\naction = 'transition'\n"
RIGHT = RULE + "storage-class = 'GLACIER_IR'\n"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(RIGHT)
    return path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (_STORE, "--policy"),
        (("--policy", "POLICY"), "--endpoint-url: missing"),
        (("--policy", "POLICY", "--interval", "0s", *_STORE), "--interval: give at least 1s"),
        (("--policy", "POLICY", "--interval", "soon", *_STORE), "is no duration"),
        (("--policy", "POLICY", "--format", "xml", *_STORE), "--format"),
        (("--policy", "POLICY", "rest", *_STORE), "unexpected extra argument"),
    ],
)
def test_a_wrong_command_line_is_status_2(
    capsys: pytest.CaptureFixture[str], policy: Path, arguments: tuple[str, ...], said: str
):
    given = [str(policy) if each == "POLICY" else each for each in arguments]
    status, out, err = s4(capsys, "maintain", *given)
    assert (status, out) == (2, "")
    assert said in err


@pytest.mark.parametrize("more", [(), ("--execute",), ("--interval", "1h"), ("--format", "json")])
def test_a_wrong_policy_is_told_whole_before_anything_is_asked_of_the_store(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    policy: Path,
    more: tuple[str, ...],
):
    """There are no keys to ask with, which would be said before a request is sent."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    policy.write_text(RULE + "older-than = 'long'\ncolour = 1\n")
    status, out, err = s4(capsys, "maintain", "--policy", str(policy), *_STORE, *more)
    assert (status, out) == (1, "")
    headline, *problems = err.splitlines()
    assert headline == f"s4: invalid maintain policy {policy} (3 errors):"
    assert [problem.partition(";")[0].partition(": give")[0] for problem in problems] == [
        "s4: - rule 'cool': older-than: 'long' is no duration",
        "s4: - rule 'cool': unknown key 'colour'",
        "s4: - rule 'cool': storage-class is missing",
    ]


def test_a_policy_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    path = tmp_path / "none.toml"
    status, out, err = s4(capsys, "maintain", "--policy", str(path), *_STORE)
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        f"s4: cannot read {path}:",
        "s4: - No such file or directory",
    ]


@pytest.mark.parametrize("form", ["table", "json"])
def test_rules_that_fail_are_reported_and_status_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, policy: Path, form: str
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    more = ("--policy", str(policy), *_STORE, "--format", form)
    status, out, _ = s4(capsys, "maintain", *more)
    assert status == 1
    if form == "json":
        report = json.loads(out)
        assert (report["rules_run"], report["rules_failed"], report["dry_run"]) == (1, 1, True)
        assert report["rules"][0]["outcome"]["result"] == "error"
        assert report["notes"]
        return
    lines = out.splitlines()
    assert lines[:2] == [
        "S4 maintain — dry-run (pass --execute to write)",
        "rules: 1 (1 run, 1 failed)",
    ]
    assert '=== rule "cool" — transition logs ===' in lines
    assert any(line.startswith("error: ") for line in lines)
    assert "Notes:" in lines


def store() -> MemoryBackend:
    """Two objects, one with a sidecar that S3 would have to bind anew, and a stray record."""
    found = MemoryBackend.with_buckets(BUCKET)
    body = world.framed([b"some text " * 50] * 3)
    etag = world.put_stored(found, "a", body.stored, body.metadata, etag=f"{'0' * 32}-2")
    world.put_sidecar(found, "a", body.index.bind(etag, len(body.stored)).encode())
    world.put_stored(found, "b", b"plain")
    world.put_stored(found, ".s4mpu/75/00001", b"part")
    return found


@pytest.mark.parametrize("execute", [False, True])
def test_each_action_has_its_table(tmp_path: Path, execute: bool):
    actions = {
        "transition": {"storage-class": "GLACIER_IR", "older-than": "0s"},
        "migrate": {"no-tags": True},
        "recompact": {"no-tags": True},
        "mpu-state-gc": {"older-than": "1d"},
    }
    tables = [
        {"name": f"to {action}", "bucket": BUCKET, "action": action, **keys}
        for action, keys in actions.items()
    ]
    problems: list[str] = []
    rules = policies.parse_table({"rule": tables}, problems)
    assert problems == []
    setting = Setting(Making(threads=1, spool=tmp_path, conditional_writes=True), execute)
    report = asyncio.run(run_rules(store(), rules, setting, asyncio.Event()))
    lines = list(maintain._table(report))
    assert lines[0] == "S4 maintain — " + (
        "execute" if execute else "dry-run (pass --execute to write)"
    )
    assert lines[1] == "rules: 4 (4 run, 0 failed)"
    for action in actions:
        assert f'=== rule "to {action}" — {action} {BUCKET} ===' in lines
    assert "target storage class: GLACIER_IR   older than: 0:00:00" in lines
    done = "transitioned" if execute else "would transition"
    (moved,) = [line for line in lines if line.startswith(f"{done}: 2 objects, ")]
    assert moved.endswith("+ 1 sidecars (1 bound anew)" if execute else "+ 1 sidecars")
    assert any(
        line.startswith("skipped: already-target-class 0, too-recent 0, etag-raced 0")
        for line in lines
    )
    assert f"{'deleted' if execute else 'would delete'}: 1 of 1 orphaned, 0 of completions" in lines
