"""Finds identical and nearly identical images.

Source: Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions", and the difference hash of
https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html
"""

from dataclasses import dataclass

import numpy as np

from components.data.packed import PackedImages
from components.data.parallel import in_order

NEAR_BITS = 2
"""Images whose difference hashes differ in at most so many of 64 bits count as nearly identical."""

MAX_COMPARISONS = 200_000_000
"""Pairs of hashes to compare at most; a set that is one colour throughout would need all of them."""

_ROWS, _COLUMNS = 8, 9
_CHUNK = 256
_BANDS = ((0, 22), (22, 21), (43, 21))  # hashes that differ in 2 bits agree in at least one of 3 bands
_ONE = np.uint64(1)


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


def difference_hashes(images: np.ndarray | PackedImages, rows: np.ndarray) -> np.ndarray:
    """Return (N,) uint64: bit by bit, whether a cell of an 8 x 9 grid is brighter than the next one to its right.

    Args:
        images: (M, H, W, C) uint8, H and W at least 9.
        rows: (N,) int64, the images to hash.
    """
    _, height, width, _ = images.shape
    band = np.arange(height) * _ROWS // height
    starts = -(-np.arange(_COLUMNS) * width // _COLUMNS)
    widths = np.diff(np.append(starts, width))

    def hash_chunk(start: int) -> np.ndarray:
        chunk = images[rows[start : start + _CHUNK]]
        lines = np.zeros((len(chunk), _ROWS, *chunk.shape[2:]), np.uint32)
        for y in range(height):
            lines[:, band[y]] += chunk[:, y]
        cells = np.add.reduceat(lines.sum(axis=3), starts, axis=2, dtype=np.int64)
        bits = cells[..., :-1] * widths[1:] > cells[..., 1:] * widths[:-1]
        return np.packbits(bits.reshape(len(chunk), 64), axis=1).view(">u8").ravel()

    return np.concatenate(list(in_order(hash_chunk, range(0, len(rows), _CHUNK)))).astype(np.uint64)


@dataclass(frozen=True)
class NearDuplicates:
    """Images that have a nearly identical, not identical one.

    Attributes:
        num_images: How many.
        num_held_out: How many of the validation and test images have one in training.
        is_complete: Whether all pairs were compared (`MAX_COMPARISONS`).
    """

    num_images: int
    num_held_out: int
    is_complete: bool


def find_near(hashes: np.ndarray, groups: np.ndarray, in_train: np.ndarray) -> NearDuplicates:
    """Count nearly identical images.

    Args:
        hashes: (N,) uint64 of `difference_hashes`.
        groups: (N,) int64, equal for identical images.
        in_train: (N,) bool.
    """
    values, inverse = np.unique(hashes, return_inverse=True)
    inverse = inverse.ravel()
    pairs = np.unique(np.stack([inverse, groups], axis=1), axis=0)
    has_near = np.bincount(pairs[:, 0], minlength=len(values)) > 1  # one hash, several pictures
    trained = np.zeros(len(values), bool)
    trained[inverse[in_train]] = True
    # Of a hash that several pictures share, some in training: taken as near, whichever of them is which.
    near_train = has_near & trained
    first, second, is_complete = _close_pairs(values)
    for a, b in ((first, second), (second, first)):
        has_near[a] = True
        near_train[a] |= trained[b]
    return NearDuplicates(int(has_near[inverse].sum()), int((near_train[inverse] & ~in_train).sum()), is_complete)


def _close_pairs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return index pairs of distinct hashes that differ in at most `NEAR_BITS`, and whether none can be missing."""
    first: list[np.ndarray] = []
    second: list[np.ndarray] = []
    left = MAX_COMPARISONS
    for low, width in _BANDS:
        keys = (values >> np.uint64(low)) & ((_ONE << np.uint64(width)) - _ONE)
        order = np.argsort(keys, kind="stable")
        keys, ordered = keys[order], values[order]
        step, places = 1, np.arange(len(values))
        while len(places):
            places = places[places < len(values) - step]
            places = places[keys[places] == keys[places + step]]
            left -= len(places)
            if left < 0:
                return _joined(first), _joined(second), False
            close = places[np.bitwise_count(ordered[places] ^ ordered[places + step]) <= NEAR_BITS]
            first.append(order[close])
            second.append(order[close + step])
            step += 1
    return _joined(first), _joined(second), True


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, np.int64)
