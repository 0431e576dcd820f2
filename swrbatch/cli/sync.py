"""`swrbatch sync`."""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from typing import Annotated, Any

import typer

from ..errors import ExitCode, Lang
from .options import (
    AccountOption,
    Conflict,
    DryRun,
    Format,
    FormatOption,
    LangOption,
    Language,
    ManifestsOption,
    PatchOnly,
    UserOption,
    cancelled_by_signals,
    check_manifests,
    exits,
    lang,
    show,
)

app = typer.Typer(rich_markup_mode=None)


@app.command("sync")
def sync(
    source: Annotated[str, typer.Option("--from", metavar="DIR", help="The store that is copied from.")],
    to: Annotated[str, typer.Option("--to", metavar="DIR", help="The store that receives; made at need.")],
    patterns: Annotated[
        list[str] | None, typer.Argument(metavar="[ORG/REPO[:TAG]]...", help="Globs of repositories or tags; all without any.")
    ] = None,
    on_conflict: Annotated[Conflict, typer.Option("--on-conflict", help="A tag that has another image.")] = Conflict.OVERWRITE,
    create_org: Annotated[
        bool, typer.Option("--create-org/--no-create-org", help="Create missing organizations, within the quota.")
    ] = True,
    manifests: ManifestsOption = None,
    patch_only: PatchOnly = False,
    dry_run: DryRun = False,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """Copy images from one store to another: only what is missing there, every byte verified.

    Interrupted, it goes on where it was when it runs again. Exit code 1 when an image was rejected.
    """
    from ..actors import DEFAULT_ACCOUNT, current_actor
    from ..store import Store
    from ..sync import sync_stores
    from ..triggers import run_triggers

    with exits(lang(lang_)), ExitStack() as stack:
        check_manifests(manifests, patch_only)
        opened = stack.enter_context(Store(source))
        if dry_run and not Store.exists(to):
            # A new store, as the sync would make it.
            to = stack.enter_context(tempfile.TemporaryDirectory(prefix="swrbatch-plan-"))
        target = stack.enter_context(Store(to, create=True))
        cancel = stack.enter_context(cancelled_by_signals())
        own = target.settings().get("account") or opened.settings().get("account")
        actor = current_actor(account or own or DEFAULT_ACCOUNT, user)
        done = sync_stores(
            opened,
            target,
            actor,
            patterns or (),
            on_conflict=on_conflict.value,
            create_org=create_org,
            dry_run=dry_run,
            cancel=cancel,
        )
        set_off: list[Any] = []
        if manifests is not None and not dry_run:
            set_off = run_triggers(target, manifests, actor=actor, patch_only=patch_only, cancel=cancel)
    show(_json(done, set_off, dry_run) if format is Format.JSON else _text(done, set_off, dry_run, lang(lang_)))
    rejected = any(each.status == "rejected" for each in done)
    raise typer.Exit(int(ExitCode.REJECTED if rejected else ExitCode.OK))


def _json(done: list[Any], set_off: list[Any], dry_run: bool) -> str:
    from .text import issue_values

    rows = []
    for each in done:
        row = asdict(each)
        row["issues"] = [issue_values(found) for found in each.issues]
        rows.append(row)
    return json.dumps({"dry_run": dry_run, "images": rows, "triggers": [asdict(run) for run in set_off]}, ensure_ascii=False)


def _text(done: list[Any], set_off: list[Any], dry_run: bool, language: Lang) -> str:
    from ..sizes import counted, format_size
    from .text import table, trigger_lines, way_out, word

    moved = [each for each in done if each.status != "unchanged"]
    parts = []
    if moved:
        head = [word(text, language) for text in ("image", "status", "size")]
        parts.append(table(head, [(each.name, word(each.status, language), format_size(each.bytes)) for each in moved]))
    for each in moved:
        for found in each.issues:
            parts.append(f"{word(found.severity.value, language)} {found.code} {each.name}: {found.text(language)}")
            parts.append(f"  {way_out(found, language)}")
    same = len(done) - len(moved)
    copied = format_size(sum(each.bytes for each in done))
    parts.append(f"{counted(len(done), 'image')}, {same} unchanged, {copied} {'would be ' if dry_run else ''}copied")
    return "\n".join([*parts, *trigger_lines(set_off)])
