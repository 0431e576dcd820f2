"""Kubernetes manifests as rules see them: the pod specs of workloads, their images, what they log in to a registry with.

A file may hold many documents, a document a list. Only what a rule needs is read; a document that is no YAML is a fault with its
line, and the others are read. Sources: the Kubernetes API reference (PodSpec, ServiceAccount); the guide's 9.4.1.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from ..digest import Cancel
from ..manifests import MAX_CONTAINERS, MAX_FILE
from ..sizes import format_size
from ..yamltree import Alias, BadYaml, Node, Scalar, Sequence, documents, entries, read_tree, text_of, value_of, written
from ..yamltree import Mapping as YamlMapping

POD: Final = ("spec",)
TEMPLATE: Final = ("spec", "template", "spec")
PATHS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "Pod": POD,
        **dict.fromkeys(("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"), TEMPLATE),
        "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
    }
)
"""Kind -> the way to its pod's spec."""
_READ: Final = re.compile(rf"\b(?:{'|'.join(PATHS)}|ServiceAccount|\w*List)\b")
_LISTS: Final = ("initContainers", "containers", "ephemeralContainers")
MAX_ITEMS: Final = 10_000
"""Manifests of one list."""


@dataclass(frozen=True, slots=True)
class Place:
    """A text of a manifest and the line, from 1, where it stands."""

    text: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container of a pod: its image, and imagePullSecrets that stand in it, where they have no effect."""

    name: str
    image: Place
    secrets: Place | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSpec:
    """The pod of a workload. `secrets` are the names under imagePullSecrets, None where the key is missing."""

    kind: str
    name: str
    namespace: str
    account: str
    secrets: tuple[Place, ...] | None
    containers: tuple[Container, ...]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


Accounts = Mapping[tuple[str, str], tuple[str, ...]]
"""Namespace and name of each ServiceAccount -> the names of its imagePullSecrets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadFile:
    """A file of manifests. `registries` are the hosts (globs) whose images need a login; `faults` are lines that are no YAML."""

    path: str
    text: str
    pods: tuple[PodSpec, ...] = ()
    accounts: Accounts = field(default_factory=lambda: MappingProxyType({}))
    faults: tuple[Place, ...] = ()
    registries: tuple[str, ...] = ()


def parse_workloads(data: bytes, path: str, cancel: Cancel | None = None) -> WorkloadFile:
    """A file of manifests from its bytes; what is wrong is among its faults. With `cancel`: `Cancelled`."""
    if len(data) > MAX_FILE:
        return WorkloadFile(path=path, text="", faults=(Place(f"it has more than {format_size(MAX_FILE)}", 1),))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        return WorkloadFile(path=path, text="", faults=(Place("it is not UTF-8", data.count(b"\n", 0, e.start) + 1),))
    pods: list[PodSpec] = []
    accounts: dict[tuple[str, str], tuple[str, ...]] = {}
    faults = []
    ends = array("L", (match.start() for match in re.finditer("\n", text)))
    for start, part in documents(text):
        if not _READ.search(part):
            continue
        reader = _Reader(ends, start)
        before = bisect_left(ends, start)
        try:
            for root in read_tree(part, before, cancel):
                for manifest in reader.manifests(root):
                    kind = text_of(manifest, "kind")
                    if kind == "ServiceAccount":
                        name, namespace = reader.name(manifest)
                        secrets = reader.secrets(manifest)
                        accounts[namespace, name] = tuple(secret.text for secret in secrets or ())
                    elif kind in PATHS:
                        pods += reader.pods(manifest, kind)
        except BadYaml as e:
            line = re.match(r"line (\d+)", str(e))
            faults.append(Place(str(e), int(line[1]) if line else before + 1))
    return WorkloadFile(path=path, text=text, pods=tuple(pods), accounts=MappingProxyType(accounts), faults=tuple(faults))


def with_surroundings(files: Iterable[WorkloadFile], registries: tuple[str, ...]) -> list[WorkloadFile]:
    """The files, each with the ServiceAccounts of all of them: another file may supply what a workload needs."""
    listed = list(files)
    accounts = MappingProxyType({key: names for file in listed for key, names in file.accounts.items()})
    return [replace(file, accounts=accounts, registries=registries) for file in listed]


class _Reader:
    """Reads manifests of one document, which begins at `start` of the file's text; `ends` are where the text's lines end."""

    def __init__(self, ends: array[int], start: int) -> None:
        self._ends = ends
        self._start = start

    def _line(self, node: Node) -> int:
        return bisect_left(self._ends, self._start + node.start) + 1

    def manifests(self, root: Node) -> Iterator[YamlMapping]:
        """The manifest of a document, or those of a list."""
        node, _ = value_of(root, ())
        if not isinstance(node, YamlMapping):
            return
        if not text_of(node, "kind").endswith("List"):
            yield node
            return
        for items, _ in entries(node, "items", ()):
            if isinstance(items, Sequence) and len(items.items) > MAX_ITEMS:
                raise BadYaml(f"line {self._line(items)}: a list has more than {MAX_ITEMS} items")
            for item in items.items if isinstance(items, Sequence) else ():
                found, _ = value_of(item, ())
                if isinstance(found, YamlMapping):
                    yield found

    def name(self, manifest: Node) -> tuple[str, str]:
        """Name and namespace; a manifest that states none is of the namespace `default`."""
        metadata = next((found for found, _ in entries(manifest, "metadata", ())), None)
        if metadata is None:
            return "", "default"
        return text_of(metadata, "name") or text_of(metadata, "generateName"), text_of(metadata, "namespace") or "default"

    def secrets(self, holder: Node) -> tuple[Place, ...] | None:
        """The names under imagePullSecrets of a pod's spec or a ServiceAccount; None without the key."""
        found: list[Place] | None = None
        for listed, _ in entries(holder, "imagePullSecrets", ()):
            found = []
            for item in listed.items[:MAX_CONTAINERS] if isinstance(listed, Sequence) else ():
                found += [
                    Place(node.value, self._line(node)) for node, _ in entries(item, "name", ()) if isinstance(node, Scalar)
                ]
        return None if found is None else tuple(found)

    def pods(self, manifest: Node, kind: str) -> Iterator[PodSpec]:
        """The pod of a workload."""
        at: list[tuple[Node, tuple[Alias, ...]]] = [(manifest, ())]
        for key in PATHS[kind]:
            at = [found for node, through in at for found in entries(node, key, through)]
        name, namespace = self.name(manifest)
        for spec, _ in at:
            account = text_of(spec, "serviceAccountName") or text_of(spec, "serviceAccount") or "default"
            yield PodSpec(
                kind=kind,
                name=name,
                namespace=namespace,
                account=account,
                secrets=self.secrets(spec),
                containers=tuple(self._containers(spec)),
            )

    def _containers(self, spec: Node) -> Iterator[Container]:
        for key in _LISTS:
            for listed, _ in entries(spec, key, ()):
                if isinstance(listed, Sequence) and len(listed.items) > MAX_CONTAINERS:
                    raise BadYaml(f"line {self._line(listed)}: a workload has more than {MAX_CONTAINERS} containers")
                for item in listed.items if isinstance(listed, Sequence) else ():
                    yield from self._container(item)

    def _container(self, item: Node) -> Iterator[Container]:
        node, _ = value_of(item, ())
        keys = [key for key, _ in node.pairs if isinstance(key, Scalar)] if isinstance(node, YamlMapping) else []
        where = next((key for key in keys if key.value == "imagePullSecrets"), None)
        misplaced = next((self._line(where or value) for value, _ in written(node, "imagePullSecrets", ())), None)
        secrets = None if misplaced is None else Place("", misplaced)
        for place, _ in written(node, "image", ()):
            image, _ = value_of(place, ())
            if isinstance(image, Scalar) and image.value.strip():
                shown = Place(image.value.strip(), self._line(place))
                yield Container(name=text_of(node, "name"), image=shown, secrets=secrets)
