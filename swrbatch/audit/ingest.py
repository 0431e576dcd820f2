"""Trace files into a dataset: read, checked, without duplicates, each event on its own day, exactly once.

Every file that the manifest does not know yet is read, in bulk where that gives the same rows (`bulk`), else record by record
(`files`, `traces`). What was read lies in a stage that finds what is new and sorts it (`stage`), and each day's rows become one
Parquet file. One rename of the manifest makes the run count. The same trace_id with another content is kept and flagged
`duplicate-differs`. What cannot be read at all stands in the rejects: file, position, reason, raw text.

A file that cannot be opened, or not read to its end, is rejected, but not noted as taken: the next run tries it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from bisect import insort
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Annotated, Any, Final

from ..allocation import keep_memory
from ..digest import Cancel
from ..disk import disk_errors
from ..duck import BATCH
from ..errors import printable
from ..tables import replacing, row_schema, rows_to_arrow
from .ahead import ahead
from .bulk import CHUNK_BYTES, CHUNK_FILES, Bulk, Taken
from .dataset import Dataset, Manifest, Part, write_part
from .files import DigestFile, InputFile, Record, Reject, find_files, source_of
from .stage import Stage
from .traces import Source, TraceRow, read_trace
from .unpack import Prepared, prepare

_BATCH_CHARACTERS: Final = 16 << 20
_ROWS_HELD: Final = 4096
_REJECTS_TOLD: Final = 10
_READY: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRow:
    """A trace file that was taken, or a digest file: with what it says, for it proves what is missing when it is gone itself."""

    path: Annotated[str, "the file"]
    bytes: Annotated[int, "its size"]
    modified_ns: Annotated[int, "its time of change, ns"]
    sha256: Annotated[str, "digest of the file"]
    kind: Annotated[str, "traces or digest"]
    records: Annotated[int, "traces read"]
    rejects: Annotated[int, "records that could not be read"]
    md5: Annotated[str | None, "its MD5, by which CTS's digest files name it"] = None
    digest: Annotated[str | None, "what a digest file says, as JSON; null for trace files"] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectRow:
    """A record that could not be read."""

    file: Annotated[str, "the file"]
    position: Annotated[int, "position in the file, from 0"]
    reason: Annotated[str, "why"]
    raw: Annotated[str, "the beginning of its text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestResult:
    """What a run took. `kept` rows are in the dataset now; `duplicates` were dropped; `flags` counts the kept rows by flag.

    `rejects` are the first of what was rejected, `file position: reason` each.
    """

    files: int
    files_known: int
    digest_files: int
    records: int
    kept: int
    duplicates: int
    rejected: int
    flags: dict[str, int]
    rejects: tuple[str, ...] = ()


def ingest(paths: Sequence[str], dataset: Dataset, *, now: int, cancel: Cancel | None = None) -> IngestResult:
    """Take the trace files that `paths` name into the dataset. `now`, ms UTC, is the present that future times are judged by.

    Raises `UsageError` for a path that names nothing, `StoreError` when the dataset cannot be written or another run writes it.
    """
    import pyarrow as pa

    cancel = cancel or Cancel()
    found = find_files(paths)
    keep_memory()
    pa.set_memory_pool(pa.system_memory_pool())
    with dataset.changing() as work:
        known = known_inputs(dataset)
        fresh = [(path, name) for path, name in found if _identity(path) not in known]
        run = _Run(dataset, work, now, cancel)
        run.take_all(fresh)
        return replace(run.commit(), files_known=len(found) - len(fresh))


def _identity(path: str) -> tuple[str, int, int]:
    """What tells a file from one that was taken: path, size, time of change; nothing matches a file that cannot be looked at."""
    try:
        state = os.stat(path)
    except OSError:
        return _noted(path), -1, -1
    return _noted(path), state.st_size, state.st_mtime_ns


def _noted(path: str) -> str:
    """A path as text: a name may hold bytes that are none."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def known_inputs(dataset: Dataset) -> set[tuple[str, int, int]]:
    """The files that were taken: path, size in bytes, time of change in ns."""
    known: set[tuple[str, int, int]] = set()
    for table in dataset.side_tables("inputs", ("path", "bytes", "modified_ns")):
        known.update(zip(*(table.column(i).to_pylist() for i in range(3)), strict=True))
    return known


class _Run:
    """One ingest: staged rows, then one commit."""

    def __init__(self, dataset: Dataset, work: str, now: int, cancel: Cancel) -> None:
        self.dataset = dataset
        self.now = now
        self.cancel = cancel
        self.generation = dataset.manifest.generation + 1
        self._work = work
        self.inputs = _Inputs(os.path.join(work, "inputs.arrow"))
        self.stage = Stage(work, cancel)
        self.rejects = _Rejects(os.path.join(work, "rejects.arrow"))
        self.records = 0
        self._rows: list[TraceRow] = []
        self._characters = 0

    def take_all(self, found: Sequence[tuple[str, str]]) -> None:
        """Read files (path, name), in bulk where that can be."""
        names = dict(found)
        bulk = Bulk(self._work, self.stage, self.now, self.dataset.manifest.catalog, self.cancel)
        with contextlib.closing(bulk), contextlib.closing(ahead(_chunks(found, self._work, self.cancel))) as chunks:
            for slow, group in chunks:
                for path in slow:
                    self.take(path, names[path])
                if group:
                    chunk = bulk.take(group)
                    for each in group:
                        if each.number in chunk.taken:
                            self._took(each, chunk.taken[each.number])
                    for each in chunk.left:
                        self.take(each.path, names[each.path])

    def _took(self, file: Prepared, taken: Taken) -> None:
        self.records += taken.records
        for reject in taken.rejects:
            self.rejects.reject(file.source.name, reject)
        self.inputs.take(
            InputRow(
                path=_noted(file.path),
                bytes=file.bytes,
                modified_ns=file.modified_ns,
                sha256=file.sha256,
                kind="traces",
                records=taken.records,
                rejects=len(taken.rejects),
                md5=file.md5,
            )
        )

    def take(self, path: str, name: str) -> None:
        """Read one file, record by record."""
        try:
            with InputFile(path, self.cancel) as file:
                records, rejects, digest = self._read(file, source_of(name))
                sha256, md5 = file.hashes()
                taken = InputRow(
                    path=_noted(path),
                    bytes=file.size,
                    modified_ns=file.modified_ns,
                    sha256=sha256,
                    kind="traces" if digest is None else "digest",
                    records=records,
                    rejects=rejects,
                    md5=md5,
                    digest=digest,
                )
        except OSError as e:
            self.rejects.reject(name, Reject(0, f"the file cannot be read: {e.strerror or e}", ""))
            return
        self.inputs.take(taken)

    def _read(self, file: InputFile, source: Source) -> tuple[int, int, str | None]:
        """Traces read, records rejected, and what the file says where it is a digest file."""
        records, rejects, digest = 0, 0, None
        for item in file.records():
            if isinstance(item, Record):
                self._row(read_trace(item.value, source, item.position, self.now, self.dataset.manifest.catalog))
                records += 1
            elif isinstance(item, DigestFile):
                digest = item.text
            else:
                self.rejects.reject(source.name, item)
                rejects += 1
        return records, rejects, digest

    def _row(self, row: TraceRow) -> None:
        self.records += 1
        self._rows.append(row)
        self._characters += sum(len(text) for text in (row.request, row.response, row.user_text, row.extra) if text)
        if len(self._rows) >= BATCH or self._characters > _BATCH_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        self.stage.add(self._rows)
        self._rows, self._characters = [], 0

    def commit(self) -> IngestResult:
        """Remove duplicates, write the parts, and make them count."""
        self._flush()
        flags: dict[str, int] = {}
        parts: list[Part] = []
        if self.inputs.count or self.rejects.count:
            parts = write_parts(self.dataset, self.stage, self.inputs.sha256, flags)
            manifest = self.dataset.manifest
            inputs = self._side("inputs", self.inputs.tables())
            rejects = self._side("rejects", self.rejects.tables())
            self.dataset.commit(
                replace(
                    manifest,
                    generation=self.generation,
                    parts=[*manifest.parts, *parts],
                    inputs=[*manifest.inputs, *inputs],
                    rejects=[*manifest.rejects, *rejects],
                )
            )
        kept = sum(part.rows for part in parts)
        return IngestResult(
            files=self.inputs.count,
            files_known=0,
            digest_files=self.inputs.digest_files,
            records=self.records,
            kept=kept,
            duplicates=self.records - kept,
            rejected=self.rejects.count,
            rejects=self.rejects.first,
            flags=dict(sorted(flags.items())),
        )

    def _side(self, kind: str, tables: Iterator[Any]) -> list[str]:
        """Write a side file; nothing where there is no row."""
        import pyarrow.parquet as pq

        filled = (table for table in tables if table.num_rows)
        first = next(filled, None)
        if first is None:
            return []
        path, name = self.dataset.own_target(kind, f"{self.generation:06}.parquet")
        with (
            disk_errors("the dataset cannot be written"),
            replacing(path) as temporary,
            pq.ParquetWriter(temporary, first.schema, compression="zstd", write_page_checksum=True) as writer,
        ):
            writer.write_table(first)
            for table in filled:
                writer.write_table(table)
        return [name]


def _chunks(
    found: Sequence[tuple[str, str]], work: str, cancel: Cancel
) -> Generator[tuple[list[str], list[Prepared]], None, None]:
    """Files in groups, in order: paths of those that have to be read record by record, and those that are ready for DuckDB.

    A group is as large as a chunk may be.
    """
    slow: list[str] = []
    group: list[Prepared] = []
    size = 0
    with contextlib.closing(_ahead(found, work, cancel)) as files:
        for path, ready in files:
            if ready is None:
                slow.append(path)
            else:
                group.append(ready)
                size += ready.size
            if size >= CHUNK_BYTES or len(group) >= CHUNK_FILES:
                yield slow, group
                slow, group, size = [], [], 0
        yield slow, group


def _ahead(found: Sequence[tuple[str, str]], work: str, cancel: Cancel) -> Generator[tuple[str, Prepared | None], None, None]:
    """Files made ready by two threads, in order; a few of them lie ready at a time."""
    waiting: deque[tuple[str, Future[Prepared | None]]] = deque()
    numbered = iter(enumerate(found))
    with ThreadPoolExecutor(2) as pool:
        try:
            while True:
                for number, (path, name) in islice(numbered, _READY - len(waiting)):
                    waiting.append((path, pool.submit(prepare, number, path, name, work, cancel)))
                if not waiting:
                    return
                path, future = waiting.popleft()
                yield path, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


class _Spool:
    """Rows of a side table, on disk when they are many or long."""

    def __init__(self, kind: type, path: str) -> None:
        self._kind = kind
        self._path = path
        self._held: list[Any] = []
        self._characters = 0
        self._writer: Any = None
        self.count = 0

    def add(self, row: Any, characters: int) -> None:
        """Add a row; `characters`: about how many it holds."""
        self._held.append(row)
        self._characters += characters
        self.count += 1
        if len(self._held) >= _ROWS_HELD or self._characters > _BATCH_CHARACTERS:
            self._spill()

    def _spill(self) -> None:
        import pyarrow as pa

        with disk_errors("what was read of files cannot be staged"):
            if self._writer is None:
                self._writer = pa.ipc.new_stream(self._path, row_schema(self._kind))
            self._writer.write_table(rows_to_arrow(self._kind, self._held))
        self._held, self._characters = [], 0

    def tables(self) -> Iterator[Any]:
        """All of them, a table after the other; nothing can be added any more."""
        import pyarrow as pa

        if self._writer is not None:
            self._writer.close()
            with pa.OSFile(self._path, "rb") as f:
                for batch in pa.ipc.open_stream(f):
                    yield pa.Table.from_batches([batch])
        yield rows_to_arrow(self._kind, self._held)


class _Rejects(_Spool):
    """Rejected records."""

    def __init__(self, path: str) -> None:
        super().__init__(RejectRow, path)
        self._first: list[tuple[str, int, str]] = []

    def reject(self, file: str, item: Reject) -> None:
        self.add(RejectRow(file=file, position=item.position, reason=item.reason, raw=item.raw), len(item.raw))
        # Files come in another order when some have to be read record by record.
        insort(self._first, (file, item.position, item.reason))
        del self._first[_REJECTS_TOLD:]

    @property
    def first(self) -> tuple[str, ...]:
        """The first few by file and position, as people read them."""
        return tuple(f"{printable(file)} {position}: {reason}" for file, position, reason in self._first)


class _Inputs(_Spool):
    """The files that were taken; what digest files say may be long."""

    def __init__(self, path: str) -> None:
        super().__init__(InputRow, path)
        self.digest_files = 0
        self._sha256: list[str] = []

    def take(self, row: InputRow) -> None:
        self.add(row, len(row.digest or ""))
        self.digest_files += row.kind == "digest"
        self._sha256.append(row.sha256)

    @property
    def sha256(self) -> str:
        """A digest of all of them, whatever their order."""
        return hashlib.sha256("".join(sorted(self._sha256)).encode()).hexdigest()


def stage_and_commit(dataset: Dataset, work: str, rows: Iterator[TraceRow], finish: Callable[[Manifest], Manifest]) -> list[Part]:
    """Add rows that come from elsewhere, as `ingest` adds those of files; `finish` completes the new manifest at the end."""
    stage = Stage(work, Cancel())
    while batch := list(islice(rows, BATCH)):
        stage.add(batch)
    if not stage.rows:
        return []
    parts = write_parts(dataset, stage, "", {})
    manifest = dataset.manifest
    new = replace(manifest, generation=manifest.generation + 1, parts=[*manifest.parts, *parts])
    dataset.commit(finish(new))
    return parts


def write_parts(dataset: Dataset, stage: Stage, inputs_digest: str, flags: dict[str, int]) -> list[Part]:
    """Write the staged rows that are new as parts of the next generation; they count once the manifest is committed.

    `flags` takes the number of rows written by flag.
    """
    stage.settle(dataset)
    generation = dataset.manifest.generation + 1

    def write(day: str) -> tuple[Part | None, dict[str, int]]:
        counts: dict[str, int] = {}
        return write_part(dataset, generation, day, _counted(stage.day(day), counts), inputs_digest), counts

    with ThreadPoolExecutor(2) as pool:
        written = list(pool.map(write, stage.days()))
    for _, counts in written:
        for flag, count in counts.items():
            flags[flag] = flags.get(flag, 0) + count
    return [part for part, _ in written if part is not None]


def _counted(tables: Iterator[Any], counts: dict[str, int]) -> Iterator[Any]:
    """The same tables; their flags are counted."""
    for table in tables:
        for value in table.column("flags").combine_chunks().flatten().value_counts().to_pylist():
            counts[value["values"]] = counts.get(value["values"], 0) + value["counts"]
        yield table
