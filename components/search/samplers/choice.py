"""The one way to make a sampler. Imports neither TensorFlow nor scikit-optimize until one is made that needs it."""

from collections.abc import Sequence
from typing import Any

from components.errors import ParameterError
from components.models.space import Space, Value
from components.parameters import MLP_ALGORITHMS, RESNET18_ALGORITHMS
from components.search.samplers.base import Sampler

ALGORITHMS = {"mlp": MLP_ALGORITHMS, "resnet18": RESNET18_ALGORITHMS}
"""What `search_<approach>_algorithm` may be; the default comes first."""

DESCRIPTIONS = {
    "noisy-bayesian": "Bayesian optimisation for noisy scores, this project's own Keras Tuner oracle",
    "bayesian": "Keras Tuner's BayesianOptimizationOracle as published",
    "gp": "scikit-optimize's Gaussian process with expected improvement",
    "forest": "scikit-optimize's extra trees with expected improvement",
    "gbrt": "scikit-optimize's gradient boosted quantiles with expected improvement",
    "random": "random search by Keras Tuner (MLP) and scikit-optimize (ResNet18)",
}
"""Whose algorithm each is, for people."""


def describe(spec: dict[str, Any]) -> str:
    """Return the algorithm of a study's spec and whose it is; that of the first schema may have changed since."""
    name = str(spec.get("algorithm", ""))
    if spec.get("schema") == 1:
        return f"{name} of an earlier version"
    return f"{name} ({DESCRIPTIONS[name]})" if name in DESCRIPTIONS else name


def make_sampler(
    approach: str, algorithm: str, space: Space, seed: int, *, seeds: Sequence[dict[str, Value]] = ()
) -> Sampler:
    """Return the sampler of an approach: Keras Tuner's oracles for `mlp`, scikit-optimize's optimizer for `resnet18`.

    Args:
        approach: A key of `ALGORITHMS`.
        algorithm: One of its values.
        space: The search space.
        seed: Seed of the study, 0 or more.
        seeds: Hyperparameters that come first (`warm_start.find_reusable`).

    Raises:
        ParameterError: For an unknown approach or algorithm.
    """
    if approach not in ALGORITHMS:
        raise ParameterError(f"approach must be one of {', '.join(ALGORITHMS)}; got {approach!r}")
    if algorithm not in ALGORITHMS[approach]:
        allowed = ", ".join(ALGORITHMS[approach])
        raise ParameterError(f"search_{approach}_algorithm must be one of {allowed}; got {algorithm!r}")
    if approach == "mlp":
        from components.search.samplers.keras import KerasSampler

        return KerasSampler(algorithm, space, seed, seeds)
    from components.search.samplers.skopt import SkoptSampler

    return SkoptSampler(algorithm, space, seed, seeds)
