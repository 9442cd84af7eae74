"""Assigns examples to train, validation and test: stratified, never dividing a group, the same on every machine.

Groups are ranked by a digest of seed and pixels instead of by a random number generator, so the outcome depends neither on
the order of the input nor on a library's version, and adding images moves few of the others.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from components.data.contract import TRAIN, VALIDATION
from components.data.duplicates import Groups

TEST = 2
"""Value of the test split inside ingest; `train_data` never contains it."""

LEFT_OUT = 3
"""Training examples identical to one of an official test set."""

_MIN_GROUPS = 3  # one for each split


@dataclass(frozen=True)
class Splits:
    """Where each example goes.

    Attributes:
        assignment: (N,) uint8: `TRAIN`, `VALIDATION`, `TEST` or `LEFT_OUT`.
        train_only: Classes too small for three splits.
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
        held_back: (N,) bool, examples that may only be trained on (their group has contradictory labels).
        official_test: (N,) bool where the publisher fixed a test set; then `test_fraction` is ignored.
        validation_fraction: Share of the training part held out for validation.
        test_fraction: Share of all examples held out for testing.
        seed: Another seed gives another split.
    """
    assignment = np.full(len(labels), TRAIN, np.uint8)
    if official_test is not None:
        assignment[official_test] = TEST
        in_test = np.zeros(len(groups.sizes), bool)
        in_test[groups.numbers[official_test]] = True
        assignment[in_test[groups.numbers] & ~official_test] = LEFT_OUT
        test_fraction = 0.0
    ranks = _ranks(groups, seed)
    train_only = []
    num_classes = int(labels.max()) + 1
    free = assignment == TRAIN
    by_class = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[by_class], np.arange(num_classes + 1))
    for label in range(num_classes):
        members = by_class[bounds[label] : bounds[label + 1]]
        members = members[free[members]]
        movable = members[~held_back[members]]
        numbers, first, sizes = np.unique(groups.numbers[movable], return_index=True, return_counts=True)
        num_needed = _MIN_GROUPS if official_test is None else _MIN_GROUPS - 1
        if len(numbers) < num_needed:
            train_only.append(label)
            continue
        order = np.argsort(ranks[numbers], kind="stable")
        numbers, sizes = numbers[order], sizes[order]
        del first
        num_test = max(1, _rounded(len(members) * test_fraction)) if official_test is None else 0
        num_validation = max(1, _rounded((len(members) - num_test) * validation_fraction))
        parts = _fill(sizes, [num_test, num_validation])
        target = np.full(len(groups.sizes), TRAIN, np.uint8)
        target[numbers[parts == 0]] = TEST
        target[numbers[parts == 1]] = VALIDATION
        assignment[movable] = target[groups.numbers[movable]]
    return Splits(assignment, train_only)


def _rounded(value: float) -> int:
    return int(value + 0.5)


def _ranks(groups: Groups, seed: int) -> np.ndarray:
    """Return (G,) int64: each group's place in the order of SHA-256(seed, pixels)."""
    prefix = seed.to_bytes(8, "big", signed=True)
    keys = b"".join(hashlib.sha256(prefix + digest.tobytes()).digest() for digest in groups.digests)
    order = np.argsort(np.frombuffer(keys, "V32"), kind="stable") if keys else np.empty(0, np.int64)
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


def _fill(sizes: np.ndarray, quotas: list[int]) -> np.ndarray:
    """Hand groups out in order until each quota is full; a group that is too large for the rest of a quota is passed over.

    Returns:
        (G,) int64: index of the quota each group fills, or -1 for none. At least one group remains.
    """
    parts = np.full(len(sizes), -1)
    left = len(sizes)
    for part, quota in enumerate(quotas):
        filled = 0
        later = len(quotas) - part  # keep a group for each later quota and for train
        for i, size in enumerate(sizes):
            if filled >= quota or left <= later:
                break
            if parts[i] == -1 and filled + size <= quota:
                parts[i] = part
                filled += size
                left -= 1
        if not filled and quota and left > later:  # only large groups: take the smallest
            i = min((i for i in range(len(sizes)) if parts[i] == -1), key=lambda i: (sizes[i], i))
            parts[i] = part
            left -= 1
    return parts
