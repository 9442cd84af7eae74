import keras
import numpy as np
import pytest
import tensorflow as tf

from components.models.contract import TrialDivergedError
from components.models.mlp import compiled
from components.models.mlp import training as mlp
from components.models.mlp.updates import FusedUpdates
from tests.models.examples import make_train_data

SHAPES = [(7, 5), (5,)]


def trained(name: str, fused: bool) -> list[np.ndarray]:
    """Return weights and the optimizer's variables after 30 steps with changing rates."""
    random = np.random.default_rng(0)
    variables = [keras.Variable(random.normal(size=shape).astype(np.float32)) for shape in SHAPES]
    optimizer = compiled._optimizer(name)
    optimizer.build(variables)
    updates = FusedUpdates(optimizer, variables)

    @tf.function
    def step(gradients: list[tf.Tensor], rate: tf.Tensor) -> None:
        optimizer.learning_rate.assign(rate)
        if fused:
            updates.apply(gradients, rate)
        else:
            optimizer.apply(gradients, variables)

    for number in range(30):
        gradients = [tf.constant(random.normal(size=shape).astype(np.float32)) for shape in SHAPES]
        step(gradients, tf.constant(0.01 / (1 + number)))
    return [v.numpy() for v in (*variables, *optimizer.variables)]


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "Nadam"])
def test_fused_updates_are_those_of_keras(name):
    """Weights and every variable of the optimizer agree, so that a checkpoint of one goes on with the other."""
    expected, found = trained(name, fused=False), trained(name, fused=True)

    assert len(expected) == len(found)
    for theirs, ours in zip(expected, found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "Nadam"])
def test_a_training_after_one_that_diverged_is_what_it_was_before(name, monkeypatch):
    """The loop is used again where only the learning rate differs, and nothing of the diverged training is left in it."""
    monkeypatch.setattr(
        mlp, "CompiledLoop", lambda *given, half, fused: compiled.CompiledLoop(*given, half=half, fused=not fused)
    )
    trainer = mlp.Trainer(make_train_data(120, (12, 10, 1)))
    given = {"units_1": 16, "activation_1": "relu", "units_2": 8, "activation_2": "relu", "optimizer": name}
    before = trainer.fit(given | {"learning_rate": 0.002}, epochs=2, seed=0)
    loop = trainer._loop
    with pytest.raises(TrialDivergedError):
        trainer.fit(given | {"learning_rate": 1e30}, epochs=2, seed=0)
    after = trainer.fit(given | {"learning_rate": 0.002}, epochs=2, seed=0)

    assert loop is trainer._loop
    assert before.scores == after.scores
