"""The product catalogue: both layouts, joining rows with images, and what is listed on the way."""

import json
import os
import shutil
import zipfile

import numpy as np
import pytest

from components.data.contract import TestData, TrainData
from components.errors import DataError
from tests.data.builders import jpeg, make_zip, products, row, run_ingest, table, tree


def report_of(out):
    """Return the ingest report as JSON."""
    return json.loads((out / "report/ingest_report.json").read_text())


@pytest.mark.parametrize("prefix", ["", "myntradataset/"])
def test_both_layouts(tmp_path, prefix):
    """The archive is read with and without its folder."""
    source = products(tmp_path / "p.zip", prefix=prefix)

    info = run_ingest(f"fashion-products={source}", tmp_path / "out")

    assert (20, ("Shoes", "Topwear")) == (sum(info.counts.values()), info.classes)


def test_repeated_layout(tmp_path):
    """An archive that holds everything twice gives every product once."""
    with zipfile.ZipFile(products(tmp_path / "once.zip")) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    twice = make_zip(tmp_path / "twice.zip", members + [(f"myntradataset/{name}", data) for name, data in members])

    a = run_ingest(f"fashion-products={tmp_path / 'once.zip'}", tmp_path / "a")
    b = run_ingest(f"fashion-products={twice}", tmp_path / "b")

    assert a.content_hash == b.content_hash


def test_directory(tmp_path):
    """An unpacked archive gives the same data."""
    source = products(tmp_path / "p.zip")
    shutil.unpack_archive(source, tmp_path / "folder")

    a = run_ingest(f"fashion-products={source}", tmp_path / "a")
    b = run_ingest(f"fashion-products=file://{tmp_path / 'folder'}", tmp_path / "b")

    assert a.content_hash == b.content_hash


def test_link_out_of_the_directory(tmp_path):
    """A link that leads out of the source is not followed."""
    shutil.unpack_archive(products(tmp_path / "p.zip"), tmp_path / "folder")
    (tmp_path / "secret.jpg").write_bytes(jpeg())
    (tmp_path / "folder/images/7.jpg").symlink_to(tmp_path / "secret.jpg")

    run_ingest(f"fashion-products={tmp_path / 'folder'}", tmp_path / "out")

    assert (1, []) == (
        report_of(tmp_path / "out")["notes"]["ignored_files"],
        report_of(tmp_path / "out")["images_without_row"],
    )


def test_pipe_in_the_directory(tmp_path):
    """A pipe or a link to nothing under an image's name does not make ingest wait."""
    shutil.unpack_archive(products(tmp_path / "p.zip", per_class=20), tmp_path / "folder")
    (tmp_path / "folder/images/1000.jpg").unlink()
    os.mkfifo(tmp_path / "folder/images/1000.jpg")
    (tmp_path / "folder/images/8.jpg").symlink_to(tmp_path / "folder/absent")

    run_ingest(f"fashion-products={tmp_path / 'folder'}", tmp_path / "out")

    assert ["1000"] == report_of(tmp_path / "out")["rows_without_image"]


def test_parent_directory(tmp_path):
    """A user who gives the folder of the archive means the archive."""
    (tmp_path / "folder").mkdir()
    source = products(tmp_path / "folder/p.zip")

    a = run_ingest(f"fashion-products={source}", tmp_path / "a")
    b = run_ingest(f"fashion-products={source.parent}", tmp_path / "b")

    assert a.content_hash == b.content_hash


def test_order_and_labels(tmp_path):
    """Examples are ordered by id whatever the file's order; classes are in alphabetical order."""
    rows = [row(key, "Shoes" if key % 2 else "Bags") for key in (30, 4, 200, 7, 51, 66)]
    images = [(f"images/{key}.jpg", jpeg((key, key, key))) for key in (200, 66, 7, 51, 4, 30)]
    source = make_zip(tmp_path / "p.zip", [("styles.csv", table(rows)), *images])

    info = run_ingest(f"fashion-products={source}", tmp_path / "out")

    train, test = TrainData.load(tmp_path / "out/train_data"), TestData.load(tmp_path / "out/test_data")
    assert ("Bags", "Shoes") == info.classes
    shades = train.images[:, 0, 0, 0].tolist()
    assert sorted(shades) == shades
    for data in (train, test):
        assert [int(s % 2) for s in data.images[:, 0, 0, 0]] == data.labels.tolist()


def test_rows_and_images_that_have_no_partner(tmp_path):
    """They are left out and listed by id."""
    rows = [row(7), row(5)]
    source = products(tmp_path / "p.zip", per_class=30, rows=rows, members=[("images/9.jpg", jpeg(seed=99))])

    info = run_ingest(f"fashion-products={source}", tmp_path / "out")

    assert 60 == sum(info.counts.values())
    assert (["5", "7"], ["9"]) == tuple(
        report_of(tmp_path / "out")[key] for key in ("rows_without_image", "images_without_row")
    )


@pytest.mark.parametrize(
    ("rows", "members", "text"),
    [
        ([row(i) for i in range(3)], [], "rows without image"),
        ([], [(f"images/{i}.jpg", jpeg(seed=900 + i)) for i in range(3)], "images without row"),
        ([row(i) for i in range(3)], [(f"images/{i}.jpg", b"") for i in range(3)], "unusable images"),
        (["1,2"] * 3, [], "quarantined rows"),
    ],
)
def test_more_than_five_percent(tmp_path, rows, members, text):
    """Too many defects of one kind mean the wrong source; nothing is written."""
    source = products(tmp_path / "p.zip", rows=rows, members=members)

    with pytest.raises(DataError, match=text):
        run_ingest(f"fashion-products={source}", tmp_path / "out")

    assert {} == tree(tmp_path / "out")


def test_every_kind_of_image(tmp_path):
    """Odd images are normalised and counted, bad ones quarantined with their reason."""
    odd = {
        1: jpeg(seed=501, mode="L"),
        2: jpeg(seed=502, mode="CMYK"),
        3: jpeg(seed=503, size=(53, 80)),
        4: jpeg(seed=504)[:-300],
        5: b"",
        6: jpeg(seed=506, image_format="PNG"),
        7: b"hello",
    }
    members = [(f"images/{key}.jpg", data) for key, data in odd.items()]
    source = products(tmp_path / "p.zip", per_class=40, rows=[row(key) for key in odd], members=members)

    info = run_ingest(f"fashion-products={source}", tmp_path / "out")

    report = report_of(tmp_path / "out")
    assert {"greyscale": 1, "cmyk": 1, "resized": 1} == report["normalised"]
    assert ["images/4.jpg", "images/5.jpg", "images/7.jpg"] == [e["where"] for e in report["quarantined"]]
    assert ["empty file", "no image of a kind that is read; it begins with hello"] == [
        e["reason"] for e in report["quarantined"][1:]
    ]
    assert (84, 3) == (sum(info.counts.values()), info.report["quarantined"])


def test_damaged_member_is_quarantined(tmp_path):
    """An image whose archive entry is damaged is left out like any other bad image."""
    source = products(tmp_path / "p.zip", per_class=20)
    with zipfile.ZipFile(source) as archive:
        at = archive.getinfo("images/1007.jpg").header_offset
    data = bytearray(source.read_bytes())
    data[at + 200] ^= 0xFF
    source.write_bytes(data)

    run_ingest(f"fashion-products={source}", tmp_path / "out")

    assert ["images/1007.jpg"] == [e["where"] for e in report_of(tmp_path / "out")["quarantined"]]


def test_no_table(tmp_path):
    """An archive without `styles.csv` is another archive."""
    source = make_zip(tmp_path / "p.zip", [("images/1.jpg", jpeg())])

    with pytest.raises(DataError, match=r"no styles\.csv"):
        run_ingest(f"fashion-products={source}", tmp_path / "out")


def test_one_class(tmp_path):
    """With one class there is nothing to learn."""
    source = products(tmp_path / "p.zip", labels=("Topwear",))

    with pytest.raises(DataError, match="at least 2 classes"):
        run_ingest(f"fashion-products={source}", tmp_path / "out")


def test_limit_keeps_every_class(tmp_path):
    """`data_limit` decodes so many images only, the rarest class among them."""
    lonely = [(f"images/{i}.jpg", jpeg(seed=700 + i)) for i in range(3)]
    source = products(tmp_path / "p.zip", per_class=60, rows=[row(i, "Rare") for i in range(3)], members=lonely)

    info = run_ingest(f"fashion-products={source}", tmp_path / "out", limit=30)

    assert 30 == sum(info.counts.values())
    parts = TrainData.load(tmp_path / "out/train_data"), TestData.load(tmp_path / "out/test_data")
    counts = np.bincount(np.concatenate([part.labels for part in parts]))
    assert {"Rare": 3, "Shoes": 13, "Topwear": 14} == dict(zip(info.classes, counts.tolist(), strict=True))
