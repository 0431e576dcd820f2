"""The house rules that a machine can hold: the direction of the imports, lazy heavy imports, and names."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "swrbatch"
# What comes later may import what comes before, never the other way round.
ORDER = [
    "errors",
    "faults",
    "sizes",
    "schemas",
    "allocation",
    "digest",
    "assembly",
    "compression",
    "redaction",
    "image",
    "tar",
    "archive",
    "layers",
    "policy",
    "trigger_patterns",
    "rename",
    "oci",
    "validate",
    "yamltree",
    "manifests",
    "workloads",
    "patches",
    "cts",
    "rights",
    "disk",
    "blob_writer",
    "layout",
    "store_folder",
    "attempt",
    "actors",
    "ledger",
    "results",
    "tables",
    "duck",
    "judging",
    "store",
    "opening",
    "blobs",
    "destination",
    "export",
    "inspect",
    "login",
    "settings_file",
    "sources",
    "lint",
    "staging",
    "prepare",
    "order",
    "outcome",
    "batch_options",
    "batch",
    "triggers",
    "sync",
    "verify",
    "sweep",
    "audit",
    "pipeline_file",
    "pipeline",
    "explain",
    "cli",
]
BANNED = ("utils", "helpers", "common", "core", "constants", "misc")


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if "migrations" not in p.parts)


def room(path: Path) -> str:
    """The top-level module or package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The rooms that a file imports, those inside functions and for type checking too."""
    found = set()
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {name.split(".")[0] for name in names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("swrbatch."):
            found.add((node.module or "").split(".")[1])
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    name = room(path)
    if name in ("__init__", "__main__"):
        return
    assert name in ORDER, f"{name} has no place in the order of imports yet"
    later = {other for other in imported(path) - {name} if other in ORDER and ORDER.index(other) > ORDER.index(name)}
    assert not later, f"{name} imports {later}, which come after it"


def test_every_room_is_there() -> None:
    assert {room(p) for p in modules()} - {"__init__", "__main__"} == set(ORDER)


def test_names() -> None:
    for path in modules():
        assert path.stem not in BANNED
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                assert not node.name.endswith(("Manager", "Service", "Factory", "Helper")), f"{path}: {node.name}"


@pytest.mark.parametrize("statement", ["import swrbatch", "import swrbatch.cli", "import swrbatch.batch"])
def test_heavy_imports_are_lazy(statement: str) -> None:
    heavy = "{'pandas', 'pyarrow', 'duckdb', 'alembic', 'jsonschema', 'yaml', 'ruamel', 'tree_sitter'}"
    code = f"import sys; {statement}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
