"""What a local run shows while it works, where there is no terminal: one line for each thing that happened."""

import json

import pytest

from components.search.study.study import Study
from components.stores import open_store
from pipelines.local import progress
from pipelines.local.progress import Progress
from tests.pipelines.commands.test_study import SPEC


@pytest.fixture
def shown(tmp_path):
    """A progress without a terminal, with the folder of its run."""
    with Progress(tmp_path, str(tmp_path / "studies"), "local") as made:
        yield made


def test_steps_say_how_far_they_are(tmp_path, shown, capsys):
    """Start, progress and end of a step are a line each."""
    events = [
        {"event": "started", "step": "train-mlp shoes", "time": 100.0},
        {
            "event": "progress",
            "step": "train-mlp shoes",
            "time": 140.0,
            "message": "replicate 1 of 3: epoch 4 of 8, 0.91",
        },
        {"event": "finished", "step": "train-mlp shoes", "time": 180.0},
    ]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))

    shown.update()

    said = [line.partition("] ")[2] for line in capsys.readouterr().err.splitlines()]
    assert ["started", "replicate 1 of 3: epoch 4 of 8, 0.91", "finished after 80 s"] == [
        line.removeprefix("train-mlp shoes: ") for line in said if line.startswith("train-mlp")
    ]


def test_forced_colours_make_no_terminal(tmp_path, capsys, monkeypatch):
    """In notebooks and in CI `FORCE_COLOR` is set; a file gets lines there too, and no live table."""
    monkeypatch.setenv("FORCE_COLOR", "1")

    with Progress(tmp_path, str(tmp_path / "studies"), "local") as shown:
        shown.update()

    said = capsys.readouterr().err
    assert "run started in" in said
    assert "\x1b[?25l" not in said


def test_a_step_that_was_not_seen_starting(tmp_path, shown, capsys):
    """Its progress is shown all the same."""
    event = {"event": "progress", "step": "train-mlp shoes", "time": 140.0, "message": "replicate 1 of 3"}
    (tmp_path / "events.jsonl").write_text(json.dumps(event) + "\n")

    shown.update()
    shown.table()

    assert "train-mlp shoes: replicate 1 of 3" in capsys.readouterr().err


@pytest.mark.parametrize(("quiet", "told"), [(0.0, 1), (1000.0, 0)])
def test_long_trials_tell_their_epochs(tmp_path, shown, capsys, monkeypatch, quiet, told):
    """A study that has said nothing for a while tells each epoch; one that says something every few seconds does not."""
    monkeypatch.setattr(progress, "QUIET_SECONDS", quiet)
    study = Study.create_or_open(open_store(str(tmp_path / "studies")), "local-shoes-mlp", SPEC)
    claim = study.claim_next("worker-0", lambda number, _: ({"rate": 0.001 * (number + 1)}, ""))
    shown.update()
    monkeypatch.setattr(Study, "is_due", lambda _: True)

    study.beat(claim, 1, (0.5,), 4.0, store=study.store)
    shown.update()

    assert told == capsys.readouterr().err.count("study shoes-mlp: trial 0: epoch 1 of 3, 0.5000")
