"""`.dockerignore`: whether it excludes a name at the top of the build context. The last pattern that matches decides."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence


def excludes(lines: Sequence[str], name: str) -> bool:
    """Whether a file or folder at the top of the context is left out."""
    out = False
    for line in lines:
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        kept = pattern.startswith("!")
        pattern = pattern.lstrip("!").strip().strip("/").removeprefix("./").removeprefix("**/").removesuffix("/**")
        if fnmatch.fnmatchcase(name, pattern):
            out = not kept
    return out
