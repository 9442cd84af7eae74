"""Examples are assigned to train, validation and test without dividing a group, in the same way on every machine.

Whether an image is a test image depends on its pixels and on `test_fraction` alone: not on the seed, on `data_limit`, on labels
or on the other images of the catalogue. So a model of an earlier run was never trained on an image that is a test image today,
unless the fraction grew; and a larger fraction's test set contains the smaller one's. The price is that test sets are not
stratified: a class of n images has n x `test_fraction` of them there give or take chance, and a small class may have none.

Validation is stratified. It depends on the seed: groups are ranked by a digest of seed and pixels instead of by a random number
generator, so the outcome depends neither on the order of the input nor on a library's version.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from components.data.contract import TRAIN, VALIDATION
from components.data.duplicates import Groups

TEST = 2
"""Value of the test split inside ingest; `train_data` never contains it."""

LEFT_OUT = 3
"""In no split: training examples identical to one of an official test set; and test images that say nothing, because identical
ones have another label or because their class has no training example. They are not trained on, so that they may be tested on
when the label is corrected or the class grows."""

TEST_SALT = b"fashion-tuning test split 930"
"""Never to be changed: another salt makes training images of every champion into test images.

The number is the first, counted from 1, under which every class of the published product catalogue with three or more images has
some to train on and some to test on, while its two single images are trained on (a fraction of 0.15 given)."""

_MIN_GROUPS = 3  # below, a class keeps all its training examples in training


@dataclass(frozen=True)
class Splits:
    """The part that each example belongs to.

    Attributes:
        assignment: (N,) uint8: `TRAIN`, `VALIDATION`, `TEST` or `LEFT_OUT`.
        train_only: Classes with neither validation nor test examples.
    """

    assignment: np.ndarray
    train_only: list[int]


def split(
    labels: np.ndarray,
    groups: Groups,
    *,
    held_back: np.ndarray,
    official_test: np.ndarray | None,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
) -> Splits:
    """Split examples.

    Args:
        labels: (N,) int64.
        groups: Identical examples.
        held_back: (N,) bool, examples that are neither validated nor tested on (their group has contradictory labels).
        official_test: (N,) bool where the publisher fixed a test set; then `test_fraction` is ignored.
        validation_fraction: Share of each class's training part held out for validation.
        test_fraction: Chance of a group to be held out for testing.
        seed: Another seed gives other validation examples.
    """
    assignment = np.full(len(labels), TRAIN, np.uint8)
    if official_test is not None:
        in_test = np.zeros(len(groups.sizes), bool)
        in_test[groups.numbers[official_test]] = True
        assignment[in_test[groups.numbers]] = LEFT_OUT
        assignment[official_test] = TEST
    else:
        on_test_side = is_test(groups.digests, test_fraction)[groups.numbers]
        assignment[on_test_side] = np.where(held_back, LEFT_OUT, TEST)[on_test_side]
    num_classes = int(labels.max()) + 1
    _hold_out_validation(assignment, labels, groups, held_back, validation_fraction, seed)
    counts = np.zeros((num_classes, LEFT_OUT + 1), np.int64)
    np.add.at(counts, (labels, assignment), 1)
    if official_test is None:
        assignment[(counts[labels, TRAIN] == 0) & (assignment == TEST)] = LEFT_OUT
    alone = (counts[:, TRAIN] > 0) & (counts[:, VALIDATION] == 0) & (counts[:, TEST] == 0)
    return Splits(assignment, np.flatnonzero(alone).tolist())


def is_test(digests: np.ndarray, fraction: float) -> np.ndarray:
    """Return (G,) bool: which images are test images, by their pixels' digests, (G, 32) uint8, and nothing else."""
    keys = b"".join(hashlib.sha256(TEST_SALT + digest.tobytes()).digest()[:8] for digest in digests)
    return np.frombuffer(keys, ">u8") / 2.0**64 < fraction


def _hold_out_validation(
    assignment: np.ndarray, labels: np.ndarray, groups: Groups, held_back: np.ndarray, fraction: float, seed: int
) -> None:
    """Make a share of each class's training examples validation examples."""
    ranks = _ranks(groups, seed)
    by_class = np.argsort(labels, kind="stable")
    for members in np.split(by_class, np.cumsum(np.bincount(labels))[:-1]):
        trained = members[assignment[members] == TRAIN]
        movable = trained[~held_back[trained]]
        numbers, sizes = np.unique(groups.numbers[movable], return_counts=True)
        if len(numbers) < _MIN_GROUPS:
            continue
        order = np.argsort(ranks[numbers], kind="stable")
        chosen = _fill(sizes[order], max(1, int(len(trained) * fraction + 0.5)))
        target = np.full(len(groups.sizes), TRAIN, np.uint8)
        target[numbers[order][chosen]] = VALIDATION
        assignment[movable] = target[groups.numbers[movable]]


def _ranks(groups: Groups, seed: int) -> np.ndarray:
    """Return (G,) int64: each group's place in the order of SHA-256(seed, pixels)."""
    prefix = seed.to_bytes(8, "big", signed=True)
    keys = b"".join(hashlib.sha256(prefix + digest.tobytes()).digest() for digest in groups.digests)
    order = np.argsort(np.frombuffer(keys, "V32"), kind="stable") if keys else np.empty(0, np.int64)
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


def _fill(sizes: np.ndarray, quota: int) -> np.ndarray:
    """Take groups in order until the quota is full; a group that is too large for the rest of it is passed over.

    Returns:
        Places of the groups taken: at least one, the smallest where all are too large, and never all.
    """
    chosen: list[int] = []
    filled = 0
    for place, size in enumerate(sizes):
        if filled + size <= quota and len(chosen) < len(sizes) - 1:
            chosen.append(place)
            filled += size
    return np.asarray(chosen or [int(np.argmin(sizes))])
