"""`swrbatch gc`."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Final

import typer

from ..errors import UsageError, printable
from . import acts
from .options import AccountOption, DryRun, Format, FormatOption, LangOption, Language, StoreOption, UserOption, exits, show

app = typer.Typer(rich_markup_mode=None)
_UNITS: Final = {"": 1000, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_LISTED: Final = 60


@app.command("gc")
def gc(
    min_age: Annotated[
        str, typer.Option("--min-age", metavar="AGE", help="Spare what is younger: 90s, 30m, 1h, 7d, 0 for nothing.")
    ] = "1h",
    keep_untagged: Annotated[bool, typer.Option("--keep-untagged", help="Keep images that only a digest reaches.")] = False,
    dry_run: DryRun = False,
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """Remove blobs that no tag needs any more; the rules are the registry server's.

    Imports wait meanwhile. A served store is to be read-only: a push into it takes no lock of ours.
    """
    from ..sweep import collect_garbage

    given = locals()
    with exits():
        age = age_ms(min_age)
    with acts.opened(given) as (opened, actor):
        found = collect_garbage(opened, actor, min_age_ms=age, keep_untagged=keep_untagged, dry_run=dry_run)
    show(_json(found, dry_run) if format is Format.JSON else _text(found, dry_run))


def age_ms(text: str) -> int:
    """An age such as 30m in ms; UsageError for anything else."""
    match = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text, re.ASCII)
    if match is None or (match[2] == "" and match[1] != "0"):
        raise UsageError(f"--min-age {printable(text)} is no age: write 90s, 30m, 1h or 7d, or 0")
    return int(match[1]) * _UNITS[match[2]]


def _json(found: Any, dry_run: bool) -> str:
    return json.dumps(
        {
            "dry_run": dry_run,
            "bytes": found.size,
            "blobs": [{"digest": str(digest), "bytes": size} for digest, size in found.blobs],
            "revisions": [{"repository": path, "digest": str(digest)} for path, digest in found.revisions],
            "layer_links": [{"repository": path, "digest": str(digest)} for path, digest in found.layer_links],
            "spared": found.spared,
            "spared_bytes": found.spared_bytes,
        }
    )


def _text(found: Any, dry_run: bool) -> str:
    from ..sizes import counted, format_size

    lines = [f"image {path}@{digest}" for path, digest in found.revisions]
    lines += [f"blob {digest} {format_size(size)}" for digest, size in found.blobs]
    if len(lines) > _LISTED:
        lines[_LISTED:] = [f"… and {len(lines) - _LISTED} more (--format json lists them all)"]
    done = "would be removed" if dry_run else "removed"
    what = f"{counted(len(found.blobs), 'blob')} ({format_size(found.size)})"
    lines.append(f"{what}, {counted(len(found.revisions), 'untagged image')} {done}")
    if found.spared:
        lines.append(f"{counted(found.spared, 'blob')} ({format_size(found.spared_bytes)}) younger than --min-age spared")
    return "\n".join(lines)
