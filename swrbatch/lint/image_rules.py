"""The rules on an image's config and history. Where a rule on Dockerfiles means the same, its own check reads the history.

What an image inherits is its base's matter: steps and layers of the base give no finding of these rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ..redaction import is_secret
from . import file_rules, package_rules, run_rules
from .images import split_image
from .rule import ImageForm, ImageHit, Level, Rule, image_form, image_hit, image_rule
from .shell import commands_of, plain_command, script_of
from .started import started_names
from .steps import Step
from .view import ImageView

_KEYWORDS: Final = {
    "config.Cmd": "CMD", "config.Entrypoint": "ENTRYPOINT", "config.ExposedPorts": "EXPOSE", "config.User": "USER", "config.Volumes": "VOLUME",
    "config.Labels": "LABEL", "config.WorkingDir": "WORKDIR", "config.Healthcheck": "HEALTHCHECK",
}  # fmt: skip
_ATTRIBUTES: Final = {
    "CMD": "cmd", "ENTRYPOINT": "entrypoint", "EXPOSE": "exposed_ports", "USER": "user", "VOLUME": "volumes", "LABEL": "labels",
    "WORKDIR": "working_dir", "HEALTHCHECK": "healthcheck",
}  # fmt: skip


def inherited(view: ImageView, keyword: str) -> bool:
    """Whether a setting is the base's and unchanged, as far as can be told."""
    if view.base.head is not None:
        return bool(getattr(view.run, _ATTRIBUTES[keyword]) == getattr(view.base.head.run, _ATTRIBUTES[keyword]))
    if view.base.kind == "unknown" or view.is_base:
        return False
    own = any(step.keyword == keyword for step in view.own_steps)
    return not own and any(step.keyword == keyword for step in view.history.steps[: view.base.steps])


def through_build(of: Rule, view: ImageView, place: str = "config") -> Iterator[ImageHit]:
    """What a rule on Dockerfiles finds in the history and the config; `place` stands for the FROM of a Dockerfile."""
    for found in of.check(view.build) if of.check is not None else ():
        stands = view.stands_for(found.line)
        if isinstance(stands, Step):
            if view.history.fits and stands.position >= view.base.steps:
                # The classic builder has put a hash for the source: a folder may be the whole source, or a part of it.
                level = Level.INFO if not stands.given else found.level
                yield ImageHit(place=stands.place, layer=stands.layer, params=found.params, level=level)
        elif stands not in _KEYWORDS or not inherited(view, _KEYWORDS[stands]):
            yield ImageHit(place=stands or place, params=found.params, level=found.level)


def _same(of: Rule, level: Level | None = None) -> ImageForm:
    """The form of a rule whose own check says all."""

    def check(view: ImageView) -> Iterator[ImageHit]:
        return through_build(of, view)

    return image_form(of, level)(check)


def _of_a_service(of: Rule, place: str) -> ImageForm:
    """The form of a rule that misses a setting, which the image of a bare root file system does not need."""

    def check(view: ImageView) -> Iterator[ImageHit]:
        if not view.is_base:
            yield from through_build(of, view, place)

    return image_form(of)(check)


SAME: Final = (
    _same(package_rules.several_services), _same(package_rules.package_upgrade),
    _same(package_rules.update_alone), _same(package_rules.mixed_frequency), _same(package_rules.consecutive_runs), _same(run_rules.run_cd),
    _same(file_rules.add_url), _same(file_rules.copy_before_install),
    _same(file_rules.ssh_port), _same(file_rules.maintainer), _of_a_service(run_rules.no_command, "config.Cmd"),
    _of_a_service(run_rules.missing_healthcheck, "config.Healthcheck"), _of_a_service(file_rules.missing_expose, "config.ExposedPorts"),
)  # fmt: skip


@image_rule(
    "not-evaluable", 0, Level.INFO,
    ("the history has {made} steps that made a layer, and there are {layers} layers: rules on the history were not evaluated",
     "构建历史中有{made}个生成镜像层的步骤，而镜像有{layers}层：未检查与构建历史有关的规则"),
    ("build the image with docker build or buildah, and do not squash it", "请用docker build或buildah构建镜像，且不要合并镜像层"),
    bad="FROM node:22\nRUN make\nRUN make install\n",
    good="FROM node:22\nRUN make && make install\n",
)  # fmt: skip
def not_evaluable(view: ImageView) -> Iterator[ImageHit]:
    if not view.history.fits:
        yield image_hit("history", made=view.history.made, layers=view.history.layers)


@image_form(
    file_rules.floating_tag,
    message=("the image is named {image}: what that means changes from day to day", "镜像名称为{image}：所指的镜像随时可能变化"),
    way_out=("give it a version: docker tag {name}:VERSION", "用docker tag指定版本：{name}:版本号"),
)
def floating_tag(view: ImageView) -> Iterator[ImageHit]:
    for name in view.head.names or ("<none>",):
        image = split_image(name)
        if not image.digest and image.tag in ("", "latest"):
            yield image_hit("RepoTags", image=name, name="NAME" if name == "<none>" else image.name)


@image_form(file_rules.add_local)
def add_local(view: ImageView) -> Iterator[ImageHit]:
    for found in through_build(file_rules.add_local, view):
        step = view.history.step_at(found.place)
        if step is None or step.given or not step.text.startswith("file:"):
            yield found
        elif step.layer is not None and _copied_as_it_is(view, step.layer, step.text.split()[-1]):
            yield ImageHit(place=found.place, layer=found.layer, params=found.params)


def _copied_as_it_is(view: ImageView, layer: int, target: str) -> bool:
    """Whether a layer holds one file, at the very place that the ADD names: of an archive the content would lie below it."""
    files = [member for member in view.layers[layer].members if member.kind == "file"]
    return len(files) == 1 and files[0].name.strip("./") == target.strip("/")


@image_form(
    run_rules.root_user,
    message=("the container runs as root: the config's User is {user}", "容器以root运行：镜像配置中的User为{user}"),
)
def root_user(view: ImageView) -> Iterator[ImageHit]:
    if not drops_privileges(view):
        yield from through_build(run_rules.root_user, view)


@image_form(
    run_rules.missing_user,
    message=("the config names no User: the container runs as root", "镜像配置中没有User：容器以root运行"),
)
def missing_user(view: ImageView) -> Iterator[ImageHit]:
    if not view.is_base and not drops_privileges(view):
        yield from through_build(run_rules.missing_user, view, "config.User")


_DROPS: Final = re.compile(r"\b(gosu|su-exec|setpriv|s6-setuidgid|runuser|su)\s")


def drops_privileges(view: ImageView) -> bool:
    """Whether the entrypoint is a script that goes on as another user."""
    words = view.run.entrypoint or view.run.cmd
    found = view.find_program(words[0]) if words else None
    text = view.text_at(found.path) if found is not None and not isinstance(found, bool) else None
    return text is not None and _DROPS.search(text) is not None


@image_form(
    file_rules.secret_in_build,
    message=("{keyword} {name} looks like a secret: everybody who has the image can read its value (***)",
             "{keyword} {name}疑似敏感信息：任何得到镜像的人都能读取其值（***）"),
    way_out=("pass it at run time or with RUN --mount=type=secret, build the image anew, and replace the secret",
             "在运行时传入或用RUN --mount=type=secret传给构建，重新构建镜像，并更换该密钥"),
)  # fmt: skip
def secret_in_build(view: ImageView) -> Iterator[ImageHit]:
    known = set(view.base.head.run.env) if view.base.head is not None else set()
    final = {pair for pair in view.run.env if is_secret(*pair)}
    for name, _ in sorted(final - known):
        yield image_hit("config.Env", mark=name, keyword="ENV", name=name)
    told: set[tuple[str, str, str]] = set()
    for step in view.history.steps[view.base.steps if view.base.kind == "known" else 0 :]:
        pairs = [("ARG", pair) for pair in step.arguments] + [(step.keyword, pair) for pair in step.pairs]
        for keyword, pair in pairs:
            value = (pair.value or "").strip("\"'")
            # Each RUN repeats the arguments, and the config has what ENV set last.
            if (pair.key, pair.value or "") in final or (keyword, pair.key, value) in told or not is_secret(pair.key, value):
                continue
            told.add((keyword, pair.key, value))
            guess = view.base.kind == "guessed" and step.position < view.base.steps
            yield image_hit(step.place, layer=step.layer, mark=pair.key, keyword=keyword, name=pair.key, guess=guess)


@image_rule(
    "missing-workdir", 7, Level.INFO,
    ("the config has no WorkingDir: the container starts in /", "镜像配置中没有WorkingDir：容器的工作目录为/"),
    ("set one: WORKDIR /app", "设置工作目录：WORKDIR /app"),
    bad='FROM debian:13\nCOPY app /app\nCMD ["/app/run"]\n',
    good='FROM debian:13\nWORKDIR /app\nCOPY app /app\nCMD ["/app/run"]\n',
)  # fmt: skip
def missing_workdir(view: ImageView) -> Iterator[ImageHit]:
    if not view.is_base and not view.run.working_dir.strip("/"):
        yield image_hit("config.WorkingDir")


@image_form(
    file_rules.missing_label,
    message=(
        "no label of its own: nothing says what the image is, whose and which version",
        "镜像没有自己的标签：缺少版本、维护者等元数据",
    ),
)
def missing_label(view: ImageView) -> Iterator[ImageHit]:
    labels = {pair for pair in view.run.labels if pair[0] != "io.buildah.version"}
    if view.base.head is not None:
        labels -= set(view.base.head.run.labels)
    if not view.is_base and (not labels or inherited(view, "LABEL")):
        yield image_hit("config.Labels")


@image_form(run_rules.shell_form)
def shell_form(view: ImageView) -> Iterator[ImageHit]:
    yield from through_build(run_rules.shell_form, view)
    shell = view.run.shell or ("/bin/sh", "-c")
    for keyword, place, words in (("ENTRYPOINT", "config.Entrypoint", view.run.entrypoint), ("CMD", "config.Cmd", view.run.cmd)):
        script = script_of(plain_command(words)) if words and words[:-1] != shell else None
        if script is None or inherited(view, keyword):
            continue
        # Written as an array, with a shell of its own: somebody wanted a shell, and many shells give way to a single command.
        commands = commands_of(script)
        if commands and "exec" not in commands[-1].wrapped:
            yield image_hit(place, level=Level.INFO, keyword=keyword, array=run_rules.array_form(script))


@image_form(run_rules.entrypoint_hides_command)
def entrypoint_hides_command(view: ImageView) -> Iterator[ImageHit]:
    # A CMD of the image's own behind an ENTRYPOINT of the base's is lost, too.
    for found in run_rules.entrypoint_hides_command.check(view.build) if run_rules.entrypoint_hides_command.check else ():
        if not (inherited(view, "ENTRYPOINT") and inherited(view, "CMD")):
            yield ImageHit(place="config.Entrypoint", params=found.params, level=found.level)


# Programs of databases, and where their data lie by default.
_PROGRAMS: Final = {
    "mysqld": "/var/lib/mysql", "mariadbd": "/var/lib/mysql", "postgres": "/var/lib/postgresql/data", "mongod": "/data/db",
    "redis-server": "/data",
}  # fmt: skip


@image_form(
    file_rules.database_without_volume,
    message=("{package} is in the image and no volume holds its data", "镜像中有{package}，但没有用VOLUME保存数据"),
)
def database_without_volume(view: ImageView) -> Iterator[ImageHit]:
    if view.run.volumes:
        return
    found = list(through_build(file_rules.database_without_volume, view))
    yield from found
    program = next((name for name, *_ in started_names(view) if name in _PROGRAMS), None)
    if program is not None and not found:
        yield image_hit("config.Volumes", package=program, folder=_PROGRAMS[program])


FORMS: Final = (
    *SAME, shell_form, entrypoint_hides_command, floating_tag, add_local, root_user, missing_user, secret_in_build, missing_label,
    database_without_volume,
)  # fmt: skip
RULES: Final = (not_evaluable, missing_workdir)
