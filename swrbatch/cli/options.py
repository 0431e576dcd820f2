"""Options that several commands share, and the frame in which every command runs."""

from __future__ import annotations

import contextlib
import enum
import os
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from ..errors import ExitCode, Lang, SwrbatchError


class Format(enum.StrEnum):
    """How results are printed."""

    TEXT = "text"
    JSON = "json"


class Language(enum.StrEnum):
    """The language of messages."""

    EN = "en"
    ZH = "zh"


DEFAULT_STORE = "swr-store"

StoreOption = Annotated[
    str | None, typer.Option("--store", metavar="DIR", help="The store's folder; $SWRBATCH_STORE or ./swr-store if not given.")
]
FormatOption = Annotated[Format, typer.Option("--format", help="text for people, json for programs.")]
LangOption = Annotated[Language, typer.Option("--lang", envvar="SWRBATCH_LANG", help="Language of messages: English or Chinese.")]


def store_path(given: str | None) -> str:
    """The store's folder: the option, else `$SWRBATCH_STORE`, else `./swr-store`."""
    return given or os.environ.get("SWRBATCH_STORE") or DEFAULT_STORE


def lang(value: Language) -> Lang:
    return "zh" if value is Language.ZH else "en"


def show(result: str | bytes) -> None:
    """Print a result on stdout, a text with a line end.

    A reader that went away (`swrbatch … | head`) changes neither what is done nor the exit code.
    """
    try:
        typer.echo(result, nl=isinstance(result, str))
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left in Python's buffer must have somewhere to go when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


@contextlib.contextmanager
def exits() -> Iterator[None]:
    """Turn swrbatch's errors into a message on stderr and an exit code; no traceback reaches a user."""
    try:
        yield
    except SwrbatchError as e:
        typer.echo(f"swrbatch: {e}", err=True)
        raise typer.Exit(int(e.exit_code)) from None
    except KeyboardInterrupt:
        typer.echo("swrbatch: interrupted", err=True)
        raise typer.Exit(int(ExitCode.INTERRUPTED)) from None
