"""A rule and what it finds, as values. Texts, examples and check of a rule stand together: docs can be generated.

A rule has up to three forms, which share its id and its switch: on a Dockerfile, on an image (config, history, layers), on a
Kubernetes workload.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..errors import Lang, printable
from .build import Build
from .instructions import Instruction

if TYPE_CHECKING:
    from .view import ImageView
    from .workload import WorkloadFile


class Level(enum.StrEnum):
    """How much a finding matters; `--fail-on` names one."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"

    @property
    def rank(self) -> int:
        return {"error": 3, "warning": 2, "info": 1}[self.value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A place where a rule holds: lines from 1, what fills the texts, a level of its own where the rule only guesses."""

    line: int
    end_line: int
    params: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    level: Level | None = None


def hit(found: Instruction, *, line: int | None = None, level: Level | None = None, **params: object) -> Hit:
    """A hit on an instruction, from `line` on if a command inside it is meant."""
    clean = {key: printable(value, 120) for key, value in params.items()}
    return Hit(line=line or found.line, end_line=found.end_line, params=MappingProxyType(clean), level=level)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHit:
    """A place of an image where a rule holds.

    `place` is a path in the layer, or what of config and history is meant (`config.User`, `history[3]`); `layer` counts from 0;
    `bytes` is what it costs. `guess` tells that the base image's share is not known but guessed. `mark` tells apart hits at one
    place that are not the same matter.
    """

    place: str
    layer: int | None = None
    bytes: int | None = None
    params: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    level: Level | None = None
    guess: bool = False
    mark: str = ""


def image_hit(
    place: str,
    *,
    layer: int | None = None,
    size: int | None = None,
    level: Level | None = None,
    guess: bool = False,
    mark: str = "",
    **params: object,
) -> ImageHit:
    """A hit on an image; the parameters fill the texts."""
    clean = {key: printable(value, 120) for key, value in params.items()}
    return ImageHit(
        place=printable(place, 400),
        layer=layer,
        bytes=size,
        params=MappingProxyType(clean),
        level=level,
        guess=guess,
        mark=mark,
    )


Check = Callable[[Build], Iterable[Hit]]
ImageCheck = Callable[["ImageView"], Iterable[ImageHit]]
WorkloadCheck = Callable[["WorkloadFile"], Iterable[Hit]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageForm:
    """A rule on an image: its check and, where they differ from the rule's own, its texts and level."""

    id: str
    level: Level
    message: str
    message_zh: str
    way_out: str
    way_out_zh: str
    check: ImageCheck


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule: `practice` counts the guide's section 8.1 (1 to 17; 0: none of them). `section` is number and heading in the guide.

    `bad` and `good` are whole Dockerfiles, also of a rule that looks at the image built from them, or whole manifests of a
    workload. A form that is None does not exist.
    """

    id: str
    practice: int
    section: str
    level: Level
    message: str
    message_zh: str
    way_out: str
    way_out_zh: str
    bad: str
    good: str
    check: Check | None = None
    image: ImageForm | None = None
    workload: WorkloadCheck | None = None

    @property
    def forms(self) -> tuple[str, ...]:
        """The forms that the rule has, out of dockerfile, image and workload."""
        pairs = (("dockerfile", self.check), ("image", self.image), ("workload", self.workload))
        return tuple(name for name, check in pairs if check is not None)

    def text(self, language: Lang) -> str:
        return self.message_zh if language == "zh" else self.message

    def remedy(self, language: Lang) -> str:
        return self.way_out_zh if language == "zh" else self.way_out

    def heading(self, language: Lang) -> str:
        """Where the guide has it: `8.1 no. 4: a specific tag`; "" for what it does not speak of."""
        number = self.section.partition(" ")[0]
        if self.practice:
            count = f"{number}第{self.practice}项：" if language == "zh" else f"{number} no. {self.practice}: "
            return count + PRACTICES[self.practice][language == "zh"]
        if not number:
            return ""
        return f"{number} {CHAPTERS[number][1]}" if language == "zh" else f"{number}: {CHAPTERS[number][0]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a rule found: in the lines of a file (from 1, both included), or in an image.

    `snippet` is the first line as written, of an image the step of its history. For an image `image` is its name, `layer` the
    diff_id of a layer ("" for none), `place` a path in it or a part of config or history, `bytes` what it costs (null where
    nothing was counted), and the lines are 1. `accepted` says why it does not count: what the configuration says, or `baseline`.
    """

    rule: str
    level: Level
    path: str
    line: int
    end_line: int
    message: str
    message_zh: str
    way_out: str
    way_out_zh: str
    section: str
    snippet: str
    fingerprint: str
    image: str = ""
    layer: str = ""
    place: str = ""
    bytes: int | None = None
    accepted: str = ""

    def text(self, language: Lang) -> str:
        return self.message_zh if language == "zh" else self.message

    def remedy(self, language: Lang) -> str:
        return self.way_out_zh if language == "zh" else self.way_out

    @property
    def location(self) -> str:
        """Where, for people: `Dockerfile:3`, `FILE.tar team/app:1 etc/passwd`; of a store's image the full name alone."""
        if not self.image:
            return f"{printable(self.path)}:{self.line}"
        parts = ("" if f"/{self.image}".endswith(f"/{self.path}") else self.path, self.image, self.place)
        return " ".join(printable(part) for part in parts if part)


def spelled_alike(path: str) -> str:
    """A path, however it was spelled: from the working folder on where it lies below that (`./a`, `b/../a`: `a`)."""
    try:
        return _from_here(path, os.getcwd())
    except FileNotFoundError:  # the working folder is gone
        return os.path.normpath(path)


@functools.lru_cache
def _from_here(path: str, here: str) -> str:
    relative = os.path.relpath(path, here) if path else ""
    return os.path.normpath(path) if relative.split(os.sep, 1)[0] == os.pardir else relative


def fingerprint(rule: str, path: str, *parts: str) -> str:
    """What tells a finding from others from run to run: a hash of its place."""
    # Names are an image's own: none may hold what parts them, and so pass for another place.
    parts = tuple(part.replace("\0", "\\0") for part in (rule, spelled_alike(path), *parts))
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()


Texts = tuple[str, str]  # English and Chinese
# The headings of the guide's section 8.1 in English and, as the guide has them, in Chinese; 0 stands for what it does not name.
PRACTICES: tuple[Texts, ...] = (
    ("", ""),
    ("one process a container", "一个容器只运行一个进程"),
    ("no upgrades in the build", "不要在构建中升级版本"),
    ("RUNs that change together are one", "将变化频率一样的RUN指令合一"),
    ("a specific tag", "使用特定的标签"),
    ("no files left over", "删除多余文件"),
    ("a fitting base image", "选择合适的基础镜像"),
    ("WORKDIR and CMD", "设置WORKDIR和CMD"),
    ("ENTRYPOINT (optional)", "使用ENTRYPOINT（可选）"),
    ("exec in the ENTRYPOINT's script", "ENTRYPOINT脚本中使用exec"),
    ("COPY before ADD", "优先使用COPY"),
    ("the order of COPY and RUN", "合理调整COPY与RUN的顺序"),
    ("default variables, ports and volumes", "设置默认的环境变量、映射端口和数据库逻辑卷"),
    ("EXPOSE for ports", "使用EXPOSE暴露端口"),
    ("VOLUME for data", "使用VOLUME管理数据库逻辑卷"),
    ("LABEL for metadata", "使用LABEL设置镜像元数据"),
    ("HEALTHCHECK", "添加HEALTHCHECK"),
    ("a .dockerignore file", "编写.dockerignore文件"),
)
# Of the sections as such.
CHAPTERS: Mapping[str, Texts] = MappingProxyType(
    {
        "8.1": ("how to write an efficient Dockerfile", "编写高效的Dockerfile"),
        "9.4.1": ("CCE cannot pull, as not logged in", "为什么CCE工作负载拉取SWR内的镜像异常，且提示为“未登录”？"),
    }
)


def _section(practice: int) -> str:
    return f"8.1 {PRACTICES[practice][1]}".strip()


def rule(id: str, practice: int, level: Level, message: Texts, way_out: Texts, *, bad: str, good: str) -> Callable[[Check], Rule]:
    """Make a rule on Dockerfiles of the check below it."""

    def made(check: Check) -> Rule:
        return replace(_rule(id, _section(practice), practice, level, message, way_out, bad, good), check=check)

    return made


def _rule(id: str, section: str, practice: int, level: Level, message: Texts, way_out: Texts, bad: str, good: str) -> Rule:
    return Rule(
        id=id,
        practice=practice,
        section=section,
        level=level,
        message=message[0],
        message_zh=message[1],
        way_out=way_out[0],
        way_out_zh=way_out[1],
        bad=bad,
        good=good,
    )


def image_rule(
    id: str, practice: int, level: Level, message: Texts, way_out: Texts, *, bad: str, good: str
) -> Callable[[ImageCheck], Rule]:
    """Make a rule that has only a form on images of the check below it."""

    def made(check: ImageCheck) -> Rule:
        own = _rule(id, _section(practice), practice, level, message, way_out, bad, good)
        return replace(own, image=image_form(own)(check))

    return made


def image_form(
    of: Rule, level: Level | None = None, message: Texts | None = None, way_out: Texts | None = None
) -> Callable[[ImageCheck], ImageForm]:
    """Make the form on images of a rule of the check below it; what is not given is as the rule has it."""

    def made(check: ImageCheck) -> ImageForm:
        told, out = message or (of.message, of.message_zh), way_out or (of.way_out, of.way_out_zh)
        return ImageForm(
            id=of.id,
            level=level or of.level,
            message=told[0],
            message_zh=told[1],
            way_out=out[0],
            way_out_zh=out[1],
            check=check,
        )

    return made


def workload_rule(
    id: str, section: str, level: Level, message: Texts, way_out: Texts, *, bad: str, good: str
) -> Callable[[WorkloadCheck], Rule]:
    """Make a rule on Kubernetes workloads of the check below it."""

    def made(check: WorkloadCheck) -> Rule:
        return replace(_rule(id, section, 0, level, message, way_out, bad, good), workload=check)

    return made
