"""The MLP approach: Flatten and three Dense layers in Keras.

An epoch is one call: a compiled loop gathers, augments and learns batches of images that lie on the device, so that
Python takes part once an epoch and not once a step.
"""

import contextlib
import functools
import gc
import logging
import os
import time
import warnings
from dataclasses import replace

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import onnx
import tensorflow as tf

from components.data.contract import TRAIN, VALIDATION, TrainData
from components.errors import ConfigurationError
from components.models.contract import FitResult, OnEpoch, State, TrialDivergedError, TrialOutOfMemoryError
from components.models.faults import first_line, is_out_of_memory
from components.models.hardware import Stopwatch, cpu_has_bfloat16, num_usable_cores, onnx_difference
from components.models.mlp.compiled import WEIGHT_NAMES, Examples, Program
from components.models.mlp.export import mlp_graph
from components.models.mlp.network import build
from components.models.mlp.size import MAX_UNITS
from components.models.sampling import EpochSampler, batch_size_for
from components.models.schedule import learning_rate_factor
from components.models.space import Parameter, Space, Value

log = logging.getLogger(__name__)
# A new network is a new trace, which TensorFlow takes for an accident.
tf.get_logger().setLevel(logging.ERROR)
# What TensorFlow and Keras load lives as long as the process: collecting after a trial (`_collect`) need not visit it.
gc.freeze()

APPROACH = "mlp"
NATIVE_FILE = "model.keras"
PACKAGES = ("tensorflow", "keras")

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
            # Regularised, a larger network is the better one to start from; docs/benchmarks.md has the figures.
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


class Trainer:
    """Holds one dataset on the device and trains any number of hyperparameter sets on it, one after another.

    Args:
        train_data: Training and validation examples.
        require_gpu: Whether a missing GPU is an error.
        weights: Must be empty: there are no pretrained weights for this approach.

    Raises:
        ConfigurationError: A GPU was required and there is none, or weights were given.
    """

    def __init__(self, train_data: TrainData, *, require_gpu: bool = False, weights: str = "") -> None:
        # Refused once TensorFlow is in use, which is as early as it matters.
        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(num_usable_cores())
        gpus = tf.config.list_physical_devices("GPU")
        if require_gpu and not gpus:
            raise ConfigurationError(
                "The MLP step must have a GPU because one was requested; got none from CUDA. "
                "Check the node pool, the driver and the image's CUDA version"
            )
        if weights:
            raise ConfigurationError(f"The MLP has no pretrained weights; got {weights!r}. Leave train_weights empty")
        for gpu in gpus:
            # Without this TensorFlow takes the whole card, and a second worker on it finds nothing. Once in use, it is set.
            with contextlib.suppress(RuntimeError):
                tf.config.experimental.set_memory_growth(gpu, True)
        self._gpu = gpus[0] if gpus else None
        self._half = not gpus and cpu_has_bfloat16()
        self._num_classes = len(train_data.info.classes)
        self._shape = tuple(int(size) for size in train_data.images.shape[1:])
        self._train = np.flatnonzero(train_data.split == TRAIN)
        self._validation = np.flatnonzero(train_data.split == VALIDATION)
        self._examples = Examples(train_data, bool(gpus))
        self._mean, self._std = self._examples.statistics(self._train)
        self._program: Program | None = None

    @property
    def device_name(self) -> str:
        """Name of the GPU, or `cpu`."""
        if self._gpu is None:
            return "cpu"
        return str(tf.config.experimental.get_device_details(self._gpu).get("device_name", "gpu"))

    def fit(
        self,
        hyperparameters: dict[str, Value],
        *,
        epochs: int,
        seed: int,
        on_epoch: OnEpoch | None = None,
        resume: State | None = None,
        keep_weights: bool = True,
    ) -> FitResult:
        """Train with a cosine schedule over the epochs; see `contract.Trainer.fit`."""
        try:
            return self._fit(_complete(hyperparameters), epochs, seed, on_epoch, resume, keep_weights)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            message = f"a trial must fit into the device's memory; got {first_line(error)}"
        # Outside the handler, whose traceback would keep the trial's tensors alive.
        self._program = None
        _collect()
        raise TrialOutOfMemoryError(message)

    def _fit(
        self,
        hyperparameters: dict[str, Value],
        epochs: int,
        seed: int,
        on_epoch: OnEpoch | None,
        resume: State | None,
        keep_weights: bool,
    ) -> FitResult:
        stopwatch = Stopwatch()
        program = self._program_for(hyperparameters)
        program.reset(seed)
        sampler = EpochSampler(np.ones(len(self._train)), program.batch_size, seed)
        num_steps = epochs * sampler.num_steps
        scores: list[float] = []
        best: list[np.ndarray] = []
        if resume is not None:
            scores, best = program.restore(resume)
        for epoch in range(len(scores) + 1, epochs + 1):
            started = time.perf_counter()
            steps = range((epoch - 1) * sampler.num_steps, epoch * sampler.num_steps)
            factors = [learning_rate_factor(step, num_steps, WARMUP_FRACTION) for step in steps]
            rates = np.float32(hyperparameters["learning_rate"]) * np.array(factors, np.float32)
            loss = program.train(self._examples, self._train[sampler.epoch(epoch)], rates, (seed, epoch))
            if not np.isfinite(loss):
                raise TrialDivergedError(f"loss must be finite; got {loss} in epoch {epoch}", tuple(scores))
            with program.averaged():
                score = program.accuracy(self._examples, self._validation)
                if not scores or score > max(scores):
                    best = program.weights()
            scores.append(score)
            log.info("epoch %d/%d: loss %.4f, validation accuracy %.4f, %.1f s", epoch, epochs, loss, score,
                     time.perf_counter() - started)  # fmt: skip
            if on_epoch is not None and not on_epoch(epoch, score, functools.partial(program.state, scores, best)):
                break
        peak = tf.config.experimental.get_memory_info("GPU:0")["peak"] if self._gpu else stopwatch.peak_memory_bytes
        return FitResult(
            scores=tuple(scores),
            device_seconds=stopwatch.seconds,
            peak_memory_bytes=peak,
            num_parameters=sum(values.size for values in best),
            weights=dict(zip(WEIGHT_NAMES, best, strict=True)) if keep_weights else {},
        )

    def _program_for(self, hyperparameters: dict[str, Value]) -> Program:
        """Return the compiled loop for these hyperparameters: the last one again where only the learning rate differs."""
        wanted = {"batch_size": batch_size_for(len(self._train), LARGEST_BATCH), **hyperparameters}
        wanted["batch_size"] = max(2, min(int(wanted["batch_size"]), len(self._train)))
        del wanted["learning_rate"]
        if self._program is None or self._program.hyperparameters != wanted:
            self._program = None
            _collect()
            self._program = Program(self._model(wanted), wanted, half=self._half)
        return self._program

    def _model(self, hyperparameters: dict[str, Value]) -> keras.Model:
        return build(hyperparameters, self._shape, self._num_classes, self._mean, self._std)

    def export(self, result: FitResult, hyperparameters: dict[str, Value], onnx_path: str, native_path: str) -> float:
        """Write ONNX and `.keras`; return the largest absolute difference of probabilities between the two."""
        complete = _complete(hyperparameters)
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
        expected = keras.models.load_model(native_path).predict_on_batch(images)
        return onnx_difference(onnx_path, images, np.asarray(expected))


def _complete(hyperparameters: dict[str, Value]) -> dict[str, Value]:
    return {**RECIPE, **hyperparameters}


def _collect() -> None:
    """Free graph and variables of a past program, whose reference cycles reference counting leaves alone."""
    keras.backend.clear_session(free_memory=True)
