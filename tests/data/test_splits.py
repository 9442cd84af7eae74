"""Splits: stratified, whole groups, the same everywhere, and no class too small to survive them."""

import hashlib

import numpy as np
import pytest

from components.data.duplicates import group_identical
from components.data.splits import LEFT_OUT, TEST, split

TRAIN, VALIDATION = 0, 1


def make_digests(numbers):
    """Return distinct digests by number."""
    return np.stack([np.frombuffer(int(n).to_bytes(32, "big"), np.uint8) for n in numbers])


def run(labels, numbers=None, *, held_back=None, official=None, validation=0.1, test=0.15, seed=0):
    """Split examples; equal numbers are identical images."""
    labels = np.asarray(labels)
    groups = group_identical(make_digests(range(len(labels)) if numbers is None else numbers))
    held_back = np.zeros(len(labels), bool) if held_back is None else held_back
    return split(
        labels,
        groups,
        held_back=held_back,
        official_test=official,
        validation_fraction=validation,
        test_fraction=test,
        seed=seed,
    )


def test_shares():
    """Each class has its share of every split; validation is a share of what testing leaves."""
    labels = np.repeat([0, 1, 2], [1000, 200, 40])

    assignment = run(labels).assignment

    assert [[765, 85, 150], [153, 17, 30], [31, 3, 6]] == [
        [int((assignment[labels == k] == s).sum()) for s in (TRAIN, VALIDATION, TEST)] for k in range(3)
    ]


@pytest.mark.parametrize(("count", "expected"), [(1, (1, 0, 0)), (2, (2, 0, 0)), (3, (1, 1, 1)), (4, (2, 1, 1))])
def test_small_classes(count, expected):
    """A class of one or two stays in train and is listed; from three on it is in every split."""
    labels = np.repeat([0, 1], [100, count])

    splits = run(labels)

    assert expected == tuple(int((splits.assignment[labels == 1] == s).sum()) for s in (TRAIN, VALIDATION, TEST))
    assert ([1] if count < 3 else []) == splits.train_only


def test_three_copies_are_one_example():
    """A class of three identical images cannot be split."""
    splits = run([0] * 50 + [1] * 3, [*range(50), 99, 99, 99])

    assert ([1], {TRAIN}) == (splits.train_only, set(splits.assignment[50:].tolist()))


def test_groups_stay_together():
    """With groups of every size planted, none crosses a border and the shares still hold."""
    rng = np.random.default_rng(0)
    numbers = np.repeat(np.arange(1500), rng.choice([1, 2, 3, 12], 1500, p=[0.85, 0.1, 0.04, 0.01]))
    labels = numbers % 5

    assignment = run(labels, numbers).assignment

    assert all(len(set(assignment[numbers == n])) == 1 for n in range(1500))
    for k in range(5):
        assert abs((assignment[labels == k] == TEST).mean() - 0.15) < 0.01


def test_large_group_does_not_spill():
    """A group larger than a split's quota goes elsewhere, the quota is filled with others."""
    numbers = [0] * 60 + list(range(1, 41))

    assignment = run([0] * 100, numbers).assignment

    assert 15 == (assignment == TEST).sum()
    assert {TRAIN} == set(assignment[:60].tolist())


def test_only_large_groups():
    """Where every group is larger than the quota, each split still gets one."""
    assignment = run([0] * 60, [0] * 20 + [1] * 20 + [2] * 20).assignment

    assert [20, 20, 20] == [int((assignment == s).sum()) for s in (TRAIN, VALIDATION, TEST)]


def test_held_back_examples_are_trained_on():
    """Images with contradictory labels never reach validation or test."""
    held_back = np.arange(200) < 150

    assignment = run([0] * 200, held_back=held_back).assignment

    assert {TRAIN} == set(assignment[held_back].tolist())
    assert 30 == (assignment == TEST).sum()


def test_same_on_every_machine():
    """The outcome is a fixed function of pixels and seed: this is the one it had when it was written."""
    assignment = run(np.arange(300) % 3).assignment

    assert "c99f44f48224e0ef" == hashlib.sha256(assignment.tobytes()).hexdigest()[:16]


def test_order_does_not_matter():
    """Shuffled input gives every example the same split."""
    labels = np.arange(300) % 3
    order = np.random.default_rng(1).permutation(300)

    np.testing.assert_array_equal(run(labels).assignment[order], run(labels[order], order).assignment)


def test_seed_matters():
    """Another seed gives another split of the same sizes."""
    labels = np.arange(300) % 3
    a, b = run(labels, seed=0).assignment, run(labels, seed=1).assignment

    assert (a != b).sum() > 30
    assert np.bincount(a).tolist() == np.bincount(b).tolist()


def test_new_examples_move_few():
    """Adding a tenth more images leaves most of the old ones in their split."""
    a = run(np.zeros(1000, int)).assignment
    b = run(np.zeros(1100, int)).assignment[:1000]

    assert (a != b).mean() < 0.12


def test_official_test_set():
    """A published test set stays as it is; training images that are in it are left out."""
    official = np.arange(120) >= 100
    numbers = np.arange(120)
    numbers[5] = 110

    assignment = run(np.arange(120) % 2, numbers, official=official).assignment

    assert ([TEST] * 20, LEFT_OUT) == (assignment[official].tolist(), assignment[5])
    assert 10 == (assignment == VALIDATION).sum()
