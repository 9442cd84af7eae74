"""This module fills the report's template: every section of every dataset as plain rows, charts and pictures."""

import os
import shlex
from datetime import datetime
from typing import Any

from components.evaluation.comparison import SIGNIFICANCE
from components.evaluation.cost import cost_text
from components.evaluation.evaluate import Evaluation
from components.evaluation.report import charts
from components.evaluation.report.pictures import disagreements, mistakes
from components.evaluation.report.tables import (
    NAME_LENGTH,
    TABLE_CLASSES,
    class_rows,
    confusion_cells,
    cost_sentence,
    default_sentence,
    device_seconds,
    frequent_confusions,
    listed,
    optimism_rows,
    result_rows,
    seeds_sentence,
)
from components.evaluation.summary import DatasetResults
from components.runtime import COMMIT_VARIABLE
from components.search.samplers.choice import describe
from components.search.tables import hyperparameter_names, importance, is_scored
from components.search.trial import Ledger
from components.text import approach_name, clean, duration, percent, short_names, size

NUM_BEST_TRIALS = 8
NUM_QUARANTINED = 20
SPLITS = ("train", "validation", "test")


def page(
    results: list[DatasetResults],
    parameters: dict[str, Any],
    run: dict[str, Any],
    history: list[dict[str, Any]],
    history_note: str,
    created: datetime,
    cost: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the template's variables.

    Args:
        results: One per dataset.
        parameters: The run's parameters.
        run: `id` and other values that name the run.
        history: The last runs, the present one last.
        history_note: A sentence that explains why earlier runs are missing; empty if they are not.
        created: Now.
        cost: What the run's device time costs; None where no price is known.
    """
    compared = [r.comparison for r in results if r.comparison]
    ledgers = {r.name: {a: e.ledger for a, e in sorted(r.evaluations.items()) if e.ledger} for r in results}
    return {
        "run_id": run.get("id", ""),
        "created": f"{created:%Y-%m-%d %H:%M} UTC",
        "differences": charts.differences(compared) if compared else None,
        "datasets": [_dataset(r, ledgers[r.name], history) for r in results],
        "budget": [_budget(r.name, r.evaluations[a], ledger) for r in results for a, ledger in ledgers[r.name].items()],
        "money": _money(cost) if cost else "",
        "history": list(reversed(history)) if len(history) > 1 else [],
        "history_note": history_note,
        "parameters": sorted(parameters.items()),
        "command": _command(parameters),
        "run": sorted((k, v) for k, v in {**run, **_code()}.items() if k != "parameters"),
        "versions": _versions(results),
        "hardware": _hardware(results),
        "num_compared": len(compared),
        "significance": SIGNIFICANCE,
    }


def _dataset(result: DatasetResults, ledgers: dict[str, Ledger], history: list[dict[str, Any]]) -> dict[str, Any]:
    evaluations = [result.evaluations[a] for a in sorted(result.evaluations)]
    c = result.comparison
    both = [result.evaluations[c.first], result.evaluations[c.second]] if c else None
    stages = {e.approach: optimism_rows(e) for e in evaluations}
    return {
        "name": result.name,
        "verdict": result.verdict,
        "winner": result.comparison.winner if result.comparison else None,
        "missing": result.missing,
        "approaches": [e.approach for e in evaluations],
        "stats": [_stats(e) for e in evaluations],
        "cost": cost_sentence(both) if both else "",
        "seeds": seeds_sentence(both) if both else "",
        "result_rows": result_rows(result, evaluations),
        "comparison": result.comparison,
        "optimism": charts.optimism(stages, clean(result.name, 60)),
        "optimism_rows": stages,
        "defaults": [sentence for e in evaluations if (sentence := default_sentence(e))],
        "best_so_far": [charts.search_progress(ledgers, clean(result.name, 60), over_time=t) for t in (False, True)],
        "searches": [_search(a, ledger, result.name) for a, ledger in ledgers.items()],
        "class_chart": charts.class_differences(*both) if both else None,
        "class_rows": class_rows(evaluations),
        "num_classes": len(evaluations[0].classes) if evaluations else 0,
        "num_drawn": charts.MAX_CLASSES,
        "matrices": [confusion_cells(e) for e in evaluations],
        "confusions": frequent_confusions(evaluations),
        "galleries": _galleries(evaluations, result),
        "data": _data(result),
        "history": charts.history(history, result.name),
    }


def _money(cost: dict[str, Any]) -> str:
    price = f"{cost['price_per_hour']:g} {cost['currency']} for an hour of a device"
    return f"{duration(cost['device_seconds'])} of device time for searches and trainings cost about {cost_text(cost)}, at {price}."


def _importance(ledger: Ledger) -> str:
    """Return in words what the scores depended on; "" where there are too few to tell."""
    shares = [f"{clean(name, 40)} {percent(share, 0)}" for name, share in importance(ledger).items() if share >= 0.01]
    return f"What the score depended on: {', '.join(shares)}." if shares else ""


def _stats(evaluation: Evaluation) -> dict[str, Any]:
    record = evaluation.record
    low, high = record["accuracy_ci95"]
    return {
        "approach": evaluation.approach,
        "accuracy": percent(record["scores"]["accuracy"], 2),
        "interval": f"{100 * low:.2f} to {100 * high:.2f}",
        "macro_f1": f"{record['scores']['macro_f1']:.3f}",
        "device": duration(device_seconds(evaluation)),
        "latency": f"{record['latency']['batch_1']['median_ms']:.2f} ms",
        "size": size(record["model_bytes"]),
        "num_examples": record["scores"]["num_examples"],
    }


def _search(approach: str, ledger: Ledger, dataset: str) -> dict[str, Any]:
    usable = sorted(filter(is_scored, ledger.trials), key=lambda t: (-t.accuracy, t.number))
    names = [n for n in hyperparameter_names(ledger) if any(n in t.hyperparameters for t in usable)]
    return {
        "approach": approach,
        "algorithm": describe(ledger.spec),
        "num_trials": len(ledger.trials),
        "importance": _importance(ledger),
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
        "asked": f"{_value(ledger.spec.get('trials'))} trials, {_value(ledger.spec.get('minutes'))} min",
        "unfinished": sum(not t.is_finished for t in ledger.trials),
        "epochs": sum(t.epochs for t in ledger.trials),
        "reused": len(ledger.reused),
        "search": duration(ledger.device_seconds),
        "train": duration(evaluation.record["model"].get("device_seconds") or 0.0),
        "total": duration(device_seconds(evaluation)),
        "memory": size(max((t.peak_memory_bytes for t in ledger.trials), default=0)),
        "reasons": sorted(reasons.items(), key=lambda row: (-row[1], row[0]))[:5],
    }


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
    counts = document.get("class_counts") or {}
    quarantined = document.get("quarantined") or []
    notes = document.get("notes") or ()
    if isinstance(notes, dict):
        notes = [f"{name.replace('_', ' ')}: {value}" for name, value in notes.items()]
    return {
        "counts": document.get("counts", {}),
        "report": sorted((k, v) for k, v in document.get("report", {}).items() if isinstance(v, (int, float, str))),
        "source": document.get("source", ""),
        "hash": document.get("content_hash", ""),
        "checksums": sorted(document.get("checksums", {}).items()),
        "classes": sorted(
            (
                (name, [split.get(part, 0) for part in SPLITS])
                for name, split in zip(short_names(list(counts), NAME_LENGTH), counts.values(), strict=True)
            ),
            key=lambda row: (-sum(row[1]), row[0]),
        )[:TABLE_CLASSES],
        "num_classes": len(counts),
        "notes": [str(note) for note in [*(document.get("warnings") or ()), *notes]][:NUM_QUARANTINED],
        "drift": _drift(document.get("drift")),
        "train_only": listed(list(document.get("train_only_classes") or ())),
        "folded": listed(list(document.get("folded_classes") or ())),
        "quarantined": [_fields(entry) for entry in quarantined[:NUM_QUARANTINED]],
        "num_quarantined": len(quarantined),
    }


def _drift(drift: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return what changed since the ingest before in words, the classes that moved most first."""
    if not drift:
        return None
    shares = sorted(drift["share_changes"].items(), key=lambda row: (-abs(row[1]), row[0]))
    facts = [
        f"{drift['images_change']:+,} images (there were {drift['images_before']:,})",
        f"{percent(drift['share_moved'])} of the images moved between classes",
        f"mean pixel value moved by {_numbers(drift['mean_change'])} standard deviations",
        f"spread of pixel values changed by {_numbers(drift['spread_change'])} standard deviations",
    ]
    if shares:
        facts.append("largest changes of share: " + ", ".join(f"{clean(c, 40)} {100 * v:+.2f}" for c, v in shares[:8]))
    return {"warnings": drift["warnings"], "facts": facts}


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{v:+.3f}" for v in values)


def _fields(row: Any) -> str:
    return "; ".join(f"{k} {v}" for k, v in row.items()) if isinstance(row, dict) else str(row)


def _command(parameters: dict[str, Any]) -> str:
    datasets = parameters.get("data_datasets") or []
    parts = ["fashion-tuning run", *(f"--dataset {shlex.quote(clean(d))}" for d in datasets)]
    for name, value in sorted(parameters.items()):
        if name not in ("data_datasets", "study_root"):
            text = str(value).lower() if isinstance(value, bool) else str(value)
            parts.append(f"--set {shlex.quote(clean(f'{name}={text}'))}")
    return " \\\n    ".join(parts)


def _code() -> dict[str, str]:
    """Return which code ran, where the image or the local runner said so."""
    commit = os.environ.get(COMMIT_VARIABLE, "")
    return {"commit": commit} if commit else {}


def _versions(results: list[DatasetResults]) -> list[tuple[str, str]]:
    versions_of: dict[str, set[str]] = {}
    for evaluation in (e for r in results for e in r.evaluations.values()):
        versions = evaluation.record["model"].get("versions")
        for name, value in versions.items() if isinstance(versions, dict) else ():
            versions_of.setdefault(str(name), set()).add(str(value))
        versions_of.setdefault("evaluation", set()).add(evaluation.record["latency"]["hardware"]["runtime"])
    return sorted((name, ", ".join(sorted(values))) for name, values in versions_of.items())


def _hardware(results: list[DatasetResults]) -> list[str]:
    rows = [e.record["latency"]["hardware"] for r in results for e in r.evaluations.values()]
    return sorted({f"{row['device']}, {row['threads']} threads" for row in rows})
