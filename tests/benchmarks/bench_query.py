"""Query of one resource on one day, beside the same SQL in bare DuckDB; and the processor time of a report over everything.

    python tests/benchmarks/bench_query.py [--traces N] [--rounds N] [--dataset DATASET] [--dir DIR]

The queries are timed inside one process each, in turn, after one of each that is not counted: how long the answer takes, not how
long Python starts. With --dataset an ingested dataset is asked; otherwise N traces are made and ingested first, which takes much
longer than what is measured.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench import MIB, ROOT, SWRBATCH, Report, Row, folders, pairs, ratio_row, run
from make_traces import make

sys.path.insert(0, str(ROOT))
import duckdb

from swrbatch.audit.dataset import Dataset
from swrbatch.audit.query import Filters, query_page
from swrbatch.audit.traces import DAY_MS

MOST = 1.3
MOST_CPU = 15.0


def some_resource(dataset: Dataset) -> tuple[str, datetime.date]:
    """A resource that something happened to, and a day on which it did."""
    files = dataset.files()
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        query = "SELECT resource_name, time::DATE FROM read_parquet(?) WHERE resource_name LIKE '%/%' LIMIT 1 OFFSET 1000"
        name, day = connection.execute(query, [files[len(files) // 2]]).fetchall()[0]
    return str(name), day


def ours(dataset: Dataset, name: str, day: datetime.date) -> int:
    begin = int(datetime.datetime(day.year, day.month, day.day, tzinfo=datetime.UTC).timestamp()) * 1000
    return query_page(dataset, Filters(from_=begin - 1, to=begin + DAY_MS, resource_name=name)).rows.num_rows


def bare(dataset: Dataset, name: str, day: datetime.date) -> int:
    """What one writes by hand: the day's folder through hive partitioning, every column, newest first."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        query = f"""
            SELECT * FROM read_parquet('{dataset.path}/dt=*/*.parquet', hive_partitioning = true)
            WHERE dt = '{day}' AND resource_name = ? ORDER BY time DESC
        """
        return int(connection.sql(query, params=[name]).to_arrow_table().num_rows)


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("archives", type=Path, nargs="?", help="not used; for all benchmarks are called alike")
    parser.add_argument("--traces", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=9, help="pairs that are timed (9)")
    parser.add_argument("--dataset", type=Path, default=None, help="a dataset that is there")
    parser.add_argument("--dir", type=Path, default=None, help="where temporary folders are made")
    given = parser.parse_args()
    with folders(given.dir) as room:
        if given.dataset is None:
            traces, path = room.new(), room.new()
            make(traces, given.traces)
            run([*SWRBATCH, "audit", "ingest", traces, "--to", path])
        else:
            path = given.dataset
        dataset = Dataset(path)
        report = Report(f"Queries of, and a report over {sum(part.rows for part in dataset.manifest.parts)} traces")
        name, day = some_resource(dataset)
        assert ours(dataset, name, day) == bare(dataset, name, day) > 0
        a, b = pairs(
            lambda: seconds(lambda: ours(dataset, name, day)), lambda: seconds(lambda: bare(dataset, name, day)), given.rounds
        )
        report.add(ratio_row("one resource on one day, beside DuckDB", a, b, MOST, at_most=True))
        spent = run([*SWRBATCH, "audit", "report", path, "--to", room.new()])
        what = f"report ({spent.wall:.0f} s, {spent.peak / MIB:.0f} MiB)"
        report.add(Row(what, f"{spent.cpu:.1f} s", "processor time", spent.cpu, MOST_CPU, at_most=True, unit=" s"))
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())
