"""Reading a store's blobs for others: in bounded pieces, hashed on the way, so that what is damaged is never passed on as whole.

A blob may have been changed since it was loaded (a disk, another program): whoever takes the pieces learns it at the latest with
the last one, as a `StoreError`, and must not use what came before.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator

from .compression import CorruptData, decompress, sniff
from .digest import Cancel, Digest, Extent
from .errors import StoreError
from .image import Descriptor
from .store import Store


class BlobReader:
    """Reads the blobs of a store. `name` is what the messages call the image that a blob belongs to."""

    def __init__(self, store: Store, cancel: Cancel) -> None:
        self._store = store
        self._cancel = cancel

    def stored(self, blob: Descriptor, name: str) -> Iterator[bytes]:
        """The bytes of a blob as they are stored; `StoreError` when it is missing, damaged or cannot be read."""
        with self._open(blob, name) as extent:
            yield from self._hashed(extent, blob, name)

    def content(self, layer: Descriptor, diff_id: Digest, name: str) -> Iterator[bytes]:
        """The uncompressed tar of a layer; `StoreError` when the blob is missing or damaged, or its content is not `diff_id`."""
        with self._open(layer, name) as extent:
            raw = self._hashed(extent, layer, name)
            sha = hashlib.sha256()
            try:
                kind = sniff(extent.read(6))
                with contextlib.closing(decompress(kind, raw)) as pieces:
                    for piece in pieces:
                        self._cancel.check()
                        sha.update(piece)
                        yield piece
            except CorruptData as e:
                raise self._unusable(layer, name, f"is damaged ({e})") from e
            for _ in raw:  # a decoder need not read to the end
                pass
        if sha.hexdigest() != diff_id.hex:
            raise self._unusable(layer, name, f"is damaged: its content is sha256:{sha.hexdigest()}, not {diff_id}")

    def _hashed(self, extent: Extent, blob: Descriptor, name: str) -> Iterator[bytes]:
        sha = hashlib.sha256()
        try:
            for chunk in extent.chunks(self._cancel):
                sha.update(chunk)
                yield chunk
        except (EOFError, OSError) as e:
            raise self._unusable(blob, name, f"cannot be read ({e})") from e
        if sha.hexdigest() != blob.digest.hex:
            raise self._unusable(blob, name, "is damaged")

    @contextlib.contextmanager
    def _open(self, blob: Descriptor, name: str) -> Iterator[Extent]:
        try:
            fd = os.open(self._store.layout.blob_path(blob.digest), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as e:
            raise self._unusable(blob, name, "is missing") from e
        except OSError as e:
            raise self._unusable(blob, name, f"cannot be read ({e.strerror})") from e
        try:
            state = os.fstat(fd)
            if not stat.S_ISREG(state.st_mode) or state.st_size != blob.size:
                raise self._unusable(blob, name, f"is damaged: it has {state.st_size} bytes, not {blob.size}")
            yield Extent(fd, 0, blob.size)
        finally:
            os.close(fd)

    def _unusable(self, blob: Descriptor, name: str, what: str) -> StoreError:
        told = f"the blob {blob.digest} of {name} {what} in {self._store.path}"
        return StoreError(f"{told}: import the image's archive again (see swrbatch verify --deep --repair)")
