"""`runs`: the results of the runs under a study root, beside each other."""

import json
import os
from pathlib import Path
from typing import Any

import click

from components.errors import DataError, using
from components.text import csv_cell
from pipelines.commands import DEBUG_OPTION
from pipelines.paths import OutputFile

_root_option = click.option(
    "--study-root", required=True, metavar="URI", help="Where the runs' results are: gs://..., s3://... or a directory."
)


@click.group("runs")
def runs_group() -> None:
    """Look at the results of runs that ended well."""


@runs_group.command("list")
@_root_option
@click.option("--csv", "csv_path", type=OutputFile(), help="Also write the table as CSV.")
@click.option("--json", "as_json", is_flag=True, help="Everything, for programs.")
@DEBUG_OPTION
def list_command(study_root: str, csv_path: Path | None, as_json: bool) -> None:
    """List all runs.

    There is one row per run and data set, oldest first.
    """
    from components.evaluation.kept import runs_frame

    frame = runs_frame(_summaries(study_root))
    if csv_path:
        with using(csv_path):
            frame.map(csv_cell).rename(columns=csv_cell).to_csv(csv_path, index=False)
    if as_json:
        click.echo(frame.to_json(orient="records", indent=1))
        return
    if frame.empty:
        click.echo(f"no run has ended well under {study_root}")
        return
    scores = [name for name in frame.columns if name.endswith(" accuracy")]
    _print(["run", "created", "dataset", *scores, "winner", "decision", "device_seconds", *_costs(frame)], frame)


def _summaries(study_root: str) -> dict[str, dict[str, Any]]:
    """Return the results by run; a folder that is not there is a mistake, not one without results."""
    from components.evaluation.kept import read_summaries

    if "://" not in study_root and not Path(os.path.expanduser(study_root)).is_dir():  # noqa: PTH111 - keeps an unknown ~name
        raise DataError(f"--study-root must be a folder or a URI; got {study_root}. Correct it")
    return read_summaries(study_root)


@runs_group.command("compare")
@click.argument("runs", nargs=-1, required=True)
@_root_option
@click.option("--json", "as_json", is_flag=True, help="Everything, for programs.")
@DEBUG_OPTION
def compare_command(runs: tuple[str, ...], study_root: str, as_json: bool) -> None:
    """Compare some runs.

    RUNS are their ids, or the ids' beginnings. Parameters that differ are shown, and the scores of each approach.
    """
    from components.evaluation.kept import compare

    comparison = compare(_summaries(study_root), list(runs))
    if as_json:
        click.echo(json.dumps(comparison, indent=1))
        return
    _print(
        ["parameter", *comparison["runs"]],
        [{"parameter": name, **values} for name, values in comparison["parameters"].items()],
    )
    for dataset, part in comparison["datasets"].items():
        note = "" if part["same_data"] else " (the runs scored different images: compare with care)"
        click.echo(f"\n{dataset}{note}")
        rows = []
        for approach, scores in part["approaches"].items():
            for label, value in (
                ("accuracy", lambda s: f"{s['accuracy']:.4f}"),
                ("95 % interval", lambda s: "{:.4f}-{:.4f}".format(*s["accuracy_ci95"])),
                ("macro F1", lambda s: f"{s['macro_f1']:.4f}"),
                ("device s", lambda s: f"{sum(s['device_seconds'].values()):.0f}"),
                ("best", lambda s: " ".join(f"{name}={v}" for name, v in s["best_hyperparameters"].items())),
            ):
                cells = {run: value(scores[run]) for run in scores}
                rows.append({"approach": approach, "score": label, **cells})
        _print(["approach", "score", *comparison["runs"]], rows)


def _costs(frame: Any) -> list[str]:
    return ["cost", "currency"] if frame["cost"].notna().any() else []


def _print(columns: list[str], rows: Any) -> None:
    """Print a table in whole lines, whatever the terminal's width; `rows` are dicts or a DataFrame."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from components.text import clean

    records = rows if isinstance(rows, list) else rows.astype(object).where(rows.notna(), None).to_dict("records")
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True)
    for record in records:
        table.add_row(*(Text(_shown(record.get(column), clean)) for column in columns))
    Console(highlight=False, width=10_000).print(table)


def _shown(value: Any, clean: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else clean(value, 80)
