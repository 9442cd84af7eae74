"""What the two approaches have in common: the calls a search and a final training make, and the model directory.

Imports neither TensorFlow nor torch. `models/mlp/training.py` and `models/resnet18/training.py` have the names of
`ApproachModule`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

import numpy as np

from components.approaches import APPROACHES
from components.data.contract import TrainData
from components.models.space import Space, Value

DEFAULT_FILE = "default.onnx"
"""In the model directory: the space's default configuration, for the report; absent where it won or has no model."""

State = dict[str, np.ndarray]
"""Everything needed to go on after an epoch (weights, best weights, optimizer, schedule, random state), as named arrays."""

OnEpoch = Callable[[int, float, Callable[[], State]], bool]
"""Called after each epoch with (epoch from 1, validation accuracy, function that gives the state); False stops the trial."""


class TrialDivergedError(Exception):
    """Loss or score became NaN or infinite; carries the scores up to there."""

    def __init__(self, message: str, scores: tuple[float, ...] = ()) -> None:
        super().__init__(message)
        self.scores = scores


class TrialOutOfMemoryError(Exception):
    """The device ran out of memory; the trainer has freed what it held and stays usable."""


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """One finished or stopped training.

    Attributes:
        scores: Validation accuracy after each epoch, earlier attempts included.
        device_seconds: Time the device was held in this call.
        peak_memory_bytes: Highest memory of the device (GPU) or the process (CPU).
        num_parameters: Trainable parameters.
        weights: The best epoch's weights by name, in the framework's native layout.
    """

    scores: tuple[float, ...]
    device_seconds: float
    peak_memory_bytes: int
    num_parameters: int
    weights: dict[str, np.ndarray]


class Trainer(Protocol):
    """Holds one dataset on the device and trains any number of hyperparameter sets on it, one after another."""

    @property
    def device_name(self) -> str:
        """Name of the GPU, or `cpu`."""

    def fit(
        self,
        hyperparameters: dict[str, Value],
        *,
        epochs: int,
        seed: int,
        on_epoch: OnEpoch | None = None,
        resume: State | None = None,
        keep_weights: bool = True,
    ) -> FitResult:
        """Train for `epochs` and keep the best epoch by validation accuracy.

        Args:
            hyperparameters: Active values of one of the approach's `SPACES`; what the space leaves out comes from `RECIPE`.
            epochs: Length of the schedule; on resuming, that of the whole training.
            seed: Seed of initial weights, batches, augmentation and dropout.
            on_epoch: Called after each epoch; see `OnEpoch`.
            resume: State of an earlier attempt of the same training.
            keep_weights: Whether the result carries the best epoch's weights.

        Raises:
            TrialDivergedError: The loss became NaN or infinite; only this trial is lost.
            TrialOutOfMemoryError: The device ran out of memory; only this trial is lost.
        """

    def export(self, result: FitResult, hyperparameters: dict[str, Value], onnx_path: str, native_path: str) -> float:
        """Write ONNX and native weights; return the largest absolute difference of probabilities between the two."""


_Trainer = Trainer


class ApproachModule(Protocol):
    """What the module of an approach has.

    Attributes:
        APPROACH: Its name in `components.approaches`.
        NATIVE_FILE: Name of the file with the native weights.
        PACKAGES: What `model.json` records the versions of.
        SPACES: Search space by name.
        RECIPE: What a space leaves out.
        LARGEST_BATCH: Batch size of the described space; `components.models.sampling.batch_size_for` makes it smaller for few
            examples.
    """

    APPROACH: str
    NATIVE_FILE: str
    PACKAGES: tuple[str, ...]
    SPACES: dict[str, Space]
    RECIPE: dict[str, Value]
    LARGEST_BATCH: int

    def has_gpu(self) -> bool:
        """Return whether a trainer of this process would use a GPU."""

    def Trainer(self, train_data: TrainData, *, require_gpu: bool = False, weights_uri: str = "") -> _Trainer:  # noqa: N802
        """Return a trainer with the data on its device."""


def load_approach(name: str) -> ApproachModule:
    """Import the module of an approach, and with it its framework.

    Args:
        name: One of `components.approaches.APPROACHES`.
    """
    return cast(ApproachModule, import_module(APPROACHES[name].module))
