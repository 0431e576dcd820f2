"""Error tree, exit codes, and the one table of issue codes.

    SwrbatchError
    ├── UsageError       wrong options or arguments                      exit 2
    ├── StoreError       the store or the ledger failed, or a full disk  exit 3
    ├── Refused          a rule of the registry refuses the act          exit 1
    └── Cancelled        the run was interrupted                         exit 130

A fault of an *archive* is never an exception for a caller: it is an `Issue`, a value that names the archive, the place
inside it, the rule and the way out. `CODES` is the only place where a code, its severity and its texts are written.

Texts hold `{parameters}`; `issue()` fills them after `printable()` made them safe for a terminal, a Parquet file and SQL
(archives choose names freely: control characters, lone surrogates).
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

Lang = Literal["en", "zh"]


class ExitCode(enum.IntEnum):
    """What a process of swrbatch ends with."""

    OK = 0
    REJECTED = 1
    USAGE = 2
    STORE = 3
    INTERRUPTED = 130


class SwrbatchError(Exception):
    """Root of all errors that swrbatch raises on purpose."""

    exit_code = ExitCode.STORE


class UsageError(SwrbatchError):
    """An option, an argument or a file of options is wrong."""

    exit_code = ExitCode.USAGE


class StoreError(SwrbatchError):
    """The store or the ledger cannot be read or written."""

    exit_code = ExitCode.STORE


class Cancelled(SwrbatchError):
    """The run was interrupted (Ctrl-C, SIGTERM, `cancel` set by the caller)."""

    exit_code = ExitCode.INTERRUPTED


class Refused(SwrbatchError):
    """A rule of the registry refuses an act; `issue` says which, where, and the way out."""

    exit_code = ExitCode.REJECTED

    def __init__(self, found: Issue) -> None:
        super().__init__(f"{found.message}. {found.way_out}")
        self.issue = found


class Severity(enum.StrEnum):
    """`error` rejects the image (or the archive); `warning` only tells."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Code:
    """One row of the table: a rule, its severity, and what people read about it."""

    code: str
    severity: Severity
    section: str
    swr_code: str
    message: str
    message_zh: str
    way_out: str
    way_out_zh: str


@dataclass(frozen=True, slots=True)
class Issue:
    """A located fault. `place` is a path inside the archive such as `manifest[0].RepoTags[1]`."""

    code: str
    severity: Severity
    archive: str
    place: str
    message: str
    message_zh: str
    way_out: str
    way_out_zh: str
    section: str
    swr_code: str
    image_index: int | None = None
    params: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), compare=False, repr=False)

    @property
    def is_error(self) -> bool:
        return self.severity is Severity.ERROR

    def text(self, lang: Lang = "en") -> str:
        return self.message_zh if lang == "zh" else self.message

    def remedy(self, lang: Lang = "en") -> str:
        return self.way_out_zh if lang == "zh" else self.way_out

    def at(self, *, archive: str | None = None, place: str | None = None, image_index: int | None = None) -> Issue:
        """The same issue with its archive, its place or its image filled in."""
        return replace(
            self,
            archive=self.archive if archive is None else archive,
            place=self.place if place is None else place,
            image_index=self.image_index if image_index is None else image_index,
        )


def printable(value: object, limit: int = 300) -> str:
    """`value` as text that is safe to print and to store: no control characters, no lone surrogates, bounded length."""
    text = str(value)
    if len(text) > limit:
        text = text[:limit] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def to_json_text(value: object) -> str:
    """`value` as JSON in one line that is safe to print: what no terminal should get, and lone surrogates, are escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


class _Names(dict[str, str]):
    """Stands for the parameters of a text: each is named where its value would be."""

    def __missing__(self, name: str) -> str:
        return f"<{name.removesuffix('_zh')}>"


def plain(template: str, **values: str) -> str:
    """A text with its parameters named: `{reference}` becomes `<reference>`."""
    return template.format_map(_Names(values))


def issue(
    code: str,
    *,
    archive: str = "",
    place: str = "",
    image_index: int | None = None,
    params: Mapping[str, object] | None = None,
    **more: object,
) -> Issue:
    """Build the issue `code`; `params` and `more` fill the texts of the table."""
    row = CODES[code]
    params = {**(params or {}), **more}
    clean = {key: printable(value) for key, value in params.items()}
    # A parameter that is a text itself has its Chinese beside it: `missing` and `missing_zh`.
    chinese = {**clean, **{key.removesuffix("_zh"): value for key, value in clean.items() if key.endswith("_zh")}}
    return Issue(
        code=code,
        severity=row.severity,
        archive=archive,
        place=printable(place),
        message=row.message.format_map(clean),
        message_zh=row.message_zh.format_map(chinese),
        way_out=row.way_out.format_map(clean),
        way_out_zh=row.way_out_zh.format_map(chinese),
        section=row.section,
        swr_code=row.swr_code,
        image_index=image_index,
        params=MappingProxyType(clean),
    )


def has_errors(issues: Iterable[Issue]) -> bool:
    return any(i.is_error for i in issues)


def codes_of(issues: Iterable[Issue]) -> list[str]:
    """The distinct codes, in the order in which they were met."""
    return list(dict.fromkeys(i.code for i in issues))


class ArchiveFault(SwrbatchError):
    """Internal carrier of one issue out of a reader; caught at the boundary of an archive, never seen by a caller."""

    exit_code = ExitCode.REJECTED

    def __init__(self, found: Issue) -> None:
        super().__init__(found.message)
        self.issue = found


def fault(code: str, *, place: str = "", **params: object) -> ArchiveFault:
    """`raise fault(...)`: stop reading here; the boundary turns it into the issue."""
    return ArchiveFault(issue(code, place=place, params=params))


def _rows(severity: Severity, table: Iterable[tuple[str, str, str, str, str, str, str]]) -> dict[str, Code]:
    prefix = "SVCSTG.SWR."
    return {
        code: Code(code, severity, section, prefix + swr if swr else "", en, zh, out, out_zh)
        for code, section, swr, en, zh, out, out_zh in table
    }


_RESAVE = "Save the image again: docker save NAME:TAG -o FILE.tar (guide 9.1.4)."
_RESAVE_ZH = "请重新制作镜像压缩包：docker save 镜像名称:版本名称 -o 文件.tar（指南9.1.4）。"
_TRANSFER = "Copy the file again and compare its sha256 with the source's; if it is the same there, save the image again."
_TRANSFER_ZH = "请重新传输文件并与源文件比对sha256；若源文件也损坏，请重新制作镜像压缩包。"
_NAME = "Tag it as REGISTRY/ORGANIZATION/NAME:TAG (docker tag) and save it again, or rename on import with --retag or --into."
_NAME_ZH = "请用 docker tag 改为“镜像仓库地址/组织名称/镜像名称:版本名称”后重新打包，或导入时用 --retag、--into 改名。"

# Columns: code, section of the guide, nearest SWR error code, message, message (zh), way out, way out (zh).
# The SWR codes are those of the service's public error code list.
CODES: Mapping[str, Code] = MappingProxyType(
    _rows(
        Severity.ERROR,
        [
            # --- the archive as a file -----------------------------------------------------------------------------
            ("archive-unreadable", "9.3.3", "4000068", "the file cannot be read: {detail}", "无法读取文件：{detail}",
             "Check the path and the permissions.", "请检查路径和文件权限。"),
            ("archive-empty", "9.3.3", "4000068", "the file is empty", "文件为空", _RESAVE, _RESAVE_ZH),
            ("not-a-tar", "9.3.3", "4000069", "this is no image archive but {what}", "该文件不是镜像压缩包，而是{what}",
             "Only archives written by docker save are imported. " + _RESAVE, "仅支持由 docker save 制作的镜像压缩包。" + _RESAVE_ZH),
            ("compressed-twice", "9.3.3", "4000069", "the archive is compressed twice ({outer}, and {inner} inside)",
             "压缩包被压缩了两次（外层{outer}，内层{inner}）", "Decompress it once.", "请先解压一次。"),
            ("oci-archive", "9.3.3", "4000067", "this is an OCI archive (oci-layout without manifest.json), not a docker archive",
             "这是OCI归档（只有oci-layout，没有manifest.json），不是docker镜像压缩包",
             "Convert it: skopeo copy oci-archive:FILE docker-archive:NEW.tar:REGISTRY/ORGANIZATION/NAME:TAG, or save with docker save.",
             "请转换：skopeo copy oci-archive:文件 docker-archive:新文件.tar:镜像仓库地址/组织名称/镜像名称:版本名称，或用 docker save 重新打包。"),
            ("docker-too-old", "4.3", "4000067", "the archive has no manifest.json: it was saved by a Docker older than 1.10",
             "压缩包中没有manifest.json：由低于1.10版本的Docker制作", "Save it again with a container engine 1.11.2 or newer.",
             "仅支持1.11.2及以上容器引擎客户端版本制作的镜像压缩包，请升级后重新打包。"),
            ("filesystem-export", "9.3.3", "4000067", "this is the file system of a container (docker export), not an image",
             "这是容器文件系统（docker export），不是镜像", "Use docker save IMAGE instead of docker export CONTAINER (or docker import it first).",
             "请使用 docker save 镜像，而不是 docker export 容器（或先 docker import）。"),
            ("manifest-missing", "9.3.3", "4000067", "manifest.json is missing from the archive", "压缩包中缺少manifest.json",
             _RESAVE, _RESAVE_ZH),
            ("archive-truncated", "9.3.3", "4000068", "the archive ends early: {detail}", "压缩包不完整：{detail}",
             _TRANSFER, _TRANSFER_ZH),
            ("archive-changed", "9.3.3", "4000068", "the archive was changed while it was read: its config is another now",
             "读取过程中压缩包被修改：镜像配置已不同", "Import it again when nothing writes to it any more.", "请待文件写入完成后重新导入。"),
            ("archive-corrupt", "9.3.3", "4000068", "the archive is damaged: {detail}", "压缩包已损坏：{detail}",
             _TRANSFER, _TRANSFER_ZH),
            ("too-many-members", "9.3.3", "4000069", "the archive has more than {limit} members", "压缩包中的成员超过{limit}个",
             "Save fewer images into one archive.", "请减少单个压缩包中的镜像数量。"),
            ("header-too-large", "9.3.3", "4000069", "the extended tar headers of a member exceed {limit}", "某成员的扩展tar头超过{limit}",
             _RESAVE, _RESAVE_ZH),
            # --- the metadata in it ----------------------------------------------------------------------------------
            ("metadata-too-large", "9.3.3", "4000069", "{name} is {size}, more than {limit}", "{name}的大小为{size}，超过{limit}",
             _RESAVE, _RESAVE_ZH),
            ("json-invalid", "9.3.3", "4000068", "{name} cannot be parsed: {detail}", "{name}无法解析：{detail}", _RESAVE, _RESAVE_ZH),
            ("json-too-complex", "9.3.3", "4000068", "{name} exceeds the bounds of JSON: {detail}", "{name}超出JSON限制：{detail}",
             _RESAVE, _RESAVE_ZH),
            ("manifest-empty", "9.3.3", "4000067", "manifest.json lists no image", "manifest.json中没有镜像", _RESAVE, _RESAVE_ZH),
            ("manifest-schema", "9.3.3", "4000068", "manifest.json is not docker's: {detail}", "manifest.json格式不正确：{detail}",
             _RESAVE, _RESAVE_ZH),
            ("too-many-images", "9.3.3", "4000069", "manifest.json lists too much: {detail}", "manifest.json内容过多：{detail}",
             "Save fewer images into one archive.", "请减少单个压缩包中的镜像数量。"),
            ("config-missing", "9.3.3", "4000066", "the image's config {name} is not in the archive", "镜像配置{name}不在压缩包中",
             _RESAVE, _RESAVE_ZH),
            ("config-schema", "9.3.3", "4000068", "the image's config is not valid: {detail}", "镜像配置不正确：{detail}", _RESAVE, _RESAVE_ZH),
            ("layer-missing", "9.3.3", "4000065", "the layer {name} is not in the archive", "镜像层{name}不在压缩包中", _RESAVE, _RESAVE_ZH),
            ("path-escape", "9.3.3", "4000069", "{name} points outside of the archive", "{name}指向压缩包之外",
             "Do not trust this file. " + _RESAVE, "请勿信任该文件。" + _RESAVE_ZH),
            ("link-dangling", "9.3.3", "4000065", "the link {name} points to {target}, which is not in the archive",
             "链接{name}指向的{target}不在压缩包中", _RESAVE, _RESAVE_ZH),
            ("link-cycle", "9.3.3", "4000069", "the link {name} goes round in a circle, or is deeper than {limit}",
             "链接{name}循环，或深度超过{limit}", _RESAVE, _RESAVE_ZH),
            ("link-escape", "9.3.3", "4000069", "the link {name} points outside of the archive ({target})", "链接{name}指向压缩包之外（{target}）",
             "Do not trust this file. " + _RESAVE, "请勿信任该文件。" + _RESAVE_ZH),
            ("member-not-regular", "9.3.3", "4000069", "{name} is not a regular file but {kind}", "{name}不是普通文件，而是{kind}",
             _RESAVE, _RESAVE_ZH),
            ("duplicate-members", "9.3.3", "4000029", "{name} stands {count} times in the archive with different content",
             "{name}在压缩包中出现{count}次且内容不同", "Which one is meant cannot be known. " + _RESAVE, "无法判断应使用哪一个。" + _RESAVE_ZH),
            # --- digests ---------------------------------------------------------------------------------------------
            ("diff-id-mismatch", "9.3.3", "4000029", "the layer's content is {actual}, but the config says {expected}",
             "镜像层内容为{actual}，但镜像配置中为{expected}", _TRANSFER, _TRANSFER_ZH),
            ("layer-corrupt", "9.3.3", "4000068", "the {compression} layer cannot be decompressed: {detail}",
             "{compression}压缩的镜像层无法解压：{detail}", _TRANSFER, _TRANSFER_ZH),
            ("layer-count-mismatch", "9.3.3", "4000029", "manifest.json lists {layers} layers, the config {diff_ids} diff_ids",
             "manifest.json中有{layers}层，镜像配置中有{diff_ids}个diff_id", _RESAVE, _RESAVE_ZH),
            # --- names -----------------------------------------------------------------------------------------------
            ("repotags-empty", "9.3.3", "4000064", "the image {image_id} has no name (RepoTags is null or empty)", "镜像{image_id}没有名称（RepoTags为空）",
             "Save by name, not by image ID: docker save REGISTRY/ORGANIZATION/NAME:TAG. Or give names on import with --names (a line ARCHIVE,IMAGE_ID,NAME).",
             "请使用镜像名称而不是镜像ID打包：docker save 镜像仓库地址/组织名称/镜像名称:版本名称；或导入时用 --names 指定（每行：压缩包,镜像ID,名称）。"),
            ("reference-invalid", "9.3.3", "4000028", "the name {reference} is not a valid reference: {detail}",
             "镜像格式不合法：{reference}（{detail}）", _NAME, _NAME_ZH),
            ("registry-missing", "9.3.3", "4000028", "the name {reference} has no registry", "镜像格式不合法：{reference}缺少镜像仓库地址",
             _NAME, _NAME_ZH),
            ("registry-invalid", "9.3.3", "4000028", "the registry {registry} of {reference} is no host[:port]",
             "{reference}的镜像仓库地址{registry}不合法", _NAME, _NAME_ZH),
            ("namespace-missing", "9.3.3", "4000028", "the name {reference} has no organization (namespace)", "镜像格式不合法：{reference}缺少组织名称",
             _NAME, _NAME_ZH),
            ("too-many-parts", "9.3.3", "4000028", "the name {reference} has {parts} parts; registry/namespace/repository are three",
             "镜像格式不合法：{reference}有{parts}段，应为“镜像仓库地址/组织名称/镜像名称”三段", _NAME + " The api profile (--naming api) allows more.",
             _NAME_ZH + "api规则（--naming api）允许多段。"),
            ("namespace-invalid", "9.3.3", "4001028", "the organization {namespace} of {reference} breaks the naming rule: {detail}",
             "{reference}的组织名称{namespace}不合法：{detail}", _NAME, _NAME_ZH),
            ("repository-invalid", "9.3.3", "4001029", "the image name {repository} of {reference} breaks the naming rule: {detail}",
             "{reference}的镜像名称{repository}不合法：{detail}", _NAME, _NAME_ZH),
            ("tag-invalid", "9.3.3", "4000028", "the tag {tag} of {reference} breaks the naming rule: {detail}",
             "{reference}的版本名称{tag}不合法：{detail}", _NAME, _NAME_ZH),
            ("registry-mismatch", "4.1", "4000029", "{reference} is not of the registry {registry}",
             "{reference}不属于镜像仓库{registry}",
             "Import it into the store of that registry, or rename on import with --retag. A store keeps the registry of its init or of its "
             "first image: one that got a wrong name is to be made anew (swrbatch init --registry HOST).",
             "请导入到对应镜像仓库地址的仓库，或导入时用 --retag 改名。仓库地址在 init 或首次导入时确定，如有误请重新创建仓库（swrbatch init --registry 地址）。"),
            ("organization-mismatch", "4.1", "4000029", "{reference} is not in the organization {organization} (--org)",
             "{reference}不在组织{organization}中（--org）", "Import without --org, or rename on import with --retag.",
             "请去掉 --org，或导入时用 --retag 改名。"),
            ("repositories-differ", "9.3.3", "4000029", "manifest.json and the file repositories disagree about the names: {detail}",
             "manifest.json与repositories文件中的名称不一致：{detail}", _RESAVE, _RESAVE_ZH),
            ("reference-conflict", "9.2.1", "4000029", "{reference} stands for two different images in this run, first in {first}",
             "{reference}在本次任务中对应两个不同的镜像，先出现于{first}", "Keep one of them, or import with --on-conflict overwrite.",
             "请只保留一个，或使用 --on-conflict overwrite。"),
            ("retag-collision", "4.1", "4000029", "a renaming rule gives two different images the name {reference}, first in {first}",
             "改名规则使两个不同的镜像同名：{reference}，先出现于{first}", "Make the rule keep what tells them apart (registry, path or tag).",
             "请修改规则，保留能区分镜像的部分（仓库地址、路径或版本）。"),
            ("tag-exists", "9.2.1", "4000029", "{reference} is in the store with another content ({digest})",
             "{reference}在仓库中已存在且内容不同（{digest}）", "Use another tag, or import with --on-conflict overwrite or skip.",
             "请使用其他版本名称，或使用 --on-conflict overwrite 或 skip。"),
            # --- limits ----------------------------------------------------------------------------------------------
            ("page-compression", "4.3", "4000069", "the page takes tar and tar.gz only; this file is compressed with {compression}",
             "页面上传仅支持tar或tar.gz，该文件为{compression}压缩", "Compress it with gzip or not at all, or use --profile client.",
             "请使用gzip压缩或不压缩，或使用 --profile client。"),
            ("archive-too-large", "1.5", "4000069", "the file is {size}; the limit is {limit}", "文件大小为{size}，上限为{limit}",
             "Split the archive (one image each), upload with a client, or raise --max-archive-size.",
             "请拆分压缩包、使用客户端上传，或调整 --max-archive-size。"),
            ("decompressed-too-large", "1.5", "4000069", "the archive decompresses to more than {limit}", "压缩包解压后超过{limit}",
             "Split the archive (one image each), upload with a client, or raise --max-decompressed.",
             "请拆分压缩包、使用客户端上传，或调整 --max-decompressed。"),
            ("layer-too-large", "1.5", "4000069", "the layer is {size}, {how}; the limit is {limit}", "镜像层大小为{size}（{how}），上限为{limit}",
             "Split what the layer holds over several instructions of the Dockerfile, or raise --max-layer-size.",
             "请在Dockerfile中将该层内容拆分为多层，或调整 --max-layer-size。"),
            ("too-many-files", "1.5", "4000069", "this is file {number} of the run; at most {limit} are allowed (--max-files)",
             "这是本次任务的第{number}个文件，最多允许{limit}个（--max-files）", "Run the rest in another call.", "请将其余文件放到下一次任务。"),
            # --- lint ------------------------------------------------------------------------------------------------
            ("lint-findings", "8.1", "", "findings of lint at {level} or above: {count} ({rules})", "lint发现{count}项{level}及以上级别的问题（{rules}）",
             "The report's findings, or swrbatch lint ARCHIVE, tell where and the way out of each. Accept some in --lint-config, or refuse "
             "from another level on with --lint-fail-on.",
             "位置和解决办法见报告的findings表或 swrbatch lint 压缩包；可在 --lint-config 中接受部分问题，或用 --lint-fail-on 调整级别。"),
            ("lint-missing", "8.1", "", "the image was not linted: the archive changed while the run went on",
             "镜像未经lint检查：任务执行期间压缩包发生了变化", "Run it again when nothing writes the archive any more.", "请在压缩包不再被写入后重新执行。"),
            # --- the store's rules -----------------------------------------------------------------------------------
            ("organization-missing", "4.1", "4040058", "the organization {organization} does not exist (--no-create-org)",
             "组织{organization}不存在（--no-create-org）", "Create the organization first, or allow it with --create-org.",
             "请先创建组织，或使用 --create-org。"),
            ("organization-quota", "9.1.5", "4000097", "denied: {user} has {quota} organizations already, {organization} would be one more",
             "denied：用户{user}的组织已达配额{quota}个，无法再创建{organization}", "Upload into an organization that exists; the quota is set by init --org-quota.",
             "请将镜像上传到已存在的组织；配额由 init --org-quota 设置。"),
            ("organization-taken", "9.3.2", "4090060",
             "denied: you do not have the permission. The organization {organization} belongs to the account {owner}",
             "denied: you do not have the permission。组织{organization}已被账号{owner}注册", "Choose another organization: their names are unique in a region.",
             "组织名称全局唯一，请更换组织名称。"),
            ("permission-denied", "6", "4039002", "denied: you do not have the permission. {act}{on} needs {missing}, which {actor} does not have",
             "denied: you do not have the permission。{act}{on}需要{missing}，{actor}不具备", "{ask}", "请{ask}"),
            ("profile-required", "6", "4039002", "the store takes imports under the profile {required} only, not under {profile}",
             "该仓库仅接受 {required} 方式的导入，不接受 {profile}", "Import with --profile {required}.", "请使用 --profile {required} 导入。"),
            # --- organizations, repositories, rights and shares ------------------------------------------------------
            ("organization-name", "9.3.3", "4001028", "the organization name {name} breaks the naming rule: {detail}", "组织名称{name}不合法：{detail}",
             "Choose a name by the rule; --naming api allows what today's API allows.", "请按命名规则重新设置；--naming api 采用当前API的规则。"),
            ("repository-name", "9.3.3", "4001029", "the image name {name} breaks the naming rule: {detail}", "镜像名称{name}不合法：{detail}",
             "Choose a name by the rule; --naming api allows what today's API allows.", "请按命名规则重新设置；--naming api 采用当前API的规则。"),
            ("repository-exists", "4.5", "", "the repository {repository} exists already, with other attributes", "镜像{repository}已存在，且属性不同",
             "Change its attributes: swrbatch repo edit.", "请修改其属性：swrbatch repo edit。"),
            ("organization-exists", "9.1.6", "4090060", "the organization {organization} exists already; it belongs to another user",
             "组织{organization}已存在，可能已被其他用户使用", "Names of organizations are unique in the whole region: choose another one.",
             "组织名称全局唯一，请重新设置一个组织名称。"),
            ("organization-unknown", "5", "4040058", "there is no organization {organization}", "组织{organization}不存在",
             "See swrbatch org list; make it with swrbatch org create.", "请查看 swrbatch org list，或用 swrbatch org create 创建。"),
            ("organization-not-empty", "5", "4060053", "the organization {organization} holds images: {count}", "组织{organization}下仍有{count}个镜像",
             "Delete its images first: swrbatch repo delete.", "请先删除组织下的所有镜像：swrbatch repo delete。"),
            ("repository-unknown", "4.5", "4040113", "there is no repository {repository}", "镜像{repository}不存在",
             "See swrbatch repo list; make it with swrbatch repo create or by an import.", "请查看 swrbatch repo list，或用 swrbatch repo create、import 创建。"),
            ("tag-unknown", "4.5", "4040115", "there is no tag {reference}", "镜像版本{reference}不存在", "See swrbatch tag list.", "请查看 swrbatch tag list。"),
            ("description-too-long", "4.5", "4131012", "the description has {length} characters; the limit is {limit}", "描述共{length}个字符，上限为{limit}",
             "Shorten the description.", "请缩短描述。"),
            ("share-public", "4.6", "", "{repository} is public: only private images are shared", "{repository}为公开镜像，仅支持共享私有镜像",
             "Everybody can download it already; or make it private: swrbatch repo edit --private.", "所有用户均可下载；如需共享请改为私有：swrbatch repo edit --private。"),
            ("share-own-account", "4.6", "", "{repository} belongs to the account {account} itself", "{repository}本就属于账号{account}",
             "Give its users a permission: swrbatch grant set.", "请为其用户授权：swrbatch grant set。"),
            ("share-quota", "9.2.2", "", "{repository} is shared with {limit} accounts already", "{repository}已共享给{limit}个账号，达到上限",
             "Remove a share first: swrbatch share remove.", "请先删除一个共享：swrbatch share remove。"),
            ("share-exists", "4.6", "", "{repository} is shared with {account} already, on other terms", "{repository}已以其他条件共享给{account}",
             "Change it: swrbatch share edit.", "请修改：swrbatch share edit。"),
            ("share-deadline", "4.6", "", "the deadline {deadline} of a share of {repository} is past", "{repository}的共享截止日期{deadline}已过",
             "Give a later time (UTC), or forever.", "请设置晚于当前的时间（UTC），或 forever（永久有效）。"),
            ("share-unknown", "4.6", "", "{repository} is not shared with {account}", "{repository}未共享给{account}", "See swrbatch share list.", "请查看 swrbatch share list。"),
            ("trigger-name", "4.7", "", "the trigger name {name} is invalid: {detail}", "触发器名称{name}不合法：{detail}",
             "Use 1 to 64 letters, digits, _ and -: a letter first, no _ or - side by side or at the end.",
             "字母开头，由字母、数字、下划线、中划线组成，下划线、中划线不能连续且不能作为结尾，1-64个字符。"),
            ("trigger-condition", "4.7", "", "the trigger cannot be set: {detail}", "触发条件不合法：{detail}",
             "Use all, a tag, or a pattern with * ** ? {{a,b}}.", "请使用全部触发、指定版本号，或包含 * ** ? {{a,b}} 的规则。"),
            ("trigger-exists", "4.7", "", "{repository} has a trigger {name} already, which says something else", "{repository}已有触发器{name}，内容不同",
             "Change it: swrbatch trigger edit.", "请修改：swrbatch trigger edit。"),
            ("trigger-unknown", "4.7", "", "{repository} has no trigger {name}", "{repository}没有触发器{name}", "See swrbatch trigger list.",
             "请查看 swrbatch trigger list。"),
            ("administrator-last", "6", "", "{user} is the last administrator of the account {account}", "{user}是账号{account}的最后一个管理员",
             "Add another one first: swrbatch admin add.", "请先添加其他管理员：swrbatch admin add。"),
            # --- verify ----------------------------------------------------------------------------------------------
            ("blob-missing", "", "", "the blob {digest} of {reference} is missing", "{reference}的数据{digest}缺失",
             "Import the image's archive again ({source}).", "请重新导入该镜像的压缩包（{source}）。"),
            ("blob-corrupt", "", "", "the blob {digest} is damaged: {detail}", "数据{digest}已损坏：{detail}",
             "verify --deep --repair sets it aside; then import the archives that hold it again.",
             "请执行 verify --deep --repair 将其移除，然后重新导入相关压缩包。"),
            ("manifest-invalid", "", "", "the manifest {digest} of {reference} cannot be used: {detail}", "{reference}的manifest {digest}不可用：{detail}",
             "Import the image's archive again.", "请重新导入该镜像的压缩包。"),
            ("link-missing", "", "", "the link {path} of {reference} is missing", "{reference}的链接{path}缺失",
             "verify --repair writes it again.", "请执行 verify --repair 重新写入。"),
            ("link-invalid", "", "", "the link {path} does not hold a digest", "链接{path}的内容不是摘要", "verify --repair writes it again.",
             "请执行 verify --repair 重新写入。"),
            ("ledger-damaged", "", "", "the ledger is damaged: {detail}", "账本已损坏：{detail}",
             "Restore ledger.db from a backup, or import the archives into a new store.", "请从备份恢复 ledger.db，或将压缩包导入新的仓库目录。"),
            ("chain-broken", "7.1", "", "the chain of events breaks at sequence {seq}: {detail}", "事件链在序号{seq}处中断：{detail}",
             "The ledger was changed by something else; compare with the last export.", "账本被其他程序修改，请与最近一次导出比对。"),
            ("replay-differs", "7.1", "", "replaying the events gives {expected} for {reference}, the tag table has {actual}",
             "按事件重放{reference}应为{expected}，标签表中为{actual}", "The ledger was changed by something else; compare with the last export.",
             "账本被其他程序修改，请与最近一次导出比对。"),
        ],
    )
    | _rows(
        Severity.WARNING,
        [
            ("duplicate-unused", "", "", "{name} stands {count} times with different content, but no image uses it",
             "{name}出现{count}次且内容不同，但没有镜像使用它", "Nothing to do.", "无需处理。"),
            ("index-disagrees", "", "", "index.json and manifest.json disagree: {detail}", "index.json与manifest.json不一致：{detail}",
             "manifest.json is what counts; save again if the other was meant.", "以manifest.json为准；如有疑问请重新打包。"),
            ("index-extra-image", "", "", "index.json names {name}, which manifest.json does not list: it is not imported",
             "index.json中的{name}不在manifest.json中，不会导入", "Save that image by its name if it is wanted.", "如需要该镜像，请按名称重新打包。"),
            ("config-name-mismatch", "", "", "the config's file name {name} is not its sha256 {actual}", "镜像配置的文件名{name}与其sha256 {actual}不符",
             "The image ID is the sha256 of the config; nothing to do unless the file was edited.", "镜像ID以配置的sha256为准；若文件未被修改则无需处理。"),
            ("history-missing", "", "", "the config has no history", "镜像配置中没有history", "Nothing to do.", "无需处理。"),
            ("history-mismatch", "", "", "the history tells of {history} layers, the config of {diff_ids}", "history中有{history}层，镜像配置中有{diff_ids}层",
             "Nothing to do.", "无需处理。"),
            ("image-without-layers", "", "4000065", "the image has no layers", "镜像没有层", "Nothing to do if the image is meant to be empty.",
             "若镜像确实为空则无需处理。"),
            ("oci-manifest-differs", "", "", "the OCI manifest in the archive does not agree with manifest.json: {detail}; it is made anew",
             "压缩包中的OCI manifest与manifest.json不一致：{detail}；将重新生成", "The digest differs from the producer's; nothing to do otherwise.",
             "摘要与制作方不同，其余无需处理。"),
            ("attestations-left-out", "", "", "{count} attestation manifests are left out", "略去{count}个证明（attestation）manifest",
             "Nothing to do: a docker archive's image has none.", "无需处理。"),
            ("platforms-left-out", "", "", "other platforms are left out: {detail}", "略去其他平台：{detail}",
             "Save each platform by itself if it is wanted (docker save --platform).", "如需要其他平台，请分别打包（docker save --platform）。"),
            ("reference-repeated", "9.2.1", "", "{reference} stands for two different images in this run, first in {first}: the last one is kept",
             "{reference}在本次任务中对应两个不同的镜像，先出现于{first}：保留最新上传的镜像", "Check the order, or use --on-conflict fail.",
             "请检查顺序，或使用 --on-conflict fail。"),
            ("docker-version-old", "4.3", "", "the image was built by Docker {version}; SWR takes archives made by 1.11.2 and newer",
             "镜像由Docker {version}构建；SWR仅支持1.11.2及以上版本", "Only a hint: the config names the builder, not the client that saved.",
             "仅供参考：配置记录的是构建者的版本，而非打包客户端的版本。"),
            ("foreign-tag", "", "", "{reference} ({digest}) was pushed by something else: the ledger has no event for it",
             "{reference}（{digest}）由其他程序推送，账本中没有对应事件", "Import it to make it known, or leave it.", "如需记录请导入该镜像，否则可忽略。"),
            ("foreign-overwrite", "", "", "{reference} was pushed over by something else: the registry serves {actual}, the ledger has {expected}",
             "{reference}被其他程序覆盖：仓库中为{actual}，账本中为{expected}", "Import the wanted image again: the newest upload is kept.",
             "请重新导入所需镜像：保留最新上传的镜像。"),
            ("map-stale", "", "", "the layer {diff_id} is noted as {digest}, which is not there", "镜像层{diff_id}记录为{digest}，但数据不存在",
             "verify --repair forgets the note.", "请执行 verify --repair 清除该记录。"),
        ],
    )
)
