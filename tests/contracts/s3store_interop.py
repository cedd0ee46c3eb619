"""A dataset that a Go program wrote, acceptance 64, over any store."""

import json
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from s4gateway.s3store import WriteResult
from tests.contracts.s3store_contract import DatasetContract
from tests.s3store import world
from tests.s3store.world import World

GOLDEN = Path(__file__).parents[1] / "s3store" / "fixtures" / "go_dataset"
MANIFEST: dict[str, Any] = json.loads((GOLDEN / "manifest.json").read_text())
EXPECTED: dict[str, Any] = json.loads((GOLDEN / "expected.json").read_text())


@dataclass
class Rec:
    period: str
    customer: str
    sku: str
    value: int
    amount: float
    note: str
    tags: list[str]
    tag_l: list[str]
    ts: datetime
    inserted_at: datetime


def as_go_says(record: Any) -> dict[str, Any]:
    """A record as the Go program printed its own."""
    names = {"sku": "SKU", "tag_l": "TagL", "inserted_at": "InsertedAt"}
    return {
        names.get(each.name, each.name.title()): getattr(record, each.name)
        for each in fields(record)
    }


def expected(name: str) -> list[dict[str, Any]]:
    return [{k: moment(v) for k, v in row.items()} for row in EXPECTED[name]]


def moment(value: Any) -> Any:
    """Times are printed without the zeros at their end."""
    if not isinstance(value, str) or not value.endswith("Z"):
        return value
    seconds, _, fraction = value[:-1].partition(".")
    micros = int(fraction.ljust(6, "0") or 0)
    return datetime.fromisoformat(seconds).replace(microsecond=micros, tzinfo=UTC)


class InteropContract(DatasetContract):
    @pytest.fixture
    async def golden(self, backing: world.Backing, face: type[world.Face]) -> World:
        """The dataset, and a clock that is past it."""
        made = World(backing, face, prefix=MANIFEST["prefix"])
        made.clock.us = 1_800_000_000_000_000
        for entry in MANIFEST["objects"]:
            body = (GOLDEN / "blobs" / entry["blob"]).read_bytes() if entry["blob"] else b""
            assert len(body) == entry["size"]
            await backing.transport.put(
                entry["key"], body, content_type=entry["content_type"], metadata=entry["metadata"]
            )
        return made

    def open(self, golden: World) -> Any:
        return golden.open(
            Rec,
            {"partition_key_parts": MANIFEST["partition_key_parts"]},
            entity_key=["period", "customer", "sku"],
            version="value",
            inserted_at_field="inserted_at",
        )

    async def test_64_rows_and_their_history_are_what_go_reads(self, golden: World):
        async with self.open(golden) as store:
            for name, history in (("read", False), ("read_history", True)):
                rows = await store.read("*", history=history)
                assert [as_go_says(row) for row in rows] == expected(name)
                assert await store.rows("read_iter", "*", history=history) == rows

    async def test_64_the_change_stream_is_what_go_polls(self, golden: World):
        async with self.open(golden) as store:
            page = await store.poll()
            assert [
                {
                    "Offset": entry.offset,
                    "Key": entry.key,
                    "DataPath": entry.data_path,
                    "RefPath": entry.ref_path,
                    "InsertedAt": entry.inserted_at,
                    "RowCount": entry.row_count,
                }
                for entry in page.entries
            ] == expected("poll")
            assert page.next_offset == EXPECTED["poll_next"]
            assert await store.poll_range(None, None) == page.entries
            records = await store.poll_records()
            assert len(records) == 6  # every version once
            assert records.next_offset == page.next_offset

    async def test_64_a_commit_looked_up_is_what_go_s_write_returned(self, golden: World):
        _, first, again = EXPECTED["write_results"]
        assert first == again
        async with self.open(golden) as store:
            found = await store.lookup_commit(
                "period=2026-03-17/customer=abc", "2026-04-22T10:15:00Z-batch42"
            )
            assert found == WriteResult(
                first["Offset"],
                first["DataPath"],
                first["RefPath"],
                moment(first["InsertedAt"]),
                first["RowCount"],
            )

    async def test_64_a_token_that_go_committed_is_committed(self, golden: World):
        async with self.open(golden) as store:
            rows = await store.read("period=2026-03-17/customer=abc")
            golden.store.forget()
            result = await store.write_with_key(
                "period=2026-03-17/customer=abc", rows, token="2026-04-22T10:15:00Z-batch42"
            )
            assert golden.store.counts() == {"head": 1}
            assert result.offset == EXPECTED["write_results"][1]["Offset"]

    async def test_64_view_markers_are_found_by_their_names(self, golden: World):
        keys = golden.layout
        found = [
            keys.parse_marker("sku_idx", ("sku", "customer"), f"{golden.prefix}/{key}")
            for key in await golden.keys("_matview/sku_idx/")
        ]
        assert found == [(row["SKU"], row["Customer"]) for row in EXPECTED["lookup_sku_idx"]]
