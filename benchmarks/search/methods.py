"""The search methods: this project's samplers with and without pruning, Optuna, Keras Tuner's and scikit-optimize's own loops."""

import contextlib
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from skopt import Optimizer

from benchmarks.search.budget import EPOCHS, NUM_TRIALS, SPACE, Exhausted, Run
from components.models.space import Parameter, Value
from components.search.samplers.base import History, Sampler
from components.search.samplers.choice import make_sampler
from components.search.samplers.keras import from_hyperparameters, to_hyperparameters
from components.search.samplers.skopt import SkoptSampler, dimensions, from_point
from components.search.study.pruning import should_prune


def ours(
    approach: str, algorithm: str, *, pruning: bool, make: Callable[..., Sampler] = make_sampler
) -> Callable[[Run], None]:
    """Return a search with one of this project's samplers."""

    def search(run: Run) -> None:
        sampler = make(approach, algorithm, SPACE, run.seed)

        def stop(scores: list[float]) -> bool:
            return pruning and should_prune(scores, [t.scores for t in run.trials], max_epochs=EPOCHS)

        while True:
            started = time.perf_counter()
            values = sampler.suggest(len(run.trials), run.trials)
            run.suggest_seconds.append(time.perf_counter() - started)
            run.train(values, stop)

    return search


def optuna_tpe(run: Run) -> None:
    """Search with Optuna's TPE and its successive halving, both as they come."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=run.seed),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
    )
    while True:
        started = time.perf_counter()
        asked = study.ask()
        values = {p.name: _suggest(asked, p) for p in SPACE.parameters}
        run.suggest_seconds.append(time.perf_counter() - started)

        def stop(scores: list[float], asked: Any = asked) -> bool:
            asked.report(scores[-1], len(scores))
            return asked.should_prune()

        trial = run.train(values, stop)
        states = optuna.trial.TrialState
        state = {"completed": states.COMPLETE, "pruned": states.PRUNED, "diverged": states.FAIL}[trial.status]
        study.tell(asked, trial.score if trial.status == "completed" else None, state=state)


def _suggest(asked: Any, p: Parameter) -> Value:
    if p.choices:
        return asked.suggest_categorical(p.name, p.choices)
    if p.is_integer:
        return asked.suggest_int(p.name, p.low, p.high, step=p.step or 1)
    return asked.suggest_float(p.name, p.low, p.high, log=p.log)


def gp_minimize(run: Run) -> None:
    """Search with scikit-optimize's own loop, without pruning."""
    from skopt import gp_minimize as minimize

    def loss(point: list) -> float:
        return 1.0 - (run.train(from_point(SPACE, point)).score or 0.0)

    minimize(loss, dimensions(SPACE), n_calls=10 * NUM_TRIALS, random_state=run.seed, acq_optimizer="sampling")


def tuner_search(run: Run) -> None:
    """Search with Keras Tuner's own loop, `BayesianOptimization(...).search()`, without pruning."""
    import tempfile

    import keras_tuner

    class Tuner(keras_tuner.BayesianOptimization):
        def run_trial(self, trial: Any, *_args: Any, **_kwargs: Any) -> dict[str, float]:
            try:
                values = from_hyperparameters(SPACE, trial.hyperparameters.values)
                return {"score": run.train(values).score or 0.0}
            except Exhausted as error:
                # Any other exception is a failed trial to Keras Tuner.
                raise keras_tuner.errors.FatalError("the budget is spent") from error

    with tempfile.TemporaryDirectory() as folder:
        tuner = Tuner(
            objective=keras_tuner.Objective("score", direction="max"),
            max_trials=10 * NUM_TRIALS,
            hyperparameters=to_hyperparameters(SPACE),
            seed=run.seed + 1,  # it takes 0 for "none given"
            directory=folder,
        )
        with contextlib.suppress(keras_tuner.errors.FatalError), warnings.catch_warnings():
            # Its locks ask threads for their names in a way that Python deprecates.
            warnings.simplefilter("ignore", DeprecationWarning)
            tuner.search(verbose=0)


class HedgeSampler(SkoptSampler):
    """`gp` with scikit-optimize's `gp_hedge`: one object for a whole search, which carries the gains from trial to trial."""

    gains, proposals = np.zeros(3), ()

    def new_optimizer(self, seed: int, num_told: int) -> Optimizer:
        """Return an optimizer with the gains and the three proposals of the one before."""
        plain = super().new_optimizer(seed, num_told)
        optimizer = Optimizer(
            plain.space.dimensions,
            base_estimator=plain.base_estimator_,
            acq_func="gp_hedge",
            n_initial_points=plain.n_initial_points_,
            acq_optimizer_kwargs=plain.acq_optimizer_kwargs,
            random_state=seed,
        )
        optimizer.gains_ = np.array(self.gains)
        if len(self.proposals):
            optimizer.next_xs_ = self.proposals
        return optimizer

    def optimizer(self, history: History, seed: int) -> Optimizer:
        """Return the optimizer that was told the history, and keep what the next one needs."""
        optimizer = super().optimizer(history, seed)
        self.gains, self.proposals = optimizer.gains_, getattr(optimizer, "next_xs_", ())
        return optimizer


METHODS: dict[str, Callable[[Run], None]] = {
    "random search": ours("mlp", "random", pruning=False),
    "random search, pruning": ours("mlp", "random", pruning=True),
    "noisy-bayesian, pruning": ours("mlp", "noisy-bayesian", pruning=True),
    "Keras Tuner bayesian, pruning": ours("mlp", "bayesian", pruning=True),
    "skopt gp (EI), pruning": ours("resnet18", "gp", pruning=True),
    "skopt gp (gp_hedge), pruning": ours(
        "resnet18", "gp", pruning=True, make=lambda _, algorithm, *rest: HedgeSampler(algorithm, *rest)
    ),
    "skopt forest (EI), pruning": ours("resnet18", "forest", pruning=True),
    "Optuna TPE, successive halving": optuna_tpe,
    "Keras Tuner tuner.search": tuner_search,
    "skopt gp_minimize": gp_minimize,
}
"""Searches by name. The first of the asked for sets the score that the others have to reach."""
