"""What the disk asks of whoever writes: errors that say what to do, locks, temporary folders that no crash leaves behind."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Iterator

from . import faults
from .digest import Cancel
from .errors import StoreError


@contextlib.contextmanager
def disk_errors(action: str) -> Iterator[None]:
    """Translate an OSError into a StoreError that says what was being done, and what to do about a full disk."""
    try:
        yield
    except OSError as e:
        # Of a rename the target: the source is a temporary file.
        name = e.filename2 or e.filename
        where = f" ({name})" if name else ""
        hint = ""
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "; free some space and run again: what was loaded stays, and is not loaded twice"
        raise StoreError(f"{action}{where}: {e.strerror or e}{hint}") from e


def libc_function(name: str, *arguments: type) -> ctypes._NamedFuncPointer | None:
    """A function of libc that Python does not offer; None where there is none (they are Linux's own)."""
    if not sys.platform.startswith("linux"):
        return None
    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is not None:
        function.argtypes = arguments
    return function


@contextlib.contextmanager
def locked(path: str, *, shared: bool = False, cancel: Cancel | None = None) -> Iterator[None]:
    """Hold an advisory lock on `path` (flock: it ends with the process, however it ends)."""
    with disk_errors("a lock cannot be taken"):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        while not _try_lock(fd, how):
            if cancel is not None:
                cancel.check()
            time.sleep(0.005)
        yield
    finally:
        os.close(fd)


def _try_lock(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def run_folder(tmp: str, run_id: str) -> Iterator[str]:
    """A folder for one run's temporary files, emptied and removed at its end; what crashed runs left is swept first.

    The folder belongs to whoever holds the lock beside it, which outlives no process.
    """
    folder = os.path.join(tmp, run_id)
    with disk_errors("the temporary folder cannot be made"):
        os.makedirs(tmp, exist_ok=True)
        _sweep(tmp)
        while (lock := _own(folder + ".lock")) is None:
            time.sleep(0.005)
    try:
        faults.point("run:mkdir:before")
        with disk_errors("the temporary folder cannot be made"):
            os.mkdir(folder)
        faults.point("run:mkdir:after")
        yield folder
    finally:
        _remove_run(folder, lock)


def _sweep(tmp: str) -> None:
    """Remove the folders and the locks of runs that are no more."""
    for name in {name.removesuffix(".lock") for name in os.listdir(tmp)}:
        folder = os.path.join(tmp, name)
        if (os.path.isdir(folder) or os.path.exists(folder + ".lock")) and (lock := _own(folder + ".lock")) is not None:
            _remove_run(folder, lock)


def _remove_run(folder: str, lock: int) -> None:
    faults.point("run:remove:before")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        # On a disk that went read-only the lock stays, for the next run's sweep.
        with contextlib.suppress(OSError):
            os.unlink(folder + ".lock")
    finally:
        os.close(lock)
    faults.point("run:remove:after")


def _own(path: str) -> int | None:
    """Lock the file at `path`, made at need: its descriptor, or None while another process has it.

    Its owner removes the file: once the lock is ours, the file may be gone or be another one, and the lock counts for nothing.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    owned = False
    try:
        if _try_lock(fd, fcntl.LOCK_EX):
            with contextlib.suppress(FileNotFoundError):
                owned = os.path.samestat(os.fstat(fd), os.stat(path))
    finally:
        if not owned:
            os.close(fd)
    return fd if owned else None
