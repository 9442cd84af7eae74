"""The evaluate step shows these finite values in the Kubeflow UI: scalars, a readable confusion matrix, a ROC curve."""

import math
from dataclasses import dataclass

import numpy as np

from components.evaluation.evaluate import Evaluation
from components.evaluation.metrics import confusion_counts, roc_points

MAX_MATRIX_CLASSES = 15
"""The UI draws every cell at one size and every label: beyond this it scrolls in both directions."""

OTHERS = "(other classes)"


@dataclass(frozen=True, kw_only=True)
class UiMetrics:
    """Arguments of `dsl.Metrics` and `dsl.ClassificationMetrics`.

    Attributes:
        metrics: Scalars by name.
        classes: Categories of the confusion matrix.
        confusion_matrix: Rows true, columns predicted.
        false_positive_rates: False positive rates of the micro-averaged ROC curve.
        true_positive_rates: True positive rates of the same curve.
        thresholds: Thresholds of the same curve, 0..1.
    """

    metrics: dict[str, float]
    classes: list[str]
    confusion_matrix: list[list[int]]
    false_positive_rates: list[float]
    true_positive_rates: list[float]
    thresholds: list[float]


def ui_metrics(evaluation: Evaluation) -> UiMetrics:
    """Return an evaluation as the Kubeflow UI can show it.

    Args:
        evaluation: An evaluation of any number of classes; beyond 15 the matrix keeps those that take part in most mistakes.
    """
    rows = roc_points(evaluation.answers)
    classes, matrix = readable_confusion(evaluation.labels, evaluation.predictions, evaluation.classes)
    return UiMetrics(
        metrics=scalars(evaluation),
        classes=classes,
        confusion_matrix=matrix,
        false_positive_rates=[row[0] for row in rows],
        true_positive_rates=[row[1] for row in rows],
        thresholds=[row[2] for row in rows],
    )


def scalars(evaluation: Evaluation) -> dict[str, float]:
    """Return the scores of an evaluation as finite numbers by name."""
    record = evaluation.record
    names = (
        "accuracy",
        "balanced_accuracy",
        "macro_f1",
        "weighted_f1",
        "top3_accuracy",
        "log_loss",
        "calibration_error",
    )
    values = {name: record["scores"][name] for name in names}
    values |= dict(zip(("accuracy_ci95_low", "accuracy_ci95_high"), record["accuracy_ci95"], strict=True))
    values |= {f"latency_{batch}_ms": record["latency"][batch]["median_ms"] for batch in ("batch_1", "batch_256")}
    values |= {"model_bytes": record["model_bytes"], "test_examples": record["scores"]["num_examples"]}
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}


def readable_confusion(
    labels: np.ndarray, predictions: np.ndarray, classes: list[str], limit: int = MAX_MATRIX_CLASSES
) -> tuple[list[str], list[list[int]]]:
    """Return category names and a confusion matrix of at most `limit` categories.

    Args:
        labels: (N,) int64.
        predictions: (N,) int64.
        classes: K names.
        limit: Most categories; the classes in most mistakes stay, in label order, the rest becomes one category.
    """
    if len(classes) <= limit:
        return list(classes), _matrix(labels, predictions, len(classes))
    wrong = labels != predictions
    mistakes = sum(np.bincount(values[wrong], minlength=len(classes)) for values in (labels, predictions))
    kept = np.sort(np.argsort(-mistakes, kind="stable")[: limit - 1])
    place = np.full(len(classes), len(kept))
    place[kept] = np.arange(len(kept))
    return [*(classes[k] for k in kept), OTHERS], _matrix(place[labels], place[predictions], limit)


def _matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> list[list[int]]:
    matrix = np.zeros((num_classes, num_classes), np.int64)
    true, predicted, counts = confusion_counts(labels, predictions, num_classes).T
    matrix[true, predicted] = counts
    return matrix.tolist()
