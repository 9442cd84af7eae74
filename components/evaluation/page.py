"""What the report's template is filled with: every section of every dataset as plain rows, charts and pictures."""

import shlex
from datetime import datetime
from typing import Any

import numpy as np

from components.evaluation import charts
from components.evaluation.evaluate import Evaluation
from components.evaluation.metrics import confusion_matrix
from components.evaluation.pictures import disagreements, mistakes
from components.evaluation.results import DatasetResults
from components.evaluation.text import approach_name, clean, duration, p_value, percent, points, size
from components.search.trial import Ledger
from components.search.views import hyperparameter_names, is_scored

NUM_BEST_TRIALS = 8
NUM_CONFUSIONS = 15
NUMBERED_CLASSES = 20
"""Up to here a confusion matrix writes its counts into the cells; beyond, they are in the tooltips and the table."""


def page(
    results: list[DatasetResults],
    parameters: dict[str, Any],
    run: dict[str, Any],
    history: list[dict[str, Any]],
    history_note: str,
    created: datetime,
) -> dict[str, Any]:
    """Return the template's variables.

    Args:
        results: One per dataset.
        parameters: The run's parameters.
        run: `id` and whatever else names the run.
        history: The last runs, the present one last.
        history_note: Why earlier runs are missing.
        created: Now.
    """
    compared = [r.comparison for r in results if r.comparison]
    ledgers = {r.name: {a: e.ledger for a, e in sorted(r.evaluations.items()) if e.ledger} for r in results}
    return {
        "run_id": run.get("id", ""),
        "created": f"{created:%Y-%m-%d %H:%M} UTC",
        "differences": charts.differences(compared) if compared else None,
        "datasets": [_dataset(r, ledgers[r.name], history) for r in results],
        "budget": [_budget(r.name, r.evaluations[a], ledger) for r in results for a, ledger in ledgers[r.name].items()],
        "history": list(reversed(history)) if len(history) > 1 else [],
        "history_note": history_note,
        "parameters": sorted(parameters.items()),
        "command": _command(parameters),
        "run": sorted((k, v) for k, v in run.items() if k != "parameters"),
        "versions": _versions(results),
        "hardware": _hardware(results),
        "num_compared": len(compared),
    }


def _dataset(result: DatasetResults, ledgers: dict[str, Ledger], history: list[dict[str, Any]]) -> dict[str, Any]:
    evaluations = [result.evaluations[a] for a in sorted(result.evaluations)]
    both = evaluations if result.comparison else None
    stages = {e.approach: optimism_rows(e) for e in evaluations}
    return {
        "name": result.name,
        "verdict": result.verdict,
        "winner": result.comparison.winner if result.comparison else None,
        "missing": result.missing,
        "approaches": [e.approach for e in evaluations],
        "stats": [_stats(e) for e in evaluations],
        "cost": cost_sentence(evaluations) if both else "",
        "seeds": seeds_sentence(evaluations) if both else "",
        "figures": _figures(result, evaluations),
        "comparison": result.comparison,
        "optimism": charts.optimism(stages, clean(result.name, 60)),
        "optimism_rows": stages,
        "best_so_far": [charts.search_progress(ledgers, clean(result.name, 60), over_time=t) for t in (False, True)],
        "searches": [_search(a, ledger, result.name) for a, ledger in ledgers.items()],
        "class_chart": charts.class_differences(*both) if both else None,
        "class_rows": _class_rows(evaluations),
        "matrices": [_matrix(e) for e in evaluations],
        "confusions": _confusions(evaluations),
        "galleries": _galleries(evaluations, result),
        "data": _data(result),
        "history": charts.history(history, result.name),
    }


def _stats(evaluation: Evaluation) -> dict[str, Any]:
    record = evaluation.record
    low, high = record["accuracy_ci95"]
    return {
        "approach": evaluation.approach,
        "accuracy": percent(record["scores"]["accuracy"], 2),
        "interval": f"{100 * low:.2f} to {100 * high:.2f}",
        "macro_f1": f"{record['scores']['macro_f1']:.3f}",
        "device": duration(_device_seconds(evaluation)),
        "latency": f"{record['latency']['batch_1']['median_ms']:.2f} ms",
        "size": size(record["model_bytes"]),
        "num_examples": record["scores"]["num_examples"],
    }


def _device_seconds(evaluation: Evaluation) -> float:
    search = evaluation.ledger.device_seconds if evaluation.ledger else 0.0
    return search + float(evaluation.record["model"].get("device_seconds") or 0.0)


def cost_sentence(evaluations: list[Evaluation]) -> str:
    """Return what the more expensive approach costs in units of the cheaper one."""
    cheap, dear = sorted(evaluations, key=_device_seconds)
    seconds = _device_seconds(cheap), _device_seconds(dear)
    latency = [e.record["latency"]["batch_1"]["median_ms"] for e in (cheap, dear)]
    if seconds[0] <= 0:
        return ""
    times = (
        f"{seconds[1] / seconds[0]:.1f} times"
        if seconds[1] < 9.95 * seconds[0]
        else f"{seconds[1] / seconds[0]:.0f} times"
    )
    slower = latency[1] / max(latency[0], 1e-9)
    per_image = f"{slower:.1f} times as long" if slower >= 1 else f"{100 * slower:.0f} % of the time"
    return (
        f"{approach_name(dear.approach)} used {times} the device time of {approach_name(cheap.approach)} for search and"
        f" training ({duration(seconds[1])} against {duration(seconds[0])}) and takes {per_image} to classify one image."
    )


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


def _figures(result: DatasetResults, evaluations: list[Evaluation]) -> list[dict[str, Any]]:
    """Return the result table: a label, one text per approach, the difference, and what it means."""
    scores = [e.record["scores"] for e in evaluations]
    c = result.comparison

    def row(label: str, values: list[str], difference: str = "", note: str = "", interval: str = "") -> dict[str, Any]:
        return {"label": label, "values": values, "difference": difference, "note": note, "interval": interval}

    def change(key: str, digits: int = 4) -> str:
        return f"{scores[0][key] - scores[1][key]:+.{digits}f}" if c else ""

    hours = [_device_seconds(e) / 3600 for e in evaluations]
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


def _search(approach: str, ledger: Ledger, dataset: str) -> dict[str, Any]:
    usable = sorted(filter(is_scored, ledger.trials), key=lambda t: (-t.score, t.number))
    names = [n for n in hyperparameter_names(ledger) if any(n in t.hyperparameters for t in usable)]
    return {
        "approach": approach,
        "algorithm": ledger.spec.get("algorithm", ""),
        "num_trials": len(ledger.trials),
        "chart": charts.parallel_coordinates(ledger, approach, clean(dataset, 60)),
        "names": names,
        "best": [
            {"trial": t, "values": [_value(t.hyperparameters.get(n)) for n in names]} for t in usable[:NUM_BEST_TRIALS]
        ],
    }


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else clean(value, 40)


def _budget(dataset: str, evaluation: Evaluation, ledger: Ledger) -> dict[str, Any]:
    reasons: dict[str, int] = {}
    for trial in ledger.trials:
        if trial.error:
            reasons[clean(trial.error, 120)] = reasons.get(clean(trial.error, 120), 0) + 1
    return {
        "dataset": dataset,
        "approach": evaluation.approach,
        "statuses": {s: ledger.count(s) for s in ("completed", "pruned", "diverged", "failed")},
        "unfinished": sum(not t.is_finished for t in ledger.trials),
        "epochs": sum(t.epochs for t in ledger.trials),
        "reused": len(ledger.reused),
        "search": duration(ledger.device_seconds),
        "train": duration(evaluation.record["model"].get("device_seconds") or 0.0),
        "total": duration(_device_seconds(evaluation)),
        "memory": size(max((t.peak_memory_bytes for t in ledger.trials), default=0)),
        "reasons": sorted(reasons.items(), key=lambda row: (-row[1], row[0]))[:5],
    }


def _class_rows(evaluations: list[Evaluation]) -> list[dict[str, Any]]:
    if not evaluations:
        return []
    tables = [e.record["scores"]["per_class"] for e in evaluations]
    rows = [
        {"class": same[0]["class"], "support": same[0]["support"], "scores": same} for same in zip(*tables, strict=True)
    ]
    return sorted(rows, key=lambda row: (-row["support"], row["class"]))


def _matrix(evaluation: Evaluation) -> dict[str, Any]:
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


def _confusions(evaluations: list[Evaluation]) -> list[dict[str, Any]]:
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


def _galleries(evaluations: list[Evaluation], result: DatasetResults) -> list[dict[str, Any]]:
    if result.images is None or any(len(result.images) != len(e.labels) for e in evaluations):
        return []
    galleries = []
    if len(evaluations) == 2:
        first, second = evaluations
        for right, wrong in ((first, second), (second, first)):
            count = int((right.correct & ~wrong.correct).sum())
            title = f"Only {approach_name(right.approach)} is right ({count:,} images)"
            galleries.append({"title": title, "pictures": disagreements(right, wrong, result.images)})
    for e in evaluations:
        others = [other for other in evaluations if other is not e]
        title = f"Most confident mistakes of {approach_name(e.approach)} ({int((~e.correct).sum()):,} mistakes)"
        galleries.append({"title": title, "pictures": mistakes(e, others, result.images)})
    return [g for g in galleries if g["pictures"]]


def _data(result: DatasetResults) -> dict[str, Any]:
    document = result.ingest or next((e.record["data"] for e in result.evaluations.values()), {})
    report = {k: v for k, v in document.get("report", {}).items() if isinstance(v, (int, float, str))}
    labels = document.get("labels", {})
    return {
        "counts": document.get("counts", {}),
        "report": sorted(report.items()),
        "source": document.get("source", ""),
        "hash": document.get("content_hash", ""),
        "checksums": sorted(document.get("checksums", {}).items()),
        "labels": sorted(labels.items(), key=lambda row: (-sum(row[1]), row[0])) if isinstance(labels, dict) else [],
        "notes": [str(n) for n in document.get("notes", ())],
        "drift": document.get("drift"),
        "train_only": document.get("train_only_classes", []),
        "folded": document.get("folded_classes", []),
        "quarantined": [_fields(q) for q in document.get("quarantined", ())][:20],
        "num_quarantined": len(document.get("quarantined", ())),
    }


def _fields(row: Any) -> str:
    return "; ".join(f"{k} {v}" for k, v in row.items()) if isinstance(row, dict) else str(row)


def _command(parameters: dict[str, Any]) -> str:
    datasets = parameters.get("data_datasets") or []
    parts = ["python -m pipelines run", *(f"--dataset {shlex.quote(clean(d))}" for d in datasets)]
    for name, value in sorted(parameters.items()):
        if name not in ("data_datasets", "study_root"):
            text = str(value).lower() if isinstance(value, bool) else str(value)
            parts.append(f"--set {shlex.quote(clean(f'{name}={text}'))}")
    return " \\\n    ".join(parts)


def _versions(results: list[DatasetResults]) -> list[tuple[str, str]]:
    found: dict[str, set[str]] = {}
    for evaluation in (e for r in results for e in r.evaluations.values()):
        versions = evaluation.record["model"].get("versions")
        for name, value in versions.items() if isinstance(versions, dict) else ():
            found.setdefault(str(name), set()).add(str(value))
        found.setdefault("evaluation", set()).add(evaluation.record["latency"]["hardware"]["runtime"])
    return sorted((name, ", ".join(sorted(values))) for name, values in found.items())


def _hardware(results: list[DatasetResults]) -> list[str]:
    rows = [e.record["latency"]["hardware"] for r in results for e in r.evaluations.values()]
    return sorted({f"{row['device']}, {row['threads']} threads" for row in rows})


__all__ = ["cost_sentence", "p_value", "page", "points", "seeds_sentence"]
