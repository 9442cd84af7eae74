"""The MLP approach: Flatten and three Dense layers in Keras.

An epoch is one call: a compiled loop gathers, augments and learns batches of images that lie on the device, so that
Python takes part once an epoch and not once a step.
"""

import contextlib
import gc
import logging
import math
import os
import warnings
from dataclasses import replace

from components.models.mlp.flags import xla_flags

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["XLA_FLAGS"] = xla_flags(os.environ.get("XLA_FLAGS", ""))

import keras
import numpy as np
import onnx
import tensorflow as tf

from components.data.contract import TRAIN, VALIDATION, TrainData
from components.errors import ConfigurationError
from components.models import loop
from components.models.contract import FitResult, State
from components.models.faults import missing_gpu
from components.models.hardware import cpu_has_bfloat16, num_usable_cores, onnx_difference
from components.models.mlp.compiled import WEIGHT_NAMES, CompiledLoop, Examples, shared_units
from components.models.mlp.export import mlp_graph
from components.models.mlp.network import build
from components.models.mlp.size import MAX_UNITS
from components.models.sampling import EpochSampler, batch_size_for
from components.models.schedule import learning_rate_factor
from components.models.space import Parameter, Space, Value

# A new network is a new trace, which TensorFlow takes for an accident.
tf.get_logger().setLevel(logging.ERROR)
# What TensorFlow and Keras load lives as long as the process: collecting after a trial (`_collect`) need not visit it.
gc.freeze()

APPROACH = "mlp"
NATIVE_FILE = "model.keras"
PACKAGES: tuple[str, ...] = ("tensorflow", "keras")

_DESCRIBED = (
    Parameter(name="units_1", low=64, high=MAX_UNITS, step=64, default=512),
    Parameter(name="activation_1", choices=("relu", "tanh"), default="relu"),
    Parameter(name="units_2", low=64, high=MAX_UNITS, step=64, default=256),
    Parameter(name="activation_2", choices=("relu", "tanh"), default="relu"),
    Parameter(name="learning_rate", low=0.0001, high=0.1, log=True, default=0.001),
    Parameter(name="optimizer", choices=("SGD", "Adam", "RMSprop", "Nadam"), default="Adam"),
)
_WIDE_DEFAULTS = {"units_1": 1024, "units_2": 512, "learning_rate": 0.0015}
SPACES = {
    "described": Space(_DESCRIBED),
    "wide": Space(
        (
            # Regularised, a larger network is the better one to start from; docs/benchmarks.md has the measurements.
            *(replace(p, default=_WIDE_DEFAULTS.get(p.name, p.default)) for p in _DESCRIBED),
            Parameter(name="batch_size", choices=(128, 256, 512), default=512),
            Parameter(name="dropout", low=0.0, high=0.5, default=0.1),
            Parameter(name="label_smoothing", low=0.0, high=0.2, default=0.1),
            Parameter(name="augmentation", choices=("none", "flip", "flip_shift"), default="flip"),
            Parameter(name="mirror_average", choices=(False, True), default=True),
        )
    ),
}
"""Peak learning rate of a cosine schedule; SGD has Nesterov momentum 0.9."""

RECIPE: dict[str, Value] = {"dropout": 0.0, "label_smoothing": 0.0, "augmentation": "none", "mirror_average": False}
"""What the described space leaves fixed."""

LARGEST_BATCH = 256
"""Of the described space, on every device: it is the batch that its range of learning rates was chosen with."""

WARMUP_FRACTION = 0.05


def has_gpu() -> bool:
    """Return whether a trainer of this process would use a GPU."""
    return bool(tf.config.list_physical_devices("GPU"))


class Trainer(loop.EpochTrainer):
    """Holds one dataset on the device and trains any number of hyperparameter sets on it, one after another.

    Args:
        train_data: Training and validation examples.
        require_gpu: Whether a missing GPU is an error.
        weights_uri: Must be empty: there are no pretrained weights for this approach.

    Raises:
        TryAgainError: A GPU was required, and the one there is does not work.
        ConfigurationError: A GPU was required and there is none, or weights were given.
    """

    recipe = RECIPE

    def __init__(self, train_data: TrainData, *, require_gpu: bool = False, weights_uri: str = "") -> None:
        # Refused once TensorFlow is in use, which is as early as it matters.
        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(num_usable_cores())
        gpus = tf.config.list_physical_devices("GPU")
        if require_gpu and not gpus:
            raise missing_gpu("MLP")
        if weights_uri:
            raise ConfigurationError(
                f"The MLP has no pretrained weights; got {weights_uri!r}. Leave train_weights empty"
            )
        for gpu in gpus:
            # Without this TensorFlow takes the whole card, and a second worker on it finds nothing. Once in use, it is set.
            with contextlib.suppress(RuntimeError):
                tf.config.experimental.set_memory_growth(gpu, True)
        self._gpu = gpus[0] if gpus else None
        self._half = not gpus and cpu_has_bfloat16()
        self._shared = bool(gpus)
        self._num_classes = len(train_data.info.classes)
        self._shape = tuple(int(size) for size in train_data.images.shape[1:])
        self._train = np.flatnonzero(train_data.split == TRAIN)
        self._validation = np.flatnonzero(train_data.split == VALIDATION)
        self._examples = Examples(train_data, bool(gpus))
        self._mean, self._std = self._examples.statistics(self._train)
        self._loop: CompiledLoop | None = None
        self._loop_key: dict[str, Value] = {}

    @property
    def device_name(self) -> str:
        """Name of the GPU, or `cpu`."""
        if self._gpu is None:
            return "cpu"
        return str(tf.config.experimental.get_device_details(self._gpu).get("device_name", "gpu"))

    def begin(self, hyperparameters: dict[str, Value], epochs: int, seed: int) -> "_Training":
        """Return a training with a cosine schedule over the epochs; see `loop.EpochTrainer.begin`.

        It trains in the trainer's one loop, so the next training ends it.
        """
        return _Training(self, hyperparameters, epochs, seed)

    def free(self) -> None:
        """Give back what the device still holds of past trainings."""
        self._loop = None
        _collect()

    def _loop_for(self, hyperparameters: dict[str, Value]) -> CompiledLoop:
        """Return a loop that trains such networks.

        It is the last one again where that can train them: on a GPU also networks of other widths, on a CPU only those that differ
        in the learning rate alone.
        """
        wanted = {"batch_size": batch_size_for(len(self._train), LARGEST_BATCH), **hyperparameters}
        wanted["batch_size"] = max(2, min(int(wanted["batch_size"]), len(self._train)))
        del wanted["learning_rate"]
        units = shared_units(wanted, math.prod(self._shape)) if self._shared else {}
        key = units or wanted
        if self._loop is None or key != self._loop_key:
            # One at a time: of large images the loops of all widths, with their optimizers, would fill a GPU.
            self.free()
            self._loop = CompiledLoop(self._model(wanted | units), half=self._half, shared=self._shared)
            self._loop_key = key
        self._loop.take(wanted)
        return self._loop

    def _model(self, hyperparameters: dict[str, Value]) -> keras.Model:
        return build(hyperparameters, self._shape, self._num_classes, self._mean, self._std)

    def export(self, result: FitResult, hyperparameters: dict[str, Value], onnx_path: str, native_path: str) -> float:
        """Write ONNX and `.keras`; return the largest absolute difference of probabilities between the two."""
        complete = loop.complete(hyperparameters, RECIPE)
        model = self._model(complete)
        model.get_layer("network").set_weights([result.weights[name] for name in WEIGHT_NAMES])
        with warnings.catch_warnings():
            # Keras hands its variables to numpy in a way that numpy 2 deprecates.
            warnings.simplefilter("ignore", DeprecationWarning)
            model.save(native_path)
        graph = mlp_graph(result.weights, complete, self._shape, self._mean, self._std)
        onnx.checker.check_model(graph)
        onnx.save(graph, onnx_path)
        images = self._examples.sample(self._validation if len(self._validation) else self._train)
        # On the CPU like the ONNX: a GPU multiplies in TF32, whose rounding alone exceeds the tolerance.
        with tf.device("CPU:0"):
            expected = keras.models.load_model(native_path)(images, training=False).numpy()
        return onnx_difference(onnx_path, images, expected)


class _Training:
    """One hyperparameter set being trained."""

    def __init__(self, trainer: Trainer, hyperparameters: dict[str, Value], epochs: int, seed: int) -> None:
        self._trainer, self._seed = trainer, seed
        if trainer._gpu:
            tf.config.experimental.reset_memory_stats("GPU:0")
        self._loop = trainer._loop_for(hyperparameters)
        self._loop.reset(seed)
        self._sampler = EpochSampler(np.ones(len(trainer._train)), self._loop.batch_size, seed)
        self._num_steps = epochs * self._sampler.num_steps
        self._peak_rate = np.float32(hyperparameters["learning_rate"])
        self._best: list[np.ndarray] = []

    def restore(self, state: State) -> None:
        self._loop.restore(state)
        self._best = [np.array(state[f"best/{number}"]) for number in range(len(WEIGHT_NAMES))]

    def train_epoch(self, epoch: int) -> float:
        indices = self._trainer._train[self._sampler.epoch(epoch)]
        steps = range((epoch - 1) * len(indices), epoch * len(indices))
        factors = [learning_rate_factor(step, self._num_steps, WARMUP_FRACTION) for step in steps]
        rates = self._peak_rate * np.array(factors, np.float32)
        return self._loop.train(self._trainer._examples, indices, rates, (self._seed, epoch))

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        return self._loop.averaged()

    def accuracy(self) -> float:
        return self._loop.accuracy(self._trainer._examples, self._trainer._validation)

    def keep(self) -> None:
        self._best = self._loop.weights()

    def state(self) -> State:
        return self._loop.state() | {f"best/{number}": values for number, values in enumerate(self._best)}

    def best_weights(self) -> dict[str, np.ndarray]:
        return dict(zip(WEIGHT_NAMES, self._best, strict=True))

    @property
    def num_parameters(self) -> int:
        return sum(values.size for values in self._best)

    @property
    def peak_memory_bytes(self) -> int:
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] if self._trainer._gpu else 0


def _collect() -> None:
    """Free graph and variables of a past compiled loop, whose reference cycles reference counting leaves alone."""
    keras.backend.clear_session(free_memory=True)
