"""Rules on Dockerfiles: the corpus, the guide's own examples, ignore comments, the command and its formats."""

from __future__ import annotations

import gzip
import json
import os
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from sarif import loader
from sarif_pydantic import Sarif
from typer.testing import CliRunner

from lint_corpus import FOUND, MISSED, whole
from swrbatch.cli import app
from swrbatch.lint.build import Context
from swrbatch.lint.catalog import RULES, select_rules
from swrbatch.lint.check import lint_dockerfile
from swrbatch.lint.ignored import excludes
from swrbatch.lint.rule import Finding
from swrbatch.redaction import is_secret

BARE = Context(ignored=None, read=lambda name: None)
GUIDED = Context(ignored=(".git/",), read=lambda name: None)


def rules(text: str | bytes, context: Context = BARE) -> list[str]:
    data = text if isinstance(text, bytes) else text.encode()
    return [one.rule for one in lint_dockerfile(data, "Dockerfile", context)]


@pytest.mark.parametrize(("rule", "case"), [(rule, case) for rule, cases in FOUND.items() for case in cases])
def test_found(rule: str, case: str) -> None:
    assert rule in rules(whole(case))


@pytest.mark.parametrize(("rule", "case"), [(rule, case) for rule, cases in MISSED.items() for case in cases])
def test_near_miss(rule: str, case: str) -> None:
    assert rule not in rules(whole(case))
    assert rule == "syntax" or "syntax" not in rules(whole(case))


def test_every_rule_has_a_corpus() -> None:
    assert set(FOUND) == set(MISSED) == {one.id for one in RULES if one.check is not None}
    assert all(len(set(cases)) >= 6 for table in (FOUND, MISSED) for cases in table.values())


@pytest.mark.parametrize("one", [one for one in RULES if one.check is not None], ids=lambda one: one.id)
def test_the_examples_of_a_rule(one: object) -> None:
    rule = next(known for known in RULES if known is one)
    assert rule.id in rules(rule.bad)
    assert rule.id not in rules(rule.good)
    assert re.search("[\u4e00-\u9fff]", rule.message_zh) and re.search("[\u4e00-\u9fff]", rule.way_out_zh)
    found = next(found for found in lint_dockerfile(rule.bad.encode(), "D", BARE) if found.rule == rule.id)
    for text in (found.message, found.message_zh, found.way_out, found.way_out_zh):
        assert text and not re.search(r"\{[a-z_]+\}", text)


# The guide's 8.1 improves one Dockerfile step by step: each version still has what the next section takes away.
FIRST = """FROM ubuntu
ADD . /app

RUN apt-get update
RUN apt-get upgrade -y
RUN apt-get install -y nodejs ssh mysql
RUN cd /app && npm install

# this should start three processes, mysql and ssh
# in the background and node app in foreground
# isn't it beautifully terrible? <3
CMD mysql & sshd & npm start
"""
SECOND = """FROM ubuntu
ADD ./app
RUN apt-get update
RUN apt-get upgrade -y
RUN apt-get install -y nodejs
RUN cd /app && npm install
CMD npm start
"""
THIRD = """FROM ubuntu
ADD ./app
RUN apt-get update \\
    && apt-get install -y nodejs \\
    && cd /app \\
    && npm install
CMD npm start
"""
TAGLESS = """FROM ubuntu
RUN apt-get update && apt-get install -y nodejs
ADD ./app
RUN cd /app && npm install
CMD npm start
"""
CLEANED = """FROM ubuntu:16.04

RUN apt-get update \\
    && apt-get install -y nodejs \\
    && rm -rf /var/lib/apt/lists/*

ADD . /app
RUN cd /app && npm install

CMD npm start
"""
ALPINE = "FROM node:7-alpine\n\nADD . /app\nRUN cd /app && npm install\n\nCMD npm start\n"
ADDED = """FROM node:7-alpine

WORKDIR /app
ADD . /app
RUN npm install

ENTRYPOINT ["/entrypoint.sh"]
CMD ["start"]
"""
COPIED = ADDED.replace("ADD", "COPY")
ORDERED = """FROM node:7-alpine
ENV PROJECT_DIR=/app
WORKDIR $PROJECT_DIR
COPY package.json $PROJECT_DIR
RUN npm install
COPY . $PROJECT_DIR

ENTRYPOINT ["/entrypoint.sh"]
CMD ["start"]
"""
FINAL = """FROM node:7-alpine
LABEL com.example.version="0.0.1-beta"

ENV PROJECT_DIR=/app
WORKDIR $PROJECT_DIR

COPY package.json $PROJECT_DIR
RUN npm install
COPY . $PROJECT_DIR

ENV MEDIA_DIR=/media \\
    APP_PORT=3000

VOLUME $MEDIA_DIR
EXPOSE $APP_PORT
HEALTHCHECK CMD curl --fail http://localhost:$APP_PORT || exit 1

ENTRYPOINT ["/entrypoint.sh"]
CMD ["start"]
"""


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (FIRST, "background-process"),
        (FIRST, "several-services"),
        (SECOND, "package-upgrade"),
        (SECOND, "update-alone"),
        (THIRD, "mixed-frequency"),
        (TAGLESS, "floating-tag"),
        (TAGLESS.replace("ubuntu", "ubuntu:16.04"), "package-leftovers"),
        (CLEANED, "general-base"),
        (ALPINE, "run-cd"),
        (ALPINE, "shell-form"),
        (ADDED, "add-local"),
        (COPIED, "copy-before-install"),
        (ORDERED, "missing-expose"),
        (FIRST, "database-without-volume"),
        (ORDERED, "missing-label"),
        (ORDERED, "missing-healthcheck"),
        (ORDERED, "missing-dockerignore"),
        (SECOND, "syntax"),
    ],
)
def test_each_bad_example_of_the_guide_gives_the_finding_of_its_section(text: str, rule: str) -> None:
    assert rule in rules(text)


def test_the_finding_goes_with_the_guides_own_correction() -> None:
    assert "package-upgrade" not in rules(SECOND.replace("RUN apt-get upgrade -y\n", ""))
    assert "mixed-frequency" not in rules(TAGLESS)
    assert "package-leftovers" not in rules(CLEANED) and "general-base" not in rules(ALPINE)
    assert not {"run-cd", "shell-form"} & set(rules(ADDED)) and "add-local" not in rules(COPIED)
    assert "copy-before-install" not in rules(ORDERED)
    assert not {"missing-expose", "missing-label", "missing-healthcheck"} & set(rules(FINAL))


def test_the_guides_final_dockerfile_is_clean_of_errors_and_warnings() -> None:
    found = lint_dockerfile(FINAL.encode(), "Dockerfile", GUIDED)
    assert [(one.rule, one.level) for one in found] == [("missing-user", "info")]


def test_ignore_comments() -> None:
    text = "# swrbatch ignore=floating-tag a reason\nFROM ubuntu\nFROM debian\n"
    assert [one.line for one in lint_dockerfile(text.encode(), "D") if one.rule == "floating-tag"] == [3]
    inside = "FROM a:1\nRUN apt-get update \\\n  # swrbatch ignore=update-alone,package-leftovers\n  && true\n"
    assert not {"update-alone", "package-leftovers"} & set(rules(inside))
    assert "floating-tag" not in rules("FROM ubuntu\nFROM debian\n# swrbatch ignore-file=floating-tag\n")


def test_lines_of_findings() -> None:
    text = "FROM a:1\nRUN a \\\n # c\n && apt-get upgrade \\\n && b\n"
    found = next(one for one in lint_dockerfile(text.encode(), "D") if one.rule == "package-upgrade")
    assert (found.line, found.end_line, found.snippet) == (4, 5, "&& apt-get upgrade \\")


@pytest.mark.parametrize(
    "text", ["ENV DB_PASSWORD=hunter2", "ENV DB_PASSWORD hunter2", "ARG A=1 \\\n  TOKEN=hunter2", "ENV X=$y TOKEN=hunter2"]
)
def test_a_secret_is_printed_nowhere(text: str) -> None:
    found = lint_dockerfile(f"FROM a:1\n{text}\nADD x\n".encode(), "D", BARE)
    assert "secret-in-build" in [one.rule for one in found]
    assert "hunter2" not in repr(found)


def test_fingerprints_outlive_other_lines_and_differ_from_each_other() -> None:
    def prints(text: str) -> dict[str, str]:
        return {one.fingerprint: one.rule for one in lint_dockerfile(text.encode(), "D", BARE)}

    before, after = prints(FIRST), prints("# a comment\n" + FIRST)
    assert before == after and len(before) == len(lint_dockerfile(FIRST.encode(), "D", BARE))


def test_shell_that_does_not_parse_is_unknown() -> None:
    assert not {"package-upgrade", "update-alone"} & set(rules("FROM a:1\nRUN apt-get update && (\n"))


@pytest.mark.parametrize(
    ("lines", "out"),
    [
        ([".git/"], True), (["**/.git"], True), (["*"], True), (["*", "!.git"], False), (["# .git"], False), ([".gitignore"], False), ([".*"], True),
        (["!.git", ".git"], True), (["./.git"], True), ([], False), (["src/.git"], False), (["/.git/**"], True),
    ],
)  # fmt: skip
def test_dockerignore(lines: list[str], out: bool) -> None:
    assert excludes(lines, ".git") is out


# The command


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["lint", *arguments])
    return done.exit_code, done.output


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_files_are_found_by_name_and_content(folder: Path) -> None:
    put(folder, Dockerfile=FINAL, README="FROM here\n", **{".dockerignore": ".git/\n", "Dockerfile.dockerignore": ".git\n"})
    put(folder, **{"a/api.Dockerfile": FINAL, "a/Containerfile": FINAL, "a/.git/Dockerfile": FINAL, "a/Dockerfile.md": "no\n"})
    code, output = run(".", "--format", "json")
    assert json.loads(output)["files"] == ["./Dockerfile", "./a/Containerfile", "./a/api.Dockerfile"]
    assert code == 1  # a/ has no .dockerignore of its own
    assert run("Dockerfile")[0] == 0


def test_thresholds_rules_and_languages(folder: Path) -> None:
    put(folder, Dockerfile="FROM ubuntu\n")
    assert run("Dockerfile")[0] == 1
    assert run("Dockerfile", "--fail-on", "error")[0] == 0
    assert run("Dockerfile", "--rules", "-floating-tag")[0] == 0
    assert run("Dockerfile", "--rules", "-floating-tag", "--fail-on", "info")[0] == 1
    code, output = run("Dockerfile", "--rules", "floating-tag", "--lang", "zh")
    assert code == 1 and output.splitlines()[0] == "Dockerfile:1: 警告 floating-tag" and "解决办法：" in output
    assert [one.id for one in select_rules("-syntax")] == [one.id for one in RULES if one.id != "syntax"]
    assert all(one.id in run("--list")[1] for one in RULES)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nothing-here"], "does not exist"), (["empty"], "holds no Dockerfile"), (["text"], "has no FROM"), ([], "name a Dockerfile"), (["Dockerfile", "--date", "x"], "no day"),
        (["Dockerfile", "--rules", "x"], "x is no rule"), (["Dockerfile", "--rules", ""], "is no rule"), (["Dockerfile", "--baseline", "text"], "is no result"),
        (["Dockerfile", "--baseline", "gone"], "cannot be read"), (["Dockerfile", "--format", "xml"], "xml"), (["fifo"], "no regular file"),
    ],
)  # fmt: skip
def test_wrong_usage(folder: Path, arguments: list[str], told: str) -> None:
    put(folder, Dockerfile="FROM ubuntu\n", text="hello\n")
    (folder / "empty").mkdir()
    os.mkfifo(folder / "fifo")
    code, output = run(*arguments)
    assert (code, told in output) == (2, True)


def test_a_file_that_is_named_is_never_passed_over(folder: Path) -> None:
    put(folder, **{"d/Dockerfile": FINAL, "d/.dockerignore": ".git\n"})
    (folder / "d" / "broken.tar.gz").write_bytes(gzip.compress(b"no tar"))
    assert run("d")[0] == 0
    for arguments in (["d/broken.tar.gz"], ["d", "d/broken.tar.gz"], ["d/broken.tar.gz", "d"], ["d", "./d/../d/broken.tar.gz"]):
        assert run(*arguments)[0] == 1, arguments


def test_a_file_is_linted_once_however_it_is_spelled(folder: Path) -> None:
    put(folder, Dockerfile=FIRST)
    os.symlink("Dockerfile", folder / "Containerfile")
    once = json.loads(run("Dockerfile", "--format", "json")[1])
    again = json.loads(run("Dockerfile", "./Dockerfile", ".", str(folder), "--format", "json")[1])
    assert again["files"] == ["Dockerfile"] and again["findings"] == once["findings"]


def test_a_folder_that_cannot_be_read_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder, Dockerfile=FINAL, **{"inside/Dockerfile": FIRST})
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if path.endswith("inside"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    code, output = run(".")
    assert code == 2 and "./inside cannot be read: Permission denied" in output


@pytest.mark.parametrize(
    "text", [FIRST, "FROM ubuntu", "kind: Pod\nmetadata: {name: a}\nspec: {containers: [{image: a, name: b}]}\n"]
)
def test_a_text_on_standard_input_is_told_by_its_content(folder: Path, text: str) -> None:
    put(folder, **{"a_text": text, ".dockerignore": ".git\n"})
    told = [
        json.loads(CliRunner().invoke(app, ["lint", *arguments, "--format", "json"], input=text).stdout)
        for arguments in (["-"], ["a_text"])
    ]
    assert [one["files"] for one in told] == [["-"], ["a_text"]]
    assert bool(told[0]["findings"]) == ("FROM" in text)
    seen = [[(one["rule"], one["line"], one["message"]) for one in each["findings"]] for each in told]
    assert seen[0] == seen[1]


def test_a_manifest_of_one_line_on_standard_input(folder: Path) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"image": "swr.x.myhuaweicloud.com/a/b"}]}}
    arguments = ["lint", "-", "--format", "json", "--no-config"]
    told = json.loads(CliRunner().invoke(app, arguments, input=json.dumps(pod, separators=(",", ":"))).stdout)
    assert (told["files"], [one["line"] for one in told["findings"]]) == (["-"], [1])


@pytest.mark.parametrize("data", [b"", b"hello\n", b"\0" * 2000, b"x" * (3 << 20)])
def test_what_else_comes_in_is_wrong_usage(folder: Path, data: bytes) -> None:
    done = CliRunner().invoke(app, ["lint", "-"], input=data)
    assert done.exit_code == 2 and "standard input is no archive, no Dockerfile" in done.output


def test_a_file_that_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWRBATCH_STORE", raising=False)
    for command in ("lint", "inspect"):
        done = CliRunner().invoke(app, [command, "app/Dockerfle"])
        assert done.exit_code == 2 and "there is no file app/Dockerfle, and no store here" in done.output
    assert CliRunner().invoke(app, ["lint", "app/Dockerfle", "--store", "gone"]).exit_code == 3


@pytest.mark.parametrize(
    ("columns", "head"),
    [
        (None, ["a folder of some length/Dockerfile:1: warning floating-tag"]),
        (60, ["a folder of some length/Dockerfile:1: warning floating-tag"]),
        (50, ["a folder of some length/Dockerfile:1:", "  warning floating-tag"]),
        (30, ["a folder of some", "  length/Dockerfile:1:", "  warning floating-tag"]),
        (46, ["a folder of some length/Dockerfile:1:", "  warning floating-tag"]),
        (36, ["a folder of some", "  length/Dockerfile:1:", "  warning floating-tag"]),
    ],
)
def test_a_head_that_a_terminal_would_break_is_broken_between_words(
    folder: Path, monkeypatch: pytest.MonkeyPatch, columns: int | None, head: list[str]
) -> None:
    put(folder, **{"a folder of some length/Dockerfile": "FROM ubuntu\n"})
    for module in ("lint", "text"):
        monkeypatch.setattr(f"swrbatch.cli.{module}.terminal", lambda: columns)
    told = run("a folder of some length/Dockerfile", "--rules", "floating-tag")[1].splitlines()
    assert told[: len(head)] == head


def test_baseline(folder: Path) -> None:
    put(folder, Dockerfile=FIRST)
    (folder / "known.json").write_text(run("Dockerfile", "--format", "json")[1])
    code, output = run("Dockerfile", "--baseline", "known.json", "--fail-on", "info")
    assert code == 0 and "known" in output
    put(folder, Dockerfile=FIRST + "EXPOSE 22\n")
    code, output = run("Dockerfile", "--baseline", "known.json", "--format", "json")
    assert code == 1 and [one["rule"] for one in json.loads(output)["findings"]] == ["ssh-port"]


def test_a_file_is_known_however_it_is_spelled(folder: Path) -> None:
    put(folder, **{"a/Dockerfile": FIRST})
    (folder / "known.json").write_text(run("a", "--format", "json")[1])
    for name in (".", "./a", "a//Dockerfile", str(folder / "a"), f"{folder}/a/../a/Dockerfile"):
        code, output = run(name, "--baseline", "known.json", "--fail-on", "info")
        assert code == 0 and "info 0, known" in output, name
        (path,) = {one["location"]["path"] for one in json.loads(run(name, "--format", "gitlab")[1])}
        results = json.loads(run(name, "--format", "sarif")[1])["runs"][0]["results"]
        (uri,) = {one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for one in results}
        assert path == uri == "a/Dockerfile", name
    put(folder, **{"c/Dockerfile": FIRST})
    assert run("c", "--baseline", "known.json")[0] == 1


def test_sarif_is_read_by_a_package_of_others(folder: Path) -> None:
    put(folder, **{"a b/Dockerfile": FIRST})
    code, output = run("a b", "--format", "sarif")
    read = Sarif.model_validate_json(output)
    (one,) = read.runs
    assert code == 1 and read.version == "2.1.0"
    driver = one.tool.driver
    assert [rule.id for rule in driver.rules or []] == [rule.id for rule in RULES]
    assert all(rule.help and rule.help.text for rule in driver.rules or [])
    for language, bad in (("en", "Bad:"), ("zh", "反例：")):
        told = json.loads(run("a b", "--format", "sarif", "--lang", language)[1])["runs"][0]["tool"]["driver"]["rules"]
        for rule, raw in zip(RULES, told, strict=True):
            texts = [raw["shortDescription"]["text"], raw["fullDescription"]["text"], raw["help"]["text"]]
            assert not re.search(r"\{[a-z_]+\}", "".join(texts)) and len(set(texts)) == 3
            assert bad in raw["help"]["markdown"] and rule.bad in raw["help"]["markdown"] and rule.good in raw["help"]["markdown"]
            assert all((language == "zh") == bool(re.search("[\u4e00-\u9fff]", text)) for text in texts)
    findings = lint_dockerfile(FIRST.encode(), "a b/Dockerfile", BARE)
    assert len(one.results or []) == len(findings)
    for result, found in zip(one.results or [], findings, strict=True):
        raw = json.loads(result.model_dump_json(by_alias=True))
        place = raw["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "a%20b/Dockerfile"
        assert (place["region"]["startLine"], place["region"]["endLine"]) == (found.line, found.end_line)
        assert (driver.rules or [])[raw["ruleIndex"]].id == raw["ruleId"] == found.rule
    prints = [result["partialFingerprints"]["swrbatchFinding/v1"] for result in json.loads(output)["runs"][0]["results"]]
    assert prints == [found.fingerprint for found in findings]


def test_sarif_is_read_by_another_package(folder: Path) -> None:
    put(folder, Dockerfile=FIRST)
    (folder / "out.sarif").write_text(run("Dockerfile", "--format", "sarif")[1])
    read = loader.load_sarif_file(str(folder / "out.sarif")).get_records()
    findings = lint_dockerfile(FIRST.encode(), "Dockerfile", BARE)
    told = sorted((one.rule, "note" if one.level == "info" else one.level.value, one.line) for one in findings)
    assert sorted((one["Code"], one["Severity"], one["Line"]) for one in read) == told


def test_gitlab_and_junit(folder: Path) -> None:
    put(folder, Dockerfile=FIRST, **{"c/Dockerfile": FINAL, "c/.dockerignore": ".git\n"})
    listed = json.loads(run(".", "--format", "gitlab")[1])
    severity = {one["check_name"]: one["severity"] for one in listed}
    assert severity["floating-tag"] == "minor" and severity["missing-user"] == "info"
    assert len({one["fingerprint"] for one in listed}) == len(listed)
    assert all(one["location"]["lines"]["begin"] >= 1 and one["location"]["path"].endswith("Dockerfile") for one in listed)
    suites = ET.fromstring(run(".", "--format", "junit")[1]).findall("testsuite")
    assert [suite.get("name") for suite in suites] == ["./Dockerfile", "./c/Dockerfile"]
    assert int(suites[0].get("failures", "0")) > 5 and suites[1].get("failures") == "0"
    assert suites[0].find("testcase[@name='missing-user']/failure") is None


def test_the_entrypoint_script_is_read_from_the_build_context(folder: Path) -> None:
    def found() -> list[Finding]:
        return json.loads(run("Dockerfile", "--format", "json", "--rules", "entrypoint-exec")[1])["findings"]

    put(folder, Dockerfile=FINAL, **{"entrypoint.sh": "#!/bin/sh\nnpm run $1\n"})
    assert found() == []  # the guide's COPY . goes to /app, not to /
    put(folder, Dockerfile='FROM a:1\nWORKDIR /x\nCOPY . .\nENTRYPOINT ["/x/entrypoint.sh"]\n')
    assert len(found()) == 1
    put(folder, Dockerfile='FROM a:1\nCOPY entrypoint.sh /\nENTRYPOINT ["/entrypoint.sh"]\n')
    assert len(found()) == 1
    put(folder, **{"entrypoint.sh": '#!/bin/sh\nset -e\nexec npm "$@"\n'})
    assert found() == []


def test_no_file_outside_the_build_context_is_read(folder: Path) -> None:
    put(folder, **{"secret.sh": "#!/bin/sh\nnode x\n", "in/Dockerfile": 'FROM a:1\nCOPY link.sh /\nENTRYPOINT ["/link.sh"]\n'})
    (folder / "in/link.sh").symlink_to(folder / "secret.sh")
    assert json.loads(run("in", "--format", "json", "--rules", "entrypoint-exec")[1])["findings"] == []


@pytest.mark.parametrize(
    ("value", "secret"),
    [
        ("/x8Jk+9f==", True), ("$3cr3t!", True), ("/run/secrets/db", False), ("$PASS", False), ("${PASS:-x}", False),
        ("$(cat /run/x)", False), ("/secret", False), ("hunter2", True), ("", False), ("true", False),
    ],
)  # fmt: skip
def test_a_value_that_is_a_path_or_a_variable_is_no_secret(value: str, secret: bool) -> None:
    assert is_secret("DB_PASSWORD", value) is secret
