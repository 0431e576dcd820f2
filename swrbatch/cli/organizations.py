"""`swrbatch org …`."""

from __future__ import annotations

from typing import Annotated

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
org = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Organizations: create, list, show, delete.")
app.add_typer(org, name="org")
Org = Annotated[str, typer.Argument(metavar="ORG", help="The organization's name.")]


@org.command("create")
def create(
    name: Org,
    naming: NamingOption = NamingRule.GUIDE,
    dry_run: DryRun = False,
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """Create an organization; its creator manages it. Names are unique in a region; a user may create 5 (guide 5, 9.1.5)."""
    from ..ledger.organizations import create_organization

    given = locals()
    with acts.change(given) as act:
        made = create_organization(act, name, naming=naming.value)
    acts.show_change(made, given)


@org.command("list")
def list_(
    limit: Limit = 50,
    marker: Marker = "",
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """List the organizations of the account in which the actor may see something."""
    from ..ledger.organizations import list_organizations

    given = locals()
    with acts.look(given) as act:
        rows = list_organizations(act, limit=limit + 1, marker=marker)
    columns = {"organization": "name", "owner": "owner", "repositories": "repositories", "level": "level", "created": "created"}
    acts.show_page(rows, given, columns, key="name")


@org.command("show")
def show(
    name: Org,
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """Show an organization: its owner, how many repositories it has, and the actor's level."""
    from ..ledger.organizations import show_organization

    given = locals()
    with acts.look(given) as act:
        row = show_organization(act, acts.organization_of(name))
    acts.show_one(row, given)


@org.command("delete")
def delete(
    name: Org,
    confirm: Annotated[str | None, typer.Option("--confirm", metavar="DELETE", help="The word DELETE.")] = None,
    dry_run: DryRun = False,
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """Delete an organization that holds no image; the word DELETE confirms it (guide 5)."""
    from ..ledger.organizations import delete_organization

    given = locals()
    with exits():
        acts.confirm_word(confirm, f"delete the organization {acts.organization_of(name)}", dry_run=dry_run)
    with acts.change(given) as act:
        made = delete_organization(act, name)
    acts.show_change(made, given)
