"""Latency of an exported model, against calling the native one; imports neither TensorFlow nor torch."""

import functools
from collections.abc import Callable

import numpy as np

from benchmarks.harness import Row, interleaved, row, seconds
from components.evaluation.inference import OnnxModel

BATCHES = (1, 256)


def latency(
    name: str,
    onnx_path: str,
    native: Callable[[np.ndarray], object],
    label: str,
    shape: tuple[int, ...],
    num_classes: int,
    repeats: int,
) -> list[Row]:
    """Return milliseconds per call of the ONNX model and of the native one, for one image and for many.

    Args:
        name: The approach's name.
        onnx_path: The exported model.
        native: Computes probabilities of (n, H, W, C) uint8 images in the framework that trained it.
        label: How the native call is named in the table.
        shape: (H, W, C).
        num_classes: Number of classes, K.
        repeats: Measurements; each is the mean over several calls.
    """
    model = OnnxModel(onnx_path)
    rows = []
    for batch in BATCHES:
        images = np.random.default_rng(0).integers(0, 256, (batch, *shape), np.uint8)
        calls = 20 if batch == 1 else 2

        def per_call(function: Callable[[], object], calls: int = calls) -> float:
            function()
            return 1000 * seconds(lambda: [function() for _ in range(calls)]) / calls

        exported, original = interleaved(
            repeats,
            functools.partial(per_call, functools.partial(model.predict, images, num_classes)),
            functools.partial(per_call, functools.partial(native, images)),
        )
        rows.append(row(f"{name} inference, batch {batch}", "ms", exported, label, original, "ONNX Runtime, CPU"))
    return rows
