"""One catalogue, brought in every ordinary way: the same pixels, labels and content hash, and every loss is named."""

import csv
import io
import json
import os
import shutil
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.data.contract import TestData, TrainData
from components.data.sources.version import source_version
from components.errors import ConfigurationError, DataError
from tests.data.builders import make_zip, run_ingest, write_files
from tests.fakes.gcs import FakeGcs

YAML = b"table: products.csv\nid: sku\nlabel: category\nimage: file\nsize: [32, 24]\n"
COLUMNS = ["sku", "title", "category", "file"]
CLASSES = ("Caf\N{LATIN SMALL LETTER E WITH ACUTE} chairs", "Lamps")

ORDINARY = (
    "\N{NO-BREAK SPACE}", "\N{NARROW NO-BREAK SPACE}", "\N{IDEOGRAPHIC SPACE}", "\N{ZERO WIDTH NON-JOINER}",
    "\N{SOFT HYPHEN}", "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER}",
)  # fmt: skip
"""Text as people write it, though none of it is printable to Python."""


def pixels(seed, size=(32, 24)) -> np.ndarray:
    """Return a picture of coarse noise, (H, W, 3) uint8."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.NEAREST))


def encoded(image, kind="PNG", **options) -> bytes:
    """Return an image file."""
    data = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(data, kind, **options)
    return data.getvalue()


ROWS = [[f"A-{i:02d}", f"Thing, {i}", CLASSES[i % 2], f"pictures/gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n {i}.png"] for i in range(24)]  # fmt: skip
PICTURES = {row[3]: encoded(pixels(i)) for i, row in enumerate(ROWS)}


def table(rows=ROWS, header=COLUMNS, encoding="utf-8", first="", **options) -> bytes:
    """Return the table as a spreadsheet program would write it."""
    text = io.StringIO()
    csv.writer(text, **options).writerows([header, *rows])
    return (first + text.getvalue()).encode(encoding)


def catalogue(pictures=PICTURES, **files) -> dict[str, bytes]:
    """Return the files of the clean catalogue, some of them replaced."""
    return {"dataset.yaml": YAML, "products.csv": table()} | files | pictures


def report_of(out) -> dict:
    """Return the ingest report."""
    return json.loads((out / "report/ingest_report.json").read_text())


def taken(source, out):
    """Ingest a source; return the content hash and the report."""
    return run_ingest(f"shop={source}", out).content_hash, report_of(out)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """The clean catalogue's content hash."""
    folder = tmp_path_factory.mktemp("clean")
    found, report = taken(write_files(folder / "shop", catalogue()), folder / "out")
    assert (24, [], []) == (report["report"]["images"], report["quarantined"], report["ignored"])
    return found


def changed(column, change, number=3):
    """Return the rows with one value changed."""
    rows = [list(row) for row in ROWS]
    rows[number][column] = change(rows[number][column])
    return rows


@pytest.mark.parametrize(
    "data",
    [
        table(encoding="utf-8-sig"),
        table(encoding="utf-16"),
        table(encoding="utf-16-le"),
        table(encoding="utf-16-be"),
        table(encoding="cp1252"),
        table(delimiter=";"),
        table(delimiter="\t"),
        table(delimiter="|"),
        table(delimiter=";", first="sep=;\r\n"),
        table(delimiter="\t", encoding="utf-16", first="sep=\t\r\n"),
        table(lineterminator="\n"),
        table(lineterminator="\r"),
        table(quoting=csv.QUOTE_ALL),
        table(header=[" sku", "title ", "\N{NO-BREAK SPACE}category", "file  "]),
        table(first="\r\n\r\n") + b"\r\n\r\n",
        table([[*row, ""] for row in ROWS]),
        table([row[::-1] for row in ROWS], COLUMNS[::-1]),
        table([[row[0], *row] for row in ROWS], ["n", *COLUMNS]),
        table(changed(1, lambda _: "two\r\nlines, \"quoted\"\n")),
        table(changed(1, lambda _: "a\tb")),
        table(changed(1, lambda _: "form feed \f and bell \a")),
        table(changed(1, lambda _: "5\" heel")).replace(b'"5"" heel"', b'5" heel'),
        table(changed(1, lambda _: "x" * 20_000)),
        *(table(changed(1, lambda text, c=c: text + c)) for c in ORDINARY),
        *(table(changed(2, lambda text, c=c: c + text)) for c in ORDINARY[:-1]),
        table(changed(2, lambda text: text.upper())),
        table(changed(2, lambda text: f"  {text.replace(' ', '  ')} ", number=2)),
        table(changed(2, lambda text: unicodedata.normalize("NFD", text), number=2)),
        table(changed(3, lambda text: "./" + text)),
        table(changed(3, lambda text: "/" + text)),
        table(changed(3, lambda text: text.replace("/", "\\"))),
        table(changed(3, lambda text: text.upper())),
        table(changed(3, lambda text: unicodedata.normalize("NFD", text))),
        table(changed(0, lambda text: f" {text} ")),
    ],
)  # fmt: skip
def test_tables(tmp_path, clean, data):
    """However the table was written, the data is the same; nothing is quarantined."""
    found, report = taken(write_files(tmp_path / "shop", catalogue(**{"products.csv": data})), tmp_path / "out")

    assert (clean, []) == (found, report["quarantined"])


def test_json_lines(tmp_path, clean):
    """JSON lines are a table, numbers, nulls and all."""
    lines = [json.dumps(dict(zip(COLUMNS, row, strict=True)) | {"price": i or None}) for i, row in enumerate(ROWS)]
    files = catalogue(**{"dataset.yaml": YAML.replace(b"csv", b"jsonl"), "products.jsonl": "\n".join(lines).encode()})

    assert clean == taken(write_files(tmp_path / "shop", files), tmp_path / "out")[0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"sku": 1}\n\n[1,2]\n', r"products\.jsonl line 3 must be a JSON object; got \[1,2\]\. Correct it"),
        ('{"sku": 1}\n"x"\n', r'products\.jsonl line 2 must be a JSON object; got "x"'),
        ('[{"sku": 1}', r"products\.jsonl must be a readable json file"),
        ('[{"sku": 1}, null]', r"products\.jsonl row 2 must be a JSON object; got null"),
        ('{"sku": 1}\n{"sku":\n', r'products\.jsonl line 2 must be a JSON object; got {"sku":'),
    ],
)
def test_json_that_is_no_table(tmp_path, text, problem):
    """The line or row that is no object is named, not what pandas could not do with it."""
    files = catalogue(**{"dataset.yaml": YAML.replace(b"csv", b"jsonl"), "products.jsonl": text.encode()})

    with pytest.raises(DataError, match=problem):
        taken(write_files(tmp_path / "shop", files), tmp_path / "out")


@pytest.mark.parametrize(("suffix", "package"), [("parquet", "pyarrow"), ("xlsx", "openpyxl")])
def test_other_formats(tmp_path, clean, suffix, package):
    """Parquet and Excel are read where their package is there; elsewhere the message names it."""
    frame, data = pd.DataFrame(ROWS, columns=COLUMNS), io.BytesIO()
    try:
        frame.to_parquet(data) if suffix == "parquet" else frame.to_excel(data, index=False)
        is_there = True
    except ImportError:
        is_there = False
        with zipfile.ZipFile(data, "w") as book:  # what Excel files look like from outside
            book.writestr("xl/workbook.xml", "")
    files = catalogue(**{"dataset.yaml": YAML.replace(b"csv", suffix.encode()), f"products.{suffix}": data.getvalue()})
    source = write_files(tmp_path / "shop", files)

    if is_there:
        assert clean == taken(source, tmp_path / "out")[0]
    else:
        with pytest.raises(ConfigurationError, match=package):
            taken(source, tmp_path / "out")


@pytest.mark.parametrize(
    "change", [lambda key: key.replace("-", " "), lambda key: f"{key}/#1", lambda key: key + "x" * 190]
)
def test_ids_of_any_kind(tmp_path, clean, change):
    """Blanks, slashes and length make an id no worse."""
    rows = [[change(row[0]), *row[1:]] for row in ROWS]

    assert clean == taken(write_files(tmp_path / "s", catalogue(**{"products.csv": table(rows)})), tmp_path / "o")[0]


def test_control_characters_count_in_used_columns_only(tmp_path):
    """A real control character costs a row where it is used, with its line; elsewhere it is nobody's business."""
    rows = [*ROWS, *([f"B-{i}", "x\0y", "Lamps", ROWS[0][3]] for i in range(20)), ["C-1", "x", "La\x1bmps", ROWS[0][3]]]

    _, report = taken(write_files(tmp_path / "shop", catalogue(**{"products.csv": table(rows)})), tmp_path / "out")

    assert [{"where": "products.csv line 46", "reason": "control character", "value": "La\\x1bmps"}] == report[
        "quarantined"
    ]


@pytest.mark.parametrize(
    ("rows", "first"),
    [
        ([], ""),
        ([["C-1", "x", "La\x1bmps", ROWS[0][3]]], "products.csv line 26: control character"),
        ([["C-1", "x", "Lamps", "pictures/none.png"]], "C-1: the row has no image"),
    ],
)
def test_the_log_tells_what_is_left_out(rows, first, tmp_path, caplog):
    """One line says how many rows and images are left out and names the first; without any it says nothing."""
    taken(write_files(tmp_path / "shop", catalogue(**{"products.csv": table([*ROWS, *rows])})), tmp_path / "out")

    told = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    wanted = f"1 rows or images are left out; the first is {first}; all are in ingest_report.json"
    assert ([wanted] if rows else []) == told


def test_lines_behind_quoted_newlines(tmp_path):
    """A finding's line is the one an editor shows, however many lines the fields before it have."""
    rows = [[row[0], "a\nb\nc", *row[2:]] for row in ROWS]
    rows += [["B-01", "x", "", ROWS[0][3]]]

    _, report = taken(write_files(tmp_path / "shop", catalogue(**{"products.csv": table(rows)})), tmp_path / "out")

    assert ("products.csv line 74", "empty label") == tuple(report["quarantined"][0][k] for k in ("where", "reason"))


def test_an_open_quote_costs_one_row(tmp_path):
    """A quote that is never closed does not swallow the rows behind it."""
    lines = table(lineterminator="\n").decode().splitlines()
    lines.insert(5, 'B-01,"open,Lamps,x.png')

    files = catalogue(**{"products.csv": "\n".join(lines).encode()})
    _, report = taken(write_files(tmp_path / "shop", files), tmp_path / "out")

    assert (24, 1) == (report["report"]["images"], len(report["quarantined"]))
    assert ("products.csv line 6", True) == (
        report["quarantined"][0]["where"],
        report["quarantined"][0]["reason"].startswith("quoting is wrong"),
    )


def test_extra_fields(tmp_path):
    """A row with more fields than the header is left out by its line, even the first one."""
    rows = [["B-01", "a", "Lamps", ROWS[0][3], "more"], *ROWS]

    _, report = taken(write_files(tmp_path / "shop", catalogue(**{"products.csv": table(rows)})), tmp_path / "out")

    assert ["products.csv line 2"] == [entry["where"] for entry in report["quarantined"]]
    assert 24 == report["report"]["images"]


def test_spellings_of_a_class_become_one(tmp_path, clean):
    """Case, blanks and Unicode form make no class; the most frequent spelling stays, and the report tells."""
    rows = changed(2, lambda _: "LAMPS")
    rows[5][2], rows[7][2] = "La mps", "L\N{FULLWIDTH LATIN SMALL LETTER A}mps"

    found, report = taken(write_files(tmp_path / "s", catalogue(**{"products.csv": table(rows)})), tmp_path / "out")

    assert clean == found
    assert 3 == sum("is taken for 'Lamps' (9 rows)" in text for text in report["warnings"])
    assert "'LAMPS' (1 rows)" in (tmp_path / "out/report/ingest_report.md").read_text()


def test_a_label_that_looks_like_none_is_reported(tmp_path):
    """`NaN` is kept as the class it is called, and said aloud."""
    rows = [[f"B-{i}", "x", "NaN", ROWS[i][3]] for i in range(3)]

    _, report = taken(write_files(tmp_path / "s", catalogue(**{"products.csv": table([*ROWS, *rows])})), tmp_path / "o")

    assert ["class 'NaN' (3 rows) looks like a missing label; it is kept as a class"] == report["warnings"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("https://cdn.example.org/a.png", "image is a URL"),
        ("s3://bucket/a.png", "image is a URL"),
        ("/srv/pictures/a.png", "image is an absolute path"),
        ("C:\\pictures\\a.png", "image is an absolute path"),
    ],
)
def test_images_elsewhere(tmp_path, path, reason):
    """A URL or a path to another place costs its row; where many have one the message shows the very path."""
    rows = [*ROWS, ["B-01", "x", "Lamps", path]]
    _, report = taken(write_files(tmp_path / "a", catalogue(**{"products.csv": table(rows)})), tmp_path / "out")
    assert ("products.csv line 26", path) == tuple(report["quarantined"][0][key] for key in ("where", "value"))

    rows = [[*row[:3], path] for row in ROWS]
    with pytest.raises(DataError) as caught:
        taken(write_files(tmp_path / "b", catalogue(**{"products.csv": table(rows)})), tmp_path / "out")
    assert reason in str(caught.value)
    assert path in str(caught.value)


def test_absolute_paths_into_the_source(tmp_path, clean):
    """An absolute path that leads into the source is as good as any."""
    source = tmp_path / "shop"
    rows = [[*row[:3], f"{source}/{row[3]}"] for row in ROWS]

    assert clean == taken(write_files(source, catalogue(**{"products.csv": table(rows)})), tmp_path / "out")[0]


def test_companions_and_strays(tmp_path, clean):
    """What systems leave beside the data is counted; any other file is named and neither read nor fatal."""
    files = catalogue() | {
        "._products.csv": b"x", ".DS_Store": b"x", "pictures/Thumbs.db": b"x", "pictures/desktop.ini": b"x",
        "__MACOSX/pictures/._1.png": b"x", "notes.txt": b"x", "more/film.mp4": bytes(100),
    }  # fmt: skip
    (tmp_path / "shop").mkdir()
    os.mkfifo(tmp_path / "shop/pipe")
    (tmp_path / "shop" / os.fsdecode(b"caf\xe9.txt")).write_bytes(b"x")

    found, report = taken(write_files(tmp_path / "shop", files), tmp_path / "out")

    assert (clean, 5, 4) == (found, report["notes"]["companion_files"], report["notes"]["ignored_files"])
    assert {
        "caf\\xe9.txt": "its name is no UTF-8",
        "more/film.mp4": "no part of the dataset",
        "notes.txt": "no part of the dataset",
        "pipe": "it is a link to nothing, a device or a pipe",
    } == {entry["where"].replace("\\udce9", "\\xe9"): entry["reason"] for entry in report["ignored"]}


def test_links(tmp_path, clean):
    """Links inside the source are followed, folders too; those that lead out are refused with that reason."""
    source = tmp_path / "shop"
    write_files(source, {name.replace("pictures/", "store/"): data for name, data in catalogue().items()})
    (source / "pictures").symlink_to("store")
    (source / "store/loop").symlink_to("..")
    (tmp_path / "secret.txt").write_text("x")
    (source / "out.txt").symlink_to(tmp_path / "secret.txt")
    (source / "elsewhere").symlink_to(tmp_path)
    (source / "itself").symlink_to("itself")
    (source / "long").symlink_to(300 * "x")

    found, report = taken(source, tmp_path / "out")

    assert clean == found
    reasons = {entry["where"]: entry["reason"] for entry in report["ignored"]}
    assert "it is a link that leads out of the source" == reasons["out.txt"] == reasons["elsewhere"]
    assert "it is a link to a folder that holds it" == reasons["store/loop"]
    assert "it is a link to nothing, a device or a pipe" == reasons["itself"] == reasons["long"]


def test_the_version_of_a_folder_with_odd_files(tmp_path):
    """The plan asks for a source's version: links to nothing and names that are no UTF-8 are no reason to fail."""
    source = write_files(tmp_path / "shop", catalogue())
    before = source_version("shop", str(source))
    (source / "nothing").symlink_to("gone")
    (source / "itself").symlink_to("itself")
    (source / "long").symlink_to(300 * "x")
    (source / os.fsdecode(b"caf\xe9.txt")).write_bytes(b"x")

    assert before != source_version("shop", str(source))


def test_the_version_of_a_folder_is_its_content(tmp_path, monkeypatch):
    """A copy with new dates has the same version; an image in another class's folder, or other bytes, have another one."""
    source = tmp_path / "shop"
    for place in ("bags/1.png", "shoes/2.png"):
        (source / place).parent.mkdir(parents=True)
        (source / place).write_bytes(place[-5:].encode())
    before = source_version("shop", str(source))
    copied = shutil.copytree(source, tmp_path / "copy", copy_function=shutil.copyfile)
    os.utime(copied / "bags" / "1.png", (0, 0))

    assert before == source_version("shop", str(copied))
    (copied / "bags" / "1.png").rename(copied / "shoes" / "1.png")
    moved = source_version("shop", str(copied))
    assert before != moved
    (copied / "shoes" / "2.png").write_bytes(b"3.png")
    assert moved != source_version("shop", str(copied))

    monkeypatch.setattr("components.data.sources.version.MAX_READ", 10)
    large = source_version("shop", str(source))
    os.utime(source / "bags" / "1.png", (0, 0))
    assert large != source_version("shop", str(source))


def zipped(path, change=lambda name: name, flags=None, extra=None, prefix="") -> Path:
    """Write the catalogue as a zip whose names are written in another way."""
    members = [(f"{prefix}{name}", data) for name, data in catalogue().items()]
    body, directory = bytearray(), bytearray()
    for name, data in members:
        raw = change(name).encode()
        field = b""
        if extra:
            raw = name.encode("ascii", "replace").replace(b"?", b"_")
            body_of = b"\1" + struct.pack("<L", zlib.crc32(raw)) + name.encode()
            field = struct.pack("<2H", 0x7075, len(body_of)) + body_of
        common = (flags or 0, 0, 0, 0, zlib.crc32(data), len(data), len(data), len(raw), len(field))
        directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, *common, 0, 0, 0, 0, len(body)) + raw + field
        body += struct.pack("<4s5H3L2H", b"PK\3\4", 20, *common) + raw + field + data
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(members), len(members), len(directory), len(body), 0)
    path.write_bytes(bytes(body + directory) + end)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {"flags": 0x800},
        {"flags": 0},
        {"extra": True},
        {"flags": 0x800, "change": lambda name: unicodedata.normalize("NFD", name)},
        {"change": lambda name: name.replace("/", "\\")},
        {"flags": 0x800, "prefix": "shop/"},
        {"flags": 0x800, "prefix": "data/shop/"},
        {"prefix": "./"},
    ],
    ids=["flag", "no flag", "unicode path", "decomposed", "backslashes", "top folder", "two folders", "dot"],
)
def test_zip_names(tmp_path, clean, options):
    """Names are read as their writer meant them, and one folder around everything is looked through."""
    found, report = taken(zipped(tmp_path / "shop.zip", **options), tmp_path / "out")

    assert (clean, []) == (found, report["ignored"])


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_tar(tmp_path, clean, mode, tar_format):
    """Tar archives, gzipped or not, with the leading `./` that tar writes, and their links refused."""
    path = tmp_path / ("shop.tar.gz" if "gz" in mode else "shop.tar")
    with tarfile.open(path, mode, format=tar_format) as archive:
        for name, data in catalogue().items():
            entry = tarfile.TarInfo(f"./shop/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        link = tarfile.TarInfo("./shop/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)

    found, report = taken(path, tmp_path / "out")

    assert clean == found
    assert [{"where": "./shop/link.png", "reason": "it is a link or a device"}] == report["ignored"]


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_truncated_tar(tmp_path, cut):
    """A tar archive that lost its end is refused."""
    with tarfile.open(tmp_path / "shop.tar.gz", "w:gz") as archive:
        for name, data in catalogue().items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    data = (tmp_path / "shop.tar.gz").read_bytes()
    (tmp_path / "shop.tar.gz").write_bytes(data[: int(cut * len(data))])

    with pytest.raises(DataError, match="whole tar archive"):
        taken(tmp_path / "shop.tar.gz", tmp_path / "out")


def test_several_archives(tmp_path, clean):
    """A folder with the table and archives of images is one source, and so is one of archives alone."""
    names = sorted(PICTURES)
    rest = {name: data for name, data in catalogue().items() if name not in PICTURES}
    parts = [[(name, PICTURES[name]) for name in names[k::2]] for k in range(2)]
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for k, part in enumerate(parts):
            make_zip(tmp_path / folder / f"images-{k}.zip", part)
    write_files(tmp_path / "a", rest)
    make_zip(tmp_path / "b/table.zip", list(rest.items()))

    assert clean == taken(tmp_path / "a", tmp_path / "out-a")[0]
    assert clean == taken(tmp_path / "b", tmp_path / "out-b")[0]


def test_several_archives_behind_a_uri(tmp_path, clean, monkeypatch):
    """Archives and a table under one prefix of a bucket are one source as well."""
    names = sorted(PICTURES)
    with FakeGcs("bucket") as bucket:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket.url)
        for k in range(2):
            part = make_zip(tmp_path / f"{k}.zip", [(name, PICTURES[name]) for name in names[k::2]])
            bucket.put("bucket", f"shop/images-{k}.zip", part.read_bytes())
        for name in ("dataset.yaml", "products.csv"):
            bucket.put("bucket", f"shop/{name}", catalogue()[name])

        found = run_ingest("shop=gs://bucket/shop", tmp_path / "out", cache=tmp_path / "cache")

    assert clean == found.content_hash
    assert {"images-0.zip", "images-1.zip", "dataset.yaml", "products.csv"} == set(found.checksums)


def test_an_archive_beside_its_own_images(tmp_path, clean):
    """Where images lie unpacked, an archive beside them is a file nobody uses."""
    source = write_files(tmp_path / "shop", catalogue())
    make_zip(source / "download.zip", list(PICTURES.items()))

    found, report = taken(source, tmp_path / "out")

    assert (clean, ["download.zip"]) == (found, [entry["where"] for entry in report["ignored"]])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("PNG", {"interlace": 1}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ],
)
def test_formats_without_loss(tmp_path, clean, kind, options):
    """Whatever lossless format the pictures are in, the pixels are the same, under the names they have."""
    pictures = {row[3]: encoded(pixels(i), kind, **options) for i, row in enumerate(ROWS)}

    assert clean == taken(write_files(tmp_path / "shop", catalogue(pictures)), tmp_path / "out")[0]


def changed_pictures(change, kind="PNG"):
    """Return the pictures, each brought into another mode and back by whoever shows them."""
    return {row[3]: encoded(change(Image.fromarray(pixels(i))), kind) for i, row in enumerate(ROWS)}


def opaque_in_part(image):
    """Return the picture with a white, invisible border, its hidden colour black."""
    alpha = Image.new("L", (image.width + 8, image.height + 8), 0)
    alpha.paste(255, (4, 4, 4 + image.width, 4 + image.height))
    large = Image.new("RGB", alpha.size, "black")
    large.paste(image, (4, 4))
    large.putalpha(alpha)
    return large


def test_alpha_is_shown_on_white(tmp_path):
    """What is transparent is white, as on a shop's page."""
    on_white = changed_pictures(lambda image: Image.alpha_composite(Image.new("RGBA", (32, 40), "white"), opaque_in_part(image)).convert("RGB"))  # fmt: skip
    expected, _ = taken(write_files(tmp_path / "a", catalogue(on_white)), tmp_path / "out-a")

    found, report = taken(write_files(tmp_path / "b", catalogue(changed_pictures(opaque_in_part))), tmp_path / "out-b")

    assert (expected, 24) == (found, report["normalised"]["transparent"])


def test_sixteen_bits(tmp_path):
    """16 bits are brought to 8 by their value, not cut off."""

    def deep(image):
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)

    grey = changed_pictures(lambda image: image.convert("L"))
    expected, _ = taken(write_files(tmp_path / "a", catalogue(grey)), tmp_path / "out-a")

    for kind in ("PNG", "TIFF"):
        source = write_files(tmp_path / kind, catalogue(changed_pictures(deep, kind)))
        assert expected == taken(source, tmp_path / "out" / kind)[0]


def test_palette_and_first_frame(tmp_path, clean):
    """A palette is looked up; of an animation the first frame counts."""
    few = changed_pictures(lambda image: image.quantize(200, dither=Image.Dither.NONE))
    assert clean == taken(write_files(tmp_path / "a", catalogue(few)), tmp_path / "out-a")[0]

    frames = {
        row[3]: encoded(Image.fromarray(pixels(i)).quantize(200, dither=Image.Dither.NONE), "GIF", save_all=True,
                        append_images=[Image.new("P", (24, 32))])
        for i, row in enumerate(ROWS)
    }  # fmt: skip
    found, report = taken(write_files(tmp_path / "b", catalogue(frames)), tmp_path / "out-b")
    assert (clean, 24) == (found, report["normalised"]["animated"])


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_rotation(tmp_path, clean, kind):
    """The orientation that a camera noted is applied, in every format that has one."""
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"lossless": True} if kind == "WEBP" else {}
    pictures = {
        row[3]: encoded(Image.fromarray(np.rot90(pixels(i))), kind, exif=exif, **options) for i, row in enumerate(ROWS)
    }

    found, report = taken(write_files(tmp_path / "shop", catalogue(pictures)), tmp_path / "out")

    assert clean == found
    assert kind == "TIFF" or 24 == report["normalised"]["rotated"]


def test_losses_are_named(tmp_path):
    """Every picture that is lost is named with its reason, every row without one by its id."""
    pictures = dict(PICTURES)
    del pictures[ROWS[3][3]]
    rows = [*ROWS, *([f"B-{i:02d}", "x", "Lamps", ROWS[i][3]] for i in range(20))]
    pictures[ROWS[21][3]] = pictures[ROWS[21][3]][:-40]

    _, report = taken(write_files(tmp_path / "s", catalogue(pictures, **{"products.csv": table(rows)})), tmp_path / "o")

    assert (["A-03", "B-03"], [ROWS[21][3]]) == (
        report["rows_without_image"], [entry["where"] for entry in report["quarantined"]])  # fmt: skip
    assert report["quarantined"][0]["reason"].startswith("damaged (")


def test_a_member_with_a_password_is_one_finding(tmp_path):
    """One member that cannot be unpacked costs one picture, not the archive."""
    path = make_zip(tmp_path / "shop.zip", list(catalogue().items()))
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\1\2")
    data[at + 8] |= 1
    path.write_bytes(data)

    _, report = taken(path, tmp_path / "out")

    assert (23, 1) == (report["report"]["images"], len(report["quarantined"]))


def test_limit_comes_before_decoding(tmp_path):
    """With a limit, pictures beyond it are never opened: bad ones among them do not matter."""
    source = write_files(tmp_path / "shop", catalogue())
    first = run_ingest(f"shop={source}", tmp_path / "out", limit=12)
    parts = TrainData.load(tmp_path / "out/train_data"), TestData.load(tmp_path / "out/test_data")
    kept = {image.tobytes() for part in parts for image in part.images}
    for i, row in enumerate(ROWS):
        if pixels(i).tobytes() not in kept:
            (source / row[3]).write_bytes(b"broken")

    again = run_ingest(f"shop={source}", tmp_path / "again", limit=12)

    assert (12, first.content_hash) == (len(kept), again.content_hash)


def test_zip_without_a_description_inside_a_folder(tmp_path, clean):
    """The description may lie beside an archive whose files are in a folder."""
    files = catalogue()
    (tmp_path / "shop.yaml").write_bytes(files.pop("dataset.yaml"))
    with zipfile.ZipFile(tmp_path / "shop.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(f"myshop/{name}", data)

    assert clean == taken(tmp_path / "shop.zip", tmp_path / "out")[0]
