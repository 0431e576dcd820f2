"""A blob that several threads make is the one that a single thread makes, whatever each of them does, and when."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swrbatch.assembly import WAITING, assemble


class Source:
    """Numbered blocks; notes whether two threads ever read at once. `bad` is the number of the one that cannot be read."""

    def __init__(self, count: int, bad: int | None = None) -> None:
        self.count = count
        self.bad = bad
        self.taken = 0
        self.readers: set[int] = set()
        self.busy = False

    def __iter__(self) -> Iterator[bytes]:
        for number in range(self.count):
            assert not self.busy
            self.busy = True
            self.readers.add(threading.get_ident())
            time.sleep(0)
            if number == self.bad:
                raise EOFError("the source")
            self.taken += 1
            self.busy = False
            yield number.to_bytes(4, "big")


class Sink:
    """Takes blocks; notes whether two threads ever write at once. `bad` is the number of the one that it refuses."""

    def __init__(self, bad: int | None = None) -> None:
        self.bad = bad
        self.got: list[int] = []
        self.busy = False

    def write(self, data: bytes) -> None:
        assert not self.busy
        self.busy = True
        time.sleep(0)
        if len(self.got) == self.bad:
            raise OSError("the sink")
        self.got.append(int.from_bytes(data, "big"))
        self.busy = False


def no_change(block: bytes) -> bytes:
    return block


def jitter(block: bytes) -> bytes:
    time.sleep(random.Random(block).random() / 2000)
    return block


@given(count=st.integers(0, 60), threads=st.integers(1, 8))
def test_all_blocks_come_in_order(count: int, threads: int) -> None:
    source, sink = Source(count), Sink()
    with ThreadPoolExecutor(threads) as pool:
        assemble(iter(source), jitter, sink.write, pool)
    assert sink.got == (list(range(count)) or [0])


def test_all_threads_that_have_time_take_part() -> None:
    """Each waits in its block for the others: without all five, this would fail. The first block calls nobody yet."""
    together = threading.Barrier(5, timeout=30)
    source, sink = Source(50), Sink()

    def meet(block: bytes) -> bytes:
        if 1 <= int.from_bytes(block, "big") <= 5:
            together.wait()
        return block

    with ThreadPoolExecutor(4) as pool:
        assemble(iter(source), meet, sink.write, pool)
    assert sink.got == list(range(50))


def test_nobody_waits_for_threads_that_have_no_time() -> None:
    busy = threading.Event()
    sink = Sink()
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(busy.wait, 30)
        try:
            assemble(iter(Source(20)), no_change, sink.write, pool)
            assert not other.done()
        finally:
            busy.set()
    assert sink.got == list(range(20))


def test_one_block_needs_no_other_thread() -> None:
    source = Source(1)
    with ThreadPoolExecutor(2) as pool:
        assemble(iter(source), no_change, Sink().write, pool)
        assert not pool._threads
    assert source.readers == {threading.get_ident()}


def test_who_is_far_ahead_waits() -> None:
    """The second block takes as long as it is let: the others go on for a few blocks, no further."""
    go = threading.Event()
    source, sink = Source(500), Sink()
    threads = 3

    def one_is_slow(block: bytes) -> bytes:
        assert int.from_bytes(block, "big") != 1 or go.wait(30)
        return block

    with ThreadPoolExecutor(threads) as pool, ThreadPoolExecutor(1) as caller:
        done = caller.submit(assemble, iter(source), one_is_slow, sink.write, pool)
        end = time.monotonic() + 30
        while source.taken < 3 + WAITING and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.05)
        assert 3 + WAITING <= source.taken <= 2 + WAITING + threads
        go.set()
        done.result(30)
    assert sink.got == list(range(500))


@given(
    place=st.sampled_from(["source", "change", "sink"]),
    bad=st.integers(0, 12),
    threads=st.integers(0, 4),
    more=st.integers(1, 20),
)
def test_what_fails_first_is_raised_and_then_nobody_goes_on(place: str, bad: int, threads: int, more: int) -> None:
    source = Source(bad + more, bad if place == "source" else None)
    sink = Sink(bad if place == "sink" else None)

    def change(block: bytes) -> bytes:
        if place == "change" and int.from_bytes(block, "big") == bad:
            raise ValueError("the change")
        return jitter(block)

    with ThreadPoolExecutor(max(threads, 1)) as pool:
        with pytest.raises((EOFError, ValueError, OSError), match=f"the {place}"):
            assemble(iter(source), change, sink.write, pool if threads else None)
        told = source.taken, list(sink.got)
        time.sleep(0.001)
    assert told == (source.taken, sink.got)
    assert sink.got == list(range(len(sink.got)))
    assert len(sink.got) <= bad
