"""Trace files, record by record: any envelope, any damage, bounded.

Envelopes: a JSON array (files in a bucket); objects one after another or one a line (pretty-printed samples, JSON lines); the
API's `{"traces": […], "meta_data": {…}}`; the function trigger's `{"cts": {…}}`. A digest file is told apart and never read as
traces.

One bad record costs that record: reading goes on at the next place that looks like the start of one. A truncated file, a
broken gzip stream or a bomb costs the tail. Bounds: `MAX_FILE` bytes uncompressed and `MAX_RECORDS` records a file,
`MAX_RECORD` characters and `MAX_DEPTH` levels a record, `MAX_WASTE` characters read in vain.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, NoReturn, Self

from ..compression import Compression, CorruptData, decompress, sniff
from ..digest import Cancel
from ..errors import StoreError, UsageError, printable
from .traces import MAX_DEPTH, TEXTS, Source, mended, too_deep

MAX_FILE: Final = 4 << 30
MAX_RECORDS: Final = 5_000_000
MAX_RECORD: Final = 16 << 20
MAX_WASTE: Final = 256 << 20
RAW_KEPT: Final = 4096
"""Characters of an unreadable record that are kept."""

SUFFIXES: Final = (".json", ".json.gz", ".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")
_DIGEST_FIELDS: Final = (
    *("project_id", "digest_start_time", "digest_end_time", "digest_bucket", "digest_object", "digest_signature_algorithm"),
    *("digest_end", "previous_digest_bucket", "previous_digest_object", "previous_digest_hash_value"),
    *("previous_digest_hash_algorithm", "previous_digest_signature", "previous_digest_end"),
    *("bucket", "object", "log_hash_value", "log_hash_algorithm"),
)
_READ: Final = 256 << 10
_SPACE: Final = re.compile(r"[\s,]*")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Record:
    """A readable trace and its position in its file, from 0."""

    position: int
    value: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reject:
    """What could not be read: `raw` is the beginning of its text."""

    position: int
    reason: str
    raw: str


@dataclass(frozen=True, slots=True)
class DigestFile:
    """A CTS digest file: it vouches for trace files and holds none."""

    value: dict[str, Any]

    @property
    def text(self) -> str:
        """What it says, as JSON in ASCII: its own fields only, so that whatever else stands in it is not kept."""
        listed = [_scalars(each) if isinstance(each, dict) else None for each in self.value["log_files"]]
        return json.dumps({**_scalars(self.value), "log_files": listed})


def _scalars(value: dict[str, Any]) -> dict[str, Any]:
    return {name: value[name] for name in _DIGEST_FIELDS if isinstance(value.get(name), str | bool)}


# --- which files -------------------------------------------------------------------------------------------------------


def find_files(paths: Sequence[str]) -> list[tuple[str, str]]:
    """The trace files that `paths` name (files, folders, globs) as (path, name relative to what was given), each once, sorted.

    A name is unique: where two folders hold files of the same name, theirs are the paths. UsageError for what names nothing,
    or neither a file nor a folder; StoreError for a folder that cannot be read.
    """
    import glob

    found: dict[str, str] = {}
    for given in paths:
        matches = sorted(glob.glob(given, recursive=True)) if not os.path.lexists(given) and glob.has_magic(given) else [given]
        if not matches or not os.path.lexists(matches[0]):
            raise UsageError(f"{printable(given)}: there is no such file or folder")
        for match in matches:
            for path, name in _below(match) if os.path.isdir(match) else [_named(match)]:
                found.setdefault(os.path.realpath(path), printable(name, 1024))
    count: dict[str, int] = {}
    for name in found.values():
        count[name] = count.get(name, 0) + 1
    named = [(path, name if count[name] == 1 else printable(path, 4096)) for path, name in found.items()]
    return sorted(named, key=lambda item: (item[1], item[0]))


def _named(path: str) -> tuple[str, str]:
    if os.path.exists(path) and not os.path.isfile(path):
        raise UsageError(f"{printable(path)}: neither a file nor a folder; write what it gives into a file first")
    return path, os.path.basename(path)


def _below(top: str) -> Iterator[tuple[str, str]]:
    for folder, folders, names in os.walk(top, onerror=_unreadable):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            # What is no regular file (a socket, a pipe) is no trace file either; a dangling link is told later.
            if name.lower().endswith(SUFFIXES) and not name.startswith(".") and (os.path.isfile(path) or os.path.islink(path)):
                yield path, os.path.relpath(path, top)


def _unreadable(e: OSError) -> NoReturn:
    raise StoreError(f"the folder {printable(e.filename)} cannot be read: {e.strerror}") from e


_KEY: Final = re.compile(
    r"(?:.*[_/])?CloudTrace(?:-Digest)?_(?P<where>[A-Za-z0-9_.-]+?)/?_"
    r"(?P<time>\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2}Z)(?:_[0-9A-Za-z]+)?\.json(?:\.gz)?",
    re.ASCII | re.DOTALL,
)
_FOLDER: Final = re.compile(r"(?:^|/)CloudTraces/([^/]+)/", re.ASCII)
_PROJECT: Final = re.compile(r"_.*|-[0-9a-f]{32}$", re.ASCII)


def source_of(name: str) -> Source:
    """What a file's key tells: region and upload time. The prefix may hold anything, so the name is read from the right.

    The region is that of the folder `CloudTraces/<region>`, else the region of the file's own `<region or region-project>`.
    """
    match = _KEY.fullmatch(name)
    folder = _FOLDER.search(name)
    region = folder[1] if folder else _PROJECT.sub("", match["where"]) if match else None
    if match is None:
        return Source(name=name, region=region)
    try:
        moment = datetime.datetime.strptime(match["time"], "%Y-%m-%dT%H-%M-%SZ").replace(tzinfo=datetime.UTC)
    except ValueError:
        return Source(name=name, region=region)
    return Source(name=name, region=region, uploaded=int(moment.timestamp()) * 1000)


# --- one file ----------------------------------------------------------------------------------------------------------


class InputFile:
    """One file, read once: what it is, its content, and its digest. OSError when it cannot be opened."""

    def __init__(self, path: str, cancel: Cancel) -> None:
        self._cancel = cancel
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by __exit__
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        state = os.fstat(self._file.fileno())
        if not stat.S_ISREG(state.st_mode):
            self._file.close()
            raise OSError(0, "not a regular file")
        self.size = state.st_size
        self.modified_ns = state.st_mtime_ns

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def chunks(self) -> Iterator[bytes]:
        """The bytes as they are; Cancelled when the run is to end, OSError when they cannot be read."""
        while data := self._file.read(_READ):
            self._cancel.check()
            self._sha256.update(data)
            self._md5.update(data)
            yield data

    def pieces(self) -> Iterator[bytes]:
        """The content, decompressed where it is gzip. CorruptData for damage, and for another compression."""
        chunks = self.chunks()
        head = next(chunks, b"")
        kind = sniff(head)
        if kind not in (Compression.NONE, Compression.GZIP):
            raise CorruptData(f"compressed with {kind}: only gzip is read")
        try:
            yield from decompress(kind, _chain(head, chunks), padded=True)
        except CorruptData as e:
            raise CorruptData(f"gzip: {e}") from e

    def records(self) -> Iterator[Record | Reject | DigestFile]:
        """The records, in order; bad content is a `Reject`, never an exception."""
        return _Records(self.pieces()).read()

    def hashes(self) -> tuple[str, str]:
        """SHA-256 and MD5 (which CTS's digest files name) of the whole file: what nobody has read yet is read now."""
        for _ in self.chunks():
            pass
        return self._sha256.hexdigest(), self._md5.hexdigest()


def read_file(path: str, cancel: Cancel) -> Iterator[Record | Reject | DigestFile]:
    """The records of one file, in order. Never raises for bad content; OSError when the file cannot be opened or read."""
    with InputFile(path, cancel) as file:
        yield from file.records()


def _chain(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from rest


# --- records -----------------------------------------------------------------------------------------------------------


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


DECODER: Final = json.JSONDecoder(parse_constant=_no_constant)
"""JSON as the standard has it: no NaN, no Infinity."""
_NEAR: Final = 16
_AHEAD: Final = 4096
_ENVELOPE: Final = re.compile(r'\{\s*(?:"meta_data"\s*:\s*\{[^{}]*\}\s*,\s*)?"traces"\s*:\s*\[')
_FIRST: Final = re.compile(r'\{\s*"([^"\\]{1,128})"\s*:')
_BORDER: Final = 256
_USED_UP: Final = 64 << 10
_DEEP: Final = 8192
_KNOWN: Final = frozenset({*TEXTS, "time", "record_time", "trace_rating", "trace_status", "code", "user", "read_only", "cts"})


class _Records:
    """The text of a file, decoded as far as needed, cut into records."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        # What is decoded and not used up yet is `_text[_at:]`.
        self._text = ""
        self._at = 0
        self._held = b""
        self._size = 0
        self._ended = False
        self._broken = ""
        self._cut = False
        self._position = 0
        self._waste = 0
        self._open: list[str] = []
        """What was opened and is not closed yet: `array`, `envelope` (in its `traces`), `tail` (behind them)."""
        self._firsts = set(_KNOWN)
        """Keys that a record of this file begins with: what tells the start of a record from that of an object inside of one."""

    def read(self) -> Iterator[Record | Reject | DigestFile]:
        self._more()
        self._text = self._text.removeprefix("\ufeff")
        while self._skip_space():
            if self._opens() or self._closes():
                continue
            for item in self._next():
                if self._position > MAX_RECORDS:
                    yield Reject(MAX_RECORDS, f"more than {MAX_RECORDS} records", "")
                    return
                yield item
            if self._waste > MAX_WASTE:
                yield Reject(self._position, "too much of it cannot be read: the rest is given up", self._kept())
                return
        if self._broken:
            yield Reject(self._position, self._broken, "")
        elif self._open and not self._cut:
            yield Reject(self._position, "the array is not closed: the file ends early", "")

    def _skip_space(self) -> bool:
        """Step over white space and commas; False at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text):
                return True
            if not self._more():
                return False

    def _opens(self) -> bool:
        """Step into an array, or into the traces of the API's envelope."""
        if self._text[self._at] == "[":
            self._at += 1
            self._open.append("array")
            return True
        if self._text[self._at] != "{":
            return False
        while len(self._text) - self._at < _AHEAD and self._more():
            pass
        match = _ENVELOPE.match(self._text, self._at)
        if match:
            self._at = match.end()
            self._open.append("envelope")
        return match is not None

    def _closes(self) -> bool:
        """Step out of what is open."""
        if not self._open:
            return False
        if self._open[-1] == "tail":
            return self._ends_envelope()
        if self._text[self._at] != "]":
            return False
        self._at += 1
        if self._open.pop() == "envelope":
            self._open.append("tail")
        return True

    def _ends_envelope(self) -> bool:
        """Step over what stands behind the traces of an envelope: `"meta_data": {…}}`."""
        self._open.pop()
        while True:
            try:
                _, end = DECODER.raw_decode("{" + self._text[self._at : self._at + MAX_RECORD])
            except (ValueError, RecursionError):
                if len(self._text) - self._at < MAX_RECORD and self._more():
                    continue
                return False
            self._at += end - 1
            return True

    def _next(self) -> Iterator[Record | Reject | DigestFile]:
        if self._at > _USED_UP:
            # An error of the decoder counts the lines before it.
            self._text, self._at = self._text[self._at :], 0
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._at)
            except RecursionError:
                self._waste += _DEEP
                yield self._resume(f"nested deeper than {MAX_DEPTH} levels")
                return
            except ValueError as e:
                unfinished = self._unfinished(e)
                if unfinished and len(self._text) - self._at <= MAX_RECORD and self._grow():
                    continue
                too_long = unfinished and len(self._text) - self._at > MAX_RECORD
                yield self._resume("longer than a record may be" if too_long else self._what(e))
                return
            # A number at the end of what was read may go on.
            if end == len(self._text) and not isinstance(value, dict | list) and self._more():
                continue
            if end - self._at > MAX_RECORD:
                yield self._resume("longer than a record may be")
                return
            raw, self._at = self._text[self._at : end], end
            yield from self._unwrap(value, raw)
            return

    def _what(self, e: ValueError) -> str:
        """An error with its place in the record."""
        return printable(f"{e.msg} at character {e.pos - self._at}" if isinstance(e, json.JSONDecodeError) else e)

    def _unfinished(self, e: ValueError) -> bool:
        """Whether what cannot be read might be readable if there were more of it; what was read in vain is counted."""
        if not isinstance(e, json.JSONDecodeError):
            self._waste += _NEAR
            return False
        unterminated = e.msg.startswith("Unterminated string")
        self._waste += (len(self._text) if unterminated else e.pos) - self._at
        return unterminated or e.pos >= len(self._text) - _NEAR

    def _grow(self) -> bool:
        """Read on until what is there has doubled, so that a long record is not tried again for every piece of it."""
        wanted = min(2 * (len(self._text) - self._at), MAX_RECORD + _NEAR)
        grown = self._more()
        while len(self._text) - self._at < wanted and self._more():
            pass
        return grown

    def _kept(self) -> str:
        return self._text[self._at : self._at + RAW_KEPT + 1]

    def _resume(self, reason: str) -> Reject:
        """Give up a record; go on at the next place that looks like the start of one."""
        while len(self._text) - self._at <= RAW_KEPT and self._more():
            pass
        kept = self._kept()
        if first := _FIRST.match(self._text, self._at):
            self._note_first(first[1])
        begun, after = self._at, self._at + 1
        while (at := self._start_of_next(after)) is None:
            # A little is kept, for the start may lie across two pieces.
            self._at = max(begun, len(self._text) - 2 * _BORDER)
            begun, after = begun - self._at, max(after, len(self._text) - _BORDER) - self._at
            if not self._more():
                # The file ends within this record: one reject says so.
                self._at, self._cut = len(self._text), True
                reason, self._broken = self._broken or reason, ""
                return self._reject(reason, kept)
        self._at = at
        return self._reject(reason, kept[: at - begun].rstrip(" \t\r\n,"))

    def _start_of_next(self, after: int) -> int | None:
        """Where the next record begins: with a key that records begin with, or a line, and not behind a colon as values do."""
        at = self._text.find("{", after)
        while at >= 0:
            first = _FIRST.match(self._text, at)
            before = self._text[max(0, at - _BORDER) : at]
            if first and (first[1] in self._firsts or before.endswith("\n")) and not before.rstrip().endswith(":"):
                return at
            at = self._text.find("{", at + 1)
        return None

    def _note_first(self, key: str) -> None:
        if len(self._firsts) < 64:
            self._firsts.add(key)

    def _unwrap(self, value: Any, raw: str) -> Iterator[Record | Reject | DigestFile]:
        if isinstance(value, dict):
            if isinstance(value.get("log_files"), list) and "digest_object" in value:
                yield DigestFile(value)
                return
            if isinstance(value.get("traces"), list) and "trace_id" not in value:
                # Where no byte is bad, lone surrogates are escapes, and those are mended.
                whole = not _SURROGATE.search(raw)
                for each in value["traces"]:
                    yield self._record(without_surrogates(each) if whole else each, None)
                return
            if value:
                self._note_first(next(iter(value)))
        yield self._record(value, raw)

    def _record(self, value: Any, raw: str | None) -> Record | Reject:
        item = record_of(value, json.dumps(value, ensure_ascii=False) if raw is None else raw, self._position)
        self._position += 1
        return item

    def _reject(self, reason: str, raw: str) -> Reject:
        reject = Reject(self._position, reason, printable(raw, RAW_KEPT))
        self._position += 1
        return reject

    def _more(self) -> bool:
        """Read on; False at the end of the file, of what its compression holds, or of what a file may hold."""
        if self._ended:
            return False
        try:
            piece = next(self._pieces, None)
        except CorruptData as e:
            self._ended, self._broken = True, printable(e)
            return self._take(self._held, 0)
        if piece is None:
            self._ended = True
            return self._take(self._held, 0)
        room = MAX_FILE - self._size
        self._size += len(piece)
        if self._size > MAX_FILE:
            self._ended, self._broken = True, f"more than {MAX_FILE} bytes uncompressed"
            return self._take(self._held + piece[:room], 0)
        data = self._held + piece
        # A character may lie across two pieces: its first bytes wait.
        return self._take(data, next((n for n in range(1, 4) if len(data) >= n and data[-n] >= 0xC0), 0)) or self._more()

    def _take(self, data: bytes, held: int) -> bool:
        """Append decoded text, but for the last `held` bytes; whether there was any."""
        end = len(data) - held
        self._held = data[end:]
        if end:
            self._text, self._at = self._text[self._at :] + data[:end].decode("utf-8", "surrogateescape"), 0
        return end > 0


def record_of(value: Any, raw: str, position: int) -> Record | Reject:
    """A decoded JSON value, whose text is `raw`, as a record; the function trigger's envelope is taken off."""
    if isinstance(value, dict) and isinstance(value.get("cts"), dict) and "trace_id" not in value:
        value = value["cts"]
    reason = ""
    if not isinstance(value, dict):
        reason = "not a JSON object"
    elif _SURROGATE.search(raw):
        reason = "not UTF-8"
    elif too_deep(value, raw):
        reason = f"nested deeper than {MAX_DEPTH} levels"
    if reason:
        return Reject(position, reason, printable(raw, RAW_KEPT))
    return Record(position, without_surrogates(value) if "\\u" in raw else value)


def without_surrogates(value: Any) -> Any:
    """The value with lone surrogates (escapes such as \\ud800) mended."""
    text = json.dumps(value, ensure_ascii=False)
    return json.loads(mended(text)) if _SURROGATE.search(text) else value
