"""Images in Kubernetes manifests: what changes, byte for byte, and what stands in the way."""

from __future__ import annotations

import contextlib
import difflib
import json
import multiprocessing
import os
import shutil
import stat
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from swrbatch import UsageError
from swrbatch.manifests import MAX_FILE, PATCH_SUFFIX, Workload
from swrbatch.patches import patch_text, write_patch
from swrbatch.policy import Reference
from swrbatch.workloads import UpdateResult, repository_of, update_images
from swrbatch.yamltree import BadYaml, read_tree, shape

HOST = "swr.cn-north-1.example.com"
OLD, NEW = f"{HOST}/team/nginx:v1", Reference(HOST, "team", "nginx", "v2")
NGINX = Workload("Deployment", "nginx")

DEPLOYMENT = f"""\
# The shop's front.   (two spaces  stay)
apiVersion: apps/v1
kind: Deployment
metadata:
    name: nginx   # found by this
    labels: {{app: nginx,  tier: "front"}}
spec:
    replicas: 3
    template:
        spec:
            initContainers:
            -   name: wait
                image: busybox:1.36
            containers:
            -   image: {OLD}   # upgraded by the trigger
                name: web
                command: ["nginx",
                          "-g"]
            -   name: log
                image: {HOST}/team/fluent:v7
"""
STATEFULSET = f"""\
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db, namespace: prod}}
spec: {{template: {{spec: {{containers: [{{name: db, image: '{HOST}/team/db:v1'}}, {{image: "{OLD}", name: side}}]}}}}}}
"""


def write(folder: Path, **files: str | bytes) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        path = folder / f"{name}.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def update(folder: Path, workload: Workload = NGINX, *containers: str, image: Reference = NEW, **more: Any) -> UpdateResult:
    result = update_images(os.fspath(folder), workload, image, containers, **more)
    assert not list(folder.rglob(".*")), "a temporary file was left"
    return result


def refused(folder: Path, workload: Workload = NGINX, *containers: str) -> str:
    """The error of an update that must change nothing."""
    before = contents(folder)
    result = update(folder, workload, *containers)
    assert result.error and not result.changed and contents(folder) == before
    return result.error


# --- what changes ------------------------------------------------------------------------------------------------------


def test_only_the_image_changes(tmp_path: Path) -> None:
    """All containers of the repository, and no other; the diff is one line, and in it only the image."""
    folder = write(tmp_path / "k8s", web=DEPLOYMENT, db=STATEFULSET)
    result = update(folder)
    assert result.error == "" and result.files == ("web.yaml",) and result.unchanged == () and result.skipped == ()
    (edit,) = result.changed
    assert (edit.file, edit.line, edit.container, edit.init, edit.before, edit.after) == (
        "web.yaml",
        15,
        "web",
        False,
        OLD,
        str(NEW),
    )
    diff = list(difflib.ndiff(DEPLOYMENT.splitlines(), (folder / "web.yaml").read_text().splitlines()))
    assert [line for line in diff if line[0] in "+-"] == [
        f"-             -   image: {OLD}   # upgraded by the trigger",
        f"+             -   image: {NEW}   # upgraded by the trigger",
    ]
    assert (folder / "web.yaml").read_text() == DEPLOYMENT.replace(OLD, str(NEW))
    assert (folder / "db.yaml").read_text() == STATEFULSET


def test_again_changes_nothing(tmp_path: Path) -> None:
    folder = write(tmp_path / "k8s", web=DEPLOYMENT)
    update(folder)
    before = (folder / "web.yaml").stat()
    result = update(folder)
    assert result.changed == () and result.files == () and result.error == ""
    assert [edit.container for edit in result.unchanged] == ["web"]
    after = (folder / "web.yaml").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)


def test_named_containers_get_it_whatever_they_have(tmp_path: Path) -> None:
    folder = write(tmp_path / "k8s", web=DEPLOYMENT)
    result = update(folder, NGINX, "log", "wait")
    assert [(e.container, e.init, e.before) for e in result.changed] == [
        ("log", False, f"{HOST}/team/fluent:v7"),
        ("wait", True, "busybox:1.36"),
    ]
    expected = DEPLOYMENT.replace(f"{HOST}/team/fluent:v7", str(NEW)).replace("busybox:1.36", str(NEW))
    assert (folder / "web.yaml").read_text() == expected


def test_the_guides_example(tmp_path: Path) -> None:
    """4.7: nginx v1 → v2; then the file is made read-only, and the result says why it failed."""
    folder = write(tmp_path / "k8s", web=DEPLOYMENT)
    assert update(folder).files == ("web.yaml",)
    (folder / "web.yaml").chmod(0o444)
    before = contents(folder)
    result = update(folder, image=Reference(HOST, "team", "nginx", "v3"))
    assert result.error == "web.yaml is read-only: make it writable (chmod u+w), or use --patch-only"
    assert result.changed == () and contents(folder) == before


@pytest.mark.parametrize(
    "written",
    [
        "{image}",
        "'{image}'",
        '"{image}"',
        "&web {image}",
        "!!str {image}",
        "!!str &web '{image}'",
        "&web !!str\n          {image}",
        "|-\n          {image}",
        ">-\n          {image}",
        "   {image}      # why",
        "\n          {image}",
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_ways_to_write_an_image(tmp_path: Path, written: str, end: str, bom: str) -> None:
    """Quotes, anchors, tags, block scalars, line ends and a byte order mark stay."""
    template = "\n".join(
        [
            "# 中文注释 😀",
            "kind: Deployment",
            "apiVersion: apps/v1",
            'metadata: {"name": \'nginx\', "namespace": default}',
            "spec:",
            "  template:",
            "    spec:",
            "      containers:",
            "      - name: web",
            f"        image: {written}",
            "        env: [{name: A, value: 'x'}]",
            "",
        ]
    )
    made = [bom + template.replace("{image}", image).replace("\n", end) for image in (OLD, str(NEW))]
    folder = write(tmp_path / "k8s", web=made[0])
    result = update(folder)
    assert (result.error, len(result.changed)) == ("", 1)
    assert (folder / "web.yaml").read_bytes() == made[1].encode()


def test_flow_style_and_other_namespaces(tmp_path: Path) -> None:
    folder = write(tmp_path / "k8s", db=STATEFULSET, web=DEPLOYMENT)
    assert "there is no StatefulSet default/db" in refused(folder, Workload("StatefulSet", "db"))
    assert "there is no Deployment prod/db" in refused(folder, Workload("Deployment", "db", "prod"))
    result = update(folder, Workload("StatefulSet", "db", "prod"))
    assert [edit.container for edit in result.changed] == ["side"]
    assert (folder / "db.yaml").read_text() == STATEFULSET.replace(OLD, str(NEW))


def test_many_documents_and_files(tmp_path: Path) -> None:
    """The workload in several documents and folders; a document that is no YAML (a template) does not hide the others."""
    template = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {{ .Release.Name }}-nginx\n{{- if .Values.x }}\n"
    text = f"---\n{DEPLOYMENT}---\n{template}--- # next\n{STATEFULSET}---\n{DEPLOYMENT}...\n"
    folder = write(tmp_path / "k8s", many=text)
    (folder / "sub").mkdir()
    overlay = (
        f"apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: nginx\nspec:\n  template:\n    spec:\n"
        f"      containers:\n      - {{name: web, image: {OLD}}}\n"
    )
    (folder / "sub" / "overlay.yml").write_text(overlay)
    (folder / "sub" / "values.txt").write_text(DEPLOYMENT)
    (folder / ".git").mkdir()
    (folder / ".git" / "x.yaml").write_text(DEPLOYMENT)
    result = update_images(os.fspath(folder), NGINX, NEW)
    here = [("many.yaml", n) for n, line in enumerate(text.split("\n"), 1) if "upgraded by" in line]
    assert [(edit.file, edit.line) for edit in result.changed] == [*here, ("sub/overlay.yml", 9)]
    assert [skip.file for skip in result.skipped] == ["many.yaml"]
    assert result.skipped[0].reason.startswith("it cannot be used: line 2")
    first, second = text.split(template)
    new = (
        first.replace(OLD, str(NEW))
        + template
        + "".join(
            part if "StatefulSet" in part else part.replace(OLD, str(NEW))
            for part in second.replace("---\n# The", "\0---\n# The").split("\0")
        )
    )
    assert (folder / "many.yaml").read_text() == new
    assert (folder / "sub/overlay.yml").read_text() == overlay.replace(OLD, str(NEW))
    assert (folder / ".git/x.yaml").read_text() == (folder / "sub/values.txt").read_text() == DEPLOYMENT


def test_json_and_lists(tmp_path: Path) -> None:
    manifest = yaml.safe_load(DEPLOYMENT)
    folder = tmp_path / "k8s"
    folder.mkdir()
    one = json.dumps(manifest, indent=1)
    many = json.dumps({"kind": "List", "apiVersion": "v1", "items": [yaml.safe_load(STATEFULSET), manifest]})
    (folder / "one.json").write_text(one)
    (folder / "many.json").write_text(many)
    assert update(folder).files == ("many.json", "one.json")
    assert (folder / "one.json").read_text() == one.replace(OLD, str(NEW))
    assert json.loads((folder / "many.json").read_text())["items"][1] == json.loads(one.replace(OLD, str(NEW)))
    assert json.loads((folder / "many.json").read_text())["items"][0] == yaml.safe_load(STATEFULSET)


def test_which_images_are_of_a_repository() -> None:
    for text in (OLD, f"{HOST}/team/nginx", f"{HOST.upper()}/team/nginx:x", f"{OLD}@sha256:{'0' * 64}", f" {HOST}/team/nginx "):
        assert repository_of(text) == repository_of(str(NEW))
    for text in (
        "nginx:v1",
        "team/nginx:v1",
        f"{HOST}/team/nginx2:v1",
        f"{HOST}/team/sub/nginx:v1",
        f"{HOST}:443/team/nginx:v1",
        "",
    ):
        assert repository_of(text) != repository_of(str(NEW))


def test_other_groups_of_the_same_kind_are_left_alone(tmp_path: Path) -> None:
    folder = write(tmp_path / "k8s", web=DEPLOYMENT.replace("apps/v1", "fleet.example.com/v1"))
    assert "there is no Deployment default/nginx" in refused(folder)
    folder = write(tmp_path / "k8s", web=DEPLOYMENT.replace("apps/v1", "extensions/v1beta1"))
    assert update(folder).files == ("web.yaml",)


# --- anchors -----------------------------------------------------------------------------------------------------------

ANCHORS = """\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: nginx}}
spec:
  template:
    spec:
      containers:
      - name: one
        image: {one}
      - name: two
        image: {two}
      - name: three
        image: {three}
"""


def anchored(folder: Path, one: str, two: str, three: str) -> str:
    text = ANCHORS.format(one=one, two=two, three=three)
    write(folder, web=text)
    return text


def test_an_anchor_whose_aliases_all_change_is_changed_itself(tmp_path: Path) -> None:
    text = anchored(tmp_path / "k", f"&img {OLD}", "*img", "*img")
    assert len(update(tmp_path / "k").changed) == 3
    assert (tmp_path / "k/web.yaml").read_text() == text.replace(OLD, str(NEW))


def test_an_alias_alone_is_replaced(tmp_path: Path) -> None:
    anchored(tmp_path / "k", f"&img {OLD}", "*img", "*img")
    assert [edit.container for edit in update(tmp_path / "k", NGINX, "two").changed] == ["two"]
    assert (tmp_path / "k/web.yaml").read_text() == ANCHORS.format(one=f"&img {OLD}", two=NEW, three="*img")


def test_what_others_use_is_not_changed(tmp_path: Path) -> None:
    """The anchor's own container alone: its text cannot change without the aliases'."""
    anchored(tmp_path / "k", f"&img {OLD}", "*img", "*img")
    said = refused(tmp_path / "k", NGINX, "one", "two")
    assert said == "web.yaml, line 9: the image of one is shared through an anchor: write one of its own"


def test_aliases_outside_of_containers_count(tmp_path: Path) -> None:
    text = ANCHORS.format(one=f"&img {OLD}", two="*img", three="*img").replace(
        "{name: nginx}", "{name: nginx, annotations: &a {}}"
    )
    write(tmp_path / "k", web=text + "status: {image: *img}\n")
    assert "shared through an anchor" in refused(tmp_path / "k")


def test_an_anchor_elsewhere_stays(tmp_path: Path) -> None:
    text = f"x-image: &img {OLD}\n" + ANCHORS.format(one="*img", two="*img", three="a:1")
    write(tmp_path / "k", web=text)
    assert len(update(tmp_path / "k").changed) == 2
    assert (tmp_path / "k/web.yaml").read_text() == text.replace("*img", str(NEW))


def test_shared_containers_and_merges(tmp_path: Path) -> None:
    """A container that is an alias, or merges its image: with all that use it, or not at all."""
    whole = ANCHORS.replace("      - name: one\n", "      - &c\n        name: one\n").format(one=OLD, two="a:1", three="b:1")
    write(tmp_path / "k", web=whole + "      initContainers: [*c]\n")
    result = update(tmp_path / "k")
    assert [(edit.container, edit.init) for edit in result.changed] == [("one", False), ("one", True)]
    assert (tmp_path / "k/web.yaml").read_text() == whole.replace(OLD, str(NEW)) + "      initContainers: [*c]\n"

    base = f"x-base: &base {{image: {OLD}}}\n" + ANCHORS.replace("        image: {one}\n", "        <<: *base\n").format(
        one="", two="a:1", three="b:1"
    )
    write(tmp_path / "k", web=base)
    assert "the image of one is shared through an anchor" in refused(tmp_path / "k")

    own = ANCHORS.replace("      - name: one\n", "      - &c\n        name: one\n").format(one=OLD, two="a:1", three="b:1")
    write(tmp_path / "k", web=own + "      - {<<: *c, name: four}\n")
    assert [edit.container for edit in update(tmp_path / "k").changed] == ["one", "four"]
    write(tmp_path / "k", web=own + "      - {<<: *c, name: four}\n")
    assert "the image of one is shared" in refused(tmp_path / "k", NGINX, "one")
    assert "the image of four is shared" in refused(tmp_path / "k", NGINX, "four")


# --- what stands in the way --------------------------------------------------------------------------------------------


def test_what_is_not_there(tmp_path: Path) -> None:
    folder = write(tmp_path / "k8s", web=DEPLOYMENT)
    assert (
        refused(folder, Workload("Deployment", "ngin")) == f"there is no Deployment default/ngin in the manifests below {folder}"
    )
    assert refused(folder, NGINX, "web", "web2") == "Deployment default/nginx has no container web2; it has: log, wait, web"
    other = DEPLOYMENT.replace(OLD, "nginx:1.25")
    write(folder, web=other)
    assert refused(folder) == (
        f"no container of Deployment default/nginx uses {HOST}/team/nginx: name the containers to be updated"
    )
    assert "No such file" in update(tmp_path / "nowhere").error
    assert "Not a directory" in update_images(os.fspath(folder / "web.yaml"), NGINX, NEW).error
    for bad in (
        ("Job", "nginx"),
        ("Deployment", "../x"),
        ("Deployment", ""),
        ("Deployment", "nginx", "a/b"),
        ("Deployment", "x" * 254),
    ):
        with pytest.raises(UsageError):
            Workload(*bad)


def test_a_template_that_is_yaml_is_not_overwritten(tmp_path: Path) -> None:
    text = DEPLOYMENT.replace(OLD, '"{{ .Values.image }}:{{ .Values.tag }}"')
    folder = write(tmp_path / "k8s", web=text)
    assert "line 15: the image is an expression of a template" in refused(folder, NGINX, "web")
    write(folder, web=DEPLOYMENT.replace(OLD, "{{ .Values.image }}"))
    assert "has no container web" in refused(folder, NGINX, "web")


@pytest.mark.parametrize(
    "text", ["", "image: [a]", "image: {a: b}", "image:", "image: ''", "- a", "a", "image: a\n              image: b"]
)
def test_images_that_are_none(tmp_path: Path, text: str) -> None:
    made = (
        DEPLOYMENT.partition("            initContainers")[0]
        + f"            containers:\n            - name: web\n              {text}\n"
    )
    folder = write(tmp_path / "k8s", web=made)
    assert refused(folder, NGINX, "web")


def test_what_cannot_be_looked_at_is_told(tmp_path: Path) -> None:
    """And the workload is found in the file that is sound."""
    folder = write(
        tmp_path / "k8s",
        a_broken=DEPLOYMENT + "  bad: [\n",
        b_latin=DEPLOYMENT.replace("two", "zw\xf6lf").encode("latin-1"),
        c_large=DEPLOYMENT + "#" * MAX_FILE,
        d_control=DEPLOYMENT + "# \x07\n",
        f_deep=DEPLOYMENT + "x: " + "[" * 200 + "]" * 200 + "\n",
        g_alias=DEPLOYMENT + "x: *nowhere\n",
        z_good=DEPLOYMENT,
    )
    outside = write(tmp_path / "outside", secret=DEPLOYMENT)
    (folder / "e_link.yaml").symlink_to(outside / "secret.yaml")
    (folder / "e_sub").symlink_to(outside)
    (folder / "e_inner.yaml").symlink_to(folder / "z_good.yaml")
    (folder / "e_gone.yaml").symlink_to(folder / "nothing.yaml")
    os.mkfifo(folder / "h_pipe.yaml")
    result = update(folder)
    assert result.error == "" and result.files == ("z_good.yaml",)
    told = {skip.file: skip.reason for skip in result.skipped}
    assert told.keys() == {
        *(
            "a_broken.yaml",
            "b_latin.yaml",
            "c_large.yaml",
            "d_control.yaml",
            "e_link.yaml",
            "e_sub",
            "f_deep.yaml",
            "g_alias.yaml",
        ),
        "h_pipe.yaml",
    }
    assert told["e_link.yaml"] == told["e_sub"] == "it is a link that leaves the folder"
    assert told["b_latin.yaml"] == "it is not UTF-8" and "more than 2 MiB" in told["c_large.yaml"]
    assert "nested deeper" in told["f_deep.yaml"] and "has no anchor" in told["g_alias.yaml"]
    assert (outside / "secret.yaml").read_text() == DEPLOYMENT


def test_bombs_of_aliases(tmp_path: Path) -> None:
    """A few lines that stand for 2^60 things, in merges, in lists and in the workload's own containers: told at once."""
    lines = ["x0: &x0 {image: a}"] + [f"x{n}: &x{n} {{<<: [*x{n - 1}, *x{n - 1}]}}" for n in range(1, 60)]
    lists = ["y0: &y0 [a]"] + [f"y{n}: &y{n} [*y{n - 1}, *y{n - 1}]" for n in range(1, 60)]
    bomb = "\n".join([*lines, *lists]) + "\n" + DEPLOYMENT
    started = time.monotonic()
    folder = write(
        tmp_path / "k8s",
        a=bomb.replace(f"image: {OLD}", "<<: *x59"),
        b=bomb.replace("command:", "args: *y59\n                command:"),
        c=bomb + "            - *c\n" * 1,
        d=bomb.replace("            -   image", "            - &c\n                image") + "            - *c\n" * 2000,
    )
    result = update(folder)
    assert time.monotonic() - started < 30
    assert result.files == ("b.yaml",) or "shared" in result.error
    assert {skip.file for skip in result.skipped} >= {"c.yaml", "d.yaml"}


def test_a_self_containing_anchor_ends(tmp_path: Path) -> None:
    folder = write(tmp_path / "k8s", web="&a\n<<: *a\n" + DEPLOYMENT + "items: &l [*l, *a]\n")
    assert "shared through an anchor" in refused(folder)
    write(folder, web="x: &x {<<: *x}\n" + DEPLOYMENT + "items: &l [*l]\n")
    assert update(folder).files == ("web.yaml",)


# --- files -------------------------------------------------------------------------------------------------------------


def test_mode_and_owner_stay(tmp_path: Path) -> None:
    folder = write(tmp_path / "k8s", web=DEPLOYMENT)
    path = folder / "web.yaml"
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 1234, 4321)
    before = path.stat()
    update(folder)
    after = path.stat()
    assert (stat.S_IMODE(after.st_mode), after.st_uid, after.st_gid) == (0o640, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino


def test_one_read_only_file_of_two_changes_neither(tmp_path: Path) -> None:
    folder = write(tmp_path / "k8s", a=DEPLOYMENT, b=DEPLOYMENT)
    (folder / "b.yaml").chmod(0o400)
    assert "b.yaml is read-only" in refused(folder)


def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    folder = write(tmp_path / "k8s", web=DEPLOYMENT)
    before = contents(folder)
    assert update(folder, dry_run=True).files == ("web.yaml",)
    assert contents(folder) == before


def _set(folder: str, container: str, barrier: Any) -> None:
    barrier.wait()
    assert update_images(folder, NGINX, NEW, [container]).error == ""


def test_updates_at_once_lose_nothing(tmp_path: Path) -> None:
    """Each sets another container of the same file."""
    names = [f"c{n}" for n in range(6)]
    text = DEPLOYMENT.partition("            initContainers")[0] + "            containers:\n"
    text += "".join(f"            - {{name: {name}, image: 'a:{name}'}}\n" for name in names)
    folder = write(tmp_path / "k8s", web=text)
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(len(names))
    running = [context.Process(target=_set, args=(os.fspath(folder), name, barrier)) for name in names]
    for each in running:
        each.start()
    for each in running:
        each.join(60)
    assert [each.exitcode for each in running] == [0] * len(names)
    assert (folder / "web.yaml").read_text().count(str(NEW)) == len(names)


# --- patches -----------------------------------------------------------------------------------------------------------


def test_patches(tmp_path: Path) -> None:
    """The manifest stays; the patch holds what an update would set, is no manifest itself, and is written once."""
    folder = write(tmp_path / "k8s", web=DEPLOYMENT)
    (folder / "web.yaml").chmod(0o444)
    before = contents(folder)
    result = write_patch(os.fspath(folder), NGINX, NEW, ["web", "wait"], to=os.fspath(folder / "patches"))
    assert result.error == "" and result.patch == os.fspath(folder / f"patches/deployment.default.nginx{PATCH_SUFFIX}")
    assert [edit.container for edit in result.changed] == ["wait", "web"] or len(result.changed) == 2
    patch = Path(result.patch)
    assert yaml.safe_load(patch.read_text()) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "nginx", "namespace": "default"},
        "spec": {
            "template": {
                "spec": {
                    "containers": [{"name": "web", "image": str(NEW)}],
                    "initContainers": [{"name": "wait", "image": str(NEW)}],
                }
            }
        },
    }
    written = patch.stat()
    again = write_patch(os.fspath(folder), NGINX, NEW, ["web", "wait"], to=os.fspath(folder / "patches"))
    assert (again.patch, patch.stat().st_mtime_ns) == (result.patch, written.st_mtime_ns)
    assert {name: data for name, data in contents(folder).items() if not name.startswith("patches/")} == before
    shutil.rmtree(folder / "patches")
    missing = write_patch(os.fspath(folder), NGINX, NEW, ["nope"], to=os.fspath(folder / "patches"))
    assert missing.error and missing.patch == "" and not (folder / "patches").exists()
    assert write_patch(os.fspath(folder), NGINX, NEW, to=os.fspath(folder / "web.yaml")).error


def test_names_that_yaml_reads_as_something_else() -> None:
    result = yaml.safe_load(patch_text(Workload("Deployment", "1"), {(False, "on"): str(NEW)}))
    assert result["metadata"]["name"] == "1"
    assert result["spec"]["template"]["spec"] == {"containers": [{"name": "on", "image": str(NEW)}]}


def test_a_patch_keeps_what_other_triggers_set(tmp_path: Path) -> None:
    """Two triggers of one workload, of other containers: one patch, in any order the same."""
    folder, other = write(tmp_path / "k8s", web=DEPLOYMENT), Reference(HOST, "team", "fluent", "v8")
    made = []
    for number, order in enumerate(([(NEW, []), (other, ["log"])], [(other, ["log"]), (NEW, [])])):
        to = tmp_path / f"patches{number}"
        for image, containers in order:
            result = write_patch(os.fspath(folder), NGINX, image, containers, to=os.fspath(to))
            assert result.error == ""
        made.append(contents(to))
    assert made[0] == made[1]
    (text,) = made[0].values()
    assert yaml.safe_load(text)["spec"]["template"]["spec"]["containers"] == [
        {"name": "log", "image": str(other)},
        {"name": "web", "image": str(NEW)},
    ]
    patch = Path(result.patch)
    patch.write_text("not: [a patch")
    assert "cannot be added to" in write_patch(os.fspath(folder), NGINX, NEW, to=os.fspath(to)).error
    assert patch.read_text() == "not: [a patch"


# --- the tree ----------------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc:-#' ", max_size=6), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.booleans(), st.sampled_from([None, "'", '"', "|", ">"]))
def test_positions_are_those_of_the_text(value: Any, flow: bool, style: str | None) -> None:
    """Whatever PyYAML writes: every scalar's span, cut out and read alone, is that scalar."""
    text = yaml.safe_dump([value], default_flow_style=flow or None, default_style=style, allow_unicode=True)
    (root,) = read_tree(text)
    assert len(shape([root])) >= 2
    for kind, _, said in shape([root]):
        assert (kind in ("Scalar", "Sequence", "Mapping", "Alias") and said is not None) or kind == "Alias"
    stack: list[Any] = [root]
    while stack:
        node = stack.pop()
        if hasattr(node, "value") and node.style in ("'", '"'):
            assert text[node.end - 1] == node.style
            assert yaml.compose(text[node.start : node.end].replace("\n", "\n ")).value == node.value
        stack += getattr(node, "items", [])
        stack += [each for pair in getattr(node, "pairs", []) for each in pair]


@given(st.text(max_size=60))
def test_any_text_is_a_tree_or_bad_yaml(text: str) -> None:
    with contextlib.suppress(BadYaml):
        assert shape(read_tree(text)) is not None


@given(st.text("ab:- \n#'\"[]{},&*!|>%?\t\r", max_size=40))
def test_any_signs_are_a_tree_or_bad_yaml(text: str) -> None:
    with contextlib.suppress(BadYaml):
        assert shape(read_tree(text)) is not None
