import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import s4gateway
from s4gateway.cli import main
from s4gateway.gateway import config


def s4(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int | str | None, str, str]:
    with pytest.raises(SystemExit) as ended:
        main.main(arguments)
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]):
    status, out, _ = s4(capsys, "--help")
    assert status == 0
    for name in main.COMMANDS:
        assert name in out


def test_version(capsys: pytest.CaptureFixture[str]):
    status, out, _ = s4(capsys, "--version")
    assert (status, out) == (0, f"s4, version {s4gateway.__version__}\n")


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], name: str):
    status, out, _ = s4(capsys, name, "--help")
    assert status == 0
    assert out.startswith(f"Usage: s4 {name} ")


def test_serve_help_has_every_setting_with_its_variable_and_default(
    capsys: pytest.CaptureFixture[str],
):
    _, out, _ = s4(capsys, "serve", "--help")
    words = " ".join(out.split())
    for option in config.OPTIONS:
        assert option.flag in words
        assert option.variable in words


@pytest.mark.parametrize("arguments", [(), ("serve",), ("--port", "9")])
def test_serving_needs_a_backend(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]):
    status, out, err = s4(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("s4: --endpoint-url: missing")


def test_all_problems_are_said_in_one_pass_a_line_each(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("S4_NO_SUCH", "1")
    status, _, err = s4(capsys, "--port", "http", "--codec", "nvcomp-zstd", "--tls-key", "k")
    assert status == 2
    assert len(err.splitlines()) == 4
    assert all(line.startswith("s4: ") for line in err.splitlines())


@pytest.mark.parametrize("arguments", [("--no-such-flag",), ("frobnicate",), ("--port",)])
def test_a_wrong_command_line_is_status_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
):
    status, out, err = s4(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("s4: ")


def test_config_shows_values_and_origins(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    file = tmp_path / "s4.toml"
    file.write_text("zstd-level = 9\nphysical-listings = true\n")
    monkeypatch.setenv("S4_REGION", "eu-west-1")
    status, out, _ = s4(
        capsys, "config", "--format", "json", "--config", str(file), "--port", "1234",
        "--no-physical-listings", "--domain", "a.example", "--domain", "b.example",
    )  # fmt: skip
    shown = json.loads(out)
    assert status == 0
    assert shown["zstd-level"] == {"value": "9", "origin": "file"}
    assert shown["region"] == {"value": "eu-west-1", "origin": "environment"}
    assert shown["port"] == {"value": "1234", "origin": "flag"}
    assert shown["physical-listings"] == {"value": "false", "origin": "flag"}
    assert shown["domain"] == {"value": "a.example, b.example", "origin": "flag"}
    assert shown["host"] == {"value": "127.0.0.1", "origin": "default"}


def test_config_prints_a_table_with_a_row_for_each_setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    secret = "wJalrXUtnFEMIK7MDENG"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    long = "/" + "x" * 300
    status, out, _ = s4(capsys, "config", "--spool-dir", long)
    assert status == 0
    assert len(out.splitlines()) == len(config.OPTIONS) + 1
    assert long in out
    assert secret not in out


def test_an_unexpected_fault_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def fault(*_: object) -> None:
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr("s4gateway.cli.config_command.settings.load", fault)
    status, _, err = s4(capsys, "config")
    assert status == 1
    assert err == "s4: RuntimeError: nobody thought of this\n"


def test_an_interrupt_is_silent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("s4gateway.cli.config_command.settings.load", interrupted)
    status, _, err = s4(capsys, "config")
    assert (status, err.strip()) == (130, "")


@pytest.mark.parametrize("module", ["s4gateway", "s4gateway.cli.main"])
def test_help_imports_no_server_and_no_client(module: str):
    code = (
        f"import sys, {module}\n"
        "from s4gateway.cli import main\n"
        "try: main.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'uvicorn', 'httptools', 'uvloop', 'httpx', 'starlette'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    environment = {"PATH": os.environ["PATH"]}
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=environment, stdout=subprocess.DEVNULL
    )
