"""The report's tables and sentences: cost beside quality, luck, classes and confusions, as plain rows."""

from typing import Any

import numpy as np

from components.evaluation.evaluate import Evaluation
from components.evaluation.metrics import confusion_matrix
from components.evaluation.summary import DatasetResults
from components.text import approach_name, clean, duration, percent, size

NUM_CONFUSIONS = 15
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
        rows.append(("best trial (validation)", best.score, best.score, best.score))
    replicates = evaluation.record["replicates"]
    validation = [row["validation_accuracy"] for row in replicates if row.get("validation_accuracy") is not None]
    for stage, values in (
        ("fresh seeds (validation)", validation),
        ("fresh seeds (test)", [row["accuracy"] for row in replicates]),
    ):
        if values:
            rows.append((stage, float(np.mean(values)), min(values), max(values)))
    return rows


def figures(result: DatasetResults, evaluations: list[Evaluation]) -> list[dict[str, Any]]:
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


def _count(value: Any) -> str:
    return f"{value:,.0f}" if isinstance(value, (int, float)) else "unknown"


def class_rows(evaluations: list[Evaluation]) -> list[dict[str, Any]]:
    """Return each class with its support and every approach's figures, the largest class first."""
    if not evaluations:
        return []
    tables = [e.record["scores"]["per_class"] for e in evaluations]
    rows = [
        {"class": same[0]["class"], "support": same[0]["support"], "scores": same} for same in zip(*tables, strict=True)
    ]
    return sorted(rows, key=lambda row: (-row["support"], row["class"]))


def confusion_cells(evaluation: Evaluation) -> dict[str, Any]:
    """Return a confusion matrix as rows of cells (count, shade 0-100, whether right), empty cells as None."""
    counts = confusion_matrix(evaluation.labels, evaluation.predictions, len(evaluation.classes))
    seen = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    seen = seen[np.argsort(-counts.sum(axis=1)[seen], kind="stable")]
    names = [clean(evaluation.classes[k], 32) for k in seen]
    support = counts.sum(axis=1)

    def shade(i: int, j: int) -> int:  # by the root: a few mistakes among a thousand stay visible
        return round(100 * np.sqrt(counts[i, j] / support[i])) if support[i] else 100

    return {
        "approach": evaluation.approach,
        "names": names,
        "numbered": len(names) <= NUMBERED_CLASSES,
        "rows": [[(int(counts[i, j]), shade(i, j), i == j) if counts[i, j] else None for j in seen] for i in seen],
        "supports": [int(support[i]) for i in seen],
        "absent": [
            clean(evaluation.classes[k], 40) for k in range(len(evaluation.classes)) if k not in set(seen.tolist())
        ],
    }


def frequent_confusions(evaluations: list[Evaluation]) -> list[dict[str, Any]]:
    """Return the most frequent confusions of both approaches together."""
    if not evaluations:
        return []
    classes = evaluations[0].classes
    matrices = [confusion_matrix(e.labels, e.predictions, len(classes)) for e in evaluations]
    total = sum(matrices)
    np.fill_diagonal(total, 0)
    order = np.argsort(-total, axis=None, kind="stable")[:NUM_CONFUSIONS]
    places = [np.unravel_index(k, total.shape) for k in order]
    return [
        {
            "truth": classes[i],
            "taken_for": classes[j],
            "counts": [int(m[i, j]) for m in matrices],
            "support": int(matrices[0][i].sum()),
        }
        for i, j in places
        if total[i, j]
    ]
