"""Own catalogues: described by a small YAML file, read through the same checks."""

import json
import zipfile

import pytest

from components.data.contract import TrainData
from components.data.readers.catalogue import Description, parse_description
from components.errors import DataError
from tests.data.builders import jpeg, make_zip, run_ingest, write_files

YAML = b"table: products.csv\nid: sku\nlabel: category\nimage: pictures/{sku}.jpg\nsize: [32, 24]\n"


def catalogue_files(description=YAML, rows=(), **more):
    """Return the files of a catalogue of 20 products in 2 classes."""
    lines = [
        "sku,title,category",
        *(f'A-{i:02d},"Thing, {i}",{"Lamps" if i % 2 else "Chairs"}' for i in range(20)),
        *rows,
    ]
    files = {f"pictures/A-{i:02d}.jpg": jpeg(seed=i, size=(48, 64)) for i in range(20)}
    return files | {"products.csv": "\n".join(lines).encode(), "dataset.yaml": description} | more


def test_directory(tmp_path):
    """A described directory becomes a dataset of its own name, size and classes."""
    source = write_files(tmp_path / "shop", catalogue_files())

    info = run_ingest(f"furniture={source}", tmp_path / "out")

    assert ("furniture", ("Chairs", "Lamps")) == (info.name, info.classes)
    assert (32, 24, 3) == TrainData.load(tmp_path / "out/train_data").images.shape[1:]
    assert 20 == sum(info.counts.values())


@pytest.mark.parametrize("inside", [True, False])
def test_zip(tmp_path, inside):
    """A zip has the description in it or, on this machine, beside it; the data is the same."""
    files = catalogue_files()
    write_files(tmp_path / "shop", files)
    if not inside:
        (tmp_path / "shop.yaml").write_bytes(files.pop("dataset.yaml"))
    make_zip(tmp_path / "shop.zip", list(files.items()), compression=zipfile.ZIP_DEFLATED)

    a = run_ingest(f"furniture={tmp_path / 'shop'}", tmp_path / "a")
    b = run_ingest(f"furniture={tmp_path / 'shop.zip'}", tmp_path / "b")

    assert a.content_hash == b.content_hash


@pytest.mark.parametrize("image", ["file", "pictures/{id}.jpg", "{file}"])
def test_images_by_column_or_template(tmp_path, image):
    """An image is named by a column or by a template of columns, of which `{id}` is the id whatever its column is called."""
    files = catalogue_files(f"table: products.csv\nid: sku\nlabel: category\nimage: '{image}'\n".encode())
    lines = files["products.csv"].decode().splitlines()
    files["products.csv"] = "\n".join(
        [lines[0] + ",file", *(f"{line},./pictures/{line[:4]}.jpg" for line in lines[1:])]
    ).encode()
    if image == "{file}":
        files["products.csv"] = files["products.csv"].replace(b"./pictures", b"pictures")

    info = run_ingest(f"furniture={write_files(tmp_path / 'shop', files)}", tmp_path / "out")

    assert (20, 0) == (sum(info.counts.values()), info.report["rows_without_image"])


def test_attributes(tmp_path):
    """Named columns go along with the training examples, sorted by name."""
    files = catalogue_files(YAML + b"attributes: [title, sku]\n")

    info = run_ingest(f"furniture={write_files(tmp_path / 'shop', files)}", tmp_path / "out")

    data = TrainData.load(tmp_path / "out/train_data")
    assert ["sku", "title"] == list(info.attributes) == list(data.info.attributes)
    assert (len(data.labels), 2) == data.attributes.shape
    for sku, title in data.attributes:
        assert int(info.attributes["sku"][sku][2:]) == int(info.attributes["title"][title].split()[1])


def test_defects(tmp_path):
    """Bad rows, rows without image and images without row are found as in the known datasets."""
    many = [f'B-{i:02d},"Thing",Lamps' for i in range(80)]
    bad = [",x,Lamps", 'B-99,"x,Lamps', "B-98,x", "A-01,x,Lamps", "C-01,no picture,Lamps"]
    pictures = {f"pictures/B-{i:02d}.jpg": jpeg(seed=100 + i, size=(24, 32)) for i in range(80)}
    files = catalogue_files(rows=[*many, *bad]) | pictures | {"pictures/stray.jpg": jpeg(), "notes.txt": b"x"}

    run_ingest(f"furniture={write_files(tmp_path / 'shop', files)}", tmp_path / "out")

    report = json.loads((tmp_path / "out/report/ingest_report.json").read_text())
    assert ["id is not", "quoting is", "2 fields", "id appears"] == [
        " ".join(e["reason"].split()[: 3 if "not" in e["reason"] else 2]) for e in report["quarantined"]
    ]
    assert (["C-01"], ["pictures/stray.jpg"]) == (report["rows_without_image"], report["images_without_row"])


def test_image_outside_the_source(tmp_path):
    """A table cannot name a file outside the source."""
    (tmp_path / "secret.jpg").write_bytes(jpeg())
    files = catalogue_files(b"table: products.csv\nid: sku\nlabel: category\nimage: title\n")
    files["products.csv"] = b"sku,title,category\n" + b"".join(
        b"A-%02d,%s,%s\n" % (i, b"../secret.jpg", b"Lamps" if i % 2 else b"Chairs") for i in range(20)
    )

    with pytest.raises(DataError, match="rows without image"):
        run_ingest(f"furniture={write_files(tmp_path / 'shop', files)}", tmp_path / "out")


def test_defaults():
    """Only the label's column must be named; the rest is as in `styles.csv`."""
    assert Description(
        label="x", table="styles.csv", id="id", image="images/{id}.jpg", size=(80, 60)
    ) == parse_description(b"label: x")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "must be a mapping"),
        (b"- label", "must be a mapping"),
        (b"label", "must be a mapping"),
        (b"{", "must be YAML"),
        (b"label: [", "must be YAML"),
        (b"\xff\xfe\xff", "must be YAML"),
        (b"label: !!python/object/apply:os.system ['true']", "must be YAML"),
        (b"a: &a [x]\nb: *c", "must be YAML"),
        (b"[" * 3000, "must be YAML"),
        (b"id: sku", "label must name"),
        (b"label: 7", "label must be text"),
        (b"label: ''", "label must be text"),
        (b"label: x\nlabels: y", "labels is unknown"),
        (b"label: x\nid: sku\nlabel: y", "label must be there once"),
        (b"label: x\n  y: z\n", r"got mapping values are not allowed here in .* line 2, column 4"),
        (b"label: x\nsize: 80", "size must be"),
        (b"label: x\nsize: [80]", "size must be"),
        (b"label: x\nsize: [80, 100000]", "size must be"),
        (b"label: x\nsize: [true, 60]", "size must be"),
        (b"label: x\nattributes: y", "attributes must be a list"),
        (b"label: x\nattributes: [y, y]", "attributes must be a list"),
        (b"label: x\nattributes: [y, 7]", "attributes must be a list"),
        (b"label: " + b"x" * 9_000, "at most 8,192 bytes"),
    ],
)
def test_wrong_description(text, problem):
    """A wrong description is refused with everything that is wrong about it."""
    with pytest.raises(DataError, match=problem):
        parse_description(text)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"dataset.yaml": None}, "must have dataset.yaml"),
        ({"products.csv": None}, "table must be a file"),
        ({"products.csv": b""}, "must have the columns category, sku"),
        ({"products.csv": b"sku,category,sku\n"}, "sku more than once"),
        ({"products.csv": b'"sku,category\n'}, "first line"),
        ({"dataset.yaml": YAML.replace(b"{sku}", b"{sku.__class__}")}, "image must be a column or a template"),
        ({"dataset.yaml": YAML.replace(b"{sku}", b"{sku!r:>10}")}, "image must be a column or a template"),
        ({"dataset.yaml": YAML.replace(b"{sku}", b"{}")}, "image must be a column or a template"),
        ({"dataset.yaml": YAML.replace(b"{sku}", b"{sku")}, "image must be a column or a template"),
        ({"dataset.yaml": YAML.replace(b"{sku}", b"{0[x]}")}, "image must be a column or a template"),
        ({"dataset.yaml": YAML.replace(b"category", b"kind")}, "must have the columns kind"),
        ({"dataset.yaml": YAML + b"attributes: [maker]\n"}, "must have the columns maker"),
    ],
)
def test_wrong_catalogue(tmp_path, change, text):
    """What does not fit the description is named."""
    files = {name: data for name, data in (catalogue_files() | change).items() if data is not None}

    with pytest.raises(DataError, match=text):
        run_ingest(f"furniture={write_files(tmp_path / 'shop', files)}", tmp_path / "out")
