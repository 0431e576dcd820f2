"""DuckDB as it is used here: bounded in memory, its errors translated."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from .digest import Cancel
from .errors import StoreError

if TYPE_CHECKING:
    import duckdb

MEMORY: Final = "400MB"
"""What DuckDB may hold at once."""
BATCH: Final = 16 << 10
"""Rows that are taken from it at once."""


def connect(work: str) -> duckdb.DuckDBPyConnection:
    """A DuckDB of its own: bounded in memory, what does not fit goes into the folder `work`."""
    import duckdb

    return duckdb.connect(config={"memory_limit": MEMORY, "temp_directory": os.path.join(work, "spilled"), "threads": 2})


@contextlib.contextmanager
def database_errors(action: str, cancel: Cancel) -> Iterator[None]:
    """Translate an error of DuckDB into a StoreError, or into Cancelled where that is why it ended.

    An error behind the first rows of a result comes as an OSError of pyarrow.
    """
    import duckdb

    try:
        yield
    except (duckdb.Error, OSError) as e:
        cancel.check()
        raise StoreError(f"{action}: {str(e).splitlines()[0]}") from e
