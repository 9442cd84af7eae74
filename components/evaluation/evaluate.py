"""The evaluate step turns an exported model and held-out images into scores and predictions on disk."""

import dataclasses
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from components.data.contract import TestData
from components.errors import DataError, using
from components.evaluation import metrics
from components.evaluation.inference import OnnxModel, hardware
from components.evaluation.metrics import Answers
from components.evaluation.model_card import model_card
from components.evaluation.resampling import accuracy_difference_interval, accuracy_interval, macro_f1_interval
from components.models.contract import DEFAULT_FILE
from components.search.trial import Ledger

EVALUATION_FILE, PREDICTIONS_FILE, STUDY_FILE, CARD_FILE = (
    "evaluation.json",
    "predictions.npz",
    "study.json",
    "model_card.md",
)


MAX_PROBABILITIES = 64_000_000
"""Probabilities that an evaluation keeps beside its answers: 256 MB of them."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One approach on one dataset's held-out images.

    Attributes:
        record: Content of `evaluation.json`: `dataset`, `approach`, `classes`, `scores`, `accuracy_ci95`, `replicates`,
            `latency`, `model_bytes`, `model` (the whole `model.json`), `data` (the whole `dataset.json`), `mistakes`.
        answers: The model's answers to N images.
        labels: (N,) int64.
        groups: (N,) int64; identical images share a number.
        ledger: The study behind the model, where it travelled along.
    """

    record: dict[str, Any]
    answers: Answers
    labels: np.ndarray
    groups: np.ndarray
    ledger: Ledger | None = None

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return self.record["dataset"]

    @property
    def approach(self) -> str:
        """`mlp` or `resnet18`."""
        return self.record["approach"]

    @property
    def classes(self) -> list[str]:
        """Class names in label order."""
        return self.record["classes"]

    @property
    def predictions(self) -> np.ndarray:
        """(N,) int64; the most probable class."""
        return self.answers.predictions

    @property
    def correct(self) -> np.ndarray:
        """(N,) bool."""
        return self.predictions == self.labels

    @cached_property
    def macro_f1_ci95(self) -> tuple[float, float]:
        """The bootstrap interval of the macro F1; docs/verdict.md has its coverage."""
        return macro_f1_interval(self.predictions, self.labels, self.groups, len(self.classes))

    def save(self, directory: Path, probabilities: np.ndarray | None = None) -> None:
        """Write the directory; `evaluation.json` comes last, so that a half-written one is recognised.

        Args:
            directory: Made where it is missing.
            probabilities: (N, K) float32 to keep beside the answers.
        """
        arrays = {"labels": self.labels, "groups": self.groups, **vars(self.answers)}
        if probabilities is not None:
            arrays["probabilities"] = probabilities
        text = json.dumps(self.record, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        with using(directory):
            directory.mkdir(parents=True, exist_ok=True)
            np.savez(directory / PREDICTIONS_FILE, **arrays)
            (directory / CARD_FILE).write_text(model_card(self.record), encoding="utf-8")
            (directory / EVALUATION_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path | str) -> Self:
        """Read the directory; raise `DataError` where it is not an evaluation."""
        directory = Path(directory)
        try:
            record = json.loads((directory / EVALUATION_FILE).read_text(encoding="utf-8"))
            with np.load(directory / PREDICTIONS_FILE, allow_pickle=False) as arrays:
                answers = Answers(**{field.name: arrays[field.name] for field in dataclasses.fields(Answers)})
                examples = {name: arrays[name] for name in ("labels", "groups")}
            record["dataset"], record["approach"], record["scores"]["accuracy"]
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{directory} must be an evaluation; got {error}. Run the evaluate step again") from error
        study = directory / STUDY_FILE
        ledger = Ledger.load(study) if study.exists() else None
        return cls(record=record, answers=answers, ledger=ledger, **examples)


def evaluate(model_dir: Path | str, test_dir: Path | str, evaluation_dir: Path | str) -> Evaluation:
    """Score an exported model and its replicates on held-out images; run the ONNX and nothing else.

    Args:
        model_dir: `model/` as the training step wrote it.
        test_dir: `test_data/` as the ingest step wrote it.
        evaluation_dir: Where `evaluation.json`, `predictions.npz`, `model_card.md` and `study.json` go.

    Returns:
        What was written.

    Raises:
        DataError: The model cannot be run, or was made for other classes.
    """
    model_dir, evaluation_dir = Path(model_dir), Path(evaluation_dir)
    model = load_model_description(model_dir)
    data = TestData.load(test_dir, memory_map=True)
    classes = list(data.info.classes)
    if not len(data.labels):
        raise DataError(f"{test_dir} must hold at least one image; got none. Ingest with a larger data_test_fraction")
    if list(model.get("classes", classes)) != classes:
        raise DataError(
            f"{model_dir} must know the {len(classes)} classes of {data.info.name} in the same order; got"
            f" {len(model['classes'])} others. Evaluate it on the data it was trained for"
        )
    onnx = OnnxModel(model_dir / "model.onnx")
    kept: list[np.ndarray] | None = [] if len(data.labels) * len(classes) <= MAX_PROBABILITIES else None
    answers = Answers.of(_keeping(onnx.batches(data.images, len(classes)), kept), data.labels)
    replicates, predictions = _replicates(model_dir, model, data, answers)
    record = {
        "schema": 1,
        "dataset": data.info.name,
        "approach": model["approach"],
        "classes": classes,
        "scores": metrics.score(answers, data.labels, classes),
        "accuracy_ci95": list(accuracy_interval(answers.predictions == data.labels, data.groups)),
        "replicates": replicates,
        "default": _default(model_dir, model, data, predictions, answers),
        "latency": {
            "batch_1": onnx.latency(data.images, 1),
            "batch_256": onnx.latency(data.images, 256),
            "hardware": hardware(),
        },
        "model_bytes": (model_dir / "model.onnx").stat().st_size,
        "model": model,
        "data": json.loads((Path(test_dir) / "dataset.json").read_text(encoding="utf-8")),
        "mistakes": metrics.confident_mistakes(answers, data.labels, data.groups),
    }
    evaluation_dir.mkdir(parents=True, exist_ok=True)
    ledger = None
    if (model_dir / STUDY_FILE).exists():
        ledger = Ledger.load(model_dir / STUDY_FILE)
        shutil.copyfile(model_dir / STUDY_FILE, evaluation_dir / STUDY_FILE)
    evaluation = Evaluation(
        record=record,
        answers=answers,
        labels=data.labels,
        groups=data.groups,
        ledger=ledger,
    )
    evaluation.save(evaluation_dir, None if kept is None else np.concatenate(kept))
    return evaluation


def _keeping(batches: Iterable[np.ndarray], kept: list[np.ndarray] | None) -> Iterator[np.ndarray]:
    for batch in batches:
        if kept is not None:
            kept.append(batch)
        yield batch


def load_model_description(model_dir: Path) -> dict[str, Any]:
    """Return `model.json`; raise `DataError` if it is missing or incomplete."""
    path = model_dir / "model.json"
    try:
        model = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(model["approach"], str):
            raise TypeError("no approach")
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} must be written by the training step; got {error}. Train again") from error
    return model


def _replicates(
    model_dir: Path, model: dict[str, Any], data: TestData, answers: Answers
) -> tuple[list[dict[str, Any]], dict[int, np.ndarray]]:
    """Score every replicate's ONNX on the test images; return the scores and the predictions.

    One of them is `model.onnx` itself, whose `answers` are known.
    """
    described = {int(row["seed"]): row for row in model.get("replicates", ()) if "seed" in row}
    chosen, rows, predictions = (model_dir / "model.onnx").read_bytes(), [], {}
    for path in sorted((model_dir / "replicates").glob("*.onnx"), key=lambda p: int(p.stem)):
        seed = int(path.stem)
        predictions[seed] = answers.predictions if path.read_bytes() == chosen else _predictions(path, data)
        described_score = {"validation_accuracy": described.get(seed, {}).get("validation_accuracy")}
        rows.append({"seed": seed, **_accuracies(predictions[seed], data), **described_score})
    return rows, predictions


def _predictions(path: Path, data: TestData) -> np.ndarray:
    batches = OnnxModel(path).batches(data.images, len(data.info.classes))
    return np.concatenate([batch.argmax(axis=1) for batch in batches])


def _accuracies(predictions: np.ndarray, data: TestData) -> dict[str, float]:
    return {
        "accuracy": float(np.mean(predictions == data.labels)),
        "macro_f1": metrics.macro_f1(predictions, data.labels, len(data.info.classes)),
    }


def _default(
    model_dir: Path, model: dict[str, Any], data: TestData, winner_predictions: dict[int, np.ndarray], answers: Answers
) -> dict[str, Any] | None:
    """Score the space's default configuration beside the winner's first replicate: one seed each, none of them chosen.

    Returns:
        The `default` of `model.json`, with `accuracy`, `macro_f1`, and `gain` and `gain_ci95`, by which the winner is more accurate,
        where there is such a model; None where the training step trained none.
    """
    described = model.get("default")
    path = model_dir / DEFAULT_FILE
    if described is None or not path.exists():
        return described
    predictions = _predictions(path, data)
    first = next(
        (winner_predictions[seed] for seed in model.get("seeds", ()) if seed in winner_predictions), answers.predictions
    )
    right, winner = predictions == data.labels, first == data.labels
    return {
        **described,
        **_accuracies(predictions, data),
        "gain": float(winner.mean() - right.mean()),
        "gain_ci95": list(accuracy_difference_interval(winner, right, data.groups)),
    }
