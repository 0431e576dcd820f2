"""One act of somebody, in one transaction with its event: what was before, what is after, or that it was refused.

    with acting(ledger, actor) as act:
        change = create_organization(act, "team")

A refusal (`Refused`) takes back what the act had changed and leaves an event of rating warning; a dry run leaves nothing at all.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sqlalchemy import Connection

from ..cts import Actor, Trace, canonical_json, new_run_id, new_trace
from ..errors import Issue, Refused, printable
from ..rights import Act, Facts, decide, denied
from . import Ledger
from .access import administrators_of
from .events import append_events

Status = Literal["created", "updated", "deleted", "unchanged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What an act did to one thing, `kind` called `name`: what it was before and is after it (None: not there)."""

    status: Status
    kind: str
    name: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Acting:
    """An act under way. `begins` names the event that it will leave, `require` checks the right to it, `changed` records it."""

    connection: Connection
    actor: Actor
    run_id: str
    now: int
    dry_run: bool = False
    traces: list[Trace] = field(default_factory=list)
    _event: tuple[str, str, Mapping[str, Any]] | None = None

    def begins(self, trace_name: str, resource_name: str, request: Mapping[str, Any]) -> None:
        """What follows is recorded as this event, its refusal too."""
        self._event = (trace_name, printable(resource_name), request)

    def require(self, act: Act, facts: Facts) -> None:
        """Refused (permission-denied) unless the actor may."""
        if not decide(self.actor, act, facts).allowed:
            if self.actor.account == facts.account:
                facts = replace(facts, administrators=administrators_of(self.connection, facts.account))
            raise Refused(denied(self.actor, act.value, facts.name, decide(self.actor, act, facts)))

    def changed(
        self,
        status: Status,
        kind: str,
        *,
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
        said: Mapping[str, Any] | None = None,
        resource_id: str = "",
    ) -> Change:
        """Record the event, unless nothing changed. `said` stands in its response beside before and after."""
        assert self._event is not None
        trace_name, name, request = self._event
        if status != "unchanged":
            response = {**(said or {}), "result": status, "before": before, "after": after}
            self._record(trace_name, name, request, response, resource_id=resource_id)
        return Change(status=status, kind=kind, name=name, before=before, after=after)

    def refused(self, found: Issue) -> None:
        """Record a refusal."""
        if self._event is not None:
            trace_name, name, request = self._event
            response = {"result": "rejected", "codes": [found.code], "reason": found.message}
            # The service's own codes begin with the HTTP status.
            status = found.swr_code.rpartition(".")[2][:3]
            message = canonical_json([found.code])
            self._record(trace_name, name, request, response, message=message, rating="warning", code=status)

    def _record(self, trace_name: str, name: str, request: Mapping[str, Any], response: Mapping[str, Any], **more: Any) -> None:
        more |= {"actor": self.actor, "run_id": self.run_id, "time": self.now, "record_time": self.now}
        self.traces.append(new_trace(trace_name, resource_name=name, request=request, response=response, **more))


@contextlib.contextmanager
def acting(ledger: Ledger, actor: Actor, *, run_id: str | None = None, dry_run: bool = False) -> Iterator[Acting]:
    """A transaction for acts of `actor`: committed with their events at the end. Raises `Refused` after that was recorded."""
    refused: Refused | None = None
    with ledger.write() as connection:
        now = time.time_ns() // 1_000_000
        act = Acting(connection, actor, run_id or new_run_id(now), now, dry_run)
        savepoint = connection.begin_nested()
        try:
            yield act
        except Refused as e:
            refused = e
            savepoint.rollback()
            act.traces.clear()
            act.refused(e.issue)
        if dry_run:
            act.traces.clear()
        if refused is None and dry_run:
            savepoint.rollback()
        elif refused is None:
            savepoint.commit()
        append_events(connection, act.traces)
    if refused is not None:
        raise refused


@contextlib.contextmanager
def reading(ledger: Ledger, actor: Actor) -> Iterator[Acting]:
    """A snapshot for what only looks; the refusal of a look is recorded in a transaction of its own, then raised."""
    with ledger.read() as connection:
        now = time.time_ns() // 1_000_000
        act = Acting(connection, actor, new_run_id(now), now)
        try:
            yield act
            return
        except Refused as e:
            refused = e
            act.refused(e.issue)
    with ledger.write() as connection:
        append_events(connection, act.traces)
    raise refused
