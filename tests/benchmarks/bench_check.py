"""Check, and a second import of the same archive, against two threads that only hash.

All inside one process: how fast the bytes flow, not how fast Python starts. The two threads read the same layers, the largest
first, by `pread` of 1 MiB into `hashlib.sha256`, and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import MIB, ROOT, Report, Row, folders, large_archives, options, pairs, ratio_row

sys.path.insert(0, str(ROOT))
from swrbatch import Cancel, Store, check_archives, import_archives
from swrbatch.archive import open_archive
from swrbatch.validate import read_archive

LEAST = 0.80


def layer_ranges(archive: Path) -> list[tuple[int, int]]:
    """(offset, size) of each distinct layer, the largest first."""
    with open_archive(str(archive), spool_dir=None, cancel=Cancel()) as index:
        content = read_archive(index, Cancel())
    found = {(layer.extent.offset, layer.extent.size) for image in content.images for layer in image.layers}
    return sorted(found, key=lambda extent: -extent[1])


def hash_only(archive: Path, ranges: list[tuple[int, int]]) -> None:
    """What cannot be beaten: every layer hashed by two threads."""
    fd = os.open(archive, os.O_RDONLY)

    def one(extent: tuple[int, int]) -> str:
        offset, size = extent
        sha = hashlib.sha256()
        for at in range(offset, offset + size, MIB):
            sha.update(os.pread(fd, min(MIB, offset + size - at), at))
        return sha.hexdigest()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, ranges))
    os.close(fd)


def rate(size: int, work: Callable[[], object]) -> float:
    """MiB a second."""
    os.sync()
    begun = time.perf_counter()
    work()
    return size / MIB / (time.perf_counter() - begun)


def measure(report: Report, name: str, archive: Path, rounds: int, where: Path | None) -> None:
    ranges = layer_ranges(archive)
    size = sum(length for _, length in ranges)

    def against(what: str, work: Callable[[], object]) -> Row:
        work()
        hash_only(archive, ranges)
        a, b = pairs(lambda: rate(size, work), lambda: rate(size, lambda: hash_only(archive, ranges)), rounds)
        return ratio_row(f"{name}, {what}", a, b, LEAST, at_most=False, unit="MiB/s")

    def checked() -> None:
        assert check_archives([archive], jobs=2).run.valid

    report.add(against("check", checked))
    with folders(where) as room, Store(room.new(), create=True) as store:
        assert import_archives([archive], store, jobs=2).run.loaded

        def again() -> None:
            assert import_archives([archive], store, jobs=2).run.unchanged

        report.add(against("second import", again))


def main() -> int:
    given = options(__doc__ or "", rounds=7)
    report = Report("Check and second import, inside one process, against two threads that only hash (more is better)")
    for name, archive in large_archives(given.archives).items():
        measure(report, name, archive, given.rounds, given.dir)
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())
