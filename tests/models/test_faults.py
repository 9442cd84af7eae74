import pytest

from components.errors import ConfigurationError, TryAgainError
from components.models.faults import missing_gpu


def test_a_gpu_that_does_not_start_is_the_nodes_fault(tmp_path):
    """A container that was given a device goes to another node; one that was given none is set up wrongly."""
    (tmp_path / "nvidiactl").touch()
    assert 78 == missing_gpu("MLP", tmp_path).exit_code
    with pytest.raises(ConfigurationError, match="must have a GPU because one was requested; got none"):
        raise missing_gpu("MLP", tmp_path)
    (tmp_path / "nvidia0").touch()
    assert 75 == missing_gpu("MLP", tmp_path).exit_code
    with pytest.raises(TryAgainError, match="got nvidia0, which CUDA does not start on"):
        raise missing_gpu("MLP", tmp_path)
