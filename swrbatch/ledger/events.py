"""The chain of events: appended in commit order, verified, replayed.

`hash` = sha256 of the hash before (64 hex characters, all zeros for the first), a line feed, and the event's canonical text.
Replaying the events of rating normal gives the tag table: each `uploadImagePackage` says in its response which digest its tag has
afterwards.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, insert, select

from ..cts import Trace
from ..errors import Issue, issue
from .schema import events

FIRST = "0" * 64
_INSERT = insert(events)


def chain_hash(previous: str, text: str) -> str:
    """The hash of an event whose predecessor has the hash `previous`."""
    return hashlib.sha256(f"{previous}\n{text}".encode()).hexdigest()


def chain_head(connection: Connection) -> tuple[int, str]:
    """Sequence number and hash of the newest event; (0, zeros) when there is none."""
    row = connection.execute(select(events.c.seq, events.c.hash).order_by(events.c.seq.desc()).limit(1)).first()
    return (row.seq, row.hash) if row else (0, FIRST)


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


def verify_chain(connection: Connection) -> tuple[list[Issue], dict[str, str], int]:
    """Issues of the chain (chain-broken, the first one only), what replaying it gives (`org/repo:tag` → digest), its length."""
    expected_seq, previous = 1, FIRST
    tags: dict[str, str] = {}
    for row in read_events(connection):
        if row.seq != expected_seq:
            return (
                [issue("chain-broken", place="events", seq=row.seq, detail=f"{expected_seq} was expected")],
                tags,
                expected_seq - 1,
            )
        if row.previous_hash != previous or row.hash != chain_hash(previous, row.text):
            return [issue("chain-broken", place="events", seq=row.seq, detail="the hash does not fit")], tags, expected_seq - 1
        if row.trace_name == "uploadImagePackage":
            replay(json.loads(row.text), tags)
        expected_seq, previous = row.seq + 1, row.hash
    return [], tags, expected_seq - 1


def replay(trace: dict[str, Any], tags: dict[str, str]) -> None:
    """Apply one event to a table of tags."""
    if trace["trace_name"] == "uploadImagePackage" and trace["trace_rating"] == "normal":
        tags[trace["resource_name"]] = json.loads(trace["response"])["digest"]
