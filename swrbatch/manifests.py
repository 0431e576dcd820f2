"""Kubernetes manifests in a folder: the files with a workload in them, and where the images of its containers stand.

A file is looked at when it ends in .yaml, .yml or .json and mentions the workload's name and kind; one of many documents, when it
does. What cannot be read is told and passed over: the workload may stand elsewhere. Each file is bounded, links are not followed.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NamedTuple

from .errors import UsageError, printable
from .sizes import format_size
from .yamltree import (
    Alias,
    BadYaml,
    Mapping,
    Node,
    Scalar,
    Sequence,
    documents,
    entries,
    read_tree,
    text_of,
    value_of,
    written,
)

KINDS: Final[MappingType[str, str]] = MappingProxyType({"deployments": "Deployment", "statefulsets": "StatefulSet"})
"""The API's `app_type` of a trigger → the kind in a manifest."""
SUFFIXES: Final = (".yaml", ".yml", ".json")
PATCH_SUFFIX: Final = ".image-patch.yaml"
"""What our patch files end in; they are no manifests."""
MAX_FILE: Final = 2 << 20
MAX_FILES: Final = 20_000
MAX_CONTAINERS: Final = 1_000
"""Of one workload in one document, however often aliases repeat them."""
MAX_NAME: Final = 253
_NAME: Final = re.compile(r"[a-z0-9]+(?:[-.]+[a-z0-9]+)*", re.ASCII)
_GROUPS: Final = ("apps/", "extensions/")
_LISTS: Final = ("containers", "initContainers")


@dataclass(frozen=True, slots=True)
class Workload:
    """An application as a trigger names it. A manifest that states no namespace is of the namespace `default`.

    Raises `UsageError` for another kind, and for names that Kubernetes does not take.
    """

    kind: str
    name: str
    namespace: str = "default"

    def __post_init__(self) -> None:
        if self.kind not in KINDS.values():
            raise UsageError(f"the kind {printable(self.kind)} is not updated: it is one of {', '.join(KINDS.values())}")
        for what, text in (("workload", self.name), ("namespace", self.namespace)):
            if len(text) > MAX_NAME or not _NAME.fullmatch(text):
                rule = f"lower-case letters, digits, - and . between them, {MAX_NAME} at most"
                raise UsageError(f"the {what} {printable(text)!r} is no name of Kubernetes: {rule}")

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file that could not be looked at, and why."""

    file: str
    reason: str


class Refused(Exception):
    """The update cannot be done; the message is the result's error."""


@dataclass(eq=False, slots=True)
class Use:
    """A container to be updated: the node of its image, the aliases on the way to it, and where it stands."""

    container: str
    init: bool
    written: Node
    scalar: Scalar
    through: tuple[Alias, ...]


class Document(NamedTuple):
    """A document with the workload in it: where it begins in the file, its text and tree, and the workload's containers."""

    start: int
    text: str
    roots: list[Node]
    uses: list[Use]


@dataclass(eq=False, slots=True)
class ManifestFile:
    """A file that holds the workload. `text` is without the byte order mark (`bom`); `name` is relative to the folder."""

    name: str
    path: str
    state: os.stat_result
    text: str
    bom: bool
    found: list[Document] = field(default_factory=list)


def walk(folder: str, skipped: list[SkippedFile]) -> Iterator[tuple[str, str]]:
    """The manifests below a folder, sorted, as (name in the folder, path). Links are not followed: those that leave are told."""
    if not os.path.isdir(folder):
        raise Refused(f"{printable(folder)} is no folder: name the one that holds the manifests")
    count = 0
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        links = [name for name in folders if os.path.islink(os.path.join(path, name))]
        manifests = set(files)
        for name in sorted([*links, *files]):
            whole = os.path.join(path, name)
            if name in manifests and (name.startswith(".") or not name.lower().endswith(SUFFIXES) or name.endswith(PATCH_SUFFIX)):
                continue
            shown = printable(os.path.relpath(whole, folder))
            if os.path.islink(whole):
                # What it names is looked at where it lies, if it lies in the folder.
                if os.path.commonpath([folder, os.path.realpath(whole)]) != folder:
                    skipped.append(SkippedFile(shown, "it is a link that leaves the folder"))
                continue
            count += 1
            if count > MAX_FILES:
                raise Refused(f"there are more than {MAX_FILES} manifests below {printable(folder)}: name a smaller folder")
            yield shown, whole


def read_file(name: str, path: str, workload: Workload, skipped: list[SkippedFile]) -> ManifestFile | None:
    """A file with the workload in it, all its containers as uses; None for any other, noted when it cannot be looked at."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        skipped.append(SkippedFile(name, f"it cannot be read: {e.strerror}"))
        return None
    with os.fdopen(fd, "rb") as f:
        state = os.fstat(f.fileno())
        if not stat.S_ISREG(state.st_mode):
            skipped.append(SkippedFile(name, "it is no regular file"))
            return None
        data = f.read(MAX_FILE + 1)
    if workload.name.encode() not in data or workload.kind.encode() not in data:
        return None
    if len(data) > MAX_FILE:
        skipped.append(SkippedFile(name, f"it has more than {format_size(MAX_FILE)}"))
        return None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        skipped.append(SkippedFile(name, "it is not UTF-8"))
        return None
    file = ManifestFile(name, path, state, text.removeprefix("\ufeff"), text.startswith("\ufeff"))
    for start, part in documents(file.text):
        if workload.name not in part or workload.kind not in part:
            continue
        try:
            roots = read_tree(part, file.text.count("\n", 0, start))
            found = [uses for root in roots for uses in _workloads(root, workload)]
            if found:
                file.found.append(Document(start, part, roots, [use for uses in found for use in uses]))
        except BadYaml as e:
            skipped.append(SkippedFile(name, f"it cannot be used: {e}"))
    return file if file.found else None


def _workloads(root: Node, workload: Workload) -> Iterator[list[Use]]:
    """The containers of each manifest of the workload in a document: the document itself, or one item of a list."""
    node, _ = value_of(root, ())
    if not isinstance(node, Mapping):
        return
    manifests = [node]
    if text_of(node, "kind").endswith("List"):
        listed = [items for items, _ in entries(node, "items", ()) if isinstance(items, Sequence)]
        manifests = [each for items in listed for item in items.items if isinstance(each := value_of(item, ())[0], Mapping)]
    for manifest in dict.fromkeys(manifests):
        if text_of(manifest, "kind") != workload.kind or not text_of(manifest, "apiVersion").startswith(_GROUPS):
            continue
        metadata = [found for found, _ in entries(manifest, "metadata", ())]
        if [(text_of(m, "name"), text_of(m, "namespace") or "default") for m in metadata] == [
            (workload.name, workload.namespace)
        ]:
            yield list(_containers(manifest))


def _containers(manifest: Node) -> Iterator[Use]:
    at: list[tuple[Node, tuple[Alias, ...]]] = [(manifest, ())]
    for key in ("spec", "template", "spec"):
        at = [found for mapping, through in at for found in entries(mapping, key, through)]
    for key in _LISTS:
        listed = [found for mapping, through in at for found in entries(mapping, key, through)]
        for items, more in listed:
            if isinstance(items, Sequence) and len(items.items) > MAX_CONTAINERS:
                raise BadYaml(f"a workload has more than {MAX_CONTAINERS} containers")
            for item in items.items if isinstance(items, Sequence) else []:
                yield from _container(item, more, init=key != "containers")


def _container(item: Node, through: tuple[Alias, ...], *, init: bool) -> Iterator[Use]:
    node, way = value_of(item, through)
    if not isinstance(node, Mapping):
        return
    name = text_of(node, "name")
    for place, via in written(node, "image", way):
        scalar, whole = value_of(place, via)
        if isinstance(scalar, Scalar) and scalar.value.strip():
            yield Use(name, init, place, scalar, whole)
