"""An `ArchiveIndex` becomes images with located issues: structure here, digests after the layers were read.

All faults are reported, not only the first; only what makes reading on senseless (no manifest.json, damage) ends an archive.

Sources: Docker's image specification v1.2 (manifest.json, repositories), `docker save` of each producer in the facts page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .archive import MAX_CONFIG, MAX_MANIFEST, ArchiveIndex, Member
from .compression import Compression, sniff
from .digest import Cancel, Extent, hash_extent
from .errors import ArchiveFault, Issue, fault, has_errors, issue
from .image import MAX_TEXT, ImageConfig, Manifest, layer_compression, parse_json
from .layers import LayerFacts, LayerSource
from .oci import FoundManifest, compare_names, left_out, read_oci
from .policy import normalise
from .schemas import validator

MAX_IMAGES: Final = 10_000
MAX_LAYER_ENTRIES: Final = 100_000
_SHOWN: Final = 20
_SMALL: Final = 4 << 20
_MIN_DOCKER: Final = (1, 11, 2)
_HEX: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_ROOTFS: Final = {"bin", "etc", "usr", "lib", "var", "dev", "proc", "sys", "root", "home", "sbin", "tmp", ".dockerenv"}


@dataclass(slots=True, kw_only=True)
class ArchiveImage:
    """An image that manifest.json lists. `config` is None and `layers` may be short when `issues` hold an error.

    `names` are the RepoTags as written.
    """

    index: int
    names: tuple[str, ...]
    config: ImageConfig | None = None
    config_extent: Extent | None = None
    layers: tuple[LayerSource, ...] = ()
    oci: FoundManifest | None = None
    issues: list[Issue] = field(default_factory=list)

    def layer_place(self, position: int) -> str:
        """`layer 3 (sha256:…)`, counted from 0 as in the report's `layer_index`."""
        ids = self.config.diff_ids if self.config else ()
        return f"layer {position}" + (f" ({ids[position]})" if position < len(ids) else "")


@dataclass(slots=True, kw_only=True)
class ArchiveContent:
    """What an archive holds: its images and the issues of the archive as a whole."""

    format: str
    producer_hint: str
    images: list[ArchiveImage]
    issues: list[Issue]


def read_archive(index: ArchiveIndex, cancel: Cancel) -> ArchiveContent:
    """The images of an indexed archive, structure checked, no layer read.

    Raises an `ArchiveFault` when the archive has no usable manifest.json.
    """
    entries = _read_manifest(index)
    used: set[str] = {"manifest.json"}
    oci = read_oci(index)
    configs: dict[int, ImageConfig] = {}
    images = [_read_image(index, position, entry, used, configs) for position, entry in enumerate(entries)]
    issues: list[Issue] = []
    if oci is not None:
        issues += oci.issues
        for image in images:
            image.oci = oci.manifest_of(image.config.digest) if image.config else None
        ids = {image.config.digest for image in images if image.config}
        issues += compare_names(oci, {name: i.config.digest for i in images if i.config for name in i.names})
        issues += left_out(oci, ids)
    issues += _compare_repositories(index, images, used)
    issues += _duplicates(index, used, cancel)
    return ArchiveContent(
        format="docker-oci-hybrid" if oci is not None else "docker-archive",
        producer_hint=_producer(index, entries, oci is not None),
        images=images,
        issues=issues,
    )


def check_layers(image: ArchiveImage, facts: Sequence[LayerFacts]) -> list[Issue]:
    """Compare what was read with what the config says: an issue diff-id-mismatch for each layer that differs."""
    assert image.config is not None
    return [
        issue(
            "diff-id-mismatch",
            place=image.layer_place(position),
            image_index=image.index,
            actual=fact.diff_id,
            expected=expected,
        )
        for position, (fact, expected) in enumerate(zip(facts, image.config.diff_ids, strict=False))
        if fact.diff_id != expected
    ]


def kept_manifest(image: ArchiveImage, facts: Sequence[LayerFacts], target: Compression) -> tuple[Manifest | None, list[Issue]]:
    """The archive's own OCI manifest when it may be kept byte for byte, and a warning where it disagrees.

    It is kept when it agrees with manifest.json, the config and the layers as read, and the layers are compressed already (or
    are to stay plain, `target` none).
    """
    if image.oci is None or image.config is None:
        return None, []
    manifest = image.oci.manifest
    detail = _disagreement(manifest, image.config, facts)
    if detail is not None:
        place = f"blobs/sha256/{manifest.digest.hex}"
        return None, [issue("oci-manifest-differs", place=place, image_index=image.index, detail=detail)]
    plain = any(fact.compression is Compression.NONE for fact in facts)
    return (None if plain and target is not Compression.NONE else manifest), []


def _disagreement(manifest: Manifest, config: ImageConfig, facts: Sequence[LayerFacts]) -> str | None:
    if (manifest.config.digest, manifest.config.size) != (config.digest, config.size):
        return "its config has another size"
    if len(manifest.layers) != len(facts):
        return f"it lists {len(manifest.layers)} layers, manifest.json {len(facts)}"
    for position, (layer, fact) in enumerate(zip(manifest.layers, facts, strict=True)):
        if (layer.digest, layer.size) != (fact.source_digest, fact.source_bytes):
            return f"layer {position} is {layer.digest} of {layer.size} bytes there"
        promised = layer_compression(layer.media_type)
        if promised is None or promised is not _source_compression(fact):
            return f"layer {position} has the media type {layer.media_type}"
    return None


def _source_compression(fact: LayerFacts) -> Compression | None:
    """The compression of the bytes in the archive, as far as a registry's media types know it."""
    if fact.diff_id == fact.source_digest:
        return Compression.NONE
    return fact.compression if fact.digest == fact.source_digest else None


# --- manifest.json ---------------------------------------------------------------------------------------------------


def _read_manifest(index: ArchiveIndex) -> list[dict[str, Any]]:
    if "manifest.json" not in index.members:
        raise _no_manifest(index)
    member = index.resolve("manifest.json", missing="manifest-missing", place="manifest.json")
    document = parse_json(index.read_bounded(member, MAX_MANIFEST, "manifest.json"), "manifest.json")
    if document is None or document == []:
        raise fault("manifest-empty", place="manifest.json")
    entries = fold_manifest(document)
    if not manifest_fits(entries):
        raise _schema_fault(entries)
    assert isinstance(entries, list)
    listed = sum(len(entry.get("layers") or ()) for entry in entries)
    names = sum(len(entry.get("repotags") or ()) for entry in entries)
    for count, limit, what in (
        (len(entries), MAX_IMAGES, "images"),
        (names, MAX_IMAGES, "names"),
        (listed, MAX_LAYER_ENTRIES, "layers"),
    ):
        if count > limit:
            raise fault("too-many-images", place="manifest.json", detail=f"{count} {what}, at most {limit} are read")
    return entries


def fold_manifest(document: Any) -> Any:
    """manifest.json with the keys of its entries in lower case: Go matches them without regard to case, the last one wins."""
    if not isinstance(document, list):
        return document
    return [{key.lower(): value for key, value in entry.items()} if isinstance(entry, dict) else entry for entry in document]


def manifest_fits(entries: Any) -> bool:
    """The verdict of `schemas/docker-manifest.schema.json` on a folded manifest, without the cost of explaining it."""
    return isinstance(entries, list) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("config"), str)
        and entry["config"] != ""
        and _texts(entry.get("repotags"))
        and _texts(entry.get("layers"))
        for entry in entries
    )


def _texts(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(text, str) for text in value))


class _ManyFaults(ArchiveFault):
    """Several issues that end an archive together."""

    def __init__(self, found: list[Issue]) -> None:
        super().__init__(found[0])
        self.issues = found


def issues_of(e: ArchiveFault) -> list[Issue]:
    """All issues that a fault carries."""
    return e.issues if isinstance(e, _ManyFaults) else [e.issue]


def _schema_fault(entries: Any) -> ArchiveFault:
    spelling = {"config": "Config", "repotags": "RepoTags", "layers": "Layers"}
    found = []
    for error in validator("docker-manifest.schema.json").iter_errors(entries):
        place = "manifest"
        for step in error.absolute_path:
            place += f"[{step}]" if isinstance(step, int) else f".{spelling.get(step, step)}"
        entry = error.instance if isinstance(error.instance, dict) else {}
        if error.validator in ("required", "minLength") and not entry.get("config"):
            found.append(issue("config-missing", place=place, name="(Config is not given)"))
        else:
            found.append(issue("manifest-schema", place=place, detail=error.message[:200]))
        if len(found) >= _SHOWN:
            break
    return _ManyFaults(found)


def _no_manifest(index: ArchiveIndex) -> ArchiveFault:
    """What an archive without manifest.json is; each kind has its own way out."""
    names = index.members
    tops = {name.split("/", 1)[0] for name in names}
    if "oci-layout" in names or ("index.json" in names and "blobs" in tops):
        return fault("oci-archive", place="oci-layout")
    if any(name.endswith("/layer.tar") and _HEX.fullmatch(name.split("/", 1)[0]) for name in names):
        return fault("docker-too-old", place="manifest.json")
    if not index.end_marker:
        return fault("archive-truncated", place="manifest.json", detail="there is no end marker, and no manifest.json before it")
    if len(tops & _ROOTFS) >= 2:
        return fault("filesystem-export", place="manifest.json")
    return fault("manifest-missing", place="manifest.json")


# --- images ----------------------------------------------------------------------------------------------------------


def _read_image(
    index: ArchiveIndex, position: int, entry: dict[str, Any], used: set[str], configs: dict[int, ImageConfig]
) -> ArchiveImage:
    place = f"manifest[{position}]"
    image = ArchiveImage(index=position, names=tuple(entry.get("repotags") or ()))
    found = image.issues
    try:
        member = index.resolve(entry["config"], missing="config-missing", place=f"{place}.Config")
        used.update((entry["config"], member.name))
        image.config_extent = index.extent(member)
        if member.offset not in configs:
            raw = index.read_bounded(member, MAX_CONFIG, "the config")
            configs[member.offset] = ImageConfig.parse(raw, member.name)
        image.config = configs[member.offset]
        found += _config_warnings(image.config, entry["config"], member)
    except ArchiveFault as e:
        found.append(e.issue)
    layers = []
    for number, name in enumerate(entry.get("layers") or ()):
        try:
            member = index.resolve(name, missing="layer-missing", place=f"{place}.Layers[{number}]")
        except ArchiveFault as e:
            found.append(e.issue)
            continue
        used.update((name, member.name))
        extent = index.extent(member)
        layers.append(LayerSource(extent, sniff(extent.read(6))))
    image.layers = tuple(layers)
    if image.config is not None and not has_errors(found):
        count = len(image.config.diff_ids)
        if count != len(layers):
            found.append(issue("layer-count-mismatch", place=f"{place}.Layers", layers=len(layers), diff_ids=count))
        elif not layers:
            found.append(issue("image-without-layers", place=f"{place}.Layers"))
    image.issues = [each.at(image_index=position) for each in found]
    return image


def _config_warnings(config: ImageConfig, name: str, member: Member) -> Iterable[Issue]:
    stated = _HEX.search(name) or _HEX.search(member.name)
    if stated and stated[0] != config.digest.hex:
        yield issue("config-name-mismatch", place=name[:MAX_TEXT], name=name, actual=config.digest)
    steps = None if config.history is None else sum(not step.empty_layer for step in config.history)
    if not steps and config.diff_ids:
        yield issue("history-missing", place=member.name)
    elif steps is not None and steps != len(config.diff_ids):
        yield issue("history-mismatch", place=member.name, history=steps, diff_ids=len(config.diff_ids))
    version = re.match(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?", config.docker_version, re.ASCII)
    if version and tuple(int(part or 0) for part in version.groups()) < _MIN_DOCKER:
        yield issue("docker-version-old", place=member.name, version=config.docker_version)


def _compare_repositories(index: ArchiveIndex, images: list[ArchiveImage], used: set[str]) -> list[Issue]:
    """The names are judged by manifest.json and the file `repositories` (guide 9.3.3): where both speak they must agree."""
    if "repositories" not in index.members:
        return []
    used.add("repositories")
    try:
        member = index.resolve("repositories", missing="manifest-missing", place="repositories")
        document = parse_json(index.read_bounded(member, MAX_MANIFEST, "repositories"), "repositories")
    except ArchiveFault as e:
        return [e.issue]
    if document is None or document == {}:
        return []
    if not isinstance(document, dict) or not all(isinstance(tags, dict) for tags in document.values()):
        return [issue("repositories-differ", place="repositories", detail="repositories is no map of names to tags")]
    theirs = {normalise(f"{name}:{tag}") for name, tags in document.items() for tag in tags}
    ours = {normalise(name) for image in images for name in image.names}
    details = [f"{name} is only in repositories" for name in sorted(theirs - ours)[:_SHOWN]]
    details += [f"{name} is only in manifest.json" for name in sorted(ours - theirs)[:_SHOWN]]
    return [issue("repositories-differ", place="repositories", detail=detail) for detail in details]


# --- duplicates ------------------------------------------------------------------------------------------------------


def _duplicates(index: ArchiveIndex, used: set[str], cancel: Cancel) -> list[Issue]:
    found = []
    for name, members in index.duplicates.items():
        needed = name in used or any(m.kind != "file" for m in members)
        if _same(index, members, needed, cancel):
            continue
        code = "duplicate-members" if name in used else "duplicate-unused"
        found.append(issue(code, place=name, name=name, count=len(members)))
        if len(found) >= _SHOWN:
            break
    return found


def _same(index: ArchiveIndex, members: list[Member], needed: bool, cancel: Cancel) -> bool:
    first = members[0]
    if any((m.kind, m.size, m.target) != (first.kind, first.size, first.target) for m in members):
        return False
    if first.kind != "file" or first.size == 0:
        return True
    # Large members that no image uses are not read just for a warning.
    if not needed and first.size * len(members) > _SMALL:
        return True
    return len({hash_extent(index.extent(m), cancel) for m in members}) == 1


# --- producers -------------------------------------------------------------------------------------------------------


def _producer(index: ArchiveIndex, entries: list[dict[str, Any]], hybrid: bool) -> str:
    """Who probably wrote the archive; a hint for people, nothing depends on it."""
    config = entries[0]["config"]
    layers = entries[0].get("layers") or [""]
    if hybrid:
        return "docker 25+" if "layersources" in entries[0] else "docker with containerd, nerdctl or buildkit"
    if config.startswith("sha256:"):
        return "crane, ko, kaniko or apko"
    if config == "config.json":
        return "jib"
    if layers[0].startswith("blobs/sha256/"):
        return "bazel rules_oci"
    if layers[0].endswith("/layer.tar"):
        version = layers[0].removesuffix("layer.tar") + "VERSION"
        return "docker 1.10-24" if version in index.members else "bazel rules_docker or nix"
    if _HEX.fullmatch(layers[0].removesuffix(".tar")):
        return "podman or skopeo"
    return "unknown"
