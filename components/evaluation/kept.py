"""Where a run's results are found without its artifacts: `runs/<run id>/` below the study root.

Kubeflow's artifact paths cannot be guessed from outside; `submit --wait` and CI read the verdict here.
"""

from pathlib import Path
from typing import Any

import yaml

from components.stores import open_store

SUMMARY, REPORT, PARAMETERS = "summary.json", "report.html", "parameters.yaml"


def result_key(run_id: str, name: str) -> str:
    """Return the key of a run's result below its study root."""
    return f"runs/{run_id}/{name}"


def keep_parameters(run: dict[str, Any], parameters: dict[str, Any]) -> None:
    """Keep the file that repeats a run with `--parameters`; sources are without the queries of their URLs.

    Args:
        run: As for `keep_result`.
        parameters: All run parameters, as the plan shows them.
    """
    text = yaml.safe_dump(parameters, sort_keys=True, allow_unicode=True)
    open_store(run["study_root"]).create(result_key(run["id"], PARAMETERS), text.encode())


def keep_result(run: dict[str, Any], name: str, path: Path) -> None:
    """Copy a result next to the studies; a copy that is there already stays, so that a retried step changes nothing.

    Args:
        run: `id` and `study_root` as the plan fixed them.
        name: `SUMMARY` or `REPORT`.
        path: File to copy.
    """
    open_store(run["study_root"]).create(result_key(run["id"], name), path.read_bytes())
