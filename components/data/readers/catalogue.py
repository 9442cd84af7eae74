"""Reads an own catalogue: a table, images, and a small YAML file that says which columns hold id, label and image."""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from string import Formatter
from typing import Any

import yaml

from components.data.examples import Members, RawDataset
from components.data.findings import Findings, shown
from components.data.readers.archives import Limits, ZipMembers
from components.data.readers.fashion_products import SIZE, read_table
from components.data.readers.table import Table, make_table
from components.data.readers.text_rows import count_lines, header_line, text_lines
from components.errors import DataError

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
_ID = re.compile(r"[\w.-]{1,64}")


@dataclass(frozen=True, kw_only=True)
class Description:
    """What `dataset.yaml` says.

    Attributes:
        table: Member name of the table: comma-separated, first line the column names, quoted where needed.
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


def read(members: Members, *, limit: int = 0) -> RawDataset:
    """Read the description, the table and the images it names.

    Args:
        members: Holds `PATTERN`, among them `dataset.yaml`; a zip on this machine may have it beside it as `NAME.yaml`.
        limit: Examples to decode at most, stratified by class; 0 decodes all.

    Returns:
        Images (N, H, W, 3), ordered by id.

    Raises:
        DataError: The description or the table is missing or wrong, or too much of the source is.
    """
    description = parse_description(_description_bytes(members))
    if description.table not in members.names:
        raise DataError(
            f"{DESCRIPTION}: table must be a file of the source; got {shown(description.table)}. Correct it"
        )
    findings = Findings()
    table, images = _parse_table(members.read(description.table), description, set(members.names), findings)
    named = set(images.values())
    strays = [n for n in members.names if n.lower().endswith((".jpg", ".jpeg")) and n not in named]
    return read_table(members, table, images, strays, description.size, findings, limit=limit)


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
        raise DataError(f"{DESCRIPTION} must be YAML; got {shown(error)}. Correct it") from None
    if not isinstance(values, dict):
        raise DataError(f"{DESCRIPTION} must be a mapping such as 'label: category'; got {shown(values)}. Correct it")
    known = set(Description.__dataclass_fields__)
    problems = [f"{shown(key)} is unknown (known: {', '.join(sorted(known))})" for key in values if key not in known]
    if "label" not in values:
        problems.append("label must name the column with the classes")
    problems += [
        f"{key} must be text of 1 to 300 characters; got {shown(values[key])}"
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
        problems.append(f"size must be [height, width], each 8 to {_MAX_SIDE} pixels; got {shown(value)}")
        return SIZE
    return value[0], value[1]


def _attributes(value: Any, problems: list[str]) -> tuple[str, ...]:
    texts = isinstance(value, list) and all(isinstance(name, str) and 0 < len(name) <= 300 for name in value)
    if not texts or len(value) > _MAX_ATTRIBUTES or len(set(value)) < len(value):
        problems.append(f"attributes must be a list of up to {_MAX_ATTRIBUTES} different columns; got {shown(value)}")
        return ()
    return tuple(value)


def _description_bytes(members: Members) -> bytes:
    if DESCRIPTION in members.names:
        return members.read(DESCRIPTION)
    if isinstance(members, ZipMembers) and (beside := members.path.with_suffix(".yaml")).is_file():
        return beside.read_bytes()[: _MAX_DESCRIPTION_BYTES + 1]
    raise DataError(
        f"an own catalogue must have {DESCRIPTION} in it, naming its columns; got none. Write one, see docs/own-data.md"
    )


def _parse_table(
    data: bytes, description: Description, names: set[str], findings: Findings
) -> tuple[Table, dict[str, str]]:
    """Return the rows that are in order, and each id's image where there is one."""
    name = description.table
    try:
        header = next(csv.reader([header_line(data)], strict=True), [])
    except csv.Error as error:
        raise DataError(f"{name}: first line must hold the column names; got {error}. Correct it") from None
    needed = {description.id, description.label, *description.attributes, *_image_columns(description)}
    if missing := sorted(needed - set(header)):
        raise DataError(
            f"{name} must have the columns {', '.join(missing)}; got {shown(','.join(header))}. Correct {DESCRIPTION}"
        )
    if repeated := sorted({c for c in header if c in needed and header.count(c) > 1}):
        raise DataError(f"{name} must have each column once; got {', '.join(repeated)} more than once. Rename them")
    examples, images = [], {}
    for number, row in _rows(data, len(header), findings, name):
        fields = dict(zip(header, row, strict=True))
        key = fields[description.id]
        if not _ID.fullmatch(key):
            findings.quarantine(f"{name} line {number}", "id is not 1 to 64 letters, digits, dots, hyphens", key)
            continue
        image = (
            description.image.format_map({"id": key, **fields})
            if "{" in description.image
            else fields[description.image]
        )
        examples.append((number, key, fields[description.label], tuple(fields[a] for a in description.attributes)))
        if image.removeprefix("./") in names:
            images.setdefault(key, image.removeprefix("./"))
    return make_table(examples, count_lines(data), findings, name, description.attributes), images


def _rows(data: bytes, num_fields: int, findings: Findings, name: str) -> Iterator[tuple[int, list[str]]]:
    for number, text in text_lines(data, findings, name):
        try:
            row = next(csv.reader([text], strict=True))
        except (csv.Error, StopIteration) as error:
            findings.quarantine(f"{name} line {number}", f"quoting is wrong ({error})", text)
            continue
        if len(row) != num_fields:
            findings.quarantine(f"{name} line {number}", f"{len(row)} fields instead of {num_fields}", text)
            continue
        yield number, row


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
            f"{DESCRIPTION}: image must be a column or a template such as images/{{id}}.jpg; got {shown(description.image)}."
            " Correct it"
        )
    return fields - {"id"}
