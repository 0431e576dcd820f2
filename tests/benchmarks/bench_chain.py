"""`audit verify` of 1,000,000 chained events: at least 100,000 a second, the whole process counted.

Beside it, as the bound that no verification can pass, a bare loop that only reads the same rows and hashes them (in a process of
its own, too). The ledger is built first, which takes half a minute: events as an import records them, with a text each of about
900 bytes, in 50,000 repositories.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

from bench import MIB, ROOT, SWRBATCH, Report, Row, folders, options, pairs, run

COUNT = 1_000_000
LEAST = 100.0  # thousand events a second
BARE = """
import hashlib, sqlite3, sys
previous = "0" * 64
for text, digest in sqlite3.connect(sys.argv[1]).execute("SELECT text, hash FROM events ORDER BY seq"):
    previous = hashlib.sha256(f"{previous}\\n{text}".encode()).hexdigest()
    assert previous == digest
"""


def texts(count: int) -> Iterator[tuple[str, str, int, str]]:
    """(trace_id, run_id, record_time, canonical text) of uploads; nine in ten accepted."""
    for number in range(1, count + 1):
        name = f"team/app-{number % 50_000}:v{number // 50_000}"
        digest = f"sha256:{number:064x}"
        trace_id, run_id, moment = (
            str(uuid.UUID(int=number)),
            f"20260101T000000Z-{number // 1000:08x}",
            1_767_225_600_000 + number,
        )
        reference = f"swr.cn-north-1.example.com/{name}"
        request = {"archive": f"/srv/{number}.tar", "image_index": 0, "original": reference, "reference": reference}
        accepted = {"digest": digest, "image_id": digest, "previous_digest": None, "result": "loaded"}
        refused = {"codes": ["layer-corrupt"], "previous_digest": None, "result": "rejected"}
        good = number % 10 != 0
        response = _quoted(accepted if good else refused)
        text = (
            f'{{"code":"{200 if good else 400}","event_type":"system","message":"","origin":{{"ci_job":"","host":"build-7",'
            f'"login":"ci","run_id":"{run_id}"}},"read_only":false,"record_time":{moment},"request":{_quoted(request)},'
            f'"resource_id":"{digest if good else ""}","resource_name":"{name}","resource_type":"image","response":{response},'
            f'"service_type":"SWR","time":{moment - 40},"trace_id":"{trace_id}","trace_name":"uploadImagePackage",'
            f'"trace_rating":"{"normal" if good else "warning"}","trace_type":"Others","tracker_name":"swrbatch",'
            '"user":{"domain":{"name":"default"},"name":"alice"}}'
        )
        yield trace_id, run_id, moment, text


def _quoted(value: object) -> str:
    return json.dumps(json.dumps(value, separators=(",", ":")))


def build(store: Path, count: int) -> None:
    """A store with that many events in its ledger."""
    sys.path.insert(0, str(ROOT))
    from swrbatch import Store
    from swrbatch.cts import canonical_json

    Store(store, create=True).close()
    sample = next(text for *_, text in texts(1))
    assert sample == canonical_json(json.loads(sample))

    def rows() -> Iterator[tuple[object, ...]]:
        previous = "0" * 64
        for number, (trace_id, run_id, moment, text) in enumerate(texts(count), 1):
            digest = hashlib.sha256(f"{previous}\n{text}".encode()).hexdigest()
            yield number, trace_id, run_id, moment, "uploadImagePackage", text, previous, digest
            previous = digest

    connection = sqlite3.connect(store / "ledger.db")
    with connection:
        connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows())
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def main() -> int:
    given = options(__doc__ or "", rounds=5)
    count = COUNT if given.rounds > 1 else COUNT // 10
    report = Report(f"audit verify of {count:,} chained events, thousands a second (more is better)")
    with folders(given.dir) as room:
        store = room.new()
        run([sys.executable, __file__, "--build", store, str(count)])
        peaks = []

        def ours() -> float:
            spent = run([*SWRBATCH, "audit", "verify", "--store", store], sync=False)
            peaks.append(spent.peak)
            return count / spent.wall / 1000

        def bare() -> float:
            return count / run([sys.executable, "-c", BARE, store / "ledger.db"], sync=False).wall / 1000

        bare()  # the file is in the page cache from here on
        a, b = pairs(ours, bare, given.rounds)
        a.sort()
        b.sort()
        middle = a[len(a) // 2]
        what = (
            f"audit verify --store, whole process, peak {max(peaks) / MIB:.0f} MiB; beside it a loop that only reads and hashes"
        )
        report.add(Row(what, f"{middle:.0f} k/s", f"{b[len(b) // 2]:.0f} k/s", middle, LEAST, False, (a[0], a[-1]), unit=" k/s"))
    return report.finish()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--build"]:
        build(Path(sys.argv[2]), int(sys.argv[3]))
        raise SystemExit(0)
    raise SystemExit(main())
