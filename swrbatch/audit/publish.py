"""A report on disk: a Parquet and a CSV file a table, then the page.

Each file takes the place of the one before by a rename, the page last; a lock keeps two runs from mixing their files. CSV is
UTF-8 with a BOM, safe to open in a spreadsheet: no text in it is a formula.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from ..disk import disk_errors
from ..errors import StoreError
from ..tables import replacing, row_columns, write_parquet
from .export import spreadsheet
from .rows import TABLES

if TYPE_CHECKING:
    import pyarrow as pa

PAGE: Final = "report.html"


def publish(folder: str, tables: Mapping[str, pa.Table], page: str) -> list[str]:
    """Write tables and page into `folder`; the paths. `StoreError` when the disk refuses, or when another run writes there."""
    with disk_errors(f"the report {folder} cannot be written"), alone(folder):
        written = [path for name in TABLES for path in _write_table(folder, name, tables[name])]
        written.append(write_text(os.path.join(folder, PAGE), page))
    return written


def write_text(path: str, text: str) -> str:
    """Write a page in the place of the one before; its path."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as f:
        f.write(text)
    return path


@contextlib.contextmanager
def alone(folder: str) -> Iterator[None]:
    """Make the folder, and hold it for one run."""
    os.makedirs(folder, exist_ok=True)
    fd = os.open(os.path.join(folder, ".swrbatch-lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as e:
        raise StoreError(f"another run is writing the report {folder}: wait for it to end, and run again") from e
    finally:
        os.close(fd)


def _write_table(folder: str, name: str, table: pa.Table) -> list[str]:
    import pyarrow.csv

    paths = [os.path.join(folder, f"{name}.parquet"), os.path.join(folder, f"{name}.csv")]
    with replacing(paths[0]) as temporary:
        write_parquet(table, temporary, TABLES[name])
    with replacing(paths[1]) as temporary, open(temporary, "wb") as f:
        # A BOM, or a spreadsheet takes the Chinese names for another encoding.
        f.write(b"\xef\xbb\xbf")
        # Everything in quotes, as in `forms`: a text must not fall apart into cells where another sign parts them.
        quoted = pyarrow.csv.WriteOptions(quoting_style="all_valid")
        pyarrow.csv.write_csv(for_spreadsheet(name, table), f, quoted)
    return paths


def for_spreadsheet(name: str, table: pa.Table) -> pa.Table:
    """A table of the report as texts and numbers that no spreadsheet takes for a formula; times with a Z."""
    import pyarrow as pa
    import pyarrow.compute as pc

    made: dict[str, Any] = {}
    for column in row_columns(TABLES[name]):
        values: Any = table.column(column.name)
        if column.type == "timestamp[ms, UTC]":
            values = pc.strftime(values, format="%Y-%m-%dT%H:%M:%SZ")
        elif column.type == "list<string>":
            values = pc.binary_join(values, " ")  # type: ignore[arg-type, unused-ignore]
        if column.type in ("string", "list<string>"):
            values = _guarded(values)
        made[column.name] = values
    return pa.table(made)


def _guarded(values: Any) -> Any:
    """Texts through `export.spreadsheet`; those that begin with what no formula begins with need no look."""
    import pyarrow as pa
    import pyarrow.compute as pc

    doubtful: Any = pc.fill_null(pc.match_substring_regex(values, r"^[^A-Za-z0-9/\[{\"\x{4E00}-\x{9FFF}]"), False)
    if not pc.any(doubtful).as_py():
        return values
    safe = pa.array([spreadsheet(text) for text in values.filter(doubtful).to_pylist()], values.type)
    return pc.replace_with_mask(values.combine_chunks(), doubtful.combine_chunks(), safe)
