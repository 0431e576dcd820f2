"""The layers of many images: of archives, or of a whole store."""

from __future__ import annotations

from collections.abc import Sequence

from ..archive import open_archive
from ..cts import Actor, new_run_id
from ..digest import Cancel, Digest
from ..errors import ArchiveFault, Issue, has_errors
from ..export import select
from ..store import Store, now_ms, tag_name
from ..validate import issues_of, read_archive
from .sharing import ImageLayers


def layers_of_archives(paths: Sequence[str], cancel: Cancel) -> tuple[list[ImageLayers], list[Issue]]:
    """The images of these archives that are whole, and the issues of all. Raises `StoreError`, `Cancelled`.

    An image that lies in several archives counts once, by its first name.
    """
    images: dict[Digest, ImageLayers] = {}
    issues: list[Issue] = []
    for path in paths:
        found: list[Issue] = []
        try:
            with open_archive(path, spool_dir=None, cancel=cancel) as index:
                content = read_archive(index, cancel)
                found += content.issues
                for image in content.images:
                    found += image.issues
                    if image.config is not None and not has_errors(image.issues):
                        sizes = (layer.extent.size for layer in image.layers)
                        name = image.names[0] if image.names else str(image.config.digest)
                        layers = tuple(zip(image.config.diff_ids, sizes, strict=True))
                        images.setdefault(image.config.digest, ImageLayers(name=name, layers=layers))
        except ArchiveFault as e:
            found += issues_of(e)
        issues += [each.at(archive=path) for each in found]
    return list(images.values()), issues


def layers_of_store(store: Store, actor: Actor, cancel: Cancel) -> list[ImageLayers]:
    """Every image of a store, each once, by its first name. `Refused` unless the actor may download all of them."""
    with store.run(new_run_id(now_ms()), cancel):
        names = [tag_name(row) for row in store.tag_rows()]
        return [
            ImageLayers(
                name=str(image.references[0]),
                layers=tuple(zip(image.config.diff_ids, (layer.size for layer in image.manifest.layers), strict=True)),
            )
            for image in (select(store, names, actor) if names else ())
        ]
