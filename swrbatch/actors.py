"""Who acts: the asserted account and user, beside what the machine knows of them."""

from __future__ import annotations

import getpass
import os
from typing import Final

from .cts import Actor
from .errors import UsageError, printable

DEFAULT_ACCOUNT: Final = "default"


def current_actor(account: str, user: str | None) -> Actor:
    """The asserted (account, user), with the login name, the host and the CI job that the machine knows.

    `user` None: `$SWRBATCH_USER`, else the login name. UsageError for an empty or unprintable name.
    """
    try:
        login = getpass.getuser()
    except (KeyError, OSError):
        login = str(os.getuid())
    name = user or os.environ.get("SWRBATCH_USER") or login
    check_name("user", name)
    check_name("account", account)
    variables = ("CI_JOB_URL", "CI_JOB_ID", "BUILD_URL", "BUILD_TAG", "GITHUB_RUN_ID")
    job = next((os.environ[v] for v in variables if os.environ.get(v)), "")
    return Actor(account, name, printable(login), printable(os.uname().nodename), printable(job))


def check_name(what: str, value: str) -> None:
    """UsageError unless `value` is a name of 1 to 255 printable characters."""
    if not 1 <= len(value) <= 255 or not value.isprintable():
        raise UsageError(f"the {what} {printable(value)!r} is not a name of 1 to 255 printable characters")
