"""Commands on a store with 200 organizations, 20,000 repositories, 200,000 tags and 100,000 grants, against a nearly empty one.

Both have `org000/repo000` with as many tags and grants, so that a page has as many rows in both. The large store is filled by
SQL: its rows are what 200,000 loads would have left. Its link files are made for the last line only, `gc --dry-run` against a
plain walk of the same tree by Python (a million folders, about 4 GB of them).
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from bench import ROOT, SWRBATCH, Report, folders, options, pairs, ratio_row, run

sys.path.insert(0, str(ROOT / "tests"))
from imagetar import Image, Layer, skopeo

MOST = 1.5
ORGANIZATIONS, REPOSITORIES, TAGS, GRANTS = 200, 100, 10, 5
"""Organizations; repositories in each; tags in each of those; grants on each."""
HOST = "registry.example.com"
WHO = ("--user", "root", "--account", "default")


def archive(folder: Path, number: int) -> Path:
    """A small archive, different for each number."""
    path = folder / f"{number}.tar"
    layer = Layer.of({"etc/number": f"{number}\n".encode() * 100})
    path.write_bytes(skopeo(Image(layers=(layer,), tags=(f"{HOST}/org000/repo000:n{number}",))))
    return path


def fill(ledger: Path, organizations: int, repositories: int) -> None:
    """More of everything: copies of the one tag that is there, and grants on each repository."""
    with sqlite3.connect(ledger) as connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(tags)")]
        first = dict(zip(names, connection.execute("SELECT * FROM tags").fetchone(), strict=True))
        (owner,) = connection.execute("SELECT account_id FROM organizations").fetchone()
        made = [(number + 1, f"org{number:03}", owner, f"user{number}", 0) for number in range(1, organizations)]
        connection.executemany("INSERT INTO organizations VALUES (?, ?, ?, ?, ?)", made)
        ids = [(org, repo) for org in range(organizations) for repo in range(repositories)]
        made_repositories = [(n + 1, org + 1, f"repo{repo:03}", n % 50 == 7, 0) for n, (org, repo) in enumerate(ids) if n]
        columns = "id, organization_id, name, is_public, created_ms"
        connection.executemany(f"INSERT INTO repositories ({columns}) VALUES (?, ?, ?, ?, ?)", made_repositories)

        def tags() -> Iterator[tuple[object, ...]]:
            for number in range(1, len(ids) * TAGS):
                values = {**first, "id": number + 1, "repository_id": number // TAGS + 1, "tag": f"t{number % TAGS}"}
                yield tuple(values.values())

        connection.executemany(f"INSERT INTO tags VALUES ({', '.join('?' * len(names))})", tags())
        grants = (
            (n + 1, "default", f"user{n % 997}-{who}", (1, 3, 7)[who % 3]) for n in range(len(ids)) for who in range(GRANTS)
        )
        connection.executemany("INSERT INTO repository_grants VALUES (?, ?, ?, ?)", grants)
        connection.executemany(
            "INSERT INTO organization_grants VALUES (?, 'default', 'reader', 1)", [(n + 1,) for n in range(organizations)]
        )
    connection.close()


def link(store: Path) -> None:
    """The link files of all tags, as loads would have left them."""
    base = store / "docker/registry/v2/repositories"
    (current,) = base.glob("org000/repo000/_manifests/tags/n0/current/link")
    digest = current.read_text()
    layers = [path.name for path in (base / "org000/repo000/_layers/sha256").iterdir()]
    for org in range(ORGANIZATIONS):
        for repo in range(REPOSITORIES):
            folder = base / f"org{org:03}/repo{repo:03}"
            links = {f"_layers/sha256/{name}/link": f"sha256:{name}" for name in layers}
            links[f"_manifests/revisions/sha256/{digest[7:]}/link"] = digest
            for tag in range(TAGS):
                for part in (f"index/sha256/{digest[7:]}", "current"):
                    links[f"_manifests/tags/t{tag}/{part}/link"] = digest
            for name, text in links.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)


WALK = (sys.executable, "-c", "import os, sys\nfor _ in os.walk(sys.argv[1]): pass")


def main() -> int:
    given = options(__doc__ or "", rounds=11)
    report = Report("Commands on a large store against a nearly empty one (seconds, whole process; less is better)")
    with folders(given.dir) as room:
        work = room.new()
        work.mkdir()
        stores = {"large": room.new(), "small": room.new()}
        for name, store in stores.items():
            run([*SWRBATCH, "import", archive(work, 0), "--store", store, *WHO])
            fill(store / "ledger.db", *((ORGANIZATIONS, REPOSITORIES) if name == "large" else (1, 60)))
        numbers = iter(range(1, 10_000))

        def command(store: Path, words: str, *who: str) -> float:
            return run([*SWRBATCH, *words.split(), "--store", store, *(who or WHO)]).wall

        def load(store: Path) -> float:
            return run([*SWRBATCH, "import", archive(work, next(numbers)), "--store", store, *WHO]).wall

        reader = ("--user", "reader", "--account", "default")
        measured: dict[str, Callable[[Path], float]] = {
            "repo list": partial(command, words="repo list"),
            "repo list of a user without rights of an administrator": lambda store: command(store, "repo list", *reader),
            "tag list": partial(command, words="tag list org000/repo000"),
            "permission check (repo show)": lambda store: command(store, "repo show org000/repo000", *reader),
            "import of one archive": load,
        }
        for what, seconds in measured.items():
            seconds(stores["large"]), seconds(stores["small"])
            a, b = pairs(partial(seconds, stores["large"]), partial(seconds, stores["small"]), given.rounds)
            report.add(ratio_row(what, a, b, MOST, at_most=True))
        link(stores["large"])
        tree = stores["large"] / "docker"
        a, b = pairs(
            lambda: command(stores["large"], "gc --dry-run --min-age 0"), lambda: run([*WALK, tree], sync=False).wall, rounds=2
        )
        report.add(ratio_row("gc --dry-run, against a plain walk of the tree", a, b, 3.0, at_most=True))
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())
