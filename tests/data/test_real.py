"""The published data sets themselves: known facts, checksums, speed and memory. Skipped where they are absent."""

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from components.data.contract import TestData, TrainData
from components.data.digests import digest_images, short_digests
from components.data.findings import Findings
from components.data.readers import fashion_mnist
from components.data.readers.fashion_products import parse_styles
from components.errors import DataError
from tests.data.builders import run_ingest, tree

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parents[2]
ARCHIVE = "fashion-product-images-small.zip"
TABLE_DIGEST = "7495080f36f10ad3b0b920f0446a7bc2be8bbb43d1d704598bae2d6aa8528ed5"


@pytest.fixture(scope="module")
def products_out(real_data, tmp_path_factory):
    """The whole product archive, ingested."""
    out = tmp_path_factory.mktemp("products")
    run_ingest(f"fashion-products={real_data / ARCHIVE}", out)
    return out


def test_fashion_mnist(real_data, tmp_path):
    """54,000 / 6,000 / 10,000, every class in equal shares, the published checksums."""
    info = run_ingest(f"fashion-mnist={real_data / 'fashion-mnist'}", tmp_path)

    train, test = TrainData.load(tmp_path / "train_data"), TestData.load(tmp_path / "test_data")
    assert {"train": 54_000, "validation": 6_000, "test": 10_000} == info.counts
    assert [600] * 10 == np.bincount(train.labels[train.split == 1]).tolist()
    assert (60_000, 28, 28, 1) == train.images.shape
    assert [1_000] * 10 == np.bincount(test.labels).tolist()
    assert 0 == info.report["duplicate_groups"]


@pytest.mark.parametrize("at", [3, 1_000_000])
def test_one_flipped_byte(real_data, tmp_path, at):
    """One flipped byte, in the header's time stamp or in the data, is refused with both digests."""
    shutil.copytree(real_data / "fashion-mnist", tmp_path / "raw")
    path = tmp_path / "raw" / fashion_mnist.TRAIN_IMAGES
    path.chmod(0o644)
    path.parent.chmod(0o755)
    data = bytearray(path.read_bytes())
    data[at + 1] ^= 1
    path.write_bytes(data)

    with pytest.raises(DataError) as caught:
        run_ingest(f"fashion-mnist={tmp_path / 'raw'}", tmp_path / "out")

    assert fashion_mnist.PUBLISHED_MD5[fashion_mnist.TRAIN_IMAGES] in str(caught.value)
    assert hashlib.md5(data, usedforsecurity=False).hexdigest() in str(caught.value)
    assert (65, {}) == (caught.value.exit_code, tree(tmp_path / "out"))


def test_products(products_out):
    """44,072 images, 45 classes, 374 rows without image, 1 row repaired, 651 groups, 6 of them contradictory."""
    train, test = (
        TrainData.load(products_out / "train_data"),
        TestData.load(products_out / "test_data", memory_map=True),
    )

    report = json.loads((products_out / "report/ingest_report.json").read_text())
    found = {
        "images": 44_072,
        "quarantined": 0,
        "repaired": 1,
        "rows_without_image": 374,
        "images_without_row": 0,
        "normalised": 23,
        "duplicate_groups": 651,
        "duplicate_images": 1_429,
        "contradictory_groups": 6,
    }
    assert found == {key: report["report"][key] for key in found}
    assert 45 == len(train.info.classes)
    assert 44_072 == len(train.labels) + len(test.labels)
    assert "styles.csv line 6044" == report["repaired"][0]["where"]
    assert 15_383 == sum(report["class_counts"]["Topwear"].values())
    assert {"Home Furnishing", "Vouchers"} <= set(report["train_only_classes"])


def test_the_table(real_data):
    """The 44,446 rows give the table that the project's first, hand-written reader gave."""
    with zipfile.ZipFile(real_data / ARCHIVE) as archive:
        table = parse_styles(archive.read("styles.csv"), Findings())

    content = json.dumps([table.ids, table.labels, table.attributes]).encode()
    assert (44_446, 44_446) == (table.num_rows, len(table.ids))
    assert TABLE_DIGEST == hashlib.sha256(content).hexdigest()


def test_no_champion_meets_its_training_images(real_data, products_out, tmp_path):
    """A smaller catalogue, another seed and a smaller fraction trained on none of today's test images, nor the reverse."""
    whole = TestData.load(products_out / "test_data")
    tested = short_digests(digest_images(whole.images))
    changes = [{"limit": 4_000}, {"limit": 4_000, "seed": 1}, {"limit": 4_000, "seed": 2, "test_fraction": 0.1}]
    for number, settings in enumerate(changes):
        out = tmp_path / str(number)
        run_ingest(f"fashion-products={real_data / ARCHIVE}", out, **settings)
        part = TestData.load(out / "test_data")
        test_images = short_digests(digest_images(part.images))

        assert len(part.seen) > 3_000
        assert 0 == np.isin(test_images, whole.seen).sum()
        if "test_fraction" in settings:
            assert np.isin(test_images, tested).all()
        else:
            assert 0 == np.isin(tested, part.seen).sum()


def test_every_class_is_tested(products_out):
    """Every class of three or more images is trained and tested on, and nothing had to be left out."""
    report = json.loads((products_out / "report/ingest_report.json").read_text())

    untested = {name for name, counts in report["class_counts"].items() if not counts["test"]}
    assert {"Home Furnishing", "Vouchers"} == untested
    assert [] == report["left_out"]
    assert 6_667 == report["counts"]["test"]
    assert {"looked_at": 1_000, "found": 17} == report["near_duplicates"]


def test_no_group_crosses_splits(products_out):
    """Not one picture is in two splits."""
    train, test = TrainData.load(products_out / "train_data"), TestData.load(products_out / "test_data")
    parts = [train.images[train.split == 0], train.images[train.split == 1], test.images]

    digests = [{hashlib.sha256(image).digest() for image in part} for part in parts]

    assert not digests[0] & digests[1] | digests[0] & digests[2] | digests[1] & digests[2]


def test_memory_and_repeatability(real_data, products_out, tmp_path):
    """A second ingest, in a process of its own, gives the same bytes within 1.5 GB and twice the packed array."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom tests.data.builders import peak_memory, run_ingest\n"
        "run_ingest(sys.argv[1], Path(sys.argv[2]))\nprint(peak_memory())"
    )
    command = [sys.executable, "-c", code, f"fashion-products={real_data / ARCHIVE}", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=250)

    digests = [
        {p.relative_to(out): hashlib.sha256(p.read_bytes()).digest() for p in out.rglob("*") if p.is_file()}
        for out in (products_out, tmp_path)
    ]
    assert digests[0] == digests[1]
    assert int(done.stdout) < min(1.5e9, 2 * 44_072 * 80 * 60 * 3)
