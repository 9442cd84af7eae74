"""This module makes samplers; it imports TensorFlow or scikit-optimize only when a sampler needs it."""

from collections.abc import Mapping, Sequence
from typing import Any

from components.approaches import APPROACHES
from components.errors import ParameterError
from components.models.space import Space, Value
from components.search.samplers.base import Sampler

ALGORITHMS = {approach.name: approach.algorithms for approach in APPROACHES.values()}
"""What `search_<approach>_algorithm` may be; the default comes first."""

DESCRIPTIONS = {
    "noisy-bayesian": "Bayesian optimisation for noisy scores, this project's own Keras Tuner oracle",
    "bayesian": "Keras Tuner's BayesianOptimizationOracle as published",
    "gp": "scikit-optimize's Gaussian process with expected improvement",
    "forest": "scikit-optimize's extra trees with expected improvement",
    "gbrt": "scikit-optimize's gradient boosted quantiles with expected improvement",
    "random": "random search by Keras Tuner (MLP) and scikit-optimize (ResNet18)",
}
"""For people: what each algorithm is and who wrote it."""


def describe(spec: Mapping[str, Any]) -> str:
    """Return the name of a study's algorithm and who wrote it; the first schema's names may mean another algorithm now."""
    name = str(spec.get("algorithm", ""))
    if spec.get("schema") == 1:
        return f"{name} of an earlier version"
    return f"{name} ({DESCRIPTIONS[name]})" if name in DESCRIPTIONS else name


def make_sampler(
    approach: str, algorithm: str, space: Space, seed: int, *, first_guesses: Sequence[dict[str, Value]] = ()
) -> Sampler:
    """Return the sampler of an approach, which its line in `components.approaches` names.

    Args:
        approach: A key of `ALGORITHMS`.
        algorithm: One of its values.
        space: The search space.
        seed: Seed of the study, 0 or more.
        first_guesses: Hyperparameters that come first (`warm_start.find_reusable`).

    Raises:
        ParameterError: For an unknown approach or algorithm.
    """
    if approach not in ALGORITHMS:
        raise ParameterError(f"approach must be one of {', '.join(ALGORITHMS)}; got {approach!r}")
    if algorithm not in ALGORITHMS[approach]:
        allowed = ", ".join(ALGORITHMS[approach])
        raise ParameterError(f"search_{approach}_algorithm must be one of {allowed}; got {algorithm!r}")
    return APPROACHES[approach].sampler_class()(algorithm, space, seed, first_guesses)
