import numpy as np
import pytest
from sklearn import metrics as reference

from components.evaluation import metrics


def _random(num_classes: int, num_examples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.append(np.arange(num_classes), rng.integers(0, num_classes, num_examples - num_classes))
    logits = rng.normal(0, 1, (num_examples, num_classes))
    logits[np.arange(num_examples), labels] += 1.5
    probabilities = np.exp(logits)
    return (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize(("num_classes", "seed"), [(2, 0), (3, 1), (10, 2), (45, 3), (45, 4)])
def test_figures_agree_with_scikit_learn(num_classes: int, seed: int) -> None:
    """Every figure equals scikit-learn's on random inputs."""
    probabilities, labels = _random(num_classes, 700, seed)
    classes = [f"class {k}" for k in range(num_classes)]

    found = metrics.score(metrics.Answers.of([probabilities], labels), labels, classes)

    predictions = probabilities.argmax(axis=1)
    assert reference.accuracy_score(labels, predictions) == pytest.approx(found["accuracy"], abs=1e-12)
    assert reference.balanced_accuracy_score(labels, predictions) == pytest.approx(
        found["balanced_accuracy"], abs=1e-12
    )
    for average in ("macro", "weighted"):
        expected = reference.f1_score(labels, predictions, average=average, zero_division=0)
        assert expected == pytest.approx(found[f"{average}_f1"], abs=1e-12)
    expected = np.asarray(reference.precision_recall_fscore_support(labels, predictions, zero_division=0))
    actual = np.asarray([[row[key] for row in found["per_class"]] for key in ("precision", "recall", "f1", "support")])
    np.testing.assert_allclose(expected, actual, atol=1e-12)
    matrix = np.zeros((num_classes, num_classes), int)
    for true, told, count in found["confusions"]:
        matrix[true, told] = count
    assert reference.confusion_matrix(labels, predictions).tolist() == matrix.tolist()
    assert reference.log_loss(labels, probabilities) == pytest.approx(found["log_loss"], abs=1e-6)
    if num_classes > 3:
        expected = reference.top_k_accuracy_score(labels, probabilities, k=3)
        assert expected == pytest.approx(found["top3_accuracy"], abs=1e-12)


def test_classes_without_test_images_have_no_figures_and_take_no_part() -> None:
    """An absent class shows None, never NaN, and macro averages leave it out even where it was predicted."""
    probabilities = np.asarray([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]], np.float32)
    labels = np.asarray([0, 1, 1])

    found = metrics.score(metrics.Answers.of([probabilities], labels), labels, ["a", "b", "absent"])

    assert {"class": "absent", "precision": None, "recall": None, "f1": None, "support": 0} == found["per_class"][2]
    assert (1 + 2 / 3) / 2 == pytest.approx(found["macro_f1"])
    assert 0.75 == pytest.approx(found["balanced_accuracy"])


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    """A model that says 90 % and is right half of the time is off by 40 points."""
    probabilities = np.tile(np.asarray([[0.9, 0.1]], np.float32), (10, 1))
    labels = np.arange(10) % 2

    assert 0.4 == pytest.approx(metrics.calibration_error(probabilities.max(axis=1), labels == 0), abs=1e-6)


def test_certain_and_right_has_a_log_loss_without_a_sign() -> None:
    """A perfect model's log loss is written as 0.0000."""
    assert "0.0000" == f"{metrics.log_loss(np.ones(5, np.float32)):.4f}"


def test_certain_and_wrong_keeps_the_log_loss_finite() -> None:
    """A probability of zero for the truth costs much, not infinity."""
    answers = metrics.Answers.of([np.asarray([[1.0, 0.0]], np.float32)], np.asarray([1]))

    assert 15.9 == pytest.approx(metrics.log_loss(answers.truth), abs=0.1)


def test_a_constant_answer_does_not_win_top_3() -> None:
    """Equal probabilities rank by label, so a model that cannot tell anything gets three of ten classes right."""
    probabilities, labels = np.full((10, 10), 0.1, np.float32), np.arange(10)

    found = metrics.score(metrics.Answers.of([probabilities], labels), labels, [str(k) for k in range(10)])

    assert 0.3 == found["top3_accuracy"]


def test_confident_mistakes_come_first_and_identical_images_once() -> None:
    """Mistakes are listed by confidence, one per group of identical images, and right answers never."""
    probabilities = np.asarray([[0.6, 0.4], [0.9, 0.1], [0.9, 0.1], [0.7, 0.3], [0.2, 0.8]], np.float32)

    labels = np.ones(5, np.int64)

    found = metrics.confident_mistakes(metrics.Answers.of([probabilities], labels), labels, np.asarray([0, 1, 1, 2, 3]))

    assert [1, 3, 0] == [row["index"] for row in found]
    assert [0, 0, 0] == [row["prediction"] for row in found]


@pytest.mark.parametrize("num_classes", [2, 10, 45])
def test_roc_points_are_few_finite_and_close_to_the_whole_curve(num_classes: int) -> None:
    """At most 200 finite, monotone points whose area agrees with scikit-learn's micro average."""
    probabilities, labels = _random(num_classes, 2000, 7)

    rows = np.asarray(metrics.roc_points(metrics.Answers.of(np.array_split(probabilities, 7), labels)))

    assert len(rows) <= 200
    assert np.isfinite(rows).all()
    assert (np.diff(rows[:, 0]) >= 0).all()
    assert (np.diff(rows[:, 1]) >= 0).all()
    assert [0.0, 0.0] == rows[0, :2].tolist()
    assert [1.0, 1.0] == rows[-1, :2].tolist()
    expected = reference.roc_auc_score(np.eye(num_classes)[labels].ravel(), probabilities.ravel())
    assert expected == pytest.approx(np.trapezoid(rows[:, 1], rows[:, 0]), abs=2e-3)


def test_roc_of_a_constant_model_is_the_diagonal() -> None:
    """A model that always answers the same gives the two end points."""
    answers = metrics.Answers.of([np.full((5, 2), 0.5, np.float32)], np.asarray([0, 1, 0, 1, 0]))

    rows = metrics.roc_points(answers)

    assert [(0.0, 0.0), (1.0, 1.0)] == [row[:2] for row in rows]
