"""This module collects what a run produced, by dataset and approach, and makes `summary.json` of it."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from components.approaches import APPROACHES
from components.data.contract import TestData
from components.errors import DataError
from components.evaluation.comparison import Comparison, compare, decide
from components.evaluation.cost import cost_of
from components.evaluation.evaluate import EVALUATION_FILE, Evaluation
from components.text import approach_name, clean

SCHEMA = 1


@dataclass(kw_only=True)
class DatasetResults:
    """What a run found on one dataset.

    Attributes:
        name: The dataset's name.
        ingest: Content of `ingest_report.json`; empty where it is missing.
        evaluations: By approach; an approach without a usable model is absent.
        missing: By name of each absent approach, why it is absent.
        comparison: The comparison of two approaches (`_two_best`); None where fewer were evaluated.
        images: (N, H, W, C) uint8 memory-mapped test images; None where they are not at hand.
    """

    name: str
    ingest: dict[str, Any] = field(default_factory=dict)
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    comparison: Comparison | None = None
    images: np.ndarray | None = None

    @property
    def verdict(self) -> str:
        """The comparison's verdict in one sentence."""
        if self.comparison:
            return self.comparison.verdict
        absent = " and ".join(approach_name(a) for a in self.missing)
        return (
            f"On {clean(self.name, 100)}, there is nothing to compare: {absent} has no usable model"
            f"{_because(self.missing)}."
        )


def _two_best(evaluations: dict[str, Evaluation]) -> list[Evaluation]:
    """Return the two approaches to compare; of more than two, those with the best validation accuracy: no test image chooses."""
    ranked = sorted(evaluations.values(), key=lambda e: -(e.record["model"].get("validation_accuracy") or 0.0))
    return ranked[:2]


def _because(missing: dict[str, str]) -> str:
    reasons = sorted({reason for reason in missing.values() if reason})
    return f" ({'; '.join(clean(r).rstrip('.') for r in reasons)})" if reasons else ""


def collect(evaluation_dirs: list[Path], ingest_report_dirs: list[Path], test_dirs: list[Path]) -> list[DatasetResults]:
    """Read a run's artifacts and compare the approaches on every dataset.

    Args:
        evaluation_dirs: Any order; one that holds no `evaluation.json` counts as an approach without a usable model.
        ingest_report_dirs: One per dataset, any order.
        test_dirs: One per dataset, any order; for the pictures.

    Returns:
        One entry per dataset, by name.

    Raises:
        DataError: An evaluation cannot be read, or two were scored on different images.
    """
    results: dict[str, DatasetResults] = {}

    def of(name: str) -> DatasetResults:
        return results.setdefault(name, DatasetResults(name=name))

    for directory in ingest_report_dirs:
        document = _read_json(Path(directory) / "ingest_report.json")
        of(document["name"]).ingest = document
    for directory in test_dirs:
        data = TestData.load(directory, memory_map=True)
        of(data.info.name).images = data.images
    for directory in map(Path, evaluation_dirs):
        if (directory / EVALUATION_FILE).exists():
            evaluation = Evaluation.load(directory)
            of(evaluation.dataset).evaluations[evaluation.approach] = evaluation
    for result in results.values():
        absent = [a for a in APPROACHES if a not in result.evaluations]
        result.missing = dict.fromkeys(absent, "no trial of its search gave a model that could be evaluated")
    both = [r for r in results.values() if len(r.evaluations) >= 2]
    compared = [compare(*_two_best(r.evaluations)) for r in both]
    for result, comparison in zip(both, decide(compared), strict=True):
        result.comparison = comparison
    return [results[name] for name in sorted(results)]


def summarise(results: list[DatasetResults], parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the content of `summary.json`, schema version 1: `champion` is filled in by promote, `cost` is there where a price is known."""
    datasets = {r.name: _dataset_summary(r) for r in results}
    approaches = [scores for part in datasets.values() for scores in part["approaches"].values()]
    cost = cost_of(sum(sum(scores["device_seconds"].values()) for scores in approaches))
    return {"schema": SCHEMA, "parameters": parameters, "datasets": datasets, **({"cost": cost} if cost else {})}


def _dataset_summary(result: DatasetResults) -> dict[str, Any]:
    comparison = result.comparison
    return {
        "data": _data_summary(result),
        "approaches": {a: _approach_summary(result.evaluations[a]) for a in sorted(result.evaluations)},
        "comparison": {
            "winner": comparison and comparison.winner,
            "accuracy_difference": comparison and comparison.accuracy_difference,
            "accuracy_difference_ci95": comparison and list(comparison.accuracy_difference_ci95),
            "mcnemar_p": comparison and comparison.mcnemar_p,
            "verdict": result.verdict,
        },
        "champion": {"decision": None, "version": None},
    }


def _data_summary(result: DatasetResults) -> dict[str, Any]:
    source = result.ingest or next((e.record["data"] for e in result.evaluations.values()), {})
    counts, report = source.get("counts", {}), source.get("report", {})
    return {
        "hash": source.get("content_hash", ""),
        "classes": len(source.get("classes", ())),
        **{split: counts.get(split, 0) for split in ("train", "validation", "test")},
        **{finding: report.get(finding, 0) for finding in ("quarantined", "repaired", "duplicate_groups")},
        **({"drift": drift["warnings"]} if (drift := source.get("drift")) and drift["warnings"] else {}),
    }


def _approach_summary(evaluation: Evaluation) -> dict[str, Any]:
    record, ledger = evaluation.record, evaluation.ledger
    scores, model = record["scores"], record["model"]
    return {
        "accuracy": scores["accuracy"],
        "accuracy_ci95": record["accuracy_ci95"],
        "macro_f1": scores["macro_f1"],
        "macro_f1_ci95": list(evaluation.macro_f1_ci95),
        "weighted_f1": scores["weighted_f1"],
        "per_class": {
            row["class"]: {key: row[key] for key in ("precision", "recall", "f1", "support")}
            for row in scores["per_class"]
        },
        "replicates": [{key: row[key] for key in ("seed", "accuracy", "macro_f1")} for row in record["replicates"]],
        **({"default": record["default"]} if record.get("default") else {}),
        "validation_accuracy": model.get("validation_accuracy"),
        "best_hyperparameters": model.get("hyperparameters", {}),
        "trials": {s: ledger.count(s) if ledger else 0 for s in ("completed", "pruned", "failed", "diverged")},
        "device_seconds": {
            "search": ledger.device_seconds if ledger else 0.0,
            "train": model.get("device_seconds", 0.0),
        },
        "parameters": model.get("parameters"),
        "model_bytes": record["model_bytes"],
        "latency_ms": {batch: record["latency"][batch]["median_ms"] for batch in ("batch_1", "batch_256")},
    }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["name"]
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} must be written by the ingest step; got {error}. Run ingest again") from error
    return content
