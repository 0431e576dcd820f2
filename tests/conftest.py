"""Fixtures for all tests: the archives of `fixtures/`, and the real programs ("peers") swrbatch has to get on with.

A test that asks for `peer`, `registry_server` or `dockerd` gets the marker `peers` by itself. Where a program is
missing the test is skipped with the reason; with SWRBATCH_REQUIRE_PEERS=1 (as in .ci/run) it fails instead, so that a
machine on which nothing was really tried never looks green.

Everything here is made for pytest-xdist: each worker has its own folders, sockets and ports.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self, TypeVar

import hypothesis
import pytest

# No test is timed: the machines that run them are shared.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
PEER_FIXTURES = frozenset({"peer", "registry_server", "dockerd"})
PEER_NAMES = {
    # Debian's name of it, and upstream's.
    "docker-registry": ("docker-registry", "registry"),
    # Debian's client first, for it goes with Debian's engine: a much newer client refuses to talk to an old engine.
    "docker": ("/usr/bin/docker", "docker"),
}
START_SECONDS = 60.0
STOP_SECONDS = 20.0  # dockerd gives itself 15


def pytest_configure() -> None:
    """What a developer has set for the own use of swrbatch must not change what the tests see."""
    for name in [n for n in os.environ if n.startswith("SWRBATCH_") and n != "SWRBATCH_REQUIRE_PEERS"]:
        del os.environ[name]
    # A shell without job control starts what runs in the background with Ctrl-C ignored, and so everything that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs peers, and keep the tests that need an engine on one worker, so that only one is started."""
    for item in items:
        asked = PEER_FIXTURES.intersection(getattr(item, "fixturenames", ()))
        if asked:
            item.add_marker(pytest.mark.peers)
        if "dockerd" in asked:
            item.add_marker(pytest.mark.xdist_group("dockerd"))


@pytest.fixture(scope="session")
def archives_dir() -> Path:
    """Real archives of real producers; `fixtures/expected.json` tells what swrbatch must make of each."""
    return ROOT / "fixtures" / "archives"


# --- peers -----------------------------------------------------------------------------------------------------------


def unavailable(reason: str) -> NoReturn:
    """Skip the test, or fail it where the peers are required."""
    if os.environ.get("SWRBATCH_REQUIRE_PEERS", "") not in ("", "0"):
        pytest.fail(f"{reason} (SWRBATCH_REQUIRE_PEERS is set)", pytrace=False)
    pytest.skip(reason)


def find_peer(name: str) -> str:
    """The path of a real program; without it the test is skipped, or fails where peers are required."""
    # Daemons live in sbin, which is not on everybody's PATH.
    own = os.path.dirname(sys.executable)  # some come as packages of Python
    path = os.pathsep.join([own, os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
    for candidate in PEER_NAMES.get(name, (name,)):
        if found := shutil.which(candidate, path=path):
            return found
    unavailable(f"the program {name} is not installed")


@pytest.fixture(scope="session")
def peer() -> Callable[[str], str]:
    """`peer("skopeo")` is the path of that program, see `find_peer`."""
    return find_peer


class Server:
    """A program in the background, its output in a file. It ends with the test process, however that ends."""

    def __init__(self, argv: list[str], *, log: Path, env: dict[str, str] | None = None) -> None:
        # The fixtures of a killed test run are never finished: have the kernel end the server then.
        setpriv = shutil.which("setpriv")
        prefix = [setpriv, "--pdeathsig", "TERM"] if setpriv else []
        self._name = Path(argv[0]).name
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*prefix, *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
            )

    @property
    def log(self) -> str:
        """What the program has written so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, ready: Callable[[], T | None]) -> T:
        """The first value of `ready()` that is not None; RuntimeError with the end of the log when there is none."""
        end = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < end:
            if (value := ready()) is not None:
                return value
            time.sleep(0.05)
        status = self._process.poll()
        state = "is not ready" if status is None else f"ended with {status}"
        raise RuntimeError("\n".join([f"{self._name} {state}:", *self.log.splitlines()[-15:]]))

    def stop(self) -> None:
        """End the program and wait for it. Idempotent."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Registry(Server):
    """A registry that serves on `address` (`127.0.0.1:PORT`) until it is stopped, or its `with` block ends."""

    def __init__(self, config: Path, *, log: Path) -> None:
        # Port 0 lets the kernel choose, so that no two workers ever want the same; the port is then read from the log.
        env = {"REGISTRY_HTTP_ADDR": "127.0.0.1:0", "REGISTRY_LOG_LEVEL": "info"}
        super().__init__([find_peer("docker-registry"), "serve", str(config)], log=log, env=env)
        try:
            self.address = self.wait_for(self._listening)
            self.get("/v2/")
        except BaseException:
            self.stop()
            raise

    def _listening(self) -> str | None:
        found = re.search(r"listening on (127\.0\.0\.1:\d+)", self.log)
        return found[1] if found else None

    def get(self, path: str, *, accept: str = "*/*") -> tuple[int, dict[str, str], bytes]:
        """Status, headers (names in lower case) and body of `GET path`."""
        with contextlib.closing(http.client.HTTPConnection(self.address, timeout=30)) as connection:
            connection.request("GET", path, headers={"Accept": accept})
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return response.status, headers, response.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()


@pytest.fixture(scope="session")
def registry_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], Registry]]:
    """`registry_server(config_yml)` starts a stock registry with that configuration on a free port of the loopback.

    The configuration's own `http.addr` and log level are overridden. Whatever is still running at the end is stopped.
    """
    logs = tmp_path_factory.mktemp("registry-logs")
    started: list[Registry] = []

    def start(config: Path) -> Registry:
        started.append(Registry(config, log=logs / f"{len(started)}.log"))
        return started[-1]

    yield start
    for registry in started:
        registry.stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A real container engine. It takes plain HTTP from registries on the loopback."""

    docker: str
    env: dict[str, str] = field(repr=False)  # pytest prints fixtures, and an environment is nobody's business

    def run(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`docker ARGS...` on this engine; with `check`, a failure fails the test and shows what docker said."""
        done = subprocess.run([self.docker, *args], env=self.env, capture_output=True, text=True, timeout=120)
        if check and done.returncode:
            pytest.fail(f"docker {' '.join(args)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done


@pytest.fixture(scope="session")
def dockerd() -> Iterator[Engine]:
    """A container engine of our own, with no network and with everything it writes in a temporary folder.

    Its images stay from test to test: pull by names that only one test uses, or remove what was pulled.
    """
    daemon, docker = find_peer("dockerd"), find_peer("docker")
    if os.geteuid() != 0:
        unavailable("dockerd needs root")
    # Not pytest's folder: the path of a socket must be short, and the engine's data need not be kept after the run.
    with tempfile.TemporaryDirectory(prefix="swrbatch-dockerd-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        sock = folder / "docker.sock"
        config = folder / "daemon.json"
        config.write_text("{}\n")  # the machine's own /etc/docker/daemon.json must not count
        argv = [daemon, f"--config-file={config}", f"--data-root={folder}/data", f"--exec-root={folder}/exec"]
        argv += [f"--pidfile={folder}/pid", f"--host=unix://{sock}"]
        argv += ["--storage-driver=vfs", "--bridge=none", "--iptables=false"]  # neither mounts nor firewall rules
        server = Server(argv, log=folder / "log")
        try:
            try:
                server.wait_for(lambda: _pong(sock))
            except RuntimeError as e:
                unavailable(str(e))
            (folder / "client").mkdir()
            env = {k: v for k, v in os.environ.items() if not k.startswith("DOCKER_")}
            env |= {"DOCKER_HOST": f"unix://{sock}", "DOCKER_CONFIG": f"{folder}/client"}
            yield Engine(docker=docker, env=env)
        finally:
            server.stop()


def _pong(sock: Path) -> bool | None:
    """True once the engine's API answers."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as s:
        s.settimeout(5)
        s.connect(str(sock))
        s.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
        if b" 200 " in s.recv(64):
            return True
    return None
