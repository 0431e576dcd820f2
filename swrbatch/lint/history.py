"""The history of an image read as the Dockerfile that made it, so that the rules on Dockerfiles hold for images too.

CMD, ENTRYPOINT, HEALTHCHECK, EXPOSE, USER, VOLUME, LABEL and the last ENV are taken from the config: history may tell of older ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ..inspect.images import RunSettings
from .build import Build, plan_build
from .instructions import Dockerfile, Flag, Instruction, Pair
from .steps import History, Step

_FROM_HISTORY: Final = ("RUN", "COPY", "ADD", "ARG", "ENV", "WORKDIR", "MAINTAINER", "VOLUME")


def _instruction(keyword: str, line: int, text: str, values: Sequence[str], **more: Any) -> Instruction:
    fields: dict[str, Any] = {
        "flags": (), "is_json": False, "pairs": (), "legacy_pair": False, "heredocs": (), "trigger": None, "comments": (),
    }  # fmt: skip
    return Instruction(
        keyword=keyword, line=line, end_line=line, raw=text, text=text, values=tuple(values), starts=((0, line),), **fields | more
    )


def as_instruction(step: Step, line: int) -> Instruction | None:
    """A step as an instruction of a Dockerfile; None for one that says nothing there."""
    if step.keyword not in _FROM_HISTORY or not step.text:
        return None
    if step.keyword == "RUN":
        return _instruction("RUN", line, step.text, step.words or (step.text,), is_json=bool(step.words))
    if step.keyword in ("ENV", "ARG"):
        values = [text for pair in step.pairs for text in (pair.key, pair.value or "")]
        return _instruction(step.keyword, line, step.text, [text.replace("$", "\\$") for text in values], pairs=step.pairs)
    if step.keyword in ("COPY", "ADD"):
        return _copy(step, line)
    words = step.text.strip("[]").split() if step.keyword == "VOLUME" else [step.text]
    return _instruction(step.keyword, line, step.text, words)


def _copy(step: Step, line: int) -> Instruction:
    words = step.text.split()
    flags = tuple(Flag(name=name, value=value) for name, _, value in (w[2:].partition("=") for w in words if w.startswith("--")))
    values = [word for word in words if not word.startswith("--")]
    # BuildKit leaves --from out; what lies at an absolute path comes from another stage.
    if values and values[0].startswith("/") and not any(flag.name == "from" for flag in flags):
        flags = (*flags, Flag(name="from", value="stage"))
    if not step.given and values[0].startswith("dir:"):
        values[0] = "."
    return _instruction(step.keyword, line, step.text, values, flags=flags)


def _from_config(
    run: RunSettings,
) -> list[tuple[str, str, Sequence[str], dict[str, Any]]]:
    """Keyword, place, values and more of each instruction that the config stands for."""
    found: list[tuple[str, str, Sequence[str], dict[str, Any]]] = []
    if run.shell:
        found.append(("SHELL", "config.Shell", run.shell, {"is_json": True}))
    if run.labels:
        found.append(("LABEL", "config.Labels", [text for pair in run.labels for text in pair], {}))
    if run.env:
        pairs = tuple(Pair(key=key, value=value) for key, value in run.env)
        found.append(("ENV", "config.Env", [text for pair in run.env for text in pair], {"pairs": pairs}))
    if run.working_dir:
        found.append(("WORKDIR", "config.WorkingDir", [run.working_dir], {}))
    for keyword, place, values in (
        ("VOLUME", "config.Volumes", run.volumes),
        ("EXPOSE", "config.ExposedPorts", run.exposed_ports),
        ("USER", "config.User", (run.user,) if run.user else ()),
    ):
        if values:
            found.append((keyword, place, values, {}))
    if run.healthcheck[:1] == ("CMD",):
        found.append(("HEALTHCHECK", "config.Healthcheck", run.healthcheck, {"is_json": True}))
    elif run.healthcheck:
        kind = "CMD" if run.healthcheck[0] == "CMD-SHELL" else run.healthcheck[0]
        found.append(("HEALTHCHECK", "config.Healthcheck", (kind, *run.healthcheck[1:]), {}))
    for keyword, place, words in (("ENTRYPOINT", "config.Entrypoint", run.entrypoint), ("CMD", "config.Cmd", run.cmd)):
        if words:
            shell = run.shell or ("/bin/sh", "-c")
            written = len(words) == len(shell) + 1 and words[:-1] == shell
            found.append((keyword, place, words[-1:] if written else words, {"is_json": not written}))
    return found


def build_of(history: History, run: RunSettings, base_steps: int, base: str) -> tuple[Build, tuple[Step | str, ...]]:
    """The image as a build of two stages, its base's and its own, and what each line of it (from 0) stands for.

    That is a step of the history, or a place in the config; "" for the lines that are neither.
    """
    lines: list[Step | str] = [""]
    instructions = [_instruction("FROM", 1, base, (base, "AS", "base"))]

    def add(made: Instruction | None, stands_for: Step | str) -> None:
        lines.append(stands_for)
        if made is not None:
            instructions.append(made)

    for step in history.steps[:base_steps]:
        add(as_instruction(step, len(lines) + 1), step)
    add(_instruction("FROM", len(lines) + 1, "base", ("base",)), "")
    for step in history.steps[base_steps:]:
        add(as_instruction(step, len(lines) + 1), step)
    for keyword, place, values, more in _from_config(run):
        text = " ".join(values)
        escaped = [value.replace("\\", "\\\\").replace("$", "\\$") for value in values]
        kept = values if keyword in ("CMD", "ENTRYPOINT", "HEALTHCHECK", "SHELL") else escaped
        add(_instruction(keyword, len(lines) + 1, text, kept, **more), place)
    file = Dockerfile(escape="\\", syntax=None, instructions=tuple(instructions), faults=(), comments=())
    return plan_build(file), tuple(lines)
