"""A rule and what it finds, as values. Texts, examples and check of a rule stand together: docs can be generated."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ..errors import Lang, printable
from .build import Build
from .instructions import Instruction


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


Check = Callable[[Build], Iterable[Hit]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule: `practice` counts the guide's section 8.1 (1 to 17; 0: none of them), `bad` and `good` are whole Dockerfiles."""

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
    check: Check

    def text(self, language: Lang) -> str:
        return self.message_zh if language == "zh" else self.message

    def remedy(self, language: Lang) -> str:
        return self.way_out_zh if language == "zh" else self.way_out


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a rule found in a file: the lines are from 1, both included; `snippet` is the first line, as written."""

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

    def text(self, language: Lang) -> str:
        return self.message_zh if language == "zh" else self.message

    def remedy(self, language: Lang) -> str:
        return self.way_out_zh if language == "zh" else self.way_out


Texts = tuple[str, str]  # English and Chinese
# The headings of the guide's section 8.1, in order; 0 stands for what the section does not name.
PRACTICES: tuple[str, ...] = (
    "",
    "一个容器只运行一个进程",
    "不要在构建中升级版本",
    "将变化频率一样的RUN指令合一",
    "使用特定的标签",
    "删除多余文件",
    "选择合适的基础镜像",
    "设置WORKDIR和CMD",
    "使用ENTRYPOINT（可选）",
    "ENTRYPOINT脚本中使用exec",
    "优先使用COPY",
    "合理调整COPY与RUN的顺序",
    "设置默认的环境变量、映射端口和数据库逻辑卷",
    "使用EXPOSE暴露端口",
    "使用VOLUME管理数据库逻辑卷",
    "使用LABEL设置镜像元数据",
    "添加HEALTHCHECK",
    "编写.dockerignore文件",
)


def rule(id: str, practice: int, level: Level, message: Texts, way_out: Texts, *, bad: str, good: str) -> Callable[[Check], Rule]:
    """Make a rule of the check below it."""

    def made(check: Check) -> Rule:
        return Rule(
            id=id,
            practice=practice,
            section=f"8.1 {PRACTICES[practice]}".strip(),
            level=level,
            message=message[0],
            message_zh=message[1],
            way_out=way_out[0],
            way_out_zh=way_out[1],
            bad=bad,
            good=good,
            check=check,
        )

    return made
