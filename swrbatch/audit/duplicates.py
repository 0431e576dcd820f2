"""Tells the rows of a stage apart: which are there already, and which have a trace_id that stands for another content.

DuckDB looks at hashes of the trace_id first, and compares the content of those rows only whose hash occurs twice.

Two rows are the same trace when trace_id and content are the same. Content is everything but where the row was found and what it
was judged to be; JSON texts are compared without their white space, since the same trace comes in several shapes. Rows without
a trace_id are told apart by their content alone. Of several copies that of the dataset is kept, else the one uploaded first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..tables import row_columns
from .ahead import ahead
from .dataset import Dataset
from .packed import packed_lists, unpacked
from .traces import TraceRow

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa

# What tells one trace from another: everything but where it was found and what it was judged to be.
_NOT_CONTENT: Final = ("region", "uploaded", "source_file", "source_position", "flags", "violations")
_FOUND: Final = ("uploaded", "source_file", "source_position")


def taken(batch: pa.RecordBatch, rows: Any) -> pa.RecordBatch:
    """The rows of these numbers."""
    import pyarrow as pa

    indices: Any = pa.array(rows)
    return batch.take(indices)


class Verdict:
    """Which rows are dropped, and which have a trace_id that stands for another content: their numbers, sorted."""

    def __init__(self, dropped: np.ndarray[Any, Any] | None = None, differing: np.ndarray[Any, Any] | None = None) -> None:
        self._dropped = dropped
        self._differing = differing

    def flagged(self, first: int, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The packed rows of a batch, the first of which has the number `first`, with their flags."""
        differing = _within(self._differing, first, batch.num_rows)
        if not len(differing):
            return batch
        index = batch.schema.get_field_index("flags")
        flags = batch.column(index)
        lists = [json.loads(text) for text in flags.dictionary.to_pylist()]
        codes = flags.indices.to_numpy().copy()
        codes[differing] += len(lists)
        lists += [sorted([*each, "duplicate-differs"]) for each in lists]
        return batch.set_column(index, batch.schema.field(index), packed_lists(lists, codes))

    def kept(self, first: int, rows: int) -> np.ndarray[Any, Any]:
        """Which of so many rows from the number `first` on are kept, as bool."""
        import numpy as np

        found = np.ones(rows, dtype=bool)
        found[_within(self._dropped, first, rows)] = False
        return found


def _within(numbers: np.ndarray[Any, Any] | None, first: int, rows: int) -> np.ndarray[Any, Any]:
    import numpy as np

    if numbers is None:
        return np.empty(0, dtype=np.int64)
    begin, end = np.searchsorted(numbers, [first, first + rows])
    return numbers[begin:end] - first


Batches = Callable[[Sequence[str]], Iterator[tuple[int, "pa.RecordBatch"]]]


def settled(connection: duckdb.DuckDBPyConnection, dataset: Dataset, batches: Batches) -> Verdict:
    """Judge all rows; see the module's docstring."""
    import numpy as np

    connection.execute("SET TimeZone = 'UTC'")
    dataset.view(connection, "existing")
    connection.register("ids", _numbered(batches(["trace_id"])))
    connection.execute("CREATE TEMP TABLE fresh AS SELECT hash(nullif(trace_id, '')) AS hash, row FROM ids")
    connection.execute("""
        CREATE TEMP TABLE repeated AS
        SELECT hash FROM fresh GROUP BY hash HAVING count(*) > 1
        UNION SELECT hash(nullif(trace_id, '')) FROM existing WHERE hash(nullif(trace_id, '')) IN (SELECT hash FROM fresh)
    """)
    found = connection.sql("SELECT row FROM fresh WHERE hash IN (SELECT hash FROM repeated) ORDER BY row").fetchnumpy()["row"]
    suspects = np.asarray(found, dtype=np.int64)
    if not len(suspects):
        return Verdict()
    names = [c.name for c in row_columns(TraceRow) if c.name not in _NOT_CONTENT]
    connection.register("suspected", _numbered(batches([*names, *_FOUND]), suspects))
    connection.execute(f"""
        CREATE TEMP TABLE suspect AS
        SELECT nullif(trace_id, '') AS id, {_content(names)} AS content, row, {", ".join(_FOUND)} FROM suspected
    """)
    connection.execute(f"""
        CREATE TEMP TABLE known AS
        SELECT DISTINCT nullif(trace_id, '') AS id, {_content(names)} AS content FROM existing
        WHERE hash(nullif(trace_id, '')) IN (SELECT hash FROM repeated)
    """)
    judged = connection.sql("""
        WITH ranked AS (
            SELECT *,
                row_number() OVER (PARTITION BY id, content ORDER BY uploaded, source_file, source_position, row) AS copy,
                first(content) OVER (PARTITION BY id ORDER BY uploaded, source_file, source_position, row) AS first_content
            FROM suspect
        )
        SELECT row,
            copy > 1 OR EXISTS (FROM known AS k WHERE k.id IS NOT DISTINCT FROM r.id AND k.content = r.content) AS dropped,
            id IS NOT NULL AND (content <> first_content OR id IN (SELECT id FROM known WHERE id IS NOT NULL)) AS differing
        FROM ranked AS r ORDER BY row
    """).fetchnumpy()
    rows, dropped = np.asarray(judged["row"], dtype=np.int64), np.asarray(judged["dropped"], dtype=bool)
    return Verdict(rows[dropped], rows[np.asarray(judged["differing"], dtype=bool) & ~dropped])


def _content(names: Sequence[str]) -> str:
    """SQL for the digest of a row's content."""
    texts = {"user_text", "request", "response"}
    plain = {name: f"{name}::VARCHAR" for name in names}
    plain |= {name: f"CASE WHEN json_valid({name}) THEN json({name})::VARCHAR ELSE {name} END" for name in texts}
    for name in ("time", "record_time"):
        plain[name] = f"epoch_ms({name})::VARCHAR"
        plain[f"{name}_text"] = f"CASE WHEN {name} IS NULL THEN {name}_text END"
    return f"md5(to_json(struct_pack({', '.join(f'{name} := {sql}' for name, sql in plain.items())}))::VARCHAR)"


def _numbered(batches: Iterator[tuple[int, pa.RecordBatch]], only: np.ndarray[Any, Any] | None = None) -> pa.RecordBatchReader:
    """Batches, unpacked, with the numbers of their rows; with `only` (sorted) the rows of these numbers."""
    import numpy as np
    import pyarrow as pa

    def numbered() -> Iterator[pa.RecordBatch]:
        for first, batch in batches:
            rows = np.arange(first, first + batch.num_rows, dtype=np.int64)
            if only is not None:
                chosen = _within(only, first, batch.num_rows)
                if not len(chosen):
                    continue
                batch, rows = taken(batch, chosen), rows[chosen]
            batch = unpacked(batch)
            yield pa.RecordBatch.from_arrays([*batch.columns, pa.array(rows)], names=[*batch.schema.names, "row"])

    made = ahead(numbered())
    first = next(made)
    return pa.RecordBatchReader.from_batches(first.schema, _again(first, made))


def _again(first: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from rest
