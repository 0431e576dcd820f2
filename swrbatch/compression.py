"""Telling compressions apart by their magic bytes, reading them in bounded pieces, and writing reproducible blobs.

What this module guarantees:

* a decoder never yields more than `CHUNK` bytes at a time and never holds more than one window (128 MiB at most, the largest
  that `zstd --ultra` writes), however small the input; of those over 8 MiB, which only the highest levels write, a process has
  one at a time, however many threads decompress;
* an encoder's output depends on the input and on the library's version only, not on the number of threads: the input is cut
  into blocks of `CHUNK` bytes which are compressed independently, then joined in order (`ENCODERS`).

gzip is made of one member a block, zstd of one frame a block: both formats are defined as any number of them (RFC 1952, 2.2;
RFC 8878, 3), and every client reads them so.
Measured on two cores: isal level 1 reaches 380 MB/s a core at nearly the ratio of zlib level 6.
"""

from __future__ import annotations

import bz2
import enum
import lzma
import struct
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import IO, Any, Protocol, cast

import zstandard
from isal import isal_zlib

from .digest import CHUNK
from .sizes import format_size

_DECODE_ERRORS: Any = (
    OSError,
    EOFError,
    ValueError,
    MemoryError,
    lzma.LZMAError,
    isal_zlib.error,
)
_WINDOW = 128 << 20
_COMMON_WINDOW = 8 << 20
_XZ_OVERHEAD = 1 << 20
_INPUT = 64 << 10
_STORED = 32
_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_TOO_WIDE = f"its window is larger than {format_size(_WINDOW)}; it may be whole: compress it again with a smaller one"


class Compression(enum.StrEnum):
    """How a file or a layer is compressed, told by its content."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
    XZ = "xz"
    BZIP2 = "bzip2"


class CorruptData(ValueError):
    """Compressed data that cannot be read to its end."""


def sniff(head: bytes) -> Compression:
    """The compression of data that starts with `head` (6 bytes are enough)."""
    if head[:2] == b"\x1f\x8b":
        return Compression.GZIP
    if head[:4] == b"\x28\xb5\x2f\xfd" or (head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F):
        return Compression.ZSTD
    if head[:6] == b"\xfd7zXZ\x00":
        return Compression.XZ
    if head[:3] == b"BZh" and head[3:4].isdigit() and head[4:6] in (b"\x31\x41", b"\x17\x72"):
        return Compression.BZIP2
    return Compression.NONE


def decompress(kind: Compression, chunks: Iterable[bytes], *, padded: bool = False) -> Generator[bytes, None, None]:
    """The content of compressed `chunks` in pieces of at most `CHUNK` bytes (of `none`: the chunks as they are).

    Who does not read to the end must close it: it holds the decoder's window, and maybe the turn of a large one.

    Several members, frames or streams one after another are one content. `padded` allows zero bytes after the last one, as
    tapes and some uploaders leave them; a layer must not have them, since registry clients refuse to read it.

    Raises CorruptData for damaged, truncated or unknown data.
    """
    turn = _Turn()
    try:
        if kind is Compression.NONE:
            yield from chunks
        elif kind is Compression.ZSTD:
            yield from _decompress_zstd(chunks, turn)
        else:
            yield from _decompress_members(kind, turn, chunks, padded)
    finally:
        turn.end()


class _Turn:
    """The right to one large window; taken when a stream turns out to need it, kept to the stream's end."""

    _gate = threading.Lock()

    def __init__(self) -> None:
        self._mine = False

    def take(self) -> None:
        if not self._mine:
            self._gate.acquire()
            self._mine = True

    def end(self) -> None:
        if self._mine:
            self._mine = False
            self._gate.release()


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """isal's decoder with the interface of lzma and bz2: it keeps what it has not consumed itself."""

    def __init__(self) -> None:
        self._inner = isal_zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return bool(self._inner.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._inner.unused_data)

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        tail = self._inner.unconsumed_tail
        return bytes(self._inner.decompress(tail + data if tail else data, max_length))


class _Xz:
    """lzma's decoder; it starts with a common window, and again with a large one when that is too small."""

    def __init__(self, turn: _Turn) -> None:
        self._turn = turn
        self._inner = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_COMMON_WINDOW + _XZ_OVERHEAD)
        self._start: bytes | None = b""

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return self._inner.needs_input

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        if self._start is None:
            return self._inner.decompress(data, max_length)
        self._start += data
        try:
            piece = self._inner.decompress(data, max_length)
        except lzma.LZMAError as e:
            if not _lacks_memory(e):
                raise
            self._turn.take()
            self._inner = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_WINDOW + _XZ_OVERHEAD)
            piece, self._start = self._inner.decompress(self._start, max_length), None
        if piece:
            self._start = None
        return piece


def _lacks_memory(e: BaseException) -> bool:
    # liblzma's and libzstd's words for a window over the limit that was set.
    return isinstance(e, MemoryError) or "Memory usage limit" in str(e) or "too much memory" in str(e)


_DECODERS: dict[Compression, Callable[[_Turn], _Decoder]] = {
    Compression.GZIP: lambda turn: _Gzip(),
    Compression.XZ: _Xz,
    Compression.BZIP2: lambda turn: bz2.BZ2Decompressor(),
}


_MAGIC = {Compression.GZIP: b"\x1f\x8b", Compression.XZ: b"\xfd7zXZ\x00", Compression.BZIP2: b"BZh"}


def _decompress_members(kind: Compression, turn: _Turn, chunks: Iterable[bytes], padded: bool) -> Iterator[bytes]:
    decoder: _Decoder | None = None
    seen = False
    head = b""
    for chunk in chunks:
        # Small pieces keep the copy of what a decoder has not consumed yet small, whatever the ratio.
        for start in range(0, len(chunk), _INPUT):
            data = chunk[start : start + _INPUT]
            while data:
                if decoder is None:
                    if padded and seen and (data := data.lstrip(b"\0")) == b"":
                        break
                    decoder, head = _DECODERS[kind](turn), b""
                if len(head) < len(_MAGIC[kind]):
                    head += data[: len(_MAGIC[kind]) - len(head)]
                    if seen and not _MAGIC[kind].startswith(head):
                        raise CorruptData(f"what follows its end is no {kind} data")
                try:
                    piece = decoder.decompress(data, CHUNK)
                    while True:
                        if piece:
                            yield piece
                        if decoder.eof or (decoder.needs_input and len(piece) < CHUNK):
                            break
                        piece = decoder.decompress(b"", CHUNK)
                        if not piece and not decoder.eof:
                            break
                except _DECODE_ERRORS as e:
                    raise _corrupt(e) from e
                data = b""
                if decoder.eof:
                    data, decoder, seen = decoder.unused_data, None, True
    if decoder is not None or not seen:
        raise CorruptData("the compressed data ends early")


def _corrupt(e: Exception) -> CorruptData:
    return CorruptData(_TOO_WIDE if _lacks_memory(e) else str(e) or type(e).__name__)


class _Reader:
    """An iterator of chunks as an object with `read`, for zstandard."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = b""

    def read(self, size: int) -> bytes:
        if not self._rest:
            self._rest = next(self._chunks, b"")
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def _zstd_frames(turn: _Turn) -> Generator[int | None, bytes, None]:
    """Walks the frames of a zstd stream without decompressing.

    Yields how many bytes it wants (sent back), how many it skips (0 or less), or None at a frame's border. Takes its turn when a
    frame needs a large window; CorruptData when it needs too large a one. Source: RFC 8878, 3.1.
    """
    while True:
        yield None
        magic = yield 4
        if magic[1:] == b"\x2a\x4d\x18":
            yield -int.from_bytes((yield 4), "little")
            continue
        flags = (yield 1)[0]
        single_segment = bool(flags & 0x20)
        content_size = (1 if single_segment else 0, 2, 4, 8)[flags >> 6]
        dictionary = (0, 1, 2, 4)[flags & 3]
        if single_segment:
            yield -dictionary
            window = int.from_bytes((yield content_size), "little")
        else:
            exponent, mantissa = divmod((yield 1)[0], 8)
            window = (8 + mantissa) << exponent + 7
            yield -(dictionary + content_size)
        if window > _WINDOW:
            raise CorruptData(_TOO_WIDE)
        if window > _COMMON_WINDOW:
            turn.take()
        last = False
        while not last:
            header = int.from_bytes((yield 3), "little")
            last = bool(header & 1)
            # A block of repeated bytes has one byte of content, whatever its size.
            yield -(1 if (header >> 1) & 3 == 1 else header >> 3)
        yield -(4 if flags & 4 else 0)


def _checked_frames(chunks: Iterable[bytes], turn: _Turn) -> Iterator[bytes]:
    """Pass zstd data on; CorruptData at its end when a frame is cut short, which zstandard would not tell."""
    walk = _zstd_frames(turn)
    next(walk)
    want = next(walk)
    held = b""
    border = False
    for chunk in chunks:
        at = 0
        while at < len(chunk):
            assert want is not None
            if want <= 0:
                step = min(-want, len(chunk) - at)
                at, want = at + step, want + step
            else:
                piece = chunk[at : at + want - len(held)]
                at, held = at + len(piece), held + piece
                border = False
                if len(held) == want:
                    want, held = walk.send(held), b""
            while not want:
                border = want is None
                want = next(walk)
        yield chunk
    if not border or held:
        raise CorruptData("the compressed data ends early")


def _decompress_zstd(chunks: Iterable[bytes], turn: _Turn) -> Iterator[bytes]:
    reader = zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(
        cast(IO[bytes], _Reader(_checked_frames(chunks, turn))), read_size=_INPUT, read_across_frames=True
    )
    while True:
        try:
            piece = reader.read(CHUNK)
        except (zstandard.ZstdError, MemoryError) as e:
            raise _corrupt(e) from e
        if not piece:
            return
        yield piece


def _gzip_block(chunk: bytes) -> bytes:
    # At the start of a stream without a dictionary, isal (ISA-L up to 2.32) takes one hash from a register that holds an address:
    # one block of some thousands then lacks a match, or has one more, from process to process and from thread to thread. With a
    # dictionary it does not. So the first bytes of a block are stored as they are, and are the dictionary of the others.
    first, others = chunk[:_STORED], memoryview(chunk)[_STORED:]
    pieces = [_GZIP_HEADER, struct.pack("<BHH", not others, len(first), len(first) ^ 0xFFFF), first]
    if others:
        stream = isal_zlib.compressobj(level=1, wbits=-15, zdict=first)
        pieces += stream.compress(others), stream.flush()
    pieces.append(struct.pack("<II", isal_zlib.crc32(chunk), len(chunk)))
    return b"".join(pieces)


def _zstd_block(chunk: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(chunk)


def _plain_block(chunk: bytes) -> bytes:
    return chunk


ENCODERS: Mapping[Compression, Callable[[bytes], bytes]] = {
    Compression.NONE: _plain_block,
    Compression.GZIP: _gzip_block,
    Compression.ZSTD: _zstd_block,
}
"""What makes a block (`CHUNK` bytes, the last of a blob fewer) part of a blob: the blob is its blocks, encoded, in order."""


def reblock(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same content in pieces of exactly `CHUNK` bytes, the last one shorter."""
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) >= CHUNK:
            yield bytes(held[:CHUNK])
            del held[:CHUNK]
    if held:
        yield bytes(held)
