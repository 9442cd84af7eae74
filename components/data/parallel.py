"""Spreads work over the cores of this process, in threads: what is spread releases the interpreter's lock."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def in_order(call: Callable[[T], R], values: Iterable[T], *, num_threads: int = 0) -> Iterator[R]:
    """Yield the results of calls made in threads, in order; when one fails or the process is stopped, drop the rest.

    Args:
        call: Safe to run in several threads.
        values: One argument each.
        num_threads: Threads; 0 means one for each core.
    """
    pool = ThreadPoolExecutor(num_threads or num_cores())
    try:
        futures = [pool.submit(call, value) for value in values]
        for future in futures:
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)
