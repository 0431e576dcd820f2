"""Notebooks, run unattended into one HTML page each that loads nothing from a network.

`notebooks/` has those that come with swrbatch; any other `.ipynb` with a parameter cell (tag `parameters`) will do. A notebook
gets the parameters that it has, and no others. papermill runs it in a kernel of this interpreter. It may lose outputs and say
nothing (its IOPub timeout), so a run counts only when every cell was completed and the last one, which checks the notebook's row
counts, printed something. nbconvert writes the page without its own scripts; a page that would still load something is refused.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ..disk import disk_errors
from ..errors import StoreError, UsageError, printable
from .offline import loads
from .publish import alone, write_text

NEEDED: Final = ("papermill", "nbconvert", "ipykernel", "matplotlib")
SECONDS: Final = 600
"""Time that one cell may take."""
_STYLE: Final = """
body { margin: 0 auto; max-width: 1120px; padding: 24px 32px 48px; color: #1f2430; font: 14px/1.5 "Segoe UI", "Helvetica Neue",
  Arial, "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "Noto Sans CJK SC", "WenQuanYi Micro Hei", sans-serif; }
h1 { font-size: 26px; } h2 { font-size: 19px; margin: 34px 0 8px; padding-bottom: 5px; border-bottom: 2px solid #dfe3e8; }
.prompt, .anchor-link, .output_stderr { display: none; }
table { border-collapse: collapse; font-size: 12.5px; margin: 6px 0; border: 0; }
th, td { border: 0; border-bottom: 1px solid #e5e8ec; padding: 4px 18px 4px 0; text-align: left; }
th { color: #667085; white-space: nowrap; }
td { vertical-align: top; overflow-wrap: anywhere; }
img, svg { max-width: 100%; height: auto; }
/* What cannot be read when it is narrow keeps its width, and is moved with a finger. */
.output_html, .output_svg, .output_png { overflow-x: auto; }
@media screen and (max-width: 760px) {
  body { padding: 16px; }
  .output_html table { min-width: 720px; }
  .output_svg img, .output_svg svg, .output_png img { min-width: 820px; }
}
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 12px; color: #667085; }
@media print {
  @page { size: A4; margin: 12mm; }
  body { max-width: none; padding: 0; font-size: 10px; }
  .output_html, .output_svg, .output_png { overflow-x: visible; }
  h2 { break-after: avoid; } tr, .output_svg, .output_png { break-inside: avoid; } table { font-size: 9px; }
}
"""
_TEMPLATE: Final = """{%- extends 'basic/index.html.j2' -%}
{%- block header -%}
<!DOCTYPE html>
<html><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>$title</title><style>$style</style></head><body>
{%- endblock header -%}
{%- block footer -%}
</body></html>
{%- endblock footer -%}
"""


def run_notebook(name: str, folder: str, parameters: Mapping[str, Any]) -> str:
    """Run a notebook of ours by its name, or any by its path; returns the page, `<folder>/<name>.html`.

    Raises `UsageError` when there is no such notebook or the extra `report` is not installed, `StoreError` when a cell fails (its
    error is named), when the page would load something, or when the disk refuses.
    """
    missing = [module for module in NEEDED if importlib.util.find_spec(module) is None]
    if missing:
        raise UsageError(f"notebooks need {', '.join(missing)}: pip install 'swrbatch[report]'")
    path = find_notebook(name)
    target = os.path.abspath(folder)
    with disk_errors(f"the report {target} cannot be written"), alone(target):
        executed = _execute(path, parameters)
        page = _to_html(executed, path.stem)
        if remote := loads(page):
            raise StoreError(
                f"the page of {path.stem} would load {printable(remote[0])}: make its outputs hold everything themselves"
            )
        return write_text(os.path.join(target, f"{path.stem}.html"), page)


def find_notebook(name: str) -> Path:
    """The file of a notebook: a path, or the name of one that comes with swrbatch."""
    if name.endswith(".ipynb"):
        if os.path.isfile(name):
            return Path(name)
        raise UsageError(f"there is no notebook {printable(name)}")
    package = Path(__file__).resolve().parent.parent
    # In a wheel they travel inside the package, in a checkout they lie beside it.
    folders = (package / "notebooks", package.parent / "notebooks")
    known = sorted({path.stem: path for folder in folders for path in folder.glob("*.ipynb")}.items())
    found = dict(known).get(name)
    if found is None:
        raise UsageError(f"there is no notebook {printable(name)}; there are {', '.join(stem for stem, _ in known) or 'none'}")
    return found


def _execute(path: Path, parameters: Mapping[str, Any]) -> Any:
    # Neither has types.
    nbformat: Any = importlib.import_module("nbformat")
    papermill: Any = importlib.import_module("papermill")
    traitlets: Any = importlib.import_module("traitlets.config")
    try:
        notebook = nbformat.read(path, as_version=4)
        known = parameters_of(notebook)
    except (OSError, ValueError, SyntaxError) as e:
        raise UsageError(f"the notebook {path} cannot be read: {printable(e)}") from e
    given = {name: value for name, value in parameters.items() if name in known}
    with _kernel_finds_this_package(), _quiet(), tempfile.TemporaryDirectory(prefix="swrbatch-") as sockets:
        try:
            executed = papermill.execute_notebook(
                notebook,
                None,
                given,
                kernel_name="python3",
                progress_bar=False,
                execution_timeout=SECONDS,
                # A kernel that is asked to end may say that it was interrupted: nobody needs to know.
                extra_arguments=["--IPKernelApp.log_level=50"],
                # Sockets in a folder of this run rather than ports that everybody on the machine can connect to. Without a
                # name of their own they lie in the current folder, and two runs there speak with each other's kernels.
                config=traitlets.Config({"KernelManager": {"transport": "ipc", "ip": os.path.join(sockets, "kernel")}}),
            )
        except papermill.PapermillExecutionError as e:
            raise StoreError(f"the notebook {path.stem} failed: {printable(e.ename)}: {printable(e.evalue)}") from e
    code = [cell for cell in executed.cells if cell.cell_type == "code" and cell.source.strip()]
    if not all(cell.metadata.get("papermill", {}).get("status") == "completed" for cell in code) or not code[-1].outputs:
        raise StoreError(f"the notebook {path.stem} did not come to its end: its last cell printed nothing")
    return executed


def parameters_of(notebook: Any) -> set[str]:
    """The names that the cell tagged `parameters` sets."""
    cells = [c.source for c in notebook.cells if c.cell_type == "code" and "parameters" in c.metadata.get("tags", ())]
    names: set[str] = set()
    for node in (node for source in cells for node in ast.parse(source).body):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


@contextlib.contextmanager
def _kernel_finds_this_package() -> Iterator[None]:
    """The kernel is a process of its own: it must import the swrbatch that runs here, wherever that lies."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).resolve().parents[2]), before]))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without papermill's remarks: what went wrong is said by the error."""
    logger = logging.getLogger("papermill")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _to_html(notebook: Any, title: str) -> str:
    template = _TEMPLATE.replace("$title", title).replace("$style", _STYLE)
    exporter = importlib.import_module("nbconvert").HTMLExporter(
        raw_template=template, exclude_input=True, exclude_anchor_links=True
    )
    body, _ = exporter.from_notebook_node(notebook)
    return str(body)
