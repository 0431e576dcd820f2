"""Named points before and after each durable step, so that tests can stop the process at every one of them.

In production `point()` costs one comparison. A test sets `hook` in a forked child and kills it there; nothing else uses it.
"""

from __future__ import annotations

from collections.abc import Callable

hook: Callable[[str], None] | None = None


def point(name: str) -> None:
    """A write boundary called `name` (such as `blob:rename:before`)."""
    if hook is not None:
        hook(name)
