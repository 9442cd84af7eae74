"""Reads Kaggle's `styles.csv`: ten columns, never quoted, the last of which may hold commas of its own."""

import re
from dataclasses import dataclass

from components.data.findings import Findings
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

MAX_LINE_BYTES = 10_000
MAX_LABEL_LENGTH = 100
_ID = re.compile(r"\d{1,7}", re.ASCII)


@dataclass(frozen=True)
class Table:
    """Rows that passed every check, in file order.

    Attributes:
        ids: Unique ids.
        labels: Class name of each.
        num_rows: Rows of the file, header and blank lines not counted.
    """

    ids: list[str]
    labels: list[str]
    num_rows: int


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
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    header = lines[0].rstrip(b"\r").decode("utf-8", "replace").split(",")
    if tuple(header) != COLUMNS:
        raise DataError(
            f"{name} must have the columns {','.join(COLUMNS)}; got {','.join(header)[:200]!r}. Check the source"
        )
    rows: list[tuple[int, list[str]]] = []
    longer: list[tuple[int, list[str]]] = []
    num_rows = 0
    for number, raw in enumerate(lines[1:], 2):
        line = raw.removesuffix(b"\r")
        if not line:
            continue
        num_rows += 1
        if len(line) > MAX_LINE_BYTES:
            findings.quarantine(f"{name} line {number}", f"longer than {MAX_LINE_BYTES:,} bytes", line[:200])
            continue
        try:
            text = line.decode()
        except UnicodeDecodeError:
            findings.quarantine(f"{name} line {number}", "not UTF-8", line)
            continue
        if not text.isprintable():
            findings.quarantine(f"{name} line {number}", "control character", text)
            continue
        fields = text.split(",", len(COLUMNS) - 1)
        if len(fields) < len(COLUMNS):
            findings.quarantine(f"{name} line {number}", f"{len(fields)} fields instead of {len(COLUMNS)}", text)
        elif "," in fields[NAME] and not _is_quoted(fields[NAME]):
            longer.append((number, fields))
        else:
            rows.append((number, fields))
    rows = sorted(rows + _repaired(rows, longer, findings, name))
    table = _checked(rows, num_rows, findings, name)
    findings.check_fraction(f"{name}: quarantined rows", len(findings.quarantined), num_rows)
    return table


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
    labels: dict[str, str] = {}
    for number, fields in rows:
        key, label = fields[ID], fields[LABEL].strip()
        if not _ID.fullmatch(key):
            findings.quarantine(f"{name} line {number}", "id is not a number of up to 7 digits", key)
        elif key in labels:
            findings.quarantine(f"{name} line {number}", "id appears again", key)
        elif not label:
            findings.quarantine(f"{name} line {number}", "empty label", ",".join(fields))
        elif len(label) > MAX_LABEL_LENGTH:
            findings.quarantine(f"{name} line {number}", f"label longer than {MAX_LABEL_LENGTH} characters", label)
        else:
            labels[key] = label
    return Table(list(labels), list(labels.values()), num_rows)
