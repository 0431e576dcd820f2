"""Deleting tags and repositories: rows, events and links together, at whatever moment the process is killed."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from swrbatch import Store, import_archives
from swrbatch.actors import current_actor
from swrbatch.audit.dataset import Dataset
from swrbatch.audit.export import export
from swrbatch.audit.prune import prune
from swrbatch.audit.reconcile import reconcile
from swrbatch.cts import Actor
from swrbatch.errors import Refused
from swrbatch.ledger.acting import acting
from swrbatch.ledger.deletions import delete_repository, delete_tag
from swrbatch.ledger.events import verify_chain
from swrbatch.ledger.repositories import list_tags
from swrbatch.verify import verify_store
from test_crash import (
    KILLED,
    TEAM,
    _open,
    at,
    check_sound,
    events_of,
    fast_path,
    files_of,
    join,
    points_of,
    rows_of,
    spawn,
    temporaries,
)
from test_store import archive, statuses

__all__ = ["fast_path"]  # a fixture
REPOSITORIES: Final = "docker/registry/v2/repositories"


@pytest.fixture
def base(fast_path: Path) -> Path:
    """`team/app` with v1 and v2 of one image and v3 of another, and `team/tool:v1` of the first."""
    store = fast_path / "base"
    first = archive(fast_path / "a.tar", "a", f"{TEAM}/app:v1", f"{TEAM}/app:v2", f"{TEAM}/tool:v1")
    second = archive(fast_path / "b.tar", "b", f"{TEAM}/app:v3")
    assert statuses(import_archives([first, second], store)) == ["loaded"] * 4
    return store


def untag(path: Path, *tags: str, user: str | None = None) -> None:
    with Store(path) as store, store.deleting(current_actor("default", user)) as act:
        for tag in tags:
            delete_tag(act, "team/app", tag)


def drop(path: Path, repository: str = "team/app") -> None:
    with Store(path) as store, store.deleting(current_actor("default", None)) as act:
        delete_repository(act, repository)


def differences(path: Path) -> list[str]:
    with Store(path) as store:
        return [f"{each.kind} {each.name}" for each in reconcile(store)]


def revision(path: Path, digest: str, repository: str = "team/app") -> Path:
    return path / REPOSITORIES / repository / "_manifests/revisions/sha256" / digest[7:]


def test_a_deleted_tag_is_gone_everywhere_and_its_blobs_stay(base: Path) -> None:
    before, blobs = check_sound(base), sorted((base / "docker/registry/v2/blobs").rglob("data"))
    untag(base, "v1")
    assert check_sound(base) == {name: digest for name, digest in before.items() if name != "team/app:v1"}
    assert differences(base) == [] and sorted((base / "docker/registry/v2/blobs").rglob("data")) == blobs
    assert not (base / REPOSITORIES / "team/app/_manifests/tags/v1").exists()
    # The manifest is v2's too: it can be pulled by its digest until no tag has it.
    assert revision(base, before["team/app:v1"]).exists()
    untag(base, "v2")
    assert not revision(base, before["team/app:v1"]).exists()
    assert revision(base, before["team/app:v1"], "team/tool").exists()
    assert list(check_sound(base)) == ["team/app:v3", "team/tool:v1"]


def test_the_event_tells_what_was_there(base: Path) -> None:
    digest = check_sound(base)["team/app:v3"]
    untag(base, "v3")
    with Store(base) as store:
        event = events_of(store)[-1]
    response = json.loads(event["response"])
    assert (event["trace_name"], event["resource_name"], event["resource_id"]) == ("deleteImageTag", "team/app:v3", digest)
    assert (response["result"], response["after"], response["before"]["digest"]) == ("deleted", None, digest)
    assert response["before"]["archive"].endswith("b.tar")


def test_a_deleted_repository_takes_its_tags_with_it(base: Path) -> None:
    drop(base)
    assert list(check_sound(base)) == ["team/tool:v1"] and differences(base) == []
    assert not (base / REPOSITORIES / "team/app").exists()
    with Store(base) as store:
        last = [(event["trace_name"], event["resource_name"]) for event in events_of(store)[-4:]]
    assert last == [*(("deleteImageTag", f"team/app:v{n}") for n in (1, 2, 3)), ("deleteImageRepository", "team/app")]


def test_what_was_deleted_is_loaded_again(base: Path, fast_path: Path) -> None:
    before = check_sound(base)
    untag(base, "v1", "v3")
    drop(base, "team/tool")
    result = import_archives([fast_path / "a.tar", fast_path / "b.tar"], base, on_conflict="fail")
    assert statuses(result) == ["loaded", "unchanged", "loaded", "loaded"]
    assert check_sound(base) == before and differences(base) == []


def test_the_replay_is_checked_for_deletions_too(base: Path) -> None:
    untag(base, "v1")
    with Store(base) as store, store.ledger.read() as connection:
        issues, tags, _ = verify_chain(connection)
    assert issues == [] and tags == files_of(base)


def test_deletions_are_in_the_checkpoint_of_a_prune(base: Path, fast_path: Path) -> None:
    untag(base, "v1")
    drop(base, "team/tool")
    actor, dest, later = Actor("default", "x", "root", "h"), str(fast_path / "dest"), 2**43
    with Store(base) as store:
        export(store, dest, "parquet", now=later)
        assert prune(store, dest, before=later, actor=actor, run_id="r", now=later).events == 10
        assert verify_store(store).issues == [] and reconcile(store) == [] == reconcile(store, [Dataset(dest)])


@pytest.mark.parametrize("what", [untag, drop], ids=["tag", "repository"])
def test_killed_at_every_write_boundary_of_a_deletion(base: Path, fast_path: Path, what: Callable[..., None]) -> None:
    def work(store: Path) -> Callable[[], None]:
        return partial(drop, store) if what is drop else partial(untag, store, "v1", "v3")

    before = check_sound(base)
    whole = fast_path / "whole"
    shutil.copytree(base, whole)
    points = points_of(work(whole))
    after = check_sound(whole)
    assert after != before and {"link:remove:before", "tree:remove:after", "ledger:commit:after"} <= set(points)
    outcomes = []
    for number in range(1, len(points) + 2):
        store = fast_path / f"store-{number}"
        shutil.copytree(base, store)
        assert at(number, work(store)) == (KILLED if number <= len(points) else 0)
        if number % 2:
            # The one that heals is killed too, wherever it is.
            at(number // 2, partial(_open, store))
        now = check_sound(store)
        assert now in (before, after), points[number - 1]
        assert differences(store) == []
        outcomes.append(now == after)
        if now == before:
            work(store)()
        assert check_sound(store) == after
        # What it took away can be loaded again.
        result = import_archives([fast_path / "a.tar", fast_path / "b.tar"], store, jobs=1)
        assert result.exit_code == 0 and check_sound(store) == before
        assert temporaries(store) == []
        shutil.rmtree(store)
    assert outcomes == sorted(outcomes) and len(set(outcomes)) == 2


def test_a_crash_before_the_links_went_is_healed_by_the_next_open(base: Path) -> None:
    served = files_of(base)
    points = points_of(partial(_dry, base))
    assert "link:remove:before" not in points and files_of(base) == served
    number = points_of_deletion(base).index("link:remove:before") + 1
    assert at(number, partial(untag, base, "v1")) == KILLED
    assert "team/app:v1" in files_of(base)
    with Store(base) as store:
        assert store.foreign == [] and "team/app:v1" not in rows_of(store)
    assert "team/app:v1" not in files_of(base)
    check_sound(base)


def points_of_deletion(base: Path) -> list[str]:
    copy = base.parent / "copy"
    shutil.copytree(base, copy)
    found = points_of(partial(untag, copy, "v1"))
    shutil.rmtree(copy)
    return found


def _dry(path: Path) -> None:
    with Store(path) as store, store.deleting(current_actor("default", None), dry_run=True) as act:
        assert delete_repository(act, "team/app").status == "deleted"


@pytest.mark.parametrize("killed", [False, True])
def test_a_link_that_somebody_else_wrote_is_kept_and_told(base: Path, killed: bool) -> None:
    other = files_of(base)["team/app:v3"]
    link = base / REPOSITORIES / "team/app/_manifests/tags/v1/current/link"
    if killed:
        assert at(points_of_deletion(base).index("link:remove:before") + 1, partial(untag, base, "v1")) == KILLED
    link.write_text(other)
    with Store(base) as store:
        if not killed:
            with store.deleting(current_actor("default", None)) as act:
                delete_tag(act, "team/app", "v1")
        assert store.foreign == [("team/app", "v1", other)]
        assert [issue.code for issue in verify_store(store).issues] == ["foreign-tag"]
    assert link.read_text() == other and differences(base) == ["deleted-but-present team/app:v1"]
    Store(base).close()
    assert link.read_text() == other


def test_a_repository_that_serves_a_foreign_tag_stays_on_the_disk(base: Path) -> None:
    tags = base / REPOSITORIES / "team/app/_manifests/tags"
    shutil.copytree(tags / "v3", tags / "pushed")
    digest = files_of(base)["team/app:v3"]
    drop(base)
    assert files_of(base).keys() == {"team/tool:v1", "team/app:pushed"} and revision(base, digest).exists()


def test_nothing_is_deleted_by_a_dry_run_or_a_refusal(base: Path) -> None:
    before = check_sound(base)
    _dry(base)
    with pytest.raises(Refused, match="denied: you do not have the permission"):
        untag(base, "v1", user="nobody")
    assert check_sound(base) == before
    with Store(base) as store:
        event = events_of(store)[-1]
    assert (event["trace_name"], event["trace_rating"], event["message"]) == (
        "deleteImageTag",
        "warning",
        '["permission-denied"]',
    )


def test_several_acts_of_one_transaction_fail_together(base: Path) -> None:
    before = check_sound(base)
    with pytest.raises(Refused, match="there is no tag"):
        untag(base, "v1", "v1")
    assert check_sound(base) == before


def test_a_load_that_was_waiting_does_not_write_links_of_a_deleted_tag(base: Path, fast_path: Path) -> None:
    """Killed after its commit, it would have written v9; the tag is deleted before anybody heals that."""
    path = archive(fast_path / "c.tar", "c", f"{TEAM}/app:v9")
    shutil.copytree(base, fast_path / "whole")
    points = points_of(partial(import_archives, [path], fast_path / "whole", jobs=1))
    with Store(base) as waiting:
        assert at(points.index("link:create:before") + 1, partial(import_archives, [path], base, jobs=1)) == KILLED
        # Opened before the load, this one healed nothing.
        with waiting.deleting(current_actor("default", None)) as act:
            delete_tag(act, "team/app", "v9")
    assert "team/app:v9" not in check_sound(base) and not (base / REPOSITORIES / "team/app/_manifests/tags/v9").exists()


def test_tags_are_paged(base: Path) -> None:
    with Store(base) as store, acting(store.ledger, current_actor("default", None)) as act:
        assert [row["tag"] for row in list_tags(act, "team/app", limit=2)] == ["v1", "v2"]
        assert [row["tag"] for row in list_tags(act, "team/app", limit=2, marker="v2")] == ["v3"]


def test_deleting_while_others_load_the_same(base: Path, fast_path: Path) -> None:
    """Two processes load what two others delete, until all have done it often: whatever the order was, the store is sound."""

    def load() -> None:
        for _ in range(15):
            assert import_archives([fast_path / "a.tar", fast_path / "b.tar"], base, jobs=1).exit_code == 0

    def remove(repository: bool) -> None:
        for _ in range(40):
            with contextlib.suppress(Refused):
                drop(base) if repository else untag(base, "v1", "v3")

    children = [spawn(load), spawn(load), spawn(partial(remove, False)), spawn(partial(remove, True))]
    assert [join(child) for child in children] == [0] * 4
    check_sound(base)
    assert differences(base) == []
    with Store(base) as store:
        names = [event["trace_name"] for event in events_of(store) if event["trace_rating"] == "normal"]
    assert names.count("deleteImageTag") > 4 and names.count("uploadImagePackage") > 8
    load()
    assert len(check_sound(base)) == 4
