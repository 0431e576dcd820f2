"""What images share by their layers: pure, and no layer is read for it. (By their files: `files`, `duplicates`.)"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLayers:
    """An image's layers from the lowest, each with its diff_id and its size in bytes as it is stored."""

    name: str
    layers: tuple[tuple[Digest, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedLayer:
    """A layer of several images. `size` in bytes as it is stored where it was met first."""

    diff_id: Digest
    size: int
    images: tuple[str, ...]

    @property
    def saved_bytes(self) -> int:
        """What storing it once saves, in bytes."""
        return self.size * (len(self.images) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonBase:
    """The lowest layers that these images have in common, and no more of them: `layers` many, `size` bytes together."""

    layers: int
    size: int
    top: Digest
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """What a batch shares. `bytes` counts each image's layers for itself, `distinct_bytes` each layer once."""

    images: int
    layers: int
    bytes: int
    distinct_layers: int
    distinct_bytes: int
    shared: tuple[SharedLayer, ...]
    bases: tuple[CommonBase, ...]

    @property
    def saved_bytes(self) -> int:
        return self.bytes - self.distinct_bytes


def find_sharing(images: Iterable[ImageLayers]) -> Sharing:
    """Layers by diff_id: shared ones by what they save, bases by how much the images have in common, largest first.

    A layer that stands twice in an image is counted for it once.
    """
    sizes: dict[Digest, int] = {}
    users: dict[Digest, list[str]] = {}
    listed = list(images)
    for image in listed:
        for diff_id, size in dict(image.layers).items():
            sizes.setdefault(diff_id, size)
            users.setdefault(diff_id, []).append(image.name)
    shared = [SharedLayer(diff_id=d, size=sizes[d], images=tuple(names)) for d, names in users.items() if len(names) > 1]
    return Sharing(
        images=len(listed),
        layers=sum(len(set(image.layers)) for image in listed),
        bytes=sum(sizes[diff_id] * len(names) for diff_id, names in users.items()),
        distinct_layers=len(sizes),
        distinct_bytes=sum(sizes.values()),
        shared=tuple(sorted(shared, key=lambda each: (-each.saved_bytes, each.diff_id))),
        bases=tuple(sorted(_bases(listed, sizes), key=lambda each: (-each.size * (len(each.images) - 1), each.top))),
    )


def _bases(images: Sequence[ImageLayers], sizes: dict[Digest, int]) -> Iterable[CommonBase]:
    """Groups of images by their lowest layers: parted again and again, a group that a further layer parts has its base there."""
    left = [(0, list(images))]
    while left:
        depth, group = left.pop()
        parted: dict[Digest | None, list[ImageLayers]] = {}
        for image in group:
            parted.setdefault(image.layers[depth][0] if depth < len(image.layers) else None, []).append(image)
        if depth and (len(parted) > 1 or None in parted):
            lowest = group[0].layers[:depth]
            size = sum(sizes[diff_id] for diff_id, _ in lowest)
            yield CommonBase(layers=depth, size=size, top=lowest[-1][0], images=tuple(image.name for image in group))
        left += [(depth + 1, part) for diff_id, part in parted.items() if diff_id is not None and len(part) > 1]
