"""Archives are read: of every producer, under every compression, from files, pipes and FIFOs; and nothing is left behind."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from conftest import ROOT
from hostile import GIB, LAYER, MANIFEST, MIB, PARTS, layer_at, manifest, zeros
from imagetar import (
    BUNDLES,
    HELLO,
    OCI_CONFIG,
    PRODUCERS,
    TAG,
    Compression,
    Image,
    Layer,
    TarBuilder,
    compress,
    containerd,
    crane,
    docker25,
    docker_legacy,
    files,
    oci_manifest,
    outer,
    sha256,
    tar_of,
    to_json,
)
from swrbatch import Cancel, RunResult, Store, StoreError, check_archives, import_archives
from swrbatch.archive import open_archive
from swrbatch.errors import ArchiveFault
from swrbatch.image import parse_json
from swrbatch.validate import fold_manifest, manifest_fits
from swrbatch.verify import verify_store

ARCHIVES = ROOT / "fixtures" / "archives"
EXPECTED: dict[str, Any] = json.loads((ROOT / "fixtures" / "expected.json").read_text())["archives"]
COMPRESSIONS: list[Compression] = ["none", "gzip", "zstd", "xz", "bzip2"]
FREE: dict[str, Any] = {"profile": "none"}

IMAGE = Image()
WORKER = Image(  # more tags than one, and a layer that is used twice
    layers=(*HELLO, Layer.of({"srv/worker": b"#!/bin/sh\n"}), HELLO[0]),
    tags=("swr.cn-north-1.example.com/team/worker:2.0.0", "swr.cn-north-1.example.com/team/worker:latest"),
)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def errors(result: RunResult) -> list[str]:
    return [row.code for row in result.issues if row.severity == "error"]


def warnings(result: RunResult) -> set[str]:
    return {row.code for row in result.issues if row.severity == "warning"}


def read_back(result: RunResult) -> list[tuple[str, tuple[str, ...], list[str]]]:
    """Image ID, names and diff_ids of each image, out of a run's rows."""
    found: dict[int, tuple[str, list[str]]] = {}
    for row in result.images:
        found.setdefault(row.image_index, (str(row.image_id), []))[1].append(str(row.original_reference))
    layers: dict[int, list[str]] = {}
    for layer in result.layers:
        layers.setdefault(layer.image_index, []).append(layer.diff_id)
    return [(image_id, tuple(names), layers.get(index, [])) for index, (image_id, names) in sorted(found.items())]


def truth(*images: Image) -> list[tuple[str, tuple[str, ...], list[str]]]:
    return [(image.image_id, image.tags, [layer.diff_id for layer in image.layers]) for image in images]


def command(*args: str | Path, **how: Any) -> subprocess.Popen[bytes]:
    """`swrbatch ARGS` as a process, its streams in pipes."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **how.pop("env", {})}
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
    return subprocess.Popen([sys.executable, "-m", "swrbatch", *map(str, args)], env=env, **streams)


def ended(process: subprocess.Popen[bytes], data: bytes | None = None) -> tuple[int, str, str]:
    out, err = process.communicate(data, timeout=60)
    assert b"Traceback" not in err, err.decode()
    return process.returncode, out.decode(), err.decode()


# --- producers -------------------------------------------------------------------------------------------------------

HYBRID, PLAIN = "docker-oci-hybrid", "docker-archive"
MADE_BY: dict[str, tuple[str, str]] = {
    "docker-legacy": (PLAIN, "docker 1.10-24"),
    "docker-legacy-parents": (PLAIN, "docker 1.10-24"),
    "docker25": (HYBRID, "docker 25+"),
    "containerd": (HYBRID, "docker with containerd, nerdctl or buildkit"),
    "containerd-nested": (HYBRID, "docker with containerd, nerdctl or buildkit"),
    "containerd-gzip": (HYBRID, "docker with containerd, nerdctl or buildkit"),
    "containerd-zstd": (HYBRID, "docker with containerd, nerdctl or buildkit"),
    "skopeo": (PLAIN, "podman or skopeo"),
    "crane": (PLAIN, "crane, ko, kaniko or apko"),
    "crane-zstd": (PLAIN, "crane, ko, kaniko or apko"),
    "jib": (PLAIN, "jib"),
    "jib-lower-case": (PLAIN, "jib"),
    "rules-docker": (PLAIN, "bazel rules_docker"),
    "rules-oci": (PLAIN, "bazel rules_oci"),
    "nix": (PLAIN, "docker 1.10-24"),  # the same form, compressed as a whole
}


@pytest.mark.parametrize("name", PRODUCERS)
def test_an_image_of_every_producer(name: str, tmp_path: Path) -> None:
    result = check_archives([write(tmp_path / "a", PRODUCERS[name](IMAGE))])
    assert errors(result) == []
    assert read_back(result) == truth(IMAGE)
    (row,) = result.archives
    assert (row.format, row.producer_hint) == MADE_BY[name]
    assert (row.status, row.images) == ("valid", 1)
    assert row.bytes == (tmp_path / "a").stat().st_size
    assert warnings(result) <= ({"attestations-left-out", "platforms-left-out"} if "nested" in name else set())
    image = result.images[0]
    assert (image.architecture, image.os, image.created, image.docker_version) == ("amd64", "linux", IMAGE.created, None)
    assert (image.layers, image.uncompressed_bytes) == (2, sum(len(layer.tar) for layer in IMAGE.layers))
    assert [layer.created_by for layer in result.layers] == ["COPY layer 0 /", "COPY layer 1 /"]


@pytest.mark.parametrize("name", BUNDLES)
def test_several_images_of_every_producer(name: str, tmp_path: Path) -> None:
    result = check_archives([write(tmp_path / "a", BUNDLES[name](IMAGE, WORKER))])
    assert (errors(result), warnings(result)) == ([], set())
    assert read_back(result) == truth(IMAGE, WORKER)
    assert (result.archives[0].format, result.archives[0].producer_hint) == MADE_BY[name]
    assert [row.status for row in result.images] == ["valid"] * 3


@pytest.mark.parametrize("name", PRODUCERS)
def test_every_producer_s_image_is_loaded_as_it_is(name: str, tmp_path: Path) -> None:
    """The config byte for byte, and layers that unpack to the diff_ids in it: `verify --deep` hashes both."""
    result = import_archives([write(tmp_path / "a", PRODUCERS[name](IMAGE))], tmp_path / "store")
    assert errors(result) == [] and read_back(result) == truth(IMAGE)
    with Store(tmp_path / "store") as store:
        assert verify_store(store, deep=True).issues == []
        blob = store.layout.base + f"/blobs/sha256/{IMAGE.hex[:2]}/{IMAGE.hex}/data"
        assert Path(blob).read_bytes() == IMAGE.config
        (listed,) = store.images()
        assert (listed["reference"], listed["image_id"]) == (TAG, IMAGE.image_id)


def test_the_case_of_keys_does_not_count(tmp_path: Path) -> None:
    entry = {"CONFIG": f"{IMAGE.hex}.json", "repotags": [TAG], "lAyErS": [name for name in files(IMAGE) if name.endswith(".tar")]}
    result = check_archives([write(tmp_path / "a", tar_of({**files(IMAGE), MANIFEST: to_json([entry])}))])
    assert errors(result) == [] and read_back(result) == truth(IMAGE)


def test_an_image_without_layers(tmp_path: Path) -> None:
    for tar in (containerd(replace(IMAGE, layers=())), docker_legacy(replace(IMAGE, layers=()))):
        result = import_archives([write(tmp_path / "a", tar)], tmp_path / "store")
        assert errors(result) == [] and warnings(result) == {"image-without-layers"}
    with Store(tmp_path / "store") as store:
        assert verify_store(store, deep=True).ok


# --- compressions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", [1, 5])
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("form", ["docker-legacy", "docker25", "skopeo"])
def test_every_outer_compression(form: str, compression: Compression, members: int, tmp_path: Path) -> None:
    """Whatever the file's name says, and with as many gzip members, zstd frames, or streams as anybody likes."""
    tar = PRODUCERS[form](IMAGE)
    path = write(tmp_path / "archive.tar.gz", outer(tar, compression, members))
    result = check_archives([path], hash_archives=True, **FREE)
    assert errors(result) == [] and read_back(result) == truth(IMAGE)
    (row,) = result.archives
    assert (row.outer_compression, row.bytes, row.uncompressed_bytes) == (compression, path.stat().st_size, len(tar))
    assert row.sha256 == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("target", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_layers_of_every_compression(compression: Compression, target: str, tmp_path: Path) -> None:
    """gzip and zstd are stored as they are, the others as asked for; what is checked is the content."""
    image = replace(IMAGE, layers=(*HELLO, Layer.of({"big": bytes(3 * MIB) + b"x"}))).stored(compression)
    path = write(tmp_path / "a", crane(image, compression=compression))
    result = import_archives([path], tmp_path / "store", compression=target)
    assert errors(result) == [] and read_back(result) == truth(image)
    uncompressed = sum(len(layer.tar) for layer in image.layers)
    assert result.images[0].uncompressed_bytes == uncompressed
    unpacked = path.stat().st_size - sum(len(layer.blob) for layer in image.layers) + uncompressed
    assert result.archives[0].uncompressed_bytes == (path.stat().st_size if compression == "none" else unpacked)
    kept = compression in ("gzip", "zstd")
    assert (([row.digest for row in result.layers]) == [layer.digest for layer in image.layers]) is (
        kept or (compression == target == "none")
    )
    stored = compression if kept else target
    oci = "application/vnd.oci.image.layer.v1.tar"
    types = {"gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip", "zstd": f"{oci}+zstd", "none": oci}
    assert {row.media_type for row in result.layers} == {types[stored]}
    with Store(tmp_path / "store") as store:
        verified = verify_store(store, deep=True)
        assert verified.issues == [] and verified.unreferenced == 0


def test_layers_of_different_compressions_in_one_image(tmp_path: Path) -> None:
    layers = tuple(Layer.of({"file": c.encode() * 100}, c) for c in COMPRESSIONS)
    image = replace(IMAGE, layers=layers)
    result = import_archives([write(tmp_path / "a", tar_of(files(image)))], tmp_path / "store")
    assert errors(result) == [] and read_back(result) == truth(image)
    with Store(tmp_path / "store") as store:
        assert verify_store(store, deep=True).issues == []


# --- real archives ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPECTED)
def test_real_archives_are_what_they_are_expected_to_be(name: str) -> None:
    want = EXPECTED[name]
    result = check_archives([ARCHIVES / name], hash_archives=True)
    (row,) = result.archives
    assert (row.outer_compression, row.bytes) == (want["outer_compression"], want["bytes"])
    assert row.sha256 == f"sha256:{want['sha256']}"
    assert (row.status, errors(result)) == (want["check"]["status"], want["check"]["codes"])
    assert row.images == len(want["images"])
    if want["images"]:
        assert row.format == want["format"]
    for position, image in enumerate(want["images"]):
        rows = [each for each in result.images if each.image_index == position]
        assert {each.image_id for each in rows} == {image["image_id"]}
        assert [each.original_reference for each in rows if each.original_reference] == image["tags"]
        assert {each.layers for each in rows} == {image["layers"]}
        assert {each.uncompressed_bytes for each in rows} == {image["uncompressed_layer_bytes"]}
    # (Layers of a rejected image are read as well: all faults are found in one go.)
    assert len(result.layers) == sum(image["layers"] for image in want["images"])


def test_every_real_archive_has_its_expectation() -> None:
    assert set(EXPECTED) == {path.name for path in ARCHIVES.iterdir()} - {"MANIFEST.tsv", "PROVENANCE.md"}


@pytest.mark.parametrize("name", [name for name, want in EXPECTED.items() if want["check"]["status"] == "valid"])
def test_real_archives_keep_their_manifest_if_its_layers_are_compressed(name: str, tmp_path: Path) -> None:
    images = EXPECTED[name]["images"]
    result = import_archives([ARCHIVES / name], tmp_path / "store")
    assert errors(result) == []
    for row in result.images:
        image = images[row.image_index]
        kept = image["layer_compression"] == "gzip" and "oci_manifest_digest" in image
        assert (row.manifest_digest == image.get("oci_manifest_digest")) is kept
    with Store(tmp_path / "store") as store:
        assert verify_store(store, deep=True).issues == []


# --- manifests that are kept -----------------------------------------------------------------------------------------


def stored_manifest(store: Path, digest: str | None) -> bytes:
    hexa = str(digest).removeprefix("sha256:")
    return (store / "docker/registry/v2/blobs/sha256" / hexa[:2] / hexa / "data").read_bytes()


KEPT: dict[str, tuple[Callable[..., bytes], Image, str]] = {
    "gzip": (containerd, IMAGE.stored("gzip"), "auto"),
    "zstd": (containerd, IMAGE.stored("zstd"), "auto"),
    "zstd-when-gzip-is-asked-for": (containerd, IMAGE.stored("zstd"), "gzip"),
    "gzip-nested": (partial(containerd, nested=True, attestation=True), IMAGE.stored("gzip"), "auto"),
    "plain-when-none-is-asked-for": (docker25, IMAGE, "none"),
    "one-layer-twice": (containerd, replace(WORKER, tags=(TAG,)).stored("gzip"), "auto"),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_manifest_that_agrees_is_kept_byte_for_byte(name: str, tmp_path: Path) -> None:
    make, image, compression = KEPT[name]

    def own_style(made: dict[str, Any]) -> None:
        made["annotations"] = {"org.example": "kept — ünïcode"}

    path = write(tmp_path / "a", make(image, edit=own_style))
    result = import_archives([path], tmp_path / "store", compression=compression)
    assert errors(result) == [] and warnings(result) <= {"attestations-left-out"}
    (row,) = result.images
    assert row.manifest_digest == "sha256:" + sha256(oci_manifest(image, own_style))
    assert stored_manifest(tmp_path / "store", row.manifest_digest) == oci_manifest(image, own_style)
    assert (row.source_index_digest is not None) is ("nested" in name)
    with Store(tmp_path / "store") as store:
        assert verify_store(store, deep=True).issues == []


def test_plain_layers_that_are_compressed_get_a_new_manifest(tmp_path: Path) -> None:
    result = import_archives([write(tmp_path / "a", docker25(IMAGE))], tmp_path / "store")
    assert errors(result) == [] and warnings(result) == set()
    assert result.images[0].manifest_digest != "sha256:" + sha256(oci_manifest(IMAGE))


def doubled_key(raw: bytes) -> bytes:
    return raw.replace(b'"config":', b'"config":{"size":1},"config":', 1)


def other_case(raw: bytes) -> bytes:
    """A second list of layers, that only those see who read keys without regard to case, as Go does."""
    return raw.replace(b'"layers":', b'"LAYERS":[],"layers":', 1)


GZIPPED = IMAGE.stored("gzip")
Edit = Callable[[dict[str, Any]], Any]
NOT_KEPT: dict[str, Edit] = {
    "config-size": lambda made: made["config"].update(size=1),
    "config-type": lambda made: made["config"].update(mediaType="application/vnd.example+json"),
    "layer-missing": lambda made: made["layers"].pop(),
    "layer-size": lambda made: made["layers"][0].update(size=1),
    "layer-digest": lambda made: made["layers"][0].update(digest="sha256:" + "0" * 64),
    "layer-order": lambda made: made["layers"].reverse(),
    "layer-type-plain": lambda made: made["layers"][0].update(mediaType="application/vnd.oci.image.layer.v1.tar"),
    "layer-type-zstd": lambda made: made["layers"][0].update(mediaType="application/vnd.oci.image.layer.v1.tar+zstd"),
    "layer-type-unknown": lambda made: made["layers"][0].update(mediaType="text/plain"),
    "schema-version-1": lambda made: made.update(schemaVersion=1),
    "schema-version-missing": lambda made: made.pop("schemaVersion"),
    "an-index-as-well": lambda made: made.update(manifests=[]),
    "no-layers-at-all": lambda made: made.pop("layers"),
    "type-of-an-index": lambda made: made.update(mediaType="application/vnd.oci.image.index.v1+json"),
    "key-in-capitals": lambda made: made.update(LAYERS=[]),
    "key-that-go-folds": lambda made: made.update({"layer\u017f": []}),
    "descriptor-key-in-capitals": lambda made: made["layers"][0].update(Digest="sha256:" + "0" * 64),
}


@pytest.mark.parametrize("name", NOT_KEPT)
def test_a_manifest_that_could_mislead_is_made_anew(name: str, tmp_path: Path) -> None:
    """The image loads with a warning, and what is stored is the manifest that swrbatch makes for these layers."""
    other = import_archives([write(tmp_path / "b", crane(GZIPPED))], tmp_path / "plain")
    result = import_archives([write(tmp_path / "a", containerd(GZIPPED, edit=NOT_KEPT[name]))], tmp_path / "store")
    assert errors(result) == [] and warnings(result) & {"oci-manifest-differs", "index-disagrees"}
    assert result.images[0].manifest_digest == other.images[0].manifest_digest
    with Store(tmp_path / "store") as store:
        assert verify_store(store, deep=True).issues == []


@pytest.mark.parametrize("change", [doubled_key, other_case])
def test_a_manifest_that_is_read_in_two_ways_is_made_anew(change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    good = oci_manifest(GZIPPED)
    bad = change(good)
    assert json.loads(bad) != json.loads(good) or b'"config"' in bad
    data = containerd(GZIPPED)
    parts = {f"blobs/sha256/{sha256(layer.blob)}": layer.blob for layer in GZIPPED.layers}
    parts |= {f"blobs/sha256/{GZIPPED.hex}": GZIPPED.config, f"blobs/sha256/{sha256(bad)}": bad}
    index = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:" + sha256(bad), "size": len(bad)}
    parts |= {"index.json": to_json({"schemaVersion": 2, "manifests": [index]})}
    layers = [name for name in parts if name not in (f"blobs/sha256/{GZIPPED.hex}", f"blobs/sha256/{sha256(bad)}", "index.json")]
    parts[MANIFEST] = to_json([{"Config": f"blobs/sha256/{GZIPPED.hex}", "RepoTags": [TAG], "Layers": layers}])
    del data
    result = import_archives([write(tmp_path / "a", tar_of(parts))], tmp_path / "store")
    assert errors(result) == [] and warnings(result) == {"index-disagrees"}
    assert result.images[0].manifest_digest != "sha256:" + sha256(bad)


def test_a_config_type_of_docker_is_as_good(tmp_path: Path) -> None:
    def docker(made: dict[str, Any]) -> None:
        assert made["config"]["mediaType"] == OCI_CONFIG
        made["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"

    result = import_archives([write(tmp_path / "a", containerd(GZIPPED, edit=docker))], tmp_path / "store")
    assert (errors(result), warnings(result)) == ([], set())
    assert result.images[0].manifest_digest == "sha256:" + sha256(oci_manifest(GZIPPED, docker))


# --- duplicates and links --------------------------------------------------------------------------------------------


def linked(name: str, *targets: str) -> bytes:
    """`name` is a link, and stands once for each target; what it names are files of the archive."""
    tar = TarBuilder().files({"real" if each == name else each: data for each, data in PARTS.items()})
    tar.member("other", b"[]" if name == MANIFEST else b"something else")
    for target in targets:
        tar.symlink(name, target)
    return tar.end().getvalue()


@pytest.mark.parametrize("name", [MANIFEST, LAYER])
def test_a_link_that_stands_twice_is_no_guess(name: str, tmp_path: Path) -> None:
    assert errors(check_archives([write(tmp_path / "a", linked(name, "real", "real"))])) == []
    assert errors(check_archives([write(tmp_path / "a", linked(name, "other", "real"))])) == ["duplicate-members"]


@pytest.mark.parametrize("name", ["first", "second", LAYER])
def test_every_member_that_a_link_leads_through_counts_as_used(name: str, tmp_path: Path) -> None:
    chain = layer_at("./first", lambda tar: tar.symlink("first", "second").symlink("second", LAYER))
    assert errors(check_archives([write(tmp_path / "a", chain)])) == []
    result = check_archives([write(tmp_path / "a", TarBuilder().member(name, b"another").raw(chain).getvalue())])
    assert errors(result) == ["duplicate-members"]
    assert [row.place for row in result.issues if row.severity == "error"] == [name]


def test_a_name_with_dot_slash_in_the_manifest_is_used_too(tmp_path: Path) -> None:
    parts = {**PARTS, MANIFEST: manifest(Layers=[f"./{LAYER}"])}
    assert errors(check_archives([write(tmp_path / "a", tar_of(parts))])) == []
    doubled = TarBuilder().member(LAYER, b"another").raw(tar_of(parts)).getvalue()
    assert errors(check_archives([write(tmp_path / "a", doubled)])) == ["duplicate-members"]


# --- pipes and FIFOs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["docker20-single.tar", "docker20-single.tar.gz", "docker26-single.tar.zst", "docker20-by-id.tar"]
)
def test_standard_input(name: str) -> None:
    """`docker save NAME | swrbatch check -`, the real command behind a real pipe."""
    want, data = EXPECTED[name], (ARCHIVES / name).read_bytes()
    free = () if want["outer_compression"] in ("none", "gzip") else ("--profile", "none")
    process = command("check", "-", "--format", "json", "--hash-archives", *free)
    code, out, _ = ended(process, data)
    result = json.loads(out)
    (row,) = result["archives"]
    codes = [] if free else want["check"]["codes"]
    assert code == bool(codes)
    assert (row["archive"], row["bytes"], row["sha256"]) == ("-", len(data), f"sha256:{want['sha256']}")
    assert (row["outer_compression"], row["format"]) == (want["outer_compression"], want["format"])
    assert [image["image_id"] for image in result["images"]] == [image["image_id"] for image in want["images"]]
    assert [each["code"] for each in result["issues"] if each["severity"] == "error"] == codes


def test_standard_input_is_imported_piece_by_piece(tmp_path: Path) -> None:
    """A slow writer: the archive is taken as it comes."""
    with command("import", "-", "--store", tmp_path / "store", "--format", "json") as process:
        assert process.stdin is not None
        for piece in (data := docker_legacy(IMAGE, WORKER))[: 4 * 512], data[4 * 512 : 5 * 512 + 3], data[5 * 512 + 3 :]:
            process.stdin.write(piece)
            process.stdin.flush()
            time.sleep(0.1)
        code, out, _ = ended(process)
    assert (code, json.loads(out)["run"]["loaded"]) == (0, 3)
    with Store(tmp_path / "store") as store:
        assert verify_store(store, deep=True).issues == []


@pytest.mark.parametrize(
    ("redirection", "code", "detail"),
    [
        ("</dev/null", "archive-empty", ""),
        ("</dev/zero", "not-a-tar", "a file of zeros"),
        ("</dev/urandom", "not-a-tar", ""),
    ],
)
def test_standard_input_that_gives_no_archive(redirection: str, code: str, detail: str) -> None:
    argv = ["sh", "-c", f'exec "$0" -m swrbatch check - --format json {redirection}', sys.executable]
    done = subprocess.run(argv, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr.decode()
    (found,) = json.loads(done.stdout)["issues"]
    assert found["code"] == code and detail in found["message"]


def test_an_input_that_breaks_while_it_is_read() -> None:
    """A terminal whose other side went away: reading it fails, as a broken disk or network would."""
    ours, theirs = os.openpty()
    os.close(theirs)
    process = command("check", "-", "--format", "json", stdin=ours)
    os.close(ours)
    code, out, _ = ended(process)
    (found,) = json.loads(out)["issues"]
    assert (code, found["code"]) == (1, "archive-unreadable")
    assert "Input/output error" in found["message"]


def test_a_silent_pipe_does_not_delay_an_interrupt() -> None:
    process = command("check", "-")
    assert process.stdin is not None
    process.stdin.write(docker_legacy(IMAGE)[:1024])
    process.stdin.flush()
    _wait_until(lambda: _spools(process.pid))
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    try:
        assert process.wait(30) == 130
        assert time.monotonic() - begun < 2
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_fifo(compression: Compression, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(path.write_bytes, outer(docker_legacy(IMAGE), compression))
        result = check_archives([path])
        writing.result(30)
    assert errors(result) == [] and read_back(result) == truth(IMAGE)
    assert result.archives[0].outer_compression == compression


def test_a_fifo_that_nobody_writes_to_can_be_given_up(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    cancel = Cancel()
    timer = threading.Timer(0.5, cancel.set)
    timer.start()
    begun = time.monotonic()
    result = check_archives([path], cancel=cancel)
    assert result.exit_code == 130
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize(
    ("name", "detail"),
    [("missing.tar", "No such file"), ("", "No such file"), (".", "folder"), ("x" * 300, "too long")],
)
def test_names_that_are_no_file(name: str, detail: str, tmp_path: Path) -> None:
    result = check_archives([str(tmp_path / name) if name else name])
    assert errors(result) == ["archive-unreadable"]
    assert detail in result.issues[0].message


def test_a_name_with_nul_is_no_file() -> None:
    with pytest.raises(ArchiveFault) as caught, open_archive("a\0b", spool_dir=None, cancel=Cancel()):
        pass
    assert caught.value.issue.code == "archive-unreadable"


# --- what is written, and what is left -------------------------------------------------------------------------------


def _wait_until(ready: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "nothing happens"
        time.sleep(0.02)


def _spools(pid: int, folder: str = "") -> list[str]:
    """The files without a name that a process has open."""
    found = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(fd)
        except OSError:
            continue
        if target.endswith(" (deleted)") and target.startswith(folder) and "/" in target:
            found.append(target)
    return found


@pytest.mark.parametrize("how", ["killed", "ends"])
def test_a_spool_has_no_name(how: str, tmp_path: Path) -> None:
    """Not even while it is written: what has no name cannot be left behind, whatever ends the process."""
    data = outer(docker_legacy(IMAGE), "gzip", 4)
    with command("check", "-", env={"TMPDIR": str(tmp_path)}) as process:
        assert process.stdin is not None
        process.stdin.write(data[: len(data) * 3 // 4])
        process.stdin.flush()
        _wait_until(lambda: _spools(process.pid, str(tmp_path)))
        assert list(tmp_path.iterdir()) == []
        if how == "killed":
            process.kill()
        else:
            process.stdin.write(data[len(data) * 3 // 4 :])
            process.stdin.close()
        assert process.wait(60) == (-signal.SIGKILL if how == "killed" else 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["docker20-single.tar.gz", "docker26-single.tar.zst"])
def test_the_spool_of_an_import_is_the_store_s(name: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code, _, err = ended(
        command("import", ARCHIVES / name, "--store", tmp_path / "store", "--profile", "none", env={"TMPDIR": str(elsewhere)})
    )
    assert code == 0, err
    assert list(elsewhere.iterdir()) == []
    assert [path for path in (tmp_path / "store" / "tmp").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(("name", "code"), [("docker20-single.tar", 0), ("docker20-single.tar.gz", 3)])
def test_a_check_of_a_plain_archive_writes_nothing(name: str, code: int, tmp_path: Path) -> None:
    """In a process that may not write a single byte into any file. (A compressed archive needs its spool.)"""
    nothing = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (0, 0))
    process = command("check", ARCHIVES / name, preexec_fn=nothing, cwd=tmp_path, env={"TMPDIR": str(tmp_path)})
    ended_with, _, err = ended(process)
    assert ended_with == code, err
    assert code == 0 or "spool" in err
    assert list(tmp_path.iterdir()) == []


def test_no_file_descriptor_is_left_open(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / f"{n}", data) for n, data in enumerate((docker_legacy(IMAGE), outer(docker25(IMAGE), "gzip"), b"x", b""))
    ]
    check_archives(paths)
    before = len(os.listdir("/proc/self/fd"))
    check_archives([*paths, tmp_path, tmp_path / "missing"])
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("folder", ["missing", "file"])
def test_a_folder_for_the_spool_that_cannot_be_used(folder: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    path = write(tmp_path / "a.tar.gz", outer(docker_legacy(IMAGE), "gzip"))
    with pytest.raises(StoreError, match="spool"), open_archive(str(path), spool_dir=str(tmp_path / folder), cancel=Cancel()):
        pass


# --- zeros -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8 * GIB, 200 * GIB])
def test_zeros_behind_the_archive_cost_nothing(size: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a", docker_legacy(IMAGE))
    os.truncate(path, size)
    begun = time.monotonic()
    result = check_archives([path], profile="none", max_decompressed=size)
    assert errors(result) == [] and read_back(result) == truth(IMAGE)
    assert time.monotonic() - begun < 5
    assert result.archives[0].bytes == size


def test_zeros_behind_a_compressed_archive_are_not_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "a", outer(docker_legacy(IMAGE), "gzip") + zeros("gzip") * 8)
    with open_archive(str(path), spool_dir=str(tmp_path), cancel=Cancel()) as index:
        assert index.uncompressed_bytes > 512 * MIB
        assert os.fstat(index.fd).st_size == index.uncompressed_bytes
        assert os.fstat(index.fd).st_blocks * 512 < MIB
    assert errors(check_archives([path])) == []


def test_zeros_inside_an_archive_are_the_layer_s(tmp_path: Path) -> None:
    """Zeros are left out of the spool, and read as zeros all the same: in a layer, and where the archive ends with them."""
    image = replace(IMAGE, layers=(*HELLO, Layer(bytes(3 * MIB)), Layer(bytes(MIB))))
    parts = files(image)
    last = f"{image.layers[-1].diff_id.removeprefix('sha256:')}.tar"
    whole = tar_of({**{name: data for name, data in parts.items() if name != last}, last: parts[last]})
    for data in (whole, whole[:-1024]):  # with and without an end marker
        for compression in COMPRESSIONS:
            result = check_archives([write(tmp_path / "a", outer(data, compression, 3))], **FREE)
            assert errors(result) == [] and read_back(result) == truth(image), compression


def test_an_end_marker_in_skipped_zeros_is_seen(tmp_path: Path) -> None:
    """What comes after the marker does not tell a whole archive without manifest.json from one that is cut short."""
    body = TarBuilder().member("notes", b"x" * 512).getvalue()
    for data, code in ((body + bytes(4 * MIB), "manifest-missing"), (body, "archive-truncated")):
        packed = compress(body, "gzip") + (compress(data[len(body) :], "gzip") if len(data) > len(body) else b"")
        assert errors(check_archives([write(tmp_path / "a", packed)])) == [code]
        assert errors(check_archives([write(tmp_path / "a", data)])) == [code]


def test_a_cut_between_two_members_is_a_cut(tmp_path: Path) -> None:
    """manifest.json comes last or nearly so: without it and without an end marker, nothing else can be told."""
    for name, make in PRODUCERS.items():
        if name == "nix":
            continue
        data = make(IMAGE)
        end = data.index(b"manifest.json\0" + bytes(86))
        assert end % 512 == 0
        assert errors(check_archives([write(tmp_path / "a", data[:end])])) == ["archive-truncated"], name


# --- JSON ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"\ud800"', "\ufffd"),
        (r'"a\udfffb"', "a\ufffdb"),
        (r'"\ud83d\ude00"', "\U0001f600"),
        (r'"\ude00\ud83d"', "\ufffd\ufffd"),
        (r'{"\ud800": ["\udc00", {"x": "\uDBFF"}]}', {"\ufffd": ["\ufffd", {"x": "\ufffd"}]}),
        (r'"\\ud800"', r"\ud800"),  # an escaped backslash, and letters
        (r'"\u00e9 é"', "é é"),
    ],
)
def test_lone_surrogates_are_read_as_go_reads_them(text: str, value: object) -> None:
    assert parse_json(text.encode(), "x") == value


NASTY = st.text(alphabet='[]{}"\\,:a\n\u00e9', max_size=8)
DEEP = st.recursive(
    st.one_of(st.none(), NASTY), lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NASTY, inner, max_size=3))
)


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


@settings(deadline=None, max_examples=300)
@given(DEEP, st.booleans())
def test_json_is_taken_up_to_64_levels(value: Any, as_key: bool) -> None:
    """Whatever brackets, quotes and backslashes stand in its strings."""
    free = 64 - depth_of(value)
    for levels in (free, free + 1):
        nested = value
        for _ in range(levels):
            nested = {'"[{': nested} if as_key else [nested]
        raw = json.dumps(nested, ensure_ascii=as_key).encode()
        if levels == free:
            assert parse_json(raw, "x") == nested
        else:
            with pytest.raises(ArchiveFault) as caught:
                parse_json(raw, "x")
            assert caught.value.issue.code == "json-too-complex"


# --- the schema ------------------------------------------------------------------------------------------------------

SCHEMA = jsonschema.Draft202012Validator(json.loads((ROOT / "schemas" / "docker-manifest.schema.json").read_text()))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "a", TAG]),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["Config", "config", "RepoTags", "repoTags", "REPOTAGS", "Layers", "layers", "Parent", "LayerSources", "x", ""]
)
TEXTS = st.one_of(st.none(), st.lists(st.sampled_from(["", "a", "b"]), max_size=3), JSON)
NEAR = {
    "Config": st.sampled_from(["c", "c", "", None, 1]),
    "Layers": TEXTS,
    "RepoTags": TEXTS,
    "Parent": SCALARS,
    "LayerSources": JSON,
}
ENTRIES = st.one_of(
    st.fixed_dictionaries({}, optional=NEAR),
    st.fixed_dictionaries(
        {"Config": st.just("c")}, optional={**{key: value for key, value in NEAR.items() if key != "Config"}, "Extra": JSON}
    ),
    st.dictionaries(KEYS, st.one_of(JSON, TEXTS), max_size=5),
    JSON,
)


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.lists(ENTRIES, max_size=3), ENTRIES))
@example([{"Config": "c", "Layers": [""]}])
@example([{"Config": "c", "Parent": 1}])
@example([{"Config": "c", "LayerSources": []}])
@example([{"Config": "c", "config": 1}])
def test_the_quick_verdict_is_the_schema_s(document: Any) -> None:
    folded = fold_manifest(document)
    assert manifest_fits(folded) == SCHEMA.is_valid(folded)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.lists(ENTRIES, min_size=1, max_size=3), ENTRIES))
def test_a_manifest_outside_the_schema_is_explained(document: Any) -> None:
    """Every fault has its place, and a message without the document in it."""
    fd = os.memfd_create("archive")
    try:
        os.pwrite(fd, tar_of({MANIFEST: json.dumps(document).encode()}), 0)
        result = check_archives([f"/proc/self/fd/{fd}"])
    finally:
        os.close(fd)
    fits = SCHEMA.is_valid(fold_manifest(document))
    schema = [
        row for row in result.issues if row.code == "manifest-schema" or row.message.startswith("the image's config (Config")
    ]
    assert bool(schema) is (not fits and document not in (None, []))
    for row in schema:
        assert re.fullmatch(r"manifest(\[\d+\](\..*)?)?", row.place), row.place
        assert len(row.message) < 400


def test_the_mapping_of_producers_is_complete() -> None:
    made: Mapping[str, object] = {**PRODUCERS, **BUNDLES}
    assert MADE_BY.keys() == made.keys()


def test_fault_class_is_never_seen(tmp_path: Path) -> None:
    """The boundary of an archive turns every fault into an issue; whoever opens one directly gets the fault itself."""
    with pytest.raises(ArchiveFault) as caught, open_archive(str(write(tmp_path / "a", b"x")), spool_dir=None, cancel=Cancel()):
        pass
    assert caught.value.issue.code == "not-a-tar"
    assert errors(check_archives([tmp_path / "a"])) == ["not-a-tar"]
