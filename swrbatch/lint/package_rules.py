"""Rules on packages: the guide's practices 2, 3, 5 and 6, and what 1 says of services that are installed together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .build import Build, Stage, Step
from .images import DISTRIBUTIONS, split_image
from .packages import bare, cleaned, installs, language_install, package_calls, upgrades
from .rule import Hit, Level, hit, rule
from .shell import Command

_SERVICES: Final = {
    "ssh": "ssh", "openssh-server": "ssh", "openssh": "ssh", "mysql": "mysql", "mysql-server": "mysql", "mariadb-server": "mysql", "mariadb": "mysql",
    "postgresql": "postgresql", "postgresql-server": "postgresql", "nginx": "nginx", "apache2": "httpd", "httpd": "httpd", "redis": "redis",
    "redis-server": "redis", "mongodb": "mongodb", "mongodb-server": "mongodb", "rabbitmq-server": "rabbitmq", "cron": "cron", "cronie": "cron",
    "memcached": "memcached", "vsftpd": "ftp", "rsyslog": "syslog", "postfix": "smtp",
}  # fmt: skip
RUNTIMES: Final = {
    "nodejs": "node", "node": "node", "npm": "node", "python3": "python", "python": "python", "python3-pip": "python", "php": "php", "php-fpm": "php",
    "ruby": "ruby", "golang": "golang", "golang-go": "golang", "default-jre": "eclipse-temurin", "default-jdk": "eclipse-temurin", "java": "eclipse-temurin",
    "openjdk-8-jdk": "eclipse-temurin", "openjdk-11-jre": "eclipse-temurin", "openjdk-11-jdk": "eclipse-temurin", "openjdk-17-jre": "eclipse-temurin",
    "openjdk-17-jdk": "eclipse-temurin", "default-jre-headless": "eclipse-temurin", "openjdk-17-jre-headless": "eclipse-temurin", "nginx": "nginx",
}  # fmt: skip


def _installed(steps: list[Step]) -> Iterator[tuple[Step, str]]:
    for step in steps:
        for call in package_calls(step.commands):
            if installs(call):
                yield from ((step, bare(package)) for package in call.packages)


@rule(
    "several-services", 1, Level.INFO,
    ("several services are installed in one image: {services}", "一个镜像中安装了多个服务：{services}"),
    ("build an image for each service and run one process a container", "为每个服务构建单独的镜像，一个容器只运行一个进程"),
    bad="FROM ubuntu:24.04\nRUN apt-get update && apt-get install -y nodejs ssh mysql\n",
    good="FROM ubuntu:24.04\nRUN apt-get update && apt-get install -y nodejs mysql-client\n",
)  # fmt: skip
def several_services(build: Build) -> Iterator[Hit]:
    if build.final is None:
        return
    found: dict[str, Step] = {}
    for step, package in _installed(build.final.all_steps()):
        if package in _SERVICES:
            found.setdefault(_SERVICES[package], step)
    if len(found) > 1:
        yield hit(list(found.values())[-1].instruction, services=", ".join(found))


@rule(
    "package-upgrade", 2, Level.WARNING,
    ("{command} upgrades whatever is newer at build time: two builds give two images", "{command}会在构建时升级所有软件包，构建结果不稳定"),
    ("remove it; take a newer base image, or install the one package that must be newer", "删除该命令；更换较新的基础镜像，或只安装需要升级的软件包"),
    bad="FROM ubuntu:24.04\nRUN apt-get update && apt-get upgrade -y\n",
    good="FROM ubuntu:24.04\nRUN apt-get update && apt-get install -y foo && rm -rf /var/lib/apt/lists/*\n",
)  # fmt: skip
def package_upgrade(build: Build) -> Iterator[Hit]:
    for stage in build.stages:
        for step in stage.steps:
            for call in package_calls(step.commands):
                if upgrades(call):
                    yield hit(step.instruction, line=step.line_of(call.command), command=f"{call.command.name} {call.verb}")


@rule(
    "update-alone", 3, Level.WARNING,
    ("{command} without an install in the same RUN: a cached layer keeps an old package list", "{command}与安装不在同一条RUN指令中：缓存层会保留过期的软件源列表"),
    ("join update and install in one RUN", "将更新与安装合并到同一条RUN指令"),
    bad="FROM ubuntu:24.04\nRUN apt-get update\nRUN apt-get install -y nodejs\n",
    good="FROM ubuntu:24.04\nRUN apt-get update && apt-get install -y nodejs\n",
)  # fmt: skip
def update_alone(build: Build) -> Iterator[Hit]:
    for stage in build.stages:
        for step in stage.steps:
            calls = package_calls(step.commands)
            updates = [call for call in calls if call.family in ("apt", "apk") and call.verb == "update"]
            others = [call for call in calls if call.verb != "update"]
            if updates and not others and not any(command.name not in _QUIET for command in step.commands or ()):
                yield hit(step.instruction, line=step.line_of(updates[0].command), command=f"{updates[0].command.name} update")


# Beside an update these change nothing; any other program may be a script that installs.
_QUIET: Final = frozenset({"apt-get", "apt", "apk", "set", "echo", "true", "rm", "cd", "export", "sleep", "mkdir"})


@rule(
    "mixed-frequency", 3, Level.WARNING,
    ("system packages and {manager} dependencies are installed in one RUN after the source is copied: each change of source installs all again",
     "系统软件包与{manager}依赖在同一条RUN指令中安装，且在复制源代码之后：每次修改源代码都会重新安装"),
    ("install system packages in a RUN of their own, before the source is copied", "在复制源代码之前，用单独的RUN指令安装系统软件包"),
    bad="FROM ubuntu:24.04\nADD . /app\nRUN apt-get update && apt-get install -y nodejs && cd /app && npm install\n",
    good="FROM ubuntu:24.04\nRUN apt-get update && apt-get install -y nodejs\nCOPY . /app\nRUN cd /app && npm install\n",
)  # fmt: skip
def mixed_frequency(build: Build) -> Iterator[Hit]:
    for stage in build.stages:
        copied = False
        for step in stage.steps:
            copied = copied or (step.keyword in ("COPY", "ADD") and step.instruction.flag("from") is None)
            managers = [name for command in step.commands or () if (name := language_install(command))]
            if copied and managers and any(installs(call) for call in package_calls(step.commands)):
                yield hit(step.instruction, manager=managers[0])


@rule(
    "consecutive-runs", 3, Level.INFO,
    ("consecutive RUNs call {command}: one layer each for what changes together", "连续的RUN指令都调用{command}：变化频率相同却各占一层"),
    ("join them with && in one RUN", "用&&合并为一条RUN指令"),
    bad="FROM ubuntu:24.04\nRUN apt-get update\nRUN apt-get install -y nodejs\n",
    good="FROM ubuntu:24.04\nRUN apt-get update && apt-get install -y nodejs\n",
)  # fmt: skip
def consecutive_runs(build: Build) -> Iterator[Hit]:
    for stage in build.stages:
        before = ""
        for step in stage.steps:
            calls = package_calls(step.commands) if step.keyword == "RUN" else []
            family = calls[0].family if calls else ""
            if family and family == before:
                yield hit(step.instruction, command=calls[0].command.name)
            before = family


@rule(
    "package-leftovers", 5, Level.WARNING,
    ("{command} leaves its lists or its cache in the layer", "{command}在镜像层中留下软件源列表或缓存"),
    ("end the same RUN with: {cleanup}", "在同一条RUN指令末尾执行：{cleanup}"),
    bad="FROM ubuntu:24.04\nRUN apt-get update && apt-get install -y nodejs\n",
    good="FROM ubuntu:24.04\nRUN apt-get update && apt-get install -y nodejs && rm -rf /var/lib/apt/lists/*\n",
)  # fmt: skip
def package_leftovers(build: Build) -> Iterator[Hit]:
    for stage in build.shipped:
        for step in stage.steps:
            commands = step.commands or ()
            told = set()
            for call in package_calls(commands):
                leaves = installs(call) or (call.family == "apt" and call.verb == "update")
                if not leaves or call.family in told or _spared(step, call.family, call.command.words):
                    continue
                if not cleaned(call.family, commands[commands.index(call.command) :]):
                    told.add(call.family)
                    named = f"{call.command.name} {call.verb}"
                    yield hit(step.instruction, line=step.line_of(call.command), command=named, cleanup=_CLEANUPS[call.family])


_CLEANUPS: Final = {
    "apt": "rm -rf /var/lib/apt/lists/*",
    "apk": "rm -rf /var/cache/apk/* (apk add --no-cache)",
    "rpm": "yum clean all",
    "zypper": "zypper clean --all",
}
_CACHES: Final = {
    "apt": ("/var/lib/apt", "/var/lib"),
    "apk": ("/var/cache/apk", "/etc/apk/cache", "/var/cache"),
    "rpm": ("/var/cache/yum", "/var/cache/dnf", "/var/cache", "/var/cache/libdnf5"),
    "zypper": ("/var/cache/zypp", "/var/cache"),
}


def _spared(step: Step, family: str, words: tuple[str, ...]) -> bool:
    """Whether the cache lies on a mount, or none is kept (apk add without --no-cache keeps the index of packages)."""
    if family == "apk" and "--no-cache" in words:
        return True
    for flag in step.instruction.flags:
        fields = dict(part.partition("=")[::2] for part in (flag.value or "").split(","))
        target = fields.get("target") or fields.get("dst") or fields.get("destination") or ""
        if flag.name == "mount" and fields.get("type") in ("cache", "tmpfs") and target.rstrip("/").startswith(_CACHES[family]):
            return True
    return False


@rule(
    "pip-cache", 5, Level.INFO,
    ("pip install leaves its cache in the layer", "pip install在镜像层中留下缓存"),
    ("add --no-cache-dir, or mount a cache at /root/.cache/pip", "添加--no-cache-dir，或将缓存挂载到/root/.cache/pip"),
    bad="FROM python:3.13\nRUN pip install flask\n",
    good="FROM python:3.13\nRUN pip install --no-cache-dir flask\n",
)  # fmt: skip
def pip_cache(build: Build) -> Iterator[Hit]:
    for stage in build.shipped:
        if "PIP_NO_CACHE_DIR" in stage.environment:
            continue
        for step in stage.steps:
            commands = step.commands or ()
            mounted = any(flag.name == "mount" and "type=cache" in (flag.value or "") for flag in step.instruction.flags)
            removed = any(c.name == "rm" and any(".cache" in word for word in c.words) for c in commands)
            for command in commands:
                calls = command.name in ("pip", "pip3") or (
                    command.name.startswith("python") and command.words[:2] == ("-m", "pip")
                )
                if calls and "install" in command.operands and not command.has("--no-cache-dir") and not mounted and not removed:
                    yield hit(step.instruction, line=step.line_of(command))


@rule(
    "yarn-cache", 5, Level.INFO,
    ("yarn leaves its cache in the layer", "yarn在镜像层中留下缓存"),
    ("end the same RUN with: yarn cache clean, or mount a cache", "在同一条RUN指令末尾执行：yarn cache clean，或挂载缓存"),
    bad="FROM node:22\nCOPY package.json yarn.lock ./\nRUN yarn install --frozen-lockfile\n",
    good="FROM node:22\nCOPY package.json yarn.lock ./\nRUN yarn install --frozen-lockfile && yarn cache clean\n",
)  # fmt: skip
def yarn_cache(build: Build) -> Iterator[Hit]:
    for stage in build.shipped:
        for step in stage.steps:
            commands = step.commands or ()
            mounted = any(flag.name == "mount" and "type=cache" in (flag.value or "") for flag in step.instruction.flags)
            cleaned_at = max((c.offset for c in commands if _cleans_yarn(c)), default=-1)
            for command in commands:
                if _fills_yarn(command) and not mounted and command.offset > cleaned_at:
                    yield hit(step.instruction, line=step.line_of(command))
                    break


def _fills_yarn(command: Command) -> bool:
    return command.name == "yarn" and (language_install(command) != "" or command.operands[:1] in (("add",), ("global",)))


def _cleans_yarn(command: Command) -> bool:
    if command.name == "rm":
        return any(".cache" in word or word.rstrip("/*").endswith("/yarn") for word in command.operands)
    return command.name == "yarn" and command.operands[:2] == ("cache", "clean")


@rule(
    "general-base", 6, Level.INFO,
    ("{base} is a general distribution and only {runtime} is needed on it", "{base}是通用发行版，而这里只需要{runtime}"),
    ("start from an image of {runtime}, its alpine or slim variant if it fits", "改用{runtime}镜像作为基础镜像，合适时选用alpine或slim版本"),
    bad="FROM ubuntu:16.04\nRUN apt-get update && apt-get install -y nodejs\n",
    good="FROM node:22-alpine\nCOPY . /app\n",
)  # fmt: skip
def general_base(build: Build) -> Iterator[Hit]:
    for stage in build.shipped:
        yield from _general(stage)


def _general(stage: Stage) -> Iterator[Hit]:
    base = split_image(stage.base or "")
    if stage.parent is not None or base.name.rpartition("/")[2] not in DISTRIBUTIONS:
        return
    runtimes = {RUNTIMES[package] for _, package in _installed(list(stage.steps)) if package in RUNTIMES}
    if len(runtimes) == 1:
        yield hit(stage.origin, base=stage.base, runtime=next(iter(runtimes)))


RULES: Final = (
    several_services, package_upgrade, update_alone, mixed_frequency, consecutive_runs, package_leftovers, pip_cache, yarn_cache, general_base,
)  # fmt: skip
