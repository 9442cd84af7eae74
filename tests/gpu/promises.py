"""What both approaches promise on any device, as functions that start with `promise_`; the CPU keeps them too.

Bit for bit is a promise of CPUs. A GPU sums in another order each time, so there scores agree within `SCORE_TOLERANCE`.
"""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from components.models.contract import TrialOutOfMemoryError
from components.models.hardware import PARITY_TOLERANCE
from components.models.loop import complete
from components.search.study.study import Study
from components.stores import open_store
from tests.gpu.worker import NUM_TRIALS, TIMING
from tests.models.examples import make_train_data

ROOT = Path(__file__).resolve().parent.parent.parent
SCORE_TOLERANCE = 0.05
"""Largest difference of a validation accuracy between two trainings of one seed on a GPU."""


def promise_export_agrees(approach: ModuleType, hyperparameters: dict[str, Any], folder: Path) -> None:
    """What was trained on the device is exported within the bound that the final training asks for."""
    trainer = approach.Trainer(make_train_data(120, (12, 10, 3)))
    result = trainer.fit(hyperparameters, epochs=2, seed=0)

    difference = trainer.export(result, hyperparameters, str(folder / "m.onnx"), str(folder / approach.NATIVE_FILE))

    assert difference <= PARITY_TOLERANCE


def promise_resuming_goes_on(approach: ModuleType, hyperparameters: dict[str, Any], on_gpu: bool) -> None:
    """A checkpoint holds every bit of the state, on every device; the epochs after it are the same bits on a CPU only."""
    trainer = approach.Trainer(make_train_data(120, (12, 10, 3)))
    states = []
    whole = trainer.fit(
        hyperparameters, epochs=3, seed=5, on_epoch=lambda _e, _s, state: states.append(state()) or True
    )

    training = approach._Training(trainer, complete(hyperparameters, approach.RECIPE), 3, 5)
    training.restore(states[0])
    restored = training.state() | {"scores": states[0]["scores"]}
    resumed = trainer.fit(hyperparameters, epochs=3, seed=5, resume=states[0])

    assert set(states[0]) == set(restored)
    assert [] == [name for name in restored if not np.array_equal(states[0][name], restored[name])]
    assert whole.scores[0] == resumed.scores[0]
    assert whole.scores == pytest.approx(resumed.scores, abs=SCORE_TOLERANCE if on_gpu else 0)


def promise_out_of_memory_costs_one_trial(trainer: Any, hyperparameters: dict[str, Any], monkeypatch, exhaust) -> None:
    """What the device's own allocator says is known for a full memory, and the next trial finds a working trainer."""
    training = sys.modules[type(trainer).__module__]._Training
    with monkeypatch.context() as patch:
        patch.setattr(training, "train_epoch", lambda *_: exhaust())
        with pytest.raises(TrialOutOfMemoryError, match="must fit into the device's memory"):
            trainer.fit(hyperparameters, epochs=1, seed=0)

    assert 1 == len(trainer.fit(hyperparameters, epochs=1, seed=0).scores)


def promise_data_larger_than_the_memory(
    approach: ModuleType, hyperparameters: dict[str, Any], folder: Path, on_gpu: bool, limit_memory
) -> None:
    """Images that do not fit travel in parts: the scores are those of images that fit, and the device never holds them all.

    Args:
        approach: The module with `Trainer`.
        hyperparameters: Without augmentation, whose draws may depend on the parts.
        folder: For the mapped file.
        on_gpu: Whether the trainer uses a GPU; the CPU leaves mapped images on disk.
        limit_memory: Makes the approach believe that so many bytes of the GPU are free.
    """
    data = make_train_data(120, (12, 10, 3))
    if on_gpu:
        # 300 MB: more than the network, its gradients and the library's workspaces together.
        data = make_train_data(2_000, (64, 64, 3))
        repeated = np.resize(np.arange(len(data.labels)), 24_000)
        data = dataclasses.replace(
            data, images=data.images[repeated], labels=data.labels[repeated], split=data.split[repeated]
        )
    np.save(folder / "images.npy", data.images)
    mapped = dataclasses.replace(data, images=np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False))
    expected = approach.Trainer(data).fit(hyperparameters, epochs=2, seed=2)
    limit_memory(data.images.nbytes // 2)

    found = approach.Trainer(mapped).fit(hyperparameters, epochs=2, seed=2)

    assert expected.scores == pytest.approx(found.scores, abs=SCORE_TOLERANCE if on_gpu else 0)
    if on_gpu:
        assert found.peak_memory_bytes < expected.peak_memory_bytes


def promise_two_workers_share_a_device(name: str, folder: Path) -> None:
    """Two processes search at the same time on one device: every trial is finished, none for want of memory."""
    command = [sys.executable, "-m", "tests.gpu.worker", name, str(folder)]
    workers = [subprocess.Popen([*command, f"w{n}"], cwd=ROOT, stderr=subprocess.PIPE, text=True) for n in range(2)]
    errors = [worker.communicate(timeout=240)[1] for worker in workers]

    assert [0, 0] == [worker.returncode for worker in workers], errors
    ledger = Study.open(open_store(str(folder)), "study", timing=TIMING).ledger()
    assert ["completed"] * NUM_TRIALS == [trial.status for trial in ledger.trials]


def promise_missing_gpu_is_noticed(name: str) -> None:
    """A step that was promised a GPU ends at once where CUDA shows none: 75 where the node gave it one, else 78."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "tests.gpu.worker", name, "", "w0"]
    finished = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False
    )

    assert (75 if list(Path("/dev").glob("nvidia[0-9]*")) else 78) == finished.returncode
    assert "step must have a GPU" in finished.stderr
