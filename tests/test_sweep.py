"""Garbage collection: what nothing needs goes, what something needs stays, whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from conftest import Registry
from imagetar import HELLO, OCI_INDEX, Image, Layer, docker25, docker_legacy
from swrbatch import Store, StoreError, import_archives
from swrbatch.actors import DEFAULT_ACCOUNT, current_actor
from swrbatch.cts import Actor
from swrbatch.digest import Digest
from swrbatch.disk import locked
from swrbatch.errors import Refused
from swrbatch.ledger.deletions import delete_repository, delete_tag
from swrbatch.sweep import Garbage, collect_garbage
from swrbatch.verify import verify_store
from test_audit_export import cli
from test_crash import KILLED, at, check_sound, events_of, fast_path, points_of, rows_of, write
from test_interop import HOST, MANIFESTS, collected, run, swrbatch

__all__ = ["fast_path"]
OLD = Image(layers=(HELLO[0], Layer.of({"old": b"only the old one has it\n" * 500})), tags=(f"{HOST}/team/app:v1",))
NEW = Image(layers=(HELLO[0], Layer.of({"new": b"only the new one has it\n" * 500})), tags=(f"{HOST}/team/app:v1",))
OTHER = Image(layers=(HELLO[0],), tags=(f"{HOST}/team/tool:v1", f"{HOST}/team/tool:v2"))


def actor() -> Actor:
    return current_actor(DEFAULT_ACCOUNT, None)


def filled(folder: Path) -> Path:
    """A store with an image that was overwritten, one that shares a layer with it, and one with the manifest of its archive."""
    kept = Image(layers=(Layer.of({"kept": b"as it is\n" * 90}),), tags=(f"{HOST}/team/kept:v1",)).stored("gzip")
    images = {"old": docker_legacy(OLD), "new": docker_legacy(NEW), "other": docker_legacy(OTHER), "kept": docker25(kept)}
    for name, data in images.items():
        assert import_archives([write(folder / f"{name}.tar", data)], folder / "store").exit_code == 0
    return folder / "store"


def sweep(store: Path, **options: Any) -> Garbage:
    with Store(store) as opened:
        return collect_garbage(opened, actor(), **{"min_age_ms": 0, **options})


def blobs_of(store: Path) -> set[str]:
    return {data.parent.name for data in (store / "docker").rglob("data")}


def tree(store: Path) -> set[str]:
    return {str(path.relative_to(store)) for path in (store / "docker").rglob("*") if path.is_file()}


def older(store: Path, seconds: float) -> None:
    """Make everything in a store older."""
    for path in (store / "docker").rglob("*"):
        then = path.stat().st_mtime - seconds
        os.utime(path, (then, then))


def push(store: Path, repository: str, tag: str, manifest: dict[str, Any], blobs: Sequence[bytes], *, tagged: bool = True) -> str:
    """What a push into the served store leaves: blobs, a revision, a tag."""
    raw = json.dumps(manifest).encode()
    base = store / "docker/registry/v2"
    for data in (*blobs, raw):
        digest = Digest.of(data)
        path = base / f"blobs/sha256/{digest.hex[:2]}/{digest.hex}/data"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    digest = Digest.of(raw)
    links = {f"_manifests/revisions/sha256/{digest.hex}/link": digest}
    links |= {f"_layers/sha256/{Digest.of(data).hex}/link": Digest.of(data) for data in blobs}
    if tagged:
        links |= {f"_manifests/tags/{tag}/{part}/link": digest for part in ("current", f"index/sha256/{digest.hex}")}
    for name, target in links.items():
        link = base / "repositories" / repository / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.write_text(str(target))
    return str(digest)


# --- what goes and what stays --------------------------------------------------------------------------------------------


def test_what_was_overwritten_goes(tmp_path: Path) -> None:
    store = filled(tmp_path)
    rows, before = check_sound(store), blobs_of(store)
    garbage = sweep(store)
    after = blobs_of(store)
    # Its manifest, its config, and the layer that it shares with nobody.
    assert len(garbage.blobs) == 3 and {digest.hex for digest, _ in garbage.blobs} == before - after
    assert garbage.size == sum(size for _, size in garbage.blobs) > 0
    assert [path for path, _ in garbage.revisions] == ["team/app"] and len(garbage.layer_links) == 2
    assert check_sound(store) == rows
    assert not sweep(store), "nothing is left to do"
    # Its layer is not believed to be there any more.
    assert import_archives([tmp_path / "old.tar"], store).exit_code == 0
    assert len(check_sound(store)) == len(rows)


def test_an_event_tells_of_it(tmp_path: Path) -> None:
    store = filled(tmp_path)
    garbage = sweep(store)
    sweep(store)
    with Store(store) as opened:
        told = [event for event in events_of(opened) if event["trace_name"] == "collectGarbage"]
    assert len(told) == 1, "a sweep without garbage changes nothing, and leaves no event"
    before = json.loads(told[0]["response"])["before"]
    assert before == {"blobs": 3, "bytes": garbage.size, "revisions": 1}


def test_a_dry_run_finds_the_same_and_changes_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path)
    before = tree(store)
    with Store(store) as opened:
        events = events_of(opened)
    expected = sweep(store, dry_run=True)
    with Store(store) as opened:
        assert (tree(store), events_of(opened)) == (before, events)
    assert sweep(store) == expected


def test_untagged_images_may_stay(tmp_path: Path) -> None:
    store = filled(tmp_path)
    assert not sweep(store, keep_untagged=True)
    check_sound(store)


def test_what_is_young_stays(tmp_path: Path) -> None:
    store = filled(tmp_path)
    held = sweep(store, min_age_ms=3_600_000)
    assert not held and held.spared == 3
    lonely = push(store, "team/app", "", {"config": {}}, [b"a layer that is being pushed"], tagged=False)
    older(store, 7200)
    young = push(store, "team/app", "", {"layers": []}, [b"a younger layer"], tagged=False)
    garbage = sweep(store, min_age_ms=3_600_000)
    assert lonely.removeprefix("sha256:") not in blobs_of(store) and young.removeprefix("sha256:") in blobs_of(store)
    # The younger layer is no part of the younger manifest: each is spared for its own age.
    assert (garbage.spared, garbage.spared_bytes) == (2, len(b"a younger layer") + len(b'{"layers": []}'))
    check_sound_files(store)


def check_sound_files(store: Path) -> None:
    """Sound, but for tags and revisions of others."""
    with Store(store) as opened:
        assert [found.message for found in verify_store(opened, deep=True).issues if found.is_error] == []


def test_what_was_deleted_goes(tmp_path: Path) -> None:
    store = filled(tmp_path)
    with Store(store) as opened:
        with opened.deleting(actor()) as act:
            delete_tag(act, "team/app", "v1")
        with opened.deleting(actor()) as act:
            delete_repository(act, "team/kept")
    # One of two tags of an image is not the image.
    with Store(store) as opened, opened.deleting(actor()) as act:
        delete_tag(act, "team/tool", "v2")
    sweep(store)
    with Store(store) as opened:
        (digest,) = rows_of(opened).values()
    assert len(blobs_of(store)) == 3, "manifest, config and layer of the one that is left"
    assert digest.removeprefix("sha256:") in blobs_of(store)
    check_sound_files(store)
    repositories = store / "docker/registry/v2/repositories"
    assert [str(path.relative_to(repositories)) for path in repositories.glob("*/*")] == ["team/tool"]


def test_pushes_of_others_stay_with_all_that_they_reach(tmp_path: Path) -> None:
    """An index: its manifests have no tag of their own. A config of another kind, a manifest of schema 1, an artifact."""
    store = filled(tmp_path)
    blobs = {name: name.encode() for name in ("config", "layer", "old layer", "artifact")}

    def of(name: str) -> dict[str, str]:
        return {"digest": str(Digest.of(blobs[name]))}

    child = {"schemaVersion": 2, "config": of("config"), "layers": [of("layer"), {"digest": "sha512:00"}, "no descriptor"]}
    one = push(store, "their/app", "", child, [blobs["config"], blobs["layer"]], tagged=False)
    push(store, "their/app", "multi", {"mediaType": OCI_INDEX, "manifests": [{"digest": one}]}, [])
    push(store, "their/app", "v1", {"fsLayers": [{"blobSum": of("old layer")["digest"]}]}, [blobs["old layer"]])
    push(store, "their/app", "sbom", {"blobs": [of("artifact")], "config": None}, [blobs["artifact"]])
    before = blobs_of(store)
    garbage = sweep(store)
    assert len(garbage.blobs) == 3 and [path for path, _ in garbage.revisions] == ["team/app"]
    assert {Digest.of(data).hex for data in blobs.values()} | {one.removeprefix("sha256:")} <= blobs_of(store) < before


@pytest.mark.parametrize("how", ["missing", "changed", "no object"])
def test_nothing_goes_while_a_manifest_cannot_be_read(how: str, tmp_path: Path) -> None:
    store = filled(tmp_path)
    if how == "no object":
        digest = push(store, "their/app", "v1", [], [])  # type: ignore[arg-type]
    else:
        digest = check_sound(store)["team/tool:v1"]
        blob = store / f"docker/registry/v2/blobs/sha256/{digest[7:9]}/{digest[7:]}/data"
        blob.write_bytes(b"{}") if how == "changed" else blob.unlink()
    before = tree(store)
    with pytest.raises(StoreError, match=f"nothing was removed: the manifest {digest} of a tag"):
        sweep(store)
    assert tree(store) == before


def test_nothing_goes_while_a_link_cannot_be_read(tmp_path: Path) -> None:
    store = filled(tmp_path)
    link = store / "docker/registry/v2/repositories/team/tool/_manifests/tags/v1/current/link"
    link.write_text("no digest")
    with pytest.raises(StoreError, match="the link of team/tool:v1 holds no digest"):
        sweep(store)


def test_a_tag_whose_links_are_missing_keeps_its_blobs(tmp_path: Path) -> None:
    """The ledger knows it, and verify --repair writes its links again."""
    store = filled(tmp_path)
    rows = check_sound(store)
    shutil.rmtree(store / "docker/registry/v2/repositories/team/tool")
    sweep(store)
    with Store(store) as opened:
        assert verify_store(opened, repair=True).ok
    assert check_sound(store) == rows


# --- who, and beside whom ------------------------------------------------------------------------------------------------


def test_only_administrators_sweep(tmp_path: Path) -> None:
    store = filled(tmp_path)
    before = tree(store)
    with Store(store) as opened:
        for account, user in ((DEFAULT_ACCOUNT, "somebody"), ("another", "somebody")):
            with pytest.raises(Refused, match="you do not have the permission"):
                collect_garbage(opened, current_actor(account, user), min_age_ms=0)
        told = [event["trace_rating"] for event in events_of(opened) if event["trace_name"] == "collectGarbage"]
    assert told == ["warning"] * 2 and tree(store) == before


def test_a_sweep_waits_for_loads_and_a_dry_run_does_not(tmp_path: Path) -> None:
    store = filled(tmp_path)
    ended = threading.Event()
    with locked(str(store / "locks" / "sweep"), shared=True):
        assert sweep(store, dry_run=True)
        thread = threading.Thread(target=lambda: (sweep(store), ended.set()))
        thread.start()
        time.sleep(0.2)
        assert not ended.is_set() and len(sweep(store, dry_run=True).blobs) == 3
    thread.join(30)
    assert ended.is_set() and not sweep(store, dry_run=True)


def test_killed_at_every_write_boundary(fast_path: Path) -> None:
    store = filled(fast_path)
    whole = shutil.copytree(store, fast_path / "whole")
    points = points_of(lambda: sweep(whole))
    rows, wanted = check_sound(whole), tree(whole)
    assert len(points) > 15
    for number in range(1, len(points) + 1):
        copy = shutil.copytree(store, fast_path / str(number))
        assert at(number, lambda copy=copy: sweep(copy)) == KILLED, points[number - 1]  # type: ignore[misc]
        assert check_sound(copy) == rows
        sweep(copy)
        assert check_sound(copy) == rows and tree(copy) == wanted
        assert import_archives([fast_path / "old.tar"], copy).exit_code == 0
        assert len(check_sound(copy)) == len(rows)
        shutil.rmtree(copy)


def test_the_server_agrees(peer: Callable[[str], str], tmp_path: Path, registry_server: Callable[[Path], Registry]) -> None:
    """What goes is what its own garbage collection would delete; afterwards it finds nothing, and all is served."""
    store, config = filled(tmp_path), tmp_path / "config.yml"
    registry = peer("docker-registry")
    config.write_text(swrbatch("serve-config", "--store", str(store), "--writable"))
    _, doomed = collected(registry, config, "--dry-run", "--delete-untagged")
    garbage = sweep(store)
    assert {line for line in doomed if line.startswith("sha256:")} == {str(digest) for digest, _ in garbage.blobs}
    assert collected(registry, config, "--dry-run", "--delete-untagged")[1] == set()
    served = registry_server(config)
    skopeo = [peer("skopeo"), "--insecure-policy", "copy", "-q", "--src-tls-verify=false"]
    for number, name in enumerate(check_sound(store)):
        run(*skopeo, f"docker://{served.address}/{name}", f"dir:{tmp_path / str(number)}")
        repository, _, tag = name.rpartition(":")
        assert served.get(f"/v2/{repository}/manifests/{tag}", accept=MANIFESTS)[0] == 200


# --- the command -----------------------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path) -> None:
    store = filled(tmp_path)
    code, out, _ = cli("gc", "--store", store)
    assert code == 0 and out.splitlines()[0] == "0 blobs (0 bytes), 0 untagged images removed"
    assert "3 blobs" in out and "younger than --min-age spared" in out
    code, out, _ = cli("gc", "--store", store, "--min-age", "0", "--dry-run")
    lines = out.splitlines()
    assert code == 0 and len(lines) == 5 and lines[0].startswith("image team/app@sha256:")
    assert lines[-1].startswith("3 blobs (") and lines[-1].endswith("1 untagged image would be removed")
    code, out, _ = cli("gc", "--store", store, "--min-age", "0s", "--format", "json")
    found = json.loads(out)
    assert code == 0 and len(found["blobs"]) == 3 and found["bytes"] == sum(each["bytes"] for each in found["blobs"])
    code, out, err = cli("gc", "--store", store, "--user", "somebody")
    assert (code, out) == (1, "") and "permission-denied" in err
    for wrong in ("5", "1w", "-1h", "1h30m", ""):
        assert cli("gc", "--store", store, "--min-age", wrong)[0] == 2
    assert cli("gc", "--store", tmp_path / "nowhere")[0] == 3
