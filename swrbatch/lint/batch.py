"""The images of archives and of a store, linted together: each distinct layer is read once, whoever shares it.

A base is known where another image of the batch has just an image's lowest layers. Images that share layers are looked at one
after another, and a layer is let go of after the last of them, so that memory does not grow with the number of images.

A layer is known by its diff_id. Of an archive that is what the config claims: where several archives claim the same, what is read
is hashed, and no archive is judged by another's content before that.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import posixpath
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from ..archive import MAX_CONFIG, MAX_DECOMPRESSED, ArchiveIndex, open_archive
from ..blobs import BlobReader
from ..compression import Compression
from ..cts import Actor
from ..digest import Cancel, Digest
from ..errors import ArchiveFault, Issue, StoreError, fault, has_errors
from ..export import StoredImage, select, tags_matching
from ..inspect.contents import ArchiveLayers, LayerWalk, walk_pieces
from ..inspect.tree import MergedTree
from ..layers import Budget
from ..store import Store, tag_name
from ..tar import Look
from ..validate import ArchiveContent, ArchiveImage, issues_of, read_archive
from .image_check import lint_image
from .layer_contents import LayerContents, read_layer
from .rule import Finding, Rule
from .view import Base, ImageHead, ImageView, image_head, known_base

_OPEN: Final = 128
"""Archives that are open at a time; others are opened again when their layers are read."""
_SPOOLED: Final = 4 << 30
"""Bytes of their spools that lie on the disk at a time, the largest one aside."""
_REMEMBERED: Final = 400_000
"""Members of layers that are kept for other images, about 300 bytes each (`inspect.contents.room_of`)."""


@dataclass(frozen=True, slots=True)
class BatchImage:
    """An image to be linted: its head, and for each layer how it is read. `place` names a layer in issues."""

    head: ImageHead
    layers: Callable[[], Sequence[LayerReader]]
    place: Callable[[int], str]


@dataclass(frozen=True, slots=True)
class LayerReader:
    """How a layer is read: its members, or its uncompressed pieces. `hashed` tells that reading it checks the diff_id."""

    walk: Callable[[Look], LayerWalk]
    content: Callable[[], Iterator[bytes]]
    hashed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LintedImage:
    """An image and what was found in it; `issue` is why it could not be looked into, and then nothing was found."""

    head: ImageHead
    findings: tuple[Finding, ...] = ()
    issue: Issue | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LintedImages:
    """Images in the order given; `unread` are the issues of what could not be read so far that there were images."""

    images: tuple[LintedImage, ...]
    unread: tuple[Issue, ...]

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """Path (or reference) and name of the images that were looked into."""
        return tuple((one.head.path, one.head.name) for one in self.images if one.issue is None)

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(found for one in self.images for found in one.findings)

    @property
    def issues(self) -> tuple[Issue, ...]:
        return (*self.unread, *(one.issue for one in self.images if one.issue is not None))


# --- archives ------------------------------------------------------------------------------------------------------------


class OpenArchives:
    """Archives by path, opened when they are needed and closed when too many are open. Use as a context manager.

    What can be read only once (standard input, a FIFO) stays open; its file is hashed where `hash_once` says so. Of a compressed
    archive the spool lies in `spool_dir`, and no more than `limit` bytes are decompressed. `start` is what was read of standard
    input before.
    """

    def __init__(
        self,
        cancel: Cancel,
        spool_dir: str | None = None,
        limit: int = MAX_DECOMPRESSED,
        *,
        hash_once: bool = False,
        start: bytes = b"",
    ) -> None:
        self._cancel = cancel
        self._spool_dir = spool_dir
        self.limit = limit
        self._hash_once = hash_once
        self._start = start
        self._open: OrderedDict[str, tuple[ExitStack, ArchiveIndex, ArchiveContent]] = OrderedDict()

    def __enter__(self) -> OpenArchives:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._open.popitem()[1][0].close()

    def read(self, path: str) -> tuple[ArchiveIndex, ArchiveContent]:
        """An archive's index and content. Raises its `ArchiveFault`, `StoreError` (the spool), `Cancelled`."""
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path][1:]
        self._close_down_to(_OPEN - 1, _SPOOLED)
        hash_file = self._hash_once and not _repeatable(path)
        with ExitStack() as stack:
            opened = open_archive(
                path,
                spool_dir=self._spool_dir,
                max_decompressed=self.limit,
                hash_file=hash_file,
                cancel=self._cancel,
                start=self._start if path == "-" else b"",
            )
            index = stack.enter_context(opened)
            content = read_archive(index, self._cancel)
            self._open[path] = (stack.pop_all(), index, content)
        return index, content

    def index(self, path: str) -> ArchiveIndex:
        """An archive's index; raises as `read` does."""
        return self.read(path)[0]

    def held(self, path: str) -> ArchiveIndex | None:
        """The index of an archive that is open."""
        return self._open[path][1] if path in self._open else None

    def close_repeatable(self) -> None:
        """Close what can be opened again."""
        self._close_down_to(0, 0)

    def _close_down_to(self, count: int, spooled: int) -> None:
        closable = [name for name in self._open if _repeatable(name)]
        sizes = {name: _spooled(self._open[name][1]) for name in closable}
        for name in closable:
            if len(sizes) <= count and sum(sizes.values()) <= spooled:
                return
            del sizes[name]
            self._open.pop(name)[0].close()


def _spooled(index: ArchiveIndex) -> int:
    return index.uncompressed_bytes if index.compression is not Compression.NONE else 0


def _repeatable(path: str) -> bool:
    return path != "-" and os.path.isfile(path)


def _archive_images(
    path: str, content: ArchiveContent, archives: OpenArchives, cancel: Cancel
) -> tuple[list[BatchImage], list[Issue]]:
    """The images of an archive that can be looked into, and the issues of all."""
    found = list(content.issues)
    images = []
    for image in content.images:
        found += image.issues
        if has_errors(image.issues) or image.config is None or image.config_extent is None:
            continue
        raw = image.config_extent.read(MAX_CONFIG)
        head = image_head(path, image.index, image.names, image.config, raw, stored=False)
        images.append(BatchImage(head, partial(_readers, image, path, archives, cancel), image.layer_place))
    return images, [each.at(archive=path) for each in found]


def _readers(image: ArchiveImage, path: str, archives: OpenArchives, cancel: Cancel) -> list[LayerReader]:
    index = archives.index(path)
    fd = index.fd
    layers = ArchiveLayers(Budget(archives.limit, index.uncompressed_bytes), cancel, frozenset())
    found = []
    for source in image.layers:
        # The archive may have been closed and opened again since the image was read.
        here = type(source)(type(source.extent)(fd, source.extent.offset, source.extent.size), source.compression)
        plain = here.compression is Compression.NONE
        content = partial(here.extent.chunks, cancel) if plain else partial(layers.content, here)
        found.append(LayerReader(partial(layers.walk, here), content))
    return found


def lint_archives(
    paths: Sequence[str],
    rules: Sequence[Rule],
    today: datetime.date,
    archives: OpenArchives,
    cancel: Cancel,
    progress: Callable[[int, int], None] | None = None,
) -> LintedImages:
    """Lint all images of these archives. What is wrong with an archive is among the issues. Raises `StoreError`, `Cancelled`.

    `progress` is told how many images are done, of how many.
    """
    images: list[BatchImage] = []
    issues: list[Issue] = []
    for path in paths:
        try:
            _, content = archives.read(path)
            found, wrong = _archive_images(path, content, archives, cancel)
            images += found
            issues += wrong
        except ArchiveFault as e:
            issues += [each.at(archive=path) for each in issues_of(e)]
    return lint_images(images, rules, today, cancel, issues, progress)


# --- a store -------------------------------------------------------------------------------------------------------------


def lint_stored(
    store: Store, names: Sequence[str], rules: Sequence[Rule], today: datetime.date, actor: Actor, cancel: Cancel, run_id: str
) -> LintedImages:
    """Lint the images of a store that these names (`export.select`) and globs (`export.tags_matching`) stand for.

    A blob that is missing or damaged is an issue of its image. Raises `UsageError` for a name that is not there, `Refused`,
    `StoreError`, `Cancelled`.
    """
    with store.run(run_id, cancel):
        globs = [name for name in names if any(mark in name for mark in "*?[")]
        wanted = [name for name in names if name not in globs]
        wanted += [tag_name(row) for row in tags_matching(store, globs)] if globs else []
        blobs = BlobReader(store, cancel)
        images = [_stored_image(image, position, blobs, cancel) for position, image in enumerate(select(store, wanted, actor))]
        return lint_images(images, rules, today, cancel)


def _stored_image(image: StoredImage, position: int, blobs: BlobReader, cancel: Cancel) -> BatchImage:
    references = tuple(map(str, image.references))

    def content(at: int) -> Iterator[bytes]:
        try:
            yield from blobs.content(image.manifest.layers[at], image.config.diff_ids[at], image.name)
        except StoreError as e:
            digest = image.manifest.layers[at].digest
            raise fault("blob-corrupt", place=str(digest), digest=digest, detail=str(e)) from e

    def walk(at: int, look: Look) -> LayerWalk:
        return walk_pieces(content(at), cancel, look)

    head = image_head(image.references[0].name, position, references, image.config, image.raw_config, stored=True)
    readers = [LayerReader(partial(walk, at), partial(content, at), True) for at in range(len(image.manifest.layers))]
    return BatchImage(head, lambda: readers, lambda at: f"layer {at} ({image.config.diff_ids[at]})")


# --- both ----------------------------------------------------------------------------------------------------------------


def lint_images(
    images: Sequence[BatchImage],
    rules: Sequence[Rule],
    today: datetime.date,
    cancel: Cancel,
    unread: Sequence[Issue] = (),
    progress: Callable[[int, int], None] | None = None,
) -> LintedImages:
    """Lint these images; results in their order, whatever the order in which they are read. Raises `Cancelled`."""
    heads = [image.head for image in images]
    bases = find_bases(heads)
    layers = SharedLayers(images, programs_of(heads))
    done: dict[int, LintedImage] = {}
    for at in sorted(range(len(images)), key=lambda at: heads[at].config.diff_ids):
        cancel.check()
        if progress is not None:
            progress(len(done), len(images))
        image = images[at]
        try:
            done[at] = LintedImage(head=heads[at], findings=lint_image(_view(image, bases[at], layers, today), rules))
        except ArchiveFault as e:
            number = None if image.head.stored else image.head.index
            done[at] = LintedImage(head=heads[at], issue=e.issue.at(archive=image.head.path, image_index=number))
        finally:
            layers.done(image)
    return LintedImages(images=tuple(done[at] for at in sorted(done)), unread=tuple(unread))


def find_bases(heads: Sequence[ImageHead]) -> list[Base]:
    """The base of each image: another of these whose layers are its lowest, and fewer; else what its history suggests.

    One with the same layers is it where its history is the beginning of the image's: only settings were changed.
    """
    by_layers: dict[tuple[Digest, ...], ImageHead] = {}
    by_history: dict[tuple[Digest, ...], dict[bytes, ImageHead]] = {}
    for head in heads:
        by_layers.setdefault(head.config.diff_ids, head)
        by_history.setdefault(head.config.diff_ids, {}).setdefault(_beginnings(head)[-1], head)
    lengths = sorted({len(ids) for ids in by_layers})
    bases = []
    for head in heads:
        ids, alike = head.config.diff_ids, by_history[head.config.diff_ids]
        below = [by_layers[ids[:n]] for n in lengths if 0 < n < len(ids) and ids[:n] in by_layers]
        if len(alike) > 1 and ids:
            below += [alike[begun] for begun in _beginnings(head)[1:-1] if begun in alike][-1:]
        bases.append(known_base(head, below))
    return bases


def _beginnings(head: ImageHead) -> list[bytes]:
    """A hash of each beginning of the history, from none of its steps to all: two are alike where the steps are."""
    sha = hashlib.sha256()
    found = [sha.digest()]
    for step in head.history.steps:
        text = step.text.encode("utf-8", "surrogatepass")
        sha.update(b"%s %d %s" % (step.keyword.encode(), len(text), text))
        found.append(sha.digest())
    return found


def programs_of(heads: Sequence[ImageHead]) -> frozenset[str]:
    """The names, without folders, of what these images may start."""
    words = (word for head in heads for word in (*head.run.entrypoint, *head.run.cmd, *head.run.healthcheck))
    return frozenset(name for word in words for part in word.split()[:20] if (name := posixpath.basename(part)))


@dataclass(slots=True)
class SharedLayers:
    """The layers of a batch: each is read when it is first needed, and kept for the other images that have it."""

    images: Sequence[BatchImage]
    programs: frozenset[str]
    read: int = 0
    _uses: Counter[Digest] = field(default_factory=Counter)
    _paths: dict[Digest, set[str]] = field(default_factory=dict)
    _kept: dict[tuple[str, Digest], LayerContents] = field(default_factory=dict)
    _room: int = _REMEMBERED

    def __post_init__(self) -> None:
        for image in self.images:
            for diff_id in image.head.config.diff_ids:
                self._uses[diff_id] += 1
                self._paths.setdefault(diff_id, set()).add("" if image.head.stored else image.head.path)

    def contents(self, image: BatchImage, at: int, reader: LayerReader) -> LayerContents:
        """A layer of an image."""
        diff_id = image.head.config.diff_ids[at]
        shared, own = ("", diff_id), (image.head.path, diff_id)
        for key in (shared, own):
            if key in self._kept:
                return self._kept[key]
        self.read += 1
        doubtful = len(self._paths[diff_id]) > 1 and not reader.hashed
        sha = hashlib.sha256()
        walk = partial(_hashed_walk, reader.content, sha) if doubtful else reader.walk
        made = read_layer(walk, self.programs)
        true = reader.hashed or len(self._paths[diff_id]) == 1 or sha.hexdigest() == diff_id.hex
        if self._uses[diff_id] > 1 and made.room <= self._room:
            self._kept[shared if true else own] = made
            self._room -= made.room
        return made

    def done(self, image: BatchImage) -> None:
        """Let go of the layers that no further image has."""
        for diff_id in image.head.config.diff_ids:
            self._uses[diff_id] -= 1
            if not self._uses[diff_id]:
                for path in ("", *self._paths[diff_id]):
                    gone = self._kept.pop((path, diff_id), None)
                    self._room += gone.room if gone is not None else 0


def _hashed_walk(content: Callable[[], Iterator[bytes]], sha: hashlib._Hash, look: Look) -> LayerWalk:
    def hashed() -> Iterator[bytes]:
        for piece in content():
            sha.update(piece)
            yield piece

    return walk_pieces(hashed(), Cancel(), look)


def _view(image: BatchImage, base: Base, layers: SharedLayers, today: datetime.date) -> ImageView:
    """Read what is missing of the layers, and put them on each other. Raises an `ArchiveFault` located at the layer."""
    tree = MergedTree(keep_members=True)
    contents = []
    for at, reader in enumerate(image.layers()):
        try:
            own = layers.contents(image, at, reader)
            tree.begin()
            for member in own.members:
                tree.add(member)
            tree.end()
        except ArchiveFault as e:
            where = f"{image.place(at)}: {e.issue.place}" if e.issue.place else image.place(at)
            raise ArchiveFault(e.issue.at(place=where)) from e
        contents.append(own)
    return ImageView(head=image.head, base=base, tree=tree, layers=tuple(contents), today=today)
