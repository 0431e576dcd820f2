"""The files of layers by content: each distinct layer is read once, its regular files are hashed as they go by.

What is known of them lies in a Parquet file of a temporary folder, a row for each: however many there are, memory is bounded.
Empty files and sparse ones are left out, hard links too: they hold no bytes of their own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from ..digest import Cancel, Digest
from ..disk import disk_errors
from ..tar import BLOCK, TarSource
from .contents import PieceSource, tar_reader
from .tree import path_parts

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_PIECE: Final = 256 << 10
_ROWS: Final = 32 << 10  # rows that are held before they are written,
_NAMES: Final = 8 << 20  # or characters of their paths


class HashedSource:
    """The bytes of a tar, of which each member's data are hashed as they go by: `digest` is that of the last one.

    A `TarReader` reads a member's header, then asks whether its data are all there: what lies between is the data.
    """

    def __init__(self, source: TarSource, cancel: Cancel) -> None:
        self._source = source
        self._cancel = cancel
        self._data = 0
        self.digest = b""

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes at `offset`; fewer at the end."""
        self._data = offset + BLOCK
        return self._source.read(offset, size)

    def has(self, end: int) -> bool:
        """Whether the tar reaches to `end`."""
        sha = hashlib.sha256()
        for start in range(self._data, end, _PIECE):
            self._cancel.check()
            wanted = min(_PIECE, end - start)
            piece = self._source.read(start, wanted)
            if len(piece) < wanted:
                return False
            sha.update(piece)
        self.digest = sha.digest()
        return self._source.has(end)


class LayerFiles:
    """The files of the distinct layers of a batch, on disk. A context: the folder is gone at its end."""

    def __init__(self, cancel: Cancel, folder: str | None = None) -> None:
        self._cancel = cancel
        self._base = folder
        self._rows: list[tuple[int, bytes, int, str]] = []
        self._names = 0
        self._read: dict[Digest, int] = {}
        self._count = 0

    def __enter__(self) -> Self:
        import pyarrow.parquet as pq

        with disk_errors("no temporary folder can be made"):
            self._temporary = tempfile.TemporaryDirectory(prefix="swrbatch-dedupe-", dir=self._base)
        self.folder = self._temporary.name
        self.path = os.path.join(self.folder, "files.parquet")
        self._writer: pq.ParquetWriter = pq.ParquetWriter(self.path, _schema(), compression="zstd")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self._writer.close()
        self._temporary.cleanup()

    def __contains__(self, diff_id: Digest) -> bool:
        """Whether the layer was read."""
        return diff_id in self._read

    def number(self, diff_id: Digest) -> int:
        """The number of a layer that was read, in the rows."""
        return self._read[diff_id]

    def add(self, diff_id: Digest, source: TarSource) -> None:
        """Read a layer that was not read before. Raises the issues of `TarReader` and path-escape; its rows do not count then."""
        number = self._count = self._count + 1
        hashed = HashedSource(source, self._cancel)
        for member in tar_reader(hashed, self._cancel):
            if member.kind == "file" and member.size:
                path = "/".join(path_parts(member.name))
                self._rows.append((number, hashed.digest, member.size, path.encode("utf-8", "backslashreplace").decode()))
                self._names += len(path)
                if len(self._rows) >= _ROWS or self._names >= _NAMES:
                    self._write()
        self._read[diff_id] = number

    def add_pieces(self, diff_id: Digest, pieces: Iterator[bytes]) -> None:
        """The same for a tar that comes in pieces, which are read to their end."""
        source = PieceSource(pieces)
        self.add(diff_id, source)
        source.drain()

    def finish(self) -> None:
        """Write what is left: from now on the rows at `path` can be read."""
        self._write()
        with disk_errors("the list of files cannot be written"):
            self._writer.close()

    def _write(self) -> None:
        import pyarrow as pa

        columns = zip(*self._rows, strict=True) if self._rows else ([], [], [], [])
        data = pa.Table.from_arrays(
            [pa.array(column, field.type) for column, field in zip(columns, _schema(), strict=True)], schema=_schema()
        )
        self._rows.clear()
        self._names = 0
        with disk_errors("the list of files cannot be written"):
            self._writer.write_table(data)


def _schema() -> pa.Schema:
    import pyarrow as pa

    types = {"layer": pa.int64(), "digest": pa.binary(32), "size": pa.int64(), "path": pa.string()}
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()])
