"""Hostile input to lint, inspect, dedupe and explain: bounded, nothing secret shown, nothing passed over.

What once took minutes or gigabytes runs in a child (`in_child`) that is killed when it hangs, and whose memory is the product's.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard
from typer.testing import CliRunner

from conftest import ROOT
from imagetar import Image, Layer, TarBuilder, files, header, tar_of
from in_child import Children
from lint_images import APP, BASE, KEY, X, image, layer
from lint_images import ROOT as ROOT_FILES
from swrbatch.cli import app
from swrbatch.lint.batch import find_bases
from swrbatch.lint.check import MOST, lint_dockerfile, lint_workloads
from swrbatch.lint.dockerfile import MAX_VARIABLES, parse_dockerfile
from swrbatch.lint.rule import Finding, fingerprint, spelled_alike
from swrbatch.lint.shell import commands_of
from swrbatch.lint.view import image_head
from swrbatch.lint.workload import parse_workloads, with_surroundings
from swrbatch.redaction import redacted, redacted_words
from test_lint_images import found_in, lint, write

MIB = 2**20
SECRET = "correcthorse9"
EVIL = "a\x1b[31m\x07\x9b1m\u202e\ud800\ufffeb"
OLD = b'ID=ubuntu\nVERSION_ID="16.04"\n'


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    with Children(120) as running:
        yield running


def dockerfile(text: str | bytes) -> tuple[Finding, ...]:
    return lint_dockerfile(text if isinstance(text, bytes) else text.encode(), "Dockerfile")


def run(*args: str | Path, status: int) -> str:
    done = CliRunner().invoke(app, [str(each) for each in args])
    assert done.exit_code == status, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.stdout


# --- Dockerfiles: time, memory, output -------------------------------------------------------------------------------

SLOW: dict[str, Callable[[], bytes]] = {
    "blanks-in-a-directive": lambda: b"#a=x" + b" " * 500_000 + b"y\nFROM a:1\n",
    "undefined-variables": lambda: b"FROM a:1\nWORKDIR /" + b"".join(b"$a%d" % n for n in range(120_000)),
    "variables-of-many-stages": lambda: (
        b"FROM a:1 AS a\nENV " + b" ".join(b"a%d=1" % n for n in range(80_000)) + b"\n" + b"FROM a AS a\n" * 1_900
    ),
    "secrets": lambda: b"FROM a:1\nENV " + b" ".join(b"a%d_token=xxxxx" % n for n in range(50_000)),
    "commands-beyond-ascii": lambda: b"FROM a:1\n" + (b"RUN " + "é;".encode() * 21_000 + b"\n") * 16,
    "redirections-in-each-other": lambda: b"FROM a:1\nRUN " + b"{ " * 5_000 + b"a;" * 8_000 + b"} >b;" * 5_000,
    "one-script-copied-often": lambda: b'FROM a:1\nENTRYPOINT ["/e"]\nCOPY ' + b"e " * 500_000 + b"/\n",
    "ports": lambda: b"FROM a:1\nEXPOSE " + b"x " * 400_000,
    "values-without-a-name": lambda: b"FROM a:1\nENV a=b " + b"x " * 400_000,
    "volumes-and-writes": lambda: (
        b"FROM a:1\nVOLUME " + b" ".join(b"/v%d" % n for n in range(20_000)) + b"\nRUN touch " + b"/w " * 15_000
    ),
}


@pytest.mark.parametrize("name", SLOW)
def test_a_dockerfile_costs_no_more_than_its_size(name: str, children: Children, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_bytes(SLOW[name]())
    (tmp_path / "e").write_bytes(b"#!/bin/sh\nfoo\n" + b"#" * 200_000)
    act = (
        "import json; from swrbatch.lint.check import lint_dockerfile; from swrbatch.lint.files import context_of, read_start\n"
        f"path = {str(tmp_path / 'Dockerfile')!r}\n"
        "told = lint_dockerfile(read_start(path), path, context_of(path))\n"
        "assert sum(len(one.message) + len(one.snippet) for one in told) < 2_000_000"
    )
    ended = children.run([], act=act)
    assert not ended.failure
    assert ended.peak < 250 * MIB


def test_of_many_findings_of_a_rule_the_worst_are_listed_and_the_others_counted() -> None:
    told = [
        one for one in dockerfile("FROM a:1\nEXPOSE " + " ".join(f"x{n}" for n in range(MOST + 7))) if one.rule == "invalid-port"
    ]
    assert len(told) == MOST and "7 more" in told[-1].message and "7处" in told[-1].message_zh
    assert not any("more" in one.message for one in told[:-1])
    assert len({one.fingerprint for one in told}) == MOST
    # A level of its own counts: an ARG that a FROM misses is an error, and stands behind the others.
    mixed = dockerfile("FROM a:1\nWORKDIR /" + "".join(f"$a{n}" for n in range(MOST + 7)) + "\nFROM $missing\n")
    assert "error" in [one.level for one in mixed if one.rule == "undefined-variable"]


def test_more_variables_than_are_read_are_a_fault() -> None:
    words = " ".join(f"A{n}=1" for n in range(MAX_VARIABLES))
    assert not parse_dockerfile(f"FROM a:1\nENV {words}\nLABEL {words}\n".encode()).faults
    (fault,) = parse_dockerfile(f"FROM a:1\nENV {words}\nARG ONE_MORE\n".encode()).faults
    assert (fault.line, fault.message) == (3, f"more than {MAX_VARIABLES} variables")


def test_a_directive_is_read_as_before() -> None:
    assert parse_dockerfile(b"#  syntax =  a/b:1  \t\n# escape = `\nFROM a\n").syntax == "a/b:1"
    assert parse_dockerfile(b"#escape=`\nFROM a\n").escape == "`"
    assert [fault.line for fault in parse_dockerfile(b"# escape= \nFROM a\n").faults] == [1]


@pytest.mark.parametrize("text", ["${😀", "${${${${\U000ec660", "a ${x} 😀 {\U0010ffff", "${中", "cat <<${\U000f0000\n"])
def test_no_character_crashes_the_parser_of_shell(text: str, children: Children) -> None:
    act = f"from swrbatch.lint.shell import commands_of, last_statement\ncommands_of({text!r}); last_statement({text!r})"
    assert not children.run([], act=act).failure


def test_words_beyond_ascii_are_what_was_written() -> None:
    (found,) = commands_of("复制 '文件 😀' é>中文 & ") or ()
    assert (found.name, found.words, found.writes, found.background) == ("复制", ("文件 😀", "é"), ("中文",), True)


def test_where_commands_stand_beyond_ascii() -> None:
    found = commands_of("echo é; echo 中文 && ls")
    assert found is not None
    assert [(one.name, "echo é; echo 中文 && ls"[one.offset :][:4]) for one in found] == [
        ("echo", "echo"),
        ("echo", "echo"),
        ("ls", "ls"),
    ]


# --- what must not be passed over ------------------------------------------------------------------------------------

HIDDEN = {
    "a-zero": b"# \0\nFROM a\nUSER root\n",
    "the-mark-of-a-tar": b"#" + b"x" * 256 + b"ustar\nFROM a\nUSER root\n",
    "a-keyword-in-two-lines": b"FR\\\nOM a\nUSER root\n",
    "a-vertical-tab": b"FROM\va\nUSER root\n",
    "utf-16": "FROM a\nUSER root\n".encode("utf-16"),
    "nothing": b"",
    "a-megabyte-of-comments": b"# xxxxxx\n" * 150_000 + b"FROM a\nUSER root\n",
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_dockerfile_in_a_folder_is_never_passed_over(name: str, tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "Dockerfile").write_text(f"FROM a@sha256:{'a' * 64}\n")
    (tmp_path / "Dockerfile").write_bytes(HIDDEN[name])
    told = json.loads(run("lint", "--no-config", tmp_path, "--format", "json", status=1))
    assert str(tmp_path / "Dockerfile") in told["files"]
    assert {"syntax", "root-user"} & {one["rule"] for one in told["findings"]}


def test_what_only_has_the_name_of_a_dockerfile_in_it_is_still_told_by_content(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM a:1\n")
    (tmp_path / "Dockerfile.md").write_text("How to write one\n")
    (tmp_path / "Dockerfile.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "Dockerfile.two").write_text("FR\\\nOM a:1\n")
    told = json.loads(run("lint", "--no-config", tmp_path, "--format", "json", status=0))
    assert [os.path.basename(path) for path in told["files"]] == ["Dockerfile", "Dockerfile.two"]


POD = "spec: {containers: [{image: swr.x.myhuaweicloud.com/a/b}]}\n"
MANIFESTS = {
    "flow.yaml": "{apiVersion: v1, kind: Pod, " + POD.strip() + "}",
    "one-line.json": '{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"image":"swr.x.myhuaweicloud.com/a/b"}]}}',
    "a-key-of-its-own.yaml": "? kind\n: Pod\n" + POD,
    "a-tag.yaml": "kind: !!str Pod\n" + POD,
    "carriage-returns.yaml": "apiVersion: v1\rkind: Pod\r" + POD.replace("\n", "\r"),
    "behind-a-megabyte.yaml": "# xxxxxxx\n" * 120_000 + "kind: Pod\n" + POD,
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_in_a_folder_is_found_however_it_is_written(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(MANIFESTS[name].encode())
    told = json.loads(run("lint", "--no-config", tmp_path, "--format", "json", status=1))
    assert [one["rule"] for one in told["findings"]] == ["missing-pull-secret"]


def test_a_manifest_in_utf_16_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(("kind: Pod\n" + POD).encode("utf-16"))
    told = json.loads(run("lint", "--no-config", tmp_path, "--format", "json", status=1))
    assert [one["rule"] for one in told["findings"]] == ["manifest-syntax"]


# --- secrets ---------------------------------------------------------------------------------------------------------

SECRETS = f"""FROM a:1
ARG TOKEN={SECRET}
ENV DB_PASSWORD={SECRET} {SECRET}
ADD https://$TOKEN@host/ /x
WORKDIR $TOKEN
RUN cd {SECRET} && mysql -u root --password={SECRET}
CMD mysqld --password={SECRET}
RUN cd https://user:{SECRET}@host && ls
ONBUILD ENV API_KEY={SECRET}
USER root:{SECRET}
LABEL password={SECRET} {SECRET}
EXPOSE {SECRET}
COPY --from={SECRET}/a x /
ENV SECRET {SECRET} foo
RUN cd /x && export MYSQL_PWD='a {SECRET}'
"""


@pytest.mark.parametrize("format", ["text", "json", "sarif", "gitlab", "junit"])
def test_a_dockerfiles_secrets_go_nowhere(format: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(SECRETS)
    told = run("lint", "--no-config", tmp_path, "--format", format, status=1)
    assert "***" in told and SECRET not in told
    # Nor do words behind one that is not quoted.
    (tmp_path / "Dockerfile").write_text(f"FROM a:1\nENV DB_PASSWORD=correct {SECRET}\n")
    assert SECRET not in run("lint", "--no-config", tmp_path, "--format", format, status=1)


def test_two_secrets_are_two_findings_whatever_is_accepted() -> None:
    """What is hidden must not stand for the other in a baseline."""
    (one,) = (each for each in dockerfile("FROM a:1\nENV DB_PASSWORD=abcdefg\n") if each.rule == "secret-in-build")
    (two,) = (each for each in dockerfile("FROM a:1\nENV AWS_SECRET=hijklmn\n") if each.rule == "secret-in-build")
    (same,) = (each for each in dockerfile("FROM a:1\nRUN ls\nENV DB_PASSWORD=xyzxyz\n") if each.rule == "secret-in-build")
    assert one.snippet == two.snippet == "***"
    assert one.fingerprint == same.fingerprint != two.fingerprint


def test_two_secrets_of_an_images_environment_are_two_findings(tmp_path: Path) -> None:
    def marks(*names: str) -> set[str]:
        made = image(APP, Env=[f"{name}={SECRET}" for name in names])
        return {each.fingerprint for each in found_in(tmp_path, made) if each.rule == "secret-in-build"}

    one, other = marks("A_TOKEN"), marks("B_TOKEN")
    assert len(one) == len(other) == 1 and one != other
    assert marks("A_TOKEN", "B_TOKEN") == one | other


def test_no_name_passes_for_another_place() -> None:
    assert fingerprint("rule", "a", "b\0c") != fingerprint("rule", "a\0b", "c") != fingerprint("rule", "a", "b", "c")


def test_a_path_is_told_where_the_working_folder_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert spelled_alike("/a/./b/../c") == "/a/c" and spelled_alike("./a") == "a"


def test_a_secret_that_a_step_sets_is_hidden_in_the_others(tmp_path: Path) -> None:
    made = image([*APP, f"RUN export DB_PASSWORD={SECRET} && ls", f"RUN cd /x && echo {SECRET}"])
    told = [one for one in found_in(tmp_path, made) if one.rule == "run-cd"]
    assert told and all(SECRET not in one.snippet + one.message and "***" in one.snippet for one in told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mysql --password='a b c' x", "mysql --password='***' x"),
        ('curl -H "token: a$b"', 'curl -H "token: ***"'),
        ("export MYSQL_PWD=abc AWS_SECRET_KEY=d/e+f", "export MYSQL_PWD=*** AWS_SECRET_KEY=***"),
        ("git clone https://u:p@ss@host/x", "git clone https://u:***@host/x"),
        ("echo glpat-abcdefghij0123456789", "echo ***"),
        ("X=1 PASSWORD=$PASS PASSWORD_FILE=/run/x", "X=1 PASSWORD=$PASS PASSWORD_FILE=/run/x"),
    ],
)
def test_commands_without_their_secrets(text: str, told: str) -> None:
    assert redacted(text) == told


def test_what_would_have_to_be_searched_for_too_many_secrets_is_not_shown() -> None:
    assert redacted("a", [f"value{n}" for n in range(200)]) == "a"
    assert redacted("a", [f"value{n}" for n in range(201)]) == "***"


def test_the_word_behind_an_option_for_a_password_is_hidden() -> None:
    assert redacted_words(["a", "--password", "b", "--token=c", "-p", "d"]) == (
        "a",
        "--password",
        "***",
        "--token=***",
        "-p",
        "d",
    )


@pytest.mark.parametrize("options", [["--layers"], ["--format", "json"], ["--compat", "dive", "--format", "json"]])
def test_inspect_shows_no_secrets(options: list[str], tmp_path: Path) -> None:
    made = image(
        [
            *BASE,
            (f"RUN |1 TOKEN={SECRET}1 /bin/sh -c mysql --password={SECRET} -p{SECRET}1", {"a": b""}),
            f"ENV DB_PASSWORD={SECRET}2",
            (f"RUN echo {SECRET}2", {"b": X}),
            f"HEALTHCHECK CMD curl -u a:{SECRET}2 --password={SECRET}",
            f"LABEL token={SECRET}",
            f"USER root:{SECRET}2",
            f"WORKDIR /{SECRET}2",
            f'ENTRYPOINT ["/b", "--password", "{SECRET}"]',
            f'CMD ["x", "{SECRET}1"]',
        ]
    )
    # What only the whole config and history show.
    more = [
        f'SHELL ["/bin/sh", "--token", "{SECRET}"]',
        f"ONBUILD RUN x --password {SECRET}",
        f"VOLUME /{SECRET}2",
        f"EXPOSE {SECRET}2",
        f"STOPSIGNAL {SECRET}2",
    ]
    steps = [{"created_by": step, "comment": f"token={SECRET}", "empty_layer": True} for step in more]
    run_settings = {
        **made.run,
        "Shell": ["/bin/sh", "--token", SECRET],
        "OnBuild": [f"RUN x --password {SECRET}"],
        "Volumes": {f"/{SECRET}2": {}},
        "ExposedPorts": {f"{SECRET}2": {}},
        "StopSignal": f"{SECRET}2",
    }
    made = replace(with_history(made, *steps), run=run_settings)
    made = replace(made, overrides={**made.overrides, "author": f"me:{SECRET}2"})
    told = run("inspect", write(tmp_path, made), *options, status=0)
    assert "***" in told and SECRET not in told


@pytest.mark.parametrize("format", ["text", "json"])
def test_explain_does_not_repeat_a_secret(format: str) -> None:
    done = CliRunner().invoke(
        app, ["explain", f"zzz docker login -u me -p {SECRET} --password {SECRET} host", "--format", format]
    )
    assert SECRET not in done.output and "***" in done.output


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bad-\udcff", "escape-\x1b[31m\x07", "c1-\x9b\u202e", "line\nend", "noncharacter-\ufffe"])
@pytest.mark.parametrize("format", ["text", "json", "sarif", "gitlab", "junit"])
def test_a_files_name_breaks_no_output(name: str, format: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM a\nRUN cd /x && ls\n")
    argv = [sys.executable, "-m", "swrbatch", "lint", "--no-config", str(folder), "--format", format]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(argv, capture_output=True, check=False, env=env)
    assert done.returncode == 1 and not done.stderr
    told = done.stdout.decode()  # it is UTF-8, whatever the name is
    assert all(char.isprintable() or char == "\n" for char in told)
    if format == "junit":
        assert ET.fromstring(told).findall("testsuite")
    elif format != "text":
        json.loads(told)
    if format == "sarif":
        (uri,) = {
            each["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for each in json.loads(told)["runs"][0]["results"]
        }
        assert uri.isascii() and uri.endswith("/Dockerfile")


def test_an_unknown_instruction_reaches_no_terminal() -> None:
    (one,) = (each for each in dockerfile("FROM a:1\nX\x1b[31m\x9b y\n") if each.rule == "syntax")
    assert one.message.isprintable() and one.message_zh.isprintable()


@pytest.mark.parametrize(
    "command", [["lint", "--no-config"], ["inspect", "--files"], ["inspect", "--compat", "dive"], ["dedupe"]]
)
def test_what_an_image_names_breaks_no_output(command: list[str], tmp_path: Path) -> None:
    made = image(
        [*BASE, (f"RUN cd /{EVIL} && ls", {f"x{EVIL.encode('utf-8', 'replace').decode()}": b"xx"}), f"USER root:{EVIL}"],
        Cmd=[EVIL], Volumes={EVIL: {}}, ExposedPorts={EVIL: {}}, Env=[f"{EVIL}_TOKEN={EVIL}"], Labels={EVIL: EVIL},
        Healthcheck={"Test": ["CMD", EVIL]}, WorkingDir=EVIL,
    )  # fmt: skip
    for format in ("text", "json"):
        done = CliRunner().invoke(app, [*command, write(tmp_path, made), "--format", format])
        assert done.exit_code in (0, 1) and (done.exception is None or isinstance(done.exception, SystemExit))
        assert all(char.isprintable() or char == "\n" for char in done.output)


# --- images ----------------------------------------------------------------------------------------------------------


def with_history(made: Image, *steps: dict[str, Any]) -> Image:
    return replace(made, overrides={"history": [*made.overrides["history"], *steps]})


def deep_folders() -> Image:
    tar = TarBuilder()
    for number in range(285):  # nearly as many folders as are kept
        tar.member(f"t/{number:03d}/" + "a/" * 2030 + "f", b"x")
    return Image(layers=(Layer(tar.end().getvalue()), layer({".wh.t": b""}), layer({"t/x": b""})))


def heavy_links() -> Image:
    turns, long = "a/../" * 800, "a/../" * 150_000
    found: dict[str, Any] = {"a/": b"", **{f"l{n}": f"->/{turns}l{n + 1}" for n in range(38)}}
    found |= {f"z{n}": f"->/{long}z{n + 1}" for n in range(20)}
    path = ":".join(["/l0", "/z0", *(f"/p{n}" for n in range(200_000))])
    return image([*APP, ("COPY a /", found), 'ENTRYPOINT ["foo"]'], Env=[f"PATH={path}"])


APP_IMAGE = image(APP)
EMPTY = {"empty_layer": True}
COSTLY: dict[str, Callable[[], tuple[Image, ...]]] = {
    "long-histories-alike": lambda: (
        with_history(APP_IMAGE, *[EMPTY] * 60_000),
        replace(with_history(APP_IMAGE, *[EMPTY] * 60_001), tags=("x.com/y/z:2",)),
    ),
    "many-variables": lambda: (
        with_history(APP_IMAGE, *({"created_by": f"ENV A{n}_TOKEN=abcdef{n}", **EMPTY} for n in range(30_000))),
    ),
    "many-secrets": lambda: (
        with_history(
            image(APP, Env=[f"A{n}_TOKEN=abcdef{n}" for n in range(40_000)]),
            *[{"created_by": "RUN /bin/sh -c cd /x && apt-get upgrade # buildkit", **EMPTY}] * 10_000,
        ),
    ),
    "many-volumes": lambda: (
        image(
            [
                *BASE,
                *("VOLUME " + " ".join(f"/v{step}_{n}" for n in range(6_000)) for step in range(10)),
                ("COPY a /a", {f"d/{n}": b"x" for n in range(20_000)}),
            ]
        ),
    ),
    "links-and-a-long-path": lambda: (heavy_links(),),
    "blanks-in-env-files": lambda: (
        image([*BASE, ("COPY . /app", {f"app/{n}/.env": b"A_TOKEN=x" + b" " * 65_000 + b"y\n" for n in range(60)})]),
    ),
    "many-build-files": lambda: (
        image([*BASE, ("COPY . /app", {f"app/{n}/{name}": b"x" for n in range(15_000) for name in ("Dockerfile", ".git/HEAD")})]),
    ),
    "deep-folders": lambda: (deep_folders(),),
}


@pytest.mark.parametrize("name", COSTLY)
def test_an_image_costs_no_more_than_its_size(name: str, children: Children, tmp_path: Path) -> None:
    path = write(tmp_path, *COSTLY[name]())
    act = (
        "import datetime; from swrbatch.digest import Cancel; from swrbatch.lint.catalog import RULES\n"
        "from swrbatch.lint.batch import OpenArchives, lint_archives\n"
        "with OpenArchives(Cancel()) as archives:\n"
        f"    told = lint_archives([{path!r}], RULES, datetime.date(2026, 11, 24), archives, Cancel())\n"
        "assert told.names and not [each for each in told.issues if each.is_error], told.issues\n"
        "assert sum(len(one.message) + len(one.snippet) for one in told.findings) < 4_000_000"
    )
    ended = children.run([], act=act)
    assert not ended.failure
    assert ended.peak < 300 * MIB


def test_deep_folders_in_inspect(children: Children, tmp_path: Path) -> None:
    path = write(tmp_path, deep_folders())
    act = (
        "from swrbatch.digest import Cancel; from swrbatch.inspect.images import Wanted, inspect_archive\n"
        f"(found,) = inspect_archive({path!r}, Wanted(), Cancel()).images\n"
        "assert (found.layers[1].changes.deleted, found.wasted_bytes) == (285, 285)"
    )
    ended = children.run([], act=act)
    assert not ended.failure
    assert ended.peak < 300 * MIB


def test_a_long_history_in_inspect(children: Children, tmp_path: Path) -> None:
    """Steps that made no layer, and such as fit no layers: of both the first are kept, and told is how many there are."""
    path = write(
        tmp_path,
        with_history(APP_IMAGE, *[EMPTY] * 60_000),
        replace(with_history(APP_IMAGE, *[{"created_by": "x"}] * 60_000), tags=("x.com/y/z:2",)),
    )
    act = (
        "from swrbatch.cli.inspect_text import to_json, to_text\n"
        "from swrbatch.digest import Cancel; from swrbatch.inspect.images import MAX_STEPS, Wanted, inspect_archive\n"
        f"found = inspect_archive({path!r}, Wanted(), Cancel())\n"
        "for image, told in zip(found.images, to_json(found)['images']):\n"
        "    assert len(image.history) <= MAX_STEPS + len(image.layers) < 1_100\n"
        "    assert told['history_left_out'] == image.history_left_out > 58_900\n"
        "assert [layer['step'] is None for layer in told['layers']] == [True] * len(told['layers'])\n"
        "assert None not in [layer['step'] for layer in to_json(found)['images'][0]['layers']]\n"
        "assert to_text(found, layers=True).count(' more steps') == 2"
    )
    ended = children.run([], act=act)
    assert not ended.failure
    assert ended.peak < 300 * MIB


def test_many_layers_in_inspect_cost_no_more_than_their_number(children: Children, tmp_path: Path) -> None:
    one = layer({"a": b"x"})
    made = Image(layers=(one,) * 5_000, overrides={"history": [{"created_by": f"RUN {n}"} for n in range(5_000)]})
    path = write(tmp_path, made)
    act = (
        "from swrbatch.cli.inspect_text import to_json, to_text\n"
        "from swrbatch.digest import Cancel; from swrbatch.inspect.images import Wanted, inspect_archive\n"
        f"found = inspect_archive({path!r}, Wanted(), Cancel())\n"
        "(told,) = to_json(found)['images']\n"
        "assert [layer['step'] for layer in told['layers']] == [f'RUN {n}' for n in range(5_000)]\n"
        "assert to_text(found, layers=True).count(' step    RUN') == 5_000"
    )
    ended = children.run([], act=act)
    assert not ended.failure
    assert ended.peak < 300 * MIB


def test_settings_that_are_many_are_not_all_in_the_text(tmp_path: Path) -> None:
    path = write(tmp_path, image(APP, Env=[f"A{n}=1" for n in range(700)], Labels={f"l{n}": "1" for n in range(600)}))
    told = run("inspect", path, status=0)
    assert told.count("  environment  A") == 500 and told.count("  label        l") == 500
    assert "… 200 more" in told and "… 100 more" in told
    (one,) = json.loads(run("inspect", path, "--format", "json", status=0))["images"]
    assert (len(one["config"]["env"]), len(one["config"]["labels"])) == (700, 600)


def test_a_config_that_many_images_share_counts_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swrbatch.inspect.images.MAX_TOLD", 5 * len(APP_IMAGE.config) // 2)
    (tmp_path / "a.tar").write_bytes(tar_of(files(*[APP_IMAGE] * 4)))
    told = json.loads(run("inspect", tmp_path / "a.tar", "--format", "json", status=1))
    assert len(told["images"]) == 2
    assert {(each["code"], each["image_index"]) for each in told["issues"] if each["severity"] == "error"} == {
        ("metadata-too-large", 2),
        ("metadata-too-large", 3),
    }


def test_the_names_of_all_layers_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swrbatch.inspect.tree.MAX_NAMES", 1_000)
    made = image([*BASE, *(("COPY a /", {f"{n}" + "x" * 200: b"x"}) for n in range(6))])
    (found,) = (each for each in lint([write(tmp_path, made)]).issues if each.is_error)
    assert found.code == "metadata-too-large" and "layer 5" in found.place


def test_keys_of_tests_do_not_hide_a_real_one(tmp_path: Path) -> None:
    many = {f"app/tests/{number}.pem": KEY for number in range(1_200)}
    told = found_in(tmp_path, image([*BASE, ("COPY . /", {**many, "root/.ssh/id_rsa": KEY})]))
    assert [one.place for one in told if one.rule == "secret-file" and one.level == "error"] == ["root/.ssh/id_rsa"]
    assert any("more of this rule" in one.message for one in told)


def test_other_scripts_do_not_push_out_what_is_started(tmp_path: Path) -> None:
    many = {f"a/{number}.sh": b"#!/bin/sh\n" + b"#" * 65_000 for number in range(140)}
    own = {**many, "etc/os-release": OLD, "run.sh": (b"#!/bin/sh\nnpm start\n", 0o755)}
    told = found_in(tmp_path, image([*BASE, ("COPY . /", own), 'ENTRYPOINT ["/run.sh"]']))
    assert {"end-of-life-base", "entrypoint-exec"} <= {one.rule for one in told}


@pytest.mark.parametrize(
    "own",
    [
        {"etc/x/../os-release": OLD, "a/../run.sh": (b"#!/bin/sh\nnpm start\n", 0o755)},
        {"./etc//os-release": OLD, ".//run.sh": (b"#!/bin/sh\nnpm start\n", 0o755)},
    ],
)
def test_a_files_text_is_found_however_its_name_is_written(own: Any, tmp_path: Path) -> None:
    told = found_in(tmp_path, image([*BASE, ("COPY . /", own), 'ENTRYPOINT ["/run.sh"]']))
    assert {"end-of-life-base", "entrypoint-exec"} <= {one.rule for one in told}


def test_the_text_of_a_hard_link_is_that_of_its_target(tmp_path: Path) -> None:
    below = {**ROOT_FILES, "opt/run.sh": (b"#!/bin/sh\nnpm start\n", 0o755)}
    told = found_in(
        tmp_path, image([("ADD x /", below), 'CMD ["bash"]', ("COPY x /", {"run.sh": "=opt/run.sh"}), 'ENTRYPOINT ["/run.sh"]'])
    )
    assert "entrypoint-exec" in {one.rule for one in told}


def test_of_a_path_that_stands_twice_in_a_layer_the_last_text_counts(tmp_path: Path) -> None:
    tar = TarBuilder()
    tar.member("run.sh", b"#!/bin/sh\nnpm start\n", mode=0o755).member("run.sh", b"\x7fELF" + bytes(60), mode=0o755)
    made = image([*BASE, ("COPY . /", {"x": X}), 'ENTRYPOINT ["/run.sh"]'])
    told = found_in(tmp_path, replace(made, layers=(*made.layers[:-1], Layer(tar.end().getvalue()))))
    assert "entrypoint-exec" not in {one.rule for one in told}


def test_a_base_is_the_longest_beginning_of_the_history() -> None:
    def head(number: int, *texts: str) -> Any:
        made = with_history(APP_IMAGE, *({"created_by": text, **EMPTY} for text in texts))
        from swrbatch.image import ImageConfig

        raw = made.config
        return image_head("a.tar", number, (f"n:{number}",), ImageConfig.parse(raw, "config"), raw, stored=False)

    heads = [
        head(0),
        head(1, "ENV A=1"),
        head(2, "ENV A=1", "ENV B=2"),
        head(3, "ENV AA=1"),
        head(4, "ENV A=1", "ENV B=2", "ENV C=3"),
    ]
    assert [base.head and base.head.index for base in find_bases(heads)] == [None, 0, 1, 0, 2]


@pytest.mark.parametrize("command", ["lint", "inspect"])
@pytest.mark.parametrize("name", ["demo/\udcff:1", "demo/\x1b[31m:1", "demo/app:1\n", "demo/" + "a" * 100_000, "[!", ""])
def test_a_name_that_no_image_has(command: str, name: str, tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["init", "--store", str(tmp_path / "store")]).exit_code == 0
    done = CliRunner().invoke(app, [command, "--store", str(tmp_path / "store"), "--", name])
    assert done.exit_code in (1, 2) and isinstance(done.exception, SystemExit)
    assert all(char.isprintable() or char == "\n" for char in done.output)


# --- the end of a run ------------------------------------------------------------------------------------------------


def interrupted(argv: list[str], cwd: Path) -> tuple[int, bytes]:
    """The exit code and stderr of a command that is interrupted once it works, and killed when that does not end it."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "swrbatch", *argv], cwd=cwd, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    status = Path(f"/proc/{process.pid}/status")
    caught = 0
    while not caught & 1 << signal.SIGINT - 1 and process.poll() is None:  # its handler is there
        caught = int((re.search(r"SigCgt:\s*(\w+)", status.read_text()) or ["", "0"])[1], 16)
        handlers = caught >> signal.SIGTERM - 1 & 1
        caught = caught if handlers else 0
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    try:
        _, told = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail("the interruption does not end it")
    return process.returncode, told


def test_many_dockerfiles_can_be_interrupted(tmp_path: Path) -> None:
    for number in range(3_000):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "Dockerfile").write_bytes(b"FROM a:1\nRUN " + b"apt-get upgrade;" * 3_000)
    assert interrupted(["lint", "--no-config", "."], tmp_path) == (130, b"swrbatch: interrupted\n")


def test_a_large_manifest_can_be_interrupted(tmp_path: Path) -> None:
    text = "kind: Pod\nspec:\n  containers: [" + "{image: a}, " * 100_000 + "]\n"
    (tmp_path / "a.yaml").write_text(text)
    assert interrupted(["lint", "--no-config", "a.yaml"], tmp_path) == (130, b"swrbatch: interrupted\n")


def test_a_layer_of_a_few_kilobytes_that_stands_for_gigabytes_can_be_interrupted(tmp_path: Path) -> None:
    size = 64 << 30
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    zeros = bytes(16 << 20)
    frame = packer.compress(header(name="big", size=size)) + packer.compress(zeros) + packer.flush()
    block = zstandard.ZstdCompressor(level=1).compress(zeros)
    made = Image(layers=(layer({"a": b"x"}),))
    parts = files(made)
    whole = frame + block * (size // len(zeros) // 4)
    (tmp_path / "a.tar").write_bytes(
        tar_of({name: whole if data == made.layers[0].tar else data for name, data in parts.items()})
    )
    for command in (["lint", "--no-config"], ["inspect"], ["dedupe", "--files"]):
        assert interrupted([*command, "a.tar"], tmp_path) == (130, b"swrbatch: interrupted\n")


# --- workloads -------------------------------------------------------------------------------------------------------


def test_many_documents_cost_no_more_than_their_size(children: Children) -> None:
    act = (
        "from swrbatch.lint.workload import parse_workloads, with_surroundings; from swrbatch.lint.check import lint_workloads\n"
        "image = 'swr.x.myhuaweicloud.com/a/b'\n"
        "text = '---\\n' * 200_000 + f'---\\nkind: Pod\\nspec: {{containers: [{{image: {image}}}]}}\\n' * 8_000\n"
        "read = with_surroundings([parse_workloads(text.encode(), 'a.yaml')], ('swr.*',))\n"
        "assert len(read[0].pods) == 8_000 and len(lint_workloads(read)) == 500"
    )
    ended = children.run([], act=act)
    assert not ended.failure
    assert ended.peak < 300 * MIB


def test_lines_are_counted_right_in_any_order_of_anchors() -> None:
    text = (
        "# é\nkind: List\nitems:\n- &p\n  kind: Pod\n  spec:\n    containers:\n    - image: swr.x.myhuaweicloud.com/a/b\n- *p\n"
    )
    read = with_surroundings([parse_workloads(text.encode(), "a.yaml")], ("swr.*",))
    assert [one.line for one in lint_workloads(read)] == [8, 8]


# --- baselines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"findings": 1}', b'{"findings": [1]}', b'{"findings": [{}]}', b"NaN",
        b'{"findings": [{"fingerprint": ' + b"9" * 5_000 + b"}]}",
    ],
)  # fmt: skip
def test_a_baseline_that_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM a:1\n")
    (tmp_path / "known.json").write_bytes(content)
    done = CliRunner().invoke(
        app, ["lint", "--no-config", str(tmp_path / "Dockerfile"), "--baseline", str(tmp_path / "known.json")]
    )
    assert done.exit_code == 2 and "no result of swrbatch lint" in done.output


def test_a_baseline_that_would_fill_the_memory(children: Children, tmp_path: Path) -> None:
    (tmp_path / "many").write_bytes(b'{"findings": [' + b"{}," * 20_000_000 + b"{}]}")
    act = (
        "from swrbatch.lint.outputs import read_baseline; from swrbatch.errors import UsageError\n"
        f"try: read_baseline({str(tmp_path / 'many')!r})\n"
        "except UsageError: pass\n"
        "else: raise AssertionError"
    )
    ended = children.run([], act=act)
    assert not ended.failure
    assert ended.peak < 300 * MIB


def test_a_report_of_an_import_shows_no_secrets(tmp_path: Path) -> None:
    made = image([*BASE, (f"RUN |1 TOKEN={SECRET}1 /bin/sh -c mysql --password={SECRET} -p{SECRET}1", {"a": b""})])
    told = run("check", write(tmp_path, made), "--lint", "--profile", "none", "--format", "json", status=0)
    (step,) = (row["created_by"] for row in json.loads(told)["layers"] if "mysql" in row["created_by"])
    assert step == "RUN |1 TOKEN=*** /bin/sh -c mysql --password=*** -p*** # buildkit"
