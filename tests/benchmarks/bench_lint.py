"""Lint of 400 Dockerfiles: one process of ours against one of hadolint over the same files.

The Dockerfiles are put together from the project's own corpus (tests/lint_corpus.py), a dozen cases each, with other names and
numbers in every one. Left out is what hadolint cannot read: it stops there, and would be fast for nothing. Python's start counts.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path

from bench import ROOT, SWRBATCH, Report, environment, fail, folders, options, pairs, program, ratio_row, run

sys.path.insert(0, str(ROOT / "tests"))
from lint_corpus import FOUND, MISSED

COUNT = 400
CASES = 12
LEAST = 10.0
# What hadolint cannot read, or crashes at, and what begins a stage, for a Dockerfile has one here.
_UNREAD = re.compile(r"FROM|<<|EXPOSE|WORKDIR|SHELL|none|swrbatch|--mont|LABEL a=b c|CMD(?:$| \[1)|^ADD \./app$|FOO")


def fragments() -> list[str]:
    """The cases that a Dockerfile is made of."""
    cases = (case for group in (FOUND, MISSED) for cases in group.values() for case in cases)
    return [case for case in dict.fromkeys(cases) if not _UNREAD.search(case)]


def build(folder: Path, count: int) -> None:
    """Write the Dockerfiles, each in a folder of its own, as in a tree of projects."""
    chance = random.Random(11)
    known = fragments()
    for number in range(count):
        lines = [
            f"FROM registry.example.com/base/image-{number}:{chance.randrange(99)}",
            f"ENV APP=app{number} PORT={chance.randrange(1024, 65535)}",
        ]
        for case in chance.sample(known, CASES):
            # Other words in every file: a cache of whole instructions would find nothing.
            lines.append(re.sub(r"\b([a-z])\b(?!:)", lambda m: f"{m[1]}{chance.randrange(1000)}", case))
        path = folder / f"project-{number:03}" / "Dockerfile"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join([*lines, ""]), encoding="utf-8")


def check(files: list[Path], argv: list[str | Path]) -> str:
    """What the files are like; the benchmark ends unless hadolint reads all of them."""
    done = subprocess.run([*argv, "--format", "json"], capture_output=True, text=True, env=environment())
    found = json.loads(done.stdout or "null")
    if done.returncode or found is None:
        fail(f"hadolint ended with {done.returncode}: {done.stderr[:1000]}")
    unread = [each for each in found if each["code"] == "DL1000"]
    if unread:
        fail(f"hadolint cannot read {len(unread)} of the Dockerfiles, first {unread[0]}")
    lines = sum(path.read_text(encoding="utf-8").count("\n") for path in files)
    return f"{len(files)} Dockerfiles of {lines / len(files):.0f} lines each; hadolint finds {len(found)}"


def main() -> int:
    given = options(__doc__ or "", rounds=3)
    report = Report("Lint of Dockerfiles: one process each, the time of hadolint over ours (more is better)")
    with folders(given.dir) as room:
        folder = room.new()
        build(folder, COUNT)
        files = sorted(folder.rglob("Dockerfile"))
        theirs = [program("hadolint"), "--no-fail", *files]
        print(f"  {check(files, theirs)}")
        a, b = pairs(lambda: 1 / run([*SWRBATCH, "lint", folder], fine=(0, 1)).wall, lambda: 1 / run(theirs).wall, given.rounds)
        report.add(ratio_row(f"lint of {COUNT} Dockerfiles, runs a second", a, b, LEAST, at_most=False, unit="/s"))
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())
