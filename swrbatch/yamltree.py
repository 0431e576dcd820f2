"""YAML as a tree that knows where each scalar stands, so that one can be replaced and every other byte stays.

The parser is ruamel.yaml's (YAML 1.2). Nothing is constructed: no tag has an effect, an alias is a node that names its anchor and
is never expanded, so that a small file stays a small tree. Depth and number of nodes are bounded while the events stream.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from .digest import Cancel

MAX_DEPTH: Final = 100
MAX_NODES: Final = 400_000
MAX_MERGES: Final = 100
"""Mappings that one mapping merges, directly or not: without a bound a few lines could stand for any number."""
# Tag and anchor before a scalar, in any order (YAML 1.2.2, 6.9).
_PROPERTIES: Final = re.compile(r"(?:[&!][^\s]*\s+)*")
# A line that begins a document; within a scalar it is forbidden (YAML 1.2.2, 9.1.2).
_MARKER: Final = re.compile(r"^---(?=\s|\Z)", re.MULTILINE)
_DIRECTIVE: Final = re.compile(r"^%", re.MULTILINE)


class BadYaml(ValueError):
    """Text that is no YAML, or more than is read; the message says where and what."""


@dataclass(eq=False, slots=True)
class Node:
    """A node at the characters `start` to `end` of the text; `anchor` is its name, None without one."""

    start: int
    end: int
    anchor: str | None = None


@dataclass(eq=False, slots=True)
class Scalar(Node):
    """`style` is the first character of its presentation: ' or " or | or >, None for a plain one."""

    value: str = ""
    style: str | None = None


@dataclass(eq=False, slots=True)
class Alias(Node):
    """Stands for `target`, the node whose anchor it names."""

    target: Node = field(default_factory=lambda: Node(0, 0))


@dataclass(eq=False, slots=True)
class Sequence(Node):
    items: list[Node] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Mapping(Node):
    pairs: list[tuple[Node, Node]] = field(default_factory=list)

    def get(self, key: str) -> list[Node]:
        """The values whose key is this plain text, in order; a sound mapping has one at most."""
        return [value for name, value in self.pairs if isinstance(name, Scalar) and name.value == key]


def documents(text: str) -> Iterator[tuple[int, str]]:
    """The parts of a file that hold a document each, as (start, text); one part when it has directives, which cross documents."""
    starts = [] if _DIRECTIVE.search(text) else [match.start() for match in _MARKER.finditer(text)]
    bounds = [0, *(start for start in starts if start > 0), len(text)]
    for start, end in pairwise(bounds):
        yield start, text[start:end]


def read_tree(text: str, lines_before: int = 0, cancel: Cancel | None = None) -> list[Node]:
    """The root of each document in `text`. Raises `BadYaml`, with line and column from 1; so many lines stand before the text.

    With `cancel`, which is looked at between any two nodes, `Cancelled`.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        return _Builder(YAML(typ="safe", pure=True).parse(text), lines_before, cancel or Cancel()).roots
    except MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        where = f"line {lines_before + mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise BadYaml(f"{where}{e.problem or e.context}") from e
    except (YAMLError, ValueError, RecursionError) as e:
        raise BadYaml(str(e).splitlines()[0] if str(e) else type(e).__name__) from e


class _Builder:
    """Puts a parser's events together."""

    def __init__(self, events: Iterator[object], lines_before: int, cancel: Cancel) -> None:
        self._lines_before = lines_before
        self.roots: list[Node] = []
        self._open: list[Sequence | Mapping] = []
        self._keys: list[Node | None] = []
        self._anchors: dict[str, Node] = {}
        for count, event in enumerate(events):
            if count > MAX_NODES:
                raise BadYaml(f"it has more than {MAX_NODES} nodes")
            cancel.check()
            self._take(event)

    def _take(self, event: object) -> None:
        from ruamel.yaml import events as e

        if isinstance(event, e.DocumentStartEvent):
            self._anchors = {}
        elif isinstance(event, e.ScalarEvent):
            node = Scalar(event.start_mark.index, event.end_mark.index, event.anchor, event.value, event.style)
            self._add(node)
        elif isinstance(event, e.AliasEvent):
            target = self._anchors.get(event.anchor)
            if target is None:
                raise BadYaml(
                    f"line {self._lines_before + event.start_mark.line + 1}: the alias *{event.anchor} has no anchor before it"
                )
            self._add(Alias(event.start_mark.index, event.end_mark.index, None, target))
        elif isinstance(event, e.SequenceStartEvent):
            self._begin(Sequence(event.start_mark.index, event.end_mark.index, event.anchor))
        elif isinstance(event, e.MappingStartEvent):
            self._begin(Mapping(event.start_mark.index, event.end_mark.index, event.anchor))
        elif isinstance(event, e.SequenceEndEvent | e.MappingEndEvent):
            self._open.pop().end = event.end_mark.index
            self._keys.pop()

    def _begin(self, node: Sequence | Mapping) -> None:
        self._add(node)
        self._open.append(node)
        self._keys.append(None)
        if len(self._open) > MAX_DEPTH:
            raise BadYaml(f"it is nested deeper than {MAX_DEPTH}")

    def _add(self, node: Node) -> None:
        if node.anchor is not None:
            self._anchors[node.anchor] = node
        if not self._open:
            self.roots.append(node)
        elif isinstance(parent := self._open[-1], Sequence):
            parent.items.append(node)
        elif (key := self._keys[-1]) is None:
            self._keys[-1] = node
        else:
            parent.pairs.append((key, node))
            self._keys[-1] = None


# --- what a tree says ----------------------------------------------------------------------------------------------------


def value_of(node: Node, through: tuple[Alias, ...]) -> tuple[Node, tuple[Alias, ...]]:
    """What a node stands for, and the aliases on the way to it."""
    while isinstance(node, Alias):
        through = (*through, node)
        node = node.target
    return node, through


def written(mapping: Node, key: str, through: tuple[Alias, ...]) -> Iterator[tuple[Node, tuple[Alias, ...]]]:
    """The value of a key as it is written: the mapping's own, else the first that a merge (`<<`) brings."""
    seen: set[Node] = set()
    ahead = [(mapping, through)] if isinstance(value_of(mapping, ())[0], Mapping) else []
    while ahead:
        node, way = value_of(*ahead.pop())
        if isinstance(node, Sequence):  # << may merge several
            ahead += [(item, way) for item in reversed(node.items[: MAX_MERGES + 1])]
        elif isinstance(node, Mapping) and node not in seen:
            seen.add(node)
            own = node.get(key)
            if len(own) > 1:
                raise BadYaml(f"a mapping has the key {key} twice")
            if own:
                yield own[0], way
                return
            ahead += [(merged, way) for merged in node.get("<<")]
        if len(seen) + len(ahead) > MAX_MERGES:
            raise BadYaml(f"a mapping merges more than {MAX_MERGES} others")


def entries(mapping: Node, key: str, through: tuple[Alias, ...]) -> Iterator[tuple[Node, tuple[Alias, ...]]]:
    """The values of a key, with the aliases on the way to each: one at most, of a sound mapping."""
    for place, way in written(mapping, key, through):
        yield value_of(place, way)


def text_of(mapping: Node, key: str) -> str:
    """The text of a key, "" where there is none."""
    return next((node.value for node, _ in entries(mapping, key, ()) if isinstance(node, Scalar)), "")


def shape(roots: list[Node], replaced: dict[Node, str] | None = None) -> list[tuple[str, str | None, str | None]]:
    """What a tree says, node by node, whatever its layout: with these nodes as scalars of another text."""
    found: list[tuple[str, str | None, str | None]] = []
    stack = list(reversed(roots))
    while stack:
        node = stack.pop()
        if replaced is not None and node in replaced:
            found.append(("Scalar", node.anchor, replaced[node]))
        elif isinstance(node, Scalar):
            found.append(("Scalar", node.anchor, node.value))
        elif isinstance(node, Alias):
            found.append(("Alias", node.target.anchor, None))
        else:
            children = node.items if isinstance(node, Sequence) else _flat(node)
            found.append((type(node).__name__, node.anchor, str(len(children))))
            stack.extend(reversed(children))
    return found


def _flat(node: Node) -> list[Node]:
    return [each for pair in node.pairs for each in pair] if isinstance(node, Mapping) else []


def replacement(text: str, node: Node, value: str) -> tuple[int, int, str]:
    """Which characters of `text` become what, so that `node` has the text `value`: (start, end, new).

    Quotes, tag and anchor stay; an alias becomes a plain scalar. `value` needs no quotes and no escapes (an image's name).
    Raises `BadYaml` for a scalar whose text does not stand there in one piece (a folded or an escaped one).
    """
    if isinstance(node, Alias):
        return node.start, node.end, value
    assert isinstance(node, Scalar)
    raw = text[node.start : node.end]
    begin = node.start + (properties.end() if (properties := _PROPERTIES.match(raw)) else 0)
    if node.style in ("'", '"'):
        return begin + 1, node.end - 1, value
    old = node.value.strip()
    if not old or text.count(old, begin, node.end) != 1:
        raise BadYaml("its text stands over several lines: write it in one")
    at = text.index(old, begin, node.end)
    return at, at + len(old), value
