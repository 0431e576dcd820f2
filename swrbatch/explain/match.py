"""Finds what a text is about: a code, or an error as it was pasted, whatever stands around it.

A query and the texts that it is held against are made alike first: no colours, no quotes, no difference of case, one space for
any white space. Then, in this order, and each in time linear to the text:

    code     a code stands in it: `repotags-empty`, `SVCSTG.SWR.4000064`, `4000064` (one that is a plain word only by itself)
    phrase   it is an error's words, or they stand in it, in their order, with at most `GAP` characters where something differs
             each time; it weighs as many as its characters are, a Chinese one three, a little more for each word of its context
    part     it is a part of an error's words, and weighs the share that it is of them

What weighs most comes first. If nothing is found, the entries that share most words with the query are named, rare words first.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from .entries import entries
from .entry import Entry

MAX_TEXT: Final = 1 << 18
"""Bytes of a text that is read."""
GAP: Final = 300
NEAREST: Final = 5
_BY_CODE: Final = 1000.0
_CONTEXT: Final = 4.0
# Weight of the shortest phrase: shorter ones stand in any text. The API's descriptions are terse ("Delete failed."), and where
# they are pasted their code mostly stands beside them. The guide's errors are all looked for.
_LEAST: Final[Mapping[str, float]] = {"docker": 1.0, "swr": 20.0}
_LEAST_OTHERS: Final = 10.0
_ANSI: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_ALIKE: Final = str.maketrans(
    dict.fromkeys("\"'`“”‘’「」『』\\", "") | {"：": ":", "，": ",", "。": ".", "（": "(", "）": ")", "；": ";", "\u00a0": " "}
)
_TOKEN: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
_WORD: Final = re.compile(r"[a-z0-9]{3,}|[\u4e00-\u9fff]{2}")
_SHORT: Final = re.compile(r"(?:svcstg\.)?(?:swr\.|s2i\.)?(\d{7})")

How = Literal["code", "phrase", "part"]


@dataclass(frozen=True, slots=True)
class Match:
    """An entry that the query may be about; a greater `weight` is likelier."""

    entry: Entry
    how: How
    weight: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a query may be about, likeliest first; if nothing, what is nearest to it."""

    matches: tuple[Match, ...]
    nearest: tuple[Entry, ...]

    @property
    def best(self) -> tuple[Match, ...]:
        """Those that weigh as much as the first."""
        return tuple(each for each in self.matches if each.weight == self.matches[0].weight)


def explain(query: str) -> Explanation:
    """What `query` (a code, or a text of any length) is about."""
    text = alike(query).strip(" .")
    found = [*_by_code(text), *_by_phrase(text)] or _by_part(text)
    heaviest: dict[tuple[str, str], Match] = {}
    for match in found:
        key = match.entry.kind, match.entry.id
        if key not in heaviest or heaviest[key].weight < match.weight:
            heaviest[key] = match
    matches = tuple(sorted(heaviest.values(), key=lambda each: -each.weight))
    return Explanation(matches, () if matches else tuple(_nearest(text)))


def alike(text: str) -> str:
    """The text as it is compared."""
    return " ".join(_ANSI.sub("", text).translate(_ALIKE).lower().split())


def _by_code(text: str) -> Iterable[Match]:
    codes = _codes()
    if text in codes:
        yield from (Match(entry, "code", _BY_CODE) for entry in codes[text])
        return
    for token in dict.fromkeys(token.rstrip(".-_") for token in _TOKEN.findall(text)):
        short = _SHORT.fullmatch(token)
        if short is not None and (token == text or not token.isdigit()):
            token = short[1]
        elif "-" not in token:
            continue
        yield from (Match(entry, "code", _BY_CODE) for entry in codes.get(token, ()))


@functools.cache
def _codes() -> Mapping[str, Sequence[Entry]]:
    """Entries by id in lower case, SWR's also by its number."""
    found: dict[str, list[Entry]] = {}
    for entry in entries():
        found.setdefault(entry.id.lower(), []).append(entry)
        if entry.kind == "swr":
            found.setdefault(entry.id.rpartition(".")[2], []).append(entry)
    return found


@functools.cache
def _phrases() -> Sequence[tuple[Entry, tuple[str, ...], float]]:
    """Each phrase as its fragments, with its weight; 0 for one that is too short to be looked for in other words."""
    found = []
    for entry in entries():
        for phrase in entry.phrases:
            fragments = tuple(part for part in (alike(each).strip(" .,:;()") for each in phrase.split("{}")) if part)
            weight = _weight(fragments)
            if fragments:
                found.append((entry, fragments, weight if weight >= _LEAST.get(entry.kind, _LEAST_OTHERS) else 0.0))
    return found


def _weight(fragments: Sequence[str]) -> float:
    return sum(3.0 if c > "\u2e80" else 1.0 for part in fragments for c in part)


def _by_phrase(text: str) -> Iterable[Match]:
    for entry, fragments, weight in _phrases():
        if not weight and fragments == (text,):
            yield Match(entry, "phrase", _weight(fragments))
        elif weight and _stands(fragments, text):
            more = _CONTEXT * sum(alike(word) in text for word in entry.context)
            yield Match(entry, "phrase", weight + more)


def _stands(fragments: Sequence[str], text: str) -> bool:
    """Whether the fragments stand in the text one behind the other, none more than `GAP` characters behind the one before it."""
    if any(fragment not in text for fragment in fragments):
        return False
    first, *others = fragments
    ends = [start + len(first) for start in _starts(first, text)]
    for fragment in others:
        reached, at = [], 0
        for start in _starts(fragment, text):
            while at < len(ends) and ends[at] <= start:
                at += 1
            if at and start - ends[at - 1] <= GAP:
                reached.append(start + len(fragment))
        ends = reached
    return bool(ends)


def _starts(fragment: str, text: str) -> Iterator[int]:
    start = text.find(fragment)
    while start >= 0:
        yield start
        start = text.find(fragment, start + 1)


def _by_part(text: str) -> list[Match]:
    if len(text) < 2 or (len(text) < 4 and text.isascii()):
        return []
    found = []
    for entry in entries():
        wholes = (alike(phrase).strip(" .").replace("{}", " ") for phrase in entry.phrases)
        found += [Match(entry, "part", len(text) / len(whole)) for whole in wholes if text in whole]
    return found


def _nearest(text: str) -> Iterable[Entry]:
    """The entries that share words with the text; for a single word, those whose codes are spelt like it."""
    spelt = difflib.get_close_matches(text, _codes(), NEAREST, 0.7) if len(text) < 80 else []
    near = list(dict.fromkeys(entry for code in spelt for entry in _codes()[code]))
    words, counts = _words(), Counter(word for own in _words().values() for word in own)
    asked = set(_tokens(text))
    shares = {entry: sum(1 / counts[word] for word in asked & own) for entry, own in words.items()}
    near += sorted((entry for entry, share in shares.items() if share and entry not in near), key=lambda entry: -shares[entry])
    return near[:NEAREST]


def _tokens(text: str) -> list[str]:
    return _WORD.findall(text) + [text[at : at + 2] for at in range(len(text) - 1) if text[at] >= "\u4e00"]


@functools.cache
def _words() -> Mapping[Entry, frozenset[str]]:
    return {entry: frozenset(_tokens(alike(" ".join((entry.id, *entry.phrases, *entry.symptom))))) for entry in entries()}
