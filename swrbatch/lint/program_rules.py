"""The rules on what a container starts: whether it is there, can be executed, is one process, and lets signals through."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ..inspect.tree import TreeFile
from . import run_rules
from .image_rules import inherited, through_build
from .rule import ImageHit, Level, image_form, image_hit, image_rule
from .scripts import ends_without_exec
from .shell import commands_of, words_of
from .started import entrypoint_script, started_names
from .view import ImageView

_SUPERVISORS: Final = frozenset({"supervisord", "s6-svscan", "runsvdir", "runit", "monit", "circusd", "systemd", "init"})
# What a shell has itself; the names of the others are looked up.
_BUILTINS: Final = frozenset(
    [".", ":", "[", "[[", "alias", "bg", "break", "cd", "command", "continue", "echo", "eval", "exec", "exit", "export", "false", "fg", "getopts",
     "hash", "jobs", "kill", "local", "printf", "pwd", "read", "return", "set", "shift", "source", "test", "time", "times", "trap", "true", "type",
     "ulimit", "umask", "unalias", "unset", "wait"]
)  # fmt: skip
_INTERPRETER: Final = re.compile(r"#![ \t]*(\S+)(?:[ \t]+(\S+))?")


@dataclass(frozen=True, slots=True)
class _Started:
    """A program that the config names: where, the word that is looked up, and whether a shell does that."""

    place: str
    what: str
    word: str


def _in_shell(place: str, what: str, shell: str, text: str) -> Iterator[_Started]:
    """The shell, and what a command in it starts first, where that can be told without running it."""
    yield _Started(place, what, shell)
    commands = commands_of(text)
    if not commands or ("||" in text and any(one.name not in _BUILTINS for one in commands[1:])):
        return  # another program may take over
    first, word = commands[0], next(iter(words_of(text.partition("\n")[0]) or ("",)))
    if first.wrapped == ("exec",):
        word = next(iter(words_of(text.strip().removeprefix("exec"))), "")
    if first.wrapped not in ((), ("exec",)) or first.name in _BUILTINS or word.rpartition("/")[2] != first.name:
        return
    if not re.search(r"[$`*?{~(]", word):
        yield _Started(place, what, word)


def started_by(view: ImageView) -> list[_Started]:
    """What the config starts: ENTRYPOINT, else CMD; HEALTHCHECK."""
    found: list[_Started] = []
    run = view.run
    shell = run.shell or ("/bin/sh", "-c")
    words, place, what = (run.entrypoint, "config.Entrypoint", "ENTRYPOINT") if run.entrypoint else (run.cmd, "config.Cmd", "CMD")
    if words and words[:-1] == shell:
        found += _in_shell(place, what, words[0], words[-1])
    elif words:
        found.append(_Started(place, what, words[0]))
    health = run.healthcheck
    if health[:1] == ("CMD-SHELL",) and len(health) == 2:
        found += _in_shell("config.Healthcheck", "HEALTHCHECK", shell[0], health[1])
    elif health[:1] == ("CMD",) and len(health) > 1:
        found.append(_Started("config.Healthcheck", "HEALTHCHECK", health[1]))
    return found


@image_rule(
    "missing-program", 8, Level.ERROR,
    ("{what} starts {program}, which {fault}", "{what}运行{program}，而它{fault_zh}"),
    ("copy the program into the image, name its whole path, and make it executable (COPY --chmod=755)",
     "将程序复制到镜像中，写出完整路径，并设置可执行权限（COPY --chmod=755）"),
    bad='FROM node:22\nCOPY app /app\nENTRYPOINT ["/entrypoint.sh"]\n',
    good='FROM node:22\nCOPY --chmod=755 entrypoint.sh /\nENTRYPOINT ["/entrypoint.sh"]\n',
)  # fmt: skip
def missing_program(view: ImageView) -> Iterator[ImageHit]:
    if view.head.config.os not in ("linux", ""):
        return
    told: set[tuple[str, str]] = set()
    for each in started_by(view):
        volumes = tuple(f"{volume.rstrip('/')}/" for volume in view.run.volumes)
        if not each.word or each.word.startswith(volumes) or (each.what, each.word) in told:
            continue
        told.add((each.what, each.word))
        fault = _fault(view, each.word)
        if fault is not None:
            yield image_hit(each.place, what=each.what, program=each.word, fault=fault[0], fault_zh=fault[1])


def _fault(view: ImageView, word: str) -> tuple[str, str] | None:
    """Why a program cannot be started, in English and Chinese; None when it can, or when that cannot be told."""
    found = view.find_program(word)
    if found is None:
        return "is not in the image", "不在镜像中"
    if found is True:
        return "is a folder", "是目录"
    if not isinstance(found, TreeFile):
        return None
    if found.member.kind not in ("file", "sparse file"):
        return f"is a {found.member.kind}", "不是普通文件"
    if not found.member.executable:
        return "cannot be executed: its mode has no x", "没有可执行权限"
    return _interpreter_fault(view, found.path)


def _interpreter_fault(view: ImageView, path: str) -> tuple[str, str] | None:
    text = view.text_at(path)
    match = _INTERPRETER.match(text.partition("\n")[0]) if text is not None else None
    if text is None or match is None:
        return None
    if text.partition("\n")[0].endswith("\r"):
        return (
            "is a script with Windows line ends: the kernel looks for an interpreter with \\r in its name",
            "是Windows换行的脚本：内核找不到名称带\\r的解释器",
        )
    names = [match[1]]
    if match[1].endswith("/env") and match[2] and not match[2].startswith("-"):
        names.append(match[2])
    missing = next((name for name in names if view.find_program(name) is None), None)
    return (
        None
        if missing is None
        else (f"is a script for {missing}, which is not in the image", f"是由{missing}解释的脚本，而{missing}不在镜像中")
    )


@image_form(run_rules.entrypoint_exec)
def entrypoint_exec(view: ImageView) -> Iterator[ImageHit]:
    script = entrypoint_script(view)
    name = ends_without_exec(script[2]) if script is not None else ""
    if script is not None and name and view.is_own(script[1].layer):
        yield image_hit(script[1].path, layer=script[1].layer, script=f"/{script[1].path}", name=name)


@image_form(run_rules.background_process)
def background_process(view: ImageView) -> Iterator[ImageHit]:
    yield from through_build(run_rules.background_process, view)
    script = entrypoint_script(view)
    if script is None or not view.is_own(script[1].layer):
        return
    commands = commands_of(script[2]) or ()
    behind = [one for one in commands if one.background]
    if behind and not any(one.name == "wait" for one in commands):
        hit = image_hit(
            script[1].path, layer=script[1].layer, level=Level.INFO, keyword=f"/{script[1].path}", name=behind[0].name
        )
        yield hit


@image_rule(
    "process-supervisor", 1, Level.WARNING,
    ("{program} {does}: several processes share one container", "{program}{does_zh}：一个容器运行多个进程"),
    ("run one process a container: an image for each service", "一个容器只运行一个进程：为每个服务构建单独的镜像"),
    bad='FROM debian:13\nRUN apt-get update && apt-get install -y supervisor\nCMD ["supervisord", "-n"]\n',
    good='FROM debian:13\nCMD ["/app/server"]\n',
)  # fmt: skip
def process_supervisor(view: ImageView) -> Iterator[ImageHit]:
    for name, by, place in started_names(view):
        script = by.startswith("/")
        found = view.find_program(by) if script else None
        own = view.is_own(found.layer) if isinstance(found, TreeFile) else not inherited(view, by)
        # In a script "init" may be anything.
        if own and name in _SUPERVISORS and not (script and name == "init"):
            layer = found.layer if isinstance(found, TreeFile) else None
            yield image_hit(place, layer=layer, program=name, does=f"is what {by} starts", does_zh=f"由{by}启动")
            return
    for name in ("supervisord", "s6-svscan"):
        found = view.find_program(name)
        if isinstance(found, TreeFile) and view.is_own(found.layer):
            yield image_hit(
                found.path, layer=found.layer, level=Level.INFO, program=name, does="is installed, perhaps to be started",
                does_zh="已安装，可能会被启动",
            )  # fmt: skip


FORMS: Final = (entrypoint_exec, background_process)
RULES: Final = (missing_program, process_supervisor)
