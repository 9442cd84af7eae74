"""Figures of one model on held-out examples: plain functions of probabilities and labels, nothing else."""

from collections.abc import Sequence
from typing import Any

import numpy as np

TOP_K = 3
CALIBRATION_BINS = 15
"""Source: Guo et al., On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599"""

NUM_MISTAKES = 24


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Count examples by true class (row) and predicted class (column).

    Args:
        labels: (N,) int64, 0..K-1.
        predictions: (N,) int64, 0..K-1.
        num_classes: K.

    Returns:
        (K, K) int64.
    """
    cells = labels.astype(np.int64) * num_classes + predictions
    return np.bincount(cells, minlength=num_classes * num_classes).reshape(num_classes, num_classes)


def class_scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Return precision, recall, F1 and support per class; works on a stack of matrices as well.

    Args:
        confusion: (..., K, K) counts, rows true, columns predicted.

    Returns:
        Arrays (..., K). A ratio without a denominator is 0, as in scikit-learn's `zero_division=0`.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    return scores_from_counts(hits, confusion.sum(axis=-1), confusion.sum(axis=-2))


def scores_from_counts(hits: np.ndarray, support: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """Return precision, recall and F1 per class from correct, true and predicted counts, each (..., K)."""
    return {
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, support),
        "f1": _ratio(2.0 * hits, support + predicted),
        "support": support,
    }


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below > 0)


def mean_over_present(values: np.ndarray, support: np.ndarray) -> np.ndarray:
    """Average (..., K) values over the classes that occur in the test labels."""
    present = support > 0
    return _ratio(np.where(present, values, 0.0).sum(axis=-1), present.sum(axis=-1))


def score(probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Return every figure of one model.

    Macro averages run over the classes that occur in the test labels: a class without test examples has no recall, so its
    entries are None and it takes no part.

    Args:
        probabilities: (N, K) float32, rows sum to 1.
        labels: (N,) int64, 0..K-1.
        classes: K names.

    Returns:
        JSON values: `accuracy`, `balanced_accuracy`, `macro_f1`, `weighted_f1`, `top3_accuracy`, `log_loss`,
        `calibration_error`, `num_examples`, `per_class` (list in label order) and `confusion_matrix` (list of rows).
    """
    predictions = probabilities.argmax(axis=1)
    confusion = confusion_matrix(labels, predictions, len(classes))
    per_class = class_scores(confusion)
    support = per_class["support"]
    return {
        "num_examples": len(labels),
        "accuracy": float(np.mean(predictions == labels)),
        "balanced_accuracy": float(mean_over_present(per_class["recall"], support)),
        "macro_f1": float(mean_over_present(per_class["f1"], support)),
        "weighted_f1": float(np.average(per_class["f1"], weights=support)),
        "top3_accuracy": top_k_accuracy(probabilities, labels),
        "log_loss": log_loss(probabilities, labels),
        "calibration_error": calibration_error(probabilities, labels),
        "per_class": [
            {
                "class": name,
                **{key: float(per_class[key][k]) if support[k] else None for key in ("precision", "recall", "f1")},
                "support": int(support[k]),
            }
            for k, name in enumerate(classes)
        ],
        "confusion_matrix": confusion.tolist(),
    }


def top_k_accuracy(probabilities: np.ndarray, labels: np.ndarray, k: int = TOP_K) -> float:
    """Return the share of examples whose true class is among the k most probable; on a tie the lower label comes first."""
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)
    lower = np.arange(probabilities.shape[1]) < labels[:, None]
    rank = (probabilities > own).sum(axis=1) + ((probabilities == own) & lower).sum(axis=1)
    return float(np.mean(rank < k))


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean negative log probability of the true class, in nats; a probability counts as at least 1.2e-7."""
    epsilon = float(np.finfo(np.float32).eps)
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0].astype(np.float64)
    return float(-np.mean(np.log(np.clip(own, epsilon, 1.0))))


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = CALIBRATION_BINS) -> float:
    """Return the expected calibration error: |confidence - accuracy| over equal-width bins, weighted by their size."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    chosen = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(chosen, confidence, bins) - np.bincount(chosen, correct, bins)
    return float(np.abs(gap).sum() / len(labels))


def confident_mistakes(
    probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray, limit: int = NUM_MISTAKES
) -> list[dict[str, Any]]:
    """Return the wrong predictions of highest confidence, one per group of identical images.

    Args:
        probabilities: (N, K) float32.
        labels: (N,) int64.
        groups: (N,) int64, equal for identical images.
        limit: Most rows.

    Returns:
        Rows `index`, `label`, `prediction`, `confidence`, the most confident first.
    """
    predictions, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predictions != labels)
    ordered = wrong[np.lexsort((wrong, -confidence[wrong]))]
    _, first = np.unique(groups[ordered], return_index=True)
    return [
        {
            "index": int(i),
            "label": int(labels[i]),
            "prediction": int(predictions[i]),
            "confidence": float(confidence[i]),
        }
        for i in ordered[np.sort(first)][:limit]
    ]


def roc_points(probabilities: np.ndarray, labels: np.ndarray, limit: int = 200) -> list[tuple[float, float, float]]:
    """Return the micro-averaged one-versus-rest ROC curve, thinned to points a browser can draw.

    Args:
        probabilities: (N, K) float32.
        labels: (N,) int64.
        limit: Most points.

    Returns:
        Rows (false positive rate, true positive rate, threshold), finite and monotone, from (0, 0) to (1, 1).
    """
    flat = probabilities.ravel().astype(np.float64)
    positive = (labels[:, None] == np.arange(probabilities.shape[1])).ravel()
    order = np.argsort(-flat, kind="stable")
    scores, hits = flat[order], np.cumsum(positive[order])
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    false, true = (last + 1 - hits[last]) / max((~positive).sum(), 1), hits[last] / max(positive.sum(), 1)
    # Equal steps along the curve's length keep the steep start, where equal steps of rank would jump over it.
    along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(false)) + np.abs(np.diff(true)))])
    wanted = np.linspace(0.0, along[-1], min(limit - 1, len(last)))
    kept = np.unique(np.append(np.searchsorted(along, wanted).clip(max=len(last) - 1), len(last) - 1))[-(limit - 1) :]
    rows = [(float(false[i]), float(true[i]), float(scores[last[i]])) for i in kept]
    return [(0.0, 0.0, 1.0), *rows]
