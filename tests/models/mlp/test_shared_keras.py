import itertools
import weakref

import numpy as np
import pytest
import tensorflow as tf

from components.models.contract import TrialOutOfMemoryError
from components.models.mlp import compiled
from components.models.mlp import training as mlp
from tests.models.examples import make_train_data
from tests.models.mlp.shared import NETWORK, own_trainer, shared_trainer

OPTIMIZERS = ["SGD", "Adam", "RMSprop", "Nadam"]
GIVEN = NETWORK | {"optimizer": "Adam", "learning_rate": 0.002}
WIDE = GIVEN | {
    "batch_size": 16,
    "dropout": 0.2,
    "label_smoothing": 0.1,
    "augmentation": "flip_shift",
    "mirror_average": True,
}


def assert_alike(expected, found, tolerance=2e-4):
    """The same weights, up to rounding."""
    assert set(expected.weights) == set(found.weights)
    for name, values in expected.weights.items():
        np.testing.assert_allclose(found.weights[name], values, atol=tolerance, err_msg=name)


@pytest.fixture
def no_xla(monkeypatch):
    """XLA meets an operation that it cannot compile."""

    def unknown(images, *_):
        return tf.ensure_shape(tf.numpy_function(lambda values: values, [images], images.dtype), images.shape)

    monkeypatch.setattr(compiled, "augment", unknown)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("activations", [("relu", "tanh"), ("tanh", "relu")], ids="-".join)
def test_a_shared_loop_trains_what_a_loop_of_its_own_trains(name, activations):
    """The zeros that fill it up count nothing: weights are those that Keras's optimizer finds for the network alone."""
    given = GIVEN | {"optimizer": name} | dict(zip(("activation_1", "activation_2"), activations, strict=True))
    shared = shared_trainer()
    found = shared.fit(given, epochs=3, seed=3)
    expected = own_trainer().fit(given, epochs=3, seed=3)
    loop = shared._loop

    assert loop._compiles
    assert_alike(expected, found)
    assert expected.num_parameters == found.num_parameters
    rest = [v.numpy() for v in loop._network.trainable_variables]
    for values, shape in zip(rest, loop._shapes, strict=True):
        values[tuple(slice(size) for size in shape)] = 0
    assert [(1024,), (1024,)] == [values.shape for values in rest[1::2][:2]]
    assert not any(values.any() for values in rest)


def test_a_loop_is_compiled_once_for_all_networks():
    """Only another optimizer, of all that varies here, is a reason to compile training again, and only mirroring to count otherwise."""
    trainer, loops = shared_trainer(), []
    for name in ("Adam", "SGD"):
        for units, activation, rate, mirrors in (
            (16, "relu", 0.1, True),
            (24, "tanh", 0.2, False),
            (8, "relu", 0.3, True),
        ):
            own = {"units_1": units, "units_2": 2 * units, "activation_1": activation, "optimizer": name}
            own["mirror_average"] = mirrors
            result = trainer.fit(WIDE | own | {"dropout": rate, "label_smoothing": rate / 2}, epochs=1, seed=0)
            assert (120, units) == result.weights["dense_1/kernel"].shape
            loops.append(trainer._loop)
    loop = trainer._loop

    assert [loop] * 6 == loops
    functions = (loop._compiled, loop._launched, loop._counted)
    assert [2, 0, 2] == [function.experimental_get_tracing_count() for function in functions]


@pytest.mark.parametrize(
    ("name", "values", "compiles"),
    [
        ("dropout", (0.3, 0.01), True),
        ("dropout", (0.3, 0.01, 0.0), False),
        ("label_smoothing", (0.2, 0.01, 0.0), False),
        ("activation_1", ("relu", "tanh"), False),
        ("activation_2", ("relu", "tanh"), False),
        ("augmentation", ("flip_shift", "none", "flip"), False),
        ("units_1", (24, 16), False),
        ("batch_size", (16, 32), False),
    ],
)
def test_a_training_is_given_its_own(name, values, compiles, monkeypatch):
    """What another training in the loop was given has no influence, neither on the weights nor on the scores."""
    if not compiles:
        monkeypatch.setattr(compiled.CompiledLoop, "_run", lambda self, inputs, _compiled: self._launched(*inputs))
    trainer = shared_trainer()
    found = [trainer.fit(WIDE | {name: value}, epochs=2, seed=0) for value in values]
    fresh = [shared_trainer().fit(WIDE | {name: value}, epochs=2, seed=0) for value in values]

    for expected, other in zip(fresh, found, strict=True):
        assert expected.scores == other.scores
        assert_alike(expected, other, tolerance=1e-6)
    for one, other in itertools.pairwise(found):
        assert not np.array_equal(one.weights["dense_3/bias"], other.weights["dense_3/bias"])


@pytest.mark.parametrize("mirrors", [False, True])
def test_scores_are_of_the_network_that_is_exported(mirrors):
    """A shared loop computes probabilities by itself: they are those of the Keras model with the same weights."""
    trainer = shared_trainer()
    given = WIDE | {"mirror_average": mirrors}
    result = trainer.fit(given, epochs=1, seed=0)
    model, images = trainer._model(given), trainer._examples._images
    model.get_layer("network").set_weights(list(result.weights.values()))
    loop = trainer._loop
    with loop.averaged():
        found = loop._probabilities(images, loop._arguments, mirrors)

    np.testing.assert_allclose(found, model(images), atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_checkpoint_goes_on_in_either_loop(name):
    """It holds the network and not the zeros, so a training that began on a GPU can end on a CPU."""
    given = GIVEN | {"optimizer": name}
    states = []
    whole = shared_trainer().fit(given, epochs=3, seed=0, on_epoch=lambda _e, _s, state: states.append(state()) or True)
    elsewhere = own_trainer().fit(given, epochs=3, seed=0, resume=states[0])
    again = shared_trainer().fit(given, epochs=3, seed=0, resume=states[0])

    assert (120, 16) == states[0]["weights/0"].shape
    assert_alike(whole, elsewhere)
    assert_alike(whole, again, tolerance=1e-6)


@pytest.mark.usefixtures("no_xla")
def test_what_xla_cannot_compile_is_launched(caplog):
    """One line says so, once for all trainings, and scores are what they were."""
    trainer = shared_trainer()
    results = [trainer.fit(GIVEN | {"units_1": units}, epochs=2, seed=3) for units in (16, 24)]
    (line,) = [record.getMessage() for record in caplog.records if "XLA" in record.getMessage()]

    assert line.startswith("the MLP's kernels are launched one by one; XLA cannot compile its epoch:")
    assert "\n" not in line
    assert_alike(own_trainer().fit(GIVEN | {"units_1": 24}, epochs=2, seed=3), results[1])


def test_a_full_memory_is_the_trials(monkeypatch):
    """It is no reason to do without XLA."""
    trainer = shared_trainer()
    loop = trainer._loop_for(GIVEN)

    def exhausted(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_compiled", exhausted)
        with pytest.raises(TrialOutOfMemoryError):
            trainer.fit(GIVEN, epochs=1, seed=0)

    assert loop._compiles
    assert 1 == len(trainer.fit(GIVEN, epochs=1, seed=0).scores)


def test_a_device_that_fails_later_is_not_taken_for_a_failure_of_xla(monkeypatch, caplog):
    """A program that ran has been compiled, so its error ends the step: weights after it are worth nothing."""
    trainer = shared_trainer()
    trainer.fit(GIVEN, epochs=1, seed=0)

    def broken(*_):
        raise tf.errors.InternalError(None, None, "CUDA_ERROR_ECC_UNCORRECTABLE")

    monkeypatch.setattr(trainer._loop, "_compiled", broken)
    with pytest.raises(tf.errors.InternalError, match="CUDA_ERROR_ECC_UNCORRECTABLE"):
        trainer.fit(GIVEN, epochs=1, seed=0)

    assert "XLA" not in caplog.text


def test_large_images_share_narrower_loops():
    """Their first weights are the most expensive ones."""
    units = {"units_1": 320, "units_2": 64}

    assert {"units_1": 1024, "units_2": 1024} == compiled.shared_units(units, 80 * 60 * 3)
    assert {"units_1": 512, "units_2": 1024} == compiled.shared_units(units, 128 * 128 * 3)
    assert {"units_1": 2048, "units_2": 1024} == compiled.shared_units({"units_1": 1025, "units_2": 1024}, 28 * 28)


def test_large_images_keep_one_loop_at_a_time():
    """Loops of other widths give their memory back: all of them together would not fit on a card."""
    trainer = mlp.Trainer(make_train_data(10, (129, 128, 1)))
    trainer._shared, trainer._half = True, False
    kept = []
    for units in (256, 200, 512, 16):
        trainer.fit(GIVEN | {"units_1": units}, epochs=1, seed=0)
        kept.append(weakref.ref(trainer._loop))

    assert kept[0]() is kept[1]()
    assert [None, None, None, trainer._loop] == [loop() for loop in kept]
