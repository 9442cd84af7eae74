"""Search quality at an equal budget: this project's samplers and pruning against random search, Optuna and skopt.

`python -m benchmarks.search` uses a synthetic objective with the shape of an MLP's learning curves, and takes minutes.
`python -m benchmarks.search --data DIR` trains the MLP on a subset of the real Fashion-MNIST in DIR. Loads TensorFlow.
"""

import argparse
import contextlib
import json
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from skopt import Optimizer

from components.models.mlp import training as mlp
from components.models.space import Parameter, Value
from components.search.samplers.base import History, Sampler
from components.search.samplers.choice import make_sampler
from components.search.samplers.keras import from_hyperparameters, to_hyperparameters
from components.search.samplers.skopt import SkoptSampler, dimensions, from_point
from components.search.study.pruning import should_prune
from components.search.trial import Trial

EPOCHS = 20
NUM_TRIALS = 30
"""Unpruned trials that the budget pays for."""

SPACE = mlp.SPACES["described"]

Objective = Callable[[dict[str, Value], int, Callable[[list[float]], bool]], tuple[list[float], float]]
"""Takes hyperparameters, a seed and a function that sees the scores after each epoch and stops the trial by True.

Gives the scores and what they cost.
"""


class Exhausted(Exception):  # noqa: N818 - the budget's end is no error
    """The budget is spent."""


@dataclass
class Run:
    """One search: the course of its best score over what was spent.

    Attributes:
        objective: What is searched.
        budget: Most cost; the trial that crosses it still counts.
        seed: Of trainings; search methods take it as well.
        trials: What was tried.
        spent: Cost so far.
        course: (cost so far, best score so far) after each trial.
        suggest_seconds: What each suggestion took.
    """

    objective: Objective
    budget: float
    seed: int
    trials: list[Trial] = field(default_factory=list)
    spent: float = 0.0
    course: list[tuple[float, float]] = field(default_factory=list)
    suggest_seconds: list[float] = field(default_factory=list)

    def train(self, values: dict[str, Value], stop: Callable[[list[float]], bool] = lambda _: False) -> Trial:
        """Train one trial; raise `Exhausted` where nothing is left to pay it with."""
        if self.spent >= self.budget:
            raise Exhausted
        number = len(self.trials)
        scores, cost = self.objective(values, 1000 * self.seed + number, stop)
        status = "completed" if len(scores) == EPOCHS else "pruned"
        trial = Trial(
            number=number,
            status=status if scores else "diverged",
            hyperparameters=values,
            score=max(scores, default=None),
            scores=tuple(scores),
        )
        self.trials.append(trial)
        self.spent += cost
        self.course.append((self.spent, max((t.score for t in self.trials if t.score is not None), default=0.0)))
        return trial

    def cost_to_reach(self, score: float) -> float:
        """Return what was spent until the score was reached; infinite where it never was."""
        return next((cost for cost, best in self.course if best >= score), math.inf)

    def best_within(self, cost: float) -> float:
        """Return the best score of the trials that were done by then; 0 without any."""
        return max((best for spent, best in self.course if spent <= cost), default=0.0)


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


def synthetic(values: dict[str, Any], seed: int, stop: Callable[[list[float]], bool]) -> tuple[list[float], float]:
    """Return the accuracies (up to `EPOCHS`) of a made-up MLP, and their number as the cost."""
    rng = np.random.default_rng(seed)
    rate = math.log10(values["learning_rate"]) - (1.2 if values["optimizer"] == "SGD" else 0.0)
    off = rate + 3.1
    top = 0.897 - (0.012 if off < 0 else 0.03) * off**2
    top += 0.004 * math.log2(values["units_1"] / 512) + 0.002 * math.log2(values["units_2"] / 256)
    top -= 0.003 * (values["activation_1"] == "tanh") + 0.002 * (values["activation_2"] == "tanh")
    top += {"SGD": -0.003, "Adam": 0.001, "RMSprop": -0.002, "Nadam": 0.002}[values["optimizer"]] + rng.normal(0, 0.002)
    slowness = 2.5 * 10 ** (-0.25 * min(off, 1.0))
    scores: list[float] = []
    for epoch in range(1, EPOCHS + 1):
        scores.append(float(max(top - 0.12 * math.exp(-epoch / slowness) + rng.normal(0, 0.002), 0.1)))
        if stop(scores):
            break
    return scores, float(len(scores))


def real(data_dir: Path, num_images: int, subset: int = 0) -> Objective:
    """Return the MLP trained on a stratified subset of Fashion-MNIST; it costs the device-seconds it takes.

    On a CPU those are counted as seconds of CPU time, which other processes on the machine do not distort.

    Args:
        data_dir: Folder with the four published files.
        num_images: Training and validation examples together, half each: scores then tell hyperparameters apart, not images.
        subset: Seed that the images are drawn with.
    """
    import tempfile

    from components.data.contract import TrainData
    from components.data.ingest import ingest
    from components.models.contract import TrialDivergedError
    from components.parameters import DataSettings

    with tempfile.TemporaryDirectory() as folder:
        train_dir, test_dir, report_dir = (Path(folder) / name for name in ("train", "test", "report"))
        settings = DataSettings(limit=num_images, validation_fraction=0.5, seed=subset)
        ingest(
            f"fashion-mnist={data_dir}",
            settings=settings,
            train_dir=train_dir,
            test_dir=test_dir,
            report_dir=report_dir,
            cache=str(Path(folder) / "cache"),
        )
        trainer = mlp.Trainer(TrainData.load(train_dir))
    clock = time.process_time if trainer.device_name == "cpu" else time.perf_counter
    trainer.fit(SPACE.defaults, epochs=1, seed=0)  # tracing and the first touch of the device are nobody's cost

    def objective(
        values: dict[str, Value], seed: int, stop: Callable[[list[float]], bool]
    ) -> tuple[list[float], float]:
        scores: list[float] = []

        def on_epoch(_epoch: int, score: float, _state: Any) -> bool:
            scores.append(score)
            return not stop(scores)

        started = clock()
        with contextlib.suppress(TrialDivergedError):
            trainer.fit(values, epochs=EPOCHS, seed=seed, on_epoch=on_epoch, keep_weights=False)
        return scores, clock() - started

    return objective


def run(
    objective: Objective = synthetic,
    *,
    budget: float = float(EPOCHS * NUM_TRIALS),
    seeds: Sequence[int] = range(5),
    methods: Sequence[str] = tuple(METHODS),
) -> dict[str, Any]:
    """Compare the methods; the first one sets the score that the others have to reach.

    Args:
        objective: What is searched.
        budget: Most cost of each search, in the objective's unit.
        seeds: One search per method and seed.
        methods: Keys of `METHODS`.

    Returns:
        `rows`, one per method: `best`, `best_at_half` of the budget and `cost_fraction` (what it took to reach the first
        method's best with the same seed, as a fraction of what that one spent on its whole search; None where it did not
        get there), medians over the seeds and each seed's; `trials` and `suggest_seconds`, medians; `courses`, a list
        of (cost so far, best so far) for each seed; `best_hyperparameters`, each seed's.
    """
    searches: dict[str, list[Run]] = {method: [] for method in methods}
    for seed in seeds:
        for method in methods:
            search = _search(METHODS[method], Run(objective, budget, seed))
            searches[method].append(search)
            print(f"seed {seed}, {method}: {search.course[-1][1]:.4f} of {len(search.trials)} trials", file=sys.stderr)
    baseline = searches[methods[0]]
    return {"benchmark": "search", "budget": budget, "rows": [_row(m, searches[m], baseline) for m in methods]}


def _search(method: Callable[[Run], None], search: Run) -> Run:
    with contextlib.suppress(Exhausted):
        method(search)
    return search


def _row(method: str, searches: list[Run], baseline: list[Run]) -> dict[str, Any]:
    best = [search.course[-1][1] for search in searches]
    at_half = [search.best_within(search.budget / 2) for search in searches]
    fractions = [
        search.cost_to_reach(base.course[-1][1]) / base.spent for search, base in zip(searches, baseline, strict=True)
    ]
    took = [seconds for search in searches for seconds in search.suggest_seconds]
    return {
        "method": method,
        "best": statistics.median(best),
        "best_per_seed": best,
        "best_at_half": statistics.median(at_half),
        "best_at_half_per_seed": at_half,
        "cost_fraction": _finite(statistics.median(fractions)),
        "cost_fraction_per_seed": [_finite(fraction) for fraction in fractions],
        "trials": statistics.median(len(search.trials) for search in searches),
        "suggest_seconds": statistics.median(took) if took else None,
        "courses": [search.course for search in searches],
        "best_hyperparameters": [
            max(search.trials, key=lambda t: t.score or 0.0).hyperparameters for search in searches
        ],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _lines(result: dict[str, Any]) -> Iterator[str]:
    yield f"{'method':45s} {'best':>7s} {'half':>7s} {'cost of the first':>21s} {'trials':>7s} {'suggest s':>10s}"
    for row in result["rows"]:
        took = "" if row["suggest_seconds"] is None else f"{row['suggest_seconds']:.3f}"
        share = "never" if row["cost_fraction"] is None else f"{row['cost_fraction']:.0%}"
        yield (
            f"{row['method']:45s} {row['best']:7.4f} {row['best_at_half']:7.4f} {share:>21s} {row['trials']:7.0f} {took:>10s}"
        )


def main() -> None:
    """Print the table, or everything as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the four files of Fashion-MNIST")
    parser.add_argument("--images", type=int, default=4000, help="of the subset")
    parser.add_argument("--subset", type=int, default=0, help="seed that the subset is drawn with")
    parser.add_argument(
        "--budget",
        type=float,
        default=float(EPOCHS * NUM_TRIALS),
        help="of each search: epochs, or device-seconds on data",
    )
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument(
        "--method", action="append", choices=tuple(METHODS), help="only these; the first is the baseline"
    )
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    methods = given.method or tuple(METHODS)
    objective = real(given.data, given.images, given.subset) if given.data else synthetic
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    result = run(objective, budget=given.budget, seeds=seeds, methods=methods)
    print(json.dumps(result, indent=1) if given.json else "\n".join(_lines(result)))


if __name__ == "__main__":
    main()
