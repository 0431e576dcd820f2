"""A trace file made ready for DuckDB: hashed, decompressed into a plain file, and looked at. One bounded pass.

What DuckDB would read otherwise than the standard has it sends the file to the exact reader: other forms than one array or an
object a line, text that is not UTF-8, a comma before a closing bracket. So does what is no trace file: a digest file. Keys are
counted, so that `bulk` can tell whether DuckDB passed one over.
"""

from __future__ import annotations

import codecs
import contextlib
import mmap
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from ..compression import CorruptData
from ..digest import Cancel
from ..layout import disk_errors
from . import files
from .files import InputFile, source_of
from .traces import Source

if TYPE_CHECKING:
    import numpy as np

LARGEST: Final = 512 << 20
"""Bytes of JSON; a larger file is read record by record, for it would lie on the disk decompressed."""
_LONG_LINE: Final = 1 << 20
_WHITE: Final = b" \t\r\n"
_SPACE, _QUOTE, _COMMA, _COLON, _BACKSLASH, _BRACKET, _CLOSE, _BRACE = b' ",:\\[]}'
# What is looked at before a sign, and behind it.
_BACK, _AHEAD = 3, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A file that lies decompressed in `plain`: one array, or an object a line.

    `keys` and `strings` are the numbers of its keys, and of those whose value is a text; None where they cannot be counted.
    `flat`: no value is null, an object or an array.
    """

    number: int
    path: str
    source: Source
    plain: str
    format: str
    size: int
    keys: int | None
    strings: int | None
    flat: bool
    bytes: int
    modified_ns: int
    sha256: str
    md5: str


def prepare(number: int, path: str, name: str, work: str, cancel: Cancel) -> Prepared | None:
    """Decompress a file for DuckDB; None when it has to be read record by record.

    `number` is that of the file in the run; at most `LARGEST` bytes are written.
    """
    plain = os.path.join(work, f"{number:08}.json")
    look = _Look()
    try:
        with InputFile(path, cancel) as file, _created(plain) as out:
            for piece in file.pieces():
                if not look.at(piece):
                    break
                with disk_errors("a file cannot be decompressed"):
                    out.write(piece)
            sha256, md5 = file.hashes() if look.good else ("", "")
    except (CorruptData, OSError, UnicodeDecodeError):
        look.good = False
    kind = look.format() if look.good else None
    if kind is None or (look.loose and _odd(plain)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(plain)
        return None
    return Prepared(
        number=number,
        path=path,
        source=source_of(name),
        plain=plain,
        format=kind,
        size=look.size,
        keys=look.keys,
        strings=look.strings,
        flat=look.flat,
        bytes=file.size,
        modified_ns=file.modified_ns,
        sha256=sha256,
        md5=md5,
    )


def _created(path: str) -> BinaryIO:
    with disk_errors("a file cannot be decompressed"):
        return open(path, "wb")


class _Look:
    """What a file is like, told piece by piece."""

    def __init__(self) -> None:
        self.good = True
        self.size = 0
        self.keys: int | None = 0
        self.strings: int | None = 0
        self.flat = True
        self.loose = False
        """Whether white space before or behind a closing bracket may hide what DuckDB would not miss or mind, see `_odd`."""
        self._before = b" " * (_BACK + _AHEAD)
        self._head = b""
        self._last = b""
        self._line_seen = False
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._ascii = True

    def at(self, piece: bytes) -> bool:
        """Look at a piece; False when the file is not for DuckDB. UnicodeDecodeError where it is not UTF-8."""
        self.size += len(piece)
        self.good = self.size <= min(LARGEST, files.MAX_FILE) and len(self._head) <= _LONG_LINE
        if not self._ascii or not piece.isascii():
            self._ascii = False
            self._decoder.decode(piece)
        if not self._line_seen:
            self._head += piece
            self._line_seen = self._head.lstrip(codecs.BOM_UTF8 + _WHITE)[:1] != b"{" or b"\n" in piece
        self._count(self._before + piece)
        self._before = (self._before + piece[-(_BACK + _AHEAD) :])[-(_BACK + _AHEAD) :]
        self._last = piece.rstrip(_WHITE)[-1:] or self._last
        return self.good

    def _count(self, data: bytes) -> None:
        """Count the keys, but for the first signs, which were counted before, and the last ones, which come again."""
        import numpy as np

        signs = np.frombuffer(data, dtype=np.uint8)
        within = signs[_BACK:-_AHEAD]
        colons = np.flatnonzero(within == _COLON) + _BACK
        before = signs[colons - 1]
        quoted = colons[before == _QUOTE]
        escaped = signs[quoted - 2] == _BACKSLASH
        if (before <= _SPACE).any() or (signs[quoted[escaped] - 3] == _BACKSLASH).any():
            self.keys = self.strings = None
        elif self.keys is not None:
            self._values(signs, quoted[~escaped])
        closing = signs[np.flatnonzero((within | 0x20) == _BRACE) + _BACK - 1]
        self.good &= not (closing == _COMMA).any()
        self.loose |= bool((closing <= _SPACE).any())
        following = signs[np.flatnonzero(within == _CLOSE) + _BACK + 1]
        self.loose |= bool(((following <= _SPACE) | (following == _BRACE - 2) | (following == ord("n"))).any())

    def _values(self, signs: np.ndarray[Any, Any], keys: np.ndarray[Any, Any]) -> None:
        """Count keys by what their values begin with; `keys` are the places of their colons."""
        import numpy as np

        value = signs[keys + 1]
        value = np.where(value == _SPACE, signs[keys + 2], value)
        kinds = np.bincount(value, minlength=256)
        self.keys = (self.keys or 0) + len(keys)
        if kinds[: _SPACE + 1].any():
            self.strings = None
        if self.strings is not None:
            self.strings += int(kinds[_QUOTE])
        self.flat &= not (kinds[_BRACE - 2] or kinds[_BRACKET] or kinds[ord("n")])

    def format(self) -> str | None:
        """The form, as DuckDB calls it, once all pieces were looked at; None for others, and for text cut in a character."""
        self._count(self._before + b"~" * _AHEAD)
        try:
            self._decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return None
        head = self._head.removeprefix(codecs.BOM_UTF8).lstrip(_WHITE)
        if head[:1] == b"[":
            # DuckDB does not miss the last bracket where a comma is the last sign.
            return "array" if self._last == b"]" else None
        first, _, _ = head.partition(b"\n")
        if b'"digest_object"' in first and b'"log_files"' in first:
            # A digest file, which is for the exact reader.
            return None
        # An object that goes on in the next line is not one a line.
        return "newline_delimited" if head[:1] == b"{" and first.rstrip()[-1:] == b"}" else None


def _odd(path: str) -> bool:
    """A comma before a closing bracket; an object or null behind one, as in `[{}] {}`, which DuckDB takes for one more record."""
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return re.search(rb",[ \t\r\n]++[}\]]|\][ \t\r\n]*+(?:\{|null)", data) is not None
