"""The layers of many images: of archives, or of a whole store. With a `LayerFiles` each distinct layer is read, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ..archive import MAX_DECOMPRESSED, open_archive
from ..blobs import BlobReader
from ..compression import Compression
from ..cts import Actor, new_run_id, now_ms
from ..digest import Cancel, Digest
from ..errors import ArchiveFault, Issue, has_errors
from ..export import StoredImage, select
from ..layers import Budget, LayerSource
from ..store import Store, tag_name
from ..tar import PlainSource
from ..validate import ArchiveImage, issues_of, read_archive
from .contents import ArchiveLayers, at_layer
from .files import LayerFiles
from .sharing import ImageLayers


def layers_of_archives(
    paths: Sequence[str], cancel: Cancel, files: LayerFiles | None = None
) -> tuple[list[ImageLayers], list[Issue]]:
    """The images of these archives that are whole, and the issues of all. Raises `StoreError`, `Cancelled`.

    An image that lies in several archives counts once, by its first name; where other images have that name too, the beginning of
    its image ID stands behind it.
    """
    images: dict[Digest, ImageLayers] = {}
    issues: list[Issue] = []
    for path in paths:
        found: list[Issue] = []
        try:
            with open_archive(path, spool_dir=None, cancel=cancel) as index:
                content = read_archive(index, cancel)
                found += content.issues
                layers = ArchiveLayers(Budget(MAX_DECOMPRESSED, index.uncompressed_bytes), cancel, frozenset())
                for image in content.images:
                    found += image.issues
                    if image.config is None or has_errors(image.issues):
                        continue
                    before = images.get(image.config.digest)
                    if before is not None:
                        if image.names and before.name == str(image.config.digest):
                            images[image.config.digest] = replace(before, name=image.names[0])
                        continue
                    try:
                        images[image.config.digest] = _whole(image, image.config.diff_ids, layers, files)
                    except ArchiveFault as e:
                        found.append(e.issue.at(image_index=image.index))
        except ArchiveFault as e:
            found += issues_of(e)
        issues += [each.at(archive=path) for each in found]
    names = Counter(image.name for image in images.values())
    told = [
        image if names[image.name] == 1 else replace(image, name=f"{image.name} ({image_id.hex[:12]})")
        for image_id, image in images.items()
    ]
    return told, issues


def _whole(image: ArchiveImage, diff_ids: Sequence[Digest], layers: ArchiveLayers, files: LayerFiles | None) -> ImageLayers:
    assert image.config is not None
    for position, (diff_id, layer) in enumerate(zip(diff_ids, image.layers, strict=True)):
        if files is not None and diff_id not in files:
            try:
                _read(layer, diff_id, layers, files)
            except ArchiveFault as e:
                raise at_layer(e, image.layer_place(position)) from e
    name = image.names[0] if image.names else str(image.config.digest)
    sizes = (layer.extent.size for layer in image.layers)
    return ImageLayers(name=name, layers=tuple(zip(diff_ids, sizes, strict=True)))


def _read(layer: LayerSource, diff_id: Digest, layers: ArchiveLayers, files: LayerFiles) -> None:
    if layer.compression is Compression.NONE:
        files.add(diff_id, PlainSource(layer.extent))
    else:
        files.add_pieces(diff_id, layers.content(layer))


def layers_of_store(
    store: Store, actor: Actor, cancel: Cancel, files: LayerFiles | None = None
) -> tuple[list[ImageLayers], list[Issue]]:
    """Every image of a store, each once, by its first name; and the issues of layers that are no tars.

    `Refused` unless the actor may download all of them; `StoreError` when a blob is missing or damaged.
    """
    images: list[ImageLayers] = []
    issues: list[Issue] = []
    with store.run(new_run_id(now_ms()), cancel):
        names = [tag_name(row) for row in store.tag_rows()]
        for image in select(store, names, actor) if names else ():
            try:
                if files is not None:
                    _read_stored(store, image, files, cancel)
            except ArchiveFault as e:
                issues.append(e.issue.at(archive=image.name))
                continue
            sizes = (layer.size for layer in image.manifest.layers)
            images.append(
                ImageLayers(name=str(image.references[0]), layers=tuple(zip(image.config.diff_ids, sizes, strict=True)))
            )
    return images, issues


def _read_stored(store: Store, image: StoredImage, files: LayerFiles, cancel: Cancel) -> None:
    blobs = BlobReader(store, cancel)
    for position, (layer, diff_id) in enumerate(zip(image.manifest.layers, image.config.diff_ids, strict=True)):
        if diff_id not in files:
            try:
                files.add_pieces(diff_id, blobs.content(layer, diff_id, image.name))
            except ArchiveFault as e:
                raise at_layer(e, f"layer {position} ({diff_id})") from e
