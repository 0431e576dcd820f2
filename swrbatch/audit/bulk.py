"""Whole trace files through DuckDB: the same rows as record by record, many times as fast.

`unpack` makes a file ready; DuckDB cuts a chunk of such files into columns of JSON texts; `columns` turns those into rows, a
batch at a time. What is not plain in a row is not judged here: the text of this one record goes to the exact reader. What is not
plain in a file sends the whole file there: it is named in `Chunk.left`.

Why nothing is passed over: `unpack` counts the keys of a file (`":` behind no backslash), DuckDB counts the values of the columns
that it was asked for. When the two differ, DuckDB lists the keys; unknown ones become columns, too, for `extra`. Why no value is
taken for another: columns come as JSON text, so its type is seen. Where nothing is null, an object or an array, texts come as
such: `unpack` has counted them, too, and when the number is right, no text was anything else. DuckDB reads more than JSON, but
NaN shows as a text that the exact reader refuses, and commas before a closing bracket were found by `unpack`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ..digest import Cancel
from ..duck import BATCH, connect
from ..tables import rows_to_arrow
from . import files
from .ahead import ahead
from .columns import FLAT_TEXTS, KNOWN, PLAIN_TEXTS, Converter, Places, extra
from .files import DECODER, Record, Reject, record_of
from .stage import Group, Stage
from .traces import TraceRow, read_trace
from .unpack import Prepared

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_BYTES: Final = 64 << 20
CHUNK_FILES: Final = 512
_LONG_ROW: Final = 128 << 10
_LEARNED: Final = 64
_OBJECTS: Final = ("request", "response")
# Keys by which the exact reader tells envelopes and digest files, and DuckDB's own column.
_SPECIAL: Final = frozenset({"cts", "traces", "log_files", "digest_object", "filename"})


@dataclass(slots=True)
class Taken:
    """What was read of a file: `records` traces, and the records that could not be read."""

    records: int = 0
    rejects: list[Reject] = field(default_factory=list)


@dataclass(slots=True)
class Chunk:
    """What became of a chunk: the files that were taken, by number, and those that have to be read record by record."""

    taken: dict[int, Taken] = field(default_factory=dict)
    left: list[Prepared] = field(default_factory=list)


class _Leave(Exception):
    """Files that have to be read record by record, by number."""

    def __init__(self, *numbers: int) -> None:
        super().__init__(numbers)
        self.numbers = numbers


class _Unreadable(Exception):
    """DuckDB refuses; its message names a file, or none."""


class _Again(Exception):
    """Read again: there are new columns, or files that are not flat, by number."""

    def __init__(self, *numbers: int) -> None:
        super().__init__(numbers)
        self.numbers = numbers


class Bulk:
    """Takes files into a stage. `work` is a folder for what is in progress; the files of `prepare` may lie there, too."""

    def __init__(self, work: str, stage: Stage, now: int, catalog: str, cancel: Cancel) -> None:
        self._stage = stage
        self._cancel = cancel
        self._now = now
        self._catalog = catalog
        self._connection = connect(work)
        self._convert = Converter(now, catalog)
        self._learned: list[str] = []

    def close(self) -> None:
        self._connection.close()

    def take(self, prepared: Sequence[Prepared]) -> Chunk:
        """Add the rows of files to the stage, of each all of them, or none where `left` names it. Removes the plain files."""
        chunk = Chunk(left=[each for each in prepared if not self._short_enough(each)])
        rest = [each for each in prepared if each not in chunk.left]
        kinds: dict[tuple[str, bool], list[Prepared]] = {}
        for each in rest:
            flat = each.flat and each.keys is not None and each.strings is not None
            kinds.setdefault((each.format, flat), []).append(each)
        groups = [(group, flat) for (_, flat), group in kinds.items()]
        failed = 0
        while groups:
            group, flat = groups.pop()
            try:
                chunk.taken |= self._read(group, flat)
                continue
            except _Again as e:
                # Those that are not flat after all are read as they have to be.
                groups += [(part, way) for part, way in _parted(group, e.numbers, flat) if part]
                continue
            except _Leave as e:
                left = {*e.numbers}
            except _Unreadable as e:
                left = _named(str(e), group)
            chunk.left += [each for each in group if each.number in left]
            group = [each for each in group if each.number not in left]
            failed += 1
            # A chunk full of bad files would be read once for each of them.
            groups += [(group, flat)] if failed < 3 and group else [([each], flat) for each in group]
        for each in prepared:
            os.unlink(each.plain)
        return chunk

    def _short_enough(self, each: Prepared) -> bool:
        """Whether no record of a file is too long: for the contract's bound, and for a batch of them to be held at once."""
        if each.size <= min(files.MAX_RECORD, CHUNK_BYTES):
            return True
        query = f"SELECT max(strlen(json)) FROM read_json_objects('{_quoted(each.plain)}', format = '{each.format}', {_LIMIT})"
        try:
            longest = max(batch.column(0)[0].as_py() or 0 for batch in self._batches(query, 1))
        except _Unreadable:
            return False
        return int(longest) <= min(files.MAX_RECORD, _LONG_ROW)

    def _batches(self, query: str, size: int = BATCH) -> Iterator[pa.RecordBatch]:
        """The result of a query."""
        import duckdb

        try:
            for batch in self._connection.sql(query).to_arrow_reader(size):
                self._cancel.check()
                yield batch
        except (duckdb.Error, OSError) as e:
            raise _Unreadable(str(e)) from e

    def _read(self, group: Sequence[Prepared], flat: bool) -> dict[int, Taken]:
        """One query over files of one form, into one group of the stage."""
        counts = {each.number: _Count() for each in group}
        with self._stage.group() as staged:
            query = _query([each.plain for each in group], group[0].format, self._learned, flat)
            places = Places({each.number: each.source for each in group}, self._now)
            with contextlib.closing(ahead(_joined(self._batches(query)))) as batches:
                for batch in batches:
                    self._convert_batch(batch, places, counts, staged)
            if not_flat := [each.number for each in group if flat and not counts[each.number].proves(each)]:
                raise _Again(*not_flat)
            for each in group:
                self._check(each, counts[each.number])
            taken = {each.number: Taken(counts[each.number].rows) for each in group}
            for each in group:
                if counts[each.number].odd:
                    self._read_odd(each, counts[each.number].odd, taken[each.number], staged)
        return taken

    def _convert_batch(self, batch: pa.RecordBatch, places: Places, counts: Mapping[int, _Count], staged: Group) -> None:
        place = places.of(batch.column("file"))
        rows, odd, keys, strings = self._convert(batch, place, self._learned)
        for begin, end, number, first in place.runs:
            count = counts[number]
            count.rows += end - begin
            count.keys += int(keys[begin:end].sum())
            count.strings += int(strings[begin:end].sum())
            count.odd += (odd[begin:end].nonzero()[0] + first).tolist()
        staged.add(rows)

    def _check(self, each: Prepared, count: _Count) -> None:
        """Make sure that nothing of a file was passed over."""
        if count.rows > files.MAX_RECORDS:
            raise _Leave(each.number)
        if count.keys == each.keys:
            return
        query = f"""
            SELECT DISTINCT unnest(json_keys(json))
            FROM read_json_objects('{_quoted(each.plain)}', format = '{each.format}', {_LIMIT}) WHERE json_type(json) = 'OBJECT'
        """
        found = {str(key) for batch in self._batches(query) for key in batch.column(0).to_pylist()}
        unknown = found - {*KNOWN, *self._learned}
        names = [name.lower() for name in (*KNOWN, *self._learned, *unknown)]
        if unknown & _SPECIAL or len(self._learned) + len(unknown) > _LEARNED or len(set(names)) < len(names):
            raise _Leave(each.number)
        if unknown:
            self._learned += sorted(unknown)
            raise _Again

    def _read_odd(self, each: Prepared, odd: list[int], taken: Taken, staged: Group) -> None:
        """Have the exact reader judge records by their text."""
        import pyarrow as pa

        self._connection.register("wanted", pa.table({"row": pa.array(odd, type=pa.int64())}))
        query = f"""
            SELECT row, json FROM (
                SELECT row_number() OVER () - 1 AS row, json
                FROM read_json_objects('{_quoted(each.plain)}', format = '{each.format}', {_LIMIT})
            ) SEMI JOIN wanted USING (row) ORDER BY row
        """
        for batch in self._batches(query, BATCH // 8):
            rows: list[TraceRow] = []
            texts: Any = batch.column("json").to_pylist()
            positions: Any = batch.column("row").to_pylist()
            for position, text in zip(positions, texts, strict=True):
                try:
                    item = record_of(DECODER.decode(text), text, position)
                except (ValueError, RecursionError):
                    raise _Leave(each.number) from None
                if isinstance(item, Record):
                    rows.append(read_trace(item.value, each.source, position, self._now, self._catalog))
                else:
                    taken.rejects.append(item)
            for staged_rows in rows_to_arrow(TraceRow, rows).to_batches():
                staged.add(staged_rows)
        taken.records -= len(taken.rejects)


def _joined(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of up to `BATCH`: DuckDB ends one with each file, and each costs the same few milliseconds."""
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        if held and rows + batch.num_rows > BATCH:
            yield pa.concat_batches(held)
            held, rows = [], 0
        held.append(batch)
        rows += batch.num_rows
    if held:
        yield pa.concat_batches(held)


@dataclass(slots=True)
class _Count:
    """Rows, keys and texts of a file, and the positions of the rows that are not plain."""

    rows: int = 0
    keys: int = 0
    strings: int = 0
    odd: list[int] = field(default_factory=list)

    def proves(self, file: Prepared) -> bool:
        """Whether nothing was passed over, and each text was one."""
        return self.keys == file.keys and self.strings == file.strings


def _parted(group: Sequence[Prepared], numbers: Sequence[int], flat: bool) -> list[tuple[list[Prepared], bool]]:
    """A group as those files that are not `numbers`, read as before, and those that are, read with the types of all values."""
    return [
        ([each for each in group if each.number not in numbers], flat),
        ([each for each in group if each.number in numbers], False),
    ]


def _named(message: str, group: Sequence[Prepared]) -> set[int]:
    """The files that an error of DuckDB names; all when it names none."""
    found = {each.number for each in group if each.plain in message}
    return found or {each.number for each in group}


# --- the query ---------------------------------------------------------------------------------------------------------

_LIMIT: Final = f"maximum_object_size = {16 << 20}"


def _quoted(text: str) -> str:
    return text.replace("'", "''")


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _query(paths: Sequence[str], form: str, learned: Sequence[str], flat: bool) -> str:
    """Read files; see `Converter` for the columns.

    `flat`: texts come as such, and what is none as text, too: much faster, and right when the number of texts is right.
    """
    listed = ", ".join(f"'{_quoted(path)}'" for path in paths)
    names = [*KNOWN, *learned]
    texts = FLAT_TEXTS if flat else ()
    columns = ", ".join(f"'{_quoted(name)}': '{'VARCHAR' if name in texts else 'JSON'}'" for name in names)
    shown = [f"{name}::VARCHAR AS {name}" for name in KNOWN if flat or name not in (*PLAIN_TEXTS, *_OBJECTS)]
    shown += [f"{_name(name)}::VARCHAR AS {_name(extra(name))}" for name in learned]
    if not flat:
        shown += [f"{name}->>'$' AS {name}" for name in (*PLAIN_TEXTS, *_OBJECTS)]
        shown += [f"NOT coalesce(starts_with({name}, '\"'), true) AS {name}_other" for name in _OBJECTS]
        shown.append(" OR ".join(f"NOT coalesce(starts_with({name}, '\"'), true)" for name in PLAIN_TEXTS) + " AS odd")
    return f"""
        SELECT CAST(filename[-13:-6] AS INTEGER) AS file, {", ".join(shown)}
        FROM read_json([{listed}], format = '{form}', columns = {{{columns}}}, records = true, filename = true, {_LIMIT})
    """
