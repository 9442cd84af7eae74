"""The spec says what a study is asked to do; it is fixed when the study is created."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, cast

from components.approaches import APPROACHES
from components.data.contract import DatasetInfo
from components.errors import ParameterError
from components.models.contract import ApproachModule
from components.models.sampling import batch_size_for
from components.models.space import Space
from components.parameters import SearchSettings
from components.search.trial import SpecRecord

MAX_FAILED_FRACTION = 0.3
"""A study with more failed trials than this share of its budget, and more than one, stops."""

SCHEMA = 2
"""Schema 1 had neither `device` nor `batch_size`, and its `bayesian` was what `noisy-bayesian` is now."""


@dataclass(frozen=True, kw_only=True)
class StudySpec:
    """What a study was asked to do; fixed when it is created.

    Attributes:
        approach: `mlp` or `resnet18`.
        dataset: Name of the dataset.
        data_hash: Content hash of `train_data`.
        space: Parameters as `Space.to_json` gives them.
        algorithm: How trials are suggested.
        trials: Most trials.
        minutes: Device-minutes, summed over trials and workers, after which running trials end with their epoch.
        epochs: Most epochs of a trial.
        pruning: Whether weak trials are stopped early.
        warm_start: Whether earlier studies are reused.
        seed: Seed of the sampler, and what the trials' seeds are made of (`components.search.trial.trial_seed`).
        weights: URI of the weights that trials start from; empty where they start from scratch.
        device: `gpu` or `cpu`.
        batch_size: Examples a step where the space does not tune it.
        max_failed_fraction: See `MAX_FAILED_FRACTION`.
    """

    approach: str
    dataset: str
    data_hash: str
    space: list[dict[str, Any]] = field(default_factory=list)
    algorithm: str
    trials: int
    minutes: float
    epochs: int
    pruning: bool = True
    warm_start: bool = False
    seed: int = 0
    weights: str = ""
    device: str = "cpu"
    batch_size: int = 0
    max_failed_fraction: float = MAX_FAILED_FRACTION

    @classmethod
    def of(
        cls, approach: ApproachModule, info: DatasetInfo, settings: SearchSettings, *, require_gpu: bool = False
    ) -> Self:
        """Return the spec of an approach's study on a dataset.

        Where a GPU is required, the study counts as one on a GPU, even if this process has none.
        """
        return cls(
            approach=approach.APPROACH,
            dataset=info.name,
            data_hash=info.content_hash,
            space=approach.SPACES[settings.space].to_json(),
            **asked_of(approach.APPROACH, settings),
            device="gpu" if require_gpu or approach.has_gpu() else "cpu",
            batch_size=batch_size_for(info.counts["train"], approach.LARGEST_BATCH),
        )

    def to_json(self) -> SpecRecord:
        """Return the content of `spec.json`."""
        space = json.loads(json.dumps(self.space))
        space_hash = Space.from_json(space).content_hash if space else ""
        values = {"schema": SCHEMA, **dataclasses.asdict(self), "space": space, "space_hash": space_hash}
        return cast(SpecRecord, values)


def asked_of(approach: str, settings: SearchSettings) -> dict[str, Any]:
    """Return what the settings alone say of an approach's study: its spec without data, space and device."""
    return {
        "algorithm": settings.algorithm(approach),
        "trials": settings.trials,
        "minutes": settings.minutes,
        "epochs": settings.epochs,
        "pruning": settings.pruning,
        "warm_start": settings.warm_start,
        "seed": settings.seed,
        "weights": settings.weights if APPROACHES[approach].pretrained else "",
    }


def meaning(spec: SpecRecord) -> tuple[Any, ...]:
    """Return what scores depend on beside the hyperparameters: two studies' scores may be compared where it is equal."""
    return (
        spec.get("data_hash"),
        spec.get("space_hash"),
        spec.get("epochs"),
        spec.get("weights"),
        spec.get("device"),
        spec.get("batch_size"),
    )


def refuse_another(
    study: str,
    wanted: Mapping[str, Any],
    actual: Mapping[str, Any],
    remedy: str = "start a new study under the same study root",
) -> None:
    """Raise `ParameterError` where a study was asked for something else than it was created with; it says what.

    Args:
        study: Name for the message.
        wanted: What `StudySpec.to_json` gives.
        actual: Content of the study's `spec.json`.
        remedy: What else to do than to restore what it was asked for.
    """
    if actual["schema"] != SCHEMA:
        raise ParameterError(
            f"{study} must have schema {SCHEMA} to go on; got {actual['schema']}, from a version that did not record device and"
            " batch size. Start a new study: it begins with the best trials of this one"
        )
    differing = [key for key in sorted({*wanted, *actual}) if wanted.get(key) != actual.get(key)]
    if differing:
        changes = (f"{key} was {_short(actual.get(key))} and is {_short(wanted.get(key))}" for key in differing)
        raise ParameterError(
            f"{study} must be continued with what it was created with; {', '.join(changes)}. Restore that, or {remedy}"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
