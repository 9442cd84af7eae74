"""A heartbeat that fails costs the store and the log no more than one that does not."""

import time
from types import SimpleNamespace

import pytest

from components.errors import StorageError
from components.search.study.claims import Claim, Timing
from components.search.worker import heartbeat
from components.search.worker.heartbeat import Heartbeat


class FullStore:
    """A study whose heartbeats fail at once."""

    def __init__(self) -> None:
        self.timing = Timing(beat_seconds=15.0)
        self.store = SimpleNamespace(with_deadline=lambda _seconds: self.store)
        self.asked: list[bool] = []

    def beat(self, *_: object, leaving: bool, **__: object) -> None:
        self.asked.append(leaving)
        raise StorageError("no space left")


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> FullStore:
    monkeypatch.setattr(heartbeat, "AGAIN_SECONDS", 0.5)
    return FullStore()


CLAIM = Claim(number=0, term=1, nonce="n", worker="w", hyperparameters={}, seed=0)


def test_a_heartbeat_that_fails_is_sent_again_soon_and_not_with_every_epoch(study):
    """Epochs of milliseconds do not make it an attempt each: there is one, and one more after each pause."""
    with Heartbeat(study) as sent:
        sent.start(CLAIM)
        for epoch in range(60):
            sent.report((0.1,) * epoch)
            time.sleep(0.02)

    assert 2 <= len(study.asked) <= 5


def test_a_worker_that_was_told_to_end_says_so_even_then(study):
    """The pause after a failure does not hold back that the worker leaves."""
    with Heartbeat(study) as sent:
        sent.start(CLAIM)
        time.sleep(0.1)
        sent.leave()
        time.sleep(0.1)

    assert [False, True] == study.asked[:2]
