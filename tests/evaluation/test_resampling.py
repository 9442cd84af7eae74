import numpy as np
import pytest

from components.evaluation.resampling import Outcomes, accuracy_difference_interval, accuracy_interval


def _share_covered(intervals: list[tuple[float, float]], truth: float) -> float:
    return float(np.mean([low <= truth <= high for low, high in intervals]))


@pytest.mark.parametrize(("num_examples", "accuracy"), [(100, 0.9), (500, 0.85), (2000, 0.97)])
def test_accuracy_intervals_cover_the_truth_as_often_as_they_say(num_examples: int, accuracy: float) -> None:
    """In 1,000 simulated test sets the 95 % interval holds the true accuracy 93 to 97 % of the time."""
    rng = np.random.default_rng(num_examples)
    groups = np.arange(num_examples)

    intervals = [accuracy_interval(rng.random(num_examples) < accuracy, groups, seed) for seed in range(1000)]

    assert 0.93 <= _share_covered(intervals, accuracy) <= 0.97


@pytest.mark.parametrize(("num_examples", "only_first", "only_second"), [(200, 0.1, 0.06), (1000, 0.05, 0.05)])
def test_paired_intervals_cover_the_truth(num_examples: int, only_first: float, only_second: float) -> None:
    """The interval of the difference holds the true one 93 to 97 % of the time, whatever the two have in common."""
    rng = np.random.default_rng(num_examples + 1)
    groups, intervals = np.arange(num_examples), []
    for seed in range(1000):
        draw = rng.random(num_examples)
        first = (draw < only_first) | (draw > 0.3)
        second = ((draw >= only_first) & (draw < only_first + only_second)) | (draw > 0.3)
        intervals.append(accuracy_difference_interval(first, second, groups, seed))

    assert 0.93 <= _share_covered(intervals, only_first - only_second) <= 0.97


def test_intervals_respect_groups_of_identical_images() -> None:
    """Where images come in fours, covering takes wider intervals: groups give 93 to 97 %, single examples do not."""
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(150), 4)
    samples = [np.repeat(rng.random(150) < 0.8, 4) for _ in range(400)]

    grouped = [accuracy_interval(correct, groups, seed) for seed, correct in enumerate(samples)]
    single = [accuracy_interval(correct, np.arange(600), seed) for seed, correct in enumerate(samples)]

    assert 0.93 <= _share_covered(grouped, 0.8) <= 0.97
    assert _share_covered(single, 0.8) < 0.8


def test_resampling_counts_equals_resampling_examples() -> None:
    """The multinomial draw has the mean and spread of drawing whole groups of examples one by one."""
    rng = np.random.default_rng(0)
    groups = np.append(np.arange(40), np.repeat(np.arange(40, 60), 3))
    outcomes = rng.integers(0, 3, len(groups))

    found = Outcomes.count(outcomes, groups, 3).resample(1, 20_000)

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
