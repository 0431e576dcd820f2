"""What a destination has of a store's chain of events, and which events it still wants.

A destination has every event up to a sequence number, and beyond that number those that a backfill of a period brought: so each
event goes there exactly once, whatever periods are asked for, in whatever order. Periods go by `record_time`: from, included,
until, not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import select

from ..errors import StoreError, UsageError
from ..ledger.events import FIRST
from ..ledger.schema import events
from ..store import Store
from .ledger import ChainedTrace, checkpoint_of, ledger_traces

Range = tuple[int, int]
"""Sequence numbers, both included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """What a destination has: the events up to `seq`, whose hash is `head`, and those of `ranges`, all beyond `seq`.

    `missing`: what was pruned before it came here; it lies in the destination that the prune was shown.
    """

    store: str
    seq: int = 0
    head: str = FIRST
    ranges: tuple[Range, ...] = ()
    missing: tuple[Range, ...] = ()

    @classmethod
    def of(cls, value: dict[str, Any], store: Store, to: str) -> Reached:
        """From a destination's manifest ({}: nothing yet). UsageError when it holds the events of another store."""
        identity = store.identity()
        if value and value["store"] != identity:
            raise UsageError(f"{to} holds the events of another store: export this one to a folder of its own")
        pairs = {name: tuple((a, b) for a, b in value.get(name, ())) for name in ("ranges", "missing")}
        return cls(store=identity, seq=value.get("seq", 0), head=value.get("head", FIRST), **pairs)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def holds(self, first: int, last: int) -> bool:
        """Whether it has all events of these numbers."""
        if any(a <= last and first <= b for a, b in self.missing):
            return False
        return last <= self.seq or any(a <= max(first, self.seq + 1) and last <= b for a, b in self.ranges)


class Walk:
    """The events of a period that a destination does not have yet, in order; then `reached` is what it has with them."""

    def __init__(self, store: Store, before: Reached, since: int | None = None, until: int | None = None) -> None:
        """StoreError when the store's chain is not the one that the destination was filled from."""
        self.reached = before
        self.taken = 0
        self._store = store
        self._since, self._until = since, until
        self._start()

    def _start(self) -> None:
        before, checkpoint = self.reached, checkpoint_of(self._store)
        pruned = checkpoint.seq if checkpoint else 0
        if before.seq < pruned and checkpoint is not None:
            beyond = [(a, b) for a, b in before.ranges if b > pruned]
            lost = tuple(_outside(before.seq + 1, pruned, before.ranges))
            self.reached = replace(
                before, seq=pruned, head=checkpoint.hash, ranges=tuple(beyond), missing=(*before.missing, *lost)
            )
            return
        if before.seq == 0:
            return
        with self._store.ledger.read() as connection:
            found = connection.execute(select(events.c.hash).where(events.c.seq == before.seq)).scalar()
        if found is None and checkpoint is not None and pruned == before.seq:
            found = checkpoint.hash
        if found != before.head:
            what = "does not have it" if found is None else "has another one there"
            raise StoreError(
                f"the destination was filled up to event {before.seq}, and the store {what}: its ledger was cut, computed anew "
                "or taken from an older backup; see swrbatch audit verify --expect-head "
                f"{before.seq}:{before.head}"
            )

    def __iter__(self) -> Iterator[ChainedTrace]:
        known = self.reached.ranges
        for event in ledger_traces(self._store, self.reached.seq, self.reached.head):
            held = any(a <= event.seq <= b for a, b in known)
            if not held and self._wants(event):
                self.taken += 1
                yield event
                held = True
            if held:
                self._add(event)

    def _wants(self, event: ChainedTrace) -> bool:
        time = event.value["record_time"]
        return (self._since is None or time >= self._since) and (self._until is None or time < self._until)

    def _add(self, event: ChainedTrace) -> None:
        reached, seq = self.reached, event.seq
        if seq == reached.seq + 1:
            beyond = tuple((max(a, seq + 1), b) for a, b in reached.ranges if b > seq)
            self.reached = replace(reached, seq=seq, head=event.hash, ranges=beyond)
        elif not any(a <= seq <= b for a, b in reached.ranges):
            self.reached = replace(reached, ranges=_joined((*reached.ranges, (seq, seq))))


def _joined(ranges: tuple[Range, ...]) -> tuple[Range, ...]:
    found: list[Range] = []
    for a, b in sorted(ranges):
        if found and a <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(b, found[-1][1]))
        else:
            found.append((a, b))
    return tuple(found)


def _outside(first: int, last: int, ranges: tuple[Range, ...]) -> Iterator[Range]:
    """The parts of first..last that no range covers."""
    for a, b in sorted(ranges):
        if a > last:
            break
        if a > first:
            yield first, min(a - 1, last)
        first = max(first, b + 1)
    if first <= last:
        yield first, last
