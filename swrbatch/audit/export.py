"""The store's events to a destination: incremental, each event exactly once, in the form that the reader wants.

    parquet   a dataset (see `dataset`)
    cts-obs   files as CTS puts them into a bucket: key layout, gzip, one array, `user` as a JSON string, hourly digest files
    cts-api   the API's envelope, a file for each page of 200, `user` as an object
    ocsf      OCSF API Activity 6003, as JSON lines and as Parquet
    csv       UTF-8 with a BOM, safe to open in a spreadsheet

A destination remembers in its own manifest, renamed into place last, what it has (`reached`). A period (`since`, `until`) brings
what of it is not there yet, so a backfill and the hourly run may share a destination and still never repeat an event.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..errors import UsageError
from ..store import Store
from .dataset import Dataset, Manifest
from .folders import Folder, other_form, read_manifest
from .forms import FORMS, Form, spreadsheet, utc_text
from .ingest import stage_and_commit
from .reached import Range, Reached, Walk
from .signing import Signer
from .traces import Source, TraceRow, read_trace

__all__ = ["FORMS", "ExportResult", "Form", "export", "spreadsheet", "utc_text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What an export did.

    `events` were written now; `duplicates` were in the dataset already, from another source. Every event up to `seq`, whose hash
    is `head`, is there then, but those of `missing`: they were pruned before. `ranges` are there beyond it. `files`: paths below
    the destination; `lost`: those of earlier runs that are not there any more.
    """

    events: int
    duplicates: int
    seq: int
    head: str
    ranges: tuple[Range, ...]
    missing: tuple[Range, ...]
    files: tuple[str, ...]
    lost: tuple[str, ...]


def export(
    store: Store,
    to: str,
    form: Form,
    *,
    now: int,
    since: int | None = None,
    until: int | None = None,
    sign_key: str | None = None,
) -> ExportResult:
    """Write the events that `to` does not have yet. `now`, ms UTC, is the upload time in names.

    `since` (included) and `until` (not), ms UTC: only events recorded then. `sign_key`: a PEM file with an RSA key that signs the
    digest files of `cts-obs`.

    Raises `UsageError` for a destination of another store or form and for a bad key, `StoreError` when the chain is broken or is
    not the one that the destination was filled from, when the destination cannot be written, or when another run writes it.
    """
    if since is not None and until is not None and since >= until:
        raise UsageError("the period is empty: --since is not before --until")
    if sign_key is not None and form != "cts-obs":
        raise UsageError(f"--sign-key signs the digest files of cts-obs; {form} has none")
    if form == "parquet":
        return _export_dataset(store, to, now, since, until)
    signer = Signer(sign_key) if sign_key is not None else None
    folder = Folder(store, to, form, now, signer)
    walk = folder.run(since, until)
    return _result(walk, walk.taken, tuple(each.name for each in folder.written), folder.lost)


def _export_dataset(store: Store, to: str, now: int, since: int | None, until: int | None) -> ExportResult:
    manifest = read_manifest(to)
    if manifest is not None:
        raise other_form(to, manifest, "parquet")
    dataset = Dataset(to, create=True)
    with dataset.changing() as work:
        walk = Walk(store, Reached.of(dataset.manifest.export, store, os.path.abspath(to)), since, until)

        def rows() -> Iterator[TraceRow]:
            for event in walk:
                source = Source(name=f"ledger:{event.seq}")
                yield read_trace(event.value, source, event.seq, now, dataset.manifest.catalog)

        def finish(manifest: Manifest) -> Manifest:
            return replace(manifest, export=walk.reached.to_dict())

        parts = stage_and_commit(dataset, work, rows(), finish)
        return _result(walk, sum(part.rows for part in parts), tuple(part.path for part in parts))


def _result(walk: Walk, events: int, files: tuple[str, ...], lost: tuple[str, ...] = ()) -> ExportResult:
    reached = walk.reached
    return ExportResult(
        events=events,
        duplicates=walk.taken - events,
        seq=reached.seq,
        head=reached.head,
        ranges=reached.ranges,
        missing=reached.missing,
        files=files,
        lost=lost,
    )
