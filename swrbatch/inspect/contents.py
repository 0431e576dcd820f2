"""The members of layers, wherever they lie: in an archive, or as a blob of a store; plain or compressed.

Of a plain layer in an archive only the headers are read. A compressed one, and a blob, streams through: of its members' data
nothing is kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Final

from ..archive import not_a_tar
from ..compression import Compression, CorruptData, decompress
from ..digest import Cancel
from ..errors import ArchiveFault, fault
from ..layers import Budget, LayerSource
from ..tar import Look, Member, PlainSource, TarBounds, TarReader, TarSource
from .tree import MAX_NAMES, MAX_NODES

_REMEMBERED: Final = 300_000
"""Members of layers that are kept for other images, each with up to `NAMED` characters of names."""
NAMED: Final = 256


class PieceSource:
    """A tar that comes in pieces, read forwards only."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._start = 0
        self._held = b""

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes at `offset`; fewer at the end."""
        while len(self._held) + self._start < offset + size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            at = offset - self._start
            # What lies before the offset is let go of.
            self._held, self._start = self._held[at:] + piece, self._start + min(at, len(self._held))
        at = offset - self._start
        return self._held[at : at + size]

    def has(self, end: int) -> bool:
        """Whether the tar reaches to `end`; what lies before is let go of."""
        while len(self._held) + self._start < end:
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self._held, self._start = piece, self._start + len(self._held)
        return True

    def drain(self) -> int:
        """Read to the end, where checksums stand; the bytes of the whole."""
        size = self._start + len(self._held)
        return size + sum(map(len, self._pieces))


@dataclass(slots=True)
class LayerWalk:
    """The members of one layer; `bytes` is the size of its tar, known when they were all taken."""

    members: Iterator[Member]
    bytes: int = 0


def _bad_start(header: bytes) -> ArchiveFault:
    found = not_a_tar(header, Compression.NONE).issue
    what = found.params.get("what", "compressed data")
    return fault("archive-corrupt", detail=f"the layer is no tar but {what}")


def tar_reader(source: TarSource, cancel: Cancel, look: Look | None = None) -> TarReader:
    """The members of a layer, within the bounds of one."""
    return TarReader(source, TarBounds(members=MAX_NODES, names=MAX_NAMES), _bad_start, cancel, look)


def walk_pieces(pieces: Iterator[bytes], cancel: Cancel, look: Look | None = None) -> LayerWalk:
    """The members of a layer whose tar comes in pieces. They are read to their end, whatever lies behind the tar's own."""
    walk = LayerWalk(iter(()))

    def members() -> Iterator[Member]:
        source = PieceSource(pieces)
        yield from tar_reader(source, cancel, look)
        walk.bytes = source.drain()

    walk.members = members()
    return walk


def at_layer(error: ArchiveFault, place: str) -> ArchiveFault:
    """A fault in a layer, located at the layer."""
    return ArchiveFault(error.issue.at(place=f"{place}: {error.issue.place}" if error.issue.place else place))


def room_of(member: Member) -> int:
    """How many members of usual size one takes the room of."""
    return 1 + (len(member.name) + len(member.target)) // NAMED


@dataclass(slots=True)
class ArchiveLayers:
    """The layers of one archive. Those of several images (`shared`) are read once, as far as their members fit in memory."""

    budget: Budget
    cancel: Cancel
    shared: frozenset[LayerSource]
    _known: dict[LayerSource, tuple[list[Member], int]] = field(default_factory=dict)
    _room: int = _REMEMBERED

    def walk(self, layer: LayerSource, look: Look | None = None) -> LayerWalk:
        """The members of a layer; `look` sees the data of those that are read now.

        As they are taken: the issues of `TarReader`, layer-corrupt, decompressed-too-large.
        """
        if layer in self._known:
            members, size = self._known[layer]
            return LayerWalk(iter(members), size)
        if layer.compression is Compression.NONE:
            walk = LayerWalk(iter(tar_reader(PlainSource(layer.extent), self.cancel, look)), layer.extent.size)
        else:
            walk = walk_pieces(self.content(layer), self.cancel, look)
        if layer in self.shared:
            walk.members = self._remember(layer, walk, walk.members)
        return walk

    def _remember(self, layer: LayerSource, walk: LayerWalk, members: Iterator[Member]) -> Iterator[Member]:
        kept: list[Member] = []
        taken = 0
        for member in members:
            taken += room_of(member)
            if taken < self._room:
                kept.append(member)
            yield member
        if taken < self._room:
            self._known[layer] = (kept, walk.bytes)
            self._room -= taken

    def content(self, layer: LayerSource) -> Generator[bytes, None, None]:
        """The uncompressed tar of a layer in pieces. Raises layer-corrupt, decompressed-too-large."""
        size = 0
        try:
            with contextlib.closing(decompress(layer.compression, layer.extent.chunks(self.cancel))) as pieces:
                for piece in pieces:
                    self.cancel.check()  # a small piece of a file may stand for gigabytes
                    size += len(piece)
                    self.budget.spend(layer, size)
                    yield piece
        except CorruptData as e:
            raise fault("layer-corrupt", compression=layer.compression, detail=str(e)) from e
