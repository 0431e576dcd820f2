"""What is exported is loaded by real programs and by our own importer, and is what it was.

One store holds what `test_interop` serves: the real archives of `fixtures/`, and an archive of every producer in `imagetar`,
stored as gzip, as zstd and plain.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import select as sql_select

from conftest import ROOT, Engine, unavailable
from imagetar import HELLO, TAG, Image, Layer, crane, docker25, docker_legacy
from swrbatch import Store, StoreError, UsageError, faults, import_archives
from swrbatch.actors import current_actor
from swrbatch.audit.traces import event_flag
from swrbatch.compression import Compression, decompress
from swrbatch.cts import now_ms
from swrbatch.destination import Member, tar_pieces
from swrbatch.digest import Cancel, Digest
from swrbatch.errors import Cancelled, Refused
from swrbatch.export import FORMS, ExportResult, export_images, parse_name
from swrbatch.image import DOCKER_MANIFEST, OCI_INDEX
from swrbatch.ledger.acting import acting
from swrbatch.ledger.repositories import edit_repository
from swrbatch.ledger.schema import events
from swrbatch.ledger.shares import Terms, add_share
from swrbatch.verify import verify_store
from test_crash import check_sound, write
from test_interop import HOST, Loaded, _loaded, _produce

ARCHIVES: Final = ("docker-archive", "oci-archive")
ACTOR: Final = current_actor("default", None)

pytestmark = pytest.mark.xdist_group("dockerd")  # one store for all, and so one worker


@dataclass
class Shop:
    """A store with everything in it."""

    path: Path
    rows: list[Loaded]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, archives_dir: Path) -> Shop:
    folder = tmp_path_factory.mktemp("export-shop")
    made = Shop(folder / "store", [])
    with Store(made.path, create=True) as store:
        store.init(registry=HOST)
    for archives, given in _produce(folder, archives_dir):
        made.rows += _loaded(import_archives(archives, made.path, **{"profile": "none", **given}).to_dict())
    assert len(made.rows) > 60
    return made


def export(store: Path, names: list[str], to: Path | str, form: str, **more: Any) -> ExportResult:
    with Store(store) as opened:
        return export_images(opened, names, os.fspath(to), form=form, actor=ACTOR, **more)  # type: ignore[arg-type]


def swrbatch(*argv: object, cwd: Path | None = None, code: int = 0, **more: Any) -> subprocess.CompletedProcess[bytes]:
    """The real command in a process of its own; no traceback reaches the user."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-m", "swrbatch", *map(str, argv)], capture_output=True, cwd=cwd, env=env, timeout=120, **more
    )
    assert done.returncode == code and b"Traceback" not in done.stderr, (done.stdout[-2000:], done.stderr)
    return done


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tar_files(archive: Path | bytes) -> dict[str, bytes]:
    """The regular files of a tar; each name once, and nothing else in it."""
    source = io.BytesIO(archive if isinstance(archive, bytes) else archive.read_bytes())
    with tarfile.open(fileobj=source) as tar:
        members = tar.getmembers()
        assert all(m.isreg() and (m.mtime, m.uid, m.gid, m.mode, m.uname) == (0, 0, 0, 0o644, "") for m in members)
        found = {m.name: tar.extractfile(m).read() for m in members}  # type: ignore[union-attr]
    assert len(found) == len(members)
    return found


def folder_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def by_layers(shop: Shop, layers: str) -> list[Loaded]:
    return [row for row in shop.rows if row.layers == layers]


def names_of(rows: list[Loaded]) -> list[str]:
    return [f"{row.path}:{row.tag}" for row in rows]


def events_of(store: Path) -> list[dict[str, Any]]:
    with Store(store) as opened, opened.ledger.read() as connection:
        texts = connection.execute(sql_select(events.c.text).order_by(events.c.seq)).scalars().all()
    return [trace for trace in map(json.loads, texts) if trace["trace_name"] == "exportImage"]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A store with two images that share a layer, one of them with two names."""
    store = tmp_path / "store"
    first = Image(tags=(f"{HOST}/team/app:v1", f"{HOST}/team/app:latest"))
    second = Image(layers=HELLO[:1], tags=(f"{HOST}/team/tool:v1",))
    for number, image in enumerate((first, second)):
        assert import_archives([write(tmp_path / f"{number}.tar", docker_legacy(image))], store).exit_code == 0
    return store


def imported(archives: list[Path], store: Path, layers: str) -> dict[str, Any]:
    """The result of importing archives into a new store, whose quota admits all organizations of the shop."""
    with Store(store, create=True) as opened:
        opened.init(registry=HOST, org_quota=100)
    return import_archives(archives, store, compression=layers, profile="none").to_dict()


def batches(rows: list[Loaded]) -> list[list[Loaded]]:
    """Rows parted so that no two manifests in a part have the same config: an importer takes one of them for both."""
    parts: list[dict[str, str]] = []
    made: list[list[Loaded]] = []
    for row in rows:
        at = next((i for i, part in enumerate(parts) if part.get(row.image_id, row.digest) == row.digest), len(parts))
        if at == len(parts):
            parts.append({})
            made.append([])
        parts[at][row.image_id] = row.digest
        made[at].append(row)
    return made


# --- round trips -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ARCHIVES)
@pytest.mark.parametrize("layers", ["gzip", "zstd", "none"])
def test_every_image_comes_back(shop: Shop, tmp_path: Path, form: str, layers: str) -> None:
    """Exported together and imported into an empty store: image IDs and diff_ids, and in OCI form the manifests' digests too."""
    rows = by_layers(shop, layers)
    assert len(rows) >= 8
    found = {}
    for number, batch in enumerate(batches(rows)):
        archive = tmp_path / f"{number}.tar"
        result = export(shop.path, names_of(batch), archive, form)
        assert sum(len(image.references) for image in result.images) == len(batch)
        assert result.size == archive.stat().st_size
        back = imported([archive], tmp_path / "back", layers)
        found |= {row.reference: row for row in _loaded(back)}
        # What the images' own configs lack is told as it was when they were imported; the archive itself is faultless.
        assert {issue["code"] for issue in back["issues"]} <= {"image-without-layers", "history-missing", "docker-version-old"}
    assert found.keys() == {row.reference for row in rows}
    for row in rows:
        again = found[row.reference]
        assert (again.image_id, again.diff_ids) == (row.image_id, row.diff_ids)
        if form == "oci-archive":
            assert again.digest == row.digest
    check_sound(tmp_path / "back")


@pytest.mark.parametrize("layers", ["gzip", "zstd", "none"])
def test_manifests_made_here_have_the_same_digests_through_a_docker_archive(tmp_path: Path, layers: str) -> None:
    """Layers that this program compressed are compressed to the same bytes again, large and empty ones too."""
    large = (Layer.of({"noise": os.urandom(3 << 20), "zeros": bytes(3 << 20)}), Layer.of({"text": b"some text\n" * 200_000}))
    images = [Image(tags=(f"{HOST}/team/app:v1",)), Image(layers=large, tags=(f"{HOST}/team/large:v1",))]
    empty = write(tmp_path / "empty.tar", docker_legacy(Image(layers=(), tags=(f"{HOST}/team/empty:v1",))))
    archives = [write(tmp_path / "a.tar", docker25(*images)), empty]
    before = {row.reference: row for row in _loaded(imported(archives, tmp_path / "store", layers))}
    export(tmp_path / "store", [row.reference for row in before.values()], tmp_path / "b.tar", "docker-archive")
    after = {row.reference: row for row in _loaded(imported([tmp_path / "b.tar"], tmp_path / "back", layers))}
    assert {name: row.digest for name, row in after.items()} == {name: row.digest for name, row in before.items()}


def test_what_was_exported_is_unchanged_in_its_own_store(small: Path, tmp_path: Path) -> None:
    for form in ARCHIVES:
        export(small, ["team/app:v1", "team/app:latest", "team/tool:v1"], tmp_path / "a.tar", form)
        result = import_archives([tmp_path / "a.tar"], small, profile="none")
        assert {row.status for row in result.images} == {"unchanged"} and result.run.bytes_stored == 0


@pytest.mark.parametrize("form", FORMS)
def test_layouts_are_sound(shop: Shop, tmp_path: Path, form: str) -> None:
    """Every descriptor leads to bytes of its digest and size; every name stands in the index; no blob is left over."""
    to = tmp_path / "out"
    export(shop.path, names_of(shop.rows), to, form)
    files = folder_files(to) if form == "oci-dir" else tar_files(to)
    assert json.loads(files.pop("oci-layout")) == {"imageLayoutVersion": "1.0.0"}
    assert all(sha256(data) == "sha256:" + name.rpartition("/")[2] for name, data in files.items() if name.startswith("blobs/"))
    seen: set[str] = set()

    def follow(descriptor: dict[str, Any]) -> str:
        name = f"blobs/sha256/{descriptor['digest'][7:]}"
        assert len(files[name]) == descriptor["size"]
        seen.add(name)
        document = json.loads(files[name])
        assert document["mediaType"] == descriptor["mediaType"] if "mediaType" in document else True
        if descriptor["mediaType"] == OCI_INDEX:
            (inner,) = document["manifests"]
            assert inner["mediaType"] == DOCKER_MANIFEST
            return follow(inner)
        for blob in (document["config"], *document["layers"]):
            assert len(files[f"blobs/sha256/{blob['digest'][7:]}"]) == blob["size"]
            seen.add(f"blobs/sha256/{blob['digest'][7:]}")
        return str(descriptor["digest"])

    named = {}
    for descriptor in json.loads(files.pop("index.json"))["manifests"]:
        name = descriptor["annotations"]["org.opencontainers.image.ref.name"]
        assert name == descriptor["annotations"]["io.containerd.image.name"]
        named[name] = follow(descriptor)
    expected = {row.reference: row.digest for row in shop.rows}
    assert named.keys() == expected.keys()
    if form != "docker-archive":
        assert named == expected
    if form != "oci-dir":
        entries = json.loads(files.pop("manifest.json"))
        listed = {tag: sha256(files[entry["Config"]]) for entry in entries for tag in entry["RepoTags"]}
        assert listed == {row.reference: row.image_id for row in shop.rows}
        # As stored, one image may have its layers in several ways; in a docker-archive they are the same.
        unique = {(entry["Config"], *([] if form == "docker-archive" else entry["Layers"])) for entry in entries}
        assert len(entries) == len(unique)
        if form == "docker-archive":
            for entry in entries:
                assert [name.rpartition("/")[2] for name in entry["Layers"]] == [
                    diff_id[7:] for diff_id in json.loads(files[entry["Config"]])["rootfs"]["diff_ids"]
                ]
    assert {name for name in files if name.startswith("blobs/")} == seen == set(files)


def test_equal_stores_give_equal_bytes(tmp_path: Path, small: Path) -> None:
    """Another store, another order, another time; and the order of the names on the command line says nothing."""
    other = tmp_path / "other"
    for number in (1, 0):
        import_archives([tmp_path / f"{number}.tar"], other)
    names = ["team/app:v1", "team/app:latest", "team/tool:v1"]
    for form in FORMS:
        for compression in (Compression.NONE, Compression.GZIP, Compression.ZSTD):
            if form == "oci-dir" and compression is not Compression.NONE:
                continue
            one, two = tmp_path / f"one-{form}-{compression}", tmp_path / f"two-{form}-{compression}"
            export(small, names, one, form, compression=compression)
            export(other, [*names[::-1], *names], two, form, compression=compression)
            if form == "oci-dir":
                assert folder_files(one) == folder_files(two)
                continue
            assert one.read_bytes() == two.read_bytes()
            plain = b"".join(decompress(compression, [one.read_bytes()]))
            assert plain == (tmp_path / f"one-{form}-none").read_bytes()


def test_shared_layers_and_repeated_names_stand_once(small: Path, tmp_path: Path) -> None:
    result = export(
        small, ["team/app:v1", f"{HOST}/team/app:v1", "team/app", "team/tool:v1"], tmp_path / "a.tar", "docker-archive"
    )
    assert [[r.tag for r in image.references] for image in result.images] == [["latest", "v1"], ["v1"]]
    files = tar_files(tmp_path / "a.tar")
    assert sum(data == HELLO[0].tar for data in files.values()) == 1
    first, second = json.loads(files["manifest.json"])
    assert first["RepoTags"] == [f"{HOST}/team/app:latest", f"{HOST}/team/app:v1"]
    assert second["Layers"] == first["Layers"][:1]


# --- real programs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", list(Compression)[:3])
@pytest.mark.parametrize("form", ARCHIVES)
def test_a_docker_engine_loads_it(shop: Shop, dockerd: Engine, tmp_path: Path, form: str, compression: Compression) -> None:
    """Many images in one file, each with its image ID and diff_ids. As stored only gzip and plain layers: 20.10 reads no zstd."""
    rows = [row for row in shop.rows if form == "docker-archive" or row.layers != "zstd"]
    version = int(dockerd.run("version", "--format", "{{.Server.Version}}").stdout.partition(".")[0])
    if compression is Compression.ZSTD and version < 23:
        pytest.skip("this engine reads no zstd")
    export(shop.path, names_of(rows), tmp_path / "a.tar", form, compression=compression)
    dockerd.run("load", "-i", str(tmp_path / "a.tar"))
    try:
        shown = dockerd.run("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").stdout.split("\n")
        assert {f"{row.reference} {row.image_id}" for row in rows} <= set(shown)
        for row in rows[::5]:
            (inspected,) = json.loads(dockerd.run("inspect", row.reference).stdout)
            assert tuple(inspected["RootFS"].get("Layers") or ()) == row.diff_ids
    finally:
        dockerd.run("rmi", "-f", *(row.reference for row in rows))


@pytest.mark.parametrize("form", ARCHIVES)
def test_containerd_imports_and_unpacks_it(
    shop: Shop, dockerd: Engine, peer: Callable[[str], str], tmp_path: Path, form: str
) -> None:
    """The OCI side, which newer docker engines load too: every name, and contents that are what the configs say."""
    rows = [row for layers in ("gzip", "zstd", "none") for row in by_layers(shop, layers)[::3]]
    export(shop.path, names_of(rows), tmp_path / "a.tar", form)
    socket = Path(dockerd.env["DOCKER_HOST"].removeprefix("unix://")).parent / "exec/containerd/containerd.sock"
    if not socket.exists():
        unavailable("the engine has no containerd of its own")
    ctr = [peer("ctr"), "--address", str(socket), "--namespace", f"swrbatch-{form}", "images"]
    # Unpacking compares each layer's content with its diff_id.
    done = subprocess.run(
        [*ctr, "import", "--snapshotter", "native", str(tmp_path / "a.tar")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    listed = subprocess.run([*ctr, "ls", "-q"], capture_output=True, text=True, timeout=60).stdout.split()
    assert sorted(listed) == sorted(row.reference for row in rows)
    subprocess.run([*ctr, "rm", *listed], capture_output=True, check=True, timeout=60)


Podman = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def podman(peer: Callable[[str], str], tmp_path: Path) -> Iterator[Podman]:
    """`podman ARGS` with a storage of its own."""
    if os.geteuid() != 0:
        pytest.skip("podman with a storage of its own needs root")
    # Not in pytest's folder: podman refuses a long path.
    runroot = tempfile.mkdtemp(prefix="swrb-")
    argv = [peer("podman"), "--root", f"{tmp_path}/root", "--runroot", runroot, "--storage-driver", "vfs"]

    def run(*args: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*argv, *args], capture_output=True, text=True, timeout=300)
        assert code is None or done.returncode == code, done.stderr
        return done

    yield run
    run("rmi", "-a", "-f")
    shutil.rmtree(runroot, ignore_errors=True)


def gzip_refused(podman: Podman, archive: Path) -> str:
    """What podman 4.3 says of any gzip file of several images, also of one that gzip itself compressed; "" when it reads it."""
    plain = archive.with_name("again.tar")
    plain.write_bytes(gzip.compress(gzip.decompress(archive.read_bytes())))
    said = [podman("load", "-q", "-i", str(path), code=None) for path in (archive, plain)]
    assert said[0].returncode == said[1].returncode
    return said[1].stderr if said[1].returncode else ""


@pytest.mark.parametrize("compression", list(Compression)[:3])
@pytest.mark.parametrize("form", ARCHIVES)
@pytest.mark.parametrize("many", [True, False])
def test_podman_loads_it(shop: Shop, podman: Podman, tmp_path: Path, form: str, compression: Compression, many: bool) -> None:
    """Of one image it takes the OCI side, of several manifest.json: the image IDs are the same."""
    kinds = {layers: by_layers(shop, layers)[:3] for layers in ("gzip", "zstd", "none")}
    rows = [row for found in kinds.values() for row in found]
    for chosen in [rows] if many else [[row] for row in rows[::3]]:
        export(shop.path, names_of(chosen), tmp_path / "a.tar", form, compression=compression)
        if many and compression is Compression.GZIP and (said := gzip_refused(podman, tmp_path / "a.tar")):
            assert "docker-archive: loading tar component manifest.json: unexpected EOF" in said
            return
        podman("load", "-q", "-i", str(tmp_path / "a.tar"))
        for row in chosen:
            (inspected,) = json.loads(podman("inspect", row.reference).stdout)
            assert "sha256:" + inspected["Id"] == row.image_id
            assert tuple(inspected["RootFS"]["Layers"] or ()) == row.diff_ids
            assert row.reference in inspected["RepoTags"]


@pytest.mark.parametrize("form", ["oci-archive", "oci-dir"])
def test_skopeo_reads_every_image_of_the_oci_forms_by_name(
    shop: Shop, peer: Callable[[str], str], tmp_path: Path, form: str
) -> None:
    """Docker schema 2 and OCI manifests alike, with the digests of the store."""
    to = tmp_path / "out"
    export(shop.path, names_of(shop.rows), to, form)
    rows = [row for layers in ("gzip", "zstd", "none") for row in by_layers(shop, layers)[::4]]
    assert len({row.media_type for row in rows}) == 2
    for number, row in enumerate(rows):
        source = f"{'oci' if form == 'oci-dir' else form}:{to}:{row.reference}"
        target = tmp_path / f"copy-{number}"
        argv = [peer("skopeo"), "--insecure-policy", "copy", "-q", "--preserve-digests", source, f"dir:{target}"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, (row, done.stderr)
        assert sha256((target / "manifest.json").read_bytes()) == row.digest
        assert (target / row.image_id[7:]).exists()


@pytest.mark.parametrize("layers", ["gzip", "none"])
def test_one_image_needs_no_name_and_its_platform_does_not_matter(
    peer: Callable[[str], str], tmp_path: Path, layers: str
) -> None:
    """An image for another machine is found by its name and without one, stored as Docker's manifest (gzip) or OCI's (none)."""
    store, to = tmp_path / "store", tmp_path / "out"
    image = Image(architecture="s390x", tags=(f"{HOST}/team/app:v1",))
    import_archives([write(tmp_path / "a.tar", docker_legacy(image))], store, compression=layers)
    export(store, ["team/app:v1"], to, "oci-dir")
    for number, name in enumerate(("", f":{HOST}/team/app:v1")):
        argv = [peer("skopeo"), "--insecure-policy", "copy", "-q", f"oci:{to}{name}", f"dir:{tmp_path}/{number}"]
        assert subprocess.run(argv, capture_output=True, timeout=120).returncode == 0
        assert (tmp_path / str(number) / image.hex).read_bytes() == image.config


def test_skopeo_reads_the_docker_archive_by_name(shop: Shop, peer: Callable[[str], str], tmp_path: Path) -> None:
    export(shop.path, names_of(shop.rows), tmp_path / "a.tar", "docker-archive")
    for number, row in enumerate(shop.rows[::6]):
        target = tmp_path / str(number)
        source = f"docker-archive:{tmp_path}/a.tar:{row.reference}"
        argv = [peer("skopeo"), "--insecure-policy", "copy", "-q", source, f"dir:{target}"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, (row, done.stderr)
        assert sha256((target / row.image_id[7:]).read_bytes()) == row.image_id
        manifest = json.loads((target / "manifest.json").read_bytes())
        assert tuple(layer["digest"] for layer in manifest["layers"]) == row.diff_ids


# --- damage ------------------------------------------------------------------------------------------------------------


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


DAMAGES: Final = {"flipped": _flip, "cut": _truncate, "gone": Path.unlink}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("which", ["layer", "config", "manifest"])
@pytest.mark.parametrize("layers", ["gzip", "zstd", "none"])
def test_a_damaged_blob_leaves_nothing(tmp_path: Path, which: str, damage: str, layers: str) -> None:
    """Neither a file nor a temporary one nor an event; what stood there stays; nothing goes to a stream."""
    store, out = tmp_path / "store", tmp_path / "out"
    image = Image(layers=(*HELLO, Layer.of({"noise": os.urandom(3 << 20)})), tags=(f"{HOST}/team/app:v1",))
    import_archives([write(tmp_path / "a.tar", docker_legacy(image))], store, compression=layers)
    out.mkdir()
    (out / "old.tar").write_bytes(b"old")
    with Store(store) as opened:
        manifest = opened.manifest(Digest.parse(opened.images()[0]["digest"]))
        digest = {"layer": manifest.layers[-1].digest, "config": manifest.config.digest, "manifest": manifest.digest}[which]
        DAMAGES[damage](Path(opened.layout.blob_path(digest)))
    for form in FORMS:
        for to in ("new", "old.tar"):
            if (form, to) == ("oci-dir", "old.tar"):
                continue
            with pytest.raises(StoreError, match=f"{digest}.*(missing|damaged|cannot be read).*import"):
                export(store, ["team/app:v1"], out / to, form)
            assert folder_files(out) == {"old.tar": b"old"} and len(list(out.iterdir())) == 1
    for form in ARCHIVES:
        done = swrbatch("export", "team/app:v1", "--store", store, "--to", "-", "--form", form, code=3)
        assert done.stdout == b"" and str(digest).encode() in done.stderr
    assert events_of(store) == []


def test_a_layer_that_is_not_the_configs_is_told(tmp_path: Path) -> None:
    """The blob is whole, but its content is not the diff_id: a docker-archive must not be made of it."""
    store = tmp_path / "store"
    image = Image(tags=(f"{HOST}/team/app:v1",))
    import_archives([write(tmp_path / "a.tar", crane(image))], store)
    with Store(store) as opened:
        manifest = opened.manifest(Digest.parse(opened.images()[0]["digest"]))
        raw = manifest.raw.replace(manifest.layers[0].digest.hex.encode(), manifest.layers[1].digest.hex.encode())
        raw = raw.replace(f'"size":{manifest.layers[0].size},'.encode(), f'"size":{manifest.layers[1].size},'.encode())
        other = Path(opened.layout.blob_path(Digest.of(raw)))
        other.parent.mkdir(parents=True)
        other.write_bytes(raw)
        with opened.ledger.write() as connection:
            connection.exec_driver_sql("UPDATE tags SET digest = ?", (str(Digest.of(raw)),))
    with pytest.raises(StoreError, match=r"its content is sha256:\w+, not"):
        export(store, ["team/app:v1"], tmp_path / "out.tar", "docker-archive")
    assert not (tmp_path / "out.tar").exists()


@pytest.mark.parametrize("form", FORMS)
def test_an_interrupt_leaves_nothing(small: Path, tmp_path: Path, form: str) -> None:
    cancel = Cancel()
    cancel.set()
    (tmp_path / "out").mkdir()
    with pytest.raises(Cancelled):
        export(small, ["team/app:v1"], tmp_path / "out" / "x", form, cancel=cancel)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_130(tmp_path: Path, number: signal.Signals) -> None:
    store, out = tmp_path / "store", tmp_path / "out"
    image = Image(layers=(Layer.of({"noise": os.urandom(96 << 20)}),), tags=(f"{HOST}/team/app:v1",))
    import_archives([write(tmp_path / "a.tar", docker_legacy(image))], store)
    out.mkdir()
    argv = [
        sys.executable,
        "-m",
        "swrbatch",
        "export",
        "team/app:v1",
        "--store",
        str(store),
        "--to",
        str(out / "x"),
        "--compress",
        "zstd",
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as running:
        while not list(out.iterdir()):
            assert running.poll() is None
        running.send_signal(number)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 130 and said == b"swrbatch: interrupted\n"
    assert list(out.iterdir()) == [] and events_of(store) == [] and list((store / "tmp").iterdir()) == []


@pytest.fixture
def stop_at() -> Iterator[Callable[[str, BaseException], None]]:
    """`stop_at(point, error)` raises the error at a named write boundary."""

    def stop(name: str, error: BaseException) -> None:
        def hook(reached: str) -> None:
            if reached == name:
                raise error

        faults.hook = hook

    yield stop
    faults.hook = None


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("point", ["export:rename:before", "export:rename:after", "ledger:commit:before"])
def test_an_export_without_its_event_is_taken_back(
    small: Path, tmp_path: Path, form: str, point: str, stop_at: Callable[[str, BaseException], None]
) -> None:
    """Whatever fails up to the commit: no file is there, and no event."""
    (tmp_path / "out").mkdir()
    stop_at(point, OSError(5, "the disk is broken"))
    with contextlib.suppress(StoreError, OSError):
        export(small, ["team/app:v1"], tmp_path / "out" / "x", form)
    faults.hook = None
    assert list((tmp_path / "out").iterdir()) == [] and events_of(small) == []
    with Store(small) as opened:
        assert verify_store(opened).ok


# --- where it goes -----------------------------------------------------------------------------------------------------


def test_what_stands_there_is_replaced(small: Path, tmp_path: Path) -> None:
    """A file; the file that a link names; an empty folder; an OCI layout, with nothing of the old one left."""
    for form in ARCHIVES:
        file, link = tmp_path / "file.tar", tmp_path / "link.tar"
        file.write_bytes(b"old")
        link.unlink(missing_ok=True)
        link.symlink_to(file)
        export(small, ["team/tool:v1"], link, form)
        assert link.is_symlink() and len(tar_files(file)) >= 5
    (tmp_path / "dir").mkdir()
    export(small, ["team/app:v1"], tmp_path / "dir", "oci-dir")
    export(small, ["team/tool:v1"], tmp_path / "dir", "oci-dir")
    export(small, ["team/tool:v1"], tmp_path / "fresh", "oci-dir")
    assert folder_files(tmp_path / "dir") == folder_files(tmp_path / "fresh")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("form", FORMS)
def test_what_a_killed_export_left_is_swept(small: Path, tmp_path: Path, form: str) -> None:
    """But not what a running one writes, nor another file."""
    out = tmp_path / "out"
    out.mkdir()
    child = os.fork()
    if child == 0:

        def hook(reached: str) -> None:
            if reached == "export:rename:before":
                os.kill(os.getpid(), signal.SIGKILL)

        faults.hook = hook
        export(small, ["team/app:v1"], out / "x", form)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    (left,) = out.iterdir()
    assert left.name.startswith(".x.") and events_of(small) == []
    (out / ".x.other").write_text("mine")
    export(small, ["team/app:v1"], out / "x", form)
    assert left.exists()  # it could have been begun just now
    os.utime(left, (1, 1))
    fd = os.open(left, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    export(small, ["team/app:v1"], out / "x", form)
    assert left.exists()
    os.close(fd)
    export(small, ["team/app:v1"], out / "x", form)
    assert {path.name for path in out.iterdir()} == {".x.other", "x"}


def test_a_closed_standard_output_is_no_file_of_the_store(small: Path) -> None:
    """With descriptor 1 free, the ledger could get it."""
    before = check_sound(small)
    argv = [sys.executable, "-m", "swrbatch", "export", "team/app:v1", "--store", str(small), "--to", "-"]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *argv],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        timeout=60,
    )
    assert done.returncode == 2 and b"standard output is closed" in done.stderr
    assert check_sound(small) == before


def test_destinations_that_do_not_fit(small: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_text("x")
    cases = [
        ("folder", "docker-archive", "is a folder"),
        ("pipe", "docker-archive", "no regular file"),
        ("new/", "docker-archive", "is a folder"),
        ("store/x.tar", "docker-archive", "within the store"),
        ("store", "oci-dir", "within the store"),
        ("folder", "oci-dir", "something else than an OCI layout"),
        ("text", "oci-dir", "something else than an OCI layout"),
    ]
    before = folder_files(tmp_path / "folder")
    for to, form, said in cases:
        with pytest.raises(UsageError, match=said):
            export(small, ["team/app:v1"], f"{tmp_path}/{to}", form)
    for to, form, more, said in (
        ("-", "oci-dir", {}, "standard output"),
        ("", "oci-archive", {}, "empty"),
        ("x", "oci-dir", {"compression": Compression.GZIP}, "--compress"),
    ):
        with pytest.raises(UsageError, match=said):
            export(small, ["team/app:v1"], to, form, **more)
    for form in FORMS:
        with pytest.raises(StoreError, match="cannot be written: No such file"):
            export(small, ["team/app:v1"], tmp_path / "no" / "such" / "x", form)
    assert folder_files(tmp_path / "folder") == before and (tmp_path / "text").read_text() == "x"
    assert events_of(small) == []


def test_a_full_disk_is_told_and_leaves_nothing(small: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()

    def little() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 10, 8 << 10))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    with Store(small):
        pass
    done = swrbatch("export", "team/app:v1", "--store", small, "--to", tmp_path / "out/x.tar", code=3, preexec_fn=little)
    assert b"cannot be written: File too large" in done.stderr or b"ledger" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


# --- the command -------------------------------------------------------------------------------------------------------


def test_the_command(small: Path, tmp_path: Path) -> None:
    done = swrbatch("export", "team/app:v1", "team/tool:v1", "--store", small, "--to", "a.tar", cwd=tmp_path)
    lines = done.stdout.decode().splitlines()
    assert lines[0].split() == ["exported", "image", "ID", "digest", "layers"] and lines[-1].startswith("a.tar: docker-archive, ")
    assert [line.split()[0] for line in lines[1:-1]] == [f"{HOST}/team/app:v1", f"{HOST}/team/tool:v1"]
    done = swrbatch(
        *("export", "team/app:v1", "--store", small, "--to", "b.tar", "--form", "oci-archive", "--format", "json"),
        *("--compress", "gzip"),
        cwd=tmp_path,
    )
    told = json.loads(done.stdout)
    assert told.keys() == {"to", "form", "compression", "bytes", "images"}
    assert told["bytes"] == (tmp_path / "b.tar").stat().st_size and told["compression"] == "gzip"
    assert told["images"][0]["references"] == [f"{HOST}/team/app:v1"]


@pytest.mark.parametrize("form", ARCHIVES)
@pytest.mark.parametrize("compress", ["none", "gzip", "zstd"])
def test_a_stream_has_the_bytes_of_the_file(small: Path, tmp_path: Path, form: str, compress: str) -> None:
    argv = ("export", "team/app:v1", "team/tool:v1", "--store", small, "--form", form, "--compress", compress, "--to")
    swrbatch(*argv, tmp_path / "a.tar")
    done = swrbatch(*argv, "-")
    assert done.stdout == (tmp_path / "a.tar").read_bytes() and b"exported" in done.stderr
    assert len(events_of(small)) == 4


def test_a_reader_that_goes_away_is_no_export(tmp_path: Path) -> None:
    store = tmp_path / "store"
    image = Image(layers=(Layer.of({"noise": os.urandom(3 << 20)}),), tags=(f"{HOST}/team/app:v1",))
    import_archives([write(tmp_path / "a.tar", docker_legacy(image))], store)
    argv = [sys.executable, "-m", "swrbatch", "export", "team/app:v1", "--store", str(store), "--to", "-"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.read(1000)
        running.stdout.close()
        said = running.stderr.read()
    assert running.returncode == 3 and b"standard output cannot be written" in said and b"Traceback" not in said
    assert events_of(store) == []


def test_names(small: Path) -> None:
    for text, path, tag in (
        ("team/app", "team/app", "latest"),
        ("team/app:v1", "team/app", "v1"),
        (f"{HOST}/team/app:v1", "team/app", "v1"),
        (f"{HOST.upper()}/team/app:v1", "team/app", "v1"),
        ("my.org/app:v1", "my.org/app", "v1"),
        ("team/a/b:v1", "team/a/b", "v1"),
    ):
        found = parse_name(text, HOST)
        assert (found.registry, found.path, found.tag) == (HOST, path, tag)
    for text in ("", "app", "app:v1", "/app", "team/", "team/app:", "team/app@sha256:" + "0" * 64, f"{HOST}/app:v1"):
        with pytest.raises(UsageError, match="write ORGANIZATION/REPOSITORY:TAG"):
            parse_name(text, HOST)
    with pytest.raises(UsageError, match="not of the store's registry"):
        parse_name("other.example.com/team/app:v1", HOST)
    done = swrbatch(
        "export", "team/nope:v1", "team/app:v9", "team/app:v1", "--store", small, "--to", "x.tar", code=1, cwd=small.parent
    )
    assert (
        f"there is no tag {HOST}/team/app:v9, {HOST}/team/nope:v1" in done.stderr.decode()
        and not (small.parent / "x.tar").exists()
    )


# --- the event ---------------------------------------------------------------------------------------------------------


def test_the_events(small: Path, tmp_path: Path) -> None:
    """One for each name, in one transaction with the file; outside of every catalog; the chain and the replay hold."""
    before = check_sound(small)
    export(small, ["team/app:v1", "team/app:latest", "team/tool:v1"], tmp_path / "a.tar", "docker-archive")
    found = events_of(small)
    assert [trace["resource_name"] for trace in found] == ["team/app:latest", "team/app:v1", "team/tool:v1"]
    assert check_sound(small) == before
    trace = found[1]
    assert (trace["trace_rating"], trace["code"], trace["resource_type"], trace["service_type"]) == (
        "normal",
        "200",
        "image",
        "SWR",
    )
    assert trace["user"] == {"domain": {"name": "default"}, "name": ACTOR.user} and trace["resource_id"] == before["team/app:v1"]
    assert json.loads(trace["request"]) == {
        "reference": f"{HOST}/team/app:v1",
        "form": "docker-archive",
        "compression": "none",
        "file": str(tmp_path / "a.tar"),
    }
    response = json.loads(trace["response"])
    assert response["digest"] == before["team/app:v1"] and response["bytes"] == (tmp_path / "a.tar").stat().st_size
    assert event_flag("v2", "SWR", trace["trace_name"], trace["resource_type"]) == "unknown-event"


# --- memory and large sizes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ARCHIVES)
@pytest.mark.parametrize("layers", ["gzip", "zstd", "none"])
def test_memory_is_bounded(tmp_path: Path, form: str, layers: str) -> None:
    store = tmp_path / "store"
    image = Image(layers=(Layer.of({"zeros": bytes(96 << 20)}),), tags=(f"{HOST}/team/app:v1",))
    import_archives([write(tmp_path / "a.tar", docker_legacy(image))], store, compression=layers)
    for compression in (Compression.NONE, Compression.ZSTD):
        tracemalloc.start()
        export(store, ["team/app:v1"], tmp_path / "out.tar", form, compression=compression)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 16 << 20


def test_a_member_of_more_than_8_gib() -> None:
    """Its header still has 512 bytes, and tar readers find the size; so it can be written again in its place."""
    size = (9 << 30) + 1
    header = next(iter(tar_pieces([Member("blobs/x", size, [])])))
    assert isinstance(header, bytes) and len(header) == 512
    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == size


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("point", ["export:rename:after", "ledger:commit:before"])
def test_what_stood_there_is_there_again_when_the_export_fails(form: str, point: str, small: Path, tmp_path: Path) -> None:
    to = tmp_path / "here" / "out"
    to.parent.mkdir()
    export(small, ["team/app:v1"], to, form)
    before = {path: path.read_bytes() for path in (to.rglob("*") if to.is_dir() else [to]) if path.is_file()}

    def fail(name: str) -> None:
        if name == point:
            raise StoreError("the disk is full")

    faults.hook = fail
    try:
        with pytest.raises(StoreError, match="the disk is full"):
            export(small, ["team/app:v1", "team/tool:v1"], to, form)
    finally:
        faults.hook = None
    assert {path: path.read_bytes() for path in (to.rglob("*") if to.is_dir() else [to]) if path.is_file()} == before
    assert [path.name for path in to.parent.iterdir()] == ["out"]


def test_only_our_own_leftovers_are_swept(small: Path, tmp_path: Path) -> None:
    notes, draft = tmp_path / ".out.notes.tmp", tmp_path / ".out.draft.tmp"
    notes.mkdir()
    (notes / "a").write_text("precious")
    draft.write_text("precious")
    for path in (notes, draft):
        os.utime(path, (1, 1))
    export(small, ["team/app:v1"], tmp_path / "out", "docker-archive")
    assert (notes / "a").exists() and draft.exists()


def test_a_share_lets_its_account_export_until_its_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write(tmp_path / "a.tar", docker_legacy(Image(tags=(TAG,))))
    assert import_archives([archive], tmp_path / "store").exit_code == 0
    name, partner = TAG.partition("/")[2], current_actor("partner", "anybody")
    deadline = now_ms() + 3_600_000
    with Store(tmp_path / "store") as store:
        with acting(store.ledger, ACTOR) as act:
            add_share(act, name.partition(":")[0], "partner", Terms(deadline_ms=deadline))

        def export(when: int) -> int:
            monkeypatch.setattr("swrbatch.ledger.acting.time.time_ns", lambda: when * 1_000_000)
            return export_images(store, [name], str(tmp_path / "out.tar"), form="docker-archive", actor=partner).size

        assert export(deadline - 1) > 0
        with pytest.raises(Refused, match="the share has expired"):
            export(deadline)
        with pytest.raises(Refused):
            export_images(store, [name], str(tmp_path / "x.tar"), form="docker-archive", actor=current_actor("another", "x"))


def test_who_may_not_download_exports_nothing(tmp_path: Path) -> None:
    """A private image of the account's organization: not for another user, and not for another account until it is public."""
    archive = write(tmp_path / "a.tar", docker_legacy(Image(tags=(TAG,))))
    assert import_archives([archive], tmp_path / "store").exit_code == 0
    name = TAG.partition("/")[2]
    with Store(tmp_path / "store") as store:
        for actor in (current_actor("default", "somebody"), current_actor("another", "somebody")):
            with pytest.raises(Refused, match="you do not have the permission"):
                export_images(store, [name], str(tmp_path / "out.tar"), form="docker-archive", actor=actor)
        assert not (tmp_path / "out.tar").exists()
        told = [e["trace_rating"] for e in events_of(tmp_path / "store") if e["trace_name"] == "exportImage"]
        assert told == ["warning", "warning"]
        with acting(store.ledger, ACTOR) as act:
            edit_repository(act, name.partition(":")[0], is_public=True)
        for actor in (current_actor("default", "somebody"), current_actor("another", "somebody")):
            assert export_images(store, [name], str(tmp_path / "out.tar"), form="docker-archive", actor=actor).size
