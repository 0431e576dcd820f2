"""`swrbatch export`."""

from __future__ import annotations

import enum
import json
from typing import Annotated, Any

import typer

from .options import (
    Format,
    FormatOption,
    LangOption,
    Language,
    StoreOption,
    cancelled_by_signals,
    exits,
    lang,
    show,
    store_path,
    tell,
)

app = typer.Typer(rich_markup_mode=None)


class ExportForm(enum.StrEnum):
    """What is written."""

    DOCKER_ARCHIVE = "docker-archive"
    OCI_ARCHIVE = "oci-archive"
    OCI_DIR = "oci-dir"


class ExportCompression(enum.StrEnum):
    """How an archive is compressed as a whole."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


@app.command("export")
def export(
    references: Annotated[list[str], typer.Argument(metavar="REF...", help="ORG/REPO:TAG, also with the registry's host.")],
    to: Annotated[str, typer.Option("--to", metavar="FILE|DIR", help="Where it is written; - for standard output.")],
    form: Annotated[ExportForm, typer.Option("--form", help="For docker load, or as stored.")] = ExportForm.DOCKER_ARCHIVE,
    compress: Annotated[
        ExportCompression | None, typer.Option("--compress", help="Compress the archive (default: as FILE's ending says).")
    ] = None,
    store: StoreOption = None,
    user: Annotated[str | None, typer.Option(metavar="NAME", help="Who acts (default $SWRBATCH_USER, else the login).")] = None,
    account: Annotated[str | None, typer.Option(metavar="NAME", help="The actor's account (default: the store's).")] = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """Write stored images to a file or folder that docker, podman and skopeo load.

    Several images share their layers in it. What stands at --to is replaced when all is written; a damaged image leaves it as it
    is. Each export is recorded as an event.
    """
    from ..compression import Compression
    from ..export import compression_of_name, export_images
    from ..store import Store

    with exits(lang(lang_)), cancelled_by_signals() as cancel, Store(store_path(store)) as opened:
        actor = opened.actor(user, account)
        result = export_images(
            opened,
            references,
            to,
            form=form.value,
            compression=Compression(compress.value) if compress else compression_of_name(to),
            actor=actor,
            cancel=cancel,
        )
        told = json.dumps(_to_json(result), ensure_ascii=False) if format is Format.JSON else _to_text(result)
        if to == "-":
            tell(told)  # standard output is the archive
        else:
            show(told)


def _to_json(result: Any) -> dict[str, Any]:
    images = [
        {
            "references": [str(reference) for reference in image.references],
            "digest": str(image.manifest.digest),
            "image_id": str(image.config.digest),
            "layers": len(image.manifest.layers),
        }
        for image in result.images
    ]
    return {
        "to": result.to,
        "form": result.form,
        "compression": str(result.compression),
        "bytes": result.size,
        "images": images,
    }


def _to_text(result: Any) -> str:
    from ..errors import printable
    from ..sizes import format_size
    from .text import table

    rows = [
        (str(reference), str(image.config.digest)[7:19], str(image.manifest.digest)[7:19], str(len(image.manifest.layers)))
        for image in result.images
        for reference in image.references
    ]
    packed = "" if result.compression == "none" else f", {result.compression}"
    end = f"{printable(result.to)}: {result.form}{packed}, {format_size(result.size)}"
    return f"{table(('exported', 'image ID', 'digest', 'layers'), rows)}\n{end}"
