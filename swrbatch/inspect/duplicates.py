"""What images share by their files, and which of them would do well with a common base. DuckDB counts, bounded in memory.

A *content* is the sha256 of a regular file. `bytes` of all files counts each distinct layer once, as a registry stores it; what
sharing files would save beyond that is what a content costs again in other layers, or in the same one:

    duplicate_bytes = Σ over contents  size × (copies − 1)

*Candidates for a common base.* A file is a path with a content. For a set S of two or more images

    files        all that each image of S has in some layer, and that lie in two or more distinct layers of these images
    saved_bytes  Σ over them  size × (distinct layers of S's images that have the file − 1)

is what one base with these files would save, beyond the layers that are shared already, if the other layers did without them.
Looked at are the sets that occur: all images that have some such file. Named are the `CANDIDATES` whose own files cost most.
Sizes are bytes before compression.
"""

from __future__ import annotations

import contextlib
import functools
import operator
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..digest import Cancel
from ..duck import BATCH, connect, database_errors
from .files import LayerFiles
from .sharing import ImageLayers

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

LARGEST: Final = 20
"""Duplicates that are named."""
CANDIDATES: Final = 10
"""Candidates for a common base that are named."""
_SUMS: Final = """
    SELECT coalesce(sum(copies), 0), coalesce(sum(bytes * copies), 0), count(*), coalesce(sum(bytes), 0)
    FROM (SELECT any_value(size) AS bytes, count(*) AS copies FROM files GROUP BY digest)
"""
# A row for each content that stands more than once.
_DUPLICATES: Final = """
    WITH many AS (
        SELECT digest, any_value(size) AS bytes, count(*) AS copies, count(DISTINCT layer) AS layers, min(path) AS path
        FROM files GROUP BY digest HAVING count(*) > 1
    ), users AS (
        SELECT digest, count(DISTINCT image) AS images
        FROM (SELECT DISTINCT digest, layer FROM files SEMI JOIN many USING (digest)) JOIN uses USING (layer) GROUP BY digest
    )
    SELECT 'sha256:' || lower(hex(digest)) AS digest, bytes, copies, layers, images, bytes * (copies - 1) AS duplicate_bytes, path
    FROM many JOIN users USING (digest)
"""
# The files (path and content) that lie in several layers, taken together where they lie in the same ones.
_PLACES: Final = """
    SELECT layers, count(*) AS files, sum(bytes)
    FROM (
        SELECT list_sort(list(DISTINCT layer)) AS layers, any_value(size) AS bytes
        FROM files GROUP BY path, digest HAVING count(DISTINCT layer) > 1
    )
    GROUP BY layers
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """A content that stands several times in distinct layers. `path` is one of its names (the first by spelling)."""

    digest: str
    bytes: int
    copies: int
    layers: int
    images: int
    duplicate_bytes: int
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateBase:
    """Images that have the same files in different layers: how many, their bytes, and what a base of them would save."""

    files: int
    bytes: int
    saved_bytes: int
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSharing:
    """The files of the distinct layers: of `files` many `distinct_files` differ. `largest` and `candidates` by what they save."""

    files: int
    bytes: int
    distinct_files: int
    distinct_bytes: int
    largest: tuple[Duplicate, ...]
    candidates: tuple[CandidateBase, ...]

    @property
    def duplicate_bytes(self) -> int:
        """What storing each content once would save beyond storing each layer once, in bytes."""
        return self.bytes - self.distinct_bytes


@dataclass(frozen=True, slots=True)
class _Place:
    """Files that lie in the same layers: those, the images that have one of them (a bit for each), how many, their bytes."""

    layers: frozenset[int]
    images: int
    files: int
    bytes: int


@contextlib.contextmanager
def counting(files: LayerFiles, images: Sequence[ImageLayers], cancel: Cancel) -> Iterator[FileCounts]:
    """The files that were read, ready to be counted. A layer of no image (its image was refused) does not count."""
    with database_errors("the files cannot be counted", cancel), contextlib.closing(connect(files.folder)) as connection:
        yield FileCounts(connection, files, images)


class FileCounts:
    """Questions to the files of a batch."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, files: LayerFiles, images: Sequence[ImageLayers]) -> None:
        import pyarrow as pa

        self._connection = connection
        self._names = [image.name for image in images]
        self._layers = [frozenset(files.number(diff_id) for diff_id, _ in image.layers) for image in images]
        uses = [(layer, at) for at, layers in enumerate(self._layers) for layer in layers]
        table = pa.table({name: pa.array([row[at] for row in uses], pa.int64()) for at, name in enumerate(("layer", "image"))})
        connection.register("uses", table)
        path = files.path.replace("'", "''")
        connection.execute(f"CREATE VIEW files AS SELECT * FROM read_parquet('{path}') SEMI JOIN uses USING (layer)")

    def sharing(self) -> FileSharing:
        """The sums, the largest duplicates, and the candidates for a common base."""
        ((*sums,),) = self._connection.execute(_SUMS).fetchall()
        files, total, distinct, distinct_bytes = map(int, sums)
        return FileSharing(
            files=files,
            bytes=total,
            distinct_files=distinct,
            distinct_bytes=distinct_bytes,
            largest=tuple(self._largest()),
            candidates=tuple(self._candidates()),
        )

    def duplicates(self) -> Iterator[pa.RecordBatch]:
        """All duplicates, by what they cost: the columns of `Duplicate`."""
        yield from self._connection.sql(f"{_DUPLICATES} ORDER BY duplicate_bytes DESC, digest").to_arrow_reader(BATCH)

    def _largest(self) -> Iterator[Duplicate]:
        query = f"{_DUPLICATES} ORDER BY duplicate_bytes DESC, digest LIMIT {LARGEST}"
        for digest, size, copies, layers, images, wasted, path in self._connection.execute(query).fetchall():
            yield Duplicate(
                digest=digest, bytes=size, copies=copies, layers=layers, images=images, duplicate_bytes=int(wasted), path=path
            )

    def _candidates(self) -> list[CandidateBase]:
        users: dict[int, int] = {}  # the images of a layer, a bit for each
        for at, layers in enumerate(self._layers):
            for layer in layers:
                users[layer] = users.get(layer, 0) | 1 << at
        places = [
            _Place(frozenset(layers), functools.reduce(operator.or_, (users[layer] for layer in layers)), files, int(size))
            for layers, files, size in self._connection.execute(_PLACES).fetchall()
        ]
        own: Counter[int] = Counter()
        for place in places:
            if place.images.bit_count() > 1:
                own[place.images] += place.bytes * (len(place.layers) - 1)
        largest = sorted(own, key=lambda images: (-own[images], images))[:CANDIDATES]
        return sorted((self._candidate(images, places) for images in largest), key=lambda each: (-each.saved_bytes, each.images))

    def _candidate(self, wanted: int, places: Sequence[_Place]) -> CandidateBase:
        members = [at for at in range(len(self._names)) if wanted >> at & 1]
        layers = frozenset().union(*(self._layers[at] for at in members))
        files = size = saved = 0
        for place in places:
            if place.images & wanted == wanted and (count := len(place.layers & layers)) > 1:
                files, size, saved = files + place.files, size + place.bytes, saved + place.bytes * (count - 1)
        return CandidateBase(files=files, bytes=size, saved_bytes=saved, images=tuple(self._names[at] for at in members))
