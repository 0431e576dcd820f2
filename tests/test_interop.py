"""What is imported is served, pulled and copied by real programs, and is what it was.

One store with everything in it is made by the real command: the archives of `fixtures/`, and one archive of every producer in
`imagetar`, stored as gzip, as zstd and plain. A stock registry serves it with the configuration that the real command prints.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import pytest
import yaml

from conftest import Engine, Registry
from imagetar import PRODUCERS, Image, Layer, docker_legacy, nix
from swrbatch import Store, import_archives
from swrbatch.compression import Compression, decompress, sniff
from swrbatch.image import OCI_MANIFEST
from swrbatch.verify import verify_store
from test_crash import check_sound, write

ROOT: Final = Path(__file__).resolve().parent.parent
HOST: Final = "swr.cn-north-1.example.com"
MANIFESTS: Final = (
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.index.v1+json"
)
COMPRESSIONS: Final = ("gzip", "zstd", "none")
# An archive in which the second image shares layers with the first, or which stands for nothing that loads.
UNLOADABLE: Final = ("podman4-oci-archive.tar",)

pytestmark = pytest.mark.xdist_group("dockerd")  # one store for all, and so one worker


def swrbatch(*argv: str, code: int = 0) -> str:
    """The real command's stdout."""
    command = [sys.executable, "-m", "swrbatch", *argv]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def run(*argv: str, code: int | None = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, cwd=cwd)
    assert code is None or done.returncode == code, f"{' '.join(argv)}:\n{done.stdout}{done.stderr}"
    return done


@dataclass(frozen=True)
class Loaded:
    """A row of the report, as far as a client can see it."""

    archive: str
    reference: str
    path: str
    tag: str
    image_id: str
    digest: str
    media_type: str
    diff_ids: tuple[str, ...]
    layers: str
    """How its layers are stored: gzip, zstd or none (plain)."""


@dataclass
class Shop:
    """The store, what was loaded into it, and the registry that serves it read-only."""

    store: Path
    config: Path
    rows: list[Loaded] = field(default_factory=list)
    registry: Registry | None = None

    @property
    def address(self) -> str:
        assert self.registry is not None
        return self.registry.address

    def url(self, row: Loaded) -> str:
        return f"docker://{self.address}/{row.path}:{row.tag}"


def _digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def plain(layer: bytes) -> bytes:
    """The tar in a layer's blob."""
    kind = sniff(layer[:6])
    return layer if kind is Compression.NONE else b"".join(decompress(kind, iter([layer])))


def _produce(folder: Path, archives: Path) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Archives, and the options that they are imported with."""
    for path in sorted(archives.glob("*.tar*")):
        if path.name in UNLOADABLE:
            continue
        # Each has repositories of its own, or the one would overwrite the other: they hold the same names.
        short = path.name.replace(".", "-")
        names = write(folder / f"{short}.csv", b"archive,image_id,reference\n")
        with names.open("a") as f:
            f.write(f"{path.name},f8ecab3b2507b5b7,{HOST}/real/{short}-unnamed:v1\n")
        yield [str(path)], {"retag": f"*={HOST}/real/{short}-{{repository}}:{{tag}}", "names": str(names)}
    for compression in COMPRESSIONS:
        made = {name: form(Image(tags=(f"{HOST}/made-{compression}/{name}:v1",))) for name, form in PRODUCERS.items()}
        paths = [write(folder / f"{name}-{compression}.tar", data) for name, data in made.items()]
        yield list(map(str, paths)), {"compression": compression}
    # Layers over several blocks of a parallel compression, and one with no layer at all.
    large = Image(
        layers=(Layer.of({"noise": os.urandom(3 << 20), "zeros": bytes(3 << 20)}), Layer.of({"text": b"some text\n" * 200_000})),
        tags=(f"{HOST}/made-gzip/large:v1", f"{HOST}/made-gzip/large:another"),
    )
    yield [str(write(folder / "large.tar", docker_legacy(large)))], {}
    yield [str(write(folder / "empty.tar", docker_legacy(Image(layers=(), tags=(f"{HOST}/made-gzip/empty:v1",)))))], {}


def _loaded(result: dict[str, Any]) -> Iterator[Loaded]:
    layers: dict[tuple[str, int], list[str]] = {}
    kinds: dict[tuple[str, int], set[str]] = {}
    for layer in result["layers"]:
        key = layer["archive"], layer["image_index"]
        layers.setdefault(key, []).append(layer["diff_id"])
        kinds.setdefault(key, set()).add(layer["media_type"].rpartition(".tar")[2].strip("+.") or "none")
    assert result["images"] and {row["status"] for row in result["images"]} == {"loaded"}, result["issues"]
    for row in result["images"]:
        key = row["archive"], row["image_index"]
        (kind,) = kinds.get(key, {"gzip"})
        path = f"{row['organization']}/{row['repository']}"
        values = (row["image_id"], row["manifest_digest"], row["media_type"], tuple(layers.get(key, ())), kind)
        yield Loaded(row["archive"], row["reference"], path, row["tag"], *values)


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory, archives_dir: Path, registry_server: Callable[[Path], Registry]
) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    made = Shop(folder / "store", folder / "config.yml")
    swrbatch("init", "--store", str(made.store), "--registry", HOST)
    for archives, given in _produce(folder, archives_dir):
        options = {"profile": "none", **given}
        if Path(archives[0]).name in ("docker20-single.tar", "large.tar"):
            argv = [word for name, value in options.items() for word in (f"--{name}", value)]
            result = json.loads(swrbatch("import", *archives, "--store", str(made.store), "--format", "json", *argv))
        else:
            # Not the command: a process for each of them would take most of this file's time.
            result = import_archives(archives, made.store, cancel=None, **options).to_dict()
        made.rows += _loaded(result)
    assert len({row.reference for row in made.rows}) == len(made.rows) > 60
    check_sound(made.store)
    made.config.write_text(swrbatch("serve-config", "--store", str(made.store)))
    made.registry = registry_server(made.config)
    yield made
    made.registry.stop()


def chosen(shop: Shop, *compressions: str) -> list[Loaded]:
    return [row for row in shop.rows if row.layers in compressions]


# --- the HTTP API ------------------------------------------------------------------------------------------------------


def test_the_configuration(shop: Shop) -> None:
    config = yaml.safe_load(shop.config.read_text())
    assert config["storage"]["filesystem"] == {"rootdirectory": str(shop.store)}
    assert config["storage"]["maintenance"] == {"readonly": {"enabled": True}}
    assert "cache" not in config["storage"] and config["http"] == {"addr": "127.0.0.1:5000"}
    out = swrbatch("serve-config", "--store", str(shop.store), "--writable", "--addr", "127.0.0.1:5055")
    config = yaml.safe_load(out)
    assert "maintenance" not in config["storage"] and config["storage"]["delete"] == {"enabled": True}
    assert config["http"] == {"addr": "127.0.0.1:5055"}


def listed(registry: Registry) -> set[str]:
    """Everything that a registry says it has, by its catalog and its lists of tags."""
    found: set[str] = set()
    page: str | None = "/v2/_catalog?n=7"
    while page is not None:
        status, headers, body = registry.get(page)
        assert status == 200
        for path in json.loads(body)["repositories"]:
            status, _, tags = registry.get(f"/v2/{path}/tags/list")
            assert status == 200
            found |= {f"{path}:{tag}" for tag in json.loads(tags)["tags"] or ()}
        link = headers.get("link")
        page = link[1 : link.index(">")] if link else None
    return found


def test_catalog_and_tags_are_those_of_the_store(shop: Shop) -> None:
    assert shop.registry is not None
    with Store(shop.store) as store:
        ours = {f"{row['organization']}/{row['repository']}:{row['tag']}" for row in store.images()}
    assert listed(shop.registry) == ours == {f"{row.path}:{row.tag}" for row in shop.rows}


def test_every_blob_comes_over_http_as_it_is(shop: Shop) -> None:
    """Manifest by tag and by digest, config and layers: their bytes are what their digests say, their content the diff_ids."""
    assert shop.registry is not None
    seen: set[str] = set()
    for row in shop.rows:
        bodies = []
        for name in (row.tag, row.digest):
            status, headers, body = shop.registry.get(f"/v2/{row.path}/manifests/{name}", accept=MANIFESTS)
            assert (status, headers["docker-content-digest"], headers["content-type"]) == (200, row.digest, row.media_type)
            assert _digest_of(body) == row.digest
            bodies.append(json.loads(body))
        manifest = bodies[0]
        assert manifest["config"]["digest"] == row.image_id
        for position, blob in enumerate([manifest["config"], *manifest["layers"]]):
            if position and blob["digest"] in seen:
                continue
            seen.add(blob["digest"])
            status, _, body = shop.registry.get(f"/v2/{row.path}/blobs/{blob['digest']}")
            assert status == 200 and len(body) == blob["size"] and _digest_of(body) == blob["digest"]
            if position:
                assert _digest_of(plain(body)) == row.diff_ids[position - 1]
            else:
                assert tuple(json.loads(body)["rootfs"]["diff_ids"]) == row.diff_ids


def test_read_only_means_read_only(shop: Shop, peer: Callable[[str], str], tmp_path: Path) -> None:
    archive = write(tmp_path / "a.tar", docker_legacy(Image(tags=("x:1",))))
    target = f"docker://{shop.address}/real/new:v1"
    skopeo = [peer("skopeo"), "--insecure-policy", "copy", "-q", "--dest-tls-verify=false"]
    done = run(*skopeo, f"docker-archive:{archive}", target, code=None)
    assert done.returncode != 0 and "405" in done.stderr
    check_sound(shop.store)


# --- skopeo ------------------------------------------------------------------------------------------------------------


def test_skopeo_inspects_every_image(shop: Shop, peer: Callable[[str], str]) -> None:
    """The raw manifest that skopeo gets has the digest of the report, for every image."""
    skopeo = [peer("skopeo"), "inspect", "--tls-verify=false"]
    for row in shop.rows:
        assert _digest_of(run(*skopeo, "--raw", shop.url(row)).stdout.encode()) == row.digest, row
    for row in shop.rows[:3]:
        seen = json.loads(run(*skopeo, shop.url(row)).stdout)
        assert (seen["Digest"], seen["Os"], seen["Architecture"]) == (row.digest, "linux", "amd64")
        assert row.tag in seen["RepoTags"] and len(seen["Layers"]) == len(row.diff_ids)


def content_of(archive: Path) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Of a docker archive with one image: its image ID, its config's diff_ids, and those of the layers that lie in it."""
    with tarfile.open(archive) as tar:

        def read(name: str) -> bytes:
            member: IO[bytes] | None = tar.extractfile(name)  # follows links
            assert member is not None
            return member.read()

        (entry,) = json.loads(read("manifest.json"))
        config = read(entry["Config"])
        return (
            _digest_of(config),
            tuple(json.loads(config)["rootfs"]["diff_ids"]),
            tuple(_digest_of(read(n)) for n in entry["Layers"]),
        )


def copy_back(skopeo: str, shop: Shop, row: Loaded, to: Path) -> subprocess.CompletedProcess[str]:
    argv = [skopeo, "--insecure-policy", "copy", "-q", "--src-tls-verify=false", shop.url(row)]
    return run(*argv, f"docker-archive:{to}:{row.path}:{row.tag}", code=None)


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_skopeo_copies_every_image_back_to_an_archive(
    shop: Shop, peer: Callable[[str], str], tmp_path: Path, compression: str
) -> None:
    """Config and diff_ids are what they were in the archive that was imported.

    Docker 26 with the containerd store wrote Docker's media types into an OCI manifest. It is kept byte for byte, docker pulls
    it, and skopeo copies it as it is (below), but 1.9.3 does not convert it.
    """
    rows = chosen(shop, compression)
    assert len(rows) >= 8
    for number, row in enumerate(rows):
        target = tmp_path / f"{number}.tar"
        done = copy_back(peer("skopeo"), shop, row, target)
        if done.returncode and Path(row.archive).name.startswith("docker26-containerd"):
            assert MIXED in done.stderr
            continue
        assert done.returncode == 0, (row, done.stderr)
        assert content_of(target) == (row.image_id, row.diff_ids, row.diff_ids), row
        target.unlink()


NO_ZSTD: Final = "zstd compression is not supported for docker images"
MIXED: Final = 'Unknown media type during manifest conversion: \\"application/vnd.docker.image.rootfs.diff.tar.gzip\\"'


def test_skopeo_writes_no_docker_archive_of_zstd_layers(shop: Shop, peer: Callable[[str], str], tmp_path: Path) -> None:
    """1.9.3 does not convert an OCI manifest with zstd layers to Docker's; a version that does must do it rightly.

    As an OCI layout and as `dir:` it copies them (below). Another reason why `auto` stores gzip.
    """
    rows = chosen(shop, "zstd")
    assert len(rows) >= 8
    for number, row in enumerate(rows):
        target = tmp_path / f"{number}.tar"
        done = copy_back(peer("skopeo"), shop, row, target)
        if done.returncode:
            assert NO_ZSTD in done.stderr
        else:
            assert content_of(target) == (row.image_id, row.diff_ids, row.diff_ids), row


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("form", ["oci", "dir"])
def test_skopeo_copies_every_image_to_its_other_forms(
    shop: Shop, peer: Callable[[str], str], tmp_path: Path, compression: str, form: str
) -> None:
    """With the digests as they are: manifest, config, and layers whose content has the diff_ids."""
    for number, row in enumerate(chosen(shop, compression)):
        if form == "oci" and row.media_type != OCI_MANIFEST:
            continue  # it would have to be converted
        target = tmp_path / str(number)
        argv = [peer("skopeo"), "--insecure-policy", "copy", "-q", "--preserve-digests", "--src-tls-verify=false", shop.url(row)]
        run(*argv, f"{form}:{target}:v1" if form == "oci" else f"{form}:{target}")
        blobs = target / "blobs/sha256" if form == "oci" else target
        manifest = blobs / row.digest[7:] if form == "oci" else target / "manifest.json"
        assert _digest_of(manifest.read_bytes()) == row.digest
        assert _digest_of((blobs / row.image_id[7:]).read_bytes()) == row.image_id
        stored = [(blobs / layer["digest"][7:]).read_bytes() for layer in json.loads(manifest.read_bytes())["layers"]]
        assert tuple(_digest_of(plain(data)) for data in stored) == row.diff_ids
        shutil.rmtree(target)


def test_what_was_copied_back_is_unchanged_when_imported(shop: Shop, peer: Callable[[str], str], tmp_path: Path) -> None:
    """Round trip: the archive that skopeo wrote of an image is the image that is there already."""
    rows = [row for row in chosen(shop, "gzip") if Path(row.archive).stem.removesuffix("-gzip") in ("docker25", "crane", "nix")]
    assert len(rows) == 3
    for row in rows:
        store, target = tmp_path / f"store-{row.tag}-{row.path.replace('/', '-')}", tmp_path / "back.tar"
        assert import_archives([row.archive], store).exit_code == 0
        assert copy_back(peer("skopeo"), shop, row, target).returncode == 0
        result = import_archives([target], store, retag=[f"*={HOST}/{row.path}:{row.tag}"])
        assert [(found.status, found.image_id) for found in result.images] == [("unchanged", row.image_id)]
        assert all(layer.reused for layer in result.layers)
        target.unlink()


# --- a docker engine ---------------------------------------------------------------------------------------------------


def test_a_docker_engine_pulls_and_shows_the_image_id(shop: Shop, dockerd: Engine) -> None:
    """The ID that the engine shows is the digest of the config: every image with gzip layers, and some with plain ones."""
    rows = [*chosen(shop, "gzip"), *chosen(shop, "none")[:3]]
    for row in rows:
        name = f"{shop.address}/{row.path}:{row.tag}"
        pulled = dockerd.run("pull", name)
        assert f"Digest: {row.digest}" in pulled.stdout, row
        shown = dockerd.run("images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}").stdout.splitlines()
        assert f"{row.image_id} {name}" in shown
        inspected = json.loads(dockerd.run("inspect", name).stdout)[0]
        assert tuple(inspected["RootFS"].get("Layers") or ()) == row.diff_ids
    dockerd.run("rmi", *(f"{shop.address}/{row.path}:{row.tag}" for row in rows))


def test_an_engine_older_than_zstd_says_so(shop: Shop, dockerd: Engine) -> None:
    """zstd layers need Docker 23 or newer (containerd's decompression): that is why `auto` stores gzip."""
    version = dockerd.run("version", "--format", "{{.Server.Version}}").stdout
    major = int(version.partition(".")[0])
    for row in [row for row in chosen(shop, "zstd") if row.diff_ids][:2]:
        done = dockerd.run("pull", f"{shop.address}/{row.path}:{row.tag}", check=False)
        assert (done.returncode == 0) == (major >= 23), done.stdout + done.stderr


def test_pulled_again_after_the_tag_was_overwritten(
    shop: Shop, dockerd: Engine, tmp_path: Path, registry_server: Callable[[Path], Registry]
) -> None:
    """Imported over while it is served: the next pull gets the new image, without a restart."""
    store, archive = tmp_path / "store", tmp_path / "a.tar"
    ids = []
    registry = None
    for number in range(2):
        image = Image(layers=(Layer.of({"own": b"%d" % number}),), tags=(f"{HOST}/team/again:v1",))
        import_archives([write(archive, nix(image))], store)
        if registry is None:
            registry = registry_server(write(tmp_path / "config.yml", swrbatch("serve-config", "--store", str(store)).encode()))
        name = f"{registry.address}/team/again:v1"
        dockerd.run("pull", name)
        ids.append(dockerd.run("images", "--no-trunc", "--quiet", name).stdout.strip())
        assert ids[-1] == image.image_id
    assert ids[0] != ids[1]
    assert registry is not None
    registry.stop()


# --- garbage collection ------------------------------------------------------------------------------------------------


def collected(registry: str, config: Path, *options: str) -> tuple[set[str], set[str]]:
    """What `registry garbage-collect` marks, and what it would delete; no line of an error."""
    done = run(registry, "garbage-collect", *options, str(config))
    lines = (done.stdout + done.stderr).splitlines()
    assert not [line for line in lines if "level=error" in line or "level=fatal" in line or "failed" in line], lines
    marked = {word for line in lines for word in line.split() if word.startswith("sha256:") and "marking" in line}
    doomed = {line.rpartition(" ")[2] for line in lines if "blob eligible for deletion" in line}
    doomed |= {line for line in lines if "manifest eligible for deletion" in line}
    return marked, doomed


@pytest.mark.parametrize("options", [("--dry-run",), ("--dry-run", "--delete-untagged")])
def test_garbage_collection_finds_nothing_to_delete(shop: Shop, peer: Callable[[str], str], options: Sequence[str]) -> None:
    marked, doomed = collected(peer("docker-registry"), shop.config, *options)
    assert doomed == set()
    assert {row.digest for row in shop.rows} | {row.image_id for row in shop.rows} <= marked
    blobs = {f"sha256:{data.parent.name}" for data in shop.store.rglob("data")}
    assert marked == blobs


def test_garbage_collection_of_a_store_with_refused_and_crashed_loads(peer: Callable[[str], str], tmp_path: Path) -> None:
    """Only what no tag refers to goes, and what stays is sound; then the store is imported into again."""
    store, config = tmp_path / "store", tmp_path / "config.yml"
    archives = []
    for number in range(3):
        image = Image(layers=(Layer.of({"own": b"%d" % number}),), tags=(f"{HOST}/team/app:v1",))
        archives.append(write(tmp_path / f"{number}.tar", docker_legacy(image)))
    import_archives(archives[:1], store)
    import_archives(archives[1:2], store)  # overwrites: the first one's manifest has a revision, and no tag any more
    config.write_text(swrbatch("serve-config", "--store", str(store), "--writable"))
    assert collected(peer("docker-registry"), config, "--dry-run")[1] == set()
    _, doomed = collected(peer("docker-registry"), config, "--delete-untagged")
    assert doomed
    # The map notes a layer that the registry deleted: nothing else is wrong, and no import believes it.
    assert [found.code for found in issues_of(store)] == ["map-stale"]
    assert import_archives(archives, store).exit_code == 0
    assert list(check_sound(store)) == ["team/app:v1"]


def issues_of(store: Path) -> list[Any]:
    with Store(store) as opened:
        return list(verify_store(opened, deep=True).issues)


# --- pushes into the served store --------------------------------------------------------------------------------------


def test_pushes_into_the_store_and_imports_live_together(
    peer: Callable[[str], str], tmp_path: Path, registry_server: Callable[[Path], Registry]
) -> None:
    store = tmp_path / "store"
    mine = write(tmp_path / "mine.tar", docker_legacy(Image(tags=(f"{HOST}/team/app:v1",))))
    theirs = write(tmp_path / "theirs.tar", docker_legacy(Image(layers=(Layer.of({"theirs": b"x"}),), tags=("theirs:v1",))))
    import_archives([mine], store)
    ours = check_sound(store)["team/app:v1"]
    config = write(tmp_path / "config.yml", swrbatch("serve-config", "--store", str(store), "--writable").encode())
    with registry_server(config) as registry:
        push = [peer("skopeo"), "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", f"docker-archive:{theirs}"]

        def served() -> str:
            return registry.get("/v2/team/app/manifests/v1", accept=MANIFESTS)[1]["docker-content-digest"]

        # One more tag, into a repository of ours and into one of its own.
        for name in ("team/app:pushed", "elsewhere/tool:v1"):
            run(*push, f"docker://{registry.address}/{name}")
        swrbatch("import", str(mine), "--store", str(store))
        assert listed(registry) == {"team/app:v1", "team/app:pushed", "elsewhere/tool:v1"}
        told = json.loads(swrbatch("verify", "--deep", "--store", str(store), "--format", "json"))
        assert told["ok"] and [(f["code"], f["severity"], f["place"]) for f in told["issues"]] == [
            ("foreign-tag", "warning", "elsewhere/tool:v1"),
            ("foreign-tag", "warning", "team/app:pushed"),
        ]

        # Over a tag that was imported.
        run(*push, f"docker://{registry.address}/team/app:v1")
        foreign = served()
        assert foreign != ours
        out = swrbatch("verify", "--store", str(store))
        assert "warning foreign-overwrite: team/app:v1 was pushed over by something else" in out and "the store is sound" in out

        # Imported again, ours is back: the newest upload is kept.
        (row,) = json.loads(swrbatch("import", str(mine), "--store", str(store), "--format", "json"))["images"]
        assert (row["status"], row["previous_digest"], row["manifest_digest"]) == ("overwritten", foreign, ours)
        assert served() == ours
        assert {found.code for found in issues_of(store)} == {"foreign-tag"}

        # A foreign tag becomes known when its image is imported under its name.
        result = import_archives([theirs], store, retag=[f"*={HOST}/team/app:pushed"])
        assert [(known.status, known.previous_digest) for known in result.images] == [
            ("loaded" if result.images[0].manifest_digest == foreign else "overwritten", foreign)
        ]
        assert [found.place for found in issues_of(store)] == ["elsewhere/tool:v1"]


def test_skopeo_pushes_while_imports_run(
    peer: Callable[[str], str], tmp_path: Path, registry_server: Callable[[Path], Registry]
) -> None:
    """Both write at once; every tag of both is there afterwards, and nothing of one is lost to the other."""
    store = tmp_path / "store"
    archives = [
        write(
            tmp_path / f"{n}.tar", docker_legacy(Image(layers=(Layer.of({"own": b"%d" % n}),), tags=(f"{HOST}/team/app:v{n}",)))
        )
        for n in range(40)
    ]
    import_archives(archives[:1], store)
    config = write(tmp_path / "config.yml", swrbatch("serve-config", "--store", str(store), "--writable").encode())
    with registry_server(config) as registry:
        argv = [peer("skopeo"), "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", f"docker-archive:{archives[0]}"]
        with contextlib.ExitStack() as stack:
            pushes = [
                stack.enter_context(subprocess.Popen([*argv, f"docker://{registry.address}/team/app:pushed{n}"]))
                for n in range(4)
            ]
            result = import_archives(archives, store, jobs=2)
        assert [push.returncode for push in pushes] == [0] * 4 and result.exit_code == 0
        assert listed(registry) == {f"team/app:v{n}" for n in range(40)} | {f"team/app:pushed{n}" for n in range(4)}
    assert {(found.code, found.place) for found in issues_of(store)} == {("foreign-tag", f"team/app:pushed{n}") for n in range(4)}


# --- what producers' users know ----------------------------------------------------------------------------------------


def test_kept_manifests_have_the_digests_of_the_archives(shop: Shop, archives_dir: Path) -> None:
    """Docker 26 with the containerd store: the digest that `docker images --digests` shows is the one that is served."""
    for name in ("docker26-containerd-single.tar", "docker26-containerd-two-images.tar"):
        with tarfile.open(archives_dir / name) as tar:
            index = tar.extractfile("index.json")
            assert index is not None
            wanted = {entry["digest"] for entry in json.load(index)["manifests"]}
        assert {row.digest for row in shop.rows if Path(row.archive).name == name} == wanted


def test_one_image_of_many_archives_is_one_image(shop: Shop) -> None:
    """docker, podman and skopeo wrote the same image: it has one ID, one manifest, and its layers are there once."""
    same = [row for row in shop.rows if row.path.startswith("real/") and row.image_id.startswith("sha256:f8ecab3b2507")]
    assert len(same) >= 8 and len({row.digest for row in same}) == 1
