"""What `swrbatch dedupe` found, as text for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from ..errors import printable
from ..inspect.duplicates import FileSharing
from ..inspect.sharing import Sharing
from ..sizes import counted, format_size
from .text import fitted, rows_cut, table

_SHOWN: Final = 20
_LONG: Final = 2000


def to_json(sharing: Sharing, files: FileSharing | None) -> dict[str, Any]:
    """The result as JSON. Sizes in bytes; `files` is null unless files were compared."""
    return {
        **{name: getattr(sharing, name) for name in ("images", "layers", "bytes", "distinct_layers", "distinct_bytes")},
        "saved_bytes": sharing.saved_bytes,
        "shared_layers": [
            {
                "diff_id": str(each.diff_id),
                "bytes": each.size,
                "saved_bytes": each.saved_bytes,
                "images": [printable(name) for name in each.images],
            }
            for each in sharing.shared
        ],
        "common_bases": [
            {
                "layers": each.layers,
                "bytes": each.size,
                "top_diff_id": str(each.top),
                "images": [printable(name) for name in each.images],
            }
            for each in sharing.bases
        ],
        "files": None if files is None else _files_json(files),
    }


def _files_json(files: FileSharing) -> dict[str, Any]:
    return {
        **{name: getattr(files, name) for name in ("files", "bytes", "distinct_files", "distinct_bytes", "duplicate_bytes")},
        "largest_duplicates": [
            {
                **{name: getattr(each, name) for name in ("digest", "bytes", "copies", "layers", "images", "duplicate_bytes")},
                "path": printable(each.path, _LONG),
            }
            for each in files.largest
        ],
        "candidate_bases": [
            {
                **{name: getattr(each, name) for name in ("files", "bytes", "saved_bytes")},
                "images": [printable(name) for name in each.images],
            }
            for each in files.candidates
        ],
    }


def to_text(sharing: Sharing, files: FileSharing | None) -> str:
    """Sums, shared layers and common bases; with files, the largest duplicates and candidates for a base."""
    saved, every = format_size(sharing.saved_bytes), format_size(sharing.bytes)
    told = (
        f"{counted(sharing.images, 'image')}, {counted(sharing.layers, 'layer')} of which {sharing.distinct_layers} distinct: "
        f"{saved} of {every} saved by storing each once"
    )
    parts = ["\n".join(fitted(told, indent=""))]
    if sharing.shared:
        rows = [
            (str(each.diff_id)[7:19], format_size(each.size), str(len(each.images)), format_size(each.saved_bytes))
            for each in sharing.shared[:_SHOWN]
        ]
        parts.append(table(("shared layer", "size", "images", "saves"), rows))
    for each in sharing.bases[:_SHOWN]:
        head = f"common base of {counted(len(each.images), 'image')}: {counted(each.layers, 'layer')}, {format_size(each.size)}"
        parts.append(f"{head}, up to {str(each.top)[7:19]}\n{_names(each.images)}")
    parts += _file_parts(files) if files is not None else ()
    return "\n\n".join(parts)


def _file_parts(files: FileSharing) -> Iterator[str]:
    saved, every = format_size(files.duplicate_bytes), format_size(files.bytes)
    told = (
        f"{counted(files.files, 'file')} in the distinct layers, of which {files.distinct_files} distinct: "
        f"{saved} of {every} would be saved by storing each once"
    )
    yield "\n".join(fitted(told, indent=""))
    if files.largest:
        head = ("duplicate", "copies", "layers", "images", "would save", "file")
        rows = [
            (
                format_size(each.bytes),
                *map(str, (each.copies, each.layers, each.images)),
                format_size(each.duplicate_bytes),
                printable(each.path, _LONG),
            )
            for each in files.largest
        ]
        yield rows_cut(table(head, rows))
    for each in files.candidates:
        head_ = f"candidate for a common base of {counted(len(each.images), 'image')}: {counted(each.files, 'file')}"
        yield f"{head_}, {format_size(each.bytes)}, would save {format_size(each.saved_bytes)}\n{_names(each.images)}"


def _names(images: Sequence[str]) -> str:
    names = [f"  {printable(name)}" for name in images[:_SHOWN]]
    return "\n".join([*names, *([f"  … {len(images) - _SHOWN} more"] if len(images) > _SHOWN else [])])
