"""A study of the MLP on Fashion-MNIST from its start to its last trial, by one worker and by several on one device.

Each worker is a process of its own, `python -m benchmarks.study TRAIN_DATA STUDY_ROOT WORKERS TRIALS`; this module loads no framework.
"""

import subprocess
import sys
import tempfile

from benchmarks.data import ingested
from benchmarks.harness import Options, Row, row, seconds
from components.data.contract import TrainData
from components.models.contract import load_approach
from components.parameters import RunParameters
from components.search.study.study import Study
from components.search.worker.worker import run_worker
from components.stores import open_store
from pipelines.presets import default_parameters

NUM_TRIALS = 30
NUM_WORKERS = 4
STUDY = "study"


def measure(options: Options) -> list[Row]:
    """Return the seconds of a study of 30 trials, once by one worker and once by four; nothing without the published files.

    The start of the processes counts. On a CPU workers share the cores, and a study takes minutes.
    """
    if not options.fashion_mnist:
        return []
    with tempfile.TemporaryDirectory() as scratch:
        train_dir = str(ingested(f"fashion-mnist={options.fashion_mnist}", scratch) / "train")
        times, notes = [], []
        for num_workers in (1, NUM_WORKERS):
            root = f"{scratch}/by-{num_workers}"
            times.append(seconds(lambda root=root, num=num_workers: search(train_dir, root, num)))  # type: ignore[misc]
            best = Study.open(open_store(root), STUDY).ledger().best()
            notes.append(f"best validation accuracy {best.score:.4f}" if best else "no trial has a score")
    one, several = ([time] for time in times)
    return [
        row(f"MLP study of {NUM_TRIALS} trials on Fashion-MNIST", "s", one, note=notes[0]),
        row(f"MLP study, {NUM_WORKERS} workers on one device", "s", several, "one worker", one, notes[1]),
    ]


def search(train_dir: str, study_root: str, num_workers: int, num_trials: int = NUM_TRIALS) -> None:
    """Let workers finish a study together.

    Args:
        train_dir: What ingest left to train on.
        study_root: URI of the store for the study.
        num_workers: Processes.
        num_trials: Trials of the study.

    Raises:
        RuntimeError: A worker failed; its error stands on stderr.
    """
    command = [sys.executable, "-m", "benchmarks.study", train_dir, study_root, str(num_workers), str(num_trials)]
    workers = [subprocess.Popen(command, stdin=subprocess.DEVNULL) for _ in range(num_workers)]
    try:
        codes = [worker.wait() for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    if any(codes):
        raise RuntimeError(f"every worker must end with 0; got {codes}. The errors stand above")


def work(train_dir: str, study_root: str, num_workers: int, num_trials: int) -> None:
    """Take part in the study with the defaults of a run."""
    own = {"search_trials": num_trials, "search_workers": num_workers, "search_warm_start": False}
    settings = RunParameters.from_dict(default_parameters(study_root) | own).search
    run_worker(
        study_root=study_root,
        name=STUDY,
        approach=load_approach("mlp"),
        train_data=TrainData.load(train_dir),
        settings=settings,
        worker="worker",
    )


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
