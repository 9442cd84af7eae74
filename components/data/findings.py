"""Ingest counts and lists what is wrong with a source; every reader adds to the same findings."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from components.errors import DataError
from components.text import escaped

log = logging.getLogger(__name__)

MAX_BAD_FRACTION = 0.05
"""More than this share quarantined, without image or without row means a wrong source, not a few bad rows."""

MAX_IGNORED = 1_000


@dataclass
class Findings:
    """Defects of one source.

    Attributes:
        quarantined: One entry per row or image that was left out: `where`, `reason`, `value`.
        repaired: One entry per row that was repaired: `where`, `value`.
        rows_without_image: Ids.
        images_without_row: Ids.
        ignored: One entry per file that is no part of the dataset: `where`, `reason`; `MAX_IGNORED` at most.
        normalised: How many images were converted, by what was unusual about them.
        warnings: Sentences on what was decided and may be wrong; the log has them too.
        notes: Further numbers about the source.
    """

    quarantined: list[dict[str, str]] = field(default_factory=list)
    repaired: list[dict[str, str]] = field(default_factory=list)
    rows_without_image: list[str] = field(default_factory=list)
    images_without_row: list[str] = field(default_factory=list)
    ignored: list[dict[str, str]] = field(default_factory=list)
    normalised: Counter = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    def quarantine(self, where: str, reason: str, value: object) -> None:
        """Record an example or a row that was left out."""
        self.quarantined.append({"where": where, "reason": reason, "value": escaped(value)})

    def warn(self, text: str) -> None:
        """Record a warning for report and log."""
        self.warnings.append(escaped(text))
        log.warning("%s", escaped(text))

    def tell_left_out(self) -> None:
        """Log once how many rows and images are left out, with the first of them."""
        left_out = [f"{escaped(entry['where'])}: {entry['reason']}" for entry in self.quarantined]
        left_out += [f"{escaped(key)}: the row has no image" for key in self.rows_without_image]
        if left_out:
            log.warning(
                "%s rows or images are left out; the first is %s; all are in ingest_report.json",
                f"{len(left_out):,}",
                left_out[0],
            )

    def ignore(self, source: Any, strays: Sequence[str]) -> None:
        """Record the files that no reader gets or uses, and how many systems left beside them.

        Args:
            source: `num_companions`, and the `refused` files with their reasons.
            strays: Names of files that the dataset does not use.
        """
        reasons = {**source.refused, **dict.fromkeys(strays, "no part of the dataset")}
        self.ignored = [{"where": escaped(n), "reason": reasons[n]} for n in sorted(reasons)[:MAX_IGNORED]]
        if reasons:
            self.notes["ignored_files"] = len(reasons)
        if source.num_companions:
            self.notes["companion_files"] = source.num_companions

    def check_fraction(self, what: str, num_bad: int, num_all: int, *, first: Sequence[Any] = ()) -> None:
        """Raise `DataError` where more than `MAX_BAD_FRACTION` of `num_all` is bad, with the first example.

        Args:
            what: What is bad.
            num_bad: How many.
            num_all: Number of examples or rows in all.
            first: The bad ones: entries of `quarantined`, or texts.
        """
        if num_bad > MAX_BAD_FRACTION * num_all:
            example = first[0] if first else ""
            if isinstance(example, dict):
                value = "" if example["value"] == escaped(example["where"]) else f": {example['value']}"
                example = f"{example['where']}, {example['reason']}{value}"
            raise DataError(
                f"{what} must be at most {MAX_BAD_FRACTION:.0%} of the source; got {num_bad:,} of {num_all:,}"
                f"{f' (first: {example})' if example else ''}. Check that the source is the right one"
            )
