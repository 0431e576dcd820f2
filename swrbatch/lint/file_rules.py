"""Rules on images, files and settings: the guide's practices 4, 10 to 15 and 17."""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Final

from ..redaction import is_secret, is_secret_name
from .build import Build, Step
from .ignored import excludes
from .images import split_image
from .instructions import Instruction, Pair
from .packages import bare, installs, language_install, package_calls
from .rule import Hit, Level, hit, rule
from .words import unquote

_TAR: Final = re.compile(r"\.(tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz|zst|lz|lzma|Z))$", re.IGNORECASE)
_URL: Final = re.compile(r"(https?|ftp)://|git@|git://", re.IGNORECASE)
# Docker's guidelines for the keys of labels: what they must not be, and why.
_LABEL_KEYS: Final = (
    (re.compile(r"^(com\.docker|io\.docker|org\.dockerproject)\."), "the name space is Docker's own", "该命名空间由Docker保留"),
    (re.compile(r"[^a-z0-9.-]"), "only lower-case letters, digits, . and - stand in it", "只能包含小写字母、数字、.和-"),
    (re.compile(r"^[.-]|[.-]$"), "it begins and ends with a letter or a digit", "必须以字母或数字开头和结尾"),
    (re.compile(r"\.\.|--"), "no . and no - stands twice in a row", ".和-不能连续出现"),
)


@rule(
    "floating-tag", 4, Level.WARNING,
    ("{image} has no tag of its own: what it means changes from day to day", "{image}没有特定的标签：所指的镜像随时可能变化"),
    ("name a version: {name}:VERSION, or a digest", "指定版本：{name}:版本号，或使用摘要"),
    bad="FROM ubuntu\n",
    good="FROM ubuntu:24.04\n",
)  # fmt: skip
def floating_tag(build: Build) -> Iterator[Hit]:
    names: set[str] = set()
    for stage in build.stages:
        if stage.parent is None and stage.base and stage.base.lower() not in ("scratch", *names):
            yield from _floating(stage.base, stage.origin)
        names |= {stage.name} - {""}
        for step in stage.steps:
            source = step.instruction.flag("from") if step.keyword == "COPY" else None
            later = {other.name for other in build.stages}
            if (
                source
                and "$" not in source
                and not source.isdigit()
                and source.lower() not in later
                and source.lower() != "scratch"
            ):
                yield from _floating(source, step.instruction)


def _floating(text: str, found: Instruction) -> Iterator[Hit]:
    image = split_image(text)
    if image.digest or image.tag not in ("", "latest"):
        return
    yield hit(found, image=text, name=image.name)


def _sources(step: Step) -> list[str]:
    return (
        [source for source in step.values[:-1] if source is not None and not source.startswith("<<")]
        if len(step.values) > 1
        else []
    )


@rule(
    "add-local", 10, Level.WARNING,
    ("ADD of {source}, which is no archive to unpack", "用ADD复制{source}，而它不是需要解压的压缩包"),
    ("write COPY", "改用COPY"),
    bad="FROM node:22\nADD . /app\n",
    good="FROM node:22\nCOPY . /app\nADD rootfs.tar.gz /\n",
)  # fmt: skip
def add_local(build: Build) -> Iterator[Hit]:
    for stage in build.stages:
        for step in stage.steps:
            if step.keyword != "ADD":
                continue
            given = _sources(step) if len(step.values) > 1 else [value for value in step.values if value]
            plain = [one for one in given if not _URL.match(one) and not _TAR.search(one)]
            if plain and (len(step.values) < 2 or not step.instruction.heredocs):
                yield hit(step.instruction, source=plain[0])


@rule(
    "add-url", 10, Level.INFO,
    ("ADD of {source} without a checksum: what comes is not checked", "用ADD下载{source}而没有校验和：下载的内容未经校验"),
    ("give --checksum=sha256:…, or download and check it in a RUN that also removes it", "添加--checksum=sha256:…，或在同一条RUN中下载、校验并删除"),
    bad="FROM centos:7\nADD https://example.com/logo.png /opt/\n",
    good=f"FROM centos:7\nADD --checksum=sha256:{'0' * 64} https://example.com/logo.png /opt/\n",
)  # fmt: skip
def add_url(build: Build) -> Iterator[Hit]:
    for stage in build.stages:
        for step in stage.steps:
            if step.keyword == "ADD" and not step.instruction.flag("checksum"):
                found = [one for one in _sources(step) if re.match(r"(https?|ftp)://", one) and not re.search(r"\.git(#|$)", one)]
                if found:
                    yield hit(step.instruction, source=found[0])


def _copies_folder(step: Step) -> bool:
    return step.keyword in ("COPY", "ADD") and step.instruction.flag("from") is None and any(
        source.rstrip("/") in (".", "*", "./*", "") for source in _sources(step)
    )  # fmt: skip


@rule(
    "copy-before-install", 11, Level.WARNING,
    ("the whole source is copied before {manager} installs: each change of source installs all again", "在{manager}安装依赖之前复制了全部源代码：每次修改源代码都会重新安装"),
    ("copy the manifest alone (package.json, requirements.txt), install, then copy the rest", "先复制依赖清单（package.json、requirements.txt）并安装，最后复制其余源代码"),
    bad="FROM node:22\nWORKDIR /app\nCOPY . /app\nRUN npm install\n",
    good="FROM node:22\nWORKDIR /app\nCOPY package.json /app\nRUN npm install\nCOPY . /app\n",
)  # fmt: skip
def copy_before_install(build: Build) -> Iterator[Hit]:
    for stage in build.stages:
        copied: Step | None = None
        installed: set[str] = set()
        for step in stage.steps:
            copied = step if copied is None and _copies_folder(step) else copied
            managers = (
                [name for command in step.commands or () if (name := language_install(command))] if step.keyword == "RUN" else []
            )
            for name in managers:
                if copied is not None and name not in installed:
                    yield hit(copied.instruction, manager=name)
                installed.add(name)


# What base images commonly set; BuildKit asks the image, a linter cannot.
_INHERITED: Final = frozenset(
    ["PATH", "HOME", "USER", "LANG", "LC_ALL", "HOSTNAME", "JAVA_HOME", "GOPATH", "GOROOT", "CATALINA_HOME", "CONDA_DIR"]
)


@rule(
    "undefined-variable", 12, Level.INFO,
    ("${name} is set by no ENV or ARG before it", "${name}之前没有用ENV或ARG设置"),
    ("set a default: ENV {name}=… (ARG {name}=… if only the build needs it)", "设置默认值：ENV {name}=…（仅构建时需要则用ARG {name}=…）"),
    bad="FROM node:22\nWORKDIR $PROJECT_DIR\n",
    good="FROM node:22\nENV PROJECT_DIR=/app\nWORKDIR $PROJECT_DIR\n",
)  # fmt: skip
def undefined_variable(build: Build) -> Iterator[Hit]:
    for stage in build.stages:
        for name in stage.missing:
            yield hit(stage.origin, level=Level.ERROR, name=name)
        prefix = re.sub(r"\W", "_", split_image(stage.root or "?").name.rpartition("/")[2]).upper() + "_"
        for step in stage.steps:
            for name in step.missing:
                if name not in _INHERITED and not name.startswith(prefix):
                    yield hit(step.instruction, name=name)


@rule(
    "legacy-env", 12, Level.INFO,
    ("{keyword} {key} without =: the old form takes the rest of the line as one value", "{keyword} {key}没有等号：旧写法会把行内其余内容作为一个值"),
    ("write {keyword} {key}=value", "写成{keyword} {key}=值"),
    bad="FROM node:22\nENV PORT 3000\n",
    good="FROM node:22\nENV PORT=3000\n",
)  # fmt: skip
def legacy_env(build: Build) -> Iterator[Hit]:
    for found in build.file.instructions:
        if found.legacy_pair:
            yield hit(found, keyword=found.keyword, key=found.pairs[0].key)


@rule(
    "secret-in-build", 12, Level.ERROR,
    ("{keyword} {name} looks like a secret: everybody who has the image can read its value (***)", "{keyword} {name}疑似敏感信息：任何得到镜像的人都能读取其值（***）"),
    ("pass it at run time, or to the build with RUN --mount=type=secret", "在运行时传入，或用RUN --mount=type=secret传给构建"),
    bad="FROM node:22\nENV DB_PASSWORD=hunter2\n",
    good="FROM node:22\nENV DB_PASSWORD_FILE=/run/secrets/db\nRUN --mount=type=secret,id=token cat /run/secrets/token\n",
)  # fmt: skip
def secret_in_build(build: Build) -> Iterator[Hit]:
    for found, pair in secret_pairs(build):
        yield hit(found, keyword=found.keyword, name=pair.key)


def secret_pairs(build: Build) -> Iterator[tuple[Instruction, Pair]]:
    """The pairs of ENV and ARG that look like secrets, those that ONBUILD sets later too."""
    for found in (own for each in build.file.instructions for own in (each, each.trigger) if own is not None):
        for pair in found.pairs if found.keyword in ("ENV", "ARG") else ():
            value = (pair.value or "").strip("\"'")
            unset = pair.value is None and found.keyword == "ARG"
            if (unset and is_secret_name(pair.key)) or is_secret(pair.key, value):
                yield found, pair


def _ports(build: Build) -> Iterator[tuple[Step, str]]:
    for stage in build.stages:
        for step in stage.steps:
            if step.keyword == "EXPOSE":
                yield from ((step, word) for value in step.values if value is not None for word in value.split())


@rule(
    "invalid-port", 13, Level.WARNING,
    ("{port} is no port to expose", "{port}不是有效的端口"),
    ("write 1 to 65535, or a range, with /tcp, /udp or /sctp if needed", "写1到65535的端口或端口范围，需要时加/tcp、/udp或/sctp"),
    bad="FROM node:22\nEXPOSE 80:8080\n",
    good="FROM node:22\nEXPOSE 8080/tcp\n",
)  # fmt: skip
def invalid_port(build: Build) -> Iterator[Hit]:
    for step, port in _ports(build):
        match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(?:tcp|udp|sctp))?", port, re.IGNORECASE | re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= 65535:
            yield hit(step.instruction, port=port)


@rule(
    "ssh-port", 13, Level.WARNING,
    ("port 22 is exposed: ssh does not belong in a container", "暴露了22端口：容器中不应运行ssh"),
    ("remove it; docker exec and kubectl exec open a shell", "删除；用docker exec或kubectl exec进入容器"),
    bad="FROM node:22\nEXPOSE 22\n",
    good="FROM node:22\nEXPOSE 2222\n",
)  # fmt: skip
def ssh_port(build: Build) -> Iterator[Hit]:
    for step, port in _ports(build):
        if port.lower() in ("22", "22/tcp"):
            yield hit(step.instruction)


_RUNTIMES: Final = frozenset(
    ["node", "python", "php", "ruby", "golang", "openjdk", "eclipse-temurin", "tomcat", "dotnet", "aspnet"]
)
_NPM_SERVES: Final = frozenset({"start", "serve", "dev", "preview"})
_SERVERS: Final = frozenset(
    [
        "gunicorn",
        "uvicorn",
        "nginx",
        "httpd",
        "apache2ctl",
        "redis-server",
        "mysqld",
        "mongod",
        "npm",
        "flask",
        "serve",
        "caddy",
        "start",
    ]
)


@rule(
    "missing-expose", 13, Level.INFO,
    ("{program} looks like a server and no EXPOSE says on which port", "{program}看起来是服务程序，但没有用EXPOSE说明端口"),
    ("add EXPOSE with the usual port of the service", "用EXPOSE添加服务的常用端口"),
    bad='FROM node:22\nCMD ["npm", "start"]\n',
    good='FROM node:22\nEXPOSE 3000\nCMD ["npm", "start"]\n',
)  # fmt: skip
def missing_expose(build: Build) -> Iterator[Hit]:
    steps = build.final.all_steps() if build.final else []
    base = split_image((build.final.root if build.final else None) or "").name.rpartition("/")[2]
    if any(step.keyword == "EXPOSE" for step in steps) or base in (
        "nginx",
        "httpd",
        "redis",
        "mysql",
        "postgres",
        "mongo",
        "caddy",
    ):
        return
    commands = [(step, one) for step in steps if step.keyword in ("CMD", "ENTRYPOINT") for one in step.commands or ()]
    for step, one in commands:
        if one.name == "npm" and not _NPM_SERVES & set(one.operands):
            continue  # npm test, npm run build
        if one.name in _SERVERS and (one.name != "start" or base in _RUNTIMES):
            yield hit(step.instruction, program=one.name)
            return


_DATABASES: Final = {
    "mysql": "/var/lib/mysql", "mysql-server": "/var/lib/mysql", "mariadb-server": "/var/lib/mysql", "postgresql": "/var/lib/postgresql",
    "postgresql-server": "/var/lib/pgsql", "mongodb": "/data/db", "mongodb-server": "/data/db", "redis-server": "/data", "redis": "/data",
}  # fmt: skip


@rule(
    "database-without-volume", 14, Level.INFO,
    ("{package} is installed and no VOLUME holds its data", "安装了{package}，但没有用VOLUME保存数据"),
    ("declare where the data lies: VOLUME {folder}", "声明数据目录：VOLUME {folder}"),
    bad="FROM ubuntu:24.04\nRUN apt-get update && apt-get install -y mysql-server\n",
    good="FROM ubuntu:24.04\nRUN apt-get update && apt-get install -y mysql-server\nVOLUME /var/lib/mysql\n",
)  # fmt: skip
def database_without_volume(build: Build) -> Iterator[Hit]:
    steps = build.final.all_steps() if build.final else []
    if any(step.keyword == "VOLUME" for step in steps):
        return
    for step in steps:
        for call in package_calls(step.commands):
            for package in call.packages if installs(call) else ():
                if bare(package) in _DATABASES:
                    yield hit(step.instruction, package=bare(package), folder=_DATABASES[bare(package)])
                    return


_MAX_PATH: Final = 4096  # Linux takes no longer ones


def _volume_of(path: str, volumes: AbstractSet[str]) -> str | None:
    """The outermost of these folders that a path lies in, or is."""
    if not volumes or len(path) > _MAX_PATH:
        return None
    ends = [at for at, char in enumerate(path) if char == "/" and at]
    return next((path[:at] for at in (*ends, len(path)) if path[:at] in volumes), None)


_WRITERS: Final = frozenset(["touch", "mkdir", "cp", "mv", "chown", "chmod", "tee", "install", "ln", "tar"])


@rule(
    "write-below-volume", 14, Level.ERROR,
    ("{path} lies below VOLUME {volume} declared before: the classic builder discards the change", "{path}位于之前声明的VOLUME {volume}之下：传统构建器会丢弃该修改"),
    ("move VOLUME behind the last instruction that writes there", "将VOLUME移到最后一条写入该目录的指令之后"),
    bad="FROM node:22\nVOLUME /data\nRUN touch /data/x\n",
    good="FROM node:22\nRUN mkdir /data && touch /data/x\nVOLUME /data\n",
)  # fmt: skip
def write_below_volume(build: Build) -> Iterator[Hit]:
    for stage in build.stages:
        volumes: set[str] = set()
        for step in stage.steps:
            if step.keyword == "VOLUME":
                volumes |= {value.rstrip("/") for value in step.values if value and value.startswith("/") and value != "/"}
            elif step.keyword == "RUN":
                for command in step.commands or ():
                    written = [*command.writes, *(command.operands if command.name in _WRITERS else ())]
                    below = ((path, volume) for path in written if (volume := _volume_of(path, volumes)) is not None)
                    for path, volume in islice(below, 1):
                        yield hit(step.instruction, line=step.line_of(command), path=path, volume=volume)


@rule(
    "missing-label", 15, Level.INFO,
    ("no LABEL: nothing says what the image is, whose and which version", "没有LABEL：镜像缺少版本、维护者等元数据"),
    ('add one: LABEL com.example.version="0.0.1-beta"', '添加：LABEL com.example.version="0.0.1-beta"'),
    bad="FROM node:22\nCOPY . /app\n",
    good='FROM node:22\nLABEL com.example.version="0.0.1-beta"\n',
)  # fmt: skip
def missing_label(build: Build) -> Iterator[Hit]:
    if build.final is not None and not any(step.keyword == "LABEL" for step in build.final.all_steps()):
        yield hit(build.final.origin)


@rule(
    "maintainer", 15, Level.INFO,
    ("MAINTAINER is deprecated", "MAINTAINER已弃用"),
    ('write LABEL org.opencontainers.image.authors="…"', '改用LABEL org.opencontainers.image.authors="…"'),
    bad="FROM node:22\nMAINTAINER me\n",
    good='FROM node:22\nLABEL org.opencontainers.image.authors="me"\n',
)  # fmt: skip
def maintainer(build: Build) -> Iterator[Hit]:
    yield from (hit(found) for found in build.file.instructions if found.keyword == "MAINTAINER")


@rule(
    "label-key", 15, Level.INFO,
    ("the LABEL {key} is no key as Docker recommends it: {fault}", "LABEL的键{key}不符合Docker的建议：{fault_zh}"),
    ("write a key of lower-case letters, digits, single . and - below a domain of your own: com.example.version",
     "使用自己域名下由小写字母、数字、单个.和-组成的键：com.example.version"),
    bad='FROM node:22\nLABEL Build_Version="0.0.1-beta"\n',
    good='FROM node:22\nLABEL com.example.build-version="0.0.1-beta"\n',
)  # fmt: skip
def label_key(build: Build) -> Iterator[Hit]:
    for found in build.file.instructions:
        for pair in found.pairs if found.keyword == "LABEL" else ():
            key = unquote(pair.key)
            told = next((told for pattern, *told in _LABEL_KEYS if pattern.search(key)), None)
            if told is not None and "$" not in key:
                yield hit(found, key=key, fault=told[0], fault_zh=told[1])


@rule(
    "missing-dockerignore", 17, Level.WARNING,
    ("the whole folder is copied and {reason}", "复制了整个目录，而{reason_zh}"),
    ("write a .dockerignore beside the Dockerfile with the line .git/", "在Dockerfile旁编写.dockerignore文件，包含一行.git/"),
    bad="FROM node:22\nCOPY . /app\n",
    good="FROM node:22\nCOPY package.json /app/\n",
)  # fmt: skip
def missing_dockerignore(build: Build) -> Iterator[Hit]:
    if build.context is None or (build.context.ignored is not None and excludes(build.context.ignored, ".git")):
        return
    missing = build.context.ignored is None
    reason = "there is no .dockerignore" if missing else ".dockerignore does not name .git"
    reason_zh = "没有.dockerignore文件" if missing else ".dockerignore没有排除.git"
    for stage in build.stages:
        for step in stage.steps:
            if _copies_folder(step):
                yield hit(step.instruction, reason=reason, reason_zh=reason_zh)
                return


RULES: Final = (
    floating_tag, add_local, add_url, copy_before_install, undefined_variable, legacy_env, secret_in_build, invalid_port, ssh_port, missing_expose,
    database_without_volume, write_below_volume, missing_label, label_key, maintainer, missing_dockerignore,
)  # fmt: skip
