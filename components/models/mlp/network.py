"""The MLP from raw pixels to probabilities, and what training does to the pixels."""

import keras
import numpy as np
import tensorflow as tf

from components.models.space import Value

MAX_SHIFT_FRACTION = 0.04


def build(
    hyperparameters: dict[str, Value], shape: tuple[int, ...], num_classes: int, mean: np.ndarray, std: np.ndarray
) -> keras.Model:
    """Return the model from raw pixels (n, H, W, C) to probabilities (n, K); its layer `network` gives logits."""
    network = keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Flatten(),
            keras.layers.Dense(int(hyperparameters["units_1"]), activation=str(hyperparameters["activation_1"])),
            keras.layers.Dense(int(hyperparameters["units_2"]), activation=str(hyperparameters["activation_2"])),
            keras.layers.Dense(num_classes),
        ],
        name="network",
    )
    images = keras.Input(shape, dtype="uint8", name="images")
    pixels = keras.layers.Normalization(mean=mean, variance=std**2, name="normalise")(images)
    probabilities = keras.layers.Softmax()(network(pixels))
    if hyperparameters["mirror_average"]:
        mirrored = keras.layers.Softmax()(network(keras.ops.flip(pixels, axis=2)))
        probabilities = keras.layers.Average()([probabilities, mirrored])
    return keras.Model(images, probabilities)


def augment(images: tf.Tensor, kind: str, seed: tf.Tensor) -> tf.Tensor:
    """Mirror and shift every image on its own, all images at once.

    Args:
        images: (n, H, W, C) pixels of any type.
        kind: `none`, `flip` or `flip_shift`.
        seed: (2,) int32.

    Returns:
        Like `images`. Shifts are whole pixels; borders are repeated.
    """
    if kind == "none":
        return images
    num, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    # int64, because TensorFlow computes with int32 on the host, wherever the GPU is.
    columns = tf.tile(tf.range(width, dtype=tf.int64)[None], [num, 1])
    if kind == "flip_shift":
        rows = tf.range(height, dtype=tf.int64)[None] + _shifts(num, height, seed + tf.constant([0, 1]))
        images = tf.gather(images, tf.clip_by_value(rows, 0, height - 1), axis=1, batch_dims=1)
        columns += _shifts(num, width, seed + tf.constant([0, 2]))
    mirrored = tf.random.stateless_uniform([num, 1], seed) < 0.5
    columns = tf.where(mirrored, width - 1 - columns, columns)
    return tf.gather(images, tf.clip_by_value(columns, 0, width - 1), axis=2, batch_dims=1)


def _shifts(num: tf.Tensor, size: int, seed: tf.Tensor) -> tf.Tensor:
    largest = round(MAX_SHIFT_FRACTION * size)
    return tf.cast(tf.random.stateless_uniform([num, 1], seed, -largest, largest + 1, tf.int32), tf.int64)
