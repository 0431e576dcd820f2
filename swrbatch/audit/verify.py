"""Is the trail whole? The chain of the store's events, datasets and exports against their manifests, chains of digest files.

What a chain cannot show by itself: that its tail was cut off, or that all of it was computed anew. Only a head that is kept
elsewhere shows that (`head_of`, and `expected` below). For a dataset the rows themselves are read, so that a damaged page shows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import select

from ..errors import StoreError, UsageError, printable
from ..ledger.events import chain_head, newest_checkpoint, verify_chain
from ..ledger.schema import checkpoints, events
from ..sizes import counted
from ..store import Store
from ..tables import row_columns, row_schema, rows_to_arrow
from .chains import Finding, verify_digests, verify_taken
from .coverage import read_inputs
from .dataset import UNKNOWN_DAY, Dataset
from .folders import file_sha256, read_manifest
from .ledger import ChainedTrace, checkpoint_of, ledger_traces
from .query import connected
from .reached import Reached, Walk
from .signing import Verifier
from .traces import Source, TraceRow, read_trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What verifying found; `looked_at` says in words at how much."""

    findings: tuple[Finding, ...]
    looked_at: str

    @property
    def sound(self) -> bool:
        """Nothing is wrong; notes (`chains.NOTES`) may say what is not known."""
        return not any(each.problem for each in self.findings)


_HEAD = re.compile(r"(\d{1,18}):([0-9a-f]{64})", re.ASCII)
_SHOWN = 20
_BATCH = 16 << 10
_NOT_CONTENT = ("region", "uploaded", "source_file", "source_position", "flags", "violations")


def verify_store_chain(store: Store, expected: str | None = None) -> Verdict:
    """The chain of a store's events, see `verify_chain_of`."""
    problems, count = verify_chain_of(store, expected)
    return Verdict(
        findings=tuple(Finding("chain-broken", "events", each) for each in problems), looked_at=counted(count, "event")
    )


def verify_path(
    path: str, *, verifier: Verifier | None = None, signatures: Sequence[str] = (), store: Store | None = None
) -> Verdict:
    """A dataset, an export's destination, or a folder with digest files, told by what lies in it.

    With `store`, the events of an export are compared with the store's chain too. Raises as `verify_dataset`, `verify_folder`,
    `chains.verify_digests`; StoreError for what is no folder.
    """
    if not os.path.isdir(path):
        raise StoreError(f"{path} is no folder: name a dataset, the destination of an export, or a folder with digest files")
    if os.path.isdir(os.path.join(path, "_swrbatch")):
        dataset = Dataset(path)
        findings, rows = verify_dataset(dataset)
        looked_at = f"{counted(len(dataset.manifest.parts), 'part')}, {counted(rows, 'row')}"
        if store is not None and not findings:
            findings = list(_against_chain(dataset, store))
        # Without all of its inputs a dataset says nothing of what is missing.
        whole = not any(each.kind.startswith("file-") for each in findings)
        if whole and (taken := verify_taken(read_inputs(dataset), verifier, signatures)):
            findings += taken.findings
            looked_at += f", {counted(taken.digests, 'digest file')}, {counted(taken.files, 'trace file')}"
        return Verdict(findings=tuple(findings), looked_at=looked_at)
    findings, looked_at = [], ""
    manifest = read_manifest(path)
    if manifest is not None:
        findings, events_there = verify_folder(path)
        looked_at = f"{counted(len(manifest.files), 'file')}, {counted(events_there, 'event')}"
        if store is not None:
            Walk(store, Reached.of(manifest.reached, store, path))
    if manifest is None or manifest.digest is not None:
        report = verify_digests(path, verifier, signatures, required=manifest is None)
        known = {(each.kind, each.name) for each in findings}
        findings += [each for each in report.findings if (each.kind, each.name) not in known]
        looked_at = f"{counted(report.digests, 'digest file')}, {counted(report.files, 'trace file')}"
    return Verdict(findings=tuple(findings), looked_at=looked_at)


def _against_chain(dataset: Dataset, store: Store) -> Iterator[Finding]:
    reached = Walk(store, Reached.of(dataset.manifest.export, store, dataset.path)).reached
    checkpoint = checkpoint_of(store)
    after = checkpoint.seq if checkpoint else 0
    if reached.seq > after and (lacking := lacks(dataset, store, after, reached.seq)) is not None:
        yield Finding("event-differs", str(lacking), "the dataset does not have this event as the store's chain has it")


def head_of(store: Store) -> tuple[int, str]:
    """Sequence number and hash of the newest event: what to keep where this store cannot write."""
    with store.ledger.read() as connection:
        return chain_head(connection)


def verify_chain_of(store: Store, expected: str | None = None) -> tuple[list[str], int]:
    """Problems of the chain, the first bad event named, and the number of events that are sound (pruned ones count).

    `expected`: a head kept elsewhere, as `SEQ:HASH`; it must be in the chain still. UsageError when it is no head.
    """
    match = None if expected is None else _HEAD.fullmatch(expected)
    if expected is not None and match is None:
        raise UsageError(f"--expect-head {printable(expected)}: a head is SEQ:HASH, as --print-head prints it")
    with store.ledger.read() as connection:
        issues, _, count = verify_chain(connection, replaying=False)
        problems = [found.message for found in issues]
        if match is not None:
            problems += _against_head(connection, int(match[1]), match[2])
    return problems, count


def _against_head(connection: Any, seq: int, digest: str) -> Iterator[str]:
    last, _ = chain_head(connection)
    if seq > last:
        yield f"the chain ends at {last}, the expected head is {seq}: its tail was cut off"
        return
    found = connection.execute(select(events.c.hash).where(events.c.seq == seq)).scalar()
    found = found or connection.execute(select(checkpoints.c.hash).where(checkpoints.c.seq == seq)).scalar()
    start = newest_checkpoint(connection)
    if seq == 0 or (found is None and start is not None and seq < start.seq):
        # Nothing is wrong, and nothing is shown: the head of 0 is that of an empty chain.
        if seq:
            yield f"event {seq} was pruned, and no prune ended there: keep a head from after event {start.seq if start else 0}"
    elif found != digest:
        yield f"event {seq} has another hash than the expected head: the chain was computed anew"


# --- datasets ----------------------------------------------------------------------------------------------------------


def verify_dataset(dataset: Dataset) -> tuple[list[Finding], int]:
    """What is wrong with a dataset, and how many rows it has: its parts against its manifest, its ids, its side files.

    Kinds: part-missing, part-damaged (a page does not fit its checksum), part-rows, part-schema, part-day, part-changed (its
    SHA-256 is another, though it can be read), id-twice, file-missing and file-damaged (inputs, rejects).
    """
    findings: list[Finding] = []
    rows = 0
    for part in dataset.manifest.parts:
        path = os.path.join(dataset.path, part.path)
        found = list(_verify_part(path, part.path, part.rows, part.day))
        if not found and part.sha256 not in ("", file_sha256(path)):
            found.append(Finding("part-changed", part.path, "its SHA-256 is not that of the manifest"))
        findings += found
        rows += part.rows
    for kind in ("inputs", "rejects"):
        for path in dataset.side_files(kind):
            findings += _verify_side(path, os.path.relpath(path, dataset.path), kind)
    if not findings:
        findings += _twice(dataset)
    return findings, rows


def _verify_side(path: str, name: str, kind: str) -> Iterator[Finding]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.read_table(path, use_threads=False, page_checksum_verification=True)
    except FileNotFoundError:
        yield Finding("file-missing", name, f"the manifest names it ({kind})")
    except (OSError, pa.ArrowException) as e:
        yield Finding("file-damaged", name, str(e).splitlines()[0])


def _verify_part(path: str, name: str, rows: int, day: str) -> Iterator[Finding]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    counted = 0
    try:
        # Threaded readers of pyarrow 26 may abort the process at its exit.
        with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as file:
            if not file.schema_arrow.equals(row_schema(TraceRow)):
                yield Finding("part-schema", name, "its columns or types are not those of a dataset")
                return
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, use_threads=False)
                counted += table.num_rows
                moments: Any = pc.cast(table.column("time"), pa.date32(), safe=False)
                days = {str(each) if each else UNKNOWN_DAY for each in pc.unique(moments).to_pylist()}
                if strange := days - {day}:
                    yield Finding("part-day", name, f"it holds rows of {min(strange)}")
    except FileNotFoundError:
        yield Finding("part-missing", name, f"the manifest says that it holds {rows} rows")
        return
    except (OSError, pa.ArrowException) as e:
        yield Finding("part-damaged", name, str(e).splitlines()[0])
        return
    if counted != rows:
        yield Finding("part-rows", name, f"it holds {counted} rows, the manifest says {rows}")


def _twice(dataset: Dataset) -> Iterator[Finding]:
    """Ids that stand for more than one row; another content under a known id is no fault where it is flagged so."""
    once = "trace_id IS NOT NULL AND NOT list_contains(flags, 'duplicate-differs')"
    with connected(dataset) as connection:
        # Hashes first: a table of all ids would take four times the memory.
        found = connection.execute(
            f"WITH more AS (SELECT hash(trace_id) AS id FROM traces WHERE {once} GROUP BY 1 HAVING count(*) > 1) "
            f"SELECT trace_id, count(*) FROM traces WHERE {once} AND hash(trace_id) IN (SELECT id FROM more) "
            f"GROUP BY 1 HAVING count(*) > 1 ORDER BY 1 LIMIT {_SHOWN}"
        ).fetchall()
    for trace_id, count in found:
        yield Finding("id-twice", trace_id, f"{count} rows")


def lacks(dataset: Dataset, store: Store, after: int, last: int) -> int | None:
    """The first event behind `after`, up to `last`, that a dataset does not have with the same content; None when it has all."""
    names = [c.name for c in row_columns(TraceRow) if c.name not in _NOT_CONTENT]
    listed = ", ".join(f'"{name}"' for name in names)
    with connected(dataset) as connection:
        traces = (event for event in upto(store, last) if event.seq > after)
        while batch := list(islice(traces, _BATCH)):
            rows = [read_trace(e.value, Source(name=""), e.seq, e.value["record_time"], dataset.manifest.catalog) for e in batch]
            connection.register("wanted", rows_to_arrow(TraceRow, rows))
            found = connection.execute(
                f"SELECT min(source_position) FROM wanted WHERE trace_id IN (SELECT trace_id FROM (SELECT {listed} FROM wanted "
                f"EXCEPT SELECT {listed} FROM traces WHERE trace_id IN (SELECT trace_id FROM wanted)))"
            ).fetchall()
            connection.unregister("wanted")
            if found[0][0] is not None:
                return int(found[0][0])
    return None


def upto(store: Store, last: int) -> Iterator[ChainedTrace]:
    """The events of the ledger up to a sequence number."""
    for event in ledger_traces(store):
        if event.seq > last:
            return
        yield event


# --- destinations of files ---------------------------------------------------------------------------------------------


def verify_folder(path: str) -> tuple[list[Finding], int]:
    """What is wrong with a destination of files (file-missing, file-changed), and how many events it has."""
    manifest = read_manifest(path)
    if manifest is None:
        raise StoreError(f"{path} holds no export")
    findings = []
    names = {}
    for file in manifest.files:
        actual = file_sha256(os.path.join(path, file.name))
        if actual is None:
            findings.append(Finding("file-missing", file.name, "the export's manifest names it"))
        elif actual != file.sha256:
            findings.append(Finding("file-changed", file.name, "its SHA-256 is not what the export's manifest says"))
        names[file.first, file.last] = file.events
    return findings, sum(names.values())
