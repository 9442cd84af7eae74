"""`tune` searches and trains one approach on one dataset, without the other approach, the comparison and the graph."""

import functools
import json
import re
import shutil
import statistics
import tempfile
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
from components.search.study.objects import SPEC
from components.search.study.study import Study
from components.search.trial import Ledger
from components.stores import open_store
from pipelines.commands import DEBUG_OPTION
from pipelines.commands.options import PARAMETERS_OPTION, SET_OPTION
from pipelines.local.folder import only_user_of
from pipelines.paths import UserPath
from pipelines.presets import Asked, default_parameters

UNUSED = ("study_root", "search_workers", "promote_champion", "promote_min_gain")
"""Run parameters that say nothing here."""

SCRATCH = ".ingest-"
"""What the names of folders begin with in which data waits until the study is known to be of it."""


@click.command("tune")
@click.argument("approach", type=click.Choice(tuple(APPROACHES)))
@click.argument("dataset", metavar="NAME=SOURCE")
@click.option("--out", required=True, type=UserPath(file_okay=False), help="Folder for the results.")
@PARAMETERS_OPTION
@SET_OPTION
@click.option(
    "--study",
    "study_dir",
    type=UserPath(file_okay=False),
    help="Folder of a study, for example one on a subset: its best trial is trained, nothing is searched.",
)
@click.option(
    "--study-name",
    default="",
    help="Study to go on with or to start; a new one begins with what the folder's others found. Default: DATASET-APPROACH.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON on stdout.")
@DEBUG_OPTION
def tune_command(
    approach: str,
    dataset: str,
    out: Path,
    file: Path | None,
    settings: tuple[str, ...],
    study_dir: Path | None,
    study_name: str,
    as_json: bool,
) -> None:
    """Search one approach on one dataset, train its winner with every seed and score it on the held-out images.

    Uses all cores, or the GPU. Started again with the same --out, it goes on where it stood. A finished study gets more
    trials or epochs as a new one: give it a name of its own with --study-name.
    """
    out = out.resolve()
    if wrong := [s for s in settings if s.partition("=")[0] in UNUSED]:
        raise ParameterError(
            [f"--set {s.partition('=')[0]} has no meaning for one approach; leave it out" for s in wrong]
        )
    if study_name and not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,99}", study_name):
        raise ParameterError(f"--study-name must be lower-case letters, digits and hyphens; got {study_name!r}")
    defaults = default_parameters(str(out / "studies"))
    # A file may be that of a whole run: what says nothing here is left aside.
    fixed = {name: defaults[name] for name in UNUSED} | {"search_workers": 1}
    asked = Asked(file=file, datasets=(dataset,), settings=settings)
    checked = RunParameters.from_dict(asked.parameters(defaults) | fixed)
    check_source(*parse_dataset(dataset), secrets_are_here=True)
    set_up_logging()
    with only_user_of(out):
        evaluation = _tune(approach, dataset, checked, study_dir, study_name, out)
    if as_json:
        click.echo(json.dumps({"out": str(out), "evaluation": evaluation}, indent=1))
    else:
        _show(evaluation, out)


def _tune(
    approach: str, dataset: str, checked: RunParameters, study_dir: Path | None, study_name: str, out: Path
) -> dict[str, Any]:
    from components.data.contract import TrainData
    from components.data.ingest import ingest
    from components.evaluation.evaluate import evaluate
    from components.models.contract import load_approach
    from components.models.mlp.size import check_data
    from components.training import train_final

    module = load_approach(approach)
    for left in out.glob(f"{SCRATCH}*"):
        shutil.rmtree(left)  # of a start that was killed
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=out) as scratch:
        new = {name: Path(scratch, name) for name in ("train_data", "test_data", "ingest_report")}
        info = ingest(
            dataset,
            settings=checked.data,
            train_dir=new["train_data"],
            test_dir=new["test_data"],
            report_dir=new["ingest_report"],
        )
        if approach == "mlp":
            check_data(new["train_data"])
        if study_dir is None:
            _check_study(module, info, checked, out, study_name)
        for name, folder in new.items():
            if (out / name).exists():
                shutil.rmtree(out / name)
            folder.replace(out / name)
    test_dir, model_dir = out / "test_data", out / "model"
    train_data = TrainData.load(out / "train_data")
    ledger = _read(study_dir, approach) if study_dir else _searched(module, train_data, checked, out, study_name)
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


def _check_study(module: Any, info: Any, checked: RunParameters, out: Path, study_name: str) -> None:
    """Raise `ParameterError` where the folder's study is one of other data or another search, before anything changes."""
    from components.search.study.spec import StudySpec

    name = study_name or f"{info.name}-{module.APPROACH}"
    root = open_store(str(out / "studies"))
    if not (out / "studies" / name / SPEC).exists():
        return
    try:
        Study.create_or_open(root, name, StudySpec.of(module, info, checked.search))
    except ParameterError as error:
        raise ParameterError(
            f"{str(error).rstrip('.')}, which --study-name NAME does here: with search_warm_start it begins with what this"
            f" one found. Nothing in {out} was changed"
        ) from error


def _searched(module: Any, train_data: Any, checked: RunParameters, out: Path, study_name: str) -> Ledger:
    from components.search.worker.worker import run_worker

    return run_worker(
        study_root=str(out / "studies"),
        name=study_name or f"{train_data.info.name}-{module.APPROACH}",
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
