"""Grants and administrators: what `rights.decide` needs to know, read with two queries, and who changes it.

A grant is for a user of the organization's own account; other accounts get shares (guide 6, 4.6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, exists, insert, select, tuple_, update

from ..cts import Actor
from ..errors import Refused, issue
from ..rights import Act, Facts, Level, Sharing, sharing
from .schema import accounts, administrators, organization_grants, organizations, repositories, repository_grants, shares

if TYPE_CHECKING:
    from .acting import Acting, Change, Status

_NAMED: Final = 3
"""Administrators that a refusal names at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The organization, and the repository in it, that an act is about. `repository_id` None: there is no such repository."""

    organization_id: int
    organization: str
    account: str
    repository_id: int | None = None
    facts: Facts


def is_administrator(connection: Connection, account: str, user: str) -> bool:
    """Whether a user is an administrator of an account."""
    there = exists().where(administrators.c.account == account, administrators.c.user == user)
    return bool(connection.execute(select(there)).scalar())


def account_facts(connection: Connection, actor: Actor, account: str) -> Facts:
    """The facts of an act on an account as a whole."""
    return Facts(account=account, administrator=is_administrator(connection, actor.account, actor.user))


def administrators_of(connection: Connection, account: str, most: int = _NAMED) -> tuple[str, ...]:
    """Users that are administrators of an account, the oldest first."""
    statement = select(administrators.c.user).where(administrators.c.account == account)
    found = connection.execute(statement.order_by(administrators.c.created_ms, administrators.c.user).limit(most))
    return tuple(found.scalars())


def make_first_administrator(connection: Connection, actor: Actor, now: int) -> bool:
    """Make the actor an administrator of their account if it has none; whether it did."""
    there = select(exists().where(administrators.c.account == actor.account))
    if connection.execute(there).scalar():
        return False
    connection.execute(insert(administrators).values(account=actor.account, user=actor.user, created_ms=now))
    return True


def granted_to(actor: Actor, table: Table, on: ColumnElement[bool]) -> ColumnElement[bool]:
    """The condition of an outer join with a table of grants that finds the actor's own."""
    return and_(on, table.c.account == actor.account, table.c.user == actor.user)


def find(connection: Connection, actor: Actor, path: str, now: int, *, profile: str = "client") -> Target:
    """What an act on `organization` or `organization/repository` must know.

    Raises `Refused` (organization-unknown). A repository that is not there has facts as a private one without grants.
    """
    organization, _, repository = path.partition("/")
    mine = granted_to(actor, organization_grants, organization_grants.c.organization_id == organizations.c.id)
    row = connection.execute(
        select(organizations.c.id, accounts.c.name, organization_grants.c.level)
        .select_from(organizations.join(accounts).outerjoin(organization_grants, mine))
        .where(organizations.c.name == organization)
    ).first()
    if row is None:
        raise Refused(issue("organization-unknown", place=path, organization=organization))
    facts: dict[str, Any] = {"public": False, "repository": Level.NONE, "sharing": Sharing.ABSENT}
    repository_id = None
    if repository and (found := _repository(connection, actor, row.id, repository)) is not None:
        repository_id = found.id
        facts["public"] = bool(found.is_public)
        facts["repository"] = Level(found.level or 0)
        if found.share_id is not None:
            facts["sharing"] = sharing(found.deadline_ms, now)
    return Target(
        organization_id=row.id,
        organization=organization,
        account=row.name,
        repository_id=repository_id,
        facts=Facts(
            account=row.name,
            name=path,
            administrator=is_administrator(connection, actor.account, actor.user),
            organization=Level(row.level or 0),
            profile=profile,
            **facts,
        ),
    )


def _repository(connection: Connection, actor: Actor, organization_id: int, name: str) -> Any:
    mine = granted_to(actor, repository_grants, repository_grants.c.repository_id == repositories.c.id)
    shared = and_(shares.c.repository_id == repositories.c.id, shares.c.account == actor.account)
    joined = repositories.outerjoin(repository_grants, mine).outerjoin(shares, shared)
    return connection.execute(
        select(
            repositories.c.id,
            repositories.c.is_public,
            repository_grants.c.level,
            shares.c.id.label("share_id"),
            shares.c.deadline_ms,
        )
        .select_from(joined)
        .where(repositories.c.organization_id == organization_id, repositories.c.name == name)
    ).first()


def known_repository(target: Target) -> int:
    """The repository's id; Refused (repository-unknown). To be asked after the right, so that it tells nobody too much."""
    if target.repository_id is None:
        raise Refused(issue("repository-unknown", place=target.facts.name, repository=target.facts.name))
    return target.repository_id


# --- grants ------------------------------------------------------------------------------------------------------------


def _table(target: Target) -> tuple[Any, Any, int]:
    """The table of a target's grants, its key column, and the key."""
    if "/" in target.facts.name:
        return repository_grants, repository_grants.c.repository_id, known_repository(target)
    return organization_grants, organization_grants.c.organization_id, target.organization_id


def set_grant(act: Acting, path: str, user: str, level: Level) -> Change:
    """Give a user of the account a level on an organization or a repository, in place of the one they have there.

    Refused: organization-unknown, repository-unknown.
    """
    request = {"name": path, "user": user, "level": level.name.lower()}
    act.begins(*_grant_event("create", path), request)
    target = find(act.connection, act.actor, path, act.now)
    before = _granted(act.connection, target, user)
    if before is not Level.NONE:
        act.begins(*_grant_event("update", path), request)
    act.require(Act.REPO_GRANT_SET if "/" in path else Act.ORG_GRANT_SET, target.facts)
    table, column, key = _table(target)
    if before is Level.NONE:
        values = {column.name: key, "account": target.account, "user": user, "level": int(level)}
        act.connection.execute(insert(table).values(**values))
    elif before != level:
        mine = (column == key, table.c.account == target.account, table.c.user == user)
        act.connection.execute(update(table).where(*mine).values(level=int(level)))
    status: Status = "created" if before is Level.NONE else "unchanged" if before == level else "updated"
    return act.changed(status, "grant", before=_grant(target, user, before), after=_grant(target, user, level))


def revoke_grant(act: Acting, path: str, user: str) -> Change:
    """Take a user's grant on an organization or a repository away; unchanged when there is none.

    Refused: organization-unknown, repository-unknown.
    """
    act.begins(*_grant_event("delete", path), {"name": path, "user": user})
    target = find(act.connection, act.actor, path, act.now)
    act.require(Act.REPO_GRANT_REVOKE if "/" in path else Act.ORG_GRANT_REVOKE, target.facts)
    table, column, key = _table(target)
    before = _granted(act.connection, target, user)
    act.connection.execute(delete(table).where(column == key, table.c.account == target.account, table.c.user == user))
    status: Status = "unchanged" if before is Level.NONE else "deleted"
    return act.changed(status, "grant", before=_grant(target, user, before), after=None)


def _granted(connection: Connection, target: Target, user: str) -> Level:
    """The level that a user has been granted there; none on a repository that is not there."""
    if "/" in target.facts.name and target.repository_id is None:
        return Level.NONE
    table, column, key = _table(target)
    statement = select(table.c.level).where(column == key, table.c.account == target.account, table.c.user == user)
    return Level(connection.execute(statement).scalar() or 0)


def _grant_event(verb: str, path: str) -> tuple[str, str]:
    return f"{verb}User{'Repository' if '/' in path else 'Namespace'}Auth", path


def _grant(target: Target, user: str, level: Level) -> Mapping[str, Any] | None:
    return {"account": target.account, "user": user, "level": level.name.lower()} if level else None


def end_grants(act: Acting, path: str, key: int) -> None:
    """End all grants on what is about to be deleted: the organization or repository `path`, whose id is `key`."""
    table, column = organization_grants, organization_grants.c.organization_id
    if "/" in path:
        table, column = repository_grants, repository_grants.c.repository_id
    rows = act.connection.execute(select(table).where(column == key).order_by(table.c.account, table.c.user)).all()
    for row in rows:
        act.begins(*_grant_event("delete", path), {"name": path, "user": row.user})
        before = {"account": row.account, "user": row.user, "level": Level(row.level).name.lower()}
        act.changed("deleted", "grant", before=before, after=None)
    act.connection.execute(delete(table).where(column == key))


def list_grants(act: Acting, path: str, *, limit: int, marker: str = "") -> list[dict[str, Any]]:
    """The grants on an organization or a repository, by user: name (of what they are on), account, user, level.

    `limit` rows at most, behind the user `marker`.
    """
    on_repository = "/" in path
    act.begins("showUserRepositoryAuth" if on_repository else "showUserNamespaceAuth", path, {"name": path})
    target = find(act.connection, act.actor, path, act.now)
    act.require(Act.REPO_GRANT_LIST if on_repository else Act.ORG_GRANT_LIST, target.facts)
    table, column, key = _table(target)
    statement = select(table.c.account, table.c.user, table.c.level).where(column == key)
    if marker:
        statement = statement.where(tuple_(table.c.account, table.c.user) > (target.account, marker))
    rows = act.connection.execute(statement.order_by(table.c.account, table.c.user).limit(limit))
    return [{"name": path, "account": row.account, "user": row.user, "level": Level(row.level).name.lower()} for row in rows]


# --- administrators ----------------------------------------------------------------------------------------------------


def add_administrator(act: Acting, user: str) -> Change:
    """Make a user of the actor's account an administrator of it."""
    return _administer(act, user, wanted=True)


def remove_administrator(act: Acting, user: str) -> Change:
    """Make a user an administrator no more; Refused (administrator-last) for the account's last one."""
    return _administer(act, user, wanted=False)


def _administer(act: Acting, user: str, *, wanted: bool) -> Change:
    account = act.actor.account
    act.begins("createAdministrator" if wanted else "deleteAdministrator", user, {"account": account, "user": user})
    what = Act.ADMIN_ADD if wanted else Act.ADMIN_REMOVE
    act.require(what, _own(act))
    had = is_administrator(act.connection, account, user)
    if wanted and not had:
        act.connection.execute(insert(administrators).values(account=account, user=user, created_ms=act.now))
    if had and not wanted:
        if administrators_of(act.connection, account) == (user,):
            raise Refused(issue("administrator-last", place=user, user=user, account=account))
        act.connection.execute(delete(administrators).where(administrators.c.account == account, administrators.c.user == user))
    is_one = {"account": account, "user": user, "level": "administrator"}
    status: Status = "unchanged" if had == wanted else "created" if wanted else "deleted"
    return act.changed(status, "administrator", before=is_one if had else None, after=is_one if wanted else None)


def list_administrators(act: Acting, *, limit: int, marker: str = "") -> list[dict[str, Any]]:
    """The administrators of the actor's account: account, user, created (ms UTC); by user, `limit` at most, behind `marker`."""
    account = act.actor.account
    act.begins("listAdministrators", account, {"account": account})
    act.require(Act.ADMIN_LIST, _own(act))
    statement = select(administrators).where(administrators.c.account == account, administrators.c.user > marker)
    rows = act.connection.execute(statement.order_by(administrators.c.user).limit(limit))
    return [{"account": row.account, "user": row.user, "created": row.created_ms} for row in rows]


def _own(act: Acting) -> Facts:
    """The facts of an act on the actor's own account."""
    return account_facts(act.connection, act.actor, act.actor.account)
