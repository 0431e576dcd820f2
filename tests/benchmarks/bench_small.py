"""1,000 small archives: one import against `xargs -P2 skopeo copy`, an OCI layout each.

Every archive is distinct, with three layers of its own. Ours is the whole process, with everything durable at its end; skopeo
syncs nothing.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from bench import ROOT, SWRBATCH, Folders, Report, folders, options, pairs, program, ratio_row, run

sys.path.insert(0, str(ROOT / "tests"))
from imagetar import Image, Layer, skopeo

COUNT = 1000
LEAST = 5.0


def build(folder: Path, count: int) -> None:
    """The archives, as skopeo writes them: about 40 kB each, half of it incompressible."""
    folder.mkdir()
    noise = random.Random(7)
    for number in range(count):
        layers = tuple(
            Layer.of({f"srv/{part}": noise.randbytes(4000) + f"image {number} part {part}\n".encode() * 200}) for part in range(3)
        )
        image = Image(layers=layers, tags=(f"registry.example.com/team/image-{number:04}:v1",))
        (folder / f"{number:04}.tar").write_bytes(skopeo(image))


def ours(archives: Path, count: int, room: Folders) -> float:
    """Images a second."""
    return count / run([*SWRBATCH, "import", archives, "--store", room.new(), "--no-progress"]).wall


def peers(archives: Path, count: int, room: Folders) -> float:
    """Images a second."""
    target = room.new()
    target.mkdir()
    copy = f"{program('skopeo')} --insecure-policy copy -q docker-archive:{archives}/{{}} oci:{target}/{{}}:v1"
    return count / run(["sh", "-c", f"ls {archives} | xargs -P2 -I{{}} {copy}"]).wall


def main() -> int:
    given = options(__doc__ or "", rounds=3)
    count = COUNT if given.rounds > 1 else COUNT // 10
    report = Report(f"{count} small distinct archives, images a second (more is better)")
    with folders(given.dir) as room:
        archives = room.new()
        build(archives, count)
        a, b = pairs(lambda: ours(archives, count, room), lambda: peers(archives, count, room), given.rounds)
        report.add(ratio_row(f"import of {count} against xargs -P2 skopeo copy", a, b, LEAST, at_most=False, unit="/s"))
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())
