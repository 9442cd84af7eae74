"""No history breaks Keras Tuner's oracles."""

import pytest

from components.search.samplers.choice import ALGORITHMS, make_sampler
from tests.search.histories import SPACE, assert_suggestions


@pytest.mark.parametrize(
    ("algorithm", "short", "count", "longest"),
    [("noisy-bayesian", True, 15, 16), ("bayesian", False, 8, 24), ("random", False, 30, 16)],
)
def test_every_history_has_a_next_suggestion(algorithm, short, count, longest):
    """A trial of whatever status, with no, one or many scores, alone or beside any other, stops no study."""
    assert algorithm in ALGORITHMS["mlp"]
    assert_suggestions(lambda: make_sampler("mlp", algorithm, SPACE, 3), short=short, count=count, longest=longest)
