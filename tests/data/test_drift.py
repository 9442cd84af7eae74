"""Drift: what is compared with the ingest before, and when there is nothing to compare with."""

import json
import logging

import numpy as np
import pytest

from components.data.drift import compare, compare_with_previous, take_statistics
from tests.data.builders import jpeg, make_zip, products, row, run_ingest, table, tree


def statistics(images, labels, classes=("a", "b")):
    """Summarise all images."""
    return take_statistics(images, np.arange(len(images)), np.asarray(labels), classes)


def test_statistics_are_exact():
    """Shares, mean and spread are those of the pixels."""
    images = np.random.default_rng(0).integers(0, 256, (50, 12, 9, 3), dtype=np.uint8)

    found = statistics(images, [0] * 40 + [1] * 10)

    assert ({"a": 0.8, "b": 0.2}, [12, 9, 3], 50) == (found["class_shares"], found["image_size"], found["images"])
    np.testing.assert_allclose(images.mean(axis=(0, 1, 2)), found["mean"], atol=1e-3)
    np.testing.assert_allclose(images.std(axis=(0, 1, 2)), found["spread"], atol=1e-3)


def test_no_change():
    """A set compared with itself gives no warning."""
    found = statistics(np.full((10, 9, 9, 1), 7, np.uint8), [0, 1] * 5)

    changes = compare(found, found)

    assert ([], 0.0, {}) == (changes["warnings"], changes["share_moved"], changes["share_changes"])


@pytest.mark.parametrize(
    ("images", "labels", "classes", "warning"),
    [
        (np.full((100, 9, 9, 1), 100, np.uint8), [0, 1] * 50, ("a", "b"), "mean brightness moved"),
        (np.zeros((100, 9, 9, 1), np.uint8), [0] * 70 + [1] * 30, ("a", "b"), "20.0% of the images moved"),
        (np.zeros((100, 9, 9, 1), np.uint8), [0] * 98 + [1, 2], ("a", "b", "c"), "classes new: c"),
        (np.zeros((100, 9, 9, 1), np.uint8), [0] * 100, ("a",), "classes gone: b"),
        (
            np.zeros((100, 12, 9, 1), np.uint8),
            [0, 1] * 50,
            ("a", "b"),
            "image size changed from [9, 9, 1] to [12, 9, 1]",
        ),
        (np.zeros((100, 9, 9, 3), np.uint8), [0, 1] * 50, ("a", "b"), "image size changed"),
    ],
)
def test_changes_are_warned_of(images, labels, classes, warning):
    """Each kind of change is named."""
    before = statistics(np.zeros((100, 9, 9, 1), np.uint8), [0, 1] * 50)

    assert any(w.startswith(warning) for w in compare(statistics(images, labels, classes), before)["warnings"])


def test_spread():
    """A change of contrast at the same mean is named."""
    rng = np.random.default_rng(0)
    narrow = rng.integers(110, 140, (50, 9, 9, 1)).astype(np.uint8)
    wide = rng.integers(50, 200, (50, 9, 9, 1)).astype(np.uint8)

    warnings = compare(statistics(wide, [0, 1] * 25), statistics(narrow, [0, 1] * 25))["warnings"]

    assert ["spread"] == [w.split()[0] for w in warnings]


def test_sequence(tmp_path):
    """Each ingest is compared with the last one whose data was different; the same data leaves no second entry."""
    first, second = (
        {"images": n, "class_shares": {"a": 1.0}, "image_size": [1, 1, 1], "mean": [0.0], "spread": [0.0]}
        for n in (5, 8)
    )
    history = str(tmp_path)

    def step(found, data_hash):
        changes = compare_with_previous(found, name="x", data_hash=data_hash, history=history)
        return changes and changes["images_change"]

    assert [None, None, 3, 3, -3] == [
        step(first, "1"),
        step(first, "1"),
        step(second, "2"),
        step(second, "2"),
        step(first, "1"),
    ]
    assert ["000001.json", "000002.json", "000003.json"] == [p.name for p in sorted((tmp_path / "ingests/x").iterdir())]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"data_hash": "x", "statistics": {"mean": 3}}', b"\xff"])
def test_damaged_history(tmp_path, data, caplog):
    """A damaged entry is skipped with a warning."""
    (tmp_path / "ingests/x").mkdir(parents=True)
    (tmp_path / "ingests/x/000007.json").write_bytes(data)
    found = statistics(np.zeros((4, 9, 9, 1), np.uint8), [0, 1] * 2)

    assert compare_with_previous(found, name="x", data_hash="1", history=str(tmp_path)) is None
    assert (tmp_path / "ingests/x/000008.json").exists()
    assert "damaged" in caplog.text


def test_in_the_report(tmp_path, caplog):
    """The next ingest of another catalogue of the same name says what changed, in JSON, Markdown and the log."""
    run_ingest(f"fashion-products={products(tmp_path / 'a.zip')}", tmp_path / "a", history=tmp_path / "h")
    rows = [row(1000 + i, "Shoes" if i < 5 else "Topwear") for i in range(40)]
    images = [(f"images/{1000 + i}.jpg", jpeg((i, i, i))) for i in range(40)]
    make_zip(tmp_path / "b.zip", [("styles.csv", table(rows)), *images])

    with caplog.at_level(logging.WARNING, "components"):
        run_ingest(f"fashion-products={tmp_path / 'b.zip'}", tmp_path / "b", history=tmp_path / "h")

    report = json.loads((tmp_path / "b/report/ingest_report.json").read_text())
    assert (0.375, 20) == (report["drift"]["share_moved"], report["drift"]["images_change"])
    assert "37.5% of the images moved" in (tmp_path / "b/report/ingest_report.md").read_text()
    assert "37.5% of the images moved" in caplog.text


def test_repeated_ingest_is_byte_identical(tmp_path):
    """History does not make the second ingest of the same data differ from the first."""
    source = products(tmp_path / "a.zip")
    for out in ("a", "b"):
        run_ingest(f"fashion-products={source}", tmp_path / out, history=tmp_path / "h")

    assert tree(tmp_path / "a") == tree(tmp_path / "b")
