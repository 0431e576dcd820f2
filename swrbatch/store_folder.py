"""The folder of a store, before and without its ledger: what archives are read into while the ledger is still being opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from .digest import Cancel
from .disk import disk_errors, locked, run_folder
from .errors import StoreError
from .layout import RegistryLayout

LEDGER: Final = "ledger.db"


class StoreFolder:
    """A folder that is a store, or with `create` may become one: it is looked at, and its locks have a place.

    Raises `StoreError` when it is none and must not or cannot become one.
    """

    def __init__(self, path: str | os.PathLike[str], *, create: bool = False) -> None:
        self.path = os.path.abspath(os.fspath(path))
        self.new = not os.path.exists(os.path.join(self.path, LEDGER))
        """Whether it had no ledger yet: nothing is loaded in it."""
        if self.new and not create:
            raise StoreError(f"{self.path} is no store: make one with swrbatch init --store {self.path}, or by an import")
        if self.new and os.path.isdir(self.path) and _foreign(self.path):
            raise StoreError(
                f"{self.path} is not empty and is no store: choose an empty or a new folder, or the folder of a store"
            )
        with disk_errors(f"the store {self.path} cannot be made"):
            os.makedirs(os.path.join(self.path, "locks"), exist_ok=True)
        self.layout = RegistryLayout(self.path)
        self.tmp = os.path.join(self.path, "tmp")

    @staticmethod
    def exists(path: str | os.PathLike[str]) -> bool:
        """Whether there is a store in this folder."""
        return os.path.exists(os.path.join(path, LEDGER))

    def holds(self, path: str) -> bool:
        """Whether a path lies in the store's folder, which holds nothing else."""
        root = os.path.realpath(self.path)
        return os.path.commonpath([root, os.path.realpath(path)]) == root

    def lock(self, name: str) -> str:
        """The file of a lock: `sweep` (loads share it), `links` (whoever writes or removes links), `triggers`, `ledger`."""
        return os.path.join(self.path, "locks", name)

    @contextmanager
    def run(self, run_id: str, cancel: Cancel) -> Iterator[str]:
        """The surroundings of one run: a folder for temporary files, and the promise that no sweep takes blobs away."""
        with locked(self.lock("sweep"), shared=True, cancel=cancel), run_folder(self.tmp, run_id) as folder:
            yield folder


def _foreign(path: str) -> bool:
    """Whether a folder holds what neither this program nor a registry put there."""
    ours = {"docker", "locks", "tmp", "quarantine", "lost+found"}
    # SQLite keeps files beside the ledger; another process may be making this very store.
    with disk_errors(f"the store {path} cannot be read"):
        return any(name not in ours and not name.startswith("ledger.db") for name in os.listdir(path))
