import gc
import types

import keras
import numpy as np
import onnxruntime
import pynvml
import pytest
import tensorflow as tf
from tensorflow.python.eager import context as tensorflow_context

from components.errors import ConfigurationError
from components.models.contract import TrialDivergedError, TrialOutOfMemoryError
from components.models.hardware import PARITY_TOLERANCE, onnx_difference
from components.models.mlp import compiled
from components.models.mlp import training as mlp
from tests.models.examples import make_train_data

DESCRIBED = {
    "units_1": 16,
    "activation_1": "relu",
    "units_2": 8,
    "activation_2": "tanh",
    "learning_rate": 0.01,
    "optimizer": "Adam",
}
WIDE = DESCRIBED | {
    "batch_size": 16,
    "dropout": 0.1,
    "label_smoothing": 0.1,
    "augmentation": "flip_shift",
    "mirror_average": True,
}


@pytest.fixture(scope="module")
def trainer():
    return mlp.Trainer(make_train_data(120))


@pytest.mark.parametrize("name", ["described", "wide"])
def test_the_default_of_each_space_fits_it(name):
    """The first suggestion of a study is a valid one."""
    space = mlp.SPACES[name]

    assert [] == space.problems(space.defaults)


def test_learns_and_exports_raw_pixels_to_probabilities(trainer, tmp_path):
    """A short training is right about most of the validation images, and its ONNX gives the native model's answers."""
    result = trainer.fit(WIDE, epochs=6, seed=0)

    difference = trainer.export(result, WIDE, str(tmp_path / "model.onnx"), str(tmp_path / mlp.NATIVE_FILE))

    assert max(result.scores) > 0.8
    assert difference <= 1e-4
    assert (tmp_path / mlp.NATIVE_FILE).is_file()
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    images = np.zeros((3, 12, 10, 1), np.uint8)
    (probabilities,) = session.run(["probabilities"], {"images": images})
    assert ((3, 3), np.float32) == (probabilities.shape, probabilities.dtype)
    assert np.ones(3) == pytest.approx(probabilities.sum(axis=1), abs=1e-5)


def test_parity_holds_where_the_device_multiplies_in_tf32(trainer, tmp_path, monkeypatch):
    """An export is compared on the CPU, in float32: TF32, as GPUs multiply by default, alone exceeds the tolerance."""
    result = trainer.fit(WIDE, epochs=6, seed=0)
    matmul, num_rounded = keras.ops.matmul, []

    def tf32(values):
        # Ten bits of mantissa are left of 23, rounded to the nearest.
        return tf.bitcast((tf.bitcast(values, tf.int32) + 0x1000) & ~0x1FFF, tf.float32)

    def rounding_matmul(left, right):
        if "CPU" in (tensorflow_context.context().device_name or ""):
            return matmul(left, right)
        num_rounded.append(1)
        return matmul(tf32(left), tf32(right))

    monkeypatch.setattr(keras.src.ops, "matmul", rounding_matmul)
    path = str(tmp_path / "model.onnx")
    difference = trainer.export(result, WIDE, path, str(tmp_path / mlp.NATIVE_FILE))
    images = trainer._examples.sample(trainer._validation)
    on_gpu = keras.models.load_model(tmp_path / mlp.NATIVE_FILE)(images, training=False).numpy()

    assert num_rounded
    assert onnx_difference(path, images, on_gpu) > PARITY_TOLERANCE >= difference


def test_a_gpu_gets_images_that_it_can_gather(monkeypatch):
    """Where the images do not fit into a GPU's memory, chunks travel as float16, and nothing but the loop's count is int32."""
    data = make_train_data(120)
    asked = []

    def fits(num_bytes, free_bytes):
        asked.append((num_bytes, free_bytes))
        return False

    monkeypatch.setattr(compiled, "free_gpu_bytes", lambda: 123)
    monkeypatch.setattr(compiled, "fits_on_gpu", fits)
    examples = compiled.Examples(data, on_gpu=True)
    numbers = np.arange(100)[::-1].reshape(20, 5)
    monkeypatch.setattr(compiled, "HOST_STEPS", 8)
    seen = []
    for images, labels, positions in examples.chunks(numbers):
        assert (tf.float16, tf.int64, tf.int64) == (images.dtype, labels.dtype, positions.dtype)
        seen += list(zip(tf.gather(images, positions).numpy(), tf.gather(labels, positions).numpy(), strict=True))

    assert [(3 * data.images.nbytes, 123)] == asked
    assert len(numbers) == len(seen)
    for (images, labels), batch in zip(seen, numbers, strict=True):
        assert np.array_equal(data.images[batch], images)
        assert np.array_equal(data.labels[batch], labels)


@pytest.mark.parametrize(
    ("visible", "asked"), [("", 0), ("1,0", 1), ("GPU-8f6c", "GPU-8f6c"), ("MIG-5d1e", "MIG-5d1e")]
)
def test_free_memory_is_that_of_the_gpu_in_use(monkeypatch, visible, asked):
    """NVML is asked about the first GPU that the process may see, by number or by name."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    for name in ("nvmlInit", "nvmlShutdown"):
        monkeypatch.setattr(pynvml, name, lambda: None)
    for name in ("nvmlDeviceGetHandleByIndex", "nvmlDeviceGetHandleByUUID"):
        monkeypatch.setattr(pynvml, name, lambda given: given)
    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetMemoryInfo", lambda gpu: types.SimpleNamespace(free=7 if gpu == asked else 0)
    )

    assert 7 == compiled.free_gpu_bytes()


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "RMSprop", "Nadam"])
def test_resumed_equals_uninterrupted(trainer, optimizer):
    """Going on from the state after an epoch gives the same weights, bit for bit, as never having stopped."""
    given = WIDE | {"optimizer": optimizer}
    states = []

    whole = trainer.fit(given, epochs=3, seed=5, on_epoch=lambda _e, _s, state: states.append(state()) or True)
    resumed = trainer.fit(given, epochs=3, seed=5, resume=states[0])

    assert whole.scores == resumed.scores
    assert all(np.array_equal(whole.weights[name], resumed.weights[name]) for name in whole.weights)


def test_same_seed_same_result_whatever_ran_before(trainer):
    """A trial does not depend on the trials before it in the same process; another seed gives another result."""
    first = trainer.fit(DESCRIBED, epochs=2, seed=1)
    trainer.fit(DESCRIBED | {"units_1": 24}, epochs=1, seed=9)
    again, other = (trainer.fit(DESCRIBED, epochs=2, seed=seed) for seed in (1, 2**31 - 1))

    assert all(np.array_equal(first.weights[name], again.weights[name]) for name in first.weights)
    assert not np.array_equal(first.weights["dense_1/kernel"], other.weights["dense_1/kernel"])


def test_the_compiled_loop_is_shared_where_the_network_is_the_same(trainer):
    """Another learning rate or seed traces nothing new."""
    trainer.fit(DESCRIBED, epochs=1, seed=0)
    compiled = trainer._loop

    trainer.fit(DESCRIBED | {"learning_rate": 0.02}, epochs=1, seed=1)

    assert compiled is trainer._loop
    assert 1 == compiled._launched.experimental_get_tracing_count()


def test_stops_when_told_to_and_keeps_the_best_epoch(trainer):
    """A pruned trial ends after the epoch in which it was pruned."""
    result = trainer.fit(DESCRIBED, epochs=5, seed=0, on_epoch=lambda epoch, _s, _state: epoch < 2)

    assert 2 == len(result.scores)
    assert set(mlp.WEIGHT_NAMES) == set(result.weights)
    assert result.device_seconds > 0
    assert 12 * 10 * 16 + 16 + 16 * 8 + 8 + 8 * 3 + 3 == result.num_parameters


def test_an_epoch_is_scored_by_the_mean_of_its_weights(trainer):
    """Every fourth step counts, the last one included; training goes on from where it was."""
    trainer.fit(DESCRIBED, epochs=1, seed=0)
    compiled, rates = trainer._loop, np.full(5, 0.01, np.float32)
    numbers = np.arange(40).reshape(5, 8)

    compiled.reset(3)
    compiled.train(trainer._examples, numbers[:1], rates[:1], (3, 1))
    first = compiled.weights()
    compiled.reset(3)
    compiled.train(trainer._examples, numbers, rates, (3, 1))
    last = compiled.weights()
    with compiled.averaged():
        mean = compiled.weights()

    for a, b, c, now in zip(first, last, mean, compiled.weights(), strict=True):
        np.testing.assert_allclose((a + b) / 2, c, rtol=0, atol=1e-6)
        assert np.array_equal(b, now)


def test_padding_a_product_changes_nothing(trainer, monkeypatch):
    """Widths that are no multiple of the step give the products of the plain matrices."""
    trainer.fit(DESCRIBED, epochs=1, seed=0)
    compiled = trainer._loop
    monkeypatch.setattr(compiled, "_half", True)

    for layer in compiled._network.layers[1:]:
        values = tf.random.stateless_normal((5, layer.kernel.shape[0]), seed=(1, 2))
        rounded = [tf.cast(tf.cast(given, tf.bfloat16), tf.float32) for given in (values, layer.kernel)]
        found = compiled._dense(layer, values)

        assert found.shape == (5, layer.kernel.shape[1])
        np.testing.assert_allclose(found, tf.matmul(*rounded) + layer.bias, rtol=0.02, atol=0.02)


def test_divergence_ends_the_trial_within_an_epoch(trainer):
    """NaN or infinity is an error of the trial that carries the scores so far; the next trial is as if it was the first."""
    given = DESCRIBED | {"optimizer": "SGD", "activation_2": "relu"}
    before = trainer.fit(given, epochs=1, seed=0)

    with pytest.raises(TrialDivergedError):
        trainer.fit(given | {"learning_rate": 1e30}, epochs=3, seed=0)

    after = trainer.fit(given, epochs=1, seed=0)
    assert all(np.array_equal(before.weights[name], after.weights[name]) for name in before.weights)


def test_out_of_memory_ends_the_trial_only(trainer, monkeypatch):
    """The device's own error becomes the contract's, and the next trial finds a working trainer."""

    def exhausted(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    with monkeypatch.context() as patch:
        patch.setattr(mlp.CompiledLoop, "train", exhausted)
        with pytest.raises(TrialOutOfMemoryError, match="OOM when allocating"):
            trainer.fit(DESCRIBED, epochs=1, seed=0)

    assert 1 == len(trainer.fit(DESCRIBED, epochs=1, seed=0).scores)


@pytest.mark.parametrize(
    ("num", "shape", "num_classes"), [(10, (28, 28, 1), 2), (90, (8, 6, 3), 45), (2, (5, 4, 2), 2)]
)
def test_any_shape_and_number_of_classes(tmp_path, num, shape, num_classes):
    """Tiny data, many classes and colour work like the rest."""
    trainer = mlp.Trainer(make_train_data(num, shape, num_classes))

    result = trainer.fit(WIDE, epochs=1, seed=0)

    assert trainer.export(result, WIDE, str(tmp_path / "m.onnx"), str(tmp_path / "m.keras")) <= 1e-4


def test_memory_mapped_images_train_like_loaded_ones(tmp_path):
    """What does not fit is read in chunks and gives the same weights."""
    data = make_train_data(120)
    data.save(tmp_path)

    mapped, loaded = (
        mlp.Trainer(type(data).load(tmp_path, memory_map=memory_map)).fit(DESCRIBED, epochs=2, seed=0)
        for memory_map in (True, False)
    )

    assert mapped.scores == loaded.scores
    assert mapped.weights["dense_1/kernel"] == pytest.approx(loaded.weights["dense_1/kernel"], abs=1e-6)


def test_a_missing_gpu_is_noticed_at_once():
    """A step that was promised a GPU does not train for hours without one; weights nobody can use are refused."""
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")

    with pytest.raises(ConfigurationError, match="must have a GPU"):
        mlp.Trainer(make_train_data(10), require_gpu=True)
    with pytest.raises(ConfigurationError, match="no pretrained weights"):
        mlp.Trainer(make_train_data(10), weights_uri="gs://bucket/weights")


def test_the_last_network_is_freed():
    """The graph of a network, which holds on to its weights, goes when the next one comes."""
    trainer = mlp.Trainer(make_train_data(60))
    alive = []
    for number in range(4):
        trainer.fit(DESCRIBED | {"units_1": 64 * (number + 1)}, epochs=1, seed=0, keep_weights=False)
        gc.collect()
        alive.append(sum(isinstance(thing, tf.Graph) for thing in gc.get_objects()))

    assert alive[1] == alive[3]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("half", "widths"),
    [
        pytest.param(True, [{"units_1": 64 * (n % 16 + 1), "units_2": 512} for n in range(100)], id="search-space"),
        pytest.param(False, [{"units_1": 64 + n} for n in range(100)], id="always-another-float32"),
        pytest.param(True, [{"units_1": 64 + n} for n in range(100)], id="always-another-bfloat16"),
    ],
)
def test_memory_stays_flat_over_a_hundred_trials(half, widths):
    """A worker's memory does not grow with the number of trials it ran."""
    peaks = _peaks(half, widths)

    assert peaks[99] - peaks[19] < 100, "MiB"


@pytest.mark.slow
def test_memory_is_bounded_where_widths_never_recur():
    """Nor does it after many more, none of which has a width that was there before."""
    peaks = _peaks(True, [{"units_1": 64 + number} for number in range(300)])

    assert peaks[299] - peaks[219] < 50, "MiB"


def _peaks(half, widths):
    """Return the process' highest memory in MiB after each trial."""
    import resource

    trainer = mlp.Trainer(make_train_data(120))
    trainer._half = half
    peaks = []
    for number, width in enumerate(widths):
        trainer.fit(WIDE | width, epochs=1, seed=number, keep_weights=False)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return peaks


def test_no_space_has_wider_layers_than_the_size_check_counts_with() -> None:
    """The largest hidden layers of every space are those by which an ONNX file's size is foretold."""
    from components.models.mlp.size import MAX_UNITS

    widest = {p.high for space in mlp.SPACES.values() for p in space.parameters if p.name.startswith("units_")}

    assert {MAX_UNITS} == widest
