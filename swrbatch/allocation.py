"""How the process's memory is given back to the system: later."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3


def keep_memory() -> None:
    """Have freed memory used again, not given back and fetched anew for each block or batch.

    That took a sixth of an ingest's processor time, and a twentieth of an import's. What is asked for stays the same, and so do
    the bounds. Only glibc has such settings (mallopt(3)), and only for the whole process; elsewhere nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 64 << 20)
        libc.mallopt(_M_TOP_PAD, 16 << 20)
