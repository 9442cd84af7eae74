import numpy as np
import pytest

from components.search.study.pruning import rungs, should_prune


@pytest.mark.parametrize(
    ("max_epochs", "expected"),
    [(1, ()), (2, (1,)), (3, (1,)), (9, (1, 3)), (20, (3, 9)), (27, (3, 9)), (81, (9, 27))],
)
def test_rungs_grow_by_the_reduction(max_epochs, expected):
    """Trials are compared at few epochs, from a ninth of all on, and never at the last one."""
    assert expected == rungs(max_epochs)


def test_between_rungs_nothing_is_pruned():
    """However bad a trial is, it is only stopped where trials are compared."""
    others = [[0.9] * 20] * 9

    stopped = [epoch for epoch in range(1, 21) if should_prune([0.1] * epoch, others, max_epochs=20)]

    assert [3, 9] == stopped


def test_the_first_two_trials_run_on():
    """Two trials say nothing about a third of them."""
    assert not should_prune([0.1], [[0.9]], max_epochs=9)
    assert should_prune([0.1], [[0.9], [0.8]], max_epochs=9)


def test_about_a_third_of_equally_drawn_trials_reaches_the_next_rung():
    """With scores in random order, the share that goes on at a rung is the reduction's, plus the early ones."""
    rng = np.random.default_rng(0)
    reached, going_on = [], 0
    for score in rng.random(300):
        going_on += not should_prune([score], reached, max_epochs=9)
        reached.append([score])

    assert 100 <= going_on <= 120


def test_only_trials_that_reached_the_rung_count():
    """Trials stopped or still running before the rung are no competition there."""
    others = [[0.9], [0.9], [0.9, 0.9, 0.95], [0.9, 0.9]]

    assert not should_prune([0.5, 0.5, 0.5], others, max_epochs=20)


def test_the_best_epoch_counts_not_the_last():
    """A trial is judged by its best score so far, as its result will be."""
    others = [[0.7, 0.7, 0.7, 0.99], [0.6, 0.6, 0.6]]

    assert not should_prune([0.5, 0.8, 0.1], others, max_epochs=20)


def test_ties_go_on():
    """Trials of equal score are all kept."""
    assert not should_prune([0.5], [[0.5]] * 8, max_epochs=9)


def test_an_unusable_score_is_the_worst():
    """A trial whose scores are no numbers loses against any other, and harms no one."""
    assert should_prune([float("nan")], [[0.1], [0.2]], max_epochs=9)
    assert not should_prune([0.1], [[float("nan")], [float("inf")]], max_epochs=9)
