"""The report's Parquet tables: explicit schemas, atomic files, DataFrames.

`DIR/<table>/<run_id>.parquet`, one file a table and run, so that `pandas.read_parquet(DIR/"images")` reads all runs. Each
is written to a hidden temporary file and renamed; `runs` last, as the mark that a run's tables are complete. Heavy imports
are lazy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import operator
import os
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin, get_type_hints

from . import faults
from .disk import disk_errors
from .errors import ExitCode, SwrbatchError
from .results import ROWS, ArchiveRow, EventRow, FindingRow, ImageRow, IssueRow, LayerRow, Millis, RunRow

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a run did. `failure` is set when it ended early (interrupted, or the store failed)."""

    run: RunRow
    archives: tuple[ArchiveRow, ...]
    images: tuple[ImageRow, ...]
    layers: tuple[LayerRow, ...]
    issues: tuple[IssueRow, ...]
    events: tuple[EventRow, ...]
    findings: tuple[FindingRow, ...] = ()
    failure: SwrbatchError | None = None

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode(self.run.exit_code)

    def rows(self, table: str) -> tuple[Any, ...]:
        """The rows of `runs`, `archives`, `images`, `layers`, `issues`, `findings` or `events`."""
        if table == "runs":
            return (self.run,)
        if table not in ROWS:
            raise KeyError(f"no table {table!r}; there are {', '.join(ROWS)}")
        return tuple(getattr(self, table))

    def to_pandas(self, table: str = "images") -> pd.DataFrame:
        """One table as a DataFrame with the report's columns and types (integers that may be null are `Int64`)."""
        return to_pandas(table, self.rows(table))

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON: `run` and a list a table; times are ms UTC."""
        tables = {name: [dataclasses.asdict(row) for row in self.rows(name)] for name in ROWS if name != "runs"}
        return {"run": dataclasses.asdict(self.run), **tables}


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """A column: its Arrow type by name (`string`, `int64`, `timestamp[ms, UTC]`, `list<string>`, …) and its meaning."""

    name: str
    type: str
    nullable: bool
    meaning: str


_TYPES = {str: "string", int: "int64", float: "double", bool: "bool", Millis: "timestamp[ms, UTC]", tuple: "list<string>"}


@functools.cache
def row_columns(kind: type) -> tuple[Column, ...]:
    """The columns of a row type, from its annotations."""
    found = []
    for name, hint in get_type_hints(kind, include_extras=True).items():
        inner, meaning = get_args(hint) if get_origin(hint) is Annotated else (hint, "")
        nullable = get_origin(inner) in (Union, types.UnionType)
        if nullable:
            inner = next(arg for arg in get_args(inner) if arg is not type(None))
        found.append(Column(name, _TYPES[get_origin(inner) or inner], nullable, meaning))
    return tuple(found)


def columns(table: str) -> tuple[Column, ...]:
    """The columns of a table of the report."""
    return row_columns(ROWS[table])


def row_schema(kind: type) -> pa.Schema:
    """The Arrow schema of a row type."""
    import pyarrow as pa

    arrow = {
        "string": pa.string(),
        "int64": pa.int64(),
        "double": pa.float64(),
        "bool": pa.bool_(),
        "timestamp[ms, UTC]": pa.timestamp("ms", tz="UTC"),
        "list<string>": pa.list_(pa.string()),
    }
    return pa.schema([pa.field(c.name, arrow[c.type], c.nullable) for c in row_columns(kind)])


def schema(table: str) -> pa.Schema:
    """The Arrow schema of a table of the report."""
    return row_schema(ROWS[table])


def rows_to_arrow(kind: type, rows: Sequence[Any]) -> pa.Table:
    """Rows of one type as an Arrow table."""
    import pyarrow as pa

    readers = [(column.name, operator.attrgetter(column.name)) for column in row_columns(kind)]
    return pa.Table.from_pydict({name: [*map(read, rows)] for name, read in readers}, schema=row_schema(kind))


def to_arrow(table: str, rows: Sequence[Any]) -> pa.Table:
    """Rows of a table of the report as an Arrow table."""
    return rows_to_arrow(ROWS[table], rows)


def to_pandas(table: str, rows: Sequence[Any]) -> pd.DataFrame:
    """Rows as a DataFrame; integers that may be null become `Int64`, not floats."""
    import pandas as pd

    frame: pd.DataFrame = to_arrow(table, rows).to_pandas()
    nullable = [c.name for c in columns(table) if c.type == "int64" and c.nullable]
    return frame.astype(dict.fromkeys(nullable, pd.Int64Dtype()))


def write_report(folder: str, result: RunResult) -> list[str]:
    """Write a run's tables below `folder`; returns the paths. `StoreError` when the disk refuses."""
    written = []
    for table in (*(name for name in ROWS if name != "runs"), "runs"):
        written.append(write_table(folder, table, result.run.run_id, ROWS[table], [to_arrow(table, result.rows(table))]))
    return written


def write_table(folder: str, table: str, run_id: str, kind: type, data: Iterable[pa.Table | pa.RecordBatch]) -> str:
    """Write `DIR/<table>/<run_id>.parquet` of rows of one type; its path. `StoreError` when the disk refuses."""
    import pyarrow.parquet as pq

    target = os.path.join(folder, table, f"{run_id}.parquet")
    with disk_errors(f"the report {folder} cannot be written"):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        # A file, not its name: pyarrow would take a name with a colon for the address of something in the network.
        with (
            replacing(target) as temporary,
            open(temporary, "wb") as file,
            pq.ParquetWriter(file, row_schema(kind), **parquet_options(kind)) as writer,
        ):
            for part in data:
                writer.write(part)
    return target


@contextlib.contextmanager
def replacing(target: str) -> Iterator[str]:
    """A temporary path whose file takes the place of `target`, synced, when the block ends well."""
    # A name with a leading dot is passed over by pandas, pyarrow and DuckDB when they read the folder.
    temporary = os.path.join(os.path.dirname(target), f".{os.path.basename(target)}.tmp")
    try:
        yield temporary
        faults.point("file:sync:before")
        _sync(temporary)
        faults.point("file:rename:before")
        os.rename(temporary, target)
        faults.point("file:rename:after")
        _sync(os.path.dirname(target) or ".")
        faults.point("file:synced")
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def to_parquet(data: pa.Table, kind: type) -> bytes:
    """Rows of one type as a Parquet file."""
    sink = io.BytesIO()
    _write(data, sink, kind)
    return sink.getvalue()


def write_parquet(data: pa.Table, path: str, kind: type) -> None:
    """Write rows of one type as a Parquet file."""
    with open(path, "wb") as file:
        _write(data, file, kind)


def _write(data: pa.Table, where: IO[bytes], kind: type) -> None:
    import pyarrow.parquet as pq

    pq.write_table(data, where, **parquet_options(kind))


def parquet_options(kind: type) -> dict[str, Any]:
    """How files of rows of one type are written: a dictionary for texts, but not for those that are new in every row."""
    unique = {"trace_id", "hash", "request", "response", "user_text", "extra", "request_id", "operation_id"}
    columns = [c.name for c in row_columns(kind) if c.type == "string" and c.name not in unique]
    return {"compression": "zstd", "use_dictionary": columns, "write_page_index": True, "write_page_checksum": True}


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def describe(rows: Mapping[str, type] = ROWS) -> str:
    """The tables as Markdown, for the documentation."""
    lines = []
    for table, kind in rows.items():
        purpose = (kind.__doc__ or "").strip()
        lines += [f"#### `{table}`", "", purpose, "", "| column | type | null | meaning |", "|---|---|---|---|"]
        lines += [f"| `{c.name}` | {c.type} | {'yes' if c.nullable else 'no'} | {c.meaning} |" for c in row_columns(kind)]
        lines.append("")
    return "\n".join(lines)
