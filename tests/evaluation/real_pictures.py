"""Takes a model through evaluate and through predict on the published test sets, and compares bit by bit."""

import csv
import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np

from components.data.contract import DatasetInfo
from components.data.ingest import ingest
from components.data.pictures import PictureRule
from components.data.readers import fashion_mnist
from components.data.readers.archives import open_archive
from components.data.readers.images import decode
from components.evaluation.evaluate import evaluate
from components.models.facts import write_metadata
from components.parameters import DataSettings
from pipelines.__main__ import run

SOURCES = {"fashion-mnist": "fashion-mnist", "fashion-products": "fashion-product-images-small.zip"}


def ingested(name: str, out: Path, real_data: Path) -> DatasetInfo:
    """Ingest a published data set as a run does."""
    folders = {"train_dir": out / "train", "test_dir": out / "test", "report_dir": out / "report"}
    return ingest(f"{name}={real_data / SOURCES[name]}", settings=DataSettings(), cache=str(out / "cache"), **folders)


def pictures_of_the_test_set(name: str, out: Path, real_data: Path) -> Path:
    """Return where the publisher has the test images: an IDX file, or a zip of the very JPEG files that ingest decoded."""
    if name == "fashion-mnist":
        return real_data / SOURCES[name] / fashion_mnist.TEST_IMAGES
    tested = {digest(image) for image in np.load(out / "test" / "images.npy", mmap_mode="r", allow_pickle=False)}
    with open_archive(real_data / SOURCES[name]) as members, zipfile.ZipFile(out / "pictures.zip", "w") as chosen:
        for member in members.names:
            if not member.endswith(".jpg"):
                continue
            data = members.read(member)
            if digest(decode(data, (80, 60))[0]) in tested:
                chosen.writestr(member, data)
    return out / "pictures.zip"


def digest(image: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(image)).digest()


def assert_predict_is_evaluate(
    name: str, info: DatasetInfo, onnx: Path, approach: str, out: Path, real_data: Path
) -> None:
    """Compare class and probability of every test image; `onnx` is a model of its shape."""
    model = out / "model"
    (model / "replicates").mkdir(parents=True)
    shape = np.load(out / "test" / "images.npy", mmap_mode="r", allow_pickle=False).shape[1:]
    rule = PictureRule.of(name, shape)
    facts = {"dataset": name, "classes": list(info.classes), "picture_rule": rule.sentence()}
    (model / "model.onnx").write_bytes(onnx.read_bytes())
    write_metadata(model / "model.onnx", facts)
    (model / "model.json").write_text(json.dumps({"approach": approach, **facts}))
    evaluate(model, out / "test", out / "evaluation")
    card = (out / "evaluation" / "model_card.md").read_text(encoding="utf-8")
    assert ("zalando-datasets/fashion_mnist" in card) == (name == "fashion-mnist")
    with np.load(out / "evaluation" / "predictions.npz") as arrays:
        probabilities = arrays["probabilities"].max(axis=1)
        expected = [(info.classes[k], p) for k, p in zip(arrays["predictions"], probabilities, strict=True)]
    path = pictures_of_the_test_set(name, out, real_data)

    assert 0 == run(["predict", name, str(path), "--model", str(model / "model.onnx"), "--out", str(out / "out.csv")])

    with (out / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    told = [(row["class"], np.float32(row["probability"])) for row in rows]
    if name == "fashion-mnist":
        assert expected == told
        return
    images = np.load(out / "test" / "images.npy", mmap_mode="r", allow_pickle=False)
    known = {digest(image): answer for image, answer in zip(images, expected, strict=True)}
    with open_archive(path) as members:
        asked = [digest(decode(members.read(row["image"].removeprefix(f"{path}/")), (80, 60))[0]) for row in rows]
    assert set(known) == set(asked)
    assert [known[key] for key in asked] == told
