"""A search that is paid for: the space, what is searched, and the course of the best score over what was spent."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from components.models.mlp import training as mlp
from components.models.space import Value
from components.search.trial import Trial

EPOCHS = 20
NUM_TRIALS = 30
"""Unpruned trials that the budget pays for."""

SPACE = mlp.SPACES["described"]

Objective = Callable[[dict[str, Value], int, Callable[[list[float]], bool]], tuple[list[float], float]]
"""Takes hyperparameters, a seed and a function that sees the scores after each epoch and stops the trial by True.

Gives the scores and what they cost.
"""


class Exhausted(Exception):  # noqa: N818 - the budget's end is no error
    """The budget is spent."""


@dataclass
class Run:
    """One search: the course of its best score over what was spent.

    Attributes:
        objective: What is searched.
        budget: Most cost; the trial that crosses it still counts.
        seed: Seed of the trainings; search methods take it as well.
        trials: What was tried.
        spent: Cost so far.
        course: (cost so far, best score so far) after each trial.
        suggest_seconds: What each suggestion took.
    """

    objective: Objective
    budget: float
    seed: int
    trials: list[Trial] = field(default_factory=list)
    spent: float = 0.0
    course: list[tuple[float, float]] = field(default_factory=list)
    suggest_seconds: list[float] = field(default_factory=list)

    def train(self, values: dict[str, Value], stop: Callable[[list[float]], bool] = lambda _: False) -> Trial:
        """Train one trial; raise `Exhausted` where nothing is left to pay it with."""
        if self.spent >= self.budget:
            raise Exhausted
        number = len(self.trials)
        scores, cost = self.objective(values, 1000 * self.seed + number, stop)
        status = "completed" if len(scores) == EPOCHS else "pruned"
        trial = Trial(
            number=number,
            status=status if scores else "diverged",
            hyperparameters=values,
            score=max(scores, default=None),
            scores=tuple(scores),
        )
        self.trials.append(trial)
        self.spent += cost
        self.course.append((self.spent, max((t.score for t in self.trials if t.score is not None), default=0.0)))
        return trial

    def cost_to_reach(self, score: float) -> float:
        """Return what was spent until the score was reached; infinite where it never was."""
        return next((cost for cost, best in self.course if best >= score), math.inf)

    def best_within(self, cost: float) -> float:
        """Return the best score of the trials that were done by then; 0 without any."""
        return max((best for spent, best in self.course if spent <= cost), default=0.0)
