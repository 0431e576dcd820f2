"""The pictures of a report as SVG, to stand inside a page: a timeline by rating, the hours of the week, the catalog day by day.

Their texts stay text (`svg.fonttype` none) in the page's own fonts, so that Chinese shows with whatever font the reader's browser
has; matplotlib lays out with its own one, which every installation has, and so the same rows give the same bytes everywhere.
Only names of the catalog stand in them, never a text from a trace.

matplotlib comes with the extra `report`. Without it there are no pictures (`drawable`), and the page says so.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.util
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from ..errors import Lang
from .rows import CatalogRow, DayRow, HourRow
from .traces import DAY_MS, HOUR_MS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS: Final[Mapping[str, str]] = {"normal": "#4f81b0", "warning": "#e09f3e", "incident": "#b3261e", "other": "#8a8f98"}
"""Of the ratings; they differ in lightness too, for those who do not tell the hues apart, and in print."""
_INK: Final = "#3d4450"
_GRID: Final = "#e3e6ea"
_EMPTY: Final = "#f4f5f7"
_WIDTH: Final = 10.4
_RC: Final = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.unicode_minus": False,
}
_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "normal": ("normal", "正常 normal"),
    "warning": ("warning (failed)", "警告 warning（失败）"),
    "incident": ("incident (serious)", "事故 incident（严重）"),
    "other": ("no known rating", "未知级别"),
    "all": ("all events", "全部事件"),
    "bad": ("failed and serious only", "仅失败与严重事件"),
    "hour": ("hour of the day (UTC)", "时刻（UTC）"),
    "most": ("most in one cell: {}", "单格最多：{}"),
}
_WEEKDAYS: Final = (("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"), ("周一", "周二", "周三", "周四", "周五", "周六", "周日"))


def drawable() -> bool:
    """Whether matplotlib is there."""
    return importlib.util.find_spec("matplotlib") is not None


def timeline(rows: Sequence[HourRow], lang: Lang) -> str:
    """Events by rating over time, in hours, days or weeks; below, those that went wrong on a scale of their own."""
    step, form = _step(rows)
    ratings = [r for r in COLORS if any(_rating(row) == r for row in rows)]
    slots = _slots(rows, step)
    counts = {rating: [0] * len(slots) for rating in ratings}
    for row in rows:
        counts[_rating(row)][(_floor(row.hour, step) - slots[0]) // step] += row.events
    bad = [rating for rating in ratings if rating != "normal"]
    with _figure(3.6 if bad else 2.2) as figure:
        upper = figure.add_axes((0.065, 0.52 if bad else 0.2, 0.92, 0.36 if bad else 0.58))
        parts = [(upper, ratings, "all")]
        if bad:
            parts.append((figure.add_axes((0.065, 0.1, 0.92, 0.28)), bad, "bad"))
        for axes, shown, title in parts:
            _bars(axes, [counts[rating] for rating in shown], [COLORS[rating] for rating in shown])
            axes.set_title(_word(title, lang), loc="left", fontsize=9, color=_INK)
            _time_ticks(axes, slots, form)
        names = [_word(rating, lang) for rating in ratings]
        _legend(figure, names, [COLORS[rating] for rating in ratings])
        return _svg(figure, "timeline")


def week(rows: Sequence[HourRow], lang: Lang) -> str:
    """Events by weekday and hour of the day (UTC): work outside of working hours stands out."""
    cells = [[0] * 24 for _ in range(7)]
    for row in rows:
        moment = datetime.datetime.fromtimestamp(row.hour / 1000, tz=datetime.UTC)
        cells[moment.weekday()][moment.hour] += row.events
    with _figure(2.5) as figure:
        axes = figure.add_axes((0.065, 0.2, 0.92, 0.66))
        _cells(axes, cells)
        axes.set_yticks([y + 0.5 for y in range(7)], _WEEKDAYS[lang == "zh"])
        axes.set_xticks([x + 0.5 for x in range(24)], [f"{x:02}" for x in range(24)])
        axes.set_xlabel(_word("hour", lang))
        _most(figure, cells, lang)
        return _svg(figure, "week")


def catalog_days(entries: Sequence[CatalogRow], rows: Sequence[DayRow], lang: Lang) -> str:
    """Every event of the catalog, day by day (or week by week): the rows that stay empty are shown as such."""
    days = [row for row in rows if row.day is not None]
    if not days:
        return ""
    moments = [_day_ms(str(row.day)) for row in days]
    reach = max(moments) - min(moments)
    step = DAY_MS if reach <= 62 * DAY_MS else _weeks(reach, 106)
    begin = _floor(min(moments), step)
    width = (_floor(max(moments), step) - begin) // step + 1
    place = {entry.trace_name: position for position, entry in enumerate(entries)}
    cells = [[0] * width for _ in entries]
    for row, moment in zip(days, moments, strict=True):
        cells[place[row.trace_name]][(_floor(moment, step) - begin) // step] += row.events
    height = 0.75 + 0.19 * len(entries)
    with _figure(height) as figure:
        axes = figure.add_axes((0.285, 0.42 / height, 0.7, (height - 0.75) / height))
        _cells(axes, cells)
        axes.set_yticks([y + 0.5 for y in range(len(entries))], [entry.trace_name for entry in entries], fontsize=8)
        form, most = ("%m-%d", 10) if step == DAY_MS else ("%Y-%m-%d", 7)
        _time_ticks(axes, [begin + step * n for n in range(width)], form, middle=0.5, most=most)
        _most(figure, cells, lang)
        return _svg(figure, "catalog")


# --- parts -------------------------------------------------------------------------------------------------------------


def _word(name: str, lang: Lang) -> str:
    return _WORDS[name][lang == "zh"]


def _rating(row: HourRow) -> str:
    return row.rating if row.rating in ("normal", "warning", "incident") else "other"


def _floor(ms: int, step: int) -> int:
    """The beginning of its hour, day, or week (from Monday)."""
    shift = 4 * DAY_MS if step % (7 * DAY_MS) == 0 else 0
    return (ms - shift) // step * step + shift


def _step(rows: Sequence[HourRow]) -> tuple[int, str]:
    """What one bar stands for, and how its time is written."""
    reach = rows[-1].hour - rows[0].hour
    if reach <= 3 * DAY_MS:
        return HOUR_MS, "%m-%d %H:%M"
    return (DAY_MS if reach <= 120 * DAY_MS else _weeks(reach, 212)), "%Y-%m-%d"


def _weeks(reach: int, most: int) -> int:
    """The number of weeks, in ms, of which about `most` fill the time: years do not fit in week by week."""
    return 7 * DAY_MS * -(-reach // (7 * DAY_MS * most))


def _slots(rows: Sequence[HourRow], step: int) -> list[int]:
    return list(range(_floor(rows[0].hour, step), _floor(rows[-1].hour, step) + 1, step))


def _day_ms(day: str) -> int:
    return int(datetime.datetime.fromisoformat(day).replace(tzinfo=datetime.UTC).timestamp()) * 1000


@contextlib.contextmanager
def _figure(height: float) -> Iterator[Figure]:
    """A figure of the page's width, in inches, with this module's own settings: a user's matplotlibrc does not count."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        # Chinese glyphs are missing in the font of the layout only.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)  # type: ignore[arg-type, unused-ignore]
        yield Figure(figsize=(_WIDTH, height))


def _bars(axes: Axes, series: Sequence[Sequence[int]], colors: Sequence[str]) -> None:
    bottom = [0] * len(series[0])
    for values, color in zip(series, colors, strict=True):
        axes.bar(range(len(values)), values, width=0.82, bottom=bottom, color=color, linewidth=0)
        bottom = [below + value for below, value in zip(bottom, values, strict=True)]
    axes.set_xlim(-0.6, len(bottom) - 0.4)
    axes.set_ylim(0, max(1, max(bottom)) * 1.08)
    _plain(axes)
    axes.yaxis.grid(visible=True, color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.yaxis.get_major_locator().set_params(integer=True, nbins=4)  # type: ignore[call-arg, unused-ignore]
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _plain(axes: Axes) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0)
    # The first time may reach below the lowest number of the other axis.
    axes.tick_params(axis="x", pad=6)


def _time_ticks(axes: Axes, slots: Sequence[int], form: str, middle: float = 0.0, most: int = 10) -> None:
    """At most so many times along the axis, at slots."""
    every = -(-len(slots) // most)
    chosen = range(0, len(slots), every)
    texts = [datetime.datetime.fromtimestamp(slots[n] / 1000, tz=datetime.UTC).strftime(form) for n in chosen]
    axes.set_xticks([n + middle for n in chosen], texts)


def _cells(axes: Axes, cells: Sequence[Sequence[int]]) -> None:
    """A heat map; what is empty has a colour of its own, and one event can be told from none."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import LinearSegmentedColormap

    colors = LinearSegmentedColormap.from_list("events", ["#cfdeec", "#7fa8cc", "#2f6699", "#12304f"])
    most = max(1, max(max(line) for line in cells))
    # The square root, or one busy hour makes all others look alike.
    shades = [colors((count / most) ** 0.5) if count else _EMPTY for line in cells for count in line]
    squares = [_square(x, y) for y, line in enumerate(cells) for x in range(len(line))]
    # One collection: hundreds of patches take matplotlib longer than all else.
    axes.add_collection(PolyCollection(squares, facecolors=shades, linewidths=0), autolim=False)
    axes.set_xlim(0, len(cells[0]))
    axes.set_ylim(len(cells), 0)
    _plain(axes)
    axes.spines["bottom"].set_visible(False)


def _square(x: int, y: int) -> Sequence[tuple[float, float]]:
    """The corners of a cell, with a little room around it."""
    left, right, top, bottom = x + 0.04, x + 0.96, y + 0.06, y + 0.94
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _most(figure: Figure, cells: Sequence[Sequence[int]], lang: Lang) -> None:
    most = max(max(line) for line in cells)
    height = figure.get_figheight()
    figure.text(0.985, 1 - 0.2 / height, _word("most", lang).format(f"{most:,}"), ha="right", fontsize=8)


def _legend(figure: Figure, names: Sequence[str], colors: Sequence[str]) -> None:
    """Names from the right to the left in steps that fit both languages: widths of Chinese texts cannot be measured."""
    from matplotlib.patches import Rectangle

    height = figure.get_figheight()
    for position, (name, color) in enumerate(zip(names, colors, strict=True)):
        x = 0.985 - 0.155 * (len(names) - position)
        y = 1 - 0.2 / height
        figure.patches.append(
            Rectangle((x, y), 0.012, 0.1 / height, transform=figure.transFigure, facecolor=color, linewidth=0, figure=figure)
        )
        figure.text(x + 0.017, y, name, fontsize=8)


def _svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element: no header, no metadata, no fixed size, and ids that are this picture's own."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": f"swrbatch-{name}"}):
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    body = text.getvalue()
    body = body[body.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->|<style.*?</style>", "", body, flags=re.DOTALL)
    body = body.replace("font-family: 'DejaVu Sans'; ", "")
    body = re.sub(r' id="(?:figure|axes|patch|PolyCollection|text|matplotlib\.axis|xtick|ytick|line2d)_\d+"', "", body)
    body = re.sub(r'^<svg([^>]*?) width="[^"]*"', r"<svg\1", body)
    body = re.sub(r'^<svg([^>]*?) height="[^"]*"', r"<svg\1", body)
    return re.sub(r"\n\s*", "\n", body).strip()
