"""`swrbatch grant …`."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from ..errors import UsageError
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
grant = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Permissions: set, list, revoke.")
app.add_typer(grant, name="grant")


class LevelName(enum.StrEnum):
    """The levels that can be granted (guide 6)."""

    READ = "read"
    EDIT = "edit"
    MANAGE = "manage"


Org = Annotated[str | None, typer.Option("--org", metavar="ORG", help="On this organization, with all its repositories.")]
Repo = Annotated[str | None, typer.Option("--repo", metavar="ORG/REPO", help="On this repository.")]
To = Annotated[str, typer.Option("--to", metavar="USER", help="A user of the organization's account.")]


def _target(org: str | None, repo: str | None) -> str:
    if (org is None) == (repo is None):
        raise UsageError("give either --org ORG or --repo ORG/REPO")
    return acts.organization_of(org) if org is not None else acts.path_of(repo or "")


@grant.command("set")
def set_(
    to: To,
    level: Annotated[LevelName, typer.Option("--level", help="read, edit or manage.")],
    org: Org = None,
    repo: Repo = None,
    dry_run: DryRun = False,
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """Give a user a level on an organization or a repository, in place of the one they have there."""
    from ..ledger.access import set_grant
    from ..rights import LEVELS

    given = locals()
    with acts.change(given) as act:
        made = set_grant(act, _target(org, repo), acts.name_of("user", to), LEVELS[level.value])
    acts.show_change(made, given)


@grant.command("list")
def list_(
    org: Org = None,
    repo: Repo = None,
    limit: Limit = 50,
    marker: Marker = "",
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """List the permissions on an organization or a repository; administrators have theirs without being listed."""
    from ..ledger.access import list_grants

    given = locals()
    with acts.look(given) as act:
        rows = list_grants(act, _target(org, repo), limit=limit + 1, marker=marker)
    acts.show_page(rows, given, {"on": "name", "account": "account", "user": "user", "level": "level"}, key="user")


@grant.command("revoke")
def revoke(
    to: To,
    org: Org = None,
    repo: Repo = None,
    confirm: Annotated[str | None, typer.Option("--confirm", metavar="DELETE", help="The word DELETE.")] = None,
    dry_run: DryRun = False,
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """Take a user's permission on an organization or a repository away; the word DELETE confirms it (guide 6)."""
    from ..ledger.access import revoke_grant

    given = locals()
    with exits():
        path = _target(org, repo)
        acts.confirm_word(confirm, f"revoke the permission of {acts.name_of('user', to)} on {path}", dry_run=dry_run)
    with acts.change(given) as act:
        made = revoke_grant(act, path, to)
    acts.show_change(made, given)
