"""Rows on their way into a dataset, packed: a text that many rows share stands once, in an Arrow dictionary.

Packed are the columns `REPEATED` of `TraceRow`, all others are as `row_schema` has them. So rows are moved, sorted and written
without copying or hashing those texts again. The lists (`flags`, `violations`) are packed as the JSON of each different list.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ..tables import row_schema
from .traces import TraceRow, compact

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

LISTS: Final = ("flags", "violations")
REPEATED_TEXTS: Final = (
    "trace_name",
    "trace_rating",
    "trace_type",
    "event_type",
    "service_type",
    "resource_type",
    "resource_account_id",
    "user_id",
    "user_name",
    "user_account_id",
    "user_account_name",
    "user_text",
    "code",
    "source_ip",
    "api_version",
    "endpoint",
    "user_agent",
    "enterprise_project_id",
    "project_id",
    "domain_id",
    "tracker_name",
    "region",
    "source_file",
)
REPEATED: Final = frozenset((*REPEATED_TEXTS, *LISTS))
"""The columns that are packed. A text that is new in every row may stand there, too: it only takes longer."""
_Rows = TypeVar("_Rows", "pa.RecordBatch", "pa.Table")


@functools.cache
def packed_schema() -> pa.Schema:
    """The columns of `TraceRow`, packed."""
    import pyarrow as pa

    kind = pa.dictionary(pa.int32(), pa.string())
    return pa.schema([field.with_type(kind) if field.name in REPEATED else field for field in row_schema(TraceRow)])


@functools.cache
def written_schema() -> pa.Schema:
    """The columns of `TraceRow` as they are written: packed, but for the lists."""
    import pyarrow as pa

    rows = row_schema(TraceRow)
    return pa.schema([rows.field(field.name) if field.name in LISTS else field for field in packed_schema()])


def packed(values: Sequence[str | None], codes: np.ndarray[Any, Any]) -> pa.DictionaryArray:
    """A packed column: each row's text by its place in `values`, where texts may stand more than once."""
    import pyarrow as pa

    different = pa.array(values, pa.string()).dictionary_encode()
    places: Any = pa.array(codes)
    return pa.DictionaryArray.from_arrays(different.indices.take(places), different.dictionary)


def packed_lists(values: Sequence[Sequence[str]], codes: np.ndarray[Any, Any]) -> pa.DictionaryArray:
    """A packed column of lists, see `packed`."""
    return packed([compact(list(value)) for value in values], codes)


def unpacked(rows: _Rows) -> _Rows:
    """Rows, some columns of them or all, as `row_schema` has them."""
    return _changed(rows, REPEATED)


def writable(rows: pa.Table) -> pa.Table:
    """Rows, packed or not, as `written_schema` has them."""
    rows = _changed(rows, frozenset(LISTS))
    for number, name in enumerate(rows.column_names):
        if name in REPEATED_TEXTS and not _is_packed(rows.column(number)):
            rows = rows.set_column(number, written_schema().field(name), rows.column(number).dictionary_encode())
    return rows


def _changed(rows: _Rows, names: frozenset[str]) -> _Rows:
    for number, name in enumerate(rows.schema.names):
        if name in names and _is_packed(rows.column(number)):
            field = row_schema(TraceRow).field(name)
            rows = rows.set_column(number, field, _unpacked(rows.column(number), field))
    return rows


def _is_packed(column: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_dictionary(column.type))


def _unpacked(column: Any, field: Any) -> Any:
    import pyarrow as pa

    if field.name not in LISTS:
        return column.cast(field.type)
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    made = [pa.array(map(json.loads, each.dictionary.to_pylist()), field.type).take(each.indices) for each in chunks]
    return pa.chunked_array(made, field.type) if isinstance(column, pa.ChunkedArray) else made[0]


def plain_size(table: pa.Table) -> int:
    """About the bytes that rows take once they are not packed any more, as most readers have them."""
    import pyarrow.compute as pc

    size = 0
    for column in table.columns:
        for chunk in column.chunks:
            if _is_packed(chunk):
                lengths = pc.binary_length(chunk.dictionary).take(chunk.indices)
                size += (pc.sum(lengths).as_py() or 0) + lengths.nbytes
            else:
                size += chunk.nbytes
    return size


class Vocabulary:
    """Packs batches so that their dictionaries only grow, as an Arrow file must have it."""

    def __init__(self) -> None:
        self._columns: dict[str, _Texts] = {}

    @property
    def size(self) -> int:
        """Bytes of all texts."""
        return sum(each.values.nbytes for each in self._columns.values())

    def pack(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """A batch with all columns of `TraceRow`, packed or not, as `packed_schema` has them."""
        import pyarrow as pa

        schema = packed_schema()
        arrays = []
        for name in schema.names:
            column = batch.column(name)
            if name in REPEATED:
                column = self._columns.setdefault(name, _Texts()).pack(column)
            arrays.append(column)
        return pa.RecordBatch.from_arrays(arrays, schema=schema)


class _Texts:
    """The different texts of a column, in the order in which they came."""

    def __init__(self) -> None:
        import pyarrow as pa

        # An empty dictionary cannot grow in an Arrow file. This is what most lists are; elsewhere it is as good as any text.
        self.values: Any = pa.array(["[]"])

    def pack(self, column: Any) -> pa.DictionaryArray:
        import pyarrow as pa

        if pa.types.is_list(column.type):
            column = pa.array([compact(value) for value in column.to_pylist()], pa.string())
        if not _is_packed(column):
            column = column.dictionary_encode()
        none: Any = pa.array([], pa.int32())
        both: Any = pa.chunked_array([pa.DictionaryArray.from_arrays(none, self.values), column]).unify_dictionaries()
        found = both.chunk(both.num_chunks - 1)
        if len(found.dictionary) > len(self.values):
            self.values = found.dictionary
        return pa.DictionaryArray.from_arrays(found.indices, self.values)


def pruned(table: pa.Table) -> pa.Table:
    """The same rows; the dictionary of each packed column is one for all of them, with nothing in it that no row has."""
    import numpy as np
    import pyarrow as pa

    table = table.unify_dictionaries()
    for number, column in enumerate(table.columns):
        if not _is_packed(column) or not column.num_chunks:
            continue
        values = column.chunk(0).dictionary
        used = np.zeros(len(values), dtype=bool)
        for chunk in column.chunks:
            used[chunk.indices.drop_null().to_numpy()] = True
        if used.all():
            continue
        places: Any = pa.array(np.cumsum(used, dtype=np.int32) - 1, pa.int32())
        kept = values.filter(pa.array(used))
        chunks = [pa.DictionaryArray.from_arrays(places.take(chunk.indices), kept) for chunk in column.chunks]
        table = table.set_column(number, table.schema.field(number), pa.chunked_array(chunks))
    return table
