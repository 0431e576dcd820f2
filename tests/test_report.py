"""The report: Parquet tables that grow run by run, the same rows as DataFrames and as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from sqlalchemy import insert, select

import imagetar
from conftest import ROOT
from imagetar import TAG, Image
from swrbatch import Cancel, RunResult, Store, StoreError, check_archives, import_archives, tables
from swrbatch.ledger.schema import administrators, events
from swrbatch.results import ROWS

OTHERS = [name for name in ROWS if name != "runs"]


@dataclasses.dataclass(frozen=True)
class Runs:
    """Three runs with one report: all fixtures imported, one of them again, and all checked."""

    folder: Path
    store: Path
    results: tuple[RunResult, RunResult, RunResult]

    def files(self, table: str) -> dict[str, Path]:
        """The files of a table by run."""
        return {path.stem: path for path in (self.folder / table).glob("*.parquet")}

    def rows(self, table: str) -> int:
        return sum(len(result.rows(table)) for result in self.results)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, archives_dir: Path) -> Runs:
    base = tmp_path_factory.mktemp("runs")
    store, report = base / "store", str(base / "report")
    names = [str(path) for path in sorted(archives_dir.glob("*.tar*"))]
    patch = pytest.MonkeyPatch()
    patch.setenv("CI_JOB_ID", "job 7")
    first = import_archives(names, store, report=report, hash_archives=True)
    patch.undo()
    # Without an event, for the tests compare all events with those of the runs.
    with Store(store) as opened, opened.ledger.write() as connection:
        connection.execute(insert(administrators).values(account="default", user="alice", created_ms=0))
    second = import_archives(names[3:4], store, report=report, user="alice")
    third = check_archives(names, report=report)
    return Runs(base / "report", store, (first, second, third))


# --- the files ---------------------------------------------------------------------------------------------------------


def test_a_file_a_table_and_run(runs: Runs) -> None:
    assert sorted(path.name for path in runs.folder.iterdir()) == sorted(ROWS)
    for table in ROWS:
        assert set(runs.files(table)) == {result.run.run_id for result in runs.results}
        assert len(list((runs.folder / table).iterdir())) == 3, "nothing else is left there"


@pytest.mark.parametrize("table", ROWS)
def test_the_schema_of_a_file_is_that_of_its_table(runs: Runs, table: str) -> None:
    for path in runs.files(table).values():
        found = pq.read_schema(path)
        assert found.equals(tables.schema(table)) and not found.metadata
        assert [(field.name, field.nullable) for field in found] == [(c.name, c.nullable) for c in tables.columns(table)]


@pytest.mark.parametrize("table", ROWS)
def test_how_a_file_is_written(runs: Runs, table: str) -> None:
    for run, path in runs.files(table).items():
        metadata = pq.read_metadata(path)
        rows = next(len(result.rows(table)) for result in runs.results if result.run.run_id == run)
        assert metadata.num_rows == rows
        for group in range(metadata.num_row_groups):
            for column in range(metadata.num_columns):
                chunk = metadata.row_group(group).column(column)
                assert chunk.compression == "ZSTD"
                assert not rows or (chunk.has_column_index and chunk.has_offset_index)


@pytest.mark.parametrize("table", ROWS)
def test_every_column_is_explained(table: str) -> None:
    columns = tables.columns(table)
    assert columns[0].name == "run_id"
    assert len({column.name for column in columns}) == len(columns)
    described = tables.describe({table: ROWS[table]})
    for column in columns:
        assert len(column.meaning) > 2, column.name
        assert f"| `{column.name}` | {column.type} |" in described
    assert ROWS[table].__doc__


@pytest.mark.parametrize("table", ROWS)
def test_only_what_may_be_null_is(runs: Runs, table: str) -> None:
    for path in runs.files(table).values():
        data = pq.read_table(path)
        nulls = {name for name in data.column_names if data[name].null_count}
        assert nulls <= {column.name for column in tables.columns(table) if column.nullable}


# --- reading all runs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ROWS)
def test_pandas_reads_all_runs(runs: Runs, table: str) -> None:
    (runs.folder / table / ".half-written.parquet.tmp").write_bytes(b"what a killed run leaves")
    frame = pd.read_parquet(runs.folder / table)
    assert len(frame) == runs.rows(table)
    assert list(frame.columns) == tables.schema(table).names
    for result in runs.results:
        assert (frame["run_id"] == result.run.run_id).sum() == len(result.rows(table))
    (runs.folder / table / ".half-written.parquet.tmp").unlink()


@pytest.mark.parametrize("table", ROWS)
def test_pyarrow_reads_all_runs(runs: Runs, table: str) -> None:
    read = ds.dataset(runs.folder / table, format="parquet")
    assert read.schema.equals(tables.schema(table))
    assert read.count_rows() == runs.rows(table)
    assert pq.read_table(runs.folder / table).num_rows == runs.rows(table)


@pytest.mark.parametrize("table", ROWS)
def test_duckdb_reads_all_runs(runs: Runs, table: str) -> None:
    with duckdb.connect() as connection:
        source = f"read_parquet('{runs.folder}/{table}/*.parquet')"
        assert connection.sql(f"select count(*) from {source}").fetchall() == [(runs.rows(table),)]
        described = connection.sql(f"describe select * from {source}").fetchall()
    types = {"string": "VARCHAR", "int64": "BIGINT", "double": "DOUBLE", "bool": "BOOLEAN", "list<string>": "VARCHAR[]"}
    types["timestamp[ms, UTC]"] = "TIMESTAMP WITH TIME ZONE"
    assert [row[:2] for row in described] == [(c.name, types[c.type]) for c in tables.columns(table)]


def test_tables_join(runs: Runs) -> None:
    """What the columns promise: keys lead from one table to the other."""
    with duckdb.connect() as connection:

        def source(table: str) -> str:
            return f"read_parquet('{runs.folder}/{table}/*.parquet')"

        orphans = f"""
            select count(*) from {source("layers")} l
            anti join {source("images")} i using (run_id, archive, image_index, image_id)
        """
        assert connection.sql(orphans).fetchall() == [(0,)]
        for table in ("images", "issues"):
            unknown = f"select count(*) from {source(table)} anti join {source('archives')} using (run_id, archive)"
            assert connection.sql(unknown).fetchall() == [(0,)]
        sums = f"""
            select run_id, count(*), sum(uncompressed_bytes) from {source("layers")} group by 1
        """
        assert connection.sql(sums).fetchall()


# --- what the rows say -------------------------------------------------------------------------------------------------


def test_the_counts_of_a_run_are_those_of_its_rows(runs: Runs) -> None:
    for result in runs.results:
        run, statuses = result.run, [row.status for row in result.images]
        assert (run.archives, run.images) == (len(result.archives), len(result.images))
        for status in ("loaded", "overwritten", "unchanged", "skipped", "valid"):
            assert getattr(run, status) == statuses.count(status)
        assert run.rejected == statuses.count("rejected") + sum(not row.images for row in result.archives)
        assert run.bytes_in == sum(row.bytes or 0 for row in result.archives)
        assert run.started <= run.ended
        for row in result.images:
            codes = [
                found.code for found in result.issues if (found.archive, found.image_index) == (row.archive, row.image_index)
            ]
            assert set(codes) <= set(row.issue_codes)
            assert (row.status == "rejected") == any(found.severity == "error" for found in _of_image(result, row))
        for archive in result.archives:
            assert set(archive.issue_codes) == {found.code for found in result.issues if found.archive == archive.archive}


def _of_image(result: RunResult, row: Any) -> list[Any]:
    """The issues that decide about an image: its own and those of its archive."""
    own = (None, row.image_index)
    return [found for found in result.issues if found.archive == row.archive and found.image_index in own]


def test_what_the_runs_table_tells(runs: Runs) -> None:
    frame = pd.read_parquet(runs.folder / "runs").set_index("run_id")
    first, second, third = (frame.loc[result.run.run_id] for result in runs.results)
    assert (first["command"], second["command"], third["command"]) == ("import", "import", "check")
    assert (first["exit_code"], second["exit_code"], third["exit_code"]) == (1, 0, 1)
    assert (first["store"], first["profile"], first["ci_job"]) == (str(runs.store), "page", "job 7")
    assert second["user"] == "alice" and second["account"] == "default" and second["ci_job"] == ""
    assert third[["store", "error"]].isna().all()
    assert json.loads(str(first["limits"]))["files_per_upload"] == 10
    assert json.loads(str(first["options"]))["hash_archives"] is True


def test_bytes_that_are_stored_and_saved(runs: Runs) -> None:
    """`bytes_stored` is what the store grew by, in layers, whichever worker read a layer first."""
    first, second, _ = runs.results
    layers = pd.read_parquet(runs.folder / "layers")
    images = pd.read_parquet(runs.folder / "images")
    loaded = images[images["status"].isin(["loaded", "overwritten"])][["run_id", "archive", "image_index"]].drop_duplicates()
    accepted = layers.merge(loaded)
    grown = accepted.drop_duplicates(["run_id", "digest"]).groupby("run_id")["stored_bytes"].sum()
    assert grown[first.run.run_id] == first.run.bytes_stored > 0, "the store was new"
    brought = accepted.query("not reused")
    assert brought["stored_bytes"].sum() == first.run.bytes_stored, "each blob is brought once"
    assert second.run.bytes_stored == 0 and second.run.run_id not in grown
    # An image reuses what one before it brought, never the other way round.
    order = {row.archive: number for number, row in enumerate(first.archives)}
    of_first = accepted[accepted["run_id"] == first.run.run_id]
    came = of_first.assign(order=of_first["archive"].map(order)).sort_values(["order", "image_index"], kind="stable")
    firsts = came.drop_duplicates("digest")
    assert not firsts["reused"].any()


def test_events_are_those_of_the_ledger(runs: Runs) -> None:
    frame = pd.read_parquet(runs.folder / "events").sort_values("seq")
    with Store(runs.store) as store, store.ledger.read() as connection:
        kept = connection.execute(select(events.c.seq, events.c.hash).order_by(events.c.seq)).all()
    assert [tuple(row) for row in frame[["seq", "hash"]].itertuples(index=False)] == [tuple(row) for row in kept]
    uploads = frame[frame["trace_name"] == "uploadImagePackage"]
    assert set(uploads["trace_rating"]) == {"normal", "warning"}
    refused = uploads[uploads["trace_rating"] == "warning"].iloc[0]
    assert json.loads(refused["response"])["result"] == "rejected" and json.loads(refused["response"])["codes"]
    assert (frame["tracker_name"] == "swrbatch").all() and (frame["service_type"] == "SWR").all()


def test_times_are_ms_utc(runs: Runs) -> None:
    for table in ROWS:
        for column in (c.name for c in tables.columns(table) if c.type == "timestamp[ms, UTC]"):
            frame = pd.read_parquet(runs.folder / table)
            assert str(frame[column].dtype) == "datetime64[ms, UTC]"
    run = runs.results[0].run
    frame = pd.read_parquet(runs.folder / "runs").set_index("run_id")
    assert frame.loc[run.run_id, "started"] == pd.Timestamp(run.started, unit="ms", tz="UTC")
    assert run.run_id.startswith(pd.Timestamp(run.started, unit="ms", tz="UTC").strftime("%Y%m%dT%H%M%SZ-"))
    assert [str(name)[:16] for name in sorted(frame.index)] == [str(name)[:16] for name in frame.sort_values("started").index]


# --- DataFrames and JSON -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ROWS)
def test_to_pandas_is_what_the_file_holds(runs: Runs, table: str) -> None:
    """Same columns, types and values; only whole numbers that may be null keep their type (`Int64`) where a file's do not."""
    for result in runs.results:
        ours = result.to_pandas(table)
        read = pd.read_parquet(runs.files(table)[result.run.run_id])
        assert list(ours.columns) == list(read.columns)
        for column in tables.columns(table):
            if column.type == "int64" and column.nullable:
                assert str(ours[column.name].dtype) == "Int64"
                read[column.name] = read[column.name].astype("Int64")
            elif column.type == "list<string>":
                ours[column.name], read[column.name] = ours[column.name].map(list), read[column.name].map(list)
        pd.testing.assert_frame_equal(ours, read)


def test_to_pandas_of_what_is_no_table(runs: Runs) -> None:
    with pytest.raises(KeyError, match="there are runs, archives"):
        runs.results[0].to_pandas("image")
    assert len(runs.results[0].to_pandas()) == len(runs.results[0].images), "images is the default"


def test_to_dict_goes_through_json(runs: Runs) -> None:
    for result in runs.results:
        there = json.loads(json.dumps(result.to_dict()))
        assert list(there) == ["run", *OTHERS]
        for table in OTHERS:
            assert there[table] == [_plain(row) for row in result.rows(table)]
            assert [
                type(row)(**row_of(again, type(row))) for row, again in zip(result.rows(table), there[table], strict=True)
            ] == [*result.rows(table)]
        assert there["run"] == _plain(result.run)


def _plain(row: Any) -> dict[str, Any]:
    values = {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def row_of(values: dict[str, Any], kind: type) -> dict[str, Any]:
    """Values out of JSON as a row takes them: lists are tuples there."""
    assert values.keys() == {field.name for field in dataclasses.fields(kind)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def test_store_to_pandas(runs: Runs) -> None:
    with Store(runs.store) as store:
        frame = store.to_pandas()
    assert str(frame["updated"].dtype) == "datetime64[ms, UTC]"
    assert TAG in set(frame["reference"])


# --- empty, interrupted, failed ----------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "a.tar"
    path.write_bytes(imagetar.skopeo(Image()))
    return path


def test_empty_tables_are_tables(tmp_path: Path, archive: Path) -> None:
    report = tmp_path / "report"
    result = check_archives([archive], report=str(report))
    for table in ("issues", "events"):
        assert pq.read_schema(next((report / table).glob("*.parquet"))).equals(tables.schema(table))
        assert pd.read_parquet(report / table).empty
        assert list(result.to_pandas(table).columns) == tables.schema(table).names
    # A second run with rows beside the empty file.
    assert check_archives(["missing.tar"], report=str(report)).exit_code == 1
    frame = pd.read_parquet(report / "issues")
    assert frame["code"].tolist() == ["archive-unreadable"] and frame["image_index"].isna().all()


def test_a_run_of_no_archive_at_all(tmp_path: Path) -> None:
    result = check_archives([], report=str(tmp_path / "report"))
    assert result.exit_code == 0
    for table in ROWS:
        assert len(pd.read_parquet(tmp_path / "report" / table)) == (1 if table == "runs" else 0)


def test_an_interrupted_run_has_its_report(tmp_path: Path, archive: Path) -> None:
    cancel = Cancel()
    cancel.set()
    result = import_archives([archive], tmp_path / "store", report=str(tmp_path / "report"), cancel=cancel)
    assert result.exit_code == 130
    frame = pd.read_parquet(tmp_path / "report" / "runs")
    assert frame["exit_code"].tolist() == [130] and frame["error"].tolist() == ["interrupted"]
    assert pd.read_parquet(tmp_path / "report" / "images").empty


def test_runs_is_written_last(runs: Runs) -> None:
    for result in runs.results:
        times = {table: runs.files(table)[result.run.run_id].stat().st_mtime_ns for table in ROWS}
        assert max(times.values()) == times["runs"]


def test_a_disk_that_fails_leaves_no_mark_and_no_half_file(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rename of each file fails once: what came before stays, `runs` is missing, and the caller is told."""
    real = os.rename

    for failing in ROWS:
        report = tmp_path / failing

        def rename(source: str, target: str, failing: str = failing) -> None:
            if Path(target).parent.name == failing:
                raise OSError(28, "No space left on device", target)
            real(source, target)

        monkeypatch.setattr(os, "rename", rename)
        with pytest.raises(StoreError, match="the report"):
            check_archives([archive], report=str(report))
        written = [path.parent.name for path in report.rglob("*") if path.is_file()]
        order = [*OTHERS, "runs"]
        assert sorted(written) == sorted(order[: order.index(failing)])


@pytest.mark.parametrize("survivors", [0, 3, 5])
def test_a_run_killed_while_it_writes_its_report(tmp_path: Path, archive: Path, survivors: int) -> None:
    """Killed before the rename number `survivors`: the folder reads as before, and the next run's report is whole."""
    report = tmp_path / "report"
    check_archives([archive], report=str(report))
    code = f"""
import os, signal
from swrbatch import check_archives
real, done = os.rename, []
def rename(source, target):
    if len(done) == {survivors}:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(target)
    real(source, target)
os.rename = rename
check_archives([{str(archive)!r}], report={str(report)!r})
"""
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert len(pd.read_parquet(report / "runs")) == 1, "the killed run has no mark"
    for number, table in enumerate(OTHERS):
        assert len(list((report / table).glob("*.parquet"))) == (2 if number < survivors else 1)
        assert set(pd.read_parquet(report / table).columns) == set(tables.schema(table).names)
    check_archives([archive], report=str(report))
    assert len(pd.read_parquet(report / "runs")) == 2


def test_rows_of_text_that_is_hard_to_store(tmp_path: Path) -> None:
    """What an archive says reaches the report printable, whatever it is."""
    image = Image(tags=("swr.example.com/team/x\u202e:v1", "a\x00b", "\ud800"))
    path = tmp_path / "ünïcode 镜像.tar"
    parts = imagetar.files(image)
    parts["manifest.json"] = json.dumps(json.loads(parts["manifest.json"])).encode()
    path.write_bytes(imagetar.tar_of(parts))
    check_archives([path], report=str(tmp_path / "report"))
    frame = pd.read_parquet(tmp_path / "report" / "images")
    assert frame["archive"].unique().tolist() == [str(path)]
    assert all(str(text).isprintable() for text in frame["original_reference"].dropna())
    assert frame["status"].unique().tolist() == ["rejected"]


# --- schemas -----------------------------------------------------------------------------------------------------------


def test_the_command_does_without_pandas(tmp_path: Path, archive: Path) -> None:
    """Which takes longer to load than a small run takes."""
    argv = [sys.executable, "-X", "importtime", "-m", "swrbatch", "check", str(archive), "--report", str(tmp_path / "report")]
    done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "pyarrow.parquet" in loaded and not any(name.startswith("pandas.") for name in loaded)
    assert len(pd.read_parquet(tmp_path / "report" / "images")) == 1


def test_types_that_columns_may_have() -> None:
    for table in ROWS:
        for column, field in zip(tables.columns(table), tables.schema(table), strict=True):
            assert (column.name, column.nullable) == (field.name, field.nullable)
            if column.name.endswith("bytes") or column.name == "bytes":
                assert field.type == pa.int64()
            if column.name.endswith("digest") or column.name in ("image_id", "diff_id", "sha256"):
                assert field.type == pa.string()


def test_numbers_stay_numbers(runs: Runs) -> None:
    frame = runs.results[0].to_pandas("images")
    assert frame["layers"].dtype == np.int64
    assert frame["uncompressed_bytes"].sum() == sum(row.uncompressed_bytes or 0 for row in runs.results[0].images)
