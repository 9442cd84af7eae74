import json

import numpy as np
import pytest

from components.models.space import Parameter, Space
from components.search.study.study import Study, StudySpec
from components.search.trial import Trial
from components.search.warm_start import MAX_GUESSES, MAX_REUSED, find_reusable
from components.stores import open_store

SPACE = Space(
    (
        Parameter(name="optimizer", choices=("SGD", "Adam"), default="Adam"),
        Parameter(name="momentum", low=0.1, high=0.9, default=0.9),
        Parameter(name="rate", low=1e-4, high=1e-1, log=True, default=1e-3),
    )
)
OTHER_SPACE = Space((Parameter(name="rate", low=1e-4, high=1e-2, log=True, default=1e-3), SPACE.parameters[0]))


@pytest.fixture
def root(tmp_path):
    """An empty study root."""
    return open_store(str(tmp_path))


def spec_of(**changed):
    """The spec of a study on shoes."""
    values = {
        "approach": "mlp",
        "dataset": "shoes",
        "data_hash": "this",
        "space": SPACE,
        "algorithm": "random",
        "trials": 200,
        "minutes": 60.0,
        "epochs": 20,
        "max_failed_fraction": 1.0,
    } | changed
    return StudySpec(**values | {"space": values["space"].to_json()})


def add_study(root, name, results, **changed):
    """A study whose trials had these (hyperparameters, status, score)."""
    study = Study.create_or_open(root, name, spec_of(**changed))
    for values, status, score in results:
        claim = study.claim_next("worker-0", lambda *_, values=values: (values, ""))
        trial = Trial(number=claim.number, status=status, hyperparameters=values, score=score, device_seconds=1.0)
        study.anticipate(trial)
        study.finish(trial)
    return study


def find(root, **changed):
    return find_reusable(root, spec_of(**changed).to_json(), exclude="new")


def test_nothing_to_reuse_is_no_problem(root):
    """An empty root, or one with only the new study itself, gives nothing."""
    assert ((), ()) == (find(root).trials, find(root).first_guesses)
    add_study(root, "new", [({"optimizer": "Adam", "rate": 0.1}, "completed", 0.9)])
    assert ((), ()) == (find(root).trials, find(root).first_guesses)


def test_the_same_data_and_space_are_told_again(root):
    """Completed, pruned and diverged trials count as known; failures say nothing; the best is tried again first."""
    add_study(
        root,
        "last-week",
        [
            ({"optimizer": "Adam", "rate": 0.001}, "completed", 0.8),
            ({"optimizer": "Adam", "rate": 0.002}, "pruned", 0.9),
            ({"optimizer": "Adam", "rate": 0.1}, "diverged", None),
            ({"optimizer": "SGD", "momentum": 0.5, "rate": 0.01}, "failed", None),
        ],
    )
    found = find(root)

    assert [("last-week/1", 0.9), ("last-week/0", 0.8), ("last-week/2", None)] == [
        (t.reused_from, t.score) for t in found.trials
    ]
    assert ({"optimizer": "Adam", "momentum": 0.9, "rate": 0.002},) == found.first_guesses
    assert ("last-week/1",) == found.origins


def test_other_data_only_seeds_the_first_suggestions(root):
    """With another dataset hash no score is believed; each study's best is tried first, the better one earlier."""
    add_study(root, "january", [({"optimizer": "Adam", "rate": 0.002}, "completed", 0.8)], data_hash="old")
    add_study(
        root,
        "february",
        [
            ({"optimizer": "Adam", "rate": 0.05}, "completed", 0.5),
            ({"optimizer": "SGD", "momentum": 0.5, "rate": 0.01}, "completed", 0.9),
        ],
        data_hash="older",
    )
    found = find(root)

    assert () == found.trials
    assert (
        {"optimizer": "SGD", "momentum": 0.5, "rate": 0.01},
        {"optimizer": "Adam", "momentum": 0.9, "rate": 0.002},
    ) == found.first_guesses
    assert ("february/1", "january/0") == found.origins


def test_another_space_seeds_what_fits(root):
    """Best values of another space are moved into this one; what does not exist there takes its default."""
    add_study(root, "narrow", [({"rate": 0.01, "optimizer": "Adam"}, "completed", 0.9)], space=OTHER_SPACE)

    assert ({"optimizer": "Adam", "momentum": 0.9, "rate": 0.01},) == find(root).first_guesses
    wide = Space(
        (Parameter(name="rate", low=0.02, high=0.5, default=0.1), Parameter(name="k", low=1, high=3, default=2))
    )
    assert ({"rate": 0.02, "k": 2},) == find(root, space=wide).first_guesses


@pytest.mark.parametrize("changed", [{"epochs": 5}, {"weights": "w"}, {"device": "gpu"}, {"batch_size": 64}], ids=str)
def test_scores_that_mean_something_else_only_seed(root, changed):
    """What a CPU reached in five epochs with another batch is no evidence for a GPU with twenty."""
    add_study(root, "other", [({"optimizer": "Adam", "rate": 0.01}, "completed", 0.9)], **changed)

    assert (1, 1) == (len(find(root, **changed).trials), len(find(root, **changed).first_guesses))
    assert (0, 1) == (len(find(root).trials), len(find(root).first_guesses))


def test_a_study_of_the_first_schema_only_seeds(root):
    """It does not say on which device its scores came about."""
    study = add_study(root, "old", [({"optimizer": "Adam", "rate": 0.01}, "completed", 0.9)])
    spec = {k: v for k, v in study.spec.items() if k not in ("device", "batch_size")} | {"schema": 1, "nonce": "n"}
    study.store.write("spec.json", json.dumps(spec).encode())

    assert (0, 1) == (len(find(root).trials), len(find(root).first_guesses))


@pytest.mark.parametrize("changed", [{"approach": "resnet18"}, {"dataset": "bags"}])
def test_other_approaches_and_datasets_are_left_alone(root, changed):
    """Nothing is taken over from another approach or another dataset."""
    add_study(root, "other", [({"optimizer": "Adam", "rate": 0.01}, "completed", 0.9)], **changed)

    assert ((), ()) == (find(root).trials, find(root).first_guesses)


def test_equal_bests_are_one_seed_and_seeds_are_few(root):
    """The same setting is not tried twice, and no more than a few trials are spent on the past."""
    for number in range(6):
        values = {"optimizer": "Adam", "rate": 0.01 * max(number, 1)}
        add_study(root, f"study-{number}", [(values, "completed", 0.9 - 0.01 * number)], data_hash=f"old-{number}")
    found = find(root)

    assert [0.01, 0.02, 0.03] == [values["rate"] for values in found.first_guesses]
    assert MAX_GUESSES == len(found.origins)


def test_long_histories_are_thinned(root):
    """Many trials are cut to a fixed number that still holds the best and some of the worst."""
    rng = np.random.default_rng(0)
    results = [(SPACE.sample(rng), "completed", float(score)) for score in rng.permutation(150) / 150]
    add_study(root, "long", results)
    scores = [t.score for t in find(root).trials]

    assert MAX_REUSED == len(scores)
    assert 149 / 150 == scores[0]
    assert min(scores) < 0.05


def test_an_unreadable_study_is_skipped(root, caplog):
    """Garbage beside the studies costs a warning, not the run."""
    add_study(root, "good", [({"optimizer": "Adam", "rate": 0.01}, "completed", 0.9)])
    root.create("torn/spec.json", b"{")
    spec = {"schema": 9, "approach": "mlp", "dataset": "shoes", "space": [{"name": "rate"}]}
    root.create("future/spec.json", json.dumps(spec).encode())
    root.create("champions/shoes/1.json", b"{}")

    assert ["good/0"] == [t.reused_from for t in find(root).trials]
    assert {"torn", "future"} == {record.args[0] for record in caplog.records}


def test_what_was_found_is_json(root):
    """The study keeps it as an object, so that every worker begins with the same."""
    add_study(root, "last-week", [({"optimizer": "Adam", "rate": 0.01}, "completed", 0.9)])
    values = json.loads(json.dumps(find(root).to_json()))

    assert (["last-week/0"], [{"optimizer": "Adam", "momentum": 0.9, "rate": 0.01}]) == (
        values["origins"],
        values["seeds"],
    )
    assert "last-week/0" == values["told"][0]["reused_from"]
