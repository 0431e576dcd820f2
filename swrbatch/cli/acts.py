"""What commands about organizations, repositories and rights share: the actor, the transaction, how results are printed."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

import typer

from ..errors import ExitCode, Lang, Refused, UsageError, printable
from .options import Format, Language, answers, exits, lang, show, store_path, tell

_TOLD = 3
"""Values of something deleted that are told to people; programs get them all."""
NO_TAGS = "Write ORG/REPO, as in team/app."


@contextlib.contextmanager
def opened(given: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """The store and the actor that the options `store`, `user` and `account` name; errors end the command."""
    from ..store import Store

    with exits(_lang(given)), Store(store_path(given["store"])) as store:
        _check_texts(given)
        before = len(store.foreign)
        try:
            yield store, store.actor(given["user"], given["account"])
        finally:
            for repository, tag, digest in store.foreign[before:]:
                text = f"swrbatch: {repository}:{tag} was pushed over by something else ({digest}): its link is kept"
                tell(text)


@contextlib.contextmanager
def change(given: Mapping[str, Any], *, deleting: bool = False) -> Iterator[Any]:
    """An act that changes the store, committed at the end; with `deleting`, links of tags go with it."""
    from ..ledger.acting import acting

    with opened(given) as (store, actor):
        if deleting:
            with store.deleting(actor, dry_run=given["dry_run"]) as act:
                yield act
        else:
            with acting(store.ledger, actor, dry_run=given["dry_run"]) as act:
                yield act


@contextlib.contextmanager
def look_at(given: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """The store, and an act that only looks."""
    from ..ledger.acting import reading

    with opened(given) as (store, actor), reading(store.ledger, actor) as act:
        yield store, act


@contextlib.contextmanager
def look(given: Mapping[str, Any]) -> Iterator[Any]:
    """An act that only looks."""
    with look_at(given) as (_, act):
        yield act


def administering(store: Any, actor: Any, what: str) -> None:
    """Refused unless the actor is an administrator of the store's account."""
    from ..actors import DEFAULT_ACCOUNT
    from ..ledger.access import account_facts
    from ..rights import Act, decide, denied

    account = store.settings().get("account", DEFAULT_ACCOUNT)
    with store.ledger.read() as connection:
        decision = decide(actor, Act.GC, account_facts(connection, actor, account))
    if not decision.allowed:
        raise Refused(denied(actor, what, "", decision))


def _lang(given: Mapping[str, Any]) -> Lang:
    return lang(given.get("lang_", Language.EN))


# --- printing ----------------------------------------------------------------------------------------------------------


def show_change(made: Any, given: Mapping[str, Any]) -> None:
    """One line for people; a JSON object with before and after for programs."""
    if given["format"] is Format.JSON:
        values = {name: value for name, value in asdict(made).items() if name != "notes"}
        show(json.dumps({**values, "dry_run": given["dry_run"]}, ensure_ascii=False))
        return
    would = "would be " if given["dry_run"] and made.status != "unchanged" else ""
    detail = _difference(made.before, made.after)
    show(f"{would}{made.status} {made.kind} {made.name}" + (f": {detail}" if detail else ""))


def _difference(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    """The values of what is there now, some of what is gone; of what changed, those that did."""
    if before is None or after is None:
        known = after or dict(islice((before or {}).items(), _TOLD))
        return ", ".join(f"{name} {_short(name, value)}" for name, value in known.items() if value not in ("", None))
    changed = [name for name in after if before.get(name) != after[name]]
    return ", ".join(f"{name} {_short(name, before.get(name))} -> {_short(name, after[name])}" for name in changed)


def _short(name: str, value: Any) -> str:
    text = cell(name, value)
    return printable(text[:19] if text.startswith("sha256:") else text, 80) or '""'


def show_page(rows: Sequence[dict[str, Any]], given: Mapping[str, Any], columns: Mapping[str, str], *, key: str) -> None:
    """At most `limit` of the rows (one more was asked for): a table for people, {"rows", "next"} for programs.

    `columns` maps heads to keys; `key` is what the marker of the next page is taken from.
    """
    from .text import table

    limit = given["limit"]
    shown, more = rows[:limit], len(rows) > limit
    marker = str(shown[-1][key]) if more else None
    if given["format"] is Format.JSON:
        show(json.dumps({"rows": shown, "next": marker}, ensure_ascii=False))
        return
    show(table(list(columns), [[cell(name, row[name]) for name in columns.values()] for row in shown]))
    if marker is not None:
        tell(f"swrbatch: there are more: --marker {marker}")


def show_one(row: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """The values of one thing, one a line; a JSON object for programs."""
    if given["format"] is Format.JSON:
        show(json.dumps(row, ensure_ascii=False))
        return
    width = max(len(name) for name in row)
    show("\n".join(f"{name.ljust(width)}  {cell(name, value)}".rstrip() for name, value in row.items()))


def cell(name: str, value: Any) -> str:
    """A value of a row as people read it."""
    from ..sizes import format_size

    if name in ("created", "updated"):
        return utc(value)
    if name == "deadline" and not isinstance(value, str):
        return "forever" if value is None else utc(value)
    if name.endswith("_bytes"):
        return format_size(value)
    if isinstance(value, str) and value.startswith("sha256:"):
        return value[:19]
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else printable(value, 400)


def utc(ms: int) -> str:
    """A time in ms UTC as text, with its Z."""
    return datetime.datetime.fromtimestamp(ms / 1000, tz=datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- what people enter ---------------------------------------------------------------------------------------------------


def organization_of(text: str) -> str:
    """The name of an organization; UsageError when it cannot be one."""
    from ..policy import why_invalid

    if detail := why_invalid("namespace", text, "api"):
        raise UsageError(f"{printable(text)!r} is no organization: {detail}")
    return text


def path_of(text: str, *, judged: bool = True) -> str:
    """`ORG/REPO`; UsageError when it cannot be one. Not `judged`: the repository's own name is left to the store's rules."""
    from ..policy import why_invalid

    organization, slash, repository = text.partition("/")
    detail = "" if slash else "it has no /"
    detail = detail or why_invalid("namespace", organization, "api")
    if judged and not detail:
        detail = why_invalid("repository", repository, "api")
    if detail:
        raise UsageError(f"{printable(text)!r} is no repository ({detail}). {NO_TAGS}")
    return text


def reference_of(text: str) -> tuple[str, str]:
    """`ORG/REPO:TAG` as (ORG/REPO, TAG); UsageError when it cannot be one."""
    from ..policy import why_invalid

    path, colon, tag = text.rpartition(":")
    if not colon or "/" in tag or why_invalid("tag", tag, "api"):
        raise UsageError(f"{printable(text)!r} is no tag: write ORG/REPO:TAG, as in team/app:v1")
    return path_of(path), tag


def name_of(what: str, text: str) -> str:
    """A user or an account; UsageError when it cannot be one."""
    from ..actors import check_name

    check_name(what, text)
    return text


def _check_texts(given: Mapping[str, Any]) -> None:
    """UsageError for a value that is no text: bytes of the command line that are not UTF-8 cannot be stored or looked for."""
    for name, value in given.items():
        try:
            (value if isinstance(value, str) else "").encode()
        except UnicodeEncodeError as e:
            raise UsageError(f"{name.strip('_').replace('_', '-')} {printable(value)}: it is no valid text (UTF-8)") from e


# --- asking ------------------------------------------------------------------------------------------------------------


def confirm_word(given: str | None, what: str, *, dry_run: bool) -> None:
    """`--confirm DELETE`, or the word typed at a prompt, as the console asks for it (guide 5, 6); UsageError otherwise."""
    if dry_run:
        return
    if given is None and answers():
        given = typer.prompt(f"{what}: type DELETE to confirm", err=True, default="", show_default=False)
    if given is None:
        raise UsageError(f"{what}: this needs --confirm DELETE")
    if given != "DELETE":
        raise UsageError(f"{what}: {printable(given)!r} is not DELETE; nothing was changed")


def confirm_yes(yes: bool, what: str, *, dry_run: bool) -> None:
    """`--yes`, or a yes at a prompt; UsageError without a terminal, exit code 1 for a no."""
    if yes or dry_run:
        return
    if not answers():
        raise UsageError(f"{what}: this needs --yes where nobody can be asked")
    if not typer.confirm(f"{what}?", err=True):
        tell("swrbatch: nothing was changed")
        raise typer.Exit(int(ExitCode.REJECTED))
