"""Which programs an image starts, whoever starts them: the array itself, a shell, an init, the entrypoint script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from ..inspect.tree import TreeFile
from .shell import commands_of
from .view import SHELLS, ImageView

# They start what is named behind them.
_FORWARD: Final = frozenset({"tini", "dumb-init", "catatonit", "docker-init", "python", "python2", "python3", "exec"})


def started_names(view: ImageView) -> Iterator[tuple[str, str, str]]:
    """Name without its folder, keyword and place of each program that ENTRYPOINT and CMD start, shells looked into.

    Then those that the entrypoint script goes on as, with the script's path in place of the keyword.
    """
    script = entrypoint_script(view)
    places = {"ENTRYPOINT": "config.Entrypoint", "CMD": "config.Cmd"}
    if script is None and view.run.entrypoint and view.run.entrypoint[0].rpartition("/")[2] not in _FORWARD:
        del places["CMD"]  # only what the program is told: `rails init`
    for keyword, place in places.items():
        steps = view.build.stages[-1].steps
        step = next((step for step in reversed(steps) if step.keyword == keyword), None)
        for one in (step.commands or ()) if step is not None else ():
            yield _behind((one.name, *one.words)), keyword, place
    for one in (commands_of(script[2]) or ()) if script is not None else ():
        if "exec" in one.wrapped and script is not None:
            yield _behind((one.name, *one.words)), f"/{script[1].path}", script[1].path


def _behind(words: Sequence[str]) -> str:
    names = [word.rpartition("/")[2] for word in words if not word.startswith("-")]
    while len(names) > 1 and names[0] in _FORWARD:
        names.pop(0)
    return names[0] if names else ""


def entrypoint_script(view: ImageView) -> tuple[str, TreeFile, str] | None:
    """Place, file and text of the script that the container starts with; None if that is no script, or cannot be told."""
    run = view.run
    words, place = (run.entrypoint, "config.Entrypoint") if run.entrypoint else (run.cmd, "config.Cmd")
    if len(words) > 1 and words[0].rpartition("/")[2] in SHELLS and not words[1].startswith("-"):
        words = words[1:]
    found = view.find_program(words[0]) if words else None
    text = view.text_at(found.path) if isinstance(found, TreeFile) else None
    return (place, found, text) if isinstance(found, TreeFile) and text is not None else None
