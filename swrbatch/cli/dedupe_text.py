"""What `swrbatch dedupe` found, as text for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from ..errors import Lang, printable
from ..inspect.duplicates import FileSharing
from ..inspect.sharing import Sharing
from ..sizes import counted
from .text import fitted, rows_cut, sized, table, word

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


def to_text(sharing: Sharing, files: FileSharing | None, language: Lang = "en") -> str:
    """Sums, shared layers and common bases; with files, the largest duplicates and candidates for a base."""
    saved, every = sized(sharing.saved_bytes, language), sized(sharing.bytes, language)
    told = (
        f"{sharing.images}个镜像，{sharing.layers}层，其中{sharing.distinct_layers}层互不相同：每层只存储一份，{every}中节省{saved}"
        if language == "zh"
        else f"{counted(sharing.images, 'image')}, {counted(sharing.layers, 'layer')} of which {sharing.distinct_layers} distinct"
        f": {saved} of {every} saved by storing each once"
    )
    parts = ["\n".join(fitted(told, indent=""))]
    if sharing.shared:
        rows = [
            (str(each.diff_id)[7:19], sized(each.size, language), str(len(each.images)), sized(each.saved_bytes, language))
            for each in sharing.shared[:_SHOWN]
        ]
        more = _more(len(sharing.shared), language)
        parts.append("\n".join([table(_head(("shared layer", "size", "images", "saves"), language), rows), *more]))
    for base in sharing.bases[:_SHOWN]:
        images, size, top = len(base.images), sized(base.size, language), str(base.top)[7:19]
        told = (
            f"{images}个镜像的共同基础：{base.layers}层，{size}，最上层为{top}"
            if language == "zh"
            else f"common base of {counted(images, 'image')}: {counted(base.layers, 'layer')}, {size}, up to {top}"
        )
        parts.append("\n".join([*fitted(told, indent=""), *_names(base.images, language)]))
    parts += _file_parts(files, language) if files is not None else ()
    return "\n\n".join(parts)


def _file_parts(files: FileSharing, language: Lang) -> Iterator[str]:
    saved, every = sized(files.duplicate_bytes, language), sized(files.bytes, language)
    told = (
        f"互不相同的层中有{files.files}个文件，其中{files.distinct_files}个内容互不相同：每个只存储一份，{every}中还可节省{saved}"
        if language == "zh"
        else f"{counted(files.files, 'file')} in the distinct layers, of which {files.distinct_files} distinct: "
        f"{saved} of {every} would be saved by storing each once"
    )
    yield "\n".join(fitted(told, indent=""))
    if files.largest:
        rows = [
            (
                sized(each.bytes, language),
                *map(str, (each.copies, each.layers, each.images)),
                sized(each.duplicate_bytes, language),
                printable(each.path, _LONG),
            )
            for each in files.largest
        ]
        yield rows_cut(table(_head(("duplicate", "copies", "layers", "images", "would save", "file"), language), rows))
    for each in files.candidates:
        images, size, saved = len(each.images), sized(each.bytes, language), sized(each.saved_bytes, language)
        told = (
            f"{images}个镜像的候选共同基础：{each.files}个文件，{size}，可节省{saved}"
            if language == "zh"
            else f"candidate for a common base of {counted(images, 'image')}: {counted(each.files, 'file')}, {size}"
            f", would save {saved}"
        )
        yield "\n".join([*fitted(told, indent=""), *_names(each.images, language)])


def _head(labels: Iterable[str], language: Lang) -> list[str]:
    return [word(label, language) for label in labels]


def _names(images: Sequence[str], language: Lang) -> list[str]:
    return [*(f"  {printable(name)}" for name in images[:_SHOWN]), *_more(len(images), language)]


def _more(count: int, language: Lang) -> list[str]:
    """That there are more than are shown."""
    left = count - _SHOWN
    return [] if left <= 0 else [f"  … 另有{left}个" if language == "zh" else f"  … {left} more"]
