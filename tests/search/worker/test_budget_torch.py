from components.models.resnet18 import training as resnet18
from tests.search.worker.budget import assert_a_running_trial_ends_with_its_epoch


def test_minutes_end_a_running_trial(tmp_path):
    """A study takes its device-minutes and the epoch that is running, not the rest of the trial."""
    assert_a_running_trial_ends_with_its_epoch(resnet18, tmp_path)
