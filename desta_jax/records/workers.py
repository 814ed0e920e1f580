"""Processes that work through shards, counted row by row, and that die with the process that started them."""

from __future__ import annotations

import collections
import concurrent.futures as futures
import contextlib
import dataclasses
import itertools
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from desta_jax.clock import time_left
from desta_jax.processes import die_with_parent

_POLL_SECONDS = 0.2
_FIRST_REPORT, _REPORTS = 2.0, 10.0  # seconds until the first line of progress, and between lines


@dataclasses.dataclass(frozen=True)
class _Counters:
    rows: Any
    bad: Any
    stop: Any


class Progress:
    """Says how far a job is: rows, shards, speed and the time left."""

    def __init__(self, report: Callable[[str], None], rows: int, shards: int):
        self._report, self._rows, self._shards = report, rows, shards
        self._rows_before = self._shards_done = self._bad_before = 0
        self._begun: tuple[float, int] | None = None  # when the first rows were done; before, workers only start up
        self._next = time.monotonic() + _FIRST_REPORT

    def already(self, rows: int, bad: int, shards: int) -> None:
        """What was done before, which says nothing of the speed."""
        self._rows_before, self._bad_before, self._shards_done = rows, bad, shards

    def shard_done(self) -> None:
        self._shards_done += 1

    def tick(self, rows: int, bad: int) -> None:
        """Reports if it is time; `rows` and `bad` count from this run's start."""
        now = time.monotonic()
        if rows and self._begun is None:
            self._begun = now, rows
        if now < self._next:
            return
        self._next = now + _REPORTS
        begun, first = self._begun or (now, rows)
        done, speed = self._rows_before + rows, (rows - first) / max(now - begun, 1e-9)
        left = time_left(rows - first, self._rows - self._rows_before - first, now - begun)
        pace = f"{speed:.1f} rows/s, {left}" if speed else left
        bad_rows = f", {self._bad_before + bad:,} bad" * bool(self._bad_before + bad)
        self._report(
            f"{done:,} of {self._rows:,} rows ({done / self._rows:.1%}){bad_rows}, "
            f"{self._shards_done} of {self._shards} shards, {pace}"
        )


class Workers:
    """A pool of processes, or one thread if one worker is asked for; a context manager.

    Processes are spawned, not forked: a fork would copy the locks of JAX's threads. So a script that uses more than
    one worker needs `if __name__ == "__main__":`.
    """

    def __init__(self, number: int):
        if number < 1:
            raise ValueError(f"workers: must be 0 (one a core) or more, got {number}")
        context = multiprocessing.get_context("spawn")
        self._counters = _Counters(context.Value("q", 0), context.Value("q", 0), context.Event())
        self._number = number
        if number == 1:
            self._pool = futures.ThreadPoolExecutor(1, initializer=_begin, initargs=(self._counters, False))
        else:
            self._pool = futures.ProcessPoolExecutor(number, context, _begin, (self._counters, True))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._counters.stop.set()
        self._pool.shutdown(cancel_futures=True)

    def map(self, function: Callable, arguments: Iterable) -> list:
        """function(argument) of each, in order; raises ChildProcessError where a process died."""
        with told_when_a_worker_dies():
            return list(self._pool.map(function, arguments))

    def each(
        self, function: Callable, arguments: Iterable, progress: Progress, allowed_bad: float = float("inf")
    ) -> Iterator[Any]:
        """function(argument, count) of each argument, as they finish, in any order.

        The function calls count(is_good) after each row and leaves off where that answers False, which happens once
        more rows than `allowed_bad` were bad; arguments not begun by then are left out.

        Raises:
            ChildProcessError: a process died.
        """
        arguments = iter(arguments)
        waiting = collections.deque()
        rows_before, bad_before = self._counters.rows.value, self._counters.bad.value
        while True:
            if not self._counters.stop.is_set():
                some = itertools.islice(arguments, 2 * self._number - len(waiting))
                # OSError: the pool, broken that moment, begins another worker with a queue that is closed already.
                with told_when_a_worker_dies(OSError):
                    waiting.extend(self._pool.submit(_run, function, argument) for argument in some)
            if not waiting:
                return
            done, _ = futures.wait(waiting, _POLL_SECONDS, futures.FIRST_COMPLETED)
            bad = self._counters.bad.value - bad_before
            progress.tick(self._counters.rows.value - rows_before, bad)
            if bad > allowed_bad:
                self._counters.stop.set()
            for future in done:
                waiting.remove(future)
                progress.shard_done()
                with told_when_a_worker_dies():
                    result = future.result()
                yield result


@contextlib.contextmanager
def told_when_a_worker_dies(*signs: type[Exception]):
    """Turns a broken pool, or what else is a sign of one, into a ChildProcessError that says what to do."""
    try:
        yield
    except (futures.BrokenExecutor, *signs):
        raise ChildProcessError(
            "a worker process died (out of memory, or killed); run the same command again to go on, with fewer "
            "workers if memory is short"
        ) from None


_counters: _Counters  # of this process, as a worker


def _begin(counters: _Counters, is_process: bool) -> None:
    global _counters
    _counters = counters
    if is_process:
        die_with_parent()


def _run(function: Callable, argument: Any) -> Any:
    return function(argument, _count)


def _count(is_good: bool) -> bool:
    with _counters.rows:
        _counters.rows.value += 1
    if not is_good:
        with _counters.bad:
            _counters.bad.value += 1
    return not _counters.stop.is_set()
