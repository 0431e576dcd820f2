"""The entrypoint script: where the build takes it from, and whether its last command replaces the shell (practice 9)."""

from __future__ import annotations

import posixpath
from typing import Final

from .build import Build
from .shell import commands_of, last_statement

_REPLACES: Final = frozenset({"gosu", "su-exec", "tini", "dumb-init", "setpriv", "chroot"})
_ENDS: Final = frozenset({"exit", ".", "source", "wait", "return", "echo", "true", "false", ":", "set"})


def source_of(path: str, build: Build) -> str | None:
    """The text of the file that a COPY of the last stage's chain puts at `path`; None if it cannot be told."""
    folder = "/"
    candidates: dict[str, str | None] = {}  # path in the context, or a name for a heredoc -> its text; the last one counts

    def candidate(name: str, text: str | None = None) -> None:
        candidates.pop(name, None)
        candidates[name] = text

    for step in build.final.all_steps() if build.final else ():
        if step.keyword == "WORKDIR" and step.values and step.values[0] is not None:
            folder = posixpath.join(folder, step.values[0])
        if step.keyword not in ("COPY", "ADD") or not step.values or step.instruction.flag("from") is not None:
            continue
        target = step.values[-1]
        if target is None:
            continue
        into = posixpath.normpath(posixpath.join(folder, target))
        if step.instruction.heredocs and into == path:
            candidate("<<", step.instruction.heredocs[0].content)
        for source in step.values[:-1]:
            if source is None or build.context is None or source.startswith("<<"):
                continue
            name = posixpath.normpath(source).lstrip("/")
            one = posixpath.basename(name) == posixpath.basename(path)
            if (into == path and posixpath.basename(name) not in ("", ".")) or (one and posixpath.dirname(path) == into):
                candidate(name)
            elif path.startswith(into.rstrip("/") + "/"):  # a folder that is copied whole
                below = posixpath.relpath(path, into)
                candidate(posixpath.normpath(posixpath.join(name, below)))
    read = build.context.read if build.context is not None else lambda name: None
    texts = (text if text is not None else read(name) for name, text in reversed(candidates.items()))
    return next((text for text in texts if text), None)


def ends_without_exec(text: str) -> str:
    """The command that ends a shell script without exec; "" if it does with, or if that cannot be told (branches, traps)."""
    first = text.partition("\n")[0]
    if first.startswith("#!") and not first.rstrip().endswith("sh") and "sh " not in first:
        return ""
    commands = commands_of(text)
    if not commands or any("exec" in one.wrapped or one.name in ("exec", "trap", *_REPLACES) for one in commands):
        return ""
    last = last_statement(text)
    return "" if last is None or last.name in _ENDS or last.background else last.name
