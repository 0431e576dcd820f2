"""The long-term login command: the guide's shell line, and where the secret must not be."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import ROOT
from swrbatch import Store, UsageError
from swrbatch.ledger.events import verify_chain
from swrbatch.login import Credentials, found_credentials, long_term_login
from swrbatch.verify import verify_store

HOST: Final = "swr.cn-north-1.example.com"
AK, SK = "ABCDEFGHIJKLMNOPQRST", "tHisIsA40CharactersLongSecretAccessKey123"
COMMAND: Final = (sys.executable, "-m", "swrbatch", "login-command", "--project", "cn-north-1", "--registry", HOST)
# The guide's line; its last sed lost two characters in the conversion from PDF.
SHELL: Final = """printf "$AK" | openssl dgst -binary -sha256 -hmac "$SK" | od -An -vtx1 | sed 's/[ \\n]//g' | sed 'N;s/\\n//'"""


def environment(**extra: str) -> dict[str, str]:
    own = {n: v for n, v in os.environ.items() if not n.startswith(("SWRBATCH_", "HUAWEICLOUD_"))}
    return {**own, "PYTHONPATH": str(ROOT), "COLUMNS": "80", **extra}


def run(cwd: Path, *args: str, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *args], cwd=cwd, env=environment(**env), capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    assert SK not in done.stdout + done.stderr
    return done


def by_openssl(ak: str, sk: str) -> str:
    for program in ("openssl", "od", "sed", "sh"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    done = subprocess.run(["sh", "-c", SHELL], env={**os.environ, "AK": ak, "SK": sk}, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def events_of(store: Path) -> list[dict[str, Any]]:
    with Store(store) as opened, opened.ledger.read() as connection:
        assert verify_chain(connection)[0] == []
        texts = connection.exec_driver_sql("SELECT text FROM events ORDER BY seq").scalars().all()
    return [json.loads(text) for text in texts]


# --- the key -----------------------------------------------------------------------------------------------------------


@given(
    st.text("ABCabc0129", min_size=1, max_size=40),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=140),
)
@settings(max_examples=30, deadline=None)
def test_the_key_is_that_of_openssl(ak: str, sk: str) -> None:
    assert Credentials(ak, sk).key() == by_openssl(ak, sk)


def test_the_command(tmp_path: Path) -> None:
    done = run(tmp_path, SWRBATCH_AK=AK, SWRBATCH_SK=SK)
    assert done.stdout == f"docker login -u cn-north-1@{AK} -p {by_openssl(AK, SK)} {HOST}\n" and done.stderr == ""
    told = json.loads(run(tmp_path, "--format", "json", SWRBATCH_AK=AK, SWRBATCH_SK=SK).stdout)
    assert told == {"command": done.stdout.strip(), "user": f"cn-north-1@{AK}", "key": by_openssl(AK, SK), "registry": HOST}
    assert list(tmp_path.iterdir()) == []  # no store is made for it


# --- where AK and SK come from -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, ("", "")),
        ({"SWRBATCH_AK": "a", "SWRBATCH_SK": "s"}, ("a", "s")),
        ({"HUAWEICLOUD_SDK_AK": "A", "HUAWEICLOUD_SDK_SK": "S"}, ("A", "S")),
        ({"HUAWEICLOUD_SDK_AK": "A", "HUAWEICLOUD_SDK_SK": "S", "SWRBATCH_AK": "a", "SWRBATCH_SK": "s"}, ("a", "s")),
        ({"HUAWEICLOUD_SDK_AK": "A", "HUAWEICLOUD_SDK_SK": "S", "SWRBATCH_AK": "a"}, ("a", "")),  # never of two pairs
        ({"HUAWEICLOUD_SDK_AK": "A", "HUAWEICLOUD_SDK_SK": "S", "SWRBATCH_AK": "", "SWRBATCH_SK": ""}, ("A", "S")),
    ],
)
def test_variables(environ: Mapping[str, str], found: tuple[str, str]) -> None:
    assert found_credentials(environ) == found


def test_without_them_and_without_a_terminal(tmp_path: Path) -> None:
    assert "AK and SK are not set: set SWRBATCH_AK and SWRBATCH_SK, or HUAWEICLOUD_SDK_AK" in run(tmp_path, code=2).stderr
    assert "the SK is not set" in run(tmp_path, code=2, SWRBATCH_AK=AK).stderr
    assert "the AK is not set" in run(tmp_path, code=2, HUAWEICLOUD_SDK_SK=SK).stderr


def test_no_argument_takes_the_secret(tmp_path: Path) -> None:
    for option in ("--sk", "--ak", "--secret"):
        run(tmp_path, option, "x", code=2)
    run(tmp_path, AK, code=2)


def test_the_prompt_does_not_show_the_secret(tmp_path: Path) -> None:
    """On a terminal both are asked for; the SK is neither echoed nor in the process's arguments or environment."""
    leader, follower = pty.openpty()
    # A session of its own: else the terminal of whoever runs the tests would be asked.
    more: dict[str, Any] = {"stdin": follower, "stderr": follower, "stdout": subprocess.PIPE, "start_new_session": True}
    with subprocess.Popen(COMMAND, cwd=tmp_path, env=environment(), **more) as running:
        os.close(follower)
        shown = b""

        def until(text: bytes) -> None:
            nonlocal shown
            while text not in shown:
                assert select.select([leader], [], [], 30)[0], shown
                shown += os.read(leader, 1000)

        until(b"AK: ")
        os.write(leader, AK.encode() + b"\n")
        until(b"SK (not shown): ")
        proc = Path("/proc") / str(running.pid)
        if proc.exists():
            assert SK.encode() not in (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
        os.write(leader, SK.encode() + b"\n")
        assert running.stdout is not None
        out = running.stdout.read().decode()
        with contextlib.suppress(OSError):  # EIO: the last writer closed the terminal
            while data := os.read(leader, 1000):
                shown += data
        os.close(leader)
    assert running.returncode == 0 and SK.encode() not in shown
    assert out == f"docker login -u cn-north-1@{AK} -p {by_openssl(AK, SK)} {HOST}\n"


# --- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ak", "sk"),
    [
        ("a b", SK),
        ("a%s", SK),
        ("", SK),
        ("a'", SK),
        ("é", SK),
        ("A" * 129, SK),
        (AK, ""),
        (AK, "a\nb"),
        (AK, "a b"),
        (AK, "sécret"),
    ],
)
def test_what_is_no_pair(ak: str, sk: str) -> None:
    """With a percent sign the guide's printf would make another text of the AK; the message never holds the SK."""
    with pytest.raises(UsageError) as caught:
        Credentials(ak, sk)
    assert not sk or sk not in str(caught.value)


def test_what_goes_into_the_command_needs_no_quotes() -> None:
    pair = Credentials(AK, SK)
    assert SK not in repr(pair) and pair.key() not in repr(long_term_login("cn-north-1", pair, HOST))
    for project, registry in (
        ("", HOST),
        ("a b", HOST),
        ("a;b", HOST),
        ("-u", HOST),
        ("cn", "a b"),
        ("cn", "$(x)"),
        ("cn", "a/b"),
    ):
        with pytest.raises(UsageError):
            long_term_login(project, pair, registry)


def test_a_temporary_command_comes_from_the_service(tmp_path: Path) -> None:
    done = run(tmp_path, "--temporary", code=2)
    assert (
        done.stdout == ""
        and "24 hours" in done.stderr
        and "can only come from the service" in done.stderr
        and "console" in done.stderr
    )


# --- the event ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["option", "variable", "default"])
def test_the_event_holds_no_secret(tmp_path: Path, how: str) -> None:
    """In no file of the store, whole or in part, is the SK or the key."""
    store = tmp_path / "swr-store"
    with Store(store, create=True) as opened:
        opened.init(account="shop")
    args = ("--store", str(store)) if how == "option" else ()
    env = {"SWRBATCH_STORE": str(store)} if how == "variable" else {}
    cwd = tmp_path if how == "default" else tmp_path.parent
    done = run(cwd, *args, "--user", "ann", SWRBATCH_AK=AK, SWRBATCH_SK=SK, **env)
    (trace,) = events_of(store)
    assert (trace["trace_name"], trace["resource_type"], trace["trace_rating"]) == (
        "createDockerConfig",
        "dockerlogincmd",
        "normal",
    )
    assert trace["user"] == {"domain": {"name": "shop"}, "name": "ann"}
    assert json.loads(trace["request"]) == {"ak": AK, "project": "cn-north-1", "registry": HOST}
    key = done.stdout.split()[5]
    for path in store.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert SK.encode() not in data and key.encode() not in data and SK[:12].encode() not in data
    with Store(store) as opened:
        assert verify_store(opened).ok


def test_a_store_that_is_named_must_be_there(tmp_path: Path) -> None:
    done = run(tmp_path, "--store", "nowhere", code=3, SWRBATCH_AK=AK, SWRBATCH_SK=SK)
    assert done.stdout == "" and not (tmp_path / "nowhere").exists()
