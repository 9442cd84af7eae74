"""Splits: test membership by content alone, whole groups, the same everywhere, and no class too small to survive them."""

import hashlib

import numpy as np
import pytest

from components.data.duplicates import group_identical
from components.data.splits import LEFT_OUT, TEST, is_test, split

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
    """Validation has its share of each class's training part exactly, the test set its share of each class up to chance."""
    labels = np.repeat([0, 1, 2], [10_000, 2_000, 400])

    assignment = run(labels).assignment

    for k, count in enumerate((10_000, 2_000, 400)):
        train, validation, test = ((assignment[labels == k] == s).sum() for s in (TRAIN, VALIDATION, TEST))
        assert round((train + validation) * 0.1) == validation
        assert abs(test - 0.15 * count) < 3 * np.sqrt(0.15 * 0.85 * count)


@pytest.mark.parametrize(("count", "validation"), [(1, 0), (2, 0), (3, 1), (4, 1), (30, 3)])
def test_small_classes(count, validation):
    """A class with one or two training images keeps them in training and is listed; a larger one validates at least one."""
    numbers = [n for n in range(1000) if not is_test(make_digests([n]), 0.15)[0]][: 100 + count]
    labels = np.repeat([0, 1], [100, count])

    splits = run(labels, numbers)

    expected = [count - validation, validation, 0]
    assert expected == [int((splits.assignment[labels == 1] == s).sum()) for s in (TRAIN, VALIDATION, TEST)]
    assert ([1] if not validation else []) == splits.train_only


def test_a_class_that_nobody_learns_is_not_tested():
    """Test images of a class without training images wait: in training they would change sides when the class grows."""
    held_out = [n for n in range(1000) if is_test(make_digests([n]), 0.15)[0]][:2]
    learnt = next(n for n in range(1000) if not is_test(make_digests([n]), 0.15)[0])
    others = range(2000, 2100)

    alone = run([0] * 100 + [1, 1], [*others, *held_out]).assignment[100:]
    grown = run([0] * 100 + [1, 1, 1], [*others, *held_out, learnt]).assignment[100:]

    assert ([LEFT_OUT, LEFT_OUT], [TEST, TEST, TRAIN]) == (alone.tolist(), grown.tolist())


def test_three_copies_are_one_example():
    """A class of three identical images cannot be split."""
    splits = run([0] * 50 + [1] * 3, [*range(50), 99, 99, 99])

    assert not is_test(make_digests([99]), 0.15)[0]
    assert ([1], {TRAIN}) == (splits.train_only, set(splits.assignment[50:].tolist()))


def test_groups_stay_together():
    """With groups of every size planted, none crosses a border."""
    rng = np.random.default_rng(0)
    numbers = np.repeat(np.arange(1500), rng.choice([1, 2, 3, 12], 1500, p=[0.85, 0.1, 0.04, 0.01]))

    assignment = run(numbers % 5, numbers).assignment

    assert all(len(set(assignment[numbers == n])) == 1 for n in range(1500))


def test_large_group_does_not_spill():
    """A group larger than validation's quota is trained on, the quota is filled with others."""
    numbers = [0] * 60 + list(range(1, 41))

    assignment = run([0] * 100, numbers).assignment

    assert {TRAIN} == set(assignment[:60].tolist())
    assert round(0.1 * (assignment != TEST).sum()) == (assignment == VALIDATION).sum()


def test_only_large_groups():
    """Where every group is larger than the quota, validation still gets one."""
    assignment = run([0] * 60, [2] * 20 + [3] * 20 + [4] * 20, test=1e-9).assignment

    assert [40, 20, 0] == [int((assignment == s).sum()) for s in (TRAIN, VALIDATION, TEST)]


def test_held_back_examples_are_never_judged_on():
    """Images with contradictory labels reach neither validation nor test; those of the test side are not trained on either."""
    held_back = np.arange(200) < 150

    assignment = run([0] * 200, held_back=held_back).assignment

    assert {TRAIN, LEFT_OUT} == set(assignment[held_back].tolist())
    free = run([0] * 200).assignment
    np.testing.assert_array_equal(assignment == LEFT_OUT, (free == TEST) & held_back)
    np.testing.assert_array_equal(assignment == TEST, (free == TEST) & ~held_back)


def test_same_on_every_machine():
    """The outcome is a fixed function of pixels and seed: this is the one it had when it was written."""
    assignment = run(np.arange(300) % 3).assignment

    assert "6ea283d0a8e2f11e" == hashlib.sha256(assignment.tobytes()).hexdigest()[:16]


def test_order_does_not_matter():
    """Shuffled input gives every example the same split."""
    labels = np.arange(300) % 3
    order = np.random.default_rng(1).permutation(300)

    np.testing.assert_array_equal(run(labels).assignment[order], run(labels[order], order).assignment)


def test_seed_matters():
    """Another seed gives another validation set of the same size."""
    labels = np.arange(300) % 3
    a, b = run(labels, seed=0).assignment, run(labels, seed=1).assignment

    assert (a != b).sum() > 10
    assert np.bincount(a).tolist() == np.bincount(b).tolist()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"seed": -7},
        {"validation": 0.3},
        {"labels": np.arange(2000) % 7},
        {"kept": np.arange(0, 2000, 3)},
        {"kept": np.arange(1000, 2000)},
    ],
    ids=["seed", "negative seed", "validation", "labels", "limit", "smaller catalogue"],
)
def test_test_membership_depends_on_content_alone(change):
    """Whatever else changes, no image that was trained or validated on becomes a test image, nor the other way round."""
    settings = dict(change)
    kept, labels = settings.pop("kept", np.arange(2000)), settings.pop("labels", np.arange(2000) % 3)

    before, after = run(np.arange(2000) % 3).assignment[kept], run(labels[kept], kept, **settings).assignment

    np.testing.assert_array_equal(before == TEST, after == TEST)
    assert 0.1 < (after == TEST).mean() < 0.2


def test_a_larger_fraction_contains_the_smaller():
    """With a larger `data_test_fraction` every test image stays one."""
    small, large = run(np.zeros(2000, int), test=0.1).assignment, run(np.zeros(2000, int), test=0.25).assignment

    assert not ((small == TEST) & (large != TEST)).any()
    assert 250 < ((small != TEST) & (large == TEST)).sum() < 350


def test_new_examples_move_few_within_training():
    """A tenth more images moves none into or out of the test set, and few between training and validation."""
    a = run(np.zeros(1000, int)).assignment
    b = run(np.zeros(1100, int)).assignment[:1000]

    np.testing.assert_array_equal(a == TEST, b == TEST)
    assert (a != b).mean() < 0.05


def test_a_new_copy_of_an_old_image_joins_it():
    """A copy that comes later, under whichever label, is on the side of the first."""
    numbers = np.arange(500)
    before = run(np.zeros(500, int), numbers).assignment
    copies = run(np.zeros(1000, int), np.concatenate([numbers, numbers])).assignment

    np.testing.assert_array_equal(before == TEST, copies[:500] == TEST)
    np.testing.assert_array_equal(before == TEST, copies[500:] == TEST)


def test_official_test_set():
    """A published test set stays as it is; training images that are in it are left out."""
    official = np.arange(120) >= 100
    numbers = np.arange(120)
    numbers[5] = 110

    assignment = run(np.arange(120) % 2, numbers, official=official).assignment

    assert ([TEST] * 20, LEFT_OUT) == (assignment[official].tolist(), assignment[5])
    assert 10 == (assignment == VALIDATION).sum()
