"""The folder of a local run: what a start with other parameters, of another place or beside another run may change in it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from components.errors import (
    ConfigurationError,
    FashionTuningError,
    ParameterError,
    PermissionDeniedError,
    StorageError,
)
from components.evaluation.kept import PARAMETERS, REPORT, SUMMARY, keep_parameters, keep_result
from components.parameters import RunParameters
from components.search.study.spec import StudySpec, asked_of
from components.search.study.study import Study
from components.stores import open_store
from pipelines.local import run as local_run
from pipelines.local.folder import collect, only_user_of, passes, read_settings, remove_unfinished
from pipelines.local.process import _with_this_python
from pipelines.local.run import RunEndedError, run_here
from pipelines.presets import Asked

OPTIONS = {"containers": False, "message_format": None, "debug": False}


@pytest.fixture
def graph(monkeypatch):
    """What the graph does in place of its steps: it keeps a summary of its parameters, or raises `graph.error`."""

    class Graph:
        error = None

        def __call__(self, out, run_id, parameters, *_):
            if self.error:
                raise self.error
            summary = {"parameters": parameters, "datasets": {}}
            (out / SUMMARY).write_text(json.dumps(summary))
            (out / REPORT).write_text("report")
            run = {"id": run_id, "study_root": parameters["study_root"]}
            keep_result(run, REPORT, out / REPORT)
            keep_parameters(run, parameters)
            keep_result(run, SUMMARY, out / SUMMARY)

    made = Graph()
    monkeypatch.setattr(local_run, "_run", made)
    return made


def asked(*settings, **given):
    return Asked(preset=given.pop("preset", "quickstart"), settings=settings, **given)


def content(out: Path) -> dict[str, bytes]:
    """All files that say what the run was asked for and what it found."""
    files = [*out.glob("parameters.*"), *out.glob("studies/**/*"), out / SUMMARY, out / REPORT]
    return {str(path): path.read_bytes() for path in files if path.is_file()}


def make_study(out: Path):
    """A study of the run as its search step makes it."""
    parameters = read_settings(out)["parameters"]
    asked_for = asked_of("mlp", RunParameters.from_dict(parameters).search)
    spec = StudySpec(approach="mlp", dataset="fashion-mnist", data_hash="0" * 64, **asked_for)
    Study.create_or_open(open_store(parameters["study_root"]), "local-fashion-mnist-mlp", spec)


def test_results_of_other_parameters_take_the_place_of_the_first_ones(tmp_path, graph):
    """They do so when they are there, and `runs list` never shows the first result for the other parameters."""
    out = tmp_path / "out"
    run_here(asked("promote_min_gain=0.1"), out, **OPTIONS)
    graph.error = RunEndedError(70, "broken")
    with pytest.raises(RunEndedError):
        run_here(asked("promote_min_gain=0.2"), out, **OPTIONS)
    kept = out / "studies/runs/local"
    after_failure = json.loads((kept / SUMMARY).read_text())["parameters"]
    graph.error = None
    run_here(Asked(), out, **OPTIONS)

    assert 0.1 == after_failure["promote_min_gain"]
    assert 0.2 == json.loads((kept / SUMMARY).read_text())["parameters"]["promote_min_gain"]
    assert "promote_min_gain: 0.2" in (kept / PARAMETERS).read_text()


@pytest.mark.usefixtures("graph")
def test_another_search_is_refused_before_anything_changes(tmp_path):
    """The studies, their results and what the folder goes on with stay as they are."""
    out = tmp_path / "out"
    run_here(asked(), out, **OPTIONS)
    make_study(out)
    before = content(out)

    with pytest.raises(ParameterError, match=r"trials was 4 and is 3.*take another --out.*Nothing in"):
        run_here(asked("search_trials=3"), out, **OPTIONS)

    assert before == content(out)
    run_here(Asked(), out, **OPTIONS)


@pytest.mark.parametrize("first_end", [64, 143])
def test_what_a_step_refuses_is_not_gone_on_with(tmp_path, graph, first_end):
    """Other data is known only after ingest, perhaps in a later start; what comes back is what the folder holds."""
    out = tmp_path / "out"
    run_here(asked(), out, **OPTIONS)
    before = content(out)
    graph.error = RunEndedError(first_end, "search-mlp: data_hash was ... and is ...")
    with pytest.raises(RunEndedError):
        run_here(asked("data_limit=100"), out, **OPTIONS)
    graph.error = RunEndedError(64, "search-mlp: data_hash was ... and is ...")
    if first_end != 64:
        assert 100 == read_settings(out)["parameters"]["data_limit"]
        with pytest.raises(RunEndedError, match=r"out goes on with what it was started with"):
            run_here(Asked(), out, **OPTIONS)

    assert before == content(out)
    graph.error = None
    run_here(asked("data_limit=100"), out, **OPTIONS)
    assert 100 == read_settings(out)["accepted"]["parameters"]["data_limit"]


@pytest.mark.usefixtures("graph")
def test_a_store_that_does_not_answer_is_noticed_soon(tmp_path, monkeypatch):
    """A run whose studies cannot exist yet does not look for them, and others do not wait as long as a worker would."""
    asked_for = []
    monkeypatch.setattr(local_run, "open_store", lambda uri, **given: asked_for.append(given) or open_store(uri))
    shared = f"study_root={tmp_path / 'shared'}"
    run_here(asked(shared), tmp_path / "out", **OPTIONS)
    unasked = list(asked_for)
    run_here(Asked(), tmp_path / "out", **OPTIONS)

    assert ([], [{"deadline_seconds": 30.0}]) == (unasked, asked_for)


@pytest.mark.usefixtures("graph")
def test_a_folder_that_was_moved_goes_on_where_it_is(tmp_path):
    """Its studies and its sample are found there, and nothing appears in the old place."""
    before, now = tmp_path / "before", tmp_path / "now"
    run_here(asked(), before, **OPTIONS)
    make_study(before)
    (before / "cache").mkdir()
    before.rename(now)
    run_here(Asked(), now, **OPTIONS)

    kept = read_settings(now)
    assert not before.exists()
    assert ("local", str(now / "studies")) == (kept["id"], kept["parameters"]["study_root"])
    assert [f"fashion-mnist={now}/sample/fashion-mnist"] == kept["parameters"]["data_datasets"][:1]
    assert not (now / "cache").exists()
    assert not kept["moved"]


@pytest.mark.usefixtures("graph")
def test_only_paths_of_the_folder_move_with_it(tmp_path):
    """A bucket's prefix and other paths may contain its path; the study root may be the folder itself."""
    before, now = tmp_path / "before", tmp_path / "now"
    elsewhere = tmp_path / "mirror" / str(before).lstrip("/") / "shop"
    elsewhere.mkdir(parents=True)
    bucket, own = f"bags=gs://bucket{before}/bags.zip", f"study_root={before}"
    run_here(asked(own, preset="full", datasets=(f"shop={elsewhere}", bucket)), before, **OPTIONS)
    before.rename(now)

    kept = read_settings(now)["parameters"]
    assert [f"shop={elsewhere}", bucket] == kept["data_datasets"]
    assert str(now) == kept["study_root"]


@pytest.mark.usefixtures("graph")
def test_a_copy_gets_an_id_of_its_own(tmp_path):
    """In one study root two folders must not work on the same studies, nor replace each other's results."""
    shared = f"study_root={tmp_path / 'shared'}"
    run_here(asked(shared), tmp_path / "one", **OPTIONS)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    run_here(Asked(), tmp_path / "two", **OPTIONS)
    run_here(Asked(), tmp_path / "two", **OPTIONS)

    assert 2 == len({read_settings(tmp_path / name)["id"] for name in ("one", "two")})
    assert 2 == len(list((tmp_path / "shared/runs").iterdir()))


@pytest.mark.usefixtures("graph")
def test_sources_mean_the_same_in_every_directory(tmp_path, monkeypatch):
    """A run goes on and is repeated from anywhere."""
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    uris = (f"hats=file:{tmp_path}/mine", f"belts=file://{tmp_path}/mine", "gloves=s3://bucket/a=b#sha256=" + "0" * 64)
    run_here(
        asked(preset="full", datasets=("shoes=mine", "bags=~/mine", "fashion-mnist", *uris)),
        tmp_path / "out",
        **OPTIONS,
    )

    expected = [f"shoes={tmp_path}/mine", f"bags={tmp_path}/mine", "fashion-mnist", *uris]
    assert expected == read_settings(tmp_path / "out")["parameters"]["data_datasets"]


@pytest.mark.usefixtures("graph")
@pytest.mark.parametrize("parameter", ["study_root=~nosuch/studies", "train_weights=~nosuch/weights.pth"])
def test_an_unknown_home_is_a_path_like_any_other(tmp_path, monkeypatch, parameter):
    """It is no defect of the program."""
    monkeypatch.chdir(tmp_path)
    run_here(asked(parameter), tmp_path / "out", **OPTIONS)

    name, _, path = parameter.partition("=")
    assert read_settings(tmp_path / "out")["parameters"][name].endswith(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"parameters": {}, "containers": false}',
        '{"parameters": {"study_root": 5, "train_weights": "", "data_datasets": []}, "containers": false}',
    ],
)
def test_damaged_settings_are_refused(tmp_path, text):
    """One line says which file is wrong."""
    (tmp_path / "parameters.json").write_text(text)

    with pytest.raises(StorageError, match=r"parameters.json must hold the parameters of the first start; got .*Use"):
        read_settings(tmp_path)


def test_the_newest_pass_is_not_told_by_its_name(tmp_path):
    """A clock may be set back, or summer time may end."""
    for name in ("pipeline-2026-11-26-10", "pipeline-2026-11-26-09"):
        earlier = passes(tmp_path)
        for file in ("report/html", "promote/summary"):
            path = tmp_path / "artifacts" / name / file
            path.parent.mkdir(parents=True)
            path.write_text(name)
    collect(tmp_path, earlier)

    assert ["pipeline-2026-11-26-09"] * 2 == [(tmp_path / name).read_text() for name in (SUMMARY, REPORT)]


def test_unfinished_steps_leave_nothing(tmp_path):
    """What a stopped or failed step wrote is deleted before the run goes on; a finished one's files stay."""
    finished = [tmp_path / name for name in ("plan", "for-loop-1-iteration-0/ingest")]
    stopped = [tmp_path / name for name in ("report", "for-loop-1-iteration-0/for-loop-2-iteration-1/train-resnet18")]
    for step in (*finished, *stopped):
        (step / "model").mkdir(parents=True)
        (step / "model" / "model.onnx").write_bytes(b"half of it")
    for step in finished:
        (step / "executor_output.json").write_text("{}")

    remove_unfinished(tmp_path)

    assert sorted(finished) == sorted(path.parents[1] for path in tmp_path.rglob("model.onnx"))
    assert [] == [step for step in stopped if step.exists()]


def test_a_child_keeps_the_folder_in_use(tmp_path):
    """Where the command is killed, its runner still works for some seconds; a second run must not begin beside it."""
    with only_user_of(tmp_path) as lock:
        command = [sys.executable, "-c", "input()"]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(lock.fileno(),))
    with pytest.raises(ConfigurationError, match="in use"), only_user_of(tmp_path):
        pass
    child.communicate(b"\n", timeout=30)
    with only_user_of(tmp_path):
        pass


def test_a_folder_that_may_not_be_written(tmp_path, monkeypatch):
    """It is a permission that is missing."""

    def refuse(*_args, **_options):
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(
        PermissionDeniedError, match=r"--out .* must be a folder that can be written; got Permission denied"
    ):
        only_user_of(tmp_path / "out").__enter__()


def test_only_the_interpreter_is_replaced():
    """A path or a parameter may contain python3."""
    command = ["python3", "-m", "components", "ingest", '{"source": "/data/python3-course"}', "--root=gs://python3/x"]

    assert ["/venv/bin/python", *command[1:]] == _with_this_python(command, "/venv/bin/python")


def test_a_signal_at_the_end_does_not_hide_how_the_run_ended(tmp_path, monkeypatch):
    """While steps are ended and secrets struck out of the log, nothing interrupts that."""
    ended = SimpleNamespace(poll=lambda: 1, returncode=1)
    monkeypatch.setattr(local_run.subprocess, "Popen", lambda *_given, **_options: ended)
    monkeypatch.setattr(local_run, "_stop", lambda _child: os.kill(os.getpid(), signal.SIGTERM))

    with pytest.raises(FashionTuningError, match="the runner ended with exit code 1"):
        run_here(asked(), tmp_path / "out", **OPTIONS)
    assert signal.SIG_IGN != signal.getsignal(signal.SIGTERM)
