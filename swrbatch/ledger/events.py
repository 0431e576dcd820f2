"""The chain of events: appended in commit order, verified, replayed.

`hash` = sha256 of the hash before (64 hex characters, all zeros for the first), a line feed, and the event's canonical text.
Replaying the events of rating normal gives the tag table: each `uploadImagePackage` says in its response which digest its tag has
afterwards, each `deleteImageTag` names a tag that is no more. (A deleted repository has one of these for each of its tags.)

A prune removes the oldest events and leaves a checkpoint: the hash that the chain goes on from, and what the replay gives up to
there. An event of the chain (`PRUNE`) holds the checkpoint's own hash, so that it can be changed no more easily than an event.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, insert, select

from ..cts import Trace
from ..errors import Issue, issue
from .schema import checkpoints, events

FIRST = "0" * 64
PRUNE: Final = "pruneTraces"
"""The event of a prune. It is none of SWR's, so no catalog has it; its service_type is CTS."""
_INSERT = insert(events)
_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where the chain begins after a prune; see the table `checkpoints`."""

    seq: int
    hash: str
    identity: str
    record_time: int
    state: str


def chain_hash(previous: str, text: str) -> str:
    """The hash of an event whose predecessor has the hash `previous`."""
    return hashlib.sha256(f"{previous}\n{text}".encode()).hexdigest()


def newest_checkpoint(connection: Connection) -> Checkpoint | None:
    """The checkpoint that the chain begins behind; None when nothing was ever pruned."""
    row = connection.execute(select(checkpoints).order_by(checkpoints.c.seq.desc()).limit(1)).first()
    return Checkpoint(row.seq, row.hash, row.identity, row.record_time, row.state) if row else None


def chain_identity(connection: Connection) -> str:
    """What tells this chain from another's: the trace_id of its very first event, pruned or not ("" before it)."""
    start = newest_checkpoint(connection)
    return start.identity if start else str(connection.execute(select(events.c.trace_id).where(events.c.seq == 1)).scalar() or "")


def chain_head(connection: Connection) -> tuple[int, str]:
    """Sequence number and hash of the newest event; (0, zeros) when there is none."""
    row = connection.execute(select(events.c.seq, events.c.hash).order_by(events.c.seq.desc()).limit(1)).first()
    if row:
        return row.seq, row.hash
    start = newest_checkpoint(connection)
    return (start.seq, start.hash) if start else (0, FIRST)


def append_events(connection: Connection, traces: Sequence[Trace]) -> list[dict[str, Any]]:
    """Add events in order; the caller's transaction holds the write lock. Returns the rows as stored."""
    seq, previous = chain_head(connection)
    rows = []
    for trace in traces:
        seq += 1
        text = trace.canonical()
        digest = chain_hash(previous, text)
        rows.append(
            {
                "seq": seq,
                "trace_id": trace.trace_id,
                "run_id": trace.run_id,
                "record_time": trace.record_time,
                "trace_name": trace.trace_name,
                "text": text,
                "previous_hash": previous,
                "hash": digest,
            }
        )
        previous = digest
    if rows:
        connection.execute(_INSERT, rows)
    return rows


def read_events(connection: Connection, after: int = 0) -> Iterator[Any]:
    """The stored events behind the sequence number `after`, in order, a few at a time."""
    statement = select(events).where(events.c.seq > after).order_by(events.c.seq)
    yield from connection.execution_options(stream_results=True, yield_per=1000).execute(statement)


def verify_chain(connection: Connection, *, replaying: bool = True) -> tuple[list[Issue], dict[str, str], int]:
    """Issues of the chain (chain-broken, the first one only), what replaying it gives (`org/repo:tag` → digest), its length.

    Without `replaying` the tags are left out, which takes a third less time. The chain begins behind the newest checkpoint; its
    length counts what was pruned. 1,000,000 events take some six seconds: the texts are canonical, so what is wanted of
    them is found without parsing them (`_parsed` is the slow way).
    """
    start = newest_checkpoint(connection)
    seq, previous = (start.seq, start.hash) if start else (0, FIRST)
    vouched = start is None
    tags: dict[str, str] = {}
    # The driver's own rows: those of SQLAlchemy cost a third of the whole, and no column has a type that must be converted.
    rows = connection.connection.cursor()
    rows.execute(str(select(events).order_by(events.c.seq)))

    def broken(number: int, detail: str) -> tuple[list[Issue], dict[str, str], int]:
        rows.close()
        return [issue("chain-broken", place="events", seq=number, detail=detail)], tags, seq

    if start is not None:
        try:
            tags |= json.loads(start.state)["tags"]
        except (ValueError, KeyError, TypeError):
            return broken(start.seq, "the checkpoint there cannot be read")
    while batch := rows.fetchmany(_BATCH):
        for number, trace_id, run_id, recorded, name, text, before, digest in batch:
            if number != seq + 1:
                return broken(seq + 1, f"it is not there, the next one is {number}")
            if before != previous:
                return broken(number, f"it does not follow event {seq}: some were inserted, removed or put in another order")
            if chain_hash(previous, text) != digest:
                return broken(number, "it was changed: the hash does not fit its text")
            rating = _rating(text, trace_id, run_id, recorded, name)
            if rating is None or (name == PRUNE and start is not None):
                trace = _parsed(text)
                if trace is None:
                    return broken(number, "its text cannot be read")
                if wrong := _columns_differ((trace_id, run_id, recorded, name), trace):
                    return broken(number, f"{wrong} is not what the text says")
                rating = trace["trace_rating"]
                if name == PRUNE and start is not None and (told := json.loads(trace["response"]))["seq"] == start.seq:
                    vouched = told["hash"] == start.hash and told["state_sha256"] == state_hash(start.state)
            if replaying and name in _REPLAYED and rating == "normal" and not _REPLAYED[name](text, tags):
                return broken(number, "its text cannot be read")
            seq, previous = number, digest
    if start is not None and not vouched:
        return broken(start.seq, "the checkpoint there is not what the event of its prune says")
    return [], tags, seq


def state_hash(state: str) -> str:
    """SHA-256 of a checkpoint's state, as the event of its prune holds it."""
    return hashlib.sha256(state.encode()).hexdigest()


_RESOURCE: Final = '"resource_name":"'
_UPLOADED: Final = '","resource_type":"image","response":"{\\"digest\\":\\"'
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


def _rating(text: str, trace_id: str, run_id: str, recorded: int, name: str) -> str | None:
    """The rating of a canonical text that says what the columns say; None when only parsing can tell.

    A quote within a JSON string is always escaped, so these pieces are keys wherever they stand.
    """
    head = f'"run_id":"{run_id}"}},"read_only":false,"record_time":{recorded},"request":'
    if not text.startswith(head, text.find('"run_id":"')):
        return None
    tail = f',"trace_id":"{trace_id}","trace_name":"{name}","trace_rating":"'
    at = text.rfind(',"trace_id":"')
    if not text.startswith(tail, at):
        return None
    begin = at + len(tail)
    return text[begin : text.find('"', begin)]


def _replay_upload(text: str, tags: dict[str, str]) -> bool:
    """Apply an upload of rating normal, mostly without parsing it; False when its text cannot be read."""
    begin = text.rfind(_RESOURCE) + len(_RESOURCE)
    end = text.find('"', begin)
    if text.startswith(_UPLOADED, end):
        digest = text[end + len(_UPLOADED) : end + len(_UPLOADED) + 71]
        if _DIGEST.fullmatch(digest) and "\\" not in (name := text[begin:end]):
            tags[name] = digest
            return True
    return _replay_parsed(text, tags)


def _replay_parsed(text: str, tags: dict[str, str]) -> bool:
    """Apply an event of rating normal; False when its text cannot be read."""
    trace = _parsed(text)
    if trace is None:
        return False
    try:
        replay(trace, tags)
    except (ValueError, KeyError, TypeError):
        return False
    return True


_REPLAYED: Final = {"uploadImagePackage": _replay_upload, "deleteImageTag": _replay_parsed}
"""The events that change the tag table."""


def _parsed(text: str) -> dict[str, Any] | None:
    """An event's text, when it is one."""
    try:
        trace = json.loads(text)
        known = all(isinstance(trace[key], str) for key in ("trace_id", "trace_name", "trace_rating", "response"))
        known = known and isinstance(trace["origin"]["run_id"], str) and isinstance(trace["record_time"], int)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return trace if known else None


def _columns_differ(columns: tuple[str, str, int, str], trace: dict[str, Any]) -> str:
    """The column that does not say what the event's text says; "" when all do. The chain hashes the text only."""
    said = (trace["trace_id"], trace["origin"]["run_id"], trace["record_time"], trace["trace_name"])
    names = ("trace_id", "run_id", "record_time", "trace_name")
    return next((name for name, a, b in zip(names, columns, said, strict=True) if a != b), "")


def replay(trace: dict[str, Any], tags: dict[str, str]) -> None:
    """Apply one event to a table of tags."""
    if trace["trace_rating"] != "normal":
        return
    if trace["trace_name"] == "deleteImageTag":
        tags.pop(trace["resource_name"], None)
    elif trace["trace_name"] == "uploadImagePackage":
        digest = json.loads(trace["response"])["digest"]
        if digest is not None:  # null: an image that was skipped for a tag that somebody else had pushed
            tags[trace["resource_name"]] = digest
