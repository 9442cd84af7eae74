"""This module estimates how far a study is: what its running trials reached, who trains them, how long it will take."""

from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from components.search.study.study import Study
from components.search.trial import Ledger


@dataclass(frozen=True, kw_only=True)
class RunningTrial:
    """A trial that somebody works on.

    Attributes:
        number: Number of the trial.
        worker: Who works on it.
        epoch: Epochs that its worker has reported.
        epochs: Most that it may train.
        score: Best validation accuracy so far; None before the first epoch.
        seconds_left: About how long it takes if it is not pruned; None where no trial has reported its first epoch.
        silent_seconds: For how long its heartbeat has not changed, as seen from here.
    """

    number: int
    worker: str
    epoch: int
    epochs: int
    score: float | None
    seconds_left: float | None
    silent_seconds: float


@dataclass(frozen=True, kw_only=True)
class Course:
    """A study as it stands.

    Attributes:
        ledger: All its trials.
        running: Those that somebody works on.
        budget_seconds: Device-seconds that it may take.
        seconds_left: About how long it takes with the workers it has; None where no trial has reported an epoch yet.
        is_finished: Whether nothing is left to do.
    """

    ledger: Ledger
    running: tuple[RunningTrial, ...]
    budget_seconds: float
    seconds_left: float | None
    is_finished: bool

    def to_json(self) -> dict[str, Any]:
        """Return, as JSON values, what the ledger alone does not contain."""
        return {
            "running": [asdict(trial) for trial in self.running],
            "budget_seconds": self.budget_seconds,
            "seconds_left": self.seconds_left,
            "is_finished": self.is_finished,
        }


def look(study: Study) -> Course:
    """Return how far a study is, read anew.

    Raises:
        FashionTuningError: The store cannot be read.
    """
    is_finished = study.is_finished()
    ledger = study.snapshot()
    return course_of(ledger, is_finished=is_finished, silent={t.number: study.silent_seconds(t) for t in ledger.trials})


def course_of(ledger: Ledger, *, is_finished: bool = True, silent: dict[int, float] | None = None) -> Course:
    """Return how far a study is, from its ledger.

    Args:
        ledger: The study.
        is_finished: Whether nothing is left to do.
        silent: Seconds since each running trial's heartbeat changed, by its number.
    """
    epochs, budget = int(ledger.spec["epochs"]), 60.0 * float(ledger.spec["minutes"])
    timed = [t.device_seconds / t.epochs for t in ledger.trials if t.epochs]
    running = []
    for trial in ledger.trials:
        if trial.status != "running":
            continue
        # A trial's own epochs tell most; before the first, those of the others.
        epoch_seconds = trial.device_seconds / trial.epochs if trial.epochs else fmean(timed) if timed else None
        running.append(
            RunningTrial(
                number=trial.number,
                worker=trial.worker,
                epoch=trial.epochs,
                epochs=epochs,
                score=trial.score,
                seconds_left=None if epoch_seconds is None else epoch_seconds * (epochs - trial.epochs),
                silent_seconds=(silent or {}).get(trial.number, 0.0),
            )
        )
    seconds_left = 0.0 if is_finished else _seconds_left(ledger, running, budget)
    return Course(
        ledger=ledger,
        running=tuple(running),
        budget_seconds=budget,
        seconds_left=seconds_left,
        is_finished=is_finished,
    )


def _seconds_left(ledger: Ledger, running: list[RunningTrial], budget: float) -> float | None:
    """Return the work that is left, or the budget where that is less, shared among the workers of now."""
    finished = [t.device_seconds for t in ledger.trials if t.is_finished]
    known = [trial.seconds_left for trial in running if trial.seconds_left is not None]
    if not finished and not known:
        return None
    to_start = int(ledger.spec["trials"]) - len(ledger.trials) + ledger.count("waiting")
    work = sum(known) + to_start * (fmean(finished) if finished else max(known))
    return max(0.0, min(work, budget - ledger.device_seconds)) / max(1, len({trial.worker for trial in running}))
