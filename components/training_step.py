"""The training step turns a finished study into a model."""

from pathlib import Path
from typing import Any

from components.data.contract import TrainData
from components.errors import DataError, TryAgainError
from components.models.contract import ApproachModule
from components.parameters import TrainSettings
from components.runtime import gpu_is_required
from components.search.step import study_name
from components.search.study.study import Study
from components.stores import open_store
from components.training import train_final


def train_step(
    approach: ApproachModule,
    train_path: str,
    run: dict[str, Any],
    train: dict[str, Any],
    model_path: str,
) -> dict[str, Any]:
    """Train the winner of a finished study.

    Args:
        approach: `components.models.mlp.training` or `components.models.resnet18.training`.
        train_path: Directory of `train_data`.
        run: `study_root` and `study_prefix` as the plan fixed them.
        train: `TrainSettings` as a struct.
        model_path: Directory to write the model to.

    Returns:
        Headline scores for the model's metadata.

    Raises:
        TryAgainError: The workers left the study unfinished.
        DataError: No trial of the study is usable.
    """
    data = TrainData.load(train_path)
    study = Study.open(open_store(run["study_root"]), study_name(run, data.info.name, approach.APPROACH))
    if not study.is_finished():
        raise TryAgainError(
            f"study {study.name} must be finished before training; its workers were lost. Run again: it goes on where it stood"
        )
    check_study(study)
    described = train_final(
        approach,
        train_data=data,
        ledger=study.ledger(),
        settings=TrainSettings.from_dict(train),
        model_dir=Path(model_path),
        checkpoints=study.checkpoints,
        require_gpu=gpu_is_required(),
    )
    return {
        "dataset": data.info.name,
        "approach": approach.APPROACH,
        "validation_accuracy": described["validation_accuracy"],
        "device_seconds": described["device_seconds"],
        "parameters": described["parameters"],
    }


def check_study(study: Study) -> None:
    """Raise `DataError` if the study has no usable result: too many trials failed, or none has a score.

    The training decides from the study and not from its workers' exit codes.
    """
    ledger = study.ledger()
    errors = "; ".join(sorted({t.error for t in ledger.trials if t.error})[:3])
    remedy = f"Read the errors with `study show {study.name}`; the first are: {errors}"
    if study.is_stopped():
        fraction = study.spec["max_failed_fraction"]
        raise DataError(
            f"study {study.name} must have at most {fraction:.0%} failed trials; got {ledger.count('failed')} of"
            f" {study.spec['trials']}. {remedy}"
        )
    if ledger.best() is None:
        raise DataError(
            f"study {study.name} must have a trial with a score; got {ledger.count('diverged')} diverged and"
            f" {ledger.count('failed')} failed ones. {remedy}"
        )
