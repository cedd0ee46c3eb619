"""Dashboard and alert rules name what exists, and are what their page says they are."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from s4gateway.gateway import ledger_metrics, metrics
from tests import live
from tests.docs import contrib, pages

_PAGE = pages.DOCS / "how-to" / "watch-savings.md"
_RULE_TESTS = pages.ROOT / "tests" / "docs" / "s4-alerts-test.yml"


def _exposed() -> set[str]:
    everything = metrics.Metrics()
    ledger_metrics.LedgerMetrics(everything.registry)
    families = [family for family in everything.registry.collect()]  # noqa: C416
    names = {f"{each.name}_total" if each.type == "counter" else each.name for each in families}
    return {name for name in names if name.startswith("s4_")}


def test_the_dashboard_has_its_eight_panels_and_its_inputs():
    board = contrib.dashboard()
    assert (board["uid"], board["schemaVersion"]) == ("s4-savings-ledger", 39)
    assert board["title"] == "S4 — Measured savings (ledger)"
    assert (board["refresh"], board["time"]["from"]) == ("30s", "now-7d")
    assert [each["name"] for each in board["__inputs"]] == ["DS_PROMETHEUS"]
    assert [each.kind for each in contrib.panels()] == [
        "stat", "stat", "stat", "stat", "timeseries", "bargauge", "timeseries", "timeseries",
    ]  # fmt: skip
    assert contrib.variables()["price_per_gb_month"] == "0.023"


def test_every_target_asks_the_prometheus_that_was_chosen():
    for panel in contrib.dashboard()["panels"]:
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"] == {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}


def test_panels_do_not_overlap_and_have_ids_of_their_own():
    taken: set[tuple[int, int]] = set()
    board = contrib.dashboard()["panels"]
    for panel in board:
        grid = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in board}) == len(board)


@pytest.mark.parametrize("panel", contrib.panels(), ids=lambda panel: panel.title)
def test_a_panel_names_metrics_that_exist(panel: contrib.Panel):
    for expression in panel.asked(contrib.variables()):
        assert contrib.metric_names(expression)
        assert contrib.metric_names(expression) <= _exposed()


def test_alerts_name_metrics_that_exist():
    alerts = contrib.alerts()
    assert len(alerts) == contrib.ALERTS.read_text().count("- alert: ")
    named = {name for each in alerts.values() for name in contrib.metric_names(each)}
    assert named <= _exposed()
    assert {name for name in _exposed() if re.search("ledger|state_file", name)} - named == set()


def test_the_page_lists_every_panel_and_every_alert():
    text = pages.prose(_PAGE)
    for panel in contrib.panels():
        assert panel.title in text
    assert {name for name in re.findall(r"`(S4\w+)`", text)} == set(contrib.alerts())  # noqa: C416


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not():
    cases = re.findall(r"alertname: (\w+)(})?", _RULE_TESTS.read_text())
    assert {name for name, ends in cases if not ends} == set(contrib.alerts())
    assert {name for name, ends in cases if ends} == set(contrib.alerts())


@pytest.mark.slow
def test_prometheus_finds_the_rules_sound_and_their_cases_right():
    promtool = live.program("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    _run([str(promtool), "check", "rules", str(contrib.ALERTS)])
    _run([str(promtool), "test", "rules", str(_RULE_TESTS)])


@pytest.mark.slow
def test_prometheus_takes_the_configuration_that_is_shown(tmp_path: Path):
    promtool = live.program("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    (block,) = [block for block in pages.blocks(_PAGE) if "prometheus.yml" in block.words]
    text = block.text.replace("/etc/prometheus/s4-alerts.yml", str(contrib.ALERTS))
    assert text != block.text
    config = tmp_path / "prometheus.yml"
    config.write_text(text)
    _run([str(promtool), "check", "config", str(config)])


def test_the_dashboard_can_be_provisioned_as_the_page_says(tmp_path: Path):
    (block,) = [block for block in pages.blocks(_PAGE) if "provision" in block.words]
    target = "/var/lib/grafana/dashboards"
    assert target in block.text
    _run(["sh", "-euc", block.text.replace(target, str(tmp_path))])
    board = json.loads((tmp_path / "s4-savings.json").read_text())
    text = json.dumps(board["panels"])
    assert "DS_PROMETHEUS" not in text
    assert board["panels"][0]["datasource"]["uid"] == "prometheus-uid"


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, cwd=pages.ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
