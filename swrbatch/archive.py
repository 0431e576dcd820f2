"""A docker-save tar, under any outer compression, as an index of members with offsets. No policy here.

What this module guarantees:

* a plain file is read in place: one pass over its headers, member data only when asked for, by position;
* a compressed or piped archive is decompressed once, as far as the index needs it and then to its end, into a spool file without
  a name, so that a crash leaves nothing behind; runs of zeros become holes;
* every bound (`MAX_*`) holds before the data is taken, whatever the profile; nothing is ever written to a name that the archive
  chooses; links are followed inside the index only.

Sources: those of `tar`, facts about producers in the project's design notes. Python's `tarfile` is not used since it reads
extended headers of any size into memory and hides duplicate members.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import select
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Final

from .compression import Compression, CorruptData, decompress, sniff
from .digest import CHUNK, Cancel, Digest, Extent
from .errors import ArchiveFault, StoreError, fault
from .sizes import format_size
from .tar import Member, PlainSource, TarBounds, TarReader, TarSource

MAX_MEMBERS: Final = 100_000
MAX_NAMES: Final = 16 << 20
"""Characters of all names and link targets together: they are what stays in memory of an archive."""
MAX_LINK_DEPTH: Final = 16
MAX_DECOMPRESSED: Final = 64 << 30
MAX_MANIFEST: Final = 20 << 20
MAX_CONFIG: Final = 4 << 20
MAX_OCI_MANIFEST: Final = 4 << 20

_ZEROS: Final = bytes(CHUNK)
_SPACE_CHECK: Final = 256 << 20


@dataclass(slots=True)
class ArchiveIndex:
    """The members of an archive by cleaned name; of several with one name the last is in `members`, all are in `duplicates`.

    A name that is absolute or goes up is never looked up; where an engine that unpacks it would put it over another member
    (`/manifest.json`, `a/../manifest.json`), it counts as one more of that name.
    `file_bytes` is the size of the file as given, `uncompressed_bytes` that of the tar inside. Use as a context manager.
    """

    name: str
    fd: int
    compression: Compression
    file_bytes: int
    uncompressed_bytes: int
    members: dict[str, Member] = field(default_factory=dict)
    duplicates: dict[str, list[Member]] = field(default_factory=dict)
    sha256: Digest | None = None
    end_marker: bool = False

    def __enter__(self) -> ArchiveIndex:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self.fd)

    def extent(self, member: Member) -> Extent:
        return Extent(self.fd, member.offset, member.size)

    def resolve(self, name: str, *, missing: str, place: str, used: set[str] | None = None) -> Member:
        """The regular file that `name` stands for, links followed; the names met on the way are added to `used`.

        Raises the issue `missing`, path-escape, link-dangling, link-cycle, link-escape or member-not-regular.
        """
        cleaned = clean_name(name)
        if cleaned is None:
            raise fault("path-escape", place=place, name=name)
        member = self.members.get(cleaned)
        if member is None:
            raise fault(missing, place=place, name=name)
        for depth in range(MAX_LINK_DEPTH + 1):
            if used is not None:
                used.add(member.name)
            if member.kind == "file":
                return member
            if depth == MAX_LINK_DEPTH:
                break
            if member.kind not in ("hard link", "symbolic link"):
                raise fault("member-not-regular", place=place, name=member.name, kind=member.kind)
            base = posixpath.dirname(member.name) if member.kind == "symbolic link" else ""
            target = _join(base, member.target)
            if target is None:
                raise fault("link-escape", place=place, name=member.name, target=member.target)
            after = self.members.get(target)
            if after is None:
                raise fault("link-dangling", place=place, name=member.name, target=target)
            member = after
        raise fault("link-cycle", place=place, name=name, limit=MAX_LINK_DEPTH)

    def read_bounded(self, member: Member, limit: int, name: str, *, place: str | None = None) -> bytes:
        """All bytes of a small member, called `name`; raises metadata-too-large, at `place`, before reading a large one."""
        if member.size > limit:
            size = format_size(member.size, beside=limit)
            raise fault("metadata-too-large", place=place or name, name=name, size=size, limit=format_size(limit))
        return self.extent(member).read()


def clean_name(name: str) -> str | None:
    """A member name without `./`, doubled slashes and a trailing slash; None when absolute, empty or leaving the archive."""
    if "/" not in name:
        return None if name in ("", ".", "..") else name
    if name.startswith("/"):
        return None
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return None if ".." in parts or not parts else "/".join(parts)


def _join(base: str, target: str) -> str | None:
    """A link's target, relative to the folder `base`; None when it leaves the archive."""
    if target.startswith("/"):
        return None
    parts = base.split("/") if base else []
    for part in target.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts) or None


@contextlib.contextmanager
def open_archive(
    path: str,
    *,
    spool_dir: str | None,
    max_decompressed: int = MAX_DECOMPRESSED,
    hash_file: bool = False,
    cancel: Cancel,
    start: bytes = b"",
) -> Iterator[ArchiveIndex]:
    """Open and index the archive at `path` (`-` is standard input, of which somebody may have read the `start`).

    `spool_dir` takes the spool of a compressed or piped archive (None: the system's temporary folder).
    Raises an `ArchiveFault` with the issue when the file is no readable tar, `StoreError` when the spool's disk is full.
    """
    try:
        # Opening a FIFO waits for its writer, deaf to an interrupt; not waiting, `_Spool` does so with an ear open.
        fd = os.dup(0) if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        if path != "-":
            os.set_blocking(fd, True)
    except (OSError, ValueError) as e:
        raise fault("archive-unreadable", detail=_reason(e)) from e
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, fd)
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            raise fault("archive-unreadable", detail="it is a folder")
        plain = stat.S_ISREG(status.st_mode) and path != "-"
        try:
            head = os.pread(fd, 6, 0) if plain else b""
            if plain and status.st_size == 0:
                raise fault("archive-empty")
            if plain and sniff(head) is Compression.NONE:
                yield stack.enter_context(_index_plain(path, fd, status.st_size, hash_file, cancel))
            else:
                size = status.st_size if plain else None
                yield stack.enter_context(_index_spooled(path, fd, size, spool_dir, max_decompressed, hash_file, cancel, start))
        except EOFError as e:
            raise fault("archive-truncated", detail="a member ends after the end of the file") from e
        except OSError as e:  # the store's and the spool's own errors are `StoreError` by now
            raise fault("archive-unreadable", detail=_reason(e)) from e


def _reason(e: Exception) -> str:
    return (e.strerror if isinstance(e, OSError) else None) or str(e)


def _index_plain(path: str, fd: int, size: int, hash_file: bool, cancel: Cancel) -> ArchiveIndex:
    sha256 = None
    if hash_file:
        sha = hashlib.sha256()
        for chunk in Extent(fd, 0, size).chunks(cancel):
            sha.update(chunk)
        sha256 = Digest(sha.hexdigest())
    index = ArchiveIndex(path, os.dup(fd), Compression.NONE, size, size, sha256=sha256)
    try:
        _read_members(index, PlainSource(Extent(fd, 0, size)), cancel)
    except BaseException:
        os.close(index.fd)
        raise
    return index


def _index_spooled(
    path: str, fd: int, size: int | None, spool_dir: str | None, limit: int, hash_file: bool, cancel: Cancel, start: bytes
) -> ArchiveIndex:
    spool = _Spool(fd, spool_dir, size or 0, limit, hash_file, cancel, start)
    try:
        index = ArchiveIndex(path, spool.fd, spool.compression, 0, 0)
        _read_members(index, spool, cancel)
        spool.drain()
        index.file_bytes, index.uncompressed_bytes, index.sha256 = spool.taken, spool.size, spool.sha256()
    except BaseException:
        os.close(spool.fd)
        raise
    finally:
        spool.stop()
    return index


class _Spool:
    """A compressed or piped archive, decompressed into a nameless file as far as it is asked for."""

    def __init__(self, fd: int, folder: str | None, size: int, limit: int, hash_file: bool, cancel: Cancel, start: bytes) -> None:
        self._folder = folder or _temporary_folder()
        self._limit = limit
        self._next_check = 0
        self._sha = hashlib.sha256() if hash_file else None
        self.taken = 0
        self.size = 0
        source = self._source(fd, cancel, start)
        head = next(source, b"")
        if not head:
            raise fault("archive-empty")
        self.compression = sniff(head)
        self._check_space(size)
        self.fd = self._open()
        self._pieces = decompress(self.compression, _chain(head, source), padded=True)
        self._ended = False

    def _open(self) -> int:
        try:
            with contextlib.suppress(OSError):  # not every file system has files without a name
                return os.open(self._folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fd, name = tempfile.mkstemp(prefix="swrbatch-spool-", dir=self._folder)
            os.unlink(name)
            return fd
        except OSError as e:
            raise StoreError(f"the spool in {self._folder} cannot be made: {e.strerror}") from e

    def _source(self, fd: int, cancel: Cancel, start: bytes) -> Iterator[bytes]:
        ready = select.poll()
        ready.register(fd, select.POLLIN)
        data = start
        while True:
            cancel.check()
            # A pipe may stay silent for long: ask before reading, so that an interrupt is heard.
            while not data and not ready.poll(200):
                cancel.check()
            data = data or os.read(fd, 256 << 10)
            if not data:
                return
            self.taken += len(data)
            if self._sha is not None:
                self._sha.update(data)
            yield data
            data = b""

    def _check_space(self, more: int) -> None:
        try:
            free = shutil.disk_usage(self._folder).free
        except OSError as e:
            raise StoreError(f"the folder of the spool {self._folder} cannot be used: {e.strerror}") from e
        if free < more:
            raise StoreError(
                f"no space for the spool in {self._folder}: {format_size(more)} needed at least, {format_size(free)} free; "
                "free some space or set another folder (TMPDIR for check, the store's own for import)"
            )

    def _pump(self) -> bool:
        try:
            piece = next(self._pieces, None)
        except CorruptData as e:
            code = "archive-truncated" if "ends early" in str(e) else "archive-corrupt"
            raise fault(code, place=f"{self.compression} data", detail=str(e)) from e
        if piece is None:
            self._ended = True
            return False
        if self.size + len(piece) > self._limit:
            raise fault("decompressed-too-large", limit=format_size(self._limit))
        if piece != _ZEROS[: len(piece)]:
            self._write(piece)
        self.size += len(piece)
        return True

    def _write(self, piece: bytes) -> None:
        if self.size >= self._next_check:
            self._check_space(len(piece))
            self._next_check = self.size + _SPACE_CHECK
        try:
            done = 0
            while done < len(piece):
                done += os.pwrite(self.fd, piece[done:], self.size + done)
        except OSError as e:
            raise StoreError(f"the spool in {self._folder} cannot be written: {e.strerror}") from e

    def read(self, offset: int, size: int) -> bytes:
        self.has(offset + size)
        want = max(0, min(size, self.size - offset))
        # The file ends before the zeros that were skipped last.
        return os.pread(self.fd, want, offset).ljust(want, b"\0")

    def has(self, end: int) -> bool:
        while self.size < end and not self._ended and self._pump():
            pass
        if self._ended:
            os.ftruncate(self.fd, self.size)
        return self.size >= end

    def drain(self) -> None:
        """Read to the end: the checksum of the compression stands there, and what lies behind the tar counts too."""
        while not self._ended and self._pump():
            pass
        os.ftruncate(self.fd, self.size)

    def stop(self) -> None:
        """Let go of the decoder and its window."""
        self._pieces.close()

    def sha256(self) -> Digest | None:
        return Digest(self._sha.hexdigest()) if self._sha is not None else None


def _temporary_folder() -> str:
    try:
        return tempfile.gettempdir()
    except OSError as e:
        raise StoreError(f"there is no folder for the spool; set TMPDIR to one that can be written: {e.strerror}") from e


def _chain(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from rest


def _read_members(index: ArchiveIndex, source: TarSource, cancel: Cancel) -> None:
    """Fill `index.members`; stops at the end marker and reads nothing behind it."""

    def bad_start(header: bytes) -> ArchiveFault:
        return not_a_tar(header, index.compression)

    reader = TarReader(source, TarBounds(members=MAX_MEMBERS, names=MAX_NAMES), bad_start, cancel)
    unclean: list[tuple[str, Member]] = []
    for member in reader:
        cleaned = clean_name(member.name)
        if cleaned is None:
            if meant := _join("", member.name.lstrip("/")):
                unclean.append((meant, member))
        elif not posixpath.basename(cleaned).startswith("._"):
            _add(index, member if cleaned == member.name else replace(member, name=cleaned))
    for meant, member in unclean:
        if meant in index.members:
            index.duplicates.setdefault(meant, [index.members[meant]]).append(member)
    if reader.empty:
        raise fault("not-a-tar", what="a file of zeros")
    index.end_marker = reader.end_marker


def _add(index: ArchiveIndex, member: Member) -> None:
    before = index.members.get(member.name)
    if before is not None and not before.kind == member.kind == "directory":
        index.duplicates.setdefault(member.name, [before]).append(member)
    index.members[member.name] = member


def not_a_tar(head: bytes, compression: Compression) -> ArchiveFault:
    """The issue for content that is no tar: compressed once more, a known other format, or unknown."""
    inner = sniff(head)
    if inner is not Compression.NONE:
        return fault("compressed-twice", outer=compression, inner=inner)
    for magic, what in (
        (b"PK\x03\x04", "a zip file"),
        (b"\x7fELF", "an ELF program"),
        (b"Rar!", "a rar file"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z file"),
        (b"%PDF", "a PDF"),
        (b"hsqs", "a squashfs file system"),
        (b"\x1f\x9d", "an old compress (.Z) file"),
        (b"LZIP", "an lzip file"),
        (b"\x04\x22\x4d\x18", "an lz4 file"),
        (b"<", "a web page or XML (a failed download?)"),
        (b"{", "a JSON document"),
    ):
        if head.startswith(magic):
            return fault("not-a-tar", what=what)
    if head and all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head[:256]):
        return fault("not-a-tar", what="a text file")
    return fault("not-a-tar", what="a file of an unknown format")
