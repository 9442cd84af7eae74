"""Real images of both datasets, a real if simple model: every figure against an independent computation."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_recall_fscore_support
from statsmodels.stats.contingency_tables import mcnemar

from components.data.contract import TestData, TrainData
from components.data.ingest import ingest
from components.evaluation.evaluate import evaluate
from components.evaluation.report.report import write_report
from components.parameters import DataSettings
from tests.evaluation.builders import prototype_onnx, write_model
from tests.evaluation.page_check import Page, assert_harmless

pytestmark = [pytest.mark.real, pytest.mark.slow]
SOURCES = {"fashion-mnist": "fashion-mnist", "fashion-products": "fashion-product-images-small.zip"}


@pytest.mark.parametrize("name", SOURCES)
def test_figures_of_real_images_equal_an_independent_computation(name: str, tmp_path: Path, real_data: Path) -> None:
    """Nearest class means on real images: what the summary says follows from the stored predictions alone."""
    train_dir, test_dir, report_dir = tmp_path / "train", tmp_path / "test", tmp_path / "ingest"
    settings = DataSettings(limit=4000)
    directories = {"train_dir": train_dir, "test_dir": test_dir, "report_dir": report_dir}
    ingest(f"{name}={real_data / SOURCES[name]}", settings=settings, **directories, cache=str(tmp_path / "cache"))
    train, test = TrainData.load(train_dir), TestData.load(test_dir)
    means = np.stack(
        [
            train.images[train.labels == k].mean(axis=0) / 255.0
            if (train.labels == k).any()
            else np.ones(test.images.shape[1:])
            for k in range(len(test.info.classes))
        ]
    )
    evaluations = []
    for approach, prototypes in (("mlp", means), ("resnet18", 0.8 * means + 0.1)):
        model = write_model(tmp_path / approach, test, approach)
        for path in model.rglob("*.onnx"):
            path.write_bytes(prototype_onnx(prototypes))
        evaluate(model, test_dir, tmp_path / "evaluations" / approach)
        evaluations.append(tmp_path / "evaluations" / approach)

    summary = write_report(
        evaluation_dirs=evaluations,
        ingest_report_dirs=[report_dir],
        test_dirs=[test_dir],
        parameters={},
        run={"id": "real"},
        history="",
        html_path=tmp_path / "report.html",
        summary_path=tmp_path / "summary.json",
    )

    part, right = summary["datasets"][name], []
    for approach in ("mlp", "resnet18"):
        with np.load(tmp_path / "evaluations" / approach / "predictions.npz") as arrays:
            probabilities, labels = arrays["probabilities"], arrays["labels"]
        assert test.labels.tolist() == labels.tolist()
        predictions, found = probabilities.argmax(axis=1), part["approaches"][approach]
        right.append(predictions == labels)
        assert 2 / len(test.info.classes) < found["accuracy"]
        assert accuracy_score(labels, predictions) == pytest.approx(found["accuracy"], abs=1e-12)
        present = np.unique(labels)
        macro = f1_score(labels, predictions, labels=present, average="macro", zero_division=0)
        assert macro == pytest.approx(found["macro_f1"], abs=1e-12)
        weighted = f1_score(labels, predictions, average="weighted", zero_division=0)
        assert weighted == pytest.approx(found["weighted_f1"], abs=1e-12)
        expected = precision_recall_fscore_support(labels, predictions, labels=present, zero_division=0)
        for place, k in enumerate(present):
            row = found["per_class"][test.info.classes[k]]
            actual = [row[key] for key in ("precision", "recall", "f1", "support")]
            assert [part[place] for part in expected] == pytest.approx(actual, abs=1e-12)
        assert np.isfinite(log_loss(labels, probabilities, labels=np.arange(probabilities.shape[1])))
    table = [[0, (right[0] & ~right[1]).sum()], [(right[1] & ~right[0]).sum(), 0]]
    assert mcnemar(table, exact=True).pvalue == pytest.approx(part["comparison"]["mcnemar_p"], rel=1e-9)
    assert right[0].mean() - right[1].mean() == pytest.approx(part["comparison"]["accuracy_difference"], abs=1e-12)
    assert_harmless(Page((tmp_path / "report.html").read_text(encoding="utf-8")))
