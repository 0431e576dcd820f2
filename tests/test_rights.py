"""Who may do what: the whole table, written from the guide's text, held against the pure function.

The guide, chapter 6: 读取 only downloads; 编辑 downloads, uploads, edits attributes and creates triggers; 管理 also deletes
images and versions, grants, and shares. 4.5: a public image can be downloaded by every user. 4.6: only private images are
shared, with another account, to download. Chapter 6's note: an upload by the page needs 编辑 or 管理 of the organization.
Where the guide is silent about a command of this tool, the table says how it was read.
"""

from __future__ import annotations

import itertools
from typing import Final

import pytest

from swrbatch.cts import Actor
from swrbatch.rights import LEVELS, Act, Facts, Level, Sharing, decide, denied, sharing

OWN, OTHER = "acme", "rival"
# 读取、编辑、管理, and nothing at all.
NONE, READ, EDIT, MANAGE = range(4)
GIVEN: Final = {NONE: Level.NONE, READ: Level.READ, EDIT: Level.EDIT, MANAGE: Level.MANAGE}

# What a user of the image's own account needs, on the image or on its organization: the higher of the two holds.
ON_IMAGE: Final = {
    # 读取：只能下载镜像. To look at an image and its versions is taken as part of downloading it (4.6: 查看镜像版本、下载指令).
    "repo show": READ,
    "tag list": READ,
    "tag show": READ,
    "export": READ,
    "sync --from": READ,
    # Who sees the image sees whom it is granted to, shared with, and what it sets off: the guide names no other condition.
    "grant list --repo": READ,
    "share list": READ,
    "trigger list": READ,
    "trigger history": READ,
    # 编辑：下载镜像、上传镜像、编辑镜像属性以及创建触发器.
    "repo edit": EDIT,
    "sync --to": EDIT,
    "trigger add": EDIT,
    "trigger edit": EDIT,
    "trigger remove": EDIT,
    # 管理：…删除镜像或版本、添加授权、共享镜像.
    "repo delete": MANAGE,
    "tag delete": MANAGE,
    "grant set --repo": MANAGE,
    "grant revoke --repo": MANAGE,
    "share add": MANAGE,
    "share edit": MANAGE,
    "share remove": MANAGE,
}
# What is about the organization itself: a grant on one image does not count.
ON_ORGANIZATION: Final = {
    "org show": READ,  # 查看组织中的镜像
    "grant list --org": READ,
    "repo create": EDIT,  # what a push does that makes its repository: 上传镜像
    "grant set --org": MANAGE,  # 只有具备“管理”权限的用户才能添加授权
    "grant revoke --org": MANAGE,
    "org delete": MANAGE,
}
# 公开镜像所有用户都能下载; 被共享者只有只读权限，只能下载镜像.
DOWNLOADS: Final = {"repo show", "tag list", "tag show", "export", "sync --from"}
# Everybody: to create an organization only the quota and the name count (5, 9.1.5); lists hold what one may see.
EVERYBODY: Final = {"org create", "org list", "repo list", "login-command"}
# 账号管理员: not a matter of organizations (`init` where it changes what a store has set).
ADMINISTRATORS: Final = {"init", "gc", "admin add", "admin remove", "admin list"}


def expected(
    act: str, profile: str, organization: int, image: int, admin: bool, public: bool, own: bool, shared: Sharing
) -> bool:
    if act in EVERYBODY:
        return True
    if act in DOWNLOADS and (public or shared == "live"):
        return True
    if not own:
        return False
    if admin:
        return True
    if act in ADMINISTRATORS:
        return False
    if act == "import":
        # 页面上传镜像功能要求具备组织的编辑或管理权限，在镜像详情中添加的编辑或管理权限不支持页面上传镜像.
        return organization >= EDIT or (image >= EDIT and profile != "page")
    if act in ON_ORGANIZATION:
        return organization >= ON_ORGANIZATION[act]
    return organization >= ON_IMAGE[act] or image >= ON_IMAGE[act]


def test_every_act_is_in_the_table() -> None:
    assert {*ON_IMAGE, *ON_ORGANIZATION, *EVERYBODY, *ADMINISTRATORS, "import"} == {act.value for act in Act}


@pytest.mark.parametrize("act", Act, ids=str)
def test_the_whole_matrix(act: Act) -> None:
    verdicts = set()
    dimensions = itertools.product(("page", "client", "none"), GIVEN, GIVEN, (False, True), (False, True), (False, True), Sharing)
    for profile, organization, image, admin, public, own, shared in dimensions:
        actor = Actor(OWN if own else OTHER, "ann", "root", "host")
        facts = Facts(
            account=OWN,
            name="team/app",
            administrator=admin,
            organization=GIVEN[organization],
            repository=GIVEN[image],
            public=public,
            sharing=shared,
            profile=profile,
        )
        want = expected(act.value, profile, organization, image, admin, public, own, shared)
        found = decide(actor, act, facts)
        assert found.allowed == want, (act, facts, own)
        # A refusal says what is missing and who can give it; a permission says nothing.
        assert all((found.missing, found.missing_zh, found.ask, found.ask_zh)) == (not want)
        verdicts.add(want)
    assert verdicts == ({True} if act.value in EVERYBODY else {True, False})


def test_levels_are_those_of_the_api() -> None:
    assert dict(LEVELS) == {"read": 1, "edit": 3, "manage": 7}


def test_a_share_ends_at_its_deadline() -> None:
    assert [sharing(100, now) for now in (99, 100, 101)] == ["live", "expired", "expired"]
    assert sharing(None, 2**62) == "live"


ANN = Actor(OWN, "ann", "root", "host")
EVE = Actor(OTHER, "eve", "root", "host")


@pytest.mark.parametrize(
    ("actor", "act", "facts", "missing", "ask"),
    [
        (ANN, Act.REPO_EDIT, Facts(account=OWN, name="team/app"), "edit or higher on team/app or its organization", "grant set"),
        (ANN, Act.IMPORT, Facts(account=OWN, name="team/app", repository=Level.MANAGE, profile="page"),
         "edit or higher on the organization team", "root, tom"),
        (ANN, Act.TAG_DELETE, Facts(account=OWN, name="team/app"), "manage on team/app or its organization", "root, tom"),
        (ANN, Act.GC, Facts(account=OWN), "an administrator of the account acme", "swrbatch admin add"),
        (EVE, Act.EXPORT, Facts(account=OWN, name="team/app"), "shared with the account rival", "can share it"),
        (EVE, Act.EXPORT, Facts(account=OWN, name="team/app", sharing=Sharing.EXPIRED), "the share has expired", "share add"),
        (EVE, Act.REPO_DELETE, Facts(account=OWN, name="team/app", public=True), "a user of the account acme", "--account"),
    ],
)  # fmt: skip
def test_what_a_refusal_says(actor: Actor, act: Act, facts: Facts, missing: str, ask: str) -> None:
    from dataclasses import replace

    decision = decide(actor, act, replace(facts, administrators=("root", "tom")))
    found = denied(actor, act, facts.name, decision)
    assert found.message.startswith("denied: you do not have the permission. " + act.value)
    assert f"{actor.account}/{actor.user} does not have" in found.message
    assert missing in found.message and ask in found.way_out
    assert found.message_zh.startswith("denied: you do not have the permission。") and "需要" in found.message_zh
    assert found.way_out_zh.startswith("请") and "{" not in found.message + found.message_zh + found.way_out + found.way_out_zh
    assert (found.swr_code, found.section) == ("SVCSTG.SWR.4039002", "6")
