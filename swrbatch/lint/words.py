"""Words of a Dockerfile instruction: splitting, quotes, the JSON form, variables. The rules are BuildKit's.

Sources: moby/buildkit, frontend/dockerfile/parser (line parsers) and frontend/dockerfile/shell (lex.go).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

MAX_TEXT: Final = 64 << 10
"""Characters that the variables of one word may stand for."""
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_BRACED: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*|[0-9]+)(:?[-+?]|[#%/].?)?([^{}]*)\}", re.ASCII)


class NotStrings(ValueError):
    """A JSON array whose elements are not all strings: BuildKit refuses it instead of taking it for a shell command."""


def _has_marks(text: str, escape: str) -> bool:
    """Whether anything in the text quotes or escapes; most texts have nothing of it, and are quickly done."""
    return '"' in text or "'" in text or escape in text


def split_words(text: str, escape: str, most: int | None = None) -> list[str]:
    """The words of `text`, the first `most` if that is given, quotes and escapes kept; blanks inside quotes do not split."""
    if not _has_marks(text, escape):
        return text.split() if most is None else text.split(None, most)[:most]
    words: list[str] = []
    word, quote, blank_ok, position = "", "", False, 0
    while position < len(text):
        char = text[position]
        position += 1
        if not quote and char.isspace():
            if word or blank_ok:
                words.append(word)
                if len(words) == most:
                    return words
            word, blank_ok = "", False
            continue
        if char == escape and quote != "'":
            if position == len(text):  # an escape at the very end escapes nothing
                break
            word += char + text[position]
            position += 1
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote, blank_ok = char, True
        word += char
    if word or blank_ok:
        words.append(word)
    return words


def json_form(text: str) -> tuple[str, ...] | None:
    """The strings of a JSON array, None if `text` is no JSON array (it is a shell command then). NotStrings."""
    if not text.lstrip().startswith("["):
        return None
    try:
        # BuildKit decodes one value and does not look at what follows it.
        found, _ = json.JSONDecoder(parse_constant=_refuse).raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(item, str) for item in found):
        raise NotStrings
    return tuple(found)


def _refuse(name: str) -> object:
    raise ValueError(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expanded:
    """A word after quotes and variables: `text` is None where a value is not known; `missing` are names without any value."""

    text: str | None
    missing: tuple[str, ...] = ()


def unquote(word: str, escape: str = "\\") -> str:
    """The word without its quotes and escapes; variables stay as written."""
    if not _has_marks(word, escape):
        return word
    out, quote, position = "", "", 0
    while position < len(word):
        char = word[position]
        position += 1
        if char == escape and quote != "'" and position < len(word):
            char = word[position]
            # Inside double quotes an escape that escapes nothing stays.
            out += char if not quote or char in ('"', "$", escape) else escape + char
            position += 1
        elif quote:
            quote, out = ("", out) if char == quote else (quote, out + char)
        elif char in "'\"":
            quote = char
        else:
            out += char
    return out


def expand(word: str, escape: str, values: Mapping[str, str | None]) -> Expanded:
    """The word with the variables of `values` in place (None: known to be set, not to what).

    A form that is not understood (a nested default, a pattern) makes the text unknown, never missing; so do variables that
    stand for more than `MAX_TEXT` (each of a few dozen ARGs may double the one before).
    """
    if "$" not in word and not _has_marks(word, escape):
        return Expanded(text=word)
    out: list[str] = []
    missing: list[str] = []
    known, quote, position, room = True, "", 0, max(MAX_TEXT, len(word))
    while position < len(word):
        char = word[position]
        position += 1
        if char == escape and quote != "'" and position < len(word):
            out.append(word[position])
            position += 1
        elif char in "'\"" and quote in ("", char):
            quote = "" if quote else char
        elif char == "$" and quote != "'":
            value, name, position = _variable(word, position, values)
            missing += [name] if name else []
            room -= len(value or "")
            known = known and value is not None and room >= 0
            out.append(value or "" if known else "")
        else:
            out.append(char)
    return Expanded(text="".join(out) if known else None, missing=tuple(missing))


def _variable(word: str, position: int, values: Mapping[str, str | None]) -> tuple[str | None, str, int]:
    """The value (None: unknown) of the variable after a `$`, its name when it is missing, and where the word goes on."""
    if match := _NAME.match(word, position):
        name = match[0]
        return (values[name], "", match.end()) if name in values else ("", name, match.end())
    match = _BRACED.match(word, position)
    if match is None:
        return (None, "", len(word)) if word.startswith("{", position) else ("$", "", position)
    name, operator, operand = match[1], match[2] or "", match[3]
    end = match.end()
    value = values.get(name)
    if not operator:
        return (value, "", end) if name in values else ("", name, end)
    if "$" in operand or operator[-1] not in "-+":
        return None, "", end
    if name in values and value is None:
        return None, "", end
    unset = not value if operator[0] == ":" else name not in values
    if operator.endswith("-"):
        return operand if unset else value, "", end
    return "" if unset else operand, "", end
