"""Compares a dataset's statistics with those of the ingest before, kept as small objects in a store."""

import json
import logging
from typing import Any

import numpy as np

from components.data.packed import PackedImages
from components.stores import open_store

log = logging.getLogger(__name__)

MAX_IMAGES = 4_096
"""Images that the pixel statistics are taken from, evenly spread over the dataset."""

SHARE_LIMIT, PIXEL_LIMIT = 0.1, 0.25
"""Warn where so much of the catalogue moved between classes, or the mean moved by so many standard deviations."""

_MAX_TRIES = 100


def take_statistics(
    images: np.ndarray | PackedImages, rows: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]
) -> dict[str, Any]:
    """Summarise a dataset.

    Args:
        images: (M, H, W, C) uint8.
        rows: (N,) int64, places of the examples in `images`.
        labels: (N,) int64.
        classes: Names in label order.

    Returns:
        JSON types: number of images, share of each class, image size, mean and spread per channel (0-255).
    """
    chosen = rows[np.linspace(0, len(rows) - 1, min(MAX_IMAGES, len(rows))).astype(np.int64)]
    num_channels = images.shape[3]
    sums, squares, num_pixels = np.zeros(num_channels), np.zeros(num_channels), 0
    for start in range(0, len(chosen), 256):
        pixels = images[chosen[start : start + 256]].reshape(-1, num_channels)
        for channel in range(num_channels):
            counts = np.bincount(pixels[:, channel], minlength=256)  # whole numbers: the same on every machine
            sums[channel] += int(counts @ np.arange(256))
            squares[channel] += int(counts @ np.arange(256) ** 2)
        num_pixels += len(pixels)
    means = sums / num_pixels
    counts = np.bincount(labels, minlength=len(classes))
    return {
        "images": len(labels),
        "class_shares": {name: round(int(n) / len(labels), 6) for name, n in zip(classes, counts, strict=True)},
        "image_size": list(images.shape[1:]),
        "mean": [round(float(m), 4) for m in means],
        "spread": [
            round(float(np.sqrt(max(s / num_pixels - m * m, 0.0))), 4) for s, m in zip(squares, means, strict=True)
        ],
    }


def compare(now: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Compare two summaries of `take_statistics`.

    Returns:
        JSON types: what changed by how much, and `warnings` in words.
    """
    shares, old = now["class_shares"], before["class_shares"]
    changes = {c: round(shares.get(c, 0.0) - old.get(c, 0.0), 6) for c in sorted({*shares, *old})}
    moved = round(sum(abs(v) for v in changes.values()) / 2, 6)
    same_form = len(now["mean"]) == len(before["mean"])
    spreads = [max(s, 1.0) for s in before["spread"]]
    mean_change = [round((a - b) / s, 4) for a, b, s in zip(now["mean"], before["mean"], spreads, strict=False)]
    spread_change = [round((a - b) / s, 4) for a, b, s in zip(now["spread"], before["spread"], spreads, strict=False)]
    warnings = []
    if now["image_size"] != before["image_size"]:
        warnings.append(f"image size changed from {before['image_size']} to {now['image_size']}")
    if gone := [c for c in old if c not in shares]:
        warnings.append(f"classes gone: {', '.join(gone)}")
    if new := [c for c in shares if c not in old]:
        warnings.append(f"classes new: {', '.join(new)}")
    if moved > SHARE_LIMIT:
        warnings.append(f"{moved:.1%} of the images moved between classes")
    if same_form and max(map(abs, mean_change)) > PIXEL_LIMIT:
        warnings.append(f"mean brightness moved by {max(mean_change, key=abs):+.2f} standard deviations")
    if same_form and max(map(abs, spread_change)) > PIXEL_LIMIT:
        warnings.append(f"spread of brightness changed by {max(spread_change, key=abs):+.0%}")
    return {
        "images_before": before["images"],
        "images_change": now["images"] - before["images"],
        "share_changes": {c: v for c, v in changes.items() if v},
        "share_moved": moved,
        "mean_change": mean_change,
        "spread_change": spread_change,
        "warnings": warnings,
    }


def compare_with_previous(
    statistics: dict[str, Any], *, name: str, data_hash: str, history: str
) -> dict[str, Any] | None:
    """Compare with the last ingest whose data was different, and keep this one for the next.

    Args:
        statistics: What `take_statistics` returned.
        name: The dataset.
        data_hash: Equal exactly where images and labels are equal.
        history: Store URI; empty keeps and compares nothing.

    Returns:
        What `compare` says, or None where there is nothing to compare with.

    Raises:
        FashionTuningError: The store cannot be used.
    """
    if not history:
        return None
    store = open_store(history) / f"ingests/{name}"
    entry = {"schema": 1, "data_hash": data_hash, "statistics": statistics}
    data = (json.dumps(entry, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
    keys = store.list()
    previous, is_newest = None, True
    for key in reversed(keys):
        found = _parse(store.read(key), key)
        if found is None:
            continue
        if found["data_hash"] != data_hash:
            previous = found
            break
        if is_newest:
            data = b""  # nothing new to keep
        is_newest = False
    number = _number(keys[-1]) + 1 if keys else 1
    for attempt in range(_MAX_TRIES if data else 0):
        if store.create(f"{number + attempt:06d}.json", data):
            break
    return compare(statistics, previous["statistics"]) if previous else None


def _parse(data: bytes, key: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(data)
        statistics = entry["statistics"]
        compare(statistics, statistics)
        return entry if isinstance(entry["data_hash"], str) else None
    except (ValueError, KeyError, TypeError, AttributeError):
        log.warning("statistics of an earlier ingest, %s, are damaged and ignored", key)
        return None


def _number(key: str) -> int:
    digits = key.rpartition("/")[2].removesuffix(".json")
    return int(digits) if digits.isdecimal() else 0
