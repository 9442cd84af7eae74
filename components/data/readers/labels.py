"""A row must have an id of its own and a label to be an example; the spellings of one class become one class."""

import logging
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from components.data.findings import Findings
from components.data.readers.table import normalised

log = logging.getLogger(__name__)

MAX_LABEL_LENGTH = 300

_LOOKS_EMPTY = {"nan", "none", "null", "n/a", "#n/a", "na", "nil", "undefined", "unknown", "-", "--", "?"}


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


def make_table(
    examples: Iterable[tuple[str, str, str, tuple[str, ...]]],
    num_rows: int,
    findings: Findings,
    name: str,
    attributes: Sequence[str],
    *,
    max_label_length: int = MAX_LABEL_LENGTH,
) -> Table:
    """Check what every table must have: unique ids, labels of sensible length, few bad rows.

    Labels are trimmed, in composed form (NFC), with single blanks. Classes that differ by case, blanks, invisible
    characters or Unicode form alone become one, under the spelling that most rows have.

    Args:
        examples: Place (such as `styles.csv line 2`), id, label and values of the attributes of each row.
        num_rows: Rows of the file, good and bad.
        findings: Receives `quarantined` and `warnings`; the file's other rows are already among them.
        name: File name for messages.
        attributes: Names of the attributes.
        max_label_length: Characters of a label or an attribute's value.

    Raises:
        DataError: Too many rows are quarantined.
    """
    labels: dict[str, str] = {}
    attribute_rows: list[tuple[str, ...]] = []
    texts: dict[str, str] = {}

    def cleaned(text: str) -> str:
        if text not in texts:
            texts[text] = normalised(text)
        return texts[text]

    for place, key, raw_label, values in examples:
        label = cleaned(raw_label)
        if key in labels:
            findings.quarantine(place, "id appears again", key)
        elif not label:
            findings.quarantine(place, "empty label", key)
        elif len(label) > max_label_length:
            findings.quarantine(place, f"label longer than {max_label_length} characters", label)
        else:
            labels[key] = label
            attribute_rows.append(tuple(cleaned(value) if len(value) <= max_label_length else "" for value in values))
    findings.quarantined.sort(key=lambda entry: int(entry["where"].rpartition(" ")[2]))
    findings.check_fraction(
        f"{name}: quarantined rows", len(findings.quarantined), num_rows, first=findings.quarantined
    )
    columns = dict(zip(attributes, map(list, zip(*attribute_rows, strict=True)), strict=False))
    return Table(list(labels), _merged(list(labels.values()), findings), num_rows, columns)


def _merged(labels: list[str], findings: Findings) -> list[str]:
    """Return the labels with every class under its most frequent spelling; warn of other spellings and of odd names."""
    counts = Counter(labels)
    spellings: dict[str, list[str]] = {}
    for label in sorted(counts, key=lambda label: (-counts[label], label)):
        spellings.setdefault(_essence(label), []).append(label)
    names = {}
    for first, *others in spellings.values():
        for other in others:
            names[other] = first
            findings.warn(f"class {other!r} ({counts[other]:,} rows) is taken for {first!r} ({counts[first]:,} rows)")
        if first.casefold() in _LOOKS_EMPTY:
            findings.warn(f"class {first!r} ({counts[first]:,} rows) looks like a missing label; it is kept as a class")
    return [names.get(label, label) for label in labels] if names else labels


def _essence(label: str) -> str:
    """Return what is left of a label without case, blanks, invisible characters and ways to encode a character."""
    text = unicodedata.normalize("NFKC", label).casefold()
    visible = "".join(c for c in text if not c.isspace() and unicodedata.category(c) != "Cf")
    return unicodedata.normalize("NFKC", visible) or label
