"""A test of non-inferiority decides, class by class, whether a challenger that is better overall loses too much.

The burden of proof lies with the challenger: on every class the images must rule out, at 0.95, that it loses more than the class's
margin. The margin follows from what the number of images n can tell: 120 / sqrt(n) points, but no less than 5. Classes with fewer
than 30 images are judged together.

Source: the score test for paired proportions of Nam (1997), https://doi.org/10.2307/2533508, and Tango (1998),
https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

MIN_SUPPORT = 30
"""Distinct test images below which a class is judged together with others like it."""

MARGIN_SCALE, MIN_MARGIN = 1.2, 0.05
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class ClassLoss:
    """A class, or several judged together, on which a loss beyond the margin cannot be ruled out.

    Attributes:
        labels: Their numbers.
        num_images: Distinct test images.
        lost: Images that only the champion gets right.
        gained: Images that only the challenger gets right.
        margin: Loss of accuracy that must be ruled out, 0..1.
    """

    labels: tuple[int, ...]
    num_images: int
    lost: int
    gained: int
    margin: float


def margin(num_images: np.ndarray | int) -> np.ndarray:
    """Return the loss of accuracy, 0..1, that must be ruled out on a class of so many distinct test images."""
    return np.clip(MARGIN_SCALE / np.sqrt(num_images), MIN_MARGIN, 0.95)


def rules_out_loss(gained: np.ndarray | int, lost: np.ndarray | int, num_images: np.ndarray | int) -> np.ndarray:
    """Return whether images rule out, at 0.95, a loss as large as the margin.

    Args:
        gained: Images that only the challenger gets right, any shape.
        lost: Images that only the champion gets right, the same shape.
        num_images: Images of the class.
    """
    n, bound = np.asarray(num_images, float), margin(num_images)
    gained, lost = np.asarray(gained, float), np.asarray(lost, float)
    # The most likely share of images that are lost if the loss is exactly as large as the margin: a quadratic equation's root.
    linear = -(gained + lost) - (2 * n - gained + lost) * bound
    share = (np.sqrt(np.maximum(linear**2 - 8 * n * lost * bound * (1 + bound), 0.0)) - linear) / (4 * n)
    variance = n * (2 * share - bound * (1 + bound))
    return (gained - lost + n * bound) / np.sqrt(np.maximum(variance, 1e-12)) >= ndtri(CONFIDENCE)


def units(sizes: np.ndarray) -> list[np.ndarray]:
    """Return the classes that are judged, each alone or several together, as arrays of labels.

    Args:
        sizes: (K,) distinct test images of each class.
    """
    order = np.argsort(sizes, kind="stable")
    order = order[sizes[order] > 0]
    num_small = int(np.searchsorted(sizes[order], MIN_SUPPORT))
    if 0 < num_small < len(order) and sizes[order[:num_small]].sum() < MIN_SUPPORT:
        num_small += 1  # too few even together: the next larger class joins them
    together = [np.sort(order[:num_small])] if num_small else []
    return together + [np.asarray([k]) for k in np.sort(order[num_small:])]


def possible_losses(won: np.ndarray, held: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> list[ClassLoss]:
    """Return the classes on which the images do not rule out a loss beyond the margin, the largest loss first.

    Args:
        won: (N,) bool, where the challenger is right.
        held: (N,) bool, where the champion is right.
        labels: (N,) int64.
        groups: (N,) int64; identical images count once.
    """
    num_classes = int(labels.max()) + 1
    pairs, inverse = np.unique(np.stack([labels, groups]), axis=1, return_inverse=True)
    balance = np.bincount(inverse.ravel(), won.astype(np.float64) - held)
    sizes, gained, lost = (
        np.bincount(pairs[0], chosen, num_classes).astype(np.int64)
        for chosen in (np.ones(len(balance)), balance > 0, balance < 0)
    )
    losses = []
    for unit in units(sizes):
        n, g, b = int(sizes[unit].sum()), int(gained[unit].sum()), int(lost[unit].sum())
        if not rules_out_loss(g, b, n):
            losses.append(
                ClassLoss(labels=tuple(unit.tolist()), num_images=n, lost=b, gained=g, margin=float(margin(n)))
            )
    return sorted(losses, key=lambda loss: (loss.gained - loss.lost) / loss.num_images)
