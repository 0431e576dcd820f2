"""Bulk reading gives the rows of the exact reader: for samples, for every shape, for what is damaged, for anything generated.

both(path, …)   what DuckDB's way and the exact way make of files; they must be equal
"""

from __future__ import annotations

import gzip
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import swrbatch.audit.bulk as bulk_module
import swrbatch.audit.files as files
import swrbatch.audit.ingest as ingest_module
import swrbatch.audit.unpack as unpack_module
from swrbatch.audit.bulk import Bulk
from swrbatch.audit.columns import _FITTING, _FITTING_LENGTH, KNOWN
from swrbatch.audit.dataset import Dataset
from swrbatch.audit.files import Reject, read_file, source_of
from swrbatch.audit.ingest import ingest
from swrbatch.audit.packed import unpacked
from swrbatch.audit.stage import Stage
from swrbatch.audit.traces import MAX_DEPTH, NAMED, TEXTS, TraceRow, name_fits, read_trace
from swrbatch.audit.unpack import prepare
from swrbatch.cts import catalog
from swrbatch.digest import Cancel
from swrbatch.tables import row_columns, rows_to_arrow
from test_audit_traces import DAMAGE, ENVELOPES, SCALARS, candidates
from traces import (
    HOUR,
    NOON,
    NOW,
    ROOT,
    SAMPLES,
    SWR,
    USER,
    array,
    catalog_traces,
    key,
    lines,
    obs,
    rejects_of,
    rows_of,
    trace,
    traces,
    write,
)

sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
import make_traces

COLUMNS = [c.name for c in row_columns(TraceRow)]
Found = tuple[list[dict[str, Any]], list[Reject]]


def exact(path: Path, name: str, catalog_name: str = "guide_2020") -> Found:
    """A file's rows and rejects, record by record."""
    rows, rejects = [], []
    for item in read_file(str(path), Cancel()):
        if isinstance(item, Reject):
            rejects.append(item)
        elif isinstance(item, files.Record):
            rows.append(read_trace(item.value, source_of(name), item.position, NOW, catalog_name))
    return rows_to_arrow(TraceRow, rows).to_pylist(), rejects


def in_bulk(folder: Path, paths: dict[str, Path], catalog_name: str = "guide_2020") -> dict[str, Found | None]:
    """Files' rows and rejects through DuckDB, by name; None for a file that is left to the exact reader."""
    work = folder / "work"
    work.mkdir()
    stage = Stage(str(work), Cancel())
    names = list(paths)
    prepared = [prepare(number, str(paths[name]), name, str(work), Cancel()) for number, name in enumerate(names)]
    bulk = Bulk(str(work), stage, NOW, catalog_name, Cancel())
    chunk = bulk.take([each for each in prepared if each is not None])
    bulk.close()
    assert not list(work.glob("*.json"))
    rows: dict[str, list[dict[str, Any]]] = {}
    for _, batch in stage._batches(COLUMNS):
        for row in unpacked(batch).to_pylist():
            rows.setdefault(row["source_file"], []).append(row)
    found: dict[str, Found | None] = dict.fromkeys(names)
    for number, taken in chunk.taken.items():
        each = sorted(rows.pop(names[number], []), key=lambda row: row["source_position"])
        assert len(each) == taken.records
        found[names[number]] = each, taken.rejects
    assert rows == {}
    return found


def both(folder: Path, data: dict[str, bytes], catalog_name: str = "guide_2020") -> list[str]:
    """Compare both ways over files (name, content); the names of those that DuckDB took."""
    paths = {name: write(folder / "in" / f"{number}", content) for number, (name, content) in enumerate(data.items())}
    taken = []
    for name, found in in_bulk(folder, paths, catalog_name).items():
        if found is None:
            continue
        rows, rejects = exact(paths[name], name, catalog_name)
        for one, other in zip(found[0], rows, strict=True):
            assert one == other, (name, {key: (one[key], other[key]) for key in one if one[key] != other[key]})
        assert found[1] == rejects
        taken.append(name)
    return taken


# --- files -------------------------------------------------------------------------------------------------------------


def test_files_of_a_bucket(tmp_path: Path) -> None:
    data = {str(path.relative_to(SWR)): path.read_bytes() for path in SWR.rglob("*.gz")}
    taken = both(tmp_path, data)
    assert sorted(taken) == sorted(name for name in data if "Digest" not in name)


def test_the_official_samples(tmp_path: Path) -> None:
    data = {path.name: path.read_bytes() for path in sorted(SAMPLES.iterdir())}
    assert both(tmp_path, data) == ["obs_transferred_trace_file_2024.json", "smn_topic_2017.json"]
    # All of them as one array, one a line, and in the API's shape.
    values = [json.loads(path.read_bytes()) for path in sorted(SAMPLES.glob("*.json")) if "digest" not in path.name]
    flat = [
        each
        for value in values
        for each in (value if isinstance(value, list) else value.get("traces", [value.get("cts", value)]))
    ]
    assert len(flat) == 12
    assert both(tmp_path / "b", {"array": array(flat), "lines": lines(flat), "pretty": json.dumps(flat, indent=2).encode()}) == [
        "array",
        "lines",
        "pretty",
    ]


@pytest.mark.parametrize("catalog_name", ["guide_2020", "v2"])
def test_generated_traces(tmp_path: Path, catalog_name: str) -> None:
    data = {make_traces.key(n, 400): obs(make_traces.traces(n, 400, seed=3)) for n in range(3)}
    assert both(tmp_path, data, catalog_name) == list(data)


def test_every_envelope(tmp_path: Path) -> None:
    taken = both(tmp_path, {name: text.encode() for name, text in ENVELOPES.items()})
    assert {
        "array",
        "array, pretty",
        "array, spaced",
        "array, byte order mark",
        "objects, one a line",
        "objects, lines of Windows",
    } == set(taken)


def test_everything_damaged(tmp_path: Path) -> None:
    taken = both(tmp_path, {name: data for name, (data, *_) in DAMAGE.items()})
    # What is wrong with one value costs that record; what is wrong with the text sends the file to the exact reader.
    assert taken == ["null for a record", "too deep"]


def test_damage_in_one_file_leaves_the_others_in_bulk(tmp_path: Path) -> None:
    data = {f"good-{n}": array(traces(20, 20 * n)) for n in range(6)}
    bad = {name: data for name, (data, *_) in list(DAMAGE.items())[:12]}
    taken = both(tmp_path, {**bad, **data})
    assert taken[-6:] == list(data)


ONE, TWO = (json.dumps(value).encode() for value in traces(2))


@pytest.mark.parametrize(
    "data",
    [
        b"[" + ONE + b"]" + TWO + b"]",
        b"[" + ONE + b"]\n" + TWO + b"]",
        b"[" + ONE + b"] null ]",
        b"[" + ONE + b"][" + TWO + b"]",
        b"[" + ONE + b"],[" + TWO + b"]]",
        b"[" + ONE + b"]]",
        ONE + b"\n[" + TWO + b"]",
        ONE + b"]\n" + TWO,
    ],
)
def test_more_behind_the_end_of_an_array(data: bytes, tmp_path: Path) -> None:
    both(tmp_path, {"x": data})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32))
@example(23767)
def test_any_damage(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    """Bytes changed at random, often at signs that matter: when DuckDB takes the file, the rows are those of the exact reader."""
    rng = random.Random(seed)
    data = {}
    for number in range(8):
        text = bytearray(rng.choice((array(traces(4)), lines(traces(4)), json.dumps(traces(3), indent=1).encode())))
        for _ in range(rng.randrange(1, 3)):
            signs = [i for i, byte in enumerate(text) if byte in b'[]{},:"\\\n'] if rng.random() < 0.8 else range(len(text))
            at = rng.choice(signs)
            text[at : at + rng.randrange(3)] = rng.choice(
                (
                    b"",
                    b",",
                    b"]",
                    b"}",
                    b"{",
                    b'"',
                    b"\\",
                    b":",
                    b"null",
                    b"NaN",
                    b"\n",
                    b" ",
                    b"[",
                    b"1",
                    b"\xff",
                    b",,",
                    b'"a":',
                )
            )
        data[str(number)] = bytes(text)
    both(tmp_path_factory.mktemp("any"), data)


# --- values ------------------------------------------------------------------------------------------------------------

NESTED = st.recursive(
    SCALARS.filter(lambda v: v == v and v not in (float("inf"), float("-inf"))),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "user": st.sampled_from(
        [USER, json.dumps(USER), "xxx", "", "null", '{"name":"a","name":"b"}', '{"id":1,"name":{"x":[1.50]}}', "[1]", "{broken"]
    ),
    "code": st.sampled_from([200, "200", 403, 1e2, 2e22, 1.50, "VPC.0514", 10**25, -0.0, 4_000, "é"]),
    "request": NESTED
    | st.sampled_from(["", "{}", '{"a":"\\u00e9"}', {"a": {"b": [1, 1.0, 10**30, "\\u0041\n\x00/"]}}, [], {"k\\": 1}]),
    "resource_name": st.sampled_from(
        [
            "team/a:1",
            "Team/a",
            "team",
            "a/b/c:v-1",
            "x" * 70,
            "x" * 65 + "/" + "y" * 129,
            "a..b",
            "a:b:c",
            "t/r:" + "v" * 129,
            "a_b/c__d.e",
            "a.tar",
            "-",
            "é",
        ]
    ),
    "service_type": st.sampled_from(["SWR", "ECS", "swr", ""]),
    "resource_type": st.sampled_from(sorted({entry.resource_type for entry in catalog().values()})),
    "trace_name": st.sampled_from([*catalog(), "deleteUserNamespace", "unknown"]),
    "trace_rating": st.sampled_from(["normal", "warning", "incident", "", "Normal"]),
    "trace_status": st.sampled_from(["normal", "warning", "fine", 1]),
    "time": st.sampled_from(
        [
            NOON,
            0,
            1,
            1_420_070_399_999,
            NOW + 10**9,
            10**15,
            253402300800000,
            -1,
            1e12,
            1.5,
            "2016/12/08 11:07:28 GMT+08:00",
            "2016/13/08 11:07:28 GMT+08:00",
            "x",
        ]
    ),
    "record_time": st.sampled_from([NOON, NOON + 5, "2016/12/08 11:07:28 GMT+08:00", "", False]),
    "trace_type": st.sampled_from(["ApiCall", "ConsoleAction", "SystemAction"]),
    "content_length": st.sampled_from([0, 1, 1.5, 1e300, 10**400, "1", -0.0]),
    "total_time": st.sampled_from([0.1, 1e-7, 12345678901234567890, True]),
    "read_only": st.sampled_from([True, False, "true", 1]),
    "trace_id": st.text(max_size=5) | st.sampled_from(["x" * 128, "x" * 129, "é" * 128, "\x00", 'a\\b"c/d\n']),
    "message": st.text(max_size=20)
    | st.sampled_from(['","trace_id":"', '\\":', 'a":b', "\\\\", "NaN", ",}", ", ]", "\u2028", "😀"]),
}
EXTRA = st.dictionaries(
    st.sampled_from(
        ["origin", "a b'c", 'q"q', "file", "odd", "request_other", "+x", "é", "k\\", "Time", "x.y", "$", "0", "trace status"]
    ),
    NESTED,
    max_size=3,
)


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """A trace, some of whose keys have another value, are null, or are not there; and some that nobody knows."""
    value = trace(draw(st.integers(0, 999)))
    for name in draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=5, unique=True)):
        value[name] = draw(st.none() | VALUES[name] | VALUES[name] | SCALARS)
        if draw(st.integers(0, 9)) == 0:
            del value[name]
    return {**value, **draw(st.just({}) | st.just({}) | EXTRA)}


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    st.lists(records() | candidates(), min_size=1, max_size=12),
    st.sampled_from(["array", "lines", "pretty", "ascii"]),
    st.booleans(),
)
def test_any_values(tmp_path_factory: pytest.TempPathFactory, values: list[dict[str, Any]], form: str, uploaded: bool) -> None:
    text = {
        "array": lambda: json.dumps(values, ensure_ascii=False, separators=(",", ":")),
        "ascii": lambda: json.dumps(values),
        "pretty": lambda: json.dumps(values, indent=1, ensure_ascii=False),
        "lines": lambda: "\n".join(json.dumps(value, ensure_ascii=False) for value in values),
    }[form]()
    name = key(NOON + HOUR) if uploaded else "a.json"
    plain = array(traces(3))
    taken = both(tmp_path_factory.mktemp("any"), {name: text.encode("utf-8", "surrogatepass"), "plain": plain})
    assert "plain" in taken


PLAIN_VALUES = [
    trace(1),
    trace(2, message='a "quoted" \\ text\n\t/ é 😀 \x00 \x1f', request='{"a":"\\"b\\""}'),
    trace(3, user=USER, request={"a": [1, {"b": None}]}, response=[1.5]),
    trace(4, user="anna", code="VPC.1", time="2016/12/08 11:07:28 GMT+08:00"),
    trace(5, user=None, trace_type="SystemAction", message=None, code=None),
    trace(6, trace_rating=..., trace_status="warning"),
    trace(7, origin={"host": "h", "run": 1}, zone="z"),
    trace(8, trace_name="nobody", resource_type="x", resource_name="Bad Name"),
    trace(9, trace_id=...),
    trace(10, resource_name=5, time=..., read_only="no"),
    trace(11, content_length=12, total_time=0.5),
    trace(12, user=json.dumps({"user_name": "b", "account_id": "a"}, indent=1)),
    {},
]


@pytest.mark.parametrize("form", ["array", "lines", "pretty", "ascii"])
def test_values_of_every_shape_are_taken_in_bulk(tmp_path: Path, form: str) -> None:
    data = {
        "array": array(PLAIN_VALUES),
        "lines": lines(PLAIN_VALUES),
        "pretty": json.dumps(PLAIN_VALUES, indent=3).encode(),
        "ascii": json.dumps(PLAIN_VALUES).encode(),
    }
    assert both(tmp_path, {"a.json": data[form]}) == ["a.json"]


def test_a_known_key_in_other_letters_is_another_key(tmp_path: Path) -> None:
    assert both(tmp_path, {"a": array([trace(1, Time=1, TRACE_ID="x")])}) == []
    assert both(tmp_path / "b", {"a": array([trace(1, x=1, X=2)])}) == []


@pytest.mark.parametrize(
    "name", ["file", "odd", "filename", "user_other", "k\\", 'k"', "k':", "\\", "é", "", " ", "a.b", "$", '":', '\\\\":']
)
def test_an_unknown_key_is_never_passed_over(tmp_path: Path, name: str) -> None:
    for number, value in enumerate((1, "x", {"y": 1, 'z":': [{}]}, [], None, '":', "\\")):
        folder = tmp_path / str(number)
        both(
            folder,
            {"a.json": array([trace(1), trace(2, **{name: value})]), "b.json": array([trace(3, **{name: value}, other=1)])},
        )
        rows, _ = exact(folder / "in" / "0", "a.json")
        assert (rows[1]["extra"] is None) == (value is None)


def test_envelopes_inside_of_an_array_are_seen(tmp_path: Path) -> None:
    values = [trace(1), {"cts": trace(2)}, {"traces": [trace(3)]}, {"log_files": [], "digest_object": "x"}]
    assert both(tmp_path, {str(n): array([trace(0), value]) for n, value in enumerate(values)}) == ["0"]
    # With an id it is a trace that has such a key.
    assert both(tmp_path / "b", {"a": array([trace(1, traces=[1])])}) == []


def test_digest_files_do_not_come_to_duckdb(tmp_path: Path) -> None:
    """Whatever they are called: a few of them would have all files of their chunk read one by one."""
    sample = (SAMPLES / "digest_file_2017.json").read_bytes()
    line = json.dumps(json.loads(sample)).encode()
    for number, data in enumerate((sample, line, line + b"\n", gzip.compress(line))):
        (tmp_path / str(number)).write_bytes(data)
        assert prepare(number, str(tmp_path / str(number)), "a.json.gz", str(tmp_path), Cancel()) is None
    # A trace that speaks of one is a trace.
    told = {"request": line.decode(), "response": line.decode()}
    assert both(tmp_path / "told", {"a": json.dumps(trace(1, **told)).encode() + b"\n"}) == ["a"]


def test_unknown_keys_are_learned_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = bulk_module._query
    monkeypatch.setattr(
        bulk_module,
        "_query",
        lambda paths, form, learned, flat: asked.append((len(learned), flat)) or real(paths, form, learned, flat),
    )
    data = {f"{n}.json": array([trace(n, origin={"a": n}, zone="z", none=None)]) for n in range(4)}
    assert both(tmp_path, data) == list(data)
    assert asked == [(0, False), (3, False)]


def test_too_many_unknown_keys_are_left(tmp_path: Path) -> None:
    data = {
        "many": array([trace(0, **{f"k{n}": n for n in range(100)})]),
        "few": array([trace(1, **{f"x{n}": n for n in range(10)})]),
    }
    assert both(tmp_path, data) == ["few"]


@settings(max_examples=500)
@given(
    st.sampled_from(sorted(NAMED)),
    st.from_regex(r"[a-zA-Z0-9._:/-]{1,70}", fullmatch=True) | st.from_regex(_FITTING.strip("^$"), fullmatch=True),
)
def test_names_that_are_not_judged_fit(kind: str, name: str) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    if len(name) <= _FITTING_LENGTH and pc.match_substring_regex(pa.array([name]), _FITTING)[0].as_py():
        assert name_fits(kind, name)


def test_every_key_has_its_column() -> None:
    assert set(KNOWN) == {
        *TEXTS,
        "trace_rating",
        "trace_status",
        "code",
        "user",
        "request",
        "response",
        "time",
        "record_time",
        "read_only",
        "content_length",
        "total_time",
    }


def counted(text: str) -> tuple[int, int, bool]:
    """Keys of a JSON text, those whose value is a text, and whether no value of a key is null, an object or an array."""
    pairs: list[Any] = []
    json.loads(text, object_pairs_hook=lambda found: pairs.extend(value for _, value in found))
    return len(pairs), sum(isinstance(value, str) for value in pairs), not any(isinstance(v, dict | list | None) for v in pairs)


# json.loads gives what its hook returns: objects are None here, as they have to be for `counted`.
LOOKED = st.lists(
    st.dictionaries(st.text('a":,\\{}[]é n', max_size=4), NESTED | st.text('":,\\{}[] ', max_size=6), max_size=4), max_size=4
)


@settings(max_examples=300, deadline=None)
@given(LOOKED, st.sampled_from([(",", ":"), (", ", ": ")]), st.lists(st.integers(1, 9), min_size=1))
def test_keys_and_texts_are_counted(values: list[dict[str, Any]], separators: tuple[str, str], sizes: list[int]) -> None:
    """However the file is cut into pieces, the numbers are right, or it is said that there are none."""
    text = json.dumps(values, separators=separators, ensure_ascii=False)
    data = text.encode()
    look, at, turn = unpack_module._Look(), 0, 0
    while at < len(data) and look.at(data[at : at + sizes[turn % len(sizes)]]):
        at, turn = at + sizes[turn % len(sizes)], turn + 1
    if not look.good:
        return  # a comma before a bracket, in a text
    assert look.format() == "array"
    keys, strings, flat = counted(text)
    # A text that begins with a colon is counted as a key: never too few are.
    assert look.keys is None or look.keys >= keys
    assert look.keys != keys or (look.strings in (strings, None) and look.flat == flat)
    if text.count(":") == keys and "\\" not in text:
        assert look.keys == keys and look.strings == strings


@pytest.mark.parametrize(
    ("module", "name", "size"),
    [*((files, "_READ", size) for size in (1, 7, 100)), *((unpack_module, "_BLOCK", size) for size in (2, 7, 100))],
)
def test_small_pieces(tmp_path: Path, module: Any, name: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {
        "a": array(PLAIN_VALUES),
        "b": json.dumps(PLAIN_VALUES, indent=1).encode(),
        "c": array(traces(20)),
        "d": lines(traces(9)),
    }
    paths = {key: write(tmp_path / key, content) for key, content in data.items()}
    whole = [prepare(n, str(path), key, str(tmp_path), Cancel()) for n, (key, path) in enumerate(paths.items())]
    monkeypatch.setattr(module, name, size)
    assert [prepare(n, str(path), key, str(tmp_path), Cancel()) for n, (key, path) in enumerate(paths.items())] == whole
    assert [each.flat for each in whole if each] == [False, False, True, True]


# --- bounds ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_module, "CHUNK_BYTES", 40_000)
    monkeypatch.setattr(ingest_module, "CHUNK_BYTES", 40_000)
    monkeypatch.setattr(bulk_module, "_LONG_ROW", 20_000)


def test_long_records_are_left(tmp_path: Path, small_chunks: None) -> None:
    data = {
        name: array([*traces(100), trace(1000, message="x" * size), *traces(100, 100)])
        for name, size in (("ok", 15_000), ("long", 25_000))
    }
    assert both(tmp_path, data) == ["ok"]


def test_the_bounds_of_a_file_are_those_of_the_exact_reader(
    tmp_path: Path, small_chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_RECORD", 2_000)
    monkeypatch.setattr(files, "MAX_RECORDS", 50)
    monkeypatch.setattr(files, "MAX_FILE", 60_000)
    data = {
        "fine": array(traces(50)),
        "record": array([*traces(10), trace(10, message="x" * 3000)]),
        "records": array(traces(51)),
        "file": array(traces(40, message="x" * 1000)),
        "long but no record": array(traces(2)) + b" " * 5000,
    }
    assert both(tmp_path, data) == ["fine", "long but no record"]


def test_a_file_too_large_to_lie_decompressed_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack_module, "LARGEST", 10_000)
    path = write(tmp_path / "a.json.gz", gzip.compress(array(traces(5)) + b" " * (50 << 20)))
    assert prepare(0, str(path), "a.json.gz", str(tmp_path), Cancel()) is None
    assert [p.name for p in tmp_path.iterdir()] == ["a.json.gz"]


def test_a_line_without_end_is_left(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", b'{"a":"' + b"x" * (5 << 20) + b'"}')
    assert prepare(0, str(path), "a.json", str(tmp_path), Cancel()) is None


def test_deep_values_are_left_to_the_exact_reader(tmp_path: Path) -> None:
    def deep(levels: int) -> Any:
        return json.loads("[" * levels + "]" * levels)

    values = [trace(n, request=deep(n), extra=deep(n), user={"a": deep(n)}) for n in range(MAX_DEPTH - 3, MAX_DEPTH + 3)]
    assert both(tmp_path, {"a": array(values)}) == ["a"]


# --- the whole ---------------------------------------------------------------------------------------------------------


def test_ingest_gives_the_same_dataset_either_way(tmp_path: Path, small_chunks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways over everything at once, in small chunks: the same rows, rejects and counts."""
    data = {make_traces.key(n, 300): obs(make_traces.traces(n, 300, seed=4)) for n in range(5)}
    data |= {f"damage/{n}.json": data for n, (data, *_) in enumerate(DAMAGE.values())}
    data |= {f"envelopes/{n}.json": text.encode() for n, text in enumerate(ENVELOPES.values())}
    data |= {
        f"shapes/{n}.json": array([{**value, "trace_id": f"{n}-{value.get('trace_id')}"} for value in PLAIN_VALUES])
        for n in range(3)
    }
    data |= {path.name: path.read_bytes() for path in SAMPLES.iterdir()} | {"catalog.json": array(catalog_traces())}
    for name, content in data.items():
        write(tmp_path / "in" / name, content)
    results, kept = [], []
    for way in ("bulk", "exact"):
        if way == "exact":
            monkeypatch.setattr(ingest_module, "prepare", lambda *_: None)
        dataset = Dataset(tmp_path / way, create=True)
        results.append(ingest([str(tmp_path / "in")], dataset, now=NOW))
        kept.append((rows_of(dataset), sorted(map(str, rejects_of(dataset)))))
    assert results[0] == results[1] and results[0].records > 1700
    assert kept[0] == kept[1]


def test_what_duckdb_was_trusted_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of a bucket are really read in bulk: the exact reader sees none of their records."""
    seen: list[int] = []
    monkeypatch.setattr(ingest_module, "read_trace", lambda *a: seen.append(1) or read_trace(*a))
    write(tmp_path / "in" / key(), obs(make_traces.traces(0, 500, seed=1)))
    result = ingest([str(tmp_path / "in")], Dataset(tmp_path / "dataset", create=True), now=NOW)
    assert result.records == 500 and seen == []
