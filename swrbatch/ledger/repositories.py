"""Repositories and their attributes (guide 4.5): made, edited, listed, looked at; and their tags, looked at.

Deleting is in `deletions`: it takes links away.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Row, and_, exists, func, insert, or_, select, update

from ..errors import Refused, UsageError, issue, printable
from ..policy import CATEGORIES, REPOSITORY_DESCRIPTION, Naming, check_description, why_invalid
from ..rights import Act, Level
from .access import find, granted_to, is_administrator, known_repository
from .acting import Acting, Change
from .schema import accounts, organization_grants, organizations, repositories, repository_grants, shares, tags

_ATTRIBUTES = ("is_public", "category", "description")


def create_repository(act: Acting, path: str, *, naming: Naming = "guide", **attributes: Any) -> Change:
    """Make a repository, private unless `is_public`; `category` and `description` as of `edit_repository`.

    Unchanged when it is there with what is given. Refused: organization-unknown, repository-name, description-too-long,
    repository-exists.
    """
    organization, _, name = path.partition("/")
    given = _given(attributes)
    act.begins("createImageRepository", path, {"namespace": organization, "repository": printable(name), **_asked(given)})
    target = find(act.connection, act.actor, path, act.now)
    act.require(Act.REPO_CREATE, target.facts)
    if detail := why_invalid("repository", name, naming):
        raise Refused(issue("repository-name", place=path, name=name or '""', detail=detail))
    _check(path, given)
    if target.repository_id is not None:
        there = attributes_of(act, target.repository_id)
        if {**there, **given} != there:
            raise Refused(issue("repository-exists", place=path, repository=path))
        return act.changed("unchanged", "repository", before=there, after=there)
    values = {"is_public": False, "category": "other", "description": "", **given}
    row = {"organization_id": target.organization_id, "name": name, "created_ms": act.now, **values}
    act.connection.execute(insert(repositories).values(**row))
    return act.changed("created", "repository", before=None, after=values, said={"is_public": values["is_public"]})


def edit_repository(act: Acting, path: str, **attributes: Any) -> Change:
    """Set attributes: `is_public`, `category` (of `policy.CATEGORIES`), `description`; those that are None stay.

    Before and after hold what changed.
    Refused: organization-unknown, repository-unknown, description-too-long.
    """
    given = _given(attributes)
    act.begins("updateImageRepository", path, _asked(given))
    target = find(act.connection, act.actor, path, act.now)
    act.require(Act.REPO_EDIT, target.facts)
    key = known_repository(target)
    _check(path, given)
    before = attributes_of(act, key)
    after = {name: value for name, value in given.items() if before[name] != value}
    if not after:
        return act.changed("unchanged", "repository", before=before, after=before)
    act.connection.execute(update(repositories).where(repositories.c.id == key).values(**after))
    return act.changed("updated", "repository", before={name: before[name] for name in after}, after=after)


def _given(attributes: dict[str, Any]) -> dict[str, Any]:
    assert attributes.keys() <= set(_ATTRIBUTES), attributes.keys()
    if attributes.get("category") not in (None, *CATEGORIES):
        raise UsageError(f"the category {printable(attributes['category'])} is none of {', '.join(CATEGORIES)}")
    return {name: value for name, value in attributes.items() if value is not None}


def _asked(given: dict[str, Any]) -> dict[str, Any]:
    """What an event says was asked for: of a text that is too long its beginning."""
    description = given.get("description", "")
    return given | ({"description": printable(description)} if len(description) > REPOSITORY_DESCRIPTION else {})


def _check(path: str, given: dict[str, Any]) -> None:
    if found := check_description(given.get("description", ""), REPOSITORY_DESCRIPTION, place=path):
        raise Refused(found[0])


def attributes_of(act: Acting, key: int) -> dict[str, Any]:
    """is_public, category and description of a repository that is there."""
    columns = (repositories.c.is_public, repositories.c.category, repositories.c.description)
    row = act.connection.execute(select(*columns).where(repositories.c.id == key)).one()
    return {"is_public": bool(row.is_public), "category": row.category, "description": row.description}


# --- looking -----------------------------------------------------------------------------------------------------------


def list_repositories(
    act: Acting,
    *,
    limit: int,
    marker: str = "",
    organization: str | None = None,
    shared_by_me: bool = False,
    shared_with: str | None = None,
) -> list[dict[str, Any]]:
    """The repositories that the actor may download, by name.

    Keys: name, account, is_public, category, description, created (ms UTC), tags (how many), level (the actor's), shared (with
    the actor's account). `shared_by_me`: those of the own account that it shares, now or no more. `shared_with` an account: those
    that are shared with it now, by the own account; with the own account, those that others share with it. `limit` at most,
    behind the name `marker`.
    """
    actor = act.actor
    administrator = is_administrator(act.connection, actor.account, actor.user)
    statement, seen = _visible(act, administrator)
    own = accounts.c.name == actor.account
    if organization is not None:
        statement = statement.where(organizations.c.name == organization)
    any_share = shares.alias()
    there = any_share.c.repository_id == repositories.c.id
    if shared_by_me:
        statement = statement.where(own, exists().where(there))
    if shared_with is not None:
        live = or_(any_share.c.deadline_ms.is_(None), any_share.c.deadline_ms > act.now)
        given = exists().where(there, any_share.c.account == shared_with, live)
        statement = statement.where(given) if shared_with == actor.account else statement.where(own, given)
    after, _, behind = marker.partition("/")
    if marker:
        name, repository = organizations.c.name, repositories.c.name
        statement = statement.where(name >= after, or_(name > after, repository > behind))
    ordered = statement.where(seen).order_by(organizations.c.name, repositories.c.name).limit(limit)
    return [_shown(row, actor.account, administrator) for row in act.connection.execute(ordered).all()]


def show_repository(act: Acting, path: str) -> dict[str, Any]:
    """One repository, as `list_repositories` gives it. Refused: organization-unknown, repository-unknown."""
    act.begins("showImageRepository", path, {"name": path})
    target = find(act.connection, act.actor, path, act.now)
    act.require(Act.REPO_SHOW, target.facts)
    statement, _ = _visible(act, target.facts.administrator)
    row = act.connection.execute(statement.where(repositories.c.id == known_repository(target))).one()
    return _shown(row, act.actor.account, target.facts.administrator)


def _visible(act: Acting, administrator: bool) -> tuple[Any, ColumnElement[bool]]:
    """All repositories with what the actor has of each, and the condition for seeing one (as `decide` says of a download)."""
    account = act.actor.account
    on_organization = granted_to(act.actor, organization_grants, organization_grants.c.organization_id == organizations.c.id)
    on_repository = granted_to(act.actor, repository_grants, repository_grants.c.repository_id == repositories.c.id)
    shared = and_(
        shares.c.repository_id == repositories.c.id,
        shares.c.account == account,
        or_(shares.c.deadline_ms.is_(None), shares.c.deadline_ms > act.now),
    )
    count = select(func.count()).where(tags.c.repository_id == repositories.c.id).scalar_subquery()
    statement = select(
        organizations.c.name.label("organization"),
        accounts.c.name.label("account"),
        repositories,
        count.label("tags"),
        organization_grants.c.level.label("organization_level"),
        repository_grants.c.level.label("repository_level"),
        shares.c.id.label("share_id"),
    ).select_from(
        organizations.join(accounts)
        .join(repositories)
        .outerjoin(organization_grants, on_organization)
        .outerjoin(repository_grants, on_repository)
        .outerjoin(shares, shared)
    )
    own: ColumnElement[bool] = accounts.c.name == account
    if not administrator:
        own = and_(own, or_(organization_grants.c.level.is_not(None), repository_grants.c.level.is_not(None)))
    return statement, or_(own, repositories.c.is_public, shares.c.id.is_not(None))


def _shown(row: Row[Any], account: str, administrator: bool) -> dict[str, Any]:
    level = Level(max(row.organization_level or 0, row.repository_level or 0)) if row.account == account else Level.NONE
    level = Level.MANAGE if administrator and row.account == account else level
    return {
        "name": f"{row.organization}/{row.name}",
        "account": row.account,
        "is_public": bool(row.is_public),
        "category": row.category,
        "description": row.description,
        "created": row.created_ms,
        "tags": row.tags,
        "level": level.name.lower(),
        "shared": row.share_id is not None,
    }


# --- tags --------------------------------------------------------------------------------------------------------------


def list_tags(act: Acting, path: str, *, limit: int, marker: str = "") -> list[dict[str, Any]]:
    """The tags of a repository, by name: tag, digest, image_id, media_type, architecture, os, layers, stored_bytes,
    uncompressed_bytes, archive, account, user, updated (ms UTC). `limit` at most, behind the tag `marker`."""
    act.begins("listImageTags", path, {"name": path})
    target = find(act.connection, act.actor, path, act.now)
    act.require(Act.TAG_LIST, target.facts)
    statement = select(tags).where(tags.c.repository_id == known_repository(target), tags.c.tag > marker)
    return [tag_values(row) for row in act.connection.execute(statement.order_by(tags.c.tag).limit(limit))]


def show_tag(act: Acting, path: str, tag: str) -> dict[str, Any]:
    """One tag, as `list_tags` gives it. Refused: organization-unknown, repository-unknown, tag-unknown."""
    act.begins("listImageTags", path, {"name": path, "tag": tag})
    target = find(act.connection, act.actor, path, act.now)
    act.require(Act.TAG_SHOW, target.facts)
    statement = select(tags).where(tags.c.repository_id == known_repository(target), tags.c.tag == tag)
    row = act.connection.execute(statement).first()
    if row is None:
        raise Refused(issue("tag-unknown", place=f"{path}:{tag}", reference=f"{path}:{tag}"))
    return tag_values(row)


def tag_values(row: Row[Any]) -> dict[str, Any]:
    """A row of the tag table, without what only the store itself needs."""
    names = ("tag", "digest", "image_id", "media_type", "architecture", "os", "layers", "stored_bytes", "uncompressed_bytes")
    who = {"archive": row.archive, "account": row.account, "user": row.user, "updated": row.updated_ms}
    return {name: getattr(row, name) for name in names} | who
