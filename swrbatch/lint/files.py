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
from ..sources import standard_input
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
_TAR_HEADER: Final = 512
_MOST: Final = max(MAX_BYTES, MAX_FILE)


@dataclass(frozen=True, slots=True)
class LintFile:
    """A file to be linted; `searched` tells that it was found below a folder and not named.

    Of standard input (`-`) `start` is what was read of it: all of a text, the beginning of an archive.
    """

    kind: Kind
    path: str
    searched: bool
    start: bytes = b""

    def read(self, size: int) -> bytes:
        """The first bytes of a text."""
        return self.start[:size] if self.path == "-" else read_start(self.path, size)


def lint_files(paths: Iterable[str], cancel: Cancel) -> list[LintFile]:
    """What these paths name, each file once, in the order given.

    Raises `UsageError` for a path that holds nothing to lint, `Cancelled`.

    A file that is named itself counts as named, also where a folder holds it.
    """
    found: dict[str, LintFile] = {}
    for path in dict.fromkeys(paths):
        for file in [_standard_input(cancel)] if path == "-" else _files(path, cancel):
            real = os.path.realpath(file.path) if file.path != "-" else file.path
            before = found.get(real)
            found[real] = file if before is None else replace(before, searched=before.searched and file.searched)
    return list(found.values())


def _standard_input(cancel: Cancel) -> LintFile:
    """What comes in, told by its beginning: a text is read to its end, of an archive no more than that."""
    start = bytearray()
    told = False
    for piece in standard_input(cancel):
        start += piece
        if not told and len(start) >= _TAR_HEADER:
            told = True
            if _is_archive(bytes(start[:_TAR_HEADER]), "-"):
                break
        if len(start) > _MOST:
            break
    data = bytes(start)
    kind = _kind_of(data, "-")
    if kind is None:
        raise UsageError("standard input is no archive, no Dockerfile (it has no FROM) and no workload")
    return LintFile(kind, "-", False, data)


def _files(path: str, cancel: Cancel) -> list[LintFile]:
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


def _is_archive(data: bytes, name: str) -> bool:
    # An old tar has no mark of its own: then its name must do. A text that has the mark by chance, or on purpose, has no zeros.
    tar = b"\0" in data[:4096] and (data[257:262] == b"ustar" or name.lower().endswith(ARCHIVES))
    return tar or sniff(data[:6]) is not Compression.NONE


def _kind_of(data: bytes, path: str) -> Kind | None:
    """What a file is by its first bytes; its name only decides between two kinds of text."""
    name = os.path.basename(path)
    binary = b"\0" in data[:4096]
    if _is_archive(data, name):
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
    # Standard input has no name that tells a manifest: it may be one in a single line.
    return "workload" if (_KIND if name == "-" else _WORKLOAD).search(data) else None


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
    """The first bytes of a file. UsageError if it cannot be read."""
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
