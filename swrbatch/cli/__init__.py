"""The command line: parses, calls, prints, exits.

Commands are listed here with their one line of help; the module of a command is imported when it runs, so that `--help` stays as
fast with fifty commands as with five.
"""

from __future__ import annotations

import enum
import gc
import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, cast

import typer
from typer.core import TyperGroup

COMMANDS: Mapping[str, tuple[str, str]] = {
    "init": ("store", "Make a store and set its registry, region, account and quota."),
    "check": ("batch", "Check image archives against structure, digests, names and limits; store nothing."),
    "import": ("batch", "Check image archives and load what passes into a store."),
    "images": ("store", "List the images of a store that the actor may download."),
    "export": ("export", "Write stored images to a file or folder that docker, podman and skopeo load."),
    "inspect": ("inspect", "Look inside an archive or a stored image: config, layers, efficiency, waste."),
    "dedupe": ("dedupe", "Show what the images of a batch share: layers, files, common bases; what that saves."),
    "login-command": ("login", "Print the long-term docker login command of an AK/SK pair."),
    "verify": ("store", "Check a store's blobs, links, tags and events against each other."),
    "org": ("organizations", "Organizations: create, list, show, delete."),
    "repo": ("repositories", "Repositories and their attributes: create, list, show, edit, delete."),
    "tag": ("tags", "Tags of a repository: list, show, delete."),
    "grant": ("grants", "Permissions on organizations and repositories: set, list, revoke."),
    "share": ("shares", "Sharing of private repositories with other accounts: add, list, edit, remove."),
    "trigger": ("triggers", "Triggers of repositories: add, list, edit, remove, history."),
    "sync": ("sync", "Copy images from one store to another, only what is missing there."),
    "run": ("pipeline", "Bring a store to what a pipeline declares; --dry-run prints the plan."),
    "gc": ("sweep", "Remove blobs that nothing needs any more."),
    "admin": ("administrators", "Account administrators: add, list, remove."),
    "audit": ("audit", "The audit trail: catalog, ingest, export, query, report, reconcile, verify, prune."),
    "lint": ("lint", "Check Dockerfiles, archives, stored images and workloads against the guide's practices."),
    "explain": ("explain", "Explain a code, or the text of an error: symptom, cause, way out."),
    "serve-config": ("store", "Print the config.yml with which a stock registry serves a store."),
}


class LazyGroup(TyperGroup):
    """A group whose commands are imported when they are used."""

    def get_params(self, ctx: Any) -> list[Any]:
        return [_lean_parameter(each) for each in super().get_params(ctx)]

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".{COMMANDS[cmd_name][0]}", __name__)
        group = cast(Any, typer.main.get_group(module.app))
        return _lean(group.commands[cmd_name])

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _lean(command: Any) -> Any:
    """A command, and those below it, that converts values only where there is something to convert.

    For each option, given or not, typer builds a validator of pydantic: that and importing pydantic take longer than many a
    command. Text, a choice that there is, a default and what is not given need none.
    """
    for member in getattr(command, "commands", {}).values():
        _lean(member)
    all_params = command.get_params
    command.get_params = lambda context: [_lean_parameter(each) for each in all_params(context)]
    return command


def _lean_parameter(parameter: Any) -> Any:
    if "process_value" not in vars(parameter):
        parameter.process_value = _conversion(parameter)
    return parameter


def _conversion(parameter: Any) -> Callable[[Any, Any], Any]:
    convert, wanted = parameter.process_value, parameter.type_descriptor.annotation
    several = parameter.multiple or parameter.nargs != 1
    choice = isinstance(wanted, type) and issubclass(wanted, enum.StrEnum)

    def process_value(context: Any, value: Any) -> Any:
        if value is None and not parameter.required:
            nothing = () if several else None
            return nothing if parameter.callback is None else parameter.callback(context, parameter, nothing)
        if parameter.callback is None:
            if several and wanted == list[str] and value and all(isinstance(each, str) for each in value):
                return list(value)
            if type(value) is wanted:  # text, or a default
                return value
            if choice and value in list(wanted):
                return wanted(value)
        try:
            return convert(context, value)
        except typer.BadParameter as e:
            e.message = e.message.removeprefix("Value error, ")
            raise

    return process_value


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Container image archives, checked, loaded and audited in bulk, offline.",
    epilog="Exit codes: 0 all loaded or unchanged; 1 something was rejected; 2 wrong usage; "
    "3 the store or the ledger failed; 130 interrupted.",
)


def _version(asked: bool) -> None:
    if asked:
        from .. import __version__

        typer.echo(f"swrbatch {__version__}")
        raise typer.Exit


@app.callback()
def _root(version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version.")) -> None:
    del version


class _WithoutPandas:
    """Hides pandas: no command needs it, but pyarrow loads it, slower than most commands, to see whether a value is of it."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("commands do without pandas", name=fullname)


def main() -> None:
    """The entry point of the program."""
    # What is imported and what a run keeps is no garbage: looking for some every 700 objects took a tenth of the start.
    gc.set_threshold(50_000)
    sys.meta_path.insert(0, _WithoutPandas())
    try:
        app(prog_name="swrbatch")
    finally:
        # The process ends: looking for cycles in all that was imported would take longer than many a command. (DuckDB's binding
        # would call leaked what is left then, on stderr.)
        if "duckdb" not in sys.modules:
            gc.freeze()
