import dataclasses

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from components.errors import DataError
from components.evaluation.comparison import (
    Comparison,
    compare,
    decide,
    exact_mcnemar,
    grouped_mcnemar,
    holm,
)
from components.evaluation.resampling import accuracy_difference_interval
from tests.evaluation.builders import make_evaluation


@pytest.mark.parametrize("seed", range(12))
def test_mcnemar_agrees_with_statsmodels_and_scipy(seed: int) -> None:
    """The exact p-value equals statsmodels' and scipy's."""
    only_first, only_second = (int(n) for n in np.random.default_rng(seed).integers(0, 60, 2))

    found = exact_mcnemar(only_first, only_second)

    table = [[10, only_first], [only_second, 10]]
    assert mcnemar(table, exact=True).pvalue == pytest.approx(found, rel=1e-9)
    if only_first + only_second:
        expected = stats.binomtest(only_first, only_first + only_second).pvalue
        assert expected == pytest.approx(found, rel=1e-9)


def test_mcnemar_without_a_disagreement_is_one() -> None:
    """Two models that are right and wrong together are not different."""
    assert 1.0 == exact_mcnemar(0, 0)


def test_identical_images_count_once() -> None:
    """Ten copies of one disagreement are one disagreement."""
    first, second = np.ones(10, bool), np.zeros(10, bool)

    assert 1.0 == grouped_mcnemar(first, second, np.zeros(10, int))
    assert exact_mcnemar(10, 0) == grouped_mcnemar(first, second, np.arange(10))


@pytest.mark.parametrize("seed", range(6))
def test_holm_agrees_with_statsmodels(seed: int) -> None:
    """Corrected p-values equal statsmodels', ties included."""
    p_values = np.random.default_rng(seed).random(1 + seed) ** 2
    p_values[-1] = p_values[0]

    assert multipletests(p_values, method="holm")[1].tolist() == pytest.approx(holm(p_values.tolist()))


def _difference(first: np.ndarray, second: np.ndarray, groups: np.ndarray, dataset: str = "a") -> Comparison:
    difference = first.astype(int) - second
    return Comparison(
        dataset=dataset,
        first="mlp",
        second="resnet18",
        accuracies=(float(first.mean()), float(second.mean())),
        num_examples=len(first),
        accuracy_difference=float(difference.mean()),
        accuracy_difference_ci95=accuracy_difference_interval(first, second, groups),
        macro_f1_difference=0.0,
        macro_f1_difference_ci95=(0.0, 0.0),
        only_first=int((difference > 0).sum()),
        only_second=int((difference < 0).sum()),
        mcnemar_p=exact_mcnemar(int((difference > 0).sum()), int((difference < 0).sum())),
        grouped_p=grouped_mcnemar(first, second, groups),
    )


@pytest.mark.parametrize(
    ("num_groups", "copies", "num_datasets"),
    [
        (400, 1, 1),
        (150, 4, 1),
        pytest.param(60, 1, 1, marks=pytest.mark.slow),
        pytest.param(400, 1, 2, marks=pytest.mark.slow),
        pytest.param(2000, 1, 2, marks=pytest.mark.slow),
    ],
)
def test_equal_models_are_rarely_called_different(num_groups: int, copies: int, num_datasets: int) -> None:
    """In 1,000 simulations of two equally good models at most 5 % name a winner on any dataset."""
    rng = np.random.default_rng(num_groups + copies + num_datasets)
    groups = np.repeat(np.arange(num_groups), copies)
    called = 0
    for _ in range(1000):
        easy = rng.random((num_datasets, num_groups)) < 0.7
        ones, others = (easy | (rng.random((num_datasets, num_groups)) < 0.5) for _ in range(2))
        compared = [
            _difference(np.repeat(one, copies), np.repeat(other, copies), groups)
            for one, other in zip(ones, others, strict=True)
        ]
        called += any(c.winner for c in decide(compared))

    assert called <= 50


def test_a_real_difference_is_found() -> None:
    """Five points on two thousand images are seen nearly always, and the right approach wins."""
    rng = np.random.default_rng(0)
    winners = []
    for _ in range(50):
        first, second = rng.random(2000) < 0.85, rng.random(2000) < 0.9
        winners.append(decide([_difference(first, second, np.arange(2000))])[0].winner)

    assert winners.count("resnet18") >= 48
    assert "mlp" not in winners


def test_swapping_predictions_flips_every_sign_and_the_winner() -> None:
    """With the two models' answers exchanged, differences, intervals and winner are mirrored."""
    first = make_evaluation("mlp", accuracy=0.8, seed=1)
    second = make_evaluation("resnet18", accuracy=0.9, seed=2)
    swapped = [
        dataclasses.replace(second, record={**second.record, "approach": "mlp"}),
        dataclasses.replace(first, record={**first.record, "approach": "resnet18"}),
    ]

    (one,), (other,) = decide([compare(first, second)]), decide([compare(*swapped)])

    assert ("resnet18", "mlp") == (one.winner, other.winner)
    assert one.accuracy_difference == -other.accuracy_difference
    assert one.macro_f1_difference == -other.macro_f1_difference
    for key in ("accuracy_difference_ci95", "macro_f1_difference_ci95"):
        low, high = getattr(one, key)
        assert (-high, -low) == getattr(other, key)
    assert (one.only_first, one.only_second) == (other.only_second, other.only_first)
    assert one.mcnemar_p == other.mcnemar_p


def test_the_order_of_the_arguments_does_not_matter() -> None:
    """Artifacts arrive in any order; the comparison is the same."""
    first, second = make_evaluation("mlp", seed=1), make_evaluation("resnet18", seed=2)

    assert compare(first, second) == compare(second, first)


@pytest.mark.parametrize("discordant", [0.05, 0.15])
def test_power_is_that_of_the_exact_test(discordant: float) -> None:
    """Whatever McNemar's exact test at 0.05 finds is named: the interval never takes it back where images are single."""
    rng = np.random.default_rng(2)
    for _ in range(300):
        draw = rng.random(800)
        first, second = draw > discordant * 0.35, (draw < discordant * 0.35) | (draw > discordant)
        (found,) = decide([_difference(first, second, np.arange(800))])

        assert (found.winner is not None) == (found.mcnemar_p < 0.05)


def test_evaluations_of_different_images_are_not_compared() -> None:
    """Two test sets of the same name but other labels stop the comparison."""
    with pytest.raises(DataError, match="must be of the same test images"):
        compare(make_evaluation("mlp", data_seed=0), make_evaluation("resnet18", data_seed=1))


def test_verdict_names_the_winner_with_its_interval() -> None:
    """A decided verdict gives winner, difference, interval, both accuracies and the number of images."""
    comparison = _difference(np.arange(1000) < 700, np.arange(1000) < 900, np.arange(1000), "fashion-mnist")

    (found,) = decide([comparison])

    assert "resnet18" == found.winner
    assert found.verdict.startswith(
        "On fashion-mnist, ResNet18 is more accurate than MLP by 20.0 points (95 % interval 17."
    )
    assert found.verdict.endswith("90.0 % against 70.0 % of 1,000 held-out images.")


def test_verdict_claims_nothing_where_the_interval_includes_zero() -> None:
    """An undecided verdict names no better approach and gives the range that remains possible."""
    rng = np.random.default_rng(3)
    comparison = _difference(rng.random(300) < 0.8, rng.random(300) < 0.8, np.arange(300), "fashion-mnist")

    (found,) = decide([comparison])

    assert found.winner is None
    assert "do not show which approach is more accurate" in found.verdict
    assert "is more accurate than" not in found.verdict


def test_correction_for_several_datasets_can_undo_a_winner() -> None:
    """A difference that only just passes alone does not pass beside a second dataset without any difference."""
    first, second = np.ones(400, bool), np.ones(400, bool)
    second[:18], first[20:27] = False, False
    borderline = _difference(first, second, np.arange(400))
    nothing = _difference(first, first, np.arange(400), "b")

    assert "mlp" == decide([borderline])[0].winner
    undecided = decide([borderline, nothing])[0]

    assert undecided.winner is None
    assert "after correction for 2 datasets" in undecided.verdict
