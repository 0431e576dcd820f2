"""What `init` sets: written once, changed by administrators only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import update

from ..errors import UsageError
from ..rights import Act
from .access import account_facts, make_first_administrator
from .acting import Acting
from .loads import account_id, read_settings, write_settings
from .schema import settings

CHANGEABLE: Final = frozenset({"org_quota", "require_profile"})
"""Settings that can become something else (guide 9.1.5: quotas can be raised)."""


def set_up(
    act: Acting, given: Mapping[str, str], defaults: Mapping[str, str], *, place: str, asserted: bool = True
) -> dict[str, str]:
    """Set what is given and the defaults of the rest; what is set stays. Returns all settings.

    `place` is the store, for messages. The actor becomes the administrator of an account that has none. Another value than the
    one that is set is a `UsageError`, but administrators of the store's account may change those in `CHANGEABLE` (others:
    Refused). Not `asserted`: nobody in particular acts, there is nobody to check, to make an administrator or to record.
    """
    have = read_settings(act.connection)
    changes = {name: value for name, value in given.items() if name in have and have[name].lower() != value.lower()}
    for name in changes.keys() - CHANGEABLE:
        raise UsageError(f"the store {place} exists with {name} = {have[name]}; it cannot become {changes[name]}")
    changes |= {name: value for name, value in given.items() if have and name in CHANGEABLE - have.keys()}
    write_settings(act.connection, {**defaults, **given})
    account = have.get("account") or {**defaults, **given}["account"]
    account_id(act.connection, account, act.now)
    if asserted:
        _record(act, account, changes, have)
    for name, value in changes.items():
        act.connection.execute(update(settings).where(settings.c.name == name).values(value=value))
    return read_settings(act.connection)


def _record(act: Acting, account: str, changes: Mapping[str, str], have: Mapping[str, str]) -> None:
    """The events of the first administrator and of changed settings, to which only an administrator has the right."""
    if act.actor.account == account and make_first_administrator(act.connection, act.actor, act.now):
        one = {"account": account, "user": act.actor.user}
        act.begins("createAdministrator", act.actor.user, one)
        act.changed("created", "administrator", before=None, after={**one, "level": "administrator"})
    if changes:
        act.begins("updateSettings", "store", changes)
        act.require(Act.INIT, account_facts(act.connection, act.actor, account))
        before: dict[str, Any] = {name: have.get(name) for name in changes}
        act.changed("updated", "settings", before=before, after=dict(changes))
