"""No class loses: what losses are stopped how often, and how often a model that loses nothing is."""

import numpy as np
import pytest

from components.evaluation.champion.challenges import next_alpha
from components.evaluation.champion.class_losses import MIN_SUPPORT, margin, possible_losses, rules_out_loss, units
from components.evaluation.comparison import exact_p_better

NUM_DRAWS = 20_000
PRODUCTS = np.repeat(
    [2332, 1098, 458, 403, 381, 271, 162, 150, 139, 122, 105, 71, 64, 43, 39, 17, 7, 3, 1],
    [1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 2, 2, 2, 2, 6, 4, 3, 9],
)
"""Test images of the product catalogue's classes, nearly."""


def draw(rng: np.random.Generator, num_images: int, discordant: float, loss: float) -> tuple[np.ndarray, np.ndarray]:
    """Return how many images are won and lost by challengers that lose a share of a class."""
    shares = [discordant / 2, discordant / 2 + loss, 1 - discordant - loss]
    counts = rng.multinomial(num_images, shares, size=NUM_DRAWS)
    return counts[:, 0], counts[:, 1]


def stopped(rng: np.random.Generator, num_images: int, discordant: float, loss: float) -> float:
    """Return how often a challenger is stopped because of one class."""
    return float((~rules_out_loss(*draw(rng, num_images, discordant, loss), num_images)).mean())


@pytest.mark.parametrize(
    ("num_images", "discordant"), [(n, d) for n in (30, 100, 200, 576, 2332) for d in (0.024, 0.1, 0.2)]
)
def test_a_loss_as_large_as_the_margin_is_stopped(num_images: int, discordant: float) -> None:
    """Whoever really loses the margin gets through at most about 1 time in 20 (in 12 with 30 images: there counts are coarse)."""
    found = stopped(np.random.default_rng(num_images), num_images, discordant, float(margin(num_images)))

    assert found >= (0.92 if num_images == 30 else 0.93)


@pytest.mark.parametrize(("num_images", "before", "least"), [(30, 0.005, 0.55), (100, 0.17, 0.85), (200, 0.57, 0.97)])
def test_ten_points_are_stopped_more_often_than_by_a_veto(num_images: int, before: float, least: float) -> None:
    """A true loss of ten points is stopped with the probability that docs/verdict.md states."""
    found = stopped(np.random.default_rng(num_images), num_images, 0.024, 0.1)

    assert found >= least > before


def test_nine_of_thirty_are_not_lost_outright() -> None:
    """A class of 30 images that loses 9, or 5, and wins none stops the challenger; 2 are within its margin."""
    assert [False, False, True] == [bool(rules_out_loss(0, lost, 30)) for lost in (9, 5, 2)]


@pytest.mark.parametrize("num_images", [30, 100, 200, 576, 2332])
def test_an_equal_model_is_seldom_stopped(num_images: int) -> None:
    """Where the models differ on 2.4 % of a class, one that loses nothing is stopped at most once in 100 times."""
    assert stopped(np.random.default_rng(num_images), num_images, 0.024, 0.0) <= 0.01


@pytest.mark.parametrize("by_error", [False, True])
def test_a_better_model_gets_through_both_rules(by_error: bool) -> None:
    """On the catalogue's classes a model better by a point is promoted within two challenges in 9 of 10 years, at a year's end."""
    rng = np.random.default_rng(3)
    mistakes = np.select([PRODUCTS > 300, PRODUCTS > 100, PRODUCTS > 30], [0.02, 0.04, 0.12], 0.35)
    weights = mistakes / (mistakes @ PRODUCTS / PRODUCTS.sum()) if by_error else np.ones(len(PRODUCTS))
    shape = (4_000, 2)
    lost = np.stack([rng.binomial(n, 0.007 * w, shape) for n, w in zip(PRODUCTS, weights, strict=True)], axis=-1)
    gained = np.stack([rng.binomial(n, 0.017 * w, shape) for n, w in zip(PRODUCTS, weights, strict=True)], axis=-1)

    proven = exact_p_better(gained.sum(axis=-1), lost.sum(axis=-1)) <= next_alpha(52)
    for unit in units(PRODUCTS):
        proven &= rules_out_loss(gained[..., unit].sum(axis=-1), lost[..., unit].sum(axis=-1), PRODUCTS[unit].sum())
    assert proven.any(axis=1).mean() >= 0.97


def test_every_class_is_judged_once() -> None:
    """Large classes alone, the others together; a few that are too few even together join the next larger one."""
    assert [[3, 4], [0], [1], [2]] == [u.tolist() for u in units(np.array([30, 200, 31, 29, 2, 0]))]
    assert [[0, 2], [1]] == [u.tolist() for u in units(np.array([30, 200, 5]))]
    assert [[0, 1]] == [u.tolist() for u in units(np.array([4, 5]))]
    assert [[0], [1]] == [u.tolist() for u in units(np.array([30, 31]))]
    judged = np.concatenate(units(PRODUCTS))
    assert list(range(len(PRODUCTS))) == sorted(judged.tolist())
    assert 1 + (PRODUCTS >= MIN_SUPPORT).sum() == len(units(PRODUCTS))


def test_copies_count_once() -> None:
    """Forty copies of one lost picture are one lost picture."""
    labels = np.zeros(140, int)
    held, won = np.ones(140, bool), np.arange(140) >= 40
    groups = np.where(np.arange(140) < 40, 0, np.arange(140))

    assert [] == possible_losses(won, held, labels, groups)
    (loss,) = possible_losses(won, held, labels, np.arange(140))
    assert (40, 0, 140, (0,)) == (loss.lost, loss.gained, loss.num_images, loss.labels)
