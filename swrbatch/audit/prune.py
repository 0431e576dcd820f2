"""Take the oldest events out of a store's ledger, once an export has them, and leave what keeps the rest verifiable.

An event is removed only when the destination given provably has it: its manifest says so, its last hash is that of the store's
chain, and what it holds is looked at: every event of a dataset is compared with the ledger's, column by column; every file of
another form has the SHA-256 that was noted when it was written.

What is left is a checkpoint (see `ledger.events`): the hash that the chain goes on from, and the organizations, repositories and
tags that the removed events made. The prune is an event itself, in the same transaction. The space is free for new events; the
file does not shrink.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, update

from ..cts import Actor, Trace, canonical_json
from ..errors import StoreError, UsageError, printable
from ..ledger.events import PRUNE, append_events, chain_head, chain_identity, newest_checkpoint, state_hash
from ..ledger.schema import checkpoints, events
from ..store import Store
from .dataset import Dataset
from .folders import read_manifest
from .ledger import Told, checkpoint_of, ledger_traces
from .reached import Reached, Walk
from .verify import lacks, upto, verify_dataset, verify_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneResult:
    """What a prune removed: `events` of them, up to `seq`, whose hash is `head`.

    `held` are older than the time asked for, and stay: the destination does not have them.
    """

    events: int
    seq: int
    head: str
    held: int


def prune(
    store: Store, exported_to: str, *, before: int, actor: Actor, run_id: str, now: int, dry_run: bool = False
) -> PruneResult:
    """Remove the events recorded before `before` (ms UTC) that the destination `exported_to` has.

    They are removed from the beginning of the chain, up to the first one that is newer or that the destination lacks. Raises
    `UsageError` when it is no destination of this store, `StoreError` when the chain or the destination is damaged, or when
    another prune was faster.
    """
    start = checkpoint_of(store)
    after = start.seq if start else 0
    reached = _reached(store, exported_to)
    last = older = after
    for event in ledger_traces(store):
        if event.value["record_time"] >= before:
            break
        older = event.seq
        if event.seq == last + 1 and reached.holds(event.seq, event.seq):
            last = event.seq
    head = start.hash if start else ""
    if last > after:
        _prove(store, exported_to, after, last)
        told, newest = Told(), start.record_time if start else 0
        if start is not None:
            told.begin_at(start.state)
        for event in upto(store, last):
            newest, head = max(newest, event.value["record_time"]), event.hash
            if event.value["trace_rating"] == "normal":
                told.take(event.value["trace_name"], event.value["resource_name"], event.value["response"])
        if not dry_run:
            with store.ledger.write() as connection:
                if newest_checkpoint(connection) != start:
                    raise StoreError("another run has pruned this ledger meanwhile: run again")
                trace = _trace(actor, run_id, now, exported_to, last, head, last - after, told.state())
                _remove(connection, last, head, newest, told.state(), trace)
    return PruneResult(events=last - after, seq=last, head=head, held=older - last)


def _remove(connection: Connection, last: int, head: str, newest: int, state: str, trace: Trace) -> None:
    identity = chain_identity(connection)
    if chain_head(connection)[0] < last:
        raise StoreError("the ledger was changed meanwhile: run again")
    connection.execute(delete(events).where(events.c.seq <= last))
    # Heads that were kept elsewhere can be compared with older checkpoints; what these knew stands in the newest.
    connection.execute(update(checkpoints).values(state=""))
    connection.execute(insert(checkpoints).values(seq=last, hash=head, identity=identity, record_time=newest, state=state))
    append_events(connection, [trace])


def _trace(actor: Actor, run_id: str, now: int, to: str, seq: int, head: str, count: int, state: str) -> Trace:
    """The event of the prune. It is about the trail, not about the registry: CTS is its service."""
    return Trace(
        trace_id=str(uuid.uuid4()),
        time=now,
        record_time=now,
        actor=actor,
        trace_name=PRUNE,
        service_type="CTS",
        resource_type="tracker",
        resource_name="swrbatch",
        resource_id="",
        rating="normal",
        code="200",
        request=canonical_json({"exported_to": printable(to)}),
        response=canonical_json({"events": count, "hash": head, "seq": seq, "state_sha256": state_hash(state)}),
        run_id=run_id,
    )


# --- what the destination provably has ---------------------------------------------------------------------------------


def _reached(store: Store, to: str) -> Reached:
    """What a destination says that it has. Its last hash must be the chain's."""
    manifest = read_manifest(to)
    value = manifest.reached if manifest is not None else Dataset(to).manifest.export
    if not value:
        raise UsageError(f"{to} holds no export of a store: run swrbatch audit export to it first")
    return Walk(store, Reached.of(value, store, to)).reached


def _prove(store: Store, to: str, after: int, last: int) -> None:
    """StoreError when the destination is damaged, or lacks an event that its manifest claims."""
    if read_manifest(to) is not None:
        findings, _ = verify_folder(to)
    else:
        findings, _ = verify_dataset(Dataset(to))
    if findings:
        raise StoreError(f"nothing was removed, for the export {to} is damaged: {findings[0]}")
    if read_manifest(to) is None and (lacking := lacks(Dataset(to), store, after, last)) is not None:
        raise StoreError(f"nothing was removed, for the dataset {to} does not have event {lacking} as it was recorded")
