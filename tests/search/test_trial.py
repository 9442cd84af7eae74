import pytest

from components.errors import DataError
from components.search.trial import Ledger, Trial, replicate_seed, trial_seed


def _trial(number, status="completed", score=None, **values):
    return Trial(number=number, status=status, hyperparameters={"rate": 0.1 * (number + 1)}, score=score, **values)


LEDGER = Ledger(
    name="run-fashion-mnist-mlp",
    spec={"approach": "mlp"},
    trials=(
        _trial(0, score=0.8, scores=(0.7, 0.8, 0.8), device_seconds=3.0),
        _trial(1, "pruned", 0.9, scores=(0.9,), device_seconds=1.0, based_on=(0,)),
        _trial(2, score=0.9, device_seconds=4.0),
        _trial(3, "diverged", 0.99),
        _trial(4, "failed", error="out of memory"),
        _trial(5, "running", 0.95),
    ),
    reused=(_trial(0, score=0.99, reused_from="earlier/0"),),
)


def test_best_is_a_scored_trial_of_the_study_itself():
    """Neither a diverged, a running nor a reused trial is the best; on a tie the lower number is."""
    assert 1 == LEDGER.best().number
    assert Ledger(name="s", spec={}, trials=LEDGER.trials[3:]).best() is None


def test_counts_and_device_seconds():
    """The ledger counts by status and sums the time of its own trials."""
    assert [2, 1, 1, 1, 1, 0] == [
        LEDGER.count(s) for s in ("completed", "pruned", "diverged", "failed", "running", "waiting")
    ]
    assert 8.0 == LEDGER.device_seconds


def test_best_epoch_is_the_first_of_equals():
    """The best epoch counts from one; without scores there is none."""
    assert [2, 1, None] == [LEDGER.trials[i].best_epoch for i in (0, 1, 2)]


def test_a_ledger_survives_its_file(tmp_path):
    """What is saved is what is loaded."""
    LEDGER.save(tmp_path / "study.json")

    assert Ledger.load(tmp_path / "study.json") == LEDGER


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "s", "spec": {}, "trials": [{"x": 1}], "reused": []}'])
def test_a_file_that_is_no_ledger_is_refused(tmp_path, text):
    """A wrong file is bad data, named by its path."""
    path = tmp_path / "study.json"
    path.write_text(text)

    with pytest.raises(DataError, match=r"study\.json must be a study ledger"):
        Ledger.load(path)


def test_a_spec_is_no_ledger(tmp_path):
    """`study show STUDY/spec.json`: the line says what is wrong with the file, not what Python could not do with it."""
    path = tmp_path / "spec.json"
    path.write_text('{"schema": 2, "trials": 30}')

    with pytest.raises(DataError, match=r"spec\.json must be a study ledger; got no name"):
        Ledger.load(path)


def test_no_replicate_has_a_trials_seed():
    """Whatever the seeds of study and run, up to the largest allowed, the two never meet; and trials of a study differ."""
    seeds = (0, 1, 7, 2**30 - 1, 2**30, 2**31 - 20, 2**31 - 1)
    trials = {trial_seed(seed, number) for seed in seeds for number in range(10_000)}
    replicates = {replicate_seed(seed, number) for seed in seeds for number in range(20)}

    assert set() == trials & replicates
    assert max(trials) < 2**30 <= min(replicates) <= max(replicates) < 2**31
    assert all(10_000 == len({trial_seed(seed, number) for number in range(10_000)}) for seed in seeds)
    assert all(20 == len({replicate_seed(seed, number) for number in range(20)}) for seed in seeds)
