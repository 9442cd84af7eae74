"""These functions compute a model's scores on held-out examples from probabilities and labels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

TOP_K = 3
CALIBRATION_BINS = 15
"""Source: Guo et al., On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599"""

NUM_MISTAKES = 24

_BIN_SHIFT = np.uint32(12)  # leaves sign, exponent and 11 bits: probabilities that differ by 0.05 % are told apart
_NUM_BINS = (0x3F800000 >> 12) + 2  # of 0 to 1, and a little more for sums that are not exact


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What is kept of a model's probabilities: a few numbers for each image, however many classes there are.

    Attributes:
        predictions: (N,) int64; the most probable class, on a tie the first.
        confidence: (N,) float32; its probability.
        truth: (N,) float32; the probability of the true class.
        ranks: (N,) int64; how many classes come before the true one.
        scores: (B, 2) int64; all N x K probabilities counted by size, those of wrong and of true classes; see `_bins`.
    """

    predictions: np.ndarray
    confidence: np.ndarray
    truth: np.ndarray
    ranks: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, batches: Iterable[np.ndarray], labels: np.ndarray) -> Self:
        """Reduce probabilities, one batch in memory at a time.

        Args:
            batches: (n, K) float32 each, rows sum to 1; together N rows.
            labels: (N,) int64, 0..K-1.
        """
        counts = np.zeros((_NUM_BINS, 2), np.int64)
        columns: list[list[np.ndarray]] = [[], [], [], []]
        start = 0
        for batch in batches:
            batch = np.asarray(batch, np.float32)
            own_labels = labels[start : start + len(batch), None]
            own = np.take_along_axis(batch, own_labels, axis=1)
            tied_before = (batch == own) & (np.arange(batch.shape[1]) < own_labels)
            ranks = np.count_nonzero(batch > own, axis=1) + np.count_nonzero(tied_before, axis=1)
            counts[:, 0] += np.bincount(_bins(batch.ravel()), minlength=_NUM_BINS)
            true = np.bincount(_bins(own.ravel()), minlength=_NUM_BINS)
            counts[:, 0] -= true
            counts[:, 1] += true
            for column, values in zip(
                columns, (batch.argmax(axis=1), batch.max(axis=1), own[:, 0], ranks), strict=True
            ):
                column.append(values)
            start += len(batch)
        empty = np.zeros(0, np.float32)
        predictions, confidence, truth, ranks = (np.concatenate([empty, *column]) for column in columns)
        return cls(
            predictions=predictions.astype(np.int64),
            confidence=confidence,
            truth=truth,
            ranks=ranks.astype(np.int64),
            scores=counts,
        )


def _bins(probabilities: np.ndarray) -> np.ndarray:
    """Return the bin of each probability: the leading bits of its float, so that small ones have bins of their own as well."""
    return np.maximum(probabilities, 0).view(np.uint32) >> _BIN_SHIFT


def confusion_counts(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Count examples by true and predicted class, the pairs that occur.

    Args:
        labels: (N,) int64, 0..K-1.
        predictions: (N,) int64, 0..K-1.
        num_classes: Number of classes, K.

    Returns:
        (P, 3) int64: true class, predicted class, count; ordered by the first two.
    """
    pairs, counts = np.unique(labels.astype(np.int64) * num_classes + predictions, return_counts=True)
    return np.stack([*np.divmod(pairs, num_classes), counts], axis=1)


def class_scores(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> dict[str, np.ndarray]:
    """Return precision, recall, F1 and support per class, each (K,).

    Args:
        labels: (N,) int64, 0..K-1.
        predictions: (N,) int64, 0..K-1.
        num_classes: Number of classes, K.

    Returns:
        Arrays (K,). A ratio without a denominator is 0, as in scikit-learn's `zero_division=0`.
    """
    hits, support, predicted = (
        np.bincount(values, minlength=num_classes) for values in (labels[labels == predictions], labels, predictions)
    )
    return scores_from_counts(hits.astype(np.float64), support, predicted)


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


def macro_f1(predictions: np.ndarray, labels: np.ndarray, num_classes: int) -> float:
    """Return the mean F1 of the classes that occur in the labels; both arrays are (N,) int64."""
    scores = class_scores(labels, predictions, num_classes)
    return float(mean_over_present(scores["f1"], scores["support"]))


def score(answers: Answers, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Return every score of one model.

    Macro averages run over the classes that occur in the test labels: a class without test examples has no recall, so its
    entries are None and it takes no part.

    Args:
        answers: The model's answers to N images.
        labels: (N,) int64, 0..K-1.
        classes: K names.

    Returns:
        JSON values: `accuracy`, `balanced_accuracy`, `macro_f1`, `weighted_f1`, `top3_accuracy`, `log_loss`,
        `calibration_error`, `num_examples`, `per_class` (list in label order) and `confusions` (true class, predicted
        class and count of every pair that occurs, right answers included).
    """
    per_class = class_scores(labels, answers.predictions, len(classes))
    support = per_class["support"]
    return {
        "num_examples": len(labels),
        "accuracy": float(np.mean(answers.predictions == labels)),
        "balanced_accuracy": float(mean_over_present(per_class["recall"], support)),
        "macro_f1": float(mean_over_present(per_class["f1"], support)),
        "weighted_f1": float(np.average(per_class["f1"], weights=support)),
        "top3_accuracy": float(np.mean(answers.ranks < TOP_K)),
        "log_loss": log_loss(answers.truth),
        "calibration_error": calibration_error(answers.confidence, answers.predictions == labels),
        "per_class": [
            {
                "class": name,
                **{key: float(per_class[key][k]) if support[k] else None for key in ("precision", "recall", "f1")},
                "support": int(support[k]),
            }
            for k, name in enumerate(classes)
        ],
        "confusions": confusion_counts(labels, answers.predictions, len(classes)).tolist(),
    }


def log_loss(truth: np.ndarray) -> float:
    """Return the mean negative log probability of the true class, in nats; a probability counts as at least 1.2e-7.

    Args:
        truth: (N,) float32, the probability of each example's true class.
    """
    epsilon = float(np.finfo(np.float32).eps)
    return float(abs(np.mean(np.log(np.clip(truth.astype(np.float64), epsilon, 1.0)))))  # not -0.0


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = CALIBRATION_BINS) -> float:
    """Return the expected calibration error: |confidence - accuracy| over equal-width bins, weighted by their size.

    Args:
        confidence: (N,) float32, the probability of each answer.
        correct: (N,) bool.
        bins: How many bins.
    """
    confidence = confidence.astype(np.float64)
    chosen = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(chosen, confidence, bins) - np.bincount(chosen, correct, bins)
    return float(np.abs(gap).sum() / len(correct))


def confident_mistakes(
    answers: Answers, labels: np.ndarray, groups: np.ndarray, limit: int = NUM_MISTAKES
) -> list[dict[str, Any]]:
    """Return the wrong predictions of highest confidence, one per group of identical images.

    Args:
        answers: The model's answers to N images.
        labels: (N,) int64.
        groups: (N,) int64, equal for identical images.
        limit: Most rows.

    Returns:
        Rows `index`, `label`, `prediction`, `confidence`, the most confident first.
    """
    predictions, confidence = answers.predictions, answers.confidence
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


def roc_points(answers: Answers, limit: int = 200) -> list[tuple[float, float, float]]:
    """Return the micro-averaged one-versus-rest ROC curve, thinned to points a browser can draw.

    Args:
        answers: Their probabilities, counted by size.
        limit: Most points.

    Returns:
        Rows (false positive rate, true positive rate, threshold), finite and monotone, from (0, 0) to (1, 1).
    """
    filled = np.flatnonzero(answers.scores.sum(axis=1))[::-1]
    counts = np.cumsum(answers.scores[filled], axis=0)
    false, true = (counts[:, k] / max(counts[-1, k], 1) for k in (0, 1))
    thresholds = (filled.astype(np.uint32) << _BIN_SHIFT).view(np.float32)
    # Equal steps along the curve's length keep the steep start, where equal steps of rank would jump over it.
    along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(false)) + np.abs(np.diff(true)))])
    wanted = np.linspace(0.0, along[-1], min(limit - 1, len(filled)))
    kept = np.unique(np.append(np.searchsorted(along, wanted).clip(max=len(filled) - 1), len(filled) - 1))
    return [(0.0, 0.0, 1.0), *((float(false[i]), float(true[i]), float(thresholds[i])) for i in kept[-(limit - 1) :])]
