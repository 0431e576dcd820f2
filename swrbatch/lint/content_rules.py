"""The rules on what an image's layers hold: what was left behind, thrown away, and should never have been there; with exact bytes."""

from __future__ import annotations

import posixpath
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from ..sizes import counted
from . import file_rules, package_rules
from .images import DISTRIBUTIONS
from .packages import bare, installs, package_calls
from .releases import RELEASES, end_of_life, parse_release
from .rule import ImageHit, Level, image_form, image_hit, image_rule
from .view import ImageView

WORTH: Final = 1_000_000
"""Bytes from which waste is a warning."""
_TOLD: Final = 10_000
"""Bytes from which files that were thrown away are told at all: a line more in /etc/passwd is none of it."""
_LEFTOVERS: Final = (
    (re.compile(r"var/lib/apt/lists/(?!lock$|partial/|auxfiles/)"), "var/lib/apt/lists", "rm -rf /var/lib/apt/lists/*"),
    (re.compile(r"var/cache/apt/archives/(?!lock$|partial/)"), "var/cache/apt/archives", "apt-get clean"),
    (re.compile(r"var/cache/apk/"), "var/cache/apk", "apk add --no-cache"),
    (re.compile(r"etc/apk/cache/"), "etc/apk/cache", "apk add --no-cache"),
    (re.compile(r"var/cache/(yum|dnf|libdnf5)/"), "var/cache/yum, var/cache/dnf", "yum clean all"),
    (re.compile(r"var/cache/zypp/"), "var/cache/zypp", "zypper clean --all"),
    (re.compile(r"(.*/)?\.npm/_"), ".npm", "npm cache clean --force"),
)
_PIP: Final = re.compile(r"(.*/)?\.cache/pip/")


def _files(view: ImageView, layer: int) -> Iterator[tuple[str, int]]:
    """Path and bytes of the files of a layer that are not empty."""
    for member in view.layers[layer].members:
        if member.size and member.kind in ("file", "sparse file"):
            yield member.name.removeprefix("./").lstrip("/"), member.size


def _state(view: ImageView, layer: int, paths: list[str]) -> tuple[str, str]:
    """What became of these files of a layer, in English and Chinese."""
    left = sum(view.tree.layer_of(path) == layer for path in paths)
    if left == len(paths):
        return "in the final tree", "仍在最终文件系统中"
    return ("deleted or replaced later, and still in the layer", "之后被删除或替换，但仍保留在镜像层中") if not left else (
        f"{len(paths) - left} of them deleted or replaced later, and still in the layer", f"其中{len(paths) - left}个之后被删除或替换，但仍保留在镜像层中"
    )  # fmt: skip


def _left_behind(view: ImageView, layer: int, where: str, found: list[tuple[str, int]], clean: str) -> ImageHit:
    size = sum(each for _, each in found)
    own = view.is_own(layer) and view.base.kind != "unknown"
    state, state_zh = _state(view, layer, [path for path, _ in found])
    return image_hit(
        posixpath.dirname(found[0][0]), layer=layer, size=size, level=Level.WARNING if own and size >= WORTH else Level.INFO,
        guess=not view.is_own(layer), where=where, bytes=size, count=len(found), files=counted(len(found), "file"), state=state, state_zh=state_zh, cleanup=clean,
    )  # fmt: skip


def _layers(view: ImageView) -> range:
    """The layers that findings are about: those of a known base are told where it is linted itself."""
    return range(view.base.layers if view.base.kind == "known" else 0, len(view.layers))


@image_form(
    package_rules.package_leftovers,
    message=("{files} of {where} left in a layer, {bytes} bytes ({state})", "镜像层中留有{where}的{count}个文件，共{bytes}字节（{state_zh}）"),
    way_out=("clean up in the RUN that makes them: {cleanup}", "在产生这些文件的同一条RUN指令中清理：{cleanup}"),
)  # fmt: skip
def package_leftovers(view: ImageView) -> Iterator[ImageHit]:
    for layer in _layers(view):
        groups: dict[int, list[tuple[str, int]]] = defaultdict(list)
        for path, size in _files(view, layer):
            for number, (pattern, _, _) in enumerate(_LEFTOVERS):
                if pattern.match(path):
                    groups[number].append((path, size))
        for number, found in sorted(groups.items()):
            yield _left_behind(view, layer, _LEFTOVERS[number][1], found, _LEFTOVERS[number][2])


@image_form(
    package_rules.pip_cache,
    message=("{files} of pip's cache left in a layer, {bytes} bytes ({state})", "镜像层中留有pip缓存的{count}个文件，共{bytes}字节（{state_zh}）"),
)  # fmt: skip
def pip_cache(view: ImageView) -> Iterator[ImageHit]:
    for layer in _layers(view):
        found = [(path, size) for path, size in _files(view, layer) if _PIP.match(path)]
        if found:
            yield _left_behind(view, layer, ".cache/pip", found, "pip install --no-cache-dir")


@image_rule(
    "wasted-files", 3, Level.WARNING,
    ("{files} of lower layers deleted or replaced here, still in the image: {bytes} bytes, {largest} of them {path}",
     "下层的{count}个文件在此层被删除或替换，但仍占用镜像空间：共{bytes}字节，其中{path}占{largest}字节"),
    ("add, change and delete a file in one RUN; use a stage of its own for what only the build needs",
     "在同一条RUN指令中添加、修改和删除文件；仅构建需要的文件放在单独的构建阶段"),
    bad="FROM debian:13\nCOPY big.tar.gz /\nRUN tar xzf /big.tar.gz && rm /big.tar.gz\n",
    good="FROM debian:13\nADD big.tar.gz /\n",
)  # fmt: skip
def wasted_files(view: ImageView) -> Iterator[ImageHit]:
    by_layer: dict[int, list[tuple[int, str, int]]] = defaultdict(list)
    for loss in view.tree.losses:
        left_behind = any(pattern.match(loss.path) for pattern, _, _ in _LEFTOVERS) or _PIP.match(loss.path)
        if loss.since < loss.by and view.is_own(loss.by) and not left_behind:
            by_layer[loss.by].append((loss.size, loss.path, loss.since))
    for layer, losses in sorted(by_layer.items()):
        size = sum(each for each, _, _ in losses)
        if size < _TOLD:
            continue
        largest, path, _ = max(losses, key=lambda each: (each[0], each[1]))
        own = sum(each for each, _, since in losses if view.is_own(since))
        level = Level.WARNING if own >= WORTH and view.base.kind != "unknown" else Level.INFO
        yield image_hit(
            path,
            layer=layer,
            size=size,
            level=level,
            count=len(losses),
            files=counted(len(losses), "file"),
            bytes=size,
            largest=largest,
            path=path,
        )


@image_rule(
    "end-of-life-base", 6, Level.INFO,
    ("{name} {version} gets no security updates since {end}", "{name} {version}自{end}起不再提供安全更新"),
    ("take a base image of a release that is maintained", "改用仍在维护的版本作为基础镜像"),
    bad='FROM ubuntu:16.04\nCMD ["bash"]\n',
    good='FROM ubuntu:24.04\nCMD ["bash"]\n',
)  # fmt: skip
def end_of_life_base(view: ImageView) -> Iterator[ImageHit]:
    for path in RELEASES:
        text, layer = view.text_at(path), view.tree.layer_of(path)
        if text is None:
            continue
        name, version = parse_release(text)
        end = end_of_life(name, version)
        if end is not None and end < view.today and not (view.base.kind == "known" and (layer or 0) < view.base.layers):
            yield image_hit(path, layer=layer, name=name, version=version, end=end.isoformat())
        return


@image_form(
    package_rules.general_base,
    message=("{base} is a general distribution ({share}% of the image's bytes) and only {runtime} is needed on it",
             "{base}是通用发行版（占镜像的{share}%），而这里只需要{runtime}"),
)  # fmt: skip
def general_base(view: ImageView) -> Iterator[ImageHit]:
    name, _ = parse_release(next((text for path in RELEASES if (text := view.text_at(path)) is not None), ""))
    if name not in DISTRIBUTIONS or view.base.layers != 1 or not view.history.fits:
        return
    steps = view.build.stages[-1].steps
    packages = {bare(p) for step in steps for call in package_calls(step.commands) if installs(call) for p in call.packages}
    runtimes = {package_rules.RUNTIMES[package] for package in packages if package in package_rules.RUNTIMES}
    total = sum(layer.bytes for layer in view.layers)
    if len(runtimes) == 1 and total:
        share = 100 * view.layers[0].bytes // total
        yield image_hit("etc/os-release", layer=0, base=name, share=share, runtime=next(iter(runtimes)))


@image_rule(
    "secret-file", 12, Level.ERROR,
    ("{path} holds {what} (***): {state}", "{path}包含{what_zh}（***）：{state_zh}"),
    ("build the image anew without it (.dockerignore, RUN --mount=type=secret), and replace the secret: deleting the file later does not help",
     "重新构建不含该文件的镜像（.dockerignore、RUN --mount=type=secret），并更换该密钥：之后再删除文件无效"),
    bad="FROM node:22\nCOPY id_rsa /root/.ssh/\nRUN git clone git@example.com:a/b && rm /root/.ssh/id_rsa\n",
    good="FROM node:22\nRUN --mount=type=ssh git clone git@example.com:a/b\n",
)  # fmt: skip
def secret_file(view: ImageView) -> Iterator[ImageHit]:
    for layer in _layers(view):
        for found in view.layers[layer].secrets:
            left = view.tree.layer_of(found.path) == layer
            state = ("in the final tree", "仍在最终文件系统中") if left else (
                "deleted or replaced later, and still in the layer", "之后被删除或替换，但仍保留在镜像层中"
            )  # fmt: skip
            level = Level.INFO if found.public else Level.WARNING if found.encrypted else Level.ERROR
            yield image_hit(
                found.path, layer=layer, level=level, guess=view.base.kind == "guessed" and not view.is_own(layer),
                path=found.path, what=found.what, what_zh=found.what_zh, state=state[0], state_zh=state[1],
            )  # fmt: skip


_VENDORED: Final = re.compile(
    r"(^|.*/)(node_modules|vendor|site-packages|dist-packages|gems|bower_components|pkg/mod|go/src|\.cargo|testdata)/|(usr|lib|opt/conda|var/lib)/"
)
_BUILD_FILE: Final = re.compile(r"(.*/)?(Dockerfile|Containerfile|docker-compose\.ya?ml|\.env)")


@image_form(
    file_rules.missing_dockerignore,
    message=("{path} of the build context lies in the image ({files}, {bytes} bytes)", "镜像中包含构建目录的{path}（{count}个文件，共{bytes}字节）"),
    way_out=("exclude it with a line in .dockerignore: {line}", "在.dockerignore中排除：{line}"),
)  # fmt: skip
def missing_dockerignore(view: ImageView) -> Iterator[ImageHit]:
    secret = {(layer, found.path) for layer in _layers(view) for found in view.layers[layer].secrets}
    for layer in _layers(view):
        if not view.is_own(layer) or view.base.kind == "unknown":
            continue
        groups: dict[str, list[int]] = defaultdict(list)
        for path, size in _files(view, layer):
            if _VENDORED.match(path) or (layer, path) in secret:
                continue
            before, git, _ = path.partition(".git/")
            if git and (not before or before.endswith("/")):
                groups[f"{before}.git"].append(size)
            elif _BUILD_FILE.fullmatch(path) and _is_copied_folder(view, layer, posixpath.dirname(path)):
                groups[path].append(size)
        for path, sizes in sorted(groups.items()):
            # A .git that a RUN cloned has no HEAD of the build context: only what a COPY brought counts.
            if not path.endswith(".git") or _made_by_copy(view, layer):
                line = posixpath.basename(path) + ("/" if path.endswith(".git") else "")
                yield image_hit(
                    path,
                    layer=layer,
                    size=sum(sizes),
                    path=path,
                    count=len(sizes),
                    files=counted(len(sizes), "file"),
                    bytes=sum(sizes),
                    line=line,
                )


def _made_by_copy(view: ImageView, layer: int) -> bool:
    step = view.history.step_of(layer)
    return step is None or step.keyword in ("COPY", "ADD")


def _is_copied_folder(view: ImageView, layer: int, folder: str) -> bool:
    """Whether a COPY or ADD put its files right into a folder."""
    step = view.history.step_of(layer)
    if step is None or step.keyword not in ("COPY", "ADD") or not step.text:
        return False
    target = step.text.split()[-1]
    whole = posixpath.normpath(posixpath.join("/", view.run.working_dir, target)).strip("/")
    return folder == whole or posixpath.normpath(target).strip("/") == folder


_VOLUMES: Final = 1_000  # that are looked at; more cannot be mounted in earnest


@image_form(
    file_rules.write_below_volume, Level.WARNING,
    message=("{files} below the volume {volume}, which was declared before ({bytes} bytes): a mount hides them",
             "{count}个文件位于之前声明的数据卷{volume}之下（共{bytes}字节）：挂载后不可见"),
)  # fmt: skip
def write_below_volume(view: ImageView) -> Iterator[ImageHit]:
    volumes: list[str] = []
    for step in view.history.steps if view.history.fits else ():
        if step.keyword == "VOLUME":
            volumes += [path.strip('"/,') for path in step.text.strip("[]").split()]
        if step.layer is None or not view.is_own(step.layer):
            continue
        files = sorted(_files(view, step.layer)) if volumes else []
        for volume in list(dict.fromkeys(filter(None, volumes)))[:_VOLUMES]:
            # What lies below it stands together: / is the character before 0.
            first, end = (bisect_left(files, (f"{volume}{mark}",)) for mark in "/0")
            sizes = [size for _, size in files[first:end]]
            if sizes:
                size = sum(sizes)
                yield image_hit(
                    volume,
                    layer=step.layer,
                    size=size,
                    volume=f"/{volume}",
                    count=len(sizes),
                    files=counted(len(sizes), "file"),
                    bytes=size,
                    path=volume,
                )


FORMS: Final = (package_leftovers, pip_cache, general_base, missing_dockerignore, write_below_volume)
RULES: Final = (wasted_files, end_of_life_base, secret_file)
