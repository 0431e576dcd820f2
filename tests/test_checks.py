"""Every fault that a check or an import can report is found, with its code, its place and its texts; limits hold to the byte."""

from __future__ import annotations

import io
import lzma
import os
import random
import re
import string
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hostile import (
    CONFIG,
    FREE,
    GIB,
    GOOD,
    HOST,
    IMAGE,
    LAYER,
    MANIFEST,
    MIB,
    NO_HEX,
    TAR,
    TWO_LAYERS,
    chain,
    config,
    hybrid,
    index_names_one_more,
    layer_at,
    layers_of,
    links,
    manifest,
    member,
    nested,
    odd,
    one_gzip_member,
    parts,
    pax,
    unused_twice,
    with_config,
    xz_dictionary_4_gib,
    zeros,
    zstd_window_2_gib,
)
from imagetar import (
    HELLO,
    PRODUCERS,
    TAG,
    Compression,
    Image,
    Layer,
    TarBuilder,
    compress,
    containerd,
    docker25,
    docker_before_1_10,
    docker_legacy,
    files,
    filesystem_export,
    header,
    oci_archive,
    outer,
    tar_of,
    to_json,
)
from swrbatch import Cancel, RunResult, Store, check_archives, import_archives
from swrbatch.archive import open_archive
from swrbatch.compression import Compression as Kind
from swrbatch.digest import CHUNK, Digest, Extent
from swrbatch.errors import CODES, ArchiveFault, Severity
from swrbatch.layers import Budget, LayerReading, LayerSource
from swrbatch.results import IssueRow

# --- a case for every code -------------------------------------------------------------------------------------------

Archives = bytes | tuple[bytes, ...]


@dataclass(frozen=True)
class Case:
    """Archives that have this fault at this place. `says`: what the English message must have in it.

    The last archive has the fault. With `store`, these archives are imported first; the others are then checked against that
    store, and imported into it. A place that ends in `/` is the start of one.
    """

    code: str
    place: str
    archives: Archives | Callable[[], Archives]
    says: str = ""
    index: int | None = 0
    store: Archives = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.code}-{self.place or 'archive'}"[:60]


def whole(code: str, place: str, archives: Any, says: str = "", **more: Any) -> Case:
    """A fault of the archive as a whole, of no image in particular."""
    return Case(code, place, archives, says, index=None, **more)


def named(*names: str, **options: Any) -> bytes:
    return parts({MANIFEST: manifest(RepoTags=list(names))})


def tagged(tag: str, image: Image = IMAGE) -> bytes:
    return config(replace(image, tags=(tag,)))


NAME = "manifest[0].RepoTags[0]"
FIRST_LAYER = f"layer 0 ({IMAGE.layers[0].diff_id})"
OTHER = f"{HOST}/other/hello:v1"
FIVE = tuple(tagged(f"{HOST}/org{number}/a:v1") for number in range(5))

BEHIND = f"offset {len(GOOD) - 1024}"  # what is added to the good archive stands there
LONG_NAME = TarBuilder().pax({"path": "a" * 1_000_000}).member("x").getvalue()
RENAMED = {"retag": ["*={registry}/one/{repository}:{tag}"]}


def file_of(**changes: Any) -> str:
    """The name of the config of the image with these changes."""
    return f"{replace(IMAGE, **changes).hex}.json"


def changed(**changes: Any) -> bytes:
    return config(replace(IMAGE, **changes))


def listing(content: bytes) -> bytes:
    return parts({MANIFEST: content})


def listed(**changes: Any) -> bytes:
    return parts({MANIFEST: manifest(**changes)})


def repositories(value: object) -> bytes:
    return parts({"repositories": to_json(value)})


def stored(blob: bytes) -> bytes:
    return parts({LAYER: blob})


ODD_IDS = {"rootfs": layers_of([IMAGE.layers[0].diff_id, "x"])}
NO_IDS = {"rootfs": layers_of(["sha256:" + NO_HEX])}
TWO_STEPS = {"history": [{}, {}]}

CASES = [
    # the archive as a file
    whole("archive-empty", "", b""),
    whole("not-a-tar", "", b"<html>404</html>", "a web page"),
    whole("not-a-tar", "", b"PK\x03\x04" + bytes(600), "a zip file"),
    whole("not-a-tar", "", b"just text\n" * 9, "a text file"),
    whole("not-a-tar", "", bytes(2048), "a file of zeros"),
    whole("not-a-tar", "", b"\x7fELF" + bytes(600), "an ELF program"),
    whole("not-a-tar", "", b"{}", "a JSON document"),
    whole("not-a-tar", "", bytes(range(256)) * 4, "unknown format"),
    whole("compressed-twice", "", lambda: outer(outer(GOOD, "xz"), "gzip"), "gzip, and xz inside"),
    whole("oci-archive", "oci-layout", lambda: oci_archive(IMAGE)),
    whole("docker-too-old", "manifest.json", lambda: docker_before_1_10(IMAGE)),
    whole("filesystem-export", "manifest.json", filesystem_export),
    whole("manifest-missing", "manifest.json", lambda: tar_of({"notes": b"hi"})),
    whole("archive-truncated", LAYER, GOOD[:600], LAYER),
    whole("archive-truncated", "manifest.json", lambda: GOOD[: GOOD.index(MANIFEST.encode() + b"\0")], "no end marker"),
    whole("archive-truncated", "gzip data", lambda: outer(GOOD, "gzip")[:-1], "ends early"),
    whole("archive-truncated", "zstd data", lambda: outer(GOOD, "zstd")[:-1], "ends early", options=FREE),
    whole("archive-truncated", BEHIND, lambda: GOOD[:-1024] + b"x" * 9, "cut short"),
    whole("archive-corrupt", BEHIND, member(checksum=b"000001\0 "), "checksum"),
    whole("archive-corrupt", "gzip data", lambda: outer(GOOD, "gzip")[:-8] + bytes(8)),
    whole("archive-corrupt", BEHIND, pax(b"999 path=x\n"), "pax header"),
    whole("archive-corrupt", "zstd data", lambda: zstd_window_2_gib(GOOD), "its window is larger than 128 MiB", options=FREE),
    whole("archive-corrupt", "xz data", lambda: xz_dictionary_4_gib(GOOD), "its window is larger than 128 MiB", options=FREE),
    whole("too-many-members", "", lambda: odd(lambda tar: tar.raw(header("same") * 100_000)), "100000"),
    whole("header-too-large", BEHIND, lambda: odd(lambda tar: tar.pax({"a": b"a" * MIB}).member("x")), "1 MiB"),
    # the metadata in it
    whole(
        "metadata-too-large", "manifest.json", lambda: listing(bytes(20 * MIB + 1)), "20.0 MiB (20971521 bytes), more than 20 MiB"
    ),
    Case("metadata-too-large", "manifest[0].Config", lambda: changed(raw_config=bytes(5 * MIB)), "5 MiB, more than 4 MiB"),
    whole(
        "metadata-too-large",
        f"offset {17 * len(LONG_NAME) - 512}",
        lambda: LONG_NAME * 18 + GOOD,
        "the list of its members' names",
    ),
    whole("json-invalid", "manifest.json", lambda: listing(b"[")),
    whole("json-invalid", "repositories", lambda: parts({"repositories": b"nonsense"})),
    Case("json-invalid", file_of(raw_config=b"no"), lambda: changed(raw_config=b"no")),
    whole("json-too-complex", "manifest.json", lambda: parts({MANIFEST: nested(70)}), "deeper than 64"),
    whole("json-too-complex", "manifest.json", lambda: listing(b"[0" + b",0" * 400_000 + b"]"), "more than 400000 elements"),
    whole("manifest-empty", "manifest.json", lambda: listing(b"[]")),
    whole("manifest-empty", "manifest.json", lambda: listing(b"null")),
    whole("manifest-schema", "manifest", lambda: listing(b"1"), "a number where a list belongs"),
    whole(
        "manifest-schema",
        "manifest[1]",
        lambda: listing(b"[" + manifest()[1:-1] + b",true]"),
        "a boolean where an object belongs",
    ),
    whole("manifest-schema", "manifest[0].Config", lambda: listed(Config=None), "null where a string belongs"),
    whole("manifest-schema", "manifest[0].Config", lambda: listed(Config=""), "empty"),
    whole("manifest-schema", "manifest[0].Layers[0]", lambda: listed(Layers=[""]), "empty"),
    whole("manifest-schema", "manifest[0].RepoTags", lambda: listed(RepoTags=TAG), "a string where a list or null belongs"),
    whole("manifest-schema", "manifest[0].Parent", lambda: listed(Parent=[]), "a list where a string or null belongs"),
    whole(
        "manifest-schema",
        "manifest[0]",
        lambda: parts({MANIFEST: to_json([{"Image": {"Refs": []}, "ImageIndex": None}])}),  # imgpkg
        "the entry has image, imageindex where docker's have Config, RepoTags and Layers",
    ),
    whole("too-many-images", "manifest.json", lambda: listed(Layers=[LAYER] * 30_001), "30001 layers, at most 30000"),
    whole("too-many-images", "manifest.json", lambda: listed(Layers=[LAYER] * 10_001), "10001 layers of one image"),
    whole("too-many-images", "manifest.json", lambda: named(*[TAG] * 5001), "5001 names"),
    whole(
        "too-many-images",
        "manifest.json",
        lambda: parts({MANIFEST: b"[" + b",".join([manifest()[1:-1]] * 5001) + b"]"}),
        "5001 images",
    ),
    Case("config-missing", "manifest[0].Config", lambda: listed(Config="other.json"), "other.json"),
    whole(
        "config-missing", "manifest[0]", lambda: parts({MANIFEST: to_json([{"RepoTags": [TAG], "Layers": [LAYER]}])}), "not given"
    ),
    Case("config-schema", file_of(without=("rootfs",)), lambda: changed(without=("rootfs",)), "rootfs is missing"),
    Case(
        "config-schema",
        file_of(overrides=ODD_IDS),
        lambda: changed(overrides=ODD_IDS),
        "rootfs.diff_ids[1]",
    ),
    Case("layer-missing", "manifest[0].Layers[1]", lambda: listed(Layers=[LAYER, "other.tar"]), "other.tar"),
    Case("path-escape", "manifest[0].Layers[0]", lambda: listed(Layers=["../x"]), "../x"),
    Case("path-escape", "manifest[0].Config", lambda: listed(Config="/etc/passwd"), "/etc/passwd"),
    Case("link-dangling", "manifest[0].Layers[0]", lambda: links(("layer.tar", "a/../nothing")), "points to nothing"),
    Case("link-cycle", "manifest[0].Layers[0]", lambda: links(("a", "b"), ("b", "a")), "16"),
    Case("link-cycle", "manifest[0].Layers[0]", lambda: chain(17)),
    Case("link-escape", "manifest[0].Layers[0]", lambda: links(("a/b", "../../etc/passwd")), "../../etc/passwd"),
    Case(
        "member-not-regular", "manifest[0].Layers[0]", lambda: layer_at("odd", lambda tar: tar.member("odd", kind=b"6")), "fifo"
    ),
    whole("duplicate-members", LAYER, lambda: odd(lambda tar: tar.member(LAYER, b"x").member(LAYER, b"y")), "3 times"),
    # digests
    Case("diff-id-mismatch", f"layer 0 (sha256:{NO_HEX})", lambda: changed(overrides=NO_IDS), IMAGE.layers[0].diff_id),
    Case(
        "layer-corrupt",
        FIRST_LAYER,
        lambda: stored(compress(TAR, "zstd")[:-1]),
        "zstd layer cannot be decompressed: the compressed data ends early",
    ),
    Case("layer-corrupt", FIRST_LAYER, lambda: stored(compress(TAR, "gzip") + bytes(9)), "gzip"),
    Case("layer-corrupt", FIRST_LAYER, lambda: stored(zstd_window_2_gib(TAR)), "window is larger than 128 MiB"),
    Case("layer-count-mismatch", "manifest[0].Layers", lambda: listed(Layers=[LAYER] * 2), "2 layers, the config 1"),
    # names
    Case("repotags-empty", "manifest[0].RepoTags", lambda: listed(RepoTags=None)),
    Case("reference-invalid", NAME, lambda: named(f"{HOST}/team/a@sha256:{NO_HEX}"), "digest"),
    Case("registry-missing", NAME, lambda: named("team/hello:v1"), "team/hello:v1"),
    Case("registry-invalid", NAME, lambda: named("a_b.c/team/hello:v1"), "a_b.c"),
    Case("namespace-missing", "manifest[0].RepoTags[1]", lambda: named(TAG, f"{HOST}/hello:v1")),
    Case("too-many-parts", NAME, lambda: named(f"{HOST}/team/sub/hello:v1"), "4 parts"),
    Case("namespace-invalid", NAME, lambda: named(f"{HOST}/Team/hello:v1"), "upper case"),
    Case("repository-invalid", NAME, lambda: named(f"{HOST}/team/_hello:v1"), "starts with a separator"),
    Case("tag-invalid", NAME, lambda: named(f"{HOST}/team/hello:-1"), "starts with a separator"),
    Case("registry-mismatch", NAME, named(TAG), "other.example.com", options={"registry": "other.example.com"}),
    Case("registry-mismatch", "manifest[0].RepoTags", named("other.example.com/team/a:v1"), HOST, store=named(TAG)),
    Case("organization-mismatch", NAME, named(TAG), "other", options={"organization": "other"}),
    whole(
        "repositories-differ",
        "repositories",
        lambda: repositories({f"{HOST}/team/hello": {"v2": NO_HEX}}),
        "hello:v2 is only in repositories",
    ),
    whole("repositories-differ", "repositories", lambda: repositories({"a": ["v1"]}), "no map"),
    Case(
        "reference-conflict",
        "manifest[0].RepoTags",
        (tagged(TAG), tagged(TAG, TWO_LAYERS)),
        "first in",
        options={"on_conflict": "fail"},
    ),
    Case("retag-collision", "manifest[0].RepoTags", (tagged(TAG), tagged(OTHER, TWO_LAYERS)), "first in", options=RENAMED),
    Case("tag-exists", "manifest[0].RepoTags", tagged(TAG, TWO_LAYERS), TAG, store=tagged(TAG), options={"on_conflict": "fail"}),
    # limits
    whole("page-compression", "", lambda: outer(GOOD, "zstd"), "zstd"),
    whole("archive-too-large", "", GOOD, "the limit is 1000 bytes", options={"max_archive_size": 1000}),
    whole("decompressed-too-large", "", lambda: outer(GOOD, "gzip"), "more than 1000 bytes", options={"max_decompressed": 1000}),
    whole(
        "decompressed-too-large",
        "",
        lambda: layer_at("b", lambda tar: tar.member("b", zeros("gzip"))),
        "more than 1 MiB",
        options={"max_decompressed": MIB},
    ),
    Case("layer-too-large", FIRST_LAYER, GOOD, "as stored; the limit is 1000 bytes", options={"max_layer_size": 1000}),
    Case(
        "layer-too-large",
        FIRST_LAYER,
        lambda: stored(compress(TAR, "gzip")),
        "more than 2 KiB, uncompressed",
        options={"max_layer_size": 2048},
    ),
    whole("too-many-files", "", (GOOD, GOOD), "file 2 of the run; at most 1", options={"max_files": 1}),
    # the store's rules
    Case(
        "organization-missing", "manifest[0].RepoTags", tagged(OTHER), "other", store=tagged(TAG), options={"create_org": False}
    ),
    Case("organization-quota", "manifest[0].RepoTags", tagged(f"{HOST}/one-more/a:v1"), "5 organizations", store=FIVE),
    Case(
        "organization-taken",
        "manifest[0].RepoTags",
        tagged(f"{HOST}/team/b:v1"),
        "default",
        store=tagged(TAG),
        options={"account": "someone-else"},
    ),
    # warnings
    whole("duplicate-unused", "unused", lambda: odd(unused_twice), "2 times"),
    whole("index-disagrees", "index.json", lambda: hybrid({"index.json": b"{"})),
    whole(
        "index-disagrees",
        "index.json",
        lambda: hybrid({"index.json": to_json({"manifests": []}).replace(b"[]", b"[{}]")}),
        "not a sha256 digest",
    ),
    whole("index-extra-image", "index.json", index_names_one_more, f"{TAG}-two"),
    Case(
        "config-name-mismatch",
        f"{NO_HEX}.json",
        lambda: parts({f"{NO_HEX}.json": IMAGE.config, MANIFEST: manifest(Config=f"{NO_HEX}.json")}),
        IMAGE.hex,
    ),
    Case("history-missing", file_of(without=("history",)), lambda: changed(without=("history",))),
    Case("history-mismatch", file_of(overrides=TWO_STEPS), lambda: changed(overrides=TWO_STEPS), "2 layers, the config of 1"),
    Case("image-without-layers", "manifest[0].Layers", lambda: containerd(replace(IMAGE, layers=()))),
    Case(
        "oci-manifest-differs",
        "blobs/sha256/",
        lambda: docker25(IMAGE, edit=lambda made: made["layers"][0].update(size=7)),
        "7 bytes there",
    ),
    whole("attestations-left-out", "index.json", lambda: containerd(IMAGE, nested=True, attestation=True), "1 attestation"),
    whole("platforms-left-out", "index.json", lambda: containerd(IMAGE, nested=True, missing_platform=True), "linux/arm64"),
    Case("reference-repeated", "manifest[0].RepoTags", (tagged(TAG), tagged(TAG, TWO_LAYERS)), "first in"),
    Case("docker-version-old", file_of(docker_version="1.9.1"), lambda: changed(docker_version="1.9.1"), "1.9.1"),
    whole("archive-unreadable", "", ()),
]
BY_VERIFY = {  # what only `verify` finds, in a store that was changed by something else: see test_store
    "blob-missing", "blob-corrupt", "manifest-invalid", "link-missing", "link-invalid", "chain-broken", "replay-differs",
    "foreign-tag", "foreign-overwrite", "ledger-damaged", "map-stale",
}  # fmt: skip
BY_COMMANDS = {  # what rights, the commands that change them and lint refuse: test_rights, test_acts, test_triggers, test_gate
    "archive-changed",  # test_surroundings
    "permission-denied", "profile-required", "organization-name", "repository-name", "repository-exists", "organization-exists",
    "organization-unknown", "organization-not-empty", "repository-unknown", "tag-unknown", "description-too-long",
    "share-public", "share-own-account", "share-quota", "share-exists", "share-unknown", "share-deadline", "administrator-last",
    "trigger-name", "trigger-condition", "trigger-exists", "trigger-unknown",
    "lint-findings", "lint-missing",
}  # fmt: skip


def paths_of(archives: Archives | Callable[[], Archives], folder: Path) -> list[Path]:
    made = archives() if callable(archives) else archives
    folder.mkdir()
    paths = [folder / f"{number}.tar" for number in range(1 if isinstance(made, bytes) else len(made))]
    for path, data in zip(paths, [made] if isinstance(made, bytes) else made, strict=True):
        path.write_bytes(data)
    return paths or [folder / "missing.tar"]


def run(case: Case, folder: Path) -> tuple[RunResult, Path]:
    paths = paths_of(case.archives, folder / "archives")
    if not case.store:
        return check_archives(paths, **case.options), paths[-1]
    first = import_archives(paths_of(case.store, folder / "before"), folder / "store")
    assert not [row for row in first.issues if row.severity == "error"]
    with Store(folder / "store") as store:
        checked = check_archives(paths, store=store, **case.options)
        loaded = import_archives(paths, store, **case.options)
    assert [(row.code, row.place, row.message) for row in checked.issues] == [(r.code, r.place, r.message) for r in loaded.issues]
    return loaded, paths[-1]


def fields_of(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


CHINESE = re.compile("[\u4e00-\u9fff]")


def check_texts(row: IssueRow) -> None:
    """Both languages have all their texts, filled in, and each is in its own."""
    for text in (row.message, row.message_zh, row.way_out, row.way_out_zh):
        assert text and not re.search(r"\{[a-z_]*\}", text), text
        assert text.isprintable()
    assert not CHINESE.search(row.message + row.way_out)
    assert CHINESE.search(row.message_zh) and CHINESE.search(row.way_out_zh)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_fault_is_found_at_its_place(case: Case, tmp_path: Path) -> None:
    result, path = run(case, tmp_path)
    places = [row for row in result.issues if row.code == case.code and row.place.startswith(case.place)]
    found = [row for row in places if row.place == case.place or case.place.endswith("/")]
    assert found, [(row.code, row.place, row.message) for row in result.issues]
    row = found[0]
    assert case.says in row.message
    assert (row.archive, row.image_index) == (str(path), case.index)
    known = CODES[case.code]
    assert (row.severity, row.section, row.swr_code) == (known.severity.value, known.section, known.swr_code)
    for each in result.issues:
        check_texts(each)
    # The verdict follows from the severities, and the codes stand with the archive and its images.
    mine = [each for each in result.issues if each.archive == str(path)]
    (archive,) = [each for each in result.archives if each.archive == str(path)]
    assert archive.issue_codes == tuple(dict.fromkeys(each.code for each in mine))
    assert (archive.status == "rejected") == any(each.severity == "error" for each in mine)
    if case.index is not None:
        assert all(case.code in image.issue_codes for image in result.images if image.archive == str(path))


# --- the table -------------------------------------------------------------------------------------------------------


def test_every_code_is_produced_by_a_case() -> None:
    assert {case.code for case in CASES} | BY_VERIFY | BY_COMMANDS == set(CODES)
    assert not {case.code for case in CASES} & (BY_VERIFY | BY_COMMANDS)


# The sections of the guide that state a rule of this table, and the public error codes that are used (SWR API, error codes).
SECTIONS = {
    "1.5",
    "4.1",
    "4.3",
    "4.5",
    "4.6",
    "4.7",
    "5",
    "6",
    "7.1",
    "8.1",
    "9.1.5",
    "9.1.6",
    "9.2.1",
    "9.2.2",
    "9.3.2",
    "9.3.3",
}
SWR_CODES = {
    "4000028", "4000029", "4000064", "4000065", "4000066", "4000067", "4000068", "4000069", "4000097", "4001028", "4001029",
    "4039002", "4040058", "4040113", "4040115", "4060053", "4090060", "4131012",
}  # fmt: skip


@pytest.mark.parametrize("code", CODES.values(), ids=list(CODES))
def test_a_row_of_the_table_is_complete(code: Any) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code.code) and CODES[code.code] is code
    assert fields_of(code.message) == fields_of(code.message_zh)
    assert fields_of(code.way_out) == fields_of(code.way_out_zh)
    for text in (code.message, code.way_out):
        assert text.isascii() and text == text.strip()
    for text in (code.message_zh, code.way_out_zh):
        assert CHINESE.search(text) and text == text.strip()
    assert code.section in SECTIONS or (code.section == "" and (code.severity is Severity.WARNING or code.code in BY_VERIFY))
    assert code.swr_code == "" or code.swr_code.removeprefix("SVCSTG.SWR.") in SWR_CODES
    if code.severity is Severity.ERROR and code.code not in BY_VERIFY | BY_COMMANDS:
        assert code.swr_code, "an error of an archive has its nearest code of the service"


# --- all faults at once ----------------------------------------------------------------------------------------------


def test_all_faults_are_reported_not_only_the_first(tmp_path: Path) -> None:
    """Three images, each with faults of its own: one look tells all, each with its place, and its image."""
    bad_config = replace(TWO_LAYERS, overrides={"rootfs": layers_of([f"sha256:{NO_HEX}"] * 2)})
    first, second = (name for name in files(TWO_LAYERS) if name.endswith(".tar"))
    listed = [
        {"Config": "gone.json", "RepoTags": ["hello", f"{HOST}/Team/x:y:z"], "Layers": [first, "gone.tar", "/abs", second]},
        {"Config": f"{bad_config.hex}.json", "RepoTags": None, "Layers": [first, second]},
        {"Config": f"{TWO_LAYERS.hex}.json", "RepoTags": [TAG], "Layers": [first]},
        {"Config": f"{TWO_LAYERS.hex}.json", "RepoTags": [f"{TAG}-good"], "Layers": [first, second]},
    ]
    data = tar_of({**files(TWO_LAYERS), **files(bad_config), MANIFEST: to_json(listed), "repositories": b"{}"})
    path = tmp_path / "a"
    path.write_bytes(data)
    result = check_archives([path])
    assert {(row.code, row.place, row.image_index) for row in result.issues} == {
        ("config-missing", "manifest[0].Config", 0),
        ("layer-missing", "manifest[0].Layers[1]", 0),
        ("path-escape", "manifest[0].Layers[2]", 0),
        ("registry-missing", "manifest[0].RepoTags[0]", 0),
        ("namespace-missing", "manifest[0].RepoTags[0]", 0),
        ("namespace-invalid", "manifest[0].RepoTags[1]", 0),
        ("tag-invalid", "manifest[0].RepoTags[1]", 0),
        ("repotags-empty", "manifest[1].RepoTags", 1),
        ("diff-id-mismatch", f"layer 0 (sha256:{NO_HEX})", 1),
        ("diff-id-mismatch", f"layer 1 (sha256:{NO_HEX})", 1),
        ("layer-count-mismatch", "manifest[2].Layers", 2),
    }
    assert [row.status for row in result.images] == ["rejected"] * 4 + ["valid"]
    assert result.archives[0].status == "partial"


def test_a_bad_image_does_not_stop_the_good_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(tar_of({**files(replace(IMAGE, tags=(f"{HOST}/Bad/name:v1",)), replace(TWO_LAYERS, tags=(OTHER,)))}))
    result = import_archives([path], tmp_path / "store")
    assert [(row.image_index, row.status) for row in result.images] == [(0, "rejected"), (1, "loaded")]
    assert result.run.exit_code == 1


def test_a_fault_of_the_archive_refuses_all_its_images(tmp_path: Path) -> None:
    path = tmp_path / "a"
    both = files(IMAGE, replace(TWO_LAYERS, tags=(OTHER,)))
    path.write_bytes(tar_of({**both, "repositories": to_json({"x": {"y": NO_HEX}})}))
    result = import_archives([path], tmp_path / "store")
    assert [row.status for row in result.images] == ["rejected"] * 2
    assert all("repositories-differ" in row.issue_codes for row in result.images)


def test_thousands_of_missing_layers_are_told_by_examples(tmp_path: Path) -> None:
    path = tmp_path / "a"
    one = {"Config": CONFIG, "RepoTags": [TAG], "Layers": ["gone"] * 2500}
    path.write_bytes(parts({MANIFEST: to_json([one] * 4)}))
    result = check_archives([path])
    assert len(result.issues) < 1100
    assert [row.status for row in result.images] == ["rejected"] * 4


@pytest.mark.parametrize(
    ("version", "old"),
    [
        ("1.9.1", True), ("1.10.3", True), ("1.11.0", True), ("1.11.1", True), ("1.11.1-rc1", True), ("1.11", True),
        ("1.11.2", False), ("1.12.0", False), ("1.13", False), ("17.03.1-ce", False), ("20.10.24+dfsg1", False), ("", False),
        ("dev", False), (None, False),
    ],
)  # fmt: skip
def test_the_version_of_the_builder_is_a_warning(version: str | None, old: bool, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(config(replace(IMAGE, docker_version=version)))
    result = check_archives([path])
    assert [row.code for row in result.issues] == (["docker-version-old"] if old else [])
    assert result.images[0].status == "valid"


@pytest.mark.parametrize("name", PRODUCERS)
def test_a_good_image_has_no_fault(name: str, tmp_path: Path) -> None:
    """The net has a bottom: of what every producer writes for a good image, nothing is reported but what is left out."""
    path = tmp_path / "a"
    path.write_bytes(PRODUCERS[name](Image()))
    codes = [row.code for row in check_archives([path]).issues]
    assert codes == (["attestations-left-out", "platforms-left-out"] if name == "containerd-nested" else [])


# --- repeated names --------------------------------------------------------------------------------------------------


def test_of_a_name_that_is_repeated_the_last_image_wins(tmp_path: Path) -> None:
    images = [replace(IMAGE, created=f"202{number}-01-01T00:00:00Z") for number in range(3)]
    paths = paths_of(tuple(tagged(TAG, image) for image in (*images, images[1])), tmp_path / "archives")
    result = import_archives(paths, tmp_path / "store")
    assert [row.status for row in result.images] == ["loaded", "overwritten", "overwritten", "overwritten"]
    assert [(row.code, row.archive) for row in result.issues] == [("reference-repeated", str(path)) for path in paths[1:]]
    assert all(f"first in {paths[0]}" in row.message for row in result.issues)
    with Store(tmp_path / "store") as store:
        assert [row["image_id"] for row in store.images()] == [images[1].image_id]


def test_the_same_image_again_is_no_repetition(tmp_path: Path) -> None:
    result = check_archives(paths_of((GOOD, outer(GOOD, "gzip"), docker_legacy(IMAGE)), tmp_path / "archives"))
    assert [row.code for row in result.issues] == []


# --- limits ----------------------------------------------------------------------------------------------------------


def codes_and_messages(result: RunResult) -> list[tuple[str, str]]:
    return [(row.code, row.message) for row in result.issues if row.severity == "error"]


def test_the_page_takes_two_gib_and_not_a_byte_more(tmp_path: Path) -> None:
    """Sparse files: zeros may follow an archive, and count."""
    path = tmp_path / "a"
    path.write_bytes(GOOD)
    os.truncate(path, 2 * GIB)
    assert codes_and_messages(check_archives([path])) == []
    os.truncate(path, 2 * GIB + 1)
    assert codes_and_messages(check_archives([path])) == [
        ("archive-too-large", "the file is 2.0 GiB (2147483649 bytes); the limit is 2 GiB")
    ]
    for profile in ("client", "none"):
        assert codes_and_messages(check_archives([path], profile=profile)) == []


@pytest.mark.parametrize("where", ["outside", "inside"])
def test_the_page_takes_two_gib_decompressed(where: str, tmp_path: Path) -> None:
    """The file is small; what it becomes counts, whether the whole is compressed or a layer is."""
    path = tmp_path / "a"
    if where == "inside":
        path.write_bytes(layer_at("bomb", lambda tar: tar.member("bomb", zeros("gzip") * 33)))
    else:
        path.write_bytes(outer(GOOD, "gzip") + zeros("gzip") * 32)
    assert path.stat().st_size < 20 * MIB
    found = check_archives([path])
    assert codes_and_messages(found) == [("decompressed-too-large", "the archive decompresses to more than 2 GiB")]
    assert found.archives[0].uncompressed_bytes is None or found.archives[0].uncompressed_bytes <= 2 * GIB + CHUNK


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd", "xz", "bzip2"])
@pytest.mark.parametrize("form", ["crane", "docker-legacy", "containerd-gzip", "skopeo"])
def test_the_decompressed_size_is_limited_to_the_byte(form: str, compression: Compression, tmp_path: Path) -> None:
    """It is the tar's size with each compressed layer as large as its content: that much is allowed, and not a byte less."""
    path = tmp_path / "a"
    path.write_bytes(outer(PRODUCERS[form](Image()), compression))
    size = check_archives([path], profile="none").archives[0].uncompressed_bytes
    assert size is not None
    assert codes_and_messages(check_archives([path], profile="none", max_decompressed=size)) == []
    found = codes_and_messages(check_archives([path], profile="none", max_decompressed=size - 1))
    assert found and {code for code, _ in found} == {"decompressed-too-large"}


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd", "xz", "bzip2"])
def test_a_layer_is_limited_to_the_byte_stored_and_uncompressed(compression: Compression, tmp_path: Path) -> None:
    path = tmp_path / "a"
    blob = compress(TAR, compression)
    path.write_bytes(parts({LAYER: blob}))
    largest = max(len(TAR), len(blob))
    check = partial(check_archives, [path], profile="client")
    assert codes_and_messages(check(max_layer_size=largest)) == []
    how = "as stored" if compression == "none" else "uncompressed"
    ((code, message),) = codes_and_messages(check(max_layer_size=largest - 1))
    assert (code, how in message) == ("layer-too-large", True)
    if compression != "none":
        ((code, message),) = codes_and_messages(check(max_layer_size=len(blob) - 1))
        assert (code, "as stored" in message) == ("layer-too-large", True)


def test_the_client_takes_layers_of_ten_gib(tmp_path: Path) -> None:
    """A sparse layer that is a byte too large is refused before any of it is read."""
    path = tmp_path / "a"
    size = 10 * GIB + 1
    tar = (
        TarBuilder()
        .member(CONFIG, IMAGE.config)
        .member(MANIFEST, manifest(Layers=["big"]))
        .raw(header("big", size=size))
        .getvalue()
    )
    path.write_bytes(tar)
    os.truncate(path, len(tar) + size + 511 + 1024)
    assert codes_and_messages(check_archives([path], profile="client")) == [
        ("layer-too-large", "the layer is 10.0 GiB (10737418241 bytes), as stored; the limit is 10 GiB")
    ]


def test_ten_files_make_an_upload(tmp_path: Path) -> None:
    paths = paths_of((GOOD,) * 25, tmp_path / "archives")
    result = check_archives(paths)
    assert [row.upload_seq for row in result.archives] == [1] * 10 + [2] * 10 + [3] * 5
    assert codes_and_messages(result) == []
    for profile in ("client", "none"):
        assert {row.upload_seq for row in check_archives(paths[:12], profile=profile).archives} == {1}


def test_a_number_of_files_is_a_hard_limit_and_never_splits(tmp_path: Path) -> None:
    result = check_archives(paths_of((GOOD,) * 14, tmp_path / "archives"), max_files=12)
    assert [row.status for row in result.archives] == ["valid"] * 12 + ["rejected"] * 2
    assert {row.upload_seq for row in result.archives} == {1}
    assert [message for _, message in codes_and_messages(result)] == [
        f"this is file {number} of the run; at most 12 are allowed (--max-files)" for number in (13, 14)
    ]


@pytest.mark.parametrize("compression", ["zstd", "xz", "bzip2"])
def test_the_page_takes_tar_and_gzip_only(compression: Compression, tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(outer(GOOD, compression))
    assert [code for code, _ in codes_and_messages(check_archives([path]))] == ["page-compression"]
    for profile in ("client", "none"):
        assert codes_and_messages(check_archives([path], profile=profile)) == []


def test_a_limit_moves_what_belongs_to_it(tmp_path: Path) -> None:
    """Of the page's one limit for both sizes, the one that is broken is named once."""
    path = tmp_path / "a"
    path.write_bytes(GOOD)
    assert [code for code, _ in codes_and_messages(check_archives([path], max_archive_size=len(GOOD) - 1))] == [
        "archive-too-large"
    ]
    assert codes_and_messages(check_archives([path], max_archive_size=len(GOOD))) == []
    path.write_bytes(outer(GOOD, "gzip"))
    found = codes_and_messages(check_archives([path], max_archive_size=len(GOOD) - 1))
    assert [code for code, _ in found] == ["decompressed-too-large"]


# --- limits stop, while streaming ------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["gzip", "zstd", "xz", "bzip2"])
def test_an_archive_is_read_no_further_than_its_limit(compression: Compression, tmp_path: Path) -> None:
    """The writer of a FIFO counts what is taken of an endless bomb: the reader must have hung up."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    bomb = compress(header("huge", size=1 << 50), compression)
    taken = 0

    def feed() -> None:
        nonlocal taken
        with suppress(BrokenPipeError), path.open("wb", buffering=0) as fifo:
            taken += fifo.write(bomb)
            while taken < GIB:
                taken += fifo.write(zeros(compression))

    with ThreadPoolExecutor(1) as pool:
        feeding = pool.submit(feed)
        result = check_archives([path], profile="none", max_decompressed=64 * MIB)
        feeding.result(60)
    assert codes_and_messages(result) == [("decompressed-too-large", "the archive decompresses to more than 64 MiB")]
    # What the pipe and one read hold beyond the limit: nothing near the gigabyte that was offered.
    assert taken <= 3 * len(zeros(compression)) + (64 << 10) + (256 << 10)


class CountingSink:
    def __init__(self) -> None:
        self.size = 0

    def write(self, data: bytes, /) -> None:
        self.size += len(data)


@pytest.fixture
def blob_file(tmp_path: Path) -> Iterator[Callable[[bytes], Extent]]:
    opened: list[int] = []

    def make(blob: bytes) -> Extent:
        path = tmp_path / f"blob{len(opened)}"
        path.write_bytes(blob)
        opened.append(os.open(path, os.O_RDONLY))
        return Extent(opened[-1], 0, len(blob))

    yield make
    for fd in opened:
        os.close(fd)


LIMITS: dict[str, tuple[int, int | None]] = {"decompressed-too-large": (16 * MIB, None), "layer-too-large": (64 * GIB, 16 * MIB)}


@pytest.mark.parametrize("target", [None, Kind.GZIP, Kind.NONE])
@pytest.mark.parametrize("code", LIMITS)
@pytest.mark.parametrize("kind", [Kind.GZIP, Kind.ZSTD, Kind.XZ, Kind.BZIP2])
def test_a_layer_is_read_no_further_than_its_limit(
    kind: Kind, code: str, target: Kind | None, blob_file: Callable[[bytes], Extent]
) -> None:
    """Of a layer of 512 MiB: how much of it was read, how much of it came out, and how much was written."""
    extent = blob_file(zeros(kind.value) * 8)
    most, layer = LIMITS[code]
    read: list[int] = []
    sink = CountingSink()
    budget = Budget(most, extent.size)
    reading = LayerReading(budget, Cancel(), None, layer, read.append)
    with pytest.raises(ArchiveFault) as caught:
        LayerSource(extent, kind).copy_to(sink if target else None, target or Kind.GZIP, reading)
    assert caught.value.issue.code == code
    assert sum(read) <= len(zeros(kind.value)) + CHUNK  # 64 MiB's worth, and a piece
    assert budget.used <= 17 * MIB
    assert sink.size <= (sum(read) if kind in (Kind.GZIP, Kind.ZSTD) else 17 * MIB)


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK, 5 * CHUNK + 7])
@pytest.mark.parametrize("target", [Kind.NONE, Kind.GZIP, Kind.ZSTD])
def test_what_a_layer_is_does_not_depend_on_who_hashes_it(target: Kind, size: int, blob_file: Callable[[bytes], Extent]) -> None:
    content = random.Random(size).randbytes(size)
    layer = LayerSource(blob_file(content), Kind.NONE)
    alone, beside = io.BytesIO(), io.BytesIO()
    facts = layer.copy_to(alone, target, LayerReading(Budget(GIB, 0), Cancel()))
    with ThreadPoolExecutor(2) as pool:
        assert layer.copy_to(beside, target, LayerReading(Budget(GIB, 0), Cancel(), pool)) == facts
    assert alone.getvalue() == beside.getvalue()
    assert facts.diff_id == facts.source_digest == Digest.of(content)
    assert (facts.uncompressed_bytes, facts.digest, facts.size) == (size, Digest.of(alone.getvalue()), len(alone.getvalue()))


def test_all_layers_share_one_budget(blob_file: Callable[[bytes], Extent]) -> None:
    extent = blob_file(compress(bytes(4 * MIB), "gzip"))
    budget = Budget(10 * MIB, 3 * extent.size)
    layers = [
        LayerSource(replace(extent, offset=0), Kind.GZIP),
        LayerSource(blob_file(compress(bytes(4 * MIB), "gzip")), Kind.GZIP),
    ]
    reading = LayerReading(budget, Cancel())
    for layer in layers:
        layer.copy_to(None, Kind.GZIP, reading)
    assert budget.used == 8 * MIB + extent.size
    with pytest.raises(ArchiveFault):
        LayerSource(blob_file(compress(bytes(4 * MIB), "gzip")), Kind.GZIP).copy_to(None, Kind.GZIP, reading)


@pytest.mark.parametrize("kind", [Kind.GZIP, Kind.XZ])
def test_a_layer_that_is_read_again_counts_once(kind: Kind, blob_file: Callable[[bytes], Extent]) -> None:
    """As when an archive's own manifest turns out to disagree: the layer is then read a second time."""
    extent = blob_file(compress(bytes(4 * MIB), kind.value))
    budget = Budget(4 * MIB + 1000, extent.size + 1000)
    for sink in (None, CountingSink(), None):
        facts = LayerSource(extent, kind).copy_to(sink, Kind.GZIP, LayerReading(budget, Cancel()))
        assert facts.uncompressed_bytes == 4 * MIB
        assert budget.used == 4 * MIB + 1000


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("fault", ["too large", "corrupt"])
def test_a_fault_lets_go_of_the_decoder(fault: str, stored: bool, blob_file: Callable[[bytes], Extent]) -> None:
    """The fault is kept, with its traceback, until the archive is done: the next large window must not wait for that."""
    blob = lzma.compress(bytes(20 * MIB), filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 32 * MIB}])
    good = LayerSource(blob_file(blob), Kind.XZ)
    bad = LayerSource(blob_file(blob if fault == "too large" else blob[:-20]), Kind.XZ)
    sink = CountingSink() if stored else None
    with ThreadPoolExecutor(2) as pool:
        reading = LayerReading(Budget(GIB, 0), Cancel(), pool, MIB if fault == "too large" else None)
        with pytest.raises(ArchiveFault) as caught:
            bad.copy_to(sink, Kind.GZIP, reading)
    kept = caught.value
    assert kept.__traceback__ is not None
    sizes: list[int] = []
    reading = LayerReading(Budget(GIB, 0), Cancel())
    thread = threading.Thread(target=lambda: sizes.append(good.copy_to(None, Kind.GZIP, reading).uncompressed_bytes), daemon=True)
    thread.start()
    thread.join(30)
    assert sizes == [20 * MIB]


def test_a_fault_of_the_spool_lets_go_of_the_decoder(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(lzma.compress(GOOD + bytes(MIB), filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 32 * MIB}]))
    with pytest.raises(ArchiveFault) as caught, open_archive(str(path), spool_dir=None, max_decompressed=9999, cancel=Cancel()):
        pass
    kept = caught.value
    results: list[RunResult] = []
    thread = threading.Thread(target=lambda: results.append(check_archives([path], **FREE)), daemon=True)
    thread.start()
    thread.join(30)
    assert results and codes_and_messages(results[0]) == []
    assert kept.issue.code == "decompressed-too-large"


def test_a_bomb_in_an_import_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(layer_at("bomb", lambda tar: tar.member("bomb", one_gzip_member(256 * MIB))))
    result = import_archives([path], tmp_path / "store", max_decompressed=16 * MIB)
    assert [code for code, _ in codes_and_messages(result)] == ["decompressed-too-large"]
    left = [each for each in (tmp_path / "store").rglob("*") if each.is_file() and each.stat().st_size > MIB]
    assert left == []


def test_sizes_in_messages_are_for_people(tmp_path: Path) -> None:
    """No message counts bytes by the million."""
    big = Image(layers=(*HELLO, Layer.of({"big": bytes(3 * MIB)})))
    path = tmp_path / "a"
    for data, options in (
        (docker_legacy(big), {"max_archive_size": MIB}),
        (outer(docker_legacy(big), "gzip"), {"max_decompressed": 2 * MIB}),
        (docker_legacy(big), {"max_layer_size": 2 * MIB}),
        (config(replace(IMAGE, raw_config=with_config(a="b" * 5 * MIB))), {}),
    ):
        path.write_bytes(data)
        ((_, message), *_) = codes_and_messages(check_archives([path], **options))
        assert "MiB" in message and not re.search(r"\d{7}", message), message
