"""Pipelines: the examples from end to end, twice; plans that come true; broken files with their places; all acts or none."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import ROOT
from imagetar import Image, docker_legacy
from swrbatch import Store, UsageError
from swrbatch.pipeline import CHANGES, PipelineResult, run_pipeline
from swrbatch.pipeline_file import read_pipeline
from test_audit_export import cli
from test_crash import KILLED, at, check_sound, events_of, fast_path, points_of, rows_of, write

__all__ = ["fast_path"]
EXAMPLES = ("ci-import", "migration", "scheduled-export")
HOST = "r.example.com"


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """The examples beside the archives that they import, where they may write."""
    shutil.copytree(ROOT / "fixtures" / "pipelines", tmp_path / "pipelines")
    (tmp_path / "archives").symlink_to(ROOT / "fixtures" / "archives")
    return tmp_path / "pipelines"


def apply(path: Path, out: Path, *, dry_run: bool = False, **settings: str) -> PipelineResult:
    return run_pipeline(read_pipeline(str(path), {"OUT": str(out), **settings}, {}), dry_run=dry_run)


def told(result: PipelineResult) -> list[tuple[str, str, str]]:
    return [(step.kind, step.name, step.status) for step in result.steps]


def names_of(store: Path) -> Counter[str]:
    with Store(store) as opened:
        return Counter(event["trace_name"] for event in events_of(opened))


# --- the examples ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_twice(name: str, examples: Path, tmp_path: Path) -> None:
    """The plan comes true; the second run changes nothing, and records nothing but that uploads changed nothing."""
    out = tmp_path / "out"
    if name == "scheduled-export":
        assert apply(examples / "ci-import.yaml", out).exit_code == 0
    path, code = examples / f"{name}.yaml", 1 if name == "migration" else 0
    plan = apply(path, out, dry_run=True)
    first = apply(path, out)
    assert plan.exit_code == first.exit_code == code and first.changes > 0
    assert told(plan) == told(first)
    before, rows = names_of(out / "store"), check_sound(out / "store")
    files = {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and "export" in p.parts}
    again = apply(path, out)
    assert again.exit_code == code and check_sound(out / "store") == rows
    assert {step.status for step in again.steps} - {"unchanged", "rejected", "skipped"} <= {"written"}
    assert [step.kind for step in again.steps if step.status == "written"] == (["audit"] if name == "migration" else [])
    assert set(names_of(out / "store") - before) <= {"uploadImagePackage"}
    assert {p: p.read_bytes() for p in files} == files
    planned = apply(path, out, dry_run=True)
    assert not [step for step in planned.steps if step.status in CHANGES and step.kind != "audit"]


def test_what_the_import_of_the_example_leaves(examples: Path, tmp_path: Path) -> None:
    apply(examples / "ci-import.yaml", tmp_path / "out", CI_USER="robot")
    at_store = ("--store", tmp_path / "out" / "store", "--account", "acme", "--user", "robot", "--format", "json")
    grants = {row["user"]: row["level"] for row in json.loads(cli("grant", "list", "--org", "team", *at_store)[1])["rows"]}
    assert grants == {"robot": "manage", "developer": "edit", "auditor": "read"}
    (share,) = json.loads(cli("share", "list", "team/hello", *at_store)[1])["rows"]
    assert (share["account"], share["state"]) == ("partner", "live")
    (run,) = json.loads(cli("trigger", "history", "team/hello", *at_store)[1])["rows"]
    assert (run["state"], run["files"]) == ("success", ["deployment.default.hello.image-patch.yaml"])
    assert "team/hello:v1" in (examples / "k8s" / run["files"][0]).read_text()


def test_the_report_joins_all_steps(examples: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    results = [apply(examples / "ci-import.yaml", out) for _ in range(2)]
    steps = pd.read_parquet(out / "report" / "steps")
    assert steps.groupby("run_id")["step"].apply(list).to_dict() == {r.run_id: list(range(1, len(r.steps) + 1)) for r in results}
    runs, images = (pd.read_parquet(out / "report" / table) for table in ("runs", "images"))
    joined = steps[steps["kind"] == "image"].merge(images, left_on=["import_run_id", "name"], right_on=["run_id", "reference"])
    assert len(joined) == 4 and (joined["status_x"] == joined["status_y"]).all()
    assert set(joined["import_run_id"]) == set(runs["run_id"])


def test_a_plan_changes_nothing(examples: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    apply(examples / "ci-import.yaml", out, dry_run=True)
    assert not out.exists()
    apply(examples / "ci-import.yaml", out)
    text = (examples / "ci-import.yaml").read_text().replace("docker26-two-images.tar", "docker20-two-images.tar")
    (examples / "ci-import.yaml").write_text(text.replace("category: app_server", "category: linux"))
    events, rows = names_of(out / "store"), check_sound(out / "store")
    files = sorted(out.rglob("*"))
    plan = apply(examples / "ci-import.yaml", out, dry_run=True)
    assert {("repository", "updated"), ("image", "overwritten")} <= {(step.kind, step.status) for step in plan.steps}
    assert (names_of(out / "store"), check_sound(out / "store")) == (events, rows)
    assert [path for path in sorted(out.rglob("*")) if not path.name.startswith("ledger.db-")] == [
        path for path in files if not path.name.startswith("ledger.db-")
    ]


def test_killed_and_run_again(fast_path: Path) -> None:
    """Wherever it is killed, the next run ends where an undisturbed one does."""
    shutil.copytree(ROOT / "fixtures" / "pipelines", fast_path / "pipelines")
    archive = write(fast_path / "pipelines" / "a.tar", docker_legacy(Image(tags=("swr.cn-north-1.example.com/team/hello:v1",))))
    path = fast_path / "pipelines" / "ci-import.yaml"
    path.write_text(path.read_text().replace("../archives/docker26-two-images.tar", archive.name))
    points = points_of(lambda: apply(path, fast_path / "whole"))
    rows, wanted = check_sound(fast_path / "whole" / "store"), names_of(fast_path / "whole" / "store")
    assert len(points) > 60
    for number in range(1, len(points) + 1, 7):
        out = fast_path / str(number)
        assert at(number, lambda out=out: apply(path, out)) == KILLED, points[number - 1]  # type: ignore[misc]
        assert apply(path, out).exit_code == 0
        assert check_sound(out / "store") == rows
        names = names_of(out / "store")
        assert names | Counter(uploadImagePackage=names["uploadImagePackage"]) == wanted | Counter(
            uploadImagePackage=names["uploadImagePackage"]
        ), points[number - 1]
        shutil.rmtree(out)


# --- broken files ------------------------------------------------------------------------------------------------------------

HEAD = "version: 1\nstore: {path: store}\n"
BROKEN = {
    "unknown key": (HEAD + "organisations: []\n", ":3:1: organisations: unknown key; there are actor, administrators, audit,"),
    "unknown key within": (HEAD + "repositories:\n  - name: a/b\n    pubic: true\n", ":5:5: repositories[0].pubic: unknown key"),
    "missing": ("version: 1\n", ":1:1: store is missing"),
    "missing within": (HEAD + "exports:\n  - {to: x}\n", ":4:5: exports[0]: images is missing"),
    "wrong type": (HEAD + "imports: nothing\n", ":3:1: imports: 'nothing' is not a list"),
    "wrong value": (
        HEAD + "imports:\n- {from: [a], profile: pages}\n",
        ":4:15: imports[0].profile: 'pages' is none of page, client",
    ),
    "a number for a text": (HEAD + "organizations: [{name: 5}]\n", ":3:18: organizations[0].name: 5 is not a text (quote it)"),
    "empty": (HEAD + 'organizations: [{name: ""}]\n', "organizations[0].name: it is empty"),
    "twice": (HEAD + "report: a\nreport: b\n", ":4:1: report: it stands here twice"),
    "level": (
        HEAD + "organizations: [{name: a, grants: {bob: own}}]\n",
        "organizations[0].grants.bob: 'own' is none of read, edit",
    ),
    "size": (HEAD + "defaults: {max-layer-size: big}\nimports: [{from: [a]}]\n", "defaults.max-layer-size: 'big' is no size"),
    "deadline": (
        HEAD + "repositories: [{name: a/b, shares: [{with: c, until: tomorrow}]}]\n",
        "repositories[0].shares[0].until: the deadline tomorrow: write a time in UTC",
    ),
    "category": (HEAD + "repositories: [{name: a/b, category: nice}]\n", "repositories[0].category: "),
    "no repository": (HEAD + "repositories: [{name: alone}]\n", "repositories[0].name: 'alone' is not ORG/REPO"),
    "trigger": (
        HEAD + "repositories: [{name: a/b, triggers: [{name: t, application: 'No Name'}]}]\n",
        "repositories[0].triggers[0]: the workload 'No Name' is no name of Kubernetes",
    ),
    "not set": (HEAD + "report: ${NOWHERE}\n", ":3:9: report: ${NOWHERE} is not set: give --set NOWHERE=VALUE"),
    "no name": (HEAD + "report: ${a b}\n", ":3:9: report: ${ begins a name"),
    "no YAML": (HEAD + "report: [a\n", "is no YAML: line "),
    "two documents": (HEAD + "---\n" + HEAD, "holds 2 documents"),
    "no mapping": ("- a\n", ":1:1: ['a'] is not a mapping"),
    "key": (HEAD + "[a]: b\n", ":3:1: a key must be a text"),
    "secret": (HEAD + "report: ${SWRBATCH_SK}\n", ":3:9: report: ${SWRBATCH_SK} is a secret"),
    "nested": (HEAD + "report: ${A:-${B:-x}}\n", ":3:9: report: a default is a plain text"),
    "NUL": (HEAD + 'report: "a\\0b"\n', ":3:9: report: it holds a NUL or half a character"),
    "surrogate": (HEAD + 'repositories: [{name: a/b, description: "\\ud800"}]\n', "it holds a NUL or half a character"),
    "user": (HEAD + 'administrators: ["a\\nb"]\n', "administrators[0]: the user"),
    "grantee": (HEAD + 'organizations: [{name: a, grants: {"x\\ty": read}}]\n', "organizations[0].grants.x\\ty: the user"),
    "organization twice": (HEAD + "organizations: [{name: a}, {name: a}]\n", "organizations[1]: a stands here twice"),
    "share twice": (
        HEAD + "repositories: [{name: a/b, shares: [{with: c, until: forever}, {with: c, until: forever}]}]\n",
        "repositories[0].shares[1]: c stands here twice",
    ),
    "image": (HEAD + 'exports: [{images: ["nonsense"], to: x.tar}]\n', "exports[0].images[0]: nonsense is no name of an image"),
    "version": ("version: 2\nstore: {path: store}\n", ":1:1: version: 2 is none of 1"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_told_by_its_place_and_changes_nothing(case: str, tmp_path: Path) -> None:
    text, says = BROKEN[case]
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    code, out, err = cli("run", path)
    assert (code, out) == (2, "") and f"swrbatch: {path}" in err
    assert says in err, err
    assert sorted(tmp_path.iterdir()) == [path]


def test_all_faults_are_told(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("version: 3\nstore: {}\nnonsense: 1\n")
    with pytest.raises(UsageError) as e:
        read_pipeline(str(path), {}, {})
    places = [line.removeprefix(f"{path}:").split(": ")[:2] for line in str(e.value).splitlines()]
    assert places == [["1:1", "version"], ["2:1", "store"], ["3:1", "nonsense"]]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for name, data in {"utf-16": HEAD.encode("utf-16"), "large": HEAD.encode() + b"# " + b"x" * (1 << 20)}.items():
        write(tmp_path / name, data)
        with pytest.raises(UsageError, match=r"is no UTF-8 text|is larger than 1 MiB"):
            read_pipeline(str(tmp_path / name), {}, {})
    with pytest.raises(UsageError, match="cannot be read"):
        read_pipeline(str(tmp_path / "nowhere"), {}, {})
    bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 10)}]\n" for n in range(8)
    )
    write(tmp_path / "bomb", bomb.encode())
    with pytest.raises(UsageError, match="is too large"):
        read_pipeline(str(tmp_path / "bomb"), {}, {})


# --- values ----------------------------------------------------------------------------------------------------------------


def report_of(tmp_path: Path, text: str, **given: str) -> str | None:
    path = tmp_path / "p.yaml"
    path.write_text(f"{HEAD}report: {text}\n")
    found = read_pipeline(str(path), given, {"FROM_ENV": "env", "BOTH": "env"}).report
    return found and str(Path(found).relative_to(tmp_path))


def test_references(tmp_path: Path) -> None:
    assert report_of(tmp_path, "${A}-${FROM_ENV}", A="a") == "a-env"
    assert report_of(tmp_path, "${BOTH}", BOTH="given") == "given"
    assert report_of(tmp_path, "x${NOT:-}y${NOT:-default}") == "xydefault"
    assert report_of(tmp_path, "'$${A} $$ $A'") == "${A} $$ $A"
    assert report_of(tmp_path, "${A}", A="${BOTH}") == "${BOTH}", "what comes in is not looked at again"
    assert report_of(tmp_path, '"${A}"', A="a: [b]\n- c") == "a: [b]\n- c", "a value stays one value"
    with pytest.raises(UsageError, match=r"--set B: .* does not use"):
        report_of(tmp_path, "${A}", A="a", B="b")


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=20))
def test_any_value_comes_in_as_it_is(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(f"{HEAD}organizations: [{{name: '${{A}}'}}]\n")
    assert list(read_pipeline(str(path), {"A": value}, {}).organizations) == [value]


# --- acts --------------------------------------------------------------------------------------------------------------------


def pipeline(tmp_path: Path, **parts: Any) -> Path:
    path = tmp_path / "p.yaml"
    path.write_text(json.dumps({"version": 1, "store": {"path": "store", "registry": HOST}, **parts}))
    return path


def test_acts_are_done_all_or_none(tmp_path: Path) -> None:
    """The sixth organization is refused: the five before it are taken back, and no import begins."""
    archive = write(tmp_path / "a.tar", docker_legacy(Image(tags=(f"{HOST}/o1/app:v1",))))
    parts = {"organizations": [{"name": f"o{n}"} for n in range(6)], "imports": [{"from": [archive.name]}]}
    path = pipeline(tmp_path, **parts)
    for dry_run in (True, False):
        result = run_pipeline(read_pipeline(str(path), {}, {}), dry_run=dry_run)
        assert result.exit_code == 1
        assert [step.status for step in result.steps] == ["created", *["skipped"] * 5, "rejected"]
        assert "organization-quota" in result.steps[-1].detail
    with Store(tmp_path / "store") as store:
        assert rows_of(store) == {}
        assert [(e["trace_name"], e["trace_rating"]) for e in events_of(store)][-1] == ("createUserNamespace", "warning")
    assert len(json.loads(cli("org", "list", "--store", tmp_path / "store", "--format", "json")[1])["rows"]) == 0
    code, out, err = cli("run", path)
    assert code == 1 and "! act o5 rejected: organization-quota" in out and "organization-quota" not in err.splitlines()[0][:12]


def test_a_failed_export_is_a_step(tmp_path: Path) -> None:
    """What was done before is told and reported; the exit code is 1, as of the plan."""
    archive = write(tmp_path / "a.tar", docker_legacy(Image(tags=(f"{HOST}/team/app:v1",))))
    path = pipeline(
        tmp_path,
        imports=[{"from": [archive.name]}, {"from": ["*.nothing"]}],
        exports=[{"images": ["team/typo:v1"], "to": "x.tar"}],
        report="report",
    )
    for dry_run in (True, False):
        result = run_pipeline(read_pipeline(str(path), {}, {}), dry_run=dry_run)
        assert [step.status for step in result.steps] == ["created", "loaded", "rejected", "rejected"] and result.exit_code == 1
        assert "nothing matches" in result.steps[2].detail and "there is no tag" in result.steps[3].detail
    assert len(pd.read_parquet(tmp_path / "report" / "steps")) == 4


def test_manifests_that_are_no_folder_stop_the_run_before_it_begins(tmp_path: Path) -> None:
    path = pipeline(tmp_path, manifests={"folder": "nowhere"})
    with pytest.raises(UsageError, match="is no folder"):
        run_pipeline(read_pipeline(str(path), {}, {}))
    assert not (tmp_path / "store").exists()


def test_a_colleague_applies_what_they_may(tmp_path: Path) -> None:
    """The organization is there, and not theirs; that is no reason to refuse what needs edit only."""
    parts: dict[str, Any] = {"organizations": [{"name": "team"}], "repositories": [{"name": "team/app"}]}
    run_pipeline(read_pipeline(str(pipeline(tmp_path, **parts)), {}, {}))
    assert cli("grant", "set", "--org", "team", "--to", "bob", "--level", "edit", "--store", tmp_path / "store")[0] == 0
    parts["repositories"][0]["description"] = "by bob"
    result = run_pipeline(read_pipeline(str(pipeline(tmp_path, **parts, actor={"user": "bob"})), {}, {}))
    assert result.exit_code == 0 and [step.status for step in result.steps] == ["unchanged", "unchanged", "updated"]


def test_what_changes_is_changed_and_told(tmp_path: Path) -> None:
    repository: dict[str, Any] = {
        "name": "team/app",
        "public": False,
        "grants": {"bob": "read"},
        "shares": [{"with": "partner", "until": "forever"}],
        "triggers": [{"name": "t", "application": "web"}],
    }
    parts: dict[str, Any] = {"organizations": [{"name": "team"}], "repositories": [repository]}
    run_pipeline(read_pipeline(str(pipeline(tmp_path, **parts)), {}, {}))
    repository["description"] = "new"
    repository["grants"]["bob"] = "edit"
    repository["shares"][0]["until"] = "2100-01-01T00:00:00Z"
    repository["triggers"][0]["type"] = "tag"
    repository["triggers"][0]["condition"] = "v1"
    path = pipeline(tmp_path, **parts)
    plan = run_pipeline(read_pipeline(str(path), {}, {}), dry_run=True)
    result = run_pipeline(read_pipeline(str(path), {}, {}))
    assert told(plan) == told(result)
    assert [(step.kind, step.status) for step in result.steps] == [
        ("store", "unchanged"),
        ("organization", "unchanged"),
        ("repository", "updated"),
        ("grant", "updated"),
        ("share", "updated"),
        ("trigger", "updated"),
    ]
    assert run_pipeline(read_pipeline(str(path), {}, {})).changes == 0


def test_a_plan_knows_the_rights_that_it_gives(tmp_path: Path) -> None:
    """An import by somebody whose right comes with the same file; run by an administrator, it would be refused without."""
    archive = write(tmp_path / "a.tar", docker_legacy(Image(tags=(f"{HOST}/team/app:v1",))))
    run_pipeline(read_pipeline(str(pipeline(tmp_path, organizations=[{"name": "team"}])), {}, {}))
    path = pipeline(tmp_path, imports=[{"from": [archive.name]}], actor={"user": "bob"})
    for dry_run in (True, False):
        result = run_pipeline(read_pipeline(str(path), {}, {}), dry_run=dry_run)
        assert result.exit_code == 1 and "permission-denied" in result.steps[-1].detail
    run_pipeline(read_pipeline(str(pipeline(tmp_path, organizations=[{"name": "team", "grants": {"bob": "edit"}}])), {}, {}))
    path = pipeline(tmp_path, imports=[{"from": [archive.name]}], actor={"user": "bob"})
    plan = run_pipeline(read_pipeline(str(path), {}, {}), dry_run=True)
    assert plan.exit_code == 0 and plan.steps[-1].status == "loaded"


def test_the_command(examples: Path, tmp_path: Path) -> None:
    words = ("run", examples / "ci-import.yaml", "--set", f"OUT={tmp_path / 'out'}")
    code, out, _ = cli(*words, "--dry-run")
    assert code == 0 and out.splitlines()[-1] == "plan: 7 created, 2 loaded, 1 written" and "+ organization team created" in out
    code, out, _ = cli(*words, "--format", "json")
    made = json.loads(out)
    assert code == 0 and made["changes"] == 10 and made["steps"][0]["after"]["registry"] == "swr.cn-north-1.example.com"
    code, out, _ = cli(*words)
    assert (code, out) == (0, "done: 9 unchanged\n")
    assert cli("run", examples / "ci-import.yaml", "--set", "OUT")[0] == 2
    assert cli("run", examples / "ci-import.yaml", "--set", "O-U=1")[0] == 2
    assert cli("run", tmp_path / "nowhere.yaml")[0] == 2
    code, out, _ = cli("run", examples / "scheduled-export.yaml", "--set", f"OUT={tmp_path / 'empty'}")
    assert code == 1 and "there is no tag team/hello:v1" in out
