"""What a running gateway says of itself under /metrics."""

import time
from collections.abc import Callable
from typing import Any

import httpx

from tests import live

IDLE = ('s4_memory_budget_bytes{state="used"}', "s4_in_flight_requests")


def scrape(gateway: live.Endpoint) -> dict[str, float]:
    """Every sample by its name and labels."""
    url = f"{gateway.endpoint_url}/metrics"
    answer = httpx.get(url, verify=gateway.verify, trust_env=False, timeout=60.0)
    answer.raise_for_status()
    lines = (line.rpartition(" ") for line in answer.text.splitlines() if line[:1] != "#")
    return {name: float(value) for name, _, value in lines}


def settled(gateway: live.Endpoint, seconds: float = 120.0) -> dict[str, float]:
    """The metrics once no request is being answered and no memory is held."""
    deadline = time.monotonic() + seconds
    while True:
        found = scrape(gateway)
        held = {name: found[name] for name in IDLE if found[name]}
        if not held:
            return found
        assert time.monotonic() < deadline, held
        time.sleep(0.05)


def until(check: Callable[[], Any], seconds: float = 180.0) -> Any:
    """What `check` says once that is true of something that goes on meanwhile."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)
    return found
