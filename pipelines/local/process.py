"""The process that runs the compiled graph with kfp.local; `pipelines.local.run` starts it and watches it.

A process of its own because kfp.local patches `print` and the root logger and does not always put them back.
"""

import json
import os
import signal
import sys
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path

from kfp import components, local
from kfp.local import subprocess_task_handler

from pipelines.local.redaction import Redacted, secrets_of

LEAVE_SECONDS = 8.0
"""How long steps may take to save what they have once nobody waits for them any more."""


def main(out: Path) -> None:
    """Run `pipeline.yaml` of a run's folder with its `parameters.json`."""
    settings = json.loads((out / "parameters.json").read_text(encoding="utf-8"))
    secrets = secrets_of(settings["parameters"])
    sys.stdout, sys.stderr = Redacted(sys.stdout, secrets), Redacted(sys.stderr, secrets)
    options = {"pipeline_root": str(out / "artifacts"), "enable_caching": True, "cache_root": str(out / "cache")}
    if settings["containers"]:
        from pipelines.local.containers import container_runner

        runner = container_runner(out)
    else:
        # "The runner ignores the image": true, and wanted: this environment has what every image has.
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        runner = local.SubprocessRunner(use_venv=False)
        subprocess_task_handler.replace_python_executable = _with_this_python
    local.init(runner=runner, **options)
    pipeline = components.load_component_from_file(str(out / "pipeline.yaml"))
    pipeline(**settings["parameters"])


def _with_this_python(full_command: list[str], new_executable: str) -> list[str]:
    """Return a step's command for this interpreter; kfp would also rewrite `python3` in paths and parameters."""
    return [new_executable if part == "python3" else part for part in full_command]


def _end_with(parent: int, *, containers: bool) -> None:
    """End this process and all steps when the process that started it is gone, killed without a chance to say so."""
    while os.getppid() == parent:
        time.sleep(0.5)
    if containers:
        os.kill(os.getpid(), signal.SIGTERM)  # its handler ends the containers
        return
    # Steps save what they have and leave; one that is deep in a library's code may not hear it.
    deadline = time.monotonic() + LEAVE_SECONDS
    for pid in _steps():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    while _steps() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(0, signal.SIGKILL)


def _steps() -> list[int]:
    """Return the other processes of this process group."""
    group, steps = os.getpgrp(), []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(ProcessLookupError, ValueError):
            if os.getpgid(int(entry.name)) == group and int(entry.name) != os.getpid():
                steps.append(int(entry.name))
    return steps


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    folder = Path(sys.argv[1])
    in_containers = json.loads((folder / "parameters.json").read_text(encoding="utf-8"))["containers"]
    watch = threading.Thread(target=_end_with, args=(os.getppid(),), kwargs={"containers": in_containers}, daemon=True)
    watch.start()
    main(folder)
