"""Is anything missing? What the hourly digest files prove, hour by hour, and where nothing can be known.

CTS keeps 7 days. What a dataset lacks after that is gone, so each stretch that is not proved whole says until when CTS itself
still has its events. Two things prove: a digest file, which names every trace file of its hour with an MD5, and the sequence
numbers of a store's ledger. A digest proves nothing when it is not there, when it cannot be read, or when the next one says
that it was another (`digest-changed`). Signatures are not judged here: `audit verify` does that.

Compared are the files as they were when they were taken: ingest notes their hashes, and what digest files say. So nothing is
read again, and what was deleted since proves as much as before.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

from ..results import Millis
from .chains import ALGORITHMS, Digest, Taken
from .dataset import Dataset
from .ingest import InputRow
from .rows import RetentionRow
from .traces import DAY_MS, MAX_MS

KEPT_MS: Final = 7 * DAY_MS
"""How long CTS itself keeps events (guide 7.2)."""
_DATE: Final = re.compile(r"\d{1,4}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Period:
    """The report's period, ms UTC: begin included, end not; null where it is open."""

    begin: int | None
    end: int | None


@dataclass(frozen=True, slots=True)
class Run:
    """Events of a store's ledger whose sequence numbers follow each other: first and last number, and their times, ms UTC."""

    first: int
    last: int
    begin: int
    end: int


def retention(dataset: Dataset, period: Period, told: Period, ledger: Sequence[Run], now: int) -> list[RetentionRow]:
    """What is proved of a dataset's events, oldest first. `told`: its first and last event; `ledger`: what came from a store."""
    inputs = read_inputs(dataset)
    # Beside trace files, an event of the ledger that came in one of those too is not there as the ledger's: that proves no gap.
    found = list(_ledger(dataset, ledger, "unknown" if inputs else "gap"))
    if inputs or not ledger:
        taken = Taken(inputs)
        chains = _chains(taken.digests)
        for chain, digests in chains:
            found += _chain(dataset, chain, digests, taken, _bounds(period, told, digests))
        unread = tuple(sorted({os.path.basename(each.name) for each in taken.unreadable}))
        if not chains:
            begin, end = _first(period.begin, told.begin), _first(period.end, told.end)
            reason = "digest-unread" if unread else "no-digest"
            found.append(_row(dataset, "", begin, end, "unknown", reason, missing=unread))
        elif unread:
            found.append(_row(dataset, "", None, None, "unknown", "digest-unread", missing=unread))
    return [_recoverable(row, now) for row in found if _within(row, period)]


def _ledger(dataset: Dataset, runs: Sequence[Run], lacking: str) -> Iterator[RetentionRow]:
    """The stretches of a ledger's sequence, and the gaps between them."""
    reached, time = 0, None
    for run in runs:
        if run.first > reached + 1:
            lacks = (f"{reached + 1}-{run.first - 1}",)
            yield _row(dataset, "ledger", time, run.begin, lacking, "sequence-gap", missing=lacks)
        yield _row(dataset, "ledger", run.begin, run.end, "complete", "ledger-sequence")
        reached, time = run.last, run.end


def read_inputs(dataset: Dataset) -> list[InputRow]:
    """The files that a dataset was made of. Old versions noted less of them."""
    wanted = [field.name for field in fields(InputRow)]
    return [InputRow(**row) for table in dataset.side_tables("inputs", wanted) for row in table.to_pylist()]


def _chains(digests: Sequence[Digest]) -> list[tuple[str, list[Digest]]]:
    """The digests that speak of SWR, or of no service in particular, chain by chain, each of them once."""
    once = {(each.object, each.hashes["sha256"]): each for each in digests}.values()
    named = sorted(((_chain_of(each.bucket, each.object), each) for each in once), key=_in_order)
    ours = [(chain, each) for chain, each in named if chain.rpartition("/")[2] in ("", "SWR")]
    return [(chain, [each for _, each in group]) for chain, group in itertools.groupby(ours, key=lambda pair: pair[0])]


def _in_order(named: tuple[str, Digest]) -> tuple[str, int, int, str]:
    chain, digest = named
    return chain, digest.begin, digest.end, digest.object


def _compare(taken: Taken, name: str, algorithm: str, expected: str) -> str:
    """ "" when a trace file came as its digest says, else the reason: file-missing, file-changed or file-unread."""
    places = taken.find(name)
    if not places:
        # Decompressed before it was taken: it is here, but its hash is that of another form.
        return "file-unread" if taken.find(name.removesuffix(".gz")) else "file-missing"
    hashes = {taken.hash(place, algorithm) for place in places}
    if expected in hashes:
        return ""
    return "file-unread" if None in hashes else "file-changed"


def _chain_of(bucket: str, name: str) -> str:
    """bucket/region/tracker/service out of a digest's key; what a key does not have stays empty."""
    folders = name.split("/")[:-1]
    region = folders[1] if len(folders) > 1 else ""
    tracker = service = ""
    if "Digest" in folders:
        at = folders.index("Digest")
        service = folders[at + 1] if at + 1 < len(folders) else ""
        before = folders[at - 1] if at else ""
        tracker = "" if _DATE.fullmatch(before) else before
    return "/".join((bucket, region, tracker, service))


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _bounds(period: Period, told: Period, digests: Sequence[Digest]) -> Period:
    """The period, else from the first to the last that events or digests tell of."""
    begins = [v for v in (told.begin, digests[0].begin * 1000) if v is not None]
    ends = [v for v in (told.end, max(d.end for d in digests) * 1000) if v is not None]
    return Period(_first(period.begin, min(begins)), _first(period.end, max(ends)))


def _chain(dataset: Dataset, chain: str, digests: Sequence[Digest], taken: Taken, bounds: Period) -> Iterator[RetentionRow]:
    """One chain's stretches; neighbours that say the same are one."""
    stretches = list(_stretches(dataset, chain, digests, taken, bounds))
    merged: list[RetentionRow] = []
    for row in stretches:
        last = merged[-1] if merged else None
        same = last is not None and (last.state, last.reason, last.end) == (row.state, row.reason, row.begin)
        if last is not None and same and row.state != "gap":
            missing = (*last.missing, *row.missing)
            digests_, files_ = last.digests + row.digests, last.files + row.files
            merged[-1] = replace(last, end=row.end, missing=missing, digests=digests_, files=files_)
        else:
            merged.append(row)
    yield from merged


def _stretches(dataset: Dataset, chain: str, digests: Sequence[Digest], taken: Taken, bounds: Period) -> Iterator[RetentionRow]:
    changed = _changed(digests)
    reached = bounds.begin
    for digest in digests:
        begin, end = digest.begin * 1000, digest.end * 1000
        if reached is not None and begin > reached + 1000:
            yield _row(dataset, chain, reached, begin, "unknown", "digest-missing", missing=_named(digest, digests))
        state, reason, missing = "complete", "digest", tuple[str, ...]()
        if digest.object in changed:
            state, reason, missing = "unknown", "digest-changed", (digest.object,)
        else:
            wrong = {name: why for name, how, value in digest.files if (why := _compare(taken, name, how, value))}
            if wrong:
                reason = min(wrong.values(), key=("file-missing", "file-changed", "file-unread").index)
                state = "unknown" if reason == "file-unread" else "gap"
                missing = tuple(sorted(wrong))
        yield _row(dataset, chain, begin, end, state, reason, missing=missing, digests=1, files=len(digest.files))
        reached = max(reached or 0, end)
    if reached is not None and bounds.end is not None and bounds.end > reached + 1000:
        yield _row(dataset, chain, reached, bounds.end, "unknown", "digest-missing")


def _named(digest: Digest, digests: Sequence[Digest]) -> tuple[str, ...]:
    """The digest file that is known to be missing, for the next one names it."""
    known = {each.object for each in digests}
    return (digest.previous,) if digest.previous and digest.previous not in known else ()


def _changed(digests: Sequence[Digest]) -> set[str]:
    """Digest files that are not those that the next ones hashed."""
    said = {each.previous: each for each in digests if each.previous_hash}
    changed = set()
    for each in digests:
        following = said.get(each.object)
        algorithm = None if following is None or each.unpacked else ALGORITHMS.get(following.previous_algorithm.upper())
        if following is not None and algorithm is not None and each.hashes[algorithm] != following.previous_hash:
            changed.add(each.object)
    return changed


def _row(
    dataset: Dataset,
    chain: str,
    begin: int | None,
    end: int | None,
    state: str,
    reason: str,
    *,
    missing: tuple[str, ...] = (),
    digests: int = 0,
    files: int = 0,
) -> RetentionRow:
    return RetentionRow(
        dataset=dataset.path,
        chain=chain,
        begin=None if begin is None else Millis(begin),
        end=None if end is None else Millis(end),
        state=state,
        reason=reason,
        digests=digests,
        files=files,
        missing=missing,
        recover_by=None,
        recoverable=False,
    )


def _within(row: RetentionRow, period: Period) -> bool:
    after = row.begin is not None and period.end is not None and row.begin >= period.end
    before = row.end is not None and period.begin is not None and row.end <= period.begin
    return not (after or before)


def _recoverable(row: RetentionRow, now: int) -> RetentionRow:
    if row.state == "complete" or row.end is None:
        return row
    last = min(row.end + KEPT_MS, MAX_MS)
    return replace(row, recover_by=Millis(last), recoverable=now < last)
