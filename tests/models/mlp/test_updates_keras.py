from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf

from components.models.contract import TrialDivergedError
from components.models.mlp import compiled
from components.models.mlp.updates import FusedUpdates, KerasUpdates
from tests.models.mlp.shared import NETWORK, shared_trainer

SHAPES = [(7, 5), (5,)]


def trained(name: str, kind: type[FusedUpdates] | type[KerasUpdates]) -> list[np.ndarray]:
    """Return weights and the optimizer's variables after two epochs of 15 steps with changing rates."""
    random = np.random.default_rng(0)
    variables = [keras.Variable(random.normal(size=shape).astype(np.float32)) for shape in SHAPES]
    optimizer = compiled._optimizer(name)
    updates = kind(optimizer, variables)
    step = tf.function(updates.apply)
    for epoch in range(2):
        rates = 0.01 / np.arange(1 + 15 * epoch, 16 + 15 * epoch, dtype=np.float32)
        for row in updates.rows(rates):
            gradients = [tf.constant(random.normal(size=shape).astype(np.float32)) for shape in SHAPES]
            step(gradients, [tf.constant(value) for value in row])
    return [v.numpy() for v in (*variables, *optimizer.variables)]


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "Nadam"])
def test_fused_updates_are_those_of_keras(name):
    """Weights and every variable of the optimizer agree, so that a checkpoint of one goes on with the other."""
    expected, found = trained(name, KerasUpdates), trained(name, FusedUpdates)

    assert len(expected) == len(found)
    for theirs, ours in zip(expected, found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "Nadam"])
def test_a_step_launches_nothing_that_the_host_knows(name):
    """On a GPU each operation costs its launch, even on a single number."""
    trainer = shared_trainer()
    given = NETWORK | {"optimizer": name, "learning_rate": 0.002}
    loop = trainer._loop_for(given)
    loop._compiles = False
    trainer.fit(given, epochs=1, seed=0)
    (traced,) = loop._launched._list_all_concrete_functions()
    functions = traced.graph.as_graph_def().library.function
    (step,) = (function for function in functions if "while_body" in function.signature.name)
    kinds = Counter(node.op for node in step.node_def)

    assert set() == {"Pow", "Sqrt", "OneHot", "AssignVariableOp", "AssignAddVariableOp"} & set(kinds)
    assert (12 if name == "Nadam" else 6) == sum(kinds[kind] for kind in kinds if kind.startswith("ResourceApply"))


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "Nadam"])
def test_a_training_after_one_that_diverged_is_what_it_was_before(name):
    """The loop is used again where only the learning rate differs, and nothing of the diverged training is left in it."""
    trainer = shared_trainer()
    given = NETWORK | {"optimizer": name}
    before = trainer.fit(given | {"learning_rate": 0.002}, epochs=2, seed=0)
    loop = trainer._loop
    with pytest.raises(TrialDivergedError):
        trainer.fit(given | {"learning_rate": 1e30}, epochs=2, seed=0)
    after = trainer.fit(given | {"learning_rate": 0.002}, epochs=2, seed=0)

    assert loop is trainer._loop
    assert before.scores == after.scores
