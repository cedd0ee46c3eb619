"""Parquet files written again as zstd: what stays, what is refused, what damage comes to."""

import io
import random
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from s4gateway.tools.parquet_format import (
    ChunkField,
    Codec,
    Damaged,
    GroupField,
    MetaField,
    Refusal,
    Refused,
)
from s4gateway.tools.parquet_thrift import ThriftError
from s4gateway.tools.parquet_values import Unreadable
from s4gateway.tools.parquet_verify import Mismatch
from tests.tools import parquet_made
from tests.tools.parquet_made import COMPRESSIONS, indexed, rewritten, table, written

TABLE = table(3_000)
SMALL = table(100)
# A file is refused or found damaged for one of these reasons, and for none else.
REASONS = (Refused, Damaged, ThriftError, Mismatch, Unreadable)


def codecs(data: bytes) -> set[str]:
    metadata = pq.read_metadata(io.BytesIO(data))
    return {
        metadata.row_group(group).column(column).compression
        for group in range(metadata.num_row_groups)
        for column in range(metadata.num_columns)
    }


def planned(data: bytes) -> list[Any]:
    """What a reader plans by, as pyarrow shows it."""
    metadata = pq.read_metadata(io.BytesIO(data))
    found: list[Any] = [metadata.created_by, metadata.metadata, metadata.format_version]
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        found.append((group.num_rows, group.sorting_columns))
        for each in map(group.column, range(metadata.num_columns)):
            told = (
                each.path_in_schema,
                each.physical_type,
                each.encodings,
                each.num_values,
                each.bloom_filter_offset is not None,
                None if each.statistics is None else repr(each.statistics.to_dict()),
                each.has_offset_index,
                each.has_column_index,
            )
            found.append(told)
    return found


def same_bits(old: bytes, new: bytes) -> bool:
    """Whether the doubles, whose NaNs equal nothing, and all other columns are the same."""
    before, after = (pq.read_table(io.BytesIO(each)) for each in (old, new))
    bits = [each["float"].combine_chunks().view(pa.int64()).to_pylist() for each in (before, after)]
    return bits[0] == bits[1] and all(
        before[name].equals(after[name]) for name in before.column_names if name not in _FLOATS
    )


_FLOATS = {"float", "map"}


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_pages_become_zstd_and_everything_else_stays(compression: str, version: str):
    old = indexed(TABLE, compression, data_page_version=version, row_group_size=1_200)
    new = rewritten(old)
    assert codecs(new) == {"ZSTD"}
    assert len(new) < len(old) or compression == "brotli"
    assert planned(new) == planned(old)
    assert same_bits(old, new)


def test_page_checksums_and_page_indexes_hold_for_the_new_pages():
    new = rewritten(indexed(TABLE, max_rows_per_page=500))
    file = pq.ParquetFile(io.BytesIO(new), page_checksum_verification=True)
    assert file.read().num_rows == 3_000
    rows = pl.scan_parquet(io.BytesIO(new)).filter(pl.col("with.dot") == 2_500)
    assert rows.select("number").collect().item() == TABLE["number"][2_500].as_py()


def test_a_higher_level_gains_more():
    old = written(TABLE)
    assert len(rewritten(old, level=19)) < len(rewritten(old, level=1))


@pytest.mark.parametrize("rows", [0, 1])
def test_files_of_next_to_nothing_are_rewritten(rows: int):
    old = written(TABLE.slice(0, rows))
    new = rewritten(old)
    assert planned(new) == planned(old)
    assert pq.read_table(io.BytesIO(new)).num_rows == rows


def test_a_file_without_columns_to_compress_is_done_already():
    sink = io.BytesIO()
    pq.ParquetWriter(sink, TABLE.schema).close()
    for data in (sink.getvalue(), written(SMALL, "zstd")):
        with pytest.raises(Refused, match="already-zstd"):
            rewritten(data)


def test_columns_that_are_zstd_already_are_moved_as_they_are():
    chosen = dict.fromkeys(TABLE.column_names, "snappy") | {"text": "zstd", "number": "none"}
    old = indexed(TABLE, chosen, row_group_size=1_000)  # type: ignore[arg-type]
    new = rewritten(old, level=19)
    assert codecs(new) == {"ZSTD"}
    assert (planned(new), same_bits(old, new)) == (planned(old), True)


def test_timestamps_of_96_bits_stay_what_they_are():
    old = written(TABLE.select(["zoned"]), use_deprecated_int96_timestamps=True)
    new = rewritten(old)
    assert pq.read_metadata(io.BytesIO(new)).schema.column(0).physical_type == "INT96"
    assert planned(new) == planned(old)


@pytest.mark.parametrize("compression", ["uncompressed", "snappy", "gzip", "lz4"])
def test_files_of_polars_are_rewritten(compression: Any):
    sink = io.BytesIO()
    frame = pl.from_arrow(TABLE.drop(["map"]))
    assert isinstance(frame, pl.DataFrame)
    frame.write_parquet(sink, compression=compression, row_group_size=1_100)
    new = rewritten(sink.getvalue())
    assert codecs(new) == {"ZSTD"}
    assert pl.read_parquet(io.BytesIO(new)).equals(frame)


@pytest.mark.parametrize("version", ["V1", "V2"])
@pytest.mark.parametrize("compression", ["uncompressed", "snappy", "lz4_raw"])
def test_files_of_duckdb_are_rewritten(compression: str, version: str, tmp_path: Path):
    old, new = tmp_path / "old.parquet", tmp_path / "new.parquet"
    with duckdb.connect() as engine:
        engine.register("rows", TABLE.drop(["half", "category"]))
        engine.sql(
            f"COPY rows TO '{old}' (FORMAT parquet, CODEC '{compression}',"
            f" PARQUET_VERSION '{version}', ROW_GROUP_SIZE 2048)"
        )
        new.write_bytes(rewritten(old.read_bytes()))
        assert codecs(new.read_bytes()) == {"ZSTD"}
        differ = engine.sql(f"FROM '{old}' EXCEPT ALL FROM '{new}'")
        assert differ.fetchall() == []
        assert engine.read_parquet(str(new)).count("*").fetchall() == [(3_000,)]


# --- what is refused


def refusal(data: bytes, **options: Any) -> Refusal:
    with pytest.raises(Refused) as refused:
        rewritten(data, **options)
    return refused.value.refusal


@pytest.mark.parametrize(
    ("codec", "expected"), [(Codec.LZO, "LZO"), (Codec.LZ4, "LZ4"), (77, "codec 77")]
)
def test_a_codec_that_is_not_here_is_named(codec: int, expected: str):
    data = written(SMALL)
    footer = parquet_made.footer(data)
    next(footer.chunks()).meta.set_number(MetaField.CODEC, codec)
    with pytest.raises(Refused, match=f"unsupported-codec: {expected}$"):
        rewritten(parquet_made.with_footer(data, footer))


def test_what_is_no_parquet_file_is_refused_as_such():
    for data in (b"", b"PAR1", b"a,b,c\n" * 100):
        assert refusal(data) is Refusal.NOT_PARQUET


def test_encrypted_files_are_refused_however_they_are_encrypted():
    data = written(SMALL)
    assert refusal(b"PARE" + data[4:-4] + b"PARE") is Refusal.ENCRYPTED
    assert refusal(data[:-4] + b"PARE") is Refusal.ENCRYPTED
    footer = parquet_made.footer(data)
    footer.metadata.values[8], footer.metadata.kinds[8] = b"\x00", 12
    assert refusal(parquet_made.with_footer(data, footer)) is Refusal.ENCRYPTED
    for field in (ChunkField.ENCRYPTION, ChunkField.ENCRYPTED_META):
        footer = parquet_made.footer(data)
        chunk = next(footer.chunks()).chunk
        chunk.values[field], chunk.kinds[field] = b"\x00", 8
        assert refusal(parquet_made.with_footer(data, footer)) is Refusal.ENCRYPTED


def test_columns_in_another_file_are_refused():
    data = written(SMALL)
    footer = parquet_made.footer(data)
    chunk = next(footer.chunks()).chunk
    chunk.values = {ChunkField.PATH: b"\x05other", **chunk.values}
    chunk.kinds[ChunkField.PATH] = 8
    assert refusal(parquet_made.with_footer(data, footer)) is Refusal.STRUCTURE


def test_bytes_nobody_accounts_for_are_refused_and_padding_is_dropped():
    data = written(SMALL)
    footer = parquet_made.footer(data)
    for between, fits in ((bytes(4_000), True), (b"an index of somebody's own", False)):
        padded = data[: footer.start] + between + data[footer.start :]
        if fits:
            assert rewritten(padded) == rewritten(data)
        else:
            assert refusal(padded) is Refusal.STRUCTURE


def test_row_groups_and_pages_beyond_the_bounds_are_refused(monkeypatch: pytest.MonkeyPatch):
    data = written(TABLE, row_group_size=1_000)
    sizes = [each.required(GroupField.FULL_SIZE) for each in parquet_made.footer(data).row_groups]
    assert refusal(data, row_group=max(sizes) - 1) is Refusal.ROW_GROUP
    assert rewritten(data, row_group=max(sizes))
    monkeypatch.setattr("s4gateway.tools.parquet_pages.LARGEST_PAGE", 2_000)
    assert refusal(data) is Refusal.PAGE


# --- damage


def test_a_file_cut_anywhere_is_damaged():
    data = indexed(SMALL)
    for length in range(4, len(data), 211):
        with pytest.raises((Damaged, Refused)):
            rewritten(data[:length])


def test_a_changed_page_is_found_by_its_checksum():
    data = bytearray(indexed(SMALL))
    chunk = next(parquet_made.footer(bytes(data)).chunks())
    data[chunk.start + chunk.size - 2] ^= 1
    with pytest.raises(Damaged, match="CRC"):
        rewritten(bytes(data))


def test_pages_that_claim_other_sizes_are_damaged():
    """A page's header says what it decompresses to; what becomes more is never made."""
    for compression in COMPRESSIONS:
        data = written(SMALL.select(["number"]), compression, use_dictionary=False)
        chunk = next(parquet_made.footer(data).chunks())
        header = data[chunk.start : chunk.start + 12]
        assert header[:3] == b"\x15\x00\x15"
        for change in (2, -2, 64):
            # The lowest seven bits of the size decompressed, a zigzag varint.
            low = (header[3] & 128) | ((header[3] + change) & 127)
            changed = data[: chunk.start + 3] + bytes([low]) + data[chunk.start + 4 :]
            with pytest.raises(REASONS):
                rewritten(changed)


def test_a_new_file_that_differs_anywhere_is_found_out(monkeypatch: pytest.MonkeyPatch):
    """What a write made is judged by what is read back from its file."""
    data = indexed(SMALL, data_page_version="2.0")
    length = len(rewritten(data))
    draw = random.Random(7)
    write = parquet_made.parquet_child.Sink.write
    for position in sorted(draw.sample(range(length), 120)):

        def flip(sink: Any, piece: bytes, at: int = position) -> None:
            inside = at - sink.length
            if 0 <= inside < len(piece):
                piece = piece[:inside] + bytes([piece[inside] ^ 64]) + piece[inside + 1 :]
            write(sink, piece)

        monkeypatch.setattr(parquet_made.parquet_child.Sink, "write", flip)
        try:
            made = rewritten(data)
        except REASONS:
            continue
        assert same_bits(data, made), position
        assert planned(made) == planned(data), position
