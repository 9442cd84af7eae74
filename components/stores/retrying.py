"""A store call that failed for a passing reason is repeated with jittered back-off until a deadline."""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from components.errors import UnavailableError
from components.stores.failures import CorruptedError

log = logging.getLogger(__name__)

FIRST_SECONDS, LONGEST_SECONDS = 0.1, 8.0
"""Bounds of the first pause and of every later one: with a call's own 10 s, a store that is back is found within 20 s."""

CORRUPTED_TRIES, CORRUPTED_SECONDS = 3, 30.0
"""Content that arrives damaged so often, and for so long, is damaged where it lies."""

LEAST_SECONDS = 1.0
"""What a call is given even when its deadline is nearer."""

T = TypeVar("T")


def retrying(
    call: Callable[[float], T],
    *,
    what: str,
    is_passing: Callable[[Exception], bool],
    deadline_seconds: float,
) -> T:
    """Return what the call returns, repeating it while its failures are passing ones.

    Full jitter: each pause is uniform between 0 and a bound that doubles, so that workers that failed together do not
    come back together.

    Args:
        call: Safe to repeat; takes the seconds that are left, from which its own time-outs follow.
        what: For the error, for example `reading gs://bucket/key`.
        is_passing: Whether a later repetition may succeed.
        deadline_seconds: The last repetition starts so long after the first call.

    Raises:
        UnavailableError: The deadline passed, or content kept arriving damaged.
        Exception: Whatever else the call raised.
    """
    start, bound = time.monotonic(), FIRST_SECONDS
    corrupted, corrupted_since = 0, 0.0
    while True:
        left = deadline_seconds - (time.monotonic() - start)
        try:
            return call(max(left, LEAST_SECONDS))
        except Exception as error:
            if not is_passing(error):
                raise
            now = time.monotonic()
            left, text = deadline_seconds - (now - start), " ".join(f"{type(error).__name__}: {error}".split())
            if isinstance(error, CorruptedError):
                corrupted, corrupted_since = corrupted + 1, corrupted_since or now
            else:
                corrupted, corrupted_since = 0, 0.0
            if corrupted >= CORRUPTED_TRIES and now - corrupted_since >= CORRUPTED_SECONDS:
                raise UnavailableError(
                    f"{what} must bring undamaged content; got {text} {corrupted} times in a row in"
                    f" {now - corrupted_since:.0f} s. Check the object"
                ) from error
            if left <= 0:
                raise UnavailableError(
                    f"{what} must succeed within {deadline_seconds:g} s; got {text}. Check the store and run again"
                ) from error
            log.warning("%s failed, trying again: %s", what, text[:200])
            time.sleep(min(random.uniform(0, bound), left))  # noqa: S311 (spreads repetitions, no secret)
            bound = min(2 * bound, LONGEST_SECONDS)
