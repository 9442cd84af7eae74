"""What is searched: a made-up MLP, or the real one on a subset of Fashion-MNIST."""

import contextlib
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search.budget import EPOCHS, SPACE, Objective
from components.data.contract import TrainData
from components.data.ingest import ingest
from components.models.contract import TrialDivergedError
from components.models.mlp import training as mlp
from components.models.space import Value
from components.parameters import DataSettings


def synthetic(values: dict[str, Any], seed: int, stop: Callable[[list[float]], bool]) -> tuple[list[float], float]:
    """Return the accuracies (up to `EPOCHS`) of a made-up MLP, and their number as the cost."""
    rng = np.random.default_rng(seed)
    rate = math.log10(values["learning_rate"]) - (1.2 if values["optimizer"] == "SGD" else 0.0)
    off = rate + 3.1
    top = 0.897 - (0.012 if off < 0 else 0.03) * off**2
    top += 0.004 * math.log2(values["units_1"] / 512) + 0.002 * math.log2(values["units_2"] / 256)
    top -= 0.003 * (values["activation_1"] == "tanh") + 0.002 * (values["activation_2"] == "tanh")
    top += {"SGD": -0.003, "Adam": 0.001, "RMSprop": -0.002, "Nadam": 0.002}[values["optimizer"]] + rng.normal(0, 0.002)
    slowness = 2.5 * 10 ** (-0.25 * min(off, 1.0))
    scores: list[float] = []
    for epoch in range(1, EPOCHS + 1):
        scores.append(float(max(top - 0.12 * math.exp(-epoch / slowness) + rng.normal(0, 0.002), 0.1)))
        if stop(scores):
            break
    return scores, float(len(scores))


def real(data_dir: Path, num_images: int, subset: int = 0) -> Objective:
    """Return the MLP trained on a stratified subset of Fashion-MNIST; it costs the device-seconds it takes.

    On a CPU those are counted as seconds of CPU time, which other processes on the machine do not distort.

    Args:
        data_dir: Folder with the four published files.
        num_images: Training and validation examples together, half each: scores then tell hyperparameters apart, not images.
        subset: Seed that the images are drawn with.
    """
    with tempfile.TemporaryDirectory() as folder:
        train_dir, test_dir, report_dir = (Path(folder) / name for name in ("train", "test", "report"))
        settings = DataSettings(limit=num_images, validation_fraction=0.5, seed=subset)
        ingest(
            f"fashion-mnist={data_dir}",
            settings=settings,
            train_dir=train_dir,
            test_dir=test_dir,
            report_dir=report_dir,
            cache=str(Path(folder) / "cache"),
        )
        trainer = mlp.Trainer(TrainData.load(train_dir))
    clock = time.process_time if trainer.device_name == "cpu" else time.perf_counter
    trainer.fit(SPACE.defaults, epochs=1, seed=0)  # tracing and the first touch of the device are nobody's cost

    def objective(
        values: dict[str, Value], seed: int, stop: Callable[[list[float]], bool]
    ) -> tuple[list[float], float]:
        scores: list[float] = []

        def on_epoch(_epoch: int, score: float, _state: Any) -> bool:
            scores.append(score)
            return not stop(scores)

        started = clock()
        with contextlib.suppress(TrialDivergedError):
            trainer.fit(values, epochs=EPOCHS, seed=seed, on_epoch=on_epoch, keep_weights=False)
        return scores, clock() - started

    return objective
