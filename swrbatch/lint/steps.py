"""The steps of an image's history, told by their text.

Forms (OCI image specification, config.md, says only that the text is free): the classic builder and buildah write
`/bin/sh -c #(nop) X` for instructions and `[|N K=V ...] /bin/sh -c ...` for RUN; BuildKit writes instructions as they are, RUN,
COPY and ADD with `# buildkit` behind. What has another form (debuerreotype, Bazel, Jib) is kept as a step that says nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from ..redaction import assigned, secret_values
from .instructions import Pair

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
        steps.append(as_step(position, own, created_by[:MAX_STEP] if isinstance(created_by, str) else ""))
    return History(steps=tuple(steps), made=made, layers=layers)


def as_step(position: int, layer: int | None, text: str) -> Step:
    """An entry of the history by its `created_by`."""

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


def secrets_of(environment: Iterable[tuple[str, str]], steps: Iterable[Step]) -> tuple[str, ...]:
    """The values of variables of config and history that look like secrets, to be kept out of all texts."""
    pairs = [*environment]
    for step in steps:
        pairs += ((pair.key, pair.value or "") for pair in (*step.arguments, *step.pairs))
        pairs += assigned(step.text)
    return secret_values(pairs)
