"""The OCI side of a hybrid archive (docker 25 and newer, containerd): `index.json` and the manifests that it leads to.

manifest.json decides what an archive's images are; this module only looks for the OCI manifest of each of them (so that a
producer's digest can be kept) and for what the two sides disagree about. Everything wrong here is a warning.

Source: OCI image-layout.md, image-index.md; containerd's and BuildKit's annotations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from .archive import MAX_OCI_MANIFEST, ArchiveIndex
from .digest import Digest
from .errors import ArchiveFault, Issue, issue
from .image import DOCKER_MANIFEST_LIST, OCI_INDEX, Manifest, parse_json
from .policy import normalise
from .sizes import format_size

MAX_INDEX_DEPTH: Final = 4
MAX_DESCRIPTORS: Final = 10_000
MAX_BYTES: Final = 16 << 20
"""Bytes of indexes and manifests read, each as often as it is pointed at: they stay in memory until the archive is done."""
_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class FoundManifest:
    """A manifest met on the way, with the digest of the index that it came through (None at the top level)."""

    manifest: Manifest
    index_digest: Digest | None
    platform: str
    name: str | None


@dataclass(slots=True)
class OciSide:
    """What index.json leads to."""

    found: list[FoundManifest] = field(default_factory=list)
    attestations: int = 0
    absent: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    issues: list[Issue] = field(default_factory=list)

    def manifest_of(self, image_id: Digest) -> FoundManifest | None:
        """The manifest whose config is `image_id`."""
        return next((f for f in self.found if f.manifest.config.digest == image_id), None)


def read_oci(index: ArchiveIndex) -> OciSide | None:
    """Follow index.json; None when the archive has none."""
    if "index.json" not in index.members:
        return None
    side = OciSide()
    try:
        member = index.resolve("index.json", missing="manifest-missing", place="index.json")
        top = parse_json(index.read_bounded(member, MAX_OCI_MANIFEST, "index.json"), "index.json")
        _Walk(index, side).descend(top, None, None, 0)
    except ArchiveFault as e:
        side.issues.append(_disagrees("index.json", e.issue.message))
    return side


def compare_names(side: OciSide, tags: dict[str, Digest]) -> list[Issue]:
    """Warnings where index.json's names differ from RepoTags (`tags`: name as written → image ID)."""
    if not side.names:
        return []
    ours = {normalise(tag): image_id for tag, image_id in tags.items()}
    theirs = {normalise(name): name for name in side.names}
    issues = [
        issue("index-extra-image", place="index.json", name=name)
        for key, name in list(theirs.items())[:_SHOWN]
        if key not in ours
    ]
    missing = sorted(key for key in ours if key not in theirs)
    if missing:
        issues.append(_disagrees("index.json", f"index.json does not name {', '.join(missing[:_SHOWN])}"))
    for found in side.found:
        if found.name is None or found.index_digest is not None:
            continue
        image_id = ours.get(normalise(found.name))
        if image_id is not None and image_id != found.manifest.config.digest:
            issues.append(_disagrees("index.json", f"{found.name} is another image there"))
    return issues


def left_out(side: OciSide, image_ids: set[Digest]) -> list[Issue]:
    """Warnings for attestations and for platforms that manifest.json does not list."""
    issues = []
    if side.attestations:
        issues.append(issue("attestations-left-out", place="index.json", count=side.attestations))
    others = [f.platform for f in side.found if f.index_digest is not None and f.manifest.config.digest not in image_ids]
    others += side.absent
    if others:
        issues.append(issue("platforms-left-out", place="index.json", detail=", ".join(sorted(set(others))[:_SHOWN])))
    return issues


def _disagrees(place: str, detail: str) -> Issue:
    return issue("index-disagrees", place=place, detail=detail)


class _Walk:
    """Follows the descriptors of an index, bounded in depth and number."""

    def __init__(self, index: ArchiveIndex, side: OciSide) -> None:
        self._index = index
        self._side = side
        self._count = 0
        self._bytes = 0

    def descend(self, document: Any, via: Digest | None, name: str | None, depth: int) -> None:
        for entry in self._entries(document):
            annotations = entry.get("annotations")
            annotations = annotations if isinstance(annotations, dict) else {}
            platform, unknown = _platform(entry.get("platform"))
            if annotations.get("vnd.docker.reference.type") == "attestation-manifest" or unknown:
                self._side.attestations += 1
                continue
            own = annotations.get("io.containerd.image.name")
            if depth == 0:
                name = own if isinstance(own, str) else None
                if name is not None:
                    self._side.names.append(name)
            self._visit(entry, via, name, platform, depth)

    def _entries(self, document: Any) -> Iterator[dict[str, Any]]:
        entries = document.get("manifests") if isinstance(document, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            self._side.issues.append(_disagrees("index.json", "an index has no list of manifests"))
            return
        for entry in entries:
            self._count += 1
            if self._count > MAX_DESCRIPTORS or self._bytes > MAX_BYTES:
                limit = f"{MAX_DESCRIPTORS} descriptors or {format_size(MAX_BYTES)} of indexes and manifests"
                self._side.issues.append(_disagrees("index.json", f"more than {limit}"))
                return
            yield entry

    def _visit(self, entry: dict[str, Any], via: Digest | None, name: str | None, platform: str, depth: int) -> None:
        try:
            digest = Digest.parse(entry.get("digest"))
        except ValueError as e:
            self._side.issues.append(_disagrees("index.json", str(e)))
            return
        blob = f"blobs/sha256/{digest.hex}"
        if blob not in self._index.members:
            if depth:
                self._side.absent.append(platform)
            else:
                self._side.issues.append(_disagrees("index.json", f"{digest} is not in the archive"))
            return
        try:
            member = self._index.resolve(blob, missing="layer-missing", place=blob)
            raw = self._index.read_bounded(member, MAX_OCI_MANIFEST, blob)
            self._bytes += len(raw)
            if Digest.of(raw) != digest:
                raise ValueError(f"the content of {blob} is not {digest}")
            if entry.get("mediaType") in (OCI_INDEX, DOCKER_MANIFEST_LIST):
                if depth >= MAX_INDEX_DEPTH:
                    raise ValueError(f"indexes are nested deeper than {MAX_INDEX_DEPTH}")
                self.descend(parse_json(raw, blob), digest, name, depth + 1)
            else:
                self._side.found.append(FoundManifest(Manifest.parse(raw), via, platform, name))
        except (ArchiveFault, ValueError) as e:
            self._side.issues.append(_disagrees(blob, str(e)))


def _platform(value: object) -> tuple[str, bool]:
    """A platform as `os/architecture[/variant]`, and whether it is the `unknown/unknown` of attestations."""
    if not isinstance(value, dict):
        return "unstated platform", False
    system, architecture = str(value.get("os", "")), str(value.get("architecture", ""))
    variant = value.get("variant")
    text = f"{system}/{architecture}" + (f"/{variant}" if isinstance(variant, str) and variant else "")
    return text, (system, architecture) == ("unknown", "unknown")
