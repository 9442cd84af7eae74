"""Finds identical and nearly identical images."""

from dataclasses import dataclass

import numpy as np


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
