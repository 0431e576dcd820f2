"""Images of a store looked into, by their names; who looks needs the right to download them."""

from __future__ import annotations

from functools import partial

from ..blobs import BlobReader
from ..compression import Compression
from ..cts import Actor, new_run_id, now_ms
from ..digest import Cancel, Digest
from ..errors import ArchiveFault, Issue
from ..export import StoredImage, select
from ..image import Descriptor, layer_compression
from ..store import Store
from .contents import LayerWalk, walk_pieces
from .images import InspectedImage, Inspection, LayerInput, Wanted, merge


def inspect_stored(store: Store, name: str, wanted: Wanted, actor: Actor, cancel: Cancel) -> Inspection:
    """The image of a store that `name` (ORG/REPO:TAG, see `export.select`) stands for.

    A layer that is no tar is an issue. Raises `UsageError` when there is no such image, `Refused`, `StoreError` when a blob is
    missing or damaged, `Cancelled`.
    """
    with store.run(new_run_id(now_ms()), cancel):
        images: list[InspectedImage] = []
        issues: list[Issue] = []
        for image in select(store, [name], actor):
            try:
                images.append(_inspect(store, image, wanted, cancel))
            except ArchiveFault as e:
                issues.append(e.issue.at(archive=name))
    return Inspection(source=name, format="store", images=tuple(images), issues=tuple(issues))


def _inspect(store: Store, image: StoredImage, wanted: Wanted, cancel: Cancel) -> InspectedImage:
    blobs = BlobReader(store, cancel)

    def walk(layer: Descriptor, diff_id: Digest) -> LayerWalk:
        return walk_pieces(blobs.content(layer, diff_id, image.name), cancel)

    layers = [
        LayerInput(
            layer.digest, layer_compression(layer.media_type) or Compression.NONE, layer.size, partial(walk, layer, diff_id)
        )
        for layer, diff_id in zip(image.manifest.layers, image.config.diff_ids, strict=True)
    ]
    return merge(
        image.config,
        image.raw_config,
        layers,
        wanted,
        names=tuple(map(str, image.references)),
        digest=image.manifest.digest,
        place=lambda position: f"layer {position} ({image.config.diff_ids[position]})",
    )
