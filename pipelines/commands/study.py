"""`study show`: the trials of a study, local or in a bucket, finished or not."""

import json
import os
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.errors import DataError, ParameterError
from components.search.samplers.choice import describe
from components.search.study.objects import SPEC
from components.search.study.study import Study
from components.search.tables import best_so_far, overview, trials_csv
from components.search.trial import Ledger, Trial
from components.stores import open_store
from pipelines.paths import OutputFile, UserPath

SHOW_SECONDS = 60.0
"""How long a store is asked: somebody is waiting."""


@click.group("study")
def study_group() -> None:
    """Look at studies."""


@study_group.command("show")
@click.argument("study")
@click.option(
    "--study-root", default="", metavar="URI", help="Where the studies are; not needed if STUDY is a path or URI."
)
@click.option("--plots", type=UserPath(file_okay=False), help="Also draw the study, as PNG files in here.")
@click.option("--csv", "csv_path", type=OutputFile(), help="Also write the trials as CSV.")
@click.option("--json", "as_json", is_flag=True, help="Everything, for programs.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def show_command(
    study: str,
    study_root: str,
    plots: Path | None,
    csv_path: Path | None,
    as_json: bool,
    debug: bool,  # noqa: ARG001 - read by the edge
) -> None:
    """Show the trials of STUDY: a name under --study-root, a study's folder or URI, or a study.json file."""
    ledger = find_ledger(study, study_root)
    if csv_path is not None:
        csv_path.write_text(trials_csv(ledger), encoding="utf-8", newline="")
    if plots is not None:
        _draw(ledger, plots)
    if as_json:
        click.echo(json.dumps(overview(ledger), indent=1))
        return
    console = Console(soft_wrap=False)
    if not console.is_terminal:
        console = Console(width=200)
    console.print(*_head(ledger), sep="\n", markup=False, highlight=False)
    console.print(_table(ledger))


def _draw(ledger: Ledger, directory: Path) -> None:
    from components.search.plots import figures

    directory.mkdir(parents=True, exist_ok=True)
    for name, figure in figures(ledger).items():
        figure.savefig(directory / f"{name}.png", dpi=120)


def find_ledger(study: str, study_root: str = "") -> Ledger:
    """Return the study that a command line names.

    Args:
        study: Name under `study_root`; without that, the URI or path of a study's folder or of a ledger file.
        study_root: URI or path of the folder that holds studies; empty for none.

    Raises:
        ParameterError: A bare name without a root.
        DataError: There is no such study; the error lists those there are.
    """
    study = os.path.expanduser(study)  # noqa: PTH111 - it may be a URI
    if not study_root:
        if Path(study).is_file():
            return Ledger.load(study)
        study_root, _, study = study.rstrip("/").rpartition("/")
        if not study_root and Path(study).is_dir():
            study_root = "."
        if not study_root or study_root.endswith((":/", ":")) or not study:
            raise ParameterError(
                "STUDY must be a study's folder or URI, or a name together with --study-root; got a name alone."
                " Add --study-root"
            )
    root = open_store(study_root, deadline_seconds=SHOW_SECONDS)
    try:
        return Study.open(root, study).ledger()
    except DataError as error:
        there = sorted({key.rpartition("/")[0] for key in root.list() if key.rpartition("/")[2] == SPEC})
        if study in there:
            raise
        existing = f"there are {', '.join(there[:20])}" if there else "there is none"
        raise DataError(f"study {study!r} must exist under {root.uri}; {existing}. Name one of them") from error


def _head(ledger: Ledger) -> list[str]:
    spec, best = ledger.spec, ledger.best()
    states = [
        f"{n} {status}"
        for status in ("completed", "pruned", "diverged", "failed", "running", "waiting")
        if (n := ledger.count(status))
    ]
    lines = [
        f"study {ledger.name}: {spec.get('approach')} on {spec.get('dataset')}, {describe(spec)},"
        f" {'with' if spec.get('pruning') else 'without'} pruning",
        f"{len(ledger.trials)} of {spec.get('trials')} trials ({', '.join(states) or 'none yet'}),"
        f" {ledger.device_seconds:.1f} of {60 * float(spec.get('minutes', 0)):.0f} device-seconds",
    ]
    if ledger.reused:
        lines.append(f"{len(ledger.reused)} trials reused from earlier studies")
    if best is not None:
        since = next(p for p in best_so_far(ledger) if p.number == best.number)
        lines.append(f"best: {best.score:.4f}, trial {best.number}, after {since.device_seconds:.1f} device-seconds")
    return [_printable(line) for line in lines]


def _table(ledger: Ledger) -> Table:
    best, table = ledger.best(), Table(box=None, pad_edge=False)
    for column in ("trial", "status", "score", "best", "epochs", "device s"):
        table.add_column(column, justify="left" if column == "status" else "right", no_wrap=True)
    table.add_column("worker", no_wrap=True)
    table.add_column("hyperparameters", overflow="fold")
    so_far = {p.number: p.best for p in best_so_far(ledger)}
    for trial in ledger.trials:
        reached = so_far.get(trial.number)
        cells = (
            str(trial.number),
            trial.status,
            "" if trial.score is None else f"{trial.score:.4f}",
            "" if reached is None else f"{reached:.4f}",
            str(trial.epochs),
            f"{trial.device_seconds:.1f}",
            trial.worker,
            _describe(trial),
        )
        is_best = best is not None and trial.number == best.number
        table.add_row(*(Text(_printable(cell)) for cell in cells), style="bold" if is_best else None)
    return table


def _describe(trial: Trial) -> str:
    values = " ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in trial.hyperparameters.items()
    )
    notes = [note for note in (f"from {trial.reused_from}" if trial.reused_from else "", trial.error) if note]
    return f"{values} ({'; '.join(notes)})" if notes else values


def _printable(text: str) -> str:
    """Text from a store without control characters: it must not steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)
