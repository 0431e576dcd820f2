"""One blob made by several threads: its blocks are read in turn, compressed side by side, and written in order.

Whoever takes part carries one block from its reading to its compression, so that a block stays in one processor's cache: handing
blocks from a reading thread to compressing ones took a tenth more processor time of a large import.

What this module guarantees: what is written does not depend on how many take part; nobody reads on while more than `WAITING`
blocks wait for their turn to be written; when `assemble` returns or raises, nobody touches the blocks, or what they are written
to, any more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Final

WAITING: Final = 4
"""Blocks that are done and wait for an earlier one."""


def assemble(
    blocks: Iterator[bytes],
    change: Callable[[bytes], bytes],
    write: Callable[[bytes], object],
    pool: Executor | None = None,
) -> None:
    """`write(change(block))` for each block in order, or for an empty one: here, and by the threads of `pool` that have time.

    Neither `blocks` nor `write` is ever used by two threads at once. Raises what any of the three raises first.
    """
    _Assembly(blocks, change, write, pool).run()


class _Assembly:
    """A blob in the making."""

    def __init__(
        self, blocks: Iterator[bytes], change: Callable[[bytes], bytes], write: Callable[[bytes], object], pool: Executor | None
    ) -> None:
        self._blocks = blocks
        self._change = change
        self._write = write
        self._pool = pool
        self._reading = threading.Lock()
        self._state = threading.Condition()
        self._read = self._written = self._hands = 0
        self._done: dict[int, bytes] = {}
        self._writing = self._ended = False
        self._failure: BaseException | None = None
        self._help: Future[None] | None = None

    def run(self) -> None:
        self._take_part()
        with self._state:
            self._state.wait_for(lambda: not self._hands)
            failure, self._failure = self._failure, None
        if self._help is not None:
            self._help.cancel()
        try:
            if failure is not None:
                raise failure
        finally:
            del failure  # or it would hold on to itself, and to the blocks, through its traceback
        if not self._read:
            self._write(self._change(b""))

    def _take_part(self) -> None:
        with self._state:
            if self._ended:
                return
            self._hands += 1
        try:
            while (block := self._next()) is not None:
                number, content = block
                self._put(number, self._change(content))
        except BaseException as e:  # whatever it is, also in a thread of the pool: `run` raises it
            with self._state:
                self._ended = True
                self._failure = self._failure or e
        finally:
            with self._state:
                self._hands -= 1
                self._state.notify_all()

    def _next(self) -> tuple[int, bytes] | None:
        """The next block and its number."""
        with self._reading:
            with self._state:
                self._state.wait_for(lambda: self._ended or len(self._done) <= WAITING)
                if self._ended:
                    return None
            content = next(self._blocks, None)
            if content is None:
                self._ended = True
                return None
            number = self._read
            self._read += 1
            # A layer of one block is not worth a second pair of hands. Each that comes calls the next, as long as there is work.
            if self._pool is not None and number and (self._help is None or self._help.running()):
                try:
                    self._help = self._pool.submit(self._take_part)
                except RuntimeError:  # no more threads are to be had: those that there are do it
                    self._pool = None
        return number, content

    def _put(self, number: int, content: bytes) -> None:
        """Write what is next in order, unless another thread is at it: that one then writes this as well."""
        with self._state:
            self._done[number] = content
            if self._writing:
                return
            self._writing = True
        while True:
            with self._state:
                ready = self._done.pop(self._written, None)
                if ready is None or self._failure is not None:
                    self._writing = False
                    return
                self._state.notify_all()
            self._write(ready)
            self._written += 1
