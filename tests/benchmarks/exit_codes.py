"""Exit codes, looped: every command as a process of its own, many times, with the code and without the noise that it should have.

    python tests/benchmarks/exit_codes.py [--rounds 50] [--jobs 2]

A library that aborts now and then when its process ends (threads at work, a lost stdout) shows only so. Prints a table: the
command, the code that is asked, how often each was seen. Ends 0 when all runs of all commands ended as they should.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import ROOT, SWRBATCH, environment

ARCHIVES = ROOT / "fixtures" / "archives"
GOOD, BAD = ARCHIVES / "docker26-single.tar", ARCHIVES / "docker20-by-id.tar"
LATER = "2100-01-01T00:00:00Z"


def command(*words: object, room: Path) -> tuple[int, str]:
    """Run a command; its exit code, and the last line of stderr where it holds what no user should see."""
    done = subprocess.run(
        [*SWRBATCH, *map(str, words)], cwd=room, env=environment(), capture_output=True, text=True, errors="replace"
    )
    noise = [line for line in done.stderr.splitlines() if "Traceback" in line or "terminate called" in line or "Fatal" in line]
    return done.returncode, noise[-1] if noise else ""


def prepare(room: Path) -> None:
    """A store, its served copy with a foreign tag, a dataset, exports: what the commands below read."""
    for words in (
        ("import", GOOD, "--store", "store", "--report", "runs"),
        ("audit", "ingest", ROOT / "fixtures" / "cts", "--to", "traces"),
        ("audit", "export", "--store", "store", "--to", "exported"),
        ("audit", "export", "--store", "store", "--to", "bucket", "--as", "cts-obs"),
    ):
        code, noise = command(*words, room=room)
        if code or noise:
            raise SystemExit(f"{words}: exit code {code} {noise}")
    shutil.copytree(room / "store", room / "pushed")
    (tag,) = (room / "pushed").glob("docker/registry/v2/repositories/*/*/_manifests/tags/*")
    shutil.copytree(tag, tag.with_name("foreign"))


def cases(number: int, room: Path) -> list[tuple[int, tuple[object, ...]]]:
    """The code that is asked, and the command; what writes has a place of its own in each round."""
    own = f"round-{number}"
    return [
        (0, ("--help",)),
        (0, ("--version",)),
        (0, ("init", "--store", f"{own}/init")),
        (0, ("check", GOOD, "--report", f"{own}/checked")),
        (1, ("check", GOOD, BAD)),
        (2, ("check",)),
        (1, ("check", "nowhere.tar")),
        (0, ("import", GOOD, "--store", f"{own}/store", "--report", f"{own}/runs", "--format", "json")),
        (1, ("import", BAD, "--store", f"{own}/refused", "--report", f"{own}/runs")),
        (3, ("import", GOOD, "--store", GOOD)),
        (0, ("import", GOOD, "--store", "store", "--dry-run")),
        (0, ("images", "--store", "store")),
        (3, ("images", "--store", "nowhere")),
        (0, ("verify", "--store", "store", "--deep")),
        (0, ("serve-config", "--store", "store")),
        (0, ("org", "create", "mine", "--store", f"{own}/store")),
        (1, ("org", "delete", "team", "--store", "store", "--confirm", "DELETE")),
        (2, ("org", "delete", "team", "--store", "store")),
        (0, ("repo", "edit", "team/hello", "--description", "What greets.", "--store", f"{own}/store")),
        (1, ("repo", "edit", "team/hello", "--public", "--store", f"{own}/store", "--user", "nobody")),
        (0, ("tag", "list", "team/hello", "--store", "store")),
        (0, ("grant", "set", "--org", "team", "--to", "bob", "--level", "edit", "--store", f"{own}/store")),
        (0, ("share", "add", "team/hello", "--with", "partner", "--until", "forever", "--store", f"{own}/store")),
        (0, ("trigger", "add", "team/hello", "t", "--application", "web", "--store", f"{own}/store")),
        (0, ("trigger", "history", "team/hello", "--store", f"{own}/store")),
        (0, ("admin", "list", "--store", "store")),
        (0, ("export", "team/hello:v1", "--store", "store", "--to", f"{own}/hello.tar")),
        (1, ("export", "team/hello:v1", "--store", "store", "--to", f"{own}/refused.tar", "--user", "nobody")),
        (0, ("sync", "--from", "store", "--to", f"{own}/mirror")),
        (0, ("tag", "delete", "team/hello:v1", "--store", f"{own}/mirror", "--yes")),
        (0, ("gc", "--store", f"{own}/mirror", "--min-age", "0")),
        (0, ("run", ROOT / "fixtures/pipelines/ci-import.yaml", "--set", f"OUT={room / own / 'piped'}", "--dry-run")),
        (2, ("run", ROOT / "fixtures/pipelines/ci-import.yaml")),
        (0, ("audit", "catalog")),
        (0, ("audit", "ingest", ROOT / "fixtures" / "cts", "--to", f"{own}/traces")),
        (2, ("audit", "ingest", "nowhere", "--to", f"{own}/traces")),
        (0, ("audit", "export", "--store", f"{own}/store", "--to", f"{own}/exported")),
        (0, ("audit", "export", "--store", f"{own}/store", "--to", f"{own}/bucket", "--as", "cts-obs")),
        (0, ("audit", "export", "--store", f"{own}/store", "--to", f"{own}/api", "--as", "cts-api")),
        (0, ("audit", "export", "--store", f"{own}/store", "--to", f"{own}/ocsf", "--as", "ocsf")),
        (0, ("audit", "export", "--store", f"{own}/store", "--to", f"{own}/csv", "--as", "csv")),
        (0, ("audit", "query", "traces")),
        (0, ("audit", "query", "--store", "store", "--format", "parquet")),
        (2, ("audit", "query", "traces", "--last", "1y")),
        (3, ("audit", "query", "nowhere")),
        (0, ("audit", "report", "traces", "--to", f"{own}/report")),
        (1, ("audit", "report", "traces", "--to", f"{own}/report", "--fail-on", "info")),
        (0, ("audit", "reconcile", "--store", "store", "exported")),
        (1, ("audit", "reconcile", "--store", "pushed")),
        (0, ("audit", "verify", "--store", "store")),
        (1, ("audit", "verify", "traces")),  # an official digest file vouches for a trace file that is not among the samples
        (0, ("audit", "verify", "bucket")),
        (1, ("audit", "verify", "--store", "store", "--expect-head", f"1:{'0' * 64}")),
        (0, ("audit", "prune", "--store", "store", "--before", LATER, "--exported-to", "exported", "--dry-run")),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    seen: dict[tuple[int, str], Counter[tuple[int, str]]] = {}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(given.jobs) as pool:
        room = Path(folder)
        prepare(room)

        def loop(number: int) -> list[tuple[tuple[int, str], tuple[int, str]]]:
            (room / f"round-{number}").mkdir()
            made = [
                ((asked, " ".join(str(w).replace(f"round-{number}/", "") for w in words)), command(*words, room=room))
                for asked, words in cases(number, room)
            ]
            shutil.rmtree(room / f"round-{number}")
            return made

        for made in pool.map(loop, range(given.rounds)):
            for case, outcome in made:
                seen.setdefault(case, Counter())[outcome] += 1
    wrong = 0
    for (asked, words), outcomes in seen.items():
        bad = sum(n for (code, noise), n in outcomes.items() if code != asked or noise)
        wrong += bad
        told = ", ".join(f"{n} times {code}{' ' + noise if noise else ''}" for (code, noise), n in outcomes.items())
        print(f"{'WRONG ' if bad else ''}asked {asked}, seen {told}: {words.replace(str(ROOT) + '/', '')}")
    print(f"{sum(sum(outcomes.values()) for outcomes in seen.values())} runs of {len(seen)} commands, {wrong} ended otherwise")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
