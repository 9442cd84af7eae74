"""What trains the MLP: examples that lie on the device, and a compiled loop over an epoch of them."""

import contextlib
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pynvml
import tensorflow as tf

from components.data.contract import TrainData
from components.models.contract import State
from components.models.hardware import fits_on_gpu
from components.models.mlp.network import augment
from components.models.mlp.updates import FusedUpdates, KerasUpdates, Updates
from components.models.sampling import channel_statistics
from components.models.schedule import AVERAGE_EVERY
from components.models.space import Value

HOST_STEPS = 64
"""Steps whose images travel to the device together where not all of them fit."""

HOST_BYTES = 2**28
"""Size of what travels to a GPU together at most: two such parts, and what they are cast from, are there at a time."""

PRODUCT_STEP = 64
"""Widths that a bfloat16 product is padded to: TensorFlow keeps 1,024 of them, 0.3 MB for each combination of widths."""

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


class CompiledLoop:
    """A network, its optimizer and the compiled loop over an epoch, reusable for any seed and learning rate.

    Args:
        model: What `build` returned.
        hyperparameters: A complete set without the learning rate, `batch_size` included.
        half: Whether training multiplies in bfloat16; weights, sums and validation stay float32.
        fused: Whether weights are updated by fused kernels: faster on a GPU, and rounded otherwise than by Keras.
    """

    def __init__(self, model: keras.Model, hyperparameters: dict[str, Value], *, half: bool, fused: bool) -> None:
        self.hyperparameters = hyperparameters
        self._half = half
        self.batch_size = int(hyperparameters["batch_size"])
        self._model = model
        self._network, normalise = model.get_layer("network"), model.get_layer("normalise")
        # What the layer computes anew with every batch. By a constant TensorFlow would multiply, rounded otherwise.
        self._mean, self._deviation = normalise.mean, tf.maximum(tf.sqrt(normalise.variance), keras.config.epsilon())
        self._optimizer = _optimizer(str(hyperparameters["optimizer"]))
        self._optimizer.build(self._network.trainable_variables)
        kind = FusedUpdates if fused else KerasUpdates
        self._updates: Updates = kind(self._optimizer, self._network.trainable_variables)
        # Not all zeros: Nadam starts a product at one.
        self._fresh_slots = [variable.numpy() for variable in self._optimizer.variables]
        # Of the weights after every `AVERAGE_EVERY`-th step of an epoch.
        self._sums = [tf.Variable(tf.zeros_like(v), trainable=False) for v in self._network.trainable_variables]
        self._num_averaged = 0
        self._train_steps = tf.function(self._train_steps, reduce_retracing=True)  # type: ignore[method-assign]
        self._count_correct = tf.function(self._count_correct, reduce_retracing=True)  # type: ignore[method-assign]

    def reset(self, seed: int) -> None:
        """Start a training: fresh weights and optimizer."""
        for number, variable in enumerate(self._network.trainable_variables):
            # Keras takes 32 bits.
            own = (10 * seed + number) % (2**31 - 1)
            initial = keras.initializers.GlorotUniform(seed=own) if len(variable.shape) > 1 else "zeros"
            variable.assign(keras.initializers.get(initial)(variable.shape))
        for variable, values in zip(self._optimizer.variables, self._fresh_slots, strict=True):
            variable.assign(values)
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
            total += float(self._train_steps(images, labels, positions, part, random))
            done += len(positions)
            self._num_averaged += math.ceil(len(positions) / AVERAGE_EVERY)
        return total / len(rates)

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
        correct = 0
        for start in range(0, len(indices), 2048):
            for images, labels, positions in examples.chunks(indices[None, start : start + 2048]):
                correct += int(self._count_correct(images, labels, positions[0]))
        return correct / max(1, len(indices))

    def weights(self) -> list[np.ndarray]:
        """Return a copy of the network's weights in the order of `WEIGHT_NAMES`."""
        return [variable.numpy().copy() for variable in self._network.trainable_variables]

    def state(self) -> State:
        """Return weights and optimizer."""
        state = {f"weights/{n}": v for n, v in enumerate(self.weights())}
        return state | {f"optimizer/{n}": v.numpy().copy() for n, v in enumerate(self._optimizer.variables)}

    def restore(self, state: State) -> None:
        """Take over weights and optimizer."""
        for number, variable in enumerate(self._network.trainable_variables):
            variable.assign(state[f"weights/{number}"])
        for number, variable in enumerate(self._optimizer.variables):
            variable.assign(state[f"optimizer/{number}"])

    def _train_steps(
        self, images: tf.Tensor, labels: tf.Tensor, positions: tf.Tensor, rows: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        variables = self._network.trainable_variables
        total = tf.zeros(())
        num_steps = tf.shape(positions)[0]
        for step in tf.range(num_steps):
            random = seed + tf.stack([0, step * 8])
            batch = tf.gather(images, positions[step])
            batch = augment(batch, str(self.hyperparameters["augmentation"]), random)
            batch = (tf.cast(batch, tf.float32) - self._mean) / self._deviation
            targets = tf.gather(labels, positions[step])
            with tf.GradientTape() as tape:
                logits = self._logits(batch, random)
                loss = tf.reduce_mean(self._losses(targets, logits))
            self._updates.apply(tape.gradient(loss, variables), [rows[step, n] for n in range(rows.shape[1])])
            total += loss
            if (num_steps - step) % AVERAGE_EVERY == 1:
                for variable, sums in zip(variables, self._sums, strict=True):
                    sums.assign_add(variable)
        return total

    def _losses(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Return each example's cross entropy."""
        smoothing = float(self.hyperparameters["label_smoothing"])
        if smoothing == 0:
            return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        num_classes = logits.shape[-1]
        targets = tf.one_hot(labels, num_classes) * (1 - smoothing) + smoothing / num_classes
        return tf.nn.softmax_cross_entropy_with_logits(targets, logits)

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
        predicted = tf.argmax(self._model(tf.gather(images, positions)), axis=1)
        return tf.reduce_sum(tf.cast(predicted == tf.gather(labels, positions), tf.int64))


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
