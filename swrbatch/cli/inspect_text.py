"""What `swrbatch inspect` found, as text for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from ..errors import printable
from ..inspect.dive import DiveNumbers
from ..inspect.images import InspectedImage, InspectedLayer, Inspection
from ..sizes import counted, format_size
from .text import cut, table, terminal_columns, wrapped

_LABEL: Final = 13
_LONG: Final = 2000
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


def _image_json(image: InspectedImage) -> dict[str, Any]:
    run = image.run
    return {
        "names": _safe(image.names),
        "image_id": str(image.image_id),
        "digest": str(image.digest) if image.digest is not None else None,
        "architecture": printable(image.architecture),
        "os": printable(image.os),
        "created": printable(image.created),
        "docker_version": printable(image.docker_version),
        "config": {
            "entrypoint": _safe(run.entrypoint),
            "cmd": _safe(run.cmd),
            "user": printable(run.user),
            "working_dir": printable(run.working_dir, _LONG),
            "env_names": _safe(run.env_names),
            "exposed_ports": _safe(run.exposed_ports),
            "volumes": _safe(run.volumes),
            "labels": {printable(key): printable(value, _LONG) for key, value in run.labels},
            "healthcheck": _safe(run.healthcheck),
        },
        "total_bytes": image.total_bytes,
        "final_bytes": image.final_bytes,
        "wasted_bytes": image.wasted_bytes,
        "efficiency": image.efficiency,
        "largest_waste": [{"path": printable(path, _LONG), "bytes": size} for path, size in image.largest_waste],
        "layers": [_layer_json(layer) for layer in image.layers],
        **({"dive": _dive_json(image, image.dive)} if image.dive is not None else {}),
    }


def _layer_json(layer: InspectedLayer) -> dict[str, Any]:
    changes = layer.changes
    return {
        "diff_id": str(layer.diff_id),
        "digest": str(layer.digest) if layer.digest is not None else None,
        "compression": str(layer.compression),
        "bytes": layer.bytes,
        "stored_bytes": layer.stored_bytes,
        "step": None if layer.step is None else printable(layer.step, 2 * _LONG),
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


def _dive_json(image: InspectedImage, dive: DiveNumbers) -> dict[str, Any]:
    return {
        "layer": [
            {
                "index": index,
                "digestId": str(layer.diff_id),
                "sizeBytes": size,
                "command": (layer.step or "").removeprefix("/bin/sh -c "),
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


def to_text(result: Inspection, *, layers: bool, columns: int | None = None) -> str:
    """The images one after the other, in `columns` (default: the terminal's); with `layers`, their layers and listed files."""
    columns = max(40, columns) if columns else terminal_columns()
    return "\n\n".join("\n".join(_image_lines(image, layers, columns)) for image in result.images)


def _image_lines(image: InspectedImage, layers: bool, columns: int) -> Iterator[str]:
    yield printable(image.names[0]) if image.names else "(no name)"
    for label, value in _facts(image):
        if value:
            yield from wrapped(f"  {label}", printable(value, _LONG), columns, _LABEL + 2)
    if image.largest_waste:
        yield "  wasted most"
        yield from _sized(image.largest_waste)
    if layers:
        yield ""
        yield from _layer_lines(image, columns)


def _facts(image: InspectedImage) -> Iterator[tuple[str, str]]:
    run = image.run
    for name in image.names[1:]:
        yield "also named", name
    yield "image ID", str(image.image_id)
    yield "digest", str(image.digest or "")
    yield "platform", f"{image.os or '?'}/{image.architecture or '?'}"
    yield "created", image.created + (f" by Docker {image.docker_version}" if image.docker_version else "")
    yield "entrypoint", json.dumps(run.entrypoint, ensure_ascii=False) if run.entrypoint else ""
    yield "command", json.dumps(run.cmd, ensure_ascii=False) if run.cmd else ""
    yield "user", run.user or "none given, which is root"
    yield "working dir", run.working_dir
    yield "environment", ", ".join(run.env_names)
    yield "ports", ", ".join(run.exposed_ports)
    yield "volumes", ", ".join(run.volumes)
    yield "health check", " ".join(run.healthcheck)
    for key, value in run.labels:
        yield "label", f"{key}={value}"
    stored = sum(layer.stored_bytes for layer in image.layers)
    yield "layers", f"{len(image.layers)}, {format_size(stored)} as stored"
    yield "files", f"{format_size(image.final_bytes)} in the final tree, {format_size(image.total_bytes)} in all layers"
    yield "efficiency", f"{image.efficiency:.2%}, {format_size(image.wasted_bytes)} wasted"
    if image.dive is not None:
        wasted = format_size(image.dive.inefficient_bytes)
        yield (
            "by dive",
            f"{image.dive.efficiency:.2%}, {wasted} in {counted(len(image.dive.references), 'path')} met twice or more",
        )


def _sized(paths: Sequence[tuple[str, int]]) -> Iterator[str]:
    sizes = [format_size(size) for _, size in paths]
    for (path, _), size in zip(paths, sizes, strict=True):
        yield f"    {size:>{max(map(len, sizes))}}  {printable(path, _LONG)}"


def _layer_lines(image: InspectedImage, columns: int) -> Iterator[str]:
    head = ("layer", "files", "removes", "added", "changed", "deleted")
    rows = [
        (
            str(position),
            format_size(layer.changes.file_bytes),
            format_size(layer.changes.removed_bytes) if layer.changes.removed_bytes else "-",
            str(layer.changes.added),
            str(layer.changes.changed),
            str(layer.changes.deleted),
        )
        for position, layer in enumerate(image.layers)
    ]
    lines = table(head, rows).split("\n")
    yield lines[0]
    for line, layer in zip(lines[1:], image.layers, strict=True):
        yield line
        step = "(history and layers do not agree)" if layer.step is None else " ".join(printable(layer.step, _LONG).split())
        yield cut(f" step    {step}", columns)
        yield from wrapped(" diff_id", str(layer.diff_id), columns, 9)  # 80 columns with its digest
        if layer.digest not in (None, layer.diff_id):
            yield from wrapped(" digest", str(layer.digest), columns, 9)
        if layer.changes.dangling:
            yield f"  {counted(layer.changes.dangling, 'hard link')} to nothing"
        yield from (f"    {_MARKS[f.action]} {format_size(f.size):>10} {printable(f.path, _LONG)}" for f in layer.changes.files)
