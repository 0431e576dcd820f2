"""Store to store: what is missing arrives whole, verified and recorded; what is there stays; what is damaged stays away."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from imagetar import HELLO, Image, Layer, docker25, docker_legacy
from swrbatch import Store, StoreError, UsageError, import_archives
from swrbatch.actors import DEFAULT_ACCOUNT, current_actor
from swrbatch.digest import Digest
from swrbatch.ledger.access import set_grant
from swrbatch.ledger.acting import acting
from swrbatch.rights import Level
from swrbatch.sync import SyncedTag, sync_stores
from test_audit_export import cli
from test_crash import KILLED, at, check_sound, events_of, fast_path, points_of, temporaries, write
from test_interop import HOST

__all__ = ["fast_path"]
BIG = Layer.of({"big": b"only one image has it\n" * 4000})
IMAGES = {
    "app": docker_legacy(Image(layers=(HELLO[0], BIG), tags=(f"{HOST}/team/app:v1", f"{HOST}/team/app:v2"))),
    "tool": docker_legacy(Image(layers=(HELLO[0],), tags=(f"{HOST}/team/tool:v1",))),
    "kept": docker25(Image(layers=(Layer.of({"kept": b"as it is\n" * 90}),), tags=(f"{HOST}/other/kept:v1",)).stored("gzip")),
}
NAMES = ["other/kept:v1", "team/app:v1", "team/app:v2", "team/tool:v1"]


def filled(folder: Path, name: str = "source") -> Path:
    paths = [write(folder / f"{each}.tar", data) for each, data in IMAGES.items()]
    assert import_archives(paths, folder / name).exit_code == 0
    return folder / name


def sync(
    source: Path, target: Path, *patterns: str, account: str = DEFAULT_ACCOUNT, user: str | None = None, **options: Any
) -> list[SyncedTag]:
    with Store(source) as opened, Store(target, create=True) as to:
        return sync_stores(opened, to, current_actor(account, user), patterns, **options)


def statuses(done: list[SyncedTag]) -> dict[str, str]:
    return {each.name: each.status for each in done}


def names_of(store: Path) -> list[str]:
    with Store(store) as opened:
        return [event["trace_name"] for event in events_of(opened)]


def test_everything_arrives_once(tmp_path: Path) -> None:
    source, target = filled(tmp_path), tmp_path / "target"
    done = sync(source, target)
    assert statuses(done) == dict.fromkeys(NAMES, "loaded")
    assert check_sound(target) == check_sound(source)
    blobs = {path.parent.name: path.stat().st_size for path in (source / "docker").rglob("data")}
    assert sum(each.bytes for each in done) == sum(blobs.values()), "a blob that two images share moves once"
    assert names_of(target).count("uploadImagePackage") == 4 and names_of(target)[-1] == "syncImages"
    before = names_of(target)
    again = sync(source, target)
    assert statuses(again) == dict.fromkeys(NAMES, "unchanged") and not any(each.bytes for each in again)
    assert names_of(target) == before and temporaries(target) == temporaries(source) == []
    # What the source knew of the layers is known there too: nothing is compressed again, the digests stay.
    result = import_archives([tmp_path / "app.tar"], target)
    assert [row.status for row in result.images] == ["unchanged"] * 2 and result.run.bytes_stored == 0


def test_only_what_is_missing_moves(tmp_path: Path) -> None:
    source, target = filled(tmp_path), tmp_path / "target"
    assert statuses(sync(source, target, "team/tool")) == {"team/tool:v1": "loaded"}
    first, second = sync(source, target, "team/app:*")
    whole = sum(path.stat().st_size for path in (source / "docker").rglob("data") if path.stat().st_size)
    assert 0 < first.bytes < whole and second.bytes == 0
    assert sorted(check_sound(target)) == NAMES[1:]


@pytest.mark.parametrize(
    ("patterns", "names"),
    [(["team/*"], NAMES[1:]), (["*/*:v2"], NAMES[2:3]), (["team/app:v1", "other/kept"], NAMES[:2]), (["*"], NAMES)],
)
def test_globs(patterns: list[str], names: list[str], tmp_path: Path) -> None:
    assert sorted(statuses(sync(filled(tmp_path), tmp_path / "target", *patterns))) == names


def test_wrong_usage(tmp_path: Path) -> None:
    source = filled(tmp_path)
    with pytest.raises(UsageError, match="nobody/nothing matches no tag"):
        sync(source, tmp_path / "target", "team/app", "nobody/nothing")
    with pytest.raises(UsageError, match="is both --from and --to"):
        sync(source, source)


def test_tags_that_have_another_image(tmp_path: Path) -> None:
    source, target = filled(tmp_path), tmp_path / "target"
    other = write(tmp_path / "other.tar", docker_legacy(Image(layers=(BIG,), tags=(f"{HOST}/team/tool:v1",))))
    import_archives([other], target)
    theirs = check_sound(target)["team/tool:v1"]
    assert statuses(sync(source, target, "team/tool", on_conflict="skip")) == {"team/tool:v1": "skipped"}
    (found,) = sync(source, target, "team/tool", on_conflict="fail")
    assert found.status == "rejected" and [each.code for each in found.issues] == ["tag-exists"]
    (found,) = sync(source, target, "team/tool", dry_run=True)
    assert found.status == "overwritten" and check_sound(target)["team/tool:v1"] == theirs
    (found,) = sync(source, target, "team/tool")
    assert (found.status, found.previous) == ("overwritten", theirs)
    assert check_sound(target)["team/tool:v1"] == check_sound(source)["team/tool:v1"]


@pytest.mark.parametrize("how", ["flipped", "cut", "missing"])
@pytest.mark.parametrize("what", ["layer", "manifest"])
def test_what_is_damaged_stays_away(what: str, how: str, tmp_path: Path) -> None:
    source, target = filled(tmp_path), tmp_path / "target"
    digest = check_sound(source)["team/app:v1"]
    if what == "layer":
        data = (source / f"docker/registry/v2/blobs/sha256/{digest[7:9]}/{digest[7:]}/data").read_bytes()
        digest = json.loads(data)["layers"][1]["digest"]
    blob = source / f"docker/registry/v2/blobs/sha256/{digest[7:9]}/{digest[7:]}/data"
    data = blob.read_bytes()
    if how == "missing":
        blob.unlink()
    else:
        blob.write_bytes(data[:-1] if how == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    done = sync(source, target)
    assert statuses(done) == {name: "rejected" if "app" in name else "loaded" for name in NAMES}
    codes = {found.code for each in done for found in each.issues}
    assert codes == {"blob-corrupt" if what == "layer" else "manifest-invalid"}
    assert all(found.message.count(" is damaged") <= 1 for each in done for found in each.issues)
    assert sorted(check_sound(target)) == [name for name in NAMES if "app" not in name]
    assert temporaries(target) == []
    blob.write_bytes(data)
    assert sorted(set(statuses(sync(source, target)).values())) == ["loaded", "unchanged"]
    assert check_sound(target) == check_sound(source)


def test_a_whole_layer_under_the_name_of_another_is_told_once(tmp_path: Path) -> None:
    """It can be decompressed, and has the size: only its digest is wrong. Where nothing is compressed, as where it is."""
    for compression in ("gzip", "none"):
        room = tmp_path / compression
        room.mkdir()
        bodies = [b"a" * 700, b"b" * 700]
        for n, body in enumerate(bodies):
            data = docker_legacy(Image(layers=(Layer.of({"f": body}),), tags=(f"{HOST}/team/x:v{n}",)))
            import_archives([write(room / f"{n}.tar", data)], room / "source", compression=compression)
        blobs = []
        for n in range(2):
            digest = check_sound(room / "source")[f"team/x:v{n}"]
            raw = (room / f"source/docker/registry/v2/blobs/sha256/{digest[7:9]}/{digest[7:]}/data").read_bytes()
            layer = json.loads(raw)["layers"][0]["digest"]
            blobs.append(room / f"source/docker/registry/v2/blobs/sha256/{layer[7:9]}/{layer[7:]}/data")
        first, second = blobs
        assert first.stat().st_size == second.stat().st_size
        first.write_bytes(second.read_bytes())
        done = sync(room / "source", room / "target")
        assert statuses(done) == {"team/x:v0": "rejected", "team/x:v1": "loaded"}
        (found,) = done[0].issues
        assert found.code == "blob-corrupt" and found.message.count("damaged") == 1 and "its content is sha256:" in found.message
        check_sound(room / "target")


def test_killed_at_every_write_boundary(fast_path: Path) -> None:
    source = filled(fast_path)
    rows = check_sound(source)
    points = points_of(lambda: sync(source, fast_path / "whole"))
    assert len(points) > 60
    for number in range(1, len(points) + 1, 3):
        target = fast_path / str(number)
        assert at(number, lambda target=target: sync(source, target)) == KILLED, points[number - 1]  # type: ignore[misc]
        done = sync(source, target)
        assert check_sound(target) == rows and {each.status for each in done} <= {"loaded", "unchanged"}
        assert names_of(target).count("uploadImagePackage") == 4, "nothing is recorded twice"
        shutil.rmtree(target)


def test_rights_hold_on_both_sides(tmp_path: Path) -> None:
    source, target = filled(tmp_path), tmp_path / "target"
    import_archives([tmp_path / "tool.tar"], target)
    (found,) = sync(source, target, "team/app:v1", user="somebody")
    assert found.status == "rejected" and [each.code for each in found.issues] == ["permission-denied"]
    assert names_of(source)[-1] == "syncImages", "the source records the refusal"
    for store, level in ((source, Level.READ), (target, Level.READ)):
        with Store(store) as opened, acting(opened.ledger, current_actor(DEFAULT_ACCOUNT, None)) as act:
            set_grant(act, "team", "somebody", level)
    (found,) = sync(source, target, "team/app:v1", user="somebody")
    assert found.status == "rejected", "read is not enough to upload"
    with Store(target) as opened, acting(opened.ledger, current_actor(DEFAULT_ACCOUNT, None)) as act:
        set_grant(act, "team", "somebody", Level.EDIT)
    (found,) = sync(source, target, "team/app:v1", user="somebody")
    assert found.status == "loaded" and found.name in check_sound(target)


def test_the_receiving_store_has_its_own_registry(tmp_path: Path) -> None:
    source, target = filled(tmp_path), tmp_path / "target"
    assert cli("init", "--store", target, "--registry", "r.example.com")[0] == 0
    sync(source, target)
    with Store(target) as opened:
        assert {row["registry"] for row in opened.images()} == {"r.example.com"}
    check_sound(target)


def test_the_command(tmp_path: Path) -> None:
    source, target = filled(tmp_path), tmp_path / "target"
    code, out, _ = cli("sync", "--from", source, "--to", target, "--dry-run")
    assert code == 0 and "4 images, 0 unchanged" in out and not target.exists()
    assert cli("init", "--store", target)[0] == 0
    code, out, _ = cli("sync", "--from", source, "--to", target, "--dry-run")
    assert code == 0 and out.splitlines()[-1].startswith("4 images, 0 unchanged, ") and "would be copied" in out
    assert check_sound(target) == {}
    code, out, _ = cli("sync", "--from", source, "--to", target, "team/*", "--format", "json")
    assert code == 0 and [row["status"] for row in json.loads(out)["images"]] == ["loaded"] * 3
    code, out, _ = cli("sync", "--from", source, "--to", target)
    lines = out.splitlines()
    assert code == 0 and lines[-1].startswith("4 images, 3 unchanged, ") and lines[1].startswith("other/kept:v1")
    code, out, _ = cli("sync", "--from", source, "--to", target, "--user", "somebody")
    assert code == 1 and out.count("permission-denied") == 4 and "swrbatch grant set" in out
    assert cli("sync", "--from", tmp_path / "nowhere", "--to", target)[0] == 3


# --- a source that lies ------------------------------------------------------------------------------------------------------


def change(store: Path, statement: str, *values: object) -> None:
    with contextlib.closing(sqlite3.connect(store / "ledger.db")) as connection, connection:
        assert connection.execute(statement, values).rowcount


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE repositories SET name = '../../../../../../../pwned' WHERE name = 'tool'",
        "UPDATE repositories SET name = 'a/../b' WHERE name = 'tool'",
        "UPDATE repositories SET name = '_uploads' WHERE name = 'tool'",
        "UPDATE tags SET tag = '../../x' WHERE repository_id = (SELECT id FROM repositories WHERE name = 'tool')",
        "UPDATE tags SET tag = '-a b' WHERE repository_id = (SELECT id FROM repositories WHERE name = 'tool')",
        "UPDATE tags SET digest = 'nonsense' WHERE repository_id = (SELECT id FROM repositories WHERE name = 'tool')",
    ],
)
def test_names_and_digests_of_the_source_are_judged(statement: str, tmp_path: Path) -> None:
    source, target = filled(tmp_path), tmp_path / "deep" / "target"
    change(source, statement)
    done = sync(source, target)
    assert sorted(each.status for each in done) == ["loaded"] * 3 + ["rejected"]
    assert sorted(check_sound(target)) == NAMES[:3]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["deep", "source"]


def test_what_is_recorded_is_read_from_the_bytes(tmp_path: Path) -> None:
    """A false row and a false note of a layer in the source change nothing in the target, now and later."""
    source, target = filled(tmp_path), tmp_path / "target"
    with Store(source) as opened:
        true = {row["reference"]: row for row in opened.images()}
    change(
        source,
        "UPDATE tags SET image_id = ?, stored_bytes = -5, layers = 99, os = 'x', media_type = 'foo/bar'",
        "sha256:" + "0" * 64,
    )
    change(source, "UPDATE layer_blobs SET digest = (SELECT min(digest) FROM layer_blobs), size = 1")
    assert {each.status for each in sync(source, target)} == {"loaded"}
    with Store(target) as opened:
        rows = {row["reference"]: row for row in opened.images()}
    same = ("image_id", "digest", "media_type", "layers", "os", "architecture", "stored_bytes", "uncompressed_bytes")
    assert {name: [row[key] for key in same] for name, row in rows.items()} == {
        name: [row[key] for key in same] for name, row in true.items()
    }
    check_sound(target)
    assert import_archives([tmp_path / f"{name}.tar" for name in IMAGES], target).exit_code == 0
    check_sound(target)


def test_a_refused_image_does_not_stand_for_the_blobs_of_the_next_one(tmp_path: Path) -> None:
    """The first one states another size for a layer that the second one needs, in one group."""
    source, target = filled(tmp_path), tmp_path / "target"
    digest = check_sound(source)["team/app:v1"]
    manifest = json.loads((source / f"docker/registry/v2/blobs/sha256/{digest[7:9]}/{digest[7:]}/data").read_bytes())
    for layer in manifest["layers"]:
        layer["size"] += 1
    raw = json.dumps(manifest).encode()
    forged = Digest.of(raw)
    blob = source / f"docker/registry/v2/blobs/sha256/{forged.hex[:2]}/{forged.hex}/data"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(raw)
    change(source, "UPDATE tags SET digest = ? WHERE tag = 'v1' AND digest = ?", str(forged), digest)
    assert statuses(sync(source, target, "team/*")) == dict(zip(NAMES[1:], ("rejected", "loaded", "loaded"), strict=True))
    assert sorted(check_sound(target)) == NAMES[2:]


def test_a_disk_that_fails_is_no_fault_of_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = filled(tmp_path), tmp_path / "target"

    def full(*_: object) -> None:
        raise StoreError("a layer cannot be written: No space left on device")

    monkeypatch.setattr("swrbatch.blob_writer.BlobWriter.write", full)
    with pytest.raises(StoreError, match="No space left"):
        sync(source, target)
    monkeypatch.undo()
    assert statuses(sync(source, target)) == dict.fromkeys(NAMES, "loaded") and temporaries(target) == []


def test_what_the_source_lacks_is_not_had_from_the_target(tmp_path: Path) -> None:
    """A manifest that names blobs which only the target has, of an image that nobody gave the actor."""
    target = filled(tmp_path, "target")
    digest = check_sound(target)["team/app:v1"]
    manifest = json.loads((target / f"docker/registry/v2/blobs/sha256/{digest[7:9]}/{digest[7:]}/data").read_bytes())
    other = write(tmp_path / "mine.tar", docker_legacy(Image(layers=(Layer.of({"mine": b"x"}),), tags=(f"{HOST}/eve/mine:v1",))))
    source = tmp_path / "eve"
    assert import_archives([other], source).exit_code == 0
    raw = json.dumps({**manifest, "annotations": {"x": "y"}}).encode()
    forged = Digest.of(raw)
    blob = source / f"docker/registry/v2/blobs/sha256/{forged.hex[:2]}/{forged.hex}/data"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(raw)
    change(source, "UPDATE tags SET digest = ?, linked_digest = ?", str(forged), str(forged))
    (found,) = sync(source, target)
    assert found.status == "rejected" and [each.code for each in found.issues] == ["blob-corrupt"]
    assert "eve/mine:v1" not in check_sound(target)
