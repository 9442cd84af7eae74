import dataclasses
import json

import numpy as np
import onnxruntime
import pytest

from components import training
from components.errors import DataError, FashionTuningError
from components.models.contract import TrialDivergedError
from components.models.facts import read_metadata
from components.models.mlp import training as mlp
from components.parameters import TrainSettings
from components.runtime import EVENTS_VARIABLE, step
from components.search.study.checkpoints import Checkpoints
from components.search.trial import Ledger, replicate_seed, trial_seed
from components.stores import open_store
from components.training import train_final
from tests.models.examples import make_ledger, make_train_data

WINNER = {
    "units_1": 16,
    "activation_1": "relu",
    "units_2": 8,
    "activation_2": "relu",
    "learning_rate": 0.01,
    "optimizer": "Adam",
}
SETTINGS = TrainSettings(replicates=2, weights="gs://bucket/imagenet", epochs=3, seed=7)


@pytest.fixture
def data():
    return make_train_data(120)


def onnx_metadata(path):
    return read_metadata(onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map)


def test_writes_the_model_directory(data, tmp_path):
    """One ONNX per seed, the best of them as the model, native weights, and everything a reader needs to know."""
    ledger = make_ledger("mlp", WINNER)

    described = train_final(mlp, train_data=data, ledger=ledger, settings=SETTINGS, model_dir=tmp_path)

    assert described == json.loads((tmp_path / "model.json").read_text())
    assert [replicate_seed(7, 0), replicate_seed(7, 1)] == described["seeds"]
    assert WINNER == described["hyperparameters"]
    assert ledger == Ledger.load(tmp_path / "study.json")
    assert {"model.onnx", "model.json", "model.keras", "study.json", "trials.csv", "replicates"} == {
        p.name for p in tmp_path.iterdir()
    }
    best = max(described["replicates"], key=lambda r: r["validation_accuracy"])
    assert best["validation_accuracy"] == described["validation_accuracy"]
    chosen = (tmp_path / "replicates" / f"{described['best_seed']}.onnx").read_bytes()
    assert chosen == (tmp_path / "model.onnx").read_bytes()
    assert len(chosen) == described["model_bytes"]
    for seed in described["seeds"]:
        said = onnx_metadata(tmp_path / "replicates" / f"{seed}.onnx")
        assert {**{name: described[name] for name in said if name != "seed"}, "seed": seed} == said
        assert {"classes", "image", "picture_rule", "data_hash", "data_licence", "hyperparameters", "versions"} <= set(
            said
        )


def test_the_default_configuration_is_trained_beside_the_winner(data, tmp_path):
    """Unless it won, the space's default is trained once, with a seed of its own, exported, and its time counted."""
    space = mlp.SPACES["described"]
    studied = make_ledger("mlp", WINNER)
    ledger = dataclasses.replace(studied, spec={**studied.spec, "space": space.to_json()})

    described = train_final(mlp, train_data=data, ledger=ledger, settings=SETTINGS, model_dir=tmp_path)

    default = described["default"]
    assert (space.defaults, False, replicate_seed(7, 2)) == (
        default["hyperparameters"],
        default["is_winner"],
        default["seed"],
    )
    assert 0 < default["validation_accuracy"] <= 1
    trained = sum(r["device_seconds"] for r in described["replicates"])
    assert described["device_seconds"] == pytest.approx(trained + default["device_seconds"])
    assert (tmp_path / "default.onnx").read_bytes() != (tmp_path / "model.onnx").read_bytes()
    said = onnx_metadata(tmp_path / "default.onnx")
    assert (space.defaults, default["seed"]) == (said["hyperparameters"], said["seed"])


def test_a_default_that_won_is_not_trained_again(data, tmp_path):
    """Where the search ends where it began, model.json says so and an old `default.onnx` goes."""
    space = mlp.SPACES["described"]
    studied = make_ledger("mlp", space.defaults)
    ledger = dataclasses.replace(studied, spec={**studied.spec, "space": space.to_json()})
    (tmp_path / "default.onnx").write_bytes(b"old")

    described = train_final(mlp, train_data=data, ledger=ledger, settings=SETTINGS, model_dir=tmp_path)

    assert {"hyperparameters": space.defaults, "is_winner": True} == described["default"]
    assert not (tmp_path / "default.onnx").exists()


def test_a_default_that_diverges_costs_the_comparison_only(data, tmp_path, monkeypatch):
    """The winner's model is written whatever becomes of the default configuration."""
    space = mlp.SPACES["described"]
    studied = make_ledger("mlp", WINNER)
    ledger = dataclasses.replace(studied, spec={**studied.spec, "space": space.to_json()})
    fit = mlp.Trainer.fit

    def diverging(self, hyperparameters, **options):
        if hyperparameters == space.defaults:
            raise TrialDivergedError("loss became NaN in epoch 1")
        return fit(self, hyperparameters, **options)

    monkeypatch.setattr(mlp.Trainer, "fit", diverging)

    described = train_final(mlp, train_data=data, ledger=ledger, settings=SETTINGS, model_dir=tmp_path)

    assert "loss became NaN in epoch 1" == described["default"]["error"]
    assert (tmp_path / "model.onnx").exists()
    assert not (tmp_path / "default.onnx").exists()


def test_goes_on_from_a_checkpoint(data, tmp_path):
    """A training that was killed after an epoch ends with the model of one that was not."""
    store = open_store(str(tmp_path / "store"))

    def checkpoints(part, binding):
        return Checkpoints(store / part, binding=binding)

    settings = TrainSettings(replicates=1, weights="", epochs=3, seed=0)
    whole = train_final(
        mlp, train_data=data, ledger=make_ledger("mlp", WINNER), settings=settings, model_dir=tmp_path / "whole"
    )
    seed = replicate_seed(0, 0)
    binding = {"hyperparameters": WINNER, "seed": seed, "epochs": 3, "weights": "", "data_hash": data.info.content_hash}

    class KilledError(Exception):
        pass

    def save_and_die(epoch, _score, state):
        checkpoints(f"replicates/{seed}", binding).save(epoch, state(), {"device_seconds": 100.0})
        raise KilledError

    with pytest.raises(KilledError):
        mlp.Trainer(data).fit(WINNER, epochs=3, seed=seed, on_epoch=save_and_die)
    resumed = train_final(
        mlp,
        train_data=data,
        ledger=make_ledger("mlp", WINNER),
        settings=settings,
        model_dir=tmp_path / "resumed",
        checkpoints=checkpoints,
    )

    assert whole["replicates"][0]["scores"] == resumed["replicates"][0]["scores"]
    assert (tmp_path / "whole" / "model.onnx").read_bytes() == (tmp_path / "resumed" / "model.onnx").read_bytes()
    assert resumed["device_seconds"] > 100


def test_no_replicate_repeats_the_training_of_a_trial(data, tmp_path):
    """The same seed gives the same training bit for bit, so replicates have seeds that no trial has."""
    trainer = mlp.Trainer(data)
    trials = [trainer.fit(WINNER, epochs=2, seed=trial_seed(0, number)) for number in (0, 1, 0)]
    settings = TrainSettings(replicates=2, weights="", epochs=2, seed=0)
    described = train_final(
        mlp, train_data=data, ledger=make_ledger("mlp", WINNER), settings=settings, model_dir=tmp_path
    )
    again = [trainer.fit(WINNER, epochs=2, seed=seed) for seed in described["seeds"]]

    def kernel(result):
        return result.weights["dense_1/kernel"].tobytes()

    assert kernel(trials[0]) == kernel(trials[2])
    assert 4 == len({kernel(result) for result in (*trials[:2], *again)})
    assert [r["scores"] for r in described["replicates"]] == [list(result.scores) for result in again]


def test_a_study_without_a_usable_trial_is_bad_data(data, tmp_path):
    """Nothing is trained where no trial has a score."""
    with pytest.raises(DataError, match="must hold a trial with a score"):
        train_final(
            mlp, train_data=data, ledger=make_ledger("mlp", WINNER, score=None), settings=SETTINGS, model_dir=tmp_path
        )


def test_replicates_that_all_diverge_are_bad_data(data, tmp_path):
    """The error names every seed's fate."""
    ledger = make_ledger("mlp", WINNER | {"learning_rate": 1e30, "optimizer": "SGD"})

    with pytest.raises(DataError, match=rf"seed {replicate_seed(7, 0)}: .*seed {replicate_seed(7, 1)}: "):
        train_final(mlp, train_data=data, ledger=ledger, settings=SETTINGS, model_dir=tmp_path)


@pytest.mark.parametrize("difference", [0.01, np.nan])
def test_an_unfaithful_export_is_refused(data, tmp_path, monkeypatch, difference):
    """A model that answers differently after export is never handed on."""
    monkeypatch.setattr(mlp, "onnx_difference", lambda *_: difference)
    settings = TrainSettings(replicates=1, weights="", epochs=1, seed=0)

    with pytest.raises(FashionTuningError, match="must differ by at most"):
        train_final(
            mlp, train_data=data, ledger=make_ledger("mlp", WINNER), settings=settings, model_dir=tmp_path / "model"
        )
    assert not (tmp_path / "model" / "model.json").exists()


def test_checkpoints_are_rationed(data, monkeypatch):
    """Between two checkpoints lies a minute, but the finished replicate is always kept."""
    saved = []

    class Recorder:
        def latest(self):
            return None

        def save(self, step, state, meta):
            saved.append((step, len(state), meta))

    best = make_ledger("mlp", WINNER).best()
    training._train_replicate(mlp.Trainer(data), best, 3, 0, Recorder(), "replicate 1 of 1")
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    training._train_replicate(mlp.Trainer(data), best, 3, 0, Recorder(), "replicate 1 of 1")

    assert [3, 1, 2, 3] == [step for step, _, _ in saved]


def test_a_long_training_says_how_far_it_is(data, tmp_path, monkeypatch):
    """A local run hears of each epoch that comes half a minute after the last word, and of the end of each training."""
    events = tmp_path / "events.jsonl"
    monkeypatch.setenv(EVENTS_VARIABLE, str(events))
    monkeypatch.setattr(training, "PROGRESS_SECONDS", 0.0)
    settings = TrainSettings(replicates=1, weights="", epochs=2, seed=0)

    with step("train-mlp shoes"):
        train_final(mlp, train_data=data, ledger=make_ledger("mlp", WINNER), settings=settings, model_dir=tmp_path)

    said = [json.loads(line) for line in events.read_text().splitlines()]
    words = [event["message"].partition(", ")[0] for event in said if event["event"] == "progress"]
    assert [f"replicate 1 of 1: {word}" for word in ("epoch 1 of 2", "epoch 2 of 2", "done")] == words
    assert {"train-mlp shoes"} == {event["step"] for event in said}
