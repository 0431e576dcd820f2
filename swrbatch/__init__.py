"""swrbatch: container image archives checked, loaded and audited in bulk, offline.

    from swrbatch import check_archives, import_archives, Store

The public names are loaded when they are first used, so that `import swrbatch` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .actors import current_actor
    from .batch import check_archives, import_archives
    from .batch_options import BatchOptions
    from .digest import Cancel
    from .errors import Issue, Refused, Severity, StoreError, SwrbatchError, UsageError
    from .export import export_images
    from .pipeline import PipelineResult, run_pipeline
    from .pipeline_file import Pipeline, read_pipeline
    from .store import Store
    from .sweep import collect_garbage
    from .sync import sync_stores
    from .tables import RunResult
    from .triggers import run_triggers

__version__ = "0.1.0"

__all__ = [
    "BatchOptions",
    "Cancel",
    "Issue",
    "Pipeline",
    "PipelineResult",
    "Refused",
    "RunResult",
    "Severity",
    "Store",
    "StoreError",
    "SwrbatchError",
    "UsageError",
    "__version__",
    "check_archives",
    "collect_garbage",
    "current_actor",
    "export_images",
    "import_archives",
    "read_pipeline",
    "run_pipeline",
    "run_triggers",
    "sync_stores",
]

_HOMES = {
    "BatchOptions": "batch_options",
    "Cancel": "digest",
    "Issue": "errors",
    "Pipeline": "pipeline_file",
    "PipelineResult": "pipeline",
    "Refused": "errors",
    "RunResult": "tables",
    "Severity": "errors",
    "Store": "store",
    "StoreError": "errors",
    "SwrbatchError": "errors",
    "UsageError": "errors",
    "check_archives": "batch",
    "collect_garbage": "sweep",
    "current_actor": "actors",
    "export_images": "export",
    "import_archives": "batch",
    "read_pipeline": "pipeline_file",
    "run_pipeline": "pipeline",
    "run_triggers": "triggers",
    "sync_stores": "sync",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'swrbatch' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
