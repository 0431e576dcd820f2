"""Everything that can be explained, from where it stands: nothing is written a second time.

    kind      what                                        taken from
    issue     a code of ours                              errors.CODES
    rule      a rule of lint                              lint.catalog.RULES, lint.causes
    finding   a finding of the audit report               audit.findings
    swr       an error code of SWR's API                  schemas/swr-error-codes.tsv
    docker    an error that the guide's chapter 9 names   guide_errors.py

`schemas/swr-error-codes.tsv` has the columns http, code, description, description_zh, solution, solution_zh. Code, description
and solution are those of the public API reference of Open Telekom Cloud's SWR (2025), the Chinese descriptions those of Huawei
Cloud's (2022), without the marks of their print. What they do not have is ours: the Chinese solutions, the Chinese of 4001091,
and "a valid digest" where the source says "an invalid digest".
"""

from __future__ import annotations

import csv
import functools
import string
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from ..audit import findings
from ..errors import CODES, Code, Severity, plain
from ..lint.catalog import RULES
from ..lint.causes import CAUSES
from ..lint.rule import Rule
from ..schemas import schema_path
from .entry import Entry
from .guide_errors import GUIDE_ERRORS

SWR_CODES: Final = "swr-error-codes.tsv"
_ASK: Final = ("Ask an administrator of the account, or somebody with manage, for it: swrbatch grant set.",
               "联系账号管理员或具备管理权限的用户授权：swrbatch grant set。")  # fmt: skip


@functools.cache
def entries() -> tuple[Entry, ...]:
    """All of them: errors of the guide first, then our codes, then the API's."""
    rows = _swr_rows()
    known = {row["code"]: row for row in rows}
    nearest: dict[str, list[str]] = defaultdict(list)
    for code in CODES.values():
        if code.swr_code:
            nearest[code.swr_code].append(code.code)
    return (
        *_guide_entries(),
        *(_issue_entry(code, known.get(code.swr_code)) for code in CODES.values()),
        *_rule_entries(),
        *_finding_entries(),
        *(_swr_entry(row, nearest[row["code"]]) for row in rows),
    )


def _guide_entries() -> Iterator[Entry]:
    for error in GUIDE_ERRORS:
        yield replace(error, related=(*error.related, *(rule.id for rule in RULES if _same_section(rule, error))))


def _same_section(rule: Rule, error: Entry) -> bool:
    return rule.section.partition(" ")[0] == error.section


def _issue_entry(code: Code, api: Mapping[str, str] | None) -> Entry:
    """The message of an issue is its cause; what one sees is that something is refused, or a warning."""
    refused = code.severity is Severity.ERROR
    told = (
        ("swrbatch refuses it.", "swrbatch拒绝该操作。")
        if refused
        else ("swrbatch warns, and goes on.", "swrbatch给出警告并继续。")
    )
    if api is not None:
        told = (
            f"{told[0]} The service's own code for it would be {code.swr_code}: {api['description']}",
            f"{told[1]}服务端的相应错误码为{code.swr_code}：{api['description_zh']}",
        )
    return Entry(
        kind="issue",
        id=code.code,
        level=code.severity.value,
        section=code.section,
        symptom=told,
        cause=(plain(code.message), plain(code.message_zh)),
        way_out=(plain(code.way_out, ask=_ASK[0]), plain(code.way_out_zh, ask=_ASK[1])),
        phrases=(_phrase(code.message), _phrase(code.message_zh)),
        related=(*((code.swr_code,) if code.swr_code else ()), *(each.id for each in GUIDE_ERRORS if code.code in each.related)),
    )


def _rule_entries() -> Iterator[Entry]:
    for rule in RULES:
        english, chinese = rule.text("en"), rule.text("zh")
        yield Entry(
            kind="rule",
            id=rule.id,
            level=rule.level.value,
            section=rule.section,
            heading=(rule.heading("en"), rule.heading("zh")),
            symptom=(plain(english), plain(chinese)),
            cause=CAUSES[rule.id],
            way_out=(plain(rule.remedy("en")), plain(rule.remedy("zh"))),
            phrases=(_phrase(english), _phrase(chinese)),
            related=tuple(error.id for error in GUIDE_ERRORS if _same_section(rule, error)),
            bad=rule.bad,
            good=rule.good,
        )


def _finding_entries() -> Iterator[Entry]:
    for name, meaning in findings.MEANINGS.items():
        yield Entry(
            kind="finding",
            id=name,
            level=meaning.severity,
            section="7.1",
            symptom=(meaning.message, meaning.message_zh),
            cause=findings.CAUSES[name],
            way_out=(
                f"The table {meaning.table} of the report (swrbatch audit report) lists each one.",
                f"审计报告（swrbatch audit report）的{meaning.table}表逐条列出。",
            ),
            phrases=(meaning.message, meaning.message_zh),
        )


def _swr_entry(row: Mapping[str, str], ours: list[str]) -> Entry:
    http, code = row["http"], row["code"]
    return Entry(
        kind="swr",
        id=code,
        level=f"HTTP {http}",
        section="",
        symptom=(f"The API answers HTTP {http}, {code}.", f"API返回HTTP {http}，{code}。"),
        cause=(row["description"], row["description_zh"]),
        way_out=(row["solution"], row["solution_zh"]),
        phrases=(row["description"], row["description_zh"]),
        related=tuple(ours),
    )


def _swr_rows() -> list[dict[str, str]]:
    with schema_path(SWR_CODES).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def _phrase(template: str) -> str:
    """A text with `{}` for each of its parameters."""
    return "".join(literal + ("" if name is None else "{}") for literal, name, _, _ in string.Formatter().parse(template))
