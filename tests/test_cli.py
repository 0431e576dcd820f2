"""The command line as its users meet it: exit codes, streams, options, signals, and what is left on the disk.

What needs a process of its own (exit codes by signals, terminals, pipes, what is imported) runs one; the rest uses the runner of
typer, which is fifty times as fast.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pty
import resource
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import imagetar
from conftest import ROOT
from imagetar import TAG, Image, Layer
from swrbatch import Store
from swrbatch.cli import COMMANDS, app

HOST = "swr.cn-north-1.example.com"
COMMAND = (sys.executable, "-m", "swrbatch")
SECONDS = 60  # far beyond what anything here takes: a test that hangs fails instead
MIB = 2**20
# The commands that this file is about; other groups have tests of their own.
OWN = [name for name, (module, _) in COMMANDS.items() if module in ("batch", "store")]


class Result:
    """What a call printed and how it ended. Whatever happened, no traceback may have reached the user."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        assert "Traceback" not in err, err

    def json(self) -> Any:
        """The one JSON document on stdout; AssertionError when there is anything else."""
        assert self.out.endswith("\n") and self.out.count("\n") == 1, self.out
        return json.loads(self.out)


Call = Callable[..., Result]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a process: nothing of the developer's own settings, our source first."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("SWRBATCH_")}
    return {**own, "PYTHONPATH": str(ROOT), "COLUMNS": "80", **(extra or {})}


def process(
    *args: str | Path | bytes, stdin: bytes = b"", cwd: Path | None = None, env: Mapping[str, str] | None = None, **more: Any
) -> Result:
    """`swrbatch ARGS...` in a process of its own."""
    argv = [*COMMAND, *(arg if isinstance(arg, bytes) else str(arg) for arg in args)]
    done = subprocess.run(argv, input=stdin, capture_output=True, cwd=cwd, env=environment(env), timeout=SECONDS, **more)
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """`call("check", "a.tar")` is `swrbatch check a.tar` in the test's folder, inside this process."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str | Path, stdin: str | bytes = "", env: Mapping[str, str] | None = None) -> Result:
        words = [str(arg) for arg in args]
        done = CliRunner().invoke(app, words, input=stdin, env={"COLUMNS": "80", **(env or {})}, prog_name="swrbatch")
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Result(done.exit_code, done.stdout, done.stderr)

    return run


def save(folder: Path, name: str, *images: Image) -> Path:
    """An archive as skopeo writes one."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(imagetar.skopeo(*images))
    return path


def image(name: str, text: str = "") -> Image:
    """An image of one small layer, different for each name and text."""
    return Image(layers=(Layer.of({"etc/name": f"{name} {text}\n".encode() * 50}),), tags=(name,))


def named(path: str) -> str:
    return f"{HOST}/{path}"


def snapshot(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file below a folder, with its time of change and its content."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def references(call: Call, store: str | Path = "swr-store") -> dict[str, str]:
    """Reference -> image ID of all that the store lists."""
    return {row["reference"]: row["image_id"] for row in call("images", "--store", store, "--format", "json").json()}


# --- exit codes ------------------------------------------------------------------------------------------------------


def test_exit_0_when_all_is_loaded_and_when_nothing_changes(call: Call, archives_dir: Path) -> None:
    first = call("import", archives_dir / "docker20-single.tar")
    assert (first.code, first.err) == (0, "")
    assert f"{TAG}  loaded" in first.out
    again = call("import", archives_dir / "docker20-single.tar")
    assert (again.code, again.err) == (0, "")
    assert f"{TAG}  unchanged" in again.out


def test_exit_1_when_something_is_rejected_and_the_rest_is_loaded(call: Call, archives_dir: Path) -> None:
    done = call("import", archives_dir / "docker20-by-id.tar", archives_dir / "docker20-single.tar", "nowhere.tar")
    assert (done.code, done.err) == (1, "")
    assert "error repotags-empty" in done.out and "error archive-unreadable nowhere.tar" in done.out
    assert done.out.count("way out: ") == 2
    assert list(references(call)) == [TAG]


@pytest.mark.parametrize("command", ["check", "import"])
@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--nope", "a.tar"],
        ["a.tar", "--profile", "pages"],
        ["a.tar", "--naming", "docker"],
        ["a.tar", "--jobs", "0"],
        ["a.tar", "--max-files", "0"],
        ["a.tar", "--max-files", "two"],
        ["a.tar", "--max-archive-size", "2XB"],
        ["a.tar", "--max-layer-size", "-1"],
        ["a.tar", "--max-decompressed", ""],
        ["a.tar", "--format", "xml"],
        ["a.tar", "--lang", "fr"],
        ["a.tar", "--into", "team"],
        ["a.tar", "--retag", "no-such-file.yaml"],
        ["a.tar", "--retag", "a={nope}"],
        ["a.tar", "--names", "no-such-file.csv"],
        ["a.tar", "--user", "a\nb"],
        ["a.tar", "--registry", "not a host"],
        ["@no-such-list.txt"],
        ["nothing-*.tar"],
        ["-", "@-"],
    ],
    ids=lambda args: " ".join(args) or "no archive",
)
def test_exit_2_for_wrong_usage(call: Call, tmp_path: Path, command: str, args: list[str]) -> None:
    save(tmp_path, "a.tar", Image())
    done = call(command, *args)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(("swrbatch: ", "Usage: swrbatch"))
    assert not (tmp_path / "swr-store").exists()


def test_exit_2_for_what_is_no_command(call: Call) -> None:
    for args in (["frobnicate"], ["--nope"], ["images", "--deep"], ["verify", "x"], ["init", "--org-quota", "-1"]):
        done = call(*args)
        assert (done.code, done.out) == (2, "") and "Usage: swrbatch" in done.err


def test_exit_2_is_that_of_the_process_too(tmp_path: Path) -> None:
    done = process("check", "--nope", cwd=tmp_path)
    assert done.code == 2 and "No such option" in done.err


@pytest.mark.parametrize("command", ["images", "verify", "serve-config"])
def test_exit_3_when_there_is_no_store(call: Call, tmp_path: Path, command: str) -> None:
    done = call(command)
    assert (done.code, done.out) == (3, "")
    assert "is no store" in done.err and "swrbatch init" in done.err
    assert not list(tmp_path.iterdir())


def test_exit_3_when_the_store_cannot_be_made(call: Call, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    save(tmp_path, "a.tar", Image())
    done = call("import", "a.tar", "--store", "file/store")
    assert (done.code, done.out) == (3, "") and "cannot be made" in done.err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("not ours")
    done = call("import", "a.tar", "--store", "full")
    assert done.code == 3 and "is not empty and is no store" in done.err


def test_exit_3_when_the_report_cannot_be_written(call: Call, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    save(tmp_path, "a.tar", Image())
    done = call("check", "a.tar", "--report", "file/report")
    assert done.code == 3 and "the report" in done.err


def test_exit_3_when_the_ledger_is_no_database(call: Call, tmp_path: Path) -> None:
    save(tmp_path, "a.tar", Image())
    call("import", "a.tar")
    (tmp_path / "swr-store" / "ledger.db").write_bytes(b"not a database at all" * 1000)
    for command in (["images"], ["verify"], ["import", "a.tar"], ["check", "a.tar", "--store", "swr-store"]):
        done = call(*command)
        assert done.code == 3 and done.err.startswith("swrbatch: "), command


def test_exit_3_when_the_disk_takes_no_more(tmp_path: Path, call: Call) -> None:
    """A limit on the size of files stands for a full disk: the write of a blob fails, what was loaded before stays."""
    save(tmp_path, "a-small.tar", image(named("team/small:1")))
    big = Image(layers=(Layer.of({"big": os.urandom(4 * MIB)}),), tags=(named("team/big:1"),))
    save(tmp_path, "b-big.tar", big)

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, 2 * MIB))

    args = ("a-small.tar", "b-big.tar", "--fail-fast", "--report", "report", "--format", "json")
    done = process("import", *args, cwd=tmp_path, preexec_fn=small_files)
    assert done.code == 3 and done.err.startswith("swrbatch: ")
    run = done.json()["run"]
    assert run["exit_code"] == 3 and run["loaded"] == 1 and run["error"]
    assert list(references(call)) == [named("team/small:1")]
    assert len(list((tmp_path / "report" / "runs").iterdir())) == 1
    assert call("verify", "--deep").code == 0
    assert call("import", "a-small.tar", "b-big.tar").code == 0


# --- interrupts ------------------------------------------------------------------------------------------------------


def wait_for(ready: Callable[[], object], running: subprocess.Popen[bytes]) -> None:
    """Until `ready()`; a process that ended before fails the test."""
    end = time.monotonic() + SECONDS
    while not ready():
        assert running.poll() is None and time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_run_and_leaves_its_report(tmp_path: Path, call: Call, number: signal.Signals) -> None:
    """The first archive is loaded, the second stands on a standard input that never ends."""
    save(tmp_path, "a.tar", Image())
    link = tmp_path / "swr-store/docker/registry/v2/repositories/team/hello/_manifests/tags/v1/current/link"
    argv = [*COMMAND, "import", "a.tar", "-", "--report", "report", "--format", "json"]
    with subprocess.Popen(
        argv, cwd=tmp_path, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdin and running.stdout and running.stderr
        running.stdin.write(imagetar.skopeo(image(named("team/second:1")))[:1000])
        running.stdin.flush()
        wait_for(link.exists, running)
        running.send_signal(number)
        code = running.wait(SECONDS)
        done = Result(code, running.stdout.read().decode(), running.stderr.read().decode())
    assert done.code == 130
    assert done.err == "swrbatch: interrupted\n"
    run = done.json()["run"]
    assert (run["loaded"], run["archives"], run["exit_code"], run["error"]) == (1, 1, 130, "interrupted")
    assert [path.suffix for path in (tmp_path / "report" / "runs").iterdir()] == [".parquet"]
    assert not list((tmp_path / "swr-store" / "tmp").glob("*"))
    assert list(references(call)) == [TAG]
    assert call("verify", "--deep").code == 0


def test_an_interrupt_ends_the_reading_of_a_list(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "check", "@-"], cwd=tmp_path, env=environment(), stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdin and running.stderr
        # More than a pipe holds: when the write returns, the list is being read.
        running.stdin.write(b"a.tar\n" * 40_000)
        running.stdin.flush()
        # Until it waits for more: Python itself may miss a signal between two reads.
        time.sleep(0.5)
        running.send_signal(signal.SIGINT)
        try:
            assert running.wait(10) == 130
        finally:
            running.kill()
        assert b"Traceback" not in running.stderr.read()


# --- what is printed, and where --------------------------------------------------------------------------------------


def test_json_is_one_document_and_nothing_else(call: Call, archives_dir: Path) -> None:
    for command in ("check", "import"):
        done = call(command, archives_dir, "--format", "json")
        assert (done.code, done.err) == (1, "")
        document = done.json()
        assert set(document) == {"run", "archives", "images", "layers", "issues", "findings", "events"}
        assert len(document["archives"]) == 15 == document["run"]["archives"]
        assert document["run"]["exit_code"] == 1 and document["run"]["command"] == command
        assert all(row["message_zh"] and row["way_out"] for row in document["issues"])
    assert len(call("images", "--format", "json").json()) == 2
    assert call("verify", "--format", "json").json()["ok"] is True


def test_json_stays_alone_when_something_is_told_besides(call: Call, tmp_path: Path) -> None:
    """A usage error leaves stdout empty; a failed run prints its document and says why on stderr."""
    save(tmp_path, "a.tar", Image())
    assert call("check", "a.tar", "--format", "json", "--into", "x").out == ""
    (tmp_path / "file").write_text("in the way")
    done = call("check", "a.tar", "--format", "json", "--report", "file/report")
    assert done.json()["run"]["exit_code"] == 3 and "the report" in done.err


def test_text_tells_totals_and_every_rejection(call: Call, archives_dir: Path) -> None:
    done = call("import", archives_dir)
    lines = done.out.splitlines()
    assert lines[0].split() == ["archive", "image", "status"]
    for total in ("loaded", "overwritten", "unchanged", "rejected", "bytes in", "bytes stored", "saved by reuse", "time"):
        assert any(line.startswith(total) for line in lines), total
    errors = [line for line in lines if line.startswith("error ")]
    assert len(errors) == 6 == sum(line.startswith("  way out: ") for line in lines)


def test_long_lists_are_left_out_of_the_text_but_not_the_rejections(call: Call, tmp_path: Path) -> None:
    for number in range(61):
        save(tmp_path / "many", f"{number:02}.tar", image(named(f"team/i{number}:1")))
    save(tmp_path / "many", "zz.tar", image("short:1"))
    done = call("import", "many")
    assert done.code == 1 and "many/00.tar" not in done.out
    assert "error registry-missing many/zz.tar" in done.out
    assert "loaded          61" in done.out


def test_chinese(call: Call, archives_dir: Path) -> None:
    for how in ({}, {"SWRBATCH_LANG": "zh"}):
        args = [] if how else ["--lang", "zh"]
        done = call("check", archives_dir / "docker20-by-id.tar", *args, env=how)
        assert done.code == 1
        assert "镜像sha256:f8ecab3b2507没有名称" in done.out and "解决办法：请使用镜像名称" in done.out and "已拒绝" in done.out
    call("import", archives_dir / "docker20-single.tar")
    listed = call("images", "--lang", "zh").out.splitlines()
    assert "镜像ID" in listed[0]
    shutil.rmtree("swr-store/docker/registry/v2/repositories/team/hello/_manifests/tags/v1/current")
    broken = call("verify", "--lang", "zh")
    assert broken.code == 1 and "错误 link-missing" in broken.out and "解决办法：请执行 verify --repair" in broken.out


def test_columns_line_up_with_wide_characters(call: Call, tmp_path: Path) -> None:
    save(tmp_path, "镜像.tar", Image())
    save(tmp_path, "image.tar", Image())
    lines = call("check", "镜像.tar", "image.tar").out.splitlines()[1:3]

    def columns(text: str) -> int:
        return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)

    assert len({columns(line.partition(HOST)[0]) for line in lines}) == 1


def test_junit(call: Call, archives_dir: Path) -> None:
    for language in ("en", "zh"):
        done = call("check", archives_dir, "--junit", "report.xml", "--lang", language)
        assert done.code == 1
        root = ET.parse("report.xml").getroot()
        suites = root.findall("testsuite")
        assert root.tag == "testsuites" and len(suites) == 15
        failed = {suite.get("name", ""): suite.findall("testcase/failure") for suite in suites}
        rejected = {Path(name).name: found for name, found in failed.items() if found}
        assert len(rejected) == 5
        for suite in suites:
            assert suite.get("failures") == str(len(suite.findall("testcase/failure")))
            assert suite.get("tests") == str(len(suite.findall("testcase")))
        (failure,) = rejected["docker20-short-name.tar"]
        assert failure.get("type") == "registry-missing"
        assert (failure.text or "").count("\n") == 1, "both faults are told"
        assert ("镜像格式不合法" if language == "zh" else "has no registry") in failure.get("message", "")
        outputs = [text.text or "" for text in root.iter("system-out")]
        assert any("reference-repeated" in text for text in outputs)


def test_junit_that_cannot_be_written_does_not_hide_the_results(call: Call, tmp_path: Path) -> None:
    save(tmp_path, "a.tar", Image())
    done = call("import", "a.tar", "--junit", "/dev/full")
    assert done.code == 3 and "JUnit" in done.err
    assert f"{TAG}  loaded" in done.out


def test_control_characters_of_file_names_reach_neither_terminal_nor_xml(call: Call, tmp_path: Path) -> None:
    save(tmp_path, "a\x1b[31m\x01\n.tar", Image())
    done = call("check", str(tmp_path), "--junit", "report.xml")
    assert done.code == 0 and "\x1b" not in done.out and "\x01" not in done.out
    ET.parse("report.xml")


@pytest.mark.parametrize("how", ["text", "json"])
def test_a_file_name_that_is_not_utf_8(tmp_path: Path, how: str) -> None:
    (tmp_path / "plain.tar").write_bytes(imagetar.skopeo(Image()))
    os.rename(os.fsencode(tmp_path / "plain.tar"), os.fsencode(tmp_path) + b"/bad\xff.tar")
    args = (b"bad\xff.tar", "--report", "report", "--junit", "report.xml", "--format", how)
    done = process("import", *args, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "bad\\udcff.tar" in done.out or "bad\\\\udcff.tar" in done.out
    ET.parse(tmp_path / "report.xml")
    assert len(list((tmp_path / "report" / "runs").iterdir())) == 1


# --- pipes and terminals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [["check", "a.tar"], ["check", "a.tar", "--format", "json"], ["check", "a.tar", "b.tar"]])
def test_a_reader_that_goes_away_changes_no_exit_code(tmp_path: Path, how: list[str]) -> None:
    save(tmp_path, "a.tar", Image())
    save(tmp_path, "b.tar", image("short:1"))
    reader, writer = os.pipe()
    os.close(reader)
    argv = [*COMMAND, *how]
    done = subprocess.run(argv, cwd=tmp_path, env=environment(), stdout=writer, stderr=subprocess.PIPE, timeout=SECONDS)
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == (1 if "b.tar" in how else 0)


def test_head(tmp_path: Path, archives_dir: Path) -> None:
    command = f"{sys.executable} -m swrbatch check {archives_dir} | head -1"
    done = subprocess.run(["sh", "-c", command], env=environment(), capture_output=True, text=True, timeout=SECONDS)
    assert done.stdout.split() == ["archive", "image", "status"] and done.stderr == ""


def on_a_terminal(*args: str, cwd: Path) -> tuple[int, str, str]:
    """Run with a terminal of 100 columns as stderr: exit code, stdout, and all that the terminal got."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    argv = [*COMMAND, *args]
    env = environment({"COLUMNS": "100"})
    with subprocess.Popen(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=follower) as running:
        os.close(follower)
        shown = bytearray()
        with contextlib.suppress(OSError):  # EIO: the last writer closed the terminal
            while data := os.read(leader, 65536):
                shown += data
        os.close(leader)
        assert running.stdout
        out = running.stdout.read()
    return running.returncode, out.decode(), shown.decode()


@pytest.fixture(scope="module")
def slow_archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two archives large enough for a progress bar to move."""
    folder = tmp_path_factory.mktemp("slow")
    for name in ("first", "second"):
        layer = Layer.of({"noise": os.urandom(32 * MIB)})
        save(folder, f"{name}.tar", Image(layers=(layer,), tags=(named(f"team/{name}:1"),)))
    return folder


def test_progress_on_a_terminal_shows_the_run_and_the_archive(tmp_path: Path, slow_archives: Path) -> None:
    code, out, shown = on_a_terminal("import", str(slow_archives), "--jobs", "1", cwd=tmp_path)
    assert code == 0 and f"{HOST}/team/first:1" in out
    assert "2 archives:" in shown and "64.0M" in shown and "B/s" in shown
    assert "first.tar:" in shown and "second.tar:" in shown
    # The bars are taken away at the end, and nothing of them is on stdout.
    assert shown.endswith("\r") and not shown.split("\r")[-2].strip("\n\x1b[A ")
    assert "\r" not in out and "B/s" not in out


def test_a_bar_never_has_the_name_of_the_archive_before(tmp_path: Path, slow_archives: Path) -> None:
    _, _, shown = on_a_terminal("import", str(slow_archives), "--jobs", "1", cwd=tmp_path)
    bars = [line for line in shown.replace("\n", "\r").split("\r") if ".tar:" in line]
    begun = [line.partition(":")[0].strip() for line in bars]
    assert begun == sorted(begun) and "first.tar:   0%" not in "".join(bars[begun.count("first.tar") :])
    done = [line for line in bars if "  0%" in line and "first.tar" in line]
    assert len(done) <= 1, "the bar began anew under the old name"


def test_no_progress_when_it_is_not_wanted_or_there_is_no_terminal(tmp_path: Path, slow_archives: Path) -> None:
    assert on_a_terminal("check", str(slow_archives), "--no-progress", cwd=tmp_path)[2] == ""
    done = process("check", slow_archives, cwd=tmp_path)
    assert (done.code, done.err) == (0, "")


# --- help ------------------------------------------------------------------------------------------------------------


def wrapped_badly(text: str, width: int) -> list[str]:
    """Lines that are too long, or end in the middle of a word, a name or a bracket."""
    lines = text.splitlines()
    return [line for line in lines if len(line) > width or line.endswith("-") or line.count("<int") != line.count("int range>")]


@pytest.mark.parametrize("command", ["", *OWN])
def test_help_fits_80_columns(call: Call, command: str) -> None:
    done = call(*filter(None, [command]), "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: swrbatch {command}".rstrip())
    assert not wrapped_badly(done.out, 80)
    assert done.out == call(*filter(None, [command]), "-h").out


@pytest.mark.parametrize("command", ["check", "import"])
def test_help_says_once_that_there_may_be_many_archives(call: Call, command: str) -> None:
    first = call(command, "--help").out.splitlines()[0]
    assert "ARCHIVE" in first and first.count("...") == 1


def test_help_of_the_program_lists_every_command_in_the_words_of_its_own_help(call: Call) -> None:
    listed = " ".join(call("--help").out.split())
    for name, (_, text) in COMMANDS.items():
        assert f"{name} {text}" in listed
        assert name not in OWN or " ".join(text.split()) in " ".join(call(name, "--help").out.split())
    assert "Exit codes: 0 all loaded or unchanged" in listed


def test_help_and_version_import_nothing_heavy(tmp_path: Path) -> None:
    heavy = "{'pandas', 'pyarrow', 'sqlalchemy', 'alembic', 'duckdb', 'numpy', 'jsonschema', 'tqdm', 'yaml', 'rich'}"
    for args in (["--help"], ["--version"], ["import", "--help"], ["check", "--nope"]):
        code = (
            "import sys\n"
            f"sys.argv = ['swrbatch', *{args!r}]\n"
            "from swrbatch.cli import app\n"
            "try: app(prog_name='swrbatch')\n"
            f"finally: print(sorted({heavy} & set(sys.modules)), file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True)
        assert done.stderr.splitlines()[-1] == "[]", args


@pytest.mark.parametrize(
    "args",
    [
        ["check", "no.tar", "no2.tar", "--profile", "none", "--org", "team", "--fail-fast", "--retag", "a=b", "--no-progress"],
        ["repo", "list", "--store", "none"],
        ["lint", "none", "--format", "json"],
        ["--version"],
    ],
    ids=" ".join,
)
def test_values_that_need_no_validator_build_none(tmp_path: Path, args: list[str]) -> None:
    """Building one for each option takes longer than many a command."""
    code = "import sys; sys.argv = ['swrbatch', *sys.argv[1:]]; from swrbatch.cli import main\n"
    code += "try: main()\nfinally: print('pydantic' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code, *args], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "False", done.stderr


def test_wrong_values_are_told_in_words(call: Call) -> None:
    for args, told in {
        ("check", "a", "--profile", "x"): "'--profile': 'x' is not one of 'page', 'client', 'none'.",
        ("check", "a", "--jobs", "0"): "'--jobs' / '-j': Input should be greater than or equal to 1",
        ("check", "a", "--jobs", "many"): "'--jobs' / '-j': Input should be a valid integer",
        ("check",): "Missing argument 'ARCHIVE'.",
        ("repo", "list", "--format", "x"): "'--format': 'x' is not one of 'text', 'json'.",
    }.items():
        done = call(*args)
        assert (done.code, done.out) == (2, "") and told in done.err and "Value error" not in done.err


def test_version(call: Call) -> None:
    from swrbatch import __version__

    assert call("--version").out == f"swrbatch {__version__}\n"


def test_no_command_shows_the_help(call: Call) -> None:
    done = call()
    assert done.code == 2 and "Commands:" in done.out + done.err


# --- which archives --------------------------------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path: Path) -> list[str]:
    """a.tar, sub/b.TAR and sub/deep/c.tar, with things beside them that are no archives."""
    save(tmp_path, "a.tar", image(named("team/a:1")))
    save(tmp_path, "sub/b.TAR", image(named("team/b:1")))
    save(tmp_path, "sub/deep/c.tar", image(named("team/c:1")))
    save(tmp_path, "sub/.hidden/d.tar", image(named("team/d:1")))
    save(tmp_path, "sub/.e.tar", image(named("team/e:1")))
    (tmp_path / "sub" / "README.txt").write_text("no archive")
    (tmp_path / "empty").mkdir()
    return ["a.tar", "sub/b.TAR", "sub/deep/c.tar"]


def taken(call: Call, *args: str, stdin: str | bytes = "") -> list[str]:
    """The archives that a check took, in order."""
    return [row["archive"] for row in call("check", *args, "--format", "json", stdin=stdin).json()["archives"]]


def test_files_folders_and_globs(call: Call, three: list[str]) -> None:
    assert taken(call, "sub/b.TAR", "a.tar") == ["sub/b.TAR", "a.tar"], "the order is that of the command line"
    assert taken(call, "sub") == three[1:]
    assert taken(call, ".") == [f"./{name}" for name in three]
    assert taken(call, "**/*.tar") == ["a.tar", "sub/deep/c.tar"]
    assert taken(call, "s*") == three[1:], "a folder that a pattern matches is searched"
    assert taken(call, "a.tar", "*.tar", "a.tar") == ["a.tar"], "each once"
    for nothing in ("empty", "x*.tar"):
        assert call("check", nothing).code == 2
    assert taken(call, "sub/README.txt") == ["sub/README.txt"], "what is named itself is taken whatever it is called"


def test_names_with_glob_characters_are_files_first(call: Call, tmp_path: Path) -> None:
    save(tmp_path, "a[1].tar", Image())
    save(tmp_path, "a1.tar", Image())
    save(tmp_path, "@list.tar", Image())
    assert taken(call, "a[1].tar") == ["a[1].tar"]
    assert taken(call, "@list.tar") == ["@list.tar"]


def test_lists(call: Call, three: list[str], tmp_path: Path) -> None:
    listed = "\ufeff# comment\r\nsub/deep/c.tar\r\n\r\nmissing.tar\n  spaced.tar\na.tar\nsub/b.*\n"
    want = ["sub/deep/c.tar", "missing.tar", "  spaced.tar", "a.tar", "sub/b.TAR"]
    (tmp_path / "list.txt").write_text(listed, encoding="utf-8")
    assert taken(call, "@list.txt") == want
    assert taken(call, "@-", stdin=listed.encode()) == want
    assert taken(call, "a.tar", "@list.txt") == ["a.tar", *(name for name in want if name != "a.tar")]
    (tmp_path / "none.txt").write_text("# nothing\n")
    assert call("check", "@none.txt").code == 2
    (tmp_path / "nested.txt").write_text("@list.txt\n")
    assert taken(call, "@nested.txt") == ["@list.txt"], "a list names archives, not lists"


def test_a_missing_file_is_a_rejected_archive(call: Call, three: list[str]) -> None:
    document = call("check", "missing.tar", "a.tar", "--format", "json").json()
    assert [(row["archive"], row["status"]) for row in document["archives"]] == [("missing.tar", "rejected"), ("a.tar", "valid")]
    (issue,) = document["issues"]
    assert (issue["code"], issue["archive"]) == ("archive-unreadable", "missing.tar")


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_an_archive_on_standard_input(tmp_path: Path, call: Call, compression: imagetar.Compression) -> None:
    data = imagetar.outer(imagetar.skopeo(Image()), compression)
    done = process("import", "-", "--format", "json", stdin=data, cwd=tmp_path)
    assert done.code == 0, done.err
    (archive,) = done.json()["archives"]
    assert (archive["archive"], archive["bytes"], archive["outer_compression"]) == ("-", len(data), compression)
    assert references(call) == {TAG: Image().image_id}
    assert not list((tmp_path / "swr-store" / "tmp").glob("*"))


def test_an_empty_standard_input(tmp_path: Path) -> None:
    done = process("check", "-", cwd=tmp_path)
    assert done.code == 1 and "archive-empty" in done.out
    assert process("check", "@-", cwd=tmp_path).code == 2


# --- options of check and import -------------------------------------------------------------------------------------


def test_fail_fast_stops_after_the_first_rejected(call: Call, tmp_path: Path) -> None:
    save(tmp_path, "a.tar", image(named("team/a:1")))
    save(tmp_path, "b.tar", image("short:1"))
    save(tmp_path, "c.tar", image(named("team/c:1")))
    done = call("import", "a.tar", "b.tar", "c.tar", "--fail-fast", "--format", "json")
    assert done.code == 1
    assert [row["archive"] for row in done.json()["archives"]] == ["a.tar", "b.tar"]
    assert list(references(call)) == [named("team/a:1")]
    assert call("import", "b.tar", "c.tar").code == 1
    assert named("team/c:1") in references(call), "without it the others go on"


@pytest.mark.parametrize("how", ["import --dry-run", "check --store"])
def test_a_dry_run_changes_nothing_on_disk(call: Call, tmp_path: Path, how: str) -> None:
    save(tmp_path, "a.tar", image(named("team/a:1")))
    save(tmp_path, "b.tar", image(named("team/a:1"), "other"))
    save(tmp_path, "c.tar", image(named("other/c:1")))
    assert call("import", "a.tar").code == 0
    before = snapshot(tmp_path)
    command, option = how.split()
    given = [option, "--store", "swr-store"] if option == "--dry-run" else [option, "swr-store"]
    done = call(command, "a.tar", "b.tar", "c.tar", *given, "--format", "json")
    assert done.code == 0
    assert [row["status"] for row in done.json()["images"]] == ["valid"] * 3
    assert done.json()["events"] == [] and done.json()["run"]["command"] == "check"
    refused = call(command, "b.tar", "c.tar", *given, "--on-conflict", "fail", "--no-create-org", "--format", "json")
    assert refused.code == 1
    assert {row["code"] for row in refused.json()["issues"]} == {"tag-exists", "organization-missing"}
    assert snapshot(tmp_path) == before


def test_a_dry_run_before_the_first_import(call: Call, tmp_path: Path) -> None:
    """What would make the store is checked without it."""
    save(tmp_path, "a.tar", Image())
    done = call("import", "a.tar", "--dry-run", "--format", "json")
    assert done.code == 0, done.err
    assert [row["status"] for row in done.json()["images"]] == ["valid"]
    assert not (tmp_path / "swr-store").exists()


def test_max_files_is_a_hard_limit_and_ten_are_an_upload(call: Call, tmp_path: Path) -> None:
    for number in range(12):
        save(tmp_path / "many", f"{number:02}.tar", image(named(f"team/i{number}:1")))
    document = call("check", "many", "--format", "json").json()
    assert [row["upload_seq"] for row in document["archives"]] == [1] * 10 + [2] * 2
    done = call("import", "many", "--max-files", "2", "--format", "json")
    assert done.code == 1
    assert [row["status"] for row in done.json()["archives"]] == ["loaded"] * 2 + ["rejected"] * 10
    assert {row["code"] for row in done.json()["issues"]} == {"too-many-files"}
    assert {row["upload_seq"] for row in done.json()["archives"]} == {1}


@pytest.mark.parametrize(
    ("option", "code"),
    [
        ("--max-archive-size", "archive-too-large"),
        ("--max-layer-size", "layer-too-large"),
        ("--max-decompressed", "decompressed-too-large"),
    ],
)
def test_sizes(call: Call, tmp_path: Path, option: str, code: str) -> None:
    layer = Layer.of({"zero": bytes(100_000)})
    (tmp_path / "a.tar").write_bytes(imagetar.crane(Image(layers=(layer,))))
    for large in ("1MiB", "1 MB", "0.5G", "1048576", "1m"):
        assert call("check", "a.tar", option, large).code == 0, large
    done = call("check", "a.tar", option, "1KiB", "--format", "json")
    assert done.code == 1 and [row["code"] for row in done.json()["issues"]].count(code) == 1
    assert json.loads(done.json()["run"]["limits"])[option[2:].replace("-", "_")] == 1024


def test_profiles(call: Call, archives_dir: Path) -> None:
    archive = archives_dir / "docker26-single.tar.zst"
    assert "page-compression" in call("check", archive).out
    for profile in ("client", "none"):
        done = call("check", archive, "--profile", profile, "--format", "json")
        assert done.code == 0 and done.json()["run"]["profile"] == profile


def test_naming(call: Call, tmp_path: Path) -> None:
    save(tmp_path, "a.tar", image(named("team/a.b/c:1")))
    done = call("check", "a.tar", "--format", "json")
    assert done.code == 1
    assert {row["code"] for row in done.json()["issues"]} == {"too-many-parts", "repository-invalid"}
    assert call("import", "a.tar", "--naming", "api").code == 0
    assert list(references(call)) == [named("team/a.b/c:1")]


def test_org(call: Call, tmp_path: Path) -> None:
    save(tmp_path, "a.tar", image(named("team/a:1")))
    save(tmp_path, "b.tar", image(named("other/b:1")))
    done = call("import", "a.tar", "b.tar", "--org", "team", "--format", "json")
    assert done.code == 1
    assert [(row["archive"], row["code"]) for row in done.json()["issues"]] == [("b.tar", "organization-mismatch")]
    assert list(references(call)) == [named("team/a:1")]


def test_a_store_has_one_registry(call: Call, tmp_path: Path) -> None:
    save(tmp_path, "a.tar", image(named("team/a:1")))
    save(tmp_path, "b.tar", image("other.example.com/team/b:1"))
    assert call("import", "a.tar", "--registry", HOST).code == 0
    done = call("import", "b.tar", "--format", "json")
    assert done.code == 1 and [row["code"] for row in done.json()["issues"]] == ["registry-mismatch"]
    refused = call("import", "a.tar", "--registry", "other.example.com")
    assert refused.code == 2 and HOST in refused.err
    assert call("import", "a.tar", "--registry", HOST.upper()).code == 0


@pytest.mark.parametrize("command", ["check", "import"])
def test_a_registry_that_is_given_holds_for_every_name(call: Call, tmp_path: Path, command: str) -> None:
    save(tmp_path, "a.tar", image(named("team/a:1")))
    save(tmp_path, "b.tar", image("other.example.com/team/b:1"))
    done = call(command, "a.tar", "b.tar", "--registry", HOST, "--format", "json")
    assert done.code == 1
    assert [(row["archive"], row["code"]) for row in done.json()["issues"]] == [("b.tar", "registry-mismatch")]


def test_retag_into_and_names_end_to_end(call: Call, tmp_path: Path, archives_dir: Path) -> None:
    nameless = Image(layers=image("nameless").layers, tags=())
    save(tmp_path, "hub.tar", replace(image("docker.io/library/nginx:1.25"), tags=("docker.io/library/nginx:1.25", "nginx:1.25")))
    save(tmp_path, "old.tar", image("old.example.com/legacy/app:3"))
    save(tmp_path, "team.tar", image("team/tool"))
    save(tmp_path, "nameless.tar", nameless)
    save(tmp_path, "kept.tar", image(named("team/kept:1")))
    (tmp_path / "rules.yaml").write_text(f"- match: old.example.com/legacy/*\n  to: '{HOST}/migrated/{{repository}}:v{{tag}}'\n")
    (tmp_path / "names.csv").write_text(
        f"archive,image_id,reference\nnameless.tar,{nameless.image_id[7:19]},{named('team/n:1')}\n"
    )
    rules = ["--retag", f"docker.io/library/*={HOST}/library/{{repository}}:{{tag}}", "--retag", "rules.yaml"]
    archives = ["hub.tar", "old.tar", "team.tar", "nameless.tar", "kept.tar"]
    done = call("import", *archives, *rules, "--into", f"{HOST}/team", "--names", "names.csv", "--format", "json")
    assert done.code == 0, done.out
    rows = [(row["archive"], row["original_reference"], row["reference"]) for row in done.json()["images"]]
    assert rows == [
        ("hub.tar", "docker.io/library/nginx:1.25", named("library/nginx:1.25")),
        ("hub.tar", "nginx:1.25", named("team/nginx:1.25")),
        ("old.tar", "old.example.com/legacy/app:3", named("migrated/app:v3")),
        ("team.tar", "team/tool", named("team/tool:latest")),
        ("nameless.tar", None, named("team/n:1")),
        ("kept.tar", named("team/kept:1"), named("team/kept:1")),
    ]
    assert references(call)[named("team/n:1")] == nameless.image_id
    assert len(references(call)) == 6


def test_two_images_that_a_rule_makes_one_name_are_an_error(call: Call, tmp_path: Path) -> None:
    save(tmp_path, "a.tar", image("nginx:1"))
    save(tmp_path, "b.tar", image("team/nginx:1"))
    done = call("import", "a.tar", "b.tar", "--into", f"{HOST}/team", "--format", "json")
    assert done.code == 1 and [row["code"] for row in done.json()["issues"]] == ["retag-collision"]


def test_conflicts(call: Call, tmp_path: Path) -> None:
    old, new = image(named("team/a:1")), image(named("team/a:1"), "new")
    save(tmp_path, "old.tar", old)
    save(tmp_path, "new.tar", new)
    for how, code, status, kept in (
        ("overwrite", 0, "overwritten", new),
        ("skip", 0, "skipped", old),
        ("fail", 1, "rejected", old),
    ):
        assert call("import", "old.tar", "--store", how).code == 0
        done = call("import", "new.tar", "--store", how, "--on-conflict", how, "--format", "json")
        assert done.code == code
        (row,) = done.json()["images"]
        assert row["status"] == status and row["previous_digest"]
        assert references(call, how) == {named("team/a:1"): kept.image_id}


def test_organizations_are_made_within_the_quota(call: Call, tmp_path: Path) -> None:
    assert call("init", "--org-quota", "1").code == 0
    save(tmp_path, "a.tar", image(named("one/a:1")))
    save(tmp_path, "b.tar", image(named("two/b:1")))
    missing = call("import", "a.tar", "--create-org", "--no-create-org", "--format", "json")
    assert missing.code == 1 and missing.json()["issues"][0]["code"] == "organization-missing"
    done = call("import", "a.tar", "b.tar", "--format", "json")
    assert done.code == 1 and [row["code"] for row in done.json()["issues"]] == ["organization-quota"]
    assert call("import", "b.tar", "--user", "somebody-else").code == 0


@pytest.mark.parametrize(
    ("compression", "media_type"),
    [
        ("auto", "application/vnd.docker.image.rootfs.diff.tar.gzip"),
        ("gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip"),
        ("zstd", "application/vnd.oci.image.layer.v1.tar+zstd"),
        ("none", "application/vnd.oci.image.layer.v1.tar"),
    ],
)
def test_compression(call: Call, tmp_path: Path, compression: str, media_type: str) -> None:
    save(tmp_path, "a.tar", Image())
    document = call("import", "a.tar", "--compression", compression, "--format", "json").json()
    kinds = {layer["mediaType"] for layer in _manifest(tmp_path, document["images"][0]["manifest_digest"])["layers"]}
    assert kinds == {media_type}
    assert {row["diff_id"] for row in document["layers"]} == {layer.diff_id for layer in Image().layers}
    assert call("verify", "--deep").code == 0


def _manifest(folder: Path, digest: str) -> Any:
    hexed = digest.removeprefix("sha256:")
    return json.loads((folder / f"swr-store/docker/registry/v2/blobs/sha256/{hexed[:2]}/{hexed}/data").read_bytes())


def test_hash_archives(call: Call, archives_dir: Path) -> None:
    expected = json.loads((ROOT / "fixtures" / "expected.json").read_text())["archives"]
    rows = call("check", archives_dir, "--hash-archives", "--format", "json").json()["archives"]
    assert {Path(row["archive"]).name: row["sha256"] for row in rows} == {
        name: f"sha256:{want['sha256']}" for name, want in expected.items()
    }
    assert {row["sha256"] for row in call("check", archives_dir, "--format", "json").json()["archives"]} == {None}


@pytest.mark.parametrize("jobs", ["1", "2", "8"])
def test_jobs_change_nothing_but_the_time(call: Call, archives_dir: Path, jobs: str) -> None:
    document = call("import", archives_dir, "--jobs", jobs, "--format", "json").json()
    rows = [(Path(row["archive"]).name, row["reference"], row["status"]) for row in document["images"]]
    assert rows == sorted(rows, key=lambda row: row[0])
    counts = [document["run"][name] for name in ("loaded", "overwritten", "unchanged", "rejected")]
    assert counts == [2, 6, 6, 5]
    assert sum(row["stored_bytes"] for row in _brought(document)) == document["run"]["bytes_stored"]


def _brought(document: Any) -> list[Any]:
    """The layers that this run brought to the store: those of accepted images, each blob once."""
    accepted = {(row["archive"], row["image_index"]) for row in document["images"] if row["status"] in ("loaded", "overwritten")}
    rows = [row for row in document["layers"] if (row["archive"], row["image_index"]) in accepted]
    return list({row["digest"]: row for row in rows}.values())


# --- who, and where --------------------------------------------------------------------------------------------------


def test_the_store_from_the_environment(call: Call, tmp_path: Path) -> None:
    save(tmp_path, "a.tar", Image())
    env = {"SWRBATCH_STORE": str(tmp_path / "elsewhere")}
    assert call("import", "a.tar", env=env).code == 0
    assert (tmp_path / "elsewhere" / "ledger.db").exists() and not (tmp_path / "swr-store").exists()
    assert TAG in call("images", env=env).out
    assert call("verify", env=env).code == 0
    assert str(tmp_path / "elsewhere") in call("serve-config", env=env).out
    assert call("import", "a.tar", "--store", "given", env=env).code == 0
    assert (tmp_path / "given" / "ledger.db").exists(), "the option counts more"


def test_the_default_store(call: Call, tmp_path: Path) -> None:
    save(tmp_path, "a.tar", Image())
    assert call("import", "a.tar").code == 0
    assert (tmp_path / "swr-store" / "ledger.db").exists()
    assert TAG in call("images").out


def test_check_needs_no_store_and_makes_none(call: Call, tmp_path: Path) -> None:
    save(tmp_path, "a.tar", Image())
    assert call("check", "a.tar").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


@pytest.mark.parametrize("how", ["option", "environment", "login"])
def test_the_user(call: Call, tmp_path: Path, how: str) -> None:
    import getpass

    save(tmp_path, "a.tar", Image())
    env = {"SWRBATCH_USER": "ci-bot"} if how != "login" else {}
    args = ["--user", "alice", "--account", "acme"] if how == "option" else []
    document = call("import", "a.tar", *args, "--format", "json", env=env).json()
    want = {"option": ("acme", "alice"), "environment": ("default", "ci-bot"), "login": ("default", getpass.getuser())}[how]
    assert (document["run"]["account"], document["run"]["user"]) == want
    assert {(row["account"], row["user"]) for row in document["events"]} == {want}
    assert {row["login"] for row in document["events"]} == {getpass.getuser()}
    assert "/".join(want) in call("images", "--user", want[1], "--account", want[0]).out


def test_the_ci_job_is_noted(call: Call, tmp_path: Path) -> None:
    save(tmp_path, "a.tar", Image())
    document = call("import", "a.tar", "--format", "json", env={"CI_JOB_URL": "https://ci.example.com/1"}).json()
    assert {row["ci_job"] for row in document["events"]} == {"https://ci.example.com/1"} == {document["run"]["ci_job"]}


@pytest.mark.parametrize("variable", ["SWRBATCH_USER", "CI_JOB_ID"])
def test_an_environment_that_is_not_utf_8(tmp_path: Path, variable: str) -> None:
    save(tmp_path, "a.tar", Image())
    done = process("import", "a.tar", "--report", "report", cwd=tmp_path, env={variable: os.fsdecode(b"job-\xff")})
    assert done.code == (2 if variable == "SWRBATCH_USER" else 0), done.err


# --- the store's commands --------------------------------------------------------------------------------------------


def test_init(call: Call, tmp_path: Path) -> None:
    done = call("init", "--registry", HOST, "--region", "cn-north-1", "--account", "acme", "--org-quota", "3", "--user", "alice")
    assert call("admin", "list", "--user", "alice", "--format", "json").json()["rows"][0]["user"] == "alice"
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        f"store {tmp_path / 'swr-store'}",
        f"registry: {HOST}",
        "region: cn-north-1",
        "account: acme",
        "org_quota: 3",
    ]
    again = call("init", "--registry", HOST, "--region", "cn-north-1", "--account", "acme", "--org-quota", "3")
    assert (again.code, again.out) == (0, done.out), "the same again changes nothing"
    other = call("init", "--registry", "other.example.com")
    assert other.code == 2 and HOST in other.err
    save(tmp_path, "a.tar", Image())
    assert call("import", "a.tar").code == 0
    assert "acme/" in call("images").out


def test_init_again_without_options_shows_what_there_is(call: Call) -> None:
    call("init", "--registry", HOST, "--region", "cn-north-1", "--account", "acme", "--org-quota", "3")
    done = call("init")
    assert done.code == 0 and "region: cn-north-1" in done.out and "org_quota: 3" in done.out


def test_images(call: Call, archives_dir: Path) -> None:
    call("import", archives_dir / "docker20-two-images.tar", "--user", "alice")
    assert len(call("images", "--user", "bob").out.splitlines()) == 1, "private ones of others are not listed"
    lines = call("images", "--user", "alice").out.splitlines()
    assert lines[0].split("  ")[0] == "reference" and len(lines) == 3
    for row, line in zip(call("images", "--user", "alice", "--format", "json").json(), lines[1:], strict=True):
        assert line.startswith(row["reference"]) and row["image_id"][7:19] in line and "default/alice" in line
        assert row["pull"] == f"docker pull {row['reference']}"
        assert {"organization", "repository", "tag", "digest", "layers", "stored_bytes", "updated"} <= row.keys()


def test_every_fixture_by_itself_leaves_a_sound_store(call: Call, archives_dir: Path) -> None:
    """Each in a store of its own: in one store a later archive may take the name of an image that is broken."""
    expected = json.loads((ROOT / "fixtures" / "expected.json").read_text())["archives"]
    for number, (name, want) in enumerate(expected.items()):
        if want["check"]["status"] == "valid":
            assert call("import", archives_dir / name, "--store", f"store-{number}").code == 0, name
            found = call("verify", "--deep", "--store", f"store-{number}", "--format", "json")
            assert (found.code, found.json()["issues"], found.json()["unreferenced"]) == (0, [], 0), name


def test_verify_finds_and_repairs(call: Call, tmp_path: Path) -> None:
    save(tmp_path, "a.tar", Image())
    call("import", "a.tar")
    sound = call("verify", "--deep")
    assert sound.code == 0 and "the store is sound" in sound.out and "hashed" in sound.out
    assert "hashed" not in call("verify").out
    link = tmp_path / "swr-store/docker/registry/v2/repositories/team/hello/_manifests/tags/v1/current/link"
    link.unlink()
    broken = call("verify")
    assert broken.code == 1 and "error link-missing" in broken.out and "way out: verify --repair" in broken.out
    assert "the store is NOT sound" in broken.out
    document = call("verify", "--format", "json").json()
    assert document["ok"] is False and [row["code"] for row in document["issues"]] == ["link-missing"]
    repaired = call("verify", "--repair")
    assert repaired.code == 0 and "repaired: " in repaired.out and link.read_bytes().startswith(b"sha256:")
    assert call("verify", "--deep").code == 0


def test_verify_deep_finds_a_damaged_blob_that_import_brings_back(call: Call, tmp_path: Path) -> None:
    save(tmp_path, "a.tar", Image())
    document = call("import", "a.tar", "--format", "json").json()
    hexed = document["layers"][0]["digest"].removeprefix("sha256:")
    blob = tmp_path / f"swr-store/docker/registry/v2/blobs/sha256/{hexed[:2]}/{hexed}/data"
    blob.chmod(0o644)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    assert call("verify").code == 0, "the size is right"
    assert "error blob-corrupt" in call("verify", "--deep").out
    assert call("verify", "--deep", "--repair").code == 1
    assert not blob.exists()
    assert call("import", "a.tar").code == 0
    assert call("verify", "--deep").code == 0


def test_serve_config(call: Call, tmp_path: Path) -> None:
    call("init")
    config = yaml.safe_load(call("serve-config").out)
    assert config["storage"]["filesystem"]["rootdirectory"] == str(tmp_path / "swr-store")
    assert config["storage"]["maintenance"] == {"readonly": {"enabled": True}}
    assert config["http"] == {"addr": "127.0.0.1:5000"}
    assert "cache" not in config["storage"]
    writable = yaml.safe_load(call("serve-config", "--writable", "--addr", "127.0.0.1:5555").out)
    assert "maintenance" not in writable["storage"] and writable["storage"]["delete"] == {"enabled": True}
    assert writable["http"] == {"addr": "127.0.0.1:5555"}
    for addr in (":5000", "[::1]:5000", "localhost:65535"):
        assert yaml.safe_load(call("serve-config", "--addr", addr).out)["http"] == {"addr": addr}
    for addr in ("localhost", "5000", ":", "host:65536", "http://host:5000", "a b:1"):
        wrong = call("serve-config", "--addr", addr)
        assert wrong.code == 2 and "is no HOST:PORT" in wrong.err and not wrong.out


# --- every option is met here ----------------------------------------------------------------------------------------


def test_manifests_of_triggers(call: Call, tmp_path: Path) -> None:
    """What becomes of them is in test_triggers."""
    save(tmp_path, "a.tar", image(named("team/app:v1")))
    (tmp_path / "manifests").mkdir()
    assert call("import", "a.tar", "--patch-only").code == 2
    assert call("import", "a.tar", "--manifests", "nowhere").code == 2
    done = call("import", "a.tar", "--manifests", "manifests", "--format", "json")
    assert done.code == 0 and json.loads(done.out)["triggers"] == []


def test_lint_of_an_import(call: Call, tmp_path: Path) -> None:
    """What it finds and refuses is in test_gate."""
    save(tmp_path, "a.tar", image(named("team/app:v1")))
    (tmp_path / "lint.yaml").write_text("rules: {missing-user: error}\n")
    for command in ("check", "import"):
        assert "lint" not in call(command, "a.tar").out
        assert [line.split()[:2] for line in call(command, "a.tar", "--lint").out.splitlines() if "lint" in line] == [
            ["lint", "error"]
        ]
        done = call(command, "a.tar", "--lint-config", "lint.yaml")
        assert done.code == 0 and json.loads(call(command, "a.tar", "--lint", "--format", "json").out)["findings"]
        assert call(command, "a.tar", "--lint-config", "lint.yaml", "--lint-fail-on", "error").code == 1


def test_every_option_has_a_test() -> None:
    """A new option without a test here fails this one."""
    import typer

    source = Path(__file__).read_text(encoding="utf-8")
    missing: Sequence[str] = [
        f"{name} {option}"
        for name in OWN
        for parameter in typer.main.get_command(app).get_command(None, name).params  # type: ignore[attr-defined]
        for option in parameter.opts + parameter.secondary_opts
        if option.startswith("--") and f'"{option}"' not in source
    ]
    assert not missing


# --- standard output ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [">/dev/full", ">&-"])
def test_a_result_that_cannot_be_written_is_told(tmp_path: Path, where: str) -> None:
    """The image is loaded; exit code 1 would say that something was rejected."""
    path = save(tmp_path, "a.tar", image(named("team/app:v1")))
    command = f"{sys.executable} -m swrbatch import {path} --store {tmp_path / 's'} {where}"
    done = subprocess.run(["bash", "-c", command], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stderr.startswith("swrbatch: the result cannot be written to standard output: ")
    assert done.stderr.count("\n") == 1
    with Store(tmp_path / "s") as store:
        assert len(store.images()) == 1


def test_an_empty_store_is_wrong_usage(call: Call, tmp_path: Path) -> None:
    path = save(tmp_path, "a.tar", image(named("team/app:v1")))
    result = call("import", path, "--store", "")
    assert result.code == 2 and "--store is empty" in result.err and not (tmp_path / "swr-store").exists()


@pytest.mark.parametrize("inside", [".", "report", "docker", "docker/report"])
def test_a_report_does_not_lie_in_the_store(call: Call, tmp_path: Path, inside: str) -> None:
    path = save(tmp_path, "a.tar", image(named("team/app:v1")))
    result = call("import", path, "--store", "s", "--report", f"s/{inside}")
    assert result.code == 2 and "it lies in the store" in result.err
    assert not list((tmp_path / "s").rglob("*.parquet"))


def test_a_search_passes_pipes_by(call: Call, tmp_path: Path) -> None:
    save(tmp_path, "in/a.tar", image(named("team/app:v1")))
    os.mkfifo(tmp_path / "in" / "b.tar")
    os.symlink("nowhere", tmp_path / "in" / "c.tar")
    result = call("check", "in", "--format", "json")
    assert [row["archive"] for row in result.json()["archives"]] == ["in/a.tar", "in/c.tar"]
    assert result.code == 1


def test_a_list_may_be_that_of_find_print0(call: Call, tmp_path: Path) -> None:
    save(tmp_path, "a b.tar", image(named("team/app:v1")))
    save(tmp_path, "c\nd.tar", image(named("team/app:v2")))
    result = call("check", "@-", "--format", "json", stdin="a b.tar\0c\nd.tar\0")
    assert result.code == 0 and len(result.json()["archives"]) == 2


def test_a_junit_report_that_cannot_be_written_is_in_the_document(call: Call, tmp_path: Path) -> None:
    path = save(tmp_path, "a.tar", image(named("team/app:v1")))
    (tmp_path / "file").touch()
    result = call("import", path, "--junit", "/dev/full", "--format", "json")
    run = result.json()["run"]
    assert result.code == run["exit_code"] == 3 and "JUnit" in run["error"] and run["error"] in result.err


def test_what_was_not_looked_at_is_told(call: Call, tmp_path: Path) -> None:
    for name in "abc":
        save(tmp_path, f"in/{name}.tar", image("no-registry:v1" if name == "a" else named(f"team/{name}:v1")))
    result = call("check", "in", "--fail-fast")
    assert result.code == 1 and "(--fail-fast): 2 archives not looked at" in result.err


def test_the_quota_of_a_store_can_be_raised(call: Call, tmp_path: Path) -> None:
    """What the issue organization-quota names as the way out."""
    paths = [save(tmp_path, f"{name}.tar", image(named(f"{name}/app:v1"))) for name in ("one", "two")]
    assert call("init", "--org-quota", "1").code == 0
    assert call("import", *paths).code == 1
    assert call("init", "--org-quota", "2").code == 0
    assert call("import", *paths).code == 0
    assert call("init", "--account", "another").code == 2


def test_a_store_can_demand_a_profile(call: Call, tmp_path: Path) -> None:
    path = save(tmp_path, "a.tar", image(named("team/app:v1")))
    assert "require_profile: page" in call("init", "--require-profile", "page", "--user", "ann").out
    for command in ("check", "import"):
        done = call(command, path, "--store", "swr-store", "--profile", "client", "--user", "ann", "--format", "json")
        assert (done.code, [row["code"] for row in done.json()["issues"]]) == (1, ["profile-required"])
    assert call("import", path, "--user", "ann").code == 0
    # Only an administrator changes what a store demands.
    refused = call("init", "--require-profile", "any", "--user", "bob")
    assert refused.code == 1 and "init needs an administrator of the account default" in refused.err
    assert call("import", path, "--user", "ann", "--profile", "none").code == 1
    assert call("init", "--require-profile", "any", "--user", "ann").code == 0
    assert call("import", path, "--user", "ann", "--profile", "none").code == 0


def test_the_report_tells_how_images_were_renamed(call: Call, tmp_path: Path) -> None:
    path = save(tmp_path, "a.tar", image("app:v1"))
    result = call(
        "check", path, "--retag", f"app:*={HOST}/team/{{repository}}:{{tag}}", "--into", f"{HOST}/rest", "--format", "json"
    )
    options = json.loads(result.json()["run"]["options"])
    assert result.code == 0
    assert options["retag"] == [f"app:*={HOST}/team/{{repository}}:{{tag}}"] and options["into"] == f"{HOST}/rest"
    assert options["names"] is None
