"""The long-term login command (guide 4.2): computed here, from the AK/SK pair alone, as the guide's shell line does it.

    printf "$AK" | openssl dgst -binary -sha256 -hmac "$SK" | od -An -vtx1 | sed ...
    docker login -u [region project]@[AK] -p [key] [registry]

The key is HMAC-SHA256 of the AK under the SK, in hexadecimal. It logs in for as long as the AK/SK pair exists; the SK cannot be
computed from it, and goes nowhere: to no file, event, log or other process.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from .cts import Actor, new_run_id, new_trace, now_ms
from .errors import UsageError, printable
from .ledger.events import append_events
from .policy import is_registry
from .store import Store

VARIABLES: Final = (("SWRBATCH_AK", "SWRBATCH_SK"), ("HUAWEICLOUD_SDK_AK", "HUAWEICLOUD_SDK_SK"))
"""Where AK and SK are looked for, a pair at a time; the second is that of the official SDKs."""
TEMPORARY: Final = (
    "a temporary login command can only come from the service, for it holds a token that the service makes: in SWR's console "
    "click Overview, then Login Command at the top right (guide 4.1); it is valid for 24 hours. "
    "Leave --temporary out for the long-term one"
)
_AK: Final = re.compile(r"[A-Za-z0-9]{1,128}", re.ASCII)
_PROJECT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Credentials:
    """An AK/SK pair. `repr` does not show the SK."""

    ak: str
    sk: str = field(repr=False)

    def __post_init__(self) -> None:
        """Raises `UsageError`, which does not show the SK."""
        if not _AK.fullmatch(self.ak):
            raise UsageError("the AK is no access key ID: letters and digits, as in the file that the console gave (guide 4.2)")
        if not self.sk or not self.sk.isascii() or not self.sk.isprintable() or " " in self.sk:
            raise UsageError("the SK is no secret access key: printable characters without spaces, as in the console's file")

    def key(self) -> str:
        """The login key: hex HMAC-SHA256 of the AK under the SK, 64 characters."""
        return hmac.new(self.sk.encode("ascii"), self.ak.encode("ascii"), hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What logs in: `docker login -u user -p key registry`. The key is a password; `repr` does not show it."""

    project: str
    ak: str
    key: str = field(repr=False)
    registry: str

    @property
    def user(self) -> str:
        return f"{self.project}@{self.ak}"

    @property
    def command(self) -> str:
        """The guide's line. Every part of it is checked to need no quotes."""
        return f"docker login -u {self.user} -p {self.key} {self.registry}"


def found_credentials(environ: Mapping[str, str]) -> tuple[str, str]:
    """AK and SK from the first pair of variables of which one is set; "" for what is not set."""
    for ak, sk in VARIABLES:
        if environ.get(ak) or environ.get(sk):
            return environ.get(ak, ""), environ.get(sk, "")
    return "", ""


def long_term_login(project: str, credentials: Credentials, registry: str) -> Login:
    """The login for a region's project, such as `cn-north-1`. `UsageError` for a project or a registry that is none."""
    if not _PROJECT.fullmatch(project):
        raise UsageError(
            f"--project {printable(project)!r} is no name of a region's project, such as cn-north-1 (guide 4.2, step 2)"
        )
    if not is_registry(registry):
        raise UsageError(f"--registry {printable(registry)!r} is no host[:port], such as swr.cn-north-1.myhuaweicloud.com")
    return Login(project=project, ak=credentials.ak, key=credentials.key(), registry=registry)


def record_login(store: Store, login: Login, actor: Actor) -> None:
    """The event `createDockerConfig` of a login command that is about to be shown. Neither SK nor key stands in it."""
    now = now_ms()
    trace = new_trace(
        "createDockerConfig",
        actor=actor,
        run_id=new_run_id(now),
        time=now,
        record_time=now,
        resource_name=login.project,
        request={"ak": login.ak, "project": login.project, "registry": login.registry},
        response={"term": "long-term"},
    )
    with store.ledger.write() as connection:
        append_events(connection, [trace])
