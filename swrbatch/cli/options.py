"""Options that several commands share, and the frame in which every command runs."""

from __future__ import annotations

import contextlib
import enum
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Annotated, NoReturn, TextIO

import typer

from ..digest import Cancel
from ..errors import ExitCode, Lang, Refused, SwrbatchError, UsageError, printable


class Format(enum.StrEnum):
    """How results are printed."""

    TEXT = "text"
    JSON = "json"


class Language(enum.StrEnum):
    """The language of messages."""

    EN = "en"
    ZH = "zh"


class Conflict(enum.StrEnum):
    """What happens to a tag that has another image."""

    OVERWRITE = "overwrite"
    SKIP = "skip"
    FAIL = "fail"


class Severity(enum.StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


DEFAULT_STORE = "swr-store"

StoreOption = Annotated[
    str | None, typer.Option("--store", metavar="DIR", help="The store's folder; $SWRBATCH_STORE or ./swr-store if not given.")
]
FormatOption = Annotated[Format, typer.Option("--format", help="text for people, json for programs.")]
LangOption = Annotated[Language, typer.Option("--lang", envvar="SWRBATCH_LANG", help="Language of messages: English or Chinese.")]


UserOption = Annotated[
    str | None, typer.Option("--user", metavar="NAME", help="Who acts (default $SWRBATCH_USER, else the login).")
]
AccountOption = Annotated[
    str | None, typer.Option("--account", metavar="NAME", help="The account of the actor (default the store's).")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")]
ManifestsOption = Annotated[
    str | None, typer.Option("--manifests", metavar="DIR", help="Carry out triggers in the Kubernetes manifests there.")
]
PatchOnly = Annotated[
    bool, typer.Option("--patch-only", help="Leave the manifests as they are; write patches for kubectl beside them.")
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=1000, help="Rows of a page.")]
Marker = Annotated[str, typer.Option("--marker", metavar="NAME", help="The last row of the page before.")]


def store_path(given: str | None) -> str:
    """The store's folder: the option, else `$SWRBATCH_STORE`, else `./swr-store`. UsageError for an empty option."""
    if given == "":
        raise UsageError("--store is empty: name a folder (is a variable unset?)")
    return given or os.environ.get("SWRBATCH_STORE") or DEFAULT_STORE


def store_of_names(given: str | None, name: str) -> str:
    """The folder of the store that has the image `name`. UsageError where no store was named and none is here: `name` may be the
    path of a file that is not there."""
    path = store_path(given)
    if given is None and "SWRBATCH_STORE" not in os.environ and not os.path.isdir(path):
        raise UsageError(
            f"there is no file {printable(name)}, and no store here that could have an image of that name (--store DIR)"
        )
    return path


def check_manifests(manifests: str | None, patch_only: bool) -> None:
    """UsageError unless --manifests names a folder, if it is given; --patch-only needs it."""
    if manifests is None and patch_only:
        raise UsageError("--patch-only is about --manifests DIR: name the folder")
    if manifests is not None and not os.path.isdir(manifests):
        raise UsageError(f"--manifests {printable(manifests)} is no folder")


def lang(value: Language) -> Lang:
    return "zh" if value is Language.ZH else "en"


def show(result: str | bytes) -> None:
    """Print a result on stdout, a text with a line end.

    A reader that went away (`swrbatch … | head`) changes neither what is done nor the exit code. A full disk ends with 3.
    """
    if sys.stdout is None:
        _unwritten("it is closed")
    try:
        typer.echo(result, nl=isinstance(result, str))
        sys.stdout.flush()
    except OSError as e:
        _give_up(1)
        if not isinstance(e, BrokenPipeError):
            _unwritten(str(e.strerror))


def _give_up(fd: int) -> None:
    """What is left in Python's buffer of a stream must have somewhere to go when the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), fd)


def _unwritten(reason: str) -> NoReturn:
    tell(f"swrbatch: the result cannot be written to standard output: {reason}")
    raise typer.Exit(int(ExitCode.STORE))


@contextlib.contextmanager
def exits(language: Lang = "en") -> Iterator[None]:
    """Turn swrbatch's errors into a message on stderr and an exit code; no traceback reaches a user."""
    try:
        yield
    except Refused as e:
        label, colon = ("解决办法", "：") if language == "zh" else ("way out", ": ")
        tell(f"swrbatch: {e.issue.code}: {e.issue.text(language)}", f"  {label}{colon}{e.issue.remedy(language)}")
        raise typer.Exit(int(e.exit_code)) from None
    except SwrbatchError as e:
        tell(f"swrbatch: {e}")
        raise typer.Exit(int(e.exit_code)) from None
    except KeyboardInterrupt:
        tell("swrbatch: interrupted")
        raise typer.Exit(int(ExitCode.INTERRUPTED)) from None


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a standard stream is one; None, and no, where it is closed."""
    return stream is not None and stream.isatty()


def answers() -> bool:
    """Whether somebody can be asked."""
    return is_terminal(sys.stdin)


def tell(*lines: str) -> None:
    """Lines on standard error, broken between words where that is a terminal.

    Whether anybody can take them changes neither what is done nor the exit code.
    """
    if sys.stderr is None:
        return
    if is_terminal(sys.stderr):
        from .text import set_in, terminal_columns

        columns = terminal_columns()
        lines = tuple(part for text in lines for line in text.split("\n") for part in set_in(line, columns))
    try:
        typer.echo("\n".join(lines), err=True)
    except OSError:
        _give_up(2)


@contextlib.contextmanager
def cancelled_by_signals() -> Iterator[Cancel]:
    """Ctrl-C and SIGTERM ask the run to end (it does within a second); a second Ctrl-C is not waited for."""
    cancel = Cancel()
    if threading.current_thread() is not threading.main_thread():
        yield cancel
        return

    def ask(number: int, _frame: object) -> None:
        if cancel.is_set():
            raise KeyboardInterrupt
        cancel.set()
        del number

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield cancel
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
