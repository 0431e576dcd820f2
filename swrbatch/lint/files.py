"""Finds Dockerfiles on disk and reads them with their build context: the folder they lie in."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ..errors import UsageError, printable
from .build import Context
from .catalog import RULES
from .check import lint_dockerfile
from .dockerfile import MAX_BYTES
from .rule import Finding, Rule

_NAME: Final = re.compile(r"(?:Dockerfile|Containerfile)(?:[.-].+)?|.+\.(?:Dockerfile|Containerfile)", re.IGNORECASE)
_FROM: Final = re.compile(rb"^[ \t]*FROM[ \t]", re.IGNORECASE | re.MULTILINE)
_TAR: Final = (257, b"ustar")
_COMPRESSED: Final = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ")
_SCRIPT_BYTES: Final = 1 << 18


def lint_paths(paths: Iterable[str], rules: Sequence[Rule] = RULES) -> tuple[list[str], list[Finding]]:
    """The files that were linted and their findings, in the order given. UsageError for a path that holds no Dockerfile."""
    files = list(dict.fromkeys(file for path in paths for file in dockerfiles(path)))
    findings: list[Finding] = []
    for file in files:
        findings += lint_dockerfile(_read(file), file, context_of(file), rules)
    return files, findings


def dockerfiles(path: str) -> list[str]:
    """The Dockerfiles that a path names: itself, or those below a folder (by name and content)."""
    if os.path.isdir(path):
        found = [file for file in _walk(path) if _FROM.search(_read(file))]
        if not found:
            raise UsageError(f"{printable(path)} holds no Dockerfile (Dockerfile*, *.Dockerfile, Containerfile)")
        return found
    if not os.path.exists(path):
        raise UsageError(f"{printable(path)} does not exist")
    data = _read(path)
    if data.startswith(_COMPRESSED) or data[_TAR[0] : _TAR[0] + 5] == _TAR[1]:
        raise UsageError(f"{printable(path)} is an archive: lint reads Dockerfiles only so far")
    if b"\0" in data[:4096] or not (_FROM.search(data) or _NAME.fullmatch(os.path.basename(path))):
        raise UsageError(f"{printable(path)} is no Dockerfile: it has no FROM")
    return [path]


def _walk(folder: str) -> Iterator[str]:
    for at, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in (".git", "node_modules"))
        for name in sorted(names):
            path = os.path.join(at, name)
            if _NAME.fullmatch(name) and not name.endswith(".dockerignore") and os.path.isfile(path):
                yield path


def _read(path: str) -> bytes:
    """One byte more than a Dockerfile may have at most. UsageError if it cannot be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UsageError(f"{printable(path)} is no regular file")
        with open(path, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as e:
        raise UsageError(f"{printable(path)} cannot be read: {e.strerror}") from e


def context_of(path: str) -> Context:
    """The folder of a Dockerfile as its build context. `NAME.dockerignore` goes before `.dockerignore`, as BuildKit has it."""
    folder = os.path.dirname(path) or "."
    ignored = None
    for name in (f"{os.path.basename(path)}.dockerignore", ".dockerignore"):
        text = _small(os.path.join(folder, name))
        if text is not None:
            ignored = tuple(text.splitlines())
            break
    real = os.path.realpath(folder)

    def read(name: str) -> str | None:
        target = os.path.realpath(os.path.join(real, name))
        return _small(target) if target.startswith(real.rstrip("/") + "/") else None

    return Context(ignored=ignored, read=read)


def _small(path: str) -> str | None:
    """The text of a regular file of 256 KiB or fewer; None for anything else."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, "rb") as file:
            data = file.read(_SCRIPT_BYTES + 1)
    except (OSError, ValueError):
        return None
    return None if len(data) > _SCRIPT_BYTES else data.decode("utf-8", "replace")
