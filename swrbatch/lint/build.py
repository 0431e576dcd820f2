"""What a Dockerfile builds: its stages, each step with the variables that hold there and the shell commands it runs.

Pure: the build context comes in as a value (`Context`), read by the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from .instructions import Dockerfile, Instruction
from .shell import Command, commands_of, plain_command
from .words import expand

# What BuildKit replaces variables in (frontend/dockerfile/instructions).
_EXPANDED: Final = frozenset(["ADD", "COPY", "ENV", "EXPOSE", "LABEL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"])
_PREDEFINED: Final = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY", "PATH")
_PLATFORM: Final = tuple(f"{side}{what}" for side in ("BUILD", "TARGET") for what in ("PLATFORM", "OS", "ARCH", "VARIANT"))
_SHELLS: Final = ("sh", "bash", "ash", "dash")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The folder that is built from: the lines of its .dockerignore (None: there is none), and how one of its files is read.

    `read` takes a path relative to the folder and gives its text, None if it is no small regular text file in there.
    """

    ignored: tuple[str, ...] | None
    read: Callable[[str], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """An instruction of a stage. `values` are its values with variables in place (None where one is unknown), `missing` the names
    of variables that nothing sets, `commands` the commands it runs (None: it is no shell, or did not parse)."""

    instruction: Instruction
    values: tuple[str | None, ...]
    missing: tuple[str, ...]
    commands: tuple[Command, ...] | None
    shell: bool

    @property
    def keyword(self) -> str:
        return self.instruction.keyword

    def line_of(self, command: Command) -> int:
        """The line where a command of this step starts."""
        body = _script_body(self.instruction)
        if body is not None:
            return body[1] + body[0][: command.offset].count("\n")
        return self.instruction.line_at(min(command.offset, max(0, len(self.instruction.text) - 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage: `base` is its image with ARG defaults in place (None: unknown), `parent` the earlier stage it starts from."""

    origin: Instruction
    name: str
    base: str | None
    missing: tuple[str, ...]
    parent: Stage | None
    steps: tuple[Step, ...]
    environment: MappingProxyType[str, str | None]

    def chain(self) -> Iterator[Stage]:
        """This stage, the one it starts from, and so on."""
        stage: Stage | None = self
        while stage is not None:
            yield stage
            stage = stage.parent

    def all_steps(self) -> list[Step]:
        """The steps of the chain, the first stage's first."""
        return [step for stage in reversed(list(self.chain())) for step in stage.steps]

    @property
    def root(self) -> str | None:
        """The image that the chain starts from."""
        return list(self.chain())[-1].base


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A Dockerfile ready for rules; `shipped` are the stages whose layers the built image has (the last one's chain)."""

    file: Dockerfile
    stages: tuple[Stage, ...]
    context: Context | None

    @property
    def final(self) -> Stage | None:
        return self.stages[-1] if self.stages else None

    @property
    def shipped(self) -> tuple[Stage, ...]:
        return tuple(self.final.chain()) if self.final else ()


def plan_build(file: Dockerfile, context: Context | None = None) -> Build:
    """The stages of a parsed Dockerfile."""
    arguments: dict[str, str | None] = dict.fromkeys((*_PREDEFINED, *(name.lower() for name in _PREDEFINED)))
    platform = dict.fromkeys(_PLATFORM)
    defaults: dict[str, str | None] = {}
    stages: list[Stage] = []
    groups: list[list[Instruction]] = []
    for found in file.instructions:
        if found.keyword == "FROM":
            groups.append([found])
        elif groups:
            groups[-1].append(found)
        elif found.keyword == "ARG":
            for pair in found.pairs:
                value = expand(pair.value, file.escape, {**platform, **defaults}).text if pair.value is not None else None
                defaults[pair.key] = value
    for group in groups:
        stages.append(_stage(group, file.escape, {**platform, **defaults}, arguments, stages))
    return Build(file=file, stages=tuple(stages), context=context)


def _stage(
    group: list[Instruction], escape: str, defaults: dict[str, str | None], predefined: dict[str, str | None], before: list[Stage]
) -> Stage:
    origin = group[0]
    base = expand(origin.values[0], escape, defaults) if origin.values else expand("", escape, {})
    parent = next((stage for stage in reversed(before) if stage.name and stage.name == (base.text or "").lower()), None)
    inherited: Mapping[str, str | None] = parent.environment if parent else {}
    set_here: dict[str, str | None] = {}
    shell = parent is None or all(step.shell for step in parent.steps[-1:])
    visible: dict[str, str | None] = {**predefined, **inherited}
    steps = []
    for found in group[1:]:
        if found.keyword == "SHELL" and found.values:
            shell = found.values[0].rpartition("/")[2] in _SHELLS
        steps.append(_step(found, escape, visible, shell))
        if found.keyword == "ARG":
            for pair in found.pairs:
                own = expand(pair.value, escape, visible).text if pair.value is not None else defaults.get(pair.key)
                visible.setdefault(pair.key, own)
        elif found.keyword == "ENV":
            added = {pair.key: expand(pair.value or "", escape, visible).text for pair in found.pairs}
            set_here.update(added)
            visible.update(added)
    return Stage(
        origin=origin,
        name=origin.values[2].lower() if len(origin.values) > 2 else "",
        base=base.text,
        missing=base.missing,
        parent=parent,
        steps=tuple(steps),
        # Shared with the stage that it starts from where nothing is added: stages may be many.
        environment=MappingProxyType({**inherited, **set_here}) if set_here or not parent else parent.environment,
    )


def _step(found: Instruction, escape: str, visible: Mapping[str, str | None], shell: bool) -> Step:
    values: tuple[str | None, ...] = found.values
    missing: tuple[str, ...] = ()
    if found.keyword in _EXPANDED:
        expanded = [expand(value, escape, visible) for value in found.values]
        values = tuple(one.text for one in expanded)
        missing = tuple(dict.fromkeys(name for one in expanded for name in one.missing))
    return Step(instruction=found, values=values, missing=missing, commands=_commands(found, shell), shell=shell)


def _script_body(found: Instruction) -> tuple[str, int] | None:
    """The script of a `RUN <<EOF` and its first line; None for any other form."""
    if len(found.heredocs) == 1 and found.keyword == "RUN" and found.text.startswith("<<") and len(found.text.split()) == 1:
        return found.heredocs[0].content, found.heredocs[0].line
    return None


def _commands(found: Instruction, shell: bool) -> tuple[Command, ...] | None:
    if found.keyword == "HEALTHCHECK":
        values = found.values[1:]
    elif found.keyword in ("RUN", "CMD", "ENTRYPOINT"):
        values = found.values
    else:
        return None
    if found.is_json:
        command = plain_command(values)
        inner = commands_of(values[2]) if command.name in _SHELLS and len(values) == 3 and values[1].endswith("c") else ()
        return (command, *(inner or ()))
    if not shell or not values:
        return None
    body = _script_body(found)
    if body is not None:
        first = body[0].partition("\n")[0]
        interpreter = first.removeprefix("#!").strip().rpartition("/")[2].removeprefix("env ").partition(" ")[0]
        return commands_of(body[0]) if not first.startswith("#!") or interpreter in _SHELLS else None
    documents = "".join(f"\n{document.content}{document.name}" for document in found.heredocs)
    return commands_of(values[0] + documents)
