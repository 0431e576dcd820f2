"""`swrbatch tag …`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from . import acts
from .options import (
    AccountOption,
    DryRun,
    Format,
    FormatOption,
    LangOption,
    Language,
    Limit,
    Marker,
    StoreOption,
    UserOption,
    exits,
)

app = typer.Typer(rich_markup_mode=None)
tag = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Tags of a repository: list, show, delete.")
app.add_typer(tag, name="tag")
Reference = Annotated[str, typer.Argument(metavar="ORG/REPO:TAG", help="The tag.")]


def _pulled(row: dict[str, Any], path: str, registry: str) -> dict[str, Any]:
    reference = f"{registry}/{path}:{row['tag']}".removeprefix("/")
    who = {"platform": f"{row['os']}/{row['architecture']}", "by": f"{row['account']}/{row['user']}"}
    return {"reference": reference, **row, **who, "pull": f"docker pull {reference}"}


def _registry(act: Any) -> str:
    from ..ledger.loads import read_settings

    return str(read_settings(act.connection).get("registry", ""))


@tag.command("list")
def list_(
    path: Annotated[str, typer.Argument(metavar="ORG/REPO", help="The repository.")],
    limit: Limit = 50,
    marker: Marker = "",
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """List the tags of a repository: size, digest, platform, who, when, and the command that pulls each."""
    from ..ledger.repositories import list_tags

    given = locals()
    with acts.look(given) as act:
        rows = [_pulled(row, path, _registry(act)) for row in list_tags(act, acts.path_of(path), limit=limit + 1, marker=marker)]
    columns = {"tag": "tag", "size": "stored_bytes", "digest": "digest", "platform": "platform", "by": "by"}
    acts.show_page(rows, given, {**columns, "updated": "updated", "pull": "pull"}, key="tag")


@tag.command("show")
def show(
    reference: Reference,
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """Show a tag: digest, image ID, platform, sizes, where it came from, and the command that pulls it."""
    from ..ledger.repositories import show_tag

    given = locals()
    with acts.look(given) as act:
        path, name = acts.reference_of(reference)
        row = _pulled(show_tag(act, path, name), path, _registry(act))
    acts.show_one(row, given)


@tag.command("delete")
def delete(
    reference: Reference,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: DryRun = False,
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """Delete a tag, and the link that serves it; its blobs stay until gc."""
    from ..ledger.deletions import delete_tag

    given = locals()
    with exits():
        path, name = acts.reference_of(reference)
        acts.confirm_yes(yes, f"delete {reference}", dry_run=dry_run)
    with acts.change(given, deleting=True) as act:
        made = delete_tag(act, path, name)
    acts.show_change(made, given)
