"""A training that ends in an error, of either approach: what the search and the final training make of it."""

import pytest

from components.errors import DataError, TryAgainError
from components.parameters import SearchSettings, TrainSettings
from components.search.study.claims import Timing
from components.search.study.study import Study
from components.search.worker.worker import run_worker
from components.stores import open_store
from components.training import train_final
from tests.models.examples import make_ledger, make_train_data

QUICK = Timing(beat_seconds=0.1, ttl_seconds=1.0, margin_seconds=0.1, poll_seconds=0.05)


def settings(trials, **changed):
    """A short search."""
    values = {
        "trials": trials,
        "minutes": 10.0,
        "workers": 1,
        "epochs": 1,
        "pruning": False,
        "warm_start": False,
        "mlp_algorithm": "random",
        "resnet18_algorithm": "random",
        "space": "described",
        "seed": 0,
    }
    return SearchSettings(**{**values, **changed})


def search(approach, directory, trials=3):
    """Work on the study of the directory."""
    return run_worker(
        study_root=str(directory),
        name="study",
        approach=approach,
        train_data=make_train_data(),
        settings=settings(trials),
        worker="w0",
        timing=QUICK,
    )


def final_training(approach, directory):
    """Train the space's defaults with two seeds."""
    return train_final(
        approach,
        train_data=make_train_data(),
        ledger=make_ledger(approach.APPROACH, approach.SPACES["described"].defaults),
        settings=TrainSettings(replicates=2, weights="", epochs=1, seed=0),
        model_dir=directory,
    )


def assert_the_trial_is_out_of_memory(approach, directory):
    """The first trial failed for want of memory; the final training says that no replicate is left."""
    ledger = search(approach, directory / "store", trials=1)

    assert ["failed"] == [t.status for t in ledger.trials]
    assert ledger.trials[0].error.startswith("out of memory: ")
    with pytest.raises(DataError, match="must fit into the device's memory"):
        final_training(approach, directory)


def assert_the_device_is_to_blame(approach, directory):
    """Search and final training end with 75, and no trial failed."""
    with pytest.raises(TryAgainError, match="must have a working device") as searching:
        search(approach, directory / "store")
    with pytest.raises(TryAgainError, match="must have a working device") as training:
        final_training(approach, directory)

    assert [75, 75] == [searching.value.exit_code, training.value.exit_code]
    ledger = Study.open(open_store(str(directory / "store")), "study", timing=QUICK).ledger()
    assert 0 == ledger.count("failed")
