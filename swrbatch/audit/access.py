"""Who may use what: permission, sharing and visibility events, with what held before and after, and what stands open.

No trace of SWR was ever published, so requests and answers are read in every shape that is known: the bodies of SWR's API
(`auth` 1, 3, 7; `access_domain`, `permit`, `deadline`; `is_public`), one object, an array of them (a row for each), an array of
plain ids (revocations), and `before` and `after` where an event says them itself, as those of this tool's stores do. Where it
does not, what held before is what the last change seen of the same resource and subject left; where there is none, it cannot be
known, and null says so. What no known key holds stands as the request's own text, cut to 200 characters.

Everything is SQL over the table `notable`, which holds what these changes and failures are told from: millions of events are
nothing special. What is only shown of an event (trace_id, who, from where) is read again for those that are shown.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

_THINGS: Final = {
    "permission": ("UserNamespaceAuth", "UserRepositoryAuth", "Administrator"),
    "share": ("ImageRepositoryAccessDomain", "RepoShare"),
}
KINDS: Final = {
    **{f"{verb}{thing}": kind for kind, ts in _THINGS.items() for thing in ts for verb in ("create", "update", "delete")},
    "createImageRepository": "visibility",
    "updateImageRepository": "visibility",
}
"""The events that change who may use what (of the guide's catalog, and today's), and what each is about."""
_SUBJECT: Final = ("user_name", "user", "to", "access_domain", "with", "shared_with", "account", "user_id", "id")
_LEVEL: Final = ("auth", "level", "permission", "permit", "is_public", "visibility")
_DEADLINE: Final = ("deadline", "until")
_REPOSITORY: Final = ("repository", "repo", "repo_name", "name")
_STATES: Final = ("namespace", "before", "after", "previous")
_KEYS: Final = (*_SUBJECT, *_LEVEL, *_DEADLINE, *_REPOSITORY, *_STATES)
_GRANT_KEYS: Final = (*_LEVEL, *_DEADLINE)


def names_sql() -> str:
    """The events as a list of SQL texts."""
    return ", ".join(f"'{name}'" for name in KINDS)


def _one_of(kinds: Collection[str]) -> str:
    """Whether an event is of these kinds."""
    names = ", ".join(f"'{name}'" for name, kind in KINDS.items() if kind in kinds)
    return f"list_contains([{names}], trace_name)"


_KIND: Final = " ".join(f"WHEN {_one_of((kind,))} THEN '{kind}'" for kind in dict.fromkeys(KINDS.values()))


def _values(text: str, keys: tuple[str, ...]) -> str:
    """The values of these keys of a JSON object, as texts, by one reading; nulls for anything else."""
    paths = ", ".join(f"'$.{key}'" for key in keys)
    return f"CASE WHEN json_valid({text}) THEN json_extract_string({text}, [{paths}]) END"


def _pick(values: str, wanted: tuple[str, ...], keys: tuple[str, ...] = _KEYS) -> str:
    """The first of the wanted keys that has a value."""
    return "coalesce(" + ", ".join(f"nullif({values}[{keys.index(key) + 1}], '')" for key in wanted) + ")"


def _grant(level: str, deadline: str) -> str:
    """What is granted, in words: a level, a visibility, or a share with its end."""
    return f"""CASE kind
        WHEN 'permission' THEN CASE {level} WHEN '1' THEN 'read' WHEN '3' THEN 'edit' WHEN '7' THEN 'manage' ELSE {level} END
        WHEN 'visibility' THEN CASE lower({level}) WHEN 'true' THEN 'public' WHEN 'false' THEN 'private' ELSE {level} END
        ELSE CASE WHEN {deadline} IS NULL THEN {level}
            ELSE coalesce({level}, 'read') || CASE {deadline} WHEN 'forever' THEN ', forever' ELSE ' until ' || {deadline} END END
        END"""


def _state(text: str) -> str:
    """A state that an event says itself: an object like a request, or one word."""
    values = _values(text, _GRANT_KEYS)
    told = _grant(f"({_pick(values, _LEVEL, _GRANT_KEYS)})", f"({_pick(values, _DEADLINE, _GRANT_KEYS)})")
    return f"CASE WHEN {text} IS NULL THEN NULL WHEN starts_with({text}, '{{') THEN {told} ELSE {_grant(text, 'NULL')} END"


def _visible() -> str:
    """Whether an event of a repository speaks of its visibility at all: most do not, and need no closer look."""
    return " OR ".join(f"contains({text}, '{key}')" for text in ("request", "response") for key in ("is_public", "visibility"))


def notable(within: str) -> str:
    """The table `notable`: what can be `changes`, at any time, failures (`failed`) `within` the period, and deletions.

    Requests and responses are most of a dataset's bytes: they are read here, once.
    """
    return f"""
        CREATE TEMP TABLE notable AS
        SELECT part, part_row, time, source_position, trace_name, trace_rating, code, resource_name, hash(account, person) AS who,
            {_one_of(KINDS.values())} AS changes, CASE WHEN changes THEN request END AS request, response,
            coalesce(trace_rating IN ('warning', 'incident') AND {within}, false) AS failed
        FROM told WHERE failed OR trace_name = 'deleteImageRepository'
            OR (changes AND (NOT {_one_of(("visibility",))} OR {_visible()}))
    """


# Grants name a user by name and id, revocations by the id alone.
IDS: Final = """
    CREATE TEMP TABLE ids AS
    WITH items AS (
        SELECT unnest(
            CASE WHEN starts_with(request, '[') THEN json_extract(request, '$[*]')::VARCHAR[] ELSE [request] END) AS item
        FROM notable
        WHERE trace_name LIKE '%Auth' AND contains(request, 'user_id') AND contains(request, 'user_name') AND json_valid(request)
    )
    SELECT item::JSON->>'$.user_id' AS id, min(item::JSON->>'$.user_name') AS name FROM items
    WHERE id <> '' AND item::JSON->>'$.user_name' <> '' GROUP BY 1
"""

ACCESS: Final = f"""
    CREATE TEMP TABLE access AS
    WITH raw AS (
        SELECT part, part_row, time, source_position, trace_name, resource_name, CASE {_KIND} END AS kind,
            substr(trace_name, 1, 6) AS action, trace_rating = 'normal' AS done, request,
            {_values("response", ("before", "after", "previous"))} AS answer
        FROM notable WHERE changes
    ), items AS (
        SELECT * EXCLUDE (request), request AS asked, unnest(
            CASE WHEN starts_with(request, '[') AND json_valid(request) AND json_array_length(request) > 0
            THEN json_extract(request, '$[*]')::VARCHAR[] ELSE [request] END) AS item
        FROM raw
    ), parsed AS (
        SELECT *, {_values("item", _KEYS)} AS said FROM items
    ), picked AS (
        SELECT * EXCLUDE (said, answer), {_pick("said", ("namespace",))} AS organization, {_pick("said", _LEVEL)} AS level,
            {_pick("said", _DEADLINE)} AS deadline, {_pick("said", _SUBJECT)} AS someone, {_pick("said", _REPOSITORY)} AS
            repository, coalesce(answer[1], {_pick("said", ("before",))}, answer[3], {_pick("said", ("previous",))}) AS old,
            coalesce(answer[2], {_pick("said", ("after",))}) AS new
        FROM parsed
    ), named AS (
        SELECT *,
            CASE WHEN organization IS NULL OR contains(resource_name, '/') OR contains(trace_name, 'UserNamespaceAuth')
                THEN coalesce(resource_name, organization)
                ELSE organization || '/' || coalesce(repository, resource_name) END AS resource,
            CASE WHEN kind = 'visibility' THEN NULL WHEN starts_with(item, '"') AND json_valid(item) THEN item::JSON->>'$'
                ELSE someone END AS subject,
            {_state("old")} AS was,
            CASE WHEN new IS NULL THEN {_grant("level", "deadline")} ELSE {_state("new")} END AS becomes,
            CASE WHEN new IS NULL THEN deadline ELSE {_pick(_values("new", _GRANT_KEYS), _DEADLINE, _GRANT_KEYS)} END AS until
        FROM picked
    ), changed AS (
        SELECT part, part_row, time, source_position, kind, action, done, resource, coalesce(ids.name, subject) AS subject, until,
            CASE WHEN action = 'delete' THEN 'none' WHEN becomes IS NOT NULL THEN becomes
                WHEN kind <> 'visibility' THEN nullif(left(asked, 200), '') END AS after,
            CASE WHEN was IS NOT NULL THEN was WHEN action = 'create' THEN 'none' END AS told_before
        FROM named LEFT JOIN ids ON kind = 'permission' AND subject = ids.id
    )
    SELECT *, hash(kind, resource, subject) AS key FROM changed WHERE after IS NOT NULL
"""
"""All changes up to the end of the period; `told_before` is what the event says that held before, `key` what it is about."""

# A repository is private at birth: only one that is born public is a change worth telling.
WORTH_TELLING: Final = "NOT (kind = 'visibility' AND action = 'create' AND after <> 'public')"
CHANGES: Final = f"""
    WITH judged AS (
        SELECT *, last_value(CASE WHEN done THEN after END IGNORE NULLS) OVER earlier AS earlier
        FROM access WHERE key IN (SELECT key FROM access WHERE {WORTH_TELLING} AND $period AND $newest)
        WINDOW earlier AS (PARTITION BY key ORDER BY time, source_position, part, part_row
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
    )
    SELECT time, kind, action, coalesce(done, false) AS done, resource, subject, coalesce(told_before, earlier) AS before, after,
        CASE WHEN told_before IS NOT NULL THEN 'event' WHEN earlier IS NOT NULL THEN 'earlier' END AS before_source, account,
        person AS user, source_ip, trace_name, trace_rating AS rating, code, trace_id
    FROM judged JOIN (
        SELECT part, part_row, account, person, source_ip, trace_name, trace_rating, code, trace_id FROM told
        WHERE {_one_of(KINDS.values())} AND $period AND $newest
    ) USING (part, part_row)
    WHERE {WORTH_TELLING} AND $period AND $newest
    ORDER BY time DESC NULLS LAST, trace_id, subject, source_position
"""

OPEN: Final = """
    CREATE TEMP TABLE open AS
    WITH gone AS (
        SELECT resource_name AS resource, max(time) AS time FROM notable
        WHERE trace_name = 'deleteImageRepository' AND trace_rating = 'normal' GROUP BY 1
    ), latest AS (
        SELECT * FROM access WHERE done AND kind IN ('share', 'visibility')
        QUALIFY row_number() OVER (PARTITION BY key
            ORDER BY time DESC NULLS LAST, source_position DESC, part DESC, part_row DESC) = 1
    )
    SELECT latest.*, coalesce(try_cast(until AS TIMESTAMPTZ),
        CASE WHEN regexp_full_match(until, '[0-9]{12,14}') THEN epoch_ms(until::BIGINT)::TIMESTAMPTZ END) AS moment
    FROM latest LEFT JOIN gone USING (resource)
    WHERE (gone.time IS NULL OR latest.time > gone.time) AND after NOT IN ('none', 'private')
        AND (kind = 'share' OR after = 'public')
"""
"""What stands open at the end of the period. Most of it is not old: see `OLDEST_OPEN`."""

OLDEST_OPEN: Final = "SELECT CASE WHEN count(time) = count(*) THEN epoch_ms(min(time)) END FROM open"
"""Before when nothing is that stands open (ms UTC); null where that is not known."""

EXPOSURES: Final = f"""
    SELECT CASE kind WHEN 'share' THEN 'share' ELSE 'public-repository' END AS kind,
        CASE WHEN kind = 'visibility' THEN 'public' WHEN until = 'forever' THEN 'forever' WHEN moment IS NULL THEN 'unknown'
            WHEN epoch_ms(moment) <= $at THEN 'past' ELSE 'open' END AS state,
        resource, subject, CASE WHEN kind = 'share' AND isfinite(moment) THEN moment END AS deadline, time AS since,
        account, person AS user, trace_id
    FROM open JOIN (
        SELECT part, part_row, account, person, trace_id FROM told WHERE {_one_of(("share", "visibility"))} AND $since
    ) USING (part, part_row)
    ORDER BY 1, 2, resource, subject, trace_id
"""
