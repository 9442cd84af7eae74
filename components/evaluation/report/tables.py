"""The report's tables and sentences: cost beside quality, luck, classes and confusions, as plain rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from components.evaluation.evaluate import Evaluation
from components.evaluation.metrics import confusion_counts
from components.evaluation.summary import DatasetResults
from components.text import approach_name, clean, duration, percent, short_names, size

NUM_CONFUSIONS = 15
MATRIX_CLASSES = 60
"""Classes of a confusion matrix at most: those that take part in most mistakes."""

TABLE_CLASSES = 200
"""Classes of a table at most: the largest ones; `summary.json` has all of them."""

NAME_LENGTH = 60

LISTED_CLASSES = 60
"""Names in a sentence at most."""

NUMBERED_CLASSES = 20
"""Up to here a confusion matrix writes its counts into the cells; beyond, they are in the tooltips and the table."""


def device_seconds(evaluation: Evaluation) -> float:
    """Return the device time of search and final training together."""
    search = evaluation.ledger.device_seconds if evaluation.ledger else 0.0
    return search + float(evaluation.record["model"].get("device_seconds") or 0.0)


def cost_sentence(evaluations: list[Evaluation]) -> str:
    """Return what the more expensive approach costs in units of the cheaper one."""
    cheap, dear = sorted(evaluations, key=device_seconds)
    seconds = device_seconds(cheap), device_seconds(dear)
    if seconds[0] <= 0:
        return ""
    names = approach_name(cheap.approach), approach_name(dear.approach)
    latency = [e.record["latency"]["batch_1"]["median_ms"] for e in (cheap, dear)]
    slower = latency[1] / max(latency[0], 1e-9)
    if slower >= 1.05:
        per_image = f"takes {_times(slower)} as long"
    else:
        per_image = "takes about as long" if slower > 0.95 else f"takes {100 * slower:.0f} % of the time"
    spent = f"({duration(seconds[1])} against {duration(seconds[0])})"
    if seconds[1] < 1.05 * seconds[0]:
        return f"Both used about the same device time {spent}; {names[1]} {per_image} to classify one image."
    return (
        f"{names[1]} used {_times(seconds[1] / seconds[0])} the device time of {names[0]} for search and training {spent}"
        f" and {per_image} to classify one image."
    )


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times" if ratio < 9.95 else f"{ratio:.0f} times"


def seeds_sentence(evaluations: list[Evaluation]) -> str:
    """Return whether the two approaches' replicates overlap: whether another seed could have changed the order."""
    spread = {e.approach: [row["accuracy"] for row in e.record["replicates"]] for e in evaluations}
    if any(len(values) < 2 for values in spread.values()):
        return "With a single seed per approach, luck of the seed is not measured."
    (one, a), (other, b) = spread.items()
    counts = f"{len(a)} seeds each" if len(a) == len(b) else f"{len(a)} and {len(b)} seeds"
    for (name, values), (_, others) in (((one, a), (other, b)), ((other, b), (one, a))):
        if min(values) > max(others):
            return f"Across {counts}, every replicate of {approach_name(name)} beat every one of the other approach."
    return f"Across {counts}, the replicates overlap: another seed could change their order."


def optimism_rows(evaluation: Evaluation) -> list[tuple[str, float, float, float]]:
    """Return (stage, mean, low, high) accuracies: best trial of the search, replicates on validation, on test."""
    rows = []
    best = evaluation.ledger.best() if evaluation.ledger else None
    if best:
        rows.append(("best trial (validation)", best.accuracy, best.accuracy, best.accuracy))
    replicates = evaluation.record["replicates"]
    validation = [row["validation_accuracy"] for row in replicates if row.get("validation_accuracy") is not None]
    for stage, values in (
        ("fresh seeds (validation)", validation),
        ("fresh seeds (test)", [row["accuracy"] for row in replicates]),
    ):
        if values:
            rows.append((stage, float(np.mean(values)), min(values), max(values)))
    return rows


def default_sentence(evaluation: Evaluation) -> str:
    """Return what the search gained over the space's default configuration; empty where that was not trained."""
    name, default = approach_name(evaluation.approach), evaluation.record.get("default")
    if not default:
        return ""
    if default["is_winner"]:
        return f"{name}: the default configuration won the search."
    if "accuracy" not in default:
        return f"{name}: the default configuration has no model ({clean(default.get('error', ''), 120)})."
    gain, (low, high) = 100 * default["gain"], default["gain_ci95"]
    sentence = (
        f"{name}: the default configuration reaches {percent(default['accuracy'], 2)} (macro F1 {default['macro_f1']:.4f}) with one seed;"
        f" the search's choice, its first seed, differs by {gain:+.2f} points (95 % interval {100 * low:+.2f} to"
        f" {100 * high:+.2f})"
    )
    if low > 0:
        return f"{sentence}."
    return f"{sentence}: {'the search made it worse' if high < 0 else 'these images do not show that the search was worth it'}."


def result_rows(result: DatasetResults, evaluations: list[Evaluation]) -> list[dict[str, Any]]:
    """Return the result table: a label, one text per approach, the difference, and what it means."""
    scores = [e.record["scores"] for e in evaluations]
    c = result.comparison

    def row(label: str, values: list[str], difference: str = "", note: str = "", interval: str = "") -> dict[str, Any]:
        return {"label": label, "values": values, "difference": difference, "note": note, "interval": interval}

    def change(key: str, digits: int = 4) -> str:
        return f"{scores[0][key] - scores[1][key]:+.{digits}f}" if c else ""

    hours = [device_seconds(e) / 3600 for e in evaluations]
    latencies = [e.record["latency"] for e in evaluations]
    return [
        row(
            "Accuracy",
            [percent(s["accuracy"], 2) for s in scores],
            f"{100 * c.accuracy_difference:+.2f} points" if c else "",
            interval="{:+.2f} to {:+.2f}".format(*(100 * x for x in c.accuracy_difference_ci95)) if c else "",
        ),
        row(
            "95 % interval",
            ["{:.2f} to {:.2f}".format(*(100 * x for x in e.record["accuracy_ci95"])) for e in evaluations],
        ),
        row(
            "Macro F1",
            [f"{s['macro_f1']:.4f}" for s in scores],
            f"{c.macro_f1_difference:+.4f}" if c else "",
            "mean over classes with test images: small classes count as much as large ones",
            "{:+.4f} to {:+.4f}".format(*c.macro_f1_difference_ci95) if c else "",
        ),
        row("95 % interval", ["{:.4f} to {:.4f}".format(*e.macro_f1_ci95) for e in evaluations]),
        row("Weighted F1", [f"{s['weighted_f1']:.4f}" for s in scores], change("weighted_f1")),
        row("Balanced accuracy", [f"{s['balanced_accuracy']:.4f}" for s in scores], change("balanced_accuracy")),
        row("Top-3 accuracy", [percent(s["top3_accuracy"], 2) for s in scores]),
        row("Log loss", [f"{s['log_loss']:.4f}" for s in scores], change("log_loss"), "lower is better"),
        row(
            "Calibration error",
            [f"{s['calibration_error']:.4f}" for s in scores],
            change("calibration_error"),
            "mean gap between confidence and accuracy, 15 bins; lower is better",
        ),
        row(
            "Replicates",
            [_spread([r["accuracy"] for r in e.record["replicates"]]) for e in evaluations],
            "",
            "test accuracy of the final configuration over seeds: mean (lowest to highest)",
        ),
        row(
            "Default configuration",
            [_default(e) for e in evaluations],
            "",
            "test accuracy of the space's defaults, the search's first suggestion, with one seed",
        ),
        row("Device time, search", [duration(e.ledger.device_seconds) if e.ledger else "unknown" for e in evaluations]),
        row("Device time, training", [duration(e.record["model"].get("device_seconds") or 0.0) for e in evaluations]),
        row(
            "Accuracy per device-hour",
            [
                f"{100 * s['accuracy'] / h:,.0f} points" if h > 0 else "unknown"
                for s, h in zip(scores, hours, strict=True)
            ],
            "",
            "accuracy points divided by all device-hours of search and training",
        ),
        row(
            "Latency, 1 image",
            [f"{x['batch_1']['median_ms']:.2f} ms (p95 {x['batch_1']['p95_ms']:.2f})" for x in latencies],
            "",
            "median, on " + "; ".join(sorted({clean(x["hardware"]["device"], 80) for x in latencies})),
        ),
        row(
            "Latency, 256 images",
            [f"{x['batch_256']['median_ms']:.1f} ms (p95 {x['batch_256']['p95_ms']:.1f})" for x in latencies],
        ),
        row("Model file", [size(e.record["model_bytes"]) for e in evaluations]),
        row("Parameters", [_count(e.record["model"].get("parameters")) for e in evaluations]),
    ]


def _spread(values: list[float]) -> str:
    if not values:
        return "none"
    return f"{percent(float(np.mean(values)), 2)} ({100 * min(values):.2f} to {100 * max(values):.2f})"


def _default(evaluation: Evaluation) -> str:
    default = evaluation.record.get("default") or {}
    if default.get("is_winner"):
        return "the winner"
    return percent(default["accuracy"], 2) if "accuracy" in default else "unknown"


def _count(value: Any) -> str:
    return f"{value:,.0f}" if isinstance(value, (int, float)) else "unknown"


def class_rows(evaluations: list[Evaluation]) -> list[dict[str, Any]]:
    """Return each class with its support and every approach's scores, the largest `TABLE_CLASSES` first."""
    if not evaluations:
        return []
    tables = [e.record["scores"]["per_class"] for e in evaluations]
    names = short_names(evaluations[0].classes, NAME_LENGTH)
    rows = [
        {"class": name, "support": same[0]["support"], "scores": same}
        for name, *same in zip(names, *tables, strict=True)
    ]
    return sorted(rows, key=lambda row: (-row["support"], row["scores"][0]["class"]))[:TABLE_CLASSES]


def confusion_cells(evaluation: Evaluation) -> dict[str, Any]:
    """Return a confusion matrix as rows of cells (count, shade 0-100, whether right), empty cells as None.

    Beyond `MATRIX_CLASSES` it shows those with most mistakes; what goes on with the others is one more row and column.
    """
    labels, predictions, num_classes = evaluation.labels, evaluation.predictions, len(evaluation.classes)
    support, predicted = (np.bincount(values, minlength=num_classes) for values in (labels, predictions))
    seen = np.flatnonzero(support + predicted)
    num_others = 0
    if len(seen) > MATRIX_CLASSES:
        wrong = labels != predictions
        mistakes = np.bincount(np.concatenate([labels[wrong], predictions[wrong]]), minlength=num_classes)
        num_others = len(seen) - MATRIX_CLASSES
        seen = np.sort(seen[np.argsort(-mistakes[seen], kind="stable")[:MATRIX_CLASSES]])
    seen = seen[np.argsort(-support[seen], kind="stable")]
    place = np.full(num_classes, len(seen))
    place[seen] = np.arange(len(seen))
    names = [short_names(evaluation.classes, 32)[k] for k in seen]
    if num_others:
        names.append(f"({num_others:,} other classes)")
    size = len(names)
    counts = np.zeros((size, size), np.int64)
    true, predicted_place, number = confusion_counts(place[labels], place[predictions], size).T
    counts[true, predicted_place] = number
    sums = counts.sum(axis=1)

    def shade(i: int, j: int) -> int:  # by the root: a few mistakes among a thousand stay visible
        return round(100 * np.sqrt(counts[i, j] / sums[i])) if sums[i] else 100

    absent = [evaluation.classes[k] for k in np.flatnonzero(support + predicted == 0)]
    return {
        "approach": evaluation.approach,
        "names": names,
        "num_classes": len(seen) + num_others,
        "num_others": num_others,
        "numbered": len(names) <= NUMBERED_CLASSES,
        "rows": [
            [(int(counts[i, j]), shade(i, j), i == j and i < len(seen)) if counts[i, j] else None for j in range(size)]
            for i in range(size)
        ],
        "supports": [int(number) for number in sums],
        "absent": listed(absent),
    }


def listed(names: Sequence[str], most: int = LISTED_CLASSES) -> list[str]:
    """Return names for a sentence, the last one saying how many are left out."""
    first = short_names(names[:most], 40)
    return [*first, f"and {len(names) - most:,} more"] if len(names) > most else first


def frequent_confusions(evaluations: list[Evaluation]) -> list[dict[str, Any]]:
    """Return the most frequent confusions of both approaches together."""
    if not evaluations:
        return []
    classes, support = evaluations[0].classes, np.bincount(evaluations[0].labels, minlength=len(evaluations[0].classes))
    counted: dict[tuple[int, int], list[int]] = {}
    for number, e in enumerate(evaluations):
        for true, prediction, count in confusion_counts(e.labels, e.predictions, len(classes)).tolist():
            if true != prediction:
                counted.setdefault((true, prediction), [0] * len(evaluations))[number] = count
    names = short_names(classes, NAME_LENGTH)
    frequent = sorted(counted.items(), key=lambda item: (-sum(item[1]), item[0]))[:NUM_CONFUSIONS]
    return [
        {"truth": names[true], "taken_for": names[prediction], "counts": counts, "support": int(support[true])}
        for (true, prediction), counts in frequent
    ]
