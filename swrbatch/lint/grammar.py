"""What BuildKit refuses after the lines are read: numbers of arguments, flags, an instruction before the first FROM.

Source: moby/buildkit, frontend/dockerfile/instructions/parse.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from .instructions import Fault, Instruction

_COPY = "from chown chmod link parents exclude"
_FLAGS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "FROM": frozenset({"platform"}),
        "COPY": frozenset(_COPY.split()),
        "ADD": frozenset(["chown", "chmod", "link", "keep-git-dir", "checksum", "exclude", "unpack"]),
        "RUN": frozenset(["mount", "network", "security", "device"]),
        "HEALTHCHECK": frozenset(["interval", "timeout", "start-period", "start-interval", "retries"]),
    }
)


def faults_of(instructions: Sequence[Instruction]) -> Iterator[Fault]:
    """Faults of the instructions of one file, in their order."""
    if not any(found.keyword == "FROM" for found in instructions):
        yield Fault(line=1, column=1, message="the file has no FROM", message_zh="文件中没有FROM指令")
    elif (first := next(found for found in instructions if found.keyword != "ARG")).keyword != "FROM":
        yield Fault(line=first.line, column=1, message="FROM must be first (or ARG)", message_zh="第一条指令必须是FROM（或ARG）")
    for found in instructions:
        for message, message_zh in (*_own(found), *(_own(found.trigger) if found.trigger else ())):
            yield Fault(line=found.line, column=1, message=message, message_zh=message_zh)


def _own(found: Instruction) -> Iterator[tuple[str, str]]:
    keyword, values = found.keyword, found.values
    if keyword != "ONBUILD":
        for flag in found.flags:
            if flag.name not in _FLAGS.get(keyword, ()):
                yield f"{keyword} has no flag --{flag.name[:40]}", f"{keyword}没有参数--{flag.name[:40]}"
    if keyword == "FROM" and not (len(values) == 1 or (len(values) == 3 and values[1].lower() == "as")):
        yield "FROM takes one image, or: image AS name", "FROM只能有一个镜像，或写作：镜像 AS 名称"
    elif keyword in ("ADD", "COPY") and len(values) < 2:
        yield f"{keyword} needs a source and a destination", f"{keyword}需要源路径和目标路径"
    elif keyword == "SHELL" and not found.is_json:
        yield (
            'SHELL takes a JSON array, as in SHELL ["/bin/bash", "-c"]',
            'SHELL的参数必须是JSON数组，例如SHELL ["/bin/bash", "-c"]',
        )
    elif keyword == "HEALTHCHECK" and not _is_check(values):
        yield "HEALTHCHECK takes CMD and a command, or NONE", "HEALTHCHECK后应为CMD加命令，或NONE"
    elif not values and not found.heredocs and keyword not in ("CMD", "ENTRYPOINT", "ONBUILD", "FROM", "ADD", "COPY", "SHELL"):
        yield f"{keyword} has no arguments", f"{keyword}缺少参数"


def _is_check(values: Sequence[str]) -> bool:
    kind = values[0].upper() if values else ""
    return (kind == "CMD" and len(values) > 1) or (kind == "NONE" and len(values) == 1)
