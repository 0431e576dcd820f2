"""`swrbatch login-command`."""

from __future__ import annotations

import getpass
import json
import os
import sys
from typing import Annotated

import typer

from ..errors import UsageError
from .options import Format, FormatOption, StoreOption, answers, exits, show, store_path

app = typer.Typer(rich_markup_mode=None)


@app.command("login-command")
def login_command(
    project: Annotated[str, typer.Option("--project", metavar="P", help="The region's project, such as cn-north-1.")],
    registry: Annotated[str, typer.Option("--registry", metavar="HOST", help="The registry's address.")],
    temporary: Annotated[bool, typer.Option("--temporary", help="Tell how to get a command for 24 hours.")] = False,
    store: StoreOption = None,
    user: Annotated[str | None, typer.Option(metavar="NAME", help="Who acts (default $SWRBATCH_USER, else the login).")] = None,
    account: Annotated[str | None, typer.Option(metavar="NAME", help="The actor's account (default: the store's).")] = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Print the long-term docker login command of an AK/SK pair.

    AK and SK come from $SWRBATCH_AK and $SWRBATCH_SK, else from $HUAWEICLOUD_SDK_AK and $HUAWEICLOUD_SDK_SK, else from a prompt;
    never from an argument, which other users of the machine can see. What is printed is a password: it is valid for as long as
    the AK/SK pair exists. It is recorded as an event in the store that is named, or in the default one if that exists.
    """
    from ..login import TEMPORARY, Credentials, long_term_login, record_login
    from ..store import Store

    with exits():
        if temporary:
            raise UsageError(TEMPORARY)
        login = long_term_login(project, Credentials(*_asked()), registry)
        named = store is not None or bool(os.environ.get("SWRBATCH_STORE"))
        if named or Store.exists(store_path(store)):
            with Store(store_path(store)) as opened:
                actor = opened.actor(user, account)
                record_login(opened, login, actor)
        if format is Format.JSON:
            show(json.dumps({"command": login.command, "user": login.user, "key": login.key, "registry": login.registry}))
        else:
            show(login.command)


def _asked() -> tuple[str, str]:
    """AK and SK from the environment; what is not there is asked for on a terminal, the SK unseen."""
    from ..login import VARIABLES, found_credentials

    ak, sk = found_credentials(os.environ)
    if not (ak and sk) and not answers():
        pairs = ", or ".join(f"{a} and {s}" for a, s in VARIABLES)
        missing = "AK and SK are" if not ak and not sk else ("the SK is" if ak else "the AK is")
        raise UsageError(f"{missing} not set: set {pairs}; or run in a terminal to be asked")
    try:
        if not ak:
            typer.echo("AK: ", nl=False, err=True)
            ak = sys.stdin.readline().strip()
        return ak, sk or getpass.getpass("SK (not shown): ", sys.stderr)
    except EOFError:
        raise UsageError("the SK is not set: the input ended before it") from None
