"""Command lines of `s4 migrate` and `s4 recompact`: what is refused, and what a person sees."""

from datetime import timedelta
from typing import Any

import pytest

from s4gateway.cli import main, rewrite
from s4gateway.tools.failure import Failure
from s4gateway.tools.migrate import CodecCount, MigrateReport
from s4gateway.tools.recompact import RecompactReport

_STORE = ("--endpoint-url", "http://127.0.0.1:1")
COMMON: dict[str, Any] = {
    "bucket": "b", "prefix": "p/", "dry_run": True, "total_objects": 3, "total_bytes": 4096,
    "listing_truncated": True, "max_objects": 3, "older_than": timedelta(days=7), "no_tags": False,
    "versioning": None, "conditional_writes": None, "skipped_too_large": 0,
    "skipped_too_recent": 0, "skipped_etag_raced": 0, "skipped_vanished": 0,
    "skipped_tags_unreadable": 1, "skipped_acl": 0, "skipped_locked": 0, "skipped_encrypted": 0,
    "skipped_archived": 0, "failed": 1, "failures": (Failure("k", "verify", "why"),), "notes": (),
}  # fmt: skip
MIGRATED = MigrateReport(
    **COMMON, undo=False, migrated=1, migrated_bytes_before=4096, migrated_bytes_after=1024,
    skipped_already_s4=0, skipped_not_compressible=0, skipped_not_s4=0,
    skipped_unsupported_codec=0, codecs=(CodecCount("cpu-gzip", "cpu-zstd", 1),),
)  # fmt: skip
RECOMPACTED = RecompactReport(
    **COMMON | {"dry_run": False}, target_zstd_level=19, min_gain_percent=3.0, recompacted=1,
    recompacted_bytes_before=4096, recompacted_bytes_after=1024, skipped_not_s4=0,
    skipped_already_compacted=0, skipped_unsupported_codec=0, skipped_unstamped_framed=0,
    skipped_insufficient_gain=1, remembered=1,
)  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("migrate", "", *_STORE), "no bucket"),
        (("migrate", "s3://bucket", *_STORE), "is a URL"),
        (("migrate", "b"), "--endpoint-url: missing"),
        (("migrate", "b", "--max-objects", "0", *_STORE), "--max-objects"),
        (("migrate", "b", "--older-than", "1w", *_STORE), "is no duration"),
        (("migrate", "b", "--zstd-level", "23", *_STORE), "--zstd-level"),
        (("recompact", "b", "--target-zstd-level", "0", *_STORE), "--target-zstd-level"),
        (("recompact", "b", "--min-gain-percent", "101", *_STORE), "--min-gain-percent"),
        (("recompact", "b", "--undo", *_STORE), "--undo"),
    ],
)
def test_a_wrong_command_line_is_status_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
):
    with pytest.raises(SystemExit) as ended:
        main.main(arguments)
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (2, "")
    assert said in printed.err


def test_the_table_of_a_migration_has_every_count():
    lines = list(rewrite.migrate_table(MIGRATED))
    assert lines[:3] == [
        "S4 migrate b/p/ — dry-run (pass --execute to write)",
        "objects: 3 (listing truncated)   total: 4.0 KiB (4096 bytes)",
        "would migrate: 1   4.0 KiB -> 1.0 KiB   saves 3.0 KiB (75.0%)",
    ]
    assert lines[3].startswith("skipped: too-large 0, too-recent 0, etag-raced 0")
    assert "tags-unreadable 1" in lines[3]
    assert lines[4:] == [
        "failed: 1",
        "codecs: cpu-zstd x 1 (picked cpu-gzip)",
        "\nFailures:",
        "- k [verify]: why",
    ]


def test_the_table_of_a_recompaction_has_every_count():
    lines = list(rewrite.recompact_table(RECOMPACTED))
    assert lines[0] == "S4 recompact b/p/ — execute"
    assert lines[2] == "zstd level: 19   minimum gain: 3 %   older than: 7 days, 0:00:00"
    assert lines[3].startswith("recompacted: 1   4.0 KiB -> 1.0 KiB")
    assert "insufficient-gain 1" in lines[4]
    assert "known from earlier runs: 1" in lines
