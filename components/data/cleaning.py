"""Decides what identical images with different labels and rare classes become."""

import numpy as np

from components.data.duplicates import Groups

OTHER = "other"


def settle_contradictions(
    labels: np.ndarray, groups: Groups, official_test: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Find groups whose members have different labels.

    Args:
        labels: (N,) int64.
        groups: Identical examples.
        official_test: (N,) bool where the publisher fixed a test set, whose labels stay as they are.

    Returns:
        Labels (N,) int64 with a strict majority's label given to its whole group and ties left as they are; held back
        (N,) bool, the members of such groups; and the indices of each such group's members.
    """
    settled, held_back = labels.copy(), np.zeros(len(labels), bool)
    order = np.argsort(groups.numbers, kind="stable")
    ends = np.cumsum(groups.sizes)
    shared = (order[ends[g] - groups.sizes[g] : ends[g]] for g in np.flatnonzero(groups.sizes > 1))
    contradictory = [members for members in shared if len(set(labels[members])) > 1]
    for group in contradictory:
        held_back[group] = True
        values, counts = np.unique(labels[group], return_counts=True)
        if 2 * counts.max() > len(group):
            changed = group if official_test is None else group[~official_test[group]]
            settled[changed] = values[counts.argmax()]
    return settled, held_back, contradictory


def fold_rare(
    labels: np.ndarray, classes: tuple[str, ...], min_count: int
) -> tuple[np.ndarray, tuple[str, ...], dict[str, int]]:
    """Fold classes with fewer than `min_count` examples into `other`, and drop classes without any.

    Args:
        labels: (N,) int64.
        classes: Names in label order.
        min_count: 1 keeps every class that has examples.

    Returns:
        New labels (N,) int64, new classes in the old order with `other` last, and the folded classes with their counts.
    """
    counts = np.bincount(labels, minlength=len(classes))
    rare = {k for k in range(len(classes)) if 0 < counts[k] < min_count and classes[k] != OTHER}
    kept = [k for k in range(len(classes)) if counts[k] and k not in rare and (classes[k] != OTHER or not rare)]
    names = [classes[k] for k in kept] + ([OTHER] if rare else [])
    number = np.full(len(classes), len(names) - 1)
    number[kept] = np.arange(len(kept))
    return number[labels].astype(np.int64), tuple(names), {classes[k]: int(counts[k]) for k in sorted(rare)}
