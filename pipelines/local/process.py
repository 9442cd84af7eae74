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
from pathlib import Path

from kfp import components, local


def main(out: Path) -> None:
    """Run `pipeline.yaml` of a run's folder with its `parameters.json`."""
    settings = json.loads((out / "parameters.json").read_text(encoding="utf-8"))
    options = {"pipeline_root": str(out / "artifacts"), "enable_caching": True, "cache_root": str(out / "cache")}
    if settings["containers"]:
        from pipelines.local.containers import container_runner

        runner = container_runner(out)
    else:
        # "The runner ignores the image": true, and wanted: this environment has what every image has.
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        runner = local.SubprocessRunner(use_venv=False)
    local.init(runner=runner, **options)
    pipeline = components.load_component_from_file(str(out / "pipeline.yaml"))
    pipeline(**settings["parameters"])


def _end_with(parent: int) -> None:
    """End this process and all steps when the process that started it is gone, killed without a chance to say so."""
    while os.getppid() == parent:
        time.sleep(0.5)
    # Steps save what they have and leave within 10 s.
    os.killpg(0, signal.SIGTERM)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    main(Path(sys.argv[1]))
