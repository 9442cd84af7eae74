"""A thread sends the worker's heartbeat, which shows the other workers how far its trial is, and reads theirs."""

import logging
import threading
from typing import Self

from components.errors import FashionTuningError, StorageError, TryAgainError, UnavailableError
from components.search.study.claims import Claim
from components.search.study.study import STORE_SHARE, Study
from components.stores import Store

log = logging.getLogger(__name__)

DEADLINE_SECONDS = 30.0
AGAIN_SECONDS = 5.0
"""Pause after a heartbeat that failed, so that a store that is back is found soon."""


class Heartbeat:
    """Sends heartbeats for one claim after another; a context manager that owns the thread.

    Training never waits for it: `report` only wakes the thread, which then beats and renews the study's mirror, unless
    that cost more than `STORE_SHARE` of the time since the last beat. Where a beat failed, the store is asked whether it
    takes beats again before a trial is claimed; nothing is concluded from how long ago that was.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._store = study.store.with_deadline(DEADLINE_SECONDS)
        self._clock = study.timing.clock
        self._wake = threading.Event()
        self._stop = self._leaving = False
        self._claim: Claim | None = None
        self._scores: tuple[float, ...] = ()
        self._started, self._count = 0.0, 0
        self._beaten: tuple[Claim, bool] | None = None
        self._last = self._clock()
        self._failed: Claim | None = None
        self._cost = 0.0
        self._lock = threading.Lock()
        self._error: FashionTuningError | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop = True
        self._wake.set()
        self._thread.join(self._study.timing.margin_seconds)

    def start(self, claim: Claim) -> None:
        """Send heartbeats for this claim from now on."""
        self._scores, self._started, self._claim = (), self._clock(), claim
        self._wake.set()

    def begin(self, scores: tuple[float, ...]) -> None:
        """Count device time from now on, after data and checkpoint were loaded."""
        self._scores, self._started = scores, self._clock()

    def report(self, scores: tuple[float, ...]) -> None:
        """Publish the scores that the trial has reached."""
        self._scores = scores
        self._wake.set()

    def leave(self) -> None:
        """Tell the other workers at once that this process was told to end."""
        self._leaving = True
        self._wake.set()

    def end(self, *, release: bool = False) -> None:
        """Send no more heartbeats; on `release`, let other workers take the trial over at once."""
        claim, self._claim = self._claim, None
        if claim is not None and release:
            try:
                with self._lock:
                    self._beat(claim, released=True)
            except FashionTuningError as error:
                log.warning("trial %d: could not be given back: %s", claim.number, error)

    @property
    def device_seconds(self) -> float:
        """Device time of this claim: the time since `begin`."""
        return self._clock() - self._started

    def check(self) -> None:
        """Make sure that the store accepts heartbeats, before another trial is claimed.

        Where the last beat failed, it is sent again, and the store waited for as long as for any other call.

        Raises:
            FashionTuningError: What makes beating impossible for good; `UnavailableError` at the store's deadline.
        """
        if self._error is not None:
            raise self._error
        if (failed := self._failed) is not None:
            with self._lock:
                self._beat(failed, store=self._study.store)
            self._failed = None

    def _run(self) -> None:
        while not self._stop:
            period = self._study.timing.beat_seconds
            if self._failed is not None:
                period = min(period, AGAIN_SECONDS)
            self._wake.wait(max(0.0, self._last + period - self._clock()))
            self._wake.clear()
            claim, leaving, now = self._claim, self._leaving, self._clock()
            if claim is None:
                self._last = now
                continue
            pause = period if self._failed is not None else min(self._cost / STORE_SHARE, period)
            if (claim, leaving) == self._beaten and now - self._last < pause:
                continue
            try:
                with self._lock:
                    if self._claim is claim:
                        self._beat(claim)
                self._study.refresh(self._store)
                self._failed = None
            except (UnavailableError, StorageError, TryAgainError) as error:
                self._failed = claim
                log.warning("trial %d: heartbeat failed: %s", claim.number, error)
            except FashionTuningError as error:
                self._error = error
                return
            self._beaten, self._last = (claim, leaving), self._clock()
            self._cost = self._last - now

    def _beat(self, claim: Claim, *, released: bool = False, store: Store | None = None) -> None:
        self._count += 1
        self._study.beat(
            claim,
            self._count,
            self._scores,
            self.device_seconds,
            store=store or self._store,
            released=released,
            leaving=self._leaving,
        )
