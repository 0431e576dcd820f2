"""Finds what can be linted on disk: Dockerfiles, archives of images, Kubernetes manifests, each told by its content.

A Dockerfile is read with its build context: the folder that it lies in.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal, NoReturn

from ..compression import Compression, sniff
from ..digest import Cancel
from ..errors import UsageError, printable
from ..manifests import MAX_FILE
from ..manifests import SUFFIXES as MANIFESTS
from ..sources import SUFFIXES as ARCHIVES
from .build import Context
from .dockerfile import MAX_BYTES, parse_dockerfile

Kind = Literal["dockerfile", "archive", "workload"]
_NAME: Final = re.compile(r"(?:Dockerfile|Containerfile)(?:[.-].+)?|.+\.(?:Dockerfile|Containerfile)", re.IGNORECASE)
_WHOLE_NAME: Final = re.compile(r"(?:.+\.)?(?:Dockerfile|Containerfile)", re.IGNORECASE)
_FROM: Final = re.compile(rb"^[ \t]*FROM[ \t]", re.IGNORECASE | re.MULTILINE)
_POD: Final = rb"(?:Pod|Deployment|StatefulSet|DaemonSet|ReplicaSet|Job|CronJob|ServiceAccount|\w*List)"
_WORKLOAD: Final = re.compile(rb"^[ \t{,-]*[\"']?kind[\"']?[ \t]*:[ \t]*[\"']?" + _POD + rb"\b", re.MULTILINE)
# Within a manifest the kind may stand anywhere: in flow style, in JSON of one line.
_KIND: Final = re.compile(rb"(?<![\w-])kind[\"']?\s*:\s*(?:!!?\w*\s+)?[\"']?" + _POD + rb"\b|\?[ \t]+[\"']?kind\b")
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_SCRIPT_BYTES: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class LintFile:
    """A file to be linted; `searched` tells that it was found below a folder and not named."""

    kind: Kind
    path: str
    searched: bool


def lint_files(paths: Iterable[str], cancel: Cancel) -> list[LintFile]:
    """What these paths name, each file once, in the order given.

    Raises `UsageError` for a path that holds nothing to lint, `Cancelled`.

    A file that is named itself counts as named, also where a folder holds it.
    """
    found: dict[str, LintFile] = {}
    for path in paths:
        for file in _files(path, cancel):
            real = os.path.realpath(file.path) if file.path != "-" else file.path
            before = found.get(real)
            found[real] = file if before is None else replace(before, searched=before.searched and file.searched)
    return list(found.values())


def _files(path: str, cancel: Cancel) -> list[LintFile]:
    if path == "-":
        return [LintFile("archive", path, False)]
    if os.path.isdir(path):
        kinds = ((file, _kind_of(_start_of(file), file)) for file in _walk(path, cancel))
        searched = [LintFile(kind, file, True) for file, kind in kinds if kind is not None]
        if not searched:
            raise UsageError(
                f"{printable(path)} holds no Dockerfile, no archive ({', '.join(ARCHIVES)}) and no workload (YAML, JSON)"
            )
        return searched
    if not os.path.exists(path):
        raise UsageError(f"{printable(path)} does not exist")
    data = _start_of(path)
    kind = _kind_of(data, path) or (
        "dockerfile" if _NAME.fullmatch(os.path.basename(path)) and b"\0" not in data[:4096] else None
    )
    if kind is None:
        binary = b"\0" in data[:4096]
        raise UsageError(f"{printable(path)} is no archive, no Dockerfile{'' if binary else ' (it has no FROM)'} and no workload")
    return [LintFile(kind, path, False)]


def _kind_of(data: bytes, path: str) -> Kind | None:
    """What a file is by its first bytes; its name only decides between two kinds of text."""
    name = os.path.basename(path)
    binary = b"\0" in data[:4096]
    # An old tar has no mark of its own: then its name must do. A text that has the mark by chance, or on purpose, has no zeros.
    tar = binary and (data[257:262] == b"ustar" or name.lower().endswith(ARCHIVES))
    if tar or sniff(data[:6]) is not Compression.NONE:
        return "archive"
    if name.lower().endswith(MANIFESTS):
        text = data.decode("utf-16", "ignore").encode() if data.startswith(_UTF16) else data
        return "workload" if _KIND.search(text) else None
    if _WHOLE_NAME.fullmatch(name):
        return "dockerfile"  # whatever it holds: it must not be passed over because it cannot be read
    if binary:
        return None
    if _FROM.search(data) or (_NAME.fullmatch(name) and any(f.keyword == "FROM" for f in parse_dockerfile(data).instructions)):
        return "dockerfile"
    return "workload" if _WORKLOAD.search(data) else None


def _walk(folder: str, cancel: Cancel) -> Iterator[str]:
    for at, folders, names in os.walk(folder, onerror=_unreadable):
        folders[:] = sorted(name for name in folders if name not in (".git", "node_modules"))
        for name in sorted(names):
            cancel.check()
            path = os.path.join(at, name)
            named = _NAME.fullmatch(name) and not name.endswith(".dockerignore")
            if (named or name.lower().endswith((*ARCHIVES, *MANIFESTS))) and os.path.isfile(path):
                yield path


def _unreadable(e: OSError) -> NoReturn:
    raise UsageError(f"{printable(e.filename)} cannot be read: {e.strerror}") from e


def _start_of(path: str) -> bytes:
    """As much of a file as tells what it is."""
    return read_start(path, MAX_FILE + 1 if path.lower().endswith(MANIFESTS) else MAX_BYTES + 1)


def read_start(path: str, size: int = MAX_BYTES + 1) -> bytes:
    """The first bytes of a file (one more than a Dockerfile may have at most). UsageError if it cannot be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UsageError(f"{printable(path)} is no regular file")
        with open(path, "rb") as file:
            return file.read(size)
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
