"""Processes behind a barrier want the same thing: exactly one gets it."""

import dataclasses
import os

import numpy as np
import pytest

from components.search.samplers.choice import make_sampler
from components.search.study import study as study_module
from components.search.study.objects import claim_key, encode, params_key, result_key
from components.search.study.spec import StudySpec
from components.search.study.study import Study
from components.search.trial import Trial
from components.stores import open_store
from tests.search import processes, toy

SPEC = StudySpec(
    approach="mlp",
    dataset="toy",
    data_hash="0",
    space=toy.SPACE.to_json(),
    algorithm="random",
    trials=9999,
    minutes=9999,
    epochs=1,
)
PARAMS = {"hyperparameters": {"x": 0.5, "kind": "a"}, "seed": 0, "based_on": [], "reused_from": "", "worker": "w"}


def open_toy(uri):
    return Study.create_or_open(open_store(uri), "toy", SPEC, timing=toy.QUICK)


def race(place, num_racers, rounds, act):
    """Let processes call `act(study, number, racer)` for each number at one moment; return the answers of each round."""
    context = processes._context
    barrier, answers = context.Barrier(num_racers), context.SimpleQueue()
    racers = [
        context.Process(target=_race, args=(place.uri, place.environment, barrier, answers, racer, rounds, act))
        for racer in range(num_racers)
    ]
    for process in racers:
        process.start()
    table = dict(answers.get() for _ in racers)
    for process in racers:
        process.join(60)
        assert 0 == process.exitcode
    return [[table[racer][number] for racer in range(num_racers)] for number in range(rounds)]


def _race(uri, environment, barrier, answers, racer, rounds, act):
    os.environ.update(environment)
    study = open_toy(uri)
    study.refresh()
    found = []
    for number in range(rounds):
        barrier.wait(60)
        found.append(act(study, number, racer))
    answers.put((racer, found))


def claim(study, number, racer):
    """Claim the next term of a trial as the study itself does; return whether it was won."""
    return study._claim(study._records.trials[number], f"w{racer}") is not None


def create(study, number, racer):
    """Create an object of the round's name."""
    return study.store.create(f"names/{number}", b"%d" % racer)


def finish(study, number, racer):
    """Post a result; return the worker whose result was accepted."""
    trial = Trial(
        number=number, status="completed", hyperparameters=PARAMS["hyperparameters"], score=0.5, worker=f"w{racer}"
    )
    return study.finish(trial).worker


def with_trials(place, monkeypatch, count, claimed=False):
    """A study with trials that nobody works on, or whose owner is gone."""
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    study = open_toy(place.uri)
    for number in range(count):
        place.put(params_key(number), encode(PARAMS))
        if claimed:
            place.put(claim_key(number, 1), encode({"worker": "gone", "process": {}, "deaths": 0}))
    return study


ROUNDS = [("local", 500), ("gcs", 500)]


@pytest.mark.parametrize(("kind", "rounds"), ROUNDS)
def test_two_claim_one_trial(make_place, monkeypatch, kind, rounds):
    """In each of 500 rounds exactly one of two processes gets the claim, and its name is in it."""
    place = make_place(kind)
    study = with_trials(place, monkeypatch, rounds)
    outcome = race(place, 2, rounds, claim)

    assert [1] * rounds == [sum(won) for won in outcome]
    study.refresh()
    owners = [study._records.trials[number].claim["worker"] for number in range(rounds)]
    assert [f"w{won.index(True)}" for won in outcome] == owners


SLOW = pytest.mark.slow


@pytest.mark.parametrize(("kind", "rounds"), [("local", 200), ("gcs", 50), pytest.param("gcs", 200, marks=SLOW)])
def test_two_take_over_one_trial(make_place, monkeypatch, kind, rounds):
    """Two observers of a dead owner make exactly one next term, and never one after it."""
    place = make_place(kind)
    study = with_trials(place, monkeypatch, rounds, claimed=True)
    outcome = race(place, 2, rounds, claim)

    assert [1] * rounds == [sum(won) for won in outcome]
    study.refresh()
    assert {2} == {study._records.trials[number].term for number in range(rounds)}


@pytest.mark.parametrize(("kind", "rounds"), [("local", 100), ("gcs", 25), pytest.param("gcs", 100, marks=SLOW)])
def test_two_finish_one_trial(make_place, monkeypatch, kind, rounds):
    """A zombie and its successor post at one moment: one result stays and both learn which."""
    place = make_place(kind)
    study = with_trials(place, monkeypatch, rounds)
    outcome = race(place, 2, rounds, finish)
    study.refresh()

    for number, (first, second) in enumerate(outcome):
        assert first == second == study._records.trials[number].result.worker


def suggest_and_claim(study, number, racer):  # noqa: ARG001
    """Let scikit-optimize suggest a new trial and claim it; return its number and what it tries."""
    sampler = make_sampler("resnet18", "gp", toy.SPACE, 0)
    study_module.is_gone = lambda identity: False  # noqa: ARG005 - a racer that is through is not dead
    study = Study.open(open_store(study.store.uri.removesuffix("/toy")), "toy")
    won = study.claim_next(f"w{racer}", lambda n, ledger: (sampler.suggest(n, ledger.trials), ""))
    return won.number, won.hyperparameters


def test_three_suggest_at_one_moment(make_place, monkeypatch):
    """Real models that meet on one number take one trial each, none of them twice and none with two settings."""
    place = make_place("local")
    study, rng = with_trials(place, monkeypatch, 8), np.random.default_rng(0)
    study.refresh()
    for number in range(8):
        values = toy.SPACE.sample(rng)
        place.put(params_key(number), encode(PARAMS | {"hyperparameters": values}))
        trial = Trial(
            number=number, status="completed", hyperparameters=values, score=values["x"], scores=(values["x"],)
        )
        place.put(result_key(number), encode(dataclasses.asdict(trial)))
    outcome = race(place, 3, 6, suggest_and_claim)
    taken = [claimed for won in outcome for claimed in won]

    assert list(range(8, 26)) == sorted(number for number, _ in taken)
    study = open_toy(place.uri)
    study.refresh()
    assert all(values == study._records.trials[number].params["hyperparameters"] for number, values in taken)
    assert 18 == len({toy.SPACE.key(values) for _, values in taken})


def test_eight_create_two_hundred_names(make_place):
    """On a directory, each name has exactly one of eight creators."""
    place = make_place("local")

    assert [1] * 200 == [sum(won) for won in race(place, 8, 200, create)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", "gcs", "s3"])
def test_thirty_two_claim_fifty_trials(make_place, monkeypatch, kind):
    """32 processes on 50 trials: one owner each."""
    place = make_place(kind)
    with_trials(place, monkeypatch, 50)

    assert [1] * 50 == [sum(won) for won in race(place, 32, 50, claim)]


@pytest.mark.slow
def test_two_claim_one_trial_on_s3(make_place, monkeypatch):
    """The 500 rounds on the S3 server."""
    place = make_place("s3")
    with_trials(place, monkeypatch, 500)

    assert [1] * 500 == [sum(won) for won in race(place, 2, 500, claim)]


def test_suites_race_shows_a_store_that_overwrites(make_place, monkeypatch):
    """The same race on a store that ignores preconditions has rounds with two winners."""
    place = make_place("gcs")
    monkeypatch.setattr(place.server, "ignore_preconditions", True)
    with_trials(place, monkeypatch, 20)

    assert 2 in [sum(won) for won in race(place, 2, 20, claim)]


def test_study_submitted_twice_is_one_study(make_place):
    """Of two processes that create the study at one moment, one does; with another spec it would be refused."""
    place = make_place("local")
    open_toy(place.uri)
    spec = (place.objects())["spec.json"]

    assert [[True, True]] == race(place, 2, 1, _open_again)
    assert spec == place.objects()["spec.json"]


def _open_again(study, number, racer):  # noqa: ARG001
    root = open_store(study.store.uri.removesuffix("/toy"))
    return Study.create_or_open(root, "toy", dataclasses.replace(SPEC)).spec == study.spec
