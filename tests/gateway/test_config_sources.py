import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.gateway import config, config_sources
from s4gateway.gateway.config import GatewayConfig
from s4gateway.gateway.config_sources import Origin
from s4gateway.wire.codec_id import CodecId

URL = "http://127.0.0.1:8333"


def problems(flags: dict[str, object], env: dict[str, str] | None = None, file: Path | None = None):
    with pytest.raises(config_sources.ConfigError) as caught:
        config_sources.load(flags, env or {}, file)  # type: ignore[arg-type]
    return caught.value.problems


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(tmp_path: Path):
    file = tmp_path / "s4.toml"
    file.write_text('port = 1\nhost = "127.0.0.3"\nzstd-level = 7\n')
    env = {"S4_PORT": "2", "S4_HOST": "127.0.0.2"}
    loaded = config_sources.load({"port": "3", "host": None}, env, file)
    assert (loaded.config.port, loaded.origins["port"]) == (3, Origin.FLAG)
    assert (loaded.config.host, loaded.origins["host"]) == ("127.0.0.2", Origin.ENVIRONMENT)
    assert (loaded.config.zstd_level, loaded.origins["zstd_level"]) == (7, Origin.FILE)
    assert (loaded.config.codec, loaded.origins["codec"]) == (CodecId.CPU_ZSTD, Origin.DEFAULT)


def test_every_problem_of_every_source_is_reported_in_one_pass(tmp_path: Path):
    file = tmp_path / "s4.toml"
    file.write_text("prot = 1\nzstd-level = 23\naccess-log = 1\nport = []\n")
    env = {"S4_ZSTDLEVEL": "3", "S4_CODEC": "nvcomp-zstd", "OTHER": "x"}
    flags = {"tls_cert": "a.pem", "host": "0.0.0.0", "endpoint_url": "ftp://x", "embedded": "d"}
    found = problems(flags, env, file)
    for start, part in (
        (f"{file}: unknown key 'prot'", "did you mean port?"),
        (f"{file}: zstd-level: '23'", "between 1 and 22"),
        (f"{file}: access-log:", "true or false"),
        (f"{file}: port:", "a number"),
        ("S4_ZSTDLEVEL: unknown variable", "S4_ZSTD_LEVEL"),
        ("S4_CODEC:", "GPU"),
        ("--endpoint-url: 'ftp://x'", "http"),
        ("--tls-key: missing", "--tls-cert"),
        ("--host:", "--insecure-bind-any"),
    ):
        assert any(line.startswith(start) and part in line for line in found), (start, found)
    assert all("\n" not in line for line in found)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("port", "65536"), ("port", "-1"), ("port", "0x50"), ("port", "٣"),
        ("zstd_level", "0"), ("codec", "zstd"), ("dispatcher", "never"), ("log_format", "xml"),
        ("endpoint_url", "127.0.0.1:8333"), ("endpoint_url", "http://h/bucket"),
        ("endpoint_url", "http://key:secret@h"), ("endpoint_url", "http://h:99999"),
        ("admin_listen", "9000"), ("admin_listen", "::1:9000"), ("admin_listen", ":9000"),
        ("max_body_bytes", "-5"), ("max_body_bytes", "5 furlongs"), ("max_header_bytes", "10"),
        ("header_timeout_seconds", "0"), ("drain_seconds", "nan"), ("drain_seconds", "soon"),
        ("access_log", "maybe"), ("host", ""), ("host", "a b"), ("domain", "-"), ("spool_dir", ""),
        ("memory_budget_bytes", "1 MiB"), ("backend_profile", "checksums=sha1"),
        ("zstd_dict", "logs/app/"), ("zstd_dict", "logs=0123456789abcdef"),
        ("zstd_dict", "logs/app/=../../etc/passwd"), ("zstd_dict_map", ""),
        ("zstd_dict_max_bytes", "0"), ("zstd_dict_max_bytes", "5 MiB"),
    ],
)  # fmt: skip
def test_a_value_out_of_its_range_is_refused_by_name(field: str, text: str):
    value = [text] if field in {"domain", "zstd_dict"} else text
    assert any(line.startswith("--" + field.replace("_", "-")) for line in problems({field: value}))


def test_an_endpoints_password_is_not_repeated_by_the_normalised_url():
    # The text of a wrong value is shown, so credentials in a URL are refused as a whole.
    assert (
        config_sources.load({"endpoint_url": "HTTP://Host:1/"}, {}).config.endpoint_url
        == "http://host:1"
    )


@pytest.mark.parametrize(
    ("text", "size"),
    [("123", 123), ("1KiB", 1024), ("5 GiB", 5 * 1024**3), ("2 mb", 2_000_000), ("7b", 7)],
)
def test_sizes_take_units(text: str, size: int):
    assert config_sources.load({"max_body_bytes": text}, {}).config.max_body_bytes == size


def test_repeatable_settings_come_from_every_source(tmp_path: Path):
    file = tmp_path / "s4.toml"
    file.write_text('domain = ["A.example", "b.example"]\n')
    assert config_sources.load({}, {}, file).config.domain == ("a.example", "b.example")
    assert config_sources.load({}, {"S4_DOMAIN": "c,d e"}, file).config.domain == ("c", "d", "e")
    assert config_sources.load({"domain": ["x", "x"]}, {}).config.domain == ("x",)


def test_an_empty_variable_is_not_set():
    loaded = config_sources.load({}, {"S4_TLS_CERT": "", "S4_PORT": ""})
    assert loaded.origins["port"] is Origin.DEFAULT


def test_the_file_can_be_named_in_the_environment(tmp_path: Path):
    file = tmp_path / "s4.toml"
    file.write_text("port = 77\n")
    loaded = config_sources.load({}, {"S4_CONFIG": str(file)})
    assert (loaded.config.port, loaded.file) == (77, file)


@pytest.mark.parametrize("content", [None, b"port = = 1", b"\xff\xfe"])
def test_an_unreadable_file_is_a_problem(tmp_path: Path, content: bytes | None):
    file = tmp_path / "s4.toml"
    if content is not None:
        file.write_bytes(content)
    assert any(line.startswith(str(file)) for line in problems({}, {}, file))


@pytest.mark.parametrize(
    ("variable", "value"),
    [("S4_PORT", "tcp://10.0.0.1:80"), ("S4_SERVICE_HOST", "10.0.0.1"), ("S4_PORT_80_TCP", "x")],
)
def test_kubernetes_service_links_are_explained(variable: str, value: str):
    assert "enableServiceLinks" in problems({}, {variable: value})[0]


def test_a_prefix_with_two_dictionaries_is_a_problem():
    one, other = "logs/app/=0123456789abcdef", "logs/app/=fedcba9876543210"
    (problem,) = problems({"zstd_dict": [one, other]})
    assert problem.startswith("--zstd-dict: logs/app/")
    assert config_sources.load({"zstd_dict": [one, one]}, {}).config.zstd_dict == (one,)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_credentials_file(host: str):
    assert config_sources.load({"host": host}, {}).config.host == host


@pytest.mark.parametrize("flags", [{"credentials": "keys.toml"}, {"insecure_bind_any": True}])
def test_listening_beyond_this_machine_must_be_meant(flags: dict[str, object]):
    assert config_sources.load({"host": "0.0.0.0", **flags}, {}).config.host == "0.0.0.0"
    assert problems({"host": "0.0.0.0"})


def test_a_backend_is_required_to_serve():
    with pytest.raises(config_sources.ConfigError):
        config_sources.require_backend(GatewayConfig())
    config_sources.require_backend(GatewayConfig(endpoint_url=URL))
    config_sources.require_backend(GatewayConfig(embedded=Path("data")))


@pytest.mark.parametrize("option", config.OPTIONS, ids=lambda option: option.key)
def test_a_shown_value_parses_to_itself(option: config.Option):
    text = config.show(option.default)
    if text:
        flags = {option.field: [text] if option.repeatable else text}
        assert getattr(config_sources.load(flags, {}).config, option.field) == option.default


@given(st.sampled_from(config.OPTIONS), st.text(max_size=30))
def test_no_text_crashes_a_parser(option: config.Option, text: str):
    with contextlib.suppress(config_sources.ConfigError):
        config_sources.load({option.field: [text] if option.repeatable else text}, {})
