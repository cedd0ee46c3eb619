"""Materialized views: rows kept as the names of empty objects, found again with one LIST.

Rule: markers are stored before the data they tell of, so that no committed row lacks its marker;
a write that fails leaves markers behind. A lookup may therefore tell of rows that were never
committed, never the reverse. It asks nobody else: no commit markers, no settle window.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeAlias, TypeVar

import pyarrow as pa

from s4gateway.s3store.blocking import runner_of
from s4gateway.s3store.errors import ConfigError, DecodeError
from s4gateway.s3store.fan_out import fan_out
from s4gateway.s3store.layout import Keys, check_parts
from s4gateway.s3store.marker_time import Layout
from s4gateway.s3store.partitions import HivePartition
from s4gateway.s3store.patterns import Pattern, Plan, compile_all
from s4gateway.s3store.records import RecordSpec
from s4gateway.s3store.target import S3Target

T = TypeVar("T")
K = TypeVar("K")
Row: TypeAlias = Sequence[str] | None
Marking = Callable[[HivePartition[Any]], list[str]]

_END: Final = "/m.matview"
_TIMELESS: Final = Layout()


@dataclass(frozen=True)  # with slots, `MaterializedView[Record](...)` is refused by Python 3.11
class MaterializedView(Generic[T]):
    """What a writer keeps of its records: one marker for each distinct row of `columns`.

    Without `of` the columns are the record's of the same names, texts and times; times need a
    `layout`. `of` returns the texts of a record in the order of the columns, None for no marker.

    >>> MaterializedView("sku_idx", ("sku", "customer")).columns
    ('sku', 'customer')
    """

    name: str
    columns: Sequence[str]
    of: Callable[[T], Row] | None = None
    layout: Layout = _TIMELESS

    def __post_init__(self) -> None:
        _check_name(self.name)
        checked = check_parts(self.columns, f"view {self.name!r}: columns")
        object.__setattr__(self, "columns", checked)

    def needed(self, spec: RecordSpec[Any]) -> list[str]:
        """Return the columns of the record that markers are made of."""
        return list(spec.schema.names if self.of else self.columns)

    def bind(self, spec: RecordSpec[Any], keys: Keys) -> Marking:
        """Return what makes the marker keys of a partition's rows; raises ConfigError."""
        if self.of is None:
            _check_types(self.name, self.columns, spec, self.layout)
        rows_of = self._by_column if self.of is None else self._by_row

        def make(partition: HivePartition[Any]) -> list[str]:
            made = (keys.marker(self.name, self.columns, row) for row in rows_of(partition))
            return list(dict.fromkeys(made))

        return make

    def _by_row(self, partition: HivePartition[T]) -> Iterable[Sequence[str]]:
        assert self.of is not None
        for record in partition.rows:
            row = self.of(record)
            if row is not None:
                yield self._checked(row)

    def _checked(self, row: Sequence[str]) -> Sequence[str]:
        texts = not isinstance(row, str) and all(isinstance(value, str) for value in row)
        if not texts or len(row) != len(self.columns):
            raise ConfigError(
                f"view {self.name!r}: `of` returned {row!r}, not {len(self.columns)} texts for"
                f" {', '.join(self.columns)}"
            )
        return row

    def _by_column(self, partition: HivePartition[T]) -> Iterable[Sequence[str]]:
        table = partition.table.select(list(self.columns))
        distinct = table.group_by(table.column_names, use_threads=False).aggregate([])
        return zip(
            *(self._texts(name, distinct.column(name)) for name in self.columns), strict=True
        )

    def _texts(self, name: str, column: pa.ChunkedArray) -> list[str]:
        if column.null_count:
            raise ConfigError(
                f"view {self.name!r}, column {name!r}: a record has None there; give `of`"
            )
        if not pa.types.is_timestamp(column.type):
            texts: list[str] = column.to_pylist()
            return texts
        moments = column.cast(pa.timestamp("us", "+00:00"), safe=False).to_pylist()
        return [self.layout.format(moment) for moment in moments]


@dataclass(frozen=True)  # with slots, `ViewLookup[Record](...)` is refused by Python 3.11
class ViewLookup(Generic[K]):
    """How a reader finds the rows of a view, and what it makes of them.

    Without `parse` the fields of `into` are the view's columns, `str` or `datetime`. `parse` gets
    the texts of a row in the order of the columns.
    """

    name: str
    columns: Sequence[str]
    into: type[K]
    parse: Callable[[Sequence[str]], K] | None = None
    layout: Layout = _TIMELESS

    def __post_init__(self) -> None:
        _check_name(self.name)
        checked = check_parts(self.columns, f"view {self.name!r}: columns")
        object.__setattr__(self, "columns", checked)


class AsyncMaterializedViewReader(Generic[K]):
    """Looks rows of one view up; the target needs no partition parts."""

    def __init__(self, target: S3Target, lookup: ViewLookup[K]) -> None:
        target.validate_lookup()
        self.target = target
        self._view = lookup
        self._rows = _rows_by_parse(lookup) if lookup.parse else _rows_by_field(lookup)

    async def lookup(self, patterns: Pattern | Sequence[Pattern]) -> list[K]:
        """Return the rows that match any of the patterns over the view's columns.

        Rows come in the order of their keys within a pattern, patterns as given, each row once.
        Costs the pages of one LIST for each pattern. Rows of writes that failed may be among them.
        Raises KeyPatternError before any request, DecodeError for a key that is no row.
        """
        with self.target.telemetry.method("lookup") as method:
            plans = compile_all(self._view.columns, patterns)
            calls = self.target.calls
            listed = await fan_out(self.target.telemetry, plans, self._list, calls.limit)
            keys = dict.fromkeys(key for found in listed for key in found)
            rows = self._rows([(key, self._values(key)) for key in keys])
            method.records = len(rows)
            return rows

    async def _list(self, plan: Plan) -> list[str]:
        root = self.target.keys.view_root(self._view.name)
        found: list[str] = []
        async with aclosing(self.target.calls.list_pages(root + plan.list_prefix)) as pages:
            async for page in pages:
                found += [
                    listed.key
                    for listed in page.objects
                    if plan.matches(listed.key[len(root) :].removesuffix(_END))
                ]
        return found

    def _values(self, key: str) -> tuple[str, ...]:
        try:
            return self.target.keys.parse_marker(self._view.name, self._view.columns, key)
        except ValueError as error:
            raise DecodeError(key, str(error).removeprefix(f"{key}: ")) from None


class MaterializedViewReader(Generic[K]):
    """`AsyncMaterializedViewReader` for blocking callers, over `S3Target.open_blocking`."""

    def __init__(self, target: S3Target, lookup: ViewLookup[K]) -> None:
        self.target = target
        self.asynchronous: AsyncMaterializedViewReader[K] = AsyncMaterializedViewReader(
            target, lookup
        )
        self._runner = runner_of(target)

    def lookup(
        self, patterns: Pattern | Sequence[Pattern], *, timeout: float | None = None
    ) -> list[K]:
        """See `AsyncMaterializedViewReader.lookup`; `timeout` in seconds."""
        return self._runner.run(self.asynchronous.lookup(patterns), timeout)


# --- definitions


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name or "/" in name:
        raise ConfigError(f"view {name!r}: a name is a text, not empty, without '/'")


def _check_types(
    view: str, columns: Sequence[str], spec: RecordSpec[Any], form: Layout, way_out: str = "`of`"
) -> None:
    """Raise ConfigError unless each column is a text, or a time with a layout."""
    for column in columns:
        type_ = spec.field(column).kind.type
        if pa.types.is_timestamp(type_):
            if form.time is None:
                raise ConfigError(
                    f"view {view!r}, column {column!r}: a time needs a layout, as in"
                    " Layout('%Y-%m-%d')"
                )
        elif not (pa.types.is_string(type_) or pa.types.is_large_string(type_)):
            raise ConfigError(
                f"view {view!r}, column {column!r}: {type_} is neither text nor time; give"
                f" {way_out}"
            )


# --- from markers to rows

_Found = Sequence[tuple[str, tuple[str, ...]]]


def _rows_by_parse(lookup: ViewLookup[K]) -> Callable[[_Found], list[K]]:
    parse = lookup.parse
    assert parse is not None

    def rows(found: _Found) -> list[K]:
        made = []
        for key, values in found:
            try:
                made.append(parse(values))
            except Exception as error:
                raise DecodeError(key, f"`parse` refuses {values!r}: {error}") from error
        return made

    return rows


def _rows_by_field(lookup: ViewLookup[K]) -> Callable[[_Found], list[K]]:
    spec: RecordSpec[K] = RecordSpec(lookup.into)
    names = set(spec.schema.names)
    if names != set(lookup.columns):
        raise ConfigError(
            f"view {lookup.name!r}: {lookup.into!r} has the columns {', '.join(sorted(names))}, the"
            f" view {', '.join(lookup.columns)}; make them the same or give `parse`"
        )
    _check_types(lookup.name, lookup.columns, spec, lookup.layout, "`parse`")

    def rows(found: _Found) -> list[K]:
        arrays = []
        for field in spec.schema:
            place = lookup.columns.index(field.name)
            texts = [(key, values[place]) for key, values in found]
            arrays.append(_column(lookup, field, texts))
        return spec.to_rows(pa.table(arrays, schema=spec.schema))

    return rows


def _column(lookup: ViewLookup[Any], field: pa.Field, texts: Sequence[tuple[str, str]]) -> pa.Array:
    if not pa.types.is_timestamp(field.type):
        return pa.array([text for _, text in texts], field.type)
    moments = []
    for key, text in texts:
        try:
            moments.append(lookup.layout.parse(text))
        except ValueError as error:
            raise DecodeError(key, f"column {field.name!r}: {error}") from None
    return pa.array(moments, field.type)
