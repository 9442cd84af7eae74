"""A study becomes runs of MLflow: a parent run, a nested run for each trial, scores by epoch, the trials as CSV and plots."""

import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

# MLflow reports its use to its makers, and asks a server that is away for minutes; either can be set otherwise.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from components.errors import UnavailableError
from components.search.plots import drawings
from components.search.tables import trials_csv
from components.search.trial import Ledger, Trial

EXPERIMENT = "fashion-tuning"
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Lets MLflow show the experiment's runs and not its pages for language models."""
STUDY, TRIAL, PARENT = "fashion-tuning.study", "fashion-tuning.trial", "mlflow.parentRunId"
STATUS = {
    "waiting": "SCHEDULED",
    "running": "RUNNING",
    "completed": "FINISHED",
    "pruned": "FINISHED",
    "diverged": "FAILED",
    "failed": "FAILED",
}
_BATCH = 1000


def export_mlflow(ledger: Ledger, uri: str) -> str:
    """Write a study to a tracking server; written again, what is there is renewed, and no run appears twice.

    Args:
        ledger: The study, finished or not.
        uri: Tracking URI.

    Returns:
        The parent run's id.

    Raises:
        UnavailableError: The server did not take it; the text has no password of the URI.
    """
    try:
        return _export(ledger, MlflowClient(tracking_uri=uri))
    except MlflowException as error:
        said = re.sub(r"//[^/\s]*@", "//***@", " ".join(str(error).split()))[:300]
        raise UnavailableError(f"--mlflow must be a tracking server that answers; got {said}. Check the URI") from None


def _export(ledger: Ledger, client: MlflowClient) -> str:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT, tags=KIND)
    known = _runs(client, experiment_id, ledger.name)
    parent = known.get("") or client.create_run(experiment_id, run_name=ledger.name, tags={STUDY: ledger.name})
    spec = {name: value for name, value in ledger.spec.items() if not isinstance(value, list | dict)}
    _log(client, parent, params={} if "" in known else spec, metrics=_best(ledger))
    for trial in ledger.trials:
        _export_trial(client, ledger, trial, parent, known.get(str(trial.number)))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "trials.csv").write_text(trials_csv(ledger), encoding="utf-8", newline="")
        for name, figure in drawings(ledger).items():
            figure.savefig(Path(folder) / f"{name}.png", dpi=120)
        client.log_artifacts(parent.info.run_id, folder)
    is_over = all(trial.is_finished for trial in ledger.trials)
    client.set_terminated(parent.info.run_id, "FINISHED") if is_over else client.update_run(
        parent.info.run_id, "RUNNING"
    )
    return parent.info.run_id


def _runs(client: MlflowClient, experiment_id: str, study: str) -> dict[str, Run]:
    """Return the runs of a study by the number of their trial, the parent's under ""."""
    quoted = study.replace("'", "")
    token, runs = None, {}
    while True:
        page = client.search_runs([experiment_id], f"tags.`{STUDY}` = '{quoted}'", page_token=token, max_results=_BATCH)
        runs.update({run.data.tags.get(TRIAL, ""): run for run in page})
        if not (token := page.token):
            return runs


def _export_trial(client: MlflowClient, ledger: Ledger, trial: Trial, parent: Run, run: Run | None) -> None:
    if run is not None and run.data.tags.get("status") == trial.status and trial.is_finished:
        return  # a result never changes
    params: dict[str, Any] = {}
    if run is None:
        tags = {PARENT: parent.info.run_id, STUDY: ledger.name, TRIAL: str(trial.number)}
        name = f"{ledger.name}/{trial.number:05d}"
        run = client.create_run(parent.info.experiment_id, run_name=name, tags=tags)
        params = {**trial.hyperparameters, "seed": trial.seed}
    metrics = [("validation_accuracy", score, epoch) for epoch, score in enumerate(trial.scores, 1)]
    metrics += [("device_seconds", trial.device_seconds, 0), ("peak_memory_bytes", trial.peak_memory_bytes, 0)]
    metrics += [("best_validation_accuracy", trial.score, 0)] if trial.score is not None else []
    tags = {"status": trial.status, "worker": trial.worker, "error": trial.error, "reused_from": trial.reused_from}
    _log(client, run, params=params, metrics=metrics, tags=tags)
    if trial.is_finished:
        client.set_terminated(run.info.run_id, STATUS[trial.status])
    else:
        client.update_run(run.info.run_id, STATUS[trial.status])


def _best(ledger: Ledger) -> list[tuple[str, float, int]]:
    best = ledger.best()
    values = [("trials", len(ledger.trials), 0), ("device_seconds", ledger.device_seconds, 0)]
    return values + ([("best_validation_accuracy", best.accuracy, 0)] if best else [])


def _log(
    client: MlflowClient,
    run: Run,
    *,
    params: dict[str, Any],
    metrics: list[tuple[str, float, int]],
    tags: dict[str, str] | None = None,
) -> None:
    now = int(1000 * time.time())
    client.log_batch(
        run.info.run_id,
        params=[Param(name, str(value)) for name, value in params.items()],
        tags=[RunTag(name, value) for name, value in (tags or {}).items() if value],
    )
    for start in range(0, len(metrics), _BATCH):
        batch = [Metric(name, float(value), now, step) for name, value, step in metrics[start : start + _BATCH]]
        client.log_batch(run.info.run_id, metrics=batch)
