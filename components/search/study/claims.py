"""A claim says who works on a trial; whether its owner still lives is judged without comparing clocks."""

import functools
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from components.models.space import Value
from components.search.study.records import ProcessIdentity

MAX_ATTEMPTS = 3
"""A trial under which so many workers died, or so many devices broke that were in order before, is recorded as failed."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long workers wait for each other and for the store.

    Attributes:
        beat_seconds: Between two heartbeats.
        ttl_seconds: A claim whose heartbeat did not change for so long on the observer's clock has lost its owner.
        margin_seconds: What a worker that leaves waits for its last heartbeat.
        poll_seconds: Longest pause while others finish their trials.
        checkpoint_seconds: Least time between two checkpoints of a trial.
        checkpoint_share: Most of a trial's time that checkpoints may take.
        term_seconds: Time after SIGTERM at which the process ends even if it is busy, and after which a claim whose owner said
            that it was told to end has none. GKE Spot grants 15 s, Argo half a second.
        clock: Monotonic seconds of this process.
    """

    beat_seconds: float = 15.0
    ttl_seconds: float = 90.0
    margin_seconds: float = 30.0
    poll_seconds: float = 5.0
    checkpoint_seconds: float = 30.0
    checkpoint_share: float = 0.02
    term_seconds: float = 8.0
    clock: Callable[[], float] = field(default=time.monotonic)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to train one trial, until another worker claims its next term.

    Attributes:
        number: Number of the trial.
        term: 1 for the first claim on the trial, one more with each take-over.
        nonce: Names this claim among all.
        worker: Who holds it.
        hyperparameters: From `params.json`, the same in every term.
        seed: From `params.json`.
        based_on: Numbers of the finished trials the suggestion was made from.
        reused_from: Where a warm start took the hyperparameters from; empty otherwise.
        spent_seconds: Device time of earlier claims on the trial.
        faults: How often a device broke under it.
        claimed: When, on this process's monotonic clock.
    """

    number: int
    term: int
    nonce: str
    worker: str
    hyperparameters: dict[str, Value]
    seed: int
    based_on: tuple[int, ...] = ()
    reused_from: str = ""
    spent_seconds: float = 0.0
    faults: int = 0
    claimed: float = 0.0


class Liveness:
    """Measures for how long each claim's heartbeat has not changed, on this process's own clock.

    The first sight of a claim starts its time, so an observer that was restarted waits one whole TTL. Between two looks
    at most `stride_seconds` count: in an outage of the store owners cannot beat, and an observer that was paused learns
    nothing from its own pause. Clocks of other machines and of the store play no part.

    Args:
        stride_seconds: Most of the time between two looks that counts as silence; observers look more often.
    """

    def __init__(self, stride_seconds: float) -> None:
        self._stride_seconds = stride_seconds
        self._seen: dict[tuple[int, int], _Silence] = {}

    def observe(self, number: int, term: int, beat: Any, began: float, ended: float) -> None:
        """Note the heartbeat of a claim (None before the first), read between two moments."""
        seen = self._seen.get((number, term))
        if seen is None or seen.beat != beat:
            self._seen[number, term] = _Silence(beat, since=ended, last=ended, counted=0.0)
        elif began > seen.last:
            counted = seen.counted + min(began - seen.last, self._stride_seconds)
            self._seen[number, term] = seen._replace(last=began, counted=counted)

    def silent_seconds(self, number: int, term: int, now: float) -> float:
        """Return for how long the claim's heartbeat has not changed; 0 for a claim that was never observed."""
        seen = self._seen.get((number, term))
        return max(0.0, now - seen.since) if seen else 0.0

    def is_stale(self, number: int, term: int, seconds: float) -> bool:
        """Return whether the claim's heartbeat has not changed for so long, of the time that counts."""
        seen = self._seen.get((number, term))
        return seen is not None and seen.counted >= seconds


class _Silence(NamedTuple):
    """A heartbeat, when it was first and last seen, and how much of the time between counts."""

    beat: Any
    since: float
    last: float
    counted: float


def process_identity() -> ProcessIdentity:
    """Return what distinguishes this process from any other on this machine; empty where the system does not say."""
    try:
        return {**_machine(), "pid": os.getpid(), "started": _process_state(os.getpid())[1]}
    except OSError:
        return {}


def is_gone(identity: ProcessIdentity) -> bool:
    """Return whether the process is known to have ended: it ran on this machine and exists no more.

    Nothing is known of processes of other machines and containers. A run that is killed and started again on one machine
    therefore need not wait until its own dead workers' heartbeats are stale.
    """
    try:
        if not identity or any(identity.get(key) != value for key, value in _machine().items()):
            return False
    except OSError:
        return False
    try:
        state, started = _process_state(int(identity["pid"]))
    except OSError:
        return True
    return started != identity["started"] or state in "ZX"


@functools.cache
def _machine() -> ProcessIdentity:
    """Return host, boot and process namespace: process numbers mean the same where these are equal."""
    return {
        "host": socket.gethostname(),
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "pids": str(Path("/proc/self/ns/pid").readlink()),
    }


def _process_state(pid: int) -> tuple[str, str]:
    """Return state letter and start time of a process, from the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], fields[19]
