"""Store to store (guide 1.3, image synchronization): the tags that another store lacks, copied, verified, and recorded there.

What this module guarantees:

* only what is missing moves: a tag that has the same digest there is unchanged and leaves no event, a blob that is there stays;
* every byte that moves is hashed; an image with a damaged blob is refused, and the others go on;
* images arrive in groups, each one transaction of the receiving store with its events, as loads do: so a sync that was
  interrupted goes on where it was, and the receiving store's rules (registry, owner, quota, rights, conflicts) hold.

Both stores' sweeps wait meanwhile.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final

from sqlalchemy import select

from .compression import Compression
from .cts import Actor, new_run_id
from .digest import Cancel, Digest, Extent
from .errors import ArchiveFault, Issue, Refused, StoreError, UsageError, fault, issue, printable
from .image import Manifest
from .layers import Budget, LayerReading, LayerSource
from .layout import BlobWriter, StagedBlob, disk_errors, locked
from .ledger.access import find
from .ledger.acting import acting, reading
from .ledger.loads import ImageRecord, LoadRules, OnConflict
from .ledger.schema import layer_blobs
from .policy import Reference
from .rights import Act
from .store import Attempt, LoadResult, Store, initial_settings, now_ms, with_refusals

GROUP: Final = 32
"""Images that arrive together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncedTag:
    """What became of a tag, `name` as ORG/REPO:TAG: loaded, overwritten, unchanged, skipped or rejected (`issues` say why).

    `bytes`: what was copied for it; a blob that several images share counts for the first. `previous`: the digest that it had.
    """

    name: str
    status: str
    digest: str
    previous: str | None = None
    bytes: int = 0
    issues: tuple[Issue, ...] = ()


@dataclass(slots=True)
class _Group:
    """Images on their way: attempts in order, and the blobs staged for them."""

    attempts: list[Attempt] = field(default_factory=list)
    copied: list[int] = field(default_factory=list)
    staged: dict[Digest, StagedBlob] = field(default_factory=dict)


def sync_stores(
    source: Store,
    target: Store,
    actor: Actor,
    patterns: Sequence[str] = (),
    *,
    on_conflict: OnConflict = "overwrite",
    create_org: bool = True,
    dry_run: bool = False,
    cancel: Cancel | None = None,
) -> list[SyncedTag]:
    """Copy the tags of `source` that the globs match (`ORG/REPO[:TAG]`; none: all) into `target`; one result a tag, by name.

    Needs the right to download there and to upload here (a repository that may not be downloaded is refused, and that is recorded
    there). Raises `UsageError` for a glob that matches nothing or a store that is synced with itself, `StoreError`, `Cancelled`.
    """
    if os.path.realpath(source.path) == os.path.realpath(target.path):
        raise UsageError(f"{source.path} is both --from and --to: name two stores")
    return _Sync(source, target, actor, on_conflict, create_org, dry_run, cancel or Cancel()).run(patterns)


class _Sync:
    """One run."""

    def __init__(
        self,
        source: Store,
        target: Store,
        actor: Actor,
        on_conflict: OnConflict,
        create_org: bool,
        dry_run: bool,
        cancel: Cancel,
    ) -> None:
        self.source = source
        self.target = target
        self.actor = actor
        self.dry_run = dry_run
        self.cancel = cancel
        self.run_id = new_run_id(now_ms())
        settings = target.settings()
        registry = settings.get("registry") or source.settings().get("registry") or ""
        self.registry = registry
        required = settings.get("require_profile")
        self.rules = LoadRules(
            on_conflict=on_conflict,
            create_org=create_org,
            # A sync is neither an upload by the page nor one by a client: it comes as the store demands.
            profile=required if required in ("page", "client") else "client",
            defaults=initial_settings(registry=registry or None, account=actor.account),
        )

    def run(self, patterns: Sequence[str]) -> list[SyncedTag]:
        done: list[SyncedTag] = []
        with locked(os.path.join(self.source.path, "locks", "sweep"), shared=True, cancel=self.cancel):
            wanted = self._wanted(patterns)
            refused = self._refused({_path(row) for row in wanted})
            there = {_name(row): row.digest for row in self.target.tag_rows()}
            with self.target.run(self.run_id, self.cancel) as folder:
                rows = iter(wanted)
                while chunk := list(islice(rows, GROUP)):
                    self.cancel.check()
                    done += self._arrive(chunk, refused, there, folder)
        if not self.dry_run and any(each.status in ("loaded", "overwritten") for each in done):
            self._record(patterns, done)
        return done

    def _wanted(self, patterns: Sequence[str]) -> list[Any]:
        rows = self.source.tag_rows()
        if not patterns:
            return rows
        found: dict[int, Any] = {}
        for pattern in patterns:
            by_tag = ":" in pattern.rpartition("/")[2]
            matching = {row.id: row for row in rows if fnmatch.fnmatchcase(_name(row) if by_tag else _path(row), pattern)}
            if not matching:
                raise UsageError(f"{printable(pattern)} matches no tag of {self.source.path}: write ORG/REPO or ORG/REPO:TAG")
            found |= matching
        return sorted(found.values(), key=_name)

    def _refused(self, paths: set[str]) -> dict[str, Issue]:
        """The repositories that the actor may not download; each refusal is recorded in the source."""
        refusals = {}
        for path in sorted(paths):
            try:
                with reading(self.source.ledger, self.actor) as act:
                    act.begins("syncImages", path, {"to": self.target.path})
                    act.require(Act.SYNC_FROM, find(act.connection, act.actor, path, act.now).facts)
            except Refused as e:
                refusals[path] = e.issue
        return refusals

    def _arrive(self, rows: Sequence[Any], refused: dict[str, Issue], there: dict[str, str], folder: str) -> list[SyncedTag]:
        """One group; its results in the order of the rows."""
        results: dict[str, SyncedTag] = {}
        group = _Group()
        for row in rows:
            name = _name(row)
            if _path(row) in refused:
                results[name] = SyncedTag(name=name, status="rejected", digest=row.digest, issues=(refused[_path(row)],))
            elif there.get(name) == row.digest:
                results[name] = SyncedTag(name=name, status="unchanged", digest=row.digest, previous=row.digest)
            else:
                self._take(row, group, folder)
        for loaded, size in zip(self._load(group, folder), group.copied, strict=True):
            attempt, (decision,) = loaded.attempt, loaded.decisions
            name = attempt.references[0].name
            digest = attempt.record.digest if attempt.record is not None else ""
            results[name] = SyncedTag(
                name=name,
                status=decision.status,
                digest=digest,
                previous=decision.previous,
                bytes=0 if decision.status in ("rejected", "skipped") else size,
                issues=attempt.issues,
            )
        for blob in group.staged.values():
            # What was refused is not part of the store.
            with suppress(FileNotFoundError):
                os.unlink(blob.path)
        return [results[_name(row)] for row in rows]

    def _load(self, group: _Group, folder: str) -> list[LoadResult]:
        if not group.attempts:
            return []
        if not self.dry_run:
            return self.target.load(group.attempts, self.actor, self.rules, self.run_id, folder)
        judged = self.target.judge(group.attempts, self.actor, self.rules)
        return [with_refusals(LoadResult(attempt, decisions)) for attempt, decisions in zip(group.attempts, judged, strict=True)]

    def _take(self, row: Any, group: _Group, folder: str) -> None:
        """Read an image of the source, stage what the target lacks of it, and add its attempt to the group."""
        record = ImageRecord(**{name: getattr(row, name) for name in ImageRecord.__slots__})
        attempt = Attempt(
            archive=f"{self.source.path}:{_name(row)}",
            image_index=0,
            originals=(_name(row),),
            references=(Reference(self.registry, row.organization, row.repository, row.tag),),
            started_ms=now_ms(),
            record=record,
        )
        size = 0
        try:
            manifest = self.source.manifest(Digest.parse(row.digest))
            blobs = []
            for digest, length in self._needed(manifest):
                if self.target.layout.blob_size(digest) == length:
                    continue
                if digest not in group.staged:
                    size += length
                    if not self.dry_run:
                        group.staged[digest] = self._copy(digest, length, os.path.join(folder, f"sync-{digest.hex}"))
                if digest in group.staged:
                    blobs.append(group.staged[digest])
            notes = self._notes(manifest)
            attempt = replace(attempt, manifest=manifest, blobs=tuple(blobs), layer_notes=notes)
        except ArchiveFault as e:
            attempt = replace(attempt, issues=(e.issue.at(archive=attempt.archive),))
        except StoreError as e:
            broken = issue("manifest-invalid", place=_name(row), digest=row.digest, reference=_name(row), detail=str(e))
            attempt = replace(attempt, issues=(broken.at(archive=attempt.archive),))
        group.attempts.append(attempt)
        group.copied.append(size)

    @staticmethod
    def _needed(manifest: Manifest) -> Iterator[tuple[Digest, int]]:
        yield manifest.digest, len(manifest.raw)
        for descriptor in (manifest.config, *manifest.layers):
            yield descriptor.digest, descriptor.size

    def _copy(self, digest: Digest, size: int, path: str) -> StagedBlob:
        """Copy a blob of the source, hashed on the way; ArchiveFault (blob-corrupt) when it is not what it should be."""
        place = self.source.layout.blob_path(digest)
        if (found := self.source.layout.blob_size(digest)) != size:
            detail = "it is missing" if found is None else f"{found} bytes instead of {size}"
            raise fault("blob-corrupt", place=place, digest=digest, detail=detail)
        with disk_errors("a blob cannot be read"):
            fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with BlobWriter(path) as writer:
                plain = LayerSource(Extent(fd, 0, size), Compression.NONE)
                facts = plain.copy_to(writer, Compression.NONE, LayerReading(Budget(size, size), self.cancel))
                if facts.digest != digest:
                    detail = f"its content is {facts.digest}"
                    raise fault("blob-corrupt", place=place, digest=digest, detail=detail)
                return writer.done(digest)
        finally:
            os.close(fd)

    def _notes(self, manifest: Manifest) -> tuple[dict[str, Any], ...]:
        """What the source knows of the layers' contents, for the target's own map."""
        digests = sorted({str(layer.digest) for layer in manifest.layers})
        with self.source.ledger.read() as connection:
            rows = connection.execute(select(layer_blobs).where(layer_blobs.c.digest.in_(digests))).mappings()
            return tuple(dict(row) for row in rows)

    def _record(self, patterns: Sequence[str], done: Sequence[SyncedTag]) -> None:
        """One event of the run, beside those of its images."""
        kinds = ("loaded", "overwritten", "unchanged", "skipped", "rejected")
        counts = {kind: sum(each.status == kind for each in done) for kind in kinds}
        with acting(self.target.ledger, self.actor, run_id=self.run_id) as act:
            act.begins("syncImages", "swrbatch", {"from": self.source.path, "patterns": list(patterns)})
            act.changed("updated", "store", before=None, after={**counts, "bytes": sum(each.bytes for each in done)})


def _path(row: Any) -> str:
    return f"{row.organization}/{row.repository}"


def _name(row: Any) -> str:
    return f"{_path(row)}:{row.tag}"
