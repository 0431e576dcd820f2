"""What ingest is compared with, each a program of its own: `python ingest_peers.py duckdb|rows FOLDER OUT`.

duckdb   one bare COPY out of read_json into one Parquet file: the same columns and order, no check, nothing bounded
rows     orjson, then trace by trace through the same checks into pyarrow: duplicates dropped, one sorted file a day
"""

from __future__ import annotations

import glob
import gzip
import os
import sys
from collections.abc import Iterator
from typing import Any

NOW = 1_790_000_000_000


def found(folder: str) -> list[str]:
    return sorted(glob.glob(os.path.join(folder, "**", "*.json.gz"), recursive=True))


def bare_duckdb(folder: str, out: str) -> None:
    """DuckDB as it comes, but for what it shows of its progress."""
    import duckdb

    from swrbatch.audit.traces import TEXTS

    texts = [name for name in TEXTS if name != "trace_id"] + ["trace_rating", "code", "request", "response"]
    files = ", ".join(f"'{path}'" for path in found(folder))
    keys = {
        "trace_id": "VARCHAR",
        "user": "VARCHAR",
        **dict.fromkeys(texts, "VARCHAR"),
        "time": "BIGINT",
        "record_time": "BIGINT",
    }
    keys |= {"read_only": "BOOLEAN", "content_length": "DOUBLE", "total_time": "DOUBLE"}
    columns = ", ".join(f"{name}: '{kind}'" for name, kind in keys.items())
    duckdb.sql(f"""
        COPY (
            SELECT trace_id, make_timestamp_ms(time) AS time, make_timestamp_ms(record_time) AS record_time,
                NULL::VARCHAR AS time_text, NULL::VARCHAR AS record_time_text, {", ".join(texts)},
                "user"->>'$.id' AS user_id, "user"->>'$.name' AS user_name, "user"->>'$.domain.id' AS user_account_id,
                "user"->>'$.domain.name' AS user_account_name, "user" AS user_text, read_only, content_length, total_time,
                NULL::VARCHAR AS extra, split_part(filename, 'CloudTraces/', 2) AS source_file, 0 AS source_position,
                regexp_extract(filename, '_CloudTrace_([a-z0-9-]+)_', 1) AS region,
                strptime(regexp_extract(filename, '_([0-9TZ-]+)_[0-9a-f]+.json.gz', 1), '%Y-%m-%dT%H-%M-%SZ') AS uploaded,
                []::VARCHAR[] AS flags, []::VARCHAR[] AS violations
            FROM read_json([{files}], format = 'array', columns = {{{columns}}}, filename = true)
            ORDER BY time, trace_id, source_file
        ) TO '{out}' (FORMAT parquet)
    """)


def row_by_row(folder: str, out: str) -> None:
    """Python objects all the way."""
    import orjson
    import pyarrow as pa
    import pyarrow.parquet as pq

    from swrbatch.audit.files import source_of
    from swrbatch.audit.traces import TraceRow, read_trace
    from swrbatch.tables import rows_to_arrow

    seen: set[str] = set()

    def rows(path: str) -> Iterator[Any]:
        source = source_of(os.path.relpath(path, folder))
        with gzip.open(path) as f:
            values = orjson.loads(f.read())
        for position, value in enumerate(values):
            row = read_trace(value, source, position, NOW, "guide_2020")
            if row.trace_id not in seen:
                seen.add(str(row.trace_id))
                yield row

    table = pa.concat_tables(rows_to_arrow(TraceRow, list(rows(path))) for path in found(folder))
    days = table.column("time").cast(pa.date32())
    table = table.append_column("dt", days).sort_by([("dt", "ascending"), ("time", "ascending"), ("trace_id", "ascending")])
    pq.write_to_dataset(table, out, partition_cols=["dt"], compression="zstd")


if __name__ == "__main__":
    {"duckdb": bare_duckdb, "rows": row_by_row}[sys.argv[1]](*sys.argv[2:])
