"""An `ArchiveIndex` becomes images with located issues: structure here, digests after the layers were read.

All faults are reported, not only the first; only what makes reading on senseless (no manifest.json, damage) ends an archive.

Sources: Docker's image specification v1.2 (manifest.json, repositories), `docker save` of each producer in the facts page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .archive import MAX_CONFIG, MAX_MANIFEST, ArchiveIndex
from .compression import Compression, sniff
from .digest import Cancel, Extent, hash_extent
from .errors import ArchiveFault, Issue, fault, has_errors, issue
from .image import DOCKER_CONFIG, MAX_TEXT, OCI_CONFIG, ImageConfig, Manifest, layer_compression, parse_json
from .layers import LayerFacts, LayerSource
from .oci import FoundManifest, compare_names, left_out, read_oci
from .policy import normalise
from .schemas import validator
from .sizes import format_size
from .tar import Member

MAX_IMAGES: Final = 5_000
"""Images, and names; bounded for the sake of the issues that each of them may have."""
MAX_LAYER_ENTRIES: Final = 30_000
MAX_LAYERS: Final = 10_000
"""Layers of one image: with more, its manifest could pass the 4 MiB that registries read."""
MAX_CONFIGS: Final = 32 << 20
"""Bytes of all configs together: what is read of them stays in memory until the archive is done."""
_SHOWN: Final = 20
_LAYER_FAULTS: Final = 1000
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
    used: set[str] = set()
    entries = _read_manifest(index, used)
    oci = read_oci(index)
    reader = _ImageReader(index, used)
    images = [reader.read(position, entry) for position, entry in enumerate(entries)]
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
    plain = any(_source_compression(fact) is Compression.NONE for fact in facts)
    return (None if plain and target is not Compression.NONE else manifest), []


def _disagreement(manifest: Manifest, config: ImageConfig, facts: Sequence[LayerFacts]) -> str | None:
    if (manifest.config.digest, manifest.config.size) != (config.digest, config.size):
        return "its config has another size"
    if manifest.config.media_type not in (OCI_CONFIG, DOCKER_CONFIG):
        return f"its config has the media type {manifest.config.media_type}"
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


def _read_manifest(index: ArchiveIndex, used: set[str]) -> list[dict[str, Any]]:
    if "manifest.json" not in index.members:
        raise _no_manifest(index)
    member = index.resolve("manifest.json", missing="manifest-missing", place="manifest.json", used=used)
    document = parse_json(index.read_bounded(member, MAX_MANIFEST, "manifest.json"), "manifest.json")
    if document is None or document == []:
        raise fault("manifest-empty", place="manifest.json")
    entries = fold_manifest(document)
    if not manifest_fits(entries):
        raise _schema_fault(entries)
    assert isinstance(entries, list)
    listed = [len(entry.get("layers") or ()) for entry in entries]
    names = sum(len(entry.get("repotags") or ()) for entry in entries)
    for count, limit, what in (
        (len(entries), MAX_IMAGES, "images"),
        (names, MAX_IMAGES, "names"),
        (sum(listed), MAX_LAYER_ENTRIES, "layers"),
        (max(listed), MAX_LAYERS, "layers of one image"),
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
        and "" not in (entry.get("layers") or ())
        and isinstance(entry.get("parent"), str | None)
        and isinstance(entry.get("layersources"), dict | None)
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


_SPELLING: Final = {
    "config": "Config",
    "repotags": "RepoTags",
    "layers": "Layers",
    "parent": "Parent",
    "layersources": "LayerSources",
}
_JSON_TYPES: Final = {
    "array": "a list", "object": "an object", "string": "a string", "null": "null", "number": "a number", "boolean": "a boolean",
}  # fmt: skip


def _schema_fault(entries: Any) -> ArchiveFault:
    found = []
    for error in validator("docker-manifest.schema.json").iter_errors(entries):
        place = "manifest"
        for step in error.absolute_path:
            place += f"[{step}]" if isinstance(step, int) else f".{_SPELLING.get(step, step)}"
        if error.validator == "required" and error.instance.keys() & {"repotags", "layers"}:
            found.append(issue("config-missing", place=place, name="(Config is not given)"))
        else:
            found.append(issue("manifest-schema", place=place, detail=_explained(error)))
        if len(found) >= _SHOWN:
            break
    return _ManyFaults(found)


def _explained(error: Any) -> str:
    """Why an instance breaks the schema, without the instance itself, which may be of any size."""
    if error.validator == "required":
        # imgpkg, for one, has a manifest.json of its own.
        keys = ", ".join(key[:100] for key in list(error.instance)[:_SHOWN]) or "nothing"
        return f"the entry has {keys} where docker's have Config, RepoTags and Layers"
    if error.validator == "minLength":
        return "a string is empty"
    types = [error.validator_value] if isinstance(error.validator_value, str) else error.validator_value
    is_type = validator("docker-manifest.schema.json").is_type
    given = next(words for name, words in _JSON_TYPES.items() if is_type(error.instance, name))
    return f"there is {given} where {' or '.join(_JSON_TYPES[name] for name in types)} belongs"


def _no_manifest(index: ArchiveIndex) -> ArchiveFault:
    """What an archive without manifest.json is; each kind has its own way out."""
    names = index.members
    if not index.end_marker:
        return fault("archive-truncated", place="manifest.json", detail="there is no end marker, and no manifest.json before it")
    tops = {name.split("/", 1)[0] for name in names}
    if "oci-layout" in names or ("index.json" in names and "blobs" in tops):
        return fault("oci-archive", place="oci-layout")
    if any(name.endswith("/layer.tar") and _HEX.fullmatch(name.split("/", 1)[0]) for name in names):
        return fault("docker-too-old", place="manifest.json")
    if len(tops & _ROOTFS) >= 2:
        return fault("filesystem-export", place="manifest.json")
    return fault("manifest-missing", place="manifest.json")


# --- images ----------------------------------------------------------------------------------------------------------


class _ImageReader:
    """Reads the images of an archive and adds the names of their members to `used`; counts what is bounded for all together."""

    def __init__(self, index: ArchiveIndex, used: set[str]) -> None:
        self._index = index
        self._used = used
        self._configs: dict[Member, ImageConfig | Issue] = {}
        self._config_bytes = 0
        self._layer_faults = 0

    def read(self, position: int, entry: dict[str, Any]) -> ArchiveImage:
        """The image of one entry of manifest.json, with what is wrong with it."""
        place = f"manifest[{position}]"
        # No rule accepts a name near this long, and each is handled several times.
        names = tuple(name[:MAX_TEXT] for name in entry.get("repotags") or ())
        image = ArchiveImage(index=position, names=names)
        found = image.issues
        try:
            self._read_config(image, entry["config"], f"{place}.Config")
        except ArchiveFault as e:
            found.append(e.issue)
        image.layers = tuple(self._layers(entry.get("layers") or (), f"{place}.Layers", found))
        if image.config is not None and not has_errors(found):
            count = len(image.config.diff_ids)
            if count != len(image.layers):
                found.append(issue("layer-count-mismatch", place=f"{place}.Layers", layers=len(image.layers), diff_ids=count))
            elif not image.layers:
                found.append(issue("image-without-layers", place=f"{place}.Layers"))
        image.issues = [each.at(image_index=position) for each in found]
        return image

    def _read_config(self, image: ArchiveImage, name: str, place: str) -> None:
        member = self._index.resolve(name, missing="config-missing", place=place, used=self._used)
        image.config_extent = self._index.extent(member)
        if member not in self._configs:
            self._configs[member] = self._parse_config(member, place)
        config = self._configs[member]
        if isinstance(config, Issue):
            raise ArchiveFault(config)
        image.config = config
        image.issues += _config_warnings(config, name, member)

    def _parse_config(self, member: Member, place: str) -> ImageConfig | Issue:
        try:
            raw = self._index.read_bounded(member, MAX_CONFIG, "the config", place=place)
            self._config_bytes += len(raw)
            if self._config_bytes > MAX_CONFIGS:
                size, limit = format_size(self._config_bytes, beside=MAX_CONFIGS), format_size(MAX_CONFIGS)
                raise fault("metadata-too-large", place=place, name="all configs so far", size=size, limit=limit)
            return ImageConfig.parse(raw, member.name)
        except ArchiveFault as e:
            return e.issue

    def _layers(self, names: Sequence[str], place: str, found: list[Issue]) -> Iterator[LayerSource]:
        """The layers that are there; of the others an issue each, up to a number that says enough."""
        for number, name in enumerate(names):
            try:
                member = self._index.resolve(name, missing="layer-missing", place=f"{place}[{number}]", used=self._used)
            except ArchiveFault as e:
                self._layer_faults += 1
                if self._layer_faults <= _LAYER_FAULTS or not has_errors(found):
                    found.append(e.issue)
                continue
            extent = self._index.extent(member)
            yield LayerSource(extent, sniff(extent.read(6)))


def _config_warnings(config: ImageConfig, name: str, member: Member) -> Iterable[Issue]:
    stated = _HEX.search(name) or _HEX.search(member.name)
    if stated and stated[0] != config.digest.hex:
        yield issue("config-name-mismatch", place=name[:MAX_TEXT], name=name, actual=config.digest)
    steps = None if config.history is None else len(config.history)
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
    try:
        member = index.resolve("repositories", missing="manifest-missing", place="repositories", used=used)
        document = parse_json(index.read_bounded(member, MAX_MANIFEST, "repositories"), "repositories")
    except ArchiveFault as e:
        return [e.issue]
    if document is None or document == {}:
        return []
    if not isinstance(document, dict) or not all(isinstance(tags, dict) for tags in document.values()):
        return [issue("repositories-differ", place="repositories", detail="repositories is no map of names to tags")]
    ours = {normalise(name) for image in images for name in image.names}
    met: set[str] = set()
    theirs: set[str] = set()
    # Thousands of tags may stand under a name of megabytes: names are cut, and kept only as far as they are shown.
    for name, tags in ((name[:MAX_TEXT], tags) for name, tags in document.items()):
        for full in (normalise(f"{name}:{tag[:MAX_TEXT]}") for tag in tags):
            if full in ours:
                met.add(full)
            elif len(theirs) < _SHOWN:
                theirs.add(full)
    details = [f"{name} is only in repositories" for name in sorted(theirs)]
    details += [f"{name} is only in manifest.json" for name in sorted(ours - met)[:_SHOWN]]
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
        # Docker packs folders (nix, too, and compresses the whole); Bazel writes files only.
        folder = index.members.get(layers[0].removesuffix("/layer.tar"))
        return "docker 1.10-24" if folder is not None and folder.kind == "directory" else "bazel rules_docker"
    if _HEX.fullmatch(layers[0].removesuffix(".tar")):
        return "podman or skopeo"
    return "unknown"
