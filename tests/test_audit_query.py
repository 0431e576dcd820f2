"""Queries: the console's and the API's filters over a dataset and over a store, page by page, in every output form."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import audit_world
import traces as made
from audit_world import BEGIN_MS, DAY_MS, HOUR_MS
from conftest import ROOT
from swrbatch import Store, UsageError, import_archives
from swrbatch.audit.dataset import Dataset
from swrbatch.audit.ingest import ingest
from swrbatch.audit.query import Filters, connected, filters_of, query, query_page
from swrbatch.audit.traces import TraceRow
from swrbatch.cli import app
from swrbatch.tables import row_schema


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    base = tmp_path_factory.mktemp("query")
    return audit_world.write(base / "bucket").dataset(base / "d")


@pytest.fixture(scope="module")
def rows(dataset: Dataset) -> list[dict[str, Any]]:
    return made.rows_of(dataset)


def ms(row: dict[str, Any]) -> int | None:
    return None if row["time"] is None else round(row["time"].timestamp() * 1000)


def places(rows: Any) -> list[tuple[str, int]]:
    return [(row["source_file"], row["source_position"]) for row in rows]


# --- filters -----------------------------------------------------------------------------------------------------------

COLUMNS = {
    "service_type": "service_type",
    "user": "user_name",
    "account": "user_account_name",
    "resource_type": "resource_type",
    "resource_id": "resource_id",
    "resource_name": "resource_name",
    "trace_name": "trace_name",
    "trace_rating": "trace_rating",
    "trace_type": "trace_type",
    "tracker_name": "tracker_name",
    "enterprise_project_id": "enterprise_project_id",
    "event_type": "event_type",
    "source_ip": "source_ip",
}


def test_every_filter_is_tried() -> None:
    assert set(COLUMNS) | {"trace_id", "from_", "to", "flag"} == set(Filters.__slots__)


@pytest.mark.parametrize("name", COLUMNS)
def test_each_filter_takes_exactly_its_rows(tmp_path: Path, name: str) -> None:
    """Whole values only: neither a part of one nor one in other letters."""
    column = COLUMNS[name]
    values = ["team", "Team", "team ", "tea", "team/*", "t%", "", None]
    traces = []
    for number, value in enumerate(values):
        trace = made.trace(number)
        if column.startswith("user_"):
            trace["user"] = {"name": value, "domain": {"name": value}}
        else:
            trace[column] = value
        traces.append(trace)
    made.write(tmp_path / "one.json", made.array(traces))
    one = Dataset(tmp_path / "d", create=True)
    ingest([str(tmp_path / "one.json")], one, now=audit_world.NOW_MS)
    stored = {row["trace_id"]: row[column] for row in made.rows_of(one)}
    for wanted in ("team", "t%", "team/*", "nobody"):
        found = query_page(one, filters_of(**{name: wanted})).rows.to_pylist()
        assert {row["trace_id"] for row in found} == {key for key, value in stored.items() if value == wanted}, wanted
        assert len(found) == (wanted != "nobody")


def test_filters_hold_together(dataset: Dataset, rows: list[dict[str, Any]]) -> None:
    frame = query(dataset, user="anna", trace_rating="warning")
    wanted = [row for row in rows if row["user_name"] == "anna" and row["trace_rating"] == "warning"]
    assert 0 < len(frame) == len(wanted) < sum(row["user_name"] == "anna" for row in rows)


def test_the_bounds_of_a_period_are_not_in_it(dataset: Dataset, rows: list[dict[str, Any]]) -> None:
    times = sorted({moment for row in rows if (moment := ms(row)) is not None and moment > BEGIN_MS})
    first, last = times[3], times[-3]
    found = query_page(dataset, Filters(from_=first, to=last)).rows.to_pylist()
    assert sorted(places(found)) == sorted(places(row for row in rows if first < (ms(row) or -1) < last))
    assert query_page(dataset, Filters(from_=first, to=first + 1)).rows.num_rows == 0
    at = query_page(dataset, Filters(from_=first - 1, to=first + 1)).rows.to_pylist()
    assert {ms(row) for row in at} == {first}


@pytest.mark.parametrize("bounds", [{"from_": BEGIN_MS + 5 * DAY_MS + 7 * HOUR_MS}, {"to": BEGIN_MS + 3 * DAY_MS}, {}])
def test_an_open_period(dataset: Dataset, rows: list[dict[str, Any]], bounds: dict[str, int]) -> None:
    """Without a period all times count, also rows that have none."""
    found = query_page(dataset, Filters(**bounds)).rows.to_pylist()  # type: ignore[arg-type]
    since, until = bounds.get("from_", -(1 << 60)), bounds.get("to", 1 << 60)
    wanted = [row for row in rows if not bounds or ((moment := ms(row)) is not None and since < moment < until)]
    assert sorted(places(found)) == sorted(places(wanted))


def test_a_trace_id_overrides_the_others(dataset: Dataset, rows: list[dict[str, Any]]) -> None:
    row = next(row for row in rows if row["user_name"] == "anna")
    found = query_page(dataset, filters_of(trace_id=row["trace_id"], user="nobody", to=0, trace_rating="incident"))
    assert found.rows["trace_id"].unique().to_pylist() == [row["trace_id"]]


def test_flags(dataset: Dataset, rows: list[dict[str, Any]]) -> None:
    found = query_page(dataset, filters_of(flag="late")).rows.to_pylist()
    assert found and sorted(places(found)) == sorted(places(row for row in rows if "late" in row["flags"]))


def test_values_are_values(dataset: Dataset) -> None:
    assert len(query(dataset, user="x' OR '1'='1")) == 0
    with pytest.raises(UsageError, match="unknown filter usr; there are account, "):
        query(dataset, usr="anna")


# --- order and pages ---------------------------------------------------------------------------------------------------


def test_newest_first(dataset: Dataset, rows: list[dict[str, Any]]) -> None:
    times = [ms(row) for row in query_page(dataset, Filters()).rows.to_pylist()]
    assert len(times) == len(rows) and times == sorted(times, key=lambda moment: -1 if moment is None else moment, reverse=True)


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_pages_repeat_and_lose_nothing(tmp_path: Path, limit: int) -> None:
    """Also of rows of one millisecond, of rows without an id, and of rows without a time."""
    same = [made.trace(number, time=BEGIN_MS) for number in range(6)]
    bare = [made.trace(number, trace_id=None, time=BEGIN_MS, resource_name=f"n{number}") for number in range(10, 16)]
    timeless = [made.trace(number, time=None, record_time=None) for number in range(20, 24)]
    for number in range(2):
        # Two files: rows of one position, one time and no id.
        made.write(tmp_path / f"{number}.json", made.array([*same[number::2], *bare[number::2], *timeless[number::2]]))
    one = Dataset(tmp_path / "d", create=True)
    ingest([str(tmp_path)], one, now=audit_world.NOW_MS)
    whole = query_page(one, Filters()).rows.to_pylist()
    assert len(whole) == 16
    found: list[dict[str, Any]] = []
    marker = None
    for _ in range(20):
        page = query_page(one, Filters(), limit=limit, next_=marker)
        assert page.rows.num_rows <= limit
        found += page.rows.to_pylist()
        marker = page.next
        if marker is None:
            break
    assert places(found) == places(whole)


@pytest.mark.parametrize("marker", ["", "x", "bnVsbA", "W10", "WzEsICJ4IiwgMywgNF0"])
def test_a_marker_that_is_none(dataset: Dataset, marker: str) -> None:
    with pytest.raises(UsageError, match="not a marker"):
        query_page(dataset, Filters(), next_=marker)


def test_there_is_no_cap_of_5000_rows(tmp_path: Path) -> None:
    made.write(tmp_path / "a.json", made.array(made.traces(6000)))
    one = Dataset(tmp_path / "d", create=True)
    ingest([str(tmp_path / "a.json")], one, now=audit_world.NOW_MS)
    assert len(query(one)) == 6000


# --- the command -------------------------------------------------------------------------------------------------------


def run(*arguments: object) -> tuple[int, bytes]:
    result = CliRunner().invoke(app, ["audit", "query", *map(str, arguments)])
    return result.exit_code, result.stdout_bytes


def test_every_form_says_the_same(dataset: Dataset) -> None:
    wanted = query_page(dataset, filters_of(trace_rating="warning")).rows
    asked = [dataset.path, "--trace-rating", "warning", "--format"]
    assert wanted.num_rows > 0
    code, out = run(*asked, "parquet")
    table = pq.read_table(io.BytesIO(out))
    assert code == 0 and table.schema.equals(row_schema(TraceRow)) and table.to_pylist() == wanted.to_pylist()
    code, out = run(*asked, "json")
    document = json.loads(out)
    assert code == 0 and document["next"] is None
    assert [row["trace_id"] for row in document["traces"]] == wanted["trace_id"].to_pylist()
    assert all(row["time"] is None or row["time"].endswith("Z") for row in document["traces"])
    code, out = run(*asked, "csv")
    head, *lines = list(csv.reader(io.StringIO(out.decode())))
    assert code == 0 and head == wanted.column_names and len(lines) == wanted.num_rows
    code, out = run(*asked, "text")
    assert code == 0 and out.decode().splitlines()[-1] == f"{wanted.num_rows} traces"


def test_no_form_runs_in_a_spreadsheet(dataset: Dataset) -> None:
    code, out = run(dataset.path, "--format", "csv")
    assert code == 0 and not [cell for line in csv.reader(io.StringIO(out.decode())) for cell in line if cell.startswith("=")]


def test_pages_of_the_command(dataset: Dataset) -> None:
    _, out = run(dataset.path, "--limit", 2, "--format", "json")
    first = json.loads(out)
    _, out = run(dataset.path, "--limit", 2, "--format", "json", "--next", first["next"])
    second = json.loads(out)
    newest = query_page(dataset, Filters(), limit=4).rows
    assert [row["trace_id"] for row in first["traces"] + second["traces"]] == newest["trace_id"].to_pylist()


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_page_that_is_not_the_last_says_so(dataset: Dataset, form: str) -> None:
    result = CliRunner().invoke(app, ["audit", "query", dataset.path, "--limit", "2", "--format", form])
    assert result.exit_code == 0 and result.stderr.startswith("more: --next ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--from", "yesterday"], "is no time"),
        (["--from", "2026-03-02T00:00:00"], "has no zone"),
        (["--from", "2026-03-02"], "write 2026-03-02T00:00:00Z for UTC"),
        (["--from", "2026-03-02T00:00:00Z", "--to", "2026-03-01T00:00:00Z"], "is not before --to"),
        (["--last", "2h"], "it is one of 1h, 1d, 1w"),
        (["--last", "1h", "--to", "2026-03-02T00:00:00Z"], "stands without --from and --to"),
        (["--next", "nonsense"], "not a marker"),
    ],
)
def test_what_is_wrong_is_said(dataset: Dataset, options: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["audit", "query", str(dataset.path), *options])
    assert result.exit_code == 2 and message in result.stderr and "Traceback" not in result.output


def test_a_terminal_gets_no_parquet(dataset: Dataset) -> None:
    """Under a real terminal: that of `script`, from util-linux."""
    command = f"{sys.executable} -m swrbatch audit query {dataset.path} --format parquet"
    argv = ["script", "--quiet", "--return", "--command", command, "/dev/null"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 2 and "no terminal shows it" in done.stdout


# --- a store, and free SQL ---------------------------------------------------------------------------------------------


def test_the_events_of_a_store(tmp_path: Path, archives_dir: Path) -> None:
    import_archives([archives_dir / "docker20-two-images.tar"], tmp_path / "s", user="anna", report=None)
    with Store(tmp_path / "s") as store:
        frame = query(store, trace_name="uploadImagePackage", user="anna")
    assert list(frame["resource_name"]) == ["team/worker:2.0.0", "team/hello:v1"]
    code, out = run("--store", tmp_path / "s", "--last", "1h", "--format", "json")
    assert code == 0 and {row["trace_name"] for row in json.loads(out)["traces"]} == {
        "createUserNamespace",
        "createImageRepository",
        "uploadImagePackage",
    }


def test_free_sql(dataset: Dataset, rows: list[dict[str, Any]]) -> None:
    with connected(dataset) as connection:
        counted = dict(connection.execute("SELECT trace_rating, count(*) FROM traces GROUP BY ALL").fetchall())
    assert sum(counted.values()) == len(rows) and counted["warning"] == sum(row["trace_rating"] == "warning" for row in rows)
