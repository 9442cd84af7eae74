"""Fashion-MNIST: four files that must fit together, and the published ones recognised."""

import gzip
import hashlib
import zipfile

import numpy as np
import pytest

from components.data.contract import TestData, TrainData
from components.data.digests import digest_images, short_digests
from components.data.readers import fashion_mnist
from components.data.readers.fashion_mnist import FILES, TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from components.data.readers.idx import format_idx
from components.errors import DataError, ParameterError
from tests.data.builders import make_zip, mnist_arrays, mnist_files, run_ingest, tree, write_files


def test_ingests_directory(tmp_path):
    """Test stays the publisher's, validation is a stratified share of train, pixels are untouched."""
    source = write_files(tmp_path / "raw", mnist_files(num_train=200))

    info = run_ingest(f"fashion-mnist={source}", tmp_path / "out")

    train, test = TrainData.load(tmp_path / "out/train_data"), TestData.load(tmp_path / "out/test_data")
    arrays = mnist_arrays(num_train=200)
    assert {"train": 180, "validation": 20, "test": 20} == info.counts
    assert [2] * 10 == np.bincount(train.labels[train.split == 1]).tolist()
    np.testing.assert_array_equal(arrays[TRAIN_IMAGES][..., None], train.images)
    np.testing.assert_array_equal(arrays[TEST_IMAGES][..., None], test.images)
    np.testing.assert_array_equal(arrays[TEST_LABELS], test.labels)


def test_zip_with_plain_files(tmp_path):
    """An archive of the four files, unpacked as Kaggle has them, gives the same data."""
    files = mnist_files()
    source = write_files(tmp_path / "raw", files)
    plain = [(f"data/{name.removesuffix('.gz')}", gzip.decompress(data)) for name, data in files.items()]
    archive = make_zip(tmp_path / "raw.zip", plain, compression=zipfile.ZIP_DEFLATED)

    a = run_ingest(f"fashion-mnist={source}", tmp_path / "a")
    b = run_ingest(f"fashion-mnist={archive}", tmp_path / "b")

    assert a.content_hash == b.content_hash


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({TRAIN_LABELS: np.zeros(59, np.uint8)}, "count must be 60"),
        ({TEST_LABELS: np.zeros(21, np.uint8)}, "count must be 20"),
        ({TRAIN_LABELS: np.full(60, 10, np.uint8)}, "labels must be 0 to 9; got 10"),
        ({TEST_LABELS: np.full(20, 255, np.uint8)}, "labels must be 0 to 9; got 255"),
        ({TEST_IMAGES: np.zeros((20, 28, 29), np.uint8)}, "size must be"),
        ({TEST_IMAGES: np.zeros((20, 28), np.uint8)}, "dimensions must be 3"),
        ({TRAIN_LABELS: np.zeros((60, 1), np.uint8)}, "dimensions must be 1"),
    ],
)
def test_files_that_do_not_fit(tmp_path, change, text):
    """Counts, labels and sizes that contradict each other are refused, the field is named."""
    files = {name: format_idx(array) for name, array in (mnist_arrays() | change).items()}
    source = write_files(tmp_path / "raw", files)

    with pytest.raises(DataError, match=text):
        run_ingest(f"fashion-mnist={source}", tmp_path / "out")


@pytest.mark.parametrize("name", FILES)
def test_missing_file(tmp_path, name):
    """A missing file is named."""
    files = mnist_files()
    del files[name]
    source = write_files(tmp_path / "raw", files)

    with pytest.raises(DataError, match=rf"{name} missing"):
        run_ingest(f"fashion-mnist={source}", tmp_path / "out")


@pytest.mark.parametrize("name", FILES)
def test_truncated_file(tmp_path, name):
    """A truncated file is refused with the bytes it should have and those it has."""
    files = mnist_files()
    files[name] = files[name][: len(files[name]) // 2]
    source = write_files(tmp_path / "raw", files)

    with pytest.raises(DataError, match=r"expected [\d,]+ bytes, got [\d,]+"):
        run_ingest(f"fashion-mnist={source}", tmp_path / "out")

    assert {} == tree(tmp_path / "out")


def test_published_size_with_another_digest():
    """A file of the published length must have the published MD5; both digests are shown."""
    data = b"x" * fashion_mnist.PUBLISHED_BYTES[TEST_LABELS]

    with pytest.raises(DataError) as caught:
        fashion_mnist.is_published(TEST_LABELS, data)

    assert fashion_mnist.PUBLISHED_MD5[TEST_LABELS] in str(caught.value)
    assert hashlib.md5(data, usedforsecurity=False).hexdigest() in str(caught.value)


def test_sums_beside_the_data(tmp_path):
    """A `SHA256SUMS` beside the files pins them."""
    files = mnist_files()
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
    source = write_files(tmp_path / "raw", files | {"SHA256SUMS": sums.encode()})
    run_ingest(f"fashion-mnist={source}", tmp_path / "out")
    (source / TEST_IMAGES).write_bytes(mnist_files(seed=1)[TEST_IMAGES])

    with pytest.raises(DataError, match="must have SHA256"):
        run_ingest(f"fashion-mnist={source}", tmp_path / "out")


def test_images_of_the_test_set_leave_training(tmp_path):
    """A training image that is also in the official test set is left out and listed."""
    arrays = mnist_arrays(num_train=200)
    arrays[TRAIN_IMAGES][7] = arrays[TEST_IMAGES][3]
    source = write_files(tmp_path / "raw", {name: format_idx(a) for name, a in arrays.items()})

    info = run_ingest(f"fashion-mnist={source}", tmp_path / "out")

    assert 199 == info.counts["train"] + info.counts["validation"]
    assert (20, 1) == (info.counts["test"], info.report["left_out"])


def test_limit_is_stratified(tmp_path):
    """`data_limit` keeps the share of test and of every class."""
    source = write_files(tmp_path / "raw", mnist_files(num_train=600, num_test=100))

    info = run_ingest(f"fashion-mnist={source}", tmp_path / "out", limit=140)

    labels = TrainData.load(tmp_path / "out/train_data").labels
    assert (140, 20) == (sum(info.counts.values()), info.counts["test"])
    assert [12] * 10 == np.bincount(labels).tolist()


def test_whatever_the_limit_no_test_image_is_trained_on(tmp_path):
    """A subset trains on no image of the whole official test set, whichever part of it the subset tests on."""
    arrays = mnist_arrays(num_train=600, num_test=100)
    arrays[TRAIN_IMAGES][:300] = np.tile(arrays[TEST_IMAGES], (3, 1, 1))
    source = write_files(tmp_path / "raw", {name: format_idx(a) for name, a in arrays.items()})

    for limit in (0, 140, 350):
        run_ingest(f"fashion-mnist={source}", tmp_path / str(limit), limit=limit)

    official = short_digests(digest_images(arrays[TEST_IMAGES]))
    seen = [TestData.load(tmp_path / f"{limit}/test_data").seen for limit in (0, 140, 350)]
    assert [300, 110, 260] == [len(known) for known in seen]
    assert not np.isin(np.concatenate(seen), official).any()


def test_sources_that_are_none(tmp_path):
    """A path that is absent, an empty directory and a file of another kind are told apart."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("hello")

    with pytest.raises(ParameterError, match="must exist"):
        run_ingest(f"fashion-mnist={tmp_path}/absent", tmp_path / "out")
    with pytest.raises(ParameterError, match="must hold its files"):
        run_ingest(f"fashion-mnist={tmp_path}/empty", tmp_path / "out")
    with pytest.raises(DataError, match="zip archive"):
        run_ingest(f"fashion-mnist={tmp_path}/text", tmp_path / "out")
