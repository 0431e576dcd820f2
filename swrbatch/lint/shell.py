"""Shell in RUN, CMD and scripts: the simple commands of a text, in order. tree-sitter-bash parses, loaded when first needed.

A text that does not parse is unknown (None), never a finding: rules see no commands then.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from .words import split_words, unquote

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

_WRAPPERS: Final = frozenset({"sudo", "env", "exec", "command", "nice", "nohup", "time", "eatmydata", "builtin", "stdbuf"})
_SHELLS: Final = frozenset({"sh", "bash", "ash", "dash", "zsh"})
_COMMANDS: Final = frozenset({"command", "declaration_command", "unset_command", "test_command"})
_WRITES: Final = frozenset({">", ">>", ">|", "&>", "&>>"})
_NESTED: Final = 3
_BEYOND: Final = re.compile(r"[^\x00-\x7f]")
_MAX_LENGTH: Final = 1 << 16  # a longer text is unknown: the parser's time grows faster than the text


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A simple command: `name` without its folder, `words` as the shell would see them but with variables as written.

    `offset` is where it starts in the text (characters); `writes` are targets of redirections; `wrapped` are wrappers before it.
    """

    name: str
    words: tuple[str, ...]
    offset: int
    background: bool
    writes: tuple[str, ...]
    wrapped: tuple[str, ...]

    @property
    def operands(self) -> tuple[str, ...]:
        """The words that are no options."""
        return tuple(word for word in self.words if not word.startswith("-"))

    def has(self, *options: str) -> bool:
        return any(option in self.words for option in options)


@functools.cache
def _parser() -> Parser:
    import tree_sitter_bash
    from tree_sitter import Language, Parser

    return Parser(Language(tree_sitter_bash.language()))


def _parsed(text: str) -> Node:
    """The root of a text's tree, whose offsets are characters of the text.

    The parser sees a letter for each character beyond ASCII: its scanner looks them up in tables that end before (`${` and an
    emoji crash the process, tree-sitter-bash#337).
    """
    return _parser().parse(_BEYOND.sub("x", text).encode("ascii")).root_node


def commands_of(text: str, depth: int = 0) -> tuple[Command, ...] | None:
    """The simple commands of a shell text, those in `sh -c '…'` too; None if it does not parse."""
    if len(text) > _MAX_LENGTH:
        return None
    root = _parsed(text)
    if root.has_error:
        return None
    found: list[Command] = []
    for command in _walk(root, text):
        found.append(command)
        inner = script_of(command) if depth < _NESTED else None
        if inner is not None:
            nested = commands_of(inner, depth + 1) or ()
            found += [replace(own, offset=command.offset, background=own.background or command.background) for own in nested]
    return tuple(found)


def script_of(command: Command) -> str | None:
    """The script of `sh -c SCRIPT`; None for any other command."""
    if command.name not in _SHELLS:
        return None
    for at, word in enumerate(command.words[:-1]):
        if not word.startswith("-"):
            return None
        if word.endswith("c") and not word.startswith("--"):
            return command.words[at + 1]
    return None


def _walk(root: Node, text: str) -> Iterator[Command]:
    stack: list[tuple[Node, bool, tuple[str, ...]]] = [(root, False, ())]
    while stack:
        node, background, writes = stack.pop()
        if node.type in _COMMANDS:
            yield _command(node, text, background, writes)
        if node.type == "redirected_statement":
            writes = (*writes, *_targets(node, text))
        children = node.children
        last = len(children) - 1
        for at in range(last, -1, -1):
            child = children[at]
            if child.is_named and child.type not in ("heredoc_body", "word", "string_content", "comment"):
                behind = at + 1 < len(children) and children[at + 1].type == "&"
                # tree-sitter puts the redirection of the last command of `a && b >c` around both.
                passed = writes if at == last or node.type not in ("list", "pipeline") else ()
                stack.append((child, background or behind, passed))


def _targets(node: Node, text: str) -> Iterator[str]:
    for child in node.children:
        if child.type == "file_redirect" and any(part.type in _WRITES for part in child.children):
            target = child.child_by_field_name("destination")
            if target is not None:
                yield _text(target, text)


def _text(node: Node, text: str) -> str:
    return unquote(text[node.start_byte : node.end_byte].replace("\\\n", ""))


def _command(node: Node, text: str, background: bool, writes: tuple[str, ...]) -> Command:
    skipped = ("variable_assignment", "file_redirect", "herestring_redirect", "heredoc_redirect")
    parts = [child for child in node.children if child.type not in skipped and (child.is_named or node.type != "command")]
    words = [_text(part, text) for part in parts]
    wrapped: list[str] = []
    while len(words) > 1 and words[0].rpartition("/")[2] in _WRAPPERS:
        wrapped.append(words.pop(0).rpartition("/")[2])
        while len(words) > 1 and (words[0].startswith("-") or "=" in words[0]):
            words.pop(0)
    name = words[0].rpartition("/")[2] if words else ""
    direct = tuple(_targets(node, text))
    return Command(
        name=name,
        words=tuple(words[1:]),
        offset=node.start_byte,
        background=background,
        writes=writes + direct,
        wrapped=tuple(wrapped),
    )


def plain_command(words: tuple[str, ...]) -> Command:
    """A command in JSON form, which no shell reads."""
    name = words[0].rpartition("/")[2] if words else ""
    return Command(name=name, words=words[1:], offset=0, background=False, writes=(), wrapped=())


def words_of(text: str) -> tuple[str, ...]:
    """The words of one plain shell line, quotes removed."""
    return tuple(unquote(word) for word in split_words(text, "\\"))


def last_statement(text: str) -> Command | None:
    """The last statement of a script if it is a simple command, None if it is a branch, a loop or a function."""
    statements = [child for child in _parsed(text).children if child.is_named and child.type != "comment"]
    if not statements or statements[-1].type not in ("command", "redirected_statement"):
        return None
    if statements[-1].type == "command":
        return _command(statements[-1], text, False, ())
    return next(_walk(statements[-1], text), None)
