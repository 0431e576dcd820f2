"""Rows on their way into a dataset: kept on disk, duplicates told apart, given back day by day and sorted.

Memory is bounded whatever the number of rows: they lie in Arrow files, packed, each row of a batch in the slice of its hour; an
hour that is small enough is sorted in memory, a larger one by DuckDB, which spills. Which rows are the same is for `duplicates`
to say.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..digest import Cancel
from ..disk import disk_errors
from ..duck import BATCH, connect, database_errors
from ..tables import row_schema, rows_to_arrow
from .dataset import UNKNOWN_DAY, Dataset
from .duplicates import Verdict, settled, taken
from .packed import Vocabulary, packed_schema, unpacked, writable
from .traces import HOUR_MS, TraceRow

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

SORTED_IN_MEMORY: Final = 96 << 20
"""Bytes of an hour's rows that are sorted without DuckDB."""
_VOCABULARY: Final = 8 << 20
"""Bytes of repeated texts in one file; it is read with all of them."""
_DAY_HOURS: Final = 24
_UNKNOWN: Final = -_DAY_HOURS
_ORDER: Final = ("time", "trace_id", "source_file", "source_position")


@dataclass(frozen=True, slots=True)
class _Slice:
    """Rows of one hour in a batch of a file: `first` is the number of the first of them in the whole stage."""

    file: str
    batch: int
    first: int
    rows: int
    bytes: int


class Group:
    """Rows that are added together, or not at all; they lie in files whose names begin with `path`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._writer: Any = None
        self._vocabulary = Vocabulary()
        self._batches = 0
        self.files: list[str] = []
        self.slices: list[tuple[int, str, int, int, int]] = []
        """(hour, file, number of the batch in it, rows, bytes) in the order of the batches."""

    def add(self, batch: pa.RecordBatch) -> None:
        """Rows of a batch (the columns of `TraceRow`, packed or not), each hour's as one slice."""
        import numpy as np

        hours = hour_numbers(batch.column("time"))
        if not len(hours):
            return
        if self._writer is None or self._vocabulary.size > _VOCABULARY:
            self._begin()
        batch = self._vocabulary.pack(batch)
        first, last = int(hours.min()), int(hours.max())
        if first == last:
            self._write(first, batch)
            return
        order = np.argsort(hours, kind="stable")
        ends = [*(np.flatnonzero(np.diff(hours[order])) + 1).tolist(), len(order)]
        for begin, end in zip([0, *ends], ends, strict=False):
            self._write(int(hours[order[begin]]), taken(batch, order[begin:end]))

    def _begin(self) -> None:
        import pyarrow as pa

        self.close()
        self._vocabulary, self._batches = Vocabulary(), 0
        self.files.append(f"{self._path}-{len(self.files)}.arrow")
        options = pa.ipc.IpcWriteOptions(compression="lz4", emit_dictionary_deltas=True)
        with disk_errors("rows cannot be staged"):
            self._writer = pa.ipc.new_file(self.files[-1], packed_schema(), options=options)

    def _write(self, hour: int, batch: pa.RecordBatch) -> None:
        with disk_errors("rows cannot be staged"):
            self._writer.write_batch(batch)
        self.slices.append((hour, self.files[-1], self._batches, batch.num_rows, batch.nbytes))
        self._batches += 1

    def close(self) -> None:
        if self._writer is not None:
            with disk_errors("rows cannot be staged"):
                self._writer.close()


def hour_numbers(times: Any) -> np.ndarray[Any, Any]:
    """The hours of times since 1970 (UTC); where there is no time, a number of its own."""
    import numpy as np
    import pyarrow as pa

    ms = times.cast(pa.int64()).fill_null(_UNKNOWN * HOUR_MS).to_numpy(zero_copy_only=False)
    hours: np.ndarray[Any, Any] = np.floor_divide(ms, HOUR_MS)
    return hours


class Stage:
    """All rows of a run. Files lie in the folder `work`; who made it removes it."""

    def __init__(self, work: str, cancel: Cancel) -> None:
        self._work = work
        self._cancel = cancel
        self._groups = 0
        self._hours: dict[int, list[_Slice]] = {}
        self.rows = 0
        self._verdict = Verdict()
        self._sorting = threading.Lock()

    @contextlib.contextmanager
    def group(self) -> Iterator[Group]:
        """A group of rows; when the block fails, they were never added."""
        group = Group(os.path.join(self._work, f"rows-{self._groups}"))
        self._groups += 1
        try:
            yield group
        except BaseException:
            group.close()
            for path in group.files:
                os.unlink(path)
            raise
        group.close()
        for hour, path, batch, rows, size in group.slices:
            self._hours.setdefault(hour, []).append(_Slice(path, batch, self.rows, rows, size))
            self.rows += rows

    def add(self, rows: Sequence[TraceRow]) -> None:
        """Add rows as they are."""
        if rows:
            with self.group() as group:
                for batch in rows_to_arrow(TraceRow, rows).to_batches():
                    group.add(batch)

    def settle(self, dataset: Dataset) -> None:
        """Find what is new: drop rows that the run or the dataset has already, flag those whose trace_id has another content."""
        if self.rows:
            with (
                contextlib.closing(connect(self._work)) as connection,
                database_errors("duplicates cannot be found", self._cancel),
            ):
                self._verdict = settled(connection, dataset, self._batches)

    def days(self) -> list[str]:
        """The days that have rows (`YYYY-MM-DD`), oldest first, `unknown` last."""
        known = sorted({hour // _DAY_HOURS for hour in self._hours if hour != _UNKNOWN})
        return [*map(_day_text, known), *([UNKNOWN_DAY] if _UNKNOWN in self._hours else [])]

    def day(self, text: str) -> Iterator[pa.Table]:
        """The rows of a day that are new (as `written_schema` has them), by (time, trace_id, source_file, source_position)."""
        first = _first_hour(text)
        for hour in range(first, first + _DAY_HOURS):
            if slices := self._hours.get(hour):
                yield from self._sorted(slices)

    def _sorted(self, slices: Sequence[_Slice]) -> Iterator[pa.Table]:
        import numpy as np
        import pyarrow as pa

        if sum(each.bytes for each in slices) > SORTED_IN_MEMORY:
            # One at a time: each may hold all that DuckDB is given.
            with self._sorting:
                yield from self._sorted_by_duckdb(pa.RecordBatchReader.from_batches(row_schema(TraceRow), self._kept(slices)))
            return
        kept: list[np.ndarray[Any, Any]] = []
        table = _compact(pa.Table.from_batches(self._flagged(slices, kept), packed_schema()))
        order = _order(table).to_numpy()
        # Rows are left out here, not before: each column is copied once.
        order = order[np.concatenate(kept)[order]]
        for start in range(0, len(order), BATCH):
            self._cancel.check()
            yield writable(table.take(pa.array(order[start : start + BATCH])))

    def _sorted_by_duckdb(self, rows: pa.RecordBatchReader) -> Iterator[pa.Table]:
        import pyarrow as pa

        schema = row_schema(TraceRow)
        with contextlib.closing(connect(self._work)) as connection, database_errors("rows cannot be sorted", self._cancel):
            connection.execute("SET TimeZone = 'UTC'")
            connection.register("rows", rows)
            order = ", ".join(f"{name} ASC NULLS LAST" for name in _ORDER)
            for batch in connection.sql(f"SELECT * FROM rows ORDER BY {order}").to_arrow_reader(BATCH):
                self._cancel.check()
                yield writable(pa.Table.from_batches([batch]).select(schema.names).cast(schema))

    def _kept(self, slices: Sequence[_Slice]) -> Iterator[pa.RecordBatch]:
        """The rows of slices that are new, flagged."""
        import pyarrow as pa

        kept: list[np.ndarray[Any, Any]] = []
        for batch in self._flagged(slices, kept):
            yield unpacked(batch.filter(pa.array(kept.pop())))

    def _flagged(self, slices: Sequence[_Slice], kept: list[np.ndarray[Any, Any]]) -> Iterator[pa.RecordBatch]:
        """The rows of slices, flagged; which of them are new is added to `kept`, an array of bool for each batch."""
        for each, batch in _read(slices, None):
            self._cancel.check()
            kept.append(self._verdict.kept(each.first, each.rows))
            yield self._verdict.flagged(each.first, batch)

    def _batches(self, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """All rows, some columns of them, packed, with the number of the first row of each batch."""
        names = row_schema(TraceRow).names
        for slices in self._hours.values():
            for each, batch in _read(slices, [names.index(name) for name in columns]):
                self._cancel.check()
                yield each.first, batch


def _read(slices: Sequence[_Slice], fields: list[int] | None) -> Iterator[tuple[_Slice, pa.RecordBatch]]:
    import pyarrow as pa

    options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
    opened: tuple[str, Any] | None = None
    with disk_errors("staged rows cannot be read"):
        for each in slices:
            if opened is None or opened[0] != each.file:
                opened = each.file, pa.ipc.open_file(pa.OSFile(each.file, "rb"), options=options)
            yield each, opened[1].get_batch(each.batch)


def _compact(table: pa.Table) -> pa.Table:
    """The same rows, each column in one piece; made column by column, so that only one is there twice."""
    import pyarrow as pa

    schema, columns = table.schema, list(table.columns)
    del table
    for number in range(len(columns)):
        columns[number] = pa.chunked_array([columns[number].combine_chunks()], type=schema.field(number).type)
    return pa.Table.from_arrays(columns, schema=schema)


def _order(table: pa.Table) -> Any:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    keys = table.select(list(_ORDER))
    files = keys.column("source_file").chunk(0)
    ranks = np.empty(len(files.dictionary), dtype=np.int32)
    ranks[pc.sort_indices(files.dictionary).to_numpy()] = np.arange(len(ranks), dtype=np.int32)
    keys = keys.set_column(_ORDER.index("source_file"), "source_file", pa.array(ranks).take(files.indices))
    # Nulls come last.
    return pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in _ORDER])


_EPOCH: Final = datetime.date(1970, 1, 1).toordinal()


def _day_text(day: int) -> str:
    return datetime.date.fromordinal(_EPOCH + day).isoformat()


def _first_hour(text: str) -> int:
    return _UNKNOWN if text == UNKNOWN_DAY else (datetime.date.fromisoformat(text).toordinal() - _EPOCH) * _DAY_HOURS
