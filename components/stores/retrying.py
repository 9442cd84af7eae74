"""Repeats a store call that failed in passing, with jittered back-off, until a deadline."""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from components.errors import UnavailableError

log = logging.getLogger(__name__)

FIRST_SECONDS, LONGEST_SECONDS = 0.1, 20.0
CORRUPTED_TRIES = 3

T = TypeVar("T")


class CorruptedError(Exception):
    """What arrived does not match its checksum."""


def retrying(
    call: Callable[[], T],
    *,
    what: str,
    is_passing: Callable[[Exception], bool],
    deadline_seconds: float,
) -> T:
    """Return what the call returns, repeating it while its failures are passing ones.

    Full jitter: each pause is uniform between 0 and a bound that doubles, so that workers that failed together do not
    come back together.

    Args:
        call: Safe to repeat.
        what: For the error, for example `reading gs://bucket/key`.
        is_passing: Whether a later repetition may succeed.
        deadline_seconds: No repetition starts later than this after the first call.

    Raises:
        UnavailableError: The deadline passed, or the content arrived corrupted `CORRUPTED_TRIES` times.
        Exception: Whatever else the call raised.
    """
    start, bound, corrupted = time.monotonic(), FIRST_SECONDS, 0
    while True:
        try:
            return call()
        except Exception as error:
            corrupted += isinstance(error, CorruptedError)
            if not isinstance(error, CorruptedError) and not is_passing(error):
                raise
            pause = random.uniform(0, bound)  # noqa: S311 (spreads repetitions, no secret)
            if corrupted >= CORRUPTED_TRIES or time.monotonic() - start + pause > deadline_seconds:
                text = " ".join(f"{type(error).__name__}: {error}".split())
                raise UnavailableError(
                    f"{what} must succeed within {deadline_seconds:g} s; got {text}. Check the store and run again"
                ) from error
            log.warning("%s failed, trying again: %s", what, " ".join(str(error).split())[:200])
            time.sleep(pause)
            bound = min(2 * bound, LONGEST_SECONDS)
