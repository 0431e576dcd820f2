"""A storm of kills: 500 imports end by SIGKILL, at a random write boundary or at a random moment; none may lose anything.

    python tests/benchmarks/crash_storm.py [--kills 500] [--seed 20261124] [--folder DIR]

Each child is forked from this process, which has everything loaded, and imports one to three archives with one or two workers:
some of a small set that share layers and tags, some made for the occasion, in the forms of five producers. Four times out of five
they go into one store that lives through the whole storm, else into a new one. Half of the children die at a write boundary (a
fault point, counted over all threads), half when a random time is over. After each kill:

* `verify --deep` has no issue, the links are the rows, the replay of the events gives the rows;
* every tag has the image that it had before, or one that the killed import was about to give it; no tag is gone;
* the same import, run again, completes, and all of that holds once more, with nothing left in the temporary folder.

Any failure ends the storm with the seed and the number of the kill. No peer is needed. It prints a table of figures.
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
from swrbatch import Store, faults, import_archives  # noqa: E402
from test_crash import KILLED, TEAM, check_sound, events_of, files_of, in_memory, join, spawn, temporaries, write  # noqa: E402

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


class Press:
    """Makes archives, and remembers which image each of them gives to which tag."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self._folder, self._rng, self._count = folder, rng, 0
        self._base = Layer.of({"base": rng.randbytes(50 << 10)})
        self._shared = [Layer.of({"shared": rng.randbytes(20 << 10)}) for _ in range(3)]
        self._images: dict[tuple[Path, str], str] = {}
        self.small_set = [self.make() for _ in range(12)]

    def make(self) -> Path:
        """An archive with a layer that none had before; it writes one to three tags that others write as well."""
        rng, self._count = self._rng, self._count + 1
        own = Layer.of({"own": rng.randbytes(rng.choices((100, 5_000, 50_000, 1_200_000), (30, 30, 38, 2))[0])})
        tags = (f"app:v{rng.randrange(4)}", f"own:v{self._count % 12}", "app:latest")[: rng.randrange(1, 4)]
        image = Image(layers=(self._base, rng.choice(self._shared), own), tags=tuple(f"{TEAM}/{tag}" for tag in tags))
        data = rng.choice(FORMS)(image)
        path = write(self._folder / f"{self._count}.tar", outer(data, "gzip") if rng.random() < 0.2 else data)
        self._images |= {(path, f"team/{tag}"): image.image_id for tag in tags}
        return path

    def pick(self) -> list[Path]:
        """One to three archives, some of the set, some new."""
        count, fresh = self._rng.randrange(1, 4), self._rng.randrange(0, 3)
        return [*self._rng.sample(self.small_set, count), *(self.make() for _ in range(fresh))][-count:]

    def images(self, picked: Sequence[Path], tag: str) -> set[str]:
        return {image_id for (path, name), image_id in self._images.items() if path in picked and name == tag}

    def forget(self, picked: Sequence[Path]) -> None:
        for path in set(picked) - set(self.small_set):
            path.unlink()


def run(archives: Sequence[Path], store: Path, jobs: int) -> None:
    assert import_archives(archives, store, jobs=jobs).exit_code == 0


def image_ids(store: Path) -> dict[str, str]:
    if not (store / "ledger.db").exists():
        return {}
    with Store(store) as opened:
        return {f"{row.organization}/{row.repository}:{row.tag}": row.image_id for row in opened.tag_rows()}


def one_kill(press: Press, store: Path, rng: random.Random, usual: list[tuple[int, float]], seen: Figures) -> bool:
    """One child, its death, and all checks; False when it was faster than its death."""
    picked = press.pick()
    jobs, by_point = rng.choice((1, 2)), rng.random() < 0.5
    points, seconds = usual[len(picked)]
    before = image_ids(store)
    witness = Witness()

    def child() -> None:
        witness.watch(rng.randrange(1, points + 1) if by_point else None)
        run(picked, store, jobs)

    begun = time.perf_counter()
    pid = spawn(child)
    if not by_point:
        time.sleep(rng.uniform(0, seconds))
        os.kill(pid, signal.SIGKILL)
    code = join(pid)
    assert code in (0, KILLED), f"the child ended with {code}"
    if code == KILLED:
        _, name = witness.seen()
        seen.kills["at a write boundary" if by_point else "at a random moment"] += 1
        seen.stages[stage(name)] += 1
        seen.boundaries.add(name)
    else:
        seen.outrun += 1
        usual[len(picked)] = witness.seen()[0], time.perf_counter() - begun

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
        assert after.get(tag) in (before.get(tag), *press.images(picked, tag)), tag
    for tag in after.keys() | final.keys():
        given = press.images(picked, tag)
        assert final.get(tag) in given if given else final.get(tag) == after.get(tag), tag
    assert before.keys() <= after.keys() <= final.keys()
    assert temporaries(store) == []
    press.forget(picked)
    if code == KILLED:
        effect = "nothing of it" if after == before else "all of it" if after == final else "a part of it (some archives)"
        seen.effects[effect + " was there"] += 1
    return code == KILLED


def measure(press: Press, folder: Path) -> list[tuple[int, float]]:
    """Points and seconds of an undisturbed import of 0, 1, 2 and 3 archives into a new store."""
    usual = [(1, 0.0)]
    for count in (1, 2, 3):
        witness = Witness()

        def child(count: int = count, witness: Witness = witness) -> None:
            witness.watch(None)
            run(press.small_set[-count:], folder / f"measured-{count}", 2)

        begun = time.perf_counter()
        assert join(spawn(child)) == 0
        usual.append((witness.seen()[0], time.perf_counter() - begun))
    return usual


def storm(kills: int, seed: int, folder: Path) -> None:
    rng = random.Random(seed)
    press = Press(folder, rng)
    usual = measure(press, folder)
    seen, long_lived = Figures(), folder / "long-lived"
    begun = time.perf_counter()
    tries = 0
    while (done := sum(seen.kills.values())) < kills:
        tries += 1
        fresh = rng.random() < 0.2
        store = folder / f"fresh-{tries}" if fresh else long_lived
        try:
            one_kill(press, store, random.Random(rng.getrandbits(64)), usual, seen)
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
    rows += [("imports that ended before their death", seen.outrun), ("different last boundaries", len(seen.boundaries))]
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
