"""`swrbatch lint`."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ExitCode, Lang, UsageError, printable
from .options import LangOption, Language, Severity, exits, lang, show
from .text import fitted, way_out, word

if TYPE_CHECKING:
    from ..lint.rule import Finding

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
    paths: Annotated[list[str] | None, typer.Argument(metavar="PATH...", help="Dockerfiles, or folders that hold some.")] = None,
    rules: Annotated[
        str | None, typer.Option("--rules", metavar="a,b|-a,-b", help="These rules alone, or all but these.")
    ] = None,
    format: Annotated[LintFormat, typer.Option("--format", help="text for people, the others for programs.")] = LintFormat.TEXT,
    fail_on: Annotated[Severity, typer.Option("--fail-on", help="End with 1 from this level on.")] = Severity.WARNING,
    baseline: Annotated[
        str | None, typer.Option("--baseline", metavar="FILE", help="Leave out what an earlier --format json told.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the rules.")] = False,
    lang_: LangOption = Language.EN,
) -> None:
    """Check Dockerfiles against the guide's practices (chapter 8). Exit codes: 0 clean, 1 findings, 2 wrong usage."""
    from ..lint.catalog import select_rules
    from ..lint.files import lint_paths
    from ..lint.outputs import read_baseline
    from ..lint.rule import Level

    with exits(lang(lang_)):
        if list_:
            show(_listing(lang(lang_)))
            return
        if not paths:
            raise UsageError("name a Dockerfile or a folder")
        chosen = select_rules(rules)
        known = read_baseline(baseline) if baseline is not None else frozenset()
        files, found = lint_paths(paths, chosen)
        findings = [one for one in found if one.fingerprint not in known]
        show(_printed(format, files, findings, lang(lang_), fail_on, len(found) - len(findings)))
    if any(one.level.rank >= Level(fail_on.value).rank for one in findings):
        raise typer.Exit(int(ExitCode.REJECTED))


def _printed(format: LintFormat, files: list[str], findings: list[Finding], language: Lang, fail_on: Severity, known: int) -> str:
    from .. import __version__
    from ..lint import outputs
    from ..lint.rule import Level

    if format is LintFormat.JSON:
        return outputs.to_json(files, findings)
    if format is LintFormat.SARIF:
        return outputs.to_sarif(findings, language, __version__)
    if format is LintFormat.GITLAB:
        return outputs.to_gitlab(findings, language)
    if format is LintFormat.JUNIT:
        return outputs.to_junit(files, findings, language, Level(fail_on.value))
    return _text(files, findings, language, known)


def _text(files: list[str], findings: list[Finding], language: Lang, known: int) -> str:
    """Each finding with its place and way out, then the counts."""
    lines = []
    for one in findings:
        lines.append(f"{printable(one.path)}:{one.line}: {word(one.level.value, language)} {one.rule}")
        lines += fitted(one.text(language), way_out(one, language))
    counts = [(level, sum(one.level.value == level for one in findings)) for level in ("error", "warning", "info")]
    told = ", ".join(f"{word(level, language)} {count}" for level, count in counts)
    left_out = f", {word('known', language)} {known}" if known else ""
    return "\n".join([*lines, f"{word('files', language)} {len(files)}, {told}{left_out}"])


def _listing(language: Lang) -> str:
    from ..lint.catalog import RULES
    from .text import table

    head = [word(text, language) for text in ("rule", "level", "practice")]
    return table(head, [(one.id, word(one.level.value, language), one.section) for one in RULES])
