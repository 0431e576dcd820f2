"""Trace files into a dataset: the right rows, each once, whatever happens on the way."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import swrbatch.audit.files as files
import swrbatch.audit.ingest as ingest_module
from killing import Killer, killer
from swrbatch import StoreError, UsageError
from swrbatch.audit.dataset import Dataset
from swrbatch.audit.ingest import IngestResult, InputRow, ingest, stage_and_commit
from swrbatch.audit.traces import Source, read_trace
from swrbatch.cts import catalog
from swrbatch.digest import Cancel
from swrbatch.errors import Cancelled
from test_audit_export import cli
from test_audit_traces import DAMAGE
from traces import (
    DAY,
    HOUR,
    NOON,
    NOW,
    SAMPLES,
    SWR,
    array,
    catalog_traces,
    key,
    lines,
    make_fixtures,
    obs,
    rejects_of,
    rows_of,
    trace,
    traces,
    write,
)


def into(dataset: Path, *paths: Path, now: int = NOW) -> IngestResult:
    """Ingest into a dataset that is opened anew."""
    return ingest([str(path) for path in paths], Dataset(dataset, create=True), now=now)


def counts(result: IngestResult) -> tuple[int, int, int, int]:
    """(records, kept, duplicates, rejected)."""
    return result.records, result.kept, result.duplicates, result.rejected


def inputs_of(dataset: Path) -> dict[str, dict[str, Any]]:
    """What was noted of each file, by its name."""
    found = {}
    for path in Dataset(dataset).side_files("inputs"):
        for row in pq.read_table(path, use_threads=False).to_pylist():
            assert os.path.basename(row["path"]) not in found
            found[os.path.basename(row["path"])] = row
    return found


# --- the official samples ----------------------------------------------------------------------------------------------

OFFICIAL = """
# file position: time trace_id trace_name service rating code user account source_ip flags; - is null
api_v3_list_traces_response 0:
    2016-08-25T18:11:48.232 e001ccb9-bc09-11e6-b00b-4b2a61338db6 deleteEip VPC warning 200 xxx xxx - -
api_v3_list_traces_response 1:
    2016-08-25T18:11:48.232 e001ccb8-bc09-11e6-b2cc-2640a43cc6e8 deleteEip VPC warning 200 xxx xxx - -
as_createScalingPolicy_2016 0:
    2016-12-15T07:27:40.000 f627062b-c297-11e6-a606-eb2c0f48bec5 createScalingPolicy AS normal 200 xxxx xxx 10.190.205.233 -
ecs_createServer_2024 0:
    2024-06-19T06:18:51.170 cbdd4480-2e03-11ef-82de-cf140e2a70fb createServer ECS normal - IAMUserA IAMDomainB 124.71.93.243 -
ecs_createSingleServer_2016 0:
    2016-12-08T03:07:28.000 4abc3a67-b773-11e6-8412-8f0ed3cc97c6 createSingleServer ECS normal - aaa/op_service aaa (empty) -
evs_deleteVolume_2016 0:
    2016-12-08T03:24:04.000 c529254f-bcf5-11e6-a89a-7fc778a6c92c deleteVolume EVS normal - aaa aaa 10.146.230.124 -
evs_deleteVolume_2024 0:
    2024-06-19T06:32:58.419 c4ddaa0b-2e05-11ef-bdc6-e1851d8cb7fb deleteVolume EVS normal - IAMUserA IAMDomainB 124.71.93.243 -
functiongraph_cts_trigger_event 0:
    2018-06-26T00:54:07.000 69be64a7-0233-11e8-82e4-e5d37911193e deleteGraph FunctionGraph normal 204 userName domainName - -
obs_transferred_trace_file_2024 0:
    2024-08-13T07:21:37.290 eb0472a4-5944-11ef-acce-294fee19871b listAllMyBucket OBS normal 200 REDACTED REDACTED REDACTED -
otc_sdk_test_login_2018 0:
    2018-08-20T07:09:17.969 68d5745e-6af2-40e4-945d-fe449be00148 login IAM normal 302 - - 8.8.8.8 -
smn_topic_2017 0:
    2017-02-15T06:21:50.000 xxx createTopic SMN normal 200 xxx - 127.0.0.1 -
smn_topic_2017 1:
    2017-02-15T06:12:15.000 xxx deleteTopic SMN normal 200 xxx - 127.0.0.1 duplicate-differs
"""


def line(row: dict[str, Any]) -> str:
    """A row as `OFFICIAL` writes it."""
    names = ("trace_id", "trace_name", "service_type", "trace_rating", "code", "user_name", "user_account_name", "source_ip")
    moment = row["time"].isoformat(timespec="milliseconds").removesuffix("+00:00")
    texts = ["-" if row[name] is None else row[name] or "(empty)" for name in names]
    return " ".join([moment, *texts, ",".join(row["flags"]) or "-"])


def test_the_official_samples(tmp_path: Path) -> None:
    result = into(tmp_path / "dataset", SAMPLES, SAMPLES / "obs_createBucket_2026_PARTIAL.txt", now=1_800_000_000_000)
    assert (result.files, result.digest_files, *counts(result)) == (12, 1, 12, 12, 0, 1)
    rows = rows_of(Dataset(tmp_path / "dataset"))
    found = [f"{row['source_file'].removesuffix('.json')} {row['source_position']}:\n    {line(row)}" for row in rows]
    assert "\n".join(found) == OFFICIAL.partition("null\n")[2].strip()
    assert all(row["violations"] == [] and row["extra"] is None for row in rows)
    [reject] = rejects_of(Dataset(tmp_path / "dataset"))
    assert (reject["file"], reject["position"]) == ("obs_createBucket_2026_PARTIAL.txt", 0) and '"createBucket"' in reject["raw"]


def test_the_official_samples_in_full(tmp_path: Path) -> None:
    into(tmp_path / "dataset", SAMPLES)
    rows = {row["trace_id"]: row for row in rows_of(Dataset(tmp_path / "dataset"))}
    ecs = rows["cbdd4480-2e03-11ef-82de-cf140e2a70fb"]
    given = json.loads((SAMPLES / "ecs_createServer_2024.json").read_text())
    for name in set(given) - {"user", "time", "record_time"}:
        assert ecs[name] == given[name], name
    assert ecs["request_id"] == "null" and json.loads(ecs["user_text"]) == given["user"]
    assert (ecs["user_id"], ecs["user_account_id"], ecs["read_only"]) == ("f36972ced***d619f1214", "7e0d78c85***d0b9b7cba", False)
    old = rows["4abc3a67-b773-11e6-8412-8f0ed3cc97c6"]
    assert old["time_text"] == old["record_time_text"] == "2016/12/08 11:07:28 GMT+08:00"
    assert json.loads(old["request"])["server"]["count"] == 1 and json.loads(old["response"])["status"] == "SUCCESS"
    empty = rows["c529254f-bcf5-11e6-a89a-7fc778a6c92c"]
    assert (empty["request"], empty["response"], empty["code"]) == ("", "", None)
    assert rows["68d5745e-6af2-40e4-945d-fe449be00148"]["user_text"] == "{some crazy used struct}"


# --- files as in a bucket ----------------------------------------------------------------------------------------------


def test_the_fixtures_are_those_that_the_builders_make(tmp_path: Path) -> None:
    make_fixtures(tmp_path / "swr")
    names = sorted(path.relative_to(SWR) for path in SWR.rglob("*.json.gz"))
    assert names == sorted(path.relative_to(tmp_path / "swr") for path in (tmp_path / "swr").rglob("*.json.gz"))
    for name in names:
        assert (
            list(files.read_file(str(SWR / name), Cancel()))[1:]
            == list(files.read_file(str(tmp_path / "swr" / name), Cancel()))[1:]
        )


def test_a_bucket(tmp_path: Path) -> None:
    result = into(tmp_path / "dataset", SWR)
    assert (result.files, result.digest_files, *counts(result)) == (3, 1, 34, 33, 1, 0)
    assert result.flags == {"late": 1}
    rows = rows_of(Dataset(tmp_path / "dataset"))
    assert {row["trace_name"] for row in rows} == set(catalog())
    assert {(row["region"], row["service_type"]) for row in rows} == {("cn-north-4", "SWR")}
    assert {row["day"] for row in rows} == {"2024-06-19"}
    [late] = [row for row in rows if row["flags"]]
    assert late["uploaded"] == datetime.fromisoformat("2024-06-20T12:00:00Z") and late["trace_name"] == "deleteImageTag"


def test_empty_keys_and_folders(tmp_path: Path) -> None:
    (tmp_path / "in" / "CloudTraces" / "empty.json").mkdir(parents=True)
    for name, data in (("a.json", b""), ("b.json.gz", b""), ("c.json", b"[]"), (".hidden.json", b"["), ("readme.md", b"[")):
        write(tmp_path / "in" / name, data)
    assert counts(into(tmp_path / "dataset", tmp_path / "in")) == (0, 0, 0, 0)
    assert sorted(inputs_of(tmp_path / "dataset")) == ["a.json", "b.json.gz", "c.json"]


def test_what_is_noted_of_a_file(tmp_path: Path) -> None:
    data = array([*traces(3), 5])
    path = write(tmp_path / "in" / key(suffix=".json"), data)
    os.utime(path, ns=(1, 1_718_802_000_123_456_789))
    into(tmp_path / "dataset", tmp_path / "in")
    assert inputs_of(tmp_path / "dataset")[path.name] == {
        "path": str(path),
        "bytes": len(data),
        "modified_ns": 1_718_802_000_123_456_789,
        "sha256": hashlib.sha256(data).hexdigest(),
        "kind": "traces",
        "records": 3,
        "rejects": 1,
        "md5": hashlib.md5(data).hexdigest(),
        "digest": None,
    }


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    """Taken, noted in a readable form, and known the next time, in bulk and record by record."""
    for number, data in enumerate((obs(traces(2)), b"[" + json.dumps(trace(7)).encode())):
        name = os.path.join(os.fsencode(tmp_path / "in"), b"%d-\xff\xfe.json" % number)
        os.makedirs(os.path.dirname(name), exist_ok=True)
        Path(os.fsdecode(name)).write_bytes(data)
    assert counts(into(tmp_path / "dataset", tmp_path / "in")) == (3, 3, 0, 1)
    assert sorted(inputs_of(tmp_path / "dataset")) == ["0-\\xff\\xfe.json", "1-\\xff\\xfe.json"]
    assert into(tmp_path / "dataset", tmp_path / "in").files_known == 2


def test_what_is_noted_of_a_digest_file(tmp_path: Path) -> None:
    """What it says, whatever else stands in it."""
    sample = (SAMPLES / "digest_file_2017.json").read_bytes()
    value = json.loads(sample)
    long = {**value, "log_files": [*value["log_files"], 5], "other": "x", "project_id": "\ud800", "digest_end": [[1]]}
    write(tmp_path / "in" / "a.json", sample)
    write(tmp_path / "in" / "b.json", json.dumps(long).encode() + b"\n")
    into(tmp_path / "dataset", tmp_path / "in")
    found = inputs_of(tmp_path / "dataset")
    assert [(row["kind"], row["records"], row["rejects"]) for row in found.values()] == [("digest", 0, 0)] * 2
    a, b = (json.loads(found[name]["digest"]) for name in ("a.json", "b.json"))
    assert a == {name: text for name, text in value.items() if text is not None}
    assert b["log_files"] == [*value["log_files"], None] and {*b} == {*a} - {"digest_end"}


def test_digest_files_that_are_many_and_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not held in memory."""
    monkeypatch.setattr(ingest_module, "_BATCH_CHARACTERS", 4000)
    value = json.loads((SAMPLES / "digest_file_2017.json").read_bytes())
    for number in range(20):
        write(tmp_path / "in" / f"{number:02}.json", json.dumps({**value, "project_id": f"{number}" * 900}).encode())
    assert into(tmp_path / "dataset", tmp_path / "in").digest_files == 20
    found = inputs_of(tmp_path / "dataset")
    assert [json.loads(found[f"{n:02}.json"]["digest"])["project_id"] for n in range(20)] == [f"{n}" * 900 for n in range(20)]


# --- damage ------------------------------------------------------------------------------------------------------------


def test_damaged_files_cost_what_is_damaged(tmp_path: Path) -> None:
    """All of `DAMAGE` in one run: what of each file is kept and rejected is counted exactly, and none hurts another."""
    for number, (data, *_) in enumerate(DAMAGE.values()):
        write(tmp_path / "in" / f"{number:03}.json", data)
    result = into(tmp_path / "dataset", tmp_path / "in")
    found = inputs_of(tmp_path / "dataset")
    expected = {name: (len(kept), rejected) for name, (_, kept, rejected, _) in DAMAGE.items()}
    assert {
        name: (found[f"{n:03}.json"]["records"], found[f"{n:03}.json"]["rejects"]) for n, name in enumerate(DAMAGE)
    } == expected
    assert result.records == sum(kept for kept, _ in expected.values())
    assert result.rejected == sum(rejected for _, rejected in expected.values()) == len(rejects_of(Dataset(tmp_path / "dataset")))


def test_reasons_of_rejects_are_told(tmp_path: Path) -> None:
    """The first ten on stderr, the number of the others too; stdout stays what it is."""
    write(tmp_path / "in" / "bad.json", b"[" + b",".join([b"7"] * 12) + b"]")
    write(tmp_path / "in" / "good.json", array(traces(2)))
    code, out, err = cli("audit", "ingest", tmp_path / "in", "--to", tmp_path / "dataset", "--format", "json")
    lines = err.splitlines()
    assert code == 0 and json.loads(out)["rejected"] == 12 and len(lines) == 11
    assert lines[0].startswith("swrbatch: rejected bad.json 0: ") and lines[-1] == "swrbatch: and 2 more records"


def test_a_file_that_cannot_be_opened_is_tried_again(tmp_path: Path) -> None:
    write(tmp_path / "in" / "good.json", array(traces(2)))
    (tmp_path / "in" / "gone.json").symlink_to(tmp_path / "target.json")
    for _ in range(2):
        result = into(tmp_path / "dataset", tmp_path / "in")
        assert result.rejected == 1
    reject = rejects_of(Dataset(tmp_path / "dataset"))[-1]
    assert (reject["file"], reject["reason"]) == ("gone.json", "the file cannot be read: No such file or directory")
    write(tmp_path / "target.json", array(traces(3, 2)))
    assert counts(into(tmp_path / "dataset", tmp_path / "in")) == (3, 3, 0, 0)


def test_a_file_that_fails_halfway_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "in" / "a.json", array(traces(2)))
    write(tmp_path / "in" / "b.json", array(traces(4000, 2)))
    real = files.InputFile.chunks

    def chunks(self: files.InputFile) -> Iterator[bytes]:
        for number, chunk in enumerate(real(self)):
            if number == 1:
                raise OSError(5, "Input/output error")
            yield chunk

    with monkeypatch.context() as patch:
        patch.setattr(files.InputFile, "chunks", chunks)
        result = into(tmp_path / "dataset", tmp_path / "in")
    assert result.rejected == 1 and 2 < result.kept == result.records < 4002
    assert counts(into(tmp_path / "dataset", tmp_path / "in")) == (4000, 4002 - result.kept, result.kept - 2, 0)


def test_more_rejects_than_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_module, "_ROWS_HELD", 10)
    write(tmp_path / "in" / "a.json", b"[" + b",".join(b"%d" % n for n in range(47)) + b"]")
    assert counts(into(tmp_path / "dataset", tmp_path / "in")) == (0, 0, 0, 47)
    assert [(row["position"], row["raw"]) for row in rejects_of(Dataset(tmp_path / "dataset"))] == [
        (n, str(n)) for n in range(47)
    ]


def test_rows_are_staged_before_they_are_many_or_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_module, "BATCH", 7)
    monkeypatch.setattr(ingest_module, "_BATCH_CHARACTERS", 20_000)
    values = [*traces(30), *traces(10, 30, request="x" * 9000)]
    write(tmp_path / "in" / "a.json", array(values))
    assert counts(into(tmp_path / "dataset", tmp_path / "in")) == (40, 40, 0, 0)
    assert [row["trace_id"] for row in rows_of(Dataset(tmp_path / "dataset"))] == [value["trace_id"] for value in values]


# --- duplicates and late events ----------------------------------------------------------------------------------------


def test_duplicates_within_a_run(tmp_path: Path) -> None:
    write(tmp_path / "in" / "b.json.gz", obs([*traces(5), *traces(5)]))
    write(tmp_path / "in" / "a.json.gz", obs([*traces(3, 2), *traces(2, 5)]))
    assert counts(into(tmp_path / "dataset", tmp_path / "in")) == (15, 7, 8, 0)
    rows = rows_of(Dataset(tmp_path / "dataset"))
    # The first one is kept, in the order of files and positions.
    assert [(row["source_file"], row["source_position"]) for row in rows] == [("a.json.gz", n) for n in range(5)] + [
        ("b.json.gz", 0),
        ("b.json.gz", 1),
    ]
    assert all(row["flags"] == [] for row in rows)


def test_duplicates_against_the_dataset(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.json.gz", obs(traces(5)))
    into(tmp_path / "dataset", tmp_path / "in")
    write(tmp_path / "in" / "b.json.gz", obs(traces(5, 3)))
    assert counts(into(tmp_path / "dataset", tmp_path / "in")) == (5, 3, 2, 0)
    assert sorted(row["trace_id"] for row in rows_of(Dataset(tmp_path / "dataset"))) == [value["trace_id"] for value in traces(8)]


@pytest.mark.parametrize("runs", [1, 2])
def test_the_same_id_with_another_content_is_kept_and_flagged(tmp_path: Path, runs: int) -> None:
    first, other, third = trace(1), trace(1, code=403, trace_rating="warning"), trace(1, time=NOON + DAY, record_time=NOON + DAY)
    write(tmp_path / "in" / "a.json", array([first]))
    if runs == 2:
        into(tmp_path / "dataset", tmp_path / "in")
    write(tmp_path / "in" / "b.json", array([other, first, third, other]))
    result = into(tmp_path / "dataset", tmp_path / "in")
    assert counts(result) == ((5, 3, 2, 0) if runs == 1 else (4, 2, 2, 0)) and result.flags == {"duplicate-differs": 2}
    rows = rows_of(Dataset(tmp_path / "dataset"))
    assert [(row["code"], row["day"], row["flags"]) for row in rows] == [
        ("200", "2024-06-19", []),
        ("403", "2024-06-19", ["duplicate-differs"]),
        ("200", "2024-06-20", ["duplicate-differs"]),
    ]


def test_the_same_trace_in_another_shape_is_the_same(tmp_path: Path) -> None:
    bucket = trace(1)
    api = {**bucket, "user": json.loads(bucket["user"]), "request": json.loads(bucket["request"]), "code": "200", "message": None}
    old = {**bucket, "time": "2024-06-19 20:00:00 GMT+08:00", "record_time": "2024/06/19 20:00:00 GMT+08:00"}
    write(tmp_path / "in" / "a.json", array([bucket]))
    write(tmp_path / "in" / "b.json", json.dumps({"traces": [api]}, indent=3).encode())
    assert counts(into(tmp_path / "dataset", tmp_path / "in")) == (2, 1, 1, 0)
    write(
        tmp_path / "in" / "c.json",
        array([{**old, "trace_id": "c"}, {**bucket, "trace_id": "c", "time": NOON, "record_time": NOON}]),
    )
    assert counts(into(tmp_path / "dataset", tmp_path / "in")) == (2, 1, 1, 0)


def test_any_other_column_makes_another_content(tmp_path: Path) -> None:
    base = trace(1, message="m", endpoint="e", total_time=1, extra={"a": 1})
    changed = [
        {**base, name: "other"}
        for name in base
        if name not in ("trace_id", "time", "record_time", "user", "read_only", "total_time")
    ]
    changed += [
        {**base, **each}
        for each in ({"time": NOON}, {"record_time": NOON}, {"user": "b"}, {"read_only": True}, {"total_time": 2}, {"new": 1})
    ]
    changed += [{**base, "message": "NULL"}, {key: each for key, each in base.items() if key != "message"}]
    write(tmp_path / "in" / "a.json", array([base, *changed]))
    result = into(tmp_path / "dataset", tmp_path / "in")
    assert (result.kept, result.duplicates) == (len(changed) + 1, 0)


def test_traces_without_an_id_are_told_apart_by_their_content(tmp_path: Path) -> None:
    values = [
        trace(1, trace_id=...),
        trace(2, trace_id=...),
        trace(1, trace_id=...),
        trace(1, trace_id=None),
        trace(1, trace_id=""),
    ]
    write(tmp_path / "in" / "a.json", array(values))
    assert counts(into(tmp_path / "dataset", tmp_path / "in")) == (5, 3, 2, 0)
    # A file that was touched is taken again, and gives nothing new.
    os.utime(tmp_path / "in" / "a.json", ns=(5, 5))
    assert counts(into(tmp_path / "dataset", tmp_path / "in")) == (5, 0, 5, 0)
    assert all("duplicate-differs" not in row["flags"] for row in rows_of(Dataset(tmp_path / "dataset")))


def test_late_events_land_in_their_own_day(tmp_path: Path) -> None:
    midnight = NOON + DAY // 2
    values = [trace(0, time=midnight - 1), trace(1, time=midnight), trace(2, time=midnight - 9 * DAY)]
    write(tmp_path / "in" / key(midnight + HOUR), obs([{**value, "record_time": value["time"]} for value in values]))
    result = into(tmp_path / "dataset", tmp_path / "in")
    rows = rows_of(Dataset(tmp_path / "dataset"))
    assert [(row["day"], row["flags"]) for row in rows] == [
        ("2024-06-19", ["late"]),
        ("2024-06-20", []),
        ("2024-06-11", ["late"]),
    ]
    assert result.flags == {"late": 2}


# --- again and again ---------------------------------------------------------------------------------------------------


def test_a_second_run_takes_only_what_is_new(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.json.gz", obs(traces(3)))
    first = into(tmp_path / "dataset", tmp_path / "in")
    assert (first.files, first.files_known) == (1, 0)
    manifest = Dataset(tmp_path / "dataset").manifest
    again = into(tmp_path / "dataset", tmp_path / "in")
    assert (again.files, again.files_known, *counts(again)) == (0, 1, 0, 0, 0, 0)
    assert Dataset(tmp_path / "dataset").manifest == manifest
    write(tmp_path / "in" / "b.json.gz", obs(traces(2, 3)))
    grown = into(tmp_path / "dataset", tmp_path / "in", tmp_path / "in" / "b.json.gz")
    assert (grown.files, grown.files_known, *counts(grown)) == (1, 1, 2, 2, 0, 0)
    assert len(rows_of(Dataset(tmp_path / "dataset"))) == 5


def test_a_file_that_has_grown_is_taken_again(tmp_path: Path) -> None:
    path = write(tmp_path / "in" / "a.jsonl", lines(traces(3)) + b'{"trace_id": "0')
    assert counts(into(tmp_path / "dataset", path)) == (3, 3, 0, 1)
    path.write_bytes(lines(traces(5)))
    assert counts(into(tmp_path / "dataset", path)) == (5, 2, 3, 0)


def test_nothing_to_take_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert counts(into(tmp_path / "dataset", tmp_path / "in")) == (0, 0, 0, 0)
    assert Dataset(tmp_path / "dataset", create=True).manifest.generation == 0
    with pytest.raises(UsageError):
        into(tmp_path / "dataset", tmp_path / "missing")


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.json", array(traces(3)))
    cancel = Cancel()
    cancel.set()
    with pytest.raises(Cancelled):
        ingest([str(tmp_path / "in")], Dataset(tmp_path / "dataset", create=True), now=NOW, cancel=cancel)
    assert os.listdir(tmp_path / "dataset") == ["_swrbatch"]
    assert sorted(os.listdir(tmp_path / "dataset" / "_swrbatch")) == ["lock", "manifest.json"]
    assert counts(into(tmp_path / "dataset", tmp_path / "in")) == (3, 3, 0, 0)


def test_rows_from_elsewhere(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path / "dataset", create=True)

    def rows(first: int) -> Iterator[Any]:
        return (read_trace(value, Source(name="ledger"), n, NOW, "guide_2020") for n, value in enumerate(traces(3, first)))

    def reached(seq: int) -> Callable[[Any], Any]:
        def finish(manifest: Any) -> Any:
            manifest.export = {"seq": seq}
            return manifest

        return finish

    for first, kept in ((0, 3), (2, 2)):
        with dataset.changing() as work:
            assert sum(part.rows for part in stage_and_commit(dataset, work, rows(first), reached(first))) == kept
    assert Dataset(dataset.path).manifest.export == {"seq": 2} and len(rows_of(dataset)) == 5


# --- killed ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killing() -> Iterator[Killer]:
    with killer() as each:
        yield each


def troubled(folder: Path) -> list[Path]:
    """Files that make every kind of file in a dataset, in two batches: the second is what a later run finds."""
    first = [*traces(40), trace(40, time=NOON - DAY), trace(41, time="?"), *traces(3), trace(5, code=403), 7]
    write(folder / "1" / key(), obs(first))
    write(
        folder / "2" / key(NOON + DAY, unique="1" * 16),
        obs([*traces(20, 30), trace(50, time=NOON - DAY), trace(6, code=404)]) + b"x",
    )
    write(folder / "2" / "more.jsonl", lines(traces(30, 60)))
    return [folder / "1", folder / "2"]


def signature(dataset: Path) -> tuple[Any, ...]:
    """All that a dataset tells, but for where it lies."""
    opened = Dataset(dataset)
    inputs = [(Path(row["path"]).name, row["records"], row["rejects"]) for row in inputs_of(dataset).values()]
    return [row | {"part": row["day"]} for row in rows_of(opened)], rejects_of(opened), sorted(inputs)


def check_finished(dataset: Path, expected: tuple[Any, ...]) -> None:
    """The rows are those of an uninterrupted run, and nothing else lies about."""
    assert signature(dataset) == expected
    manifest = Dataset(dataset).manifest
    named = {part.path for part in manifest.parts} | {
        *manifest.inputs,
        *manifest.rejects,
        "_swrbatch/manifest.json",
        "_swrbatch/lock",
    }
    assert {str(path.relative_to(dataset)) for path in dataset.rglob("*") if path.is_file()} == named


def check_killed_at(
    tmp_path: Path, killing: Killer, paths: list[Path], start: Path | None, points: Callable[[int], Iterable[int]]
) -> None:
    """SIGKILL at boundaries, then again: the rows of a run that nobody killed; and until then those of before or of after."""

    def fresh(name: str) -> Path:
        return Path(shutil.copytree(start, tmp_path / name)) if start else tmp_path / name

    before = signature(start) if start else ([], [], [])
    whole = fresh("whole")
    code, boundaries, _ = killing(whole, paths, NOW)
    expected = signature(whole)
    assert code == 0 and boundaries > 20
    for point in points(boundaries):
        dataset = fresh(f"killed-{point}")
        code, passed, _ = killing(dataset, paths, NOW, point=point)
        assert (code, passed) == (-9, point)
        if (dataset / "_swrbatch" / "manifest.json").exists():
            assert signature(dataset) in (before, expected)
        into(dataset, *paths)
        check_finished(dataset, expected)
        shutil.rmtree(dataset)


@pytest.mark.parametrize("half", [0, 1])  # for two workers
def test_killed_at_every_write_boundary(tmp_path: Path, killing: Killer, half: int) -> None:
    paths = troubled(tmp_path / "in")
    assert killing(tmp_path / "start", paths[:1], NOW)[0] == 0
    check_killed_at(tmp_path, killing, paths, tmp_path / "start", lambda last: range(1 + half, last + 1, 2))


def test_killed_in_a_first_run(tmp_path: Path, killing: Killer) -> None:
    """Some boundaries, the last ones among them: the manifest's."""
    paths = troubled(tmp_path / "in")
    check_killed_at(tmp_path, killing, paths, None, lambda last: [1, last // 4, last // 2, *range(last - 3, last + 1)])


def test_killed_at_random_moments(tmp_path: Path, killing: Killer) -> None:
    paths = troubled(tmp_path / "in")
    write(tmp_path / "in" / "2" / "large.jsonl", lines(traces(1500, 1000)))
    _, _, seconds = killing(tmp_path / "whole", paths, NOW)
    expected = signature(tmp_path / "whole")
    rng, killed = random.Random(5), 0
    for number in range(60):
        dataset = tmp_path / f"killed-{number}"
        code, _, took = killing(dataset, paths, NOW, after=rng.uniform(0.02, 1.0) * seconds)
        assert code in (0, -9)
        into(dataset, *paths)
        check_finished(dataset, expected)
        killed += code == -9
        if killed == 10:
            return
        if code == 0:
            seconds = min(seconds, took)  # how long a run takes changes with what else the machine does
    pytest.fail(f"only {killed} of 60 runs were killed before their end")


def test_two_runs_at_once(tmp_path: Path, killing: Killer) -> None:
    """One of them does it, the other one says that it has to wait; whichever order, the rows are there once."""
    path = write(tmp_path / "in" / "a.jsonl", lines(traces(3000)))
    dataset = tmp_path / "dataset"
    Dataset(dataset, create=True)
    outcomes: list[str] = []

    def run() -> None:
        try:
            into(dataset, path)
            outcomes.append("done")
        except StoreError as e:
            outcomes.append(str(e))

    others = [threading.Thread(target=run) for _ in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert "done" in outcomes
    assert all(text == "done" or "wait for it to end, and run again" in text for text in outcomes)
    assert len(rows_of(Dataset(dataset))) == 3000


# --- bounds ------------------------------------------------------------------------------------------------------------


def test_a_bomb_costs_its_own_tail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    monkeypatch.setattr(files, "MAX_FILE", 8 << 20)
    write(tmp_path / "in" / "a.json.gz", gzip.compress(array(traces(10))[:-1] + b"," + b" " * (100 << 20)))
    write(tmp_path / "in" / "b.json.gz", obs(traces(10, 10)))
    begun = time.monotonic()
    assert counts(into(tmp_path / "dataset", tmp_path / "in")) == (20, 20, 0, 1)
    assert time.monotonic() - begun < 20
    [reject] = rejects_of(Dataset(tmp_path / "dataset"))
    assert (reject["file"], reject["reason"]) == ("a.json.gz", f"more than {8 << 20} bytes uncompressed")


def test_too_many_and_too_long_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_RECORDS", 12)
    monkeypatch.setattr(files, "MAX_RECORD", 5000)
    write(tmp_path / "in" / "a.json.gz", obs(traces(20)))
    write(tmp_path / "in" / "b.json.gz", obs([*traces(5, 20), trace(25, message="x" * 9000), *traces(5, 26)]))
    assert counts(into(tmp_path / "dataset", tmp_path / "in")) == (22, 22, 0, 2)
    reasons = {row["file"]: row["reason"] for row in rejects_of(Dataset(tmp_path / "dataset"))}
    assert reasons == {"a.json.gz": "more than 12 records", "b.json.gz": "longer than a record may be"}


def test_the_tables_of_inputs() -> None:
    assert list(InputRow.__slots__) == ["path", "bytes", "modified_ns", "sha256", "kind", "records", "rejects", "md5", "digest"]
    assert len(catalog_traces()) == 32
