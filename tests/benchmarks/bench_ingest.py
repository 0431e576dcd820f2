"""Ingest of CTS trace files beside a bare DuckDB COPY of the same columns and order, and beside orjson row by row; peak memory.

    python tests/benchmarks/bench_ingest.py [--traces N] [--rounds N] [--more TIMES] [--dir DIR]

Whole processes are timed. The memory is compared with that of TIMES as many traces, which must not need more (but for 10 %).
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from bench import MIB, SWRBATCH, Folders, Report, Row, Spent, folders, ratio_row, run
from make_traces import make

PEERS = Path(__file__).with_name("ingest_peers.py")
MOST = 1024.0
GROWTH = 1.1


def ours(traces: Path, room: Folders) -> Spent:
    return run([*SWRBATCH, "audit", "ingest", traces, "--to", room.new()])


def peer(name: str, traces: Path, room: Folders) -> Spent:
    return run([sys.executable, PEERS, name, traces, room.new()])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("archives", type=Path, nargs="?", help="not used; for all benchmarks are called alike")
    parser.add_argument("--traces", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3, help="pairs that are timed (3)")
    parser.add_argument("--more", type=int, default=1, help="times as many traces whose memory is compared (1: do not)")
    parser.add_argument("--dir", type=Path, default=None, help="where temporary folders are made")
    given = parser.parse_args()
    report = Report(f"Ingest of {given.traces} traces")
    with folders(given.dir) as room:
        traces = room.new()
        size = make(traces, given.traces)
        print(f"  {given.traces} traces, {size / 1e6:.0f} MB of JSON", flush=True)
        mine: list[Spent] = []
        bare: list[Spent] = []
        for number in range(given.rounds):
            for turn in (0, 1) if number % 2 else (1, 0):
                if turn:
                    mine.append(ours(traces, room))
                else:
                    bare.append(peer("duckdb", traces, room))
        rows = peer("rows", traces, room)
        what = "seconds, beside "
        report.add(ratio_row(f"{what}DuckDB's COPY", [s.wall for s in mine], [s.wall for s in bare], 1.6, at_most=True))
        best = sorted(s.wall for s in mine)[len(mine) // 2]
        report.add(ratio_row(f"{what}orjson row by row", [best], [rows.wall], 1 / 1.8, at_most=True))
        print(f"  processor seconds: ours {mine[-1].cpu:.1f}, DuckDB {bare[-1].cpu:.1f}, row by row {rows.cpu:.1f}", flush=True)
        peak = max(s.peak for s in mine)
        peers = f"{bare[-1].peak / MIB:.0f} MiB (DuckDB), {rows.peak / MIB:.0f} MiB (rows)"
        report.add(Row("peak memory", f"{peak / MIB:.0f} MiB", peers, peak / MIB, MOST, at_most=True, unit=" MiB"))
        if given.more > 1:
            shutil.rmtree(traces)
            large = room.new()
            make(large, given.traces * given.more)
            most = ours(large, room).peak
            name = f"peak memory of {given.traces * given.more}"
            report.add(Row(name, f"{most / MIB:.0f} MiB", f"{peak / MIB:.0f} MiB", most / peak, GROWTH, at_most=True))
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())
