"""What the archives of a run make of each other's layers: the effect is that of one after another, whichever was read first.

Archives are read while those before them are not loaded yet. Two that bring one layer in different forms (plain in one,
compressed by its producer in the other) each stage a blob of their own; when it is the later one's turn, its manifest becomes
what it would be had it been read after the earlier one was loaded. A manifest that is kept byte for byte stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from .compression import Compression
from .digest import Digest
from .prepare import PreparedImage, with_manifest
from .staging import Staging, TakenLayer

Form = tuple[Digest, Compression]
"""What a layer is looked up by: its diff_id, and how its blob is compressed."""


@dataclass(frozen=True, slots=True)
class _Brought:
    """The blob (size in bytes) that a layer has in the store, and the image of this run that brought it first."""

    digest: Digest
    size: int
    image: tuple[str, int]


class Order:
    """The layers that a run has loaded so far, in the order of its archives."""

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._first: dict[Form, _Brought] = {}

    def agrees(self, images: Iterable[PreparedImage]) -> bool:
        """Whether these images have each layer in the form that it was brought in first, so that all may be loaded at once."""
        new: dict[Form, Digest] = {}
        for image in images:
            for each, blob in self._layers(image):
                wanted = new.setdefault(_form(each), each.digest) if blob is None else blob.digest
                if each.digest != wanted:
                    return False
        return True

    def settle(self, image: PreparedImage) -> None:
        """Take for its layers the blobs that earlier archives brought."""
        found = list(self._layers(image))
        if image.kept or all(blob is None or blob.digest == each.digest for each, blob in found):
            return
        image.taken = tuple(
            each
            if blob is None or blob.digest == each.digest
            else replace(each, digest=blob.digest, size=blob.size, staged=None, reused=True)
            for each, blob in found
        )
        assert image.image.config is not None
        before, config = image.attempt.blobs, image.image.config.digest
        image.attempt = with_manifest(image, None, next(blob for blob in before if blob.digest == config), self._staging)

    def loaded(self, image: PreparedImage) -> None:
        """Note what an image brought. Of blobs that came with this run, the first image in order did not reuse them."""
        name = image.attempt.archive, image.attempt.image_index
        found = list(self._layers(image))
        image.taken = tuple(
            each
            if each.staged is None
            else replace(each, reused=blob is not None and blob.digest == each.digest and blob.image != name)
            for each, blob in found
        )
        for each in image.taken:
            self._first.setdefault(_form(each), _Brought(each.digest, each.size, name))

    def _layers(self, image: PreparedImage) -> Iterator[tuple[TakenLayer, _Brought | None]]:
        return ((each, self._first.get(_form(each))) for each in image.taken)


def _form(layer: TakenLayer) -> Form:
    return layer.facts.diff_id, layer.compression
