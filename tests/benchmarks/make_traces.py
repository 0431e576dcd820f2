"""CTS trace files of realistic shape, as many as wanted: what the benchmarks and the tests of bulk reading are fed with.

    python tests/benchmarks/make_traces.py FOLDER [--traces 500000] [--seed 1]

100 files per 500,000 traces, spread over two weeks, keys as in a bucket, gzip, one array each, `user` a JSON string. All 32
events of the guide's catalog, the three ratings (of 100 traces 94 normal, 5 warning, 1 incident), 1 in 100 late by a day, 1 in
200 delivered twice. No SWR trace was ever published, so the shape goes by analogy with the official samples of other services.
The same arguments give the same files, byte for byte, whatever the number of processes.

Only the standard library is imported here, so that a benchmark may call it before it measures memory.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
PER_FILE: Final = 5_000
DAYS: Final = 14
START: Final = datetime(2026, 3, 1, tzinfo=UTC)
REGION: Final = "cn-north-4"
PROJECT: Final = "07066c6fc90025a02f6dc01e105b286e"
ACCOUNT: Final = "7e0d78c8536f4d07a3c1d7d0b9b7cba1"
DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Event:
    """An event of the guide's catalog."""

    name: str
    resource_type: str
    weight: int


def events() -> list[Event]:
    """The 32 events; uploads are by far the most."""
    often = {"uploadImagePackage": 60, "createDockerConfig": 20, "deleteImageTag": 12, "updateImageRepository": 6}
    with (ROOT / "schemas" / "cts-catalog-guide_2020.tsv").open(encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f, delimiter="\t"))
    return [Event(row["trace_name"], row["resource_type"], often.get(row["trace_name"], 2)) for row in rows]


def traces(number: int, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """The traces of file `number`, in the order of their times, but for the late and the repeated ones."""
    rng = random.Random(f"{seed}/{number}")
    kinds = events()
    weights = [event.weight for event in kinds]
    begun = _begin(number)
    made: list[dict[str, Any]] = []
    for position in range(count):
        if made and rng.random() < 0.005:
            yield rng.choice(made[-200:])
            continue
        moment = begun + position * 40 + rng.randrange(40) - (DAY_MS if rng.random() < 0.01 else 0)
        value = _trace(rng, rng.choices(kinds, weights)[0], moment)
        made.append(value)
        yield value


def _begin(number: int) -> int:
    """The time of the first trace of a file, ms UTC: files go round the days, those of a day follow each other."""
    day, turn = number % DAYS, number // DAYS
    return int((START + timedelta(days=day, seconds=turn * 211 % 80_000)).timestamp()) * 1000


def _trace(rng: random.Random, event: Event, moment: int) -> dict[str, Any]:
    rating = rng.choices(("normal", "warning", "incident"), (94, 5, 1))[0]
    user = rng.randrange(400)
    organization = f"team-{rng.randrange(40)}"
    repository = f"{organization}/service-{rng.randrange(600)}"
    tag = f"{rng.randrange(1, 9)}.{rng.randrange(40)}.{rng.randrange(1000)}"
    name = {"usernamespace": organization, "image": f"{repository}:{tag}", "imagetag": f"{repository}:{tag}"}.get(
        event.resource_type, repository
    )
    digest = f"sha256:{rng.getrandbits(256):064x}"
    failed = rating != "normal"
    return {
        "trace_id": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        "trace_name": event.name,
        "resource_type": event.resource_type,
        "trace_rating": rating,
        "api_version": "v2",
        "source_ip": f"10.{user % 12}.{user % 250}.{rng.randrange(1, 9)}",
        "domain_id": ACCOUNT,
        "trace_type": rng.choice(("ApiCall", "ConsoleAction")),
        "service_type": "SWR",
        "event_type": "system",
        "project_id": PROJECT,
        "read_only": False,
        "tracker_name": "system",
        "resource_account_id": ACCOUNT,
        "time": moment,
        "record_time": moment + rng.randrange(3000),
        "resource_name": name,
        "resource_id": digest if event.resource_type.startswith("image") else name,
        "user": json.dumps(
            {
                "name": f"user-{user:03}",
                "id": f"{user:032x}",
                "domain": {"name": "example-account", "id": ACCOUNT},
            },
            separators=(",", ":"),
        ),
        "request": json.dumps({"namespace": organization, "repository": repository, "tag": tag}, separators=(",", ":")),
        "response": json.dumps({"error": "denied"} if failed else {"digest": digest}, separators=(",", ":")),
        "code": "403" if failed else "200",
        "request_id": f"{rng.getrandbits(128):032x}",
    }


def key(number: int, count: int) -> str:
    """The file's key: uploaded some minutes after its last trace."""
    uploaded = datetime.fromtimestamp(_begin(number) / 1000 + count * 0.04 + 120, tz=UTC)
    folder = f"CloudTraces/{REGION}/{uploaded:%Y/%-m/%-d}/system/SWR"
    return f"{folder}/bench_CloudTrace_{REGION}_{uploaded:%Y-%m-%dT%H-%M-%SZ}_{number:016x}.json.gz"


def write_file(number: int, count: int, *, folder: Path, seed: int) -> int:
    """Write file `number` below `folder`; the bytes of JSON in it."""
    path = folder / key(number, count)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = json.dumps(list(traces(number, count, seed)), separators=(",", ":")).encode()
    path.write_bytes(gzip.compress(data, 6, mtime=0))
    return len(data)


def make(folder: Path, count: int, seed: int = 1) -> int:
    """Write `count` traces into files below `folder`; the bytes of JSON in them."""
    sizes = [min(PER_FILE, count - first) for first in range(0, count, PER_FILE)]
    with ProcessPoolExecutor() as pool:
        return sum(pool.map(partial(write_file, folder=folder, seed=seed), range(len(sizes)), sizes))


def main() -> None:
    parser = argparse.ArgumentParser(description="Make CTS trace files of realistic shape.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--traces", type=int, default=500_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    size = make(given.folder, given.traces, given.seed)
    print(f"{given.traces} traces, {size / 1e6:.0f} MB of JSON below {given.folder}")


if __name__ == "__main__":
    main()
