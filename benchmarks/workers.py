"""Two workers on one device against one: whether several trials at once pay, with and without NVIDIA's MPS.

Each worker is a process of its own, `python -m benchmarks.workers APPROACH SECONDS`; this module loads no framework.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import numpy as np

from benchmarks.harness import Options, Row, interleaved, row
from components.approaches import APPROACHES
from components.data.contract import DatasetInfo, TrainData
from components.models.contract import load_approach

SECONDS = 5.0
SIZES = {"mlp": (60_000, 20_000, (28, 28, 1)), "resnet18": (20_000, 500, (80, 60, 3))}
"""Images on a GPU, images on a CPU, and their shape (H, W, C), by approach: an epoch is to last a second at most."""

MPS = "nvidia-cuda-mps-control"


def measure(options: Options, seconds: float = SECONDS) -> list[Row]:  # noqa: ARG001 - a way is measured once
    """Return what two workers train together, against what one trains alone."""
    rows = []
    for name in APPROACHES:
        title = APPROACHES[name].title

        def alone(name: str = name) -> float:
            return together(name, 1, seconds)

        def shared(name: str = name) -> float:
            return together(name, 2, seconds)

        def with_mps(name: str = name) -> float:
            with mps() as environment:
                return together(name, 2, seconds, environment)

        ways = [alone, shared, *([with_mps] if shutil.which(MPS) else [])]
        # A turn trains hundreds of steps, and its processes take longer to start than to train.
        one, two, *other = interleaved(1, *ways)
        rows.append(row(f"{title}, two workers on one device", "images/s", two, "one worker alone", one))
        if other:
            rows.append(row(f"{title}, two workers under MPS", "images/s", other[0], "one worker alone", one))
    return rows


def together(name: str, num_workers: int, seconds: float, environment: dict[str, str] | None = None) -> float:
    """Return the images a second that so many workers train at the same time, all of them together.

    Args:
        name: The approach's name.
        num_workers: Processes; all of them have loaded their data and trained an epoch before the clock starts.
        seconds: How long they train.
        environment: Variables on top of this process's own.
    """
    command = [sys.executable, "-m", "benchmarks.workers", name, str(seconds)]
    given = os.environ | (environment or {})
    workers = [
        subprocess.Popen(command, env=given, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(num_workers)
    ]
    try:
        for worker in workers:
            if _line_of(worker) != "ready\n":
                raise RuntimeError(f"a worker of {name} must get ready; its error stands above")
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        return sum([float(_line_of(worker)) for worker in workers])
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def _line_of(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline()


@contextlib.contextmanager
def mps() -> Iterator[dict[str, str]]:
    """Run NVIDIA's multi-process service while the block lasts; yield the variables by which a process finds it.

    Source: https://docs.nvidia.com/deploy/mps/
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {"CUDA_MPS_PIPE_DIRECTORY": f"{folder}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{folder}/log"}
        for path in environment.values():
            os.mkdir(path)  # noqa: PTH102
        given = os.environ | environment
        subprocess.run([MPS, "-d"], env=given, check=True, timeout=60)
        try:
            yield environment
        finally:
            subprocess.run([MPS], input="quit\n", text=True, env=given, check=False, timeout=60)


def work(name: str, seconds: float) -> float:
    """Train epochs until the time is over; return images a second."""
    approach = load_approach(name)
    on_gpu, on_cpu, shape = SIZES[name]
    num = on_gpu if approach.has_gpu() else on_cpu
    random = np.random.default_rng(0)
    classes = tuple(str(k) for k in range(10))
    data = TrainData(
        images=random.integers(0, 256, (num, *shape), np.uint8),
        labels=random.integers(0, 10, num),
        split=(np.arange(num) < 10).astype(np.uint8),
        info=DatasetInfo(name="random", classes=classes, counts={}, source="", checksums={}, content_hash=""),
    )
    trainer = approach.Trainer(data)
    given = approach.SPACES["described"].defaults
    trainer.fit(given, epochs=1, seed=0, keep_weights=False)
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.perf_counter()
    result = trainer.fit(
        given,
        epochs=10_000,
        seed=0,
        on_epoch=lambda *_: time.perf_counter() - started < seconds,
        keep_weights=False,
    )
    return (num - 10) * len(result.scores) / (time.perf_counter() - started)


if __name__ == "__main__":
    print(work(sys.argv[1], float(sys.argv[2])), flush=True)
