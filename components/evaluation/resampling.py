"""These 95 % intervals over test examples respect groups of identical images.

A model answers alike for identical images, so groups are the evidence, not examples. For an accuracy that is exact: groups of
sizes m carry as much as (sum m)^2 / sum m^2 single images (Kish's effective sample size), and intervals for single images apply.
For macro F1 groups are drawn with replacement. A statistic that only depends on how often each kind of outcome occurs needs no
array of resampled examples: resampling n groups with replacement *is* a multinomial draw over the distinct groups, so thousands of
resamples of any test set cost milliseconds.

Source: Kish, Survey Sampling (1965), section 8.2; Wilson (1927), https://doi.org/10.1080/01621459.1927.10502953; Bonett and Price
(2012), https://doi.org/10.3102/1076998611411915; Efron and Tibshirani, An Introduction to the Bootstrap, chapters 8 and 13.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.special import ndtri

from components.evaluation.metrics import macro_f1, mean_over_present, scores_from_counts

CONFIDENCE = 0.95
NUM_RESAMPLES = 2000

_Z = float(ndtri((1 + CONFIDENCE) / 2))

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
        shared = Counter(tuple(sorted(outcome_counts.items(), reverse=True)) for outcome_counts in together.values())
        return cls._of([*kinds.items(), *sorted(shared.items())], num_outcomes)

    @classmethod
    def _of(cls, kinds: list[tuple[tuple[tuple[int, int], ...], int]], num_outcomes: int) -> "Outcomes":
        rows = [(row, -outcome, count) for row, (kind, _) in enumerate(kinds) for outcome, count in kind]
        places, columns, counts = np.array(rows, np.int64).reshape(-1, 3).T
        compositions = sparse.csr_array((counts.astype(np.float64), (places, columns)), (len(kinds), num_outcomes))
        return cls(compositions, np.array([frequency for _, frequency in kinds], np.int64))

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


def percentile_interval(values: np.ndarray, point: float) -> tuple[float, float]:
    """Return the central 95 % of resampled values, widened where needed so that it holds the point estimate."""
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return float(min(low, point)), float(max(high, point))


def effective_size(groups: np.ndarray) -> float:
    """Return how many single images groups of identical images are worth; `groups` is (N,) int64."""
    sizes = np.unique(groups, return_counts=True)[1].astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes @ sizes))


def accuracy_interval(correct: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy, Wilson's at the effective sample size.

    Args:
        correct: (N,) bool.
        groups: (N,) int64, equal for identical images.
    """
    n, share = effective_size(groups), float(np.mean(correct))
    weight = _Z**2 / n
    centre = (share + weight / 2) / (1 + weight)
    half = _Z * np.sqrt(share * (1 - share) / n + weight / (4 * n)) / (1 + weight)
    return max(0.0, min(share, float(centre - half))), min(1.0, max(share, float(centre + half)))


def accuracy_difference_interval(first: np.ndarray, second: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Return the paired 95 % interval of accuracy(first) - accuracy(second) on the same examples.

    Bonett's and Price's at the effective sample size: a pseudo-example in each discordant cell keeps it honest where the two
    models (nearly) agree.

    Args:
        first: (N,) bool, where the first model is right.
        second: (N,) bool, where the second model is right.
        groups: (N,) int64, equal for identical images.
    """
    n = effective_size(groups)
    won, lost = float(np.mean(first & ~second)), float(np.mean(second & ~first))
    smoothed_won, smoothed_lost = (n * won + 1) / (n + 2), (n * lost + 1) / (n + 2)
    centre, point = smoothed_won - smoothed_lost, won - lost
    half = _Z * float(np.sqrt((smoothed_won + smoothed_lost - centre**2) / (n + 2)))
    return min(point, centre - half), max(point, centre + half)


def macro_f1_interval(
    predictions: np.ndarray, labels: np.ndarray, groups: np.ndarray, num_classes: int
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a macro F1.

    Args:
        predictions: (N,) int64.
        labels: (N,) int64.
        groups: (N,) int64, equal for identical images.
        num_classes: Number of classes, K.
    """
    (values,) = _resampled_macro_f1([predictions], labels, groups, num_classes)
    return percentile_interval(values, macro_f1(predictions, labels, num_classes))


def macro_f1_difference(
    first: np.ndarray, second: np.ndarray, labels: np.ndarray, groups: np.ndarray, num_classes: int
) -> tuple[float, tuple[float, float]]:
    """Return macro F1(first) - macro F1(second) and its paired 95 % bootstrap interval.

    Args:
        first: (N,) int64, predictions of the first model.
        second: (N,) int64, predictions of the second model.
        labels: (N,) int64.
        groups: (N,) int64, equal for identical images.
        num_classes: Number of classes, K.
    """

    def difference(one: np.ndarray, other: np.ndarray) -> float:
        return macro_f1(one, labels, num_classes) - macro_f1(other, labels, num_classes)

    def interval(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
        ours, theirs = _resampled_macro_f1([one, other], labels, groups, num_classes)
        return percentile_interval(ours - theirs, difference(one, other))

    return difference(first, second), swap_symmetric(interval, first, second)


def _resampled_macro_f1(
    answers: Sequence[np.ndarray], labels: np.ndarray, groups: np.ndarray, num_classes: int
) -> np.ndarray:
    """Return (M, R) float64: the macro F1 of M models' predictions, each (N,) int64, in R resamples that they share."""

    def indicator(classes: np.ndarray, weights: np.ndarray | None = None) -> sparse.csr_array:
        weights = np.ones(len(classes)) if weights is None else weights.astype(np.float64)
        return sparse.csr_array((weights, (np.arange(len(classes)), classes)), (len(classes), num_classes))

    shape = (num_classes,) * (1 + len(answers))
    cells, outcomes = np.unique(np.ravel_multi_index((labels, *answers), shape), return_inverse=True)
    label, *told = np.unravel_index(cells, shape)
    true = indicator(label)
    counted = [(indicator(label, label == answer), indicator(answer)) for answer in told]
    values = []
    for counts in Outcomes.count(outcomes, groups, len(cells)).resamples(0):
        support = counts @ true
        scores = [scores_from_counts(counts @ hits, support, counts @ answer) for hits, answer in counted]
        values.append([mean_over_present(found["f1"], support) for found in scores])
    return np.concatenate(values, axis=1)


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
