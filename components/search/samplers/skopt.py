"""scikit-optimize's `Optimizer` is rebuilt from a study's history for every suggestion.

The module imports neither TensorFlow nor torch.
"""

import sys
import warnings
from typing import Any

import numpy as np
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.utils import RegressorTags, Tags
from skopt import Optimizer
from skopt.learning import GradientBoostingQuantileRegressor
from skopt.space import Categorical, Dimension, Integer, Real
from skopt.utils import cook_estimator

from components.models.space import Parameter, Space, Value
from components.search.samplers.base import History, HistorySampler
from components.search.samplers.gaussian_process import climb_briefly

NUM_INITIAL = 6
"""Finished trials before the model takes over."""

ACQUISITION = "EI"
"""Expected improvement. scikit-optimize's `gp_hedge` draws one of three by what each gained so far, which needs a fit for
every trial of the history; docs/experiments/2026-11-26-search.md compares the two."""

NUM_CANDIDATES = 2000
"""Random points that the acquisition is evaluated at first; skopt's 10,000 take most of the time and change little."""

MANY_POINTS = 50
"""From here on the likelihood of the Gaussian process is settled enough for one short climb without restarts."""


class _QuantileRegressor(GradientBoostingQuantileRegressor):
    """skopt's gradient boosting, made to work with current scikit-learn (tags) and numpy (`in1d` is gone)."""

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.estimator_type, tags.regressor_tags = "regressor", RegressorTags()
        return tags

    def predict(self, X: np.ndarray, return_std: bool = False, return_quantiles: bool = False):  # noqa: N803
        if not return_std:
            return super().predict(X, return_quantiles=return_quantiles)
        low, middle, high = super().predict(X, return_quantiles=True).T
        return middle, (high - low) / 2.0


class SkoptSampler(HistorySampler):
    """scikit-optimize's `Optimizer`: every suggestion after the defaults is what its `ask` gives.

    The model is a Gaussian process (`gp`), extremely randomised trees (`forest`) or boosted trees (`gbrt`), the acquisition
    expected improvement; `random` has neither. An ongoing trial is told as if it had reached the best score so far
    (constant liar, CL-min), which keeps the next ones away from it.

    Source: Ginsbourger, Le Riche, Carraro 2010, https://hal.science/hal-00732512
    """

    def propose(self, number: int, history: History) -> dict[str, Value]:
        """Rebuild the optimizer and ask it; see `HistorySampler.propose`."""
        optimizer = self.optimizer(history, int(self.rng(number).integers(2**31 - 1)))
        with warnings.catch_warnings():
            # An exhausted or repeated point is dealt with by `HistorySampler.suggest`, ill-conditioned fits by skopt.
            warnings.simplefilter("ignore")
            return from_point(self.space, optimizer.ask())

    def new_optimizer(self, seed: int, num_told: int) -> Optimizer:
        """Return an optimizer that is set up for a number of results and has none of them yet."""
        return Optimizer(
            dimensions(self.space),
            base_estimator=self._estimator(seed, num_told),
            acq_func=ACQUISITION,
            n_initial_points=sys.maxsize if self.algorithm == "random" else NUM_INITIAL,
            acq_optimizer_kwargs={"n_points": NUM_CANDIDATES, "n_jobs": 1},
            random_state=seed,
        )

    def optimizer(self, history: History, seed: int) -> Optimizer:
        """Return an optimizer that knows the history, with constant lies for the ongoing trials.

        Scores are told as losses in units of their own spread, because skopt's acquisition functions have a margin
        (`xi` = 0.01) in absolute units.
        """
        optimizer = self.new_optimizer(seed, len(history.results))
        if history.results:
            scores = np.array([score for _, score in history.results])
            losses = list(-(scores - scores.mean()) / (scores.std() or 1.0))
            lies = [min(losses)] * len(history.ongoing)
            points = [to_point(self.space, values) for values in (*(v for v, _ in history.results), *history.ongoing)]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                # No model before enough results are real ones, however many lies there are.
                optimizer.tell(points, [float(y) for y in losses + lies], fit=len(losses) >= NUM_INITIAL)
            if len(losses) < NUM_INITIAL:
                optimizer._n_initial_points = max(optimizer._n_initial_points, 1)
        return optimizer

    def _estimator(self, seed: int, num_points: int):
        if self.algorithm == "gp":
            estimator = cook_estimator("GP", space=dimensions(self.space), random_state=seed)
            if num_points > MANY_POINTS:
                estimator.set_params(optimizer=climb_briefly, n_restarts_optimizer=0)
            return estimator
        if self.algorithm == "forest":
            return "ET"
        if self.algorithm == "random":
            return DummyRegressor()  # never fitted; skopt's own name for it, "dummy", current scikit-learn refuses
        boosting = GradientBoostingRegressor(n_estimators=30, loss="quantile")
        return _QuantileRegressor(base_estimator=boosting, random_state=seed)


def dimensions(space: Space) -> list[Dimension]:
    """Return the space in scikit-optimize's terms.

    Choices become their position's text; the grid of an integer becomes its index, on a log scale the plain range.
    """
    return [_dimension(p) for p in space.parameters]


def _dimension(p: Parameter) -> Dimension:
    if p.choices:
        return Categorical([str(i) for i in range(len(p.choices))], name=p.name)
    prior = "log-uniform" if p.log else "uniform"
    if not p.is_integer:
        return Real(p.low, p.high, prior=prior, name=p.name)
    if p.log or not p.step:
        return Integer(p.low, p.high, prior=prior, name=p.name)
    return Integer(0, (p.high - p.low) // p.step, name=p.name)


def to_point(space: Space, values: dict[str, Value]) -> list:
    """Return the values as scikit-optimize's point; missing ones take their default."""
    return [_to_coordinate(p, value) for p, value in zip(space.parameters, space.imputed(values).values(), strict=True)]


def _to_coordinate(p: Parameter, value: Any) -> str | int | float:
    if p.choices:
        return str(p.choices.index(value))
    if p.is_integer:
        return int(value) if p.log or not p.step else int((value - p.low) // p.step)
    return float(value)


def from_point(space: Space, point: list) -> dict[str, Value]:
    """Return the active values of a point."""
    return space.conform({p.name: _from_coordinate(p, x) for p, x in zip(space.parameters, point, strict=True)})


def _from_coordinate(p: Parameter, x: Any) -> Value:
    if p.choices:
        return p.choices[int(x)]
    if p.is_integer and p.step and not p.log:
        return p.low + p.step * int(x)
    return float(x)
