"""The whole ingest: no leakage, the same bytes every time, every example accounted for, every failure one line."""

import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.data.contract import DatasetInfo, TestData, TrainData
from components.data.digests import digest_images, short_digests
from components.data.readers import pairing
from components.errors import DataError
from tests.data.builders import jpeg, make_zip, products, row, run_ingest, table, tree

ROOT = Path(__file__).resolve().parents[2]


def load(out):
    """Return both artifacts."""
    return TrainData.load(out / "train_data"), TestData.load(out / "test_data")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """An archive of 300 products with 50 more that repeat earlier images, byte for byte or only in their pixels."""
    directory = tmp_path_factory.mktemp("planted")
    labels = [("Topwear", "Shoes", "Bags")[i % 3] for i in range(300)]
    pictures = [jpeg(seed=i) for i in range(300)]
    rows = [row(1000 + i, label) for i, label in enumerate(labels)]
    images = [(f"images/{1000 + i}.jpg", data) for i, data in enumerate(pictures)]
    for i in range(50):
        twin = pictures[i] if i % 2 else pictures[i][:2] + b"\xff\xfe\x00\x04ab" + pictures[i][2:]
        rows.append(row(5000 + i, "Bags" if i == 7 else labels[i]))
        images.append((f"images/{5000 + i}.jpg", twin))
    return make_zip(directory / "p.zip", [("styles.csv", table(rows)), *images])


def test_no_leakage(planted, tmp_path):
    """Of 50 planted pairs none has one half in training and the other in validation or test, whatever the seed."""
    for seed in range(3):
        info = run_ingest(f"fashion-products={planted}", tmp_path / str(seed), seed=seed)

        train, test = load(tmp_path / str(seed))
        parts = [train.images[train.split == 0], train.images[train.split == 1], test.images]
        digests = [{d.tobytes() for d in digest_images(part)} for part in parts]
        assert 50 == info.report["duplicate_groups"]
        assert (set(), set(), set()) == (
            digests[0] & digests[1],
            digests[0] & digests[2],
            digests[1] & digests[2],
        )


@pytest.mark.parametrize(
    "settings",
    [{"seed": 1}, {"limit": 200}, {"validation_fraction": 0.3}, {"test_fraction": 0.1}, {"min_class_count": 117}],
)
def test_no_test_image_trained_an_earlier_model(planted, tmp_path, settings):
    """Whatever the settings of a later ingest, none of its test images was trained or validated on before."""
    run_ingest(f"fashion-products={planted}", tmp_path / "before")
    run_ingest(f"fashion-products={planted}", tmp_path / "after", **settings)

    train, test = load(tmp_path / "before")
    seen = np.unique(short_digests(digest_images(train.images)))
    np.testing.assert_array_equal(seen, test.seen)
    assert not np.isin(short_digests(digest_images(load(tmp_path / "after")[1].images)), seen).any()


def test_a_growing_catalogue_keeps_its_sides(tmp_path):
    """New products, new classes and new copies of old pictures move no picture into or out of the test set."""
    old = [row(1000 + i, ("Topwear", "Shoes")[i % 2]) for i in range(200)]
    new = [row(5000 + i, ("Topwear", "Shoes", "Bags")[i % 3]) for i in range(300)]
    pictures = [(f"images/{1000 + i}.jpg", jpeg(seed=i)) for i in range(200)]
    more = [(f"images/{5000 + i}.jpg", jpeg(seed=i if i < 30 else 1000 + i)) for i in range(300)]
    small = make_zip(tmp_path / "small.zip", [("styles.csv", table(old)), *pictures])
    large = make_zip(tmp_path / "large.zip", [("styles.csv", table([*old, *new])), *pictures, *more])
    run_ingest(f"fashion-products={small}", tmp_path / "small")
    run_ingest(f"fashion-products={large}", tmp_path / "large", seed=3)

    before, after = (load(tmp_path / name)[1] for name in ("small", "large"))
    tested = [set(short_digests(digest_images(data.images)).tolist()) for data in (before, after)]
    assert set() == tested[1] & set(before.seen.tolist())
    assert set() == tested[0] & set(after.seen.tolist())
    assert len(tested[1]) > len(tested[0]) > 15


def test_contradiction_is_trained_on_only(planted, tmp_path):
    """The pair with two labels is listed and stays in training."""
    run_ingest(f"fashion-products={planted}", tmp_path)

    train, _ = load(tmp_path)
    report = json.loads((tmp_path / "report/ingest_report.json").read_text())
    (pair,) = report["contradictory_groups"]
    digests = digest_images(train.images)
    _, inverse, counts = np.unique(digests, axis=0, return_inverse=True, return_counts=True)
    mixed = [k for k in np.flatnonzero(counts > 1) if len(set(train.labels[inverse == k])) > 1]
    assert [{"id": "1007", "label": "Shoes"}, {"id": "5007", "label": "Bags"}] == sorted(pair, key=lambda e: e["id"])
    assert 1 == len(mixed)
    assert {0} == set(train.split[inverse == mixed[0]].tolist())


def test_attributes(tmp_path):
    """Every training example keeps what its row says beyond the label; what is empty, or of another label, is unknown."""
    kinds = ["Shirts", "Tshirts", "", "x" * 101]
    rows = [row(3000 + i, articleType=kinds[i % 4]) for i in range(40)]
    rows += [row(4000 + i, "Shoes" if i else "Topwear", articleType="Sandals" if i else "Tops") for i in range(3)]
    members = [(f"images/{3000 + i}.jpg", jpeg(seed=300 + i)) for i in range(40)]
    members += [(f"images/{4000 + i}.jpg", jpeg(seed=400)) for i in range(3)]

    source = products(tmp_path / "p.zip", per_class=0, rows=rows, members=members)
    info = run_ingest(f"fashion-products={source}", tmp_path / "out")

    train, _ = load(tmp_path / "out")
    named = [info.attributes["articleType"][k] if k >= 0 else "" for k in train.attributes[:, 0]]
    shown = {d.tobytes(): name for d, name in zip(digest_images(train.images), named, strict=True)}
    pictures = {digest_images(decoded(3000 + i, members))[0].tobytes(): kinds[i % 4] for i in range(40)}
    twins = [name for name, label in zip(named, train.labels, strict=True) if info.classes[label] == "Shoes"]
    assert {"articleType": ("Sandals", "Shirts", "Tops", "Tshirts")} == info.attributes
    assert all(shown[d] == (kind if len(kind) <= 100 else "") for d, kind in pictures.items() if d in shown)
    assert ["", "Sandals", "Sandals"] == sorted(twins)


def decoded(key, members):
    """Return one image of the members as (1, 80, 60, 3) uint8."""
    return np.asarray(Image.open(io.BytesIO(dict(members)[f"images/{key}.jpg"])))[None]


def test_an_attribute_of_names_is_refused(tmp_path, monkeypatch):
    """A column with another value in every row tells nothing; exit 65 instead of an enormous last layer."""
    monkeypatch.setattr(pairing, "MAX_ATTRIBUTE_VALUES", 3)
    rows = [row(3000 + i, articleType=f"Name {i}") for i in range(4)]
    members = [(f"images/{3000 + i}.jpg", jpeg(seed=300 + i)) for i in range(4)]

    with pytest.raises(DataError, match="attribute articleType must have at most 3 values; got 5"):
        run_ingest(f"fashion-products={products(tmp_path / 'p.zip', rows=rows, members=members)}", tmp_path / "out")


def test_attributes_belong_to_the_content(tmp_path):
    """Data that teaches something else has another hash, though pixels and labels are the same."""
    sources = [
        products(tmp_path / f"{kind}.zip", per_class=10, rows=[row(3000, articleType=kind)], members=[
            ("images/3000.jpg", jpeg(seed=300))])
        for kind in ("Shirts", "Tops")
    ]  # fmt: skip

    hashes = {run_ingest(f"fashion-products={s}", tmp_path / s.stem / "out").content_hash for s in sources}

    assert 2 == len(hashes)


@pytest.mark.parametrize("change", ["missing", "shape"])
def test_attributes_that_do_not_fit(planted, tmp_path, change):
    """A directory whose attributes are gone or of other examples is refused."""
    run_ingest(f"fashion-products={planted}", tmp_path)
    path = tmp_path / "train_data/attributes.npy"
    path.unlink() if change == "missing" else np.save(path, np.load(path)[1:])

    with pytest.raises(DataError, match=r"attributes\.npy.*Run ingest again"):
        TrainData.load(tmp_path / "train_data")


def test_groups_of_the_test_set(planted, tmp_path):
    """`groups.npy` has one number per picture: evaluation counts copies as one example."""
    run_ingest(f"fashion-products={planted}", tmp_path)

    _, test = load(tmp_path)
    digests = [d.tobytes() for d in digest_images(test.images)]
    assert (
        len(set(digests)) == len(set(test.groups.tolist())) == len(set(zip(digests, test.groups.tolist(), strict=True)))
    )
    assert len(set(digests)) < len(digests)


def test_everything_is_accounted_for(planted, tmp_path):
    """Every image is in exactly one split, the counts say so, and the class table adds up."""
    info = run_ingest(f"fashion-products={planted}", tmp_path)

    train, test = load(tmp_path)
    report = json.loads((tmp_path / "report/ingest_report.json").read_text())
    assert 350 == info.report["images"] == len(train.labels) + len(test.labels) == sum(info.counts.values())
    assert info.counts == {
        part: sum(counts[part] for counts in report["class_counts"].values())
        for part in ("train", "validation", "test")
    }
    assert train.info == test.info == info


def test_byte_identical(planted, tmp_path):
    """Two ingests of the same input give the same bytes in every file."""
    for out in ("a", "b"):
        run_ingest(f"fashion-products={planted}", tmp_path / out)

    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_on_another_machine(planted, tmp_path):
    """Another process with one core, another hash seed, locale and time zone gives the same bytes."""
    run_ingest(f"fashion-products={planted}", tmp_path / "a")
    code = (
        "import os, sys\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from pathlib import Path\nfrom tests.data.builders import run_ingest\n"
        "run_ingest(sys.argv[1], Path(sys.argv[2]))"
    )
    subprocess.run(
        [sys.executable, "-c", code, f"fashion-products={planted}", str(tmp_path / "b")],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONHASHSEED": "7", "LC_ALL": "C", "TZ": "Asia/Tokyo"},
        check=True,
        timeout=120,
    )

    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_order_of_the_archive(planted, tmp_path):
    """The order of members and rows does not matter."""
    shutil.unpack_archive(planted, tmp_path / "raw")
    lines = (tmp_path / "raw/styles.csv").read_text().splitlines()
    (tmp_path / "raw/styles.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]))

    a = run_ingest(f"fashion-products={planted}", tmp_path / "a")
    b = run_ingest(f"fashion-products={tmp_path / 'raw'}", tmp_path / "b")

    assert a.content_hash == b.content_hash


def test_content_hash_follows_the_content(planted, tmp_path):
    """Another seed, limit or minimum gives another hash; the same settings give the same."""
    hashes = [
        run_ingest(f"fashion-products={planted}", tmp_path / str(i), **settings).content_hash
        for i, settings in enumerate([{}, {}, {"seed": 1}, {"limit": 100}, {"min_class_count": 117}])
    ]

    assert hashes[0] == hashes[1]
    assert 4 == len(set(hashes))


def test_run_again_over_old_results(planted, tmp_path):
    """Old results are replaced as a whole."""
    run_ingest(f"fashion-products={planted}", tmp_path / "a", limit=60)
    run_ingest(f"fashion-products={planted}", tmp_path / "a")
    run_ingest(f"fashion-products={planted}", tmp_path / "b")

    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_killed_while_writing(planted, tmp_path, monkeypatch):
    """What a killed ingest leaves is recognised as incomplete, and the next one replaces it."""
    run_ingest(f"fashion-products={planted}", tmp_path / "a")

    def killed(_info, _directory):
        raise KeyboardInterrupt

    monkeypatch.setattr(DatasetInfo, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        run_ingest(f"fashion-products={planted}", tmp_path / "a", limit=60)
    monkeypatch.undo()

    with pytest.raises(DataError, match="Run ingest again"):
        TrainData.load(tmp_path / "a/train_data")

    run_ingest(f"fashion-products={planted}", tmp_path / "a")
    run_ingest(f"fashion-products={planted}", tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_rare_classes(tmp_path):
    """`data_min_class_count` folds rare classes, the report lists them."""
    rare = [(f"images/{i}.jpg", jpeg(seed=800 + i)) for i in range(3)]
    rows = [row(0, "Vouchers"), row(1, "Umbrellas"), row(2, "Umbrellas")]
    source = products(tmp_path / "p.zip", per_class=30, rows=rows, members=rare)

    kept = run_ingest(f"fashion-products={source}", tmp_path / "a")
    folded = run_ingest(f"fashion-products={source}", tmp_path / "b", min_class_count=3)

    report = json.loads((tmp_path / "b/report/ingest_report.json").read_text())
    assert ("Shoes", "Topwear", "Umbrellas", "Vouchers") == kept.classes
    assert ["Umbrellas", "Vouchers"] == json.loads((tmp_path / "a/report/ingest_report.json").read_text())[
        "train_only_classes"
    ]
    assert ("Shoes", "Topwear", "other") == folded.classes
    assert {"Umbrellas": 2, "Vouchers": 1} == report["folded_classes"]
    assert {"train": 2, "validation": 1, "test": 0} == report["class_counts"]["other"]


def test_too_few_examples(tmp_path):
    """A set too small to be split is refused instead of giving an empty test set."""
    source = make_zip(
        tmp_path / "p.zip",
        [("styles.csv", table([row(1, "A"), row(2, "B")])), ("images/1.jpg", jpeg()), ("images/2.jpg", jpeg(seed=1))],
    )

    with pytest.raises(DataError, match="examples for every split"):
        run_ingest(f"fashion-products={source}", tmp_path / "out")


def test_hostile_names(tmp_path):
    """Class names and values from outside cannot break out of the Markdown report."""
    nasty = "<script>alert(1)</script>|`x`"
    source = products(
        tmp_path / "p.zip", labels=(nasty, "Shoes"), per_class=30, rows=["<b>,|,`", row(3, name="a, <img src=x>")]
    )

    run_ingest(f"fashion-products={source}", tmp_path / "out")

    text = (tmp_path / "out/report/ingest_report.md").read_text()
    assert not {"<", ">"} & set(text)
    assert all(line.count(" | ") == 3 for line in text.splitlines() if line.startswith("| `") and "Shoes" in line)
    assert nasty in DatasetInfo.load(tmp_path / "out/train_data").classes


def test_report_is_complete(planted, tmp_path):
    """JSON holds everything, and the summary's figures are those of its lists."""
    info = run_ingest(f"fashion-products={planted}", tmp_path)

    report = json.loads((tmp_path / "report/ingest_report.json").read_text())
    assert dataclasses.asdict(info)["report"] == report["report"]
    assert 50 == len(report["duplicate_groups"])
    assert all(2 == len(group) for group in report["duplicate_groups"])
    assert {"sha256"} == {value.partition(":")[0] for value in report["checksums"].values()}
    for key in ("quarantined", "repaired", "rows_without_image", "images_without_row", "contradictory_groups"):
        assert report["report"][key] == len(report[key])


def test_failure_is_one_line(tmp_path):
    """In a process of its own a failing ingest ends with its exit code and one line, without a traceback."""
    (tmp_path / "p.zip").write_bytes(b"PK\3\4 cut")
    code = (
        "import sys\nfrom pathlib import Path\nfrom components.errors import reporting\n"
        "from tests.data.builders import run_ingest\n"
        "with reporting('ingest'):\n    run_ingest(sys.argv[1], Path(sys.argv[2]))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, f"fashion-products={tmp_path}/p.zip", str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert (65, 1) == (done.returncode, len(done.stderr.splitlines()))
    assert done.stderr.startswith("ERROR 65 ingest: p.zip must be a whole zip archive")
