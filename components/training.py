"""The final training trains the study's best configuration once per seed and exports it as ONNX.

The module imports neither TensorFlow nor torch.

Rule: a replicate trains for the schedule the study compared trials on (`search_epochs`) and keeps the epoch with the
best validation accuracy, as a trial does. Validation examples do not join the training: without them neither the best
epoch nor the best replicate could be told.

The space's default configuration is trained as well, once, with a seed of its own: in about a tenth of searches it tests
better than what the search chose, and the report says which (arXiv 2506.19540).
"""

import dataclasses
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.approaches import APPROACHES
from components.data.contract import TrainData
from components.errors import (
    DataError,
    FashionTuningError,
    PermissionDeniedError,
    StorageError,
    UnavailableError,
    using,
)
from components.models.contract import DEFAULT_FILE, ApproachModule, FitResult, State, Trainer, TrialDivergedError
from components.models.facts import model_facts, write_metadata
from components.models.faults import device_faults_end, is_out_of_memory, make_trainer
from components.models.hardware import PARITY_TOLERANCE
from components.models.space import Space, Value
from components.parameters import TrainSettings
from components.runtime import announce_progress
from components.search.study.checkpoints import Checkpoints
from components.search.study.objects import REPLICATES
from components.search.tables import trials_csv
from components.search.trial import Ledger, Trial, replicate_seed

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 60.0
"""Shortest time between two checkpoints of a replicate; the finished one is always saved."""

PROGRESS_SECONDS = 30.0
"""Shortest time between two words about the epochs of a replicate."""

MakeCheckpoints = Callable[..., Checkpoints]
"""`Study.checkpoints`: (part, binding=...) -> Checkpoints."""


@dataclass(frozen=True, kw_only=True)
class Replicate:
    """One seed of the final training.

    Attributes:
        seed: Seed of the training.
        result: What the trainer gave.
        device_seconds: Earlier attempts included.
    """

    seed: int
    result: FitResult
    device_seconds: float

    @property
    def validation_accuracy(self) -> float:
        """Validation accuracy of the best epoch."""
        return max(self.result.scores)


def train_final(
    approach: ApproachModule,
    *,
    train_data: TrainData,
    ledger: Ledger,
    settings: TrainSettings,
    model_dir: Path,
    checkpoints: MakeCheckpoints | None = None,
    require_gpu: bool = False,
) -> dict[str, Any]:
    """Train the study's best configuration with several seeds and write the model directory.

    Args:
        approach: `components.models.mlp.training` or `components.models.resnet18.training`.
        train_data: Training and validation examples.
        ledger: The finished study.
        settings: Number of replicates, epochs, first seed, ImageNet weights.
        model_dir: Gets `model.onnx`, `replicates/<seed>.onnx`, `default.onnx`, native weights, `model.json`, `study.json`,
            `trials.csv`.
        checkpoints: Makes the store of a replicate's checkpoints; None keeps none.
        require_gpu: Whether a missing GPU is an error.

    Returns:
        The content of `model.json`.

    Raises:
        DataError: No trial of the study, or no replicate, is usable.
        ConfigurationError: GPU or weights are missing.
        TryAgainError: The device or the process failed; finished replicates are kept in their checkpoints.
    """
    best = ledger.best()
    if best is None:
        raise DataError(
            f"study {ledger.name} must hold a trial with a score; got {ledger.count('diverged')} diverged and "
            f"{ledger.count('failed')} failed ones. Read their errors in `study show {ledger.name}`"
        )
    log.info("trial %d is best: validation accuracy %.4f with %s", best.number, best.score, best.hyperparameters)
    trainer = make_trainer(approach, train_data, require_gpu=require_gpu, weights_uri=_weights_uri(approach, settings))
    with device_faults_end("final training"):
        replicates = _train_replicates(trainer, best, train_data, settings, checkpoints)
        winner = max(replicates, key=lambda r: (r.validation_accuracy, -r.seed))
        facts = model_facts(approach, train_data, best.hyperparameters)
        differences = _export(approach, trainer, facts, replicates, winner, model_dir)
        default = _train_default(approach, trainer, train_data, ledger, best, settings, model_dir, checkpoints)
    described = facts | _describe(approach, trainer, ledger, best, settings, replicates, winner, differences)
    if default is not None:
        described["default"] = default
        described["device_seconds"] += default.get("device_seconds", 0.0)
    described["model_bytes"] = (model_dir / "model.onnx").stat().st_size
    with using(model_dir):
        ledger.save(model_dir / "study.json")
        (model_dir / "trials.csv").write_text(trials_csv(ledger), encoding="utf-8")
        (model_dir / "model.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    return described


def _weights_uri(approach: ApproachModule, settings: TrainSettings) -> str:
    return settings.weights if APPROACHES[approach.APPROACH].pretrained else ""


def _train_replicates(
    trainer: Trainer, best: Trial, data: TrainData, settings: TrainSettings, checkpoints: MakeCheckpoints | None
) -> list[Replicate]:
    replicates, lost = [], []
    for number in range(settings.replicates):
        seed, label = replicate_seed(settings.seed, number), f"replicate {number + 1} of {settings.replicates}"
        saved = _checkpoints(checkpoints, str(seed), best.hyperparameters, seed, data, settings)
        try:
            replicates.append(_train_replicate(trainer, best, settings.epochs, seed, saved, label))
        except Exception as error:
            if not _is_own_fault(error):
                raise
            log.warning("replicate %d is lost: %s", seed, error)
            lost.append(f"seed {seed}: {error}")
    if not replicates:
        raise DataError(
            f"final training must give a model; got none from {settings.replicates} replicates of trial {best.number} "
            f"({'; '.join(lost)}). Search again with another seed or space"
        )
    return replicates


def _is_own_fault(error: Exception) -> bool:
    """Return whether the training itself is at fault for its failure, and not its device."""
    return isinstance(error, TrialDivergedError) or is_out_of_memory(error)


def _checkpoints(
    make: MakeCheckpoints | None,
    part: str,
    hyperparameters: dict[str, Value],
    seed: int,
    data: TrainData,
    settings: TrainSettings,
) -> Checkpoints | None:
    if make is None:
        return None
    binding = {
        "hyperparameters": hyperparameters,
        "seed": seed,
        "epochs": settings.epochs,
        "weights": settings.weights,
        "data_hash": data.info.content_hash,
    }
    return make(f"{REPLICATES}/{part}", binding=binding)


def _train_default(
    approach: ApproachModule,
    trainer: Trainer,
    data: TrainData,
    ledger: Ledger,
    best: Trial,
    settings: TrainSettings,
    model_dir: Path,
    checkpoints: MakeCheckpoints | None,
) -> dict[str, Any] | None:
    """Train and export the space's default configuration unless it won.

    Returns:
        `hyperparameters` and `is_winner`; where it did not win `seed`, and either `validation_accuracy` and `device_seconds`
        or the `error` that it failed with. None for a study that does not say what its space was.
    """
    target = model_dir / DEFAULT_FILE
    target.unlink(missing_ok=True)
    if "space" not in ledger.spec:
        return None
    space = Space.from_json(ledger.spec["space"])
    hyperparameters = space.defaults
    described = {"hyperparameters": hyperparameters, "is_winner": best.hyperparameters == hyperparameters}
    if described["is_winner"]:
        return described
    seed = replicate_seed(settings.seed, settings.replicates)
    described["seed"] = seed
    saved = _checkpoints(checkpoints, "default", hyperparameters, seed, data, settings)
    log.info("the default configuration is trained for comparison: %s", hyperparameters)
    try:
        default = dataclasses.replace(best, hyperparameters=hyperparameters)
        trained = _train_replicate(trainer, default, settings.epochs, seed, saved, "the default configuration")
    except Exception as error:
        if not _is_own_fault(error):
            raise
        log.warning("the default configuration has no model: %s", error)
        return {**described, "error": str(error)}
    with tempfile.TemporaryDirectory() as scratch:
        facts = model_facts(approach, data, hyperparameters)
        _export_one(trainer, trained, facts, target, Path(scratch) / approach.NATIVE_FILE)
    return {
        **described,
        "validation_accuracy": trained.validation_accuracy,
        "device_seconds": trained.device_seconds,
    }


def _train_replicate(
    trainer: Trainer, best: Trial, epochs: int, seed: int, saved: Checkpoints | None, label: str
) -> Replicate:
    """Train one seed, from its newest checkpoint on."""
    checkpoint = saved.latest() if saved is not None else None
    resume, earlier = None, 0.0
    if checkpoint is not None:
        step, resume, meta = checkpoint
        earlier = float(meta["device_seconds"])
        log.info("%s goes on after epoch %d", label, step)
    started = saved_at = told_at = time.monotonic()

    def keep(epoch: int, score: float, state: Callable[[], State]) -> bool:
        nonlocal saved_at, told_at
        now = time.monotonic()
        if now - told_at >= PROGRESS_SECONDS:
            announce_progress(f"{label}: epoch {epoch} of {epochs}, {score:.4f}")
            told_at = now
        if saved is not None and (epoch == epochs or now - saved_at >= CHECKPOINT_SECONDS):
            try:
                saved.save(epoch, state(), {"device_seconds": earlier + now - started})
            except (StorageError, UnavailableError, PermissionDeniedError) as error:
                log.warning("%s: checkpoint of epoch %d is skipped: %s", label, epoch, error)
            saved_at = now
        return True

    result = trainer.fit(best.hyperparameters, epochs=epochs, seed=seed, on_epoch=keep, resume=resume)
    announce_progress(f"{label}: done, validation accuracy {max(result.scores):.4f}")
    return Replicate(seed=seed, result=result, device_seconds=earlier + result.device_seconds)


def _export(
    approach: ApproachModule,
    trainer: Trainer,
    facts: dict[str, Any],
    replicates: list[Replicate],
    winner: Replicate,
    model_dir: Path,
) -> dict[int, float]:
    """Write every replicate's ONNX and the winner's native weights; return the parity difference by seed."""
    folder = model_dir / "replicates"
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.onnx"):
        stale.unlink()
    differences = {}
    with tempfile.TemporaryDirectory() as scratch:
        for replicate in replicates:
            native = Path(scratch) / approach.NATIVE_FILE
            target = folder / f"{replicate.seed}.onnx"
            differences[replicate.seed] = _export_one(trainer, replicate, facts, target, native)
            if replicate is winner:
                shutil.copyfile(native, model_dir / approach.NATIVE_FILE)
                shutil.copyfile(target, model_dir / "model.onnx")
    return differences


def _export_one(trainer: Trainer, replicate: Replicate, facts: dict[str, Any], target: Path, native: Path) -> float:
    difference = trainer.export(replicate.result, facts["hyperparameters"], str(target), str(native))
    # Written so that NaN does not pass.
    if not difference <= PARITY_TOLERANCE:
        raise FashionTuningError(
            f"probabilities of {target.name} must differ by at most {PARITY_TOLERANCE:g} from the native model's; "
            f"got {difference:g}"
        )
    write_metadata(target, {**facts, "seed": replicate.seed})
    return difference


def _describe(
    approach: ApproachModule,
    trainer: Trainer,
    ledger: Ledger,
    best: Trial,
    settings: TrainSettings,
    replicates: list[Replicate],
    winner: Replicate,
    differences: dict[int, float],
) -> dict[str, Any]:
    return {
        "study": ledger.name,
        "trial": best.number,
        "trial_score": best.score,
        "pretrained_weights": _weights_uri(approach, settings),
        "epochs": settings.epochs,
        "seeds": [r.seed for r in replicates],
        "best_seed": winner.seed,
        "validation_accuracy": winner.validation_accuracy,
        "replicates": [
            {
                "seed": r.seed,
                "validation_accuracy": r.validation_accuracy,
                "best_epoch": r.result.scores.index(max(r.result.scores)) + 1,
                "scores": list(r.result.scores),
                "device_seconds": r.device_seconds,
                "peak_memory_bytes": r.result.peak_memory_bytes,
                "onnx_difference": differences[r.seed],
            }
            for r in replicates
        ],
        "parameters": winner.result.num_parameters,
        "device": trainer.device_name,
        "device_seconds": sum(r.device_seconds for r in replicates),
    }
