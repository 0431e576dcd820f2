"""Runs checks and imports in forked children of a process that has imported the product and nothing else.

So the peak memory of a child is that of the product, what hangs can be killed, and what crashes harms nobody. `Children` is the
side of the tests; run as a program, this file is the other side: a request a line, an answer a line, both JSON.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Ended:
    """What became of a child. `issues` are (code, severity); `failure` is a traceback, or says how it died; `peak` in bytes."""

    failure: str
    peak: int = 0
    seconds: float = 0.0
    issues: tuple[tuple[str, str], ...] = ()
    archives: tuple[tuple[str, str, tuple[str, ...]], ...] = ()


class Children:
    """A process that forks a child for each call; use as a context manager."""

    def __init__(self, seconds: float) -> None:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        argv = [sys.executable, __file__, str(seconds)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True)

    def run(
        self, archives: list[Path], *, store: Path | None = None, options: Mapping[str, Any] | None = None, act: str = ""
    ) -> Ended:
        """Check the archives, or import them into `store` and verify it. `act` is Python to run instead, to test this class."""
        assert self._process.stdin is not None and self._process.stdout is not None
        request = {
            "archives": list(map(str, archives)),
            "store": store and str(store),
            "options": dict(options or {}),
            "act": act,
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline())
        told["issues"] = tuple(map(tuple, told.get("issues", ())))
        told["archives"] = tuple((name, status, tuple(codes)) for name, status, codes in told.get("archives", ()))
        return Ended(**told)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()


# --- the other side --------------------------------------------------------------------------------------------------


def act(request: dict[str, Any]) -> dict[str, Any]:
    """What a child does: the run first, for its peak; then a look at all that came of it."""
    from swrbatch import Store, check_archives, import_archives
    from swrbatch.verify import verify_store

    if request["act"]:
        exec(request["act"])
        return {"peak": peak()}
    if request["store"]:
        result = import_archives(request["archives"], request["store"], **request["options"])
    else:
        result = check_archives(request["archives"], **request["options"])
    most = peak()
    assert result.failure is None, result.failure
    for row in result.issues:
        # What an archive chose stands in these: nothing of it may move a cursor, or break a file or a database.
        for text in (row.place, row.message, row.message_zh, row.way_out, row.way_out_zh):
            assert text.isprintable(), text
            text.encode()
    assert (result.run.exit_code == 1) == any(row.severity == "error" for row in result.issues)
    if request["store"]:
        with Store(request["store"]) as store:
            verified = verify_store(store, deep=True)
            assert verified.ok, verified.issues
            assert verified.tags == len(
                {row.reference for row in result.images if row.status in ("loaded", "overwritten", "unchanged")}
            )
        left = [path for path in Path(request["store"], "tmp").rglob("*") if path.is_file()]
        assert not left, left
    return {
        "peak": most,
        "issues": [(row.code, row.severity) for row in result.issues],
        "archives": [(row.archive, row.status, row.issue_codes) for row in result.archives],
    }


def peak() -> int:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) << 10


def answer(line: str, seconds: float) -> dict[str, Any]:
    """Fork a child for a request, and wait for what it tells, or for the end of the time."""
    here, there = os.pipe()
    begun = time.monotonic()
    pid = os.fork()
    if not pid:
        try:
            os.close(here)
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
            try:
                told = {"failure": "", **act(json.loads(line))}
            except BaseException:
                told = {"failure": traceback.format_exc()}
            with open(there, "w") as out:
                json.dump(told, out)
        finally:
            os._exit(0)
    os.close(there)
    told = {"failure": "it died without a word"}
    with open(here) as pipe:
        if not select.select([pipe], [], [], seconds)[0]:
            os.kill(pid, signal.SIGKILL)
            told = {"failure": f"it hangs: killed after {seconds} s"}
        elif text := pipe.read():
            told = json.loads(text)
    os.waitpid(pid, 0)
    return {**told, "seconds": time.monotonic() - begun}


def main() -> None:
    import alembic.command
    import jsonschema

    import swrbatch.batch
    import swrbatch.store
    import swrbatch.verify

    del alembic, jsonschema, swrbatch
    for line in sys.stdin:
        print(json.dumps(answer(line, float(sys.argv[1]))), flush=True)


if __name__ == "__main__":
    main()
