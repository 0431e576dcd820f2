"""The questions of a report, as SQL.

Views: `everything` (all datasets, each trace once), `told` (SWR's, within account and organization, up to the period's end),
`scoped` (that of the period). Texts of callers go into SQL as quoted literals only: a view takes no parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from ..cts import ALIASES, OWN, catalog
from .access import ACCESS, CHANGES, EXPOSURES, IDS, OPEN, WORTH_TELLING, names_sql, notable
from .export import utc_text
from .traces import HOUR_MS

if TYPE_CHECKING:
    from .report import Scope

_SAME: Final = (
    "time",
    "trace_name",
    "trace_rating",
    "code",
    "resource_type",
    "resource_name",
    "user_name",
    "request",
    "response",
)
"""What makes two rows of a trace_id the same trace: what the report reads of it."""


# As a range: only that is compared with the least and the greatest name in a row group.
_OF_LEDGER: Final = "source_file >= 'ledger:' AND source_file < 'ledger;'"


def quoted(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def moment(ms: int) -> str:
    """A time in ms UTC as an SQL literal."""
    return f"TIMESTAMPTZ '{utc_text(ms)}'"


def period(begin: int | None, end: int | None) -> str:
    """A condition on `time`: from `begin` on, before `end`."""
    bounds = [] if begin is None else [f"time >= {moment(begin)}"]
    bounds += [] if end is None else [f"time < {moment(end)}"]
    return " AND ".join(bounds) or "true"


def views(datasets: int, catalog_name: str, scope: Scope) -> Iterator[str]:
    """The statements that make the views over `dataset_0`, `dataset_1`, …, and the table `access`."""
    parts = ["SELECT * FROM dataset_0"]
    for number in range(1, datasets):
        yield _repeated(number)
        parts.append(f"SELECT * FROM dataset_{number} ANTI JOIN repeated_{number} USING (part, part_row)")
    yield f"CREATE TEMP VIEW everything AS {' UNION ALL BY NAME '.join(parts)}"
    where = ["coalesce(service_type, 'SWR') = 'SWR'", period(None, scope.end)]
    if scope.account is not None:
        where.append(f"{quoted(scope.account)} IN (user_account_name, user_account_id)")
    if scope.organization is not None:
        where.append(_of_organization(quoted(scope.organization)))
    yield f"""CREATE TEMP VIEW told AS
        SELECT *, coalesce(user_account_name, user_account_id) AS account, coalesce(user_name, user_id) AS person
        FROM everything WHERE {" AND ".join(where)}"""
    yield f"CREATE TEMP VIEW scoped AS SELECT * FROM told WHERE {period(scope.begin, None)}"
    yield f"CREATE TEMP VIEW all_services AS SELECT * FROM everything WHERE {period(scope.begin, scope.end)}"
    known = catalog(catalog_name)
    listed = ", ".join(f"({quoted(name)}, {quoted(entry.resource_type)})" for name, entry in known.items())
    yield f"CREATE TEMP TABLE entries AS SELECT * FROM (VALUES {listed}) AS t(trace_name, resource_type)"
    yield notable(period(scope.begin, None))
    yield IDS
    yield ACCESS
    yield OPEN
    yield FAILURE_ANSWERS
    spelt = [f"WHEN '{other}' THEN '{name}'" for name, other in ALIASES.items() if name in known and other not in known]
    event = f"CASE trace_name {' '.join(spelt)} ELSE trace_name END" if spelt else "trace_name"
    for statement in _AGGREGATES:
        yield statement.replace("$event", event)


def _repeated(number: int) -> str:
    """The table of those rows of a dataset that an earlier one has, found once: it reads all texts."""
    same = ", ".join(_SAME)
    earlier = " UNION ALL ".join(f"SELECT trace_id, {same} FROM dataset_{n}" for n in range(number))
    alike = " AND ".join(f"mine.{name} IS NOT DISTINCT FROM other.{name}" for name in _SAME)
    return f"""CREATE TEMP TABLE repeated_{number} AS
        SELECT part, part_row FROM dataset_{number} AS mine
        WHERE EXISTS (SELECT 1 FROM ({earlier}) AS other WHERE mine.trace_id = other.trace_id AND {alike})"""


def _of_organization(name: str) -> str:
    """A resource of an organization: ORG, ORG/…; where its name has no organization, what the request says."""
    said = "CASE WHEN json_valid(request) THEN json_extract_string(request, '$.namespace') END"
    return f"(split_part(resource_name, '/', 1) = {name} OR (NOT contains(coalesce(resource_name, ''), '/') AND {said} = {name}))"


# Aggregates that many tables are made of: each reads the datasets once. `event` is a trace_name as the catalog spells it. Hours
# are numbered since 1970, in DuckDB's own unit: µs.
_AGGREGATES: Final = (
    f"""CREATE TEMP TABLE by_hour AS SELECT *, $event AS event FROM (
        SELECT trace_name, resource_type, trace_rating, epoch_us(time) // {HOUR_MS * 1000} AS hour, count(*) AS n,
            min(time) AS first, max(time) AS last
        FROM scoped GROUP BY ALL)""",
    """CREATE TEMP TABLE by_user AS SELECT *, $event AS event FROM (
        SELECT account, person, trace_name, trace_rating, count(*) AS n FROM scoped GROUP BY ALL)""",
    # Of a user and an address.
    """CREATE TEMP TABLE by_source AS
        SELECT source_ip, account, person, trace_rating, count(*) AS n, min(time) AS first, max(time) AS last
        FROM scoped GROUP BY ALL""",
    # What is odd about traces: few have any flag.
    "CREATE TEMP TABLE flagged AS SELECT flags, time, uploaded FROM scoped WHERE flags <> []",
)
_RATINGS: Final = """sum(n)::BIGINT AS events, coalesce(sum(n) FILTER (trace_rating = 'normal'), 0)::BIGINT AS normal,
        coalesce(sum(n) FILTER (trace_rating = 'warning'), 0)::BIGINT AS warning,
        coalesce(sum(n) FILTER (trace_rating = 'incident'), 0)::BIGINT AS incident"""
_ENDS: Final = "min(first) AS first, max(last) AS last"

CATALOG: Final = f"""
    SELECT event AS trace_name, {_RATINGS},
        coalesce(sum(n) FILTER (coalesce(trace_rating NOT IN ('normal', 'warning', 'incident'), true)), 0)::BIGINT AS other,
        any_value(users) AS users, {_ENDS}
    FROM by_hour JOIN (SELECT event, count(DISTINCT (account, person)) AS users FROM by_user GROUP BY event) USING (event)
    WHERE event IN (SELECT trace_name FROM entries) GROUP BY event
"""
FLAGS: Final = """
    SELECT flag, count(*) FROM (SELECT unnest(flags) AS flag FROM flagged) GROUP BY flag
"""
UNREAD_TIMES: Final = "SELECT count(*) FROM everything WHERE time IS NULL AND coalesce(service_type, 'SWR') = 'SWR'"
ABOUT: Final = """
    SELECT coalesce(sum(n), 0)::BIGINT, epoch_ms(min(first)), epoch_ms(max(last)),
        (SELECT count(*) FROM all_services WHERE coalesce(service_type, 'SWR') <> 'SWR')
    FROM by_hour
"""
# How many there are in full of what a table may hold only the newest of: done deletions, failures by outcome's rating.
DELETED: Final = """
    SELECT coalesce(sum(n), 0)::BIGINT, coalesce(sum(n) FILTER (trace_rating = 'normal'), 0)::BIGINT
    FROM by_hour WHERE starts_with(trace_name, 'delete')
"""
CHANGED: Final = f"SELECT count(*), count(*) FILTER (done) FROM access WHERE {WORTH_TELLING} AND $period"
FAILED: Final = "SELECT outcome, sum(n)::BIGINT FROM failure_answers GROUP BY outcome"

_DAYS: Final = """
    SELECT event AS trace_name, strftime(make_timestamp(hour * 3600000000), '%Y-%m-%d') AS day, trace_rating AS rating,
        sum(n)::BIGINT AS events
    FROM by_hour WHERE event IN (SELECT trace_name FROM entries) GROUP BY ALL ORDER BY ALL
"""
_HOURS: Final = """
    SELECT make_timestamp(hour * 3600000000)::TIMESTAMPTZ AS hour, trace_rating AS rating, sum(n)::BIGINT AS events
    FROM by_hour WHERE hour IS NOT NULL GROUP BY ALL ORDER BY ALL
"""
_OUTCOME: Final = (
    "CASE WHEN trace_rating = 'incident' THEN 'incident' WHEN code SIMILAR TO '4[0-9][0-9]' THEN 'refused' ELSE 'failed' END"
)
# Answers tell reasons in these shapes: this tool's, those of SWR's API, old and new, and those of the API gateway.
_ANSWER: Final = "CASE WHEN json_valid(response) THEN response END"
_REASONS: Final = """CASE WHEN coalesce(told[1], told[2], told[3], told[4], told[5]) IS NULL THEN [] ELSE list_filter(list_concat(
        CASE WHEN told[1] IS NOT NULL THEN json_extract_string(answer, '$.codes[*]') ELSE [] END,
        CASE WHEN told[2] IS NOT NULL THEN json_extract_string(answer, '$.errors[*].errorCode') ELSE [] END,
        CASE WHEN told[3] IS NOT NULL THEN json_extract_string(answer, '$[*].errorCode') ELSE [] END,
        [told[4], told[5]]), lambda reason: reason IS NOT NULL) END"""
_TOLD: Final = """json_extract_string(answer, ['$.codes', '$.errors', '$[0].errorCode', '$.errorCode', '$.error_code',
        '$.errorMessage', '$.error_msg', '$.errors[0].errorMessage', '$[0].errorMessage', '$.message', '$.error'])"""
_MESSAGE: Final = f"""left(coalesce(CASE WHEN message NOT LIKE '["%' THEN nullif(message, '') END,
        {", ".join(f"told[{n}]" for n in range(6, 12))}), 500)"""
FAILURE_ANSWERS: Final = f"""CREATE TEMP TABLE failure_answers AS
    WITH failed AS (
        SELECT trace_name, {_OUTCOME} AS outcome, code, who, time, {_ANSWER} AS answer FROM notable WHERE failed
    ), why AS (SELECT *, {_TOLD} AS told FROM failed)
    SELECT trace_name, outcome, code, {_REASONS} AS reasons, who, count(*) AS n, min(time) AS first, max(time) AS last
    FROM why GROUP BY ALL
"""
_FAILURES: Final = f"""
    WITH failed AS (
        SELECT *, {_ANSWER} AS answer FROM scoped
        WHERE trace_rating IN ('warning', 'incident') AND $newest
    ), why AS (SELECT *, {_TOLD} AS told FROM failed)
    SELECT time, trace_name, {_OUTCOME} AS outcome, code, {_REASONS} AS reasons, {_MESSAGE} AS message,
        account, person AS user, source_ip, resource_type, resource_name, trace_id
    FROM why ORDER BY time DESC NULLS LAST, trace_id, source_position
"""
_FAILURE_CODES: Final = f"""
    SELECT trace_name, outcome, code, reason, sum(n)::BIGINT AS events, count(DISTINCT who) AS users, {_ENDS}
    FROM (
        SELECT *, unnest(CASE WHEN len(reasons) = 0 THEN [NULL] ELSE list_distinct(reasons) END) AS reason FROM failure_answers
    )
    GROUP BY trace_name, outcome, code, reason ORDER BY events DESC, trace_name, outcome, code, reason
"""
_USERS_TABLE: Final = f"""
    WITH counted AS (
        SELECT account, person, count(DISTINCT source_ip) AS addresses, {_ENDS} FROM by_source GROUP BY account, person
    )
    SELECT by_user.account, by_user.person AS user, {_RATINGS},
        coalesce(sum(n) FILTER (starts_with(trace_name, 'delete')), 0)::BIGINT AS deletions,
        coalesce(sum(n) FILTER (trace_name IN ({names_sql()}) AND trace_name <> 'createImageRepository'), 0)::BIGINT
            AS access_changes,
        any_value(addresses) AS addresses, {_ENDS}
    FROM by_user JOIN counted
        ON by_user.account IS NOT DISTINCT FROM counted.account AND by_user.person IS NOT DISTINCT FROM counted.person
    GROUP BY by_user.account, by_user.person ORDER BY events DESC, account, user
"""
_ACTIVITY: Final = """
    SELECT account, person AS user, trace_name, trace_rating AS rating, sum(n)::BIGINT AS events
    FROM by_user GROUP BY ALL ORDER BY ALL
"""
_ADDRESSES: Final = f"""
    SELECT source_ip, {_RATINGS}, count(DISTINCT (account, person)) AS users, {_ENDS}
    FROM by_source GROUP BY source_ip ORDER BY events DESC, source_ip
"""
_UNCATALOGUED: Final = """
    WITH strange AS (
        SELECT DISTINCT by_hour.trace_name, by_hour.resource_type, entries.resource_type AS expected
        FROM by_hour LEFT JOIN entries ON by_hour.event = entries.trace_name
        WHERE entries.trace_name IS NULL OR by_hour.resource_type IS DISTINCT FROM entries.resource_type
    )
    SELECT CASE WHEN expected IS NOT NULL THEN 'resource-type'
            WHEN list_contains($own, scoped.trace_name) AND scoped.tracker_name = 'swrbatch' THEN 'own-event'
            ELSE 'unknown-event' END AS finding,
        scoped.trace_name, scoped.resource_type, expected, count(*) AS events, count(DISTINCT (account, person)) AS users,
        min(time) AS first, max(time) AS last, min_by(trace_id, (time, trace_id)) AS example
    FROM scoped JOIN strange ON coalesce(scoped.trace_name, '') = coalesce(strange.trace_name, '')
        AND scoped.resource_type IS NOT DISTINCT FROM strange.resource_type
    GROUP BY ALL ORDER BY events DESC, scoped.trace_name, scoped.resource_type
"""
_DELETIONS: Final = """
    SELECT time, trace_name, coalesce(trace_rating = 'normal', false) AS done, resource_type, resource_name, account,
        person AS user, source_ip, code, trace_id
    FROM scoped WHERE starts_with(trace_name, 'delete') AND $newest ORDER BY time DESC NULLS LAST, trace_id, source_position
"""
_DUPLICATES: Final = """
    SELECT trace_id, time, trace_name, trace_rating AS rating, code, person AS user, resource_name, source_file, source_position,
        list_contains(flags, 'duplicate-differs') AS differs
    FROM told WHERE trace_id IN (SELECT trace_id FROM scoped WHERE list_contains(flags, 'duplicate-differs'))
    ORDER BY trace_id, differs, source_file, source_position
"""
_LATE: Final = """
    SELECT strftime(time AT TIME ZONE 'UTC', '%Y-%m-%d') AS day,
        strftime(uploaded AT TIME ZONE 'UTC', '%Y-%m-%d') AS uploaded_day,
        count(*) AS events, round(max(epoch_ms(uploaded) - epoch_ms(time)) / 3600000.0, 2) AS longest_hours
    FROM flagged WHERE list_contains(flags, 'late') GROUP BY ALL ORDER BY ALL
"""
ADDRESSES: Final = "SELECT count(*) FROM (SELECT DISTINCT source_ip FROM by_source)"
"""How many there are; the table holds the busiest."""
NEWEST: Final[Mapping[str, str]] = {
    "failures": "SELECT hour, n FROM by_hour WHERE trace_rating IN ('warning', 'incident')",
    "deletions": "SELECT hour, n FROM by_hour WHERE starts_with(trace_name, 'delete')",
    "access_changes": f"SELECT epoch_ms(time) // {HOUR_MS} AS hour, 1 AS n FROM access WHERE {WORTH_TELLING} AND $period",
}
"""Tables that hold the newest only, and the hours of what stands in them."""


def threshold(hours: str, most: int) -> str:
    """The hour (ms UTC) that the oldest of the newest `most` traces of a kind is in; null where there are not so many."""
    return f"""
        SELECT max(hour) * {HOUR_MS} FROM (
            SELECT hour, sum(sum(n)) OVER (ORDER BY hour DESC) AS so_far FROM ({hours}) WHERE hour IS NOT NULL GROUP BY hour
        ) WHERE so_far >= {most}
    """


def tables(at: int, within: str, most: int, newest: Mapping[str, str], since: str) -> Mapping[str, str]:
    """The questions whose answers are tables as they are.

    `at`: end of the period, ms UTC. `within`: the condition of the period. `most`: rows that a list may have, the newest events
    or the busiest addresses; `newest`: a condition for each table of `NEWEST` that no row of these misses. `since`: one that no
    event misses whose effect stands open.
    """
    few = f" LIMIT {most}"
    return {
        "days": _DAYS,
        "hours": _HOURS,
        "failures": _FAILURES.replace("$newest", newest["failures"]) + few,
        "failure_codes": _FAILURE_CODES,
        "users": _USERS_TABLE,
        "activity": _ACTIVITY,
        "addresses": _ADDRESSES + few,
        "uncatalogued": _UNCATALOGUED.replace("$own", f"[{', '.join(map(quoted, sorted(OWN)))}]"),
        "access_changes": CHANGES.replace("$period", within).replace("$newest", newest["access_changes"]) + few,
        "deletions": _DELETIONS.replace("$newest", newest["deletions"]) + few,
        "exposures": EXPOSURES.replace("$at", str(at)).replace("$since", since),
        "duplicates": _DUPLICATES + few,
        "late": _LATE,
    }


def origin(number: int) -> str:
    """How many traces of a dataset came from a ledger, and how many of them an earlier dataset of the report has."""
    left_out = f"(SELECT count(*) FROM repeated_{number})" if number else "0"
    return f"SELECT (SELECT count(*) FROM dataset_{number} WHERE {_OF_LEDGER}), {left_out}"


def reach(number: int, scope: Scope, datasets: int) -> str:
    """First and last event of SWR in a dataset within the period."""
    if datasets == 1 and scope.account is None and scope.organization is None:
        return "SELECT epoch_ms(min(first)), epoch_ms(max(last)) FROM by_hour"
    where = f"coalesce(service_type, 'SWR') = 'SWR' AND {period(scope.begin, scope.end)}"
    return f"SELECT epoch_ms(min(time)), epoch_ms(max(time)) FROM dataset_{number} WHERE {where}"


def ledger_runs(number: int) -> str:
    """A dataset's events of a ledger, in runs of sequence numbers that follow each other."""
    return f"""
        SELECT min(seq), max(seq), min(epoch_ms(time)), max(epoch_ms(time)) FROM (
            SELECT source_position AS seq, time, source_position - row_number() OVER (ORDER BY source_position) AS run
            FROM dataset_{number} WHERE {_OF_LEDGER}
        ) GROUP BY run ORDER BY 1
    """


def rejects(dataset: str, files: Sequence[str]) -> str:
    """The rejects of a dataset."""
    listed = ", ".join(quoted(path) for path in files)
    return (
        f"SELECT {quoted(dataset)} AS dataset, file, position, reason, raw FROM read_parquet([{listed}]) "
        "ORDER BY file, position, reason"
    )
