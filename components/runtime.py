"""Every step's process begins and ends here: logging, signals, and errors that become one line and an exit code."""

import contextvars
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from components.errors import TerminatedError, one_line, reporting, using

log = logging.getLogger(__name__)

EVENTS_VARIABLE = "FASHION_TUNING_EVENTS"
"""Names the file to which a local run's steps report when they start and end, and how far they are."""

COMMIT_VARIABLE = "FASHION_TUNING_COMMIT"
"""Names the commit of the code; set by the images and by a local run, shown in the report."""

REGISTRY_VARIABLE = "FASHION_TUNING_MODEL_REGISTRY"
"""Names the URL of Kubeflow's Model Registry; set in the promote step where the cluster profile has a `model_registry`."""

TERMINATION_LOG = Path("/dev/termination-log")
"""What a container leaves here, Kubernetes shows as the pod's last word. Kubeflow's launcher makes every exit code a 1."""

_step_name: contextvars.ContextVar[str] = contextvars.ContextVar("step_name", default="")


def set_up_logging() -> None:
    """Send the project's log to stderr in its own format, even if the surrounding runner changed the root logger."""
    logger = logging.getLogger("components")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
    logger.setLevel(os.environ.get("FASHION_TUNING_LOG_LEVEL", "INFO"))
    logger.propagate = False


def gpu_is_required() -> bool:
    """Return whether the cluster profile asked for a GPU in this step: then its absence is an error, never a slow run."""
    return os.environ.get("FASHION_TUNING_REQUIRE_GPU") == "1"


def _announce(event: str, name: str, **values: Any) -> None:
    path = os.environ.get(EVENTS_VARIABLE)
    if path:
        line = json.dumps({"event": event, "step": name, "time": time.time(), **values}) + "\n"
        with using(path), open(path, "a", encoding="utf-8") as file:  # noqa: PTH123 - one write of one line: appends do not mix
            file.write(line)


def announce_progress(text: str) -> None:
    """Tell the log, and whoever watches a local run, how far the step is.

    Args:
        text: One line, for example `replicate 2 of 3: epoch 4 of 20, 0.9012`.
    """
    log.info("%s", text)
    if name := _step_name.get():
        _announce("progress", name, message=text)


def _leave_last_word(line: str) -> None:
    """Tell Kubernetes why the container ended; manifests/kubeflow-pipelines/workflow-defaults.yaml decides by the code."""
    if TERMINATION_LOG.exists():
        with suppress(OSError):
            TERMINATION_LOG.write_text(line[:2000], encoding="utf-8")


def save_metadata(*artifacts: Any) -> None:
    """Write the metadata of metrics artifacts into their files too.

    The UI reads the metadata. Without a file, kfp.local takes the whole cached step for lost and runs it again.
    """
    for artifact in artifacts:
        with using(artifact.path):
            Path(artifact.path).write_text(json.dumps(artifact.metadata, indent=1) + "\n", encoding="utf-8")


@contextmanager
def step(name: str, artifact: Any = None) -> Iterator[None]:
    """Run a step's work: own logging, SIGTERM as an exception, every failure as one line and its exit code.

    Args:
        name: The step and what it works on, for example `ingest fashion-mnist`.
        artifact: An input of the step; the dataset in its metadata becomes part of the name.
    """

    def terminate(_signal: int, _frame: Any) -> None:
        raise TerminatedError("the step was asked to stop; finished work is kept. Run again to go on")

    name = f"{name} {artifact.metadata.get('dataset', '')}".strip() if artifact is not None else name
    set_up_logging()
    signal.signal(signal.SIGTERM, terminate)
    _step_name.set(name)
    _announce("started", name)
    try:
        with reporting(name):
            yield
    except SystemExit as error:
        message = str(error.__context__ and one_line(error.__context__))
        _announce("failed", name, code=error.code, message=message)
        _leave_last_word(f"ERROR {error.code} {name}: {message}")
        raise
    _announce("finished", name)
