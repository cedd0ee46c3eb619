"""Which rows of a partition a reader sees: the latest of each entity, or each version once.

Rule: rows are sorted by (entity, version), rows that are equal in both keep the order of their file
names and their place in the file; *latest* keeps the last of an entity, *history* the first of each
version. The row's position is a sort key, so stability does not depend on a library's promise. All
of it happens in Arrow; only callables see Python objects.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from s4gateway.s3store import conform
from s4gateway.s3store.errors import ConfigError
from s4gateway.s3store.records import RecordSpec

EntityKey: TypeAlias = str | Sequence[str] | Callable[[Any], str] | None
Version: TypeAlias = str | Callable[[Any], int] | None

_VERSION: Final = "version"
_ROW: Final = "row"


@dataclass(frozen=True, slots=True)
class Dedup:
    """The entity key and the version of a reader, checked against its record."""

    spec: RecordSpec[Any]
    entity: tuple[str, ...] | Callable[[Any], str]
    version: str | Callable[[Any], int]

    @classmethod
    def of(cls, spec: RecordSpec[Any], entity: EntityKey, version: Version) -> "Dedup | None":
        """Return None when nothing is configured; raises ConfigError for half of it."""
        if entity is None and version is None:
            return None
        if entity is None or version is None:
            missing = "entity_key" if entity is None else "version"
            raise ConfigError(f"entity_key and version belong together, {missing} is missing")
        if isinstance(version, str):
            _check_version(spec, version)
        if callable(entity):
            return cls(spec, entity, version)
        names = (entity,) if isinstance(entity, str) else tuple(entity)
        if not names:
            raise ConfigError("entity_key names no column")
        for name in names:
            if pa.types.is_nested(spec.field(name).kind.type):
                raise ConfigError(f"entity_key: column {name!r} has no order")
        return cls(spec, names, version)

    @property
    def columns(self) -> list[str]:
        """The columns that must be read for it: all of them for a callable."""
        if callable(self.entity) or callable(self.version):
            return list(self.spec.schema.names)
        return [*self.entity, self.version]

    def apply(self, table: pa.Table, *, history: bool) -> pa.Table:
        """Return the rows that remain, sorted."""
        if table.num_rows <= 1:
            return table
        keys = self._keys(table)
        sort_keys = [(name, "ascending") for name in keys.column_names]
        order = pc.sort_indices(keys, sort_keys=sort_keys)
        entities = [name for name in keys.column_names if name not in (_VERSION, _ROW)]
        compared = [*entities, _VERSION] if history else entities
        changes = _changes(keys.select(compared).take(order))
        edge = pa.array([True])
        pieces = [edge, changes] if history else [changes, edge]
        return table.take(pc.filter(order, pa.concat_arrays(pieces)))

    def _keys(self, table: pa.Table) -> pa.Table:
        entity, version = self.entity, self.version
        rows = self.spec.to_rows(table) if callable(entity) or callable(version) else []
        columns: dict[str, Any] = {}
        if callable(entity):
            columns["entity"] = ranked(pa.array(map(entity, rows), pa.string()))
        else:
            for name in entity:
                columns[f"entity {name}"] = ranked(_comparable(table.column(name)))
        if callable(version):
            columns[_VERSION] = pa.array(map(version, rows), pa.int64())
        else:
            columns[_VERSION] = _comparable(table.column(version).combine_chunks())
        columns[_ROW] = numbered(table.num_rows)
        return pa.table(columns)


def _check_version(spec: RecordSpec[Any], version: str) -> None:
    type_ = spec.field(version).kind.type
    if not (pa.types.is_integer(type_) or pa.types.is_timestamp(type_)):
        raise ConfigError(f"version: column {version!r} is {type_}, not an integer or a time")


def ranked(column: Any) -> Any:
    """Return numbers in the order of the values: a text is then compared once, not per row."""
    if not (pa.types.is_string(column.type) or pa.types.is_binary(column.type)):
        return column
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    encoded = pc.dictionary_encode(whole)
    if isinstance(encoded, pa.ChunkedArray):  # beyond 2 GiB of text
        return column
    places = pc.rank(encoded.dictionary, sort_keys="ascending", tiebreaker="dense")
    return pc.take(places, encoded.indices)


def numbered(rows: int) -> pa.Array:
    """Return the numbers of so many rows, from 0 on."""
    return pc.indices_nonzero(pa.repeat(pa.scalar(True), rows))


def _comparable(column: Any) -> Any:
    """Nulls count as the zero value; the row itself keeps its null."""
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.combine_chunks().storage
    if not column.null_count:
        return column
    return pc.coalesce(column, pa.scalar(conform.zero_of(column.type), column.type))


def _changes(ordered: pa.Table) -> pa.Array:
    """Whether each row but the first differs from the one before it."""
    count = ordered.num_rows - 1
    changed: Any = pa.repeat(pa.scalar(False), count)
    for column in ordered.columns:
        differs = pc.not_equal(column.slice(1), column.slice(0, count))
        changed = pc.or_(changed, differs)
    return changed.combine_chunks() if isinstance(changed, pa.ChunkedArray) else changed
