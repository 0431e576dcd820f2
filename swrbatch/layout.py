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
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from . import faults
from .blob_writer import StagedBlob
from .digest import Digest
from .disk import disk_errors, libc_function
from .image import Manifest

LINK_BYTES: Final = 71


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
        for folder, names, _ in _walk(self._repositories):
            if "_manifests" in names or "_layers" in names:
                yield os.path.relpath(folder, self._repositories)
            # `_uploads` and the like are no repositories.
            names[:] = sorted(name for name in names if not name.startswith("_"))

    def tags(self) -> Iterator[tuple[str, str, Digest | None]]:
        """Every tag folder as (repository, tag, digest served); the digest is None for a damaged link."""
        for repository in self.repositories():
            for tag in sorted(_listdir(f"{self._repositories}/{repository}/_manifests/tags")):
                if _is_there(self._current(repository, tag)):
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
    with disk_errors("a folder of the store cannot be read"):
        try:
            return os.listdir(path)
        except (FileNotFoundError, NotADirectoryError):
            return []


def _walk(top: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk`, which would pass over what it cannot read: what is in there would seem not to be."""

    def refuse(e: OSError) -> None:
        if not isinstance(e, FileNotFoundError):
            with disk_errors("a folder of the store cannot be read"):
                raise e

    return os.walk(top, onerror=refuse)


def _is_there(path: str) -> bool:
    with disk_errors("a link cannot be looked at"):
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True
