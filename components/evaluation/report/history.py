"""Scores of earlier runs are kept in the store beside studies and champions, so that a report can show the trend."""

import hashlib
import json
import logging
from datetime import datetime
from typing import Any

from components.errors import PermissionDeniedError, StorageError, UnavailableError
from components.stores import open_store

log = logging.getLogger(__name__)

FOLDER = "reports"
NUM_RUNS = 12


def remember(
    root: str, run_id: str, created: datetime, summary: dict[str, Any], limit: int = NUM_RUNS
) -> tuple[list[dict[str, Any]], str]:
    """Add a run to the history and return the last runs, the present one last.

    Args:
        root: Store; empty for no history.
        run_id: The run; a step that runs again and finds the same scores does not add it twice.
        created: Now.
        summary: `summary.json` of the run.
        limit: Most runs.

    Returns:
        Rows `run`, `created`, `datasets`, and why earlier runs are missing (empty where they are not). A store that fails
        costs the history, never the report.
    """
    own = _row(run_id, created, summary)
    if not root:
        return [own], ""
    content = json.dumps([run_id, own["datasets"]], sort_keys=True)
    suffix = f"-{hashlib.sha256(content.encode()).hexdigest()[:12]}.json"
    store = open_store(root) / FOLDER
    try:
        keys = store.list()
        if not any(key.endswith(suffix) for key in keys):
            data = json.dumps(own, allow_nan=False).encode()
            store.create(f"{created:%Y%m%dT%H%M%SZ}{suffix}", data)
        earlier = [key for key in keys if not key.endswith(suffix)][-(limit - 1) :]
        rows = [row for key in earlier if (row := _read(store, key)) is not None]
    except (UnavailableError, PermissionDeniedError, StorageError, OSError) as error:
        log.warning("history of earlier runs is not shown: %s", error)
        return [own], f"The scores of earlier runs could not be read: {error}"
    return [*rows, own], ""


def _row(run_id: str, created: datetime, summary: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema": 1,
        "run": run_id,
        "created": created.isoformat(timespec="seconds"),
        "datasets": {
            name: {
                "winner": part["comparison"]["winner"],
                "hash": part["data"]["hash"],
                "approaches": {
                    a: {
                        "accuracy": f["accuracy"],
                        "accuracy_ci95": f["accuracy_ci95"],
                        "macro_f1": f["macro_f1"],
                        "device_seconds": sum(f["device_seconds"].values()),
                    }
                    for a, f in part["approaches"].items()
                },
            }
            for name, part in summary["datasets"].items()
        },
    }


def _read(store: Any, key: str) -> dict[str, Any] | None:
    try:
        row = json.loads(store.read(key))
        for part in row["datasets"].values():
            for scores in part["approaches"].values():
                low, high = scores["accuracy_ci95"]
                float(low), float(high), float(scores["accuracy"]), float(scores["device_seconds"])
        return row if isinstance(row["created"], str) and "run" in row else None
    except (ValueError, KeyError, TypeError, AttributeError, StorageError) as error:
        log.warning("history entry %s is skipped: %s", key, error)
        return None
