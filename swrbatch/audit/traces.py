"""One CTS trace as it comes, in any of its shapes, as one typed row: the exact reader, slow and complete.

Shapes read (CTS documentation, official samples; see the project's facts page): times as ms or as `2016/12/08 11:07:28
GMT+08:00`; users as an object, as a JSON string (files in a bucket), as a plain string, or none; request and response as text,
object or nothing; codes as numbers or strings; `trace_status` (function trigger) for `trace_rating`. Nothing is lost: keys
that no column takes stand in `extra`, and so does a value that its own column cannot take. A key whose value is null is as
good as none.

A row is judged twice: by the contract (`schemas/cts-trace.schema.json`; `violations` explains) and by meaning (`flags`).
"""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Final

from ..cts import entry_of
from ..policy import why_invalid
from ..results import Millis
from ..schemas import validator

TEXTS: Final = (
    "trace_id",
    "trace_name",
    "trace_type",
    "event_type",
    "service_type",
    "resource_type",
    "resource_name",
    "resource_id",
    "resource_account_id",
    "source_ip",
    "api_version",
    "message",
    "request_id",
    "location_info",
    "endpoint",
    "resource_url",
    "user_agent",
    "operation_id",
    "enterprise_project_id",
    "project_id",
    "domain_id",
    "tracker_name",
)
"""Columns that are the trace's own key as text."""

RATINGS: Final = ("normal", "warning", "incident")

FLAGS: Final[Mapping[str, str]] = {
    "schema": "breaks the contract of a trace; `violations` says where",
    "unknown-event": "the catalog has no such event for SWR",
    "resource-type": "the catalog gives this event another resource type",
    "rating-code": "rated normal with an error code of 400 or more",
    "time-unread": "the time cannot be read; it stands in `time_text`",
    "time-early": "before 2015, when there was no CTS",
    "time-future": "more than a day after its file was uploaded, or after now",
    "record-early": "recorded before it happened",
    "user-missing": "a call or a console action without a user",
    "name": "the resource name breaks the naming rules",
    "late": "its file was uploaded on a later day (UTC)",
    "duplicate-differs": "the same trace_id stands for another content",
}

MAX_DEPTH: Final = 100
"""Levels of objects and arrays in a trace, and in a text of it that is read as JSON."""
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
EARLIEST_MS: Final = 1_420_070_400_000  # 2015-01-01T00:00:00Z
_TIME: Final = re.compile(r"(\d{4})[/-](\d{1,2})[/-](\d{1,2}) (\d{2}):(\d{2}):(\d{2}) GMT([+-])(\d{2}):(\d{2})", re.ASCII)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
MAX_MS: Final = 253_402_300_799_999  # the last millisecond that datetime knows
NAMED: Final = frozenset({"image", "imagerepository", "imagetag", "userrepositoryauth", "imagerepositoryaccessdomain"})
"""Resource types whose name is [organization/]repository[:tag]; that of `usernamespace` is the organization."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRow:
    """A trace: the columns of a dataset."""

    trace_id: Annotated[str | None, "UUID; the key for duplicates"]
    time: Annotated[Millis | None, "when the operation happened"]
    record_time: Annotated[Millis | None, "when CTS recorded it"]
    time_text: Annotated[str | None, "the time as written, where it was text"]
    record_time_text: Annotated[str | None, "the record time as written, where it was text"]
    trace_name: Annotated[str | None, "event of the catalog"]
    trace_rating: Annotated[str | None, "normal, warning (failed), incident (serious): the outcome"]
    trace_type: Annotated[str | None, "ApiCall, ConsoleAction, SystemAction, ObsSDK, ObsAPI, Others"]
    event_type: Annotated[str | None, "system for management events"]
    service_type: Annotated[str | None, "such as SWR"]
    resource_type: Annotated[str | None, "such as image"]
    resource_name: Annotated[str | None, "such as organization/repository:tag"]
    resource_id: Annotated[str | None, "id of the resource"]
    resource_account_id: Annotated[str | None, "account of the resource"]
    user_id: Annotated[str | None, "user.id"]
    user_name: Annotated[str | None, "user.name, else user.user_name, else the user where it is plain text"]
    user_account_id: Annotated[str | None, "user.domain.id, else user.account_id"]
    user_account_name: Annotated[str | None, "user.domain.name"]
    user_text: Annotated[str | None, "the user as it came, as JSON or plain text"]
    code: Annotated[str | None, "code as text"]
    request: Annotated[str | None, "request as text; an object as compact JSON"]
    response: Annotated[str | None, "response as text; an object as compact JSON"]
    source_ip: Annotated[str | None, "where it came from"]
    api_version: Annotated[str | None, "version of the API"]
    message: Annotated[str | None, "remark"]
    request_id: Annotated[str | None, "id of the request (may be the text null)"]
    location_info: Annotated[str | None, "where the request failed"]
    endpoint: Annotated[str | None, "endpoint of the resource"]
    resource_url: Annotated[str | None, "page of the resource"]
    user_agent: Annotated[str | None, "client"]
    operation_id: Annotated[str | None, "id of the operation"]
    enterprise_project_id: Annotated[str | None, "enterprise project"]
    project_id: Annotated[str | None, "project"]
    domain_id: Annotated[str | None, "account that the trace is stored for"]
    tracker_name: Annotated[str | None, "tracker"]
    read_only: Annotated[bool | None, "whether it only reads"]
    content_length: Annotated[float | None, "bytes of the body"]
    total_time: Annotated[float | None, "duration"]
    extra: Annotated[str | None, "keys that no column takes, as JSON"]
    region: Annotated[str | None, "region in the file's key"]
    uploaded: Annotated[Millis | None, "upload time in the file's name"]
    source_file: Annotated[str, "the file, relative to what was given"]
    source_position: Annotated[int, "position of the trace in its file, from 0"]
    flags: Annotated[tuple[str, ...], "what its meaning breaks, sorted"]
    violations: Annotated[tuple[str, ...], "where it breaks the contract: JSON pointer and reason"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The file that traces come from. `region` and `uploaded` (ms UTC) are what its key tells, None when it tells nothing."""

    name: str
    region: str | None = None
    uploaded: int | None = None


def compact(value: Any) -> str:
    """A JSON value as compact text, keys as they came."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def sorted_json(value: Any) -> str:
    """A JSON value as compact text, keys sorted."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def mended(text: str) -> str:
    """Lone surrogates become U+FFFD: neither Parquet nor a terminal can hold them."""
    if _SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def too_deep(value: Any, text: str) -> bool:
    """Whether a JSON value, whose text is `text`, has more than `MAX_DEPTH` levels; whoever walks it recurses that deep."""
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return False
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            each for one in level if isinstance(one, dict | list) for each in (one.values() if isinstance(one, dict) else one)
        ]
    return any(isinstance(each, dict | list) for each in level)


def parse_time(value: object) -> tuple[int | None, str | None]:
    """A time in ms UTC, and its text where it is not a plain number."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON Schema takes 1.0 for an integer
    if isinstance(value, int) and not isinstance(value, bool):
        return (value, None) if 0 <= value <= MAX_MS else (None, compact(value))
    if not isinstance(value, str):
        return None, None if value is None else compact(value)
    match = _TIME.fullmatch(value)
    if match is None:
        return None, value
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    offset = datetime.timedelta(hours=int(match[8]), minutes=int(match[9]))
    try:
        moment = datetime.datetime(year, month, day, hour, minute, second, tzinfo=datetime.UTC)
        moment = moment - offset if match[7] == "+" else moment + offset
    except (ValueError, OverflowError):
        return None, value
    ms = int(moment.timestamp()) * 1000
    return (ms if 0 <= ms <= MAX_MS else None), value


def read_trace(value: Mapping[str, Any], source: Source, position: int, now: int, catalog_name: str) -> TraceRow:
    """A JSON object as a row, checked. `now` in ms UTC is the time that a run holds for the present."""
    rest = {key: each for key, each in value.items() if each is not None}
    row: dict[str, Any] = {name: as_text(rest.pop(name, None)) for name in (*TEXTS, "code", "request", "response")}
    row["trace_rating"] = as_text(rest.pop("trace_rating" if "trace_rating" in rest else "trace_status", None))
    for name in ("time", "record_time"):
        row[name], row[f"{name}_text"] = parse_time(rest.pop(name, None))
    row |= dict(zip(USER_COLUMNS, read_user(rest.pop("user", None)), strict=True))
    row["read_only"] = rest.pop("read_only") if isinstance(rest.get("read_only"), bool) else None
    for name in ("content_length", "total_time"):
        row[name] = as_float(rest.get(name))
        if row[name] is not None:
            del rest[name]
    row["extra"] = sorted_json(rest) if rest else None
    row |= {"region": source.region, "uploaded": source.uploaded, "source_file": source.name, "source_position": position}
    row["violations"] = explain(value)
    row["flags"] = tuple(sorted(_flags(row, now, catalog_name)))
    return TraceRow(**row)


def as_float(value: object) -> float | None:
    """A JSON number as a finite float."""
    if not is_number(value):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}", re.ASCII)
_TIME_TEXT: Final = re.compile(
    r"[0-9]{4}[/-][0-9]{1,2}[/-][0-9]{1,2} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT[+-][0-9]{2}:[0-9]{2}", re.ASCII
)
_TEXT_OR_NULL: Final = tuple(name for name in TEXTS if name not in ("trace_id", "trace_name"))


def is_trace_name(text: str) -> bool:
    """Whether the contract takes it as the name of an event."""
    return _NAME.fullmatch(text) is not None


def conforms(value: Mapping[str, Any]) -> bool:
    """The verdict of `schemas/cts-trace.schema.json`, without the cost of explaining it; a test holds the two together."""
    get = value.get
    trace_id, name = get("trace_id"), get("trace_name")
    return (
        isinstance(trace_id, str)
        and 1 <= len(trace_id) <= 128
        and isinstance(name, str)
        and is_trace_name(name)
        and get("trace_rating") in RATINGS
        and is_time(get("time"))
        and (get("record_time") is None or is_time(get("record_time")))
        and all(isinstance(get(key), str | None) for key in _TEXT_OR_NULL)
        and isinstance(get("user"), dict | str | None)
        and isinstance(get("request"), dict | list | str | None)
        and isinstance(get("response"), dict | list | str | None)
        and (isinstance(get("code"), str | None) or is_number(get("code")))
        and isinstance(get("read_only"), bool | None)
        and all(get(key) is None or is_number(get(key)) for key in ("content_length", "total_time"))
    )


def is_number(value: object) -> bool:
    """Whether a JSON value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_time(value: object) -> bool:
    """Whether the contract takes it as a time."""
    if isinstance(value, str):
        return _TIME_TEXT.fullmatch(value) is not None
    # JSON Schema takes 1.0 for an integer.
    return is_number(value) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))


def explain(value: Mapping[str, Any]) -> tuple[str, ...]:
    """Where a trace breaks its contract; the function trigger's `trace_status` counts as the rating."""
    if value.get("trace_rating") is None and "trace_status" in value:
        value = {**value, "trace_rating": value["trace_status"]}
    if conforms(value):
        return ()
    errors = validator("cts-trace.schema.json").iter_errors(value)
    return tuple(sorted(f"/{'/'.join(map(str, e.absolute_path))}: {e.message[:200]}" for e in errors))


def as_text(value: object) -> str | None:
    """A JSON value as a column has it: text as it is, anything else as compact JSON."""
    return value if isinstance(value, str) or value is None else compact(value)


USER_COLUMNS: Final = ("user_id", "user_name", "user_account_id", "user_account_name", "user_text")
_NO_USER: Final = (None, "", "null", "{}")


def read_user(value: object) -> tuple[str | None, ...]:
    """The user's columns. In files of a bucket the user is an object in a JSON string; old files have a plain name."""
    text = as_text(value)
    parsed = value
    if isinstance(value, str):
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            parsed = None
        if parsed is not None and too_deep(parsed, value):
            parsed = None
    if not isinstance(parsed, dict):
        plain = value if isinstance(value, str) and value not in _NO_USER and not value.startswith("{") else None
        return None, plain, None, None, text
    domain = parsed.get("domain")
    domain = domain if isinstance(domain, dict) else {}
    account = domain.get("id") or parsed.get("account_id")
    name = parsed.get("name") or parsed.get("user_name")
    found = (as_text(each) for each in (parsed.get("id"), name, account, domain.get("name")))
    return *(None if each is None else mended(each) for each in found), text


def _flags(row: Mapping[str, Any], now: int, catalog_name: str) -> set[str]:
    """What the meaning of a row breaks (`FLAGS`), but for what only the whole dataset tells."""
    found = set()
    if row["violations"]:
        found.add("schema")
    if flag := event_flag(catalog_name, row["service_type"], row["trace_name"], row["resource_type"]):
        found.add(flag)
    if row["trace_rating"] == "normal" and row["code"] is not None and is_error(row["code"]):
        found.add("rating-code")
    found |= _time_flags(row, now)
    if user_due(row["trace_type"]) and no_user(row["user_text"]):
        found.add("user-missing")
    if row["service_type"] == "SWR" and not name_fits(row["resource_type"], row["resource_name"]):
        found.add("name")
    return found


def event_flag(catalog_name: str, service: str | None, trace_name: str | None, resource_type: str | None) -> str | None:
    """What the catalog says against an event of SWR; a trace that names no service is taken for one."""
    if service not in (None, "SWR"):
        return None
    entry = entry_of(catalog_name, trace_name or "")
    if entry is None:
        return "unknown-event"
    return None if entry.resource_type == resource_type else "resource-type"


def is_error(code: str) -> bool:
    """Whether a code says that something failed: an HTTP status of 400 or more."""
    return re.fullmatch("[4-9][0-9]{2}", code, re.ASCII) is not None


def user_due(trace_type: str | None) -> bool:
    """Whether such a trace has a user; the system's own acts have none."""
    return trace_type in ("ApiCall", "ConsoleAction")


def no_user(user_text: str | None) -> bool:
    """Whether a user's text names nobody."""
    return user_text in _NO_USER


def _time_flags(row: Mapping[str, Any], now: int) -> set[str]:
    time, recorded, uploaded = row["time"], row["record_time"], row["uploaded"]
    if time is None:
        return {"time-unread"}
    found = set()
    if time < EARLIEST_MS:
        found.add("time-early")
    if time > (now if uploaded is None else uploaded) + DAY_MS:
        found.add("time-future")
    if recorded is not None and recorded < time:
        found.add("record-early")
    if uploaded is not None and uploaded // DAY_MS > time // DAY_MS:
        found.add("late")
    return found


def name_fits(kind: str | None, name: str | None) -> bool:
    """Whether a resource name of SWR could be one; refused uploads are recorded by their file's name, and not judged."""
    if not name or kind not in (*NAMED, "usernamespace") or name.endswith((".tar", ".gz", ".tgz")):
        return True
    if kind == "usernamespace":
        return not why_invalid("namespace", name, "api")
    path, _, tag = name.partition(":")
    namespace, slash, repository = path.partition("/")
    if not slash:
        return not why_invalid("repository", namespace, "api")
    return not (
        why_invalid("namespace", namespace, "api")
        or why_invalid("repository", repository, "api")
        or (tag and why_invalid("tag", tag, "api"))
    )


assert {f.name for f in fields(TraceRow)} >= set(TEXTS)
