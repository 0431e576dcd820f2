"""The tables of an audit report: a row type each, whose annotations hold types and meanings as in `results`.

All times are UTC. What counts are the traces of SWR within the report's scope (period, account, organization); where a table
goes beyond it, it says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from ..results import Millis

TraceId = Annotated[str | None, "the trace; `audit query --trace-id` shows all of it"]
Time = Annotated[Millis | None, "when it happened; null where that cannot be read"]
TraceName = Annotated[str | None, "the event"]
Rating = Annotated[str | None, "normal, warning (failed) or incident (serious)"]
Code = Annotated[str | None, "code of the answer, as text"]
ResourceType = Annotated[str | None, "type of the resource"]
ResourceName = Annotated[str | None, "name of the resource, such as organization/repository:tag"]
Account = Annotated[str | None, "account of the user: its name, else its id"]
User = Annotated[str | None, "name of the user, else the id; null for the system's own acts"]
SourceIp = Annotated[str | None, "address it came from; null for the store's own events"]
Count = Annotated[int, "number of events"]
Normal = Annotated[int, "events rated normal"]
Warning_ = Annotated[int, "events rated warning: they failed"]
Incident = Annotated[int, "events rated incident: serious"]
First = Annotated[Millis | None, "the first of them"]
Last = Annotated[Millis | None, "the last of them"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogRow:
    """An event of the catalog, in the catalog's order, also when nothing of it happened."""

    operation: Annotated[str, "the operation, as the catalog has it"]
    operation_en: Annotated[str, "the operation, in English"]
    resource_type: Annotated[str, "resource type, as the catalog has it"]
    trace_name: Annotated[str, "the event, as the catalog spells it; another known spelling is counted here too"]
    events: Count
    normal: Normal
    warning: Warning_
    incident: Incident
    other: Annotated[int, "events with another rating, or none"]
    users: Annotated[int, "different users"]
    first: First
    last: Last


@dataclass(frozen=True, slots=True, kw_only=True)
class DayRow:
    """An event of the catalog on a day with a rating, where there was one (`catalog` has those without any, too)."""

    trace_name: Annotated[str, "the event, as in `catalog`"]
    day: Annotated[str | None, "the day (UTC), YYYY-MM-DD; null where the time cannot be read"]
    rating: Rating
    events: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class HourRow:
    """An hour with a rating, all events counted, uncatalogued ones too."""

    hour: Annotated[Millis, "the beginning of the hour"]
    rating: Rating
    events: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRow:
    """A failure or a refusal, newest first: the traces rated warning or incident."""

    time: Time
    trace_name: TraceName
    outcome: Annotated[str, "refused (code 4xx), failed, or incident"]
    code: Code
    reasons: Annotated[tuple[str, ...], "codes of the reasons, as the answer has them"]
    message: Annotated[str | None, "remark, or the answer's error message"]
    account: Account
    user: User
    source_ip: SourceIp
    resource_type: ResourceType
    resource_name: ResourceName
    trace_id: TraceId


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureCodeRow:
    """Failures and refusals alike in event, outcome, code and reason; one with several reasons counts under each."""

    trace_name: TraceName
    outcome: Annotated[str, "refused, failed or incident"]
    code: Code
    reason: Annotated[str | None, "code of the reason; null where the answer gives none"]
    events: Count
    users: Annotated[int, "different users"]
    first: First
    last: Last


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRow:
    """A user of an account, the busiest first."""

    account: Account
    user: User
    events: Count
    normal: Normal
    warning: Warning_
    incident: Incident
    deletions: Annotated[int, "delete events"]
    access_changes: Annotated[int, "permission, sharing and visibility events"]
    addresses: Annotated[int, "different source addresses"]
    first: First
    last: Last


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityRow:
    """What a user did: an event with a rating."""

    account: Account
    user: User
    trace_name: TraceName
    rating: Rating
    events: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRow:
    """A source address, the busiest first."""

    source_ip: SourceIp
    events: Count
    normal: Normal
    warning: Warning_
    incident: Incident
    users: Annotated[int, "different users"]
    first: First
    last: Last


@dataclass(frozen=True, slots=True, kw_only=True)
class UncataloguedRow:
    """An event that the catalog does not have, or has with another resource type."""

    finding: Annotated[str, "unknown-event or resource-type"]
    trace_name: TraceName
    resource_type: ResourceType
    expected: Annotated[str | None, "resource type that the catalog gives the event"]
    events: Count
    users: Annotated[int, "different users"]
    first: First
    last: Last
    example: Annotated[str | None, "trace_id of the first of them"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessChangeRow:
    """A change of who may use what, newest first, with what held before and after. Refused attempts are here too."""

    time: Time
    kind: Annotated[str, "permission, share or visibility"]
    action: Annotated[str, "create, update or delete"]
    done: Annotated[bool, "whether it happened (rating normal)"]
    resource: Annotated[str | None, "organization or repository"]
    subject: Annotated[str | None, "the user or the account that may; null for visibility, or where no request names one"]
    before: Annotated[str | None, "read, edit, manage, public, private, none; a share with its end; null: cannot be known"]
    after: Annotated[str | None, "the same, after it; of a refused one what was asked for"]
    before_source: Annotated[str | None, "event: the trace itself says what was before; earlier: the last change seen does"]
    account: Account
    user: User
    source_ip: SourceIp
    trace_name: TraceName
    rating: Rating
    code: Code
    trace_id: TraceId


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionRow:
    """A deletion, newest first; the refused ones too."""

    time: Time
    trace_name: TraceName
    done: Annotated[bool, "whether it happened (rating normal)"]
    resource_type: ResourceType
    resource_name: ResourceName
    account: Account
    user: User
    source_ip: SourceIp
    code: Code
    trace_id: TraceId


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposureRow:
    """What stands open at the report's time, as far as events tell: public repositories, and shares.

    Events from before the period count too; a repository whose making public lies before the first event is not seen.
    """

    kind: Annotated[str, "public-repository or share"]
    state: Annotated[str, "public; open (until its date), forever, past (its date), unknown (no date can be read)"]
    resource: Annotated[str | None, "the repository"]
    subject: Annotated[str | None, "the account that it is shared with"]
    deadline: Annotated[Millis | None, "end of the share; null for forever, for none, and for public repositories"]
    since: Annotated[Millis | None, "when it came to be as it is"]
    account: Account
    user: User
    trace_id: TraceId


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRow:
    """A stretch of time and whether all its events are here. CTS itself keeps 7 days.

    complete: hourly digests (or the sequence of the store's ledger) prove that nothing is missing. gap: they prove that
    something is. unknown: nothing can prove it either way. A digest's hour is that of delivery: an hour's last events are
    delivered in the next one.
    """

    dataset: Annotated[str, "the dataset"]
    chain: Annotated[str, "bucket/region/tracker/service of the digests, or ledger; empty where there is none"]
    begin: Annotated[Millis | None, "beginning"]
    end: Annotated[Millis | None, "end"]
    state: Annotated[str, "complete, gap or unknown"]
    reason: Annotated[
        str,
        "digest, ledger-sequence · file-missing, file-changed, sequence-gap · no-digest, digest-missing, digest-unread, "
        "digest-changed, file-unread",
    ]
    digests: Annotated[int, "digests that speak of it"]
    files: Annotated[int, "trace files that they list"]
    missing: Annotated[tuple[str, ...], "what is missing, changed or cannot be read"]
    recover_by: Annotated[Millis | None, "until when CTS itself still has these events; null for complete ones"]
    recoverable: Annotated[bool, "whether that is still so at the report's time"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateRow:
    """All rows of a trace_id that stands for more than one content. Equal ones were dropped, and are counted in `inputs`."""

    trace_id: TraceId
    time: Time
    trace_name: TraceName
    rating: Rating
    code: Code
    user: User
    resource_name: ResourceName
    source_file: Annotated[str, "the file that it came in"]
    source_position: Annotated[int, "its position there, from 0"]
    differs: Annotated[bool, "false for the one that was there first"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LateRow:
    """Events of a day whose file was uploaded on a later one."""

    day: Annotated[str | None, "the day of the events (UTC), YYYY-MM-DD"]
    uploaded_day: Annotated[str | None, "the day of the upload (UTC), YYYY-MM-DD"]
    events: Count
    longest_hours: Annotated[float, "longest time from event to upload, hours"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedRow:
    """A record that could not be read. It has no readable time: rejects are those of the whole datasets."""

    dataset: Annotated[str, "the dataset"]
    file: Annotated[str, "the file"]
    position: Annotated[int, "position in the file, from 0"]
    reason: Annotated[str, "why"]
    raw: Annotated[str, "the beginning of its text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputsRow:
    """What a dataset was made of, whatever the report's scope."""

    dataset: Annotated[str, "the dataset"]
    rows: Annotated[int, "traces in it"]
    files: Annotated[int, "trace files taken"]
    digest_files: Annotated[int, "digest files taken"]
    bytes: Annotated[int, "bytes of all these files"]
    records: Annotated[int, "records read from them"]
    duplicates: Annotated[int, "equal records that were dropped"]
    elsewhere: Annotated[int, "traces that an earlier dataset of this report has too, and that are left out here"]
    rejected: Annotated[int, "records that could not be read"]
    exported: Annotated[int, "traces that came from a store's ledger"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferenceRow:
    """A difference between the events and the store's content (`audit reconcile`); only with a store."""

    kind: Annotated[str, "what kind, see `audit reconcile`"]
    name: Annotated[str, "the tag, repository or organization"]
    expected: Annotated[str, "what the events say; empty for nothing"]
    actual: Annotated[str, "what the store has; empty for nothing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingRow:
    """Something that the report found, with how bad it is: what `--fail-on` judges."""

    severity: Annotated[str, "error, warning or info"]
    code: Annotated[str, "stable code"]
    count: Annotated[int, "how many"]
    table: Annotated[str, "the table that lists them"]
    message: Annotated[str, "what it means, in English"]
    message_zh: Annotated[str, "what it means, in Chinese"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRow:
    """The report itself: one row."""

    tool_version: Annotated[str, "version of swrbatch"]
    made: Annotated[Millis, "the time that it holds for the present"]
    begin: Annotated[Millis | None, "beginning of the period, included; null for none"]
    end: Annotated[Millis | None, "end of the period, not included; null for none"]
    account: Annotated[str | None, "account it is limited to"]
    organization: Annotated[str | None, "organization it is limited to"]
    catalog: Annotated[str, "catalog of events"]
    datasets: Annotated[tuple[str, ...], "the datasets"]
    store: Annotated[str | None, "the store that the events were held against"]
    events: Annotated[int, "events in scope"]
    other_services: Annotated[int, "events of other services in the period, which count nowhere"]
    first: First
    last: Last


TABLES: Final[Mapping[str, type]] = {
    "catalog": CatalogRow,
    "days": DayRow,
    "hours": HourRow,
    "failures": FailureRow,
    "failure_codes": FailureCodeRow,
    "users": UserRow,
    "activity": ActivityRow,
    "addresses": AddressRow,
    "uncatalogued": UncataloguedRow,
    "access_changes": AccessChangeRow,
    "deletions": DeletionRow,
    "exposures": ExposureRow,
    "retention": RetentionRow,
    "duplicates": DuplicateRow,
    "late": LateRow,
    "rejects": RejectedRow,
    "inputs": InputsRow,
    "differences": DifferenceRow,
    "findings": FindingRow,
    "report": ReportRow,
}
"""The report's tables. `report` is written last."""
