"""A made-up fortnight of one account, as CTS would deliver it: trace files and hourly digest files in a bucket's layout.

No SWR trace was ever published: requests have the shape of SWR's API, the rest goes by analogy with the official samples of other
services. The world has everything that a report tells of: all 32 events of the guide's catalog, the three ratings, refusals with
their codes, grants and shares with and without a before, late, duplicate, contradictory and unreadable records, events that no
catalog knows, texts that a spreadsheet or a browser would run, and digest files that prove hours whole, prove a gap, or are gone.
The same call writes the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from swrbatch.audit.dataset import Dataset
from swrbatch.audit.ingest import ingest
from swrbatch.cts import catalog

START = datetime(2026, 3, 2, tzinfo=UTC)
DAYS = 14
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
BEGIN_MS = int(START.timestamp()) * 1000
END_MS = BEGIN_MS + DAYS * DAY_MS
NOW_MS = END_MS + 10 * HOUR_MS
REGION = "cn-north-4"
ACCOUNT = "example-account"
PEOPLE = ("anna", "ben", "ci-bot", "王芳")
FORMULA = "=HYPERLINK(1)"
SCRIPT = "team-a/<script>alert(1)</script>:v1"


@dataclass(frozen=True)
class World:
    """What was written below `folder`: the traces that can be read (each delivered once), and special ones among them."""

    folder: Path
    traces: list[dict[str, Any]]
    rejected: int
    repeated: int

    def dataset(self, path: Path) -> Dataset:
        """The world, ingested."""
        dataset = Dataset(path, create=True)
        ingest([str(self.folder)], dataset, now=NOW_MS)
        return dataset


class _Maker:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.traces: list[dict[str, Any]] = []

    def add(self, day: float, name: str, resource: str, *, rating: str = "normal", user: str | None = None, **more: Any) -> None:
        """A trace at `day` (days after the start, a fraction of them the time)."""
        rng = self.rng
        moment = BEGIN_MS + int(day * DAY_MS)
        who = user or rng.choice(PEOPLE)
        entry = catalog().get(name)
        failed = rating != "normal"
        value = {
            "trace_id": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
            "trace_name": name,
            "trace_rating": rating,
            "trace_type": "ApiCall" if who == "ci-bot" else "ConsoleAction",
            "service_type": "SWR",
            "resource_type": entry.resource_type if entry else "imagesync",
            "event_type": "system",
            "tracker_name": "system",
            "time": moment,
            "record_time": moment + rng.randrange(2000),
            "resource_name": resource,
            "resource_id": "",
            "source_ip": {"anna": "10.1.0.11", "ben": "10.1.0.12", "ci-bot": "10.2.0.5"}.get(who, "192.0.2.7"),
            "user": json.dumps({"id": f"id-{who}", "name": who, "domain": {"id": "d-1", "name": ACCOUNT}}, ensure_ascii=False),
            "code": "403" if failed else "200",
            "request": "",
            "response": json.dumps({"errors": [{"errorCode": "SVCSTG.SWR.4030000", "errorMessage": "denied"}]}) if failed else "",
        }
        for key in ("request", "response"):
            if isinstance(more.get(key), dict | list):
                more[key] = json.dumps(more[key], ensure_ascii=False)
        self.traces.append(value | more)


def make_traces(seed: int = 7) -> list[dict[str, Any]]:
    """The traces, in the order of their times."""
    make = _Maker(seed)
    _work(make)
    _access(make)
    _strange(make)
    return sorted(make.traces, key=lambda trace: (trace["time"], trace["trace_id"]))


def _work(make: _Maker) -> None:
    """The daily work, and each event of the catalog at least once."""
    rng = make.rng
    for day in range(DAYS):
        busy = 60 if day % 7 < 5 else 8
        for _ in range(busy + rng.randrange(12)):
            hour = rng.choice((1, 2, 2, 3, 3, 4, 6, 6, 7, 7, 8, 9, 10, 13)) + rng.random()
            repository = f"team-{rng.choice('aab')}/service-{rng.randrange(9)}"
            tag = f"{repository}:1.{rng.randrange(30)}"
            failed = rng.choices(("normal", "warning"), (94, 6))[0]
            name, resource = rng.choices(
                (("uploadImagePackage", tag), ("createDockerConfig", "login"), ("deleteImageTag", tag)), (12, 4, 2)
            )[0]
            make.add(day + hour / 24, name, resource, rating=failed, request={"namespace": repository.split("/")[0]})
    for position, name in enumerate(catalog()):
        if name.endswith(("Auth", "AccessDomain", "ImageRepository")):
            continue
        make.add(6 + position / 10, name, "team-b" if "Namespace" in name else "team-b/service-1")
    make.add(
        6.61,
        "deleteImageRepository",
        "team-a/service-8",
        rating="incident",
        user="ben",
        code="500",
        response="",
        message="disk failure",
    )


def _access(make: _Maker) -> None:
    """Who may use what, and how that changed."""
    org, repo = "team-a", "team-a/service-1"
    add = make.add
    grant = {"user_id": "id-ben", "user_name": "ben"}
    add(0.31, "createUserNamespaceAuth", org, user="anna", request=[{**grant, "auth": 1}, {"user_name": "ci-bot", "auth": 3}])
    add(3.32, "updateUserNamespaceAuth", org, user="anna", request=[{**grant, "auth": 7}])
    add(5.33, "updateUserNamespaceAuth", org, user="ben", rating="warning", request=[{"user_name": "mallory", "auth": 7}])
    add(9.30, "deleteUserNamespaceAuth", org, user="anna", request=["id-ben"])
    add(1.35, "createUserRepositoryAuth", repo, user="anna", request=[{"user_name": "王芳", "auth": 3}])
    add(
        4.35,
        "updateUserRepositoryAuth",
        repo,
        user="anna",
        request={"user_name": "王芳", "auth": 1},
        response={"before": {"auth": 3}, "after": {"auth": 1}},
    )
    add(8.35, "deleteUserRepositoryAuth", repo, user="anna", request={"user_name": "王芳"})
    share = {"namespace": "team-a", "repository": "service-1", "permit": "read"}
    add(
        2.4,
        "createImageRepositoryAccessDomain",
        "service-1",
        user="anna",
        request={**share, "access_domain": "partner-1", "deadline": "forever"},
    )
    add(
        2.5,
        "createImageRepositoryAccessDomain",
        repo,
        user="anna",
        request={**share, "access_domain": "partner-2", "deadline": "2026-03-10T00:00:00Z"},
    )
    add(
        2.6,
        "createImageRepositoryAccessDomain",
        repo,
        user="anna",
        request={**share, "access_domain": "partner-3", "deadline": "2026-03-12T00:00:00Z"},
    )
    add(
        7.4,
        "updateImageRepositoryAccessDomain",
        repo,
        user="anna",
        request={**share, "access_domain": "partner-3", "deadline": "2026-12-31T00:00:00Z"},
    )
    add(
        2.7,
        "createImageRepositoryAccessDomain",
        repo,
        user="anna",
        request={**share, "access_domain": "partner-4", "deadline": "forever"},
    )
    add(7.5, "deleteImageRepositoryAccessDomain", repo, user="anna", request={**share, "access_domain": "partner-4"})
    add(0.2, "createImageRepository", "team-a/service-1", user="anna", request={"is_public": False})
    add(1.2, "updateImageRepository", "team-a/service-2", user="ben", request={"is_public": True, "category": "linux"})
    add(1.3, "updateImageRepository", "team-a/service-3", user="ben", request={"is_public": True})
    add(5.3, "updateImageRepository", "team-a/service-3", user="anna", request={"is_public": False})
    add(6.4, "updateImageRepository", "team-a/service-4", user="anna", request={"description": "no change of visibility"})
    add(1.4, "createImageRepository", "team-b/open", user="ben", request={"is_public": True})
    add(11.4, "deleteImageRepository", "team-b/open", user="ben")


def _strange(make: _Maker) -> None:
    """What a report warns of."""
    make.add(4.11, "syncImage", "team-a/service-1:1.0", user="ci-bot")
    make.add(4.12, "syncImage", "team-a/service-2:1.0", user="ci-bot")
    make.add(4.13, "createTrigger", "team-a/service-1", resource_type="imagetrigger")
    make.add(4.14, "deleteUserNamespace", "team-old", user="anna", resource_type="usernamespace")
    make.add(
        9.45,
        "uploadImagePackage",
        SCRIPT,
        user=FORMULA,
        rating="warning",
        code="400",
        response={"codes": ["repository-invalid", "tag-invalid"]},
        message="+1 to this",
    )
    make.add(9.46, "uploadImagePackage", "team-a/service-1:9", user=None, trace_type="SystemAction")
    make.traces[-1]["user"] = None
    make.add(10.5, "createServer", "vm-1", service_type="ECS", resource_type="server")


SLOT_MS = 4 * HOUR_MS
DELAY_MS = 2 * 60_000


def write(folder: Path, *, seed: int = 7) -> World:
    """Write the world below `folder`: a trace file every four hours, digest files of the days 3 and 4."""
    uploads: dict[int, list[dict[str, Any]]] = {}
    for trace in make_traces(seed):
        # The last file of a day is uploaded after midnight: its events are late.
        uploads.setdefault((trace["time"] - BEGIN_MS) // SLOT_MS + 1, []).append(trace)
    kept = {slot: list(group) for slot, group in uploads.items()}
    # One delivered twice, one with another content, one that nobody can read, and a file that got lost.
    repeated = uploads[8][0]
    uploads[9].append(repeated)
    contradicting = {**uploads[20][0], "code": "404", "trace_rating": "warning"}
    uploads[21].append(contradicting)
    kept[21].append(contradicting)
    files: dict[int, tuple[str, bytes]] = {}
    for slot, group in sorted(uploads.items()):
        moment = BEGIN_MS + slot * SLOT_MS + DELAY_MS
        text = json.dumps(group, ensure_ascii=False)
        if slot == 31:
            text = text[:-1] + ', {"trace_id": broken}]'
        key = _key(moment, "CloudTrace", hashlib.sha256(text.encode()).hexdigest()[:16])
        files[moment] = (key, gzip.compress(text.encode(), mtime=0))
    lost = BEGIN_MS + 22 * SLOT_MS + DELAY_MS
    del kept[22]
    for moment, (key, data) in files.items():
        if moment != lost:
            _put(folder, key, data)
    _digests(folder, files)
    return World(folder=folder, traces=[t for group in kept.values() for t in group], rejected=1, repeated=1)


def _digests(folder: Path, files: dict[int, tuple[str, bytes]]) -> None:
    """Hourly digest files of days 3 and 4, one of them lost; each names the trace files of its hour and the digest before it."""
    previous: tuple[str, bytes] | None = None
    begin = BEGIN_MS + 2 * DAY_MS
    for hour in range(2 * 24):
        start, end = begin + hour * HOUR_MS, begin + (hour + 1) * HOUR_MS
        key = _key(end, "CloudTrace-Digest", "")
        listed = [found for moment, found in sorted(files.items()) if start < moment <= end]
        value = {
            "project_id": "p-1",
            "digest_start_time": _stamp(start),
            "digest_end_time": _stamp(end),
            "digest_bucket": "bucket",
            "digest_object": key,
            "digest_signature_algorithm": "SHA256withRSA",
            "digest_end": False,
            "previous_digest_bucket": "bucket",
            "previous_digest_object": previous[0] if previous else "",
            "previous_digest_hash_value": _md5(previous[1]) if previous else "",
            "previous_digest_hash_algorithm": "MD5",
            "previous_digest_signature": "",
            "previous_digest_end": False,
            "log_files": [
                {"bucket": "bucket", "object": name, "log_hash_value": _md5(data), "log_hash_algorithm": "MD5"}
                for name, data in listed
            ],
        }
        previous = (key, gzip.compress(json.dumps(value).encode(), mtime=0))
        if hour != 12:
            _put(folder, *previous)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _stamp(ms: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)).strftime("%Y-%m-%dT%H-%M-%SZ")


def _key(ms: int, kind: str, unique: str) -> str:
    moment = datetime.fromtimestamp(ms / 1000, tz=UTC)
    middle = "Digest/SWR" if kind.endswith("Digest") else "SWR"
    name = f"log_{kind}_{REGION}_{_stamp(ms)}{unique and '_' + unique}.json.gz"
    return f"CloudTraces/{REGION}/{moment:%Y/%-m/%-d}/system/{middle}/{name}"


def _put(folder: Path, key: str, data: bytes) -> None:
    path = folder / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def named(traces: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The traces of an event."""
    return [trace for trace in traces if trace["trace_name"] == name]
