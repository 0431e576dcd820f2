"""`swrbatch admin …`."""

from __future__ import annotations

from typing import Annotated

import typer

from . import acts
from .options import AccountOption, DryRun, Format, FormatOption, LangOption, Language, Limit, Marker, StoreOption, UserOption

app = typer.Typer(rich_markup_mode=None)
admin = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Account administrators: add, list, remove.")
app.add_typer(admin, name="admin")
Name = Annotated[str, typer.Argument(metavar="USER", help="A user of the actor's account.")]


@admin.command("add")
def add(
    name: Name,
    dry_run: DryRun = False,
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """Make a user an administrator: they manage everything of the account without being listed (guide 6)."""
    from ..ledger.access import add_administrator

    given = locals()
    with acts.change(given) as act:
        made = add_administrator(act, acts.name_of("user", name))
    acts.show_change(made, given)


@admin.command("list")
def list_(
    limit: Limit = 50,
    marker: Marker = "",
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """List the administrators of the account."""
    from ..ledger.access import list_administrators

    given = locals()
    with acts.look(given) as act:
        rows = list_administrators(act, limit=limit + 1, marker=marker)
    acts.show_page(rows, given, {"account": "account", "user": "user", "since": "created"}, key="user")


@admin.command("remove")
def remove(
    name: Name,
    dry_run: DryRun = False,
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """Take an administrator's rights away; the last one of an account stays."""
    from ..ledger.access import remove_administrator

    given = locals()
    with acts.change(given) as act:
        made = remove_administrator(act, acts.name_of("user", name))
    acts.show_change(made, given)
