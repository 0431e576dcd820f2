"""Layers of one run on their way into the store: each is read once, compressed once and staged once, whichever archive brings it.

A layer is looked up by what the config (or a kept OCI manifest) claims it to be, and then always hashed: a claim that does not
hold is an issue, never a blob under a wrong name. Two archives that bring one layer in the same form at the same time share it:
the first one compresses, the others only hash. So what an archive stages does not depend on which one came first.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from .blob_writer import BlobWriter, StagedBlob
from .compression import Compression
from .digest import Cancel, Digest
from .image import layer_media_type
from .layers import KEPT, LayerFacts, LayerReading, LayerSource
from .layout import RegistryLayout


class _Key(NamedTuple):
    """What archives share: a layer by its diff_id, or a blob that is to be kept, and the form that it comes in.

    `as_it_is` tells that it is compressed already and is stored byte for byte.
    """

    kind: Literal["layer", "blob"]
    digest: Digest
    compression: Compression
    as_it_is: bool

    def fits(self, facts: LayerFacts) -> bool:
        """Whether what was read is what it claims to be."""
        return self.digest == (facts.source_digest if self.kind == "blob" else facts.diff_id)


@dataclass(frozen=True, slots=True)
class TakenLayer:
    """A layer after it was read. `blob` is what the store has, or will have, for it; `staged` is set while it is only staged.

    `reused` tells that the blob was in the store, or came with another archive of the run.
    """

    facts: LayerFacts
    digest: Digest
    size: int
    compression: Compression
    staged: StagedBlob | None
    reused: bool

    @property
    def media_type(self) -> str:
        return layer_media_type(self.compression)


@dataclass(slots=True)
class _Entry:
    """A layer that some archive of this run stages; `users` are the archives (positions) that may still need its file."""

    done: Future[StagedBlob | None] = field(default_factory=Future)
    users: set[int] = field(default_factory=set)


class Staging:
    """The staged layers of a run. Thread-safe."""

    def __init__(self, layout: RegistryLayout, folder: str, target: Compression) -> None:
        self._layout = layout
        self._folder = folder
        self._target = target
        self._lock = threading.Lock()
        self._entries: dict[_Key, _Entry] = {}
        self._by_path: dict[str, _Key] = {}
        self._count = 0

    def take(
        self,
        user: int,
        source: LayerSource,
        claimed: Digest,
        kept_as: Digest | None,
        known: Mapping[Digest, tuple[Digest, int]],
        reading: LayerReading,
    ) -> TakenLayer:
        """Read a layer that an image to be loaded needs; the archive at position `user` has it until it releases it.

        `claimed` is its diff_id by the config. `kept_as` is its digest by an OCI manifest that is to be kept byte for byte (None:
        any blob of the same content will do). `known` are the store's blobs for diff_ids, under the media type that results.
        """
        as_it_is = source.compression in KEPT
        compression = source.compression if as_it_is else self._target
        if kept_as is not None:
            if self._layout.blob_size(kept_as) == source.extent.size:
                facts = source.copy_to(None, compression, reading)
                if facts.source_digest == kept_as:
                    return TakenLayer(facts, kept_as, facts.source_bytes, facts.compression, None, True)
            key = _Key("blob", kept_as, compression, True)
        else:
            if claimed in known:
                facts = source.copy_to(None, compression, reading)
                if facts.diff_id == claimed:
                    return TakenLayer(facts, *known[claimed], compression, None, True)
            key = _Key("layer", claimed, compression, as_it_is)
        return self._shared(user, key, source, compression, reading)

    def _shared(self, user: int, key: _Key, source: LayerSource, compression: Compression, reading: LayerReading) -> TakenLayer:
        with self._lock:
            owner = key not in self._entries
            entry = self._entries.setdefault(key, _Entry())
            entry.users.add(user)
        if owner:
            staged = None
            try:
                facts, blob = self._stage(source, compression, reading)
                if key.fits(facts):
                    staged = blob
                    with self._lock:
                        self._by_path[blob.path] = key
                return TakenLayer(facts, blob.digest, blob.size, compression, blob, False)
            finally:
                if staged is None:
                    with self._lock:
                        self._entries.pop(key, None)
                entry.done.set_result(staged)
        facts = source.copy_to(None, compression, reading)
        blob_ = _wait(entry.done, reading.cancel) if key.fits(facts) else None
        if blob_ is not None and (not key.as_it_is or blob_.digest == facts.source_digest):
            return TakenLayer(facts, blob_.digest, blob_.size, compression, blob_, True)
        # One of the two is not what it claims to be, or both are compressed already, and differently: this one stands for itself.
        facts, blob = self._stage(source, compression, reading)
        return TakenLayer(facts, blob.digest, blob.size, compression, blob, False)

    def _stage(self, source: LayerSource, compression: Compression, reading: LayerReading) -> tuple[LayerFacts, StagedBlob]:
        with BlobWriter(self._path()) as writer:
            facts = source.copy_to(writer, compression, reading)
            return facts, writer.done(facts.digest)

    def stage_bytes(self, raw: bytes) -> StagedBlob:
        """Stage a small blob: a config or a manifest."""
        with BlobWriter(self._path()) as writer:
            writer.write(raw)
            return writer.done(Digest.of(raw))

    def _path(self) -> str:
        with self._lock:
            self._count += 1
            return os.path.join(self._folder, f"blob-{self._count}")

    def release(self, user: int, blobs: Iterable[StagedBlob]) -> None:
        """An archive is done: its staged files that no other needs, and that did not become part of the store, go."""
        for blob in blobs:
            with self._lock:
                key = self._by_path.get(blob.path)
                if key is not None:
                    entry = self._entries[key]
                    entry.users.discard(user)
                    if entry.users:
                        continue
                    del self._entries[key], self._by_path[blob.path]
            # It is part of the store by now, or what cannot be removed here goes with the run's folder.
            with contextlib.suppress(OSError):
                os.unlink(blob.path)


def _wait(done: Future[StagedBlob | None], cancel: Cancel) -> StagedBlob | None:
    while True:
        cancel.check()
        try:
            return done.result(timeout=0.1)
        except FutureTimeout:
            continue
