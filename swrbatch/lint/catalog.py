"""All rules, by id, and the selection of `--rules`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from ..errors import UsageError, printable
from . import content_rules, file_rules, image_rules, package_rules, program_rules, run_rules, workload_rules
from .build import Build
from .rule import Hit, ImageForm, Level, Rule, rule

IGNORE: Final = "swrbatch ignore="
IGNORE_FILE: Final = "swrbatch ignore-file="


@rule(
    "syntax", 0, Level.ERROR,
    ("the Dockerfile is wrong at column {column}: {fault}", "Dockerfile第{column}列有误：{fault_zh}"),
    ("correct the line; docker build would refuse it", "请修改该行；docker build会拒绝它"),
    bad="FROM node:22\nADD ./app\n",
    good="FROM node:22\nADD ./app /app\n",
)  # fmt: skip
def syntax(build: Build) -> Iterator[Hit]:
    for fault in build.file.faults:
        params = {"column": str(fault.column), "fault": printable(fault.message), "fault_zh": printable(fault.message_zh)}
        yield Hit(line=fault.line, end_line=fault.line, params=MappingProxyType(params))


@rule(
    "unknown-ignore", 0, Level.WARNING,
    ("the comment ignores {name}, which is no rule", "注释要忽略的{name}不是规则"),
    ("correct the name: swrbatch lint --list names the rules", "请修改名称：swrbatch lint --list列出全部规则"),
    bad="# swrbatch ignore=no-such-rule\nFROM node:22\n",
    good="# swrbatch ignore=floating-tag\nFROM node\n",
)  # fmt: skip
def unknown_ignore(build: Build) -> Iterator[Hit]:
    comments = [comment for found in build.file.instructions for comment in found.comments]
    for comment in (*comments, *build.file.comments):
        for name in (*named_in(comment.text, IGNORE), *named_in(comment.text, IGNORE_FILE)):
            if name not in BY_ID:
                params = MappingProxyType({"name": printable(name, 60)})
                yield Hit(line=comment.line, end_line=comment.line, params=params)


def named_in(text: str, prefix: str) -> list[str]:
    """The rules that an ignore comment names, with commas between them; what follows a blank is a reason."""
    if not text.startswith(prefix):
        return []
    return [name for name in text[len(prefix) :].partition(" ")[0].split(",") if name]


def _with_forms(rules: Iterable[Rule], forms: Iterable[ImageForm]) -> Iterator[Rule]:
    by_id = {form.id: form for form in forms}
    for one in rules:
        yield replace(one, image=by_id.pop(one.id)) if one.id in by_id else one
    assert not by_id


RULES: Final[tuple[Rule, ...]] = (
    syntax,
    unknown_ignore,
    *sorted(
        _with_forms(
            (
                *run_rules.RULES,
                *package_rules.RULES,
                *file_rules.RULES,
                *image_rules.RULES,
                *content_rules.RULES,
                *program_rules.RULES,
            ),
            (*image_rules.FORMS, *content_rules.FORMS, *program_rules.FORMS),
        ),
        key=lambda one: one.practice or 99,
    ),
    *workload_rules.RULES,
)
BY_ID: Final[Mapping[str, Rule]] = MappingProxyType({one.id: one for one in RULES})


def select_rules(text: str, among: Sequence[Rule] = RULES) -> tuple[Rule, ...]:
    """The rules of `a,b` (these alone), or of `-a,-b` (all of `among` but these). UsageError for a name that is none."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name.removeprefix("-") not in BY_ID]
    if unknown or not names:
        raise UsageError(f"--rules {printable(text)}: {printable((unknown or ['nothing'])[0])} is no rule; --list names them")
    taken = {name for name in names if not name.startswith("-")} or {one.id for one in among}
    taken -= {name[1:] for name in names if name.startswith("-")}
    return tuple(one for one in RULES if one.id in taken)
