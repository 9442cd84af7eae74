"""Kaggle's Fashion Product Images (Small) consist of `styles.csv` and one image for each product, packed or unpacked.

Source: https://www.kaggle.com/datasets/paramaggarwal/fashion-product-images-small
"""

import re
from collections.abc import Iterator
from pathlib import Path

from components.data.examples import Members, RawDataset
from components.data.findings import Findings
from components.data.readers.labels import Table, make_table
from components.data.readers.members import Limits, find_root
from components.data.readers.pairing import IMAGE_SUFFIXES, ImageNames, id_order, pair, stray_files
from components.data.readers.table import Rows, read_rows
from components.errors import DataError

DEFAULT_SOURCE = "kaggle"
KAGGLE_DATASET = "paramaggarwal/fashion-product-images-small"

SIZE = (80, 60)
"""Height and width, pixels."""

TABLE = "styles.csv"
PATTERN = r"(?:[^/]+/){0,2}(?:styles\.csv|images/\d{1,7}\.(?i:jpe?g))"
"""The names by which such a source is known; some archives hold everything in a folder, some repeat it there."""
LIMITS = Limits()

COLUMNS = (
    "id",
    "gender",
    "masterCategory",
    "subCategory",
    "articleType",
    "baseColour",
    "season",
    "year",
    "usage",
    "productDisplayName",
)
ID, LABEL, NAME = COLUMNS.index("id"), COLUMNS.index("subCategory"), COLUMNS.index("productDisplayName")
ATTRIBUTES = ("articleType",)
"""Columns that training may learn from besides the label."""

_MAX_LABEL_LENGTH = 100
_ID = re.compile(r"\d{1,7}", re.ASCII)


def read(members: Members, *, scratch: Path, limit: int = 0) -> RawDataset:
    """Read the table and the images it names.

    Args:
        members: Holds the files.
        scratch: Folder for the packed images.
        limit: Examples to decode at most, stratified by class; 0 decodes all.

    Returns:
        Images (N, 80, 60, 3), ordered by product id; the label is the row's `subCategory`, the attributes `ATTRIBUTES`.

    Raises:
        DataError: The table is missing or wrong, or too much of the source is.
    """
    findings = Findings()
    root = find_root(members.names, TABLE)
    if root is None:
        raise DataError(f"fashion-products must hold {TABLE} and images/; got no {TABLE}. Check the source")
    table = parse_styles(members.read(root + TABLE), findings)
    image_names = ImageNames(members, root)
    images = {key: name for key in table.ids if (name := image_names.find(f"images/{key}.jpg"))}
    lacking = sorted((key for key in table.ids if key not in images), key=id_order)
    findings.rows_without_image = lacking
    strays = stray_files(members, [root + TABLE, *images.values()])
    pictures = [n for n in strays if n.startswith(f"{root}images/") and n.lower().endswith(IMAGE_SUFFIXES)]
    findings.images_without_row = sorted(
        (name.rpartition("/")[2].rpartition(".")[0] for name in pictures), key=id_order
    )
    findings.ignore(members, sorted(set(strays) - set(pictures)))
    findings.check_fraction(
        "rows without image", len(lacking), table.num_rows, first=[f"images/{lacking[0]}.jpg"] if lacking else []
    )
    findings.check_fraction("images without row", len(pictures), len(table.ids) + len(pictures), first=pictures)
    return pair(members, table, images, SIZE, findings, scratch, limit=limit)


def parse_styles(data: bytes, findings: Findings, *, name: str = TABLE) -> Table:
    """Read the table; repair rows with extra commas and quarantine all other wrong rows.

    Its writer quotes nothing, and the first nine fields never hold a comma, so the rest of a longer row is the product's
    name. A repaired row is kept only where its fields two to nine are values that ordinary rows have in the same columns.

    Args:
        data: The file; see `components.data.readers.table`.
        findings: Receives `quarantined` and `repaired`.
        name: File name for messages.

    Raises:
        DataError: A column is missing, or too many rows are quarantined.
    """
    rows = read_rows(data, name, COLUMNS, findings, knows_quotes=False)
    return make_table(
        _examples(rows, findings), rows.num_rows, findings, name, ATTRIBUTES, max_label_length=_MAX_LABEL_LENGTH
    )


def _examples(rows: Rows, findings: Findings) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    is_long = rows.beyond != ""
    usual_values = [set(rows.frame[column][~is_long]) for column in COLUMNS]
    columns = [COLUMNS.index(name) for name in ATTRIBUTES]
    for number, beyond, fields in zip(
        rows.frame.index, rows.beyond, rows.frame.itertuples(index=False, name=None), strict=True
    ):
        place = f"{rows.place} {number}"
        if beyond:
            whole = fields[NAME] + beyond
            strange = [column for i, column in enumerate(COLUMNS) if ID < i < NAME and fields[i] not in usual_values[i]]
            if rows.header[-1] != COLUMNS[NAME]:
                strange = ["column"]
            if strange:
                findings.quarantine(place, f"extra commas and unknown {strange[0]}", ",".join((*fields[:NAME], whole)))
                continue
            findings.repaired.append({"where": place, "value": whole})
        if not _ID.fullmatch(fields[ID]):
            findings.quarantine(place, "id is not a number of up to 7 digits", fields[ID])
            continue
        yield place, fields[ID], fields[LABEL], tuple(fields[column] for column in columns)
