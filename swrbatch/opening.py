"""A store that is worked in while it is being opened: importing what reads a ledger takes longer than reading a small archive."""

from __future__ import annotations

import os
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Any

from .digest import Cancel
from .store_folder import StoreFolder

if TYPE_CHECKING:
    from .store import Store


class Opening:
    """A store by its folder, opened by the thread that first asks for it, once. Use as a context manager.

    `cancel` ends waiting for others who open it. Raises `StoreError` as `StoreFolder` does, and from `store` as `Store` does.
    """

    def __init__(self, path: str | os.PathLike[str], *, create: bool = False, cancel: Cancel | None = None) -> None:
        self._cancel = cancel
        self.folder = StoreFolder(path, create=create)
        self._create = create
        self._opened: Future[Store] = Future()

    @classmethod
    def of(cls, store: Store) -> Opening:
        """A store that is open already; whoever opened it closes it."""
        opening = cls.__new__(cls)
        opening.folder, opening._create, opening._cancel, opening._opened = store, False, None, Future()
        opening._opened.set_result(store)
        return opening

    @property
    def done(self) -> bool:
        """Whether the store is open, or cannot be opened."""
        return self._opened.done()

    def store(self) -> Store:
        """The store, opened at the first call; what kept it from being opened is raised again at the next."""
        if not self.done:
            try:
                from .store import Store  # slow to import

                self._opened.set_result(Store(self.folder.path, create=self._create, cancel=self._cancel))
            except BaseException as e:
                self._opened.set_exception(e)
        return self._opened.result()

    def wait(self, cancel: Cancel) -> Store:
        """The store, when another thread has opened it."""
        while True:
            cancel.check()
            try:
                return self._opened.result(timeout=0.1)
            except FutureTimeout:
                continue

    def __enter__(self) -> Opening:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.done and self._opened.exception() is None:
            self._opened.result().close()
