import math

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.tools.prometheus_text import Sample, parse, parse_sample


def page(*lines: str) -> list[Sample]:
    return list(parse("\n".join(lines).encode()))


def test_a_page_of_a_real_client_library_is_read():
    registry = prometheus_client.CollectorRegistry()
    puts = prometheus_client.Counter("puts", "A \\ b\nc.", ("prefix",), registry=registry)
    prometheus_client.Gauge("rate", "", registry=registry).set(0.25)
    prometheus_client.Histogram("took", "", registry=registry).observe(3)
    for prefix in ("logs/", 'a "b" \\ c\nd', "größe/日本/"):
        puts.labels(prefix).inc(3)
    found = list(parse(prometheus_client.generate_latest(registry)))
    assert [each.labels["prefix"] for each in found if each.name == "puts_total"] == [
        "logs/",
        'a "b" \\ c\nd',
        "größe/日本/",
    ]
    assert Sample("rate", {}, 0.25) in found
    assert Sample("took_bucket", {"le": "+Inf"}, 1.0) in found


@pytest.mark.parametrize(
    ("line", "labels", "value"),
    [
        ("up 1", {}, 1.0),
        ("up{} 1", {}, 1.0),
        ("  up \t 1\t", {}, 1.0),
        ("up 1 1395066363000", {}, 1.0),
        ("up 1\r", {}, 1.0),
        ("up 1.5e-3", {}, 0.0015),
        ("up .5", {}, 0.5),
        ("up +Inf", {}, math.inf),
        ("up -Inf -1", {}, -math.inf),
        ('up{a="1",b="2"} 3', {"a": "1", "b": "2"}, 3.0),
        ('up { a = "1" , b = "2" , } 3', {"a": "1", "b": "2"}, 3.0),
        ('up{a=""} 3', {"a": ""}, 3.0),
        ('up{a="}\\""}3', {"a": '}"'}, 3.0),
        ('up{a="x\\\\n"} 3', {"a": "x\\n"}, 3.0),
        ('up{a="x\\ny"} 3', {"a": "x\ny"}, 3.0),
        ('up{a="é\\é\\u00e9"} 3', {"a": "é\\é\\u00e9"}, 3.0),
        ('up{a="x\u2028y\x85z"} 3', {"a": "x\u2028y\x85z"}, 3.0),
    ],
)
def test_a_sample_is_read(line: str, labels: dict[str, str], value: float):
    assert page(line) == [Sample("up", labels, value)]


def test_not_a_number_is_a_value():
    (sample,) = page("up NaN")
    assert math.isnan(sample.value)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "# HELP up 1",
        "#up 1",
        "up",
        "up{} ",
        "1up 1",
        "up one",
        "up 1_000",
        "up \u0661",
        "up 0x10",
        "up 1 2 3",
        "up 1 1.5",
        "up1{",
        'up{a="1" 1',
        'up{a="1} 1',
        'up{a="1\\"} 1',
        "up{a=1} 1",
        'up{a="1"b="2"} 1',
        'up{a="1",a="2"} 1',
        'up{1a="1"} 1',
        'up{,a="1"} 1',
        "<html>",
    ],
)
def test_a_line_that_is_not_understood_is_left_out_and_the_next_one_is_read(line: str):
    assert page(line, "next 2") == [Sample("next", {}, 2.0)]


def test_bytes_that_are_no_utf_8_are_replaced():
    (sample,) = parse(b'up{a="\xff\xc3"} 1')
    assert sample.labels == {"a": "\ufffd\ufffd"}


@given(st.binary(max_size=400))
def test_any_bytes_give_samples_or_none(data: bytes):
    for sample in parse(data):
        assert sample.name


_PIECES = st.sampled_from(
    ["up", "{", "}", '"', "\\", "\\n", "=", ",", " ", "\t", "1", "NaN", "\n", "a", "é", "日", "#"]
)


@given(st.lists(_PIECES | st.text(max_size=3), max_size=30).map("".join))
def test_any_text_gives_samples_or_none(text: str):
    parse_sample(text)
    list(parse(text.encode("utf-8", "surrogatepass")))


@given(
    st.dictionaries(st.from_regex("[a-z_]{1,8}", fullmatch=True), st.text(max_size=20), max_size=4),
    st.floats(allow_nan=False),
)
def test_what_was_escaped_by_the_format_comes_back(labels: dict[str, str], value: float):
    labels = {name: text.encode("utf-8", "replace").decode() for name, text in labels.items()}
    written = ",".join(
        '{}="{}"'.format(name, text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))
        for name, text in labels.items()
    )
    assert parse_sample(f"m{{{written}}} {value!r}") == Sample("m", labels, value)


def test_a_line_of_megabytes_takes_no_longer_than_its_length():
    value = "\\\\" * 500_000
    (sample,) = page(f'up{{a="{value}"}} 1', 'up{a="' + "\\" * 1_000_001)
    assert len(sample.labels["a"]) == 500_000
