"""The dashboard and the alert rules as data: their expressions, as Prometheus is to see them.

The rules' file is read as text, for no YAML parser is among our dependencies: `promtool` is the
judge of its form.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.docs import pages

DASHBOARD: Final = pages.ROOT / "contrib" / "grafana" / "s4-savings-dashboard.json"
ALERTS: Final = pages.ROOT / "contrib" / "prometheus" / "s4-alerts.yml"

_RULE = re.compile(
    r"^ +- alert: (\w+)\n +expr: (?:>-\n)?(.+?)\n +(?:for|labels):", re.MULTILINE | re.DOTALL
)
_THRESHOLD = re.compile(r"\s*(?<!=)[<>]=?\s*(?:bool\s*)?[0-9.]+(?=$| or )")


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: its kind, its title, and what it asks, with the dashboard's variables in it."""

    kind: str
    title: str
    expressions: tuple[str, ...]

    def asked(self, variables: Mapping[str, str]) -> list[str]:
        """The expressions with values for the variables, as Grafana sends them."""
        found = []
        for expression in self.expressions:
            for name, value in variables.items():
                expression = expression.replace(f"${name}", value)  # noqa: PLW2901
            assert "$" not in expression, expression
            found.append(expression)
        return found


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def panels() -> list[Panel]:
    """Its panels in their order."""
    return [
        Panel(each["type"], each["title"], tuple(target["expr"] for target in each["targets"]))
        for each in dashboard()["panels"]
    ]


def variables() -> dict[str, str]:
    """Its variables with their defaults, and what Grafana itself provides."""
    chosen = {each["name"]: each["current"]["value"] for each in dashboard()["templating"]["list"]}
    return chosen | {"__rate_interval": "1m"}


def alerts() -> dict[str, str]:
    """The expression of each alert."""
    return {
        name: " ".join(expression.split()) for name, expression in _RULE.findall(ALERTS.read_text())
    }


def without_threshold(expression: str) -> str:
    """What an alert compares with its threshold, which has a value when all is well, too."""
    return _THRESHOLD.sub("", expression)


def metric_names(expression: str) -> set[str]:
    """The gateway's metrics an expression names."""
    return set(re.findall(r"\bs4_\w+", expression))
