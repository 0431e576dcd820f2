"""Feeds broken archives to the parsers, many times more than a test run has time for. No test: run it by hand.

    PYTHONPATH=. .venv/bin/python tests/fuzz_parsers.py [INPUTS] [--jobs N] [--seed N] [--keep DIR]

Each input is a real archive, one of `imagetar`, or one of `hostile`, changed in a few places: as a file, in the tar inside its
compression, in one field of one tar header (its checksum made right again), in one value of one JSON member, in one layer. It
is opened, indexed and read; its names are judged and all its layers hashed, as `swrbatch check` does, in this process.

Reported: how many ended how; every exception other than `ArchiveFault` (with `--keep`, its input is kept, and that of the
slowest); the slowest input; file descriptors left open; the peak memory. Ends with 1 after any exception. The same seed and
number of jobs give the same inputs.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import io
import json
import lzma
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

sys.path.insert(0, str(Path(__file__).resolve().parent))

from hostile import BLOCK, HOSTILE, resealed
from imagetar import BUNDLES, PRODUCERS, TAG, Image, Layer, base256, outer, pax_record, tar_of
from swrbatch.archive import open_archive
from swrbatch.compression import Compression, sniff
from swrbatch.digest import Cancel
from swrbatch.errors import ArchiveFault, codes_of, has_errors
from swrbatch.layers import Budget, LayerFacts, LayerReading
from swrbatch.policy import normalise, parse_reference
from swrbatch.validate import check_layers, kept_manifest, read_archive

ARCHIVES = Path(__file__).resolve().parent.parent / "fixtures" / "archives"
LIMIT = 64 << 20
MEMORY = 1 << 30
SMALL = 256 << 10  # of a hostile kind that serves as a seed: the speed of the whole depends on it
UNPACK: dict[Compression, Callable[[BinaryIO], Any]] = {
    Compression.NONE: lambda file: file,
    Compression.GZIP: gzip.open,
    Compression.ZSTD: lambda file: zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True),
    Compression.XZ: lzma.open,
    Compression.BZIP2: bz2.open,
}


def seeds() -> list[bytes]:
    """Where the inputs come from."""
    image = Image()
    other = Image(layers=(*image.layers, Layer.of({"srv/worker": b"#!/bin/sh\n"})), tags=(f"{TAG}-two",))
    made = [path.read_bytes() for path in sorted(ARCHIVES.glob("*.tar*"))]
    made += [make(image) for make in PRODUCERS.values()]
    made += [make(image, other) for make in BUNDLES.values()]
    made += [outer(make(image), how) for make in PRODUCERS.values() for how in ("gzip", "zstd", "xz", "bzip2")]
    made *= 4  # more often than the hostile ones, of which there are many
    with tempfile.TemporaryDirectory() as folder:
        for number, kind in enumerate(HOSTILE):
            path = Path(folder, str(number))
            kind.build(path)
            if path.is_file() and 0 < path.stat().st_size <= SMALL:
                made.append(path.read_bytes())
            path.unlink()
    return made


@contextmanager
def at_path(data: bytes) -> Iterator[str]:
    """A path of a file with this content, in memory."""
    fd = os.memfd_create("input")
    try:
        os.pwrite(fd, data, 0)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


# --- changes ---------------------------------------------------------------------------------------------------------


def change_bytes(data: bytes, dice: random.Random) -> bytes:
    """A few flipped bits, and pieces overwritten, cut, doubled, blanked or moved."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 4, 8))):
        length = dice.choice((1, 2, 12, 100, BLOCK, 3 * BLOCK))
        at = dice.randrange(len(changed) or 1)
        if length >= BLOCK:
            at -= at % BLOCK
        piece = changed[at : at + length]
        match dice.randrange(7):
            case 0 | 1:
                changed[at : at + 1] = bytes(byte ^ 1 << dice.randrange(8) for byte in piece[:1])
            case 2:
                changed[at : at + length] = dice.randbytes(length)
            case 3:
                del changed[at : at + length]
            case 4:
                changed[at:at] = piece
            case 5:
                changed[at : at + length] = bytes(len(piece))
            case 6:
                del changed[at : at + length]
                changed += piece
    return bytes(changed[: dice.randrange(len(changed) + 1)] if dice.randrange(8) == 0 else changed)


NAMES = (
    b"",
    b"manifest.json",
    b"./manifest.json",
    b"../x",
    b"/etc/passwd",
    b"repositories",
    b"index.json",
    b"\xff\xfe",
    b"a/" * 50,
)
SIZES = (0, 1, 511, 512, 513, 2**20, 2**33, 2**62, 2**63, -1, -512)
FIELDS: tuple[tuple[int, int, Callable[[random.Random], bytes]], ...] = (
    (0, 100, lambda dice: dice.choice(NAMES)),
    (124, 12, lambda dice: base256(dice.choice(SIZES))),
    (124, 12, lambda dice: b"%011o\0" % abs(dice.choice(SIZES[:7]))),
    (124, 12, lambda dice: dice.randbytes(12)),
    (
        156,
        1,
        lambda dice: dice.choice((b"0", b"\0", b"1", b"2", b"3", b"5", b"6", b"7", b"g", b"x", b"L", b"K", b"S", b"Z", b"M")),
    ),
    (157, 100, lambda dice: dice.choice(NAMES)),
    (257, 8, lambda dice: dice.choice((b"ustar\x0000", b"ustar  \0", bytes(8)))),
    (345, 155, lambda dice: dice.choice(NAMES)),
)
RECORDS = (
    ("path", b"manifest.json"), ("path", b"\xff"), ("path", b""), ("linkpath", b"../../x"), ("size", b"0"), ("size", b"9" * 11),
    ("size", b"-1"), ("GNU.sparse.major", b"1"), ("comment", b"x" * 600), ("a=b", b"c"),
)  # fmt: skip


def change_header(data: bytes, dice: random.Random) -> bytes:
    """One field of one tar header, or an extended header before it."""
    headers = [at for at in range(0, len(data) - BLOCK, BLOCK) if data[at + 257 : at + 262] == b"ustar"]
    if not headers:
        return change_bytes(data, dice)
    at = dice.choice(headers)
    if dice.randrange(4) == 0:
        records = b"".join(pax_record(*dice.choice(RECORDS)) for _ in range(dice.choice((1, 1, 3))))
        if dice.randrange(3) == 0:
            records = change_bytes(records, dice)
        made = bytearray(data[at : at + BLOCK])
        made[124:136] = b"%011o\0" % len(records)
        made[156:157] = dice.choice((b"x", b"x", b"g", b"L", b"K"))
        return resealed(data[:at] + bytes(made) + records + bytes(-len(records) % BLOCK) + data[at:])
    start, width, value = dice.choice(FIELDS)
    return resealed(data[: at + start] + value(dice)[:width].ljust(width, b"\0") + data[at + start + width :])


VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**63, 10**400, 1.5, "", "x", "../x", "/x", "manifest.json", "\0", "\ud800", "sha256:" + "0" * 64,
    [], {}, [None], [[]], [""], ["x"] * 200, {"": None}, {"Config": "x"}, "a" * 5000,
)  # fmt: skip


def change_json(value: Any, dice: random.Random) -> Any:
    """One value somewhere inside replaced, removed, doubled or renamed."""
    if isinstance(value, list) and value and dice.randrange(5):
        at = dice.randrange(len(value))
        match dice.randrange(4):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return value[:at] + [value[at]] * dice.choice((2, 2, 30)) + value[at:]
        return [*value[:at], change_json(value[at], dice), *value[at + 1 :]]
    if isinstance(value, dict) and value and dice.randrange(5):
        key = dice.choice(list(value))
        rest = {other: item for other, item in value.items() if other != key}
        match dice.randrange(5):
            case 0:
                return rest
            case 1:
                return {**rest, dice.choice((key.lower(), key.upper(), "x" + key, "")): value[key]}
        return {**value, key: change_json(value[key], dice)}
    return dice.choice(VALUES)


def change_member(data: bytes, dice: random.Random) -> bytes:
    """One member's content: JSON by its values, anything else (a layer) by its bytes, maybe compressed; then packed again."""
    with at_path(data) as path, open_archive(path, spool_dir=None, cancel=Cancel()) as index:  # tarfile hangs on some
        parts = {name: index.extent(one).read() for name, one in index.members.items() if one.kind == "file"}
    if not parts:
        return change_bytes(data, dice)
    texts = [name for name, content in parts.items() if content[:1] in (b"{", b"[")]
    name = dice.choice(texts if texts and dice.randrange(4) else list(parts))
    content = parts[name]
    if name in texts:
        with suppress(ValueError, RecursionError):
            parts[name] = json.dumps(change_json(json.loads(content), dice)).encode()
    else:
        how = dice.choice(("none", "none", "gzip", "zstd", "xz", "bzip2"))
        parts[name] = outer(content, how, dice.choice((1, 1, 3)))
        if dice.randrange(3):
            parts[name] = change_bytes(parts[name], dice)
    return tar_of(parts)


def changed(seed: bytes, dice: random.Random) -> bytes:
    """An input made of this seed."""
    how = dice.randrange(10)
    if how < 2:
        return change_bytes(seed, dice)
    compression = sniff(seed[:6])
    with suppress(Exception):  # the programs that make the inputs do not withstand all of them
        data = UNPACK[compression](io.BytesIO(seed)).read(4 * SMALL)  # no more: some seeds are bombs
        with suppress(Exception):
            data = (change_header, change_member, change_member, change_bytes)[how // 2 - 1](data, dice)
        if dice.randrange(8) == 0:
            data = resealed(change_bytes(data, dice))
        if dice.randrange(10) == 0:
            compression = dice.choice(tuple(Compression))
        return outer(data, compression.value, dice.choice((1, 1, 2)))
    return change_bytes(seed, dice)


# --- one input, and many ---------------------------------------------------------------------------------------------


def outcome(path: str) -> str:
    """`loads`, or the codes of the errors."""
    cancel = Cancel()
    try:
        with open_archive(path, spool_dir=None, max_decompressed=LIMIT, cancel=cancel) as index:
            content = read_archive(index, cancel)
            budget = Budget(LIMIT, index.uncompressed_bytes)
            issues = list(content.issues)
            read: dict[Any, LayerFacts] = {}
            for image in content.images:
                issues += image.issues
                for name in image.names:
                    normalise(name)
                    for naming in ("guide", "api"):
                        parse_reference(name, naming, place="")
                with suppress(ArchiveFault):
                    for layer in image.layers:
                        if layer not in read:
                            read[layer] = layer.copy_to(None, Compression.GZIP, LayerReading(budget, cancel))
                    facts = [read[layer] for layer in image.layers]
                    if image.config is not None:
                        issues += check_layers(image, facts)
                        issues += kept_manifest(image, facts, Compression.GZIP)[1]
                    continue
                return "a layer cannot be read"
    except ArchiveFault as e:
        return e.issue.code
    return " ".join(sorted(codes_of(i for i in issues if i.is_error))) if has_errors(issues) else "loads"


@dataclass
class Report:
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    descriptors: int = 0
    peak_kib: int = 0


def run(job: int, inputs: int, seed: int, keep: str | None) -> Report:
    """`inputs` inputs in this process."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    report = Report()
    stock = seeds()
    before = len(os.listdir("/proc/self/fd"))
    for number in range(inputs):
        dice = random.Random(f"{seed} {job} {number}")
        data = changed(dice.choice(stock), dice)
        name = f"seed {seed} job {job} input {number}"
        begun = time.perf_counter()
        try:
            with at_path(data) as path:
                report.outcomes[outcome(path)] += 1
        except Exception:
            report.outcomes["EXCEPTION"] += 1
            report.failures.append(f"{name}\n{traceback.format_exc()}")
            _keep(keep, f"exception-{job}-{number}", data)
        taken = time.perf_counter() - begun
        if taken > report.slowest[0]:
            report.slowest = (taken, name)
            _keep(keep, f"slowest-{job}", data)
    report.descriptors = len(os.listdir("/proc/self/fd")) - before
    report.peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return report


def _keep(folder: str | None, name: str, data: bytes) -> None:
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, name).write_bytes(data)


def _jobs(args: argparse.Namespace) -> Iterator[tuple[int, int, int, str | None]]:
    for job in range(args.jobs):
        yield job, args.inputs // args.jobs + (job < args.inputs % args.jobs), args.seed, args.keep


def main() -> int:
    parser = argparse.ArgumentParser(description="Feed broken archives to the parsers.")
    parser.add_argument("inputs", nargs="?", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", help="folder for the inputs that raised an exception, and for the slowest")
    args = parser.parse_args()
    begun = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        reports = pool.starmap(run, _jobs(args))
    outcomes = sum((report.outcomes for report in reports), Counter[str]())
    failures = [failure for report in reports for failure in report.failures]
    for name, count in outcomes.most_common(40):
        print(f"{count:9}  {name}")
    print(f"{len(outcomes)} kinds of outcome; {outcomes.total()} inputs in {time.perf_counter() - begun:.0f} s")
    print(f"exceptions: {len(failures)}")
    for failure in failures[:10]:
        print(failure)
    seconds, name = max(report.slowest for report in reports)
    print(f"slowest: {seconds:.3f} s ({name})")
    print(f"file descriptors left open: {sum(report.descriptors for report in reports)}")
    print(
        f"peak memory of a process: {max(report.peak_kib for report in reports) / 1024:.0f} MiB (with the seeds and their making)"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
