"""A tar's members in order, from any source of its bytes: the archive itself, or a layer inside it. No policy here.

Extended headers (pax, GNU long names) are bounded before they are read, and so are the members and their names.
Sources: POSIX ustar and pax, GNU tar's manual ("Tar Internals").
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from .digest import Cancel, Extent
from .errors import ArchiveFault, fault, printable
from .sizes import format_size

BLOCK: Final = 512
MAX_EXTENDED_HEADERS: Final = 1 << 20

_WINDOW: Final = 16 << 10
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


_WITHOUT_DATA: Final = {"hard link", "symbolic link", "character device", "block device", "directory", "fifo"}


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a tar. `offset` and `size` are the data's, in bytes; `target` is a link's, `mode` the field, as written."""

    name: str
    kind: str
    offset: int
    size: int
    target: str = ""
    mode: bytes = b""

    @property
    def executable(self) -> bool:
        """Whether anybody may execute it; True where the header does not tell."""
        digits = self.mode.strip(b"\0 ")
        return not digits or digits.strip(b"01234567") != b"" or bool(int(digits, 8) & 0o111)


class TarSource(Protocol):
    """The bytes of a tar, read forwards: an offset is never before the one of an earlier call."""

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes at `offset`; fewer at the end."""
        ...

    def has(self, end: int) -> bool:
        """Whether the tar reaches to `end`."""
        ...


Look = Callable[[Member, Callable[[int], bytes]], object]
"""Called with each member before its data go by: the function gives up to so many bytes of them."""


class PlainSource:
    """The headers of a tar that lies uncompressed in a range of a regular file, read through a small window."""

    def __init__(self, extent: Extent) -> None:
        self._fd = extent.fd
        self._base = extent.offset
        self._size = extent.size
        self._start = 0
        self._window = b""

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes at `offset`; fewer at the end."""
        at = offset - self._start
        if at < 0 or at + size > len(self._window):
            self._window = os.pread(self._fd, min(max(size, _WINDOW), max(0, self._size - offset)), self._base + offset)
            self._start, at = offset, 0
        return self._window[at : at + size]

    def has(self, end: int) -> bool:
        """Whether the tar reaches to `end`."""
        return end <= self._size


@dataclass(frozen=True, slots=True, kw_only=True)
class TarBounds:
    """How much of a tar is read: its members, and the characters of all their names and link targets together."""

    members: int
    names: int


class TarReader:
    """The members of a tar, their names as written, up to its end marker; nothing behind it is read.

    `bad_start` makes the fault for a first block that is no header; `look` sees the data of what it chooses. `end_marker` and
    `empty` (no header at all) are known at the end. Raises the issues archive-truncated, archive-corrupt, header-too-large,
    too-many-members, metadata-too-large.
    """

    def __init__(
        self,
        source: TarSource,
        bounds: TarBounds,
        bad_start: Callable[[bytes], ArchiveFault],
        cancel: Cancel,
        look: Look | None = None,
    ) -> None:
        self._source = source
        self._bounds = bounds
        self._bad_start = bad_start
        self._cancel = cancel
        self._look = look
        self.end_marker = False
        self.empty = True

    def __iter__(self) -> Iterator[Member]:
        source = self._source
        offset = count = names = 0
        extended = _Extended()
        while header := self._header(offset, extended):
            self.empty = False
            flag = header[156:157]
            size = _number(header[124:136], offset)
            data = offset + BLOCK
            if flag in b"xgLK" and flag:
                extended.take(flag, size, source, data, offset)
                offset = data + _padded(size)
                continue
            count += 1
            if count > self._bounds.members:
                raise fault("too-many-members", limit=self._bounds.members)
            if count % 1024 == 0:
                self._cancel.check()
            member = extended.member(header, size, data)
            if self._look is not None:
                self._look(member, partial(self._data, member))
            if not source.has(data + member.size):
                name = member.name
                raise fault("archive-truncated", place=name, detail=f"{printable(name)} ends after the end of the file")
            names += len(member.name) + len(member.target)
            if names > self._bounds.names:
                raise self._long_names(names, offset)
            yield member
            offset = data + _padded(member.size)
            extended = _Extended()

    def _data(self, member: Member, size: int) -> bytes:
        return self._source.read(member.offset, min(size, member.size))

    def _header(self, offset: int, extended: _Extended) -> bytes:
        """The header at `offset`, its checksum checked; empty at the end of the tar."""
        header = self._source.read(offset, BLOCK)
        if not header.strip(b"\0"):
            # Some writers leave the end marker out; a header that was announced and does not come is another matter.
            if extended.pending:
                raise fault("archive-truncated", place=f"offset {offset}", detail="an extended header stands alone")
            self.end_marker = bool(header)
            return b""
        if len(header) < BLOCK:
            if offset == 0:
                raise self._bad_start(header)
            raise fault("archive-truncated", place=f"offset {offset}", detail="a tar header is cut short")
        if not _checksum_fits(header):
            if offset == 0:
                raise self._bad_start(header)
            raise fault("archive-corrupt", place=f"offset {offset}", detail="a tar header's checksum is wrong")
        return header

    def _long_names(self, names: int, offset: int) -> ArchiveFault:
        limit = self._bounds.names
        size = format_size(names, beside=limit)
        name = "the list of its members' names"
        return fault("metadata-too-large", place=f"offset {offset}", name=name, size=size, limit=format_size(limit))


class _Extended:
    """The extended headers (pax, GNU long names) in front of one member, bounded together."""

    def __init__(self) -> None:
        self.pending = False
        self._bytes = 0
        self._values: dict[str, str] = {}

    def take(self, flag: bytes, size: int, source: TarSource, data: int, offset: int) -> None:
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

    def member(self, header: bytes, size: int, data: int) -> Member:
        """The member whose own header is `header`; its data begin at `data`."""
        flag = header[156:157]
        name, target, size, sparse = self.apply(header, size)
        kind = _KINDS.get(flag, "member of an unknown type")
        if flag in (b"\0", b"0") and name.endswith("/"):
            kind = "directory"
        if sparse:
            kind = "sparse file"
        return Member(name, kind, data, 0 if kind in _WITHOUT_DATA else size, target, header[100:108])

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
