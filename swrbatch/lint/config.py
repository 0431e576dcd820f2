"""The configuration of lint: which rules count, how much, and what is accepted (`schemas/lint.schema.json`).

    only: [secret-file, floating-tag]  # these rules alone
    rules: {missing-label: off, floating-tag: error}
    fail-on: error
    registries: ["swr.*.myhuaweicloud.com"]
    baseline: known.json
    ignore:
      - {rules: [secret-file], image: "*/legacy/*", place: "etc/ssl/*", until: 2027-03-31, reason: "a test key, PROJ-12"}

A finding that is accepted is not lost: it carries why (`Finding.accepted`).
"""

from __future__ import annotations

import datetime
import difflib
import fnmatch
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from ..errors import UsageError, printable
from ..settings_file import Place, SettingsFile, Told
from .catalog import BY_ID, RULES
from .outputs import read_baseline
from .rule import Finding, Level, Rule

FILE: Final = ".swrbatch-lint.yaml"
"""The configuration that `swrbatch lint` takes from the folder it runs in."""
BASELINE: Final = "baseline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """Findings that are accepted: of these rules (none: all), where each glob that is given matches, to the end of a day."""

    reason: str
    rules: frozenset[str] = frozenset()
    path: str | None = None
    image: str | None = None
    place: str | None = None
    until: datetime.date | None = None

    def holds(self, finding: Finding, paths: Sequence[str], images: Sequence[str], today: datetime.date) -> bool:
        """Whether it holds for a finding; `paths` are spellings of its file, `images` names of the image: all must match."""
        if (self.until is not None and today > self.until) or (self.rules and finding.rule not in self.rules):
            return False
        return (
            (self.path is None or any(fnmatch.fnmatchcase(path, self.path) for path in paths))
            and (self.image is None or all(name and fnmatch.fnmatchcase(name, self.image) for name in images))
            and (self.place is None or (finding.place != "" and fnmatch.fnmatchcase(finding.place, self.place)))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LintConfig:
    """What a configuration says; the defaults are those of lint without one.

    `folder` is that of its file, from which on globs match files; `known` are fingerprints of an earlier result.
    """

    folder: str = "."
    rules: tuple[Rule, ...] = RULES
    levels: Mapping[str, Level] = field(default_factory=lambda: MappingProxyType({}))
    fail_on: Level | None = None
    registries: tuple[str, ...] = ()
    known: frozenset[str] = frozenset()
    ignore: tuple[Accepted, ...] = ()

    def judge(self, findings: Iterable[Finding], today: datetime.date, images: Sequence[str] = ()) -> tuple[Finding, ...]:
        """The findings with the levels that are asked for; what is accepted on this day says why.

        `images`: all names of the image that they are of, where it has more than the one that they tell.
        """
        return tuple(self._judged(one, images or (one.image,), today) for one in findings)

    def _judged(self, finding: Finding, images: Sequence[str], today: datetime.date) -> Finding:
        level = self.levels.get(finding.rule, finding.level)
        why = BASELINE if finding.fingerprint in self.known else ""
        if not why and self.ignore:
            path = finding.path.removeprefix("./")
            paths = (path, os.path.relpath(path, self.folder).replace(os.sep, "/"))
            why = next((each.reason for each in self.ignore if each.holds(finding, paths, images, today)), "")
        return finding if level is finding.level and not why else replace(finding, level=level, accepted=why)


def read_config(path: str) -> LintConfig:
    """Read a configuration. UsageError with all faults that were found, each as `FILE:LINE:COLUMN: place: what`."""
    return _Reading(path, "lint configuration", "lint.schema.json").run()


class _Reading(SettingsFile):
    """The reading of one file."""

    def run(self) -> LintConfig:
        value = self.read()
        made = self._config(value)
        self.stop()
        return made

    def _config(self, value: dict[str, Any]) -> LintConfig:
        folder = os.path.dirname(os.path.abspath(self.path))
        levels = value.get("rules", {})
        for name in levels:
            self._known(name, ("rules", name))
        only = self._rules(value.get("only", ()), ("only",)) or frozenset(BY_ID)
        on = {name for name in only if levels.get(name) != "off"}
        known: frozenset[str] = frozenset()
        if "baseline" in value:
            with Told(self, ("baseline",)):
                known = read_baseline(os.path.join(folder, value["baseline"]))
        return LintConfig(
            folder=folder,
            rules=tuple(rule for rule in RULES if rule.id in on),
            levels=MappingProxyType({name: Level(level) for name, level in levels.items() if level != "off"}),
            fail_on=Level(value["fail-on"]) if "fail-on" in value else None,
            registries=tuple(value.get("registries", ())),
            known=known,
            ignore=tuple(self._accepted(each, ("ignore", n)) for n, each in enumerate(value.get("ignore", ()))),
        )

    def _rules(self, names: Sequence[str], place: Place) -> frozenset[str]:
        for number, name in enumerate(names):
            self._known(name, (*place, number))
        return frozenset(names)

    def _known(self, name: str, place: Place) -> None:
        if name not in BY_ID:
            near = difflib.get_close_matches(name, BY_ID, 1)
            meant = f"; did you mean {near[0]}?" if near else "; swrbatch lint --list names them"
            self.fault(place, f"{printable(name, 60)} is no rule{meant}")

    def _accepted(self, value: dict[str, Any], place: Place) -> Accepted:
        until = None
        if "until" in value:
            with Told(self, (*place, "until")):
                until = parse_day(value["until"])
        if value.keys() <= {"reason", "until"}:
            self.fault(place, "it accepts everything: name rules, a path, an image or a place")
        return Accepted(
            reason=value["reason"],
            rules=self._rules(value.get("rules", ()), (*place, "rules")),
            until=until,
            **{name: value.get(name) for name in ("path", "image", "place")},
        )


def parse_day(text: str) -> datetime.date:
    """A day as YYYY-MM-DD. UsageError for anything else."""
    try:
        if len(text) == len("YYYY-MM-DD"):
            return datetime.date.fromisoformat(text)
    except ValueError:
        pass
    raise UsageError(f"{printable(text, 60)} is no day: write YYYY-MM-DD")
