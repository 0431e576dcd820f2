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
from ..disk import disk_errors
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
_BLOCK: Final = 256 << 10
"""Signs that are looked at together: so few that all that is found of them stays in the processor's own memory."""


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
        import numpy as np

        self.good = True
        self.size = 0
        self.keys: int | None = 0
        self.strings: int | None = 0
        self.flat = True
        self.loose = False
        """Whether white space before or behind a closing bracket may hide what DuckDB would not miss or mind, see `_odd`."""
        self._before = b" " * (_BACK + _AHEAD)
        # Made once: new memory for each block costs more than what is done with it.
        self._signs = np.empty(len(self._before) + _BLOCK, dtype=np.uint8)
        self._found = np.empty(_BLOCK, dtype=bool)
        self._folded = np.empty(_BLOCK, dtype=np.uint8)
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
        view = memoryview(piece)
        for begin in range(0, len(piece), _BLOCK):
            self._count(view[begin : begin + _BLOCK])
        self._last = (piece if piece[-1:] in _WHITE else piece[-1:]).rstrip(_WHITE)[-1:] or self._last
        return self.good

    def _count(self, block: memoryview | bytes) -> None:
        """Count the keys before the last signs, which come again."""
        import numpy as np

        carried = len(self._before)
        signs = self._signs[: carried + len(block)]
        signs[:carried] = np.frombuffer(self._before, dtype=np.uint8)
        signs[carried:] = np.frombuffer(block, dtype=np.uint8)
        self._before = signs[-carried:].tobytes()
        within = signs[_BACK:-_AHEAD]
        found, folded = self._found[: len(within)], self._folded[: len(within)]
        colons = np.flatnonzero(np.equal(within, _COLON, out=found)) + _BACK
        before = signs[colons - 1]
        quoted = colons[before == _QUOTE]
        escaped = signs[quoted - 2] == _BACKSLASH
        if (before <= _SPACE).any() or (signs[quoted[escaped] - 3] == _BACKSLASH).any():
            self.keys = self.strings = None
        elif self.keys is not None:
            self._values(signs, quoted[~escaped])
        # Closing brackets of both kinds: they differ in one bit.
        closing = np.flatnonzero(np.equal(np.bitwise_or(within, 0x20, out=folded), _BRACE, out=found)) + _BACK
        before = signs[closing - 1]
        self.good &= not (before == _COMMA).any()
        self.loose |= bool((before <= _SPACE).any())
        following = signs[closing[signs[closing] == _CLOSE] + 1]
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
        self._count(b"~" * _AHEAD)
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
