"""The container file by reading: what the deployment page says of it is in it."""

import re

import pytest

from s4gateway.gateway.config import GatewayConfig
from tests.docs import pages


@pytest.fixture(scope="module")
def last_stage() -> list[str]:
    """Instructions of the stage that is shipped, one a line."""
    text = (pages.ROOT / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return joined.rpartition("\nFROM ")[2].splitlines()


def _value(stage: list[str], instruction: str) -> str:
    found = [line for line in stage if line.startswith(f"{instruction} ")]
    assert len(found) == 1, f"{instruction}: {found}"
    return found[0].partition(" ")[2]


def test_it_runs_as_a_user_without_rights_given_as_a_number(last_stage: list[str]):
    user, _, group = _value(last_stage, "USER").partition(":")
    assert user.isdigit()
    assert group.isdigit()
    assert int(user) > 0
    assert f"user {user}" in (pages.DOCS / "how-to" / "deploy.md").read_text()


def test_nothing_is_installed_after_the_user_is_set(last_stage: list[str]):
    at = next(number for number, line in enumerate(last_stage) if line.startswith("USER "))
    assert not [line for line in last_stage[at:] if line.startswith(("RUN ", "COPY ", "ADD "))]


def test_malloc_keeps_two_arenas(last_stage: list[str]):
    assert "MALLOC_ARENA_MAX=2" in _value(last_stage, "ENV").split()


def test_it_exposes_the_default_port_and_stops_by_draining(last_stage: list[str]):
    port = GatewayConfig().port
    assert _value(last_stage, "EXPOSE") == str(port)
    assert _value(last_stage, "STOPSIGNAL") == "SIGTERM"
    assert f"127.0.0.1:{port}/health" in "\n".join(last_stage)


def test_it_holds_no_secret_and_no_insecure_setting(last_stage: list[str]):
    text = "\n".join(last_stage)
    assert "SECRET" not in text.upper()
    assert "insecure" not in text
