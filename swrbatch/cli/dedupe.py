"""`swrbatch dedupe`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from ..errors import ExitCode, UsageError, has_errors
from .options import AccountOption, Format, FormatOption, UserOption, cancelled_by_signals, exits, show, store_path

app = typer.Typer(rich_markup_mode=None)
_SHOWN = 20


@app.command("dedupe")
def dedupe(
    archives: Annotated[
        list[str] | None, typer.Argument(metavar="ARCHIVE", help="Files, folders (searched), globs, @list.txt, - for stdin.")
    ] = None,
    store: Annotated[str | None, typer.Option("--store", metavar="DIR", help="All images of this store instead.")] = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Show which layers the images of a batch share: bytes saved by storing each once, and their common bases.

    Sizes are those of layers as they are stored. No layer is read.
    """
    with exits():
        if bool(archives) == (store is not None):
            raise UsageError("name archives, or a store with --store, not both")
    with exits(), cancelled_by_signals() as cancel:
        images, issues = _images(archives or [], store, user, account, cancel)
        from ..inspect.sharing import find_sharing
        from .text import issue_lines

        sharing = find_sharing(images)
        show(json.dumps(_to_json(sharing), ensure_ascii=False) if format is Format.JSON else _to_text(sharing))
        for found in issues:
            if found.is_error:
                typer.echo("\n".join(issue_lines(found, "en")), err=True)
    raise typer.Exit(int(ExitCode.REJECTED if has_errors(issues) else ExitCode.OK))


def _images(archives: list[str], store: str | None, user: str | None, account: str | None, cancel: Any) -> tuple[Any, Any]:
    from ..inspect.batch import layers_of_archives, layers_of_store
    from ..sources import expand
    from ..store import Store

    if store is None:
        return layers_of_archives(expand(archives), cancel)
    with Store(store_path(store)) as opened:
        actor = opened.actor(user, account)
        return layers_of_store(opened, actor, cancel), []


def _to_json(sharing: Any) -> dict[str, Any]:
    from ..errors import printable

    return {
        **{name: getattr(sharing, name) for name in ("images", "layers", "bytes", "distinct_layers", "distinct_bytes")},
        "saved_bytes": sharing.saved_bytes,
        "shared_layers": [
            {
                "diff_id": str(each.diff_id),
                "bytes": each.size,
                "saved_bytes": each.saved_bytes,
                "images": [printable(name) for name in each.images],
            }
            for each in sharing.shared
        ],
        "common_bases": [
            {
                "layers": each.layers,
                "bytes": each.size,
                "top_diff_id": str(each.top),
                "images": [printable(name) for name in each.images],
            }
            for each in sharing.bases
        ],
    }


def _to_text(sharing: Any) -> str:
    from ..errors import printable
    from ..sizes import counted, format_size
    from .text import table

    saved, every = format_size(sharing.saved_bytes), format_size(sharing.bytes)
    parts = [
        f"{counted(sharing.images, 'image')}, {counted(sharing.layers, 'layer')} of which {sharing.distinct_layers} distinct: "
        f"{saved} of {every} saved by storing each once"
    ]
    if sharing.shared:
        rows = [
            (str(each.diff_id)[7:19], format_size(each.size), str(len(each.images)), format_size(each.saved_bytes))
            for each in sharing.shared[:_SHOWN]
        ]
        parts.append(table(("shared layer", "size", "images", "saves"), rows))
    for each in sharing.bases[:_SHOWN]:
        names = "\n".join(f"  {printable(name)}" for name in each.images[:_SHOWN])
        more = f"\n  … {len(each.images) - _SHOWN} more" if len(each.images) > _SHOWN else ""
        head = f"common base of {counted(len(each.images), 'image')}: {counted(each.layers, 'layer')}, {format_size(each.size)}"
        parts.append(f"{head}, up to {str(each.top)[7:19]}\n{names}{more}")
    return "\n\n".join(parts)
