"""Prints the table of failures that docs/study.md shows: `python -m tests.stores.failure_table`."""

from components.stores.failures import Failure
from components.stores.gcs import RULES as GCS
from components.stores.retrying import CORRUPTED_SECONDS, CORRUPTED_TRIES
from components.stores.s3 import RULES as S3

_OUTCOMES = {
    Failure.CORRUPTED: f"repeated; 69 after {CORRUPTED_TRIES} times in a row and {CORRUPTED_SECONDS:g} s",
    Failure.NO_OBJECT: "told to the caller",
}


def rows() -> list[str]:
    """Return the table in Markdown."""
    lines = ["| what | Cloud Storage | S3 | outcome |", "|---|---|---|---|"]
    for failure in Failure:
        outcome = "repeated; 69 at the deadline" if failure.is_passing else f"{failure.error.exit_code} at once"
        cells = [failure.what, _signs(GCS, failure), _signs(S3, failure), _OUTCOMES.get(failure, outcome)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _signs(rules, failure: Failure) -> str:
    return "; ".join(text for rule in rules if rule.failure is failure and (text := rule.describe())) or "-"


if __name__ == "__main__":
    print("\n".join(rows()))  # noqa: T201 (what it is for)
