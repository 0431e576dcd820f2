"""Deleting tags and repositories (guide 6): the rows, the events, and the marks of the links that are still to be removed.

The caller holds the lock of the links and removes them after the commit (`Store.deleting`); the next open removes what a crash
left. Blobs stay until they are swept. Each tag of a deleted repository has an event of its own before that of the repository.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, delete, insert, select

from ..errors import Refused, issue
from ..rights import Act
from .access import end_grants, find, known_repository
from .acting import Acting, Change
from .repositories import attributes_of, tag_values
from .schema import repositories, tag_removals, tags
from .shares import end_shares
from .triggers import end_triggers


def delete_tag(act: Acting, path: str, tag: str) -> Change:
    """Delete a tag. Refused: organization-unknown, repository-unknown, tag-unknown."""
    name = f"{path}:{tag}"
    act.begins("deleteImageTag", name, {"name": path, "tag": tag})
    target = find(act.connection, act.actor, path, act.now)
    act.require(Act.TAG_DELETE, target.facts)
    statement = select(tags).where(tags.c.repository_id == known_repository(target), tags.c.tag == tag)
    row = act.connection.execute(statement).first()
    if row is None:
        raise Refused(issue("tag-unknown", place=name, reference=name))
    _remove(act, path, [row])
    act.connection.execute(delete(tags).where(tags.c.id == row.id))
    return act.changed("deleted", "tag", before=tag_values(row), after=None, resource_id=row.digest)


def delete_repository(act: Acting, path: str) -> Change:
    """Delete a repository with its tags, grants, shares and triggers, each with its event.

    Refused: organization-unknown, repository-unknown.
    """
    namespace, _, repository = path.partition("/")
    request = {"namespace": namespace, "repository": repository}
    act.begins("deleteImageRepository", path, request)
    target = find(act.connection, act.actor, path, act.now)
    act.require(Act.REPO_DELETE, target.facts)
    key = known_repository(target)
    rows = act.connection.execute(select(tags).where(tags.c.repository_id == key).order_by(tags.c.tag)).all()
    before = {**attributes_of(act, key), "tags": len(rows)}
    _remove(act, path, rows)
    for row in rows:
        act.begins("deleteImageTag", f"{path}:{row.tag}", {"name": path, "tag": row.tag, "repository": path})
        act.changed("deleted", "tag", before=tag_values(row), after=None, resource_id=row.digest)
    # What goes with it ends with an event of its own: who had a right or a share has none from now on.
    end_grants(act, path, key)
    end_shares(act, path, key)
    end_triggers(act, path, key)
    act.connection.execute(delete(tags).where(tags.c.repository_id == key))
    act.connection.execute(delete(repositories).where(repositories.c.id == key))
    act.begins("deleteImageRepository", path, request)
    return act.changed("deleted", "repository", before=before, after=None)


def _remove(act: Acting, path: str, rows: Sequence[Row[Any]]) -> None:
    """Mark the links of these tags as to be removed."""
    marks = [{"path": path, "tag": row.tag, "digest": row.digest, "linked_digest": row.linked_digest} for row in rows]
    if marks:
        act.connection.execute(insert(tag_removals), marks)
