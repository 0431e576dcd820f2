"""The store through its Python API: its rules, its events, its ledger; and that what it holds is used again, or healed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import os
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, inspect, text

import swrbatch.ledger
from imagetar import HELLO, PRODUCERS, Image, Layer, containerd, crane, docker25, docker_legacy, skopeo
from swrbatch import RunResult, Store, StoreError, UsageError, check_archives, faults, import_archives
from swrbatch.actors import current_actor
from swrbatch.blob_writer import BLOCK, BlobWriter
from swrbatch.cts import catalog
from swrbatch.digest import Digest
from swrbatch.image import OCI_LAYER_TYPES
from swrbatch.ledger.access import set_grant
from swrbatch.ledger.acting import acting
from swrbatch.ledger.deletions import delete_tag
from swrbatch.ledger.schema import HEAD, metadata
from swrbatch.rights import Level
from swrbatch.verify import verify_store
from test_crash import (
    KILLED,
    TEAM,
    at,
    check_links,
    check_sound,
    events_of,
    files_of,
    in_memory,
    points_of,
    rows_of,
    temporaries,
    write,
)

ROOT: Final = Path(__file__).resolve().parent.parent
HOST: Final = "swr.cn-north-1.example.com"


def image_with(own: object, *tags: str) -> Image:
    """A small image that differs from others in its last layer."""
    return Image(layers=(*HELLO, Layer.of({"own": str(own).encode() * 30})), tags=tags or (f"{TEAM}/app:v1",))


def archive(path: Path, own: object, *tags: str, form: Any = docker_legacy) -> Path:
    return write(path, form(image_with(own, *tags)))


def statuses(result: RunResult) -> list[str]:
    return [row.status for row in result.images]


def codes(result: RunResult) -> list[str]:
    return [row.code for row in result.issues if row.severity == "error"]


def init(path: Path, **chosen: Any) -> dict[str, str]:
    with Store(path, create=True) as store:
        return store.init(**chosen)


def granted(path: Path, name: str, user: str, level: Level, *, by: str | None = None) -> None:
    """Give a user of the default account a level on an organization or a repository."""
    with Store(path) as store, acting(store.ledger, current_actor("default", by)) as act:
        assert set_grant(act, name, user, level).status in ("created", "updated")


@contextlib.contextmanager
def ledger_of(store: Path) -> Iterator[sqlite3.Connection]:
    """The ledger's file, opened by somebody else; changes are committed."""
    with contextlib.closing(sqlite3.connect(store / "ledger.db")) as connection, connection:
        yield connection


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with one image, `team/app:v1`, and its archive beside it as `a.tar`."""
    path = tmp_path / "store"
    assert statuses(import_archives([archive(tmp_path / "a.tar", "a")], path, jobs=1)) == ["loaded"]
    return path


# --- what a store is ---------------------------------------------------------------------------------------------------


def test_a_store_is_made_only_when_asked(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(StoreError, match=r"is no store: make one with swrbatch init --store"):
            Store(path)
    assert not (tmp_path / "nothing").exists() and os.listdir(tmp_path) == []
    Store(tmp_path / "deep/down/store", create=True).close()
    assert sorted(os.listdir(tmp_path / "deep/down/store")) == ["ledger.db", "locks"]


def test_a_folder_with_other_things_does_not_become_a_store(tmp_path: Path) -> None:
    write(tmp_path / "thesis.txt", b"precious")
    with pytest.raises(StoreError, match="is not empty and is no store: choose an empty or a new folder"):
        import_archives([], tmp_path)
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_a_file_does_not_become_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be made"):
        Store(write(tmp_path / "file", b""), create=True)


def test_the_folder_of_a_registry_becomes_a_store(tmp_path: Path, store: Path) -> None:
    """Images that are in it already are foreign, until they are imported."""
    shutil.copytree(store / "docker", tmp_path / "old/docker")
    result = import_archives([archive(tmp_path / "b.tar", "b", f"{TEAM}/other:v1")], tmp_path / "old")
    assert statuses(result) == ["loaded"]
    with Store(tmp_path / "old") as opened:
        assert [found.code for found in verify_store(opened, deep=True).issues] == ["foreign-tag"]
    (known,) = import_archives([tmp_path / "a.tar"], tmp_path / "old").images
    assert (known.status, known.previous_digest) == ("loaded", known.manifest_digest)
    assert len(check_sound(tmp_path / "old")) == 2


def test_init_sets_what_it_is_given(tmp_path: Path) -> None:
    got = init(tmp_path / "a", registry="r.example.com:5000", region="cn-1", account="acme", org_quota=2)
    assert got == {"registry": "r.example.com:5000", "region": "cn-1", "account": "acme", "org_quota": "2"}
    assert init(tmp_path / "b") == {"region": "local", "account": "default", "org_quota": "5"}


def test_init_again_keeps_what_is_there(tmp_path: Path) -> None:
    first = init(tmp_path / "a", registry="r.example.com", account="acme")
    assert init(tmp_path / "a", registry="r.example.com", account="acme") == first
    for name, other in (("registry", "b.example.com"), ("region", "far"), ("account", "rival")):
        chosen = {"registry": "r.example.com", "account": "acme", name: other}
        with pytest.raises(UsageError, match=rf"exists with {name} = .*; it cannot become {other}"):
            init(tmp_path / "a", **chosen)
    with Store(tmp_path / "a") as store:
        assert store.settings() == first
    assert init(tmp_path / "a", org_quota=9) == {**first, "org_quota": "9"}, "the quota can be changed"


def test_the_first_import_sets_the_registry(tmp_path: Path, store: Path) -> None:
    with Store(store) as opened:
        assert opened.settings() == {"registry": HOST, "region": "local", "account": "default", "org_quota": "5"}
    other = import_archives([archive(tmp_path / "b.tar", "b", "other.example.com/team/app:v1")], store)
    assert (statuses(other), codes(other), int(other.exit_code)) == (["rejected"], ["registry-mismatch"], 1)
    with pytest.raises(UsageError, match=f"the store is that of the registry {HOST}"):
        import_archives([], store, registry="other.example.com")
    # Host names do not tell upper from lower case.
    upper = import_archives([archive(tmp_path / "c.tar", "c", f"{HOST.upper()}/team/app:v2")], store, registry=HOST.upper())
    assert statuses(upper) == ["loaded"]


def test_a_rejected_import_sets_no_registry(tmp_path: Path) -> None:
    bad = image_with("a", "first.example.com/team/app:v1")
    path = write(tmp_path / "bad.tar", docker_legacy(replace(bad, overrides={"rootfs": {"type": "layers", "diff_ids": []}})))
    assert import_archives([path], tmp_path / "store").exit_code == 1
    with Store(tmp_path / "store") as opened:
        assert "registry" not in opened.settings()
    assert statuses(import_archives([archive(tmp_path / "b.tar", "b")], tmp_path / "store")) == ["loaded"]


def test_the_names_of_one_image_must_agree_on_the_registry(tmp_path: Path) -> None:
    """Also in a store that has no registry yet: one refused name refuses the image."""
    path = archive(tmp_path / "a.tar", "a", "a.example.com/team/app:v1", "b.example.com/team/app:v1")
    result = import_archives([path], tmp_path / "store")
    assert set(statuses(result)) == {"rejected"} and codes(result) == ["registry-mismatch"]
    with Store(tmp_path / "store") as opened:
        assert opened.images() == [] and "registry" not in opened.settings()


def test_a_user_has_a_quota_of_organizations(tmp_path: Path) -> None:
    store = tmp_path / "store"
    init(store, org_quota=2)
    paths = [archive(tmp_path / f"{n}.tar", n, f"{HOST}/org{n}/app:v1") for n in range(4)]
    result = import_archives([*paths[:3], archive(tmp_path / "x.tar", "x", f"{HOST}/org1/app:v2")], store, user="ann")
    assert statuses(result) == ["loaded", "loaded", "rejected", "loaded"] and codes(result) == ["organization-quota"]
    assert "denied: ann has 2 organizations already, org2 would be one more" in {row.message for row in result.issues}
    # Another user of the account has a quota of his own, and may load into the organizations where that is granted.
    granted(store, "org0", "bob", Level.EDIT, by="ann")
    result = import_archives([paths[2], archive(tmp_path / "y.tar", "y", f"{HOST}/org0/app:v2")], store, user="bob")
    assert statuses(result) == ["loaded", "loaded"]
    assert len(check_sound(store)) == 5


def test_a_check_against_a_store_knows_its_quota(tmp_path: Path) -> None:
    init(tmp_path / "store", org_quota=1)
    paths = [archive(tmp_path / f"{n}.tar", n, f"{HOST}/org{n}/app:v1") for n in range(2)]
    with Store(tmp_path / "store") as store:
        assert codes(check_archives(paths, store=store)) == ["organization-quota"]
    assert codes(import_archives(paths, tmp_path / "store")) == ["organization-quota"]


def test_one_image_with_many_names_keeps_to_the_quota(tmp_path: Path) -> None:
    store = tmp_path / "store"
    init(store, org_quota=2)
    names = [f"{HOST}/org{n}/app:v1" for n in range(3)]
    result = import_archives([archive(tmp_path / "a.tar", "a", *names)], store)
    assert statuses(result) == ["rejected"] * 3 and codes(result) == ["organization-quota"]
    result = import_archives([archive(tmp_path / "b.tar", "b", *names[:2], f"{HOST}/org0/app:v2")], store)
    assert statuses(result) == ["loaded"] * 3
    with Store(store) as opened:
        created = [e["resource_name"] for e in events_of(opened) if e["trace_name"] == "createUserNamespace"]
    assert created == ["org0", "org1"]


def test_an_organization_belongs_to_one_account(tmp_path: Path, store: Path) -> None:
    path = archive(tmp_path / "b.tar", "b", f"{TEAM}/app:v2")
    result = import_archives([path], store, account="rival")
    assert (statuses(result), codes(result)) == (["rejected"], ["organization-taken"])
    (row,) = result.issues
    assert "denied: you do not have the permission" in row.message and row.swr_code == "SVCSTG.SWR.4090060"
    assert codes(import_archives([path], store, user="anybody")) == ["permission-denied"]
    granted(store, "team", "anybody", Level.EDIT)
    assert statuses(import_archives([path], store, user="anybody")) == ["loaded"]


def test_organizations_are_not_created_when_that_is_forbidden(tmp_path: Path, store: Path) -> None:
    paths = [archive(tmp_path / "b.tar", "b", f"{HOST}/new/app:v1"), archive(tmp_path / "c.tar", "c", f"{TEAM}/new:v1")]
    result = import_archives(paths, store, create_org=False)
    assert (statuses(result), codes(result)) == (["rejected", "loaded"], ["organization-missing"])


@pytest.mark.parametrize(
    ("mode", "status", "code"), [("overwrite", "overwritten", 0), ("skip", "skipped", 0), ("fail", "rejected", 1)]
)
def test_conflicts(tmp_path: Path, store: Path, mode: str, status: str, code: int) -> None:
    before = check_sound(store)
    path = archive(tmp_path / "b.tar", "b")
    checked = check_archives([path], store=Store(store), on_conflict=mode)
    assert checked.exit_code == code
    result = import_archives([path], store, on_conflict=mode)
    (row,) = result.images
    assert (row.status, row.previous_digest, int(result.exit_code)) == (status, before["team/app:v1"], code)
    assert codes(result) == (["tag-exists"] if mode == "fail" else [])
    assert (check_sound(store) == before) == (mode != "overwrite")
    # The same image is no conflict.
    assert statuses(import_archives([tmp_path / "a.tar"], tmp_path / "store", on_conflict=mode)) == (
        ["overwritten"] if mode == "overwrite" else ["unchanged"]
    )


def test_what_is_skipped_leaves_nothing(tmp_path: Path, store: Path) -> None:
    """No blob of it, and nothing in the report or the events that pairs its content with the tag that it was not given."""
    blobs = set(store.rglob("data"))
    path = archive(tmp_path / "b.tar", "b")
    result = import_archives([path], store, on_conflict="skip")
    assert set(store.rglob("data")) == blobs and result.run.bytes_stored == 0
    (row,) = result.images
    assert (row.manifest_digest, row.media_type, row.stored_bytes, row.reused_bytes) == (None, None, None, None)
    assert [(layer.in_store, layer.reused) for layer in result.layers] == [(False, False)] * row.layers
    (event,) = result.events
    request, response = json.loads(event.request), json.loads(event.response)
    assert request["image_id"] == row.image_id
    before = row.previous_digest
    assert response == {"result": "skipped", "digest": before, "previous_digest": before, "image_id": None}
    # Nor does it lead a later import to a blob that is not there.
    assert statuses(import_archives([path], store)) == ["overwritten"]
    check_sound(store)


def test_one_of_two_names_is_skipped(tmp_path: Path, store: Path) -> None:
    path = archive(tmp_path / "b.tar", "b", f"{TEAM}/app:v1", f"{TEAM}/app:v2")
    result = import_archives([path], store, on_conflict="skip")
    assert [(row.status, row.manifest_digest is None) for row in result.images] == [("skipped", True), ("loaded", False)]
    assert all(layer.in_store for layer in result.layers)
    check_sound(store)


def test_a_layer_of_a_skipped_image_in_a_loaded_one(tmp_path: Path, store: Path) -> None:
    """One layer in two forms: that of the image that is skipped counts for nobody."""
    skipped = archive(tmp_path / "b.tar", "b", form=crane)
    loaded = archive(tmp_path / "c.tar", "b", f"{TEAM}/other:v1")
    result = import_archives([skipped, loaded], store, on_conflict="skip", jobs=1)
    assert statuses(result) == ["skipped", "loaded"]
    check_sound(store)
    assert statuses(import_archives([loaded], tmp_path / "alone")) == ["loaded"]
    alone = check_sound(tmp_path / "alone")
    assert check_sound(store)["team/other:v1"] == alone["team/other:v1"]


def test_a_tag_that_goes_while_an_image_is_skipped_for_it(tmp_path: Path, store: Path) -> None:
    with Store(store) as opened:
        publish = opened.layout.publish

        def remove(blobs: Any) -> None:
            with Store(store) as other, other.deleting(other.actor(None, None)) as act:
                delete_tag(act, "team/app", "v1")
            opened.layout.publish = publish  # type: ignore[method-assign]
            publish(blobs)

        opened.layout.publish = remove  # type: ignore[method-assign]
        result = import_archives([archive(tmp_path / "b.tar", "b")], opened, on_conflict="skip")
    assert statuses(result) == ["loaded"]
    assert list(check_sound(store)) == ["team/app:v1"]


@pytest.mark.parametrize("mode", ["check", "import"])
def test_a_file_that_is_no_archive_counts_as_read(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"x" * 4000)
    result = check_archives([path]) if mode == "check" else import_archives([path], tmp_path / "store")
    assert (result.archives[0].bytes, result.run.bytes_in) == (4000, 4000)
    assert check_archives([tmp_path / "none.tar"]).archives[0].bytes is None


def test_one_refused_name_refuses_the_image(tmp_path: Path, store: Path) -> None:
    """An image loads whole or not at all: not under one of its names either."""
    path = archive(tmp_path / "b.tar", "b", f"{TEAM}/new:v1", f"{TEAM}/app:v1")
    result = import_archives([path], store, on_conflict="fail")
    assert statuses(result) == ["rejected", "rejected"] and codes(result) == ["tag-exists"]
    assert list(check_sound(store)) == ["team/app:v1"]


def test_an_organization_that_appears_while_a_refused_image_is_read(tmp_path: Path) -> None:
    """What the store's rules refuse is not staged; should they allow it a moment later, no half image may come of that."""
    store, done = tmp_path / "store", []
    init(store, org_quota=1)
    mine = archive(tmp_path / "mine.tar", "mine", f"{HOST}/own/app:v1")
    theirs = archive(tmp_path / "theirs.tar", "theirs", f"{HOST}/theirs/app:v1")
    late = archive(tmp_path / "late.tar", "late", f"{HOST}/theirs/app:v2", form=crane)
    assert statuses(import_archives([mine], store, user="ann")) == ["loaded"]

    def hook(name: str) -> None:
        if name.startswith("blob:"):
            faults.hook = None
            done.append(int(import_archives([theirs], store, user="bob").exit_code))

    with Store(store) as opened:
        faults.hook = hook
        try:
            result = import_archives([late], opened, user="ann", jobs=1)
        finally:
            faults.hook = None
    assert done == [0] and statuses(result) in (["rejected"], ["loaded"])
    check_sound(store)


# --- events ------------------------------------------------------------------------------------------------------------


def test_events_of_a_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CI_JOB_URL", "CI_JOB_ID", "BUILD_URL", "BUILD_TAG", "GITHUB_RUN_ID"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("BUILD_TAG", "jenkins-7")
    path = archive(tmp_path / "a.tar", "a", f"{TEAM}/app:v1", f"{TEAM}/app:v2", f"{TEAM}/tool:v1")
    with Store(tmp_path / "store", create=True) as store:
        result = import_archives([path], store, user="ann", account="acme")
        events = events_of(store)
        rows = rows_of(store)
    assert [(event["trace_name"], event["resource_type"], event["resource_name"]) for event in events] == [
        ("createUserNamespace", "usernamespace", "team"),
        ("createImageRepository", "imagerepository", "team/app"),
        ("uploadImagePackage", "image", "team/app:v1"),
        ("uploadImagePackage", "image", "team/app:v2"),
        ("createImageRepository", "imagerepository", "team/tool"),
        ("uploadImagePackage", "image", "team/tool:v1"),
    ]
    assert len({event["trace_id"] for event in events}) == 6
    for event in events:
        assert event["trace_name"] in catalog() and catalog()[event["trace_name"]].resource_type == event["resource_type"]
        fixed = ("code", "event_type", "service_type", "trace_rating", "trace_type", "tracker_name", "read_only")
        assert [event[name] for name in fixed] == ["200", "system", "SWR", "normal", "Others", "swrbatch", False]
        assert event["user"] == {"domain": {"name": "acme"}, "name": "ann"}
        origin = {"ci_job": "jenkins-7", "host": socket.gethostname(), "login": current_actor("x", None).login}
        assert event["origin"] == {**origin, "run_id": result.run.run_id}
        assert result.run.started <= event["time"] <= event["record_time"] <= result.run.ended
    upload, response = json.loads(events[2]["request"]), json.loads(events[2]["response"])
    image_id = result.images[0].image_id
    asked = {"archive": str(path), "image_index": 0, "image_id": image_id}
    assert upload == asked | {"original": f"{TEAM}/app:v1", "reference": f"{TEAM}/app:v1"}
    digest = rows["team/app:v1"]
    assert response == {"result": "loaded", "previous_digest": None, "digest": digest, "image_id": result.images[0].image_id}
    assert events[2]["resource_id"] == digest
    # The report's rows are the same events.
    assert [(row.seq, row.trace_id, row.hash) for row in result.events][-1][:2] == (6, events[5]["trace_id"])
    assert [row.trace_name for row in result.events] == [event["trace_name"] for event in events]


def test_every_attempt_is_an_event(tmp_path: Path, store: Path) -> None:
    """Unchanged, overwritten, skipped, rejected by the store, rejected by name, no image at all: each leaves one."""
    b = archive(tmp_path / "b.tar", "b")
    garbage = write(tmp_path / "garbage.tar", b"no tar at all, just some text\n" * 40)
    unnamed = write(tmp_path / "unnamed.tar", docker_legacy(replace(image_with("c"), tags=())))
    runs = [
        import_archives([tmp_path / "a.tar"], store),
        import_archives([b], store, on_conflict="skip"),
        import_archives([b], store, on_conflict="fail"),
        import_archives([b], store),
        import_archives([garbage, unnamed], store),
    ]
    seen = [(e.resource_name, e.trace_rating, json.loads(e.response)["result"], e.code) for run in runs for e in run.events]
    assert seen == [
        ("team/app:v1", "normal", "unchanged", "200"),
        ("team/app:v1", "normal", "skipped", "200"),
        ("team/app:v1", "warning", "rejected", "400"),
        ("team/app:v1", "normal", "overwritten", "200"),
        ("garbage.tar", "warning", "rejected", "400"),
        ("unnamed.tar", "warning", "rejected", "400"),
    ]
    assert {event.trace_name for run in runs for event in run.events} == {"uploadImagePackage"}
    refused = [json.loads(event.response)["codes"] for run in runs for event in run.events if event.trace_rating == "warning"]
    assert refused == [["tag-exists"], ["not-a-tar"], ["repotags-empty"]]
    before, after = (json.loads(run.events[0].response) for run in (runs[2], runs[3]))
    assert before["previous_digest"] == after["previous_digest"] != after["digest"]
    assert list(check_sound(store)) == ["team/app:v1"]


def test_a_check_leaves_no_event(tmp_path: Path, store: Path) -> None:
    before = (store / "ledger.db").read_bytes()
    with Store(store) as opened:
        result = check_archives([archive(tmp_path / "b.tar", "b", f"{HOST}/new/app:v9")], store=opened)
    assert (statuses(result), result.events) == (["valid"], ())
    assert (store / "ledger.db").read_bytes() == before
    assert list(check_sound(store)) == ["team/app:v1"] and temporaries(store) == []


_TAMPERINGS: Final[Mapping[str, tuple[str, int]]] = {
    "a text": ("UPDATE events SET text = replace(text, 'root', 'toor') WHERE seq = 2", 2),
    "a hash": ("UPDATE events SET hash = 'x' || substr(hash, 2) WHERE seq = 3", 3),
    "a hash of before": ("UPDATE events SET previous_hash = hash WHERE seq = 1", 1),
    "a number": ("UPDATE events SET seq = 9 WHERE seq = 3", 3),
    "an event in the middle is gone": ("DELETE FROM events WHERE seq = 2", 2),
    "the first event is gone": ("DELETE FROM events WHERE seq = 1", 1),
    "a trace_name beside the text": ("UPDATE events SET trace_name = 'createUserNamespace' WHERE seq = 3", 3),
    "a run_id beside the text": ("UPDATE events SET run_id = 'x' WHERE seq = 2", 2),
    "a record_time beside the text": ("UPDATE events SET record_time = record_time + 1 WHERE seq = 2", 2),
}


@pytest.mark.parametrize("what", _TAMPERINGS)
def test_tampering_with_the_chain_is_found(store: Path, what: str) -> None:
    statement, seq = _TAMPERINGS[what]
    with ledger_of(store) as ledger:
        assert ledger.execute("SELECT count(*) FROM events").fetchone() == (3,)
        # As root sees to it that there is a `root` to replace, whoever runs the tests.
        statement = statement.replace("'root'", f"'{current_actor('x', None).login}'")
        assert ledger.execute(statement).rowcount == 1
    with Store(store) as opened:
        found = verify_store(opened)
    assert not found.ok
    assert [each.code for each in found.issues] == ["chain-broken"]
    assert f"at sequence {seq}" in found.issues[0].message


def test_a_forged_chain_does_not_hide_a_changed_tag(tmp_path: Path, store: Path) -> None:
    """Whoever cuts the newest events off, or writes the chain anew, must also fit the tag table."""
    import_archives([archive(tmp_path / "b.tar", "b")], store)
    with ledger_of(store) as ledger:
        assert ledger.execute("DELETE FROM events WHERE seq = 4").rowcount == 1
    with Store(store) as opened:
        assert [each.code for each in verify_store(opened).issues] == ["replay-differs"]


# --- what is there is used again ---------------------------------------------------------------------------------------


def _blobs(store: Path) -> dict[str, tuple[int, int, int]]:
    """digest -> inode, size, mtime of each blob."""
    found = {}
    for data in (store / "docker/registry/v2/blobs/sha256").glob("*/*/data"):
        status = data.stat()
        found["sha256:" + data.parent.name] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found


@pytest.mark.parametrize("form", [docker_legacy, docker25, skopeo, crane, containerd])
@pytest.mark.parametrize("compression", ["auto", "zstd", "none"])
def test_a_known_layer_is_not_written_again(tmp_path: Path, form: Any, compression: str) -> None:
    store = tmp_path / "store"
    first = archive(tmp_path / "a.tar", "a", form=form)
    import_archives([first], store, compression=compression)
    before = _blobs(store)
    again = import_archives([first], store, compression=compression)
    assert statuses(again) == ["unchanged"] and all(layer.reused for layer in again.layers)
    assert again.run.bytes_stored == 0 and again.images[0].reused_bytes == sum(
        {r.digest: r.stored_bytes for r in again.layers}.values()
    )
    other = import_archives([archive(tmp_path / "b.tar", "b", f"{TEAM}/app:v2", form=form)], store, compression=compression)
    assert [layer.reused for layer in other.layers] == [True, True, False]
    after = _blobs(store)
    assert {digest: after[digest] for digest in before} == before
    assert len(after) == len(before) + 3
    check_sound(store)


def test_a_layer_is_known_whoever_brought_it(tmp_path: Path) -> None:
    """By what it holds: a layer that docker saved plain is that which crane compressed in its own way."""
    store = tmp_path / "store"
    first = import_archives([archive(tmp_path / "a.tar", "a", form=crane)], store)
    second = import_archives([archive(tmp_path / "b.tar", "a", f"{TEAM}/app:v2", form=docker_legacy)], store)
    assert all(layer.reused for layer in second.layers)
    assert second.images[0].manifest_digest == first.images[0].manifest_digest
    # ... but never inside of a manifest that is kept byte for byte: crane's layers are Python's gzip here, as containerd's are.
    other = Image(layers=tuple(replace(layer, tar=layer.tar + bytes(512)) for layer in HELLO), tags=(f"{TEAM}/kept:v1",))
    import_archives([write(tmp_path / "c.tar", docker_legacy(replace(other, tags=(f"{TEAM}/plain:v1",))))], store)
    kept = import_archives([write(tmp_path / "d.tar", containerd(other.stored("gzip")))], store)
    assert [layer.digest for layer in kept.layers] == [layer.digest for layer in other.stored("gzip").layers]
    check_sound(store)


def test_a_second_import_is_unchanged_whoever_came_between(tmp_path: Path) -> None:
    """An image with a kept manifest brings the same layers as other blobs: what was noted first stays."""
    store = tmp_path / "store"
    plain = archive(tmp_path / "a.tar", "a")
    kept = write(tmp_path / "b.tar", containerd(image_with("a", f"{TEAM}/kept:v1").stored("gzip")))
    for path in (plain, kept):
        assert statuses(import_archives([path], store)) == ["loaded"]
    for path in (plain, kept, plain):
        assert statuses(import_archives([path], store)) == ["unchanged"]
    assert len(check_sound(store)) == 2


def test_a_blob_that_is_gone_is_written_again(tmp_path: Path, store: Path) -> None:
    """The map says where a layer is; that is believed only after a look."""
    for digest in _blobs(store):
        data = store / f"docker/registry/v2/blobs/sha256/{digest[7:9]}/{digest[7:]}/data"
        content = data.read_bytes()
        data.unlink()
        with Store(store) as opened:
            assert "blob-missing" in [found.code for found in verify_store(opened).issues]
        assert statuses(import_archives([tmp_path / "a.tar"], store)) == ["unchanged"]
        assert data.read_bytes() == content
        data.write_bytes(content[:-1])  # one that has another size is not it, either
        assert statuses(import_archives([tmp_path / "a.tar"], store)) == ["unchanged"]
        assert data.read_bytes() == content
        check_sound(store)


@pytest.mark.parametrize("compression", ["auto", "zstd", "none"])
@pytest.mark.parametrize("producer", PRODUCERS)
def test_every_producer_alone_gives_a_sound_store(tmp_path: Path, producer: str, compression: str) -> None:
    path = write(tmp_path / "a.tar", PRODUCERS[producer](Image()))
    result = import_archives([path], tmp_path / "store", compression=compression, jobs=1)
    assert statuses(result) == ["loaded"], result.issues
    assert check_sound(tmp_path / "store") == {"team/hello:v1": result.images[0].manifest_digest}


def test_nothing_of_a_refused_image_is_stored(tmp_path: Path, store: Path) -> None:
    before = _blobs(store)
    bad = replace(image_with("b"), tags=(f"{HOST}/UPPER/app:v1",))
    assert import_archives([write(tmp_path / "b.tar", docker_legacy(bad))], store).exit_code == 1
    assert import_archives([archive(tmp_path / "c.tar", "c", "other.example.com/a/b:v1")], store).exit_code == 1
    assert _blobs(store) == before and temporaries(store) == []


# --- healing -----------------------------------------------------------------------------------------------------------


def _crash(archive: Path, store: Path, point: str, nth: int = 1) -> None:
    """Import, but die at the `nth` passage of `point`, counted on a copy of the store."""
    with contextlib.ExitStack() as stack:
        copy = store.with_name("copy")
        if store.exists():
            shutil.copytree(store, copy)
        stack.callback(shutil.rmtree, copy)
        names = points_of(lambda: import_archives([archive], copy, jobs=1))
    positions = [number for number, name in enumerate(names, 1) if name == point]
    assert at(positions[nth - 1], lambda: import_archives([archive], store, jobs=1)) == KILLED


def _push(store: Path, name: str, digest: str) -> None:
    """What a push into the served store does to a tag (its blobs are there already)."""
    repository, _, tag = name.rpartition(":")
    base = store / "docker/registry/v2/repositories" / repository / "_manifests"
    for link in (
        base / f"revisions/sha256/{digest[7:]}/link",
        base / f"tags/{tag}/index/sha256/{digest[7:]}/link",
        base / f"tags/{tag}/current/link",
    ):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.write_text(digest)


def _foreign_digest(tmp_path: Path, store: Path) -> str:
    """The digest of an image that is in the store under a name of its own, so that it can be pushed over another."""
    (row,) = import_archives([archive(tmp_path / "z.tar", "z", f"{TEAM}/zoo:v1")], store).images
    assert row.manifest_digest is not None
    return row.manifest_digest


def test_pending_links_are_written_by_the_next_open(tmp_path: Path) -> None:
    path, store = archive(tmp_path / "a.tar", "a"), tmp_path / "store"
    _crash(path, store, "link:create:before")
    assert files_of(store) == {}
    with Store(store) as opened:
        assert opened.foreign == []
        assert files_of(store) == rows_of(opened)
    check_sound(store)


def test_healing_never_overwrites_a_foreign_link(tmp_path: Path, store: Path) -> None:
    """Killed between commit and link; then somebody pushes over the tag; then the store is opened."""
    digest = _foreign_digest(tmp_path, store)
    for first in (True, False):
        name = "team/new:v1" if first else "team/app:v1"
        path = archive(tmp_path / "b.tar", "b", f"{HOST}/{name}")
        _crash(path, store, "link:create:before")
        _push(store, name, digest)
        with Store(store) as opened:
            assert opened.foreign == [(*name.split(":"), digest)]
            issues = verify_store(opened, deep=True).issues
            assert [(found.code, found.place) for found in issues] == [("foreign-overwrite", name)]
            assert verify_store(opened, repair=True).repaired == []
        assert files_of(store)[name] == digest
        with Store(store) as opened:  # told once, then it is verify's to tell
            assert opened.foreign == []
        (row,) = import_archives([path], store).images
        assert (row.status, row.previous_digest) == ("overwritten", digest)
        check_sound(store)


def test_a_load_over_a_foreign_link_is_healed_after_a_crash(tmp_path: Path, store: Path) -> None:
    """What the load saw, and committed to replace, is not kept: the event says so already."""
    digest = _foreign_digest(tmp_path, store)
    _push(store, "team/app:v1", digest)
    path = archive(tmp_path / "b.tar", "b")
    _crash(path, store, "link:create:before")
    assert files_of(store)["team/app:v1"] == digest
    rows = check_sound(store)
    assert files_of(store)["team/app:v1"] == rows["team/app:v1"] != digest
    with Store(store) as opened:
        assert json.loads(events_of(opened)[-1]["response"])["previous_digest"] == digest


def test_a_tag_that_was_deleted_from_the_registry_is_loaded_again(tmp_path: Path, store: Path) -> None:
    shutil.rmtree(store / "docker/registry/v2/repositories/team/app/_manifests/tags/v1")
    (row,) = import_archives([tmp_path / "a.tar"], store).images
    assert (row.status, row.previous_digest) == ("loaded", None)
    assert list(check_sound(store)) == ["team/app:v1"]


def test_a_store_with_a_damaged_pending_image_still_opens(tmp_path: Path) -> None:
    """Otherwise nobody could do what the message says: import its archive again."""
    path, store = archive(tmp_path / "a.tar", "a"), tmp_path / "store"
    _crash(path, store, "link:create:before")
    with ledger_of(store) as ledger:
        ((digest,),) = ledger.execute("SELECT digest FROM tags").fetchall()
    (store / f"docker/registry/v2/blobs/sha256/{digest[7:9]}/{digest[7:]}/data").unlink()
    with Store(store) as opened:
        assert [found.code for found in verify_store(opened).issues] == ["blob-missing"]
    assert import_archives([path], store).exit_code == 0
    check_sound(store)


# --- the ledger's file -------------------------------------------------------------------------------------------------


def _schema(path: Path) -> dict[str, Any]:
    engine = create_engine(f"sqlite:///{path}")
    found: dict[str, Any] = {}
    with engine.connect() as connection:
        look = inspect(connection)
        for table in look.get_table_names():
            if table == "alembic_version":
                continue
            columns = [
                (c["name"], str(c["type"]), c["nullable"], c.get("primary_key"), c["default"]) for c in look.get_columns(table)
            ]
            keys = [(k["constrained_columns"], k["referred_table"], k["referred_columns"]) for k in look.get_foreign_keys(table)]
            uniques = sorted(tuple(u["column_names"]) for u in look.get_unique_constraints(table))
            indexes = sorted((i["name"], tuple(i["column_names"]), i["unique"]) for i in look.get_indexes(table))
            found[table] = columns, sorted(map(str, keys)), uniques, indexes, look.get_pk_constraint(table)["constrained_columns"]
    engine.dispose()
    return found


def test_migrations_give_the_schema_that_the_code_knows(tmp_path: Path) -> None:
    """A new ledger is made in one step; the migrations, one after another, must come to the same."""
    Store(tmp_path / "store", create=True).close()
    config = Config()
    config.set_main_option("script_location", str(Path(swrbatch.ledger.__file__).parent / "migrations"))
    engine = create_engine(f"sqlite:///{tmp_path / 'migrated.db'}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()
    migrated = _schema(tmp_path / "migrated.db")
    assert migrated == _schema(tmp_path / "store/ledger.db")
    assert migrated.keys() == set(metadata.tables)


def test_the_newest_migration_is_the_one_that_the_code_knows(tmp_path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(swrbatch.ledger.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]
    Store(tmp_path / "store", create=True).close()
    with ledger_of(tmp_path / "store") as ledger:
        assert ledger.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]


def test_the_ledger_is_written_durably(store: Path) -> None:
    with Store(store) as opened, opened.ledger.write() as connection:
        pragmas = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_a_ledger_of_a_newer_program_is_refused(store: Path) -> None:
    before = check_sound(store)
    with ledger_of(store) as ledger:
        ledger.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match=r"has the version 9999, this program knows .*: use a newer swrbatch"):
        Store(store)
    with ledger_of(store) as ledger:
        ledger.execute("UPDATE alembic_version SET version_num = ?", (HEAD,))
    assert check_sound(store) == before


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda data: b"this is not a database at all\n" * 200,
            "file is not a database; it is no SQLite file: restore it from a backup",
        ),
        (lambda data: data[:100] + os.urandom(4000) + data[4100:], "failed: .*(malformed|not a database|disk image)"),
        (lambda data: data[: len(data) // 2 // 4096 * 4096], "failed: .*malformed.*restore it from a backup"),
    ],
    ids=["other content", "an overwritten page", "truncated"],
)
def test_a_damaged_ledger_is_a_store_error(store: Path, damage: Any, said: str) -> None:
    path = store / "ledger.db"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StoreError, match=said), Store(store) as opened:
        verify_store(opened)


def test_a_ledger_of_another_program_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with ledger_of(tmp_path / "store") as ledger:
        ledger.execute("CREATE TABLE events (x)")
    with pytest.raises(StoreError, match="table events already exists"):
        Store(tmp_path / "store")
    with ledger_of(tmp_path / "store") as ledger:
        assert ledger.execute("SELECT name FROM sqlite_master").fetchall() == [("events",)]


def test_a_ledger_that_is_a_folder_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "store/ledger.db").mkdir(parents=True)
    with pytest.raises(StoreError, match="unable to open database file"):
        Store(tmp_path / "store")


def _change(store: Store, statement: str, then: str | None) -> None:
    with store.ledger.write() as connection:
        connection.execute(text(statement))
        if then is None:
            raise ZeroDivisionError
        connection.execute(text(then))


def test_a_failed_transaction_leaves_nothing(store: Path) -> None:
    before = (store / "ledger.db").read_bytes()
    with Store(store) as opened:
        with pytest.raises(ZeroDivisionError):
            _change(opened, "DELETE FROM events", None)
        with pytest.raises(StoreError, match="no such table: elsewhere"):
            _change(opened, "DELETE FROM events", "DELETE FROM elsewhere")
    assert (store / "ledger.db").read_bytes() == before
    check_sound(store)


def test_unreadable_parts_are_store_errors(tmp_path: Path, store: Path) -> None:
    """No traceback when something in the store is not what it should be: here a link that is a folder."""
    link = store / "docker/registry/v2/repositories/team/app/_manifests/tags/v1/current/link"
    link.unlink()
    link.mkdir()
    with pytest.raises(StoreError, match=rf"a link cannot be put into the store \({link}\): Is a directory"):
        import_archives([tmp_path / "a.tar"], store)
    shutil.rmtree(store / "docker/registry/v2/blobs")
    (store / "docker/registry/v2/blobs").touch()
    with pytest.raises(StoreError, match="Not a directory"):
        import_archives([tmp_path / "a.tar"], store)


def test_errors_of_the_store_reach_the_shell_without_a_traceback(tmp_path: Path, store: Path) -> None:
    (tmp_path / "stranger").mkdir()
    write(tmp_path / "stranger/file", b"x")
    write(store / "ledger.db", b"no database " * 100)
    for path, said in (("stranger", "is no store"), ("store", "file is not a database")):
        argv = [sys.executable, "-m", "swrbatch", "verify", "--store", str(tmp_path / path)]
        done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert done.returncode == 3 and done.stdout == ""
        assert said in done.stderr and done.stderr.startswith("swrbatch: ") and "Traceback" not in done.stderr


# --- reading -----------------------------------------------------------------------------------------------------------


def test_images_and_data_frame(tmp_path: Path, store: Path) -> None:
    granted(store, "team", "ann", Level.EDIT)
    import_archives([archive(tmp_path / "b.tar", "b", f"{TEAM}/tool:v2")], store, user="ann", compression="zstd")
    with Store(store) as opened:
        rows, frame = opened.images(), opened.to_pandas()
    assert [row["reference"] for row in rows] == [f"{TEAM}/app:v1", f"{TEAM}/tool:v2"]
    row = rows[1]
    assert row["pull"] == f"docker pull {TEAM}/tool:v2"
    assert (row["account"], row["user"], row["os"], row["architecture"], row["layers"]) == ("default", "ann", "linux", "amd64", 3)
    assert row["image_id"] == image_with("b", f"{TEAM}/tool:v2").image_id
    assert row["uncompressed_bytes"] == sum(len(layer.tar) for layer in image_with("b").layers)
    assert list(frame["reference"]) == [row["reference"] for row in rows]
    assert str(frame["updated"].dtype) == "datetime64[ms, UTC]" and list(frame.columns) == list(row)
    with Store(tmp_path / "empty", create=True) as opened:
        assert opened.images() == [] and list(opened.to_pandas().columns) == list(row)


def test_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWRBATCH_USER", "eve")
    assert current_actor("acme", None).user == "eve" and current_actor("acme", "ann").user == "ann"
    for account, user in (("", "ann"), ("acme", "new\nline"), ("acme", "x" * 256)):
        with pytest.raises(UsageError, match="is not a name of 1 to 255 printable characters"):
            current_actor(account, user or "x")


def test_layer_notes_name_every_media_type_that_is_stored() -> None:
    assert {str(kind) for kind in OCI_LAYER_TYPES} == {"none", "gzip", "zstd"}


# --- a model -----------------------------------------------------------------------------------------------------------

_TAGS: Final = ("one", "two", "three")
_OPERATIONS = st.one_of(
    st.tuples(
        st.just("import"),
        st.lists(
            st.tuples(st.integers(0, 3), st.lists(st.sampled_from(_TAGS), min_size=1, max_size=3, unique=True)),
            min_size=1,
            max_size=4,
        ),
        st.sampled_from(("overwrite", "skip", "fail")),
        st.sampled_from((1, 3)),
    ),
    st.tuples(st.just("push"), st.sampled_from(_TAGS), st.integers(0, 3), st.just(0)),
    st.tuples(st.just("untag"), st.sampled_from(_TAGS), st.just(0), st.just(0)),
)


class _Model:
    """What a store must do, said with two dicts: what the ledger knows, and what the registry serves."""

    def __init__(self) -> None:
        self.ledger: dict[str, str] = {}
        self.served: dict[str, str] = {}

    def load(self, digest: str, tags: list[str], mode: str) -> list[str]:
        conflicts = [tag for tag in tags if self.served.get(tag, digest) != digest]
        if mode == "fail" and conflicts:
            return ["rejected"] * len(tags)
        return [self._load_one(digest, tag, mode) for tag in tags]

    def _load_one(self, digest: str, tag: str, mode: str) -> str:
        before = self.served.get(tag)
        if before == digest and self.ledger.get(tag) == digest:
            return "unchanged"
        if mode == "skip" and before not in (None, digest):
            return "skipped"
        self.ledger[tag] = self.served[tag] = digest
        return "loaded" if before in (None, digest) else "overwritten"


@pytest.fixture(scope="module")
def started() -> Iterator[tuple[Path, list[str]]]:
    """A store that has all four images under names of their own, so that any of them can be pushed; and their digests."""
    with in_memory() as folder:
        digests = []
        for number in range(4):
            (row,) = import_archives(
                [archive(folder / f"{number}.tar", number, f"{TEAM}/kept:v{number}")], folder / "base"
            ).images
            digests.append(str(row.manifest_digest))
        yield folder, digests


# Without shrinking: it takes minutes where each try makes a store.
@settings(
    max_examples=25,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
@given(operations=st.lists(_OPERATIONS, min_size=1, max_size=6))
def test_any_sequence_of_imports_and_pushes_is_that_of_the_model(
    started: tuple[Path, list[str]], operations: list[tuple[Any, ...]]
) -> None:
    folder, digests = started
    model = _Model()
    with in_memory() as work:
        store = work / "store"
        shutil.copytree(folder / "base", store)
        for what, first, second, third in operations:
            if what == "import":
                paths = [
                    archive(work / f"{n}.tar", number, *(f"{TEAM}/app:{tag}" for tag in names))
                    for n, (number, names) in enumerate(first)
                ]
                # With `fail` a name that stands for two images in one run is refused in itself; one archive a run, then.
                for piece in [[path] for path in paths] if second == "fail" else [paths]:
                    result = import_archives(piece, store, on_conflict=second, jobs=third)
                    wanted = [
                        model.load(digests[n], names, second)
                        for path, (n, names) in zip(paths, first, strict=True)
                        if path in piece
                    ]
                    assert statuses(result) == [status for each in wanted for status in each]
            elif what == "push":
                _push(store, f"team/app:{first}", digests[second])
                layers = store / "docker/registry/v2/repositories/team/kept/_layers"
                shutil.copytree(layers, store / "docker/registry/v2/repositories/team/app/_layers", dirs_exist_ok=True)
                model.served[first] = digests[second]
            else:
                shutil.rmtree(store / f"docker/registry/v2/repositories/team/app/_manifests/tags/{first}", ignore_errors=True)
                model.served.pop(first, None)
            _compare(store, model)


def _compare(path: Path, model: _Model) -> None:
    named = {f"team/app:{tag}": digest for tag, digest in model.served.items()}
    files = files_of(path)
    assert {name: digest for name, digest in files.items() if "/app:" in name} == named
    for name, digest in named.items():
        check_links(path, name, digest)
    with Store(path) as store:
        rows = {name: digest for name, digest in rows_of(store).items() if "/app:" in name}
        assert rows == {f"team/app:{tag}": digest for tag, digest in model.ledger.items()}
        found = {(issue.code, issue.place) for issue in verify_store(store, deep=True).issues if issue.code != "link-missing"}
    want = {("foreign-tag", f"team/app:{tag}") for tag in model.served.keys() - model.ledger.keys()}
    want |= {
        ("foreign-overwrite", f"team/app:{tag}")
        for tag, digest in model.served.items()
        if model.ledger.get(tag, digest) != digest
    }
    assert found == want


def test_digests_are_those_of_the_bytes(store: Path) -> None:
    for digest in _blobs(store):
        data = store / f"docker/registry/v2/blobs/sha256/{digest[7:9]}/{digest[7:]}/data"
        assert str(Digest.of(data.read_bytes())) == digest


# --- blobs on their way to the disk ------------------------------------------------------------------------------------


def _file_systems(tmp_path: Path) -> list[Path]:
    """Where files are written: the disk of the tests, and memory, which has no page cache to go past."""
    return [tmp_path, *([Path("/dev/shm")] if os.access("/dev/shm", os.W_OK) else [])]


@pytest.mark.parametrize(
    "pieces", [(), (1,), (BLOCK - 1,), (BLOCK,), (BLOCK, 1), (1, BLOCK), (BLOCK // 2,) * 5, (3 * BLOCK + 4097, 7)]
)
def test_a_blob_is_what_was_written(pieces: tuple[int, ...], tmp_path: Path) -> None:
    content = random.Random(len(pieces)).randbytes(sum(pieces))
    for folder in _file_systems(tmp_path):
        path = folder / f"swrbatch-blob-{os.getpid()}"
        with BlobWriter(str(path)) as writer:
            for start, size in zip(itertools.accumulate((0, *pieces)), pieces, strict=False):
                writer.write(content[start : start + size])
            staged = writer.done(Digest.of(content))
        written = path.read_bytes()
        path.unlink()
        assert written == content
        assert (staged.path, staged.digest, staged.size) == (str(path), Digest.of(content), len(content))


def test_a_file_system_that_cannot_write_past_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses the flag, or takes it and then refuses to write."""
    content = random.Random(1).randbytes(2 * BLOCK + 5)
    write, asked = os.write, []

    def picky(fd: int, data: bytes | memoryview) -> int:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            asked.append(len(data))
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return write(fd, data)

    def refuse(fd: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETFL and argument & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return int(real(fd, command, argument))

    real = fcntl.fcntl
    for number, (target, name, replacement) in enumerate([(os, "write", picky), (fcntl, "fcntl", refuse)]):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, replacement)
            with BlobWriter(str(tmp_path / str(number))) as writer:
                writer.write(content)
                writer.done(Digest.of(content))
        assert (tmp_path / str(number)).read_bytes() == content
    assert asked in ([], [BLOCK])  # asked once: [] where the disk of the tests refuses the flag itself


def test_a_blob_that_cannot_be_written_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def blob(size: int) -> None:
        with BlobWriter(str(tmp_path / "blob")) as writer:
            writer.write(bytes(size))
            writer.done(Digest.of(bytes(size)))

    monkeypatch.setattr(os, "write", full)
    for size in (5, BLOCK, 2 * BLOCK):
        with pytest.raises(StoreError, match=r"a layer cannot be written.*free some space"):
            blob(size)
        assert list(tmp_path.iterdir()) == []
