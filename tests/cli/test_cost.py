"""`s4 savings`: what stands in the table and in the JSON, and how it ends."""

import json
from pathlib import Path
from typing import Any

import pytest

from s4gateway.state import ledger
from s4gateway.state.ledger import Counters
from s4gateway.tools import savings
from tests.cli.test_main import s4

GIB = 1 << 30

E6_FIELDS = {
    "buckets", "total_objects", "total_original_bytes", "total_stored_bytes",
    "total_savings_ratio", "price_per_gb_month", "total_monthly_savings_usd",
    "total_skipped_unaccounted", "notes",
}  # fmt: skip
E6_ROW = {
    "bucket", "objects", "original_bytes", "stored_bytes", "savings_ratio",
    "monthly_savings_usd", "skipped_unaccounted",
}  # fmt: skip


@pytest.fixture
def state_file(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.json"
    totals = {"logs": Counters(100 * GIB, 25 * GIB, 1000, 3), "raw": Counters(GIB, 2 * GIB, 5)}
    path.write_bytes(ledger.render(totals))
    return path


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    status, out, err = s4(capsys, "savings", *arguments, "--format", "json")
    assert (status, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def table(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    status, out, err = s4(capsys, "savings", *arguments)
    assert (status, err) == (0, "")
    return out


def test_the_json_has_every_field(capsys: pytest.CaptureFixture[str], state_file: Path):
    found = as_json(capsys, "--state-file", str(state_file), "--price-per-gb-month", "0.02")
    assert found.keys() >= E6_FIELDS | {"total_saved_bytes", "storage_class", "state_files"}
    logs, raw = found["buckets"]
    assert logs.keys() >= E6_ROW | {"saved_bytes", "billed_stored_bytes"}
    assert (logs["bucket"], logs["objects"], logs["skipped_unaccounted"]) == ("logs", 1000, 3)
    assert (logs["original_bytes"], logs["stored_bytes"]) == (100 * GIB, 25 * GIB)
    assert (logs["saved_bytes"], logs["savings_ratio"]) == (75 * GIB, 0.75)
    assert logs["monthly_savings_usd"] == pytest.approx(1.5)
    assert (raw["saved_bytes"], raw["savings_ratio"], raw["monthly_savings_usd"]) == (0, 0, 0)
    assert found["price_per_gb_month"] == 0.02
    assert found["total_saved_bytes"] == 74 * GIB
    assert found["total_monthly_savings_usd"] == pytest.approx(1.48)
    assert found["total_skipped_unaccounted"] == 3
    assert found["state_files"][0]["path"] == str(state_file)
    assert found["notes"][: len(savings.HONESTY)] == list(savings.HONESTY)


def test_the_table_has_its_lines(capsys: pytest.CaptureFixture[str], state_file: Path):
    lines = table(capsys, "--state-file", str(state_file)).splitlines()
    assert lines[:6] == [
        "S4 measured savings (gateway-written objects)",
        "bucket  objects   original    stored     saved  saved %  $/month",
        "logs       1000  100.0 GiB  25.0 GiB  75.0 GiB    75.0%    $1.72",
        "raw           5    1.0 GiB   2.0 GiB       0 B     0.0%    $0.00",
        (
            "total: 1005 objects, 101.0 GiB original -> 27.0 GiB stored"
            " (73.3% saved, 79456894976 bytes)"
        ),
        "monthly savings: $1.70 (at $0.023/GB-month, storage bytes only)",
    ]
    assert lines[7] == "Notes:"


@pytest.mark.parametrize("form", ["table", "json"])
def test_all_notes_are_in_both_formats_even_when_nothing_was_counted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, form: str
):
    missing = tmp_path / "no such file"
    status, out, _ = s4(capsys, "savings", "--state-file", str(missing), "--format", form)
    assert status == 0
    said = json.loads(out)["notes"] if form == "json" else out.partition("Notes:\n- ")[2]
    if isinstance(said, str):
        said = said.rstrip("\n").split("\n- ")
    assert str(missing) in said[0]
    assert said[1:] == list(savings.HONESTY)


def test_an_empty_table_still_has_its_totals(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    out = table(capsys, "--state-file", str(tmp_path / "none"))
    assert "no entries" in out
    assert "total: 0 objects, 0 B original -> 0 B stored (0.0% saved, 0 bytes)" in out
    assert "monthly savings: $0.00" in out


def test_several_state_files_add_up(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    files = []
    for name in ("1", "2"):
        (tmp_path / name).write_bytes(ledger.render({"b": Counters(10, 4, 1)}))
        files += ["--state-file", str(tmp_path / name)]
    found = as_json(capsys, *files)
    assert (found["total_original_bytes"], found["total_objects"]) == (20, 2)


def test_a_storage_class_shows_what_is_billed(capsys: pytest.CaptureFixture[str], state_file: Path):
    more = ("--storage-class", "STANDARD_IA", "--price-per-gb-month", "1")
    out = table(capsys, "--state-file", str(state_file), *more)
    assert out.splitlines()[1].split()[-2:] == ["billed", "$/month"]
    assert "billed (STANDARD_IA): " in out
    assert "25.0 GiB to 25.2 GiB" in out
    assert "$74.76 to $75.00" in out


def test_a_minimum_of_another_store_can_be_given(
    capsys: pytest.CaptureFixture[str], state_file: Path
):
    arguments = ("--state-file", str(state_file), "--minimum-billed-bytes", "65536")
    found = as_json(capsys, *arguments)
    assert found["storage_class"] == "at least 65536 bytes"
    assert found["buckets"][0]["billed_stored_bytes"]["at_least"] == 25 * GIB


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "StateFileParse: "),
        (b'{"buckets": {"b": {"original_bytes": -1}}}', "StateFileParse: "),
        (None, "StateFileRead: "),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_and_status_1(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes | None, says: str
):
    path = tmp_path / "s"
    path.mkdir() if content is None else path.write_bytes(content)
    status, out, err = s4(capsys, "savings", "--state-file", str(path))
    assert (status, out) == (1, "")
    assert err.startswith(f"s4: {says}{path}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--state-file, --rescan or both"),
        (("--write", "--state-file", "s"), "--write needs --rescan"),
        (("--rescan", "b", "--write"), "--write: one state file"),
        (("--rescan", "b", "--write", "--state-file", "s", "--state-file", "t"), "--write: one"),
        (("--rescan", "b/p", "--write", "--state-file", "s"), "--write: a ledger counts whole"),
        (("--rescan", "b"), "--endpoint-url: missing"),
        (("--rescan", "/p", "--endpoint-url", "http://x"), "no bucket"),
        (("--rescan", "s3://b", "--endpoint-url", "http://x"), "is a URL"),
        (("--state-file", "s", "--state-file", "./s"), "given twice"),
        (("--state-file", "s", "--price-per-gb-month", "-1"), "is no price"),
        (("--state-file", "s", "--price-per-gb-month", "nan"), "is no price"),
        (("--state-file", "s", "--storage-class", "WARM"), "WARM"),
        (("--state-file", "s", "--storage-class", "GLACIER", "--minimum-billed-bytes", "1"), "one"),
        (("--state-file", "s", "--minimum-billed-bytes", "0"), "minimum-billed-bytes"),
    ],
)
def test_a_wrong_command_line_is_status_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
):
    status, out, err = s4(capsys, "savings", *arguments)
    assert (status, out) == (2, "")
    assert says in err
    assert all(line.startswith("s4: ") for line in err.splitlines()[:1])


def test_a_bucket_name_that_commands_a_terminal_is_shown_as_text(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    path = tmp_path / "s"
    path.write_bytes(ledger.render({"b\x1b[31m": Counters(10, 40, 1)}))
    out = table(capsys, "--state-file", str(path))
    assert "\x1b" not in out
