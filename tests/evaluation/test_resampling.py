import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from components.evaluation.metrics import macro_f1
from components.evaluation.resampling import (
    Outcomes,
    accuracy_difference_interval,
    accuracy_interval,
    macro_f1_difference,
    macro_f1_interval,
)


def _share_covered(intervals: list[tuple[float, float]], truth: float) -> float:
    return float(np.mean([low <= truth <= high for low, high in intervals]))


@pytest.mark.parametrize(("num_examples", "accuracy"), [(100, 0.9), (500, 0.85), (2000, 0.97)])
def test_accuracy_intervals_cover_the_truth_as_often_as_they_say(num_examples: int, accuracy: float) -> None:
    """In 2,000 simulated test sets the 95 % interval holds the true accuracy 93 to 97 % of the time."""
    rng = np.random.default_rng(num_examples)
    groups = np.arange(num_examples)

    intervals = [accuracy_interval(rng.random(num_examples) < accuracy, groups) for _ in range(2000)]

    assert 0.93 <= _share_covered(intervals, accuracy) <= 0.97


@pytest.mark.parametrize(("num_examples", "only_first", "only_second"), [(200, 0.1, 0.06), (1000, 0.05, 0.05)])
def test_paired_intervals_cover_the_truth(num_examples: int, only_first: float, only_second: float) -> None:
    """The interval of the difference holds the true one 93 to 97 % of the time, whatever the two have in common."""
    rng = np.random.default_rng(num_examples + 1)
    groups, intervals = np.arange(num_examples), []
    for _ in range(2000):
        draw = rng.random(num_examples)
        first = (draw < only_first) | (draw > 0.3)
        second = ((draw >= only_first) & (draw < only_first + only_second)) | (draw > 0.3)
        intervals.append(accuracy_difference_interval(first, second, groups))

    assert 0.93 <= _share_covered(intervals, only_first - only_second) <= 0.97


SIZES = {
    "fours": lambda _, n: np.full(n, 4),
    "1 to 20": lambda rng, n: rng.integers(1, 21, n),
    "geometric": lambda rng, n: rng.geometric(0.25, n),
    "log-normal": lambda rng, n: np.maximum(1, rng.lognormal(1, 1, n)).astype(int),
    "some of 20": lambda _, n: np.where(np.arange(n) < n // 10, 20, 1),
    "products": lambda rng, n: np.where(rng.random(n) < 0.03, rng.integers(2, 5, n), 1),
}
"""How many copies images have; the last as in the product catalogue."""


@pytest.mark.parametrize("accuracy", [0.8, 0.95])
@pytest.mark.parametrize("num_groups", [60, 300])
@pytest.mark.parametrize("sizes", SIZES)
def test_intervals_respect_groups_of_identical_images(sizes: str, num_groups: int, accuracy: float) -> None:
    """However unequal the groups, down to 60 of them, an accuracy's interval holds the truth 92 to 98 % of the time, a difference's at least 92 %."""
    rng = np.random.default_rng(num_groups)
    copies = SIZES[sizes](rng, num_groups)
    groups = np.repeat(np.arange(num_groups), copies)
    right = [np.repeat(rng.random(num_groups) < accuracy, copies) for _ in range(1500)]
    other = [np.where(np.repeat(rng.random(num_groups) < 0.8, copies), one, ~one) for one in right]

    single = [accuracy_interval(one, groups) for one in right]
    paired = [accuracy_difference_interval(one, two, groups) for one, two in zip(right, other, strict=True)]

    assert 0.92 <= _share_covered(single, accuracy) <= 0.98
    assert 0.92 <= _share_covered(paired, 0.2 * (2 * accuracy - 1))


def test_single_examples_would_claim_too_much() -> None:
    """Where images come in fours, intervals that take each for evidence hold the truth less than 80 % of the time."""
    rng = np.random.default_rng(4)
    samples = [np.repeat(rng.random(150) < 0.8, 4) for _ in range(400)]

    assert _share_covered([accuracy_interval(correct, np.arange(600)) for correct in samples], 0.8) < 0.8


@pytest.mark.parametrize(("right", "num_examples"), [(45, 50), (50, 50), (0, 30), (970, 1000)])
def test_without_copies_the_interval_is_wilsons(right: int, num_examples: int) -> None:
    """The interval of single images equals statsmodels'."""
    found = accuracy_interval(np.arange(num_examples) < right, np.arange(num_examples))

    assert proportion_confint(right, num_examples, method="wilson") == pytest.approx(found, abs=1e-12)


def test_resampling_counts_equals_resampling_examples() -> None:
    """The multinomial draw has the mean and spread of drawing whole groups of examples one by one."""
    rng = np.random.default_rng(0)
    groups = np.append(np.arange(40), np.repeat(np.arange(40, 60), 3))
    outcomes = rng.integers(0, 3, len(groups))

    found = np.concatenate(list(Outcomes.count(outcomes, groups, 3).resamples(1, 20_000)))

    members = [np.bincount(outcomes[groups == g], minlength=3) for g in range(60)]
    drawn = np.asarray(members)[rng.integers(0, 60, (20_000, 60))].sum(axis=1)
    np.testing.assert_allclose(drawn.mean(axis=0), found.mean(axis=0), rtol=0.01)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(found.T), atol=1.5)


@pytest.mark.parametrize("right", [True, False])
def test_a_perfect_score_is_not_certain(right: bool) -> None:
    """Fifty right answers of fifty leave room below, fifty wrong ones above, and the interval holds the point."""
    low, high = accuracy_interval(np.full(50, right), np.arange(50))

    assert (low < 0.97, high) == (True, 1.0) if right else (low, high > 0.03) == (0.0, True)


def test_two_identical_models_have_a_difference_around_zero() -> None:
    """Without a single disagreement the interval still admits a small difference either way."""
    correct = np.arange(200) % 5 > 0

    low, high = accuracy_difference_interval(correct, correct, np.arange(200))

    assert low < 0 < high
    assert high < 0.03


def test_swapping_the_models_flips_the_signs_exactly() -> None:
    """The interval of second - first is the mirror image of the interval of first - second."""
    rng = np.random.default_rng(2)
    first, second = rng.random(300) < 0.8, rng.random(300) < 0.7
    groups = np.arange(300) // 2

    low, high = accuracy_difference_interval(first, second, groups)

    assert (-high, -low) == accuracy_difference_interval(second, first, groups)


def test_the_same_input_gives_the_same_interval() -> None:
    """Nothing but the examples decides an interval."""
    correct = np.random.default_rng(1).random(500) < 0.9

    assert accuracy_interval(correct, np.arange(500)) == accuracy_interval(correct, np.arange(500))


def _macro_f1_coverage(
    first: np.ndarray, second: np.ndarray, labels: np.ndarray, num_classes: int, num_images: int, num_tests: int
) -> tuple[float, float]:
    """Draw test sets from a population: how often the interval of a macro F1 and that of a difference hold the population's."""
    everybody, groups = np.arange(len(labels)), np.arange(num_images)
    truth, (difference, _) = (
        macro_f1(first, labels, num_classes),
        macro_f1_difference(first, second, labels, everybody, num_classes),
    )
    rng = np.random.default_rng(1)
    singles, differences = [], []
    for _ in range(num_tests):
        chosen = rng.integers(0, len(labels), num_images)
        one, other, drawn = first[chosen], second[chosen], labels[chosen]
        singles.append(macro_f1_interval(one, drawn, groups, num_classes))
        differences.append(macro_f1_difference(one, other, drawn, groups, num_classes)[1])
    return _share_covered(singles, truth), _share_covered(differences, difference)


def test_macro_f1_intervals_cover_the_truth() -> None:
    """The intervals of a macro F1 and of a difference hold the figures of the large population they were drawn from."""
    rng = np.random.default_rng(5)
    size, num_classes = 200_000, 4
    labels = rng.integers(0, num_classes, size)
    first, second = (
        np.where(rng.random(size) < right, labels, rng.integers(0, num_classes, size)) for right in (0.85, 0.80)
    )

    single, difference = _macro_f1_coverage(first, second, labels, num_classes, num_images=400, num_tests=300)

    assert 0.92 <= single <= 0.98
    assert 0.92 <= difference <= 0.98


@pytest.mark.slow
def test_macro_f1_intervals_cover_less_with_many_rare_classes() -> None:
    """With the catalogue's classes, half of them with a handful of images, the intervals hold the truth less often."""
    rng = np.random.default_rng(7)
    counts = np.repeat(
        [15383, 7323, 3053, 2600, 1800, 1000, 450, 280, 110, 50, 20, 6, 1], [1, 1, 1, 2, 1, 7, 4, 4, 7, 3, 5, 7, 2]
    )
    shares, num_classes = counts / counts.sum(), len(counts)
    mistakes = np.select([counts > 2000, counts > 700, counts > 200], [0.02, 0.04, 0.12], 0.35)
    labels = rng.choice(num_classes, 2_000_000, p=shares)
    first, second = (
        np.where(rng.random(len(labels)) < share[labels], rng.choice(num_classes, len(labels), p=shares), labels)
        for share in (mistakes, 1.3 * mistakes)
    )

    single, difference = _macro_f1_coverage(first, second, labels, num_classes, num_images=6_614, num_tests=400)

    assert 0.85 <= single <= 0.97
    assert 0.85 <= difference <= 0.97
