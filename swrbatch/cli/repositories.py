"""`swrbatch repo …`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from . import acts
from .batch import NamingOption, NamingRule
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
repo = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Repositories: create, list, show, edit, delete.")
app.add_typer(repo, name="repo")
Path = Annotated[str, typer.Argument(metavar="ORG/REPO", help="The repository.")]
Public = Annotated[bool | None, typer.Option("--public/--private", help="Who may download: everybody, or who is allowed to.")]
Category = Annotated[
    str | None,
    typer.Option("--category", help="app_server, linux, windows, arm, framework_app, database, lang, other; or in Chinese."),
]
Description = Annotated[str | None, typer.Option("--description", metavar="TEXT", help="0 to 30,000 characters.")]


def _attributes(public: bool | None, category: str | None, description: str | None) -> dict[str, Any]:
    from ..policy import parse_category

    with exits():
        chosen = None if category is None else parse_category(category)
        return {"is_public": public, "category": chosen, "description": description}


@repo.command("create")
def create(
    path: Path,
    public: Public = None,
    category: Category = None,
    description: Description = None,
    naming: NamingOption = NamingRule.GUIDE,
    dry_run: DryRun = False,
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """Create an empty repository, private unless --public is given."""
    from ..ledger.repositories import create_repository

    given = locals()
    attributes = _attributes(public, category, description)
    with acts.change(given) as act:
        made = create_repository(act, acts.path_of(path, judged=False), naming=naming.value, **attributes)
    acts.show_change(made, given)


@repo.command("list")
def list_(
    org: Annotated[str | None, typer.Option("--org", metavar="ORG", help="Only those of this organization.")] = None,
    shared_by_me: Annotated[bool, typer.Option("--shared-by-me", help="Only those that the account shares.")] = False,
    shared_with: Annotated[
        str | None,
        typer.Option("--shared-with", metavar="ACCOUNT", help="Only those shared with ACCOUNT; the own one: by others."),
    ] = None,
    limit: Limit = 50,
    marker: Marker = "",
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """List the repositories that the actor may download: own, public and shared ones."""
    from ..ledger.repositories import list_repositories

    given = locals()
    with acts.look(given) as act:
        rows = list_repositories(
            act, limit=limit + 1, marker=marker, organization=org, shared_by_me=shared_by_me, shared_with=shared_with
        )
    columns = {"repository": "name", "account": "account", "public": "is_public", "category": "category", "tags": "tags"}
    acts.show_page(rows, given, {**columns, "level": "level", "shared to me": "shared", "created": "created"}, key="name")


@repo.command("show")
def show(
    path: Path,
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """Show a repository: its attributes, how many tags it has, and the actor's level."""
    from ..ledger.repositories import show_repository

    given = locals()
    with acts.look(given) as act:
        row = show_repository(act, acts.path_of(path))
    acts.show_one(row, given)


@repo.command("edit")
def edit(
    path: Path,
    public: Public = None,
    category: Category = None,
    description: Description = None,
    dry_run: DryRun = False,
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """Set a repository's attributes (guide 4.5); what is not given stays."""
    from ..errors import UsageError
    from ..ledger.repositories import edit_repository

    given = locals()
    attributes = _attributes(public, category, description)
    with acts.change(given) as act:
        if all(value is None for value in attributes.values()):
            raise UsageError("nothing to edit: give --public, --private, --category or --description")
        made = edit_repository(act, acts.path_of(path), **attributes)
    acts.show_change(made, given)


@repo.command("delete")
def delete(
    path: Path,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: DryRun = False,
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """Delete a repository with all its tags, permissions and shares; its blobs stay until gc."""
    from ..ledger.deletions import delete_repository

    given = locals()
    with exits():
        acts.confirm_yes(yes, f"delete {acts.path_of(path)} with all its tags", dry_run=dry_run)
    with acts.change(given, deleting=True) as act:
        made = delete_repository(act, path)
    acts.show_change(made, given)
