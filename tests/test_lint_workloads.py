"""Rules on Kubernetes workloads: what must be found, near misses, lines, ServiceAccounts of other files, what is no YAML."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sarif_pydantic import Sarif
from typer.testing import CliRunner

from imagetar import Image, files, tar_of
from swrbatch import import_archives
from swrbatch.cli import app
from swrbatch.lint.catalog import RULES
from swrbatch.lint.check import lint_workloads
from swrbatch.lint.rule import Rule
from swrbatch.lint.workload import PATHS, parse_workloads, with_surroundings
from swrbatch.lint.workload_rules import HOSTS

SWR = "swr.cn-north-1.myhuaweicloud.com/team/nginx:1"
SECRETS = "imagePullSecrets: [{name: default-secret}]"
MINE = [one for one in RULES if one.workload is not None]
# The guide's example (9.4.1) with an image of the registry.
GUIDE = f"""apiVersion: extensions/v1beta1
kind: Deployment
metadata:
  name: nginx
spec:
  replicas: 1
  selector:
    matchLabels:
      app: nginx
  strategy:
    type: RollingUpdate
  template:
    metadata:
      labels:
        app: nginx
    spec:
      containers:
        - image: {SWR}
          imagePullPolicy: Always
          name: nginx
          imagePullSecrets:
            - name: default-secret
"""


def found(*texts: str, hosts: tuple[str, ...] = HOSTS) -> list[tuple[str, int]]:
    parsed = [parse_workloads(text.encode(), f"{number}.yaml") for number, text in enumerate(texts)]
    return [(one.rule, one.line) for one in lint_workloads(with_surroundings(parsed, hosts))]


def pod(spec: str = "", image: str = SWR, container: str = "", kind: str = "Pod", meta: str = "name: a") -> str:
    """A workload in flow style; `spec` and `container` are more keys of the pod's spec and of its container."""
    inner = f"{{containers: [{{name: c, image: {image!r}{', ' + container if container else ''}}}]{', ' + spec if spec else ''}}}"
    for key in reversed(PATHS[kind]):
        inner = f"{{{key}: {inner}}}"
    return f"kind: {kind}\nmetadata: {{{meta}}}\n{inner[1:-1]}\n"


def account(name: str, secrets: str = SECRETS, namespace: str = "default") -> str:
    return f"kind: ServiceAccount\nmetadata: {{name: {name}, namespace: {namespace}}}\n{secrets}\n"


FOUND = {
    "manifest-syntax": [
        ["kind: Pod\nspec: ["], ["kind: Pod\nspec: *gone\n"], ["kind: Pod\n\ta: b\n"], ["kind: Pod\nspec: {a: 1, a: 2}\nkind: Pod\n---\nkind: Job\n b: }\n"],
        ['kind: Pod\nmetadata: {name: "a}\n'], ["kind: Deployment\nspec:\n  a: b\n c: d\n"], [pod() + "---\nkind: Job\nspec: {a: b\n"], ["kind: CronJob\nspec:\n  - a\n  b: c\n"],
    ],
    "missing-pull-secret": [
        *([pod(kind=kind)] for kind in PATHS), ["kind: List\nitems:\n- " + pod().replace("\n", "\n  ")], [pod("imagePullSecrets: []")], ["a: b\n---\n" + pod() + "---\nc: d\n"],
        [pod(f"serviceAccountName: own, initContainers: [{{name: i, image: '{SWR}'}}]", "busybox")], [pod(), account("other")], [pod(), account("default", namespace="x")],
        [pod(), account("default", "secrets: [{name: default-secret}]")], [pod(image=SWR.replace(":1", "@sha256:" + "0" * 64))], ["\ufeff" + pod()], [json.dumps({"kind": "Pod", "spec": {"containers": [{"image": SWR}]}})],
        ["x: &i " + SWR + "\n" + pod().replace(repr(SWR), "*i")], ["kind: PodList\nitems: [{" + pod().strip().replace("\n", ", ") + "}]\n"],
    ],
    "other-pull-secret": [
        [pod("imagePullSecrets: [{name: mine}]")], [pod("imagePullSecrets: [{name: a}, {name: b}]")], [pod("serviceAccountName: own"), account("own", "imagePullSecrets: [{name: mine}]")],
        [pod("imagePullSecrets: [{name: mine}]"), account("default")], [pod("imagePullSecrets: [{name: default_secret}]")], [pod("imagePullSecrets: [{name: Default-Secret}]", kind="CronJob")],
    ],
    "misplaced-pull-secret": [
        [GUIDE], [pod(container=SECRETS)], [pod(SECRETS, container=SECRETS)], [pod(kind="Job", container=SECRETS)], [pod(f"initContainers: [{{name: i, image: x, {SECRETS}}}]")],
        [pod(container="imagePullSecrets: []")],
    ],
}  # fmt: skip
MISSED = {
    "manifest-syntax": [[pod()], ["no: workload\nbut: ["], ["kind: ConfigMap\ndata: {a: 'kind: Po'}\n"], ["a: b\n---\n{{ if x }}\n"], [GUIDE], [""]],
    "missing-pull-secret": [
        [pod(SECRETS)], [pod(image="nginx")], [pod(image="docker.io/library/nginx:1")], [pod(image="swr.example.com/team/nginx")], [pod(), account("default")], [GUIDE],
        [pod("serviceAccountName: own"), account("own")], [pod(meta="name: a, namespace: x"), account("default", namespace="x")], [pod("imagePullSecrets: [{name: mine}]")],
        [pod(kind="Pod").replace("kind: Pod", "kind: Podling")], [pod(image="team/swr.cn-north-1.myhuaweicloud.com:1")],
    ],
    "other-pull-secret": [
        [pod(SECRETS)], [pod("imagePullSecrets: [{name: mine}, {name: default-secret}]")], [pod("imagePullSecrets: [{name: mine}]", "nginx")], [pod(), account("default")],
        [pod("imagePullSecrets: [{name: '${SECRET}'}]")], [pod("imagePullSecrets: []")],
    ],
    "misplaced-pull-secret": [
        [pod(SECRETS)], [pod()], [pod(image="nginx", container=SECRETS)], [pod(container="env: [{name: imagePullSecrets}]")], [pod(container="args: [imagePullSecrets]")],
        [f"{pod(SECRETS)}---\n{account('a')}"],
    ],
}  # fmt: skip


@pytest.mark.parametrize(("rule", "texts"), [(rule, texts) for rule, cases in FOUND.items() for texts in cases])
def test_found(rule: str, texts: list[str]) -> None:
    assert rule in {name for name, _ in found(*texts)}


@pytest.mark.parametrize(("rule", "texts"), [(rule, texts) for rule, cases in MISSED.items() for texts in cases])
def test_near_miss(rule: str, texts: list[str]) -> None:
    assert rule not in {name for name, _ in found(*texts)}


def test_every_rule_has_a_corpus() -> None:
    assert set(FOUND) == set(MISSED) == {one.id for one in MINE}
    assert all(len({tuple(texts) for texts in cases}) >= 6 for table in (FOUND, MISSED) for cases in table.values())


@pytest.mark.parametrize("one", MINE, ids=lambda one: one.id)
def test_the_examples_of_a_rule(one: Rule) -> None:
    assert one.id in {name for name, _ in found(one.bad)} and found(one.good) == []
    (told,) = [
        each for each in lint_workloads(with_surroundings([parse_workloads(one.bad.encode(), "x")], HOSTS)) if each.rule == one.id
    ]
    assert "{" not in told.message + told.message_zh and told.message_zh != told.message and told.way_out_zh
    assert ("{{" not in told.way_out and "[{name: default-secret}]" in told.way_out) or one.id != "missing-pull-secret"


def test_lines() -> None:
    text = (
        "# a comment\n" + GUIDE + "---\n" + GUIDE.replace("          imagePullSecrets:\n            - name: default-secret\n", "")
    )
    assert found(text) == [("misplaced-pull-secret", 22), ("missing-pull-secret", 42)]
    assert text.splitlines()[41].strip() == f"- image: {SWR}"
    assert found("a: b\n---\nkind: Pod\nspec: [\n---\n" + pod()) == [("manifest-syntax", 5), ("missing-pull-secret", 8)]


def test_comments_take_findings_back() -> None:
    assert (
        found(
            GUIDE.replace(
                "          imagePullSecrets", "          # swrbatch ignore=misplaced-pull-secret x\n          imagePullSecrets"
            )
        )
        == []
    )
    assert found(GUIDE + "# swrbatch ignore-file=misplaced-pull-secret\n") == []
    assert found(GUIDE + "# swrbatch ignore=misplaced-pull-secret\n") != []


def test_a_template_that_is_no_yaml_is_no_error() -> None:
    parsed = [parse_workloads(b"kind: Pod\nspec:\n{{- if x }}\n  a: [\n", "t.yaml")]
    assert [(one.rule, one.level.value) for one in lint_workloads(with_surroundings(parsed, HOSTS))] == [
        ("manifest-syntax", "info")
    ]


def test_registries() -> None:
    assert found(pod(image="h.example.com/a/b:1")) == []
    assert found(pod(image="h.example.com/a/b:1"), hosts=("h.example.com",)) == [("missing-pull-secret", 3)]
    assert found(pod(image="H.Example.com:5000/a/b"), hosts=("*.example.com:*",)) == [("missing-pull-secret", 3)]
    assert found(pod(), hosts=("h.example.com",)) == []


@given(st.text(alphabet="kindPod: spec-containers[]{}&*<>|'\"\n#swr.myhuaweicloud.com/a", max_size=200))
def test_any_text_is_read(text: str) -> None:
    rules = {"manifest-syntax", "missing-pull-secret", "other-pull-secret", "misplaced-pull-secret"}
    assert all(name in rules and line >= 1 for name, line in found("kind: Pod\n" + text))


def test_bounds() -> None:
    assert found("kind: Pod\n#" + "x" * (3 << 20)) == [("manifest-syntax", 1)]
    many = "kind: Pod\nspec:\n  containers:\n" + f"  - image: {SWR}\n" * 1001
    assert [name for name, _ in found(many)] == ["manifest-syntax"]
    bad = lint_workloads(with_surroundings([parse_workloads(b"a: b\nkind: Pod\n\xff", "x")], HOSTS))
    assert [(one.rule, one.line) for one in bad] == [("manifest-syntax", 3)]


# The command


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["lint", *arguments])
    return done.exit_code, done.output


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy/a.yaml").write_text(pod(kind="Deployment", spec="serviceAccountName: own"))
    (tmp_path / "deploy/b.yml").write_text(GUIDE)
    (tmp_path / "deploy/values.yaml").write_text("image: x\n")
    code, output = run("deploy", "--format", "json")
    told = json.loads(output)
    assert told["files"] == ["deploy/a.yaml", "deploy/b.yml"] and code == 1
    assert [(one["path"], one["rule"], one["section"][:5]) for one in told["findings"]] == [
        ("deploy/a.yaml", "missing-pull-secret", "9.4.1"), ("deploy/b.yml", "misplaced-pull-secret", "9.4.1"),
    ]  # fmt: skip
    (tmp_path / "deploy/accounts.json").write_text(
        json.dumps({"kind": "ServiceAccount", "metadata": {"name": "own"}, "imagePullSecrets": [{"name": "default-secret"}]})
    )
    assert json.loads(run("deploy", "--format", "json")[1])["findings"][0]["rule"] == "misplaced-pull-secret"
    assert run("deploy", "--registry", "h.example.com")[0] == 0
    assert len(Sarif.model_validate_json(run("deploy", "--format", "sarif")[1]).runs[0].results or []) == 1
    text = run("deploy/b.yml", "--lang", "zh")[1]
    assert "deploy/b.yml:21: 错误 misplaced-pull-secret" in text


def test_the_registry_of_the_store_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.tar").write_bytes(tar_of(files(Image(tags=("h.example.com/team/a:1",)))))
    import_archives(["a.tar"], "s", registry="h.example.com", user="root")
    (tmp_path / "a.yaml").write_text(pod(image="h.example.com/team/a:1"))
    assert run("./a.yaml")[0] == 0
    assert run("./a.yaml", "--store", "s")[0] == 1
    assert run("./a.yaml", "--store", "s", "--registry", "other")[0] == 0
