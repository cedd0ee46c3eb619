"""Command lines of `s4 parquet-recompact`: what is refused, and what a person sees."""

import subprocess
import sys

import pytest

from s4gateway.cli import main, parquet
from s4gateway.tools.failure import Failure
from s4gateway.tools.parquet_recompact import ParquetReport
from tests.cli.test_rewrite import COMMON

_STORE = ("--endpoint-url", "http://127.0.0.1:1")
REPORT = ParquetReport(
    **COMMON | {"dry_run": False}, target_zstd_level=3, min_gain_percent=3.0, suffix=".parquet",
    recompacted=1, recompacted_bytes_before=4096, recompacted_bytes_after=1024,
    skipped_other_suffix=1, skipped_not_parquet=0, skipped_already_zstd=2,
    skipped_insufficient_gain=1, skipped_expiring=0, skipped_table_file=0,
    skipped_parquet_encrypted=0, skipped_unsupported_codec=1, skipped_unsupported_structure=0,
    skipped_row_group_too_large=0, skipped_page_too_large=0, skipped_not_verifiable=0,
    skipped_value_mismatch=0, remembered=1,
    refused=(Failure("old.parquet", "unsupported-codec", "LZO"),),
)  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("", *_STORE), "no bucket"),
        (("b",), "--endpoint-url: missing"),
        (("b", "--target-zstd-level", "23", *_STORE), "--target-zstd-level"),
        (("b", "--min-gain-percent", "-1", *_STORE), "--min-gain-percent"),
        (("b", "--max-row-group-bytes", "0", *_STORE), "--max-row-group-bytes"),
    ],
)
def test_a_wrong_command_line_is_status_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
):
    with pytest.raises(SystemExit) as ended:
        main.main(("parquet-recompact", *arguments))
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (2, "")
    assert said in printed.err


def test_the_table_has_every_count():
    lines = list(parquet.parquet_table(REPORT))
    assert lines[0] == "S4 parquet-recompact b/p/ — execute"
    assert lines[2] == (
        "zstd level: 3   minimum gain: 3 %   suffix: .parquet   older than: 7 days, 0:00:00"
    )
    assert lines[3] == "recompacted: 1   4.0 KiB -> 1.0 KiB   saves 3.0 KiB (75.0%)"
    assert "already-zstd 2, insufficient-gain 1" in lines[4]
    assert "- old.parquet [unsupported-codec]: LZO" in lines
    assert lines[-1] == "- k [verify]: why"


def without_pyarrow(*arguments: str) -> "subprocess.CompletedProcess[str]":
    program = "import sys; sys.modules['pyarrow'] = None; from s4gateway.cli.main import main; "
    return subprocess.run(
        [sys.executable, "-c", f"{program}main({arguments!r})"],
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_pyarrow_one_line_says_what_to_install_and_all_else_works():
    said = without_pyarrow("parquet-recompact", "b", *_STORE)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr == "s4: parquet-recompact needs pyarrow: pip install 's4gateway[parquet]'\n"
    for arguments in (("--help",), ("parquet-recompact", "--help")):
        told = without_pyarrow(*arguments)
        assert (told.returncode, told.stderr) == (0, ""), told.stderr
