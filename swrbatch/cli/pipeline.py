"""`swrbatch run`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Annotated, Any, Final

import typer

from ..errors import UsageError, printable
from .options import DryRun, Format, FormatOption, LangOption, Language, cancelled_by_signals, exits, lang, show, tell

app = typer.Typer(rich_markup_mode=None)
_SIGNS: Final = {"created": "+", "loaded": "+", "written": "+", "updated": "~", "overwritten": "~"} | dict.fromkeys(
    ("rejected", "failed"), "!"
)
_LISTED: Final = 200


@app.command("run")
def run(
    path: Annotated[str, typer.Argument(metavar="PIPELINE.yaml", help="What is to be there, imported and exported.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="What ${KEY} stands for; repeatable.")
    ] = None,
    dry_run: DryRun = False,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """Bring a store to what a pipeline declares: organizations, repositories, rights, shares, triggers, imports, exports.

    Applied twice, the second run changes nothing. --dry-run prints the plan as a difference from the store.
    """
    from ..pipeline import run_pipeline
    from ..pipeline_file import read_pipeline

    with exits(lang(lang_)), cancelled_by_signals() as cancel:
        pipeline = read_pipeline(path, _given(settings or []), os.environ)
        result = run_pipeline(pipeline, dry_run=dry_run, cancel=cancel)
        show(_json(result) if format is Format.JSON else _text(result))
        if result.failure is not None:
            tell(f"swrbatch: {result.failure}")
    raise typer.Exit(int(result.exit_code))


def _given(settings: list[str]) -> dict[str, str]:
    found = {}
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--set {printable(text)}: write KEY=VALUE, a KEY of letters, digits and _")
        found[name] = value
    return found


def _json(result: Any) -> str:
    steps = [asdict(step) for step in result.steps]
    for step in steps:
        for name in ("before", "after"):
            step[name] = None if step[name] is None else json.loads(step[name])
    values = {"run_id": result.run_id, "planned": result.planned, "exit_code": int(result.exit_code), "changes": result.changes}
    return json.dumps({**values, "error": str(result.failure) if result.failure else None, "steps": steps}, ensure_ascii=False)


def _text(result: Any) -> str:
    """The steps that change something, as a difference; how many do not; every refusal with its reason."""
    told = [step for step in result.steps if step.status != "unchanged"]
    lines = [_line(step) for step in told[:_LISTED]]
    if len(told) > _LISTED:
        lines.append(f"… and {len(told) - _LISTED} more (--format json lists them all)")
    counts: dict[str, int] = {}
    for step in result.steps:
        counts[step.status] = counts.get(step.status, 0) + 1
    total = ", ".join(f"{count} {status}" for status, count in counts.items())
    return "\n".join([*lines, f"{'plan' if result.planned else 'done'}: {total or 'nothing is declared'}"])


def _line(step: Any) -> str:
    before, after = (json.loads(text) if text else {} for text in (step.before, step.after))
    detail = step.detail if step.status in ("rejected", "failed", "skipped") else ""
    if step.status == "updated":
        changed = [name for name in after if before.get(name) != after[name]]
        detail = ", ".join(f"{name} {_short(before.get(name))} -> {_short(after[name])}" for name in changed)
    elif step.status == "overwritten":
        detail = f"{_short(before.get('digest'))} -> {_short(after.get('digest'))}" if after.get("digest") else ""
    elif step.kind == "run" and not detail:
        detail = ", ".join(after.get("files", ()))
    return f"{_SIGNS.get(step.status, ' ')} {step.kind} {step.name} {step.status}" + (f": {detail}" if detail else "")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value or '""'
    return printable(text[:19] if text.startswith("sha256:") else text, 60)
