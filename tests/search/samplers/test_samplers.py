import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import skopt

from components.errors import ParameterError
from components.models.space import Parameter, Space
from components.search.samplers import base as samplers
from components.search.samplers.base import History, unseen
from components.search.samplers.choice import ALGORITHMS, DESCRIPTIONS, make_sampler
from components.search.samplers.skopt import from_point
from components.search.trial import Trial
from tests.search.samplers import rules
from tests.search.samplers.rules import MIXED, SMALL, make_history, near_hundredth

DESCRIBED = Space(
    (
        Parameter(name="rate", low=1e-3, high=1e-1, log=True, default=1e-2),
        Parameter(name="momentum", low=0.1, high=0.9, default=0.9),
        Parameter(name="decay", low=1e-4, high=1e-2, log=True, default=5e-4),
        Parameter(name="optimizer", choices=("SGD", "Adam", "RMSprop", "NAG"), default="SGD"),
    )
)
RESNET = ALGORITHMS["resnet18"]


@pytest.mark.parametrize("algorithm", RESNET)
@pytest.mark.parametrize("space", [DESCRIBED, MIXED, SMALL], ids=["described", "mixed", "small"])
def test_suggestions_fit_the_space_and_are_repeatable(algorithm, space):
    """Whatever the history, a suggestion is valid, new, and the same for the same arguments."""
    rules.assert_suggestions_fit("resnet18", algorithm, space)


@pytest.mark.parametrize("algorithm", RESNET)
def test_the_defaults_come_first(algorithm):
    """The first suggestion of an empty study is the space's defaults; the second is not."""
    sampler = make_sampler("resnet18", algorithm, MIXED, 0)
    first = sampler.suggest(0, [])

    assert MIXED.defaults == first
    assert first != sampler.suggest(1, [Trial(number=0, status="running", hyperparameters=first)])


def test_first_guesses_come_before_everything_and_fit_the_space():
    """Warm start's guesses are the first suggestions, in their order, moved into the space; then come the defaults."""
    guesses = ({"rate": 0.02, "momentum": 0.5, "decay": 1e-3, "optimizer": "NAG"}, {"rate": 5.0})
    sampler = make_sampler("resnet18", "random", DESCRIBED, 0, first_guesses=guesses)

    assert guesses[0] == sampler.suggest(0, [])
    assert {**DESCRIBED.defaults, "rate": 0.1} == sampler.suggest(1, [])
    assert DESCRIBED.defaults == sampler.suggest(2, [])


def test_reused_trials_count_like_own_ones():
    """A model is fitted at once where warm start brought enough trials, and none of them is repeated."""
    reused = [
        Trial(number=t.number, status=t.status, hyperparameters=t.hyperparameters, score=t.score, reused_from="s/0")
        for t in make_history(DESCRIBED, 40, objective=near_hundredth)
    ]
    reused.append(
        Trial(number=40, status="completed", hyperparameters=DESCRIBED.defaults, score=0.5, reused_from="s/40")
    )
    suggested = make_sampler("resnet18", "gp", DESCRIBED, 0).suggest(0, [], reused)

    assert suggested != make_sampler("resnet18", "gp", DESCRIBED, 0).suggest(0, [], reused[:10])
    assert DESCRIBED.key(suggested) not in {DESCRIBED.key(t.hyperparameters) for t in reused}


@pytest.mark.parametrize("algorithm", ["gp", "forest", "gbrt"])
def test_models_learn_where_it_is_good(algorithm):
    """From forty noisy results, the median suggestion lies nearer to the best rate than random ones do."""
    assert rules.median_distance("resnet18", algorithm, DESCRIBED) < 0.25  # of random ones it is 0.5


def test_running_trials_keep_the_next_ones_away():
    """Workers that ask one after another, without results in between, get different suggestions."""
    rules.assert_running_trials_keep_away("resnet18", "gp", DESCRIBED, 30)


def test_lies_alone_are_no_model():
    """Many running trials and few results: suggestions stay random instead of being drawn from invented scores."""
    trials = make_history(DESCRIBED, 2, running=20)
    suggested = make_sampler("resnet18", "gp", DESCRIBED, 0).suggest(22, trials)

    assert [] == DESCRIBED.problems(suggested)


@pytest.mark.parametrize("algorithm", RESNET)
def test_a_small_space_is_exhausted_before_anything_repeats(algorithm):
    """Six settings exist: six trials are all different, and a seventh still gets a valid one."""
    rules.assert_a_small_space_is_exhausted("resnet18", algorithm)


@pytest.mark.parametrize("algorithm", RESNET)
@pytest.mark.parametrize("status", ["diverged", "failed", "completed"])
def test_a_study_of_equal_or_unscored_trials_goes_on(algorithm, status):
    """Where no trial differs from another, or none has a score, suggestions are still valid."""
    rules.assert_equal_or_unscored_trials_go_on("resnet18", algorithm, DESCRIBED, status)


def test_random_search_does_not_depend_on_the_history():
    """Interrupted or not, with one worker or four, random search tries the same settings under the same numbers."""
    rules.assert_random_search_ignores_the_history("resnet18", DESCRIBED)


@pytest.mark.parametrize("algorithm", RESNET)
def test_200_finished_trials_take_under_two_seconds(algorithm):
    """A suggestion from a long history is quick (processor time of one thread, the described space)."""
    trials = make_history(DESCRIBED, 200, objective=near_hundredth, running=4)
    sampler = make_sampler("resnet18", algorithm, DESCRIBED, 0)
    started = time.process_time()
    sampler.suggest(204, trials)

    assert time.process_time() - started < 2.0


def test_history_tells_failures_as_the_worst_score():
    """Diverged, failed and unusable results count as the lowest real score, and running ones have none."""
    trials = [
        Trial(number=3, status="running", hyperparameters={"rate": 0.3}, score=0.99),
        Trial(number=2, status="completed", hyperparameters={"rate": 0.2}, score=float("nan")),
        Trial(number=1, status="pruned", hyperparameters={"rate": 0.1}, score=0.4),
        Trial(number=0, status="diverged", hyperparameters={"rate": 0.0}, score=0.9),
        Trial(number=4, status="waiting", hyperparameters={"rate": 0.4}),
        Trial(number=5, status="running", hyperparameters={"rate": 0.5}),
    ]
    history = History.of(Space((Parameter(name="rate", low=0.0, high=1.0, default=0.5),)), 5, trials, [])

    assert (({"rate": 0.0}, 0.4), ({"rate": 0.1}, 0.4), ({"rate": 0.2}, 0.4)) == history.results
    assert ({"rate": 0.3}, {"rate": 0.4}) == history.ongoing


def test_a_pruned_trial_is_told_with_what_others_gained_later():
    """A short training is not mistaken for bad hyperparameters, nor made better than the best full one."""
    curves = [
        ("completed", (0.5, 0.6, 0.9)),
        ("completed", (0.5, 0.7, 0.8)),
        ("pruned", (0.4,)),
        ("pruned", (0.6, 0.7)),
    ]
    trials = [
        Trial(number=i, status=status, hyperparameters={"rate": i / 10}, score=max(scores), scores=scores)
        for i, (status, scores) in enumerate(curves)
    ]
    space = Space((Parameter(name="rate", low=0.0, high=1.0, default=0.5),))
    told = [score for _, score in History.of(space, 9, trials, []).results]

    np.testing.assert_allclose([0.9, 0.8, 0.4 + 0.35, 0.7 + 0.2], told)
    assert 0.4 == History.of(space, 9, trials[2:3], []).results[0][1]


def test_hopeless_scores_do_not_drown_the_differences_between_good_ones():
    """A score far below the median is told as bad, but not as so bad that a model would look at nothing else."""
    scores = (0.87, 0.86, 0.86, 0.85, 0.1)
    trials = [
        Trial(number=i, status="completed", hyperparameters={"rate": i / 10}, score=score, scores=(score,))
        for i, score in enumerate(scores)
    ]
    space = Space((Parameter(name="rate", low=0.0, high=1.0, default=0.5),))
    told = [score for _, score in History.of(space, 9, trials, []).results]

    np.testing.assert_allclose([0.87, 0.86, 0.86, 0.85, 0.84], told)
    alike = [trials[1], trials[2], trials[4]]
    assert [0.86, 0.86, 0.1] == [score for _, score in History.of(space, 9, alike, []).results], "no spread to go by"


@pytest.mark.parametrize("algorithm", RESNET)
def test_every_suggestion_is_what_scikit_optimize_asks_for(algorithm, monkeypatch):
    """After the space's defaults, each suggestion is what the real `Optimizer.ask` returned, by expected improvement."""
    asked, real_ask = [], skopt.Optimizer.ask

    def ask(optimizer, *arguments):
        point = real_ask(optimizer, *arguments)
        asked.append((optimizer.acq_func, len(optimizer.models), from_point(DESCRIBED, point)))
        return point

    monkeypatch.setattr(skopt.Optimizer, "ask", ask)
    sampler, trials, rng = make_sampler("resnet18", algorithm, DESCRIBED, 0), [], np.random.default_rng(0)
    for number in range(14):
        values = sampler.suggest(number, trials)
        score = near_hundredth(values, rng)
        trials.append(
            Trial(number=number, status="completed", hyperparameters=values, score=score, scores=(score / 2, score))
        )

    assert [t.hyperparameters for t in trials[1:]] == [values for *_, values in asked]
    assert {"EI"} == {acquisition for acquisition, *_ in asked}
    models = [num_models for _, num_models, _ in asked]
    assert [0] * 5 == models[:5]
    assert [0 if algorithm == "random" else 1] * 8 == models[5:]


def test_unseen_finds_the_last_setting_of_a_small_space():
    """A space that can be counted is searched to its last setting, one that cannot is drawn from."""
    seen = frozenset(SMALL.key(values) for values in SMALL.enumerate() if values != {"a": "y", "b": 2})

    assert [{"a": "y", "b": 2}] == unseen(SMALL, seen, np.random.default_rng(0), 5)
    assert 5 == len(unseen(DESCRIBED, frozenset(), np.random.default_rng(0), 5))


def test_unknown_approaches_and_algorithms_are_refused():
    """The error names the run parameter and its values."""
    with pytest.raises(
        ParameterError, match="search_mlp_algorithm must be one of noisy-bayesian, bayesian, random; got 'gp'"
    ):
        make_sampler("mlp", "gp", DESCRIBED, 0)
    with pytest.raises(ParameterError, match="approach must be one of mlp, resnet18; got 'vit'"):
        make_sampler("vit", "random", DESCRIBED, 0)


def test_every_algorithm_says_whose_it_is():
    """The report names what ran."""
    assert {name for names in ALGORITHMS.values() for name in names} == set(DESCRIPTIONS)


def test_no_warning_reaches_the_log():
    """Ill-conditioned fits and repeated points are dealt with, not reported to the user."""
    rng = np.random.default_rng(0)
    values = DESCRIBED.sample(rng)
    trials = [Trial(number=i, status="completed", hyperparameters=values, score=0.5) for i in range(10)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for algorithm in RESNET:
            make_sampler("resnet18", algorithm, DESCRIBED, 0).suggest(10, trials)


def test_resnet18_samplers_need_no_tensorflow():
    """A torch worker never loads TensorFlow, nor the other way round: the two abort in one process."""
    code = (
        "import sys; from components.search.samplers.choice import make_sampler; from components.models.space import *;"
        "space = Space((Parameter(name='x', low=0.0, high=1.0, default=0.5),));"
        "make_sampler('resnet18', 'gp', space, 0).suggest(0, []);"
        "assert not {'tensorflow', 'keras', 'torch', 'keras_tuner'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=samplers.__file__.rpartition("/components/")[0])
