import pytest
from prometheus_client.parser import text_string_to_metric_families

from s4gateway.gateway.metrics import FALLBACK_REASONS, Metrics


def samples(metrics: Metrics) -> dict[str, float]:
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        sample.name
        + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): (
            sample.value
        )
        for family in families
        for sample in family.samples
    }


def test_a_put_is_counted_under_its_names():
    metrics = Metrics()
    metrics.request("PutObject", 200)
    metrics.data("put", "cpu-zstd", ok=True, bytes_in=1000, bytes_out=100, seconds=0.02)
    found = samples(metrics)
    assert found["s4_requests_total codec=cpu-zstd op=put result=ok"] == 1
    assert found["s4_bytes_in_total codec=cpu-zstd op=put"] == 1000
    assert found["s4_bytes_out_total codec=cpu-zstd op=put"] == 100
    assert found["s4_http_requests_total code=2xx operation=PutObject"] == 1
    assert found["s4_request_latency_seconds_bucket codec=cpu-zstd le=0.025 op=put"] == 1
    assert found["s4_request_latency_seconds_bucket codec=cpu-zstd le=0.01 op=put"] == 0
    assert found["s4_request_latency_seconds_count codec=cpu-zstd op=put"] == 1


def test_the_other_facts_are_counted_under_their_names():
    metrics = Metrics()
    metrics.range_fallback(FALLBACK_REASONS[0])
    metrics.sidecar_write("ok")
    metrics.listing_cache("hit", 999)
    metrics.listing_cache("miss", 0)
    metrics.backend_request("get", "unavailable")
    metrics.slowdown("memory")
    metrics.client_abort()
    metrics.connection_fault("connection-cap")
    metrics.reload(ok=False, tls=True)
    found = samples(metrics)
    assert found[f"s4_range_fallback_total reason={FALLBACK_REASONS[0]}"] == 1
    assert found["s4_sidecar_writes_total result=ok"] == 1
    assert found["s4_listing_cache_total result=hit"] == 999
    assert "s4_listing_cache_total result=miss" not in found
    assert found["s4_backend_requests_total result=unavailable verb=get"] == 1
    assert found["s4_slowdown_total reason=memory"] == 1
    assert found["s4_slowdown_total reason=connections"] == 1
    assert found["s4_client_aborts_total"] == 1
    assert found["s4_connection_faults_total reason=connection-cap"] == 1
    assert found["s4_reload_total result=err"] == 1
    assert found["s4_tls_cert_reload_total result=err"] == 1


def test_gauges_are_read_when_scraped():
    metrics = Metrics()
    level = [3.0]
    metrics.watch_in_flight(lambda: level[0])
    metrics.watch_memory(lambda: level[0] * 10, lambda: 100)
    level[0] = 4.0
    found = samples(metrics)
    assert found["s4_in_flight_requests"] == 4
    assert found["s4_memory_budget_bytes state=used"] == 40
    assert found["s4_memory_budget_bytes state=limit"] == 100
    assert any(name.startswith("s4_build_info version=") for name in found)


@pytest.mark.parametrize("value", ["", "../x", 'a"b\n', "é" * 1000])
def test_what_a_client_invents_becomes_other(value: str):
    metrics = Metrics()
    for number in range(50):
        metrics.request(value + str(number), 999)
        metrics.data(value, value + str(number), ok=True, bytes_in=1, bytes_out=1, seconds=1.0)
        metrics.range_fallback(value + str(number))
    found = samples(metrics)
    assert found["s4_http_requests_total code=other operation=other"] == 50
    assert found["s4_requests_total codec=other op=other result=ok"] == 50
    assert found["s4_range_fallback_total reason=other"] == 50
    assert len(found) < 40


def test_registries_are_apart_and_no_creation_times_are_exposed():
    one, other = Metrics(), Metrics()
    one.request("GetObject", 404)
    assert "s4_http_requests_total code=4xx operation=GetObject" not in samples(other)
    assert not any("_created" in name for name in samples(one))
