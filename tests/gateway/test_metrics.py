import pytest
from prometheus_client.parser import text_string_to_metric_families

from s4gateway.gateway.metrics import FALLBACK_REASONS, Metrics
from s4gateway.objects.encoding import Tried


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


def test_what_alerts_watch_is_there_before_it_happens():
    found = samples(Metrics())
    for result in ("ok", "err", "removed"):
        assert found[f"s4_sidecar_writes_total result={result}"] == 0
    for reason in ("memory", "connections", "backend"):
        assert found[f"s4_slowdown_total reason={reason}"] == 0
    assert found["s4_reload_total result=err"] == 0


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


DICTIONARY_FAMILIES = (
    "s4_dict_put_total",
    "s4_dict_put_bytes_total",
    "s4_dict_reload_total",
    "s4_dict_fetch_total",
    "s4_dict_win_rate",
)


def test_without_dictionaries_there_are_no_families_about_them():
    metrics = Metrics()
    metrics.reload(ok=True, tls=False)
    assert b"s4_dict_" not in metrics.render()


def test_a_dictionary_fetched_for_a_read_is_counted_wherever_that_happens():
    metrics = Metrics()
    metrics.dictionaries.fetch(ok=True)
    metrics.dictionaries.fetch(ok=False)
    metrics.dictionaries.fetch(ok=False)
    found = samples(metrics)
    assert found["s4_dict_fetch_total result=ok"] == 1
    assert found["s4_dict_fetch_total result=err"] == 2
    assert b"s4_dict_put" not in metrics.render()


def test_with_dictionaries_every_prefix_has_its_samples():
    metrics = Metrics()
    rates = {"logs/a": 0.25}
    metrics.dictionaries.show(lambda: rates)
    text = metrics.render().decode()
    assert [name for name in DICTIONARY_FAMILIES if f"# TYPE {name} " not in text] == []
    metrics.dictionaries.put(Tried("logs/a", "0" * 16, True, 100, 40, 90))
    metrics.dictionaries.put(Tried("logs/a", "0" * 16, False, 10, 9, 8))
    metrics.dictionaries.put(Tried('logs/"é\\', "0" * 16, False, 1, 2, 3))
    metrics.dictionaries.fetch(ok=True)
    found = samples(metrics)
    assert found["s4_dict_put_total outcome=win prefix=logs/a"] == 1
    assert found["s4_dict_put_total outcome=loss prefix=logs/a"] == 1
    assert found["s4_dict_put_bytes_total kind=original prefix=logs/a"] == 110
    assert found["s4_dict_put_bytes_total kind=dict prefix=logs/a"] == 49
    assert found["s4_dict_put_bytes_total kind=plain prefix=logs/a"] == 98
    assert found['s4_dict_put_total outcome=loss prefix=logs/"é\\'] == 1
    assert found["s4_dict_win_rate prefix=logs/a"] == 0.25
    assert found["s4_dict_fetch_total result=ok"] == 1
