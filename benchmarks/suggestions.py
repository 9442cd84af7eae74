"""How long a suggestion takes at the end of a study; loads Keras Tuner and scikit-optimize."""

import functools

import numpy as np

from benchmarks.harness import Options, Row, row, seconds
from components.models.mlp import training as mlp
from components.models.space import Parameter, Space
from components.search.samplers.choice import ALGORITHMS, make_sampler
from components.search.trial import Trial

NUM_TRIALS = 30

# The space of `models/resnet18/training.py`, which cannot be imported beside TensorFlow.
RESNET18 = Space(
    (
        Parameter(name="learning_rate", low=0.001, high=0.1, log=True, default=0.05),
        Parameter(name="momentum", low=0.1, high=0.9, default=0.9),
        Parameter(name="weight_decay", low=0.0001, high=0.01, log=True, default=0.0005),
        Parameter(name="optimizer", choices=("SGD", "Adam", "RMSprop", "NAG"), default="NAG"),
    )
)


def measure(options: Options) -> list[Row]:
    """Return the time of the suggestion after 30 finished trials, for every algorithm."""
    rows = []
    for approach, space in (("mlp", mlp.SPACES["described"]), ("resnet18", RESNET18)):
        trials = _trials(approach, space)
        for algorithm in ALGORITHMS[approach]:
            taken = [
                seconds(functools.partial(_suggest, approach, algorithm, space, n, trials))
                for n in range(options.repeats)
            ]
            rows.append(row(f"suggestion, {approach} {algorithm}", "s", taken, note=f"after {NUM_TRIALS} trials"))
    return rows


def _suggest(approach: str, algorithm: str, space: Space, seed: int, trials: list[Trial]) -> None:
    make_sampler(approach, algorithm, space, seed).suggest(NUM_TRIALS, trials)


def _trials(approach: str, space: Space) -> list[Trial]:
    random = np.random.default_rng(0)
    sampler = make_sampler(approach, "random", space, 0)
    trials: list[Trial] = []
    for number in range(NUM_TRIALS):
        values = sampler.suggest(number, trials)
        score = float(random.uniform(0.7, 0.9))
        trials.append(Trial(number=number, status="completed", hyperparameters=values, score=score, scores=(score,)))
    return trials
