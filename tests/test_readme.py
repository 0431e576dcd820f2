"""What the README shows is what happens: sessions are replayed, tables are generated, links lead somewhere.

    python tests/test_readme.py      writes README.md anew: generated tables, and the output of its sessions

The README's `console` blocks are one shell session, run where `fixtures/` is; its `pycon` blocks are one Python session, run in
the folder in which the shell ended. A block marked `peers` needs real programs. Compared is everything but what is new in each
run or differs between machines: digests, times, sizes of what was compressed.
"""

from __future__ import annotations

import contextlib
import doctest
import enum
import inspect
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from typer.models import OptionInfo

from conftest import ROOT
from swrbatch import tables
from swrbatch.cli import COMMANDS, app, batch
from swrbatch.cts import EMITTED, OWN
from swrbatch.errors import CODES, ExitCode, plain
from swrbatch.inspect.sharing_report import SHARING_ROWS
from swrbatch.ledger.events import PRUNE
from swrbatch.lint.catalog import RULES
from swrbatch.lint.rule import Rule
from swrbatch.pipeline import StepRow

README = ROOT / "README.md"
PORT = 5000
_BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_GENERATED = re.compile(r"^<!-- generated: (\w+) -->\n(.*?)^<!-- end -->$", re.MULTILINE | re.DOTALL)
_MARK = "\x1e"
# What may differ from run to run, or from machine to machine, and what stands for it. Longer spaces too: columns move.
_VARIES = (
    (r"sha256:[0-9a-f]{64}|\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b", "DIGEST"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", "TIME"),
    (r"\b\d+(\.\d)? s$", "SECONDS"),
    (r"\b\d+(\.\d)? (bytes|KiB|MiB)", "SIZE"),
    (r" {2,}", "  "),
)


# --- tables that the code writes ---------------------------------------------------------------------------------------


def cell(text: str) -> str:
    """Text as a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines) + "\n"


def options() -> str:
    """The options of `check` and `import`, as their help has them."""
    owners: dict[str, list[str]] = {}
    rows: dict[str, list[str]] = {}
    for name, function in (("import", batch.import_), ("check", batch.check)):
        for parameter in inspect.signature(function, eval_str=True).parameters.values():
            kind, info = get_args(parameter.annotation)
            if not isinstance(info, OptionInfo):
                continue
            # In an `Annotated` the first name stands where a default would.
            given = [text for text in (info.default, *(info.param_decls or ())) if isinstance(text, str) and text.startswith("-")]
            declared = given or [f"--{parameter.name.replace('_', '-')}"]
            names = ", ".join(f"`{option}`" for option in "/".join(declared).split("/"))
            rows.setdefault(names, [names, values(kind, info, parameter.default), info.help or ""])
            owners.setdefault(names, []).append(name)
    for names, row in rows.items():
        row[2] += "" if len(owners[names]) == 2 else f" (`{owners[names][0]}`)"
    return table(("option", "values", "meaning"), list(rows.values()))


def values(kind: Any, info: OptionInfo, default: object) -> str:
    """What an option takes: its words, the default in bold, or its placeholder."""
    kind = next((one for one in get_args(kind) if one is not type(None)), kind)  # what may be left out
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return ", ".join(f"**{word.value}**" if word is default else str(word.value) for word in kind)
    return info.metavar or ("" if kind is bool else "N")


def issues() -> str:
    """The table of issue codes."""
    rows = [
        (f"`{row.code}`", row.severity.value, row.section, row.swr_code.removeprefix("SVCSTG.SWR."), row.message, row.way_out)
        for row in CODES.values()
    ]
    return table(("code", "severity", "guide", "SWR code", "message", "way out"), rows)


def steps() -> str:
    """The columns of a pipeline's table."""
    rows = [(f"`{c.name}`", c.type, "yes" if c.nullable else "no", c.meaning) for c in tables.row_columns(StepRow)]
    return table(("column", "type", "null", "meaning"), rows)


def rules() -> str:
    """The rules of lint, by the guide's practices."""

    def told(rule: Rule) -> tuple[str, ...]:
        section = rule.section.partition(" ")[0] + (f" no. {rule.practice}" if rule.practice else "")
        finds = re.sub(r"<(\w+)>", r"`\1`", plain(rule.message)).replace("***", "`***`")
        return f"`{rule.id}`", rule.level.value, finds, ", ".join(rule.forms), section

    return table(("rule", "level", "finds", "on", "guide"), [*map(told, RULES)])


def examples() -> str:
    """A bad and a good example of each rule."""

    def code(text: str) -> str:
        lines = (line.replace("  ", "\N{NO-BREAK SPACE} ") for line in text.splitlines())
        return "<br>".join(f"`{line}`" for line in lines)

    return table(("rule", "bad", "good"), [(f"`{rule.id}`", code(rule.bad), code(rule.good)) for rule in RULES])


GENERATED: Mapping[str, Callable[[], str]] = {
    "options": options,
    "report": tables.describe,
    "dedupe": partial(tables.describe, SHARING_ROWS),
    "issues": issues,
    "steps": steps,
    "rules": rules,
    "examples": examples,
}


def with_tables(text: str) -> str:
    """The text with its generated parts made anew."""

    def made(match: re.Match[str]) -> str:
        return f"<!-- generated: {match[1]} -->\n\n{GENERATED[match[1]]().strip()}\n\n<!-- end -->"

    return _GENERATED.sub(made, text)


# --- sessions ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the words after it, its text, and where that stands in the page."""

    language: str
    words: str
    text: str
    start: int


def blocks(text: str, language: str) -> list[Block]:
    return [Block(m[1], m[2].strip(), m[3], m.start(3)) for m in _BLOCK.finditer(text) if m[1] == language]


def commands(block: Block) -> list[str]:
    return [line[2:] for line in block.text.splitlines() if line.startswith("$ ")]


def replay_shell(wanted: Sequence[Block], folder: Path, port: int, registry: str) -> tuple[dict[int, str], Path]:
    """Run the commands of all blocks in one shell in `folder`: each block's new text by its place, and the folder it ended in."""
    lines = [f'swrbatch() {{ "{sys.executable}" -m swrbatch "$@"; }}', f'registry() {{ exec "{registry}" "$@"; }}']
    lines += ["trap 'kill $(jobs -p) 2>/dev/null' EXIT", f"mark() {{ local s=$?; printf '{_MARK}'; return $s; }}", "mark"]
    for block in wanted:
        for command in commands(block):
            # The status before the mark is the one that `echo $?` sees.
            lines += [
                command.replace(f":{PORT}", f":{port}").replace("serve-config", f"serve-config --addr 127.0.0.1:{port}"),
                "mark",
            ]
            if command.endswith("&"):
                lines += [f"for i in $(seq 200); do (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null && break; sleep 0.1; done"]
    lines += ["pwd"]
    own = {name: value for name, value in os.environ.items() if not name.startswith("SWRBATCH_")}
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        cwd=folder,
        env={**own, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=180,
        encoding="utf-8",
    )
    outputs = iter(done.stdout.replace(f":{port}", f":{PORT}").split(_MARK)[1:])
    texts = {b.start: "".join(f"$ {command}\n{next(outputs)}" for command in commands(b)) for b in wanted}
    return texts, Path(next(outputs).strip())


def replay_python(wanted: Sequence[Block], folder: Path) -> dict[int, str]:
    """Run the statements of all blocks in one Python session in `folder`: each block's new text by its place."""
    names: dict[str, Any] = {"__name__": "__main__"}
    texts = {}
    with contextlib.chdir(folder):
        for block in wanted:
            lines = []
            for example in doctest.DocTestParser().get_examples(block.text):
                lines += [f"{'>>>' if at == 0 else '...'} {line}" for at, line in enumerate(example.source.splitlines())]
                with contextlib.redirect_stdout(io.StringIO()) as output:
                    exec(compile(example.source, "<README>", "single"), names)
                lines += [line.rstrip() for line in output.getvalue().splitlines()]
            texts[block.start] = "\n".join(lines) + "\n"
    return texts


def replay(text: str, folder: Path, *, peers: bool, registry: str = "") -> dict[int, tuple[str, str]]:
    """Each session of the page as it stands and as it is now, by its place; without `peers`, no block that needs them."""
    (folder / "fixtures").mkdir()
    for name in ("archives", "cts", "pipelines"):
        shutil.copytree(ROOT / "fixtures" / name, folder / "fixtures" / name)
    shell = [block for block in blocks(text, "console") if peers or "peers" not in block.words]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    new, ended = replay_shell(shell, folder, port, registry)
    python = blocks(text, "pycon")
    new |= replay_python(python, ended)
    return {block.start: (block.text, new[block.start]) for block in [*shell, *python]}


def normal(text: str) -> str:
    """A session without what may differ from run to run."""
    for pattern, word in _VARIES:
        text = re.sub(pattern, word, text, flags=re.MULTILINE)
    return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)


def rewritten(text: str, folder: Path, *, peers: bool, registry: str = "") -> str:
    """The page with tables and sessions made anew; a session that only differs in what may differ stays."""
    for start, (old, new) in sorted(replay(text, folder, peers=peers, registry=registry).items(), reverse=True):
        if normal(old) != normal(new):
            text = text[:start] + new + text[start + len(old) :]
    return with_tables(text)


# --- tests -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page() -> str:
    return README.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", GENERATED)
def test_generated_tables(page: str, name: str) -> None:
    found = {match[1]: match[2] for match in _GENERATED.finditer(page)}
    assert found[name].strip() == GENERATED[name]().strip(), "run: python tests/test_readme.py"


def test_sessions(page: str, tmp_path: Path) -> None:
    for old, new in replay(page, tmp_path, peers=False).values():
        assert normal(new) == normal(old), "run: python tests/test_readme.py"


def test_sessions_with_real_programs(page: str, tmp_path: Path, peer: Callable[[str], str]) -> None:
    peer("skopeo")
    for old, new in replay(page, tmp_path, peers=True, registry=peer("docker-registry")).values():
        assert normal(new) == normal(old), "run: python tests/test_readme.py"


def test_exit_codes(page: str) -> None:
    section = page.partition("### Exit codes")[2].partition("###")[0]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)] == sorted(int(code) for code in ExitCode)


def test_every_command_is_shown(page: str) -> None:
    listed = set(re.findall(r"^\| `swrbatch ([\w-]+)", page, re.MULTILINE))
    assert {"init", "check", "import", "images", "verify", "serve-config"} <= listed <= set(COMMANDS)


def test_every_event_is_in_the_table_of_commands(page: str) -> None:
    section = page.partition("### Which command leaves which event")[2].partition("\n## ")[0]
    assert set(re.findall(r"`([a-z]+[A-Z]\w+)`", section)) == EMITTED | OWN.keys() | {PRUNE}


def test_it_opens_with_what_it_is_and_the_two_commands(page: str) -> None:
    opening = page[:1200]
    assert opening.startswith("# swrbatch\n\nswrbatch ") and "make demo" in opening and "make test" in opening
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in re.findall(r"\bmake (\w+)", _GENERATED.sub("", page)):
        assert command in targets, command


def test_paths_and_options_exist(page: str) -> None:
    group: Any = typer.main.get_command(app)
    found = [group.get_command(None, name) for name in COMMANDS]
    found += [inner for command in found for inner in getattr(command, "commands", {}).values()]
    known = {"--help", "--version"} | {o for command in found for p in command.params for o in p.opts + p.secondary_opts}
    prose = _GENERATED.sub("", _BLOCK.sub("", page))
    for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", prose):
        assert option in known, option
    for path in re.findall(r"`((?:tests|fixtures|swrbatch|schemas|\.ci)/[\w./-]*)`", page):
        assert (ROOT / path).exists(), path


def test_lines_fit(page: str) -> None:
    prose = _GENERATED.sub("", _BLOCK.sub("", page))
    assert not [line for line in prose.splitlines() if len(line) > 150 and not line.startswith("|")]


def test_the_demo(tmp_path: Path) -> None:
    """`make demo` runs this file; from any folder it ends 0 and says so, and its lines fit a terminal of 100 columns."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"SWRBATCH_LANG": "zh"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "fixtures" / "demo.py")], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("All 15 archives as expected.") and done.stderr == ""
    assert not [line for line in done.stdout.splitlines() if len(line) > 100]
    assert not list(tmp_path.iterdir())


def test_the_demo_tells_what_is_not_as_expected(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "fixtures", tmp_path / "fixtures")
    expected = tmp_path / "fixtures" / "expected.json"
    text = expected.read_text(encoding="utf-8")
    expected.write_text(text.replace("page-compression", "archive-too-large"), encoding="utf-8")
    argv = [sys.executable, str(tmp_path / "fixtures" / "demo.py"), "--keep", str(tmp_path / "kept")]
    done = subprocess.run(argv, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "docker26-single.tar.zst: codes: error is ['page-compression'], expected ['archive-too-large']" in done.stdout
    assert (tmp_path / "kept" / "store" / "ledger.db").exists() and (tmp_path / "kept" / "report" / "runs").exists()


def main() -> None:
    """Write the README anew, as far as the programs that are there allow."""
    registry = shutil.which("docker-registry") or shutil.which("registry")
    with tempfile.TemporaryDirectory(prefix="swrbatch-readme-") as name:
        text = README.read_text(encoding="utf-8")
        new = rewritten(text, Path(name), peers=bool(registry and shutil.which("skopeo")), registry=registry or "")
    README.write_text(new, encoding="utf-8")
    print(f"{README} {'is as it was' if new == text else 'was written anew'}")


if __name__ == "__main__":
    main()
