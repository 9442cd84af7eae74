"""A run's headline scores, verdict and report are read from the study root."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from components.errors import DataError, FashionTuningError, using
from components.evaluation.kept import REPORT, SUMMARY, Summary, result_key
from components.search.shapes import misfit
from components.stores import ObjectNotFoundError, open_store

COLUMNS = ("dataset", "approach", "accuracy", "95 % interval", "macro F1", "search s", "train s")
PROMOTED = ("first", "better", "same-model")
"""Champion decisions after which the run's model is the champion."""


class RefusedError(DataError):
    """The run succeeded, and its model did not become champion."""


def read_summary(
    study_root: str, run_id: str, say: Callable[[str], None], elsewhere: Callable[[str], Any], *, first_elsewhere: bool
) -> dict[str, Any] | None:
    """Return `summary.json` of a run, or None where it cannot be read from here; then `say` gets the reason.

    Args:
        study_root: Store of the run.
        run_id: The run.
        say: Gets one line.
        elsewhere: Returns the content of a URI by another way than the store itself.
        first_elsewhere: Whether the store has no address here, so that the other way comes first.
    """
    uri = f"{study_root}/{result_key(run_id, SUMMARY)}"
    ways = [lambda: json.loads(open_store(study_root, deadline_seconds=30).read(result_key(run_id, SUMMARY)))]
    ways.insert(0 if first_elsewhere else 1, lambda: elsewhere(uri))
    reasons = []
    for way in ways:
        try:
            summary: dict[str, Any] = way()
            if not (problem := misfit(summary, Summary)):
                return summary
            reasons.append(f"not a summary: {problem}")
        except ObjectNotFoundError:
            reasons.append("not there")
        except (FashionTuningError, ValueError) as error:
            reasons.append(str(error))
    say(f"results: {uri} cannot be read from here ({'; '.join(reasons)}); see the report in Kubeflow")
    return None


def report_link(study_root: str, run_id: str) -> str:
    """Return where a browser finds the report of a run: Google's console for `gs://`, else the object's URI."""
    uri = f"{study_root}/{result_key(run_id, REPORT)}"
    return uri.replace("gs://", "https://storage.cloud.google.com/", 1) if uri.startswith("gs://") else uri


def show(summary: dict[str, Any], study_root: str, run_id: str) -> None:
    """Print the headline scores, the verdicts and where the report is."""
    show_scores(summary)
    click.echo(f"report: {report_link(study_root, run_id)}")


def show_scores(summary: dict[str, Any]) -> None:
    """Print the headline scores and the verdicts, in whole lines even on a narrow terminal."""
    table = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in COLUMNS[:2] else "right", no_wrap=True)
    for row in headline_rows(summary):
        table.add_row(*row)
    output = Console(highlight=False, soft_wrap=True)
    output.print(table, crop=False, overflow="ignore")
    for line in verdicts(summary):
        output.print(line, markup=False)


def headline_rows(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return dataset, approach, accuracy, interval, macro F1, search and train seconds of every approach."""
    return [
        (
            dataset,
            approach,
            f"{scores['accuracy']:.4f}",
            "{:.4f}-{:.4f}".format(*scores["accuracy_ci95"]),
            f"{scores['macro_f1']:.4f}",
            f"{scores['device_seconds']['search']:.0f}",
            f"{scores['device_seconds']['train']:.0f}",
        )
        for dataset, part in summary["datasets"].items()
        for approach, scores in part["approaches"].items()
    ]


def verdicts(summary: dict[str, Any]) -> list[str]:
    """Return one sentence per dataset: the comparison's verdict and the champion decision."""
    return [
        f"{part['comparison']['verdict']} Champion: {part['champion']['decision']}."
        for part in summary["datasets"].values()
    ]


def write_markdown(
    path: Path, state: str, link: str, reach: str, summary: dict[str, Any] | None, study_root: str, run_id: str
) -> None:
    """Append the outcome to a Markdown file, such as CI's job summary; a link that needs a port-forward comes with it."""
    lines = [f"## Fashion tuning: {state}", "", f"[Run {run_id}]({link})" + (f" while `{reach}` runs" if reach else "")]
    if summary:
        lines[-1] += f", [report]({report_link(study_root, run_id)})"
        lines += ["", f"| {' | '.join(COLUMNS)} |", "|---|---|--:|--:|--:|--:|--:|"]
        lines += [f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in headline_rows(summary)]
        lines += ["", *(f"- {_escaped(verdict)}" for verdict in verdicts(summary))]
    with using(path), path.open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def require_promoted(summary: dict[str, Any] | None) -> None:
    """Raise `RefusedError` unless every dataset's champion is now this run's model.

    Raises:
        RefusedError: Names the datasets and decisions.
    """
    if summary is None:
        raise RefusedError(
            "the champion decision must be known for --require-promotion; got no summary. See the run's report"
        )
    refused = [
        f"{dataset}: {part['champion']['decision']}"
        for dataset, part in summary["datasets"].items()
        if part["champion"]["decision"] not in PROMOTED
    ]
    if refused:
        raise RefusedError(
            f"every winner must become champion; got {', '.join(refused)}. See the report for the reasons"
        )


def _escaped(text: str) -> str:
    return "".join(f"\\{c}" if c in "|<>[]`*_\\" else c for c in " ".join(text.split()))
