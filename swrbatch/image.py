"""Descriptors, manifests and image configs: parsed once, the raw bytes kept beside what was read from them.

Sources: OCI image specification (config.md, manifest.md, image-index.md), Docker image manifest version 2 schema 2.
Nothing here is ever re-serialised to be hashed: a manifest that is kept is kept byte for byte.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from .compression import Compression
from .digest import Digest
from .errors import ArchiveFault, fault
from .sizes import format_size

DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_MANIFEST_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_GZIP: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"

OCI_LAYER_TYPES: Final[Mapping[Compression, str]] = {
    Compression.NONE: OCI_LAYER,
    Compression.GZIP: OCI_LAYER + "+gzip",
    Compression.ZSTD: OCI_LAYER + "+zstd",
}
_LAYER_COMPRESSION: Final[Mapping[str, Compression]] = {
    **{media_type: compression for compression, media_type in OCI_LAYER_TYPES.items()},
    DOCKER_LAYER: Compression.NONE,
    DOCKER_LAYER_GZIP: Compression.GZIP,
    DOCKER_LAYER + ".zstd": Compression.ZSTD,
}

MAX_JSON_DEPTH: Final = 64
MAX_JSON_TOKENS: Final = 400_000
MAX_JSON_UNICODE: Final = 8 << 20
"""Bytes of JSON that may hold characters beyond ASCII: one of them can make a text four times as large in memory."""
MAX_TEXT: Final = 4096
"""Characters kept of one free text of a config (a history step) in the report."""

_MANIFEST_KEYS: Final = {
    key.casefold(): key
    for key in ("schemaVersion", "mediaType", "config", "layers", "manifests", "digest", "size", "urls", "data", "artifactType")
}
_STRING = re.compile(rb'"[^"]*"')
_STEP: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_BRACKET = bytes(byte for byte in range(256) if byte not in _STEP)
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_json(raw: bytes, name: str, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """`raw` as JSON, bounded before it is parsed. `pairs` makes the objects; it may raise ValueError.

    Raises the issue `json-too-complex` (over `MAX_JSON_DEPTH` levels, `MAX_JSON_TOKENS` elements, or `MAX_JSON_UNICODE` bytes
    that are not all ASCII) or `json-invalid`. Lone surrogates become U+FFFD, as Go reads them; NaN, Infinity and numbers of
    thousands of digits are refused as invalid.
    """
    opened = raw.count(b"[") + raw.count(b"{")
    if opened + raw.count(b",") + raw.count(b":") > MAX_JSON_TOKENS:
        raise fault("json-too-complex", place=name, name=name, detail=f"more than {MAX_JSON_TOKENS} elements")
    if opened > MAX_JSON_DEPTH and _depth(raw) > MAX_JSON_DEPTH:
        raise fault("json-too-complex", place=name, name=name, detail=f"nested deeper than {MAX_JSON_DEPTH}")
    if len(raw) > MAX_JSON_UNICODE and not (raw.isascii() and b"\\u" not in raw):
        detail = f"more than {format_size(MAX_JSON_UNICODE)} with characters beyond ASCII"
        raise fault("json-too-complex", place=name, name=name, detail=detail)
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as e:
        raise fault("json-invalid", place=name, name=name, detail=_reason(raw, str(e))) from e
    return _without_surrogates(value) if _ESCAPED_SURROGATE.search(raw) else value


def _reason(raw: bytes, text: str) -> str:
    """Why a text is no JSON, without Python's advice to programmers."""
    if raw.startswith(codecs.BOM_UTF8):
        return "it begins with a byte order mark"
    return "a number has thousands of digits" if "set_int_max_str_digits" in text else text


def _spelled_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice in an object")
    for key in made:
        if _MANIFEST_KEYS.get(key.casefold(), key) != key:
            raise ValueError(f"the key {key!r} is spelled otherwise in the specification")
    return made


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value


def _depth(raw: bytes) -> int:
    """The deepest nesting, without parsing. Escapes go first, so that a string has no inner quote and needs no backtracking."""
    plain = raw.replace(rb"\\", b"").replace(rb"\"", b"")
    if plain.count(b'"') > 2 * MAX_JSON_TOKENS + 2:
        return 0  # more strings than what could part them: no JSON, as the parser finds at the second one
    structure = _STRING.sub(b"", plain).translate(None, _NO_BRACKET)
    return max(accumulate(map(_STEP.__getitem__, structure)), default=0)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a manifest says of a blob. `size` in bytes."""

    media_type: str
    digest: Digest
    size: int

    @classmethod
    def parse(cls, value: object) -> Descriptor:
        """From a parsed JSON object; ValueError when it is none."""
        if not isinstance(value, dict):
            raise ValueError("a descriptor is no object")
        size, media_type = value.get("size"), value.get("mediaType")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 62 or not isinstance(media_type, str):
            raise ValueError("a descriptor lacks its size or its mediaType")
        return cls(media_type, Digest.parse(value.get("digest")), size)

    def to_json(self) -> dict[str, object]:
        return {"mediaType": self.media_type, "size": self.size, "digest": str(self.digest)}


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image manifest of one platform (Docker schema 2 or OCI). `digest` is that of `raw`."""

    raw: bytes
    digest: Digest
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @classmethod
    def parse(cls, raw: bytes) -> Manifest:
        """From its bytes; ValueError when they hold no image manifest, or one that other readers may take for another.

        Registries and clients are written in Go, which matches keys without regard to case: each key must be spelled as in the
        specification, and stand once.
        """
        try:
            value = parse_json(raw, "JSON", _spelled_once)
        except ArchiveFault as e:
            raise ValueError(e.issue.message) from e
        if not isinstance(value, dict) or not isinstance(value.get("layers"), list):
            raise ValueError("no image manifest")
        if value.get("schemaVersion") != 2 or "manifests" in value:
            raise ValueError("not an image manifest of schemaVersion 2")
        media_type = value.get("mediaType", OCI_MANIFEST)
        if media_type not in (OCI_MANIFEST, DOCKER_MANIFEST):
            raise ValueError(f"not an image manifest but {str(media_type)[:100]}")
        return cls(
            raw,
            Digest.of(raw),
            media_type,
            Descriptor.parse(value.get("config")),
            tuple(Descriptor.parse(layer) for layer in value["layers"]),
        )

    @classmethod
    def build(cls, config: tuple[Digest, int], layers: Sequence[tuple[Digest, int, Compression]]) -> Manifest:
        """The manifest for these blobs: Docker schema 2 when all layers are gzip, OCI otherwise.

        Schema 2 is what every client since Docker 1.10 reads; it has no media type for zstd or plain layers that all accept.
        """
        docker = all(compression is Compression.GZIP for _, _, compression in layers)
        media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
        config_descriptor = Descriptor(DOCKER_CONFIG if docker else OCI_CONFIG, *config)
        descriptors = tuple(
            Descriptor(DOCKER_LAYER_GZIP if docker else OCI_LAYER_TYPES[compression], digest, size)
            for digest, size, compression in layers
        )
        body = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": config_descriptor.to_json(),
            "layers": [layer.to_json() for layer in descriptors],
        }
        raw = json.dumps(body, separators=(",", ":")).encode()
        return cls(raw, Digest.of(raw), media_type, config_descriptor, descriptors)


def layer_media_type(compression: Compression) -> str:
    """The OCI media type of a layer that is compressed so."""
    return OCI_LAYER_TYPES.get(compression, "application/octet-stream")


def layer_compression(media_type: str) -> Compression | None:
    """The compression that a layer's media type promises; None for an unknown type."""
    return _LAYER_COMPRESSION.get(media_type)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """What swrbatch reads of an image config. `digest`, the sha256 of its bytes, is the image ID.

    `history` has the `created_by` of each step that made a layer (cut at `MAX_TEXT` characters, "" when absent); None when the
    config has no history. `created` and `docker_version` are texts as written, "" when absent.
    """

    digest: Digest
    size: int
    diff_ids: tuple[Digest, ...]
    history: tuple[str, ...] | None
    architecture: str
    os: str
    created: str
    docker_version: str

    @classmethod
    def parse(cls, raw: bytes, name: str) -> ImageConfig:
        """From its bytes; raises the issue `json-invalid`, `json-too-complex` or `config-schema`, placed at `name`."""
        value = parse_json(raw, name)
        try:
            if not isinstance(value, dict):
                raise ValueError("it is no JSON object")
            return cls(
                digest=Digest.of(raw),
                size=len(raw),
                diff_ids=_diff_ids(value.get("rootfs")),
                history=_history(value.get("history")),
                architecture=_text(value.get("architecture")),
                os=_text(value.get("os")),
                created=_text(value.get("created")),
                docker_version=_text(value.get("docker_version")),
            )
        except ValueError as e:
            raise fault("config-schema", place=name, detail=str(e)) from e

    def created_by(self) -> tuple[str, ...]:
        """The history step of each layer, by layer; shorter than the layers when the history is incomplete."""
        return self.history or ()


def _diff_ids(rootfs: object) -> tuple[Digest, ...]:
    if not isinstance(rootfs, dict):
        raise ValueError("rootfs is missing")
    listed = rootfs.get("diff_ids")
    if listed is None:
        return ()
    if not isinstance(listed, list):
        raise ValueError("rootfs.diff_ids is no list")
    found = []
    for position, text in enumerate(listed):
        try:
            found.append(Digest.parse(text))
        except ValueError as e:
            raise ValueError(f"rootfs.diff_ids[{position}]: {e}") from e
    return tuple(found)


def _history(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(step, dict) for step in value):
        raise ValueError("history is no list of objects")
    return tuple(_text(step.get("created_by")) for step in value if step.get("empty_layer") is not True)


def _text(value: object) -> str:
    return value[:MAX_TEXT] if isinstance(value, str) else ""
