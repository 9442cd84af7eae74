"""A study in Optuna, TensorBoard and MLflow: each tool's own reader finds every trial, and exporting again renews it."""

import json
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.hparams import plugin_data_pb2

from components.search.trial import Ledger, Trial
from pipelines.__main__ import run
from tests.search.test_tables import SPACE

ROOT = Path(__file__).resolve().parents[3]
SERVERS = ROOT / "build" / "servers"
"""An environment of its own: the tools' servers are nothing that the project needs."""
SPEC = {
    "approach": "mlp",
    "dataset": "shoes",
    "algorithm": "bayesian",
    "data_hash": "0",
    "epochs": 3,
    "minutes": 2.0,
    "trials": 5,
    "space": SPACE.to_json(),
}
SGD, ADAM = {"optimizer": "SGD", "momentum": 0.5, "rate": 0.001}, {"optimizer": "Adam", "rate": 0.002}
TRIALS = (
    Trial(
        number=0, status="completed", hyperparameters=SGD, score=0.8, scores=(0.7, 0.8), epochs=2, device_seconds=4.0
    ),
    Trial(number=1, status="pruned", hyperparameters=ADAM, score=0.6, scores=(0.6,), epochs=1, device_seconds=2.0),
    Trial(number=2, status="diverged", hyperparameters=ADAM, error="loss was nan"),
    Trial(number=3, status="running", hyperparameters=SGD, score=0.9, scores=(0.9,), epochs=1, worker="worker-1"),
)


def write(path: Path, trials: tuple[Trial, ...] = TRIALS, name: str = "week-shoes-mlp") -> str:
    """Write a study as a file, and return what names it."""
    Ledger(name=name, spec=SPEC, trials=trials).save(path)
    return str(path)


def ended() -> tuple[Trial, ...]:
    """Return the trials once the running one has ended."""
    return (*TRIALS[:3], Trial(**{**vars(TRIALS[3]), "status": "completed", "device_seconds": 3.0}))


def test_optuna_reads_every_trial(tmp_path, capsys):
    """States, scores by epoch and hyperparameters with their ranges are Optuna's; another study in the journal stays."""
    journal = tmp_path / "journal.log"
    other = write(tmp_path / "other.json", name="other")
    for study in (write(tmp_path / "study.json"), other, write(tmp_path / "study.json", ended())):
        assert 0 == run(["study", "export", study, "--optuna", str(journal)])

    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    assert ["other", "week-shoes-mlp"] == sorted(optuna.get_all_study_names(storage))
    trials = optuna.load_study(study_name="week-shoes-mlp", storage=storage).trials
    assert ["COMPLETE", "PRUNED", "FAIL", "COMPLETE"] == [trial.state.name for trial in trials]
    assert ({1: 0.7, 2: 0.8}, 0.8, SGD) == (trials[0].intermediate_values, trials[0].value, trials[0].params)
    assert optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True) == trials[0].distributions["rate"]
    assert [4.0, 2.0] == [trial.duration.total_seconds() for trial in trials[:2]]
    assert 0.9 == optuna.load_study(study_name="week-shoes-mlp", storage=storage).best_value
    assert "optuna-dashboard" in capsys.readouterr().out


def events(folder: Path) -> list[Event]:
    """Read what was written; TensorBoard's own reader would import TensorFlow."""
    (file,) = folder.iterdir()
    data, read = file.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        read.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return read


def test_tensorboard_reads_every_trial(tmp_path):
    """Scores are scalars by epoch, and HParams knows the space, each trial's values and how it ended; without TensorFlow."""
    for trials in (TRIALS, ended()):
        assert 0 == run(
            ["study", "export", write(tmp_path / "s.json", trials), "--tensorboard", str(tmp_path / "logs")]
        )

    study = tmp_path / "logs" / "week-shoes-mlp"
    assert ["trial-00000", "trial-00001", "trial-00002", "trial-00003"] == sorted(
        path.name for path in study.iterdir() if path.is_dir()
    )
    said = events(study / "trial-00000")
    scores = [
        (e.step, round(v.simple_value, 4)) for e in said for v in e.summary.value if v.tag == "validation_accuracy"
    ]
    assert [(1, 0.7), (2, 0.8)] == scores
    about = [
        plugin_data_pb2.HParamsPluginData.FromString(v.metadata.plugin_data.content)
        for e in said
        for v in e.summary.value
        if v.metadata.plugin_data.plugin_name == "hparams"
    ]
    assert ["session_start_info", "session_end_info"] == [data.WhichOneof("data") for data in about]
    assert "SGD" == about[0].session_start_info.hparams["optimizer"].string_value
    assert not {"tensorflow", "torch"} & set(sys.modules)


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")  # MLflow's store with the newest SQLAlchemy
def test_mlflow_keeps_every_trial(tmp_path, monkeypatch):
    """A parent run with CSV and plots, a nested run per trial with scores by epoch; exported again, nothing appears twice."""
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for trials in (TRIALS, ended()):
        assert 0 == run(["study", "export", write(tmp_path / "study.json", trials), "--mlflow", uri])

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("fashion-tuning").experiment_id
    runs = {run.data.tags.get("fashion-tuning.trial", ""): run for run in client.search_runs([experiment])}
    assert ["", "0", "1", "2", "3"] == sorted(runs)
    assert ["FINISHED", "FINISHED", "FINISHED", "FAILED", "FINISHED"] == [runs[key].info.status for key in sorted(runs)]
    parent = runs[""].info.run_id
    assert {parent} == {run.data.tags["mlflow.parentRunId"] for key, run in runs.items() if key}
    assert {"convergence.png", "trials.csv"} == {file.path for file in client.list_artifacts(parent)}
    history = client.get_metric_history(runs["0"].info.run_id, "validation_accuracy")
    assert [(1, 0.7), (2, 0.8)] == [(metric.step, metric.value) for metric in history]
    assert {**{k: str(v) for k, v in SGD.items()}, "seed": "0"} == runs["0"].data.params
    assert not {"tensorflow", "torch"} & set(sys.modules)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], 64, "study export needs a target"),
        (["--optuna", "study.json"], 74, "--optuna must be a file that can be written, new or a journal"),
        (["--tensorboard", "study.json/logs"], 74, "must be a folder that can be written; got"),
        (["--mlflow", "http://someone:s3cr3t@127.0.0.1:9"], 69, "--mlflow must be a tracking server that answers"),
    ],
)
def test_wrong_targets_are_one_line(tmp_path, monkeypatch, capsys, arguments, code, text):
    """What cannot be written to is named with its option, and no password is shown."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    study = write(tmp_path / "study.json")

    assert code == run(["study", "export", study, *arguments])
    said = capsys.readouterr().err
    assert (1, True, False) == (len(said.splitlines()), text in said, "s3cr3t" in said)


@pytest.fixture(scope="module")
def servers() -> Path:
    """The programs of an environment with the tools' own servers, made once."""
    if not (SERVERS / "bin" / "optuna-dashboard").exists():
        subprocess.run([sys.executable, "-m", "venv", str(SERVERS)], check=True)
        packages = ["mlflow>=3.10", "optuna-dashboard", "tensorboard"]
        install = [sys.executable, "-m", "uv", "pip", "install", "-q", "--python", str(SERVERS / "bin" / "python")]
        subprocess.run([*install, *packages], check=True)
    return SERVERS / "bin"


@contextmanager
def served(*command: str, ready: str) -> Iterator[str]:
    """Run a server on a free port until the block ends; `{port}` stands for it. Yield its address once `ready` answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = [part.format(port=port) for part in command]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    process = subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
    try:
        while True:
            try:
                ask(f"{url}{ready}")
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.3)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def ask(url: str, body: dict | None = None) -> bytes:
    """Return what a server answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read()


@pytest.mark.slow
def test_real_servers_show_the_study(servers, tmp_path):
    """optuna-dashboard, TensorBoard and an MLflow server, as their users start them, show what was exported."""
    study, journal, logs = write(tmp_path / "study.json", ended()), tmp_path / "journal.log", tmp_path / "logs"
    assert 0 == run(["study", "export", study, "--optuna", str(journal), "--tensorboard", str(logs)])

    with served(str(servers / "optuna-dashboard"), "--port", "{port}", str(journal), ready="/api/studies") as url:
        (shown,) = json.loads(ask(f"{url}/api/studies"))["study_summaries"]
        trials = json.loads(ask(f"{url}/api/studies/{shown['study_id']}"))["trials"]
    assert ("week-shoes-mlp", 4) == (shown["study_name"], len(trials))

    board = (str(servers / "tensorboard"), "--port", "{port}", "--logdir", str(logs / "week-shoes-mlp"))
    with served(*board, ready="/data/plugins_listing") as url:
        deadline = time.monotonic() + 60
        while len(json.loads(ask(f"{url}/data/runs"))) < 5:  # it loads in the background
            assert time.monotonic() < deadline
            time.sleep(0.5)
        groups = json.loads(
            ask(
                f"{url}/data/plugin/hparams/session_groups",
                {
                    "experimentName": "",
                    "allowedStatuses": ["STATUS_SUCCESS", "STATUS_FAILURE"],
                    "startIndex": 0,
                    "sliceSize": 9,
                },
            )
        )
    assert 4 == groups["totalSize"]

    store = (
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/m.db",
        "--artifacts-destination",
        str(tmp_path / "artifacts"),
    )
    server = (str(servers / "mlflow"), "server", "--host", "127.0.0.1", "--port", "{port}", "--workers", "1", *store)
    with served(*server, ready="/health") as url:
        assert 0 == run(["study", "export", study, "--mlflow", url])
        found = json.loads(ask(f"{url}/api/2.0/mlflow/runs/search", {"experiment_ids": ["1"]}))["runs"]
    assert 5 == len(found)
    assert list((tmp_path / "artifacts").rglob("trials.csv"))
