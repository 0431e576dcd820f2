"""Stored images as files that other programs load (guide 4.4: the archive that `docker save` makes of a pulled image).

Three forms, each written in one pass with bounded memory, each the same bytes for the same images whenever it is made:

* docker-archive: the hybrid that `docker save` writes since Docker 25. Layers are not compressed and lie as
  `blobs/sha256/<diff_id>`; manifest.json leads to them, and so does an OCI layout. Engines since Docker 1.10, podman and skopeo
  go by manifest.json's paths wherever they point; Docker with containerd's store, and tools that know OCI only (hauler), want
  the layout. So more programs read the hybrid than the legacy form. The file `repositories` is left out: only engines older than
  1.10 need it.
* oci-archive and oci-dir: manifests, configs and layers byte for byte as they are stored, so that every digest stays. The
  archive has a manifest.json too, as containerd and BuildKit write it: engines and this program load it like a docker-archive.

Docker schema 2 manifests in an OCI layout, as skopeo 1.9 and podman 4.3 take them: the manifest is read as it is, but a name is
looked for only at OCI manifests and OCI indexes. So such a manifest keeps its bytes and its media type and lies in an OCI index
of its own, which bears the name. The index states no platform: then its one manifest is taken on every machine.

Names stand in full, as `org.opencontainers.image.ref.name` (podman, skopeo) and `io.containerd.image.name` (containerd, docker).

Every blob is hashed as it is read, a layer's content too where it is decompressed. For a file or a folder that is soon enough:
nothing appears before all was read. Before a stream begins, everything is read once in advance.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from sqlalchemy import tuple_

from .archive import MAX_CONFIG
from .blobs import BlobReader
from .compression import ENCODERS, Compression, reblock
from .cts import Actor, Trace, new_run_id, new_trace, now_ms
from .destination import STREAM, Member, NewFile, Patch, Stream, Target, file_target, folder_target, tar_pieces
from .digest import Cancel, Digest
from .errors import ArchiveFault, Refused, StoreError, UsageError, issue, printable
from .image import OCI_INDEX, OCI_MANIFEST, Descriptor, ImageConfig, Manifest, layer_compression
from .ledger.access import find
from .ledger.acting import reading
from .ledger.events import append_events
from .ledger.schema import organizations, repositories, tags
from .policy import Reference, looks_like_registry, same_registry, split_name
from .rights import Act
from .store import Store, tag_name, tag_path, tag_query

Form = Literal["docker-archive", "oci-archive", "oci-dir"]
FORMS: Final = ("docker-archive", "oci-archive", "oci-dir")
_KEYS: Final = 400
_OCI_LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """An image of the store and the names that it is exported under; `raw_config` was hashed."""

    references: tuple[Reference, ...]
    manifest: Manifest
    config: ImageConfig
    raw_config: bytes

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.references[0].name


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What an export wrote, `size` in bytes (of a folder: of its files)."""

    to: str
    form: Form
    compression: Compression
    size: int
    images: tuple[StoredImage, ...]
    events: tuple[dict[str, Any], ...] = ()


def export_images(
    store: Store,
    names: Sequence[str],
    to: str,
    *,
    form: Form,
    compression: Compression = Compression.NONE,
    actor: Actor,
    cancel: Cancel | None = None,
) -> ExportResult:
    """Write the images `names` (see `select`) to the file or folder `to`, or as a stream to standard output (`-`).

    What stood there is replaced, in one step, in the transaction of the export's events: a file that was exported has its events.
    Raises `UsageError` for a name that the store does not have or a destination that does not fit, `Refused`, `StoreError` when
    a blob is missing or damaged or the destination cannot be written, `Cancelled`; then nothing is left at the destination.
    """
    cancel, begun = cancel or Cancel(), now_ms()
    run_id = new_run_id(begun)
    check_destination(store, to, form, compression)
    # No sweep takes a blob away that was found here.
    with store.run(run_id, cancel):
        images = select(store, names, actor)
        blobs = BlobReader(store, cancel)
        if form == "oci-dir":
            with folder_target(to) as folder:
                size = sum(folder.add(member) for member in _oci_members(images, blobs, archive=False))
                result = ExportResult(to=to, form=form, compression=compression, size=size, images=images)
                return _put(store, folder, result, actor, run_id, begun)
        with file_target(to) as target:
            size = target.write(_archive(images, blobs, form, compression, target))
            result = ExportResult(to=to, form=form, compression=compression, size=size, images=images)
            return _put(store, target, result, actor, run_id, begun)


def compression_of_name(to: str) -> Compression:
    """What the ending of a file's name promises."""
    if to.endswith((".gz", ".tgz")):
        return Compression.GZIP
    return Compression.ZSTD if to.endswith((".zst", ".tzst", ".zstd")) else Compression.NONE


def check_destination(store: Store, to: str, form: Form, compression: Compression) -> None:
    """UsageError when `to` cannot take this form, or lies within the store."""
    if not to:
        raise UsageError("--to is empty: name a file or a folder (is a variable unset?)")
    if form == "oci-dir" and to == STREAM:
        raise UsageError("a folder cannot be written to standard output: use --form oci-archive")
    if form == "oci-dir" and compression is not Compression.NONE:
        raise UsageError("--compress is for archives: a folder is not compressed")
    if to != STREAM and store.holds(to):
        raise UsageError(f"--to {printable(to)} lies within the store: choose another place")


# --- what is exported ----------------------------------------------------------------------------------------------------


def select(store: Store, names: Sequence[str], actor: Actor) -> tuple[StoredImage, ...]:
    """The images that `names` stand for: ORG/REPO:TAG, also with the registry's host before; no tag is `latest`.

    Each image once, with all its names, in the order of the names: equal names on equal stores give equal exports. `Refused` when
    the actor may not download one of them, which is recorded; nothing was read then.
    """
    registry = store.settings().get("registry", "")
    wanted = {(each.namespace, each.repository, each.tag): each for each in (parse_name(name, registry) for name in names)}
    found: dict[Digest, list[Reference]] = {}
    rows = _rows(store, sorted(wanted))
    if missing := sorted(str(wanted[key]).lstrip("/") for key in wanted.keys() - rows.keys()):
        raise Refused(issue("tag-unknown", place=missing[0], reference=", ".join(map(printable, missing))))
    with reading(store.ledger, actor) as act:
        for path in sorted({reference.path for reference in wanted.values()}):
            act.begins("exportImage", path, {"name": path})
            act.require(Act.EXPORT, find(act.connection, act.actor, path, act.now).facts)
    for key in sorted(wanted):
        found.setdefault(Digest.parse(rows[key]), []).append(wanted[key])
    return tuple(_load(store, digest, tuple(references)) for digest, references in found.items())


def tags_matching(store: Store, patterns: Sequence[str]) -> list[Any]:
    """The rows (`tag_query`) of the tags that the globs match (`ORG/REPO[:TAG]`; none: all), by name.

    Raises `UsageError` for a glob that matches nothing.
    """
    rows = store.tag_rows()
    if not patterns:
        return rows
    found: dict[int, Any] = {}
    for pattern in patterns:
        by_tag = ":" in pattern.rpartition("/")[2]
        matching = {row.id: row for row in rows if fnmatch.fnmatchcase(tag_name(row) if by_tag else tag_path(row), pattern)}
        if not matching:
            raise UsageError(f"{printable(pattern)} matches no tag of {store.path}: write ORG/REPO or ORG/REPO:TAG")
        found |= matching
    return sorted(found.values(), key=tag_name)


def parse_name(text: str, registry: str) -> Reference:
    """A name as it is given on the command line; UsageError when it has not the form, or is of another registry."""
    host, slash, rest = text.partition("/")
    if slash and not (registry and same_registry(host, registry)):
        rest, is_host = text, looks_like_registry(host)
        if is_host and "/" in text[len(host) + 1 :]:
            raise UsageError(f"{printable(text)} is not of the store's registry {registry}")
    # With a host of our own in front, a dot in an organization's name (api profile) is not taken for another.
    _, namespace, repository, tag = split_name(f"registry.invalid/{rest}")
    if not slash or not namespace or not repository or tag == "" or "@" in text or not text.isprintable():
        raise UsageError(f"{printable(text)} is no name of an image: write ORGANIZATION/REPOSITORY:TAG")
    return Reference(registry, namespace, repository, tag or "latest")


def _rows(store: Store, keys: Sequence[tuple[str, str, str]]) -> dict[tuple[str, str, str], str]:
    """Organization, repository, tag → the digest that the ledger has."""
    columns = (organizations.c.name, repositories.c.name, tags.c.tag)
    found = {}
    with store.ledger.read() as connection:
        for start in range(0, len(keys), _KEYS):
            statement = tag_query().where(tuple_(*columns).in_(keys[start : start + _KEYS]))
            for row in connection.execute(statement):
                found[row.organization, row.repository, row.tag] = row.digest
    return found


def _load(store: Store, digest: Digest, references: tuple[Reference, ...]) -> StoredImage:
    manifest = store.manifest(digest)
    raw = store.layout.read_blob(manifest.config.digest, MAX_CONFIG)
    name = references[0].name
    if raw is None or Digest.of(raw) != manifest.config.digest:
        state = "missing" if raw is None else "damaged"
        raise StoreError(
            f"the config {manifest.config.digest} of {name} is {state}: import its archive again (see verify --deep)"
        )
    try:
        config = ImageConfig.parse(raw, "config")
    except ArchiveFault as e:
        raise StoreError(f"the config {manifest.config.digest} of {name} cannot be used: {e.issue.message}") from e
    if len(config.diff_ids) != len(manifest.layers):
        counts = f"{len(manifest.layers)} layers, its config {len(config.diff_ids)}"
        raise StoreError(f"{name} cannot be exported: its manifest has {counts}")
    return StoredImage(references=references, manifest=manifest, config=config, raw_config=raw)


# --- the forms -----------------------------------------------------------------------------------------------------------


def _archive(
    images: Sequence[StoredImage], blobs: BlobReader, form: Form, compression: Compression, target: NewFile | Stream
) -> Iterator[bytes | Patch]:
    """An archive's bytes. Where nothing can be written again or taken back, everything is read once before the first byte."""
    sizes: Mapping[Digest, int] | None = None
    if not target.seekable or compression is not Compression.NONE:
        sizes = _measure(images, blobs, contents=form == "docker-archive")
    members = _docker_members(images, blobs, sizes) if form == "docker-archive" else _oci_members(images, blobs, archive=True)
    if compression is Compression.NONE:
        yield from tar_pieces(members)
    else:
        plain = (piece for piece in tar_pieces(members) if isinstance(piece, bytes))
        yield from map(ENCODERS[compression], reblock(plain))


def _measure(images: Sequence[StoredImage], blobs: BlobReader, *, contents: bool) -> dict[Digest, int]:
    """Read every layer; the size of its content in bytes by diff_id."""
    sizes: dict[Digest, int] = {}
    for image in images:
        for layer, diff_id in zip(image.manifest.layers, image.config.diff_ids, strict=True):
            if diff_id not in sizes:
                read = blobs.content(layer, diff_id, image.name) if contents else blobs.stored(layer, image.name)
                sizes[diff_id] = sum(map(len, read))
    return sizes


def _docker_members(images: Sequence[StoredImage], blobs: BlobReader, sizes: Mapping[Digest, int] | None) -> Iterator[Member]:
    """The files of a docker-archive; `sizes` of the layers' contents when they are known already."""
    measured = dict(sizes or {})
    written: set[Digest] = set()
    manifests: list[tuple[StoredImage, Manifest]] = []
    for image in images:
        for layer, diff_id in zip(image.manifest.layers, image.config.diff_ids, strict=True):
            if diff_id not in written:
                written.add(diff_id)
                content = blobs.content(layer, diff_id, image.name)
                yield Member(_blob(diff_id), sizes[diff_id] if sizes else None, _counted(content, diff_id, measured))
        manifests.append((image, _plain_manifest(image, measured)))
        yield from _small_blobs(image, manifests[-1][1], blobs, written)
    yield from _json_files(manifests, written, layers=lambda image: image.config.diff_ids)


def _counted(pieces: Iterable[bytes], diff_id: Digest, sizes: dict[Digest, int]) -> Iterator[bytes]:
    sizes[diff_id] = 0
    for piece in pieces:
        sizes[diff_id] += len(piece)
        yield piece


def _plain_manifest(image: StoredImage, sizes: Mapping[Digest, int]) -> Manifest:
    """The manifest of the image with layers that are not compressed: the stored one if it is that already."""
    if all(layer_compression(layer.media_type) is Compression.NONE for layer in image.manifest.layers):
        return image.manifest
    layers = [(diff_id, sizes[diff_id], Compression.NONE) for diff_id in image.config.diff_ids]
    return Manifest.build((image.config.digest, image.config.size), layers)


def _oci_members(images: Sequence[StoredImage], blobs: BlobReader, *, archive: bool) -> Iterator[Member]:
    """The files of an OCI layout, with manifest.json in an archive."""
    written: set[Digest] = set()
    for image in images:
        for layer in image.manifest.layers:
            if layer.digest not in written:
                written.add(layer.digest)
                yield Member(_blob(layer.digest), layer.size, blobs.stored(layer, image.name))
        yield from _small_blobs(image, image.manifest, blobs, written)
    layers = (lambda image: [layer.digest for layer in image.manifest.layers]) if archive else None
    yield from _json_files([(image, image.manifest) for image in images], written, layers=layers)


def _small_blobs(image: StoredImage, manifest: Manifest, blobs: BlobReader, written: set[Digest]) -> Iterator[Member]:
    if manifest.config.digest not in written:
        written.add(manifest.config.digest)
        yield Member(_blob(manifest.config.digest), manifest.config.size, blobs.stored(manifest.config, image.name))
    if manifest.digest not in written:
        written.add(manifest.digest)
        yield Member(_blob(manifest.digest), len(manifest.raw), [manifest.raw])


def _json_files(
    manifests: Sequence[tuple[StoredImage, Manifest]],
    written: set[Digest],
    *,
    layers: Callable[[StoredImage], Iterable[Digest]] | None,
) -> Iterator[Member]:
    """The index with every name in it, and manifest.json when `layers` tells which blobs are an image's layers."""
    top: list[dict[str, object]] = []
    entries: dict[tuple[Digest, tuple[str, ...]], dict[str, Any]] = {}
    for image, manifest in manifests:
        described = Descriptor(manifest.media_type, manifest.digest, len(manifest.raw))
        if manifest.media_type != OCI_MANIFEST:
            raw = _index([described.to_json()])
            described = Descriptor(OCI_INDEX, Digest.of(raw), len(raw))
            if described.digest not in written:
                written.add(described.digest)
                yield Member(_blob(described.digest), len(raw), [raw])
        for reference in image.references:
            names = {"io.containerd.image.name": str(reference), "org.opencontainers.image.ref.name": str(reference)}
            top.append({**described.to_json(), "annotations": names})
        if layers is not None:
            # Two manifests of one config, whose layers are stored in different ways, are one image once the layers are the same.
            listed = tuple(_blob(digest) for digest in layers(image))
            entry = {"Config": _blob(image.config.digest), "RepoTags": [], "Layers": listed}
            entries.setdefault((image.config.digest, listed), entry)["RepoTags"] += map(str, image.references)
    for name, raw in (
        ("index.json", _index(top)),
        *([("manifest.json", _json(list(entries.values())))] if layers is not None else []),
        ("oci-layout", _OCI_LAYOUT),
    ):
        yield Member(name, len(raw), [raw])


def _index(manifests: list[dict[str, object]]) -> bytes:
    return _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests})


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _blob(digest: Digest) -> str:
    return f"blobs/sha256/{digest.hex}"


# --- the event -----------------------------------------------------------------------------------------------------------


def _put(store: Store, target: Target, result: ExportResult, actor: Actor, run_id: str, begun: int) -> ExportResult:
    """Make the export visible together with its events: if either fails, neither is there."""
    now = now_ms()
    traces = [
        _trace(image, reference, result, actor, run_id, begun, now) for image in result.images for reference in image.references
    ]
    with store.ledger.write() as connection:
        rows = append_events(connection, traces)
        target.put()
    target.settle()
    return replace(result, events=tuple(rows))


def _trace(
    image: StoredImage, reference: Reference, result: ExportResult, actor: Actor, run_id: str, begun: int, now: int
) -> Trace:
    to = "standard output" if result.to == STREAM else result.to
    digest = str(image.manifest.digest)
    return new_trace(
        "exportImage",
        actor=actor,
        run_id=run_id,
        time=begun,
        record_time=now,
        resource_name=reference.name,
        resource_id=digest,
        request={"reference": str(reference), "form": result.form, "compression": str(result.compression), "file": printable(to)},
        response={"bytes": result.size, "digest": digest, "image_id": str(image.config.digest)},
    )
