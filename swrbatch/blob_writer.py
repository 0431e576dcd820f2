"""A blob on its way to the store: a temporary file, written once and in order, on the disk before anything refers to it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from . import faults
from .digest import Digest
from .disk import disk_errors

BLOCK: Final = 1 << 20
"""Bytes of a write that goes past the page cache."""
_EAGER_SYNC: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class StagedBlob:
    """A blob that lies whole in the temporary folder, not yet part of the store."""

    path: str
    digest: Digest
    size: int


class BlobWriter:
    """A temporary file that takes a blob; use as a context manager, `done` makes it a `StagedBlob`.

    Whole blocks go past the page cache (O_DIRECT) where the file system can: the blob is to be on the disk before anything refers
    to it, and nobody reads it until then. Through the cache, an import without compression took twice the processor time.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.size = 0
        self._block: memoryview | None = None
        self._held = bytearray()
        self._filled = 0
        self._direct: bool | None = None
        faults.point("blob:create:before")
        with disk_errors("a temporary file cannot be created"):
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        faults.point("blob:create:after")

    def write(self, data: bytes) -> None:
        self.size += len(data)
        if self._block is None:
            if self.size < BLOCK:
                self._held += data
                return
            # Memory of its own is at the border of a page, as such writes want it; most blobs of small images never need it.
            with disk_errors("a layer cannot be written"):
                self._block = memoryview(mmap.mmap(-1, BLOCK))
            data, self._held = bytes(self._held) + data, bytearray()
        view = memoryview(data)
        while view:
            taken = min(len(view), BLOCK - self._filled)
            self._block[self._filled : self._filled + taken] = view[:taken]
            self._filled += taken
            view = view[taken:]
            if self._filled == BLOCK:
                self._flush(self._block)
                self._filled = 0

    def _flush(self, view: memoryview) -> None:
        faults.point("blob:write:before")
        with disk_errors("a layer cannot be written"):
            whole = len(view) == BLOCK
            if (whole and self._direct is None) or (self._direct and not whole):
                self._direct = _past_cache(self._fd, whole)
            while view:
                try:
                    view = view[os.write(self._fd, view) :]
                except OSError as e:
                    # A file system may take the flag, and then not what goes with it.
                    if not self._direct or e.errno != errno.EINVAL:
                        raise
                    self._direct = _past_cache(self._fd, False)
        faults.point("blob:write:after")

    def done(self, digest: Digest) -> StagedBlob:
        rest = memoryview(self._held) if self._block is None else self._block[: self._filled]
        if rest:
            self._flush(rest)
        if self.size >= _EAGER_SYNC:
            # Large blobs go to the disk while others are still being read; the group's sync then finds little left to do.
            faults.point("blob:datasync:before")
            with disk_errors("a layer cannot be synced"):
                os.fdatasync(self._fd)
            faults.point("blob:datasync:after")
        return StagedBlob(self.path, digest, self.size)

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._fd)
        if kind is not None:
            # What went wrong is on its way already; a file that cannot be removed goes with the run's folder.
            with contextlib.suppress(OSError):
                os.unlink(self.path)


def _past_cache(fd: int, wanted: bool) -> bool:
    """Have writes go past the page cache, or not; whether they do."""
    flag = getattr(os, "O_DIRECT", 0)
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | flag if wanted else flags & ~flag)
    except OSError:
        return False
    return wanted and bool(flag)
