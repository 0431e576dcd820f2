"""What an explanation is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from ..errors import Lang

Kind = Literal["issue", "rule", "finding", "swr", "docker"]
Texts = tuple[str, str]  # English and Chinese

SOURCES: Final[Mapping[Kind, Texts]] = {
    "issue": ("swrbatch", "swrbatch"),
    "rule": ("swrbatch lint", "swrbatch lint"),
    "finding": ("swrbatch audit report", "swrbatch audit report"),
    "swr": ("SWR's API reference, error codes", "SWR API参考，错误码"),
    "docker": ("the user guide", "用户指南"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Something that can be explained; pairs of texts are English and Chinese.

    `level` is a severity, or an HTTP status; `section` the guide's, empty where it says nothing, and `heading` that in words.
    `phrases` are texts by which it is recognised, with `{}` for what differs each time; `context` are words that make it
    likelier beside a phrase.
    """

    kind: Kind
    id: str
    level: str
    section: str
    symptom: Texts
    cause: Texts
    way_out: Texts
    phrases: tuple[str, ...]
    context: tuple[str, ...] = ()
    related: tuple[str, ...] = ()
    heading: Texts = ("", "")
    bad: str = ""
    good: str = ""

    def texts(self, language: Lang) -> tuple[str, str, str]:
        """Symptom, cause and way out."""
        at = 1 if language == "zh" else 0
        return self.symptom[at], self.cause[at], self.way_out[at]

    def source(self, language: Lang) -> str:
        """Where the texts come from."""
        return SOURCES[self.kind][1 if language == "zh" else 0]
