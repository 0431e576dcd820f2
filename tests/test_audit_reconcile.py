"""`audit reconcile`: what was changed without an event, what an event says that is not so, and the way back (`--adopt`)."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from conftest import Registry
from imagetar import HELLO, Image, Layer, docker_legacy, skopeo
from swrbatch import Store, import_archives
from swrbatch.attempt import LoadRules
from swrbatch.audit.adopt import ARCHIVE, Refusal, adopt
from swrbatch.audit.dataset import Dataset
from swrbatch.audit.ingest import ingest
from swrbatch.audit.reconcile import reconcile
from swrbatch.cts import Actor
from swrbatch.digest import Digest
from swrbatch.ledger.schema import tags
from swrbatch.store import initial_settings
from swrbatch.verify import verify_store
from test_audit_export import NOW, T0, add, cli, event, events_of, run, trail
from test_crash import check_sound, files_of, write

Peer = Callable[[str], str]
Serve = Callable[[Path], Registry]
HOST: Final = "swr.cn-north-1.example.com"
NEW: Final = (HELLO[0], Layer.of({"srv/new": b"new" * 999}))


def archive(path: Path, *tags_: str, layers: tuple[Layer, ...] = HELLO) -> Path:
    return write(path, docker_legacy(Image(layers=layers, tags=tuple(f"{HOST}/{tag}" for tag in tags_))))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two repositories of one organization, three tags of two images."""
    archives = [archive(tmp_path / "a.tar", "team/hello:v1", "team/other:v1")]
    archives.append(archive(tmp_path / "b.tar", "team/hello:v2", layers=NEW))
    assert import_archives(archives, tmp_path / "store", user="alice").exit_code == 0
    # Alice made it; these may act in it too, and no event of theirs is in the way of the tests.
    for user in ("auditor", "bob", "carol", getpass.getuser()):
        sql(tmp_path / "store", f"INSERT INTO administrators VALUES ('default', '{user}', 0)")
    return tmp_path / "store"


def found(path: Path, *datasets: Path) -> list[tuple[str, str]]:
    with Store(path) as store:
        return [(each.kind, each.name) for each in reconcile(store, [Dataset(each) for each in datasets])]


def link(path: Path, name: str) -> Path:
    repository, _, tag = name.rpartition(":")
    return path / "docker/registry/v2/repositories" / repository / "_manifests/tags" / tag / "current/link"


def sql(path: Path, statement: str) -> None:
    """The ledger in the hands of somebody who knows SQL."""
    connection = sqlite3.connect(path / "ledger.db")
    with connection:
        connection.execute(statement)
    connection.close()


def push(path: Path, source: str, target: str) -> None:
    """What a push does to a served store: another tag of a manifest that is there."""
    link(path, target).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(link(path, source), link(path, target))


# --- each kind of difference -------------------------------------------------------------------------------------------


def test_a_store_of_our_own_imports_is_clean(store: Path, tmp_path: Path) -> None:
    assert found(store) == []
    again = [archive(tmp_path / "c.tar", "team/hello:v1", layers=NEW), archive(tmp_path / "d.tar", "team/BAD:v1")]
    assert import_archives(again, store, user="bob").exit_code == 1
    assert found(store) == []
    assert cli("audit", "reconcile", "--store", store)[:2] == (0, "the events tell exactly what the store holds\n")


def test_an_empty_store_is_clean(tmp_path: Path) -> None:
    assert found(trail(tmp_path / "store", 0)) == []


def test_present_without_event(store: Path) -> None:
    push(store, "team/hello:v1", "team/hello:pushed")
    push(store, "team/hello:v1", "stranger/thing:v1")
    assert found(store) == [
        ("present-without-event", "stranger/thing:v1"),
        ("present-without-event", "team/hello:pushed"),
        ("unrecorded-organization", "stranger"),
        ("unrecorded-repository", "stranger/thing"),
    ]


def test_event_without_content(store: Path) -> None:
    link(store, "team/other:v1").unlink()
    assert found(store) == [("event-without-content", "team/other:v1")]
    code, out, _ = cli("verify", "--store", store, "--repair")
    assert code == 0, out
    assert found(store) == []


def test_another_digest(store: Path) -> None:
    push(store, "team/hello:v2", "team/hello:v1")
    with Store(store) as opened:
        difference = reconcile(opened)[0]
    assert (difference.kind, difference.name) == ("other-digest", "team/hello:v1")
    assert difference.actual == link(store, "team/hello:v2").read_text() != difference.expected


def test_a_damaged_link_is_no_content(store: Path) -> None:
    link(store, "team/hello:v1").write_text("sha256:short")
    assert found(store) == [("event-without-content", "team/hello:v1")]


@pytest.mark.parametrize(
    ("trace_name", "resource", "expected"),
    [
        ("deleteImageTag", "team/hello:v1", ["team/hello:v1"]),
        ("deleteImageRepository", "team/hello", ["team/hello", "team/hello:v1", "team/hello:v2"]),
        ("deleteUserNamesapce", "team", ["team", "team/hello", "team/hello:v1", "team/hello:v2", "team/other", "team/other:v1"]),
    ],
)
def test_deleted_but_present(trace_name: str, resource: str, expected: list[str], store: Path) -> None:
    add(store, [event(1, trace_name=trace_name, resource_name=resource, record_time=2**42, rating="normal")])
    assert found(store) == [("deleted-but-present", name) for name in expected]


def test_a_deletion_that_failed_deletes_nothing(store: Path) -> None:
    add(store, [event(2, trace_name="deleteImageTag", resource_name="team/hello:v1", record_time=2**42, rating="warning")])
    assert found(store) == []


def test_rows_that_nobody_recorded(store: Path) -> None:
    sql(store, "INSERT INTO organizations SELECT 77, 'ghost', account_id, owner, created_ms FROM organizations LIMIT 1")
    sql(store, "INSERT INTO repositories (id, organization_id, name, is_public, created_ms) VALUES (77, 77, 'house', 0, 0)")
    assert found(store) == [("unrecorded-organization", "ghost"), ("unrecorded-repository", "ghost/house")]


def test_what_an_event_made_and_nobody_has(store: Path) -> None:
    add(store, [event(1, trace_name="createUserNamespace", resource_name="lost", rating="normal")])
    add(store, [event(1, trace_name="createImageRepository", resource_name="lost/too", rating="normal")])
    assert found(store) == [("organization-missing", "lost"), ("repository-missing", "lost/too")]


def test_a_load_under_way_is_no_difference(store: Path) -> None:
    """Its event is committed, its link is not written yet."""
    link(store, "team/other:v1").unlink()
    with Store(store) as opened:
        with opened.ledger.write() as connection:
            connection.execute(tags.update().where(tags.c.tag == "v1").values(link_pending=True))
        assert reconcile(opened) == []


# --- with the events that CTS delivered ----------------------------------------------------------------------------------


def delivered(path: Path, *traces: dict[str, Any]) -> Path:
    """A dataset of CTS's own events."""
    base = {"service_type": "SWR", "resource_type": "image", "trace_rating": "normal", "trace_type": "ApiCall", "user": "anna"}
    values = [{**base, "trace_id": f"cts-{number}", **each} for number, each in enumerate(traces)]
    write(path.with_suffix(".json"), json.dumps(values).encode())
    result = ingest([str(path.with_suffix(".json"))], Dataset(path, create=True), now=2**42)
    assert result.kept == len(traces)
    return path


def test_events_of_a_dataset_count(store: Path, tmp_path: Path) -> None:
    push(store, "team/hello:v1", "team/hello:pushed")
    digest = link(store, "team/hello:v1").read_text()
    upload = {"trace_name": "uploadImagePackage", "resource_name": "team/hello:pushed", "time": 2**41, "record_time": 2**41}
    assert found(store, delivered(tmp_path / "plain", upload)) == []
    assert found(store, delivered(tmp_path / "told", {**upload, "response": json.dumps({"digest": digest})})) == []
    other = {**upload, "response": {"digest": "sha256:" + "0" * 64}}
    assert found(store, delivered(tmp_path / "other", other)) == [("other-digest", "team/hello:pushed")]
    assert found(store, delivered(tmp_path / "failed", {**upload, "trace_rating": "warning"})) != []
    assert found(store, delivered(tmp_path / "obs", {**upload, "service_type": "OBS"})) != []


def test_the_newest_event_wins_wherever_it_stands(store: Path, tmp_path: Path) -> None:
    deletion = {"trace_name": "deleteImageTag", "resource_type": "imagetag", "resource_name": "team/hello:v1"}
    before, after = ({**deletion, "time": moment, "record_time": moment} for moment in (T0, 2**42))
    assert found(store, delivered(tmp_path / "before", before)) == []
    assert found(store, delivered(tmp_path / "after", after)) == [("deleted-but-present", "team/hello:v1")]


def test_our_own_events_come_twice_and_change_nothing(store: Path, tmp_path: Path) -> None:
    run(store, tmp_path / "dest", "parquet", now=2**42)
    assert found(store, tmp_path / "dest", tmp_path / "dest") == []
    code, _, _ = cli("audit", "prune", "--store", store, "--exported-to", tmp_path / "dest", "--before", "2100-01-01T00:00:00Z")
    assert code == 0 and found(store) == [] and found(store, tmp_path / "dest") == []
    push(store, "team/hello:v1", "team/hello:pushed")
    assert found(store) == found(store, tmp_path / "dest") == [("present-without-event", "team/hello:pushed")]


# --- adopting ----------------------------------------------------------------------------------------------------------


def adopted(path: Path, *, account: str = "default", org_quota: int = 5) -> tuple[list[str], list[Refusal]]:
    actor = Actor(account, "auditor", "root", "host-1")
    rules = LoadRules(defaults=initial_settings(account=account, org_quota=org_quota))
    with Store(path) as store:
        return adopt(store, reconcile(store), actor=actor, rules=rules, run_id="run-a", now=NOW)


def uploads(path: Path) -> list[tuple[str, str, str]]:
    """The newest events: name, resource, result."""
    values = [value for value in events_of(path).values() if value["user"]["name"] == "auditor"]
    return [(v["trace_name"], v["resource_name"], json.loads(v["response"])["result"]) for v in values]


def test_what_is_adopted_is_recorded(store: Path) -> None:
    push(store, "team/hello:v1", "team/hello:pushed")
    push(store, "team/hello:v1", "stranger/thing:v1")
    push(store, "team/hello:v2", "team/hello:v1")
    before = link(store, "team/other:v1").read_text()
    names, refusals = adopted(store)
    assert (sorted(names), refusals) == (["stranger/thing:v1", "team/hello:pushed", "team/hello:v1"], [])
    assert found(store) == []
    assert sorted(uploads(store)) == [
        ("createImageRepository", "stranger/thing", "adopted"),
        ("createUserNamespace", "stranger", "adopted"),
        ("uploadImagePackage", "stranger/thing:v1", "adopted"),
        ("uploadImagePackage", "team/hello:pushed", "adopted"),
        ("uploadImagePackage", "team/hello:v1", "adopted"),
    ]
    event_ = next(
        v for v in events_of(store).values() if v["resource_name"] == "team/hello:v1" and v["user"]["name"] == "auditor"
    )
    response = json.loads(event_["response"])
    assert (event_["trace_rating"], response["digest"], response["previous_digest"]) == (
        "normal",
        link(store, "team/hello:v1").read_text(),
        before,
    )
    rows = {f"{row['organization']}/{row['repository']}:{row['tag']}": row for row in Store(store).images()}
    row, twin = rows["stranger/thing:v1"], rows["team/other:v1"]
    assert (row["archive"], row["user"]) == (ARCHIVE, "auditor")
    same = ("digest", "media_type", "image_id", "architecture", "os", "layers", "uncompressed_bytes", "stored_bytes")
    assert {name: row[name] for name in same} == {name: twin[name] for name in same}


def test_an_adopted_tag_is_like_any_other(store: Path, tmp_path: Path) -> None:
    push(store, "team/hello:v2", "team/hello:v1")
    adopted(store)
    with Store(store) as opened:
        assert verify_store(opened, deep=True).issues == []
    (row,) = import_archives([archive(tmp_path / "c.tar", "team/hello:v1", layers=NEW)], store, user="bob").images
    assert row.status == "unchanged"
    (row,) = import_archives([tmp_path / "a.tar"], store, user="bob").images[:1]
    assert row.status == "overwritten"
    assert found(store) == []


def test_deleted_but_present_is_adopted(store: Path) -> None:
    deletion = event(1, trace_name="deleteUserNamesapce", resource_name="team", record_time=NOW, rating="normal")
    add(store, [deletion])
    assert len(found(store)) == 6
    assert adopted(store)[1] == []
    assert found(store) == []
    # The tag table had it all: only events were added.
    assert len(uploads(store)) == 6 and {row["user"] for row in Store(store).images()} == {"alice"}


def test_rows_that_nobody_recorded_are_adopted(store: Path) -> None:
    test_rows_that_nobody_recorded(store)
    assert adopted(store) == (["ghost", "ghost/house"], [])
    assert found(store) == []


def test_what_is_not_there_is_not_adopted(store: Path) -> None:
    """A disk that is not mounted looks the same: the ledger must not forget everything."""
    shutil.rmtree(store / "docker")
    names, refusals = adopted(store)
    assert names == [] and len(refusals) == 3 and "cannot be adopted" in refusals[0].reason
    assert len(Store(store).images()) == 3


@pytest.mark.parametrize(
    ("target", "reason"),
    [("single:v1", "no organization"), ("Team/x:v1", "naming rules"), ("team/UPPER:v1", "naming rules")],
)
def test_a_name_that_breaks_the_rules_is_left(target: str, reason: str, store: Path) -> None:
    push(store, "team/hello:v1", target)
    names, refusals = adopted(store)
    assert names == [] and [each.name for each in refusals] == [target] and reason in refusals[0].reason
    assert found(store) != []


def test_an_organization_of_another_account_is_left(store: Path) -> None:
    push(store, "team/hello:v1", "team/hello:pushed")
    names, refusals = adopted(store, account="stranger")
    assert names == [] and "team" in refusals[0].reason


def test_the_quota_of_organizations_holds(store: Path) -> None:
    for number in range(6):
        push(store, "team/hello:v1", f"org{number}/x:v1")
    names, refusals = adopted(store)
    assert len(names) == 5 and len(refusals) == 1 and "5 organizations already" in refusals[0].reason


def _blob(store: Path, digest: str) -> Path:
    return store / "docker/registry/v2/blobs/sha256" / digest[7:9] / digest[7:] / "data"


def _break_layer(store: Path, manifest: dict[str, Any]) -> None:
    _blob(store, manifest["layers"][0]["digest"]).write_bytes(b"other")


def _drop_layer(store: Path, manifest: dict[str, Any]) -> None:
    _blob(store, manifest["layers"][0]["digest"]).unlink()


def _drop_config(store: Path, manifest: dict[str, Any]) -> None:
    _blob(store, manifest["config"]["digest"]).unlink()


def _break_manifest(store: Path, manifest: dict[str, Any]) -> None:
    _blob(store, link(store, "team/hello:v1").read_text()).write_text("{}")


@pytest.mark.parametrize("damage", [_break_layer, _drop_layer, _drop_config, _break_manifest])
def test_a_damaged_image_is_left(damage: Callable[[Path, dict[str, Any]], None], store: Path) -> None:
    push(store, "team/hello:v1", "team/hello:pushed")
    damage(store, json.loads(_blob(store, link(store, "team/hello:v1").read_text()).read_text()))
    names, refusals = adopted(store)
    assert names == [] and [each.name for each in refusals] == ["team/hello:pushed"] and refusals[0].reason
    assert "team/hello:pushed" not in {row["reference"].partition("/")[2] for row in Store(store).images()}


def test_an_index_of_platforms_is_left(store: Path) -> None:
    text = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []})
    digest = str(Digest.of(text.encode()))
    _blob(store, digest).parent.mkdir(parents=True)
    _blob(store, digest).write_text(text)
    link(store, "team/hello:all").parent.mkdir(parents=True)
    link(store, "team/hello:all").write_text(digest)
    names, refusals = adopted(store)
    assert names == [] and "image manifest" in refusals[0].reason


def test_a_push_meanwhile_is_left_for_the_next_run(store: Path) -> None:
    push(store, "team/hello:v1", "team/hello:pushed")
    actor, rules = Actor("default", "auditor", "root", "host-1"), LoadRules(defaults=initial_settings())
    with Store(store) as opened:
        differences = reconcile(opened)
        push(store, "team/hello:v2", "team/hello:pushed")
        names, refusals = adopt(opened, differences, actor=actor, rules=rules, run_id="run-a", now=NOW)
    assert names == [] and "pushed again" in refusals[0].reason
    assert adopted(store)[0] == ["team/hello:pushed"]


# --- the command, and a real registry ------------------------------------------------------------------------------------


def test_the_exit_codes_are_the_same_every_time(store: Path) -> None:
    for _ in range(25):
        assert cli("audit", "reconcile", "--store", store)[0] == 0
    push(store, "team/hello:v1", "team/hello:pushed")
    for _ in range(25):
        assert cli("audit", "reconcile", "--store", store)[0] == 1
    assert cli("audit", "reconcile", "--store", store / "nowhere")[0] == 3
    assert cli("audit", "reconcile", store / "nowhere", "--store", store)[0] == 3


def test_the_command_tells_and_adopts(store: Path) -> None:
    push(store, "team/hello:v1", "team/hello:pushed")
    push(store, "team/hello:v1", "single:v1")
    code, out, _ = cli("audit", "reconcile", "--store", store)
    digest = link(store, "team/hello:v1").read_text()
    assert code == 1 and f"present-without-event  team/hello:pushed  nothing         {digest}" in out.splitlines()
    code, out, _ = cli("audit", "reconcile", "--store", store, "--adopt", "--user", "carol", "--format", "json")
    value = json.loads(out)
    assert (code, value["adopted"], list(value["not_adopted"])) == (1, ["team/hello:pushed"], ["single:v1"])
    assert [each["name"] for each in value["differences"]] == ["single:v1", "single"]
    assert list(events_of(store).values())[-1]["user"]["name"] == "carol"


def test_what_skopeo_pushed_into_the_served_store(store: Path, tmp_path: Path, registry_server: Serve, peer: Peer) -> None:
    """The real thing: found, adopted, and as sound as an import."""
    config = write(tmp_path / "config.yml", cli("serve-config", "--store", store, "--writable")[1].encode())
    assert yaml.safe_load(config.read_text())["storage"]["filesystem"]["rootdirectory"] == str(store)
    pushed = write(tmp_path / "pushed.tar", skopeo(Image(layers=(Layer.of({"srv/theirs": b"theirs" * 500}),), tags=("x/y:1",))))
    with registry_server(config) as registry:
        for name in ("team/hello:theirs", "guests/app:v1", "team/hello:v1"):
            copy = [peer("skopeo"), "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", f"docker-archive:{pushed}"]
            subprocess.run([*copy, f"docker://{registry.address}/{name}"], check=True, capture_output=True, timeout=60)
        assert found(store) == [
            ("other-digest", "team/hello:v1"),
            ("present-without-event", "guests/app:v1"),
            ("present-without-event", "team/hello:theirs"),
            ("unrecorded-organization", "guests"),
            ("unrecorded-repository", "guests/app"),
        ]
        code, out, _ = cli("audit", "reconcile", "--store", store, "--adopt")
        assert (code, out.splitlines()[-1]) == (0, "the events tell exactly what the store holds")
        served = json.loads(registry.get("/v2/guests/app/tags/list")[2])
    assert served["tags"] == ["v1"]
    assert set(check_sound(store)) == {*files_of(store)} >= {"guests/app:v1", "team/hello:theirs"}
    assert cli("audit", "verify", "--store", store)[0] == 0


def test_missing_links_of_what_is_adopted_are_written(store: Path) -> None:
    """A push writes more than the tag's own link; where the rest is lost, a pull would fail."""
    push(store, "team/hello:v1", "guests/app:v1")
    assert adopted(store)[0] == ["guests/app:v1"]
    assert "guests/app:v1" in check_sound(store)


def test_nothing_to_adopt_is_nothing_recorded(store: Path) -> None:
    before = events_of(store)
    assert adopted(store) == ([], [])
    assert cli("audit", "reconcile", "--store", store, "--adopt")[0] == 0
    assert events_of(store) == before and os.path.exists(store)
