"""Explain: everything that has a code is explained in both languages; pasted errors are found whatever stands around them."""

from __future__ import annotations

import csv
import json
import re
import string
import time
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from conftest import ROOT
from swrbatch.audit import findings
from swrbatch.audit.findings import MEANINGS
from swrbatch.cli import app
from swrbatch.cli.text import fitted, rows_cut, set_in, width, wrapped
from swrbatch.errors import CODES, issue
from swrbatch.explain import match
from swrbatch.explain.entries import Entry, entries
from swrbatch.explain.guide_errors import GUIDE_ERRORS
from swrbatch.explain.match import MAX_TEXT, alike, explain
from swrbatch.lint.catalog import BY_ID, RULES
from swrbatch.lint.causes import CAUSES

TABLE = ROOT / "schemas" / "swr-error-codes.tsv"
ROWS = list(csv.DictReader(TABLE.open(encoding="utf-8", newline=""), delimiter="\t", quoting=csv.QUOTE_NONE))
CHINESE = re.compile(r"[\u4e00-\u9fff]")
HOST = "swr.cn-north-1.example.com"


def run(*words: str, stdin: str | bytes | None = None, columns: int = 80) -> tuple[int, str, str]:
    done = CliRunner(env={"COLUMNS": str(columns)}).invoke(app, ["explain", *words], input=stdin, prog_name="swrbatch")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


# --- what is explained ------------------------------------------------------------------------------------------------------

CODED = [
    *(("issue", code) for code in CODES),
    *(("rule", rule.id) for rule in RULES),
    *(("finding", code) for code in MEANINGS),
    *(("swr", row["code"]) for row in ROWS),
    *(("docker", error.id) for error in GUIDE_ERRORS),
]


def test_nothing_is_explained_that_is_not_coded_somewhere() -> None:
    assert sorted((entry.kind, entry.id) for entry in entries()) == sorted(CODED)


@pytest.mark.parametrize(("kind", "code"), CODED, ids=[f"{kind} {code}" for kind, code in CODED])
def test_every_code_is_explained_in_both_languages(kind: str, code: str) -> None:
    found = explain(f" {code.upper()} ")
    (entry,) = [each.entry for each in found.best if each.entry.kind == kind]
    assert {each.how for each in found.best} == {"code"} and all(each.entry.id == code for each in found.best)
    for texts in (entry.symptom, entry.cause, entry.way_out):
        assert texts[0].strip() and CHINESE.search(texts[1]), texts
        assert not CHINESE.search(texts[0].replace("镜像格式不合法", "").replace("未登录", "")), texts
        assert not re.search(r"\{\w*\}", "".join(texts)), "a parameter is not named"
    sections = {"issue": CODES, "rule": BY_ID}.get(kind, {})
    assert entry.section == sections[code].section if sections else entry.section or kind == "swr"


def test_what_is_related_can_be_explained() -> None:
    known = {entry.id for entry in entries()}
    for entry in entries():
        assert known.issuperset(entry.related), entry.id


def test_the_table_of_the_api_is_whole() -> None:
    assert len(ROWS) == len({row["code"] for row in ROWS}) == 190
    for row in ROWS:
        assert list(row) == ["http", "code", "description", "description_zh", "solution", "solution_zh"]
        assert all(text == text.strip() and text and "**" not in text for text in row.values()), row
        assert re.fullmatch(r"SVCSTG\.(SWR|S2I)\.[45]\d{6}", row["code"]) and re.fullmatch(r"[45]\d\d", row["http"])
        assert all(CHINESE.search(row[name]) for name in ("description_zh", "solution_zh"))
    assert {code.swr_code for code in CODES.values()} - {""} <= {row["code"] for row in ROWS}


def test_a_code_of_the_api_names_those_of_ours_that_are_nearest_to_it() -> None:
    (found,) = explain("SVCSTG.SWR.4000064").best
    assert found.entry.related == ("repotags-empty",)
    assert "push-denied" in explain("organization-taken").best[0].entry.related
    assert explain("4000064").best == explain("swr.4000064").best == (found,)


# --- pasted errors ----------------------------------------------------------------------------------------------------------

PASTED = [  # texts of the guide's chapter 9, and as docker, kubelet and the API print them
    ("denied: you do not have the permission", "push-denied"),
    ("“denied: you do not have the permission”", "push-denied"),
    ("The push refers to repository [x]\n5f70bf18a086: Pushing\ndenied: you do not have the permission\n", "push-denied"),
    ("tag does not exist: " + HOST + "/team/hello:v1", "local-tag-missing"),
    (f"An image does not exist locally with the tag: {HOST}/team/hello", "local-tag-missing"),
    ("name invalid: 'repository' is invalid", "name-invalid"),
    ("NAME INVALID: 'Repository'\n is invalid", "name-invalid"),
    ("bash: docker: command not found", "docker-not-found"),
    ("Error response from daemon: Get https://x/v2/: unauthorized: authentication required", "unauthorized"),
    ("unauthorized", "unauthorized"),
    (
        f"Error logging in to v2 endpoint, trying next endpoint: Get https://{HOST}/v2/: dial tcp: lookup {HOST} on 10.0.0.2:53: "
        "no such host",
        "registry-not-found",
    ),
    (f'Get "https://{HOST}/v2/": dial tcp: lookup {HOST}: no such host', "registry-not-found"),
    ("x509: certificate has expired or is not yet valid: current time 2026-11-24 is after 2025-01-01", "certificate-expired"),
    ("$ docker login -u x y\nError: x509: certificate signed by unknown authority", "login-unknown-authority"),
    (f"$ docker pull {HOST}/team/hello\nx509: certificate signed by unknown authority", "pull-unknown-authority"),
    ("Error: remote trust data does not exist", "trust-data-missing"),
    (f"Error: remote trust data does not exist for {HOST}/team/hello: notary does not have trust data", "trust-data-missing"),
    ("“镜像格式不合法”", "page-format"),
    ("通过页面上传镜像，一直卡在上传界面直到超时", "page-timeout"),
    ("当CCE工作负载无法正常拉取SWR的镜像，且提示“未登录”时", "cce-not-logged-in"),
    (
        'Warning  Failed  kubelet  Failed to pull image "x": rpc error: code = Unknown desc = Error response from daemon: '
        "unauthorized: authentication required",
        "cce-not-logged-in",
    ),
    ("hello   0/1   ImagePullBackOff   0   2m", "cce-not-logged-in"),
    ("创建组织失败，页面提示该组织已经存在", "organization-not-listed"),
    ('{"errors":[{"errorCode":"SVCSTG.SWR.4000067","errorMessage":"Invalid image package"}]}', "SVCSTG.SWR.4000067"),
    ("invalid image: the manifest file contains empty repotags", "SVCSTG.SWR.4000064"),
    ("error repotags-empty docker20-by-id.tar manifest[0].RepoTags\n  the image has no name", "repotags-empty"),
    ("Dockerfile:1: warning floating-tag\n  ubuntu has no tag of its own", "floating-tag"),
]


@pytest.mark.parametrize(("text", "code"), PASTED, ids=range(len(PASTED)))
def test_pasted_errors(text: str, code: str) -> None:
    best = [each.entry.id for each in explain(text).best]
    # A message of ours begins with the page's words.
    assert best == ([code, "reference-invalid"] if code == "page-format" else [code])
    told = json.loads(run("-", "--format", "json", stdin=text)[1])
    assert told["matches"][0]["id"] == code and told["nearest"] == []


def test_terse_descriptions_of_the_api_are_found_by_themselves_only() -> None:
    assert [each.entry.id for each in explain("Delete failed.").best] == ["SVCSTG.SWR.4060053"]
    assert "SVCSTG.SWR.4060053" not in [each.entry.id for each in explain("docker: error: delete failed in the end").matches]
    for row in ROWS:
        for text in (row["description"], row["description_zh"]):
            assert row["code"] in [each.entry.id for each in explain(text).best], text


def test_the_same_words_in_two_places_of_the_guide_are_both_told() -> None:
    found = explain("x509: certificate signed by unknown authority")
    assert [each.entry.section for each in found.best] == ["9.3.1", "9.3.4"]
    code, out, _ = run("x509: certificate signed by unknown authority")
    assert code == 0 and "guide 9.3.1" in out and "guide 9.3.4" in out


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("code", CODES)
def test_what_we_print_is_found_by_its_words(code: str, language: str) -> None:
    names = {name for _, name, _, _ in string.Formatter().parse(CODES[code].message + CODES[code].way_out) if name}
    told = issue(code, params={name: f"x{at}.tar" for at, name in enumerate(sorted(names))})
    text = told.text("zh" if language == "zh" else "en")
    found = explain(f"- some.tar: {text} (3 more)")
    known = [phrase for entry, fragments, _ in match._phrases() if entry.id == code for phrase in fragments]
    # A text of hardly any words of its own ("{name} is {size}, more than {limit}") is found by its code alone.
    assert not known or code in [each.entry.id for each in found.best]


NOISE = st.text(st.characters(codec="utf-8", exclude_characters="\x1b"), max_size=40)
GUIDE_PHRASES = [(error.id, phrase) for error in GUIDE_ERRORS for phrase in error.phrases]


@given(
    st.sampled_from(GUIDE_PHRASES), NOISE, NOISE, st.booleans(), st.sampled_from([" ", "\n", "\t  ", " \x1b[31m", "\x1b[0m\r\n"])
)
def test_case_colours_white_space_and_what_stands_around_do_not_matter(
    wanted: tuple[str, str], before: str, behind: str, upper: bool, space: str
) -> None:
    code, phrase = wanted
    words = phrase.replace("{}", f"https://{HOST}/v2/").replace(" ", space)
    text = f"{before} {words.upper() if upper else words} {behind}"
    assert code in [each.entry.id for each in explain(text).matches]


@given(st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=4), st.text("abc ", max_size=30))
def test_fragments_stand_in_order_and_near_each_other(fragments: list[str], text: str) -> None:
    gap = 3
    places = [[at for at in range(len(text)) if text.startswith(fragment, at)] for fragment in fragments]
    wanted = any(
        all(0 <= later - (sooner + len(fragment)) <= gap for sooner, later, fragment in zip(at, at[1:], fragments, strict=False))
        for at in product(*places)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(match, "GAP", gap)
        assert match._stands(fragments, text) == wanted


@given(st.text(max_size=300))
@settings(deadline=None)  # the first text reads the tables
def test_no_text_raises_and_what_is_known_is_found_or_something_near_is_named(text: str) -> None:
    found = explain(text)
    assert not (found.matches and found.nearest)
    assert [each.weight for each in found.matches] == sorted((each.weight for each in found.matches), reverse=True)


@pytest.mark.parametrize(
    "piece", ["the name ", "the image ", "a", "\x1b]", "\x1b[3", "{name} is ", "镜像", "the name x has no registr ", "- " * 9]
)
def test_long_texts_take_linear_time(piece: str) -> None:
    text = piece * (MAX_TEXT // len(piece.encode()))
    explain("warm")
    start = time.process_time()
    explain(text)
    assert time.process_time() - start < 4


def test_alike() -> None:
    assert alike('\x1b[1;31mError\x1b[0m:\t"A  b"\r\n\x1b]8;;http://x\x07c\x1b]8;;\x07') == "error: a b c"


# --- the command ------------------------------------------------------------------------------------------------------------


def test_text_and_json() -> None:
    code, out, err = run("repotags-empty")
    assert (code, err) == (0, "")
    for words in (
        "repotags-empty  error  guide 9.3.3",
        "symptom",
        "SVCSTG.SWR.4000064",
        "cause     the image <image_id> has no name",
        "way out   Save by",
    ):
        assert words in out
    zh = run("repotags-empty", "--lang", "zh")[1]
    assert "指南9.3.3" in zh and "问题原因" in zh and "解决办法" in zh
    told = json.loads(run("repotags-empty", "--format", "json")[1])
    assert set(told) == {"query", "matches", "nearest"}
    assert {"kind", "id", "level", "section", "symptom_zh", "cause_zh", "way_out_zh", "source", "how"} <= set(told["matches"][0])
    assert "FROM" in run("floating-tag")[1]


def test_words_without_quotes_are_one_text() -> None:
    assert run("denied:", "you", "do", "not", "have", "the", "permission")[1].startswith("push-denied")


def test_nothing_found() -> None:
    code, out, err = run("repotag-empty")
    assert (code, out) == (1, "") and "nothing is known of repotag-empty" in err
    assert err.splitlines()[2].split()[0] == "repotags-empty"
    code, out, _ = run("repotag-empty", "--format", "json")
    assert code == 1 and json.loads(out)["nearest"][0] == "repotags-empty" and json.loads(out)["matches"] == []
    code, _, err = run("qqqq wwww")
    assert code == 1 and "--list" in err
    assert "没有找到" in run("qqqq", "--lang", "zh")[2]


def test_wrong_usage() -> None:
    assert run()[0] == run("")[0] == run("-", stdin="\n")[0] == 2
    code, _, err = run("-", stdin="x" * (MAX_TEXT + 1))
    assert code == 2 and "lines of the error alone" in err
    assert run("-", stdin=b"\xff\xfe denied: you do not have the permission")[0] == 0


def test_list() -> None:
    lines = run("--list")[1].splitlines()
    assert len(lines) == len(entries()) + 1
    assert [line.split()[0] for line in lines[1:]] == [entry.id for entry in entries()]
    assert max(map(width, lines)) > 120  # whole, for grep; a terminal gets what it has room for
    assert len(json.loads(run("--list", "--format", "json")[1])) == len(entries())


@pytest.mark.parametrize("columns", [80, 160])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_lines_fit_the_terminal(columns: int, language: str) -> None:
    examples = {line.strip() for entry in entries() for line in (entry.bad + "\n" + entry.good).splitlines()}
    for entry in [each for each in entries() if each.kind != "swr"]:
        for line in run(entry.id, "--lang", language, columns=columns)[1].splitlines():
            shown = line[12:].strip()
            assert width(line) <= columns or " " not in shown or shown in examples or line[10:].strip() in examples, line


def test_entries_are_values() -> None:
    assert all(isinstance(entry, Entry) and hash(entry) == hash(entry) for entry in entries())


@pytest.mark.parametrize(
    ("label", "text", "columns", "lines"),
    [
        ("  a", "one two three", 14, ["  a one two", "    three"]),
        ("  a", "一二三四五，六", 14, ["  a 一二三四", "    五，六"]),
        ("  a", "一二三四（五", 13, ["  a 一二三四", "    （五"]),
        ("  image", "0123456789", 17, ["  image", "    0123456789"]),
        ("  image", "x 0123456789012345678 y", 17, ["  image x", " " * 8 + "0123456789012345678", " " * 8 + "y"]),
        ("  a", "", 14, ["  a "]),
    ],
)
def test_wrapped(label: str, text: str, columns: int, lines: list[str]) -> None:
    assert wrapped(label, text, columns, 8 if label == "  image" else 4) == lines


@given(st.text("ab 一二，（", max_size=60), st.integers(12, 40))
def test_wrapped_loses_nothing_and_fits(text: str, columns: int) -> None:
    lines = wrapped("", text, columns, 0)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(
        width(line) <= columns or len(re.findall(r"[ab]+|[一二]", line)) < 2 or "，" in line or "（" in line for line in lines
    )


@pytest.mark.parametrize(
    ("text", "columns", "lines"),
    [
        ("swrbatch: a b", 13, ["swrbatch: a b"]),
        ("swrbatch: ab c", 13, ["swrbatch:", "  ab c"]),
        ("swrbatch: a b c", 14, ["swrbatch: a", "  b c"]),
        ("  way out: name it", 12, ["  way out:", "    name it"]),
        ("swrbatch: /a/long/path is gone", 14, ["swrbatch:", "  /a/long/path", "  is gone"]),
    ],
)
def test_set_in(text: str, columns: int, lines: list[str]) -> None:
    assert set_in(text, columns) == lines


def test_texts_are_broken_for_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert rows_cut("a" * 50) == "a" * 50
    assert fitted("word " * 20, "x") == ["  " + "word " * 20, "  x"]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert rows_cut("a" * 50 + "\n文" * 2) == "a" * 39 + "…" + "\n文" * 2
    assert fitted("word " * 20, "x")[1:] == ["  " + ("word " * 7).rstrip()] * 1 + ["  " + ("word " * 6).rstrip(), "  x"]


def test_every_rule_and_finding_has_its_cause_and_no_cause_is_left_over() -> None:
    assert set(CAUSES) == set(BY_ID)
    assert set(findings.CAUSES) == set(findings.MEANINGS)
