"""inspect against dive's `--json`, over large real archives: wall time and peak memory.

dive reads the first image of an archive only, ours all of them. Both read a file that is in the page cache.
"""

from __future__ import annotations

from pathlib import Path

from bench import SWRBATCH, Report, Row, Spent, folders, large_archives, options, pairs, program, ratio_row, read_through, run

MOST = {"gcc-12.tar": 0.8, "multi.tar": 1.5}
MOST_MB = 300


def main() -> int:
    given = options(__doc__ or "", rounds=3)
    report = Report("inspect --format json against dive --json")
    with folders(given.dir) as room:
        room.new().mkdir()
        out = room.new()
        for name, archive in large_archives(given.archives).items():
            read_through(archive)
            measure(report, name, archive, out, given.rounds)
    return report.finish()


def measure(report: Report, name: str, archive: Path, out: Path, rounds: int) -> None:
    """Time both, and ours once for its memory."""
    spent: list[Spent] = []

    def ours() -> float:
        spent.append(run([*SWRBATCH, "inspect", archive, "--compat", "dive", "--format", "json"], sync=False))
        return spent[-1].wall

    def theirs() -> float:
        return run([program("dive"), f"docker-archive://{archive}", "--json", out], sync=False).wall

    a, b = pairs(ours, theirs, rounds)
    report.add(ratio_row(f"{name}, dive's numbers too", a, b, MOST[name], at_most=True))
    peak = max(each.peak for each in spent) / 1e6
    report.add(Row(f"{name}, peak memory", f"{peak:.0f} MB", "-", peak, MOST_MB, at_most=True, unit=" MB"))


if __name__ == "__main__":
    raise SystemExit(main())
