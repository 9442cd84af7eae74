import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.data.contract import TestData
from components.data.pictures import PictureRule
from components.data.sources.pictures import Pictures
from components.errors import DataError, ParameterError
from components.evaluation.champion.records import ChampionRecords
from components.evaluation.evaluate import evaluate
from components.evaluation.inference import BATCH_SIZE
from components.evaluation.predict import Answer, Classifier
from components.models.facts import write_metadata
from components.stores import open_store
from tests.evaluation.builders import SIDE, make_evaluation, make_test_data, write_model

NAME = "shop"


@pytest.fixture
def data(tmp_path: Path) -> TestData:
    """More test images than a batch has."""
    data = make_test_data(NAME, num_examples=BATCH_SIZE + 44, noise=140.0, channels=3)
    data.save(tmp_path / "test")
    return data


@pytest.fixture
def model(tmp_path: Path, data: TestData) -> Path:
    """A model that explains itself."""
    model = write_model(tmp_path / "model", data, blur=0.3, num_replicates=1)
    rule = PictureRule.of(NAME, data.images.shape[1:])
    facts = {"dataset": NAME, "classes": list(data.info.classes), "picture_rule": rule.sentence()}
    write_metadata(model / "model.onnx", facts)
    return model / "model.onnx"


@pytest.fixture
def pictures(tmp_path: Path, data: TestData) -> Path:
    """The test images as files, in their order."""
    (tmp_path / "pictures").mkdir()
    for number, image in enumerate(data.images):
        Image.fromarray(image).save(tmp_path / "pictures" / f"{number:05d}.png")
    return tmp_path / "pictures"


def answers(model: Path, *paths: Path, top: int = 1) -> list[Answer]:
    return list(Classifier.of_file(model, NAME).answers(Pictures(paths), top))


def test_the_test_images_get_exactly_what_evaluate_gave_them(tmp_path: Path, model: Path, pictures: Path) -> None:
    """As files and as the array: every class and every bit of its probability."""
    evaluate(model.parent, tmp_path / "test", tmp_path / "evaluation")
    with np.load(tmp_path / "evaluation" / "predictions.npz") as arrays:
        probabilities, predictions = arrays["probabilities"], arrays["predictions"]
    classes = json.loads((model.parent / "model.json").read_text())["classes"]
    expected = [(classes[k], row[k]) for k, row in zip(predictions, probabilities, strict=True)]

    for path in (pictures, tmp_path / "test" / "images.npy"):
        assert expected == [answer.top[0] for answer in answers(model, path)]


def test_the_most_probable_classes_come_first(model: Path, pictures: Path) -> None:
    """In falling order, with probabilities that sum to one where all classes are asked for, and no more than there are."""
    for answer in answers(model, pictures / "00000.png", pictures / "00001.png", top=50):
        told = [float(probability) for _, probability in answer.top]
        assert 3 == len(told)
        assert sorted(told, reverse=True) == told
        assert 1 == pytest.approx(sum(told), abs=1e-6)
    assert [2] == [len(answer.top) for answer in answers(model, pictures / "00000.png", top=2)]


def test_what_cannot_be_read_changes_no_other_answer(model: Path, pictures: Path, tmp_path: Path) -> None:
    """Bad files are named in their places, with reasons; all others have the answers they have without them."""
    before = answers(model, pictures)
    for number in (0, 100, 299):
        (pictures / f"{number:05d}.bad.jpg").write_bytes(b"\xff\xd8\xff cut short")
    np.save(tmp_path / "other.npy", np.zeros((1, SIDE, SIDE + 1, 3), np.uint8))

    found = answers(model, tmp_path / "missing.png", pictures, tmp_path / "other.npy")

    assert before == [answer for answer in found if not answer.error]
    assert [f"{number:05d}.bad.jpg" for number in (0, 100, 299)] == [
        Path(answer.name).name for answer in found[1:-1] if answer.error
    ]
    assert f"{tmp_path}/missing.png must be a plain file; there is no such file. Check the path" == found[0].error
    assert "damaged" in next(answer.error for answer in found[1:] if answer.error)
    assert "must be of shape (6, 6, 3); got (6, 7, 3)" in found[-1].error


def test_an_empty_array_is_no_defect(model: Path, tmp_path: Path) -> None:
    """A file that ends before an array begins is one that cannot be read."""
    (tmp_path / "images.npy").touch()

    (answer,) = answers(model, tmp_path / "images.npy")

    assert "must be readable; got No data left in file" in answer.error


def test_a_link_to_nothing_is_not_called_missing(model: Path, tmp_path: Path) -> None:
    """A mistyped name and a link that leads nowhere need different remedies."""
    (tmp_path / "link.png").symlink_to("gone.png")

    (answer,) = answers(model, tmp_path / "link.png")

    assert "must be a plain file; got a link to nothing, a device or a pipe" in answer.error


def test_a_champion_from_before_models_explained_themselves_is_known_by_its_record(
    tmp_path: Path, data: TestData, pictures: Path
) -> None:
    """The record names the classes; without a champion there is an error that says what to do."""
    old = write_model(tmp_path / "old", data, num_replicates=1)
    records = ChampionRecords(open_store(str(tmp_path / "store")), NAME)
    with pytest.raises(DataError, match="champion of shop must exist"):
        Classifier.of_champion(str(tmp_path / "store"), NAME)
    content = dict.fromkeys(("approach", "data_hash", "decision", "reason", "created"), "") | {"predecessor": None}
    sha256 = records.add_model(old, make_evaluation().record)
    assert records.create(1, {**content, "sha256": sha256, "classes": list(data.info.classes)})

    found = Classifier.of_champion(str(tmp_path / "store"), NAME)

    assert data.info.classes == found.classes
    assert answers(old / "model.onnx", pictures) == list(found.answers(Pictures([pictures])))


def test_a_model_that_does_not_fit_is_refused(model: Path, data: TestData) -> None:
    """Another data set, another rule for pictures, other classes, or none at all."""
    with pytest.raises(ParameterError, match=r"DATASET must be .* shop; got other"):
        Classifier.of_file(model, "other")
    (model.parent / "model.json").unlink()
    classes = list(data.info.classes)
    for facts, message in (
        ({"classes": classes, "picture_rule": "crop"}, "says: crop"),
        ({"classes": classes[:2]}, "must name its 3 classes"),
        ({}, "must name its 3 classes"),
    ):
        write_metadata(model, facts)
        with pytest.raises(DataError, match=message):
            Classifier.of_file(model, NAME)
