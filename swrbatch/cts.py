"""CTS traces and the catalogs of SWR's events.

A catalog is data: `schemas/cts-catalog-<name>.tsv` with the columns operation, operation_en, resource_type, trace_name, spelt as
its source spells them (`deleteUserNamesapce` in the guide's table 7-1). What a source does not have is left out.

    guide_2020   the user guide's table 7-1: 32 events; the default
    v0           an older list of the CTS guide: 14 events, operations not named
    v1           the guide of 2022: those of guide_2020 and two of collections
    v2           today's: 52 events, reads too; Open Telekom Cloud's 46 and six that only Huawei Cloud lists

English names of operations are the source's in v2 and ours elsewhere.

A trace's canonical text is RFC 8785 JSON: keys sorted, no white space, UTF-8; no value is a fraction, so Python's own number
texts are the canonical ones.
"""

from __future__ import annotations

import csv
import functools
import json
import os
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

from .schemas import schema_path

DEFAULT_CATALOG = "guide_2020"
CATALOGS: Final = ("guide_2020", "v0", "v1", "v2")
ALIASES: Final[Mapping[str, str]] = MappingProxyType(
    {"deleteUserNamesapce": "deleteUserNamespace", "deleteUserNamespace": "deleteUserNamesapce"}
)
"""Other spellings of an event: the guide and v1 have the first, v2 has the second, and CTS may send either."""
EMITTED: Final = frozenset(
    {
        "createDockerConfig",
        "createTrigger",
        "updateTrigger",
        "deleteTrigger",
        "uploadImagePackage",
        "createUserNamespace",
        "deleteUserNamesapce",
        "createUserNamespaceAuth",
        "updateUserNamespaceAuth",
        "deleteUserNamespaceAuth",
        "createImageRepository",
        "updateImageRepository",
        "deleteImageRepository",
        "deleteImageTag",
        "createUserRepositoryAuth",
        "updateUserRepositoryAuth",
        "deleteUserRepositoryAuth",
        "createImageRepositoryAccessDomain",
        "updateImageRepositoryAccessDomain",
        "deleteImageRepositoryAccessDomain",
    }
)
"""Events that swrbatch itself records; all others come from CTS only. A test holds this against the source."""
Rating = Literal["normal", "warning", "incident"]


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One audited operation. `operation` is as the source has it, Chinese or English, "" where it has none."""

    operation: str
    operation_en: str
    resource_type: str
    trace_name: str


OWN: Final[Mapping[str, CatalogEntry]] = MappingProxyType(
    {
        name: CatalogEntry("", operation, kind, name)
        for name, kind, operation in (
            ("createAdministrator", "administrator", "Adding an account administrator"),
            ("deleteAdministrator", "administrator", "Removing an account administrator"),
            ("listAdministrators", "administrator", "Listing account administrators"),
            ("updateSettings", "settings", "Changing the settings of a store"),
            ("exportImage", "image", "Exporting an image"),
            ("runTrigger", "trigger", "Carrying out a trigger"),
            ("listTriggers", "trigger", "Listing triggers"),
            ("syncImages", "store", "Copying images from another store"),
            ("collectGarbage", "store", "Removing blobs that nothing needs"),
            # Reads, recorded only when they are refused; spelt as v2 spells them.
            ("showUserNamespace", "usernamespace", "Querying an organization"),
            ("showUserNamespaceAuth", "usernamespaceauth", "Querying organization authorizations"),
            ("showImageRepository", "imagerepository", "Querying an image repository"),
            ("showUserRepositoryAuth", "userrepositoryauth", "Querying image authorizations"),
            ("listImageTags", "imagetag", "Listing image tags"),
            ("listImageRepositoryAccessDomain", "imagerepositoryaccessdomain", "Listing the sharing of an image"),
        )
    }
)
"""Events of this program that the guide's catalog does not have: of acts that it does not audit, and of refused reads.

Whoever reads them by that catalog finds them flagged as unknown to it.
"""


@functools.cache
def catalog(name: str = DEFAULT_CATALOG) -> Mapping[str, CatalogEntry]:
    """The events of a catalog by trace name, in its source's order."""
    with schema_path(f"cts-catalog-{name}.tsv").open(encoding="utf-8", newline="") as f:
        rows = [_entry(row) for row in csv.DictReader(f, delimiter="\t")]
    return MappingProxyType({row.trace_name: row for row in rows})


def _entry(row: dict[str, str]) -> CatalogEntry:
    operation = row.get("operation", "")
    english = row.get("operation_en") or (operation if operation.isascii() else "")
    return CatalogEntry(operation, english, row["resource_type"], row["trace_name"])


def entry_of(name: str, trace_name: str) -> CatalogEntry | None:
    """An event's entry in the catalog `name`, under any known spelling; None when the catalog has no such event."""
    entries = catalog(name)
    return entries.get(trace_name) or entries.get(ALIASES.get(trace_name, ""))


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
    service_type: str = "SWR"

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
                "service_type": self.service_type,
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


def now_ms() -> int:
    """The time now, ms UTC."""
    return time.time_ns() // 1_000_000


def new_run_id(now: int) -> str:
    """A name for one call of the program: its time (`now`, ms UTC) and something random."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now / 1000))}-{os.urandom(4).hex()}"


_random = bytearray()
_random_lock = threading.Lock()
# Two processes must not draw the same bytes.
os.register_at_fork(after_in_child=_random.clear)


def _uuid4() -> str:
    """A random UUID. The system is asked for many at once: a call for each costs more than everything else of a trace."""
    with _random_lock:
        if len(_random) < 16:
            _random.extend(os.urandom(4096))
        raw = bytes(_random[-16:])
        del _random[-16:]
    return str(uuid.UUID(bytes=raw, version=4))


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
    code: str = "",
    message: str = "",
) -> Trace:
    """A trace of the event `trace_name`, with the HTTP status 200 or 400 unless a `code` is given.

    KeyError when neither the default catalog nor `OWN` has the event.
    """
    entry = catalog().get(trace_name) or OWN[trace_name]
    return Trace(
        trace_id=_uuid4(),
        time=time,
        record_time=record_time,
        actor=actor,
        trace_name=trace_name,
        resource_type=entry.resource_type,
        resource_name=resource_name,
        resource_id=resource_id,
        rating=rating,
        code=code or ("200" if rating == "normal" else "400"),
        request=canonical_json(dict(request)),
        response=canonical_json(dict(response)),
        run_id=run_id,
        message=message,
    )
