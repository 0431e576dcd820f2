"""Lint a Dockerfile or manifests: what was read goes in, findings come out. Nothing is read here."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from ..errors import printable
from ..redaction import redacted, secret_values
from .build import Build, Context, plan_build
from .catalog import IGNORE, IGNORE_FILE, RULES, named_in
from .dockerfile import parse_dockerfile
from .file_rules import secret_pairs
from .rule import Finding, Hit, ImageHit, Level, Rule, fingerprint
from .workload import WorkloadFile

MOST: Final = 500
"""Findings of one rule in a file or an image that are listed; of the others there is a count."""
_LINE: Final = 4096
H = TypeVar("H", Hit, ImageHit)


def lint_dockerfile(data: bytes, path: str, context: Context | None = None, rules: Sequence[Rule] = RULES) -> tuple[Finding, ...]:
    """The findings of a Dockerfile, ordered by line; `path` is only named. Without a context the rules on it find nothing."""
    build = plan_build(parse_dockerfile(data), context)
    lines = data.decode("utf-8", "replace").split("\n")
    whole_file, ranges = _ignored(build)

    def counts(one: Rule, place: Hit) -> bool:
        return not any(one.id in names and a <= place.line <= b for a, b, names in ranges)

    found = []
    for one in rules:
        if one.check is not None and one.id not in whole_file:
            found += [(one, *told) for told in worst((p for p in one.check(build) if counts(one, p)), one.level)]
    secrets = list(secret_pairs(build))
    values = secret_values((pair.key, (pair.value or "").strip("\"'")) for _, pair in secrets)
    hidden = {(instruction.line, instruction.end_line) for instruction, _ in secrets}
    found.sort(key=lambda each: (each[1].line, -each[0].level.rank, each[0].id))
    seen: Counter[tuple[str, str]] = Counter()
    findings = []
    for one, place, more in found:
        place = replace(place, params={key: redacted(value, values) for key, value in place.params.items()})
        snippet = printable(redacted(_line(lines, place.line), values), 160)
        if any(first <= place.line <= last for first, last in hidden):
            snippet = "***"  # whatever rule tells about the line, a secret's value goes nowhere
        # What is hidden must not make two findings alike: then what the finding says tells them apart.
        key = snippet if snippet != "***" else f"*** {one.message.format_map(dict(place.params))}"
        seen[one.id, key] += 1
        made = finding_at(one, place, path, snippet, fingerprint(one.id, path, key, str(seen[one.id, key])))
        findings.append(with_more(made, more))
    return tuple(findings)


def _line(lines: Sequence[str], line: int) -> str:
    """As much of a line, from 1, as a snippet can show."""
    return lines[line - 1][:_LINE].strip() if line <= len(lines) else ""


def worst(places: Iterable[H], level: Level) -> list[tuple[H, int]]:
    """The `MOST` worst places of a rule, in their order, the last with how many more there are; `level` is the rule's own."""
    count = 0

    def counted() -> Iterator[H]:
        nonlocal count
        for place in places:
            count += 1
            yield place

    kept = heapq.nlargest(MOST, counted(), key=lambda place: (place.level or level).rank)
    return [(place, 0 if number < len(kept) else count - len(kept)) for number, place in enumerate(kept, 1)]


def with_more(finding: Finding, more: int) -> Finding:
    """The finding, which says how many more of its rule there are."""
    if not more:
        return finding
    return replace(
        finding,
        message=f"{finding.message} (and {more} more of this rule, which are not listed)",
        message_zh=f"{finding.message_zh}（该规则另有{more}处，未列出）",
    )


def lint_workloads(files: Iterable[WorkloadFile], rules: Sequence[Rule] = RULES) -> tuple[Finding, ...]:
    """The findings of files of manifests, file by file, ordered by line. A comment on the line or above it takes one back."""
    findings = []
    for file in files:
        lines = file.text.split("\n")
        whole = {name for line in lines for name in named_in(line.strip().lstrip("# "), IGNORE_FILE)}
        found = []
        for one in rules:
            if one.workload is not None and one.id not in whole:
                wanted = (place for place in one.workload(file) if not _taken_back(one, place, lines))
                found += [(one, *told) for told in worst(wanted, one.level)]
        found.sort(key=lambda each: (each[1].line, -each[0].level.rank, each[0].id))
        seen: Counter[tuple[str, str]] = Counter()
        for one, place, more in found:
            snippet = printable(redacted(_line(lines, place.line)), 160)
            seen[one.id, snippet] += 1
            mark = fingerprint(one.id, file.path, snippet, str(seen[one.id, snippet]))
            findings.append(with_more(finding_at(one, place, file.path, snippet, mark), more))
    return tuple(findings)


def _taken_back(one: Rule, place: Hit, lines: Sequence[str]) -> bool:
    """Whether a comment on the line or above it takes a finding back."""
    around = (line.partition("#")[2].strip() for line in lines[max(0, place.line - 2) : place.line])
    return any(one.id in named_in(text, IGNORE) for text in around)


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


def finding_at(one: Rule, place: Hit, path: str, snippet: str, mark: str) -> Finding:
    """What a rule found in the lines of a file; `mark` is its fingerprint.

    That outlives edits elsewhere in the file: it is made of the line's text, not its number, and of a count among equal ones.
    """
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
        fingerprint=mark,
    )
