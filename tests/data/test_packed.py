"""Images packed on disk: read and written in any order, and turned into the file that NumPy would have written."""

import numpy as np
import pytest

from components.data import contract
from components.data.contract import DatasetInfo, TrainData
from components.data.packed import PackedImages, available_bytes


@pytest.fixture
def images():
    """3,000 pictures, each its own number."""
    return np.random.default_rng(0).integers(0, 256, (3000, 9, 7, 3), np.uint8)


def packed(folder, images):
    """Pack pictures in pieces, the last ones first."""
    found = PackedImages(folder, images.shape)
    for start in range(2500, -1, -500):
        found.write(start, images[start : start + 500])
    return found


@pytest.mark.parametrize(
    "rows", [np.arange(3000), np.array([5, 3, 2999, 3]), np.arange(0, 3000, 7), np.array([], int), slice(10, 20)]
)
def test_reads_like_an_array(tmp_path, images, rows):
    """Rows come in the order they are asked for, whatever lies between them."""
    found = packed(tmp_path, images)

    np.testing.assert_array_equal(images[rows], found[rows])
    found.close()
    assert [] == list(tmp_path.iterdir())


def test_becomes_the_file_of_some_rows(tmp_path, images):
    """Rows move to the front of the file, which ends as `np.save` writes it."""
    rows = np.flatnonzero(np.random.default_rng(1).random(3000) < 0.7)

    packed(tmp_path, images).become(tmp_path / "images.npy", rows)
    np.save(tmp_path / "expected.npy", images[rows])

    assert (tmp_path / "expected.npy").read_bytes() == (tmp_path / "images.npy").read_bytes()
    assert {"expected.npy", "images.npy"} == {path.name for path in tmp_path.iterdir()}


def test_images_stay_on_disk_where_memory_has_no_room(tmp_path, images, monkeypatch):
    """Training data is loaded where it fits several times, else mapped; the pixels are the same."""
    info = DatasetInfo(name="a", classes=("x",), counts={}, source="", checksums={}, content_hash="")
    labels = np.zeros(3000, np.int64)
    TrainData(images=images, labels=labels, split=labels.astype(np.uint8), info=info).save(tmp_path)
    loaded = TrainData.load(tmp_path)

    monkeypatch.setattr(contract, "available_bytes", lambda: 5 * images.nbytes)
    mapped = TrainData.load(tmp_path)

    assert [False, True] == [isinstance(data.images, np.memmap) for data in (loaded, mapped)]
    np.testing.assert_array_equal(loaded.images, mapped.images)


@pytest.mark.parametrize(
    ("limit", "used", "expected"), [("1000000", "400000", 600_000), ("max", "7", 2_048_000), ("", "", 2_048_000)]
)
def test_available_memory(tmp_path, limit, used, expected):
    """A control group's limit counts where there is one, else what the machine has free."""
    files = (tmp_path / "max", tmp_path / "current", tmp_path / "meminfo")
    for path, text in zip(files, (limit, used, "MemFree: 1 kB\nMemAvailable:    2000 kB\n"), strict=True):
        path.write_text(text)

    assert expected == available_bytes(files)
