"""`swrbatch inspect`."""

from __future__ import annotations

import enum
from typing import Annotated, Any

import typer

from ..digest import Cancel
from ..errors import ExitCode, to_json_text
from .options import (
    AccountOption,
    Format,
    FormatOption,
    LangOption,
    Language,
    StoreOption,
    UserOption,
    cancelled_by_signals,
    exits,
    lang,
    show,
    store_of_names,
    tell,
)

app = typer.Typer(rich_markup_mode=None)


class Compat(enum.StrEnum):
    """Whose numbers are shown beside ours."""

    DIVE = "dive"


@app.command("inspect")
def inspect(
    source: Annotated[
        str, typer.Argument(metavar="ARCHIVE|REF", help="An archive (- for standard input), or ORG/REPO:TAG of the store.")
    ],
    layers: Annotated[
        bool, typer.Option("--layers", help="Show each layer: what it changed, and the steps of the history.")
    ] = False,
    files: Annotated[
        bool, typer.Option("--files", help="List the files that each layer added (A), changed (C) and deleted (D).")
    ] = False,
    compat: Annotated[Compat | None, typer.Option("--compat", help="Show that program's numbers too.")] = None,
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    language: LangOption = Language.EN,
) -> None:
    """Look inside an archive or a stored image: config, layers, efficiency, waste.

    What is a file is read as an archive, all of its images; other arguments name an image of the store. Whether an archive's
    digests are true is for check to say. Bytes are those of regular files; efficiency is the final tree's share of all layers'.
    Values that look like secrets are shown as ***.
    """
    with exits(lang(language)), cancelled_by_signals() as cancel:
        result = _look(source, files, compat, store, user, account, cancel)
        _print(result, layers=layers or files, format=format, language=language)
    raise typer.Exit(int(ExitCode.REJECTED if result.failed else ExitCode.OK))


def _look(
    source: str, files: bool, compat: Compat | None, store: str | None, user: str | None, account: str | None, cancel: Cancel
) -> Any:
    from ..inspect.images import Wanted, inspect_archive
    from ..sources import is_path

    wanted = Wanted(files=files, dive=compat is Compat.DIVE)
    if is_path(source, among_names=store is not None):
        return inspect_archive(source, wanted, cancel)
    from ..inspect.stored import inspect_stored
    from ..store import Store

    with Store(store_of_names(store, source)) as opened:
        actor = opened.actor(user, account)
        return inspect_stored(opened, source, wanted, actor, cancel)


def _print(result: Any, *, layers: bool, format: Format, language: Language) -> None:
    from .inspect_text import to_json, to_text
    from .text import issue_lines

    if format is Format.JSON:
        show(to_json_text(to_json(result)))
    elif result.images:
        show(to_text(result, layers=layers, language=lang(language)))
    for found in result.issues:
        tell(*issue_lines(found, lang(language)))
