"""A dataset on disk: what its files are like, what counts, what a crash may leave, what is refused."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import swrbatch
import swrbatch.audit.dataset as dataset_module
import swrbatch.audit.stage as stage_module
from swrbatch import StoreError, UsageError
from swrbatch.audit.dataset import ROW_GROUP, Dataset, Part, _row_groups, write_part
from swrbatch.audit.ingest import ingest
from swrbatch.audit.packed import REPEATED, REPEATED_TEXTS, packed, packed_schema, pruned, unpacked, writable
from swrbatch.audit.stage import Stage
from swrbatch.audit.traces import Source, TraceRow, read_trace
from swrbatch.digest import Cancel
from swrbatch.tables import row_columns, row_schema, rows_to_arrow
from test_audit_export import cli
from traces import DAY, NOON, NOW, obs, rows_of, trace, traces, write


def made(folder: Path, *values: list[dict[str, Any]], **options: Any) -> Dataset:
    """A dataset of files, one for each list of traces, in one run."""
    dataset = Dataset(folder / "dataset", create=True, **options)
    for number, each in enumerate(values):
        write(folder / "in" / f"{number}.json.gz", obs(each))
    ingest([str(folder / "in")], dataset, now=NOW)
    return dataset


def part_files(dataset: Dataset) -> list[str]:
    return sorted(os.path.relpath(path, dataset.path) for path in Path(dataset.path).glob("dt=*/*"))


# --- the files ---------------------------------------------------------------------------------------------------------


def test_partitions_by_the_day_of_the_event_in_utc(tmp_path: Path) -> None:
    midnight = NOON + DAY // 2
    dataset = made(
        tmp_path,
        [
            trace(0, time=midnight - 1),
            trace(1, time=midnight),
            trace(2, time="2024/06/20 07:59:59 GMT+08:00"),
            trace(3, time="?"),
        ],
    )
    assert part_files(dataset) == ["dt=2024-06-19/000001.parquet", "dt=2024-06-20/000001.parquet", "dt=unknown/000001.parquet"]
    assert [row["day"] for row in rows_of(dataset)] == ["2024-06-19", "2024-06-20", "2024-06-19", "unknown"]
    # Read as hive does it: the folder's name is a column.
    read = pq.read_table(dataset.path, columns=["trace_id", "dt"], use_threads=False)
    assert sorted(read.column("dt").to_pylist()) == ["2024-06-19", "2024-06-19", "2024-06-20", "unknown"]


def test_the_parquet_rules(tmp_path: Path) -> None:
    values = traces(50)
    dataset = made(tmp_path, values[::-1])
    [path] = dataset.files()
    file = pq.ParquetFile(path)
    schema = row_schema(TraceRow)
    assert file.schema_arrow.remove_metadata().equals(schema)
    assert schema.field("time").type == pa.timestamp("ms", tz="UTC") and schema.field("flags").type == pa.list_(pa.string())
    assert [c.name for c in row_columns(TraceRow)] == file.schema_arrow.names
    group = file.metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert {c.compression for c in columns.values()} == {"ZSTD"}
    assert "PLAIN_DICTIONARY" not in columns["trace_id"].encodings and "RLE_DICTIONARY" not in columns["trace_id"].encodings
    assert "RLE_DICTIONARY" in columns["trace_name"].encodings
    assert columns["trace_id"].has_column_index and columns["trace_id"].has_offset_index
    assert {s.column_index for s in group.sorting_columns} == {file.schema_arrow.get_field_index(n) for n in ("time", "trace_id")}
    assert (
        file.schema_arrow.metadata[b"swrbatch.format"] == b"1"
        and file.schema_arrow.metadata[b"swrbatch.catalog"] == b"guide_2020"
    )
    assert file.schema_arrow.metadata[b"swrbatch.version"] == swrbatch.__version__.encode()
    assert len(file.schema_arrow.metadata[b"swrbatch.inputs"]) == 64
    read = file.read(use_threads=False)
    assert read.column("trace_id").to_pylist() == [value["trace_id"] for value in values]
    # A changed byte is found.
    data = bytearray(Path(path).read_bytes())
    data[columns["trace_id"].data_page_offset + 60] ^= 1
    Path(path).write_bytes(data)
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(path, page_checksum_verification=True, use_threads=False)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (made(tmp_path / name, traces(200), traces(100, 100)) for name in "ab")
    for one, other in zip(first.files(), second.files(), strict=True):
        assert Path(one).read_bytes() == Path(other).read_bytes()


@pytest.mark.parametrize("sizes", [[1], [3, 3, 3], [10], [10, 10], [9, 2, 10, 35, 1], [25], [0, 4, 0, 17]])
def test_row_groups_are_filled(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "ROW_GROUP", 10)
    begins = [sum(sizes[:i]) for i in range(len(sizes))]
    tables = [
        pa.table({"n": list(range(b, b + size))}, schema=pa.schema([("n", pa.int64())]))
        for b, size in zip(begins, sizes, strict=True)
    ]
    groups = list(_row_groups(tables))
    assert [n for group in groups for n in group.column("n").to_pylist()] == list(range(sum(sizes)))
    assert all(group.num_rows == 10 for group in groups[:-1]) and 0 < groups[-1].num_rows <= 10


def test_row_groups_of_large_rows_are_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "ROW_GROUP_BYTES", 1000)
    groups = list(_row_groups(pa.table({"t": ["x" * 300]}) for _ in range(7)))
    assert [group.num_rows for group in groups] == [3, 3, 1]


def test_packed_rows_count_as_readers_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "ROW_GROUP_BYTES", 1000)
    groups = list(_row_groups(pa.table({"trace_name": packed(["x" * 300], np.zeros(1, dtype=int))}) for _ in range(7)))
    assert [group.num_rows for group in groups] == [3, 3, 1]


def test_row_groups_have_the_size_that_readers_like() -> None:
    assert 64 << 10 <= ROW_GROUP <= 128 << 10


def test_a_large_day_is_sorted_by_duckdb_the_same_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [trace(n, time=NOON + n * 7919 % 1000, trace_id=f"{n % 400:04}-é-{n % 3}" if n % 17 else ...) for n in range(1500)]
    small = made(tmp_path / "a", values[:800], values[800:])
    monkeypatch.setattr(stage_module, "SORTED_IN_MEMORY", 0)
    large = made(tmp_path / "b", values[:800], values[800:])
    tables = [pq.read_table(dataset.files()[0], use_threads=False) for dataset in (small, large)]
    assert tables[0].equals(tables[1])
    keys = [(row["time"], row["trace_id"] is None, row["trace_id"] or "", row["source_file"]) for row in tables[0].to_pylist()]
    assert keys == sorted(keys) and len(keys) > 400


# --- the stage ---------------------------------------------------------------------------------------------------------


def staged(folder: Path) -> Stage:
    folder.mkdir(exist_ok=True)
    return Stage(str(folder), Cancel())


def row(number: int, **changes: Any) -> TraceRow:
    return read_trace(trace(number, **changes), Source(name="f"), number, NOW, "guide_2020")


def test_a_group_is_added_whole_or_not_at_all(tmp_path: Path) -> None:
    stage = staged(tmp_path / "work")
    stage.add([row(0)])
    with contextlib.suppress(ZeroDivisionError), stage.group() as group:
        group.add(rows_to_arrow(TraceRow, [row(1)]).to_batches()[0])
        raise ZeroDivisionError
    stage.add([row(2), row(3, time=NOON + DAY)])
    stage.settle(Dataset(tmp_path / "dataset", create=True))
    found = {day: [r for table in stage.day(day) for r in table.column("source_position").to_pylist()] for day in stage.days()}
    assert found == {"2024-06-19": [0, 2], "2024-06-20": [3]} and stage.rows == 3
    assert len(list((tmp_path / "work").glob("*.arrow"))) == 2


SHAPES: list[dict[str, Any]] = [
    {},
    {"user": None, "source_ip": None, "code": None},
    {"user": "anna", "code": "", "api_version": "é", "time": NOON + DAY},
    {"trace_rating": "?", "time": "?"},  # breaks the contract
    {"resource_name": "A//b", "domain_id": "[]", "request": {"a": 1}},
]


@pytest.mark.parametrize("largest", [8 << 20, 0], ids=["one file", "a file for each batch"])
def test_staged_rows_come_back_as_they_were(tmp_path: Path, largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed by batches whose texts are others each time, the first one without any; in whatever number of files."""
    monkeypatch.setattr(stage_module, "_VOCABULARY", largest)
    none = dict.fromkeys((*REPEATED_TEXTS[2:-2],), None)
    rows = [row(number, **{**SHAPES[number % 5], **(none if number < 10 else {})}) for number in range(60)]
    stage = staged(tmp_path / "work")
    with stage.group() as group:
        for begin in range(0, 60, 10):
            group.add(rows_to_arrow(TraceRow, rows[begin : begin + 10]).to_batches()[0])
    assert len(group.files) == (1 if largest else 6) and {os.path.dirname(path) for path in group.files} == {
        str(tmp_path / "work")
    }
    names = row_schema(TraceRow).names
    found = [unpacked(batch) for _, batch in stage._batches(names)]
    assert all(batch.schema.equals(row_schema(TraceRow)) for batch in found)
    back = sorted(pa.Table.from_batches(found).to_pylist(), key=lambda r: r["source_position"])
    assert back == rows_to_arrow(TraceRow, rows).to_pylist()


def test_what_is_written_is_the_same_packed_or_not() -> None:
    rows = rows_to_arrow(TraceRow, [row(number, **SHAPES[number % 5]) for number in range(20)])
    kind = pa.dictionary(pa.int32(), pa.string())
    packed_rows = rows.cast(pa.schema([f.with_type(kind) if f.name in REPEATED_TEXTS else f for f in rows.schema]))
    assert {f.name for f in packed_schema() if pa.types.is_dictionary(f.type)} == REPEATED
    assert writable(rows).equals(writable(packed_rows)) and unpacked(writable(rows)).equals(rows)


def test_a_dictionary_holds_what_its_rows_have() -> None:
    """Texts that stand twice, that no row has, and null; two chunks whose dictionaries are others."""
    chunks = [packed(["a", "b", None, "a", "never"], np.array([3, 2, 0, 1])), packed(["c", "a"], np.array([0, 0]))]
    table = pa.table({"trace_name": pa.chunked_array(chunks)})
    found = pruned(table).column("trace_name")
    assert found.to_pylist() == ["a", None, "a", "b", "c", "c"]
    assert [sorted(chunk.dictionary.to_pylist()) for chunk in found.chunks] == [["a", "b", "c"]] * 2


def test_days_far_apart(tmp_path: Path) -> None:
    stage = staged(tmp_path / "work")
    stage.add([row(0, time=0), row(1, time=253402300799999), row(2, time="?"), row(3, time=0)])
    assert stage.days() == ["1970-01-01", "9999-12-31", "unknown"]
    stage.settle(Dataset(tmp_path / "dataset", create=True))
    assert [table.num_rows for day in stage.days() for table in stage.day(day)] == [2, 1, 1]


# --- what counts -------------------------------------------------------------------------------------------------------


def test_parts_that_no_manifest_names_count_for_nothing_and_go(tmp_path: Path) -> None:
    dataset = made(tmp_path, traces(3))
    before = rows_of(dataset)
    stray = write(Path(dataset.path) / "dt=2024-06-19" / "000009.parquet", b"torn")
    write(Path(dataset.path) / "dt=2030-01-01" / ".000009.parquet.tmp", b"torn")
    side = write(Path(dataset.path) / "_swrbatch" / "inputs" / "000009.parquet", b"torn")
    work = write(Path(dataset.path) / "_swrbatch" / "tmp" / "rows-0.arrow", b"torn")
    assert rows_of(Dataset(dataset.path)) == before
    with Dataset(dataset.path).changing():
        assert (
            not stray.exists() and not side.exists() and not work.exists() and not (Path(dataset.path) / "dt=2030-01-01").exists()
        )
    assert rows_of(Dataset(dataset.path)) == before


def test_a_first_run_that_was_killed_is_taken_up(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path / "dataset", create=True)
    with dataset.changing():
        # An empty manifest is there before the first part.
        dataset_file = Path(dataset.target("dt=2024-06-19", "000001.parquet"))
        dataset_file.write_bytes(b"half a part")
    assert rows_of(Dataset(dataset.path)) == []
    again = made(tmp_path, traces(3))
    assert len(rows_of(again)) == 3


def test_a_dataset_that_has_lost_its_manifest_is_not_swept(tmp_path: Path) -> None:
    """The parts are all that is left of it, and the next run must not take them for those of a killed one."""
    dataset = made(tmp_path, traces(3))
    (Path(dataset.path) / "_swrbatch" / "manifest.json").unlink()
    parts = sorted(Path(dataset.path).glob("dt=*/*"))
    for create in (False, True):
        with pytest.raises(StoreError, match="is missing; restore it"):
            Dataset(dataset.path, create=create)
    assert sorted(Path(dataset.path).glob("dt=*/*")) == parts != []
    assert cli("audit", "verify", dataset.path)[0] == 3


def test_damaged_inputs_are_told(tmp_path: Path) -> None:
    dataset = made(tmp_path, traces(3))
    (side,) = map(Path, dataset.side_files("inputs"))
    data = bytearray(side.read_bytes())
    data[100] ^= 0xFF
    for content in (b"", bytes(data), bytes(data[: len(data) // 2])):
        side.write_bytes(content)
        for command in (("ingest", tmp_path / "in", "--to", dataset.path), ("report", dataset.path, "--to", tmp_path / "report")):
            code, _, err = cli("audit", *command)
            assert code == 3 and "inputs/000001.parquet cannot be read" in err and "restore it from a backup" in err


def test_one_run_at_a_time(tmp_path: Path) -> None:
    dataset = made(tmp_path, traces(3))
    with (
        dataset.changing(),
        pytest.raises(StoreError, match=r"another run is writing the dataset .*: wait for it to end, and run again"),
    ):
        ingest([str(tmp_path / "in")], Dataset(dataset.path), now=NOW)
    assert ingest([str(tmp_path / "in")], Dataset(dataset.path), now=NOW).files_known == 1


def test_the_view_is_for_free_sql(tmp_path: Path) -> None:
    import duckdb

    dataset = made(tmp_path, [trace(0), trace(1, time=NOON + DAY)], [trace(2, time="?")])
    with duckdb.connect() as connection:
        dataset.view(connection)
        assert connection.sql("SELECT count(*), min(trace_id) FROM traces").fetchall() == [(3, trace(0)["trace_id"])]
        dataset.view(connection, "one", ("2024-06-20", "2024-06-20"))
        # What has no readable time may be of any day.
        assert connection.sql("SELECT count(*) FROM one").fetchall() == [(2,)]
        Dataset(tmp_path / "empty", create=True).view(connection, "none")
        assert connection.sql("SELECT count(*) FROM none").fetchall() == [(0,)]
        assert [c for c, *_ in connection.sql("DESCRIBE none").fetchall()] == [c.name for c in row_columns(TraceRow)]


# --- what is refused ---------------------------------------------------------------------------------------------------


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "photos" / "a.jpg", b"x")
    with pytest.raises(StoreError, match="is not empty and is no dataset"):
        Dataset(tmp_path / "photos", create=True)
    with pytest.raises(StoreError, match="is no dataset: make one"):
        Dataset(tmp_path / "photos")
    assert os.listdir(tmp_path / "photos") == ["a.jpg"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"format": 2}',
        '{"format": 1}',
        '{"format": 1, "parts": [1]}',
        '{"format": 1, "parts": [], "x": 1}',
    ],
)
def test_a_damaged_manifest_is_told(tmp_path: Path, text: str) -> None:
    dataset = made(tmp_path, traces(1))
    (Path(dataset.path) / "_swrbatch" / "manifest.json").write_text(text)
    with pytest.raises(StoreError, match=r"restore it from a backup|use a newer swrbatch"):
        Dataset(dataset.path)


def test_a_dataset_keeps_its_catalog(tmp_path: Path) -> None:
    dataset = made(tmp_path, [trace(0, trace_name="postMultipartImagePackage", resource_type="images")], catalog="v2")
    assert [row["flags"] for row in rows_of(dataset)] == [[]]
    assert Dataset(dataset.path).manifest.catalog == "v2"
    with pytest.raises(UsageError, match="is checked against v2; it cannot become guide_2020"):
        Dataset(dataset.path, catalog="guide_2020")


def test_a_catalog_that_another_run_chose_first(tmp_path: Path) -> None:
    waiting = Dataset(tmp_path / "dataset", create=True, catalog="v1")
    made(tmp_path, traces(1), catalog="v2")
    with pytest.raises(StoreError, match="with the catalog v2"), waiting.changing():
        pass


def test_a_full_disk_is_a_store_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset(tmp_path / "dataset", create=True)

    def full(path: str, schema: Any) -> Any:
        raise OSError(28, "No space left on device", path)

    monkeypatch.setattr(dataset_module, "_parquet_writer", full)
    with pytest.raises(StoreError, match="No space left"):
        write_part(dataset, 1, "2024-06-19", [rows_to_arrow(TraceRow, [row(0)])], "")
    assert part_files(dataset) == []


def test_no_rows_no_part(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path / "dataset", create=True)
    assert write_part(dataset, 1, "2024-06-19", [], "") is None
    name = "dt=2024-06-19/000001.parquet"
    part = write_part(dataset, 1, "2024-06-19", [rows_to_arrow(TraceRow, [row(0)])], "")
    assert part == Part(name, "2024-06-19", 1, hashlib.sha256((Path(dataset.path) / name).read_bytes()).hexdigest())


def test_the_manifest_is_readable(tmp_path: Path) -> None:
    dataset = made(tmp_path, traces(2))
    value = json.loads((Path(dataset.path) / "_swrbatch" / "manifest.json").read_text())
    name = "dt=2024-06-19/000001.parquet"
    digest = hashlib.sha256((Path(dataset.path) / name).read_bytes()).hexdigest()
    assert value["generation"] == 1
    assert value["parts"] == [{"path": name, "day": "2024-06-19", "rows": 2, "sha256": digest}]
