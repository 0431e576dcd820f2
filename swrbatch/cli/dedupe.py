"""`swrbatch dedupe`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ExitCode, UsageError, has_errors, to_json_text
from .options import (
    AccountOption,
    Format,
    FormatOption,
    LangOption,
    Language,
    UserOption,
    cancelled_by_signals,
    exits,
    lang,
    show,
    store_path,
    tell,
)

if TYPE_CHECKING:
    from ..digest import Cancel
    from ..errors import Issue, Lang
    from ..inspect.duplicates import FileSharing
    from ..inspect.files import LayerFiles
    from ..inspect.sharing import ImageLayers, Sharing

app = typer.Typer(rich_markup_mode=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What is looked at: archives, or a store and who asks it."""

    archives: tuple[str, ...]
    store: str | None
    user: str | None
    account: str | None


@app.command("dedupe")
def dedupe(
    archives: Annotated[
        list[str] | None, typer.Argument(metavar="ARCHIVE", help="Files, folders (searched), globs, @list.txt, - for stdin.")
    ] = None,
    store: Annotated[str | None, typer.Option("--store", metavar="DIR", help="All images of this store instead.")] = None,
    files: Annotated[
        bool, typer.Option("--files", help="Read each layer once and compare its files, too: duplicates, candidates for a base.")
    ] = False,
    report: Annotated[str | None, typer.Option("--report", metavar="DIR", help="Write the result as Parquet below DIR.")] = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    language: LangOption = Language.EN,
) -> None:
    """Show what the images of a batch share: layers, with --files also files; what that saves, and their common bases.

    Sizes of layers are those as they are stored, sizes of files their own. Without --files no layer is read.
    """
    with exits():
        if bool(archives) == (store is not None):
            raise UsageError("name archives, or a store with --store, not both")
        if report == "":
            raise UsageError("--report is empty: name a folder (is a variable unset?)")
    with exits(lang(language)), cancelled_by_signals() as cancel:
        batch = Batch(archives=tuple(archives or ()), store=store, user=user, account=account)
        sharing, found, issues = _look(batch, files, report, cancel)
        _show(sharing, found, format, lang(language))
        from .text import issue_lines

        for each in issues:
            if each.is_error:
                tell(*issue_lines(each, lang(language)))
    raise typer.Exit(int(ExitCode.REJECTED if has_errors(issues) else ExitCode.OK))


def _look(batch: Batch, with_files: bool, report: str | None, cancel: Cancel) -> tuple[Sharing, FileSharing | None, list[Issue]]:
    from ..cts import new_run_id, now_ms
    from ..inspect.sharing import find_sharing

    began = now_ms()
    run = (new_run_id(began), began, batch.store)
    if not with_files:
        images, issues = _images(batch, cancel, None)
        sharing = find_sharing(images)
        if report is not None:
            from ..inspect.sharing_report import write_sharing

            write_sharing(report, run, sharing, None, ())
        return sharing, None, issues
    from ..inspect.duplicates import counting
    from ..inspect.files import LayerFiles

    with LayerFiles(cancel) as layers:
        images, issues = _images(batch, cancel, layers)
        layers.finish()
        sharing = find_sharing(images)
        with counting(layers, images, cancel) as counts:
            found = counts.sharing()
            if report is not None:
                from ..inspect.sharing_report import write_sharing

                write_sharing(report, run, sharing, found, counts.duplicates())
    return sharing, found, issues


def _images(batch: Batch, cancel: Cancel, files: LayerFiles | None) -> tuple[list[ImageLayers], list[Issue]]:
    from ..inspect.batch import layers_of_archives, layers_of_store
    from ..sources import expand
    from ..store import Store

    if batch.store is None:
        return layers_of_archives(expand(batch.archives), cancel, files)
    with Store(store_path(batch.store)) as opened:
        actor = opened.actor(batch.user, batch.account)
        return layers_of_store(opened, actor, cancel, files)


def _show(sharing: Sharing, files: FileSharing | None, format: Format, language: Lang) -> None:
    from .dedupe_text import to_json, to_text

    show(to_json_text(to_json(sharing, files)) if format is Format.JSON else to_text(sharing, files, language))
