"""A Dockerfile as frozen values: what the parser makes, and all that rules read."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What the grammar does not allow, at a line and column (both from 1)."""

    line: int
    column: int
    message: str
    message_zh: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment:
    """A comment line, its text without `#` and blanks."""

    line: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Heredoc:
    """A here-document; `content` is as written, with line ends and tabs; `expand` is False if the name was quoted."""

    name: str
    descriptor: int
    strip_tabs: bool
    expand: bool
    line: int
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """`--name=value`; the value is None for a bare `--name`."""

    name: str
    value: str | None

    def __str__(self) -> str:
        return f"--{self.name}" if self.value is None else f"--{self.name}={self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Key and value of ENV, LABEL or ARG as written, quotes kept; the value is None for `ARG NAME`."""

    key: str
    value: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One instruction.

    `keyword` is in upper case. `text` is what follows keyword and flags, continuation lines joined, comments left out.
    `values` are its words: one string for a command in shell form, the elements of a JSON form (`is_json`), the keys and
    values of pairs in turn.
    `trigger` is the instruction of an ONBUILD. `comments` stand above it or inside. `starts` maps offsets of `text` to lines.
    """

    keyword: str
    line: int
    end_line: int
    raw: str
    text: str
    flags: tuple[Flag, ...]
    values: tuple[str, ...]
    is_json: bool
    pairs: tuple[Pair, ...]
    legacy_pair: bool
    heredocs: tuple[Heredoc, ...]
    trigger: Instruction | None
    comments: tuple[Comment, ...]
    starts: tuple[tuple[int, int], ...]

    def flag(self, name: str) -> str | None:
        """The value of a flag, "" for a bare one, None if it is not given."""
        return next((flag.value or "" for flag in self.flags if flag.name == name), None)

    def line_at(self, offset: int) -> int:
        """The line of the file where the character `offset` of `text` stands."""
        return self.starts[max(0, bisect_right(self.starts, (offset, 1 << 60)) - 1)][1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dockerfile:
    """A parsed file: its escape character, instructions and faults in the order of lines, the comments at its end."""

    escape: str
    syntax: str | None
    instructions: tuple[Instruction, ...]
    faults: tuple[Fault, ...]
    comments: tuple[Comment, ...]
