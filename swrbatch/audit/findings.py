"""What a report found, how bad each is, and what it means: the one table of severities that `--fail-on` goes by.

error     the trail or the store is not what it should be, or something serious happened: act now
warning   somebody should look: failures, refusals, unknown events, late, damaged or contradictory records
info      good to know: deletions, changes of access, what stands open, what cannot be known
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from .rows import FindingRow

Severity = Literal["error", "warning", "info"]
SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "info")
"""The worst first."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """A code of findings: its severity, the table that lists them, and what it means."""

    severity: Severity
    table: str
    message: str
    message_zh: str


MEANINGS: Final[Mapping[str, Meaning]] = {
    "chain-broken": Meaning(
        "error",
        "retention",
        "a digest file, or the store's chain of events, is not what its successor says",
        "摘要文件或仓库事件链与其后一项所记录的不一致",
    ),
    "gap-proved": Meaning(
        "error", "retention", "digests or sequence numbers prove that events are missing", "摘要或序号证明存在缺失的事件"
    ),
    "difference": Meaning("error", "differences", "the store's content is not what the events say", "仓库内容与事件记录不一致"),
    "incident": Meaning("error", "failures", "events rated incident: serious", "级别为 incident（严重）的事件"),
    "failed": Meaning("warning", "failures", "operations that failed", "失败的操作"),
    "refused": Meaning("warning", "failures", "operations that were refused (code 4xx)", "被拒绝的操作（返回码 4xx）"),
    "unknown-event": Meaning("warning", "uncatalogued", "events that the catalog does not have", "目录中没有的事件"),
    "own-event": Meaning(
        "info", "uncatalogued", "events of swrbatch itself that the catalog does not have", "swrbatch自身的、目录中没有的事件"
    ),
    "resource-type": Meaning(
        "warning", "uncatalogued", "events whose resource type is not the catalog's", "资源类型与目录不符的事件"
    ),
    "share-past": Meaning(
        "warning", "exposures", "shares that are past their date and still listed", "已过截止日期但仍存在的共享"
    ),
    "late": Meaning("warning", "late", "events whose file came on a later day", "在之后日期才上传的事件"),
    "duplicate-differs": Meaning(
        "warning", "duplicates", "events whose trace_id stands for another content, too", "同一 trace_id 对应不同内容的事件"
    ),
    "rejected": Meaning("warning", "rejects", "records that could not be read", "无法读取的记录"),
    "schema": Meaning("warning", "days", "events that break the contract of a trace", "不符合事件格式的记录"),
    "rating-code": Meaning("warning", "days", "events rated normal with an error code", "级别为 normal 但返回码为错误的事件"),
    "time-unread": Meaning(
        "warning", "days", "events without a readable time: no period has them", "时间无法读取的事件：不属于任何时间段"
    ),
    "time-early": Meaning("warning", "days", "events from before there was a CTS (2015)", "时间早于 CTS 出现（2015 年）的事件"),
    "time-future": Meaning("warning", "days", "events from the future", "时间在将来的事件"),
    "record-early": Meaning("warning", "days", "events recorded before they happened", "记录时间早于发生时间的事件"),
    "user-missing": Meaning("warning", "users", "calls and console actions without a user", "没有用户的调用或控制台操作"),
    "name": Meaning("warning", "days", "events whose resource name breaks the naming rules", "资源名称不符合命名规则的事件"),
    "deletion": Meaning("info", "deletions", "deletions that happened", "已执行的删除操作"),
    "access-change": Meaning(
        "info", "access_changes", "changes of permissions, shares or visibility", "权限、共享或公开属性的变更"
    ),
    "public-repository": Meaning("info", "exposures", "repositories that are public", "公开的镜像仓库"),
    "share-open": Meaning("info", "exposures", "shares that are open", "有效的共享"),
    "coverage-unknown": Meaning(
        "info", "retention", "stretches of time for which nothing proves that no event is missing", "无法证明事件完整的时间段"
    ),
    "left-out": Meaning(
        "info",
        "report",
        "older failures, changes and deletions, and rare addresses, that are counted, but not listed: audit query has them",
        "已计入统计但未列出的较早事件和少见地址：可用 audit query 查询",
    ),
    "duplicate-dropped": Meaning("info", "inputs", "equal records that were dropped", "已去除的重复记录"),
    "other-service": Meaning("info", "report", "events of other services, which count nowhere", "其他服务的事件，不计入统计"),
}

CAUSES: Final[Mapping[str, tuple[str, str]]] = {
    "chain-broken": (
        "An entry was changed, taken out or put in after it was written, or a file is not of this chain.",
        "记录写入后被修改、删除或插入，或文件不属于该链。",
    ),
    "gap-proved": (
        "Files were not delivered, were deleted, or are not in the folder that was ingested.",
        "文件未送达、被删除，或不在所导入的目录中。",
    ),
    "difference": (
        "Something wrote into the store without an event, or what an event tells was undone behind its back.",
        "有程序绕过事件直接写入仓库，或事件所述的结果在事后被改动。",
    ),
    "incident": ("The service itself rates it as a failure that had a serious effect.", "服务自身将其评为造成严重影响的故障。"),
    "failed": ("The service could not carry out the operation.", "服务未能完成该操作。"),
    "refused": (
        "The caller had no right, named something that is not there, or broke a rule.",
        "调用者没有权限、指定的对象不存在，或违反规则。",
    ),
    "unknown-event": (
        "The service has new operations that the catalog does not know yet, or the record is made up.",
        "服务新增了目录尚未收录的操作，或记录系伪造。",
    ),
    "own-event": (
        "swrbatch records acts that the service does not have, such as verify --repair.",
        "swrbatch会记录服务中没有的操作，例如verify --repair。",
    ),
    "resource-type": ("The service was changed, or the record was edited.", "服务发生了变化，或记录被改动。"),
    "share-past": (
        "A share that is past its date gives nobody access; nobody has tidied it up.",
        "过期的共享不再提供访问权限，但没有被清理。",
    ),
    "late": (
        "CTS delivers files some minutes late; a whole day is more than that.",
        "CTS通常在几分钟内投递文件，晚一天则不正常。",
    ),
    "duplicate-differs": (
        "A record was changed after it was delivered once, or two sources disagree.",
        "记录在首次投递后被修改，或两个来源不一致。",
    ),
    "rejected": ("The file is cut off or damaged, or holds something else than traces.", "文件被截断或损坏，或内容不是事件。"),
    "schema": ("Whoever wrote it is not CTS, or CTS writes a new form.", "写入者不是CTS，或CTS采用了新的格式。"),
    "rating-code": (
        "The service rates what it did, not what the caller got.",
        "服务的评级针对其自身行为，而不是调用者得到的结果。",
    ),
    "time-unread": (
        "The field is missing, or neither a number of milliseconds nor a date.",
        "该字段缺失，或既不是毫秒数也不是日期。",
    ),
    "time-early": ("Seconds were taken for milliseconds, or a clock was not set.", "将秒当作毫秒，或时钟未设置。"),
    "time-future": (
        "The clock of the machine that wrote it is fast, or that of this one is slow.",
        "写入机器的时钟偏快，或本机时钟偏慢。",
    ),
    "record-early": ("The clocks of two machines differ, or the record was edited.", "两台机器的时钟不一致，或记录被改动。"),
    "user-missing": (
        "Only what the system does by itself has no user; a call always has one.",
        "只有系统自身的操作没有用户，调用总有用户。",
    ),
    "name": (
        "The API takes names that the console does not, or the record was edited.",
        "API接受控制台不接受的名称，或记录被改动。",
    ),
    "deletion": ("Somebody deleted an image, a tag, a repository or an organization.", "有人删除了镜像、版本或组织。"),
    "access-change": ("Somebody may do more, or less, than before.", "有人获得或失去了权限。"),
    "public-repository": ("Everybody can download its images, without logging in.", "所有人无需授权即可下载其镜像。"),
    "share-open": ("Another account can download these images until the share ends.", "在共享到期前，其他账号可以下载这些镜像。"),
    "coverage-unknown": (
        "There are no digest files for that time, and sequence numbers say nothing about it.",
        "该时间段没有摘要文件，序号也无法说明。",
    ),
    "left-out": ("The page would be too long for a browser.", "页面过长，浏览器无法显示。"),
    "duplicate-dropped": ("The same file, or overlapping exports, were ingested.", "导入了相同的文件或相互重叠的导出。"),
    "other-service": ("The tracker of the bucket records more services than SWR.", "该桶的追踪器还记录SWR以外的服务。"),
}
"""What is usually behind a finding, in English and Chinese."""


def finding_rows(counts: Mapping[str, int]) -> list[FindingRow]:
    """The findings with how many there are of each, the worst first, those without any left out."""
    unknown = {code: Meaning("warning", "days", f"events flagged {code}", f"标记为 {code} 的事件") for code in counts}
    meanings = {**MEANINGS, **{code: meaning for code, meaning in unknown.items() if code not in MEANINGS}}
    return [
        FindingRow(
            severity=meaning.severity,
            code=code,
            count=counts[code],
            table=meaning.table,
            message=meaning.message,
            message_zh=meaning.message_zh,
        )
        for severity in SEVERITIES
        for code, meaning in meanings.items()
        if meaning.severity == severity and counts.get(code)
    ]


def reaches(rows: list[FindingRow], severity: Severity) -> bool:
    """Whether there is a finding of this severity, or of a worse one."""
    bad = SEVERITIES[: SEVERITIES.index(severity) + 1]
    return any(row.severity in bad for row in rows)
