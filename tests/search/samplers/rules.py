"""What holds for every sampler of both approaches; the test files of the two give it their spaces and algorithms."""

import numpy as np

from components.models.space import Parameter, Space
from components.search.samplers.choice import make_sampler
from components.search.trial import Trial

MIXED = Space(
    (
        Parameter(name="optimizer", choices=("SGD", "Adam"), default="Adam"),
        Parameter(name="momentum", low=0.1, high=0.9, default=0.9),
        Parameter(name="units", low=64, high=1000, step=64, default=128),
        Parameter(name="batch", low=16, high=256, step=16, log=True, default=64),
        Parameter(name="depth", low=1, high=4, default=2),
        Parameter(name="rate", low=1e-4, high=1e-1, log=True, default=1e-3),
        Parameter(name="flip", choices=(True, False), default=False),
        Parameter(name="crop", choices=(0, 2, "all"), default=0),
        Parameter(name="padding", low=1, high=3, default=1),
    )
)
SMALL = Space(
    (
        Parameter(name="a", choices=("x", "y"), default="x"),
        Parameter(name="b", low=1, high=3, default=2),
    )
)


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


def assert_suggestions_fit(approach, algorithm, space, *, may_repeat=False):
    """Whatever the history, a suggestion is valid, in plain Python values, new, and the same for the same arguments."""
    for count, running in ((0, 0), (2, 9), (40, 3)):
        if space is SMALL:
            count, running = min(count, 2), 0
        trials = make_history(space, count, running=running)
        suggested = make_sampler(approach, algorithm, space, 7).suggest(count + running, trials)
        again = make_sampler(approach, algorithm, space, 7).suggest(count + running, trials[::-1])

        assert [] == space.problems(suggested)
        assert {int, float, str, bool} >= {type(value) for value in suggested.values()}
        assert may_repeat or space.key(suggested) not in {space.key(t.hyperparameters) for t in trials}
        assert suggested == again


def median_distance(approach, algorithm, space):
    """How far the median suggestion after forty noisy results lies from the best rate, in decades."""
    trials = make_history(space, 40, objective=near_hundredth)
    sampler = make_sampler(approach, algorithm, space, 0)
    return np.median([abs(np.log10(sampler.suggest(40 + i, trials)["rate"]) + 2) for i in range(5)])


def assert_running_trials_keep_away(approach, algorithm, space, count):
    """Workers that ask one after another, without results in between, get different suggestions."""
    trials = make_history(space, count, objective=near_hundredth)
    for _ in range(4):
        values = make_sampler(approach, algorithm, space, 0).suggest(len(trials), trials)
        trials.append(Trial(number=len(trials), status="running", hyperparameters=values))

    assert count + 4 == len({space.key(t.hyperparameters) for t in trials})


def assert_a_small_space_is_exhausted(approach, algorithm):
    """Six settings exist: six trials are all different, and a seventh still gets a valid one."""
    sampler = make_sampler(approach, algorithm, SMALL, 0)
    trials = []
    for number in range(7):
        values = sampler.suggest(number, trials)
        trials.append(Trial(number=number, status="completed", hyperparameters=values, score=0.1 * number))

    assert 6 == len({SMALL.key(t.hyperparameters) for t in trials[:6]})
    assert [] == SMALL.problems(trials[6].hyperparameters)


def assert_equal_or_unscored_trials_go_on(approach, algorithm, space, status):
    """Where no trial differs from another, or none has a score, suggestions are still valid."""
    score = 0.5 if status == "completed" else None
    rng = np.random.default_rng(0)
    trials = [
        Trial(number=i, status=status, hyperparameters=space.sample(rng), score=score, error="out of memory")
        for i in range(12)
    ]

    assert [] == space.problems(make_sampler(approach, algorithm, space, 0).suggest(12, trials))


def assert_random_search_ignores_the_history(approach, space):
    """Interrupted or not, with one worker or four, random search tries the same settings under the same numbers."""
    trials = make_history(space, 30)
    sampler = make_sampler(approach, "random", space, 3)

    assert [sampler.suggest(n, []) for n in range(30, 40)] == [sampler.suggest(n, trials) for n in range(30, 40)]
    assert 10 == len({space.key(sampler.suggest(n, [])) for n in range(30, 40)})
    assert sampler.suggest(30, []) != make_sampler(approach, "random", space, 4).suggest(30, [])
