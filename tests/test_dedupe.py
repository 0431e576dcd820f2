"""Dedupe: what images share by their layers and by their files, of archives and of a store."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from imagetar import Image, Layer, TarBuilder, docker25, docker_legacy
from swrbatch import import_archives
from swrbatch.cli import app
from swrbatch.digest import Cancel, Digest
from swrbatch.inspect.duplicates import counting
from swrbatch.inspect.files import LayerFiles
from swrbatch.inspect.sharing import ImageLayers, find_sharing
from swrbatch.inspect.sharing_report import SHARING_ROWS
from swrbatch.tables import row_schema

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


# --- files ------------------------------------------------------------------------------------------------------------------

SAME, OTHER, TWICE = b"s" * 5000, b"o" * 3000, b"t" * 700
FILED = [
    Image(layers=(Layer.of({"one": b"1", "lib/same": SAME, "empty": b""}), BASE), tags=(f"{HOST}/one:v1",)),
    Image(layers=(Layer.of({"lib/same": SAME, "lib/other": OTHER, "x": TWICE, "y": TWICE}), BASE), tags=(f"{HOST}/two:v1",)),
    Image(layers=(Layer.of({"lib/same": SAME, "lib/other": OTHER, "elsewhere": SAME}),), tags=(f"{HOST}/three:v1",)),
]


def files_of(*words: str | Path) -> dict[str, Any]:
    code, out, _ = run(*words, "--files", "--format", "json")
    assert code == 0
    found: dict[str, Any] = json.loads(out)["files"]
    return found


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_files_by_content(tmp_path: Path, compression: str) -> None:
    (tmp_path / "a.tar").write_bytes(docker_legacy(*FILED))
    assert json.loads(run(tmp_path / "a.tar", "--format", "json")[1])["files"] is None
    told = files_of(tmp_path / "a.tar")
    each_once = 1 + len(SAME) + len(OTHER) + len(TWICE) + 40_000
    again = 3 * len(SAME) + len(OTHER) + len(TWICE)
    assert (told["files"], told["distinct_files"], told["distinct_bytes"]) == (10, 5, each_once)
    assert (told["bytes"], told["duplicate_bytes"]) == (each_once + again, again)
    names = ("bytes", "copies", "layers", "images", "duplicate_bytes", "path")
    assert [tuple(each[name] for name in names) for each in told["largest_duplicates"]] == [
        (len(SAME), 4, 3, 3, 3 * len(SAME), "elsewhere"),
        (len(OTHER), 2, 2, 2, len(OTHER), "lib/other"),
        (len(TWICE), 2, 1, 1, len(TWICE), "x"),
    ]
    assert told["largest_duplicates"][0]["digest"] == str(Digest.of(SAME))
    # The layer that one and two share costs nothing twice; the file in another place is no file of a common base.
    assert told["candidate_bases"] == [
        {"files": 1, "bytes": 5000, "saved_bytes": 10_000, "images": [f"{HOST}/{n}:v1" for n in ("one", "two", "three")]},
        {"files": 2, "bytes": 8000, "saved_bytes": 8000, "images": [f"{HOST}/{n}:v1" for n in ("two", "three")]},
    ]
    assert import_archives([tmp_path / "a.tar"], tmp_path / "store", compression=compression).exit_code == 0
    stored = files_of("--store", tmp_path / "store")
    assert {**stored, "candidate_bases": None} == {**told, "candidate_bases": None}
    assert [sorted(each["images"]) for each in stored["candidate_bases"]] == [
        sorted(each["images"]) for each in told["candidate_bases"]
    ]
    text = run(tmp_path / "a.tar", "--files")[1]
    assert "candidate for a common base of 3 images: 1 file, 4.9 KiB, would save 9.8 KiB" in text and "elsewhere" in text


def test_each_distinct_layer_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Digest] = []
    add = LayerFiles.add

    def counted(self: LayerFiles, diff_id: Digest, source: Any) -> None:
        read.append(diff_id)
        add(self, diff_id, source)

    monkeypatch.setattr(LayerFiles, "add", counted)
    (tmp_path / "a.tar").write_bytes(docker_legacy(*IMAGES))
    (tmp_path / "b.tar").write_bytes(docker25(*IMAGES[:2]))
    assert import_archives([tmp_path / "a.tar"], tmp_path / "store").exit_code == 0
    for words in ((tmp_path / "a.tar", tmp_path / "b.tar"), ("--store", tmp_path / "store")):
        read.clear()
        files_of(*words)
        assert sorted(map(str, read)) == sorted(layer.diff_id for layer in (BASE, LIBRARY, *APPS))


def test_a_damaged_layer_costs_its_image_only(tmp_path: Path) -> None:
    cut = Layer(Layer.of({"a": b"a" * 5000}).tar[:3000])
    (tmp_path / "a.tar").write_bytes(
        docker_legacy(FILED[0], Image(layers=(FILED[1].layers[0], cut), tags=(f"{HOST}/cut:v1",)), FILED[2])
    )
    code, out, err = run(tmp_path / "a.tar", "--files", "--format", "json")
    told = json.loads(out)
    assert code == 1 and told["images"] == 2
    assert "error archive-truncated" in err and "a.tar layer 1 (" in err and "): a\n" in err
    assert told["files"]["files"] == 6  # what was read for the refused image alone does not count


HOSTILE = {
    "path-escape": TarBuilder().member("a/../../etc/passwd", b"x").end().getvalue(),
    "metadata-too-large": TarBuilder().member("a/" * 3000 + "b", b"x").end().getvalue(),
    "archive-corrupt": b"PK\x03\x04" + bytes(3000),
    "archive-truncated": TarBuilder().member("a", b"x", size=1 << 40).getvalue(),
}


@pytest.mark.parametrize("code", HOSTILE)
def test_hostile_layers_are_located(tmp_path: Path, code: str) -> None:
    bad = Image(layers=(BASE, Layer(HOSTILE[code])), tags=(f"{HOST}/bad:v1",))
    (tmp_path / "a.tar").write_bytes(docker_legacy(bad, FILED[2]))
    status, out, err = run(tmp_path / "a.tar", "--files", "--format", "json")
    assert status == 1 and f"error {code} " in err and "layer 1 (" in err and "way out" in err
    assert json.loads(out)["images"] == 1 and json.loads(out)["files"]["files"] == 3


def test_the_report(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(docker_legacy(*FILED))
    assert run(tmp_path / "a.tar", "--files", "--report", tmp_path / "report")[0] == 0
    found = {}
    for table, kind in SHARING_ROWS.items():
        (path,) = (tmp_path / "report" / table).iterdir()
        data = pq.read_table(path, partitioning=None)
        assert data.schema.equals(row_schema(kind)), table
        found[table] = data.to_pylist()
    (run_id,) = {row["run_id"] for rows in found.values() for row in rows}
    assert [row["run_id"] for row in found["dedupe"]] == [run_id]
    assert (found["dedupe"][0]["images"], found["dedupe"][0]["files"], found["dedupe"][0]["store"]) == (3, 10, None)
    assert [row["path"] for row in found["shared_files"]] == ["elsewhere", "lib/other", "x"]
    assert [row["diff_id"] for row in found["shared_layers"]] == [BASE.diff_id]
    assert [(row["kind"], row["files"], row["saved_bytes"]) for row in found["bases"]] == [
        ("candidate", 1, 10_000),
        ("candidate", 2, 8000),
    ]
    assert run(tmp_path / "a.tar", "--report", tmp_path / "report")[0] == 0
    rows = pq.read_table(tmp_path / "report" / "dedupe", partitioning=None).to_pylist()
    assert sorted(row["files"] is None for row in rows) == [False, True]
    assert run(tmp_path / "a.tar", "--report", "")[0] == 2
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "a.tar", "--report", tmp_path / "file")[0] == 3


def test_the_text_in_both_languages(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(docker_legacy(*IMAGES[:2]))
    (tmp_path / "b.tar").write_bytes(docker_legacy(replace(FILED[0], tags=IMAGES[0].tags)))
    (tmp_path / "c.tar").write_bytes(docker_legacy(*FILED[1:]))
    english, chinese = (run(tmp_path, "--files", "--lang", language)[1].splitlines() for language in ("en", "zh"))
    assert "5 images, 11 layers of which" in english[0] and "5个镜像，11层" in chinese[0]
    assert len(english) == len(chinese)
    # Names, and rows of digests and sizes, are the same in both.
    same = re.compile(r"  \S+:v1( \([0-9a-f]{12}\))?|([0-9a-f]{12}|[\d.]+ KiB)  .*|")
    assert not [line for line in english if line in chinese and not same.fullmatch(line)]
    # Two images have one name: each is told by its image ID.
    told = {line.strip() for line in english if f"{HOST}/one:v1" in line}
    assert len(told) == 2 and all(re.fullmatch(r"\S+ \([0-9a-f]{12}\)", name) for name in told)


def test_an_image_without_a_name_is_called_as_in_another_archive(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(docker_legacy(replace(IMAGES[0], tags=())))
    (tmp_path / "b.tar").write_bytes(docker_legacy(*IMAGES[:2]))
    told = json.loads(run(tmp_path, "--format", "json")[1])
    assert told["images"] == 2 and told["common_bases"][0]["images"] == [f"{HOST}/one:v1", f"{HOST}/two:v1"]


def test_names_that_are_no_utf8_and_an_empty_batch(tmp_path: Path) -> None:
    latin = Layer(TarBuilder().member(b"a\xff", SAME).end().getvalue())
    odd = Image(layers=(latin, Layer.of({"b": SAME})), tags=(f"{HOST}/odd:v1",))
    (tmp_path / "a.tar").write_bytes(docker_legacy(odd))
    assert files_of(tmp_path / "a.tar")["largest_duplicates"][0]["path"] == "a\\udcff"
    assert import_archives([], tmp_path / "store").exit_code == 0
    told = files_of("--store", tmp_path / "store")
    assert (told["files"], told["bytes"], told["candidate_bases"]) == (0, 0, [])


NAMES = st.sampled_from(["a", "b", "c/d"])
CONTENTS = st.integers(0, 3).map(lambda number: bytes([number]) * (number + 1) * 10)
LAYERS = st.lists(st.dictionaries(NAMES, CONTENTS, max_size=3), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)
@given(st.data(), LAYERS)
def test_counts_are_those_of_the_definition(data: st.DataObject, contents: list[dict[str, bytes]]) -> None:
    layers = [Layer.of({**files, f"only{at}": bytes([at + 100])}) for at, files in enumerate(contents)]
    picked = data.draw(st.lists(st.lists(st.sampled_from(range(len(layers))), max_size=3), max_size=4))
    images = [
        ImageLayers(name=str(at), layers=tuple((Digest.parse(layers[n].diff_id), 0) for n in numbers))
        for at, numbers in enumerate(picked)
    ]
    with LayerFiles(Cancel()) as files:
        for number in sorted({n for numbers in picked for n in numbers}):
            files.add_pieces(Digest.parse(layers[number].diff_id), iter([layers[number].tar]))
        files.finish()
        with counting(files, images, Cancel()) as counts:
            found = counts.sharing()
            rows = [row for batch in counts.duplicates() for row in batch.to_pylist()]
    used = {n: {**contents[n], f"only{n}": bytes([n + 100])} for numbers in picked for n in numbers}
    listed = Counter(body for own in used.values() for body in own.values())
    assert (found.files, found.bytes) == (sum(listed.values()), sum(len(body) * count for body, count in listed.items()))
    assert (found.distinct_files, found.distinct_bytes) == (len(listed), sum(map(len, listed)))
    assert {row["digest"]: row["copies"] for row in rows} == {str(Digest.of(body)): c for body, c in listed.items() if c > 1}
    has = {at: {pair for n in numbers for pair in used[n].items()} for at, numbers in enumerate(picked)}
    where = {pair: {n for n, own in used.items() if pair in own.items()} for at in has for pair in has[at]}
    sets = {frozenset(at for at in has if pair in has[at]) for pair, places in where.items() if len(places) > 1}
    expected = {}
    for members in (each for each in sets if len(each) > 1):
        inside = {n for at in members for n in picked[at]}
        costs = [
            (len(body), len(where[name, body] & inside)) for name, body in where if all((name, body) in has[at] for at in members)
        ]
        told = [(size, count) for size, count in costs if count > 1]
        expected[members] = (len(told), sum(size for size, _ in told), sum(size * (count - 1) for size, count in told))
    assert {frozenset(map(int, c.images)): (c.files, c.bytes, c.saved_bytes) for c in found.candidates} == expected
