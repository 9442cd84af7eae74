"""Bootstrap intervals over test examples that respect groups of identical images.

Groups are drawn with replacement, never single examples. A statistic that only depends on how often each kind of outcome
occurs needs no array of resampled examples: resampling n groups with replacement *is* a multinomial draw over the distinct
groups, so thousands of resamples of any test set cost milliseconds.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapters 8 and 13; smoothing as in Agresti and Coull (1998),
https://doi.org/10.1080/00031305.1998.10480550, and Bonett and Price (2012), https://doi.org/10.3102/1076998611411915.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

CONFIDENCE = 0.95
NUM_RESAMPLES = 4000


_CHUNK_VALUES = 4_000_000  # counts in memory at a time


@dataclass(frozen=True)
class Outcomes:
    """Test examples reduced to the kinds of groups that occur.

    Attributes:
        compositions: (S, U) sparse; how many examples of each of U outcomes a group of kind s holds.
        frequencies: (S,) int64; how many groups are of kind s.
    """

    compositions: sparse.csr_array
    frequencies: np.ndarray

    @classmethod
    def count(cls, outcomes: np.ndarray, groups: np.ndarray, num_outcomes: int) -> "Outcomes":
        """Reduce examples to kinds of groups.

        Args:
            outcomes: (N,) int64, 0..U-1: what happened to each example.
            groups: (N,) int64; equal numbers are drawn together.
            num_outcomes: U.
        """
        _, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        alone = sizes[inverse] == 1
        singles = np.bincount(outcomes[alone], minlength=num_outcomes)
        kinds = {((-int(outcome), 1),): int(singles[outcome]) for outcome in np.flatnonzero(singles)}
        together: dict[int, Counter[int]] = {}
        for group, outcome in zip(inverse[~alone].tolist(), outcomes[~alone].tolist(), strict=True):
            together.setdefault(group, Counter())[-outcome] += 1
        # Kinds in the order of their rows, so that the same examples give the same draws.
        shared = Counter(tuple(sorted(found.items(), reverse=True)) for found in together.values())
        return cls._of([*kinds.items(), *sorted(shared.items())], num_outcomes)

    @classmethod
    def _of(cls, kinds: list[tuple[tuple[tuple[int, int], ...], int]], num_outcomes: int) -> "Outcomes":
        rows = [(row, -outcome, count) for row, (kind, _) in enumerate(kinds) for outcome, count in kind]
        places, columns, counts = np.array(rows, np.int64).reshape(-1, 3).T
        compositions = sparse.csr_array((counts.astype(np.float64), (places, columns)), (len(kinds), num_outcomes))
        return cls(compositions, np.array([frequency for _, frequency in kinds], np.int64))

    def with_pseudo_groups(self, outcomes: list[int], each: int) -> "Outcomes":
        """Return the same with `each` more groups of one example for every outcome listed."""
        compositions, frequencies = self.compositions, self.frequencies.copy()
        for outcome in outcomes:
            alone = (compositions.sum(axis=1) == 1) & (compositions[:, [outcome]].toarray()[:, 0] == 1)
            known = np.flatnonzero(alone)
            if len(known):
                frequencies[known[0]] += each
            else:
                extra = sparse.csr_array(([1.0], ([0], [outcome])), (1, compositions.shape[1]))
                compositions = sparse.vstack([compositions, extra], format="csr")
                frequencies = np.append(frequencies, each)
        return Outcomes(compositions, frequencies)

    def resamples(self, seed: int, num_resamples: int = NUM_RESAMPLES) -> Iterator[np.ndarray]:
        """Draw as many groups as there are, with replacement, again and again.

        Yields:
            (n, U) float64; how often each outcome occurs in each resample; together `num_resamples` rows.
        """
        total, rng = int(self.frequencies.sum()), np.random.default_rng(seed)
        chunk = max(1, _CHUNK_VALUES // max(self.compositions.shape))
        for start in range(0, num_resamples, chunk):
            num = min(chunk, num_resamples - start)
            drawn = rng.multinomial(total, self.frequencies / total, size=num)
            yield drawn.astype(np.float64) @ self.compositions

    def resample(self, seed: int, num_resamples: int = NUM_RESAMPLES) -> np.ndarray:
        """Return (num_resamples, U) float64: all of `resamples` at once."""
        return np.concatenate(list(self.resamples(seed, num_resamples)))


def percentile_interval(values: np.ndarray, point: float) -> tuple[float, float]:
    """Return the central 95 % of resampled values, widened where needed so that it holds the point estimate."""
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return float(min(low, point)), float(max(high, point))


def accuracy_interval(correct: np.ndarray, groups: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy.

    Two correct and two wrong pseudo-examples keep it honest where (nearly) everything is right: a plain bootstrap of 50
    correct answers out of 50 would claim certainty.

    Args:
        correct: (N,) bool.
        groups: (N,) int64, equal for identical images.
        seed: Seed of the resampling.
    """
    counted = Outcomes.count(correct.astype(np.int64), groups, 2).with_pseudo_groups([0, 1], each=2)
    drawn = counted.resample(seed)
    return percentile_interval(drawn[:, 1] / drawn.sum(axis=1), float(np.mean(correct)))


def accuracy_difference_interval(
    first: np.ndarray, second: np.ndarray, groups: np.ndarray, seed: int = 0
) -> tuple[float, float]:
    """Return the paired 95 % interval of accuracy(first) - accuracy(second) on the same examples.

    One pseudo-example in each discordant cell does for the difference what `accuracy_interval` does for one accuracy.

    Args:
        first: (N,) bool, where the first model is right.
        second: (N,) bool, where the second model is right.
        groups: (N,) int64, equal for identical images.
        seed: Seed of the resampling.
    """

    def interval(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
        difference = first.astype(np.int64) - second
        counted = Outcomes.count(difference + 1, groups, 3).with_pseudo_groups([0, 2], each=1)
        drawn = counted.resample(seed)
        return percentile_interval((drawn[:, 2] - drawn[:, 0]) / drawn.sum(axis=1), float(np.mean(difference)))

    return swap_symmetric(interval, first, second)


def swap_symmetric(
    interval: Callable[[np.ndarray, np.ndarray], tuple[float, float]], first: np.ndarray, second: np.ndarray
) -> tuple[float, float]:
    """Return an interval of first - second that changes its sign, and nothing else, when the two are swapped.

    Resampling is random, so both orders are computed in the same one, chosen by content.
    """
    if first.tobytes() >= second.tobytes():
        return interval(first, second)
    low, high = interval(second, first)
    return -high, -low
