"""A program that forks itself for every run of `ingest`, and kills the fork where it is told to.

    echo '{"dataset": DIR, "paths": [...], "now": MS, "point": N, "after": SECONDS}' | python tests/killing.py

For each line of JSON a child ingests `paths`; it gets SIGKILL at its `point`-th write boundary, or `after` seconds, or never (0).
The answer is a line: the exit code (negative for a signal), the number of boundaries passed, the seconds it took.

Why a program of its own: pytest's process has threads of pyarrow and DuckDB, and a fork of such a process may hang. This one has
loaded everything and started nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
PATIENCE: Final = 60.0


def answer(order: dict[str, Any]) -> tuple[int, int, float]:
    """Do one order; see the module's docstring."""
    points, told = os.pipe()
    begun = time.monotonic()
    pid = os.fork()
    if not pid:
        code = 70
        try:
            run(order, told)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(told)
    if order["after"]:
        time.sleep(order["after"])
        os.kill(pid, signal.SIGKILL)
    with os.fdopen(points, "rb") as f:
        passed = len(f.read())
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), passed, time.monotonic() - begun


def run(order: dict[str, Any], told: int) -> None:
    """The child: one ingest; a byte goes to `told` at every boundary."""
    from swrbatch import faults
    from swrbatch.audit.dataset import Dataset
    from swrbatch.audit.ingest import ingest

    lock, count = threading.Lock(), 0

    def hook(_name: str) -> None:
        nonlocal count
        with lock:
            count += 1
            os.write(told, b".")
            if count == order["point"]:
                os.kill(os.getpid(), signal.SIGKILL)

    faults.hook = hook
    ingest(order["paths"], Dataset(order["dataset"], create=True), now=order["now"])


class Killer:
    """The program, running: `killer(dataset, paths)` gives exit code, boundaries passed, seconds."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, dataset: Path, paths: list[Path], now: int, *, point: int = 0, after: float = 0) -> tuple[int, int, float]:
        order = {"dataset": str(dataset), "paths": [*map(str, paths)], "now": now, "point": point, "after": after}
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        code, passed, seconds = json.loads(self._process.stdout.readline())
        return code, passed, seconds


@contextlib.contextmanager
def killer() -> Iterator[Killer]:
    """Start the program; it ends with the block, or when this process ends."""
    argv = [sys.executable, __file__]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        yield Killer(process)
        assert process.stdin is not None
        process.stdin.close()


def main() -> None:
    import duckdb
    import jsonschema
    import numpy
    import pyarrow.compute
    import pyarrow.parquet

    import swrbatch.audit.ingest
    from swrbatch.schemas import validator

    loaded = (duckdb, jsonschema, numpy, pyarrow.compute, pyarrow.parquet, swrbatch.audit.ingest)
    assert all(loaded) and validator("cts-trace.schema.json")
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
