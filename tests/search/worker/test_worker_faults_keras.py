"""The tests of `test_worker_faults.py`, searching with Keras Tuner's oracles."""

import pytest

from tests.search.worker.test_worker_faults import *  # noqa: F403


@pytest.fixture(params=["noisy-bayesian", "bayesian"])
def algorithm(request):
    """The oracle that the toy is searched with."""
    return request.param
