"""The store on disk: the layout of the CNCF Distribution registry, and nothing else.

    <root>/docker/registry/v2/blobs/sha256/<ab>/<hex>/data
    <root>/docker/registry/v2/repositories/<name>/_layers/sha256/<hex>/link
    <root>/docker/registry/v2/repositories/<name>/_manifests/revisions/sha256/<hex>/link
    <root>/docker/registry/v2/repositories/<name>/_manifests/tags/<tag>/index/sha256/<hex>/link
    <root>/docker/registry/v2/repositories/<name>/_manifests/tags/<tag>/current/link

What this module guarantees: no file is ever written in place. A blob or a link is a temporary file outside `docker/`, synced,
renamed, and synced again before anything refers to it; a group of files shares its two syncs. The registry trusts an existing
`data` file without hashing it, so a torn one would never heal.

Source: distribution `registry/storage/paths.go`; checked against docker-registry 2.8.2.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from . import faults
from .digest import Cancel, Digest
from .errors import StoreError
from .image import Manifest

LINK_BYTES: Final = 71
_EAGER_SYNC: Final = 8 << 20
BLOCK: Final = 1 << 20
"""Bytes of a write that goes past the page cache."""


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
            with contextlib.suppress(FileNotFoundError):
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


@dataclass(frozen=True, slots=True)
class Link:
    """A link file of a repository; `path` is absolute."""

    path: str
    digest: Digest


class RegistryLayout:
    """The files under `<root>/docker`. Names given to it must be valid repository names and tags already."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.base = os.path.join(root, "docker", "registry", "v2")
        self._blobs = os.path.join(self.base, "blobs", "sha256")
        self._repositories = os.path.join(self.base, "repositories")

    # --- blobs -------------------------------------------------------------------------------------------------------

    def blob_path(self, digest: Digest) -> str:
        return f"{self._blobs}/{digest.hex[:2]}/{digest.hex}/data"

    def blob_size(self, digest: Digest) -> int | None:
        """Bytes of a blob; None when it is not there."""
        with disk_errors("a blob cannot be looked at"):
            try:
                state = os.stat(self.blob_path(digest))
            except (FileNotFoundError, NotADirectoryError):
                return None
        return state.st_size if stat.S_ISREG(state.st_mode) else None

    def read_blob(self, digest: Digest, limit: int) -> bytes | None:
        """A small blob such as a manifest, unhashed; None when it is missing or larger than `limit`."""
        with disk_errors("a blob cannot be read"):
            raw = _read_regular(self.blob_path(digest), limit + 1)
        return raw if raw is not None and len(raw) <= limit else None

    def publish(self, blobs: Iterable[StagedBlob]) -> None:
        """Make staged blobs part of the store, durably and in one group. Idempotent: a blob that is there stays."""
        fresh = []
        for blob in blobs:
            if self.blob_size(blob.digest) == blob.size:
                faults.point("blob:drop:before")
                with disk_errors("a temporary file cannot be removed"), contextlib.suppress(FileNotFoundError):
                    os.unlink(blob.path)
                faults.point("blob:drop:after")
            else:
                fresh.append((blob.path, self.blob_path(blob.digest)))
        self._rename_durably("blob", fresh)

    def blobs(self) -> Iterator[Digest]:
        """Every blob folder with a `data` file."""
        for shard in _listdir(self._blobs):
            for name in _listdir(os.path.join(self._blobs, shard)):
                with contextlib.suppress(ValueError):
                    digest = Digest.parse(f"sha256:{name}")
                    if self.blob_size(digest) is not None:
                        yield digest

    # --- links -------------------------------------------------------------------------------------------------------

    def links_of(self, repository: str, tag: str, manifest: Manifest) -> list[Link]:
        """The links that a pull of `repository:tag` needs, in the order in which they are written (`current` last)."""
        base = f"{self._repositories}/{repository}"
        seen = dict.fromkeys([manifest.config.digest, *(layer.digest for layer in manifest.layers)])
        links = [Link(self.layer_link(repository, digest), digest) for digest in seen]
        links.append(Link(self.revision_link(repository, manifest.digest), manifest.digest))
        links.append(Link(f"{base}/_manifests/tags/{tag}/index/sha256/{manifest.digest.hex}/link", manifest.digest))
        links.append(Link(self._current(repository, tag), manifest.digest))
        return links

    def _current(self, repository: str, tag: str) -> str:
        return f"{self._repositories}/{repository}/_manifests/tags/{tag}/current/link"

    def read_tag(self, repository: str, tag: str) -> Digest | None:
        """What the registry serves for a tag; None when it has no such tag."""
        return self.read_link(self._current(repository, tag))

    @staticmethod
    def read_link(path: str) -> Digest | None:
        """The digest in a link file; None when it is missing or holds none."""
        with disk_errors("a link cannot be read"):
            raw = _read_regular(path, LINK_BYTES + 1)
        try:
            return None if raw is None else Digest.parse(raw.decode("ascii", "replace"))
        except ValueError:
            return None

    def write_links(self, links: Iterable[Link], tmp: str) -> None:
        """Write links durably as one group, in the order given. A link that holds its digest already is left alone."""
        fresh = []
        for number, link in enumerate(links):
            if self.read_link(link.path) == link.digest:
                continue
            path = f"{tmp}/link-{number}"
            with disk_errors("a link cannot be written"):
                faults.point("link:create:before")
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
                faults.point("link:create:after")
                try:
                    faults.point("link:write:before")
                    # 71 bytes go out whole or not at all (a full disk).
                    if os.write(fd, str(link.digest).encode("ascii")) != LINK_BYTES:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
                    faults.point("link:write:after")
                finally:
                    os.close(fd)
            fresh.append((path, link.path))
        self._rename_durably("link", fresh)

    def remove_tags(self, repository: str, names: Iterable[str], digests: Iterable[Digest]) -> None:
        """Remove tags, and the revisions `digests` that no tag of the repository has any more; durable when it returns.

        The link that is served goes first: what a crash leaves of the rest is not served, and goes when this is done again.
        """
        base = f"{self._repositories}/{repository}/_manifests"
        with disk_errors("a link cannot be removed"):
            for tag in names:
                faults.point("link:remove:before")
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._current(repository, tag))
                faults.point("link:remove:after")
                _remove_tree(f"{base}/tags/{tag}")
            served = {self.read_tag(repository, tag) for tag in _listdir(f"{base}/tags")}
            for digest in set(digests) - served:
                _remove_tree(f"{base}/revisions/sha256/{digest.hex}")
            self.sync()

    def remove_repository(self, repository: str) -> None:
        """Remove a repository that serves nothing any more: without tags, revisions, and uploads under way."""
        folder = f"{self._repositories}/{repository}"
        if any(_listdir(f"{folder}/{part}") for part in ("_manifests/tags", "_manifests/revisions/sha256", "_uploads")):
            return
        with disk_errors("a repository cannot be removed"):
            for part in ("_layers", "_manifests", "_uploads"):
                _remove_tree(f"{folder}/{part}")
            while folder != self._repositories and not _listdir(folder):
                with contextlib.suppress(FileNotFoundError):
                    os.rmdir(folder)
                folder = os.path.dirname(folder)
            self.sync()

    def repositories(self) -> Iterator[str]:
        """Every repository folder, by its path."""
        for folder, names, _ in os.walk(self._repositories):
            if "_manifests" in names or "_layers" in names:
                yield os.path.relpath(folder, self._repositories)
            # `_uploads` and the like are no repositories.
            names[:] = sorted(name for name in names if not name.startswith("_"))

    def tags(self) -> Iterator[tuple[str, str, Digest | None]]:
        """Every tag folder as (repository, tag, digest served); the digest is None for a damaged link."""
        for repository in self.repositories():
            for tag in sorted(_listdir(f"{self._repositories}/{repository}/_manifests/tags")):
                if os.path.exists(self._current(repository, tag)):
                    yield repository, tag, self.read_tag(repository, tag)

    def revision_link(self, repository: str, digest: Digest) -> str:
        return f"{self._repositories}/{repository}/_manifests/revisions/sha256/{digest.hex}/link"

    def revisions(self, repository: str) -> list[Digest]:
        """The manifests that a repository serves by digest."""
        return _named_by_digest(f"{self._repositories}/{repository}/_manifests/revisions/sha256")

    def layer_link(self, repository: str, digest: Digest) -> str:
        return f"{self._repositories}/{repository}/_layers/sha256/{digest.hex}/link"

    def layer_links(self, repository: str) -> list[Digest]:
        """The blobs that a repository serves."""
        return _named_by_digest(f"{self._repositories}/{repository}/_layers/sha256")

    def forget(self, repository: str, revisions: Iterable[Digest], layers: Iterable[Digest]) -> None:
        """Remove revisions, with the entries of tags that once had them, and links of layers. Not synced: `sync` follows."""
        base = f"{self._repositories}/{repository}"
        gone = [digest.hex for digest in revisions]
        tags = _listdir(f"{base}/_manifests/tags") if gone else []
        with disk_errors("a link cannot be removed"):
            for name in gone:
                for tag in tags:
                    _remove_tree(f"{base}/_manifests/tags/{tag}/index/sha256/{name}")
                _remove_tree(f"{base}/_manifests/revisions/sha256/{name}")
            for digest in layers:
                _remove_tree(f"{base}/_layers/sha256/{digest.hex}")

    def remove_blobs(self, digests: Iterable[Digest]) -> None:
        """Remove blobs; durable when it returns."""
        with disk_errors("a blob cannot be removed"):
            for digest in digests:
                path = self.blob_path(digest)
                faults.point("blob:remove:before")
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                faults.point("blob:remove:after")
                with contextlib.suppress(OSError):
                    os.rmdir(os.path.dirname(path))
            self.sync()

    # --- durability --------------------------------------------------------------------------------------------------

    def _rename_durably(self, what: str, moves: list[tuple[str, str]]) -> None:
        if not moves:
            return
        with disk_errors(f"a {what} cannot be put into the store"):
            faults.point(f"{what}:sync:before")
            self.sync()
            faults.point(f"{what}:sync:after")
            for source, target in moves:
                faults.point(f"{what}:mkdir:before")
                _make_folder(os.path.dirname(target))
                faults.point(f"{what}:mkdir:after")
                faults.point(f"{what}:rename:before")
                os.rename(source, target)
                faults.point(f"{what}:rename:after")
            faults.point(f"{what}:folders-sync:before")
            self.sync()
            faults.point(f"{what}:folders-sync:after")

    def sync(self) -> None:
        """Everything written to the store's file system so far is on the disk when this returns."""
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if _syncfs is None:
                os.sync()
            elif _syncfs(fd) != 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code), self.root)
        finally:
            os.close(fd)


def _remove_tree(path: str) -> None:
    """A folder with all that it holds, if it is there."""
    faults.point("tree:remove:before")
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)
    faults.point("tree:remove:after")


def _make_folder(path: str) -> None:
    """A folder with its parents: as `os.makedirs`, with one system call where the parent is there."""
    try:
        os.mkdir(path)
    except FileExistsError:
        pass
    except FileNotFoundError:
        _make_folder(os.path.dirname(path))
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)


def libc_function(name: str, *arguments: type) -> ctypes._NamedFuncPointer | None:
    """A function of libc that Python does not offer; None where there is none (they are Linux's own)."""
    if not sys.platform.startswith("linux"):
        return None
    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is not None:
        function.argtypes = arguments
    return function


# One call for a group of files, where fsync would take one for each.
_syncfs = libc_function("syncfs", ctypes.c_int)


def _read_regular(path: str, most: int) -> bytes | None:
    """The first bytes of a regular file; None for anything else, and when nothing is there. Waits for nobody (a FIFO)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return os.read(fd, most) if stat.S_ISREG(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


def _named_by_digest(path: str) -> list[Digest]:
    """The folders in `path` whose names are digests (hex)."""
    found = []
    for name in _listdir(path):
        with contextlib.suppress(ValueError):
            found.append(Digest.parse(f"sha256:{name}"))
    return found


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []


# --- locks and temporary folders ---------------------------------------------------------------------------------------


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
