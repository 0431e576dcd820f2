"""Does a store hold what its ledger says? Found, located, and repaired as far as that loses nothing.

Without `deep`: every manifest is hashed, every other blob is there with its size, every link holds its digest, the chain of
events fits and its replay gives the tag table, the diff_id → blob map is true. With `deep`: every blob is hashed, every layer's
content is compared with the diff_id in its config, and SQLite looks at every page of the ledger.

`repair` writes missing or damaged links of tags again (of those that the events vouch for), forgets notes of blobs that are
gone, and moves damaged blobs to `<store>/quarantine`, for a registry serves a blob without hashing it and an import takes a
blob that is there. Then the archives must be imported again; nothing is deleted.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete, select, tuple_

from .archive import MAX_CONFIG, MAX_DECOMPRESSED, MAX_OCI_MANIFEST
from .compression import Compression, sniff
from .digest import Cancel, Digest, Extent, hash_extent
from .disk import disk_errors, locked, run_folder
from .errors import ArchiveFault, Issue, has_errors, issue
from .image import ImageConfig, Manifest
from .layers import Budget, LayerReading, LayerSource
from .layout import Link
from .ledger.events import verify_chain
from .ledger.schema import layer_blobs, tags
from .sizes import counted
from .store import Store, tag_name, tag_path, tag_query

_MANY = 400
"""Keys in one statement: far below the bound parameters that a database takes."""
_SHOWN = 5
"""Tags that an issue about a blob names, at most."""


@dataclass(slots=True)
class VerifyResult:
    """What was found (`issues`), what was done about it (`repaired`, a sentence each), and how much was looked at.

    `unreferenced` blobs belong to no tag of the ledger: refused loads, foreign tags, or what a crash left.
    """

    tags: int = 0
    events: int = 0
    blobs: int = 0
    unreferenced: int = 0
    unreferenced_bytes: int = 0
    bytes_hashed: int = 0
    issues: list[Issue] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    repaired_zh: list[str] = field(default_factory=list)

    def tell(self, sentence: str, sentence_zh: str) -> None:
        """Note what was done."""
        self.repaired.append(sentence)
        self.repaired_zh.append(sentence_zh)

    @property
    def ok(self) -> bool:
        """No error is left; warnings (a foreign tag) may be."""
        return not has_errors(self.issues)


@dataclass(slots=True)
class _Found:
    """Notes for the repair, and what the deep look needs."""

    links: list[tuple[Any, list[Link], list[Issue]]] = field(default_factory=list)
    stale: list[tuple[str, str]] = field(default_factory=list)
    corrupt: dict[Digest, Issue] = field(default_factory=dict)
    users: dict[Digest, list[str]] = field(default_factory=dict)
    layers: dict[Digest, dict[Digest, str]] = field(default_factory=dict)
    events: dict[str, str] = field(default_factory=dict)
    repairable: list[Issue] = field(default_factory=list)

    def use(self, digest: Digest, name: str) -> None:
        """Note that a tag needs a blob."""
        self.users.setdefault(digest, []).append(name)

    def place(self, digest: Digest) -> str:
        """The tags that need a blob, the first few by name."""
        names = list(dict.fromkeys(self.users.get(digest, ())))
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return ", ".join(names[:_SHOWN]) + more


def verify_store(
    store: Store, *, deep: bool = False, repair: bool = False, jobs: int | None = None, cancel: Cancel | None = None
) -> VerifyResult:
    """Verify a store; see the module. Raises `StoreError` when it cannot be read, `Cancelled`.

    Loads may go on meanwhile, but not during a repair: one that reused a damaged blob would lose it.
    """
    cancel = cancel or Cancel()
    result, found = VerifyResult(), _Found()
    with locked(store.lock("sweep"), shared=not repair, cancel=cancel):
        # Rows and links are held against each other while no load writes links: what differs then was changed by others.
        with locked(store.lock("links"), cancel=cancel):
            with store.ledger.read() as connection:
                rows = connection.execute(tag_query()).all()
                notes = connection.execute(select(layer_blobs)).all()
            for row in rows:
                cancel.check()
                result.issues += _check_tag(store, row, found)
            result.issues += _foreign_tags(store, {(tag_path(row), row.tag) for row in rows})
        result.tags = len(rows)
        with store.ledger.read() as connection:
            # Rows and events of one moment; that of above may be past, for this may take long.
            found.events = {tag_name(row): row.digest for row in connection.execute(tag_query())}
            chain_issues, replayed, result.events = verify_chain(connection)
        result.issues += chain_issues or _compare_replay(found.events, replayed)
        if deep:
            result.issues += [issue("ledger-damaged", place="ledger.db", detail=detail) for detail in store.ledger.damage()]
        store.settings()  # the one table that nothing above has read: StoreError when it cannot be
        found.events = {} if chain_issues else replayed
        for note in notes:
            if store.layout.blob_size(Digest.parse(note.digest)) != note.size:
                found.stale.append((note.diff_id, note.media_type))
                stale = issue("map-stale", place="ledger", diff_id=note.diff_id, digest=note.digest)
                result.issues.append(stale)
                found.repairable.append(stale)
        _check_blobs(store, result, found, deep, jobs, cancel)
        if repair:
            _repair(store, result, found)
    return result


def _compare_replay(actual: dict[str, str], replayed: dict[str, str]) -> Iterator[Issue]:
    for name in sorted(actual.keys() | replayed.keys()):
        want, have = replayed.get(name, "nothing"), actual.get(name, "nothing")
        if want != have:
            yield issue("replay-differs", place="events", reference=name, expected=want, actual=have)


def _check_tag(store: Store, row: Any, found: _Found) -> Iterator[Issue]:
    name, digest = tag_name(row), Digest.parse(row.digest)
    found.use(digest, name)
    raw = store.layout.read_blob(digest, MAX_OCI_MANIFEST)
    if raw is None:
        yield issue("blob-missing", place=name, digest=digest, reference=name, source=row.archive)
        return
    if Digest.of(raw) != digest:
        found.corrupt[digest] = issue("blob-corrupt", place=name, digest=digest, detail="the content has another digest")
        return
    try:
        manifest = Manifest.parse(raw)
    except ValueError as e:
        yield issue("manifest-invalid", place=name, digest=digest, reference=name, detail=str(e))
        return
    yield from _check_row(name, row, manifest)
    yield from _check_descriptors(store, name, row, manifest, found)
    if not row.link_pending:
        yield from _check_links(store, name, row, manifest, found)


def _check_row(name: str, row: Any, manifest: Manifest) -> Iterator[Issue]:
    """What a tag's row says beside the digest, which the replay of the events covers."""
    for what, want, have in (
        ("image ID", str(manifest.config.digest), row.image_id),
        ("media type", manifest.media_type, row.media_type),
        ("number of layers", len(manifest.layers), row.layers),
    ):
        if want != have:
            yield issue("replay-differs", place=name, reference=f"the {what} of {name}", expected=want, actual=have)


def _check_descriptors(store: Store, name: str, row: Any, manifest: Manifest, found: _Found) -> Iterator[Issue]:
    for descriptor in (manifest.config, *manifest.layers):
        size = store.layout.blob_size(descriptor.digest)
        found.use(descriptor.digest, name)
        if size is None:
            yield issue("blob-missing", place=name, digest=descriptor.digest, reference=name, source=row.archive)
        elif size != descriptor.size:
            detail = f"{size} bytes instead of {descriptor.size}"
            found.corrupt[descriptor.digest] = issue("blob-corrupt", place=name, digest=descriptor.digest, detail=detail)
    raw = store.layout.read_blob(manifest.config.digest, MAX_CONFIG)
    if raw is None or Digest.of(raw) != manifest.config.digest:
        return
    try:
        diff_ids = ImageConfig.parse(raw, "the config").diff_ids
    except ArchiveFault as e:
        yield issue("manifest-invalid", place=name, digest=manifest.digest, reference=name, detail=e.issue.message)
        return
    for descriptor, diff_id in zip(manifest.layers, diff_ids, strict=False):
        found.layers.setdefault(descriptor.digest, {})[diff_id] = name


def _check_links(store: Store, name: str, row: Any, manifest: Manifest, found: _Found) -> Iterator[Issue]:
    served = store.layout.read_tag(tag_path(row), row.tag)
    if served is not None and served != manifest.digest:
        yield issue("foreign-overwrite", place=name, reference=name, actual=served, expected=manifest.digest)
        return
    wrong, faults = [], []
    for link in store.layout.links_of(tag_path(row), row.tag, manifest):
        if store.layout.read_link(link.path) == link.digest:
            continue
        shown = os.path.relpath(link.path, store.path)
        code = "link-invalid" if os.path.exists(link.path) else "link-missing"
        wrong.append(link)
        faults.append(issue(code, place=name, path=shown, reference=name))
    if wrong:
        found.links.append((row, wrong, faults))
    yield from faults


def _foreign_tags(store: Store, ours: set[tuple[str, str]]) -> Iterator[Issue]:
    """Tags that the registry serves and the ledger does not know: something was pushed into the served store."""
    for repository, tag, digest in store.layout.tags():
        if (repository, tag) not in ours:
            name = f"{repository}:{tag}"
            if digest is None:
                yield issue("link-invalid", place=name, path=f"the current link of {name}", reference=name)
            else:
                yield issue("foreign-tag", place=name, reference=name, digest=digest)


def _check_blobs(store: Store, result: VerifyResult, found: _Found, deep: bool, jobs: int | None, cancel: Cancel) -> None:
    def look(digest: Digest) -> tuple[Digest, int, Issue | None]:
        cancel.check()
        size = store.layout.blob_size(digest) or 0
        return digest, size, _hash_blob(store, digest, size, found, cancel) if deep else None

    with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        for digest, size, fault in pool.map(look, store.layout.blobs()):
            result.blobs += 1
            result.bytes_hashed += size if deep else 0
            if digest not in found.users:
                result.unreferenced += 1
                result.unreferenced_bytes += size
            if fault is not None and fault.code != "blob-corrupt":
                result.issues.append(fault)
            elif fault is not None:
                found.corrupt.setdefault(digest, fault)
    result.issues += (fault.at(place=found.place(digest) or fault.place) for digest, fault in found.corrupt.items())


def _hash_blob(store: Store, digest: Digest, size: int, found: _Found, cancel: Cancel) -> Issue | None:
    """Hash one blob; a layer's content is decompressed in the same reading and held against its diff_id."""
    path = store.layout.blob_path(digest)
    with disk_errors("a blob cannot be read"):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            extent = Extent(fd, 0, size)
            claims = found.layers.get(digest, {})
            name = next(iter(claims.values()), path)
            if not claims:
                actual, content = hash_extent(extent, cancel), None
            else:
                layer = LayerSource(extent, sniff(extent.read(6)))
                facts = layer.copy_to(None, Compression.NONE, LayerReading(Budget(MAX_DECOMPRESSED, size), cancel))
                actual, content = facts.source_digest, facts.diff_id
        except ArchiveFault as e:
            return issue("blob-corrupt", place=name, digest=digest, detail=e.issue.message)
        except EOFError:
            return issue("blob-corrupt", place=path, digest=digest, detail="it ends early")
        finally:
            os.close(fd)
    if actual != digest:
        return issue("blob-corrupt", place=path, digest=digest, detail=f"its content is {actual}")
    for diff_id, name in claims.items():
        if content != diff_id:
            # Not damage of this blob, and nothing to set aside: the config of that image is wrong.
            detail = f"the layer {digest} is {content}, the config says {diff_id}"
            return issue("manifest-invalid", place=name, digest=digest, reference=name, detail=detail)
    return None


def _repair(store: Store, result: VerifyResult, found: _Found) -> None:
    with run_folder(store.tmp, f"verify-{os.getpid()}-{time.monotonic_ns()}") as tmp, locked(store.lock("links")):
        for row, links, mended in _trusted(store, found):
            store.layout.write_links(links, tmp)
            found.repairable += mended
            count, name = len(links), tag_name(row)
            result.tell(f"{counted(count, 'link')} of {name} written again", f"{name}的{count}个链接已重新写入")
    forgotten = 0
    with store.ledger.write() as connection:
        for start in range(0, len(found.stale), _MANY):
            keys = tuple_(layer_blobs.c.diff_id, layer_blobs.c.media_type)
            forgotten += connection.execute(delete(layer_blobs).where(keys.in_(found.stale[start : start + _MANY]))).rowcount
        for digest in found.corrupt:
            forgotten += connection.execute(delete(layer_blobs).where(layer_blobs.c.digest == str(digest))).rowcount
    if forgotten:
        result.tell(f"{counted(forgotten, 'note')} of layers forgotten", f"{forgotten}条层记录已删除")
    for digest in found.corrupt:
        place = _set_aside(store, digest)
        result.tell(f"{digest} was moved to {place}", f"{digest}已移至{place}")
    done = {id(each) for each in found.repairable}
    result.issues = [each for each in result.issues if id(each) not in done]


def _set_aside(store: Store, digest: Digest) -> str:
    """Move a damaged blob out of the registry's sight, beside what was set aside before; where to, within the store."""
    with disk_errors("a damaged blob cannot be set aside"):
        os.makedirs(os.path.join(store.path, "quarantine"), exist_ok=True)
        names = itertools.chain([digest.hex], (f"{digest.hex}.{number}" for number in itertools.count(2)))
        place = next(path for name in names if not os.path.exists(os.path.join(store.path, path := f"quarantine/{name}")))
        os.rename(store.layout.blob_path(digest), os.path.join(store.path, place))
        store.layout.sync()
    return place


def _trusted(store: Store, found: _Found) -> Iterator[tuple[Any, list[Link], list[Issue]]]:
    """The links to write again: not those of a row that a load has changed since, nor of one that the events do not vouch for."""
    with store.ledger.read() as connection:
        now = {row.id: row.generation for row in connection.execute(select(tags.c.id, tags.c.generation))}
    for row, links, faults in found.links:
        if now.get(row.id) == row.generation and found.events.get(tag_name(row)) == row.digest:
            yield row, links, faults
