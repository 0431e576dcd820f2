"""Progress bars on a terminal's stderr: one for the run, one for the archive at work. In a pipe there are none."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from tqdm import tqdm

from ..errors import printable


class Bars:
    """`prepare.Progress` with tqdm. The run's bar counts bytes of files, the archive's bytes of layers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at_work: dict[str, list[int]] = {}
        self._lint: tqdm[None] | None = None
        self._run: tqdm[None] | None = None
        self._archive: tqdm[None] | None = None
        self._shown = ""

    def lint(self, done: int, images: int) -> None:
        if self._lint is None:
            style: dict[str, Any] = {"unit": " images", "dynamic_ncols": True, "leave": False}
            self._lint = tqdm(total=images, desc="lint", file=sys.stderr, **style)
        self._lint.update(done - self._lint.n)

    def start(self, archives: int, size: int) -> None:
        if self._lint is not None:
            self._lint.close()
        style: dict[str, Any] = {"unit": "B", "unit_scale": True, "unit_divisor": 1024, "dynamic_ncols": True, "leave": False}
        self._run = tqdm(total=size, desc=f"{archives} archives", position=0, file=sys.stderr, **style)
        self._archive = tqdm(total=0, position=1, file=sys.stderr, **style)

    def begin(self, archive: str, size: int) -> None:
        with self._lock:
            self._at_work[archive] = [0, size]
            self._show(archive)

    def advance(self, archive: str, size: int) -> None:
        with self._lock:
            if archive not in self._at_work:
                return
            done = self._at_work[archive]
            done[0] += size
            if archive == self._shown and self._archive is not None:
                self._archive.update(size)
            if self._run is not None:
                self._run.update(size)

    def end(self, archive: str) -> None:
        with self._lock:
            done, _ = self._at_work.pop(archive, (0, 0))
            try:
                rest = os.stat(archive).st_size - done
            except OSError:
                rest = 0
            if self._run is not None:
                self._run.update(rest)
            if archive == self._shown and self._at_work:
                self._show(next(iter(self._at_work)))

    def _show(self, archive: str) -> None:
        self._shown = archive
        if self._archive is not None:
            done, size = self._at_work[archive]
            self._archive.reset(total=size)
            self._archive.set_description_str(printable(os.path.basename(archive), 40), refresh=False)
            self._archive.update(done)

    def close(self) -> None:
        """Take the bars away; what is printed next starts on a clean line."""
        for bar in (self._lint, self._archive, self._run):
            if bar is not None:
                bar.close()
