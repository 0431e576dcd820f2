"""One trace, one file: keys, envelopes, shapes, the contract and the checks, damage and bounds."""

from __future__ import annotations

import ast
import gzip
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import swrbatch.audit.files as files
from swrbatch import StoreError, UsageError
from swrbatch.audit.files import DigestFile, Record, Reject, find_files, read_file, source_of
from swrbatch.audit.traces import FLAGS, MAX_DEPTH, TEXTS, Source, conforms, explain, parse_time, read_trace
from swrbatch.cts import ALIASES, CATALOGS, EMITTED, OWN, catalog, entry_of
from swrbatch.digest import Cancel
from swrbatch.schemas import validator
from traces import ACCOUNT, DAY, HOUR, NOON, NOW, SAMPLES, USER, array, key, lines, obs, trace, traces, write

PACKAGE = Path(__file__).resolve().parent.parent / "swrbatch"


def read(path: Path) -> tuple[list[dict[str, Any]], list[Reject], list[DigestFile]]:
    """What a file holds: traces, rejects, digests; positions are those of what was read, each once."""
    items = list(read_file(str(path), Cancel()))
    records = [item for item in items if isinstance(item, Record)]
    rejects = [item for item in items if isinstance(item, Reject)]
    positions = [item.position for item in items if isinstance(item, Record | Reject)]
    assert positions == list(range(len(positions)))
    return [item.value for item in records], rejects, [item for item in items if isinstance(item, DigestFile)]


def row(value: dict[str, Any], *, uploaded: int | None = None, name: str = "guide_2020") -> Any:
    return read_trace(value, Source(name="file", region="cn-north-4", uploaded=uploaded), 0, NOW, name)


def numbers(values: list[dict[str, Any]]) -> list[int]:
    """The numbers that `trace()` made the traces from."""
    return [int(value["trace_id"][:8], 16) for value in values]


# --- catalogs ----------------------------------------------------------------------------------------------------------


def test_catalogs() -> None:
    assert {name: len(catalog(name)) for name in CATALOGS} == {"guide_2020": 32, "v0": 14, "v1": 34, "v2": 52}
    assert set(catalog("v0")) < set(catalog("guide_2020")) < set(catalog("v1"))
    assert len(set(catalog("v1")) & set(catalog("v2"))) == 18
    assert set(catalog("v1")) - set(catalog("guide_2020")) == {"createUserCollections", "deleteUserCollections"}
    assert catalog()["uploadImagePackage"].operation == "上传镜像包"
    for name in CATALOGS:
        for entry in catalog(name).values():
            assert entry.operation_en.isascii() and entry.operation_en
            assert re.fullmatch("[a-z]+", entry.resource_type) and re.fullmatch("[a-zA-Z]+", entry.trace_name)


@pytest.mark.parametrize("name", CATALOGS)
@pytest.mark.parametrize("spelling", ALIASES)
def test_both_spellings_are_known_to_every_catalog(name: str, spelling: str) -> None:
    entry = entry_of(name, spelling)
    assert entry is not None and entry.resource_type == "usernamespace"
    assert row(trace(trace_name=spelling, resource_type="usernamespace", resource_name="team"), name=name).flags == ()


def test_who_emits_an_event_is_what_the_source_says() -> None:
    """`new_trace("name", …)`, `act.begins("name", …)`, and the names that are put together for grants."""
    emitted = {f"{verb}User{what}Auth" for verb in ("create", "update", "delete") for what in ("Namespace", "Repository")}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", ""))
            if isinstance(node, ast.Call) and called in ("new_trace", "begins", "_begun"):
                inside = [each for argument in node.args[:2] for each in ast.walk(argument)]
                texts = {each.value for each in inside if isinstance(each, ast.Constant) and isinstance(each.value, str)}
                emitted |= {text for text in texts if re.fullmatch("[a-z]+[A-Z][A-Za-z]+", text)}
    assert emitted == EMITTED | OWN.keys() and set(catalog()) > EMITTED and not set(catalog()) & OWN.keys()


# --- keys --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "region", "uploaded"),
    [
        (key(), "cn-north-4", NOON + HOUR),
        (key(padded=True), "cn-north-4", NOON + HOUR),
        (key(service=""), "cn-north-4", NOON + HOUR),
        (key(suffix=".json"), "cn-north-4", NOON + HOUR),
        (key(prefix=""), "cn-north-4", NOON + HOUR),
        (key(prefix="a_CloudTrace_eu-de_2016-05-30T16-20-56Z_.-9"), "cn-north-4", NOON + HOUR),
        (key(prefix="x" * 64), "cn-north-4", NOON + HOUR),
        (key(where="cn-north-4_0123456789abcdef0123456789abcdef"), "cn-north-4", NOON + HOUR),
        (key(where="cn-north-4_My_project-1"), "cn-north-4", NOON + HOUR),
        # The folders above are not always given: then the file's own name tells.
        (key().rpartition("/")[2], "cn-north-4", NOON + HOUR),
        (key(where="eu-de-01").rpartition("/")[2], "eu-de-01", NOON + HOUR),
        (key(where="eu-de_project").rpartition("/")[2], "eu-de", NOON + HOUR),
        (key(where="eu-de-0123456789abcdef0123456789abcdef").rpartition("/")[2], "eu-de", NOON + HOUR),
        ("CloudTrace_cn-north-1_2024-06-19T13-00-00Z_0faa86bc40071242.json.gz", "cn-north-1", NOON + HOUR),
        # As in the documentation's digest file.
        (
            "CloudTraces/eu-de-01/2017/3/28/ECS/mylog_CloudTrace_eu-de-01/_2017-03-28T02-09-17Z_0faa86bc40071242.json.gz",
            "eu-de-01",
            1490666957000,
        ),
        (
            "CloudTraces/eu-de/2017/3/28/Digest/EVS/mylog_CloudTrace-Digest_eu-de/_2017-03-28T02-09-17Z.json.gz",
            "eu-de",
            1490666957000,
        ),
        (key().replace("T13-", "T25-"), "cn-north-4", None),
        ("traces.json", None, None),
        ("_CloudTrace_.json", None, None),
        ("CloudTraces/eu-de/some.json", "eu-de", None),
    ],
)
def test_keys(name: str, region: str | None, uploaded: int | None) -> None:
    assert source_of(name) == Source(name=name, region=region, uploaded=uploaded)


def test_files_are_found_once_each_and_sorted(tmp_path: Path) -> None:
    for name in ("b/2.json.gz", "b/1.json", "a.JSONL", "c/d/e.ndjson.gz", ".hidden.json", "notes.txt", "b/archive.tar.gz"):
        write(tmp_path / name, b"x")
    (tmp_path / "link.json").symlink_to(tmp_path / "b/1.json")
    found = find_files([str(tmp_path), str(tmp_path / "b"), str(tmp_path / "b/2.json.gz")])
    assert [name for _, name in found] == ["a.JSONL", "b/2.json.gz", "c/d/e.ndjson.gz", "link.json"]
    assert [path for path, _ in found] == [
        str(tmp_path / name) for name in ("a.JSONL", "b/2.json.gz", "c/d/e.ndjson.gz", "b/1.json")
    ]
    assert [name for _, name in find_files([str(tmp_path / "*/*.json*")])] == ["1.json", "2.json.gz"]
    assert [name for _, name in find_files([str(tmp_path / "**/e.ndjson.gz")])] == ["e.ndjson.gz"]
    assert [name for _, name in find_files([str(tmp_path / "notes.txt")])] == ["notes.txt"]


def test_names_are_unique(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write(tmp_path / folder / "same.json", b"[]")
        write(tmp_path / folder / f"{folder}.json", b"[]")
    names = [name for _, name in find_files([str(tmp_path / "a"), str(tmp_path / "b")])]
    assert names == [str(tmp_path / "a/same.json"), str(tmp_path / "b/same.json"), "a.json", "b.json"]


def test_a_name_that_is_no_text_is_made_one(tmp_path: Path) -> None:
    (tmp_path / "bad-\udcff\n.json").write_bytes(b"[]")
    [(_, name)] = find_files([str(tmp_path)])
    assert name == "bad-\\udcff\\n.json"


def test_what_names_nothing_is_refused(tmp_path: Path) -> None:
    for given_ in (str(tmp_path / "missing"), str(tmp_path / "*.json"), "/dev/null"):
        with pytest.raises(UsageError):
            find_files([given_])


def test_an_unreadable_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def walk(top: str, onerror: Callable[[OSError], None]) -> Any:
        onerror(PermissionError(13, "Permission denied", top))

    monkeypatch.setattr(files.os, "walk", walk)
    with pytest.raises(StoreError, match="cannot be read: Permission denied"):
        find_files([str(tmp_path)])


# --- envelopes ---------------------------------------------------------------------------------------------------------

META = '"meta_data": {"count": 3, "marker": "x"}'
THREE = [json.dumps(value) for value in traces(3)]
LIST = f"[{','.join(THREE)}]"
ENVELOPES = {
    "array": LIST,
    "array, pretty": json.dumps(traces(3), indent=4),
    "array, spaced": "\n\t [ " + " ,\r\n ".join(THREE) + " ] \n\n",
    "array, byte order mark": "\ufeff" + LIST,
    "arrays, one a line": "\n".join(f"[{text}]" for text in THREE),
    "array in an array": f"[{LIST}]",
    "array without commas": f"[{' '.join(THREE)}]",
    "objects": "".join(THREE),
    "objects, one a line": "\n".join(THREE) + "\n",
    "objects, lines of Windows": "\r\n".join(THREE) + "\r\n",
    "objects, pretty": "\n".join(json.dumps(value, indent=2) for value in traces(3)),
    "objects, commas": ",\n".join(THREE),
    "the API's": f'{{{META}, "traces": {LIST}}}',
    "the API's, traces first": f'{{"traces" : {LIST} , {META} }}',
    "the API's, no meta data": f'{{"traces":{LIST}}}',
    "the API's, other keys": f'{{"a": [1], "traces": {LIST}, {META}}}',
    "the API's, page after page": "\n".join(f'{{{META}, "traces": [{text}]}}' for text in THREE),
    "the API's, in an array": f'[{{{META}, "traces": {LIST}}}]',
    "the function trigger's": "\n".join(f'{{"cts": {text}}}' for text in THREE),
    "the function trigger's, in an array": "[" + ",".join(f'{{"cts": {text}}}' for text in THREE) + "]",
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ENVELOPES)
def test_envelopes(tmp_path: Path, name: str, packed: bool) -> None:
    data = ENVELOPES[name].encode()
    values, rejects, digests = read(write(tmp_path / "a.json", gzip.compress(data) if packed else data))
    assert (values, rejects, digests) == (traces(3), [], [])


@pytest.mark.parametrize(
    "data",
    [b"", b"  \n", b"[]", b"[ ]\n", b"[[], []]", b'{"traces": []}', gzip.compress(b"", mtime=0), gzip.compress(b"[]", mtime=0)],
)
def test_nothing_in_it(tmp_path: Path, data: bytes) -> None:
    assert read(write(tmp_path / "a.json", data)) == ([], [], [])


def test_members_of_gzip_one_after_another(tmp_path: Path) -> None:
    data = gzip.compress(lines(traces(2))) + gzip.compress(lines(traces(2, 2))) + bytes(512)
    assert numbers(read(write(tmp_path / "a.json.gz", data))[0]) == [0, 1, 2, 3]


def test_a_digest_file_is_told_apart() -> None:
    values, rejects, [digest] = read(SAMPLES / "digest_file_2017.json")
    assert (values, rejects) == ([], []) and digest.value["log_files"][0]["log_hash_algorithm"] == "MD5"


def test_characters_across_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [trace(number, message="镜像é😀" * 50) for number in range(20)]
    path = write(tmp_path / "a.json", array(values))
    for size in (1, 7, 1021):
        monkeypatch.setattr(files, "_READ", size)
        assert read(path) == (values, [], [])


# --- shapes of a trace -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "ms", "text"),
    [
        (1718777931170, 1718777931170, None),
        (1718777931170.0, 1718777931170, None),
        (0, 0, None),
        (253402300799999, 253402300799999, None),
        ("2016/12/08 11:07:28 GMT+08:00", 1481166448000, "2016/12/08 11:07:28 GMT+08:00"),
        ("2017-02-15 14:21:50 GMT+08:00", 1487139710000, "2017-02-15 14:21:50 GMT+08:00"),
        ("2017-2-5 04:21:50 GMT-05:30", 1486288310000, "2017-2-5 04:21:50 GMT-05:30"),
        (253402300800000, None, "253402300800000"),
        (-1, None, "-1"),
        (1.5, None, "1.5"),
        (10**30, None, str(10**30)),
        (True, None, "true"),
        (["x"], None, '["x"]'),
        (None, None, None),
        ("", None, ""),
        ("yesterday", None, "yesterday"),
        ("2017-02-30 14:21:50 GMT+08:00", None, "2017-02-30 14:21:50 GMT+08:00"),
        ("2017-02-15 24:21:50 GMT+08:00", None, "2017-02-15 24:21:50 GMT+08:00"),
        ("0000-02-15 14:21:50 GMT+08:00", None, "0000-02-15 14:21:50 GMT+08:00"),
        ("1969-02-15 14:21:50 GMT+08:00", None, "1969-02-15 14:21:50 GMT+08:00"),
        ("0001-01-01 00:00:00 GMT+08:00", None, "0001-01-01 00:00:00 GMT+08:00"),
        ("２０17-02-15 14:21:50 GMT+08:00", None, "２０17-02-15 14:21:50 GMT+08:00"),
        ("2017-02-15 14:21:50 GMT+08:00\n", None, "2017-02-15 14:21:50 GMT+08:00\n"),
    ],
)
def test_times(value: object, ms: int | None, text: str | None) -> None:
    assert parse_time(value) == (ms, text)
    found = row(trace(time=value, record_time=value))
    assert (found.time, found.time_text, found.record_time, found.record_time_text) == (ms, text, ms, text)


OBJECT = {"domain": {"name": "IAMDomainB", "id": "d1"}, "user_name": "IAMUserA", "principal_is_root_user": "true", "id": "u1"}


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (USER, (USER["id"], "anna", ACCOUNT, "example")),
        (json.dumps(USER), (USER["id"], "anna", ACCOUNT, "example")),
        (OBJECT, ("u1", "IAMUserA", "d1", "IAMDomainB")),
        ({"name": "", "user_name": "b", "account_id": "a1"}, (None, "b", "a1", None)),
        ({"name": 5, "id": {"a": 1}, "domain": "x"}, ('{"a":1}', "5", None, None)),
        ("xxx", (None, "xxx", None, None)),
        ("123", (None, "123", None, None)),
        ("{some crazy used struct}", (None, None, None, None)),
        ("", (None, None, None, None)),
        ("null", (None, None, None, None)),
        (None, (None, None, None, None)),
        (["x"], (None, None, None, None)),
        ("[" * 100_000, (None, "[" * 100_000, None, None)),
        ('{"name":"\\ud800"}', (None, "\ufffd", None, None)),
        ('{"name":NaN}', (None, "NaN", None, None)),
    ],
)
def test_users(user: object, expected: tuple[str | None, ...]) -> None:
    found = row(trace(user=user))
    assert (found.user_id, found.user_name, found.user_account_id, found.user_account_name) == expected
    text = user if isinstance(user, str) or user is None else json.dumps(user, separators=(",", ":"))
    assert found.user_text == text


@pytest.mark.parametrize(
    ("given_", "text"), [("{}", "{}"), ("", ""), ({"a": [1, "é"]}, '{"a":[1,"é"]}'), ([1.5], "[1.5]"), (None, None)]
)
def test_requests_and_responses(given_: object, text: str | None) -> None:
    found = row(trace(request=given_, response=given_))
    assert (found.request, found.response, found.violations) == (text, text, ())


@pytest.mark.parametrize(
    ("code", "text"), [(200, "200"), ("200", "200"), ("VPC.0514", "VPC.0514"), (..., None), (None, None), (1.5, "1.5")]
)
def test_codes(code: object, text: str | None) -> None:
    found = row(trace(code=code))
    assert (found.code, found.violations) == (text, ())


def test_the_function_triggers_rating() -> None:
    assert row(trace(trace_rating=..., trace_status="warning")).trace_rating == "warning"
    assert row(trace(trace_rating=..., trace_status="warning")).violations == ()
    both = row(trace(trace_status="warning"))
    assert (both.trace_rating, both.extra) == ("normal", '{"trace_status":"warning"}')


def test_nothing_is_lost() -> None:
    value = {name: f"the {name}" for name in TEXTS if name != "trace_name"}
    more = {"z": 1, "a": {"c": 1, "b": None}, "gone": None, "read_only": "no", "content_length": "7", "total_time": 10**400}
    found = row(trace(**value, **more))
    assert {name: getattr(found, name) for name in value} == value
    kept = {"a": {"b": None, "c": 1}, "content_length": "7", "read_only": "no", "total_time": 10**400, "z": 1}
    assert found.extra == json.dumps(kept, separators=(",", ":"))
    found = row(trace(read_only=True, content_length=7, total_time=0.25))
    assert (found.read_only, found.content_length, found.total_time, found.extra) == (True, 7.0, 0.25, None)


# --- checks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "uploaded", "flags"),
    [
        ({}, None, ()),
        ({}, NOON + HOUR, ()),
        ({"trace_name": "inventImage"}, None, ("unknown-event",)),
        ({"trace_name": ...}, None, ("schema", "unknown-event")),
        ({"trace_name": "inventImage", "service_type": "ECS", "resource_type": "ecs"}, None, ()),
        ({"trace_name": "inventImage", "service_type": ...}, None, ("unknown-event",)),
        ({"resource_type": "imagetag"}, None, ("resource-type",)),
        ({"resource_type": ...}, None, ("resource-type",)),
        ({"code": 403}, None, ("rating-code",)),
        ({"code": "500"}, None, ("rating-code",)),
        ({"code": "302"}, None, ()),
        ({"code": "4000"}, None, ()),
        ({"code": 403, "trace_rating": "warning"}, None, ()),
        ({"code": 200, "trace_rating": "warning"}, None, ()),
        ({"time": "soon"}, None, ("schema", "time-unread")),
        ({"time": ...}, None, ("schema", "time-unread")),
        ({"time": "2017-02-30 14:21:50 GMT+08:00"}, None, ("time-unread",)),
        ({"time": 1420070399999}, None, ("time-early",)),
        ({"time": 1420070400000}, None, ()),
        ({"time": NOW + DAY, "record_time": ...}, None, ()),
        ({"time": NOW + DAY + 1, "record_time": ...}, None, ("time-future",)),
        ({"time": NOON + DAY + HOUR + 1, "record_time": ...}, NOON + HOUR, ("time-future",)),
        ({"record_time": NOON - 1}, None, ("record-early",)),
        ({"record_time": None}, None, ()),
        ({}, NOON + 13 * HOUR, ("late",)),
        ({}, NOON + 12 * HOUR - 1, ()),
        ({"user": ...}, None, ("user-missing",)),
        ({"user": ""}, None, ("user-missing",)),
        ({"user": "null", "trace_type": "ConsoleAction"}, None, ("user-missing",)),
        ({"user": {}}, None, ("user-missing",)),
        ({"user": None, "trace_type": "SystemAction"}, None, ()),
        ({"resource_name": "Team/Service:1"}, None, ("name",)),
        ({"resource_name": "team/service:-x"}, None, ("name",)),
        ({"resource_name": "archive.tar"}, None, ()),
        ({"resource_name": ""}, None, ()),
        ({"resource_name": "T"}, None, ("name",)),
        ({"resource_type": "usernamespace", "trace_name": "createUserNamespace", "resource_name": "T!"}, None, ("name",)),
        ({"resource_name": "Any Thing", "service_type": "OBS", "resource_type": "image"}, None, ()),
        ({"trace_id": ...}, None, ("schema",)),
        ({"trace_id": ""}, None, ("schema",)),
        ({"trace_rating": "fine"}, None, ("schema",)),
    ],
)
def test_flags(changes: dict[str, Any], uploaded: int | None, flags: tuple[str, ...]) -> None:
    assert row(trace(**changes), uploaded=uploaded).flags == flags
    assert set(flags) <= FLAGS.keys()


def test_each_flag_is_tried() -> None:
    tried = {flag for mark in test_flags.pytestmark for case in mark.args[1] for flag in case[2]}
    assert tried | {"duplicate-differs"} == FLAGS.keys()


def test_violations_say_where() -> None:
    found = row(trace(trace_id=7, trace_rating="fine", message=["x"], record_time=None, user_agent=1))
    assert found.violations == (
        "/message: ['x'] is not of type 'string', 'null'",
        "/trace_id: 7 is not of type 'string'",
        "/trace_rating: 'fine' is not one of ['normal', 'warning', 'incident']",
        "/user_agent: 1 is not of type 'string', 'null'",
    )
    assert row({}).violations == tuple(
        f"/: '{name}' is a required property" for name in ("time", "trace_id", "trace_name", "trace_rating")
    )


SCHEMA = validator("cts-trace.schema.json").schema
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.lists(st.integers(), max_size=1), st.just({})
)
LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "trace_id": st.text(min_size=0, max_size=130) | st.sampled_from(["x" * 128, "x" * 129, "é" * 128]),
    "trace_name": st.from_regex(r"[A-Za-z][A-Za-z0-9._-]{0,65}\n?", fullmatch=True)
    | st.sampled_from(["", "1a", "a" * 64, "a" * 65, "é"]),
    "trace_rating": st.sampled_from(["normal", "warning", "incident", "Normal", ""]),
    "time": st.integers()
    | st.from_regex(r"\d{4}[/-]\d{1,2}[/-]\d\d? \d\d:\d\d:\d\d GMT[+-]\d\d:\d\d\n?", fullmatch=True)
    | st.floats(),
}


@st.composite
def candidates(draw: st.DrawFn) -> dict[str, Any]:
    """Traces that break the contract in some of its keys, or in none."""
    value = trace()
    for name in draw(st.lists(st.sampled_from(sorted({*SCHEMA["properties"], "extra"})), max_size=4, unique=True)):
        likely = LIKELY.get("time" if name == "record_time" else name, SCALARS)
        changed = draw(st.just(...) | likely | SCALARS)
        value.pop(name, None)
        if changed is not ...:
            value[name] = changed
    return value


@settings(max_examples=400, deadline=None)
@given(candidates())
def test_the_quick_verdict_is_that_of_the_schema(value: dict[str, Any]) -> None:
    valid = validator("cts-trace.schema.json").is_valid(value)
    assert conforms(value) == valid
    assert bool(explain(value)) == (not valid) and ("schema" in row(value).flags) == (not valid)


def test_the_contract_knows_every_text() -> None:
    assert set(TEXTS) < SCHEMA["properties"].keys()


# --- damage ------------------------------------------------------------------------------------------------------------

TEN = [json.dumps(value, separators=(",", ":")) for value in traces(10)]
FILE = f"[{','.join(TEN)}]".encode()
MIDDLE = FILE.index(b'"trace_id":"00000005') - 1
INVALID = FILE.replace(b'"10.0.0.1"', b'"10.0.0.\xff"', 1)


def spliced(at: int, new: bytes, old: int = 0) -> bytes:
    """The file with `old` bytes at a place replaced."""
    return FILE[:at] + new + FILE[at + old :]


def with_fifth(text: str) -> bytes:
    """The file with another text for its sixth record."""
    return f"[{','.join([*TEN[:5], text, *TEN[6:]])}]".encode("utf-8", "surrogatepass")


def broken(find: str, replace: str) -> bytes:
    """The file with the sixth record broken."""
    assert find in TEN[5]
    return with_fifth(TEN[5].replace(find, replace, 1))


GZ = gzip.compress(FILE)
LINES = lines(traces(10))
DAMAGE: dict[str, tuple[bytes, list[int], int, str]] = {
    # what: (the file, numbers of the traces kept, how many are rejected, what the first reason says)
    "cut in a record": (FILE[: MIDDLE + 40], [0, 1, 2, 3, 4], 1, "Unterminated string"),
    "cut in a key": (FILE[: MIDDLE + 6], [0, 1, 2, 3, 4], 1, "Unterminated string"),
    "cut after a comma": (FILE[:MIDDLE], [0, 1, 2, 3, 4], 1, "not closed"),
    "cut before the last bracket": (FILE[:-1], list(range(10)), 1, "not closed"),
    "cut after the first bracket": (b"[", [], 1, "not closed"),
    "cut in a character": (spliced(MIDDLE + 20, "é".encode()[:1])[: MIDDLE + 21], [0, 1, 2, 3, 4], 1, "Unterminated string"),
    "gzip cut": (GZ[: len(GZ) // 2], [], 1, "gzip"),
    "gzip cut before its checksum": (GZ[:-8], list(range(10)), 1, "gzip"),
    "gzip with a wrong checksum": (GZ[:-8] + bytes(8), [], 1, "gzip"),
    "gzip with rubbish behind it": (GZ + b"rubbish", list(range(10)), 1, "gzip"),
    "gzip header only": (GZ[:10], [], 1, "gzip"),
    "gzip with a bad block": (GZ[:40] + bytes(100) + GZ[140:], [], 1, "gzip"),
    "a comma too much": (spliced(MIDDLE, b","), list(range(10)), 0, ""),
    "a comma at the end": (FILE[:-1] + b",]", list(range(10)), 0, ""),
    "a comma missing": (spliced(MIDDLE - 1, b" ", 1), list(range(10)), 0, ""),
    "a comma at the end of a record": (
        broken('"code":200,', '"code":200,"x":{"y":1,},'),
        [0, 1, 2, 3, 4, 6, 7, 8, 9],
        1,
        "Expecting property name",
    ),
    "a comma missing in a record": (broken('"normal",', '"normal"'), [0, 1, 2, 3, 4, 6, 7, 8, 9], 1, "Expecting ',' delimiter"),
    "a colon missing": (broken('"code":', '"code"'), [0, 1, 2, 3, 4, 6, 7, 8, 9], 1, "Expecting ':' delimiter"),
    "a quote missing": (broken('"normal",', '"normal,'), [0, 1, 2, 3, 4, 6, 7, 8, 9], 1, "Expecting"),
    "a quote too much": (broken('"normal",', '"nor"mal",'), [0, 1, 2, 3, 4, 6, 7, 8, 9], 1, "Expecting"),
    "a brace missing at the end": (with_fifth(TEN[5][:-1]), [0, 1, 2, 3, 4, 6, 7, 8, 9], 1, "Expecting property name"),
    "a brace missing at the start": (with_fifth(TEN[5][1:]), [0, 1, 2, 3, 4, 6, 7, 8, 9], 2, "not a JSON object"),
    "a brace too much": (with_fifth(TEN[5] + "}"), list(range(10)), 1, "Expecting value"),
    "a bracket in the middle": (spliced(MIDDLE, b"],"), list(range(10)), 1, "Expecting value"),
    "a control character": (broken('"normal"', '"nor\x01mal"'), [0, 1, 2, 3, 4, 6, 7, 8, 9], 1, "Invalid control character"),
    "a tab in a text": (broken('"normal"', '"nor\tmal"'), [0, 1, 2, 3, 4, 6, 7, 8, 9], 1, "Invalid control character"),
    "a bad escape": (broken('"normal"', '"\\x41"'), [0, 1, 2, 3, 4, 6, 7, 8, 9], 1, "Invalid \\escape"),
    "a bad unicode escape": (broken('"normal"', '"\\u12"'), [0, 1, 2, 3, 4, 6, 7, 8, 9], 1, "Invalid \\uXXXX escape"),
    "single quotes": (broken('"normal"', "'normal'"), [0, 1, 2, 3, 4, 6, 7, 8, 9], 1, "Expecting value"),
    "not a number": (broken('"code":200', '"code":NaN'), [0, 1, 2, 3, 4, 6, 7, 8, 9], 1, "NaN is not JSON"),
    "an infinite number": (broken('"code":200', '"x":[-Infinity]'), [0, 1, 2, 3, 4, 6, 7, 8, 9], 1, "-Infinity is not JSON"),
    "a number with a zero in front": (
        broken('"code":200', '"code":0200'),
        [0, 1, 2, 3, 4, 6, 7, 8, 9],
        1,
        "Expecting ',' delimiter",
    ),
    "a number without end": (broken('"code":200', f'"code":{"9" * 5000}'), [0, 1, 2, 3, 4, 6, 7, 8, 9], 1, "4300 digits"),
    "a comment": (broken('"code":200', '"code":200 /* fine */'), [0, 1, 2, 3, 4, 6, 7, 8, 9], 1, "Expecting ',' delimiter"),
    "bytes that are no UTF-8": (INVALID, list(range(1, 10)), 1, "not UTF-8"),
    "half a pair of surrogates": (broken('"normal"', '"normal","message":"\\ud800"'), list(range(10)), 0, ""),
    "a number for a record": (with_fifth("5"), [0, 1, 2, 3, 4, 6, 7, 8, 9], 1, "not a JSON object"),
    "null for a record": (with_fifth("null"), [0, 1, 2, 3, 4, 6, 7, 8, 9], 1, "not a JSON object"),
    "a text for a record": (with_fifth('"lost"'), [0, 1, 2, 3, 4, 6, 7, 8, 9], 1, "not a JSON object"),
    "rubbish between records": (spliced(MIDDLE, b"rubbish,"), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 1, "Expecting value"),
    "rubbish behind the array": (FILE + b" rubbish", list(range(10)), 1, "Expecting value"),
    "zero bytes behind the array": (FILE + bytes(100), list(range(10)), 1, "Expecting value"),
    "zero bytes over a record": (
        spliced(MIDDLE, bytes(len(TEN[5])), len(TEN[5])),
        [0, 1, 2, 3, 4, 6, 7, 8, 9],
        1,
        "Expecting value",
    ),
    "two bad records": (
        broken('"code":', '"code"').replace(b'"time":', b'"time"', 1),
        list(range(1, 5)) + list(range(6, 10)),
        2,
        "Expecting ':'",
    ),
    "neighbours, both bad": (FILE.replace(b'"code":200', b'"code":', 2), list(range(2, 10)), 2, "Expecting value"),
    "each record bad": (FILE.replace(b'"code":200', b'"code":'), [], 10, "Expecting value"),
    "lines, one cut": (
        LINES.replace(lines([trace(5)]), lines([trace(5)])[:100] + b"\n"),
        [0, 1, 2, 3, 4, 6, 7, 8, 9],
        1,
        "Invalid control character",
    ),
    "lines, the last one cut": (LINES[:-100], list(range(9)), 1, "Unterminated string"),
    "lines, unknown keys first": (
        lines({"@t": 1, **value} for value in traces(10)).replace(b'"@t": 1', b'"@t": oops', 3).replace(b"oops", b"1", 2),
        [0, 1, 3, 4, 5, 6, 7, 8, 9],
        1,
        "Expecting value",
    ),
    "the API's envelope, cut": (b'{"traces":' + FILE[: MIDDLE + 40], [0, 1, 2, 3, 4], 1, "Unterminated string"),
    "the API's envelope, one bad": (
        b'{"traces":' + broken('"code":', '"code"') + b"}",
        [0, 1, 2, 3, 4, 6, 7, 8, 9],
        1,
        "Expecting ':'",
    ),
    "the API's envelope, not closed": (b'{"traces":' + FILE, list(range(10)), 1, "not closed"),
    "text of no kind": (b"<html><body>404</body></html>", [], 1, "Expecting value"),
    "an image": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 10, [], 1, "Expecting value"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(100), [], 1, "only gzip is read"),
    "UTF-16": (FILE.decode().encode("utf-16"), [], 1, "Expecting value"),
    "too deep": (
        broken('"code":200', f'"x":{"[" * MAX_DEPTH}{"]" * MAX_DEPTH}'),
        [0, 1, 2, 3, 4, 6, 7, 8, 9],
        1,
        "nested deeper",
    ),
    "much too deep": (broken('"code":200', f'"x":{"[" * 50_000}{"]" * 50_000}'), [0, 1, 2, 3, 4, 6, 7, 8, 9], 1, "nested deeper"),
    "nested objects that look like traces": (
        broken('"code":200', '"x":[{"time":1},{"time":2}],"code"200')
        .replace(b'"time"', b'"when"')
        .replace(b'"when":17', b'"time":17'),
        [0, 1, 2, 3, 4, 6, 7, 8, 9],
        1,
        "Expecting ':'",
    ),
}
assert len(DAMAGE) >= 30


@pytest.mark.parametrize("name", DAMAGE)
def test_damage(tmp_path: Path, name: str) -> None:
    data, kept, rejected, reason = DAMAGE[name]
    values, rejects, _ = read(write(tmp_path / "a.json", data))
    assert numbers(values) == kept
    assert len(rejects) == rejected and reason in (rejects[0].reason if rejects else "")


@pytest.mark.parametrize("size", [7, 997])
def test_damage_is_the_same_in_small_pieces(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [
        write(tmp_path / str(number), data)
        for number, (data, *_) in enumerate(DAMAGE.values())
        if len(data) < 20_000 and data[:2] != b"\x1f\x8b"
    ]
    expected = [list(read_file(str(path), Cancel())) for path in paths]
    monkeypatch.setattr(files, "_READ", size)
    assert [list(read_file(str(path), Cancel())) for path in paths] == expected


def test_a_reject_keeps_the_beginning_of_its_text(tmp_path: Path) -> None:
    _, [reject], _ = read(write(tmp_path / "a.json", broken('"code":', '"code"')))
    assert reject.raw == TEN[5].replace('"code":', '"code"') and reject.position == 5
    _, [reject], _ = read(write(tmp_path / "b.json", broken('"code":', f'"message":"{"é" * 9000}","code"')))
    assert reject.raw.startswith(TEN[5][:40]) and len(reject.raw) == files.RAW_KEPT + 1


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(FILE)), st.binary(max_size=6), st.integers(0, 6)), min_size=1, max_size=4),
)
def test_any_damage_leaves_the_other_records(edits: list[tuple[int, bytes, int]]) -> None:
    data = FILE
    for at, new, old in edits:
        data = data[:at] + new + data[at + old :]
    items = list(files._Records(iter([data])).read())
    records = [item.value for item in items if isinstance(item, Record)]
    whole = [value for value, text in zip(traces(10), TEN, strict=True) if text.encode() in data]
    # What was not touched is read, but for what begins within damage.
    assert sum(value in records for value in whole) >= len(whole) - len(edits)


# --- bounds ------------------------------------------------------------------------------------------------------------


def test_a_bomb_costs_the_tail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILE", 4 << 20)
    data = array(traces(10))[:-1] + b"," + b" " * (64 << 20) + array(traces(10, 10))[1:]
    values, [reject], _ = read(write(tmp_path / "a.json.gz", gzip.compress(data)))
    assert numbers(values) == list(range(10)) and reject.reason == f"more than {4 << 20} bytes uncompressed"


def test_a_file_as_large_as_it_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.json.gz", obs(traces(10)))
    monkeypatch.setattr(files, "MAX_FILE", len(array(traces(10))))
    assert read(path) == (traces(10), [], [])
    monkeypatch.setattr(files, "MAX_FILE", len(array(traces(10))) - 1)
    values, rejects, _ = read(path)
    assert (values, len(rejects)) == (traces(10), 1)


def test_too_many_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_RECORDS", 10)
    assert read(write(tmp_path / "a.json", array(traces(10)))) == (traces(10), [], [])
    for name in ("b", "c"):
        data = array(traces(11)) if name == "b" else b'{"a":1,"traces":' + array(traces(11)) + b"}"
        values, [reject], _ = read(write(tmp_path / name, data))
        assert (values, reject.reason) == (traces(10), "more than 10 records")


@pytest.mark.parametrize("piece", [100, 256 << 10])
def test_a_record_as_long_as_it_may_be(tmp_path: Path, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_READ", piece)
    long = trace(5, message="é" * 5000)
    size = len(json.dumps(long, ensure_ascii=False, separators=(",", ":")))
    path = write(tmp_path / "a.json", array([*traces(5), long, *traces(4, 6)]))
    monkeypatch.setattr(files, "MAX_RECORD", size)
    assert read(path) == ([*traces(5), long, *traces(4, 6)], [], [])
    monkeypatch.setattr(files, "MAX_RECORD", size - 1)
    values, [reject], _ = read(path)
    assert numbers(values) == [0, 1, 2, 3, 4, 6, 7, 8, 9] and reject.reason == "longer than a record may be"


def test_a_record_that_never_ends_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_RECORD", 50_000)
    data = array(traces(3))[:-1] + b',{"time":[' + b"1," * 100_000 + array(traces(3, 3))[1:]
    values, rejects, _ = read(write(tmp_path / "a.json", data))
    assert numbers(values) == [0, 1, 2, 3, 4, 5] and rejects[0].reason == "longer than a record may be"


def test_reading_in_vain_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every level looks like the start of a record that goes on to the end of the file.
    data = b"[" + (b'{"time":[' + b"0," * 500) * 2000
    path = write(tmp_path / "a.json", data)
    monkeypatch.setattr(files, "MAX_WASTE", 1 << 20)
    values, rejects, _ = read(path)
    assert values == [] and len(rejects) < 50 and rejects[-1].reason == "too much of it cannot be read: the rest is given up"


def test_damaged_records_cost_no_memory(tmp_path: Path) -> None:
    # Each is told at once: reading on to see whether it ends well would hold `MAX_RECORD` characters.
    reader = files._Records(iter([(b'{"time":oops,"x":"' + b"y" * 1000 + b'"},') * 1000] * 50))
    assert sum(isinstance(item, Reject) for item in reader.read()) == 50_000
    assert reader._size > 50_000_000 and len(reader._text) < 4 << 20


def test_too_deep_is_told_before_python_gives_up() -> None:
    assert sys.getrecursionlimit() > MAX_DEPTH * 4
