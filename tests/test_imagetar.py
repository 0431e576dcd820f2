"""The builders of test archives are right: read back with the standard library, and with skopeo as a second opinion."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import posixpath
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from hostile import GOOD, HOSTILE, LOADS, MIB, Kind, mutated, resealed, sealed, truncations
from imagetar import (
    BUNDLES,
    PRODUCERS,
    Compression,
    Image,
    Layer,
    TarBuilder,
    base256,
    containerd,
    docker25,
    docker_before_1_10,
    docker_legacy,
    filesystem_export,
    header,
    oci_archive,
    oci_manifest,
    outer,
    sha256,
    skopeo,
    tar_of,
)
from swrbatch.errors import CODES, Severity, issue

Peer = Callable[[str], str]

IMAGE = Image()
WORKER = Image(  # more tags than one, and a layer that is used twice
    layers=(*IMAGE.layers, Layer.of({"srv/worker": b"#!/bin/sh\n"}), IMAGE.layers[0]),
    tags=("swr.cn-north-1.example.com/team/worker:2.0.0", "localhost:5000/worker:latest"),
)
DECOMPRESS: dict[Compression, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read(),
    "xz": lzma.decompress,
    "bzip2": bz2.decompress,
}
MAGIC: dict[bytes, Compression] = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd", b"\xfd7": "xz", b"BZ": "bzip2"}


def plain(data: bytes) -> bytes:
    return DECOMPRESS[MAGIC.get(data[:2], "none")](data)


def members(archive: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(plain(archive))) as tar:
        return {member.name: member for member in tar}


def read_images(archive: bytes) -> list[tuple[bytes, list[str], list[str] | None]]:
    """What a simple reader makes of the archive: config, diff_ids as computed, and tags of each image."""
    images = []
    with tarfile.open(fileobj=io.BytesIO(plain(archive))) as tar:
        by_name = {posixpath.normpath(member.name): member for member in tar}

        def content(name: str) -> bytes:
            file = tar.extractfile(by_name[posixpath.normpath(name)])
            assert file is not None, name
            return file.read()

        for row in json.loads(content("manifest.json")):
            row = {key.lower(): value for key, value in row.items()}
            diff_ids = [f"sha256:{sha256(plain(content(name)))}" for name in row["layers"] or []]
            images.append((content(row["config"]), diff_ids, row["repotags"]))
    return images


def image_in(image: Image) -> tuple[bytes, list[str], list[str]]:
    return image.config, [layer.diff_id for layer in image.layers], list(image.tags)


def run(*argv: str) -> bytes:
    return subprocess.run(argv, capture_output=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("name", PRODUCERS)
def test_archives_hold_the_image(name: str) -> None:
    assert read_images(PRODUCERS[name](IMAGE)) == [image_in(IMAGE)]
    assert PRODUCERS[name](IMAGE) == PRODUCERS[name](Image())


@pytest.mark.parametrize("name", BUNDLES)
def test_bundles_hold_all_images(name: str) -> None:
    archive = BUNDLES[name](IMAGE, WORKER)
    assert read_images(archive) == [image_in(IMAGE), image_in(WORKER)]


@pytest.mark.parametrize("make", [docker_legacy, docker25, containerd, skopeo])
def test_images_without_a_name(make: Callable[[Image], bytes]) -> None:
    ((_, diff_ids, tags),) = read_images(make(Image(tags=())))
    assert diff_ids == image_in(IMAGE)[1]
    assert not tags


def test_docker_legacy_links_repeated_layers_and_ends_with_the_manifest() -> None:
    found = members(docker_legacy(IMAGE, WORKER))
    links = [member.linkname for member in found.values() if member.issym()]
    assert len(links) == 2  # the top layer of the first image has another id there; the last layer is its own first
    assert all(link.removeprefix("../") in found for link in links)
    assert list(found)[-2:] == ["manifest.json", "repositories"]


def test_what_is_no_docker_archive_has_no_manifest() -> None:
    for archive in (docker_before_1_10(IMAGE), oci_archive(IMAGE), filesystem_export()):
        assert "manifest.json" not in members(archive)
    assert "repositories" in members(docker_before_1_10(IMAGE))
    assert "oci-layout" in members(oci_archive(IMAGE))


@pytest.mark.parametrize("compression", DECOMPRESS)
@pytest.mark.parametrize("parts", [1, 3])
def test_outer_compression(compression: Compression, parts: int) -> None:
    made = outer(GOOD, compression, parts)
    assert DECOMPRESS[compression](made) == GOOD
    assert compression == "none" or MAGIC[made[:2]] == compression
    assert made == outer(GOOD, compression, parts)


def test_layers_say_what_they_hold() -> None:
    layer = Layer.of({"dir/": b"", "dir/file": b"1"}, "zstd")
    assert layer.diff_id == f"sha256:{sha256(layer.tar)}"
    assert layer.digest == f"sha256:{sha256(layer.blob)}"
    assert plain(layer.blob) == layer.tar
    with tarfile.open(fileobj=io.BytesIO(layer.tar)) as tar:
        assert [(one.name, one.isdir(), one.mtime) for one in tar] == [("dir", True, 0), ("dir/file", False, 0)]


def test_tar_builder_is_read_by_others() -> None:
    long = "d/" * 90 + "name"
    tar = TarBuilder().member(long, b"1").symlink("link", long).pax({"path": "é" * 200}).member("short", b"22")
    found = members(tar.member("binary", b"333", size=base256(3)).hardlink("hard", "binary").end().getvalue())
    assert found[long].size == 1
    assert found["link"].linkname == long
    assert found["é" * 200].size == 2
    assert found["binary"].size == 3
    assert found["hard"].islnk()


# --- skopeo ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRODUCERS)
def test_skopeo_reads_every_form(name: str, peer: Peer, tmp_path: Path) -> None:
    """The config is the same, and a copy, which hashes every layer, ends well. (skopeo 1.9 reads no outer gzip.)"""
    skopeo_path = peer("skopeo")
    archive = tmp_path / "image.tar"
    archive.write_bytes(plain(PRODUCERS[name](IMAGE)))
    assert run(skopeo_path, "inspect", "--config", "--raw", f"docker-archive:{archive}") == IMAGE.config
    run(skopeo_path, "copy", "--quiet", f"docker-archive:{archive}", f"oci:{tmp_path}/copy:v1")


@pytest.mark.parametrize("name", BUNDLES)
def test_skopeo_reads_both_images_of_a_bundle(name: str, peer: Peer, tmp_path: Path) -> None:
    skopeo_path = peer("skopeo")
    archive = tmp_path / "images.tar"
    archive.write_bytes(BUNDLES[name](IMAGE, WORKER))
    for number, image in enumerate((IMAGE, WORKER)):
        source = f"docker-archive:{archive}:@{number}"
        assert run(skopeo_path, "inspect", "--config", "--raw", source) == image.config
        run(skopeo_path, "copy", "--quiet", source, f"oci:{tmp_path}/copy{number}:v1")


@pytest.mark.parametrize("make", [docker25, containerd, oci_archive])
def test_skopeo_reads_the_oci_half(make: Callable[[Image], bytes], peer: Peer, tmp_path: Path) -> None:
    skopeo_path = peer("skopeo")
    archive = tmp_path / "image.tar"
    archive.write_bytes(make(IMAGE))
    assert run(skopeo_path, "inspect", "--raw", f"oci-archive:{archive}") == oci_manifest(IMAGE)
    run(skopeo_path, "copy", "--quiet", f"oci-archive:{archive}", f"dir:{tmp_path}/copy")


# --- hostile input ---------------------------------------------------------------------------------------------------


def test_hostile_kinds_are_well_formed() -> None:
    names = [kind.name for kind in HOSTILE]
    assert len(names) == len(set(names)) >= 45
    for kind in HOSTILE:
        assert kind.expect <= {LOADS, *CODES}, kind.name
        assert all(CODES[code].severity is Severity.WARNING for code in kind.warnings), kind.name


@pytest.mark.parametrize("kind", HOSTILE, ids=lambda kind: kind.name)
def test_hostile_kinds_are_cheap_to_build(kind: Kind, tmp_path: Path) -> None:
    """On disk, that is: a sparse file may be as long as it likes."""
    path = tmp_path / "archive.tar"
    kind.build(path)
    assert os.lstat(path).st_blocks * 512 < 60 * MIB


MUST_LOAD = [kind for kind in HOSTILE if kind.expect == {LOADS} and kind.name != "zeros-after-the-end-8-gib"]


@pytest.mark.parametrize("kind", MUST_LOAD, ids=lambda kind: kind.name)
def test_hostile_kinds_that_must_load_are_good_archives(kind: Kind, tmp_path: Path) -> None:
    path = tmp_path / "archive.tar"
    kind.build(path)
    for config, diff_ids, _ in read_images(path.read_bytes()):
        assert diff_ids == json.loads(config)["rootfs"]["diff_ids"]


def test_objections() -> None:
    by_name = {kind.name: kind for kind in HOSTILE}
    refused, loads, either = by_name["empty-file"], by_name["config-docker-version-1-9"], by_name["index-null"]
    assert not refused.objection([issue("archive-empty"), issue("manifest-missing")])
    assert refused.objection([])
    assert refused.objection([issue("manifest-missing")])
    assert not loads.objection([issue("docker-version-old", version="1.9.1"), issue("history-missing")])
    assert loads.objection([])
    assert loads.objection([issue("docker-version-old", version="1.9.1"), issue("manifest-missing")])
    assert not either.objection([])
    assert not either.objection([issue("index-disagrees", detail="")])
    assert either.objection([issue("index-disagrees", detail=""), issue("manifest-missing")])


def test_truncations() -> None:
    cut = list(truncations(GOOD))
    assert len(cut) == 16
    assert [len(data) for data in cut[:2]] == [0, len(GOOD) // 16]
    assert all(GOOD.startswith(data) and len(data) < len(GOOD) for data in cut)


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_mutations_stay_near(data: st.DataObject) -> None:
    made = data.draw(mutated(GOOD))
    assert len(made) <= len(GOOD) + 8 * 3 * 512


def test_resealed_archives_pass_the_checksum() -> None:
    block = header("name", size=7)
    assert sealed(block) == block
    assert resealed(GOOD) == GOOD
    spoilt = tar_of({"name": b"content"}).replace(b"name", b"neme", 1)
    assert list(members(resealed(spoilt))) == ["neme"]
