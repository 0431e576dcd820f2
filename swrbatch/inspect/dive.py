"""Efficiency and waste as dive 0.13 counts them, its peculiarities included, to be compared with its own numbers. Pure.

dive builds a tree for each layer and looks at the leaves. Of each path it takes all occurrences: efficiency is the sum of the
smallest over the sum of all; a path that occurs twice or more wastes all its occurrences. A whiteout counts as an occurrence of
the path it removes, with the bytes of the folder below (as dive merges the layers before), else with none; opaque whiteouts are
left out. Where a whiteout removes nothing, dive gives up on the rest of the layer. Found by trying dive 0.13.1.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import fault
from ..tar import Member
from .tree import WHITEOUT

_MAX_NODES: Final = 800_000  # of both trees, the layers' and the merged one
_DOUBLE: Final = ".wh..wh.."


@dataclass(frozen=True, slots=True, kw_only=True)
class DiveNumbers:
    """What dive's JSON says, sizes in bytes; `references` are (path, occurrences, bytes), largest first."""

    layer_bytes: tuple[int, ...]
    inefficient_bytes: int
    efficiency: float
    references: tuple[tuple[str, int, int], ...]


class _Node:
    __slots__ = ("below", "children", "folder", "size")

    def __init__(self) -> None:
        self.children = _NO_CHILDREN
        self.size = 0
        self.below = 0  # bytes of the node and all under it, once they are asked for
        self.folder = False

    def child(self, name: str) -> _Node:
        """A new child of this name."""
        if self.children is _NO_CHILDREN:  # most nodes stay without
            self.children = {}
        made = self.children[name] = _Node()
        return made


_NO_CHILDREN: dict[str, _Node] = {}


class _Occurrences:
    __slots__ = ("count", "smallest", "total")

    def __init__(self) -> None:
        self.count = self.total = 0
        self.smallest = -1  # stays when dive finds nothing to measure


class DiveCount:
    """Counts as dive does. Layers are given from the lowest: `begin`, `add` each member, `end`."""

    def __init__(self) -> None:
        self._merged: _Node | None = None  # None before the first layer
        self._tree = _Node()
        self._nodes = 0
        self._paths: dict[str, _Occurrences] = {}
        self._layer_bytes: list[int] = []

    def begin(self) -> None:
        """Begin the next layer."""
        self._tree = _Node()
        self._layer_bytes.append(0)

    def add(self, member: Member) -> None:
        """Take a member of the layer."""
        name = posixpath.normpath(member.name)
        if name == ".":
            return
        self._layer_bytes[-1] += member.size
        self._add(self._tree, [part for part in name.split("/") if part], member.size, member.kind == "directory")

    def end(self) -> None:
        """End the layer: count its leaves, then merge it."""
        merged = self._merged or _copy(self._tree)
        self._merged = merged
        summed = False
        for parts, node in _leaves(self._tree):
            path, found = self._occurrences(parts)
            size = node.size
            if parts[-1].startswith(WHITEOUT):
                removed = _find(merged, path)
                if removed is None:
                    break  # dive gives up here, with the rest of the layer
                if removed.folder and not summed:
                    _sum(merged)
                    summed = True
                size = removed.below if removed.folder else 0
            found.count += 1
            found.total += size
            found.smallest = size if found.smallest < 0 else min(found.smallest, size)
        self._stack(merged)

    def _occurrences(self, parts: Sequence[str]) -> tuple[Sequence[str], _Occurrences]:
        path = (*parts[:-1], parts[-1].removeprefix(WHITEOUT))
        return path, self._paths.setdefault("/" + "/".join(path), _Occurrences())

    def _stack(self, merged: _Node) -> None:
        """Put the layer on the tree of those before, children first."""
        names: list[str] = []
        there: list[_Node | None] = [merged]  # in the merged tree: its root, and what each of the names leads to
        left = [(self._tree, iter(sorted(self._tree.children)))]
        while left:
            node, following = left[-1]
            name = next(following, None)
            above = there[-1]
            if name is not None:
                names.append(name)
                there.append(above.children.get(name) if above is not None else None)
                left.append((node.children[name], iter(sorted(node.children[name].children))))
                continue
            left.pop()
            if not left:
                return
            if not names[-1].startswith(WHITEOUT):
                self._set(names, there, node)
            elif (parent := there[-2]) is not None:
                parent.children.pop(names[-1].removeprefix(WHITEOUT), None)
            names.pop()
            there.pop()

    def _set(self, names: Sequence[str], there: list[_Node | None], node: _Node) -> None:
        """Give the last of `there` size and kind of a layer's node; what is missing on the way is made."""
        at = len(there) - 1
        while there[at] is None:
            at -= 1
        for position in range(at, len(names)):
            parent = there[position]
            if parent is None or names[position].startswith(_DOUBLE):
                return
            self._count()
            there[position + 1] = parent.child(names[position])
        found = there[-1]
        if found is not None:
            found.size, found.folder = node.size, node.folder

    def _add(self, root: _Node, parts: Sequence[str], size: int, folder: bool) -> None:
        """The node of a path gets this size and kind; folders on the way are made, of no kind, as dive makes them."""
        node = root
        for part in parts:
            child = node.children.get(part)
            if child is None:
                if part.startswith(_DOUBLE):
                    return
                self._count()
                child = node.child(part)
            node = child
        node.size, node.folder = size, folder

    def _count(self) -> None:
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise fault("too-many-members", limit=_MAX_NODES)

    def numbers(self) -> DiveNumbers:
        """The numbers so far."""
        total = sum(found.total for found in self._paths.values())
        smallest = sum(found.smallest for found in self._paths.values())
        twice = [(path, found.count, found.total) for path, found in self._paths.items() if found.count > 1]
        return DiveNumbers(
            layer_bytes=tuple(self._layer_bytes),
            inefficient_bytes=sum(size for _, _, size in twice),
            efficiency=smallest / total if total else 1.0,
            references=tuple(sorted(twice, key=lambda each: (-each[2], each[0]))),
        )


def _visit(root: _Node) -> Iterator[tuple[list[str], _Node]]:
    """All nodes but the root, children first, names ascending. The list of names is one that changes: it is not to be kept."""
    parts: list[str] = []
    left = [(root, iter(sorted(root.children)))]
    while left:
        node, names = left[-1]
        name = next(names, None)
        if name is not None:
            parts.append(name)
            child = node.children[name]
            left.append((child, iter(sorted(child.children))))
            continue
        left.pop()
        if left:
            yield parts, node
            parts.pop()


def _leaves(root: _Node) -> Iterator[tuple[list[str], _Node]]:
    """The nodes without children, as dive goes: a folder's names in order."""
    return ((parts, node) for parts, node in _visit(root) if not node.children)


def _sum(root: _Node) -> None:
    """Sum up what each node has below it; the root is left out."""
    for _, node in _visit(root):
        node.below = node.size + sum(child.below for child in node.children.values())


def _find(root: _Node, parts: Sequence[str]) -> _Node | None:
    node: _Node | None = root
    for part in parts:
        if node is None:
            return None
        node = node.children.get(part)
    return node


def _copy(root: _Node) -> _Node:
    made = _Node()
    left = [(root, made)]
    while left:
        source, target = left.pop()
        target.size, target.folder = source.size, source.folder
        for name, child in source.children.items():
            left.append((child, target.child(name)))
    return made
