import pytest

from benchmarks.study import STUDY, search
from components.search.study.study import Study
from components.stores import open_store
from tests.models.examples import make_train_data


@pytest.mark.slow
def test_workers_finish_one_study_together(tmp_path):
    """What is timed is a whole study, however many workers share it."""
    make_train_data(120).save(tmp_path / "train")
    search(str(tmp_path / "train"), str(tmp_path / "studies"), num_workers=2, num_trials=3)

    ledger = Study.open(open_store(str(tmp_path / "studies")), STUDY).ledger()
    assert 3 == len(ledger.trials)
    assert ledger.best() is not None


def test_a_failed_worker_is_an_error(tmp_path):
    """Without data there is no time to report."""
    with pytest.raises(RuntimeError, match="every worker must end with 0; got"):
        search(str(tmp_path / "nothing"), str(tmp_path / "studies"), num_workers=1)
