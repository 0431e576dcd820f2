"""Digests, and reading a range of a file in bounded chunks.

Source: OCI image specification, descriptor.md, "Digests". Only sha256 is taken: every producer of docker archives and the
registry layout use it.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import Cancelled

CHUNK = 1 << 20
"""Bytes of one read, and of one independently compressed block: part of what makes stored blobs reproducible."""

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A sha256 digest. `str()` gives `sha256:<64 hex>`."""

    hex: str

    @classmethod
    def parse(cls, text: object) -> Digest:
        """`sha256:<64 lower-case hex>` as a digest; ValueError for anything else."""
        match = _DIGEST.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ValueError(f"not a sha256 digest: {str(text)[:100]!r}")
        return cls(match[1])

    @classmethod
    def of(cls, data: bytes) -> Digest:
        return cls(hashlib.sha256(data).hexdigest())

    def __str__(self) -> str:
        return "sha256:" + self.hex


class Cancel(threading.Event):
    """Set by whoever wants the run to end; looked at between any two chunks."""

    def check(self) -> None:
        """Raise `Cancelled` when the run is to end."""
        if self.is_set():
            raise Cancelled("interrupted")


@dataclass(frozen=True, slots=True)
class Extent:
    """A range of an open file, read by position, so that many threads can share one descriptor."""

    fd: int
    offset: int
    size: int

    def read(self, size: int | None = None) -> bytes:
        """The first `size` bytes (all by default); EOFError when the file ends before."""
        want = self.size if size is None else min(size, self.size)
        parts = []
        done = 0
        while done < want:
            part = os.pread(self.fd, want - done, self.offset + done)
            if not part:
                raise EOFError("the file ends early")
            parts.append(part)
            done += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def chunks(self, cancel: Cancel) -> Iterator[bytes]:
        """The range in pieces of exactly `CHUNK` bytes, the last one shorter; EOFError when the file ends before."""
        for start in range(0, self.size, CHUNK):
            cancel.check()
            yield Extent(self.fd, self.offset + start, min(CHUNK, self.size - start)).read()


def hash_extent(extent: Extent, cancel: Cancel) -> Digest:
    """The digest of a range."""
    sha = hashlib.sha256()
    for chunk in extent.chunks(cancel):
        sha.update(chunk)
    return Digest(sha.hexdigest())
