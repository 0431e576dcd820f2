"""Triggers: what a load sets off, and what becomes of it in the manifests; the guide's example of chapter 4.7 from end to end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from imagetar import HELLO, Image, Layer, docker_legacy
from swrbatch import Store, UsageError, import_archives
from swrbatch.actors import DEFAULT_ACCOUNT, current_actor
from swrbatch.errors import Refused
from swrbatch.ledger.acting import acting, reading
from swrbatch.ledger.deletions import delete_repository
from swrbatch.ledger.triggers import Terms, add_trigger, edit_trigger, list_triggers, remove_trigger, trigger_history
from swrbatch.sync import sync_stores
from swrbatch.triggers import TriggerRun, run_triggers
from test_audit_export import cli
from test_crash import KILLED, at, check_sound, events_of, fast_path, points_of, write
from test_workloads import DEPLOYMENT, HOST, NGINX, STATEFULSET

__all__ = ["fast_path"]
PATH = "team/nginx"
ME = current_actor(DEFAULT_ACCOUNT, None)


def image(folder: Path, tag: str, path: str = PATH) -> Path:
    """An archive of nginx at a tag, with a welcome page of its own."""
    page = Layer.of({"usr/share/nginx/html/index.html": f"Hello, {tag}!".encode()})
    data = docker_legacy(Image(layers=(HELLO[0], page), tags=(f"{HOST}/{path}:{tag}",)))
    return write(folder / f"{path.replace('/', '-')}-{tag}.tar", data)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with nginx at v1, and a folder of manifests that use it."""
    assert import_archives([image(tmp_path, "v1")], tmp_path / "store").exit_code == 0
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "nginx.yaml").write_text(DEPLOYMENT)
    (tmp_path / "manifests" / "db.yaml").write_text(STATEFULSET)
    return tmp_path / "store"


def add(store: Path, name: str = "All_tags", path: str = PATH, **terms: Any) -> str:
    with Store(store) as opened, acting(opened.ledger, ME) as act:
        return add_trigger(act, path, name, Terms(**{"application": "nginx", **terms})).status


def load(store: Path, *tags: str) -> None:
    assert import_archives([image(store.parent, tag) for tag in tags], store).exit_code == 0


def fire(store: Path, **options: Any) -> list[TriggerRun]:
    with Store(store) as opened:
        return run_triggers(opened, store.parent / "manifests", actor=ME, **options)


def history(store: Path, name: str | None = None) -> list[dict[str, Any]]:
    with Store(store) as opened, reading(opened.ledger, ME) as act:
        return trigger_history(act, PATH, name, limit=1000)


def manifest(store: Path) -> str:
    return (store.parent / "manifests" / "nginx.yaml").read_text()


def swrbatch(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "swrbatch", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)})


# --- the guide's example -------------------------------------------------------------------------------------------------


def test_the_example_of_the_guide(store: Path, tmp_path: Path) -> None:
    """nginx v1 runs; a trigger All_tags; v2 comes; the workload has v2, the history says success. Then it fails, and says why."""
    done = swrbatch("trigger", "add", PATH, "All_tags", "--application", "nginx", "--store", store, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("created trigger team/nginx:All_tags"), done.stderr
    done = swrbatch("import", image(tmp_path, "v2"), "--store", store, "--manifests", "manifests", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "trigger All_tags team/nginx:v2: nginx.yaml"
    assert manifest(store) == DEPLOYMENT.replace("nginx:v1", "nginx:v2")
    (run,) = history(store)
    assert (run["trigger"], run["tag"], run["state"], run["files"]) == ("All_tags", "v2", "success", ["nginx.yaml"])
    assert run["digest"] == check_sound(store)["team/nginx:v2"]

    os.chmod(tmp_path / "manifests" / "nginx.yaml", 0o444)
    os.chmod(tmp_path / "manifests", 0o555)
    try:
        done = swrbatch("import", image(tmp_path, "v3"), "--store", store, "--manifests", "manifests", cwd=tmp_path)
    finally:
        os.chmod(tmp_path / "manifests", 0o755)
    assert done.returncode == 0, "a failing trigger does not fail the load"
    failed = history(store)[0]
    assert (failed["tag"], failed["state"], failed["files"]) == ("v3", "failed", [])
    assert "nginx.yaml is read-only" in failed["error"] and failed["error"] in done.stdout
    assert "nginx:v2" in manifest(store) and "team/nginx:v3" in check_sound(store)
    out = swrbatch("trigger", "history", PATH, "--store", store, cwd=tmp_path).stdout
    assert [line.split()[5] for line in out.splitlines()[1:]] == ["failed", "success"]


# --- which loads set off which triggers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "tags"),
    [
        ({}, ["v2", "v3", "rc-1"]),
        ({"trigger_type": "tag", "condition": "v3"}, ["v3"]),
        ({"trigger_type": "regular", "condition": "v*"}, ["v2", "v3"]),
        ({"trigger_type": "regular", "condition": "{rc-?,v2}"}, ["v2", "rc-1"]),
        ({"enabled": False}, []),
    ],
)
def test_conditions(terms: dict[str, Any], tags: list[str], store: Path) -> None:
    assert add(store, **terms) == "created"
    load(store, "v2", "v3", "rc-1")
    assert [run["tag"] for run in reversed(history(store))] == tags
    assert {run["state"] for run in history(store)} <= {"pending"}


def test_only_what_makes_or_changes_a_tag_sets_off(store: Path, tmp_path: Path) -> None:
    add(store)
    import_archives([image(tmp_path, "v1")], store)  # unchanged
    import_archives([image(tmp_path, "v1", "team/other")], store)  # another repository
    import_archives([write(tmp_path / "bad.tar", b"no archive")], store)
    assert history(store) == []
    data = docker_legacy(Image(layers=(HELLO[0],), tags=(f"{HOST}/{PATH}:v1",)))
    import_archives([write(tmp_path / "new.tar", data)], store)  # overwritten
    assert [run["tag"] for run in history(store)] == ["v1"]


def test_a_sync_sets_off_too(store: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    import_archives([image(tmp_path, "v0")], target)
    add(target)
    with Store(store) as source, Store(target) as opened:
        sync_stores(source, opened, ME)
    assert [run["tag"] for run in history(target)] == ["v1"]


def test_runs_are_done_in_the_order_of_the_loads_and_once(store: Path) -> None:
    add(store, "b")
    add(store, "a", trigger_type="tag", condition="v3")
    load(store, "v3", "v2")
    done = fire(store)
    assert [(run.trigger, run.name, run.files) for run in done] == [
        ("a", "team/nginx:v3", ("nginx.yaml",)),
        ("b", "team/nginx:v3", ()),
        ("b", "team/nginx:v2", ("nginx.yaml",)),
    ]
    assert "nginx:v2" in manifest(store), "the last load's"
    assert fire(store) == [] and len(history(store)) == 3


def test_a_failure_holds_up_nothing(store: Path) -> None:
    add(store, "a", application="gone")
    add(store, "b", container=("nobody",))
    add(store, "c")
    load(store, "v2")
    a, b, c = fire(store)
    assert "there is no Deployment default/gone" in a.error and "no container nobody" in b.error and not c.error
    assert [run["state"] for run in reversed(history(store))] == ["failed", "failed", "success"]
    with Store(store) as opened:
        told = [event for event in events_of(opened) if event["trace_name"] == "runTrigger"]
    assert [event["trace_rating"] for event in told] == ["warning", "warning", "normal"]
    assert json.loads(told[2]["response"])["images"] == [
        {"file": "nginx.yaml", "container": "web", "before": f"{HOST}/team/nginx:v1", "after": f"{HOST}/team/nginx:v2"}
    ]


def test_patches_instead(store: Path) -> None:
    add(store, "all")
    add(store, "db", application="db", app_type="statefulsets", cluster_ns="prod", container=("side",))
    load(store, "v2")
    before = manifest(store)
    done = fire(store, patch_only=True)
    assert [run.files for run in done] == [
        ("deployment.default.nginx.image-patch.yaml",),
        ("statefulset.prod.db.image-patch.yaml",),
    ]
    assert manifest(store) == before
    assert f"{HOST}/team/nginx:v2" in (store.parent / "manifests" / done[0].files[0]).read_text()


def test_killed_at_every_write_boundary(fast_path: Path) -> None:
    """Between the load's commit and the end of the run: the run is done by the next, and recorded once."""
    assert import_archives([image(fast_path, "v1")], fast_path / "store").exit_code == 0
    (fast_path / "manifests").mkdir()
    (fast_path / "manifests" / "nginx.yaml").write_text(DEPLOYMENT)
    add(fast_path / "store")
    archive = image(fast_path, "v2")

    def work(room: Path) -> None:
        import_archives([archive], room / "store")
        fire(room / "store")

    def room(name: str) -> Path:
        made = fast_path / name
        for folder in ("store", "manifests"):
            shutil.copytree(fast_path / folder, made / folder)
        return made

    points = points_of(lambda: work(room("whole")))
    assert len(points) > 40
    for number in range(1, len(points) + 1):
        here = room(str(number))
        assert at(number, lambda here=here: work(here)) == KILLED, points[number - 1]  # type: ignore[misc]
        work(here)
        assert manifest(here / "store") == DEPLOYMENT.replace("nginx:v1", "nginx:v2"), points[number - 1]
        (run,) = history(here / "store")
        assert run["state"] == "success"
        with Store(here / "store") as opened:
            assert [event["trace_name"] for event in events_of(opened)].count("runTrigger") == 1
        check_sound(here / "store")
        shutil.rmtree(here)


# --- the acts --------------------------------------------------------------------------------------------------------------


def act(store: Path, what: Any, *arguments: Any, user: str | None = None) -> Any:
    with Store(store) as opened, acting(opened.ledger, current_actor(DEFAULT_ACCOUNT, user)) as made:
        return what(made, PATH, *arguments)


def test_acts_and_their_events(store: Path) -> None:
    assert add(store, container=("web",)) == "created" and add(store, container=("web",)) == "unchanged"
    with pytest.raises(Refused, match="has a trigger All_tags already"):
        add(store, container=("log",))
    assert (
        act(store, edit_trigger, "All_tags", {"trigger_type": "regular", "condition": "v*", "container": ()}).status == "updated"
    )
    assert act(store, edit_trigger, "All_tags", {"condition": "v*"}).status == "unchanged"
    changed = act(store, edit_trigger, "All_tags", {"trigger_type": "all"})
    assert (changed.before["condition"], changed.after["condition"], changed.after["container"]) == ("v*", ".*", [])
    assert (
        act(store, remove_trigger, "All_tags").status == "deleted"
        and act(store, remove_trigger, "All_tags").status == "unchanged"
    )
    with Store(store) as opened:
        told = [event for event in events_of(opened) if "Trigger" in event["trace_name"]]
    names = [(event["trace_name"], event["trace_rating"]) for event in told]
    assert names == [
        ("createTrigger", "normal"),
        ("createTrigger", "warning"),
        ("updateTrigger", "normal"),
        ("updateTrigger", "normal"),
        ("deleteTrigger", "normal"),
    ]
    response = json.loads(told[2]["response"])
    assert (response["before"]["trigger_type"], response["after"]["trigger_type"]) == ("all", "regular")


@pytest.mark.parametrize(
    ("name", "right"),
    [("a" * 64, True), ("a" * 65, False), ("a_b-c", True), ("a__b", False), ("a_-b", False), ("a-", False), ("1a", False)],
)
def test_names(name: str, right: bool, store: Path) -> None:
    if right:
        assert add(store, name) == "created"
    else:
        with pytest.raises(Refused, match="the trigger name"):
            add(store, name)


def test_what_cannot_be(store: Path) -> None:
    for terms in (
        {"trigger_type": "tag", "condition": "a b"},
        {"trigger_type": "regular", "condition": "{a"},
        {"condition": "v1"},
    ):
        with pytest.raises(Refused, match="the trigger cannot be set"):
            add(store, **terms)
    for terms in ({"application": "No Name"}, {"container": ("A",)}, {"app_type": "jobs"}, {"trigger_mode": "x"}):
        with pytest.raises(UsageError):
            add(store, **terms)
    with pytest.raises(Refused, match="has no trigger gone"):
        history(store, "gone")
    with pytest.raises(Refused, match="has no trigger gone"):
        act(store, edit_trigger, "gone", {"enabled": False})


def test_rights(store: Path) -> None:
    """edit is needed; who may only read may look."""
    add(store)
    assert cli("grant", "set", "--store", store, "--org", "team", "--to", "reader", "--level", "read")[0] == 0
    assert cli("grant", "set", "--store", store, "--repo", PATH, "--to", "editor", "--level", "edit")[0] == 0
    common = (PATH, "--store", store, "--user")
    for user, code in (("nobody", 1), ("reader", 0), ("editor", 0)):
        assert cli("trigger", "list", *common, user)[0] == code and cli("trigger", "history", *common, user)[0] == code
    for user, code in (("nobody", 1), ("reader", 1), ("editor", 0)):
        for words in (("add", PATH, "t", "--application", "x"), ("edit", PATH, "t", "--disable"), ("remove", PATH, "t")):
            done = cli("trigger", *words, "--store", store, "--user", user)
            assert done[0] == code and (not code or "permission-denied" in done[2])


def test_runs_wait_for_somebody_who_may_edit(store: Path, tmp_path: Path) -> None:
    """Nobody without a right uses them up, or learns of them."""
    add(store)
    load(store, "v2")
    junk = write(tmp_path / "junk.tar", b"no archive")
    code, out, _ = cli("import", junk, "--store", store, "--manifests", tmp_path / "manifests", "--user", "eve")
    assert code == 1 and "trigger" not in out and [run["state"] for run in history(store)] == ["pending"]
    assert "nginx:v1" in manifest(store)
    assert [run.files for run in fire(store)] == [("nginx.yaml",)]


def test_a_deleted_repository_takes_its_triggers_with_it(store: Path) -> None:
    add(store)
    load(store, "v2")
    with Store(store) as opened, opened.deleting(ME) as deleting:
        delete_repository(deleting, PATH)
    assert fire(store) == []
    load(store, "v1")
    assert history(store) == []


def test_lists_in_pages(store: Path) -> None:
    for number in range(5):
        add(store, f"t{number}")
    load(store, "v2")
    with Store(store) as opened, reading(opened.ledger, ME) as looking:
        names = [row["name"] for row in list_triggers(looking, PATH, limit=2, marker="t1")]
        assert names == ["t2", "t3"] and list_triggers(looking, PATH, limit=9)[0]["pending"] == 1
        ids = [row["id"] for row in trigger_history(looking, PATH, limit=9)]
        assert [row["id"] for row in trigger_history(looking, PATH, limit=2, marker=ids[1])] == ids[2:4]


def test_the_command(store: Path, tmp_path: Path) -> None:
    at_store = ("--store", store)
    code, out, _ = cli(
        "trigger", "add", PATH, "t", "--application", "nginx", "--type", "regular", "--condition", "v{1,2}", *at_store
    )
    assert code == 0 and "regular" in out
    code, out, _ = cli("trigger", "list", PATH, *at_store)
    assert code == 0 and "v{1,2}" in out.splitlines()[1]
    assert cli("trigger", "edit", PATH, "t", *at_store)[0] == 2
    code, out, _ = cli("trigger", "edit", PATH, "t", "--container", "web", "--dry-run", *at_store)
    assert code == 0 and out.startswith("would be updated trigger")
    assert cli("import", image(tmp_path, "v2"), *at_store, "--patch-only")[0] == 2
    assert cli("import", image(tmp_path, "v2"), *at_store, "--manifests", tmp_path / "nowhere")[0] == 2
    code, out, _ = cli("import", image(tmp_path, "v2"), *at_store, "--manifests", tmp_path / "manifests", "--format", "json")
    (run,) = json.loads(out)["triggers"]
    assert code == 0 and (run["trigger"], run["workload"], run["files"]) == ("t", str(NGINX), ["nginx.yaml"])
    code, out, _ = cli("trigger", "history", PATH, "t", *at_store, "--format", "json")
    assert code == 0 and [row["state"] for row in json.loads(out)["rows"]] == ["success"]
    assert cli("trigger", "remove", PATH, "t", *at_store)[0] == 0
