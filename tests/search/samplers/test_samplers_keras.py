import time
import warnings
from collections import Counter

import keras_tuner
import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor

from components.models.space import Parameter, Space
from components.search.samplers.base import History
from components.search.samplers.choice import ALGORITHMS, make_sampler
from components.search.samplers.keras import KerasSampler, from_hyperparameters, to_hyperparameters
from components.search.samplers.noisy_bayesian import NoisyBayesianOracle, fit_completed
from components.search.tables import unit_matrix
from components.search.trial import Trial
from tests.search.samplers import rules
from tests.search.samplers.rules import MIXED, SMALL, make_history, near_hundredth

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
MLP = ALGORITHMS["mlp"]


@pytest.mark.parametrize("algorithm", MLP)
@pytest.mark.parametrize("space", [DESCRIBED, MIXED, SMALL], ids=["described", "mixed", "small"])
def test_suggestions_fit_the_space_and_are_repeatable(algorithm, space, tmp_path, monkeypatch):
    """A suggestion is valid, new, the same for the same arguments, and leaves no file behind."""
    monkeypatch.chdir(tmp_path)
    # `bayesian` repeats itself where Keras Tuner does.
    rules.assert_suggestions_fit("mlp", algorithm, space, may_repeat=algorithm == "bayesian")
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("algorithm", MLP)
def test_the_defaults_come_first_and_first_guesses_before_them(algorithm):
    """Warm start's guesses, then the defaults (not with the oracle as published), then the oracle's own ideas."""
    sampler = make_sampler("mlp", algorithm, DESCRIBED, 0, first_guesses=({**DESCRIBED.defaults, "rate": 0.02},))

    assert {**DESCRIBED.defaults, "rate": 0.02} == sampler.suggest(0, [])
    assert (algorithm != "bayesian") == (DESCRIBED.defaults == sampler.suggest(1, []))
    tried = [Trial(number=n, status="running", hyperparameters=sampler.suggest(n, [])) for n in range(2)]
    assert DESCRIBED.defaults != sampler.suggest(2, tried)


def test_noisy_bayesian_learns_where_it_is_good():
    """From forty noisy results, the median suggestion lies nearer to the best rate than random ones do."""
    assert rules.median_distance("mlp", "noisy-bayesian", DESCRIBED) < 0.4  # of random ones it is 0.75


@pytest.mark.parametrize("algorithm", MLP)
def test_every_suggestion_is_what_keras_tuners_oracle_populates(algorithm, monkeypatch):
    """Each suggestion, the first included, is what `populate_space` of the named class returned, as that class has it."""
    kinds = {
        "noisy-bayesian": NoisyBayesianOracle,
        "bayesian": keras_tuner.oracles.BayesianOptimizationOracle,
        "random": keras_tuner.oracles.RandomSearchOracle,
    }
    populated, real = [], kinds[algorithm].populate_space

    def populate_space(oracle, trial_id):
        response = real(oracle, trial_id)
        populated.append((type(oracle), from_hyperparameters(DESCRIBED, response["values"])))
        return response

    monkeypatch.setattr(kinds[algorithm], "populate_space", populate_space)
    sampler, trials, rng = make_sampler("mlp", algorithm, DESCRIBED, 0), [], np.random.default_rng(0)
    for number in range(24):
        values = sampler.suggest(number, trials)
        score = near_hundredth(values, rng)
        status = {7: "diverged", 9: "failed", 11: "pruned", 23: "running"}.get(number, "completed")
        scores = () if status in ("diverged", "failed") else (score / 2, score)
        trials.append(
            Trial(number=number, status=status, hyperparameters=values, score=max(scores, default=None), scores=scores)
        )

    expected = [t.hyperparameters for t in trials]
    assert (expected if algorithm == "bayesian" else expected[1:]) == [values for _, values in populated]
    assert {kinds[algorithm]} == {kind for kind, _ in populated}


def test_the_oracle_as_published_is_not_adjusted(monkeypatch):
    """It runs with Keras Tuner's own settings, and failed trials are failed ones to it."""
    made, real = [], keras_tuner.oracles.BayesianOptimizationOracle.populate_space
    monkeypatch.setattr(
        keras_tuner.oracles.BayesianOptimizationOracle,
        "populate_space",
        lambda oracle, trial_id: made.append(oracle) or real(oracle, trial_id),
    )
    trials = make_history(DESCRIBED, 24, objective=near_hundredth)
    make_sampler("mlp", "bayesian", DESCRIBED, 0).suggest(24, trials)
    (oracle,) = made

    assert keras_tuner.oracles.BayesianOptimizationOracle is type(oracle)
    assert (None, 1e-4, 2.6) == (oracle.num_initial_points, oracle.alpha, oracle.beta)
    assert (GaussianProcessRegressor, 18) == (type(oracle.gpr), len(oracle.gpr.X_train_))
    assert {"COMPLETED": 18, "FAILED": 6} == dict(Counter(t.status for t in oracle.trials.values()))


def test_keras_tuners_own_loop_can_use_our_oracle(tmp_path):
    """`NoisyBayesianOracle` extends Keras Tuner the way Keras Tuner wants it: its `search` begins with the defaults and learns."""

    class Tuner(keras_tuner.Tuner):
        def run_trial(self, trial, *_args, **_kwargs):
            values = from_hyperparameters(DESCRIBED, trial.hyperparameters.values)
            tried.append(values)
            return {"score": near_hundredth(values, rng)}

    tried, rng = [], np.random.default_rng(0)
    oracle = NoisyBayesianOracle(
        objective=keras_tuner.Objective("score", "max"),
        hyperparameters=to_hyperparameters(DESCRIBED),
        max_trials=25,
        seed=1,
    )
    with warnings.catch_warnings():
        # Its locks ask threads for their names in a way that Python deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        Tuner(oracle=oracle, directory=tmp_path).search(verbose=0)

    assert (25, DESCRIBED.defaults) == (len(tried), tried[0])
    assert np.median([abs(np.log10(values["rate"]) + 2) for values in tried[-10:]]) < 0.5


@pytest.mark.parametrize("kind", [NoisyBayesianOracle, keras_tuner.oracles.BayesianOptimizationOracle])
def test_ongoing_trials_are_hallucinated_by_the_oracle(kind):
    """Ongoing trials enter the oracle's model with its own pessimistic estimate, not with a made-up score."""
    trials = make_history(DESCRIBED, 12, objective=near_hundredth, running=3)
    history = History.of(DESCRIBED, 15, trials, [])
    oracle = kind(
        objective=keras_tuner.Objective("score", "max"), hyperparameters=to_hyperparameters(DESCRIBED), seed=1
    )
    KerasSampler("noisy-bayesian", DESCRIBED, 0)._tell(oracle, history)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit_completed(oracle)
    points, losses = oracle._vectorize_trials()
    mean, deviation = oracle.gpr.predict(points[12:], return_std=True)

    assert (15, 6) == points.shape
    np.testing.assert_allclose([-score for _, score in history.results], losses[:12])
    np.testing.assert_allclose(mean + deviation, losses[12:])


def test_a_model_does_not_repeat_itself_with_a_hair_of_difference():
    """What the model proposes next to a tried setting would only measure the noise: something apart is tried."""
    trials = make_history(DESCRIBED, 20, objective=near_hundredth)
    sampler = make_sampler("mlp", "noisy-bayesian", DESCRIBED, 0)
    proposed = sampler.suggest(21, trials)
    nudged = {**proposed, "rate": DESCRIBED.parameters[4].conform(proposed["rate"] * 1.001)}
    again = sampler.suggest(21, [*trials, Trial(number=20, status="running", hyperparameters=nudged)])
    distance = np.abs(np.diff(np.nan_to_num(unit_matrix(DESCRIBED, [nudged, again])), axis=0)).max()

    assert distance > 0.02


def test_running_trials_keep_the_next_ones_away():
    """Workers that ask one after another, without results in between, get different suggestions."""
    rules.assert_running_trials_keep_away("mlp", "noisy-bayesian", DESCRIBED, 20)


@pytest.mark.parametrize("algorithm", ["noisy-bayesian", "random"])
def test_a_small_space_is_exhausted_before_anything_repeats(algorithm):
    """Six settings exist: six trials are all different, and a seventh still gets a valid one."""
    rules.assert_a_small_space_is_exhausted("mlp", algorithm)


@pytest.mark.parametrize("algorithm", MLP)
@pytest.mark.parametrize("status", ["diverged", "failed", "completed"])
def test_a_study_of_equal_or_unscored_trials_goes_on(algorithm, status):
    """Where no trial differs from another, or none has a score, suggestions are still valid."""
    rules.assert_equal_or_unscored_trials_go_on("mlp", algorithm, DESCRIBED, status)


def test_random_search_does_not_depend_on_the_history():
    """Interrupted or not, with one worker or four, random search tries the same settings under the same numbers."""
    rules.assert_random_search_ignores_the_history("mlp", DESCRIBED)


@pytest.mark.parametrize(("algorithm", "limit"), [("noisy-bayesian", 2.0), ("random", 2.0), ("bayesian", 8.0)])
def test_200_finished_trials_are_quick(algorithm, limit):
    """A suggestion from a long history takes under two seconds; Keras Tuner's own climbs take 2 s by themselves.

    Processor time of one thread, the described space.
    """
    trials = make_history(DESCRIBED, 200, objective=near_hundredth, running=4)
    sampler = make_sampler("mlp", algorithm, DESCRIBED, 0)
    started = time.process_time()
    sampler.suggest(204, trials)

    assert time.process_time() - started < limit
