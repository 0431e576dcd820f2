"""A report as one HTML page: texts in English or Chinese, pictures and style inside, nothing loaded from anywhere.

The page is for people: of a long list it shows the first rows and says how many there are; the files beside it hold all of them.
What comes from traces is escaped, and control characters are shown as such.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..errors import Lang, printable
from .export import utc_text
from .pictures import catalog_days, drawable, timeline, week
from .rows import TABLES
from .texts import GRANTS, LABELS, TEXTS, VALUES
from .traces import DAY_MS, EARLIEST_MS

if TYPE_CHECKING:
    from .report import Report

TEMPLATE: Final = "report.html.j2"
SHOWN: Final = 50
"""Rows of a list that the page shows."""
_LONGEST: Final = 160
_NUMBERS: Final = ("int64", "double")
_WHOLE: Final = frozenset({"catalog", "exposures", "retention", "differences", "inputs", "late", "uncatalogued", "failure_codes"})
"""Tables that the page shows up to 200 rows of, for each row asks for a decision."""
_NOT_SHOWN: Final = frozenset({"report", "findings", "days", "hours", "activity"})
"""Tables that are shown otherwise, or are there for programs."""
_FIXED: Final = frozenset({"outcome", "rating", "state", "kind", "finding", "action", "before_source"})
"""Columns whose values have words in both languages."""
_KINDS: Final = {
    "code": ("raw", "source_file", "file", "missing"),
    "word": ("trace_name",),
    "address": ("source_ip",),
    "prose": ("message",),
}
"""Columns with a style of their own: those in a fixed width, those that are never broken, and those that need some room."""
_LEFT_OUT: Final[Mapping[str, tuple[str, ...]]] = {
    "catalog": ("other", "operation", "operation_en", "resource_type"),
    "failures": ("resource_type", "account", "trace_id"),
    "access_changes": ("trace_name", "rating", "kind", "code", "before_source", "trace_id"),
    "deletions": ("trace_id",),
    "failure_codes": ("first",),
    "users": ("normal",),
    "addresses": ("normal",),
    "duplicates": ("source_position", "user"),
    "exposures": ("trace_id", "account"),
    "uncatalogued": ("example",),
}
"""Columns that a page has no room for; the files have them."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell: its text, and classes for the style (number, rating, state)."""

    text: str
    kind: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A table as shown: heads, rows of cells, how many rows there are in all, and the files that hold them."""

    name: str
    heads: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]
    total: int


def render(report: Report, lang: Lang) -> str:
    """The page of a report."""
    import jinja2

    loader = jinja2.FileSystemLoader(os.path.dirname(__file__))
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    texts = {name: pair[lang == "zh"] for name, pair in TEXTS.items()}
    return (
        environment.get_template(TEMPLATE).render(
            lang=lang,
            t=texts,
            about=report.about,
            findings=report.findings,
            totals=_totals(report),
            pictures=_pictures(report, lang),
            drawable=drawable(),
            tables={
                name: _shown(report, name, lang)
                for name in TABLES
                if name not in ("report", "findings", "days", "hours", "activity")
            },
            utc=_utc,
            number=_number,
            label=lambda name: LABELS[name][lang == "zh"],
            quoted=lambda text: printable(text, 2000),
        )
        + "\n"
    )


def _totals(report: Report) -> Mapping[str, int]:
    """The numbers at the top."""
    found = {row.code: row.count for row in report.findings}
    names = ("refused", "failed", "incident", "deletion", "access-change", "unknown-event")
    return {"events": report.about.events, **{name: found.get(name, 0) for name in names}}


def _pictures(report: Report, lang: Lang) -> Mapping[str, Any]:
    """SVG elements by name; none where matplotlib is missing or nothing happened.

    Times that cannot be (before there was a CTS, or to come) are left to the tables: one such event would squeeze all others.
    """
    from markupsafe import Markup

    last = report.about.made + DAY_MS
    hours = [row for row in report.rows("hours") if EARLIEST_MS <= row.hour <= last]
    if not drawable() or not hours:
        return {}
    first_day, last_day = utc_text(hours[0].hour)[:10], utc_text(last)[:10]
    days = [row for row in report.rows("days") if row.day is not None and first_day <= row.day <= last_day]
    drawn = {
        "timeline": timeline(hours, lang),
        "week": week(hours, lang),
        "catalog": catalog_days(report.rows("catalog"), days, lang),
    }
    return {name: Markup(svg) for name, svg in drawn.items() if svg}


def _shown(report: Report, name: str, lang: Lang) -> Shown:
    from ..tables import row_columns

    without = {*_LEFT_OUT.get(name, ()), *_alike(report, name)}
    columns = [column for column in row_columns(TABLES[name]) if column.name not in without]
    if name == "catalog":
        columns = [c for c in row_columns(TABLES[name]) if c.name == _operation(lang)] + columns
    heads = [Cell(LABELS[c.name][lang == "zh"], "number" if c.type in _NUMBERS else "") for c in columns]
    rows = report.rows(name, 200 if name in _WHOLE else SHOWN)
    cells = [[_cell(name, c.name, c.type, getattr(row, c.name), lang) for c in columns] for row in rows]
    return Shown(name, heads, cells, report.table(name).num_rows)


def _alike(report: Report, name: str) -> set[str]:
    """Columns that would say the same in every row: the dataset where there is one, the account where there is one."""
    accounts = set(report.table("users").column("account").to_pylist()) - {None}
    chains = set(report.table("retention").column("chain").to_pylist())
    alike = {
        "dataset": len(report.about.datasets) == 1,
        "account": len(accounts) < 2 and name != "users",
        "chain": len(chains) < 2,
    }
    return {column for column, same in alike.items() if same}


def _operation(lang: Lang) -> str:
    return "operation" if lang == "zh" else "operation_en"


def _cell(table: str, name: str, type_: str, value: Any, lang: Lang) -> Cell:
    if value is None:
        return Cell("–", "none")
    if type_ == "timestamp[ms, UTC]":
        return Cell(_utc(value), "time")
    if type_ in _NUMBERS:
        return Cell(_number(value), "number" if value else "number zero")
    if type_ == "bool":
        return Cell(TEXTS["yes" if value else "no"][lang == "zh"], "yes" if value else "no")
    if name == "missing":
        value = tuple(os.path.basename(each) for each in value)
    text = " ".join(value) if isinstance(value, tuple) else str(value)
    if name in ("before", "after"):
        return Cell(printable(_grant(text, lang), _LONGEST), "")
    if (name in _FIXED or (name == "reason" and table == "retention")) and text in VALUES:
        return Cell(VALUES[text][lang == "zh"], f"word {text}")
    return Cell(printable(text, _LONGEST), next((kind for kind, names in _KINDS.items() if name in names), ""))


def _grant(text: str, lang: Lang) -> str:
    """What was granted, its words in the reader's language: `read until 2026-12-31T00:00:00Z`."""
    word = re.match("[a-z]+", text)
    if lang == "en" or word is None or word[0] not in GRANTS:
        return text
    return GRANTS[word[0]] + text[word.end() :].replace(", forever", "，永久有效").replace(" until ", "，至 ")


def _utc(ms: int) -> str:
    """A time to the second, with its Z: `2026-01-31 23:59:59Z`."""
    return utc_text(ms)[:19].replace("T", " ") + "Z"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
