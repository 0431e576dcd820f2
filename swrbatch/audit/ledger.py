"""The store's own events as CTS traces: read from the ledger, told apart by sequence number, held to their chain.

ledger_traces(store)    the events in order, the chain verified on the way
Told                    what a sequence of events says that a registry holds
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from ..cts import canonical_json
from ..errors import StoreError
from ..ledger.events import FIRST, Checkpoint, chain_hash, newest_checkpoint, read_events
from ..store import Store


@dataclass(frozen=True, slots=True)
class ChainedTrace:
    """An event of the ledger: its place in the chain and its trace as recorded."""

    seq: int
    hash: str
    value: dict[str, Any]


def checkpoint_of(store: Store) -> Checkpoint | None:
    """Where the chain begins after a prune; None when nothing was pruned."""
    with store.ledger.read() as connection:
        return newest_checkpoint(connection)


def ledger_traces(store: Store, after: int | None = None, previous: str = FIRST) -> Iterator[ChainedTrace]:
    """The events behind the sequence number `after`, whose hash is `previous`; without it, all that were not pruned.

    Raises `StoreError` at the first event that does not follow the one before: what is exported must be what was recorded.
    """
    with store.ledger.read() as connection:
        if after is None:
            start = newest_checkpoint(connection)
            after, previous = (start.seq, start.hash) if start else (0, FIRST)
        for row in read_events(connection, after):
            if row.seq != after + 1 or row.previous_hash != previous or row.hash != chain_hash(previous, row.text):
                raise _broken(store, after + 1)
            after, previous = row.seq, row.hash
            try:
                value = json.loads(row.text)
            except ValueError as e:
                raise _broken(store, row.seq) from e
            yield ChainedTrace(row.seq, row.hash, value)


def _broken(store: Store, seq: int) -> StoreError:
    return StoreError(f"the chain of events breaks at sequence {seq}: see swrbatch audit verify --store {store.path}")


def api_trace(event: ChainedTrace, registry: str) -> dict[str, Any]:
    """The event with every field of the API's trace; what an offline tool has no value of its own for is stated as such.

    `source_ip` is the loopback address (the operation was local), `request_id` the run, `location_info` the host that ran it,
    `endpoint` the registry and `resource_url` the resource below it: together the pull reference.
    """
    value = {key: v for key, v in event.value.items() if key != "origin"}
    origin = event.value["origin"]
    return {
        **value,
        "api_version": "1.0",
        "source_ip": "127.0.0.1",
        "request_id": origin["run_id"],
        "location_info": origin["host"],
        "endpoint": registry,
        "resource_url": event.value["resource_name"],
        "enterprise_project_id": "0",
        "resource_account_id": event.value["user"]["domain"]["name"],
        "operation_id": event.value["trace_name"],
    }


# --- what events say ---------------------------------------------------------------------------------------------------

_MADE: Final = {"createUserNamespace": "organizations", "createImageRepository": "repositories"}
_GONE: Final = {
    "deleteUserNamesapce": "organizations",
    "deleteUserNamespace": "organizations",
    "deleteImageRepository": "repositories",
    "deleteImageTag": "tags",
}


@dataclass(slots=True)
class Told:
    """What events say that there is: organizations, repositories (`org/repo`), and the digest of each tag (`org/repo:tag`).

    A digest is "" where no event gives one (CTS's own events of an upload). `gone` holds what was deleted and not made again,
    with the name of the event that says so.
    """

    organizations: set[str] = field(default_factory=set)
    repositories: set[str] = field(default_factory=set)
    tags: dict[str, str] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)
    # Repositories and tags ever told of below an organization, tags below a repository: a deletion need not look at all names.
    _below: dict[str, set[str]] = field(default_factory=dict, compare=False, repr=False)

    def take(self, trace_name: str, resource: str, response: str | None) -> None:
        """Apply an event of rating normal."""
        if trace_name == "uploadImagePackage":
            # An upload of several files, or a refused one, names an archive: that is no tag.
            if ":" in resource:
                self.tags[resource] = _digest(response)
                self.gone.pop(resource, None)
                self._note(resource)
        elif trace_name in _MADE:
            getattr(self, _MADE[trace_name]).add(resource)
            self.gone.pop(resource, None)
            self._note(resource)
        elif trace_name in _GONE:
            self._delete(_GONE[trace_name], resource, trace_name)

    def _delete(self, kind: str, resource: str, trace_name: str) -> None:
        names = [resource]
        if kind != "tags":
            names += [name for name in self._below.pop(resource, ()) if name in self.repositories or name in self.tags]
        for name in names:
            self.organizations.discard(name)
            self.repositories.discard(name)
            self.tags.pop(name, None)
            self.gone[name] = trace_name

    def _note(self, name: str) -> None:
        """Put a name below what it is deleted with."""
        repository, colon, _ = name.rpartition(":")
        organization, slash, _ = name.partition("/")
        if colon:
            self._below.setdefault(repository, set()).add(name)
        if slash:
            self._below.setdefault(organization, set()).add(name)

    def begin_at(self, state: str) -> None:
        """Take the state of a checkpoint: what is told of its names before counts no more."""
        value = json.loads(state)
        for name in (*value["organizations"], *value["repositories"], *value["tags"]):
            self.gone.pop(name, None)
        self.gone.update(value["gone"])
        self.organizations.update(value["organizations"])
        self.repositories.update(value["repositories"])
        self.tags.update(value["tags"])
        for name in (*value["repositories"], *value["tags"]):
            self._note(name)

    def state(self) -> str:
        """This state as a checkpoint holds it."""
        names = {"organizations": sorted(self.organizations), "repositories": sorted(self.repositories)}
        return canonical_json({**names, "tags": self.tags, "gone": self.gone})


def _digest(response: str | None) -> str:
    try:
        value: Any = json.loads(response or "null")
    except ValueError:
        return ""
    digest = value.get("digest") if isinstance(value, dict) else None
    return digest if isinstance(digest, str) else ""
