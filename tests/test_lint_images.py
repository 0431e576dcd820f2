"""Rules on images: the corpus in both forms of history, secrets that go nowhere, bases, layers read once, hostile input."""

from __future__ import annotations

import datetime
import gzip
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sarif import loader
from sarif_pydantic import Sarif
from typer.testing import CliRunner

from conftest import ROOT
from hostile import HOSTILE, Kind
from imagetar import Image, files, tar_of
from lint_image_finds import FOUND
from lint_image_misses import MISSED
from lint_images import APP, BASE, KEY, Case, Form, X, image, layer
from swrbatch import import_archives
from swrbatch.cli import app
from swrbatch.digest import Cancel
from swrbatch.errors import Lang, plain
from swrbatch.lint import batch as lint_batch
from swrbatch.lint import layer_contents
from swrbatch.lint.batch import LintedImages, OpenArchives, lint_archives, lint_stored
from swrbatch.lint.catalog import RULES
from swrbatch.lint.check import lint_dockerfile
from swrbatch.lint.rule import Finding, Rule
from swrbatch.redaction import redacted, redacted_words
from swrbatch.store import Store
from test_inspect import HOSTILE as HOSTILE_LAYERS

TODAY = datetime.date(2026, 11, 24)
FORMS: tuple[Form, ...] = ("classic", "buildkit")


def write(folder: Path, *images: Image, name: str = "a.tar") -> str:
    path = folder / name
    path.write_bytes(tar_of(files(*images)))
    return str(path)


def lint(paths: Sequence[str]) -> LintedImages:
    with OpenArchives(Cancel()) as archives:
        return lint_archives(paths, RULES, TODAY, archives, Cancel())


def found_in(folder: Path, made: Image) -> tuple[Finding, ...]:
    done = lint([write(folder, made)])
    assert not [issue for issue in done.issues if issue.is_error]
    return done.findings


def built(case: Case, form: Form) -> tuple[Image, ...]:
    """The image of a case, and its base if that is another image."""
    more: dict[str, Any] = dict(case.more)
    history = {"history": more.pop("overrides_history")} if "overrides_history" in more else {}
    made = image(case.steps, case.form or form, **more)
    base = (image(case.steps[: case.base], case.form or form, ("base.example.com/team/base:1",)),) if case.base else ()
    return (replace(made, overrides={**made.overrides, **history}), *base)


def rules_of(folder: Path, case: Case, form: Form) -> set[str]:
    """The rules that find something in the image of a case."""
    made = built(case, form)
    done = lint([write(folder, *made)])
    assert not [issue for issue in done.issues if issue.is_error] and len(done.names) == len(made)
    return {one.rule for one in done.findings if one.image == done.names[0][1]}


def cases(table: dict[str, list[Case]]) -> list[Any]:
    forms = [
        (rule, case, form) for rule, listed in table.items() for case in listed for form in FORMS if case.form in (None, form)
    ]
    return [pytest.param(*each, id=f"{each[0]}-{each[2]}-{number}") for number, each in enumerate(forms)]


@pytest.mark.parametrize(("rule", "case", "form"), cases(FOUND))
def test_found(rule: str, case: Case, form: Form, tmp_path: Path) -> None:
    assert rule in rules_of(tmp_path, case, form)


@pytest.mark.parametrize(("rule", "case", "form"), cases(MISSED))
def test_near_miss(rule: str, case: Case, form: Form, tmp_path: Path) -> None:
    assert rule not in rules_of(tmp_path, case, form)


def test_every_form_on_images_has_a_corpus() -> None:
    assert set(FOUND) == set(MISSED) == {one.id for one in RULES if one.image is not None}
    assert all(len({repr(case) for case in cases}) >= 6 for table in (FOUND, MISSED) for cases in table.values())


# Secrets

VALUE = "hunter2-hunter2-hunter2"


@pytest.mark.parametrize("form", FORMS)
def test_the_value_of_a_secret_is_in_no_output(form: Form, tmp_path: Path) -> None:
    env = f"API_TOKEN={VALUE}1\nAWS=AKIAABCDEFGHIJKLMNOP\n".encode()
    steps = [
        *APP,
        f"ENV DB_PASSWORD={VALUE}2",
        f"ARG SECRET_KEY={VALUE}3",
        f"RUN |1 NPM_TOKEN={VALUE}4 /bin/sh -c cd /app && curl -u me:{VALUE}4 https://x && apt-get update --password={VALUE}5",
        f'RUN apt-get upgrade -o "https://me:{VALUE}6@example.com/" && curl -H "Authorization: Bearer {VALUE}7"',
        ("COPY .env /app/.env", {"app/.env": env, "k.pem": KEY}),
        ("RUN rm", {"app/.wh..env": b""}),
        f"CMD run --token {VALUE}8 $DB_PASSWORD {VALUE}2",
    ]
    path = write(tmp_path, image(steps, form))
    ids = {one.rule for one in lint([path]).findings}
    assert {"secret-in-build", "secret-file", "shell-form", "run-cd", "package-upgrade"} <= ids
    for kind in ("text", "json", "sarif", "gitlab", "junit"):
        output = CliRunner().invoke(app, ["lint", path, "--format", kind, "--date", "2026-11-24"]).output
        assert VALUE not in output and "AKIAABCDEFG" not in output and "b3BlbnNz" not in output, kind
        assert "***" in output and "NPM_TOKEN" in output and "app/.env" in output


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("echo $NPM_TOKEN > /dev/null", "echo $NPM_TOKEN > /dev/null"), ("x token | cat", "x token | cat"), ("PASSWORD && x", "PASSWORD && x"),
        ("curl --password hunter2", "curl --password ***"), ("password='&x'", "password='***'"), ("curl --password '>x' y", "curl --password '***' y"),
        ("--token=abc", "--token=***"), ('CMD ["--token" "abc"]', 'CMD ["--token" "***"]'), ('CMD ["--token", "abc"]', 'CMD ["--token", "***"]'),
        ("x value1 y", "x *** y"),
    ],
)  # fmt: skip
def test_commands_without_secrets(text: str, shown: str) -> None:
    assert redacted(text, ("value1",)) == shown


def test_words_of_a_command_without_secrets() -> None:
    words = ["run", "--api-key", "abc", "--token=def", "-v", "value1", "--password"]
    assert redacted_words(words, ("value1",)) == ("run", "--api-key", "***", "--token=***", "-v", "***", "--password")


def test_the_fingerprint_is_of_the_place_and_not_of_the_value(tmp_path: Path) -> None:
    def prints(value: str) -> set[tuple[str, str]]:
        found = found_in(tmp_path, image((*APP, f"ENV DB_PASSWORD={value}")))
        return {(one.rule, one.fingerprint) for one in found if one.rule == "secret-in-build"}

    assert prints("hunter22") == prints("hunter33")


def test_levels_of_secrets(tmp_path: Path) -> None:
    encrypted = KEY.replace(b"OPENSSH", b"ENCRYPTED")
    files_ = {"k": KEY, "locked": encrypted, "usr/lib/python3/test/key.pem": KEY, "etc/ssl/private/ssl-cert-snakeoil.key": KEY}
    found = found_in(tmp_path, image((*APP, ("COPY k /k", files_))))
    levels = {one.place: one.level.value for one in found if one.rule == "secret-file"}
    assert levels == {
        "k": "error", "locked": "warning", "usr/lib/python3/test/key.pem": "info", "etc/ssl/private/ssl-cert-snakeoil.key": "info",
    }  # fmt: skip


def test_deleted_and_present_are_told_apart(tmp_path: Path) -> None:
    steps = (*APP, ("COPY k /k", {"a": KEY, "b": KEY}), ("RUN rm /a", {".wh.a": b""}))
    found = {one.place: one for one in found_in(tmp_path, image(steps)) if one.rule == "secret-file"}
    assert "deleted" in found["a"].message and "final tree" in found["b"].message
    assert found["a"].layer == image(steps).layers[2].diff_id and found["a"].snippet == "COPY k /k"


# Exact bytes


def test_bytes_are_exact(tmp_path: Path) -> None:
    steps = (
        *APP,
        (
            "RUN apt-get update",
            {"var/lib/apt/lists/a": bytes(700_001), "var/lib/apt/lists/b": bytes(300_002), "x": bytes(50_000)},
        ),
        ("RUN rm", {"var/lib/apt/lists/.wh.a": b"", "x": bytes(70_000), "y": bytes(1_000_001)}),
        ("RUN rm", {".wh.x": b"", ".wh.y": b""}),
    )
    found = {(one.rule, one.layer): one for one in found_in(tmp_path, image(steps))}
    ids = [layer.diff_id for layer in image(steps).layers]
    lists = found["package-leftovers", ids[2]]
    assert (lists.bytes, lists.level) == (1_000_003, "warning") and "1 of them deleted" in lists.message
    rewritten, removed = found["wasted-files", ids[3]], found["wasted-files", ids[4]]
    assert (rewritten.bytes, rewritten.level, rewritten.place) == (50_000, "info", "x")
    assert (removed.bytes, removed.level, removed.place) == (1_070_001, "warning", "y")


# Bases


def test_a_known_base_has_its_own_findings_and_they_are_not_told_again(tmp_path: Path) -> None:
    own = (
        *BASE[:1],
        "LABEL a=b",
        "ENV TOKEN=hunter22",
        ("RUN x", {"var/lib/apt/lists/a": bytes(2_000_000), "k": KEY}),
        'CMD ["bash"]',
    )
    base, child = image(own, tags=("h.example.com/o/base:1",)), image((*own, ("COPY a /a", {"a": X})))
    alone = {one.rule: one for one in lint([write(tmp_path, child, name="c.tar")]).findings}
    assert alone["package-leftovers"].level == "info" and "as its history suggests" in alone["package-leftovers"].message
    assert "推测" in alone["package-leftovers"].message_zh
    both = lint([write(tmp_path, child, name="c.tar"), write(tmp_path, base, name="b.tar")]).findings
    inherited = {"package-leftovers", "secret-file", "secret-in-build"}
    assert not inherited & {one.rule for one in both if one.path.endswith("c.tar")}
    of_base = {one.rule: one for one in both if one.path.endswith("b.tar")}
    assert inherited <= set(of_base) and "suggests" not in of_base["package-leftovers"].message
    assert "missing-label" in {one.rule for one in both if one.path.endswith("c.tar")}  # the base's label only


def test_an_archive_is_not_judged_by_what_another_claims_to_hold(tmp_path: Path) -> None:
    good = image((*APP, ("COPY a /a", {"a": b"x"})), tags=("h.example.com/o/good:1",))
    bad = replace(good, tags=("h.example.com/o/bad:1",), layers=(*good.layers[:2], layer({"k": KEY})), raw_config=good.config)
    parts = files(replace(good, tags=bad.tags)) | {f"{good.layers[2].diff_id[7:]}.tar": bad.layers[2].tar}
    for names in (("bad.tar", "good.tar"), ("good.tar", "bad.tar")):
        (tmp_path / "bad.tar").write_bytes(tar_of(parts))
        write(tmp_path, good, name="good.tar")
        found = lint([str(tmp_path / name) for name in names]).findings
        assert {one.path.rpartition("/")[2] for one in found if one.rule == "secret-file"} <= {"bad.tar"}
    assert {one.rule for one in lint([str(tmp_path / "bad.tar")]).findings} >= {"secret-file"}


@pytest.mark.parametrize("kind", ["archives", "one archive", "store"])
def test_each_distinct_layer_is_read_once(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bases = [image((*BASE, (f"RUN {n}", {f"base{n}": b"x"})), tags=(f"h.example.com/o/base{n}:1",)) for n in range(2)]
    made = [
        image((*BASE, (f"RUN {n % 2}", {f"base{n % 2}": b"x"}), (f"COPY {n} /", {f"own{n}": b"x"}), ("RUN z", {"same": b"x"})),
              tags=(f"h.example.com/o/app{n}:1",))
        for n in range(20)
    ]  # fmt: skip
    images = [*made, *bases]
    read: list[frozenset[str]] = []
    true = layer_contents.read_layer

    def counted(walk: Any, programs: frozenset[str]) -> layer_contents.LayerContents:
        contents = true(walk, programs)
        read.append(frozenset(member.name for member in contents.members))
        return contents

    monkeypatch.setattr(lint_batch, "read_layer", counted)
    if kind == "store":
        import_archives([write(tmp_path, *images)], tmp_path / "store", registry="h.example.com", user="root")
        with Store(tmp_path / "store") as store:
            done = lint_stored(store, ["*"], RULES, TODAY, store.actor("root", None), Cancel(), "run-1")
    elif kind == "archives":
        done = lint([write(tmp_path, one, name=f"{at}.tar") for at, one in enumerate(images)])
    else:
        done = lint([write(tmp_path, *images)])
    assert not done.issues and len(done.names) == 22
    distinct = {each.diff_id for one in images for each in one.layers}
    assert len(read) == len(set(read)) == len(distinct)


# What the real archives yield: looked at, and true


SERVICE = [("missing-healthcheck", "info"), ("missing-user", "info"), ("package-leftovers", "info"), ("wasted-files", "info")]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("docker20-single.tar", SERVICE), ("docker20-single.tar.gz", SERVICE), ("docker26-single.tar.zst", SERVICE), ("docker26-containerd-single.tar", SERVICE),
        ("skopeo118.tar", SERVICE), ("docker20-misnamed.tar.gz", SERVICE), ("docker20-short-name.tar", SERVICE),
        ("docker20-by-id.tar", [("floating-tag", "warning"), *SERVICE]), ("skopeo19-no-tag.tar", [("floating-tag", "warning"), *SERVICE]),
        ("docker20-two-images.tar", [*SERVICE, ("missing-label", "info")]), ("podman4-multi.tar", [*SERVICE, ("missing-label", "info")]),
        ("docker26-two-images.tar", [*SERVICE, ("missing-label", "info")]), ("docker26-containerd-two-images.tar", [*SERVICE, ("missing-label", "info")]),
    ],
)  # fmt: skip
def test_real_archives(name: str, expected: list[tuple[str, str]]) -> None:
    done = lint([str(ROOT / "fixtures/archives" / name)])
    assert [(one.rule, one.level.value) for one in done.findings] == expected
    bytes_ = {one.rule: one.bytes for one in done.findings if one.bytes is not None}
    assert bytes_ == {"package-leftovers": 22, "wasted-files": 27019}


@pytest.mark.parametrize(
    ("release", "program"), [(b'ID=alpine\nVERSION_ID=3.22.1\n', "/bin/sh"), (None, "sh")], ids=["alpine", "busybox"]
)  # fmt: skip
@pytest.mark.parametrize("form", FORMS)
def test_a_small_base_image_is_clean(release: bytes | None, program: str, form: Form, tmp_path: Path) -> None:
    files_: dict[str, Any] = {"bin/busybox": X, "bin/sh": "->/bin/busybox", "etc/passwd": b"root:x:0:0::/:/bin/sh\n", "tmp/": b""}
    files_ |= {} if release is None else {"etc/os-release": release}
    made = image((("ADD rootfs.tar.gz /", files_), f'CMD ["{program}"]'), form)
    assert found_in(tmp_path, made) == ()


@pytest.mark.parametrize("form", FORMS)
def test_the_guides_final_dockerfile_as_an_image_is_clean_of_errors_and_warnings(form: Form, tmp_path: Path) -> None:
    node = (
        ("ADD rootfs.tar.gz /", {"bin/sh": X, "usr/bin/curl": X, "usr/local/bin/node": X, "etc/os-release": b"ID=alpine\nVERSION_ID=3.22\n"}),
        'CMD ["/bin/sh"]', ("RUN addgroup node", {"usr/local/bin/npm": "->../node"}), 'CMD ["node"]',
    )  # fmt: skip
    own = (
        'LABEL com.example.version="0.0.1-beta"', "ENV PROJECT_DIR=/app", "WORKDIR /app", ("COPY package.json /app", {"app/package.json": b"{}"}),
        ("RUN npm install", {"app/node_modules/x/index.js": b"1"}), ("COPY . /app", {"app/index.js": b"1", "entrypoint.sh": (b'#!/bin/sh\nexec node "$@"\n', 0o755)}),
        "ENV MEDIA_DIR=/media APP_PORT=3000", "VOLUME [/media]", "EXPOSE 3000", "HEALTHCHECK CMD curl --fail http://localhost:$APP_PORT || exit 1",
        'ENTRYPOINT ["/entrypoint.sh"]', 'CMD ["start"]',
    )  # fmt: skip
    found = found_in(tmp_path, image((*node, *own), form))
    # The classic builder's history does not tell COPY . from COPY src, and says of neither that it is a fault.
    assert [(one.rule, one.level.value) for one in found] == [("missing-user", "info")]


# Hostile and broken


@pytest.mark.parametrize("kind", [kind for kind in HOSTILE if not kind.options], ids=lambda kind: kind.name)
def test_hostile_archives_end_as_issues(kind: Kind, tmp_path: Path) -> None:
    kind.build(tmp_path / "h.tar")
    done = lint([str(tmp_path / "h.tar")])
    assert done.issues or done.names


@pytest.mark.parametrize("case", HOSTILE_LAYERS)
def test_hostile_layers_are_located_and_the_other_images_linted(case: str, tmp_path: Path) -> None:
    bad, code = HOSTILE_LAYERS[case]
    parts = files(Image(layers=(Image().layers[0], bad), tags=()), Image())
    if code == "layer-corrupt":
        name = bad.diff_id.removeprefix("sha256:") + ".tar"
        parts[name] = parts[name][:-20]
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of(parts))
    done = lint([str(path)])
    (found,) = [each for each in done.issues if each.is_error]
    assert (found.code, found.image_index, found.archive) == (code, 0, str(path))
    assert found.place.startswith(f"layer 1 ({bad.diff_id})") and [name for _, name in done.names] == [Image().tags[0]]
    told = CliRunner().invoke(app, ["lint", str(path), "--fail-on", "error"])
    assert told.exit_code == 1 and f"error {code}" in told.output


@pytest.mark.parametrize(
    "config",
    [
        {"Env": "a", "Cmd": {}, "Entrypoint": 1, "Healthcheck": [], "Labels": 3, "Volumes": "x", "ExposedPorts": [1], "Shell": "sh", "User": 0},
        {"Env": [1, None, "=", "A"], "Cmd": [""], "Entrypoint": ["", ""], "Healthcheck": {"Test": [1]}, "User": " ", "WorkingDir": "\ud800"},
        {"Env": ["PATH=:::..", "PATH"], "Cmd": ["\x00", "{name}", "%s"], "Healthcheck": {"Test": ["CMD"]}, "Labels": {"{a}": None}},
        {"Cmd": ["/bin/sh", "-c", "(" * 5000], "Healthcheck": {"Test": ["CMD-SHELL", ""]}, "ExposedPorts": {"": {}, "{x}": {}}},
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "history",
    [
        [], [{}, {}], ["x"], [{"created_by": None}, {"created_by": 5}], [{"created_by": "COPY"}, {"created_by": "ADD x"}], [{"created_by": "|9 /bin/sh -c"}, {"created_by": "|1 "}],
        [{"created_by": "/bin/sh -c #(nop) "}, {"created_by": "RUN"}, {"created_by": "ENV", "empty_layer": True}, {"created_by": "VOLUME [", "empty_layer": True}],
        [{"created_by": "RUN {x} %s # buildkit"}, {"created_by": "COPY --from /a"}, {"created_by": "ARG {a}={b}", "empty_layer": True}],
    ],
)  # fmt: skip
def test_odd_configs_and_histories_are_no_trouble(config: dict[str, Any], history: list[Any], tmp_path: Path) -> None:
    if history == ["x"]:
        assert lint([write(tmp_path, replace(Image(run=config), overrides={"history": history}))]).issues
    else:
        found_in(tmp_path, replace(Image(run=config), overrides={"history": history}))


def test_memory_is_bounded(tmp_path: Path) -> None:
    big = layer({f"usr/share/{n % 500}/file-{n}": b"" for n in range(200_000)})
    write(tmp_path, Image(layers=(big, layer({"usr/.wh.share": b""}))))
    code = "import re,sys,datetime; from swrbatch.lint.batch import *; from swrbatch.lint.catalog import RULES\n"
    code += "with OpenArchives(Cancel()) as archives:\n"
    code += "    done = lint_archives([sys.argv[1]], RULES, datetime.date(2026, 1, 1), archives, Cancel())\n"
    code += "assert done.names, done.issues\n"
    code += "print(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])"
    argv = [sys.executable, "-c", code, str(tmp_path / "a.tar")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert int(done.stdout) < 300 << 10


# The command


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWRBATCH_USER", "root")
    images = [
        image((*APP, "USER 1"), tags=("h.example.com/team/a:1",)),
        image((*APP, "USER 0"), tags=("h.example.com/team/b:2",)),
    ]
    import_archives([write(tmp_path, *images)], tmp_path / "swr-store", registry="h.example.com", user="root")
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["lint", *arguments, "--date", "2026-11-24"])
    return done.exit_code, done.output


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["team/a:1"], ["team/a:1"]), (["h.example.com/team/a:1", "team/b:2"], ["team/a:1", "team/b:2"]), (["team/*"], ["team/a:1", "team/b:2"]),
        (["*", "--store", "swr-store"], ["team/a:1", "team/b:2"]), (["*:2", "--store", "swr-store"], ["team/b:2"]),
        (["--store", "swr-store"], ["team/a:1", "team/b:2"]),
    ],
)  # fmt: skip
def test_images_of_a_store(store: Path, arguments: list[str], names: list[str]) -> None:
    code, output = run(*arguments, "--format", "json")
    told = json.loads(output)
    assert [one["path"] for one in told["images"]] == names and told["files"] == []
    roots = [one["path"] for one in told["findings"] if one["rule"] == "root-user"]
    assert roots == [name for name in names if name == "team/b:2"] and code == (1 if roots else 0)


def test_a_file_and_an_image_of_a_store(store: Path) -> None:
    told = json.loads(run("a.tar", "team/a:1", "--store", "swr-store", "--format", "json")[1])
    assert told["files"] == ["a.tar"] and len(told["images"]) == 3
    text = run("team/b:2", "--rules", "root-user")[1]
    assert text.startswith("h.example.com/team/b:2 config.User: warning root-user\n")


def test_an_archive_on_standard_input(store: Path) -> None:
    argv = [sys.executable, "-m", "swrbatch", "lint", "-", "--format", "json"]
    plain_tar = (store / "a.tar").read_bytes()
    for data in (plain_tar, gzip.compress(plain_tar)):
        done = subprocess.run(argv, input=data, capture_output=True, check=False)
        told = json.loads(done.stdout)
        assert done.returncode == 1 and told["files"] == ["-"] and len(told["images"]) == 2
        assert "root-user" in {one["rule"] for one in told["findings"]}


def test_a_store_asks_for_the_right_to_download(store: Path) -> None:
    assert run("team/a:1", "--user", "nobody")[0] == 1
    assert run("team/none:1")[0] == 1 and run("none*/x")[0] == 2 and run("team/a:1", "--store", "gone")[0] in (2, 3)


def test_a_damaged_blob_is_an_issue_of_its_image(store: Path) -> None:
    blobs = [
        path for path in (store / "swr-store").rglob("data") if path.stat().st_size > 0 and path.read_bytes()[:2] == b"\x1f\x8b"
    ]
    for path in blobs:
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    code, output = run("*", "--store", "swr-store")
    assert code == 1 and "blob-corrupt" in output and "Traceback" not in output


def test_a_folder_of_all_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Dockerfile").write_text("FROM ubuntu\n")
    (tmp_path / "rootfs.tar.gz").write_bytes(gzip.compress(tar_of({"bin/sh": b"x", "etc/passwd": b"x"})))
    (tmp_path / "saved.tgz").write_bytes(gzip.compress(tar_of(files(image((*APP, "USER root"))))))
    (tmp_path / "values.yaml").write_text("a: b\n")
    code, output = run(".", "--format", "json")
    told = json.loads(output)
    assert told["files"] == ["./Dockerfile", "./saved.tgz"] and not told["issues"] and code == 1
    assert {"floating-tag", "root-user"} <= {one["rule"] for one in told["findings"]}
    assert run("rootfs.tar.gz")[0] == 1  # named, it is told what it is


def test_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(
        tmp_path, image((*APP, ("COPY k /k", {"dir/k": KEY}), ("RUN x", {"var/lib/apt/lists/a": bytes(2_000_000)}), "USER root"))
    )
    done = lint(["a.tar"])
    code, output = run("a.tar", "--format", "sarif")
    (sarif,) = Sarif.model_validate_json(output).runs
    assert code == 1 and len(sarif.results or []) == len(done.findings)
    raw = json.loads(output)["runs"][0]["results"]
    secret = next(one for one in raw if one["ruleId"] == "secret-file")["locations"][0]
    name, diff_id = done.names[0][1], next(one.layer for one in done.findings if one.rule == "secret-file")
    assert secret["physicalLocation"]["artifactLocation"]["uri"] == "a.tar"
    assert [(one["kind"], one["name"]) for one in secret["logicalLocations"]] == [
        ("image", name),
        ("layer", diff_id),
        ("member", "dir/k"),
    ]
    assert secret["logicalLocations"][2]["fullyQualifiedName"] == f"{name}/{diff_id}/dir/k"
    assert next(one for one in raw if one["ruleId"] == "package-leftovers")["properties"] == {"bytes": 2_000_000, "step": "RUN x"}
    assert [one["partialFingerprints"]["swrbatchFinding/v1"] for one in raw] == [one.fingerprint for one in done.findings]
    assert len({one.fingerprint for one in done.findings}) == len(done.findings)
    (tmp_path / "out.sarif").write_text(output)
    read = loader.load_sarif_file("out.sarif").get_records()
    assert sorted(one["Code"] for one in read) == sorted(one.rule for one in done.findings)
    gitlab = json.loads(run("a.tar", "--format", "gitlab")[1])
    assert any(
        one["check_name"] == "secret-file" and "dir/k" in one["description"] and one["severity"] == "major" for one in gitlab
    )
    (suite,) = ET.fromstring(run("a.tar", "--format", "junit")[1]).findall("testsuite")
    assert suite.get("name") == f"a.tar {name}" and suite.find("testcase[@name='secret-file']/failure") is not None
    text = run("a.tar")[1]
    assert f"a.tar {name} var/lib/apt/lists: warning package-leftovers (1.9 MiB)\n  step: RUN x\n" in text
    assert "files 1, images 1" in text
    assert "镜像配置中的User为root" in run("a.tar", "--lang", "zh")[1]
    (tmp_path / "known.json").write_text(run("a.tar", "--format", "json")[1])
    assert run("a.tar", "--baseline", "known.json", "--fail-on", "info")[0] == 0


def test_an_issue_is_in_every_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.tar").write_bytes(tar_of({"manifest.json": b"[]"}))
    assert (
        json.loads(CliRunner().invoke(app, ["lint", "bad.tar", "--format", "json"]).stdout)["issues"][0]["code"]
        == "manifest-empty"
    )
    suites = ET.fromstring(CliRunner().invoke(app, ["lint", "bad.tar", "--format", "junit"]).stdout).findall("testsuite")
    assert suites[-1].find("testcase/error") is not None
    output = CliRunner().invoke(app, ["lint", "bad.tar", "--format", "sarif"]).stdout
    (invocation,) = Sarif.model_validate_json(output).runs[0].invocations or []
    assert not invocation.execution_successful
    (told,) = json.loads(output)["runs"][0]["invocations"][0]["toolExecutionNotifications"]
    assert told["descriptor"]["id"] == "manifest-empty" and told["level"] == "error" and told["message"]["text"]
    assert told["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "bad.tar"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_list_has_every_rule_below_its_practice(language: Lang) -> None:
    output = CliRunner().invoke(app, ["lint", "--list", "--lang", language]).output
    chinese = re.compile("[\u4e00-\u9fff]")
    assert language == "zh" or not chinese.search(output)
    blocks = [block.splitlines() for block in output.split("\n\n")]
    told = {
        line.split()[0]: (block[0], line, block[at + 2])
        for block in blocks
        for at, line in enumerate(block[1:])
        if line[2] != " "
    }
    assert list(told) == [one.id for one in RULES]
    for one in RULES:
        heading, line, finds = told[one.id]
        assert heading == one.heading(language) or (not one.section and heading in ("not in the guide", "指南未涉及"))
        assert ("dockerfile" in line.lower()) == ("dockerfile" in one.forms)
        assert finds.strip() == plain(one.text(language))
    assert told["floating-tag"][0] == ("8.1 no. 4: a specific tag" if language == "en" else "8.1第4项：使用特定的标签")


@pytest.mark.parametrize("one", [one for one in RULES if one.image is not None], ids=lambda one: one.id)
def test_texts(one: Rule, tmp_path: Path) -> None:
    case = FOUND[one.id][0]
    found = next(each for each in found_in(tmp_path, built(case, case.form or "buildkit")[0]) if each.rule == one.id)
    for text in (found.message, found.way_out, found.message_zh, found.way_out_zh):
        assert text and not re.search(r"\{[a-z_]+\}", text)
    assert re.search("[\u4e00-\u9fff]", found.message_zh) and re.search("[\u4e00-\u9fff]", found.way_out_zh)
    assert found.section.startswith("8.1") and one.bad and one.good and one.bad != one.good


@pytest.mark.parametrize("one", [one for one in RULES if one.image is not None and one.check is None], ids=lambda one: one.id)
def test_the_examples_of_rules_on_images_are_dockerfiles(one: Rule) -> None:
    for text in (one.bad, one.good):
        assert "syntax" not in {found.rule for found in lint_dockerfile(text.encode(), "D")}
