"""The command line: parses, calls, prints, exits.

Commands are listed here with their one line of help; the module of a command is imported when it runs, so that `--help` stays as
fast with fifty commands as with five.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Mapping
from importlib.abc import MetaPathFinder
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

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".{COMMANDS[cmd_name][0]}", __name__)
        group = cast(Any, typer.main.get_group(module.app))
        return group.commands[cmd_name]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


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


class _WithoutPandas(MetaPathFinder):
    """Hides pandas: no command needs it, but pyarrow loads it, slower than most commands, to see whether a value is of it."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("commands do without pandas", name=fullname)


def main() -> None:
    """The entry point of the program."""
    sys.meta_path.insert(0, _WithoutPandas())
    try:
        app(prog_name="swrbatch")
    finally:
        # The process ends: looking for cycles in all that was imported would take longer than many a command.
        gc.freeze()
