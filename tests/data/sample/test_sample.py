"""The generated sample: published formats, every defect, the same for the same seed, and neither trivial nor hopeless."""

import json
import zipfile

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier

from components.data.contract import TestData, TrainData
from components.data.readers.fashion_mnist import CLASSES, FILES
from components.data.sample.sample import draw_grey, write_sample
from tests.data.builders import run_ingest, tree


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The sample as the quick start draws it."""
    directory = tmp_path_factory.mktemp("sample")
    write_sample(directory)
    return directory


def test_files(sample):
    """Both datasets are there under the names the quick start expects."""
    assert {f"fashion-mnist/{n}" for n in (*FILES, "SHA256SUMS")} | {"fashion-products.zip"} == set(tree(sample))


def test_fashion_mnist(sample, tmp_path):
    """The grey part is ingested like the published one, without a defect."""
    info = run_ingest(f"fashion-mnist={sample}/fashion-mnist", tmp_path)

    assert (CLASSES, {"train": 1080, "validation": 120, "test": 300}) == (info.classes, info.counts)
    assert 0 == info.report["quarantined"]


def test_products(sample, tmp_path):
    """The product part holds every defect of the real archive, and ingest finds each."""
    info = run_ingest(f"fashion-products={sample}/fashion-products.zip", tmp_path)

    report = json.loads((tmp_path / "report/ingest_report.json").read_text())
    found = {
        "repaired": 2,
        "rows_without_image": 2,
        "images_without_row": 1,
        "normalised": 4,
        "duplicate_groups": 11,
        "contradictory_groups": 1,
        "train_only_classes": 1,
        "quarantined": 0,
    }
    assert found == {key: info.report[key] for key in found}
    assert {"greyscale": 1, "resized": 3} == report["normalised"]
    assert ["Vouchers"] == report["train_only_classes"]
    counts = {name: sum(parts.values()) for name, parts in report["class_counts"].items()}
    assert 9 == len(counts)
    assert counts["Topwear"] > 5 * counts["Eyewear"]


def test_same_seed_same_files(tmp_path):
    """The same seed draws the same bytes, another one other bytes."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_sample(tmp_path / name, seed=seed, num_train=20, num_test=10, num_products=100)

    a, b, c = (tree(tmp_path / name) for name in "abc")
    assert a == b
    assert not any(a[name] == c[name] for name in a if "labels" not in name)


def test_names_of_the_archive(sample):
    """The archive has the published layout: the table and `images/<id>.jpg`, nothing else."""
    with zipfile.ZipFile(sample / "fashion-products.zip") as archive:
        names = archive.namelist()

    assert "styles.csv" == names[0]
    assert all(name.startswith("images/") and name[7:-4].isdecimal() and name.endswith(".jpg") for name in names[1:])


def test_learnable_but_not_trivial(sample, tmp_path):
    """A linear model finds most of the grey classes and far from all."""
    run_ingest(f"fashion-mnist={sample}/fashion-mnist", tmp_path)
    train, test = TrainData.load(tmp_path / "train_data"), TestData.load(tmp_path / "test_data")

    def pixels(images):
        return images.reshape(len(images), -1) / 255.0

    model = RidgeClassifier(alpha=30.0).fit(pixels(train.images), train.labels)

    assert 0.5 < model.score(pixels(test.images), test.labels) < 0.9


def test_classes_look_different():
    """The mean pictures of the classes differ from each other by more than noise."""
    images, labels = draw_grey(np.random.default_rng(0), 400)
    means = np.stack([images[labels == k].mean(axis=0) for k in range(10)]) / 255

    distances = np.abs(means[:, None] - means[None]).mean(axis=(2, 3))

    assert distances[~np.eye(10, dtype=bool)].min() > 0.01
