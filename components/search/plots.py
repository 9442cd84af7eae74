"""scikit-optimize draws a study of either approach: convergence, objective, evaluations, importance.

The module imports neither TensorFlow nor torch and does not touch pyplot's global state.
"""

import warnings

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.optimize import OptimizeResult
from sklearn.compose import TransformedTargetRegressor
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler
from skopt.plots import plot_evaluations, plot_objective
from skopt.space import Categorical, Dimension, Integer, Real
from skopt.space import Space as SkoptSpace

from components.models.space import Parameter
from components.search.tables import best_so_far, importance, is_scored, space_of
from components.search.trial import Ledger

MAX_DIMENSIONS = 5
"""A matrix of plots with more rows than this is unreadable; the most important parameters are shown."""

MIN_TRIALS = 10
"""A model of the objective needs so many scored trials."""

_POINTS, _SAMPLES = 12, 40
"""Resolution of the partial dependence: skopt's own takes a minute."""


def drawings(ledger: Ledger) -> dict[str, Figure]:
    """Return the drawings that the study has enough trials for.

    Args:
        ledger: A study, finished or not.

    Returns:
        `convergence` from one scored trial on; `evaluations` (which values were tried, in which order), `objective`
        (partial dependence of the error on one and two parameters) and `importance` from `MIN_TRIALS` on.
    """
    drawn = {}
    if any(is_scored(t) for t in ledger.trials):
        drawn["convergence"] = convergence({ledger.name: ledger})
    result = as_result(ledger)
    if result is not None:
        names = [p.name for p in space_of(ledger).parameters]
        shares = importance(ledger)
        plotted = list(shares)[:MAX_DIMENSIONS] or names[:MAX_DIMENSIONS]
        if len(plotted) > 1:
            drawn["objective"] = _objective(result, plotted)
            drawn["evaluations"] = _evaluations(result, plotted)
        if shares:
            drawn["importance"] = _importance(shares)
    return drawn


def convergence(ledgers: dict[str, Ledger]) -> Figure:
    """Return the best validation error so far over device-seconds, one line per study.

    Args:
        ledgers: By label.
    """
    figure, axes = _new_figure(7.0, 4.0)
    for label, ledger in ledgers.items():
        course = best_so_far(ledger)
        seconds = [p.device_seconds for p in course]
        (line,) = axes.step(seconds, [1 - p.best for p in course], where="post", label=label)
        scored = {t.number: 1 - t.accuracy for t in ledger.trials if is_scored(t)}
        dots = [(p.device_seconds, scored[p.number]) for p in course if p.number in scored]
        axes.plot(*zip(*dots, strict=True), ".", alpha=0.4, color=line.get_color()) if dots else None
    axes.set(xlabel="device-seconds", ylabel="validation error", yscale="log")
    axes.legend()
    return figure


def as_result(ledger: Ledger) -> OptimizeResult | None:
    """Return the study as scikit-optimize's result with a smooth model of it; None below `MIN_TRIALS` scored trials."""
    space, scored = space_of(ledger), [t for t in ledger.trials if is_scored(t)]
    if len(scored) < MIN_TRIALS:
        return None
    points = [
        [_coordinate(p, v) for p, v in zip(space.parameters, space.imputed(t.hyperparameters).values(), strict=True)]
        for t in scored
    ]
    errors = np.array([1.0 - t.accuracy for t in scored])
    dimensions = SkoptSpace([_dimension(p) for p in space.parameters])
    model = _smooth_model(dimensions.transform(points), errors)
    best = int(np.argmin(errors))
    return OptimizeResult(
        x=points[best], fun=errors[best], x_iters=points, func_vals=errors, space=dimensions, models=[model]
    )


def _smooth_model(points: np.ndarray, errors: np.ndarray) -> TransformedTargetRegressor:
    """Return a model of the errors (n,) at points (n, d) in 0..1: kernel ridge regression, its width cross-validated.

    The dependence plots ask a thousand times for a few predictions each, which skopt's own models take a minute for.
    """
    ridge = GridSearchCV(
        KernelRidge(kernel="rbf", alpha=0.1),
        {"gamma": [1 / (2 * width**2) for width in (0.25, 0.5, 1.0, 2.0)]},
        scoring="neg_mean_squared_error",
    )
    return TransformedTargetRegressor(ridge, transformer=StandardScaler(with_std=False)).fit(points, errors)


def _dimension(p: Parameter) -> Dimension:
    """Return skopt's dimension with the parameter's own values; the sampler's has encoded ones."""
    if p.choices:
        return Categorical([str(choice) for choice in p.choices], name=p.name)
    kind = Integer if p.is_integer else Real
    dimension = kind(p.low, p.high, prior="log-uniform" if p.log else "uniform", name=p.name)
    dimension.set_transformer("normalize")
    return dimension


def _coordinate(p: Parameter, value):
    return str(value) if p.choices else value


def _objective(result: OptimizeResult, names: list[str]) -> Figure:
    figure, axes = _new_figure(2.2 * len(names), 2.2 * len(names))
    with _quietly():
        plot_objective(
            result, n_points=_POINTS, n_samples=_SAMPLES, plot_dims=names, ax=axes, levels=8, show_points=True
        )
    return _finished(figure, "Dependence of the validation error")


def _evaluations(result: OptimizeResult, names: list[str]) -> Figure:
    figure, axes = _new_figure(2.2 * len(names), 2.2 * len(names))
    with _quietly():
        plot_evaluations(result, bins=12, plot_dims=names, ax=axes)
    return _finished(figure, "Values tried, from first (dark) to last (bright)")


def _importance(shares: dict[str, float]) -> Figure:
    figure, axes = _new_figure(6.0, 0.6 + 0.35 * len(shares))
    axes.barh(list(shares)[::-1], list(shares.values())[::-1])
    axes.set(xlabel="share of what the score depends on", xlim=(0, 1))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    return figure


def _new_figure(width: float, height: float):
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _finished(figure: Figure, title: str) -> Figure:
    figure.set_layout_engine("none")  # skopt sets the positions itself
    figure.suptitle(title)
    return figure


def _quietly() -> warnings.catch_warnings:
    """Ignore warnings about ticks that skopt sets itself."""
    return warnings.catch_warnings(action="ignore")
