"""Identical and nearly identical images, and what becomes of their labels."""

import itertools

import numpy as np

from components.data import duplicates
from components.data.cleaning import fold_rare, settle_contradictions
from components.data.digests import digest_images
from components.data.duplicates import difference_hashes, find_near, group_identical


def groups_of(*numbers):
    """Return groups as if examples with the same number were identical."""
    return group_identical(digest_images(np.array(numbers, np.uint8)[:, None, None, None]))


def test_groups_are_numbered_by_first_example():
    """Identical images share a number, in order of appearance."""
    groups = groups_of(9, 3, 9, 1, 3, 9)

    assert [0, 1, 0, 2, 1, 0] == groups.numbers.tolist()
    assert [3, 2, 1] == groups.sizes.tolist()


def test_majority_settles_a_contradiction():
    """A strict majority's label goes to the whole group, which is held back from validation and test."""
    labels = np.array([0, 1, 0, 2, 2])

    settled, held_back, contradictory = settle_contradictions(labels, groups_of(9, 9, 9, 1, 1))

    assert [0, 0, 0, 2, 2] == settled.tolist()
    assert [True, True, True, False, False] == held_back.tolist()
    assert [[0, 1, 2]] == [sorted(group.tolist()) for group in contradictory]


def test_tie_stays():
    """A tie keeps its labels: neither is better."""
    settled, held_back, contradictory = settle_contradictions(np.array([0, 1, 1]), groups_of(9, 9, 1))

    assert ([0, 1, 1], [True, True, False], 1) == (settled.tolist(), held_back.tolist(), len(contradictory))


def test_official_labels_stay():
    """The publisher's test labels are never changed."""
    labels, official = np.array([0, 0, 1]), np.array([False, False, True])

    settled, _, _ = settle_contradictions(labels, groups_of(9, 9, 9), official)

    assert [0, 0, 1] == settled.tolist()


def test_rare_classes_are_folded():
    """Classes below the minimum become one class at the end, and are listed."""
    labels = np.array([0, 0, 0, 1, 2, 2, 3])

    folded, classes, listed = fold_rare(labels, ("a", "b", "c", "d"), 2)

    assert (("a", "c", "other"), {"b": 1, "d": 1}) == (classes, listed)
    assert [0, 0, 0, 2, 1, 1, 2] == folded.tolist()


def test_minimum_of_one_keeps_everything():
    """By default every class that has examples stays, empty ones go."""
    folded, classes, listed = fold_rare(np.array([0, 2, 2]), ("a", "b", "c"), 1)

    assert (("a", "c"), {}, [0, 1, 1]) == (classes, listed, folded.tolist())


def test_class_that_is_called_other():
    """An own class of that name takes the rare ones in."""
    folded, classes, _ = fold_rare(np.array([0, 0, 1, 2]), ("a", "b", "other"), 2)

    assert (("a", "other"), [0, 0, 1, 1]) == (classes, folded.tolist())


def reference_near(hashes, groups):
    """Compare all pairs, one by one."""
    near = set()
    for i, j in itertools.combinations(range(len(hashes)), 2):
        if groups[i] != groups[j] and (int(hashes[i]) ^ int(hashes[j])).bit_count() <= 2:
            near |= {i, j}
    return near


def test_near_duplicates_are_all_found():
    """The search by bands finds what comparing all pairs finds."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 120, dtype=np.uint64)
    flips = np.uint64(1) << rng.integers(0, 64, (120, 3)).astype(np.uint64)
    close = hashes ^ flips[:, 0] ^ flips[:, 1]
    far = hashes ^ flips[:, 0] ^ flips[:, 1] ^ flips[:, 2]
    everything = np.concatenate([hashes, close[:40], far[40:80], hashes[80:90]])
    groups = np.arange(len(everything))
    groups[-5:] = groups[85:90]

    found = find_near(everything, groups, np.ones(len(everything), bool))

    assert len(reference_near(everything, groups)) == found.num_images
    assert found.is_complete


def test_near_duplicates_across_splits():
    """Held-out images with a nearly identical one in training are counted."""
    hashes = np.array([0, 1, 2**40, 2**50], np.uint64)
    in_train = np.array([True, False, False, True])

    found = find_near(hashes, np.arange(4), in_train)

    assert (4, 2) == (found.num_images, found.num_held_out)


def test_monotonous_sets_have_a_bound(monkeypatch):
    """When too many pairs would have to be compared, the count says that it is incomplete."""
    monkeypatch.setattr(duplicates, "MAX_COMPARISONS", 100)

    assert not find_near(
        np.arange(500, dtype=np.uint64) << np.uint64(45), np.arange(500), np.ones(500, bool)
    ).is_complete


def test_hash_ignores_small_changes():
    """Noise of one grey level barely moves the hash, another picture moves it far."""
    rng = np.random.default_rng(0)
    base = np.kron(rng.integers(0, 240, (8, 9, 1)), np.ones((10, 7, 3))).astype(np.uint8)
    images = np.stack([base, base + rng.integers(0, 2, base.shape).astype(np.uint8), base[::-1]])

    a, b, c = (int(h) for h in difference_hashes(images, np.arange(3)))

    assert (a ^ b).bit_count() <= 2
    assert (a ^ c).bit_count() > 10


def test_hash_of_any_size():
    """Every image size that can occur has a hash."""
    for size in ((9, 9), (28, 28), (80, 60), (31, 17), (512, 512)):
        assert (2,) == difference_hashes(np.zeros((2, *size, 1), np.uint8), np.arange(2)).shape
