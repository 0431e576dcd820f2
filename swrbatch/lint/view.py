"""An image as rules see it: config, history as a Dockerfile, the tree of its layers, and which of them are the base's."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Final, Literal

from ..digest import Digest
from ..image import ImageConfig
from ..inspect.images import RunSettings
from ..inspect.tree import MergedTree, TreeFile, path_parts
from .build import Build
from .history import build_of
from .layer_contents import LayerContents
from .steps import History, Step, read_history, secrets_of

SHELLS: Final = ("sh", "bash", "ash", "dash")
MAX_FOLDERS: Final = 1_000
"""Folders of a PATH that are looked through."""
_FOLDERS: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # what engines take without a PATH


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHead:
    """What is known of an image before a layer is read. `path` is its archive, or its reference in a store.

    `names` are as written in an archive, else full references; `stored` tells which.
    """

    path: str
    index: int
    names: tuple[str, ...]
    stored: bool
    config: ImageConfig
    run: RunSettings
    history: History

    @property
    def name(self) -> str:
        """What findings call it."""
        return self.names[0] if self.names else f"image {self.index} ({str(self.config.digest)[:19]})"


def image_head(path: str, index: int, names: tuple[str, ...], config: ImageConfig, raw: bytes, *, stored: bool) -> ImageHead:
    """The head of an image from its config's bytes, which `ImageConfig` has taken."""
    return ImageHead(
        path=path,
        index=index,
        names=names,
        stored=stored,
        config=config,
        run=RunSettings.parse(raw),
        history=read_history(raw, len(config.diff_ids)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """How many of the lowest layers, and of the first steps of the history, are the base image's.

    known: `head` is an image of the batch that has just these layers; guessed: its history suggests it; unknown: the history does
    not tell, and nothing is taken for the base's.
    """

    kind: Literal["known", "guessed", "unknown"]
    layers: int = 0
    steps: int = 0
    head: ImageHead | None = None


def guess_base(history: History) -> Base:
    """The base as the history suggests it: up to the last CMD or ENTRYPOINT that layers follow.

    Without one, a first layer that adds a whole root file system is it.
    """
    if not history.fits or not history.layers:
        return Base(kind="unknown")
    last = max((step.position for step in history.steps if step.layer is not None), default=-1)
    made = 0
    ends = (0, 0)
    for step in history.steps:
        made += step.layer is not None
        if step.keyword in ("CMD", "ENTRYPOINT") and made and step.position < last:
            ends = (made, step.position + 1)
    if ends == (0, 0):
        first = next(step for step in history.steps if step.layer == 0)
        if first.keyword == "" or (first.keyword in ("ADD", "COPY") and first.text.split()[-1:] == ["/"]):
            end = first.position + 1
            # A CMD right behind it belongs to it: distributions write it.
            more = history.steps[end : end + 1]
            ends = (1, end + (1 if more and more[0].keyword == "CMD" else 0))
    return Base(kind="guessed", layers=ends[0], steps=ends[1])


def known_base(head: ImageHead, below: Sequence[ImageHead]) -> Base:
    """The base when `below` are the images of the batch that have just its lowest layers; the one with most of them is it.

    It may have all of them: then only later steps without a layer tell the two apart.
    """
    if not below:
        return guess_base(head.history)
    nearest = max(below, key=lambda other: len(other.config.diff_ids))
    layers = len(nearest.config.diff_ids)
    own = next((step.position for step in head.history.steps if step.layer == layers), len(head.history.steps))
    same = 0
    for a, b in zip(head.history.steps, nearest.history.steps, strict=False):
        if (a.keyword, a.text) != (b.keyword, b.text):
            break
        same += 1
    return Base(kind="known", layers=layers, steps=min(same, own) if head.history.fits else 0, head=nearest)


@dataclass(frozen=True, kw_only=True)
class ImageView:
    """An image whose layers were read. `today` is the day that ends of life are compared with."""

    head: ImageHead
    base: Base
    tree: MergedTree
    layers: tuple[LayerContents, ...]
    today: datetime.date

    @property
    def run(self) -> RunSettings:
        return self.head.run

    @property
    def history(self) -> History:
        return self.head.history

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        return self.head.config.diff_ids

    @property
    def is_base(self) -> bool:
        """Whether the image is a root file system and nothing more: no service, whose settings could be missed."""
        starts = self.run.cmd[0].rpartition("/")[2] if self.run.cmd else ""
        alone = self.base.kind == "guessed" and 0 < self.base.layers == len(self.diff_ids)
        return alone and not self.run.entrypoint and starts in ("", *SHELLS)

    @property
    def guessed(self) -> bool:
        return self.base.kind != "known"

    def is_own(self, layer: int) -> bool:
        """Whether a layer is the image's own, as far as can be told."""
        return layer >= self.base.layers

    @property
    def own_steps(self) -> tuple[Step, ...]:
        return self.history.steps[self.base.steps :]

    @cached_property
    def _build(self) -> tuple[Build, tuple[Step | str, ...]]:
        name = self.base.head.name if self.base.head is not None else "base"
        return build_of(self.history, self.run, self.base.steps, name)

    @property
    def build(self) -> Build:
        """The image as a Dockerfile of two stages, the base's and its own; the config's instructions stand at the end."""
        return self._build[0]

    def stands_for(self, line: int) -> Step | str:
        """What a line of `build` stands for: a step of the history, a place in the config, "" for a FROM."""
        return self._build[1][line - 1]

    @cached_property
    def secrets(self) -> tuple[str, ...]:
        """The values of variables that look like secrets, to be kept out of all texts."""
        return secrets_of(self.run.env, self.history.steps)

    @cached_property
    def final_secrets(self) -> Mapping[str, int]:
        """Path → the layer that set it last, for the files that hold secrets."""
        paths = {found.path for layer in self.layers for found in layer.secrets}
        return MappingProxyType({path: at for path in paths if (at := self.tree.layer_of(path)) is not None})

    def text_at(self, path: str) -> str | None:
        """The text of a file of the final tree that was kept (see `read_layer`); links followed."""
        found = self.tree.resolve(path)
        if not isinstance(found, TreeFile):
            return None
        # A hard link's content may lie in a layer below that of the link.
        name = "/".join(path_parts(found.member.name))
        below = (self.layers[layer].texts.get(name) for layer in range(found.layer, -1, -1))
        return next((text for text in below if text is not None), None)

    def find_program(self, word: str) -> TreeFile | bool | None:
        """What starts when a container is told to run `word`: as `MergedTree.resolve`, PATH and working folder looked through."""
        if "/" in word:
            folder = "" if word.startswith("/") else f"{self.run.working_dir}/"
            return self.tree.resolve(folder + word)
        path = dict(self.run.env).get("PATH") or _FOLDERS
        folders = list(dict.fromkeys(path.split(":", MAX_FOLDERS)))[:MAX_FOLDERS]
        found = [self.tree.resolve(f"{folder or self.run.working_dir}/{word}") for folder in folders]
        files = [each for each in found if isinstance(each, TreeFile)]
        started = next((each for each in files if each.member.executable), None)
        if started is not None:
            return started
        return False if False in found else files[0] if files else None
