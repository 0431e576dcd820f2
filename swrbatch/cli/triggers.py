"""`swrbatch trigger …`."""

from __future__ import annotations

import enum
from typing import Annotated, Any

import typer

from ..errors import UsageError
from . import acts
from .options import AccountOption, DryRun, Format, FormatOption, LangOption, Language, Limit, Marker, StoreOption, UserOption

app = typer.Typer(rich_markup_mode=None)
trigger = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Triggers: add, list, edit, remove, history.")
app.add_typer(trigger, name="trigger")


class TriggerType(enum.StrEnum):
    """Which tags set it off."""

    ALL = "all"
    TAG = "tag"
    REGULAR = "regular"


class AppType(enum.StrEnum):
    """The kind of the workload."""

    DEPLOYMENTS = "deployments"
    STATEFULSETS = "statefulsets"


class Mode(enum.StrEnum):
    """Where the workload runs."""

    CCE = "cce"
    CCI = "cci"


Path = Annotated[str, typer.Argument(metavar="ORG/REPO", help="The repository.")]
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="1 to 64 letters, digits, _ and -; begins with a letter, ends with no _ or -.")
]
Type = Annotated[TriggerType | None, typer.Option("--type", help="All tags (default), one tag, or those of a pattern.")]
Condition = Annotated[
    str | None, typer.Option("--condition", metavar="TAG|PATTERN", help="For tag a tag; for regular a pattern of * ** ? {a,b}.")
]
Kind = Annotated[AppType | None, typer.Option("--app-type", help="The kind of the workload (default deployments).")]
Namespace = Annotated[str | None, typer.Option("--namespace", metavar="NAME", help="Its namespace (default 'default').")]
Container = Annotated[
    list[str] | None,
    typer.Option("--container", metavar="NAME", help="A container; repeatable (default all that use the repository)."),
]
Enabled = Annotated[bool | None, typer.Option("--enable/--disable", help="Whether it is set off at all (default enabled).")]
ClusterId = Annotated[str | None, typer.Option("--cluster-id", metavar="ID", help="The cluster, for the record.")]
ClusterName = Annotated[str | None, typer.Option("--cluster-name", metavar="NAME", help="The cluster, for the record.")]
ModeOption = Annotated[Mode | None, typer.Option("--mode", help="CCE (default) or CCI, for the record.")]


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a trigger that are given, as the API names them."""
    names = {"type_": "trigger_type", "condition": "condition", "app_type": "app_type", "application": "application"}
    names |= {"namespace": "cluster_ns", "container": "container", "enabled": "enabled", "mode": "trigger_mode"}
    names |= {"cluster_id": "cluster_id", "cluster_name": "cluster_name"}
    found = {field: given[option] for option, field in names.items() if given.get(option) is not None}
    if "container" in found:
        # `--container ''` is how an edit says: all of them.
        found["container"] = tuple(dict.fromkeys(name for name in found["container"] if name))
    return {name: value.value if isinstance(value, enum.StrEnum) else value for name, value in found.items()}


@trigger.command("add")
def add(
    path: Path,
    name: Name,
    application: Annotated[str, typer.Option("--application", metavar="NAME", help="The workload that is updated.")],
    type_: Type = None,
    condition: Condition = None,
    app_type: Kind = None,
    namespace: Namespace = None,
    container: Container = None,
    enabled: Enabled = None,
    cluster_id: ClusterId = None,
    cluster_name: ClusterName = None,
    mode: ModeOption = None,
    dry_run: DryRun = False,
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """Add a trigger: a new or updated tag sets the image of a workload's containers (guide 4.7).

    The import with --manifests DIR carries it out in the manifests there.
    """
    from ..ledger.triggers import Terms, add_trigger

    given = locals()
    with acts.change(given) as act:
        made = add_trigger(act, acts.path_of(path), name, Terms(**_fields(given)))
    acts.show_change(made, given)


@trigger.command("list")
def list_(
    path: Path,
    limit: Limit = 50,
    marker: Marker = "",
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """List the triggers of a repository, and how many of their runs are pending."""
    from ..ledger.triggers import list_triggers

    given = locals()
    with acts.look(given) as act:
        rows = list_triggers(act, acts.path_of(path), limit=limit + 1, marker=marker)
    for row in rows:
        row["containers"] = ", ".join(row["container"]) or "all"
    columns = {"trigger": "name", "enabled": "enabled", "type": "trigger_type", "condition": "condition", "kind": "app_type"}
    columns |= {"application": "application", "namespace": "cluster_ns", "containers": "containers", "pending": "pending"}
    acts.show_page(rows, given, {**columns, "by": "by"}, key="name")


@trigger.command("edit")
def edit(
    path: Path,
    name: Name,
    application: Annotated[str | None, typer.Option("--application", metavar="NAME", help="The workload.")] = None,
    type_: Type = None,
    condition: Condition = None,
    app_type: Kind = None,
    namespace: Namespace = None,
    container: Container = None,
    enabled: Enabled = None,
    cluster_id: ClusterId = None,
    cluster_name: ClusterName = None,
    mode: ModeOption = None,
    dry_run: DryRun = False,
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """Change a trigger; what is not given stays."""
    from ..ledger.triggers import edit_trigger

    given = locals()
    with acts.change(given) as act:
        fields = _fields(given)
        if not fields:
            raise UsageError("nothing to change: give at least one option of swrbatch trigger edit --help")
        made = edit_trigger(act, acts.path_of(path), name, fields)
    acts.show_change(made, given)


@trigger.command("remove")
def remove(
    path: Path,
    name: Name,
    dry_run: DryRun = False,
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """Remove a trigger with its history."""
    from ..ledger.triggers import remove_trigger

    given = locals()
    with acts.change(given) as act:
        made = remove_trigger(act, acts.path_of(path), name)
    acts.show_change(made, given)


@trigger.command("history")
def history(
    path: Path,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only this trigger.")] = None,
    limit: Limit = 50,
    marker: Annotated[
        int | None, typer.Option("--marker", metavar="ID", min=0, max=2**62, help="The last row of the page before.")
    ] = None,
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """List what triggers did, and what they have still to do, the newest first."""
    from ..ledger.triggers import trigger_history

    given = locals()
    with acts.look(given) as act:
        rows = trigger_history(act, acts.path_of(path), name, limit=limit + 1, marker=marker)
    for row in rows:
        row["what"] = row["error"] or ", ".join(row["files"]) or ("" if row["state"] == "pending" else "right already")
    columns = {"id": "id", "time": "created", "trigger": "trigger", "tag": "tag", "digest": "digest", "result": "state"}
    acts.show_page(rows, given, {**columns, "files or error": "what", "by": "by"}, key="id")
