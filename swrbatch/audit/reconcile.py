"""The events held against the store's real content: what was changed without an event, and what an event says that is not so.

    present-without-event    the registry serves a tag that no event tells of: somebody pushed into the served store
    event-without-content    an event of rating normal says that a tag is there, and it is not
    other-digest             the registry serves another digest than the last event says
    deleted-but-present      an event deleted it, and it is there still
    organization-missing, repository-missing   an event made it, and neither the ledger nor the registry has it
    unrecorded-organization, unrecorded-repository   it is there, and no event made it

With datasets, events are taken from them too (those that CTS delivered), the newest for each name wins. What the pruned events
told stands in the checkpoint. A tag whose load is under way is left out: its event is there, its link follows.
"""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from ..disk import locked
from ..ledger.events import FIRST
from ..ledger.schema import organizations, repositories
from ..store import Store, tag_name
from .dataset import Dataset
from .ledger import Told, checkpoint_of, ledger_traces
from .query import connected

_NAMES = "('uploadImagePackage', 'createUserNamespace', 'createImageRepository', 'deleteUserNamesapce', 'deleteUserNamespace', "
_NAMES += "'deleteImageRepository', 'deleteImageTag')"
_Step = tuple[int, Callable[[Told], None]]
"""A time in ms UTC, and what the event of then does to what is told."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference: `expected` is what the events say, `actual` what the store has ("" for nothing)."""

    kind: str
    name: str
    expected: str
    actual: str


def reconcile(store: Store, datasets: Sequence[Dataset] = ()) -> list[Difference]:
    """All differences, sorted by kind and name; none means that the trail tells exactly what the store holds."""
    told, ledger = Told(), _Ledger(store)
    with contextlib.ExitStack() as stack:
        # On a tie the ledger comes last: its order is that of its commits, whatever its clock said.
        for _, step in heapq.merge(*(_dataset(each, stack) for each in datasets), ledger.steps(), key=lambda each: each[0]):
            step(told)
    with locked(store.lock("links")):
        # While no link is written, every link that is there has its event.
        for _, step in ledger.steps():
            step(told)
        served = {f"{repository}:{tag}": str(digest or "") for repository, tag, digest in store.layout.tags()}
        pending = {tag_name(row) for row in store.tag_rows() if row.link_pending}
    differences = [*_compare_tags(told, served, pending), *_compare_names(store, told, served)]
    return sorted(differences, key=lambda each: (each.kind, each.name))


class _Ledger:
    """The ledger's events, as steps; a second call goes on where the first ended."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._checkpoint = checkpoint_of(store)
        self._place = (self._checkpoint.seq, self._checkpoint.hash) if self._checkpoint else (0, FIRST)
        self._newest = 0

    def steps(self) -> Iterator[_Step]:
        if self._checkpoint is not None:
            start, self._checkpoint = self._checkpoint, None
            self._newest = start.record_time
            yield self._newest, lambda told: told.begin_at(start.state)
        for event in ledger_traces(self._store, *self._place):
            self._place = (event.seq, event.hash)
            value = event.value
            self._newest = max(self._newest, value["record_time"])
            if value["trace_rating"] == "normal":
                yield self._newest, _step(value["trace_name"], value["resource_name"], value["response"])


def _step(trace_name: str, resource: str, response: str | None) -> Callable[[Told], None]:
    return lambda told: told.take(trace_name, resource, response)


def _dataset(dataset: Dataset, stack: contextlib.ExitStack) -> Iterator[_Step]:
    """The events of a dataset. Those that the ledger has too are taken twice, and its own come after them."""
    connection = stack.enter_context(connected(dataset))
    rows = connection.execute(
        "SELECT epoch_ms(coalesce(record_time, time)), trace_name, resource_name, response FROM traces "
        f"WHERE trace_rating = 'normal' AND trace_name IN {_NAMES} AND resource_name IS NOT NULL "
        "AND coalesce(service_type, 'SWR') = 'SWR' ORDER BY 1, trace_id"
    )
    while batch := rows.fetchmany(1000):
        for moment, trace_name, resource, response in batch:
            yield moment or 0, _step(trace_name, resource, response)


def _compare_tags(told: Told, served: dict[str, str], pending: set[str]) -> Iterator[Difference]:
    for name in sorted((served.keys() | told.tags.keys()) - pending):
        expected, actual = told.tags.get(name), served.get(name, "")
        if expected is None and name in told.gone:
            yield Difference("deleted-but-present", name, told.gone[name], actual)
        elif expected is None:
            yield Difference("present-without-event", name, "", actual)
        elif not actual:
            yield Difference("event-without-content", name, expected or "there", "")
        elif expected not in ("", actual):
            yield Difference("other-digest", name, expected, actual)


def _compare_names(store: Store, told: Told, served: dict[str, str]) -> Iterator[Difference]:
    joined = repositories.join(organizations)
    with store.ledger.read() as connection:
        orgs = {str(name) for name in connection.execute(select(organizations.c.name)).scalars()}
        rows = connection.execute(select(organizations.c.name, repositories.c.name).select_from(joined))
        repos = {f"{organization}/{repository}" for organization, repository in rows}
    repos |= {name.rpartition(":")[0] for name in served}
    orgs |= {name.partition("/")[0] for name in repos if "/" in name}
    for kind, have, want in (("organization", orgs, told.organizations), ("repository", repos, told.repositories)):
        for name in sorted(want - have):
            yield Difference(f"{kind}-missing", name, "there", "")
        for name in sorted(have - want):
            gone = told.gone.get(name)
            yield Difference("deleted-but-present" if gone else f"unrecorded-{kind}", name, gone or "", "there")
