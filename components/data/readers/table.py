"""Reads Kaggle's `styles.csv`: ten columns, never quoted, the last of which may hold commas of its own."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from components.data.findings import Findings, shown
from components.data.readers.text_rows import count_lines, header_line, text_lines
from components.errors import DataError

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

MAX_LABEL_LENGTH = 100
_ID = re.compile(r"\d{1,7}", re.ASCII)


@dataclass(frozen=True)
class Table:
    """Rows that passed every check, in file order.

    Attributes:
        ids: Unique ids.
        labels: Class name of each.
        num_rows: Rows of the file, header and blank lines not counted.
        attributes: Value of each row by the attribute's name; empty where it is not known or longer than a label.
    """

    ids: list[str]
    labels: list[str]
    num_rows: int
    attributes: dict[str, list[str]] = field(default_factory=dict)


def parse_styles(data: bytes, findings: Findings, *, name: str = "styles.csv") -> Table:
    """Read the table; repair rows with extra commas, quarantine whatever else is wrong.

    The first nine fields never hold a comma, so the rest of a longer row is the product's name. A repaired row is kept
    only where its fields two to nine are values that ordinary rows have in the same columns.

    Args:
        data: The file, UTF-8, with or without byte order mark, any line ends.
        findings: Receives `quarantined` and `repaired`.
        name: File name for messages.

    Raises:
        DataError: The header is another one, or too many rows are quarantined.
    """
    header = header_line(data)
    if tuple(header.split(",")) != COLUMNS:
        raise DataError(f"{name} must have the columns {','.join(COLUMNS)}; got {shown(header)}. Check the source")
    rows: list[tuple[int, list[str]]] = []
    longer: list[tuple[int, list[str]]] = []
    num_rows = count_lines(data)
    for number, text in text_lines(data, findings, name):
        fields = text.split(",", len(COLUMNS) - 1)
        if len(fields) < len(COLUMNS):
            findings.quarantine(f"{name} line {number}", f"{len(fields)} fields instead of {len(COLUMNS)}", text)
        elif "," in fields[NAME] and not _is_quoted(fields[NAME]):
            longer.append((number, fields))
        else:
            rows.append((number, fields))
    rows = sorted(rows + _repaired(rows, longer, findings, name))
    return _checked(rows, num_rows, findings, name)


def _is_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] == '"'


def _repaired(
    rows: list[tuple[int, list[str]]], longer: list[tuple[int, list[str]]], findings: Findings, name: str
) -> list[tuple[int, list[str]]]:
    """Return those longer rows whose first nine fields are plausible."""
    if not longer:
        return []
    known = [set(column) for column in zip(*(fields for _, fields in rows), strict=True)] or [set()] * len(COLUMNS)
    kept = []
    for number, fields in longer:
        strange = [column for i, column in enumerate(COLUMNS) if ID < i < NAME and fields[i] not in known[i]]
        if strange:
            findings.quarantine(f"{name} line {number}", f"extra commas and unknown {strange[0]}", ",".join(fields))
        else:
            findings.repaired.append({"where": f"{name} line {number}", "value": fields[NAME]})
            kept.append((number, fields))
    return kept


def _checked(rows: list[tuple[int, list[str]]], num_rows: int, findings: Findings, name: str) -> Table:
    examples = []
    columns = [COLUMNS.index(name) for name in ATTRIBUTES]
    for number, fields in rows:
        if _ID.fullmatch(fields[ID]):
            examples.append((number, fields[ID], fields[LABEL], tuple(fields[column] for column in columns)))
        else:
            findings.quarantine(f"{name} line {number}", "id is not a number of up to 7 digits", fields[ID])
    return make_table(examples, num_rows, findings, name, ATTRIBUTES)


def make_table(
    examples: Iterable[tuple[int, str, str, tuple[str, ...]]],
    num_rows: int,
    findings: Findings,
    name: str,
    attributes: Sequence[str],
) -> Table:
    """Check what every table must have: unique ids, labels of sensible length, few bad rows.

    Args:
        examples: Line number, id, label and values of the attributes of each row.
        num_rows: Rows of the file, good and bad.
        findings: Receives `quarantined`.
        name: File name for messages.
        attributes: Names of the attributes.

    Raises:
        DataError: Too many rows are quarantined.
    """
    labels: dict[str, str] = {}
    known: list[tuple[str, ...]] = []
    for number, key, raw_label, values in examples:
        label = raw_label.strip()
        if key in labels:
            findings.quarantine(f"{name} line {number}", "id appears again", key)
        elif not label:
            findings.quarantine(f"{name} line {number}", "empty label", key)
        elif len(label) > MAX_LABEL_LENGTH:
            findings.quarantine(f"{name} line {number}", f"label longer than {MAX_LABEL_LENGTH} characters", label)
        else:
            labels[key] = label
            known.append(tuple(value.strip() if len(value) <= MAX_LABEL_LENGTH else "" for value in values))
    findings.check_fraction(f"{name}: quarantined rows", len(findings.quarantined), num_rows)
    columns = dict(zip(attributes, map(list, zip(*known, strict=True)), strict=False))
    return Table(list(labels), list(labels.values()), num_rows, columns)
