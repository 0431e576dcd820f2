"""Where an export goes: a file or a folder that appears whole or not at all, or standard output; and the tar that goes there.

A file or folder is written under a name of its own beside its place, synced, and renamed; whatever goes wrong before, nothing is
left and what stood there stays. What is given as `-` is a stream: what was written cannot be taken back.

The tar has fixed times, owners and modes, so that its bytes depend on its members only. A size over 8 GiB stands in GNU's
base-256 form, which Go's and Python's readers know, and which keeps every header at 512 bytes: it can be written again in its
place.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import secrets
import shutil
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from . import faults
from .disk import libc_function
from .errors import StoreError, UsageError, printable

BLOCK: Final = 512
STREAM: Final = "-"
"""What stands for standard output."""
LAYOUT_FILES: Final = frozenset({"blobs", "index.json", "oci-layout"})
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
_JUST_NOW: Final = 60.0


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an export. `size` in bytes, None where only reading `pieces` to their end tells."""

    name: str
    size: int | None
    pieces: Iterable[bytes]


@dataclass(frozen=True, slots=True)
class Patch:
    """`data` takes the place of what was written at `offset` (bytes from the start)."""

    offset: int
    data: bytes


def tar_pieces(members: Iterable[Member]) -> Iterator[bytes | Patch]:
    """The tar of these members. A member of unknown size gets its header written again (`Patch`) once it was read."""
    offset = 0
    for member in members:
        yield _header(member.name, member.size or 0)
        size = 0
        for piece in member.pieces:
            yield piece
            size += len(piece)
        if member.size is None:
            yield Patch(offset, _header(member.name, size))
        elif member.size != size:
            raise StoreError(f"{member.name} has {size} bytes, not {member.size}: the store was changed meanwhile")
        yield bytes(-size % BLOCK)
        offset += BLOCK + size + -size % BLOCK
    yield bytes(2 * BLOCK)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.GNU_FORMAT)


class Target(Protocol):
    """What takes an export. `put` makes it visible under its name; without it nothing is left."""

    def put(self) -> None: ...

    def settle(self) -> None:
        """It stays: what stood there before goes."""

    def discard(self) -> None:
        """Take away what was put, or what would have been; what stood there before is there again. Idempotent."""


@contextlib.contextmanager
def write_errors(path: str) -> Iterator[None]:
    """Translate an OSError at the destination into a StoreError that names it."""
    try:
        yield
    except OSError as e:
        raise StoreError(f"{printable(path)} cannot be written: {e.strerror or e}") from e


class NewFile:
    """A file that takes its place when it is whole. A link is followed: the file that it names is replaced."""

    seekable = True

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)
        if os.path.isdir(self.path) or path.endswith("/"):
            raise UsageError(f"--to {printable(path)} is a folder: name a file in it")
        if os.path.lexists(self.path) and not os.path.isfile(self.path):
            raise UsageError(f"--to {printable(path)} is no regular file: name a file, or - for standard output")
        self._beside = _name_beside(self.path)
        self._put = self._replaced = False
        with write_errors(path):
            _sweep(self.path)
            self._fd = os.open(self._beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            fcntl.flock(self._fd, fcntl.LOCK_EX)

    def write(self, pieces: Iterable[bytes | Patch]) -> int:
        size = _write_pieces(self._fd, self.path, pieces)
        with write_errors(self.path):
            faults.point("export:sync:before")
            os.fsync(self._fd)
        return size

    def put(self) -> None:
        with write_errors(self.path):
            faults.point("export:rename:before")
            self._replaced = _place(self._beside, self.path)
            self._put = True
            faults.point("export:rename:after")
            _sync_folder(os.path.dirname(self.path))

    def settle(self) -> None:
        if self._replaced:
            with contextlib.suppress(OSError):
                os.unlink(self._beside)

    def discard(self) -> None:
        with contextlib.suppress(OSError):
            if self._replaced:
                _exchange(self._beside, self.path)
            os.unlink(self.path if self._put and not self._replaced else self._beside)

    def close(self) -> None:
        os.close(self._fd)


class NewFolder:
    """A folder that takes its place when it is whole: that of nothing, of an empty folder, or of an OCI layout."""

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)
        if os.path.lexists(self.path) and not _replaceable(self.path):
            raise UsageError(f"--to {printable(path)} holds something else than an OCI layout: name a new or an empty folder")
        self._beside = _name_beside(self.path)
        self._put = self._replaced = False
        with write_errors(path):
            _sweep(self.path)
            os.mkdir(self._beside)
            self._fd = os.open(self._beside, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._fd, fcntl.LOCK_EX)

    def add(self, member: Member) -> int:
        """Write a file into the folder; its size in bytes."""
        path = os.path.join(self._beside, member.name)
        with write_errors(self.path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            size = _write_pieces(fd, self.path, member.pieces)
            with write_errors(self.path):
                os.fsync(fd)
        finally:
            os.close(fd)
        return size

    def put(self) -> None:
        with write_errors(self.path):
            for folder, _, _ in os.walk(self._beside):
                _sync_folder(folder)
            faults.point("export:rename:before")
            self._replaced = _place(self._beside, self.path)
            self._put = True
            faults.point("export:rename:after")
            _sync_folder(os.path.dirname(self.path))

    def settle(self) -> None:
        if self._replaced:
            shutil.rmtree(self._beside, ignore_errors=True)

    def discard(self) -> None:
        with contextlib.suppress(OSError):
            if self._replaced:
                _exchange(self._beside, self.path)
        shutil.rmtree(self.path if self._put and not self._replaced else self._beside, ignore_errors=True)

    def close(self) -> None:
        os.close(self._fd)


class Stream:
    """Standard output. Nothing can be taken back: whoever writes here makes sure before that all can be read."""

    seekable = False

    def __init__(self) -> None:
        if sys.__stdout__ is None:
            # It is closed: another file of ours may have got its number.
            raise UsageError("standard output is closed: name a file with --to")
        if os.isatty(1):
            raise UsageError("an archive is nothing for a terminal: name a file with --to, or send the output somewhere")

    def write(self, pieces: Iterable[bytes | Patch]) -> int:
        return _write_pieces(1, "standard output", pieces)

    def put(self) -> None:
        pass

    def settle(self) -> None:
        pass

    def discard(self) -> None:
        pass


@contextlib.contextmanager
def file_target(to: str) -> Iterator[NewFile | Stream]:
    """The file `to`, or standard output for `-`; nothing is left when the block raises."""
    if to == STREAM:
        yield Stream()
        return
    target = NewFile(to)
    try:
        yield target
    except BaseException:
        target.discard()
        raise
    finally:
        target.close()


@contextlib.contextmanager
def folder_target(to: str) -> Iterator[NewFolder]:
    """The folder `to`; nothing is left when the block raises."""
    target = NewFolder(to)
    try:
        yield target
    except BaseException:
        target.discard()
        raise
    finally:
        target.close()


def _write_pieces(fd: int, path: str, pieces: Iterable[bytes | Patch]) -> int:
    size = 0
    for piece in pieces:
        with write_errors(path):
            if isinstance(piece, Patch):
                if os.pwrite(fd, piece.data, piece.offset) != len(piece.data):
                    raise OSError("only a part was written")
                continue
            view = memoryview(piece)
            while view:
                view = view[os.write(fd, view) :]
        size += len(piece)
    return size


def _name_beside(path: str) -> str:
    # A leading dot: whoever reads the folder meanwhile passes it over.
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)[:200]}.{secrets.token_hex(6)}.tmp")


def _place(new: str, path: str) -> bool:
    """Give `new` the name `path`; whether something stood there, which then has the name `new`."""
    if os.path.lexists(path):
        _exchange(new, path)
        return True
    os.rename(new, path)
    return False


def _sweep(path: str) -> None:
    """Remove what killed exports to this place left. Who writes holds a lock; one that was begun just now may not have it yet."""
    folder, name = os.path.split(path)
    ours = re.compile(rf"\.{re.escape(name[:200])}\.[0-9a-f]{{12}}\.tmp")
    for left in os.listdir(folder):
        beside = os.path.join(folder, left)
        if not ours.fullmatch(left):
            continue
        with contextlib.suppress(OSError):
            fd = os.open(beside, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - os.fstat(fd).st_mtime > _JUST_NOW:
                    shutil.rmtree(beside) if os.path.isdir(beside) else os.unlink(beside)
            finally:
                os.close(fd)


def _sync_folder(path: str) -> None:
    fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _replaceable(path: str) -> bool:
    if not os.path.isdir(path):
        return False
    names = set(os.listdir(path))
    return not names or ("oci-layout" in names and names <= LAYOUT_FILES)


def _exchange(new: str, old: str) -> None:
    """Two files or folders change their names in one step; where the system cannot do that, in two."""
    swap = libc_function("renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    if swap is not None and swap(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE) == 0:
        return
    aside = _name_beside(old)
    os.rename(old, aside)
    os.rename(new, old)
    os.rename(aside, new)
