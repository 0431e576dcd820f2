"""The configuration of lint: what it changes, what it accepts, and where its faults are."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from swrbatch.cli import app
from swrbatch.errors import UsageError
from swrbatch.lint.catalog import RULES
from swrbatch.lint.config import FILE, read_config

DOCKERFILE = "FROM ubuntu\nRUN apt-get upgrade -y\nEXPOSE 22\n"
FOUND = {"floating-tag": "warning", "package-upgrade": "warning", "ssh-port": "warning"}
TODAY = datetime.date(2026, 11, 24)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["lint", "Dockerfile", *arguments])
    return done.exit_code, done.output


def levels(*arguments: str) -> dict[str, str]:
    """The rules that found something and their levels, but for those of info."""
    found = json.loads(run("--format", "json", *arguments)[1])["findings"]
    return {one["rule"]: one["level"] for one in found if one["level"] != "info"}


def test_rules_are_switched_and_levelled(folder: Path) -> None:
    before = levels()
    assert FOUND.items() <= before.items()
    (folder / FILE).write_text("rules:\n  floating-tag: off\n  ssh-port: error\n  package-upgrade: info\n")
    expected = before | {"ssh-port": "error"}
    del expected["floating-tag"], expected["package-upgrade"]
    assert levels() == expected
    assert levels("--no-config") == before
    (folder / FILE).write_text("only: [ssh-port, package-upgrade]\nrules: {package-upgrade: 'off'}\n")
    assert levels() == {"ssh-port": "warning"}
    # The command line goes before the file: these rules alone are named there, all but these are those of the file.
    assert levels("--rules", "floating-tag") == {"floating-tag": "warning"}
    assert levels("--rules", "-ssh-port") == {}


def test_the_threshold_of_the_file_and_of_the_command_line(folder: Path) -> None:
    (folder / "lint.yaml").write_text("fail-on: error\n")
    assert run()[0] == 1
    assert run("--config", "lint.yaml")[0] == 0
    assert run("--config", "lint.yaml", "--fail-on", "warning")[0] == 1


def test_what_is_accepted_does_not_count_and_says_why(folder: Path) -> None:
    (folder / FILE).write_text(
        'ignore:\n  - {rules: [ssh-port], reason: "a jump host"}\n'
        "  - {path: Docker*, rules: [floating-tag, package-upgrade], reason: old}\n"
    )
    told = json.loads(run("--format", "json")[1])
    assert not FOUND.keys() & {one["rule"] for one in told["findings"]}
    assert {one["rule"]: one["accepted"] for one in told["accepted"]} == {
        "ssh-port": "a jump host",
        "floating-tag": "old",
        "package-upgrade": "old",
    }
    assert "ignored 3" in run()[1] and "已忽略 3" in run("--lang", "zh")[1]
    assert "ssh-port" not in "".join(line for line in run("--format", "junit")[1].splitlines() if "testcase" in line)
    assert json.loads(run("--format", "sarif")[1])["runs"][0]["results"].__len__() == len(told["findings"])


@pytest.mark.parametrize(
    ("entry", "holds"),
    [
        ("path: Dockerfile", True), ("path: '*file'", True), ("path: other/*", False), ("path: '[D]ockerfile'", True),
        ("path: Dockerfile, until: 2026-11-24", True), ("path: Dockerfile, until: 2026-11-23", False), ("image: '*'", False),
        ("image: x", False), ("place: etc/*", False), ("rules: [ssh-port], path: x", False),
        ("rules: [ssh-port], path: '*'", True),
    ],
)  # fmt: skip
def test_an_entry_holds_where_all_that_it_says_holds(folder: Path, entry: str, holds: bool) -> None:
    (folder / FILE).write_text(f"ignore: [{{{entry}, reason: r}}]\n")
    found = json.loads(run("--format", "json", "--date", str(TODAY))[1])
    assert ("ssh-port" in {one["rule"] for one in found["accepted"]}) is holds


def test_paths_are_matched_from_the_folder_of_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = folder / "team" / "api"
    inside.mkdir(parents=True)
    (inside / "Dockerfile").write_text(DOCKERFILE)
    (folder / FILE).write_text("ignore: [{path: team/api/Dockerfile, reason: r}]\n")
    monkeypatch.chdir(inside)
    for name in (("--config", f"../../{FILE}"), ("--config", str(folder / FILE))):
        assert not levels(*name)


def test_a_baseline_is_found_from_the_folder_of_the_file(folder: Path) -> None:
    known = run("--format", "json")[1]
    (folder / "conf").mkdir()
    (folder / "conf" / "known.json").write_text(known)
    (folder / "conf" / "lint.yaml").write_text("baseline: known.json\n")
    code, output = run("--config", "conf/lint.yaml", "--fail-on", "info")
    assert code == 0 and "known" in output


def test_registries(folder: Path) -> None:
    (folder / "pod.yaml").write_text("kind: Pod\nspec:\n  containers: [{name: a, image: reg.example.com/team/app:1}]\n")
    done = CliRunner().invoke(app, ["lint", "pod.yaml"])
    assert done.exit_code == 0
    (folder / FILE).write_text("registries: ['reg.example.*']\n")
    done = CliRunner().invoke(app, ["lint", "pod.yaml"])
    assert done.exit_code == 1 and "imagePullSecrets" in done.output
    done = CliRunner().invoke(app, ["lint", "pod.yaml", "--registry", "other.example.com"])
    assert done.exit_code == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rulse: {}\n", ":1:1: rulse: unknown key; there are baseline, fail-on, ignore, only, registries, rules"),
        ("rules:\n  floting-tag: off\n", ":2:3: rules.floting-tag: floting-tag is no rule; did you mean floating-tag?"),
        ("rules:\n  zzz: off\n", ":2:3: rules.zzz: zzz is no rule; swrbatch lint --list names them"),
        ("rules:\n  ssh-port: fatal\n", ":2:3: rules.ssh-port: 'fatal' is none of off, info, warning, error"),
        ("rules:\n  ssh-port: false\n", "is none of off"),
        ("rules: [ssh-port]\n", ":1:1: rules: ['ssh-port'] is not a mapping"),
        ("only: []\n", ":1:1: only: it is empty"),
        ("only: [ssh-port,\n  nothing]\n", ":2:3: only[1]: nothing is no rule"),
        ("fail-on: fatal\n", ":1:1: fail-on: 'fatal' is none of"),
        ("ignore:\n  - {rules: [ssh-port]}\n", ":2:5: ignore[0]: reason is missing"),
        ("ignore:\n  - {reason: r}\n", ":2:5: ignore[0]: it accepts everything"),
        ("ignore:\n  - {rules: [x], reason: r}\n", ":2:14: ignore[0].rules[0]: x is no rule"),
        ("ignore:\n  - {path: a, reason: r, until: 2026-13-01}\n", "ignore[0].until: 2026-13-01 is no day: write YYYY-MM-DD"),
        ("ignore:\n  - {path: a, reason: r, until: 20261301}\n", "ignore[0].until: 20261301 is not a text"),
        ("ignore:\n  - {paths: a, reason: r}\n", "ignore[0].paths: unknown key; there are image, path,"),
        ("baseline: gone.json\n", ":1:1: baseline: the baseline"),
        ("fail-on: info\nfail-on: error\n", ":2:1: fail-on: it stands here twice"),
        ("", "holds 0 documents"), ("a: [\n", "is no YAML"), ("- a\n", "is not a mapping"),
        ("--- {}\n--- {}\n", "holds 2 documents"),
    ],
)  # fmt: skip
def test_faults_are_told_with_their_place(folder: Path, text: str, told: str) -> None:
    (folder / FILE).write_text(text)
    code, output = run()
    assert (code, told in output) == (2, True), output
    assert "Traceback" not in output


def test_all_faults_are_told_at_once(folder: Path) -> None:
    (folder / "c.yaml").write_text("rules: {a: off, b: off}\nignore: [{reason: r}]\n")
    with pytest.raises(UsageError) as raised:
        read_config("c.yaml")
    assert len(str(raised.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--config", "gone.yaml"], "the lint configuration gone.yaml cannot be read"), (["--config", "."], "cannot be read"),
        (["--config", "Dockerfile", "--no-config"], "give one of them"), (["--config", "big.yaml"], "larger than 1 MiB"),
        (["--config", "latin.yaml"], "no UTF-8 text"),
    ],
)  # fmt: skip
def test_wrong_usage(folder: Path, arguments: list[str], told: str) -> None:
    (folder / "big.yaml").write_bytes(b"#" * (1 << 20) + b"\n")
    (folder / "latin.yaml").write_bytes(b"fail-on: \xff\n")
    code, output = run(*arguments)
    assert (code, told in output) == (2, True), output


def test_every_rule_can_be_configured(folder: Path) -> None:
    (folder / "all.yaml").write_text("rules:\n" + "".join(f"  {one.id}: off\n" for one in RULES))
    assert read_config("all.yaml").rules == ()
    assert run("--config", "all.yaml", "--fail-on", "info")[0] == 0
