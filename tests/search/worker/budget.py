"""A budget that is gone in the middle of a trial, with the real trainer of an approach."""

import dataclasses

from components.search.study.study import Study
from components.search.worker.worker import run_worker
from components.stores import open_store
from tests.models.examples import make_train_data
from tests.models.faulty import QUICK, settings

SECONDS, EPOCHS = 3.0, 5_000


def assert_a_running_trial_ends_with_its_epoch(approach, directory):
    """Search for three seconds with a trial that would take minutes: it ends at once, and score and checkpoint stay."""
    ledger = run_worker(
        study_root=str(directory),
        name="study",
        approach=approach,
        train_data=make_train_data(),
        settings=dataclasses.replace(settings(50), minutes=SECONDS / 60, epochs=EPOCHS),
        worker="w0",
        timing=QUICK,
    )
    (trial,) = ledger.trials

    assert ("pruned", True) == (trial.status, trial.out_of_budget)
    assert 1 <= trial.epochs == len(trial.scores) < EPOCHS
    assert trial.score == max(trial.scores)
    # The epoch it was in, or the first one, compiling included, on a busy machine.
    assert SECONDS <= trial.device_seconds <= SECONDS + 20
    manifests = [key for key in Study.open(open_store(str(directory)), "study").store.list() if "manifest" in key]
    assert f"{trial.epochs:06d}/manifest.json" in {key[-20:] for key in manifests}
