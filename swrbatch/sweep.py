"""Garbage collection: blobs that nothing in the store needs any more go, by the registry server's own rules (mark, then sweep).

Marked is what a tag reaches, be it the ledger's or one that something else pushed into the served store: its manifest, those
that an index names, their configs and layers. A revision that no tag has is given up (the server's `--delete-untagged`), or
marked too (`keep_untagged`, the server's default). What is younger than `min_age_ms` stays, for a push into the served store
writes blobs and revisions before the tag.

What this module guarantees:

* nothing is removed while a tag's manifest cannot be read, for what it needs is not known then;
* a sweep excludes loads (the architecture's guarantee 11): they hold the sweep's lock shared from the moment they decide to reuse
  a blob; notes of layers are forgotten in a transaction, with the event, before their blobs go;
* a crash leaves blobs that nothing refers to, and the next sweep takes them.

A push into a served store is no load and takes no lock: as with the server's own garbage collection, serve read-only meanwhile.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import delete

from .archive import MAX_OCI_MANIFEST
from .cts import Actor, new_run_id, now_ms
from .digest import Cancel, Digest
from .disk import locked
from .errors import StoreError
from .ledger.access import account_facts
from .ledger.acting import Acting, acting
from .ledger.loads import read_settings
from .ledger.schema import layer_blobs
from .rights import Act
from .store import Store, tag_path

MIN_AGE_MS: Final = 3_600_000
"""One hour: what is younger stays."""
_MANY: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """What a sweep removes, or would: `blobs` with their sizes in bytes, `revisions` as (repository, digest).

    `layer_links` of repositories go too. `spared` blobs would go but for their age, or that of the untagged image that has them.
    """

    blobs: tuple[tuple[Digest, int], ...] = ()
    revisions: tuple[tuple[str, Digest], ...] = ()
    layer_links: tuple[tuple[str, Digest], ...] = ()
    spared: int = 0
    spared_bytes: int = 0

    @property
    def size(self) -> int:
        """The bytes of the blobs."""
        return sum(size for _, size in self.blobs)

    def __bool__(self) -> bool:
        return bool(self.blobs or self.revisions or self.layer_links)


def collect_garbage(
    store: Store,
    actor: Actor,
    *,
    min_age_ms: int = MIN_AGE_MS,
    keep_untagged: bool = False,
    dry_run: bool = False,
    cancel: Cancel | None = None,
) -> Garbage:
    """Remove what nothing needs; see the module. Waits until the loads under way have ended; a dry run does not.

    Raises `Refused` unless the actor is an administrator of the store's account, `StoreError` for a tag whose manifest cannot be
    read, `Cancelled`.
    """
    cancel, now = cancel or Cancel(), now_ms()
    run_id = new_run_id(now)
    request = {"min_age_ms": min_age_ms, "keep_untagged": keep_untagged}
    with acting(store.ledger, actor, run_id=run_id, dry_run=dry_run) as act:
        _begin(act, request)
    with locked(store.lock("sweep"), shared=dry_run, cancel=cancel), locked(store.lock("links"), cancel=cancel):
        garbage = _Marking(store, now - min_age_ms, keep_untagged, cancel).run()
        if not garbage or dry_run:
            return garbage
        for repository in sorted({path for path, _ in (*garbage.revisions, *garbage.layer_links)}):
            revisions, layers = ([d for p, d in gone if p == repository] for gone in (garbage.revisions, garbage.layer_links))
            store.layout.forget(repository, revisions, layers)
            if not store.layout.layer_links(repository):
                store.layout.remove_repository(repository)
        store.layout.sync()
        with acting(store.ledger, actor, run_id=run_id) as act:
            _begin(act, request)
            _forget_notes(act, garbage.blobs)
            counts = {"blobs": len(garbage.blobs), "bytes": garbage.size, "revisions": len(garbage.revisions)}
            act.changed("deleted", "garbage", before=counts, after=None)
        store.layout.remove_blobs(digest for digest, _ in garbage.blobs)
    return garbage


def _begin(act: Acting, request: dict[str, Any]) -> None:
    account = read_settings(act.connection).get("account", act.actor.account)
    act.begins("collectGarbage", "swrbatch", request)
    act.require(Act.GC, account_facts(act.connection, act.actor, account))


def _forget_notes(act: Acting, blobs: tuple[tuple[Digest, int], ...]) -> None:
    for start in range(0, len(blobs), _MANY):
        digests = [str(digest) for digest, _ in blobs[start : start + _MANY]]
        act.connection.execute(delete(layer_blobs).where(layer_blobs.c.digest.in_(digests)))


@dataclass(slots=True)
class _Marking:
    """One walk over the tree: what is needed, and what is not."""

    store: Store
    before_ms: int
    keep_untagged: bool
    cancel: Cancel
    _needed: set[Digest] = field(default_factory=set)
    _held: set[Digest] = field(default_factory=set)
    _read: dict[Digest, tuple[tuple[Digest, ...], tuple[Digest, ...]] | None] = field(default_factory=dict)

    def run(self) -> Garbage:
        layout = self.store.layout
        rows: dict[str, set[Digest]] = {}
        for row in self.store.tag_rows():
            rows.setdefault(tag_path(row), set()).add(Digest.parse(row.digest))
        served: dict[str, set[Digest]] = {}
        for repository, tag, digest in layout.tags():
            self.cancel.check()
            if digest is None:
                raise StoreError(
                    f"nothing was removed: the link of {repository}:{tag} holds no digest, so what it needs is not known; "
                    "mend it (swrbatch verify --repair, if it is one of the ledger's) or remove the tag's folder, then run again"
                )
            served.setdefault(repository, set()).add(digest)
        revisions: list[tuple[str, Digest]] = []
        links: list[tuple[str, Digest]] = []
        for repository in sorted({*rows, *served, *layout.repositories()}):
            self.cancel.check()
            tagged = self._reached(repository, rows.get(repository, set()) | served.get(repository, set()), tagged=True)
            untagged = [digest for digest in layout.revisions(repository) if digest not in tagged]
            young = {digest for digest in untagged if self._young(layout.revision_link(repository, digest))}
            held = self._reached(repository, untagged if self.keep_untagged else young, tagged=False)
            needed = tagged | held
            revisions += [(repository, digest) for digest in untagged if digest not in needed]
            links += [
                (repository, digest)
                for digest in layout.layer_links(repository)
                if digest not in needed and not self._young(layout.layer_link(repository, digest))
            ]
            self._needed |= needed if self.keep_untagged else tagged
            self._held |= held
        return self._garbage(revisions, links)

    def _garbage(self, revisions: list[tuple[str, Digest]], links: list[tuple[str, Digest]]) -> Garbage:
        layout = self.store.layout
        blobs: list[tuple[Digest, int]] = []
        spared: list[int] = []
        for digest in layout.blobs():
            self.cancel.check()
            if digest in self._needed:
                continue
            size = layout.blob_size(digest) or 0
            if digest in self._held or self._young(layout.blob_path(digest)):
                spared.append(size)
            else:
                blobs.append((digest, size))
        return Garbage(
            blobs=tuple(sorted(blobs)),
            revisions=tuple(revisions),
            layer_links=tuple(links),
            spared=len(spared),
            spared_bytes=sum(spared),
        )

    def _young(self, path: str) -> bool:
        try:
            return os.stat(path).st_mtime_ns // 1_000_000 > self.before_ms
        except FileNotFoundError:
            return False

    def _reached(self, repository: str, roots: Iterable[Digest], *, tagged: bool) -> set[Digest]:
        """The manifests that these are or name, and the blobs of all of them."""
        found: set[Digest] = set()
        waiting = list(roots)
        while waiting:
            digest = waiting.pop()
            if digest in found:
                continue
            found.add(digest)
            named = self._named(digest)
            if named is not None:
                manifests, blobs = named
                waiting += manifests
                found.update(blobs)
            elif tagged:
                raise StoreError(
                    f"nothing was removed: the manifest {digest} of a tag of {repository} is missing or damaged, so what it "
                    "needs is not known; import its archive again or delete the tag (swrbatch verify names it), then run again"
                )
        return found

    def _named(self, digest: Digest) -> tuple[tuple[Digest, ...], tuple[Digest, ...]] | None:
        """The manifests and the blobs that a manifest names; None when it cannot be read."""
        if digest not in self._read:
            raw = self.store.layout.read_blob(digest, MAX_OCI_MANIFEST)
            whole = raw is not None and Digest.of(raw) == digest
            self._read[digest] = _names(raw) if raw is not None and whole else None
        return self._read[digest]


def _names(raw: bytes) -> tuple[tuple[Digest, ...], tuple[Digest, ...]] | None:
    """What a manifest or an index of any kind names: manifests, then blobs (also those of artifacts and of schema 1)."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    blobs = [value.get("config"), *_items(value, "layers"), *_items(value, "blobs")]
    plain = [item.get("blobSum") for item in _items(value, "fsLayers")]
    named = [item.get("digest") for item in blobs if isinstance(item, dict)]
    return tuple(_digests(item.get("digest") for item in _items(value, "manifests"))), tuple(_digests([*named, *plain]))


def _items(value: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = value.get(key)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _digests(texts: Iterable[object]) -> Iterator[Digest]:
    """Those that the store can hold."""
    for text in texts:
        try:
            yield Digest.parse(text if isinstance(text, str) else "")
        except ValueError:
            continue
