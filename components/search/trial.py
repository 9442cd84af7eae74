"""A trial and the ledger of a study are plain data that every later step reads."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired, Self, TypedDict

from components.errors import DataError
from components.models.space import Value
from components.search.shapes import misfit

STATUSES = ("waiting", "running", "completed", "pruned", "diverged", "failed")
FINISHED = ("completed", "pruned", "diverged", "failed")

_SEEDS = 2**30
"""Trials have seeds below it, replicates of the final training from it on: no replicate repeats a trial's training."""


def trial_seed(seed: int, number: int) -> int:
    """Return the seed that trial `number` of a study with this seed is trained with."""
    return (seed + number) % _SEEDS


def replicate_seed(seed: int, number: int) -> int:
    """Return the seed of replicate `number` of a run with this seed; no trial of any study has it."""
    return _SEEDS + (seed + number) % _SEEDS


class SpecRecord(TypedDict):
    """`spec.json`: what a study was asked to do; `components.search.study.spec.StudySpec` explains the fields.

    Attributes:
        schema: Version of the format.
        space_hash: Hash of `space`; empty where there is none.
    """

    schema: int
    approach: str
    dataset: str
    data_hash: str
    space: list[dict[str, Any]]
    space_hash: str
    algorithm: str
    trials: int
    minutes: float
    epochs: int
    pruning: bool
    warm_start: bool
    seed: int
    weights: str
    device: NotRequired[str]
    batch_size: NotRequired[int]
    max_failed_fraction: float


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One set of hyperparameters and the result of its training.

    Attributes:
        number: 0, 1, 2, ... without gaps.
        status: One of `STATUSES`.
        hyperparameters: Active values only.
        seed: Seed of the training.
        score: Validation accuracy of the best epoch (that rule and no other); None where there is none.
        scores: Validation accuracy after each epoch.
        epochs: Epochs run.
        device_seconds: Time the device was held by this trial, all attempts summed.
        wall_seconds: From claim to result.
        peak_memory_bytes: Highest memory of device (GPU) or process (CPU).
        worker: Who ran it.
        attempts: Claims made on it: the term of the accepted one.
        based_on: Numbers of the finished trials that the suggestion was made from.
        error: Why it failed or diverged; empty otherwise.
        reused_from: `<study>/<number>` of the earlier trial that a warm start took it from; empty otherwise.
        out_of_budget: True for a `pruned` trial that ended because the study's device-minutes were gone.
    """

    number: int
    status: str
    hyperparameters: dict[str, Value]
    seed: int = 0
    score: float | None = None
    scores: tuple[float, ...] = ()
    epochs: int = 0
    device_seconds: float = 0.0
    wall_seconds: float = 0.0
    peak_memory_bytes: int = 0
    worker: str = ""
    attempts: int = 1
    based_on: tuple[int, ...] = ()
    error: str = ""
    reused_from: str = ""
    out_of_budget: bool = False

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Return the trial that `dataclasses.asdict` gave, a nonce beside its fields left out; raise `ValueError` for anything else."""
        if problem := misfit(row, cls):
            raise ValueError(problem)
        fields = {f.name: row[f.name] for f in dataclasses.fields(cls) if f.name in row}
        return cls(**fields | {key: tuple(fields.get(key, ())) for key in ("scores", "based_on")})

    @property
    def is_finished(self) -> bool:
        """True once a result was accepted."""
        return self.status in FINISHED

    @property
    def accuracy(self) -> float:
        """The score of a trial for which `is_scored` is true."""
        if self.score is None:
            raise ValueError(f"trial {self.number} must have a score; it is {self.status}")
        return self.score

    @property
    def best_epoch(self) -> int | None:
        """Number (from 1) of the first epoch with the highest score; None before the first epoch."""
        return self.scores.index(max(self.scores)) + 1 if self.scores else None


def is_scored(trial: Trial) -> bool:
    """Return whether the trial has a score that may be compared."""
    return trial.status in ("completed", "pruned") and trial.score is not None and math.isfinite(trial.score)


def best_trial(trials: Iterable[Trial]) -> Trial | None:
    """Return the completed or pruned trial with the highest score, the lowest number on a tie; None without one."""
    return max(filter(is_scored, trials), key=lambda t: (t.accuracy, -t.number), default=None)


class _LedgerFile(TypedDict):
    """A ledger as `Ledger.save` writes it."""

    name: str
    spec: dict[str, Any]
    trials: list[dict[str, Any]]
    reused: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """A study as a file: what it was asked to do and every trial.

    Attributes:
        name: The study's name under the study root.
        spec: Content of `spec.json`: `approach`, `dataset`, `data_hash`, `space`, `algorithm`, budgets, ...
        trials: By number.
        reused: Trials of earlier studies that a warm start gave the sampler; they are not part of this study's budget.
    """

    name: str
    spec: SpecRecord
    trials: tuple[Trial, ...]
    reused: tuple[Trial, ...] = field(default=())

    def best(self) -> Trial | None:
        """Return the study's best trial; see `best_trial`."""
        return best_trial(self.trials)

    def count(self, status: str) -> int:
        """Return how many trials have the status."""
        return sum(t.status == status for t in self.trials)

    @property
    def device_seconds(self) -> float:
        """Device time of all trials together."""
        return sum(t.device_seconds for t in self.trials)

    def save(self, path: Path | str) -> None:
        """Write the ledger as JSON."""
        Path(path).write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a ledger; raise `DataError` where the file is not one."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            if problem := misfit(values, _LedgerFile):
                raise ValueError(problem)
            rows = {key: tuple(Trial.from_json(row) for row in values[key]) for key in ("trials", "reused")}
            return cls(name=values["name"], spec=values["spec"], **rows)
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} must be a study ledger; got {error}") from error
