"""One worker of a search, in a process of its own: `python -m tests.gpu.worker APPROACH FOLDER NAME`.

Without a folder it asks for a GPU and searches nothing.
"""

import sys

from components.errors import reporting
from components.models.contract import load_approach
from components.models.faults import make_trainer
from components.search.study.claims import Timing
from components.search.worker.worker import run_worker
from tests.models.examples import make_train_data
from tests.models.faulty import settings

NUM_TRIALS = 6
TIMING = Timing(beat_seconds=1.0, ttl_seconds=60.0, margin_seconds=5.0, poll_seconds=0.2)


def main(name: str, folder: str, worker: str) -> None:
    """Take part in the study of the folder until it has its trials."""
    approach = load_approach(name)
    data = make_train_data(120)
    if not folder:
        make_trainer(approach, data, require_gpu=True, weights_uri="")
        return
    run_worker(
        study_root=folder,
        name="study",
        approach=approach,
        train_data=data,
        settings=settings(NUM_TRIALS, workers=2, epochs=2),
        worker=worker,
        timing=TIMING,
    )


if __name__ == "__main__":
    with reporting("worker"):
        main(*sys.argv[1:])
