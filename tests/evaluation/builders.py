"""Small real inputs for the tests of the verdict: pictures one can tell apart, linear ONNX models, studies."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from components.data.contract import DatasetInfo, TestData
from components.evaluation import metrics
from components.evaluation.evaluate import Evaluation
from components.evaluation.resampling import accuracy_interval
from components.search.trial import Ledger, Trial

SIDE = 6


def make_test_data(
    name: str = "fashion-mnist",
    classes: tuple[str, ...] = ("shirt", "trouser", "bag"),
    num_examples: int = 300,
    seed: int = 0,
    noise: float = 60.0,
    duplicates: int = 0,
    channels: int = 1,
) -> TestData:
    """Return noisy copies of one random prototype picture per class; `duplicates` pairs are identical."""
    rng = np.random.default_rng(seed)
    prototypes = np.random.default_rng(99).integers(0, 256, (len(classes), SIDE, SIDE, channels))
    labels = rng.integers(0, len(classes), num_examples)
    images = np.clip(prototypes[labels] + rng.normal(0, noise, (num_examples, SIDE, SIDE, channels)), 0, 255)
    groups = np.arange(num_examples)
    for pair in range(duplicates):
        images[2 * pair + 1], labels[2 * pair + 1] = images[2 * pair], labels[2 * pair]
        groups[2 * pair + 1] = 2 * pair
    info = DatasetInfo(
        name=name,
        classes=classes,
        counts={"train": 1000, "validation": 100, "test": num_examples},
        source="generated",
        checksums={"images": "0" * 64},
        content_hash=f"{seed:064d}",
        report={"quarantined": 1, "repaired": 2, "duplicate_groups": duplicates},
    )
    return TestData(images=images.astype(np.uint8), labels=labels.astype(np.int64), groups=groups, info=info)


def linear_onnx(num_classes: int, *, blur: float = 0.0, seed: int = 0, channels: int = 1, side: int = SIDE) -> bytes:
    """Return an ONNX that compares an image with each class's prototype; `blur` spoils the prototypes."""
    shape = (num_classes, side, side, channels)
    prototypes = np.random.default_rng(99).integers(0, 256, shape) / 255.0
    return prototype_onnx(prototypes + np.random.default_rng(seed).normal(0, 1, shape) * blur)


def prototype_onnx(prototypes: np.ndarray) -> bytes:
    """Return an ONNX that finds the nearest of K prototypes, (K, H, W, C) in 0..1."""
    num_classes, *shape = prototypes.shape
    size = int(np.prod(shape))
    prototypes = prototypes.reshape(num_classes, size)
    weights, bias = 4 * prototypes.T, -2 * (prototypes**2).sum(axis=1)
    constants = {
        "weights": (weights / 255.0).astype(np.float32),
        "bias": bias.astype(np.float32),
        "flat": np.asarray([-1, size], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["pixels", "flat"], ["rows"]),
        helper.make_node("MatMul", ["rows", "weights"], ["products"]),
        helper.make_node("Add", ["products", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *shape])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", num_classes])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write_model(
    directory: Path,
    data: TestData,
    approach: str = "mlp",
    blur: float = 0.0,
    seed: int = 0,
    num_replicates: int = 3,
    ledger: Ledger | None = None,
) -> Path:
    """Write a `model/` directory as the training step does."""
    directory.mkdir(parents=True)
    (directory / "replicates").mkdir()
    channels, num_classes = data.images.shape[3], len(data.info.classes)
    for number in range(num_replicates):
        content = linear_onnx(num_classes, blur=blur, seed=seed + number, channels=channels)
        (directory / "replicates" / f"{number}.onnx").write_bytes(content)
        if number == 0:
            (directory / "model.onnx").write_bytes(content)
    model = {
        "approach": approach,
        "hyperparameters": {"learning_rate": 0.01, "optimizer": "Adam", "units": 64},
        "classes": list(data.info.classes),
        "data_hash": data.info.content_hash,
        "replicates": [{"seed": n, "validation_accuracy": 0.9 - n / 100} for n in range(num_replicates)],
        "validation_accuracy": 0.9,
        "device_seconds": 12.5,
        "parameters": 1234,
        "versions": {"numpy": np.__version__},
    }
    (directory / "model.json").write_text(json.dumps(model))
    if ledger:
        ledger.save(directory / "study.json")
    return directory


def make_ledger(num_trials: int = 12, approach: str = "mlp", dataset: str = "fashion-mnist", error: str = "") -> Ledger:
    """Return a study whose trials ended in every possible way."""
    rng = np.random.default_rng(num_trials)
    trials = []
    for number in range(num_trials):
        status = ("completed", "completed", "pruned", "completed", "diverged", "failed")[number % 6]
        epochs = {"completed": 6, "pruned": 2}.get(status, 1)
        scores = tuple(float(s) for s in np.sort(rng.uniform(0.5, 0.92, epochs)))
        usable = status in ("completed", "pruned")
        trials.append(
            Trial(
                number=number,
                status=status,
                hyperparameters={
                    "units_1": int(rng.integers(16, 512)),
                    "activation_1": str(rng.choice(["relu", "tanh"])),
                    "learning_rate": float(10 ** rng.uniform(-4, -1)),
                    "optimizer": str(rng.choice(["SGD", "Adam", "RMSprop", "Nadam"])),
                },
                score=max(scores) if usable else None,
                scores=scores if usable else (),
                epochs=epochs,
                device_seconds=float(rng.uniform(1, 5) * epochs),
                wall_seconds=float(6 * epochs),
                peak_memory_bytes=int(rng.integers(1e8, 4e8)),
                worker=f"worker-{number % 2}",
                error="" if usable else error or "loss became NaN at epoch 1",
            )
        )
    space = [
        {"name": "units_1", "low": 16, "high": 512, "step": 16, "log": False, "choices": [], "default": 64},
        {"name": "activation_1", "low": None, "high": None, "step": None, "log": False, "choices": ["relu", "tanh"]},
        {"name": "learning_rate", "low": 1e-4, "high": 0.1, "step": None, "log": True, "choices": [], "default": 0.01},
        {
            "name": "optimizer",
            "low": None,
            "high": None,
            "step": None,
            "log": False,
            "choices": ["SGD", "Adam", "RMSprop", "Nadam"],
            "default": "Adam",
        },
    ]
    space[1]["default"] = "relu"
    spec = {
        "approach": approach,
        "dataset": dataset,
        "algorithm": "noisy-bayesian",
        "trials": num_trials,
        "minutes": 60.0,
        "space": [{**row, "only_if": None} for row in space],
    }
    return Ledger(name=f"run-{dataset}-{approach}", spec=spec, trials=tuple(trials))


def write_ingest_report(directory: Path, data: TestData) -> Path:
    """Write an ingest report directory as the ingest step does."""
    directory.mkdir(parents=True)
    info = data.info
    document = {
        "schema": 1,
        "name": info.name,
        "source": info.source,
        "checksums": info.checksums,
        "content_hash": info.content_hash,
        "classes": list(info.classes),
        "counts": info.counts,
        "report": info.report,
        "quarantined": [{"where": "styles.csv line 7", "reason": "empty label", "value": "12,,"}],
        "repaired": [],
        "notes": ["3 images were turned upright"],
        "class_counts": {name: {"train": 90, "validation": 10, "test": 20 + k} for k, name in enumerate(info.classes)},
        "train_only_classes": [],
        "folded_classes": {"rare": 2},
        "drift": {
            "images_before": 900,
            "images_change": 500,
            "share_changes": {info.classes[0]: 0.2, info.classes[-1]: -0.2},
            "share_moved": 0.2,
            "mean_change": [0.5],
            "spread_change": [-0.01],
            "warnings": [
                "20.0% of the images moved between classes",
                "mean brightness moved by +0.50 standard deviations",
            ],
        },
    }
    (directory / "ingest_report.json").write_text(json.dumps(document))
    (directory / "ingest_report.md").write_text("# Ingest\n")
    return directory


def make_evaluation(
    approach: str = "mlp",
    *,
    accuracy: float = 0.85,
    seed: int = 0,
    data_seed: int = 0,
    dataset: str = "fashion-mnist",
    classes: tuple[str, ...] = ("shirt", "trouser", "bag"),
    num_examples: int = 400,
    ledger: Ledger | None = None,
    duplicates: int = 0,
) -> Evaluation:
    """Return an evaluation whose answers are drawn at random with a given accuracy."""
    data = make_test_data(dataset, classes, num_examples, data_seed, duplicates=duplicates)
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1, (num_examples, len(classes)))
    told = np.where(rng.random(num_examples) < accuracy, data.labels, rng.integers(0, len(classes), num_examples))
    logits[np.arange(num_examples), told] += 4.0
    probabilities = np.exp(logits)
    probabilities = (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)
    answers = metrics.Answers.of([probabilities], data.labels)
    scores = metrics.score(answers, data.labels, classes)
    correct = answers.predictions == data.labels
    record = {
        "schema": 1,
        "dataset": dataset,
        "approach": approach,
        "classes": list(classes),
        "scores": scores,
        "accuracy_ci95": list(accuracy_interval(correct, data.groups)),
        "replicates": [
            {
                "seed": n,
                "accuracy": scores["accuracy"] - n / 500,
                "macro_f1": scores["macro_f1"],
                "validation_accuracy": 0.9,
            }
            for n in range(3)
        ],
        "latency": {
            "batch_1": {"median_ms": 0.1, "p95_ms": 0.2, "calls": 100},
            "batch_256": {"median_ms": 4.0, "p95_ms": 5.0, "calls": 100},
            "hardware": {"device": "CPU: generic", "threads": 1, "runtime": "onnxruntime 1.0"},
        },
        "model_bytes": 400_000,
        "model": {
            "approach": approach,
            "hyperparameters": {"units": 64},
            "device_seconds": 30.0,
            "parameters": 100_000,
            "validation_accuracy": 0.9,
            "versions": {"numpy": "2.0"},
        },
        "data": json.loads(json.dumps(dataclasses.asdict(data.info))),
        "mistakes": metrics.confident_mistakes(answers, data.labels, data.groups),
    }
    return Evaluation(
        record=record,
        answers=answers,
        labels=data.labels,
        groups=data.groups,
        ledger=ledger,
    )


def save_evaluation(evaluation: Evaluation, directory: Path) -> Path:
    """Write an evaluation directory as the evaluate step does."""
    evaluation.save(directory)
    if evaluation.ledger:
        evaluation.ledger.save(directory / "study.json")
    return directory
