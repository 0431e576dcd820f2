"""A docker-save tar, under any outer compression, as an index of members with offsets. No policy here.

What this module guarantees:

* a plain file is read in place: one pass over its headers, member data only when asked for, by position;
* a compressed or piped archive is decompressed once, as far as the index needs it and then to its end, into a spool file without
  a name, so that a crash leaves nothing behind; runs of zeros become holes;
* every bound (`MAX_*`) holds before the data is taken, whatever the profile; nothing is ever written to a name that the archive
  chooses; links are followed inside the index only.

Sources: POSIX ustar and pax, GNU tar's manual ("Tar Internals"), facts about producers in the project's design notes. Python's
`tarfile` is not used since it reads extended headers of any size into memory and hides duplicate members.
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
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

from .compression import Compression, CorruptData, decompress, sniff
from .digest import CHUNK, Cancel, Digest, Extent
from .errors import ArchiveFault, StoreError, fault, printable
from .sizes import format_size

BLOCK: Final = 512
MAX_MEMBERS: Final = 100_000
MAX_EXTENDED_HEADERS: Final = 1 << 20
MAX_NAMES: Final = 16 << 20
"""Characters of all names and link targets together: they are what stays in memory of an archive."""
MAX_LINK_DEPTH: Final = 16
MAX_DECOMPRESSED: Final = 64 << 30
MAX_MANIFEST: Final = 20 << 20
MAX_CONFIG: Final = 4 << 20
MAX_OCI_MANIFEST: Final = 4 << 20

_ZEROS: Final = bytes(CHUNK)
_SPACE_CHECK: Final = 256 << 20
_KINDS: Final = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"1": "hard link",
    b"2": "symbolic link",
    b"3": "character device",
    b"4": "block device",
    b"5": "directory",
    b"6": "fifo",
    b"S": "sparse file",
}


@dataclass(frozen=True, slots=True)
class Member:
    """One member of the tar. `offset` and `size` are the data's, in bytes; `target` is a link's, as written."""

    name: str
    kind: str
    offset: int
    size: int
    target: str = ""


@dataclass(slots=True)
class ArchiveIndex:
    """The members of an archive by cleaned name; of several with one name the last is in `members`, all are in `duplicates`.

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
) -> Iterator[ArchiveIndex]:
    """Open and index the archive at `path` (`-` is standard input).

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
                yield stack.enter_context(_index_spooled(path, fd, size, spool_dir, max_decompressed, hash_file, cancel))
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
        _read_members(index, _Plain(fd, size), cancel)
    except BaseException:
        os.close(index.fd)
        raise
    return index


def _index_spooled(
    path: str, fd: int, size: int | None, spool_dir: str | None, limit: int, hash_file: bool, cancel: Cancel
) -> ArchiveIndex:
    spool = _Spool(fd, spool_dir, size or 0, limit, hash_file, cancel)
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


class _Plain:
    """The headers of a tar that lies uncompressed in a regular file, read through a small window."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._size = size
        self._start = 0
        self._window = b""

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes at `offset`; fewer at the end."""
        at = offset - self._start
        if at < 0 or at + size > len(self._window):
            self._window = os.pread(self._fd, max(size, 16 << 10), offset)
            self._start, at = offset, 0
        return self._window[at : at + size]

    def has(self, end: int) -> bool:
        """Whether the tar reaches to `end`."""
        return end <= self._size


class _Spool:
    """A compressed or piped archive, decompressed into a nameless file as far as it is asked for."""

    def __init__(self, fd: int, folder: str | None, size: int, limit: int, hash_file: bool, cancel: Cancel) -> None:
        self._folder = folder or _temporary_folder()
        self._limit = limit
        self._next_check = 0
        self._sha = hashlib.sha256() if hash_file else None
        self.taken = 0
        self.size = 0
        source = self._source(fd, cancel)
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

    def _source(self, fd: int, cancel: Cancel) -> Iterator[bytes]:
        ready = select.poll()
        ready.register(fd, select.POLLIN)
        while True:
            cancel.check()
            # A pipe may stay silent for long: ask before reading, so that an interrupt is heard.
            while not ready.poll(200):
                cancel.check()
            data = os.read(fd, 256 << 10)
            if not data:
                return
            self.taken += len(data)
            if self._sha is not None:
                self._sha.update(data)
            yield data

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


def _read_members(index: ArchiveIndex, source: _Plain | _Spool, cancel: Cancel) -> None:
    """Fill `index.members`; stops at the end marker and reads nothing behind it."""
    offset = count = names = 0
    extended = _Extended()
    while True:
        header = source.read(offset, BLOCK)
        if not header.strip(b"\0"):
            if offset == 0:
                raise fault("not-a-tar", what="a file of zeros")
            # Some writers leave the end marker out; a header that was announced and does not come is another matter.
            if extended.pending:
                raise fault("archive-truncated", place=f"offset {offset}", detail="an extended header stands alone")
            index.end_marker = bool(header)
            return
        if len(header) < BLOCK:
            if offset == 0:
                raise not_a_tar(header, index.compression)
            raise fault("archive-truncated", place=f"offset {offset}", detail="a tar header is cut short")
        if not _checksum_fits(header):
            if offset == 0:
                raise not_a_tar(header, index.compression)
            raise fault("archive-corrupt", place=f"offset {offset}", detail="a tar header's checksum is wrong")
        flag = header[156:157]
        size = _number(header[124:136], offset)
        data = offset + BLOCK
        if flag in b"xgLK" and flag:
            extended.take(flag, size, source, data, offset)
            offset = data + _padded(size)
            continue
        count += 1
        if count > MAX_MEMBERS:
            raise fault("too-many-members", limit=MAX_MEMBERS)
        if count % 1024 == 0:
            cancel.check()
        name, target, size, sparse = extended.apply(header, size)
        kind = _KINDS.get(flag, "member of an unknown type")
        if flag in (b"\0", b"0") and name.endswith("/"):
            kind = "directory"
        if sparse:
            kind = "sparse file"
        if kind in ("hard link", "symbolic link", "character device", "block device", "directory", "fifo"):
            size = 0
        if not source.has(data + size):
            raise fault("archive-truncated", place=name, detail=f"{printable(name)} ends after the end of the file")
        names += len(name) + len(target)
        if names > MAX_NAMES:
            raise fault(
                "metadata-too-large",
                place=f"offset {offset}",
                name="the list of its members' names",
                size=format_size(names, beside=MAX_NAMES),
                limit=format_size(MAX_NAMES),
            )
        cleaned = clean_name(name)
        if cleaned is not None and not posixpath.basename(cleaned).startswith("._"):
            _add(index, Member(cleaned, kind, data, size, target))
        offset = data + _padded(size)
        extended = _Extended()


def _add(index: ArchiveIndex, member: Member) -> None:
    before = index.members.get(member.name)
    if before is not None and not before.kind == member.kind == "directory":
        index.duplicates.setdefault(member.name, [before]).append(member)
    index.members[member.name] = member


class _Extended:
    """The extended headers (pax, GNU long names) in front of one member, bounded together."""

    def __init__(self) -> None:
        self.pending = False
        self._bytes = 0
        self._values: dict[str, str] = {}

    def take(self, flag: bytes, size: int, source: _Plain | _Spool, data: int, offset: int) -> None:
        self._bytes += size + BLOCK
        if self._bytes > MAX_EXTENDED_HEADERS:
            raise fault("header-too-large", place=f"offset {offset}", limit=format_size(MAX_EXTENDED_HEADERS))
        raw = source.read(data, size)
        if len(raw) < size:
            raise fault("archive-truncated", place=f"offset {offset}", detail="an extended header is cut short")
        # A global pax header describes what follows in general (git archive writes one): it announces no member.
        self.pending = self.pending or flag != b"g"
        if flag == b"x":
            self._values.update(_pax(raw, offset))
        elif flag in b"LK":
            key = "path" if flag == b"L" else "linkpath"
            self._values[key] = _text(raw.split(b"\0", 1)[0])

    def apply(self, header: bytes, size: int) -> tuple[str, str, int, bool]:
        """Name, link target, size and sparseness of the member whose own header is `header`."""
        name = self._values.get("path")
        if name is None:
            name = _text(header[:100].split(b"\0", 1)[0])
            prefix = header[345:500].split(b"\0", 1)[0]
            if prefix and header[257:263] == b"ustar\0":
                name = _text(prefix) + "/" + name
        target = self._values.get("linkpath", "") or _text(header[157:257].split(b"\0", 1)[0])
        if "size" in self._values:
            text = self._values["size"]
            if not text.isascii() or not text.isdigit() or len(text) > 20:
                raise fault("archive-corrupt", place=name, detail="a pax size is no number")
            size = int(text)
        sparse = any(key.startswith("GNU.sparse.") for key in self._values)
        return name, target, size, sparse


def _pax(raw: bytes, offset: int) -> dict[str, str]:
    values = {}
    at = 0
    while at < len(raw) and raw[at]:
        space = raw.find(b" ", at, at + 12)
        length = raw[at:space]
        if space < 0 or not length.isdigit() or not (end := at + int(length)) <= len(raw) or end <= space:
            raise fault("archive-corrupt", place=f"offset {offset}", detail="a pax header is malformed")
        key, equals, value = raw[space + 1 : end - 1].partition(b"=")
        if not equals:
            raise fault("archive-corrupt", place=f"offset {offset}", detail="a pax header is malformed")
        values[_text(key)] = _text(value)
        at = end
    return values


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _padded(size: int) -> int:
    return (size + BLOCK - 1) // BLOCK * BLOCK


def _number(field_: bytes, offset: int) -> int:
    """An octal or base-256 number field; negative and absurd ones are damage."""
    if field_[0] & 0x80:
        value = int.from_bytes(field_, "big", signed=False) - (0x80 << 8 * (len(field_) - 1))
        if field_[0] == 0xFF or value >= 1 << 62:
            raise fault("archive-corrupt", place=f"offset {offset}", detail="a member's size is negative or absurd")
        return value
    digits = field_.split(b"\0", 1)[0].strip()
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        raise fault("archive-corrupt", place=f"offset {offset}", detail="a member's size is no octal number")
    return int(digits, 8)


def _checksum_fits(header: bytes) -> bool:
    stored = header[148:156].split(b"\0", 1)[0].strip()
    if not stored or stored.strip(b"01234567"):
        return False
    want = int(stored, 8)
    rest = header[:148] + header[156:]
    total = sum(rest) + 256
    # Some old writers summed signed bytes.
    return want == total or want == total - 256 * sum(byte > 127 for byte in rest)


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
