"""Lint of a store of 1,000 images over 10 shared bases: each distinct layer read once, time and memory over the number of images.

Every base has 1,000 files; every other image has two small layers of its own. The images are imported by the product, and linted
by its own command: all of them at once, those of one base, and a sample of them in one process each. Layers are counted where the
command reads them, and the bytes of the process are those that the kernel counts.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

from bench import MIB, ROOT, SWRBATCH, Folders, Report, Row, Spent, environment, folders, options, pairs, ratio_row, run

BASES = 10
EACH = 100
SAMPLE = 20
FILES = 1000
HOST = "registry.example.com"
# The command itself, with what it reads counted: layers, and bytes from files.
COUNTED = """
import json, sys
from swrbatch.cli import main
from swrbatch.lint import batch
layers, read = 0, batch.read_layer
def counted(walk, programs):
    global layers
    layers += 1
    return read(walk, programs)
batch.read_layer = counted
sys.argv = ["swrbatch", *sys.argv[2:]]
try:
    main()
finally:
    bytes_ = next(int(line.split()[1]) for line in open("/proc/self/io") if line.startswith("rchar"))
    json.dump({"read": layers, "bytes": bytes_}, open(sys.argv[-1] + ".counted", "w"))
"""


def build(folder: Path) -> None:
    """Write an archive for each base: the base and the images on it. Run in a process of its own, for its memory's sake."""
    sys.path.insert(0, str(ROOT / "tests"))
    from imagetar import docker25
    from lint_images import BASE, X, image
    from lint_images import ROOT as SYSTEM

    for number in range(BASES):
        chance = random.Random(number)
        files = {
            f"usr/share/pkg{at % 50}/file-{number}-{at}": chance.randbytes(chance.randrange(100, 4000)) for at in range(FILES)
        }
        base = (
            (f"ADD rootfs{number}.tar.gz /", {**SYSTEM, **files}),
            BASE[1],
            ("RUN setup", {"usr/bin/node": X, f"etc/setup-{number}": b"x"}),
            'CMD ["node"]',
        )
        made = [image(base, tags=(f"{HOST}/team/base{number}:1",))]
        for app in range(1, EACH):
            modules = {f"app/node_modules/m{at}/index.js": f"{number} {app} {at}".encode() * 20 for at in range(20)}
            own = (
                "WORKDIR /app",
                ("COPY package.json /app/", {"app/package.json": f"{number} {app}".encode()}),
                ("RUN npm ci && apt-get update", {**modules, "var/lib/apt/lists/a": b"x" * app}),
                'CMD ["node", "/app"]',
            )
            made.append(image((*base, *own), tags=(f"{HOST}/team/base{number}-{app}:1",)))
        (folder / f"base-{number}.tar").write_bytes(docker25(*made))


def stored(room: Folders) -> tuple[Path, int, int]:
    """The store; its distinct layers by the tables of the product (`dedupe`), and their bytes as they are stored."""
    archives, store = room.new(), room.new()
    archives.mkdir()
    run([sys.executable, __file__, "--build", archives])
    run([*SWRBATCH, "import", archives, "--store", store, "--registry", HOST, "--user", "root", "--no-progress"])
    done = subprocess.run(
        [*SWRBATCH, "dedupe", "--store", store, "--user", "root", "--format", "json"],
        capture_output=True,
        check=True,
        env=environment(),
        cwd=ROOT,
    )
    sharing = json.loads(done.stdout)
    layers = f"{sharing['layers']} layers of which {sharing['distinct_layers']} distinct"
    print(f"  {sharing['images']} images, {layers}, {sharing['distinct_bytes'] / MIB:.0f} MiB stored", flush=True)
    return store, sharing["distinct_layers"], sharing["distinct_bytes"]


def lint(store: Path, *names: str) -> list[str | Path]:
    return [*SWRBATCH, "lint", *names, "--user", "root", "--date", "2026-11-24", "--store", store]


def once(report: Report, store: Path, distinct: int, size: int) -> None:
    """That as many layers are read as there are distinct ones: counted by the reader, and by the bytes of the process."""
    run([sys.executable, "-c", COUNTED, *lint(store, "*")[2:]], fine=(0, 1))
    counted = json.loads(Path(f"{store}.counted").read_text())
    read = counted["read"]
    report.add(Row("layers read, over the distinct ones", str(read), str(distinct), read / distinct, 1.0, at_most=True))
    run([sys.executable, "-c", COUNTED, *lint(store, "none/*")[2:]], fine=(2,))
    idle = json.loads(Path(f"{store}.counted").read_text())["bytes"]
    more = counted["bytes"] - idle
    report.add(
        Row(
            "bytes read, over those of the distinct layers",
            f"{more / MIB:.1f} MiB",
            f"{size / MIB:.1f} MiB",
            more / size,
            1.5,
            at_most=True,
        )
    )


def growth(report: Report, store: Path, rounds: int) -> Spent:
    """Time and memory of all images over those of one base's."""
    every: list[Spent] = []
    few: list[Spent] = []

    def timed(into: list[Spent], name: str) -> float:
        into.append(run(lint(store, name), fine=(0, 1)))
        return into[-1].wall

    start = min(run(lint(store, "none/*"), fine=(2,)).wall for _ in range(rounds))
    a, b = pairs(lambda: timed(every, "*"), lambda: timed(few, "team/base0*"), rounds)
    each, of_few = ([(wall - start) / count * 1000 for wall in walls] for walls, count in ((a, BASES * EACH), (b, EACH)))
    report.add(
        ratio_row(
            f"an image of {BASES * EACH}, over one of {EACH}, without the start ({start:.2f} s)",
            each,
            of_few,
            1.25,
            at_most=True,
            unit=" ms",
        )
    )
    most, least = max(spent.peak for spent in every), max(spent.peak for spent in few)
    grown = (most - least) / (BASES * EACH - EACH) / 1024
    report.add(
        Row(
            f"memory for each image beyond {EACH}",
            f"{most / MIB:.0f} MiB",
            f"{least / MIB:.0f} MiB",
            grown,
            32,
            at_most=True,
            unit=" KiB",
        )
    )
    return every[-1]


def alone(report: Report, store: Path, every: Spent) -> None:
    """A sample of the images, one process each, against their share of the whole run."""
    names = [f"team/base{number % BASES}-{1 + number * 4}:1" for number in range(SAMPLE)]
    walls = [run(lint(store, name), fine=(0, 1)).wall for name in names]
    rate, of_all = SAMPLE / sum(walls), BASES * EACH / every.wall
    report.add(
        Row(
            f"images a second, over one process each ({SAMPLE} of them)",
            f"{of_all:.0f}",
            f"{rate:.2f}",
            of_all / rate,
            10,
            at_most=False,
        )
    )


def main() -> int:
    if sys.argv[1:2] == ["--build"]:
        build(Path(sys.argv[2]))
        return 0
    given = options(__doc__ or "", rounds=3)
    report = Report(f"Lint of a store of {BASES * EACH} images over {BASES} bases")
    with folders(given.dir) as room:
        store, distinct, size = stored(room)
        once(report, store, distinct, size)
        alone(report, store, growth(report, store, given.rounds))
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())
