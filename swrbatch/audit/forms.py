"""A group of events as the files of a form: pure, so that the same events give the same bytes.

cts-obs   a file as CTS puts it into a bucket: gzip, one array, `user` as a JSON string
cts-api   a page of the API: `{"meta_data": …, "traces": […]}`, `user` as an object
ocsf      OCSF API Activity, as JSON lines and as Parquet (see `ocsf`)
csv       UTF-8 with a BOM, safe to open in a spreadsheet
"""

from __future__ import annotations

import csv
import datetime
import gzip
import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ..cts import DEFAULT_CATALOG
from ..tables import row_columns
from . import digests, ocsf
from .ledger import ChainedTrace, api_trace
from .traces import Source, TraceRow, compact, read_trace

Form = Literal["parquet", "cts-obs", "cts-api", "ocsf", "csv"]
FORMS: Final[tuple[Form, ...]] = ("parquet", "cts-obs", "cts-api", "ocsf", "csv")
GROUP: Final = {"cts-obs": 5_000, "cts-api": 200, "ocsf": 5_000, "csv": 5_000}
"""Events a file."""

OURS: Final = re.compile(
    r"(?:\.?traces-\d{9,}-\d{9,}\.(?:json|csv)(?:\.tmp)?"
    r"|(?:jsonl|parquet)/\.?traces-\d{9,}-\d{9,}\.(?:jsonl|parquet)(?:\.tmp)?"
    rf"|CloudTraces/[a-z0-9-]+/\d+/\d+/\d+/{digests.TRACKER}/(?:Digest/)?{digests.SERVICE}/"
    rf"\.?{digests.TRACKER}_CloudTrace[A-Za-z0-9_-]*\.json\.gz(?:\{digests.SIGNATURE})?(?:\.tmp)?)",
    re.ASCII,
)
"""The files that an export writes, by their path below the destination, temporary ones too; nothing else is ever removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What forms take from the store's settings, and the moment of the upload, ms UTC."""

    registry: str
    region: str
    now: int


def files(form: Form, group: Sequence[ChainedTrace], context: Context) -> list[tuple[str, bytes]]:
    """The files that hold these events: (path below the destination, content)."""
    name = f"traces-{group[0].seq:09}-{group[-1].seq:09}"
    if form == "cts-obs":
        return [_obs(group, context)]
    if form == "cts-api":
        return [(f"{name}.json", _api(group, context))]
    if form == "ocsf":
        records = [ocsf.record(event, context.region) for event in group]
        return [(f"jsonl/{name}.jsonl", ocsf.json_lines(records)), (f"parquet/{name}.parquet", ocsf.parquet(records))]
    return [(f"{name}.csv", _csv(group, context))]


def _obs(group: Sequence[ChainedTrace], context: Context) -> tuple[str, bytes]:
    values = [{**event.value, "user": compact(event.value["user"])} for event in group]
    raw = compact(values).encode()
    unique = hashlib.sha256(raw).hexdigest()[:16]
    # No time in the gzip header: the same events give the same bytes.
    return digests.key(context.region, context.now // 1000, "CloudTrace", unique), gzip.compress(raw, mtime=0)


def _api(group: Sequence[ChainedTrace], context: Context) -> bytes:
    values = [api_trace(event, context.registry) for event in group]
    body = {"meta_data": {"count": len(values), "marker": values[-1]["trace_id"]}, "traces": values}
    return json.dumps(body, ensure_ascii=False, indent=1).encode()


def _csv(group: Sequence[ChainedTrace], context: Context) -> bytes:
    names = [c.name for c in row_columns(TraceRow) if c.name not in ("source_file", "region", "uploaded", "violations")]
    text = io.StringIO(newline="")
    # Everything in quotes: where a spreadsheet takes another sign than the comma to part cells, a text must not fall apart
    # into cells that begin with what it likes.
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(names)
    for event in group:
        row = read_trace(event.value, Source(name=""), event.seq, context.now, DEFAULT_CATALOG)
        writer.writerow([spreadsheet(getattr(row, name), name) for name in names])
    return text.getvalue().encode("utf-8-sig")


# What begins with one of these is a formula to some program (OWASP, CSV injection; the wide forms are read as the narrow ones).
_FORMULA: Final = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r")
_INVISIBLE: Final = re.compile(r"[\s\x00-\x1f\x7f\u00ad\u200b-\u200f\u2060\ufeff]*")


def spreadsheet(value: object, name: str = "") -> str:
    """A value as a cell that no spreadsheet takes for a formula; times (`time`, `record_time`, `uploaded`) as text with a Z."""
    if value is None:
        return ""
    if name in ("time", "record_time", "uploaded") and isinstance(value, int):
        return utc_text(value)
    if isinstance(value, bool | int | float):
        return str(value)
    text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    start = _INVISIBLE.match(text)
    shown = text[start.end() :] if start else text
    return "'" + text if shown.startswith(_FORMULA) or text.startswith(_FORMULA) else text


def utc_text(ms: int) -> str:
    """A time in ms UTC as `2026-01-31T23:59:59.999Z`."""
    moment = datetime.datetime.fromtimestamp(ms / 1000, tz=datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03}Z"
