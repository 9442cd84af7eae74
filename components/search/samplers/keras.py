"""Keras Tuner's oracles are rebuilt from a study's history for every suggestion. The module imports TensorFlow.

Nothing is written to disk: `populate_space` is asked directly, `create_trial` (which saves) never.
"""

import copy
import json
import warnings
from collections.abc import Sequence
from typing import Any

import keras_tuner
from keras_tuner.engine import trial as oracle_trial
from keras_tuner.oracles import BayesianOptimizationOracle, RandomSearchOracle

from components.models.space import Parameter, Space, Value
from components.search.samplers.base import History, HistorySampler
from components.search.samplers.noisy_bayesian import NoisyBayesianOracle, fit_completed

ORACLES = {
    "noisy-bayesian": NoisyBayesianOracle,
    "bayesian": BayesianOptimizationOracle,
    "random": RandomSearchOracle,
}
"""The first is this project's own, the other two are Keras Tuner's as published."""


class KerasSampler(HistorySampler):
    """Asks one of `ORACLES`: every suggestion is what its `populate_space` gives.

    What `bayesian` gives is taken as it is. With the others, the space's defaults come first, and a setting that was tried gives
    way to one that was not. Ongoing trials are given to the oracle as its own ongoing trials, whose results it "hallucinates"
    pessimistically. Trials that diverged or failed are failed ones to `bayesian`, which passes them over, and the worst
    score to `noisy-bayesian`.

    Source: https://github.com/keras-team/keras-tuner, `tuners/bayesian.py`
    """

    def __init__(self, algorithm: str, space: Space, seed: int, first_guesses: Sequence[dict[str, Value]] = ()) -> None:
        super().__init__(algorithm, space, seed, first_guesses)
        self.as_published = algorithm == "bayesian"

    def propose(self, number: int, history: History) -> dict[str, Value] | None:
        """Rebuild the oracle and ask it; see `HistorySampler.propose`."""
        oracle = ORACLES[self.algorithm](
            objective=keras_tuner.Objective("score", direction="max"),
            hyperparameters=to_hyperparameters(self.space),
            # The oracle takes seed 0 for "none given"; it also counts it up by one per value drawn, hence the distance.
            seed=int(self.rng(number).integers(1, 2**31 - 1)),
        )
        self._tell(oracle, history)
        with warnings.catch_warnings():
            # A Gaussian process whose parameters reach a bound is no news to anybody.
            warnings.simplefilter("ignore")
            if self.as_published and history.ongoing and any(history.scored):
                fit_completed(oracle)
            values = oracle.populate_space(str(number))["values"]
        return None if values is None else from_hyperparameters(self.space, values)

    def _tell(self, oracle: keras_tuner.Oracle, history: History) -> None:
        """Enter finished and ongoing trials where the oracle looks for them."""
        kinds = oracle_trial.TrialStatus
        for (values, score), is_scored in zip(history.results, history.scored, strict=True):
            status = kinds.COMPLETED if is_scored or not self.as_published else kinds.FAILED
            self._enter(oracle, values, status).score = score
        for values in history.ongoing:
            trial = self._enter(oracle, values, kinds.RUNNING)
            oracle.ongoing_trials[f"worker-{trial.trial_id}"] = trial

    def _enter(self, oracle: keras_tuner.Oracle, values: dict[str, Value], status: str) -> oracle_trial.Trial:
        hyperparameters = copy.copy(oracle.hyperparameters)  # the space itself is shared, only values differ
        hyperparameters.values = {p.name: _encode(p, values[p.name]) for p in self.space.parameters if p.name in values}
        trial = oracle_trial.Trial(hyperparameters, trial_id=f"{len(oracle.trials):05d}", status=status)
        oracle.trials[trial.trial_id] = trial
        oracle._record_values(trial)  # what `create_trial` does apart from saving
        return trial


def to_hyperparameters(space: Space) -> keras_tuner.HyperParameters:
    """Return the space in Keras Tuner's terms; choices become their JSON texts, so that any mixture is allowed."""
    declared = keras_tuner.HyperParameters()
    for parameter in space.parameters:
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


def _encode(parameter: Parameter, value: Value) -> Value:
    return json.dumps(value) if parameter.choices else value


def _decode(parameter: Parameter, value: Any) -> Value:
    return json.loads(value) if parameter.choices else value
