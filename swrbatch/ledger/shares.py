"""Sharing of private repositories with other accounts, to download (guide 4.6, 9.2.2).

A share has a deadline, ms UTC, or None for ever: from that moment it gives nothing, and stays listed as expired.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, delete, func, insert, select, update

from ..errors import Refused, UsageError, issue, printable
from ..policy import SHARE_DESCRIPTION, SHARES_OF_AN_IMAGE, check_description
from ..rights import Act, sharing
from .access import Target, find, known_repository
from .acting import Acting, Change
from .schema import repositories, shares

FOREVER: Final = "forever"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a share says. `deadline_ms` None: for ever."""

    deadline_ms: int | None = None
    description: str = ""


def add_share(act: Acting, path: str, account: str, terms: Terms) -> Change:
    """Share a repository with an account. Unchanged when it is shared on these terms already.

    Refused: organization-unknown, repository-unknown, share-public, share-own-account, share-quota, share-exists,
    share-deadline, description-too-long.
    """
    target = _begun(act, "createImageRepositoryAccessDomain", Act.SHARE_ADD, path, account, terms)
    key = known_repository(target)
    if act.connection.execute(select(repositories.c.is_public).where(repositories.c.id == key)).scalar():
        raise Refused(issue("share-public", place=path, repository=path))
    if account == target.account:
        raise Refused(issue("share-own-account", place=path, repository=path, account=account))
    row = _row(act, key, account)
    if row is not None:
        if (row.deadline_ms, row.description) != (terms.deadline_ms, terms.description):
            raise Refused(issue("share-exists", place=path, repository=path, account=account))
        return act.changed("unchanged", "share", before=_said(row), after=_said(row))
    _check(act, path, terms)
    count = select(func.count()).select_from(shares).where(shares.c.repository_id == key)
    if act.connection.execute(count).scalar_one() >= SHARES_OF_AN_IMAGE:
        raise Refused(issue("share-quota", place=path, repository=path, limit=SHARES_OF_AN_IMAGE))
    who = {"by_account": act.actor.account, "by_user": act.actor.user}
    values = {"deadline_ms": terms.deadline_ms, "description": terms.description, "created_ms": act.now, "updated_ms": act.now}
    act.connection.execute(insert(shares).values(repository_id=key, account=account, permit="read", **values, **who))
    return act.changed("created", "share", before=None, after=_said(_row(act, key, account)))


def edit_share(act: Acting, path: str, account: str, **given: Any) -> Change:
    """Change the terms of a share: `deadline_ms` (None: for ever) and `description`; what is not given stays.

    Refused: organization-unknown, repository-unknown, share-unknown, share-deadline, description-too-long.
    """
    terms = Terms(**given)
    target = _begun(act, "updateImageRepositoryAccessDomain", Act.SHARE_EDIT, path, account, terms, given)
    row = _row(act, known_repository(target), account)
    if row is None:
        raise Refused(issue("share-unknown", place=path, repository=path, account=account))
    before = {"deadline_ms": row.deadline_ms, "description": row.description}
    if {**before, **given} == before:
        return act.changed("unchanged", "share", before=_said(row), after=_said(row))
    _check(act, path, terms)
    act.connection.execute(update(shares).where(shares.c.id == row.id).values(**given, updated_ms=act.now))
    return act.changed("updated", "share", before=_said(row), after=_said(_row(act, row.repository_id, account)))


def remove_share(act: Acting, path: str, account: str) -> Change:
    """End a share; unchanged when there is none. Refused: organization-unknown, repository-unknown."""
    target = _begun(act, "deleteImageRepositoryAccessDomain", Act.SHARE_REMOVE, path, account, None)
    row = _row(act, known_repository(target), account)
    if row is None:
        return act.changed("unchanged", "share", before=None, after=None)
    act.connection.execute(delete(shares).where(shares.c.id == row.id))
    return act.changed("deleted", "share", before=_said(row), after=None)


def end_shares(act: Acting, path: str, key: int) -> None:
    """End all shares of a repository that is about to be deleted."""
    for row in act.connection.execute(select(shares).where(shares.c.repository_id == key).order_by(shares.c.account)).all():
        act.begins("deleteImageRepositoryAccessDomain", path, {"name": path, "access_domain": row.account})
        act.changed("deleted", "share", before=_said(row), after=None)
    act.connection.execute(delete(shares).where(shares.c.repository_id == key))


def list_shares(act: Acting, path: str, *, limit: int, marker: str = "") -> list[dict[str, Any]]:
    """The shares of a repository, by account: name, account, permit, deadline (ms UTC, None for ever), state (live, expired),
    description, by (account/user), created, updated (ms UTC). `limit` at most, behind the account `marker`."""
    act.begins("listImageRepositoryAccessDomain", path, {"name": path})
    target = find(act.connection, act.actor, path, act.now)
    act.require(Act.SHARE_LIST, target.facts)
    statement = select(shares).where(shares.c.repository_id == known_repository(target), shares.c.account > marker)
    return [
        {
            "name": path,
            "account": row.account,
            "permit": row.permit,
            "deadline": row.deadline_ms,
            "state": sharing(row.deadline_ms, act.now).value,
            "description": row.description,
            "by": f"{row.by_account}/{row.by_user}",
            "created": row.created_ms,
            "updated": row.updated_ms,
        }
        for row in act.connection.execute(statement.order_by(shares.c.account).limit(limit))
    ]


def parse_deadline(text: str) -> int | None:
    """A deadline in ms UTC, None for `forever`; UsageError for what is neither that nor a time in UTC."""
    if text == "forever":
        return None
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.utcoffset() != datetime.timedelta(0):
        raise UsageError(f"the deadline {printable(text)}: write a time in UTC such as 2026-12-31T00:00:00Z, or forever")
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return (moment - epoch) // datetime.timedelta(milliseconds=1)


def deadline_text(deadline_ms: int | None) -> str:
    """A deadline as the public API has it: a time in UTC, or `forever`."""
    if deadline_ms is None:
        return FOREVER
    moment = datetime.datetime.fromtimestamp(deadline_ms / 1000, tz=datetime.UTC)
    return moment.isoformat(timespec="milliseconds" if deadline_ms % 1000 else "seconds").replace("+00:00", "Z")


def _begun(
    act: Acting, event: str, what: Act, path: str, account: str, terms: Terms | None, given: dict[str, Any] | None = None
) -> Target:
    """Begin the act, and require manage; `given`: the terms that the request names, by default all."""
    request: dict[str, Any] = {"name": path, "access_domain": account}
    if terms is not None:
        asked = {"deadline_ms": deadline_text(terms.deadline_ms), "description": printable(terms.description, SHARE_DESCRIPTION)}
        request |= {name.removesuffix("_ms"): text for name, text in asked.items() if given is None or name in given}
        request["permit"] = "read"
    act.begins(event, path, request)
    target = find(act.connection, act.actor, path, act.now)
    act.require(what, target.facts)
    return target


def _check(act: Acting, path: str, terms: Terms) -> None:
    if found := check_description(terms.description, SHARE_DESCRIPTION, place=path):
        raise Refused(found[0])
    if terms.deadline_ms is not None and terms.deadline_ms <= act.now:
        raise Refused(issue("share-deadline", place=path, repository=path, deadline=deadline_text(terms.deadline_ms)))


def _row(act: Acting, key: int, account: str) -> Any:
    return act.connection.execute(select(shares).where(shares.c.repository_id == key, shares.c.account == account)).first()


def _said(row: Row[Any]) -> dict[str, Any]:
    """A share as an event tells of it."""
    said = {"access_domain": row.account, "permit": row.permit}
    return said | {"deadline": deadline_text(row.deadline_ms), "description": row.description}
