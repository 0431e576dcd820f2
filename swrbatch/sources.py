"""What `ARCHIVE...` stands for: files, folders, globs, `@list.txt`, `@-` and `-`."""

from __future__ import annotations

import glob
import os
import select
import sys
from collections.abc import Iterator, Sequence

from .digest import Cancel
from .errors import UsageError, printable

SUFFIXES = (".tar", ".tgz", ".tbz2", ".txz", ".tzst", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.zstd")
"""What a search of a folder takes; a file that is named itself is taken whatever it is called."""


def is_path(argument: str, *, among_names: bool) -> bool:
    """Whether an argument means a file and not an image of a store: it is there, or is called like an archive.

    Where names are expected (`among_names`: a store was given) only what cannot be a name is a path: a name has a slash.
    """
    if argument == "-" or not argument or argument.startswith(("/", "./", "../")):
        return True
    if among_names:
        return "/" not in argument and not glob.has_magic(argument) and os.path.lexists(argument)
    return os.path.lexists(argument) or argument.lower().endswith(SUFFIXES)


def expand(arguments: Sequence[str], left_out: list[str] | None = None) -> list[str]:
    """The archives that the arguments name, in order, each once.

    A folder gives the archives below it (`SUFFIXES`, no hidden files) sorted by path; a pattern its matches, sorted. A file
    that does not exist is left in: it becomes a rejected archive, and the others go on. UsageError for what names nothing.
    `left_out` gets the files of folders that are called otherwise and yet look like archives.
    """
    others = [] if left_out is None else left_out
    if "-" in arguments:
        _check_open()
    if "-" in arguments and "@-" in arguments:
        raise UsageError("- and @- both read standard input: use one of them")
    found = [path for argument in arguments for path in _expand_one(argument, others, listed=False)]
    return list(dict.fromkeys(found))


def _expand_one(argument: str, others: list[str], *, listed: bool) -> Iterator[str]:
    if argument == "-":
        yield argument
    elif argument.startswith("@") and not listed and not os.path.exists(argument):
        for line in _lines(argument[1:]):
            yield from _expand_one(line, others, listed=True)
    elif os.path.isdir(argument):
        yield from _search(argument, others)
    elif not os.path.lexists(argument) and glob.has_magic(argument):
        matches = sorted(glob.glob(argument, recursive=True))
        if not matches:
            raise UsageError(f"nothing matches {printable(argument)}")
        for match in matches:
            yield from _search(match, others) if os.path.isdir(match) else iter([match])
    else:
        yield argument


def _search(folder: str, others: list[str]) -> Iterator[str]:
    found = []
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        named = [os.path.join(path, name) for name in files if not name.startswith(".") and name.lower().endswith(SUFFIXES)]
        # A pipe that is named itself is waited for; one that lies about is no archive. A dangling link is told as what it is.
        found += [name for name in named if os.path.isfile(name) or not os.path.exists(name)]
        rest = (os.path.join(path, name) for name in files if not name.startswith(".") and not name.lower().endswith(SUFFIXES))
        others += filter(_looks_like_archive, rest)
    if not found:
        raise UsageError(f"there is no archive below {printable(folder)} (files that end in {', '.join(SUFFIXES)})")
    yield from sorted(found)


def _looks_like_archive(path: str) -> bool:
    """Whether a file begins as a tar or as something compressed does; False for what cannot be read."""
    from .compression import Compression, sniff  # lists of Dockerfiles do without decoders

    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError:
        return False
    return head[257:262] == b"ustar" or sniff(head) is not Compression.NONE


def standard_input(cancel: Cancel | None = None) -> Iterator[bytes]:
    """What comes in, until its end. Never waits long at once: Python may miss a signal (Ctrl-C) that comes between two reads."""
    _check_open()
    try:
        fd = sys.stdin.fileno()
    except (OSError, ValueError):  # not a file, as in tests and notebooks
        yield sys.stdin.buffer.read()
        return
    while True:
        if cancel is not None:
            cancel.check()
        if select.select([fd], [], [], 0.2)[0]:
            if not (piece := os.read(fd, 1 << 16)):
                return
            yield piece


def _check_open() -> None:
    """Descriptor 0 of a process without a standard input is any file that it opens."""
    if sys.stdin is None:
        raise UsageError("standard input is closed")


def _lines(name: str) -> list[str]:
    """The paths of a list: one a line, or with NUL between them (`find -print0`); without empty ones and comments (#)."""
    try:
        if name == "-":
            data = b"".join(standard_input())
        else:
            with open(name, "rb") as f:
                data = f.read()
        text = os.fsdecode(data.removeprefix(b"\xef\xbb\xbf"))
    except OSError as e:
        raise UsageError(f"the list {printable(name)} cannot be read: {e.strerror}") from e
    lines = text.split("\0") if "\0" in text else [line.rstrip("\r") for line in text.split("\n")]
    paths = [line for line in lines if line.strip() and not line.startswith("#")]
    if not paths:
        raise UsageError(f"the list {printable(name)} names no archive")
    return paths
