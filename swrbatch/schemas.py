"""Where the data files of `schemas/` are found: in the package of a wheel, or beside the package in a checkout.

An editable install leaves a stale copy in site-packages, so the folder is looked for from this file's own place.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from .errors import StoreError


def schema_path(name: str) -> Path:
    """The path of `schemas/<name>`."""
    here = Path(__file__).resolve().parent
    for folder in (here / "schemas", here.parent / "schemas"):
        if (folder / name).is_file():
            return folder / name
    raise StoreError(f"the installation is incomplete: schemas/{name} is missing; install swrbatch again")


@functools.cache
def validator(name: str) -> Any:
    """A jsonschema validator for `schemas/<name>`."""
    import jsonschema

    return jsonschema.Draft202012Validator(json.loads(schema_path(name).read_text(encoding="utf-8")))
