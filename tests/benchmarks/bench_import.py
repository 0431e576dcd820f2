"""Import of large archives, as a whole process, against skopeo, and against the work alone.

Needs skopeo and docker-registry. For an archive of several images skopeo is called once for each, into the same destination.
Everything is written to fresh folders on the same disk; the archives are read from the page cache.

The work alone is what no import with gzip can do without, by two threads in a process that runs already: each MiB of the layers
is read, hashed, compressed by isal and hashed again, in any order, and nothing is written.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import (
    MIB,
    ROOT,
    SWRBATCH,
    Folders,
    Report,
    folders,
    large_archives,
    options,
    pairs,
    program,
    ratio_row,
    read_through,
    run,
)

sys.path.insert(0, str(ROOT / "tests"))
from bench_check import layer_ranges
from isal import isal_zlib

from conftest import Registry

MOST = {"oci": 0.30, "registry": 0.20, "dir": 0.30}
ALONE = 1.5
"""Our own goal: of the time of the work alone, at most."""


def references(archive: Path) -> list[str]:
    """The first name of each image of an archive."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile("manifest.json")
        assert member is not None
        return [entry["RepoTags"][0] for entry in json.load(member)]


def ours(archive: Path, compression: str, room: Folders) -> float:
    """Seconds of an import into a new store."""
    return run([*SWRBATCH, "import", archive, "--store", room.new(), "--compression", compression, "--no-progress"]).wall


def skopeo(archive: Path, target: Callable[[str], str], *more: str) -> float:
    """Seconds of copying every image of an archive to `target(reference)`."""
    copy = [program("skopeo"), "--insecure-policy", "copy", "-q", *more]
    lines = [shlex.join([*copy, f"docker-archive:{archive}:{name}", target(name)]) for name in references(archive)]
    return run(["sh", "-ec", "\n".join(lines)]).wall


def alone(archive: Path) -> float:
    """Seconds of the work alone."""
    fd = os.open(archive, os.O_RDONLY)

    def block(extent: tuple[int, int]) -> tuple[bytes, bytes]:
        data = os.pread(fd, extent[1], extent[0])
        blob = isal_zlib.compress(data, 1, wbits=31)
        return hashlib.sha256(data).digest(), hashlib.sha256(blob).digest()

    blocks = [
        (at, min(MIB, offset + size - at)) for offset, size in layer_ranges(archive) for at in range(offset, offset + size, MIB)
    ]
    begun = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(block, blocks))
    seconds = time.perf_counter() - begun
    os.close(fd)
    return seconds


def to_oci(archive: Path, room: Folders) -> float:
    layout = room.new()
    return skopeo(archive, lambda name: f"oci:{layout}:{name.rpartition(':')[2]}-{name.rpartition('/')[2].partition(':')[0]}")


def to_dir(archive: Path, room: Folders) -> float:
    folder = room.new()
    folder.mkdir()
    return skopeo(archive, lambda name: f"dir:{folder}/{name.rpartition('/')[2].replace(':', '-')}")


def to_registry(archive: Path, room: Folders) -> float:
    """Into a registry that has just started on an empty folder; its start is not counted."""
    root = room.new()
    root.mkdir()
    config = root.with_suffix(".yml")
    config.write_text(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {root}}}}}\nhttp: {{addr: 127.0.0.1:0}}\n")
    with Registry(config, log=root.with_suffix(".log")) as registry:
        return skopeo(archive, lambda name: f"docker://{registry.address}/{name.partition('/')[2]}", "--dest-tls-verify=false")


def main() -> int:
    given = options(__doc__ or "", rounds=5)
    report = Report("Import, whole process, against skopeo (seconds; less is better)")
    program("docker-registry", "registry")
    for name, archive in large_archives(given.archives).items():
        read_through(archive)
        for peer, copy, compression in (
            ("oci", to_oci, "gzip"),
            ("registry", to_registry, "gzip"),
            ("dir", to_dir, "none"),
        ):
            with folders(given.dir) as room:
                a, b = pairs(
                    lambda archive=archive, how=compression, room=room: ours(archive, how, room),  # type: ignore[misc]
                    lambda archive=archive, copy=copy, room=room: copy(archive, room),  # type: ignore[misc]
                    given.rounds,
                )
            report.add(ratio_row(f"{name}, {compression}, against {peer}", a, b, MOST[peer], at_most=True))
        with folders(given.dir) as room:
            a, b = pairs(
                lambda archive=archive, room=room: ours(archive, "gzip", room),  # type: ignore[misc]
                lambda archive=archive: alone(archive),  # type: ignore[misc]
                given.rounds,
            )
        report.add(ratio_row(f"{name}, gzip, against the work alone", a, b, ALONE, at_most=True))
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())
