"""Dedupe: what images share by their layers, of archives and of a store."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from imagetar import Image, Layer, docker25, docker_legacy
from swrbatch import import_archives
from swrbatch.cli import app
from swrbatch.digest import Digest
from swrbatch.inspect.sharing import ImageLayers, find_sharing

HOST = "swr.cn-north-1.example.com/team"
BASE, LIBRARY = Layer.of({"base": b"b" * 40_000}), Layer.of({"lib": b"l" * 20_000})
APPS = [Layer.of({f"app{number}": b"a" * 1000}) for number in range(3)]
IMAGES = [
    Image(layers=(BASE, LIBRARY, APPS[0]), tags=(f"{HOST}/one:v1",)),
    Image(layers=(BASE, LIBRARY, APPS[1]), tags=(f"{HOST}/two:v1",)),
    Image(layers=(BASE, APPS[2]), tags=(f"{HOST}/three:v1",)),
]


def run(*words: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["dedupe", *map(str, words)], prog_name="swrbatch")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def test_layers_and_bases_of_archives(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(docker_legacy(*IMAGES[:2]))
    (tmp_path / "b.tar").write_bytes(docker25(IMAGES[2]))
    (tmp_path / "again.tar").write_bytes(docker25(IMAGES[0]))
    code, out, err = run(tmp_path, "--format", "json")
    told = json.loads(out)
    base, library, top = len(BASE.tar), len(LIBRARY.tar), len(APPS[0].tar)
    assert (code, err, told["images"], told["layers"], told["distinct_layers"]) == (0, "", 3, 8, 5)
    assert told["bytes"] == 3 * base + 2 * library + 3 * top
    assert told["saved_bytes"] == told["bytes"] - told["distinct_bytes"] == 2 * base + library
    assert [(each["diff_id"], len(each["images"]), each["saved_bytes"]) for each in told["shared_layers"]] == [
        (BASE.diff_id, 3, 2 * base),
        (LIBRARY.diff_id, 2, library),
    ]
    bases = {each["top_diff_id"]: (each["layers"], each["bytes"], sorted(each["images"])) for each in told["common_bases"]}
    names = sorted(f"{HOST}/{name}:v1" for name in ("one", "two", "three"))
    assert bases == {
        BASE.diff_id: (1, base, names),
        LIBRARY.diff_id: (2, base + library, [n for n in names if "three" not in n]),
    }
    text = run(tmp_path)[1]
    assert "3 images, 8 layers of which 5 distinct" in text and "common base of 3 images: 1 layer" in text


def test_a_store_and_a_bad_archive(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(docker_legacy(*IMAGES))
    assert import_archives([tmp_path / "a.tar"], tmp_path / "store", compression="none").exit_code == 0
    code, out, _ = run("--store", tmp_path / "store", "--format", "json")
    told = json.loads(out)
    assert code == 0
    assert [each["diff_id"] for each in told["shared_layers"]] == [BASE.diff_id, LIBRARY.diff_id]
    assert told == json.loads(run(tmp_path / "a.tar", "--format", "json")[1]) | {
        key: told[key] for key in ("shared_layers", "common_bases")
    }
    assert run("--store", tmp_path / "store", "--user", "somebody")[0] == 1
    (tmp_path / "bad.tar").write_bytes(b"")
    code, out, err = run(tmp_path / "a.tar", tmp_path / "bad.tar", "--format", "json")
    assert code == 1 and "archive-empty" in err and json.loads(out)["images"] == 3
    assert run()[0] == run(tmp_path / "a.tar", "--store", tmp_path / "store")[0] == 2


@given(st.lists(st.lists(st.integers(0, 4), max_size=4), max_size=6))
def test_bases_are_the_longest_common_beginnings(images: list[list[int]]) -> None:
    """Each two images have their common beginning among the bases, and a base is the beginning of all of its images."""
    digests = [Digest.of(bytes([number])) for number in range(5)]
    named = [ImageLayers(name=str(n), layers=tuple((digests[i], i + 1) for i in layers)) for n, layers in enumerate(images)]
    found = find_sharing(named)
    assert found.saved_bytes == sum(each.saved_bytes for each in found.shared)
    told = {(each.layers, frozenset(map(int, each.images))) for each in found.bases}
    for depth, members in told:
        begins = {tuple(images[n][:depth]) for n in members}
        assert len(begins) == 1 and members == {n for n, layers in enumerate(images) if tuple(layers[:depth]) in begins}
    for a, one in enumerate(images):
        for b, other in enumerate(images[:a]):
            pairs = [x == y for x, y in zip(one, other, strict=False)]
            common = pairs.index(False) if False in pairs else len(pairs)
            assert not common or any(depth == common and {a, b} <= members for depth, members in told)
