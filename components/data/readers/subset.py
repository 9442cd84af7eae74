"""Picks a stratified subset without random numbers: by digest, so that it is the same on every machine."""

import hashlib
from collections.abc import Sequence


def apportion(counts: Sequence[int], total: int, *, least: int = 1) -> list[int]:
    """Distribute `total` over classes in proportion to their counts, at least `least` each where that fits.

    Args:
        counts: Examples of each class.
        total: Examples to keep; all of them where it is at least their sum.
        least: Examples to keep of each class where it has so many.

    Returns:
        Examples to keep of each class; their sum is `total`.
    """
    num_all = sum(counts)
    if total >= num_all:
        return list(counts)
    least = next((m for m in range(least, 0, -1) if sum(min(m, c) for c in counts) <= total), 0)
    floors = [min(least, c) for c in counts]
    shares = [max(floor, total * c // num_all) for c, floor in zip(counts, floors, strict=True)]
    wanting = [total * c / num_all - share for c, share in zip(counts, shares, strict=True)]
    while (missing := total - sum(shares)) > 0:
        for k in sorted(range(len(counts)), key=lambda k: (-wanting[k], k))[:missing]:
            shares[k] += shares[k] < counts[k]
            wanting[k] -= 1
    while (surplus := sum(shares) - total) > 0:
        for k in sorted(range(len(counts)), key=lambda k: (wanting[k], k))[:surplus]:
            shares[k] -= shares[k] > floors[k]
            wanting[k] += 1
    return shares


def stratified_subset(labels: Sequence[object], ids: Sequence[str], total: int, *, least: int = 1) -> list[int]:
    """Pick `total` examples with the class shares of all of them.

    Args:
        labels: N labels.
        ids: N unique ids; the pick depends on them and not on their order.
        total: Examples to keep.
        least: Examples to keep of each class where it has so many.

    Returns:
        Sorted indices.
    """
    by_class: dict[object, list[int]] = {}
    for i, label in enumerate(labels):
        by_class.setdefault(label, []).append(i)
    classes = sorted(by_class, key=str)
    chosen = []
    for label, share in zip(classes, apportion([len(by_class[k]) for k in classes], total, least=least), strict=True):
        ranked = sorted(by_class[label], key=lambda i: hashlib.sha256(str(ids[i]).encode()).digest())
        chosen += ranked[:share]
    return sorted(chosen)
