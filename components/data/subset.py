"""Picks a stratified subset without random numbers: by digest, so that it is the same on every machine."""

import hashlib
from collections.abc import Sequence

MIN_CLASS = 3
"""Examples to keep of a class where it has them: one for each split."""


def apportion(counts: Sequence[int], total: int) -> list[int]:
    """Distribute `total` over classes in proportion to their counts, at least `MIN_CLASS` each where that fits.

    Args:
        counts: Examples of each class.
        total: Examples to keep; all of them where it is at least their sum.

    Returns:
        Examples to keep of each class; their sum is `total`.
    """
    num_all = sum(counts)
    if total >= num_all:
        return list(counts)
    least = next((m for m in range(MIN_CLASS, 0, -1) if sum(min(m, c) for c in counts) <= total), 0)
    shares = [min(least, c) for c in counts]
    rest = total - sum(shares)
    spare = [c - s for c, s in zip(counts, shares, strict=True)]
    exact = [rest * s / max(sum(spare), 1) for s in spare]
    shares = [s + int(e) for s, e in zip(shares, exact, strict=True)]
    by_remainder = sorted(range(len(counts)), key=lambda k: (int(exact[k]) - exact[k], k))
    for k in by_remainder[: total - sum(shares)]:
        shares[k] += 1
    return shares


def stratified_subset(labels: Sequence[object], ids: Sequence[str], total: int) -> list[int]:
    """Pick `total` examples with the class shares of all of them.

    Args:
        labels: N labels.
        ids: N unique ids; the pick depends on them and not on their order.
        total: Examples to keep.

    Returns:
        Sorted indices.
    """
    by_class: dict[object, list[int]] = {}
    for i, label in enumerate(labels):
        by_class.setdefault(label, []).append(i)
    classes = sorted(by_class, key=str)
    chosen = []
    for label, share in zip(classes, apportion([len(by_class[k]) for k in classes], total), strict=True):
        ranked = sorted(by_class[label], key=lambda i: hashlib.sha256(str(ids[i]).encode()).digest())
        chosen += ranked[:share]
    return sorted(chosen)
