"""Images looked into: all of an archive, or one of a store.

Of an archive's plain layers only headers are read, and digests are taken from the config: whether they are true is for `check`
to say. What comes from a store is hashed as it is read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from ..archive import MAX_CONFIG, MAX_DECOMPRESSED, open_archive
from ..compression import Compression
from ..digest import Cancel, Digest
from ..errors import ArchiveFault, Issue, fault, has_errors
from ..image import MAX_TEXT, ImageConfig
from ..layers import Budget, LayerSource
from ..sizes import format_size
from ..validate import ArchiveImage, issues_of, read_archive
from .contents import ArchiveLayers, LayerWalk, at_layer
from .dive import DiveCount, DiveNumbers
from .tree import LayerChanges, MergedTree

LARGEST: Final = 10
"""Paths that are named of those that waste bytes."""
MAX_STEPS: Final = 1_000
"""Steps of a history that are kept, those aside that made a layer."""
MAX_TOLD: Final = 64 << 20
"""Bytes of the configs of an archive's images, each image's own counted: thousands may share a large one, and each shows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What a config says of how its image is run. Values of `env` may be secrets: who shows them leaves those out."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    env: tuple[tuple[str, str], ...] = ()
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    healthcheck: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()
    stop_signal: str = ""
    on_build: tuple[str, ...] = ()

    @classmethod
    def parse(cls, raw: bytes) -> RunSettings:
        """From a config's bytes, which `ImageConfig` has taken; what has another type than the specification's is left out."""
        value = json.loads(raw)
        run = value.get("config") if isinstance(value, dict) else None
        if not isinstance(run, dict):
            return cls()
        health = run.get("Healthcheck")
        labels = run.get("Labels")
        return cls(
            entrypoint=_texts(run.get("Entrypoint")),
            cmd=_texts(run.get("Cmd")),
            user=_text(run.get("User")),
            working_dir=_text(run.get("WorkingDir")),
            env=tuple((name, value) for name, _, value in (each.partition("=") for each in _texts(run.get("Env")))),
            exposed_ports=tuple(sorted(_keys(run.get("ExposedPorts")))),
            volumes=tuple(sorted(_keys(run.get("Volumes")))),
            labels=tuple(sorted((k, _text(v)) for k, v in labels.items())) if isinstance(labels, dict) else (),
            healthcheck=_texts(health.get("Test")) if isinstance(health, dict) else (),
            shell=_texts(run.get("Shell")),
            stop_signal=_text(run.get("StopSignal")),
            on_build=_texts(run.get("OnBuild")),
        )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):  # some builders write one word without the list
        return (value,)
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _keys(value: Any) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, dict) else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryStep:
    """An entry of a config's history, its texts as written and cut at `MAX_TEXT` characters; they may hold secrets.

    `layer` is the layer it made, from 0; None where it made none, or where entries and layers differ in number.
    """

    created: str
    created_by: str
    comment: str
    empty: bool
    layer: int | None


def history_of(raw: bytes, layers: int) -> tuple[tuple[HistoryStep, ...], int]:
    """The history in a config's bytes, which `ImageConfig` has taken, and how many more steps it has (see `MAX_STEPS`)."""
    listed = json.loads(raw).get("history")
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    made = [entry.get("empty_layer") is not True for entry in entries]
    fits = sum(made) == layers
    found, others, number = [], 0, 0
    for entry, own in zip(entries, made, strict=True):
        layer = number if own and fits else None
        number += own
        others += layer is None
        if layer is None and others > MAX_STEPS:
            continue
        found.append(
            HistoryStep(
                created=_text(entry.get("created"))[:MAX_TEXT],
                created_by=_text(entry.get("created_by"))[:MAX_TEXT],
                comment=_text(entry.get("comment"))[:MAX_TEXT],
                empty=not own,
                layer=layer,
            )
        )
    return tuple(found), len(entries) - len(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectedLayer:
    """A layer. `bytes` is its tar's size, `stored_bytes` that of what is stored; `digest` None where it is not told."""

    diff_id: Digest
    digest: Digest | None
    compression: Compression
    bytes: int
    stored_bytes: int
    changes: LayerChanges


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectedImage:
    """An image. Sizes in bytes of regular files: in all layers, in the final tree; their difference is wasted.

    `names` are as written in an archive, else full references. `dive` are dive's numbers, when asked for.
    """

    names: tuple[str, ...]
    image_id: Digest
    digest: Digest | None
    architecture: str
    variant: str
    os: str
    created: str
    author: str
    docker_version: str
    run: RunSettings
    history: tuple[HistoryStep, ...]
    history_left_out: int
    layers: tuple[InspectedLayer, ...]
    total_bytes: int
    final_bytes: int
    efficiency: float
    largest_waste: tuple[tuple[str, int], ...]
    dive: DiveNumbers | None

    @property
    def wasted_bytes(self) -> int:
        return self.total_bytes - self.final_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was looked into, and the issues of the archive and of its images; images with an error among theirs are left out."""

    source: str
    format: str
    images: tuple[InspectedImage, ...]
    issues: tuple[Issue, ...]

    @property
    def failed(self) -> bool:
        return has_errors(self.issues)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked for beside the numbers: the list of files of each layer, dive's numbers."""

    files: bool = False
    dive: bool = False


def inspect_archive(path: str, wanted: Wanted, cancel: Cancel, *, spool_dir: str | None = None) -> Inspection:
    """All images of the archive at `path` (`-` is standard input); what is wrong is among the issues.

    Raises `StoreError` when the spool's disk is full, `Cancelled`.
    """
    images: list[InspectedImage] = []
    issues: list[Issue] = []
    form = "unknown"
    try:
        with open_archive(path, spool_dir=spool_dir, cancel=cancel) as index:
            content = read_archive(index, cancel)
            form = content.format
            issues += content.issues
            counts = Counter(layer for image in content.images for layer in set(image.layers))
            shared = frozenset(layer for layer, count in counts.items() if count > 1)
            layers = ArchiveLayers(Budget(MAX_DECOMPRESSED, index.uncompressed_bytes), cancel, shared)
            told = 0
            for image in content.images:
                issues += image.issues
                if not has_errors(image.issues):
                    try:
                        told = _told(image, told)
                        images.append(_inspect_image(image, layers, wanted))
                    except ArchiveFault as e:
                        issues.append(e.issue.at(image_index=image.index))
    except ArchiveFault as e:
        issues += issues_of(e)
    located = tuple(each.at(archive=path) for each in issues)
    return Inspection(source=path, format=form, images=tuple(images), issues=located)


def _told(image: ArchiveImage, before: int) -> int:
    """Bytes of the configs up to this image. Raises metadata-too-large."""
    size = before + (image.config.size if image.config is not None else 0)
    if size > MAX_TOLD:
        shown, limit = format_size(size, beside=MAX_TOLD), format_size(MAX_TOLD)
        raise fault("metadata-too-large", name="the configs of the images so far", size=shown, limit=limit)
    return size


def _inspect_image(image: ArchiveImage, layers: ArchiveLayers, wanted: Wanted) -> InspectedImage:
    config, extent = image.config, image.config_extent
    assert config is not None and extent is not None
    manifest = image.oci.manifest if image.oci is not None else None
    if manifest is not None and len(manifest.layers) != len(image.layers):
        manifest = None

    def described(position: int, source: LayerSource) -> tuple[Digest | None, Compression, int]:
        digest = config.diff_ids[position] if source.compression is Compression.NONE else None
        if manifest is not None and manifest.layers[position].size == source.extent.size:
            digest = manifest.layers[position].digest
        return digest, source.compression, source.extent.size

    found = [LayerInput(*described(at, source), partial(layers.walk, source)) for at, source in enumerate(image.layers)]
    return merge(
        config,
        extent.read(MAX_CONFIG),
        found,
        wanted,
        names=image.names,
        digest=manifest.digest if manifest is not None else None,
        place=image.layer_place,
    )


@dataclass(frozen=True, slots=True)
class LayerInput:
    """A layer to be merged: the digest and size in bytes of what is stored, and its members."""

    digest: Digest | None
    compression: Compression
    stored_bytes: int
    walk: Callable[[], LayerWalk]


def merge(
    config: ImageConfig,
    raw_config: bytes,
    layers: list[LayerInput],
    wanted: Wanted,
    *,
    names: tuple[str, ...],
    digest: Digest | None,
    place: Callable[[int], str],
) -> InspectedImage:
    """Read the layers, lowest first. Raises an `ArchiveFault` located at the layer (`place`)."""
    tree = MergedTree(keep_files=wanted.files)
    dive = DiveCount() if wanted.dive else None
    found = []
    for position, layer in enumerate(layers):
        try:
            changes, size = _put(tree, dive, layer.walk())
        except ArchiveFault as e:
            raise at_layer(e, place(position)) from e
        found.append(
            InspectedLayer(
                diff_id=config.diff_ids[position],
                digest=layer.digest,
                compression=layer.compression,
                bytes=size,
                stored_bytes=layer.stored_bytes,
                changes=changes,
            )
        )
    value = json.loads(raw_config)
    history, left_out = history_of(raw_config, len(layers))
    return InspectedImage(
        names=names,
        image_id=config.digest,
        digest=digest,
        architecture=config.architecture,
        variant=_text(value.get("variant"))[:MAX_TEXT],
        os=config.os,
        created=config.created,
        author=_text(value.get("author"))[:MAX_TEXT],
        docker_version=config.docker_version,
        run=RunSettings.parse(raw_config),
        history=history,
        history_left_out=left_out,
        layers=tuple(found),
        total_bytes=tree.total_bytes,
        final_bytes=tree.final_bytes,
        efficiency=tree.efficiency,
        largest_waste=tuple(tree.largest_waste(LARGEST)),
        dive=dive.numbers() if dive is not None else None,
    )


def _put(tree: MergedTree, dive: DiveCount | None, walk: LayerWalk) -> tuple[LayerChanges, int]:
    """Put a layer on the tree; what it changed, and the size of its tar in bytes."""
    tree.begin()
    add = tree.add
    if dive is None:
        for member in walk.members:
            add(member)
    else:
        dive.begin()
        for member in walk.members:
            add(member)
            dive.add(member)
        dive.end()
    return tree.end(), walk.bytes
