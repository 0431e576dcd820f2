"""Image archives built in code, in the form that each producer writes.

    Layer.of({"etc/motd": b"hi"})          a layer: its tar, how it is stored, its diff_id and its digest
    Image(layers=(...), tags=(...))        an image: its config, its image ID
    docker_legacy(Image()), crane(...)     one function per producer: the bytes of an archive of these images
    PRODUCERS                              all of those that must load, by name
    files(Image()), tar_of({...})          the least archive that loads, as a dict that a test can change
    TarBuilder                             header by header, for what no sane program writes
    outer(data, "zstd"), oci_manifest(...) the compression around it; the manifest inside the hybrids

Everything is deterministic: equal arguments give equal bytes. What the producers write was read in their sources and in
real archives (`fixtures/archives`).
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, BinaryIO, Literal, Self

import zstandard

Compression = Literal["none", "gzip", "zstd", "xz", "bzip2"]
Entries = dict[str, bytes | str]  # member name -> content, or the target of a symlink
Edit = Callable[[dict[str, Any]], object]

TAG = "swr.cn-north-1.example.com/team/hello:v1"
BLOCK = 512
END = bytes(2 * BLOCK)  # the end marker of a tar

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def to_json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def compress(data: bytes, compression: Compression) -> bytes:
    match compression:
        case "none":
            return data
        case "gzip":
            return gzip.compress(data, mtime=0)
        case "zstd":
            return zstandard.ZstdCompressor(write_checksum=True).compress(data)
        case "xz":
            return lzma.compress(data)
        case "bzip2":
            return bz2.compress(data)


def outer(data: bytes, compression: Compression, members: int = 1) -> bytes:
    """`data` compressed as so many gzip members, zstd frames, xz or bzip2 streams, one after the other."""
    step = max(1, -(-len(data) // members))
    return b"".join(compress(data[at : at + step], compression) for at in range(0, max(1, len(data)), step))


# --- tar, header by header -------------------------------------------------------------------------------------------


def _raw(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def base256(number: int, width: int = 12) -> bytes:
    """A numeric field in GNU's binary form: for sizes of 8 GiB and more, and for sizes that must not be believed."""
    return (b"\xff" if number < 0 else b"\x80") + number.to_bytes(width - 1, "big", signed=number < 0)


def header(
    name: str | bytes,
    *,
    kind: bytes = b"0",
    size: int | bytes = 0,
    link: str | bytes = b"",
    mode: int = 0o644,
    checksum: bytes | None = None,
) -> bytes:
    """One ustar header. `size` and `checksum` given as bytes are written as they are, true or not."""
    if isinstance(size, int):
        size = b"%011o\0" % size if size < 8**11 else base256(size)
    fields = [
        (0, _raw(name)[:100]),
        (100, b"%07o\0" % mode + b"%07o\0" % 0 * 2),
        (124, size),
        (136, b"%011o\0" % 0),
        (148, b" " * 8),
        (156, kind),
        (157, _raw(link)[:100]),
        (257, b"ustar\0" + b"00"),
    ]
    block = bytearray(BLOCK)
    for at, value in fields:
        block[at : at + len(value)] = value
    block[148:156] = b"%06o\0 " % sum(block) if checksum is None else checksum
    return bytes(block)


def pax_record(key: str | bytes, value: str | bytes) -> bytes:
    """`"%d %s=%s\\n"` of POSIX: the length counts its own digits."""
    body = b" " + _raw(key) + b"=" + _raw(value) + b"\n"
    length = len(body)
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return str(length).encode() + body


class TarBuilder:
    """Writes members one after the other, into memory or into `stream`. Calls can be chained; nothing is checked."""

    def __init__(self, stream: BinaryIO | None = None) -> None:
        self._stream = io.BytesIO() if stream is None else stream

    def raw(self, data: bytes) -> Self:
        self._stream.write(data)
        return self

    def member(
        self,
        name: str | bytes,
        data: bytes = b"",
        *,
        kind: bytes = b"0",
        size: int | bytes | None = None,
        link: str | bytes = b"",
        mode: int = 0o644,
        checksum: bytes | None = None,
    ) -> Self:
        """A header and the padded data. `size` may say something else than the data; long names get a GNU header."""
        for text, long_kind in ((link, b"K"), (name, b"L")):
            if len(_raw(text)) > 100:
                self.gnu_long(text, kind=long_kind)
        size = len(data) if size is None else size
        self.raw(header(name, kind=kind, size=size, link=link, mode=mode, checksum=checksum))
        return self.raw(data + bytes(-len(data) % BLOCK))

    def files(self, contents: Mapping[str, bytes]) -> Self:
        for name, data in contents.items():
            self.member(name, data)
        return self

    def directory(self, name: str) -> Self:
        return self.member(name.rstrip("/") + "/", kind=b"5", mode=0o755)

    def symlink(self, name: str, target: str) -> Self:
        return self.member(name, kind=b"2", link=target, mode=0o777)

    def hardlink(self, name: str, target: str) -> Self:
        return self.member(name, kind=b"1", link=target)

    def gnu_long(self, text: str | bytes, *, kind: bytes = b"L") -> Self:
        """The name (L) or the link's target (K) of the next member, of any length."""
        return self.member("././@LongLink", _raw(text) + b"\0", kind=kind)

    def pax(self, records: Mapping[str, str | bytes], *, kind: bytes = b"x") -> Self:
        """Extended header of the next member (x) or of all that follow (g)."""
        return self.member("PaxHeaders.0/x", b"".join(pax_record(*item) for item in records.items()), kind=kind)

    def end(self) -> Self:
        return self.raw(END)

    def getvalue(self) -> bytes:
        assert isinstance(self._stream, io.BytesIO)
        return self._stream.getvalue()


def tar_of(contents: Mapping[str, bytes]) -> bytes:
    """A tar of these regular files, in this order."""
    return TarBuilder().files(contents).end().getvalue()


# --- layers and images -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """A layer: its uncompressed bytes (a tar, if it is a good one), and how a producer that compresses stores it."""

    tar: bytes
    compression: Compression = "none"

    @classmethod
    def of(cls, contents: Mapping[str, bytes], compression: Compression = "none") -> Layer:
        """A layer of files; a name that ends in `/` is a directory."""
        tar = TarBuilder()
        for name, data in contents.items():
            if name.endswith("/"):
                tar.directory(name)
            else:
                tar.member(name, data)
        return cls(tar.end().getvalue(), compression)

    @cached_property
    def blob(self) -> bytes:
        return compress(self.tar, self.compression)

    @cached_property
    def diff_id(self) -> str:
        return "sha256:" + sha256(self.tar)

    @cached_property
    def digest(self) -> str:
        return "sha256:" + sha256(self.blob)

    @property
    def media_type(self) -> str:
        return OCI_LAYER if self.compression == "none" else f"{OCI_LAYER}+{self.compression}"


HELLO = (
    Layer.of({"bin/": b"", "bin/tool": b"#!/bin/sh\necho hello\n", "etc/motd": b"hello swr\n" * 200}),
    Layer.of({"srv/data.txt": b"0123456789" * 300, "etc/.wh.motd": b""}),
)


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image; as it stands a good one of two layers. Vary it with `dataclasses.replace`."""

    layers: tuple[Layer, ...] = HELLO
    tags: tuple[str, ...] = (TAG,)
    architecture: str = "amd64"
    os: str = "linux"
    created: str = "2026-01-02T03:04:05Z"
    docker_version: str | None = None
    run: Mapping[str, Any] = field(default_factory=lambda: {"Env": ["PATH=/bin"], "Cmd": ["/bin/tool"]})
    overrides: Mapping[str, Any] = field(default_factory=dict)  # keys of the config that replace what is made here
    without: tuple[str, ...] = ()  # keys that are left out of the config
    raw_config: bytes | None = None  # the config's bytes, whatever they are

    @cached_property
    def config(self) -> bytes:
        """The config, with one history entry for each layer and one for none."""
        if self.raw_config is not None:
            return self.raw_config
        steps: list[dict[str, Any]] = [
            {"created": self.created, "created_by": f"COPY layer {number} /"} for number in range(len(self.layers))
        ]
        steps.append({"created": self.created, "created_by": 'CMD ["/bin/tool"]', "empty_layer": True})
        made: dict[str, Any] = {
            "architecture": self.architecture,
            "config": dict(self.run),
            "created": self.created,
            "history": steps,
            "os": self.os,
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in self.layers]},
        }
        if self.docker_version is not None:
            made["docker_version"] = self.docker_version
        made |= self.overrides
        return to_json({key: value for key, value in made.items() if key not in self.without})

    @property
    def image_id(self) -> str:
        return "sha256:" + self.hex

    @cached_property
    def hex(self) -> str:
        return sha256(self.config)

    def stored(self, compression: Compression) -> Image:
        """The same image with every layer stored in this compression."""
        return replace(self, layers=tuple(replace(layer, compression=compression) for layer in self.layers))


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _split(reference: str) -> tuple[str, str]:
    """`host:5000/name:tag` -> (`host:5000/name`, `tag`)."""
    repository, colon, tag = reference.rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (reference, "latest")


def _docker_name(reference: str) -> str:
    """The reference as Docker writes it in full: `hello:v1` -> `docker.io/library/hello:v1`."""
    first, slash, _ = reference.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return reference
    return "docker.io/" + ("" if slash else "library/") + reference


def entry(image: Image, config: str, layers: Iterable[str], **more: object) -> dict[str, Any]:
    """One image's entry in manifest.json."""
    return {"Config": config, "RepoTags": list(image.tags), "Layers": list(layers), **more}


def files(*images: Image) -> dict[str, bytes]:
    """The least archive that loads, as name -> content: `<hex>.tar` as stored, `<hex>.json`, manifest.json."""
    parts: dict[str, bytes] = {}
    manifest = []
    for image in images:
        names = [_hex(layer.diff_id) + ".tar" for layer in image.layers]
        parts |= {name: layer.blob for name, layer in zip(names, image.layers, strict=True)}
        parts[f"{image.hex}.json"] = image.config
        manifest.append(entry(image, f"{image.hex}.json", names))
    return parts | {"manifest.json": to_json(manifest)}


# --- what the producers have in common -------------------------------------------------------------------------------


def _flat(entries: Mapping[str, bytes | str]) -> bytes:
    """The members in the order in which they were made, no directories: what Go and Java programs write."""
    tar = TarBuilder()
    for name, content in entries.items():
        if isinstance(content, str):
            tar.symlink(name, content)
        else:
            tar.member(name, content)
    return tar.end().getvalue()


def _tree(entries: Mapping[str, bytes | str]) -> bytes:
    """The members sorted by name with the directories above them: what programs write that pack a folder."""
    tar = TarBuilder()
    made: set[str] = set()
    for name in sorted(entries):
        parts = name.split("/")[:-1]
        for above in ("/".join(parts[: depth + 1]) for depth in range(len(parts))):
            if above not in made:
                made.add(above)
                tar.directory(above)
        content = entries[name]
        if isinstance(content, str):
            tar.symlink(name, content)
        else:
            tar.member(name, content)
    return tar.end().getvalue()


def _v1_ids(image: Image) -> list[str]:
    """The legacy id of each layer. As in docker, only the top one depends on the config."""
    ids: list[str] = []
    for layer in image.layers:
        top = image.hex if len(ids) == len(image.layers) - 1 else ""
        ids.append(sha256(f"{ids[-1] if ids else ''} {layer.diff_id} {top}".encode()))
    return ids


def _v1_json(image: Image, ids: list[str], number: int) -> bytes:
    parent = {"parent": ids[number - 1]} if number else {}
    return to_json({"id": ids[number], **parent, "created": image.created, "os": image.os})


def _add_v1_layers(entries: Entries, image: Image, seen: dict[str, str]) -> list[str]:
    """Add `<id>/layer.tar` and its company, a layer that was seen before as a symlink; returns the layers' names."""
    ids = _v1_ids(image)
    for number, (v1_id, layer) in enumerate(zip(ids, image.layers, strict=True)):
        name = f"{v1_id}/layer.tar"
        if name not in entries:
            entries[f"{v1_id}/VERSION"] = b"1.0"
            entries[f"{v1_id}/json"] = _v1_json(image, ids, number)
            entries[name] = f"../{seen[layer.diff_id]}" if layer.diff_id in seen else layer.tar
            seen.setdefault(layer.diff_id, name)
    return [f"{v1_id}/layer.tar" for v1_id in ids]


def _repositories(tops: Iterable[tuple[Image, str]]) -> bytes:
    """The `repositories` file: name -> tag -> id of the top layer."""
    names: dict[str, dict[str, str]] = {}
    for image, top in tops:
        for repository, tag in map(_split, image.tags):
            names.setdefault(repository, {})[tag] = top
    return to_json(names)


def _with_tops(images: Iterable[Image]) -> list[tuple[Image, str]]:
    return [(image, _v1_ids(image)[-1]) for image in images if image.layers]


# --- producers: docker archives --------------------------------------------------------------------------------------


def docker_legacy(*images: Image, parents: bool = False) -> bytes:
    """Docker 1.10 to 24. `parents`: each image names the one before as its `Parent`, as locally built ones do."""
    entries: Entries = {}
    seen: dict[str, str] = {}
    manifest = []
    for number, image in enumerate(images):
        layers = _add_v1_layers(entries, image, seen)
        entries[f"{image.hex}.json"] = image.config
        made = entry(image, f"{image.hex}.json", layers)
        made["RepoTags"] = made["RepoTags"] or None
        manifest.append(made | ({"Parent": images[number - 1].image_id} if parents and number else {}))
    if any(image.tags for image in images):
        entries["repositories"] = _repositories(_with_tops(images))
    return _tree(entries | {"manifest.json": to_json(manifest)})


def rules_docker(*images: Image) -> bytes:
    """Bazel rules_docker: the legacy form, not sorted, no directories; a bundle links the layers that it repeats."""
    entries: Entries = {}
    seen: dict[str, str] = {}
    manifest = []
    for image in images:
        entries[f"{image.hex}.json"] = image.config
        manifest.append(entry(image, f"{image.hex}.json", _add_v1_layers(entries, image, seen)))
    return _flat(entries | {"manifest.json": to_json(manifest), "repositories": _repositories(_with_tops(images))})


def nix(image: Image) -> bytes:
    """Nix dockerTools.buildImage: the legacy form, compressed as a whole by `pigz -nT`."""
    entries: Entries = {f"{image.hex}.json": image.config}
    layers = _add_v1_layers(entries, image, {})
    entries["manifest.json"] = to_json([entry(image, f"{image.hex}.json", layers)])
    entries["repositories"] = _repositories(_with_tops([image]))
    return outer(_tree(entries), "gzip")


def skopeo(*images: Image) -> bytes:
    """Podman save and skopeo `docker-archive:`. `repositories` is always there, maybe `{}`."""
    entries: Entries = {}
    manifest = []
    for image in images:
        names = [_hex(layer.diff_id) + ".tar" for layer in image.layers]
        entries |= {name: layer.tar for name, layer in zip(names, image.layers, strict=True)}
        entries[f"{image.hex}.json"] = image.config
        ids = _v1_ids(image)
        for number, (v1_id, name) in enumerate(zip(ids, names, strict=True)):
            entries[f"{v1_id}/layer.tar"] = f"../{name}"
            entries[f"{v1_id}/VERSION"] = b"1.0"
            entries[f"{v1_id}/json"] = _v1_json(image, ids, number)
        manifest.append(entry(image, f"{image.hex}.json", names))
    return _flat(entries | {"manifest.json": to_json(manifest), "repositories": _repositories(_with_tops(images))})


def crane(*images: Image, compression: Compression = "gzip") -> bytes:
    """Crane, ko, kaniko, apko: `.tar.gz` whatever the compression, a colon in the config's name."""
    entries: Entries = {}
    manifest = []
    for image in (image.stored(compression) for image in images):
        names = [_hex(layer.digest) + ".tar.gz" for layer in image.layers]
        entries[image.image_id] = image.config
        entries |= {name: layer.blob for name, layer in zip(names, image.layers, strict=True)}
        manifest.append(entry(image, image.image_id, names))
    return _flat(entries | {"manifest.json": to_json(manifest)})


def jib(image: Image, *, lower_case: bool = False) -> bytes:
    """Jib's tarball of one image; old versions write lower-case keys."""
    image = image.stored("gzip")
    names = [_hex(layer.digest) + ".tar.gz" for layer in image.layers]
    entries: Entries = {name: layer.blob for name, layer in zip(names, image.layers, strict=True)}
    made = entry(image, "config.json", names)
    if lower_case:
        made = {key[0].lower() + key[1:]: value for key, value in made.items()}
    return _flat(entries | {"config.json": image.config, "manifest.json": to_json([made])})


def rules_oci(*images: Image) -> bytes:
    """Bazel rules_oci: layers as they are under `.tar.gz` names, and the same member once for every image using it."""
    tar = TarBuilder()
    manifest = []
    for image in images:
        config = f"blobs/sha256/{image.hex}"
        names = [f"blobs/sha256/{_hex(layer.digest)}.tar.gz" for layer in image.layers]
        tar.member(config, image.config)
        for name, layer in zip(names, image.layers, strict=True):
            tar.member(name, layer.blob)
        manifest.append(entry(image, config, names))
    return tar.member("manifest.json", to_json(manifest)).end().getvalue()


# --- producers: with OCI parts ---------------------------------------------------------------------------------------


def _descriptor(media_type: str, data: bytes, **more: object) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": "sha256:" + sha256(data), "size": len(data), **more}


def oci_manifest(image: Image, edit: Edit | None = None) -> bytes:
    """The OCI manifest of the image, its layers as they are stored. `edit` changes it first, to make a wrong one."""
    made: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _descriptor(OCI_CONFIG, image.config),
        "layers": [_descriptor(layer.media_type, layer.blob) for layer in image.layers],
    }
    if edit is not None:
        edit(made)
    return to_json(made)


def _index(manifests: list[dict[str, Any]]) -> bytes:
    return to_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests})


def _add_blob(entries: Entries, data: bytes) -> str:
    name = f"blobs/sha256/{sha256(data)}"
    entries[name] = data
    return name


def _named(image: Image, descriptor: dict[str, Any], full_name: str = "") -> list[dict[str, Any]]:
    """The image's descriptors in index.json: one for each of its tags, a bare one when it has none."""
    if not image.tags:
        return [descriptor]
    named = []
    for reference in image.tags:
        key = {full_name: _docker_name(reference)} if full_name else {}
        named.append({**descriptor, "annotations": {**key, "org.opencontainers.image.ref.name": _split(reference)[1]}})
    return named


def _layout(entries: Entries, manifests: list[dict[str, Any]]) -> Entries:
    return entries | {"index.json": _index(manifests), "oci-layout": to_json({"imageLayoutVersion": "1.0.0"})}


def docker25(*images: Image, edit: Edit | None = None) -> bytes:
    """Docker 25 and newer with the graphdriver store: both forms over the same uncompressed blobs."""
    entries: Entries = {}
    manifest = []
    manifests: list[dict[str, Any]] = []
    tops = []
    for image in (image.stored("none") for image in images):
        ids = _v1_ids(image)
        for number in range(len(ids)):
            _add_blob(entries, _v1_json(image, ids, number))
        layers = [_add_blob(entries, layer.tar) for layer in image.layers]
        oci = oci_manifest(image, edit)
        _add_blob(entries, oci)
        sources = {layer.diff_id: _descriptor(layer.media_type, layer.tar) for layer in image.layers}
        made = entry(image, _add_blob(entries, image.config), layers, LayerSources=sources)
        manifest.append(made | {"RepoTags": made["RepoTags"] or None})
        manifests += _named(image, _descriptor(OCI_MANIFEST, oci), "io.containerd.image.name")
        tops += [(image, _hex(layer.diff_id)) for layer in image.layers[-1:]]
    if any(image.tags for image in images):
        entries["repositories"] = _repositories(tops)
    return _tree(_layout(entries, manifests) | {"manifest.json": to_json(manifest)})


def containerd(
    *images: Image,
    nested: bool = False,
    attestation: bool = False,
    missing_platform: bool = False,
    edit: Edit | None = None,
) -> bytes:
    """Docker with the containerd store, ctr, nerdctl, and buildkit's `type=docker`: blobs as they were pulled or built.

    `nested`: index.json points at an index of platforms, with an `attestation` manifest and a `missing_platform`, whose
    blobs are not there, when asked for.
    """
    entries: Entries = {}
    manifest = []
    manifests: list[dict[str, Any]] = []
    for image in images:
        layers = [_add_blob(entries, layer.blob) for layer in image.layers]
        made = entry(image, _add_blob(entries, image.config), layers)
        manifest.append(made | {"RepoTags": made["RepoTags"] or None, "Layers": layers or None})
        oci = oci_manifest(image, edit)
        _add_blob(entries, oci)
        top = _descriptor(OCI_MANIFEST, oci)
        if nested:
            platforms = [top | {"platform": {"architecture": image.architecture, "os": image.os}}]
            if missing_platform:
                arm = {"platform": {"architecture": "arm64", "os": "linux"}}
                platforms.append(_descriptor(OCI_MANIFEST, b"a manifest that was not pulled", **arm))
            if attestation:
                platforms.append(_add_attestation(entries, top["digest"]))
            index = _index(platforms)
            _add_blob(entries, index)
            top = _descriptor(OCI_INDEX, index)
        manifests += _named(image, top, "io.containerd.image.name")
    return _tree(_layout(entries, manifests) | {"manifest.json": to_json(manifest)})


def _add_attestation(entries: Entries, of: str) -> dict[str, Any]:
    """An attestation manifest as buildkit makes it, and its descriptor."""
    statement = to_json({"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://slsa.dev/provenance/v1"})
    diff_ids = {"type": "layers", "diff_ids": ["sha256:" + sha256(statement)]}
    config = to_json({"architecture": "unknown", "os": "unknown", "config": {}, "rootfs": diff_ids})
    made = to_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _descriptor(OCI_CONFIG, config),
            "layers": [_descriptor("application/vnd.in-toto+json", statement)],
        }
    )
    for data in (statement, config, made):
        _add_blob(entries, data)
    return _descriptor(
        OCI_MANIFEST,
        made,
        annotations={"vnd.docker.reference.digest": of, "vnd.docker.reference.type": "attestation-manifest"},
        platform={"architecture": "unknown", "os": "unknown"},
    )


# --- producers: what is no docker archive ----------------------------------------------------------------------------


def docker_before_1_10(*images: Image) -> bytes:
    """Docker before 1.10: no manifest.json, `repositories` is the only index."""
    entries: Entries = {}
    for image in images:
        _add_v1_layers(entries, image, {})
    return _tree(entries | {"repositories": _repositories(_with_tops(images))})


def oci_archive(*images: Image) -> bytes:
    """`podman save --format oci-archive`: an OCI layout and nothing else."""
    entries: Entries = {}
    manifests: list[dict[str, Any]] = []
    for image in images:
        for data in (image.config, *(layer.blob for layer in image.layers), oci_manifest(image)):
            _add_blob(entries, data)
        manifests += _named(image, _descriptor(OCI_MANIFEST, oci_manifest(image)))
    return _tree(_layout(entries, manifests))


def filesystem_export() -> bytes:
    """`docker export`: the files of a container."""
    tar = TarBuilder().member(".dockerenv").directory("bin").member("bin/sh", b"\x7fELF", mode=0o755)
    tar.directory("dev").member("dev/console", kind=b"3").directory("etc").member("etc/hostname")
    tar.symlink("etc/mtab", "/proc/mounts").member("etc/os-release", b"ID=debian\n").directory("proc").directory("sys")
    return tar.end().getvalue()


# Every form that must load: of one image all of them, of several those in BUNDLES.
PRODUCERS: Mapping[str, Callable[[Image], bytes]] = {
    "docker-legacy": docker_legacy,
    "docker25": docker25,
    "containerd": containerd,
    "containerd-nested": partial(containerd, nested=True, attestation=True, missing_platform=True),
    "containerd-gzip": lambda image: containerd(image.stored("gzip")),
    "containerd-zstd": lambda image: containerd(image.stored("zstd")),
    "skopeo": skopeo,
    "crane": crane,
    "crane-zstd": partial(crane, compression="zstd"),
    "jib": jib,
    "jib-lower-case": partial(jib, lower_case=True),
    "rules-docker": rules_docker,
    "rules-oci": rules_oci,
    "nix": nix,
}
BUNDLES: Mapping[str, Callable[..., bytes]] = {
    "docker-legacy": docker_legacy,
    "docker-legacy-parents": partial(docker_legacy, parents=True),
    "docker25": docker25,
    "containerd": containerd,
    "skopeo": skopeo,
    "crane": crane,
    "rules-docker": rules_docker,
    "rules-oci": rules_oci,
}
