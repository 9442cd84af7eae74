"""The epoch loop of every approach: resume, train an epoch, check the loss, score, keep the best, report, stop.

Imports no framework. What an epoch is, the approach says with the verbs of `Training`.
"""

import abc
import logging
import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np

from components.models.contract import FitResult, OnEpoch, State, TrialDivergedError, TrialOutOfMemoryError
from components.models.faults import first_line, is_out_of_memory
from components.models.hardware import Stopwatch
from components.models.space import Value

log = logging.getLogger(__name__)


class Training(Protocol):
    """One hyperparameter set being trained."""

    def restore(self, state: State) -> None:
        """Take over weights, best weights and optimizer from what `state` returned."""

    def train_epoch(self, epoch: int) -> float:
        """Train the epoch (from 1) and return its mean loss."""

    def averaged(self) -> AbstractContextManager[None]:
        """Give the network the mean of its weights over the last epoch, for as long as the context lasts."""

    def accuracy(self) -> float:
        """Return the validation accuracy of the network as it is now; 0 where there are no validation examples."""

    def keep(self) -> None:
        """Keep a copy of the network's weights as the best ones so far."""

    def state(self) -> State:
        """Return everything needed to go on after this epoch, without the scores."""

    def best_weights(self) -> dict[str, np.ndarray]:
        """Return what `keep` kept last, by name, in the framework's native layout."""

    @property
    def num_parameters(self) -> int:
        """Trainable parameters of the network that is exported."""

    @property
    def peak_memory_bytes(self) -> int:
        """Highest memory of the GPU since the training began; 0 without one."""


def complete(hyperparameters: Mapping[str, Value], recipe: Mapping[str, Value]) -> dict[str, Value]:
    """Return a space's hyperparameters with what the space leaves out taken from the approach's `RECIPE`."""
    return {**recipe, **hyperparameters}


class EpochTrainer(abc.ABC):
    """Trains one hyperparameter set after another by this loop; an approach's trainer says how a training begins.

    Attributes:
        recipe: The fixed hyperparameters of the approach, its `RECIPE`.
    """

    recipe: Mapping[str, Value]

    @abc.abstractmethod
    def begin(self, hyperparameters: dict[str, Value], epochs: int, seed: int) -> Training:
        """Return a training with fresh weights; the hyperparameters are complete."""

    def free(self) -> None:  # noqa: B027 - nothing to give back is a fair answer
        """Give back what the device still holds of a training that did not fit into its memory."""

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
        """Train one hyperparameter set; `contract.Trainer.fit` explains arguments, result and errors."""
        stopwatch = Stopwatch()
        training = None
        try:
            training = self.begin(complete(hyperparameters, self.recipe), epochs, seed)
            scores = _train(training, epochs, on_epoch, resume)
            return FitResult(
                scores=tuple(scores),
                device_seconds=stopwatch.seconds,
                peak_memory_bytes=training.peak_memory_bytes or stopwatch.peak_memory_bytes,
                num_parameters=training.num_parameters,
                weights=training.best_weights() if keep_weights else {},
            )
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            message = f"a trial must fit into the device's memory; got {first_line(error)}"
        finally:
            del training
        # Outside the handler, whose traceback would keep the trial's tensors alive.
        self.free()
        raise TrialOutOfMemoryError(message)


def _train(training: Training, epochs: int, on_epoch: OnEpoch | None, resume: State | None) -> list[float]:
    """Return the validation accuracy after each epoch, earlier attempts included."""
    scores: list[float] = []
    if resume is not None:
        training.restore(resume)
        scores = [float(score) for score in resume["scores"]]

    def state() -> State:
        return training.state() | {"scores": np.array(scores)}

    for epoch in range(len(scores) + 1, epochs + 1):
        started = time.perf_counter()
        loss = training.train_epoch(epoch)
        if not math.isfinite(loss):
            raise TrialDivergedError(f"loss must be finite; got {loss} in epoch {epoch}", tuple(scores))
        with training.averaged():
            score = training.accuracy()
            if not scores or score > max(scores):
                training.keep()
        scores.append(score)
        seconds = time.perf_counter() - started
        log.info("epoch %d/%d: loss %.4f, validation accuracy %.4f, %.1f s", epoch, epochs, loss, score, seconds)
        if on_epoch is not None and not on_epoch(epoch, score, state):
            break
    return scores
