"""An oracle of Keras Tuner does Bayesian optimisation of noisy scores. The module imports TensorFlow."""

import numpy as np
from keras_tuner.engine import trial as oracle_trial
from keras_tuner.oracles import BayesianOptimizationOracle

from components.search.samplers.gaussian_process import QuickGaussianProcess

NUM_INITIAL = 3
"""Finished trials before the Gaussian process takes over; Keras Tuner's own 3 per dimension would eat the budget."""

EXPLORATION = 0.3
"""Deviations that the confidence bound adds to the mean; Keras Tuner's 2.6 suits longer searches than 30 trials."""

NUM_CANDIDATES = 1000
"""Random settings of which the most promising is suggested."""

NEAR = 0.02
"""Share of a parameter's range within which a setting repeats what was tried: it would only measure the noise."""


class NoisyBayesianOracle(BayesianOptimizationOracle):
    """Keras Tuner's Bayesian optimisation, changed for scores that are noisy, partly pruned and few.

    It differs from `BayesianOptimizationOracle` in four ways:

    - The Gaussian process knows noise, and has a length scale for each parameter. Keras Tuner's has one for all and takes every
      score for exact: on noisy trials it falls back to guessing.
    - The best of `NUM_CANDIDATES` random settings is suggested. Keras Tuner climbs to the very best of its acquisition, which
      with few points lies in a corner of the space that nothing is known about.
    - A setting that differs from a tried one by at most `NEAR` in every parameter is passed over.
    - The space's defaults come first, the model takes over after `NUM_INITIAL` trials, and explores less.

    Ongoing trials are "hallucinated" as Keras Tuner does it. Any Keras Tuner `Tuner` can use it.

    Args:
        num_initial_points: Finished trials before the model takes over.
        beta: Deviations that the confidence bound adds to the mean.
        **options: As `BayesianOptimizationOracle`'s; `alpha` is not used, the noise is estimated.
    """

    def __init__(self, *, num_initial_points: int = NUM_INITIAL, beta: float = EXPLORATION, **options) -> None:
        super().__init__(num_initial_points=num_initial_points, beta=beta, **options)

    def populate_space(self, trial_id: str) -> dict:  # noqa: ARG002 - Keras Tuner's signature
        """Return `status` and the `values` of the next trial; Keras Tuner's way to extend it."""
        if not self.trials:
            return _running(dict(self.hyperparameters.values))
        completed = [t for t in self.trials.values() if t.status == oracle_trial.TrialStatus.COMPLETED]
        if len(completed) < self.num_initial_points:
            return self._random_populate_space()
        fit_completed(self)
        tried, losses = self._vectorize_trials()
        if self.ongoing_trials:
            self.gpr.fit(tried, losses)
        candidates = self._candidates()
        is_near = (np.abs(candidates[:, None] - tried).max(-1) <= NEAR).any(-1)
        if not is_near.all():
            candidates = candidates[~is_near]
        mean, deviation = self.gpr.predict(candidates, return_std=True)
        return _running(self._vector_to_values(candidates[np.argmin(mean - self.beta * deviation)]))

    def _make_gpr(self) -> QuickGaussianProcess:
        return QuickGaussianProcess(len(self._nonfixed_space()), seed=self.seed)

    def _candidates(self) -> np.ndarray:
        """Return (n, parameters) float64 in 0..1: random settings, each where `_vectorize_trials` would put it."""
        space = self._nonfixed_space()
        rows = self._random_state.uniform(size=(NUM_CANDIDATES, len(space)))
        values = [self._vector_to_values(row) for row in rows]
        return np.array([[hp.value_to_prob(v.get(hp.name, hp.default)) for hp in space] for v in values])


def fit_completed(oracle: BayesianOptimizationOracle) -> None:
    """Fit the oracle's model to its completed trials alone, as one that lived on would have done before it asks.

    Ongoing results are hallucinated from the model as it stands; unfitted, it would answer the same for each.
    """
    trials, ongoing = oracle.trials, oracle.ongoing_trials
    oracle.trials = {i: t for i, t in trials.items() if t.status == oracle_trial.TrialStatus.COMPLETED}
    oracle.ongoing_trials = {}
    oracle.gpr.fit(*oracle._vectorize_trials())
    oracle.trials, oracle.ongoing_trials = trials, ongoing


def _running(values: dict) -> dict:
    return {"status": oracle_trial.TrialStatus.RUNNING, "values": values}
