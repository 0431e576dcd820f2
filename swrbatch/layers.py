"""One boundary carries layers: `LayerSource.copy_to` reads a layer's bytes once, for whoever needs them.

A check gives it no sink and gets the digests; a load gives it the store's sink and gets the blob as well. Limits count while the
bytes stream and stop at the limit, not after it.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

from .assembly import assemble
from .compression import ENCODERS, Compression, CorruptData, decompress, reblock
from .digest import CHUNK, Cancel, Digest, Extent
from .errors import fault
from .sizes import format_size

KEPT = (Compression.GZIP, Compression.ZSTD)
"""Compressions that registries serve: a layer that has one is stored byte for byte."""


class BlobSink(Protocol):
    """Takes a blob's bytes in order."""

    def write(self, data: bytes, /) -> object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFacts:
    """What one reading of a layer showed. Sizes in bytes.

    `diff_id` is the digest of the uncompressed tar, `source_digest` that of the bytes in the archive, `digest`, `size` and
    `compression` tell of the blob that went to the sink (without a sink: of the bytes in the archive).
    """

    diff_id: Digest
    uncompressed_bytes: int
    source_digest: Digest
    source_bytes: int
    digest: Digest
    size: int
    compression: Compression


class Budget:
    """Bytes that an archive may decompress to, all layers together, however many threads read them.

    `used` starts with the size of the tar itself; a compressed layer that is read counts as it is uncompressed instead, and once,
    however often it is read.
    """

    def __init__(self, limit: int, used: int) -> None:
        self.limit = limit
        self.used = used
        self._counted: dict[LayerSource, int] = {}
        self._lock = threading.Lock()

    def spend(self, layer: LayerSource, size: int) -> None:
        """Note that `layer` has `size` bytes or more; raises the issue decompressed-too-large at the limit."""
        with self._lock:
            before = self._counted.get(layer, layer.extent.size)
            self._counted[layer] = max(size, self._counted.get(layer, 0))
            self.used += self._counted[layer] - before
            over = self.used > self.limit
        if over:
            raise fault("decompressed-too-large", limit=format_size(self.limit))


@dataclass(frozen=True, slots=True)
class LayerReading:
    """What a reading of layers needs from its surroundings. `max_layer_size` in bytes, None for no limit.

    The threads of `pool` take part in making a blob, as far as they have time; without it, the caller makes it alone.
    """

    budget: Budget
    cancel: Cancel
    pool: Executor | None = None
    max_layer_size: int | None = None
    progress: Callable[[int], object] | None = None


@dataclass(frozen=True, slots=True)
class LayerSource:
    """A layer as it lies in an archive: a range of the (spooled) tar and the compression told by its content."""

    extent: Extent
    compression: Compression

    def copy_to(self, sink: BlobSink | None, target: Compression, reading: LayerReading) -> LayerFacts:
        """Read the layer once; write its blob to `sink`, if any, compressed to `target` unless it is gzip or zstd already.

        Raises the issues layer-corrupt, layer-too-large, decompressed-too-large; `Cancelled`; what the sink raises.
        """
        size = self.extent.size
        self._check_size(size, reading, "as stored")
        source = _Hashing()
        raw = source.through(self.extent.chunks(reading.cancel), reading.progress)
        if self.compression is Compression.NONE:
            if sink is None:
                _drain(raw)
                return self._facts(source, source, source, Compression.NONE)
            blob = source if target is Compression.NONE else _Hashing(sink)
            assemble(raw, ENCODERS[target], sink.write if blob is source else blob.write, reading.pool)
            return self._facts(source, source, blob, target)
        content = _Hashing()
        reading.budget.spend(self, 0)
        keep = self.compression in KEPT
        if keep and sink is not None:
            raw = _tee(raw, sink)
        # A fault is kept with its traceback until the archive is done: nothing in it may hold on to a decoder.
        with contextlib.closing(decompress(self.compression, raw)) as decoded:
            plain = self._bounded(content.through(decoded), content, reading)
            try:
                if keep or sink is None:
                    _drain(plain)
                    return self._facts(content, source, source, self.compression)
                blob = _Hashing(sink)
                assemble(reblock(plain), ENCODERS[target], blob.write, reading.pool)
                return self._facts(content, source, blob, target)
            except CorruptData as e:
                detail = str(e)
        raise fault("layer-corrupt", compression=self.compression, detail=detail)

    def _facts(self, content: _Hashing, source: _Hashing, blob: _Hashing, compression: Compression) -> LayerFacts:
        source_digest = source.digest()
        return LayerFacts(
            diff_id=source_digest if content is source else content.digest(),
            uncompressed_bytes=content.size,
            source_digest=source_digest,
            source_bytes=source.size,
            digest=source_digest if blob is source else blob.digest(),
            size=blob.size,
            compression=compression,
        )

    def _bounded(self, pieces: Iterator[bytes], content: _Hashing, reading: LayerReading) -> Iterator[bytes]:
        for piece in pieces:
            reading.cancel.check()
            reading.budget.spend(self, content.size)
            self._check_size(content.size, reading, "uncompressed")
            yield piece

    @staticmethod
    def _check_size(size: int, reading: LayerReading, how: str) -> None:
        limit = reading.max_layer_size
        if limit is not None and size > limit:
            shown = format_size(size, beside=limit) if how == "as stored" else f"more than {format_size(limit)}"
            raise fault("layer-too-large", size=shown, how=how, limit=format_size(limit))

    @property
    def small(self) -> bool:
        """Whether one block holds it: not worth a thread of its own."""
        return self.extent.size <= CHUNK


class _Hashing:
    """Size and sha256 of what flows through, or of what is written on to `sink`."""

    def __init__(self, sink: BlobSink | None = None) -> None:
        self.size = 0
        self._sha = hashlib.sha256()
        self._sink = sink

    def _take(self, piece: bytes) -> None:
        self._sha.update(piece)
        self.size += len(piece)

    def through(self, pieces: Iterator[bytes], progress: Callable[[int], object] | None = None) -> Iterator[bytes]:
        for piece in pieces:
            self._take(piece)
            if progress is not None:
                progress(len(piece))
            yield piece

    def write(self, piece: bytes) -> None:
        assert self._sink is not None
        self._take(piece)
        self._sink.write(piece)

    def digest(self) -> Digest:
        return Digest(self._sha.hexdigest())


def _tee(pieces: Iterator[bytes], sink: BlobSink) -> Iterator[bytes]:
    for piece in pieces:
        sink.write(piece)
        yield piece


def _drain(pieces: Iterator[bytes]) -> None:
    for _ in pieces:
        pass
