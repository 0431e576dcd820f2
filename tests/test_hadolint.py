"""Agreement with hadolint over the project's own corpus of Dockerfiles: the README's table is what a run of both gives.

    python tests/test_hadolint.py      writes the table in README.md anew

Compared is each Dockerfile as a whole: whether our rule finds something in it, and whether hadolint's does. What only one of them
finds has a reason here, told by what stands in the Dockerfile; a disagreement without one fails the test, and so does a reason
that nothing needs any more.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import ROOT, find_peer
from lint_corpus import FOUND, MISSED, whole
from swrbatch.lint.check import lint_dockerfile

README = ROOT / "README.md"
_BLOCK = re.compile(r"(?<=^<!-- measured: hadolint -->\n)(.*?)(?=^<!-- end -->$)", re.MULTILINE | re.DOTALL)
_CRASH = "index too large"


@dataclass(frozen=True)
class Pair:
    """A rule of ours, those of hadolint that mean the same, and reasons for what only one of them finds: pattern, reason."""

    rule: str
    theirs: tuple[str, ...]
    only_ours: tuple[tuple[str, str], ...] = ()
    only_theirs: tuple[tuple[str, str], ...] = ()


_NOT_FINAL = ("(?s)FROM.*FROM", "in a stage that the image is not built from")
PAIRS = (
    Pair(
        "syntax",
        ("DL1000",),
        only_ours=(
            (r"--mont", "a flag that no instruction has"),
            (r"CMD \[1\]", "a number in a JSON form"),
            (r"RUN x\nFROM", "an instruction before FROM"),
        ),
        only_theirs=(
            (r"(?:COPY|ADD) <<", "hadolint reads no heredocs of COPY and ADD"),
            (r"EXPOSE (?:80:80|80/http|web|80 x|80,81)", "ours is invalid-port: a wrong port is no wrong syntax"),
            (r"EXPOSE", "variables with a default, quotes and sctp are BuildKit's syntax"),
            (r"HEALTHCHECK none|^CMD$", "BuildKit takes it (checked with its own parser)"),
            (r"FROM host:5000/a:1", "hadolint reads no registry with a port"),
        ),
    ),
    Pair(
        "floating-tag",
        ("DL3006", "DL3007"),
        only_ours=(
            (r"host:5000", "hadolint takes the registry's port for a tag"),
            (r"^ARG", "hadolint does not fill in the default of an ARG"),
            (r"COPY --from=", "hadolint looks at FROM only, not at COPY --from=IMAGE"),
        ),
        only_theirs=((r"swrbatch ignore", "our ignore comment"),),
    ),
    Pair(
        "package-leftovers",
        ("DL3009", "DL3019", "DL3032", "DL3036", "DL3040"),
        only_ours=(
            (r"rm -rf /(?:tmp|var/lib/apt/lists/\* && apt)", "any rm -rf silences hadolint, also of another folder or too early"),
            (r"apt(?:-get)? install", "apt without an update in the RUN: hadolint looks at apt-get update alone"),
        ),
        only_theirs=(
            (r"dnf -y upgrade", "ours is package-upgrade"),
            (r"rm -r /var/lib/apt/lists", "hadolint knows rm -rf only"),
        ),
    ),
    Pair(
        "pip-cache",
        ("DL3042",),
        only_theirs=((r"rm -rf ~/\.cache", "the cache is removed in the same RUN"), _NOT_FINAL),
    ),
    Pair(
        "yarn-cache",
        ("DL3060",),
        only_ours=((r"yarn$|yarn (?:add|global)", "hadolint knows yarn install only, not yarn, yarn add and yarn global"),),
        only_theirs=(
            (r"type=cache", "the cache lies on a mount"),
            (r"rm -rf \S*/yarn$", "the cache is removed in the same RUN"),
            (r"yarn run install", "a script of the project that is called install"),
        ),
    ),
    Pair(
        "run-cd",
        ("DL3003",),
        only_theirs=((r"&& cd|RUN cd /x$", "ours is on a RUN that starts with cd and goes on (the guide's case)"),),
    ),
    Pair("relative-workdir", ("DL3000",), only_ours=((r"WORKDIR \$p", "hadolint does not fill in variables"),)),
    Pair(
        "shell-form",
        ("DL3025",),
        only_theirs=(
            (r"(?i)HEALTHCHECK", "HEALTHCHECK CMD, whose shell gets no signals to pass on"),
            (r"& exec", "ours is background-process"),
            (r"exec ", "the shell replaces itself by exec"),
            (r"SHELL", "a SHELL of its own is a choice"),
            _NOT_FINAL,
        ),
    ),
    Pair("several-entrypoints", ("DL4003", "DL4004")),
    Pair(
        "add-local",
        ("DL3020",),
        only_theirs=(
            (r"ADD (?:ftp|git@)", "a URL, or a git repository, which COPY cannot take"),
            (r"TAR\.BZ2", "an archive in capital letters, which ADD unpacks by content"),
            (r"ADD \$", "a variable that nothing sets may be an archive"),
        ),
    ),
    Pair(
        "root-user",
        ("DL3002",),
        only_ours=((r"USER \$U", "hadolint does not fill in variables"),),
        only_theirs=((r"su-exec", "the entrypoint can drop the privileges"), _NOT_FINAL),
    ),
    Pair("invalid-port", ("DL3011",), only_ours=((r"EXPOSE (?:0|90-80)", "port 0, and a range that runs backwards"),)),
    Pair(
        "secret-in-build",
        ("DL3064",),
        only_ours=((r"AKIA", "ours knows keys by their form, too, whatever the variable is called"),),
        only_theirs=(
            (r"_FILE=|SECRET=/run", "the path of a file, not a secret"),
            (r"TOKENIZER|TOKEN_VERSION|ALLOW_EMPTY", "a name that only has the word in it"),
            (r"PASSWORD=(?:\$X)?$", "no value stands there"),
        ),
    ),
    Pair(
        "consecutive-runs",
        ("DL3059",),
        only_ours=((r"&&", "hadolint leaves out a RUN of several commands"),),
        only_theirs=((r"RUN .*\nRUN ", "ours is on calls of one package manager only (the guide's case)"),),
    ),
    Pair(
        "undefined-variable",
        ("DL3044",),
        only_ours=((r"\$", "hadolint looks for variables that the same ENV defines, and for no others"),),
    ),
    Pair(
        "label-key",
        ("DL3048",),
        only_ours=((r"b_c=", "hadolint takes an underscore"),),
        only_theirs=((r"\$KEY", "a variable may be any key"),),
    ),
    Pair("maintainer", ("DL4000",)),
    Pair("several-healthchecks", ("DL3012",)),
    Pair("missing-healthcheck", ("DL3057",), only_ours=((r"HEALTHCHECK NONE", "HEALTHCHECK NONE is none"),)),
)


@functools.cache
def corpus() -> tuple[str, ...]:
    """The cases of all rules, each once."""
    return tuple(dict.fromkeys(case for group in (FOUND, MISSED) for cases in group.values() for case in cases))


def run_hadolint(program: str) -> tuple[dict[str, set[str]], set[str]]:
    """The codes that hadolint finds in each case, and the cases at which it crashes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "on.yaml").write_text("override:\n  info: [DL3057]\n")  # it is off unless asked for
        paths = {}
        for number, case in enumerate(corpus()):
            path = folder / f"{number:04}.Dockerfile"
            path.write_bytes(whole(case))
            paths[str(path)] = case
        found: dict[str, set[str]] = {case: set() for case in corpus()}
        crashed: set[str] = set()

        def run(part: Sequence[str]) -> None:
            argv = [program, "--config", str(folder / "on.yaml"), "--format", "json", "--no-fail", *part]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
            if done.returncode == 0:
                for each in json.loads(done.stdout):
                    found[paths[each["file"]]].add(each["code"])
            elif len(part) == 1:
                assert _CRASH in done.stderr.lower(), done.stderr
                crashed.add(paths[part[0]])
            else:  # one crash costs the whole run: look for it in halves
                run(part[: len(part) // 2])
                run(part[len(part) // 2 :])

        run(list(paths))
    return found, crashed


@functools.cache
def ours() -> dict[str, set[str]]:
    """The rules of ours that find something in each case."""
    return {case: {each.rule for each in lint_dockerfile(whole(case), "Dockerfile")} for case in corpus()}


def reasons(cases: Sequence[str], known: Sequence[tuple[str, str]], used: set[str]) -> str:
    """Why only one of them finds these, with counts; an assertion if something has no reason."""
    counts: Counter[str] = Counter()
    for case in cases:
        reason = next((reason for pattern, reason in known if re.search(pattern, case)), None)
        assert reason is not None, f"a disagreement without a reason: {case!r}"
        counts[reason] += 1
    used |= set(counts)
    return "; ".join(f"{reason} ({counts[reason]})" for _, reason in known if counts[reason]) or "-"


def measured(program: str) -> str:
    """The table, from a run of both."""
    found, crashed = run_hadolint(program)
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    unread = {case for case, codes in found.items() if "DL1000" in codes} | crashed
    failed = f"It cannot read {len(unread - crashed)} of them, which only the row `syntax` counts"
    lines = [
        f"hadolint {version}, {len(corpus())} Dockerfiles. {failed}, and crashes at {len(crashed)} more, which none does.",
        "",
        "| rule | hadolint | both | only ours | only hadolint's | only ours, why | only hadolint's, why |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for pair in PAIRS:
        left_out = crashed if pair.rule == "syntax" else unread
        sides: dict[tuple[bool, bool], list[str]] = {(a, b): [] for a in (False, True) for b in (False, True)}
        for case in corpus():
            if case not in left_out:
                sides[pair.rule in ours()[case], bool(found[case] & set(pair.theirs))].append(case)
        used: set[str] = set()
        one, other = (
            reasons(sides[key], known, used)
            for key, known in (((True, False), pair.only_ours), ((False, True), pair.only_theirs))
        )
        unused = {reason for _, reason in (*pair.only_ours, *pair.only_theirs)} - used
        assert not unused, f"{pair.rule}: nothing needs the reasons {unused}"
        counts = [str(len(sides[key])) for key in ((True, True), (True, False), (False, True))]
        lines.append("| " + " | ".join((f"`{pair.rule}`", ", ".join(pair.theirs), *counts, one, other)) + " |")
    return "\n".join(lines)


def test_the_table_of_agreement_is_what_a_run_gives(peer: Callable[[str], str]) -> None:
    (told,) = _BLOCK.findall(README.read_text(encoding="utf-8"))
    assert told.strip() == measured(peer("hadolint")).strip(), "run: python tests/test_hadolint.py"


def test_a_disagreement_without_a_reason_is_an_error() -> None:
    with pytest.raises(AssertionError, match="without a reason: 'RUN x'"):
        reasons(["RUN x"], [("ADD", "why")], set())


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    table = measured(find_peer("hadolint"))
    README.write_text(_BLOCK.sub(lambda _: f"\n{table}\n\n", text), encoding="utf-8")
    print(table, file=sys.stderr)
