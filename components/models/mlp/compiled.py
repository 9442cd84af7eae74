"""What trains the MLP: examples that lie on the device, and a compiled loop over an epoch of them."""

import contextlib
import itertools
import logging
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import keras
import numpy as np
import pynvml
import tensorflow as tf

from components.data.contract import TrainData
from components.models.contract import State
from components.models.faults import first_line, is_out_of_memory
from components.models.hardware import fits_on_gpu
from components.models.mlp.network import augment
from components.models.mlp.size import MAX_UNITS
from components.models.mlp.updates import FusedUpdates, KerasUpdates
from components.models.sampling import channel_statistics
from components.models.schedule import AVERAGE_EVERY
from components.models.space import Value

log = logging.getLogger(__name__)

HOST_STEPS = 64
"""Steps whose images travel to the device together where not all of them fit."""

HOST_BYTES = 2**28
"""Size of what travels to a GPU together at most: two such parts, and what they are cast from, are there at a time."""

PRODUCT_STEP = 64
"""Widths that a bfloat16 product is padded to: TensorFlow keeps 1,024 of them, 0.3 MB for each combination of widths."""

SHARED_INPUTS = 16_384
"""A first layer of at most so many inputs costs a GPU less at full width than compiling a program for each width would."""

SHARED_STEP = 256
"""Units that the first layer of a shared loop is rounded up to for more inputs."""

WEIGHT_NAMES = tuple(f"dense_{layer}/{part}" for layer in (1, 2, 3) for part in ("kernel", "bias"))


class Examples:
    """All examples of a dataset: on the device where they fit, else the images where they are, taken chunk by chunk."""

    def __init__(self, data: TrainData, on_gpu: bool) -> None:
        self._source = data.images
        fits = not isinstance(data.images, np.memmap)
        if on_gpu:
            # While they are cast, the images are there as bytes and in half precision.
            fits = fits_on_gpu(3 * data.images.nbytes, free_gpu_bytes())
        # TensorFlow computes with int32 on the host, wherever the GPU is: indices and labels are int64.
        self._labels = tf.constant(data.labels, tf.int64)
        # Half precision holds 0-255 exactly; no GPU kernel gathers uint8.
        self.dtype = tf.float16 if on_gpu else tf.uint8
        self._images = tf.cast(tf.constant(data.images), self.dtype) if fits else None

    @property
    def on_device(self) -> bool:
        """Whether all images lie on the device, so that an epoch is one chunk."""
        return self._images is not None

    def chunks(self, indices: np.ndarray) -> Iterator[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
        """Yield (images, labels, positions) for indices of examples (steps, batch size); positions point into the images."""
        if self._images is not None:
            yield self._images, self._labels, tf.constant(indices, tf.int64)
            return
        parts = np.array_split(indices, -(-len(indices) // self._steps_together(indices.shape[1])))
        with ThreadPoolExecutor(1) as reader:
            # While the device trains on one chunk, the next one is read.
            coming = reader.submit(self._source.__getitem__, parts[0].reshape(-1))
            for part, following in zip(parts, [*parts[1:], None], strict=True):
                pixels = tf.cast(tf.constant(coming.result()), self.dtype)
                if following is not None:
                    coming = reader.submit(self._source.__getitem__, following.reshape(-1))
                positions = np.arange(part.size, dtype=np.int64).reshape(part.shape)
                yield pixels, tf.gather(self._labels, part.reshape(-1)), tf.constant(positions)

    def _steps_together(self, batch_size: int) -> int:
        if self.dtype is tf.uint8:
            return HOST_STEPS
        step_bytes = 2 * batch_size * self._source[:1].nbytes
        return max(1, min(HOST_STEPS, HOST_BYTES // step_bytes))

    def sample(self, indices: np.ndarray) -> np.ndarray:
        """Return up to 64 of the numbered images (n, H, W, C) uint8."""
        return np.ascontiguousarray(self._source[indices[:64]])

    def statistics(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation per channel, in 0-255, of the numbered images (10,000 of them at most)."""
        return channel_statistics(self._source, indices)


class _Kind(NamedTuple):
    """What trainings must have in common to share a program."""

    optimizer: str
    drops_out: bool
    smooths: bool
    augmentation: str


class CompiledLoop:
    """A network, its optimizers and the compiled loops over an epoch, reusable for any seed and learning rate.

    A shared loop trains every network that fits into its own: the rest of the weights are zeros, which no step changes, and
    activations and rates are arguments. So XLA, which takes a second to compile a program, compiles one for each kind of
    training and size of a batch, and not one for each network. On a GPU its steps take a third of the time, because they
    launch few kernels (docs/experiments/2026-11-26-gpu.md).

    Args:
        model: What `build` returned.
        half: Whether training multiplies in bfloat16; weights, sums and validation stay float32.
        shared: Whether networks of fewer units may be trained, by fused kernels that XLA compiles: faster on a GPU, and
            rounded otherwise than by Keras.
    """

    def __init__(self, model: keras.Model, *, half: bool, shared: bool) -> None:
        self._half, self._shared, self._compiles = half, shared, shared
        self._model = model
        self._network, normalise = model.get_layer("network"), model.get_layer("normalise")
        # What the layer computes anew with every batch. By a constant TensorFlow would multiply, rounded otherwise.
        self._mean, self._deviation = normalise.mean, tf.maximum(tf.sqrt(normalise.variance), keras.config.epsilon())
        # Of the weights after every `AVERAGE_EVERY`-th step of an epoch.
        self._sums = [tf.Variable(tf.zeros_like(v), trainable=False) for v in self._network.trainable_variables]
        self._num_averaged = 0
        self._all_updates: dict[str, KerasUpdates] = {}
        self._ran: set[tuple[_Kind, int]] = set()
        # Each keeps a program for every kind of training, and for every size of a batch, that it was called with.
        self._compiled = tf.function(self._train_steps, jit_compile=True)
        self._launched = tf.function(self._train_steps, reduce_retracing=True)
        self._counted = tf.function(self._count_correct, reduce_retracing=True)

    def take(self, hyperparameters: dict[str, Value]) -> None:
        """Train such networks from now on.

        Args:
            hyperparameters: A complete set without the learning rate, `batch_size` included. Where the loop is not shared, those
                that the model was built of, always the same.
        """
        self.hyperparameters = given = hyperparameters
        self.batch_size = int(given["batch_size"])
        inputs, num_classes = self._network.layers[1].kernel.shape[0], self._network.layers[-1].units
        sizes = (inputs, int(given["units_1"]), int(given["units_2"]), num_classes)
        # Of the weights in the order of `WEIGHT_NAMES`.
        self._shapes = [shape for pair in itertools.pairwise(sizes) for shape in (pair, pair[1:])]
        name = str(given["optimizer"])
        if name not in self._all_updates:
            kind = FusedUpdates if self._shared else KerasUpdates
            self._all_updates[name] = kind(_optimizer(name), self._network.trainable_variables)
        self._updates = self._all_updates[name]
        dropout, smoothing = float(given["dropout"]), float(given["label_smoothing"])
        self._kind = _Kind(name, dropout > 0, smoothing > 0, str(given["augmentation"]))
        relu = [float(given[f"activation_{layer}"] == "relu") for layer in (1, 2)]
        self._arguments = tf.constant([*relu, dropout, smoothing], tf.float32)

    def reset(self, seed: int) -> None:
        """Start a training: fresh weights and optimizer."""
        for number, (variable, shape) in enumerate(zip(self._network.trainable_variables, self._shapes, strict=True)):
            # Keras takes 32 bits.
            own = (10 * seed + number) % (2**31 - 1)
            initial = keras.initializers.GlorotUniform(seed=own) if len(shape) > 1 else "zeros"
            variable.assign(_padded(keras.initializers.get(initial)(shape), variable.shape))
        self._updates.reset()

    def train(self, examples: Examples, indices: np.ndarray, rates: np.ndarray, seed: tuple[int, int]) -> float:
        """Run an epoch; return its mean loss.

        Args:
            examples: What the indices point to.
            indices: (steps, batch size) indices of examples.
            rates: (steps,) float32 learning rates.
            seed: Seed of augmentation and dropout.
        """
        total, done, rows = 0.0, 0, self._updates.rows(rates)
        self._num_averaged = 0
        for variable in self._sums:
            variable.assign(tf.zeros_like(variable))
        for images, labels, positions in examples.chunks(indices):
            part = tf.constant(rows[done : done + len(positions)])
            random = tf.constant(np.array([seed[0], seed[1] * 1_000_003 + done], np.int32))
            inputs = (images, labels, positions, part, random, self._arguments, self._kind)
            total += float(self._run(inputs, examples.on_device))
            done += len(positions)
            self._num_averaged += math.ceil(len(positions) / AVERAGE_EVERY)
        return total / len(rates)

    def _run(self, inputs: tuple[tf.Tensor | _Kind, ...], compiled: bool) -> tf.Tensor:
        """Take steps by XLA's program where that is wanted and works, else by TensorFlow's executor."""
        program = (self._kind, self.batch_size)
        if compiled and self._compiles:
            try:
                total = self._compiled(*inputs)
            except tf.errors.OpError as error:
                # A program that ran before is not what XLA cannot compile: the device has a fault.
                if is_out_of_memory(error) or program in self._ran:
                    raise
                self._compiles = False
                log.warning(
                    "the MLP's kernels are launched one by one; XLA cannot compile its epoch: %s", first_line(error)
                )
            else:
                self._ran.add(program)
                return total
        return self._launched(*inputs)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the network the mean of its weights over the last epoch, for as long as the context lasts."""
        variables = self._network.trainable_variables
        current = [tf.identity(variable) for variable in variables]
        for variable, total in zip(variables, self._sums, strict=True):
            variable.assign(total / self._num_averaged)
        yield
        for variable, values in zip(variables, current, strict=True):
            variable.assign(values)

    def accuracy(self, examples: Examples, indices: np.ndarray) -> float:
        """Return the share of the numbered examples that is classified correctly; 0 without any."""
        correct, mirrors = 0, bool(self.hyperparameters["mirror_average"])
        for start in range(0, len(indices), 2048):
            for images, labels, positions in examples.chunks(indices[None, start : start + 2048]):
                correct += int(self._counted(images, labels, positions[0], self._arguments, mirrors))
        return correct / max(1, len(indices))

    def weights(self) -> list[np.ndarray]:
        """Return a copy of the network's weights in the order of `WEIGHT_NAMES`."""
        return [_cut(v, shape) for v, shape in zip(self._network.trainable_variables, self._shapes, strict=True)]

    def state(self) -> State:
        """Return weights and optimizer."""
        state = {f"weights/{n}": v for n, v in enumerate(self.weights())}
        return state | {f"optimizer/{n}": _cut(v, shape) for n, (v, shape) in enumerate(self._optimizer_variables())}

    def restore(self, state: State) -> None:
        """Take over weights and optimizer."""
        for number, variable in enumerate(self._network.trainable_variables):
            variable.assign(_padded(state[f"weights/{number}"], variable.shape))
        for number, (variable, _) in enumerate(self._optimizer_variables()):
            variable.assign(_padded(state[f"optimizer/{number}"], variable.shape))

    def _optimizer_variables(self) -> list[tuple[keras.Variable, tuple[int, ...]]]:
        """Return the optimizer's variables and what of each belongs to the network: all slots of a weight follow each other."""
        variables = self._updates.optimizer.variables
        num_slots = sum(v.ndim > 0 for v in variables) // len(self._shapes)
        slots = iter([shape for shape in self._shapes for _ in range(num_slots)])
        return [(v, next(slots) if v.ndim else ()) for v in variables]

    def _train_steps(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        positions: tf.Tensor,
        rows: tf.Tensor,
        seed: tf.Tensor,
        arguments: tf.Tensor,
        kind: _Kind,
    ) -> tf.Tensor:
        variables = self._network.trainable_variables
        total = tf.zeros(())
        num_steps = tf.shape(positions)[0]
        for step in tf.range(num_steps):
            random = seed + tf.stack([0, step * 8])
            batch = tf.gather(images, positions[step])
            batch = augment(batch, kind.augmentation, random)
            batch = (tf.cast(batch, tf.float32) - self._mean) / self._deviation
            targets = tf.gather(labels, positions[step])
            with tf.GradientTape() as tape:
                logits = self._logits(batch, arguments, random if kind.drops_out else None)
                loss = tf.reduce_mean(self._losses(targets, logits, arguments, kind.smooths))
            updates = self._all_updates[kind.optimizer]
            updates.apply(tape.gradient(loss, variables), [rows[step, n] for n in range(rows.shape[1])])
            total += loss
            if (num_steps - step) % AVERAGE_EVERY == 1:
                for variable, sums in zip(variables, self._sums, strict=True):
                    sums.assign_add(variable)
        return total

    def _losses(self, labels: tf.Tensor, logits: tf.Tensor, arguments: tf.Tensor, smooths: bool) -> tf.Tensor:
        """Return each example's cross entropy."""
        if not smooths:
            return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        smoothing = arguments[3] if self._shared else float(self.hyperparameters["label_smoothing"])
        num_classes = logits.shape[-1]
        targets = tf.one_hot(labels, num_classes) * (1 - smoothing) + smoothing / num_classes
        return tf.nn.softmax_cross_entropy_with_logits(targets, logits)

    def _logits(self, batch: tf.Tensor, arguments: tf.Tensor, random: tf.Tensor | None = None) -> tf.Tensor:
        """Return the network's logits; with a seed, with dropout behind the first two Dense layers."""
        rate = arguments[2] if self._shared else float(self.hyperparameters["dropout"])
        flatten, *hidden, last = self._network.layers
        values = flatten(batch)
        for number, layer in enumerate(hidden):
            values = self._dense(layer, values)
            if self._shared:
                values = tf.where(arguments[number] > 0, tf.nn.relu(values), tf.tanh(values))
            else:
                values = layer.activation(values)
            if random is not None:
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

    def _count_correct(
        self, images: tf.Tensor, labels: tf.Tensor, positions: tf.Tensor, arguments: tf.Tensor, mirrors: bool
    ) -> tf.Tensor:
        predicted = tf.argmax(self._probabilities(tf.gather(images, positions), arguments, mirrors), axis=1)
        return tf.reduce_sum(tf.cast(predicted == tf.gather(labels, positions), tf.int64))

    def _probabilities(self, images: tf.Tensor, arguments: tf.Tensor, mirrors: bool) -> tf.Tensor:
        if not self._shared:
            return self._model(images)
        pixels = (tf.cast(images, tf.float32) - self._mean) / self._deviation
        both = [pixels, tf.reverse(pixels, axis=[2])] if mirrors else [pixels]
        return tf.add_n([tf.nn.softmax(self._logits(values, arguments)) for values in both]) / len(both)


def shared_units(hyperparameters: dict[str, Value], num_inputs: int) -> dict[str, Value]:
    """Return the `units_1` and `units_2` of the loop that a GPU trains such a network in."""
    steps = {"units_1": MAX_UNITS if num_inputs <= SHARED_INPUTS else SHARED_STEP, "units_2": MAX_UNITS}
    return {name: -(-int(hyperparameters[name]) // step) * step for name, step in steps.items()}


def _cut(variable: keras.Variable, shape: tuple[int, ...]) -> np.ndarray:
    """Return a copy of what belongs to the network."""
    return variable.numpy()[tuple(slice(size) for size in shape)].copy()


def _padded(values: tf.Tensor | np.ndarray, shape: tuple[int, ...]) -> tf.Tensor | np.ndarray:
    """Return the values with zeros behind them."""
    if tuple(values.shape) == tuple(shape):
        return values
    return tf.pad(values, [[0, size - own] for own, size in zip(values.shape, shape, strict=True)])


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


def free_gpu_bytes() -> int:
    """Return how much memory of the first GPU that this process may use is free, in bytes, other processes counted.

    Raises:
        pynvml.NVMLError: There is no NVIDIA driver or no such GPU.
    """
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    pynvml.nvmlInit()
    try:
        by_uuid = first.startswith(("GPU-", "MIG-"))
        index = int(first) if first.isdigit() else 0
        gpu = pynvml.nvmlDeviceGetHandleByUUID(first) if by_uuid else pynvml.nvmlDeviceGetHandleByIndex(index)
        return int(pynvml.nvmlDeviceGetMemoryInfo(gpu).free)
    finally:
        pynvml.nvmlShutdown()
