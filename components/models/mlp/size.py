"""How large the MLP's ONNX file may become, known before anything is trained; imports no framework."""

import math
from pathlib import Path

import numpy as np

from components.data.contract import DatasetInfo
from components.errors import DataError

MAX_UNITS = 1024
"""Units of a hidden layer at most, in every search space."""

MAX_ONNX_BYTES = 2**31 - 2**20
"""An ONNX file is one protobuf message, which ends at 2 GiB; a mebibyte is left for the graph."""


def largest_onnx_bytes(shape: tuple[int, ...], num_classes: int) -> int:
    """Return the bytes of the largest MLP's weights, float32.

    Args:
        shape: (H, W, C) of the images.
        num_classes: Number of classes, K.
    """
    inputs = math.prod(shape)
    return 4 * ((inputs + 1) * MAX_UNITS + (MAX_UNITS + 1) * MAX_UNITS + (MAX_UNITS + 1) * num_classes)


def check_data(train_dir: Path | str) -> None:
    """Raise `DataError` where the search could find an MLP for these images that no ONNX file can hold.

    Args:
        train_dir: `train_data/` as the ingest step wrote it.
    """
    shape = np.load(Path(train_dir) / "images.npy", mmap_mode="r", allow_pickle=False).shape[1:]
    info = DatasetInfo.load(Path(train_dir))
    num_bytes = largest_onnx_bytes(shape, len(info.classes))
    if num_bytes > MAX_ONNX_BYTES:
        pixels = MAX_ONNX_BYTES // (4 * MAX_UNITS * shape[2])
        raise DataError(
            f"images of {info.name} must be small enough for an MLP of {MAX_UNITS:,} units that fits into an ONNX file of 2 GiB;"
            f" got {shape[0]} x {shape[1]} pixels, which make up to {num_bytes / 2**30:.1f} GiB. Set a smaller size in"
            f" dataset.yaml, at most about {math.isqrt(pixels)} x {math.isqrt(pixels)}"
        )
