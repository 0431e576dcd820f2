"""Hostile and broken input: `HOSTILE`, a table of kinds, each with what must come of it; and generators of more.

    for kind in HOSTILE:
        kind.build(path)                                   # writes the file; big ones are sparse or compress well
        result = check_archives([path], **kind.options)
        assert not kind.objection(issues of the result)    # and: no traceback, no hang, memory flat

A kind's `expect` names outcomes of which at least one must be met: issue codes of `swrbatch.errors`, or LOADS, which
means that no error is reported (and each code of `warnings` is). Where the facts leave a choice, all good ones stand.
"""

from __future__ import annotations

import io
import lzma
import random
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from imagetar import (
    BLOCK,
    END,
    OCI_INDEX,
    TAG,
    Compression,
    Image,
    Layer,
    TarBuilder,
    base256,
    compress,
    containerd,
    docker25,
    docker_before_1_10,
    entry,
    files,
    filesystem_export,
    header,
    oci_archive,
    oci_manifest,
    outer,
    pax_record,
    sha256,
    tar_of,
    to_json,
)
from swrbatch.errors import Issue

LOADS = "loads"
MIB = 2**20
GIB = 2**30


@dataclass(frozen=True)
class Kind:
    """One kind of input. `options` are those of `check_archives` that it needs."""

    name: str
    build: Callable[[Path], object]
    expect: frozenset[str]
    warnings: frozenset[str]
    options: Mapping[str, Any]

    def objection(self, issues: Iterable[Issue]) -> str:
        """Why these issues are not a good outcome; empty if they are."""
        severities = {issue.code: issue.is_error for issue in issues}
        met = self.expect & severities.keys()
        if any(severities.values()):
            good = any(severities[code] for code in met)
        else:
            good = bool(met) or (LOADS in self.expect and self.warnings <= severities.keys())
        wanted = f"one of {sorted(self.expect)}" + (f" with {sorted(self.warnings)}" if self.warnings else "")
        return "" if good else f"{self.name}: expected {wanted}, got {sorted(severities)}"


def written(name: str, expect: str, build: Callable[[Path], object], *, warnings: str = "", **options: Any) -> Kind:
    return Kind(name, build, frozenset(expect.split()), frozenset(warnings.split()), options)


def kind(name: str, expect: str, make: Callable[[], bytes], *, warnings: str = "", **options: Any) -> Kind:
    return written(name, expect, lambda path: path.write_bytes(make()), warnings=warnings, **options)


# --- one good image, and ways to spoil it ----------------------------------------------------------------------------

IMAGE = Image(layers=(Layer.of({"bin/tool": b"#!/bin/sh\necho hello\n" * 40}),))
TWO_LAYERS = Image()
PARTS = files(IMAGE)
GOOD = tar_of(PARTS)
LAYER, CONFIG, MANIFEST = PARTS
NO_HEX = "0" * 64
TAR = IMAGE.layers[0].tar

Odd = Callable[[TarBuilder], object]


def manifest(**changes: object) -> bytes:
    return to_json([entry(IMAGE, CONFIG, [LAYER]) | changes])


def parts(changes: Mapping[str, bytes]) -> bytes:
    """The good archive with these members changed or added."""
    return tar_of({**PARTS, **changes})


def config(image: Image) -> bytes:
    """A minimal archive of this image (IMAGE with another config, mostly)."""
    return tar_of(files(image))


def odd(write: Odd, contents: Mapping[str, bytes] = PARTS) -> bytes:
    """Good members, then what `write` adds."""
    tar = TarBuilder().files(contents)
    write(tar)
    return tar.end().getvalue()


def layer_at(name: str, write: Odd) -> bytes:
    """manifest.json names `name` as the layer, `write` adds what stands there; the true layer is there as well."""
    return odd(write, PARTS | {MANIFEST: manifest(Layers=[name])})


def links(*pairs: tuple[str, str], hard: bool = False) -> bytes:
    """manifest.json names the first of these links (name, target) as the layer."""

    def write(tar: TarBuilder) -> None:
        for name, target in pairs:
            (tar.hardlink if hard else tar.symlink)(name, target)

    return layer_at(pairs[0][0], write)


def chain(length: int) -> bytes:
    return links(*pairwise([*(f"link{number}" for number in range(length)), LAYER]))


def link_for(member: str, write: Odd) -> bytes:
    """The good archive without `member`, whose content is called `real`; `write` adds something at its place."""
    return odd(write, {("real" if name == member else name): data for name, data in PARTS.items()})


def contents(archive: bytes) -> dict[str, bytes]:
    """The regular files of an archive, to be changed and packed again."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {one.name: file.read() for one in tar if one.isreg() and (file := tar.extractfile(one)) is not None}


def sealed(block: bytes) -> bytes:
    """The tar header with a right checksum."""
    plain = block[:148] + b" " * 8 + block[156:]
    return plain[:148] + b"%06o\0 " % sum(plain) + plain[156:]


def gnu_sparse(name: str, data: bytes, real_size: int) -> bytes:
    """A member of type S of GNU tar: `data` and then a hole up to `real_size`."""
    block = bytearray(header(name, kind=b"S", size=len(data)))
    block[257:265] = b"ustar  \0"
    block[386:410] = b"%011o\0" % 0 + b"%011o\0" % len(data)
    block[483:495] = base256(real_size)
    return sealed(bytes(block)) + data + bytes(-len(data) % BLOCK)


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


# --- bombs, made without compressing much ----------------------------------------------------------------------------


@cache
def zeros(compression: Compression) -> bytes:
    """64 MiB of zeros; gzip members and xz, zstd, bzip2 streams may stand one after the other."""
    if compression == "bzip2":
        return compress(bytes(16 * MIB), "bzip2") * 4
    return compress(bytes(64 * MIB), compression)


HUGE_MEMBER = header("huge", size=4 * GIB)


def outer_bomb(compression: Compression) -> bytes:
    """A good archive with a member of 4 GiB of zeros before it."""
    return compress(HUGE_MEMBER, compression) + zeros(compression) * 64 + compress(GOOD, compression)


def layer_bomb(blob: bytes) -> bytes:
    return layer_at("bomb", lambda tar: tar.member("bomb", blob))


def one_gzip_member(size: int) -> bytes:
    """A single member that holds `size` (a multiple of 64 MiB) zeros: flushed pieces may be repeated."""
    piece = bytes(64 * MIB)
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    flushed = deflate.compress(piece) + deflate.flush(zlib.Z_FULL_FLUSH)
    crc = 0
    for _ in range(size // len(piece)):
        crc = zlib.crc32(piece, crc)
    end = deflate.flush() + crc.to_bytes(4, "little") + (size % 2**32).to_bytes(4, "little")
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + flushed * (size // len(piece)) + end


def zstd_frame(blocks: list[tuple[int, int, bytes]], window_log: int) -> bytes:
    """A zstd frame by hand (RFC 8878, 3.1.1) of blocks (type, size, content): type 0 is raw, 1 repeats one byte."""
    made = [b"\x28\xb5\x2f\xfd\0", bytes([(window_log - 10) << 3])]
    for number, (block_type, size, content) in enumerate(blocks, 1):
        made += [((number == len(blocks)) | block_type << 1 | size << 3).to_bytes(3, "little"), content]
    return b"".join(made)


def zstd_window_2_gib(data: bytes) -> bytes:
    pieces = [data[at : at + MIB // 16] for at in range(0, len(data), MIB // 16)]
    return zstd_frame([(0, len(piece), piece) for piece in pieces], 31)


def zstd_zeros(size: int) -> bytes:
    return zstd_frame([(1, MIB // 8, b"\0")] * (size // (MIB // 8)), 31)


def xz_dictionary_4_gib(data: bytes) -> bytes:
    """xz that asks for a dictionary of 4 GiB; its block header follows the 12 bytes of the stream header."""
    made = bytearray(lzma.compress(data))
    end = 12 + (made[12] + 1) * 4
    made[16] = 40
    made[end - 4 : end] = zlib.crc32(made[12 : end - 4]).to_bytes(4, "little")
    return bytes(made)


def zero_padding(path: Path) -> None:
    """8 GiB of zeros after the end marker, as a hole of the file system."""
    with path.open("wb") as file:
        file.write(GOOD)
        file.truncate(8 * GIB)


def zip_file() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("manifest.json"), PARTS[MANIFEST])
    return buffer.getvalue()


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


# --- the kinds: files and what is around the tar ---------------------------------------------------------------------

FREE: dict[str, Any] = {"profile": "none"}  # the page profile refuses zstd, xz and bzip2 outright
SMALL = FREE | {"max_decompressed": 64 * MIB}
COMPRESSIONS: tuple[Compression, ...] = ("gzip", "zstd", "xz", "bzip2")
CUT = "archive-truncated archive-corrupt"

FILES = [
    kind("empty-file", "archive-empty", lambda: b""),
    kind("one-byte", "not-a-tar archive-truncated", lambda: b"x"),
    kind("text-file", "not-a-tar", lambda: b"see https://example.com/image.tar\n" * 100),
    kind("html-page", "not-a-tar", lambda: b"<!DOCTYPE html><title>404 Not Found</title>" + b" " * BLOCK),
    kind("zip-file", "not-a-tar", zip_file),
    kind("elf-file", "not-a-tar", lambda: b"\x7fELF\x02\x01\x01" + bytes(4096)),
    kind("random-bytes", "not-a-tar", lambda: random.Random(1).randbytes(20 * BLOCK)),
    kind("zeros-only", "archive-empty manifest-missing not-a-tar", lambda: bytes(20 * BLOCK)),
    kind("tar-of-other-files", "manifest-missing", lambda: tar_of({"notes/readme.md": b"hi"})),
    kind("archive-in-an-archive", "manifest-missing", lambda: tar_of({"hello.tar": GOOD})),
    kind("everything-in-a-folder", "manifest-missing", lambda: tar_of({f"img/{n}": d for n, d in PARTS.items()})),
    kind("docker-before-1-10", "docker-too-old", lambda: docker_before_1_10(IMAGE)),
    kind("oci-archive", "oci-archive", lambda: oci_archive(IMAGE)),
    kind("filesystem-export", "filesystem-export", filesystem_export),
    written("path-that-leads-nowhere", "archive-unreadable", lambda path: path.symlink_to("nowhere")),
]


Change = Callable[[bytes], bytes]
# What may befall compressed data. The last four bytes are (part of) a checksum: without them the content is all there.
SPOILT: dict[str, Change] = {
    "cut": lambda data: data[: len(data) * 2 // 3],
    "cut-at-the-very-end": lambda data: data[:-4],
    "damaged": lambda data: flip(data, len(data) * 2 // 3),
}


def around(change: Change, compression: Compression = "gzip") -> Callable[[], bytes]:
    """The good archive compressed, then changed."""
    return lambda: change(outer(GOOD, compression))


OUTER = [
    *(kind(f"{c}-{how}", CUT, around(change, c), **FREE) for c in COMPRESSIONS for how, change in SPOILT.items()),
    *(kind(f"{c}-bomb", "decompressed-too-large", partial(outer_bomb, c), **SMALL) for c in COMPRESSIONS),
    *(kind(f"{c}-of-gzip", "compressed-twice", around(partial(outer, compression=c)), **FREE) for c in COMPRESSIONS),
    kind("gzip-of-text", "not-a-tar", lambda: outer(b"just a log\n" * 100, "gzip")),
    kind("gzip-of-nothing", "archive-empty manifest-missing not-a-tar", lambda: outer(b"", "gzip")),
    kind("gzip-magic-only", CUT + " not-a-tar", lambda: b"\x1f\x8b"),
    kind("gzip-wrong-crc", "archive-corrupt", around(lambda data: flip(data, len(data) - 8))),
    kind("gzip-wrong-length", "archive-corrupt", around(lambda data: flip(data, len(data) - 1))),
    kind(
        "gzip-then-garbage",
        "archive-corrupt loads",  # gzip(1): a warning
        around(lambda data: data + b"garbage" * 100),
    ),
    kind("gzip-then-zeros", LOADS, around(lambda data: data + bytes(4096))),  # as on tapes; gzip(1) is silent
    kind("gzip-after-an-empty-member", LOADS, around(lambda data: outer(b"", "gzip") + data)),
    kind(
        "gzip-with-2-mib-file-name",
        "archive-corrupt loads",
        around(lambda data: data[:3] + b"\x08" + data[4:10] + b"a" * 2 * MIB + b"\0" + data[10:]),
    ),
    kind("gzip-padding", LOADS, lambda: outer(GOOD, "gzip") + zeros("gzip"), **FREE),
    kind("gzip-padding-bomb", "decompressed-too-large", lambda: outer(GOOD, "gzip") + zeros("gzip") * 64, **SMALL),
    kind(
        "zstd-after-a-skippable-frame", "loads not-a-tar", lambda: b"\x50\x2a\x4d\x18\x04\0\0\0pzst" + outer(GOOD, "zstd"), **FREE
    ),
    kind("zstd-window-2-gib", "archive-corrupt loads", lambda: zstd_window_2_gib(GOOD), **FREE),
    kind(
        "zstd-window-2-gib-bomb",
        "archive-corrupt decompressed-too-large",
        lambda: zstd_window_2_gib(HUGE_MEMBER) + zstd_zeros(4 * GIB),
        **SMALL,
    ),
    kind("xz-dictionary-4-gib", "archive-corrupt loads", lambda: xz_dictionary_4_gib(GOOD), **FREE),
]

# --- the kinds: tar headers ------------------------------------------------------------------------------------------

HEADER = "header-too-large"


def member(**fields: Any) -> Callable[[], bytes]:
    """The good archive and one member more, with these fields."""
    return lambda: odd(lambda tar: tar.member("odd", **fields))


def pax(data: bytes) -> Callable[[], bytes]:
    """The good archive and one member more, with this extended header."""
    return lambda: odd(lambda tar: tar.member("pax", data, kind=b"x").member("odd"))


def smuggled() -> bytes:
    """The member's size stands in the extended header only: who overlooks it reads the headers inside the layer."""
    inner = Layer(odd(lambda tar: tar.member(MANIFEST, b"[]"), {}))
    image = replace(IMAGE, layers=(inner,))
    layer, image_config, _ = files(image)

    def write(tar: TarBuilder) -> None:
        tar.pax({"size": str(len(inner.tar))}).member(layer, inner.tar, size=0)

    return odd(write, {name: data for name, data in files(image).items() if name in (image_config, MANIFEST)})


HEADERS = [
    kind("checksum-wrong-first", "not-a-tar archive-corrupt", lambda: flip(GOOD, 150)),
    kind("checksum-wrong-later", "archive-corrupt", member(checksum=b"000001\0 ")),
    kind("checksum-not-a-number", "archive-corrupt", member(checksum=b"\xff" * 8)),
    kind("size-negative", "archive-corrupt", member(size=base256(-1))),
    kind("size-minus-one-block", "archive-corrupt", member(size=base256(-BLOCK))),
    kind("size-2-to-the-63", CUT, member(size=base256(2**63))),
    kind("size-2-to-the-64-and-one-block", CUT, member(size=base256(2**64 + BLOCK))),
    kind("size-2-to-the-87", CUT, member(size=base256(2**87))),
    kind("size-not-a-number", "archive-corrupt", member(size=b"0x0000001ff\0")),
    kind("size-past-the-end", "archive-truncated", member(size=GIB)),
    kind("size-in-base-256", LOADS, lambda: odd(lambda tar: tar.member("odd", b"ok", size=base256(2)))),
    kind(
        "directory-with-a-size",
        "loads archive-truncated archive-corrupt",
        lambda: odd(lambda tar: tar.member("dir/", kind=b"5", size=8 * BLOCK)),
    ),
    kind("tar-cut-in-the-layer", "archive-truncated", lambda: GOOD[: 3 * BLOCK // 2]),
    kind(
        "tar-cut-in-the-last-padding",
        "archive-truncated loads",
        lambda: odd(lambda tar: tar.member("odd", b"1"))[: -len(END) - 9],
    ),
    kind("tar-without-end-marker", "archive-truncated loads", lambda: GOOD[: -len(END)]),
    kind("lone-zero-block", "archive-corrupt loads", lambda: odd(lambda tar: tar.raw(bytes(BLOCK)).member("odd"))),
    kind("second-archive-after-the-end", "archive-corrupt loads", lambda: GOOD + config(TWO_LAYERS)),
    kind("garbage-after-the-end", "archive-corrupt loads", lambda: GOOD + random.Random(2).randbytes(8 * BLOCK)),
    written("zeros-after-the-end-8-gib", LOADS, zero_padding, **FREE),
    kind("members-100000", LOADS, lambda: odd(lambda tar: tar.raw(header("same") * (100_000 - len(PARTS))))),
    kind("members-100001", "too-many-members", lambda: odd(lambda tar: tar.raw(header("same") * (100_001 - len(PARTS))))),
    kind(
        "members-a-million-compressed",
        "too-many-members",
        lambda: outer(GOOD[: -len(END)], "gzip") + outer(header("same") * 10_000, "gzip") * 100,
    ),
    kind("pax-2-mib", HEADER, lambda: odd(lambda tar: tar.pax({"comment": b"a" * 2 * MIB}).member("odd"))),
    kind("pax-2-mib-global", HEADER, lambda: odd(lambda tar: tar.pax({"comment": b"a" * 2 * MIB}, kind=b"g").member("odd"))),
    kind(
        "pax-chained",
        HEADER,
        lambda: odd(lambda tar: tar.raw(TarBuilder().pax({"comment": b"a" * 800}).getvalue() * 3000).member("odd")),
    ),
    kind("pax-claims-8-gib", HEADER, member(kind=b"x", size=8 * GIB - 1)),
    kind(
        "pax-claims-8-gib-compressed",
        HEADER,
        lambda: outer(header("pax", kind=b"x", size=8 * GIB - 1), "gzip") + zeros("gzip") * 64,
        **SMALL,
    ),
    kind("gnu-long-name-2-mib", HEADER, lambda: odd(lambda tar: tar.gnu_long(b"a" * 2 * MIB).member("odd"))),
    kind("gnu-long-link-2-mib", HEADER, lambda: odd(lambda tar: tar.gnu_long(b"a" * 2 * MIB, kind=b"K").symlink("odd", LAYER))),
    kind(
        "gnu-long-name-chained",
        HEADER,
        lambda: odd(lambda tar: tar.raw(TarBuilder().gnu_long(b"a" * 900).getvalue() * 3000).member("odd")),
    ),
    kind("pax-length-too-long", "archive-corrupt", pax(b"999 path=x\n")),
    kind("pax-length-zero", "archive-corrupt", pax(b"0 path=x\n")),
    kind("pax-length-negative", "archive-corrupt", pax(b"-5 path=x\n")),
    kind("pax-length-of-5000-digits", "archive-corrupt", pax(b"9" * 5000 + b" path=x\n")),
    kind("pax-length-not-ascii", "archive-corrupt", pax("１０ path=x\n".encode())),
    kind("pax-without-equals-sign", "archive-corrupt", pax(b"8 path\n\n")),
    kind("pax-size-negative", "archive-corrupt", pax(pax_record("size", "-1"))),
    kind("pax-size-not-a-number", "archive-corrupt", pax(pax_record("size", "1e3"))),
    kind("pax-size-of-5000-digits", CUT, pax(pax_record("size", "9" * 5000))),
    kind("pax-size-over-the-header", LOADS, smuggled),
    kind(
        "pax-renames-to-manifest",
        LOADS,
        lambda: link_for(MANIFEST, lambda tar: tar.pax({"path": MANIFEST}).member("other", PARTS[MANIFEST])),
    ),
    kind("pax-path-with-nul", "archive-corrupt loads", pax(pax_record("path", b"manifest.json\0.txt"))),
    kind("pax-path-not-utf-8", "archive-corrupt loads", pax(pax_record("path", b"\xff\xfe"))),
    kind(
        "pax-global-comment",
        LOADS,  # git archive
        lambda: TarBuilder().pax({"comment": "0123abcd"}, kind=b"g").raw(GOOD).getvalue(),
    ),
    kind("pax-at-the-end", CUT + " loads", lambda: odd(lambda tar: tar.pax({"path": "odd"}))),
    kind("volume-label-first", LOADS, lambda: TarBuilder().member("label", kind=b"V").raw(GOOD).getvalue()),  # tar -V
]

# --- the kinds: names, duplicates, links -----------------------------------------------------------------------------


def twice(name: str, second: bytes) -> Callable[[], bytes]:
    return lambda: odd(lambda tar: tar.member(name, second))


def unused_twice(tar: TarBuilder) -> None:
    tar.member("unused", b"1").member("unused", b"2")


def through_a_linked_folder(tar: TarBuilder) -> None:
    tar.symlink("linked", "real").member("real/layer.tar", TAR)


NAMES = [
    kind(
        "dot-slash-names",
        LOADS,
        lambda: TarBuilder().directory(".").files({f"./{n}": d for n, d in PARTS.items()}).end().getvalue(),
    ),
    kind("apple-double", LOADS, lambda: TarBuilder().member("._manifest.json", b"\0\5\x16\7Mac OS X").raw(GOOD).getvalue()),
    kind("name-not-utf-8", LOADS, lambda: odd(lambda tar: tar.member(b"\xff\xfe.txt", b"1"))),
    kind("name-not-utf-8-twice", LOADS, lambda: odd(lambda tar: tar.member(b"\xff", b"1").member(b"\xfe", b"2"))),
    kind("name-with-bytes-after-nul", LOADS, lambda: layer_at("layer.tar", lambda tar: tar.member(b"layer.tar\0junk", TAR))),
    kind("name-empty", "loads archive-corrupt", lambda: odd(lambda tar: tar.member("", b"1"))),
    kind(
        "name-with-dots-inside",
        "loads layer-missing path-escape",
        lambda: layer_at("a/layer.tar", lambda tar: tar.member("a/b/.././layer.tar", TAR)),
    ),
    kind("unused-name-outside", "loads path-escape", lambda: odd(lambda tar: tar.member("../../etc/cron.d/x", b"1"))),
    kind("unused-name-absolute", "loads path-escape", lambda: odd(lambda tar: tar.member("/etc/cron.d/x", b"1"))),
    kind("manifest-twice-equal", LOADS, twice(MANIFEST, PARTS[MANIFEST])),
    kind("manifest-twice-differs", "duplicate-members", twice(MANIFEST, manifest(RepoTags=["a.example.com/b/c:d"]))),
    kind(
        "manifest-twice-behind-dot-slash", "duplicate-members", twice("./" + MANIFEST, manifest(RepoTags=["a.example.com/b/c:d"]))
    ),
    kind("manifest-twice-with-dots", "duplicate-members", twice(f"a/../{MANIFEST}", b"[]")),
    kind("manifest-twice-absolute", "duplicate-members", twice(f"/{MANIFEST}", b"[]")),
    kind("layer-twice-absolute-equal", LOADS, twice(f"//{LAYER}", TAR)),
    kind("config-twice-differs", "duplicate-members", twice(CONFIG, IMAGE.config + b" ")),
    kind("layer-twice-equal", LOADS, twice(LAYER, TAR)),
    kind("layer-twice-differs", "duplicate-members", twice(LAYER, flip(TAR, 1000))),
    kind("layer-and-a-link-of-the-same-name", "duplicate-members", lambda: odd(lambda tar: tar.symlink(LAYER, CONFIG))),
    kind("unused-twice-differs", LOADS, lambda: odd(unused_twice), warnings="duplicate-unused"),
]

LINKS = [
    kind("symlink-in-folders", LOADS, lambda: links(("a/b/layer.tar", f"../../{LAYER}"))),
    kind("symlink-one-folder-too-far", "link-escape", lambda: links(("a/layer.tar", f"../../{LAYER}"))),
    kind("symlink-outside", "link-escape", lambda: links(("layer.tar", "../../../etc/passwd"))),
    kind("symlink-absolute", "link-escape", lambda: links(("layer.tar", "/etc/passwd"))),
    kind("symlink-dangling", "link-dangling", lambda: links(("layer.tar", "nothing"))),
    kind(
        "symlink-to-nothing",
        "link-dangling link-cycle link-escape member-not-regular archive-corrupt",
        lambda: links(("layer.tar", "")),
    ),
    kind("symlink-to-itself", "link-cycle", lambda: links(("layer.tar", "layer.tar"))),
    kind("symlink-cycle", "link-cycle", lambda: links(("a", "b"), ("b", "a"))),
    kind("symlink-depth-16", LOADS, lambda: chain(16)),
    kind("symlink-depth-17", "link-cycle", lambda: chain(17)),
    kind("symlink-depth-20000", "link-cycle", lambda: chain(20_000)),
    kind(
        "symlink-to-a-folder",
        "member-not-regular link-dangling",
        lambda: layer_at("a", lambda tar: tar.directory("dir").symlink("a", "dir")),
    ),
    kind("symlink-through-a-linked-folder", "loads layer-missing", lambda: layer_at("linked/layer.tar", through_a_linked_folder)),
    kind("hardlink", LOADS, lambda: links(("layer.tar", LAYER), hard=True)),
    kind("hardlink-outside", "link-escape", lambda: links(("layer.tar", "../../etc/passwd"), hard=True)),
    kind("hardlink-absolute", "link-escape", lambda: links(("layer.tar", "/etc/passwd"), hard=True)),
    kind("hardlink-dangling", "link-dangling", lambda: links(("layer.tar", "nothing"), hard=True)),
    kind("hardlink-to-itself", "link-cycle", lambda: links(("layer.tar", "layer.tar"), hard=True)),
    kind("link-cycle-of-both-sorts", "link-cycle", lambda: layer_at("a", lambda tar: tar.symlink("a", "b").hardlink("b", "a"))),
    kind("unused-link-outside", "loads link-escape", lambda: odd(lambda tar: tar.symlink("a", "../../etc/passwd"))),
    kind("unused-link-cycle", "loads link-cycle", lambda: odd(lambda tar: tar.symlink("a", "b").symlink("b", "a"))),
    kind("manifest-is-a-symlink", LOADS, lambda: link_for(MANIFEST, lambda tar: tar.symlink(MANIFEST, "real"))),
    kind("manifest-is-a-hardlink", LOADS, lambda: link_for(MANIFEST, lambda tar: tar.hardlink(MANIFEST, "real"))),
    kind(
        "manifest-link-outside", "link-escape", lambda: link_for(MANIFEST, lambda tar: tar.symlink(MANIFEST, "../../etc/passwd"))
    ),
    kind(
        "manifest-link-dangling",
        "link-dangling manifest-missing",
        lambda: link_for(MANIFEST, lambda tar: tar.symlink(MANIFEST, "nothing")),
    ),
    kind("manifest-link-cycle", "link-cycle", lambda: link_for(MANIFEST, lambda tar: tar.symlink(MANIFEST, MANIFEST))),
    kind("config-is-a-symlink", LOADS, lambda: link_for(CONFIG, lambda tar: tar.symlink(CONFIG, "real"))),
    kind("config-link-outside", "link-escape", lambda: link_for(CONFIG, lambda tar: tar.symlink(CONFIG, "../real"))),
    kind("config-link-cycle", "link-cycle", lambda: link_for(CONFIG, lambda tar: tar.symlink(CONFIG, "a").symlink("a", CONFIG))),
]

IRREGULAR = "member-not-regular"


def sparse_by_pax(tar: TarBuilder) -> None:
    """Format 1.0: the map of the pieces stands before them, the true name and size in the extended header."""
    records = {"major": "1", "minor": "0", "name": "layer.tar", "realsize": str(8 * GIB)}
    tar.pax({f"GNU.sparse.{key}": value for key, value in records.items()})
    tar.member("odd", b"1\n0\n512\n".ljust(BLOCK, b"\0") + TAR[:BLOCK])


# What stands at the layer's name, by the letter of its type.
MEMBER_TYPES = [
    kind(
        "layer-is-a-directory",
        "member-not-regular layer-missing",
        lambda: layer_at("layer.tar", lambda tar: tar.directory("layer.tar")),
    ),
    *(
        kind(
            f"layer-is-{what}",
            IRREGULAR,
            partial(lambda letter: layer_at("odd", lambda tar: tar.member("odd", kind=letter)), letter),
        )
        for what, letter in (("a-character-device", b"3"), ("a-block-device", b"4"), ("a-fifo", b"6"))
    ),
    *(
        kind(
            f"layer-is-{what}",
            f"loads {IRREGULAR}",
            partial(lambda letter: layer_at("odd", lambda tar: tar.member("odd", TAR, kind=letter)), letter),
        )
        for what, letter in (("contiguous", b"7"), ("of-an-unknown-type", b"Z"), ("of-the-old-type", b"\0"))
    ),
    kind(
        "layer-is-of-another-volume",
        "member-not-regular archive-corrupt",
        lambda: layer_at("odd", lambda tar: tar.member("odd", TAR, kind=b"M")),
    ),
    kind(
        "layer-is-sparse",
        "member-not-regular archive-corrupt",
        lambda: layer_at("odd", lambda tar: tar.raw(gnu_sparse("odd", TAR, len(TAR)))),
    ),
    kind(
        "layer-is-sparse-8-gib",
        "member-not-regular archive-corrupt",
        lambda: layer_at("odd", lambda tar: tar.raw(gnu_sparse("odd", TAR, 8 * GIB))),
    ),
    kind(
        "layer-is-sparse-by-pax", "member-not-regular archive-corrupt layer-missing", lambda: layer_at("layer.tar", sparse_by_pax)
    ),
    kind(
        "manifest-is-a-directory",
        "member-not-regular manifest-missing",
        lambda: link_for(MANIFEST, lambda tar: tar.directory(MANIFEST)),
    ),
    kind(
        "manifest-is-a-fifo",
        "member-not-regular manifest-missing",
        lambda: link_for(MANIFEST, lambda tar: tar.member(MANIFEST, kind=b"6")),
    ),
    kind(
        "config-is-a-directory", "member-not-regular config-missing", lambda: link_for(CONFIG, lambda tar: tar.directory(CONFIG))
    ),
]

# --- the kinds: JSON -------------------------------------------------------------------------------------------------

# Name, what must come of it, manifest.json.
MANIFESTS: list[tuple[str, str, Callable[[], bytes]]] = [
    ("nothing", "json-invalid manifest-empty", lambda: b""),
    ("null", "manifest-empty manifest-schema", lambda: b"null"),
    ("empty-list", "manifest-empty", lambda: b"[]"),
    ("object", "manifest-schema", lambda: b"{}"),
    ("string", "manifest-schema", lambda: b'"manifest"'),
    ("number", "manifest-schema", lambda: b"1"),
    ("list-of-null", "manifest-schema", lambda: b"[null]"),
    ("list-of-empty-object", "manifest-schema config-missing", lambda: b"[{}]"),
    (
        "imgpkg",
        "manifest-schema",
        lambda: to_json([{"Image": {"Refs": [f"a.example.com/b@sha256:{NO_HEX}"], "Layers": []}, "ImageIndex": None}]),
    ),
    ("config-is-a-number", "manifest-schema", lambda: manifest(Config=1)),
    ("config-is-null", "manifest-schema", lambda: manifest(Config=None)),
    ("layers-is-a-string", "manifest-schema", lambda: manifest(Layers=LAYER)),
    ("layers-of-null", "manifest-schema", lambda: manifest(Layers=[None])),
    ("tags-is-a-string", "manifest-schema", lambda: manifest(RepoTags=TAG)),
    ("tags-of-numbers", "manifest-schema", lambda: manifest(RepoTags=[1])),
    ("one-of-two-is-bad", "manifest-schema", lambda: b"[" + manifest()[1:-1] + b',{"Config":[]}]'),
    ("cut", "json-invalid", lambda: manifest()[:-9]),
    ("garbage-after", "json-invalid", lambda: manifest() + b"]"),
    ("two-documents", "json-invalid", lambda: manifest() * 2),
    ("single-quotes", "json-invalid", lambda: manifest().replace(b'"', b"'")),
    ("not-utf-8", "json-invalid", lambda: manifest().replace(b"team", b"te\xffm")),
    ("utf-16", "json-invalid", lambda: manifest().decode().encode("utf-16")),  # with its byte order mark
    ("utf-8-byte-order-mark", "json-invalid loads", lambda: b"\xef\xbb\xbf" + manifest()),
    ("nan", "json-invalid", lambda: manifest(Extra=float("nan"))),
    ("infinity", "json-invalid", lambda: manifest(Extra=float("-inf"))),
    ("raw-nul", "json-invalid", lambda: manifest().replace(b"team", b"te\0m")),
    (
        "huge-integer",
        "json-invalid json-too-complex manifest-schema loads",
        lambda: manifest().replace(b"[{", b'[{"Extra":' + b"9" * 100_000 + b","),
    ),
    ("huge-integer-as-config", "json-invalid json-too-complex manifest-schema", lambda: b'[{"Config":' + b"9" * 100_000 + b"}]"),
    (
        "huge-exponent",
        "json-invalid json-too-complex manifest-schema loads",
        lambda: manifest().replace(b"[{", b'[{"Extra":1e999999999,'),
    ),
    ("duplicate-keys", "json-invalid manifest-schema loads", lambda: manifest().replace(b"[{", b'[{"Config":"other.json",')),
    (
        "keys-that-differ-in-case",
        "json-invalid manifest-schema loads",
        lambda: manifest().replace(b"[{", b'[{"config":"other.json",'),
    ),
    ("100000-deep", "json-too-complex", lambda: nested(100_000)),
    (
        "100000-deep-in-an-unknown-key",
        "json-too-complex",
        lambda: manifest().replace(b"[{", b'[{"Extra":' + nested(100_000) + b","),
    ),
    ("100000-open-brackets", "json-too-complex json-invalid", lambda: b"[" * 100_000),
    ("100000-objects-deep", "json-too-complex", lambda: b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    ("millions-of-numbers", "json-too-complex too-many-images manifest-schema", lambda: b"[" + b"0," * 9_000_000 + b"0]"),
    ("millions-of-objects", "json-too-complex too-many-images manifest-schema", lambda: b"[" + b"{}," * 6_000_000 + b"{}]"),
    ("millions-of-keys", "json-too-complex manifest-schema json-invalid", lambda: b'[{"":0' + b',"":0' * 3_500_000 + b"}]"),
    ("20-mib", LOADS, lambda: manifest().ljust(20 * MIB)),
    ("20-mib-and-a-byte", "metadata-too-large", lambda: manifest().ljust(20 * MIB + 1)),
    ("20-mib-of-nothing", "metadata-too-large", lambda: bytes(20 * MIB + 1)),
    (
        "20000-images",
        "too-many-images json-too-complex",
        lambda: to_json([entry(replace(IMAGE, tags=(f"{TAG}-{number}",)), CONFIG, [LAYER]) for number in range(20_000)]),
    ),
    (
        "100000-tags",
        "too-many-images json-too-complex",
        lambda: manifest(RepoTags=[f"{TAG}-{number}" for number in range(100_000)]),
    ),
    (
        "100000-times-one-layer",
        "too-many-images json-too-complex layer-count-mismatch",
        lambda: manifest(Layers=[LAYER] * 100_000),
    ),
    ("path-outside", "path-escape", lambda: manifest(Layers=["../layer.tar"])),
    ("path-outside-later", "path-escape", lambda: manifest(Layers=[f"a/../../{LAYER}"])),
    ("path-absolute", "path-escape", lambda: manifest(Layers=["/etc/passwd"])),
    ("path-is-two-dots", "path-escape", lambda: manifest(Layers=[".."])),
    ("path-is-empty", "manifest-schema layer-missing path-escape member-not-regular", lambda: manifest(Layers=[""])),
    ("path-is-a-dot", "manifest-schema layer-missing path-escape member-not-regular", lambda: manifest(Layers=["."])),
    ("path-inside-with-dots", "loads path-escape", lambda: manifest(Layers=[f"./a/../{LAYER}"])),
    ("path-of-windows", "path-escape layer-missing", lambda: manifest(Layers=["..\\..\\layer.tar"])),
    ("path-with-a-drive", "path-escape layer-missing", lambda: manifest(Layers=["C:\\layer.tar"])),
    ("path-with-nul", "layer-missing path-escape manifest-schema json-invalid", lambda: manifest(Layers=[f"{LAYER}\0"])),
    ("path-of-1-mib", "layer-missing manifest-schema json-too-complex", lambda: manifest(Layers=["a/" * (MIB // 2)])),
    ("config-path-outside", "path-escape", lambda: manifest(Config="../../etc/passwd")),
    ("config-path-absolute", "path-escape", lambda: manifest(Config="/etc/passwd")),
    ("config-missing", "config-missing", lambda: manifest(Config="other.json")),
    ("layer-missing", "layer-missing", lambda: manifest(Layers=["other.tar"])),
    ("layers-null", "layer-count-mismatch", lambda: manifest(Layers=None)),
    ("layers-more-than-diff-ids", "layer-count-mismatch", lambda: manifest(Layers=[LAYER, LAYER])),
    ("tags-null", "repotags-empty", lambda: manifest(RepoTags=None)),
    ("tags-empty", "repotags-empty", lambda: manifest(RepoTags=[])),
    ("same-tag-twice-in-one-image", LOADS, lambda: manifest(RepoTags=[TAG, TAG])),
]

HOST = "swr.cn-north-1.example.com"
BAD_NAME = (
    "reference-invalid registry-missing registry-invalid namespace-missing namespace-invalid repository-invalid "
    "tag-invalid too-many-parts json-invalid manifest-schema"
)
REFERENCES: list[tuple[str, Callable[[], str]]] = [
    ("empty", lambda: ""),
    ("a-colon", lambda: ":"),
    ("slashes", lambda: "///"),
    ("ansi-escapes", lambda: f"{HOST}/team/he\x1b[31mllo:v1"),
    ("a-carriage-return", lambda: f"{HOST}/team/hello\r:v1"),
    ("a-newline-at-the-end", lambda: f"{HOST}/team/hello:v1\n"),
    ("nul", lambda: f"{HOST}/team/hello\0:v1"),
    ("a-lone-surrogate", lambda: f"{HOST}/team/hello:v\udcff"),
    ("text-direction-override", lambda: f"{HOST}/team/\u202eolleh:v1"),
    ("full-width-digits", lambda: f"{HOST}/team/hello:v１"),
    ("dots-as-parts", lambda: f"{HOST}/../../etc/passwd:v1"),
    ("a-path-as-tag", lambda: f"{HOST}/team/hello:../../v1"),
    ("a-digest", lambda: f"{HOST}/team/hello@sha256:{NO_HEX}"),
    ("a-scheme", lambda: f"https://{HOST}/team/hello:v1"),
    ("1-mib", lambda: f"{HOST}/team/{'a' * MIB}:v1"),
    ("1-mib-of-parts", lambda: f"{HOST}{'/a' * (MIB // 2)}:v1"),
    ("backtracking-bait", lambda: f"{HOST}/{'a' * 50_000}!/{'a-' * 50_000}!:v1"),
]


def with_config(**overrides: object) -> bytes:
    return replace(IMAGE, overrides=overrides).config


def raw(change: Callable[[bytes], bytes]) -> Callable[[], bytes]:
    return lambda: change(IMAGE.config)


def layers_of(diff_ids: object) -> dict[str, object]:
    return {"type": "layers", "diff_ids": diff_ids}


DIFF_ID = IMAGE.layers[0].diff_id
DIFF_IDS = [layer.diff_id for layer in TWO_LAYERS.layers]
ODD = "\x1b[2J\r\n\0\ud800\u202e'; drop table images; --"

# Name, what must come of it, the config, whose file name is right for it.
CONFIGS: list[tuple[str, str, Callable[[], bytes]]] = [
    ("nothing", "json-invalid", lambda: b""),
    ("text", "json-invalid", lambda: b"not json"),
    ("null", "config-schema", lambda: b"null"),
    ("list", "config-schema", lambda: b"[]"),
    ("cut", "json-invalid", raw(lambda data: data[:-9])),
    ("not-utf-8", "json-invalid", raw(lambda data: data.replace(b"hello", b"he\xfflo").replace(b"COPY", b"C\xffPY"))),
    ("nan", "json-invalid", lambda: with_config(extra=float("nan"))),
    ("100000-deep", "json-too-complex", raw(lambda data: data.replace(b"{", b'{"extra":' + nested(100_000) + b",", 1))),
    (
        "a-million-objects",
        "json-too-complex config-schema",
        raw(lambda data: data.replace(b"{", b'{"extra":[' + b"{}," * 1_300_000 + b"{}],", 1)),
    ),
    (
        "huge-integer",
        "json-invalid json-too-complex config-schema loads",
        raw(lambda data: data.replace(b"{", b'{"extra":' + b"9" * 100_000 + b",", 1)),
    ),
    ("4-mib", LOADS, raw(lambda data: data.ljust(4 * MIB))),
    ("4-mib-and-a-byte", "metadata-too-large", raw(lambda data: data.ljust(4 * MIB + 1))),
    (
        "duplicate-rootfs",
        "json-invalid config-schema loads",
        raw(lambda data: data.replace(b"{", b'{"rootfs":{"type":"layers","diff_ids":[]},', 1)),
    ),
    ("without-rootfs", "config-schema", lambda: replace(IMAGE, without=("rootfs",)).config),
    ("rootfs-null", "config-schema", lambda: with_config(rootfs=None)),
    ("rootfs-list", "config-schema", lambda: with_config(rootfs=[])),
    ("diff-ids-null", "config-schema layer-count-mismatch", lambda: with_config(rootfs=layers_of(None))),
    ("diff-ids-string", "config-schema", lambda: with_config(rootfs=layers_of(DIFF_ID))),
    ("diff-ids-of-numbers", "config-schema", lambda: with_config(rootfs=layers_of([1]))),
    ("diff-ids-of-sha512", "config-schema", lambda: with_config(rootfs=layers_of(["sha512:" + "0" * 128]))),
    ("diff-ids-in-capitals", "config-schema", lambda: with_config(rootfs=layers_of([DIFF_ID.upper()]))),
    ("diff-ids-with-a-newline", "config-schema", lambda: with_config(rootfs=layers_of([DIFF_ID + "\n"]))),
    ("diff-ids-with-a-path", "config-schema", lambda: with_config(rootfs=layers_of(["sha256:../../../etc/passwd"]))),
    ("diff-ids-fewer", "layer-count-mismatch", lambda: with_config(rootfs=layers_of([]))),
    ("diff-ids-more", "layer-count-mismatch", lambda: with_config(rootfs=layers_of([DIFF_ID, DIFF_ID]))),
    ("diff-id-of-another-layer", "diff-id-mismatch", lambda: with_config(rootfs=layers_of([f"sha256:{NO_HEX}"]))),
    ("architecture-number", "config-schema loads", lambda: with_config(architecture=1)),
    ("created-nonsense", "config-schema loads", lambda: with_config(created="yesterday")),
    ("created-out-of-range", "config-schema loads", lambda: with_config(created="99999-12-31T00:00:00Z")),
    ("created-number", "config-schema json-invalid json-too-complex loads", lambda: with_config(created=-(10**300))),
    ("history-string", "config-schema loads", lambda: with_config(history="none")),
    ("history-of-null", "config-schema loads", lambda: with_config(history=[None])),
    ("history-of-100000", "config-schema json-too-complex loads", lambda: with_config(history=[{"empty_layer": True}] * 100_000)),
    ("env-number", "config-schema loads", lambda: with_config(config={"Env": 1, "Labels": [], "Cmd": {}})),
    ("docker-version-nonsense", "config-schema loads", lambda: with_config(docker_version="1.²." + "9" * 5000)),
    (
        "odd-texts",
        "config-schema json-invalid loads",
        lambda: with_config(architecture=ODD, created=ODD, docker_version=ODD, history=[{"created_by": ODD}]),
    ),
]

JSON = [
    *(
        kind(f"manifest-{name}", expect, partial(lambda make: parts({MANIFEST: make()}), make))
        for name, expect, make in MANIFESTS
    ),
    *(
        kind(f"reference-of-{name}", BAD_NAME, partial(lambda make: parts({MANIFEST: manifest(RepoTags=[make()])}), make))
        for name, make in REFERENCES
    ),
    *(
        kind(f"config-{name}", expect, partial(lambda make: config(replace(IMAGE, raw_config=make())), make))
        for name, expect, make in CONFIGS
    ),
    kind(
        "path-outside-that-is-a-member",
        "path-escape",
        lambda: layer_at("../layer.tar", lambda tar: tar.member("../layer.tar", TAR)),
    ),
    kind(
        "path-of-a-lone-surrogate",
        "layer-missing json-invalid manifest-schema path-escape loads",
        lambda: layer_at("\udcff.tar", lambda tar: tar.member(b"\xff.tar", TAR)),
    ),
    kind("config-history-missing", LOADS, lambda: config(replace(IMAGE, without=("history",))), warnings="history-missing"),
    kind(
        "config-history-of-other-layers",
        LOADS,
        lambda: config(replace(IMAGE, overrides={"history": [{}, {}]})),
        warnings="history-mismatch",
    ),
    kind(
        "config-docker-version-1-9", LOADS, lambda: config(replace(IMAGE, docker_version="1.9.1")), warnings="docker-version-old"
    ),
    kind(
        "config-under-another-name",
        LOADS,
        lambda: parts({f"{NO_HEX}.json": IMAGE.config, MANIFEST: manifest(Config=f"{NO_HEX}.json")}),
        warnings="config-name-mismatch",
    ),
    kind("image-without-layers", LOADS, lambda: containerd(replace(IMAGE, layers=())), warnings="image-without-layers"),
    kind("two-images-of-one-name", LOADS, lambda: tar_of(files(IMAGE, TWO_LAYERS)), warnings="reference-repeated"),
    kind(
        "50000-times-one-layer",
        "too-many-images json-too-complex metadata-too-large manifest-schema config-schema",
        lambda: config(replace(IMAGE, layers=IMAGE.layers * 50_000)),
    ),
    kind(
        "repositories-differ",
        "repositories-differ",
        lambda: parts({"repositories": to_json({f"{HOST}/team/other": {"v1": NO_HEX}})}),
    ),
    kind("repositories-not-json", "json-invalid repositories-differ", lambda: parts({"repositories": b"{"})),
    kind("repositories-100000-deep", "json-too-complex", lambda: parts({"repositories": nested(100_000)})),
    kind("repositories-21-mib", "metadata-too-large repositories-differ", lambda: parts({"repositories": b"{}".ljust(21 * MIB)})),
]

# --- the kinds: layers and the OCI half of a hybrid ------------------------------------------------------------------

TOO_LARGE = "decompressed-too-large layer-too-large"


def stored_layer(compression: Compression, change: Change) -> Callable[[], bytes]:
    """The layer in this compression, its stored bytes changed."""
    return lambda: parts({LAYER: change(compress(TAR, compression))})


LAYERS = [
    *(kind(f"layer-{c}-{how}", "layer-corrupt", stored_layer(c, change)) for c in COMPRESSIONS for how, change in SPOILT.items()),
    *(kind(f"layer-{c}-bomb", TOO_LARGE, partial(lambda c: layer_bomb(zeros(c) * 64), c), **SMALL) for c in COMPRESSIONS),
    kind("layer-gzip-bomb-of-one-member", TOO_LARGE, lambda: layer_bomb(one_gzip_member(GIB)), **SMALL),
    kind("layer-zstd-window-2-gib", "layer-corrupt loads", stored_layer("none", zstd_window_2_gib)),
    kind("layer-zstd-window-2-gib-bomb", f"layer-corrupt {TOO_LARGE}", lambda: layer_bomb(zstd_zeros(4 * GIB)), **SMALL),
    kind("layer-xz-dictionary-4-gib", "layer-corrupt loads", stored_layer("none", xz_dictionary_4_gib)),
    kind("layer-gzip-wrong-crc", "layer-corrupt", stored_layer("gzip", lambda blob: flip(blob, len(blob) - 8))),
    kind("layer-gzip-then-garbage", "layer-corrupt loads", stored_layer("gzip", lambda blob: blob + b"garbage")),
    kind("layer-compressed-twice", "layer-corrupt diff-id-mismatch", stored_layer("gzip", lambda blob: compress(blob, "gzip"))),
    kind("layer-bit-flipped", "diff-id-mismatch", stored_layer("none", lambda blob: flip(blob, 600))),
    kind("layer-empty", "diff-id-mismatch layer-corrupt", stored_layer("none", lambda blob: b"")),
    kind("layer-empty-by-its-config", "layer-corrupt loads", lambda: config(replace(IMAGE, layers=(Layer(b""),)))),
    kind("layer-is-text-by-its-config", "layer-corrupt loads", lambda: config(replace(IMAGE, layers=(Layer(b"no tar"),)))),
    kind(
        "layers-in-another-order",
        "diff-id-mismatch",
        lambda: config(replace(TWO_LAYERS, overrides={"rootfs": layers_of(DIFF_IDS[::-1])})),
    ),
    kind("missing-layer-of-two", "layer-missing", lambda: tar_of(dict(list(files(TWO_LAYERS).items())[1:]))),
]


def hybrid(changes: Mapping[str, bytes]) -> bytes:
    return tar_of({**contents(containerd(IMAGE)), **changes})


def pointing_at(*digests: str, size: int = 100) -> bytes:
    """An index of indexes."""
    listed = [{"mediaType": OCI_INDEX, "digest": f"sha256:{digest}", "size": size} for digest in digests]
    return to_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed})


def index_chain(length: int, width: int) -> bytes:
    """`length` indexes, each `width` times pointing at the next: width ** length ways through."""
    blobs = {}
    index = pointing_at()
    for _ in range(length):
        blobs[f"blobs/sha256/{sha256(index)}"] = index
        index = pointing_at(*[sha256(index)] * width, size=len(index))
    return hybrid(blobs | {"index.json": index})


def index_blob_100000_deep() -> bytes:
    deep = nested(100_000)
    return hybrid({f"blobs/sha256/{sha256(deep)}": deep, "index.json": pointing_at(sha256(deep), size=len(deep))})


def index_that_points_at_itself() -> bytes:
    index = pointing_at(NO_HEX)
    return hybrid({"index.json": index, f"blobs/sha256/{NO_HEX}": index})


def index_names_one_more() -> bytes:
    two = contents(containerd(IMAGE, replace(TWO_LAYERS, tags=(f"{TAG}-two",))))
    return tar_of(two | {MANIFEST: contents(containerd(IMAGE))[MANIFEST]})


def manifest_that_is_not_its_digest() -> bytes:
    oci = oci_manifest(IMAGE)
    return containerd(IMAGE).replace(oci, oci.replace(b'"size"', b'"sizE"'))


DISAGREES = "index-disagrees oci-manifest-differs loads"
DIFFERS: dict[str, Any] = {"warnings": "oci-manifest-differs"}

HYBRIDS = [
    kind(
        "oci-manifest-over-4-mib",
        "metadata-too-large oci-manifest-differs index-disagrees",
        lambda: containerd(IMAGE, edit=lambda made: made.update(annotations={"a": "b" * 4 * MIB})),
    ),
    kind(
        "oci-manifest-with-wrong-sizes",
        LOADS,  # docker 25.0.0
        lambda: docker25(IMAGE, edit=lambda made: made["layers"][0].update(size=7)),
        **DIFFERS,
    ),
    kind(
        "oci-manifest-in-another-order",
        LOADS,
        lambda: docker25(TWO_LAYERS, edit=lambda made: made["layers"].reverse()),
        **DIFFERS,
    ),
    kind(
        "oci-manifest-of-missing-blobs",
        LOADS,
        lambda: docker25(IMAGE, edit=lambda made: made["layers"][0].update(digest=f"sha256:{NO_HEX}")),
        **DIFFERS,
    ),
    kind(
        "oci-manifest-of-nonsense", DISAGREES, lambda: docker25(IMAGE, edit=lambda made: made.update(layers="none", config=None))
    ),
    kind("oci-manifest-is-not-its-digest", DISAGREES, manifest_that_is_not_its_digest),
    kind("index-names-one-image-more", LOADS, index_names_one_more, warnings="index-extra-image"),
    kind("index-not-json", "index-disagrees json-invalid", lambda: hybrid({"index.json": b"{"})),
    kind("index-null", DISAGREES, lambda: hybrid({"index.json": b"null"})),
    kind(
        "index-of-nonsense",
        DISAGREES,
        lambda: hybrid({"index.json": to_json({"manifests": [1, None, {"digest": "sha256:../x", "size": -1}]})}),
    ),
    kind("index-blob-100000-deep", f"json-too-complex {DISAGREES}", index_blob_100000_deep),
    kind("index-100000-deep", "json-too-complex index-disagrees", lambda: hybrid({"index.json": nested(100_000)})),
    kind("index-21-mib", "metadata-too-large index-disagrees", lambda: hybrid({"index.json": pointing_at().ljust(21 * MIB)})),
    kind(
        "index-of-100000-manifests",
        f"metadata-too-large json-too-complex {DISAGREES}",
        lambda: hybrid({"index.json": pointing_at(*[NO_HEX] * 100_000)}),
    ),
    kind("index-chain-of-5000", f"json-too-complex {DISAGREES}", lambda: index_chain(5000, 1)),
    kind("index-with-10-to-the-30-ways", f"json-too-complex {DISAGREES}", lambda: index_chain(30, 10)),
    kind("index-that-points-at-itself", DISAGREES, index_that_points_at_itself),
    kind("oci-layout-not-json", f"json-invalid {DISAGREES}", lambda: hybrid({"oci-layout": b"\xff"})),
]

HOSTILE: list[Kind] = [*FILES, *OUTER, *HEADERS, *NAMES, *LINKS, *MEMBER_TYPES, *JSON, *LAYERS, *HYBRIDS]

# --- generators ------------------------------------------------------------------------------------------------------


def truncations(data: bytes, parts: int = 16) -> Iterator[bytes]:
    """`data` cut at every 1/16 of its length, from nothing to all but the last part."""
    return (data[: len(data) * part // parts] for part in range(parts))


def resealed(data: bytes) -> bytes:
    """Every tar header that is aligned gets a right checksum, so that a change goes past that first gate."""
    blocks = (data[at : at + BLOCK] for at in range(0, len(data), BLOCK))
    return b"".join(sealed(block) if block[257:262] == b"ustar" and len(block) == BLOCK else block for block in blocks)


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` (not empty) with up to six changes: bits flipped, bytes set, pieces cut, doubled, blanked or moved.

    Hypothesis draws how many and a seed. Drawn itself, most positions would be 0, and no test would see past a tar's
    first header.
    """
    changes = draw(st.integers(1, 6))
    dice = random.Random(draw(st.integers(0, 2**64)))
    changed = bytearray(data)
    for _ in range(changes):
        length = dice.choice((1, 2, 12, 100, BLOCK, 3 * BLOCK))
        at = dice.randrange(len(changed) or 1)
        if length >= BLOCK:
            at -= at % BLOCK  # whole blocks: the headers behind stay where they are looked for
        piece = changed[at : at + length]
        match dice.choice(("flip", "flip", "set", "cut", "double", "blank", "move")):
            case "flip":
                changed[at : at + 1] = bytes(byte ^ 1 << dice.randrange(8) for byte in piece[:1])
            case "set":
                changed[at : at + length] = dice.randbytes(length)
            case "cut":
                del changed[at : at + length]
            case "double":
                changed[at:at] = piece
            case "blank":
                changed[at : at + length] = bytes(len(piece))
            case "move":
                del changed[at : at + length]
                changed += piece
    made = bytes(changed)
    return resealed(made) if dice.random() < 0.5 else made
