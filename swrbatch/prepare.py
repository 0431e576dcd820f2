"""One archive, read and checked by a worker: everything about it that does not depend on the archives before it.

What comes out is a `Prepared`: the archive's facts and issues, and an `Attempt` for each image, which the batch judges and
loads in the order of the archives. The faults of all images are found, also of those that are refused already.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol

from .archive import ArchiveIndex, open_archive
from .attempt import Attempt, ImageRecord
from .blob_writer import StagedBlob
from .compression import Compression
from .cts import now_ms
from .digest import Cancel, Digest
from .errors import ArchiveFault, Issue, fault, has_errors, issue, printable
from .image import MAX_TEXT, OCI_LAYER_TYPES, Manifest
from .layers import KEPT, Budget, LayerReading, LayerSource
from .policy import Limits, Naming, Reference, parse_reference, same_registry
from .rename import Rename
from .sizes import format_size
from .staging import Staging, TakenLayer
from .validate import ArchiveContent, ArchiveImage, check_layers, issues_of, kept_manifest, read_archive

if TYPE_CHECKING:
    from .lint.gate import Gated

_BUDGET: Final = "decompressed-too-large"


class Progress(Protocol):
    """What a run tells of itself while it goes on; called from several threads."""

    def lint(self, done: int, images: int) -> None: ...
    def start(self, archives: int, size: int) -> None: ...
    def begin(self, archive: str, size: int) -> None: ...
    def advance(self, archive: str, size: int) -> None: ...
    def end(self, archive: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What an archive is judged by."""

    limits: Limits
    naming: Naming
    registry: str | None
    organization: str | None
    rename: Rename
    hash_archives: bool


@dataclass(slots=True, kw_only=True)
class PreparedImage:
    """An image ready to be judged. `taken` is empty when its layers could not all be read.

    `kept` tells that its manifest is the archive's own, byte for byte.
    """

    image: ArchiveImage
    attempt: Attempt
    renamed: dict[Reference, bool]
    parsed: tuple[Reference | None, ...]
    taken: tuple[TakenLayer, ...] = ()
    kept: bool = False


@dataclass(slots=True, kw_only=True)
class Prepared:
    """An archive after its worker. `issues` are those of the archive as a whole; an error among them refuses all images.

    `position` is its place in the run, from 0.
    """

    name: str
    position: int
    sha256: Digest | None = None
    format: str | None = None
    producer_hint: str | None = None
    compression: Compression | None = None
    file_bytes: int | None = None
    uncompressed_bytes: int | None = None
    images: list[PreparedImage] = field(default_factory=list)
    issues: list[Issue] = field(default_factory=list)
    started_ms: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What the workers of a run share.

    `known_layers` is `Store.known_layers`, None for a check without a store; `staging` is None without loading. `layer_pool`
    reads layers side by side, `block_pool` joins in making their blobs (`assemble`).

    `gated` is what lint found before.
    """

    rules: Rules
    cancel: Cancel
    target: Compression
    layer_pool: Executor
    block_pool: Executor | None
    spool_dir: str | None
    known_layers: Callable[[Iterable[Digest], str], dict[Digest, tuple[Digest, int]]] | None = None
    staging: Staging | None = None
    progress: Progress | None = None
    gated: Gated | None = None


def prepare(name: str, position: int, shop: Workshop) -> Prepared:
    """Read and check one archive. Raises only `StoreError` and `Cancelled`; everything else is an issue."""
    # A file's name may hold what neither a terminal, nor SQL, nor Parquet takes.
    done = Prepared(name=printable(name, MAX_TEXT), position=position, started_ms=now_ms())
    begun = time.perf_counter()
    limit = shop.rules.limits.max_files
    try:
        if limit is not None and position >= limit:
            raise fault("too-many-files", number=position + 1, limit=limit)
        held = shop.gated.held(name) if shop.gated is not None else None
        done.file_bytes = file_size(name)
        opened = open_archive(
            name,
            spool_dir=shop.spool_dir,
            max_decompressed=shop.rules.limits.max_decompressed,
            hash_file=shop.rules.hash_archives,
            cancel=shop.cancel,
        )
        with opened if held is None else nullcontext(held) as index:
            _prepare_open(done, index, shop)
    except ArchiveFault as e:
        done.issues += issues_of(e)
    done.issues = [found.at(archive=done.name) for found in done.issues]
    done.seconds = time.perf_counter() - begun
    return done


def file_size(name: str) -> int | None:
    """The bytes of a regular file; None for anything else (a pipe, `-`, what is not there)."""
    try:
        status = os.stat(name)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _prepare_open(done: Prepared, index: ArchiveIndex, shop: Workshop) -> None:
    done.sha256, done.compression, done.file_bytes = index.sha256, index.compression, index.file_bytes
    done.uncompressed_bytes = index.uncompressed_bytes
    done.issues += _check_file(index, shop.rules.limits)
    content = read_archive(index, shop.cancel)
    done.format, done.producer_hint = content.format, content.producer_hint
    done.issues += content.issues
    for image in content.images:
        # What is wrong with an image itself has kept it from being linted.
        if shop.gated is not None and image.config is not None and not has_errors(image.issues):
            image.issues += shop.gated.issues(index.name, image.index, str(image.config.digest))
    done.images = [_name_image(done, image, shop.rules) for image in content.images]
    budget = Budget(shop.rules.limits.max_decompressed, index.uncompressed_bytes)
    if shop.progress is not None:
        shop.progress.begin(done.name, sum(_distinct(content).values()))
    try:
        _read_layers(done, budget, shop)
    finally:
        done.uncompressed_bytes = budget.used
        if shop.progress is not None:
            shop.progress.end(done.name)


def _check_file(index: ArchiveIndex, limits: Limits) -> list[Issue]:
    found = []
    allowed = limits.outer_compressions
    if allowed is not None and index.compression not in allowed:
        found.append(issue("page-compression", compression=index.compression))
    for size, limit, code in (
        (index.file_bytes, limits.max_archive_size, "archive-too-large"),
        (index.uncompressed_bytes, limits.max_decompressed, "decompressed-too-large"),
    ):
        if limit is not None and size > limit and not found_large(found):
            found.append(issue(code, size=format_size(size, beside=limit), limit=format_size(limit)))
    return found


def found_large(found: Sequence[Issue]) -> bool:
    """Whether the file itself is too large: a plain tar's content then is too, which says nothing new."""
    return any(each.code == "archive-too-large" for each in found)


def _distinct(content: ArchiveContent) -> dict[LayerSource, int]:
    return {layer: layer.extent.size for image in content.images for layer in image.layers}


# --- names -----------------------------------------------------------------------------------------------------------


def _name_image(done: Prepared, image: ArchiveImage, rules: Rules) -> PreparedImage:
    """Rename, then judge the names (guide 9.3.3)."""
    place = f"manifest[{image.index}].RepoTags"
    names = list(image.names)
    if not names and image.config is not None:
        names = rules.rename.names_for(done.name, str(image.config.digest))
    image_id = str(image.config.digest)[:19] if image.config is not None else f"number {image.index + 1}"
    found = [] if names else [issue("repotags-empty", place=place, image_id=image_id)]
    parsed: list[Reference | None] = []
    originals: list[str] = []
    renamed: dict[Reference, bool] = {}
    for position, original in enumerate(names):
        # A name given by --names was written on purpose: no rule changes it.
        text, changed = rules.rename.apply(original) if image.names else (original, True)
        reference, faults = parse_reference(text, rules.naming, place=f"{place}[{position}]")
        found += faults
        if reference is not None:
            if rules.registry is not None and not same_registry(reference.registry, rules.registry):
                there = f"{place}[{position}]"
                found.append(issue("registry-mismatch", place=there, reference=reference, registry=rules.registry))
            if rules.organization is not None and reference.namespace != rules.organization:
                there = f"{place}[{position}]"
                found.append(issue("organization-mismatch", place=there, reference=reference, organization=rules.organization))
            if reference in renamed:
                continue
            renamed[reference] = changed
        parsed.append(reference)
        originals.append(printable(original, MAX_TEXT) if image.names else "")
    image.issues += [each.at(image_index=image.index) for each in found]
    attempt = Attempt(
        archive=done.name,
        image_index=image.index,
        originals=tuple(originals),
        references=tuple(r for r in parsed if r is not None),
        started_ms=done.started_ms,
    )
    return PreparedImage(image=image, attempt=attempt, renamed=renamed, parsed=tuple(parsed))


# --- layers ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Need:
    """How one layer of the archive is to be read: staged for an image that may load, or only hashed."""

    claimed: Digest | None = None
    kept_as: Digest | None = None
    staged: bool = False


def _read_layers(done: Prepared, budget: Budget, shop: Workshop) -> None:
    """Read each layer of the archive once, then finish its images."""
    broken = has_errors(done.issues)
    needs: dict[LayerSource, _Need] = {}
    for prepared in done.images:
        image = prepared.image
        loads = shop.staging is not None and not broken and not has_errors(image.issues)
        ids = image.config.diff_ids if image.config else ()
        kept = _kept_layers(image) if loads else None
        for position, layer in enumerate(image.layers):
            need = needs.setdefault(layer, _Need())
            if loads and position < len(ids):
                need.staged = True
                need.claimed = ids[position]
                need.kept_as = kept[position] if kept else need.kept_as
    known = _known(needs, shop)
    progress = shop.progress

    def advance(size: int) -> None:
        if progress is not None:
            progress.advance(done.name, size)

    limit = shop.rules.limits.max_layer_size
    reading = LayerReading(budget, shop.cancel, shop.block_pool, limit, advance if progress else None)

    def read(layer: LayerSource) -> TakenLayer:
        need = needs[layer]
        if need.staged and shop.staging is not None and need.claimed is not None:
            compression = layer.compression if layer.compression in KEPT else shop.target
            return shop.staging.take(done.position, layer, need.claimed, need.kept_as, known.get(compression, {}), reading)
        facts = layer.copy_to(None, shop.target, reading)
        return TakenLayer(facts, facts.digest, facts.size, facts.compression, None, False)

    results = _read_all(list(needs), read, shop.layer_pool)
    done.issues += _over_budget(done, results)
    for prepared in done.images:
        _finish_image(prepared, results, shop, broken or has_errors(done.issues))


def _kept_layers(image: ArchiveImage) -> list[Digest] | None:
    """The layer digests of an OCI manifest that may be kept byte for byte; None when there is none."""
    if image.oci is None or len(image.oci.manifest.layers) != len(image.layers):
        return None
    if any(layer.compression not in KEPT for layer in image.layers):
        return None
    return [descriptor.digest for descriptor in image.oci.manifest.layers]


def _known(needs: dict[LayerSource, _Need], shop: Workshop) -> dict[Compression, dict[Digest, tuple[Digest, int]]]:
    wanted: dict[Compression, list[Digest]] = {}
    for layer, need in needs.items():
        if need.staged and need.claimed is not None and need.kept_as is None:
            compression = layer.compression if layer.compression in KEPT else shop.target
            wanted.setdefault(compression, []).append(need.claimed)
    if shop.known_layers is None:
        return {}
    return {c: shop.known_layers(ids, OCI_LAYER_TYPES[c]) for c, ids in wanted.items()}


def _read_all(
    layers: list[LayerSource], read: Callable[[LayerSource], TakenLayer], pool: Executor
) -> dict[LayerSource, TakenLayer | ArchiveFault]:
    """Read the large layers side by side, the largest first, and the small ones here."""
    results: dict[LayerSource, TakenLayer | ArchiveFault] = {}
    large = sorted((layer for layer in layers if not layer.small), key=lambda layer: -layer.extent.size)
    futures: dict[LayerSource, Future[TakenLayer]] = {}
    if len(large) > 1:
        futures = {layer: pool.submit(read, layer) for layer in large}
    try:
        for layer in layers:
            try:
                results[layer] = futures[layer].result() if layer in futures else read(layer)
            except ArchiveFault as e:
                results[layer] = e
    finally:
        for future in futures.values():
            future.cancel()
    return results


def _over_budget(done: Prepared, results: dict[LayerSource, TakenLayer | ArchiveFault]) -> list[Issue]:
    """The bytes decompressed are those of the archive: the limit is told once, not for each layer that met it."""
    met = [r.issue for r in results.values() if isinstance(r, ArchiveFault) and r.issue.code == _BUDGET]
    told = any(found.code == _BUDGET for found in done.issues) or found_large(done.issues)
    return [] if told else met[:1]


def _finish_image(
    prepared: PreparedImage, results: dict[LayerSource, TakenLayer | ArchiveFault], shop: Workshop, broken: bool
) -> None:
    image = prepared.image
    taken: list[TakenLayer] = []
    for position, layer in enumerate(image.layers):
        result = results[layer]
        if isinstance(result, ArchiveFault):
            if result.issue.code == _BUDGET:
                continue
            image.issues.append(replace(result.issue, place=image.layer_place(position), image_index=image.index))
        else:
            taken.append(result)
    if image.config is not None and len(taken) == len(image.layers) == len(image.config.diff_ids):
        facts = [each.facts for each in taken]
        image.issues += check_layers(image, facts)
        prepared.taken = tuple(taken)
        target = shop.target if shop.staging is not None else Compression.GZIP
        kept, disagreements = kept_manifest(image, facts, target)
        image.issues += disagreements
        prepared.attempt = _with_record(prepared, tuple(taken))
        if shop.staging is not None and not broken and not has_errors(image.issues):
            prepared.kept = kept is not None
            assert image.config_extent is not None
            raw = image.config_extent.read()
            if Digest.of(raw) != image.config.digest:
                image.issues.append(issue("archive-changed", image_index=image.index))
            else:
                prepared.attempt = with_manifest(prepared, kept, shop.staging.stage_bytes(raw), shop.staging)
    image.issues = [each.at(archive=prepared.attempt.archive) for each in image.issues]
    # Also those of an image that is refused: whoever is done with the archive releases them.
    blobs = tuple(dict.fromkeys((*prepared.attempt.blobs, *_staged(taken))))
    prepared.attempt = replace(prepared.attempt, issues=tuple(image.issues), blobs=blobs)


def _staged(taken: Iterable[TakenLayer]) -> tuple[StagedBlob, ...]:
    return tuple(each.staged for each in taken if each.staged is not None)


def _with_record(prepared: PreparedImage, taken: tuple[TakenLayer, ...]) -> Attempt:
    config = prepared.image.config
    if config is None:
        return prepared.attempt
    return replace(
        prepared.attempt,
        record=ImageRecord(
            digest="",
            media_type="",
            image_id=str(config.digest),
            architecture=printable(config.architecture),
            os=printable(config.os),
            layers=len(prepared.image.layers),
            uncompressed_bytes=sum(each.facts.uncompressed_bytes for each in taken),
            stored_bytes=0,
            archive=prepared.attempt.archive,
        ),
    )


def with_manifest(prepared: PreparedImage, kept: Manifest | None, config: StagedBlob, staging: Staging) -> Attempt:
    """The attempt with the manifest of its layers (`kept`, or a new one), which is staged, and all blobs that this needs."""
    image, attempt = prepared.image, prepared.attempt
    assert image.config is not None and attempt.record is not None
    layers = [(each.digest, each.size, each.compression) for each in prepared.taken]
    manifest = kept or Manifest.build((image.config.digest, image.config.size), layers)
    blobs = dict.fromkeys((config, staging.stage_bytes(manifest.raw), *_staged(prepared.taken)))
    sizes = {each.digest: each.size for each in prepared.taken}
    stored = sum(sizes.values()) + image.config.size + len(manifest.raw)
    record = replace(attempt.record, digest=str(manifest.digest), media_type=manifest.media_type, stored_bytes=stored)
    notes = {
        (each.facts.diff_id, each.media_type): {
            "diff_id": str(each.facts.diff_id),
            "media_type": each.media_type,
            "digest": str(each.digest),
            "size": each.size,
        }
        for each in prepared.taken
        if each.staged is not None or not each.reused
    }
    return replace(attempt, manifest=manifest, record=record, blobs=tuple(blobs), layer_notes=tuple(notes.values()))
