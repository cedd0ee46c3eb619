"""Dashboard and alerts in a real Prometheus that scrapes live gateways.

Debian's package is `prometheus`; its service need not run. Where the program is not installed these
tests, and no others, are skipped.
"""

import contextlib
import math
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from s4gateway.gateway import embedded
from s4gateway.state import ledger
from s4gateway.state.ledger import Counters
from tests import clients, corpus, live
from tests.conftest import StartGateway
from tests.docs import contrib
from tests.e2e import metering

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
GIB = 1 << 30

_CONFIG = """\
global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files: [{alerts}]
scrape_configs:
  - job_name: s4
    static_configs: [{{targets: [{targets}]}}]
"""

SAVED, RATIO, MONEY, OBJECTS, BYTES, BY_BUCKET, RATIOS, FLOW = contrib.panels()


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running server; what is asked of it goes through its HTTP API."""

    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        answer = httpx.get(
            f"{self.url}/api/v1/{path}", params=parameters, trust_env=False, timeout=60
        )
        found = answer.json()
        assert found["status"] == "success", (parameters, found)
        return found["data"]

    def values(self, expression: str) -> dict[str, float]:
        """An expression's values, by bucket where they have one."""
        rows = self.ask("query", query=expression)["result"]
        return {row["metric"].get("bucket", ""): float(row["value"][1]) for row in rows}

    def panel(self, panel: contrib.Panel, **variables: str) -> list[dict[str, float]]:
        """What a panel shows: never nothing, never below zero, always a number."""
        found = [self.values(each) for each in panel.asked(contrib.variables() | variables)]
        for values in found:
            assert values, panel
            assert all(math.isfinite(each) and each >= 0 for each in values.values()), panel
        return found


@contextlib.contextmanager
def _prometheus(folder: Path, *gateways: live.Gateway) -> Iterator[Prometheus]:
    """A Prometheus that has scraped each of the gateways a few times."""
    program = live.program("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed: apt-get install prometheus")
    config = folder / "prometheus.yml"
    targets = ", ".join(f'"{each.netloc}"' for each in gateways)
    config.write_text(_CONFIG.format(alerts=contrib.ALERTS, targets=targets))
    with live.reserved_port() as port, (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            embedded.tied_to_us(
                [
                    str(program),
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ]
            ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=live.environment(folder),
        )
        server = Prometheus(f"http://127.0.0.1:{port}")
        try:
            metering.until(lambda: _is_ready(process, server, folder))
            scrapes = "count_over_time(up{job='s4'}[1m]) >= 2"
            metering.until(
                lambda: len(server.ask("query", query=scrapes)["result"]) == len(gateways)
            )
            yield server
        finally:
            process.terminate()
            process.wait(120)


def _is_ready(process: subprocess.Popen[bytes], server: Prometheus, folder: Path) -> bool:
    assert process.poll() is None, live.tail(folder / "prometheus.log")
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{server.url}/-/ready", trust_env=False).is_success
    return False


def _state(path: Path, **totals: Counters) -> Path:
    path.write_bytes(ledger.render(totals))
    return path


def _flag(state: Path) -> tuple[str, str]:
    return ("--savings-ledger-state-file", str(state))


def test_a_fresh_gateway_shows_zeros_on_every_panel_and_fires_no_alert(
    start_gateway: StartGateway, tmp_path: Path
):
    with start_gateway(*_flag(tmp_path / "s")) as gateway, _prometheus(tmp_path, gateway) as server:
        for panel in contrib.panels():
            assert server.panel(panel) == [{"": 0.0}] * len(panel.expressions)
        firing = _rules(server)
        assert not any(firing.values()), firing


def test_a_ledger_in_use_has_a_value_on_every_panel_and_for_every_alert(
    start_gateway: StartGateway, tmp_path: Path, bucket: str
):
    state = _state(
        tmp_path / "s",
        saving=Counters(100 * GIB, 25 * GIB, 7, 1),
        grown=Counters(GIB, 2 * GIB, 3),
        emptied=Counters(),
    )
    with start_gateway(*_flag(state)) as gateway:
        _write(gateway, bucket)
        os.kill(gateway.pid, signal.SIGUSR1)
        with _prometheus(tmp_path, gateway) as server:
            mine = ledger.load(state)
            assert mine is not None
            original, stored = mine[bucket].original_bytes, mine[bucket].stored_bytes
            originals, storeds = 101 * GIB + original, 27 * GIB + stored
            assert server.panel(SAVED) == [{"": originals - storeds}]
            assert server.panel(RATIO) == [{"": pytest.approx(1 - storeds / originals)}]
            saved = pytest.approx((originals - storeds) / GIB * 0.023)
            assert server.panel(MONEY) == [{"": saved}]
            doubled = pytest.approx((originals - storeds) / GIB * 0.046)
            assert server.panel(MONEY, price_per_gb_month="0.046") == [{"": doubled}]
            assert server.panel(OBJECTS) == [{"": 11}]
            assert server.panel(BYTES) == [{"": originals}, {"": storeds}]
            by_bucket = {"saving": 75 * GIB, "grown": 0, "emptied": 0, bucket: original - stored}
            assert server.panel(BY_BUCKET) == [by_bucket]
            ratio = pytest.approx(1 - stored / original)
            ratios = {"saving": 0.75, "grown": 0, "emptied": 0, bucket: ratio}
            assert server.panel(RATIOS) == [ratios]
            metering.until(lambda: _moving(server, gateway, bucket))
            for name, expression in contrib.alerts().items():
                asked = contrib.without_threshold(expression)
                found = server.values(asked)
                assert found, (name, asked)
                assert all(math.isfinite(each) for each in found.values()), (name, found)
            assert metering.until(lambda: _rules(server)["S4LedgerDrift"]) == {"grown"}


def _write(gateway: live.Gateway, bucket: str) -> None:
    with contextlib.closing(clients.boto3_client(gateway)) as s3:
        s3.put_object(Bucket=bucket, Key="k", Body=corpus.text(MIB))


def _moving(server: Prometheus, gateway: live.Gateway, bucket: str) -> bool:
    """Write once more, and see whether Prometheus has noticed that writing goes on."""
    _write(gateway, bucket)
    taken, given = server.panel(FLOW)
    return 0 < given[""] < taken[""]


def _rules(server: Prometheus) -> dict[str, set[str]]:
    """The buckets for which each alert is pending or firing, "" for those about a gateway."""
    groups = server.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == set(contrib.alerts())
    for rule in rules:
        assert not rule.get("lastError"), rule
    return {
        rule["name"]: {each["labels"].get("bucket", "") for each in rule["alerts"]}
        for rule in rules
    }


def test_gateways_add_up_unless_they_are_said_to_share_a_state_file(
    start_gateway: StartGateway, tmp_path: Path
):
    state = _state(tmp_path / "s", b=Counters(20 * GIB, 5 * GIB, 3))
    with (
        start_gateway(*_flag(state)) as one,
        start_gateway(*_flag(state)) as two,
        _prometheus(tmp_path, one, two) as server,
    ):
        assert server.panel(SAVED, combine="sum") == [{"": 30 * GIB}]
        assert server.panel(SAVED, combine="max") == [{"": 15 * GIB}]
        assert server.panel(BY_BUCKET, combine="max") == [{"b": 15 * GIB}]
        assert server.panel(RATIO, combine="max") == [{"": 0.75}]
        assert server.panel(OBJECTS, combine="max") == [{"": 3}]


def test_a_state_file_that_is_set_aside_raises_the_alarm(
    start_gateway: StartGateway, tmp_path: Path
):
    state = tmp_path / "s"
    state.write_text("{")
    with start_gateway(*_flag(state)) as gateway, _prometheus(tmp_path, gateway) as server:
        assert metering.until(lambda: _rules(server)["S4StateFileLoadFailed"]) == {""}
