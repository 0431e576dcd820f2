"""Peak memory of check and import for a large real archive, and for one of 12 GB that is made here.

The 12 GB archive is a sparse file: three layers, each a tar of one file of zeros, with true diff_ids. skopeo's peak stands beside
ours where it is quick enough to ask.
"""

from __future__ import annotations

import hashlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import MIB, ROOT, SWRBATCH, Folders, Report, Row, folders, large_archives, options, program, run

sys.path.insert(0, str(ROOT / "tests"))
from imagetar import END, TarBuilder, header

MOST = 220
GIB = 2**30
LAYERS = (3 * GIB, 4 * GIB, 5 * GIB)
TAG = "registry.example.com/team/large:12"
ZEROS = bytes(MIB)


def diff_id(size: int) -> str:
    """The digest of a tar of one file of `size` zeros."""
    sha = hashlib.sha256(header("zeros", size=size))
    for _ in range(size // MIB):
        sha.update(ZEROS)
    sha.update(END)
    return sha.hexdigest()


def build(path: Path, sizes: tuple[int, ...]) -> None:
    """Write the sparse archive, as `docker save` does it: layers, config, manifest.json. `sizes` are multiples of 1 MiB."""
    with ThreadPoolExecutor(2) as pool:
        ids = list(pool.map(diff_id, sizes))
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "history": [{"created_by": f"zeros {number}"} for number in range(len(sizes))],
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in ids]},
        }
    ).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [TAG], "Layers": [f"{digest}.tar" for digest in ids]}]).encode()
    with path.open("wb") as f:
        tar = TarBuilder(f)
        for digest, size in zip(ids, sizes, strict=True):
            tar.raw(header(f"{digest}.tar", size=512 + size + len(END)) + header("zeros", size=size))
            f.seek(size, 1)
            tar.raw(END)
        tar.member("config.json", config).member("manifest.json", manifest).end()


def measure(report: Report, name: str, archive: Path, room: Folders, peer: str) -> None:
    import_: list[str | Path] = ["import", archive, "--store"]
    ways: dict[str, list[str | Path]] = {
        "check": ["check", archive],
        "import": [*import_, room.new()],
        "import, zstd": [*import_, room.new(), "--compression", "zstd"],
    }
    for what, argv in ways.items():
        peak = run([*SWRBATCH, *argv, "--profile", "none", "--no-progress"]).peak / MIB
        report.add(Row(f"{name}, {what}", f"{peak:.0f} MiB", peer, peak * MIB / 1e6, MOST, at_most=True, unit=" MB"))


def skopeo_peak(archive: Path, room: Folders) -> str:
    """skopeo's peak for the first image of an archive."""
    argv = [program("skopeo"), "--insecure-policy", "copy", "-q", f"docker-archive:{archive}:@0", f"oci:{room.new()}:a"]
    return f"{run(argv).peak / MIB:.0f} MiB (skopeo)"


def main() -> int:
    given = options(__doc__ or "", rounds=1)
    report = Report("Peak memory of a whole process")
    with folders(given.dir) as room:
        for name, archive in large_archives(given.archives).items():
            measure(report, name, archive, room, skopeo_peak(archive, room))
        synthetic = room.new().with_suffix(".tar")
        build(synthetic, LAYERS)
        held = synthetic.stat().st_blocks * 512 / MIB
        print(f"  made {synthetic.stat().st_size / 1e9:.1f} GB of sparse archive ({held:.1f} MiB on disk)")
        measure(report, "12 GB, sparse", synthetic, room, "-")
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())
