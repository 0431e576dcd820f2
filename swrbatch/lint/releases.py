"""What os-release says, and until when a release gets security updates (`schemas/end-of-life.tsv`, which names its sources)."""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Mapping
from typing import Final

from ..schemas import schema_path

RELEASES: Final = ("etc/os-release", "usr/lib/os-release")
_LINE: Final = re.compile(r"(ID|VERSION_ID)=(.*)")


def parse_release(text: str) -> tuple[str, str]:
    """ID and VERSION_ID of an os-release (freedesktop.org, os-release(5)); "" for what is not there."""
    found = {match[1]: match[2].strip("\"' ") for line in text.splitlines() if (match := _LINE.fullmatch(line.strip()))}
    return found.get("ID", "")[:40], found.get("VERSION_ID", "")[:40]


@functools.cache
def _table() -> Mapping[tuple[str, str], datetime.date]:
    lines = schema_path("end-of-life.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return {(row[0], row[1]): datetime.date.fromisoformat(row[2]) for row in rows[1:]}


def end_of_life(name: str, version: str) -> datetime.date | None:
    """The last day of security updates; None for a release that the table does not have.

    A version is looked up as it is, then without its last parts: Alpine 3.9.6 is a 3.9, CentOS 7.9.2009 a 7.
    """
    parts = version.split(".")
    found = (_table().get((name, ".".join(parts[:count]))) for count in range(len(parts), 0, -1))
    return next((end for end in found if end is not None), None)
