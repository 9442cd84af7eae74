"""One approach on one dataset: searched, trained, scored; and trained from another study without a search."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.data.sample.sample import write_sample
from pipelines.local.folder import only_user_of
from tests.once import once

ROOT = Path(__file__).resolve().parents[3]
TINY = ("data_limit=300", "search_trials=2", "search_epochs=1", "train_replicates=2")
pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


def tune(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pipelines", "tune", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)


def settings(*given: str) -> list[str]:
    return [flag for setting in given for flag in ("--set", setting)]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> tuple[str, Path, str]:
    """A study of two trials with a final training of two seeds: dataset, folder, what was printed."""

    def make(folder: Path) -> None:
        write_sample(folder / "sample")
        dataset = f"fashion-mnist={folder / 'sample' / 'fashion-mnist'}"
        ended = tune("mlp", dataset, "--out", str(folder / "out"), *settings(*TINY))
        assert 0 == ended.returncode, ended.stderr
        (folder / "stdout").write_text(ended.stdout)

    folder = once(tmp_path_factory, "tuned", make)
    return f"fashion-mnist={folder / 'sample' / 'fashion-mnist'}", folder / "out", (folder / "stdout").read_text()


def test_tune_searches_trains_and_scores(tuned, tmp_path):
    """A study and two seeds; the study's best trial can then be trained elsewhere without a search."""
    dataset, out, stdout = tuned
    trained = json.loads((out / "model" / "model.json").read_text())
    study = out / "studies" / "fashion-mnist-mlp"

    assert stdout.splitlines()[-1].startswith("mean of 2: test accuracy 0.")
    assert 2 == len(list(study.glob("trials/*/result.json")))

    left = tmp_path / "other" / ".ingest-left"  # by a start that was killed
    left.mkdir(parents=True)
    file = tmp_path / "parameters.yaml"
    file.write_text("data_limit: 300\nsearch_epochs: 1\ntrain_replicates: 2\npromote_champion: false\n")
    again = tune(
        "mlp", dataset, "--out", str(tmp_path / "other"), "--study", str(study), "--parameters", str(file), "--json"
    )

    assert 0 == again.returncode, again.stderr
    assert not left.exists()
    assert 2 == len(json.loads(again.stdout)["evaluation"]["replicates"])
    reused = json.loads((tmp_path / "other" / "model" / "model.json").read_text())
    assert trained["hyperparameters"] == reused["hyperparameters"]
    assert trained["validation_accuracy"] == reused["validation_accuracy"]
    assert not (tmp_path / "other" / "studies").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["svm", "fashion-mnist"], "svm"),
        (["mlp", "no-such-thing"], "no-such-thing"),
        (["mlp", "fashion-mnist=/no/such/folder"], "/no/such/folder"),
        (["mlp", "fashion-mnist", "--set", "promote_champion=false"], "promote_champion"),
        (["mlp", "fashion-mnist", "--set", "search_trials=-1"], "search_trials"),
    ],
)
def test_usage_errors_are_one_line(tmp_path, arguments, text):
    """A wrong approach, name, path or parameter ends with exit code 64 and one line, and nothing is written."""
    ended = tune(*arguments, "--out", str(tmp_path / "out"))

    assert (64, 1) == (ended.returncode, len(ended.stderr.strip().splitlines())), ended.stderr
    assert text in ended.stderr
    assert not (tmp_path / "out").exists()


def test_a_study_that_does_not_fit_changes_nothing(tuned, tmp_path):
    """Other data or another budget for a finished study ends with 64 and the way out; a study of another name goes on."""
    dataset, out = tuned[0], tmp_path / "out"
    shutil.copytree(tuned[1], out)
    before = {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}

    refused = tune("mlp", dataset, "--out", str(out), *settings(*TINY[1:], "data_limit=290", "search_trials=3"))

    errors = [line for line in refused.stderr.splitlines() if line.startswith("ERROR")]  # TensorFlow greets, too
    assert (64, 1) == (refused.returncode, len(errors)), refused.stderr
    assert all(word in errors[0] for word in ("data_hash was", "trials was 2 and is 3", "--study-name NAME"))
    assert before == {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}

    longer = tune("mlp", dataset, "--out", str(out), "--study-name", "longer", *settings(*TINY))
    assert 0 == longer.returncode, longer.stderr
    seeds = [json.loads(path.read_text()) for path in sorted((out / "studies/longer").glob("trials/*/params.json"))]
    assert 2 == len(seeds)
    assert any(seed["reused_from"].startswith("fashion-mnist-mlp/") for seed in seeds)


def test_two_in_one_folder_are_refused(tuned, tmp_path):
    """They would delete each other's data."""
    with only_user_of(tmp_path):
        ended = tune("mlp", tuned[0], "--out", str(tmp_path), *settings(*TINY))

    assert 78 == ended.returncode
    assert "is in use by another run" in ended.stderr
