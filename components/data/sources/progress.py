"""A long transfer logs its progress now and then."""

import logging
import time

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 5.0
_MIB = 2**20


class Progress:
    """Counts bytes and logs amount, rate and remaining time at most every `INTERVAL_SECONDS`."""

    def __init__(self, what: str, num_bytes: int | None, done: int = 0) -> None:
        """Start counting.

        Args:
            what: Named in each line.
            num_bytes: Bytes in all where that is known.
            done: Bytes that were there before.
        """
        self._what, self._num_bytes, self._done, self._start = what, num_bytes, done, done
        self._started = self._told = time.monotonic()

    def add(self, num_bytes: int) -> None:
        """Count bytes that arrived."""
        self._done += num_bytes
        now = time.monotonic()
        if now - self._told < INTERVAL_SECONDS:
            return
        self._told = now
        rate = (self._done - self._start) / (now - self._started)
        if self._num_bytes:
            left = (self._num_bytes - self._done) / max(rate, 1)
            log.info(
                "%s: %.1f of %.1f MiB, %.1f MiB/s, %.0f s left",
                self._what,
                self._done / _MIB,
                self._num_bytes / _MIB,
                rate / _MIB,
                left,
            )
        else:
            log.info("%s: %.1f MiB, %.1f MiB/s", self._what, self._done / _MIB, rate / _MIB)
