import keras
import numpy as np
import pytest
import tensorflow as tf

from components.models.mlp import compiled
from components.models.mlp.updates import FusedUpdates

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
