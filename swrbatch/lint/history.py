"""The history of an image read as the Dockerfile that made it, so that the rules on Dockerfiles hold for images too.

Forms (OCI image specification, config.md, says only that the text is free): the classic builder and buildah write
`/bin/sh -c #(nop) X` for instructions and `[|N K=V ...] /bin/sh -c ...` for RUN; BuildKit writes instructions as they are, RUN, COPY
and ADD with `# buildkit` behind. What has another form (debuerreotype, Bazel, Jib) is kept as a step that says nothing.

CMD, ENTRYPOINT, HEALTHCHECK, EXPOSE, USER, VOLUME, LABEL and the last ENV are taken from the config: history may tell of older ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from ..inspect.images import RunSettings
from .build import Build, plan_build
from .instructions import Dockerfile, Flag, Instruction, Pair

MAX_STEP: Final = 1 << 16
"""Characters of a step that are read."""
_NOP: Final = re.compile(r"(?:\|\d+ .*)?/bin/sh -c #\(nop\)\s*(.*)", re.DOTALL)
_SHELL_RUN: Final = re.compile(r"(?:\S*/)?(sh|bash|ash|dash)((?: -\w+| pipefail)*?) -\w*c (.*)", re.DOTALL)
_ARGUMENTS: Final = re.compile(r"\|(\d{1,4}) ")
_INSTRUCTION: Final = re.compile(
    r"(ADD|ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|HEALTHCHECK|LABEL|MAINTAINER|ONBUILD|RUN|SHELL|STOPSIGNAL|USER|VOLUME|WORKDIR)\s+(.*)",
    re.DOTALL,
)
_KEY: Final = re.compile(r"(?:^|\s)([A-Za-z_][A-Za-z0-9_]*)=")
_COPIED: Final = re.compile(r"((?:file|dir|multi):[0-9a-f]{64}) in (.*)", re.DOTALL)
_FROM_HISTORY: Final = ("RUN", "COPY", "ADD", "ARG", "ENV", "WORKDIR", "MAINTAINER", "VOLUME")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """An entry of the history: `layer` is the layer it made (None: none, or that cannot be told).

    `keyword` is the instruction, "" for another form; `text` what follows it, without build arguments, which are in `arguments`.
    `given` is False for sources that the classic builder replaced by a hash; `words` are those of a RUN without a shell.
    """

    position: int
    layer: int | None
    keyword: str
    text: str
    arguments: tuple[Pair, ...] = ()
    words: tuple[str, ...] = ()
    given: bool = True

    @property
    def place(self) -> str:
        return f"history[{self.position}]"

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Names and values of ENV and ARG."""
        return _pairs(self.text) if self.keyword in ("ENV", "ARG") else ()


@dataclass(frozen=True, kw_only=True)
class History:
    """The steps of an image. `fits` tells whether as many of them made a layer as there are layers."""

    steps: tuple[Step, ...]
    made: int
    layers: int

    @property
    def fits(self) -> bool:
        return self.made == self.layers

    def step_of(self, layer: int) -> Step | None:
        """The step that made a layer."""
        return self._by_layer.get(layer)

    def step_at(self, place: str) -> Step | None:
        """The step that a place names (`history[3]`); None for another place."""
        return self._by_place.get(place)

    @cached_property
    def _by_layer(self) -> dict[int, Step]:
        return {step.layer: step for step in self.steps if step.layer is not None}

    @cached_property
    def _by_place(self) -> dict[str, Step]:
        return {step.place: step for step in self.steps}


def read_history(raw_config: bytes, layers: int) -> History:
    """The history in a config's bytes, which `ImageConfig` has taken."""
    value = json.loads(raw_config).get("history")
    entries = [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
    made = sum(entry.get("empty_layer") is not True for entry in entries)
    steps, layer = [], 0
    for position, entry in enumerate(entries):
        own = None
        if entry.get("empty_layer") is not True:
            own, layer = (layer if made == layers else None), layer + 1
        created_by = entry.get("created_by")
        steps.append(_step(position, own, created_by[:MAX_STEP] if isinstance(created_by, str) else ""))
    return History(steps=tuple(steps), made=made, layers=layers)


def _step(position: int, layer: int | None, text: str) -> Step:
    def made(keyword: str, text: str, **more: Any) -> Step:
        return Step(position=position, layer=layer, keyword=keyword, text=text.strip(), **more)

    if nop := _NOP.fullmatch(text):
        match = _INSTRUCTION.fullmatch(nop[1].strip())
        if match is None:
            return made("", "")
        keyword, rest = match[1], match[2]
        if keyword in ("COPY", "ADD") and (copied := _COPIED.fullmatch(rest.strip())):
            return made(keyword, f"{copied[1]} {copied[2].strip()}", given=False)
        return made(keyword, rest)
    text = text.removesuffix("# buildkit").strip()
    match = _INSTRUCTION.fullmatch(text)
    if match is not None and match[1] != "RUN":
        return made(match[1], match[2])
    return _run(made, match[2].strip() if match is not None else text, match is not None)


def _run(made: Any, text: str, told: bool) -> Step:
    arguments: tuple[Pair, ...] = ()
    if (counted := _ARGUMENTS.match(text)) and counted[1] != "0":
        shell = re.search(r" (?:\S*/)?(?:sh|bash|ash|dash)(?: -\w+| pipefail)*? -\w*c ", text)
        end = shell.start() if shell else len(text)
        arguments, text = _pairs(text[counted.end() : end]), text[end:].strip()
    elif counted:
        text = text[counted.end() :].strip()
    if shell_run := _SHELL_RUN.fullmatch(text):
        step: Step = made("RUN", shell_run[3], arguments=arguments)
        return step
    if not text or text.startswith(("#", "cmd ", "powershell ")):
        nothing: Step = made("", "", arguments=arguments)
        return nothing
    words = tuple(text.split())
    # A command without a shell; where nothing says that it is one (no RUN before it) its first word must be a path.
    known = told or words[0].startswith("/")
    other: Step = made("RUN" if known else "", text if known else "", arguments=arguments, words=words)
    return other


def _pairs(text: str) -> tuple[Pair, ...]:
    """`A=b C=d e`: values are not quoted in a history, so that one ends where the next name begins."""
    found = list(_KEY.finditer(text))
    if not found:
        return tuple(Pair(key=word, value=None) for word in text.split()[:1])
    ends = [*(match.start() for match in found[1:]), len(text)]
    return tuple(Pair(key=match[1], value=text[match.end() : end].strip()) for match, end in zip(found, ends, strict=True))


# --- as a Dockerfile -----------------------------------------------------------------------------------------------------


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
    run: RunSettings, environment: Sequence[tuple[str, str]]
) -> list[tuple[str, str, Sequence[str], dict[str, Any]]]:
    """Keyword, place, values and more of each instruction that the config stands for."""
    found: list[tuple[str, str, Sequence[str], dict[str, Any]]] = []
    if run.shell:
        found.append(("SHELL", "config.Shell", run.shell, {"is_json": True}))
    if run.labels:
        found.append(("LABEL", "config.Labels", [text for pair in run.labels for text in pair], {}))
    if environment:
        pairs = tuple(Pair(key=key, value=value) for key, value in environment)
        found.append(("ENV", "config.Env", [text for pair in environment for text in pair], {"pairs": pairs}))
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


def build_of(
    history: History, run: RunSettings, environment: Sequence[tuple[str, str]], base_steps: int, base: str
) -> tuple[Build, tuple[Step | str, ...]]:
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
    for keyword, place, values, more in _from_config(run, environment):
        text = " ".join(values)
        escaped = [value.replace("\\", "\\\\").replace("$", "\\$") for value in values]
        kept = values if keyword in ("CMD", "ENTRYPOINT", "HEALTHCHECK", "SHELL") else escaped
        add(_instruction(keyword, len(lines) + 1, text, kept, **more), place)
    file = Dockerfile(escape="\\", syntax=None, instructions=tuple(instructions), faults=(), comments=())
    return plan_build(file), tuple(lines)
