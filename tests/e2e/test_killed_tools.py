"""`kill -9` in the middle of everything that writes, and the same command once more.

A server between the tool and the store kills the process at a chosen write: before the store has
seen it, or after the store has carried it out and before the answer is heard of.
"""

import asyncio
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import corpus, live
from tests.e2e import meddler, rewriting
from tests.e2e.operators import Operator, Said
from tests.rude_server import Exchange, Request

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

MIB = 1024 * 1024
SECONDS = 600
WRITES = frozenset({"PUT", "POST", "DELETE"})
BODIES = {f"{number}/ä+ {number}": corpus.text(20_000, seed=number + 1) for number in range(4)}
LARGE = {"9/large": corpus.log(6 * MIB, seed=9)}
QUICKLY = ("--target-zstd-level", "9")
State = Mapping[str, tuple[str, Any, int]]


@pytest.fixture
def operator(seaweedfs: live.Seaweedfs, tmp_path: Path) -> Operator:
    return Operator(seaweedfs, tmp_path)


@dataclass(frozen=True, slots=True)
class Death:
    """At the `number`-th write whose method and target match; `late`: once it is carried out."""

    matching: str
    number: int
    late: bool

    def strikes(self, request: Request) -> bool:
        line = f"{request.method} {request.target.decode()}"
        return request.method in WRITES and re.search(self.matching, line) is not None


def killed(operator: Operator, death: Death, *arguments: str) -> None:
    """Run a command until it is killed."""
    running: list[subprocess.Popen[bytes]] = []
    started = threading.Event()
    with meddler.between(operator.store) as meddling:

        async def kill(exchange: Exchange, ask: meddler.Ask) -> None:
            if len(meddling.seen) < death.number:
                await exchange.send((await ask()).wire)
                return
            if death.late and len(meddling.seen) == death.number:
                await ask()
            await asyncio.to_thread(started.wait)
            running[0].kill()

        with meddling.misbehaving(kill, death.strikes):
            running.append(Operator(meddling.endpoint, operator.folder).start(*arguments))
            started.set()
            try:
                assert running[0].wait(SECONDS) == -signal.SIGKILL
            finally:
                running[0].kill()
                running[0].wait()


@dataclass(frozen=True, slots=True)
class Scene:
    """A bucket before the first run of a command, and how it is looked at."""

    operator: Operator
    bucket: str
    direct: Any
    fetch: Callable[..., bytes]
    bodies: dict[str, bytes]

    def state(self) -> State:
        return rewriting.times(self.direct, self.bucket)

    def run_again(self, before: State, *arguments: str) -> Said:
        """The command once more: what was done is not done twice, and a third run does nothing."""
        left = self.state()
        said = self.operator.s4(*arguments, json=True)
        assert said.status == 0, (said.err, said.text)
        after = self.state()
        done = {key: each for key, each in left.items() if before.get(key) != each}
        assert {key: after.get(key) for key in done} == done
        assert self.operator.s4(*arguments).status == 0
        assert self.state() == after
        self.check()
        return said

    def check(self) -> None:
        """Nothing is damaged."""
        for key, body in self.bodies.items():
            assert self.fetch(self.bucket, key) == body, key
            middle = len(body) // 2
            span = f"bytes={middle}-{middle + 99}"
            assert self.fetch(self.bucket, key, Range=span) == body[middle : middle + 100], key
        assert self.operator.s4("verify", self.bucket).status == 0


@pytest.fixture
def scene(operator: Operator, bucket: str, direct: Any, fetch: Callable[..., bytes]) -> Scene:
    return Scene(operator, bucket, direct, fetch, {**BODIES, **LARGE})


def more(*values: Any) -> Any:
    """Another case of what the default run has cases of."""
    return pytest.param(*values, marks=pytest.mark.huge)


UNSEEN = Death("^PUT .*/[02]/", 2, late=False)
UNHEARD = Death("^PUT .*/2/", 1, late=True)
UNINDEXED = Death("^PUT .*/large$", 1, late=True)


@pytest.mark.parametrize("death", [UNSEEN, UNINDEXED, more(UNHEARD)])
def test_migrate(scene: Scene, death: Death):
    rewriting.fill(scene.direct, scene.bucket, scene.bodies, Metadata={"a": "b"})
    before = scene.state()
    command = ("migrate", scene.bucket, "--execute", "--concurrency", "1")
    killed(scene.operator, death, *command)
    report = scene.run_again(before, *command).report
    assert report["migrated"] + report["skipped_already_s4"] == len(scene.bodies)
    assert report["skipped_already_s4"] >= 1
    if death is UNINDEXED:  # whole, and read as a whole object is, until it has its index
        large = f"{scene.bucket}/9/large"
        said = scene.operator.s4("verify", scene.bucket, "--sidecars", json=True)
        assert [each["key"] for each in said.report["indexes"]] == ["9/large"]
        assert scene.operator.s4("repair-sidecar", large).status == 0
        assert scene.operator.s4("verify-sidecar", large).text[:2] == "OK"


@pytest.mark.parametrize("death", [UNHEARD, more(UNSEEN), more(UNINDEXED)])
def test_migrate_undo(scene: Scene, death: Death, s3: Any):
    rewriting.fill(s3, scene.bucket, scene.bodies, Metadata={"a": "b"})
    before = scene.state()
    command = ("migrate", scene.bucket, "--undo", "--execute", "--concurrency", "1")
    killed(scene.operator, death, *command)
    report = scene.run_again(before, *command).report
    assert report["migrated"] + report["skipped_not_s4"] == len(scene.bodies)
    stored = rewriting.state(scene.direct, scene.bucket, scene.bodies)
    assert {key: each["Body"] for key, each in stored.items()} == scene.bodies
    assert all(each["Metadata"] == {"a": "b"} for each in stored.values())


@pytest.mark.parametrize("death", [UNSEEN, more(UNHEARD), more(UNINDEXED)])
def test_recompact(scene: Scene, death: Death, s3: Any):
    rewriting.fill(s3, scene.bucket, scene.bodies, Metadata={"a": "b"})
    before = scene.state()
    command = ("recompact", scene.bucket, "--execute", *QUICKLY, "--concurrency", "1")
    killed(scene.operator, death, *command)
    report = scene.run_again(before, *command).report
    assert report["recompacted"] + report["skipped_already_compacted"] == len(scene.bodies)
    assert report["skipped_already_compacted"] >= 1


def policy(folder: Path, bucket: str) -> Path:
    rules = {
        "compress": 'action = "migrate"\nprefix = "0/"',
        "squeeze": 'action = "recompact"\nprefix = "1/"\ntarget-zstd-level = 9',
        "cool": 'action = "transition"\nprefix = "9/"\nstorage-class = "GLACIER_IR"',
        "clean": 'action = "mpu-state-gc"\nolder-than = "0s"',
    }
    path = folder / "policy.toml"
    path.write_text(
        "".join(f'[[rule]]\nname = "{n}"\nbucket = "{bucket}"\n{r}\n' for n, r in rules.items())
    )
    return path


@pytest.mark.parametrize(
    "death",
    [
        Death("^PUT .*/0/", 1, late=True),
        Death("^PUT .*/1/", 1, late=True),
        Death("^PUT .*/9/large$", 1, late=True),
        Death("^POST .*[?&]delete", 2, late=True),
        more(Death("^PUT .*/0/", 1, late=False)),
        more(Death("^PUT .*/1/", 1, late=False)),
        more(Death("^PUT .*/9/large$", 1, late=False)),
        more(Death("^PUT .*/9/large.s4index", 1, late=False)),
        more(Death("^PUT .*/9/large.s4index", 1, late=True)),
        more(Death("^POST .*[?&]delete", 1, late=False)),
        more(Death("^POST .*[?&]delete", 1, late=True)),
        more(Death("^POST .*[?&]delete", 2, late=False)),
    ],
)
def test_maintain_with_a_rule_of_each_kind(scene: Scene, s3: Any, death: Death):
    for key, body in scene.bodies.items():
        client = scene.direct if key.startswith("0/") else s3
        client.put_object(Bucket=scene.bucket, Key=key, Body=body)
    for key in ("lost", "lost too"):
        part = {"Bucket": scene.bucket, "Key": key}
        part["UploadId"] = s3.create_multipart_upload(**part)["UploadId"]
        s3.upload_part(**part, PartNumber=1, Body=b"part")
        scene.direct.abort_multipart_upload(**part)
    before = scene.state()
    path = policy(scene.operator.folder, scene.bucket)
    command = ("maintain", "--policy", str(path), "--execute")
    killed(scene.operator, death, *command)
    report = scene.run_again(before, *command).report
    assert (report["rules_run"], report["rules_failed"]) == (4, 0)
    after = scene.state()
    assert not any(key.startswith(".s4mpu/") for key in after)
    listed = scene.direct.list_objects_v2(Bucket=scene.bucket, Prefix="9/")["Contents"]
    assert {each["StorageClass"] for each in listed} == {"GLACIER_IR"}
    assert scene.operator.s4("verify-sidecar", f"{scene.bucket}/9/large").text[:2] == "OK"


@pytest.mark.parametrize("late", [True, more(False)])
def test_repair_sidecar(scene: Scene, s3: Any, late: bool):
    (key, body), *_ = LARGE.items()
    s3.put_object(Bucket=scene.bucket, Key=key, Body=body)
    scene.bodies.clear()
    scene.bodies[key] = body
    scene.direct.delete_object(Bucket=scene.bucket, Key=f"{key}.s4index")
    command = ("repair-sidecar", f"{scene.bucket}/{key}")
    killed(scene.operator, Death("^PUT .*s4index", 1, late), *command)
    assert scene.operator.s4(*command).status == 0
    assert scene.operator.s4("verify-sidecar", f"{scene.bucket}/{key}").text[:2] == "OK"
    scene.check()


@pytest.mark.parametrize("late", [True, more(False)])
def test_sweep_orphan_sidecars(scene: Scene, s3: Any, late: bool):
    large = LARGE["9/large"]
    for name in ("a", "b", "c", "kept"):
        s3.put_object(Bucket=scene.bucket, Key=name, Body=large)
    for name in ("a", "b", "c"):
        scene.direct.delete_object(Bucket=scene.bucket, Key=name)
    scene.bodies.clear()
    scene.bodies["kept"] = large
    command = ("sweep-orphan-sidecars", scene.bucket, "--delete")
    killed(scene.operator, Death("^(DELETE|POST) ", 2, late), *command)
    assert "kept.s4index" in scene.state()
    assert scene.operator.s4(*command).status == 0
    assert set(scene.state()) == {"kept", "kept.s4index"}
    assert scene.operator.s4("verify-sidecar", f"{scene.bucket}/kept").text[:2] == "OK"
    scene.check()
