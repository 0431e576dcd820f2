"""What a load changes: decided purely from what the ledger and the links say, then written in one transaction.

`LoadState` is what a group of loads needs to know, read with a handful of queries; `decide` judges one reference against it and
keeps it up to date, so that a group has the same effect as its loads one after another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, bindparam, func, insert, select, tuple_, update
from sqlalchemy.dialects import sqlite

from .. import rights
from ..attempt import Decision, ImageRecord, LoadRules
from ..cts import Actor
from ..digest import Digest
from ..errors import Issue, issue
from ..policy import Reference, same_registry
from ..rights import Act, Facts, Level
from .access import administrators_of, granted_to, is_administrator, make_first_administrator
from .schema import (
    accounts,
    layer_blobs,
    organization_grants,
    organizations,
    repositories,
    repository_grants,
    settings,
    tags,
)

_MANY = 400
T = TypeVar("T")


@dataclass(slots=True)
class Organization:
    """An organization as the ledger has it; `id` is None while it is only planned."""

    name: str
    account: str
    owner: str
    id: int | None = None


@dataclass(slots=True)
class TagRow:
    """A tag as the ledger has it. `linked` is the content that its link has while it is pending, or had when it was written.

    `planned` tells that a load of this group changes it: what was served before it is in `linked` already.
    """

    digest: str
    image_id: str
    generation: int
    linked: str | None
    pending: bool
    id: int | None = None
    planned: bool = False


@dataclass(slots=True)
class Accepted:
    """What the references of one image that were accepted so far would add; they take effect together or not at all."""

    registry: str | None = None
    organizations: set[str] = field(default_factory=set)


@dataclass(slots=True)
class LoadState:
    """The part of the ledger that a group of loads touches.

    Of the actor: `levels` granted on organizations (by name) and repositories (by path), and whether `administrator`; for
    messages, `administrators` has some of an account's.
    """

    settings: dict[str, str] = field(default_factory=dict)
    organizations: dict[str, Organization] = field(default_factory=dict)
    owned: dict[tuple[str, str], int] = field(default_factory=dict)
    repositories: dict[str, int | None] = field(default_factory=dict)
    tags: dict[tuple[str, str], TagRow] = field(default_factory=dict)
    served: dict[tuple[str, str], str | None] = field(default_factory=dict)
    levels: dict[str, Level] = field(default_factory=dict)
    administrator: dict[tuple[str, str], bool] = field(default_factory=dict)
    administrators: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def add(self, other: LoadState) -> None:
        """Take what is not known yet from a state read later."""
        for each in fields(self):
            mine, theirs = getattr(self, each.name), getattr(other, each.name)
            mine.update({key: value for key, value in theirs.items() if key not in mine})

    def effective(self, key: tuple[str, str]) -> str | None:
        """The digest that a client would get for a tag now, or once the links that are pending are written."""
        row, served = self.tags.get(key), self.served.get(key)
        if row is not None and row.pending and served in (None, row.linked):
            return row.digest
        return served


def read_settings(connection: Connection) -> dict[str, str]:
    """What `init`, or the first load, set: registry, region, account, org_quota, created_ms; empty before."""
    return {row.name: row.value for row in connection.execute(select(settings))}


def read_state(connection: Connection, references: Iterable[Reference], actor: Actor, rules: LoadRules) -> LoadState:
    """Read what `decide` needs for these references."""
    state = LoadState(settings={**rules.defaults, **read_settings(connection)})
    wanted = set(references)
    joined = organizations.join(accounts)
    granted = granted_to(actor, organization_grants, organization_grants.c.organization_id == organizations.c.id)
    level = organization_grants.c.level
    for names in _batches(sorted({r.namespace for r in wanted})):
        rows = connection.execute(
            select(organizations.c.id, organizations.c.name, organizations.c.owner, accounts.c.name.label("account"), level)
            .select_from(joined.outerjoin(organization_grants, granted))
            .where(organizations.c.name.in_(names))
        )
        for row in rows:
            state.organizations[row.name] = Organization(row.name, row.account, row.owner, row.id)
            state.levels[row.name] = Level(row.level or 0)
    key = (actor.account, actor.user)
    state.administrator[key] = is_administrator(connection, *key)
    state.administrators[actor.account] = administrators_of(connection, actor.account)
    state.owned[key] = connection.execute(
        select(func.count()).select_from(joined).where(accounts.c.name == key[0], organizations.c.owner == key[1])
    ).scalar_one()
    ids = {org.id: org.name for org in state.organizations.values()}
    paths = sorted({(state.organizations[r.namespace].id, r.repository) for r in wanted if r.namespace in state.organizations})
    granted = granted_to(actor, repository_grants, repository_grants.c.repository_id == repositories.c.id)
    level = repository_grants.c.level
    for chunk in _batches(paths):
        found = connection.execute(
            select(repositories.c.id, repositories.c.organization_id, repositories.c.name, level)
            .select_from(repositories.outerjoin(repository_grants, granted))
            .where(tuple_(repositories.c.organization_id, repositories.c.name).in_(chunk))
        )
        for key_, organization_id, name, granted_level in found:
            path = f"{ids[organization_id]}/{name}"
            state.repositories[path], state.levels[path] = key_, Level(granted_level or 0)
    by_id = {state.repositories[r.path]: r.path for r in wanted if r.path in state.repositories}
    pairs = sorted({(state.repositories[r.path], r.tag) for r in wanted if r.path in state.repositories})
    for chunk in _batches(pairs):
        rows = connection.execute(select(tags).where(tuple_(tags.c.repository_id, tags.c.tag).in_(chunk)))
        for row in rows:
            state.tags[by_id[row.repository_id], row.tag] = TagRow(
                row.digest, row.image_id, row.generation, row.linked_digest, row.link_pending, row.id
            )
    return state


def decide(
    reference: Reference,
    image_id: str,
    digest: str | None,
    state: LoadState,
    actor: Actor,
    rules: LoadRules,
    accepted: Accepted | None = None,
) -> Decision:
    """Judge one reference. `digest` None (a check, nothing is built): the same image ID counts as the same content.

    `accepted` is what the image's references before this one would add, and is kept up to date.
    """
    accepted = Accepted() if accepted is None else accepted
    found = _refusals(reference, state, actor, rules, accepted)
    key = (reference.path, reference.tag)
    before = state.effective(key)
    row = state.tags.get(key)
    same = before is not None and (
        before == digest if digest else row is not None and row.digest == before and row.image_id == image_id
    )
    if before is not None and not same and rules.on_conflict == "fail":
        found.append(issue("tag-exists", reference=reference, digest=before))
    if found:
        return Decision("rejected", before, before, tuple(found))
    if same and row is not None and row.digest == before:
        return Decision("unchanged", before, before)
    if before is not None and not same and rules.on_conflict == "skip":
        # The ledger's digest, not what is served: replaying the events must give the tag table.
        return Decision("skipped", before, row.digest if row is not None else None)
    accepted.registry = accepted.registry or reference.registry
    # The first organization of an account makes its creator the account's administrator: there is never an account without one.
    new_administrator = not state.administrators.get(actor.account) and not accepted.organizations
    if reference.namespace not in state.organizations:
        accepted.organizations.add(reference.namespace)
    return Decision(
        "loaded" if before is None or same else "overwritten",
        before,
        digest,
        new_organization=reference.namespace not in state.organizations,
        new_repository=reference.path not in state.repositories,
        new_administrator=new_administrator and reference.namespace not in state.organizations,
    )


def _refusals(reference: Reference, state: LoadState, actor: Actor, rules: LoadRules, accepted: Accepted) -> list[Issue]:
    found = []
    registry = state.settings.get("registry") or accepted.registry
    if registry and not same_registry(reference.registry, registry):
        found.append(issue("registry-mismatch", reference=reference, registry=registry))
    required = state.settings.get("require_profile")
    if required not in (None, "any", rules.profile):
        found.append(issue("profile-required", required=required, profile=rules.profile))
    organization = state.organizations.get(reference.namespace)
    if organization is not None:
        if organization.account != actor.account:
            found.append(issue("organization-taken", organization=organization.name, owner=organization.account))
        else:
            facts = _facts(reference, state, actor, rules)
            decision = rights.decide(actor, Act.IMPORT, facts)
            if not decision.allowed:
                found.append(rights.denied(actor, f"{Act.IMPORT} --profile {rules.profile}", facts.name, decision))
    elif not rules.create_org:
        found.append(issue("organization-missing", organization=reference.namespace))
    else:
        quota = int(state.settings["org_quota"])
        others = len(accepted.organizations - {reference.namespace})
        if state.owned.get((actor.account, actor.user), 0) + others >= quota:
            found.append(issue("organization-quota", organization=reference.namespace, user=actor.user, quota=quota))
    return found


def _facts(reference: Reference, state: LoadState, actor: Actor, rules: LoadRules) -> Facts:
    """What is known of the actor's rights to load under a name in an organization of their account."""
    return Facts(
        account=actor.account,
        name=reference.path,
        administrator=state.administrator.get((actor.account, actor.user), False),
        organization=state.levels.get(reference.namespace, Level.NONE),
        repository=state.levels.get(reference.path, Level.NONE),
        profile=rules.profile,
        administrators=state.administrators.get(actor.account, ()),
    )


def plan(reference: Reference, image_id: str, decision: Decision, state: LoadState, actor: Actor) -> None:
    """Note the effect of an accepted reference in `state`, for the references that come after it."""
    if decision.status not in ("loaded", "overwritten"):
        return
    state.settings.setdefault("registry", reference.registry)
    # An image with several names in a new organization makes it once.
    if decision.new_organization and reference.namespace not in state.organizations:
        state.organizations[reference.namespace] = Organization(reference.namespace, actor.account, actor.user)
        # Whoever creates an organization manages it.
        state.levels[reference.namespace] = Level.MANAGE
        owner = (actor.account, actor.user)
        if not state.administrators.get(actor.account):
            state.administrators[actor.account], state.administrator[owner] = (actor.user,), True
        state.owned[owner] = state.owned.get(owner, 0) + 1
    state.repositories.setdefault(reference.path, None)
    key = (reference.path, reference.tag)
    row = state.tags.get(key)
    digest = decision.digest or ""
    if row is None:
        row = state.tags[key] = TagRow(digest, image_id, 0, None, True)
    if not row.planned:
        # What this load knows that it replaces, and so may also replace when a crash leaves the link to the next open.
        row.linked, row.planned = state.served.get(key), True
    row.digest, row.image_id, row.pending = digest, image_id, True
    row.generation += 1
    state.served[key] = digest


# --- writing ---------------------------------------------------------------------------------------------------------


def write_settings(connection: Connection, values: dict[str, str]) -> None:
    """Set what is not set yet."""
    have = read_settings(connection)
    fresh = [{"name": name, "value": value} for name, value in values.items() if name not in have]
    if fresh:
        connection.execute(insert(settings), fresh)


def account_id(connection: Connection, name: str, now: int) -> int:
    """The id of an account, made when it is new."""
    found = connection.execute(select(accounts.c.id).where(accounts.c.name == name)).scalar()
    if found is not None:
        return int(found)
    key = connection.execute(insert(accounts).values(name=name, created_ms=now)).inserted_primary_key
    assert key is not None
    return int(key[0])


def write_loads(
    connection: Connection,
    state: LoadState,
    changes: dict[tuple[str, str], ImageRecord],
    actor: Actor,
    now: int,
) -> None:
    """Write the organizations, repositories and tags that `plan` noted; `changes` maps (repository path, tag) to the image."""
    new = [org for org in state.organizations.values() if org.id is None]
    if new:
        owner = account_id(connection, actor.account, now)
        connection.execute(
            insert(organizations),
            [{"name": org.name, "account_id": owner, "owner": org.owner, "created_ms": now} for org in new],
        )
        for names in _batches([org.name for org in new]):
            rows = connection.execute(select(organizations.c.id, organizations.c.name).where(organizations.c.name.in_(names)))
            for row in rows:
                state.organizations[row.name].id = row.id
        mine = {"account": actor.account, "user": actor.user, "level": int(Level.MANAGE)}
        connection.execute(insert(organization_grants), [{"organization_id": org.id, **mine} for org in new])
        make_first_administrator(connection, actor, now)
    _write_repositories(connection, state, now)
    inserts, updates = [], []
    for (path, tag), image in changes.items():
        row_state = state.tags[path, tag]
        values = {name: getattr(image, name) for name in ImageRecord.__slots__}
        values |= {"account": actor.account, "user": actor.user, "updated_ms": now, "link_pending": True}
        values |= {"generation": row_state.generation, "linked_digest": row_state.linked}
        if row_state.id is None:
            inserts.append({**values, "repository_id": state.repositories[path], "tag": tag})
        else:
            updates.append({**values, "key": row_state.id})
    if inserts:
        connection.execute(insert(tags), inserts)
    if updates:
        columns: dict[str, Any] = {name: bindparam(name) for name in updates[0] if name != "key"}
        connection.execute(update(tags).where(tags.c.id == bindparam("key")).values(columns), updates)


def _write_repositories(connection: Connection, state: LoadState, now: int) -> None:
    new = [path for path, key in state.repositories.items() if key is None]
    if not new:
        return
    rows = []
    for path in new:
        namespace, _, name = path.partition("/")
        organization = state.organizations[namespace].id
        # Private at birth (guide 4.5).
        rows.append({"organization_id": organization, "name": name, "is_public": False, "created_ms": now})
    connection.execute(insert(repositories), rows)
    for chunk in _batches(zip(new, rows, strict=True)):
        keys = [(row["organization_id"], row["name"]) for _, row in chunk]
        found = connection.execute(
            select(repositories.c.id, repositories.c.organization_id, repositories.c.name).where(
                tuple_(repositories.c.organization_id, repositories.c.name).in_(keys)
            )
        )
        ids = {(row.organization_id, row.name): row.id for row in found}
        for path, row_ in chunk:
            state.repositories[path] = ids[row_["organization_id"], row_["name"]]


def write_layer_blobs(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Note which blob holds which layer (diff_id, media_type, digest, size); the newest note wins."""
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql  # slow to import, and only a ledger on a server needs it

        statement: postgresql.Insert | sqlite.Insert = postgresql.insert(layer_blobs)
    else:
        statement = sqlite.insert(layer_blobs)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["diff_id", "media_type"],
            set_={"digest": statement.excluded.digest, "size": statement.excluded.size},
        ),
        rows,
    )


def known_layers(connection: Connection, diff_ids: Iterable[Digest], media_type: str) -> dict[Digest, tuple[Digest, int]]:
    """The blobs noted for these layers: diff_id → (digest, size in bytes). Whether they are still there is another question."""
    found: dict[Digest, tuple[Digest, int]] = {}
    for chunk in _batches(dict.fromkeys(str(d) for d in diff_ids)):
        rows = connection.execute(
            select(layer_blobs).where(layer_blobs.c.media_type == media_type, layer_blobs.c.diff_id.in_(chunk))
        )
        found.update({Digest.parse(row.diff_id): (Digest.parse(row.digest), row.size) for row in rows})
    return found


def _batches(items: Iterable[T]) -> Iterator[tuple[T, ...]]:
    """Pieces small enough for the bound parameters of one statement."""
    rest = iter(items)
    while piece := tuple(islice(rest, _MANY)):
        yield piece
