"""Which tags a trigger is for, and how a trigger may be named (guide 4.7, table 4-3). Pure functions over values.

The three kinds of condition, as the API spells them: `all` (condition `.*`), `tag` (one tag, exactly) and `regular`, which is no
regular expression but a pattern with four wildcards:

    *       any run of characters without /, an empty one too
    **      any run of characters
    ?       one character that is not /
    {a,b}   one of the options; an option is a pattern again, may be empty, and spaces around it do not count (no tag has any)

A pattern becomes Glushkov's automaton: a state for each character of the pattern, what may follow it, and no empty steps. The
states that a tag can be in are the bits of a number, so that matching takes time proportional to pattern times tag whatever the
two are; there is nothing to backtrack.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from .errors import UsageError, printable
from .policy import why_invalid

TriggerType = Literal["all", "tag", "regular"]
TRIGGER_TYPES: Final = ("all", "tag", "regular")
ALL: Final = ".*"
"""The condition that the API states for `all`."""
MAX_PATTERN: Final = 512
MAX_NESTING: Final = 8
MAX_TRIGGER_NAME: Final = 64
# Deterministic: after a separator there is a letter or a digit, so no text can be read in two ways.
_NAME: Final = re.compile(r"[A-Za-z](?:[_-]?[A-Za-z0-9])*", re.ASCII)
_LITERAL: Final = re.compile(r"[A-Za-z0-9_./-]", re.ASCII)
_WILDCARDS: Final = "regular knows the wildcards * ** ? {a,b} only"


def why_invalid_trigger_name(name: str) -> str:
    """The rules of table 4-3 that a trigger's name breaks, in a few words; "" when it is valid."""
    if not name:
        return "it is empty: write 1 to 64 characters"
    found = []
    if len(name) > MAX_TRIGGER_NAME:
        found.append(f"it has {len(name)} characters, {MAX_TRIGGER_NAME} at most")
    if not re.match("[A-Za-z]", name):
        found.append("it begins with no letter")
    if other := re.search("[^A-Za-z0-9_-]", name):
        found.append(f"character {other.start() + 1}, {printable(other[0])!r}: letters, digits, _ and - are allowed")
    if twice := re.search("[_-]{2}", name):
        found.append(f"character {twice.start() + 1}: _ and - do not stand side by side")
    if name[-1] in "_-":
        found.append("it ends with _ or -")
    assert bool(found) != (_NAME.fullmatch(name) is not None and len(name) <= MAX_TRIGGER_NAME)
    return "; ".join(found)


@dataclass(frozen=True, slots=True)
class Condition:
    """Which tags a trigger is for; made by `parse`."""

    kind: TriggerType
    text: str
    _pattern: Pattern | None = field(default=None, repr=False, compare=False)

    @classmethod
    def parse(cls, kind: str, text: str) -> Condition:
        """A condition as the API has it. UsageError, with the place in the pattern and the way out, when it is none."""
        if kind == "all":
            if text not in ("", ALL):
                raise UsageError(f"the condition of all is {ALL}, not {printable(text)}: use tag or regular to choose tags")
            return cls("all", ALL)
        if kind == "tag":
            if detail := why_invalid("tag", text, "guide"):
                raise UsageError(f"the condition {printable(text)!r} is no tag: {detail}; use regular for wildcards")
            return cls("tag", text)
        if kind == "regular":
            return cls("regular", text, Pattern(text))
        raise UsageError(f"unknown trigger type {printable(kind)!r}: it is one of {', '.join(TRIGGER_TYPES)}")

    def matches(self, tag: str) -> bool:
        """Whether the trigger is for this tag."""
        if self._pattern is not None:
            return self._pattern.matches(tag)
        return self.kind == "all" or tag == self.text


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of the automaton: whether it matches nothing, and the bits of the states that it can begin and end with."""

    nullable: bool
    first: int
    last: int


_NOTHING: Final = _Part(True, 0, 0)


class Pattern:
    """A pattern of `regular`, compiled. UsageError when it is none."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._follow: list[int] = []
        self._any = 0
        self._no_slash = 0
        self._literals: dict[str, int] = {}
        if not text.strip():
            raise self._error(0, "it is empty: write a pattern, or use the type all")
        if len(text) > MAX_PATTERN:
            raise self._error(MAX_PATTERN, f"a pattern has {MAX_PATTERN} characters at most: use several triggers")
        if text[0] in ".-":
            way = "use the type all to match every tag" if text == ALL else "begin with what the tags begin with"
            raise self._error(0, f"no tag begins with {text[0]}, and {_WILDCARDS}: {way}")
        self._whole, end = self._sequence(0, 0)
        assert end == len(text)

    def matches(self, tag: str) -> bool:
        """Whether the whole of `tag` fits."""
        return self.run(tag)[0]

    def run(self, tag: str) -> tuple[bool, int]:
        """Whether the whole of `tag` fits, and how many steps that took: at most those of pattern times tag, in characters."""
        if not tag:
            return self._whole.nullable, 0
        states, steps = 0, 0
        ahead = self._whole.first
        for character in tag:
            fitting = self._any | self._literals.get(character, 0) | (0 if character == "/" else self._no_slash)
            states = ahead & fitting
            ahead = 0
            for state in _bits(states):
                ahead |= self._follow[state]
                steps += 1
            if not states:
                break
        return bool(states & self._whole.last), steps

    # --- compiling ---------------------------------------------------------------------------------------------------

    def _sequence(self, at: int, depth: int) -> tuple[_Part, int]:
        """The pattern from `at` to its end, or to the end of an option when `depth` braces are open; and where that is."""
        made, text = _NOTHING, self.text
        while at < len(text) and not (depth and text[at] in ",}"):
            if text[at] == "{":
                part, at = self._options(at, depth + 1)
            elif depth and text[at] == " " and self._is_margin(at):
                part, at = _NOTHING, at + 1
            else:
                part, at = self._single(at)
            made = self._joined(made, part)
        return made, at

    def _is_margin(self, at: int) -> bool:
        """Whether the space at `at` stands at the beginning or the end of an option."""
        return self.text[:at].rstrip(" ")[-1:] in ("{", ",") or self.text[at:].lstrip(" ")[:1] in ("}", ",")

    def _options(self, opened: int, depth: int) -> tuple[_Part, int]:
        if depth > MAX_NESTING:
            raise self._error(opened, f"braces are nested deeper than {MAX_NESTING}: write the options side by side")
        nullable, first, last, at = False, 0, 0, opened
        while at == opened or self.text[at] == ",":
            part, at = self._sequence(at + 1, depth)
            if at == len(self.text):
                raise self._error(opened, "the brace is not closed: write {a,b}")
            nullable, first, last = nullable or part.nullable, first | part.first, last | part.last
        if not self.text[opened + 1 : at].strip():
            raise self._error(opened, "the braces have no options: write {a,b}")
        return _Part(nullable, first, last), at + 1

    def _single(self, at: int) -> tuple[_Part, int]:
        """One character or wildcard."""
        character = self.text[at]
        if character == "*":
            double = self.text.startswith("**", at)
            state = self._state()
            self._follow[state] |= 1 << state
            if double:
                self._any |= 1 << state
            else:
                self._no_slash |= 1 << state
            return _Part(True, 1 << state, 1 << state), at + (2 if double else 1)
        if character == "?":
            state = self._state()
            self._no_slash |= 1 << state
        elif _LITERAL.fullmatch(character):
            state = self._state()
            self._literals[character] = self._literals.get(character, 0) | 1 << state
        elif character in "},":
            what = "no brace is open" if character == "}" else "outside of braces a comma is no wildcard"
            raise self._error(at, f"{what}: write {{a,b}}")
        else:
            raise self._error(at, f"no tag has this character, and {_WILDCARDS}: leave it out or write ?")
        return _Part(False, 1 << state, 1 << state), at + 1

    def _state(self) -> int:
        self._follow.append(0)
        return len(self._follow) - 1

    def _joined(self, a: _Part, b: _Part) -> _Part:
        for state in _bits(a.last):
            self._follow[state] |= b.first
        return _Part(
            a.nullable and b.nullable,
            a.first | (b.first if a.nullable else 0),
            b.last | (a.last if b.nullable else 0),
        )

    def _error(self, at: int, what: str) -> UsageError:
        place = f"character {at + 1}" + (f", {printable(self.text[at])!r}" if at < len(self.text) else "")
        return UsageError(f"the condition {printable(self.text, 80)!r} is no pattern of regular: {place}: {what} (guide 4.7)")


def _bits(number: int) -> Iterator[int]:
    """The positions of the ones."""
    while number:
        low = number & -number
        yield low.bit_length() - 1
        number ^= low
