"""CTS traces and the catalogs of SWR's events.

A catalog is data: `schemas/cts-catalog-<name>.tsv` with the columns operation, resource_type, trace_name, spelt as the guide's
table spells them (7.1; `deleteUserNamesapce` included). A trace's canonical text is RFC 8785 JSON: keys sorted, no white space,
UTF-8; no value is a fraction, so Python's own number texts are the canonical ones.
"""

from __future__ import annotations

import csv
import functools
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from .schemas import schema_path

DEFAULT_CATALOG = "guide_2020"
Rating = Literal["normal", "warning", "incident"]


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One audited operation."""

    operation: str
    resource_type: str
    trace_name: str


@functools.cache
def catalog(name: str = DEFAULT_CATALOG) -> Mapping[str, CatalogEntry]:
    """The events of a catalog by trace name (guide 7.1, table 7-1 for `guide_2020`: 32 of them)."""
    with schema_path(f"cts-catalog-{name}.tsv").open(encoding="utf-8", newline="") as f:
        rows = [CatalogEntry(**row) for row in csv.DictReader(f, delimiter="\t")]
    return MappingProxyType({row.trace_name: row for row in rows})


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: the asserted account and user, and what the machine itself knows of the caller."""

    account: str
    user: str
    login: str
    host: str
    ci_job: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One audited operation, as CTS records it. Times in ms UTC; `request` and `response` are JSON texts.

    `origin` is ours: the login name, the host and the CI job beside the asserted user, and the run.
    """

    trace_id: str
    time: int
    record_time: int
    actor: Actor
    trace_name: str
    resource_type: str
    resource_name: str
    resource_id: str
    rating: Rating
    code: str
    request: str
    response: str
    run_id: str
    message: str = ""

    def canonical(self) -> str:
        """The text that is stored once, hashed into the chain, and from which everything else is derived."""
        return canonical_json(
            {
                "code": self.code,
                "event_type": "system",
                "message": self.message,
                "origin": {
                    "ci_job": self.actor.ci_job,
                    "host": self.actor.host,
                    "login": self.actor.login,
                    "run_id": self.run_id,
                },
                "read_only": False,
                "record_time": self.record_time,
                "request": self.request,
                "resource_id": self.resource_id,
                "resource_name": self.resource_name,
                "resource_type": self.resource_type,
                "response": self.response,
                "service_type": "SWR",
                "time": self.time,
                "trace_id": self.trace_id,
                "trace_name": self.trace_name,
                "trace_rating": self.rating,
                "trace_type": "Others",
                "tracker_name": "swrbatch",
                "user": {"domain": {"name": self.actor.account}, "name": self.actor.user},
            }
        )


def canonical_json(value: Any) -> str:
    """RFC 8785 text of a value without fractions, whose keys are ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def new_trace(
    trace_name: str,
    *,
    actor: Actor,
    run_id: str,
    time: int,
    record_time: int,
    resource_name: str,
    request: Mapping[str, object],
    response: Mapping[str, object],
    resource_id: str = "",
    rating: Rating = "normal",
    message: str = "",
) -> Trace:
    """A trace of the catalog's event `trace_name`; KeyError when the default catalog has no such event."""
    entry = catalog()[trace_name]
    return Trace(
        trace_id=str(uuid.uuid4()),
        time=time,
        record_time=record_time,
        actor=actor,
        trace_name=trace_name,
        resource_type=entry.resource_type,
        resource_name=resource_name,
        resource_id=resource_id,
        rating=rating,
        code="200" if rating == "normal" else "400",
        request=canonical_json(dict(request)),
        response=canonical_json(dict(response)),
        run_id=run_id,
        message=message,
    )
