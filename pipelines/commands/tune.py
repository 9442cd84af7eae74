"""`tune`: one approach on one dataset, without the other approach, the comparison and the graph."""

import functools
import statistics
from pathlib import Path
from typing import Any

import click

from components.approaches import APPROACHES
from components.data.sources.presence import check_source
from components.dataset_name import parse_dataset
from components.errors import ParameterError
from components.parameters import RunParameters
from components.runtime import set_up_logging
from components.search.study.checkpoints import Checkpoints
from components.search.study.study import Study
from components.search.trial import Ledger
from components.stores import open_store
from pipelines.paths import UserPath
from pipelines.presets import default_parameters, run_parameters

UNUSED = ("study_root", "search_workers", "promote_champion", "promote_min_gain")
"""Run parameters that say nothing here."""


@click.command("tune")
@click.argument("approach", type=click.Choice(tuple(APPROACHES)))
@click.argument("dataset", metavar="NAME=SOURCE")
@click.option("--out", required=True, type=UserPath(file_okay=False), help="Folder for the results.")
@click.option("--set", "settings", multiple=True, metavar="PARAM=VALUE", help="A run parameter; may be repeated.")
@click.option(
    "--study",
    "study_dir",
    type=UserPath(file_okay=False),
    help="Folder of a study, for example one on a subset: its best trial is trained, nothing is searched.",
)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def tune_command(
    approach: str,
    dataset: str,
    out: Path,
    settings: tuple[str, ...],
    study_dir: Path | None,
    debug: bool,  # noqa: ARG001 - read by the edge
) -> None:
    """Search one approach on one dataset, train its winner with every seed and score it on the held-out images.

    Uses all cores, or the GPU. Started again with the same --out, it goes on where it stood.
    """
    out = out.resolve()
    if wrong := [s for s in settings if s.partition("=")[0] in UNUSED]:
        raise ParameterError(
            [f"--set {s.partition('=')[0]} has no meaning for one approach; leave it out" for s in wrong]
        )
    defaults = default_parameters(str(out / "studies"))
    checked = RunParameters.from_dict(
        run_parameters(defaults, "full", settings, (dataset,))
        | {"search_workers": 1, "study_root": str(out / "studies")}
    )
    check_source(*parse_dataset(dataset), secrets_are_here=True)
    set_up_logging()
    evaluation = _tune(approach, dataset, checked, study_dir, out)
    _show(evaluation, out)


def _tune(approach: str, dataset: str, checked: RunParameters, study_dir: Path | None, out: Path) -> dict[str, Any]:
    from components.data.contract import TrainData
    from components.data.ingest import ingest
    from components.evaluation.evaluate import evaluate
    from components.training import train_final

    train_dir, test_dir, model_dir = out / "train_data", out / "test_data", out / "model"
    ingest(dataset, settings=checked.data, train_dir=train_dir, test_dir=test_dir, report_dir=out / "ingest_report")
    train_data = TrainData.load(train_dir)
    module = APPROACHES[approach].load()
    ledger = _searched(module, train_data, checked, out) if study_dir is None else _read(study_dir, approach)
    model_dir.mkdir(exist_ok=True)
    train_final(
        module,
        train_data=train_data,
        ledger=ledger,
        settings=checked.train,
        model_dir=model_dir,
        checkpoints=functools.partial(_checkpoints, out),
    )
    return evaluate(model_dir, test_dir, out / "evaluation").record


def _searched(module: Any, train_data: Any, checked: RunParameters, out: Path) -> Ledger:
    from components.search.worker.worker import run_worker

    name = f"{train_data.info.name}-{module.APPROACH}"
    return run_worker(
        study_root=str(out / "studies"),
        name=name,
        approach=module,
        train_data=train_data,
        settings=checked.search,
        worker="worker-0",
    )


def _read(study_dir: Path, approach: str) -> Ledger:
    ledger = Study.open(open_store(str(study_dir.resolve().parent)), study_dir.name).ledger()
    if ledger.spec["approach"] != approach:
        raise ParameterError(
            f"--study must be a study of {approach}; got one of {ledger.spec['approach']}: {study_dir}"
        )
    return ledger


def _checkpoints(out: Path, part: str, *, binding: dict[str, Any]) -> Checkpoints:
    return Checkpoints(open_store(str(out)) / part, binding=binding)


def _show(record: dict[str, Any], out: Path) -> None:
    """Print what each seed reached on the held-out images."""
    replicates = record["replicates"]
    trained = {t["seed"]: t for t in record["model"]["replicates"]}
    for replicate in replicates:
        details = trained[replicate["seed"]]
        click.echo(
            f"seed {replicate['seed']}: test accuracy {replicate['accuracy']:.4f}, macro F1 {replicate['macro_f1']:.4f}; "
            f"validation accuracy {details['validation_accuracy']:.4f} in epoch {details['best_epoch']}, "
            f"{details['device_seconds']:.0f} s"
        )
    mean = statistics.fmean(r["accuracy"] for r in replicates)
    macro_f1 = statistics.fmean(r["macro_f1"] for r in replicates)
    click.echo(f"mean of {len(replicates)}: test accuracy {mean:.4f}, macro F1 {macro_f1:.4f}; {out / 'evaluation'}")
