"""`swrbatch share …`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..errors import UsageError
from . import acts
from .options import AccountOption, DryRun, Format, FormatOption, LangOption, Language, Limit, Marker, StoreOption, UserOption

app = typer.Typer(rich_markup_mode=None)
share = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Sharing with other accounts: add, list, edit, remove.")
app.add_typer(share, name="share")
Path = Annotated[str, typer.Argument(metavar="ORG/REPO", help="The private repository.")]
With = Annotated[str, typer.Option("--with", metavar="ACCOUNT", help="The account that may download it.")]
_UNTIL = "A time in UTC such as 2026-12-31T00:00:00Z, or forever."


@share.command("add")
def add(
    path: Path,
    with_: With,
    until: Annotated[str, typer.Option("--until", metavar="TIME|forever", help=_UNTIL)],
    description: Annotated[str, typer.Option("--description", metavar="TEXT", help="0 to 1,000 characters.")] = "",
    dry_run: DryRun = False,
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """Share a private repository with another account, to download (guide 4.6); 500 accounts at most."""
    from ..ledger.shares import Terms, add_share, parse_deadline

    given = locals()
    with acts.change(given) as act:
        terms = Terms(deadline_ms=parse_deadline(until), description=description)
        made = add_share(act, acts.path_of(path), acts.name_of("account", with_), terms)
    acts.show_change(made, given)


@share.command("list")
def list_(
    path: Path,
    limit: Limit = 50,
    marker: Marker = "",
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """List whom a repository is shared with, until when, and whether that is past."""
    from ..ledger.shares import list_shares

    given = locals()
    with acts.look(given) as act:
        rows = list_shares(act, acts.path_of(path), limit=limit + 1, marker=marker)
    columns = {"shared with": "account", "permission": "permit", "until": "deadline", "state": "state", "by": "by"}
    acts.show_page(rows, given, {**columns, "description": "description"}, key="account")


@share.command("edit")
def edit(
    path: Path,
    with_: With,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME|forever", help=_UNTIL)] = None,
    description: Annotated[str | None, typer.Option("--description", metavar="TEXT", help="0 to 1,000 characters.")] = None,
    dry_run: DryRun = False,
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """Change the deadline or the description of a share; what is not given stays."""
    from ..ledger.shares import edit_share, parse_deadline

    given = locals()
    with acts.change(given) as act:
        terms: dict[str, Any] = {} if until is None else {"deadline_ms": parse_deadline(until)}
        terms |= {} if description is None else {"description": description}
        if not terms:
            raise UsageError("nothing to edit: give --until or --description")
        made = edit_share(act, acts.path_of(path), acts.name_of("account", with_), **terms)
    acts.show_change(made, given)


@share.command("remove")
def remove(
    path: Path,
    with_: With,
    dry_run: DryRun = False,
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """Stop sharing a repository with an account."""
    from ..ledger.shares import remove_share

    given = locals()
    with acts.change(given) as act:
        made = remove_share(act, acts.path_of(path), acts.name_of("account", with_))
    acts.show_change(made, given)
