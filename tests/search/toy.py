"""A toy approach: trains in milliseconds, deterministic, resumable; and a sampler that needs no framework."""

import sys
import time
from types import SimpleNamespace
from typing import ClassVar

import numpy as np

from components.data.contract import DatasetInfo, TrainData
from components.failpoints import failpoint
from components.models.contract import FitResult, TrialDivergedError, TrialOutOfMemoryError
from components.models.space import Parameter, Space
from components.parameters import SearchSettings
from components.search.samplers.choice import ALGORITHMS
from components.search.study.claims import Timing
from components.search.worker import worker

SPACE = Space(
    (Parameter(name="x", low=0.0, high=1.0, default=0.5), Parameter(name="kind", choices=("a", "b"), default="a"))
)
QUICK = Timing(
    beat_seconds=0.1,
    ttl_seconds=0.4,
    margin_seconds=0.1,
    poll_seconds=0.05,
    checkpoint_seconds=0.0,
    checkpoint_share=float("inf"),
    term_seconds=5.0,
)
"""Patience of workers whose trials last milliseconds."""


def train_data(content_hash="0" * 64):
    """Four black images."""
    info = DatasetInfo(
        name="toy",
        classes=("a", "b"),
        counts={"train": 2, "validation": 2},
        source="",
        checksums={},
        content_hash=content_hash,
    )
    zeros = np.zeros(4, np.int64)
    return TrainData(
        images=np.zeros((4, 2, 2, 1), np.uint8), labels=zeros, split=np.array([0, 0, 1, 1], np.uint8), info=info
    )


ALGORITHM = "random"
"""What a search uses unless told otherwise."""


def settings(**changes):
    """Settings of a small search without pruning and warm start."""
    values = {
        "trials": 5,
        "minutes": 60.0,
        "workers": 1,
        "epochs": 3,
        "pruning": False,
        "warm_start": False,
        "mlp_algorithm": ALGORITHM,
        "resnet18_algorithm": ALGORITHM,
        "space": "described",
        "seed": 0,
    }
    return SearchSettings(**{**values, **changes})


def score(hyperparameters, epoch):
    """Validation accuracy of the toy after an epoch."""
    return round((1 - abs(hyperparameters["x"] - 0.3)) * (1 - 0.5**epoch), 6)


class ToyTrainer:
    """Sleeps through its epochs; goes wrong on request."""

    epoch_seconds = 0.0
    faults: ClassVar[dict] = {}
    fits: ClassVar[list] = []
    """(seed, first epoch) of every call."""

    def __init__(self, train_data, *, require_gpu=False, weights_uri=""):
        pass

    def fit(self, hyperparameters, *, epochs, seed, on_epoch=None, resume=None, keep_weights=True):  # noqa: ARG002
        first = int(resume["epoch"]) + 1 if resume else 1
        self.fits.append((seed, first))
        scores = [score(hyperparameters, epoch) for epoch in range(1, first)]
        start = time.monotonic()
        for epoch in range(first, epochs + 1):
            time.sleep(self.epoch_seconds)
            failpoint("mid-epoch")
            fault = self.faults.get(seed)
            if fault == "diverge":
                raise TrialDivergedError("loss became nan", tuple(scores))
            if fault == "oom":
                raise TrialOutOfMemoryError("device is full")
            if fault == "bug":
                raise ValueError("shapes do not fit")
            if callable(fault):
                fault(epoch)
            scores.append(score(hyperparameters, epoch))
            state = {"epoch": np.array(epoch), "weights": np.full(3, epoch, np.float32)}
            if on_epoch and not on_epoch(epoch, scores[-1], lambda state=state: state):
                break
        return FitResult(
            scores=tuple(scores),
            device_seconds=time.monotonic() - start,
            peak_memory_bytes=1000,
            num_parameters=3,
            weights={},
        )


APPROACH = SimpleNamespace(
    APPROACH="mlp",
    SPACES={"described": SPACE},
    LARGEST_BATCH=16,
    has_gpu=lambda: False,
    Trainer=ToyTrainer,
)


class RandomSampler:
    """Draws from the space by study seed and trial number alone."""

    def __init__(self, approach, algorithm, space, seed, *, first_guesses=()):  # noqa: ARG002
        self.seed, self.first_guesses = seed, first_guesses

    def suggest(self, number, trials, reused=()):  # noqa: ARG002
        if number < len(self.first_guesses):
            return dict(self.first_guesses[number])
        generator = np.random.default_rng([self.seed, number])
        return {"x": round(float(generator.uniform()), 6), "kind": str(generator.choice(["a", "b"]))}


def use(monkeypatch, algorithm):
    """Let workers of this process use `RandomSampler` (`toy`) or the real sampler of an algorithm; plan no faults."""
    monkeypatch.setattr(ToyTrainer, "faults", {})
    monkeypatch.setattr(ToyTrainer, "fits", [])
    if algorithm == "toy":
        monkeypatch.setattr(worker, "make_sampler", RandomSampler)
        return
    monkeypatch.setattr(APPROACH, "APPROACH", next(name for name, known in ALGORITHMS.items() if algorithm in known))
    monkeypatch.setattr(sys.modules[__name__], "ALGORITHM", algorithm)
