"""Keras Tuner's oracles, rebuilt from a study's history for every suggestion. Imports TensorFlow (through Keras Tuner).

Nothing is written to disk: `populate_space` is asked directly, `create_trial` (which saves) never.
"""

import contextlib
import copy
import json

import keras_tuner
import numpy as np
from keras_tuner.engine import trial as oracle_trial

from components.models.space import Parameter, Space, Value
from components.search.samplers.base import History, HistorySampler, Rank
from components.search.samplers.gaussian_process import QuickGaussianProcess

EXPLORATION = 0.3
"""Deviations that the confidence bound adds to the mean; Keras Tuner's 2.6 suits longer searches than 30 trials."""

NUM_INITIAL = 3
"""Finished trials before the Gaussian process takes over; Keras Tuner's own 3 per dimension would eat the budget."""


class KerasSampler(HistorySampler):
    """Keras Tuner's `BayesianOptimizationOracle` (`bayesian`) or `RandomSearchOracle` (`random`).

    Ongoing trials are given to the oracle as its own ongoing trials, whose results it "hallucinates" pessimistically.

    Source: https://github.com/keras-team/keras-tuner, `tuners/bayesian.py`
    """

    def propose(self, number: int, history: History) -> tuple[dict[str, Value] | None, Rank | None]:
        """Rebuild the oracle and ask it; see `HistorySampler.propose`."""
        space = to_hyperparameters(self.space)
        objective = keras_tuner.Objective("score", direction="max")
        # The oracle takes seed 0 for "none given"; it also counts it up by one per value drawn, hence the distance.
        seed = int(self.rng(number).integers(1, 2**31 - 1))
        if self.algorithm == "random":
            oracle = keras_tuner.oracles.RandomSearchOracle(objective=objective, hyperparameters=space, seed=seed)
        else:
            oracle = _BayesianOracle(
                objective=objective,
                hyperparameters=space,
                seed=seed,
                num_initial_points=NUM_INITIAL,
                beta=EXPLORATION,
            )
        self._tell(oracle, history)
        if self.algorithm == "bayesian" and len(history.told) >= NUM_INITIAL:
            oracle.fit_finished()
            if history.ongoing:
                oracle.gpr.fit(*oracle._vectorize_trials())
            return None, lambda candidates: self._confidence_bound(oracle, candidates)
        values = oracle.populate_space(str(number))["values"]
        return None if values is None else from_hyperparameters(self.space, values), None

    def _tell(self, oracle: keras_tuner.Oracle, history: History) -> None:
        """Enter finished and ongoing trials where the oracle looks for them."""
        finished = oracle_trial.TrialStatus.COMPLETED
        for values, score in history.told:
            self._enter(oracle, values, finished).score = score
        for values in history.ongoing:
            trial = self._enter(oracle, values, oracle_trial.TrialStatus.RUNNING)
            oracle.ongoing_trials[f"worker-{trial.trial_id}"] = trial

    def _enter(self, oracle: keras_tuner.Oracle, values: dict[str, Value], status: str) -> oracle_trial.Trial:
        hyperparameters = copy.copy(oracle.hyperparameters)  # the space itself is shared, only values differ
        hyperparameters.values = {p.name: _encode(p, values[p.name]) for p in self.space.parameters if p.name in values}
        trial = oracle_trial.Trial(hyperparameters, trial_id=f"{len(oracle.trials):05d}", status=status)
        oracle.trials[trial.trial_id] = trial
        oracle._record_values(trial)  # what `create_trial` does apart from saving
        return trial

    def _confidence_bound(self, oracle: "_BayesianOracle", candidates: list[dict[str, Value]]) -> np.ndarray:
        """The oracle's own acquisition (lower is better) for each candidate."""
        rows = [
            [
                hp.value_to_prob(_encode(p, values.get(p.name, p.default)))
                for p, hp in zip(self.space.parameters, oracle.hyperparameters.space, strict=True)
            ]
            for values in candidates
        ]
        mean, deviation = oracle.gpr.predict(np.array(rows), return_std=True)
        return mean - oracle.beta * deviation


class _BayesianOracle(keras_tuner.oracles.BayesianOptimizationOracle):
    """Keras Tuner's oracle with a model that knows noise and that parameters matter differently.

    Its own has one length scale for all of them and takes every score for exact: on pruned and noisy trials it falls
    back to guessing. It also climbs to the very best of its acquisition, which with few points lies in a corner of
    the space that nothing is known about; here the best of random settings is taken (`HistorySampler.suggest`).
    """

    def _make_gpr(self) -> QuickGaussianProcess:
        return QuickGaussianProcess(len(self._nonfixed_space()), seed=self.seed)

    def fit_finished(self) -> None:
        """Fit the model to the finished trials alone, as one that lived on would have.

        Ongoing results are hallucinated from the model as it stands; unfitted, it would answer 1 for each.
        """
        trials, ongoing = self.trials, self.ongoing_trials
        self.trials = {i: t for i, t in trials.items() if t.status == oracle_trial.TrialStatus.COMPLETED}
        self.ongoing_trials = {}
        self.gpr.fit(*self._vectorize_trials())
        self.trials, self.ongoing_trials = trials, ongoing


def to_hyperparameters(space: Space) -> keras_tuner.HyperParameters:
    """Return the space in Keras Tuner's terms; choices become their JSON texts, so that any mixture is allowed."""
    declared = keras_tuner.HyperParameters()
    by_name = {p.name: p for p in space.parameters}
    for parameter in space.parameters:
        with contextlib.ExitStack() as scopes:
            for parent, allowed in _conditions(parameter, by_name):
                scopes.enter_context(declared.conditional_scope(parent.name, [_encode(parent, v) for v in allowed]))
            _declare(declared, parameter)
    return declared


def from_hyperparameters(space: Space, values: dict) -> dict[str, Value]:
    """Return what Keras Tuner proposes in the space's own terms, on its grid."""
    return space.conform({p.name: _decode(p, values[p.name]) for p in space.parameters if p.name in values})


def _declare(declared: keras_tuner.HyperParameters, p: Parameter) -> None:
    if p.choices:
        declared.Choice(p.name, [_encode(p, v) for v in p.choices], default=_encode(p, p.default))
        return
    # Keras Tuner multiplies by the step on a log scale, ours adds it: there the grid is left to `Space.conform`.
    sampling, step = ("log", None) if p.log else ("linear", p.step)
    kind = declared.Int if p.is_integer else declared.Float
    kind(p.name, p.low, p.high, step=step, sampling=sampling, default=p.default)


def _conditions(parameter: Parameter, by_name: dict[str, Parameter]) -> list[tuple[Parameter, tuple[Value, ...]]]:
    """The parents and the values they must have, outermost first."""
    found = []
    while parameter.only_if:
        parent = by_name[parameter.only_if[0]]
        found.append((parent, parameter.only_if[1]))
        parameter = parent
    return found[::-1]


def _encode(parameter: Parameter, value: Value) -> Value:
    return json.dumps(value) if parameter.choices else value


def _decode(parameter: Parameter, value: Value) -> Value:
    return json.loads(value) if parameter.choices else value
