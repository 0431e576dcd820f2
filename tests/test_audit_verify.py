"""`audit verify` and `audit prune`: what was changed, removed, inserted or put in another order is found, and said where.

The chain of a store's events; datasets and exports against their manifests; chains of digest files, CTS's (MD5) and ours.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import itertools
import json
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

import swrbatch.ledger
from imagetar import HELLO, TAG, Image, Layer, docker_legacy
from swrbatch import Store, StoreError, UsageError, import_archives
from swrbatch.audit.chains import DigestReport, verify_digests
from swrbatch.audit.dataset import Dataset
from swrbatch.audit.export import Form
from swrbatch.audit.ingest import ingest
from swrbatch.audit.prune import PruneResult, prune
from swrbatch.audit.reconcile import reconcile
from swrbatch.audit.signing import Signer, Verifier
from swrbatch.audit.verify import head_of, verify_chain_of, verify_dataset, verify_folder, verify_path
from swrbatch.cts import Actor
from swrbatch.ledger import Ledger
from swrbatch.ledger.events import chain_hash, replay, verify_chain
from swrbatch.ledger.events import events as events_table
from swrbatch.ledger.schema import HEAD, administrators
from swrbatch.verify import verify_store
from test_audit_export import HOUR, MINUTE, NOW, T0, add, cli, event, events_of, files_of, read_back, run, trail
from test_crash import fast_path, points_of

__all__ = ["fast_path"]
ROOT: Final = Path(__file__).resolve().parent.parent
ACTOR: Final = Actor("default", "auditor", "root", "host-1")

# --- the chain of a store's events -------------------------------------------------------------------------------------


def chain_problems(path: Path, expected: str | None = None) -> list[str]:
    with Store(path) as store:
        return verify_chain_of(store, expected)[0]


@contextlib.contextmanager
def tampering(path: Path) -> Iterator[sqlite3.Connection]:
    """The ledger's file in the hands of somebody who knows SQL."""
    connection = sqlite3.connect(path / "ledger.db")
    try:
        with connection:
            yield connection
    finally:
        connection.close()


def rehash(connection: sqlite3.Connection, first: int) -> None:
    """Compute the chain anew from an event on, as somebody would who knows how."""
    previous = connection.execute("SELECT hash FROM events WHERE seq = ?", (first - 1,)).fetchone()[0]
    for seq, text in connection.execute("SELECT seq, text FROM events WHERE seq >= ? ORDER BY seq", (first,)).fetchall():
        digest = chain_hash(previous, text)
        connection.execute("UPDATE events SET previous_hash = ?, hash = ? WHERE seq = ?", (previous, digest, seq))
        previous = digest


def _changed(c: sqlite3.Connection) -> None:
    c.execute("UPDATE events SET text = replace(text, 'v5', 'v6') WHERE seq = 5")


def _changed_and_hashed(c: sqlite3.Connection) -> None:
    """The event has its new hash; the next one gives it away."""
    previous, text = c.execute("SELECT previous_hash, replace(text, 'v5', 'v6') FROM events WHERE seq = 5").fetchone()
    c.execute("UPDATE events SET text = ?, hash = ? WHERE seq = 5", (text, chain_hash(previous, text)))


def _removed(c: sqlite3.Connection) -> None:
    c.execute("DELETE FROM events WHERE seq = 5")


def _removed_and_closed(c: sqlite3.Connection) -> None:
    """The numbers go on without a gap."""
    c.execute("DELETE FROM events WHERE seq = 5")
    c.execute("UPDATE events SET seq = -seq + 1 WHERE seq > 5")
    c.execute("UPDATE events SET seq = -seq WHERE seq < 0")


def _first_removed(c: sqlite3.Connection) -> None:
    c.execute("DELETE FROM events WHERE seq = 1")


def _inserted(c: sqlite3.Connection) -> None:
    """A whole event with a hash of its own, between two others."""
    c.execute("UPDATE events SET seq = -seq - 1 WHERE seq >= 5")
    c.execute("UPDATE events SET seq = -seq WHERE seq < 0")
    previous = c.execute("SELECT hash FROM events WHERE seq = 4").fetchone()[0]
    trace = event(77)
    text = trace.canonical()
    row = (5, trace.trace_id, trace.run_id, trace.record_time, trace.trace_name, text, previous, chain_hash(previous, text))
    c.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)


def _reordered(c: sqlite3.Connection) -> None:
    c.execute("UPDATE events SET seq = -5 WHERE seq = 5")
    c.execute("UPDATE events SET seq = 5 WHERE seq = 6")
    c.execute("UPDATE events SET seq = 6 WHERE seq = -5")


def _column(name: str, value: object) -> Callable[[sqlite3.Connection], None]:
    return lambda c: c.execute(f"UPDATE events SET {name} = ? WHERE seq = 5", (value,)) and None


def _text(text: str) -> Callable[[sqlite3.Connection], None]:
    def change(c: sqlite3.Connection) -> None:
        c.execute("UPDATE events SET text = ? WHERE seq = 5", (text,))
        rehash(c, 5)

    return change


@pytest.mark.parametrize(
    ("tamper", "first", "words"),
    [
        (_changed, 5, "it was changed: the hash does not fit its text"),
        (_changed_and_hashed, 6, "it does not follow event 5"),
        (_removed, 5, "it is not there, the next one is 6"),
        (_removed_and_closed, 5, "it does not follow event 4"),
        (_first_removed, 1, "it is not there, the next one is 2"),
        (_inserted, 6, "it does not follow event 5"),
        (_reordered, 5, "it does not follow event 4"),
        (_column("trace_id", "another"), 5, "trace_id is not what the text says"),
        (_column("run_id", "another"), 5, "run_id is not what the text says"),
        (_column("record_time", 1), 5, "record_time is not what the text says"),
        (_column("trace_name", "deleteFile"), 5, "trace_name is not what the text says"),
        (_column("hash", "0" * 64), 5, "it was changed"),
        (_column("previous_hash", "0" * 64), 5, "it does not follow event 4"),
        (_text("{"), 5, "its text cannot be read"),
        (_text("[]"), 5, "its text cannot be read"),
        (_text('{"trace_id": 5}'), 5, "its text cannot be read"),
        (_text("[" * 100_000), 5, "its text cannot be read"),
    ],
)
def test_the_first_bad_event_is_named(
    tamper: Callable[[sqlite3.Connection], None], first: int, words: str, tmp_path: Path
) -> None:
    store = trail(tmp_path / "store", 10)
    assert chain_problems(store) == []
    with tampering(store) as connection:
        tamper(connection)
    problems = chain_problems(store)
    assert len(problems) == 1 and f"breaks at sequence {first}: " in problems[0] and words in problems[0]
    code, out, _ = cli("audit", "verify", "--store", store)
    assert code == 1 and out.startswith("chain-broken events: ") and out.endswith("NOT sound\n")
    with Store(store) as opened:
        assert [issue.code for issue in verify_store(opened).issues][:1] == ["chain-broken"]


def test_an_upload_that_says_nothing_readable_is_named(tmp_path: Path) -> None:
    """A whole chain, computed anew, whose upload has no digest: replaying it finds that."""
    store = trail(tmp_path / "store", 10)
    with tampering(store) as connection:
        connection.execute("UPDATE events SET text = replace(text, '\\\"digest\\\"', '\\\"other\\\"') WHERE seq = 5")
        rehash(connection, 5)
    assert chain_problems(store) == []
    with Store(store) as opened:
        assert "breaks at sequence 5: its text cannot be read" in verify_store(opened).issues[0].message


def test_only_a_head_from_elsewhere_shows_a_cut_tail_or_a_new_chain(tmp_path: Path) -> None:
    store = trail(tmp_path / "store", 10)
    code, head, _ = cli("audit", "verify", "--store", store, "--print-head")
    assert code == 0
    head = head.strip()
    assert chain_problems(store, head) == []
    add(store, [event(11)])
    assert chain_problems(store, head) == []  # it grew since
    with tampering(store) as connection:
        connection.execute("DELETE FROM events WHERE seq > 8")
    assert chain_problems(store) == []
    assert chain_problems(store, head) == ["the chain ends at 8, the expected head is 10: its tail was cut off"]
    add(store, [event(12), event(13)])
    assert chain_problems(store) == []
    assert "the chain was computed anew" in chain_problems(store, head)[0]
    assert cli("audit", "verify", "--store", store, "--expect-head", head)[0] == 1
    for wrong in ("10", "10:abc", "x:" + "0" * 64):
        with pytest.raises(UsageError, match="a head is SEQ:HASH"):
            chain_problems(store, wrong)


def test_an_empty_chain_is_sound(tmp_path: Path) -> None:
    store = trail(tmp_path / "store", 0)
    assert chain_problems(store, f"0:{'0' * 64}") == []
    with Store(store) as opened:
        assert head_of(opened) == (0, "0" * 64)


_names = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=30)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(_names, _names, _names, st.sampled_from(["normal", "warning"]), st.booleans()), max_size=6))
def test_what_is_found_without_parsing_is_what_parsing_finds(parts: Sequence[tuple[str, str, str, Any, bool]]) -> None:
    """Names with quotes, backslashes, keys of their own: the quick way and the slow way say the same."""
    traces = []
    for number, (name, run_id, extra, rating, upload) in enumerate(parts, 1):
        changes: dict[str, Any] = {"resource_name": name, "run_id": run_id, "rating": rating, "message": extra}
        changes["request"] = {"trace_id": extra, "reference": f'{name}","resource_name":"x'}
        changes["trace_name"] = "uploadImagePackage" if upload else "downloadFile"
        traces.append(event(number, **changes))
    engine = sa.create_engine("sqlite://")
    want: dict[str, str] = {}
    for each in traces:
        replay(json.loads(each.canonical()), want)
    with engine.connect() as connection:
        events_table.metadata.create_all(connection)
        swrbatch.ledger.events.append_events(connection, traces)
        assert verify_chain(connection) == ([], want, len(traces))


# --- recording costs nothing of its own ----------------------------------------------------------------------------------


def _traffic(archive: Path, store: Path) -> tuple[Counter[str], list[set[str]]]:
    """What an import does to disk and ledger: its write boundaries by name, and the tables that each transaction writes."""
    transactions: list[set[str]] = []

    def started(connection: sa.Connection) -> None:
        connection.info["tables"] = set()

    def executed(connection: sa.Connection, _cursor: object, statement: str, *_: object) -> None:
        words = statement.split()
        if words[0] in ("INSERT", "UPDATE", "DELETE"):
            connection.info["tables"].add(words[2] if words[0] != "UPDATE" else words[1])

    def committed(connection: sa.Connection) -> None:
        if connection.info["tables"]:
            transactions.append(connection.info["tables"])

    listeners = (("begin", started), ("before_cursor_execute", executed), ("commit", committed))
    for name, listener in listeners:
        sa.event.listen(sa.Engine, name, listener)
    try:
        points = points_of(lambda: import_archives([archive], store, jobs=1))
    finally:
        for name, listener in listeners:
            sa.event.remove(sa.Engine, name, listener)
    return Counter(points), transactions


def test_recording_an_event_adds_no_transaction_and_no_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import with its events, and the same import that records none: as many commits, as many syncs, as many files."""
    first, second = tmp_path / "a.tar", tmp_path / "b.tar"
    first.write_bytes(docker_legacy(Image()))
    second.write_bytes(
        docker_legacy(Image(layers=(HELLO[0], Layer.of({"srv/new": b"x" * 999})), tags=(TAG.replace("team/hello", "new/it"),)))
    )
    import_archives([first], tmp_path / "with", jobs=1)
    shutil.copytree(tmp_path / "with", tmp_path / "without")
    points, transactions = _traffic(second, tmp_path / "with")
    recorded = len(events_of(tmp_path / "with")) - 3
    with monkeypatch.context() as patched:
        patched.setattr("swrbatch.store.append_events", lambda _connection, _traces: [])
        bare_points, bare = _traffic(second, tmp_path / "without")
    assert recorded == 3 and points == bare_points and points["ledger:commit:after"] > 0
    assert len(transactions) == len(bare)
    # The events stand in the transaction of the change that they tell of.
    assert [tables - {"events"} for tables in transactions] == bare
    assert [tables for tables in transactions if "events" in tables] == [
        tables for tables in transactions if "repositories" in tables
    ]


# --- datasets ----------------------------------------------------------------------------------------------------------


def dataset_findings(path: Path) -> list[tuple[str, str]]:
    return [(each.kind, each.name) for each in verify_dataset(Dataset(path))[0]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with events of two days, and its export as a dataset: `store`, `dataset`."""
    room = tmp_path_factory.mktemp("exported")
    trail(room / "store", 0)
    add(room / "store", [event(number) for number in (1, 2, 3, 2000, 2001)])
    run(room / "store", room / "dataset", "parquet")
    return room


@pytest.fixture
def dataset(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported / "dataset", tmp_path / "dataset"))


DAY: Final = "dt=2026-01-01/000001.parquet"
NEXT: Final = "dt=2026-01-02/000001.parquet"


def _rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    table = pq.read_table(path, use_threads=False)
    pq.write_table(change(table), path)


def _forge(dataset: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Change a part, and its SHA-256 in the manifest."""
    _rewrite(dataset / name, change)
    manifest = dataset / "_swrbatch/manifest.json"
    value = json.loads(manifest.read_text())
    part = next(part for part in value["parts"] if part["path"] == name)
    part["sha256"] = hashlib.sha256((dataset / name).read_bytes()).hexdigest()
    manifest.write_text(json.dumps(value))


def test_a_dataset_is_sound(dataset: Path) -> None:
    assert verify_dataset(Dataset(dataset)) == ([], 5)
    assert cli("audit", "verify", dataset)[:2] == (0, "2 parts, 5 rows: sound\n")


def test_a_missing_part(dataset: Path) -> None:
    (dataset / DAY).unlink()
    assert dataset_findings(dataset) == [("part-missing", DAY)]
    code, out, _ = cli("audit", "verify", dataset, "--format", "json")
    verdict = json.loads(out)
    assert (code, verdict["sound"], verdict["findings"][0]["kind"]) == (1, False, "part-missing")


def test_a_part_with_other_rows(dataset: Path) -> None:
    _rewrite(dataset / DAY, lambda table: table.slice(1))
    assert dataset_findings(dataset) == [("part-rows", DAY)]


def test_a_part_with_other_values(dataset: Path) -> None:
    """A whole Parquet file, with the same rows and days, in which somebody else did it."""
    names = pa.array(["nobody"])

    def other(table: Any) -> Any:
        index = table.schema.get_field_index("user_name")
        return table.set_column(index, table.schema.field(index), pa.chunked_array([names] * table.num_rows))

    _rewrite(dataset / DAY, other)
    assert dataset_findings(dataset) == [("part-changed", DAY)]
    manifest = dataset / "_swrbatch/manifest.json"
    value = json.loads(manifest.read_text())
    for part in value["parts"]:
        del part["sha256"]
    manifest.write_text(json.dumps(value))
    assert dataset_findings(dataset) == [], "a dataset of an old version has no digests"


def test_a_part_with_other_columns(dataset: Path) -> None:
    _rewrite(dataset / DAY, lambda table: table.drop_columns(["user_name"]))
    assert dataset_findings(dataset) == [("part-schema", DAY)]


def test_a_part_of_another_day(dataset: Path) -> None:
    shutil.copy(dataset / NEXT, dataset / DAY)
    assert [kind for kind, _ in dataset_findings(dataset)] == ["part-day", "part-rows"]


@pytest.mark.parametrize("column", ["trace_id", "time", "trace_name", "request"])
def test_a_flipped_bit_in_a_page(column: str, dataset: Path) -> None:
    with pq.ParquetFile(dataset / DAY) as file:
        chunk = file.metadata.row_group(0).column(file.schema_arrow.names.index(column))
    assert chunk.path_in_schema == column
    data = bytearray((dataset / DAY).read_bytes())
    begin = chunk.dictionary_page_offset or chunk.data_page_offset
    data[begin + chunk.total_compressed_size - 2] ^= 0x40  # in the last page
    (dataset / DAY).write_bytes(data)
    assert dataset_findings(dataset) == [("part-damaged", DAY)]


@pytest.mark.parametrize("keep", [0, 4, 1000])
def test_a_truncated_part(keep: int, dataset: Path) -> None:
    (dataset / DAY).write_bytes((dataset / DAY).read_bytes()[:keep])
    assert dataset_findings(dataset) == [("part-damaged", DAY)]


def test_an_id_that_is_there_twice(dataset: Path) -> None:
    manifest = dataset / "_swrbatch/manifest.json"
    value = json.loads(manifest.read_text())
    copy = "dt=2026-01-01/000009.parquet"
    shutil.copy(dataset / DAY, dataset / copy)
    part = next(part for part in value["parts"] if part["path"] == DAY)
    value["parts"].append({**part, "path": copy})
    manifest.write_text(json.dumps(value))
    assert [kind for kind, _ in dataset_findings(dataset)] == ["id-twice"] * 3


def test_another_content_under_a_known_id_is_flagged_and_no_fault(exported: Path, dataset: Path, tmp_path: Path) -> None:
    trace = next(iter(events_of(exported / "store").values()))
    (tmp_path / "other.json").write_text(json.dumps([{**trace, "resource_name": "team/other:v1"}]))
    result = ingest([str(tmp_path / "other.json")], Dataset(dataset), now=NOW)
    assert result.flags["duplicate-differs"] == 1
    assert dataset_findings(dataset) == []


def test_a_missing_side_file(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("[17]")
    ingest([str(tmp_path / "bad.json")], Dataset(dataset), now=NOW)
    for kind in ("inputs", "rejects"):
        for path in Dataset(dataset).side_files(kind):
            os.unlink(path)
    assert [kind for kind, _ in dataset_findings(dataset)] == ["file-missing", "file-missing"]


def test_a_dataset_against_the_store_that_it_came_from(exported: Path, dataset: Path) -> None:
    code, out, _ = cli("audit", "verify", dataset, "--store", exported / "store")
    assert (code, out) == (0, "2 parts, 5 rows: sound\n")

    def change(table: Any) -> Any:
        column = table.column("code").to_pylist()
        return table.set_column(table.schema.get_field_index("code"), table.schema.field("code"), [["999", *column[1:]]])

    _forge(dataset, DAY, change)
    assert dataset_findings(dataset) == []
    code, out, _ = cli("audit", "verify", dataset, "--store", exported / "store")
    assert code == 1 and out.startswith("event-differs 1: ")


# --- exports as files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["csv", "cts-api", "ocsf", "cts-obs"])
def test_an_export_against_its_manifest(form: Form, tmp_path: Path) -> None:
    store, dest = trail(tmp_path / "store", 7), tmp_path / "dest"
    run(store, dest, form)
    assert verify_folder(str(dest)) == ([], 7)
    assert cli("audit", "verify", dest, "--store", store)[0] == 0
    names = sorted(files_of(dest))
    for name in names:
        data = (dest / name).read_bytes()
        (dest / name).write_bytes(data + b" ")
        assert ("file-changed", name) in [(f.kind, f.name) for f in verify_path(str(dest)).findings]
        (dest / name).unlink()
        assert ("file-missing", name) in [(f.kind, f.name) for f in verify_path(str(dest)).findings]
        assert cli("audit", "verify", dest)[0] == 1
        (dest / name).write_bytes(data)
    assert verify_path(str(dest)).sound


def test_what_vouches_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "some.json").write_text("{}")
    assert cli("audit", "verify", tmp_path)[0] == 2
    for name in ("verify", "query", "reconcile"):
        assert cli("audit", name, tmp_path / "nowhere")[0] == 3
    assert cli("audit", "verify", tmp_path, "--print-head")[0] == 2
    assert cli("audit", "verify", "--store", tmp_path / "nowhere")[0] == 3


# --- chains of digest files --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Keys:
    """A key pair in files: PEM, and the public one in every form."""

    private: Path
    public: Path
    key: rsa.RSAPrivateKey = field(repr=False)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    room = tmp_path_factory.mktemp("keys")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    plain = serialization.NoEncryption()
    (room / "private.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    (room / "public.pem").write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, spki))
    return Keys(room / "private.pem", room / "public.pem", key)


@dataclass
class Bucket:
    """A bucket as CTS fills it, hour by hour; MD5 and RSA as its documentation says, by nothing of ours."""

    root: Path
    key: rsa.RSAPrivateKey
    service: str = "SWR"
    head: dict[str, str] = field(default_factory=dict)
    number: int = 0
    digests: list[Path] = field(default_factory=list)
    traces: list[list[Path]] = field(default_factory=list)

    def hour(self, files: int = 1, *, start: bool = False, end: bool = False) -> Bucket:
        base, at, until = "CloudTraces/eu-de", f"2017-03-28T{self.number:02}-09-17Z", f"2017-03-28T{self.number + 1:02}-09-17Z"
        day = "2017/3/28/system"
        listed, written = [], []
        for each in range(files):
            uploaded = f"2017-03-28T{self.number:02}-{20 + each}-00Z"
            name = f"{base}/{day}/{self.service}/log_CloudTrace_eu-de_{uploaded}_{each:016x}.json.gz"
            written.append(self._put(name, json.dumps([{"trace_id": f"{self.service}-{self.number}-{each}"}])))
            digest = hashlib.md5(written[-1].read_bytes()).hexdigest()
            listed.append({"bucket": "b", "object": name, "log_hash_value": digest, "log_hash_algorithm": "MD5"})
        name = f"{base}/{day}/Digest/{self.service}/log_CloudTrace-Digest_eu-de_{until}.json.gz"
        previous = {} if start else self.head
        value = {
            "project_id": "p",
            "digest_start_time": at,
            "digest_end_time": until,
            "digest_bucket": "b",
            "digest_object": name,
            "digest_signature_algorithm": "SHA256withRSA",
            "digest_end": end,
            "previous_digest_bucket": "b" if previous else None,
            "previous_digest_object": previous.get("object"),
            "previous_digest_hash_value": previous.get("hash"),
            "previous_digest_hash_algorithm": "MD5" if previous else None,
            "previous_digest_signature": previous.get("signature"),
            "previous_digest_end": False,
            "log_files": listed,
        }
        path = self._put(name, json.dumps(value))
        md5 = hashlib.md5(path.read_bytes()).hexdigest()
        text = until + name + md5 + previous.get("signature", "")
        signature = self.key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()).hex()
        self.head = {"object": name, "hash": md5, "signature": signature}
        self.number += 1
        self.digests.append(path)
        self.traces.append(written)
        return self

    def _put(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
        return path


@pytest.fixture
def bucket(keys: Keys, tmp_path: Path) -> Bucket:
    """Five hours, the third without a trace file."""
    made = Bucket(tmp_path / "bucket", keys.key)
    for files in (1, 2, 0, 1, 1):
        made.hour(files)
    return made


def look(bucket: Bucket | Path, keys: Keys | None = None, *signatures: str) -> DigestReport:
    verifier = Verifier(str(keys.public)) if keys is not None else None
    return verify_digests(str(bucket.root if isinstance(bucket, Bucket) else bucket), verifier, signatures)


def kinds(report: DigestReport) -> list[str]:
    return [each.kind for each in report.findings]


def test_a_downloaded_chain_verifies_all_but_its_head(bucket: Bucket, keys: Keys) -> None:
    report = look(bucket, keys)
    assert (report.digests, report.files, kinds(report)) == (5, 5, ["head-unsigned"])
    assert report.findings[0].name == bucket.head["object"] and not report.findings[0].problem
    assert [each.sound for each in report.windows] == [True] * 5
    assert look(bucket, keys, "00", bucket.head["signature"]).findings == ()
    (bucket.digests[-1].parent / (bucket.digests[-1].name + ".signature")).write_text(bucket.head["signature"] + "\n")
    assert look(bucket, keys).findings == ()
    assert kinds(look(bucket)) == ["signature-unchecked"]


@pytest.mark.parametrize("place", ["CloudTraces", "CloudTraces/eu-de/2017/3/28/system", "flat", "above"])
def test_a_part_of_the_bucket_will_do(place: str, bucket: Bucket, keys: Keys, tmp_path: Path) -> None:
    """The bucket itself, a folder of it, one above it, or everything downloaded into one folder."""
    root = {"flat": tmp_path / "flat", "above": tmp_path}.get(place, bucket.root / place)
    if place == "flat":
        root.mkdir()
        for path in [*bucket.digests, *itertools.chain(*bucket.traces)]:
            shutil.copy(path, root)
    report = look(root, keys)
    assert (report.digests, report.files, kinds(report)) == (5, 5, ["head-unsigned"])


def test_a_missing_digest_file_is_a_gap(bucket: Bucket, keys: Keys) -> None:
    bucket.digests[2].unlink()
    report = look(bucket, keys)
    assert kinds(report) == ["gap", "head-unsigned", "unsigned"]
    assert report.findings[0].name.endswith("03-09-17Z.json.gz") and report.findings[0].problem


def test_the_beginning_of_a_chain_may_be_elsewhere(bucket: Bucket, keys: Keys) -> None:
    bucket.digests[0].unlink()
    bucket.traces[0][0].unlink()
    report = look(bucket, keys)
    assert kinds(report) == ["begins-here", "head-unsigned"] and not any(each.problem for each in report.findings)


def test_a_changed_digest_file(bucket: Bucket, keys: Keys) -> None:
    value = json.loads(gzip.decompress(bucket.digests[1].read_bytes()))
    value["log_files"].pop()
    bucket.digests[1].write_bytes(gzip.compress(json.dumps(value).encode()))
    report = look(bucket, keys)
    # The file that it does not name any more is told, too.
    assert kinds(report) == ["digest-changed", "file-unlisted", "head-unsigned"]
    assert [each.sound for each in report.windows] == [True, False, True, True, True]


def test_a_digest_chain_that_was_hashed_anew_but_not_signed(bucket: Bucket, keys: Keys) -> None:
    """Whoever changes a trace file and all hashes after it lacks the key."""
    forged = Bucket(bucket.root, rsa.generate_private_key(public_exponent=65537, key_size=2048))
    forged.head = {}
    for files in (1, 2, 0, 1, 1):
        forged.hour(files)
    assert kinds(look(bucket)) == ["head-unsigned"]
    assert kinds(look(bucket, keys)) == ["signature-wrong"] * 4 + ["head-unsigned"]
    assert kinds(look(bucket, keys, forged.head["signature"])) == ["signature-wrong"] * 5


def test_a_signature_of_other_bytes(bucket: Bucket, keys: Keys) -> None:
    """The hash in the next digest file was adapted; the signature was not."""
    value = json.loads(gzip.decompress(bucket.digests[4].read_bytes()))
    changed = json.loads(gzip.decompress(bucket.digests[3].read_bytes())) | {"project_id": "q"}
    bucket.digests[3].write_bytes(gzip.compress(json.dumps(changed).encode()))
    value["previous_digest_hash_value"] = hashlib.md5(bucket.digests[3].read_bytes()).hexdigest()
    bucket.digests[4].write_bytes(gzip.compress(json.dumps(value).encode()))
    assert kinds(look(bucket, keys)) == ["signature-wrong", "head-unsigned"]


def test_trace_files_missing_changed_and_added(bucket: Bucket, keys: Keys) -> None:
    bucket.traces[0][0].unlink()
    bucket.traces[1][1].write_bytes(gzip.compress(b"[]"))
    added = bucket.traces[3][0].with_name("log_CloudTrace_eu-de_2017-03-28T03-40-00Z_00000000000000ff.json.gz")
    shutil.copy(bucket.traces[3][0], added)
    late = bucket.traces[3][0].with_name("log_CloudTrace_eu-de_2017-03-28T09-40-00Z_00000000000000ff.json.gz")
    shutil.copy(bucket.traces[3][0], late)
    report = look(bucket, keys)
    assert kinds(report) == ["file-changed", "file-missing", "file-unlisted", "head-unsigned", "not-covered"]
    names = {each.kind: each.name for each in report.findings}
    assert names["file-unlisted"].endswith(added.name) and names["not-covered"].endswith(late.name)
    assert [each.sound for each in report.windows] == [False, False, True, False, True]


def test_a_service_without_digest_files_is_not_covered(bucket: Bucket, keys: Keys) -> None:
    other = bucket.traces[0][0].parents[1] / "ECS" / bucket.traces[0][0].name
    other.parent.mkdir()
    shutil.copy(bucket.traces[0][0], other)
    assert kinds(look(bucket, keys)) == ["head-unsigned", "not-covered"]


def test_two_services_have_a_chain_each(bucket: Bucket, keys: Keys) -> None:
    other = Bucket(bucket.root, keys.key, service="ECS").hour().hour()
    report = look(bucket, keys)
    assert (report.digests, kinds(report)) == (7, ["head-unsigned", "head-unsigned"])
    other.digests[0].unlink()
    assert kinds(look(bucket, keys)) == ["begins-here", "head-unsigned", "head-unsigned", "not-covered"]


def test_a_chain_that_was_ended_and_begun_again(bucket: Bucket, keys: Keys) -> None:
    bucket.hour(end=True)
    bucket.number += 2  # two hours without verification
    bucket.hour(start=True)
    report = look(bucket, keys)
    assert "restarted" in kinds(report) and not any(each.problem for each in report.findings)


def test_a_chain_that_begins_anew_without_an_end(bucket: Bucket, keys: Keys) -> None:
    bucket.hour(start=True)
    assert kinds(look(bucket, keys)) == ["gap", "head-unsigned", "unsigned"]


def test_hours_between_two_digest_files(bucket: Bucket, keys: Keys) -> None:
    bucket.number += 1
    bucket.hour()
    report = look(bucket, keys)
    assert kinds(report) == ["gap", "head-unsigned"] and "3600 seconds" in report.findings[0].detail


def test_two_digest_files_after_the_same_one(bucket: Bucket, keys: Keys) -> None:
    before = dict(bucket.head)
    bucket.hour()
    bucket.head = before
    bucket.hour()
    assert "fork" in kinds(look(bucket, keys))


def test_a_digest_file_elsewhere(bucket: Bucket, keys: Keys) -> None:
    moved = bucket.digests[1].parents[1] / "ECS" / bucket.digests[1].name
    moved.parent.mkdir()
    bucket.digests[1].rename(moved)
    assert kinds(look(bucket, keys)) == ["digest-moved", "head-unsigned"]


@pytest.mark.parametrize(
    "data",
    [b"\x1f\x8b\x08", b"{}", gzip.compress(b"[1]", mtime=0), gzip.compress(b"{}", mtime=0)[:-4], b"[" * 99_999],
    ids=["gzip", "object", "array", "truncated", "deep"],
)
def test_a_digest_file_that_is_none(data: bytes, bucket: Bucket, keys: Keys) -> None:
    bucket.digests[2].write_bytes(data)
    assert kinds(look(bucket, keys)) == ["digest-unreadable", "gap", "head-unsigned", "unsigned"]


def test_a_hash_that_nobody_knows(bucket: Bucket, keys: Keys) -> None:
    value = json.loads(gzip.decompress(bucket.digests[-1].read_bytes()))
    value["log_files"][0]["log_hash_algorithm"] = "MD2"
    bucket.digests[-1].write_bytes(gzip.compress(json.dumps(value).encode()))
    assert kinds(look(bucket, keys)) == ["hash-unknown", "head-unsigned"]


# --- the same, from what a dataset noted -------------------------------------------------------------------------------


def taken(bucket: Bucket, path: Path, *options: str | Path) -> tuple[int, list[tuple[str, str]], str]:
    """The bucket ingested, and the dataset verified when the bucket is gone: exit code, (kind, file's name), looked at."""
    code, _, err = cli("audit", "ingest", bucket.root, "--to", path)
    assert (code, err) == (0, "")
    shutil.rmtree(bucket.root)
    code, out, _ = cli("audit", "verify", path, *options, "--format", "json")
    verdict = json.loads(out)
    return code, [(each["kind"], each["name"].rpartition("/")[2]) for each in verdict["findings"]], verdict["looked_at"]


def test_a_dataset_keeps_the_proof(bucket: Bucket, keys: Keys, tmp_path: Path) -> None:
    head, signature = Path(bucket.head["object"]).name, bucket.head["signature"]
    code, found, looked_at = taken(bucket, tmp_path / "d", "--public-key", keys.public)
    assert (code, found) == (0, [("head-unsigned", head)])
    assert looked_at == "1 part, 5 rows, 5 digest files, 5 trace files"
    out = cli("audit", "verify", tmp_path / "d", "--public-key", keys.public, "--signature", signature)
    assert out == (0, "1 part, 5 rows, 5 digest files, 5 trace files: sound\n", "")


def test_a_dataset_of_trace_files_missing_changed_and_added(bucket: Bucket, keys: Keys, tmp_path: Path) -> None:
    missing, changed = bucket.traces[0][0], bucket.traces[1][1]
    missing.unlink()
    changed.write_bytes(gzip.compress(b"[]"))
    added = bucket.traces[3][0].with_name("log_CloudTrace_eu-de_2017-03-28T03-40-00Z_00000000000000ff.json.gz")
    shutil.copy(bucket.traces[3][0], added)
    code, found, _ = taken(bucket, tmp_path / "d", "--public-key", keys.public)
    assert code == 1
    assert found[:3] == [("file-changed", changed.name), ("file-missing", missing.name), ("file-unlisted", added.name)]
    assert [kind for kind, _ in found[3:]] == ["head-unsigned"]


def test_a_dataset_of_a_forged_chain(bucket: Bucket, keys: Keys, tmp_path: Path) -> None:
    forged = Bucket(bucket.root, rsa.generate_private_key(public_exponent=65537, key_size=2048))
    for files in (1, 2, 0, 1, 1):
        forged.hour(files)
    code, found, _ = taken(forged, tmp_path / "d", "--public-key", keys.public)
    assert (code, [kind for kind, _ in found]) == (1, ["signature-wrong"] * 4 + ["head-unsigned"])


def test_a_dataset_of_one_folder_without_a_digest_file(bucket: Bucket, keys: Keys, tmp_path: Path) -> None:
    """Everything downloaded into one folder; one digest file did not come."""
    flat = Bucket(tmp_path / "flat", keys.key)
    flat.root.mkdir()
    for path in [*bucket.digests[:2], *bucket.digests[3:], *itertools.chain(*bucket.traces)]:
        shutil.copy(path, flat.root)
    code, found, _ = taken(flat, tmp_path / "d")
    assert (code, [kind for kind, _ in found]) == (1, ["gap", "head-unsigned"])
    assert found[0][1] == bucket.digests[2].name


@pytest.mark.parametrize("packed", [True, False])
def test_files_that_were_decompressed(packed: bool, bucket: Bucket, keys: Keys, tmp_path: Path) -> None:
    """Their hashes are not those of the bucket: nothing is wrong, and nothing is proved."""
    for path in [*bucket.digests, *itertools.chain(*bucket.traces)]:
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    if packed:
        code, found, _ = taken(bucket, tmp_path / "d", "--public-key", keys.public)
        assert (code, {kind for kind, _ in found}) == (0, {"file-unpacked", "head-unsigned"})
    else:
        assert {*kinds(look(bucket, keys))} == {"file-unpacked", "head-unsigned"}


def test_inputs_that_are_damaged(bucket: Bucket, tmp_path: Path) -> None:
    cli("audit", "ingest", bucket.root, "--to", tmp_path / "d")
    side = tmp_path / "d/_swrbatch/inputs/000001.parquet"
    data = bytearray(side.read_bytes())
    data[200] ^= 1
    side.write_bytes(data)
    assert dataset_findings(tmp_path / "d") == [("file-damaged", "_swrbatch/inputs/000001.parquet")]
    assert cli("audit", "verify", tmp_path / "d")[0] == 1


def test_the_official_sample_of_a_digest_file(tmp_path: Path) -> None:
    """Read alone: it follows one that is not here, and its trace file is not here."""
    sample = ROOT / "fixtures/cts/samples/digest_file_2017.json"
    shutil.copy(sample, tmp_path)
    report = look(tmp_path)
    assert kinds(report) == ["file-missing", "begins-here", "head-unsigned"]
    assert [(w.begin, w.end) for w in report.windows] == [(1490663357000, 1490666957000)]


# --- keys --------------------------------------------------------------------------------------------------------------


def test_a_public_key_in_every_form(keys: Keys, tmp_path: Path) -> None:
    signature = Signer(str(keys.private)).sign("text")
    public = keys.key.public_key()
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    der = public.public_bytes(serialization.Encoding.DER, spki)
    forms = {
        "pem": keys.public.read_bytes(),
        "pkcs1": public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1),
        "der": der,
        "base64": base64.b64encode(der),
        "lines": base64.encodebytes(der),
    }
    for name, data in forms.items():
        (tmp_path / name).write_bytes(data)
        verifier = Verifier(str(tmp_path / name))
        assert verifier.verify("text", signature) and not verifier.verify("other", signature), name
        assert not verifier.verify("text", "no hex") and not verifier.verify("text", "")


def test_the_key_that_cts_documents_can_be_read(tmp_path: Path) -> None:
    """As the user guide prints it ("Verifying Trace File Integrity"): base64 without any frame."""
    printed = (
        "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAsjQDkl8COPRhOCvm7ZI8sYZ20ojl+ay/gwRSk9q0gkY3pP0RrAhSsEzgYdYjaMCqixkmbpt4AH9A"
        "ROJU4drnoCAZSMqRxgv0bGC9kVd4q95l4zibswAsksjuNQo/XoJjBl+rRAqCa+1uetgVU4k4Yx8RryYxYx/tImvMe/O4mGAIaTf+rsqt3VXR1QIj5lYR/nx4"
        "1BEgC/Kb1elYAfDaaab8WS5INRprj7qdu6oAo4Ug47WqbecvEtG3JRpj5+oqLyW41Fvse3osC0h5DQdxTt4x00/rVZ+gH7Kua00y7gC8YOxFVpYbfn/oW61P"
        "UDeHG/N9hUjOrIgDDJpD2YbCIQIDAQAB"
    )
    (tmp_path / "cts.key").write_text(printed)
    assert not Verifier(str(tmp_path / "cts.key")).verify("text", "00")


def test_bad_keys_are_told(keys: Keys, tmp_path: Path) -> None:
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (tmp_path / "small.pem").write_bytes(small.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    (tmp_path / "locked.pem").write_bytes(keys.key.private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"secret")))
    (tmp_path / "text.pem").write_text("hello")
    for name, words in (
        ("small.pem", "1024 bits"),
        ("locked.pem", "password"),
        ("text.pem", "no private key"),
        ("no.pem", "No such"),
    ):
        with pytest.raises(UsageError, match=words):
            Signer(str(tmp_path / name))
    with pytest.raises(UsageError, match="no public key"):
        Verifier(str(tmp_path / "text.pem"))


def test_without_the_library_signing_says_what_to_install(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(StoreError, match=r"pip install 'swrbatch\[sign\]'"):
        Signer(str(keys.private))


# --- our own chains ----------------------------------------------------------------------------------------------------


@pytest.fixture
def signed(keys: Keys, tmp_path: Path) -> Path:
    """An export as cts-obs over some hours, signed."""
    store, dest = trail(tmp_path / "store", 3), tmp_path / "dest"
    for number, hours in enumerate((0, 1, 4), 4):
        run(store, dest, "cts-obs", now=NOW + hours * HOUR, sign_key=str(keys.private))
        add(store, [event(number)])
    return dest


def test_our_chain_is_signed_to_its_head(signed: Path, keys: Keys) -> None:
    report = look(signed, keys)
    assert (report.digests, report.files, report.findings) == (5, 3, ())
    for path in signed.rglob("*.signature"):
        path.unlink()
    assert kinds(look(signed, keys)) == ["head-unsigned"]
    code, out, _ = cli("audit", "verify", signed, "--public-key", keys.public)
    assert code == 1 and "file-missing" in out  # the export's own manifest names the signatures


@pytest.mark.parametrize("victim", ["digest", "trace"])
def test_changes_of_our_chain_are_found(victim: str, signed: Path, keys: Keys) -> None:
    pattern = "CloudTraces/**/Digest/SWR/*.json.gz" if victim == "digest" else "CloudTraces/*/*/*/*/swrbatch/SWR/*.json.gz"
    for path in sorted(signed.glob(pattern)):
        data = path.read_bytes()
        path.write_bytes(gzip.compress(gzip.decompress(data) + b" ", mtime=0))
        found = look(signed, keys)
        assert [each.kind for each in found.findings if each.problem][:1] in (
            ["digest-changed"],
            ["signature-wrong"],
            ["file-changed"],
        )
        path.unlink()
        assert any(each.problem for each in verify_path(str(signed), verifier=Verifier(str(keys.public))).findings)
        path.write_bytes(data)
    assert look(signed, keys).findings == ()


def test_a_signed_chain_does_not_go_on_unsigned(signed: Path, keys: Keys, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="are signed: give --sign-key"):
        run(tmp_path / "store", signed, "cts-obs", now=NOW + 9 * HOUR)
    assert run(tmp_path / "store", signed, "cts-obs", now=NOW + 9 * HOUR, sign_key=str(keys.private)).events == 1
    assert look(signed, keys).findings == ()


def test_a_chain_may_become_signed(keys: Keys, tmp_path: Path) -> None:
    store, dest = trail(tmp_path / "store", 3), tmp_path / "dest"
    run(store, dest, "cts-obs")
    assert kinds(look(dest, keys)) == ["head-unsigned"]
    add(store, [event(4)])
    run(store, dest, "cts-obs", now=NOW + HOUR, sign_key=str(keys.private))
    assert kinds(look(dest, keys)) == ["unsigned"]


def test_the_command_signs_and_verifies(keys: Keys, tmp_path: Path) -> None:
    store, dest = trail(tmp_path / "store", 3), tmp_path / "dest"
    export = ("audit", "export", "--store", store, "--to", dest, "--as", "cts-obs", "--sign-key", keys.private)
    assert cli(*export)[0] == 0
    assert cli("audit", "verify", dest, "--public-key", keys.public)[:2] == (0, "1 digest file, 1 trace file: sound\n")


# --- prune -------------------------------------------------------------------------------------------------------------


def pruned(store: Path, dest: Path, before: int, **options: Any) -> PruneResult:
    with Store(store) as opened:
        return prune(opened, str(dest), before=before, actor=ACTOR, run_id="run-p", now=NOW, **options)


@pytest.fixture
def loaded(tmp_path: Path) -> Path:
    """A store that two images were really imported into, one of them twice."""
    for number, layers in enumerate((HELLO, (HELLO[0], Layer.of({"srv/new": b"x" * 999})), HELLO), 1):
        tags = (f"swr.example.com/team/{'hello' if number < 3 else 'other'}:v1",)
        (tmp_path / f"{number}.tar").write_bytes(docker_legacy(Image(layers=layers, tags=tags)))
        import_archives([tmp_path / f"{number}.tar"], tmp_path / "store", jobs=1, user="alice")
    return tmp_path / "store"


FAR: Final = 4_102_444_800_000  # 2100


@pytest.mark.parametrize("form", ["parquet", "cts-obs", "cts-api", "ocsf", "csv"])
def test_pruned_events_are_gone_and_everything_still_verifies(form: Form, loaded: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    before = events_of(loaded)
    with Store(loaded) as store:
        identity, (seq, head), images = store.identity(), head_of(store), store.images()
    run(loaded, dest, form)
    result = pruned(loaded, dest, FAR)
    assert (result.events, result.seq, result.head, result.held) == (len(before), seq, head, 0)
    left = list(events_of(loaded).values())
    assert [each["trace_name"] for each in left] == ["pruneTraces"]
    assert left[0]["user"]["name"] == "auditor" and json.loads(left[0]["response"])["seq"] == seq
    with Store(loaded) as store:
        assert (store.identity(), store.images()) == (identity, images)
        assert verify_chain_of(store, f"{seq}:{head}") == ([], seq + 1)
        found = verify_store(store, deep=True)
        assert (found.issues, found.events) == ([], seq + 1)
        assert reconcile(store) == []
    # The chain and the exports go on.
    import_archives([tmp_path / "1.tar"], loaded, jobs=1)
    assert run(loaded, dest, form, now=NOW + HOUR).events == 2
    assert read_back(form, dest).keys() == before.keys() | events_of(loaded).keys()
    again = pruned(loaded, dest, FAR)
    assert (again.events, again.seq) == (2, seq + 2)
    with Store(loaded) as store:
        assert verify_store(store).issues == [] and reconcile(store) == []
        assert verify_chain_of(store, f"{seq}:{head}") == ([], seq + 3)  # the head of an older checkpoint


def test_only_older_events_that_were_exported_are_removed(tmp_path: Path) -> None:
    store, dest = trail(tmp_path / "store", 10), tmp_path / "dest"
    run(store, dest, "csv", until=T0 + 6 * MINUTE)
    whole = events_of(store)
    dry = pruned(store, dest, T0 + 9 * MINUTE, dry_run=True)
    assert (dry.events, dry.seq, dry.held) == (5, 5, 3) and events_of(store) == whole
    assert pruned(store, dest, T0 + 4 * MINUTE).events == 3
    assert pruned(store, dest, T0 + 9 * MINUTE).seq == 5
    assert len(events_of(store)) == 5 + 2  # and two prunes
    assert chain_problems(store) == []
    assert pruned(store, dest, T0).events == 0 and len(events_of(store)) == 7


def test_a_later_export_says_what_it_lacks(tmp_path: Path) -> None:
    store = trail(tmp_path / "store", 10)
    run(store, tmp_path / "early", "csv", until=T0 + 3 * MINUTE)
    run(store, tmp_path / "all", "csv")
    pruned(store, tmp_path / "all", T0 + 9 * MINUTE)
    assert run(store, tmp_path / "new", "csv").missing == ((1, 8),)
    result = run(store, tmp_path / "early", "csv")
    assert (result.missing, result.seq) == (((3, 8),), 11)
    code, _, err = cli("audit", "export", "--store", store, "--to", tmp_path / "newer", "--as", "csv")
    assert code == 0 and "events 1 to 8 were pruned before" in err
    # What it lacks, it cannot vouch for; what came after, it can.
    assert pruned(store, tmp_path / "early", FAR).events == 3


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_nothing_is_removed_for_a_damaged_export(form: Form, tmp_path: Path) -> None:
    store, dest = trail(tmp_path / "store", 5), tmp_path / "dest"
    run(store, dest, form)
    whole = events_of(store)
    file = next(path for path in dest.rglob("*") if path.suffix in (".csv", ".parquet"))
    data = file.read_bytes()
    for damage in (data[:-1], None):
        if damage is None:
            file.unlink()
        else:
            file.write_bytes(damage)
        with pytest.raises(StoreError, match="nothing was removed"):
            pruned(store, dest, FAR)
        assert events_of(store) == whole
    file.write_bytes(data)
    assert pruned(store, dest, FAR).events == 5


def test_nothing_is_removed_for_a_dataset_that_says_something_else(tmp_path: Path) -> None:
    store, dest = trail(tmp_path / "store", 5), tmp_path / "dest"
    run(store, dest, "parquet")

    def change(table: Any) -> Any:
        column = [*table.column("user_name").to_pylist()[:-1], "mallory"]
        return table.set_column(table.schema.get_field_index("user_name"), table.schema.field("user_name"), [column])

    _forge(dest, str(next(dest.glob("dt=*/*.parquet")).relative_to(dest)), change)
    with pytest.raises(StoreError, match="does not have event 5 as it was recorded"):
        pruned(store, dest, FAR)
    assert len(events_of(store)) == 5


def test_a_destination_of_another_store_proves_nothing(tmp_path: Path) -> None:
    store, other = trail(tmp_path / "store", 5), trail(tmp_path / "other", 5)
    run(other, tmp_path / "dest", "csv")
    with pytest.raises(UsageError, match="another store"):
        pruned(store, tmp_path / "dest", FAR)
    with pytest.raises(StoreError, match="is no dataset"):
        pruned(store, tmp_path / "nowhere", FAR)
    (tmp_path / "x.json").write_text("[]")
    ingest([str(tmp_path / "x.json")], Dataset(tmp_path / "plain", create=True), now=NOW)
    with pytest.raises(UsageError, match="holds no export"):
        pruned(store, tmp_path / "plain", FAR)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE checkpoints SET state = replace(state, 'sha256:', 'sha256:0')", "is not what the event of its prune says"),
        ("UPDATE checkpoints SET state = '{'", "cannot be read"),
        ("UPDATE checkpoints SET hash = substr(hash, 2) || 'x'", "does not follow"),
        ("UPDATE checkpoints SET seq = seq - 1", "is not there, the next one is"),
        ("DELETE FROM checkpoints", "is not there, the next one is"),
        ("DELETE FROM events", "is not what the event of its prune says"),
    ],
)
def test_a_checkpoint_is_held_by_its_event(statement: str, words: str, loaded: Path, tmp_path: Path) -> None:
    run(loaded, tmp_path / "dest", "csv")
    pruned(loaded, tmp_path / "dest", FAR)
    with tampering(loaded) as connection:
        connection.execute(statement)
    problems = chain_problems(loaded)
    assert len(problems) == 1 and words in problems[0]


def test_a_head_from_before_a_prune_says_that_it_is_too_old(tmp_path: Path) -> None:
    store = trail(tmp_path / "store", 5)
    run(store, tmp_path / "dest", "csv")
    with Store(store) as opened, opened.ledger.read() as connection:
        head = connection.execute(sa.select(events_table.c.hash).where(events_table.c.seq == 3)).scalar()
    pruned(store, tmp_path / "dest", FAR)
    assert "event 3 was pruned" in chain_problems(store, f"3:{head}")[0]


def test_the_command_prunes(tmp_path: Path) -> None:
    store = trail(tmp_path / "store", 5)
    run(store, tmp_path / "dest", "parquet")
    common = ("audit", "prune", "--store", store, "--exported-to", tmp_path / "dest", "--before", "2030-01-01T00:00:00Z")
    assert cli(*common, "--dry-run")[1] == "5 events would be removed; the chain begins behind sequence 5\n"
    code, _, err = cli(*common, "--user", "eve")
    assert code == 1 and "audit prune needs an administrator" in err
    with Store(store) as opened, opened.ledger.write() as connection:
        connection.execute(sa.insert(administrators).values(account="default", user="bob", created_ms=0))
    code, out, _ = cli(*common, "--user", "bob", "--format", "json")
    assert (code, json.loads(out)["events"]) == (0, 5)
    assert next(iter(events_of(store).values()))["user"]["name"] == "bob"
    assert (
        cli("audit", "prune", "--store", store, "--exported-to", tmp_path, "--user", "bob", "--before", "2030-01-01T00:00:00Z")[0]
        == 3
    )
    assert cli("audit", "prune", "--store", store, "--exported-to", tmp_path, "--before", "then")[0] == 2


def test_a_ledger_of_the_first_version_is_upgraded(loaded: Path, tmp_path: Path) -> None:
    """Its rows stay as they are, the chain too; then it can be pruned."""
    old = tmp_path / "old"
    shutil.copytree(loaded, old)
    os.unlink(old / "ledger.db")
    for name in ("ledger.db-wal", "ledger.db-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(old / name)
    config = Config()
    config.set_main_option("script_location", str(ROOT / "swrbatch/ledger/migrations"))
    engine = sa.create_engine(f"sqlite:///{old / 'ledger.db'}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    tables = ("settings", "accounts", "organizations", "repositories", "tags", "layer_blobs", "events")
    with tampering(old) as connection:
        connection.execute(f"ATTACH '{loaded / 'ledger.db'}' AS source")
        for table in tables:
            columns = ", ".join(f'"{row[1]}"' for row in connection.execute(f"PRAGMA main.table_info({table})"))
            connection.execute(f"INSERT INTO {table} SELECT {columns} FROM source.{table}")
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)
    assert events_of(old) == events_of(loaded)
    with tampering(old) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (HEAD,)
        assert connection.execute("SELECT count(*) FROM checkpoints").fetchone() == (0,)
    with Store(old) as store:
        assert verify_store(store, deep=True).issues == []
    run(old, tmp_path / "dest", "csv")
    assert pruned(old, tmp_path / "dest", FAR).events == len(events_of(loaded))


def test_the_migrations_make_the_tables_of_the_schema(tmp_path: Path) -> None:
    Ledger(str(tmp_path / "ledger.db")).close()
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'ledger.db'}")
    inspector = sa.inspect(engine)
    for table in events_table.metadata.sorted_tables:
        made = {c["name"]: (c["nullable"], bool(c["primary_key"])) for c in inspector.get_columns(table.name)}
        assert made == {c.name: (bool(c.nullable), c.primary_key) for c in table.columns}, table.name
    engine.dispose()
