"""`study watch`: who works on what, how far it is, the best so far and what is left; and what a terminal gets of it."""

import dataclasses
import json
import os
import pty
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from components.errors import UnavailableError
from components.search import course
from components.search.course import course_of, look
from components.search.study.claims import Timing
from components.search.study.study import Study
from components.stores import open_store
from pipelines.__main__ import run
from pipelines.local.study_view import SILENT_SECONDS, changes
from tests.fakes.gcs import FakeGcs
from tests.fakes.s3 import FakeS3
from tests.pipelines.commands.test_study import SPEC, fill

ROOT = Path(__file__).resolve().parents[3]


class Clock:
    """A clock that a test turns."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def beat(study: Study, worker: str, scores: tuple[float, ...], device_seconds: float, count: int = 1):
    """Let a worker claim a trial, or go on with it, and tell how far it is."""
    claim = study.claim_next(worker, lambda number, _: ({"rate": 0.001 * (number + 1)}, ""))
    study.beat(claim, count, scores, device_seconds, store=study.store)
    return claim


def new_study(root: str, clock: Clock | None = None) -> Study:
    timing = Timing(clock=clock) if clock else Timing()
    return Study.create_or_open(open_store(root), "week-shoes-mlp", SPEC, timing=timing)


def test_running_trials_say_who_where_and_how_long(tmp_path):
    """Epoch, score so far and time left follow from the heartbeat; the study's from its trials and its workers."""
    study = new_study(str(tmp_path))
    beat(study, "worker-0", (0.5, 0.7), 8.0)
    beat(study, "worker-1", (), 0.0)

    seen = look(study)

    first, second = seen.running
    assert ("worker-0", 2, 3, 0.7, 4.0) == (first.worker, first.epoch, first.epochs, first.score, first.seconds_left)
    assert ("worker-1", 0, None, 12.0) == (second.worker, second.epoch, second.score, second.seconds_left)
    assert (4.0 + 12.0 + 2 * 12.0) / 2 == seen.seconds_left
    assert (120.0, False) == (seen.budget_seconds, seen.is_finished)


def test_the_budget_bounds_the_time_left(tmp_path):
    """A study never takes longer than the device-minutes that it has left."""
    study = new_study(str(tmp_path))
    beat(study, "worker-0", (0.5,), 100.0)

    assert 20.0 == look(study).seconds_left


def test_silent_worker_is_shown(tmp_path):
    """A heartbeat that does not change is told with its time; nobody compares clocks of two machines."""
    clock = Clock()
    study = new_study(str(tmp_path), clock)
    beat(study, "worker-0", (0.5,), 4.0)
    watcher = Study.open(open_store(str(tmp_path)), "week-shoes-mlp", timing=Timing(clock=clock))
    before = look(watcher)
    clock.now += SILENT_SECONDS + 12

    now = look(watcher)

    assert ["trial 0: worker-0 has not been heard for 42.0 s"] == list(changes(before, now))
    assert [] == list(changes(now, look(watcher)))


def test_lines_tell_changes_once(tmp_path):
    """Beginning, epochs and end of a trial are one line each."""
    study = new_study(str(tmp_path))
    nothing = look(study)
    claim = beat(study, "worker-0", (), 0.0)
    begun = look(study)
    study.beat(claim, 2, (0.5,), 4.0, store=study.store)
    trained = look(study)

    assert ["trial 0: worker-0 works on it, rate=0.001"] == list(changes(nothing, begun))
    assert ["trial 0: epoch 1 of 3, 0.5000, at most 8.0 s"] == list(changes(begun, trained))
    assert [] == list(changes(trained, trained))
    assert [] == list(changes(nothing, trained, epochs=False))


@pytest.mark.parametrize("scheme", ["path", "gs", "s3"])
def test_watch_once(scheme, tmp_path, monkeypatch, capsys):
    """A local folder and buckets give the same lines, and nothing is written."""
    if scheme == "path":
        fill(str(tmp_path))
        assert 0 == run(["study", "watch", f"{tmp_path}/week-shoes-mlp", "--once"])
    else:
        with FakeGcs() if scheme == "gs" else FakeS3() as fake:
            if scheme == "gs":
                monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.url)
            else:
                monkeypatch.setenv("AWS_ENDPOINT_URL_S3", fake.url)
                for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                    monkeypatch.setenv(name, "harmless")
                monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
            fill(f"{scheme}://bucket/root")
            assert 0 == run(["study", "watch", f"{scheme}://bucket/root/week-shoes-mlp", "--once"])
    said = capsys.readouterr().out

    assert "3 of 4 trials done (1 completed, 1 pruned, 1 diverged, 1 running), 4.5 of 120 device-seconds" in said
    assert "trial 1: pruned after 2 epochs, 0.9000 (best 0.9000, trial 1)" in said
    assert "trial 3: worker-0 works on it, rate=0.004" in said
    assert "\x1b" not in said


def test_json_for_programs(tmp_path, capsys):
    """One object with everything that `show --json` has, and the running trials."""
    fill(str(tmp_path))

    assert 0 == run(["study", "watch", f"{tmp_path}/week-shoes-mlp", "--once", "--json"])
    values = json.loads(capsys.readouterr().out)

    assert [(3, "worker-0", 0, 3)] == [(t["number"], t["worker"], t["epoch"], t["epochs"]) for t in values["running"]]
    assert (0.9, 120.0, False) == (values["best"]["score"], values["budget_seconds"], values["is_finished"])


def test_watch_ends_with_the_study(tmp_path, capsys):
    """What happens while somebody watches is told, and the end of the study ends the command."""
    study = new_study(str(tmp_path))
    claim = beat(study, "worker-0", (0.5,), 4.0)

    def work():
        current = claim
        for _ in range(SPEC.trials):
            time.sleep(0.3)
            trial = course_of(study.ledger(), is_finished=False).ledger.trials[current.number]
            study.finish(dataclasses.replace(trial, status="completed"))
            current = study.claim_next("worker-0", lambda number, _: ({"rate": 0.001 * (number + 1)}, "")) or current

    worker = threading.Thread(target=work)
    worker.start()
    code = run(["study", "watch", f"{tmp_path}/week-shoes-mlp", "--every", "0.2"])
    worker.join()

    said = capsys.readouterr().out
    assert (0, 1) == (code, said.count("trial 0: completed after 1 epoch, 0.5000"))
    assert "4 of 4 trials done (4 completed), 4.0 of 120 device-seconds" in said
    assert 0 == run(["study", "watch", f"{tmp_path}/week-shoes-mlp", "--once"])
    assert 1 == capsys.readouterr().out.count("4 of 4 trials")


def test_store_that_is_away_is_waited_for(tmp_path, monkeypatch, capsys):
    """An outage is told, and the next look is taken."""
    fill(str(tmp_path))
    answers = [UnavailableError("the store must answer; got nothing. Wait"), None]

    def away(study):
        if error := answers.pop(0):
            raise error
        return dataclasses.replace(course.look(study), is_finished=True)

    monkeypatch.setattr("pipelines.local.watching.look", away)

    assert 0 == run(["study", "watch", f"{tmp_path}/week-shoes-mlp", "--every", "0.2"])
    said = capsys.readouterr()
    assert "looking again: the store must answer" in said.err
    assert "nothing" not in said.out


def test_forced_colours_make_no_terminal(tmp_path, capsys, monkeypatch):
    """In notebooks and in CI `FORCE_COLOR` is set; a pipe gets lines there too, and no code that moves a cursor."""
    answers = [UnavailableError("the store must answer; got nothing"), None]

    def away(study):
        if error := answers.pop(0):
            raise error
        return dataclasses.replace(course.look(study), is_finished=True)

    fill(str(tmp_path))
    monkeypatch.setattr("pipelines.local.watching.look", away)
    monkeypatch.setenv("FORCE_COLOR", "1")

    assert 0 == run(["study", "watch", f"{tmp_path}/week-shoes-mlp", "--every", "0.2"])
    said = capsys.readouterr()
    assert "\x1b" not in said.out
    assert said.err.startswith("looking again: the store must answer")


def test_a_terminal_gets_a_table(tmp_path):
    """On a terminal running trials stand above the finished ones, within its lines."""
    study = fill(str(tmp_path))
    claim = study.claim_next("worker-0", lambda *_: ({}, ""))
    assert claim is None
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pipelines", "study", "watch", f"{tmp_path}/week-shoes-mlp", "--once"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "30", "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=ROOT, env=environment, stdout=theirs, stderr=theirs, check=True)
    os.close(theirs)
    said = b""
    while b"nan" not in said:
        said += os.read(ours, 65536)
    os.close(ours)

    text = said.decode()
    assert text.index("score so far") < text.index("hyperparameters")
    assert "0 of 3" in text
