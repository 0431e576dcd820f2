"""Lint as a part of check and import: what it finds stands in the report, and refuses images where that is asked."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from imagetar import TAG, Image, files, tar_of
from lint_images import APP, BASE, KEY, MB, X, image, layer
from swrbatch import Store, check_archives, import_archives
from swrbatch.cli import app
from swrbatch.errors import UsageError
from swrbatch.lint import batch
from swrbatch.store import tag_name

HOST = "swr.cn-north-1.example.com"
OTHER = f"{HOST}/team/other:v1"
SECRET = ("COPY key /app/", {"root/.ssh/id_rsa": KEY})
LEFT = ("RUN make", {"var/lib/apt/lists/x": MB})
CLEAN = image([*APP, 'CMD ["/app/run"]', "USER 1000"])
BAD = image([*APP, SECRET, 'CMD ["/app/run"]', "USER 1000"], tags=(OTHER,))
LARGE = image([*APP, LEFT, 'CMD ["/app/run"]', "USER 1000"], tags=(f"{HOST}/team/large:v1",))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.tar").write_bytes(tar_of(files(BAD)))
    (tmp_path / "in" / "good.tar").write_bytes(tar_of(files(CLEAN)))
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*arguments])
    return done.exit_code, done.output


def test_findings_stand_in_the_report(folder: Path) -> None:
    assert run("import", "in", "--lint", "--report", "rep", "--store", "s")[0] == 0
    found = pd.read_parquet("rep/findings")
    (secret,) = found[found.rule == "secret-file"].to_dict("records")
    assert secret["archive"] == "in/bad.tar" and secret["image"] == OTHER and secret["image_index"] == 0
    assert (secret["level"] == "error" and not secret["refuses"] and secret["accepted"] is None) or pd.isna(secret["accepted"])
    assert secret["place"] == "root/.ssh/id_rsa" and secret["layer"].startswith("sha256:")
    assert KEY.decode().splitlines()[1] not in found.to_json()
    (options,) = pd.read_parquet("rep/runs").options
    assert json.loads(options)["lint"] is True
    images = pd.read_parquet("rep/images")
    assert set(found.image_id) <= set(images.image_id) and set(images.status) == {"loaded"}


def test_without_lint_there_is_an_empty_table(folder: Path) -> None:
    run("check", "in", "--report", "rep")
    assert len(pd.read_parquet("rep/findings")) == 0
    (options,) = pd.read_parquet("rep/runs").options
    assert json.loads(options)["lint"] is False


def test_an_image_is_refused_from_a_level_on(folder: Path) -> None:
    code, output = run("import", "in", "--lint-fail-on", "error", "--store", "s", "--report", "rep")
    assert code == 1
    assert "error lint-findings in/bad.tar" in output and "findings of lint at error or above: 1 (secret-file)" in output
    with Store("s") as store:
        assert [f"{HOST}/{tag_name(row)}" for row in store.tag_rows()] == [TAG]
    found = pd.read_parquet("rep/findings")
    assert set(found[found.refuses].rule) == {"secret-file"}
    code, output = run("import", "in", "--lint-fail-on", "error", "--store", "s", "--lang", "zh")
    assert "lint发现1项错误及以上级别的问题（secret-file）" in output


def test_check_says_what_import_would(folder: Path) -> None:
    assert run("check", "in")[0] == 0
    assert run("check", "in", "--lint")[0] == 0
    assert run("check", "in", "--lint-fail-on", "error")[0] == 1
    assert run("import", "in", "--lint-fail-on", "error", "--dry-run")[0] == 1
    assert not Path("swr-store").exists()


def test_the_configuration_decides(folder: Path) -> None:
    Path("lint.yaml").write_text(
        "fail-on: error\nignore:\n  - {rules: [secret-file], path: in/bad.tar, place: root/.ssh/*, reason: a test key}\n"
    )
    code, output = run("import", "in", "--lint-config", "lint.yaml", "--report", "rep", "--store", "s")
    assert code == 0 and "ignored 1" in output
    found = pd.read_parquet("rep/findings")
    assert list(found[found.rule == "secret-file"].accepted) == ["a test key"]
    Path("lint.yaml").write_text("rules: {missing-healthcheck: error, secret-file: off}\n")
    code, output = run("check", "in", "--lint-config", "lint.yaml", "--lint-fail-on", "error")
    assert code == 1 and "missing-healthcheck" in output and "secret-file" not in output
    Path("lint.yaml").write_text("rules: {nothing: error}\n")
    code, output = run("check", "in", "--lint-config", "lint.yaml")
    assert code == 2 and "lint.yaml:1:9: rules.nothing: nothing is no rule" in output
    # A configuration that happens to lie here does not open the gate.
    Path(".swrbatch-lint.yaml").write_text("rules: {secret-file: off}\n")
    assert run("check", "in", "--lint-fail-on", "error")[0] == 1


def test_the_same_is_found_as_by_lint(folder: Path) -> None:
    (folder / "in" / "base.tar").write_bytes(tar_of(files(image(BASE, tags=(f"{HOST}/team/zbase:v1",)))))
    told = json.loads(run("lint", "in", "--format", "json")[1])["findings"]
    result = check_archives([str(path) for path in sorted(Path("in").iterdir())], lint=True)
    assert len(told) > 5
    assert {(row.fingerprint, row.message, row.level) for row in result.findings} == {
        (one["fingerprint"], one["message"], one["level"]) for one in told
    }
    frame = result.to_pandas("findings")
    assert str(frame.dtypes["bytes"]) == "Int64" and len(frame) == len(told)


def test_each_layer_is_linted_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        more = (*APP, (f"COPY {number} /{number}", {f"app/{number}": X}))
        (folder / "in" / f"{number}.tar").write_bytes(tar_of(files(image(more, tags=(f"{HOST}/team/n:{number}",)))))
    counted: list[int] = []
    done = batch.SharedLayers.done

    def count(self: batch.SharedLayers, one: batch.BatchImage) -> None:
        counted.append(self.read)
        done(self, one)

    monkeypatch.setattr(batch.SharedLayers, "done", count)
    result = check_archives(["in/" + name for name in sorted(os.listdir("in"))], lint=True)
    assert result.run.rejected == 0
    assert max(counted) == len({row.diff_id for row in result.layers})


def _gzipped(folder: Path) -> None:
    (folder / "in" / "bad.tar").write_bytes(gzip.compress((folder / "in" / "bad.tar").read_bytes()))


@pytest.mark.parametrize("change", [lambda folder: None, _gzipped])
def test_standard_input_is_read_once(folder: Path, change: Callable[[Path], None]) -> None:
    change(folder)
    data = (folder / "in" / "bad.tar").read_bytes()
    argv = [sys.executable, "-m", "swrbatch", "import", "-", "in/good.tar", "--lint", "--hash-archives", "--format", "json"]
    done = subprocess.run(argv, input=data, capture_output=True, check=False, env={**os.environ, "PYTHONPATH": _root()})
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["run"]["loaded"] == 2
    assert "secret-file" in {row["rule"] for row in told["findings"] if row["archive"] == "-"}
    assert told["archives"][0]["sha256"] and told["archives"][1]["sha256"]


def test_a_fifo_is_read_once(folder: Path) -> None:
    os.mkfifo("pipe")
    data = (folder / "in" / "bad.tar").read_bytes()
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(data))
    writer.start()
    result = check_archives(["pipe"], lint=True)
    writer.join()
    assert result.run.valid == 1 and "secret-file" in {row.rule for row in result.findings}


def _root() -> str:
    return str(Path(__file__).resolve().parent.parent)


def test_an_archive_that_changes_after_lint_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lint_archives = batch.lint_archives

    def then_swapped(*arguments: Any, **more: Any) -> Any:
        done = lint_archives(*arguments, **more)
        (folder / "in" / "good.tar").write_bytes(tar_of(files(replace(LARGE, tags=(TAG,)))))
        return done

    monkeypatch.setattr("swrbatch.lint.gate.lint_archives", then_swapped)
    result = import_archives(["in/good.tar", "in/bad.tar"], "s", lint=True)
    assert [(row.archive, row.code) for row in result.issues if row.severity == "error"] == [("in/good.tar", "lint-missing")]
    assert [row.status for row in result.images] == ["rejected", "loaded"]


def test_a_layer_that_cannot_be_looked_into_is_refused(folder: Path) -> None:
    broken = Image(layers=(layer({"a": b"x"}), replace(layer({"b": b"y"}), tar=b"no tar at all" * 100)))
    (folder / "in" / "good.tar").write_bytes(tar_of(files(broken)))
    assert check_archives(["in/good.tar"]).run.rejected == 0
    result = check_archives(["in/good.tar"], lint=True)
    assert result.run.rejected == 1 and next(row.severity for row in result.issues if row.image_index == 0) == "error"


@pytest.mark.parametrize("order", [1, -1])
def test_one_image_that_stands_twice_in_an_archive_is_judged_twice(folder: Path, order: int) -> None:
    both = [replace(BAD, tags=(f"{HOST}/legacy/old:1",)), BAD][::order]
    (folder / "in" / "bad.tar").write_bytes(tar_of(files(*both)))
    Path("lint.yaml").write_text("ignore: [{image: '*/legacy/*', reason: old}]\n")
    result = check_archives(["in/bad.tar"], lint_config="lint.yaml", lint_fail_on="error")
    assert {row.organization: row.status for row in result.images} == {"legacy": "valid", "team": "rejected"}


@pytest.mark.parametrize(
    ("names", "retag", "accepted"),
    [
        ((f"{HOST}/legacy/a:1",), "", True), ((f"{HOST}/legacy/a:1", OTHER), "", False),
        ((OTHER, f"{HOST}/legacy/a:1"), "", False),
        ((f"{HOST}/legacy/a:1",), "*/legacy/*={registry}/team/{repository}:{tag}", False),
        ((f"{HOST}/legacy/a:1",), "*/legacy/*={registry}/legacy/b:{tag}", True),
    ],
)  # fmt: skip
def test_an_entry_by_name_must_match_all_names(folder: Path, names: tuple[str, ...], retag: str, accepted: bool) -> None:
    (folder / "in" / "bad.tar").write_bytes(tar_of(files(replace(BAD, tags=names))))
    Path("lint.yaml").write_text("ignore: [{image: '*/legacy/*', reason: old}]\n")
    retags = [retag] if retag else []
    result = check_archives(["in/bad.tar"], lint_config="lint.yaml", lint_fail_on="error", retag=retags)
    assert {row.status for row in result.images} == {"valid" if accepted else "rejected"}


def test_all_faults_of_an_image_are_told(folder: Path) -> None:
    (folder / "in" / "bad.tar").write_bytes(tar_of(files(replace(BAD, tags=("hello:v1",)))))
    result = check_archives(["in/bad.tar"], lint_fail_on="error")
    assert {row.code for row in result.issues if row.severity == "error"} == {
        "lint-findings",
        "registry-missing",
        "namespace-missing",
    }


def test_the_limits_hold_for_lint_too(folder: Path) -> None:
    bomb = gzip.compress(tar_of(files(image([*APP, ("RUN x", {"x": bytes(30_000_000)})]))))
    (folder / "in" / "bomb.tar.gz").write_bytes(bomb)
    result = check_archives(["in/bomb.tar.gz", "in/good.tar"], lint=True, max_decompressed=10_000_000)
    assert [row.code for row in result.issues if row.severity == "error"] == ["decompressed-too-large"]
    result = check_archives(["in/good.tar", "in/bad.tar"], lint=True, max_files=1)
    assert {row.archive for row in result.findings} <= {"in/good.tar"}
    assert [row.code for row in result.issues if row.severity == "error"] == ["too-many-files"]


def test_an_archive_that_cannot_be_read_is_told_once(folder: Path) -> None:
    (folder / "in" / "bad.tar").write_bytes(b"nothing")
    result = check_archives(["in/bad.tar", "gone.tar"], lint=True)
    assert sorted(row.archive for row in result.issues) == ["gone.tar", "in/bad.tar"]


@pytest.mark.parametrize(
    ("name", "told"), [("lint_fail_on", "it is one of error, warning, info"), ("lint_config", "cannot be read")]
)
def test_wrong_options(folder: Path, name: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        check_archives(["in"], **{name: "fatal"})


PIPELINE = """
version: 1
store: {path: s}
defaults: {lint-fail-on: error}
imports:
  - {from: [in], lint-config: lint.yaml}
report: rep
"""


def test_a_pipeline_lints(folder: Path) -> None:
    Path("p.yaml").write_text(PIPELINE)
    Path("lint.yaml").write_text("rules: {missing-healthcheck: off}\n")
    code, output = run("run", "p.yaml")
    assert code == 1 and "findings of lint at error or above: 1 (secret-file)" in output
    assert "missing-healthcheck" not in set(pd.read_parquet("rep/findings").rule)
    Path("lint.yaml").write_text("rules: {nothing: off}\n")
    code, output = run("run", "p.yaml")
    assert code == 2 and "p.yaml:6:18: imports[0].lint-config: " in output and "nothing is no rule" in output


def test_a_junit_report_tells_the_refusal(folder: Path) -> None:
    run("check", "in", "--lint-fail-on", "error", "--junit", "j.xml")
    assert "lint-findings" in Path("j.xml").read_text()
