"""`swrbatch explain`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ExitCode, Lang, UsageError, printable, to_json_text
from ..redaction import redacted
from .options import Format, FormatOption, LangOption, Language, exits, lang, show, tell
from .text import rows_cut, set_in, table, terminal_columns, width, word, wrapped

if TYPE_CHECKING:
    from ..explain.entry import Entry
    from ..explain.match import Explanation, Match

app = typer.Typer(rich_markup_mode=None)
_LABEL = 12
_SHOWN = 2000  # characters of a query of which some are shown
_FULL = 5  # entries that are shown in full, of those that are equally likely
_OTHERS = 5  # others that are named


@app.command("explain")
def explain(
    text: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CODE|TEXT", help="A code of ours or of SWR's, or an error as it was shown; - for standard input."
        ),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List all that can be explained.")] = False,
    format: FormatOption = Format.TEXT,
    language: LangOption = Language.EN,
) -> None:
    """Explain a code or the text of an error: symptom, cause, way out, section of the guide.

    Codes are those of check, import, lint and the audit report, and those of SWR's API. A text is found by the words of an error
    that stand in it, whatever stands around them. Exit codes: 0 explained, 1 nothing found, 2 wrong usage.
    """
    from ..explain.entries import entries
    from ..explain.match import explain as find

    with exits():
        if list_:
            show(_listing(entries(), format, lang(language)))
            return
        query = _query(text or [])
        found = find(query)
        if format is Format.JSON:
            show(to_json_text(_to_json(query, found)))
        elif found.matches:
            show(_to_text(found, lang(language)))
        else:
            tell(_nothing(query, found, lang(language)))
    if not found.matches:
        raise typer.Exit(int(ExitCode.REJECTED))


def _query(words: list[str]) -> str:
    from ..explain.match import MAX_TEXT

    text = " ".join(words)
    if text == "-":
        data = sys.stdin.buffer.read(MAX_TEXT + 1)
        text = data.decode("utf-8", "replace")
    if len(text.encode("utf-8", "replace")) > MAX_TEXT:
        raise UsageError(f"the text is longer than {MAX_TEXT >> 10} KiB: give the lines of the error alone")
    if not text.strip():
        raise UsageError("name a code, or give the text of an error (- for standard input); --list lists what is known")
    return text


def _to_text(found: Explanation, language: Lang) -> str:
    """The likeliest in full, the others by name."""
    best = found.best[:_FULL]
    blocks = ["\n".join(_block(match.entry, language)) for match in best]
    others = [match for match in found.matches if match not in best][:_OTHERS]
    if others:
        head = "也可能是" if language == "zh" else "or else"
        blocks.append("\n".join([f"{head}{'：' if language == 'zh' else ':'}", *_names([m.entry for m in others], language)]))
    return "\n\n".join(blocks)


def _block(entry: Entry, language: Lang) -> Iterator[str]:
    number = entry.heading[language == "zh"] or entry.section
    section = f"  {word('guide', language)}{'' if language == 'zh' else ' '}{number}" if number else ""
    yield from set_in(f"{entry.id}  {word(entry.level, language)}{section}", terminal_columns())
    symptom, cause, way_out = entry.texts(language)
    rows = [
        ("symptom", symptom),
        ("cause", cause),
        ("way out", way_out),
        ("see also", ", ".join(entry.related)),
    ]
    rows += [("bad", _as_it_stands(entry.bad)), ("good", _as_it_stands(entry.good)), ("source", entry.source(language))]
    for label, value in rows:
        named = f"  {word(label, language)}"
        for line in value.split("\n") if value else ():
            if line.startswith("  "):
                yield named + " " * (_LABEL - 2 - width(named)) + line
            else:
                yield from wrapped(named, line, terminal_columns(), _LABEL)
            named = ""


def _as_it_stands(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines()).rstrip("\n")


def _names(entries: list[Entry], language: Lang) -> list[str]:
    rows = [(entry.id, _meaning(entry, language)) for entry in entries]
    broad = max(len(name) for name, _ in rows)
    return [rows_cut(f"  {name:<{broad}}  {meaning}") for name, meaning in rows]


def _meaning(entry: Entry, language: Lang) -> str:
    """One line of what it is: of an issue or a code of the API the cause, since the symptom is only that it is told."""
    symptom, cause, _ = entry.texts(language)
    return cause if entry.kind in ("issue", "swr") else symptom


def _nothing(query: str, found: Explanation, language: Lang) -> str:
    shown = printable(redacted(" ".join(query[:_SHOWN].split())), 100)
    head = f"swrbatch: 没有找到对{shown}的解释" if language == "zh" else f"swrbatch: nothing is known of {shown}"
    if not found.nearest:
        return head + ("；全部条目见 swrbatch explain --list" if language == "zh" else "; see swrbatch explain --list")
    near = "最接近的条目：" if language == "zh" else "nearest to it:"
    return "\n".join([head, near, *_names(list(found.nearest), language)])


def _listing(entries: tuple[Entry, ...], format: Format, language: Lang) -> str:
    if format is Format.JSON:
        return to_json_text([_entry_json(entry) for entry in entries])
    head = [word(text, language) for text in ("code", "kind", "level", "guide", "meaning")]
    rows = [
        (
            entry.id,
            word(entry.kind, language),
            word(entry.level, language),
            entry.section.partition(" ")[0],
            _meaning(entry, language),
        )
        for entry in entries
    ]
    return rows_cut(table(head, rows))


def _to_json(query: str, found: Explanation) -> dict[str, Any]:
    return {
        "query": printable(redacted(query[:_SHOWN])),
        "matches": [_match_json(match) for match in found.matches],
        "nearest": [entry.id for entry in found.nearest],
    }


def _match_json(match: Match) -> dict[str, Any]:
    return {**_entry_json(match.entry), "how": match.how, "weight": round(match.weight, 3)}


def _entry_json(entry: Entry) -> dict[str, Any]:
    """An entry: the fields of `Entry`, each text and its Chinese."""
    pairs = {"symptom": entry.symptom, "cause": entry.cause, "way_out": entry.way_out}
    texts = {name + suffix: pair[at] for name, pair in pairs.items() for at, suffix in enumerate(("", "_zh"))}
    return {
        **{name: getattr(entry, name) for name in ("kind", "id", "level", "section")},
        **texts,
        "related": list(entry.related),
        "bad": entry.bad,
        "good": entry.good,
        "source": entry.source("en"),
    }
