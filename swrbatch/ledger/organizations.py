"""Organizations: made, listed, looked at, deleted (guide 5, 9.1.5, 9.1.6)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, delete, exists, func, insert, or_, select

from ..errors import Refused, issue, printable
from ..policy import ORGANIZATIONS_OF_A_USER, Naming, why_invalid
from ..rights import Act, Facts, Level, decide
from .access import end_grants, find, granted_to, is_administrator, make_first_administrator
from .acting import Acting, Change
from .loads import account_id, read_settings
from .schema import accounts, organization_grants, organizations, repositories, repository_grants


def create_organization(act: Acting, name: str, *, naming: Naming = "guide") -> Change:
    """Make an organization, which the actor then manages; the first one of an account makes the actor its administrator too.

    Unchanged when it is there and the actor manages it already. Refused: organization-name, organization-exists (guide 9.1.6:
    names are unique in the region), organization-quota (9.1.5).
    """
    act.begins("createUserNamespace", name, {"namespace": printable(name)})
    act.require(Act.ORG_CREATE, Facts(account=act.actor.account, name=name))
    if detail := why_invalid("namespace", name, naming):
        raise Refused(issue("organization-name", place=name, name=name or '""', detail=detail))
    if act.connection.execute(select(exists().where(organizations.c.name == name))).scalar():
        if not decide(act.actor, Act.ORG_DELETE, find(act.connection, act.actor, name, act.now).facts).allowed:
            raise Refused(issue("organization-exists", place=name, organization=name))
        there = show_row(act, name)
        return act.changed("unchanged", "organization", before=there, after=there)
    _within_quota(act, name)
    owner = account_id(act.connection, act.actor.account, act.now)
    values = {"name": name, "account_id": owner, "owner": act.actor.user, "created_ms": act.now}
    key = act.connection.execute(insert(organizations).values(**values)).inserted_primary_key
    assert key is not None
    grant = {"organization_id": key[0], "account": act.actor.account, "user": act.actor.user, "level": int(Level.MANAGE)}
    act.connection.execute(insert(organization_grants).values(**grant))
    said: dict[str, Any] = {"owner": act.actor.user, "account": act.actor.account}
    if make_first_administrator(act.connection, act.actor, act.now):
        said["administrator"] = True
    return act.changed("created", "organization", before=None, after=show_row(act, name), said=said)


def _within_quota(act: Acting, name: str) -> None:
    quota = int(read_settings(act.connection).get("org_quota", ORGANIZATIONS_OF_A_USER))
    mine = select(func.count()).select_from(organizations.join(accounts))
    mine = mine.where(accounts.c.name == act.actor.account, organizations.c.owner == act.actor.user)
    if act.connection.execute(mine).scalar_one() >= quota:
        raise Refused(issue("organization-quota", place=name, organization=name, user=act.actor.user, quota=quota))


def delete_organization(act: Acting, name: str) -> Change:
    """Delete an organization that holds no image, with its grants. Refused: organization-unknown, organization-not-empty."""
    act.begins("deleteUserNamesapce", name, {"namespace": name})
    target = find(act.connection, act.actor, name, act.now)
    act.require(Act.ORG_DELETE, target.facts)
    before = show_row(act, name)
    if before["repositories"]:
        raise Refused(issue("organization-not-empty", place=name, organization=name, count=before["repositories"]))
    end_grants(act, name, target.organization_id)
    act.connection.execute(delete(organizations).where(organizations.c.id == target.organization_id))
    act.begins("deleteUserNamesapce", name, {"namespace": name})
    return act.changed("deleted", "organization", before=before, after=None)


def show_organization(act: Acting, name: str) -> dict[str, Any]:
    """name, account, owner, created (ms UTC), repositories (how many), level (the actor's). Refused: organization-unknown."""
    act.begins("showUserNamespace", name, {"namespace": name})
    target = find(act.connection, act.actor, name, act.now)
    act.require(Act.ORG_SHOW, target.facts)
    level = Level.MANAGE if target.facts.administrator else target.facts.organization
    return {**show_row(act, name), "level": level.name.lower()}


def show_row(act: Acting, name: str) -> dict[str, Any]:
    """An organization that is there: name, account, owner, created (ms UTC), repositories (how many)."""
    return _shown(act.connection.execute(_query().where(organizations.c.name == name)).one())


def list_organizations(act: Acting, *, limit: int, marker: str = "") -> list[dict[str, Any]]:
    """The organizations of the actor's account in which the actor may see something, by name: as `show_organization` gives them.

    An administrator sees all of the account. `limit` at most, behind the name `marker`.
    """
    actor = act.actor
    administrator = is_administrator(act.connection, actor.account, actor.user)
    mine = granted_to(actor, organization_grants, organization_grants.c.organization_id == organizations.c.id)
    within = exists().where(
        repositories.c.organization_id == organizations.c.id,
        repository_grants.c.repository_id == repositories.c.id,
        repository_grants.c.account == actor.account,
        repository_grants.c.user == actor.user,
    )
    statement = _query(organization_grants.c.level, mine).where(accounts.c.name == actor.account)
    if not administrator:
        statement = statement.where(or_(organization_grants.c.level.is_not(None), within))
    rows = act.connection.execute(statement.where(organizations.c.name > marker).order_by(organizations.c.name).limit(limit))
    return [
        {**_shown(row), "level": (Level.MANAGE if administrator else Level(row.level or 0)).name.lower()} for row in rows.all()
    ]


def _query(extra: Any = None, on: Any = None) -> Any:
    count = select(func.count()).where(repositories.c.organization_id == organizations.c.id).scalar_subquery()
    columns = [organizations.c.name, accounts.c.name.label("account"), organizations.c.owner, organizations.c.created_ms]
    joined = organizations.join(accounts)
    if on is not None:
        return select(*columns, count.label("repositories"), extra).select_from(joined.outerjoin(organization_grants, on))
    return select(*columns, count.label("repositories")).select_from(joined)


def _shown(row: Row[Any]) -> dict[str, Any]:
    return {
        "name": row.name,
        "account": row.account,
        "owner": row.owner,
        "created": row.created_ms,
        "repositories": row.repositories,
    }
