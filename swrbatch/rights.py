"""Who may do what: one pure function over values, called once for each act (guide 4.5, 4.6 and 6).

    decide(actor, act, facts) -> Decision

read is to download only; edit is also to upload, to edit attributes and to create triggers; manage is also to delete images and
versions, to grant and to share. A level holds for a whole organization or for one repository, and the higher of the two counts.
An administrator of an account manages everything of that account without being listed. Another account downloads what is public
or what is shared with it, and nothing else. An upload by the page needs edit on the ORGANIZATION (guide 6, the note).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from .cts import Actor
from .errors import Issue, issue


class Level(enum.IntEnum):
    """A permission, with the number that the public API gives it; 0 for none."""

    NONE = 0
    READ = 1
    EDIT = 3
    MANAGE = 7


LEVELS: Final[Mapping[str, Level]] = MappingProxyType({level.name.lower(): level for level in Level if level})
"""The levels that a grant can have, by name."""


class Act(enum.StrEnum):
    """What somebody may want to do, called as the command that does it."""

    ORG_CREATE = "org create"
    ORG_LIST = "org list"
    ORG_SHOW = "org show"
    ORG_DELETE = "org delete"
    REPO_CREATE = "repo create"
    REPO_LIST = "repo list"
    REPO_SHOW = "repo show"
    REPO_EDIT = "repo edit"
    REPO_DELETE = "repo delete"
    TAG_LIST = "tag list"
    TAG_SHOW = "tag show"
    TAG_DELETE = "tag delete"
    ORG_GRANT_SET = "grant set --org"
    ORG_GRANT_LIST = "grant list --org"
    ORG_GRANT_REVOKE = "grant revoke --org"
    REPO_GRANT_SET = "grant set --repo"
    REPO_GRANT_LIST = "grant list --repo"
    REPO_GRANT_REVOKE = "grant revoke --repo"
    SHARE_ADD = "share add"
    SHARE_LIST = "share list"
    SHARE_EDIT = "share edit"
    SHARE_REMOVE = "share remove"
    TRIGGER_ADD = "trigger add"
    TRIGGER_LIST = "trigger list"
    TRIGGER_EDIT = "trigger edit"
    TRIGGER_REMOVE = "trigger remove"
    TRIGGER_HISTORY = "trigger history"
    LOGIN_COMMAND = "login-command"
    IMPORT = "import"
    EXPORT = "export"
    SYNC_FROM = "sync --from"
    SYNC_TO = "sync --to"
    INIT = "init"
    GC = "gc"
    ADMIN_ADD = "admin add"
    ADMIN_REMOVE = "admin remove"
    ADMIN_LIST = "admin list"


class Sharing(enum.StrEnum):
    """Whether a repository is shared with the actor's account."""

    ABSENT = "absent"
    EXPIRED = "expired"
    LIVE = "live"


def sharing(deadline_ms: int | None, now: int) -> Sharing:
    """The state at `now` (ms UTC) of a share that ends at `deadline_ms`, None for never: at the deadline it gives nothing."""
    return Sharing.LIVE if deadline_ms is None or now < deadline_ms else Sharing.EXPIRED


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of the actor and of the organization or repository that the act is about.

    `account` is the one it belongs to, `name` is `organization` or `organization/repository`. `administrator`: the actor is one
    of their own account. `organization` and `repository` are the levels granted to the actor. `profile` is that of an import.
    `administrators` are users of `account` who can give what is missing, for the message only.
    """

    account: str
    name: str = ""
    administrator: bool = False
    organization: Level = Level.NONE
    repository: Level = Level.NONE
    public: bool = False
    sharing: Sharing = Sharing.ABSENT
    profile: str = "client"
    administrators: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer. A refusal says what is missing and who can give it, in English and Chinese."""

    allowed: bool
    missing: str = ""
    missing_zh: str = ""
    ask: str = ""
    ask_zh: str = ""


@dataclass(frozen=True, slots=True)
class _Need:
    """What an act needs: a level on something, or nothing. `download`: what is public or shared will do."""

    on: Literal["nothing", "organization", "repository", "account"]
    level: Level = Level.NONE
    download: bool = False


_ANYONE: Final = _Need("nothing")
_DOWNLOAD: Final = _Need("repository", Level.READ, download=True)
_SEE: Final = _Need("repository", Level.READ)
_EDIT: Final = _Need("repository", Level.EDIT)
_MANAGE: Final = _Need("repository", Level.MANAGE)
_ADMINISTER: Final = _Need("account", Level.MANAGE)
_NEEDS: Final[Mapping[Act, _Need]] = MappingProxyType(
    {
        # Lists hold what the actor may see; there is nothing to refuse.
        **dict.fromkeys((Act.ORG_CREATE, Act.ORG_LIST, Act.REPO_LIST, Act.LOGIN_COMMAND), _ANYONE),
        **dict.fromkeys((Act.ORG_SHOW, Act.ORG_GRANT_LIST), _Need("organization", Level.READ)),
        **dict.fromkeys((Act.ORG_DELETE, Act.ORG_GRANT_SET, Act.ORG_GRANT_REVOKE), _Need("organization", Level.MANAGE)),
        # A push makes its repository: so whoever may upload into the organization may make one.
        Act.REPO_CREATE: _Need("organization", Level.EDIT),
        **dict.fromkeys((Act.REPO_SHOW, Act.TAG_LIST, Act.TAG_SHOW, Act.EXPORT, Act.SYNC_FROM), _DOWNLOAD),
        **dict.fromkeys((Act.REPO_GRANT_LIST, Act.SHARE_LIST, Act.TRIGGER_LIST, Act.TRIGGER_HISTORY), _SEE),
        **dict.fromkeys((Act.REPO_EDIT, Act.IMPORT, Act.SYNC_TO), _EDIT),
        **dict.fromkeys((Act.TRIGGER_ADD, Act.TRIGGER_EDIT, Act.TRIGGER_REMOVE), _EDIT),
        **dict.fromkeys((Act.REPO_DELETE, Act.TAG_DELETE, Act.REPO_GRANT_SET, Act.REPO_GRANT_REVOKE), _MANAGE),
        **dict.fromkeys((Act.SHARE_ADD, Act.SHARE_EDIT, Act.SHARE_REMOVE), _MANAGE),
        **dict.fromkeys((Act.INIT, Act.GC, Act.ADMIN_ADD, Act.ADMIN_REMOVE, Act.ADMIN_LIST), _ADMINISTER),
    }
)
_ZH: Final = {Level.READ: "读取", Level.EDIT: "编辑", Level.MANAGE: "管理"}


def decide(actor: Actor, act: Act, facts: Facts) -> Decision:
    """Whether the actor may do this."""
    need = _NEEDS[act]
    if act is Act.IMPORT and facts.profile == "page":
        need = _Need("organization", Level.EDIT)
    if need.on == "nothing" or _holds(actor, need, facts):
        return Decision(allowed=True)
    return _refusal(actor, need, facts)


def _holds(actor: Actor, need: _Need, facts: Facts) -> bool:
    if need.download and (facts.public or facts.sharing is Sharing.LIVE):
        return True
    if actor.account != facts.account:
        # Grants are for users of the account (guide 6); another one has what is shared, and no more.
        return False
    if facts.administrator:
        return True
    if need.on == "organization":
        return facts.organization >= need.level
    return need.on == "repository" and max(facts.organization, facts.repository) >= need.level


def _refusal(actor: Actor, need: _Need, facts: Facts) -> Decision:
    account, name = facts.account, facts.name
    if actor.account != account:
        if not need.download:
            return Decision(
                allowed=False,
                missing=f"a user of the account {account}",
                missing_zh=f"须为账号{account}的用户",
                ask=f"Act as a user of the account {account} (--account).",
                ask_zh=f"以账号{account}的用户操作（--account）。",
            )
        ended = facts.sharing is Sharing.EXPIRED
        return Decision(
            allowed=False,
            missing="a public image, or one shared with the account " + actor.account + (" (the share has expired)" * ended),
            missing_zh=f"镜像须公开或已共享给账号{actor.account}" + "（共享已过期）" * ended,
            ask=f"Somebody with manage on {name} in the account {account} can share it: swrbatch share add.",
            ask_zh=f"由账号{account}中具备{name}管理权限的用户共享：swrbatch share add。",
        )
    who = f" ({', '.join(facts.administrators)})" if facts.administrators else ""
    who_zh = f"（{'、'.join(facts.administrators)}）" if facts.administrators else ""
    if need.on == "account":
        return Decision(
            allowed=False,
            missing=f"an administrator of the account {account}",
            missing_zh=f"账号{account}的管理员权限",
            ask=f"An administrator{who} can do it, or make you one: swrbatch admin add.",
            ask_zh=f"由账号管理员{who_zh}操作，或添加您为管理员：swrbatch admin add。",
        )
    organization = name.partition("/")[0]
    on_organization = need.on == "organization" or name == organization
    place = f"the organization {organization}" if on_organization else f"{name} or its organization"
    place_zh = f"组织{organization}" if on_organization else f"{name}或其组织"
    level = need.level.name.lower() + ("" if need.level is Level.MANAGE else " or higher")
    return Decision(
        allowed=False,
        missing=f"{level} on {place}",
        missing_zh=f"{place_zh}的{_ZH[need.level]}" + ("权限" if need.level is Level.MANAGE else "或更高权限"),
        ask=f"An administrator of the account {account}{who}, or somebody with manage there, can give it: swrbatch grant set.",
        ask_zh=f"由账号{account}的管理员{who_zh}或具备管理权限的用户授权：swrbatch grant set。",
    )


def denied(actor: Actor, act: str, name: str, decision: Decision) -> Issue:
    """The issue `permission-denied` of a refusal."""
    return issue(
        "permission-denied",
        place=name,
        act=act,
        actor=f"{actor.account}/{actor.user}",
        missing=decision.missing,
        missing_zh=decision.missing_zh,
        ask=decision.ask,
        ask_zh=decision.ask_zh,
        on=f" {name}" if name else "",
    )
