"""The reference is complete and names nothing that does not exist."""

import ast
import re

import pytest

from s4gateway.gateway import (
    dictionary_metrics,
    ledger_metrics,
    metric_families,
    metrics,
    protocol,
    routes,
)
from s4gateway.gateway.handlers import buckets
from s4gateway.s3 import checksums, errors
from s4gateway.s3.operations import Operation
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.manifest import Manifest
from tests import s3tests_groups
from tests.docs import pages

_METRICS = pages.REFERENCE / "metrics.md"
_ERRORS = pages.REFERENCE / "errors.md"
_S3 = pages.REFERENCE / "s3-compatibility.md"

# --- metrics


def _declared_metrics() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Type and labels of every metric, by the name a scrape shows."""
    declared = {}
    every = metrics.Metrics()
    every.dictionaries.show(dict)
    ledger_metrics.LedgerMetrics(every.registry)
    for collector in every.registry._collector_to_names:
        for family in collector.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = collector if hasattr(collector, "_labelnames") else family
            declared[name] = (family.type, tuple(labels._labelnames))
    return declared


def _documented_metrics() -> dict[str, tuple[str, tuple[str, ...]]]:
    return {
        row[0].strip("`"): (row[1], tuple(re.findall(r"`(\w+)`", row[2])))
        for row in pages.rows(_METRICS)
        if row[0].startswith("`s4_")
    }


def test_every_metric_has_its_line_with_type_and_labels_and_no_other_has_one():
    assert _documented_metrics() == _declared_metrics()


@pytest.mark.parametrize(
    ("label", "of", "values"),
    [
        ("op", "", metrics.DATA_OPS),
        ("codec", "", metrics.CODECS),
        ("code", "", metrics.CODE_CLASSES),
        ("result", "s4_requests_total", metrics.RESULTS),
        ("result", "reloads", metric_families.RELOAD_RESULTS),
        ("result", "s4_sidecar_writes_total", metrics.SIDECAR_RESULTS),
        ("result", "s4_listing_cache_total", metrics.CACHE_RESULTS),
        ("result", "s4_backend_requests_total", metrics.BACKEND_RESULTS),
        ("verb", "", metrics.VERBS),
        ("reason", "s4_range_fallback_total", metrics.FALLBACK_REASONS),
        ("reason", "s4_slowdown_total", metrics.SLOWDOWN_REASONS),
        ("reason", "s4_connection_faults_total", protocol.Listener.NOTES),
        ("outcome", "", dictionary_metrics.DICT_OUTCOMES),
        ("kind", "", dictionary_metrics.DICT_KINDS),
        ("result", "s4_dict_fetch_total", dictionary_metrics.DICT_FETCH_RESULTS),
        ("manager", "", (ledger_metrics.LEDGER,)),
        ("reason", "s4_state_file_load_failures_total", ledger_metrics.LOAD_FAILURES),
        ("result", "s4_sigusr1_dump_total", ledger_metrics.DUMP_RESULTS),
    ],
)
def test_a_label_is_documented_with_exactly_its_values(
    label: str, of: str, values: tuple[str, ...]
):
    (cell,) = [
        row[2]
        for row in pages.rows(_METRICS, "Label values")
        if row[0] == f"`{label}`" and of in row[1]
    ]
    assert pages.words_in_code(cell) == set(values)


def test_the_buckets_are_the_histograms():
    text = " ".join(pages.prose(_METRICS).split())
    shown = re.search(r"Buckets of the histogram, in seconds: ([\d., ]+)\.(?!\d)", text)
    assert shown
    assert tuple(map(float, shown[1].split(", "))) == metric_families.LATENCY_BUCKETS


# --- errors


def _raised() -> set[str]:
    """Every code that stands as a literal in the construction of an S3Error."""
    codes = set()
    for path in (pages.ROOT / "s4gateway").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                name = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
                if name == "S3Error":
                    codes.add(node.args[0].value)
    return codes


def test_every_error_the_gateway_raises_has_its_line_with_its_status():
    documented = {
        row[0].strip("`"): int(row[1])
        for row in pages.rows(_ERRORS, "Raised by the gateway")
        if row[0].startswith("`")
    }
    assert documented == {code: errors.TABLE[code].status for code in _raised()}


# --- operations


def _documented(section: str) -> list[str]:
    names = {operation.value for operation in Operation}
    return [
        name
        for row in pages.rows(_S3, section)
        for name in re.findall(r"`(\w+)`", row[0])
        if name in names
    ]


def test_every_operation_stands_once_and_in_the_group_that_handles_it():
    passed_on = {each for each, call in routes.ROUTES.items() if call is buckets.change_bucket}
    rewritten = set(routes.ROUTES) - routes.REFUSED - passed_on
    assert sorted(_documented("Rewritten")) == sorted(rewritten)
    assert sorted(_documented("Refused")) == sorted(routes.REFUSED)
    forwarded = set(Operation) - set(routes.ROUTES) | passed_on
    assert sorted(_documented("Forwarded")) == sorted(forwarded)


def _own_metadata(algorithm: str) -> int:
    """Bytes of names and values that the gateway adds to an object of the largest size."""
    length = 4 * -(-checksums.ALGORITHMS[algorithm] // 3) if algorithm else 0
    entries = Manifest(
        CodecId.CPU_ZSTD,
        5 * 1024**3,
        5 * 1024**3,
        2**32 - 1,
        framed=True,
        logical_etag="0" * 32,
        checksum=(algorithm, "A" * length) if algorithm else None,
    ).to_metadata()
    return sum(len(key) + len(value) for key, value in entries.items())


def test_the_gateways_own_metadata_takes_what_the_page_says():
    stated = " ".join(pages.section_of(_S3, "Metadata").split())
    largest = max(map(_own_metadata, checksums.ALGORITHMS))
    assert f"at most {_own_metadata('')} bytes" in stated
    assert f"{_own_metadata('crc32')} (CRC32)" in stated
    assert f"{_own_metadata('crc64nvme')} (CRC64NVME)" in stated
    assert f"up to {largest} (SHA512)" in stated


def test_every_checksum_algorithm_is_named():
    row = next(row for row in pages.rows(_S3, "Rewritten") if row[0] == "`PutObject`")
    assert [name for name in checksums.ALGORITHMS if name.upper() not in row[1]] == []


def test_the_tests_the_gateway_may_lose_are_listed_with_their_reasons():
    listed = {row[0].strip("`"): row[1] for row in pages.rows(_S3) if row[0].startswith("`test_")}
    assert listed == s3tests_groups.EXCEPTIONS
