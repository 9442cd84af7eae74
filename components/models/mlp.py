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
from collections.abc import Iterator
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
from components.models.measures import Stopwatch, cpu_has_bfloat16, num_usable_cores, onnx_difference
from components.models.mlp_graph import mlp_graph
from components.models.mlp_network import augment, build
from components.models.sampling import EpochSampler, batch_size_for, channel_statistics
from components.models.schedule import AVERAGE_EVERY, learning_rate_factor
from components.search.space import Parameter, Space, Value

log = logging.getLogger(__name__)
# A new network is a new trace, which TensorFlow takes for an accident.
tf.get_logger().setLevel(logging.ERROR)
# What TensorFlow and Keras load lives as long as the process: collecting after a trial (`_collect`) need not visit it.
gc.freeze()

APPROACH = "mlp"
NATIVE_FILE = "model.keras"
PACKAGES = ("tensorflow", "keras")
TAKES_WEIGHTS = False

_DESCRIBED = (
    Parameter(name="units_1", low=64, high=1024, step=64, default=512),
    Parameter(name="activation_1", choices=("relu", "tanh"), default="relu"),
    Parameter(name="units_2", low=64, high=1024, step=64, default=256),
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
"""What the described space leaves fixed; its batch size follows from the device and the number of examples."""

WARMUP_FRACTION = 0.05
HOST_STEPS = 64
"""Steps whose images travel to the device together where not all of them fit."""

PRODUCT_STEP = 64
"""Widths that a bfloat16 product is padded to: TensorFlow keeps 1,024 of them, 0.3 MB for each combination of widths."""

WEIGHT_NAMES = tuple(f"dense_{layer}/{part}" for layer in (1, 2, 3) for part in ("kernel", "bias"))


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
        self._examples = _Examples(train_data, bool(gpus))
        self._mean, self._std = self._examples.statistics(self._train)
        self._program: _Program | None = None

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
        except (tf.errors.ResourceExhaustedError, MemoryError) as error:
            message = f"a trial must fit into the device's memory; got {str(error).splitlines()[0][:200]}"
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

    def _program_for(self, hyperparameters: dict[str, Value]) -> "_Program":
        """Return the compiled loop for these hyperparameters: the last one again where only the learning rate differs."""
        largest = 1024 if self._gpu else 256
        wanted = {"batch_size": batch_size_for(len(self._train), largest), **hyperparameters}
        wanted["batch_size"] = max(2, min(int(wanted["batch_size"]), len(self._train)))
        del wanted["learning_rate"]
        if self._program is None or self._program.hyperparameters != wanted:
            self._program = None
            _collect()
            self._program = _Program(self._model(wanted), wanted, half=self._half)
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


class _Examples:
    """All examples of a dataset: on the device where they fit, else the images where they are, taken chunk by chunk."""

    def __init__(self, data: TrainData, on_gpu: bool) -> None:
        self._source = data.images
        fits = not isinstance(data.images, np.memmap)
        if on_gpu:
            fits = 2 * data.images.nbytes < 0.5 * _free_gpu_bytes()
        self._labels = tf.constant(data.labels, tf.int32)
        # Half precision holds 0-255 exactly, and unlike uint8 every gather kernel of the GPU takes it.
        self.dtype = tf.float16 if on_gpu and fits else tf.uint8
        self._images = tf.cast(tf.constant(data.images), self.dtype) if fits else None

    def chunks(self, numbers: np.ndarray) -> Iterator[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
        """Yield (images, labels, positions) for example numbers (steps, batch size); positions point into the images."""
        if self._images is not None:
            yield self._images, self._labels, tf.constant(numbers, tf.int32)
            return
        for part in np.array_split(numbers, -(-len(numbers) // HOST_STEPS)):
            positions = np.arange(part.size, dtype=np.int32).reshape(part.shape)
            flat = part.reshape(-1)
            yield tf.constant(self._source[flat], self.dtype), tf.gather(self._labels, flat), tf.constant(positions)

    def sample(self, numbers: np.ndarray) -> np.ndarray:
        """Return up to 64 of the numbered images (n, H, W, C) uint8."""
        return np.ascontiguousarray(self._source[numbers[:64]])

    def statistics(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation per channel, in 0-255, of the numbered images (10,000 of them at most)."""
        return channel_statistics(self._source, numbers)


class _Program:
    """A network, its optimizer and the compiled loop over an epoch, reusable for any seed and learning rate.

    Args:
        model: What `build` returned.
        hyperparameters: A complete set without the learning rate, `batch_size` included.
        half: Whether training multiplies in bfloat16; weights, sums and validation stay float32.
    """

    def __init__(self, model: keras.Model, hyperparameters: dict[str, Value], *, half: bool) -> None:
        self.hyperparameters = hyperparameters
        self._half = half
        self.batch_size = int(hyperparameters["batch_size"])
        self._model = model
        self._network, self._normalise = model.get_layer("network"), model.get_layer("normalise")
        self._optimizer = _optimizer(str(hyperparameters["optimizer"]))
        self._optimizer.build(self._network.trainable_variables)
        # Not all zeros: Nadam starts a product at one.
        self._fresh_slots = [variable.numpy() for variable in self._optimizer.variables]
        self._means = [tf.Variable(tf.zeros_like(v), trainable=False) for v in self._network.trainable_variables]
        self._num_averaged = tf.Variable(0.0, trainable=False)
        self._train_steps = tf.function(self._train_steps, reduce_retracing=True)
        self._count_correct = tf.function(self._count_correct, reduce_retracing=True)

    def reset(self, seed: int) -> None:
        """Start a training: fresh weights and optimizer."""
        for number, variable in enumerate(self._network.trainable_variables):
            # Keras takes 32 bits.
            own = (10 * seed + number) % (2**31 - 1)
            initial = keras.initializers.GlorotUniform(seed=own) if len(variable.shape) > 1 else "zeros"
            variable.assign(keras.initializers.get(initial)(variable.shape))
        for variable, values in zip(self._optimizer.variables, self._fresh_slots, strict=True):
            variable.assign(values)

    def train(self, examples: _Examples, numbers: np.ndarray, rates: np.ndarray, seed: tuple[int, int]) -> float:
        """Run an epoch; return its mean loss.

        Args:
            examples: What the numbers point to.
            numbers: (steps, batch size) example numbers.
            rates: (steps,) float32 learning rates.
            seed: Of augmentation and dropout.
        """
        total, done = 0.0, 0
        for variable in (self._num_averaged, *self._means):
            variable.assign(tf.zeros_like(variable))
        for images, labels, positions in examples.chunks(numbers):
            steps = rates[done : done + len(positions)]
            random = np.array([seed[0], seed[1] * 1_000_003 + done], np.int32)
            total += float(self._train_steps(images, labels, positions, tf.constant(steps), tf.constant(random)))
            done += len(steps)
        return total / len(rates)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the network the mean of its weights over the last epoch, for as long as the context lasts."""
        variables = self._network.trainable_variables
        current = [tf.identity(variable) for variable in variables]
        for variable, mean in zip(variables, self._means, strict=True):
            variable.assign(mean)
        yield
        for variable, values in zip(variables, current, strict=True):
            variable.assign(values)

    def accuracy(self, examples: _Examples, numbers: np.ndarray) -> float:
        """Return the share of the numbered examples that is classified correctly; 0 without any."""
        correct = 0
        for start in range(0, len(numbers), 2048):
            for images, labels, positions in examples.chunks(numbers[None, start : start + 2048]):
                correct += int(self._count_correct(images, labels, positions[0]))
        return correct / max(1, len(numbers))

    def weights(self) -> list[np.ndarray]:
        """Return a copy of the network's weights in the order of `WEIGHT_NAMES`."""
        return [variable.numpy().copy() for variable in self._network.trainable_variables]

    def state(self, scores: list[float], best: list[np.ndarray]) -> State:
        """Return everything needed to go on."""
        state = {f"weights/{n}": v for n, v in enumerate(self.weights())}
        state |= {f"best/{n}": v for n, v in enumerate(best)}
        state |= {f"optimizer/{n}": v.numpy().copy() for n, v in enumerate(self._optimizer.variables)}
        return state | {"scores": np.array(scores)}

    def restore(self, state: State) -> tuple[list[float], list[np.ndarray]]:
        """Take over weights and optimizer; return scores and best weights."""
        for number, variable in enumerate(self._network.trainable_variables):
            variable.assign(state[f"weights/{number}"])
        for number, variable in enumerate(self._optimizer.variables):
            variable.assign(state[f"optimizer/{number}"])
        best = [np.array(state[f"best/{number}"]) for number in range(len(WEIGHT_NAMES))]
        return [float(score) for score in state["scores"]], best

    def _train_steps(
        self, images: tf.Tensor, labels: tf.Tensor, positions: tf.Tensor, rates: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        smoothing = float(self.hyperparameters["label_smoothing"])
        num_classes = self._network.output_shape[-1]
        variables = self._network.trainable_variables
        total = tf.zeros(())
        num_steps = tf.shape(positions)[0]
        for step in tf.range(num_steps):
            random = seed + tf.stack([0, step * 8])
            batch = tf.gather(images, positions[step])
            batch = self._normalise(augment(batch, str(self.hyperparameters["augmentation"]), random))
            targets = tf.one_hot(tf.gather(labels, positions[step]), num_classes)
            targets = targets * (1 - smoothing) + smoothing / num_classes
            with tf.GradientTape() as tape:
                logits = self._logits(batch, random)
                loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, logits))
            self._optimizer.learning_rate.assign(rates[step])
            self._optimizer.apply(tape.gradient(loss, variables), variables)
            total += loss
            if (num_steps - step) % AVERAGE_EVERY == 1:
                self._num_averaged.assign_add(1.0)
                for variable, mean in zip(variables, self._means, strict=True):
                    mean.assign_add((variable - mean) / self._num_averaged)
        return total

    def _logits(self, batch: tf.Tensor, random: tf.Tensor) -> tf.Tensor:
        """Return the network's logits with dropout behind the first two Dense layers."""
        rate = float(self.hyperparameters["dropout"])
        flatten, *hidden, last = self._network.layers
        values = flatten(batch)
        for number, layer in enumerate(hidden):
            values = layer.activation(self._dense(layer, values))
            if rate > 0:
                values = tf.nn.experimental.stateless_dropout(values, rate, seed=random + tf.constant([0, 4 + number]))
        return self._dense(last, values)

    def _dense(self, layer: keras.layers.Dense, values: tf.Tensor) -> tf.Tensor:
        """Return a Dense layer's output before its activation, float32."""
        if not self._half:
            return tf.matmul(values, layer.kernel) + layer.bias
        kernel = layer.kernel
        first, *_, last = self._network.layers[1:]
        more_inputs = 0 if layer is first else -kernel.shape[0] % PRODUCT_STEP
        more_units = 0 if layer is last else -kernel.shape[1] % PRODUCT_STEP
        if more_inputs or more_units:
            kernel = tf.pad(kernel, [[0, more_inputs], [0, more_units]])
            values = tf.pad(values, [[0, 0], [0, more_inputs]])
        product = tf.matmul(tf.cast(values, tf.bfloat16), tf.cast(kernel, tf.bfloat16))
        if more_units:
            product = product[:, : layer.kernel.shape[1]]
        return tf.cast(product, tf.float32) + layer.bias

    def _count_correct(self, images: tf.Tensor, labels: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
        predicted = tf.argmax(self._model(tf.gather(images, positions)), axis=1, output_type=tf.int32)
        return tf.reduce_sum(tf.cast(predicted == tf.gather(labels, positions), tf.int32))


def _complete(hyperparameters: dict[str, Value]) -> dict[str, Value]:
    return {**RECIPE, **hyperparameters}


def _optimizer(name: str) -> keras.optimizers.Optimizer:
    if name == "SGD":
        optimizer = keras.optimizers.SGD(momentum=0.9, nesterov=True)
    else:
        kinds = {"Adam": keras.optimizers.Adam, "RMSprop": keras.optimizers.RMSprop, "Nadam": keras.optimizers.Nadam}
        optimizer = kinds[name]()
    # There is one device, so nothing to sum. What Keras does instead registers a gradient function for good, and with
    # it the graph and the weights of every network that was ever traced.
    optimizer._all_reduce_sum_gradients = list
    return optimizer


def _collect() -> None:
    """Free graph and variables of a past program, whose reference cycles reference counting leaves alone."""
    keras.backend.clear_session(free_memory=True)


def _free_gpu_bytes() -> int:
    device = tf.config.list_physical_devices("GPU")[0]
    limit = tf.config.experimental.get_device_details(device).get("memory_bytes", 8 * 2**30)
    return limit - tf.config.experimental.get_memory_info("GPU:0")["current"]
