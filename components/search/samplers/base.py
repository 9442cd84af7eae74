"""What every sampler has in common: a suggestion is a pure function of the study's history.

The module imports neither TensorFlow nor scikit-optimize.
"""

import abc
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from components.models.space import Space, Value
from components.search.trial import Trial, is_scored

LOWEST = 2.0
"""How far below the median a score may lie that a model learns from; see `History.of`."""

MAX_GRID = 20_000
"""A space with at most so many settings is searched exhaustively for one that was not tried yet."""


class Sampler(Protocol):
    """Suggests hyperparameters."""

    def suggest(self, number: int, trials: Sequence[Trial], reused: Sequence[Trial] = ()) -> dict[str, Value]:
        """Return the active hyperparameters of trial `number`; the same arguments give the same answer.

        Args:
            number: Number of the trial that the suggestion is for.
            trials: Every other trial of the study, finished or not, in any order.
            reused: Finished trials of earlier studies on the same data and space.
        """


@dataclass(frozen=True)
class History:
    """What a model of the objective may learn from.

    Attributes:
        results: Hyperparameters and score of each finished trial.
        scored: Whether that score is the trial's own; a trial that diverged or failed has none.
        ongoing: Hyperparameters of trials without a result so far.
        seen: Keys (`Space.key`) of all of them; none of them needs to be suggested again.
    """

    results: tuple[tuple[dict[str, Value], float], ...]
    scored: tuple[bool, ...]
    ongoing: tuple[dict[str, Value], ...]
    seen: frozenset

    @classmethod
    def of(cls, space: Space, number: int, trials: Sequence[Trial], reused: Sequence[Trial]) -> Self:
        """Return the history of a study's trials; the order in which they are given does not matter.

        A pruned trial counts with the score it reached, plus what completed ones gained after the same epoch, but as no
        better than the best of them: its own score would say that few epochs are bad, not that its hyperparameters are.
        A trial that diverged or failed counts as bad as the worst scored one. No score counts as further below the
        median than `LOWEST` times what the best is above it: low enough to be avoided, not so low that the differences
        between the good ones drown.
        """
        own = sorted((t for t in trials if t.number != number), key=lambda t: t.number)
        earlier = sorted(reused, key=lambda t: (t.reused_from, t.number))
        finished = [t for t in (*earlier, *own) if t.is_finished]
        completed = [t for t in finished if t.status == "completed" and is_scored(t)]
        scores = [_expected_score(t, completed) for t in finished]
        worst = _worst([s for s in scores if s is not None])
        results = tuple(
            (t.hyperparameters, worst if s is None else max(s, worst)) for t, s in zip(finished, scores, strict=True)
        )
        ongoing = tuple(t.hyperparameters for t in own if not t.is_finished)
        scored = tuple(s is not None for s in scores)
        return cls(results, scored, ongoing, frozenset(space.key(v) for v in (*(v for v, _ in results), *ongoing)))


def _worst(scores: list[float]) -> float:
    """Return the lowest score that a model may learn from."""
    if not scores:
        return 0.0
    middle, best = statistics.median(scores), max(scores)
    return max(min(scores), middle - LOWEST * (best - middle)) if best > middle else min(scores)


def _expected_score(trial: Trial, completed: list[Trial]) -> float | None:
    """Return the score that the trial would probably have reached with all its epochs; None if it diverged or failed."""
    if not is_scored(trial):
        return None
    reached, epoch = trial.accuracy, len(trial.scores)
    if trial.status == "completed" or epoch == 0:
        return reached
    later = [max(t.scores) - max(t.scores[:epoch]) for t in completed if len(t.scores) > epoch]
    if not later:
        return reached
    return max(reached, min(reached + statistics.median(later), max(t.accuracy for t in completed)))


class HistorySampler(abc.ABC):
    """Base of the samplers: first guesses come first, then the defaults, then the library's proposals; none comes twice.

    Args:
        algorithm: One of the approach's `ALGORITHMS`.
        space: The search space.
        seed: Seed of the study; each trial's own randomness is derived from it and the trial's number.
        first_guesses: Hyperparameters to begin with, best first (warm start); values outside the space are moved into it.
    """

    as_published = False
    """Whether every suggestion after the warm start's is the library's: no defaults, and repeats where it repeats itself."""

    def __init__(self, algorithm: str, space: Space, seed: int, first_guesses: Sequence[dict[str, Value]] = ()) -> None:
        self.algorithm = algorithm
        self.space = space
        self.seed = seed
        self.first_guesses = tuple(space.conform(values) for values in first_guesses)

    def suggest(self, number: int, trials: Sequence[Trial], reused: Sequence[Trial] = ()) -> dict[str, Value]:
        """Return the active hyperparameters of trial `number`; see `Sampler.suggest`."""
        if number < len(self.first_guesses):
            return dict(self.first_guesses[number])
        history = History.of(self.space, number, trials, reused)
        defaults = self.space.defaults
        is_first = number == len(self.first_guesses) and not self.as_published
        if is_first and self.space.key(defaults) not in history.seen:
            return defaults
        proposed = self.propose(number, history)
        if proposed is not None and (self.as_published or self.space.key(proposed) not in history.seen):
            return proposed
        if candidates := unseen(self.space, history.seen, self.rng(number), count=1):
            return candidates[0]
        return proposed if proposed is not None else defaults  # everything was tried

    @abc.abstractmethod
    def propose(self, number: int, history: History) -> dict[str, Value] | None:
        """Return what the library proposes; None where it has nothing new."""

    def rng(self, number: int) -> np.random.Generator:
        """Return the generator of a trial's random numbers."""
        return np.random.default_rng([self.seed, number])


def unseen(space: Space, seen: frozenset, rng: np.random.Generator, count: int) -> list[dict[str, Value]]:
    """Return up to `count` distinct settings that are not in `seen`; there are none only if a small space is exhausted."""
    if (size := space.grid_size()) is not None and size <= MAX_GRID:
        left = [values for values in space.enumerate() if space.key(values) not in seen]
        return [left[i] for i in rng.permutation(len(left))[:count]]
    drawn = (space.sample(rng) for _ in range(4 * count))
    fresh = {key: values for values in drawn if (key := space.key(values)) not in seen}
    return list(fresh.values())[:count]
