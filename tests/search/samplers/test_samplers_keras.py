import time

import keras_tuner
import numpy as np
import pytest

from components.models.space import Parameter, Space
from components.search.samplers.base import History
from components.search.samplers.choice import ALGORITHMS, make_sampler
from components.search.samplers.keras import KerasSampler, _BayesianOracle, to_hyperparameters
from components.search.trial import Trial

DESCRIBED = Space(
    (
        Parameter(name="units_1", low=64, high=1024, step=64, default=256),
        Parameter(name="units_2", low=64, high=1024, step=64, default=128),
        Parameter(name="activation_1", choices=("relu", "tanh"), default="relu"),
        Parameter(name="activation_2", choices=("relu", "tanh"), default="relu"),
        Parameter(name="rate", low=1e-4, high=1e-1, log=True, default=1e-3),
        Parameter(name="optimizer", choices=("SGD", "Adam", "RMSprop", "Nadam"), default="Adam"),
    )
)
MIXED = Space(
    (
        Parameter(name="optimizer", choices=("SGD", "Adam"), default="Adam"),
        Parameter(name="momentum", low=0.1, high=0.9, default=0.9, only_if=("optimizer", ("SGD",))),
        Parameter(name="units", low=64, high=1000, step=64, default=128),
        Parameter(name="batch", low=16, high=256, step=16, log=True, default=64),
        Parameter(name="depth", low=1, high=4, default=2),
        Parameter(name="rate", low=1e-4, high=1e-1, log=True, default=1e-3),
        Parameter(name="flip", choices=(True, False), default=False),
        Parameter(name="crop", choices=(0, 2, "all"), default=0, only_if=("flip", (True,))),
        Parameter(name="padding", low=1, high=3, default=1, only_if=("crop", (2,))),
    )
)
SMALL = Space(
    (
        Parameter(name="a", choices=("x", "y"), default="x"),
        Parameter(name="b", low=1, high=3, default=2, only_if=("a", ("y",))),
    )
)
MLP = ALGORITHMS["mlp"]


def make_history(space, count, *, objective=lambda _, rng: rng.random(), running=0):
    """Random trials, some of them pruned or diverged, and a few without a result."""
    rng = np.random.default_rng(0)
    trials = []
    for number in range(count + running):
        values = space.sample(rng)
        status = (
            "running" if number >= count else {3: "pruned", 5: "diverged", 6: "failed"}.get(number % 8, "completed")
        )
        score = objective(values, rng) if status in ("completed", "pruned") else None
        trials.append(Trial(number=number, status=status, hyperparameters=values, score=score))
    return trials


def near_hundredth(values, rng):
    """An accuracy that depends mostly on the rate, highest at 0.01, with the noise of a validation split."""
    return 0.9 - 0.05 * abs(np.log10(values["rate"]) + 2) + 0.002 * rng.normal()


@pytest.mark.parametrize("algorithm", MLP)
@pytest.mark.parametrize("space", [DESCRIBED, MIXED, SMALL], ids=["described", "mixed", "small"])
def test_suggestions_fit_the_space_and_are_repeatable(algorithm, space, tmp_path, monkeypatch):
    """A suggestion is valid, in plain values, new, the same for the same arguments, and leaves no file behind."""
    monkeypatch.chdir(tmp_path)
    for count, running in ((0, 0), (2, 9), (40, 3)):
        if space is SMALL:
            count, running = min(count, 2), 0
        trials = make_history(space, count, running=running)
        suggested = make_sampler("mlp", algorithm, space, 7).suggest(count + running, trials)
        again = make_sampler("mlp", algorithm, space, 7).suggest(count + running, trials[::-1])

        assert [] == space.problems(suggested)
        assert {int, float, str, bool} >= {type(value) for value in suggested.values()}
        assert space.key(suggested) not in {space.key(t.hyperparameters) for t in trials}
        assert suggested == again
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("algorithm", MLP)
def test_the_defaults_come_first_and_seeds_before_them(algorithm):
    """Warm start's seeds, then the defaults, then the oracle's own ideas."""
    sampler = make_sampler("mlp", algorithm, DESCRIBED, 0, seeds=({**DESCRIBED.defaults, "rate": 0.02},))

    assert {**DESCRIBED.defaults, "rate": 0.02} == sampler.suggest(0, [])
    assert DESCRIBED.defaults == sampler.suggest(1, [])
    assert DESCRIBED.defaults != sampler.suggest(2, [])


def test_bayesian_learns_where_it_is_good():
    """From forty noisy results, the median suggestion lies nearer to the best rate than random ones do."""
    trials = make_history(DESCRIBED, 40, objective=near_hundredth)
    sampler = make_sampler("mlp", "bayesian", DESCRIBED, 0)
    distances = [abs(np.log10(sampler.suggest(40 + i, trials)["rate"]) + 2) for i in range(5)]

    assert np.median(distances) < 0.4  # of random ones it is 0.75


def test_ongoing_trials_are_hallucinated_by_the_oracle():
    """Ongoing trials enter the oracle's model with its own pessimistic estimate, not with a made-up score."""
    trials = make_history(DESCRIBED, 12, objective=near_hundredth, running=3)
    history = History.of(DESCRIBED, 15, trials, [])
    oracle = _BayesianOracle(
        objective=keras_tuner.Objective("score", "max"), hyperparameters=to_hyperparameters(DESCRIBED), seed=1
    )
    KerasSampler("bayesian", DESCRIBED, 0)._tell(oracle, history)
    oracle.fit_finished()
    points, losses = oracle._vectorize_trials()
    mean, deviation = oracle.gpr.predict(points[12:], return_std=True)

    assert (15, 6) == points.shape
    np.testing.assert_allclose([-score for _, score in history.told], losses[:12])
    np.testing.assert_allclose(mean + deviation, losses[12:])


def test_running_trials_keep_the_next_ones_away():
    """Workers that ask one after another, without results in between, get different suggestions."""
    trials = make_history(DESCRIBED, 20, objective=near_hundredth)
    for _ in range(4):
        values = make_sampler("mlp", "bayesian", DESCRIBED, 0).suggest(len(trials), trials)
        trials.append(Trial(number=len(trials), status="running", hyperparameters=values))

    assert 24 == len({DESCRIBED.key(t.hyperparameters) for t in trials})


@pytest.mark.parametrize("algorithm", MLP)
def test_a_small_space_is_exhausted_before_anything_repeats(algorithm):
    """Four settings exist: four trials are all different, and a fifth still gets a valid one."""
    sampler = make_sampler("mlp", algorithm, SMALL, 0)
    trials = []
    for number in range(5):
        values = sampler.suggest(number, trials)
        trials.append(Trial(number=number, status="completed", hyperparameters=values, score=0.1 * number))

    assert 4 == len({SMALL.key(t.hyperparameters) for t in trials[:4]})
    assert [] == SMALL.problems(trials[4].hyperparameters)


@pytest.mark.parametrize("status", ["diverged", "completed"])
def test_a_study_of_equal_or_unscored_trials_goes_on(status):
    """Where no trial differs from another, or none has a score, suggestions are still valid."""
    rng = np.random.default_rng(0)
    trials = [
        Trial(
            number=i, status=status, hyperparameters=DESCRIBED.sample(rng), score=0.5 if status == "completed" else None
        )
        for i in range(12)
    ]
    suggested = make_sampler("mlp", "bayesian", DESCRIBED, 0).suggest(12, trials)

    assert [] == DESCRIBED.problems(suggested)


def test_random_search_does_not_depend_on_the_history():
    """Interrupted or not, with one worker or four, random search tries the same settings under the same numbers."""
    trials = make_history(DESCRIBED, 30)
    sampler = make_sampler("mlp", "random", DESCRIBED, 0)

    assert [sampler.suggest(n, []) for n in range(30, 40)] == [sampler.suggest(n, trials) for n in range(30, 40)]
    assert 10 == len({DESCRIBED.key(sampler.suggest(n, [])) for n in range(30, 40)})


@pytest.mark.parametrize("algorithm", MLP)
def test_200_finished_trials_take_under_two_seconds(algorithm):
    """A suggestion from a long history is quick (processor time of one thread, the described space)."""
    trials = make_history(DESCRIBED, 200, objective=near_hundredth, running=4)
    sampler = make_sampler("mlp", algorithm, DESCRIBED, 0)
    started = time.process_time()
    sampler.suggest(204, trials)

    assert time.process_time() - started < 2.0
