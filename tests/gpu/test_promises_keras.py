import pytest
import tensorflow as tf

from components.models.mlp import compiled
from components.models.mlp import training as mlp
from components.models.mlp.updates import FusedUpdates
from tests.gpu import promises
from tests.models.examples import make_train_data

DESCRIBED = {
    "units_1": 64,
    "activation_1": "relu",
    "units_2": 64,
    "activation_2": "tanh",
    "learning_rate": 0.005,
    "optimizer": "Adam",
}
WIDE = DESCRIBED | {
    "batch_size": 16,
    "dropout": 0.1,
    "label_smoothing": 0.1,
    "augmentation": "flip_shift",
    "mirror_average": True,
}


def test_weights_images_and_optimizer_are_on_the_device(on_gpu):
    """Nothing that a step on a GPU uses waits for the host, labels included, and the GPU's memory is reported."""
    trainer = mlp.Trainer(make_train_data(600), require_gpu=on_gpu)
    result = trainer.fit(DESCRIBED, epochs=1, seed=0)
    loop, examples = trainer._loop, trainer._examples
    tensors = {
        "images": examples._images,
        "labels": examples._labels,
        **{f"weights {n}": v.value for n, v in enumerate(loop._network.trainable_variables)},
        **{f"optimizer {n}": v.value for n, v in enumerate(loop._updates.optimizer.variables) if v.ndim},
        **{f"sum {n}": v.read_value() for n, v in enumerate(loop._sums)},
    }

    kind = "GPU:0" if on_gpu else "CPU:0"
    assert {} == {name: t.device for name, t in tensors.items() if not t.device.endswith(kind)}
    assert (tf.float16 if on_gpu else tf.uint8) == examples.dtype
    assert result.peak_memory_bytes > examples._images.shape.num_elements() * 2
    assert on_gpu == (trainer.device_name != "cpu")
    assert on_gpu == isinstance(loop._updates, FusedUpdates)
    if on_gpu:
        assert compiled.free_gpu_bytes() > 0


@pytest.mark.parametrize("given", [DESCRIBED, WIDE], ids=["described", "wide"])
@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "RMSprop", "Nadam"])
def test_compiled_epochs_learn_what_launched_ones_learn(given, optimizer, on_gpu, caplog):
    """XLA compiles one loop for networks of two sizes, and its scores are those of TensorFlow's executor."""
    if not on_gpu:
        pytest.skip("on a CPU tests/models/mlp checks it")
    trainer = mlp.Trainer(make_train_data(600), require_gpu=True)
    wanted = [given | {"optimizer": optimizer, "units_1": units} for units in (64, 192)]
    scores = [trainer.fit(one, epochs=4, seed=2).scores for one in wanted]
    loop = trainer._loop
    compiles, traced = loop._compiles, loop._compiled.experimental_get_tracing_count()
    loop._compiles = False
    launched = [trainer.fit(one, epochs=4, seed=2).scores for one in wanted]

    assert "" == caplog.text
    assert (True, 1) == (compiles, traced)
    assert [s[-1] for s in launched] == pytest.approx([s[-1] for s in scores], abs=promises.SCORE_TOLERANCE)


def test_export_agrees(tmp_path):
    """Parity, whatever type the device multiplies in."""
    promises.promise_export_agrees(mlp, WIDE, tmp_path)


def test_resuming_goes_on(on_gpu):
    """The state is restored bit for bit."""
    promises.promise_resuming_goes_on(mlp, WIDE, on_gpu)


def test_out_of_memory_costs_one_trial(monkeypatch):
    """TensorFlow's own allocator refuses."""
    trainer = mlp.Trainer(make_train_data(120))
    promises.promise_out_of_memory_costs_one_trial(
        trainer, DESCRIBED, monkeypatch, lambda: tf.zeros((2**40, 2**12)) + 1
    )


def test_data_larger_than_the_memory(tmp_path, monkeypatch, on_gpu):
    """Chunks travel."""

    def limit(num_bytes):
        monkeypatch.setattr(compiled, "free_gpu_bytes", lambda: num_bytes)
        monkeypatch.setattr(compiled, "HOST_STEPS", 8)

    promises.promise_data_larger_than_the_memory(mlp, DESCRIBED, tmp_path, on_gpu, limit)


@pytest.mark.slow
def test_two_workers_share_a_device(tmp_path):
    """Neither takes the whole card."""
    promises.promise_two_workers_share_a_device("mlp", tmp_path)


@pytest.mark.slow
def test_missing_gpu_is_noticed():
    """At once, with the exit code that says whose fault it is."""
    promises.promise_missing_gpu_is_noticed("mlp")
