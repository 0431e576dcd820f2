"""Rules on what runs: the guide's practices 1, 7, 8, 9 and 16, and the user that is not root."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from .build import Build, Stage, Step
from .packages import bare, installs, package_calls
from .rule import Hit, Level, hit, rule
from .scripts import ends_without_exec, source_of


def _last(steps: list[Step], keyword: str) -> Step | None:
    return next((step for step in reversed(steps) if step.keyword == keyword), None)


@rule(
    "background-process", 1, Level.WARNING,
    ("{keyword} starts {name} in the background: several processes share one container", "{keyword}在后台启动{name}：一个容器运行多个进程"),
    ("run one process a container: an image for each service", "一个容器只运行一个进程：为每个服务构建单独的镜像"),
    bad="FROM ubuntu:24.04\nCMD mysql & sshd & npm start\n",
    good='FROM ubuntu:24.04\nCMD ["npm", "start"]\n',
)  # fmt: skip
def background_process(build: Build) -> Iterator[Hit]:
    for stage in build.shipped:
        for step in stage.steps:
            if step.keyword not in ("CMD", "ENTRYPOINT") or any(one.name == "wait" for one in step.commands or ()):
                continue
            behind = [one for one in step.commands or () if one.background]
            if behind:
                yield hit(step.instruction, keyword=step.keyword, name=behind[0].name)


@rule(
    "run-cd", 7, Level.INFO,
    ("RUN starts with cd {folder}, which ends with this RUN", "RUN以cd {folder}开头，而目录切换只在本条RUN内有效"),
    ("set the folder with WORKDIR {folder}", "用WORKDIR {folder}设置工作目录"),
    bad="FROM node:22\nCOPY . /app\nRUN cd /app && npm install\n",
    good="FROM node:22\nWORKDIR /app\nCOPY . /app\nRUN npm install\n",
)  # fmt: skip
def run_cd(build: Build) -> Iterator[Hit]:
    for stage in build.stages:
        for step in stage.steps:
            commands = [one for one in step.commands or () if one.name != "set"] if step.keyword == "RUN" else []
            if len(commands) > 1 and commands[0].name == "cd" and commands[0].operands:
                yield hit(step.instruction, folder=commands[0].operands[0])


@rule(
    "relative-workdir", 7, Level.WARNING,
    ("WORKDIR {folder} is relative to a folder that the base image sets", "WORKDIR {folder}是相对路径，取决于基础镜像的工作目录"),
    ("write an absolute path: WORKDIR /{folder}", "使用绝对路径：WORKDIR /{folder}"),
    bad="FROM node:22\nWORKDIR app\n",
    good="FROM node:22\nWORKDIR /app\nWORKDIR src\n",
)  # fmt: skip
def relative_workdir(build: Build) -> Iterator[Hit]:
    for stage in build.stages:
        inherited = [step for parent in list(stage.chain())[1:] for step in parent.steps]
        absolute = any(step.keyword == "WORKDIR" for step in inherited)
        for step in stage.steps:
            if step.keyword != "WORKDIR" or not step.values:
                continue
            folder = (step.values[0] or "/").strip("\"'")
            if not absolute and not step.missing and folder[:1] not in ("/", "\\") and folder[1:2] != ":":
                yield hit(step.instruction, folder=folder)
            absolute = True


@rule(
    "shell-form", 7, Level.WARNING,
    ("{keyword} in shell form: sh is process 1 and swallows SIGTERM", "{keyword}使用shell形式：sh成为1号进程，会吞没SIGTERM信号"),
    ("write a JSON array, one element a word: {keyword} {array}", "写成数组，每个单词一个元素：{keyword} {array}"),
    bad="FROM node:22\nCMD npm start\n",
    good='FROM node:22\nCMD ["npm", "start"]\n',
)  # fmt: skip
def shell_form(build: Build) -> Iterator[Hit]:
    explicit = any(step.keyword == "SHELL" for stage in build.shipped for step in stage.steps)
    for stage in build.shipped:
        for step in stage.steps:
            found = step.instruction
            if found.keyword not in ("CMD", "ENTRYPOINT") or found.is_json or not found.values or explicit:
                continue
            if step.commands and "exec" in step.commands[-1].wrapped:
                continue
            yield hit(found, keyword=found.keyword, array=array_form(found.text))


def array_form(text: str) -> str:
    """The JSON form of a shell command; one that needs a shell keeps it, behind exec."""
    if re.search(r"[&|;<>$`*?'\"\\\[(]", text):
        return '["/bin/sh", "-c", "exec …"]'
    return '["' + '", "'.join(text.split()) + '"]'


@rule(
    "no-command", 7, Level.INFO,
    ("neither CMD nor ENTRYPOINT: what runs is the base image's choice", "没有CMD和ENTRYPOINT：容器运行什么由基础镜像决定"),
    ('set the default command: CMD ["program", "argument"]', '设置默认命令：CMD ["程序", "参数"]'),
    bad="FROM node:22\nCOPY . /app\n",
    good='FROM node:22\nCOPY . /app\nCMD ["node", "/app/server.js"]\n',
)  # fmt: skip
def no_command(build: Build) -> Iterator[Hit]:
    if build.final is None:
        return
    steps = build.final.all_steps()
    if not any(step.keyword in ("CMD", "ENTRYPOINT") for step in steps):
        yield hit(build.final.origin)


@rule(
    "several-entrypoints", 8, Level.ERROR,
    ("{count} {keyword} instructions in one stage: only the last counts", "同一阶段有{count}条{keyword}指令：只有最后一条生效"),
    ("keep one {keyword}", "只保留一条{keyword}"),
    bad='FROM node:22\nENTRYPOINT ["/a.sh"]\nENTRYPOINT ["/b.sh"]\n',
    good='FROM node:22\nENTRYPOINT ["/b.sh"]\nCMD ["start"]\n',
)  # fmt: skip
def several_entrypoints(build: Build) -> Iterator[Hit]:
    for stage in build.stages:
        for keyword, level in (("ENTRYPOINT", None), ("CMD", Level.WARNING)):
            found = [step for step in stage.steps if step.keyword == keyword]
            if len(found) > 1:
                yield hit(found[-1].instruction, level=level, keyword=keyword, count=len(found))


@rule(
    "entrypoint-hides-command", 8, Level.ERROR,
    ("ENTRYPOINT in shell form: CMD is never passed to it", "ENTRYPOINT使用shell形式：CMD不会作为参数传入"),
    ('write ENTRYPOINT as a JSON array: ENTRYPOINT ["/entrypoint.sh"]', '将ENTRYPOINT写成数组：ENTRYPOINT ["/entrypoint.sh"]'),
    bad='FROM node:22\nENTRYPOINT /entrypoint.sh\nCMD ["start"]\n',
    good='FROM node:22\nENTRYPOINT ["/entrypoint.sh"]\nCMD ["start"]\n',
)  # fmt: skip
def entrypoint_hides_command(build: Build) -> Iterator[Hit]:
    if build.final is None:
        return
    steps = build.final.all_steps()
    entrypoint, command = _last(steps, "ENTRYPOINT"), _last(steps, "CMD")
    if entrypoint is None or command is None or entrypoint.instruction.is_json or not entrypoint.instruction.values:
        return
    takes = any(mark in entrypoint.instruction.text for mark in ("$@", "$*", "$0", "$1"))
    if command.instruction.values and not takes and command in build.final.steps:
        yield hit(entrypoint.instruction)


@rule(
    "entrypoint-exec", 9, Level.WARNING,
    ("the entrypoint script {script} ends in {name} without exec: SIGTERM never reaches it", "ENTRYPOINT脚本{script}最后运行{name}时没有使用exec：收不到SIGTERM信号"),
    ('end the script with: exec "$@", or exec {name}', '脚本最后一行使用：exec "$@"，或exec {name}'),
    bad='FROM node:22\nCOPY <<EOF /entrypoint.sh\n#!/bin/sh\nnpm "$@"\nEOF\nENTRYPOINT ["/entrypoint.sh"]\n',
    good='FROM node:22\nCOPY <<EOF /entrypoint.sh\n#!/bin/sh\nexec npm "$@"\nEOF\nENTRYPOINT ["/entrypoint.sh"]\n',
)  # fmt: skip
def entrypoint_exec(build: Build) -> Iterator[Hit]:
    if build.final is None:
        return
    entrypoint = _last(build.final.all_steps(), "ENTRYPOINT")
    if entrypoint is None or not entrypoint.instruction.is_json or not entrypoint.instruction.values:
        return
    path = entrypoint.instruction.values[0]
    text = source_of(path, build)
    name = ends_without_exec(text) if text is not None else ""
    if name:
        yield hit(entrypoint.instruction, script=path, name=name)


@rule(
    "missing-healthcheck", 16, Level.INFO,
    ("no HEALTHCHECK: docker cannot tell whether the program still answers (Kubernetes has probes of its own)", "没有HEALTHCHECK：Docker无法判断程序是否可用（Kubernetes使用自己的探针）"),
    ("add one: HEALTHCHECK CMD curl --fail http://localhost:PORT || exit 1", "添加：HEALTHCHECK CMD curl --fail http://localhost:端口 || exit 1"),
    bad='FROM node:22\nCMD ["npm", "start"]\n',
    good='FROM node:22\nHEALTHCHECK CMD curl --fail http://localhost:3000 || exit 1\nCMD ["npm", "start"]\n',
)  # fmt: skip
def missing_healthcheck(build: Build) -> Iterator[Hit]:
    if build.final is None:
        return
    step = _last(build.final.all_steps(), "HEALTHCHECK")
    if step is None:
        yield hit(build.final.origin)
    elif step.instruction.values[:1] and step.instruction.values[0].upper() == "NONE":
        yield hit(step.instruction)


@rule(
    "several-healthchecks", 16, Level.ERROR,
    ("{count} HEALTHCHECK instructions in one stage: only the last counts", "同一阶段有{count}条HEALTHCHECK指令：只有最后一条生效"),
    ("keep one HEALTHCHECK", "只保留一条HEALTHCHECK"),
    bad="FROM node:22\nHEALTHCHECK CMD a\nHEALTHCHECK CMD b\n",
    good="FROM node:22\nHEALTHCHECK CMD a && b\n",
)  # fmt: skip
def several_healthchecks(build: Build) -> Iterator[Hit]:
    for stage in build.stages:
        found = [step for step in stage.steps if step.keyword == "HEALTHCHECK"]
        if len(found) > 1:
            yield hit(found[-1].instruction, count=len(found))


def _drops(stage: Stage) -> bool:
    """Whether a program that drops privileges itself is installed or started."""
    steps = stage.all_steps()
    names = {bare(p) for s in steps for call in package_calls(s.commands) if installs(call) for p in call.packages}
    names |= {one.name for step in steps for one in step.commands or ()}
    return bool(names & {"gosu", "su-exec", "setpriv", "s6-setuidgid"})


@rule(
    "root-user", 0, Level.WARNING,
    ("the container runs as root: the last USER is {user}", "容器以root运行：最后的USER是{user}"),
    ("end with a user of its own: USER 10001", "最后切换到普通用户：USER 10001"),
    bad='FROM node:22\nUSER root\nCMD ["node"]\n',
    good='FROM node:22\nUSER root\nRUN mkdir /x\nUSER node\nCMD ["node"]\n',
)  # fmt: skip
def root_user(build: Build) -> Iterator[Hit]:
    step = _last(build.final.all_steps(), "USER") if build.final else None
    if step is None or not step.values or step.values[0] is None or build.final is None or _drops(build.final):
        return
    if step.values[0].strip().partition(":")[0] in ("root", "0"):
        yield hit(step.instruction, user=step.values[0])


@rule(
    "missing-user", 0, Level.INFO,
    ("no USER: the container runs as root unless the base image says otherwise", "没有USER：除非基础镜像另有设置，容器以root运行"),
    ("add a user of its own: USER 10001", "添加普通用户：USER 10001"),
    bad='FROM node:22\nCMD ["node"]\n',
    good='FROM node:22\nUSER node\nCMD ["node"]\n',
)  # fmt: skip
def missing_user(build: Build) -> Iterator[Hit]:
    if build.final is None or _drops(build.final) or "nonroot" in (build.final.root or ""):
        return
    if _last(build.final.all_steps(), "USER") is None:
        yield hit(build.final.origin)


RULES: Final = (
    background_process, run_cd, relative_workdir, shell_form, no_command, several_entrypoints, entrypoint_hides_command, entrypoint_exec,
    missing_healthcheck, several_healthchecks, root_user, missing_user,
)  # fmt: skip
