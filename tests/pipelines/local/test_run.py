"""The whole job on this machine: a tiny run of the compiled graph, resumed, stopped, and refused."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from components.evaluation.champion.gate import show
from components.models.facts import read_metadata
from pipelines.__main__ import run as main
from pipelines.local.run import _run_id
from pipelines.presets import Asked, default_parameters
from tests.once import once

ROOT = Path(__file__).resolve().parents[3]
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
TINY = {
    "data_limit": 300,
    "search_trials": 2,
    "search_workers": 2,
    "search_epochs": 1,
    "train_replicates": 1,
}


OUT = "python3-out"
"""kfp replaces `python3` in a step's command by the interpreter's path, and must not do so in the folder's name."""


def run(*arguments: str, timeout: float = 600) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pipelines", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)


def pids_of(out: Path) -> str:
    """Processes that name the run's folder on their command line, as the runner and all steps do."""
    return subprocess.run(["pgrep", "-f", str(out)], capture_output=True, text=True, check=False).stdout


def settings(**changes) -> list[str]:
    return [flag for name, value in (TINY | changes).items() for flag in ("--set", f"{name}={json.dumps(value)}")]


def start(out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "pipelines", "run", "--preset", "quickstart", "--out", str(out), *settings()]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_event(out: Path, text: str, child: subprocess.Popen, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    path = out / "events.jsonl"
    while not (path.exists() and text in path.read_text()) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)


def trained(out: Path) -> dict[str, int]:
    """Models of finished steps, and when each was written."""
    steps = [path.parent for path in (out / "artifacts").rglob("executor_output.json")]
    return {str(p): p.stat().st_mtime_ns for step in steps for p in step.glob("model/model.onnx")}


def started(out: Path) -> list[str]:
    """Names of the steps that the newest start of a run began, in order."""
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    return [event["step"] for event in events if event["event"] == "started"]


def results(out: Path) -> dict[str, str]:
    return {str(path): path.read_text() for path in (out / "studies").glob("*/trials/*/result.json")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, dict]:
    """A run of both approaches on both formats of the generated sample, stopped after its first training and gone on with.

    The folder, and what each of the two starts said and left.
    """

    def stop_and_go_on(folder: Path) -> None:
        out = folder / OUT
        with start(out) as child:
            wait_for_event(out, '"event": "started", "step": "evaluate', child, 600)
            os.kill(child.pid, signal.SIGTERM)
            _, errors = child.communicate(timeout=90)
        stopped = {"code": child.returncode, "stderr": errors, "processes": pids_of(out)}
        kept = {"results": results(out), "trained": trained(out), "started": started(out)}
        ended = run("run", "--out", str(out))
        assert 0 == ended.returncode, ended.stderr + (out / "run.log").read_text()[-4000:]
        said = {"stopped": stopped, "kept": kept, "stdout": ended.stdout, "stderr": ended.stderr}
        (folder / "said.json").write_text(json.dumps(said))

    folder = once(tmp_path_factory, "run", stop_and_go_on)
    return folder / OUT, json.loads((folder / "said.json").read_text())


def test_run_answers_the_question(finished):
    """Both datasets, both approaches, every figure of the summary's schema, a report and a verdict."""
    out, said = finished
    summary = json.loads((out / "summary.json").read_text())

    assert 1 == summary["schema"]
    assert {"fashion-mnist", "fashion-products"} == set(summary["datasets"])
    for part in summary["datasets"].values():
        assert {"mlp", "resnet18"} == set(part["approaches"])
        assert {"hash", "classes", "train", "validation", "test", "quarantined", "repaired", "duplicate_groups"} <= set(
            part["data"]
        )
        for scores in part["approaches"].values():
            low, high = scores["accuracy_ci95"]
            assert 0 <= low <= scores["accuracy"] <= high <= 1
            assert 2 == sum(scores["trials"].values())
            assert {"batch_1", "batch_256"} == set(scores["latency_ms"])
        assert part["comparison"]["verdict"] in said["stdout"]
        assert {"decision", "version"} <= set(part["champion"])
    assert "<html" in (out / "report.html").read_text()[:1000]
    assert [] == list((out / "studies").glob("*/replicates/*/*")), "only a retry needs a final training's checkpoints"


def test_every_model_explains_itself(finished):
    """Each ONNX of both approaches names its classes, images and data, and `model.json` says the same."""
    out, _ = finished
    models = sorted((out / "artifacts").rglob("model.onnx"))
    seen = set()
    for path in models:
        described = json.loads((path.parent / "model.json").read_text())
        seen.add((described["dataset"], described["approach"]))
        said = read_metadata(onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map)
        assert described | {"seed": described["best_seed"]} == described | said
        assert {"classes", "image", "picture_rule", "data_hash", "data_licence", "hyperparameters", "versions"} <= set(
            said
        )

    assert {(name, a) for name in ("fashion-mnist", "fashion-products") for a in ("mlp", "resnet18")} == seen


def test_the_champion_answers_as_it_was_judged(finished, tmp_path):
    """`predict` with the run's champion gives evaluate's answer for every test image, to the last bit."""
    out, _ = finished
    records = [(path.parent, json.loads(path.read_text())) for path in (out / "artifacts").rglob("evaluation.json")]
    for name in ("fashion-mnist", "fashion-products"):
        (champion,) = show(str(out / "studies"), name)
        evaluation = next(e for e, r in records if (r["dataset"], r["approach"]) == (name, champion["approach"]))
        with np.load(evaluation / "predictions.npz") as arrays:
            probabilities = arrays["probabilities"]
        expected = [(champion["classes"][row.argmax()], row.max()) for row in probabilities]
        tested = next(
            p for p in (out / "artifacts").rglob("test_data/dataset.json") if json.loads(p.read_text())["name"] == name
        )
        asked = [name, str(tested.parent / "images.npy"), "--study-root", str(out / "studies")]

        assert 0 == main(["predict", *asked, "--out", str(tmp_path / name)])

        with (tmp_path / name).open(encoding="utf-8", newline="") as file:
            told = [(row["class"], np.float32(row["probability"])) for row in csv.DictReader(file)]
        assert expected == told


def test_run_is_quiet(finished):
    """The terminal shows steps, trials and the result; the runner's chatter is in the log."""
    out, said = finished

    assert "KFP" not in said["stderr"] + said["stdout"]
    assert "search-mlp worker-0 fashion-mnist: finished" in said["stderr"]
    assert "Executing task" in (out / "run.log").read_text()


def test_stopped_run_goes_on(finished):
    """SIGTERM ends every process and says how to go on; started again, the run keeps each trial and each finished training.

    A training counts as finished once a step that needs it has begun: the signal may hit another one between its model's
    last byte and the runner's note of it, and that one is trained again.
    """
    out, said = finished
    kept, stopped = said["kept"], said["stopped"]

    assert 143 == stopped["code"], stopped["stderr"]
    assert f"--out {out}" in stopped["stderr"].strip().splitlines()[-1]
    assert "" == stopped["processes"]
    assert len(kept["results"]) >= 2
    assert kept["results"].items() <= results(out).items()
    assert len(kept["trained"]) >= 1
    assert kept["trained"].items() <= trained(out).items()
    evaluated = {step.partition(" ")[2] for step in kept["started"] if step.startswith("evaluate ")}
    trained_again = {s.removeprefix("train-") for s in started(out) if s.startswith("train-")}
    assert evaluated
    assert set() == evaluated & trained_again, "nothing was trained twice"
    steps = {path for place in ("train-*", "evaluate*") for path in (out / "artifacts").glob(f"*/for-loop-*/{place}")}
    assert [] == [step for step in steps if not (step / "executor_output.json").exists()], "half-written steps are gone"


def test_run_prints_its_result_as_json(finished, monkeypatch, capsys):
    """With --json, stdout has where the report is and the whole summary."""
    out, _ = finished
    monkeypatch.setattr("pipelines.local.run.run_here", lambda *_, **__: 1.0)

    assert 0 == main(["run", "--out", str(out), "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert (str(out / "report.html"), json.loads((out / "summary.json").read_text())) == (
        printed["report"],
        printed["summary"],
    )


def test_run_leaves_the_file_that_repeats_it(finished, tmp_path):
    """`--parameters` with the run's file asks for the same, but for a study root of its own; only the owner may read it."""
    out, _ = finished
    file = out / "parameters.yaml"
    repeated = Asked(file=file).parameters(default_parameters(str(tmp_path)))
    kept = json.loads((out / "parameters.json").read_text())["parameters"]

    assert kept | {"study_root": str(tmp_path)} == repeated
    assert 0o600 == file.stat().st_mode & 0o777


def test_bad_parameters_are_reported_together_at_once(tmp_path):
    """Unknown dataset, negative trials, words, NaN: one line, exit 64, in seconds, and nothing is written."""
    out = tmp_path / "out"
    wrong = settings(search_trials=-1, search_epochs="ten", search_minutes="NaN")
    started = time.monotonic()

    ended = run("run", "--dataset", "no-such-thing", "--out", str(out), *wrong)

    assert 64 == ended.returncode
    assert 1 == len(ended.stderr.strip().splitlines())
    assert [] == [
        n for n in ("no-such-thing", "search_trials", "search_epochs", "search_minutes") if n not in ended.stderr
    ]
    assert time.monotonic() - started < 20  # alone on two cores about 3 s
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["run", "--set", "search_trials"], 64, "PARAM=VALUE"),
        (["run", "--set", "serch_trials=3"], 64, "serch_trials"),
        (["run", "--set", "data_datasets=[]"], 64, "data_datasets"),
        (["run", "--bogus"], 64, "--bogus"),
        (["run", "--preset", "huge"], 64, "huge"),
        (["no-such-command"], 64, "no-such-command"),
        (["run", "--dataset", "fashion-mnist=/no/such/folder"], 64, "/no/such/folder"),
    ],
)
def test_usage_errors_are_one_line(tmp_path, arguments, code, text):
    """A wrong flag, name or path ends with its exit code and one line that names it."""
    out = ["--out", str(tmp_path / "out")] if arguments[0] == "run" else []

    ended = run(*arguments, *out)

    assert (code, 1) == (ended.returncode, len(ended.stderr.strip().splitlines())), ended.stderr
    assert text in ended.stderr


def test_failing_step_ends_the_run_with_its_own_line(tmp_path):
    """A source that is no archive ends the run with ingest's line and exit code 65."""
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"this is no archive")

    ended = run("run", "--dataset", f"fashion-products={broken}", "--out", str(tmp_path / "out"), *settings())

    assert 65 == ended.returncode, ended.stderr
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("ERROR 65 run: ingest fashion-products")


def test_interrupted_run_leaves_no_process(tmp_path):
    """Ctrl-C in the middle ends every process within seconds and says how to go on."""
    out = tmp_path / "out"
    with start(out) as child:
        wait_for_event(out, "{", child, 120)
        time.sleep(1)
        os.kill(child.pid, signal.SIGINT)
        _, errors = child.communicate(timeout=90)

    assert 130 == child.returncode, errors
    assert f"--out {out}" in errors.strip().splitlines()[-1]
    assert "" == pids_of(out)


def test_killed_run_leaves_no_process(tmp_path):
    """Where the run is killed without warning, runner and steps end by themselves."""
    out = tmp_path / "out"
    with start(out) as child:
        wait_for_event(out, "{", child, 120)
        child.kill()
        child.communicate(timeout=30)
    deadline = time.monotonic() + 60
    while (left := pids_of(out)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert "" == left


DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
ORPHAN = """
import subprocess, sys
from pipelines.local import process
process.LEAVE_SECONDS = 1.0
step = subprocess.Popen([sys.executable, "-c", {deaf!r}], stdout=subprocess.PIPE)
step.stdout.readline()
print(step.pid, flush=True)
process._end_with(-1, containers=False)
"""


def test_a_step_that_does_not_hear_is_ended_too():
    """Where the run is gone, a step that is deep in a library's code and takes no signal does not go on for ever."""
    command = [sys.executable, "-c", ORPHAN.format(deaf=DEAF)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as child:
        step = int(child.stdout.readline())
        started = time.monotonic()
        child.communicate(timeout=60)
    while Path(f"/proc/{step}").exists() and time.monotonic() - started < 10:
        time.sleep(0.1)

    assert -signal.SIGKILL == child.returncode
    assert not Path(f"/proc/{step}").exists()


def test_two_runs_in_one_folder_are_refused(tmp_path):
    """A second run in a folder that is in use changes nothing and says so."""
    import fcntl

    out = tmp_path / "out"
    out.mkdir()
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = run("run", "--preset", "quickstart", "--out", str(out))

    assert 78 == ended.returncode
    assert "in use" in ended.stderr


def test_runs_with_one_study_root_have_names_of_their_own(tmp_path):
    """A run goes on under its own name; another folder's run in the same study root gets another one."""
    own, shared = str(tmp_path / "a" / "studies"), str(tmp_path / "shared")
    first = _run_id(None, shared, tmp_path / "a")
    kept = {"id": first, "parameters": {"study_root": shared}}

    assert "local" == _run_id(None, own, tmp_path / "a")
    assert first == _run_id(kept, shared, tmp_path / "a")
    assert first.startswith("local-")
    assert first != _run_id(None, shared, tmp_path / "b")
    assert "local" not in (_run_id(kept, "s3://bucket/root", tmp_path / "a"), _run_id(None, "gs://b/r", tmp_path))


@pytest.mark.slow
def test_local_runs_learn_from_each_other(tmp_path):
    """Two runs with one study root: the second begins with what the first found, and challenges its champion."""
    shared = ["--set", f"study_root={tmp_path / 'shared'}"]
    runs = [tmp_path / "one", tmp_path / "two"]
    for number, out in enumerate(runs):
        ended = run("run", "--preset", "quickstart", "--out", str(out), *settings(search_trials=2 + number), *shared)
        assert 0 == ended.returncode, ended.stderr
        assert "trials" in ended.stderr  # of the studies in the shared root

    first, second = (json.loads((out / "summary.json").read_text()) for out in runs)
    studies = {path.parent.name for path in (tmp_path / "shared").glob("local-*/spec.json")}
    versions = [part["champion"]["decision"] for part in second["datasets"].values()]
    reused = re.findall(r"warm start with (\d+) earlier trials", (runs[1] / "run.log").read_text())
    assert 8 == len(studies)
    assert {"first"} == {part["champion"]["decision"] for part in first["datasets"].values()}
    assert "first" not in versions
    assert {"2"} == set(reused)
