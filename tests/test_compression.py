"""Compressions: told apart, read in bounded pieces, found out when cut or damaged, written the same every time.

The oracles are the standard library's decoders and zstandard's own; archives as a whole are the business of other files.
"""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from hostile import GIB, MIB, one_gzip_member, xz_dictionary_4_gib, zeros, zstd_frame, zstd_window_2_gib, zstd_zeros
from imagetar import TarBuilder, compress, outer
from swrbatch.assembly import assemble
from swrbatch.compression import ENCODERS, Compression, CorruptData, decompress, reblock, sniff
from swrbatch.digest import CHUNK

PACKED = [Compression.GZIP, Compression.ZSTD, Compression.XZ, Compression.BZIP2]
WRITTEN = [Compression.GZIP, Compression.ZSTD]
TEXT = b"a layer, or what remains of it; " * 40 + random.Random(5).randbytes(200)
ORACLES: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.GZIP: gzip.decompress,
    Compression.ZSTD: lambda data: zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read(),
}


def split(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def unpacked(kind: Compression, data: bytes, *, size: int = CHUNK, padded: bool = False) -> bytes:
    return b"".join(decompress(kind, split(data, size), padded=padded))


def outcome(kind: Compression, data: bytes, **how: int) -> bytes | None:
    """What is in it; None for what is corrupt."""
    try:
        return unpacked(kind, data, **how)
    except CorruptData:
        return None


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that compress by about half."""
    return random.Random(seed).randbytes(size // 2 + 1).hex().encode()[:size]


# --- told apart ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Compression)
@pytest.mark.parametrize("content", [TEXT, b""], ids=["text", "nothing"])
def test_six_bytes_tell_the_compression(kind: Compression, content: bytes) -> None:
    assert sniff(compress(content, kind.value)[:6]) is kind


@pytest.mark.parametrize("level", range(1, 10))
def test_every_level_of_bzip2_is_known(level: int) -> None:
    assert sniff(bz2.compress(TEXT, level)[:6]) is Compression.BZIP2


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x1f",
        b"\x28\xb5\x2f",
        b"BZh",
        b"\xfd7zXZ",
        b"BZh9.txt",
        b"BZhello",
        b"PK\x03\x04",
        b"\x4f\x2a\x4d\x18",
        b"\x60\x2a\x4d\x18",
    ],
)
def test_what_only_looks_alike_is_none(head: bytes) -> None:
    assert sniff(head) is Compression.NONE


def test_the_name_of_a_tar_s_first_member_is_no_magic() -> None:
    for name in ("BZh91", "BZh9/layer.tar"):
        assert sniff(TarBuilder().member(name, b"x").end().getvalue()[:6]) is Compression.NONE


def test_every_skippable_frame_is_zstd() -> None:
    assert all(sniff(bytes([first]) + b"\x2a\x4d\x18") is Compression.ZSTD for first in range(0x50, 0x60))


# --- reading ---------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.sampled_from(PACKED), st.binary(max_size=3000), st.integers(1, 5), st.integers(1, 4000))
def test_any_content_in_any_number_of_streams_and_any_pieces(kind: Compression, content: bytes, members: int, size: int) -> None:
    assert unpacked(kind, outer(content, kind.value, members), size=size) == content


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64 << 10, CHUNK])
def test_streams_of_nothing_in_between_are_nothing(kind: Compression, size: int) -> None:
    empty = compress(b"", kind.value)
    data = empty * 3 + compress(TEXT, kind.value) + empty * 2 + compress(TEXT, kind.value) + empty
    assert unpacked(kind, data, size=size) == TEXT * 2


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("size", [64 << 10, CHUNK, 5 * MIB])
def test_more_than_one_window_of_content(kind: Compression, size: int) -> None:
    content = noise(3 * MIB) + bytes(2 * MIB) + noise(MIB, seed=1)
    assert unpacked(kind, compress(content, kind.value), size=size) == content


@pytest.mark.parametrize("size", [1000, 256 << 10])
def test_none_passes_the_pieces_on(size: int) -> None:
    pieces = list(split(noise(MIB), size))
    assert list(decompress(Compression.NONE, pieces)) == pieces


@pytest.mark.parametrize("kind", PACKED)
def test_pieces_are_bounded_and_come_before_the_end_is_read(kind: Compression) -> None:
    """A bomb of 4 GiB: what is given is never large, and after 20 MiB of it no more than 20 MiB's worth has been asked for."""
    taken = 0

    def source() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(64):
            for piece in split(zeros(kind.value), CHUNK):
                taken += len(piece)
                yield piece

    given = 0
    for piece in decompress(kind, source()):
        assert 0 < len(piece) <= CHUNK
        given += len(piece)
        if given >= 20 * MIB:
            break
    assert taken <= len(zeros(kind.value))  # 64 MiB's worth


def test_pieces_of_one_gzip_member_are_bounded() -> None:
    sizes = [len(piece) for piece in decompress(Compression.GZIP, [one_gzip_member(64 * MIB)])]
    assert sum(sizes) == 64 * MIB and max(sizes) <= CHUNK


# --- cut and damaged -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("size", [1, 100, CHUNK])
def test_cut_anywhere_but_between_two_streams_is_corrupt(kind: Compression, size: int) -> None:
    parts = [TEXT[:700], b"", TEXT[700:]]
    streams = [compress(part, kind.value) for part in parts]
    borders = dict(zip(itertools.accumulate(map(len, streams)), itertools.accumulate(parts), strict=True))
    data = b"".join(streams)
    for end in range(len(data) + 1):
        assert outcome(kind, data[:end], size=size) == borders.get(end), end


@pytest.mark.parametrize("kind", PACKED)
def test_a_cut_is_told_from_damage(kind: Compression) -> None:
    with pytest.raises(CorruptData, match="ends early"):
        unpacked(kind, compress(TEXT, kind.value)[:-1])


@pytest.mark.parametrize("kind", PACKED)
def test_a_long_stream_without_its_last_byte_is_corrupt(kind: Compression) -> None:
    """All of the content is given by then: only the checksum is incomplete."""
    given = []
    with pytest.raises(CorruptData):
        given.extend(decompress(kind, [compress(noise(3 * MIB), kind.value)[:-1]]))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(PACKED), st.data())
def test_damage_is_found_or_does_no_harm(kind: Compression, data: st.DataObject) -> None:
    packed = bytearray(outer(TEXT, kind.value, 2))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    assert outcome(kind, bytes(packed)) in (None, TEXT)


@settings(deadline=None)
@given(st.sampled_from(PACKED), st.binary(max_size=300), st.integers(1, 300))
def test_noise_after_the_magic_is_corrupt_or_empty(kind: Compression, tail: bytes, size: int) -> None:
    assert outcome(kind, compress(b"", kind.value)[:6] + tail, size=size) in (None, b"")


@pytest.mark.parametrize("kind", [Compression.GZIP, Compression.XZ, Compression.BZIP2])
@pytest.mark.parametrize("size", [1, 3, CHUNK])
def test_zeros_behind_are_padding_only_where_they_are_allowed(kind: Compression, size: int) -> None:
    data = compress(TEXT, kind.value) + bytes(1024) + compress(TEXT, kind.value) + bytes(5000)
    assert unpacked(kind, data, size=size, padded=True) == TEXT * 2
    assert outcome(kind, data, size=size) is None
    assert outcome(kind, compress(TEXT, kind.value) + bytes(1), size=size) is None


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("padded", [False, True])
def test_garbage_behind_is_corrupt(kind: Compression, padded: bool) -> None:
    assert outcome(kind, compress(TEXT, kind.value) + b"garbage" * 10, padded=padded) is None
    assert outcome(kind, bytes(8), padded=padded) is None


@pytest.mark.parametrize("kind", [Compression.GZIP, Compression.XZ, Compression.BZIP2])
@pytest.mark.parametrize("size", [1, CHUNK])
@pytest.mark.parametrize("tail", [b"x", b"\x1f\xff", b"more behind"])
def test_what_lies_behind_is_told_from_what_is_cut_off(kind: Compression, size: int, tail: bytes) -> None:
    with pytest.raises(CorruptData, match=f"what follows its end is no {kind} data"):
        unpacked(kind, compress(TEXT, kind.value) + tail, size=size)
    with pytest.raises(CorruptData, match="ends early"):
        unpacked(kind, compress(TEXT, kind.value) * 2 + compress(TEXT, kind.value)[:2], size=size)


def test_an_xz_file_holds_no_lzma_stream() -> None:
    """Only what the magic bytes promised: liblzma would guess at what comes next."""
    assert outcome(Compression.XZ, lzma.compress(TEXT) + lzma.compress(TEXT, lzma.FORMAT_ALONE)) is None


# --- zstd frames -----------------------------------------------------------------------------------------------------


def frame(content: bytes, *, size: bool, checksum: bool, level: int = 3) -> bytes:
    """A frame that states its content's size or does not."""
    packer = zstandard.ZstdCompressor(level=level, write_checksum=checksum, write_content_size=size)
    if size:
        return packer.compress(content)
    stream = packer.compressobj()
    return stream.compress(content) + stream.flush()


FRAMES = st.one_of(
    st.builds(
        lambda content, repeat, size, checksum, level: (
            frame(content * repeat, size=size, checksum=checksum, level=level),
            content * repeat,
        ),
        st.binary(max_size=40),
        st.sampled_from([1, 1, 10, 300, 10_000]),
        st.booleans(),
        st.booleans(),
        st.sampled_from([-5, 1, 19]),
    ),
    st.builds(
        lambda blocks: (zstd_frame([(kind, size, body) for kind, size, body, _ in blocks], 20), b"".join(b[3] for b in blocks)),
        st.lists(
            st.one_of(
                st.binary(max_size=50).map(lambda raw: (0, len(raw), raw, raw)),
                st.tuples(st.binary(min_size=1, max_size=1), st.integers(1, 2000)).map(lambda t: (1, t[1], t[0], t[0] * t[1])),
            ),
            min_size=1,
            max_size=5,
        ),
    ),
    st.builds(
        lambda first, body: (bytes([first]) + b"\x2a\x4d\x18" + len(body).to_bytes(4, "little") + body, b""),
        st.integers(0x50, 0x5F),
        st.binary(max_size=300),
    ),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(FRAMES, min_size=1, max_size=5), st.integers(1, 400))
def test_frames_of_every_shape(frames: list[tuple[bytes, bytes]], size: int) -> None:
    data, content = (b"".join(parts) for parts in zip(*frames, strict=True))
    assert unpacked(Compression.ZSTD, data, size=size) == content


@settings(max_examples=200, deadline=None)
@given(st.lists(FRAMES, min_size=1, max_size=4), st.integers(1, 400), st.data())
def test_frames_of_every_shape_cut_anywhere(frames: list[tuple[bytes, bytes]], size: int, data: st.DataObject) -> None:
    ends: dict[int, bytes] = {}
    at, content = 0, b""
    for packed, plain in frames:
        at, content = at + len(packed), content + plain
        ends[at] = content
    whole = b"".join(packed for packed, _ in frames)
    end = data.draw(st.integers(0, len(whole)))
    assert outcome(Compression.ZSTD, whole[:end], size=size) == ends.get(end)


@pytest.mark.parametrize("size", [1, 400])
def test_a_frame_cut_before_a_content_size_of_four_bytes_is_cut(size: int) -> None:
    # As many bytes are wanted there as at a frame's border.
    whole = zstd_frame([(0, 3, b"abc")], 20)
    assert outcome(Compression.ZSTD, whole + b"\x28\xb5\x2f\xfd\xa0", size=size) is None


def test_a_dictionary_that_is_not_there_is_corrupt() -> None:
    samples = [noise(200, seed=seed) for seed in range(500)]
    packed = zstandard.ZstdCompressor(dict_data=zstandard.train_dictionary(4096, samples)).compress(samples[0])
    assert zstandard.get_frame_parameters(packed).dict_id
    assert outcome(Compression.ZSTD, packed) is None


# --- windows ---------------------------------------------------------------------------------------------------------


def xz_of(content: bytes, dictionary: int) -> bytes:
    return lzma.compress(content, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": dictionary}])


def zstd_of(content: bytes, window_log: int) -> bytes:
    pieces = list(split(content, CHUNK // 8))
    return zstd_frame([(0, len(piece), piece) for piece in pieces], window_log)


LARGE = {"zstd": (Compression.ZSTD, partial(zstd_of, window_log=27)), "xz": (Compression.XZ, partial(xz_of, dictionary=96 * MIB))}
MODEST = {
    "gzip": (Compression.GZIP, gzip.compress),
    "zstd": (Compression.ZSTD, partial(zstd_of, window_log=23)),
    "xz": (Compression.XZ, partial(xz_of, dictionary=8 * MIB)),
    "bzip2": (Compression.BZIP2, bz2.compress),
}
Packer = tuple[Compression, Callable[[bytes], bytes]]


@pytest.mark.parametrize("size", [1, CHUNK])
@pytest.mark.parametrize("packer", [*LARGE.values(), *MODEST.values()], ids=[*map("large-{}".format, LARGE), *MODEST])
def test_every_window_up_to_the_limit_is_read(packer: Packer, size: int) -> None:
    kind, pack = packer
    assert unpacked(kind, pack(TEXT) + pack(TEXT[:50]), size=size) == TEXT + TEXT[:50]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (Compression.ZSTD, zstd_window_2_gib(TEXT)),
        (Compression.ZSTD, zstd_of(TEXT, 27) + zstd_zeros(MIB)),
        (Compression.ZSTD, b"\x28\xb5\x2f\xfd\xe0" + (2 * GIB).to_bytes(8, "little") + b"\1\0\0"),  # one segment: its own window
        (Compression.XZ, xz_dictionary_4_gib(TEXT)),
        (Compression.XZ, xz_of(TEXT, 512 * MIB)),
    ],
    ids=["zstd", "zstd-later", "zstd-single-segment", "xz", "xz-512-mib"],
)
def test_a_window_over_the_limit_is_named(kind: Compression, data: bytes) -> None:
    with pytest.raises(CorruptData, match=r"its window is larger than 128 MiB.*compress it again"):
        unpacked(kind, data)


@pytest.mark.parametrize("end", ["read to the end", "closed", "damaged", "forgotten"])
@pytest.mark.parametrize("name", LARGE)
def test_one_large_window_at_a_time(name: str, end: str) -> None:
    """While one stream has a large window another one waits for it, and gets it however the first one ends."""
    kind, pack = LARGE[name]
    content = noise(3 * MIB)
    data = pack(content)
    first = decompress(kind, [data[: len(data) // 2], b"\xff" * 100 if end == "damaged" else data[len(data) // 2 :]])
    got = next(first)
    second: list[bytes] = []
    thread = threading.Thread(target=lambda: second.extend(decompress(kind, [data])), daemon=True)
    thread.start()
    for other, modest in MODEST.values():
        assert unpacked(other, modest(TEXT)) == TEXT  # nobody else waits
    thread.join(0.2)
    assert thread.is_alive() and not second
    match end:
        case "read to the end":
            assert got + b"".join(first) == content
        case "closed":
            first.close()
        case "damaged":
            with pytest.raises(CorruptData):
                list(first)
    del first
    thread.join(30)
    assert b"".join(second) == content


# --- writing ---------------------------------------------------------------------------------------------------------


CONTENTS = {
    "nothing": b"",
    "a byte": b"x",
    "a block but one byte": noise(CHUNK - 1),
    "a block": noise(CHUNK),
    "a block and a byte": noise(CHUNK + 1),
    "four blocks": noise(2 * CHUNK) + bytes(2 * CHUNK),
    "nine blocks and some": noise(9 * CHUNK + 12345),
}


def written(kind: Compression, content: bytes, pool: ThreadPoolExecutor | None = None) -> list[bytes]:
    """The pieces that are written of a blob with this content."""
    pieces: list[bytes] = []
    assemble(iter(split(content, CHUNK)), ENCODERS[kind], pieces.append, pool)
    return pieces


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("kind", WRITTEN)
def test_what_is_written_is_read_by_others_and_here(kind: Compression, content: bytes) -> None:
    blob = b"".join(written(kind, content))
    assert ORACLES[kind](blob) == content
    assert sniff(blob[:6]) is kind
    assert unpacked(kind, blob) == content
    assert outcome(kind, blob[:-1]) is None


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("kind", WRITTEN)
def test_threads_do_not_change_the_bytes(kind: Compression, content: bytes) -> None:
    alone = written(kind, content)
    for threads in (1, 3, 20):
        with ThreadPoolExecutor(threads) as pool:
            assert written(kind, content, pool) == alone


@pytest.mark.parametrize("kind", WRITTEN)
def test_side_by_side_and_again_the_bytes_are_the_same(kind: Compression) -> None:
    """As in a run: several layers share the threads that compress."""
    content = noise(6 * CHUNK + 77)
    with ThreadPoolExecutor(4) as layers, ThreadPoolExecutor(3) as blocks:
        assert len(set(layers.map(lambda _: b"".join(written(kind, content, blocks)), range(12)))) == 1


@pytest.mark.parametrize("kind", WRITTEN)
def test_where_memory_lies_does_not_change_the_bytes(kind: Compression) -> None:
    """isal takes a hash from an address when a stream has no dictionary: one block and thread of some thousands then differ.

    Each of these blocks has its first bytes once more, and each thread its own stack and heap. Without: 35 of 40,000 differed.
    """
    blocks = [first + bytes(range(256)) + first for first in map(random.Random(7).randbytes, [16] * 1000)]
    together = threading.Barrier(40, timeout=30)

    def encode(_: int) -> list[bytes]:
        together.wait()
        return [ENCODERS[kind](block) for block in blocks]

    with ThreadPoolExecutor(40) as pool:
        first, *others = pool.map(encode, range(40))
    assert [number for number, block in enumerate(first) if any(other[number] != block for other in others)] == []


@given(st.binary(max_size=100))
def test_small_blobs_are_read_by_others(content: bytes) -> None:
    for kind in WRITTEN:
        assert ORACLES[kind](b"".join(written(kind, content))) == content


def test_none_is_written_as_it_is() -> None:
    content = noise(CHUNK + 5)
    assert written(Compression.NONE, content) == [content[:CHUNK], content[CHUNK:]]


@given(st.lists(st.sampled_from([0, 1, 1000, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK]), max_size=6))
@settings(max_examples=40, deadline=None)
def test_reblock_keeps_the_content_in_whole_blocks(sizes: list[int]) -> None:
    pieces = [noise(size, seed=number) for number, size in enumerate(sizes)]
    blocks = list(reblock(pieces))
    assert b"".join(blocks) == b"".join(pieces)
    assert all(len(block) == CHUNK for block in blocks[:-1])
    assert all(0 < len(block) <= CHUNK for block in blocks[-1:])


def test_reblock_does_not_wait_for_the_end() -> None:
    def endless() -> Iterable[bytes]:
        while True:
            yield bytes(CHUNK // 3 + 1)

    assert next(reblock(endless())) == bytes(CHUNK)


def test_the_blocks_are_streams_of_their_own() -> None:
    """Each block can be read by itself: what was promised of reproducible blobs, and what lets threads write them."""
    content = noise(2 * CHUNK)
    pieces = written(Compression.GZIP, content)
    assert b"".join(gzip.GzipFile(fileobj=io.BytesIO(piece)).read() for piece in pieces) == content
