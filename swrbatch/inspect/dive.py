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
from .tree import MAX_NODES, WHITEOUT

_DOUBLE: Final = ".wh..wh.."


@dataclass(frozen=True, slots=True, kw_only=True)
class DiveNumbers:
    """What dive's JSON says, sizes in bytes; `references` are (path, occurrences, bytes), largest first."""

    layer_bytes: tuple[int, ...]
    inefficient_bytes: int
    efficiency: float
    references: tuple[tuple[str, int, int], ...]


class _Node:
    __slots__ = ("children", "folder", "size")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.size = 0
        self.folder = False


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
        for parts, node in _leaves(self._tree):
            path, found = self._occurrences(parts)
            size = node.size
            if parts[-1].startswith(WHITEOUT):
                removed = _find(merged, path)
                if removed is None:
                    break  # dive gives up here, with the rest of the layer
                size = sum(each.size for each in _below(removed)) if removed.folder else 0
            found.count += 1
            found.total += size
            found.smallest = size if found.smallest < 0 else min(found.smallest, size)
        self._stack(merged)

    def _occurrences(self, parts: tuple[str, ...]) -> tuple[tuple[str, ...], _Occurrences]:
        path = (*parts[:-1], parts[-1].removeprefix(WHITEOUT))
        return path, self._paths.setdefault("/" + "/".join(path), _Occurrences())

    def _stack(self, merged: _Node) -> None:
        """Put the layer on the tree of those before, children first."""
        for parts, node in reversed(list(_visit(self._tree))):
            if not parts[-1].startswith(WHITEOUT):
                self._add(merged, parts, node.size, node.folder)
                continue
            parent = _find(merged, parts[:-1])
            if parent is not None:
                parent.children.pop(parts[-1].removeprefix(WHITEOUT), None)

    def _add(self, root: _Node, parts: Sequence[str], size: int, folder: bool) -> None:
        """The node of a path gets this size and kind; folders on the way are made, of no kind, as dive makes them."""
        node = root
        for part in parts:
            child = node.children.get(part)
            if child is None:
                if part.startswith(_DOUBLE):
                    return
                self._nodes += 1
                if self._nodes > 2 * MAX_NODES:
                    raise fault("too-many-members", limit=2 * MAX_NODES)
                child = node.children[part] = _Node()
            node = child
        node.size, node.folder = size, folder

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


def _visit(root: _Node) -> Iterator[tuple[tuple[str, ...], _Node]]:
    """All nodes but the root, parents first, names descending: read backwards, children come first and names ascend."""
    left: list[tuple[tuple[str, ...], _Node]] = [((), root)]
    while left:
        parts, node = left.pop()
        if parts:
            yield parts, node
        left += [((*parts, name), node.children[name]) for name in sorted(node.children)]


def _leaves(root: _Node) -> Iterator[tuple[tuple[str, ...], _Node]]:
    """The nodes without children, as dive goes: a folder's names in order."""
    return reversed([(parts, node) for parts, node in _visit(root) if not node.children])


def _below(root: _Node) -> Iterator[_Node]:
    """A node and all below it."""
    left = [root]
    while left:
        node = left.pop()
        yield node
        left += node.children.values()


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
            target.children[name] = _Node()
            left.append((child, target.children[name]))
    return made
