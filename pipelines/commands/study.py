"""`study show`: the trials of a study, local or in a bucket, finished or not."""

import json
import os
from contextlib import suppress
from pathlib import Path

import click
from rich.console import Console

from components.errors import ConfigurationError, DataError, FashionTuningError, ParameterError, using
from components.search.study.objects import SPEC
from components.search.study.study import Study
from components.search.tables import overview, trials_csv
from components.search.trial import Ledger
from components.stores import Store, open_store
from pipelines.commands import DEBUG_OPTION
from pipelines.local.study_view import head, trials_table
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
@DEBUG_OPTION
def show_command(
    study: str,
    study_root: str,
    plots: Path | None,
    csv_path: Path | None,
    as_json: bool,
) -> None:
    """Show the trials of STUDY: a name under --study-root, a study's folder or URI, or a study.json file."""
    ledger = find_ledger(study, study_root)
    if csv_path is not None:
        with using(csv_path):
            csv_path.write_text(trials_csv(ledger), encoding="utf-8", newline="")
    if plots is not None:
        _draw(ledger, plots)
    if as_json:
        click.echo(json.dumps(overview(ledger), indent=1))
        return
    console = Console(soft_wrap=False)
    if not console.file.isatty():
        console = Console(width=200)
    console.print(*head(ledger), sep="\n", markup=False, highlight=False)
    console.print(trials_table(ledger))


@study_group.command("watch")
@click.argument("study")
@click.option(
    "--study-root", default="", metavar="URI", help="Where the studies are; not needed if STUDY is a path or URI."
)
@click.option("--every", type=click.FloatRange(min=0.2), metavar="SECONDS", help="Pause between two looks.")
@click.option("--once", is_flag=True, help="Look once.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each look, for programs.")
@DEBUG_OPTION
def watch_command(
    study: str,
    study_root: str,
    every: float | None,
    once: bool,
    as_json: bool,
) -> None:
    """Watch STUDY, named as for `show`, until it is finished: trials, who works on what, the best so far, time left.

    On a terminal a table lives until the study ends or you press Ctrl-C; elsewhere there is one line for each change.
    Watching only reads: no worker notices it.
    """
    from pipelines.local.watching import watch

    with suppress(KeyboardInterrupt):
        watch(find_study(study, study_root), once=once, as_json=as_json, every_seconds=every)


@study_group.command("export")
@click.argument("study")
@click.option(
    "--study-root", default="", metavar="URI", help="Where the studies are; not needed if STUDY is a path or URI."
)
@click.option("--optuna", type=OutputFile(), metavar="FILE", help="Journal of Optuna, for optuna-dashboard.")
@click.option("--mlflow", metavar="URI", help="Tracking server of MLflow.")
@click.option("--tensorboard", type=UserPath(file_okay=False), metavar="DIR", help="Log directory of TensorBoard.")
@DEBUG_OPTION
def export_command(
    study: str,
    study_root: str,
    optuna: Path | None,
    mlflow: str | None,
    tensorboard: Path | None,
) -> None:
    """Hand STUDY, named as for `show`, over to tools that people know. Exported again, it is renewed there."""
    if not (optuna or mlflow or tensorboard):
        raise ParameterError("study export needs a target; got none. Add --optuna, --mlflow or --tensorboard")
    ledger = find_ledger(study, study_root)
    try:
        if optuna:
            from pipelines.exports.optuna import export_optuna

            export_optuna(ledger, optuna)
            click.echo(f"{optuna}; see it with: optuna-dashboard {optuna}")
        if tensorboard:
            from pipelines.exports.tensorboard import export_tensorboard

            export_tensorboard(ledger, tensorboard)
            # HParams shows the space of one study, so each has a log directory of its own.
            click.echo(f"{tensorboard / ledger.name}; see it with: tensorboard --logdir {tensorboard / ledger.name}")
        if mlflow:
            from pipelines.exports.mlflow import export_mlflow

            click.echo(f"run {export_mlflow(ledger, mlflow)} of experiment fashion-tuning on the MLflow server")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"this export needs the package {error.name}; got none. Install the extra: pip install 'fashion-tuning[exports]'"
        ) from None


def _draw(ledger: Ledger, directory: Path) -> None:
    from components.search.plots import drawings

    with using(directory):
        directory.mkdir(parents=True, exist_ok=True)
        for name, figure in drawings(ledger).items():
            figure.savefig(directory / f"{name}.png", dpi=120)


def find_ledger(study: str, study_root: str = "") -> Ledger:
    """Return the trials of the study that a command line names; see `find_study`."""
    named = find_study(study, study_root)
    return named if isinstance(named, Ledger) else named.ledger()


def find_study(study: str, study_root: str = "") -> Study | Ledger:
    """Return the study that a command line names, or the ledger of one that was saved to a file.

    Args:
        study: Name under `study_root`; without that, the URI or path of a study's folder or of a ledger file.
        study_root: URI or path of the folder that holds studies; empty for none.

    Raises:
        ParameterError: A bare name without a root.
        DataError: There is no such study; the error lists those there are.
    """
    study, study_root = (os.path.expanduser(text) for text in (study, study_root))  # noqa: PTH111 - URIs, too
    if not study_root:
        if Path(study).is_file():
            return Ledger.load(study)
        if study and Path(study).is_dir():
            study = str(Path(study).resolve())
        study_root, _, study = study.rstrip("/").rpartition("/")
        if not study_root or study_root.endswith((":/", ":")) or not study:
            raise ParameterError(
                "STUDY must be a study's folder or URI, or a name together with --study-root; got a name alone."
                " Add --study-root"
            )
    root = open_store(study_root, deadline_seconds=SHOW_SECONDS)
    try:
        return Study.open(root, study)
    except DataError as error:
        there = _studies(root, study_root)
        if study in there:
            raise
        existing = f"there are {', '.join(there[:20])}" if there else "there is none"
        raise DataError(f"study {study!r} must exist under {root.uri}; {existing}. Name one of them") from error


def _studies(root: Store, study_root: str) -> list[str]:
    """Return the names of the studies under a root: the hint for who mistyped one, which must not take long or fail."""
    if "://" not in study_root:
        return sorted(spec.parent.name for spec in Path(study_root).glob(f"*/{SPEC}"))
    with suppress(FashionTuningError):
        return sorted({key.rpartition("/")[0] for key in root.list() if key.rpartition("/")[2] == SPEC})
    return []
