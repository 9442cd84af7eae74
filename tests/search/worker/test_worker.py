"""A worker alone: what it records, when it stops, and what it leaves for the next one."""

import json
import logging
import math
import time

import pytest

from components.errors import ParameterError, StorageError
from components.search.study.checkpoints import Checkpoints
from components.search.study.study import Study
from components.search.worker.worker import run_worker
from components.stores import open_store
from tests.search import toy


@pytest.fixture(params=["toy", "gp"])
def algorithm(request):
    """The sampler that the toy is searched with: a toy as well, and scikit-optimize."""
    return request.param


@pytest.fixture(autouse=True)
def toy_parts(monkeypatch, algorithm):
    """Use that sampler; no faults unless a test plans them."""
    toy.use(monkeypatch, algorithm)


@pytest.fixture
def run(tmp_path):
    """Runs a worker on a study of the directory; changes to the settings as keywords."""

    def run(name="toy", data_hash="0" * 64, approach=toy.APPROACH, timing=toy.QUICK, **changes):
        return run_worker(
            study_root=str(tmp_path / "root"),
            name=name,
            approach=approach,
            train_data=toy.train_data(data_hash),
            settings=toy.settings(**changes),
            worker="w0",
            timing=timing,
        )

    return run


def test_every_trial_is_trained_once(run):
    """Trials are numbered from 0 without gaps, and each has the score of its best epoch."""
    ledger = run(trials=4)

    assert [0, 1, 2, 3] == [t.number for t in ledger.trials]
    assert ["completed"] * 4 == [t.status for t in ledger.trials]
    assert [(n, 1) for n in range(4)] == toy.ToyTrainer.fits
    for trial in ledger.trials:
        expected = tuple(toy.score(trial.hyperparameters, epoch) for epoch in (1, 2, 3))
        assert expected == trial.scores
        assert max(expected) == trial.score
        assert 1000 == trial.peak_memory_bytes


def test_suggestions_say_what_they_are_based_on(run):
    """Each trial lists the finished trials that its suggestion could use."""
    ledger = run(trials=4)

    assert [(), (0,), (0, 1), (0, 1, 2)] == [t.based_on for t in ledger.trials]


def test_finished_study_returns_at_once(run):
    """Where nothing is left to do, no trainer is made and no trial is touched."""
    before = run()

    class Forbidden(toy.ToyTrainer):
        def __init__(self, *arguments, **options):  # noqa: ARG002
            raise AssertionError("no trainer must be made")

    after = run(approach=changed(toy.APPROACH, Trainer=Forbidden))

    assert before.trials == after.trials


def changed(namespace, **changes):
    """A copy of the toy approach with other parts."""
    return type(namespace)(**{**vars(namespace), **changes})


@pytest.mark.parametrize(
    ("fault", "status", "error"),
    [
        ("diverge", "diverged", "loss became nan"),
        ("oom", "failed", "out of memory: device is full"),
        ("bug", "failed", "ValueError: shapes do not fit"),
    ],
)
def test_failure_of_a_trial_is_recorded_and_the_study_goes_on(run, fault, status, error):
    """A trial that goes wrong says why, has no score, is never best, and costs nobody else anything."""
    toy.ToyTrainer.faults[1] = fault
    ledger = run()

    assert status == ledger.trials[1].status
    assert error in ledger.trials[1].error
    assert ledger.trials[1].score is None
    assert 4 == ledger.count("completed")
    assert 1 != ledger.best().number


def test_nan_score_is_divergence(run):
    """A score that is no number ends the trial within the epoch and is not written down."""

    class Exploding(toy.ToyTrainer):
        def fit(self, hyperparameters, *, on_epoch, **others):  # noqa: ARG002
            on_epoch(1, 0.5, dict)
            on_epoch(2, math.nan, dict)

    ledger = run(approach=changed(toy.APPROACH, Trainer=Exploding), trials=1)

    assert "diverged" == ledger.trials[0].status
    assert (0.5,) == ledger.trials[0].scores


def test_only_diverged_trials_leave_no_best(run):
    """A study in which everything diverged is finished and has no usable trial."""
    toy.ToyTrainer.faults.update(dict.fromkeys(range(5), "diverge"))
    ledger = run()

    assert 5 == ledger.count("diverged")
    assert ledger.best() is None


def test_too_many_failures_stop_the_study(run, tmp_path):
    """More than 30 % failed trials end the search early, for every worker."""
    toy.ToyTrainer.faults.update(dict.fromkeys(range(10), "bug"))
    ledger = run(trials=10)

    assert 4 == len(ledger.trials)
    assert 4 == ledger.count("failed")
    study = Study.open(open_store(str(tmp_path / "root")), "toy")
    assert study.is_finished()
    assert study.is_stopped()


def test_pruned_trial_keeps_what_it_reached(run):
    """With pruning on, a weak trial ends at a rung with the score it had."""
    ledger = run(trials=8, epochs=9, pruning=True)
    pruned = [t for t in ledger.trials if t.status == "pruned"]

    assert pruned
    for trial in pruned:
        assert trial.epochs in (1, 3)
        assert max(trial.scores) == trial.score
    assert all(t.status == "completed" for t in run("unpruned", trials=8, epochs=9).trials)


def test_minutes_end_the_study(run, monkeypatch):
    """No trial is started once the device-minutes are used up."""
    monkeypatch.setattr(toy.ToyTrainer, "epoch_seconds", 0.02)
    ledger = run(trials=50, minutes=0.2 / 60)

    assert 0.2 <= ledger.device_seconds
    assert ledger.device_seconds - ledger.trials[-1].device_seconds < 0.2
    assert all(t.is_finished for t in ledger.trials)


def test_minutes_end_a_running_trial_at_its_epoch(run, tmp_path, monkeypatch):
    """The trial that is running ends as pruned with the score it reached, and its checkpoint stays."""
    monkeypatch.setattr(toy.ToyTrainer, "epoch_seconds", 0.1)
    ledger = run(trials=50, epochs=100, minutes=0.35 / 60)

    assert ["pruned"] == [t.status for t in ledger.trials]
    assert ledger.trials[0].out_of_budget
    assert ledger.trials[0].score == max(ledger.trials[0].scores)
    assert 0.35 <= ledger.device_seconds < 2, "an epoch more, not the ten seconds of the trial"
    study = Study.open(open_store(str(tmp_path / "root")), "toy")
    assert ledger.trials[0].epochs in {int(key.split("/")[-2][-6:]) for key in study.store.list("trials/00000/checkp")}


def test_a_trial_that_outlived_its_budget_is_not_trained_on(run):
    """Whoever takes it over posts what it had reached."""

    def break_store(epoch):
        if epoch == 5:
            time.sleep(2)
            raise StorageError("store must work; got nothing. Mend it")

    toy.ToyTrainer.faults[0] = break_store
    with pytest.raises(StorageError):
        run(trials=1, epochs=100, minutes=1.5 / 60)
    ledger = run(trials=1, epochs=100, minutes=1.5 / 60)

    assert [(0, 1)] == toy.ToyTrainer.fits
    assert ("pruned", 4, True) == (ledger.trials[0].status, ledger.trials[0].epochs, ledger.trials[0].out_of_budget)


def test_other_spec_is_refused(run):
    """A name that holds another study is refused, with the fields that differ."""
    run(trials=1)

    with pytest.raises(ParameterError, match=r"data_hash was .* and is .*, seed was 0 and is 7") as caught:
        run(trials=1, seed=7, data_hash="f" * 64)
    assert 64 == caught.value.exit_code


def test_device_and_batch_belong_to_the_study(run, tmp_path):
    """A study says on which device and with which batch it trains, and is not continued with another."""
    run(trials=1)
    spec = json.loads((tmp_path / "root" / "toy" / "spec.json").read_text())

    assert (2, "cpu", 16) == (spec["schema"], spec["device"], spec["batch_size"])
    with pytest.raises(ParameterError, match='device was "cpu" and is "gpu"'):
        run(trials=1, approach=changed(toy.APPROACH, has_gpu=lambda: True))
    with pytest.raises(ParameterError, match="batch_size was 16 and is 8"):
        run(trials=1, approach=changed(toy.APPROACH, LARGEST_BATCH=8))


def test_a_study_of_the_first_schema_is_refused_by_name(run, tmp_path):
    """It is not continued with settings that it does not record; the error says what to do."""
    run(trials=1)
    path = tmp_path / "root" / "toy" / "spec.json"
    spec = json.loads(path.read_text())
    del spec["device"], spec["batch_size"]
    path.write_text(json.dumps(spec | {"schema": 1}))

    with pytest.raises(ParameterError, match=r"toy must have schema 2 to go on; got 1.* Start a new study") as caught:
        run(trials=1)
    assert 64 == caught.value.exit_code
    assert 1 == len(Study.open(open_store(str(tmp_path / "root")), "toy").ledger().trials)


def test_warm_start_retells_equal_studies(run):
    """Trials on the same data count for the sampler but not for the budget, and the study says which they are."""
    before = run("monday", trials=3)
    ledger = run("tuesday", trials=2, warm_start=True)

    assert 2 == len(ledger.trials)
    assert {f"monday/{n}" for n in range(3)} == {t.reused_from for t in ledger.reused}
    assert before.best().hyperparameters == ledger.trials[0].hyperparameters
    assert f"monday/{before.best().number}" == ledger.trials[0].reused_from


def test_warm_start_is_the_same_for_a_resumed_worker(run, tmp_path):
    """What the first worker found is kept, whatever appears later."""
    run("monday", trials=1)
    run("tuesday", trials=1, warm_start=True)
    reused = json.loads((tmp_path / "root/tuesday/reused.json").read_text())
    run("wednesday", trials=1)
    run("tuesday", trials=1, warm_start=True)

    assert reused == json.loads((tmp_path / "root/tuesday/reused.json").read_text())
    assert ["monday/0"] == reused["origins"]


def test_trials_without_a_score_stop_neither_this_study_nor_the_next(run):
    """Trials that went wrong before their first epoch are told to the sampler, and by warm start to the next study's."""
    toy.ToyTrainer.faults.update({1: "diverge", 2: "oom", 4: "diverge"})
    before = run("monday", trials=10)
    ledger = run("tuesday", trials=4, warm_start=True)

    assert (7, 2, 1) == tuple(before.count(status) for status in ("completed", "diverged", "failed"))
    assert 9 == len(ledger.reused)
    assert () in {t.scores for t in ledger.reused}
    assert ["completed", "diverged", "failed", "completed"] == [t.status for t in ledger.trials]


def test_cold_start_reuses_nothing(run):
    """With warm start off, earlier studies do not matter."""
    run("monday", trials=2)
    ledger = run("tuesday", trials=2)

    assert () == ledger.reused
    assert {""} == {t.reused_from for t in ledger.trials}


def test_one_line_per_trial_and_epoch(run, caplog):
    """A pod's log shows each epoch and each trial on a line of its own."""
    with caplog.at_level(logging.INFO, "components.search"):
        run(trials=1)
    lines = [record.getMessage() for record in caplog.records]

    assert 3 == sum(" epoch " in line for line in lines)
    assert lines[0].startswith("trial 0 epoch 1/3: validation accuracy ")
    assert any(line.startswith("trial 0: completed after 3 epochs") for line in lines)


def test_checkpoint_that_cannot_be_saved_costs_nothing(run, monkeypatch, caplog):
    """A full disk at a checkpoint is a warning; the training goes on."""

    def full(*arguments):  # noqa: ARG001
        raise StorageError("checkpoint must fit; got no space. Free some")

    monkeypatch.setattr(Checkpoints, "save", full)
    with caplog.at_level(logging.WARNING):
        ledger = run(trials=1)

    assert "completed" == ledger.trials[0].status
    assert "checkpoint skipped" in caplog.text


def test_interrupted_trial_goes_on_from_its_checkpoint(run, tmp_path):
    """A trial whose worker failed is continued after its last whole epoch, with all of its scores."""

    def break_store(epoch):
        if epoch == 3:
            raise StorageError("store must work; got nothing. Mend it")

    toy.ToyTrainer.faults[0] = break_store
    with pytest.raises(StorageError):
        run(trials=1)
    toy.ToyTrainer.faults.clear()
    ledger = run(trials=1)

    assert [(0, 1), (0, 3)] == toy.ToyTrainer.fits
    assert 3 == ledger.trials[0].epochs
    assert 2 == ledger.trials[0].attempts
    assert not list((tmp_path / "root").rglob("checkpoints*"))
