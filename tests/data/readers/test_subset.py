"""Stratified subsets: exact size, right shares, the same on every machine."""

import numpy as np
import pytest

from components.data.readers.subset import apportion, stratified_subset


@pytest.mark.parametrize(
    ("counts", "total", "least", "expected"),
    [
        ([100, 100], 10, 1, [5, 5]),
        ([1000, 100, 1], 110, 1, [99, 10, 1]),
        ([1000, 100, 1], 110, 3, [99, 10, 1]),
        ([1000, 5, 1], 10, 3, [6, 3, 1]),
        ([1000, 5, 1], 2, 3, [2, 0, 0]),
        ([3, 3, 3], 4, 3, [2, 1, 1]),
        ([5, 5], 10, 3, [5, 5]),
        ([5, 5], 99, 3, [5, 5]),
        ([7], 3, 3, [3]),
    ],
)
def test_apportions(counts, total, least, expected):
    """Shares are proportional, small classes keep their least where it fits."""
    assert expected == apportion(counts, total, least=least)


def test_sums_are_exact():
    """Whatever the counts, exactly `total` is handed out and no class gets more than it has."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        counts = rng.integers(1, rng.integers(2, 400), rng.integers(1, 30)).tolist()
        total = int(rng.integers(1, sum(counts) + 10))

        shares = apportion(counts, total, least=3)

        assert min(total, sum(counts)) == sum(shares)
        assert all(0 <= s <= c for s, c in zip(shares, counts, strict=True))


def test_pick_does_not_depend_on_order():
    """The same ids are picked in whatever order they come, and a smaller subset lies within a larger one."""
    ids = [str(i) for i in range(200)]
    labels = [str(i % 3) for i in range(200)]
    backwards = stratified_subset(labels[::-1], ids[::-1], 50)

    picked = {ids[i] for i in stratified_subset(labels, ids, 50)}

    assert picked == {ids[::-1][i] for i in backwards}
    assert picked <= {ids[i] for i in stratified_subset(labels, ids, 80)}
