import asyncio
from typing import Any

import httpx
import pytest

from s4gateway.backend import base
from s4gateway.gateway import metrics
from s4gateway.gateway.metrics import Metrics
from s4gateway.gateway.probes import Probes, Readiness


class Pinged:
    """A backend of which only ping() is asked."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.pings = 0

    async def ping(self) -> None:
        self.pings += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


DOWN = base.BackendUnavailable("connection refused")


def probes() -> tuple[Probes, Pinged, Clock, httpx.AsyncClient]:
    backend, clock = Pinged(), Clock()
    store: Any = backend
    app = Probes(Metrics(), Readiness(store, clock=clock))
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x")
    return app, backend, clock, client


async def test_health_asks_nobody():
    _, backend, _, client = probes()
    backend.error = DOWN
    answer = await client.get("/health")
    assert (answer.status_code, answer.text) == (200, "ok\n")
    assert (await client.head("/health")).status_code == 200
    assert backend.pings == 0


async def test_ready_asks_the_backend_once_for_many_probes():
    _, backend, clock, client = probes()
    answers = await asyncio.gather(*(client.get("/ready") for _ in range(20)))
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, "ready\n")}
    assert backend.pings == 1
    clock.now += 1.9
    await client.get("/ready")
    assert backend.pings == 1
    clock.now += 0.2
    await client.get("/ready")
    assert backend.pings == 2


async def test_one_failed_ping_is_not_yet_unready_but_lasting_failure_is():
    _, backend, clock, client = probes()
    await client.get("/ready")
    backend.error = DOWN
    clock.now += 2
    assert (await client.get("/ready")).status_code == 200
    clock.now += 2
    answer = await client.get("/ready")
    assert (answer.status_code, answer.text) == (503, "not ready\n")
    backend.error = None
    clock.now += 2
    assert (await client.get("/ready")).status_code == 200


async def test_a_backend_that_never_answered_is_unready_at_once():
    _, backend, _, client = probes()
    backend.error = DOWN
    assert (await client.get("/ready")).status_code == 503


@pytest.mark.parametrize(("status", "ready"), [(403, 200), (404, 200), (500, 503), (503, 503)])
async def test_a_refusal_is_an_answer_and_a_server_fault_is_not(status: int, ready: int):
    _, backend, _, client = probes()
    backend.error = base.BackendAnswer(status, "Code")
    assert (await client.get("/ready")).status_code == ready


async def test_draining_is_unready_at_once_and_still_healthy():
    app, _, _, client = probes()
    assert (await client.get("/ready")).status_code == 200
    app.draining = True
    assert (await client.get("/ready")).status_code == 503
    assert (await client.get("/health")).status_code == 200


async def test_metrics_are_exposed_as_text():
    _, _, _, client = probes()
    answer = await client.get("/metrics")
    assert answer.headers["content-type"] == metrics.CONTENT_TYPE
    assert "s4_build_info" in answer.text


async def test_only_get_and_head_of_the_three_paths_are_probes():
    assert Probes.handles("GET", "/ready")
    assert Probes.handles("HEAD", "/metrics")
    for method, path in (
        ("PUT", "/health"),
        ("GET", "/health/x"),
        ("GET", "/"),
        ("POST", "/ready"),
    ):
        assert not Probes.handles(method, path)
    _, _, _, client = probes()
    assert (await client.get("/bucket/key")).status_code == 404
