"""The notebooks run unattended over fixture data: complete, checked, offline, and committed without outputs."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import audit_world
from conftest import ROOT
from swrbatch import StoreError, UsageError, import_archives
from swrbatch.audit.dataset import Dataset
from swrbatch.audit.ingest import ingest
from swrbatch.audit.notebook import find_notebook, parameters_of, run_notebook
from swrbatch.audit.offline import loads
from swrbatch.cli import app
from swrbatch.cts import catalog
from traces import NOON, NOW, array, trace, write

for module in ("papermill", "nbconvert", "ipykernel", "nbformat"):
    pytest.importorskip(module, reason="the extra `report` is not installed")

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SECONDS = 60


def cells(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text(encoding="utf-8"))["cells"])


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def pictures(page: str) -> list[str]:
    """The SVG pictures of a page, without the random names of clip paths, in which any number may stand."""
    found = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    return [re.sub(r'(?<=[#"])p[0-9a-f]{10}(?=[")])', "", base64.b64decode(data).decode()) for data in found]


def test_both_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["compliance_report", "import_report"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_committed_without_outputs_and_with_parameters(path: Path) -> None:
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert [cell["metadata"].get("tags") for cell in code].count(["parameters"]) == 1
    import nbformat

    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    assert {"sources", "lang", "begin", "end"} <= parameters_of(notebook)
    assert "assert" in source(code[-1]) and "print(" in source(code[-1]), "the last cell checks the row counts, and says so"


def test_two_at_once_in_one_folder(tmp_path: Path, archives_dir: Path) -> None:
    """Each speaks with its own kernel, and no socket is left in the folder."""
    import_archives([archives_dir / "docker20-two-images.tar"], tmp_path / "store", report=str(tmp_path / "report"))
    argv = [sys.executable, "-m", "swrbatch", "audit", "report", "report", "--notebook", "import_report", "--to"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [subprocess.Popen([*argv, name], cwd=tmp_path, env=environment, stderr=subprocess.PIPE) for name in ("one", "two")]
    errors = [each.communicate(timeout=120)[1] for each in both]
    assert [each.returncode for each in both] == [0, 0], errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "report", "store", "two"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_only_the_public_api(path: Path) -> None:
    imports = [
        line
        for cell in cells(path)
        if cell["cell_type"] == "code"
        for line in source(cell).splitlines()
        if re.match(r"(from|import) ", line)
    ]
    ours = {line for line in imports if "swrbatch" in line}
    assert ours <= {"import swrbatch", "from swrbatch.audit import report"}
    allowed = ("swrbatch", "pandas", "matplotlib", "matplotlib_inline", "IPython", "warnings", "pathlib")
    assert {re.split(r"[ .]", line)[1] for line in imports} <= set(allowed)
    assert not re.search(r"\b(report|swrbatch|built)\._(?!_version__)", "".join(map(source, cells(path))))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("world")
    return Path(audit_world.write(base / "bucket").dataset(base / "d").path)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory, archives_dir: Path) -> Path:
    base = tmp_path_factory.mktemp("imports")
    names = [str(path) for path in sorted(archives_dir.glob("*.tar*"))]
    import_archives(names, base / "store", report=str(base / "report"))
    import_archives(names[:3], base / "store", report=str(base / "report"))
    return base / "report"


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_compliance_report(dataset: Path, tmp_path: Path, lang: str) -> None:
    begun = time.monotonic()
    arguments = ["audit", "report", str(dataset), "--to", str(tmp_path / "r"), "--notebook", "compliance_report", "--lang", lang]
    done = CliRunner().invoke(app, [*arguments, "--format", "json"])
    assert done.exit_code == 0, done.output
    page = Path(json.loads(done.stdout)["page"]).read_text(encoding="utf-8")
    assert time.monotonic() - begun < SECONDS
    assert loads(page) == [] and not re.search(r"<script|<link|@import|https?://(?!www\.w3\.org/)", page)
    assert "checked: 7" in page, "the last cell ran"
    drawn = "".join(pictures(page))
    assert len(pictures(page)) == 4
    assert all(entry.trace_name in drawn for entry in catalog().values()), "all 32, those with few events too"
    assert ("按级别的时间线" in page, "周一" in drawn, "创建命名空间权限" in drawn) == ((lang == "zh"),) * 3
    assert "王芳" in drawn and "<script>alert" not in page


def test_a_compliance_report_of_strange_events(tmp_path: Path) -> None:
    """More than a year, times that cannot be, a rating that nobody knows, names that are long or turn the line around."""
    day = 86_400_000
    times = [NOON, NOON - 400 * day, NOON - 3 * day, 0, 253_402_300_799_999, "never"]
    users = ["\u202eevil", "x" * 300, "张三丰李四王五赵六钱七孙八"]
    made = [
        trace(
            n,
            time=moment,
            trace_rating="odd" if n == 2 else "normal",
            user={"name": users[n % 3]},
            resource_name="o/" + "r" * 200,
        )
        for n, moment in enumerate(times)
    ]
    write(tmp_path / "in" / "a.json", array(made))
    ingest([str(tmp_path / "in")], Dataset(tmp_path / "d", create=True), now=NOW)
    page = Path(
        run_notebook("compliance_report", str(tmp_path / "r"), {"sources": [str(tmp_path / "d")], "now": NOW})
    ).read_text()
    drawn = "".join(pictures(page))
    assert "checked: 6 events" in page and "One bar stands for 7 days." in page and loads(page) == []
    assert "no known rating" in drawn and "1970" not in drawn and "9999-" not in drawn
    assert (
        "\u202e" not in page + drawn and "\\u202eevil" in page and "\\u202eevil" in drawn and "张三丰李四王五赵六钱七…" in drawn
    )


def test_a_compliance_report_of_nothing(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.json", b"[]")
    ingest([str(tmp_path / "in")], Dataset(tmp_path / "d", create=True), now=NOW)
    page = Path(run_notebook("compliance_report", str(tmp_path / "r"), {"sources": [str(tmp_path / "d")]})).read_text()
    assert len(pictures(page)) == 1 and page.count("Nothing happened in this period.") == 2 and page.count("None.") == 3


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_import_report(reports: Path, tmp_path: Path, lang: str) -> None:
    page = Path(run_notebook("import_report", str(tmp_path / "r"), {"sources": [str(reports)], "lang": lang})).read_text(
        encoding="utf-8"
    )
    assert loads(page) == [] and not re.search(r"<script|<link|@import|https?://(?!www\.w3\.org/)", page)
    assert "checked: 2 runs, 18 archives" in page
    drawn = "".join(pictures(page))
    assert len(pictures(page)) == 3 and "repotags-empty" in drawn and "swr.cn-north-1.example.com/team/worker:2.0.0" in drawn
    assert ("最大的镜像层" in page) == (lang == "zh")


def notebook(path: Path, *code: str) -> str:
    """A notebook with a parameter cell and these code cells."""
    made = [
        {"cell_type": "code", "id": f"c{n}", "metadata": {}, "execution_count": None, "outputs": [], "source": text}
        for n, text in enumerate(code)
    ]
    made[0]["metadata"] = {"tags": ["parameters"]}
    spec = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    path.write_text(json.dumps({"cells": made, "metadata": spec, "nbformat": 4, "nbformat_minor": 5}))
    return str(path)


def test_notebooks_that_must_not_pass(tmp_path: Path) -> None:
    failing = notebook(tmp_path / "failing.ipynb", "x = 1", "assert x == 2, f'{x} is not 2'")
    with pytest.raises(StoreError, match="failing failed: AssertionError: 1 is not 2"):
        run_notebook(failing, str(tmp_path / "r"), {"x": 1, "unknown": 2})
    silent = notebook(tmp_path / "silent.ipynb", "x = 1", "x")
    assert Path(run_notebook(silent, str(tmp_path / "r"), {"x": 5})).name == "silent.html"
    nothing = notebook(tmp_path / "nothing.ipynb", "x = 1", "y = x")
    with pytest.raises(StoreError, match="did not come to its end"):
        run_notebook(nothing, str(tmp_path / "r"), {})
    remote = notebook(
        tmp_path / "remote.ipynb", "x = 1", "from IPython.display import HTML\nHTML('<img src=\"https://cdn.example/x.png\">')"
    )
    with pytest.raises(StoreError, match=r"would load img src=https://cdn\.example/x\.png"):
        run_notebook(remote, str(tmp_path / "r"), {})
    assert [path.name for path in (tmp_path / "r").glob("*.html")] == ["silent.html"]


def test_which_notebooks_there_are(tmp_path: Path) -> None:
    assert find_notebook("import_report") == ROOT / "notebooks" / "import_report.ipynb"
    with pytest.raises(UsageError, match="there are compliance_report, import_report"):
        find_notebook("none")
    with pytest.raises(UsageError, match="there is no notebook"):
        find_notebook(str(tmp_path / "none.ipynb"))
    (tmp_path / "broken.ipynb").write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        run_notebook(str(tmp_path / "broken.ipynb"), str(tmp_path / "r"), {})
