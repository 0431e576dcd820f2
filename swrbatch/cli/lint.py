"""`swrbatch lint`."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated

import typer

from ..digest import Cancel
from ..errors import ExitCode, Lang, UsageError, printable
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
    store_path,
)
from .text import fitted, issue_lines, way_out, word

if TYPE_CHECKING:
    from ..lint.rule import Finding
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
            help="Dockerfiles, archives, workloads (YAML), folders that hold some; images of a store as ORG/REPO:TAG or a glob.",
        ),
    ] = None,
    store: Annotated[str | None, typer.Option("--store", metavar="DIR", help="The store of the names; * is all of it.")] = None,
    user: UserOption = None,
    account: AccountOption = None,
    rules: Annotated[
        str | None, typer.Option("--rules", metavar="a,b|-a,-b", help="These rules alone, or all but these.")
    ] = None,
    format: Annotated[LintFormat, typer.Option("--format", help="text for people, the others for programs.")] = LintFormat.TEXT,
    fail_on: Annotated[Severity, typer.Option("--fail-on", help="End with 1 from this level on.")] = Severity.WARNING,
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
    from ..lint.outputs import read_baseline
    from ..lint.rule import Level

    with exits():
        if list_:
            show(_listing(lang(lang_)))
            return
        if not targets:
            raise UsageError("name a Dockerfile, an archive, a manifest or a folder, or an image of a store")
        known = read_baseline(baseline) if baseline is not None else frozenset()
        options = _options(rules, date, tuple(registry or ()) or _registry_of(store))
    with exits(lang(lang_)), cancelled_by_signals() as cancel:
        result = _lint(targets, options, store, (user, account), cancel)
        findings = [one for one in result.findings if one.fingerprint not in known]
        show(_printed(format, result, findings, lang(lang_), fail_on))
        for found in result.issues:
            if found.is_error:
                typer.echo("\n".join(issue_lines(found, lang(lang_))), err=True)
    if result.failed or any(one.level.rank >= Level(fail_on.value).rank for one in findings):
        raise typer.Exit(int(ExitCode.REJECTED))


def _options(rules: str | None, date: str | None, registries: tuple[str, ...]) -> LintOptions:
    import datetime

    from ..lint.catalog import select_rules
    from ..lint.targets import LintOptions
    from ..lint.workload_rules import HOSTS

    try:
        today = datetime.date.fromisoformat(date) if date is not None else datetime.datetime.now(datetime.UTC).date()
    except ValueError as e:
        raise UsageError(f"--date {printable(date)} is no day: write YYYY-MM-DD") from e
    return LintOptions(rules=select_rules(rules), today=today, registries=registries or HOSTS)


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

        results.append(lint_references(lambda: Store(store_path(store)), names, options, actor, cancel))
    return joined(results)


def _printed(format: LintFormat, result: LintResult, findings: list[Finding], language: Lang, fail_on: Severity) -> str:
    from .. import __version__
    from ..lint import outputs
    from ..lint.rule import Level

    if format is LintFormat.JSON:
        return outputs.to_json(result, findings)
    if format is LintFormat.SARIF:
        return outputs.to_sarif(findings, language, __version__)
    if format is LintFormat.GITLAB:
        return outputs.to_gitlab(findings, language)
    if format is LintFormat.JUNIT:
        return outputs.to_junit(result, findings, language, Level(fail_on.value))
    return _text(result, findings, language)


def _text(result: LintResult, findings: list[Finding], language: Lang) -> str:
    """Each finding with its place and way out, then the counts."""
    from ..sizes import format_size

    lines = []
    for one in findings:
        size = f" ({format_size(one.bytes)})" if one.bytes is not None else ""
        lines.append(f"{one.location}: {word(one.level.value, language)} {one.rule}{size}")
        lines += fitted(one.text(language), way_out(one, language))
    counts = [(level, sum(one.level.value == level for one in findings)) for level in ("error", "warning", "info")]
    told = [f"{word('files', language)} {len(result.files)}"]
    told += [f"{word('images', language)} {len(result.images)}"] if result.images else []
    told += [f"{word(level, language)} {count}" for level, count in counts]
    known = len(result.findings) - len(findings)
    told += [f"{word('known', language)} {known}"] if known else []
    return "\n".join([*lines, ", ".join(told)])


def _listing(language: Lang) -> str:
    from ..lint.catalog import RULES
    from .text import table

    head = [word(text, language) for text in ("rule", "level", "forms", "practice")]
    rows = [(one.id, word(one.level.value, language), ", ".join(one.forms), one.section) for one in RULES]
    return table(head, rows)
