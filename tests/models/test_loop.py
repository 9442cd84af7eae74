import contextlib
import math
from typing import ClassVar

import numpy as np
import pytest

from components.models import loop
from components.models.contract import TrialDivergedError, TrialOutOfMemoryError

SCORES = [0.5, 0.7, 0.6, 0.7]


class Told:
    """A training that says what it is told to do, and scores as planned."""

    num_parameters, peak_memory_bytes = 3, 0

    def __init__(self, losses=None, error=None):
        self.losses, self.error = losses or {}, error
        self.calls, self.epoch, self.best, self.inside = [], 0, 0, False

    def restore(self, state):
        self.epoch, self.best = int(state["epoch"]), int(state["best"])
        self.calls.append(f"restore {self.epoch}")

    def train_epoch(self, epoch):
        if self.error:
            raise self.error
        self.epoch = epoch
        self.calls.append(f"train {epoch}")
        return self.losses.get(epoch, 0.1)

    @contextlib.contextmanager
    def averaged(self):
        self.inside = True
        yield
        self.inside = False

    def accuracy(self):
        assert self.inside
        return SCORES[self.epoch - 1]

    def keep(self):
        assert self.inside
        self.best = self.epoch
        self.calls.append(f"keep {self.epoch}")

    def state(self):
        return {"epoch": np.array(self.epoch), "best": np.array(self.best)}

    def best_weights(self):
        return {"best": np.array(self.best)}


class Trainer(loop.EpochTrainer):
    recipe: ClassVar = {"rate": 0.1}

    def __init__(self, training, free):
        self.training, self.free = training, free

    def begin(self, hyperparameters, epochs, seed):
        assert ({"rate": 0.1, "units": 8}, 7) == (hyperparameters, seed), f"complete, of {epochs} epochs"
        return self.training


def fit(training, free=lambda: None, on_epoch=None, resume=None, keep_weights=True, epochs=4):
    watched = {"on_epoch": on_epoch, "resume": resume, "keep_weights": keep_weights}
    return Trainer(training, free).fit({"units": 8}, epochs=epochs, seed=7, **watched)


def test_the_first_best_epoch_is_kept():
    """An epoch is trained, then scored under its averaged weights, which are kept where they beat all before; ties do not."""
    training = Told()
    result = fit(training)

    assert ["train 1", "keep 1", "train 2", "keep 2", "train 3", "train 4"] == training.calls
    assert (tuple(SCORES), 3, 2) == (result.scores, result.num_parameters, int(result.weights["best"]))
    assert result.peak_memory_bytes > 0
    assert {} == fit(Told(), keep_weights=False).weights


def test_a_training_goes_on_where_it_stood():
    """Scores and best weights of earlier attempts count, and the state after an epoch holds the scores up to it."""
    states = {}
    whole = fit(Told(), on_epoch=lambda epoch, _, state: states.update({epoch: state()}) is None)
    training = Told()
    resumed = fit(training, resume=states[3])

    assert SCORES[:3] == list(states[3]["scores"])
    assert (whole.scores, whole.weights) == (resumed.scores, resumed.weights)
    assert ["restore 3", "train 4"] == training.calls
    assert whole.scores == fit(Told(), resume=states[4]).scores


def test_whoever_watches_may_stop():
    """False after an epoch ends the training with what it has."""
    assert (0.5, 0.7) == fit(Told(), on_epoch=lambda epoch, *_: epoch < 2).scores


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_trial(loss):
    """The scores before it are not lost."""
    with pytest.raises(TrialDivergedError, match=r"loss must be finite; got (nan|inf) in epoch 3") as raised:
        fit(Told(losses={3: loss}))

    assert (0.5, 0.7) == raised.value.scores


def test_exhausted_memory_is_given_back():
    """The device is freed once nothing of the training is held any more; other errors pass through and free nothing."""
    freed = []

    with pytest.raises(TrialOutOfMemoryError, match="must fit into the device's memory; got no room"):
        fit(Told(error=MemoryError("no room")), free=lambda: freed.append("all"))
    with pytest.raises(ValueError, match="shapes"):
        fit(Told(error=ValueError("shapes")), free=lambda: freed.append("wrong"))

    assert ["all"] == freed


def test_a_recipe_fills_what_a_space_leaves_out():
    """What the space tunes wins."""
    assert {"dropout": 0.1, "batch": 8} == loop.complete({"dropout": 0.1}, {"dropout": 0.0, "batch": 8})
