"""Results as text for people. Widths count East Asian characters as two columns."""

from __future__ import annotations

import json
import re
import shutil
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..errors import Issue, Lang, printable
from ..sizes import format_size

if TYPE_CHECKING:
    from ..lint.rule import Finding
    from ..results import IssueRow
    from ..tables import RunResult
    from ..triggers import TriggerRun

_LISTED = 60
_ZH = {
    "archive": "压缩包",
    "image": "镜像",
    "status": "结果",
    "loaded": "已导入",
    "overwritten": "已覆盖",
    "unchanged": "未变化",
    "skipped": "已跳过",
    "rejected": "已拒绝",
    "valid": "合格",
    "partial": "部分导入",
    "archives": "压缩包",
    "uploads": "上传批次",
    "bytes in": "读入",
    "bytes stored": "新增存储",
    "saved by reuse": "复用节省",
    "time": "用时",
    "way out": "解决办法",
    "warnings": "警告",
    "warning": "警告",
    "error": "错误",
    "(no name)": "（无名称）",
    "more": "更多",
    "reference": "镜像",
    "image ID": "镜像ID",
    "size": "大小",
    "layers": "层",
    "platform": "平台",
    "updated": "更新时间",
    "digest": "摘要",
    "by": "上传者",
    "info": "提示",
    "files": "文件",
    "known": "已知",
    "ignored": "已忽略",
    "images": "镜像",
    "rule": "规则",
    "level": "级别",
    "code": "代码",
    "kind": "种类",
    "guide": "指南",
    "meaning": "含义",
    "symptom": "问题现象",
    "cause": "问题原因",
    "bad": "反例",
    "good": "正例",
    "see also": "另见",
    "source": "来源",
    "issue": "问题",
    "finding": "审计发现",
    "step": "步骤",
    "not in the guide": "指南未涉及",
    "also named": "其他名称",
    "created": "创建时间",
    "author": "作者",
    "entrypoint": "入口点",
    "command": "启动命令",
    "user": "用户",
    "working dir": "工作目录",
    "environment": "环境变量",
    "ports": "端口",
    "volumes": "逻辑卷",
    "health check": "健康检查",
    "stop signal": "停止信号",
    "label": "元数据标签",
    "efficiency": "空间效率",
    "by dive": "dive的结果",
    "wasted most": "浪费最多的路径",
    "layer": "层",
    "removes": "使失效",
    "added": "新增",
    "changed": "修改",
    "deleted": "删除",
    "sets": "设置",
    "shared layer": "共享的层",
    "saves": "节省",
    "duplicate": "重复文件",
    "copies": "份数",
    "would save": "可节省",
    "file": "文件",
    "(history and layers do not agree)": "（构建历史与层数不一致）",
    "dockerfile": "Dockerfile",
    "workload": "工作负载",
    "swr": "SWR错误码",
    "docker": "docker报错",
}
_UNITS = re.compile(
    r"\s+|[\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef]|[^\s\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef]+"
)
_BELOW = 4  # how far a text is set in below its label
_CLOSES, _OPENS = "，。；：！？、）》」』”’", "（《「『“‘"


def word(text: str, language: Lang) -> str:
    """A label in the language of the user."""
    return _ZH.get(text, text) if language == "zh" else text


def width(text: str) -> int:
    """Columns that a text takes on a terminal."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def sized(size: int, language: Lang) -> str:
    """A size in bytes, to read."""
    text = format_size(size)
    return text.replace(" bytes", "字节").replace(" byte", "字节") if language == "zh" else text


def right(text: str, columns: int) -> str:
    """The text at the right end of as many columns."""
    return " " * (columns - width(text)) + text


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows under a head, columns aligned, two spaces between them."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(width(line[i]) for line in lines) for i in range(len(head))]
    padded = ("  ".join(c + " " * (w - width(c)) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)
    return "\n".join(padded)


def cut(line: str, columns: int) -> str:
    """The line, or as much of it as the terminal has columns for."""
    if width(line) <= columns:
        return line
    line = line[:columns]
    while width(line) > columns - 1:
        line = line[:-1]
    return line + "…"


def wrapped(label: str, value: str, columns: int, broad: int) -> list[str]:
    """Text beside its label, which takes `broad` columns, in lines of `columns`. A word for which that is too narrow (a digest)
    sends all of the text below the label; one that is longer than a line stays whole.

    Chinese breaks between any two characters, but not before a mark that closes and behind one that opens.
    """
    chunks: list[str] = []
    for unit in _UNITS.findall(value):
        if chunks and not unit.isspace() and (unit[0] in _CLOSES or chunks[-1][-1] in _OPENS) and not chunks[-1].isspace():
            chunks[-1] += unit
        else:
            chunks.append(unit)
    longest = max(map(width, chunks), default=0)
    if columns - broad < longest <= columns - _BELOW and broad > _BELOW:
        return [label, *_lines(chunks, columns - _BELOW, " " * _BELOW)]
    first, *more = _lines(chunks, columns - broad, " " * broad)
    return [label + " " * (broad - width(label)) + first.lstrip(), *more]


def _lines(chunks: Iterable[str], room: int, indent: str) -> list[str]:
    lines, line, used = [], "", 0
    for chunk in chunks:
        size = 1 if chunk.isspace() else width(chunk)
        if used + size > room and line:
            lines.append(indent + line.rstrip())
            line, used = "", 0
        if line or not chunk.isspace():
            line, used = line + (" " if chunk.isspace() else chunk), used + size
    return [*lines, indent + line.rstrip()]


def terminal_columns() -> int:
    """Columns of the terminal, or as many as are usual where there is none."""
    return max(40, shutil.get_terminal_size().columns)


def terminal() -> int | None:
    """Columns of the terminal that results go to; None where they go to a program or a file, which get their lines whole."""
    return terminal_columns() if sys.stdout.isatty() else None


def fitted(*texts: str, indent: str = "  ") -> list[str]:
    """Texts set in, broken where the lines of a terminal end."""
    columns = terminal()
    if columns is None:
        return [indent + text for text in texts]
    return [line for text in texts for line in wrapped(indent, text, columns, len(indent))]


def hanging(text: str) -> list[str]:
    """A text broken where the lines of a terminal end, all of it but the first line set in."""
    columns = terminal()
    return [text] if columns is None else set_in(text, columns)


def set_in(text: str, columns: int) -> list[str]:
    """A text in lines of `columns`, all of it but the first line set in by two more."""
    if width(text) <= columns:
        return [text]
    depth = len(text) - len(text.lstrip())
    first, *more = wrapped("", text.lstrip(), columns, depth + 2)
    return [text[:depth] + first.lstrip(), *more]


def rows_cut(lines: str) -> str:
    """The lines of a table, each only as long as those of a terminal."""
    columns = terminal()
    return lines if columns is None else "\n".join(cut(line, columns) for line in lines.split("\n"))


def summary(result: RunResult, language: Lang) -> str:
    """A run: its images, every rejection with its way out, the warnings, and the totals."""
    parts = [_images(result, language), _rejections(result, language), _warnings(result, language), _totals(result, language)]
    return "\n\n".join(part for part in parts if part)


def trigger_lines(runs: Sequence[TriggerRun]) -> list[str]:
    """What triggers did, one a line."""
    return [
        f"trigger {run.trigger} {run.name}: " + (f"failed: {run.error}" if run.error else ", ".join(run.files) or "right already")
        for run in runs
    ]


def _images(result: RunResult, language: Lang) -> str:
    rows = [
        (printable(row.archive), row.reference or row.original_reference or word("(no name)", language), row.status)
        for row in result.images
    ]
    rows += [(printable(row.archive), "-", row.status) for row in result.archives if not row.images]
    order = {row.archive: position for position, row in enumerate(result.archives)}
    by_archive = sorted(rows, key=lambda row: order.get(row[0], 0))
    shown = by_archive if len(rows) <= _LISTED else []
    if not shown:
        return ""
    head = [word(text, language) for text in ("archive", "image", "status")]
    return table(head, [(a, printable(i, 100), word(s, language)) for a, i, s in shown])


def _rejections(result: RunResult, language: Lang) -> str:
    lines = []
    for row in result.issues:
        if row.severity == "error":
            lines += issue_lines(row, language)
    more = "更多说明：swrbatch explain 代码" if language == "zh" else "more of each: swrbatch explain CODE"
    return "\n".join([*lines, more]) if lines else ""


def labelled(label: str, text: str, language: Lang) -> str:
    """A text behind its label."""
    return f"{word(label, language)}{'：' if language == 'zh' else ': '}{text}"


def way_out(found: Issue | Finding, language: Lang) -> str:
    """The way out of an issue or a finding, with its label."""
    return labelled("way out", found.remedy(language), language)


def issue_values(found: Issue) -> dict[str, object]:
    """An issue as programs get it."""
    names = ("code", "severity", "place", "message", "message_zh", "way_out", "way_out_zh")
    return {name: getattr(found, name) for name in names}


def issue_lines(row: IssueRow | Issue, language: Lang) -> list[str]:
    """An issue: where and what, then its way out."""
    message, way_out = (row.message_zh, row.way_out_zh) if language == "zh" else (row.message, row.way_out)
    place = f" {row.place}" if row.place else ""
    return [
        *hanging(f"{word(row.severity, language)} {row.code} {printable(row.archive)}{place}"),
        *fitted(message, labelled("way out", way_out, language)),
    ]


def _warnings(result: RunResult, language: Lang) -> str:
    found = [row for row in result.issues if row.severity != "error"]
    counts = Counter(row.code for row in found)
    lines = []
    for code, count in counts.most_common():
        first = next(row for row in found if row.code == code)
        more = f" (+{count - 1} {word('more', language)})" if count > 1 else ""
        message = first.message_zh if language == "zh" else first.message
        lines.append(f"{word('warning', language)} {code} {printable(first.archive)}: {message}{more}")
    return "\n".join(lines)


def lint_counts(levels: Sequence[str], accepted: Sequence[str], language: Lang) -> list[str]:
    """How many findings there are of each level, and how many that do not count: `accepted` says why."""
    told = [f"{word(level, language)} {levels.count(level)}" for level in ("error", "warning", "info")]
    known = accepted.count("baseline")
    told += [f"{word('known', language)} {known}"] if known else []
    return told + ([f"{word('ignored', language)} {len(accepted) - known}"] if len(accepted) > known else [])


def _lint_counts(result: RunResult, language: Lang) -> str:
    levels = [row.level for row in result.findings if row.accepted is None]
    return ", ".join(lint_counts(levels, [row.accepted for row in result.findings if row.accepted is not None], language))


def _totals(result: RunResult, language: Lang) -> str:
    run = result.run
    uploads = len({row.upload_seq for row in result.archives})
    rows = [("archives", f"{run.archives}")]
    if uploads > 1:
        rows.append(("uploads", f"{uploads}"))
    kinds = ("valid", "rejected") if run.command == "check" else ("loaded", "overwritten", "unchanged", "skipped", "rejected")
    rows += [(kind, str(getattr(run, kind))) for kind in kinds if kind != "skipped" or run.skipped]
    rows += [("lint", _lint_counts(result, language))] if json.loads(run.options)["lint"] else []
    rows.append(("bytes in", format_size(run.bytes_in)))
    if run.command == "import":
        rows.append(("bytes stored", format_size(run.bytes_stored)))
        rows.append(("saved by reuse", format_size(run.bytes_reused)))
    rows.append(("time", f"{(run.ended - run.started) / 1000:.1f} s"))
    labels = [word(label, language) for label, _ in rows]
    broad = max(width(label) for label in labels)
    return "\n".join(f"{label}{' ' * (broad - width(label))}  {row[1]}" for label, row in zip(labels, rows, strict=True))
