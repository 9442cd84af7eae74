"""Asynchronous successive halving decides whether a running trial is trained for another epoch."""

import math
from collections.abc import Sequence

REDUCTION = 3
"""Of the trials that reach a rung, the best 1 / REDUCTION go on."""


def rungs(max_epochs: int) -> tuple[int, ...]:
    """Return the epochs at which trials are compared: 3 and 9 of 20.

    The first comes after a ninth of the epochs: with a warm-up and a falling learning rate, earlier scores say more about
    the seed than about the hyperparameters.
    """
    first = math.ceil(max_epochs / REDUCTION**2)
    rung_epochs = []
    while first < max_epochs:
        rung_epochs.append(first)
        first *= REDUCTION
    return tuple(rung_epochs)


def should_prune(scores_so_far: Sequence[float], others: Sequence[Sequence[float]], *, max_epochs: int) -> bool:
    """Return whether the trial should stop here, from what the study's other trials had reached at the same epoch.

    Compared is the best score up to the rung, since that is what a trial's score is. A tie goes on, and so does
    everything until `REDUCTION` trials reached the rung.

    Args:
        scores_so_far: Validation accuracy after each epoch of this trial.
        others: The same of every other trial, finished, pruned or running.
        max_epochs: Epochs of a trial that is never stopped.

    Source: Li et al., A System for Massively Parallel Hyperparameter Tuning, https://arxiv.org/abs/1810.05934,
        in its stopping form: a trial that leaves is not resumed later.
    """
    epoch = len(scores_so_far)
    if epoch not in rungs(max_epochs):
        return False
    mine = _best(scores_so_far)
    reached = [_best(scores[:epoch]) for scores in others if len(scores) >= epoch]
    if len(reached) + 1 < REDUCTION:
        return False
    num_going_on = math.ceil((len(reached) + 1) / REDUCTION)
    return sum(score > mine for score in reached) >= num_going_on


def _best(scores: Sequence[float]) -> float:
    """Return the highest score; NaN and infinities count as the lowest."""
    return max((s for s in scores if math.isfinite(s)), default=-math.inf)
