"""Triggers (guide 4.7): what happens when a tag is made or updated, and what they have done.

A trigger belongs to a repository. Every load that makes or updates a tag which an enabled trigger's condition matches writes a
run of it, as pending, in its own transaction (`note_runs`); `swrbatch.triggers` carries the runs out, in the order of the loads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from ..cts import Actor
from ..errors import Refused, UsageError, issue, printable
from ..policy import Reference
from ..rights import Act
from ..trigger_patterns import Condition, why_invalid_trigger_name
from .access import find, known_repository
from .acting import Acting, Change
from .loads import LoadState
from .schema import trigger_runs, triggers

MODES: Final = ("cce", "cci")
_MANY: Final = 400
_FIELDS: Final = (
    "enabled",
    "trigger_type",
    "condition",
    "trigger_mode",
    "app_type",
    "application",
    "container",
    "cluster_id",
    "cluster_name",
    "cluster_ns",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a trigger says, field by field as the public API names them; `container`: names, none for all.

    Raises `UsageError` for a workload that Kubernetes could not have, and for an unknown mode.
    """

    application: str
    app_type: str = "deployments"
    container: tuple[str, ...] = ()
    cluster_ns: str = "default"
    cluster_id: str = ""
    cluster_name: str = ""
    trigger_type: str = "all"
    condition: str = ""
    trigger_mode: str = "cce"
    enabled: bool = True

    def __post_init__(self) -> None:
        from ..manifests import KINDS, Workload  # not needed by a load

        if self.app_type not in KINDS:
            raise UsageError(f"the app type {printable(self.app_type)} is unknown: it is one of {', '.join(KINDS)}")
        if self.trigger_mode not in MODES:
            raise UsageError(f"the mode {printable(self.trigger_mode)} is unknown: it is one of {', '.join(MODES)}")
        for name in (self.application, *self.container):
            Workload(KINDS[self.app_type], name, self.cluster_ns)
        for what, text in (("cluster id", self.cluster_id), ("cluster name", self.cluster_name)):
            if len(text) > 255 or not text.isprintable():
                raise UsageError(f"the {what} {printable(text, 80)!r} is no name of up to 255 printable characters")

    def values(self) -> dict[str, Any]:
        """The columns of the row."""
        values = {name: getattr(self, name) for name in _FIELDS}
        return values | {"container": ",".join(self.container), "action": "update"}


def add_trigger(act: Acting, path: str, name: str, terms: Terms) -> Change:
    """Add a trigger to a repository; unchanged when it has this one already.

    Refused: organization-unknown, repository-unknown, trigger-name, trigger-condition, trigger-exists.
    """
    key, row = _begun(act, "createTrigger", Act.TRIGGER_ADD, path, name, terms.values())
    if detail := why_invalid_trigger_name(name):
        raise Refused(issue("trigger-name", place=path, name=name, detail=detail))
    values = {**terms.values(), "condition": _condition(path, terms.trigger_type, terms.condition).text}
    if row is not None:
        if any(getattr(row, column) != value for column, value in values.items()):
            raise Refused(issue("trigger-exists", place=path, repository=path, name=name))
        return act.changed("unchanged", "trigger", before=_said(row), after=_said(row))
    who = {"account": act.actor.account, "user": act.actor.user}
    act.connection.execute(insert(triggers).values(repository_id=key, name=name, created_ms=act.now, **values, **who))
    return act.changed("created", "trigger", before=None, after=_said(_row(act, key, name)))


def edit_trigger(act: Acting, path: str, name: str, given: Mapping[str, Any]) -> Change:
    """Change what a trigger says; what is not given stays. A new type without a condition is one of no condition.

    Refused: organization-unknown, repository-unknown, trigger-unknown, trigger-condition.
    """
    _, row = _begun(act, "updateTrigger", Act.TRIGGER_EDIT, path, name, dict(given))
    if row is None:
        raise Refused(issue("trigger-unknown", place=path, repository=path, name=name))
    if "trigger_type" in given and "condition" not in given:
        given = {**given, "condition": row.condition if given["trigger_type"] == row.trigger_type else ""}
    had = {column: getattr(row, column) for column in _FIELDS} | {"container": containers_of(row.container)}
    terms = Terms(**{**had, **given})
    values = {**terms.values(), "condition": _condition(path, terms.trigger_type, terms.condition).text}
    if all(getattr(row, column) == value for column, value in values.items()):
        return act.changed("unchanged", "trigger", before=_said(row), after=_said(row))
    act.connection.execute(update(triggers).where(triggers.c.id == row.id).values(**values))
    return act.changed("updated", "trigger", before=_said(row), after=_said(_row(act, row.repository_id, name)))


def remove_trigger(act: Acting, path: str, name: str) -> Change:
    """Remove a trigger with its history and what it had still to do; unchanged when there is none.

    Refused: organization-unknown, repository-unknown.
    """
    _, row = _begun(act, "deleteTrigger", Act.TRIGGER_REMOVE, path, name, {})
    if row is None:
        return act.changed("unchanged", "trigger", before=None, after=None)
    act.connection.execute(delete(triggers).where(triggers.c.id == row.id))
    return act.changed("deleted", "trigger", before=_said(row), after=None)


def end_triggers(act: Acting, path: str, key: int) -> None:
    """Remove all triggers of a repository that is about to be deleted."""
    for row in act.connection.execute(select(triggers).where(triggers.c.repository_id == key).order_by(triggers.c.name)).all():
        act.begins("deleteTrigger", f"{path}:{row.name}", {"repository": path, "name": row.name})
        act.changed("deleted", "trigger", before=_said(row), after=None)
    act.connection.execute(delete(triggers).where(triggers.c.repository_id == key))


def list_triggers(act: Acting, path: str, *, limit: int, marker: str = "") -> list[dict[str, Any]]:
    """The triggers of a repository, by name: name, enabled, trigger_type, condition, action, app_type, application, container,
    cluster_ns, cluster_id, cluster_name, trigger_mode, by (account/user), created (ms UTC), pending (runs). `limit` at most."""
    act.begins("listTriggers", path, {"name": path})
    key = _seen(act, Act.TRIGGER_LIST, path)
    pending = select(func.count()).where(trigger_runs.c.trigger_id == triggers.c.id, trigger_runs.c.state == "pending")
    statement = select(triggers, pending.scalar_subquery().label("pending"))
    statement = statement.where(triggers.c.repository_id == key, triggers.c.name > marker).order_by(triggers.c.name).limit(limit)
    return [
        {
            "name": row.name,
            **_said(row),
            "by": f"{row.account}/{row.user}",
            "created": row.created_ms,
            "pending": row.pending,
        }
        for row in act.connection.execute(statement)
    ]


def trigger_history(
    act: Acting, path: str, name: str | None = None, *, limit: int, marker: int | None = None
) -> list[dict[str, Any]]:
    """What the triggers of a repository did and have still to do, the newest first: id, trigger, tag, digest, state (pending,
    success, failed), files, error, run_id and by (of the load), created and ended (ms UTC). `limit` at most, before `marker`."""
    act.begins("listTriggers", path, {"name": path})
    key = _seen(act, Act.TRIGGER_HISTORY, path)
    if name is not None and _row(act, key, name) is None:
        raise Refused(issue("trigger-unknown", place=path, repository=path, name=name))
    statement = select(trigger_runs, triggers.c.name).join(triggers).where(triggers.c.repository_id == key)
    if name is not None:
        statement = statement.where(triggers.c.name == name)
    if marker is not None:
        statement = statement.where(trigger_runs.c.id < marker)
    return [
        {
            "id": row.id,
            "trigger": row.name,
            "tag": row.tag,
            "digest": row.digest,
            "state": row.state,
            "files": json.loads(row.files),
            "error": row.error,
            "run_id": row.run_id,
            "by": f"{row.account}/{row.user}",
            "created": row.created_ms,
            "ended": row.ended_ms,
        }
        for row in act.connection.execute(statement.order_by(trigger_runs.c.id.desc()).limit(limit))
    ]


# --- runs --------------------------------------------------------------------------------------------------------------


def note_runs(
    connection: Connection, state: LoadState, loaded: Sequence[tuple[Reference, str]], actor: Actor, run_id: str, now: int
) -> None:
    """Write down as pending what loads set off: `loaded` are references and their digests, in the order of the loads."""
    found: dict[int | None, list[tuple[int, Condition]]] = {}
    wanted = sorted({key for reference, _ in loaded if (key := state.repositories[reference.path]) is not None})
    for start in range(0, len(wanted), _MANY):
        statement = select(triggers.c.id, triggers.c.repository_id, triggers.c.trigger_type, triggers.c.condition)
        statement = statement.where(triggers.c.enabled, triggers.c.repository_id.in_(wanted[start : start + _MANY]))
        for row in connection.execute(statement.order_by(triggers.c.name)):
            found.setdefault(row.repository_id, []).append((row.id, Condition.parse(row.trigger_type, row.condition)))
    common = {"run_id": run_id, "account": actor.account, "user": actor.user, "created_ms": now}
    rows = [
        {"trigger_id": key, "tag": reference.tag, "digest": digest, "state": "pending", "files": "[]", "error": "", **common}
        for reference, digest in loaded
        for key, condition in found.get(state.repositories[reference.path], ())
        if condition.matches(reference.tag)
    ]
    if rows:
        connection.execute(insert(trigger_runs), rows)


def next_run(connection: Connection, after: int = 0) -> Any:
    """The oldest pending run behind the run `after`, with its trigger's columns; None when nothing is to be done."""
    statement = select(
        trigger_runs.c.id.label("run"), trigger_runs.c.tag, trigger_runs.c.digest, trigger_runs.c.run_id, triggers
    ).join(triggers)
    pending = statement.where(trigger_runs.c.state == "pending", trigger_runs.c.id > after)
    return connection.execute(pending.order_by(trigger_runs.c.id).limit(1)).first()


def end_run(connection: Connection, run: int, files: Sequence[str], error: str, now: int) -> None:
    """Note how a run ended."""
    values = {"state": "failed" if error else "success", "files": json.dumps(list(files)), "error": error, "ended_ms": now}
    connection.execute(update(trigger_runs).where(trigger_runs.c.id == run).values(**values))


# --- rows --------------------------------------------------------------------------------------------------------------


def _begun(act: Acting, event: str, what: Act, path: str, name: str, asked: Mapping[str, Any]) -> tuple[int, Any]:
    """Begin the act and require the right to it; the repository's id, and the trigger's row if there is one."""
    act.begins(event, f"{path}:{name}", {"repository": path, "name": printable(name), **_plain(asked)})
    key = _seen(act, what, path)
    return key, _row(act, key, name)


def _seen(act: Acting, what: Act, path: str) -> int:
    target = find(act.connection, act.actor, path, act.now)
    act.require(what, target.facts)
    return known_repository(target)


def _row(act: Acting, key: int, name: str) -> Any:
    return act.connection.execute(select(triggers).where(triggers.c.repository_id == key, triggers.c.name == name)).first()


def _condition(path: str, kind: str, text: str) -> Condition:
    try:
        return Condition.parse(kind, text)
    except UsageError as e:
        raise Refused(issue("trigger-condition", place=path, detail=str(e))) from e


def containers_of(text: str) -> tuple[str, ...]:
    """The names in the column `container`; none stands for all."""
    return tuple(name for name in text.split(",") if name)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as an event's request has them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _said(row: Row[Any]) -> dict[str, Any]:
    """A trigger as an event tells of it."""
    said = {name: getattr(row, name) for name in ("action", *_FIELDS)}
    return said | {"enabled": bool(row.enabled), "container": list(containers_of(row.container))}
