"""Lint as a part of a check or an import: the images of all archives are linted first, and some findings refuse an image.

What is found is what `swrbatch lint` finds in the same archives. An entry of the configuration that accepts images by name holds
only where it matches all names of an image, those of the archive and those that it gets. An image is known by its archive, its
place there and its image ID, which tells what its layers are: one that was not linted (somebody changed the archive in between),
or whose layers cannot be looked into, is refused.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ..archive import ArchiveIndex
from ..digest import Cancel
from ..errors import Issue, UsageError, issue, printable
from ..rename import Rename
from ..results import FindingRow
from .batch import LintedImage, OpenArchives, lint_archives
from .config import LintConfig, read_config
from .rule import Finding, Level

_ZH: Final = {Level.ERROR: "错误", Level.WARNING: "警告", Level.INFO: "提示"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What is asked of lint: the configuration, the day (UTC) that it judges by, the level from which on findings refuse."""

    config: LintConfig
    today: datetime.date
    fail_on: Level | None = None
    config_path: str | None = None

    @property
    def told(self) -> dict[str, Any]:
        """The gate as options of a run are reported."""
        level = self.fail_on.value if self.fail_on is not None else None
        return {"lint": True, "lint_config": self.config_path, "lint_fail_on": level, "lint_date": str(self.today)}


def gate_of(config: str | os.PathLike[str] | None, fail_on: str | None) -> Gate:
    """The gate of plain values; what `fail_on` says goes before the configuration. UsageError for a wrong one."""
    read = read_config(os.fspath(config)) if config is not None else LintConfig()
    if fail_on is not None and fail_on not in tuple(Level):
        raise UsageError(f"lint_fail_on {printable(fail_on)}: it is one of {', '.join(Level)}")
    return Gate(
        config=read,
        today=datetime.datetime.now(datetime.UTC).date(),
        fail_on=Level(fail_on) if fail_on is not None else read.fail_on,
        config_path=os.fspath(config) if config is not None else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gated:
    """The images of a run by archive (as named), position and image ID, their findings judged, and what can be read only once."""

    gate: Gate
    archives: OpenArchives
    images: Mapping[tuple[str, int, str], LintedImage]

    def held(self, archive: str) -> ArchiveIndex | None:
        """The archive that is open already, and cannot be opened again."""
        return self.archives.held(archive)

    def issues(self, archive: str, image_index: int, image_id: str) -> list[Issue]:
        """Why an image is refused: lint-findings, lint-missing, or what keeps its layers from being looked into."""
        linted = self.images.get((archive, image_index, image_id))
        if linted is None:
            return [issue("lint-missing", image_index=image_index)]
        if linted.issue is not None:
            return [linted.issue.at(image_index=image_index)]
        refusing = [found for found in linted.findings if self._refuses(found)]
        if self.gate.fail_on is None or not refusing:
            return []
        rules = ", ".join(dict.fromkeys(found.rule for found in refusing))
        level = self.gate.fail_on
        told = {"level": level.value, "level_zh": _ZH[level], "count": len(refusing), "rules": rules}
        return [issue("lint-findings", image_index=image_index, params=told)]

    def _refuses(self, found: Finding) -> bool:
        return self.gate.fail_on is not None and not found.accepted and found.level.rank >= self.gate.fail_on.rank

    def rows(self, archive: str, shown: str, image_index: int, image_id: str, run_id: str) -> list[FindingRow]:
        """The findings of an image as rows; `shown` is the archive's name as the other tables have it."""
        linted = self.images.get((archive, image_index, image_id))
        return [
            FindingRow(
                run_id=run_id,
                archive=shown,
                image_index=image_index,
                image_id=image_id,
                image=found.image,
                rule=found.rule,
                level=found.level.value,
                refuses=self._refuses(found),
                accepted=found.accepted or None,
                layer=found.layer or None,
                place=found.place,
                bytes=found.bytes,
                message=found.message,
                message_zh=found.message_zh,
                way_out=found.way_out,
                way_out_zh=found.way_out_zh,
                section=found.section,
                step=found.snippet or None,
                fingerprint=found.fingerprint,
            )
            for found in (linted.findings if linted is not None else ())
        ]


def lint_batch(
    paths: Sequence[str],
    gate: Gate,
    rename: Rename,
    archives: OpenArchives,
    cancel: Cancel,
    progress: Callable[[int, int], None] | None = None,
) -> Gated:
    """Lint the images of all archives; what can be read only once is left open. Raises `StoreError`, `Cancelled`."""
    linted = lint_archives(paths, gate.config.rules, gate.today, archives, cancel, progress)
    archives.close_repeatable()
    images = {}
    for one in linted.images:
        head, image_id = one.head, str(one.head.config.digest)
        names = (*head.names, *(rename.apply(name)[0] for name in head.names)) or rename.names_for(head.path, image_id)
        judged = replace(one, findings=gate.config.judge(one.findings, gate.today, names))
        images[head.path, head.index, image_id] = judged
    return Gated(gate=gate, archives=archives, images=images)
