"""A storm of kills: 500 imports end by SIGKILL at a random write boundary or at a random moment; nothing may be lost by any of them.

    python tests/benchmarks/crash_storm.py [--kills 500] [--seed 20261124] [--folder DIR]

Each child is forked from this process, which has everything loaded, and imports one to three archives of a small set (they share
layers and tags, in the forms of six producers) with one or two workers, four times out of five into one store that lives through
the whole storm, else into a new one. Half of them die at a write boundary (a fault point, counted over all threads), half when a
random time is over. After each kill: `verify --deep` has no issue, the links are the rows, the replay of the events gives the rows,
and every tag has an image that it had before, or that the killed import was about to give it; then the same import is run again,
must complete, and all of that is checked once more. Any failure ends the storm with the seed and the number of the kill.

No peer is needed. It prints a table; figures of a run stand in the note that closes issue 2.
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from imagetar import Image, Layer, containerd, crane, docker25, docker_legacy, outer, skopeo  # noqa: E402
from test_crash import KILLED, TEAM, check_sound, events_of, files_of, in_memory, join, spawn, temporaries, write  # noqa: E402

from swrbatch import Store, faults, import_archives  # noqa: E402

FORMS: Final[Sequence[Callable[..., bytes]]] = (docker_legacy, docker25, skopeo, crane, containerd)


class Witness:
    """Memory that a child shares with its parent: how many points it has passed, and the last one's name."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 4096)
        self._lock = threading.Lock()

    def watch(self, die_at: int | None) -> None:
        """In the child: note each point from now on, and die at the given one."""
        self._shared[:] = bytes(4096)
        self._lock = threading.Lock()
        count = 0

        def hook(name: str) -> None:
            nonlocal count
            with self._lock:
                count += 1
                text = f"{count} {name}".encode().ljust(64)
                self._shared[: len(text)] = text
                if count == die_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        faults.hook = hook

    def seen(self) -> tuple[int, str]:
        count, _, name = self._shared[:64].rstrip(b"\0 ").decode().partition(" ")
        return int(count or 0), name


@dataclass
class Figures:
    """What the storm has seen."""

    kills: Counter[str] = field(default_factory=Counter)
    stages: Counter[str] = field(default_factory=Counter)
    effects: Counter[str] = field(default_factory=Counter)
    healed: int = 0
    swept: int = 0
    outrun: int = 0
    boundaries: set[str] = field(default_factory=set)
    checking: float = 0.0
    again: float = 0.0


def stage(point: str) -> str:
    """Where in the order of a load a point lies."""
    if not point:
        return "0 before the first boundary"
    what = point.partition(":")[0]
    return {
        "ledger": "4 ledger: open, commit, clear pending",
        "run": "1 run folder",
        "blob": "2 blobs: create, write, sync" if "rename" not in point and "folders" not in point else "3 blobs: rename, sync",
        "link": "5 links: create, write, sync" if "rename" not in point and "folders" not in point else "6 links: rename, sync",
    }.get(what, f"7 {what}")


def make_archives(folder: Path, rng: random.Random) -> list[Path]:
    """Twelve archives over four tags and twelve more, sharing a base and some layers."""
    base = Layer.of({"base": rng.randbytes(200 << 10)})
    shared = [Layer.of({"shared": rng.randbytes(20 << 10)}) for _ in range(3)]
    made = []
    for number in range(12):
        own = Layer.of({"own": rng.randbytes(rng.choice((100, 5_000, 1_200_000)))})
        tags = (f"{TEAM}/app:v{number % 4}", f"{TEAM}/own-{number}:v1", f"{TEAM}/app:latest")[: 1 + number % 3]
        data = FORMS[number % 5](Image(layers=(base, shared[number % 3], own), tags=tags))
        made.append(write(folder / f"{number}.tar", outer(data, "gzip") if number % 6 == 5 else data))
    return made


def run(archives: Sequence[Path], store: Path, jobs: int) -> None:
    assert import_archives(archives, store, jobs=jobs).exit_code == 0


def image_ids(store: Path) -> dict[str, str]:
    if not (store / "ledger.db").exists():
        return {}
    with Store(store) as opened:
        return {f"{row.organization}/{row.repository}:{row.tag}": row.image_id for row in opened.tag_rows()}


def one_kill(archives: Sequence[Path], store: Path, rng: random.Random, usual: list[tuple[int, float]], seen: Figures) -> bool:
    """One child, its death, and all checks; False when it was faster than its death."""
    picked = rng.sample(archives, rng.randrange(1, 4))
    jobs = rng.choice((1, 2))
    points, seconds = usual[len(picked)]
    before = image_ids(store)
    by_point = rng.random() < 0.5
    witness = Witness()

    def child() -> None:
        witness.watch(rng.randrange(1, points + 1) if by_point else None)
        run(picked, store, jobs)

    pid = spawn(child)
    if not by_point:
        time.sleep(rng.uniform(0, seconds))
        os.kill(pid, signal.SIGKILL)
    code = join(pid)
    if code == 0:
        seen.outrun += 1
        return False
    assert code == KILLED, f"the child ended with {code}"
    _, name = witness.seen()
    seen.kills["at a write boundary" if by_point else "at a random moment"] += 1
    seen.stages[stage(name)] += 1
    seen.boundaries.add(name)

    begun = time.perf_counter()
    after: dict[str, str] = {}
    if (store / "ledger.db").exists():
        seen.swept += bool(temporaries(store))
        unhealed = files_of(store)
        seen.healed += check_sound(store) != unhealed
        after = image_ids(store)
    seen.checking += time.perf_counter() - begun
    begun = time.perf_counter()
    run(picked, store, jobs)
    seen.again += time.perf_counter() - begun
    check_sound(store)
    final = image_ids(store)
    for tag in before.keys() | after.keys():
        # `final` cannot tell when the group's own last image differs from an earlier one's, but nothing foreign may appear.
        assert after.get(tag) in {before.get(tag), final.get(tag), *_ids_of(picked, tag)}, tag
    assert before.keys() <= after.keys() <= final.keys()
    assert temporaries(store) == []
    changed = after != before
    seen.effects["nothing of it was there" if not changed else "all of it was there" if after == final else "a part"] += 1
    return True


_KNOWN: dict[tuple[Path, str], str] = {}


def _ids_of(picked: Sequence[Path], tag: str) -> set[str]:
    return {image_id for (path, name), image_id in _KNOWN.items() if path in picked and name == tag}


def measure(archives: Sequence[Path], folder: Path, rng: random.Random) -> list[tuple[int, float]]:
    """Points and seconds of an undisturbed import of 0, 1, 2 and 3 archives; and which image each archive gives to its tags."""
    for path in archives:
        store = folder / f"alone-{path.stem}"
        for row in import_archives([path], store).images:
            _KNOWN[path, f"{row.organization}/{row.repository}:{row.tag}"] = str(row.image_id)
        shutil.rmtree(store)
    usual = [(1, 0.0)]
    for count in (1, 2, 3):
        witness = Witness()
        picked = rng.sample(archives, count)

        def child(picked: Sequence[Path] = picked, count: int = count, witness: Witness = witness) -> None:
            witness.watch(None)
            run(picked, folder / f"measured-{count}", 2)

        begun = time.perf_counter()
        assert join(spawn(child)) == 0
        usual.append((witness.seen()[0], time.perf_counter() - begun))
    return usual


def storm(kills: int, seed: int, folder: Path) -> None:
    rng = random.Random(seed)
    archives = make_archives(folder, rng)
    usual = measure(archives, folder, rng)
    seen, long_lived = Figures(), folder / "long-lived"
    begun = time.perf_counter()
    tries = 0
    while (done := sum(seen.kills.values())) < kills:
        tries += 1
        fresh = rng.random() < 0.2
        store = folder / f"fresh-{tries}" if fresh else long_lived
        try:
            one_kill(archives, store, random.Random(rng.getrandbits(64)), usual, seen)
        except BaseException:
            print(f"FAILED after {done} kills: seed {seed}, try {tries}, store {store}", file=sys.stderr)
            raise
        if fresh:
            shutil.rmtree(store, ignore_errors=True)
    lasted = time.perf_counter() - begun
    with Store(long_lived) as store_:
        events, tags = len(events_of(store_)), len(store_.tag_rows())
    rows: list[tuple[str, object]] = [
        ("kills", sum(seen.kills.values())),
        *((f"  {k}", v) for k, v in sorted(seen.kills.items())),
    ]
    rows += [("imports that were faster than their death", seen.outrun), ("different last boundaries", len(seen.boundaries))]
    rows += [("killed in", ""), *((f"  {name[2:]}", count) for name, count in sorted(seen.stages.items()))]
    rows += [("after the kill", ""), *((f"  {name}", count) for name, count in sorted(seen.effects.items()))]
    rows += [("  pending links were healed", seen.healed), ("  temporary files were left, and swept", seen.swept)]
    rows += [("faults found", 0), ("the long-lived store", f"{events} events, {tags} tags")]
    total = sum(seen.kills.values())
    rows += [("seconds", f"{lasted:.1f}"), ("  a check of a store, ms", f"{seen.checking / total * 1000:.0f}")]
    rows += [("  an import after a kill, ms", f"{seen.again / total * 1000:.0f}"), ("seed", seed)]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name.ljust(width)}  {value}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=20261124)
    parser.add_argument("--folder", type=Path, help="where the stores lie (default: in memory, where that is possible)")
    given = parser.parse_args()
    if given.folder is None:
        with in_memory() as folder:
            storm(given.kills, given.seed, folder)
    else:
        with tempfile.TemporaryDirectory(prefix="crash-storm-", dir=given.folder) as name:
            storm(given.kills, given.seed, Path(name))


if __name__ == "__main__":
    main()
