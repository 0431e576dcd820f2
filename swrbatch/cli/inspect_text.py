"""What `swrbatch inspect` found, as text for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..errors import Lang, printable
from ..inspect.dive import DiveNumbers
from ..inspect.images import HistoryStep, InspectedImage, InspectedLayer, Inspection, RunSettings
from ..lint.steps import Step, as_step, secrets_of
from ..redaction import is_secret, redacted, redacted_words
from ..sizes import counted
from .text import cut, right, sized, table, terminal_columns, width, word, wrapped

_LABEL: Final = 13
_BELOW: Final = 9
_LONG: Final = 2000
_MOST: Final = 500  # names, variables, labels of an image that the text has
_MARKS: Final = {"added": "A", "changed": "C", "deleted": "D"}


def to_json(result: Inspection) -> dict[str, Any]:
    """The inspection as JSON. Sizes in bytes; `dive` holds what dive's own `--json` says, without ids and lists of files."""
    return {
        "source": printable(result.source, _LONG),
        "format": result.format,
        "images": [_image_json(image) for image in result.images],
        "issues": [
            {
                "code": each.code,
                "severity": str(each.severity),
                "image_index": each.image_index,
                "place": each.place,
                "message": each.message,
                "way_out": each.way_out,
                "section": each.section,
            }
            for each in result.issues
        ],
    }


@dataclass(frozen=True, slots=True)
class _History:
    """The steps of an image as they are shown: without the values of secrets, which are in config and history."""

    steps: tuple[tuple[HistoryStep, Step], ...]
    by_layer: Mapping[int, tuple[HistoryStep, Step]]
    secrets: tuple[str, ...]

    @classmethod
    def of(cls, image: InspectedImage) -> _History:
        steps = tuple((each, as_step(at, each.layer, each.created_by)) for at, each in enumerate(image.history))
        by_layer = {each.layer: (each, step) for each, step in steps if each.layer is not None}
        return cls(steps, by_layer, secrets_of(image.run.env, (step for _, step in steps)))

    def hidden(self, text: str, limit: int = _LONG) -> str:
        return printable(redacted(text, self.secrets), limit)

    def command(self, words: Sequence[str]) -> list[str]:
        return [printable(word, _LONG) for word in redacted_words(words, self.secrets)]

    def variables(self, run: RunSettings) -> list[str]:
        return [self._assigned(name, value) for name, value in run.env]

    def labels(self, run: RunSettings) -> list[str]:
        return [self._assigned(name, value) for name, value in run.labels]

    def value(self, name: str, value: str) -> str:
        """What is shown of a variable's or a label's value."""
        return "***" if is_secret(name, value) else self.hidden(value)

    def all_hidden(self, texts: Iterable[str]) -> list[str]:
        return [self.hidden(text) for text in texts]

    def _assigned(self, name: str, value: str) -> str:
        return printable(f"{name}={self.value(name, value)}", _LONG)

    def of_layer(self, layer: int) -> str | None:
        """The history's text for the step that made a layer; None where history and layers differ in number."""
        found = self.by_layer.get(layer)
        return self.hidden(found[0].created_by, 2 * _LONG) if found is not None else None

    def text(self, told: HistoryStep, step: Step) -> str:
        """A step in one line, as an instruction where it is known to be one."""
        return self.hidden(" ".join(f"{step.keyword} {step.text}".split() if step.keyword else told.created_by.split()))


def _image_json(image: InspectedImage) -> dict[str, Any]:
    run, history = image.run, _History.of(image)
    return {
        "names": _safe(image.names),
        "image_id": str(image.image_id),
        "digest": str(image.digest) if image.digest is not None else None,
        "architecture": printable(image.architecture),
        "variant": printable(image.variant),
        "os": printable(image.os),
        "created": printable(image.created),
        "author": history.hidden(image.author, 300),
        "docker_version": printable(image.docker_version),
        "config": {
            "entrypoint": history.command(run.entrypoint),
            "cmd": history.command(run.cmd),
            "user": history.hidden(run.user, 300),
            "working_dir": history.hidden(run.working_dir),
            "env": history.variables(run),
            "exposed_ports": history.all_hidden(run.exposed_ports),
            "volumes": history.all_hidden(run.volumes),
            "labels": {printable(key): history.value(key, value) for key, value in run.labels},
            "healthcheck": history.command(run.healthcheck),
            "shell": history.command(run.shell),
            "stop_signal": history.hidden(run.stop_signal, 300),
            "on_build": history.all_hidden(run.on_build),
        },
        "history": [
            {
                "created": printable(told.created),
                "step": history.hidden(told.created_by, 2 * _LONG),
                "comment": history.hidden(told.comment, 300),
                "empty_layer": told.empty,
                "layer": told.layer,
            }
            for told, _ in history.steps
        ],
        **({"history_left_out": image.history_left_out} if image.history_left_out else {}),
        "total_bytes": image.total_bytes,
        "final_bytes": image.final_bytes,
        "wasted_bytes": image.wasted_bytes,
        "efficiency": image.efficiency,
        "largest_waste": [{"path": printable(path, _LONG), "bytes": size} for path, size in image.largest_waste],
        "layers": [_layer_json(layer, history.of_layer(at)) for at, layer in enumerate(image.layers)],
        **({"dive": _dive_json(image, image.dive, history)} if image.dive is not None else {}),
    }


def _layer_json(layer: InspectedLayer, step: str | None) -> dict[str, Any]:
    changes = layer.changes
    return {
        "diff_id": str(layer.diff_id),
        "digest": str(layer.digest) if layer.digest is not None else None,
        "compression": str(layer.compression),
        "bytes": layer.bytes,
        "stored_bytes": layer.stored_bytes,
        "step": step,
        "file_bytes": changes.file_bytes,
        "removed_bytes": changes.removed_bytes,
        "added": changes.added,
        "changed": changes.changed,
        "deleted": changes.deleted,
        "dangling_links": changes.dangling,
        **(
            {"files": [{"action": f.action, "path": printable(f.path, 2 * _LONG), "bytes": f.size} for f in changes.files]}
            if changes.files
            else {}
        ),
    }


def _dive_json(image: InspectedImage, dive: DiveNumbers, history: _History) -> dict[str, Any]:
    return {
        "layer": [
            {
                "index": index,
                "digestId": str(layer.diff_id),
                "sizeBytes": size,
                "command": (history.of_layer(index) or "").removeprefix("/bin/sh -c "),
            }
            for index, (layer, size) in enumerate(zip(image.layers, dive.layer_bytes, strict=True))
        ],
        "image": {
            "sizeBytes": sum(dive.layer_bytes),
            "inefficientBytes": dive.inefficient_bytes,
            "efficiencyScore": dive.efficiency,
            "fileReference": [
                {"count": count, "sizeBytes": size, "file": printable(path, _LONG)} for path, count, size in dive.references
            ],
        },
    }


def _safe(texts: Sequence[str]) -> list[str]:
    return [printable(text, _LONG) for text in texts]


# --- text ----------------------------------------------------------------------------------------------------------------


def to_text(result: Inspection, *, layers: bool, language: Lang = "en", columns: int | None = None) -> str:
    """The images one after the other, in `columns` (default: the terminal's); with `layers`, their layers and listed files."""
    columns = max(40, columns) if columns else terminal_columns()
    return "\n\n".join("\n".join(_image_lines(image, layers, language, columns)) for image in result.images)


def _image_lines(image: InspectedImage, layers: bool, language: Lang, columns: int) -> Iterator[str]:
    history = _History.of(image)
    yield printable(image.names[0]) if image.names else word("(no name)", language)
    for label, value in _facts(image, history, language):
        if value:
            yield from wrapped(f"  {word(label, language)}", printable(value, _LONG), columns, _LABEL + 2)
    if image.largest_waste:
        yield f"  {word('wasted most', language)}"
        yield from _sized(image.largest_waste, language)
    if layers:
        yield ""
        yield from _layer_lines(image, history, language, columns)


def _facts(image: InspectedImage, history: _History, language: Lang) -> Iterator[tuple[str, str]]:
    run, zh = image.run, language == "zh"
    for name in _first(image.names[1:], language):
        yield "also named", name
    yield "image ID", str(image.image_id)
    yield "digest", str(image.digest or "")
    yield "platform", "/".join((image.os or "?", image.architecture or "?", *((image.variant,) if image.variant else ())))
    by = f"（Docker {image.docker_version}）" if zh else f" by Docker {image.docker_version}"
    yield "created", image.created + (by if image.docker_version else "")
    yield "author", history.hidden(image.author, 300)
    yield "entrypoint", json.dumps(history.command(run.entrypoint), ensure_ascii=False) if run.entrypoint else ""
    yield "command", json.dumps(history.command(run.cmd), ensure_ascii=False) if run.cmd else ""
    yield "user", history.hidden(run.user) or ("未设置，即root" if zh else "none given, which is root")
    yield "working dir", history.hidden(run.working_dir)
    for variable in _first(history.variables(run), language):
        yield "environment", variable
    yield "ports", ", ".join(history.all_hidden(run.exposed_ports))
    yield "volumes", ", ".join(history.all_hidden(run.volumes))
    yield "health check", " ".join(history.command(run.healthcheck))
    yield "shell", json.dumps(history.command(run.shell), ensure_ascii=False) if run.shell else ""
    yield "stop signal", history.hidden(run.stop_signal)
    for line in _first(history.all_hidden(run.on_build), language):
        yield "on build", line
    for label in _first(history.labels(run), language):
        yield "label", label
    stored, final, total, wasted = (
        sized(size, language)
        for size in (sum(layer.stored_bytes for layer in image.layers), image.final_bytes, image.total_bytes, image.wasted_bytes)
    )
    count = len(image.layers)
    yield "layers", f"{count}层，存储占用{stored}" if zh else f"{count}, {stored} as stored"
    yield "files", f"最终文件系统{final}，各层合计{total}" if zh else f"{final} in the final tree, {total} in all layers"
    yield "efficiency", f"{image.efficiency:.2%}，浪费{wasted}" if zh else f"{image.efficiency:.2%}, {wasted} wasted"
    if image.dive is not None:
        twice, paths = sized(image.dive.inefficient_bytes, language), len(image.dive.references)
        told = f"，{paths}个路径出现多次，共{twice}" if zh else f", {twice} in {counted(paths, 'path')} met twice or more"
        yield "by dive", f"{image.dive.efficiency:.2%}{told}"


def _first(texts: Sequence[str], language: Lang) -> list[str]:
    """As many as are shown, and how many more there are; JSON has all."""
    left = len(texts) - _MOST
    return [*texts] if left <= 0 else [*texts[:_MOST], f"… 另有{left}个" if language == "zh" else f"… {left} more"]


def _sized(paths: Sequence[tuple[str, int]], language: Lang) -> Iterator[str]:
    sizes = [sized(size, language) for _, size in paths]
    for (path, _), size in zip(paths, sizes, strict=True):
        yield f"    {right(size, max(map(width, sizes)))}  {printable(path, _LONG)}"


def _layer_lines(image: InspectedImage, history: _History, language: Lang, columns: int) -> Iterator[str]:
    """The table of layers; below each its step and digests, the steps behind it that made no layer, and its files."""
    head = [word(text, language) for text in ("layer", "files", "removes", "added", "changed", "deleted")]
    rows = [
        (
            str(position),
            sized(layer.changes.file_bytes, language),
            sized(layer.changes.removed_bytes, language) if layer.changes.removed_bytes else "-",
            str(layer.changes.added),
            str(layer.changes.changed),
            str(layer.changes.deleted),
        )
        for position, layer in enumerate(image.layers)
    ]
    lines = table(head, rows).split("\n")
    yield lines[0]
    settings = _settings(history)
    yield from _below("sets", settings.get(None, ()), language, columns)
    for position, (line, layer) in enumerate(zip(lines[1:], image.layers, strict=True)):
        yield line
        made = [history.text(*history.by_layer[position])] if position in history.by_layer else []
        yield from _below("step", made or [word("(history and layers do not agree)", language)], language, columns)
        yield from wrapped(" diff_id", str(layer.diff_id), columns, _BELOW)  # 80 columns with its digest
        if layer.digest not in (None, layer.diff_id):
            yield from wrapped(f" {word('digest', language)}", str(layer.digest), columns, _BELOW)
        if layer.changes.dangling:
            many = layer.changes.dangling
            yield f"  {many}个硬链接没有目标" if language == "zh" else f"  {counted(many, 'hard link')} to nothing"
        for f in layer.changes.files:
            yield f"    {_MARKS[f.action]} {right(sized(f.size, language), 10)} {printable(f.path, _LONG)}"
        yield from _below("sets", settings.get(position, ()), language, columns)
    if image.history_left_out:
        left = image.history_left_out
        yield f" … 另有{left}个构建步骤" if language == "zh" else f" … {counted(left, 'more step')}"


def _settings(history: _History) -> dict[int | None, list[str]]:
    """The steps that made no layer, by the layer before them; none where that cannot be told."""
    found: dict[int | None, list[str]] = {}
    if any(not told.empty and told.layer is None for told, _ in history.steps):
        return found
    layer = None
    for told, step in history.steps:
        layer = layer if told.empty else told.layer
        if told.empty:
            found.setdefault(layer, []).append(history.text(told, step))
    return found


def _below(label: str, texts: Iterable[str], language: Lang, columns: int) -> Iterator[str]:
    """Texts beside a label, each in one line."""
    name = f" {word(label, language)}"
    for text in texts:
        yield cut(f"{name}{' ' * (_BELOW - width(name))}{text}", columns)
