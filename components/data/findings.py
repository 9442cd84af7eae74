"""What ingest found wrong, counted and listed; every reader adds to one of these."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from components.errors import DataError

MAX_BAD_FRACTION = 0.05
"""More than this share quarantined, without image or without row means a wrong source, not a few bad rows."""

_MAX_VALUE = 120


@dataclass
class Findings:
    """Defects of one source.

    Attributes:
        quarantined: One entry per row or image that was left out: `where`, `reason`, `value`.
        repaired: One entry per row that was repaired: `where`, `value`.
        rows_without_image: Ids.
        images_without_row: Ids.
        normalised: How many images were converted, by what was unusual about them.
        notes: Further figures of the source.
    """

    quarantined: list[dict[str, str]] = field(default_factory=list)
    repaired: list[dict[str, str]] = field(default_factory=list)
    rows_without_image: list[str] = field(default_factory=list)
    images_without_row: list[str] = field(default_factory=list)
    normalised: Counter = field(default_factory=Counter)
    notes: dict[str, Any] = field(default_factory=dict)

    def quarantine(self, where: str, reason: str, value: object) -> None:
        """Record something that was left out."""
        self.quarantined.append({"where": where, "reason": reason, "value": shown(value)})

    def check_fraction(self, what: str, num_bad: int, num_all: int) -> None:
        """Raise `DataError` where more than `MAX_BAD_FRACTION` of `num_all` is bad, with the first example."""
        if num_bad > MAX_BAD_FRACTION * num_all:
            first = (
                f" (first: {self.quarantined[0]['where']}, {self.quarantined[0]['reason']})" if self.quarantined else ""
            )
            raise DataError(
                f"{what} must be at most {MAX_BAD_FRACTION:.0%} of the source; got {num_bad:,} of {num_all:,}{first}."
                " Check that the source is the right one"
            )


def shown(value: object) -> str:
    """Return any value as short printable text."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[: _MAX_VALUE + 1])
    return text if len(text) <= _MAX_VALUE else text[: _MAX_VALUE - 3] + "..."
