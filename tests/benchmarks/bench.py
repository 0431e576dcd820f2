"""All benchmarks, one after the other, and what they share.

    python tests/benchmarks/bench.py [ARCHIVES] [--quick]            all of them
    python tests/benchmarks/bench_import.py [ARCHIVES] [--rounds N]  one of them

ARCHIVES is the folder with `gcc-12.tar` and `multi.tar` that the project's tool for large archives builds (default
/tmp/large-archives). A benchmark prints a table of ours, the peer's figure, their ratio and what is asked, and ends 0 when all
that is asked is met, 1 when not. Ratios travel between machines, seconds do not: A and B are timed in turn, each in a fresh
folder, after a sync, and the ratio is the median of the pairs' own.

Only the standard library is imported here: the peak memory of a child is at least that of the process that starts it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
LARGE = Path("/tmp/large-archives")
MIB = 2**20
SWRBATCH = (sys.executable, "-m", "swrbatch")
BUSY = 0.10
"""Share of the processors that others may use before the figures are called doubtful."""


def fail(text: str) -> NoReturn:
    """End the benchmark: something that it needs is not there."""
    print(text, file=sys.stderr)
    raise SystemExit(2)


def program(*names: str) -> str:
    """The path of a peer."""
    own = os.path.dirname(sys.executable)  # some come as packages of Python
    path = os.pathsep.join([own, os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
    for name in names:
        if found := shutil.which(name, path=path):
            return found
    fail(f"{names[0]} is not installed; it is what this benchmark compares with")


def environment() -> dict[str, str]:
    """The environment of what is measured: our source first, nothing of the user's own settings of swrbatch.

    Compiled modules are kept, as an installed package has them, also where the shell forbids it.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("SWRBATCH_")}
    own.pop("PYTHONDONTWRITEBYTECODE", None)
    return own | {"PYTHONPATH": str(ROOT)}


# --- measuring ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spent:
    """What a run of a command took: seconds, seconds of processors, peak memory of its largest process in bytes."""

    wall: float
    cpu: float
    peak: int


def run(argv: Sequence[str | Path], *, sync: bool = True, fine: Sequence[int] = (0,)) -> Spent:
    """Run a command to its end and measure it; the benchmark ends when the command's exit code is not a `fine` one."""
    words = [os.fspath(word) for word in argv]
    with tempfile.TemporaryFile() as output:
        if sync:
            os.sync()
        begun = time.perf_counter()
        # In our own folder: `python -m` looks there first.
        process = subprocess.Popen(
            words, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in fine:
            output.seek(0)
            fail(f"{' '.join(words)} ended with {process.returncode}:\n{output.read()[-2000:].decode(errors='replace')}")
    return Spent(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def pairs(ours: Callable[[], float], peer: Callable[[], float], rounds: int) -> tuple[list[float], list[float]]:
    """Measure both in turn, ours first and the peer first alternately."""
    a, b = [], []
    for number in range(rounds):
        if number % 2:
            b.append(peer())
            a.append(ours())
        else:
            a.append(ours())
            b.append(peer())
    return a, b


class Folders:
    """Fresh folders below one temporary folder, which goes at the end: removing a store just before a timing skews it."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._count = 0

    def new(self) -> Path:
        """The path of a folder that does not exist yet."""
        self._count += 1
        return self._base / f"{self._count:04}"


@contextlib.contextmanager
def folders(where: Path | None) -> Iterator[Folders]:
    """Room for what is written; on the disk that counts, not on a tmpfs."""
    with tempfile.TemporaryDirectory(prefix="swrbatch-bench-", dir=where) as name:
        yield Folders(Path(name))


# --- the table ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A line of the table. `ratio` is compared with `asked`: at most it, or at least it."""

    what: str
    ours: str
    peer: str
    ratio: float | None
    asked: float
    at_most: bool
    spread: tuple[float, float] | None = None
    unit: str = ""

    @property
    def met(self) -> bool:
        if self.ratio is None:
            return False
        return self.ratio <= self.asked if self.at_most else self.ratio >= self.asked

    def cells(self) -> tuple[str, ...]:
        shown = "-" if self.ratio is None else f"{self.ratio:.2f}{self.unit}"
        spread = "" if self.spread is None else f"{self.spread[0]:.2f}-{self.spread[1]:.2f}"
        return (
            self.what,
            self.ours,
            self.peer,
            shown,
            spread,
            f"{'≤' if self.at_most else '≥'} {self.asked:g}{self.unit}",
            ("met" if self.met else "NOT met"),
        )


def ratio_row(what: str, ours: Sequence[float], peer: Sequence[float], asked: float, *, at_most: bool, unit: str = "s") -> Row:
    """A row of pairs of seconds (`at_most`: ours over the peer's), or of rates (ours over the peer's, at least)."""
    ratios = [a / b for a, b in zip(ours, peer, strict=True)]
    return Row(
        what,
        f"{statistics.median(ours):.2f} {unit}",
        f"{statistics.median(peer):.2f} {unit}",
        statistics.median(ratios),
        asked,
        at_most,
        (min(ratios), max(ratios)),
    )


@dataclass
class Report:
    """The rows of a benchmark, and how busy others kept the machine while it ran."""

    title: str
    rows: list[Row] = field(default_factory=list)
    _begun: tuple[float, float, float] = field(default_factory=lambda: _clock())

    def add(self, row: Row) -> None:
        self.rows.append(row)
        print("  " + "  ".join(cell for cell in row.cells() if cell), flush=True)

    def finish(self) -> int:
        """Print the table; the exit code."""
        head = ("what", "ours", "peer", "ratio", "min-max", "asked", "")
        lines = [head, *(row.cells() for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        print(f"\n{self.title}")
        for line in lines:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        print(self._machine())
        return 0 if all(row.met for row in self.rows) else 1

    def _machine(self) -> str:
        now = _clock()
        elapsed, busy, own = (after - before for after, before in zip(now, self._begun, strict=True))
        share = max(0.0, busy - own) / (elapsed * (os.cpu_count() or 1))
        text = f"{os.cpu_count()} processors, {elapsed:.0f} s; other processes used {share:.0%} of the machine meanwhile"
        if share > BUSY:
            text += ".\nTHE MACHINE WAS LOADED: the ratios of pairs stand, the absolute figures do not"
        return text + "."


def _clock() -> tuple[float, float, float]:
    """Seconds; seconds that all processors were busy since the start of the machine; those of this process and its children."""
    with open("/proc/stat", encoding="ascii") as f:
        user, nice, system, _, _, irq, softirq, *_ = (int(text) / os.sysconf("SC_CLK_TCK") for text in f.readline().split()[1:])
    own = sum(
        usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
    return time.perf_counter(), user + nice + system + irq + softirq, own


# --- options -----------------------------------------------------------------------------------------------------------


def options(text: str, *, rounds: int) -> argparse.Namespace:
    """The options of a benchmark: the folder of the large archives (where it is about them), rounds, the folder to write in."""
    parser = argparse.ArgumentParser(description=text.partition("\n")[0])
    parser.add_argument("archives", type=Path, nargs="?", default=LARGE, help=f"folder of gcc-12.tar, multi.tar ({LARGE})")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"pairs that are timed ({rounds})")
    parser.add_argument("--dir", type=Path, default=None, help="where temporary folders are made")
    given = parser.parse_args()
    given.archives = given.archives.resolve()
    return given


def large_archives(folder: Path) -> Mapping[str, Path]:
    """The archives of the folder that the benchmarks are about."""
    found = {name: folder / name for name in ("gcc-12.tar", "multi.tar") if (folder / name).is_file()}
    if not found:
        fail(f"there is neither gcc-12.tar nor multi.tar in {folder}")
    return found


def read_through(path: Path) -> None:
    """Have a file in the page cache."""
    with path.open("rb") as f:
        while f.read(MIB):
            pass


def main() -> int:
    """Run every benchmark in a process of its own."""
    parser = argparse.ArgumentParser(description="Run all benchmarks.")
    parser.add_argument("archives", type=Path, nargs="?", default=LARGE)
    parser.add_argument("--quick", action="store_true", help="one round each: whether they run, not what they show")
    given = parser.parse_args()
    worst = 0
    for script in sorted(Path(__file__).parent.glob("bench_*.py")):
        argv = [sys.executable, str(script), str(given.archives), *(["--rounds", "1"] if given.quick else [])]
        print(f"=== {script.name}", flush=True)
        worst = max(worst, subprocess.run(argv).returncode)
        print(flush=True)
    return worst


if __name__ == "__main__":
    raise SystemExit(main())
