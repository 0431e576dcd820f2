"""`swrbatch lint`."""

from __future__ import annotations

import datetime
import enum
import os
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from ..digest import Cancel
from ..errors import ExitCode, Lang, UsageError, plain
from .options import (
    AccountOption,
    LangOption,
    Language,
    Severity,
    UserOption,
    cancelled_by_signals,
    exits,
    lang,
    show,
    store_of_names,
    store_path,
    tell,
)
from .text import fitted, hanging, issue_lines, labelled, lint_counts, rows_cut, sized, terminal, way_out, width, word

if TYPE_CHECKING:
    from ..lint.config import LintConfig
    from ..lint.rule import Level
    from ..lint.targets import LintOptions, LintResult

app = typer.Typer(rich_markup_mode=None)


class LintFormat(enum.StrEnum):
    """How findings are printed."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"
    GITLAB = "gitlab"
    JUNIT = "junit"


@app.command("lint")
def lint(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH|ARCHIVE|REF...",
            help="Dockerfiles, archives, workloads (YAML), folders that hold some, - for standard input; images of a store as "
            "ORG/REPO:TAG or a glob.",
        ),
    ] = None,
    store: Annotated[
        str | None, typer.Option("--store", metavar="DIR", help="The store of the names; all of it if none is given.")
    ] = None,
    user: UserOption = None,
    account: AccountOption = None,
    rules: Annotated[
        str | None, typer.Option("--rules", metavar="a,b|-a,-b", help="These rules alone, or all but these.")
    ] = None,
    format: Annotated[LintFormat, typer.Option("--format", help="text for people, the others for programs.")] = LintFormat.TEXT,
    fail_on: Annotated[
        Severity | None, typer.Option("--fail-on", help="End with 1 from this level on (warning).", show_default=False)
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", metavar="FILE", help="The configuration; .swrbatch-lint.yaml if it is here.")
    ] = None,
    no_config: Annotated[bool, typer.Option("--no-config", help="Take no configuration, though one is here.")] = False,
    baseline: Annotated[
        str | None, typer.Option("--baseline", metavar="FILE", help="Leave out what an earlier --format json told.")
    ] = None,
    registry: Annotated[
        list[str] | None,
        typer.Option("--registry", metavar="HOST", help="Registries whose images need a login in workloads; globs, repeatable."),
    ] = None,
    date: Annotated[
        str | None, typer.Option("--date", metavar="YYYY-MM-DD", help="The day that ends of life are compared with (today).")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the rules.")] = False,
    lang_: LangOption = Language.EN,
) -> None:
    """Check Dockerfiles, images and workloads against the guide's practices (8.1, 9.4.1).

    Each argument is told by its content. Exit codes: 0 clean, 1 findings or an archive that cannot be read, 2 wrong usage.
    """
    from ..lint.rule import Level
    from ..lint.targets import LintOptions
    from ..lint.workload_rules import HOSTS

    with exits():
        if list_:
            show(_listing(lang(lang_)))
            return
        if not targets and store is None:
            raise UsageError("name a Dockerfile, an archive, a manifest or a folder, or an image of a store")
        chosen = _config(config, no_config, rules, baseline)
        options = LintOptions(
            rules=chosen.rules,
            today=_day(date),
            registries=tuple(registry or ()) or chosen.registries or _registry_of(store) or HOSTS,
        )
        threshold = Level(fail_on.value) if fail_on is not None else chosen.fail_on or Level.WARNING
    with exits(lang(lang_)), cancelled_by_signals() as cancel:
        found = _lint(targets or ["*"], options, store, (user, account), cancel)
        result = replace(found, findings=chosen.judge(found.findings, options.today))
        show(_printed(format, result, lang(lang_), threshold))
        for each in result.issues:
            if each.is_error:
                tell(*issue_lines(each, lang(lang_)))
    if result.failed or any(one.level.rank >= threshold.rank for one in result.counting):
        raise typer.Exit(int(ExitCode.REJECTED))


def _config(path: str | None, none: bool, rules: str | None, baseline: str | None) -> LintConfig:
    """The configuration: what is named, or lies here; what the command line says goes before it."""
    from ..lint.catalog import select_rules
    from ..lint.config import FILE, LintConfig, read_config
    from ..lint.outputs import read_baseline

    if none and path is not None:
        raise UsageError("--no-config and --config FILE: give one of them")
    here = FILE if not none and os.path.exists(FILE) else None
    named = path if path is not None else here
    chosen = read_config(named) if named is not None else LintConfig()
    if rules is not None:
        chosen = replace(chosen, rules=select_rules(rules, chosen.rules))
    return chosen if baseline is None else replace(chosen, known=read_baseline(baseline))


def _day(text: str | None) -> datetime.date:
    from ..lint.config import parse_day

    try:
        return parse_day(text) if text is not None else datetime.datetime.now(datetime.UTC).date()
    except UsageError as e:
        raise UsageError(f"--date {e}") from None


def _registry_of(store: str | None) -> tuple[str, ...]:
    """The registry of the store that is named; none where no store is, or it has not got one yet."""
    if store is None:
        return ()
    from ..store import Store

    with Store(store_path(store)) as opened:
        registry = opened.settings().get("registry")
    return (registry,) if registry else ()


def _lint(
    targets: list[str], options: LintOptions, store: str | None, actor: tuple[str | None, str | None], cancel: Cancel
) -> LintResult:
    from ..lint.targets import joined, lint_paths, lint_references
    from ..sources import is_path

    # Without --store a name is one of the store's only where no file can be meant.
    paths = [each for each in targets if is_path(each, among_names=store is not None) or (store is None and "/" not in each)]
    names = [each for each in targets if each not in paths]
    results = [lint_paths(paths, options, cancel)] if paths else []
    if names:
        from ..store import Store

        results.append(lint_references(lambda: Store(store_of_names(store, names[0])), names, options, actor, cancel))
    return joined(results)


def _printed(format: LintFormat, result: LintResult, language: Lang, threshold: Level) -> str:
    from .. import __version__
    from ..lint import outputs

    if format is LintFormat.JSON:
        return outputs.to_json(result)
    if format is LintFormat.SARIF:
        return outputs.to_sarif(result, language, __version__)
    if format is LintFormat.GITLAB:
        return outputs.to_gitlab(result.counting, language)
    if format is LintFormat.JUNIT:
        return outputs.to_junit(result, language, threshold)
    return _text(result, language)


def _text(result: LintResult, language: Lang) -> str:
    """Each finding with its place and way out, then the counts."""
    lines, findings = [], result.counting
    for one in findings:
        size = f" ({sized(one.bytes, language)})" if one.bytes is not None else ""
        lines += _head(f"{one.location}:", f"{word(one.level.value, language)} {one.rule}{size}")
        if one.image and one.snippet:
            lines.append(rows_cut(f"  {labelled('step', one.snippet, language)}"))
        lines += fitted(one.text(language), way_out(one, language))
    told = [f"{word('files', language)} {len(result.files)}"]
    told += [f"{word('images', language)} {len(result.images)}"] if result.images else []
    accepted = [one.accepted for one in result.findings if one.accepted]
    told += lint_counts([one.level for one in findings], accepted, language)
    return "\n".join([*lines, ", ".join(told)])


def _head(place: str, what: str) -> list[str]:
    """Where and what in one line, or in several where the terminal's lines are shorter; what stays in one of them."""
    columns = terminal()
    *lines, last = hanging(place)
    return [*lines, f"{last} {what}"] if columns is None or width(f"{last} {what}") <= columns else [*lines, last, f"  {what}"]


def _listing(language: Lang) -> str:
    """The rules below the practices of the guide that they are about, each with what it finds."""
    from ..lint.catalog import RULES

    lines: list[str] = []
    for heading, rules in groupby(RULES, key=lambda one: one.heading(language)):
        lines += ["", heading or word("not in the guide", language)]
        for one in rules:
            forms = ", ".join(word(form, language) for form in one.forms)
            lines.append(f"  {one.id}  {word(one.level.value, language)}  {forms}")
            lines += fitted(plain(one.text(language)), indent="    ")
    return "\n".join(lines[1:])
