"""swrbatch: container image archives checked, loaded and audited in bulk, offline.

    from swrbatch import check_archives, import_archives, Store

The public names are loaded when they are first used, so that `import swrbatch` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batch import BatchOptions, check_archives, import_archives
    from .digest import Cancel
    from .errors import Issue, Severity, StoreError, SwrbatchError, UsageError
    from .store import Store
    from .tables import RunResult

__version__ = "0.1.0"

__all__ = [
    "BatchOptions",
    "Cancel",
    "Issue",
    "RunResult",
    "Severity",
    "Store",
    "StoreError",
    "SwrbatchError",
    "UsageError",
    "__version__",
    "check_archives",
    "import_archives",
]

_HOMES = {
    "BatchOptions": "batch",
    "Cancel": "digest",
    "Issue": "errors",
    "RunResult": "tables",
    "Severity": "errors",
    "Store": "store",
    "StoreError": "errors",
    "SwrbatchError": "errors",
    "UsageError": "errors",
    "check_archives": "batch",
    "import_archives": "batch",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'swrbatch' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
