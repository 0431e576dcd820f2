"""Lint a Dockerfile or manifests: what was read goes in, findings come out. Nothing is read here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ..errors import printable
from .build import Build, Context, plan_build
from .catalog import IGNORE, IGNORE_FILE, RULES, named_in
from .dockerfile import parse_dockerfile
from .file_rules import secret_pairs
from .rule import Finding, Hit, Rule, fingerprint
from .workload import WorkloadFile


def lint_dockerfile(data: bytes, path: str, context: Context | None = None, rules: Sequence[Rule] = RULES) -> tuple[Finding, ...]:
    """The findings of a Dockerfile, ordered by line; `path` is only named. Without a context the rules on it find nothing."""
    build = plan_build(parse_dockerfile(data), context)
    lines = data.decode("utf-8", "replace").split("\n")
    whole_file, ranges = _ignored(build)
    found = []
    for one in rules:
        for place in one.check(build) if one.check is not None else ():
            if one.id not in whole_file and not any(one.id in names and a <= place.line <= b for a, b, names in ranges):
                found.append((one, place))
    secrets = [(instruction.line, instruction.end_line) for instruction, _ in secret_pairs(build)]
    found.sort(key=lambda pair: (pair[1].line, -pair[0].level.rank, pair[0].id))
    seen: Counter[tuple[str, str]] = Counter()
    findings = []
    for one, place in found:
        snippet = printable(lines[place.line - 1].strip(), 160) if place.line <= len(lines) else ""
        if any(first <= place.line <= last for first, last in secrets):
            snippet = "***"  # whatever rule tells about the line, a secret's value goes nowhere
        seen[one.id, snippet] += 1
        findings.append(finding_at(one, place, path, snippet, seen[one.id, snippet]))
    return tuple(findings)


def lint_workloads(files: Iterable[WorkloadFile], rules: Sequence[Rule] = RULES) -> tuple[Finding, ...]:
    """The findings of files of manifests, file by file, ordered by line. A comment on the line or above it takes one back."""
    findings = []
    for file in files:
        lines = file.text.split("\n")
        whole = {name for line in lines for name in named_in(line.strip().lstrip("# "), IGNORE_FILE)}
        found = []
        for one in rules:
            for place in one.workload(file) if one.workload is not None else ():
                around = (line.partition("#")[2].strip() for line in lines[max(0, place.line - 2) : place.line])
                if one.id not in whole and not any(one.id in named_in(text, IGNORE) for text in around):
                    found.append((one, place))
        found.sort(key=lambda pair: (pair[1].line, -pair[0].level.rank, pair[0].id))
        seen: Counter[tuple[str, str]] = Counter()
        for one, place in found:
            snippet = printable(lines[place.line - 1].strip(), 160) if place.line <= len(lines) else ""
            seen[one.id, snippet] += 1
            findings.append(finding_at(one, place, file.path, snippet, seen[one.id, snippet]))
    return tuple(findings)


def _ignored(build: Build) -> tuple[set[str], list[tuple[int, int, set[str]]]]:
    """The rules that comments switch off in the file, and in the lines of the instruction below the comment."""
    whole: set[str] = {name for comment in build.file.comments for name in named_in(comment.text, IGNORE_FILE)}
    ranges = []
    for found in build.file.instructions:
        names: set[str] = set()
        for comment in found.comments:
            whole |= set(named_in(comment.text, IGNORE_FILE))
            names |= set(named_in(comment.text, IGNORE))
        if names:
            ranges.append((found.line, found.end_line, names))
    return whole, ranges


def finding_at(one: Rule, place: Hit, path: str, snippet: str, count: int) -> Finding:
    """What a rule found in the lines of a file; `count` tells it from others of the rule with the same snippet."""
    params = dict(place.params)
    return Finding(
        rule=one.id,
        level=place.level or one.level,
        path=path,
        line=place.line,
        end_line=max(place.line, place.end_line),
        message=one.message.format_map(params),
        message_zh=one.message_zh.format_map(params),
        way_out=one.way_out.format_map(params),
        way_out_zh=one.way_out_zh.format_map(params),
        section=one.section,
        snippet=snippet,
        # It outlives edits elsewhere in the file: it holds the line's text, not its number.
        fingerprint=fingerprint(one.id, path, snippet, str(count)),
    )
