"""A worker is killed with -9 at each stage of the protocol, at the first, second and last time it gets there."""

import pytest

from components.search.study.study import Study
from components.stores import open_store
from tests.search import toy
from tests.search.processes import lines, problems, run_worker

TRIALS = 3
SETTINGS = {"trials": TRIALS, "epochs": 3}
STAGES = {
    "start": "W1, before the spec is read",
    "before-claim": "W2, trials listed, none claimed",
    "claim-sent": "W3, claim committed, answer not read",
    "claimed": "W4, claimed, before the first heartbeat",
    "mid-epoch": "W6, in the middle of an epoch",
    "checkpoint-data": "W7, checkpoint uploaded, manifest not",
    "checkpoint-manifest": "W8, manifest written",
    "before-result": "W9, last epoch done, result not posted",
    "result-sent": "W10, result committed, answer not read",
    "after-result": "W11, result acknowledged, nothing claimed",
    "stale": "W12, owner seen dead, trial not taken over",
    "taken-over": "W13, taken over, no work done",
}
ONCE = {"start", "stale", "taken-over"}
"""Stages a worker passes once: successive workers are killed there instead."""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """How often an undisturbed worker passes each stage, and each trial's hyperparameters."""
    directory = tmp_path_factory.mktemp("uninterrupted")
    assert 0 == run_worker(str(directory / "store"), directory / "log", settings=SETTINGS)
    passed = lines(directory / "log" / "passed")[0]
    sampler = toy.RandomSampler("", "", None, 0)
    return passed, {number: sampler.suggest(number, ()) for number in range(TRIALS)}


def kills_of(stage, occurrence, passed):
    """The `FAIL_AT` values of the successive workers that are killed."""
    if stage == "start":
        return [f"{stage}:1"] * {"first": 1, "second": 2, "last": 3}[occurrence]
    if stage in ONCE:
        last = passed["mid-epoch"]
        return [f"mid-epoch:{ {'first': 1, 'second': 2, 'last': last}[occurrence] }", f"{stage}:1"]
    return [f"{stage}:{ {'first': 1, 'second': 2, 'last': passed[stage]}[occurrence] }"]


@pytest.mark.parametrize("kind", ["local", "gcs", pytest.param("s3", marks=pytest.mark.slow)])
@pytest.mark.parametrize("occurrence", ["first", "second", "last"])
@pytest.mark.parametrize("stage", STAGES)
def test_killed_worker_loses_nothing_finished(stage, occurrence, kind, make_place, uninterrupted, tmp_path):
    """Whatever was acknowledged stays, at most the running trial is repeated, and the study becomes the same."""
    passed, expected = uninterrupted
    place, log = make_place(kind), tmp_path / "log"
    # On the directory successors see at once that the process is gone; on the servers they wait for the heartbeat.
    options = {"settings": SETTINGS, "knows_processes": kind == "local"}
    kills = kills_of(stage, occurrence, passed)
    for fail_at in kills:
        environment = {**place.environment, "FAIL_AT": fail_at}
        assert -9 == run_worker(place.uri, log, environment=environment, **options), fail_at

    assert 0 == run_worker(place.uri, log, environment=place.environment, **options)
    place.collect()
    assert [] == problems(place.objects(), log, trials=TRIALS, kills=len(kills), expected=expected)


REAL = {"settings": {"trials": 8, "epochs": 2}, "algorithm": "gp"}
"""Long enough for scikit-optimize's model to suggest the last two trials."""


@pytest.fixture(scope="module")
def uninterrupted_search(tmp_path_factory):
    """The same of an undisturbed worker that searches with scikit-optimize."""
    directory = tmp_path_factory.mktemp("search")
    assert 0 == run_worker(str(directory / "store"), directory / "log", **REAL)
    trials = Study.open(open_store(str(directory / "store")), "toy").ledger().trials
    return lines(directory / "log" / "passed")[0], {t.number: t.hyperparameters for t in trials}


@pytest.mark.parametrize("stage", STAGES)
def test_killed_search_suggests_what_an_uninterrupted_one_does(stage, make_place, uninterrupted_search, tmp_path):
    """A suggestion of the real model is made anew from what the study holds, and is the same as without the kill."""
    passed, expected = uninterrupted_search
    place, log = make_place("local"), tmp_path / "log"
    kills = kills_of(stage, "last", passed)
    for fail_at in kills:
        assert -9 == run_worker(place.uri, log, environment={"FAIL_AT": fail_at}, **REAL), fail_at

    assert 0 == run_worker(place.uri, log, **REAL)
    place.collect()
    assert [] == problems(place.objects(), log, trials=8, kills=len(kills), expected=expected)
