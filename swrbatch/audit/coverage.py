"""Is anything missing? What the hourly digest files prove, hour by hour, and where nothing can be known.

CTS keeps 7 days. What a dataset lacks after that is gone, so each stretch that is not proved whole says until when CTS itself
still has its events. Two things prove: a digest file, which names every trace file of its hour with an MD5, and the sequence
numbers of a store's ledger. A digest proves nothing when it is not there, when it cannot be read, or when the next one says
that it was another (`digest-changed`). Signatures are not judged here: `audit verify` does that.

Ingest notes of a digest file that it was taken, not what stands in it: so digest files, and the trace files that they name, are
read again where they lay. What is not there any more cannot be compared, and that is said too.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ..digest import Cancel
from ..results import Millis
from .chains import same_place
from .dataset import Dataset
from .files import DigestFile, read_file
from .ingest import InputRow
from .rows import RetentionRow
from .traces import DAY_MS, MAX_MS

KEPT_MS: Final = 7 * DAY_MS
"""How long CTS itself keeps events (guide 7.2)."""
_DATE: Final = re.compile(r"\d{1,4}", re.ASCII)
_SECOND: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class HourlyDigest:
    """A digest file as read: its hour, its chain, the trace files that it vouches for, and the digest before it.

    `files` and `previous` are (key in the bucket, hash algorithm, hash in hex).
    """

    chain: str
    object: str
    begin: int
    end: int
    file: InputRow
    files: tuple[tuple[str, str, str], ...]
    previous: tuple[str, str, str]


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
        files = _Files(inputs)
        digests = sorted(set(_digests(inputs, files)), key=lambda d: (d.chain, d.begin, d.end, d.object))
        chains = [(chain, list(each)) for chain, each in itertools.groupby(digests, key=lambda d: d.chain)]
        for chain, each in chains:
            found += _chain(dataset, chain, each, files, _bounds(period, told, each))
        unread = tuple(sorted(files.unread_digests))
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
    """The files that a dataset was made of."""
    import pyarrow.parquet as pq

    rows: list[InputRow] = []
    for path in dataset.side_files("inputs"):
        rows += [InputRow(**row) for row in pq.read_table(path, columns=list(InputRow.__slots__), use_threads=False).to_pylist()]
    return rows


class _Files:
    """The input files where they lay, by name; read once at most."""

    def __init__(self, inputs: Sequence[InputRow]) -> None:
        self.by_name: dict[str, list[InputRow]] = {}
        self.unread_digests: set[str] = set()
        self._hashes: dict[tuple[str, str], str | None] = {}
        for each in inputs:
            self.by_name.setdefault(os.path.basename(each.path), []).append(each)

    def hash(self, file: InputRow, algorithm: str) -> str | None:
        """Its hash in hex; None when it is not the file any more that was taken, or when it cannot be read."""
        key = (file.path, algorithm)
        if key not in self._hashes:
            self._hashes[key] = _hash(file, algorithm)
        return self._hashes[key]

    def compare(self, name: str, algorithm: str, expected: str) -> str:
        """ "" when a trace file is here as its digest says, else the reason: file-missing, file-changed or file-unread."""
        candidates = self.by_name.get(os.path.basename(name), [])
        same = [each for each in candidates if same_place(each.path, name)] or candidates
        if not same:
            # Downloaded and decompressed: it is here, but its hash is that of another form.
            plain = os.path.basename(name).removesuffix(".gz")
            return "file-unread" if plain in self.by_name else "file-missing"
        hashes = {self.hash(each, algorithm) for each in same}
        if expected in hashes:
            return ""
        return "file-unread" if None in hashes else "file-changed"


def _hash(file: InputRow, algorithm: str) -> str | None:
    if algorithm not in ("md5", "sha256"):
        return None
    wanted, taken = hashlib.new(algorithm, usedforsecurity=False), hashlib.sha256()
    try:
        with open(file.path, "rb") as f:
            while data := f.read(1 << 20):
                wanted.update(data)
                taken.update(data)
    except OSError:
        return None
    return wanted.hexdigest() if taken.hexdigest() == file.sha256 else None


def _digests(inputs: Iterable[InputRow], files: _Files) -> Iterator[HourlyDigest]:
    """The digests that speak of SWR, or of no service in particular."""
    for each in inputs:
        if each.kind != "digest":
            continue
        parsed = _read(each) if files.hash(each, "sha256") is not None else None
        if parsed is None:
            files.unread_digests.add(os.path.basename(each.path))
        elif parsed.chain.rpartition("/")[2] in ("", "SWR"):
            yield parsed


def _read(file: InputRow) -> HourlyDigest | None:
    try:
        value = next((item.value for item in read_file(file.path, Cancel()) if isinstance(item, DigestFile)), None)
    except OSError:
        return None
    if value is None:
        return None
    begin, end = _moment(value.get("digest_start_time")), _moment(value.get("digest_end_time"))
    name = _text(value, "digest_object")
    if begin is None or end is None or not name:
        return None
    listed = [each for each in value["log_files"] if isinstance(each, dict)]
    return HourlyDigest(
        chain=_chain_of(_text(value, "digest_bucket"), name),
        object=name,
        begin=begin,
        end=end,
        file=file,
        files=tuple(_hashed(each, "object", "log") for each in listed),
        previous=_hashed(value, "previous_digest_object", "previous_digest"),
    )


def _text(value: dict[str, Any], name: str) -> str:
    found = value.get(name)
    return found if isinstance(found, str) else ""


def _hashed(value: dict[str, Any], name: str, prefix: str) -> tuple[str, str, str]:
    algorithm = (_text(value, f"{prefix}_hash_algorithm") or "MD5").lower().replace("-", "")
    return _text(value, name), algorithm, _text(value, f"{prefix}_hash_value").lower()


def _moment(value: object) -> int | None:
    """`2017-03-28T01-09-17Z` in ms UTC."""
    try:
        moment = datetime.datetime.strptime(str(value), "%Y-%m-%dT%H-%M-%SZ").replace(tzinfo=datetime.UTC)
    except ValueError:
        return None
    return int(moment.timestamp()) * 1000


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


def _bounds(period: Period, told: Period, digests: Sequence[HourlyDigest]) -> Period:
    """The period, else from the first to the last that events or digests tell of."""
    begins = [v for v in (told.begin, digests[0].begin) if v is not None]
    ends = [v for v in (told.end, max(d.end for d in digests)) if v is not None]
    return Period(_first(period.begin, min(begins)), _first(period.end, max(ends)))


def _chain(
    dataset: Dataset, chain: str, digests: Sequence[HourlyDigest], files: _Files, bounds: Period
) -> Iterator[RetentionRow]:
    """One chain's stretches; neighbours that say the same are one."""
    stretches = list(_stretches(dataset, chain, digests, files, bounds))
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


def _stretches(
    dataset: Dataset, chain: str, digests: Sequence[HourlyDigest], files: _Files, bounds: Period
) -> Iterator[RetentionRow]:
    changed = _changed(digests, files)
    reached = bounds.begin
    for digest in digests:
        if reached is not None and digest.begin - reached > _SECOND:
            yield _row(dataset, chain, reached, digest.begin, "unknown", "digest-missing", missing=_named(digest, digests))
        state, reason, missing = "complete", "digest", tuple[str, ...]()
        if digest.object in changed:
            state, reason, missing = "unknown", "digest-changed", (digest.object,)
        else:
            wrong = {name: why for name, how, value in digest.files if (why := files.compare(name, how, value))}
            if wrong:
                reason = min(wrong.values(), key=("file-missing", "file-changed", "file-unread").index)
                state = "unknown" if reason == "file-unread" else "gap"
                missing = tuple(sorted(wrong))
        yield _row(dataset, chain, digest.begin, digest.end, state, reason, missing=missing, digests=1, files=len(digest.files))
        reached = max(reached or 0, digest.end)
    if reached is not None and bounds.end is not None and bounds.end - reached > _SECOND:
        yield _row(dataset, chain, reached, bounds.end, "unknown", "digest-missing")


def _named(digest: HourlyDigest, digests: Sequence[HourlyDigest]) -> tuple[str, ...]:
    """The digest file that is known to be missing, for the next one names it."""
    known = {each.object for each in digests}
    name = digest.previous[0]
    return (name,) if name and name not in known else ()


def _changed(digests: Sequence[HourlyDigest], files: _Files) -> set[str]:
    """Digest files that are not those that the next ones hashed."""
    said = {each.previous[0]: each.previous[1:] for each in digests if each.previous[2]}
    hashed = (
        (each.object, files.hash(each.file, algorithm), value)
        for each in digests
        for algorithm, value in [said.get(each.object, ("", ""))]
    )
    return {name for name, actual, value in hashed if value and actual is not None and actual != value}


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
