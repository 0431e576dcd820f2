"""A dataset of traces: hive-partitioned Parquet whose manifest says which files count.

    DATASET/dt=YYYY-MM-DD/<generation>.parquet   traces of one UTC day, sorted by (time, trace_id)
    DATASET/dt=unknown/<generation>.parquet      those without a readable time
    DATASET/_swrbatch/manifest.json              generation, parts, inputs taken, the place that exports have reached
    DATASET/_swrbatch/inputs/, rejects/, tmp/    what was taken, what could not be read, work in progress

A run writes its parts under their final names and then replaces the manifest, by one rename: before it, the parts count for
nothing (readers go by the manifest) and the next run removes them; after it, all of them count. Late events get a part of
their own day; no part is ever changed. One run at a time: a lock says so clearly.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import functools
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from .. import __version__, faults
from ..cts import DEFAULT_CATALOG
from ..disk import disk_errors
from ..errors import StoreError, UsageError
from ..sizes import counted
from ..tables import parquet_options, replacing, row_schema
from .packed import REPEATED_TEXTS, plain_size, pruned, writable, written_schema
from .traces import TraceRow

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

FORMAT: Final = 1
ROW_GROUP: Final = 64 << 10
ROW_GROUP_BYTES: Final = 64 << 20
"""Bytes of a row group's rows as a reader holds them; writing takes less, for they are packed then."""
UNKNOWN_DAY: Final = "unknown"
_OWN: Final = "_swrbatch"


@dataclass(frozen=True, slots=True)
class Part:
    """A Parquet file of the dataset: its path below it, its day, its rows, and its SHA-256 ("" where an old version wrote it)."""

    path: str
    day: str
    rows: int
    sha256: str = ""


@dataclass(slots=True)
class Manifest:
    """What counts. `inputs` and `rejects` are Parquet files below the dataset."""

    format: int = FORMAT
    catalog: str = DEFAULT_CATALOG
    generation: int = 0
    parts: list[Part] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    rejects: list[str] = field(default_factory=list)
    export: dict[str, Any] = field(default_factory=dict)


class Dataset:
    """A dataset on disk. Raises `StoreError` when it is none, damaged, or newer than this program."""

    def __init__(self, path: str | os.PathLike[str], *, create: bool = False, catalog: str | None = None) -> None:
        self.path = os.path.abspath(os.fspath(path))
        self._own = os.path.join(self.path, _OWN)
        self._file = os.path.join(self._own, "manifest.json")
        if not os.path.exists(self._file):
            if self._has_parts() and not os.path.exists(self._file):  # another first run may have begun meanwhile
                # Parts that no manifest names are removed: that must not happen to all of them.
                raise StoreError(f"the manifest {self._file} is missing; restore it from a backup, or choose another folder")
            if not create:
                raise StoreError(f"{self.path} is no dataset: make one with swrbatch audit ingest or audit export")
            # A first run that was killed early leaves only its own folder.
            if os.path.isdir(self.path) and os.listdir(self.path) and not os.path.isdir(self._own):
                raise StoreError(f"{self.path} is not empty and is no dataset: choose an empty or a new folder")
        with disk_errors(f"the dataset {self.path} cannot be made"):
            _make_folder(self._own)
        self.manifest = self._load(catalog)
        if catalog is not None and catalog != self.manifest.catalog:
            raise UsageError(f"the dataset {self.path} is checked against {self.manifest.catalog}; it cannot become {catalog}")

    def _has_parts(self) -> bool:
        """Whether there are days here, and the folder of a dataset."""
        return os.path.isdir(self._own) and any(name.startswith("dt=") for name in os.listdir(self.path))

    def _load(self, catalog: str | None) -> Manifest:
        try:
            with open(self._file, encoding="utf-8") as f:
                value = json.load(f)
        except FileNotFoundError:
            return Manifest(catalog=catalog or DEFAULT_CATALOG)
        except (OSError, ValueError) as e:
            raise StoreError(f"the manifest {self._file} cannot be read: {e}; restore it from a backup") from e
        try:
            if value["format"] != FORMAT:
                raise StoreError(f"the dataset {self.path} has the format {value['format']}: use a newer swrbatch")
            return Manifest(**{**value, "parts": [Part(**part) for part in value["parts"]]})
        except (TypeError, KeyError) as e:
            raise StoreError(f"the manifest {self._file} is damaged: {e!r}; restore it from a backup") from e

    @contextlib.contextmanager
    def changing(self) -> Iterator[str]:
        """Hold the dataset for one run: reread the manifest, remove what a crash left, give a folder for work in progress."""
        with disk_errors("the dataset's lock cannot be taken"):
            fd = os.open(os.path.join(self._own, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as e:
                raise StoreError(f"another run is writing the dataset {self.path}: wait for it to end, and run again") from e
            catalog = self.manifest.catalog
            self.manifest = self._load(catalog)
            self.present()
            if self.manifest.catalog != catalog:
                raise StoreError(f"another run has made the dataset {self.path} with the catalog {self.manifest.catalog}")
            work = os.path.join(self._own, "tmp")
            with disk_errors("the dataset cannot be written"):
                shutil.rmtree(work, ignore_errors=True)
                self._sweep()
                os.makedirs(work)
            if not os.path.exists(self._file):
                # Before the first part: parts without a manifest are those of a dataset that has lost it.
                self.commit(self.manifest)
            try:
                yield work
            finally:
                shutil.rmtree(work, ignore_errors=True)
        finally:
            os.close(fd)

    def _sweep(self) -> None:
        """Remove parts that no manifest names: a run that did not come to its end wrote them."""
        known = {part.path for part in self.manifest.parts} | {*self.manifest.inputs, *self.manifest.rejects}
        for folder, folders, names in os.walk(self.path):
            folders[:] = [name for name in folders if name.startswith("dt=") or name in (_OWN, "inputs", "rejects")]
            for name in names:
                path = os.path.relpath(os.path.join(folder, name), self.path)
                if path not in known and name.endswith((".parquet", ".tmp")):
                    os.unlink(os.path.join(folder, name))
            if os.path.basename(folder).startswith("dt=") and not os.listdir(folder):
                os.rmdir(folder)

    def files(self, days: tuple[str, str] | None = None) -> list[str]:
        """The parts that count, as paths; with `days` (first, last) those of these days and those of unknown ones."""
        chosen = (p for p in self.manifest.parts if days is None or p.day == UNKNOWN_DAY or days[0] <= p.day <= days[1])
        return [os.path.join(self.path, part.path) for part in chosen]

    def present(self, days: tuple[str, str] | None = None) -> list[str]:
        """As `files`; StoreError unless all of them are there."""
        paths = self.files(days)
        lost = [path for path in paths if not os.path.isfile(path)]
        if lost:
            raise StoreError(
                f"the dataset {self.path} has lost {counted(len(lost), 'part')}, first {lost[0]}: restore from a backup "
                "(swrbatch audit verify tells all), or ingest or export anew into an empty folder"
            )
        return paths

    def side_files(self, kind: str) -> list[str]:
        """The files of `inputs` or `rejects`, as paths."""
        return [os.path.join(self.path, name) for name in getattr(self.manifest, kind)]

    def side_tables(self, kind: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """What these files hold (`columns`: only those, where they are there). StoreError when one cannot be read."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        for path in self.side_files(kind):
            try:
                there = pq.read_schema(path).names
                chosen = None if columns is None else [name for name in columns if name in there]
                yield pq.read_table(path, columns=chosen, use_threads=False, page_checksum_verification=True)
            except (OSError, pa.ArrowException) as e:
                reason = str(e).splitlines()[0]
                raise StoreError(f"the dataset's file {path} cannot be read: {reason}; restore it from a backup") from e

    def target(self, *names: str) -> str:
        """A path below the dataset whose folder exists."""
        path = os.path.join(self.path, *names)
        with disk_errors("the dataset cannot be written"):
            _make_folder(os.path.dirname(path))
        return path

    def own_target(self, kind: str, name: str) -> tuple[str, str]:
        """A path for a side file, absolute and below the dataset."""
        return self.target(_OWN, kind, name), f"{_OWN}/{kind}/{name}"

    def commit(self, manifest: Manifest) -> None:
        """Make a new manifest count: the one rename after which a run has happened."""
        with disk_errors("the dataset's manifest cannot be written"), replacing(self._file) as temporary:
            faults.point("manifest:write:before")
            with open(temporary, "w", encoding="utf-8") as f:
                json.dump(asdict(manifest), f, indent=1)
            faults.point("manifest:write:after")
        self.manifest = manifest

    def view(
        self,
        connection: duckdb.DuckDBPyConnection,
        name: str = "traces",
        days: tuple[str, str] | None = None,
        *,
        numbered: bool = False,
    ) -> None:
        """Make the dataset a DuckDB view: the columns of `TraceRow`, for free SQL.

        `numbered` adds where a row lies: `part` (uint64, a hash of the file's path) and `part_row` (int64).
        """
        files = self.present(days)
        if files:
            listed = ", ".join("'" + path.replace("'", "''") + "'" for path in files)
            columns = ", ".join(f'"{field_.name}"' for field_ in row_schema(TraceRow))
            options = "hive_partitioning = false"
            if numbered:
                columns += ", hash(filename) AS part, file_row_number AS part_row"
                options += ", filename = true, file_row_number = true"
            query = f"SELECT {columns} FROM read_parquet([{listed}], {options})"
        else:
            connection.register(f"{name}_empty", row_schema(TraceRow).empty_table())
            query = f"SELECT *{', 0::UBIGINT AS part, 0::BIGINT AS part_row' if numbered else ''} FROM {name}_empty"
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {query}")


def _make_folder(path: str) -> None:
    """Make a folder and those above it, so that a crash of the machine does not undo it."""
    if not os.path.isdir(path):
        above = os.path.dirname(path)
        _make_folder(above)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
        fd = os.open(above, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def write_part(dataset: Dataset, generation: int, day: str, tables: Iterable[pa.Table], inputs_digest: str) -> Part | None:
    """Write a day's rows, which come sorted (packed or not), as one Parquet file under its final name; None without a row.

    It counts once a manifest names it. StoreError when the disk refuses.
    """
    rows = map(writable, tables)
    first = next(rows, None)
    if first is None:
        return None
    name = f"dt={day}/{generation:06}.parquet"
    metadata = {
        "swrbatch.format": str(FORMAT),
        "swrbatch.catalog": dataset.manifest.catalog,
        "swrbatch.version": __version__,
        "swrbatch.inputs": inputs_digest,
    }
    count = 0
    target = dataset.target(name)
    with disk_errors("the dataset cannot be written"), replacing(target) as temporary:
        with _parquet_writer(temporary, metadata) as writer:
            for group in _row_groups(itertools.chain((first,), rows)):
                writer.write_table(pruned(group), row_group_size=ROW_GROUP)
                count += group.num_rows
                # The next one grows meanwhile.
                del group
        with open(temporary, "rb") as f:
            sha256 = hashlib.file_digest(f, "sha256").hexdigest()
    return Part(name, day, count, sha256)


def _parquet_writer(path: str, metadata: dict[str, str]) -> Any:
    import pyarrow.parquet as pq

    options = parquet_options(TraceRow)
    options["use_dictionary"] = sorted({*options["use_dictionary"], *REPEATED_TEXTS})
    if _has_bloom_filters():
        # Without a number a filter is made for a million values, whatever the row group's size.
        options["bloom_filter_options"] = {"trace_id": {"ndv": ROW_GROUP, "fpp": 0.01}}
    schema = row_schema(TraceRow).with_metadata(metadata)
    order = pq.SortingColumn.from_ordering(schema, [("time", "ascending"), ("trace_id", "ascending")])
    # Readers find the schema of plain rows: packed columns are a matter of how they are written.
    writer = pq.ParquetWriter(path, written_schema(), sorting_columns=order, store_schema=False, **options)
    writer.add_key_value_metadata({**metadata, "ARROW:schema": base64.b64encode(schema.serialize()).decode()})
    return writer


@functools.cache
def _has_bloom_filters() -> bool:
    """Whether this pyarrow writes bloom filters; old ones do not know the option."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetWriter(pa.BufferOutputStream(), pa.schema([("a", pa.string())]), bloom_filter_options={"a": True}):
            return True
    except TypeError:
        return False


def _row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of `ROW_GROUP` rows, fewer where they are large, the last one what is left."""
    import pyarrow as pa

    held: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        for start in range(0, table.num_rows, ROW_GROUP):
            piece = table.slice(start, ROW_GROUP)
            while held and (rows + piece.num_rows >= ROW_GROUP or size + plain_size(piece) > ROW_GROUP_BYTES):
                taken = max(0, ROW_GROUP - rows) if size + plain_size(piece) <= ROW_GROUP_BYTES else 0
                yield pa.concat_tables([*held, piece.slice(0, taken)])
                piece, held, rows, size = piece.slice(taken), [], 0, 0
            held.append(piece)
            rows, size = rows + piece.num_rows, size + plain_size(piece)
    if rows:
        yield pa.concat_tables(held)
