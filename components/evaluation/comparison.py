"""Two approaches are compared on the same held-out images by paired differences and tests, and a sentence says what follows."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr

from components.errors import DataError
from components.evaluation.evaluate import Evaluation
from components.evaluation.resampling import accuracy_difference_interval, macro_f1_difference
from components.text import approach_name, clean, p_value, percent, points

SIGNIFICANCE = 0.05
"""Corrected p-value below which a difference counts: the exact test errs in at most 5 % of cases, less where counts are small."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Differences are first - second.

    Attributes:
        dataset: Name of the dataset.
        first: Approach that comes first in the alphabet.
        second: The other one.
        accuracies: Accuracy of the two.
        num_examples: Test examples, the same for both.
        accuracy_difference: Accuracy of `first` minus that of `second`.
        accuracy_difference_ci95: Paired interval that counts identical images as one piece of evidence.
        macro_f1_difference: Macro F1 of `first` minus that of `second`.
        macro_f1_difference_ci95: Paired bootstrap interval over groups of identical images; see docs/verdict.md for its coverage.
        only_first: Examples that only the first gets right.
        only_second: Examples that only the second gets right.
        mcnemar_p: Exact McNemar over examples.
        grouped_p: The same over groups of identical images: no image counts twice.
        corrected_p: `grouped_p` after Holm's correction for the datasets of the run.
        winner: The better approach, or None where the images do not tell.
        verdict: One sentence.
    """

    dataset: str
    first: str
    second: str
    accuracies: tuple[float, float]
    num_examples: int
    accuracy_difference: float
    accuracy_difference_ci95: tuple[float, float]
    macro_f1_difference: float
    macro_f1_difference_ci95: tuple[float, float]
    only_first: int
    only_second: int
    mcnemar_p: float
    grouped_p: float
    corrected_p: float = 1.0
    winner: str | None = None
    verdict: str = ""


def exact_mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided exact p-value of McNemar's test from its two discordant counts."""
    discordant = only_first + only_second
    return float(min(1.0, 2.0 * bdtr(min(only_first, only_second), discordant, 0.5))) if discordant else 1.0


def grouped_mcnemar(first: np.ndarray, second: np.ndarray, groups: np.ndarray) -> float:
    """Return McNemar's exact p-value where each group of identical images counts once.

    Args:
        first: (N,) bool, where the first model is right.
        second: (N,) bool, where the second model is right.
        groups: (N,) int64.
    """
    return exact_mcnemar(*discordant_groups(first, second, groups))


def discordant_groups(first: np.ndarray, second: np.ndarray, groups: np.ndarray) -> tuple[int, int]:
    """Return how many groups of identical images speak for the first model and how many for the second.

    Args:
        first: (N,) bool, where the first model is right.
        second: (N,) bool, where the second model is right.
        groups: (N,) int64.
    """
    _, inverse = np.unique(groups, return_inverse=True)
    balance = np.bincount(inverse, first.astype(np.float64) - second)
    return int((balance > 0).sum()), int((balance < 0).sum())


def exact_p_better(gained: np.ndarray | int, lost: np.ndarray | int) -> np.ndarray:
    """Return McNemar's exact one-sided p-value: how often two equal models differ so much in favour of the first.

    Args:
        gained: Images that only the first model gets right, any shape.
        lost: Images that only the second model gets right, the same shape.
    """
    discordant = np.add(gained, lost)
    return np.where(discordant > 0, bdtr(np.asarray(lost, float), discordant, 0.5), 1.0)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number.

    Source: Holm (1979), A Simple Sequentially Rejective Multiple Test Procedure, https://www.jstor.org/stable/4615733
    """
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    corrected = np.minimum(np.maximum.accumulate(np.asarray(p_values, float)[order] * factors), 1.0)
    return [float(p) for p in corrected[np.argsort(order, kind="stable")]]


def compare(one: Evaluation, other: Evaluation) -> Comparison:
    """Compare two evaluations; winner and verdict come with `decide`, which sees every dataset of the run.

    Args:
        one: Either approach.
        other: The other approach on the same test data.

    Raises:
        DataError: They were not scored on the same examples.
    """
    first, second = sorted((one, other), key=lambda evaluation: evaluation.approach)
    check_same_examples(first, second)
    difference = first.correct.astype(np.int64) - second.correct
    f1_difference, f1_interval = macro_f1_difference(
        first.predictions, second.predictions, first.labels, first.groups, len(first.classes)
    )
    only_first, only_second = int((difference > 0).sum()), int((difference < 0).sum())
    return Comparison(
        dataset=first.dataset,
        first=first.approach,
        second=second.approach,
        accuracies=(float(first.correct.mean()), float(second.correct.mean())),
        num_examples=len(first.labels),
        accuracy_difference=float(difference.mean()),
        accuracy_difference_ci95=accuracy_difference_interval(first.correct, second.correct, first.groups),
        macro_f1_difference=f1_difference,
        macro_f1_difference_ci95=f1_interval,
        only_first=only_first,
        only_second=only_second,
        mcnemar_p=exact_mcnemar(only_first, only_second),
        grouped_p=grouped_mcnemar(first.correct, second.correct, first.groups),
    )


def check_same_examples(first: Evaluation, second: Evaluation) -> None:
    """Raise `DataError` unless both were scored on the same examples in the same order."""
    same = (
        first.dataset == second.dataset
        and first.classes == second.classes
        and np.array_equal(first.labels, second.labels)
        and np.array_equal(first.groups, second.groups)
    )
    if not same:
        raise DataError(
            f"evaluations of {first.approach} and {second.approach} must be of the same test images; got"
            f" {len(first.labels)} of {first.dataset} and {len(second.labels)} of {second.dataset}. Run both again on one ingest"
        )


def decide(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Name winners and write verdicts, corrected for the number of datasets.

    An approach wins where the interval of the difference excludes zero and McNemar's corrected p-value is below 0.05; either
    alone is not enough.

    Args:
        comparisons: One per dataset of the run.
    """
    corrected = holm([c.grouped_p for c in comparisons]) if comparisons else []
    decided = []
    for comparison, p in zip(comparisons, corrected, strict=True):
        low, high = comparison.accuracy_difference_ci95
        winner = None
        if p < SIGNIFICANCE and (low > 0 or high < 0):
            winner = comparison.first if low > 0 else comparison.second
        corrected_comparison = dataclasses.replace(comparison, corrected_p=p, winner=winner)
        decided.append(
            dataclasses.replace(corrected_comparison, verdict=verdict(corrected_comparison, len(comparisons)))
        )
    return decided


def verdict(comparison: Comparison, num_datasets: int = 1) -> str:
    """Return one plain sentence on a comparison whose winner and corrected p-value are set."""
    low, high = comparison.accuracy_difference_ci95
    names = approach_name(comparison.first), approach_name(comparison.second)
    where = f"On {clean(comparison.dataset, 100)}"
    scores = dict(zip((comparison.first, comparison.second), comparison.accuracies, strict=True))
    if comparison.winner:
        loser = comparison.second if comparison.winner == comparison.first else comparison.first
        smallest, largest = sorted((abs(low), abs(high)))
        return (
            f"{where}, {approach_name(comparison.winner)} is more accurate than {approach_name(loser)} by"
            f" {points(comparison.accuracy_difference)} points (95 % interval {points(smallest)} to {points(largest)}):"
            f" {percent(scores[comparison.winner])} against {percent(scores[loser])} of"
            f" {comparison.num_examples:,} held-out images."
        )
    got = f"{names[0]} got {percent(comparison.accuracies[0])}, {names[1]} {percent(comparison.accuracies[1])}"
    if low > 0 or high < 0:
        correction = f" after correction for {num_datasets} datasets" if num_datasets > 1 else ""
        return (
            f"{where}, these {comparison.num_examples:,} held-out images do not settle which approach is more accurate: {got},"
            f" but the difference does not pass McNemar's test{correction} ({p_value(comparison.corrected_p)}, where below"
            f" {SIGNIFICANCE} counts)."
        )
    return (
        f"{where}, these {comparison.num_examples:,} held-out images do not show which approach is more accurate: {got},"
        f" and the true difference may be anything {_range(low, high, names)} (95 % interval)."
    )


def _range(low: float, high: float, names: tuple[str, str]) -> str:
    ends = []
    for end in (low, high):
        ahead = names[0] if end > 0 else names[1]
        ends.append("none" if end == 0 else f"{ahead} ahead by {points(end)} points")
    return f"from {ends[0]} to {ends[1]}"
