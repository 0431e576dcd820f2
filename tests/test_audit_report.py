"""The audit report: every table held against the traces that were written, the page, the files, the exit codes, the schedules."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import audit_world
from audit_world import BEGIN_MS, DAY_MS, HOUR_MS, NOW_MS, World
from conftest import ROOT
from swrbatch import Store, StoreError, UsageError, import_archives
from swrbatch.audit import publish, report
from swrbatch.audit.dataset import Dataset
from swrbatch.audit.export import export
from swrbatch.audit.findings import MEANINGS, finding_rows, reaches
from swrbatch.audit.forms import spreadsheet
from swrbatch.audit.ingest import ingest
from swrbatch.audit.offline import loads
from swrbatch.audit.report import Report, Scope
from swrbatch.audit.rows import TABLES
from swrbatch.audit.texts import LABELS, TEXTS, VALUES
from swrbatch.cli import app
from swrbatch.cts import catalog
from swrbatch.tables import row_columns, row_schema

SCHEDULES = ROOT / "fixtures" / "schedules"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return audit_world.write(tmp_path_factory.mktemp("world") / "bucket")


@pytest.fixture(scope="module")
def dataset(world: World, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return world.dataset(tmp_path_factory.mktemp("dataset") / "d")


@pytest.fixture(scope="module")
def built(dataset: Dataset) -> Report:
    return report.build([dataset], now=NOW_MS)


@pytest.fixture(scope="module")
def ours(world: World) -> list[dict[str, Any]]:
    """The traces of SWR."""
    return [trace for trace in world.traces if trace["service_type"] == "SWR"]


def user_of(trace: dict[str, Any]) -> str | None:
    return None if trace["user"] is None else json.loads(trace["user"])["name"]


def found(built: Report) -> dict[str, int]:
    return {row.code: row.count for row in built.findings}


# --- what is counted ---------------------------------------------------------------------------------------------------


def test_every_entry_of_the_catalog_has_its_row(built: Report, ours: list[dict[str, Any]]) -> None:
    rows = built.rows("catalog")
    assert [row.trace_name for row in rows] == list(catalog())
    assert len(rows) == 32
    # The catalog misspells one event; CTS may send either spelling, and both are counted there.
    counts = Counter(trace["trace_name"].replace("deleteUserNamespace", "deleteUserNamesapce") for trace in ours)
    counts["deleteUserNamespaceAuth"] = counts.pop("deleteUserNamesapceAuth")
    for row in rows:
        assert row.events == counts[row.trace_name] == row.normal + row.warning + row.incident + row.other, row.trace_name
        assert row.operation and row.operation_en.isascii()
    assert all(row.events for row in rows), "the world has all 32"


def test_entries_without_events_have_their_row_too(dataset: Dataset) -> None:
    built = report.build([dataset], now=NOW_MS, scope=Scope(organization="no-such-organization"))
    assert [row.events for row in built.rows("catalog")] == [0] * 32
    assert built.about.events == 0 and built.rows("days") == ()
    assert all(row.first is None and row.last is None for row in built.rows("catalog"))


def test_days_and_hours_are_what_sql_says(built: Report, dataset: Dataset) -> None:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'").fetchall()
        dataset.view(connection)
        days = connection.sql(
            "SELECT strftime(time, '%Y-%m-%d'), trace_rating, count(*) FROM traces "
            "WHERE service_type = 'SWR' AND trace_name <> 'syncImage' GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        hours = connection.sql(
            "SELECT epoch_ms(date_trunc('hour', time)), trace_rating, count(*) FROM traces WHERE service_type = 'SWR' "
            "GROUP BY ALL ORDER BY ALL"
        ).fetchall()
    summed = Counter[tuple[str, str]]()
    for row in built.rows("days"):
        summed[row.day, row.rating] += row.events
    assert [(*key, count) for key, count in sorted(summed.items())] == days
    assert [(row.hour, row.rating, row.events) for row in built.rows("hours")] == hours


def test_failures_and_refusals_with_their_codes(built: Report, ours: list[dict[str, Any]]) -> None:
    bad = [trace for trace in ours if trace["trace_rating"] != "normal"]
    rows = built.rows("failures")
    assert sorted(row.trace_id for row in rows) == sorted(trace["trace_id"] for trace in bad)
    assert [row.time for row in rows] == sorted((row.time for row in rows), reverse=True)
    by_code = {(row.code, row.outcome) for row in rows}
    assert by_code == {("403", "refused"), ("400", "refused"), ("404", "refused"), ("500", "incident")}
    (named,) = (row for row in rows if row.code == "400")
    assert named.reasons == ("repository-invalid", "tag-invalid") and named.message == "+1 to this"
    assert {row.message for row in rows if row.code == "403"} == {"denied"}
    codes = {(r.trace_name, r.code, r.reason): r.events for r in built.rows("failure_codes")}
    assert codes["uploadImagePackage", "400", "tag-invalid"] == 1
    assert sum(count for (_, _, reason), count in codes.items() if reason != "tag-invalid") == len(bad)


def test_users_addresses_and_what_each_did(built: Report, ours: list[dict[str, Any]]) -> None:
    people = Counter(user_of(trace) for trace in ours)
    assert {row.user: row.events for row in built.rows("users")} == people
    for row in built.rows("users"):
        mine = [trace for trace in ours if user_of(trace) == row.user]
        assert row.addresses == len({trace["source_ip"] for trace in mine})
        assert row.deletions == sum(trace["trace_name"].startswith("delete") for trace in mine)
        assert (row.normal, row.warning) == tuple(sum(t["trace_rating"] == r for t in mine) for r in ("normal", "warning"))
    assert {row.source_ip: row.events for row in built.rows("addresses")} == Counter(trace["source_ip"] for trace in ours)
    (shared,) = (row for row in built.rows("addresses") if row.source_ip == "192.0.2.7")
    assert shared.users == len({user_of(trace) for trace in ours if trace["source_ip"] == "192.0.2.7"}) > 1
    did = {(row.user, row.trace_name, row.rating): row.events for row in built.rows("activity")}
    assert did == Counter((user_of(t), t["trace_name"], t["trace_rating"]) for t in ours)


def test_uncatalogued_events(built: Report) -> None:
    rows = {(row.finding, row.trace_name): row for row in built.rows("uncatalogued")}
    assert set(rows) == {("unknown-event", "syncImage"), ("resource-type", "createTrigger")}
    assert rows["unknown-event", "syncImage"].events == 2
    wrong = rows["resource-type", "createTrigger"]
    assert (wrong.resource_type, wrong.expected, wrong.events) == ("imagetrigger", "trigger", 1)
    assert found(built)["unknown-event"] == 2 and found(built)["resource-type"] == 1


def test_deletions(built: Report, ours: list[dict[str, Any]]) -> None:
    gone = [trace for trace in ours if trace["trace_name"].startswith("delete")]
    rows = built.rows("deletions")
    assert sorted(row.trace_id for row in rows) == sorted(trace["trace_id"] for trace in gone)
    assert sum(row.done for row in rows) == sum(t["trace_rating"] == "normal" for t in gone) == found(built)["deletion"]


# --- who may use what --------------------------------------------------------------------------------------------------


def changes(built: Report) -> list[tuple[Any, ...]]:
    rows = reversed(built.rows("access_changes"))
    return [(r.kind, r.action, r.resource, r.subject, r.before, r.after, r.before_source, r.done) for r in rows]


def test_grants_with_what_held_before(built: Report) -> None:
    grants = sorted((c for c in changes(built) if c[0] == "permission"), key=lambda c: (c[2], c[3]))
    assert grants == [
        ("permission", "create", "team-a", "ben", "none", "read", "event", True),
        ("permission", "update", "team-a", "ben", "read", "manage", "earlier", True),
        # Revoked by id: an earlier grant says whose it is.
        ("permission", "delete", "team-a", "ben", "manage", "none", "earlier", True),
        ("permission", "create", "team-a", "ci-bot", "none", "edit", "event", True),
        # Refused: what was asked for, and nothing is known of before.
        ("permission", "update", "team-a", "mallory", None, "manage", None, False),
        ("permission", "create", "team-a/service-1", "王芳", "none", "edit", "event", True),
        ("permission", "update", "team-a/service-1", "王芳", "edit", "read", "event", True),
        ("permission", "delete", "team-a/service-1", "王芳", "read", "none", "earlier", True),
    ]


def test_shares_and_visibility_with_what_held_before(built: Report) -> None:
    shares = [c[1:7] for c in changes(built) if c[0] == "share" and c[3] == "partner-3"]
    assert shares == [
        ("create", "team-a/service-1", "partner-3", "none", "read until 2026-03-12T00:00:00Z", "event"),
        (
            "update",
            "team-a/service-1",
            "partner-3",
            "read until 2026-03-12T00:00:00Z",
            "read until 2026-12-31T00:00:00Z",
            "earlier",
        ),
    ]
    seen = [c[1:7] for c in changes(built) if c[0] == "visibility"]
    assert seen == [
        ("update", "team-a/service-2", None, None, "public", None),
        ("update", "team-a/service-3", None, None, "public", None),
        ("create", "team-b/open", None, "none", "public", "event"),
        ("update", "team-a/service-3", None, "public", "private", "earlier"),
    ], "a repository that is private at birth, and a change of its description, are no changes of access"


def test_what_stands_open(built: Report) -> None:
    rows = [(row.kind, row.state, row.resource, row.subject) for row in built.rows("exposures")]
    assert rows == [
        ("public-repository", "public", "team-a/service-2", None),
        ("share", "forever", "team-a/service-1", "partner-1"),
        ("share", "open", "team-a/service-1", "partner-3"),
        ("share", "past", "team-a/service-1", "partner-2"),
    ], "made private, unshared, or deleted ones stand open no more"


def test_what_stood_open_at_the_end_of_an_earlier_period(dataset: Dataset) -> None:
    end = BEGIN_MS + 4 * DAY_MS
    built = report.build([dataset], now=NOW_MS, scope=Scope(begin=end - DAY_MS, end=end))
    rows = {(row.resource, row.subject, row.state) for row in built.rows("exposures")}
    assert ("team-b/open", None, "public") in rows and ("team-a/service-3", None, "public") in rows
    assert ("team-a/service-1", "partner-2", "open") in rows and ("team-a/service-1", "partner-4", "forever") in rows
    # What held before the period is known from the events before it.
    (change,) = (row for row in built.rows("access_changes") if row.kind == "permission")
    assert (change.before, change.after) == ("read", "manage")


@pytest.mark.parametrize("time", ["yesterday", BEGIN_MS - 300 * DAY_MS])
def test_what_was_opened_long_ago_or_nobody_knows_when_stands_open(tmp_path: Path, time: object) -> None:
    opened = {
        "trace_name": "updateImageRepository",
        "resource_type": "imagerepository",
        "request": '{"namespace":"o","repository":"r","is_public":true}',
    }
    built = one(tmp_path, opened | {"resource_name": "o/old", "time": time}, opened | {"resource_name": "o/new"})
    rows = [(row.resource, row.state, row.user, row.trace_id) for row in built.rows("exposures")]
    assert rows == [("o/new", "public", "anna", "t1"), ("o/old", "public", "anna", "t0")]


def one(tmp_path: Path, *traces: dict[str, Any]) -> Report:
    """A report on these traces alone."""
    base = {"trace_rating": "normal", "service_type": "SWR", "time": BEGIN_MS, "code": "200", "user": "anna"}
    values = [base | {"trace_id": f"t{n}", "time": BEGIN_MS + n * 1000} | trace for n, trace in enumerate(traces)]
    (tmp_path / "traces.json").write_text(json.dumps(values), encoding="utf-8")
    dataset = Dataset(tmp_path / "d", create=True)
    ingest([str(tmp_path / "traces.json")], dataset, now=NOW_MS)
    return report.build([dataset], now=NOW_MS)


@pytest.mark.parametrize(
    ("request_", "response", "subject", "before", "after"),
    [
        ('{"user": "ben", "level": "edit"}', '{"before": "read", "after": "edit"}', "ben", "read", "edit"),
        ('{"user": "ben", "before": {"level": 1}, "after": {"level": 7}}', "", "ben", "read", "manage"),
        ('{"to": "ben", "permission": "manage"}', '{"before": null}', "ben", None, "manage"),
        ('[{"user_id": "u1", "auth": 3}]', "not JSON", "u1", None, "edit"),
        ("plain text", "", None, None, "plain text"),
        ("[]", "", None, None, "[]"),
        ('{"unknown": 1}', '[{"a": 1}]', None, None, '{"unknown": 1}'),
    ],
)
def test_shapes_of_grants(
    tmp_path: Path, request_: str, response: str, subject: str | None, before: str | None, after: str
) -> None:
    trace = {"trace_name": "updateUserNamespaceAuth", "resource_type": "usernamespaceauth", "resource_name": "team"}
    (row,) = one(tmp_path, trace | {"request": request_, "response": response}).rows("access_changes")
    assert (row.resource, row.subject, row.before, row.after) == ("team", subject, before, after)


def test_a_share_whose_date_cannot_be_read_is_not_called_open(tmp_path: Path) -> None:
    trace = {"trace_name": "createImageRepositoryAccessDomain", "resource_type": "imagerepositoryaccessdomain"}
    requests = (
        '{"access_domain": "a", "deadline": "some day"}',
        '{"access_domain": "b"}',
        '{"access_domain": "c", "deadline": 1}',
    )
    built = one(tmp_path, *(trace | {"resource_name": "o/r", "request": text} for text in requests))
    assert [(row.subject, row.state) for row in built.rows("exposures")] == [("a", "unknown"), ("b", "unknown"), ("c", "unknown")]


# --- is anything missing -----------------------------------------------------------------------------------------------


def test_what_digests_prove(built: Report) -> None:
    hour = [
        (row.state, row.reason, (row.begin - BEGIN_MS) // HOUR_MS, (row.end - BEGIN_MS) // HOUR_MS)
        for row in built.rows("retention")
    ]
    assert [each[:2] for each in hour] == [
        ("unknown", "digest-missing"),
        ("complete", "digest"),
        ("unknown", "digest-missing"),
        ("complete", "digest"),
        ("gap", "file-missing"),
        ("complete", "digest"),
        ("unknown", "digest-missing"),
    ]
    assert [each[2:] for each in hour[1:6]] == [(48, 60), (60, 61), (61, 88), (88, 89), (89, 96)]
    rows = built.rows("retention")
    assert [row.missing[0].rpartition("/")[2].split("_")[1] for row in rows if row.missing] == ["CloudTrace-Digest", "CloudTrace"]
    # CTS keeps 7 days: only the newest stretch can still be fetched there.
    assert [row.recoverable for row in rows] == [False] * 6 + [True]
    assert all(row.recover_by is None for row in rows if row.state == "complete")


def test_a_changed_trace_file_is_a_gap(world: World, tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    shutil.copytree(world.folder, bucket)
    file = next(path for path in sorted(bucket.rglob("*_CloudTrace_*")) if "/3/4/" in str(path))
    file.write_bytes(b"[]")
    dataset = dataclasses.replace(world, folder=bucket).dataset(tmp_path / "d")
    rows = report.build([dataset], now=NOW_MS).rows("retention")
    assert [row.missing[0].endswith(file.name) for row in rows if row.reason == "file-changed"] == [True]


def test_a_changed_digest_file_breaks_the_chain(world: World, tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    shutil.copytree(world.folder, bucket)
    import gzip

    file = sorted(bucket.rglob("*CloudTrace-Digest_*"))[20]
    value = json.loads(gzip.decompress(file.read_bytes()))
    file.write_bytes(gzip.compress(json.dumps({**value, "log_files": []}).encode()))
    built = report.build([dataclasses.replace(world, folder=bucket).dataset(tmp_path / "d")], now=NOW_MS)
    (row,) = (row for row in built.rows("retention") if row.reason == "digest-changed")
    assert (row.state, row.missing[0].endswith(file.name)) == ("unknown", True)
    assert found(built)["chain-broken"] == 1 and built.reaches("error")


def test_files_that_are_gone_prove_as_much_as_before(world: World, tmp_path: Path) -> None:
    """The dataset keeps what digest files say, and the hashes of the files that it took."""
    bucket = tmp_path / "bucket"
    shutil.copytree(world.folder, bucket)
    dataset = dataclasses.replace(world, folder=bucket).dataset(tmp_path / "d")
    before = report.build([dataset], now=NOW_MS).rows("retention")
    shutil.rmtree(bucket)
    assert report.build([dataset], now=NOW_MS).rows("retention") == before
    assert {row.state for row in before} == {"complete", "gap", "unknown"}


def test_files_that_were_decompressed_prove_nothing(world: World, tmp_path: Path) -> None:
    """Their hashes are not those of the bucket: that is no gap, and no broken chain either."""
    import gzip

    bucket = tmp_path / "bucket"
    shutil.copytree(world.folder, bucket)
    for file in bucket.rglob("*.gz"):
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    dataset = dataclasses.replace(world, folder=bucket).dataset(tmp_path / "d")
    reasons = {(row.state, row.reason) for row in report.build([dataset], now=NOW_MS).rows("retention")}
    assert ("unknown", "file-unread") in reasons and "digest-changed" not in {reason for _, reason in reasons}
    # The one file that a digest names and that never came is missing in any form.
    assert [state for state, reason in reasons if reason == "file-missing"] == ["gap"]


def test_digest_files_whose_content_is_not_known(world: World, tmp_path: Path) -> None:
    """As in a dataset that an old version made."""
    import pyarrow.parquet as pq

    dataset = world.dataset(tmp_path / "d")
    for path in dataset.side_files("inputs"):
        pq.write_table(pq.read_table(path).drop_columns(["md5", "digest"]), path)
    (row,) = report.build([dataset], now=NOW_MS).rows("retention")
    assert (row.state, row.reason, len(row.missing)) == ("unknown", "digest-unread", 47)


def test_without_digests_nothing_can_be_known(tmp_path: Path) -> None:
    trace = {"trace_name": "createUserNamespace", "resource_type": "usernamespace", "resource_name": "team"}
    (row,) = one(tmp_path, trace, trace).rows("retention")
    assert (row.state, row.reason, row.begin, row.end) == ("unknown", "no-digest", BEGIN_MS, BEGIN_MS + 1000)


# --- records that are not as they should be ----------------------------------------------------------------------------


def test_late_duplicate_and_rejected_records(built: Report, world: World, ours: list[dict[str, Any]]) -> None:
    slot = audit_world.SLOT_MS
    late = Counter(
        pd.Timestamp(t["time"], unit="ms").strftime("%Y-%m-%d") for t in ours if (t["time"] - BEGIN_MS) // slot % 6 == 5
    )
    assert {row.day: row.events for row in built.rows("late")} == late
    assert found(built)["late"] == sum(late.values())
    (first, second) = built.rows("duplicates")
    assert (first.trace_id, first.differs, second.differs) == (second.trace_id, False, True)
    assert (first.rating, second.rating, second.code) == ("normal", "warning", "404")
    (inputs,) = built.rows("inputs")
    assert (inputs.rows, inputs.duplicates, inputs.rejected) == (len(world.traces), world.repeated, world.rejected)
    assert [row.raw for row in built.rows("rejects")] == ['{"trace_id": broken}]']
    assert built.about.other_services == len(world.traces) - len(ours) == 1


def test_a_period_an_account_and_an_organization(dataset: Dataset, ours: list[dict[str, Any]]) -> None:
    begin, end = BEGIN_MS + 3 * DAY_MS, BEGIN_MS + 5 * DAY_MS
    built = report.build([dataset], now=NOW_MS, scope=Scope(begin=begin, end=end))
    assert built.about.events == sum(begin <= t["time"] < end for t in ours) == sum(r.events for r in built.rows("users"))
    # Weeks fit together: the end of one is the beginning of the next, and no event is in both or in none.
    parts = [report.build([dataset], now=NOW_MS, scope=Scope(begin=a, end=b)).about.events for a, b in ((None, end), (end, None))]
    assert sum(parts) == len(ours)
    built = report.build([dataset], now=NOW_MS, scope=Scope(account="example-account"))
    assert built.about.events == sum(t["user"] is not None for t in ours)
    assert report.build([dataset], now=NOW_MS, scope=Scope(account="o'other")).about.events == 0
    built = report.build([dataset], now=NOW_MS, scope=Scope(organization="team-b"))
    asked = [
        t
        for t in ours
        if t["resource_name"].split("/")[0] == "team-b" or ("/" not in t["resource_name"] and '"team-b"' in t["request"])
    ]
    assert built.about.events == len(asked) > 10


def test_lists_hold_the_newest_and_all_are_counted(dataset: Dataset, built: Report) -> None:
    short = report.build([dataset], now=NOW_MS, most=10)
    lists = ("failures", "deletions", "access_changes", "addresses")
    for name in lists:
        assert short.rows(name) == built.rows(name)[:10]
    for code in ("refused", "incident", "deletion", "access-change"):
        assert found(short)[code] == found(built)[code]
    left_out = sum(max(0, built.table(name).num_rows - 10) for name in lists)
    assert found(short)["left-out"] == left_out and "left-out" not in found(built)
    assert short.rows("failure_codes") == built.rows("failure_codes")


def test_several_datasets_count_a_trace_once(world: World, dataset: Dataset, built: Report, tmp_path: Path) -> None:
    half = tmp_path / "half"
    for file in sorted(world.folder.rglob("*_CloudTrace_*"))[::2]:
        (half / file.relative_to(world.folder)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, half / file.relative_to(world.folder))
    other = dataclasses.replace(world, folder=half).dataset(tmp_path / "d")
    both = report.build([dataset, other], now=NOW_MS)
    for name in set(TABLES) - {"inputs", "retention", "rejects", "findings", "report"}:
        assert both.table(name).equals(built.table(name)), name
    assert [row.elsewhere for row in both.rows("inputs")] == [0, both.rows("inputs")[1].rows]
    # What the first of three lacks comes from the second, and counts once; of the last nothing is left.
    three = report.build([other, dataset, dataset], now=NOW_MS)
    assert three.rows("catalog") == built.rows("catalog") and three.rows("users") == built.rows("users")
    half_rows, rows = (sum(part.rows for part in each.manifest.parts) for each in (other, dataset))
    assert [row.elsewhere for row in three.rows("inputs")] == [0, half_rows, rows] and 0 < half_rows < rows


# --- findings and exit codes -------------------------------------------------------------------------------------------


def test_findings_by_severity(built: Report) -> None:
    order = [row.severity for row in built.findings]
    assert order == sorted(order, key=["error", "warning", "info"].index)
    assert {row.code for row in built.findings if row.severity == "error"} == {"gap-proved", "incident"}
    for row in built.findings:
        assert row.table in TABLES and row.message.isascii() and re.search("[一-鿿]", row.message_zh)
    assert [built.reaches(severity) for severity in ("error", "warning", "info")] == [True] * 3
    info = finding_rows({"deletion": 1, "refused": 0})
    assert [reaches(info, severity) for severity in ("error", "warning", "info")] == [False, False, True]


def test_flags_of_ingest_have_a_meaning() -> None:
    from swrbatch.audit.traces import FLAGS

    assert set(FLAGS) <= set(MEANINGS)


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["audit", "report", *map(str, arguments)])
    return result.exit_code, result.output


def test_exit_codes(dataset: Dataset, tmp_path: Path) -> None:
    trace = {"trace_name": "createUserNamespace", "resource_type": "usernamespace", "resource_name": "team", "user": "anna"}
    trace |= {"trace_id": "t", "trace_rating": "normal", "service_type": "SWR", "time": BEGIN_MS, "code": "200"}
    (tmp_path / "one.json").write_text(json.dumps(trace))
    (tmp_path / "two.json").write_text(json.dumps(trace | {"trace_id": "u", "trace_rating": "warning", "code": "403"}))
    for name in ("one", "two"):
        ingest([str(tmp_path / f"{name}.json")], Dataset(tmp_path / name, create=True), now=NOW_MS)
    os.symlink(dataset.path, tmp_path / "world")
    # Without digests it cannot be known whether anything is missing: that is information.
    expected = {"one": {"warning": 0, "info": 1}, "two": {"error": 0, "warning": 1}, "world": {"": 0, "error": 1}}
    for name, codes in expected.items():
        for severity, code in codes.items():
            options = ["--fail-on", severity] if severity else []
            assert run(tmp_path / name, "--to", tmp_path / "r", *options)[0] == code, (name, severity)


def test_wrong_usage(dataset: Dataset, tmp_path: Path) -> None:
    assert run(tmp_path / "none", "--to", tmp_path / "r")[0] == 3
    assert run(dataset.path, "--to", tmp_path / "r", "--from", "yesterday")[0] == 2
    assert run(dataset.path, "--to", tmp_path / "r", "--from", "2026-03-02T00:00:00Z", "--until", "2026-03-02T00:00:00Z")[0] == 2
    assert run(dataset.path, "--to", tmp_path / "r", "--store", tmp_path / "none")[0] == 3
    assert run(dataset.path, "--to", tmp_path / "r", "--notebook", "none")[0] == 2
    assert run(dataset.path, "--to", tmp_path / "r", "--notebook", "compliance_report", "--fail-on", "info")[0] == 2
    assert not (tmp_path / "r").exists()
    with pytest.raises(UsageError, match="different catalogs"):
        report.build([dataset, Dataset(tmp_path / "v1", create=True, catalog="v1")])


def test_text_and_json(dataset: Dataset, built: Report, tmp_path: Path) -> None:
    code, text = run(dataset.path, "--to", tmp_path / "r", "--lang", "zh")
    assert code == 0 and "gap-proved" in text and "摘要或序号证明存在缺失的事件" in text and text.rstrip().endswith("report.html")
    code, text = run(dataset.path, "--to", tmp_path / "r", "--format", "json")
    value = json.loads(text)
    assert value["report"]["events"] == built.about.events and len(value["files"]) == 2 * len(TABLES) + 1
    assert {row["code"] for row in value["findings"]} >= {"gap-proved", "refused", "deletion"}
    assert all(os.path.exists(path) for path in value["files"])


# --- the store ---------------------------------------------------------------------------------------------------------


def test_a_report_on_a_store(archives_dir: Path, tmp_path: Path) -> None:
    import_archives([str(archives_dir / n) for n in ("docker20-two-images.tar", "docker20-short-name.tar")], tmp_path / "store")
    with Store(tmp_path / "store") as store:
        export(store, str(tmp_path / "events"), "parquet", now=NOW_MS)
        built = report.build([tmp_path / "events"], store=store)
        assert built.rows("differences") == () and "difference" not in found(built)
        (row,) = built.rows("retention")
        assert (row.state, row.reason, row.chain) == ("complete", "ledger-sequence", "ledger")
        assert sum(r.events for r in built.rows("users")) == built.about.events > 4
        assert {r.reason for r in built.rows("failure_codes")} == {"registry-missing", "namespace-missing"}
        # Somebody takes a tag away behind the tool's back.
        tags = next((tmp_path / "store" / "docker").rglob("tags"))
        shutil.rmtree(next(path for path in tags.iterdir()))
        built = report.build([tmp_path / "events"], store=store)
        assert [r.kind for r in built.rows("differences")] == ["event-without-content"] and built.reaches("error")
        assert "docker" not in built.html("en")[:200] and "event, but not there" in built.html("en")


def test_missing_sequence_numbers_are_a_gap(archives_dir: Path, tmp_path: Path) -> None:
    import_archives([str(archives_dir / "docker20-two-images.tar")], tmp_path / "store")
    with Store(tmp_path / "store") as store:
        export(store, str(tmp_path / "events"), "parquet", now=NOW_MS)
    dataset = Dataset(tmp_path / "events")
    (part,) = dataset.files()
    table = pq.read_table(part, use_threads=False)
    position = table.column("source_position").to_pylist()
    pq.write_table(table.filter(pa.array([seq != 2 for seq in position])), part)
    rows = report.build([dataset], now=NOW_MS).rows("retention")
    assert [(row.state, row.missing) for row in rows] == [("complete", ()), ("gap", ("2-2",)), ("complete", ())]


# --- files -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(built: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("report") / "r"
    written = built.write(target, "zh")
    assert sorted(Path(path).name for path in written) == sorted(path.name for path in target.iterdir() if path.name[0] != ".")
    return target


@pytest.mark.parametrize("name", TABLES)
def test_parquet_has_the_schema_of_its_rows(folder: Path, built: Report, name: str) -> None:
    table = pq.read_table(folder / f"{name}.parquet", use_threads=False)
    assert table.schema.equals(row_schema(TABLES[name])) and table.equals(built.table(name))
    assert all(column.meaning for column in row_columns(TABLES[name])) and TABLES[name].__doc__
    frame = built.to_pandas(name)
    assert list(frame.columns) == table.column_names and len(frame) == table.num_rows == len(built.rows(name))


@pytest.mark.parametrize("name", TABLES)
def test_csv_is_safe_and_says_the_same(folder: Path, built: Report, name: str) -> None:
    raw = (folder / f"{name}.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf")
    head, *lines = csv.reader(raw.decode("utf-8-sig").splitlines(keepends=True))
    assert head == [column.name for column in row_columns(TABLES[name])] and len(lines) == built.table(name).num_rows
    for line, row in zip(lines, built.rows(name), strict=True):
        for column, cell in zip(row_columns(TABLES[name]), line, strict=True):
            value = getattr(row, column.name)
            if column.type == "string":
                assert cell == spreadsheet(value)
            elif column.type == "timestamp[ms, UTC]":
                assert cell == "" if value is None else cell.endswith("Z")


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=6)
STARTS = st.sampled_from(["=", "+", "-", "@", "\t", "\r", "\n", " ", "\u200b", "＝", "＠", "a", "1", "中", "", "\x00", "[", '"'])


@given(st.lists(st.one_of(st.none(), st.builds("".join, st.lists(st.one_of(STARTS, TEXT), max_size=3))), min_size=1))
def test_texts_are_guarded_as_exports_guard_them(texts: list[str | None]) -> None:
    guarded = publish._guarded(pa.chunked_array([texts], pa.string()))
    assert guarded.to_pylist() == [None if text is None else spreadsheet(text) for text in texts]


def test_the_same_input_gives_the_same_files(dataset: Dataset, built: Report, folder: Path, tmp_path: Path) -> None:
    again = report.build([Dataset(dataset.path)], now=NOW_MS)
    again.write(tmp_path / "r", "zh")
    for path in sorted(folder.iterdir()):
        if path.name[0] != ".":
            assert path.read_bytes() == (tmp_path / "r" / path.name).read_bytes(), path.name


def test_two_at_once_and_a_full_disk(built: Report, tmp_path: Path) -> None:
    with publish.alone(str(tmp_path / "r")), pytest.raises(StoreError, match="another run is writing the report"):
        built.write(tmp_path / "r")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        built.write(tmp_path / "file")
    with pytest.raises(KeyError, match="no table 'none'"):
        built.table("none")


# --- the page ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["en", "zh"])
def page(request: pytest.FixtureRequest, built: Report) -> str:
    return built.html(request.param)


def test_the_page_loads_nothing(page: str) -> None:
    assert loads(page) == []
    # And by plain search, in case the reader above misses something.
    addresses = set(re.findall(r"(?:https?:)?//[a-z0-9.-]+[^\s\"'<>)]*", page)) - {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert addresses == set(), "namespaces are names, nothing else may look like an address"
    assert not re.search(r"<(script|link|img|iframe|object|embed|base)\b|@import|@font-face|url\((?!#)", page, re.IGNORECASE)
    assert "default-src 'none'" in page


@pytest.mark.parametrize(
    ("html", "what"),
    [
        ("<script>1</script>", "script"),
        ('<link rel="stylesheet" href="https://cdn/x.css">', "link href=https://cdn/x.css"),
        ('<img src="//cdn/x.png">', "img src=//cdn/x.png"),
        ('<img src="data:image/png;base64,AA" srcset="http://x/2 2x">', "img srcset=http://x/2 2x"),
        ("<style>@import 'http://x/a.css';</style>", "style css=http://x/a.css"),
        ("<style>@font-face { src: url(https://x/f.woff2) }</style>", "style css=https://x/f.woff2"),
        ('<p style="background: url(http://x/b)">', "p css=http://x/b"),
        ('<svg><image xlink:href="http://x/i"/></svg>', "image xlink:href=http://x/i"),
        ('<svg><use href="http://x/i#a"/></svg>', "use href=http://x/i#a"),
        ('<meta http-equiv="refresh" content="0; url=http://x">', "meta content=0; url=http://x"),
        ('<a href="http://x">waits for a click</a><svg><use xlink:href="#a"/></svg><img src="data:,">', None),
    ],
)
def test_what_loads_is_found(html: str, what: str | None) -> None:
    assert loads(html) == ([what] if what else [])


def test_texts_of_traces_are_shown_and_never_run(page: str) -> None:
    assert "<script>alert" not in page and "team-a/&lt;script&gt;alert(1)&lt;/script&gt;:v1" in page
    assert "王芳" in page and "=HYPERLINK(1)" in page


def test_the_page_speaks_both_languages(built: Report) -> None:
    english, chinese = built.html("en"), built.html("zh")
    assert '<html lang="en">' in english and '<html lang="zh-CN">' in chinese
    for name in ("title", "findings", "catalog", "failures", "access_changes", "retention", "differences", "footer"):
        assert TEXTS[name][0] in english and TEXTS[name][1] in chinese
    for entry in catalog().values():
        assert entry.trace_name in english and entry.operation in chinese and entry.operation_en in english
    for text in ("读取", "管理", "编辑", "公开", "永久有效", "缺失", "无法得知", "被拒绝"):
        assert text in chinese
    # Of the English page only data may be Chinese: the name of a person.
    assert set(re.findall("[一-鿿]+", english)) == {"王芳"}


def test_every_word_of_the_page_has_two_languages(built: Report) -> None:
    shown = {
        c.name
        for name in TABLES
        for c in row_columns(TABLES[name])
        if name not in ("report", "findings", "days", "hours", "activity")
    }
    assert shown - set(LABELS) == set()
    for pairs in (TEXTS, LABELS, VALUES):
        for name, (english, chinese) in pairs.items():
            assert english.isascii() or name in ("open", "access_note", "catalog_note"), english
            assert name in ("open", "first") or re.search("[一-鿿]", chinese), name


def test_pictures_are_inside_and_their_texts_are_text(page: str) -> None:
    assert page.count("<svg") == 3 and page.count("</svg>") == 3
    assert "uploadImagePackage</text>" in page and "2026-03-02</text>" in page
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids)), "ids of pictures in one page must differ"


def test_without_matplotlib_the_page_says_so(built: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swrbatch.audit.page.drawable", lambda: False)
    assert "<svg" not in built.html("en") and "pip install" in built.html("en")


@pytest.mark.parametrize("odd", [1, 253_402_300_799_000])
def test_a_time_that_cannot_be_does_not_spoil_the_pictures(tmp_path: Path, odd: int) -> None:
    """Events of 1970 or of the year 9999 stand in the tables; the pictures show the others."""
    trace = {"trace_name": "createUserNamespace", "resource_type": "usernamespace", "resource_name": "team", "user": "anna"}
    trace |= {"trace_rating": "normal", "service_type": "SWR", "code": "200"}
    values = [{**trace, "trace_id": f"t{n}", "time": BEGIN_MS + n * HOUR_MS} for n in range(3)]
    (tmp_path / "a.json").write_text(json.dumps([*values, {**trace, "trace_id": "odd", "time": odd}]))
    odd_one = Dataset(tmp_path / "d", create=True)
    ingest([str(tmp_path / "a.json")], odd_one, now=NOW_MS)
    result = report.build([odd_one], now=NOW_MS)
    assert result.about.events == 4 and sum(row.events for row in result.rows("days")) == 4
    (tmp_path / "b.json").write_text(json.dumps(values))
    plain = Dataset(tmp_path / "e", create=True)
    ingest([str(tmp_path / "b.json")], plain, now=NOW_MS)
    pictures = [re.findall(r"<svg.*?</svg>", report.build([each], now=NOW_MS).html(), re.DOTALL) for each in (odd_one, plain)]
    assert pictures[0] == pictures[1] and len(pictures[0]) == 3


def test_years_have_pictures_of_a_bounded_size(tmp_path: Path) -> None:
    trace = {"trace_name": "createUserNamespace", "resource_type": "usernamespace", "resource_name": "team", "user": "anna"}
    trace |= {"trace_rating": "normal", "service_type": "SWR", "code": "200"}
    times = [BEGIN_MS - year * 365 * DAY_MS for year in range(11)]
    (tmp_path / "a.json").write_text(json.dumps([{**trace, "trace_id": f"t{time}", "time": time} for time in times]))
    dataset = Dataset(tmp_path / "d", create=True)
    ingest([str(tmp_path / "a.json")], dataset, now=NOW_MS)
    assert len(report.build([dataset], now=NOW_MS).html()) < 1_500_000


def test_nothing_happened(tmp_path: Path) -> None:
    empty = report.build([Dataset(tmp_path / "d", create=True)], now=NOW_MS)
    for lang in ("en", "zh"):
        assert TEXTS["nothing_happened"][lang == "zh"] in empty.html(lang)
    assert empty.about.events == 0 and len(empty.rows("catalog")) == 32


CHROMIUM = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--no-pdf-header-footer",
]  # fmt: skip


def asked(log: Path) -> set[str]:
    """The addresses that pages asked for, out of a log of Chromium's network."""
    events = json.loads(log.read_text(encoding="utf-8"))["events"]
    params = [event["params"] for event in events if "params" in event]
    return {
        p["url"] for p in params if p.get("initiator", "not an origin") != "not an origin" and not p["url"].startswith("file:")
    }


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_browser_shows_and_prints_it(built: Report, tmp_path: Path, peer: Callable[[str], str], lang: Any) -> None:
    matplotlib_image = pytest.importorskip("matplotlib.image")
    built.write(tmp_path / "r", lang)

    def chromium(*more: str, page: Path = tmp_path / "r" / "report.html") -> None:
        # No name is found: nothing leaves the machine, and what was asked for stands in the log.
        argv = [peer("chromium"), *CHROMIUM, f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"]
        subprocess.run([*argv, *more, page.as_uri()], check=True, capture_output=True, timeout=120)

    log = tmp_path / "net.json"
    chromium(f"--screenshot={tmp_path / 'page.png'}", "--window-size=1180,4000", f"--log-net-log={log}")
    pixels = matplotlib_image.imread(tmp_path / "page.png")
    assert pixels.shape[:2] == (4000, 1180)
    # Something stands in every part of it, the pictures' blue among it.
    ink = (pixels[..., :3] < 0.9).any(axis=2)
    assert all(ink[top : top + 400].any() for top in range(0, 4000, 400))
    assert ((pixels[..., :3] * 255).round() == [0x4F, 0x81, 0xB0]).all(axis=2).sum() > 1000
    # What the browser asks for by itself has no page as its initiator.
    assert asked(log) == set()
    (tmp_path / "loading.html").write_text('<img src="http://loading.invalid/x.png">')
    chromium(f"--screenshot={tmp_path / 'none.png'}", f"--log-net-log={log}", page=tmp_path / "loading.html")
    assert asked(log) == {"http://loading.invalid/x.png"}, "a page that does load something is found out"
    chromium(f"--print-to-pdf={tmp_path / 'page.pdf'}")
    pages = len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "page.pdf").read_bytes()))
    assert 6 <= pages <= 16


# --- schedules ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def schedule(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script of fixtures/schedules in a folder of its own."""
    command = tmp_path / "swrbatch"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m swrbatch "$@"\n')
    command.chmod(0o755)
    settings = (SCHEDULES / "swrbatch.env").read_text(encoding="utf-8")
    settings = settings.replace("SWRBATCH=swrbatch", f"SWRBATCH={command}").replace("/srv/swrbatch", str(tmp_path / "base"))
    (tmp_path / "env").write_text(settings)
    (tmp_path / "base" / "incoming").mkdir(parents=True)

    def start(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = os.environ | {"SWRBATCH_ENV": str(tmp_path / "env"), "PYTHONPATH": str(ROOT)}
        argv = ["sh", str(SCHEDULES / name), *arguments]
        return subprocess.run(argv, env=env, capture_output=True, text=True, cwd=tmp_path, timeout=120)

    return start


def test_schedules_run_once_twice_and_at_once(
    schedule: Callable[..., subprocess.CompletedProcess[str]], archives_dir: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    for name in ("docker20-single.tar", "docker20-short-name.tar"):
        shutil.copy(archives_dir / name, base / "incoming")
    (base / "incoming" / "unfinished.tar.part").write_bytes(b"")
    first = schedule("nightly-import.sh")
    assert first.returncode == 1, "one archive was rejected"
    assert "registry-missing" in first.stdout and os.listdir(base / "incoming") == ["unfinished.tar.part"]
    again = schedule("nightly-import.sh")
    assert (again.returncode, again.stdout) == (0, ""), "twice: nothing is left to do"
    assert "written, up to sequence" in schedule("hourly-export.sh").stdout
    assert schedule("hourly-export.sh").stdout.startswith("0 events written")
    weekly = schedule("weekly-report.sh", "2026-11-16")
    assert weekly.returncode == 0, weekly.stderr
    assert (base / "weeks" / "2026-11-16" / "report.html").exists()
    # Two at once, each with its message.
    import fcntl

    for lock, script, message in (
        (base / "import.lock", "nightly-import.sh", "another nightly import is running"),
        (base / "events" / "_swrbatch" / "lock", "hourly-export.sh", "another run is writing the dataset"),
        (base / "weeks" / "2026-11-16" / ".swrbatch-lock", "weekly-report.sh", "another run is writing the report"),
    ):
        with lock.open("a") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            locked = schedule(script, "2026-11-16")
        assert locked.returncode in (3, 75) and message in locked.stderr, locked


def test_a_killed_night_is_taken_up(
    schedule: Callable[..., subprocess.CompletedProcess[str]], archives_dir: Path, tmp_path: Path
) -> None:
    night = tmp_path / "base" / "nights" / "2026-11-20T01-30-00Z"
    night.mkdir(parents=True)
    shutil.copy(archives_dir / "docker20-single.tar", night)
    assert schedule("nightly-import.sh").returncode == 0
    assert (night / ".done").exists() and (tmp_path / "base" / "store" / "ledger.db").exists()


def test_a_night_without_archives_does_not_hold_up_the_others(
    schedule: Callable[..., subprocess.CompletedProcess[str]], archives_dir: Path, tmp_path: Path
) -> None:
    nights = tmp_path / "base" / "nights"
    for name in ("2026-11-20T01-30-00Z", "2026-11-21T01-30-00Z"):
        (nights / name).mkdir(parents=True)
    (nights / "2026-11-20T01-30-00Z" / "readme.md").touch()
    shutil.copy(archives_dir / "docker20-single.tar", nights / "2026-11-21T01-30-00Z")
    done = schedule("nightly-import.sh")
    assert done.returncode == 2 and "there is no archive below" in done.stderr, done
    assert [path.parent.name for path in nights.glob("*/.done")] == ["2026-11-21T01-30-00Z"]
    shutil.copy(archives_dir / "docker20-single.tar", nights / "2026-11-20T01-30-00Z")
    assert schedule("nightly-import.sh").returncode == 0, "somebody has looked"


def test_schedule_files_are_well_formed() -> None:
    names = {path.name for path in SCHEDULES.iterdir()}
    scripts = {name for name in names if name.endswith(".sh")}
    for script in scripts:
        assert (SCHEDULES / script).stat().st_mode & stat.S_IXUSR
        assert subprocess.run(["sh", "-n", SCHEDULES / script]).returncode == 0
    cron = [line.split() for line in (SCHEDULES / "swrbatch.cron").read_text().splitlines() if re.match(r"[\d*]", line)]
    assert {Path(fields[6]).name for fields in cron} == scripts and all(fields[5] == "swrbatch" for fields in cron)
    import yaml

    jobs = yaml.safe_load((SCHEDULES / "gitlab-ci.yml").read_text(encoding="utf-8"))
    assert {"nightly-import", "hourly-export", "weekly-report"} <= set(jobs)
    for unit in ("import", "export", "report"):
        assert {f"swrbatch-{unit}.service", f"swrbatch-{unit}.timer"} <= names
        service = (SCHEDULES / f"swrbatch-{unit}.service").read_text()
        assert re.search(r"^ExecStart=/usr/local/lib/swrbatch/(\S+)$", service, re.MULTILINE)[1] in scripts  # type: ignore[index]
        assert "Persistent=true" in (SCHEDULES / f"swrbatch-{unit}.timer").read_text()


def test_systemd_takes_the_timers(peer: Callable[[str], str]) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    for timer in SCHEDULES.glob("*.timer"):
        (line,) = (line for line in timer.read_text().splitlines() if line.startswith("OnCalendar="))
        done = subprocess.run([analyze, "calendar", line.partition("=")[2]], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
