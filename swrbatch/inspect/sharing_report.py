"""What images share, as Parquet: `DIR/<table>/<run_id>.parquet` like an import's report; `dedupe` last, the mark of the whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

from ..errors import printable
from ..results import Millis
from ..tables import row_schema, rows_to_arrow, write_table
from .duplicates import FileSharing
from .sharing import Sharing

if TYPE_CHECKING:
    import pyarrow as pa

_RunId = Annotated[str, "the run, as in `dedupe`"]
_Images = Annotated[tuple[str, ...], "names of the images, each by its first; its image ID behind it where two have one name"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedLayerRow:
    """A layer of several images: `shared_layers`. Sizes as stored."""

    run_id: _RunId
    diff_id: Annotated[str, "digest of the uncompressed tar"]
    bytes: Annotated[int, "bytes of the layer where it was met first"]
    saved_bytes: Annotated[int, "what storing it once saves"]
    images: _Images


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedFileRow:
    """A content of regular files that stands several times in the distinct layers (`--files`): `shared_files`."""

    run_id: _RunId
    digest: Annotated[str, "sha256 of the content"]
    bytes: Annotated[int, "bytes of it"]
    copies: Annotated[int, "files that have it, in distinct layers"]
    layers: Annotated[int, "distinct layers that have it"]
    images: Annotated[int, "images that have it"]
    duplicate_bytes: Annotated[int, "bytes × (copies − 1)"]
    path: Annotated[str, "one of the files, the first by spelling"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRow:
    """A base of several images: one that they have, or (`--files`) one that would do them good: `bases`."""

    run_id: _RunId
    kind: Annotated[
        str, "common: the lowest layers that they have in common; candidate: files that all have, in different layers"
    ]
    layers: Annotated[int | None, "layers of a common base"]
    top_diff_id: Annotated[str | None, "diff_id of a common base's uppermost layer"]
    files: Annotated[int | None, "files of a candidate"]
    bytes: Annotated[int, "bytes of the layers as stored, or of the files"]
    saved_bytes: Annotated[int, "what the common base saves, or a candidate would"]
    images: _Images


@dataclass(frozen=True, slots=True, kw_only=True)
class DedupeRow:
    """A run of `dedupe`: `dedupe`. Layers as stored; files of the distinct layers, null without `--files`."""

    run_id: Annotated[str, "the run"]
    time: Annotated[Millis, "when it began"]
    store: Annotated[str | None, "the store's folder; null for archives"]
    images: Annotated[int, "images, each once"]
    layers: Annotated[int, "their layers, each image's for itself"]
    distinct_layers: Annotated[int, "distinct layers"]
    bytes: Annotated[int, "bytes of all layers"]
    distinct_bytes: Annotated[int, "bytes of the distinct layers"]
    files: Annotated[int | None, "regular files with a content"]
    file_bytes: Annotated[int | None, "bytes of them"]
    distinct_files: Annotated[int | None, "distinct contents"]
    distinct_file_bytes: Annotated[int | None, "bytes of the distinct contents"]


SHARING_ROWS: Final[Mapping[str, type]] = {
    "dedupe": DedupeRow,
    "shared_layers": SharedLayerRow,
    "shared_files": SharedFileRow,
    "bases": BaseRow,
}


def write_sharing(
    folder: str,
    run: tuple[str, int, str | None],
    sharing: Sharing,
    files: FileSharing | None,
    duplicates: Iterable[pa.RecordBatch],
) -> list[str]:
    """Write the tables of a run (id, begin in ms UTC, store) below `folder`; their paths. `StoreError` when the disk refuses."""
    run_id, time, store = run
    layers = [
        SharedLayerRow(
            run_id=run_id, diff_id=str(each.diff_id), bytes=each.size, saved_bytes=each.saved_bytes, images=_names(each.images)
        )
        for each in sharing.shared
    ]
    row = DedupeRow(
        run_id=run_id,
        time=Millis(time),
        store=store,
        images=sharing.images,
        layers=sharing.layers,
        distinct_layers=sharing.distinct_layers,
        bytes=sharing.bytes,
        distinct_bytes=sharing.distinct_bytes,
        files=files.files if files else None,
        file_bytes=files.bytes if files else None,
        distinct_files=files.distinct_files if files else None,
        distinct_file_bytes=files.distinct_bytes if files else None,
    )

    def write(table: str, data: Iterable[Any]) -> str:
        return write_table(folder, table, run_id, SHARING_ROWS[table], data)

    def rows(table: str, found: Sequence[Any]) -> str:
        return write(table, [rows_to_arrow(SHARING_ROWS[table], found)])

    return [
        rows("shared_layers", layers),
        rows("bases", list(_bases(run_id, sharing, files))),
        write("shared_files", _files(run_id, duplicates)),
        rows("dedupe", [row]),
    ]


def _names(images: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(printable, images))


def _bases(run_id: str, sharing: Sharing, files: FileSharing | None) -> Iterator[BaseRow]:
    for base in sharing.bases:
        yield BaseRow(
            run_id=run_id,
            kind="common",
            layers=base.layers,
            top_diff_id=str(base.top),
            files=None,
            bytes=base.size,
            saved_bytes=base.size * (len(base.images) - 1),
            images=_names(base.images),
        )
    for candidate in files.candidates if files else ():
        yield BaseRow(
            run_id=run_id,
            kind="candidate",
            layers=None,
            top_diff_id=None,
            files=candidate.files,
            bytes=candidate.bytes,
            saved_bytes=candidate.saved_bytes,
            images=_names(candidate.images),
        )


def _files(run_id: str, duplicates: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The batches with the run's id before their columns."""
    import pyarrow as pa

    schema = row_schema(SharedFileRow)
    for batch in duplicates:
        ids = pa.array([run_id] * batch.num_rows, pa.string())
        yield pa.Table.from_arrays(
            [ids, *(batch.column(name).cast(schema.field(name).type) for name in schema.names[1:])], schema=schema
        )
