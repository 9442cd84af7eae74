"""Kaggle's Fashion Product Images (Small): `styles.csv` and one JPEG a product, as a zip or unpacked.

Source: https://www.kaggle.com/datasets/paramaggarwal/fashion-product-images-small
"""

import re

import numpy as np

from components.data.examples import Members, RawDataset
from components.data.findings import Findings, shown
from components.data.readers.archives import Limits
from components.data.readers.images import decode_members
from components.data.readers.subset import stratified_subset
from components.data.readers.table import Table, parse_styles
from components.errors import DataError

DEFAULT_SOURCE = "kaggle"
KAGGLE_DATASET = "paramaggarwal/fashion-product-images-small"

SIZE = (80, 60)
"""Height and width, pixels."""

TABLE = "styles.csv"
PATTERN = r"(?:myntradataset/)?(?:styles\.csv|images/\d{1,7}\.jpg)"
"""The members that are read; some archives repeat everything under `myntradataset/`."""
LIMITS = Limits()
MAX_ATTRIBUTE_VALUES = 1000
_NUM_SPLITS = 3
_IMAGE = re.compile(r"images/(\d{1,7})\.jpg")


def read(members: Members, *, limit: int = 0) -> RawDataset:
    """Read the table and the images it names.

    Args:
        members: Holds `PATTERN`.
        limit: Examples to decode at most, stratified by class; 0 decodes all.

    Returns:
        Images (N, 80, 60, 3), ordered by product id; the label is the row's `subCategory`, the attributes `ATTRIBUTES`.

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
        DataError: Too many rows have no image, or the other way round, too many images are unusable, or an attribute
            has too many values.
    """
    findings.rows_without_image = sorted((i for i in table.ids if i not in images), key=_order)
    findings.images_without_row = sorted(strays, key=_order)
    if members.num_ignored:
        findings.notes["ignored_files"] = members.num_ignored
    findings.check_fraction("rows without image", len(findings.rows_without_image), table.num_rows)
    findings.check_fraction("images without row", len(strays), len(table.ids) + len(strays))
    order = sorted((n for n, i in enumerate(table.ids) if i in images), key=lambda n: _order(table.ids[n]))
    if limit:
        chosen = stratified_subset(
            [table.labels[n] for n in order], [table.ids[n] for n in order], limit, least=_NUM_SPLITS
        )
        order = [order[n] for n in chosen]
    names = [images[table.ids[n]] for n in order]
    num_quarantined = len(findings.quarantined)
    pixels, usable, digests = decode_members(members, names, size, findings)
    findings.check_fraction("unusable images", len(findings.quarantined) - num_quarantined, len(names))
    rows = np.flatnonzero(usable)
    kept = [order[n] for n in rows]
    labels, classes = _numbered([table.labels[n] for n in kept])
    attributes = {name: _numbered([values[n] for n in kept]) for name, values in sorted(table.attributes.items())}
    for name, (_, values) in attributes.items():
        if len(values) > MAX_ATTRIBUTE_VALUES:
            raise DataError(
                f"attribute {shown(name)} must have at most {MAX_ATTRIBUTE_VALUES:,} values; got {len(values):,}. "
                "Name a column of kinds rather than of names"
            )
    return RawDataset(
        images=pixels,
        rows=rows,
        labels=labels,
        classes=classes,
        ids=np.array([table.ids[n] for n in kept]),
        digests=digests[rows],
        official_test=None,
        checksums={},
        findings=findings,
        attributes=np.stack([numbers for numbers, _ in attributes.values()], axis=1) if attributes else None,
        attribute_values={name: values for name, (_, values) in attributes.items()},
    )


def _numbered(names: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return each name's number (N,) int64 and the names in that order; an empty name has no number and gives -1."""
    known = tuple(sorted(set(names) - {""}))
    number = {name: k for k, name in enumerate(known)} | {"": -1}
    return np.array([number[name] for name in names], np.int64), known


def _order(key: str) -> tuple[int, str]:
    """Sort ids as numbers where they are numbers."""
    return (int(key) if key.isdecimal() else 10**9, key)
