"""This module spreads calls that release the interpreter's lock over the cores, in threads."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 4
"""Calls for each thread that are made before the first result is taken: results wait in memory."""


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def in_order(call: Callable[[T], R], values: Iterable[T], *, num_threads: int = 0) -> Iterator[R]:
    """Yield the results of calls made in threads, in order; when one fails or the process is stopped, drop the rest.

    Values are taken and calls are made only a little ahead of the results, so that neither fill the memory.

    Args:
        call: Safe to run in several threads.
        values: One argument each.
        num_threads: Threads; 0 means one for each core.
    """
    num_threads = num_threads or num_cores()
    pool = ThreadPoolExecutor(num_threads)
    waiting: deque[Future[R]] = deque()
    try:
        for value in values:
            waiting.append(pool.submit(call, value))
            if len(waiting) > _AHEAD * num_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
