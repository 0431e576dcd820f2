"""The report's Parquet tables: explicit schemas, atomic files, DataFrames.

`DIR/<table>/<run_id>.parquet`, one file a table and run, so that `pandas.read_parquet(DIR/"images")` reads all runs. Each
is written to a hidden temporary file and renamed; `runs` last, as the mark that a run's tables are complete. Heavy imports
are lazy.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import types
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin, get_type_hints

from .layout import disk_errors
from .results import ROWS, Millis, RunResult

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """A column: its Arrow type by name (`string`, `int64`, `timestamp[ms, UTC]`, `list<string>`, …) and its meaning."""

    name: str
    type: str
    nullable: bool
    meaning: str


_TYPES = {str: "string", int: "int64", float: "double", bool: "bool", Millis: "timestamp[ms, UTC]", tuple: "list<string>"}


@functools.cache
def columns(table: str) -> tuple[Column, ...]:
    """The columns of a table, from the annotations of its rows."""
    found = []
    for name, hint in get_type_hints(ROWS[table], include_extras=True).items():
        kind, meaning = get_args(hint) if get_origin(hint) is Annotated else (hint, "")
        nullable = get_origin(kind) in (Union, types.UnionType)
        if nullable:
            kind = next(arg for arg in get_args(kind) if arg is not type(None))
        found.append(Column(name, _TYPES[get_origin(kind) or kind], nullable, meaning))
    return tuple(found)


def schema(table: str) -> pa.Schema:
    """The Arrow schema of a table."""
    import pyarrow as pa

    arrow = {
        "string": pa.string(),
        "int64": pa.int64(),
        "double": pa.float64(),
        "bool": pa.bool_(),
        "timestamp[ms, UTC]": pa.timestamp("ms", tz="UTC"),
        "list<string>": pa.list_(pa.string()),
    }
    return pa.schema([pa.field(c.name, arrow[c.type], c.nullable) for c in columns(table)])


def to_arrow(table: str, rows: Sequence[Any]) -> pa.Table:
    """Rows as an Arrow table."""
    import pyarrow as pa

    values = {c.name: [getattr(row, c.name) for row in rows] for c in columns(table)}
    return pa.Table.from_pydict(values, schema=schema(table))


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
        target = os.path.join(folder, table, f"{result.run.run_id}.parquet")
        with disk_errors(f"the report {folder} cannot be written"):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            _write(to_arrow(table, result.rows(table)), target, table)
        written.append(target)
    return written


def _write(data: pa.Table, target: str, table: str) -> None:
    import pyarrow.parquet as pq

    # A name with a leading dot is passed over by pandas, pyarrow and DuckDB when they read the folder.
    temporary = os.path.join(os.path.dirname(target), f".{os.path.basename(target)}.tmp")
    try:
        pq.write_table(
            data,
            temporary,
            compression="zstd",
            use_dictionary=_repetitive(table),  # type: ignore[arg-type, unused-ignore]
            write_page_index=True,
            write_page_checksum=True,
        )
        _sync(temporary)
        os.rename(temporary, target)
        _sync(os.path.dirname(target))
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def _repetitive(table: str) -> list[str]:
    """Columns worth a dictionary: texts, but not those that are new in every row."""
    unique = {"trace_id", "hash", "request", "response"}
    return [c.name for c in columns(table) if c.type == "string" and c.name not in unique]


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def describe(tables: Iterable[str] = ROWS) -> str:
    """The tables as Markdown, for the documentation."""
    lines = []
    for table in tables:
        purpose = (ROWS[table].__doc__ or "").strip()
        lines += [f"#### `{table}`", "", purpose, "", "| column | type | null | meaning |", "|---|---|---|---|"]
        lines += [f"| `{c.name}` | {c.type} | {'yes' if c.nullable else 'no'} | {c.meaning} |" for c in columns(table)]
        lines.append("")
    return "\n".join(lines)
