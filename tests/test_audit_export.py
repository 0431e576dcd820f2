"""`audit export`: every form says what the ledger says, each event goes to a destination exactly once, whatever happens.

trail(path, *batches)   a store whose ledger has these events, and nothing else
read_back(form, dest)   the events of a destination, read without the exporter: trace_id → what the form has of it
"""

from __future__ import annotations

import csv
import functools
import gzip
import hashlib
import io
import itertools
import json
import os
import random
import shutil
import signal
import time
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import duckdb
import jsonschema
import pyarrow.parquet as pq
import pytest
from huaweicloudsdkcts.v3 import CtsClient, ListTracesResponse, Traces
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
from typer.testing import CliRunner

from swrbatch import Store, StoreError, UsageError
from swrbatch.audit import digests, forms, ocsf
from swrbatch.audit.dataset import Dataset
from swrbatch.audit.export import FORMS, ExportResult, Form, export, spreadsheet
from swrbatch.audit.folders import MANIFEST, locked, read_manifest
from swrbatch.audit.ingest import ingest
from swrbatch.audit.ledger import ledger_traces
from swrbatch.audit.query import filters_of, query_page
from swrbatch.cli import app
from swrbatch.cts import Actor, Rating, Trace, catalog, new_trace
from swrbatch.ledger.events import append_events
from test_crash import KILLED, at, fast_path, join, points_of, spawn

__all__ = ["fast_path"]
T0: Final = 1_767_225_600_000  # 2026-01-01T00:00:00Z
MINUTE: Final = 60_000
HOUR: Final = 3_600_000
NOW: Final = T0 + 48 * HOUR
EVIL: Final = "=cmd|' /C calc'!A0"
FILES: Final = tuple(form for form in FORMS if form != "parquet")

# --- trails, shared with the other files about the audit trail ---------------------------------------------------------


def event(number: int, **changes: Any) -> Trace:
    """An event; event `number` was recorded `number` minutes after `T0`. Names and ratings take turns."""
    names = ("uploadImagePackage", "createImageRepository", "deleteImageTag", "downloadFile", "updateTrigger")
    rating: Rating = ("normal", "normal", "warning", "normal", "incident")[number % 5]
    user = ("alice", "李雷", EVIL, 'say "hi"; bye\n')[number % 4]
    digest = f"sha256:{number:064x}"
    values: dict[str, Any] = {
        "actor": Actor("default", user, "root", "host-1", "" if number % 2 else "https://ci.example.com/7"),
        "run_id": f"run-{number // 3}",
        "time": T0 + number * MINUTE - 5,
        "record_time": T0 + number * MINUTE,
        "resource_name": f"team/app:v{number}",
        "resource_id": digest if number % 3 else "",
        "request": {"archive": f"/数据/{number}.tar", "reference": f"swr.example.com/team/app:v{number}"},
        "response": {"digest": digest, "image_id": digest, "previous_digest": None, "result": "loaded"},
        "rating": rating,
        "message": "" if rating == "normal" else '["tag-exists"]',
    }
    return new_trace(changes.pop("trace_name", names[number % 5]), **(values | changes))


def add(path: Path, events: Iterable[Trace]) -> None:
    """Append events to a store's ledger."""
    with Store(path) as store, store.ledger.write() as connection:
        append_events(connection, list(events))


def trail(path: Path, count: int) -> Path:
    """A store that is set up, with `count` events."""
    with Store(path, create=True) as store:
        store.init(region="cn-north-4", registry="swr.example.com")
    add(path, map(event, range(1, count + 1)))
    return path


def run(store: Path, to: Path, form: Form, *, now: int = NOW, **options: Any) -> ExportResult:
    with Store(store) as opened:
        return export(opened, str(to), form, now=now, **options)


def events_of(path: Path) -> dict[str, dict[str, Any]]:
    """The ledger's events by trace_id, in order."""
    with Store(path) as store:
        return {each.value["trace_id"]: each.value for each in ledger_traces(store)}


# --- reading destinations back -----------------------------------------------------------------------------------------


def read_back(form: Form, dest: Path) -> dict[str, dict[str, Any]]:
    """The events of a destination: exactly one record for each trace_id, or the test fails."""
    found: dict[str, dict[str, Any]] = {}
    for trace_id, value in {"parquet": _rows, "cts-obs": _obs, "cts-api": _api, "ocsf": _ocsf, "csv": _csv}[form](dest):
        assert trace_id not in found, f"{trace_id} is there twice"
        found[trace_id] = value
    return found


Pairs = Iterator[tuple[str, dict[str, Any]]]


def _rows(dest: Path) -> Pairs:
    for row in query_page(Dataset(dest), filters_of()).rows.to_pylist():
        yield row["trace_id"], row


def _obs(dest: Path) -> Pairs:
    for path in sorted(dest.glob("CloudTraces/*/*/*/*/swrbatch/SWR/*.json.gz")):
        for value in json.loads(gzip.decompress(path.read_bytes())):
            assert isinstance(value["user"], str)
            yield value["trace_id"], {**value, "user": json.loads(value["user"])}


def _api(dest: Path) -> Pairs:
    for path in sorted(dest.glob("traces-*.json")):
        for value in json.loads(path.read_text(encoding="utf-8"))["traces"]:
            yield value["trace_id"], value


def _ocsf(dest: Path) -> Pairs:
    lines = [line for path in sorted(dest.glob("jsonl/*.jsonl")) for line in path.read_text(encoding="utf-8").splitlines()]
    records = [json.loads(line) for line in lines]
    rows = [row for path in sorted(dest.glob("parquet/*.parquet")) for row in pq.read_table(path, use_threads=False).to_pylist()]
    assert [_plain(row) for row in rows] == records
    for record in records:
        yield record["metadata"]["uid"], record


def _plain(value: Any) -> Any:
    """A row of Parquet as the JSON has it: nulls left out, the map as an object."""
    if isinstance(value, dict):
        return {k: dict(v) if k == "unmapped" else _plain(v) for k, v in value.items() if v is not None}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _csv(dest: Path) -> Pairs:
    for path in sorted(dest.glob("traces-*.csv")):
        for row in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")):
            yield row["trace_id"], row


def files_of(dest: Path) -> dict[str, bytes]:
    """What lies in a destination, but for its manifest and its lock."""
    own = {MANIFEST, ".swrbatch-lock"}
    return {str(p.relative_to(dest)): p.read_bytes() for p in sorted(dest.rglob("*")) if p.is_file() and p.name not in own}


# --- what the forms say ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_every_event_once_and_in_order(form: Form, tmp_path: Path) -> None:
    store = trail(tmp_path / "store", 23)
    result = run(store, tmp_path / "dest", form)
    ledger = events_of(store)
    assert (result.events, result.duplicates, result.seq, result.missing) == (23, 0, 23, ())
    found = read_back(form, tmp_path / "dest")
    assert found.keys() == ledger.keys()
    if form != "parquet":
        assert list(found) == list(ledger)
    again = run(store, tmp_path / "dest", form)
    assert (again.events, again.seq, again.head, again.files) == (0, 23, result.head, ())


def test_cts_obs_is_laid_out_as_cts_does_and_loses_nothing(tmp_path: Path) -> None:
    store = trail(tmp_path / "store", 7)
    result = run(store, tmp_path / "dest", "cts-obs")
    assert read_back("cts-obs", tmp_path / "dest") == events_of(store)
    name = result.files[0]
    folder = "CloudTraces/cn-north-4/2026/1/3/swrbatch/SWR/"
    assert name.startswith(f"{folder}swrbatch_CloudTrace_cn-north-4_2026-01-03T00-00-00Z_") and name.endswith(".json.gz")


def test_our_ingest_reads_cts_obs_back_equal(tmp_path: Path) -> None:
    """Rows of the folder and rows of the direct export are the same, but for where they were found."""
    store = trail(tmp_path / "store", 23)
    run(store, tmp_path / "obs", "cts-obs")
    add(store, [event(24)])
    run(store, tmp_path / "obs", "cts-obs", now=NOW + 3 * HOUR)
    run(store, tmp_path / "direct", "parquet")
    result = ingest([str(tmp_path / "obs")], Dataset(tmp_path / "ingested", create=True), now=NOW + 4 * HOUR)
    assert (result.records, result.kept, result.rejected, result.digest_files) == (24, 24, 0, 4)
    source = {"region", "uploaded", "source_file", "source_position", "flags"}
    rows = {
        name: {k: {n: v for n, v in row.items() if n not in source} for k, row in read_back("parquet", tmp_path / name).items()}
        for name in ("direct", "ingested")
    }
    assert rows["direct"] == rows["ingested"] and len(rows["direct"]) == 24
    assert {row["region"] for row in read_back("parquet", tmp_path / "ingested").values()} == {"cn-north-4"}


def test_the_official_sdk_fills_all_25_fields(tmp_path: Path) -> None:
    store = trail(tmp_path / "store", 12)
    run(store, tmp_path / "dest", "cts-api")
    client = CtsClient()  # calls nobody: only its deserialisation is used
    found: list[Traces] = []
    for path in sorted((tmp_path / "dest").glob("traces-*.json")):
        response = types.SimpleNamespace(
            content=path.read_bytes(), text=path.read_text(encoding="utf-8"), headers={}, status_code=200
        )
        answer = client.sync_response_handler(response, ListTracesResponse.__name__, [], None)
        assert isinstance(answer, ListTracesResponse) and isinstance(answer.traces, list)
        assert answer.meta_data.count == len(answer.traces) and answer.meta_data.marker == answer.traces[-1].trace_id
        found += answer.traces
    ledger = events_of(store)
    assert len(Traces.openapi_types) == 25 and [each.trace_id for each in found] == list(ledger)
    for each in found:
        value = ledger[each.trace_id]
        assert [name for name in Traces.openapi_types if getattr(each, name) is None] == []
        assert (each.user.name, each.user.domain.name) == (value["user"]["name"], "default")
        assert (each.time, each.record_time, each.read_only) == (value["time"], value["record_time"], False)
        assert (each.code, each.request, each.response) == (value["code"], value["request"], value["response"])
        assert f"{each.endpoint}/{each.resource_url}" == f"swr.example.com/{value['resource_name']}"
        # Why the user is an object here: of the text that files in a bucket have, the client makes an empty user.
        assert client._deserialize({**value, "user": json.dumps(value["user"])}, "Traces").user.name is None


def test_the_api_has_pages_of_200(tmp_path: Path) -> None:
    store = trail(tmp_path / "store", 401)
    result = run(store, tmp_path / "dest", "cts-api")
    assert result.files == (
        "traces-000000001-000000200.json",
        "traces-000000201-000000400.json",
        "traces-000000401-000000401.json",
    )
    assert list(read_back("cts-api", tmp_path / "dest")) == list(events_of(store))


# --- OCSF --------------------------------------------------------------------------------------------------------------


@functools.cache
def ocsf_validator(version: str) -> jsonschema.Draft202012Validator:
    """API Activity with the profile `cloud`, as the framework itself defines it."""
    schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=version))
    name = schema.lookup_class_name_from_uid(ocsf.CLASS)
    return jsonschema.Draft202012Validator(schema.get_class_schema(name, profiles=["cloud"]))


@pytest.mark.parametrize("version", ["1.1.0", "1.3.0", "1.8.0"])
def test_ocsf_records_are_valid(version: str, tmp_path: Path) -> None:
    store = trail(tmp_path / "store", 0)
    add(store, [event(number, trace_name=name) for number, name in enumerate(catalog(), 1)])
    run(store, tmp_path / "dest", "ocsf")
    records = list(read_back("ocsf", tmp_path / "dest").values())
    assert len(records) == 32
    for record in records:
        assert list(ocsf_validator(version).iter_errors(record)) == []


@pytest.mark.parametrize(
    "change",
    [
        {"activity_id": 5},
        {"class_uid": 6001},
        {"actor": {}},
        {"api": {"service": {"name": "SWR"}}},
        {"time": "2026-01-01"},
        {"src_endpoint": {"place": "here"}},
        {"surprise": 1},
        {"severity_id": 7},
    ],
    ids=str,
)
def test_the_check_of_ocsf_can_fail(change: dict[str, Any], tmp_path: Path) -> None:
    store = trail(tmp_path / "store", 1)
    with Store(store) as opened:
        record = ocsf.record(next(ledger_traces(opened)), "local")
    assert ocsf_validator("1.8.0").is_valid(record)
    assert not ocsf_validator("1.8.0").is_valid(record | change)


def test_ocsf_says_what_the_event_says(tmp_path: Path) -> None:
    store = trail(tmp_path / "store", 5)
    run(store, tmp_path / "dest", "ocsf")
    ledger, records = events_of(store), read_back("ocsf", tmp_path / "dest")
    for number, (trace_id, value) in enumerate(ledger.items(), 1):
        record, failed = records[trace_id], value["trace_rating"] != "normal"
        assert (record["metadata"]["sequence"], record["time"]) == (number, value["time"])
        assert (record["status_id"], record["status_code"]) == (2 if failed else 1, value["code"])
        assert record["type_uid"] == 600300 + record["activity_id"]
        assert record["api"] == {"operation": value["trace_name"], "service": {"name": "SWR"}}
        assert record["actor"]["user"] == {"name": value["user"]["name"], "account": {"name": "default"}}
        assert record["resources"][0]["name"] == value["resource_name"]
        assert record["unmapped"]["request"] == value["request"] and json.loads(record["unmapped"]["origin"]) == value["origin"]
    activities = [records[trace_id]["activity_id"] for trace_id in ledger]
    assert activities == [1, 4, 2, 3, 1]  # create, delete, download, update, upload


# --- spreadsheets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        EVIL,
        "+1+1",
        "-2+3",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        " =1",
        "\u00a0=1",
        "\u3000+1",
        "\u200b=1",
        "\ufeff@a",
        "＝1+1",
        "＠a",
    ],
)
def test_a_formula_becomes_a_text(text: str) -> None:
    assert spreadsheet(text) == "'" + text


@pytest.mark.parametrize("text", ["", "a=b", "1-2", "李雷", "team/app:v1", "it's", '"=1"'])
def test_other_texts_stay(text: str) -> None:
    assert spreadsheet(text) == text


def test_csv_opens_in_a_spreadsheet(tmp_path: Path) -> None:
    store = trail(tmp_path / "store", 8)
    run(store, tmp_path / "dest", "csv")
    raw = next((tmp_path / "dest").glob("traces-*.csv")).read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf") and "李雷".encode() in raw
    for number, (trace_id, row) in enumerate(read_back("csv", tmp_path / "dest").items(), 1):
        value = events_of(store)[trace_id]
        user = value["user"]["name"]
        assert row["user_name"] == ("'" + user if user == EVIL else user)
        assert (row["time"][-1], row["source_position"], row["response"]) == ("Z", str(number), value["response"])
    # Where the comma does not part cells, nothing falls apart into cells of its own.
    lines = list(csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline=""), delimiter=";"))
    assert all(cell.lstrip('"').startswith(tuple("=+-@")) is False for line in lines for cell in line)


def test_duckdb_and_pandas_read_the_csv(tmp_path: Path) -> None:
    store = trail(tmp_path / "store", 8)
    run(store, tmp_path / "dest", "csv")
    path = next((tmp_path / "dest").glob("traces-*.csv"))
    with duckdb.connect() as connection:
        assert connection.execute(f"SELECT count(DISTINCT trace_id) FROM read_csv('{path}')").fetchall() == [(8,)]


# --- exactly once ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_somebody_took_away_is_told(form: Form, tmp_path: Path) -> None:
    """A dataset is one whole: nothing is added to it, or asked of it. Files may have been carried off on purpose."""
    store, dest = trail(tmp_path / "store", 5), tmp_path / "dest"
    gone = run(store, dest, form).files[0]
    (dest / gone).unlink()
    add(store, map(event, range(6, 9)))
    words = ("audit", "export", "--store", store, "--to", dest, "--as", form)
    code, out, err = cli(*words, "--format", "json")
    if form == "parquet":
        assert (code, out) == (3, "") and "has lost 1 part, first " in err and gone in err
        code, _, err = cli("audit", "query", dest)
        assert code == 3 and "has lost 1 part" in err
    else:
        assert code == 0 and f"1 file of earlier runs, first {gone}, not in" in " ".join(err.split())
        assert (json.loads(out)["events"], json.loads(out)["lost"]) == (3, [gone])


@pytest.mark.parametrize("form", FORMS)
def test_a_second_run_adds_and_changes_nothing_of_the_first(form: Form, tmp_path: Path) -> None:
    store, dest = trail(tmp_path / "store", 5), tmp_path / "dest"
    run(store, dest, form)
    before = files_of(dest)
    add(store, map(event, range(6, 9)))
    result = run(store, dest, form, now=NOW + HOUR)
    assert (result.events, result.seq) == (3, 8)
    after = files_of(dest)
    assert {name: after[name] for name in before if name != "_swrbatch/manifest.json"} == {
        name: data for name, data in before.items() if name != "_swrbatch/manifest.json"
    }
    assert read_back(form, dest).keys() == events_of(store).keys()


@pytest.mark.parametrize("form", ["parquet", "csv", "cts-obs"])
@pytest.mark.parametrize("seed", range(3))
def test_periods_in_any_order_repeat_nothing(form: Form, seed: int, tmp_path: Path) -> None:
    """Backfills of any periods, hourly runs and new events between them: at the end everything is there, once."""
    dice = random.Random(seed)
    store, dest, count = trail(tmp_path / "store", 10), tmp_path / "dest", 10
    have: set[str] = set()
    for step in range(8):
        since, until = sorted(dice.sample(range(60), 2))
        choice = dice.choice([{"since": since}, {"until": until}, {"since": since, "until": until}, {}])
        result = run(store, dest, form, now=NOW + step * HOUR, **{key: T0 + n * MINUTE for key, n in choice.items()})
        low, high = choice.get("since", 0), choice.get("until", 1000)
        ledger = events_of(store)
        asked = {k for k, v in ledger.items() if T0 + low * MINUTE <= v["record_time"] < T0 + high * MINUTE}
        assert result.events == len(asked - have)
        have |= asked
        assert (read_back(form, dest).keys() if have else set()) == have
        if step < 6:
            add(store, map(event, range(count + 1, count + 1 + (more := dice.randrange(10)))))
            count += more
    result = run(store, dest, form, now=NOW + 9 * HOUR)
    assert read_back(form, dest).keys() == events_of(store).keys()
    assert (result.seq, result.ranges) == (count, ())


def test_a_clock_that_was_set_back_loses_nothing(tmp_path: Path) -> None:
    store, dest = trail(tmp_path / "store", 0), tmp_path / "dest"
    add(store, [event(1), event(2), event(3, record_time=T0 + 900 * MINUTE), event(4), event(5)])
    assert run(store, dest, "csv", until=T0 + 100 * MINUTE).events == 4
    result = run(store, dest, "csv")
    assert (result.events, result.seq, result.ranges) == (1, 5, ())
    assert read_back("csv", dest).keys() == events_of(store).keys()


def test_a_store_without_events_leaves_nothing_but_a_lock(tmp_path: Path) -> None:
    store = trail(tmp_path / "store", 0)
    for form in FILES:
        result = run(store, tmp_path / form, form)
        assert (result.events, result.seq, files_of(tmp_path / form)) == (0, 0, {})
    add(store, [event(1)])
    for form in FILES:
        assert run(store, tmp_path / form, form).events == 1


# --- destinations that are none, or another's ----------------------------------------------------------------------------


def test_a_destination_keeps_its_store_and_its_form(tmp_path: Path) -> None:
    store, other = trail(tmp_path / "store", 3), trail(tmp_path / "other", 3)
    for form in FORMS:
        run(store, tmp_path / form, form)
        before = files_of(tmp_path / form)
        with pytest.raises(UsageError, match="another store: export this one to a folder of its own"):
            run(other, tmp_path / form, form)
        for wrong in FORMS:
            if wrong != form:
                with pytest.raises(UsageError, match="to a folder of its own"):
                    run(store, tmp_path / form, wrong)
        assert files_of(tmp_path / form) == before


@pytest.mark.parametrize("form", FORMS)
def test_a_folder_of_other_files_is_no_destination(form: Form, tmp_path: Path) -> None:
    """Such as a copy of a real bucket: its traces must never be taken for leftovers of an export."""
    store, dest = trail(tmp_path / "store", 3), tmp_path / "dest"
    name = "swrbatch_CloudTrace_cn-north-4_2024-06-19T12-00-00Z_0123456789abcdef.json.gz"
    own = dest / "CloudTraces/cn-north-4/2024/6/19/swrbatch/SWR" / name
    own.parent.mkdir(parents=True)
    own.write_bytes(b"precious")
    (dest / "traces-000000001-000000003.csv").write_bytes(b"precious")
    with pytest.raises((UsageError, StoreError), match="choose an empty or a new folder"):
        run(store, dest, form)
    assert own.read_bytes() == b"precious" and len(files_of(dest)) == 2


@pytest.mark.parametrize("form", FILES)
def test_only_what_an_export_wrote_is_ever_removed(form: Form, tmp_path: Path) -> None:
    store, dest = trail(tmp_path / "store", 3), tmp_path / "dest"
    run(store, dest, form)
    theirs = ["notes.txt", "traces-of-2025.csv", "CloudTraces/readme.json.gz", "jsonl/more.jsonl", "parquet/mine.parquet"]
    for name in theirs:
        (dest / name).parent.mkdir(parents=True, exist_ok=True)
        (dest / name).write_text("mine")
    stray = "traces-000000004-000000009.csv"
    (dest / stray).write_text("left by a run that was killed")
    add(store, [event(4)])
    run(store, dest, form, now=NOW + HOUR)
    assert [name for name in theirs if (dest / name).read_text() != "mine"] == []
    assert not (dest / stray).exists()


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_two_runs_at_once_are_told_apart(form: Form, tmp_path: Path) -> None:
    store, dest = trail(tmp_path / "store", 3), tmp_path / "dest"
    run(store, dest, form)
    add(store, [event(4)])
    holds = Dataset(dest).changing() if form == "parquet" else locked(str(dest))
    with holds, pytest.raises(StoreError, match=r"another run is writing .*dest: wait for it to end, and run again"):
        run(store, dest, form)
    assert run(store, dest, form).events == 1


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_store_from_an_older_backup_is_noticed(form: Form, tmp_path: Path) -> None:
    store, dest = trail(tmp_path / "store", 3), tmp_path / "dest"
    shutil.copytree(store, tmp_path / "backup")
    add(store, [event(4), event(5)])
    head = run(store, dest, form).head
    with pytest.raises(StoreError, match=rf"filled up to event 5, and the store does not have it.*--expect-head 5:{head}"):
        run(tmp_path / "backup", dest, form)
    add(tmp_path / "backup", [event(6), event(7), event(8)])
    with pytest.raises(StoreError, match="filled up to event 5, and the store has another one there"):
        run(tmp_path / "backup", dest, form)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_broken_chain_is_not_exported(form: Form, tmp_path: Path) -> None:
    store, dest = trail(tmp_path / "store", 6), tmp_path / "dest"
    with Store(store) as opened, opened.ledger.write() as connection:
        connection.exec_driver_sql("UPDATE events SET text = replace(text, 'team/app:v4', 'team/app:v9') WHERE seq = 4")
    with pytest.raises(StoreError, match=r"breaks at sequence 4: see swrbatch audit verify"):
        run(store, dest, form)
    assert (read_manifest(str(dest)) or types.SimpleNamespace(files=[])).files == []


def test_a_damaged_manifest_is_told(tmp_path: Path) -> None:
    store, dest = trail(tmp_path / "store", 3), tmp_path / "dest"
    run(store, dest, "csv")
    for text in ("{", '{"format": 1}', '{"format": 9}', "[]"):
        (dest / MANIFEST).write_text(text)
        with pytest.raises(StoreError, match=r"restore it from a backup|use a newer swrbatch"):
            run(store, dest, "csv")


@pytest.mark.parametrize("options", [{"since": 5, "until": 5}, {"since": 6, "until": 5}])
def test_an_empty_period_is_wrong_usage(options: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the period is empty"):
        run(trail(tmp_path / "store", 1), tmp_path / "dest", "csv", **options)


# --- digest files ------------------------------------------------------------------------------------------------------


def digests_of(dest: Path) -> list[dict[str, Any]]:
    paths = dest.glob("CloudTraces/*/*/*/*/swrbatch/Digest/SWR/*.json.gz")
    values = [json.loads(gzip.decompress(path.read_bytes())) for path in paths]
    return sorted(values, key=lambda each: each["digest_end_time"])


def test_digest_files_follow_each_other_hour_by_hour(tmp_path: Path) -> None:
    store, dest = trail(tmp_path / "store", 3), tmp_path / "dest"
    run(store, dest, "cts-obs")
    run(store, dest, "cts-obs", now=NOW + HOUR - 1000)  # nothing happened, and the hour is not over
    assert len(digests_of(dest)) == 1
    run(store, dest, "cts-obs", now=NOW + HOUR + 1000)  # nothing happened in a whole hour
    add(store, [event(4)])
    run(store, dest, "cts-obs", now=NOW + 3 * HOUR + 5 * MINUTE)  # two runs were missed
    add(store, [event(5)])
    run(store, dest, "cts-obs", now=NOW + 3 * HOUR + 5 * MINUTE)  # in the same second
    add(store, [event(6)])
    run(store, dest, "cts-obs", now=NOW)  # the clock was set back
    found = digests_of(dest)
    ends = ["00-00-00", "01-00-00", "02-00-00", "03-00-00", "03-05-00", "03-05-01", "03-05-02"]
    assert [each["digest_end_time"] for each in found] == [f"2026-01-03T{end}Z" for end in ends]
    assert [len(each["log_files"]) for each in found] == [1, 0, 0, 0, 1, 1, 1]
    assert found[0]["digest_start_time"] == "2026-01-02T23-00-00Z" and found[0]["previous_digest_object"] == ""
    for before, after in itertools.pairwise(found):
        data = (dest / before["digest_object"]).read_bytes()
        assert after["digest_start_time"] == before["digest_end_time"]
        assert after["previous_digest_object"] == before["digest_object"]
        assert (after["previous_digest_hash_algorithm"], after["previous_digest_hash_value"]) == ("SHA-256", _sha256(data))
    for file in (file for each in found for file in each["log_files"]):
        assert (file["log_hash_algorithm"], file["log_hash_value"]) == ("SHA-256", _sha256((dest / file["object"]).read_bytes()))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_run_after_a_year_makes_a_week_of_empty_digests(tmp_path: Path) -> None:
    store, dest = trail(tmp_path / "store", 3), tmp_path / "dest"
    run(store, dest, "cts-obs")
    run(store, dest, "cts-obs", now=NOW + 365 * 24 * HOUR)
    found = digests_of(dest)
    assert len(found) == 1 + digests.MOST_EMPTY
    assert (found[1]["digest_start_time"], found[-1]["digest_end_time"]) == ("2026-01-03T00-00-00Z", "2027-01-03T00-00-00Z")


@pytest.mark.parametrize("region", ["../../up", "CN North/4", "", "a" * 10, "区域"])
def test_a_region_never_leaves_the_destination(region: str, tmp_path: Path) -> None:
    with Store(tmp_path / "store", create=True) as store:
        store.init(region=region)
    add(tmp_path / "store", [event(1)])
    run(tmp_path / "store", tmp_path / "dest", "cts-obs")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dest", "store"]
    files = files_of(tmp_path / "dest")
    assert len(files) == 2 and all(forms.OURS.fullmatch(name) for name in files)
    result = ingest([str(tmp_path / "dest")], Dataset(tmp_path / "ingested", create=True), now=NOW)
    assert (result.kept, result.digest_files) == (1, 1)


# --- killed ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_killed_at_every_write_boundary(form: Form, fast_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first run of two groups, and a second one on top of it: after each kill, one more run brings what a whole one does."""
    for name in forms.GROUP:
        monkeypatch.setitem(forms.GROUP, name, 3)
    store = trail(fast_path / "store", 5)

    def first(dest: Path) -> Callable[[], object]:
        return lambda: run(store, dest, form)

    base = fast_path / "base"
    points = points_of(first(base))
    assert "file:rename:before" in points and len(points) >= 10
    _kill_everywhere(form, points, first, fast_path, None, read_back(form, base))
    add(store, map(event, range(6, 10)))
    whole = fast_path / "whole"
    shutil.copytree(base, whole)

    def second(dest: Path) -> Callable[[], object]:
        return lambda: run(store, dest, form, now=NOW + 3 * HOUR)

    points = points_of(second(whole))
    want = read_back(form, whole)
    assert list(want) and want.keys() == events_of(store).keys()
    _kill_everywhere(form, points, second, fast_path, base, want)


def _kill_everywhere(
    form: Form, points: Sequence[str], work: Callable[[Path], Callable[[], object]], room: Path, base: Path | None, want: Any
) -> None:
    for number in range(1, len(points) + 1):
        dest = room / "killed"
        if base is not None:
            shutil.copytree(base, dest)
        assert at(number, work(dest)) == KILLED, points[number - 1]
        manifest = read_manifest(str(dest))
        if manifest is not None:
            assert [f.name for f in manifest.files if _sha256((dest / f.name).read_bytes()) != f.sha256] == []
        work(dest)()
        assert read_back(form, dest) == want, points[number - 1]
        if form != "parquet":
            listed = read_manifest(str(dest))
            assert listed is not None and sorted(files_of(dest)) == sorted(f.name for f in listed.files), points[number - 1]
        shutil.rmtree(dest)


@pytest.mark.parametrize("seed", range(10))
def test_killed_at_a_random_moment(seed: int, fast_path: Path) -> None:
    dice = random.Random(seed)
    form: Form = FORMS[seed % len(FORMS)]
    store, dest = trail(fast_path / "store", 60), fast_path / "dest"
    begun = time.monotonic()
    run(store, fast_path / "whole", form)
    moment = dice.uniform(0, time.monotonic() - begun)
    pid = spawn(lambda: run(store, dest, form))
    time.sleep(moment)
    os.kill(pid, signal.SIGKILL)
    assert join(pid) in (KILLED, 0)
    run(store, dest, form, now=NOW + MINUTE)
    assert read_back(form, dest) == read_back(form, fast_path / "whole")


# --- the command -------------------------------------------------------------------------------------------------------


def cli(*arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command."""
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def test_the_command_exports(tmp_path: Path) -> None:
    store, dest = trail(tmp_path / "store", 30), tmp_path / "dest"
    common = ("audit", "export", "--store", store, "--to", dest, "--as", "csv")
    code, out, _ = cli(*common, "--since", "2026-01-01T00:10:00Z", "--until", "2026-01-01T08:20:00+08:00")
    assert (code, out.splitlines()[0]) == (0, "10 events written, up to sequence 0")
    code, out, _ = cli(*common, "--format", "json")
    result = json.loads(out)
    assert (code, result["events"], result["seq"], result["ranges"]) == (0, 20, 30, [])
    assert len(read_back("csv", dest)) == 30


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--since", "yesterday"), 2, "is no time"),
        (("--until", "2026-01-01T00:00:00"), 2, "has no zone"),
        (("--as", "ocsf", "--sign-key", "key.pem"), 2, "--sign-key signs the digest files of cts-obs"),
        (("--as", "cts-obs", "--sign-key", "missing.pem"), 2, "--sign-key missing.pem: No such file"),
        (("--as", "parquet", "--to", "/proc/nowhere"), 3, "cannot be made"),
        (("--as", "csv", "--to", "/proc/nowhere"), 3, "cannot be written"),
    ],
)
def test_the_command_says_what_is_wrong(options: tuple[str, ...], code: int, message: str, tmp_path: Path) -> None:
    store = trail(tmp_path / "store", 1)
    found, out, err = cli("audit", "export", "--store", store, "--to", tmp_path / "dest", *options)
    assert (found, out) == (code, "") and message in err and err.startswith("swrbatch: ")


def test_files_of_an_export_can_be_read_by_others(tmp_path: Path) -> None:
    store = trail(tmp_path / "store", 1)
    run(store, tmp_path / "dest", "ocsf")
    assert {os.stat(tmp_path / "dest" / name).st_mode & 0o444 for name in files_of(tmp_path / "dest")} == {0o444}
