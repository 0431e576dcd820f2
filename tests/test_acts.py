"""Organizations, repositories, tags, permissions, administrators and shares: what the commands change, record and refuse."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import typer
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, event
from typer.testing import CliRunner

import swrbatch.ledger
from swrbatch import Store, import_archives
from swrbatch.attempt import LoadRules
from swrbatch.audit import report
from swrbatch.audit.dataset import Dataset
from swrbatch.audit.reconcile import reconcile
from swrbatch.cli import app
from swrbatch.cts import Actor
from swrbatch.errors import Refused, UsageError
from swrbatch.ledger.access import revoke_grant
from swrbatch.ledger.acting import Acting, acting
from swrbatch.ledger.loads import read_state
from swrbatch.ledger.repositories import create_repository, edit_repository
from swrbatch.ledger.shares import Terms, add_share, edit_share, remove_share
from swrbatch.policy import CATEGORIES, Reference
from swrbatch.verify import verify_store
from test_cli import wrapped_badly
from test_crash import events_of
from test_store import HOST, archive, ledger_of

# --- migrating -----------------------------------------------------------------------------------------------------------


def old_store(path: Path) -> Path:
    """A store as the version before rights left it: two accounts, three organizations, one account without any."""
    path.mkdir()
    config = Config()
    config.set_main_option("script_location", str(Path(swrbatch.ledger.__file__).parent / "migrations"))
    engine = create_engine(f"sqlite:///{path / 'ledger.db'}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        for statement in (
            "INSERT INTO settings VALUES ('account', 'acme'), ('org_quota', '5'), ('region', 'local')",
            "INSERT INTO accounts VALUES (1, 'acme', 1), (2, 'rival', 2), (3, 'idle', 3)",
            "INSERT INTO organizations VALUES (1, 'late', 1, 'bob', 30), (2, 'early', 1, 'ann', 10), (3, 'other', 2, 'eve', 20)",
            "INSERT INTO repositories VALUES (1, 2, 'app', 0, 11)",
        ):
            connection.exec_driver_sql(statement)
    engine.dispose()
    return path


def test_an_older_ledger_is_migrated_with_what_it_holds(tmp_path: Path) -> None:
    path = old_store(tmp_path / "store")
    Store(path).close()
    with ledger_of(path) as ledger:
        joined = "organization_grants g JOIN organizations o ON o.id = organization_id"
        grants = f'SELECT o.name, g.account, g."user", g.level FROM {joined}'
        assert sorted(ledger.execute(grants)) == [
            ("early", "acme", "ann", 7),
            ("late", "acme", "bob", 7),
            ("other", "rival", "eve", 7),
        ]
        # Whoever made the account's first organization; nobody where there is none.
        assert sorted(ledger.execute('SELECT account, "user" FROM administrators')) == [("acme", "ann"), ("rival", "eve")]
        assert ledger.execute("SELECT name, is_public, category, description FROM repositories").fetchall() == [
            ("app", 0, "other", "")
        ]


# --- through the command line --------------------------------------------------------------------------------------------


class Console:
    """`console("repo list", user="ann")` is that command on one store, for a user of the account acme."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, folder / "store"

    def __call__(self, line: str, *, user: str = "root", account: str = "acme", stdin: str = "") -> tuple[int, str, str]:
        who = ["--store", str(self.store), "--user", user, "--account", account]
        done = CliRunner().invoke(app, [*shlex.split(line), *who], input=stdin, prog_name="swrbatch", env={"COLUMNS": "80"})
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stdout, done.stderr

    def ok(self, line: str, **who: str) -> str:
        code, out, err = self(line, **who)
        assert code == 0, (line, out, err)
        return out

    def json(self, line: str, **who: str) -> Any:
        return json.loads(self.ok(f"{line} --format json", **who))

    def refused(self, line: str, code: str, **who: str) -> str:
        status, out, err = self(line, **who)
        assert (status, out) == (1, "") and err.startswith(f"swrbatch: {code}: "), (line, status, out, err)
        return err

    def names(self, line: str, **who: str) -> list[str]:
        return [row["name"] for row in self.json(line, **who)["rows"]]

    def events(self) -> list[dict[str, Any]]:
        with Store(self.store) as store:
            return events_of(store)

    def last(self) -> tuple[str, str, str, dict[str, Any], dict[str, Any]]:
        """Name, resource and rating of the newest event, its request and its response."""
        event = self.events()[-1]
        request, response = json.loads(event["request"]), json.loads(event["response"])
        return event["trace_name"], event["resource_name"], event["trace_rating"], request, response


@pytest.fixture
def console(tmp_path: Path) -> Console:
    """A store of the account acme with root as administrator, `team` of ann with `team/app:v1` and `:v2`, grants for the levels:
    rita reads, ed edits, mona manages the organization; rex, eric, max the same of `team/app` only; nobody has nothing."""
    made = Console(tmp_path)
    made.ok(f"init --registry {HOST} --org-quota 5")
    for tag in ("v1", "v2"):
        made.ok(f"import {archive(tmp_path / f'{tag}.tar', tag, f'{HOST}/team/app:{tag}')}", user="ann")
    for user, name, level in (
        ("rita", "--org team", "read"), ("ed", "--org team", "edit"), ("mona", "--org team", "manage"),
        ("rex", "--repo team/app", "read"), ("eric", "--repo team/app", "edit"), ("max", "--repo team/app", "manage"),
    ):  # fmt: skip
        made.ok(f"grant set {name} --to {user} --level {level}", user="ann")
    return made


SHARED = "share add team/app --with rival --until forever"
# Each command: what comes before it, who may, who may not, and the event of the refusal.
COMMANDS: Final = [
    ("org show team", "", "rita root", "nobody rex max", "showUserNamespace"),
    ("org delete team --confirm DELETE", "repo delete team/app --yes", "ann mona root", "ed nobody", "deleteUserNamesapce"),
    ("repo create team/new", "", "ed mona root", "rita max nobody", "createImageRepository"),
    ("repo show team/app", "", "rita rex root", "nobody", "showImageRepository"),
    ("repo edit team/app --public", "", "ed eric root", "rita rex nobody", "updateImageRepository"),
    ("repo delete team/app --yes", "", "mona max root", "ed eric nobody", "deleteImageRepository"),
    ("tag list team/app", "", "rita rex root", "nobody", "listImageTags"),
    ("tag show team/app:v1", "", "rita rex root", "nobody", "listImageTags"),
    ("tag delete team/app:v1 --yes", "", "mona max root", "ed eric nobody", "deleteImageTag"),
    ("grant set --org team --to x --level read", "", "mona root", "ed max nobody", "createUserNamespaceAuth"),
    ("grant set --repo team/app --to x --level read", "", "mona max root", "ed eric nobody", "createUserRepositoryAuth"),
    ("grant list --org team", "", "rita root", "rex nobody", "showUserNamespaceAuth"),
    ("grant list --repo team/app", "", "rita rex root", "nobody", "showUserRepositoryAuth"),
    ("grant revoke --org team --to ed --confirm DELETE", "", "mona root", "ed max", "deleteUserNamespaceAuth"),
    ("grant revoke --repo team/app --to rex --confirm DELETE", "", "max root", "eric rex", "deleteUserRepositoryAuth"),
    (SHARED, "", "mona max root", "ed eric nobody", "createImageRepositoryAccessDomain"),
    ("share list team/app", SHARED, "rita rex root", "nobody", "listImageRepositoryAccessDomain"),
    ("share edit team/app --with rival --description x", SHARED, "max root", "eric", "updateImageRepositoryAccessDomain"),
    ("share remove team/app --with rival", SHARED, "max root", "eric", "deleteImageRepositoryAccessDomain"),
    ("admin add tom", "", "root", "ann mona nobody", "createAdministrator"),
    ("admin list", "", "root", "ann mona nobody", "listAdministrators"),
    ("admin remove tom", "admin add tom", "root", "ann mona nobody", "deleteAdministrator"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "before", "allowed", "forbidden", "event"), COMMANDS, ids=[row[0] for row in COMMANDS])
def test_a_command_for_those_who_may_and_those_who_may_not(
    console: Console, line: str, before: str, allowed: str, forbidden: str, event: str
) -> None:
    if before:
        console.ok(before)
    for user in forbidden.split():
        rows = len(console.events())
        said = console.refused(line, "permission-denied", user=user)
        assert f"acme/{user} does not have" in said and "way out: An administrator" in said and "root" in said
        name, _, rating, _, response = console.last()
        assert (name, rating, response["codes"]) == (event, "warning", ["permission-denied"])
        assert console.events()[-1]["code"] == "403"
        assert len(console.events()) == rows + 1
    # Nobody of another account may, not even its administrators.
    console.ok("org create rivals", user="eve", account="rival")
    if not line.startswith("admin") and not (before == SHARED and line.startswith("repo show")):
        console.refused(line, "permission-denied", user="eve", account="rival")
    dry = len(console.events())
    for user in allowed.split():
        if "--" in line or line.startswith(("repo create", "admin add", "admin remove")):
            try_ = line if line.startswith(("grant list", "admin list")) else f"{line} --dry-run"
            assert "would be" in console.ok(try_, user=user) or "list" in line
        else:
            console.ok(line, user=user)
        assert len(console.events()) == dry, "what only looks, or only tries, leaves no event"
    console.ok(line, user=allowed.split()[0])
    assert (len(console.events()) > dry) == (event[:4] not in ("show", "list"))


def test_everything_that_happened_is_in_the_trail(console: Console) -> None:
    for line in (
        "repo edit team/app --category linux", SHARED, "share edit team/app --with rival --until 2100-01-01T00:00:00Z",
        "share remove team/app --with rival", "grant set --org team --to ed --level read", "admin add tom",
        "admin remove tom", "org create other", "org delete other --confirm DELETE", "tag delete team/app:v1 --yes",
        "grant revoke --repo team/app --to rex --confirm DELETE", "repo create team/more", "repo delete team/app --yes",
    ):  # fmt: skip
        console.ok(line)
    console.refused("repo show team/more", "permission-denied", user="nobody")
    with Store(console.store) as store:
        assert verify_store(store, deep=True).issues == [] and reconcile(store) == []


# --- before and after ----------------------------------------------------------------------------------------------------


def test_events_tell_before_and_after(console: Console) -> None:
    console.ok("grant set --org team --to rita --level edit", user="ann")
    name, resource, rating, request, response = console.last()
    assert (name, resource, rating) == ("updateUserNamespaceAuth", "team", "normal")
    assert request == {"name": "team", "user": "rita", "level": "edit"}
    assert (response["before"]["level"], response["after"]["level"]) == ("read", "edit")
    console.ok("grant revoke --org team --to rita --confirm DELETE", user="ann")
    assert console.last()[0] == "deleteUserNamespaceAuth" and console.last()[4]["after"] is None
    console.ok("repo edit team/app --category 数据库 --description 说明", user="ed")
    name, _, _, request, response = console.last()
    assert (name, request) == ("updateImageRepository", {"category": "database", "description": "说明"})
    assert response["before"] == {"category": "other", "description": ""}
    assert response["after"] == {"category": "database", "description": "说明"}
    console.ok("share add team/app --with rival --until 2100-01-01T00:00:00Z --description ours", user="max")
    console.ok("share edit team/app --with rival --until forever", user="max")
    name, resource, _, request, response = console.last()
    assert (name, resource) == ("updateImageRepositoryAccessDomain", "team/app")
    assert request == {"name": "team/app", "access_domain": "rival", "deadline": "forever", "permit": "read"}
    assert (response["before"]["deadline"], response["after"]["deadline"]) == ("2100-01-01T00:00:00Z", "forever")
    assert response["before"]["description"] == response["after"]["description"] == "ours"
    console.ok("org create other", user="ed")
    assert console.last()[4]["after"] == {
        "name": "other", "account": "acme", "owner": "ed", "created": console.events()[-1]["time"], "repositories": 0,
    }  # fmt: skip


def test_the_report_tells_who_may_use_what(console: Console) -> None:
    for line in (
        "grant set --org team --to ed --level manage", "grant revoke --repo team/app --to rex --confirm DELETE", SHARED,
        "share add team/app --with other --until 2100-01-01T00:00:00Z", "repo edit team/app --category linux",
        "repo create team/open --public",
    ):  # fmt: skip
        console.ok(line)
    console.refused("grant set --org team --to nobody --level manage", "permission-denied", user="nobody")
    dataset = str(console.folder / "trail")
    console_export = ["audit", "export", "--store", str(console.store), "--to", dataset]
    assert CliRunner().invoke(app, console_export).exit_code == 0
    for now, state in ((2**41, "open"), (2**42, "past")):
        built = report.build([Dataset(dataset)], now=now)
        told = {(r.kind, r.resource, r.subject, r.before, r.after, r.done) for r in built.rows("access_changes")}
        assert {
            ("permission", "team", "ed", "none", "edit", True), ("permission", "team", "ed", "edit", "manage", True),
            ("permission", "team", "nobody", "none", "manage", False), ("permission", "team/app", "rex", "read", "none", True),
            ("share", "team/app", "rival", "none", "read, forever", True),
            ("visibility", "team/open", None, "none", "public", True),
        } <= told  # fmt: skip
        assert {kind for kind, resource, *_ in told if resource == "team/app"} == {"permission", "share"}
        found = {(r.resource, r.subject, r.state) for r in built.rows("exposures")}
        assert found == {("team/app", "rival", "forever"), ("team/app", "other", state), ("team/open", None, "public")}


@pytest.mark.parametrize(
    "line",
    [
        "org create team", "repo create team/app", "repo create team/app --private", "repo edit team/app --private",
        "grant set --org team --to ed --level edit", "grant revoke --org team --to x --confirm DELETE",
        "grant revoke --repo team/app --to x --confirm DELETE", "share remove team/app --with x", "admin add root",
        "admin remove x", SHARED, "share edit team/app --with rival --until forever", "init --account acme",
    ],
)  # fmt: skip
def test_the_same_again_changes_nothing(console: Console, line: str) -> None:
    console.ok(SHARED)
    before = console.events()
    out = console.ok(line)
    assert out.startswith("unchanged ") or line.startswith("init")
    assert console.events() == before
    if not line.startswith("init"):
        assert console.json(line)["status"] == "unchanged"


def test_a_repository_that_is_there_with_other_attributes_is_not_made_anew(console: Console) -> None:
    assert "repo edit" in console.refused("repo create team/app --public", "repository-exists")


# --- organizations -------------------------------------------------------------------------------------------------------


def test_the_sixth_organization(console: Console) -> None:
    for number in range(5):
        console.ok(f"org create o{number}", user="zoe")
    assert "zoe has 5 organizations already" in console.refused("org create o5", "organization-quota", user="zoe")
    console.ok("org delete o0 --confirm DELETE", user="zoe")
    console.ok("org create o5", user="zoe")
    assert console.names("org list", user="zoe") == ["o1", "o2", "o3", "o4", "o5"]


def test_names_of_organizations_are_unique_in_the_region(console: Console) -> None:
    said = console.refused("org create team", "organization-exists", user="zoe")
    assert "belongs to another user" in said and "unique in the whole region" in said
    console.refused("org create team", "organization-exists", user="eve", account="rival")
    assert "组织名称全局唯一" in console("org create team --lang zh", user="zoe")[2]
    console.refused("org create Team", "organization-name")
    console.refused("org create a.b", "organization-name")
    console.ok("org create a.b --naming api")


def test_whoever_makes_an_accounts_first_organization_administers_it(console: Console) -> None:
    console.ok("org create rivals", user="eve", account="rival")
    assert console.last()[4]["administrator"] is True
    assert [row["user"] for row in console.json("admin list", user="eve", account="rival")["rows"]] == ["eve"]
    console.ok("org create more", user="adam", account="rival")
    assert "administrator" not in console.last()[4]
    console.refused("admin list", "permission-denied", user="adam", account="rival")


def test_the_last_administrator_stays(console: Console) -> None:
    console.refused("admin remove root", "administrator-last")
    console.ok("admin add ann")
    console.ok("admin remove root", user="ann")
    console.refused("admin remove ann", "administrator-last", user="ann")


def test_an_organization_is_deleted_only_when_empty_and_with_the_word(console: Console) -> None:
    assert console("org delete team")[0] == 2 and console("org delete team --confirm delete")[0] == 2
    assert "holds images: 1" in console.refused("org delete team --confirm DELETE", "organization-not-empty")
    assert console("repo delete team/app")[0] == 2 and console("tag delete team/app:v1")[0] == 2
    assert console("grant revoke --org team --to ed")[0] == 2
    console.ok("repo delete team/app --yes")
    console.ok("org delete team --confirm DELETE")
    console.refused("org show team", "organization-unknown")
    # Its grants are gone with it: who had them has none on one of the same name.
    console.ok("org create team", user="zoe")
    assert [row["user"] for row in console.json("grant list --org team", user="zoe")["rows"]] == ["zoe"]


@pytest.mark.parametrize(
    ("line", "answer", "code", "done"),
    [
        ("org delete empty", "DELETE", 0, True), ("org delete empty", "yes", 2, False), ("org delete empty", "", 2, False),
        ("grant revoke --org empty --to bob", "DELETE", 0, True), ("grant revoke --org empty --to bob", "n", 2, False),
        ("tag delete team/app:v1", "y", 0, True), ("tag delete team/app:v1", "n", 1, False),
        ("repo delete team/app", "y", 0, True), ("repo delete team/app", "", 1, False),
    ],
)  # fmt: skip
def test_what_a_terminal_is_asked(console: Console, line: str, answer: str, code: int, done: bool) -> None:
    console.ok("org create empty")
    console.ok("grant set --org empty --to bob --level read")
    before = console.events()
    controller, terminal = pty.openpty()
    argv = [sys.executable, "-m", "swrbatch", *shlex.split(line), "--store", str(console.store), "--user", "root"]
    os.write(controller, f"{answer}\n".encode())
    ran = subprocess.run(argv, stdin=terminal, capture_output=True, text=True, timeout=60)
    os.close(controller)
    os.close(terminal)
    assert ran.returncode == code, ran.stderr
    assert (len(console.events()) > len(before)) == done and ("nothing was changed" in ran.stderr) == (not done)


# --- repositories --------------------------------------------------------------------------------------------------------


def test_descriptions_of_repositories_have_a_limit(console: Console) -> None:
    with Store(console.store) as store:
        for length in (30_000, 0):
            with acting(store.ledger, Actor("acme", "root", "", "")) as act:
                assert edit_repository(act, "team/app", description="描" * length).status == "updated"
        for change in (edit_repository, create_repository):
            with pytest.raises(Refused, match="30001 characters; the limit is 30000"), one(store) as act:
                change(act, "team/app" if change is edit_repository else "team/new", description="描" * 30_001)
    name, _, rating, request, response = console.last()
    assert (name, rating, response["codes"]) == ("createImageRepository", "warning", ["description-too-long"])
    assert len(request["description"]) < 400


@contextlib.contextmanager
def one(store: Store, user: str = "root") -> Iterator[Acting]:
    with acting(store.ledger, Actor("acme", user, "login", "host")) as act:
        yield act


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("repo edit team/app --category cars", "it is one of app_server"), ("repo edit team/app", "nothing to edit"),
        ("share edit team/app --with rival", "nothing to edit"), ("repo show team", "it has no /"),
        ("repo show Team/app", "is no repository"), ("tag show team/app", "write ORG/REPO:TAG"),
        ("tag delete team/app:-x --yes", "write ORG/REPO:TAG"), ("grant list", "give either --org"),
        ("grant list --org team --repo team/app", "give either --org"), ("org show TEAM", "is no organization"),
        ("grant set --org team --to '' --level read", "1 to 255 printable"), ("grant set --org team --to x --level all", "all"),
        ("repo list --marker '\udcff'", "no valid text"), ("repo list --org '\udcff'", "no valid text"),
        ("repo edit team/app --description '\udcff'", "no valid text"), ("org create '\udcff'", "no valid text"),
        ("share add team/app --with rival --until tomorrow", "a time in UTC"),
        ("share add team/app --with rival --until 2100-01-01T00:00:00", "a time in UTC"),
        ("share add team/app --with rival --until 2100-01-01T00:00:00+08:00", "a time in UTC"),
    ],
)  # fmt: skip
def test_wrong_usage_changes_nothing(console: Console, line: str, said: str) -> None:
    before = console.events()
    code, out, err = console(line)
    assert (code, out) == (2, "") and said in err
    assert console.events() == before


def test_what_is_not_there(console: Console) -> None:
    for line in ("repo show team/none", "repo edit team/none --public", "repo delete team/none --yes", "tag list team/none",
                 "grant list --repo team/none", "grant set --repo team/none --to x --level read",
                 "share add team/none --with x --until forever"):  # fmt: skip
        console.refused(line, "repository-unknown")
        # Who may not see it is not told that it is not there.
        console.refused(line, "permission-denied", user="nobody")
    for line in ("org show none", "repo create none/app", "repo show none/app", "grant list --org none"):
        console.refused(line, "organization-unknown")
    console.refused("tag show team/app:none", "tag-unknown")
    console.refused("tag delete team/app:none --yes", "tag-unknown")
    console.refused("repo create team/BAD", "repository-name")


def test_lists_hold_what_one_may_see_a_page_at_a_time(console: Console) -> None:
    console.ok("org create other", user="zoe")
    for name in ("other/a", "other/b", "other/c"):
        console.ok(f"repo create {name}", user="zoe")
    console.ok("repo edit other/b --public", user="zoe")
    everything = ["other/a", "other/b", "other/c", "team/app"]
    assert console.names("repo list") == everything
    assert console.names("repo list", user="rex") == ["other/b", "team/app"]
    assert console.names("repo list", user="nobody") == ["other/b"] == console.names("repo list", account="rival")
    assert console.names("org list", user="rex") == ["team"] and console.names("org list", user="nobody") == []
    assert console.names("repo list --org other", user="zoe") == everything[:3]
    for limit in (1, 2, 3, 4, 5):
        found, marker = [], ""
        while marker is not None:
            page = console.json(f"repo list --limit {limit} --marker '{marker}'")
            assert len(page["rows"]) <= limit
            found += [row["name"] for row in page["rows"]]
            marker = page["next"]
        assert found == everything
    assert console("repo list --limit 2")[2] == "swrbatch: there are more: --marker other/b\n"
    assert [row["tag"] for row in console.json("tag list team/app --limit 1 --marker v1")["rows"]] == ["v2"]
    (row,) = console.json("tag list team/app --limit 1")["rows"]
    assert row["pull"] == f"docker pull {HOST}/team/app:v1" and row["platform"] == "linux/amd64" and row["by"] == "acme/ann"
    assert len(console.json("grant list --org team --limit 3")["rows"]) == 3
    assert console.json("grant list --org team --marker mona --limit 9")["rows"][0]["user"] == "rita"


# --- shares --------------------------------------------------------------------------------------------------------------


def test_a_share_lets_another_account_look_and_no_more(console: Console) -> None:
    eve = {"user": "eve", "account": "rival"}
    console.refused("repo show team/app", "permission-denied", **eve)
    console.ok(SHARED)
    assert console.json("repo show team/app", **eve)["shared"] is True
    assert len(console.json("tag list team/app", **eve)["rows"]) == 2
    for line in (
        "repo edit team/app --public",
        "tag delete team/app:v1 --yes",
        "share list team/app",
        "grant list --repo team/app",
    ):
        console.refused(line, "permission-denied", **eve)
    assert console.names("repo list", **eve) == ["team/app"] == console.names("repo list --shared-with rival", **eve)
    assert console.names("repo list --shared-by-me") == ["team/app"] == console.names("repo list --shared-with rival")
    assert console.names("repo list --shared-by-me", **eve) == [] == console.names("repo list --shared-with acme")
    console.ok("share remove team/app --with rival")
    console.refused("repo show team/app", "permission-denied", **eve)


def test_an_expired_share_gives_nothing(console: Console) -> None:
    eve = {"user": "eve", "account": "rival"}
    console.ok("share add team/app --with rival --until 2100-01-01T00:00:00Z")
    assert console.names("repo list", **eve) == ["team/app"]
    with ledger_of(console.store) as ledger:
        ledger.execute("UPDATE shares SET deadline_ms = 1")
    assert console.names("repo list", **eve) == [] == console.names("repo list --shared-with rival", **eve)
    assert "the share has expired" in console.refused("tag list team/app", "permission-denied", **eve)
    (row,) = console.json("share list team/app")["rows"]
    assert (row["state"], row["deadline"]) == ("expired", 1)
    assert console.names("repo list --shared-by-me") == ["team/app"] and console.names("repo list --shared-with rival") == []
    # Applied again it changes nothing; a new one must end later than now.
    console.refused("share edit team/app --with rival --until 2001-01-01T00:00:00Z", "share-deadline")
    console.refused("share add team/app --with more --until 2001-01-01T00:00:00Z", "share-deadline")
    assert console.ok("share add team/app --with rival --until 1970-01-01T00:00:00.001Z").startswith("unchanged")
    console.ok("share edit team/app --with rival --until forever")
    assert console.names("repo list", **eve) == ["team/app"]


def test_what_is_not_shared(console: Console) -> None:
    console.refused("share add team/app --with acme --until forever", "share-own-account")
    console.refused("share edit team/app --with rival --until forever", "share-unknown")
    console.ok(SHARED)
    console.refused("share add team/app --with rival --until 2100-01-01T00:00:00Z", "share-exists")
    console.ok("repo edit team/app --public")
    console.refused("share add team/app --with more --until forever", "share-public")


def test_the_501st_share(console: Console) -> None:
    with Store(console.store) as store:
        with one(store) as act:
            for number in range(500):
                assert add_share(act, "team/app", f"account-{number}", Terms()).status == "created"
        with pytest.raises(Refused, match="shared with 500 accounts already"), one(store) as act:
            add_share(act, "team/app", "account-500", Terms())
        with one(store) as act:
            remove_share(act, "team/app", "account-7")
            assert add_share(act, "team/app", "account-500", Terms()).status == "created"
        with pytest.raises(Refused, match="1001 characters"), one(store) as act:
            edit_share(act, "team/app", "account-500", description="x" * 1001)
        with one(store) as act:
            assert edit_share(act, "team/app", "account-500", description="说" * 1000).status == "updated"


# --- imports need rights -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "allowed"), [("page", "ann mona ed root"), ("client", "ann mona ed max eric root"), ("none", "ed max eric root")]
)
def test_an_import_needs_a_right(console: Console, profile: str, allowed: str) -> None:
    path = archive(console.folder / "new.tar", "new", f"{HOST}/team/app:new")
    for user in ("ann", "mona", "ed", "rita", "max", "eric", "rex", "nobody", "root"):
        if profile == "none" and user in ("ann", "mona"):
            continue
        for verb in ("check", "import"):
            code, out, _ = console(f"{verb} {path} --profile {profile} --format json", user=user)
            codes = [row["code"] for row in json.loads(out)["issues"]]
            assert (code, codes) == ((0, []) if user in allowed.split() else (1, ["permission-denied"])), (verb, user)
    # The refusal is an event of the upload itself.
    refused = [event for event in console.events() if event["trace_rating"] == "warning"]
    assert {(event["trace_name"], event["message"]) for event in refused} == {("uploadImagePackage", '["permission-denied"]')}


def test_a_new_repository_needs_a_right_on_its_organization(console: Console) -> None:
    path = archive(console.folder / "new.tar", "new", f"{HOST}/team/fresh:v1")
    code, out, _ = console(f"import {path} --profile client --format json", user="max")
    (row,) = json.loads(out)["issues"]
    assert (code, row["code"], row["swr_code"]) == (1, "permission-denied", "SVCSTG.SWR.4039002")
    assert "edit or higher on team/fresh or its organization" in row["message"] and "root" in row["way_out"]
    assert "权限" in row["message_zh"] and row["way_out_zh"].startswith("请")
    console.ok(f"import {path} --profile client", user="ed")


def test_rights_are_those_of_the_moment_of_the_load(console: Console) -> None:
    """Revoked while an archive is read: the transaction decides, and nothing of the image is stored."""
    path = archive(console.folder / "new.tar", "new", f"{HOST}/team/app:new")
    with Store(console.store) as store, Store(console.store) as other:
        publish = store.layout.publish

        def revoke(blobs: Any) -> None:
            with one(other) as act:
                revoke_grant(act, "team", "ed")
            publish(blobs)

        store.layout.publish = revoke  # type: ignore[method-assign]
        result = import_archives([path], store, user="ed")
    assert [row.code for row in result.issues] == ["permission-denied"]
    assert "new" not in [row["tag"] for row in console.json("tag list team/app")["rows"]]


def test_rights_are_read_for_many_images_at_once(console: Console) -> None:
    actor, counts = Actor("acme", "ed", "", ""), []
    with Store(console.store) as store, store.ledger.read() as connection:
        statements: list[str] = []
        event.listen(store.ledger._engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
        for number in (1, 300):
            references = [Reference(HOST, "team", "app", f"v{n}") for n in range(number)]
            state = read_state(connection, references, actor, LoadRules())
            assert state.levels == {"team": 3, "team/app": 0}
            counts.append(len(statements))
            statements.clear()
    assert counts[0] == counts[1]


def test_the_user_of_an_import_that_makes_a_store_administers_it(tmp_path: Path) -> None:
    console = Console(tmp_path)
    console.ok(f"import {archive(tmp_path / 'a.tar', 'a', f'{HOST}/team/app:v1')}", user="ann")
    assert [row["user"] for row in console.json("admin list", user="ann")["rows"]] == ["ann"]
    made = next(event for event in console.events() if event["trace_name"] == "createUserNamespace")
    assert json.loads(made["response"]) == {"account": "acme", "owner": "ann", "administrator": True}


def test_a_refused_import_makes_nobody_an_administrator(tmp_path: Path) -> None:
    console = Console(tmp_path)
    assert console(f"import {archive(tmp_path / 'a.tar', 'a', f'{HOST}/BAD/app:v1')}", user="ann")[0] == 1
    console.refused("admin list", "permission-denied", user="ann")
    console.ok("init", user="ann")
    assert [row["user"] for row in console.json("admin list", user="ann")["rows"]] == ["ann"]


@pytest.mark.parametrize("group", ["org", "repo", "tag", "grant", "share", "admin"])
def test_the_help_of_every_command_fits(group: str) -> None:
    commands = typer.main.get_command(app).get_command(None, group).commands  # type: ignore[attr-defined,arg-type]
    for words in ([], *([name] for name in commands)):
        done = CliRunner().invoke(app, [group, *words, "--help"], prog_name="swrbatch", env={"COLUMNS": "80"})
        assert done.exit_code == 0 and not wrapped_badly(done.stdout, 80)
        changes = bool(words) and words[0] not in ("list", "show")
        asked = {"--store", "--user", "--account", "--format", "--lang", *(["--dry-run"] if changes else [])}
        asked |= {"--limit", "--marker"} if words == ["list"] else set()
        assert not words or asked <= set(done.stdout.split())


def test_a_category_is_one_of_eight(console: Console) -> None:
    for name in (*CATEGORIES, *CATEGORIES.values()):
        console.ok(f"repo edit team/app --category {name} --description {name}")
    assert len(CATEGORIES) == 8
    with Store(console.store) as store, pytest.raises(UsageError, match="none of app_server"), one(store) as act:
        edit_repository(act, "team/app", category="cars")
