"""A store: the registry's files and the ledger, changed together.

    <root>/docker/      what a stock registry serves (see `layout`)
    <root>/ledger.db    who, what and when (see `ledger`)
    <root>/locks/, <root>/tmp/

Order of a load, which is what makes a crash harmless: blobs and manifest (synced, content-addressed) → ONE transaction with the
tag rows, marked "link pending", and their events → link files, written under a lock after the rows were read again → pending
cleared where the generation is unchanged. A crash before the transaction leaves blobs that nothing refers to; after it, the next
open writes the pending links, and only those.

The lock of the links is one for the store, not one for each repository: a group of loads touches many repositories, and the time
under it is that of a few small files.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, bindparam, delete, select, tuple_, update

from .actors import DEFAULT_ACCOUNT, current_actor
from .archive import MAX_OCI_MANIFEST
from .attempt import Attempt, Decision, ImageRecord, LoadResult, LoadRules, with_refusals
from .cts import Actor, Trace, canonical_json, now_ms
from .digest import Cancel, Digest
from .disk import locked, run_folder
from .errors import StoreError
from .image import Manifest
from .judging import judge_attempt, traces_of
from .layout import Link
from .ledger import Ledger
from .ledger.acting import Acting, acting
from .ledger.events import append_events, chain_identity
from .ledger.loads import (
    LoadState,
    known_layers,
    read_settings,
    read_state,
    write_layer_blobs,
    write_loads,
    write_settings,
)
from .ledger.schema import events, organizations, repositories, tag_removals, tags
from .ledger.settings import set_up
from .ledger.triggers import note_runs
from .policy import ORGANIZATIONS_OF_A_USER, Reference
from .store_folder import LEDGER, StoreFolder

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_QUOTA: Final = ORGANIZATIONS_OF_A_USER
DEFAULT_REGION: Final = "local"
_PENDING_BATCH: Final = 400


class Store(StoreFolder):
    """An open store. `Store(path)` opens one that exists; `Store(path, create=True)` makes it at need.

    `cancel` ends waiting for other processes, while it is opened and before a load (`Cancelled`).
    Raises `StoreError` when there is none, or when it cannot be read or written. Use as a context manager, or call `close`.
    """

    def __init__(self, path: str | os.PathLike[str], *, create: bool = False, cancel: Cancel | None = None) -> None:
        super().__init__(path, create=create)
        self._cancel = cancel
        with locked(self.lock("ledger"), cancel=cancel):
            self.ledger = Ledger(os.path.join(self.path, LEDGER))
        self.foreign: list[tuple[str, str, str]] = []
        self._heal()

    def close(self) -> None:
        self.ledger.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def actor(self, user: str | None, account: str | None) -> Actor:
        """Who acts here: `account` None means the store's own (see `current_actor` for the rest)."""
        return current_actor(account or self.settings().get("account") or DEFAULT_ACCOUNT, user)

    # --- settings ----------------------------------------------------------------------------------------------------

    def settings(self) -> dict[str, str]:
        """registry (absent before the first load when init did not set it), region, account, org_quota; empty before init."""
        with self.ledger.read() as connection:
            return read_settings(connection)

    def identity(self) -> str:
        """What tells this store's chain of events from another's: the id of its first event ("" before it)."""
        with self.ledger.read() as connection:
            return chain_identity(connection)

    def init(self, *, actor: Actor | None = None, **given: str | int | None) -> dict[str, str]:
        """Set what is given (`initial_settings` by name) and the defaults of the rest; what is set stays. Returns all settings.

        `actor` becomes the administrator of the store's account if it has none; without an actor, whoever makes the account's
        first organization will. A store that has another value already is a `UsageError`; but the quota of organizations (guide
        9.1.5) and the profile that imports must have can be changed, by an `actor` who is an administrator (others: `Refused`).
        """
        chosen = {name: str(value) for name, value in given.items() if value is not None}
        defaults = initial_settings(**given)  # type: ignore[arg-type]
        with acting(self.ledger, actor or current_actor(DEFAULT_ACCOUNT, None)) as act:
            return set_up(act, chosen, defaults, place=self.path, asserted=actor is not None)

    # --- loading -----------------------------------------------------------------------------------------------------

    def known_layers(self, diff_ids: Iterable[Digest], media_type: str) -> dict[Digest, tuple[Digest, int]]:
        """Blobs that hold these layers and are really there, with the right size: diff_id → (digest, size in bytes)."""
        with self.ledger.read() as connection:
            known = known_layers(connection, diff_ids, media_type)
        return {diff_id: blob for diff_id, blob in known.items() if self.layout.blob_size(blob[0]) == blob[1]}

    def judge(
        self, attempts: Sequence[Attempt], actor: Actor, rules: LoadRules, planned: LoadState | None = None
    ) -> list[tuple[Decision, ...]]:
        """What a load of these attempts would decide, in order, without changing anything.

        `planned` carries the effects of the attempts before them from call to call (a check of many groups).
        """
        with self.ledger.read() as connection:
            state = self._state(connection, attempts, actor, rules)
        if planned is None:
            planned = state
        else:
            planned.add(state)
        return [judge_attempt(attempt, planned, actor, rules) for attempt in attempts]

    def load(self, attempts: Sequence[Attempt], actor: Actor, rules: LoadRules, run_id: str, tmp: str) -> list[LoadResult]:
        """Load a group of images, in order, as one transaction; durable, links included, when it returns."""
        judged = self.judge(attempts, actor, rules)
        # What the store's rules refuse gets its issues now, and what is skipped is left out: no blob of either is published.
        attempts = [with_refusals(LoadResult(a, decisions)).attempt for a, decisions in zip(attempts, judged, strict=True)]
        wanted = [not a.refused and any(d.status != "skipped" for d in made) for a, made in zip(attempts, judged, strict=True)]
        blobs = {blob.digest: blob for attempt in itertools.compress(attempts, wanted) for blob in attempt.blobs}
        self.layout.publish(blobs.values())
        changes: dict[tuple[str, str], tuple[ImageRecord, Manifest]] = {}
        loaded: list[tuple[Reference, str]] = []
        results = []
        with self.ledger.write(self._cancel) as connection:
            now = now_ms()
            state = self._state(connection, attempts, actor, rules)
            traces: list[Trace] = []
            counts = []
            for number, attempt in enumerate(attempts):
                decisions = judge_attempt(attempt, state, actor, rules)
                if not wanted[number] and any(d.status in ("loaded", "overwritten") for d in decisions):
                    # The tag for which it was to be skipped went meanwhile.
                    self.layout.publish(attempt.blobs)
                    wanted[number] = True
                before = len(traces)
                traces += traces_of(attempt, decisions, actor, run_id, now)
                counts.append((attempt, decisions, len(traces) - before))
                for reference, decision in zip(attempt.references, decisions, strict=False):
                    if decision.status in ("loaded", "overwritten"):
                        assert attempt.manifest is not None and attempt.record is not None
                        changes[reference.path, reference.tag] = (attempt.record, attempt.manifest)
                        loaded.append((reference, attempt.record.digest))
            registry = {"registry": state.settings["registry"]} if "registry" in state.settings else {}
            if changes:
                write_settings(connection, {**rules.defaults, **registry})
            write_loads(connection, state, {key: record for key, (record, _) in changes.items()}, actor, now)
            write_layer_blobs(connection, self._new_notes(connection, itertools.compress(attempts, wanted)))
            note_runs(connection, state, loaded, actor, run_id, now)
            rows = append_events(connection, traces)
        taken = 0
        for attempt, decisions, count in counts:
            results.append(with_refusals(LoadResult(attempt, decisions, rows[taken : taken + count])))
            taken += count
        self._link({key: (state.tags[key].generation, manifest) for key, (_, manifest) in changes.items()}, tmp)
        return results

    def _new_notes(self, connection: Connection, attempts: Iterable[Attempt]) -> list[dict[str, Any]]:
        """The notes of the diff_id → blob map that are missing, or whose blob is: what was noted first stays.

        So an image that is imported again gets the blobs, and with them the manifest digest, that it got before.
        """
        notes: dict[tuple[str, str], dict[str, Any]] = {}
        for attempt in attempts:
            for note in attempt.layer_notes:
                notes.setdefault((note["media_type"], note["diff_id"]), note)
        for media_type in {media_type for media_type, _ in notes}:
            ids = [Digest.parse(diff_id) for kind, diff_id in notes if kind == media_type]
            for diff_id, (digest, size) in known_layers(connection, ids, media_type).items():
                if self.layout.blob_size(digest) == size:
                    del notes[media_type, str(diff_id)]
        return list(notes.values())

    def _state(self, connection: Any, attempts: Sequence[Attempt], actor: Actor, rules: LoadRules) -> LoadState:
        references = [reference for attempt in attempts for reference in attempt.references]
        state = read_state(connection, references, actor, rules)
        for reference in references:
            key = (reference.path, reference.tag)
            link = self.layout.read_tag(*key)
            served = str(link) if link else None
            row = state.tags.get(key)
            if row is not None and row.pending and served not in (None, row.linked, row.digest):
                # A load before the pending one may have written its link late: that is ours, and about to be replaced.
                served = row.linked if served in self._replaced(reference.name, row.linked) else served
            state.served[key] = served
        for row in connection.execute(select(tag_removals)):
            # Deleted, and its link is about to go: nothing is there.
            key, tag = (row.path, row.tag), state.tags.get((row.path, row.tag))
            if state.served.get(key) in (row.digest, row.linked_digest) and (tag is None or tag.pending):
                state.served[key] = None
        return state

    def _link(self, wanted: dict[tuple[str, str], tuple[int, Manifest]], tmp: str) -> None:
        """Write the links of tags whose rows still have the generation that they were planned for."""
        if not wanted:
            return
        with locked(self.lock("links")):
            links: list[Link] = []
            cleared = []
            for key, row in self._rows(wanted):
                generation, manifest = wanted[key]
                # The digest too: a tag that was deleted meanwhile and loaded anew counts from the beginning.
                if row.generation == generation and row.digest == str(manifest.digest):
                    links += self.layout.links_of(*key, manifest)
                    cleared.append({"key": row.id, "planned": generation, "linked": row.digest})
            self.layout.write_links(links, tmp)
            self._clear_pending(cleared)

    def _clear_pending(self, cleared: list[dict[str, Any]]) -> None:
        if not cleared:
            return
        statement = (
            update(tags)
            .where(tags.c.id == bindparam("key"), tags.c.generation == bindparam("planned"))
            .values(link_pending=False, linked_digest=bindparam("linked"))
        )
        with self.ledger.write() as connection:
            connection.execute(statement, cleared)

    def _rows(self, keys: Iterable[tuple[str, str]]) -> Iterator[tuple[tuple[str, str], Any]]:
        """The rows of these tags, as ((repository path, tag), row)."""
        split = [(*path.split("/", 1), tag) for path, tag in keys]
        with self.ledger.read() as connection:
            for start in range(0, len(split), _PENDING_BATCH):
                chunk = split[start : start + _PENDING_BATCH]
                statement = tag_query().where(tuple_(organizations.c.name, repositories.c.name, tags.c.tag).in_(chunk))
                for row in connection.execute(statement):
                    yield (tag_path(row), row.tag), row

    # --- deleting ----------------------------------------------------------------------------------------------------

    @contextmanager
    def deleting(self, actor: Actor, *, dry_run: bool = False) -> Iterator[Acting]:
        """A transaction for acts that delete tags (`ledger.deletions`); their links are gone when it ends.

        A link that somebody else wrote since is kept, and noted in `foreign`. The lock of the links is held throughout, so that
        no load writes links for rows that are deleted meanwhile; that of the sweep is shared, so that no repair does either.
        """
        with locked(self.lock("sweep"), shared=True), locked(self.lock("links")):
            with acting(self.ledger, actor, dry_run=dry_run) as act:
                yield act
            self._remove_links()

    def _remove_links(self) -> None:
        """Remove the links of deleted tags; the lock of the links is held."""
        with self.ledger.read() as connection:
            marks = connection.execute(select(tag_removals).order_by(tag_removals.c.id)).all()
        loaded = dict(self._rows((mark.path, mark.tag) for mark in marks))
        gone: dict[str, dict[str, Digest]] = {}
        for mark in marks:
            names = gone.setdefault(mark.path, {})
            row = loaded.get((mark.path, mark.tag))
            if row is not None and not row.link_pending:
                continue  # loaded again since: the link is that of the new one
            served = self.layout.read_tag(mark.path, mark.tag)
            ours = served is None or str(served) in (mark.digest, mark.linked_digest)
            if ours or str(served) in self._replaced(f"{mark.path}:{mark.tag}", mark.linked_digest):
                names[mark.tag] = Digest.parse(mark.digest)
            else:
                self.foreign.append((mark.path, mark.tag, str(served)))
        for path, names in gone.items():
            there, digests = self._digests_in(path)
            self.layout.remove_tags(path, names, set(names.values()) - digests)
            if not there:
                self.layout.remove_repository(path)
        if marks:
            with self.ledger.write() as connection:
                connection.execute(delete(tag_removals).where(tag_removals.c.id <= marks[-1].id))

    def _digests_in(self, path: str) -> tuple[bool, set[Digest]]:
        """Whether a repository is in the ledger, and the digests of its tags."""
        organization, _, repository = path.partition("/")
        named = (organizations.c.name == organization, repositories.c.name == repository)
        with self.ledger.read() as connection:
            joined = repositories.join(organizations).outerjoin(tags)
            found = connection.execute(select(tags.c.digest).distinct().select_from(joined).where(*named)).scalars().all()
        return bool(found), {Digest.parse(digest) for digest in found if digest is not None}

    # --- healing -----------------------------------------------------------------------------------------------------

    def _heal(self) -> None:
        """Write and remove the links that a crash left; a link that somebody else wrote since is kept, and noted in `foreign`."""
        with self.ledger.read() as connection:
            pending = connection.execute(select(tags.c.id).where(tags.c.link_pending).limit(1)).first()
            if not pending and not connection.execute(select(tag_removals.c.id).limit(1)).first():
                return
        with run_folder(self.tmp, f"heal-{os.getpid()}-{time.monotonic_ns()}") as tmp, locked(self.lock("links")):
            self._remove_links()
            with self.ledger.read() as connection:
                rows = connection.execute(tag_query().where(tags.c.link_pending)).all()
            links: list[Link] = []
            cleared = []
            for row in rows:
                path = tag_path(row)
                served = self.layout.read_tag(path, row.tag)
                ours = served is None or str(served) in (row.digest, row.linked_digest)
                ours = ours or str(served) in self._replaced(f"{path}:{row.tag}", row.linked_digest)
                if ours:
                    try:
                        manifest = self.manifest(Digest.parse(row.digest))
                    except StoreError:
                        # Its image is damaged: the store opens all the same, `verify` says what is wrong.
                        continue
                    links += self.layout.links_of(path, row.tag, manifest)
                else:
                    self.foreign.append((path, row.tag, str(served)))
                linked = row.digest if ours else row.linked_digest
                cleared.append({"key": row.id, "planned": row.generation, "linked": linked})
            self.layout.write_links(links, tmp)
            self._clear_pending(cleared)

    def _replaced(self, name: str, linked: str | None) -> set[str]:
        """The digests that loads of a tag replaced after `linked`: one of the loads may have been killed after its link."""
        told = select(events.c.text).where(
            events.c.trace_name == "uploadImagePackage",
            events.c.text.contains(f'"resource_name":{canonical_json(name)}', autoescape=True),
        )
        found: set[str] = set()
        with self.ledger.read() as connection:
            for text in connection.execute(told.order_by(events.c.seq.desc())).scalars():
                trace = json.loads(text)
                if trace["trace_rating"] == "normal" and trace["resource_name"] == name:
                    previous = json.loads(trace["response"])["previous_digest"]
                    if previous in (None, linked):
                        break
                    found.add(previous)
        return found

    def manifest(self, digest: Digest) -> Manifest:
        """A stored manifest, parsed; `StoreError` when it is missing or damaged."""
        raw = self.layout.read_blob(digest, MAX_OCI_MANIFEST)
        if raw is None or Digest.of(raw) != digest:
            state = "missing" if raw is None else "damaged"
            raise StoreError(f"the manifest {digest} is {state} in {self.path}: import its archive again (see verify --deep)")
        try:
            return Manifest.parse(raw)
        except ValueError as e:
            raise StoreError(f"the manifest {digest} cannot be read: {e}") from e

    # --- reading -----------------------------------------------------------------------------------------------------

    def tag_rows(self) -> list[Any]:
        """The tag table with its names: organization, repository and the columns of `tags`, ordered by name."""
        statement = tag_query().order_by(organizations.c.name, repositories.c.name, tags.c.tag)
        with self.ledger.read() as connection:
            return list(connection.execute(statement))

    def images(self) -> list[dict[str, Any]]:
        """Every tag of the store, one dict each.

        Keys: reference, registry, organization, repository, tag, digest, media_type, image_id, architecture, os, layers,
        uncompressed_bytes, stored_bytes, archive, account, user, updated (ms UTC), pull (the command that fetches it).
        """
        registry = self.settings().get("registry", "")
        listed = []
        for row in self.tag_rows():
            reference = str(Reference(registry, row.organization, row.repository, row.tag))
            listed.append(
                {
                    "reference": reference,
                    "registry": registry,
                    "organization": row.organization,
                    "repository": row.repository,
                    "tag": row.tag,
                    **{name: getattr(row, name) for name in ImageRecord.__slots__},
                    "account": row.account,
                    "user": row.user,
                    "updated": row.updated_ms,
                    "pull": f"docker pull {reference}",
                }
            )
        return listed

    def to_pandas(self) -> pd.DataFrame:
        """`images()` as a DataFrame; `updated` is datetime64[ms, UTC]."""
        import pandas as pd

        names = ["reference", "registry", "organization", "repository", "tag", *ImageRecord.__slots__]
        frame = pd.DataFrame(self.images(), columns=[*names, "account", "user", "updated", "pull"])
        frame["updated"] = pd.to_datetime(frame["updated"], unit="ms", utc=True).astype("datetime64[ms, UTC]")
        return frame


def tag_query() -> Any:
    """The tag table with the names of its repository and organization."""
    joined = tags.join(repositories).join(organizations)
    return select(tags, repositories.c.name.label("repository"), organizations.c.name.label("organization")).select_from(joined)


def tag_path(row: Any) -> str:
    """ORG/REPO of a row of `tag_query`."""
    return f"{row.organization}/{row.repository}"


def tag_name(row: Any) -> str:
    """ORG/REPO:TAG of a row of `tag_query`."""
    return f"{tag_path(row)}:{row.tag}"


# --- who, and what init sets --------------------------------------------------------------------------------------------


def initial_settings(
    *,
    registry: str | None = None,
    region: str | None = None,
    account: str | None = None,
    org_quota: int | None = None,
    require_profile: str | None = None,
) -> dict[str, str]:
    """What `init`, or the import that makes a store, writes down."""
    chosen = {
        "region": region or DEFAULT_REGION,
        "account": account or DEFAULT_ACCOUNT,
        "org_quota": str(DEFAULT_QUOTA if org_quota is None else org_quota),
    }
    wanted = {"registry": registry, "require_profile": require_profile}
    return chosen | {name: value for name, value in wanted.items() if value}
