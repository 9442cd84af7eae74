"""Reads an own catalogue: a table, images, and a small YAML file that says which columns hold id, label and image."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

import yaml

from components.data.examples import Members, RawDataset
from components.data.findings import Findings
from components.data.readers.archives import SUFFIXES
from components.data.readers.fashion_products import SIZE
from components.data.readers.labels import Table, make_table
from components.data.readers.members import Limits, find_root
from components.data.readers.pairing import IMAGE_SUFFIXES, ElsewhereError, ImageNames, id_order, pair, stray_files
from components.data.readers.table import normalised, read_rows
from components.errors import DataError
from components.text import error_text, escaped

DEFAULT_SOURCE = ""
KAGGLE_DATASET = ""

DESCRIPTION = "dataset.yaml"
PATTERN = r"(?!.*(?:^|/)\.{1,2}(?:/|$))[^/\\:\x00-\x1f][^\\:\x00-\x1f]{0,299}"
"""Relative names without `..`; which of them are images, the table says."""
LIMITS = Limits()

_MAX_DESCRIPTION_BYTES = 8 * 2**10
_MAX_BRACKETS = 50
_MAX_SIDE = 512
_MAX_ATTRIBUTES = 10
_MAX_ID_LENGTH = 200


@dataclass(frozen=True, kw_only=True)
class Description:
    """The content of `dataset.yaml`.

    Attributes:
        table: Member name of the table, whose first line holds the column names.
        id: Column with each product's unique id.
        label: Column with its class.
        image: Column with the image's member name, or a template of columns such as `images/{sku}.jpg`; `{id}` is the id.
        size: Height and width that images are brought to, pixels.
        attributes: Columns that training may learn from besides the label.
    """

    table: str = "styles.csv"
    id: str = "id"
    label: str
    image: str = "images/{id}.jpg"
    size: tuple[int, int] = SIZE
    attributes: tuple[str, ...] = ()


def read(members: Members, *, scratch: Path, limit: int = 0) -> RawDataset:
    """Read the description, the table and the images it names.

    Args:
        members: Holds the files, `dataset.yaml` among them; an archive on this machine may have it beside it as `NAME.yaml`.
        scratch: Folder for the packed images.
        limit: Examples to decode at most, stratified by class; 0 decodes all.

    Returns:
        Images (N, H, W, 3), ordered by id.

    Raises:
        DataError: The description or the table is missing or wrong, or too much of the source is.
    """
    text, root = _description(members)
    description = parse_description(text)
    image_names = ImageNames(members, root)
    place = image_names.find(description.table)
    if place is None:
        raise DataError(
            f"{DESCRIPTION}: table must be a file of the source; got {escaped(description.table)}. Correct it"
        )
    findings = Findings()
    table, images = _parse_table(members.read(place), description, image_names, findings)
    strays = stray_files(members, [place, root + DESCRIPTION, *images.values()])
    pictures = [name for name in strays if name.lower().endswith(IMAGE_SUFFIXES)]
    findings.images_without_row = pictures
    findings.ignore(members, sorted(set(strays) - set(pictures)))
    if pictures:
        findings.warn(f"{len(pictures):,} images are named by no row; the first is {pictures[0]}")
    return pair(members, table, images, description.size, findings, scratch, limit=limit)


def parse_description(data: bytes) -> Description:
    """Read `dataset.yaml`.

    Raises:
        DataError: Names everything that is wrong with it.
    """
    if len(data) > _MAX_DESCRIPTION_BYTES:
        raise DataError(
            f"{DESCRIPTION} must have at most {_MAX_DESCRIPTION_BYTES:,} bytes; got {len(data):,}. Shorten it"
        )
    if data.count(b"[") + data.count(b"{") > _MAX_BRACKETS:  # each costs the parser a level of recursion
        raise DataError(f"{DESCRIPTION} must be YAML of one level; got deeper nesting. Correct it")
    try:
        values = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{DESCRIPTION} must be YAML; got {error_text(error)}. Correct it") from None
    if not isinstance(values, dict):
        raise DataError(f"{DESCRIPTION} must be a mapping such as 'label: category'; got {escaped(values)}. Correct it")
    keys = set(Description.__dataclass_fields__)
    problems = [f"{escaped(key)} is unknown (known: {', '.join(sorted(keys))})" for key in values if key not in keys]
    node = yaml.compose(data, yaml.SafeLoader)  # of a key that is there twice, the values know the last alone
    written = [str(key.value) for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
    problems += [f"{escaped(key)} must be there once" for key in sorted({k for k in written if written.count(k) > 1})]
    if "label" not in values:
        problems.append("label must name the column with the classes")
    problems += [
        f"{key} must be text of 1 to 300 characters; got {escaped(values[key])}"
        for key in ("table", "id", "label", "image")
        if key in values and not (isinstance(values[key], str) and 0 < len(values[key]) <= 300)
    ]
    if "size" in values:
        values["size"] = _size(values["size"], problems)
    if "attributes" in values:
        values["attributes"] = _attributes(values["attributes"], problems)
    if problems:
        raise DataError(f"{DESCRIPTION}: {'; '.join(problems)}. Correct it")
    return Description(**values)


def _size(value: Any, problems: list[str]) -> tuple[int, int]:
    whole = isinstance(value, list) and len(value) == 2 and all(type(v) is int and 8 <= v <= _MAX_SIDE for v in value)
    if not whole:
        problems.append(f"size must be [height, width], each 8 to {_MAX_SIDE} pixels; got {escaped(value)}")
        return SIZE
    return value[0], value[1]


def _attributes(value: Any, problems: list[str]) -> tuple[str, ...]:
    texts = isinstance(value, list) and all(isinstance(name, str) and 0 < len(name) <= 300 for name in value)
    if not texts or len(value) > _MAX_ATTRIBUTES or len(set(value)) < len(value):
        problems.append(f"attributes must be a list of up to {_MAX_ATTRIBUTES} different columns; got {escaped(value)}")
        return ()
    return tuple(value)


def _description(members: Members) -> tuple[bytes, str]:
    """Return `dataset.yaml` and the folder (with its slash) that names in it count from."""
    root = find_root(members.names, DESCRIPTION)
    if root is not None:
        return members.read(root + DESCRIPTION), root
    path: Path | None = getattr(members, "path", None)
    suffix = next((s for s in SUFFIXES if path is not None and path.name.lower().endswith(s)), "")
    if path is not None and suffix and (beside := path.with_name(path.name[: -len(suffix)] + ".yaml")).is_file():
        text = beside.read_bytes()[: _MAX_DESCRIPTION_BYTES + 1]
        return text, find_root(members.names, parse_description(text).table) or ""
    raise DataError(
        f"an own catalogue must have {DESCRIPTION} in it, naming its columns; got none. Write one, see docs/own-data.md"
    )


def _parse_table(
    data: bytes, description: Description, image_names: ImageNames, findings: Findings
) -> tuple[Table, dict[str, str]]:
    """Return the rows that are in order, and each id's image where there is one."""
    name = description.table
    template = description.image if "{" in description.image else ""
    needed = [description.id, description.label, *description.attributes, *sorted(_image_columns(description))]
    columns = list(dict.fromkeys(map(normalised, needed)))
    rows = read_rows(data, name, columns, findings)
    places = {column: n for n, column in enumerate(columns)}
    fields_of = {column: places[normalised(column)] for column in needed}
    images: dict[str, str] = {}
    lacking: list[tuple[str, str]] = []

    def examples() -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
        values = rows.frame.itertuples(index=False, name=None)
        for number, beyond, row in zip(rows.frame.index, rows.beyond, values, strict=True):
            place = f"{rows.place} {number}"
            if beyond.strip(",;|\t \"'"):
                findings.quarantine(place, f"more than {len(rows.header)} fields", beyond)
                continue
            key = unicodedata.normalize("NFC", row[fields_of[description.id]]).strip()
            if not 0 < len(key) <= _MAX_ID_LENGTH:
                findings.quarantine(place, f"id is not 1 to {_MAX_ID_LENGTH} characters", key)
                continue
            if template:
                text = template.format_map({c: row[n].strip() for c, n in fields_of.items()} | {"id": key})
            else:
                text = row[fields_of[description.image]]
            try:
                file = image_names.find(text)
            except ElsewhereError as error:
                findings.quarantine(place, str(error), text)
                continue
            if file is None:
                lacking.append((key, text))
            else:
                images.setdefault(key, file)
            label, attributes = row[fields_of[description.label]], description.attributes
            yield place, key, label, tuple(row[fields_of[a]] for a in attributes)

    table = make_table(examples(), rows.num_rows, findings, name, description.attributes)
    ids = set(table.ids)
    missing = [(key, text) for key, text in lacking if key in ids and key not in images]
    findings.rows_without_image = sorted({key for key, _ in missing}, key=id_order)
    first = [f"{key} names {escaped(text)}" for key, text in missing[:1]]
    findings.check_fraction("rows without image", len(findings.rows_without_image), rows.num_rows, first=first)
    return table, images


def _image_columns(description: Description) -> set[str]:
    if "{" not in description.image:
        return {description.image}
    try:
        parsed = list(Formatter().parse(description.image))
    except ValueError:
        parsed = []
    # Only plain column names: attribute access and format specifications have no place in a file name.
    plain = parsed and all(spec in ("", None) and not conversion for _, _, spec, conversion in parsed)
    fields = {field for _, field, _, _ in parsed if field is not None}
    if not plain or not fields or any(re.search(r"[.\[\]]", field) or not field for field in fields):
        raise DataError(
            f"{DESCRIPTION}: image must be a column or a template such as images/{{id}}.jpg; got {escaped(description.image)}."
            " Correct it"
        )
    return fields - {"id"}
