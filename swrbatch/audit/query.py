"""The console's and the API's filters over a dataset or the store's own events.

All filters hold together; texts are compared exactly. `from_` and `to` are exclusive, ms UTC. A `trace_id` overrides all
others. Newest first; without a limit everything. Source: CTS API "Querying traces", the guide's 7.2.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from ..cts import DEFAULT_CATALOG
from ..errors import StoreError, UsageError, printable
from ..store import Store
from ..tables import row_schema, rows_to_arrow
from .dataset import UNKNOWN_DAY, Dataset
from .export import utc_text
from .ledger import ledger_traces
from .traces import DAY_MS, HOUR_MS, Source, TraceRow, read_trace

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa

PRESETS: Final = {"1h": HOUR_MS, "1d": DAY_MS, "1w": 7 * DAY_MS}
_EXACT: Final = {
    "service_type": "service_type",
    "user": "user_name",
    "resource_type": "resource_type",
    "resource_id": "resource_id",
    "resource_name": "resource_name",
    "trace_name": "trace_name",
    "trace_rating": "trace_rating",
    "trace_type": "trace_type",
    "tracker_name": "tracker_name",
    "enterprise_project_id": "enterprise_project_id",
    "event_type": "event_type",
    "account": "user_account_name",
    "source_ip": "source_ip",
}

# Newest first, and no two rows alike: pages neither repeat nor lose one.
_ORDER: Final = ("coalesce(epoch_ms(time), -1)", "source_position", "source_file", "coalesce(trace_id, '')")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What is asked for; None asks for everything. `flag`: a flag that the row has (`traces.FLAGS`)."""

    trace_id: str | None = None
    from_: int | None = None
    to: int | None = None
    service_type: str | None = None
    user: str | None = None
    resource_type: str | None = None
    resource_id: str | None = None
    resource_name: str | None = None
    trace_name: str | None = None
    trace_rating: str | None = None
    trace_type: str | None = None
    tracker_name: str | None = None
    enterprise_project_id: str | None = None
    event_type: str | None = None
    account: str | None = None
    source_ip: str | None = None
    flag: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Rows as an Arrow table (the columns of `TraceRow`), newest first, and the marker that the next page begins behind."""

    rows: pa.Table
    next: str | None

    def to_pandas(self) -> pd.DataFrame:
        return self.rows.to_pandas()  # type: ignore[no-any-return, unused-ignore]


def query(
    source: Dataset | Store, filters: Filters | None = None, *, limit: int | None = None, next_: str | None = None, **given: Any
) -> pd.DataFrame:
    """The traces that pass, as a DataFrame with the columns of `TraceRow`, newest first; times are datetime64[ms, UTC].

    Filters by name (`user="anna", trace_rating="warning"`), or as `Filters`.
    """
    return query_page(source, filters or filters_of(**given), limit=limit, next_=next_).to_pandas()


def filters_of(**given: Any) -> Filters:
    """`Filters` by name; UsageError for an unknown one."""
    known = {f.name for f in fields(Filters)}
    if unknown := sorted(set(given) - known):
        raise UsageError(f"unknown filter {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return Filters(**given)


def query_page(source: Dataset | Store, filters: Filters, *, limit: int | None = None, next_: str | None = None) -> Page:
    """A page of at most `limit` rows behind the marker `next_`."""
    where, values = _where(filters)
    if next_ is not None:
        where.append(f"({', '.join(_ORDER)}) < ({', '.join('?' * len(_ORDER))})")
        values += _unmark(next_)
    sql = "SELECT * FROM traces"
    if where:
        sql += " WHERE " + " AND ".join(where)
    sql += f" ORDER BY {', '.join(f'{key} DESC' for key in _ORDER)}"
    if limit is not None:
        sql += f" LIMIT {int(limit) + 1}"
    with connected(source, filters) as connection:
        # DuckDB's times are in microseconds.
        rows = connection.sql(sql, params=values).to_arrow_table().cast(row_schema(TraceRow))
    if limit is None or rows.num_rows <= limit:
        return Page(rows, None)
    rows = rows.slice(0, limit)
    last = rows.slice(limit - 1, 1).to_pylist()[0]
    moment = -1 if last["time"] is None else round(last["time"].timestamp() * 1000)
    return Page(rows, _mark(moment, last["source_position"], last["source_file"], last["trace_id"] or ""))


def _where(filters: Filters) -> tuple[list[str], list[Any]]:
    if filters.trace_id is not None:
        return ["trace_id = ?"], [filters.trace_id]
    where: list[str] = []
    values: list[Any] = []
    for name, column in _EXACT.items():
        value = getattr(filters, name)
        if value is not None:
            where.append(f"{column} = ?")
            values.append(value)
    for bound, sign in ((filters.from_, ">"), (filters.to, "<")):
        if bound is not None:
            # As a time: only that is compared with the least and the greatest time of a row group.
            where.append(f"time {sign} make_timestamp_ms(?)::TIMESTAMPTZ")
            values.append(bound)
    if filters.flag is not None:
        where.append("list_contains(flags, ?)")
        values.append(filters.flag)
    return where, values


@contextmanager
def connected(source: Dataset | Store, filters: Filters | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection with the view `traces`, for free SQL; times are shown in UTC.

    `filters` with times narrow a dataset to the days that can hold them.
    """
    import duckdb

    connection = duckdb.connect()
    try:
        connection.execute("SET TimeZone = 'UTC'")
        if isinstance(source, Dataset):
            source.view(connection, "traces", _days(filters))
        else:
            connection.register("traces", _ledger_rows(source))
        yield connection
    except duckdb.Error as e:
        raise StoreError(f"the traces cannot be read: {str(e).splitlines()[0]}") from e
    finally:
        connection.close()


def _days(filters: Filters | None) -> tuple[str, str] | None:
    if filters is None or filters.trace_id is not None or (filters.from_ is None and filters.to is None):
        return None
    first = "0000-00-00" if filters.from_ is None else utc_text(max(0, filters.from_ + 1))[:10]
    last = UNKNOWN_DAY if filters.to is None else utc_text(max(0, filters.to - 1))[:10]
    return first, last


def _ledger_rows(store: Store) -> pa.Table:
    rows = [
        read_trace(event.value, Source(name=f"ledger:{event.seq}"), event.seq, event.value["record_time"], DEFAULT_CATALOG)
        for event in ledger_traces(store)
    ]
    return rows_to_arrow(TraceRow, rows)


def _mark(moment: int, position: int, file: str, trace_id: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([moment, position, file, trace_id]).encode()).decode().rstrip("=")


def _unmark(marker: str) -> list[Any]:
    try:
        moment, position, file, trace_id = json.loads(base64.urlsafe_b64decode(marker + "=" * (-len(marker) % 4)))
        return [int(moment), int(position), str(file), str(trace_id)]
    except (ValueError, TypeError) as e:
        raise UsageError(f"--next {printable(marker)}: not a marker of a page before") from e
