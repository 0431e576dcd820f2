"""A report over datasets: tables of everything an auditor asks, findings with severities, and one page.

    built = build(["dataset"], now=…, scope=Scope(begin=…, end=…), store=store)
    built.to_pandas("failures"), built.findings, built.write("folder", "zh")

DuckDB aggregates, Arrow holds the tables (their row types stand in `rows`), nothing depends on the wall clock but the given
`now`: the same datasets give the same rows, in the same order. Written are a Parquet and a CSV file a table and, last,
`report.html`, which needs nothing else (see `page`).

Meant are the traces of SWR, and those that name no service. With several datasets a trace that an earlier one has too, alike in
what the report reads, counts once.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from .. import __version__
from ..cts import DEFAULT_CATALOG, catalog, now_ms
from ..errors import Lang, StoreError, UsageError
from ..results import Millis
from ..store import Store
from ..tables import row_columns, row_schema, rows_to_arrow
from . import questions
from .coverage import Period, Run, retention
from .dataset import UNKNOWN_DAY, Dataset
from .export import utc_text
from .findings import Severity, finding_rows, reaches
from .publish import PAGE, publish
from .reconcile import reconcile
from .rows import TABLES, CatalogRow, DifferenceRow, FindingRow, InputsRow, ReportRow, RetentionRow
from .verify import verify_chain_of

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa


MOST: Final = 100_000
"""Rows of a list of single events: more than anybody reads, and what a spreadsheet opens at once. `audit query` gives all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a report is about; None is everything. Times in ms UTC: `begin` is included, `end` is not, so that weeks fit together.

    `account`: name or id of the account of the user who acted. `organization`: that of the resource.
    """

    begin: int | None = None
    end: int | None = None
    account: str | None = None
    organization: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A report: a table of each name of `rows.TABLES`, as Arrow, as typed rows, or as a DataFrame."""

    tables: Mapping[str, pa.Table]

    def table(self, name: str) -> pa.Table:
        """A table as Arrow; KeyError for an unknown name."""
        if name not in TABLES:
            raise KeyError(f"no table {name!r}; there are {', '.join(TABLES)}")
        return self.tables[name]

    def rows(self, name: str, limit: int | None = None) -> tuple[Any, ...]:
        """A table as values of its row type, the first `limit` of them; times are ms UTC."""
        table = self.table(name).slice(0, limit)
        lists = [column.name for column in row_columns(TABLES[name]) if column.type == "list<string>"]
        values: list[dict[str, Any]] = _plain(table).to_pylist()
        return tuple(TABLES[name](**{**row, **{each: tuple(row[each]) for each in lists}}) for row in values)

    def to_pandas(self, name: str) -> pd.DataFrame:
        """A table as a DataFrame; times are datetime64[ms, UTC]."""
        frame: pd.DataFrame = self.table(name).to_pandas()
        return frame

    @property
    def about(self) -> ReportRow:
        """The report itself: its scope and its totals."""
        about: ReportRow = self.rows("report")[0]
        return about

    @property
    def findings(self) -> tuple[FindingRow, ...]:
        """What was found, the worst first."""
        return self.rows("findings")

    def reaches(self, severity: Severity) -> bool:
        """Whether there is a finding of this severity, or of a worse one."""
        return reaches(list(self.findings), severity)

    def html(self, lang: Lang = "en") -> str:
        """The page: one self-contained HTML text."""
        from .page import render

        return render(self, lang)

    def write(self, folder: str | os.PathLike[str], lang: Lang = "en") -> list[str]:
        """Write the tables and, last, the page into `folder`; the paths.

        `StoreError` when the disk refuses, or when another run writes there.
        """
        page = self.html(lang)
        return publish(os.fspath(folder), self.tables, page)


def build(
    datasets: Sequence[Dataset | str | os.PathLike[str]],
    *,
    now: int | None = None,
    scope: Scope | None = None,
    store: Store | None = None,
    most: int = MOST,
) -> Report:
    """The report of one or more datasets. `now`, ms UTC, is the present that it is made at (default: the clock's).

    The lists of single events (failures, access_changes, deletions, duplicates) hold the newest `most`, that of addresses the
    busiest `most`; all are counted.
    With a store the events are also held against its content, and its chain is verified. Raises `StoreError` for what is no
    dataset or cannot be read, `UsageError` for datasets that were checked against different catalogs.
    """
    scope = scope or Scope()
    opened = [each if isinstance(each, Dataset) else Dataset(each) for each in datasets]
    return _Build(opened, scope, now_ms() if now is None else now, store, most).run()


class _Build:
    """The making of one report."""

    def __init__(self, datasets: Sequence[Dataset], scope: Scope, now: int, store: Store | None, most: int) -> None:
        catalogs = sorted({dataset.manifest.catalog for dataset in datasets}) or [DEFAULT_CATALOG]
        if len(catalogs) > 1:
            raise UsageError(
                f"the datasets were checked against different catalogs ({', '.join(catalogs)}): report on each alone"
            )
        self.datasets = datasets
        self.scope = scope
        self.now = now
        self.store = store
        self.most = most
        self.catalog = catalogs[0]
        self.tables: dict[str, pa.Table] = {}

    def run(self) -> Report:
        import duckdb

        try:
            with contextlib.closing(duckdb.connect()) as connection:
                self._fill(connection)
        except duckdb.Error as e:
            raise StoreError(f"the datasets cannot be read: {str(e).splitlines()[0]}") from e
        return Report(tables={name: self.tables[name] for name in TABLES})

    def _fill(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._views(connection)
        at = self.now if self.scope.end is None else min(self.now, self.scope.end)
        within = questions.period(self.scope.begin, None)
        newest = {name: self._newest(connection, hours.replace("$period", within)) for name, hours in questions.NEWEST.items()}
        for name, query in questions.tables(at, within, self.most, newest).items():
            self.tables[name] = _table(connection, name, query)
        self._put("catalog", list(self._catalog(connection)))
        inputs = list(self._inputs(connection))
        self._put("inputs", inputs)
        self.tables["rejects"] = self._rejects(connection)
        broken = self._retention(connection)
        self._put("differences", self._differences())
        self._put("report", [self._about(connection)])
        self._put("findings", finding_rows(self._counts(connection, inputs, within) | broken))

    def _newest(self, connection: duckdb.DuckDBPyConnection, hours: str) -> str:
        """A cheap condition that leaves away only what is older than the newest rows that a table may have."""
        (oldest,) = _one(connection, questions.threshold(hours, self.most))
        return questions.period(oldest, None)

    def _put(self, name: str, rows: Sequence[Any]) -> None:
        self.tables[name] = rows_to_arrow(TABLES[name], rows)

    def _views(self, connection: duckdb.DuckDBPyConnection) -> None:
        """`told`: what happened up to the period's end, within account and organization; `scoped`: that of the period only."""
        connection.execute("SET TimeZone = 'UTC'")
        end = self.scope.end
        days = None if end is None else ("0000-00-00", UNKNOWN_DAY if end < 0 else utc_text(end)[:10])
        for number, dataset in enumerate(self.datasets):
            dataset.view(connection, f"dataset_{number}", days, numbered=True)
        for statement in questions.views(len(self.datasets), self.catalog, self.scope):
            connection.execute(statement)

    def _catalog(self, connection: duckdb.DuckDBPyConnection) -> Iterator[CatalogRow]:
        """A row for each entry of the catalog, those without any event too."""
        found = {row["trace_name"]: row for row in _plain(connection.sql(questions.CATALOG).to_arrow_table()).to_pylist()}
        nothing = dict.fromkeys(("events", "normal", "warning", "incident", "other", "users"), 0) | {"first": None, "last": None}
        for entry in catalog(self.catalog).values():
            counts = found.get(entry.trace_name, nothing)
            yield CatalogRow(
                operation=entry.operation,
                operation_en=entry.operation_en,
                resource_type=entry.resource_type,
                **{**counts, "trace_name": entry.trace_name},
            )

    def _inputs(self, connection: duckdb.DuckDBPyConnection) -> Iterator[InputsRow]:
        import pyarrow.parquet as pq

        for number, dataset in enumerate(self.datasets):
            taken = [pq.read_table(path, use_threads=False).to_pylist() for path in dataset.side_files("inputs")]
            files = [row for rows in taken for row in rows]
            rows = sum(part.rows for part in dataset.manifest.parts)
            exported, elsewhere = _one(connection, questions.origin(number))
            records = sum(row["records"] for row in files)
            yield InputsRow(
                dataset=dataset.path,
                rows=rows,
                files=sum(row["kind"] != "digest" for row in files),
                digest_files=sum(row["kind"] == "digest" for row in files),
                bytes=sum(row["bytes"] for row in files),
                records=records,
                duplicates=max(0, records - (rows - exported)),
                elsewhere=elsewhere,
                rejected=sum(row["rejects"] for row in files),
                exported=exported,
            )

    def _rejects(self, connection: duckdb.DuckDBPyConnection) -> pa.Table:
        import pyarrow as pa

        read = [
            _table(connection, "rejects", questions.rejects(dataset.path, files))
            for dataset in self.datasets
            if (files := dataset.side_files("rejects"))
        ]
        return pa.concat_tables([row_schema(TABLES["rejects"]).empty_table(), *read])

    def _retention(self, connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
        """Fill `retention`; how many chains are broken."""
        found: list[RetentionRow] = []
        period = Period(self.scope.begin, self.scope.end)
        for number, dataset in enumerate(self.datasets):
            told = Period(*_one(connection, questions.reach(number, self.scope)))
            runs = (
                [Run(*row) for row in connection.sql(questions.ledger_runs(number)).fetchall()] if dataset.manifest.export else []
            )
            found += retention(dataset, period, told, runs, self.now)
        self._put("retention", found)
        broken = sum(row.reason == "digest-changed" for row in found)
        if self.store is not None:
            problems, _ = verify_chain_of(self.store)
            broken += len(problems)
        return {"chain-broken": broken}

    def _differences(self) -> list[DifferenceRow]:
        if self.store is None:
            return []
        return [
            DifferenceRow(kind=each.kind, name=each.name, expected=each.expected, actual=each.actual)
            for each in reconcile(self.store, self.datasets)
        ]

    def _about(self, connection: duckdb.DuckDBPyConnection) -> ReportRow:
        events, first, last, other = _one(connection, questions.ABOUT)
        scope = self.scope
        return ReportRow(
            tool_version=__version__,
            made=Millis(self.now),
            begin=None if scope.begin is None else Millis(scope.begin),
            end=None if scope.end is None else Millis(scope.end),
            account=scope.account,
            organization=scope.organization,
            catalog=self.catalog,
            datasets=tuple(dataset.path for dataset in self.datasets),
            store=None if self.store is None else self.store.path,
            events=events,
            other_services=other,
            first=first,
            last=last,
        )

    def _counts(self, connection: duckdb.DuckDBPyConnection, inputs: Sequence[InputsRow], within: str) -> dict[str, int]:
        """How many there are of each finding."""
        deleted, gone = _one(connection, questions.DELETED)
        changed, done = _one(connection, questions.CHANGED.replace("$period", within))
        failed: dict[str, int] = dict(connection.sql(questions.FAILED).fetchall())
        (addresses,) = _one(connection, questions.ADDRESSES)
        full = {"failures": sum(failed.values()), "access_changes": changed, "deletions": deleted, "addresses": addresses}
        flags: dict[str, int] = dict(connection.sql(questions.FLAGS).fetchall())
        by: dict[tuple[str, str], int] = {}
        for name, column in (("exposures", "state"), ("retention", "state")):
            counted: Any = self.tables[name].column(column).value_counts()
            by |= {(name, each["values"]): each["counts"] for each in counted.to_pylist()}
        for row in self.tables["uncatalogued"].select(["finding", "events"]).to_pylist():
            by["uncatalogued", row["finding"]] = by.get(("uncatalogued", row["finding"]), 0) + row["events"]
        return flags | {
            "time-unread": _one(connection, questions.UNREAD_TIMES)[0],
            "gap-proved": by.get(("retention", "gap"), 0),
            "coverage-unknown": by.get(("retention", "unknown"), 0),
            "difference": self.tables["differences"].num_rows,
            **failed,
            **{finding: by.get(("uncatalogued", finding), 0) for finding in ("unknown-event", "own-event", "resource-type")},
            "share-past": by.get(("exposures", "past"), 0),
            "public-repository": by.get(("exposures", "public"), 0),
            "share-open": sum(by.get(("exposures", state), 0) for state in ("open", "forever", "unknown")),
            "deletion": gone,
            "access-change": done,
            "left-out": sum(count - self.tables[name].num_rows for name, count in full.items()),
            "rejected": self.tables["rejects"].num_rows,
            "duplicate-dropped": sum(row.duplicates + row.elsewhere for row in inputs),
            "other-service": self.tables["report"].column("other_services")[0].as_py(),
        }


def _one(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    rows: list[tuple[Any, ...]] = connection.sql(query).fetchall()
    return rows[0]


def _table(connection: duckdb.DuckDBPyConnection, name: str, query: str) -> pa.Table:
    """The answer to a query as the table `name`, with exactly its schema."""
    wanted = row_schema(TABLES[name])
    answer: pa.Table = connection.sql(query).to_arrow_table()
    return answer.select(wanted.names).cast(wanted)


def _plain(table: pa.Table) -> pa.Table:
    """The table with times as ms and lists as they are, for Python values."""
    import pyarrow as pa

    fields = [pa.field(f.name, pa.int64(), f.nullable) if pa.types.is_timestamp(f.type) else f for f in table.schema]
    in_ms = [
        pa.field(f.name, pa.timestamp("ms", tz="UTC"), f.nullable) if pa.types.is_timestamp(f.type) else f for f in table.schema
    ]
    return table.cast(pa.schema(in_ms)).cast(pa.schema(fields))


__all__ = ["PAGE", "TABLES", "Report", "Scope", "build"]
