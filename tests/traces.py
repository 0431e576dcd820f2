"""CTS traces and trace files for the tests, and what a dataset holds.

No SWR trace was ever published: `trace()` goes by analogy with the official samples of other services (ECS, EVS and OBS, 2024),
with the names of the guide's catalog.

    python tests/traces.py    makes fixtures/cts/swr anew
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
SAMPLES: Final = ROOT / "fixtures" / "cts" / "samples"
SWR: Final = ROOT / "fixtures" / "cts" / "swr"
REGION: Final = "cn-north-4"
PROJECT: Final = "07066c6fc90025a02f6dc01e105b286e"
ACCOUNT: Final = "7e0d78c8536f4d07a3c1d7d0b9b7cba1"
NOON: Final = 1_718_798_400_000  # 2024-06-19T12:00:00Z
NOW: Final = 1_719_000_000_000  # 2024-06-21T20:00:00Z
HOUR: Final = 3_600_000
DAY: Final = 24 * HOUR

USER: Final = {"name": "anna", "id": "f36972ced1ce4b5d9d3b0c04d619f121", "domain": {"name": "example", "id": ACCOUNT}}


def trace(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A trace of an upload as it stands in a file of a bucket; `changes` replace keys, `...` (Ellipsis) leaves one out."""
    name = f"team/service:{number}"
    value = {
        "trace_id": f"{number:08x}-2e03-11ef-82de-cf140e2a70fb",
        "trace_name": "uploadImagePackage",
        "resource_type": "image",
        "trace_rating": "normal",
        "api_version": "v2",
        "source_ip": "10.0.0.1",
        "domain_id": ACCOUNT,
        "trace_type": "ApiCall",
        "service_type": "SWR",
        "event_type": "system",
        "project_id": PROJECT,
        "read_only": False,
        "tracker_name": "system",
        "resource_account_id": ACCOUNT,
        "time": NOON + number,
        "record_time": NOON + number + 50,
        "resource_name": name,
        "resource_id": name,
        "user": json.dumps(USER, separators=(",", ":")),
        "request": f'{{"namespace":"team","tag":"{number}"}}',
        "response": f'{{"digest":"sha256:{number:064x}"}}',
        "code": 200,
        "request_id": f"{number:032x}",
        **changes,
    }
    return {key: each for key, each in value.items() if each is not ...}


def traces(count: int, first: int = 0, **changes: Any) -> list[dict[str, Any]]:
    """`count` different traces."""
    return [trace(number, **changes) for number in range(first, first + count)]


def array(values: Iterable[Any]) -> bytes:
    """A file's JSON as CTS writes it."""
    return json.dumps(list(values), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def lines(values: Iterable[Any]) -> bytes:
    """JSON lines."""
    return b"".join(json.dumps(value, ensure_ascii=False).encode() + b"\n" for value in values)


def obs(values: Iterable[Any]) -> bytes:
    """A whole file as it lies in a bucket."""
    return gzip.compress(array(values), mtime=0)


def key(
    uploaded: int = NOON + HOUR,
    *,
    prefix: str = "mylog",
    region: str = REGION,
    service: str = "SWR/",
    where: str = "",
    unique: str = "0faa86bc40071242",
    suffix: str = ".json.gz",
    padded: bool = False,
) -> str:
    """The key of a file in a bucket. `where`: region or region-project of its name; `padded`: 2023/08/30, not 2023/8/30."""
    moment = datetime.fromtimestamp(uploaded / 1000, tz=UTC)
    day = f"{moment:%Y/%m/%d}" if padded else f"{moment:%Y/%-m/%-d}"
    name = f"{prefix}_CloudTrace_{where or region}_{moment:%Y-%m-%dT%H-%M-%SZ}_{unique}{suffix}"
    return f"CloudTraces/{region}/{day}/system/{service}{name}"


def write(path: Path, data: bytes) -> Path:
    """A file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def rows_of(dataset: Any) -> list[dict[str, Any]]:
    """All rows of a dataset as its manifest has it, by source file and position; each with `day`, where it lies."""
    import pyarrow.parquet as pq

    from swrbatch.audit.dataset import Dataset

    found = []
    for part in Dataset(dataset.path).manifest.parts:
        table = pq.read_table(Path(dataset.path) / part.path, use_threads=False, partitioning=None)
        assert table.num_rows == part.rows
        found += [{**row, "day": part.day} for row in table.to_pylist()]
    return sorted(found, key=lambda row: (row["source_file"], row["source_position"]))


def rejects_of(dataset: Any) -> list[dict[str, Any]]:
    """All rejected records of a dataset."""
    import pyarrow.parquet as pq

    return [row for path in dataset.side_files("rejects") for row in pq.read_table(path, use_threads=False).to_pylist()]


def plain(row: Any) -> dict[str, Any]:
    """A `TraceRow` as a row of a dataset has it, without `day`."""
    value = asdict(row)
    for name in ("time", "record_time", "uploaded"):
        value[name] = None if value[name] is None else _moment(value[name])
    return {**value, "flags": list(value["flags"]), "violations": list(value["violations"])}


def _moment(ms: int) -> datetime:
    from datetime import timedelta

    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)


# --- fixtures ----------------------------------------------------------------------------------------------------------


def catalog_traces() -> list[dict[str, Any]]:
    """One trace of each event of the guide's catalog, a minute apart; every tenth failed."""
    with (ROOT / "schemas" / "cts-catalog-guide_2020.tsv").open(encoding="utf-8", newline="") as f:
        events = list(csv.DictReader(f, delimiter="\t"))
    made = []
    for number, event in enumerate(events):
        kind = event["resource_type"]
        name = {"image": "team/service:1.0", "imagetag": "team/service:1.0", "usernamespace": "team"}.get(kind, "team/service")
        moment = NOON + number * 60_000
        failed: dict[str, Any] = {"trace_rating": "warning", "code": 403, "response": '{"errorCode":"SVCSTG.SWR.4030000"}'}
        made.append(
            trace(
                number,
                trace_name=event["trace_name"],
                resource_type=kind,
                resource_name=name,
                resource_id=name,
                time=moment,
                record_time=moment + 800,
                **(failed if number % 10 == 9 else {}),
            )
        )
    return made


def digest_file(name: str, files: Sequence[tuple[str, bytes]], end: int) -> dict[str, Any]:
    """An hourly digest file, the first of its chain, that vouches for `files` (key, bytes)."""
    moments = [f"{datetime.fromtimestamp(ms / 1000, tz=UTC):%Y-%m-%dT%H-%M-%SZ}" for ms in (end - HOUR, end)]
    return {
        "project_id": PROJECT,
        "digest_start_time": moments[0],
        "digest_end_time": moments[1],
        "digest_bucket": "bucket",
        "digest_object": name,
        "digest_signature_algorithm": "SHA256withRSA",
        "digest_end": False,
        "previous_digest_bucket": None,
        "previous_digest_object": None,
        "previous_digest_hash_value": None,
        "previous_digest_hash_algorithm": None,
        "previous_digest_signature": None,
        "previous_digest_end": None,
        "log_files": [
            {
                "bucket": "bucket",
                "object": object_,
                "log_hash_value": hashlib.md5(data, usedforsecurity=False).hexdigest(),
                "log_hash_algorithm": "MD5",
            }
            for object_, data in files
        ],
    }


def make_fixtures(folder: Path) -> None:
    """A bucket's content: all 32 events; one of them again and one that is late, a day on; the digest of the first hour."""
    shutil.rmtree(folder, ignore_errors=True)
    first, second = key(NOON + HOUR - 1000), key(NOON + DAY, padded=True, unique="6f2cd06722f24250")
    events = catalog_traces()
    late = trace(
        100, time=NOON + 2 * HOUR, record_time=NOON + 2 * HOUR + 100, trace_name="deleteImageTag", resource_type="imagetag"
    )
    for name, values in ((first, events), (second, [events[0], late])):
        write(folder / name, obs(values))
    digest = f"CloudTraces/{REGION}/2024/6/19/system/Digest/SWR/mylog_CloudTrace-Digest_{REGION}_2024-06-19T13-00-00Z.json.gz"
    value = digest_file(digest, [(first, obs(events))], NOON + HOUR)
    write(folder / digest, gzip.compress(json.dumps(value).encode(), mtime=0))


if __name__ == "__main__":
    make_fixtures(SWR)
