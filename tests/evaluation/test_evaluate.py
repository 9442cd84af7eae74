import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from components.data.contract import TestData
from components.data.pictures import PictureRule, licence_of
from components.errors import DataError
from components.evaluation.evaluate import Evaluation, evaluate
from components.evaluation.inference import OnnxModel, num_threads
from components.evaluation.model_card import HUB_DATASETS, model_card
from components.evaluation.ui_metrics import OTHERS, ui_metrics
from tests.evaluation.builders import linear_onnx, make_evaluation, make_ledger, make_test_data, write_model


@pytest.fixture
def data(tmp_path: Path) -> TestData:
    data = make_test_data(noise=140.0, duplicates=20)
    data.save(tmp_path / "test")
    return data


def test_figures_equal_an_independent_computation_from_the_predictions(tmp_path: Path, data: TestData) -> None:
    """What `evaluation.json` says follows from `predictions.npz`, and the labels are those of the test data."""
    model = write_model(tmp_path / "model", data, blur=0.3, ledger=make_ledger())

    evaluate(model, tmp_path / "test", tmp_path / "evaluation")

    record = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    with np.load(tmp_path / "evaluation" / "predictions.npz") as arrays:
        predictions, labels, groups = arrays["probabilities"].argmax(axis=1), arrays["labels"], arrays["groups"]
        assert np.float32 == arrays["probabilities"].dtype
    assert data.labels.tolist() == labels.tolist()
    assert data.groups.tolist() == groups.tolist()
    assert 0.4 < record["scores"]["accuracy"] < 1.0
    assert np.mean(predictions == labels) == record["scores"]["accuracy"]
    low, high = record["accuracy_ci95"]
    assert low < record["scores"]["accuracy"] < high
    assert [0, 1, 2] == [row["seed"] for row in record["replicates"]]
    assert record["scores"]["accuracy"] == record["replicates"][0]["accuracy"]
    assert 0.89 == record["replicates"][1]["validation_accuracy"]
    assert (model / "model.onnx").stat().st_size == record["model_bytes"]
    assert (model / "study.json").read_bytes() == (tmp_path / "evaluation" / "study.json").read_bytes()


def add_default(model_dir: Path, data: TestData, blur: float) -> None:
    """Give a model directory the default configuration's model."""
    model = json.loads((model_dir / "model.json").read_text())
    default = {"hyperparameters": {"units": 8}, "is_winner": False, "seed": 7, "device_seconds": 3.0}
    (model_dir / "model.json").write_text(json.dumps({**model, "default": default}))
    (model_dir / "default.onnx").write_bytes(linear_onnx(len(data.info.classes), blur=blur, seed=5))


@pytest.mark.parametrize("seeds", [[2, 0, 1], [99, 1], []])
def test_the_default_configuration_is_scored_beside_the_first_seed(
    tmp_path: Path, data: TestData, seeds: list[int]
) -> None:
    """Its accuracy, and by how much the winner's first replicate is better, pair by pair; the model itself without one."""
    model_dir = write_model(tmp_path / "model", data, blur=0.3)
    add_default(model_dir, data, 0.9)
    model = json.loads((model_dir / "model.json").read_text())
    (model_dir / "model.json").write_text(json.dumps({**model, "seeds": seeds}))

    found = evaluate(model_dir, tmp_path / "test", tmp_path / "evaluation").record

    default = found["default"]
    replicates = {row["seed"]: row["accuracy"] for row in found["replicates"]}
    winner = {2: replicates[2], 99: replicates[1]}.get(seeds[0]) if seeds else found["scores"]["accuracy"]
    assert winner - default["accuracy"] == pytest.approx(default["gain"])
    assert default["gain_ci95"][0] < default["gain"] < default["gain_ci95"][1]
    assert (3.0, {"units": 8}) == (default["device_seconds"], default["hyperparameters"])


def test_latency_is_measured_at_both_batch_sizes_with_the_hardware_named(tmp_path: Path, data: TestData) -> None:
    """Median and p95 are positive and ordered, the hardware has a name and a number of threads."""
    model = write_model(tmp_path / "model", data, num_replicates=1)

    latency = evaluate(model, tmp_path / "test", tmp_path / "evaluation").record["latency"]

    for batch in ("batch_1", "batch_256"):
        assert 0 < latency[batch]["median_ms"] <= latency[batch]["p95_ms"]
    assert latency["hardware"]["device"].startswith("CPU: ")
    assert num_threads() == latency["hardware"]["threads"]


def test_what_was_written_is_read_back(tmp_path: Path, data: TestData) -> None:
    """Loading gives the same record, predictions and study."""
    model = write_model(tmp_path / "model", data, ledger=make_ledger())

    written = evaluate(model, tmp_path / "test", tmp_path / "evaluation")
    read = Evaluation.load(tmp_path / "evaluation")

    assert written.record == read.record
    assert written.ledger == read.ledger
    for field in ("predictions", "confidence", "truth", "ranks", "scores"):
        np.testing.assert_array_equal(getattr(written.answers, field), getattr(read.answers, field))


def test_evaluating_again_gives_the_same_bytes_but_for_the_latency(tmp_path: Path, data: TestData) -> None:
    """A repeated step writes the same predictions and figures."""
    model = write_model(tmp_path / "model", data)

    records = []
    for name in ("one", "two"):
        evaluate(model, tmp_path / "test", tmp_path / name)
        record = json.loads((tmp_path / name / "evaluation.json").read_text())
        records.append({k: v for k, v in record.items() if k != "latency"})

    assert records[0] == records[1]
    assert (tmp_path / "one" / "predictions.npz").read_bytes() == (tmp_path / "two" / "predictions.npz").read_bytes()


def test_the_model_card_tells_data_training_figures_limits_and_licence(tmp_path: Path, data: TestData) -> None:
    """The card lies beside the evaluation with every section."""
    evaluate(write_model(tmp_path / "model", data, blur=0.3), tmp_path / "test", tmp_path / "evaluation")

    card = (tmp_path / "evaluation" / "model_card.md").read_text()

    for heading in ("## Model", "## Data", "## Training", "## Figures", "## Limits"):
        assert heading in card
    assert "Licence of the data: Fashion-MNIST, MIT licence" in card
    assert "95 % interval" in card
    assert data.info.content_hash in card


@pytest.mark.parametrize(
    ("dataset", "licence", "known"),
    [
        ("fashion-mnist", "mit", ["zalando-datasets/fashion_mnist"]),
        ("fashion-mnist", "mit", None),
        ("fashion-products", "other", None),
        ("my-shop", "unknown", None),
    ],
)
def test_the_model_card_begins_with_what_hugging_face_reads(
    dataset: str, licence: str, known: list[str] | None
) -> None:
    """YAML between two lines: licence, library, task, figures; after them the facts of `model.json`, names shown literally."""
    record = make_evaluation(dataset=dataset, classes=("T-shirt/top", "a: |b", "bag")).record
    record["data"]["checksums"] = {"t10k-images-idx3-ubyte.gz": next(iter(HUB_DATASETS)) if known else "sha256:0"}
    rule = PictureRule.of(dataset, (28, 28, 1))
    record["model"] |= {
        "image": rule.image(),
        "picture_rule": rule.sentence(),
        "data_licence": licence_of(dataset).text,
    }

    _, front, body = model_card(record).split("---\n", 2)

    said = yaml.safe_load(front)
    assert (licence, known) == (said["license"], said.get("datasets"))
    assert (licence == "other") == ("license_link" in said)
    assert ("onnx", "image-classification") == (said["library_name"], said["pipeline_tag"])
    (result,) = said["model-index"][0]["results"]
    assert [record["scores"]["accuracy"], record["scores"]["macro_f1"]] == [m["value"] for m in result["metrics"]]
    assert body.lstrip().startswith("# Model card: ")
    assert "`T-shirt/top`, `a: /b`, `bag`" in body
    assert "28 x 28 pixels" in body
    assert ("negate, unless" in body) == (dataset == "fashion-mnist")
    assert licence_of(dataset).text in body


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda m: (m / "model.onnx").write_bytes(b"not an onnx"), "must be a readable ONNX model"),
        (lambda m: (m / "model.onnx").unlink(), "must be a readable ONNX model"),
        (lambda m: (m / "model.json").write_text("[]"), "must be written by the training step"),
        (lambda m: (m / "model.onnx").write_bytes(linear_onnx(4)), "must give 3 probabilities per image"),
        (lambda m: (m / "model.onnx").write_bytes(linear_onnx(3, side=9)), "must take images of shape"),
        (lambda m: (m / "replicates" / "1.onnx").write_bytes(b""), "must be a readable ONNX model"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_with_what_to_do(
    tmp_path: Path, data: TestData, spoil: object, message: str
) -> None:
    """Damaged, foreign and missing models end the step with one clear error and no evaluation."""
    model = write_model(tmp_path / "model", data)
    spoil(model)

    with pytest.raises(DataError, match=message):
        evaluate(model, tmp_path / "test", tmp_path / "evaluation")
    assert not (tmp_path / "evaluation" / "evaluation.json").exists()


def test_a_model_of_other_classes_is_refused(tmp_path: Path, data: TestData) -> None:
    """Three classes of other names are not these three classes."""
    model = write_model(tmp_path / "model", make_test_data(classes=("a", "b", "c")))

    with pytest.raises(DataError, match="must know the 3 classes"):
        evaluate(model, tmp_path / "test", tmp_path / "evaluation")
    assert data.info.classes == ("shirt", "trouser", "bag")


def test_probabilities_that_are_not_are_refused() -> None:
    """NaN out of a model is an error, not a figure."""
    model = OnnxModel(linear_onnx(3, blur=np.nan))

    with pytest.raises(DataError, match="must give finite probabilities"):
        model.predict(make_test_data().images, 3)


def test_a_half_written_evaluation_is_refused(tmp_path: Path) -> None:
    """Without `evaluation.json`, which comes last, a directory is not an evaluation."""
    make_evaluation().save(tmp_path)
    (tmp_path / "evaluation.json").unlink()

    with pytest.raises(DataError, match="must be an evaluation"):
        Evaluation.load(tmp_path)


@pytest.mark.parametrize("num_classes", [2, 15, 45])
def test_the_user_interface_gets_readable_and_finite_figures(num_classes: int) -> None:
    """The matrix has at most 15 categories and every example, the curve at most 200 points, all numbers are finite."""
    evaluation = make_evaluation(classes=tuple(f"class {k}" for k in range(num_classes)), num_examples=900)

    found = ui_metrics(evaluation)

    assert min(num_classes, 15) == len(found.classes) == len(found.confusion_matrix)
    assert 900 == np.sum(found.confusion_matrix)
    assert (OTHERS in found.classes) == (num_classes > 15)
    assert len(found.false_positive_rates) == len(found.true_positive_rates) == len(found.thresholds) <= 200
    numbers = [*found.metrics.values(), *found.false_positive_rates, *found.true_positive_rates, *found.thresholds]
    assert np.isfinite(numbers).all()
    assert evaluation.record["scores"]["accuracy"] == found.metrics["accuracy"]
