"""Kaggle's Fashion Product Images (Small): `styles.csv` and one JPEG a product, as a zip or unpacked.

Source: https://www.kaggle.com/datasets/paramaggarwal/fashion-product-images-small
"""

import re

import numpy as np

from components.data.decoding import decode_members
from components.data.findings import Findings
from components.data.raw import Members, RawDataset
from components.data.styles_table import Table, parse_styles
from components.data.subset import stratified_subset
from components.data.zip_members import Limits
from components.errors import DataError

DEFAULT_SOURCE = "kaggle"
KAGGLE_DATASET = "paramaggarwal/fashion-product-images-small"

SIZE = (80, 60)
"""Height and width, pixels."""

TABLE = "styles.csv"
PATTERN = r"(?:myntradataset/)?(?:styles\.csv|images/\d{1,7}\.jpg)"
"""The members that are read; some archives repeat everything under `myntradataset/`."""
LIMITS = Limits()
_NUM_SPLITS = 3
_IMAGE = re.compile(r"images/(\d{1,7})\.jpg")


def read(members: Members, *, limit: int = 0) -> RawDataset:
    """Read the table and the images it names.

    Args:
        members: Holds `PATTERN`.
        limit: Examples to decode at most, stratified by class; 0 decodes all.

    Returns:
        Images (N, 80, 60, 3), ordered by product id; the label is the row's `subCategory`.

    Raises:
        DataError: The table is missing or wrong, or too much of the source is.
    """
    findings = Findings()
    root = next((root for root in ("", "myntradataset/") if root + TABLE in members.names), None)
    if root is None:
        raise DataError(f"fashion-products must hold {TABLE} and images/; got no {TABLE}. Check the source")
    table = parse_styles(members.read(root + TABLE), findings)
    images = {m[1]: name for name in members.names if (m := _IMAGE.fullmatch(name.removeprefix(root)))}
    strays = list(images.keys() - set(table.ids))
    return read_table(members, table, images, strays, SIZE, findings, limit=limit)


def read_table(
    members: Members,
    table: Table,
    images: dict[str, str],
    strays: list[str],
    size: tuple[int, int],
    findings: Findings,
    *,
    limit: int,
) -> RawDataset:
    """Join a table with its images and decode them.

    Args:
        members: Holds the images.
        table: Ids and labels.
        images: Member name of each id's image.
        strays: Images that no row names.
        size: Height and width of the result, pixels.
        findings: What was found so far; receives the rest.
        limit: Examples to decode at most, stratified by class; 0 decodes all.

    Raises:
        DataError: Too many rows have no image, or the other way round, or too many images are unusable.
    """
    findings.rows_without_image = sorted((i for i in table.ids if i not in images), key=_order)
    findings.images_without_row = sorted(strays, key=_order)
    if members.num_ignored:
        findings.notes["ignored_files"] = members.num_ignored
    findings.check_fraction("rows without image", len(findings.rows_without_image), table.num_rows)
    findings.check_fraction("images without row", len(strays), len(table.ids) + len(strays))
    pairs = sorted(
        ((i, label) for i, label in zip(table.ids, table.labels, strict=True) if i in images),
        key=lambda p: _order(p[0]),
    )
    if limit:
        chosen = stratified_subset([label for _, label in pairs], [i for i, _ in pairs], limit, least=_NUM_SPLITS)
        pairs = [pairs[i] for i in chosen]
    names = [images[i] for i, _ in pairs]
    num_quarantined = len(findings.quarantined)
    pixels, usable, digests = decode_members(members, names, size, findings)
    findings.check_fraction("unusable images", len(findings.quarantined) - num_quarantined, len(names))
    rows = np.flatnonzero(usable)
    kept = [pairs[i] for i in rows]
    classes = tuple(sorted({label for _, label in kept}))
    number = {label: k for k, label in enumerate(classes)}
    return RawDataset(
        images=pixels,
        rows=rows,
        labels=np.array([number[label] for _, label in kept], np.int64),
        classes=classes,
        ids=np.array([i for i, _ in kept]),
        digests=digests[rows],
        official_test=None,
        checksums={},
        findings=findings,
    )


def _order(key: str) -> tuple[int, str]:
    """Sort ids as numbers where they are numbers."""
    return (int(key) if key.isdecimal() else 10**9, key)
