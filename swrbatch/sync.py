"""Store to store (guide 1.3, image synchronization): the tags that another store lacks, copied, verified, and recorded there.

What this module guarantees:

* only what is missing moves: a tag that has the same digest there is unchanged and leaves no event, a blob that is there stays;
* every byte that moves is hashed; an image with a damaged blob is refused, and the others go on;
* images arrive in groups, each one transaction of the receiving store with its events, as loads do: so a sync that was
  interrupted goes on where it was, and the receiving store's rules (registry, owner, quota, rights, conflicts) hold.

Both stores' sweeps wait meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final

from .archive import MAX_CONFIG, MAX_DECOMPRESSED
from .attempt import Attempt, Decision, ImageRecord, LoadResult, LoadRules, OnConflict, with_refusals
from .blob_writer import BlobWriter, StagedBlob
from .compression import Compression, sniff
from .cts import Actor, new_run_id, now_ms
from .digest import Cancel, Digest, Extent
from .disk import disk_errors, locked
from .errors import ArchiveFault, Issue, Refused, StoreError, UsageError, fault, issue, printable
from .export import tags_matching
from .image import MAX_TEXT, OCI_LAYER_TYPES, Descriptor, ImageConfig, Manifest
from .layers import Budget, LayerFacts, LayerReading, LayerSource
from .ledger.access import find
from .ledger.acting import acting, reading
from .policy import parse_reference
from .rights import Act
from .store import Store, initial_settings, tag_name, tag_path

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
    """Images on their way: attempts in order, and the blobs staged for them; `missing`: their sizes, of a dry run too."""

    names: list[str] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    copied: list[int] = field(default_factory=list)
    staged: dict[Digest, StagedBlob] = field(default_factory=dict)
    missing: dict[Digest, int] = field(default_factory=dict)


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
        self.layers: dict[Digest, LayerFacts] = {}
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
        with locked(self.source.lock("sweep"), shared=True, cancel=self.cancel):
            wanted = tags_matching(self.source, patterns)
            refused = self._refused({tag_path(row) for row in wanted})
            there = {tag_name(row): row.digest for row in self.target.tag_rows()}
            with self.target.run(self.run_id, self.cancel) as folder:
                rows = iter(wanted)
                while chunk := list(islice(rows, GROUP)):
                    self.cancel.check()
                    done += self._arrive(chunk, refused, there, folder)
        if not self.dry_run and any(each.status in ("loaded", "overwritten") for each in done):
            self._record(patterns, done)
        return done

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
            name = tag_name(row)
            if tag_path(row) in refused:
                results[name] = SyncedTag(name=name, status="rejected", digest=row.digest, issues=(refused[tag_path(row)],))
            elif there.get(name) == row.digest:
                results[name] = SyncedTag(name=name, status="unchanged", digest=row.digest, previous=row.digest)
            else:
                self._take(row, group, folder)
        for name, loaded, size in zip(group.names, self._load(group, folder), group.copied, strict=True):
            attempt, decision = loaded.attempt, next(iter(loaded.decisions), Decision("rejected"))
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
        return [results[tag_name(row)] for row in rows]

    def _load(self, group: _Group, folder: str) -> list[LoadResult]:
        if not group.attempts:
            return []
        if not self.dry_run:
            return self.target.load(group.attempts, self.actor, self.rules, self.run_id, folder)
        judged = self.target.judge(group.attempts, self.actor, self.rules)
        return [with_refusals(LoadResult(attempt, decisions)) for attempt, decisions in zip(group.attempts, judged, strict=True)]

    def _take(self, row: Any, group: _Group, folder: str) -> None:
        """Read an image of the source, stage what the target lacks of it, and add its attempt to the group.

        Of the source's ledger only the names and the digest are taken, and judged: everything else is read from the bytes.
        """
        name, before = tag_name(row), sum(group.missing.values())
        attempt = Attempt(
            archive=f"{self.source.path}:{name}", image_index=0, originals=(name,), references=(), started_ms=now_ms()
        )
        try:
            reference, faults = parse_reference(f"{self.registry}/{name}", "api", place=name)
            if reference is None:
                raise ArchiveFault(faults[0])
            attempt = replace(attempt, references=(reference,))
            attempt = self._read(row, attempt, group, folder)
        except ArchiveFault as e:
            attempt = replace(attempt, issues=(e.issue.at(archive=attempt.archive),))
        except ValueError as e:
            broken = issue("manifest-invalid", place=name, digest=row.digest, reference=name, detail=str(e))
            attempt = replace(attempt, issues=(broken.at(archive=attempt.archive),))
        group.names.append(name)
        group.attempts.append(attempt)
        group.copied.append(sum(group.missing.values()) - before)

    def _read(self, row: Any, attempt: Attempt, group: _Group, folder: str) -> Attempt:
        """The attempt with everything that a load needs. Raises ArchiveFault, ValueError for what is damaged."""
        try:
            manifest = self.source.manifest(Digest.parse(row.digest))
        except StoreError as e:
            raise ValueError(str(e)) from e
        raw, config = self._config(manifest)
        blobs = [
            self._bytes(manifest.digest, manifest.raw, group, folder),
            self._bytes(manifest.config.digest, raw, group, folder),
        ]
        facts = []
        for descriptor in manifest.layers:
            facts.append(self._layer(descriptor, group, folder))
            blobs.append(group.staged.get(descriptor.digest))
        if tuple(fact.diff_id for fact in facts) != tuple(config.diff_ids):
            raise ValueError("its layers are not those that its config names")
        sizes = {descriptor.digest: descriptor.size for descriptor in (manifest.config, *manifest.layers)}
        record = ImageRecord(
            digest=str(manifest.digest),
            media_type=manifest.media_type,
            image_id=str(manifest.config.digest),
            architecture=printable(config.architecture),
            os=printable(config.os),
            layers=len(manifest.layers),
            uncompressed_bytes=sum(fact.uncompressed_bytes for fact in facts),
            stored_bytes=sum(sizes.values()) + len(manifest.raw),
            archive=printable(row.archive, MAX_TEXT),
        )
        notes = {
            (str(fact.diff_id), kind): {
                "diff_id": str(fact.diff_id),
                "media_type": kind,
                "digest": str(fact.digest),
                "size": fact.size,
            }
            for fact in facts
            if (kind := OCI_LAYER_TYPES.get(fact.compression))
        }
        return replace(
            attempt,
            manifest=manifest,
            record=record,
            blobs=tuple(dict.fromkeys(blob for blob in blobs if blob is not None)),
            layer_notes=tuple(notes.values()),
        )

    def _config(self, manifest: Manifest) -> tuple[bytes, ImageConfig]:
        raw = self.source.layout.read_blob(manifest.config.digest, MAX_CONFIG)
        if raw is None or Digest.of(raw) != manifest.config.digest:
            detail = "it is missing" if raw is None else "the content has another digest"
            raise fault("blob-corrupt", place="config", digest=manifest.config.digest, detail=detail)
        return raw, ImageConfig.parse(raw, "config")

    def _bytes(self, digest: Digest, raw: bytes, group: _Group, folder: str) -> StagedBlob | None:
        """A small blob that was hashed already, staged unless the target has it."""
        if self._lacks(digest, len(raw), group):
            if not self.dry_run:
                with BlobWriter(os.path.join(folder, f"sync-{digest.hex}")) as writer:
                    writer.write(raw)
                    group.staged[digest] = writer.done(digest)
            group.missing[digest] = len(raw)
        return group.staged.get(digest)

    def _lacks(self, digest: Digest, size: int, group: _Group) -> bool:
        """Whether neither the target has a blob nor the group brings it."""
        return digest not in group.missing and self.target.layout.blob_size(digest) != size

    def _layer(self, descriptor: Descriptor, group: _Group, folder: str) -> LayerFacts:
        """A layer of the source, staged unless the target has it; hashed with its content even then.

        For what the source lacks must not be had from the target under another name. ArchiveFault (blob-corrupt) when it is not
        what the manifest says.
        """
        digest = descriptor.digest
        lacks = self._lacks(digest, descriptor.size, group)
        if not lacks and digest in self.layers:
            return self.layers[digest]
        place = self.source.layout.blob_path(digest)
        if (found := self.source.layout.blob_size(digest)) != descriptor.size:
            detail = "it is missing" if found is None else f"{found} bytes instead of {descriptor.size}"
            raise fault("blob-corrupt", place=place, digest=digest, detail=detail)
        with disk_errors("a blob cannot be read"):
            fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        try:
            extent = Extent(fd, 0, descriptor.size)
            layer = LayerSource(extent, sniff(extent.read(6)))
            reading = LayerReading(Budget(MAX_DECOMPRESSED, descriptor.size), self.cancel)
            if not lacks or self.dry_run:
                facts = layer.copy_to(None, Compression.NONE, reading)
            else:
                with BlobWriter(os.path.join(folder, f"sync-{digest.hex}")) as writer:
                    facts = layer.copy_to(writer, Compression.NONE, reading)
                    staged = writer.done(digest)
                if facts.digest == digest:
                    group.staged[digest] = staged
        except ArchiveFault as e:
            raise fault("blob-corrupt", place=place, digest=digest, detail=e.issue.message) from e
        except (EOFError, OSError) as e:
            raise fault("blob-corrupt", place=place, digest=digest, detail=f"it cannot be read ({e})") from e
        finally:
            os.close(fd)
        if facts.digest != digest:
            raise fault("blob-corrupt", place=place, digest=digest, detail=f"its content is {facts.source_digest}")
        if lacks:
            group.missing[digest] = descriptor.size
        self.layers[digest] = facts
        return facts

    def _record(self, patterns: Sequence[str], done: Sequence[SyncedTag]) -> None:
        """One event of the run, beside those of its images."""
        kinds = ("loaded", "overwritten", "unchanged", "skipped", "rejected")
        counts = {kind: sum(each.status == kind for each in done) for kind in kinds}
        with acting(self.target.ledger, self.actor, run_id=self.run_id) as act:
            act.begins("syncImages", "swrbatch", {"from": self.source.path, "patterns": list(patterns)})
            act.changed("updated", "store", before=None, after={**counts, "bytes": sum(each.bytes for each in done)})
