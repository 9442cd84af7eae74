"""Finds identical images, and says how many held-out images have a nearly identical one in training."""

from dataclasses import dataclass

import numpy as np

from components.data.packed import PackedImages
from components.data.parallel import in_order

NEAR_LEVELS = 2
"""Thumbnails whose pixels differ by at most so many of 255 grey levels, root mean square, are of nearly identical images: the same
photograph scaled or saved anew, or the same product in the same pose."""

MAX_LOOKED_AT = 1_000
"""Held-out images to look for, evenly spread; with so many the share is known to about a point."""

_THUMBNAIL = (16, 12)  # height and width; dot products of 192 whole numbers up to 255 are exact in float32
_CHUNK = 1024


@dataclass(frozen=True)
class Groups:
    """Examples with identical pixels.

    Attributes:
        numbers: (N,) int64 group of each example; groups are numbered by their first example.
        digests: (G, 32) uint8 pixels' digest of each group.
        sizes: (G,) int64 examples in each group.
    """

    numbers: np.ndarray
    digests: np.ndarray
    sizes: np.ndarray


def group_identical(digests: np.ndarray) -> Groups:
    """Group examples by their pixels' digest, (N, 32) uint8."""
    keys = np.ascontiguousarray(digests).view("V32").ravel()
    _, first, inverse, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(first)
    renumbered = np.empty_like(order)
    renumbered[order] = np.arange(len(order))
    return Groups(renumbered[inverse.ravel()].astype(np.int64), digests[first[order]], counts[order].astype(np.int64))


@dataclass(frozen=True)
class NearDuplicates:
    """How many held-out images have a nearly identical one in training.

    Attributes:
        looked_at: Validation and test images that were compared with all training images.
        found: Those of them with a nearly identical training image.
    """

    looked_at: int
    found: int


def find_near(images: np.ndarray | PackedImages, train: np.ndarray, held_out: np.ndarray) -> NearDuplicates:
    """Compare thumbnails of held-out images with those of all training images; the same answer on every machine.

    Args:
        images: (M, H, W, C) uint8.
        train: (N,) int64, places of the training images.
        held_out: (L,) int64, places of the validation and test images.
    """
    chosen = held_out[np.linspace(0, len(held_out) - 1, min(MAX_LOOKED_AT, len(held_out))).astype(np.int64)]
    looked_at = np.concatenate([thumbnails(images[chosen[i : i + _CHUNK]]) for i in range(0, len(chosen), _CHUNK)])
    own = (looked_at.astype(np.int64) ** 2).sum(axis=1)
    limit = NEAR_LEVELS**2 * looked_at.shape[1]

    def is_near(start: int) -> np.ndarray:
        others = thumbnails(images[train[start : start + _CHUNK]])
        products = (looked_at @ others.T).astype(np.int64)
        distances = own[:, None] + (others.astype(np.int64) ** 2).sum(axis=1) - 2 * products
        return (distances <= limit).any(axis=1)

    found = np.zeros(len(chosen), bool)
    for near in in_order(is_near, range(0, len(train), _CHUNK)):
        found |= near
    return NearDuplicates(len(chosen), int(found.sum()))


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Return (N, D) float32 whole numbers, 0-255: the mean grey level of each cell of a grid of at most 16 x 12.

    Args:
        images: (N, H, W, C) uint8.
    """
    _, height, width, channels = images.shape
    rows = np.arange(min(height, _THUMBNAIL[0])) * height // min(height, _THUMBNAIL[0])
    columns = np.arange(min(width, _THUMBNAIL[1])) * width // min(width, _THUMBNAIL[1])
    sums = np.add.reduceat(images.sum(axis=3, dtype=np.uint32), rows, axis=1)
    sums = np.add.reduceat(sums, columns, axis=2).astype(np.int64)
    sizes = np.outer(np.diff(np.append(rows, height)), np.diff(np.append(columns, width))) * channels
    return ((2 * sums + sizes) // (2 * sizes)).reshape(len(images), -1).astype(np.float32)
